#include "coordinator/sched.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const signed char task_moves[TASK_STATES][TASK_MOVES] = {
    /*                  grant        claim        requeue      stop           end */
    [TASK_QUEUED] = { TASK_LEASED, -1, -1, -1, TASK_ENDED },
    [TASK_LEASED] = { -1, TASK_LEASED, TASK_QUEUED, TASK_STOPPING, TASK_ENDED },
    [TASK_ORPHAN] = { -1, TASK_LEASED, TASK_QUEUED, TASK_STOPPING, TASK_ENDED },
    [TASK_STOPPING] = { -1, TASK_STOPPING, -1, TASK_STOPPING, TASK_ENDED },
    [TASK_ENDED] = { -1, -1, -1, -1, -1 },
};

const char *task_state_name(enum task_state st)
{
    switch (st) {
    case TASK_QUEUED:
        return "queued";
    case TASK_LEASED:
    case TASK_ORPHAN:
    case TASK_STOPPING:
        return "running";
    default:
        return "done";
    }
}

/* ---- actions */

void sched_actions_reset(struct sched_actions *a)
{
    a->n = a->n_spans = a->n_refs = 0;
}

void sched_actions_clear(struct sched_actions *a)
{
    free(a->v);
    free(a->spans);
    free(a->refs);
    *a = (struct sched_actions){ 0 };
}

static void *grown(void *v, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return v;
    size_t more = *room ? *room * 2 : 16;
    void *p = realloc(v, more * size);
    if (p)
        *room = more;
    return p;
}

static int act(struct sched_actions *o, enum sched_action_type type, struct sched_action **ret)
{
    struct sched_action *v = grown(o->v, o->n, &o->room, sizeof(*v));
    if (!v)
        return -ENOMEM;
    o->v = v;
    *ret = &v[o->n++];
    **ret = (struct sched_action){ .type = type };
    return 0;
}

static int act_span(struct sched_actions *o, struct sched_action *a, uint64_t lo, uint64_t hi)
{
    struct span *v = grown(o->spans, o->n_spans, &o->room_spans, sizeof(*v));
    if (!v)
        return -ENOMEM;
    o->spans = v;
    if (!a->count)
        a->first = o->n_spans;
    v[o->n_spans++] = (struct span){ lo, hi };
    a->count++;
    return 0;
}

static int act_ref(struct sched_actions *o, struct sched_action *a, const struct sched_ref *ref)
{
    struct sched_ref *v = grown(o->refs, o->n_refs, &o->room_refs, sizeof(*v));
    if (!v)
        return -ENOMEM;
    o->refs = v;
    if (!a->count)
        a->first = o->n_refs;
    v[o->n_refs++] = *ref;
    a->count++;
    return 0;
}

/* ---- tables */

static uint64_t id_key(const void *p)
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
    struct sched_agent *a = map_get(&s->agents, id_key(install));
    return a && !memcmp(a->install, install, 16) ? a : NULL;
}

uint64_t sched_left(const struct sched_sweep *w)
{
    return w->todo.total + w->in_tasks;
}

static struct sched_trace *find_trace(const struct sched *s, const struct id *key)
{
    struct sched_trace *t = map_get(&s->traces, id_key(key->b));
    return t && id_eq(&t->key, key) ? t : NULL;
}

void sched_init(struct sched *s, const struct sched_cfg *cfg, uint64_t now_ms)
{
    *s = (struct sched){ .cfg = *cfg, .start_ms = now_ms, .rng = { cfg->seed } };
    if (!s->cfg.next_task)
        s->cfg.next_task = 1;
    list_init(&s->agent_list);
    list_init(&s->trace_tasks);
}

static void free_task(struct sched_task *t)
{
    spans_clear(&t->left);
    free(t);
}

static void free_sweep(struct sched_sweep *w)
{
    LIST_EACH(p, n, &w->tasks)
    free_task(LIST_OF(p, struct sched_task, by_sweep));
    spans_clear(&w->todo);
    free(w->trace);
    free(w);
}

void sched_clear(struct sched *s)
{
    for (size_t i = 0; i < s->n_order; i++)
        free_sweep(s->order[i]);
    LIST_EACH(p, n, &s->trace_tasks)
    free_task(LIST_OF(p, struct sched_task, by_sweep));
    LIST_EACH(q, m, &s->agent_list)
    free(LIST_OF(q, struct sched_agent, all));
    for (size_t i = 0; i < s->traces.room; i++)
        if (s->traces.slot[i].val &&
            map_get(&s->traces, s->traces.slot[i].key) == s->traces.slot[i].val)
            free(s->traces.slot[i].val);
    free(s->order);
    map_clear(&s->agents);
    map_clear(&s->tasks);
    map_clear(&s->sweeps);
    map_clear(&s->traces);
    *s = (struct sched){ 0 };
}

/* ---- moves of a task */

static void move(struct sched *s, struct sched_task *t, enum task_move m)
{
    int to = task_moves[t->state][m];
    if (to < 0)
        s->bad_moves++; /* sched_check() tells */
    else
        t->state = (enum task_state)to;
}

