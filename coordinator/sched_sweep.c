/* Sweeps and their traces: accepted, ordered, cancelled, over. */
#include "coordinator/sched_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sched_free_sweep(struct sched_sweep *w)
{
    LIST_EACH(p, n, &w->tasks)
    sched_free_task(LIST_OF(p, struct sched_task, by_sweep));
    spans_clear(&w->todo);
    free(w->trace);
    free(w);
}

static void drop_trace(struct sched *s, struct sched_trace *t)
{
    if (--t->users)
        return;
    if (!t->task)
        sched_free_trace(s, t);
    else if (task_waits(t->task))
        sched_end_task(s, t->task);
    /* else: it goes with its task */
}

static int forget_sweep(struct sched *s, struct sched_sweep *w, struct sched_actions *out)
{
    struct sched_action *a;
    int r = sched_act(out, ACT_SWEEP_GONE, &a);
    if (r < 0)
        return r;
    a->sweep = w->seq;
    a->user = w->user;
    for (uint32_t i = 0; i < w->n_traces; i++)
        drop_trace(s, w->trace[i]);
    map_del(&s->sweeps, w->seq);
    for (size_t i = 0; i < s->n_order; i++)
        if (s->order[i] == w) {
            memmove(&s->order[i], &s->order[i + 1], (s->n_order - i - 1) * sizeof(*s->order));
            s->n_order--;
            break;
        }
    sched_free_sweep(w);
    return 0;
}

/* After anything that may have been the last: say once that a sweep is over, forget it when nothing
 * runs for it. */
int sched_settle(struct sched *s, struct sched_sweep *w, struct sched_actions *out)
{
    if (!w->over && (w->cancelled || !sched_left(w))) {
        struct sched_action *a;
        int r = sched_act(out, ACT_SWEEP_OVER, &a);
        if (r < 0)
            return r;
        a->sweep = w->seq;
        a->user = w->user;
        w->over = true;
    }
    return w->over && list_empty(&w->tasks) ? forget_sweep(s, w, out) : 0;
}

void sched_order(struct sched *s, struct sched_sweep *w)
{
    size_t i = 0;
    uint64_t least = UINT64_MAX;
    while (i < s->n_order && s->order[i] != w)
        i++;
    if (i < s->n_order) {
        memmove(&s->order[i], &s->order[i + 1], (s->n_order - i - 1) * sizeof(*s->order));
        s->n_order--;
    }
    for (i = 0; i < s->n_order && s->order[i]->priority >= w->priority; i++) {
        const struct sched_sweep *o = s->order[i];
        if (o->priority == w->priority && !o->held && !o->over && sched_share(o) < least)
            least = sched_share(o);
    }
    /* who comes, or comes back, has no claim on the time in which it was not there */
    if (least != UINT64_MAX && w->used_us < least)
        w->used_us = least;
    memmove(&s->order[i + 1], &s->order[i], (s->n_order - i) * sizeof(*s->order));
    s->order[i] = w;
    s->n_order++;
}

static int add_trace(struct sched *s, const struct id *key, bool build, bool ready,
                     struct sched_trace **ret)
{
    struct sched_trace *t = map_get(&s->traces, sched_key(key->b));
    if (t && !id_eq(&t->key, key))
        return -EEXIST;
    if (!t) {
        t = calloc(1, sizeof(*t));
        if (!t)
            return -ENOMEM;
        t->key = *key;
        t->build = build;
        int r = map_put(&s->traces, sched_key(key->b), t);
        if (r < 0) {
            free(t);
            return r;
        }
    }
    t->ready |= ready;
    if (t->failed && !t->task) /* a new sweep that names it deserves a new try */
        t->failed = false;
    t->users++;
    *ret = t;
    return 0;
}

