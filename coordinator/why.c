/* Why is it so: the question "why". */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/num.h"

enum { REASONS_MAX = 40, TRIES_MAX = 20, LINES_MAX = 10, NAMED_MAX = 5 };

struct why {
    struct hub *h;
    json_t *reasons, *attempts;
    uint64_t now; /* monotonic */
};

static void reason(struct why *y, const char *code, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    if (json_array_size(y->reasons) >= REASONS_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    json_array_append_new(y->reasons,
                          json_pack("{s:s, s:o}", "code", code, "text", json_str(text)));
}

/* ---- attempts */

static json_t *last_lines(const char *tail)
{
    const char *at[LINES_MAX + 1];
    size_t n = 0;
    json_t *lines = json_array();
    for (const char *p = tail; *p;) {
        const char *end = strchrnul(p, '\n');
        if (end > p) {
            if (n == LINES_MAX)
                memmove(at, at + 1, --n * sizeof(*at));
            at[n++] = p;
        }
        p = *end ? end + 1 : end;
    }
    for (size_t i = 0; i < n; i++) {
        CLEANUP(freep) char *line = strndup(at[i], strcspn(at[i], "\r\n"));
        json_array_append_new(lines, json_str(line));
    }
    return lines;
}

static json_t *when(uint64_t wall_ms)
{
    char text[CLOCK_RFC3339_LEN];
    if (!wall_ms)
        return json_null();
    clock_rfc3339(wall_ms, text);
    return json_string(text);
}

static int add_try(void *ctx, const struct store_try *t)
{
    struct why *y = ctx;
    bool exited = !strcmp(t->cause, "exit") || !strcmp(t->cause, "done");
    json_t *j = json_object();
    json_object_set_new(j, "epoch", json_u64(t->epoch));
    json_object_set_new(j, "n", json_u64(t->n));
    json_object_set_new(j, "agent", json_str(t->agent));
    json_object_set_new(j, "cause", *t->cause ? json_str(t->cause) : json_null());
    json_object_set_new(j, "exit", exited ? json_u64(t->exit) : json_null());
    json_object_set_new(j, "signal", t->signal ? json_u64(t->signal) : json_null());
    json_object_set_new(j, "last_lines", last_lines(t->tail));
    json_object_set_new(j, "task", json_u64(t->task));
    json_object_set_new(j, "kind", json_str(t->kind));
    json_object_set_new(j, "points", json_u64(t->points));
    json_object_set_new(j, "granted", when(t->granted_ms));
    json_object_set_new(j, "ended", when(t->ended_ms));
    json_array_append_new(y->attempts, j);
    return 0;
}

/* ---- what waits */

const char *hub_agent_name(const struct sched_agent *a)
{
    return a && a->user ? ((const struct hub_agent *)a->user)->info.name
                        : "an agent not heard of yet";
}

/* An agent's disk, if it is in its way. */
static void why_space(struct why *y, const struct sched_agent *s)
{
    const struct hub_agent *a = s ? s->user : NULL;
    char size[32];
    if (a && a->peer && a->space.disk.level != SPACE_OK)
        reason(y, "NO_SPACE", "agent '%s' has %s free on its disk: %s", a->info.name,
               size_text(a->space.disk.free_b, size),
               a->space.disk.level == SPACE_PAUSED ? "its tasks are paused until there is more"
                                                   : "it takes nothing new");
}

/* An agent's maintenance: it has begun, or is planned. who: "agent 'a1': ", or "" where only that one is spoken of. */
static void why_drain(struct why *y, const struct store_agent *a, const char *who)
{
    char from[CLOCK_RFC3339_LEN], until[CLOCK_RFC3339_LEN];
    clock_rfc3339(a->drain_from_ms, from);
    clock_rfc3339(a->drained_until_ms, until);
    if (a->drained)
        reason(y, "DRAINED", "%s%s%s%s; `siofleet undrain %s` gives it work again", who,
               *a->why ? a->why : "somebody drained it", a->drained_until_ms ? ", until " : "",
               a->drained_until_ms ? until : "", a->name);
    else if (a->drain_from_ms)
        reason(y, "MAINTENANCE",
               "%sit takes nothing new from %s%s%s%s%s; `siofleet undrain %s` calls it off", who,
               from, a->drained_until_ms ? " until " : "", a->drained_until_ms ? until : "",
               *a->why ? ": " : "", a->why, a->name);
}

/* Whether what is left until its planned maintenance is too short for a point of w. */
static bool no_room(const struct why *y, const struct sched_agent *a, const struct sched_sweep *w)
{
    return w && a->alive && a->accept && !a->drained && !sched_room(a, w->point_us, y->now);
}

/* Those whose maintenance keeps them from task t (NULL = from points of w), by name. */
static void why_drains(struct why *y, const struct sched_task *t, const struct sched_sweep *w)
{
    unsigned named = 0;
    LIST_EACH(q, n, &y->h->sched.agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        const struct hub_agent *of = a->user;
        char who[80];
        bool soon = t ? !sched_ends_before(a, t, y->now) : no_room(y, a, w);
        if (!of || !a->alive || !(a->drained || soon) || (t && !sched_agent_fits(a, t->needs)) ||
            named++ == NAMED_MAX)
            continue;
        snprintf(who, sizeof(who), "agent '%.64s': ", of->info.name);
        why_drain(y, &of->info, who);
    }
}

/* Why nobody takes what is ready: the agents. w: of points, or NULL. Returns whether any could. */
static bool why_agents(struct why *y, const struct sched_sweep *w)
{
    unsigned ready = 0, busy = 0, drained = 0, away = 0, closed = 0, soon = 0;
    LIST_EACH(q, n, &y->h->sched.agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (!a->alive)
            away++;
        else if (a->drained)
            drained++;
        else if (!a->accept)
            closed++, why_space(y, a);
        else if (no_room(y, a, w))
            soon++;
        else if (a->n_tasks[TASK_POINTS] >= SCHED_POINT_SLOTS)
            busy++;
        else
            ready++;
    }
    if (!(ready + busy + drained + closed + soon))
        reason(y, "NO_AGENT", "no agent is connected (%u are known)", away);
    else if (!(ready + busy))
        reason(
            y, "NO_AGENT",
            "no connected agent takes work: %u drained, %u closing or without disk space, %u with "
            "a maintenance before a point would end",
            drained, closed, soon);
    else if (!ready)
        reason(y, "BUSY", "all %u agents that take work have their hands full", busy);
    if (!(ready + busy))
        why_drains(y, NULL, w);
    return ready + busy;
}

static void why_past(struct why *y, const struct sched_task *t, const char *code)
{
    const struct sched_past *p = t->past;
    char wait[NUM_MS_LEN];
    if (t->state == TASK_QUARANTINED) {
        char names[256] = "", points[40] = "";
        size_t at = 0;
        for (uint32_t i = 0; p && i < p->n_kills && at < sizeof(names) - 70; i++) {
            const struct sched_agent *a = sched_agent(&y->h->sched, p->kill[i].install);
            at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%s", i ? ", " : "",
                                   hub_agent_name(a));
        }
        if (t->kind == TASK_POINTS)
            snprintf(points, sizeof(points), " (%" PRIu64 " points)", t->left.total);
        reason(y, "QUARANTINED",
               "task %" PRIu64 "%s: %u agents went while they held it: %s; `siofleet retry %" PRIu64
               "` lets it go on",
               t->num, points, p ? p->n_kills : 0, names, t->num);
        return;
    }
    if (t->state == TASK_QUEUED && t->not_before_ms > y->now)
        reason(y, code, "task %" PRIu64 ": tried again in %s, after %u failures; the last: %s",
               t->num, num_ms_text(t->not_before_ms - y->now, wait), t->fails,
               p && *p->why ? p->why : "?");
    else if (p && *p->why)
        reason(y, "TRIED", "task %" PRIu64 ": failed %u times; the last: %s", t->num, t->fails,
               p->why);
}

