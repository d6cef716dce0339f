#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/grants.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

enum {
    FULL_TELL_MS = 30000,
    TRY_MS = 1000,
    TURNS_MAX = 64,
    BEAT_ACK_EVERY =
        16, /* beats; TCP says that they came, and an answer is half of what one costs */
    TICK_LONG_MS =
        2, /* a tick over thousands of agents: then messages come first for ten times as long */
};

void *hub_grown(void *v, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return v;
    size_t more = *room ? *room * 2 : 64;
    void *p = realloc(v, more * size);
    if (p)
        *room = more;
    return p;
}

void hub_event(struct hub *h, const struct sched_event *ev)
{
    struct sched_event *v = hub_grown(h->events, h->n_events, &h->room_events, sizeof(*v));
    if (!v) {
        if (ev->type == EV_HELLO)
            free((void *)(uintptr_t)ev->agent.refs);
        hub_fail(h, &(struct err){ .code = ENOMEM, .text = "coordinator: no memory" });
        return;
    }
    h->events = v;
    v[h->n_events] = *ev;
    if (ev->type == EV_END) { /* the message is gone by then */
        v[h->n_events].end.cause = strdup(ev->end.cause);
        v[h->n_events].end.text = strdup(ev->end.text);
    }
    h->n_events++;
}

void hub_answer(struct hub *h, uint64_t peer, uint64_t req, const struct msg *m, const char *text)
{
    struct hub_answer *v = hub_grown(h->answers, h->n_answers, &h->room_answers, sizeof(*v));
    if (!v)
        return; /* the peer asks again */
    h->answers = v;
    v[h->n_answers++] = (struct hub_answer){
        .peer = peer, .req = req, .msg = *m, .text = text ? strdup(text) : NULL
    };
}

void hub_answer_late(struct hub *h, uint64_t peer, uint64_t req, const struct msg *m,
                     const char *text)
{
    size_t n = h->n_answers;
    hub_answer(h, peer, req, m, text);
    if (h->n_answers > n)
        h->answers[n].late = true;
}

/* late: those, else the others. */
static void send_answers(struct hub *h, bool late)
{
    size_t keep = 0;
    for (size_t i = 0; i < h->n_answers; i++) {
        struct hub_answer *a = &h->answers[i];
        if (a->late != late) {
            h->answers[keep++] = *a;
            continue;
        }
        if (a->msg.type == M_OK) {
            a->msg.ok.text = a->text ? a->text : "";
            a->msg.ok.text_len = strlen(a->msg.ok.text);
        } else if (a->msg.type == M_REFUSE) {
            a->msg.refuse.text = a->text ? a->text : "refused";
            a->msg.refuse.text_len = strlen(a->msg.refuse.text);
        }
        link_send(h->link, a->peer, &a->msg,
                  NULL); /* what a full queue swallows is asked for again */
        free(a->text);
    }
    h->n_answers = keep;
}

/* Nothing of the turn was stored: all who wait are told. */
static void refuse_answers(struct hub *h)
{
    for (size_t i = 0; i < h->n_answers; i++) {
        if (h->answers[i].req)
            link_refuse(h->link, h->answers[i].peer, h->answers[i].req, err_exit(h->why.code),
                        h->why.code == ENOSPC ? "NO_SPACE" : err_name(h->why.code), h->why.text);
        free(h->answers[i].text);
    }
    h->n_answers = 0;
}

void hub_fail(struct hub *h, const struct err *e)
{
    if (h->failed)
        return;
    h->failed = true;
    h->why = *e;
    store_rollback(h->store);
    uint64_t now = clock_mono_ms();
    if (!h->full_told || now - h->full_told_ms >= FULL_TELL_MS) {
        log_error("%s; nothing new is accepted until this is mended", e->text);
        h->full_told_ms = now;
    }
    h->full_told = true;
}

bool hub_write(struct hub *h)
{
    if (h->failed)
        return false;
    struct err e = { 0 };
    if (store_begin(h->store, &e) >= 0)
        return true;
    hub_fail(h, &e);
    return false;
}

