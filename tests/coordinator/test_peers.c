#include <criterion/criterion.h>
#include <string.h>

#include "coordinator/peers.h"
#include "proto/base/rng.h"

static struct id art(unsigned n)
{
    struct id id = { { 0 } };
    id.b[0] = (uint8_t)(n & 3); /* first bytes that several share */
    id.b[20] = (uint8_t)n;
    id.b[21] = (uint8_t)(n >> 8);
    return id;
}

static struct peers *fleet(unsigned n)
{
    struct peers *p = peers_new();
    cr_assert(p);
    for (unsigned i = 1; i <= n; i++)
        peers_serves(p, i, true);
    return p;
}

static void holds(const struct peers *p)
{
    const char *why = peers_check(p);
    cr_assert(!why, "%s", why);
}

Test(peers, agents_that_start_together_form_one_chain_behind_the_coordinator)
{
    struct peers *p = fleet(8);
    struct id id = art(1);
    for (unsigned i = 1; i <= 8; i++) {
        cr_assert_eq(peers_ask(p, i, &id, 0, false, false), i - 1);
        holds(p);
    }
    peers_free(&p);
}

Test(peers, whoever_has_all_of_it_serves_and_load_spreads)
{
    struct peers *p = fleet(20);
    struct id id = art(1);
    unsigned of_coordinator = 0;
    for (unsigned i = 1; i <= 4; i++)
        peers_has(p, i, &id);
    for (unsigned i = 5; i <= 12; i++) {
        uint64_t from = peers_ask(p, i, &id, 0, false, false);
        cr_assert(from >= 1);
        if (i <= 8)
            cr_assert(from <= 4, "an idle one with all of it is asked before others");
        peers_has(p, i, &id);
        holds(p);
    }
    for (unsigned i = 13; i <= 20; i++)
        of_coordinator += peers_ask(p, i, &id, 0, false, false) == 0;
    cr_assert_eq(of_coordinator, 0);
    holds(p);
    peers_free(&p);
}

Test(peers, one_that_failed_is_not_named_again_and_a_damaged_one_to_nobody)
{
    struct peers *p = fleet(4);
    struct id id = art(7);
    peers_has(p, 1, &id);
    cr_assert_eq(peers_ask(p, 2, &id, 0, false, false), 1);
    cr_assert_eq(peers_ask(p, 2, &id, 1, false, false), 0,
                 "it did not answer: back to the coordinator");
    cr_assert_eq(peers_ask(p, 3, &id, 0, false, false), 1, "others may still ask it");
    cr_assert_eq(peers_ask(p, 3, &id, 1, true, false), 2, "its bytes were damaged");
    cr_assert_eq(peers_ask(p, 4, &id, 0, false, false), 3, "so nobody asks it");
    peers_lost(p, 1, &id);
    peers_has(p, 1, &id);
    peers_idle(p, 4);
    cr_assert_eq(peers_ask(p, 4, &id, 0, false, false), 1, "it has it anew");
    holds(p);
    peers_free(&p);
}

Test(peers, nobody_fetches_from_itself_in_a_circle)
{
    struct peers *p = fleet(3);
    struct id id = art(2);
    cr_assert_eq(peers_ask(p, 1, &id, 0, false, false), 0);
    cr_assert_eq(peers_ask(p, 2, &id, 0, false, false), 1);
    cr_assert_eq(peers_ask(p, 3, &id, 0, false, false), 2);
    cr_assert_eq(peers_ask(p, 1, &id, 0, false, false), 0, "2 and 3 wait for it");
    cr_assert_eq(peers_ask(p, 2, &id, 1, false, false), 0, "3 waits for it");
    holds(p);
    peers_free(&p);
}

Test(peers, who_cannot_be_reached_or_is_gone_serves_nobody)
{
    struct peers *p = fleet(3);
    struct id id = art(2);
    peers_serves(p, 1, false);
    peers_has(p, 1, &id);
    cr_assert_eq(peers_ask(p, 2, &id, 0, false, false), 0);
    cr_assert_eq(peers_ask(p, 3, &id, 0, false, false), 2);
    peers_gone(p, 2);
    holds(p);
    cr_assert_eq(peers_ask(p, 3, &id, 2, false, false), 0);
    peers_gone(p, 3);
    peers_lost(p, 1, &id);
    cr_assert_eq(peers_held(p), 0);
    peers_free(&p);
}

Test(peers, who_has_no_task_fetches_nothing)
{
    struct peers *p = fleet(4);
    struct id id = art(3);
    peers_has(p, 1, &id);
    cr_assert_eq(peers_ask(p, 2, &id, 0, false, false), 1);
    peers_serves(p, 2, false);
    cr_assert_eq(peers_ask(p, 3, &id, 0, false, false), 1);
    peers_serves(p, 3, false);
    cr_assert_eq(peers_ask(p, 4, &id, 0, false, false), 0, "1 serves two");
    peers_idle(p, 4);
    peers_idle(p, 1);
    peers_idle(p, 3);
    cr_assert_eq(peers_source(p, 3, &id), 0);
    cr_assert_eq(peers_ask(p, 4, &id, 0, false, false), 1, "what 3 had of 1 is free");
    holds(p);
    peers_free(&p);
}

Test(peers, what_is_remembered_is_bounded)
{
    struct peers *p = fleet(40);
    for (unsigned g = 1; g <= 40; g++)
        for (unsigned i = 0; i < PEERS_HELD_AGENT + 10u; i++) {
            struct id id = art(i);
            peers_has(p, g, &id);
        }
    cr_assert(peers_held(p) <= PEERS_HELD);
    holds(p);
    peers_free(&p);
}

Test(peers, rules_hold_whatever_comes)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rng g = { seed };
        struct peers *p = peers_new();
        for (int i = 0; i < 600; i++) {
            uint64_t a = 1 + rng_below(&g, 12), b = rng_below(&g, 13);
            struct id id = art((unsigned)rng_below(&g, 6));
            switch (rng_below(&g, 9)) {
            case 0:
                peers_serves(p, a, rng_below(&g, 4));
                break;
            case 1:
            case 2:
                peers_has(p, a, &id);
                break;
            case 3:
                peers_lost(p, a, &id);
                break;
            case 4:
                peers_idle(p, a);
                break;
            case 5:
                if (rng_below(&g, 4) == 0)
                    peers_gone(p, a);
                else if (rng_below(&g, 8) == 0)
                    peers_anew(p, a);
                break;
            default: {
                bool damaged = rng_below(&g, 3) == 0;
                uint64_t from = peers_ask(p, a, &id, b, damaged, rng_below(&g, 9) == 0);
                cr_assert_eq(from, peers_source(p, a, &id));
                cr_assert(from != a, "seed %llu: from itself", (unsigned long long)seed);
                cr_assert(!from || from != b, "seed %llu: the failed one again",
                          (unsigned long long)seed);
            }
            }
            const char *why = peers_check(p);
            cr_assert(!why, "seed %llu, step %d: %s", (unsigned long long)seed, i, why);
        }
        peers_free(&p);
    }
}
