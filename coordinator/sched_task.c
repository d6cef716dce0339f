/* Tasks: moves, attempts that end, points that go back to the queue or are given up. */
#include "coordinator/sched_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const signed char task_moves[TASK_STATES][TASK_MOVES] = {
    /*                  grant        claim        requeue      stop           end         quarantine       free */
    [TASK_QUEUED] = { TASK_LEASED, -1, -1, -1, TASK_ENDED, -1, -1 },
    [TASK_LEASED] = { -1, TASK_LEASED, TASK_QUEUED, TASK_STOPPING, TASK_ENDED, TASK_QUARANTINED,
                      -1 },
    [TASK_ORPHAN] = { -1, TASK_LEASED, TASK_QUEUED, TASK_STOPPING, TASK_ENDED, TASK_QUARANTINED,
                      -1 },
    [TASK_STOPPING] = { -1, TASK_STOPPING, -1, TASK_STOPPING, TASK_ENDED, -1, -1 },
    [TASK_ENDED] = { -1, -1, -1, -1, -1, -1, -1 },
    [TASK_QUARANTINED] = { -1, -1, -1, -1, TASK_ENDED, -1, TASK_QUEUED },
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
    case TASK_QUARANTINED:
        return "quarantined";
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

void *sched_grown(void *v, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return v;
    size_t more = *room ? *room * 2 : 16;
    void *p = realloc(v, more * size);
    if (p)
        *room = more;
    return p;
}

int sched_act(struct sched_actions *o, enum sched_action_type type, struct sched_action **ret)
{
    struct sched_action *v = sched_grown(o->v, o->n, &o->room, sizeof(*v));
    if (!v)
        return -ENOMEM;
    o->v = v;
    *ret = &v[o->n++];
    **ret = (struct sched_action){ .type = type };
    return 0;
}

int sched_act_span(struct sched_actions *o, struct sched_action *a, uint64_t lo, uint64_t hi)
{
    struct span *v = sched_grown(o->spans, o->n_spans, &o->room_spans, sizeof(*v));
    if (!v)
        return -ENOMEM;
    o->spans = v;
    if (!a->count)
        a->first = o->n_spans;
    v[o->n_spans++] = (struct span){ lo, hi };
    a->count++;
    return 0;
}

int sched_act_ref(struct sched_actions *o, struct sched_action *a, const struct sched_ref *ref)
{
    struct sched_ref *v = sched_grown(o->refs, o->n_refs, &o->room_refs, sizeof(*v));
    if (!v)
        return -ENOMEM;
    o->refs = v;
    if (!a->count)
        a->first = o->n_refs;
    v[o->n_refs++] = *ref;
    a->count++;
    return 0;
}

/* ---- moves of a task */

const struct sched_needs sched_no_needs;

uint64_t sched_timeout_ms(const struct sched_task *t)
{
    return t->sweep ? t->sweep->timeout_ms : t->job ? t->job->timeout_ms : t->trace->timeout_ms;
}

void sched_free_task(struct sched_task *t)
{
    spans_clear(&t->left);
    if (t->past)
        list_del(&t->past->by_suspicion);
    free(t->past);
    if (t->needs->pinned) /* its own: what a job's tasks share is not */
        free((void *)t->needs);
    free(t);
}

void sched_move(struct sched *s, struct sched_task *t, enum task_move m)
{
    int to = task_moves[t->state][m];
    if (to < 0)
        s->bad_moves++; /* sched_check() tells */
    else
        t->state = (uint8_t)to;
}

void sched_leave(struct sched_task *t)
{
    if (!t->agent)
        return;
    list_del(&t->by_agent);
    t->agent->n_tasks[t->kind]--;
    t->agent = NULL;
}

void sched_join(struct sched_task *t, struct sched_agent *a)
{
    sched_leave(t);
    t->agent = a;
    list_add(&a->tasks, &t->by_agent);
    a->n_tasks[t->kind]++;
}

void sched_free_trace(struct sched *s, struct sched_trace *t)
{
    map_del(&s->traces, sched_key(t->key.b));
    free(t);
}

