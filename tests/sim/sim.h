/* A whole fleet in one process on virtual time: what the parts of the simulator share.
 *
 * A part is a process of the fleet: the coordinator, an agent, a user's command, a task's child. Its real main function
 * runs on a fiber of its own; whenever it would wait, it is put to sleep until virtual time has come or something arrived.
 * A host owns a disk (disk.h) and a wall clock. Killing a part lets its code run on to its next wait, but from that
 * moment on nothing that it does reaches disk or network: exactly what a kill between two system calls leaves behind,
 * and its memory is still freed by its own code.
 *
 * One world at a time; one thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/base/rng.h"
#include "tests/sim/disk.h"
#include "tests/sim/plan.h"

enum { HOSTS_MAX = 12, COORDINATOR_HOST = 0, USER_HOST = 1, FIRST_AGENT_HOST = 2 };

enum part_kind { PART_COORDINATOR, PART_AGENT, PART_USER, PART_TASK };

struct fiber;
struct id;
struct link;

struct part {
    enum part_kind kind;
    unsigned host;
    char name[16];
    void (*main)(struct part *p); /* its code; returns when the process ends */
    void *arg;                    /* main's; freed with free() at the end of the world */
    struct fiber *fiber;          /* NULL = ended */
    bool dead;                    /* killed: what it still does has no effect */
    bool waiting;
    uint64_t wake_ms, wake_gen; /* while waiting */
    uint64_t frozen_until_ms;
    unsigned signals; /* SIGTERMs not yet read */
    int exit;
    struct link *links;
    struct ofd *lock; /* of a task: what its shim holds */
    char dir[256];    /* of a task */
    uint64_t pid;
    struct part *next; /* of the world */
};

struct host {
    char name[8];
    struct disk *disk;
    int64_t wall_off_ms;
    uint64_t boot_ms;                /* when it was switched on */
    uint64_t slow_until_ms, slow_ms; /* each wake comes so much later */
    uint64_t bad_until_ms;           /* every task fails */
    uint64_t wrong_until_ms;         /* every result has a wrong bit */
    uint64_t hang_until_ms;          /* tasks make no progress */
    bool down;                       /* to be started at a set time */
    struct part *main;               /* coordinator or agent; NULL = down */
};

struct world {
    const struct plan *plan;
    uint64_t now_ms;
    struct rng rng; /* what random_bytes() and SQLite get */
    struct host host[HOSTS_MAX];
    unsigned n_hosts;
    struct part *parts;
    struct part *cur; /* whose code runs; NULL = the simulator's own */
    uint64_t n_parts, turns, messages, crashes;
    unsigned poisoned; /* hosts that a poisoned point took with it */
    bool failed;
    char why[512]; /* the first invariant that did not hold */
};
extern struct world world;
extern int sim_verbose;        /* log lines of all parts on stderr */
extern const char *sim_mutant; /* NULL = none; mutants.c */

/* A rule did not hold: the first one is kept. */
void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- time (world.c) */

/* Call fn(arg, n) at a time; never before now. */
void at_ms(uint64_t when_ms, void (*fn)(void *arg, uint64_t n), void *arg, uint64_t n);
void world_init(const struct plan *plan);
void world_run(
    uint64_t until_ms); /* events up to and including that time, or until something failed */
void world_clear(void);
void world_forget(void (*fn)(void *, uint64_t)); /* all events; the arguments of fn's are freed */

/* ---- parts (world.c) */

struct part *part_start(enum part_kind kind, unsigned host, const char *name,
                        void (*main)(struct part *), void *arg);
/* kill -9, at once: its connections break, and its code ends once it waits. Also for the part that runs now. */
void part_kill(struct part *p);
/* Kill a host's coordinator or agent, or stop the whole host as by a loss of power; it is started again after down_ms.
 * part_kill_for() of a task's child or a user's command kills only that. */
void part_kill_for(struct part *p, uint64_t down_ms);
void host_power(unsigned host, uint64_t salt, uint64_t down_ms);
void host_start(unsigned host);                   /* its coordinator or agent, unless it runs */
void part_wake(struct part *p, uint64_t when_ms); /* if it waits; sooner counts */
/* Wait. 0 = woken or time has come, -1 = killed: return from main. Only for the part that runs. */
int part_wait(uint64_t until_ms);
void part_sigterm(struct part *p);

/* ---- network (net.c): proto/link/link.h is implemented there, and */

