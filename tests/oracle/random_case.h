/* Random traces and architectures for comparing an engine with its twin. Same seed, same case. */
#pragma once
#include "perf/arch.h"
#include "proto/base/rng.h"
#include "proto/format/trace.h"

/* Up to `most` events over few tenants; with keys and next accesses. Owned. Aborts without memory. */
struct trace *random_trace(struct rng *r, uint64_t most);

/* A geometry that arch_check(RULES_MODEL) passes, small enough that caches overflow. */
void random_arch(struct rng *r, struct arch *a);

/* A trace of given entries and events: both copied. Owned, with keys and next accesses. */
struct trace *trace_of(const struct trace_entry *entry, uint32_t n_entries, const uint32_t *ev,
                       uint64_t n);
