/* A collection: prepare the host, run every run (several at once where they fit), publish whole results only. */
#pragma once
#include <signal.h>
#include <stdbool.h>

#include "collect/conf.h"
#include "proto/base/err.h"
#include "proto/lib/json.h"

/* Set by a signal handler of the verb: everything ends in order, with -ECANCELED. */
extern volatile sig_atomic_t collect_stop;

struct collect_opts {
    const char *
        out; /* folder of the results, made when missing; NULL = one of its own in the data folder */
    bool keep;       /* leave the last guest up until it is stopped */
    bool no_prepare; /* fail instead of building QEMU or the image */
    uint64_t jobs;   /* stacks at once; 0 = as cores and memory allow */
    /* A second name that the log has from its start, for somebody who carries it off while it grows and punches holes where
     * it has been; NULL = none. Of one run at a time. growing_text: likewise of the text beside a ring's log (tracer = both). */
    const char *growing, *growing_text;
};

/* *ret: the siofleet.collection/1 document, also when runs failed (then the return value is -SF_EFAILED with the
 * first cause); NULL when nothing was started. Owned by the caller.
 *
 * A run that OUT already holds for the same INI is kept and not made again.
 * Threads: main thread of a process without others (it forks one process a run). */
int collect_local(const struct collect_conf *c, const struct collect_opts *o, json_t **ret,
                  struct err *e);
