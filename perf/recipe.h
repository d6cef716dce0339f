/* A recipe: which logs, how many tenants, in which order. It names a trace before the trace is
 * built. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/arch.h"
#include "proto/base/err.h"
#include "proto/lib/hash.h"
#include "proto/lib/ini.h"
#include "proto/lib/json.h"

enum trace_order { ORDER_RR = 0, ORDER_RAND = 1, ORDER_ORIG = 2 };

/* A log path that stands for whatever the sweep's [collect] makes; it has no id until then. */
#define RECIPE_COLLECT "@collect"

#define RECIPE_TENANTS_MAX (1u << 24)
#define RECIPE_BURST_MAX (UINT64_C(1) << 40)
#define RECIPE_REPLICATE_MAX (1u << 20)

struct recipe_log {
    char *
        path; /* owned; NULL where only the id is known (on an agent: resolved through its cache) */
    struct id id; /* content id of the file's bytes */
    bool have_id;
};

struct recipe {
    struct recipe_log *logs; /* owned, in the order given (a glob: sorted bytewise) */
    size_t n_logs;
    uint64_t tenants;         /* 0 = all that the logs hold */
    uint64_t devices_per_log; /* 24 */
    enum trace_order order;   /* rr */
    uint64_t burst;           /* events in a row per tenant, 3 */
    uint64_t seed;            /* 1 */
    uint64_t replicate;       /* 1 = none; k = each real tenant stands k times, staggered */
    enum rules rules;
};

void recipe_init(struct recipe *r); /* the defaults above, no logs */
void recipe_clear(struct recipe *r);
int recipe_copy(const struct recipe *from, struct recipe *to, struct err *e);
int recipe_add_log(struct recipe *r, const char *path, struct err *e);
/* One key of [trace] (logs, tenants, devices_per_log, order, burst, seed, replicate, rules) without
 * ranges. base: folder that relative log paths start from, NULL = the current one. */
int recipe_set(struct recipe *r, const char *key, const char *value, const char *base,
               const char *place, struct err *e);
int recipe_load(struct recipe *r, const char *path, struct err *e); /* RECIPE.ini */
/* Hash the log files whose id is not known yet. */
int recipe_identify(struct recipe *r, struct err *e);
/* Id: BLAKE2b-256 of the canonical JSON without paths. Needs ids (recipe_identify). */
void recipe_id(const struct recipe *r, struct id *ret);
json_t *recipe_json(const struct recipe *r, bool with_paths);
int recipe_from_json(const json_t *j, struct recipe *ret, struct err *e);
const char *order_name(enum trace_order o);
int order_parse(const char *s, const char *place, enum trace_order *ret, struct err *e);
