/* The scheduler on virtual time: who gets what next. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/coordinator/sched_world.h"

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

Test(sched, a_trace_is_not_begun_when_its_time_limit_reaches_into_a_planned_maintenance)
{
    struct world w;
    char why[SCHED_WHY];
    world_init(&w, 1);
    hello(&w, 1, 1, 2);
    struct sched_event plan = agent_event(EV_DRAIN, 1, 0, 0);
    plan.agent.drain_at_ms = w.now + SCHED_UNSTATED_MS - 1;
    fresh(&w, &plan);
    sweep(&w, 1, 10, 1, 1, true, 0, 3, 0); /* its traces are to be made, without a time limit */
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 0);
    const struct sched_task *t = LIST_OF(w.s.trace_tasks.next, struct sched_task, by_sweep);
    sched_soon_why(&w.s, t, w.now, why);
    cr_assert(strstr(why, "1 agent has what it needs, and a maintenance"), "%s", why);
    hello(&w, 2, 1, 2);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 1, "another agent makes it");
    cr_assert_eq(action(&w, ACT_GRANT, 0)->agent->install[0], 2);
    sched_soon_why(&w.s, t, w.now, why);
    cr_assert_str_empty(why);
    world_clear(&w);
}

Test(sched, points_are_granted_so_that_they_end_before_a_planned_maintenance)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 1000, 1, 1, false, 0, 3, 0);
    hello(&w, 1, 1, 2);
    tick(&w);
    cr_assert(given(&w, 0, &g));
    all_points(&w, &g.a, g.spans); /* 50 ms each */
    task_end(&w, &g.a, "done");
    struct sched_event plan = agent_event(EV_DRAIN, 1, 0, 0);
    plan.agent.drain_at_ms = w.now + 1000;
    fresh(&w, &plan);
    tick(&w);
    uint64_t sum = 0;
    for (size_t i = 0; given(&w, i, &g); i++)
        sum += n_points(&g);
    cr_assert_geq(sum, 2 * 1000 / 50 * 4 / 5, "most of the time is used");
    cr_assert_leq(sum, 2 * 1000 / 50);
    given(&w, 0, &g);
    uint64_t first = g.a.task;
    task_end(&w, &g.a, "exit"); /* it is to be tried again, and as a whole */
    w.now += SCHED_BACKOFF_MS * 2;
    plan.agent.drain_at_ms = w.now + 400;
    fresh(&w, &plan);
    beat(&w, 1, 1, NULL, 0);
    tick(&w);
    cr_assert_gt(actions(&w, ACT_GRANT), 0, "others do fit");
    for (size_t i = 0; given(&w, i, &g); i++) {
        cr_assert_neq(g.a.task, first);
        cr_assert_leq(n_points(&g), 2 * 400 / 50);
    }
    w.now += 300;
    all_points(&w, &g.a, g.spans);
    task_end(&w, &g.a, "done");
    w.now += 99; /* no point fits */
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 0);
    plan.agent.drain_at_ms = 0; /* called off */
    fresh(&w, &plan);
    tick(&w);
    cr_assert_gt(actions(&w, ACT_GRANT), 0);
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
    task_end(&w, &g.a, "done");
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 3,
                 "the third trace; a block of each sweep, but not a second first trace");
    cr_assert(given(&w, 1, &h) && h.a.kind == TASK_POINTS);
    cr_assert_eq(h.spans[0].lo, 0);
    cr_assert_eq(h.spans[0].hi, 10);
    cr_assert(given(&w, 2, &h) && h.a.kind == TASK_POINTS && h.a.sweep == 2);
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
    task_end(&w, &g.a, "done");
    tick(&w);
    given(&w, 0, &g);
    cr_assert_eq(n_points(&g), SCHED_TARGET_MS / 50 * 2,
                 "then as much as fills the target on two cores");
    uint64_t at = g.spans[0].lo;
    while (at < 1000) {
        at = g.spans[0].hi;
        cr_assert_eq((g.spans[0].hi - 1) / 1000, g.spans[0].lo / 1000);
        all_points(&w, &g.a, g.spans);
        task_end(&w, &g.a, "done");
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
            task_end(&w, &g.a, "done");
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

Test(sched, a_trace_that_is_lost_is_built_again_before_its_points_go_on)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    sweep(&w, 1, 4, 1, 1, true, 1, 3, 0);
    hello(&w, 1, 1, 1);
    tick(&w);
    cr_assert(given(&w, 0, &g) && g.a.kind == TASK_TRACE);
    task_end(&w, &g.a, "done");
    tick(&w);
    cr_assert(given(&w, 0, &g) && g.a.kind == TASK_POINTS);
    struct sched_event ev = { .type = EV_TRACE_LOST, .trace = { .key = key_of(1) } };
    cr_assert_eq(fresh(&w, &ev), 0);
    all_points(&w, &g.a, g.spans);
    task_end(&w, &g.a, "done");
    tick(&w);
    for (size_t i = 0; given(&w, i, &g); i++)
        cr_assert_eq(g.a.kind, TASK_TRACE, "no block is granted without it");
    ev.type = EV_TRACE_READY; /* somebody else brought it */
    cr_assert_eq(fresh(&w, &ev), 0);
    tick(&w);
    cr_assert(given(&w, 0, &g) && g.a.kind == TASK_POINTS);
    world_clear(&w);
}

/* One block with all of the sweep failed and waits, when its trace is lost: no point without a task asks for it. */
static void block_without_its_trace(struct world *w, uint32_t retries)
{
    struct given g;
    world_init(w, 1);
    sweep(w, 1, 4, 1, 1, true, 4, retries, 0);
    hello(w, 1, 1, 1);
    tick(w);
    cr_assert(given(w, 0, &g) && g.a.kind == TASK_TRACE);
    task_end(w, &g.a, "done");
    tick(w);
    cr_assert(given(w, 0, &g) && g.a.kind == TASK_POINTS && n_points(&g) == 4);
    struct sched_event ev = { .type = EV_TRACE_LOST, .trace = { .key = key_of(1) } };
    cr_assert_eq(fresh(w, &ev), 0);
    task_end(w, &g.a, "integrity");
    for (int i = 0; i < 100 && !given(w, 0, &g); i++) {
        w->now += 100;
        beat(w, 1, 1, NULL, 0);
        tick(w);
    }
    cr_assert(given(w, 0, &g), "it waits for ever");
    cr_assert_eq(g.a.kind, TASK_TRACE);
}

Test(sched, a_trace_that_is_lost_is_built_again_for_a_block_that_waits)
{
    struct world w;
    struct given g;
    block_without_its_trace(&w, 3);
    given(&w, 0, &g);
    task_end(&w, &g.a, "done");
    for (int i = 0; i < 100; i++) {
        w.now += 100;
        beat(&w, 1, 1, NULL, 0);
        tick(&w);
        if (given(&w, 0, &g))
            break;
    }
    cr_assert(given(&w, 0, &g) && g.a.kind == TASK_POINTS && n_points(&g) == 4);
    world_clear(&w);
}

Test(sched, a_block_is_given_up_with_a_trace_that_cannot_be_built_again)
{
    struct world w;
    struct given g;
    block_without_its_trace(&w, 0);
    given(&w, 0, &g);
    task_end(&w, &g.a, "exit");
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GIVE_UP), 1);
    cr_assert_eq(actions(&w, ACT_SWEEP_OVER), 1);
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
            task_end(w, &g.a, "done");
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
