/* How many agents a batch system is to hold, and which of them have to go: plain steps (what is seen, now) -> what to do.
 * No I/O: `siofleet deploy slurm` looks and acts, this decides.
 *
 * A place holds one job, which is one agent, or none.
 *
 *     EMPTY -> WAITING   submitted, not started yet
 *     WAITING -> YOUNG   its job runs, its agent has not registered
 *     YOUNG -> BUSY      registered
 *     BUSY -> DRAINING   its time is nearly up, or somebody drained it: nothing new for it
 *     any -> LEAVING     told to end; the hard way after LEAVE_MS
 *     any -> EMPTY       its job is over
 *
 * A job that ends unasked before LIFE_MS, does not register, or waits for what will never come, counts as a failure: after
 * n failures in a row the next submission waits BACK_MS * 2^(n-1), at most BACK_MAX_MS, and goes alone; an agent that lives for
 * LIFE_MS ends the count. So a cluster that takes no jobs, or kills each, sees one every few minutes.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SCALE_LEAVE_MS = 20000,
    SCALE_LIFE_MS = 60000,
    SCALE_BACK_MS = 2000,
    SCALE_BACK_MAX_MS = 600000,
};

struct scale_conf {
    uint64_t min, max, points;
    uint64_t idle_ms, drain_ms, start_ms, held_ms;
};

/* What is seen of a place. */
struct scale_seen {
    uint64_t job;                                               /* 0 = none */
    enum { SEEN_NONE, SEEN_WAITS, SEEN_RUNS, SEEN_OVER } state; /* NONE: though it was there, too */
    bool hopeless;            /* waits for what waiting does not mend */
    uint64_t left_ms;         /* of its time; UINT64_MAX = no limit */
    bool registered, drained; /* its agent at the coordinator */
    uint64_t running;         /* tasks of that agent */
};

enum scale_state {
    SCALE_EMPTY,
    SCALE_WAITING,
    SCALE_YOUNG,
    SCALE_BUSY,
    SCALE_DRAINING,
    SCALE_LEAVING
};

struct scale_place {
    enum scale_state state;
    uint64_t job;
    uint64_t since_ms;      /* of the state */
    uint64_t registered_ms; /* when its agent was first seen; 0 = not yet */
    uint64_t idle_ms;       /* since when its agent has no task; 0 = it has */
    uint64_t lost_ms;       /* since when a registered agent is not there; 0 = it is */
    uint64_t hopeless_ms;   /* since when its job is; 0 = it is not */
};

enum scale_act {
    SCALE_SUBMIT, /* a job for the place */
    SCALE_DRAIN,  /* tell the coordinator to give its agent nothing new */
    SCALE_STOP,   /* tell its agent to end */
    SCALE_CANCEL, /* end its job */
    SCALE_FAILED, /* nothing to do: its job is over and counts as a failure */
    SCALE_OVER,   /* nothing to do: its job is over */
};

struct scale_action {
    enum scale_act act;
    size_t place;
    uint64_t job;
    const char *why; /* static */
};

struct scale {
    struct scale_conf conf;
    struct scale_place *place; /* conf.max of them */
    unsigned fails;            /* in a row */
    uint64_t retry_ms;         /* no submission before */
};

int scale_init(struct scale *s, const struct scale_conf *conf); /* -ENOMEM */
void scale_clear(struct scale *s);

/* One step. seen: conf.max of them. points: that wait or run; UINT64_MAX = not known (no coordinator): jobs are watched, their
 * number stays. out: room for 2 * conf.max actions. Returns their number. A SCALE_SUBMIT must be answered by
 * scale_submitted(); the others need no answer: what did not work is seen again. */
size_t scale_step(struct scale *s, const struct scale_seen seen[], uint64_t points, uint64_t now_ms,
                  struct scale_action out[]);
/* job 0 = it could not be submitted. */
void scale_submitted(struct scale *s, size_t place, uint64_t job, uint64_t now_ms);
/* Agents wanted for so many points. */
uint64_t scale_wanted(const struct scale_conf *c, uint64_t points);
/* Until the next submission may go; 0 = now. */
uint64_t scale_wait_ms(const struct scale *s, uint64_t now_ms);
