/* deploy/scale: how many agents, and which have to go. */
#include <criterion/criterion.h>
#include <string.h>

#include "deploy/scale.h"
#include "proto/base/rng.h"

enum { MAX = 6, S = 1000 };

/* A cluster of one's own: jobs start after a second, agents register a second later. */
struct lab {
    struct scale s;
    struct scale_seen seen[MAX];
    struct scale_action out[2 * MAX];
    uint64_t now, next_job, began[MAX], submits, stops, cancels, drains, failures;
    bool refuse; /* no job can be submitted */
    bool die;    /* each ends as soon as it has started */
    bool mute;   /* no agent registers */
};

static struct lab lab_new(uint64_t min)
{
    struct scale_conf c = { .min = min,
                            .max = MAX,
                            .points = 10,
                            .idle_ms = 30 * S,
                            .drain_ms = 60 * S,
                            .start_ms = 20 * S,
                            .held_ms = 10 * S };
    struct lab l = { .now = 1000 * S, .next_job = 1 };
    cr_assert_eq(scale_init(&l.s, &c), 0);
    return l;
}

static unsigned live(const struct lab *l)
{
    unsigned n = 0;
    for (int i = 0; i < MAX; i++)
        n += l->seen[i].state == SEEN_WAITS || l->seen[i].state == SEEN_RUNS;
    return n;
}

/* One second. */
static void turn(struct lab *l, uint64_t points)
{
    l->now += S;
    for (int i = 0; i < MAX; i++) {
        struct scale_seen *v = &l->seen[i];
        uint64_t age = l->now - l->began[i];
        if (v->state == SEEN_WAITS && age >= S && !v->hopeless)
            v->state = l->die ? SEEN_OVER : SEEN_RUNS;
        if (v->state == SEEN_RUNS && age >= 2 * S && !l->mute)
            v->registered = true;
        if (v->state == SEEN_RUNS && v->left_ms != UINT64_MAX)
            v->left_ms = v->left_ms > S ? v->left_ms - S : 0;
        if (v->state == SEEN_RUNS && v->left_ms == 0)
            *v = (struct scale_seen){ .job = v->job, .state = SEEN_OVER };
    }
    size_t n = scale_step(&l->s, l->seen, points, l->now, l->out);
    cr_assert_leq(n, 2 * MAX);
    for (size_t k = 0; k < n; k++) {
        size_t i = l->out[k].place;
        struct scale_seen *v = &l->seen[i];
        switch (l->out[k].act) {
        case SCALE_SUBMIT:
            cr_assert(v->state == SEEN_NONE || v->state == SEEN_OVER, "a place has one job");
            l->submits++;
            if (!l->refuse) {
                *v = (struct scale_seen){ .job = l->next_job++,
                                          .state = SEEN_WAITS,
                                          .left_ms = UINT64_MAX };
                l->began[i] = l->now;
            }
            scale_submitted(&l->s, i, l->refuse ? 0 : v->job, l->now);
            break;
        case SCALE_DRAIN:
            l->drains++;
            v->drained = true;
            break;
        case SCALE_STOP:
        case SCALE_CANCEL:
            l->stops += l->out[k].act == SCALE_STOP;
            l->cancels += l->out[k].act == SCALE_CANCEL;
            cr_expect(!v->running || v->left_ms < 60 * S || l->out[k].act == SCALE_CANCEL,
                      "an agent at work is let work");
            *v = (struct scale_seen){ .job = v->job, .state = SEEN_OVER };
            break;
        case SCALE_FAILED:
            l->failures++;
            break;
        case SCALE_OVER:
            break;
        }
    }
    cr_assert_leq(live(l), MAX);
}

static void turns(struct lab *l, unsigned seconds, uint64_t points)
{
    while (seconds--)
        turn(l, points);
}

