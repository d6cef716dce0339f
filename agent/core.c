#include "agent/core.h"

#include <string.h>

#include "proto/base/clean.h"

static const char *const cause_names[] = { "",     "done",    "exit",      "signal",
                                           "oom",  "timeout", "cancelled", "integrity",
                                           "lost", "space",   "recipe" };
/* Most tasks of a kind that are accepted and not ended. */
static const unsigned kind_max[CORE_KINDS] = { CORE_POINTS_MAX, CORE_TRACE_MAX, CORE_EXEC_MAX,
                                               CORE_COLLECT_MAX };
static const char *const state_names[] = {
    "gone", "fetch", "wait", "run", "stop", "make", "ended"
};

const char *task_cause_name(enum task_cause c)
{
    return (size_t)c < ARRAY_LEN(cause_names) ? cause_names[c] : "";
}

enum task_cause task_cause_parse(const char *s)
{
    for (size_t i = 1; i < ARRAY_LEN(cause_names); i++)
        if (s && !strcmp(s, cause_names[i]))
            return (enum task_cause)i;
    return CAUSE_NONE;
}

const char *core_state_name(enum core_state s)
{
    return (size_t)s < ARRAY_LEN(state_names) ? state_names[s] : "?";
}

bool task_key_eq(const struct task_key *a, const struct task_key *b)
{
    return a->task == b->task && a->epoch == b->epoch && a->n == b->n;
}

bool core_move_ok(enum core_state from, enum core_state to)
{
    static const unsigned to_bits[CORE_STATES] = {
        [CORE_ST_GONE] =
            1u << CORE_ST_FETCH | 1u << CORE_ST_RUN | 1u << CORE_ST_MAKE | 1u << CORE_ST_ENDED,
        [CORE_ST_FETCH] =
            1u << CORE_ST_GONE | 1u << CORE_ST_WAIT | 1u << CORE_ST_RUN | 1u << CORE_ST_ENDED,
        [CORE_ST_WAIT] = 1u << CORE_ST_GONE | 1u << CORE_ST_RUN | 1u << CORE_ST_ENDED,
        [CORE_ST_RUN] = 1u << CORE_ST_STOP | 1u << CORE_ST_MAKE | 1u << CORE_ST_ENDED,
        [CORE_ST_STOP] = 1u << CORE_ST_GONE | 1u << CORE_ST_ENDED,
        [CORE_ST_MAKE] = 1u << CORE_ST_GONE | 1u << CORE_ST_ENDED,
        [CORE_ST_ENDED] = 1u << CORE_ST_GONE,
    };
    return from == to || (to_bits[from] >> to & 1);
}

void core_init(struct core *c, uint64_t cores)
{
    *c = (struct core){ .cores = cores ? cores : 1, .heartbeat_ms = 2000, .lease_ms = 10000 };
}

static struct core_task *find(struct core *c, const struct task_key *key)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (c->t[i].state != CORE_ST_GONE && task_key_eq(&c->t[i].key, key))
            return &c->t[i];
    return NULL;
}

const struct core_task *core_find(const struct core *c, const struct task_key *key)
{
    return find((struct core *)c, key);
}

bool core_accepts(const struct core *c, uint64_t now_ms)
{
    return !c->drain && !c->closed && !c->tight && now_ms >= c->no_space_until_ms;
}

unsigned core_ref_state(const struct core_task *t)
{
    switch (t->state) {
    case CORE_ST_FETCH:
    case CORE_ST_WAIT:
        return 1;
    case CORE_ST_ENDED:
        return 3;
    default:
        return 2;
    }
}

static struct core_action *act(struct core_actions *out, enum core_action_kind kind,
                               const struct core_task *t)
{
    struct core_action *a = &out->v[out->n++];
    *a = (struct core_action){ .kind = kind };
    if (t)
        a->key = t->key;
    return a;
}

static void gone(struct core_task *t, struct core_actions *out)
{
    act(out, CORE_DO_REMOVE, t);
    t->state = CORE_ST_GONE;
}

static void ended(struct core_task *t, enum task_cause cause, struct core_actions *out)
{
    t->state = CORE_ST_ENDED;
    t->end_sent_ms = 0;
    act(out, CORE_DO_SAVE_END, t)->cause = cause;
}

static void decline(struct core_task *t, const char *code, const char *text,
                    struct core_actions *out)
{
    struct core_action *a = act(out, CORE_DO_DECLINE, t);
    a->code = code;
    a->text = text;
}