static void why_task_state(struct why *y, const struct sched_task *t)
{
    switch (t->state) {
    case TASK_QUEUED:
        if (t->job && t->not_before_ms <= y->now) {
            char text[SCHED_WHY];
            sched_job_why(&y->h->sched, t, hub_agent_name, y->now, text);
            reason(y, "NEEDS", "task %" PRIu64 ": %s", t->num, text);
            if (json_array_size(y->reasons) <= NAMED_MAX) /* the other tasks wait for the same */
                why_drains(y, t, NULL);
        }
        break;
    case TASK_LEASED:
        why_space(y, t->agent);
        if (t->job)
            reason(y, "RUNNING", "task %" PRIu64 " is %s agent '%s'", t->num,
                   t->runs ? "run by" : "held by", hub_agent_name(t->agent));
        else
            reason(y, "RUNNING",
                   "task %" PRIu64 " is %s agent '%s': %" PRIu64 " of %" PRIu64 " points done",
                   t->num, t->runs ? "run by" : "held by", hub_agent_name(t->agent),
                   t->total - t->left.total, t->total);
        break;
    case TASK_ORPHAN:
        reason(y, "ORPHAN",
               "task %" PRIu64
               " was running on %s before this coordinator started; its agent may claim "
               "it within one lease",
               t->num, hub_agent_name(t->agent));
        break;
    case TASK_STOPPING:
        reason(y, "STOPPING", "task %" PRIu64 " is being ended by agent '%s'", t->num,
               hub_agent_name(t->agent));
        break;
    default:
        break;
    }
    why_past(y, t, "BACK_OFF");
}

