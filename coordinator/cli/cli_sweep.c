/* sweep submit, run, wait. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/cli/cli_collect_fleet.h"
#include "coordinator/cli/fleet_run.h"
#include "coordinator/cli/follow.h"
#include "coordinator/cli/sheet.h"
#include "perf/sweep.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"

enum {
    TABLE_ROWS = 10000,
    WHY_LEN = 600,
    UPLOAD_QUIET_MS = 700,
};

int sweep_open(const char *path, struct sweep **ret, struct err *e)
{
    CLEANUP(sweep_free) struct sweep *s = NULL;
    int r = sweep_load(path, &s, e);
    r = r < 0 ? r : sweep_identify(s, e);
    if (r >= 0 && sweep_collect_text(s)) { /* what is wrong with it is said now, not at the fleet */
        struct collect_recipe run;
        r = collect_recipe_load(sweep_head(s)->collect_run, &run, e);
        collect_recipe_clear(&run);
    }
    if (r >= 0)
        *ret = TAKE(s);
    return r < 0 ? r : 0;
}

int sweep_collect_job(struct sweep *s, struct client *cl, json_t **ret, struct err *e)
{
    struct collect_recipe run;
    struct id ids[COLLECT_FILES_MAX];
    const char *path = sweep_head(s)->collect_run, *slash = strrchr(path, '/');
    int r = collect_recipe_load(path, &run, e);
    if (r >= 0 && cl)
        r = collect_put_files(cl, &run, ids, e);
    for (size_t i = 0; r >= 0 && !cl && i < run.n_files; i++)
        r = cid_file(run.file[i].path, &ids[i], NULL, e);
    if (r >= 0 && collect_job(&run, ids, slash ? slash + 1 : path, NULL, false, ret) < 0)
        r = err_sys(e, ENOMEM, "%s", path);
    collect_recipe_clear(&run);
    return r < 0 ? r : 0;
}

/* ---- submit */

struct upload {
    struct client *cl;
    struct sweep *s;
    struct progress bar;
    char what[120];
    struct err *e;
    uint64_t start_ms, sent_files, sent_b;
    uint64_t size_b; /* of the file that moves; 0 = nothing had to move */
    bool shown;
};

static void upload_moved(void *ctx, uint64_t done_b, uint64_t size_b)
{
    struct upload *u = ctx;
    u->size_b = size_b;
    if (!u->shown && clock_mono_ms() - u->start_ms < UPLOAD_QUIET_MS)
        return; /* what is there at once needs no bar */
    if (!u->shown)
        progress_start(&u->bar, u->what);
    u->shown = true;
    progress_step(&u->bar, done_b >> 10, (size_b + 1023) >> 10);
}

static int upload_file(void *ctx, const char *path, const struct id *id)
{
    struct upload *u = ctx;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    /* what a [trace] names by file= is a trace; everything else that has a path is a log */
    const char *kind = "log";
    uint64_t n = sweep_n_traces(u->s);
    struct sweep_trace t;
    for (uint64_t i = 0; i < n && i < 100000; i++)
        if (sweep_trace(u->s, i, &t, NULL) >= 0 && !t.from_recipe && t.have_id &&
            id_eq(&t.id, id)) {
            kind = "trace";
            break;
        }
    snprintf(u->what, sizeof(u->what), "upload %.90s (KiB)", name);
    u->shown = false;
    u->size_b = 0;
    u->start_ms = clock_mono_ms();
    struct id got;
    int r = client_put(u->cl, path, kind, name, &got, NULL, upload_moved, u, u->e);
    if (u->shown)
        progress_end(&u->bar);
    u->sent_files += u->size_b > 0;
    u->sent_b += u->size_b;
    if (r >= 0 && !id_eq(&got, id))
        r = err_set(u->e, SF_EINTEGRITY, "%s: changed while it was read", path);
    return r < 0 ? r : 0;
}