void hub_step(struct hub *h, const struct sched_event *ev)
{
    struct err e = { 0 };
    int r = sched_step(&h->sched, ev, clock_mono_ms(), &h->out, &e);
    if (r < 0 && r != -ENOENT)
        log_error("scheduler: event %d: %s", (int)ev->type, e.code ? e.text : strerror(-r));
}

static void forget_events(struct hub *h)
{
    for (size_t i = 0; i < h->n_events; i++)
        if (h->events[i].type == EV_SWEEP && h->events[i].sweep.todo) {
            spans_clear(h->events[i].sweep.todo);
            free(h->events[i].sweep.todo);
        } else if (h->events[i].type == EV_HELLO) {
            free((void *)(uintptr_t)h->events[i].agent.refs);
        } else if (h->events[i].type == EV_END) {
            free((char *)(uintptr_t)h->events[i].end.cause);
            free((char *)(uintptr_t)h->events[i].end.text);
        }
    h->n_events = 0;
    h->failed = false;
}

/* Not noted, not registered: it says hello again. */
static void hello_undone(struct hub *h, struct hub_agent *a)
{
    a->hello = false;
    if (!a->here)
        hub_set_peer(h, a, 0);
}

bool hub_commit(struct hub *h)
{
    struct err e = { 0 };
    if (!h->failed && store_commit(h->store, &e) < 0)
        hub_fail(h, &e);
    if (h->failed) {
        for (size_t i = 0; i < h->n_events; i++) /* a sweep that was not stored does not exist */
            if (h->events[i].type == EV_SWEEP)
                hub_drop_live(h, h->events[i].sweep.user);
            else if (h->events[i].type == EV_JOB)
                hub_drop_job(h, h->events[i].job.user);
            else if (h->events[i].type == EV_HELLO)
                hello_undone(h, h->events[i].agent.user);
        refuse_answers(h);
        forget_events(h);
        return false;
    }
    for (size_t i = 0; i < h->n_events; i++) {
        struct hub_agent *a = h->events[i].type == EV_HELLO ? h->events[i].agent.user : NULL;
        hub_step(h, &h->events[i]);
        if (h->events[i].type == EV_JOB)
            job_forget_tasks(map_get(&h->jobs, h->events[i].job.seq));
        if (a) {
            a->hello = false;
            hub_canary_begin(h, a);
        }
    }
    send_answers(h, false);
    forget_events(h);
    return true;
}

/* ---- what the scheduler wants done */

static struct hub_agent *agent_of(const struct sched_agent *a)
{
    return a ? a->user : NULL;
}

static const char *agent_name(const struct sched_agent *a)
{
    return a && a->user ? ((struct hub_agent *)a->user)->info.name : "?";
}

static int give_up(struct hub *h, const struct sched_action *a, const struct span *spans,
                   struct err *e)
{
    struct live *l = map_get(&h->live, a->sweep);
    if (!l)
        return 0;
    uint64_t now = clock_wall_ms(), n = 0;
    int r = 0;
    for (size_t k = 0; r >= 0 && k < a->count; k++)
        for (uint64_t i = spans[k].lo; r >= 0 && i < spans[k].hi; i++, n++) {
            struct store_row row = { .sweep = l->seq,
                                     .index = i,
                                     .status = ROW_FAILED,
                                     .error = a->text,
                                     .by = BY_COORDINATOR };
            uint32_t t;
            if (live_point(l, i, &t, &row.arch, &row.point) < 0)
                continue;
            if (!l->tr[t].num) {
                /* the trace was never had; the row still says which it would have been */
                const struct recipe *rec = live_recipe(l, t);
                struct store_trace tr = { .tenants = rec ? rec->tenants : 0,
                                          .burst = rec ? rec->burst : 0,
                                          .seed = rec ? rec->seed : 0,
                                          .replicate = rec ? rec->replicate : 0 };
                snprintf(tr.order, sizeof(tr.order), "%s", rec ? order_name(rec->order) : "");
                snprintf(tr.rules, sizeof(tr.rules), "%s", rules_name(l->rules));
                struct {
                    char word[32];
                    struct id key;
                } no = { "no trace", l->key[t] };
                hash_bytes(&no, sizeof(no), &tr.id);
                r = store_add_trace(h->store, &tr, "absent", e);
                row.trace = tr.num;
            } else {
                row.trace = l->tr[t].num;
            }
            if (r >= 0)
                r = store_put_row(h->store, &row, now, e);
        }
    if (r >= 0)
        log_warn("sweep '%s': %" PRIu64 " points given up: %s", l->name, n, a->text);
    return r;
}

