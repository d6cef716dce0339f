#include "tests/oracle/random_case.h"

#include <stdlib.h>
#include <string.h>

static uint64_t pick(struct rng *r, uint64_t n)
{
    return rng_below(r, n);
}

struct trace *trace_of(const struct trace_entry *entry, uint32_t n_entries, const uint32_t *ev,
                       uint64_t n)
{
    struct trace *t = calloc(1, sizeof(*t));
    if (!t)
        abort();
    t->entry = malloc((n_entries + 1) * sizeof(*entry));
    t->ev = malloc((n + 1) * sizeof(*ev));
    if (!t->entry || !t->ev)
        abort();
    if (n_entries)
        memcpy(t->entry, entry, n_entries * sizeof(*entry));
    if (n)
        memcpy(t->ev, ev, n * sizeof(*ev));
    t->n = n;
    t->n_entries = n_entries;
    for (uint32_t i = 0; i < n_entries; i++)
        if (entry[i].gid >= t->n_gids)
            t->n_gids = entry[i].gid + 1;
    struct err e;
    if (trace_keys(t, &e) < 0 || trace_next(t, &e) < 0)
        abort();
    return t;
}

struct trace *random_trace(struct rng *r, uint64_t most)
{
    enum { ENTRIES = 160 };
    struct trace_entry entry[ENTRIES];
    uint32_t tenants = 1 + (uint32_t)pick(r, pick(r, 3) ? 6 : 24);
    uint32_t n_entries = 1 + (uint32_t)pick(r, pick(r, 2) ? 12 : ENTRIES);
    uint32_t sids = 1 + (uint32_t)pick(r, tenants * 2), huge = (uint32_t)pick(r, 3),
             spread = 1 + (uint32_t)pick(r, 40);
    for (uint32_t i = 0; i < n_entries; i++) {
        struct trace_entry *d = &entry[i];
        d->gid = (uint32_t)pick(r, tenants);
        /* mostly one source-id a tenant, sometimes shared or wandering ones */
        d->sid = (pick(r, 8) ? d->gid % sids : (uint32_t)pick(r, sids)) << 3;
        d->level = pick(r, 10) < 6 ? 1 : pick(r, 10) < 8 ? 2 : huge ? 3 : 1;
        d->mask = ~(uint64_t)0 << (12 + 9 * (d->level - 1));
        uint64_t iova = pick(r, 4) << 30 | pick(r, spread) << 21 | pick(r, 4) << 12;
        d->iova = iova & (d->mask | ~(uint64_t)0x1fffff);
        d->slpte = 0x100000000u + ((uint64_t)i << 12);
    }
    uint64_t n = pick(r, 12) ? 1 + pick(r, most) : pick(r, 10);
    uint32_t *ev = malloc((n + 1) * sizeof(*ev));
    if (!ev)
        abort();
    uint64_t hot = pick(r, 100), burst = 1 + pick(r, 6);
    uint32_t hot_n = 1 + (uint32_t)pick(r, n_entries);
    for (uint64_t i = 0; i < n; i++) {
        if (i % burst && pick(r, 3))
            ev[i] = ev[i - 1];
        else
            ev[i] = (uint32_t)pick(r, pick(r, 100) < hot ? hot_n : n_entries);
    }
    struct trace *t = trace_of(entry, n_entries, ev, n);
    free(ev);
    return t;
}

/* sets and groups powers of two; ways anything, so that every shape of cache comes up */
static void random_cache(struct rng *r, uint32_t *entries, uint32_t *ways, uint32_t *groups)
{
    static const uint32_t some_ways[] = { 1, 2, 3, 4, 7, 8, 9, 12, 15, 16, 17, 24, 40 };
    uint32_t sets = 1u << pick(r, 5);
    *ways = some_ways[pick(r, sizeof(some_ways) / sizeof(some_ways[0]))];
    *entries = sets * *ways;
    *groups = 1u << pick(r, 1 + (uint64_t)__builtin_ctz(sets));
    if (pick(r, 12) == 0)
        *entries = 0;
}

static void random_lines(struct rng *r, uint32_t most_ways, uint32_t *entries, uint32_t *ways,
                         uint32_t *groups)
{
    uint32_t sets = 1u << pick(r, 4);
    *ways = 1 + (uint32_t)pick(r, most_ways);
    *entries = sets * *ways;
    *groups = 1u << pick(r, 1 + (uint64_t)__builtin_ctz(sets));
}

void random_arch(struct rng *r, struct arch *a)
{
    static const uint32_t gbps[] = { 1, 7, 10, 100, 200, 400, 800, 3000, 4112, 9000, 12336 };
    arch_default(a);
    a->link_gbps =
        pick(r, 3) ? gbps[pick(r, sizeof(gbps) / sizeof(gbps[0]))] : 1 + (uint32_t)pick(r, 12336);
    a->queue = pick(r, 3) ? 1 + (uint32_t)pick(r, 64) : 1;
    a->inorder = pick(r, 4) == 0;
    a->salloc = pick(r, 4) == 0;
    if (pick(r, 2))
        random_cache(r, &a->cc_entries, &a->cc_ways, &a->cc_groups);
    random_cache(r, &a->iotlb_entries, &a->iotlb_ways, &a->iotlb_groups);
    a->iotlb_policy = (uint32_t)pick(r, 3);
    random_cache(r, &a->l2_entries, &a->l2_ways, &a->l2_groups);
    random_cache(r, &a->l3_entries, &a->l3_ways, &a->l3_groups);
    a->pf_entries = pick(r, 2) ? 1 + (uint32_t)pick(r, 24) : 0;
    a->pf_distance = 1 + (uint32_t)pick(r, pick(r, 2) ? 4 : 60);
    a->pf_history = 1 + (uint32_t)pick(r, pick(r, 6) ? 4 : 90);
    if (pick(r, 2))
        return;
    /* the usual shapes, for which the engine has a shorter form */
    a->inorder = a->salloc = a->iotlb_policy = 0;
    a->cc_entries = a->cc_ways = 1536;
    a->cc_groups = 1;
    random_lines(r, 8, &a->iotlb_entries, &a->iotlb_ways, &a->iotlb_groups);
    random_lines(r, 16, &a->l2_entries, &a->l2_ways, &a->l2_groups);
    random_lines(r, 16, &a->l3_entries, &a->l3_ways, &a->l3_groups);
}
