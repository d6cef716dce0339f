/* The scheduler on virtual time. Every step goes through step(), which checks the invariants behind it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/sched.h"

enum { LEASE = 10000 };

struct world {
    struct sched s;
    struct sched_actions out;
    uint64_t now;
    struct err e;
    uint64_t trace_points; /* points of a trace of the plan */
    uint64_t points;
};

static uint64_t plan_trace(void *ctx, uint64_t i)
{
    return i / ((struct world *)ctx)->trace_points;
}
static uint64_t plan_end(void *ctx, uint64_t i)
{
    return (i / ((struct world *)ctx)->trace_points + 1) * ((struct world *)ctx)->trace_points;
}

static void world_init(struct world *w, uint64_t epoch)
{
    *w = (struct world){ .now = 1000, .trace_points = 1000000 };
    sched_init(&w->s, &(struct sched_cfg){ .epoch = epoch, .lease_ms = LEASE, .seed = 7 }, w->now);
}

static void world_clear(struct world *w)
{
    sched_clear(&w->s);
    sched_actions_clear(&w->out);
}

static int step(struct world *w, const struct sched_event *ev)
{
    w->e.code = 0;
    int r = sched_step(&w->s, ev, w->now, &w->out, &w->e);
    struct err e = { 0 };
    cr_assert_eq(sched_check(&w->s, &e), 0, "after event %d: %s", ev->type, e.text);
    return r;
}

static int fresh(struct world *w, const struct sched_event *ev)
{
    sched_actions_reset(&w->out);
    return step(w, ev);
}

static void tick(struct world *w)
{
    cr_assert_eq(fresh(w, &(struct sched_event){ .type = EV_TICK }), 0);
}

static const struct sched_action *action(const struct world *w, enum sched_action_type t,
                                         size_t nth)
{
    for (size_t i = 0; i < w->out.n; i++)
        if (w->out.v[i].type == t && !nth--)
            return &w->out.v[i];
    return NULL;
}
static size_t actions(const struct world *w, enum sched_action_type t)
{
    size_t n = 0;
    for (size_t i = 0; i < w->out.n; i++)
        n += w->out.v[i].type == t;
    return n;
}

static struct sched_event agent_event(enum sched_event_type t, int no, uint64_t boot,
                                      uint32_t cores)
{
    struct sched_event ev = { .type = t,
                              .agent = { .boot = boot, .cores = cores, .accept = true } };
    memset(ev.agent.install, no, 16);
    return ev;
}
static int hello(struct world *w, int no, uint64_t boot, uint32_t cores)
{
    struct sched_event ev = agent_event(EV_HELLO, no, boot, cores);
    return fresh(w, &ev);
}
static int beat(struct world *w, int no, uint64_t boot, const struct sched_ref *refs, size_t n)
{
    struct sched_event ev = agent_event(EV_BEAT, no, boot, 0);
    ev.agent.refs = refs;
    ev.agent.n_refs = n;
    return fresh(w, &ev);
}
static struct sched_agent *agent(struct world *w, int no)
{
    uint8_t install[16];
    memset(install, no, 16);
    return sched_agent(&w->s, install);
}

static struct id key_of(unsigned no)
{
    struct id k = { { 0 } };
    for (unsigned i = 0; i < 8; i++)
        k.b[i] = (uint8_t)(no * 37 + i);
    return k;
}

/* A sweep over n_traces traces, numbered keys from first_key on. */
static int sweep(struct world *w, uint64_t seq, uint64_t points, uint32_t n_traces,
                 unsigned first_key, bool build, uint64_t block, uint32_t retries,
                 uint64_t priority)
{
    struct id key[64];
    bool b[64], ready[64];
    for (uint32_t i = 0; i < n_traces; i++) {
        key[i] = key_of(first_key + i);
        b[i] = build;
        ready[i] = !build;
    }
    struct sched_event ev = { .type = EV_SWEEP,
                              .sweep = { .seq = seq,
                                         .points = points,
                                         .block = block,
                                         .retries = retries,
                                         .priority = priority,
                                         .plan = { w, plan_trace, plan_end },
                                         .key = key,
                                         .build = b,
                                         .ready = ready,
                                         .n_traces = n_traces } };
    return fresh(w, &ev);
}

static int point(struct world *w, uint64_t seq, uint64_t i, const struct sched_action *by)
{
    struct sched_event ev = { .type = EV_POINT,
                              .point = { .sweep = seq, .index = i, .duration_us = 50000 } };
    if (by) {
        ev.point.task = by->task;
        ev.point.epoch = by->epoch;
        ev.point.n = by->n;
    }
    return step(w, &ev);
}
static int end(struct world *w, const struct sched_action *g, const char *cause)
{
    return step(w, &(struct sched_event){ .type = EV_END,
                                          .end = { g->task, g->epoch, g->n, cause, NULL } });
}
static void all_points(struct world *w, const struct sched_action *g, const struct span *spans)
{
    for (size_t k = 0; k < g->count; k++)
        for (uint64_t i = spans[k].lo; i < spans[k].hi; i++)
            cr_assert_eq(point(w, g->sweep, i, g), 0);
}

/* A grant copied out of the actions, so that later steps cannot move it. */
struct given {
    struct sched_action a;
    struct span spans[64]; /* more ranges than a block has here */
};
static bool given(const struct world *w, size_t nth, struct given *g)
{
    const struct sched_action *a = action(w, ACT_GRANT, nth);
    if (!a)
        return false;
    g->a = *a;
    cr_assert_leq(a->count, 64);
    if (a->count)
        memcpy(g->spans, w->out.spans + a->first, a->count * sizeof(struct span));
    return true;
}
static uint64_t n_points(const struct given *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < g->a.count; i++)
        n += g->spans[i].hi - g->spans[i].lo;
    return n;
}
static struct sched_ref ref_of(const struct given *g, unsigned state)
{
    return (struct sched_ref){ g->a.task, g->a.epoch, g->a.n, state };
}

Test(sched, the_table_of_moves_is_closed)
{
    for (int st = 0; st < TASK_STATES; st++)
        for (int m = 0; m < TASK_MOVES; m++) {
            int to = task_moves[st][m];
            cr_assert(to >= -1 && to < TASK_STATES);
            if (st == TASK_ENDED)
                cr_assert_eq(to, -1, "an ended task moves no more");
            if (m == MOVE_END && st != TASK_ENDED)
                cr_assert_eq(to, TASK_ENDED, "every living task can end");
        }
}

