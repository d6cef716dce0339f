#include "agent/agent_in.h"

#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "agent/grow.h"
#include "agent/orphans.h"
#include "agent/spec.h"
#include "collect/recipe.h"
#include "collect/vm.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/lib/json.h"

enum { SWEEP_MS = 5000 }; /* how often a folder that could not be removed is tried again */

struct run *agent_run_find(struct agent *a, const struct task_key *key)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (a->runs[i].used && task_key_eq(&a->runs[i].g.key, key))
            return &a->runs[i];
    return NULL;
}

void agent_run_clear(struct agent *a, struct run *r)
{
    if (!r->used)
        return;
    agent_unpin(a, r);
    agent_grow_close(a, r, false);
    closep(&r->pidfd);
    spool_close(&r->spool);
    spool_end_clear(&r->end);
    products_clear(&r->products);
    free(r->inputs);
    free(r->sizes);
    free(r->dir);
    *r = (struct run){ .pidfd = -1 };
}

void agent_sweep_soon(struct agent *a)
{
    a->sweep_ms = clock_mono_ms() + SWEEP_MS;
}

struct run *agent_run_new(struct agent *a, const struct run_grant *g)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (!a->runs[i].used) {
            a->runs[i] = (struct run){ .used = true, .pidfd = -1, .g = *g };
            return &a->runs[i];
        }
    return NULL;
}

void agent_run_why(struct run *r, const char *text)
{
    spool_end_clear(&r->end);
    r->end = (struct spool_end){ .exit = 1 };
    r->end.tail = path_fmt("siofleet: %s\n", text);
    log_warn("task %" PRIu64 ": %s", r->g.key.task, text);
}

enum task_cause agent_cause_of(int code)
{
    if (code < 0)
        code = -code;
    if (code == ENOSPC || code == EDQUOT)
        return CAUSE_SPACE;
    return code == SF_EINTEGRITY ? CAUSE_INTEGRITY : CAUSE_EXIT;
}