/* Nothing that was sent on the old connection counts any more. */
static void forget_sent(struct core *c)
{
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        struct core_task *t = &c->t[i];
        memset(t->batch, 0, sizeof(t->batch));
        t->rows_sent = t->rows_acked;
        t->end_sent_ms = 0;
    }
}

/* ---- events */

static void on_grant(struct core *c, const struct core_event *ev, uint64_t now,
                     struct core_actions *out)
{
    if (find(c, &ev->key))
        return;
    struct core_task *free_slot = NULL, refused = { .key = ev->key };
    unsigned open = 0;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        struct core_task *t = &c->t[i];
        if (t->state == CORE_ST_GONE)
            free_slot = free_slot ? free_slot : t;
        else if (t->state != CORE_ST_ENDED && t->kind == ev->task_kind)
            open++;
    }
    if (c->drain)
        decline(&refused, "DRAINING", "the agent is stopping", out);
    else if (c->closed)
        decline(&refused, "CLOSED", "the agent's program was replaced; it waits for its restart",
                out);
    else if (c->tight || now < c->no_space_until_ms)
        decline(&refused, "NO_SPACE", "the agent's disk is full", out);
    else if (!free_slot || open >= kind_max[ev->task_kind])
        decline(&refused, "BUSY", "the agent has enough tasks of this kind", out);
    else {
        *free_slot = (struct core_task){ .key = ev->key,
                                         .kind = ev->task_kind,
                                         .state = CORE_ST_FETCH,
                                         .points = ev->points,
                                         .order = ++c->orders };
        act(out, CORE_DO_ACCEPT, free_slot);
    }
}

static void on_adopt(struct core *c, const struct core_event *ev, struct core_actions *out)
{
    struct core_task *t = NULL;
    for (size_t i = 0; i < CORE_TASKS_MAX && !t; i++)
        if (c->t[i].state == CORE_ST_GONE)
            t = &c->t[i];
    if (!t || find(c, &ev->key))
        return;
    *t = (struct core_task){ .key = ev->key,
                             .kind = ev->task_kind,
                             .state = ev->state,
                             .points = ev->points,
                             .rows = ev->rows,
                             .rows_sent = ev->seq < ev->rows ? ev->seq : ev->rows,
                             .order = ++c->orders,
                             .found = true };
    t->rows_acked = t->rows_sent;
    if (t->state == CORE_ST_FETCH)
        act(out, CORE_DO_ACCEPT, t);
    else if (t->state == CORE_ST_MAKE)
        act(out, CORE_DO_MAKE, t);
}

/* A trace task leaves something when all went well; what a command or a collection says tells why it went wrong, too. */
static bool leaves(const struct core_task *t, enum task_cause cause)
{
    if (t->state != CORE_ST_RUN || cause == CAUSE_LOST || t->kind == CORE_POINTS)
        return false;
    return t->kind != CORE_TRACE || cause == CAUSE_DONE;
}

static void on_cannot(struct core *c, struct core_task *t, enum task_cause cause, uint64_t now,
                      struct core_actions *out)
{
    if (cause == CAUSE_SPACE) {
        c->no_space_until_ms = now + CORE_SPACE_MS;
        if (t->state == CORE_ST_FETCH || t->state == CORE_ST_WAIT) {
            decline(t, "NO_SPACE", "the agent's disk is full", out);
            gone(t, out);
            return;
        }
    }
    if (t->state == CORE_ST_STOP && t->drop)
        gone(t, out);
    else if (t->state != CORE_ST_ENDED && t->state != CORE_ST_MAKE)
        ended(t, t->state == CORE_ST_STOP && t->cancel ? CAUSE_CANCELLED : cause, out);
}

static void on_exited(struct core *c, struct core_task *t, const struct core_event *ev,
                      uint64_t now, struct core_actions *out)
{
    if (t->state != CORE_ST_RUN && t->state != CORE_ST_STOP)
        return;
    if (ev->rows > t->rows)
        t->rows = ev->rows;
    if (ev->cause == CAUSE_SPACE)
        c->no_space_until_ms = now + CORE_SPACE_MS;
    if (t->drop)
        gone(t, out);
    else if (leaves(t, ev->cause)) {
        t->state = CORE_ST_MAKE;
        t->cause = ev->cause;
        act(out, CORE_DO_MAKE, t)->cause = ev->cause;
    } else if (ev->cause == CAUSE_DONE && t->kind == CORE_POINTS)
        ended(t, CAUSE_DONE, out); /* it was faster than the wish to stop it */
    else if (t->cancel)
        ended(t, CAUSE_CANCELLED, out);
    else if (t->give_back)
        ended(t, CAUSE_CANCELLED, out);
    else
        ended(t, ev->cause, out);
}

