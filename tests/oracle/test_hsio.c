/* The engine under hypersio rules against its plain twin, bit for bit, on random traces and architectures.
 *
 * SIOFLEET_SEED=N repeats a run (printed always), SIOFLEET_CASES=N changes its length.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "perf/engine.h"
#include "tests/oracle/hsio_twin.h"
#include "tests/oracle/random_case.h"

static uint64_t number_from(const char *env, uint64_t otherwise)
{
    const char *s = getenv(env);
    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

/* Shapes beyond those of the model rules: any number of sets, unknown levels, big and tiny caches. */
static void odder(struct rng *r, struct trace *t, struct arch *a)
{
    uint32_t *c[4][3] = { { &a->cc_entries, &a->cc_ways, &a->cc_groups },
                          { &a->iotlb_entries, &a->iotlb_ways, &a->iotlb_groups },
                          { &a->l2_entries, &a->l2_ways, &a->l2_groups },
                          { &a->l3_entries, &a->l3_ways, &a->l3_groups } };
    for (int i = 0; i < 4; i++)
        if (rng_below(r, 4) == 0) {
            *c[i][0] = (uint32_t)rng_below(r, 200);
            *c[i][1] = (uint32_t)rng_below(r, rng_below(r, 2) ? 9 : 120);
            if (!*c[i][1])
                *c[i][0] = 0;
            uint32_t sets = *c[i][1] ? *c[i][0] / *c[i][1] : 0;
            *c[i][2] = 1 + (uint32_t)rng_below(r, sets ? sets : 1);
        }
    if (rng_below(r, 4) == 0) {
        *c[0][0] = *c[0][1] = 2 + (uint32_t)rng_below(r, 40);
        *c[0][2] = 1;
    }
    if (rng_below(r, 3) == 0) {
        static const uint64_t masks[3] = { 0, 0xffffff8000000000u, 0xfffffffffffff0f0u };
        for (uint32_t i = 0; i < t->n_entries; i++)
            if (rng_below(r, 9) == 0) {
                t->entry[i].level = 0;
                t->entry[i].mask = masks[rng_below(r, 3)];
                t->entry[i].iova &= t->entry[i].mask | ~(uint64_t)0x1fffff;
            }
        free(t->next);
        t->next = NULL;
        struct err e;
        cr_assert(trace_keys(t, &e) == 0);
        cr_assert(trace_next(t, &e) == 0);
    }
}

static bool same_detail(const struct engine_detail *x, const struct engine_detail *y)
{
    for (unsigned i = 0; i < 4; i++)
        if (x->n_rows[i] != y->n_rows[i] ||
            (x->n_rows[i] && memcmp(x->rows[i], y->rows[i], x->n_rows[i] * sizeof(uint64_t))))
            return false;
    if (x->n_flows != y->n_flows || x->n_hist != y->n_hist || x->warnings != y->warnings)
        return false;
    for (size_t i = 0; i < x->n_flows; i++) {
        const struct engine_flow *f = &x->flows[i], *g = &y->flows[i];
        if (f->gid != g->gid || f->time_ps != g->time_ps || f->trans != g->trans ||
            f->bw_mbps != g->bw_mbps)
            return false;
    }
    for (size_t i = 0; i < x->n_hist; i++)
        if (x->hist[i].sid != y->hist[i].sid || x->hist[i].hit != y->hist[i].hit ||
            x->hist[i].miss != y->hist[i].miss)
            return false;
    return true;
}

static bool same(const struct row_stats *x, const struct row_stats *y)
{
    const uint64_t *a = (const uint64_t *)x, *b = (const uint64_t *)y;
    bool equal = true;
    for (unsigned i = 0; i < ROW_STATS_N; i++) {
        const char *name = row_stats_names[i];
        /* derived, and not of the reference */
        if (!strcmp(name, "util_ppm") || !strcmp(name, "jain_ppm") || strstr(name, "_flow_mbps"))
            continue;
        if (a[i] == b[i])
            continue;
        fprintf(stderr, "%s: engine %" PRIu64 ", twin %" PRIu64 "\n", name, a[i], b[i]);
        equal = false;
    }
    return equal;
}

static const char *const paths[] = { "scalar", "avx2", "avx512" };

/* One case on all code paths; whether the twin never ends. seed: what repeats it as the first case of its test. */
static bool compare(const struct trace *t, const struct arch *a, uint64_t seed)
{
    struct row_stats want, got;
    struct engine_detail td, ed;
    struct err e = { 0 };
    cr_assert(arch_check(a, RULES_HYPERSIO, &e) == 0, "%s", e.text);
    int never = hsio_twin(t, a, &want, &td);
    for (int p = 0; p < 3; p++) {
        setenv("SIOFLEET_ISA", paths[p], 1);
        int s = engine_run(t, a, RULES_HYPERSIO, &got, &ed, &e);
        bool ok = never ? s == -SF_EFAILED : s == 0 && same(&got, &want) && same_detail(&ed, &td);
        engine_detail_clear(&ed);
        if (ok)
            continue;
        for (unsigned k = 0; k < ARCH_N; k++) {
            char text[16];
            arch_text(a, k, text);
            fprintf(stderr, " %s=%s", arch_names[k], text);
        }
        cr_assert_fail("differs on %s (%" PRIu64
                       " events, returned %d): repeat with SIOFLEET_SEED=%" PRIu64
                       " SIOFLEET_CASES=1",
                       paths[p], t->n, s, seed);
    }
    engine_detail_clear(&td);
    return never != 0;
}