void sched_end_task(struct sched *s, struct sched_task *t)
{
    sched_move(s, t, MOVE_END);
    sched_leave(t);
    list_del(&t->by_sweep);
    map_del(&s->tasks, t->num);
    if (t->noted) { /* a note that is not forgotten for want of memory is harmless: nobody needs the task any more */
        uint64_t *v = sched_grown(s->gone, s->n_gone, &s->room_gone, sizeof(*v));
        if (v) {
            s->gone = v;
            v[s->n_gone++] = t->num;
        }
    }
    struct sched_trace *tr = t->kind == TASK_TRACE ? t->trace : NULL;
    sched_free_task(t);
    if (tr) {
        tr->task = NULL;
        if (!tr->users)
            sched_free_trace(s, tr);
    }
}

int sched_bare_task(struct sched *s, enum task_kind kind, uint64_t num, struct sched_task **ret)
{
    struct sched_task *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->num = num ? num : s->cfg.next_task;
    t->kind = (uint8_t)kind;
    t->state = TASK_QUEUED;
    t->needs = &sched_no_needs;
    int r = map_put(&s->tasks, t->num, t);
    if (r < 0) {
        free(t);
        return r;
    }
    if (t->num >= s->cfg.next_task)
        s->cfg.next_task = t->num + 1;
    list_init(&t->by_agent);
    list_init(&t->by_sweep);
    *ret = t;
    return 0;
}

int sched_new_task(struct sched *s, enum task_kind kind, struct sched_sweep *w,
                   struct sched_trace *tr, uint64_t num, struct sched_task **ret)
{
    int r = sched_bare_task(s, kind, num, ret);
    if (r < 0)
        return r;
    struct sched_task *t = *ret;
    t->sweep = w;
    t->trace = tr;
    list_add(w ? &w->tasks : &s->trace_tasks, &t->by_sweep);
    if (kind == TASK_TRACE)
        tr->task = t;
    return 0;
}

uint64_t sched_back_off(struct rng *rng, uint32_t fails)
{
    uint64_t ms = SCHED_BACKOFF_MS;
    for (uint32_t i = 1; i < fails && ms < SCHED_BACKOFF_MAX_MS; i++)
        ms *= 2;
    if (ms > SCHED_BACKOFF_MAX_MS)
        ms = SCHED_BACKOFF_MAX_MS;
    return ms + rng_below(rng, ms / 4 + 1);
}

bool sched_same(const struct sched_task *t, uint64_t epoch, uint64_t n)
{
    return t && t->epoch == epoch && t->n == n;
}

/* ---- tasks back to the queue, or given up */

int sched_give_up(struct sched_sweep *w, const struct spans *pts, const char *text,
                  struct sched_actions *out)
{
    for (size_t i = 0; i < pts->n; i++)
        for (uint64_t lo = pts->v[i].lo; lo < pts->v[i].hi; lo += SCHED_FAIL_RANGE) {
            struct sched_action *a;
            int r = sched_act(out, ACT_GIVE_UP, &a);
            if (r < 0)
                return r;
            a->sweep = w->seq;
            a->user = w->user;
            snprintf(a->text, sizeof(a->text), "%s", text);
            uint64_t hi =
                lo + SCHED_FAIL_RANGE < pts->v[i].hi ? lo + SCHED_FAIL_RANGE : pts->v[i].hi;
            r = sched_act_span(out, a, lo, hi);
            if (r < 0)
                return r;
        }
    return 0;
}

