/* Trace construction: logs in, one trace out.
 *
 * Rules hypersio: numbering, collisions and order of the reference tool, to the byte. Rules model:
 * one tenant is one (log, domain), source-ids do not collide, context hits count, CR LF is fine.
 * Both read the same lines.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/recipe.h"
#include "proto/base/err.h"
#include "proto/format/trace.h"

/* What happens on the way, in order: hypersio-perf prints it, others count or drop it. */
enum build_note_kind {
    BUILD_VALID,       /* a = valid devices, b = log number */
    BUILD_LOG,         /* path: about to be read */
    BUILD_MISSING,     /* path */
    BUILD_MAPPING,     /* a = the log's id of the tenant, b = GID */
    BUILD_BAD_MASK,    /* a = mask of a page hit that is no page size */
    BUILD_BAD_LEVEL,   /* a = level 0 of a page update */
    BUILD_CTX_CHANGED, /* a = SID */
    BUILD_SLPTE_CONFLICT,
    BUILD_REFUSED, /* a = line, text = reason */
    BUILD_PARSED,  /* a = events, b = devices seen, c = ignored lines */
    BUILD_DEVICES, /* a = devices seen, b = devices expected */
};

struct build_note {
    enum build_note_kind kind;
    uint64_t a, b, c;
    const char *path, *text; /* borrowed for the call */
};

struct build_hooks {
    void *user;
    /* Path of a log known by id only; owned by the caller of it. NULL hook: only paths work. */
    int (*resolve)(void *user, const struct recipe_log *log, char **ret_path, struct err *e);
    void (*note)(void *user, const struct build_note *n); /* may be NULL */
};

struct build_report {
    struct build_log {
        char *path; /* owned */
        struct id id;
        bool have_id;
        uint64_t lines, bytes, parsed, ignored, refused, devices;
    } * logs; /* those read, owned */
    size_t n_logs;
    uint64_t refused, ctx_changed, slpte_conflicts;
};
void build_report_clear(struct build_report *r);

/* Build the trace that a recipe names.
 *
 * r      borrowed; tenants 0 = all that the logs hold; a log is a path or an id that hooks->resolve
 * knows hooks  may be NULL ret    owned, with keys (trace_keys) rep    NULL or filled (also on
 * failure); build_report_clear()
 *
 * Returns 0; -SF_EUSAGE where the recipe asks for what the logs do not hold; -SF_EFORMAT where no
 * log has an event; -errno and -SF_EINTEGRITY from reading.
 */
int build_trace(const struct recipe *r, const struct build_hooks *hooks, struct trace **ret,
                struct build_report *rep, struct err *e);

/* The same in steps, for callers that find their logs one by one. */
struct builder;
int builder_new(enum rules rules, const struct build_hooks *hooks, struct builder **ret,
                struct err *e);
void builder_free(struct builder **b);
/* Read the next log; at most `valid` devices (slots 2 .. valid+1 of bus 0) count. ret_seen: tenants
 * of any event kind. */
int builder_log(struct builder *b, const char *path, uint64_t valid, struct build_log *log,
                uint64_t *ret_seen, struct err *e);
/* want: tenants in all, 0 = as many as there are; replicate: copies of each real tenant, 1 = none.
 * Once. */
int builder_finish(struct builder *b, enum trace_order order, uint64_t burst, uint64_t seed,
                   uint64_t want, uint64_t replicate, struct trace **ret, struct err *e);
