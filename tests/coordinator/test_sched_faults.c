/* The scheduler on virtual time: tasks that fail, that take agents along, and agents that are bad. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/coordinator/sched_world.h"

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
        cr_assert_eq(task_end(&w, &g.a, "signal"), 0);
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
            cr_assert_eq(task_end(&w, &g.a, bad ? "signal" : "done"), 0);
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
            task_end(&w, &g.a, g.a.kind == TASK_TRACE && id_eq(&g.a.key, &k) ? "exit" : "done");
            over += actions(&w, ACT_SWEEP_OVER);
        }
    }
    cr_assert_eq(failed, 10);
    cr_assert_eq(done, 10);
    cr_assert_eq(over, 1);
    world_clear(&w);
}

Test(sched, a_recipe_that_its_logs_cannot_fulfil_is_not_tried_again)
{
    struct world w;
    struct given g;
    world_init(&w, 1);
    w.trace_points = 10;
    sweep(&w, 1, 10, 1, 1, true, 10, 3, 0);
    hello(&w, 1, 1, 4);
    tick(&w);
    cr_assert(given(&w, 0, &g));
    cr_assert_eq(g.a.kind, TASK_TRACE);
    sched_actions_reset(&w.out);
    cr_assert_eq(task_end(&w, &g.a, "recipe"), 0);
    cr_assert_eq(actions(&w, ACT_TRACE_FAILED), 1);
    w.now += 500;
    beat(&w, 1, 1, NULL, 0);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GIVE_UP), 1);
    cr_assert_eq(action(&w, ACT_GIVE_UP, 0)->count, 1);
    cr_assert_str_eq(action(&w, ACT_GIVE_UP, 0)->text, "trace could not be built: recipe");
    cr_assert_eq(actions(&w, ACT_SWEEP_OVER), 1);
    cr_assert(!given(&w, 0, &g));

    /* of points it is a failure like others */
    sweep(&w, 2, 1, 1, 2, false, 1, 3, 0);
    tick(&w);
    cr_assert(given(&w, 0, &g));
    sched_actions_reset(&w.out);
    cr_assert_eq(task_end(&w, &g.a, "recipe"), 0);
    cr_assert_eq(actions(&w, ACT_GIVE_UP), 0);
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
    task_end(&w, &g.a, "exit");
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
    task_end(&w, &g.a, "done");
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

/* Grants to agent no, of which each is named as running; how many. */
static size_t grants_on(struct world *w, int no, uint64_t boot, struct given g[8])
{
    struct sched_ref refs[8];
    size_t n = 0, mine = 0;
    w->now += 2000;
    beat(w, no, boot, NULL, 0);
    tick(w);
    for (; n < 8 && given(w, n, &g[mine]); n++)
        if (g[mine].a.agent == agent(w, no))
            mine++;
    for (n = 0; n < mine; n++)
        refs[n] = ref_of(&g[n], 2);
    cr_assert_eq(beat(w, no, boot, refs, mine), 0);
    return mine;
}

Test(sched, tasks_whose_agent_went_run_alone_until_it_is_clear_which_one_took_it_along)
{
    struct world w;
    struct given g[8];
    unsigned taken = 0, boot = 1, alone = 0;
    world_init(&w, 1);
    sweep(&w, 1, 8, 1, 1, false, 4, 3, 0);
    hello(&w, 1, 1, 1);
    for (int i = 0; i < 30; i++) { /* point 5 takes its host along */
        size_t n = grants_on(&w, 1, boot, g);
        bool bad = false;
        for (size_t k = 0; k < n; k++)
            bad |= g[k].spans[0].lo <= 5 && 5 < g[k].spans[0].hi;
        if (taken)
            cr_assert_leq(n, 1, "suspects are not together");
        alone += taken && n;
        if (bad) {
            taken++;
            hello(&w, 1, ++boot, 1);
            continue;
        }
        for (size_t k = 0; k < n; k++) {
            sched_actions_reset(&w.out);
            all_points(&w, &g[k].a, g[k].spans);
            cr_assert_eq(task_end(&w, &g[k].a, "done"), 0);
        }
    }
    cr_assert_eq(taken, SCHED_KILLS);
    cr_assert_geq(alone, 4, "the first block, two tries of the second, its innocent half");
    bool rest;
    cr_assert_eq(sched_quarantined(sched_sweep(&w.s, 1), &rest), 2);
    cr_assert(!rest, "only what stood beside the point to the last waits with it");
    world_clear(&w);
}

