#include "perf/tlb.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

/* A counter that reaches this halves every counter of its set (4-bit counters that never overflow).
 */
enum { LFU_FULL = 15 };

/* Sets up to which lines are taken without a look at what the trace asks for. */
enum { SMALL = 1 << 12 };

static void *lines(size_t n)
{
    size_t b = (n * sizeof(uint32_t) + 63) & ~(size_t)63;
    void *p = aligned_alloc(64, b ? b : 64);
    if (p)
        memset(p, 0xff, b);
    return p;
}

/* Whether each set has room for every key that can ever come to it. A byte a key, a counter a set:
 * O(entries). */
static int never_evicts(const struct tlb_use *use, uint32_t sets, uint32_t ways, bool *ret)
{
    CLEANUP(freep) uint8_t *known = calloc((size_t)use->n_keys + 1, 1);
    CLEANUP(freep) uint32_t *keys = calloc(sets, sizeof(*keys));
    if (!known || !keys)
        return -ENOMEM;
    *ret = true;
    for (uint32_t i = 0; i < use->n && *ret; i++) {
        if (known[use->key[i]])
            continue;
        known[use->key[i]] = 1;
        if (++keys[use->set[i]] > ways)
            *ret = false;
    }
    return 0;
}

int tlb_init(struct tlb *t, uint32_t entries, uint32_t ways, uint32_t lanes,
             enum arch_policy policy, const struct tlb_use *use, bool want_rows, struct err *e)
{
    *t = (struct tlb){ .policy = policy, .ways = ways };
    if (!entries || !ways)
        return 0;
    t->sets = entries / ways;
    size_t slots = (size_t)t->sets * ways, keys = (size_t)use->n_keys + 1;
    t->domain = calloc((size_t)use->n_gids + 1, 1);
    if (!t->domain || (want_rows && !(t->rows = calloc(t->sets, sizeof(*t->rows)))))
        goto nomem;
    /* lines are the faster shape, but a great many of them leave the cache */
    bool all = false;
    if ((policy != POLICY_LRU || ways > TLB_LANES || t->sets > SMALL) &&
        never_evicts(use, t->sets, ways, &all) < 0)
        goto nomem;
    if (policy == POLICY_LRU && ways <= TLB_LANES && (t->sets <= SMALL || !all)) {
        t->kind = TLB_LINE;
        t->lanes = ways <= lanes ? lanes : TLB_LANES;
        t->line = lines((size_t)t->sets * t->lanes);
        if (!t->line)
            goto nomem;
        return 0;
    }
    if (all) {
        t->kind = TLB_ALL;
        t->seen = calloc(keys, 1);
        if (!t->seen)
            goto nomem;
        return 0;
    }
    t->kind = policy == POLICY_LRU ? TLB_LIST : TLB_SCAN;
    t->where = lines(keys);
    t->key = lines(slots);
    t->set = calloc(t->sets, sizeof(*t->set));
    if (!t->where || !t->key || !t->set)
        goto nomem;
    if (t->kind == TLB_LIST) {
        t->prev = lines(slots);
        t->next = lines(slots);
        if (!t->prev || !t->next)
            goto nomem;
        return 0;
    }
    t->stamp = calloc(slots, sizeof(*t->stamp));
    if (policy == POLICY_LFU)
        t->count = calloc(slots, 1);
    else
        t->due = lines(slots);
    if (!t->stamp || (!t->count && !t->due))
        goto nomem;
    return 0;
nomem:
    tlb_clear(t);
    return err_sys(e, ENOMEM, "cache of %u entries", entries);
}

void tlb_clear(struct tlb *t)
{
    free(t->seen);
    free(t->line);
    free(t->where);
    free(t->key);
    free(t->prev);
    free(t->next);
    free(t->set);
    free(t->count);
    free(t->due);
    free(t->stamp);
    free(t->domain);
    free(t->rows);
    *t = (struct tlb){ 0 };
}

static void list_out(struct tlb *t, struct tlb_set *s, uint32_t slot)
{
    uint32_t p = t->prev[slot], n = t->next[slot];
    if (p == TLB_NONE)
        s->first = n;
    else
        t->next[p] = n;
    if (n == TLB_NONE)
        s->last = p;
    else
        t->prev[n] = p;
}

static void list_front(struct tlb *t, struct tlb_set *s, uint32_t slot)
{
    t->prev[slot] = TLB_NONE;
    t->next[slot] = s->first;
    if (s->first == TLB_NONE)
        s->last = slot;
    else
        t->prev[s->first] = slot;
    s->first = slot;
}

static bool list_access(struct tlb *t, uint32_t key, uint32_t set, bool alloc, bool *ret_evicted)
{
    struct tlb_set *s = &t->set[set];
    uint32_t slot = t->where[key];
    *ret_evicted = false;
    if (slot != TLB_NONE) {
        if (s->first != slot) {
            list_out(t, s, slot);
            list_front(t, s, slot);
        }
        return true;
    }
    if (!alloc)
        return false;
    if (s->used < t->ways) {
        if (!s->used)
            s->first = s->last = TLB_NONE;
        slot = set * t->ways + s->used++;
    } else {
        slot = s->last;
        list_out(t, s, slot);
        t->where[t->key[slot]] = TLB_NONE;
        *ret_evicted = true;
    }
    t->key[slot] = key;
    t->where[key] = slot;
    list_front(t, s, slot);
    return false;
}

/* Smallest counter or latest next use; the least recent among equals. */
static uint32_t scan_victim(const struct tlb *t, uint32_t from)
{
    uint32_t best = from;
    for (uint32_t i = from + 1; i < from + t->ways; i++) {
        bool better, equal;
        if (t->policy == POLICY_LFU) {
            better = t->count[i] < t->count[best];
            equal = t->count[i] == t->count[best];
        } else {
            better = t->due[i] > t->due[best];
            equal = t->due[i] == t->due[best];
        }
        if (better || (equal && t->stamp[i] < t->stamp[best]))
            best = i;
    }
    return best;
}

static bool scan_access(struct tlb *t, uint32_t key, uint32_t set, bool alloc, uint32_t due,
                        bool *ret_evicted)
{
    struct tlb_set *s = &t->set[set];
    uint32_t slot = t->where[key], from = set * t->ways;
    *ret_evicted = false;
    if (slot != TLB_NONE) {
        t->stamp[slot] = ++t->now;
        if (t->policy != POLICY_LFU)
            t->due[slot] = due;
        else if (++t->count[slot] == LFU_FULL)
            for (uint32_t i = from; i < from + s->used; i++)
                t->count[i] /= 2;
        return true;
    }
    if (!alloc)
        return false;
    if (s->used < t->ways) {
        slot = from + s->used++;
    } else {
        slot = scan_victim(t, from);
        t->where[t->key[slot]] = TLB_NONE;
        *ret_evicted = true;
    }
    t->key[slot] = key;
    t->where[key] = slot;
    t->stamp[slot] = ++t->now;
    if (t->policy == POLICY_LFU)
        t->count[slot] = 0;
    else
        t->due[slot] = due;
    return false;
}

bool tlb_slow(struct tlb *t, uint32_t key, uint32_t set, bool alloc, uint32_t due, enum tlb_who who,
              uint32_t gid)
{
    bool evicted, found = t->kind == TLB_LIST ? list_access(t, key, set, alloc, &evicted)
                                              : scan_access(t, key, set, alloc, due, &evicted);
    if (alloc)
        tlb_count(t, found, evicted, set, who, gid);
    return found;
}