Test(sched, a_sweep_runs_to_its_end)
{
    struct world w;
    world_init(&w, 1);
    cr_assert_eq(sweep(&w, 1, 100, 1, 1, false, 0, 3, 0), 0);
    cr_assert_eq(hello(&w, 1, 1, 2), 0);
    cr_assert_eq(actions(&w, ACT_WELCOME), 1);
    uint64_t done = 0;
    bool over = false, gone = false;
    for (int turn = 0; turn < 200 && !gone; turn++) {
        tick(&w);
        struct given g[2];
        size_t n = 0;
        while (n < 2 && given(&w, n, &g[n]))
            n++;
        for (size_t i = 0; i < n; i++) {
            done += n_points(&g[i]);
            sched_actions_reset(&w.out);
            all_points(&w, &g[i].a, g[i].spans);
            cr_assert_eq(end(&w, &g[i].a, "done"), 0);
            over |= actions(&w, ACT_SWEEP_OVER) == 1;
            gone |= actions(&w, ACT_SWEEP_GONE) == 1;
        }
    }
    cr_assert_eq(done, 100);
    cr_assert(over && gone);
    cr_assert_null(sched_sweep(&w.s, 1));
    world_clear(&w);
}

Test(sched, an_agent_holds_one_block_that_runs_and_one_that_waits)
{
    struct world w;
    world_init(&w, 1);
    sweep(&w, 1, 1000, 1, 1, false, 10, 3, 0);
    hello(&w, 1, 1, 2);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 2);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 0);
    world_clear(&w);
}

Test(sched, both_agents_get_a_block_before_one_gets_two)
{
    struct world w;
    world_init(&w, 1);
    sweep(&w, 1, 20, 1, 1, false, 10, 3, 0);
    hello(&w, 1, 1, 2);
    hello(&w, 2, 1, 2);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 2);
    cr_assert_neq(action(&w, ACT_GRANT, 0)->agent, action(&w, ACT_GRANT, 1)->agent);
    world_clear(&w);
}

Test(sched, expired_lease_requeues_the_task_once_without_its_accepted_points)
{
    struct world w;
    struct given g, again;
    world_init(&w, 1);
    sweep(&w, 1, 10, 1, 1, false, 10, 3, 0);
    hello(&w, 1, 1, 2);
    tick(&w);
    cr_assert(given(&w, 0, &g));
    for (uint64_t i = 2; i < 5; i++)
        point(&w, 1, i, &g.a);
    w.now += LEASE + 1;
    tick(&w);
    cr_assert_eq(actions(&w, ACT_CLOSE), 1);
    cr_assert_eq(actions(&w, ACT_AGENT_LOST), 1);
    cr_assert_eq(actions(&w, ACT_GRANT), 0, "nobody is there");
    tick(&w);
    cr_assert_eq(w.out.n, 0, "requeued once");
    hello(&w, 2, 1, 2);
    tick(&w);
    cr_assert(given(&w, 0, &again));
    cr_assert_eq(again.a.task, g.a.task);
    cr_assert_eq(again.a.n, 2);
    cr_assert_eq(n_points(&again), 7);
    /* late rows of the first attempt are still welcome, and the second ends when others did its work */
    for (uint64_t i = 0; i < 10; i++)
        point(&w, 1, i, &g.a);
    cr_assert_eq(actions(&w, ACT_CANCEL), 1);
    cr_assert_eq(actions(&w, ACT_SWEEP_OVER), 1);
    cr_assert_eq(end(&w, &g.a, "done"), -ENOENT, "the first attempt is not open any more");
    cr_assert_eq(end(&w, &again.a, "cancelled"), 0);
    cr_assert_eq(actions(&w, ACT_SWEEP_GONE), 1);
    world_clear(&w);
}

Test(sched, beats_renew_exactly_the_leases_they_name)
{
    struct world w;
    struct given g[2];
    world_init(&w, 1);
    sweep(&w, 1, 20, 1, 1, false, 10, 3, 0);
    hello(&w, 1, 1, 2);
    tick(&w);
    given(&w, 0, &g[0]);
    given(&w, 1, &g[1]);
    for (int i = 0; i < 10; i++) {
        w.now += LEASE / 5;
        struct sched_ref ref = ref_of(&g[0], 2);
        cr_assert_eq(beat(&w, 1, 1, &ref, 1), 0);
        cr_assert_eq(action(&w, ACT_DROP, 0)->count, 0);
        struct sched_event drain = agent_event(EV_DRAIN, 1, 0, 0);
        drain.agent.accept = false;
        step(&w, &drain);
        tick(&w);
    }
    cr_assert_eq(sched_task(&w.s, g[0].a.task)->state, TASK_LEASED);
    cr_assert_eq(sched_task(&w.s, g[1].a.task)->state, TASK_QUEUED, "the grant got lost");
    world_clear(&w);
}

Test(sched, what_an_agent_should_not_hold_it_is_told_to_drop)
{
    struct world w;
    struct given g;
    world_init(&w, 3);
    sweep(&w, 1, 10, 1, 1, false, 10, 3, 0);
    hello(&w, 1, 1, 2);
    tick(&w);
    given(&w, 0, &g);
    struct sched_ref refs[] = {
        ref_of(&g, 2), { 99, 1, 1, 2 }, { g.a.task, 2, 1, 2 }, { 98, 1, 1, 3 }
    };
    cr_assert_eq(beat(&w, 1, 1, refs, 4), 0);
    const struct sched_action *d = action(&w, ACT_DROP, 0);
    cr_assert_eq(d->count, 2, "a task nobody knows, an attempt that is not current");
    cr_assert_eq(w.out.refs[d->first].task, 99);
    cr_assert_eq(w.out.refs[d->first + 1].epoch, 2);
    world_clear(&w);
}

Test(sched, a_beat_before_a_hello_changes_nothing)
{
    struct world w;
    world_init(&w, 1);
    cr_assert_eq(beat(&w, 1, 1, NULL, 0), -SF_EREFUSED);
    cr_assert_null(agent(&w, 1));
    world_clear(&w);
}

Test(sched, a_higher_boot_takes_over_and_fences_the_old_one)
{
    struct world w;
    struct given g[2];
    world_init(&w, 1);
    sweep(&w, 1, 20, 1, 1, false, 10, 3, 0);
    hello(&w, 1, 5, 2);
    tick(&w);
    given(&w, 0, &g[0]);
    given(&w, 1, &g[1]);
    /* the new boot found one of the two still running */
    struct sched_event ev = agent_event(EV_HELLO, 1, 6, 2);
    struct sched_ref ref = ref_of(&g[1], 2);
    ev.agent.refs = &ref;
    ev.agent.n_refs = 1;
    cr_assert_eq(fresh(&w, &ev), 0);
    cr_assert_eq(actions(&w, ACT_CLOSE), 1);
    cr_assert_eq(sched_task(&w.s, g[0].a.task)->state, TASK_QUEUED,
                 "at once, not in a lease's time");
    cr_assert_eq(sched_task(&w.s, g[1].a.task)->state, TASK_LEASED);
    cr_assert_eq(beat(&w, 1, 5, NULL, 0), -SF_EREFUSED);
    cr_assert_eq(hello(&w, 1, 5, 2), -SF_EREFUSED);
    cr_assert_eq(agent(&w, 1)->boot, 6);
    world_clear(&w);
}

