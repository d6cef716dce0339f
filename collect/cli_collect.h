/* Verbs `collect`, `collect init`, and `vm ...`. */
#pragma once
#include <stdbool.h>

#include "proto/lib/cli.h"

extern const struct verb collect_verbs[]; /* ends with a NULL name */
extern const struct verb vm_verbs[];

/* How `collect RUN.ini` without --local reaches a fleet: set by the program that has one (collect itself knows none).
 * argv: the INI. Returns the exit status. */
extern int (*collect_on_fleet)(struct cli *c, const char *ini, bool detach);
