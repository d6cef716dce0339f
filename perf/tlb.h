/* A translation cache: sets of ways, found by dense key numbers (proto/format/trace.h), under LRU, LFU or Belady.
 *
 * Five shapes give the same answers at different cost; tlb_init() picks by geometry and by what the trace can ask for:
 *   LINE   LRU up to 16 ways: the tags of a set, most recent first, in half a cache line or a whole one
 *   ALL    no set can ever be asked for more keys than it has ways: nothing is evicted, one byte a key says it all
 *   LIST   LRU above 16 ways: a linked list in order of use, entered through a table by key
 *   SCAN   LFU and Belady: counter or next use a way, victim by a scan
 *   ABSENT no such cache: never found, nothing counted
 *
 * Rules (perf/README.md): an access with `alloc` counts and inserts; one without only refreshes what it finds.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "perf/arch.h"
#include "proto/base/err.h"

enum tlb_kind { TLB_ABSENT, TLB_ALL, TLB_LINE, TLB_LIST, TLB_SCAN };
enum { TLB_NONE = 0xffffffff, TLB_LANES = 16 };
enum tlb_who { TLB_DEMAND = 0, TLB_PREFETCH = 1 };

struct tlb_set {
    uint32_t used, first, last; /* LIST: slots of the most and the least recent key */
};

struct tlb {
    enum tlb_kind kind;
    enum arch_policy policy;
    uint32_t sets, ways;
    uint32_t lanes;        /* LINE: 8 or 16 tags a set, of which `ways` are used */
    uint8_t *seen;         /* ALL: 1 = present, by key */
    uint32_t *line;        /* LINE: keys, TLB_NONE = free; 64-byte aligned */
    uint32_t *where;       /* LIST, SCAN: slot (set * ways + way) by key, TLB_NONE = absent */
    uint32_t *key;         /* LIST, SCAN: by slot */
    uint32_t *prev, *next; /* LIST: by slot */
    struct tlb_set *set;
    uint8_t *count;  /* SCAN, LFU: 0..14 by slot */
    uint32_t *due;   /* SCAN, Belady: next use by slot */
    uint64_t *stamp; /* SCAN: last use by slot */
    uint64_t now;
    uint64_t hit[2], miss[2], conflict[2]; /* by enum tlb_who */
    uint8_t *domain;                       /* 1 = this tenant had a demand miss */
    uint64_t domains;
    uint64_t *rows; /* NULL, or demand accesses by set */
};

/* What a trace can ask of a cache: entry i uses key[i], which lives in set[i] (a key has one set).
 * Borrowed. */
struct tlb_use {
    const uint32_t *key, *set;
    uint32_t n, n_keys, n_gids;
};

/* entries 0 = absent. lanes: least width of a LINE, 8 or 16. Allocates all that accesses will need; -ENOMEM. */
int tlb_init(struct tlb *t, uint32_t entries, uint32_t ways, uint32_t lanes,
             enum arch_policy policy, const struct tlb_use *use, bool want_rows, struct err *e);
void tlb_clear(struct tlb *t);

/* LIST and SCAN. due: index of the next event with this key (Belady only). Returns whether the key
 * was found. */
bool tlb_slow(struct tlb *t, uint32_t key, uint32_t set, bool alloc, uint32_t due, enum tlb_who who,
              uint32_t gid);

static inline void tlb_count(struct tlb *t, bool found, bool evicted, uint32_t set,
                             enum tlb_who who, uint32_t gid)
{
    if (found) {
        t->hit[who]++;
    } else {
        t->miss[who]++;
        t->conflict[who] += evicted;
        if (who == TLB_DEMAND && !t->domain[gid]) {
            t->domain[gid] = 1;
            t->domains++;
        }
    }
    if (t->rows && who == TLB_DEMAND)
        t->rows[set]++;
}
