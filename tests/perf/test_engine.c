/* What can be worked out on paper about the model, for traces where that is possible. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "perf/engine.h"
#include "tests/oracle/random_case.h"

#define NS 1000ull

static uint64_t slot_at(uint64_t k, uint64_t gbps)
{
    return (k * 12336000 + gbps - 1) / gbps;
}

/* First slot later than t. */
static uint64_t slot_after(uint64_t t, uint64_t gbps)
{
    uint64_t k = 0;
    while (slot_at(k, gbps) <= t)
        k++;
    return k;
}

static struct trace_entry page(uint32_t gid, unsigned level, uint64_t iova)
{
    return (struct trace_entry){ .iova = iova,
                                 .mask = ~0ull << (12 + 9 * (level - 1)),
                                 .sid = (gid + 2) << 3,
                                 .gid = gid,
                                 .level = (uint8_t)level };
}

static struct row_stats run(const struct trace *t, const struct arch *a, struct engine_detail *d)
{
    struct row_stats s;
    struct err e = { 0 };
    cr_assert(arch_check(a, RULES_MODEL, &e) == 0, "%s", e.text);
    cr_assert(engine_run(t, a, RULES_MODEL, &s, d, &e) == 0, "%s", e.text);
    return s;
}

static struct arch no_caches(uint32_t gbps, uint32_t queue)
{
    struct arch a;
    arch_default(&a);
    a.link_gbps = gbps;
    a.queue = queue;
    a.cc_entries = a.iotlb_entries = a.l2_entries = a.l3_entries = 0;
    return a;
}

/* n events of one page */
static struct trace *same_page(uint64_t n, unsigned level)
{
    struct trace_entry d = page(0, level, 0x40000000);
    uint32_t *ev = calloc(n, sizeof(*ev));
    struct trace *t = trace_of(&d, 1, ev, n);
    free(ev);
    return t;
}

Test(engine, a_trace_that_always_hits_runs_at_link_speed_after_the_first_packet)
{
    static const uint32_t speeds[] = { 1, 10, 200, 400, 777 };
    for (unsigned i = 0; i < 5; i++) {
        uint64_t packets = 5000, gbps = speeds[i];
        struct trace *t = same_page(3 * packets, 1);
        struct arch a;
        arch_default(&a);
        a.link_gbps = (uint32_t)gbps;
        struct row_stats s = run(t, &a, NULL);
        /* cold: context miss 1000, trip 450, three reads 150, trip 450, and two ns behind each other */
        uint64_t second = slot_after(2052 * NS, gbps);
        cr_assert_eq(s.pkts_sent, packets);
        cr_assert_eq(s.pkts_dropped, second - 1);
        cr_assert_eq(s.time_ps, slot_at(second + packets - 1, gbps));
        cr_assert_eq(s.iotlb_hit, 3 * packets - 1);
        cr_assert_eq(s.iotlb_miss, 1);
        cr_assert_eq(s.cc_miss, 1);
        cr_assert_eq(s.l3_hit + s.l3_miss, 3, "only the first packet walks");
        cr_assert_leq(s.util_ppm, 1000000);
        trace_free(&t);
    }
}

Test(engine, a_full_link_is_used_to_the_last_slot_and_no_further)
{
    /* cold start hidden by a deep queue: every slot carries a packet, also where its length is no whole ps */
    static const uint32_t speeds[] = { 200, 400, 777, 1001 };
    for (unsigned i = 0; i < 4; i++) {
        struct trace *t = same_page(3000, 2);
        struct arch a;
        arch_default(&a);
        a.link_gbps = speeds[i];
        a.queue = 1000;
        struct row_stats s = run(t, &a, NULL);
        cr_assert_eq(s.pkts_dropped, 0);
        cr_assert_eq(s.time_ps, slot_at(1000, speeds[i]));
        cr_assert(s.util_ppm == 1000000 || s.util_ppm == 999999, "%" PRIu64, s.util_ppm);
        trace_free(&t);
    }
}

Test(engine, a_trace_that_never_hits_pays_the_whole_walk_for_every_packet)
{
    for (unsigned level = 1; level <= 3; level++) {
        uint64_t packets = 700, latency = (1000 + 450 + 50 * (4 - level) + 450 + 2) * NS;
        struct trace *t = same_page(3 * packets, level);
        struct arch a = no_caches(200, 1);
        struct row_stats s = run(t, &a, NULL);
        uint64_t period = slot_after(latency, 200);
        cr_assert_eq(s.pkts_dropped, (period - 1) * (packets - 1));
        cr_assert_eq(s.time_ps, slot_at(period * (packets - 1), 200) + latency);
        cr_assert_eq(s.mbps, 3 * packets * 4112 * 1000000 / s.time_ps);
        cr_assert_eq(s.iotlb_hit + s.iotlb_miss + s.cc_hit + s.cc_miss + s.l2_miss + s.l3_miss, 0);
        trace_free(&t);
    }
}

Test(engine, misses_in_every_cache_when_no_page_comes_twice)
{
    enum { N = 3000 };
    struct trace_entry d[N];
    uint32_t ev[N];
    for (uint32_t i = 0; i < N; i++) {
        d[i] = page(i % 7, 1, (uint64_t)i << 30 | (uint64_t)(i % 8) << 21);
        ev[i] = i;
    }
    struct trace *t = trace_of(d, N, ev, N);
    struct arch a;
    arch_default(&a);
    struct row_stats s = run(t, &a, NULL);
    cr_assert_eq(s.iotlb_hit + s.l2_hit + s.l3_hit, 0);
    cr_assert_eq(s.iotlb_miss, N);
    cr_assert_eq(s.l2_miss, N);
    cr_assert_eq(s.l3_miss, N);
    cr_assert_eq(s.iotlb_domains, 7);
    cr_assert_eq(s.iotlb_conflict, N - 64, "64 entries fill up, then each miss evicts");
    trace_free(&t);
}

