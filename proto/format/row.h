/* A statistics row: what one architecture point of one trace yields. The list below is the only place where its
 * numbers are named: it gives the struct, the bytes on the wire and in the store, JSON, CSV and SQL columns.
 *
 * Content only: nothing here depends on host, time, thread count or attempt.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"

/* X(name): u64 each. Times in ps, rates in Mb/s, ratios in ppm, the rest counts. Append only: old stores keep their order. */
#define ROW_STATS(X)                                                                               \
    X(time_ps)                                                                                     \
    X(requests)     /* translations read from the trace */                                         \
    X(pkts_sent)    /* packets admitted, a last partial one included */                            \
    X(pkts_dropped) /* slots refused because the translation queue was full */                     \
    X(mbps)                                                                                        \
    X(util_ppm) /* 10^6 x exact Mb/s / (1000 link_gbps); may pass 10^6 under hypersio rules */     \
    X(cc_hit)                                                                                      \
    X(cc_miss)                                                                                     \
    X(cc_conflict)                                                                                 \
    X(cc_domains)                                                                                  \
    X(iotlb_hit)                                                                                   \
    X(iotlb_miss)                                                                                  \
    X(iotlb_conflict)                                                                              \
    X(iotlb_domains)                                                                               \
    X(l2_hit)                                                                                      \
    X(l2_miss)                                                                                     \
    X(l2_conflict)                                                                                 \
    X(l2_domains)                                                                                  \
    X(l3_hit)                                                                                      \
    X(l3_miss)                                                                                     \
    X(l3_conflict)                                                                                 \
    X(l3_domains)                                                                                  \
    X(pf_accesses)                                                                                 \
    X(pf_predictions)                                                                              \
    X(pf_correct)                                                                                  \
    X(pf_incorrect)                                                                                \
    X(pf_same_sid)                                                                                 \
    X(pf_diff_sid)                                                                                 \
    X(pf_new_mappings)                                                                             \
    X(pf_size) /* entries of the prefetch buffer */                                                \
    X(pf_fill)                                                                                     \
    X(pf_fill_same)                                                                                \
    X(pf_hit)                                                                                      \
    X(pf_miss)                                                                                     \
    X(jain_ppm) /* fairness of per-tenant throughput */                                            \
    X(min_flow_mbps)                                                                               \
    X(max_flow_mbps)                                                                               \
    X(pf_dropped) /* prefetches not made: too many under way (model rules) */                      \
    X(pf_l2_hit)  /* fills by prefetches, which l2_* and l3_* leave out under model rules */       \
    X(pf_l2_miss)                                                                                  \
    X(pf_l2_conflict)                                                                              \
    X(pf_l3_hit)                                                                                   \
    X(pf_l3_miss)                                                                                  \
    X(pf_l3_conflict)

struct row_stats {
#define X(name) uint64_t name;
    ROW_STATS(X)
#undef X
};

enum { ROW_STATS_N = sizeof(struct row_stats) / sizeof(uint64_t) };

/* Names in order, for columns; ROW_STATS_N of them. */
extern const char *const row_stats_names[ROW_STATS_N];

/* Fixed little-endian bytes: on the wire, in the store, and what two results are compared by. */
enum { ROW_STATS_BYTES = 8 * ROW_STATS_N };
void row_stats_pack(const struct row_stats *s, uint8_t out[ROW_STATS_BYTES]);
/* n must be ROW_STATS_BYTES; a shorter, older form is filled with 0. Returns 0 or -SF_EINTEGRITY. */
int row_stats_unpack(const void *p, size_t n, struct row_stats *ret, struct err *e);

/* The same for the wire: most numbers of a row are small, many 0. How many bytes of a bitmap follow; these, of which bit i tells
 * that number i is not 0, without 0 at their end; then each such number as LEB128. A row has one such form. */
enum { ROW_STATS_SHORT_MAX = 1 + (ROW_STATS_N + 7) / 8 + 10 * ROW_STATS_N };
/* Returns the bytes used. */
size_t row_stats_shorten(const struct row_stats *s, uint8_t out[ROW_STATS_SHORT_MAX]);
/* Moves *p behind it; false for what is no such form, or has a number that this program does not know. ret may be NULL. */
bool row_stats_lengthen(const uint8_t **p, const uint8_t *end, struct row_stats *ret);

enum row_status { ROW_DONE = 0, ROW_FAILED = 1, ROW_INVALID = 2 };
