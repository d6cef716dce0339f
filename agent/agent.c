#include "agent/agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/core.h"
#include "agent/facts.h"
#include "agent/product.h"
#include "agent/ring.h"
#include "agent/runner.h"
#include "agent/spec.h"
#include "agent/spool.h"
#include "collect/recipe.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/cas/cas.h"
#include "proto/lib/json.h"
#include "proto/link/keys.h"
#include "proto/link/link.h"
#include "proto/xfer/drive.h"

enum {
    LOOK_MS = 20,      /* how often a running task's rows are looked for */
    SWEEP_MS = 5000,   /* how often a folder that could not be removed is tried again */
    DRAIN_MS = 7500,   /* a drain that takes longer is cut short: 10 s are promised */
    HARD_MS = 1500,    /* for shims to kill their tasks */
    RETRY_MS = 5,      /* after a full queue */
    EVENTS_MAX = 1024, /* of the core, waiting */
    TURN_MAX = 256,    /* messages taken before anything else is looked at */
    COORDINATOR = 1,   /* its peer id on a client's link */
    OFFERS_MAX = 4,    /* of a task at a time: the coordinator takes a few of an agent together */
};

/* A task as this process knows it, beside the core's view. */
struct run {
    bool used;
    struct run_grant g;
    char *dir;
    struct id *inputs;
    uint64_t *sizes; /* of the inputs, bytes; 0 = not known yet */
    size_t n_inputs;
    bool pinned, fetching;
    int pidfd;     /* -1 = none */
    bool adopting; /* its shim lives but has not said its number yet */
    bool looked_damaged;
    struct spool *spool;
    struct spool_end end;
    struct products products;
    bool offering;
};

struct agent {
    const struct agent_conf *conf;
    char name[KEY_NAME_LEN];
    int lock_fd, sig_fd;
    uint8_t install[16];
    uint64_t boot;
    char *data, *program, *shim, *tasks; /* absolute */
    struct stat program_st;
    struct id engine;
    struct facts facts;
    char *facts_text;
    struct key_pair key;
    struct key_pub server;
    struct link *link;
    struct cas *cas;
    struct xfers *xfers;
    struct core core;
    struct run runs[CORE_TASKS_MAX];
    struct core_event events[EVENTS_MAX];
    size_t n_events;
    const struct msg_grant *grant; /* during its event */
    bool replaced, inputs_moved, welcomed, exit_now, drain_cut;
    uint64_t offers; /* made so far: each needs a number of its own */
    uint64_t drain_ms, retry_ms, start_ms, refused_log_ms;
    uint64_t sweep_ms; /* when folders of no task are to be removed; 0 = there are none */
    bool absent_told;
    struct err fatal;
    struct buf block;
    struct wire_row *rows; /* CORE_BATCH */
    struct wire_task_ref refs[CORE_TASKS_MAX];
};

static void push(struct agent *a, struct core_event ev)
{
    if (a->n_events < EVENTS_MAX)
        a->events[a->n_events++] = ev;
    else
        log_error("more than %d events wait; one is lost", EVENTS_MAX);
}

static struct run *find(struct agent *a, const struct task_key *key)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (a->runs[i].used && task_key_eq(&a->runs[i].g.key, key))
            return &a->runs[i];
    return NULL;
}

static void unpin(struct agent *a, struct run *r)
{
    for (size_t i = 0; r->pinned && i < r->n_inputs; i++)
        cas_unpin(a->cas, &r->inputs[i]);
    r->pinned = false;
    for (size_t i = 0; i < r->products.n; i++) {
        if (r->products.v[i].pinned)
            cas_unpin(a->cas, &r->products.v[i].id);
        r->products.v[i].pinned = false;
    }
}

static void run_clear(struct agent *a, struct run *r)
{
    if (!r->used)
        return;
    unpin(a, r);
    closep(&r->pidfd);
    spool_close(&r->spool);
    spool_end_clear(&r->end);
    products_clear(&r->products);
    free(r->inputs);
    free(r->sizes);
    free(r->dir);
    *r = (struct run){ .pidfd = -1 };
}

static void sweep_soon(struct agent *a)
{
    a->sweep_ms = clock_mono_ms() + SWEEP_MS;
}

static struct run *run_new(struct agent *a, const struct run_grant *g)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (!a->runs[i].used) {
            a->runs[i] = (struct run){ .used = true, .pidfd = -1, .g = *g };
            return &a->runs[i];
        }
    return NULL;
}

/* Why a task cannot go on, for task_end.tail. */
static void why(struct run *r, const char *text)
{
    spool_end_clear(&r->end);
    r->end = (struct spool_end){ .exit = 1 };
    r->end.tail = path_fmt("siofleet: %s\n", text);
    log_warn("task %" PRIu64 ": %s", r->g.key.task, text);
}

static enum task_cause cause_of(int code)
{
    if (code < 0)
        code = -code;
    if (code == ENOSPC || code == EDQUOT)
        return CAUSE_SPACE;
    return code == SF_EINTEGRITY ? CAUSE_INTEGRITY : CAUSE_EXIT;
}

static void cannot(struct agent *a, struct run *r, int code, const char *text)
{
    why(r, text);
    push(a, (struct core_event){ .kind = CORE_CANNOT, .key = r->g.key, .cause = cause_of(code) });
}

/* ---- inputs and products */

/* Note the size of an input; false when id is none of this task. */
static bool wants(struct run *r, const struct id *id, uint64_t size_b)
{
    bool found = false;
    for (size_t i = 0; i < r->n_inputs; i++)
        if (id_eq(&r->inputs[i], id)) {
            found = true;
            if (r->sizes && size_b)
                r->sizes[i] = size_b;
        }
    return found;
}

/* What is known of the inputs is more than the cache may hold: no waiting for space helps, so the attempt fails. */
static bool never_fits(struct agent *a, struct run *r)
{
    uint64_t sum = 0, cap = a->conf->cache_max_b;
    for (size_t i = 0; r->sizes && i < r->n_inputs; i++)
        if (__builtin_add_overflow(sum, r->sizes[i], &sum))
            sum = UINT64_MAX;
    if (!cap || sum <= cap)
        return false;
    char text[160];
    snprintf(text, sizeof(text),
             "input of %.1f MiB does not fit into the cache of %.1f MiB (--cache-max)",
             (double)sum / 1048576, (double)cap / 1048576);
    r->fetching = false;
    cannot(a, r, EFBIG, text);
    return true;
}

