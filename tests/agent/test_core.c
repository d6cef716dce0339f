#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core.h"
#include "proto/base/clean.h"
#include "proto/base/rng.h"

static struct core c;
static struct core_actions out;
static uint64_t now;

static void start(void)
{
    core_init(&c, 2);
    now = 1000;
}

TestSuite(core, .init = start);

/* A step with every rule checked: the invariants, and each move against the table. */
static void step(struct core_event ev)
{
    static struct core before;
    before = c;
    core_step(&c, &ev, now, &out);
    const char *broken = core_check(&c);
    cr_assert(!broken, "event %d: %s", ev.kind, broken);
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        cr_assert(core_move_ok(before.t[i].state, c.t[i].state), "event %d: %s to %s", ev.kind,
                  core_state_name(before.t[i].state), core_state_name(c.t[i].state));
    cr_assert_leq(out.n, ARRAY_LEN(out.v));
}

static struct task_key key(uint64_t task)
{
    return (struct task_key){ task, 1, 1 };
}

static const struct core_action *did(enum core_action_kind kind)
{
    for (size_t i = 0; i < out.n; i++)
        if (out.v[i].kind == kind)
            return &out.v[i];
    return NULL;
}

static void up(void)
{
    step((struct core_event){ .kind = CORE_UP });
    cr_assert(did(CORE_DO_HELLO));
    step((struct core_event){
        .kind = CORE_WELCOME, .epoch = 1, .lease_ms = 10000, .heartbeat_ms = 2000 });
}

static void grant(uint64_t task, uint64_t points)
{
    step((struct core_event){ .kind = CORE_GRANT, .key = key(task), .points = points });
}

static void on(enum core_event_kind kind, uint64_t task)
{
    step((struct core_event){ .kind = kind, .key = key(task) });
}

static void run_task(uint64_t task, uint64_t points)
{
    grant(task, points);
    cr_assert(did(CORE_DO_ACCEPT));
    on(CORE_READY, task);
    cr_assert(did(CORE_DO_START));
}

static void exited(uint64_t task, enum task_cause cause, uint64_t rows)
{
    step(
        (struct core_event){ .kind = CORE_EXITED, .key = key(task), .cause = cause, .rows = rows });
}

static void ack(uint64_t task, uint64_t seq)
{
    step((struct core_event){ .kind = CORE_ROWS_ACK, .key = key(task), .seq = seq });
}

Test(core, task_goes_from_grant_to_its_acknowledged_end)
{
    up();
    run_task(1, 5);
    step((struct core_event){ .kind = CORE_ROWS, .key = key(1), .rows = 3 });
    cr_assert(did(CORE_DO_SEND_ROWS));
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->seq, 1);
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->rows, 3);
    exited(1, CAUSE_DONE, 5);
    cr_assert_eq(did(CORE_DO_SAVE_END)->cause, CAUSE_DONE);
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->seq, 4);
    cr_assert(!did(CORE_DO_SEND_END));
    ack(1, 1);
    cr_assert_eq(did(CORE_DO_SAVE_ACK)->rows, 3);
    cr_assert(!did(CORE_DO_SEND_END));
    ack(1, 4);
    cr_assert(did(CORE_DO_SEND_END));
    on(CORE_END_ACK, 1);
    cr_assert(did(CORE_DO_REMOVE));
    cr_assert(!core_find(&c, &(struct task_key){ 1, 1, 1 }));
}

Test(core, acknowledgements_out_of_order_do_not_skip_rows)
{
    up();
    run_task(1, 3000);
    step((struct core_event){ .kind = CORE_ROWS, .key = key(1), .rows = 3000 });
    ack(1, 1025);
    cr_assert(!did(CORE_DO_SAVE_ACK));
    ack(1, 1);
    cr_assert_eq(did(CORE_DO_SAVE_ACK)->rows, 2048);
    ack(1, 1);
    cr_assert(!did(CORE_DO_SAVE_ACK));
    ack(1, 2049);
    cr_assert_eq(did(CORE_DO_SAVE_ACK)->rows, 3000);
}

