/* Virtual time, fibers and processes. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "proto/base/log.h"
#include "tests/sim/sim.h"

#if defined(__SANITIZE_ADDRESS__)
#include <dlfcn.h>
#include <sanitizer/common_interface_defs.h>
#define ASAN 1
#else
#define ASAN 0
#endif

enum { STACK_B = 1 << 20 };

struct world world;
int sim_verbose;
const char *sim_mutant;

void sim_fail(const char *fmt, ...)
{
    if (world.failed)
        return;
    world.failed = true;
    int n =
        snprintf(world.why, sizeof(world.why), "at %llu ms: ", (unsigned long long)world.now_ms);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(world.why + n, sizeof(world.why) - (size_t)n, fmt, ap);
    va_end(ap);
}

/* ---- log lines of the parts */

void log_init(const char *who, bool json, enum log_level max)
{
    (void)who;
    (void)json;
    (void)max;
}

static void say(const char *level, const char *fmt, va_list ap)
{
    if (!sim_verbose)
        return;
    fprintf(stderr, "%9.3f %-6s %s ", (double)world.now_ms / 1000,
            world.cur ? world.cur->name : "sim", level);
    vfprintf(stderr, fmt, ap);
    fputs(world.cur && world.cur->dead ? " (dead)\n" : "\n", stderr);
}

#define LOG(level, text)                                                                           \
    void log_##level(const char *fmt, ...)                                                         \
    {                                                                                              \
        va_list ap;                                                                                \
        va_start(ap, fmt);                                                                         \
        say(text, fmt, ap);                                                                        \
        va_end(ap);                                                                                \
    }

/* What may never be said, whatever the world does to a part: a queue within ran over, a step was impossible. */
void log_error(const char *fmt, ...)
{
    static const char *const never[] = { "events wait; one is lost", "scheduler: event" };
    va_list ap;
    va_start(ap, fmt);
    say("E", fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < sizeof(never) / sizeof(*never); i++)
        if (strstr(fmt, never[i]) && world.cur && !world.cur->dead)
            sim_fail("%s says: %s", world.cur->name, fmt);
}

LOG(warn, "W")
LOG(info, "I")

/* ---- fibers */

struct fiber {
    ucontext_t ctx;
    void *stack, *fake;
    void (*fn)(struct part *p);
    struct part *part;
    bool over;
    struct fiber *next;
};

static ucontext_t scheduler;
static void *scheduler_fake;
static const void *scheduler_stack;
static size_t scheduler_size;
static struct fiber *idle, *running;

static void switch_begin(void **fake, const void *stack, size_t size)
{
#if ASAN
    __sanitizer_start_switch_fiber(fake, stack, size);
#else
    (void)fake;
    (void)stack;
    (void)size;
#endif
}

static void switch_end(void *fake, const void **stack, size_t *size)
{
#if ASAN
    __sanitizer_finish_switch_fiber(fake, stack, size);
#else
    (void)fake;
    (void)stack;
    (void)size;
#endif
}

/* The sanitizer's own swapcontext() warns that it knows no fibers; it is told of each switch above. */
static void swap_stacks(ucontext_t *from, ucontext_t *to)
{
#if ASAN
    static int (*swap)(ucontext_t *, const ucontext_t *);
    if (!swap) {
        void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
        void *sym = libc ? dlsym(libc, "swapcontext") : NULL;
        memcpy(&swap, &sym, sizeof(swap));
        if (!swap)
            abort();
    }
    swap(from, to);
#else
    swapcontext(from, to);
#endif
}

static void fiber_entry(void)
{
    for (;;) {
        struct fiber *f = running;
        switch_end(f->fake, &scheduler_stack, &scheduler_size);
        f->fn(f->part);
        f->over = true;
        switch_begin(&f->fake, scheduler_stack, scheduler_size);
        swap_stacks(&f->ctx, &scheduler);
    }
}

