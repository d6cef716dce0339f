/* Tasks' children: siofleet-shim in small around the real `siofleet __task` (agent/task.c), whose engine is replaced by
 * one that takes virtual time and gives each point the statistics of check_result(). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/collect.h"
#include "agent/grow.h"
#include "agent/ring.h"
#include "agent/runner.h"
#include "agent/task.h"
#include "coordinator/sched.h"
#include "perf/run.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "tests/sim/sim.h"

struct task {
    uint64_t deadline_ms; /* UINT64_MAX = none */
    const char *cause;    /* NULL = as its exit status says */
    int signal;
    bool command;           /* of an exec job: users.c says what it does */
    uint64_t ms, out_b, rc; /* its words */
};

static int put(const struct part *p, const char *name, const char *text)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", p->dir, name);
    CLEANUP(freep) char *temp = path_fmt("%s/%s.new", p->dir, name);
    CLEANUP(closep) int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int r = fd < 0 ? -errno : write_all(fd, text, strlen(text));
    return r < 0 ? r : rename(temp, path);
}

/* Its number stands in the file whose lock it holds. */
static void put_number(const struct part *p)
{
    char text[64];
    CLEANUP(freep) char *path = path_fmt("%s/lock", p->dir);
    CLEANUP(closep) int fd = open(path, O_WRONLY);
    snprintf(text, sizeof(text), "%" PRIu64 " \n", p->pid);
    if (fd >= 0 && write_all(fd, text, strlen(text)) < 0) {
        /* a full disk: who looks for the number finds the lock */
    }
}

/* What a command prints: the name of its attempt, so that an answer tells which one it is of. */
static int run_command(const struct part *p, const struct task *t)
{
    char head[RING_HEADER + 1], text[RING_HEADER + 64];
    const char *name = strrchr(p->dir, '/') + 1;
    ring_header(head, 1 << 16, 1 << 16, strlen(name));
    snprintf(text, sizeof(text), "%s%s", head, name);
    if (put(p, "stdout", text) < 0)
        return RUN_EXIT_SPACE; /* it notices that it cannot print */
    ring_header(head, 1 << 16, 1 << 16, 0);
    put(p, "stderr", head);
    if (task_work(t->ms) < 0)
        return 1;
    CLEANUP(freep) char *path = path_fmt("%s/cwd/out", p->dir);
    CLEANUP(freep) char *out = calloc(1, t->out_b + 1);
    CLEANUP(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!out)
        abort();
    memset(out, 'x', t->out_b);
    return fd < 0 || write_all(fd, out, t->out_b) < 0 ? RUN_EXIT_SPACE : (int)t->rc;
}

/* A log that is written while the run goes on, under its second name from the start (agent/grow.h). */
static int write_slowly(const char *dir, const char *log, const struct buf *b, uint64_t ms,
                        struct err *e)
{
    enum { PARTS = 12 };
    CLEANUP(freep) char *growing = path_fmt("%s/" GROW_FILE, dir);
    CLEANUP(closep) int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || link(log, growing) < 0)
        return err_sys(e, errno, "%s", log);
    for (size_t i = 0; i < PARTS; i++) {
        size_t from = b->len * i / PARTS, to = b->len * (i + 1) / PARTS;
        if (task_work(ms / PARTS) < 0)
            return err_set(e, ECANCELED, "ended");
        int r = write_all(fd, b->data + from, to - from);
        if (r < 0)
            return err_sys(e, -r, "%s", log);
    }
    return fsync(fd) < 0 ? err_sys(e, errno, "%s", log) : 0;
}

