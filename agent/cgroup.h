/* A control group (version 2) for one task: its whole tree can be killed at once, and its memory, cores and number of
 * processes can be limited. Where there is none, siofleet-shim's being a subreaper does the first, less fast.
 *
 * Libc only: siofleet-shim makes and removes the group; the agent removes it when the shim was killed.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { CGROUP_PATH_MAX = 960 };

struct cgroup_limits {
    uint64_t memory_b, pids; /* 0 = none */
    uint64_t cores;          /* 0 = all */
};

/* Make the folder. A limit whose controller the folder above does not hand down is not set; *ret_limited says which
 * are: only those that were set stay non-zero. 0 or -errno. */
int cgroup_make(const char *path, const struct cgroup_limits *want,
                struct cgroup_limits *ret_limited);

/* Send SIGKILL to all in it and below it. 0; -errno: nobody was reached by it. */
int cgroup_kill(const char *path);

/* A process in it or below it lives. */
bool cgroup_populated(const char *path);

/* How often the kernel killed for want of memory in it. 0 without the controller. */
uint64_t cgroup_oom_kills(const char *path);

/* Remove it and what the task made below it; -EBUSY while somebody lives in it. 0, also when there is none. */
int cgroup_remove(const char *path);

/* Where the calling process may make groups: its own group when that hands controllers down (or is the top), else the
 * one above, which a service manager keeps for its members, else its own. Nothing is moved; at the top what can be handed
 * down is. proc: "/proc"; tests give others. ret_why: what stands in the way. 0 or -errno. */
int cgroup_base(const char *proc, char ret_path[CGROUP_PATH_MAX], char ret_why[200]);

/* What groups made in base can limit: "memory pids cpu", or less. */
void cgroup_controllers(const char *base, char out[64]);
