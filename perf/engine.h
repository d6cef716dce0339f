/* The performance model: one trace through one architecture. Two rule sets, see perf/README.md. */
#pragma once
#include "perf/arch.h"
#include "proto/base/err.h"
#include "proto/format/row.h"
#include "proto/format/trace.h"

/* Per-tenant, per-set and per-SID figures that only --detail and hypersio-perf print; owned arrays. */
struct engine_detail {
    struct engine_flow {
        uint32_t gid;
        uint64_t time_ps, trans, bw_mbps;
    } *flows; /* in order of first completion */
    size_t n_flows;
    uint64_t *rows[4]; /* accesses with allocation by set: CC, IOTLB, L2PAGE, L3PAGE */
    size_t n_rows[4];
    struct engine_hist {
        uint32_t sid;
        uint64_t hit, miss;
    } *hist; /* by SID ascending */
    size_t n_hist;
    uint64_t warnings; /* vanished prefetch translations (hypersio rules) */
};
void engine_detail_clear(struct engine_detail *d);

/* One run.
 *
 * t        borrowed, read only, shared by any number of threads; with keys; with next access times for POLICY_ORACLE
 * a        passes arch_check() for the rules
 * ret      filled on success
 * detail   NULL, or filled (clear it with engine_detail_clear)
 *
 * Returns 0, or -SF_EFAILED where the run could never end (hypersio rules: a demand translation vanishes).
 * Threads  any, each with its own ret. Results depend on trace, rules and architecture only.
 * Cost     O(n); allocates before the loop, never in it.
 */
int engine_run(const struct trace *t, const struct arch *a, enum rules rules, struct row_stats *ret,
               struct engine_detail *detail, struct err *e);