static void fiber_make(struct fiber *f)
{
    f->stack =
        mmap(NULL, STACK_B, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (f->stack == MAP_FAILED)
        abort();
    getcontext(&f->ctx);
    f->ctx.uc_stack.ss_sp = f->stack;
    f->ctx.uc_stack.ss_size = STACK_B;
    makecontext(&f->ctx, fiber_entry, 0);
}

static struct fiber *fiber_new(void (*fn)(struct part *), struct part *part)
{
    struct fiber *f = idle;
    if (f) {
        idle = f->next;
    } else {
        f = calloc(1, sizeof(*f));
        if (!f)
            abort();
        fiber_make(f);
    }
    f->fn = fn;
    f->part = part;
    f->over = false;
    return f;
}

static void fiber_resume(struct fiber *f)
{
    running = f;
    switch_begin(&scheduler_fake, f->stack, STACK_B);
    swap_stacks(&scheduler, &f->ctx);
    switch_end(scheduler_fake, NULL, NULL);
    running = NULL;
}

static void fiber_yield(void)
{
    struct fiber *f = running;
    switch_begin(&f->fake, scheduler_stack, scheduler_size);
    swap_stacks(&f->ctx, &scheduler);
    switch_end(f->fake, &scheduler_stack, &scheduler_size);
}

/* ---- events */

struct event {
    uint64_t ms, seq, n;
    void (*fn)(void *arg, uint64_t n);
    void *arg;
};

static struct event *heap;
static size_t n_heap, room_heap;
static uint64_t seqs;

static bool before(const struct event *a, const struct event *b)
{
    return a->ms != b->ms ? a->ms < b->ms : a->seq < b->seq;
}

void at_ms(uint64_t when_ms, void (*fn)(void *, uint64_t), void *arg, uint64_t n)
{
    if (n_heap == room_heap) {
        room_heap = room_heap ? 2 * room_heap : 256;
        heap = realloc(heap, room_heap * sizeof(*heap));
        if (!heap)
            abort();
    }
    struct event ev = { when_ms < world.now_ms ? world.now_ms : when_ms, ++seqs, n, fn, arg };
    size_t i = n_heap++;
    for (; i && before(&ev, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = ev;
}

static struct event take(void)
{
    struct event top = heap[0], last = heap[--n_heap];
    size_t i = 0;
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= n_heap)
            break;
        if (k + 1 < n_heap && before(&heap[k + 1], &heap[k]))
            k++;
        if (!before(&heap[k], &last))
            break;
        heap[i] = heap[k];
        i = k;
    }
    heap[i] = last;
    return top;
}

void world_forget(void (*fn)(void *, uint64_t))
{
    for (size_t i = 0; i < n_heap; i++)
        if (heap[i].fn == fn) {
            free(heap[i].arg);
            heap[i].arg = NULL;
            heap[i].fn = NULL;
        }
    n_heap = 0;
}

void world_run(uint64_t until_ms)
{
    while (n_heap && heap[0].ms <= until_ms && !world.failed) {
        struct event ev = take();
        world.now_ms = ev.ms;
        ev.fn(ev.arg, ev.n);
    }
    if (!world.failed)
        world.now_ms = until_ms;
}

/* ---- parts */

static void run_part(struct part *p)
{
    p->waiting = false;
    world.cur = p;
    world.turns++;
    fiber_resume(p->fiber);
    world.cur = NULL;
    if (!p->fiber->over)
        return;
    p->fiber->next = idle;
    idle = p->fiber;
    p->fiber = NULL;
    if (p->lock) { /* its shim ends with it */
        disk_close(p->lock);
        p->lock = NULL;
    }
    if (world.host[p->host].main == p)
        world.host[p->host].main = NULL;
    if (!p->dead)
        net_part_dead(p, false);
    p->dead = true;
}

static void wake_event(void *arg, uint64_t gen)
{
    struct part *p = arg;
    if (!p->fiber || !p->waiting || p->wake_gen != gen)
        return;
    if (!p->dead && p->frozen_until_ms > world.now_ms) {
        at_ms(p->frozen_until_ms, wake_event, p, gen);
        return;
    }
    run_part(p);
}

struct part *part_start(enum part_kind kind, unsigned host, const char *name,
                        void (*main)(struct part *), void *arg)
{
    struct part *p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    *p = (struct part){
        .kind = kind, .host = host, .main = main, .arg = arg, .pid = ++world.n_parts + 1000
    };
    snprintf(p->name, sizeof(p->name), "%s", name);
    p->next = world.parts;
    world.parts = p;
    p->fiber = fiber_new(main, p);
    p->waiting = true;
    at_ms(world.now_ms, wake_event, p, p->wake_gen);
    return p;
}

void part_wake(struct part *p, uint64_t when_ms)
{
    if (!p->fiber || !p->waiting || p->dead)
        return;
    const struct host *h = &world.host[p->host];
    if (h->slow_until_ms > world.now_ms)
        when_ms += h->slow_ms;
    if (when_ms < world.now_ms)
        when_ms = world.now_ms;
    if (when_ms >= p->wake_ms)
        return;
    p->wake_ms = when_ms;
    at_ms(when_ms, wake_event, p, ++p->wake_gen);
}

int part_wait(uint64_t until_ms)
{
    struct part *p = world.cur;
    if (p->dead)
        return -1;
    p->waiting = true;
    p->wake_ms = UINT64_MAX;
    part_wake(p, until_ms);
    if (p->wake_ms == UINT64_MAX) /* for ever */
        p->wake_gen++;
    world.cur = NULL;
    fiber_yield();
    world.cur = p;
    return p->dead ? -1 : 0;
}

static void kill_one(struct part *p, bool power)
{
    if (p->dead || !p->fiber)
        return;
    check_reason(p->host, world.now_ms);
    if (sim_verbose)
        fprintf(stderr, "%9.3f sim    ! %s is killed\n", (double)world.now_ms / 1000, p->name);
    p->dead = true;
    world.crashes++;
    if (world.host[p->host].main == p)
        world.host[p->host].main = NULL;
    net_part_dead(p, power);
    if (p->lock) {
        disk_close(p->lock);
        p->lock = NULL;
    }
    if (p->waiting)
        at_ms(world.now_ms, wake_event, p, ++p->wake_gen);
}

void part_kill(struct part *p)
{
    kill_one(p, false);
}

static void start_event(void *arg, uint64_t host)
{
    (void)arg;
    world.host[host].down = false;
    host_start((unsigned)host);
}

void part_kill_for(struct part *p, uint64_t down_ms)
{
    bool main = world.host[p->host].main == p;
    kill_one(p, false);
    if (!main)
        return;
    world.host[p->host].down = true;
    at_ms(world.now_ms + down_ms, start_event, NULL, p->host);
}

void host_power(unsigned host, uint64_t salt, uint64_t down_ms)
{
    for (struct part *p = world.parts; p; p = p->next)
        if (p->host == host)
            kill_one(p, true);
    disk_power_loss(world.host[host].disk, salt);
    world.host[host].boot_ms = world.now_ms;
    world.host[host].down = true;
    at_ms(world.now_ms + down_ms, start_event, NULL, host);
}

void part_sigterm(struct part *p)
{
    p->signals++;
    part_wake(p, world.now_ms);
}

/* ---- a world's beginning and end */

void world_init(const struct plan *plan)
{
    world = (struct world){ .plan = plan, .rng = { plan->random } };
    world.n_hosts = FIRST_AGENT_HOST + (unsigned)plan->agents;
    for (unsigned i = 0; i < world.n_hosts; i++) {
        plan_host_name(i, world.host[i].name);
        world.host[i].disk = disk_new(i);
    }
    n_heap = 0;
    seqs = 0;
    net_init();
}

void world_clear(void)
{
    /* what still runs is killed and runs to its end: its memory is freed by its own code */
    for (struct part *p = world.parts; p; p = p->next) {
        p->dead = true;
        net_part_dead(p, true);
    }
    for (struct part *p = world.parts; p; p = p->next)
        while (p->fiber)
            run_part(p);
    net_clear();
    while (world.parts) {
        struct part *p = world.parts;
        world.parts = p->next;
        free(p->arg);
        free(p);
    }
    for (unsigned i = 0; i < world.n_hosts; i++)
        disk_free(&world.host[i].disk);
    n_heap = 0;
}