/* Ask for what is missing; READY once nothing is. Everything is pinned together, so that two tasks with inputs larger
 * than the cache cannot take each other's away one by one. */
static void get_inputs(struct agent *a, struct run *r)
{
    struct err e = { 0 };
    const struct cas_item *item;
    size_t here = 0;
    r->fetching = true;
    if (!r->sizes)
        r->sizes = calloc(r->n_inputs + 1, sizeof(*r->sizes));
    for (size_t i = 0; i < r->n_inputs; i++)
        if (cas_check(a->cas, &r->inputs[i]) && cas_stat(a->cas, &r->inputs[i], &item) == 0)
            wants(r, &r->inputs[i], item->size_b);
    if (never_fits(a, r))
        return;
    for (size_t i = 0; i < r->n_inputs; i++) {
        if (cas_has(a->cas, &r->inputs[i])) {
            here++;
            continue;
        }
        int rc = xfers_fetch(a->xfers, COORDINATOR, 0, &r->inputs[i], clock_mono_ms(), &e);
        if (rc < 0 && rc != -EALREADY && rc != -EBUSY && rc != -EEXIST) {
            r->fetching = false;
            cannot(a, r, rc, e.text);
            return;
        }
    }
    if (here < r->n_inputs)
        return;
    for (size_t i = 0; i < r->n_inputs; i++)
        cas_pin(a->cas, &r->inputs[i]);
    r->pinned = true;
    r->fetching = false;
    push(a, (struct core_event){ .kind = CORE_READY, .key = r->g.key });
}

static void made(struct agent *a, struct run *r, enum task_cause cause)
{
    r->offering = false;
    push(a, (struct core_event){ .kind = CORE_MADE, .key = r->g.key, .cause = cause });
}

/* Store what the task left, once, and write its info. */
static int store_products(struct agent *a, struct run *r, struct err *e)
{
    CLEANUP(buf_clear) struct buf text = BUF_INIT(SPEC_MAX);
    CLEANUP(json_decrefp) json_t *spec = NULL;
    int rc = 0;
    if (!r->products.info) {
        rc = run_load_spec(r->dir, &text, e);
        spec = rc == 0 ? json_loadb(text.data ? (char *)text.data : "", text.len, 0, NULL) : NULL;
        if (rc == 0)
            rc = products_list(r->dir, r->g.kind, spec, &r->products, e);
    }
    if (rc == 0)
        rc = products_store(&r->products, a->cas, e);
    if (rc < 0 || r->end.info)
        return rc;
    r->end.info = products_info(&r->products);
    return r->end.info
               ? 0
               : err_set(e, EMSGSIZE, "task %" PRIu64 ": its answer is too long", r->g.key.task);
}

/* Offer what the task left, a few at a time; MADE once the coordinator has all of it. Called again whenever a transfer
 * has ended. */
static void offer_products(struct agent *a, struct run *r)
{
    struct err e = { 0 };
    size_t busy = 0, open = 0;
    if (r->pinned)
        unpin(a, r); /* the inputs have done their work: they may make room */
    int rc = store_products(a, r, &e);
    for (size_t i = 0; rc == 0 && i < r->products.n; i++) {
        struct product *x = &r->products.v[i];
        if (x->done)
            continue;
        open++;
        if (!x->pinned) /* until the coordinator has it */
            x->pinned = cas_pin(a->cas, &x->id) == 0;
        if (!x->offered && busy < OFFERS_MAX) {
            rc = xfers_offer(a->xfers, COORDINATOR, ++a->offers, &x->id, x->kind, x->name,
                             clock_mono_ms(), &e);
            x->offered = rc == 0;
            if (rc == -EALREADY || rc == -EBUSY)
                rc = 0; /* another task offers the same, or will make room by ending */
        }
        busy += x->offered;
    }
    r->offering = rc == 0 && open;
    if (rc < 0) {
        why(r, e.text);
        made(a, r, cause_of(rc));
    } else if (!open) {
        made(a, r, CAUSE_DONE);
    }
}

/* An offer has ended. */
static void product_sent(struct agent *a, struct run *r, const struct xfers_end *end)
{
    bool mine = false, open = false;
    for (size_t i = 0; i < r->products.n; i++) {
        struct product *x = &r->products.v[i];
        if (x->stored && !x->done && id_eq(&x->id, &end->id)) {
            mine = true;
            x->done = !end->code;
        }
        open |= !x->done;
    }
    if (!mine || (open && !end->code))
        return; /* the loop offers the next ones */
    if (end->code)
        why(r, end->text);
    made(a, r, end->code ? cause_of(end->code) : CAUSE_DONE);
}

static int xfer_send(void *ctx, uint64_t peer, const struct msg *m)
{
    struct agent *a = ctx;
    return link_send(a->link, peer, m, NULL);
}

/* The coordinator has nothing to give unasked. */
static int xfer_offered(void *ctx, uint64_t peer, const struct msg_put_offer *o, bool here,
                        struct err *e)
{
    (void)ctx;
    (void)peer;
    (void)o;
    (void)here;
    return err_set(e, SF_EREFUSED, "an agent takes only what it asked for");
}

static int xfer_ended(void *ctx, const struct xfers_end *end, struct err *e)
{
    (void)e;
    struct agent *a = ctx;
    a->inputs_moved = true;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        struct run *r = &a->runs[i];
        if (!r->used)
            continue;
        if (end->dir == XFERS_OUT && r->offering) {
            product_sent(a, r, end);
        } else if (end->dir == XFERS_IN && r->fetching && wants(r, &end->id, end->size_b) &&
                   !never_fits(a, r) && end->code) {
            char hex[ID_HEX_LEN], text[300];
            id_hex(&end->id, hex);
            snprintf(text, sizeof(text), "input %s: %s", hex, end->text);
            r->fetching = false;
            cannot(a, r, end->code, text);
        }
    }
    return 0;
}

/* ---- what the core wants done */

