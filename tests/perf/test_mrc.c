#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "perf/mrc.h"
#include "tests/oracle/random_case.h"

/* Misses of LRU sets with `ways` places, by doing it. */
static uint64_t brute(const struct trace *t, uint64_t sets, uint64_t ways)
{
    uint32_t *line = malloc(sets * ways * sizeof(*line));
    uint64_t misses = 0;
    memset(line, 0xff, sets * ways * sizeof(*line));
    for (uint64_t i = 0; i < t->n; i++) {
        uint32_t key = t->key_page[t->ev[i]],
                 *l = line + (t->entry[t->ev[i]].iova >> 21) % sets * ways;
        uint64_t k = 0;
        while (k < ways && l[k] != key)
            k++;
        if (k == ways) {
            misses++;
            k--;
        }
        memmove(l + 1, l, k * sizeof(*l));
        l[0] = key;
    }
    free(line);
    return misses;
}

static void check(const struct trace *t, const struct mrc *m, uint64_t size)
{
    struct mrc_point p = mrc_at(m, size);
    uint64_t want = t->n ? brute(t, m->sets, size) * 1000000 / t->n : 0;
    cr_assert_eq(p.miss_ppm, want,
                 "%" PRIu64 " sets, size %" PRIu64 ": %" PRIu64 ", by brute force %" PRIu64,
                 m->sets, size, p.miss_ppm, want);
    cr_assert_eq(p.err_ppm, 0);
    cr_assert_eq(p.entries, size * m->sets);
}

Test(mrc, equals_brute_force_at_every_size)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct rng r = { seed };
        struct trace *t = random_trace(&r, 4000);
        struct mrc m;
        cr_assert_eq(mrc_full(t, &m, NULL), 0);
        for (uint64_t size = 1; size <= t->n_page + 2u; size++)
            check(t, &m, size);
        mrc_clear(&m);
        trace_free(&t);
    }
}

Test(mrc, equals_brute_force_at_every_associativity)
{
    for (uint64_t seed = 100; seed < 150; seed++) {
        struct rng r = { seed };
        struct trace *t = random_trace(&r, 4000);
        for (uint64_t sets = 1; sets <= 64; sets *= 2) {
            struct mrc m;
            cr_assert_eq(mrc_sets(t, sets, &m, NULL), 0);
            for (uint64_t ways = 1; ways <= 20; ways++)
                check(t, &m, ways);
            mrc_clear(&m);
        }
        trace_free(&t);
    }
}

/* n events over `pages` pages; the first tenth of the pages gets `hot` of 100 events */
static struct trace *skewed(uint64_t seed, uint64_t n, uint32_t pages, unsigned hot)
{
    struct rng r = { seed };
    struct trace_entry *d = calloc(pages, sizeof(*d));
    uint32_t *ev = malloc(n * sizeof(*ev));
    for (uint32_t i = 0; i < pages; i++)
        d[i] = (struct trace_entry){
            .iova = (uint64_t)i << 12, .mask = ~0xfffull, .gid = i % 16, .sid = i % 16, .level = 1
        };
    for (uint64_t i = 0; i < n; i++)
        ev[i] = (uint32_t)rng_below(&r, rng_below(&r, 100) < hot ? pages / 10 : pages);
    struct trace *t = trace_of(d, pages, ev, n);
    free(d);
    free(ev);
    return t;
}

Test(mrc, moves_its_marks_together_without_losing_one)
{
    /* many times around the row of places, with more marks than a block holds */
    struct trace *t = skewed(5, 40000, 1700, 60);
    struct mrc m;
    cr_assert_eq(mrc_full(t, &m, NULL), 0);
    for (uint64_t size = 1; size < 1800; size += 97)
        check(t, &m, size);
    mrc_clear(&m);
    cr_assert_eq(mrc_sets(t, 2, &m, NULL), 0);
    for (uint64_t size = 1; size < 900; size += 97)
        check(t, &m, size);
    mrc_clear(&m);
    trace_free(&t);
}

Test(mrc, a_sample_keeps_the_truth_in_its_band)
{
    unsigned points = 0, outside = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct trace *t = skewed(seed, 60000, 6000, seed % 3 * 35);
        struct mrc exact, part;
        cr_assert_eq(mrc_full(t, &exact, NULL), 0);
        cr_assert_eq(mrc_sample(t, 50000, &part, NULL), 0);
        cr_assert_lt(part.sampled, t->n / 8);
        for (uint64_t size = 64; size < 7000; size += size / 4) {
            struct mrc_point p = mrc_at(&part, size), q = mrc_at(&exact, size);
            uint64_t off =
                p.miss_ppm > q.miss_ppm ? p.miss_ppm - q.miss_ppm : q.miss_ppm - p.miss_ppm;
            points++;
            outside += off > p.err_ppm;
            cr_assert_gt(p.err_ppm, 0);
            cr_assert_lt(p.err_ppm, 250000, "a band that wide says nothing: %" PRIu64, p.err_ppm);
        }
        mrc_clear(&exact);
        mrc_clear(&part);
        trace_free(&t);
    }
    cr_assert_leq(outside * 100, points * 7, "%u of %u points outside", outside, points);
}

Test(mrc, a_sample_of_everything_is_exact)
{
    struct trace *t = skewed(9, 5000, 300, 50);
    struct mrc a, b;
    cr_assert_eq(mrc_full(t, &a, NULL), 0);
    cr_assert_eq(mrc_sample(t, 1000000, &b, NULL), 0);
    for (uint64_t size = 1; size < 310; size++)
        cr_assert_eq(mrc_at(&a, size).miss_ppm, mrc_at(&b, size).miss_ppm);
    mrc_clear(&a);
    mrc_clear(&b);
    trace_free(&t);
}

Test(mrc, shows_sizes_up_to_the_first_that_holds_everything)
{
    struct trace *t = skewed(3, 3000, 100, 0);
    struct mrc m;
    uint64_t sizes[64];
    cr_assert_eq(mrc_full(t, &m, NULL), 0);
    size_t n = mrc_sizes(&m, sizes, 64);
    cr_assert_eq(sizes[0], 1);
    cr_assert_eq(sizes[n - 1], 112);
    for (size_t i = 1; i < n; i++)
        cr_assert_gt(sizes[i], sizes[i - 1]);
    cr_assert_eq(mrc_at(&m, sizes[n - 1]).miss_ppm, m.cold * 1000000 / t->n);
    mrc_clear(&m);
    trace_free(&t);
}

Test(mrc, refuses_set_counts_and_rates_that_make_no_sense)
{
    struct trace *t = skewed(3, 10, 10, 0);
    struct mrc m;
    struct err e;
    cr_assert_eq(mrc_sets(t, 0, &m, &e), -SF_EUSAGE);
    cr_assert_eq(mrc_sets(t, 24, &m, &e), -SF_EUSAGE);
    cr_assert_eq(mrc_sample(t, 0, &m, &e), -SF_EUSAGE);
    cr_assert_eq(mrc_sample(t, 1000001, &m, &e), -SF_EUSAGE);
    trace_free(&t);
}

Test(mrc, knows_an_empty_trace)
{
    struct trace *t = trace_of(NULL, 0, NULL, 0);
    struct mrc m;
    cr_assert_eq(mrc_full(t, &m, NULL), 0);
    cr_assert_eq(mrc_at(&m, 1).miss_ppm, 0);
    mrc_clear(&m);
    cr_assert_eq(mrc_sample(t, 10000, &m, NULL), 0);
    cr_assert_eq(mrc_at(&m, 1).miss_ppm, 0);
    mrc_clear(&m);
    trace_free(&t);
}
