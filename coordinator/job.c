#include "coordinator/job.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

enum { ARGS_MAX = 4096, COPY_MAX = 64, FILES_MAX = 16, HOSTS_MAX = 10000 };

void job_free(struct job **pj)
{
    struct job *j = *pj;
    *pj = NULL;
    if (!j)
        return;
    json_decref(j->doc);
    free(j->labels);
    free(j->tasks);
    free(j);
}

void job_forget_tasks(struct job *j)
{
    if (!j)
        return;
    free(j->tasks);
    j->tasks = NULL;
    j->n_tasks = 0;
}

static int number(const json_t *doc, const char *key, uint64_t most, uint64_t *ret, struct err *e)
{
    const json_t *v = json_object_get(doc, key);
    if (!v || json_is_null(v))
        return 0;
    if (json_get_u64(doc, key, ret, NULL) < 0 || *ret > most)
        return err_set(e, SF_EUSAGE, "job: '%s' is no number up to %llu", key,
                       (unsigned long long)most);
    return 0;
}

/* A list of texts, or nothing. */
static int texts(const json_t *doc, const char *key, size_t most, struct err *e)
{
    const json_t *v = json_object_get(doc, key), *x;
    size_t i;
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_array(v) || json_array_size(v) > most)
        return err_set(e, SF_EUSAGE, "job: '%s' is no list of up to %zu texts", key, most);
    json_array_foreach (v, i, x)
        if (!json_string_length(x) || json_string_length(x) > 4000)
            return err_set(e, SF_EUSAGE, "job: '%s' holds what is no text", key);
    return 0;
}

static int check_exec(const json_t *doc, struct err *e)
{
    const json_t *argv = json_object_get(doc, "argv"), *x;
    size_t i;
    if (!json_is_array(argv) || !json_string_length(json_array_get(argv, 0)) ||
        json_array_size(argv) > ARGS_MAX)
        return err_set(e, SF_EUSAGE, "job: a command has 1 to %d words", ARGS_MAX);
    json_array_foreach (argv, i, x)
        if (!json_is_string(x))
            return err_set(e, SF_EUSAGE, "job: word %zu of the command is no text", i);
    int r = texts(doc, "copy", COPY_MAX, e);
    return r < 0 ? r : texts(doc, "hosts", HOSTS_MAX, e);
}

static int check_collect(const json_t *doc, struct job *j, struct err *e)
{
    json_t *files = json_object_get(doc, "files"), *x;
    const char *key;
    int r = number(doc, "runs", JOB_TASKS_MAX, &j->runs, e);
    if (r < 0)
        return r;
    if (!j->runs || !json_string_length(json_object_get(doc, "ini")))
        return err_set(e, SF_EUSAGE, "job: a collection has an ini and 1 to %d runs",
                       JOB_TASKS_MAX);
    if (!json_is_object(files) || json_object_size(files) > FILES_MAX)
        return err_set(e, SF_EUSAGE, "job: 'files' is no object of up to %d ids", FILES_MAX);
    json_object_foreach (files, key, x) {
        struct id id;
        const char *hex = json_string_value(x);
        if (!hex || id_parse(hex, &id, NULL) < 0)
            return err_set(e, SF_EUSAGE, "job: file '%.30s' is no id", key);
    }
    j->again = json_is_true(json_object_get(doc, "again"));
    j->needs.collect = !json_is_true(json_object_get(doc, "own_all"));
    j->needs.fewer = true;
    return 0;
}