static void do_accept(struct agent *a, const struct core_action *act)
{
    struct err e = { 0 };
    struct run *r = find(a, &act->key);
    if (!r) {
        const struct msg_grant *m = a->grant;
        if (!m || m->task != act->key.task)
            return;
        struct run_grant g = { .key = act->key,
                               .kind = core_find(&a->core, &act->key)->kind,
                               .sweep = m->sweep,
                               .engine = a->engine,
                               .timeout_ms = m->timeout_ms,
                               .threads = a->core.cores };
        r = run_new(a, &g);
        if (!r)
            return;
        int rc = spec_parse(&r->g, m->spec, m->spec_len, &r->inputs, &r->n_inputs, &e);
        if (rc == 0)
            rc = run_create(a->tasks, &r->g, m->spec, m->spec_len, &r->dir, &e);
        if (rc < 0) {
            cannot(a, r, rc, e.text);
            sweep_soon(a); /* what was begun of its folder */
            return;
        }
    }
    get_inputs(a, r);
}

/* The program file was replaced since this agent hashed it: its results would carry the wrong engine. It takes nothing
 * new then; a restart, which takes over what runs, is for whoever replaced it. */
static bool program_changed(struct agent *a)
{
    struct stat st;
    bool same = stat(a->program, &st) == 0 && st.st_ino == a->program_st.st_ino &&
                st.st_dev == a->program_st.st_dev && st.st_size == a->program_st.st_size &&
                st.st_mtim.tv_sec == a->program_st.st_mtim.tv_sec &&
                st.st_mtim.tv_nsec == a->program_st.st_mtim.tv_nsec;
    if (!same && !a->replaced) {
        log_warn("%s was replaced; nothing new is taken until the agent is restarted", a->program);
        push(a, (struct core_event){ .kind = CORE_CLOSE });
        a->replaced = true;
    }
    return !same;
}

static void do_start(struct agent *a, const struct core_action *act)
{
    struct run *r = find(a, &act->key);
    struct err e = { 0 };
    if (!r)
        return;
    if (program_changed(a)) {
        why(r, "the program file was replaced; it goes to another agent");
        push(a, (struct core_event){ .kind = CORE_CANNOT, .key = r->g.key, .cause = CAUSE_LOST });
        return;
    }
    for (size_t i = 0; i < r->n_inputs; i++)
        if (!cas_check(a->cas, &r->inputs[i])) {
            /* not the task's fault: it is granted again, and then the input is fetched again */
            why(r, "an input was removed from the cache");
            push(a,
                 (struct core_event){ .kind = CORE_CANNOT, .key = r->g.key, .cause = CAUSE_LOST });
            return;
        }
    char **paths = calloc(r->n_inputs + 1, sizeof(*paths));
    if (!paths) {
        cannot(a, r, -ENOMEM, "no memory for the paths of its inputs");
        return;
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->n_inputs; i++)
        if (!(paths[i] = cas_path(a->cas, &r->inputs[i])))
            rc = err_set(&e, ENOENT, "%s: an input is gone from the cache", r->dir);
    if (rc == 0)
        rc = run_start(r->dir, &r->g, a->shim, a->program, r->inputs, paths, r->n_inputs, &r->pidfd,
                       &e);
    for (size_t i = 0; i < r->n_inputs; i++)
        free(paths[i]);
    free(paths);
    if (rc < 0)
        cannot(a, r, rc, e.text);
}

static void do_save_end(struct agent *a, const struct core_action *act)
{
    struct run *r = find(a, &act->key);
    struct err e = { 0 };
    if (!r)
        return;
    r->end.cause = act->cause;
    r->fetching = r->offering = false;
    unpin(a, r);
    closep(&r->pidfd);
    if (!r->dir)
        return; /* it never came so far as to have a folder */
    if (r->spool)
        spool_sync(r->spool);
    /* without it a restarted agent looks at the status again, or calls the task lost: worse, not wrong */
    if (spool_save_end(r->dir, &r->end, &e) < 0)
        log_warn("task %" PRIu64 ": its end is not on disk: %s", r->g.key.task, e.text);
    if (act->cause != CAUSE_DONE)
        log_info("task %" PRIu64 " ended: %s", r->g.key.task, task_cause_name(act->cause));
}

static int send_hello(struct agent *a, size_t n_refs)
{
    struct msg m = { .type = M_AGENT_HELLO };
    struct msg_agent_hello *h = &m.agent_hello;
    h->install = a->install;
    h->install_len = sizeof(a->install);
    h->boot = a->boot;
    h->name = a->name;
    h->version = SIOFLEET_VERSION;
    h->engine = a->engine;
    h->cores = a->core.cores;
    h->memory_mib = a->conf->memory_mib ? a->conf->memory_mib : a->facts.memory_mib;
    h->kvm = a->facts.kvm;
    h->labels = a->conf->labels;
    h->facts = (const uint8_t *)a->facts_text;
    h->facts_len = strlen(a->facts_text);
    h->running = a->refs;
    h->n_running = n_refs;
    return link_send(a->link, COORDINATOR, &m, NULL);
}

/* References to all tasks that are still somebody's; returns how many. */
static size_t fill_refs(struct agent *a)
{
    size_t n = 0;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        const struct core_task *t = &a->core.t[i];
        if (t->state == CORE_ST_GONE || t->drop)
            continue;
        a->refs[n++] = (struct wire_task_ref){ .task = t->key.task,
                                               .epoch = t->key.epoch,
                                               .n = t->key.n,
                                               .state = core_ref_state(t),
                                               .done = t->rows };
    }
    return n;
}

static int send_beat(struct agent *a, uint64_t seq)
{
    struct msg m = { .type = M_BEAT };
    m.beat.boot = a->boot;
    m.beat.seq = seq;
    m.beat.accept = core_accepts(&a->core, clock_mono_ms());
    m.beat.n_tasks = fill_refs(a);
    m.beat.tasks = a->refs;
    return link_send(a->link, COORDINATOR, &m, NULL);
}

static int send_decline(struct agent *a, const struct core_action *act)
{
    struct msg m = { .type = M_DECLINE };
    m.decline.task = act->key.task;
    m.decline.epoch = act->key.epoch;
    m.decline.n = act->key.n;
    m.decline.code = act->code;
    m.decline.text = act->text;
    log_info("task %" PRIu64 " not taken: %s", act->key.task, act->text);
    return link_send(a->link, COORDINATOR, &m, NULL);
}

