/* The child's side of a collect task: one run by the local runner, inside the task's folder.
 *
 * DIR/run.ini is made from the spec, DIR/out is the runner's folder, DIR/info.json the answer: a
 * siofleet.collection/1 document of the one run, and `files` beside it (agent/product.h).
 */
#pragma once
#include "proto/base/err.h"
#include "proto/lib/json.h"

/* run: run.json, where the spec's files lie. Returns 0, or an error of the runner; -ECANCELED after SIGTERM. */
int collect_task(const char *dir, const json_t *spec, const json_t *run, struct err *e);