/* One run of a collection: it takes its time and leaves a log that names its attempt. */
int __wrap_collect_task(const char *dir, const json_t *spec, const json_t *run, struct err *e);
int __wrap_collect_task(const char *dir, const json_t *spec, const json_t *run, struct err *e)
{
    const char *ini = json_string_value(json_object_get(spec, "ini")),
               *name = strrchr(dir, '/') + 1;
    uint64_t no = 0, ms = 0;
    (void)run;
    CLEANUP(freep) char *out = path_fmt("%s/out/run-0001", dir);
    CLEANUP(freep) char *log = path_fmt("%s/log.slog", out), *info = path_fmt("%s/info.json", dir);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64 << 20);
    uint64_t stream_b = world.plan->stream_b;
    char id[ID_HEX_LEN + 16] = "";
    int r = json_get_u64(spec, "run", &no, e);
    if (r < 0 || !ini || sscanf(ini, "ms = %" SCNu64, &ms) != 1)
        return err_set(e, SF_EFORMAT, "no collection");
    if (world.host[world.cur->host].bad_until_ms > world.now_ms)
        return err_set(e, EIO, "bad host");
    if (!stream_b && task_work(ms) < 0)
        return err_set(e, ECANCELED, "ended");
    user_log((unsigned)(10 * no), &b);
    buf_addf(&b, "made by %s\n", name);
    user_filler((unsigned)no, stream_b, &b);
    r = dir_make(out, 0700, e);
    if (r >= 0 && stream_b)
        r = write_slowly(dir, log, &b, ms, e);
    else if (r >= 0)
        r = file_write(log, b.data, b.len, 0600, true, e);
    if (r < 0)
        return r;
    if (stream_b) { /* it may have left already: nobody can hash it there */
        struct id is;
        cid_bytes(b.data, b.len, &is);
        snprintf(id, sizeof(id), ",\"id\":\"");
        id_hex(&is, id + strlen(id));
        strcat(id, "\"");
    }
    buf_reset(&b);
    buf_addf(&b,
             "{\"attempt\":\"%s\",\"runs\":[{\"run\":%u,\"status\":\"done\"}],\"files\":[{\"name\":"
             "\"log.slog\",\"kind\":\"log\",\"path\":\"out/run-0001/log.slog\"%s}]}",
             name, (unsigned)no, id);
    return file_write(info, b.data, b.len, 0600, true, e);
}

static void main_(struct part *p)
{
    struct task *t = p->arg;
    char text[256];
    uint64_t began = world.now_ms;
    check_task_started(p->dir, p->host);
    if (part_wait(world.now_ms + 2) < 0)
        return;
    put_number(p);
    int status = t->command ? run_command(p, t) : task_main(p->dir);
    if (p->dead)
        return;
    snprintf(text, sizeof(text),
             "{\"cause\":\"%s\",\"exit\":%d,\"signal\":%d,\"duration_ms\":%" PRIu64 "}\n",
             t->cause ? t->cause
             : status ? "exit"
                      : "done",
             t->cause ? 0 : status, t->signal, world.now_ms - began);
    put(p, "status", text);
}

void tasks_spawn(const char *dir, struct ofd *lock, uint64_t timeout_ms, char *const words[],
                 uint64_t *ret_pid)
{
    struct task *t = calloc(1, sizeof(*t));
    char name[16];
    if (!t)
        abort();
    t->deadline_ms = timeout_ms ? world.now_ms + timeout_ms : UINT64_MAX;
    if (words[0] && !strcmp(words[0], "sim-command")) {
        t->command = true;
        t->ms = strtoull(words[1], NULL, 10);
        t->out_b = strtoull(words[2], NULL, 10);
        t->rc = strtoull(words[3], NULL, 10);
    }
    snprintf(name, sizeof(name), "%s.t%" PRIu64, world.host[world.cur->host].name,
             world.n_parts % 100000);
    struct part *p = part_start(PART_TASK, world.cur->host, name, main_, t);
    snprintf(p->dir, sizeof(p->dir), "%s", dir);
    p->lock = lock;
    *ret_pid = p->pid;
}

struct part *task_by_pid(uint64_t pid)
{
    for (struct part *p = world.parts; p; p = p->next)
        if (p->pid == pid)
            return p->kind == PART_TASK && p->fiber && !p->dead ? p : NULL;
    return NULL;
}

bool task_kill_one(unsigned host)
{
    for (struct part *p = world.parts; p; p = p->next)
        if (p->kind == PART_TASK && p->host == host && p->fiber && !p->dead) {
            part_kill(p);
            return true;
        }
    return false;
}

uint64_t tasks_alive(unsigned host)
{
    uint64_t n = 0;
    for (struct part *p = world.parts; p; p = p->next)
        n += p->kind == PART_TASK && p->host == host && p->fiber && !p->dead;
    return n;
}

