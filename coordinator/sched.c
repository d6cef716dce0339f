/* The scheduler's table, its clock, and the one step that leads to the rest. */
#include "coordinator/sched_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tables */

uint64_t sched_key(const void *p)
{
    uint64_t k;
    memcpy(&k, p, sizeof(k)); /* ids are hashes, installs are random: any eight bytes serve */
    return k;
}

struct sched_task *sched_task(const struct sched *s, uint64_t num)
{
    return map_get(&s->tasks, num);
}

struct sched_sweep *sched_sweep(const struct sched *s, uint64_t seq)
{
    return map_get(&s->sweeps, seq);
}

struct sched_agent *sched_agent(const struct sched *s, const uint8_t install[16])
{
    struct sched_agent *a = map_get(&s->agents, sched_key(install));
    return a && !memcmp(a->install, install, 16) ? a : NULL;
}

uint64_t sched_left(const struct sched_sweep *w)
{
    return w->todo.total + w->in_tasks;
}

uint64_t sched_quarantined(const struct sched_sweep *w, bool *ret_rest)
{
    uint64_t points = 0, made_by_none = 0;
    LIST_EACH(p, n, &w->tasks)
    {
        const struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        if (t->state == TASK_QUARANTINED)
            points += t->left.total;
    }
    for (size_t k = 0; k < w->todo.n; k++)
        for (uint64_t lo = w->todo.v[k].lo; lo < w->todo.v[k].hi;) {
            uint64_t no = w->plan.trace_of(w->plan.ctx, lo),
                     end = w->plan.trace_end(w->plan.ctx, lo);
            if (end > w->todo.v[k].hi || end <= lo)
                end = w->todo.v[k].hi;
            const struct sched_task *t = no < w->n_traces ? w->trace[no]->task : NULL;
            if (t && t->state == TASK_QUARANTINED && !w->trace[no]->ready)
                made_by_none += end - lo;
            lo = end;
        }
    points += made_by_none;
    *ret_rest = !points || points < sched_left(w);
    return points;
}

struct sched_trace *sched_find_trace(const struct sched *s, const struct id *key)
{
    struct sched_trace *t = map_get(&s->traces, sched_key(key->b));
    return t && id_eq(&t->key, key) ? t : NULL;
}

void sched_init(struct sched *s, const struct sched_cfg *cfg, uint64_t now_ms)
{
    *s = (struct sched){ .cfg = *cfg, .start_ms = now_ms, .rng = { cfg->seed } };
    if (!s->cfg.next_task)
        s->cfg.next_task = 1;
    list_init(&s->agent_list);
    list_init(&s->trace_tasks);
    list_init(&s->job_list);
    list_init(&s->suspects);
}

void sched_clear(struct sched *s)
{
    for (size_t i = 0; i < s->n_order; i++)
        sched_free_sweep(s->order[i]);
    LIST_EACH(p, n, &s->trace_tasks)
    sched_free_task(LIST_OF(p, struct sched_task, by_sweep));
    LIST_EACH(j, k, &s->job_list)
    sched_free_job(LIST_OF(j, struct sched_job, all));
    LIST_EACH(q, m, &s->agent_list)
    {
        free(LIST_OF(q, struct sched_agent, all)->labels);
        free(LIST_OF(q, struct sched_agent, all));
    }
    for (size_t i = 0; i < s->traces.room; i++)
        if (s->traces.slot[i].val &&
            map_get(&s->traces, s->traces.slot[i].key) == s->traces.slot[i].val)
            free(s->traces.slot[i].val);
    free(s->order);
    free(s->gone);
    map_clear(&s->agents);
    map_clear(&s->tasks);
    map_clear(&s->sweeps);
    map_clear(&s->traces);
    map_clear(&s->jobs);
    *s = (struct sched){ 0 };
}