static void restore(struct world *w, uint64_t task, int no, uint64_t lo, uint64_t hi)
{
    struct spans pts = { 0 };
    spans_add(&pts, lo, hi);
    struct sched_event ev = { .type = EV_RESTORE,
                              .restore = { .open = true,
                                           .task = task,
                                           .epoch = 1,
                                           .n = 1,
                                           .sweep = 1,
                                           .kind = TASK_POINTS,
                                           .points = &pts,
                                           .total = hi - lo } };
    memset(ev.restore.install, no, 16);
    cr_assert_eq(fresh(w, &ev), 0);
    spans_clear(&pts);
}

Test(sched, after_a_restart_agents_claim_what_they_run_within_one_lease)
{
    struct world w;
    struct given g;
    world_init(&w, 2);
    w.s.cfg.next_task = 10;
    sweep(&w, 1, 30, 1, 1, false, 10, 3, 0);
    restore(&w, 4, 1, 0, 10);
    restore(&w, 5, 2, 10, 20);
    struct sched_event ev = agent_event(EV_HELLO, 1, 3, 1);
    struct sched_ref ref = { 4, 1, 1, 2 };
    ev.agent.refs = &ref;
    ev.agent.n_refs = 1;
    cr_assert_eq(fresh(&w, &ev), 0);
    cr_assert_eq(action(&w, ACT_WELCOME, 0)->count, 0, "the claim stands");
    tick(&w);
    cr_assert(given(&w, 0, &g));
    cr_assert_eq(g.spans[0].lo, 20, "orphans are not handed out");
    cr_assert_eq(actions(&w, ACT_GRANT), 1);
    cr_assert(g.a.task >= 10 && g.a.epoch == 2);
    /* agent 2 never comes */
    for (int i = 0; i < 6; i++) {
        w.now += LEASE / 5;
        struct sched_ref refs[2] = { ref, ref_of(&g, 1) };
        beat(&w, 1, 3, refs, 2);
        step(&w, &(struct sched_event){ .type = EV_TICK });
    }
    cr_assert_eq(sched_task(&w.s, 4)->state, TASK_LEASED);
    cr_assert_eq(sched_task(&w.s, 5)->state, TASK_QUEUED);
    /* a claim that comes too late is dropped; its rows would still count */
    ev = agent_event(EV_HELLO, 2, 1, 1);
    ref = (struct sched_ref){ 5, 1, 1, 2 };
    ev.agent.refs = &ref;
    ev.agent.n_refs = 1;
    cr_assert_eq(fresh(&w, &ev), 0);
    cr_assert_eq(action(&w, ACT_WELCOME, 0)->count, 1);
    world_clear(&w);
}

Test(sched, a_restored_task_holds_only_points_that_still_wait)
{
    struct world w;
    world_init(&w, 2);
    struct spans todo = { 0 };
    spans_add(&todo, 3, 5);
    spans_add(&todo, 8, 30);
    struct id key = key_of(1);
    bool no = false, yes = true;
    struct sched_event ev = { .type = EV_SWEEP,
                              .sweep = { .seq = 1,
                                         .points = 30,
                                         .plan = { &w, plan_trace, plan_end },
                                         .todo = &todo,
                                         .key = &key,
                                         .build = &no,
                                         .ready = &yes,
                                         .n_traces = 1 } };
    cr_assert_eq(fresh(&w, &ev), 0);
    restore(&w, 4, 1, 0, 10);
    cr_assert_eq(sched_task(&w.s, 4)->left.total, 4);
    cr_assert_eq(sched_left(sched_sweep(&w.s, 1)), 24);
    world_clear(&w);
}

Test(sched, a_failed_task_waits_longer_each_time_and_is_given_up_after_its_retries)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 1, 1, 1, false, 1, 3, 0);
    hello(&w, 1, 1, 1);
    uint64_t waits[3];
    for (int i = 0; i < 4; i++) {
        uint64_t from = w.now;
        do {
            w.now += 100;
            beat(&w, 1, 1, NULL, 0);
            tick(&w);
        } while (!given(&w, 0, &g));
        if (i)
            waits[i - 1] = w.now - from;
        cr_assert_eq(g.a.n, (uint64_t)i + 1);
        sched_actions_reset(&w.out);
        cr_assert_eq(end(&w, &g.a, "signal"), 0);
    }
    cr_assert(waits[0] >= 1000 && waits[0] <= 1400, "%llu", (unsigned long long)waits[0]);
    cr_assert(waits[1] >= 2000 && waits[1] <= 2700);
    cr_assert(waits[2] >= 4000 && waits[2] <= 5200);
    cr_assert_eq(actions(&w, ACT_GIVE_UP), 1, "three retries were all");
    cr_assert_str_eq(action(&w, ACT_GIVE_UP, 0)->text, "signal");
    cr_assert_eq(actions(&w, ACT_SWEEP_OVER), 1);
    world_clear(&w);
}

Test(sched, one_poison_point_does_not_take_its_neighbours_along)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 64, 1, 1, false, 64, 2, 0);
    hello(&w, 1, 1, 4);
    const uint64_t poison = 37;
    uint64_t runs = 0, gave_up = 0, over = 0;
    for (int turn = 0; turn < 5000 && !over; turn++) {
        w.now += 500;
        beat(&w, 1, 1, NULL, 0);
        tick(&w);
        struct given gs[SCHED_POINT_SLOTS];
        size_t n = 0;
        while (n < SCHED_POINT_SLOTS && given(&w, n, &gs[n]))
            n++;
        for (size_t i = 0; i < n; i++) {
            bool bad = false;
            g = gs[i];
            runs++;
            sched_actions_reset(&w.out);
            for (size_t k = 0; k < g.a.count; k++)
                bad |= g.spans[k].lo <= poison && poison < g.spans[k].hi;
            if (!bad)
                all_points(&w, &g.a, g.spans);
            cr_assert_eq(end(&w, &g.a, bad ? "signal" : "done"), 0);
            for (size_t k = 0; k < actions(&w, ACT_GIVE_UP); k++) {
                const struct sched_action *a = action(&w, ACT_GIVE_UP, k);
                gave_up++;
                cr_assert_eq(w.out.spans[a->first].lo, poison);
                cr_assert_eq(w.out.spans[a->first].hi, poison + 1);
            }
            over += actions(&w, ACT_SWEEP_OVER);
        }
    }
    cr_assert_eq(gave_up, 1);
    cr_assert_eq(over, 1);
    cr_assert_lt(runs, 40);
    world_clear(&w);
}

Test(sched, a_lost_agent_is_not_the_fault_of_the_task)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 1, 1, 1, false, 1, 0, 0);
    for (int i = 1; i < 10; i++) {
        hello(&w, i, 1, 1);
        tick(&w);
        cr_assert(given(&w, 0, &g));
        w.now += LEASE + 1;
        tick(&w);
        cr_assert_eq(actions(&w, ACT_GIVE_UP), 0);
    }
    world_clear(&w);
}