/* Traces that the sweep's points wait for. */
static void why_traces(struct why *y, const struct sched_sweep *w)
{
    uint64_t idle = 0;
    char hex[ID_HEX_LEN];
    for (uint32_t i = 0; i < w->n_traces; i++) {
        const struct sched_trace *tr = w->trace[i];
        if (tr->ready)
            continue;
        id_hex(&tr->key, hex);
        if (!tr->build)
            reason(
                y, "NO_TRACE",
                "trace %.16s is not at the coordinator: an agent or user that has it must bring it",
                hex);
        else if (tr->task && tr->task->agent)
            reason(y, "TRACE",
                   "trace of recipe %.16s is being built: task %" PRIu64 " on agent '%s'", hex,
                   tr->task->num, hub_agent_name(tr->task->agent));
        else if (tr->task && (tr->task->past || tr->task->state == TASK_QUARANTINED))
            why_past(y, tr->task, "TRACE");
        else if (!idle++ && tr->task) {
            char text[SCHED_WHY];
            sched_soon_why(&y->h->sched, tr->task, y->now, text);
            if (*text) {
                reason(y, "MAINTENANCE", "task %" PRIu64 ", a trace: %s", tr->task->num, text);
                why_drains(y, tr->task, NULL);
            }
        }
    }
    if (idle)
        reason(y, "TRACE", "%" PRIu64 " traces are not built yet", idle);
}

static int why_job(struct why *y, const struct store_job *w, struct err *e);

static void why_open_sweep(struct why *y, const struct store_sweep *w)
{
    char hex[ID_HEX_LEN];
    const struct sched_sweep *s = sched_sweep(&y->h->sched, w->seq);
    struct store_job job;
    bool bound = true;
    if (!s && hub_after_job(y->h, w->seq, &job, &bound, NULL) == 0 && !bound) {
        id_hex(&job.id, hex);
        reason(y, "COLLECT",
               "it waits for its collection %.16s, which is %s: %" PRIu64 " of %" PRIu64
               " runs done, %" PRIu64 " failed",
               hex, hub_job_state(y->h, &job), job.done, job.tasks, job.failed);
        why_job(y, &job, NULL);
        return;
    }
    if (!s) {
        reason(y, "UNREADABLE",
               "this coordinator cannot read its recipe; its log at the start says why");
        return;
    }
    if (s->held)
        reason(y, "HELD", "it is held; `siofleet release %s` lets it go on", w->name);
    if (y->h->full_told)
        reason(y, "NO_SPACE", "the store cannot be written: %s", y->h->why.text);
    char no_space[200];
    if (*hub_space_why(y->h, no_space))
        reason(y, "NO_SPACE", "the store has %s", no_space);
    unsigned running = 0;
    LIST_EACH(p, n, &s->tasks)
    {
        const struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        running += t->agent != NULL;
        why_task_state(y, t);
    }
    why_traces(y, s);
    if (running == 0 && s->todo.total && !s->held && why_agents(y, s)) {
        for (size_t i = 0; i < y->h->sched.n_order && y->h->sched.order[i] != s; i++) {
            const struct sched_sweep *o = y->h->sched.order[i];
            const struct live *l = o->user;
            if (!o->held && sched_left(o) && o->priority > s->priority)
                reason(y, "BEHIND",
                       "sweep '%s' (priority %" PRIu64 ") goes first: %" PRIu64 " points left",
                       l ? l->name : "?", o->priority, sched_left(o));
        }
    }
    if (s->todo.total)
        reason(y, "WAITING", "%" PRIu64 " of %" PRIu64 " points wait for their turn", s->todo.total,
               s->points);
}

static int add_failure(void *ctx, const char *error, uint64_t n, uint64_t first)
{
    if (n == 1)
        reason(ctx, "POINT_FAILED", "point %" PRIu64 ": %s", first,
               error && *error ? error : "no reason given");
    else
        reason(ctx, "POINT_FAILED", "%" PRIu64 " points, the first %" PRIu64 ": %s", n, first,
               error && *error ? error : "no reason given");
    return 0;
}

