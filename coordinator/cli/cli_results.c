/* results query, results plot. */
#include <stdio.h>
#include <string.h>

#include "coordinator/cli/chart.h"
#include "coordinator/cli/fleet_run.h"
#include "coordinator/cli/sheet.h"
#include "coordinator/results_local.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

enum { QUERY_TABLE_ROWS = 10000 };

static json_t *query_args(const struct results_opt *o, struct err *e)
{
    if (o->sql)
        return json_pack("{s:o}", "sql", json_str(o->sql));
    json_t *sweeps = json_array(), *where = json_array();
    for (size_t i = 0; i < o->sweep.n; i++)
        json_array_append_new(sweeps, json_str(o->sweep.v[i]));
    for (size_t i = 0; i < o->where.n; i++) {
        const char *eq = strchr(o->where.v[i], '=');
        if (!eq || eq == o->where.v[i]) {
            err_set(e, SF_EUSAGE, "--where: '%.100s' is not COLUMN=VALUE", o->where.v[i]);
            json_decref(sweeps);
            json_decref(where);
            return NULL;
        }
        json_t *key = json_stringn(o->where.v[i], (size_t)(eq - o->where.v[i]));
        json_array_append_new(where, json_pack("[o,o]", key, json_str(eq + 1)));
    }
    return json_pack("{s:o, s:o, s:b}", "sweeps", sweeps, "where", where, "provenance",
                     o->provenance);
}

int results_ask(const struct results_opt *o, struct client *cl,
                int (*part)(void *ctx, json_t *body, struct err *e), void *ctx, struct err *e)
{
    const char *what = o->sql ? "sql" : "results";
    struct err mine = { 0 };
    json_t *args = query_args(o, &mine);
    if (!args)
        return mine.code ? err_set(e, mine.code, "%s", mine.text) : err_sys(e, ENOMEM, "results");
    int r = o->data ? results_local(o->data, what, args, part, ctx, e)
                    : client_ask(cl, what, args, part, ctx, e);
    json_decref(args);
    return r < 0 ? r : 0;
}

/* A mistake in the options is one before anybody is asked. */
static int check(const struct results_opt *o, struct err *e)
{
    if (o->sql && (o->sweep.n || o->where.n || o->provenance))
        return err_set(
            e, SF_EUSAGE,
            "--sql: says everything itself; give no --sweep, --where or --provenance with it");
    if (o->json && o->csv)
        return err_set(e, SF_EUSAGE, "--csv: not together with --json");
    struct results_opt probe = *o;
    struct err mine = { 0 };
    json_t *args = query_args(&probe, &mine);
    json_decref(args);
    return mine.code ? err_set(e, mine.code, "%s", mine.text) : 0;
}

/* ---- query: parts go out as they come; only a table is collected */

struct query_out {
    const struct results_opt *o;
    bool head;
    size_t rows;
    json_t *sheet;
};

static void json_line(const json_t *row, bool first)
{
    CLEANUP(freep) char *s = json_dumps(row, JSON_COMPACT | JSON_ENCODE_ANY);
    printf("%s\n  %s", first ? "" : ",", s ? s : "[]");
}

static int query_part(void *ctx, json_t *body, struct err *e)
{
    struct query_out *w = ctx;
    json_t *rows = json_object_get(body, "rows"), *row;
    const json_t *cols = json_object_get(body, "columns");
    if (!json_is_array(rows) || (!w->head && !json_is_array(cols)))
        return err_set(e, SF_EFORMAT, "results: answer without columns and rows");
    if (!w->o->csv && !w->o->json) {
        w->head = true;
        w->rows += json_array_size(rows);
        return !w->sheet || sheet_n_rows(w->sheet) < QUERY_TABLE_ROWS
                   ? sheet_collect(&w->sheet, body, e)
                   : 0;
    }
    if (!w->head && w->o->csv)
        sheet_csv_head(cols, stdout);
    if (!w->head && w->o->json) {
        CLEANUP(freep) char *s = json_dumps(cols, JSON_COMPACT);
        printf("{\n \"schema\": \"siofleet.results/1\",\n \"columns\": %s,\n \"rows\": [",
               s ? s : "[]");
    }
    w->head = true;
    size_t i;
    json_array_foreach (rows, i, row) {
        if (w->o->csv)
            sheet_csv_row(row, stdout);
        else
            json_line(row, w->rows == 0);
        w->rows++;
    }
    if (ferror(stdout))
        return err_sys(e, errno ? errno : EIO, "standard output");
    return 0;
}

