/* Rules of what users and a start ask for: what was answered is done.
 *
 *   - a sweep that is held, an agent that is drained, gets no grant until that is taken back;
 *   - an agent whose canary differed from the accepted result gets none either;
 *   - where nothing else goes wrong, nothing works for what was cancelled two seconds ago;
 *   - for one lease after a start nothing of the attempts that were open is given to others.
 *
 * A canary is no work of the sweep that its point is of. Where two commands are about the same thing, the order in which they
 * arrived is not known here: such plans say nothing of it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/sched.h"
#include "proto/wire/msg.h"
#include "tests/sim/sim.h"

enum { TASKS = 1 << 12, GONE_MAX = 64, CANCEL_MS = 2000 };

static struct {
    struct {
        uint64_t task;
        struct id of; /* sweep or job */
    } granted[TASKS];
    struct {
        struct id of;
        uint64_t ms;
    } cancelled[GONE_MAX];
    unsigned n_cancelled;
    struct id held[PLAN_SWEEPS_MAX];
    bool is_held[PLAN_SWEEPS_MAX], drained[HOSTS_MAX], faults;
    uint64_t canary[HOSTS_MAX]; /* that differed; UINT64_MAX = its end was acknowledged */
} obey;

void check_obey_begin(void)
{
    memset(&obey, 0, sizeof(obey));
    for (size_t i = 0; i < world.plan->n_ev; i++) {
        const struct plan_event *ev = &world.plan->ev[i];
        switch (ev->verb) {
        case PLAN_submit:
        case PLAN_cancel:
        case PLAN_hold:
        case PLAN_collect:
        case PLAN_exec:
        case PLAN_canceljob:
        case PLAN_drain:
            break;
        default:
            obey.faults = true;
        }
    }
}

/* How often the plan says so of the same thing, before it gets quiet. */
static unsigned said(enum plan_verb verb, int64_t arg)
{
    unsigned n = 0;
    for (size_t i = 0; i < world.plan->n_ev; i++)
        n += world.plan->ev[i].verb == verb && world.plan->ev[i].arg[0] == arg &&
             world.plan->ev[i].ms < world.plan->quiet_ms;
    return n;
}

void check_asked(enum plan_verb verb, int64_t arg, const char *id, bool undo)
{
    struct id of;
    if (verb == PLAN_hold && undo)
        obey.is_held[arg] = false;
    if (verb == PLAN_drain && undo) {
        obey.drained[arg] = false;
        obey.canary[arg] = 0;
    }
    if (verb != PLAN_retry || id_parse(id, &of, NULL) < 0)
        return;
    for (unsigned i = 0; i < obey.n_cancelled; i++)
        if (id_eq(&obey.cancelled[i].of, &of))
            obey.cancelled[i].ms = UINT64_MAX / 2;
}

void check_answered(enum plan_verb verb, int64_t arg, const char *id, bool undo, const char *text)
{
    if (undo && (verb == PLAN_hold || verb == PLAN_drain))
        return;
    if (verb == PLAN_hold && said(verb, arg) == 1 && strstr(text, ": held"))
        obey.is_held[arg] = id_parse(id, &obey.held[arg], NULL) >= 0;
    if (verb == PLAN_drain && said(verb, arg) == 1 && world.now_ms < world.plan->quiet_ms)
        obey.drained[arg] = true;
    if ((verb == PLAN_cancel || verb == PLAN_canceljob) && strstr(text, ": cancelled") &&
        obey.n_cancelled < GONE_MAX &&
        id_parse(id, &obey.cancelled[obey.n_cancelled].of, NULL) >= 0)
        obey.cancelled[obey.n_cancelled++].ms = world.now_ms;
}

void check_canary_differs(const char *addr, uint64_t task)
{
    for (unsigned h = FIRST_AGENT_HOST; h < world.n_hosts; h++) {
        size_t n = strlen(world.host[h].name);
        if (!strncmp(addr, world.host[h].name, n) && addr[n] == ':')
            obey.canary[h] = task;
    }
}

void check_canary_over(unsigned host, uint64_t task)
{
    if (obey.canary[host] == task)
        obey.canary[host] = UINT64_MAX;
}

void check_obey_grant(unsigned host, const struct msg_grant *m, bool canary)
{
    if (canary)
        return;
    obey.granted[m->task % TASKS].task = m->task;
    obey.granted[m->task % TASKS].of = m->sweep;
    if (obey.canary[host] == UINT64_MAX)
        sim_fail("task %" PRIu64 " is granted to %s, whose canary differed", m->task,
                 world.host[host].name);
    if (obey.drained[host])
        sim_fail("task %" PRIu64 " is granted to %s, which is drained", m->task,
                 world.host[host].name);
    for (unsigned i = 0; i < world.plan->n_sweeps; i++)
        if (obey.is_held[i] && id_eq(&obey.held[i], &m->sweep))
            sim_fail("task %" PRIu64 " of s%u is granted, which is held", m->task, i);
}

void check_works(const char *dir, unsigned host)
{
    uint64_t task;
    const char *name = strrchr(dir, '/');
    if (obey.faults || !obey.n_cancelled || !name || sscanf(name, "/%" SCNu64 "-", &task) != 1 ||
        obey.granted[task % TASKS].task != task)
        return;
    for (unsigned i = 0; i < obey.n_cancelled; i++)
        if (id_eq(&obey.cancelled[i].of, &obey.granted[task % TASKS].of) &&
            world.now_ms > obey.cancelled[i].ms + CANCEL_MS)
            sim_fail("task %" PRIu64 " works on at %s, %d ms after it was cancelled", task,
                     world.host[host].name, (int)(world.now_ms - obey.cancelled[i].ms));
}

size_t check_orphans(const struct sched *s)
{
    size_t n = 0;
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        LIST_EACH(p, k, &a->tasks)
        n += LIST_OF(p, struct sched_task, by_agent)->state == TASK_ORPHAN;
    }
    return n;
}
