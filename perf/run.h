/* Many architecture points on the cores of one host. Rows do not depend on the number of threads. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "perf/arch.h"
#include "proto/format/row.h"
#include "proto/format/trace.h"

struct point_result {
    enum row_status status; /* ROW_INVALID: arch_check() refused it */
    struct row_stats stats;
    char error[256];      /* "" when done */
    int code;             /* 0, or what the engine returned: -ENOMEM says nothing about the point */
    uint64_t duration_us; /* with the pace */
};

/* A point of one of several traces. */
struct point_job {
    struct trace *trace; /* borrowed; shared by any number of jobs */
    struct arch arch;
};

/* Run n jobs, the longest first. threads 0 = all cores. pace_ms: a point takes at least this long (demos, tests).
 * done is called once a job, one call at a time, in order of completion, from any thread; what it returns other than
 * 0 stops the rest (running ones end, their rows are dropped) and is returned. */
int run_jobs(const struct point_job jobs[], size_t n, enum rules rules, unsigned threads,
             uint64_t pace_ms, int (*done)(void *user, size_t i, const struct point_result *r),
             void *user, struct err *e);

/* The same for points of one trace: what a task of an agent is. */
int run_points(struct trace *t, enum rules rules, const struct arch archs[], size_t n,
               unsigned threads, uint64_t pace_ms,
               int (*done)(void *user, size_t i, const struct point_result *r), void *user,
               struct err *e);