Test(sched, a_declined_grant_goes_elsewhere)
{
    struct world w;
    struct given g, h;
    world_init(&w, 1);
    sweep(&w, 1, 1, 1, 1, false, 1, 0, 0);
    hello(&w, 1, 1, 1);
    tick(&w);
    given(&w, 0, &g);
    hello(&w, 2, 1, 1);
    sched_actions_reset(&w.out);
    cr_assert_eq(
        step(&w, &(struct sched_event){ .type = EV_DECLINE,
                                        .end = { g.a.task, g.a.epoch, g.a.n, "BUSY", NULL } }),
        0);
    tick(&w);
    cr_assert(given(&w, 0, &h));
    cr_assert_eq(h.a.agent, agent(&w, 2));
    world_clear(&w);
}

Test(sched, cancel_ends_everything_and_is_said_once)
{
    struct world w;
    struct given g[2];
    world_init(&w, 1);
    sweep(&w, 1, 100, 1, 1, false, 10, 3, 0);
    hello(&w, 1, 1, 1);
    tick(&w);
    given(&w, 0, &g[0]);
    given(&w, 1, &g[1]);
    struct sched_event cancel = { .type = EV_CANCEL_SWEEP, .sweep = { .seq = 1 } };
    cr_assert_eq(fresh(&w, &cancel), 0);
    cr_assert_eq(actions(&w, ACT_CANCEL), 2);
    cr_assert_eq(actions(&w, ACT_SWEEP_OVER), 1);
    cr_assert_eq(fresh(&w, &cancel), 0);
    cr_assert_eq(w.out.n, 0);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 0);
    /* a beat in between must not revive it, and tells the agent again */
    struct sched_ref ref = ref_of(&g[0], 2);
    beat(&w, 1, 1, &ref, 1);
    cr_assert_eq(action(&w, ACT_DROP, 0)->count, 1);
    sched_actions_reset(&w.out);
    cr_assert_eq(end(&w, &g[0].a, "cancelled"), 0);
    cr_assert_eq(actions(&w, ACT_SWEEP_GONE), 0);
    w.now += LEASE * 2;
    tick(&w); /* the other never answers */
    cr_assert_eq(actions(&w, ACT_SWEEP_GONE), 1);
    cr_assert_eq(fresh(&w, &cancel), -ENOENT);
    world_clear(&w);
}

Test(sched, a_cancelled_task_gives_its_points_up)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 10, 1, 1, false, 10, 3, 0);
    hello(&w, 1, 1, 1);
    tick(&w);
    given(&w, 0, &g);
    point(&w, 1, 0, &g.a);
    fresh(&w, &(struct sched_event){ .type = EV_CANCEL_TASK, .end = { .task = g.a.task } });
    cr_assert_eq(actions(&w, ACT_CANCEL), 1);
    cr_assert_eq(end(&w, &g.a, "cancelled"), 0);
    const struct sched_action *a = action(&w, ACT_GIVE_UP, 0);
    cr_assert_eq(w.out.spans[a->first].lo, 1);
    cr_assert_eq(w.out.spans[a->first].hi, 10);
    cr_assert_eq(actions(&w, ACT_SWEEP_OVER), 1);
    world_clear(&w);
}

Test(sched, held_sweeps_wait_and_priority_goes_first)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 100, 1, 1, false, 10, 3, 0);
    sweep(&w, 2, 100, 1, 2, false, 10, 3, 5);
    fresh(&w, &(struct sched_event){ .type = EV_HOLD, .sweep = { .seq = 2 } });
    hello(&w, 1, 1, 1);
    tick(&w);
    given(&w, 0, &g);
    cr_assert_eq(g.a.sweep, 1, "the more urgent one is held");
    fresh(&w, &(struct sched_event){ .type = EV_RELEASE, .sweep = { .seq = 2 } });
    hello(&w, 2, 1, 1);
    tick(&w);
    given(&w, 0, &g);
    cr_assert_eq(g.a.sweep, 2);
    fresh(&w, &(struct sched_event){ .type = EV_PRIORITY, .sweep = { .seq = 1, .priority = 9 } });
    hello(&w, 3, 1, 1);
    tick(&w);
    given(&w, 0, &g);
    cr_assert_eq(g.a.sweep, 1);
    world_clear(&w);
}

Test(sched, a_drained_agent_and_a_stopping_coordinator_grant_nothing)
{
    struct world w;
    world_init(&w, 1);
    sweep(&w, 1, 100, 1, 1, false, 10, 3, 0);
    hello(&w, 1, 1, 1);
    struct sched_event drain = agent_event(EV_DRAIN, 1, 0, 0);
    drain.agent.accept = false;
    cr_assert_eq(fresh(&w, &drain), 0);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 0);
    drain.agent.accept = true;
    fresh(&w, &drain);
    fresh(&w, &(struct sched_event){ .type = EV_STOP });
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 0);
    world_clear(&w);
}

Test(sched, traces_are_built_before_the_points_that_need_them)
{
    struct world w;
    struct given g, h;
    world_init(&w, 1);
    w.trace_points = 10;
    sweep(&w, 1, 30, 3, 1, true, 10, 3, 0);
    sweep(&w, 2, 10, 1, 1, true, 10, 3, 0); /* shares the first trace */
    hello(&w, 1, 1, 2);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 2, "as many traces as cores");
    cr_assert(given(&w, 0, &g) && g.a.kind == TASK_TRACE);
    struct id k = key_of(1);
    cr_assert(id_eq(&g.a.key, &k));
    end(&w, &g.a, "done");
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 3,
                 "the third trace; a block of each sweep, but not a second first trace");
    cr_assert(given(&w, 1, &h) && h.a.kind == TASK_POINTS);
    cr_assert_eq(h.spans[0].lo, 0);
    cr_assert_eq(h.spans[0].hi, 10);
    cr_assert(given(&w, 2, &h) && h.a.kind == TASK_POINTS && h.a.sweep == 2);
    world_clear(&w);
}

Test(sched, a_trace_that_cannot_be_built_fails_its_points_only)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    w.trace_points = 10;
    sweep(&w, 1, 20, 2, 1, true, 10, 1, 0);
    hello(&w, 1, 1, 4);
    uint64_t failed = 0, done = 0, over = 0;
    for (int turn = 0; turn < 200 && !over; turn++) {
        w.now += 500;
        beat(&w, 1, 1, NULL, 0);
        tick(&w);
        for (size_t i = 0; i < actions(&w, ACT_GIVE_UP); i++) {
            const struct sched_action *a = action(&w, ACT_GIVE_UP, i);
            failed += w.out.spans[a->first].hi - w.out.spans[a->first].lo;
            cr_assert(strstr(a->text, "trace could not be built"));
            cr_assert_lt(w.out.spans[a->first].lo, 10);
        }
        over += actions(&w, ACT_SWEEP_OVER);
        struct given gs[6];
        size_t n = 0;
        while (n < 6 && given(&w, n, &gs[n]))
            n++;
        for (size_t i = 0; i < n; i++) {
            g = gs[i];
            struct id k = key_of(1);
            sched_actions_reset(&w.out);
            if (g.a.kind == TASK_POINTS) {
                all_points(&w, &g.a, g.spans);
                done += n_points(&g);
            }
            end(&w, &g.a, g.a.kind == TASK_TRACE && id_eq(&g.a.key, &k) ? "exit" : "done");
            over += actions(&w, ACT_SWEEP_OVER);
        }
    }
    cr_assert_eq(failed, 10);
    cr_assert_eq(done, 10);
    cr_assert_eq(over, 1);
    world_clear(&w);
}

