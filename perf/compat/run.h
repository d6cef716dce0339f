/* Inside of the engine under hypersio rules: what setup (engine.c) hands to the loop (loop.h, compiled once an
 * instruction set). Nothing outside perf/compat includes this. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/arch.h"
#include "perf/compat/compat.h"
#include "perf/compat/crand.h"
#include "perf/compat/hashord.h"
#include "proto/format/trace.h"

enum {
    PCIE = 450, /* ns one way */
    DRAM = 50,
    CC_HIT = 1,
    CC_MISS = 1000,
    TLB_HIT = 2,
    PAGE_HIT = 5,
    PACKET_BITS = 12336,
    PER_PACKET = 3,
};
#define EMPTY UINT32_MAX

/* What a look-up needs of a trace entry, made once for each run. */
struct ent {
    uint32_t page, io, l2, l3, addr; /* keys; io: one for each (page, set) */
    uint32_t sid, gid;
    uint32_t set_cc, set_io, set_l2, set_l3;
    uint16_t level, fill; /* fill: FILL_*, where salloc lets it be allocated */
};
enum { FILL_IO = 1, FILL_L2 = 2, FILL_L3 = 4 };

enum cache_kind {
    CACHE_NONE,
    CACHE_KEEPS, /* never evicts: a byte a key */
    CACHE_LINE8, /* LRU, at most 8 ways: keys in recency order in 32 bytes */
    CACHE_LINE16,
    CACHE_LIST, /* LRU with more ways: linked nodes, one a key */
    CACHE_HASH, /* LFU and oracle: the reference's hash order decides */
};

/* One set of a CACHE_HASH. */
struct hset {
    struct hashord t;
    uint32_t *key;   /* 1..ways; EMPTY = free */
    uint64_t *value; /* LFU: counter; oracle: next access */
    uint32_t free;   /* element that the last eviction left */
};

struct cache {
    enum cache_kind kind;
    bool lfu;
    uint32_t sets, ways;
    uint32_t *line; /* LINE8, LINE16: sets x 8 or 16 keys, EMPTY at the end */
    uint8_t *seen;  /* KEEPS, LIST: by key */
    struct node {
        uint32_t up, down; /* towards the most and the least recent */
    } * node;              /* LIST: by key, then a head a set */
    uint32_t *filled;      /* LIST: keys in each set */
    uint32_t keys;
    struct hset *set; /* HASH */
    void *pool;
    uint64_t *hash; /* HASH: by entry */
    struct crand *random;
    /* counted: accesses with allocation are the sum of rows */
    uint64_t miss, conflict;
    uint64_t *rows; /* by set */
    uint8_t *used;  /* by GID */
};

/* Items are time << 32 | payload; only times are compared. Heap: a[0] is the top, all places behind the last item hold
 * all ones, and there are twice as many as needed, so that nothing has to ask whether a child exists. FIFO: a ring. */
struct queue {
    uint64_t *a;
    uint32_t n, room, first;
};
#define NO_ITEM UINT64_MAX
#define PREFETCH                                                                                   \
    (1u << 31) /* of a payload: the rest is an entry; else it is a number of a demand */

struct demand {
    uint64_t start; /* ns */
    uint32_t ent, ev;
    uint32_t latency; /* nominal, so far */
};

struct flow {
    uint64_t first, last, n;
};

enum { HIST_NEAR = 4 };

/* The prefetcher's view of a source-id. A history item is entry | address key << 32. */
struct requester {
    uint32_t succ;  /* EMPTY = none yet */
    uint32_t n, at; /* filled; place of the oldest */
    uint64_t hit, miss;
    uint64_t hist[HIST_NEAR]; /* up to HIST_NEAR items, longer histories stand elsewhere */
};

struct run {
    const struct trace *t;
    const struct arch *a;
    bool general; /* the loop for usual architectures had no room */
    struct ent *ent;
    struct crand random;
    struct cache cc, io, l2, l3, buf;
    struct queue qc, qp, qf, qi;
    struct demand *demand;
    uint32_t *idle; /* numbers of unused demands */
    uint32_t n_idle;

    struct requester *req; /* by SID */
    uint64_t *hist;        /* SID x history; NULL when they fit into req */
    uint32_t *fifo;        /* the last SIDs */

    struct flow *flow;
    uint32_t *flow_order, n_flows;

    uint64_t time, requests, pkts_sent, dropped, warnings;
    struct compat_vanished *vanished; /* borrowed, NULL = only counted */
    uint64_t predictions, correct, incorrect, new_mappings, same_sid, diff_sid;
    uint64_t fills, fills_same, buf_hit;
};

/* Runs to the end; fills the counters. 0, -ENOMEM, -SF_EFAILED (a demand translation vanished), -EOVERFLOW, -E2BIG (start again with
 * `general`). The part of it for usual architectures stands apart. */
int compat_loop_scalar(struct run *s);
int compat_loop_avx2(struct run *s);
int compat_loop_avx512(struct run *s);
int compat_usual_scalar(struct run *s);
int compat_usual_avx2(struct run *s);
int compat_usual_avx512(struct run *s);

/* One more that vanished: 0 or -ENOMEM. */
int compat_vanish(struct compat_vanished *v, uint32_t en, bool ended);

/* The slow kinds, and what a queue does when it is full. */
bool compat_access_slow(struct cache *c, uint32_t en, uint32_t key, uint32_t set, uint64_t next,
                        uint32_t gid, bool alloc);
struct queue compat_queue_more(struct queue q, bool fifo); /* room 0 without memory */