static int send_rows(struct agent *a, const struct core_action *act)
{
    struct run *r = find(a, &act->key);
    struct err e = { 0 };
    if (!r || !r->spool)
        return 0;
    int rc = spool_read(r->spool, act->first, act->rows, a->rows, &a->block, &e);
    if (rc < 0) {
        /* unreadable now, readable when counted: the disk is failing. The coordinator's lease runs out. */
        log_error("task %" PRIu64 " is given up: %s", r->g.key.task, e.text);
        push(a, (struct core_event){ .kind = CORE_DROPPED, .key = r->g.key });
        return 0;
    }
    struct msg m = { .type = M_ROWS };
    m.rows.task = act->key.task;
    m.rows.epoch = act->key.epoch;
    m.rows.n = act->key.n;
    m.rows.seq = act->seq;
    m.rows.sweep = r->g.sweep;
    m.rows.trace = r->g.trace;
    m.rows.engine = r->g.engine;
    m.rows.threads = r->g.threads;
    m.rows.rows = a->rows;
    m.rows.n_rows = act->rows;
    rc = link_send(a->link, COORDINATOR, &m, &e);
    if (rc < 0 && rc != -EAGAIN && rc != -EHOSTUNREACH)
        log_error("task %" PRIu64 ": rows cannot be sent: %s", r->g.key.task, e.text);
    return rc;
}

static int send_end(struct agent *a, const struct core_action *act)
{
    struct run *r = find(a, &act->key);
    struct err e = { 0 };
    if (!r)
        return 0;
    struct msg m = { .type = M_TASK_END };
    m.task_end.task = act->key.task;
    m.task_end.epoch = act->key.epoch;
    m.task_end.n = act->key.n;
    m.task_end.sweep = r->g.sweep;
    m.task_end.cause = task_cause_name(r->end.cause);
    m.task_end.exit = r->end.exit;
    m.task_end.signal = r->end.signal;
    m.task_end.duration_ms = r->end.duration_ms;
    m.task_end.info = (const uint8_t *)r->end.info;
    m.task_end.info_len = r->end.info ? strlen(r->end.info) : 0;
    m.task_end.tail = (const uint8_t *)r->end.tail;
    m.task_end.tail_len = r->end.tail ? strnlen(r->end.tail, 16384) : 0;
    int rc = link_send(a->link, COORDINATOR, &m, &e);
    if (rc < 0 && rc != -EAGAIN && rc != -EHOSTUNREACH)
        log_error("task %" PRIu64 ": its end cannot be sent: %s", r->g.key.task, e.text);
    return rc;
}

static void do_remove(struct agent *a, const struct core_action *act)
{
    struct run *r = find(a, &act->key);
    struct err e = { 0 };
    if (!r)
        return;
    if (r->dir && dir_remove(r->dir, &e) < 0) {
        log_warn("task %" PRIu64 ": its folder stays for now: %s", r->g.key.task, e.text);
        sweep_soon(a);
    }
    run_clear(a, r);
}

static bool owned(const struct agent *a, const char *dir)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (a->runs[i].used && a->runs[i].dir && !strcmp(a->runs[i].dir, dir))
            return true;
    return false;
}

/* Folders that are no task's here go: what the disk would not let be made, removed or taken over. */
static void sweep_folders(struct agent *a)
{
    if (!a->sweep_ms || clock_mono_ms() < a->sweep_ms)
        return;
    a->sweep_ms = 0;
    DIR *d = opendir(a->tasks);
    for (struct dirent *x; d && (x = readdir(d));) {
        CLEANUP(freep) char *dir = path_fmt("%s/%s", a->tasks, x->d_name);
        if (!dir || !strcmp(x->d_name, ".") || !strcmp(x->d_name, "..") || owned(a, dir))
            continue;
        if (run_look(dir) == RUN_ALIVE || dir_remove(dir, NULL) < 0)
            sweep_soon(a);
    }
    if (d)
        closedir(d);
    else
        sweep_soon(a);
}

static void act_on(struct agent *a, const struct core_action *act)
{
    int sent = 0;
    struct run *r;
    switch (act->kind) {
    case CORE_DO_HELLO:
        sent = send_hello(a, fill_refs(a));
        break;
    case CORE_DO_BEAT:
        send_beat(a, act->seq); /* the next one comes soon */
        break;
    case CORE_DO_DECLINE:
        send_decline(a, act); /* lost: the next beat does not list it */
        break;
    case CORE_DO_ACCEPT:
        do_accept(a, act);
        break;
    case CORE_DO_START:
        do_start(a, act);
        break;
    case CORE_DO_STOP:
        if ((r = find(a, &act->key)))
            run_stop(r->pidfd, act->hard);
        break;
    case CORE_DO_MAKE:
        if ((r = find(a, &act->key)))
            offer_products(a, r);
        break;
    case CORE_DO_SAVE_END:
        do_save_end(a, act);
        break;
    case CORE_DO_SEND_ROWS:
        sent = send_rows(a, act);
        break;
    case CORE_DO_SAVE_ACK:
        if ((r = find(a, &act->key)) && r->dir)
            spool_save_acked(r->dir, act->rows);
        break;
    case CORE_DO_SEND_END:
        sent = send_end(a, act);
        break;
    case CORE_DO_REMOVE:
        do_remove(a, act);
        break;
    case CORE_DO_EXIT:
        a->exit_now = true;
        break;
    }
    if (sent < 0) {
        core_unsent(&a->core, act);
        a->retry_ms = clock_mono_ms() + RETRY_MS;
    }
}

static void step(struct agent *a, const struct core_event *ev)
{
    static struct core_actions out; /* one loop, one thread */
    core_step(&a->core, ev, clock_mono_ms(), &out);
    for (size_t i = 0; i < out.n; i++)
        act_on(a, &out.v[i]);
}

/* Actions add events; all are worked off before the loop waits again. */
static void work_off(struct agent *a)
{
    for (size_t i = 0; i < a->n_events; i++) {
        struct core_event ev = a->events[i];
        step(a, &ev);
    }
    a->n_events = 0;
}