Test(sched, blocks_never_straddle_traces_and_follow_the_measured_rate)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    w.trace_points = 1000;
    sweep(&w, 1, 2000, 2, 1, false, 0, 3, 0);
    hello(&w, 1, 1, 2);
    tick(&w);
    cr_assert(given(&w, 0, &g));
    cr_assert_eq(n_points(&g), 2, "first a taste of one point a core");
    all_points(&w, &g.a, g.spans); /* 50 ms each */
    end(&w, &g.a, "done");
    tick(&w);
    given(&w, 0, &g);
    cr_assert_eq(n_points(&g), SCHED_TARGET_MS / 50 * 2,
                 "then as much as fills the target on two cores");
    uint64_t at = g.spans[0].lo;
    while (at < 1000) {
        at = g.spans[0].hi;
        cr_assert_eq((g.spans[0].hi - 1) / 1000, g.spans[0].lo / 1000);
        all_points(&w, &g.a, g.spans);
        end(&w, &g.a, "done");
        tick(&w);
        cr_assert(given(&w, 0, &g));
    }
    world_clear(&w);
}

Test(sched, the_last_blocks_are_small)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 200, 1, 1, false, 0, 3, 0);
    for (int i = 1; i <= 4; i++)
        hello(&w, i, 1, 2);
    uint64_t last = 0, sum = 0;
    for (int turn = 0; turn < 500 && sum < 200; turn++) {
        tick(&w);
        struct given gs[8];
        size_t n = 0;
        while (n < 8 && given(&w, n, &gs[n]))
            n++;
        for (size_t i = 0; i < n; i++) {
            g = gs[i];
            last = n_points(&g);
            sum += last;
            all_points(&w, &g.a, g.spans);
            end(&w, &g.a, "done");
        }
    }
    cr_assert_eq(sum, 200);
    cr_assert_leq(last, SCHED_LEAST_MS / 50 * 2, "the least block on two cores");
    world_clear(&w);
}

Test(sched, a_thousand_million_points_cost_one_range)
{
    struct world w;
    world_init(&w, 1);
    w.trace_points = 1000000000;
    cr_assert_eq(sweep(&w, 1, 1000000000, 1, 1, false, 0, 3, 0), 0);
    hello(&w, 1, 1, 64);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 1, "one taste until the rate is known");
    cr_assert_eq(sched_sweep(&w.s, 1)->todo.n, 1);
    cr_assert_leq(sizeof(struct sched_task), 200 + 64);
    world_clear(&w);
}

Test(sched, failed_points_run_again_when_asked)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 3, 1, 1, false, 1, 0, 0);
    hello(&w, 1, 1, 1);
    tick(&w);
    given(&w, 0, &g);
    end(&w, &g.a, "exit");
    cr_assert_eq(actions(&w, ACT_GIVE_UP), 1);
    cr_assert_eq(sched_left(sched_sweep(&w.s, 1)), 2);
    struct spans todo = { 0 };
    spans_add(&todo, g.spans[0].lo, g.spans[0].hi);
    cr_assert_eq(
        fresh(&w, &(struct sched_event){ .type = EV_REDO, .sweep = { .seq = 1, .todo = &todo } }),
        0);
    cr_assert_eq(sched_left(sched_sweep(&w.s, 1)), 3);
    spans_clear(&todo);
    world_clear(&w);
}

/* Anything may happen in any order: agents die, come back, lose messages; rows come twice and late. A model of the store
 * counts what is accepted. When the faults stop, every point has exactly one row. */