/* Whether a beat changes nothing but leases: thousands of agents send one every other second. */
static bool only_renews(const struct sched *s, const struct sched_event *ev)
{
    const struct sched_agent *a = sched_agent(s, ev->agent.install);
    if (!a || !a->alive || a->accept != ev->agent.accept || !ev->agent.accept)
        return false;
    for (size_t i = 0; i < ev->agent.n_refs; i++) {
        const struct sched_ref *r = &ev->agent.refs[i];
        const struct sched_task *t = sched_task(s, r->task);
        if (!sched_same(t, r->epoch, r->n) || t->agent != a || t->state != TASK_LEASED)
            return false;
    }
    return true;
}

static int step(struct sched *s, const struct sched_event *ev, uint64_t now_ms,
                struct sched_actions *out, struct err *e)
{
    struct sched_sweep *w;
    struct sched_task *t;
    struct sched_agent *a;
    struct sched_job *j;
    int r;
    switch (ev->type) {
    case EV_HELLO:
        return sched_ev_hello(s, ev, now_ms, out, e);
    case EV_BEAT:
        return sched_ev_beat(s, ev, now_ms, out, e);
    case EV_GONE:
        a = sched_agent(s, ev->agent.install);
        if (!a)
            return 0;
        a->accept = false;
        if (a->stopping &&
            list_empty(&a->tasks)) { /* it went in order: nothing is lost, nobody is silent */
            a->alive = false;
            a->stopped = true;
        }
        return 0;
    case EV_SWEEP:
        return sched_ev_sweep(s, ev, out, e);
    case EV_RESTORE:
        return sched_ev_restore(s, ev, now_ms, out, e);
    case EV_TRACE_READY: {
        struct sched_trace *tr = sched_find_trace(s, &ev->trace.key);
        if (!tr)
            return 0;
        tr->ready = true;
        tr->failed = false;
        if (tr->task && task_waits(tr->task))
            sched_end_task(s, tr->task);
        return 0;
    }
    case EV_TRACE_LOST: {
        struct sched_trace *tr = sched_find_trace(s, &ev->trace.key);
        if (tr) {
            tr->ready = false;
            s->lost = true;
        }
        return 0;
    }
    case EV_POINT:
        return sched_ev_point(s, ev, now_ms, out);
    case EV_END:
        return sched_ev_end(s, ev, now_ms, out, e);
    case EV_DECLINE:
        return sched_ev_decline(s, ev, now_ms, out, e);
    case EV_CANCEL_SWEEP:
    case EV_HOLD:
    case EV_RELEASE:
    case EV_PRIORITY:
        w = sched_sweep(s, ev->sweep.seq);
        if (!w)
            return err_set(e, ENOENT, "sweep is over");
        if (ev->type == EV_CANCEL_SWEEP)
            return sched_cancel_sweep(s, w, out);
        if (ev->type == EV_PRIORITY) {
            w->priority = ev->sweep.priority;
            sched_order(s, w);
        } else {
            bool back = w->held && ev->type == EV_RELEASE;
            w->held = ev->type == EV_HOLD;
            if (back)
                sched_order(s, w);
        }
        return 0;
    case EV_CANCEL_TASK:
    case EV_RETRY_TASK:
        t = sched_task(s, ev->end.task);
        if (!t)
            return err_set(e, ENOENT, "task %llu: is over", (unsigned long long)ev->end.task);
        if (ev->type == EV_CANCEL_TASK)
            return t->job ? sched_cancel_job_task(s, t, out) : sched_cancel_task(s, t, out);
        if (task_waits(t))
            t->not_before_ms = 0;
        return t->state == TASK_QUARANTINED ? sched_free_quarantine(s, t, out) : 0;
    case EV_CANARY:
        return sched_ev_canary(s, ev, now_ms, out, e);
    case EV_CANARY_OVER:
        a = sched_agent(s, ev->agent.install);
        if (!a)
            return err_set(e, ENOENT, "agent has not been heard since the start");
        a->canary = 0;
        a->drained |= !ev->agent.accept;
        return 0;
    case EV_DRAIN:
        a = sched_agent(s, ev->agent.install);
        if (!a)
            return err_set(e, ENOENT, "agent has not been heard since the start");
        a->drained = !ev->agent.accept;
        a->drain_at_ms = ev->agent.drain_at_ms;
        return 0;
    case EV_REDO:
        w = sched_sweep(s, ev->sweep.seq);
        return w ? sched_redo(s, w, ev, out) : err_set(e, ENOENT, "sweep is over");
    case EV_JOB:
        return sched_ev_job(s, ev, out, e);
    case EV_CANCEL_JOB:
    case EV_HOLD_JOB:
    case EV_PRIORITY_JOB:
        j = sched_job(s, ev->job.seq);
        if (!j)
            return err_set(e, ENOENT, "job is over");
        if (ev->type == EV_CANCEL_JOB)
            return sched_cancel_job(s, j, out);
        if (ev->type == EV_PRIORITY_JOB)
            sched_order_job(s, j, ev->job.priority);
        else
            j->held = ev->job.held;
        return 0;
    case EV_STOP:
        s->draining = true;
        return 0;
    case EV_TICK:
        s->tick_ms = now_ms;
        r = sched_expire(s, now_ms, out);
        return r < 0 ? r : sched_dispatch(s, now_ms, out);
    }
    return err_set(e, EINVAL, "unknown event");
}