static void stop(struct core_task *t, struct core_actions *out)
{
    if (t->state == CORE_ST_RUN) {
        t->state = CORE_ST_STOP;
        act(out, CORE_DO_STOP, t);
    }
}

static void on_drain(struct core *c, struct core_actions *out)
{
    bool again = c->drain;
    c->drain = true;
    c->drain_hard |= again;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        struct core_task *t = &c->t[i];
        if (t->state == CORE_ST_FETCH || t->state == CORE_ST_WAIT) {
            decline(t, "DRAINING", "the agent is stopping", out);
            gone(t, out);
        } else if (t->state == CORE_ST_RUN) {
            t->give_back = true;
            stop(t, out);
        }
        if (again && t->state == CORE_ST_STOP)
            act(out, CORE_DO_STOP, t)->hard = true;
    }
}

static void on_rows_ack(struct core_task *t, uint64_t seq, struct core_actions *out)
{
    struct core_batch *b = t->batch;
    size_t i = 0;
    while (i < CORE_WINDOW && !(b[i].n && b[i].first + 1 == seq))
        i++;
    if (i == CORE_WINDOW)
        return;
    bool oldest = i == 0;
    uint64_t to = b[i].first + b[i].n;
    memmove(b + i, b + i + 1, (CORE_WINDOW - 1 - i) * sizeof(*b));
    b[CORE_WINDOW - 1] = (struct core_batch){ 0 };
    if (!oldest)
        return; /* an older one is on its way still: acknowledged means all before */
    t->rows_acked = b[0].n ? b[0].first : t->rows_sent;
    if (t->rows_acked < to)
        t->rows_acked = to;
    act(out, CORE_DO_SAVE_ACK, t)->rows = t->rows_acked;
}

static void on_task_event(struct core *c, const struct core_event *ev, uint64_t now,
                          struct core_actions *out)
{
    struct core_task *t = find(c, &ev->key);
    if (!t)
        return;
    switch (ev->kind) {
    case CORE_READY:
        if (t->state == CORE_ST_FETCH)
            t->state = CORE_ST_WAIT;
        break;
    case CORE_CANNOT:
        on_cannot(c, t, ev->cause, now, out);
        break;
    case CORE_ROWS:
        if ((t->state == CORE_ST_RUN || t->state == CORE_ST_STOP) && ev->rows > t->rows)
            t->rows = ev->rows;
        break;
    case CORE_EXITED:
        on_exited(c, t, ev, now, out);
        break;
    case CORE_MADE:
        if (t->state == CORE_ST_MAKE)
            ended(t, ev->cause == CAUSE_DONE ? t->cause : ev->cause, out);
        break;
    case CORE_ROWS_ACK:
        on_rows_ack(t, ev->seq, out);
        break;
    case CORE_END_ACK:
        if (t->state == CORE_ST_ENDED && t->end_sent_ms)
            gone(t, out);
        break;
    case CORE_CANCEL:
        if (t->state == CORE_ST_FETCH || t->state == CORE_ST_WAIT || t->state == CORE_ST_MAKE)
            ended(t, CAUSE_CANCELLED, out);
        t->cancel = true;
        stop(t, out);
        break;
    case CORE_DROPPED:
        t->drop = true;
        if (t->state == CORE_ST_RUN)
            stop(t, out);
        else if (t->state != CORE_ST_STOP)
            gone(t, out);
        break;
    default:
        break;
    }
}

/* ---- what follows from the state alone */

/* Whether one more task of a kind may start. A trace task takes a core, a points task all of them, commands and
 * collections what the coordinator has counted; the next points task may start when the one at work has two rounds of points left: so its start and the loading of its trace hide
 * behind them, and no core idles between two tasks. */