Test(sched, random_histories_keep_every_point_once)
{
    enum { AGENTS = 4, HELD = 16 };
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct rng r = { seed };
        struct world w;
        world_init(&w, 1);
        w.trace_points = 1 + rng_below(&r, 40);
        uint64_t points = 1 + rng_below(&r, 120);
        uint8_t row[128] = { 0 };
        uint64_t accepted = 0, given_up = 0;
        uint32_t n_traces = (uint32_t)((points + w.trace_points - 1) / w.trace_points);
        if (n_traces > 64) {
            w.trace_points = points;
            n_traces = 1;
        }
        sweep(&w, 1, points, n_traces, 1, rng_below(&r, 2), rng_below(&r, 9), 2, 0);
        struct {
            bool up;
            uint64_t boot, next_beat;
            struct given held[HELD];
            size_t n;
        } a[AGENTS];
        memset(a, 0, sizeof(a));
        bool gone = false;
        for (int turn = 0; turn < 4000 && !gone; turn++) {
            bool calm = turn > 600;
            w.now += rng_below(&r, 700);
            sched_actions_reset(&w.out);
            for (int i = 0; i < AGENTS; i++) {
                if (!a[i].up) {
                    if (calm || !rng_below(&r, 8)) {
                        struct sched_event ev =
                            agent_event(EV_HELLO, i + 1, ++a[i].boot, 1 + (uint32_t)i);
                        struct sched_ref refs[HELD];
                        if (rng_below(&r, 2))
                            a[i].n = 0; /* the machine was reset; else the shim kept them */
                        for (size_t k = 0; k < a[i].n; k++)
                            refs[k] = ref_of(&a[i].held[k], 2);
                        ev.agent.refs = refs;
                        ev.agent.n_refs = a[i].n;
                        cr_assert_eq(step(&w, &ev), 0);
                        a[i].up = true;
                        a[i].next_beat = w.now;
                    }
                    continue;
                }
                if (!calm && !rng_below(&r, 40)) {
                    a[i].up = false;
                    continue;
                }
                if (w.now >= a[i].next_beat) {
                    a[i].next_beat = w.now + 2000;
                    if (calm || rng_below(&r, 5)) {
                        struct sched_event ev = agent_event(EV_BEAT, i + 1, a[i].boot, 0);
                        struct sched_ref refs[HELD];
                        for (size_t k = 0; k < a[i].n; k++)
                            refs[k] = ref_of(&a[i].held[k], 2);
                        ev.agent.refs = refs;
                        ev.agent.n_refs = a[i].n;
                        size_t at = w.out.n;
                        cr_assert_eq(step(&w, &ev), 0);
                        for (size_t d = 0; d < w.out.v[at].count; d++)
                            for (size_t k = 0; k < a[i].n; k++)
                                if (a[i].held[k].a.task == w.out.refs[w.out.v[at].first + d].task &&
                                    a[i].held[k].a.n == w.out.refs[w.out.v[at].first + d].n)
                                    a[i].held[k--] = a[i].held[--a[i].n];
                    }
                }
                if (a[i].n) { /* work on the first */
                    struct given *g = &a[i].held[0];
                    for (size_t k = 0; k < g->a.count; k++)
                        for (uint64_t p = g->spans[k].lo; p < g->spans[k].hi; p++) {
                            if (!calm && !rng_below(&r, 4))
                                continue; /* the rows got lost */
                            bool first = !row[p];
                            if (first) {
                                row[p] = 1;
                                accepted++;
                                point(&w, 1, p, &g->a);
                            }
                        }
                    if (calm || rng_below(&r, 4))
                        end(&w, &g->a, calm || rng_below(&r, 5) ? "done" : "signal");
                    a[i].held[0] = a[i].held[--a[i].n];
                }
            }
            step(&w, &(struct sched_event){ .type = EV_TICK });
            uint64_t freed[HELD], n_freed = 0;
            for (size_t i = 0; i < w.out.n; i++) {
                const struct sched_action *x = &w.out.v[i];
                if (x->type == ACT_GIVE_UP)
                    for (uint64_t p = w.out.spans[x->first].lo; p < w.out.spans[x->first].hi; p++) {
                        cr_assert_eq(row[p], 0, "seed %llu: point %llu has a row",
                                     (unsigned long long)seed, (unsigned long long)p);
                        row[p] = 2;
                        given_up++;
                    }
                if (x->type == ACT_SWEEP_GONE)
                    gone = true;
                if (x->type == ACT_NOTE && x->news)
                    freed[n_freed++ % HELD] = x->task; /* a person looks into it */
                if (x->type != ACT_GRANT || (!calm && !rng_below(&r, 6)))
                    continue; /* the grant got lost */
                int no = x->agent->install[0] - 1;
                if (a[no].n < HELD) {
                    struct given *g = &a[no].held[a[no].n++];
                    g->a = *x;
                    if (x->count)
                        memcpy(g->spans, w.out.spans + x->first, x->count * sizeof(struct span));
                }
            }
            for (uint64_t i = 0; i < n_freed && i < HELD; i++)
                step(&w,
                     &(struct sched_event){ .type = EV_RETRY_TASK, .end = { .task = freed[i] } });
        }
        cr_assert(gone, "seed %llu: the sweep never ended", (unsigned long long)seed);
        cr_assert_eq(accepted + given_up, points, "seed %llu", (unsigned long long)seed);
        world_clear(&w);
    }
}

/* Runs what is granted to agent no until it is said to run; the grant is in *g. */
static void runs_on(struct world *w, int no, uint64_t boot, struct given *g)
{
    for (int i = 0; i < 200; i++) {
        tick(w);
        if (given(w, 0, g))
            break;
        w->now += 500;
        beat(w, no, boot, NULL, 0);
    }
    struct sched_ref ref = ref_of(g, 2);
    cr_assert_eq(beat(w, no, boot, &ref, 1), 0);
}

Test(sched, a_task_that_takes_three_agents_along_is_quarantined_until_retried)
{
    struct world w;
    struct given g;
    bool rest;
    world_init(&w, 1);
    sweep(&w, 1, 1, 1, 1, false, 1, 3, 0);
    for (int i = 1; i <= 3; i++) {
        hello(&w, i, 1, 1);
        runs_on(&w, i, 1, &g);
        w.now += LEASE + 1;
        tick(&w);
        cr_assert_eq(actions(&w, ACT_NOTE), 1, "each loss is kept over a restart");
        cr_assert_eq(action(&w, ACT_NOTE, 0)->n_kills, (uint32_t)i);
    }
    cr_assert(action(&w, ACT_NOTE, 0)->quarantined && action(&w, ACT_NOTE, 0)->news);
    cr_assert_eq(sched_task(&w.s, g.a.task)->state, TASK_QUARANTINED);
    cr_assert_eq(sched_quarantined(sched_sweep(&w.s, 1), &rest), 1);
    cr_assert(!rest, "nothing else can go on");
    hello(&w, 4, 1, 1);
    w.now += 100000;
    beat(&w, 4, 1, NULL, 0);
    tick(&w);
    cr_assert(!given(&w, 0, &g), "the fourth is spared");
    cr_assert_eq(actions(&w, ACT_GIVE_UP), 0);
    uint64_t task = sched_sweep(&w.s, 1) ? 1 : 0;
    cr_assert_eq(fresh(&w, &(struct sched_event){ .type = EV_RETRY_TASK, .end = { .task = task } }),
                 0);
    cr_assert_eq(action(&w, ACT_NOTE, 0)->n_kills, 0);
    tick(&w);
    cr_assert(given(&w, 0, &g));
    sched_actions_reset(&w.out);
    all_points(&w, &g.a, g.spans);
    end(&w, &g.a, "done");
    cr_assert_eq(actions(&w, ACT_SWEEP_OVER), 1);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_FORGET), 1, "its note goes with it");
    world_clear(&w);
}

Test(sched, an_agent_that_comes_back_with_its_boot_was_not_killed)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 1, 1, 1, false, 1, 3, 0);
    for (int i = 0; i < 5; i++) { /* a flapping network, not a poison task */
        hello(&w, 1, 1, 1);
        runs_on(&w, 1, 1, &g);
        w.now += LEASE + 1;
        tick(&w);
    }
    cr_assert_eq(sched_task(&w.s, g.a.task)->past->n_kills, 1);
    hello(&w, 2, 1, 1);
    runs_on(&w, 2, 1, &g);
    hello(&w, 2, 2, 1); /* the host came up again without it */
    cr_assert_eq(sched_task(&w.s, g.a.task)->past->n_kills, 2);
    runs_on(&w, 2, 2, &g);
    hello(&w, 2, 3, 1);
    cr_assert_eq(sched_task(&w.s, g.a.task)->state, TASK_QUARANTINED);
    hello(&w, 1, 1, 1); /* the silent one was only away */
    cr_assert_eq(sched_task(&w.s, g.a.task)->state, TASK_QUEUED);
    world_clear(&w);
}

Test(sched, a_task_that_only_waits_kills_nobody)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 1, 1, 1, false, 1, 0, 0);
    for (int i = 1; i < 6; i++) {
        hello(&w, i, 1, 1);
        tick(&w);
        cr_assert(given(&w, 0, &g));
        struct sched_ref ref = ref_of(&g, 1);
        beat(&w, i, 1, &ref, 1);
        w.now += LEASE + 1;
        tick(&w);
        cr_assert_eq(sched_task(&w.s, g.a.task)->state, TASK_QUEUED);
    }
    world_clear(&w);
}