int sweep_send(struct client *cl, struct sweep *s, const char *request_id,
               struct msg_submitted *ret, struct err *e)
{
    struct upload u = { .cl = cl, .s = s, .e = e };
    int r = sweep_files(s, upload_file, &u);
    if (r < 0)
        return r;
    bool big = u.sent_b >= 1 << 20;
    if (u.sent_files)
        fprintf(stderr, "sent %" PRIu64 " file%s, %.1f %s\n", u.sent_files,
                u.sent_files == 1 ? "" : "s", (double)u.sent_b / (big ? 1048576 : 1024),
                big ? "MiB" : "KiB");
    json_t *j = sweep_json(s);
    if (sweep_collect_text(s)) { /* goes along as the job that it is */
        CLEANUP(json_decrefp) json_t *job = NULL;
        r = sweep_collect_job(s, cl, &job, e);
        CLEANUP(freep) char *text = r < 0 ? NULL : json_canonical(job);
        json_object_set_new(j, "collect", json_str(text));
    }
    CLEANUP(freep) char *text = j && r >= 0 ? json_canonical(j) : NULL;
    json_decref(j);
    if (r < 0)
        return r;
    if (!text)
        return err_sys(e, ENOMEM, "sweep");
    /* a signal in the middle of the submit leaves open whether the sweep exists: the same request id asked again
     * gives its id, and the caller can cancel it */
    struct id nonce;
    char own[ID_HEX_LEN];
    random_bytes(&nonce, sizeof(nonce));
    id_hex(&nonce, own);
    r = client_submit(cl, request_id ? request_id : own, text, strlen(text), ret, e);
    if (r == -ECANCELED) {
        sig_atomic_t sig = fleet_stop;
        fleet_stop = 0;
        int again = client_submit(cl, request_id ? request_id : own, text, strlen(text), ret, e);
        fleet_stop = sig;
        return again < 0 ? again : 0;
    }
    return r < 0 ? r : 0;
}

int run_sweep_submit(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    struct sweep_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    struct msg_submitted sub;
    fleet_signals();
    CLEANUP(sweep_free) struct sweep *s = NULL;
    if (o->request_id && !*o->request_id)
        return cli_failf(c, SF_EUSAGE, "--request-id: is empty");
    int r =
        sweep_open(argv[0], &s, &e); /* a wrong file is exit 2 whether somebody answers or not */
    r = r < 0 ? r : client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : sweep_send(cl, s, o->request_id, &sub, &e);
    if (r < 0)
        return cli_fail(c, &e);
    char hex[ID_HEX_LEN];
    id_hex(&sub.sweep, hex);
    fleet_stop = 0; /* durable: say the id whatever came meanwhile */
    if (o->json) {
        json_t *args = json_pack("{s:s}", "id", hex), *doc = NULL;
        r = client_ask_one(cl, "sweep", args, &doc, &e);
        json_decref(args);
        return r < 0 ? cli_fail(c, &e) : cli_json(c, doc);
    }
    puts(hex);
    return cli_flush(c);
}

/* ---- follow */

static uint64_t num(const json_t *doc, const char *key)
{
    uint64_t v = 0;
    json_get_u64(doc, key, &v, NULL);
    return v;
}

/* A sweep with [collect] is as far as its runs are, until those have ended. */
static void sweep_at(const json_t *doc, struct follow_at *ret)
{
    const json_t *col = json_object_get(doc, "collect");
    if (json_is_object(col) && !follow_ended(json_string_value(json_object_get(col, "state"))))
        *ret =
            (struct follow_at){ "runs", num(col, "done") + num(col, "failed"), num(col, "runs") };
    else
        *ret = (struct follow_at){ "points",
                                   num(doc, "done") + num(doc, "failed") + num(doc, "invalid"),
                                   num(doc, "points") };
}

int sweep_follow(struct client *cl, const char *id, uint64_t deadline_ms,
                 int (*tick)(void *ctx, const json_t *sweep, struct err *e), void *ctx,
                 json_t **ret, struct err *e)
{
    return follow(cl,
                  &(struct follow){ .what = "sweep",
                                    .id = id,
                                    .deadline_ms = deadline_ms,
                                    .at = sweep_at,
                                    .tick = tick,
                                    .ctx = ctx },
                  ret, e);
}

/* The first failed row's index and reason into out; "" when they cannot be had. */
static int first_failed(void *ctx, json_t *body, struct err *e)
{
    char *out = ctx;
    char room[CELL_LEN], index[CELL_LEN];
    (void)e;
    if (!*out && sheet_n_rows(body)) {
        const char *why = cell_text(sheet_cell(body, 0, sheet_col(body, "error")), room);
        snprintf(out, WHY_LEN, "; the first: point %s: %s",
                 cell_text(sheet_cell(body, 0, sheet_col(body, "index")), index),
                 *why ? why : "failed");
    }
    return 0;
}