static void sooner(const struct sched *s, uint64_t *next, uint64_t ms)
{
    if (ms > s->tick_ms && ms < *next)
        *next = ms;
}

static uint64_t next_ms(const struct sched *s)
{
    uint64_t next = UINT64_MAX;
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (a->alive) {
            sooner(s, &next, a->heard_ms + s->cfg.lease_ms + 1);
            sooner(s, &next, a->not_before_ms);
            if (a->canary)
                sooner(s, &next, a->canary_until_ms + 1);
        }
        LIST_EACH(p, n, &a->tasks)
        sooner(s, &next, LIST_OF(p, struct sched_task, by_agent)->lease_ms + 1);
    }
    for (size_t i = 0; i < s->n_order; i++)
        LIST_EACH(p, n, &s->order[i]->tasks)
    if (LIST_OF(p, struct sched_task, by_sweep)->state == TASK_QUEUED)
        sooner(s, &next, LIST_OF(p, struct sched_task, by_sweep)->not_before_ms);
    LIST_EACH(p, n, &s->trace_tasks)
    sooner(s, &next, LIST_OF(p, struct sched_task, by_sweep)->not_before_ms);
    LIST_EACH(j, k, &s->job_list)
    sooner(s, &next, LIST_OF(j, struct sched_job, all)->soon_ms);
    if (!list_empty(&s->job_list)) /* then pinned tasks of agents that did not come are given up */
        sooner(s, &next, s->start_ms + s->cfg.lease_ms + 1);
    return next;
}

uint64_t sched_next_ms(const struct sched *s)
{
    return s->moved ? next_ms(s) : s->next_ms;
}

int sched_step(struct sched *s, const struct sched_event *ev, uint64_t now_ms,
               struct sched_actions *out, struct err *e)
{
    enum { LOOK_MS = 500 }; /* at least so often, whatever next_ms() may have forgotten */
    if (ev->type != EV_TICK) {
        if (!s->moved)
            s->moved = ev->type != EV_BEAT || !only_renews(s, ev);
        return step(s, ev, now_ms, out, e);
    }
    if (!s->moved && now_ms >= s->tick_ms && now_ms < s->next_ms && now_ms < s->tick_ms + LOOK_MS)
        return 0;
    size_t n = out->n;
    int r = step(s, ev, now_ms, out, e);
    s->moved = r < 0 || out->n > n; /* what it did may lead to more */
    if (!s->moved)
        s->next_ms = next_ms(s);
    return r;
}

uint64_t sched_eta_ms(const struct sched *s, const struct sched_sweep *w)
{
    uint64_t cores = 0;
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (a->alive && !a->drained)
            cores += a->cores;
    }
    if (!cores || !w->point_us)
        return UINT64_MAX;
    return (uint64_t)((unsigned __int128)sched_left(w) * w->point_us / cores / 1000);
}