Test(scale, as_many_agents_as_there_is_work_within_min_and_max)
{
    static const struct {
        uint64_t points, want;
    } rows[] = { { 0, 1 }, { 1, 1 }, { 10, 1 }, { 11, 2 }, { 60, 6 }, { UINT64_MAX - 1, 6 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct lab l = lab_new(1);
        turns(&l, 5, rows[i].points);
        cr_expect_eq(live(&l), rows[i].want, "row %zu", i);
        cr_expect_eq(l.submits, rows[i].want, "no job twice");
        scale_clear(&l.s);
    }
}

Test(scale, idle_agents_go_after_their_time_and_down_to_min)
{
    struct lab l = lab_new(1);
    turns(&l, 5, 60);
    for (int i = 0; i < MAX; i++)
        l.seen[i].running = 1;
    turns(&l, 100, 60);
    cr_expect_eq(live(&l), 6, "those at work stay");
    l.seen[0].running = l.seen[1].running = 0;
    turns(&l, 29, 10);
    cr_expect_eq(live(&l), 6, "not yet");
    turns(&l, 3, 10);
    cr_expect_eq(live(&l), 4, "those at work stay, though fewer are wanted");
    for (int i = 0; i < MAX; i++)
        l.seen[i].running = 0;
    turns(&l, 33, 0);
    cr_expect_eq(live(&l), 1);
    cr_expect_eq(l.cancels, 0);
    cr_expect_eq(l.failures, 0);
    scale_clear(&l.s);
}

Test(scale, jobs_that_wait_are_cancelled_when_the_work_is_gone)
{
    struct lab l = lab_new(0);
    turn(&l, 60);
    for (int i = 0; i < MAX; i++)
        l.seen[i].hopeless = true; /* they never start */
    turn(&l, 20);
    cr_expect_eq(live(&l), 2);
    cr_expect_eq(l.cancels, 4);
    scale_clear(&l.s);
}

Test(scale, an_agent_whose_time_ends_is_drained_and_replaced)
{
    struct lab l = lab_new(1);
    turns(&l, 5, 10);
    l.seen[0].running = 2;
    l.seen[0].left_ms = 65 * S;
    turns(&l, 3, 10);
    cr_expect_eq(l.drains, 0);
    turns(&l, 4, 10);
    cr_expect_eq(l.drains, 1);
    cr_expect_eq(l.stops, 0, "it may end what it has");
    cr_expect_eq(live(&l), 2, "another one takes over before it goes");
    l.seen[0].running = 0;
    turn(&l, 10);
    cr_expect_eq(l.stops, 1);
    cr_expect_eq(live(&l), 1);
    turns(&l, 5, 10);
    cr_expect_eq(l.failures, 0);
    scale_clear(&l.s);
}

Test(scale, one_that_is_still_at_work_is_told_to_end_before_its_time_is_up)
{
    struct lab l = lab_new(1);
    turns(&l, 5, 10);
    l.seen[0].running = 2;
    l.seen[0].left_ms = 62 * S;
    turns(&l, 46, 10);
    cr_expect_eq(l.stops, 0);
    turns(&l, 3, 10);
    cr_expect_eq(l.stops, 1, "15 s are left to hand over");
    scale_clear(&l.s);
}

Test(scale, somebody_drained_it_by_hand)
{
    struct lab l = lab_new(1);
    turns(&l, 5, 10);
    l.seen[0].drained = true;
    turns(&l, 3, 10);
    cr_expect_eq(l.stops, 1);
    cr_expect_eq(live(&l), 1);
    cr_expect_eq(l.submits, 2);
    scale_clear(&l.s);
}

Test(scale, failures_slow_it_down_and_one_goes_ahead)
{
    struct lab l = lab_new(0);
    l.refuse = true;
    turns(&l, 3600, 60);
    cr_expect_lt(l.submits, 30, "%llu in an hour", (unsigned long long)l.submits);
    cr_expect_gt(l.submits, 10, "%llu in an hour", (unsigned long long)l.submits);
    uint64_t before = l.submits;
    l.refuse = false;
    l.die = true;
    turns(&l, 3600, 60);
    cr_expect_lt(l.submits - before, 10, "%llu in an hour",
                 (unsigned long long)(l.submits - before));
    l.die = false;
    before = l.submits;
    turns(&l, 640, 60);
    cr_expect_gt(l.submits, before);
    turns(&l, 70, 60);
    cr_expect_eq(live(&l), MAX, "one lives: all the others follow");
    cr_expect_eq(l.s.fails, 0);
    scale_clear(&l.s);
}

Test(scale, one_that_does_not_register_is_given_up)
{
    struct lab l = lab_new(1);
    l.mute = true;
    turns(&l, 23, 0);
    cr_expect_eq(l.cancels, 1);
    cr_expect_eq(l.s.fails, 1, "once, not at its end again");
    scale_clear(&l.s);
}

Test(scale, without_a_coordinator_nothing_is_started_or_let_go)
{
    struct lab l = lab_new(0);
    turns(&l, 5, 30);
    cr_expect_eq(live(&l), 3);
    turns(&l, 100, UINT64_MAX);
    cr_expect_eq(live(&l), 3);
    cr_expect_eq(l.submits, 3);
    scale_clear(&l.s);
}

Test(scale, jobs_of_a_call_before_are_taken_over)
{
    struct lab l = lab_new(0);
    l.next_job = 100;
    for (int i = 0; i < 3; i++)
        l.seen[i] = (struct scale_seen){
            .job = 50 + (uint64_t)i, .state = SEEN_RUNS, .registered = true, .left_ms = UINT64_MAX
        };
    turns(&l, 5, 40);
    cr_expect_eq(l.submits, 1);
    cr_expect_eq(live(&l), 4);
    scale_clear(&l.s);
}

Test(scale, whatever_happens_a_place_has_one_job_and_there_are_never_more_than_max)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct lab l = lab_new(seed % 3);
        struct rng r = { seed };
        for (int k = 0; k < 300; k++) {
            size_t i = rng_below(&r, MAX);
            struct scale_seen *v = &l.seen[i];
            switch (rng_below(&r, 9)) {
            case 0: /* killed, or lost with its node */
                if (v->state != SEEN_NONE)
                    *v = (struct scale_seen){ .job = v->job, .state = SEEN_OVER };
                break;
            case 1: /* Slurm has forgotten it */
                *v = (struct scale_seen){ .state = SEEN_NONE };
                break;
            case 2:
                v->running = v->registered ? rng_below(&r, 3) : 0;
                break;
            case 3:
                if (v->state == SEEN_RUNS)
                    v->left_ms = rng_below(&r, 100) * S;
                break;
            case 4:
                v->hopeless = v->state == SEEN_WAITS;
                break;
            case 5:
                l.refuse = !l.refuse;
                break;
            default:
                break;
            }
            turn(&l, rng_below(&r, 4) ? rng_below(&r, 100) : UINT64_MAX);
        }
        /* and once all is well again, all are there */
        l.refuse = false;
        for (int i = 0; i < MAX; i++) {
            l.seen[i].hopeless = false;
            l.seen[i].running = 0;
        }
        turns(&l, 900, 60);
        cr_expect_eq(live(&l), MAX, "seed %llu: %u", (unsigned long long)seed, live(&l));
        scale_clear(&l.s);
    }
}