Test(core, unacknowledged_rows_go_again_after_a_reconnect)
{
    up();
    run_task(1, 10);
    step((struct core_event){ .kind = CORE_ROWS, .key = key(1), .rows = 4 });
    ack(1, 1);
    step((struct core_event){ .kind = CORE_ROWS, .key = key(1), .rows = 6 });
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->first, 4);
    step((struct core_event){ .kind = CORE_DOWN });
    step((struct core_event){ .kind = CORE_ROWS, .key = key(1), .rows = 9 });
    cr_assert_eq(out.n, 0);
    up();
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->first, 4);
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->rows, 5);
}

Test(core, unanswered_rows_and_ends_go_again_in_time)
{
    up();
    run_task(1, 10);
    exited(1, CAUSE_DONE, 4);
    cr_assert(did(CORE_DO_SEND_ROWS));
    step((struct core_event){ .kind = CORE_TICK });
    cr_assert(!did(CORE_DO_SEND_ROWS));
    now += CORE_RESEND_MS;
    step((struct core_event){ .kind = CORE_TICK });
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->seq, 1);
    ack(1, 1);
    cr_assert(did(CORE_DO_SEND_END));
    now += CORE_RESEND_MS;
    step((struct core_event){ .kind = CORE_TICK });
    cr_assert(did(CORE_DO_SEND_END));
}

Test(core, what_could_not_be_queued_goes_at_the_next_tick)
{
    up();
    run_task(1, 2000);
    step((struct core_event){ .kind = CORE_ROWS, .key = key(1), .rows = 2000 });
    struct core_action first = *did(CORE_DO_SEND_ROWS);
    core_unsent(&c, &first);
    step((struct core_event){ .kind = CORE_TICK });
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->first, 0);
    cr_assert_eq(out.n, 2);
}

Test(core, accepts_one_task_to_run_and_one_to_wait)
{
    up();
    run_task(1, 100);
    grant(2, 100);
    cr_assert(did(CORE_DO_ACCEPT));
    on(CORE_READY, 2);
    cr_assert(!did(CORE_DO_START));
    grant(3, 100);
    cr_assert_str_eq(did(CORE_DO_DECLINE)->code, "BUSY");
    /* 2 cores: with 4 points left, the next one may load its trace */
    step((struct core_event){ .kind = CORE_ROWS, .key = key(1), .rows = 95 });
    cr_assert(!did(CORE_DO_START));
    step((struct core_event){ .kind = CORE_ROWS, .key = key(1), .rows = 96 });
    cr_assert_eq(did(CORE_DO_START)->key.task, 2);
}

Test(core, trace_is_offered_before_its_end_is_told)
{
    up();
    step((struct core_event){ .kind = CORE_GRANT, .key = key(1), .task_kind = CORE_TRACE });
    on(CORE_READY, 1);
    exited(1, CAUSE_DONE, 0);
    cr_assert(did(CORE_DO_MAKE));
    cr_assert(!did(CORE_DO_SEND_END));
    step((struct core_event){ .kind = CORE_MADE, .key = key(1), .cause = CAUSE_DONE });
    cr_assert(did(CORE_DO_SEND_END));
}

Test(core, doubled_grant_runs_once)
{
    up();
    run_task(1, 10);
    grant(1, 10);
    cr_assert_eq(out.n, 0);
    on(CORE_READY, 1);
    cr_assert_eq(out.n, 0);
}

Test(core, cancel_is_told_in_every_state)
{
    up();
    grant(1, 10);
    on(CORE_CANCEL, 1);
    cr_assert_eq(did(CORE_DO_SAVE_END)->cause, CAUSE_CANCELLED);
    cr_assert(did(CORE_DO_SEND_END));
    on(CORE_READY, 1);
    cr_assert(!did(CORE_DO_START));
    on(CORE_END_ACK, 1);

    run_task(2, 10);
    on(CORE_CANCEL, 2);
    cr_assert(did(CORE_DO_STOP));
    exited(2, CAUSE_CANCELLED, 4);
    cr_assert_eq(did(CORE_DO_SAVE_END)->cause, CAUSE_CANCELLED);
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->rows, 4);
}

