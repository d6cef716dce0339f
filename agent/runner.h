/* Tasks as folders and processes: what the core decides, done.
 *
 * DATA/tasks/TASK-EPOCH-N/ holds all of a task, so that a restarted agent finds everything by looking:
 *     grant      JSON: what was granted, by which engine it runs, and in which boot of the host
 *     spec.json  the task itself, as granted
 *     run.json   made at its start: threads, where its inputs lie (not for a command)
 *     lock status stdout stderr       of siofleet-shim (shim.c)
 *     rows acked end                  of spool.h
 *     product info.json               what a trace task made; info.json and out/ are a collection's
 *     tmp/       TMPDIR of the task
 *     cwd/       a command's folder
 * The folder appears by rename with grant and spec in it. lock exists from just before the start on.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/core.h"
#include "agent/facts.h"
#include "agent/spool.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/lib/hash.h"
#include "proto/lib/json.h"

struct run_grant {
    struct task_key key;
    enum core_kind kind;
    struct id sweep, engine, trace; /* trace: of a points task, else zero */
    uint64_t timeout_ms, points, threads;
    char host_boot[FACTS_BOOT]; /* of the host, when it was granted */
};

int run_kind_parse(const char *name); /* "points" -> CORE_POINTS; -EINVAL */

/* Make the folder; *ret_dir is owned. -ENOSPC, -errno. An existing one is -EEXIST. */
int run_create(const char *tasks, const struct run_grant *g, const void *spec, size_t n,
               char **ret_dir, struct err *e);
int run_load(const char *dir, struct run_grant *ret, struct err *e);
int run_load_spec(const char *dir, struct buf *ret, struct err *e);

/* Processes and threads of a task: above it a cgroup refuses more; without one the shim ends the task. */
enum { RUN_PIDS_MAX = 4096 };

enum run_state {
    RUN_FRESH, /* never started; or, when the host has come up anew since, perhaps: nothing here is synced */
    RUN_ALIVE,  /* its shim lives */
    RUN_EXITED, /* status is there */
    RUN_LOST,   /* started, no shim, no status: killed, or the host went down */
    RUN_OVER,   /* end is there */
};
enum run_state run_look(const char *dir);

/* What this host runs tasks with. */
struct run_host {
    const char *shim, *program; /* absolute */
    const char *groups; /* tasks get control groups in it (cgroup.h); NULL = no groups here */
};

/* Start `program __task DIR`, or a command itself, under the shim. dir: absolute. *ret_pidfd becomes readable when the
 * shim ends. inputs: artefact ids and where they lie. */
int run_start(const char *dir, const struct run_grant *g, const struct run_host *h,
              const struct id inputs[], char *const paths[], size_t n, int *ret_pidfd,
              struct err *e);

/* pidfd of a living shim that somebody else started. -EAGAIN: it lives, but has not said its number yet; -ESRCH. */
int run_adopt(const char *dir, int *ret_pidfd);

/* Ask the shim to end its task; hard = do not wait for it. Nothing to do is no error. */
void run_stop(int pidfd, bool hard);

/* The task's shim has ended: reap it if it is ours, kill what it left if it was killed itself, and read how the task
 * ended (tail: from its stderr). *ret is filled always: without a readable status the cause is lost. */
void run_finish(const char *dir, enum core_kind kind, const struct run_host *h, int pidfd,
                struct spool_end *ret);

/* The child's side: exit statuses that mean more than "failed"; not those of a command, which are its own. */
enum { RUN_EXIT_INTEGRITY = 4, RUN_EXIT_RECIPE = 22, RUN_EXIT_SPACE = 28 };