static int say_closed(const struct sched_task *t, const char *cause, struct sched_actions *out)
{
    struct sched_action *a;
    int r = sched_act(out, ACT_CLOSE, &a);
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
int sched_finish(struct sched *s, struct sched_task *t, struct sched_actions *out)
{
    struct sched_sweep *w = t->sweep;
    if (w)
        w->in_tasks -= t->left.total;
    sched_end_task(s, t);
    return w ? sched_settle(s, w, out) : 0;
}

/* ---- what went wrong */

struct sched_past *sched_past(struct sched_task *t)
{
    if (!t->past && (t->past = calloc(1, sizeof(*t->past)))) {
        t->past->task = t;
        list_init(&t->past->by_suspicion);
    }
    return t->past;
}

void sched_suspect(struct sched *s, struct sched_task *t)
{
    list_del(&t->past->by_suspicion);
    if (t->past->n_kills)
        list_add(&s->suspects, &t->past->by_suspicion);
}

bool sched_alone(const struct sched_task *t)
{
    return t->needs->exclusive || (t->past && t->past->n_kills);
}

int sched_note(struct sched_task *t, bool news, struct sched_actions *out)
{
    struct sched_action *a;
    int r = sched_act(out, ACT_NOTE, &a);
    if (r < 0)
        return r;
    a->task = t->num;
    a->kind = t->kind;
    a->sweep = t->sweep ? t->sweep->seq : 0;
    a->user = t->sweep ? t->sweep->user : NULL;
    if (t->trace)
        a->key = t->trace->key;
    a->fails = t->fails;
    a->quarantined = t->state == TASK_QUARANTINED;
    a->news = news;
    if (t->past) {
        a->n_kills = t->past->n_kills;
        memcpy(a->kills, t->past->kill, sizeof(a->kills));
        snprintf(a->text, sizeof(a->text), "%s", t->past->why);
    }
    for (size_t i = 0; i < t->left.n; i++)
        if ((r = sched_act_span(out, a, t->left.v[i].lo, t->left.v[i].hi)) < 0)
            return r;
    t->noted = true;
    return 0;
}

int sched_free_quarantine(struct sched *s, struct sched_task *t, struct sched_actions *out)
{
    sched_move(s, t, MOVE_FREE);
    t->not_before_ms = 0;
    t->fails = 0;
    if (t->past) {
        t->past->n_kills = t->past->n_failed_on = 0;
        sched_suspect(s, t);
    }
    return sched_note(t, false, out);
}

static int revive_task(struct sched *s, struct sched_task *t, const struct sched_agent *a,
                       struct sched_actions *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->past->n_kills; i++)
        if (memcmp(t->past->kill[i].install, a->install, 16) || t->past->kill[i].boot != a->boot)
            t->past->kill[n++] = t->past->kill[i];
    if (n == t->past->n_kills)
        return 0;
    t->past->n_kills = n;
    sched_suspect(s, t);
    if (t->state == TASK_QUARANTINED)
        sched_move(s, t, MOVE_FREE);
    return sched_note(t, false, out);
}

int sched_revive(struct sched *s, const struct sched_agent *a, struct sched_actions *out)
{
    int r = 0;
    struct list *end = s->suspects.prev, *next; /* those that stay suspects go behind it */
    for (struct list *p = s->suspects.next; r >= 0 && p != &s->suspects; p = next) {
        bool last = p == end;
        next = p->next;
        r = revive_task(s, LIST_OF(p, struct sched_past, by_suspicion)->task, a, out);
        if (last)
            break;
    }
    return r;
}

/* The agent that held the task went as a whole. 1 = that was one too many. */
static int note_kill(struct sched *s, struct sched_task *t)
{
    struct sched_past *p = sched_past(t);
    if (!p)
        return -ENOMEM;
    const struct sched_agent *a = t->agent;
    for (uint32_t i = 0; i < p->n_kills; i++)
        if (!memcmp(p->kill[i].install, a->install, 16) && p->kill[i].boot == t->boot)
            return 0;
    if (p->n_kills < SCHED_KILLS) {
        memcpy(p->kill[p->n_kills].install, a->install, 16);
        p->kill[p->n_kills++].boot = t->boot;
    }
    sched_suspect(s, t);
    snprintf(p->why, sizeof(p->why), "its agent went while it held it");
    return p->n_kills >= SCHED_KILLS;
}

static int note_failure(struct sched_task *t, const char *text)
{
    struct sched_past *p = sched_past(t);
    if (!p)
        return -ENOMEM;
    snprintf(p->why, sizeof(p->why), "%s", text);
    for (uint32_t i = 0; i < p->n_failed_on; i++)
        if (p->failed_on[i] == t->agent) { /* the newest stands last */
            memmove(&p->failed_on[i], &p->failed_on[i + 1],
                    (p->n_failed_on - i - 1) * sizeof(*p->failed_on));
            p->n_failed_on--;
            break;
        }
    if (p->n_failed_on == SCHED_KILLS)
        memmove(&p->failed_on[0], &p->failed_on[1], --p->n_failed_on * sizeof(*p->failed_on));
    p->failed_on[p->n_failed_on++] = t->agent;
    return 0;
}