Test(sched, failures_before_a_restart_count_after_it)
{
    struct world w;
    struct given g;
    world_init(&w, 2);
    sweep(&w, 1, 1, 1, 1, false, 1, 3, 0);
    struct spans pts = { 0 };
    spans_add(&pts, 0, 1);
    struct sched_event ev = { .type = EV_RESTORE,
                              .restore = { .task = 7,
                                           .n = 3,
                                           .sweep = 1,
                                           .kind = TASK_POINTS,
                                           .key = key_of(1),
                                           .points = &pts,
                                           .total = 1,
                                           .fails = 3,
                                           .why = "signal",
                                           .noted = true } };
    cr_assert_eq(fresh(&w, &ev), 0);
    spans_clear(&pts);
    hello(&w, 1, 1, 1);
    tick(&w);
    cr_assert(!given(&w, 0, &g), "it waits its back-off");
    runs_on(&w, 1, 1, &g);
    cr_assert_eq(g.a.task, 7);
    cr_assert_eq(g.a.n, 4, "attempts go on counting");
    sched_actions_reset(&w.out);
    end(&w, &g.a, "signal");
    cr_assert_eq(actions(&w, ACT_GIVE_UP), 1, "that was its last");
    world_clear(&w);
}

Test(sched, what_was_quarantined_before_a_restart_is_so_after_it)
{
    struct world w;
    struct given g;
    bool rest;
    struct sched_kill kills[SCHED_KILLS] = { { { 1 }, 1 }, { { 2 }, 1 }, { { 3 }, 1 } };
    world_init(&w, 2);
    sweep(&w, 1, 10, 1, 1, false, 5, 3, 0);
    struct spans pts = { 0 };
    spans_add(&pts, 2, 7);
    struct sched_event ev = { .type = EV_RESTORE,
                              .restore = { .task = 7,
                                           .n = 3,
                                           .sweep = 1,
                                           .kind = TASK_POINTS,
                                           .key = key_of(1),
                                           .points = &pts,
                                           .total = 5,
                                           .kills = kills,
                                           .n_kills = 3,
                                           .quarantined = true,
                                           .noted = true } };
    cr_assert_eq(fresh(&w, &ev), 0);
    spans_clear(&pts);
    cr_assert_eq(sched_quarantined(sched_sweep(&w.s, 1), &rest), 5);
    cr_assert(rest, "the other points go on");
    hello(&w, 9, 1, 1);
    tick(&w);
    for (size_t i = 0; given(&w, i, &g); i++)
        for (size_t k = 0; k < g.a.count; k++)
            cr_assert(g.spans[k].hi <= 2 || g.spans[k].lo >= 7);
    world_clear(&w);
}

Test(sched, an_agent_that_fails_what_others_do_well_is_drained_and_named)
{
    struct world w;
    world_init(&w, 1);
    sweep(&w, 1, 40, 1, 1, false, 1, 3, 0);
    hello(&w, 1, 1, 1);
    hello(&w, 2, 1, 1);
    bool bad = false;
    for (int turn = 0; turn < 400 && !bad; turn++) {
        w.now += 500;
        beat(&w, 1, 1, NULL, 0);
        beat(&w, 2, 1, NULL, 0);
        tick(&w);
        struct given g[8];
        size_t n = 0;
        while (n < 8 && given(&w, n, &g[n]))
            n++;
        for (size_t i = 0; i < n && !bad; i++) {
            bool fails = g[i].a.agent == agent(&w, 1);
            sched_actions_reset(&w.out);
            if (!fails)
                all_points(&w, &g[i].a, g[i].spans);
            end(&w, &g[i].a, fails ? "exit" : "done");
            const struct sched_action *x = action(&w, ACT_AGENT_BAD, 0);
            if (x) {
                cr_assert_eq(x->agent, agent(&w, 1));
                bad = true;
            }
        }
    }
    cr_assert(bad);
    cr_assert(agent(&w, 1)->drained);
    cr_assert(!agent(&w, 2)->drained);
    world_clear(&w);
}

Test(sched, a_task_that_fails_everywhere_speaks_against_no_agent)
{
    struct world w;
    world_init(&w, 1);
    sweep(&w, 1, 20, 1, 1, false, 1, 2, 0);
    for (int i = 1; i <= 3; i++)
        hello(&w, i, 1, 1);
    for (int turn = 0; turn < 400 && sched_sweep(&w.s, 1); turn++) {
        w.now += 500;
        for (int i = 1; i <= 3; i++)
            beat(&w, i, 1, NULL, 0);
        tick(&w);
        struct given g[8];
        size_t n = 0;
        while (n < 8 && given(&w, n, &g[n]))
            n++;
        for (size_t i = 0; i < n; i++) {
            sched_actions_reset(&w.out);
            end(&w, &g[i].a, "exit");
            cr_assert_eq(actions(&w, ACT_AGENT_BAD), 0);
        }
    }
    cr_assert_null(sched_sweep(&w.s, 1));
    world_clear(&w);
}

Test(sched, an_agent_that_ends_in_order_is_not_lost)
{
    struct world w;
    world_init(&w, 1);
    hello(&w, 1, 1, 1);
    struct sched_event ev = agent_event(EV_BEAT, 1, 1, 0);
    ev.agent.accept = false;
    cr_assert_eq(fresh(&w, &ev), 0);
    ev = agent_event(EV_GONE, 1, 1, 0);
    cr_assert_eq(fresh(&w, &ev), 0);
    cr_assert(agent(&w, 1)->stopped && !agent(&w, 1)->alive);
    w.now += LEASE + 1;
    tick(&w);
    cr_assert_eq(actions(&w, ACT_AGENT_LOST), 0);
    hello(&w, 1, 2, 1);
    cr_assert(!agent(&w, 1)->stopped && agent(&w, 1)->alive);
    world_clear(&w);
}

Test(sched, a_trace_that_is_lost_is_built_again_before_its_points_go_on)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 4, 1, 1, true, 1, 3, 0);
    hello(&w, 1, 1, 1);
    tick(&w);
    cr_assert(given(&w, 0, &g) && g.a.kind == TASK_TRACE);
    end(&w, &g.a, "done");
    tick(&w);
    cr_assert(given(&w, 0, &g) && g.a.kind == TASK_POINTS);
    struct sched_event ev = { .type = EV_TRACE_LOST, .trace = { .key = key_of(1) } };
    cr_assert_eq(fresh(&w, &ev), 0);
    all_points(&w, &g.a, g.spans);
    end(&w, &g.a, "done");
    tick(&w);
    for (size_t i = 0; given(&w, i, &g); i++)
        cr_assert_eq(g.a.kind, TASK_TRACE, "no block is granted without it");
    ev.type = EV_TRACE_READY; /* somebody else brought it */
    cr_assert_eq(fresh(&w, &ev), 0);
    tick(&w);
    cr_assert(given(&w, 0, &g) && g.a.kind == TASK_POINTS);
    world_clear(&w);
}

