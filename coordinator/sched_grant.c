/* Who gets what next: traces to make, blocks of points, and to which agent. */
#include "coordinator/sched_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int want_trace(struct sched *s, const struct sched_sweep *w, struct sched_trace *tr)
{
    struct sched_task *t;
    if (tr->ready || tr->task || !tr->build)
        return 0;
    int r = sched_new_task(s, TASK_TRACE, NULL, tr, 0, &t);
    if (r < 0)
        return r;
    t->retries = (uint16_t)w->retries;
    tr->timeout_ms = w->timeout_ms;
    return 0;
}

/* Trace tasks for what the sweep comes to next; points of traces that cannot be had are given up.
 */
static int want_traces(struct sched *s, struct sched_sweep *w, struct sched_actions *out)
{
    unsigned window = 0;
    int r;
    for (size_t k = 0; k < w->todo.n && window < SCHED_TRACE_WINDOW;) {
        uint64_t lo = w->todo.v[k].lo;
        while (lo < w->todo.v[k].hi && window < SCHED_TRACE_WINDOW) {
            uint64_t no = w->plan.trace_of(w->plan.ctx, lo),
                     end = w->plan.trace_end(w->plan.ctx, lo);
            if (end > w->todo.v[k].hi || end <= lo)
                end = w->todo.v[k].hi;
            struct sched_trace *tr = no < w->n_traces ? w->trace[no] : NULL;
            if (!tr || tr->failed) {
                struct spans gone = { 0 };
                r = spans_add(&gone, lo, end);
                if (r >= 0)
                    r = sched_give_up(w, &gone, tr ? tr->why : "no such trace", out);
                spans_clear(&gone);
                if (r < 0 || spans_del(&w->todo, lo, end) < 0)
                    return r < 0 ? r : -ENOMEM;
                if (k >= w->todo.n)
                    return 0;
                lo = w->todo.v[k].lo > end ? w->todo.v[k].lo : end;
                continue;
            }
            if (!tr->ready) {
                window++;
                if ((r = want_trace(s, w, tr)) < 0)
                    return r;
            }
            lo = end;
        }
        k++;
    }
    return 0;
}

/* The same for tasks that wait, after a failure, say, for a trace that was lost meanwhile; want_traces() sees only points that no
 * task has. Sets *lost when a task of the sweep may come to wait for one. */
static int want_lost(struct sched *s, struct sched_sweep *w, bool *lost, struct sched_actions *out)
{
    LIST_EACH(p, n, &w->tasks)
    {
        struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        int r;
        if (!t->trace || t->trace->ready)
            continue;
        *lost = true;
        if (t->state != TASK_QUEUED || w->held)
            continue;
        if (!t->trace->failed) {
            if ((r = want_trace(s, w, t->trace)) < 0)
                return r;
            continue;
        }
        w->in_tasks -= t->left.total; /* no sched_finish(): our caller settles the sweep */
        if ((r = sched_give_up(w, &t->left, t->trace->why, out)) < 0)
            return r;
        sched_end_task(s, t);
    }
    return 0;
}

static int forget(struct sched *s, struct sched_actions *out)
{
    for (; s->n_gone; s->n_gone--) {
        struct sched_action *a;
        int r = sched_act(out, ACT_FORGET, &a);
        if (r < 0)
            return r;
        a->task = s->gone[s->n_gone - 1];
    }
    return 0;
}

bool sched_takes(const struct sched_agent *a, uint64_t now)
{
    return a->alive && a->accept && !a->drained && !a->canary && !a->reserved &&
           now >= a->not_before_ms;
}

static bool had(const struct sched_past *p, const struct sched_agent *a)
{
    bool it = false;
    for (uint32_t i = 0; i < p->n_failed_on; i++)
        it |= p->failed_on[i] == a;
    for (uint32_t i = 0; i < p->n_kills; i++)
        it |= !memcmp(p->kill[i].install, a->install, sizeof(a->install));
    return it;
}

/* A task that failed here, or took it along, is left to another agent, if there is one, for a while: whose fault it was shows
 * then. */
bool sched_better_elsewhere(const struct sched *s, const struct sched_task *t,
                            const struct sched_agent *a, uint64_t now)
{
    const struct sched_past *p = t->past;
    if (!p || now >= t->not_before_ms + SCHED_AVOID_MS || !had(p, a))
        return false;
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *o = LIST_OF(q, struct sched_agent, all);
        if (sched_takes(o, now) && !had(p, o) && (!t->job || sched_agent_fits(o, t->needs)) &&
            sched_ends_before(o, t, now))
            return true;
    }
    return false;
}