/* A task that failed elsewhere went well here: that speaks against those agents, not against the task. */
static int blame(const struct sched_task *t, struct sched_actions *out)
{
    struct sched_agent *good = t->agent;
    if (good)
        good->blame = 0;
    for (uint32_t i = 0; good && t->past && i < t->past->n_failed_on; i++) {
        struct sched_agent *a = t->past->failed_on[i];
        if (a == good || ++a->blame < SCHED_BLAME || a->drained)
            continue;
        struct sched_action *x;
        int r = sched_act(out, ACT_AGENT_BAD, &x);
        if (r < 0)
            return r;
        a->drained = true;
        a->blame = 0;
        x->agent = a;
        snprintf(x->text, sizeof(x->text),
                 "%d tasks in a row failed here and went well on other agents; the last: %.120s",
                 (int)SCHED_BLAME, t->past->why);
    }
    return 0;
}

/* ---- attempts that end */

/* How an attempt ended that did not bring all of it. */
enum fault {
    FAULT_NONE, /* declined, given back, the store was full */
    FAULT_LOST, /* nothing more was heard of it */
    FAULT_COPY, /* an input was damaged where it ran: the agent has dropped its copy */
    FAULT_OWN,  /* its own: exit, signal, out of memory, ... */
    FAULT_SURE, /* its own, and any other try would end so */
};

/* Damage of one agent's copies says nothing about the task. What is damaged on that agent again, or on many, may be it
 * after all. */
static bool forgivable(const struct sched_task *t)
{
    uint32_t n = t->past ? t->past->n_failed_on : 0;
    for (uint32_t i = 0; i < n; i++)
        if (t->past->failed_on[i] == t->agent)
            return false;
    return !t->job && n < SCHED_KILLS;
}

static int give_up_task(struct sched *s, struct sched_task *t, const char *text,
                        struct sched_actions *out)
{
    char why[200];
    snprintf(why, sizeof(why), "%s", text);
    if (t->kind == TASK_TRACE) {
        struct sched_trace *tr = t->trace;
        tr->failed = true;
        snprintf(tr->why, sizeof(tr->why), "trace could not be built: %.150s", why);
        struct sched_action *a;
        int r = sched_act(out, ACT_TRACE_FAILED, &a);
        if (r < 0)
            return r;
        a->key = tr->key;
        a->task = t->num;
        snprintf(a->text, sizeof(a->text), "%s", why);
        sched_end_task(s, t);
        return 0;
    }
    int r = sched_give_up(t->sweep, &t->left, why, out);
    return r < 0 ? r : sched_finish(s, t, out);
}

/* Failed twice: somewhere in it is a point that kills its program. Halves tell innocent points from guilty. */
static int halve(struct sched *s, struct sched_task *t, struct sched_actions *out)
{
    struct sched_task *half;
    int r = sched_new_task(s, TASK_POINTS, t->sweep, t->trace, 0, &half);
    if (r < 0)
        return r;
    half->retries = t->retries;
    half->not_before_ms = t->not_before_ms;
    if (t->past) {
        struct sched_past *p = sched_past(half);
        if (!p)
            return -ENOMEM;
        memcpy(p->kill, t->past->kill, sizeof(p->kill));
        memcpy(p->failed_on, t->past->failed_on, sizeof(p->failed_on));
        memcpy(p->why, t->past->why, sizeof(p->why));
        p->n_kills = t->past->n_kills;
        p->n_failed_on = t->past->n_failed_on;
        sched_suspect(s, half);
    }
    r = spans_halve(&t->left, &half->left);
    t->total = (uint32_t)t->left.total;
    half->total = (uint32_t)half->left.total;
    t->fails = half->fails = 1;
    return r < 0 ? r : sched_note(half, false, out);
}