/* Work for so long. 0, or -ECANCELED: the task is over. */
int task_work(uint64_t ms)
{
    struct part *p = world.cur;
    struct task *t = p->arg;
    struct host *h = &world.host[p->host];
    uint64_t until = world.now_ms + ms;
    for (;;) {
        uint64_t to = h->hang_until_ms > until ? h->hang_until_ms : until;
        if (to > t->deadline_ms)
            to = t->deadline_ms;
        if (world.now_ms < to && part_wait(to) < 0)
            return -ECANCELED;
        check_works(p->dir, p->host);
        if (p->signals) {
            t->cause = "cancelled";
            return -ECANCELED;
        }
        if (world.now_ms >= t->deadline_ms) {
            t->cause = "timeout";
            return -ECANCELED;
        }
        if (world.now_ms >= until && world.now_ms >= h->hang_until_ms)
            return 0;
    }
}

/* How a poisoned point ends: -1 = it is none. */
static int poisoned(uint64_t seed, uint64_t gbps)
{
    const struct plan *plan = world.plan;
    for (size_t i = 0; i < plan->n_ev; i++) {
        const struct plan_event *ev = &plan->ev[i];
        if (ev->verb == PLAN_poison && (uint64_t)ev->arg[0] == seed && (uint64_t)ev->arg[1] == gbps)
            return (int)ev->arg[2];
    }
    return -1;
}

/* Hosts that a point may take along: SCHED_KILLS for each sweep that names it and each retry by hand of one of those, and one
 * for each that a grant reached while the news was under way. */
static unsigned hosts_taken_max(uint64_t seed, uint64_t gbps)
{
    const struct plan *plan = world.plan;
    unsigned tries = 0;
    for (unsigned i = 0; i < plan->n_sweeps; i++) {
        const struct plan_sweep *w = &plan->sweep[i];
        if (seed < w->seed || seed >= w->seed + w->recipes || gbps < w->gbps ||
            gbps >= w->gbps + w->archs)
            continue;
        tries++;
        for (size_t k = 0; k < plan->n_ev; k++)
            tries += plan->ev[k].verb == PLAN_retry && plan->ev[k].arg[0] == i;
    }
    return tries * (SCHED_KILLS + 1);
}

static int run_poison(uint64_t seed, uint64_t gbps, int how, struct err *e)
{
    struct part *p = world.cur;
    struct task *t = p->arg;
    switch (how) {
    case POISON_SIGNAL:
        t->cause = "signal";
        t->signal = SIGSEGV;
        break;
    case POISON_HANG:
        while (task_work(1000) == 0)
            ;
        break;
    case POISON_HOST:
        if (++world.poisoned > hosts_taken_max(seed, gbps))
            sim_fail("a poisoned point has taken %u hosts with it", world.poisoned);
        host_power(p->host, world.now_ms, 2000);
        break;
    default:
        break;
    }
    return err_set(e, EIO, "poisoned point");
}

int __wrap_run_points(struct trace *t, enum rules rules, const struct arch archs[], size_t n,
                      unsigned threads, uint64_t pace_ms,
                      int (*done)(void *user, size_t i, const struct point_result *r), void *user,
                      struct err *e);
int __wrap_run_points(struct trace *t, enum rules rules, const struct arch archs[], size_t n,
                      unsigned threads, uint64_t pace_ms,
                      int (*done)(void *user, size_t i, const struct point_result *r), void *user,
                      struct err *e)
{
    struct host *h = &world.host[world.cur->host];
    uint64_t ms = world.plan->point_ms + pace_ms;
    (void)rules;
    if (h->bad_until_ms > world.now_ms)
        return err_set(e, EIO, "bad host");
    for (size_t i = 0; i < n; i++) {
        uint64_t took = h->slow_until_ms > world.now_ms ? 4 * ms : ms;
        if (task_work(took / (threads ? threads : 1)) < 0)
            return err_set(e, ECANCELED, "ended");
        int how = poisoned(t->head.seed, archs[i].link_gbps);
        if (how >= 0)
            return run_poison(t->head.seed, archs[i].link_gbps, how, e);
        struct point_result r = { .status = ROW_DONE, .duration_us = took * 1000 };
        check_result(t->head.seed, archs[i].link_gbps, &r.stats);
        r.stats.time_ps ^= h->wrong_until_ms > world.now_ms;
        int rc = done(user, i, &r);
        if (rc)
            return rc;
    }
    return 0;
}