static int sweep_over(struct hub *h, const struct sched_action *a, struct err *e)
{
    struct live *l = map_get(&h->live, a->sweep);
    struct store_sweep w;
    int r = store_sweep(h->store, a->sweep, &w, NULL, e);
    if (r < 0)
        return r;
    const struct sched_sweep *s = sched_sweep(&h->sched, a->sweep);
    /* what was answered `cancelled` stays so, though the scheduler hears of it behind its last rows */
    bool cancelled = w.state == SWEEP_CANCELLED || w.done + w.failed + w.invalid < w.points ||
                     (s && s->cancelled);
    enum sweep_state state = cancelled ? SWEEP_CANCELLED : w.failed ? SWEEP_FAILED : SWEEP_DONE;
    uint64_t now = clock_wall_ms();
    char text[256], hex[ID_HEX_LEN];
    id_hex(&w.id, hex);
    snprintf(text, sizeof(text),
             "%s: %" PRIu64 " of %" PRIu64 " points done, %" PRIu64 " failed, %" PRIu64
             " known before",
             sweep_state_name(state, false), w.done + w.invalid, w.points, w.failed, w.known);
    log_info("sweep '%s' (%.8s) is %s", l ? l->name : w.name, hex, text);
    r = store_sweep_state(h->store, a->sweep, state, now, e);
    return r < 0 ? r : store_event(h->store, now, "sweep", hex, text, e);
}

/* What a restart must know of a task that went wrong. */
static int note_task(struct hub *h, const struct sched_action *a, const struct span *spans,
                     struct err *e)
{
    struct store_task t = { .task = a->task,
                            .sweep = a->sweep,
                            .key = a->key,
                            .fails = a->fails,
                            .quarantined = a->quarantined,
                            .n_kills = a->n_kills };
    snprintf(t.kind, sizeof(t.kind), "%s", task_kind_name(a->kind));
    snprintf(t.why, sizeof(t.why), "%.159s", a->text);
    for (uint32_t i = 0; i < a->n_kills; i++) {
        memcpy(t.kill[i].install, a->kills[i].install, 16);
        t.kill[i].boot = a->kills[i].boot;
    }
    int r = 0;
    for (size_t i = 0; r >= 0 && i < a->count; i++)
        r = spans_add(&t.points, spans[i].lo, spans[i].hi);
    r = r < 0 ? err_sys(e, -r, "task %" PRIu64, a->task) : store_note_task(h->store, &t, e);
    spans_clear(&t.points);
    if (r < 0 || !a->news)
        return r;
    char subject[32], text[300];
    snprintf(subject, sizeof(subject), "%" PRIu64, a->task);
    snprintf(text, sizeof(text), "quarantined: %d agents went while they held it",
             (int)SCHED_KILLS);
    log_error("task %s is %s; `siofleet why %s` names them, `siofleet retry %s` lets it go on",
              subject, text, subject, subject);
    return store_event(h->store, clock_wall_ms(), "task", subject, text, e);
}

