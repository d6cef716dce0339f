#include "agent/task.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/collect.h"
#include "agent/runner.h"
#include "agent/spec.h"
#include "agent/spool.h"
#include "perf/arch.h"
#include "perf/build.h"
#include "perf/points.h"
#include "perf/recipe.h"
#include "perf/run.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/base/space.h"
#include "proto/format/row.h"
#include "proto/format/trace.h"
#include "proto/lib/json.h"

static json_t *load(const char *dir, const char *name, size_t cap, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(cap);
    if (!path) {
        err_sys(e, ENOMEM, "%s", dir);
        return NULL;
    }
    if (file_read(path, &b, e) < 0)
        return NULL;
    json_error_t je;
    json_t *j = json_loadb(b.data ? (char *)b.data : "", b.len, JSON_REJECT_DUPLICATES, &je);
    if (!j)
        err_set(e, SF_EFORMAT, "%s:%d: %s", path, je.line, je.text);
    return j;
}

static const char *input_path(const json_t *run, const char *hex)
{
    return hex ? json_string_value(json_object_get(json_object_get(run, "inputs"), hex)) : NULL;
}

/* ---- space */

enum { SPACE_WAIT_MS = 200 };

static bool waits_for_space(void)
{
    const char *low = getenv(TASK_LOW_WATER);
    return low && strtoull(low, NULL, 10) > 0;
}

/* Until there is enough; -ECANCELED when a signal cut it short. full: the disk itself has just said so, whatever is free for others. */
static int wait_for_space(const char *dir, bool full)
{
    static bool told; /* one task a process */
    struct space s = { .low_b =
                           waits_for_space() ? strtoull(getenv(TASK_LOW_WATER), NULL, 10) : 0 };
    const struct timespec nap = { .tv_nsec = SPACE_WAIT_MS * 1000000L };
    char text[SPACE_TEXT_LEN];
    bool waited = false;
    while ((space_look(&s, dir, NULL) == 0 && s.level == SPACE_PAUSED) || full) {
        if (!told)
            log_warn("paused: %s; goes on by itself", space_text(&s, text));
        told = waited = true;
        full = false;
        if (nanosleep(&nap, NULL) < 0)
            return -ECANCELED;
    }
    if (waited && told) {
        log_info("goes on: there is space again");
        told = false;
    }
    return 0;
}

/* ---- points */

struct work {
    struct trace *trace;
    struct id trace_id;
    enum rules rules;
    uint64_t pace_ms;
    uint64_t *index;
    struct arch *arch;
    size_t n;
    const char *dir;
    int fd; /* of rows */
    struct buf scratch;
    struct err *e;
};

static void trace_freep(struct trace **t)
{
    trace_free(t);
}

static void work_clear(struct work *w)
{
    trace_free(&w->trace);
    freep(&w->index);
    freep(&w->arch);
    buf_clear(&w->scratch);
    closep(&w->fd);
}

/* The cache's paths tell the reader of an error nothing. */
static int call_it(const char *kind, const struct id *id, const char *path, int r, struct err *e)
{
    char hex[ID_HEX_LEN], name[32];
    id_hex(id, hex);
    snprintf(name, sizeof(name), "%s %.16s", kind, hex);
    return err_place(e, r, path, name);
}

static int work_parse(struct work *w, const json_t *spec, const json_t *run, struct err *e)
{
    const char *rules = json_string_value(json_object_get(spec, "rules"));
    const char *trace = json_string_value(json_object_get(spec, "trace"));
    const char *path = input_path(run, trace);
    if (!rules || !path || id_parse(trace, &w->trace_id, NULL) < 0)
        return err_set(e, SF_EFORMAT, "task spec: rules or trace are missing");
    int r = points_count(spec, SPEC_POINTS_MAX, e);
    if (r < 0)
        return r;
    w->n = (size_t)r;
    r = rules_parse(rules, "task spec", &w->rules, e);
    if (r < 0)
        return r;
    if (json_object_get(spec, "pace_ms"))
        r = json_get_u64(spec, "pace_ms", &w->pace_ms, e);
    if (r < 0)
        return r;
    w->index = calloc(w->n, sizeof(*w->index));
    w->arch = calloc(w->n, sizeof(*w->arch));
    if (!w->index || !w->arch)
        return err_sys(e, ENOMEM, "task spec");
    r = points_read(spec, w->index, w->arch, e);
    if (r < 0)
        return r;
    r = trace_load(path, 0, &w->trace, e);
    return r < 0 ? call_it("trace", &w->trace_id, path, r, e) : 0;
}

