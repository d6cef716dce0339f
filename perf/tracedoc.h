/* What is known of a trace: siofleet.trace/1, and the file beside a trace that keeps its provenance. */
#pragma once
#include "perf/build.h"
#include "perf/recipe.h"
#include "proto/format/trace.h"
#include "proto/lib/hash.h"
#include "proto/lib/json.h"

/* Where a trace came from; never part of its content. */
struct trace_origin {
    struct id recipe_id;
    bool have_recipe;
    json_t *logs; /* [{id,path,parsed,ignored,devices}], owned; NULL = unknown */
};
void trace_origin_clear(struct trace_origin *o);
int trace_origin_from_build(const struct recipe *r, const struct build_report *rep,
                            struct trace_origin *ret);

/* path: as shown, NULL = none. o: NULL = unknown. New reference. */
json_t *trace_json(const struct trace *t, const struct id *id, uint64_t bytes, const char *path,
                   const struct trace_origin *o);
/* The further fields of `trace info`: pages_by_size, hot_ppm, reuse, per_tenant, iova_ranges. Adds to doc. */
int trace_info_json(const struct trace *t, json_t *doc, struct err *e);

/* PATH.json beside a trace. Reading: a missing or foreign one (its id differs) is no error and leaves *ret empty. */
int trace_origin_save(const char *path, const struct id *id, const struct trace_origin *o,
                      struct err *e);
void trace_origin_load(const char *path, const struct id *id, struct trace_origin *ret);