static bool may_start(const struct core *c, enum core_kind kind)
{
    unsigned running = 0;
    bool busy = false;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        const struct core_task *t = &c->t[i];
        if (t->kind != kind || (t->state != CORE_ST_RUN && t->state != CORE_ST_STOP))
            continue;
        running++;
        busy |= t->points > t->rows && t->points - t->rows > 2 * c->cores;
    }
    switch (kind) {
    case CORE_POINTS:
        return !busy && running < CORE_POINTS_MAX;
    case CORE_TRACE:
        return running < c->cores;
    default:
        return running < kind_max[kind];
    }
}

static void start_waiting(struct core *c, struct core_actions *out)
{
    for (int kind = 0; kind < CORE_KINDS && !c->drain; kind++) {
        while (may_start(c, (enum core_kind)kind)) {
            struct core_task *next = NULL;
            for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
                struct core_task *t = &c->t[i];
                if (t->kind == (enum core_kind)kind && t->state == CORE_ST_WAIT &&
                    (!next || t->order < next->order))
                    next = t;
            }
            if (!next)
                break;
            next->state = CORE_ST_RUN;
            act(out, CORE_DO_START, next);
        }
    }
}

static bool all_acked(const struct core_task *t)
{
    return t->rows_acked == t->rows && t->batch[0].n == 0;
}

static void send_rows(struct core_task *t, uint64_t now, struct core_actions *out)
{
    for (size_t i = 0; i < CORE_WINDOW && t->batch[i].n; i++) {
        if (now - t->batch[i].sent_ms < CORE_RESEND_MS)
            continue;
        struct core_action *a = act(out, CORE_DO_SEND_ROWS, t);
        a->first = t->batch[i].first;
        a->rows = t->batch[i].n;
        a->seq = a->first + 1;
        t->batch[i].sent_ms = now;
    }
    for (size_t i = 0; i < CORE_WINDOW && t->rows_sent < t->rows; i++) {
        if (t->batch[i].n)
            continue;
        uint64_t n = t->rows - t->rows_sent;
        if (n > CORE_BATCH)
            n = CORE_BATCH;
        t->batch[i] = (struct core_batch){ .first = t->rows_sent, .n = n, .sent_ms = now };
        t->rows_sent += n;
        struct core_action *a = act(out, CORE_DO_SEND_ROWS, t);
        a->first = t->batch[i].first;
        a->rows = n;
        a->seq = a->first + 1;
    }
}

static void talk(struct core *c, uint64_t now, struct core_actions *out)
{
    if (!c->up)
        return;
    if (!c->welcome) {
        if (!c->hello_ms || now - c->hello_ms >= CORE_HELLO_MS) {
            c->hello_ms = now ? now : 1;
            act(out, CORE_DO_HELLO, NULL);
        }
        return;
    }
    if (now >= c->beat_ms) {
        c->beat_ms = now + c->heartbeat_ms;
        act(out, CORE_DO_BEAT, NULL)->seq = ++c->beat_seq;
    }
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        struct core_task *t = &c->t[i];
        if (t->state == CORE_ST_GONE || t->drop)
            continue;
        send_rows(t, now, out);
        if (t->state == CORE_ST_ENDED && all_acked(t) &&
            (!t->end_sent_ms || now - t->end_sent_ms >= CORE_RESEND_MS)) {
            t->end_sent_ms = now ? now : 1;
            act(out, CORE_DO_SEND_END, t);
        }
    }
}

static void exit_when_drained(struct core *c, struct core_actions *out)
{
    if (!c->drain)
        return;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        enum core_state s = c->t[i].state;
        /* what is being offered or has ended is on disk: the next start goes on with it */
        if (s != CORE_ST_GONE && s != CORE_ST_MAKE &&
            !(s == CORE_ST_ENDED && (c->drain_hard || !c->up)))
            return;
    }
    act(out, CORE_DO_EXIT, NULL);
}