int sched_grant(struct sched *s, struct sched_task *t, struct sched_agent *a, uint64_t now,
                struct sched_actions *out)
{
    struct sched_action *g;
    int r = sched_act(out, ACT_GRANT, &g);
    if (r < 0)
        return r;
    sched_move(s, t, MOVE_GRANT);
    sched_join(t, a);
    t->epoch = (uint32_t)s->cfg.epoch;
    t->n++;
    t->boot = a->boot;
    t->runs = false;
    t->lease_ms = now + s->cfg.lease_ms;
    g->agent = a;
    g->task = t->num;
    g->epoch = t->epoch;
    g->n = t->n;
    g->kind = t->kind;
    g->timeout_ms = sched_timeout_ms(t);
    g->sweep = t->sweep ? t->sweep->seq : t->job ? t->job->seq : 0;
    if (t->trace)
        g->key = t->trace->key;
    g->fails = t->fails;
    g->user = t->sweep ? t->sweep->user : t->job ? t->job->user : NULL;
    for (size_t i = 0; i < t->left.n; i++)
        if ((r = sched_act_span(out, g, t->left.v[i].lo, t->left.v[i].hi)) < 0)
            return r;
    return 0;
}

/* A sweep whose trace is being asked for; any will do to name it in the grant, but one that is held wants nothing now. */
static struct sched_sweep *sweep_of_trace(const struct sched *s, const struct sched_trace *tr)
{
    for (size_t i = 0; i < s->n_order; i++)
        for (uint32_t k = 0; !s->order[i]->held && k < s->order[i]->n_traces; k++)
            if (s->order[i]->trace[k] == tr)
                return s->order[i];
    return NULL;
}

/* The grant of a trace task names a sweep that wants it. */
static void name_sweep(struct sched_actions *out, const struct sched_sweep *w)
{
    out->v[out->n - 1].sweep = w->seq;
    out->v[out->n - 1].user = w->user;
}

/* Suspects, ahead of all others whatever their priority: each waits for an agent that holds nothing. Those of jobs come with
 * their jobs. */
static int grant_suspects(struct sched *s, uint64_t now, struct sched_actions *out)
{
    unsigned tries = 0;
    LIST_EACH(p, n, &s->suspects)
    {
        struct sched_task *t = LIST_OF(p, struct sched_past, by_suspicion)->task;
        if (t->job || t->state != TASK_QUEUED || now < t->not_before_ms)
            continue;
        struct sched_sweep *w = t->sweep ? t->sweep : sweep_of_trace(s, t->trace);
        if (!w || w->held || w->over || (t->sweep && !t->trace->ready))
            continue;
        int r = sched_place(s, t, false, now, out);
        if (r < 0)
            return r;
        if (r == 0 && ++tries == SCHED_TRACE_WINDOW)
            break; /* no room for so many: hardly for the next */
        if (r == 1 && !t->sweep)
            name_sweep(out, w);
    }
    return 0;
}

static int grant_traces(struct sched *s, uint64_t now, struct sched_actions *out)
{
    LIST_EACH(p, n, &s->trace_tasks)
    {
        struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        if (t->state != TASK_QUEUED || now < t->not_before_ms || sched_alone(t))
            continue;
        struct sched_sweep *w = sweep_of_trace(s, t->trace);
        if (!w || w->held)
            continue;
        struct sched_agent *best = NULL;
        LIST_EACH(q, m, &s->agent_list)
        {
            struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
            uint32_t slots = a->cores < SCHED_TRACE_SLOTS ? a->cores : SCHED_TRACE_SLOTS;
            if (sched_takes(a, now) && !sched_better_elsewhere(s, t, a, now) &&
                sched_ends_before(a, t, now) && a->n_tasks[TASK_TRACE] < slots &&
                (!best || (uint64_t)a->n_tasks[TASK_TRACE] * best->cores <
                              (uint64_t)best->n_tasks[TASK_TRACE] * a->cores))
                best = a;
        }
        if (!best)
            continue;
        int r = sched_grant(s, t, best, now, out);
        if (r < 0)
            return r;
        name_sweep(out, w);
    }
    return 0;
}

uint64_t sched_point_us(const struct sched_sweep *w, const struct sched_trace *tr)
{
    return tr && tr->point_us ? tr->point_us : w->point_us;
}