/* Store one action; grants are collected in turn. */
static int store_action(struct hub *h, const struct sched_actions *from,
                        const struct sched_action *a, struct granted *turn, struct err *e)
{
    uint64_t now = clock_wall_ms();
    switch (a->type) {
    case ACT_GRANT:
        return grant_store(h, a, turn, e);
    case ACT_CLOSE:
        log_info("task %" PRIu64 ": attempt %" PRIu64 " of epoch %" PRIu64 " is over (%s)", a->task,
                 a->n, a->epoch, a->text);
        return store_end_attempt(h->store, a->task, a->epoch, a->n, a->text, 0, 0, now, NULL, 0, e);
    case ACT_JOB_TASK:
        return hub_job_task(h, a, e);
    case ACT_JOB_OVER:
        return hub_job_over(h, a, e);
    case ACT_GIVE_UP:
        return give_up(h, a, from->spans + a->first, e);
    case ACT_SWEEP_OVER:
        return sweep_over(h, a, e);
    case ACT_TRACE_FAILED: {
        char hex[ID_HEX_LEN];
        id_hex(&a->key, hex);
        log_warn("task %" PRIu64 ": trace of recipe %.8s cannot be built, its points fail: %s",
                 a->task, hex, a->text);
        return store_event(h->store, now, "trace", hex, a->text, e);
    }
    case ACT_NOTE:
        return note_task(h, a, from->spans + a->first, e);
    case ACT_FORGET:
        return store_forget_task(h->store, a->task, e);
    case ACT_AGENT_BAD: {
        struct hub_agent *ag = agent_of(a->agent);
        log_error("agent '%s' is drained: %s", agent_name(a->agent), a->text);
        if (ag) {
            ag->info.drained = true;
            snprintf(ag->info.why, sizeof(ag->info.why), "%.160s", a->text);
        }
        int r = store_agent_drained(h->store, a->agent->install, true, a->text, 0, 0, e);
        return r < 0 ? r : store_event(h->store, now, "agent", agent_name(a->agent), a->text, e);
    }
    case ACT_AGENT_LOST:
        log_warn("agent '%s' silent for %" PRIu64 " ms, %" PRIu64 " tasks requeued",
                 agent_name(a->agent), h->conf->lease_ms, a->n);
        return store_event(h->store, now, "agent", agent_name(a->agent), "lost", e);
    default:
        return 0;
    }
}

/* Refs of an answer in the wire's form; at most 4096, the rest comes with the next beat. */
static size_t wire_refs(const struct hub *h, const struct sched_action *a,
                        struct wire_task_ref out[4096])
{
    size_t n = a->count < 4096 ? a->count : 4096;
    for (size_t i = 0; i < n; i++) {
        const struct sched_ref *r = &h->out.refs[a->first + i];
        out[i] = (struct wire_task_ref){
            .task = r->task, .epoch = r->epoch, .n = r->n, .state = r->state
        };
    }
    return n;
}

/* What goes out without being stored; after the commit. */
static void send_action(struct hub *h, const struct sched_action *a)
{
    static struct wire_task_ref refs[4096]; /* one loop, one thread */
    struct hub_agent *ag = agent_of(a->agent);
    struct msg m = { 0 };
    if (a->type == ACT_SWEEP_GONE) {
        hub_drop_live(h, a->user);
        return;
    }
    if (a->type == ACT_JOB_OVER) {
        hub_drop_job(h, a->user);
        h->jobs_over = true;
        return;
    }
    if (a->type == ACT_CANARY) {
        hub_canary_grant(h, a);
        return;
    }
    if (!ag || !ag->peer)
        return;
    if (a->type == ACT_WELCOME) {
        m.type = M_WELCOME;
        m.welcome = (struct msg_welcome){ .epoch = h->epoch,
                                          .lease_ms = h->conf->lease_ms,
                                          .heartbeat_ms = h->conf->heartbeat_ms,
                                          .version = SIOFLEET_VERSION,
                                          .drop = refs,
                                          .n_drop = wire_refs(h, a, refs),
                                          .features = WIRE_STREAM | WIRE_ROW_BLOCK |
                                                      (h->bulk ? bulk_features() | WIRE_PEERS : 0),
                                          .bulk_port = h->bulk ? bulk_port(h->bulk) : 0 };
    } else if (a->type == ACT_DROP) {
        if (!a->count && a->n % BEAT_ACK_EVERY != 1)
            return;
        m.type = M_BEAT_ACK;
        m.beat_ack =
            (struct msg_beat_ack){ .seq = a->n, .drop = refs, .n_drop = wire_refs(h, a, refs) };
    } else if (a->type == ACT_CANCEL) {
        m.type = M_CANCEL;
        m.cancel = (struct msg_cancel){ .task = a->task, .epoch = a->epoch, .n = a->n };
        trips_sent(&ag->cancels, &(struct trip_key){ a->task, a->epoch, a->n, 0 }, clock_mono_ns());
    } else {
        return;
    }
    link_send(h->link, ag->peer, &m,
              NULL); /* a lost one comes again: hello, beat or the answer to the next beat */
}

