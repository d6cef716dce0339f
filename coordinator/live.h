/* A sweep that is not over yet: its recipe unfolded on demand, and what is known of its traces. No I/O. */
#pragma once
#include "coordinator/sched.h"
#include "coordinator/store.h"
#include "perf/points.h"
#include "perf/sweep.h"

enum { LIVE_TRACES_MAX = 65536, LIVE_CHECK_MAX = 100000 };

struct live {
    uint64_t seq;
    struct id id;
    char name[128];
    enum rules rules;
    uint64_t points;
    bool waiting;        /* for the logs of its [collect]: its traces are not known yet */
    struct sweep *sweep; /* owned */
    uint32_t n_traces;
    struct id *key; /* of the recipe when build, else of the trace */
    bool *build, *ready;
    struct store_trace *tr; /* num 0 = not known yet */
};

/* json: sweep_json(). -SF_EUSAGE for what this coordinator cannot run. Traces are not looked up yet. */
int live_new(const json_t *json, struct live **ret, struct err *e);
void live_free(struct live **l);

/* The event that hands it to the scheduler; todo is taken, NULL = all points. */
void live_event(struct live *l, const struct sweep_head *h, bool held, struct spans *todo,
                struct sched_event *ev);

/* The first point that no engine can run: 0 = none found, else -SF_EUSAGE with its index and the reason. */
int live_check(const struct live *l, struct err *e);
/* Recipe of trace number t (borrowed until the next call), or NULL where it is named by id. */
const struct recipe *live_recipe(struct live *l, uint32_t t);
/* First trace with this key, or UINT32_MAX. */
uint32_t live_find(const struct live *l, const struct id *key);

/* Point -> trace number and architecture. 0 or -ENOENT. */
int live_arch(const struct live *l, uint64_t index, uint32_t *ret_trace, struct arch *ret);
/* Point -> trace number, architecture, and its id when the trace is known (else all zero). 0 or -ENOENT. */
int live_point(const struct live *l, uint64_t index, uint32_t *ret_trace, struct arch *ret,
               struct id *ret_id);

/* Spec of a points task over n points of trace t: as in proto/wire/README.md; lists: for an agent with WIRE_POINT_LISTS.
 * -EMSGSIZE above a frame. */
int live_points_spec(const struct live *l, uint32_t t, const struct point at[], size_t n,
                     bool lists, struct buf *out, struct err *e);
int live_trace_spec(struct live *l, uint32_t t, struct buf *out, struct err *e);
