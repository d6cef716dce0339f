/* The quickstart's own log: a guest with four network cards, collected on this host. */
#pragma once
#include <signal.h>
#include <stdbool.h>

#include "coordinator/cli/procs.h"
#include "proto/base/err.h"

/* Path of the log below the quickstart's folder. */
#define LIVE_LOG "live/run-0001/log.slog"

/* Have DIR/LIVE_LOG: what an earlier run left, else collected now by `SELF collect --local`, whose progress goes to stderr
 * (minutes when QEMU must be built first). kept: set when it was there already. Returns 0, -ECANCELED when *stop is set,
 * or -SF_EFAILED; what the collection said stands on stderr by then. */
int live_collect(struct procs *ps, const char *self, const char *dir,
                 const volatile sig_atomic_t *stop, bool *kept, struct err *e);