Test(core, dropped_task_is_stopped_and_forgotten)
{
    up();
    run_task(1, 10);
    on(CORE_DROPPED, 1);
    cr_assert(did(CORE_DO_STOP));
    exited(1, CAUSE_CANCELLED, 4);
    cr_assert(did(CORE_DO_REMOVE));
    cr_assert(!did(CORE_DO_SEND_ROWS) && !did(CORE_DO_SAVE_END));
    grant(2, 10);
    on(CORE_DROPPED, 2);
    cr_assert(did(CORE_DO_REMOVE));
}

Test(core, drain_gives_back_and_exits_when_all_is_acknowledged)
{
    up();
    run_task(1, 10);
    grant(2, 10);
    step((struct core_event){ .kind = CORE_DRAIN });
    cr_assert_str_eq(did(CORE_DO_DECLINE)->code, "DRAINING");
    cr_assert(did(CORE_DO_STOP) && !did(CORE_DO_STOP)->hard);
    cr_assert(did(CORE_DO_BEAT));
    cr_assert(!did(CORE_DO_EXIT));
    grant(3, 10);
    cr_assert_str_eq(did(CORE_DO_DECLINE)->code, "DRAINING");
    exited(1, CAUSE_CANCELLED, 1);
    cr_assert_eq(did(CORE_DO_SAVE_END)->cause, CAUSE_CANCELLED,
                 "not lost: after its next start that would speak against the task");
    cr_assert(!did(CORE_DO_EXIT));
    ack(1, 1);
    on(CORE_END_ACK, 1);
    cr_assert(did(CORE_DO_EXIT));
}

Test(core, second_drain_kills_and_does_not_wait_for_the_coordinator)
{
    up();
    run_task(1, 10);
    step((struct core_event){ .kind = CORE_DRAIN });
    step((struct core_event){ .kind = CORE_DRAIN });
    cr_assert(did(CORE_DO_STOP)->hard);
    exited(1, CAUSE_CANCELLED, 1);
    cr_assert(did(CORE_DO_EXIT));
}

Test(core, full_disk_gives_back_and_takes_nothing_for_a_while)
{
    up();
    grant(1, 10);
    step((struct core_event){ .kind = CORE_CANNOT, .key = key(1), .cause = CAUSE_SPACE });
    cr_assert_str_eq(did(CORE_DO_DECLINE)->code, "NO_SPACE");
    cr_assert(!core_accepts(&c, now));
    grant(2, 10);
    cr_assert_str_eq(did(CORE_DO_DECLINE)->code, "NO_SPACE");
    now += CORE_SPACE_MS;
    cr_assert(core_accepts(&c, now));
    grant(3, 10);
    cr_assert(did(CORE_DO_ACCEPT));
}

Test(core, closed_agent_ends_what_it_has_and_takes_nothing)
{
    up();
    run_task(1, 10);
    step((struct core_event){ .kind = CORE_CLOSE });
    cr_assert(did(CORE_DO_BEAT));
    cr_assert(!core_accepts(&c, now));
    grant(2, 10);
    cr_assert_str_eq(did(CORE_DO_DECLINE)->code, "CLOSED");
    exited(1, CAUSE_DONE, 0);
    cr_assert_eq(did(CORE_DO_SAVE_END)->cause, CAUSE_DONE);
}

