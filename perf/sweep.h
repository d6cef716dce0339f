/* A sweep: traces x architecture points, kept as its recipe and expanded one point at a time. A
 * sweep of 10^9 points costs no more memory than its INI. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "perf/arch.h"
#include "perf/recipe.h"
#include "proto/lib/json.h"

struct sweep; /* opaque */

struct sweep_head {
    char name[128];
    enum rules rules;
    uint64_t timeout_ms, retries, priority, block, pace_ms; /* block 0 = auto */
    bool skip_invalid;
    char collect_run[512]; /* RUN.ini of [collect], "" = none */
};

/* The trace of a point: either a file or artefact that exists, or a recipe to build. Dense numbers
 * 0..n-1. */
struct sweep_trace {
    const char *name; /* of its section; borrowed from the sweep */
    bool from_recipe;
    const char *file; /* path, NULL when by id or recipe */
    struct id id;     /* artefact id when by id, or after sweep_identify() for a file */
    bool have_id;
    const struct recipe *recipe; /* borrowed; when from_recipe */
    struct id recipe_id;         /* valid after sweep_identify() when from_recipe */
};

int sweep_load(const char *path, struct sweep **ret,
               struct err *e); /* SWEEP.ini; -SF_EUSAGE with file:line */
/* The same over text in memory. path: for messages, and relative names start from its folder. */
int sweep_text(const char *path, const char *text, struct sweep **ret, struct err *e);
void sweep_free(struct sweep **s);

/* Text of the RUN.ini that [collect] names, NULL = none. Its logs take the place of logs=@collect
 * once they exist. */
const char *sweep_collect_text(const struct sweep *s);
int sweep_bind_collect(struct sweep *s, const struct id ids[], size_t n, struct err *e);

const struct sweep_head *sweep_head(const struct sweep *s);
uint64_t sweep_points(const struct sweep *s);
uint64_t sweep_n_traces(const struct sweep *s);
/* Trace number t (0 <= t < sweep_n_traces). ret borrowed parts live until the next call with the
 * same sweep or its end. */
int sweep_trace(struct sweep *s, uint64_t t, struct sweep_trace *ret, struct err *e);
/* Point index -> trace number and architecture (NULL = not wanted). O(sections), no allocation. */
int sweep_point(const struct sweep *s, uint64_t index, uint64_t *ret_trace, struct arch *ret_arch);
/* First index behind `index` whose trace number differs (blocks never straddle traces). */
uint64_t sweep_trace_end(const struct sweep *s, uint64_t index);
/* Hash all logs and trace files that are named by path, so that ids are known and paths can be
 * dropped. */
int sweep_identify(struct sweep *s, struct err *e);
/* Every log or trace file by path with its id, once each: what a submit must upload. cb != 0 stops
 * and is returned. */
int sweep_files(struct sweep *s, int (*cb)(void *user, const char *path, const struct id *id),
                void *user);

/* The stored form: canonical JSON without paths (ids only). Equal sweeps give equal text. */
json_t *sweep_json(const struct sweep *s);
int sweep_from_json(const json_t *j, struct sweep **ret, struct err *e);
