/* Miss-ratio curves: what a cache of every size would miss, from one pass over a trace.
 *
 * An LRU cache of s entries hits an access if fewer than s other pages were used since its page was used last (Mattson et al.,
 * 1970): the stack distance. So a histogram of distances is the curve over all sizes, and one of distances
 * inside the sets of a cache is the curve over all associativities. Sampling by page (SHARDS, Waldspurger et al., FAST '15) needs a hundredth of
 * the work. Pages are the IOTLB's keys: (iova & mask, tenant). In trace order: no prefetch, no probe.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/format/trace.h"

enum { MRC_GROUPS = 64 }; /* the sample falls into this many parts, whose spread tells the error */

struct mrc {
    uint64_t events;
    uint64_t cold;   /* first uses: missed by any size */
    uint64_t *count; /* by distance 0 .. n-1; owned */
    size_t n;
    uint64_t sets;    /* 1 = full */
    uint64_t ppm;     /* of the pages that were looked at; 10^6 = all, exact */
    uint64_t sampled; /* accesses to them */
    /* of a sample, by group (group_count: by distance and group); owned, else NULL */
    uint64_t *group_count, *group_cold, *group_uses;
};
void mrc_clear(struct mrc *m);

/* Full associativity, exact. Cost: about 10 ns an event, 4 B a page and a counter a page. Returns 0 or -ENOMEM. */
int mrc_full(const struct trace *t, struct mrc *ret, struct err *e);

/* All associativities of a cache of `sets` sets (a power of two) indexed by iova >> 21, exact. 4 B an event. -SF_EUSAGE for other counts. */
int mrc_sets(const struct trace *t, uint64_t sets, struct mrc *ret, struct err *e);

/* Full associativity from `ppm` millionths of the pages, chosen by a fixed hash. -SF_EUSAGE outside 1 .. 10^6. */
int mrc_sample(const struct trace *t, uint64_t ppm, struct mrc *ret, struct err *e);

struct mrc_point {
    uint64_t entries, ways;
    uint64_t miss_ppm;
    uint64_t
        err_ppm; /* 0 = exact; else half the width of a band that holds the truth in 95 of 100 cases */
};

/* The curve at one size: entries of a full cache, ways of a set otherwise. */
struct mrc_point mrc_at(const struct mrc *m, uint64_t size);

/* Sizes worth showing: powers of two and the steps 1.25, 1.5 and 1.75 between them, up to the first that holds everything. Into
 * sizes[], at most `most`; returns their number. */
size_t mrc_sizes(const struct mrc *m, uint64_t sizes[], size_t most);
