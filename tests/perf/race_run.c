/* run_points() under ThreadSanitizer: all threads share one trace, rows do not depend on their number, a callback that
 * stops the run stops it. A program of its own, since Criterion and ThreadSanitizer do not work together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/run.h"
#include "proto/base/rng.h"

enum { EVENTS = 3000, PAGES = 97, TENANTS = 7, POINTS = 24 };

static struct trace *make(void)
{
    struct trace *t = calloc(1, sizeof(*t));
    struct rng rng = { 1 };
    struct err e = { 0 };
    if (!t || !(t->ev = calloc(EVENTS, sizeof(*t->ev))) || !(t->entry = calloc(PAGES, sizeof(*t->entry))))
        abort();
    t->n = EVENTS;
    t->n_entries = PAGES;
    t->n_gids = t->n_sids = TENANTS;
    t->head.tenants = t->head.devices = TENANTS;
    for (unsigned i = 0; i < PAGES; i++)
        t->entry[i] = (struct trace_entry){ .iova = (uint64_t)i << 12, .mask = ~UINT64_C(0xfff), .sid = (i % TENANTS) << 3,
                                            .gid = i % TENANTS, .level = 1 };
    for (unsigned i = 0; i < EVENTS; i++)
        t->ev[i] = (uint32_t)rng_below(&rng, PAGES);
    if (trace_keys(t, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    return t;
}

struct seen {
    struct row_stats row[POINTS];
    unsigned calls, stop_at;
};

static int keep(void *user, size_t i, const struct point_result *r)
{
    struct seen *s = user;
    s->row[i] = r->stats;
    return ++s->calls == s->stop_at ? -ECANCELED : 0;
}

static int run(struct trace *t, enum rules rules, unsigned threads, unsigned stop_at, struct seen *s)
{
    struct arch archs[POINTS];
    struct err e = { 0 };
    for (unsigned i = 0; i < POINTS; i++) {
        arch_default(&archs[i]);
        archs[i].queue = 1 + i % 5 * 8;
        archs[i].iotlb_policy = i % 3;
        archs[i].pf_entries = i % 2 * 8;
    }
    memset(s, 0, sizeof(*s));
    s->stop_at = stop_at;
    return run_points(t, rules, archs, POINTS, threads, 0, keep, s, &e);
}

int main(void)
{
    struct trace *t = make();
    static struct seen one, many;
    int bad = 0;
    for (int rules = RULES_MODEL; rules <= RULES_HYPERSIO; rules++) {
        if (run(t, rules, 1, 0, &one) < 0 || run(t, rules, 4, 0, &many) < 0 || many.calls != POINTS ||
            memcmp(one.row, many.row, sizeof(one.row)) != 0) {
            printf("rules %d: 4 threads give other rows than 1\n", rules);
            bad = 1;
        }
        if (run(t, rules, 4, 3, &many) != -ECANCELED || many.calls > 3) {
            printf("rules %d: not stopped at the third row (%u)\n", rules, many.calls);
            bad = 1;
        }
    }
    trace_free(&t);
    puts(bad ? "failed" : "passed");
    return bad;
}
