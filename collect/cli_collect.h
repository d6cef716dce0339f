/* Verbs `collect`, `collect init`, and `vm ...`. */
#pragma once
#include <stdbool.h>

#include "proto/lib/cli.h"

extern const struct verb collect_verbs[]; /* ends with a NULL name */
extern const struct verb vm_verbs[];

/* What `collect RUN.ini` without --local was asked for. */
struct collect_fleet {
    const char *ini, *out, *labels, *request_id;
    const char *connect, *server_key, *key;
    bool detach, plan, again;
};
/* How it reaches a fleet: set by the program that has one (collect itself knows none). Returns the exit status. */
extern int (*collect_on_fleet)(struct cli *c, const struct collect_fleet *f);

/* The runs of a siofleet.collection/1 document as a table. */
void collect_print(const json_t *doc);