Test(engine, obeys_littles_law_when_the_queue_is_the_limit)
{
    /* Every translation takes W; the queue keeps Q to Q + 2 of them under way but for the wait for the next slot. */
    static const uint32_t queues[] = { 1, 2, 3, 8, 16, 31 };
    struct trace *t = same_page(60000, 1);
    for (unsigned i = 0; i < 6; i++) {
        struct arch a = no_caches(4000, queues[i]);
        struct row_stats s = run(t, &a, NULL);
        double w = 2050e3, in_flight = (double)s.requests * w / (double)s.time_ps;
        cr_assert_gt(s.pkts_dropped, 0);
        cr_assert_leq(in_flight, queues[i] + 2.0, "queue %u: %.3f in flight", queues[i], in_flight);
        cr_assert_geq(in_flight, queues[i] * 0.97, "queue %u: %.3f in flight", queues[i],
                      in_flight);
    }
    trace_free(&t);
}

Test(engine, offers_as_many_packets_as_it_sends_and_refuses)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct rng r = { seed };
        struct trace *t = random_trace(&r, 500);
        struct arch a;
        random_arch(&r, &a);
        struct row_stats s = run(t, &a, NULL);
        uint64_t offered = s.pkts_sent + s.pkts_dropped;
        cr_assert_eq(s.pkts_sent, (t->n + 2) / 3);
        cr_assert_eq(s.requests, t->n);
        /* the last slot offered is the one of the last packet */
        cr_assert_leq(slot_at(offered, a.link_gbps), s.time_ps, "seed %" PRIu64, seed);
        /* and it is over soon after it: one packet's worst way, and what may still queue */
        if (t->n)
            cr_assert_leq(s.time_ps,
                          slot_at(offered, a.link_gbps) + (1000 + 2 * 450 + 150) * NS +
                              (a.queue + 3 + 2048) * 4 * NS,
                          "seed %" PRIu64, seed);
        cr_assert_leq(s.util_ppm, 1000000);
        trace_free(&t);
    }
}

Test(engine, treats_equal_tenants_equally)
{
    enum { TENANTS = 24, PAGES = 6, ROUNDS = 400 };
    struct trace_entry d[TENANTS * PAGES];
    uint32_t *ev = malloc(TENANTS * ROUNDS * 3 * sizeof(*ev));
    uint64_t n = 0;
    for (uint32_t g = 0; g < TENANTS; g++)
        for (uint32_t p = 0; p < PAGES; p++)
            d[g * PAGES + p] = page(g, 1 + p % 2, 0x80000000 + ((uint64_t)p << 21));
    for (uint32_t round = 0; round < ROUNDS; round++)
        for (uint32_t g = 0; g < TENANTS; g++)
            for (uint32_t k = 0; k < 3; k++)
                ev[n++] = g * PAGES + (round / 20 + k) % PAGES;
    struct trace *t = trace_of(d, TENANTS * PAGES, ev, n);
    free(ev);
    static const char *const presets[] = { "default", "hypertrio" };
    for (unsigned i = 0; i < 2; i++) {
        struct arch a;
        struct engine_detail detail = { 0 };
        cr_assert(arch_preset(&a, presets[i], "test", NULL) == 0);
        struct row_stats s = run(t, &a, &detail);
        uint64_t lo = UINT64_MAX, hi = 0;
        cr_assert_eq(detail.n_flows, TENANTS);
        for (size_t k = 0; k < detail.n_flows; k++) {
            lo = detail.flows[k].trans < lo ? detail.flows[k].trans : lo;
            hi = detail.flows[k].trans > hi ? detail.flows[k].trans : hi;
        }
        cr_assert_leq(hi - lo, 3);
        cr_assert_geq(s.jain_ppm, 999900, "%s: %" PRIu64, presets[i], s.jain_ppm);
        engine_detail_clear(&detail);
    }
    trace_free(&t);
}

Test(engine, an_empty_trace_gives_zeros)
{
    struct trace *t = trace_of(NULL, 0, NULL, 0);
    struct arch a;
    arch_default(&a);
    struct row_stats s = run(t, &a, NULL), zero = { 0 };
    cr_assert(memcmp(&s, &zero, sizeof(s)) == 0);
    trace_free(&t);
}

Test(engine, refuses_a_level_that_no_page_has)
{
    struct trace_entry d = page(0, 1, 0x1000);
    uint32_t ev = 0;
    d.level = 0;
    struct trace *t = trace_of(&d, 1, &ev, 1);
    struct arch a;
    struct row_stats s;
    struct err e = { 0 };
    arch_default(&a);
    cr_assert_eq(engine_run(t, &a, RULES_MODEL, &s, NULL, &e), -SF_EFORMAT);
    cr_assert(strstr(e.text, "level 0"), "%s", e.text);
    trace_free(&t);
}

Test(engine, refuses_a_code_path_that_it_does_not_know)
{
    struct trace *t = same_page(3, 1);
    struct arch a;
    struct row_stats s;
    struct err e = { 0 };
    arch_default(&a);
    setenv("SIOFLEET_ISA", "mmx", 1);
    cr_assert_eq(engine_run(t, &a, RULES_MODEL, &s, NULL, &e), -SF_EUSAGE);
    cr_assert_str_eq(e.text, "SIOFLEET_ISA: 'mmx' is none of scalar, avx2, avx512");
    trace_free(&t);
}
