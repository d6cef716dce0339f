/* Task specs as granted: JSON from the coordinator, checked before anything is done with it. The forms stand in
 * proto/wire/README.md. */
#pragma once
#include <stddef.h>

#include "agent/runner.h"
#include "proto/base/err.h"
#include "proto/lib/hash.h"
#include "proto/lib/json.h"

enum {
    SPEC_MAX = 1 << 20,
    SPEC_POINTS_MAX = 1 << 16,
    SPEC_INPUTS_MAX = 1024,
    SPEC_ARGS_MAX = 4096, /* words of a command */
    SPEC_COPY_MAX = 64,   /* files to bring back */
    SPEC_CORES_MAX = 4096,
};

/* Read a spec: the form of g->kind, its number of points, and the artefacts that it needs (*ret_inputs owned, free()).
 * Hostile text is -SF_EFORMAT. g->trace and g->points are filled. */
int spec_parse(struct run_grant *g, const void *spec, size_t n, struct id **ret_inputs,
               size_t *ret_n, struct err *e);

/* Words of a command's spec, NULL-terminated: the list is owned (free()), its words belong to spec. -SF_EFORMAT. */
int spec_argv(const json_t *spec, const char ***ret, struct err *e);
/* What a command may use at most; 0 = no limit. -SF_EFORMAT. */
int spec_limits(const json_t *spec, uint64_t *ret_cores, uint64_t *ret_memory_mib, struct err *e);