Test(core, restart_goes_on_where_the_disk_says)
{
    step((struct core_event){ .kind = CORE_ADOPT,
                              .key = key(1),
                              .state = CORE_ST_RUN,
                              .points = 10,
                              .rows = 7,
                              .seq = 4 });
    step((struct core_event){ .kind = CORE_ADOPT,
                              .key = key(2),
                              .state = CORE_ST_ENDED,
                              .points = 3,
                              .rows = 3,
                              .seq = 3 });
    step((struct core_event){
        .kind = CORE_ADOPT, .key = key(3), .state = CORE_ST_MAKE, .task_kind = CORE_TRACE });
    cr_assert(did(CORE_DO_MAKE));
    up();
    cr_assert_eq(did(CORE_DO_SEND_ROWS)->seq, 5);
    cr_assert_eq(did(CORE_DO_SEND_END)->key.task, 2);
}

Test(core, silent_coordinator_is_greeted_again)
{
    step((struct core_event){ .kind = CORE_UP });
    cr_assert(did(CORE_DO_HELLO));
    cr_assert_eq(core_deadline(&c), now + CORE_HELLO_MS);
    now += CORE_HELLO_MS;
    step((struct core_event){ .kind = CORE_TICK });
    cr_assert(did(CORE_DO_HELLO));
}

/* ---- a small world: one agent, a coordinator that grants and acknowledges, a network that loses, doubles and delays */

enum { W_TASKS = 12, W_POINTS = 3000, W_NET = 4096, W_CHILDREN = CORE_TASKS_MAX };

struct net {
    bool to_agent;
    uint64_t at;
    struct core_event ev;   /* to the agent */
    struct core_action act; /* from it */
};

static struct {
    struct rng rng;
    struct net net[W_NET];
    size_t n_net;
    bool faults;
    /* coordinator */
    uint64_t points[W_TASKS], attempt[W_TASKS], renewed[W_TASKS];
    bool done[W_TASKS], held[W_TASKS];
    uint8_t got[W_TASKS][W_POINTS];
    /* children of the agent: rows so far */
    struct {
        struct task_key key;
        uint64_t rows, points;
        bool on, stop;
    } child[W_CHILDREN];
} w;

static bool chance(unsigned percent)
{
    return w.faults && rng_below(&w.rng, 100) < percent;
}

static void post(bool to_agent, const struct core_event *ev, const struct core_action *a)
{
    for (int copies = chance(10) ? 2 : 1; copies; copies--) {
        if (chance(10))
            continue;
        cr_assert_lt(w.n_net, W_NET);
        struct net *m = &w.net[w.n_net++];
        *m = (struct net){ .to_agent = to_agent,
                           .at = now + 1 + rng_below(&w.rng, chance(20) ? 30000 : 20) };
        if (ev)
            m->ev = *ev;
        if (a)
            m->act = *a;
    }
}

static void world_step(struct core_event ev);

static void world_do(struct core_action *a)
{
    switch (a->kind) {
    case CORE_DO_ACCEPT:
        world_step((struct core_event){ .kind = chance(5) ? CORE_CANNOT : CORE_READY,
                                        .key = a->key,
                                        .cause = chance(50) ? CAUSE_SPACE : CAUSE_EXIT });
        break;
    case CORE_DO_START:
        for (size_t i = 0; i < W_CHILDREN; i++)
            if (!w.child[i].on) {
                w.child[i].key = a->key;
                w.child[i].rows = 0;
                w.child[i].points = w.points[a->key.task - 1];
                w.child[i].on = true;
                w.child[i].stop = false;
                break;
            }
        break;
    case CORE_DO_STOP:
        for (size_t i = 0; i < W_CHILDREN; i++)
            if (w.child[i].on && task_key_eq(&w.child[i].key, &a->key))
                w.child[i].stop = true;
        break;
    case CORE_DO_SEND_ROWS:
        if (chance(5)) {
            core_unsent(&c, a);
            break;
        }
        /* fall through */
    case CORE_DO_HELLO:
    case CORE_DO_BEAT:
    case CORE_DO_DECLINE:
    case CORE_DO_SEND_END:
        post(false, NULL, a);
        break;
    default:
        break;
    }
}

static void world_step(struct core_event ev)
{
    step(ev);
    struct core_actions mine = out;
    for (size_t i = 0; i < mine.n; i++)
        world_do(&mine.v[i]);
}

