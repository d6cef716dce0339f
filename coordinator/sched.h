/* The scheduler: which points wait, who runs what under which lease, what is tried again and when.
 *
 * Pure: one step takes an event and the time and says what must be done; it does no I/O, reads no
 * clock, never blocks and never logs, so the same code runs in tests on virtual time. What it holds
 * is rebuilt from the store at a start: the points without a result, and the attempts that were
 * open.
 *
 * A sweep's points are never materialised: those that wait are ranges, those that run are the
 * ranges of their task. A point belongs to exactly one of: waiting, one task, accepted.
 *
 * A task's number is for ever; each try is an attempt (epoch, n). Points are deterministic, so a
 * result is welcome from any attempt; the store says which was the first. Trace tasks (recipe ->
 * trace) run before the points that need them.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/list.h"
#include "coordinator/map.h"
#include "coordinator/spans.h"
#include "proto/base/err.h"
#include "proto/base/rng.h"
#include "proto/lib/hash.h"

enum {
    /* Work in a block of automatic size. Rows are sent while it runs, so a long block loses nothing when it is cut off; a
     * short one pays for a process and for loading the trace, about a third of a point's time on one core. */
    SCHED_TARGET_MS = 4000,
    SCHED_LEAST_MS = 400,   /* towards the end of a sweep blocks shrink to this */
    SCHED_BLOCK_MAX = 1024, /* points in a block: its spec must fit a frame */
    SCHED_POINT_SLOTS = 2,  /* points tasks an agent holds: one runs, one waits */
    SCHED_TRACE_SLOTS = 8,  /* trace tasks an agent holds at most; never more than its cores */
    SCHED_EXEC_SLOTS =
        16, /* commands likewise: more would be declined, and all else with them for a while */
    SCHED_COLLECT_SLOTS = 8, /* collections likewise */
    SCHED_TRACE_WINDOW = 64, /* traces of a sweep that are being made at a time */
    SCHED_BACKOFF_MS = 1000, /* after the first failure; doubles */
    SCHED_BACKOFF_MAX_MS = 60000,
    SCHED_DECLINE_MS = 1000,  /* an agent that declined is left alone for so long */
    SCHED_FAIL_RANGE = 10000, /* points given up in one action */
    SCHED_RETRIES = 3,        /* of a task whose sweep does not say */
    SCHED_KILLS = 3,          /* agents that a task takes with it before it is quarantined */
    SCHED_BLAME = 3, /* tasks that failed on an agent and went well on another: it is drained */
    SCHED_CANARY_MS = 60000, /* a canary that takes longer says nothing */
    SCHED_AVOID_MS = 30000,  /* a task that failed on an agent waits so long for another one */
    SCHED_UNSTATED_MS =
        600000, /* what a task without a time limit is taken to need, before a maintenance */
};

enum task_kind { TASK_POINTS, TASK_TRACE, TASK_EXEC, TASK_COLLECT, TASK_KINDS };
const char *task_kind_name(enum task_kind k); /* "points" */
/* TASK_KINDS when it is none. */
enum task_kind task_kind_parse(const char *name);

/* queued    waits for an agent (and for its back-off)
 * leased    granted; renewed by beats and rows
 * orphan    open in the store when this coordinator started; its agent may claim it within one
 *           lease
 * stopping  the agent was told to end it
 * quarantined  it took SCHED_KILLS agents with it: waits for a person (EV_RETRY_TASK, EV_REDO)
 * ended     gone from memory */
enum task_state {
    TASK_QUEUED,
    TASK_LEASED,
    TASK_ORPHAN,
    TASK_STOPPING,
    TASK_ENDED,
    TASK_QUARANTINED,
    TASK_STATES
};

enum task_move {
    MOVE_GRANT,   /* to an agent */
    MOVE_CLAIM,   /* by the agent that had it before a restart */
    MOVE_REQUEUE, /* silent, declined, failed with tries left */
    MOVE_STOP,    /* told to end */
    MOVE_END,     /* done, given up, cancelled */
    MOVE_QUARANTINE,
    MOVE_FREE, /* out of quarantine */
    TASK_MOVES
};
/* Where a move leads, or -1 where it is not allowed. */
extern const signed char task_moves[TASK_STATES][TASK_MOVES];