int sweep_verdict(struct client *cl, const json_t *sweep)
{
    const char *state = json_string_value(json_object_get(sweep, "state"));
    const char *id = json_string_value(json_object_get(sweep, "sweep"));
    uint64_t failed = num(sweep, "failed"), points = num(sweep, "points");
    id = id ? id : "?";
    if (state && !strcmp(state, "cancelled")) {
        fprintf(stderr,
                "siofleet: sweep %.16s: cancelled after %" PRIu64 " of %" PRIu64 " points\n", id,
                num(sweep, "done"), points);
        return 5;
    }
    if (state && !strcmp(state, "quarantined")) {
        fprintf(stderr,
                "siofleet: sweep %.16s: %" PRIu64 " of %" PRIu64
                " points are in quarantine; `siofleet why %.16s` says why, `siofleet retry %.16s` "
                "lets them run again\n",
                id, num(sweep, "quarantined"), points, id, id);
        return 1;
    }
    const json_t *col = json_object_get(sweep, "collect");
    const char *made = json_string_value(json_object_get(col, "state"));
    if (made && !strcmp(made, "failed")) {
        fprintf(stderr,
                "siofleet: sweep %.16s: its collection failed: %" PRIu64 " of %" PRIu64
                " runs; `siofleet why %.16s` says how\n",
                id, num(col, "failed"), num(col, "runs"), id);
        return 1;
    }
    if (failed || !state || strcmp(state, "done") != 0) {
        char why[WHY_LEN] = "";
        const char *one[1] = { id }, *where[1] = { "status=failed" };
        struct results_opt q = { .sweep = { .v = one, .n = 1 },
                                 .where = { .v = where, .n = 1 },
                                 .provenance = true };
        if (failed)
            results_ask(&q, cl, first_failed, why, NULL);
        fprintf(stderr, "siofleet: sweep %.16s: %" PRIu64 " of %" PRIu64 " points failed%s\n", id,
                failed, points, why);
        return 1;
    }
    return 0;
}

/* ---- run */

struct rows_out {
    FILE *f; /* CSV, or NULL */
    bool head;
    json_t *sheet; /* for the table; the first TABLE_ROWS rows */
    uint64_t rows;
};

static int rows_part(void *ctx, json_t *body, struct err *e)
{
    struct rows_out *w = ctx;
    json_t *rows = json_object_get(body, "rows"), *row;
    const json_t *cols = json_object_get(body, "columns");
    if (!json_is_array(rows) || (!w->head && !json_is_array(cols)))
        return err_set(e, SF_EFORMAT, "coordinator: answer without columns and rows");
    if (!w->head && w->f)
        sheet_csv_head(cols, w->f);
    w->head = true;
    size_t i;
    if (w->f)
        json_array_foreach (rows, i, row)
            sheet_csv_row(row, w->f);
    w->rows += json_array_size(rows);
    if (sheet_n_rows(w->sheet) < TABLE_ROWS || !w->sheet)
        return sheet_collect(&w->sheet, body, e);
    return 0;
}

static int rows_of_sweep(struct client *cl, const char *id, struct rows_out *w, struct err *e)
{
    const char *one[1] = { id };
    /* the table for people shows why a point failed; the CSV has the default columns and nothing else */
    struct results_opt q = { .sweep = { .v = one, .n = 1 }, .provenance = !w->f };
    return results_ask(&q, cl, rows_part, w, e);
}

/* Ends with -E2BIG once the table is full. */
static int first_rows(void *ctx, json_t *body, struct err *e)
{
    json_t **sheet = ctx;
    int r = sheet_collect(sheet, body, e);
    return r < 0 ? r : sheet_n_rows(*sheet) >= TABLE_ROWS ? -E2BIG : 0;
}

/* Rows that were asked for as CSV have no reasons. The table of a sweep where some points failed asks for its rows
 * again, with them; it stays as it is where they cannot be had. */
static void add_reasons(struct client *cl, const char *id, struct rows_out *w)
{
    const char *one[1] = { id };
    struct results_opt q = { .sweep = { .v = one, .n = 1 }, .provenance = true };
    json_t *sheet = NULL;
    results_ask(&q, cl, first_rows, &sheet, NULL);
    if (sheet && sheet_n_rows(sheet) >= sheet_n_rows(w->sheet)) {
        json_t *plain = w->sheet;
        w->sheet = sheet;
        sheet = plain;
    }
    json_decref(sheet);
}