static void leave_agent(struct sched_task *t)
{
    if (!t->agent)
        return;
    list_del(&t->by_agent);
    t->agent->n_tasks[t->kind]--;
    t->agent = NULL;
}

static void join_agent(struct sched_task *t, struct sched_agent *a)
{
    leave_agent(t);
    t->agent = a;
    list_add(&a->tasks, &t->by_agent);
    a->n_tasks[t->kind]++;
}

static void free_trace(struct sched *s, struct sched_trace *t)
{
    map_del(&s->traces, id_key(t->key.b));
    free(t);
}

/* End a task: it leaves every table. Its points must be out of it. */
static void end_task(struct sched *s, struct sched_task *t)
{
    move(s, t, MOVE_END);
    leave_agent(t);
    list_del(&t->by_sweep);
    map_del(&s->tasks, t->num);
    struct sched_trace *tr = t->kind == TASK_TRACE ? t->trace : NULL;
    free_task(t);
    if (tr) {
        tr->task = NULL;
        if (!tr->users)
            free_trace(s, tr);
    }
}

static int new_task(struct sched *s, enum task_kind kind, struct sched_sweep *w,
                    struct sched_trace *tr, uint64_t num, struct sched_task **ret)
{
    struct sched_task *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->num = num ? num : s->cfg.next_task;
    t->kind = kind;
    t->state = TASK_QUEUED;
    t->sweep = w;
    t->trace = tr;
    int r = map_put(&s->tasks, t->num, t);
    if (r < 0) {
        free(t);
        return r;
    }
    if (t->num >= s->cfg.next_task)
        s->cfg.next_task = t->num + 1;
    list_init(&t->by_agent);
    list_init(&t->by_sweep);
    list_add(w ? &w->tasks : &s->trace_tasks, &t->by_sweep);
    if (kind == TASK_TRACE)
        tr->task = t;
    *ret = t;
    return 0;
}

static uint64_t back_off(struct sched *s, uint32_t fails)
{
    uint64_t ms = SCHED_BACKOFF_MS;
    for (uint32_t i = 1; i < fails && ms < SCHED_BACKOFF_MAX_MS; i++)
        ms *= 2;
    if (ms > SCHED_BACKOFF_MAX_MS)
        ms = SCHED_BACKOFF_MAX_MS;
    return ms +
           rng_below(&s->rng, ms / 4 + 1); /* so that what failed together does not come together */
}

/* ---- sweeps */

static void drop_trace(struct sched *s, struct sched_trace *t)
{
    if (--t->users)
        return;
    if (!t->task)
        free_trace(s, t);
    else if (t->task->state == TASK_QUEUED)
        end_task(s, t->task);
    /* else: it goes with its task */
}

static int forget_sweep(struct sched *s, struct sched_sweep *w, struct sched_actions *out)
{
    struct sched_action *a;
    int r = act(out, ACT_SWEEP_GONE, &a);
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
    free_sweep(w);
    return 0;
}

/* After anything that may have been the last: say once that a sweep is over, forget it when nothing
 * runs for it. */
static int settle_sweep(struct sched *s, struct sched_sweep *w, struct sched_actions *out)
{
    if (!w->over && (w->cancelled || !sched_left(w))) {
        struct sched_action *a;
        int r = act(out, ACT_SWEEP_OVER, &a);
        if (r < 0)
            return r;
        a->sweep = w->seq;
        a->user = w->user;
        w->over = true;
    }
    return w->over && list_empty(&w->tasks) ? forget_sweep(s, w, out) : 0;
}

static void order_sweeps(struct sched *s, struct sched_sweep *w)
{
    size_t i = 0;
    while (i < s->n_order && s->order[i] != w)
        i++;
    if (i < s->n_order) {
        memmove(&s->order[i], &s->order[i + 1], (s->n_order - i - 1) * sizeof(*s->order));
        s->n_order--;
    }
    i = 0;
    while (i < s->n_order && (s->order[i]->priority > w->priority ||
                              (s->order[i]->priority == w->priority && s->order[i]->seq < w->seq)))
        i++;
    memmove(&s->order[i + 1], &s->order[i], (s->n_order - i) * sizeof(*s->order));
    s->order[i] = w;
    s->n_order++;
}