void core_step(struct core *c, const struct core_event *ev, uint64_t now, struct core_actions *out)
{
    out->n = 0;
    switch (ev->kind) {
    case CORE_UP:
        c->up = true;
        c->welcome = false;
        c->hello_ms = 0;
        forget_sent(c);
        break;
    case CORE_DOWN:
        c->up = c->welcome = false;
        forget_sent(c);
        break;
    case CORE_WELCOME:
        if (!c->up)
            break;
        if (!c->welcome)
            c->beat_ms = now + ev->heartbeat_ms;
        c->welcome = true;
        c->epoch = ev->epoch;
        c->lease_ms = ev->lease_ms;
        c->heartbeat_ms = ev->heartbeat_ms;
        break;
    case CORE_BEAT_ACK:
        if (ev->seq <= c->beat_seq && ev->seq > c->beat_acked)
            c->beat_acked = ev->seq;
        break;
    case CORE_GRANT:
        on_grant(c, ev, now, out);
        break;
    case CORE_ADOPT:
        on_adopt(c, ev, out);
        break;
    case CORE_DRAIN:
        on_drain(c, out);
        c->beat_ms = now; /* say at once that nothing new is wanted */
        break;
    case CORE_CLOSE:
        c->closed = true;
        c->beat_ms = now;
        break;
    case CORE_TICK:
        break;
    case CORE_SPACE:
        c->tight = ev->rows;
        break;
    case CORE_FACTS:
        if (c->up && c->welcome)
            act(out, CORE_DO_HELLO, NULL);
        break;
    default:
        on_task_event(c, ev, now, out);
        break;
    }
    start_waiting(c, out);
    talk(c, now, out);
    exit_when_drained(c, out);
}

void core_unsent(struct core *c, const struct core_action *a)
{
    struct core_task *t = find(c, &a->key);
    if (a->kind == CORE_DO_HELLO) {
        c->hello_ms = 0;
    } else if (t && a->kind == CORE_DO_SEND_END) {
        t->end_sent_ms = 0;
    } else if (t && a->kind == CORE_DO_SEND_ROWS) {
        /* this batch and those behind it go again, in order */
        for (size_t i = 0; i < CORE_WINDOW; i++)
            if (t->batch[i].n && t->batch[i].first >= a->first)
                t->batch[i] = (struct core_batch){ 0 };
        if (t->rows_sent > a->first)
            t->rows_sent = a->first;
    }
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t core_deadline(const struct core *c)
{
    uint64_t at = UINT64_MAX;
    if (!c->up)
        return at;
    if (!c->welcome)
        return c->hello_ms ? c->hello_ms + CORE_HELLO_MS : 0;
    at = c->beat_ms;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        const struct core_task *t = &c->t[i];
        if (t->state == CORE_ST_GONE || t->drop)
            continue;
        for (size_t k = 0; k < CORE_WINDOW; k++)
            if (t->batch[k].n)
                at = least(at, t->batch[k].sent_ms + CORE_RESEND_MS);
        if (t->rows_sent < t->rows && !t->batch[CORE_WINDOW - 1].n)
            at = 0;
        if (t->state == CORE_ST_ENDED && all_acked(t))
            at = least(at, t->end_sent_ms ? t->end_sent_ms + CORE_RESEND_MS : 0);
    }
    return at;
}

const char *core_check(const struct core *c)
{
    unsigned running[CORE_KINDS] = { 0 };
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        const struct core_task *t = &c->t[i];
        if (t->state == CORE_ST_GONE)
            continue;
        for (size_t k = i + 1; k < CORE_TASKS_MAX; k++)
            if (c->t[k].state != CORE_ST_GONE && task_key_eq(&t->key, &c->t[k].key))
                return "an attempt stands there once";
        if (t->state == CORE_ST_RUN || t->state == CORE_ST_STOP)
            running[t->kind] += !t->found;
        if (t->rows_acked > t->rows_sent || t->rows_sent > t->rows)
            return "acknowledged <= sent <= spooled";
        uint64_t at = t->rows_acked;
        for (size_t k = 0; k < CORE_WINDOW && t->batch[k].n; k++) {
            if (t->batch[k].first < at || t->batch[k].n > CORE_BATCH)
                return "batches follow each other";
            at = t->batch[k].first + t->batch[k].n;
        }
        if (at > t->rows_sent)
            return "batches end where sending is";
        if (!c->welcome && (t->batch[0].n || t->end_sent_ms))
            return "nothing is under way without a coordinator";
        if (t->end_sent_ms && (t->state != CORE_ST_ENDED || !all_acked(t)))
            return "an end is reported after all rows";
        if (t->state == CORE_ST_STOP && !t->cancel && !t->drop && !t->give_back)
            return "a stop has a reason";
        if (c->drain &&
            (t->state == CORE_ST_FETCH || t->state == CORE_ST_WAIT || t->state == CORE_ST_RUN))
            return "a draining agent starts nothing";
    }
    if (running[CORE_POINTS] > CORE_POINTS_MAX)
        return "at most two points tasks run";
    return NULL;
}