/* The coordinator's side, as small as it can be. It knows what the agent has from the core itself when a beat comes. */
static void coordinator(const struct core_action *a)
{
    size_t i = (size_t)(a->key.task - 1);
    bool current = a->key.task && a->key.n == w.attempt[i];
    switch (a->kind) {
    case CORE_DO_HELLO:
        post(true,
             &(struct core_event){
                 .kind = CORE_WELCOME, .epoch = 1, .lease_ms = 10000, .heartbeat_ms = 2000 },
             NULL);
        break;
    case CORE_DO_BEAT:
        post(true, &(struct core_event){ .kind = CORE_BEAT_ACK, .seq = a->seq }, NULL);
        for (size_t k = 0; k < W_TASKS; k++) {
            struct task_key mine = { k + 1, 1, w.attempt[k] };
            if (w.held[k] && core_find(&c, &mine))
                w.renewed[k] = now;
        }
        for (size_t k = 0; k < CORE_TASKS_MAX; k++) {
            const struct core_task *t = &c.t[k];
            if (t->state != CORE_ST_GONE && t->key.n != w.attempt[t->key.task - 1])
                post(true, &(struct core_event){ .kind = CORE_DROPPED, .key = t->key }, NULL);
        }
        break;
    case CORE_DO_DECLINE:
        if (current)
            w.held[i] = false;
        break;
    case CORE_DO_SEND_ROWS:
        for (uint64_t r = a->first; r < a->first + a->rows; r++)
            w.got[i][r] = 1;
        post(true, &(struct core_event){ .kind = CORE_ROWS_ACK, .key = a->key, .seq = a->seq },
             NULL);
        break;
    case CORE_DO_SEND_END:
        if (current && w.held[i]) {
            bool whole = true;
            for (uint64_t r = 0; r < w.points[i]; r++)
                whole &= w.got[i][r];
            w.held[i] = false;
            w.done[i] = whole;
        }
        post(true, &(struct core_event){ .kind = CORE_END_ACK, .key = a->key }, NULL);
        break;
    default:
        break;
    }
}

static void coordinator_grants(void)
{
    for (size_t i = 0; i < W_TASKS; i++) {
        if (w.held[i] && now - w.renewed[i] > 10000)
            w.held[i] = false;
        if (w.done[i] || w.held[i] || rng_below(&w.rng, 20))
            continue;
        w.held[i] = true;
        w.renewed[i] = now;
        w.attempt[i]++;
        post(true,
             &(struct core_event){
                 .kind = CORE_GRANT, .key = { i + 1, 1, w.attempt[i] }, .points = w.points[i] },
             NULL);
    }
}

static void deliver(void)
{
    for (size_t i = 0; i < w.n_net;) {
        if (w.net[i].at > now) {
            i++;
            continue;
        }
        struct net m = w.net[i];
        w.net[i] = w.net[--w.n_net];
        if (m.to_agent)
            world_step(m.ev);
        else
            coordinator(&m.act);
    }
}

static void children(void)
{
    for (size_t i = 0; i < W_CHILDREN; i++) {
        if (!w.child[i].on)
            continue;
        uint64_t more = rng_below(&w.rng, 200);
        if (w.child[i].rows + more > w.child[i].points)
            more = w.child[i].points - w.child[i].rows;
        w.child[i].rows += more;
        struct core_event ev = { .kind = CORE_ROWS,
                                 .key = w.child[i].key,
                                 .rows = w.child[i].rows };
        bool crash = chance(1);
        if (crash || w.child[i].stop || w.child[i].rows == w.child[i].points) {
            ev.kind = CORE_EXITED;
            ev.cause = w.child[i].stop ? CAUSE_CANCELLED : crash ? CAUSE_SIGNAL : CAUSE_DONE;
            w.child[i].on = false;
        }
        world_step(ev);
    }
}