uint64_t sched_room(const struct sched_agent *a, uint64_t point_us, uint64_t now)
{
    if (!a->drain_at_ms || !point_us)
        return UINT64_MAX;
    uint64_t left_us = a->drain_at_ms > now ? (a->drain_at_ms - now) * 1000 : 0;
    LIST_EACH(p, n, &a->tasks)
    {
        const struct sched_task *t = LIST_OF(p, struct sched_task, by_agent);
        if (t->kind != TASK_POINTS)
            continue;
        uint64_t us =
            (t->left.total + a->cores - 1) / a->cores * sched_point_us(t->sweep, t->trace);
        left_us = left_us > us ? left_us - us : 0;
    }
    uint64_t rounds = left_us / (point_us + point_us / 8); /* some take longer than the others */
    return rounds < UINT32_MAX ? rounds * a->cores : UINT64_MAX;
}

uint64_t sched_takes_ms(const struct sched_task *t)
{
    uint64_t ms = t->needs->takes_ms ? t->needs->takes_ms : sched_timeout_ms(t);
    return ms ? ms : SCHED_UNSTATED_MS;
}

bool sched_ends_before(const struct sched_agent *a, const struct sched_task *t, uint64_t now)
{
    if (!a->drain_at_ms)
        return true;
    if (t->kind == TASK_POINTS)
        return t->left.total <= sched_room(a, sched_point_us(t->sweep, t->trace), now);
    return now < a->drain_at_ms && sched_takes_ms(t) <= a->drain_at_ms - now;
}

static uint64_t block_size(const struct sched_sweep *w, const struct sched_trace *tr,
                           const struct sched_agent *a, uint64_t all_cores)
{
    uint64_t n, cores = a->cores;
    if (w->block) {
        n = w->block;
    } else {
        uint64_t us = sched_point_us(w, tr);
        n = us ? SCHED_TARGET_MS * 1000ull * cores / us
               : cores; /* first a taste of one point a core */
        if (all_cores > cores) {
            /* half of a fair share, so that the end of a sweep is spread over all; but a task has its own cost */
            uint64_t share = w->todo.total * cores / (2 * all_cores);
            uint64_t least = us ? SCHED_LEAST_MS * 1000ull * cores / us : cores;
            if (n > share)
                n = share > least ? share : least;
        }
        n = (n + cores - 1) / cores * cores; /* whole rounds of the cores */
        if (n < cores)
            n = cores;
    }
    return n > SCHED_BLOCK_MAX ? SCHED_BLOCK_MAX : n;
}

/* ---- shares */

enum { GUESS_US = 1000 }; /* a point's time while nothing is known */

uint64_t sched_share(const struct sched_sweep *w)
{
    uint64_t us = w->point_us ? w->point_us : GUESS_US;
    uint64_t held = w->in_tasks < UINT64_MAX / us ? w->in_tasks * us : UINT64_MAX;
    return w->used_us < UINT64_MAX - held ? w->used_us + held : UINT64_MAX;
}

void sched_charge(struct sched_sweep *w, uint64_t us)
{
    w->used_us = w->used_us < UINT64_MAX - us ? w->used_us + us : UINT64_MAX;
}

static int by_share(const void *x, const void *y)
{
    const struct sched_sweep *a = *(struct sched_sweep *const *)x,
                             *b = *(struct sched_sweep *const *)y;
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    uint64_t s = sched_share(a), t = sched_share(b);
    if (s != t)
        return s < t ? -1 : 1;
    return a->seq < b->seq ? -1 : 1;
}

/* The sweep in place i got a block: it stands behind those of its priority that have had less. */
static void step_back(struct sched *s, size_t i)
{
    for (; i + 1 < s->n_order && by_share(&s->order[i], &s->order[i + 1]) > 0; i++) {
        struct sched_sweep *w = s->order[i];
        s->order[i] = s->order[i + 1];
        s->order[i + 1] = w;
    }
}

/* ---- blocks */

enum { GRANTED = 1, NOT_FOR_IT = 2 }; /* 0 = nothing for any agent */