struct sched_agent {
    uint8_t install[16];
    uint64_t boot;
    uint32_t cores;
    bool alive;    /* heard within one lease */
    bool accept;   /* as the agent itself says */
    bool drained;  /* as the operator says */
    bool stopping; /* its last beat took nothing and held nothing: it ends in order */
    bool stopped;  /* and then it went */
    uint64_t canary, canary_until_ms; /* number of the known point that it runs first; 0 = none */
    uint32_t blame;                   /* tasks in a row that failed here and went well elsewhere */
    uint64_t heard_ms, not_before_ms;
    uint64_t drain_at_ms; /* a maintenance is planned for then; 0 = none */
    struct list tasks;    /* leased, orphan, stopping */
    uint32_t n_tasks[TASK_KINDS];
    void *user; /* the caller's */
    struct list all;
    /* what it has, for jobs */
    uint64_t memory_mib;
    bool kvm;
    uint8_t collect; /* enum sched_collect */
    char *labels;    /* "k=v,...", owned; NULL = none */
    bool reserved;   /* in this round: an exclusive task waits for it to be idle */
};

enum sched_collect { COLLECT_NO, COLLECT_CAN, COLLECT_READY };

/* What a task of a job asks of its agent. */
struct sched_needs {
    uint32_t
        cores; /* taken from the agent's, of which other tasks of jobs have theirs; 0 = does not count */
    uint64_t memory_mib;
    uint64_t takes_ms; /* at most, as its owner says; 0 = nobody said */
    bool fewer;        /* fewer cores will do: then it takes all that its agent has */
    bool kvm, collect;
    bool exclusive; /* nothing else runs on the agent meanwhile */
    bool pinned;    /* to install, and gone with it */
    uint8_t install[16];
    const char *labels; /* "k=v,...", all of them; NULL = none. Borrowed from the job's owner */
};

/* A submission of independent tasks, each with an answer of its own: commands, or runs of a collection. */
struct sched_job {
    uint64_t seq, priority, timeout_ms;
    enum task_kind kind;
    uint32_t retries;
    bool held, cancelled;
    struct sched_needs needs; /* of each of its tasks, but for the host */
    uint64_t
        soon_ms; /* not later than the first end of a back-off among its tasks; UINT64_MAX = none */
    struct list tasks; /* that are not over */
    struct list all;
    void *user;
};

struct sched_trace {
    struct id key; /* of the recipe when build, else of the trace */
    bool build, ready, failed;
    uint32_t users;          /* sweeps that name it */
    uint64_t point_us;       /* one core's time for a point, smoothed; 0 = not known */
    uint64_t timeout_ms;     /* of the task that makes it */
    struct sched_task *task; /* making it, or NULL */
    char why[200];           /* when failed */
};

/* An agent that went while it held a task: this boot never came back. */
struct sched_kill {
    uint8_t install[16];
    uint64_t boot;
};

/* What went wrong with a task so far. Most tasks have none of it.
 *
 * An agent that goes does not say which of its tasks took it along, so each of them is a suspect from then on (n_kills):
 * it runs alone, on an agent that holds nothing else, and what happens next speaks against it only. */
struct sched_past {
    struct sched_task *task;
    struct list by_suspicion; /* of the scheduler, while n_kills */
    struct sched_kill kill[SCHED_KILLS];
    uint32_t n_kills, n_failed_on;
    struct sched_agent *failed_on[SCHED_KILLS]; /* the last ones; borrowed */
    char why[160];                              /* of the last attempt that failed */
};

/* Millions of them wait: what follows from the owner (its time limit) is not kept here. */
struct sched_task {
    uint64_t num;
    uint32_t epoch, n;
    uint8_t kind;   /* enum task_kind */
    uint8_t state;  /* enum task_state */
    bool cancelled; /* by name: what is left of it is given up */
    bool runs;      /* its agent says that it runs, and does not only hold it */
    bool noted;     /* the store has a note of it (ACT_NOTE) */
    uint16_t retries;
    uint32_t fails, total;     /* total: points */
    struct sched_sweep *sweep; /* of a points task, else NULL */
    struct sched_trace *trace; /* of a points or trace task */
    struct sched_job *job;     /* of a task of a job */
    const struct sched_needs
        *needs;                /* likewise: the job's, or its own (freed with it) when pinned */
    struct sched_agent *agent; /* while leased, orphan or stopping */
    struct list by_agent, by_sweep; /* by_sweep: or in the list of trace tasks */
    uint64_t
        boot; /* of the agent that it was granted to; 0 = not known. Claimed, it may run under a later one */
    union {
        uint64_t lease_ms;      /* while an agent has it */
        uint64_t not_before_ms; /* while it waits */
    };
    struct spans left;       /* points without an accepted result */
    struct sched_past *past; /* owned; NULL = nothing went wrong yet */
};

/* How a sweep unfolds: functions of its recipe alone. */
struct sched_plan {
    void *ctx;
    uint64_t (*trace_of)(void *ctx, uint64_t index);
    uint64_t (*trace_end)(void *ctx, uint64_t index); /* first index behind with another trace */
};

