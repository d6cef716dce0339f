/* What only the reference needs: its engine with exact ties, its files, its command line. */
#pragma once
#include <stdbool.h>

#include "perf/arch.h"
#include "perf/engine.h"
#include "proto/base/err.h"
#include "proto/format/row.h"
#include "proto/format/trace.h"

/* engine_run() for RULES_HYPERSIO; the same contract. Cost: 15 to 300 ns an event. */
int compat_engine_run(const struct trace *t, const struct arch *a, struct row_stats *ret,
                      struct engine_detail *detail, struct err *e);

/* Prefetches that vanish at a page cache, in order: entries of the trace. Owned array. */
struct compat_vanished {
    uint32_t *entry;
    size_t n, room;
    size_t playing; /* that many before the trace was read to its end */
};
/* The same, and lists them; ret is cleared by the caller (free entry). */
int compat_engine_list(const struct trace *t, const struct arch *a, struct row_stats *row,
                       struct engine_detail *detail, struct compat_vanished *ret, struct err *e);

/* The three files `<dir>/<prefix>_{iotlb_trace,cc_data,slpt_data}.bin`. The trace needs offsets and export data. */
int compat_files_write(const struct trace *t, const char *dir, const char *prefix, struct err *e);
enum {
    COMPAT_WITH_OFFSETS = 1,
    COMPAT_WITH_NEXT = 2, /* next accesses, for POLICY_ORACLE */
    COMPAT_EACH_EVENT = 4 /* an entry for each event, with its whole address */
};
/* Reads the translations only (the engine needs no more), with keys. -SF_EFORMAT for records that no trace has. */
int compat_files_read(const char *dir, const char *prefix, unsigned with, struct trace **ret,
                      struct err *e);

/* Order in which the reference prints flows: indices into detail->flows. ret: n_flows places. 0 or -ENOMEM. */
int compat_flow_order(const struct engine_detail *d, uint32_t *ret);

/* The drop-in program. Returns the exit status. */
int hypersio_perf_main(int argc, char **argv);