static int add_trace(struct sched *s, const struct id *key, bool build, bool ready,
                     struct sched_trace **ret)
{
    struct sched_trace *t = map_get(&s->traces, id_key(key->b));
    if (t && !id_eq(&t->key, key))
        return -EEXIST;
    if (!t) {
        t = calloc(1, sizeof(*t));
        if (!t)
            return -ENOMEM;
        t->key = *key;
        t->build = build;
        int r = map_put(&s->traces, id_key(key->b), t);
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

static int ev_sweep(struct sched *s, const struct sched_event *ev, struct sched_actions *out,
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
        void *v = grown(s->order, s->n_order, &s->room_order, sizeof(struct sched_sweep *));
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
    order_sweeps(s, w);
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
    return settle_sweep(s, w, out);
}

/* ---- tasks back to the queue, or given up */

static int give_up(struct sched_sweep *w, const struct spans *pts, const char *text,
                   struct sched_actions *out)
{
    for (size_t i = 0; i < pts->n; i++)
        for (uint64_t lo = pts->v[i].lo; lo < pts->v[i].hi; lo += SCHED_FAIL_RANGE) {
            struct sched_action *a;
            int r = act(out, ACT_GIVE_UP, &a);
            if (r < 0)
                return r;
            a->sweep = w->seq;
            a->user = w->user;
            snprintf(a->text, sizeof(a->text), "%s", text);
            uint64_t hi =
                lo + SCHED_FAIL_RANGE < pts->v[i].hi ? lo + SCHED_FAIL_RANGE : pts->v[i].hi;
            r = act_span(out, a, lo, hi);
            if (r < 0)
                return r;
        }
    return 0;
}

static int say_closed(const struct sched_task *t, const char *cause, struct sched_actions *out)
{
    struct sched_action *a;
    int r = act(out, ACT_CLOSE, &a);
    if (r < 0)
        return r;
    a->task = t->num;
    a->epoch = t->epoch;
    a->n = t->n;
    snprintf(a->text, sizeof(a->text), "%s", cause);
    return 0;
}

/* The task's points leave it for good (accepted elsewhere, given up, or the sweep was cancelled);
 * it ends. */
static int finish_task(struct sched *s, struct sched_task *t, struct sched_actions *out)
{
    struct sched_sweep *w = t->sweep;
    if (w)
        w->in_tasks -= t->left.total;
    end_task(s, t);
    return w ? settle_sweep(s, w, out) : 0;
}

/* An attempt is over and not all came of it. count: it was the task's own fault. */
static int again(struct sched *s, struct sched_task *t, bool count, const char *text, uint64_t now,
                 struct sched_actions *out)
{
    struct sched_sweep *w = t->sweep;
    bool stopping = t->state == TASK_STOPPING;
    if (t->kind == TASK_POINTS && (!t->left.total || w->cancelled))
        return finish_task(s, t, out);
    if (t->cancelled) {
        int r = give_up(w, &t->left, "cancelled", out);
        return r < 0 ? r : finish_task(s, t, out);
    }
    if (t->kind == TASK_TRACE && (stopping || !t->trace->users || t->trace->ready)) {
        end_task(s, t);
        return 0;
    }
    if (stopping) { /* obsolete by others' results, but not quite: cannot be, points only ever go */
        t->state = TASK_LEASED;
    }
    t->fails += count;
    if (count && t->fails > t->retries && t->left.total <= 1) {
        char why[200];
        snprintf(why, sizeof(why), "%s", text);
        if (t->kind == TASK_TRACE) {
            struct sched_trace *tr = t->trace;
            tr->failed = true;
            snprintf(tr->why, sizeof(tr->why), "trace could not be built: %.150s", why);
            struct sched_action *a;
            int r = act(out, ACT_TRACE_FAILED, &a);
            if (r < 0)
                return r;
            a->key = tr->key;
            a->task = t->num;
            snprintf(a->text, sizeof(a->text), "%s", why);
            end_task(s, t);
            return 0;
        }
        int r = give_up(w, &t->left, why, out);
        return r < 0 ? r : finish_task(s, t, out);
    }
    leave_agent(t);
    move(s, t, MOVE_REQUEUE);
    t->not_before_ms = count ? now + back_off(s, t->fails) : now;
    if (!count || t->kind == TASK_TRACE || t->left.total <= 1 || t->fails < 2)
        return 0;
    /* Failed twice: somewhere in it is a point that kills its program. Halves tell innocent points
     * from guilty. */
    struct sched_task *half;
    int r = new_task(s, TASK_POINTS, w, t->trace, 0, &half);
    if (r < 0)
        return r;
    half->timeout_ms = t->timeout_ms;
    half->retries = t->retries;
    half->not_before_ms = t->not_before_ms;
    r = spans_halve(&t->left, &half->left);
    t->total = t->left.total;
    half->total = half->left.total;
    t->fails = half->fails = 1;
    return r;
}

/* Silent: an agent, or one of its tasks. */
static int lose_task(struct sched *s, struct sched_task *t, const char *cause, uint64_t now,
                     struct sched_actions *out)
{
    int r = say_closed(t, cause, out);
    return r < 0 ? r : again(s, t, false, cause, now, out);
}

static int stop_task(struct sched *s, struct sched_task *t, struct sched_actions *out)
{
    if (t->state == TASK_STOPPING)
        return 0;
    struct sched_action *a;
    int r = act(out, ACT_CANCEL, &a);
    if (r < 0)
        return r;
    a->agent = t->agent;
    a->task = t->num;
    a->epoch = t->epoch;
    a->n = t->n;
    move(s, t, MOVE_STOP);
    return 0;
}

/* ---- agents */

static bool same_attempt(const struct sched_task *t, uint64_t epoch, uint64_t n)
{
    return t && t->epoch == epoch && t->n == n;
}

/* Renew what the agent holds; name what it must drop. */
static int renew(struct sched *s, struct sched_agent *a, const struct sched_ref *refs, size_t n,
                 uint64_t now, struct sched_actions *out, struct sched_action *answer)
{
    for (size_t i = 0; i < n; i++) {
        struct sched_task *t = sched_task(s, refs[i].task);
        if (same_attempt(t, refs[i].epoch, refs[i].n) && t->agent == a &&
            t->state != TASK_STOPPING) {
            move(s, t, MOVE_CLAIM);
            t->lease_ms = now + s->cfg.lease_ms;
            continue;
        }
        if (refs[i].state == 3)
            continue; /* it will deliver, which is welcome, and be told so */
        if (t && t->agent == a && t->state == TASK_STOPPING)
            t->lease_ms = now + s->cfg.lease_ms; /* it is still ending it */
        size_t at = (size_t)(answer - out->v);
        int r = act_ref(out, &out->v[at], &refs[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

static int ev_hello(struct sched *s, const struct sched_event *ev, uint64_t now,
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
        int r = map_put(&s->agents, id_key(a->install), a);
        if (r < 0) {
            free(a);
            return r == -EEXIST ? err_set(e, SF_EREFUSED, "install id is taken") : r;
        }
        list_init(&a->tasks);
        list_add(&s->agent_list, &a->all);
    }
    a->boot = ev->agent.boot;
    a->cores = ev->agent.cores ? ev->agent.cores : 1;
    a->accept = ev->agent.accept;
    a->drained = ev->agent.drained;
    a->user = ev->agent.user;
    a->alive = true;
    a->heard_ms = now;
    a->not_before_ms = 0;
    struct sched_action *w;
    int r = act(out, ACT_WELCOME, &w);
    if (r < 0)
        return r;
    w->agent = a;
    size_t at = out->n - 1;
    r = renew(s, a, ev->agent.refs, ev->agent.n_refs, now, out, &out->v[at]);
    if (r < 0 || !reborn)
        return r;
    /* what the old boot held and this one does not name is lost now, not in a lease's time */
    LIST_EACH(p, next, &a->tasks)
    {
        struct sched_task *t = LIST_OF(p, struct sched_task, by_agent);
        bool named = false;
        for (size_t i = 0; i < ev->agent.n_refs && !named; i++)
            named = t->num == ev->agent.refs[i].task &&
                    same_attempt(t, ev->agent.refs[i].epoch, ev->agent.refs[i].n);
        if (!named && (r = lose_task(s, t, "lost", now, out)) < 0)
            return r;
    }
    return 0;
}

static int ev_beat(struct sched *s, const struct sched_event *ev, uint64_t now,
                   struct sched_actions *out, struct err *e)
{
    struct sched_agent *a = sched_agent(s, ev->agent.install);
    if (!a || !a->boot)
        return err_set(e, SF_EREFUSED, "say hello first");
    if (a->boot != ev->agent.boot)
        return err_set(e, SF_EREFUSED, "boot %llu is fenced by boot %llu of the same install",
                       (unsigned long long)ev->agent.boot, (unsigned long long)a->boot);
    a->alive = true;
    a->heard_ms = now;
    a->accept = ev->agent.accept;
    struct sched_action *d;
    int r = act(out, ACT_DROP, &d);
    if (r < 0)
        return r;
    d->agent = a;
    return renew(s, a, ev->agent.refs, ev->agent.n_refs, now, out, d);
}

/* ---- restored attempts */

static int ev_restore(struct sched *s, const struct sched_event *ev, uint64_t now,
                      struct sched_actions *out, struct err *e)
{
    struct sched_sweep *w = NULL;
    struct sched_trace *tr = NULL;
    if (ev->restore.kind == TASK_POINTS) {
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
        tr = find_trace(s, &ev->restore.key);
    }
    if (!tr || (ev->restore.kind == TASK_TRACE && (tr->ready || tr->task)))
        return err_set(e, ENOENT, "task %llu: nobody needs it",
                       (unsigned long long)ev->restore.task);
    struct sched_agent *a = sched_agent(s, ev->restore.install);
    int r;
    if (!a) { /* known by name of its install only, until it says hello: boot 0 */
        a = calloc(1, sizeof(*a));
        if (!a)
            return -ENOMEM;
        memcpy(a->install, ev->restore.install, 16);
        r = map_put(&s->agents, id_key(a->install), a);
        if (r < 0) {
            free(a);
            return r;
        }
        a->cores = 1;
        list_init(&a->tasks);
        list_add(&s->agent_list, &a->all);
    }
    struct sched_task *t;
    r = new_task(s, ev->restore.kind, w, tr, ev->restore.task, &t);
    if (r < 0)
        return r;
    t->epoch = ev->restore.epoch;
    t->n = ev->restore.n;
    t->total = ev->restore.total;
    t->fails = ev->restore.fails;
    t->timeout_ms = ev->restore.timeout_ms;
    t->retries = w ? w->retries : 3;
    t->state = TASK_ORPHAN;
    t->lease_ms = s->start_ms + s->cfg.lease_ms > now ? s->start_ms + s->cfg.lease_ms : now;
    join_agent(t, a);
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
    (void)out;
    return 0;
}

/* ---- results */

static void learn(uint64_t *mean, uint64_t x)
{
    *mean = *mean ? (*mean * 7 + x + 7) / 8 : x;
}

static int ev_point(struct sched *s, const struct sched_event *ev, uint64_t now,
                    struct sched_actions *out)
{
    struct sched_sweep *w = sched_sweep(s, ev->point.sweep);
    struct sched_task *by = ev->point.task ? sched_task(s, ev->point.task) : NULL;
    if (by && same_attempt(by, ev->point.epoch, ev->point.n) && by->agent)
        by->lease_ms = now + s->cfg.lease_ms; /* a result is as good as a beat */
    else
        by = NULL;
    if (!w)
        return 0; /* over and forgotten: the store has counted it */
    uint64_t i = ev->point.index;
    if (ev->point.duration_us) {
        uint64_t k = w->plan.trace_of(w->plan.ctx, i);
        learn(&w->point_us, ev->point.duration_us);
        if (k < w->n_traces)
            learn(&w->trace[k]->point_us, ev->point.duration_us);
    }
    struct sched_task *holder = by && by->sweep == w && spans_has(&by->left, i) ? by : NULL;
    int64_t d;
    if (!holder) {
        d = spans_del(&w->todo, i, i + 1);
        if (d)
            return d < 0 ? (int)d : settle_sweep(s, w, out);
        LIST_EACH(p, n, &w->tasks)
        {
            struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
            if (spans_has(&t->left, i)) {
                holder = t;
                break;
            }
        }
    }
    if (!holder)
        return 0;
    d = spans_del(&holder->left, i, i + 1);
    if (d < 0)
        return (int)d;
    w->in_tasks -= (uint64_t)d;
    if (!holder->left.total && holder != by) {
        /* others did all of it */
        if (holder->state == TASK_QUEUED)
            return finish_task(s, holder, out);
        if (holder->state == TASK_LEASED && ev->point.task) {
            int r = stop_task(s, holder, out);
            if (r < 0)
                return r;
        }
    }
    return settle_sweep(s, w, out);
}

static int ev_end(struct sched *s, const struct sched_event *ev, uint64_t now,
                  struct sched_actions *out, struct err *e)
{
    struct sched_task *t = sched_task(s, ev->end.task);
    if (!same_attempt(t, ev->end.epoch, ev->end.n) || t->state == TASK_QUEUED)
        return err_set(e, ENOENT, "task %llu: attempt %llu/%llu is not open",
                       (unsigned long long)ev->end.task, (unsigned long long)ev->end.epoch,
                       (unsigned long long)ev->end.n);
    const char *cause = ev->end.cause ? ev->end.cause : "exit";
    const char *text = ev->end.text && *ev->end.text ? ev->end.text : cause;
    if (!strcmp(cause, "done")) {
        if (t->kind == TASK_TRACE) {
            t->trace->ready = true;
            t->trace->failed = false;
            end_task(s, t);
            return 0;
        }
        if (!t->left.total)
            return finish_task(s, t, out);
        text = "ended without all of its rows";
    }
    bool count = strcmp(cause, "cancelled") != 0 && strcmp(cause, "lost") != 0;
    return again(s, t, count, text, now, out);
}

static int ev_decline(struct sched *s, const struct sched_event *ev, uint64_t now,
                      struct sched_actions *out, struct err *e)
{
    struct sched_task *t = sched_task(s, ev->end.task);
    if (!same_attempt(t, ev->end.epoch, ev->end.n) || !t->agent)
        return err_set(e, ENOENT, "task %llu: attempt %llu/%llu is not open",
                       (unsigned long long)ev->end.task, (unsigned long long)ev->end.epoch,
                       (unsigned long long)ev->end.n);
    t->agent->not_before_ms = now + SCHED_DECLINE_MS;
    return lose_task(s, t, ev->end.cause ? ev->end.cause : "declined", now, out);
}

/* ---- what people ask for */

static int cancel_sweep(struct sched *s, struct sched_sweep *w, struct sched_actions *out)
{
    int r;
    if (w->over)
        return 0;
    w->cancelled = true;
    spans_clear(&w->todo);
    LIST_EACH(p, n, &w->tasks)
    {
        struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        if (t->state == TASK_QUEUED) {
            w->in_tasks -= t->left.total;
            end_task(s, t);
        } else if ((r = stop_task(s, t, out)) < 0) {
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
        if (t->state == TASK_QUEUED)
            end_task(s, t);
        else if ((r = stop_task(s, t, out)) < 0)
            return r;
    }
    return settle_sweep(s, w, out);
}

static int cancel_task(struct sched *s, struct sched_task *t, struct sched_actions *out)
{
    if (t->kind == TASK_TRACE) {
        t->retries = 0;
        t->trace->failed = true;
        snprintf(t->trace->why, sizeof(t->trace->why), "trace task was cancelled");
        if (t->state != TASK_QUEUED)
            return stop_task(s, t, out);
        end_task(s, t);
        return 0;
    }
    if (t->state == TASK_QUEUED) {
        int r = give_up(t->sweep, &t->left, "cancelled", out);
        return r < 0 ? r : finish_task(s, t, out);
    }
    t->cancelled = true;
    return stop_task(s, t, out);
}

static int redo(struct sched_sweep *w, const struct sched_event *ev)
{
    if (w->over)
        return -EBUSY; /* not forgotten yet: a moment later it comes as a fresh EV_SWEEP */
    for (uint32_t i = 0; i < w->n_traces; i++)
        if (!w->trace[i]->task)
            w->trace[i]->failed = false;
    return spans_add_all(&w->todo, ev->sweep.todo); /* they had a row: no task holds them */
}

/* ---- time and grants */

static int expire(struct sched *s, uint64_t now, struct sched_actions *out)
{
    int r;
    LIST_EACH(q, m, &s->agent_list)
    {
        struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        bool silent = a->alive && now - a->heard_ms > s->cfg.lease_ms;
        uint64_t lost = 0;
        LIST_EACH(p, n, &a->tasks)
        {
            struct sched_task *t = LIST_OF(p, struct sched_task, by_agent);
            if (now <= t->lease_ms)
                continue;
            lost++;
            if ((r = lose_task(s, t, "lost", now, out)) < 0)
                return r;
        }
        if (silent && list_empty(&a->tasks)) {
            a->alive = false;
            struct sched_action *x;
            if ((r = act(out, ACT_AGENT_LOST, &x)) < 0)
                return r;
            x->agent = a;
            x->n = lost;
        }
    }
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
                    r = give_up(w, &gone, tr ? tr->why : "no such trace", out);
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
                if (!tr->task && tr->build) {
                    struct sched_task *t;
                    r = new_task(s, TASK_TRACE, NULL, tr, 0, &t);
                    if (r < 0)
                        return r;
                    t->retries = w->retries;
                    t->timeout_ms = w->timeout_ms;
                }
            }
            lo = end;
        }
        k++;
    }
    return 0;
}

static bool takes(const struct sched_agent *a, uint64_t now)
{
    return a->alive && a->accept && !a->drained && now >= a->not_before_ms;
}

static int grant(struct sched *s, struct sched_task *t, struct sched_agent *a, uint64_t now,
                 struct sched_actions *out)
{
    struct sched_action *g;
    int r = act(out, ACT_GRANT, &g);
    if (r < 0)
        return r;
    move(s, t, MOVE_GRANT);
    join_agent(t, a);
    t->epoch = s->cfg.epoch;
    t->n++;
    t->granted++;
    t->lease_ms = now + s->cfg.lease_ms;
    g->agent = a;
    g->task = t->num;
    g->epoch = t->epoch;
    g->n = t->n;
    g->kind = t->kind;
    g->timeout_ms = t->timeout_ms;
    g->sweep = t->sweep ? t->sweep->seq : 0;
    g->key = t->trace->key;
    g->fails = t->fails;
    g->user = t->sweep ? t->sweep->user : NULL;
    for (size_t i = 0; i < t->left.n; i++)
        if ((r = act_span(out, g, t->left.v[i].lo, t->left.v[i].hi)) < 0)
            return r;
    return 0;
}

/* A sweep whose trace is being asked for; any will do to name it in the grant. */
static struct sched_sweep *sweep_of_trace(const struct sched *s, const struct sched_trace *tr)
{
    for (size_t i = 0; i < s->n_order; i++)
        for (uint32_t k = 0; k < s->order[i]->n_traces; k++)
            if (s->order[i]->trace[k] == tr)
                return s->order[i];
    return NULL;
}

static int grant_traces(struct sched *s, uint64_t now, struct sched_actions *out)
{
    LIST_EACH(p, n, &s->trace_tasks)
    {
        struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        if (t->state != TASK_QUEUED || now < t->not_before_ms)
            continue;
        struct sched_sweep *w = sweep_of_trace(s, t->trace);
        if (!w || w->held)
            continue;
        struct sched_agent *best = NULL;
        LIST_EACH(q, m, &s->agent_list)
        {
            struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
            uint32_t slots = a->cores < SCHED_TRACE_SLOTS ? a->cores : SCHED_TRACE_SLOTS;
            if (takes(a, now) && a->n_tasks[TASK_TRACE] < slots &&
                (!best || (uint64_t)a->n_tasks[TASK_TRACE] * best->cores <
                              (uint64_t)best->n_tasks[TASK_TRACE] * a->cores))
                best = a;
        }
        if (!best)
            return 0;
        int r = grant(s, t, best, now, out);
        if (r < 0)
            return r;
        out->v[out->n - 1].sweep = w->seq;
        out->v[out->n - 1].user = w->user;
    }
    return 0;
}

static uint64_t block_size(const struct sched_sweep *w, const struct sched_trace *tr,
                           const struct sched_agent *a, uint64_t all_cores)
{
    uint64_t n, cores = a->cores;
    if (w->block) {
        n = w->block;
    } else {
        uint64_t us = tr->point_us ? tr->point_us : w->point_us;
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

/* The next points task for an agent: one that is tried again, or a fresh block. 1 = granted, 0 =
 * nothing to do. */
static int grant_points(struct sched *s, struct sched_agent *a, uint64_t all_cores, uint64_t now,
                        struct sched_actions *out)
{
    int r;
    for (size_t i = 0; i < s->n_order; i++) {
        struct sched_sweep *w = s->order[i];
        if (w->held || w->over)
            continue;
        LIST_EACH(p, n, &w->tasks)
        {
            struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
            if (t->state != TASK_QUEUED || now < t->not_before_ms || !t->trace->ready)
                continue;
            r = grant(s, t, a, now, out);
            return r < 0 ? r : 1;
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
                if (!w->block && !tr->point_us && !w->point_us && a->n_tasks[TASK_POINTS])
                    break;
                uint64_t n = block_size(w, tr, a, all_cores);
                if (end - lo > n && (w->block || all_cores > a->cores || end - lo > n + n / 2 ||
                                     end - lo > SCHED_BLOCK_MAX))
                    end = lo + n; /* else a small rest joins the last block */
                struct sched_task *t;
                r = new_task(s, TASK_POINTS, w, tr, 0, &t);
                if (r < 0)
                    return r;
                t->retries = w->retries;
                t->timeout_ms = w->timeout_ms;
                r = spans_add(&t->left, lo, end);
                if (r < 0) {
                    end_task(s, t);
                    return r;
                }
                t->total = t->left.total;
                w->in_tasks += t->total;
                if (spans_del(&w->todo, lo, end) < 0)
                    return -ENOMEM;
                r = grant(s, t, a, now, out);
                return r < 0 ? r : 1;
            }
        }
    }
    return 0;
}

static int dispatch(struct sched *s, uint64_t now, struct sched_actions *out)
{
    int r;
    for (size_t i = 0; i < s->n_order; i++) {
        struct sched_sweep *w = s->order[i];
        if (w->over)
            continue;
        if (!w->held && (r = want_traces(s, w, out)) < 0)
            return r;
        size_t before = s->n_order;
        if (!sched_left(w) && (r = settle_sweep(s, w, out)) < 0)
            return r;
        i -= before - s->n_order; /* it may be gone */
    }
    if (s->draining)
        return 0;
    if ((r = grant_traces(s, now, out)) < 0)
        return r;
    uint64_t all_cores = 0;
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (takes(a, now))
            all_cores += a->cores;
    }
    if (!all_cores)
        return 0;
    for (uint32_t have = 0; have < SCHED_POINT_SLOTS; have++)
        LIST_EACH(q, m, &s->agent_list)
        {
            struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
            if (a->n_tasks[TASK_POINTS] > have || !takes(a, now))
                continue;
            r = grant_points(s, a, all_cores, now, out);
            if (r <= 0)
                return r;
        }
    return 0;
}

int sched_step(struct sched *s, const struct sched_event *ev, uint64_t now_ms,
               struct sched_actions *out, struct err *e)
{
    struct sched_sweep *w;
    struct sched_task *t;
    struct sched_agent *a;
    int r;
    switch (ev->type) {
    case EV_HELLO:
        return ev_hello(s, ev, now_ms, out, e);
    case EV_BEAT:
        return ev_beat(s, ev, now_ms, out, e);
    case EV_GONE:
        a = sched_agent(s, ev->agent.install);
        if (a)
            a->accept = false;
        return 0;
    case EV_SWEEP:
        return ev_sweep(s, ev, out, e);
    case EV_RESTORE:
        return ev_restore(s, ev, now_ms, out, e);
    case EV_TRACE_READY: {
        struct sched_trace *tr = find_trace(s, &ev->trace.key);
        if (!tr)
            return 0;
        tr->ready = true;
        tr->failed = false;
        if (tr->task && tr->task->state == TASK_QUEUED)
            end_task(s, tr->task);
        return 0;
    }
    case EV_POINT:
        return ev_point(s, ev, now_ms, out);
    case EV_END:
        return ev_end(s, ev, now_ms, out, e);
    case EV_DECLINE:
        return ev_decline(s, ev, now_ms, out, e);
    case EV_CANCEL_SWEEP:
    case EV_HOLD:
    case EV_RELEASE:
    case EV_PRIORITY:
        w = sched_sweep(s, ev->sweep.seq);
        if (!w)
            return err_set(e, ENOENT, "sweep is over");
        if (ev->type == EV_CANCEL_SWEEP)
            return cancel_sweep(s, w, out);
        if (ev->type == EV_PRIORITY) {
            w->priority = ev->sweep.priority;
            order_sweeps(s, w);
        } else {
            w->held = ev->type == EV_HOLD;
        }
        return 0;
    case EV_CANCEL_TASK:
    case EV_RETRY_TASK:
        t = sched_task(s, ev->end.task);
        if (!t)
            return err_set(e, ENOENT, "task %llu: is over", (unsigned long long)ev->end.task);
        if (ev->type == EV_CANCEL_TASK)
            return cancel_task(s, t, out);
        t->not_before_ms = 0;
        return 0;
    case EV_DRAIN:
        a = sched_agent(s, ev->agent.install);
        if (!a)
            return err_set(e, ENOENT, "agent has not been heard since the start");
        a->drained = !ev->agent.accept;
        return 0;
    case EV_REDO:
        w = sched_sweep(s, ev->sweep.seq);
        return w ? redo(w, ev) : err_set(e, ENOENT, "sweep is over");
    case EV_STOP:
        s->draining = true;
        return 0;
    case EV_TICK:
        s->tick_ms = now_ms;
        r = expire(s, now_ms, out);
        return r < 0 ? r : dispatch(s, now_ms, out);
    }
    return err_set(e, EINVAL, "unknown event");
}

static void sooner(const struct sched *s, uint64_t *next, uint64_t ms)
{
    if (ms > s->tick_ms && ms < *next)
        *next = ms;
}

uint64_t sched_next_ms(const struct sched *s)
{
    uint64_t next = UINT64_MAX;
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (a->alive) {
            sooner(s, &next, a->heard_ms + s->cfg.lease_ms + 1);
            sooner(s, &next, a->not_before_ms);
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
    return next;
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

/* ---- invariants */

static int broken(struct err *e, const char *rule, uint64_t no)
{
    return err_set(e, SF_EINTEGRITY, "scheduler: %s (%llu)", rule, (unsigned long long)no);
}

static int check_task(const struct sched *s, const struct sched_task *t, struct err *e)
{
    if (t->state == TASK_ENDED)
        return broken(e, "an ended task is still here", t->num);
    if (sched_task(s, t->num) != t)
        return broken(e, "a task is not in the table", t->num);
    if ((t->state == TASK_QUEUED) != !t->agent)
        return broken(e, "a task has an agent exactly while it is not queued", t->num);
    if (t->state != TASK_QUEUED && (!t->n || t->epoch > s->cfg.epoch))
        return broken(e, "a running task has an attempt of this epoch or an earlier one", t->num);
    if (t->num >= s->cfg.next_task)
        return broken(e, "task numbers only grow", t->num);
    if (!spans_ok(&t->left))
        return broken(e, "ranges of a task are sorted and disjoint", t->num);
    if (t->kind == TASK_TRACE && (t->sweep || t->left.total || t->trace->task != t))
        return broken(e, "a trace task makes one trace and holds no points", t->num);
    return 0;
}

int sched_check(const struct sched *s, struct err *e)
{
    int r;
    size_t n_tasks = 0;
    if (s->bad_moves)
        return broken(e, "tasks move only as the table allows", s->bad_moves);
    for (size_t i = 0; i < s->n_order; i++) {
        const struct sched_sweep *w = s->order[i];
        if (i && (s->order[i - 1]->priority < w->priority ||
                  (s->order[i - 1]->priority == w->priority && s->order[i - 1]->seq >= w->seq)))
            return broken(e, "sweeps stand in order", w->seq);
        if (sched_sweep(s, w->seq) != w || !spans_ok(&w->todo))
            return broken(e, "ranges of a sweep are sorted and disjoint", w->seq);
        if (w->todo.n && w->todo.v[w->todo.n - 1].hi > w->points)
            return broken(e, "a point is below the number of points", w->seq);
        struct spans all = { 0 };
        uint64_t in_tasks = 0;
        r = spans_add_all(&all, &w->todo);
        LIST_EACH(p, n, &w->tasks)
        {
            const struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
            n_tasks++;
            if (r >= 0)
                r = check_task(s, t, e);
            if (r >= 0)
                r = spans_add_all(&all, &t->left);
            if (r >= 0 && (t->kind != TASK_POINTS || t->sweep != w))
                r = broken(e, "a sweep lists its own points tasks", t->num);
            in_tasks += t->left.total;
        }
        uint64_t total = all.total;
        spans_clear(&all);
        if (r < 0)
            return r;
        if (in_tasks != w->in_tasks)
            return broken(e, "points in tasks are counted", w->seq);
        if (total != w->todo.total + in_tasks)
            return broken(e, "a point waits or is in one task, never both", w->seq);
        if (!w->over && !sched_left(w))
            return broken(e, "a sweep without missing points is over", w->seq);
        if (w->over && list_empty(&w->tasks))
            return broken(e, "a sweep that is over and runs nothing is forgotten", w->seq);
    }
    LIST_EACH(p, n, &s->trace_tasks)
    {
        n_tasks++;
        if ((r = check_task(s, LIST_OF(p, struct sched_task, by_sweep), e)) < 0)
            return r;
    }
    if (n_tasks != s->tasks.used)
        return broken(e, "each task is in one list", n_tasks);
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        uint32_t count[2] = { 0, 0 };
        LIST_EACH(p, n, &a->tasks)
        {
            const struct sched_task *t = LIST_OF(p, struct sched_task, by_agent);
            if (t->agent != a)
                return broken(e, "an agent lists its own tasks", t->num);
            count[t->kind]++;
        }
        if (count[0] != a->n_tasks[0] || count[1] != a->n_tasks[1])
            return broken(e, "an agent's tasks are counted", id_key(a->install));
    }
    return 0;
}