int run_results_query(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct results_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    struct query_out w = { .o = o };
    int r = check(o, &e);
    bool wants = o->provenance;
    o->provenance |= !o->csv && !o->json; /* a table shows why a point failed */
    if (r >= 0 && !o->data)
        r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : results_ask(o, cl, query_part, &w, &e);
    if (r < 0) {
        /* a document that was begun cannot become an error document: the line on stderr has to do */
        c->json = o->json && !w.head;
        if (w.head && (o->csv || o->json))
            putchar('\n');
        json_decref(w.sheet);
        return cli_fail(c, &e);
    }
    if (o->json) {
        if (!w.head)
            printf("{\n \"schema\": \"siofleet.results/1\",\n \"columns\": [],\n \"rows\": [");
        printf("%s]\n}\n", w.rows ? "\n " : "");
    } else if (!o->csv && w.sheet) {
        json_t *shown =
            o->sql ? json_incref(w.sheet) : sheet_digest(w.sheet, QUERY_TABLE_ROWS, wants);
        sheet_print(shown, stdout);
        if (w.rows > sheet_n_rows(shown))
            fprintf(stderr, "siofleet: the first %zu of %zu rows; all of them: --csv\n",
                    sheet_n_rows(shown), w.rows);
        json_decref(shown);
    }
    json_decref(w.sheet);
    return cli_flush(c);
}

/* ---- plot */

int write_out(const char *path, const struct buf *b, bool force, struct err *e)
{
    return file_write(path, b->data ? (const void *)b->data : "", b->len, 0644, force, e);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcmp(s + n - m, end);
}

int run_results_plot(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct results_opt *o = opts;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    if (!o->x || !o->y || !o->out)
        return cli_failf(
            c, SF_EUSAGE,
            "results plot: --x, --y and -o are needed (see siofleet results plot --help)");
    bool html = ends_with(o->out, ".html");
    if (!html && !ends_with(o->out, ".svg"))
        return cli_failf(c, SF_EUSAGE, "-o: '%.200s' ends neither with .svg nor with .html",
                         o->out);
    if (!o->from && !o->sweep.n && !o->data)
        return cli_failf(
            c, SF_EUSAGE,
            "results plot: --sweep ID is needed, or --from FILE ('last' is the newest sweep)");
    if (o->from && (o->sweep.n || o->where.n || o->data))
        return cli_failf(c, SF_EUSAGE,
                         "--from: the whole file is drawn; no --sweep, --where or --data with it");
    if (!o->force && access(o->out, F_OK) == 0)
        return cli_failf(c, EEXIST, "%s: exists already (--force replaces it)", o->out);
    json_t *sheet = NULL;
    o->provenance = html;
    int r = 0;
    if (o->from) {
        r = sheet_load(o->from, &sheet, &e);
    } else {
        r = check(o, &e);
        if (r >= 0 && !o->data)
            r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
        r = r < 0 ? r : results_ask(o, cl, sheet_collect, &sheet, &e);
    }
    if (r >= 0 && (!sheet || !sheet_n_rows(sheet)))
        r = err_set(&e, SF_EFORMAT, "%s: no rows", o->from ? o->from : "results plot");
    struct chart ch = { 0 };
    struct buf b = BUF_INIT(PLOT_SVG_MAX);
    struct chart_want want = { .x = o->x, .y = o->y, .series = o->series, .title = o->title };
    if (r >= 0) {
        r = chart_make(sheet, &want, &ch, &e);
        if (r >= 0)
            r = html ? chart_page(&ch, sheet, o->title, NULL, NULL, &b, &e)
                     : chart_svg(&ch, &b, &e);
        r = r < 0 ? r : write_out(o->out, &b, o->force, &e);
        if (r >= 0) {
            fprintf(stderr, "%s: %zu points in %zu series%s%s\n", o->out, ch.points, ch.plot.n,
                    *ch.series ? " by " : "", ch.series);
            if (ch.skipped)
                fprintf(stderr,
                        "siofleet: %zu rows have no number in '%s' or '%s' and are not drawn\n",
                        ch.skipped, o->x, o->y);
            if (ch.shared)
                fprintf(stderr,
                        "siofleet: %zu marks stand for several points each (mean, bar from lowest "
                        "to highest); more "
                        "--series columns tell them apart\n",
                        ch.shared);
        }
        chart_clear(&ch);
    }
    json_decref(sheet);
    buf_clear(&b);
    return r < 0 ? cli_fail(c, &e) : 0;
}