/* ---- messages */

static void on_grant(struct agent *a, const struct msg_grant *m)
{
    struct core_event ev = { .kind = CORE_GRANT, .key = { m->task, m->epoch, m->n } };
    struct core_action no = { .kind = CORE_DO_DECLINE, .key = ev.key };
    struct run_grant g = { .key = ev.key };
    struct id *inputs = NULL;
    size_t n = 0;
    struct err e = { 0 };
    int kind = run_kind_parse(m->kind);
    if (kind < 0) {
        no.code = "KIND";
        no.text = "this agent does not know tasks of this kind";
        send_decline(a, &no);
        return;
    }
    g.kind = (enum core_kind)kind;
    if (spec_parse(&g, m->spec, m->spec_len, &inputs, &n, &e) < 0) {
        no.code = "SPEC";
        no.text = e.text;
        send_decline(a, &no);
        return;
    }
    free(inputs);
    if (program_changed(a))
        work_off(a);
    ev.task_kind = g.kind;
    ev.points = g.points;
    a->grant = m;
    step(a, &ev);
    a->grant = NULL;
}

static void write_ready(struct agent *a)
{
    if (!a->conf->ready_file)
        return;
    struct err e = { 0 };
    CLEANUP(json_decrefp) json_t *j = json_object();
    json_object_set_new(j, "schema", json_string("siofleet.ready/1"));
    json_object_set_new(j, "pid", json_integer(getpid()));
    json_object_set_new(j, "endpoint", json_str(a->conf->connect));
    json_object_set_new(j, "server_key", json_str(a->server.z85));
    json_object_set_new(j, "version", json_string(SIOFLEET_VERSION));
    json_object_set_new(j, "protocol", json_integer(WIRE_VERSION));
    json_object_set_new(j, "boot", json_u64(a->boot));
    CLEANUP(freep) char *text = json_dumps(j, JSON_COMPACT);
    CLEANUP(freep) char *line = text ? path_fmt("%s\n", text) : NULL;
    if (!line || file_write(a->conf->ready_file, line, strlen(line), 0644, true, &e) < 0)
        log_warn("ready file: %s", e.text);
}

static void dropped(struct agent *a, const struct wire_task_ref refs[], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct task_key key = { refs[i].task, refs[i].epoch, refs[i].n };
        if (!core_find(&a->core, &key))
            continue;
        log_info("task %" PRIu64 " is not ours any more; dropped", key.task);
        push(a, (struct core_event){ .kind = CORE_DROPPED, .key = key });
    }
}

static void on_welcome(struct agent *a, const struct msg_welcome *m)
{
    /* first, so that nothing is sent for what is not ours */
    dropped(a, m->drop, m->n_drop);
    push(a, (struct core_event){ .kind = CORE_WELCOME,
                                 .epoch = m->epoch,
                                 .lease_ms = m->lease_ms,
                                 .heartbeat_ms = m->heartbeat_ms });
    xfers_up(a->xfers, COORDINATOR, clock_mono_ms());
    log_info("registered with %s, epoch %" PRIu64 ", boot %" PRIu64, a->conf->connect, m->epoch,
             a->boot);
    if (!a->welcomed)
        write_ready(a);
    a->welcomed = true;
}

/* What the coordinator will not have ends the agent: it cannot become right by asking again. */
static void give_up(struct agent *a, int code, const char *text)
{
    if (a->fatal.code)
        return;
    err_set(&a->fatal, code, "%s: %s", a->conf->connect, text);
    push(a, (struct core_event){ .kind = CORE_DRAIN });
    push(a, (struct core_event){ .kind = CORE_DRAIN });
    a->drain_ms = clock_mono_ms();
    a->drain_cut = true;
}

/* What a task has written since; its end, too, until that is acknowledged. */
static void on_log_get(struct agent *a, const struct msg_log_get *m)
{
    struct task_key key = { m->task, m->epoch, m->n };
    struct run *r = find(a, &key);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(65536 + 1);
    CLEANUP(freep)
    char *path = r && r->dir ? path_fmt("%s/%s", r->dir, m->stream ? "stderr" : "stdout") : NULL;
    struct msg ans = { .type = M_LOG_DATA,
                       .log_data = { .req = m->req, .known = path != NULL, .next = m->from } };
    if (path)
        ring_read(path, m->from, m->max_b, &b, &ans.log_data.next, NULL);
    ans.log_data.data = b.data;
    ans.log_data.data_len = b.len;
    link_send(a->link, COORDINATOR, &ans, NULL); /* a lost one is asked for again */
}

static void on_msg(struct agent *a, const struct msg *m)
{
    if (xfers_msg(a->xfers, COORDINATOR, m, clock_mono_ms()))
        return;
    switch (m->type) {
    case M_WELCOME:
        on_welcome(a, &m->welcome);
        break;
    case M_REFUSE:
        if (!strcmp(m->refuse.code, "HELLO_FIRST")) {
            /* it forgot us (its disk failed while it noted a second hello): as on a new connection. Once: what was sent
             * before the hello is refused as well. */
            if (a->core.welcome)
                push(a, (struct core_event){ .kind = CORE_UP });
        } else if (m->refuse.exit == 1)
            log_warn("the coordinator refuses: %s", m->refuse.text);
        else
            give_up(a, SF_EREFUSED, m->refuse.text);
        break;
    case M_BEAT_ACK:
        push(a, (struct core_event){ .kind = CORE_BEAT_ACK, .seq = m->beat_ack.seq });
        dropped(a, m->beat_ack.drop, m->beat_ack.n_drop);
        break;
    case M_GRANT:
        on_grant(a, &m->grant);
        break;
    case M_ROWS_ACK:
        push(a, (struct core_event){ .kind = CORE_ROWS_ACK,
                                     .key = { m->rows_ack.task, m->rows_ack.epoch, m->rows_ack.n },
                                     .seq = m->rows_ack.seq });
        break;
    case M_END_ACK:
        push(a, (struct core_event){ .kind = CORE_END_ACK,
                                     .key = { m->end_ack.task, m->end_ack.epoch, m->end_ack.n } });
        break;
    case M_CANCEL:
        push(a, (struct core_event){ .kind = CORE_CANCEL,
                                     .key = { m->cancel.task, m->cancel.epoch, m->cancel.n } });
        break;
    case M_LOG_GET:
        on_log_get(a, &m->log_get);
        break;
    default:
        break;
    }
}

