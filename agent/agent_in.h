/* Inside of the agent: what agent.c (start, messages, the loop), agent_act.c (what the core wants done), agent_bulk.c
 * (inputs and products) and agent_runs.c (tasks as runs of this process) share. One thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/cgroup.h"
#include "agent/core.h"
#include "agent/facts.h"
#include "agent/grow.h"
#include "agent/product.h"
#include "agent/runner.h"
#include "agent/spool.h"
#include "proto/base/buf.h"
#include "proto/base/space.h"
#include "proto/base/trips.h"
#include "proto/bulk/bulk.h"
#include "proto/cas/cas.h"
#include "proto/link/keys.h"
#include "proto/link/link.h"
#include "proto/xfer/drive.h"

enum {
    AGENT_EVENTS_MAX = 1024, /* of the core, waiting */
    COORDINATOR = 1,         /* its peer id on a client's link */
};

/* A task as this process knows it, beside the core's view. */
struct run {
    bool used;
    struct run_grant g;
    char *dir;
    struct id *inputs;
    uint64_t *sizes; /* of the inputs, bytes; 0 = not known yet */
    size_t n_inputs;
    bool pinned, fetching;
    int pidfd;     /* -1 = none */
    bool adopting; /* its shim lives but has not said its number yet */
    bool looked_damaged;
    bool over; /* its end is decided: what it left is at the coordinator, or not wanted */
    struct spool *spool;
    struct spool_end end;
    struct products products;
    bool offering;
    struct grow *grow[GROW_FILES]; /* logs that leave while they grow; NULL = none */
};

/* What the coordinator was told that is here. */
struct holds {
    struct wire_held *told; /* by id; owned */
    size_t n_told, seen_n;
    uint64_t seen_b, next_ms;
    bool anew; /* nothing, yet */
};

enum { DISK_DATA, DISK_TASKS, DISK_CACHE, AGENT_DISKS };
struct agent_disk {
    const char *dir; /* borrowed */
    struct space space;
};

struct agent {
    const struct agent_conf *conf;
    char name[KEY_NAME_LEN];
    int lock_fd, sig_fd;
    uint8_t install[16], session[16];
    uint64_t boot;
    char *data, *program, *shim, *tasks, *cache; /* absolute */
    char groups[CGROUP_PATH_MAX];                /* where tasks get control groups; "" = nowhere */
    struct run_host host;                        /* of the paths above */
    struct stat program_st;
    struct id engine;
    struct facts facts;
    char host_boot[FACTS_BOOT];
    char *facts_text;
    struct key_pair key;
    struct key_pub server;
    struct link *link;
    struct cas *cas;
    struct bulk *bulk; /* NULL = everything goes over the link */
    struct xfers *xfers;
    struct core core;
    struct run runs[CORE_TASKS_MAX];
    struct core_event events[AGENT_EVENTS_MAX];
    size_t n_events;
    const struct msg_grant *grant; /* during its event */
    uint64_t features;             /* of the coordinator */
    struct holds holds;
    bool replaced, inputs_moved, welcomed, exit_now, drain_cut;
    uint64_t offers; /* made so far: each needs a number of its own */
    uint64_t drain_ms, retry_ms, start_ms, refused_log_ms;
    uint64_t sweep_ms; /* when folders of no task are to be removed; 0 = there are none */
    bool absent_told;
    struct agent_disk disks[AGENT_DISKS]; /* its folders that may be file systems of their own */
    struct space space;                   /* of the one with the least */
    uint64_t space_ms;                    /* the next look */
    uint64_t offer_again_ms;     /* the coordinator had no space for a product; 0 = it had */
    struct trips beats, results; /* on this connection, and those before it */
    struct err fatal;
    struct buf block, packed; /* of rows on their way */
    struct wire_row *rows; /* CORE_BATCH */
    struct wire_task_ref refs[CORE_TASKS_MAX];
};

/* ---- agent_act.c */

/* Add an event for the core; worked off before the loop waits again. */
void agent_push(struct agent *a, struct core_event ev);
/* One event now, and what the core wants done for it. */
void agent_step(struct agent *a, const struct core_event *ev);
/* All that wait; actions add events, these too. */
void agent_work_off(struct agent *a);
int agent_send_decline(struct agent *a, const struct core_action *act);
/* The program file was replaced since this agent hashed it: its results would carry the wrong engine. It takes nothing
 * new then; a restart, which takes over what runs, is for whoever replaced it. */
bool agent_program_changed(struct agent *a);

/* ---- agent_bulk.c */

/* The transfers to and from a->cas. */
int agent_xfers_open(struct agent *a, struct err *e);
/* Ask for what is missing; READY once nothing is. Everything is pinned together, so that two tasks with inputs larger
 * than the cache cannot take each other's away one by one. */
void agent_get_inputs(struct agent *a, struct run *r);
/* Offer what the task left, a few at a time; MADE once the coordinator has all of it. Called again whenever a transfer
 * has ended. */
void agent_offer_products(struct agent *a, struct run *r);
/* Inputs and products may leave the cache. */
void agent_unpin(struct agent *a, struct run *r);

/* ---- holds.c */

/* A new connection: the coordinator knows nothing. */
void agent_holds_up(struct agent *a);
/* Tell it what has changed, soon after. */
void agent_holds_tell(struct agent *a);
void agent_holds_clear(struct agent *a);

/* ---- agent_runs.c */

/* Borrowed until agent_run_clear(); NULL = none, or no room. */
struct run *agent_run_find(struct agent *a, const struct task_key *key);
struct run *agent_run_new(struct agent *a, const struct run_grant *g);
void agent_run_clear(struct agent *a, struct run *r);
/* Why a task cannot go on, for task_end.tail. */
void agent_run_why(struct run *r, const char *text);
/* The same, and tell the core. code: an error's. */
void agent_run_cannot(struct agent *a, struct run *r, int code, const char *text);
enum task_cause agent_cause_of(int code);
/* New rows and ends of all that run. */
void agent_look_at_runs(struct agent *a);
/* Take over what the tasks folder holds. */
int agent_adopt_runs(struct agent *a, struct err *e);
/* Folders that are no task's here go: what the disk would not let be made, removed or taken over. _soon: not now, the
 * disk needs time. */
void agent_sweep_soon(struct agent *a);
void agent_sweep_folders(struct agent *a);

/* ---- agent_space.c */

/* Look at the disks now and then: below the high-water mark the cache gives way, then nothing new is taken; below the
 * low-water mark tasks wait by themselves (agent/task.c). */
/* Once its folders are there: which to look at, and what tasks are told of the marks. */
void agent_disks(struct agent *a);
void agent_look_at_space(struct agent *a);
