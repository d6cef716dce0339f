/* State folders of running stacks: `vm ls`, `vm console`, `vm stop`, and the sweep of what a crash left behind.
 *
 * A folder CACHE/vm/ID holds "lock" (held by the runner for as long as it lives), "vm.json", "pids" and "console".
 */
#pragma once
#include "proto/base/err.h"
#include "proto/lib/json.h"

struct vm_state {
    char *dir; /* owned */
    char id[17];
    int lock_fd;
};

/* part: folder that a sweep may remove should the runner die; must be named ".run-*.part". */
int vm_register(const char *profile, const char *collection, unsigned run, const char *part,
                struct vm_state *ret, struct err *e);
void vm_unregister(struct vm_state *v); /* accepts a zeroed one with lock_fd -1 */

/* End processes and remove folders of runners that are gone. Processes are told by pid and start time. */
void vm_sweep(void);

/* [{id,collection,run,profile,pid,started}] of live stacks; new reference. */
json_t *vm_list(void);
/* prefix: of an id; NULL = the only one. -ENOENT with a clear text when none or several match. */
int vm_find(const char *prefix, json_t **ret, struct err *e);
/* SIGTERM to the runner; waits until it is gone, at most 30 s. */
int vm_stop(const json_t *vm, struct err *e);
/* Becomes ssh into the guest; returns only with an error. */
int vm_ssh(const json_t *vm, int argc, char **args, struct err *e);
/* Joins the terminal with the guest's console until the guest or the input ends (^] leaves). */
int vm_console(const json_t *vm, struct err *e);