/* Runs two sweeps on one agent for so many turns; how many points of each were done. */
static void share_out(struct world *w, int turns, uint64_t us1, uint64_t us2, uint64_t done[3])
{
    struct given g;
    done[1] = done[2] = 0;
    for (int i = 0; i < turns; i++) {
        w->now += 10;
        beat(w, 1, 1, NULL, 0);
        tick(w);
        struct given gs[SCHED_POINT_SLOTS];
        size_t n = 0;
        while (n < SCHED_POINT_SLOTS && given(w, n, &gs[n]))
            n++;
        for (size_t k = 0; k < n; k++) {
            g = gs[k];
            sched_actions_reset(&w->out);
            for (size_t m = 0; m < g.a.count; m++)
                for (uint64_t p = g.spans[m].lo; p < g.spans[m].hi; p++) {
                    struct sched_event ev = { .type = EV_POINT,
                                              .point = { .sweep = g.a.sweep,
                                                         .index = p,
                                                         .duration_us = g.a.sweep == 1 ? us1 : us2,
                                                         .task = g.a.task,
                                                         .epoch = g.a.epoch,
                                                         .n = g.a.n } };
                    cr_assert_eq(step(w, &ev), 0);
                    done[g.a.sweep]++;
                }
            end(w, &g.a, "done");
        }
    }
}

Test(sched, sweeps_of_equal_priority_share_the_time_not_the_points)
{
    struct world w;
    uint64_t done[3];
    world_init(&w, 1);
    hello(&w, 1, 1, 1);
    sweep(&w, 1, 1000000, 1, 1, false, 10, 3, 0);
    sweep(&w, 2, 1000000, 1, 2, false, 10, 3, 0);
    share_out(&w, 400, 1000, 3000, done); /* points of the second take three times as long */
    double ratio = (double)done[1] / (double)done[2];
    cr_assert(ratio > 2.5 && ratio < 3.5, "%.2f", ratio);
    world_clear(&w);
}

Test(sched, who_comes_later_starts_from_where_the_others_stand)
{
    struct world w;
    uint64_t done[3];
    world_init(&w, 1);
    hello(&w, 1, 1, 1);
    sweep(&w, 1, 1000000, 1, 1, false, 10, 3, 0);
    share_out(&w, 200, 1000, 1000, done);
    cr_assert_gt(done[1], 1000);
    sweep(&w, 2, 1000000, 1, 2, false, 10, 3, 0);
    share_out(&w, 200, 1000, 1000, done);
    double ratio = (double)done[1] / (double)done[2];
    cr_assert(ratio > 0.8 && ratio < 1.25, "%.2f: it does not catch up on the past", ratio);
    /* held for a while: the same */
    fresh(&w, &(struct sched_event){ .type = EV_HOLD, .sweep = { .seq = 1 } });
    share_out(&w, 200, 1000, 1000, done);
    cr_assert_eq(done[1], 0);
    fresh(&w, &(struct sched_event){ .type = EV_RELEASE, .sweep = { .seq = 1 } });
    share_out(&w, 200, 1000, 1000, done);
    ratio = (double)done[1] / (double)done[2];
    cr_assert(ratio > 0.8 && ratio < 1.25, "%.2f", ratio);
    world_clear(&w);
}

Test(sched, priority_goes_before_shares)
{
    struct world w;
    uint64_t done[3];
    world_init(&w, 1);
    hello(&w, 1, 1, 1);
    sweep(&w, 1, 1000000, 1, 1, false, 10, 3, 0);
    sweep(&w, 2, 1000000, 1, 2, false, 10, 3, 5);
    share_out(&w, 50, 1000, 1000, done);
    cr_assert_eq(done[1], 0);
    fresh(&w, &(struct sched_event){ .type = EV_PRIORITY, .sweep = { .seq = 1, .priority = 9 } });
    share_out(&w, 50, 1000, 1000, done);
    cr_assert_eq(done[2], 0);
    world_clear(&w);
}

Test(sched, a_task_that_failed_on_one_agent_is_not_kept_from_the_next)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 1, 1, 1, false, 1, 3, 0);
    hello(&w, 1, 1, 1);
    tick(&w);
    cr_assert(given(&w, 0, &g));
    end(&w, &g.a, "exit");
    hello(&w, 2, 1, 1);
    w.now += 2000;
    beat(&w, 1, 1, NULL, 0);
    beat(&w, 2, 1, NULL, 0);
    tick(&w);
    cr_assert(given(&w, 0, &g));
    cr_assert_eq(g.a.agent, agent(&w, 2), "although the first stands before it");
    world_clear(&w);
}

Test(sched, an_agent_with_a_canary_gets_nothing_else_until_it_is_over)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 10, 1, 1, false, 1, 3, 0);
    hello(&w, 1, 1, 1);
    struct sched_event ev = agent_event(EV_CANARY, 1, 1, 0);
    cr_assert_eq(fresh(&w, &ev), 0);
    const struct sched_action *c = action(&w, ACT_CANARY, 0);
    cr_assert(c && c->agent == agent(&w, 1));
    struct sched_ref ref = { c->task, c->epoch, c->n, 2 };
    tick(&w);
    cr_assert(!given(&w, 0, &g));
    cr_assert_eq(beat(&w, 1, 1, &ref, 1), 0);
    cr_assert_eq(w.out.n_refs, 0, "it may hold it");
    ev = agent_event(EV_CANARY_OVER, 1, 1, 0);
    cr_assert_eq(fresh(&w, &ev), 0);
    tick(&w);
    cr_assert(given(&w, 0, &g));
    cr_assert_neq(g.a.task, ref.task);
    cr_assert_eq(beat(&w, 1, 1, &ref, 1), 0);
    cr_assert_eq(w.out.n_refs, 1, "and not any longer");
    world_clear(&w);
}

Test(sched, a_canary_that_takes_too_long_says_nothing_and_one_that_differs_drains)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 10, 1, 1, false, 1, 3, 0);
    hello(&w, 1, 1, 1);
    struct sched_event ev = agent_event(EV_CANARY, 1, 1, 0);
    cr_assert_eq(fresh(&w, &ev), 0);
    for (uint64_t ms = 0; ms <= SCHED_CANARY_MS; ms += LEASE / 2) {
        w.now += LEASE / 2;
        beat(&w, 1, 1, NULL, 0);
        tick(&w);
    }
    cr_assert(given(&w, 0, &g), "it is trusted after all");
    hello(&w, 2, 1, 1);
    ev = agent_event(EV_CANARY, 2, 1, 0);
    cr_assert_eq(fresh(&w, &ev), 0);
    ev = agent_event(EV_CANARY_OVER, 2, 1, 0);
    ev.agent.accept = false;
    cr_assert_eq(fresh(&w, &ev), 0);
    cr_assert(agent(&w, 2)->drained);
    world_clear(&w);
}