enum net_fault { NET_LOSS, NET_DUP, NET_DELAY, NET_FAULTS };
void net_init(void);
void net_clear(void);
void net_cut(unsigned from, unsigned to, uint64_t until_ms); /* one way */
void net_fault(enum net_fault f, unsigned from, unsigned to, uint64_t count, uint64_t delay_ms);
void net_reset(unsigned host); /* all its connections, as by a TCP reset */
void net_part_dead(struct part *p, bool power);
void net_mend(void);           /* no fault any more */
uint64_t net_queue_most(void); /* longest queue seen */
/* When what is sent now can arrive: now, or the end of a cut. */
uint64_t net_open_ms(unsigned from, unsigned to);

/* ---- bulk connections (bulk.c): proto/bulk/bulk.h is implemented there, and */

struct bulk;
bool bulk_ready(const struct bulk *b); /* bulk_next() has something */
size_t bulk_streams(void);             /* ends of connections, of all hosts */
void bulk_part_dead(struct part *p, bool power);
void bulk_reset(unsigned host);

/* ---- tasks' children (tasks.c) */

/* words: behind the shim's own options, copied. */
void tasks_spawn(const char *dir, struct ofd *lock, uint64_t timeout_ms, char *const words[],
                 uint64_t *ret_pid);
struct part *task_by_pid(uint64_t pid); /* NULL = none such, or ended long ago */
bool task_kill_one(unsigned host);
int task_work(
    uint64_t ms); /* the current part, a task, takes so long: 0, or -ECANCELED when it is to end */
uint64_t tasks_alive(unsigned host);

/* ---- users (users.c) */

int users_begin(struct err *e); /* artefacts and sweeps of the plan as files on the user's host */
void user_command(const struct plan_event *ev);
void user_bring(void);                     /* all files of the plan, once more */
void user_log(unsigned no, struct buf *b); /* text of a log */
/* Lines that say nothing, until it is so long. */
void user_filler(unsigned no, uint64_t size_b, struct buf *b);
bool users_waiting(void);
void users_clear(void);

/* ---- rules (check.c) */

struct msg;
void check_begin(void);
void check_clear(void);
void check_sent(struct part *from, unsigned to, const struct msg *m);
void check_part_over(const struct part *p);
void check_submitted(const struct id *sweep, unsigned plan_sweep);
void check_cancelled(unsigned plan_sweep, bool is); /* false: retried since */
void check_lost(const char *job, const char *why);  /* a job is not known any more */
void check_rotten(unsigned host, const char *file); /* of its store or cache */
bool check_welcomed(unsigned host);                 /* the coordinator knows its agent */
void check_task_started(const char *dir, unsigned host);
bool check_all_over(void); /* every sweep has ended and no agent holds anything */
void check_end(void);
void check_have(const struct id *id); /* the coordinator said that it has it */
void check_artefact(unsigned host, const struct id *id, const char *what);
struct row_stats;
void check_result(uint64_t seed, uint64_t gbps,
                  struct row_stats *ret); /* the right statistics of a point */

/* ---- rules of what is asked for (check_obey.c) */

struct msg_grant;
struct sched;
void check_obey_begin(void);
/* A command of a user is about to be sent; it was answered. arg: as in its event; id: what it is about. */
void check_asked(enum plan_verb verb, int64_t arg, const char *id, bool undo);
void check_answered(enum plan_verb verb, int64_t arg, const char *id, bool undo, const char *text);
/* A canary of the agent at addr gave another result than the accepted one; its end was acknowledged. */
void check_canary_differs(const char *addr, uint64_t task);
void check_canary_over(unsigned host, uint64_t task);
void check_obey_grant(unsigned host, const struct msg_grant *m, bool canary);
void check_works(const char *dir, unsigned host); /* a task does */
size_t check_orphans(const struct sched *s);

/* ---- rules of what is moved (check_move.c) */

void check_move_begin(void);
/* Something happened until then on this host or on a wire to it, so that what has come may have to come again. */
void check_reason(unsigned host, uint64_t until_ms);
void check_gone(const char *path); /* a file is about to be removed */
void check_rots(unsigned host);
/* A chunk has come; bulk: beside the link. */
void check_chunk(unsigned from, unsigned to, const struct id *id, uint64_t index, bool bulk);
void check_message(unsigned from, unsigned to, const struct msg *m);
bool check_moves_over(char why[200]); /* nothing is under way */

/* What was seen of moves in all runs; main.c puts it where its children can add to it. */
struct move_stats {
    _Atomic uint64_t chunks, again; /* that came; that had come before, with a reason */
    _Atomic uint64_t bulk, peer;    /* of the chunks: beside the link; from another agent */
    _Atomic uint64_t streams;       /* that became artefacts */
};
extern struct move_stats *move_stats;

/* ---- running a plan (run.c) */

struct sim_stats {
    uint64_t turns, messages, tasks, crashes, virtual_ms, points;
};
/* 0 = all rules held; -1 = not, why[512] says which. */
int sim_run(const struct plan *plan, char why[512], struct sim_stats *stats);
