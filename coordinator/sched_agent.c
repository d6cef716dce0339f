/* Hosts: who is here, what each holds under which lease, and what happens when one falls silent. */
#include "coordinator/sched_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- agents */

/* Renew what the agent holds; name what it must drop. */
static int renew(struct sched *s, struct sched_agent *a, const struct sched_ref *refs, size_t n,
                 uint64_t now, struct sched_actions *out, struct sched_action *answer)
{
    size_t at = (size_t)(answer - out->v);
    for (size_t i = 0; i < n; i++) {
        struct sched_task *t = sched_task(s, refs[i].task);
        if (a->canary && refs[i].task == a->canary && refs[i].epoch == s->cfg.epoch)
            continue;
        if (sched_same(t, refs[i].epoch, refs[i].n) && t->agent == a && t->state != TASK_STOPPING) {
            sched_move(s, t, MOVE_CLAIM);
            t->lease_ms = now + s->cfg.lease_ms;
            t->runs |= refs[i].state == 2;
            continue;
        }
        if (refs[i].state == 3)
            continue; /* it will deliver, which is welcome, and be told so */
        int r;
        if (sched_same(t, refs[i].epoch, refs[i].n) && t->agent == a) {
            /* it is still ending it, or has not heard that it is to. Not to be dropped: nobody would say when it has ended,
             * and a lease would have to run out */
            t->lease_ms = now + s->cfg.lease_ms;
            r = sched_act_cancel(t, out);
        } else {
            r = sched_act_ref(out, &out->v[at], &refs[i]);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

int sched_ev_hello(struct sched *s, const struct sched_event *ev, uint64_t now,
                   struct sched_actions *out, struct err *e)
{
    struct sched_agent *a = sched_agent(s, ev->agent.install);
    if (a && ev->agent.boot < a->boot)
        return err_set(e, SF_EREFUSED, "boot %llu is fenced by boot %llu of the same install",
                       (unsigned long long)ev->agent.boot, (unsigned long long)a->boot);
    bool reborn = a && ev->agent.boot > a->boot;
    if (!a) {
        a = calloc(1, sizeof(*a));
        if (!a)
            return -ENOMEM;
        memcpy(a->install, ev->agent.install, 16);
        int r = map_put(&s->agents, sched_key(a->install), a);
        if (r < 0) {
            free(a);
            return r == -EEXIST ? err_set(e, SF_EREFUSED, "install id is taken") : r;
        }
        list_init(&a->tasks);
        list_add(&s->agent_list, &a->all);
    }
    a->boot = ev->agent.boot;
    a->cores = ev->agent.cores ? ev->agent.cores : 1;
    a->memory_mib = ev->agent.memory_mib;
    a->kvm = ev->agent.kvm;
    a->collect = ev->agent.collect;
    char *labels = strdup(ev->agent.labels ? ev->agent.labels : "");
    if (!labels)
        return -ENOMEM;
    free(a->labels);
    a->labels = labels;
    a->accept = ev->agent.accept;
    a->drained = ev->agent.drained;
    a->drain_at_ms = ev->agent.drain_at_ms;
    a->user = ev->agent.user;
    a->canary = 0; /* on this connection nothing was granted yet */
    a->stopping = a->stopped = false;
    int r = a->alive ? 0 : sched_revive(s, a, out);
    if (r < 0)
        return r;
    a->alive = true;
    a->heard_ms = now;
    a->not_before_ms = 0;
    struct sched_action *w;
    r = sched_act(out, ACT_WELCOME, &w);
    if (r < 0)
        return r;
    w->agent = a;
    size_t at = out->n - 1;
    r = renew(s, a, ev->agent.refs, ev->agent.n_refs, now, out, &out->v[at]);
    if (r < 0 || !reborn)
        return r;
    /* What the old boot held and this one does not name is lost now, not in a lease's time. Of an agent that was not heard
     * since the start, that may be the same boot: then it went alone. */
    LIST_EACH(p, next, &a->tasks)
    {
        struct sched_task *t = LIST_OF(p, struct sched_task, by_agent);
        bool named = false;
        for (size_t i = 0; i < ev->agent.n_refs && !named; i++)
            named = t->num == ev->agent.refs[i].task &&
                    sched_same(t, ev->agent.refs[i].epoch, ev->agent.refs[i].n);
        if (!named && (r = sched_lose(s, t, "lost", a->boot > t->boot, now, out)) < 0)
            return r;
    }
    return 0;
}

int sched_ev_canary(struct sched *s, const struct sched_event *ev, uint64_t now,
                    struct sched_actions *out, struct err *e)
{
    struct sched_agent *a = sched_agent(s, ev->agent.install);
    struct sched_action *x;
    if (!a || !a->alive)
        return err_set(e, ENOENT, "agent has not been heard since the start");
    int r = sched_act(out, ACT_CANARY, &x);
    if (r < 0)
        return r;
    a->canary = s->cfg.next_task++;
    a->canary_until_ms = now + SCHED_CANARY_MS;
    x->agent = a;
    x->task = a->canary;
    x->epoch = s->cfg.epoch;
    x->n = 1;
    return 0;
}

int sched_ev_beat(struct sched *s, const struct sched_event *ev, uint64_t now,
                  struct sched_actions *out, struct err *e)
{
    struct sched_agent *a = sched_agent(s, ev->agent.install);
    if (!a || !a->boot)
        return err_set(e, SF_EREFUSED, "say hello first");
    if (a->boot != ev->agent.boot)
        return err_set(e, SF_EREFUSED, "boot %llu is fenced by boot %llu of the same install",
                       (unsigned long long)ev->agent.boot, (unsigned long long)a->boot);
    struct sched_action *d;
    int r = sched_act(out, ACT_DROP, &d); /* first of all: the caller fills it in */
    if (r < 0)
        return r;
    size_t at = out->n - 1;
    if (!a->alive && (r = sched_revive(s, a, out)) < 0)
        return r;
    d = &out->v[at];
    a->alive = true;
    a->heard_ms = now;
    a->accept = ev->agent.accept;
    a->stopping = !ev->agent.accept && !ev->agent.n_refs;
    a->stopped = false;
    d->agent = a;
    return renew(s, a, ev->agent.refs, ev->agent.n_refs, now, out, d);
}

/* ---- restored attempts */

/* An agent that is known by its install only, until it says hello: boot 0. */
static int orphan_agent(struct sched *s, const uint8_t install[16], struct sched_agent **ret)
{
    *ret = sched_agent(s, install);
    if (*ret)
        return 0;
    struct sched_agent *a = calloc(1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    memcpy(a->install, install, 16);
    int r = map_put(&s->agents, sched_key(a->install), a);
    if (r < 0) {
        free(a);
        return r;
    }
    a->cores = 1;
    list_init(&a->tasks);
    list_add(&s->agent_list, &a->all);
    *ret = a;
    return 0;
}

int sched_ev_restore(struct sched *s, const struct sched_event *ev, uint64_t now,
                     struct sched_actions *out, struct err *e)
{
    struct sched_sweep *w = NULL;
    struct sched_trace *tr = NULL;
    struct sched_task *t = NULL;
    if (ev->restore.kind >= TASK_EXEC) {
        t = sched_task(s, ev->restore.task);
        if (!t || !t->job || t->state != TASK_QUEUED)
            return err_set(e, ENOENT, "task %llu: nobody needs it",
                           (unsigned long long)ev->restore.task);
    } else if (ev->restore.kind == TASK_POINTS) {
        w = sched_sweep(s, ev->restore.sweep);
        if (!w)
            return err_set(e, ENOENT, "task %llu: no such sweep",
                           (unsigned long long)ev->restore.task);
        const struct spans *pts = ev->restore.points;
        if (pts->n) {
            uint64_t k = w->plan.trace_of(w->plan.ctx, pts->v[0].lo);
            if (k < w->n_traces)
                tr = w->trace[k];
        } else if (w->n_traces) {
            tr = w->trace[0];
        }
    } else {
        tr = sched_find_trace(s, &ev->restore.key);
    }
    if (!t && (!tr || (ev->restore.kind == TASK_TRACE && (tr->ready || tr->task))))
        return err_set(e, ENOENT, "task %llu: nobody needs it",
                       (unsigned long long)ev->restore.task);
    struct sched_agent *a = NULL;
    int r = ev->restore.open ? orphan_agent(s, ev->restore.install, &a) : 0;
    if (r < 0)
        return r;
    if (!t) { /* a job's tasks are here already */
        r = sched_new_task(s, ev->restore.kind, w, tr, ev->restore.task, &t);
        if (r < 0)
            return r;
        t->retries = w ? (uint16_t)w->retries : SCHED_RETRIES;
        s->lost |= t->kind == TASK_POINTS && !tr->ready;
    }
    t->total = (uint32_t)ev->restore.total;
    t->fails = ev->restore.fails;
    if (t->kind == TASK_TRACE)
        tr->timeout_ms = ev->restore.timeout_ms;
    t->noted = ev->restore.noted;
    if (ev->restore.n_kills || (ev->restore.why && *ev->restore.why)) {
        struct sched_past *p = sched_past(t);
        if (!p)
            return -ENOMEM;
        p->n_kills = ev->restore.n_kills < SCHED_KILLS ? ev->restore.n_kills : SCHED_KILLS;
        if (p->n_kills)
            memcpy(p->kill, ev->restore.kills, p->n_kills * sizeof(*p->kill));
        sched_suspect(s, t);
        snprintf(p->why, sizeof(p->why), "%s", ev->restore.why ? ev->restore.why : "");
    }
    if (a) {
        t->epoch = (uint32_t)ev->restore.epoch;
        t->n = (uint32_t)ev->restore.n;
        t->boot = ev->restore.boot;
        t->state = TASK_ORPHAN;
        t->lease_ms = s->start_ms + s->cfg.lease_ms > now ? s->start_ms + s->cfg.lease_ms : now;
        sched_join(t, a);
    } else if (ev->restore.quarantined && sched_past(t)) {
        t->state = TASK_QUARANTINED;
    } else { /* how long it had waited is not known: it waits its whole time again */
        t->n = (uint32_t)ev->restore.n;
        t->not_before_ms = now + sched_back_off(&s->rng, t->fails);
        sched_job_soon(t);
    }
    if (w) {
        /* only what still waits may be in it: results and other tasks come first */
        for (size_t i = 0; i < ev->restore.points->n; i++) {
            uint64_t lo = ev->restore.points->v[i].lo, hi = ev->restore.points->v[i].hi;
            for (size_t k = 0; k < w->todo.n; k++) {
                uint64_t from = lo > w->todo.v[k].lo ? lo : w->todo.v[k].lo;
                uint64_t to = hi < w->todo.v[k].hi ? hi : w->todo.v[k].hi;
                if (from < to && (r = spans_add(&t->left, from, to)) < 0)
                    return r;
            }
        }
        for (size_t i = 0; i < t->left.n; i++)
            if (spans_del(&w->todo, t->left.v[i].lo, t->left.v[i].hi) < 0)
                return -ENOMEM;
        w->in_tasks += t->left.total;
        spans_clear(ev->restore.points);
    }
    return w && !t->left.total && task_waits(t) ? sched_finish(s, t, out) : 0;
}

/* ---- leases that ran out */

int sched_expire(struct sched *s, uint64_t now, struct sched_actions *out)
{
    int r;
    LIST_EACH(q, m, &s->agent_list)
    {
        struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        bool silent = a->alive && now - a->heard_ms > s->cfg.lease_ms;
        bool gone = silent || !a->alive; /* or it was not heard since the start */
        uint64_t lost = 0;
        if (a->canary && (silent || now > a->canary_until_ms)) {
            struct sched_action *x;
            if ((r = sched_act(out, ACT_CANCEL, &x)) < 0)
                return r;
            *x = (struct sched_action){
                .type = ACT_CANCEL, .agent = a, .task = a->canary, .epoch = s->cfg.epoch, .n = 1
            };
            a->canary = 0;
        }
        LIST_EACH(p, n, &a->tasks)
        {
            struct sched_task *t = LIST_OF(p, struct sched_task, by_agent);
            if (now <= t->lease_ms)
                continue;
            lost++;
            if (gone && a->boot) /* which one to strike off if it comes back */
                t->boot = a->boot;
            if ((r = sched_lose(s, t, "lost", gone, now, out)) < 0)
                return r;
        }
        if (silent && list_empty(&a->tasks)) {
            a->alive = false;
            struct sched_action *x;
            if ((r = sched_act(out, ACT_AGENT_LOST, &x)) < 0)
                return r;
            x->agent = a;
            x->n = lost;
        }
    }
    return 0;
}