Test(hsio, equals_its_twin_on_random_traces_and_architectures)
{
    uint64_t seed = number_from("SIOFLEET_SEED", (uint64_t)time(NULL)),
             cases = number_from("SIOFLEET_CASES", 1600), stuck = 0;
    printf("SIOFLEET_SEED=%" PRIu64 " SIOFLEET_CASES=%" PRIu64 "\n", seed, cases);
    for (uint64_t i = 0; i < cases; i++) {
        struct rng r = { seed + i };
        struct trace *t = random_trace(&r, 500);
        struct arch a;
        random_arch(&r, &a);
        odder(&r, t, &a);
        if (t->n)
            stuck += compare(t, &a, seed + i);
        trace_free(&t);
    }
    printf("%" PRIu64 " runs that never end, refused by both\n", stuck);
}

/* Tenants that take turns on few pages of 4 KiB and 2 MiB, as a built trace has them. */
static struct trace *usual_trace(struct rng *r, uint64_t most)
{
    enum { PAGES = 8, TENANTS = 48 };
    struct trace_entry entry[TENANTS * PAGES];
    uint32_t tenants = 1 + (uint32_t)rng_below(r, rng_below(r, 3) ? 8 : TENANTS);
    uint32_t pages = 1 + (uint32_t)rng_below(r, PAGES), large = (uint32_t)rng_below(r, 4),
             shared = 1 + (uint32_t)rng_below(r, 3);
    for (uint32_t g = 0; g < tenants; g++)
        for (uint32_t k = 0; k < pages; k++) {
            unsigned level = rng_below(r, 4) < large ? 2 : 1;
            entry[g * pages + k] = (struct trace_entry){
                .iova = 0x40000000u + ((uint64_t)rng_below(r, 6) << 21) +
                        (level == 1 ? (uint64_t)k << 12 : 0),
                .mask = ~(uint64_t)0 << (level == 1 ? 12 : 21),
                .slpte = 0x100000000u + ((uint64_t)g << 24) + ((uint64_t)k << 12),
                .sid = g / shared << 3,
                .gid = g,
                .level = (uint8_t)level,
            };
        }
    uint64_t n = 1 + rng_below(r, most), burst = 1 + rng_below(r, 6), fresh = rng_below(r, 30);
    uint32_t ev[4000];
    for (uint64_t i = 0; i < n; i++) {
        uint32_t g = (uint32_t)(i / burst % tenants);
        uint32_t k =
            (uint32_t)(rng_below(r, 100) < fresh ? rng_below(r, pages) : i % burst % pages);
        ev[i] = g * pages + k;
    }
    return trace_of(entry, tenants * pages, ev, n);
}

/* Architectures for which the engine has a shorter form, from idle to flooded by prefetches, and some at its limits. */
Test(hsio, equals_its_twin_on_usual_traces_and_architectures)
{
    uint64_t seed = number_from("SIOFLEET_SEED", (uint64_t)time(NULL)),
             cases = number_from("SIOFLEET_CASES", 700);
    printf("SIOFLEET_SEED=%" PRIu64 " SIOFLEET_CASES=%" PRIu64 "\n", seed, cases);
    for (uint64_t i = 0; i < cases; i++) {
        static const uint32_t gbps[] = { 1, 10, 40, 100, 200, 200, 400, 800, 1200, 2467, 2468 };
        struct rng r = { seed + i };
        struct trace *t = usual_trace(&r, rng_below(&r, 8) ? 600 : 4000);
        struct arch a;
        arch_default(&a);
        a.link_gbps = gbps[rng_below(&r, sizeof(gbps) / sizeof(gbps[0]))];
        a.queue = rng_below(&r, 3) ? 1 + (uint32_t)rng_below(&r, rng_below(&r, 8) ? 40 : 600) : 1;
        uint32_t s = 1u << rng_below(&r, 4);
        a.iotlb_ways = 1 + (uint32_t)rng_below(&r, 8);
        a.iotlb_entries = a.iotlb_ways * s;
        a.iotlb_groups = 1u << rng_below(&r, 1 + (uint64_t)__builtin_ctz(s));
        a.l2_ways = 1 + (uint32_t)rng_below(&r, 16);
        s = 1u << rng_below(&r, 6);
        a.l2_entries = a.l2_ways * s;
        a.l2_groups = 1u << rng_below(&r, 1 + (uint64_t)__builtin_ctz(s));
        a.l3_ways = 1 + (uint32_t)rng_below(&r, 16);
        s = 1u << rng_below(&r, 7);
        a.l3_entries = a.l3_ways * s;
        a.l3_groups = 1u << rng_below(&r, 1 + (uint64_t)__builtin_ctz(s));
        a.pf_entries = rng_below(&r, 2) ? 1 + (uint32_t)rng_below(&r, 8) : 0;
        a.pf_distance = 1 + (uint32_t)rng_below(&r, rng_below(&r, 2) ? 6 : 60);
        a.pf_history = 1 + (uint32_t)rng_below(&r, 4);
        compare(t, &a, seed + i);
        trace_free(&t);
    }
}
