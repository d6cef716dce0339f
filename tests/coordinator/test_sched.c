/* The scheduler on virtual time: leases, restarts, cancelling, histories of all kinds. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/coordinator/sched_world.h"

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
            cr_assert_eq(task_end(&w, &g[i].a, "done"), 0);
            over |= actions(&w, ACT_SWEEP_OVER) == 1;
            gone |= actions(&w, ACT_SWEEP_GONE) == 1;
        }
    }
    cr_assert_eq(done, 100);
    cr_assert(over && gone);
    cr_assert_null(sched_sweep(&w.s, 1));
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
    w.now += 2 * SCHED_BACKOFF_MS;
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
    cr_assert_eq(task_end(&w, &g.a, "done"), -ENOENT, "the first attempt is not open any more");
    cr_assert_eq(task_end(&w, &again.a, "cancelled"), 0);
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

Test(sched, nothing_is_granted_while_jobs_of_the_store_are_still_to_come)
{
    struct world w;
    world_init(&w, 1);
    w.s.loading = true;
    cr_assert_eq(hello(&w, 1, 1, 4), 0);
    cr_assert_eq(sweep(&w, 1, 100, 1, 0, false, 10, 3, 0), 0);
    tick(&w);
    cr_assert_eq(actions(&w, ACT_GRANT), 0);
    w.s.loading = false;
    w.now += 1000;
    tick(&w);
    cr_assert(actions(&w, ACT_GRANT) > 0);
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
    /* a beat in between must not revive it, and tells the agent again; it is not told to forget the task: then nobody would
     * say that it has ended */
    struct sched_ref ref = ref_of(&g[0], 2);
    beat(&w, 1, 1, &ref, 1);
    cr_assert_eq(action(&w, ACT_DROP, 0)->count, 0);
    cr_assert_eq(actions(&w, ACT_CANCEL), 1);
    cr_assert_eq(action(&w, ACT_CANCEL, 0)->task, g[0].a.task);
    sched_actions_reset(&w.out);
    cr_assert_eq(task_end(&w, &g[0].a, "cancelled"), 0);
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
    cr_assert_eq(task_end(&w, &g.a, "cancelled"), 0);
    const struct sched_action *a = action(&w, ACT_GIVE_UP, 0);
    cr_assert_eq(w.out.spans[a->first].lo, 1);
    cr_assert_eq(w.out.spans[a->first].hi, 10);
    cr_assert_eq(actions(&w, ACT_SWEEP_OVER), 1);
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
                        task_end(&w, &g->a, calm || rng_below(&r, 5) ? "done" : "signal");
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