static int rows_to_file(struct client *cl, const char *id, const char *path, bool force,
                        struct rows_out *w, struct err *e)
{
    struct file_new f = { .fd = -1 };
    int r = file_begin(&f, path, 0644, force, e);
    if (r < 0)
        return r;
    int fd = dup(f.fd);
    w->f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!w->f)
        r = err_sys(e, errno, "%s", path);
    r = r < 0 ? r : rows_of_sweep(cl, id, w, e);
    if (w->f && fclose(w->f) != 0 && r >= 0)
        r = err_sys(e, errno, "%s", path);
    w->f = NULL;
    if (r >= 0)
        r = file_commit(&f, e);
    file_abort(&f);
    return r;
}

int run_sweep_run(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    struct sweep_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    struct msg_submitted sub;
    bool to_stdout = o->csv && !strcmp(o->csv, "-");
    fleet_signals();
    if (o->csv && !to_stdout && !o->force && access(o->csv, F_OK) == 0)
        return cli_failf(c, EEXIST, "%s: exists already (--force replaces it)", o->csv);
    if (to_stdout && o->json)
        return cli_failf(c, SF_EUSAGE, "--csv: - and --json both want standard output");
    CLEANUP(sweep_free) struct sweep *s = NULL;
    if (o->request_id && !*o->request_id)
        return cli_failf(c, SF_EUSAGE, "--request-id: is empty");
    int r =
        sweep_open(argv[0], &s, &e); /* a wrong file is exit 2 whether somebody answers or not */
    r = r < 0 ? r : client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : sweep_send(cl, s, o->request_id, &sub, &e);
    if (r < 0)
        return cli_fail(c, &e);
    char hex[ID_HEX_LEN];
    id_hex(&sub.sweep, hex);
    fprintf(stderr, "sweep %.16s: %" PRIu64 " points, %" PRIu64 " known already\n", hex, sub.points,
            sub.known);
    json_t *doc = NULL;
    r = sweep_follow(cl, hex, 0, NULL, NULL, &doc, &e);
    if (r < 0 && fleet_stop) {
        /* the signal asked for the end of the sweep, not only of this command */
        int sig = fleet_stop;
        fleet_stop = 0;
        json_decref(doc);
        doc = NULL;
        struct err ce = { 0 };
        if (client_control(cl, "cancel", hex, NULL, &ce) < 0)
            return cli_failf(c, ECANCELED, "sweep %.16s: %s, and it could not be cancelled: %s",
                             hex, sig == SIGINT ? "interrupted" : "terminated", ce.text);
        return cli_failf(c, ECANCELED, "sweep %.16s: %s, cancelled", hex,
                         sig == SIGINT ? "interrupted" : "terminated");
    }
    if (r < 0) {
        json_decref(doc);
        return cli_fail(c, &e);
    }
    struct rows_out w = { .f = to_stdout ? stdout : NULL };
    r = o->csv && !to_stdout ? rows_to_file(cl, hex, o->csv, o->force, &w, &e)
                             : rows_of_sweep(cl, hex, &w, &e);
    int status = r < 0 ? cli_fail(c, &e) : sweep_verdict(cl, doc);
    if (r >= 0 && o->json) {
        int out = cli_json(c, json_incref(doc));
        status = status ? status : out;
    } else if (r >= 0 && !to_stdout && w.sheet) {
        if (o->csv && num(doc, "failed") + num(doc, "invalid"))
            add_reasons(cl, hex, &w);
        json_t *digest = sheet_digest(w.sheet, TABLE_ROWS, false);
        sheet_print(digest, stdout);
        if (w.rows > sheet_n_rows(digest))
            fprintf(stderr,
                    "siofleet: the first %zu of %" PRIu64 " rows; all of them: --csv FILE\n",
                    sheet_n_rows(digest), w.rows);
        json_decref(digest);
        int out = cli_flush(c);
        status = status ? status : out;
    } else if (r >= 0) {
        int out = cli_flush(c);
        status = status ? status : out;
    }
    json_decref(w.sheet);
    json_decref(doc);
    return status;
}

int run_sweep_wait(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    struct sweep_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    json_t *doc = NULL;
    fleet_signals();
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    if (r >= 0 && o->timeout_ms.set && o->timeout_ms.v == 0)
        o->timeout_ms.v = 1;
    r = r < 0 ? r : sweep_follow(cl, argv[0], o->timeout_ms.v, NULL, NULL, &doc, &e);
    int status = r < 0 ? cli_fail(c, &e) : sweep_verdict(cl, doc);
    if (r >= 0 && o->json) {
        int out = cli_json(c, json_incref(doc));
        status = status ? status : out;
    }
    json_decref(doc);
    return status;
}
