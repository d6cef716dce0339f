/* Results straight from a coordinator's folder, read-only, whether one is running there or not. */
#pragma once
#include "proto/base/err.h"
#include "proto/lib/json.h"

/* The same question as `ask` of a running coordinator, answered in the same parts.
 *
 * dir   the coordinator's --data
 * what  "results" or "sql"
 * args  as in `ask`: {"sweeps":[...],"where":[["COLUMN","VALUE"],...],"provenance":bool} or {"sql":TEXT}; borrowed
 * part  gets each {"columns":[...],"rows":[[...]]} (borrowed); a negative return ends the question with that
 *
 * Returns 0; -SF_EUSAGE for an unknown column or what is not one SELECT over the views; -ENOENT and other -errno when
 * there is no store; -SF_EFORMAT for a store of a newer version. Never writes. */
int results_local(const char *dir, const char *what, const json_t *args,
                  int (*part)(void *ctx, json_t *body, struct err *e), void *ctx, struct err *e);
