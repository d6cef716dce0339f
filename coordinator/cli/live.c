#include "coordinator/cli/live.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"

/* Four cards of 10 MB each: about ten seconds on an emulated processor. */
static const char RUN[] = "# Written by siofleet quickstart.\n"
                          "[collect]\n"
                          "profile = quick\n"
                          "nics = 4\n"
                          "\n"
                          "[workload]\n"
                          "bytes = 10M\n";

int live_collect(struct procs *ps, const char *self, const char *dir,
                 const volatile sig_atomic_t *stop, bool *kept, struct err *e)
{
    CLEANUP(freep)
    char *log = path_fmt("%s/" LIVE_LOG, dir), *out = path_fmt("%s/live", dir),
         *ini = path_fmt("%s/live.ini", dir);
    if (!log || !out || !ini)
        return err_sys(e, ENOMEM, "live collection");
    *kept = access(log, R_OK) == 0;
    if (*kept) {
        fprintf(stderr, "live: the log of an earlier run; remove %s to collect a new one\n", out);
        return 0;
    }
    /* runs appear by rename when they are whole: what else lies there is of no use */
    int r = dir_remove(out, e);
    r = r < 0 ? r : file_write(ini, RUN, sizeof(RUN) - 1, 0644, true, e);
    if (r < 0)
        return r;
    fprintf(stderr, "live: a guest with 4 network cards, collected here and now (--offline does "
                    "without)\n");
    char *argv[] = {
        (char *)(uintptr_t)self, (char *)"collect", (char *)"--local", ini, (char *)"-o", out, NULL
    };
    int status;
    r = procs_start(ps, "live collection", argv, NULL, e);
    r = r < 0 ? r : procs_wait(&ps->p[ps->n - 1], stop, &status, e);
    if (r < 0)
        return r;
    if (status || access(log, R_OK) != 0)
        return err_set(e, SF_EFAILED,
                       "live collection: ended with exit %d, its cause stands above; --offline "
                       "does without",
                       status);
    return 0;
}