int job_new(json_t *doc, struct job **ret, struct err *e)
{
    CLEANUP(job_free) struct job *j = calloc(1, sizeof(*j));
    if (!j)
        return err_sys(e, ENOMEM, "job");
    const char *kind = json_string_value(json_object_get(doc, "kind")),
               *name = json_string_value(json_object_get(doc, "name")),
               *labels = json_string_value(json_object_get(doc, "labels"));
    j->kind = kind ? task_kind_parse(kind) : TASK_KINDS;
    if (j->kind != TASK_EXEC && j->kind != TASK_COLLECT)
        return err_set(e, SF_EUSAGE, "job: its kind is neither exec nor collect");
    j->doc = json_incref(doc);
    snprintf(j->name, sizeof(j->name), "%s", name ? name : "");
    if (labels && strlen(labels) > 1000)
        return err_set(e, SF_EUSAGE, "job: its labels are too long");
    if (labels && !(j->labels = strdup(labels)))
        return err_sys(e, ENOMEM, "job");
    j->needs.labels = j->labels;
    j->needs.kvm = json_is_true(json_object_get(doc, "kvm"));
    j->needs.exclusive = json_is_true(json_object_get(doc, "exclusive"));
    uint64_t cores = 0, retries = j->kind == TASK_EXEC ? 0 : 1;
    int r = number(doc, "cores", 4096, &cores, e);
    if (r == 0)
        r = number(doc, "memory_mib", UINT32_MAX, &j->needs.memory_mib, e);
    if (r == 0)
        r = number(doc, "timeout_ms", UINT64_MAX, &j->timeout_ms, e);
    if (r == 0)
        r = number(doc, "takes_ms", UINT64_MAX, &j->needs.takes_ms, e);
    if (r == 0)
        r = number(doc, "priority", UINT32_MAX, &j->priority, e);
    if (r == 0)
        r = number(doc, "retries", 1000, &retries, e);
    if (r == 0)
        r = j->kind == TASK_EXEC ? check_exec(doc, e) : check_collect(doc, j, e);
    if (r < 0)
        return r;
    j->needs.cores = (uint32_t)cores;
    j->retries = (uint32_t)retries;
    *ret = TAKE(j);
    return 0;
}

char *job_spec(const struct job *j, uint64_t index)
{
    json_t *spec;
    if (j->kind == TASK_EXEC) {
        json_t *copy = json_object_get(j->doc, "copy");
        spec = json_pack("{s:O, s:o, s:o, s:o}", "argv", json_object_get(j->doc, "argv"), "copy",
                         json_is_array(copy) ? json_incref(copy) : json_array(), "cores",
                         json_u64(j->needs.cores), "memory_mib", json_u64(j->needs.memory_mib));
    } else {
        spec = json_pack("{s:O, s:o, s:O}", "ini", json_object_get(j->doc, "ini"), "run",
                         json_u64(index + 1), "files", json_object_get(j->doc, "files"));
    }
    char *text = spec ? json_dumps(spec, JSON_COMPACT) : NULL;
    json_decref(spec);
    return text;
}

void job_run_key(const struct job *j, uint64_t index, struct id *ret)
{
    /* asked for again: a run that is like no other, and known to this job alone */
    json_t *k = json_pack("{s:O, s:o, s:O, s:o}", "ini", json_object_get(j->doc, "ini"), "run",
                          json_u64(index + 1), "files", json_object_get(j->doc, "files"), "job",
                          j->again ? json_id(&j->id) : json_null());
    memset(ret, 0, sizeof(*ret));
    if (k)
        json_hash(k, ret);
    json_decref(k);
}

void job_event(struct job *j, bool held, struct sched_event *ev)
{
    *ev = (struct sched_event){ .type = EV_JOB,
                                .job = { .seq = j->seq,
                                         .priority = j->priority,
                                         .timeout_ms = j->timeout_ms,
                                         .kind = j->kind,
                                         .retries = j->retries,
                                         .held = held,
                                         .tasks = j->tasks,
                                         .n_tasks = j->n_tasks,
                                         .user = j } };
}

int job_artefacts(const json_t *info, int (*cb)(void *ctx, const struct id *id), void *ctx)
{
    const char *const streams[] = { "stdout", "stderr" };
    const json_t *files = json_object_get(info, "files"), *f;
    size_t i, n = json_array_size(files);
    for (i = 0; i < n + ARRAY_LEN(streams); i++) {
        f = i < n ? json_array_get(files, i) : json_object_get(info, streams[i - n]);
        const char *hex = json_string_value(json_object_get(f, "id"));
        struct id id;
        if (!hex)
            continue;
        int r = id_parse(hex, &id, NULL) < 0 ? -SF_EFORMAT : cb(ctx, &id);
        if (r)
            return r;
    }
    return 0;
}