Test(sched, a_suspect_waits_for_an_agent_that_is_kept_free_for_it)
{
    struct world w;
    struct given g[8], more[8];
    world_init(&w, 1);
    sweep(&w, 1, 1, 1, 1, false, 1, 3, 0);
    hello(&w, 1, 1, 1);
    cr_assert_eq(grants_on(&w, 1, 1, g), 1);
    uint64_t suspect = g[0].a.task;
    sweep(&w, 2, 1000, 1, 1, false, 1, 3, 5);
    hello(&w, 2, 1, 1);
    cr_assert_eq(grants_on(&w, 2, 1, g), 2);
    hello(&w, 1, 2, 1); /* its host went; by its rank the suspect would come last */
    w.now += 2000;
    beat(&w, 1, 2, NULL, 0);
    struct sched_event away = agent_event(EV_GONE, 1, 2, 1);
    fresh(&w, &away);
    struct sched_ref refs[2] = { ref_of(&g[0], 2), ref_of(&g[1], 1) };
    beat(&w, 2, 1, refs, 2);
    for (int i = 0; i < 2; i++) {
        tick(&w);
        cr_assert_eq(actions(&w, ACT_GRANT), 0, "nothing new beside what runs");
        sched_actions_reset(&w.out);
        all_points(&w, &g[i].a, g[i].spans);
        task_end(&w, &g[i].a, "done");
    }
    tick(&w);
    cr_assert(given(&w, 0, &more[0]));
    cr_assert_eq(more[0].a.task, suspect);
    cr_assert_eq(actions(&w, ACT_GRANT), 1, "and it has the agent to itself");
    world_clear(&w);
}

/* A coordinator that starts finds the attempt open. *pts is emptied. */
static void restore_open(struct world *w, uint64_t task, int on, uint64_t boot, uint32_t n_kills,
                         const struct sched_kill *kills)
{
    struct spans pts = { 0 };
    spans_add(&pts, 0, 1);
    struct sched_event ev = { .type = EV_RESTORE,
                              .restore = { .task = task,
                                           .epoch = 1,
                                           .n = 1,
                                           .sweep = 1,
                                           .kind = TASK_POINTS,
                                           .key = key_of(1),
                                           .points = &pts,
                                           .total = 1,
                                           .boot = boot,
                                           .kills = kills,
                                           .n_kills = n_kills,
                                           .open = true } };
    memset(ev.restore.install, on, 16);
    cr_assert_eq(fresh(w, &ev), 0);
    spans_clear(&pts);
}

Test(sched, agents_that_go_around_a_restart_are_counted)
{
    static const struct {
        const char *name;
        uint64_t hello_boot; /* 0 = it does not come */
        bool claims, ends;
        uint32_t kills;
    } rows[] = {
        { "host came up anew", 8, false, false, 1 },
        { "host came up anew and found what is left of it", 8, true, true, 1 },
        { "agent was started anew, the task runs on", 8, true, false, 0 },
        { "same boot without it", 7, false, false, 0 },
        { "it never came back", 0, false, false, 1 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct world w;
        world_init(&w, 2);
        sweep(&w, 1, 1, 1, 1, false, 1, 3, 0);
        restore_open(&w, 7, 1, 7, 0, NULL);
        const struct sched_ref ref = { 7, 1, 1, 2 };
        if (rows[i].hello_boot) {
            struct sched_event ev = agent_event(EV_HELLO, 1, rows[i].hello_boot, 1);
            ev.agent.refs = &ref;
            ev.agent.n_refs = rows[i].claims;
            cr_assert_eq(fresh(&w, &ev), 0);
            if (rows[i].ends)
                cr_assert_eq(
                    task_end(&w, &(struct sched_action){ .task = 7, .epoch = 1, .n = 1 }, "lost"),
                    0);
        } else {
            w.now += LEASE + 1;
            tick(&w);
        }
        const struct sched_task *t = sched_task(&w.s, 7);
        cr_assert_eq(t->past ? t->past->n_kills : 0, rows[i].kills, "%s", rows[i].name);
        world_clear(&w);
    }
}

Test(sched, the_third_agent_that_goes_is_the_last_also_when_a_restart_lies_between)
{
    struct world w;
    struct sched_kill kills[2] = { { { 1 }, 1 }, { { 2 }, 1 } };
    world_init(&w, 2);
    sweep(&w, 1, 1, 1, 1, false, 1, 3, 0);
    restore_open(&w, 7, 3, 4, 2, kills);
    hello(&w, 3, 5, 1);
    cr_assert_eq(sched_task(&w.s, 7)->state, TASK_QUARANTINED);
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
    task_end(&w, &g.a, "signal");
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
            task_end(&w, &g[i].a, fails ? "exit" : "done");
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
            task_end(&w, &g[i].a, "exit");
            cr_assert_eq(actions(&w, ACT_AGENT_BAD), 0);
        }
    }
    cr_assert_null(sched_sweep(&w.s, 1));
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
    task_end(&w, &g.a, "exit");
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
