/* Rates shared by streams, on a clock of the test's own. */
#include <criterion/criterion.h>

#include "proto/base/clean.h"
#include "proto/bulk/pace.h"

enum { STREAMS = 6, FRAME = 128 << 10, SECOND = 1000 * 1000 * 1000 };

struct stream {
    struct pace_rate *rate;
    uint64_t next_ns, moved_b;
};

/* All send as soon as they may, a piece at a time as give.c does it, until the clock shows until_ns. */
static void run(struct stream s[], size_t n, uint64_t until_ns)
{
    for (;;) {
        struct stream *first = s;
        for (size_t i = 1; i < n; i++)
            if (s[i].next_ns < first->next_ns)
                first = &s[i];
        uint64_t now = first->next_ns;
        if (now >= until_ns)
            return;
        size_t piece = pace_rate_piece(first->rate, FRAME);
        uint64_t wait = pace_rate_take(first->rate, piece, now);
        first->moved_b += piece;
        first->next_ns = now + (wait ? wait : 100 * 1000); /* a wire of 1.3 GB/s */
    }
}

static bool about(uint64_t is, uint64_t want)
{
    return is > want * 97 / 100 && is < want * 103 / 100;
}

Test(pace, streams_of_a_class_share_its_rate_evenly_within_that_of_all)
{
    struct pace_rate all = { .lock = PTHREAD_MUTEX_INITIALIZER, .rate_b = 20 << 20 };
    struct pace_rate slow = { .lock = PTHREAD_MUTEX_INITIALIZER, .rate_b = 4 << 20, .above = &all };
    struct pace_rate wide = { .lock = PTHREAD_MUTEX_INITIALIZER, .above = &all }; /* no limit */
    struct stream s[STREAMS] = { { .rate = &slow }, { .rate = &slow }, { .rate = &slow },
                                 { .rate = &slow }, { .rate = &wide }, { .rate = &all } };
    run(s, STREAMS, 20ull * SECOND);
    for (size_t i = 0; i < 4; i++)
        cr_assert(about(s[i].moved_b, 20u << 20), "stream %zu: %llu", i,
                  (unsigned long long)s[i].moved_b);
    /* the others take what is left of all, each the half */
    for (size_t i = 4; i < STREAMS; i++)
        cr_assert(about(s[i].moved_b, 160u << 20), "stream %zu: %llu", i,
                  (unsigned long long)s[i].moved_b);
}

Test(pace, one_that_comes_later_has_its_share_at_once_and_a_changed_rate_holds)
{
    struct pace_rate all = { .lock = PTHREAD_MUTEX_INITIALIZER };
    struct pace_rate rate = { .lock = PTHREAD_MUTEX_INITIALIZER, .rate_b = 2 << 20, .above = &all };
    struct stream s[2] = { { .rate = &rate }, { .rate = &rate, .next_ns = 10ull * SECOND } };
    run(s, 2, 10ull * SECOND);
    cr_assert(about(s[0].moved_b, 20u << 20));
    run(s, 2, 20ull * SECOND);
    cr_assert(about(s[0].moved_b, 30u << 20));
    cr_assert(about(s[1].moved_b, 10u << 20));
    atomic_store(&rate.rate_b, 8 << 20);
    run(s, 2, 30ull * SECOND);
    cr_assert(about(s[0].moved_b, 70u << 20));
    cr_assert(about(s[1].moved_b, 50u << 20));
    atomic_store(&rate.rate_b, 0);
    cr_assert_eq(pace_rate_take(&rate, FRAME, 30ull * SECOND), 0);
    cr_assert_eq(pace_rate_piece(&rate, FRAME), FRAME);
    atomic_store(&rate.rate_b, 1);
    cr_assert_eq(pace_rate_piece(&rate, FRAME), 1024, "never a byte at a time");
}