static bool stored_kind(enum sched_action_type t)
{
    return t == ACT_CLOSE || t == ACT_GIVE_UP || t == ACT_SWEEP_OVER || t == ACT_TRACE_FAILED ||
           t == ACT_AGENT_LOST || t == ACT_AGENT_BAD || t == ACT_NOTE || t == ACT_FORGET ||
           t == ACT_JOB_TASK || t == ACT_JOB_OVER;
}

/* Keep what could not be stored for the next turn: grants are taken back, answers to agents are repeated by them. */
static void keep_actions(struct hub *h)
{
    for (size_t i = 0; i < h->out.n; i++) {
        const struct sched_action *a = &h->out.v[i];
        if (!stored_kind(a->type) && a->type != ACT_SWEEP_GONE)
            continue;
        struct sched_action *v = hub_grown(h->kept.v, h->kept.n, &h->kept.room, sizeof(*v));
        if (!v)
            continue;
        h->kept.v = v;
        v[h->kept.n] = *a;
        v[h->kept.n].first = h->kept.n_spans;
        size_t k = 0;
        for (; k < a->count; k++) {
            struct span *sp =
                hub_grown(h->kept.spans, h->kept.n_spans, &h->kept.room_spans, sizeof(*sp));
            if (!sp)
                break;
            h->kept.spans = sp;
            sp[h->kept.n_spans++] = h->out.spans[a->first + k];
        }
        h->kept.n += k == a->count;
    }
}

/* First what an earlier turn could not store. */
static int store_kept(struct hub *h, struct err *e)
{
    int r = 0;
    struct granted none = { 0 };
    if (!h->kept.n)
        return 0;
    r = store_begin(h->store, e);
    for (size_t i = 0; r >= 0 && i < h->kept.n; i++)
        r = store_action(h, &h->kept, &h->kept.v[i], &none, e);
    if (r >= 0)
        r = store_commit(h->store, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < h->kept.n; i++)
        if (h->kept.v[i].type == ACT_SWEEP_GONE)
            hub_drop_live(h, h->kept.v[i].user);
        else if (h->kept.v[i].type == ACT_JOB_OVER)
            hub_drop_job(h, h->kept.v[i].user), h->jobs_over = true;
    sched_actions_reset(&h->kept);
    return 0;
}