void agent_run_cannot(struct agent *a, struct run *r, int code, const char *text)
{
    agent_run_why(r, text);
    agent_push(a, (struct core_event){
                      .kind = CORE_CANNOT, .key = r->g.key, .cause = agent_cause_of(code) });
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
        agent_push(a, (struct core_event){
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
    agent_push(a, (struct core_event){ .kind = CORE_FACTS });
}

static void child_ended(struct agent *a, struct run *r)
{
    spool_end_clear(&r->end);
    run_finish(r->dir, r->g.kind, &a->host, r->pidfd, &r->end);
    closep(&r->pidfd);
    r->adopting = false;
    look_at_rows(a, r);
    agent_grow_look(a, r);
    uint64_t rows = r->spool ? spool_count(r->spool) : 0;
    enum task_cause cause = r->end.cause;
    if (cause == CAUSE_DONE && r->g.kind == CORE_POINTS &&
        (r->looked_damaged || rows < r->g.points)) {
        cause = CAUSE_INTEGRITY;
        if (!r->end.tail)
            r->end.tail = strdup("siofleet: fewer whole rows than points\n");
    }
    if (r->g.kind == CORE_COLLECT) {
        look_at_ability(a);
        if (cause != CAUSE_DONE)
            vm_sweep(); /* a killed one leaves bridges */
    }
    agent_push(a, (struct core_event){
                      .kind = CORE_EXITED, .key = r->g.key, .cause = cause, .rows = rows });
}

void agent_look_at_runs(struct agent *a)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        struct run *r = &a->runs[i];
        if (!r->used || (r->pidfd < 0 && !r->adopting))
            continue;
        if (!r->spool && r->dir)
            open_spool(r, NULL);
        if (r->adopting) {
            int rc = run_adopt(r->dir, &r->pidfd);
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
        if (poll(&p, 1, 0) == 1) {
            child_ended(a, r);
        } else {
            look_at_rows(a, r);
            agent_grow_look(a, r);
        }
    }
}

/* A task found on disk goes on where its files say. */
static void adopt(struct agent *a, const char *dir)
{
    struct run_grant g;
    struct err e = { 0 };
    CLEANUP(buf_clear) struct buf spec = BUF_INIT(SPEC_MAX);
    struct run *r = NULL;
    if (run_load(dir, &g, &e) < 0 || run_load_spec(dir, &spec, &e) < 0 ||
        !(r = agent_run_new(a, &g)) ||
        spec_parse(&r->g, spec.data, spec.len, &r->inputs, &r->n_inputs, &e) < 0 ||
        !(r->dir = strdup(dir)) || open_spool(r, &e) < 0) {
        log_warn("%s: cannot be taken over: %s", dir, e.text[0] ? e.text : "too many tasks");
        if (r)
            agent_run_clear(a, r);
        /* its attempt is lost; the folder goes when nothing lives in it any more */
        CLEANUP(closep) int fd = -1;
        if (run_adopt(dir, &fd) == 0)
            run_stop(fd, false);
        agent_sweep_soon(a);
        return;
    }
    spool_poll(r->spool, NULL);
    agent_grow_load(r);
    struct core_event ev = { .kind = CORE_ADOPT,
                             .key = g.key,
                             .task_kind = g.kind,
                             .points = r->g.points,
                             .rows = spool_count(r->spool),
                             .seq = spool_load_acked(dir) };
    enum run_state look = run_look(dir);
    if (look == RUN_FRESH && strcmp(g.host_boot, a->host_boot) != 0)
        look =
            RUN_OVER; /* it may have been started, and have taken the host along: it is not run twice under one number */
    switch (look) {
    case RUN_FRESH:
        ev.state = CORE_ST_FETCH;
        agent_step(a, &ev);
        return;
    case RUN_OVER:
        ev.state = CORE_ST_ENDED;
        r->over = true;
        if (spool_load_end(dir, &r->end, &e) < 0)
            r->end = (struct spool_end){ .cause = CAUSE_LOST };
        agent_step(a, &ev);
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
    agent_step(a, &ev);
    r->adopting = true; /* finds the shim, or that there is none any more */
}

int agent_adopt_runs(struct agent *a, struct err *e)
{
    DIR *d = opendir(a->tasks);
    if (!d)
        return err_sys(e, errno, "%s", a->tasks);
    for (struct dirent *x; (x = readdir(d));) {
        CLEANUP(freep) char *dir = path_fmt("%s/%s", a->tasks, x->d_name);
        if (!dir || !strcmp(x->d_name, ".") || !strcmp(x->d_name, ".."))
            continue;
        if (x->d_name[0] == '.')
            agent_sweep_soon(a); /* half made when the agent died */
        else
            adopt(a, dir);
    }
    closedir(d);
    if (a->host.groups)
        orphans_sweep_groups(a->host.groups, a->tasks);
    return 0;
}

/* Who this is: made once; each start is counted, durably, before anybody hears of it. */
static bool owned(const struct agent *a, const char *dir)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (a->runs[i].used && a->runs[i].dir && !strcmp(a->runs[i].dir, dir))
            return true;
    return false;
}

void agent_sweep_folders(struct agent *a)
{
    if (!a->sweep_ms || clock_mono_ms() < a->sweep_ms)
        return;
    a->sweep_ms = 0;
    DIR *d = opendir(a->tasks);
    for (struct dirent *x; d && (x = readdir(d));) {
        CLEANUP(freep) char *dir = path_fmt("%s/%s", a->tasks, x->d_name);
        if (!dir || !strcmp(x->d_name, ".") || !strcmp(x->d_name, "..") || owned(a, dir))
            continue;
        enum run_state state = run_look(dir);
        if (state == RUN_LOST)
            orphans_kill(a->host.groups, dir);
        if (state == RUN_ALIVE || dir_remove(dir, NULL) < 0)
            agent_sweep_soon(a);
    }
    if (d)
        closedir(d);
    else
        agent_sweep_soon(a);
}