int sched_ev_sweep(struct sched *s, const struct sched_event *ev, struct sched_actions *out,
                   struct err *e)
{
    if (sched_sweep(s, ev->sweep.seq))
        return err_set(e, EEXIST, "sweep %llu: is here already", (unsigned long long)ev->sweep.seq);
    struct sched_sweep *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->seq = ev->sweep.seq;
    w->plan = ev->sweep.plan;
    w->points = ev->sweep.points;
    w->timeout_ms = ev->sweep.timeout_ms;
    w->block = ev->sweep.block;
    w->pace_ms = ev->sweep.pace_ms;
    w->retries = ev->sweep.retries;
    w->priority = ev->sweep.priority;
    w->held = ev->sweep.held;
    w->user = ev->sweep.user;
    list_init(&w->tasks);
    int r = 0;
    if (s->n_order == s->room_order) {
        void *v = sched_grown(s->order, s->n_order, &s->room_order, sizeof(struct sched_sweep *));
        if (!v)
            r = -ENOMEM;
        else
            s->order = v;
    }
    if (!r)
        r = map_put(&s->sweeps, w->seq, w);
    if (r < 0) {
        free(w);
        return r;
    }
    sched_order(s, w);
    w->trace = calloc(ev->sweep.n_traces ? ev->sweep.n_traces : 1, sizeof(struct sched_trace *));
    if (!w->trace)
        return -ENOMEM;
    for (uint32_t i = 0; i < ev->sweep.n_traces; i++) {
        r = add_trace(s, &ev->sweep.key[i], ev->sweep.build[i], ev->sweep.ready[i], &w->trace[i]);
        if (r < 0)
            return r;
        w->n_traces++;
    }
    if (ev->sweep.todo) {
        w->todo = *ev->sweep.todo;
        *ev->sweep.todo = (struct spans){ 0 };
    } else {
        r = spans_add(&w->todo, 0, w->points);
        if (r < 0)
            return r;
    }
    return sched_settle(s, w, out);
}

int sched_cancel_sweep(struct sched *s, struct sched_sweep *w, struct sched_actions *out)
{
    int r;
    if (w->over)
        return 0;
    w->cancelled = true;
    spans_clear(&w->todo);
    LIST_EACH(p, n, &w->tasks)
    {
        struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        if (task_waits(t)) {
            w->in_tasks -= t->left.total;
            sched_end_task(s, t);
        } else if ((r = sched_stop(s, t, out)) < 0) {
            return r;
        }
    }
    /* traces that only this sweep wanted: nobody waits for them any more */
    LIST_EACH(q, m, &s->trace_tasks)
    {
        struct sched_task *t = LIST_OF(q, struct sched_task, by_sweep);
        bool wanted = false;
        for (size_t i = 0; i < s->n_order && !wanted; i++) {
            const struct sched_sweep *o = s->order[i];
            for (uint32_t k = 0; !o->cancelled && k < o->n_traces && !wanted; k++)
                wanted = o->trace[k] == t->trace;
        }
        if (wanted)
            continue;
        if (task_waits(t))
            sched_end_task(s, t);
        else if ((r = sched_stop(s, t, out)) < 0)
            return r;
    }
    return sched_settle(s, w, out);
}

int sched_cancel_task(struct sched *s, struct sched_task *t, struct sched_actions *out)
{
    if (t->kind == TASK_TRACE) {
        t->retries = 0;
        t->trace->failed = true;
        snprintf(t->trace->why, sizeof(t->trace->why), "trace task was cancelled");
        if (!task_waits(t))
            return sched_stop(s, t, out);
        sched_end_task(s, t);
        return 0;
    }
    if (task_waits(t)) {
        int r = sched_give_up(t->sweep, &t->left, "cancelled", out);
        return r < 0 ? r : sched_finish(s, t, out);
    }
    t->cancelled = true;
    return sched_stop(s, t, out);
}

int sched_redo(struct sched *s, struct sched_sweep *w, const struct sched_event *ev,
               struct sched_actions *out)
{
    int r = 0;
    if (w->over)
        return -EBUSY; /* not forgotten yet: a moment later it comes as a fresh EV_SWEEP */
    for (uint32_t i = 0; i < w->n_traces; i++) {
        struct sched_task *t = w->trace[i]->task;
        if (!t)
            w->trace[i]->failed = false;
        else if (t->state == TASK_QUARANTINED && (r = sched_free_quarantine(s, t, out)) < 0)
            return r;
    }
    LIST_EACH(p, n, &w->tasks)
    {
        struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        if (t->state == TASK_QUARANTINED && (r = sched_free_quarantine(s, t, out)) < 0)
            return r;
    }
    return spans_add_all(&w->todo, ev->sweep.todo); /* they had a row: no task holds them */
}
