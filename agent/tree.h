/* Processes as /proc shows them, and signals that cannot hit the wrong one.
 *
 * A number in hand may have become another process by the time it is used. So a signal goes through a pidfd, after the
 * process behind it was looked at once more: its start time, or the mark it carries.
 *
 * A mark names the task a process belongs to and comes with every fork and exec: a limit on the time of real-time
 * threads of more than 140,000 years, whose value is the mark. It survives what an environment, a session, a working
 * directory and open files do not (env -i, setsid, double fork, closing everything). Nobody needs rights for it; only
 * a host that already limits real-time threads has no room for it, and then the environment is all there is.
 *
 * Libc only: siofleet-shim uses it too.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc {
    pid_t pid, ppid;
    char state;     /* 'R', 'S', 'Z' ... */
    uint64_t start; /* ticks since boot */
};

/* 0, or -1 when there is no such process. */
int proc_look(pid_t pid, struct proc *ret);

/* The caller's descendants, parents before their children, at most max. Returns how many there are; what does not fit
 * is found by a later call. Cost: a file a process of the host. */
size_t tree_list(struct proc out[], size_t max);

/* Send sig to the process that p shows. Returns 0, or -1 when that one is gone. */
int proc_signal(const struct proc *p, int sig);

enum { MARK_BITS = 61 };
/* A mark from a name: 1 .. 2^61-1. */
uint64_t mark_of(const char *name, uint64_t dev, uint64_t ino);
/* The calling process and all that come of it carry it from now on. 0, or -1: no room for it here. */
int mark_set(uint64_t mark);
/* That of a process; 0 = it has none. */
uint64_t mark_get(pid_t pid);
