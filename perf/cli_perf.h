/* Verbs of this folder. */
#pragma once
#include "proto/lib/cli.h"

extern const struct verb log_verbs[];   /* log import, cat, info */
extern const struct verb trace_verbs[]; /* trace build, info, export, import */
extern const struct verb perf_verbs[];  /* perf run, sweep, mrc */

/* cli_sweep.c, for the table in cli_perf.c */
struct perf_sweep_opts {
    struct opt_u64 threads;
    bool json, jsonl, csv, force;
    const char *out;
};
extern const struct opt perf_sweep_options[];
int perf_sweep(struct cli *c, void *opts, int argc, char **argv);