/* One finished point into one row. A point that fails is a result too; what says nothing about the point ends the
 * task. */
static int point_done(void *user, size_t i, const struct point_result *res)
{
    struct work *w = user;
    if (res->status == ROW_FAILED && res->code != -SF_EFAILED && res->code != -SF_EUSAGE)
        return err_set(w->e, -res->code, "%s", res->error);
    uint8_t packed[ROW_STATS_BYTES];
    struct spool_row row = { .index = w->index[i],
                             .status = res->status,
                             .duration_us = res->duration_us };
    if (res->status == ROW_DONE) {
        row_stats_pack(&res->stats, packed);
        row.stats = packed;
        row.n_stats = sizeof(packed);
    } else {
        row.error = res->error;
    }
    arch_point_id(&w->arch[i], w->rules, &w->trace_id, &row.point);
    for (bool full = false;; full = true) {
        struct stat st;
        if (wait_for_space(w->dir, full) < 0)
            return err_set(w->e, ECANCELED, "interrupted");
        int r = fstat(w->fd, &st) < 0 ? -errno : spool_append(w->fd, &row, 1, &w->scratch, w->e);
        if (r != -ENOSPC || !waits_for_space() || ftruncate(w->fd, st.st_size) < 0)
            return r; /* without the torn record the next one would stand behind it */
    }
}

