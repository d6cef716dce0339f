#include "agent/spec.h"

#include <stdlib.h>
#include <string.h>

#include "perf/points.h"
#include "proto/base/clean.h"

static int parse_points(struct run_grant *g, const json_t *j, struct id **ret, size_t *ret_n,
                        struct err *e)
{
    const char *trace = json_string_value(json_object_get(j, "trace"));
    if (!trace || id_parse(trace, &g->trace, NULL) < 0)
        return err_set(e, SF_EFORMAT, "task spec: 'trace' is no id");
    int n = points_count(j, SPEC_POINTS_MAX, e);
    if (n < 0)
        return n;
    struct id *ids = calloc(1, sizeof(*ids));
    if (!ids)
        return err_sys(e, ENOMEM, "task spec");
    g->points = (uint64_t)n;
    ids[0] = g->trace;
    *ret = ids;
    *ret_n = 1;
    return 0;
}

static int parse_logs(const json_t *j, struct id **ret, size_t *ret_n, struct err *e)
{
    const json_t *logs = json_object_get(json_object_get(j, "recipe"), "logs");
    size_t n = json_array_size(logs);
    if (!json_is_array(logs) || n == 0 || n > SPEC_INPUTS_MAX)
        return err_set(e, SF_EFORMAT, "task spec: a recipe of 1 to %d logs is needed",
                       SPEC_INPUTS_MAX);
    CLEANUP(freep) struct id *ids = calloc(n, sizeof(*ids));
    if (!ids)
        return err_sys(e, ENOMEM, "task spec");
    for (size_t i = 0; i < n; i++) {
        /* a log stands there as its id, or as an object that has it */
        const json_t *log = json_array_get(logs, i);
        const char *hex = json_string_value(json_is_object(log) ? json_object_get(log, "id") : log);
        if (!hex || id_parse(hex, &ids[i], NULL) < 0)
            return err_set(e, SF_EFORMAT, "task spec: log %zu is no id", i);
    }
    *ret = TAKE(ids);
    *ret_n = n;
    return 0;
}

static int parse_exec(const json_t *j, struct err *e)
{
    CLEANUP(freep) const char **argv = NULL;
    int r = spec_argv(j, &argv, e);
    if (r < 0)
        return r;
    const json_t *copy = json_object_get(j, "copy"), *path;
    uint64_t cores, memory_mib;
    size_t i;
    if (copy && (!json_is_array(copy) || json_array_size(copy) > SPEC_COPY_MAX))
        return err_set(e, SF_EFORMAT, "task spec: 'copy' is no list of up to %d paths",
                       SPEC_COPY_MAX);
    json_array_foreach (copy, i, path)
        if (!json_string_length(path) || json_string_length(path) > 4000)
            return err_set(e, SF_EFORMAT, "task spec: a path to copy is empty or too long");
    return spec_limits(j, &cores, &memory_mib, e);
}

static int parse_collect(const json_t *j, struct id **ret, size_t *ret_n, struct err *e)
{
    json_t *files = json_object_get(j, "files"), *id;
    size_t n = json_object_size(files), k = 0;
    uint64_t run = 0;
    const char *key;
    if (!json_string_length(json_object_get(j, "ini")) || !json_is_object(files) ||
        n > SPEC_INPUTS_MAX || json_get_u64(j, "run", &run, NULL) < 0 || !run)
        return err_set(e, SF_EFORMAT, "task spec: a collection has ini, run and files");
    CLEANUP(freep) struct id *ids = calloc(n + 1, sizeof(*ids));
    if (!ids)
        return err_sys(e, ENOMEM, "task spec");
    json_object_foreach (files, key, id) {
        const char *hex = json_string_value(id);
        if (!hex || id_parse(hex, &ids[k++], NULL) < 0)
            return err_set(e, SF_EFORMAT, "task spec: file '%.30s' is no id", key);
    }
    *ret = TAKE(ids);
    *ret_n = n;
    return 0;
}

int spec_argv(const json_t *spec, const char ***ret, struct err *e)
{
    const json_t *args = json_object_get(spec, "argv"), *word;
    size_t n = json_array_size(args), i;
    if (!json_is_array(args) || n == 0 || n > SPEC_ARGS_MAX ||
        !json_string_length(json_array_get(args, 0)))
        return err_set(e, SF_EFORMAT, "task spec: 'argv' is no list of 1 to %d words",
                       SPEC_ARGS_MAX);
    CLEANUP(freep) const char **v = calloc(n + 1, sizeof(*v));
    if (!v)
        return err_sys(e, ENOMEM, "task spec");
    json_array_foreach (args, i, word) {
        v[i] = json_string_value(word);
        if (!v[i])
            return err_set(e, SF_EFORMAT, "task spec: word %zu of the command is no text", i);
    }
    *ret = TAKE(v);
    return 0;
}

int spec_limits(const json_t *spec, uint64_t *ret_cores, uint64_t *ret_memory_mib, struct err *e)
{
    *ret_cores = *ret_memory_mib = 0;
    if (json_object_get(spec, "cores") &&
        (json_get_u64(spec, "cores", ret_cores, NULL) < 0 || *ret_cores > SPEC_CORES_MAX))
        return err_set(e, SF_EFORMAT, "task spec: 'cores' is no number up to %d", SPEC_CORES_MAX);
    if (json_object_get(spec, "memory_mib") &&
        (json_get_u64(spec, "memory_mib", ret_memory_mib, NULL) < 0 || *ret_memory_mib >> 40))
        return err_set(e, SF_EFORMAT, "task spec: 'memory_mib' is no number of MiB");
    return 0;
}

int spec_parse(struct run_grant *g, const void *spec, size_t n, struct id **ret_inputs,
               size_t *ret_n, struct err *e)
{
    json_error_t je;
    CLEANUP(json_decrefp) json_t *j = json_loadb(spec, n, JSON_REJECT_DUPLICATES, &je);
    *ret_inputs = NULL;
    *ret_n = 0;
    if (!j)
        return err_set(e, SF_EFORMAT, "task spec: line %d: %s", je.line, je.text);
    switch (g->kind) {
    case CORE_TRACE:
        return parse_logs(j, ret_inputs, ret_n, e);
    case CORE_EXEC:
        return parse_exec(j, e);
    case CORE_COLLECT:
        return parse_collect(j, ret_inputs, ret_n, e);
    default:
        return parse_points(g, j, ret_inputs, ret_n, e);
    }
}
