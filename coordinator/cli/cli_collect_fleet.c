/* collect RUN.ini on the fleet: a job of one task a run. */
#include "coordinator/cli/cli_collect_fleet.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collect/cli_collect.h"
#include "collect/recipe.h"
#include "coordinator/cli/job_run.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

int collect_job(const struct collect_recipe *r, const struct id ids[], const char *name,
                const char *labels, bool again, json_t **ret)
{
    json_t *files = json_object();
    for (size_t i = 0; i < r->n_files; i++)
        json_object_set_new(files, r->file[i].key, json_id(&ids[i]));
    *ret = json_pack("{s:s, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:b, s:b, s:o, s:o}", "kind",
                     "collect", "name", json_str(name), "profile", r->profile, "ini", r->ini,
                     "runs", json_u64(r->runs), "files", files, "cores", json_u64(r->cores),
                     "memory_mib", json_u64(r->memory_mib), "kvm", r->kvm, "own_all", r->own_all,
                     "again", again, "labels", labels ? json_str(labels) : json_null(), "takes_ms",
                     json_u64(r->takes_ms));
    return *ret ? 0 : -ENOMEM;
}

int collect_put_files(struct client *cl, const struct collect_recipe *r,
                      struct id ids[COLLECT_FILES_MAX], struct err *e)
{
    for (size_t i = 0; i < r->n_files; i++) {
        const char *slash = strrchr(r->file[i].path, '/');
        int rc = client_put(cl, r->file[i].path, "file", slash ? slash + 1 : r->file[i].path,
                            &ids[i], NULL, NULL, NULL, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- the answer */

static json_t *field(const json_t *j, const char *key)
{
    json_t *v = json_object_get(j, key);
    return v ? json_incref(v) : json_null();
}

/* One run of the document: what its agent said of it, or why there is nothing. */
static json_t *one_run(const json_t *item)
{
    const json_t *info = json_object_get(item, "info");
    json_t *run = json_deep_copy(json_array_get(json_object_get(info, "runs"), 0));
    const char *state = json_string_value(json_object_get(item, "state"));
    uint64_t index = 0;
    json_get_u64(item, "index", &index, NULL);
    bool done = state && !strcmp(state, "done") && run;
    if (!done) {
        char why[300] = "";
        json_decref(run);
        job_item_why(item, why);
        run = json_pack("{s:o, s:o, s:o, s:n, s:n, s:[], s:o, s:n}", "run", json_u64(index + 1),
                        "status", json_str(state), "retries", json_u64(0), "log", "phases",
                        "workload", "error", json_str(why), "text");
    }
    /* the number that it has here: a run that was known may have had another one */
    json_object_set_new(run, "run", json_u64(index + 1));
    json_object_set_new(run, "agent", field(item, "agent"));
    json_object_set_new(run, "task", field(item, "task"));
    static const char *const logs[] = { "log", "text" };
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        json_t *log = json_object_get(run, logs[i]);
        if (json_is_object(log))
            json_object_set_new(log, "path", json_null());
    }
    return run;
}

static json_t *collection_doc(const json_t *all)
{
    static const char *const same[] = { "profile", "accel", "tracer", "lacks", "qemu", "image" };
    const json_t *items = json_object_get(all, "items"), *item, *head = NULL;
    json_t *runs = json_array(), *doc = json_object();
    size_t i;
    json_array_foreach (items, i, item) {
        json_array_append_new(runs, one_run(item));
        const json_t *info = json_object_get(item, "info");
        if (!head && json_object_get(info, "runs"))
            head = info;
    }
    json_object_set_new(doc, "schema", json_string("siofleet.collection/1"));
    json_object_set_new(doc, "collection", field(all, "job"));
    for (i = 0; i < ARRAY_LEN(same); i++)
        json_object_set_new(doc, same[i], field(head, same[i]));
    json_object_set_new(doc, "runs", runs);
    return doc;
}

static bool here_already(const char *path, const struct id *id)
{
    struct id have;
    return access(path, F_OK) == 0 && cid_file(path, &have, NULL, NULL) == 0 && id_eq(&have, id);
}

/* A run's files into DIR/run-NNNN; a file that is there as it should be stays. */
static int fetch_run(struct client *cl, const char *out, const json_t *item, json_t *run,
                     struct err *e)
{
    json_t *files = json_object_get(json_object_get(item, "info"), "files"), *f;
    uint64_t no = 0;
    size_t i;
    json_get_u64(run, "run", &no, NULL);
    CLEANUP(freep) char *dir = path_fmt("%s/run-%04" PRIu64, out, no);
    int r = dir ? dir_make(dir, 0755, e) : err_sys(e, ENOMEM, "%s", out);
    json_array_foreach (files, i, f) {
        const char *name = json_string_value(json_object_get(f, "name")),
                   *hex = json_string_value(json_object_get(f, "id")),
                   *kind = json_string_value(json_object_get(f, "kind"));
        struct id id;
        if (r < 0)
            return r;
        if (!name || strchr(name, '/') || *name == '.' || !*name || !hex ||
            id_parse(hex, &id, NULL) < 0)
            return err_set(e, SF_EFORMAT, "coordinator: a file without a place");
        CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
        if (!path)
            return err_sys(e, ENOMEM, "%s", dir);
        if (!here_already(path, &id))
            r = client_get(cl, &id, path, false, NULL, NULL, e);
        json_t *log = json_object_get(run, kind && !strcmp(kind, "log") ? "log" : "text");
        const char *of = json_string_value(json_object_get(log, "id"));
        if (r >= 0 && of && !strcmp(of, hex))
            json_object_set_new(log, "path", json_str(path));
    }
    return r < 0 ? r : 0;
}

static int fetch_all(struct client *cl, const char *out, const json_t *all, json_t *doc,
                     struct err *e)
{
    const json_t *items = json_object_get(all, "items"), *item;
    json_t *runs = json_object_get(doc, "runs");
    size_t i;
    int r = 0;
    json_array_foreach (items, i, item) {
        const char *state = json_string_value(json_object_get(item, "state"));
        if (r >= 0 && state && !strcmp(state, "done"))
            r = fetch_run(cl, out, item, json_array_get(runs, i), e);
    }
    if (r < 0)
        return r;
    CLEANUP(freep) char *path = path_fmt("%s/collection.json", out);
    CLEANUP(freep) char *text = json_dumps(doc, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    if (!path || !text || (r = dir_make(out, 0755, e)) < 0)
        return r < 0 ? r : err_sys(e, ENOMEM, "%s", out);
    return file_write(path, text, strlen(text), 0644, true, e);
}

/* The first failed run on stderr; how many there are. */
static unsigned tell_failed(const json_t *doc)
{
    const json_t *runs = json_object_get(doc, "runs"), *run;
    unsigned n = 0;
    size_t i;
    json_array_foreach (runs, i, run) {
        const char *s = json_string_value(json_object_get(run, "status")),
                   *why = json_string_value(json_object_get(run, "error")),
                   *agent = json_string_value(json_object_get(run, "agent"));
        if (s && !strcmp(s, "done"))
            continue;
        if (n++ == 0)
            fprintf(stderr, "siofleet: run %zu%s%s: %s\n", i + 1, agent ? " on " : "",
                    agent ? agent : "", why && *why ? why : "failed");
    }
    if (n > 1)
        fprintf(stderr, "siofleet: %u of %zu runs failed; the same command makes them again\n", n,
                json_array_size(runs));
    return n;
}

/* ---- the verb */

static int print_plan(struct cli *c, struct client *cl, const json_t *job, struct err *e)
{
    CLEANUP(json_decrefp) json_t *args = json_pack("{s:O}", "job", job), *doc = NULL;
    int r = client_ask_one(cl, "plan-runs", args, &doc, e);
    if (r < 0)
        return cli_fail(c, e);
    if (c->json) {
        json_t *out = json_pack(
            "{s:s, s:O, s:O, s:O, s:O, s:O, s:O}", "schema", "siofleet.runs/1", "profile",
            json_object_get(job, "profile"), "runs", json_object_get(doc, "runs"), "known",
            json_object_get(doc, "known"), "missing", json_object_get(doc, "missing"), "memory_mib",
            json_object_get(job, "memory_mib"), "cores", json_object_get(job, "cores"));
        return cli_json(c, out);
    }
    const json_t *missing = json_object_get(doc, "missing");
    printf("runs     %" JSON_INTEGER_FORMAT " of profile %s\n",
           json_integer_value(json_object_get(doc, "runs")),
           json_string_value(json_object_get(job, "profile")));
    printf("known    %" JSON_INTEGER_FORMAT " were made before\n",
           json_integer_value(json_object_get(doc, "known")));
    printf("missing  %zu\n", json_array_size(missing));
    printf("needs    %" JSON_INTEGER_FORMAT " MiB of memory and %" JSON_INTEGER_FORMAT
           " cores a run\n",
           json_integer_value(json_object_get(job, "memory_mib")),
           json_integer_value(json_object_get(job, "cores")));
    return cli_flush(c);
}

static int on_fleet(struct cli *c, const struct collect_fleet *f)
{
    struct client_opt o = { f->connect, f->server_key, f->key };
    struct collect_recipe recipe;
    struct id ids[COLLECT_FILES_MAX];
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *job = NULL, *last = NULL, *all = NULL;
    struct msg_submitted sub;
    char hex[ID_HEX_LEN];
    const char *slash = strrchr(f->ini, '/');
    fleet_signals();
    int r = collect_recipe_load(f->ini, &recipe, &e);
    r = r < 0 ? r : client_open(&o, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : collect_put_files(cl, &recipe, ids, &e);
    if (r >= 0 &&
        (r = collect_job(&recipe, ids, slash ? slash + 1 : f->ini, f->labels, f->again, &job)) < 0)
        err_sys(&e, -r, "%s", f->ini);
    collect_recipe_clear(&recipe);
    if (r < 0)
        return cli_fail(c, &e);
    if (f->plan)
        return print_plan(c, cl, job, &e);
    r = job_submit(cl, job, f->request_id, hex, &sub, &e);
    if (r < 0)
        return cli_fail(c, &e);
    if (f->detach) {
        fleet_stop = 0; /* durable: say the id whatever came meanwhile */
        CLEANUP(json_decrefp) json_t *args = json_pack("{s:s}", "id", hex);
        json_t *doc = NULL;
        if (!c->json) {
            puts(hex);
            return cli_flush(c);
        }
        r = client_ask_one(cl, "job", args, &doc, &e);
        return r < 0 ? cli_fail(c, &e) : cli_json(c, doc);
    }
    fprintf(stderr, "collection %.16s: %" PRIu64 " runs, %" PRIu64 " known already\n", hex,
            sub.points, sub.known);
    r = job_follow(cl, hex, JOB_RUNS, false, &last, &e);
    if (r == -ECANCELED && fleet_stop)
        return job_cancel(c, cl, hex);
    r = r < 0 ? r : job_items(cl, hex, &all, &e);
    if (r < 0)
        return cli_fail(c, &e);
    CLEANUP(json_decrefp) json_t *doc = collection_doc(all);
    const char *state = json_string_value(json_object_get(all, "state"));
    if (f->out && (r = fetch_all(cl, f->out, all, doc, &e)) < 0)
        return cli_fail(c, &e);
    unsigned failed = tell_failed(doc);
    int out = 0;
    if (c->json) {
        out = cli_json(c, json_incref(doc));
    } else {
        collect_print(doc);
        out = cli_flush(c);
    }
    return state && !strcmp(state, "cancelled") ? 5 : failed ? 1 : out;
}

void collect_fleet_init(void)
{
    collect_on_fleet = on_fleet;
}
