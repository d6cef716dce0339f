/* A few programs started beside a command and surely ended with it.
 *
 * Each runs in a process group of its own (a Ctrl-C on the terminal reaches the command alone, which ends the others in
 * order) and gets SIGTERM when the command dies in whatever way. The command becomes the subreaper of all of
 * them: what a child leaves behind becomes the command's child and is found and ended too.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"
#include "proto/lib/json.h"

enum { PROCS_MAX = 8 };

struct proc {
    pid_t pid; /* 0 = not running */
    char name[32];
    char *log; /* owned: file that takes its stdout and stderr; NULL = our stderr takes both */
};

struct procs {
    struct proc p[PROCS_MAX];
    size_t n;
};

/* Run argv[0] (a path). log: truncated and copied; NULL = our stderr. The new one is ps->p[ps->n - 1]. -errno. */
int procs_start(struct procs *ps, const char *name, char *const argv[], const char *log,
                struct err *e);

/* Wait until the ready file of p is there, and read it. -ETIMEDOUT; -SF_EFAILED when p ended first (e holds the last
 * line it said); -ECANCELED when *stop is set. *ret: new reference. */
int procs_ready(struct proc *p, const char *path, uint64_t timeout_ms, const volatile int *stop,
                json_t **ret, struct err *e);

/* Wait until p has ended by itself. *status: its exit status, 128 + n when a signal n ended it. -ECANCELED when *stop is set;
 * then, as ever, procs_stop() ends it. */
int procs_wait(struct proc *p, const volatile int *stop, int *status, struct err *e);

/* Whether all still run; -SF_EFAILED names the first that does not, with the last line it said. */
int procs_check(struct procs *ps, struct err *e);

/* The last line that p said, without the program's name, into out. */
void procs_said(const struct proc *p, char *out, size_t room);

/* SIGTERM the last started first, wait for each up to grace_ms, SIGTERM again, then SIGKILL; then whatever they left
 * behind. Returns how many processes had to be killed. Forgets all. */
size_t procs_stop(struct procs *ps, uint64_t grace_ms);