static int why_sweep(struct why *y, const struct store_sweep *w, struct err *e)
{
    if (w->state <= SWEEP_RUNNING)
        why_open_sweep(y, w);
    else if (w->state == SWEEP_CANCELLED)
        reason(y, "CANCELLED", "it was cancelled after %" PRIu64 " of %" PRIu64 " points",
               w->done + w->invalid, w->points);
    else if (w->state == SWEEP_DONE)
        reason(y, "DONE",
               "every one of its %" PRIu64 " points has a result (%" PRIu64
               " known before, %" PRIu64 " invalid)",
               w->points, w->known, w->invalid);
    else
        reason(y, "FAILED", "%" PRIu64 " of %" PRIu64 " points failed", w->failed, w->points);
    struct store_job job;
    bool bound = true;
    if (w->state == SWEEP_FAILED && hub_after_job(y->h, w->seq, &job, &bound, NULL) == 0 && !bound)
        why_job(y, &job, e); /* it has no point yet: its collection failed */
    int r = w->failed ? store_failures(y->h->store, w->seq, add_failure, y, e) : 0;
    return r < 0
               ? r
               : store_tries(y->h->store, TRIES_SWEEP_BAD, w->seq, NULL, TRIES_MAX, add_try, y, e);
}

static int why_agent(struct why *y, const struct store_agent *a, const char **ret_state,
                     struct err *e)
{
    const struct sched_agent *s = sched_agent(&y->h->sched, a->install);
    char ago[NUM_MS_LEN];
    uint64_t now = clock_wall_ms(), seen = a->last_seen_ms;
    const struct hub_agent *live = hub_agent(y->h, a->install);
    if (live && live->last_seen_ms > seen)
        seen = live->last_seen_ms;
    num_ms_text(now > seen ? now - seen : 0, ago);
    *ret_state = hub_agent_state(y->h, a);
    if (!strcmp(*ret_state, "revoked"))
        reason(y, "REVOKED",
               "its key was revoked, and its connection closed; it was heard %s ago. What it ran "
               "goes to others when its lease is over. `siofleet keys allow` lets it in again; "
               "`ls agents` leaves it out a week after it was heard",
               ago);
    else if (!strcmp(*ret_state, "stopped"))
        reason(y, "STOPPED", "it ended in order %s ago", ago);
    else if (!strcmp(*ret_state, "lost"))
        reason(y, "LOST", "nothing was heard of it for %s; what it ran was given to others", ago);
    else if (s && !a->drained && s->accept)
        reason(y, "READY", "it takes work: %u points tasks, %u trace tasks now",
               s->n_tasks[TASK_POINTS], s->n_tasks[TASK_TRACE]);
    why_drain(y, a, "");
    why_space(y, s);
    if (!strcmp(*ret_state, "closed"))
        reason(y, "CLOSED",
               "it takes nothing new: its disk is full, it is ending, or its program file was"
               " replaced and it waits for its restart");
    char verdict[16];
    uint64_t at = 0, engine = 0;
    if (s && s->canary)
        reason(y, "CANARY", "it runs a known point first");
    else if (store_engine(y->h->store, &a->engine, &engine, NULL) >= 0 &&
             store_last_canary(y->h->store, a->install, engine, &at, verdict, NULL) >= 0)
        reason(y, "VOUCHED", "a known point run here %s ago: %s",
               num_ms_text(now > at ? now - at : 0, ago), verdict);
    if (s && s->blame)
        reason(y, "BLAME",
               "%u tasks in a row failed here and went well on other agents (drained at %d)",
               s->blame, (int)SCHED_BLAME);
    if (s)
        LIST_EACH(p, n, &s->tasks)
    why_task_state(y, LIST_OF(p, struct sched_task, by_agent));
    return store_tries(y->h->store, TRIES_AGENT_BAD, 0, a->install, TRIES_MAX, add_try, y, e);
}

static int why_task(struct why *y, uint64_t no, const char **ret_state, struct err *e)
{
    const struct sched_task *t = sched_task(&y->h->sched, no);
    int r = store_tries(y->h->store, TRIES_TASK, no, NULL, TRIES_MAX, add_try, y, e);
    if (r < 0)
        return r;
    if (t) {
        *ret_state = task_state_name(t->state);
        why_task_state(y, t);
        if (t->sweep && t->sweep->held && task_waits(t))
            reason(y, "HELD", "its sweep is held");
        if (t->state == TASK_QUEUED && !t->job && t->not_before_ms <= y->now)
            why_agents(y, t->sweep);
        return 0;
    }
    const json_t *last = json_array_get(y->attempts, 0);
    if (!last)
        return err_set(e, ENOENT, "%" PRIu64 ": no such task", no);
    const char *cause = json_string_value(json_object_get(last, "cause"));
    uint64_t points = 0;
    json_get_u64(last, "points", &points, NULL);
    *ret_state = hub_ended_state(cause ? cause : "");
    reason(y, !strcmp(*ret_state, "done") ? "DONE" : "ENDED",
           points
               ? "its last attempt ended: %s; its points went on in other tasks, or have their rows"
               : "its last attempt ended: %s",
           cause ? cause : "?");
    return 0;
}