static int run_points_task(const char *dir, const json_t *spec, const json_t *run, uint64_t threads,
                           struct err *e)
{
    CLEANUP(work_clear)
    struct work w = { .dir = dir, .fd = -1, .scratch = BUF_INIT(1 << 16), .e = e };
    int r = work_parse(&w, spec, run, e);
    if (r < 0)
        return r;
    CLEANUP(freep) char *rows = path_fmt("%s/rows", dir);
    if (!rows)
        return err_sys(e, ENOMEM, "%s", dir);
    for (bool full = false; w.fd < 0; full = true) {
        if (wait_for_space(dir, full) < 0)
            return err_set(e, ECANCELED, "interrupted");
        w.fd = open(rows, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (w.fd < 0 && (errno != ENOSPC || !waits_for_space()))
            return err_sys(e, errno, "%s/rows", dir);
    }
    return run_points(w.trace, w.rules, w.arch, w.n, (unsigned)threads, w.pace_ms, point_done, &w,
                      e);
}

/* ---- traces */

static int resolve(void *user, const struct recipe_log *log, char **ret_path, struct err *e)
{
    const json_t *run = user;
    char hex[ID_HEX_LEN];
    id_hex(&log->id, hex);
    const char *path = log->have_id ? input_path(run, hex) : NULL;
    if (!path)
        return err_set(e, ENOENT, "log %s: not among the task's inputs", hex);
    /* a text has no checksum of its own: a log that has rotted in the cache would give another trace, and nobody knew */
    struct id is;
    int r = cid_file(path, &is, NULL, e);
    if (r < 0)
        return r;
    if (!id_eq(&is, &log->id))
        return err_set(e, SF_EINTEGRITY, "log %.16s: damaged in this host's cache", hex);
    *ret_path = strdup(path);
    return *ret_path ? 0 : err_sys(e, ENOMEM, "%s", path);
}

static json_t *trace_info(const struct recipe *rec, const struct trace *t,
                          const struct build_report *rep, const struct id *id, uint64_t bytes)
{
    struct id rid;
    recipe_id(rec, &rid);
    json_t *logs = json_array();
    for (size_t i = 0; i < rep->n_logs; i++) {
        const struct build_log *l = &rep->logs[i];
        json_t *o = json_object();
        json_object_set_new(o, "id", l->have_id ? json_id(&l->id) : json_null());
        json_object_set_new(o, "parsed", json_u64(l->parsed));
        json_object_set_new(o, "ignored", json_u64(l->ignored));
        json_object_set_new(o, "refused", json_u64(l->refused));
        json_object_set_new(o, "devices", json_u64(l->devices));
        json_array_append_new(logs, o);
    }
    json_t *j = json_object();
    json_object_set_new(j, "id", json_id(id));
    json_object_set_new(j, "recipe_id", json_id(&rid));
    json_object_set_new(j, "bytes", json_u64(bytes));
    json_object_set_new(j, "events", json_u64(t->n));
    json_object_set_new(j, "tenants", json_u64(t->head.tenants));
    json_object_set_new(j, "devices", json_u64(t->head.devices));
    json_object_set_new(j, "pages", json_u64(t->n_page));
    json_object_set_new(j, "order", json_string(order_name(rec->order)));
    json_object_set_new(j, "burst", json_u64(t->head.burst));
    json_object_set_new(j, "seed", json_u64(t->head.seed));
    json_object_set_new(j, "replicate", json_u64(t->head.replicate));
    json_object_set_new(j, "rules", json_string(rules_name(rec->rules)));
    json_object_set_new(j, "early_end", json_boolean(t->head.early_end));
    json_object_set_new(j, "logs", logs);
    return j;
}

static int run_trace_task(const char *dir, const json_t *spec, const json_t *run, struct err *e)
{
    CLEANUP(recipe_clear) struct recipe rec;
    recipe_init(&rec);
    if (wait_for_space(dir, false) < 0)
        return err_set(e, ECANCELED, "interrupted");
    int r = recipe_from_json(json_object_get(spec, "recipe"), &rec, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < rec.n_logs; i++)
        freep(&rec.logs[i].path); /* only what the agent itself fetched may be read */
    CLEANUP(trace_freep) struct trace *t = NULL;
    CLEANUP(build_report_clear) struct build_report rep = { 0 };
    const struct build_hooks hooks = { .user = (void *)run, .resolve = resolve };
    r = build_trace(&rec, &hooks, &t, &rep, e);
    for (size_t i = 0; r < 0 && i < rep.n_logs; i++)
        if (rep.logs[i].path)
            call_it("log", &rep.logs[i].id, rep.logs[i].path, r, e);
    if (r < 0)
        return r;
    CLEANUP(freep)
    char *product = path_fmt("%s/product", dir), *info = path_fmt("%s/info.json", dir);
    if (!product || !info)
        return err_sys(e, ENOMEM, "%s", dir);
    struct id id;
    struct stat st;
    r = trace_save(t, product, true, &id, e);
    if (r == 0 && stat(product, &st) < 0)
        r = err_sys(e, errno, "%s", product);
    if (r < 0)
        return r;
    CLEANUP(json_decrefp) json_t *j = trace_info(&rec, t, &rep, &id, (uint64_t)st.st_size);
    CLEANUP(freep) char *text = json_dumps(j, JSON_COMPACT);
    if (!text)
        return err_sys(e, ENOMEM, "%s", info);
    return file_write(info, text, strlen(text), 0600, true, e);
}

/* Something was damaged: say in DIR/whole which inputs are not, so that the host keeps those. It may have the only copy. */
static void tell_whole(const char *dir, const json_t *run)
{
    CLEANUP(freep) char *path = path_fmt("%s/" TASK_WHOLE, dir);
    CLEANUP(buf_clear) struct buf text = BUF_INIT(1 << 20);
    const char *hex;
    json_t *at;
    json_object_foreach (json_object_get(run, "inputs"), hex, at) {
        struct id id, is;
        if (id_parse(hex, &id, NULL) == 0 &&
            cid_file(json_string_value(at), &is, NULL, NULL) == 0 && id_eq(&is, &id) &&
            buf_addf(&text, "%s\n", hex) < 0)
            return;
    }
    if (path && text.len)
        file_write(path, text.data, text.len, 0600, false, NULL);
}

int task_main(const char *dir)
{
    struct err e = { 0 };
    int r = -1;
    struct run_grant g;
    uint64_t threads = 1;
    CLEANUP(json_decrefp) json_t *spec = NULL, *run = NULL;
    if (run_load(dir, &g, &e) == 0)
        spec = load(dir, "spec.json", 1 << 20, &e);
    if (spec)
        run = load(dir, "run.json", 1 << 20, &e);
    if (run && json_get_u64(run, "threads", &threads, &e) == 0)
        r = g.kind == CORE_POINTS    ? run_points_task(dir, spec, run, threads, &e)
            : g.kind == CORE_COLLECT ? collect_task(dir, spec, run, &e)
                                     : run_trace_task(dir, spec, run, &e);
    if (r == 0)
        return 0;
    log_error("%s", e.text[0] ? e.text : err_name(e.code));
    if (e.code == ENOSPC || e.code == EDQUOT)
        return RUN_EXIT_SPACE;
    if (e.code == SF_EUSAGE && spec && g.kind == CORE_TRACE)
        return RUN_EXIT_RECIPE; /* the logs' bytes were checked: every host would say so */
    if (e.code != SF_EINTEGRITY)
        return 1;
    tell_whole(dir, run);
    return RUN_EXIT_INTEGRITY;
}