/* A task of a job: its rules say whether it is tried again; what went wrong counts as for others. */
static int again_job(struct sched *s, struct sched_task *t, enum fault fault, const char *text,
                     uint64_t now, struct sched_actions *out)
{
    char why[200];
    int killed = 0;
    snprintf(why, sizeof(why), "%s", text);
    if (t->kind == TASK_COLLECT && fault == FAULT_LOST && t->boot)
        killed = note_kill(s, t);
    else if (t->kind == TASK_COLLECT && fault == FAULT_OWN)
        killed = note_failure(t, text);
    if (killed < 0)
        return killed;
    bool stays = t->state != TASK_STOPPING && !t->cancelled && !t->job->cancelled;
    if (killed && fault == FAULT_LOST && stays) {
        sched_leave(t);
        sched_move(s, t, MOVE_QUARANTINE);
        t->not_before_ms = 0;
        return sched_note(t, true, out);
    }
    bool note = stays && fault == FAULT_LOST && t->past && t->past->n_kills;
    uint64_t num = t->num;
    int r = sched_job_again(s, t, fault == FAULT_OWN, why, now, out);
    return r < 0 || !note || !(t = sched_task(s, num)) ? r : sched_note(t, false, out);
}

static int again(struct sched *s, struct sched_task *t, enum fault fault, const char *text,
                 uint64_t now, struct sched_actions *out)
{
    struct sched_sweep *w = t->sweep;
    bool stopping = t->state == TASK_STOPPING, count = fault == FAULT_OWN;
    int r;
    if (t->job)
        return again_job(s, t, fault, text, now, out);
    if (t->kind == TASK_POINTS && (!t->left.total || w->cancelled))
        return sched_finish(s, t, out);
    if (t->cancelled) {
        r = sched_give_up(w, &t->left, "cancelled", out);
        return r < 0 ? r : sched_finish(s, t, out);
    }
    if (t->kind == TASK_TRACE && (stopping || !t->trace->users || t->trace->ready)) {
        sched_end_task(s, t);
        return 0;
    }
    if (stopping) { /* obsolete by others' results, but not quite: cannot be, points only ever go */
        t->state = TASK_LEASED;
    }
    t->fails += count;
    if (fault == FAULT_SURE || (count && t->fails > t->retries && t->left.total <= 1))
        return give_up_task(s, t, text, out);
    int killed = fault == FAULT_LOST && t->boot ? note_kill(s, t) : 0;
    if (killed < 0 || (count && (killed = note_failure(t, text)) < 0))
        return killed;
    if (fault == FAULT_COPY && (r = note_failure(t, text)) < 0)
        return r;
    bool kills = fault == FAULT_LOST && t->past && t->past->n_kills;
    sched_leave(t);
    if (killed && !count) {
        sched_move(s, t, MOVE_QUARANTINE);
        t->not_before_ms = 0;
        return sched_note(t, true, out);
    }
    sched_move(s, t, MOVE_REQUEUE);
    t->not_before_ms = count   ? now + sched_back_off(&s->rng, t->fails)
                       : kills ? now + sched_back_off(&s->rng, t->past->n_kills)
                               : now;
    if (t->kind == TASK_POINTS && t->left.total > 1 &&
        ((count && t->fails >= 2) || (kills && t->past->n_kills >= 2)) &&
        (r = halve(s, t, out)) < 0)
        return r;
    return count || kills ? sched_note(t, false, out) : 0;
}

int sched_lose(struct sched *s, struct sched_task *t, const char *cause, bool host, uint64_t now,
               struct sched_actions *out)
{
    int r = say_closed(t, cause, out);
    return r < 0 ? r : again(s, t, host ? FAULT_LOST : FAULT_NONE, cause, now, out);
}

int sched_act_cancel(const struct sched_task *t, struct sched_actions *out)
{
    struct sched_action *a;
    int r = sched_act(out, ACT_CANCEL, &a);
    if (r < 0)
        return r;
    a->agent = t->agent;
    a->task = t->num;
    a->epoch = t->epoch;
    a->n = t->n;
    return 0;
}

int sched_stop(struct sched *s, struct sched_task *t, struct sched_actions *out)
{
    if (t->state == TASK_STOPPING)
        return 0;
    int r = sched_act_cancel(t, out);
    if (r >= 0)
        sched_move(s, t, MOVE_STOP);
    return r;
}

/* ---- results */

static void learn(uint64_t *mean, uint64_t x)
{
    *mean = *mean ? (*mean * 7 + x + 7) / 8 : x;
}