struct sched_sweep {
    uint64_t seq;
    struct sched_plan plan;
    uint64_t points, timeout_ms, block, pace_ms;
    uint32_t retries;
    uint64_t priority;
    bool held, cancelled, over; /* over: nothing waits and nothing is missing */
    struct spans todo;
    uint64_t in_tasks;          /* points in the `left` of its tasks */
    struct sched_trace **trace; /* n_traces, by number */
    uint32_t n_traces;
    struct list tasks; /* points tasks in any state */
    uint64_t point_us;
    uint64_t used_us; /* core time it has had, counted from where its peers stood when it came */
    void *user;
};

struct sched_cfg {
    uint64_t epoch, next_task, lease_ms, seed;
};

struct sched {
    struct sched_cfg cfg;
    uint64_t start_ms;
    struct rng rng;
    struct map agents, tasks, sweeps, traces, jobs;
    struct list agent_list, trace_tasks, job_list; /* jobs by priority, then age */
    struct list suspects;                          /* sched_past of tasks that agents went with */
    struct sched_sweep *
        *order; /* priority down; equal ones by the time they have had (at a dispatch), then age */
    size_t n_order, room_order;
    uint64_t *gone; /* noted tasks that ended: the store forgets them at the next tick */
    size_t n_gone, room_gone;
    uint64_t tick_ms; /* of the last tick that looked */
    uint64_t next_ms; /* when the next one has to, unless something moved since */
    bool moved;
    uint64_t bad_moves; /* moves that the table does not allow: always 0 */
    bool
        paused; /* the store's disk is full: nothing is granted for now; set from outside, between steps */
    bool
        loading; /* jobs of the store are still to come, and would be overtaken: nothing is granted; likewise */
    bool draining; /* this coordinator is about to stop: nothing new is granted */
    bool lost;     /* a trace was lost; perhaps tasks wait for it */
};

enum sched_event_type {
    EV_HELLO, /* agent: an agent registered */
    EV_BEAT,  /* agent */
    EV_GONE,  /* agent.install: its connection closed; leases run on, but nothing new is granted */
    EV_SWEEP, /* sweep: accepted just now, or found in the store at a start */
    EV_RESTORE, /* restore: an attempt that was open at a start, or a task that waited after a failure */
    EV_TRACE_READY,  /* trace: is at the coordinator, whoever made it */
    EV_TRACE_LOST,   /* trace: was, but is damaged or gone: made again where there is a recipe */
    EV_POINT,        /* point: has its first result */
    EV_END,          /* end: an attempt is over, as its agent says */
    EV_DECLINE,      /* end: an agent did not take a grant, or it could not be sent */
    EV_CANCEL_SWEEP, /* sweep.seq */
    EV_CANCEL_TASK,  /* end.task */
    EV_HOLD,         /* sweep.seq */
    EV_RELEASE,      /* sweep.seq */
    EV_PRIORITY,     /* sweep.seq, sweep.priority */
    EV_RETRY_TASK,   /* end.task: forget its back-off, free it from quarantine */
    EV_CANARY,       /* agent.install: it runs a known point before anything else */
    EV_CANARY_OVER,  /* agent.install, agent.accept (0 = it is drained) */
    EV_DRAIN,        /* agent.install, agent.accept (0 = drain), agent.drain_at_ms */
    EV_REDO, /* sweep.seq, sweep.todo (borrowed): these points, which had failed, are to run again, and tasks in quarantine */
    EV_JOB,  /* job: accepted just now, or found in the store at a start */
    EV_CANCEL_JOB,   /* job.seq */
    EV_HOLD_JOB,     /* job.seq, job.held */
    EV_PRIORITY_JOB, /* job.seq, job.priority */
    EV_STOP,         /* this coordinator ends: grant nothing more */
    EV_TICK, /* leases, back-offs, grants. After each group of events, and at least every few 100 ms. Costs nothing
                unless something moved or is due */
};

struct sched_ref {
    uint64_t task, epoch, n;
    unsigned state; /* 1 accepted, 2 running, 3 ended but not acknowledged */
};

struct sched_job_task {
    uint64_t num; /* from sched_reserve(), or as stored */
    uint64_t n;   /* attempts so far */
    uint32_t fails;
    struct sched_needs needs;
};