/* Store the actions in h->out, then send. Returns how many grants needed no agent. */
static size_t do_actions(struct hub *h)
{
    struct granted turn = { 0 };
    struct err e = { 0 };
    size_t again = 0;
    int r = store_kept(h, &e);
    bool writes = false;
    for (size_t i = 0; i < h->out.n; i++)
        writes |= h->out.v[i].type == ACT_GRANT || stored_kind(h->out.v[i].type);
    if (r >= 0 && writes)
        r = store_begin(h->store, &e);
    for (size_t i = 0; r >= 0 && i < h->out.n; i++)
        r = store_action(h, &h->out, &h->out.v[i], &turn, &e);
    if (r >= 0)
        r = store_commit(h->store, &e);
    if (r < 0) {
        if (!e.code)
            err_sys(&e, -r, "coordinator");
        hub_fail(h, &e);
        refuse_answers(h);
        keep_actions(h);
        size_t n = h->out.n; /* taking a grant back adds actions behind */
        for (size_t i = 0; i < n; i++) {
            struct sched_action a = h->out.v[i];
            if (a.type == ACT_GRANT)
                sched_step(&h->sched,
                           &(struct sched_event){ .type = EV_DECLINE,
                                                  .end = { a.task, a.epoch, a.n, "store", NULL } },
                           clock_mono_ms(), &h->kept, NULL);
        }
        h->failed = false;
        granted_clear(&turn);
        sched_actions_reset(&h->out);
        return 0;
    }
    struct sched_actions done = h->out;
    for (size_t i = 0; i < done.n; i++)
        send_action(h, &done.v[i]);
    sched_actions_reset(&h->out);
    for (size_t i = 0; i < turn.n_points; i++)
        hub_step(h, &turn.points[i]);
    for (size_t i = 0; i < turn.n; i++) {
        struct sending *s = &turn.v[i];
        struct sched_event ev = { .end = { s->task, s->epoch, s->n, "done", NULL } };
        if (s->nothing) {
            ev.type = EV_END;
            again++;
        } else if (s->peer && link_send(h->link, s->peer, &s->msg, &e) == 0) {
            continue;
        } else {
            ev.type = EV_DECLINE;
            ev.end.cause = "unsent";
        }
        hub_step(h, &ev);
    }
    again += turn.n_points > 0;
    granted_clear(&turn);
    return again;
}

/* A store that could not be written is tried once a second. When it can be again, agents are asked for all that was left
 * without an answer meanwhile: by themselves they would say it again much later. */
static void try_store(struct hub *h)
{
    uint64_t now = clock_mono_ms();
    if (!h->full_told || now - h->tried_ms < TRY_MS)
        return;
    h->tried_ms = now;
    if (store_begin(h->store, NULL) < 0 || store_set(h->store, "epoch", h->epoch, NULL) < 0 ||
        store_commit(h->store, NULL) < 0) {
        store_rollback(h->store);
        return;
    }
    log_info("store: writing works again");
    h->full_told = false;
    for (struct hub_agent *a = h->agents; a; a = a->next)
        if (a->peer)
            link_refuse(h->link, a->peer, 0, 1, "HELLO_FIRST",
                        "the store was full: say hello again");
}

void hub_tick(struct hub *h)
{
    uint64_t start = clock_mono_ms(), cost = 0;
    bool rest = start < h->tick_ms;
    try_store(h);
    for (int turn = 0; turn < TURNS_MAX; turn++) {
        uint64_t t = clock_mono_ms();
        if (!rest)
            hub_step(h, &(struct sched_event){ .type = EV_TICK });
        cost += clock_mono_ms() - t;
        if (!h->out.n && !h->kept.n)
            break;
        if (!do_actions(h) && !h->out.n)
            break;
    }
    send_answers(h, true);
    if (!rest)
        h->tick_ms = cost < TICK_LONG_MS ? 0 : clock_mono_ms() + (cost < 20 ? cost * 10 : 200);
}

void hub_clear(struct hub *h)
{
    forget_events(h);
    for (size_t i = 0; i < h->n_answers; i++)
        free(h->answers[i].text);
    free(h->answers);
    free(h->events);
    sched_clear(&h->sched);
    sched_actions_clear(&h->out);
    sched_actions_clear(&h->kept);
    hub_log_clear(h);
    hub_restore_clear(h);
    for (size_t i = 0; i < h->jobs.room; i++) {
        struct job *j = h->jobs.slot[i].val;
        if (j && map_get(&h->jobs, h->jobs.slot[i].key) == j)
            job_free(&j);
    }
    map_clear(&h->jobs);
    while (h->n_lives)
        hub_drop_live(h, h->lives[h->n_lives - 1]);
    free(h->lives);
    free(h->engines);
    hub_mend_clear(h);
    hub_gc_clear(h);
    refs_clear(&h->refs);
    map_clear(&h->live);
    map_clear(&h->agent_of_peer);
    map_clear(&h->agent_of_install);
    map_clear(&h->agent_of_name);
    while (h->agents) {
        struct hub_agent *a = h->agents;
        h->agents = a->next;
        free(a);
    }
}