int sched_ev_point(struct sched *s, const struct sched_event *ev, uint64_t now,
                   struct sched_actions *out)
{
    struct sched_sweep *w = sched_sweep(s, ev->point.sweep);
    struct sched_task *by = ev->point.task ? sched_task(s, ev->point.task) : NULL;
    if (by && sched_same(by, ev->point.epoch, ev->point.n) && by->agent)
        by->lease_ms = now + s->cfg.lease_ms; /* a result is as good as a beat */
    else
        by = NULL;
    if (!w)
        return 0; /* over and forgotten: the store has counted it */
    uint64_t i = ev->point.index;
    if (ev->point.duration_us) {
        uint64_t k = w->plan.trace_of(w->plan.ctx, i);
        learn(&w->point_us, ev->point.duration_us);
        sched_charge(w, ev->point.duration_us);
        if (k < w->n_traces)
            learn(&w->trace[k]->point_us, ev->point.duration_us);
    }
    struct sched_task *holder = by && by->sweep == w && spans_has(&by->left, i) ? by : NULL;
    int64_t d;
    if (!holder) {
        d = spans_del(&w->todo, i, i + 1);
        if (d)
            return d < 0 ? (int)d : sched_settle(s, w, out);
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
        if (task_waits(holder))
            return sched_finish(s, holder, out);
        if (holder->state == TASK_LEASED && ev->point.task) {
            int r = sched_stop(s, holder, out);
            if (r < 0)
                return r;
        }
    }
    return sched_settle(s, w, out);
}

int sched_ev_end(struct sched *s, const struct sched_event *ev, uint64_t now,
                 struct sched_actions *out, struct err *e)
{
    struct sched_task *t = sched_task(s, ev->end.task);
    if (!sched_same(t, ev->end.epoch, ev->end.n) || task_waits(t))
        return err_set(e, ENOENT, "task %llu: attempt %llu/%llu is not open",
                       (unsigned long long)ev->end.task, (unsigned long long)ev->end.epoch,
                       (unsigned long long)ev->end.n);
    const char *cause = ev->end.cause ? ev->end.cause : "exit";
    const char *text = ev->end.text && *ev->end.text ? ev->end.text : cause;
    if (!strcmp(cause, "done")) {
        int r =
            t->kind == TASK_TRACE || (t->kind != TASK_EXEC && !t->left.total) ? blame(t, out) : 0;
        if (r < 0)
            return r;
        if (t->job)
            return sched_job_over(s, t, NULL, false, out);
        if (t->kind == TASK_TRACE) {
            t->trace->ready = true;
            t->trace->failed = false;
            sched_end_task(s, t);
            return 0;
        }
        if (!t->left.total)
            return sched_finish(s, t, out);
        text = "ended without all of its rows";
    }
    if (t->sweep) /* what failed has cost time, too: as much as it would have, or was allowed to */
        sched_charge(t->sweep, !strcmp(cause, "timeout")
                                   ? sched_timeout_ms(t) * 1000 * t->agent->cores
                                   : t->left.total * t->sweep->point_us);
    enum fault fault = !strcmp(cause, "cancelled")                         ? FAULT_NONE
                       : !strcmp(cause, "recipe") && t->kind == TASK_TRACE ? FAULT_SURE
                       : !strcmp(cause, "integrity") && forgivable(t)      ? FAULT_COPY
                                                                           : FAULT_OWN;
    if (!strcmp(
            cause,
            "lost")) /* told by a later boot: the host came up again; by the same one: only the task went */
        fault = t->agent->boot > t->boot ? FAULT_LOST : FAULT_NONE;
    return again(s, t, fault, text, now, out);
}

int sched_ev_decline(struct sched *s, const struct sched_event *ev, uint64_t now,
                     struct sched_actions *out, struct err *e)
{
    struct sched_task *t = sched_task(s, ev->end.task);
    if (!sched_same(t, ev->end.epoch, ev->end.n) || !t->agent)
        return err_set(e, ENOENT, "task %llu: attempt %llu/%llu is not open",
                       (unsigned long long)ev->end.task, (unsigned long long)ev->end.epoch,
                       (unsigned long long)ev->end.n);
    t->agent->not_before_ms = now + SCHED_DECLINE_MS;
    return sched_lose(s, t, ev->end.cause ? ev->end.cause : "declined", false, now, out);
}