struct sched_event {
    enum sched_event_type type;
    union {
        struct {
            uint8_t install[16];
            uint64_t boot;
            uint32_t cores;
            uint64_t memory_mib;
            const char *labels; /* copied; may be NULL */
            uint8_t collect;
            bool kvm;
            bool accept, drained;
            uint64_t drain_at_ms; /* of EV_HELLO and EV_DRAIN: monotonic; 0 = no such plan */
            const struct sched_ref *refs; /* borrowed */
            size_t n_refs;
            void *user;
        } agent;
        struct {
            uint64_t seq, points, timeout_ms, block, pace_ms, priority;
            uint32_t retries;
            bool held;
            struct sched_plan plan;
            struct spans *todo;   /* taken; NULL = all points */
            const struct id *key; /* n_traces of each: borrowed */
            const bool *build, *ready;
            uint32_t n_traces;
            void *user;
        } sweep;
        struct {
            uint64_t seq, priority, timeout_ms;
            enum task_kind kind;
            uint32_t retries;
            bool held;
            const struct sched_job_task
                *tasks; /* n_tasks of them, those that are not over; borrowed */
            size_t n_tasks;
            void *user;
        } job;
        struct {
            uint64_t task, epoch, n, sweep, timeout_ms;
            enum task_kind kind;
            struct id key; /* of a trace task */
            uint8_t install[16];
            uint64_t boot;        /* that it was granted to; 0 = not known */
            struct spans *points; /* taken; of a points task: those without a result */
            uint64_t total;
            uint32_t fails, n_kills;
            const struct sched_kill *kills; /* borrowed; at most SCHED_KILLS */
            const char *why;                /* may be NULL */
            bool open; /* an attempt was; else it waited, and install, epoch and n say nothing */
            bool quarantined; /* unless open */
            bool noted;       /* the store has a note of it */
        } restore;
        struct {
            struct id key;
        } trace;
        struct {
            uint64_t sweep, index, duration_us;
            uint64_t task, epoch, n; /* who reported; 0 = nobody (a result known before) */
        } point;
        struct {
            uint64_t task, epoch, n;
            const char *
                cause; /* done, exit, signal, oom, timeout, cancelled, integrity, lost, space, recipe */
            const char *text; /* for people; may be NULL */
        } end;
    };
};

enum sched_action_type {
    ACT_WELCOME, /* agent, refs to drop */
    ACT_DROP,    /* agent, refs: answer of a beat */
    ACT_GRANT,   /* agent, task, epoch, n, kind, sweep, key, points */
    ACT_CANARY,  /* agent, task, epoch, n: to be granted */
    ACT_CANCEL,  /* agent, task, epoch, n */
    ACT_CLOSE,   /* task, epoch, n, text = cause: an attempt is over without a word of its agent */
    ACT_GIVE_UP, /* sweep, points (one range), text: these points failed for good */
    ACT_TRACE_FAILED, /* key, text */
    ACT_SWEEP_OVER,   /* sweep: every point has a row, or the sweep was cancelled */
    ACT_SWEEP_GONE,   /* sweep, user: forgotten here; nothing refers to its plan any more */
    ACT_AGENT_LOST,   /* agent, n = tasks requeued */
    ACT_AGENT_BAD,    /* agent, text: it was drained, as others do well what fails there */
    ACT_NOTE, /* task, kind, sweep, key, points, fails, kills, quarantined, text: to be kept over a restart */
    ACT_FORGET,   /* task: of a note */
    ACT_JOB_TASK, /* sweep = job, task, text: it is over without a result: failed, or cancelled when fails is UINT32_MAX */
    ACT_JOB_OVER, /* sweep = job, user: all its tasks are over; forgotten here */
};

struct sched_action {
    enum sched_action_type type;
    struct sched_agent *agent; /* borrowed */
    uint64_t task, epoch, n, sweep, timeout_ms;
    enum task_kind kind;
    struct id key;
    size_t first, count; /* of spans (points) or refs */
    uint32_t fails, n_kills;
    struct sched_kill kills[SCHED_KILLS];
    bool quarantined, news; /* of a note; news: it was put into quarantine by this step */
    void *user;
    char text[200];
};

struct sched_actions {
    struct sched_action *v;
    size_t n, room;
    struct span *spans;
    size_t n_spans, room_spans;
    struct sched_ref *refs;
    size_t n_refs, room_refs;
};
void sched_actions_reset(struct sched_actions *a);
void sched_actions_clear(struct sched_actions *a);

void sched_init(struct sched *s, const struct sched_cfg *cfg, uint64_t now_ms);
void sched_clear(struct sched *s);

/* n task numbers that nobody else gets; the first one. */
uint64_t sched_reserve(struct sched *s, uint64_t n);
struct sched_job *sched_job(const struct sched *s, uint64_t seq);
/* Whether an end of this cause leaves a task of a job without another try. */
bool sched_job_final(const struct sched_task *t, const char *cause);
/* What people call an agent; borrowed. */
typedef const char *sched_name_fn(const struct sched_agent *a);
enum { SCHED_WHY = 480 };
/* Why a task of a job waits, for people: what it asks for and what the nearest agent has of it, or that those who have it are
 * busy. */
