/* Verbs of this folder. */
#pragma once
#include "proto/lib/cli.h"

extern const struct verb log_verbs[];   /* log import, cat, info */
extern const struct verb trace_verbs[]; /* trace build, info, export, import */
extern const struct verb perf_verbs[];  /* perf run, sweep, mrc */