static void on_refused(struct agent *a, const char *text)
{
    /* the link begins with the endpoint, and so do the lines below */
    size_t n = strlen(a->conf->connect);
    if (!strncmp(text, a->conf->connect, n) && !strncmp(text + n, ": ", 2))
        text += n + 2;
    if (!a->welcomed) {
        give_up(a, SF_EREFUSED, text);
        return;
    }
    /* it had us before: perhaps its keys are being changed. What runs goes on. */
    uint64_t now = clock_mono_ms();
    if (now - a->refused_log_ms >= 60000 || !a->refused_log_ms)
        log_warn("refused by %s: %s; trying on", a->conf->connect, text);
    a->refused_log_ms = now;
}

static int take_messages(struct agent *a, struct err *e)
{
    for (int i = 0; i < TURN_MAX; i++) {
        struct link_event ev;
        int r = link_recv(a->link, &ev, e);
        if (r <= 0)
            return r;
        switch (ev.kind) {
        case LINK_MSG:
            on_msg(a, &ev.msg);
            break;
        case LINK_UP:
            a->absent_told = false;
            push(a, (struct core_event){ .kind = CORE_UP });
            break;
        case LINK_GONE:
            if (a->welcomed && !a->exit_now)
                log_warn("coordinator %s is gone (%s); what runs goes on", a->conf->connect,
                         ev.text);
            xfers_gone(a->xfers, COORDINATOR, true);
            push(a, (struct core_event){ .kind = CORE_DOWN });
            break;
        case LINK_REFUSED:
            on_refused(a, ev.text);
            break;
        }
        link_event_clear(&ev);
        work_off(a);
    }
    return 0;
}

/* ---- children */

static void look_at_rows(struct agent *a, struct run *r)
{
    struct err e = { 0 };
    if (!r->spool)
        return;
    uint64_t before = spool_count(r->spool);
    if (spool_poll(r->spool, &e) < 0 && !r->looked_damaged) {
        r->looked_damaged = true;
        log_error("task %" PRIu64 ": %s", r->g.key.task, e.text);
    }
    if (spool_count(r->spool) != before)
        push(a, (struct core_event){
                    .kind = CORE_ROWS, .key = r->g.key, .rows = spool_count(r->spool) });
}

static int open_spool(struct run *r, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/rows", r->dir);
    return path ? spool_open(path, &r->spool, e) : err_sys(e, ENOMEM, "%s", r->dir);
}

/* A collection may have built QEMU: that this host is ready now is worth telling. */
static void look_at_ability(struct agent *a)
{
    const char *now = collect_ability_name(collect_ability()),
               *was = json_string_value(json_object_get(a->facts.json, "collect"));
    if (was && !strcmp(now, was))
        return;
    json_object_set_new(a->facts.json, "collect", json_string(now));
    char *text = json_dumps(a->facts.json, JSON_COMPACT);
    if (!text)
        return;
    free(a->facts_text);
    a->facts_text = text;
    push(a, (struct core_event){ .kind = CORE_FACTS });
}

static void child_ended(struct agent *a, struct run *r)
{
    spool_end_clear(&r->end);
    run_finish(r->dir, r->pidfd, &r->end);
    closep(&r->pidfd);
    r->adopting = false;
    look_at_rows(a, r);
    uint64_t rows = r->spool ? spool_count(r->spool) : 0;
    enum task_cause cause = r->end.cause;
    if (cause == CAUSE_DONE && r->g.kind == CORE_POINTS &&
        (r->looked_damaged || rows < r->g.points)) {
        cause = CAUSE_INTEGRITY;
        if (!r->end.tail)
            r->end.tail = strdup("siofleet: fewer whole rows than points\n");
    }
    if (r->g.kind == CORE_COLLECT)
        look_at_ability(a);
    push(a,
         (struct core_event){ .kind = CORE_EXITED, .key = r->g.key, .cause = cause, .rows = rows });
}

static void look_at_children(struct agent *a)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        struct run *r = &a->runs[i];
        if (!r->used || (r->pidfd < 0 && !r->adopting))
            continue;
        if (!r->spool && r->dir)
            open_spool(r, NULL);
        if (r->adopting) {
            int rc = run_adopt(r->dir, &r->pidfd, NULL);
            if (rc == -EAGAIN)
                continue;
            r->adopting = false;
            if (rc < 0) {
                child_ended(a, r);
                continue;
            }
            const struct core_task *t = core_find(&a->core, &r->g.key);
            if (t && t->state == CORE_ST_STOP)
                run_stop(r->pidfd, false); /* it was to be stopped before its number was known */
        }
        struct pollfd p = { .fd = r->pidfd, .events = POLLIN };
        if (poll(&p, 1, 0) == 1)
            child_ended(a, r);
        else
            look_at_rows(a, r);
    }
}

/* ---- start */

/* A task found on disk goes on where its files say. */
static void adopt(struct agent *a, const char *dir)
{
    struct run_grant g;
    struct err e = { 0 };
    CLEANUP(buf_clear) struct buf spec = BUF_INIT(SPEC_MAX);
    struct run *r = NULL;
    if (run_load(dir, &g, &e) < 0 || run_load_spec(dir, &spec, &e) < 0 || !(r = run_new(a, &g)) ||
        spec_parse(&r->g, spec.data, spec.len, &r->inputs, &r->n_inputs, &e) < 0 ||
        !(r->dir = strdup(dir)) || open_spool(r, &e) < 0) {
        log_warn("%s: cannot be taken over: %s", dir, e.text[0] ? e.text : "too many tasks");
        if (r)
            run_clear(a, r);
        sweep_soon(a); /* its attempt is lost; the folder goes when nothing lives in it any more */
        return;
    }
    spool_poll(r->spool, NULL);
    struct core_event ev = { .kind = CORE_ADOPT,
                             .key = g.key,
                             .task_kind = g.kind,
                             .points = r->g.points,
                             .rows = spool_count(r->spool),
                             .seq = spool_load_acked(dir) };
    switch (run_look(dir)) {
    case RUN_FRESH:
        ev.state = CORE_ST_FETCH;
        step(a, &ev);
        return;
    case RUN_OVER:
        ev.state = CORE_ST_ENDED;
        if (spool_load_end(dir, &r->end, &e) < 0)
            r->end = (struct spool_end){ .cause = CAUSE_LOST };
        step(a, &ev);
        return;
    case RUN_ALIVE:
        log_info("task %" PRIu64 " goes on; taken over", g.key.task);
        break;
    case RUN_EXITED:
    case RUN_LOST:
        break;
    }
    /* its inputs are at work */
    for (size_t i = 0; i < r->n_inputs; i++)
        cas_pin(a->cas, &r->inputs[i]);
    r->pinned = true;
    ev.state = CORE_ST_RUN;
    step(a, &ev);
    r->adopting = true; /* finds the shim, or that there is none any more */
}