/* The next points task for an agent: one that is tried again, or a fresh block. */
static int grant_points(struct sched *s, struct sched_agent *a, uint64_t all_cores, uint64_t now,
                        struct sched_actions *out)
{
    int r, nothing = 0;
    for (size_t i = 0; i < s->n_order; i++) {
        struct sched_sweep *w = s->order[i];
        if (w->held || w->over)
            continue;
        LIST_EACH(p, n, &w->tasks)
        {
            struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
            if (t->state != TASK_QUEUED || now < t->not_before_ms || !t->trace->ready ||
                sched_alone(t))
                continue;
            if (sched_better_elsewhere(s, t, a, now) || !sched_ends_before(a, t, now)) {
                nothing = NOT_FOR_IT;
                continue;
            }
            r = sched_grant(s, t, a, now, out);
            return r < 0 ? r : GRANTED;
        }
        unsigned waiting = 0;
        for (size_t k = 0; k < w->todo.n && waiting < SCHED_TRACE_WINDOW; k++) {
            uint64_t lo = w->todo.v[k].lo;
            while (lo < w->todo.v[k].hi && waiting < SCHED_TRACE_WINDOW) {
                uint64_t no = w->plan.trace_of(w->plan.ctx, lo);
                uint64_t end = w->plan.trace_end(w->plan.ctx, lo);
                if (end > w->todo.v[k].hi || end <= lo)
                    end = w->todo.v[k].hi;
                struct sched_trace *tr = no < w->n_traces ? w->trace[no] : NULL;
                if (!tr || !tr->ready) {
                    waiting++;
                    lo = end;
                    continue;
                }
                /* while the first taste runs its rows tell the rate: no second taste for the same agent */
                if (!w->block && !tr->point_us && !w->point_us && a->n_tasks[TASK_POINTS]) {
                    nothing = NOT_FOR_IT;
                    break;
                }
                uint64_t n = block_size(w, tr, a, all_cores),
                         room = sched_room(a, sched_point_us(w, tr), now);
                if (!room) { /* another trace's points may be shorter */
                    nothing = NOT_FOR_IT;
                    waiting++;
                    lo = end;
                    continue;
                }
                n = n < room ? n : room;
                if (end - lo > n && (w->block || all_cores > a->cores || end - lo > n + n / 2 ||
                                     end - lo > SCHED_BLOCK_MAX || end - lo > room))
                    end = lo + n; /* else a small rest joins the last block */
                struct sched_task *t;
                r = sched_new_task(s, TASK_POINTS, w, tr, 0, &t);
                if (r < 0)
                    return r;
                t->retries = (uint16_t)w->retries;
                r = spans_add(&t->left, lo, end);
                if (r < 0) {
                    sched_end_task(s, t);
                    return r;
                }
                t->total = (uint32_t)t->left.total;
                w->in_tasks += t->total;
                if (spans_del(&w->todo, lo, end) < 0)
                    return -ENOMEM;
                r = sched_grant(s, t, a, now, out);
                step_back(s, i);
                return r < 0 ? r : GRANTED;
            }
        }
    }
    return nothing;
}

int sched_dispatch(struct sched *s, uint64_t now, struct sched_actions *out)
{
    int r;
    bool lost = false;
    for (size_t i = 0; i < s->n_order; i++) {
        struct sched_sweep *w = s->order[i];
        if (w->over)
            continue;
        if (!w->held && (r = want_traces(s, w, out)) < 0)
            return r;
        if (s->lost && (r = want_lost(s, w, &lost, out)) < 0)
            return r;
        size_t before = s->n_order;
        if (!sched_left(w) && (r = sched_settle(s, w, out)) < 0)
            return r;
        i -= before - s->n_order; /* it may be gone */
    }
    s->lost = lost;
    if ((r = forget(s, out)) < 0 || s->draining || s->paused || s->loading)
        return r;
    sched_reserve_agents(s);
    if ((r = grant_suspects(s, now, out)) < 0 || (r = sched_grant_jobs(s, now, out)) < 0 ||
        (r = grant_traces(s, now, out)) < 0)
        return r;
    uint64_t all_cores = 0;
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (sched_takes(a, now))
            all_cores += a->cores;
    }
    if (!all_cores)
        return 0;
    if (s->n_order > 1)
        qsort(s->order, s->n_order, sizeof(struct sched_sweep *), by_share);
    for (uint32_t have = 0; have < SCHED_POINT_SLOTS; have++)
        LIST_EACH(q, m, &s->agent_list)
        {
            struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
            if (a->n_tasks[TASK_POINTS] > have || !sched_takes(a, now))
                continue;
            r = grant_points(s, a, all_cores, now, out);
            if (r <= 0)
                return r;
        }
    return 0;
}
