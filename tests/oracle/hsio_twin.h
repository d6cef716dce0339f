/* The plain twin of the engine under hypersio rules: every nanosecond, every list searched from its front, straight from
 * the description of the reference. For comparing, not for use. Aborts without memory. */
#pragma once
#include "perf/arch.h"
#include "perf/engine.h"
#include "proto/format/row.h"
#include "proto/format/trace.h"

/* Fills all but the fairness columns. d: engine_detail_clear(). Returns 0, or -1 when the run would never end. */
int hsio_twin(const struct trace *t, const struct arch *a, struct row_stats *ret,
              struct engine_detail *d);