static int adopt_all(struct agent *a, struct err *e)
{
    DIR *d = opendir(a->tasks);
    if (!d)
        return err_sys(e, errno, "%s", a->tasks);
    for (struct dirent *x; (x = readdir(d));) {
        CLEANUP(freep) char *dir = path_fmt("%s/%s", a->tasks, x->d_name);
        if (!dir || !strcmp(x->d_name, ".") || !strcmp(x->d_name, ".."))
            continue;
        if (x->d_name[0] == '.')
            sweep_soon(a); /* half made when the agent died */
        else
            adopt(a, dir);
    }
    closedir(d);
    return 0;
}

/* Who this is: made once; each start is counted, durably, before anybody hears of it. */
static int load_install(struct agent *a, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/install", a->data);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    if (!path)
        return err_sys(e, ENOMEM, "%s", a->data);
    int r = file_read(path, &b, e);
    if (r == -ENOENT) {
        random_bytes(a->install, sizeof(a->install));
    } else if (r < 0) {
        return r;
    } else {
        CLEANUP(json_decrefp) json_t *j = json_loadb(b.data ? (char *)b.data : "", b.len, 0, NULL);
        const char *hex = json_string_value(json_object_get(j, "install"));
        if (!hex || strlen(hex) != 32 || strspn(hex, "0123456789abcdef") != 32 ||
            json_get_u64(j, "boot", &a->boot, NULL) < 0)
            return err_set(e, SF_EINTEGRITY,
                           "%s: not readable; with another data directory and a new key this host "
                           "can join again",
                           path);
        for (size_t i = 0; i < sizeof(a->install); i++) {
            char two[3] = { hex[2 * i], hex[2 * i + 1], '\0' };
            a->install[i] = (uint8_t)strtoul(two, NULL, 16);
        }
    }
    a->boot++;
    char hex[33];
    for (size_t i = 0; i < sizeof(a->install); i++)
        snprintf(hex + 2 * i, 3, "%02x", a->install[i]);
    CLEANUP(freep)
    char *text = path_fmt("{\"install\":\"%s\",\"boot\":%" PRIu64 "}\n", hex, a->boot);
    return text ? file_write(path, text, strlen(text), 0600, true, e)
                : err_sys(e, ENOMEM, "%s", path);
}

