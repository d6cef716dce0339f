/* A scheduler on virtual time, for its tests. Every step goes through step(), which checks the invariants behind it. */
#pragma once
#include "coordinator/sched.h"

enum { LEASE = 10000 };

struct world {
    struct sched s;
    struct sched_actions out;
    uint64_t now;
    struct err e;
    uint64_t trace_points; /* points of a trace of the plan */
    uint64_t points;
};

/* A grant copied out of the actions, so that later steps cannot move it. */
struct given {
    struct sched_action a;
    struct span spans[64]; /* more ranges than a block has here */
};
void world_init(struct world *w, uint64_t epoch);
void world_clear(struct world *w);

int step(struct world *w, const struct sched_event *ev);
int fresh(struct world *w,
          const struct sched_event *ev); /* the same, without the actions of before */
void tick(struct world *w);
/* The nth action of a type that the steps gave, or NULL; how many there are. */
const struct sched_action *action(const struct world *w, enum sched_action_type t, size_t nth);
size_t actions(const struct world *w, enum sched_action_type t);

/* Agents by number: their install is that byte sixteen times. */
struct sched_event agent_event(enum sched_event_type t, int no, uint64_t boot, uint32_t cores);
int hello(struct world *w, int no, uint64_t boot, uint32_t cores);
int beat(struct world *w, int no, uint64_t boot, const struct sched_ref *refs, size_t n);
struct sched_agent *agent(struct world *w, int no);

struct id key_of(unsigned no);
/* Every trace has trace_points points. */
uint64_t plan_trace(void *ctx, uint64_t i);
uint64_t plan_end(void *ctx, uint64_t i);
/* A sweep over n_traces traces, numbered keys from first_key on. */
int sweep(struct world *w, uint64_t seq, uint64_t points, uint32_t n_traces, unsigned first_key,
          bool build, uint64_t block, uint32_t retries, uint64_t priority);
int point(struct world *w, uint64_t seq, uint64_t i, const struct sched_action *by);
int task_end(struct world *w, const struct sched_action *g, const char *cause);
void all_points(struct world *w, const struct sched_action *g, const struct span *spans);

/* The nth grant that the last steps gave. */
bool given(const struct world *w, size_t nth, struct given *g);
uint64_t n_points(const struct given *g);
struct sched_ref ref_of(const struct given *g, unsigned state);
/* Runs what is granted to agent no until it is said to run; the grant is in *g. */
void runs_on(struct world *w, int no, uint64_t boot, struct given *g);