static void one_world(uint64_t seed)
{
    memset(&w, 0, sizeof(w));
    w.rng.s = seed;
    w.faults = true;
    core_init(&c, 2);
    now = 1000;
    for (size_t i = 0; i < W_TASKS; i++)
        w.points[i] = 1 + rng_below(&w.rng, W_POINTS);
    world_step((struct core_event){ .kind = CORE_UP });
    bool all = false, link = true;
    for (uint64_t t = 0; t < 30000 && !all; t++) {
        now += 100;
        if (t == 6000)
            w.faults = false; /* faults stop: everything must end */
        if (chance(1) || (!link && !w.faults)) {
            link = !link;
            world_step((struct core_event){ .kind = link ? CORE_UP : CORE_DOWN });
        }
        deliver();
        children();
        coordinator_grants();
        world_step((struct core_event){ .kind = CORE_TICK });
        all = true;
        for (size_t i = 0; i < W_TASKS; i++)
            all &= w.done[i];
        for (size_t i = 0; i < CORE_TASKS_MAX; i++)
            all &= c.t[i].state == CORE_ST_GONE;
    }
    for (size_t i = 0; i < W_TASKS; i++)
        cr_assert(w.done[i], "seed %llu: task %zu does not end", (unsigned long long)seed, i + 1);
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        cr_assert(c.t[i].state == CORE_ST_GONE, "seed %llu: task %llu stays",
                  (unsigned long long)seed, (unsigned long long)c.t[i].key.task);
}

Test(core, everything_ends_in_a_world_that_loses_doubles_and_delays)
{
    const char *given = getenv("SIOFLEET_SEED");
    if (given) {
        one_world(strtoull(given, NULL, 0));
        return;
    }
    for (uint64_t seed = 1; seed <= 60; seed++)
        one_world(seed);
}

static void run_kind(uint64_t task, enum core_kind kind)
{
    step((struct core_event){ .kind = CORE_GRANT, .key = key(task), .task_kind = kind });
    cr_assert(did(CORE_DO_ACCEPT));
    on(CORE_READY, task);
    cr_assert(did(CORE_DO_START));
}

static void made(uint64_t task, enum task_cause cause)
{
    step((struct core_event){ .kind = CORE_MADE, .key = key(task), .cause = cause });
}

Test(core, what_a_command_wrote_is_stored_however_it_ended)
{
    static const enum task_cause causes[] = { CAUSE_DONE, CAUSE_EXIT, CAUSE_SIGNAL, CAUSE_TIMEOUT };
    up();
    for (uint64_t i = 0; i < ARRAY_LEN(causes); i++) {
        run_kind(i + 1, CORE_EXEC);
        exited(i + 1, causes[i], 0);
        cr_assert(did(CORE_DO_MAKE));
        made(i + 1, CAUSE_DONE);
        cr_assert_eq(did(CORE_DO_SAVE_END)->cause, causes[i], "it is the command's own end");
    }
    run_kind(9, CORE_EXEC);
    exited(9, CAUSE_EXIT, 0);
    made(9, CAUSE_SPACE);
    cr_assert_eq(did(CORE_DO_SAVE_END)->cause, CAUSE_SPACE, "what is not stored is not answered");
}

Test(core, a_cancelled_command_leaves_nothing_to_store)
{
    up();
    run_kind(1, CORE_EXEC);
    on(CORE_CANCEL, 1);
    cr_assert(did(CORE_DO_STOP));
    exited(1, CAUSE_SIGNAL, 0);
    cr_assert(!did(CORE_DO_MAKE));
    cr_assert_eq(did(CORE_DO_SAVE_END)->cause, CAUSE_CANCELLED);
}

Test(core, commands_run_beside_everything_up_to_their_number)
{
    up();
    run_task(100, 50);
    for (uint64_t i = 1; i <= CORE_EXEC_MAX; i++)
        run_kind(i, CORE_EXEC);
    step((struct core_event){ .kind = CORE_GRANT, .key = key(99), .task_kind = CORE_EXEC });
    cr_assert_str_eq(did(CORE_DO_DECLINE)->code, "BUSY");
}