void sched_job_why(const struct sched *s, const struct sched_task *t, sched_name_fn *name,
                   uint64_t now_ms, char out[SCHED_WHY]);
/* That only a planned maintenance keeps t from running; "" when it is not that. */
void sched_soon_why(const struct sched *s, const struct sched_task *t, uint64_t now_ms,
                    char out[SCHED_WHY]);
/* Whether an agent that is there takes tasks with these needs at all, busy or not. */
bool sched_agent_fits(const struct sched_agent *a, const struct sched_needs *n);
/* The one of two that lacks less of what is asked for. near may be NULL; a that is not the pinned one is no candidate. */
const struct sched_agent *sched_nearer(const struct sched_agent *near, const struct sched_agent *a,
                                       const struct sched_needs *n);
/* "it asks for 8 cores; agent 'a1' comes nearest, with 4 cores". near: lacks something of it, or NULL. */
void sched_lacks_text(const struct sched_needs *n, const struct sched_agent *near,
                      sched_name_fn *name, char out[SCHED_WHY]);
/* Points of point_us that agent a can still end before its planned maintenance, behind those it holds; UINT64_MAX where
 * nothing is planned, or the time of a point is not known. */
uint64_t sched_room(const struct sched_agent *a, uint64_t point_us, uint64_t now_ms);
/* What a trace, command or collection needs at most: its stated length or time limit, else SCHED_UNSTATED_MS. */
uint64_t sched_takes_ms(const struct sched_task *t);
/* Whether t, begun now, ends before the planned maintenance of a, as far as can be told. */
bool sched_ends_before(const struct sched_agent *a, const struct sched_task *t, uint64_t now_ms);
uint64_t sched_point_us(const struct sched_sweep *w,
                        const struct sched_trace *tr);    /* 0 = not known */
bool labels_have(const char *labels, const char *wanted); /* all k=v of wanted */
/* Whether nothing else may run on the agent of this task: it asks for that, or is a suspect. */
bool sched_alone(const struct sched_task *t);

/* One step. Appends what must be done to *out; does nothing itself. now: ms, monotonic. Never
 * blocks, never logs.
 *
 * Returns 0; -SF_EREFUSED for an agent that must not go on (an old boot, a beat before a hello:
 * nothing changed); -ENOENT for a sweep, task or agent that is not here (nothing changed); -EEXIST;
 * -ENOMEM (the step may be half done: the caller rebuilds from its store). Cost  O(log ranges) a
 * point, O(agents + open tasks) a tick.
 */
int sched_step(struct sched *s, const struct sched_event *ev, uint64_t now_ms,
               struct sched_actions *out, struct err *e);

/* When the next tick has something to do besides grants: monotonic ms, UINT64_MAX = never. */
uint64_t sched_next_ms(const struct sched *s);

struct sched_task *sched_task(const struct sched *s, uint64_t num);
uint64_t sched_timeout_ms(const struct sched_task *t); /* of an attempt; 0 = none */
struct sched_sweep *sched_sweep(const struct sched *s, uint64_t seq);
struct sched_agent *sched_agent(const struct sched *s, const uint8_t install[16]);
uint64_t sched_left(const struct sched_sweep *w); /* points without a result */
/* Points that wait in quarantine. *ret_rest: whether anything of the sweep can still go on by itself. */
uint64_t sched_quarantined(const struct sched_sweep *w, bool *ret_rest);
/* Core time that a sweep has had, and will have had once what it holds is done: its place among sweeps of equal priority.
 * us, saturating. */
uint64_t sched_share(const struct sched_sweep *w);
/* Before try number fails + 1: 1 s, 2 s, ... 60 s, and up to a quarter more, so that what failed together does not come
 * together. */
uint64_t sched_back_off(struct rng *rng, uint32_t fails);
/* Time to the end of a sweep with the cores that are here; UINT64_MAX = not known. */
uint64_t sched_eta_ms(const struct sched *s, const struct sched_sweep *w);
const char *task_state_name(enum task_state st); /* of the contract: "queued", "running", ... */
static inline bool task_waits(const struct sched_task *t) /* has no agent */
{
    return t->state == TASK_QUEUED || t->state == TASK_QUARANTINED;
}

/* What must hold between two steps. Returns 0, or -SF_EINTEGRITY with the broken rule.
 * O(everything): for tests. */
int sched_check(const struct sched *s, struct err *e);