struct job_why {
    struct why *y;
    struct err *e;
};

static int why_job_task(void *ctx, const struct store_job_task *t)
{
    struct job_why *x = ctx;
    const struct sched_task *s = sched_task(&x->y->h->sched, t->task);
    if (s)
        why_task_state(x->y, s);
    if (t->state != SWEEP_FAILED)
        return 0;
    reason(x->y, "TASK_FAILED", "task %" PRIu64 "%s%s: %s", t->task, *t->agent ? " on " : "",
           t->agent, t->cause);
    if (json_array_size(x->y->attempts) >= TRIES_MAX)
        return 0;
    return store_tries(x->y->h->store, TRIES_TASK, t->task, NULL, TRIES_MAX, add_try, x->y, x->e);
}

static int why_job(struct why *y, const struct store_job *w, struct err *e)
{
    struct job_why x = { y, e };
    if (w->state <= SWEEP_RUNNING && w->held)
        reason(y, "HELD", "it is held; `siofleet release` lets it go on");
    else if (w->state == SWEEP_CANCELLED)
        reason(y, "CANCELLED", "it was cancelled after %" PRIu64 " of %" PRIu64 " tasks", w->done,
               w->tasks);
    else if (w->state == SWEEP_DONE)
        reason(y, "DONE", "all of its %" PRIu64 " tasks are done (%" PRIu64 " known before)",
               w->tasks, w->known);
    else if (w->state == SWEEP_FAILED)
        reason(y, "FAILED", "%" PRIu64 " of %" PRIu64 " tasks failed", w->failed, w->tasks);
    return store_job_tasks(y->h->store, w->seq, 0, why_job_task, &x, e);
}

int hub_why(struct hub *h, const json_t *args, json_t **ret, struct err *e)
{
    const char *text = json_string_value(json_object_get(args, "id"));
    struct why y = {
        .h = h, .reasons = json_array(), .attempts = json_array(), .now = clock_mono_ms()
    };
    const char *kind = "task", *state = "";
    struct store_sweep w;
    struct store_agent a;
    struct store_job j;
    uint64_t task;
    char id[ID_HEX_LEN];
    int r;
    text = text ? text : "last";
    const char *agent = !strncmp(text, "agent:", 6) ? text + 6 : NULL;
    snprintf(id, sizeof(id), "%.64s", agent ? agent : text);
    if (agent) {
        kind = "agent";
        r = store_find_agent(h->store, agent, &a, e);
        r = r < 0 ? r : why_agent(&y, &a, &state, e);
    } else if (hub_is_task(h, text, &task)) {
        r = why_task(&y, task, &state, e);
    } else if ((r = store_find_sweep(h->store, text, &w, e)) == 0) {
        kind = "sweep";
        id_hex(&w.id, id);
        r = why_sweep(&y, &w, e);
        state = hub_sweep_state(h, &w);
    } else if (r == -ENOENT && store_find_job(h->store, text, &j, NULL) == 0) {
        kind = "job";
        id_hex(&j.id, id);
        r = why_job(&y, &j, e);
        state = hub_job_state(h, &j);
    } else if (r == -ENOENT && store_find_agent(h->store, text, &a, NULL) == 0) {
        kind = "agent";
        r = why_agent(&y, &a, &state, e);
    } else if (r == -ENOENT) {
        err_set(e, ENOENT, "%.64s: no task, sweep, job or agent of this name", text);
    }
    if (r >= 0 && strcmp(kind, "agent") != 0 && store_find_agent(h->store, text, &a, NULL) == 0)
        reason(&y, "AGENT", "an agent has this name, too: `siofleet why agent:%s`", a.name);
    if (r < 0) {
        json_decref(y.reasons);
        json_decref(y.attempts);
        return r;
    }
    *ret = json_object();
    json_object_set_new(*ret, "schema", json_string("siofleet.why/1"));
    json_object_set_new(*ret, "id", json_str(id));
    json_object_set_new(*ret, "kind", json_string(kind));
    json_object_set_new(*ret, "state", json_string(state));
    json_object_set_new(*ret, "reasons", y.reasons);
    json_object_set_new(*ret, "attempts", y.attempts);
    return 0;
}
