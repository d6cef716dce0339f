/* The plain twin of the model engine: perf/README.md word by word, one access at a time, linear searches everywhere.
 * For comparing, not for use: O(events x everything). Aborts without memory. */
#pragma once
#include "perf/arch.h"
#include "proto/format/row.h"
#include "proto/format/trace.h"

/* What --detail shows, in the twin's own plain form; NULL where not wanted. */
struct twin_detail {
    uint64_t *rows[4]; /* owned: CC, IOTLB, L2PAGE, L3PAGE */
    size_t n_rows[4];
    uint64_t *flow_first, *flow_last, *flow_n; /* by tenant, owned */
};
void twin_detail_clear(struct twin_detail *d);

void model_twin(const struct trace *t, const struct arch *a, struct row_stats *ret,
                struct twin_detail *detail);

/* The same with one deviation of perf/README.md's table put back, by its number: 1, 2, 14, 15, 17 to 22, 38 (2: ties by a random number of
 * ours, which is as good as the reference's). 0 = none. */
void model_twin_back(const struct trace *t, const struct arch *a, unsigned back,
                     struct row_stats *ret, struct twin_detail *detail);
