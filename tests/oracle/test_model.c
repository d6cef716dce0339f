/* The model engine against its plain twin, bit for bit, on random traces and architectures.
 *
 * SIOFLEET_SEED=N repeats a run (printed on failure and success), SIOFLEET_CASES=N changes its length.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "perf/engine.h"
#include "tests/oracle/model_twin.h"
#include "tests/oracle/random_case.h"

static uint64_t number_from(const char *env, uint64_t otherwise)
{
    const char *s = getenv(env);
    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

static void show_arch(const struct arch *a)
{
    for (unsigned k = 0; k < ARCH_N; k++) {
        char text[16];
        arch_text(a, k, text);
        fprintf(stderr, " %s=%s", arch_names[k], text);
    }
    fprintf(stderr, "\n");
}

static bool same(const struct row_stats *x, const struct row_stats *y)
{
    const uint64_t *a = (const uint64_t *)x, *b = (const uint64_t *)y;
    bool equal = true;
    for (unsigned i = 0; i < ROW_STATS_N; i++) {
        if (a[i] == b[i])
            continue;
        fprintf(stderr, "%s: engine %" PRIu64 ", twin %" PRIu64 "\n", row_stats_names[i], a[i],
                b[i]);
        equal = false;
    }
    return equal;
}

static bool same_detail(const struct engine_detail *x, const struct twin_detail *y,
                        uint32_t tenants)
{
    for (unsigned i = 0; i < 4; i++)
        if (x->n_rows[i] != y->n_rows[i] ||
            (x->n_rows[i] && memcmp(x->rows[i], y->rows[i], x->n_rows[i] * sizeof(uint64_t)))) {
            fprintf(stderr, "accesses by set of cache %u differ\n", i);
            return false;
        }
    size_t n = 0;
    for (uint32_t i = 0; i < tenants; i++)
        n += y->flow_n[i] > 0;
    if (n != x->n_flows) {
        fprintf(stderr, "%zu flows, twin %zu\n", x->n_flows, n);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const struct engine_flow *f = &x->flows[i];
        if (f->trans != y->flow_n[f->gid] ||
            f->time_ps != y->flow_last[f->gid] - y->flow_first[f->gid]) {
            fprintf(stderr, "flow of tenant %u differs\n", f->gid);
            return false;
        }
    }
    return true;
}

static const char *const paths[] = { "scalar", "avx2", "avx512" };

static bool path_works(const char *isa)
{
    struct trace *t = trace_of(NULL, 0, NULL, 0);
    struct arch a;
    struct row_stats s;
    arch_default(&a);
    setenv("SIOFLEET_ISA", isa, 1);
    bool ok = engine_run(t, &a, RULES_MODEL, &s, NULL, NULL) == 0;
    trace_free(&t);
    return ok;
}

Test(model, equals_its_twin_on_random_traces_and_architectures)
{
    uint64_t seed = number_from("SIOFLEET_SEED", (uint64_t)time(NULL)),
             cases = number_from("SIOFLEET_CASES", 2500);
    bool works[3];
    for (int i = 0; i < 3; i++)
        works[i] = path_works(paths[i]);
    printf("SIOFLEET_SEED=%" PRIu64 " SIOFLEET_CASES=%" PRIu64 "%s%s\n", seed, cases,
           works[1] ? " avx2" : "", works[2] ? " avx512" : "");
    for (uint64_t i = 0; i < cases; i++) {
        struct rng r = { seed + i };
        struct trace *t = random_trace(&r, 700);
        struct arch a;
        struct err e = { 0 };
        random_arch(&r, &a);
        cr_assert(arch_check(&a, RULES_MODEL, &e) == 0, "%s", e.text);
        struct row_stats want, got;
        struct twin_detail td = { 0 };
        model_twin(t, &a, &want, &td);
        for (int p = 0; p < 3; p++) {
            if (!works[p])
                continue;
            struct engine_detail ed = { 0 };
            setenv("SIOFLEET_ISA", paths[p], 1);
            cr_assert(engine_run(t, &a, RULES_MODEL, &got, &ed, &e) == 0, "%s", e.text);
            /* without detail the engine has a shorter form */
            struct row_stats plain;
            cr_assert(engine_run(t, &a, RULES_MODEL, &plain, NULL, &e) == 0, "%s", e.text);
            if (!same(&got, &want) || !same(&plain, &want) || !same_detail(&ed, &td, t->n_gids)) {
                show_arch(&a);
                cr_assert_fail("case %" PRIu64 " differs on %s (%" PRIu64
                               " events): repeat with SIOFLEET_SEED=%" PRIu64 " SIOFLEET_CASES=1",
                               i, paths[p], t->n, seed + i);
            }
            engine_detail_clear(&ed);
        }
        twin_detail_clear(&td);
        trace_free(&t);
    }
}