static int lock_data(struct agent *a, struct err *e)
{
    int r = dir_make(a->conf->data, 0700, e);
    if (r < 0)
        return r;
    /* absolute: tasks run in folders of their own */
    a->data = realpath(a->conf->data, NULL);
    if (!a->data)
        return err_sys(e, errno, "%s", a->conf->data);
    CLEANUP(freep) char *path = path_fmt("%s/lock", a->data);
    if (!path)
        return err_sys(e, ENOMEM, "%s", a->data);
    a->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (a->lock_fd < 0)
        return err_sys(e, errno, "%s", path);
    if (flock(a->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? err_set(e, EBUSY, "%s: another agent runs on this data directory",
                             a->conf->data)
                   : err_sys(e, errno, "%s", path);
    return 0;
}

static int find_programs(struct agent *a, struct err *e)
{
    a->program = realpath("/proc/self/exe", NULL);
    if (!a->program || stat(a->program, &a->program_st) < 0)
        return err_sys(e, errno, "own program file");
    char *slash = strrchr(a->program, '/');
    a->shim = path_fmt("%.*s/siofleet-shim", (int)(slash - a->program), a->program);
    if (!a->shim)
        return err_sys(e, ENOMEM, "%s", a->program);
    if (access(a->shim, X_OK) < 0)
        return err_sys(e, errno, "%s", a->shim);
    return cid_file(a->program, &a->engine, NULL, e);
}

static int load_keys(struct agent *a, struct err *e)
{
    int r = key_load(a->conf->key, &a->key, e);
    if (r == 0)
        r = key_load_pub(a->conf->server_key, &a->server, e);
    if (r < 0)
        return r;
    if (a->key.pub.role != ROLE_AGENT)
        return err_set(e, SF_EREFUSED, "%s: a key of role %s; an agent needs one of role agent",
                       a->conf->key, role_name(a->key.pub.role));
    if (a->server.role != ROLE_COORDINATOR)
        return err_set(e, SF_EREFUSED, "%s: a key of role %s; the coordinator's is needed",
                       a->conf->server_key, role_name(a->server.role));
    snprintf(a->name, sizeof(a->name), "%s", a->conf->name ? a->conf->name : a->key.pub.name);
    return 0;
}

static int open_stores(struct agent *a, struct err *e)
{
    CLEANUP(freep) char *cache = path_fmt("%s/cache", a->data);
    a->tasks = path_fmt("%s/tasks", a->data);
    if (!cache || !a->tasks)
        return err_sys(e, ENOMEM, "%s", a->data);
    int r = dir_make(a->tasks, 0700, e);
    if (r == 0)
        r = cas_open(cache, a->conf->cache_max_b, &a->cas, e);
    if (r < 0)
        return r;
    struct xfer_store store = xfer_store_cas(a->cas);
    struct xfers_ops ops = {
        .ctx = a, .send = xfer_send, .offered = xfer_offered, .ended = xfer_ended
    };
    a->xfers = xfers_new(&store, &ops, CAS_SIZE_MAX);
    return a->xfers ? 0 : err_sys(e, ENOMEM, "%s", cache);
}

static int take_signals(struct agent *a, struct err *e)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    a->sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return a->sig_fd < 0 ? err_sys(e, errno, "signals") : 0;
}

static int start(struct agent *a, struct err *e)
{
    a->start_ms = clock_mono_ms();
    int r = load_keys(a, e);
    if (r < 0)
        return r;
    char who[96];
    snprintf(who, sizeof(who), "agent %s", a->name);
    log_init(who, a->conf->log_json, LOG_LEVEL_INFO);
    if ((r = find_programs(a, e)) < 0 || (r = lock_data(a, e)) < 0 ||
        (r = load_install(a, e)) < 0 || (r = open_stores(a, e)) < 0 || (r = take_signals(a, e)) < 0)
        return r;
    CLEANUP(freep) char *kvm = path_fmt("%s/kvm", a->data);
    if (!kvm)
        return err_sys(e, ENOMEM, "agent");
    r = facts_get("/proc", "/sys", facts_kvm(kvm), &a->facts, e);
    if (r < 0)
        return r;
    a->facts_text = json_dumps(a->facts.json, JSON_COMPACT);
    a->rows = calloc(CORE_BATCH, sizeof(*a->rows));
    buf_init(&a->block, FRAME_MAX * 2);
    if (!a->facts_text || !a->rows)
        return err_sys(e, ENOMEM, "agent");
    core_init(&a->core, a->conf->cores ? a->conf->cores : a->facts.cores);
    if (a->conf->ready_file)
        unlink(a->conf->ready_file); /* of an earlier run: nobody may take it for this one's */
    r = link_client(a->conf->connect, &a->key, a->server.z85, &a->link, e);
    if (r == 0)
        r = adopt_all(a, e);
    if (r == 0)
        work_off(a);
    return r;
}

/* ---- the loop */

static void on_signals(struct agent *a)
{
    struct signalfd_siginfo info;
    while (read(a->sig_fd, &info, sizeof(info)) == sizeof(info)) {
        uint64_t now = clock_mono_ms();
        if (!a->drain_ms)
            log_info("stopping: tasks are ended and given back");
        else
            a->drain_cut = true;
        a->drain_ms = now;
        push(a, (struct core_event){ .kind = CORE_DRAIN });
    }
}

/* A drain has its time; what is not told by then is on disk for the next start. */
static void limit_drain(struct agent *a)
{
    uint64_t now = clock_mono_ms();
    if (!a->drain_ms)
        return;
    if (!a->core.drain_hard && now - a->drain_ms >= DRAIN_MS) {
        a->drain_ms = now;
        push(a, (struct core_event){ .kind = CORE_DRAIN });
    } else if (a->core.drain_hard && now - a->drain_ms >= HARD_MS) {
        a->exit_now = true;
    }
}

static int64_t wait_ms(struct agent *a, int64_t xfer_ms)
{
    uint64_t now = clock_mono_ms(), at = core_deadline(&a->core);
    if (at < a->retry_ms)
        at = a->retry_ms;
    uint64_t most = a->drain_ms ? 20 : 2000;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (a->runs[i].used && (a->runs[i].pidfd >= 0 || a->runs[i].adopting))
            most = most < LOOK_MS ? most : LOOK_MS;
    if (xfer_ms >= 0 && (uint64_t)xfer_ms < most)
        most = (uint64_t)xfer_ms;
    if (at <= now)
        return 0;
    return at - now < most ? (int64_t)(at - now) : (int64_t)most;
}

static int turn(struct agent *a, struct err *e)
{
    int64_t xfer_ms = xfers_tick(a->xfers, clock_mono_ms());
    work_off(a);
    struct pollfd p[1 + CORE_TASKS_MAX] = { { .fd = a->sig_fd, .events = POLLIN } };
    size_t n = 1;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (a->runs[i].used && a->runs[i].pidfd >= 0)
            p[n++] = (struct pollfd){ .fd = a->runs[i].pidfd, .events = POLLIN };
    int r = link_poll(a->link, p, n, wait_ms(a, xfer_ms), e);
    if (r < 0)
        return r;
    on_signals(a);
    r = take_messages(a, e);
    if (r < 0)
        return r;
    look_at_children(a);
    work_off(a);
    if (a->inputs_moved) {
        a->inputs_moved = false;
        for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
            struct run *x = &a->runs[i];
            if (x->used && x->fetching)
                get_inputs(a, x);
            else if (x->used && x->offering)
                offer_products(a, x);
        }
    }
    limit_drain(a);
    sweep_folders(a);
    push(a, (struct core_event){ .kind = CORE_TICK });
    work_off(a);
    if (!a->welcomed && !a->absent_told && clock_mono_ms() - a->start_ms > 5000) {
        log_warn("no coordinator answers at %s; trying on", a->conf->connect);
        a->absent_told = true;
    }
    return 0;
}

static void stop(struct agent *a)
{
    link_free(&a->link, 500);
    if (a->conf->ready_file && a->welcomed)
        unlink(a->conf->ready_file);
    xfers_free(&a->xfers);
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        run_clear(a, &a->runs[i]);
    cas_free(&a->cas);
    facts_clear(&a->facts);
    key_clear(&a->key);
    buf_clear(&a->block);
    free(a->rows);
    free(a->facts_text);
    free(a->data);
    free(a->program);
    free(a->shim);
    free(a->tasks);
    closep(&a->sig_fd);
    closep(&a->lock_fd);
    free(a);
}

int agent_run(const struct agent_conf *conf, struct err *e)
{
    struct agent *a = calloc(1, sizeof(*a));
    if (!a)
        return err_sys(e, ENOMEM, "agent");
    a->conf = conf;
    a->lock_fd = a->sig_fd = -1;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        a->runs[i].pidfd = -1;
    int r = start(a, e);
    while (r == 0 && !a->exit_now)
        r = turn(a, e);
    if (r == 0 && a->fatal.code) {
        *e = a->fatal;
        r = -a->fatal.code;
    } else if (r == 0 && a->drain_cut) {
        r = err_set(e, ECANCELED,
                    "agent: stopped at once; what was not told is told at the next start");
    }
    stop(a);
    return r;
}
