/* repro: a row's point run again on this host and compared with what is stored. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cli/fleet_run.h"
#include "coordinator/cli/sheet.h"
#include "perf/run.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

static const char *column(const json_t *sheet, size_t row, const char *name, char room[CELL_LEN])
{
    return cell_text(sheet_cell(sheet, row, sheet_col(sheet, name)), room);
}

/* SWEEP:INDEX, or a point's id: its rows. */
static int find_rows(const struct repro_opt *o, struct client *cl, const char *row, json_t **ret,
                     struct err *e)
{
    char where[160], sweep[129] = "";
    const char *colon = strrchr(row, ':');
    const char *sweeps[1] = { sweep }, *wheres[1] = { where };
    struct results_opt q = { .data = o->data,
                             .provenance = true,
                             .where = { .v = wheres, .n = 1 } };
    if (colon && (size_t)(colon - row) < sizeof(sweep)) {
        snprintf(sweep, sizeof(sweep), "%.*s", (int)(colon - row), row);
        snprintf(where, sizeof(where), "index=%.20s", colon + 1);
        q.sweep.v = sweeps;
        q.sweep.n = 1;
    } else if (strlen(row) >= 8 && strlen(row) <= 64 &&
               strspn(row, "0123456789abcdef") == strlen(row)) {
        snprintf(where, sizeof(where), "point=%s", row);
    } else {
        return err_set(e, SF_EUSAGE,
                       "%.64s: neither SWEEP:INDEX nor 8 or more digits of a point's id", row);
    }
    int r = results_ask(&q, cl, sheet_collect, ret, e);
    if (r >= 0 && (!*ret || !sheet_n_rows(*ret)))
        return err_set(e, ENOENT, "%.128s: no such row", row);
    char a[CELL_LEN], b[CELL_LEN];
    for (size_t i = 1; r >= 0 && i < sheet_n_rows(*ret); i++)
        if (strcmp(column(*ret, i, "point", a), column(*ret, 0, "point", b)) != 0)
            return err_set(e, SF_EUSAGE, "%.64s: stands for several points", row);
    return r;
}

static int parse_row(const json_t *sheet, size_t row, struct arch *arch, enum rules *rules,
                     struct id *trace, struct err *e)
{
    char room[CELL_LEN];
    arch_default(arch);
    for (size_t k = 0; k < ARCH_N; k++) {
        int r = arch_set(arch, arch_names[k], column(sheet, row, arch_names[k], room), "row", e);
        if (r < 0)
            return r;
    }
    int r = rules_parse(column(sheet, row, "rules", room), "row", rules, e);
    const char *hex = column(sheet, row, "trace", room);
    if (r >= 0 && !*hex)
        return err_set(e, ENOENT, "row: its trace was never made, so there is nothing to run");
    return r < 0 ? r : id_parse(hex, trace, e);
}

static int keep_result(void *user, size_t i, const struct point_result *p)
{
    (void)i;
    *(struct point_result *)user = *p;
    return 0;
}

/* The trace into *ret: from the store's folder, or fetched into temp. */
static int get_trace(const struct repro_opt *o, struct client *cl, const struct id *id,
                     const char *temp, struct trace **ret, struct err *e)
{
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    if (o->data) {
        CLEANUP(freep) char *path = path_fmt("%s/cas/%.2s/%s", o->data, hex, hex);
        return path ? trace_load(path, 0, ret, e) : err_sys(e, ENOMEM, "trace");
    }
    int r = client_get(cl, id, temp, true, NULL, NULL, e);
    return r < 0 ? err_wrap(e, r, "trace %.16s", hex) : trace_load(temp, 0, ret, e);
}

static void add_difference(json_t *list, const char *name, const char *stored, const char *now)
{
    json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "column", name, "stored",
                                          json_str(stored), "now", json_str(now)));
}

static json_t *compare(const json_t *sheet, size_t row, const struct point_result *p,
                       const struct id *point)
{
    static const char *const states[] = { "done", "failed", "invalid" };
    char room[CELL_LEN], now[CELL_LEN], hex[ID_HEX_LEN];
    json_t *list = json_array();
    const char *status = column(sheet, row, "status", room);
    if (strcmp(status, states[p->status]) != 0)
        add_difference(list, "status", status, states[p->status]);
    id_hex(point, hex);
    const char *stored = column(sheet, row, "point", room);
    if (strcmp(stored, hex) != 0)
        add_difference(list, "point", stored, hex);
    const uint64_t *stats = (const uint64_t *)(const void *)&p->stats;
    for (size_t k = 0; p->status == ROW_DONE && k < ROW_STATS_N; k++) {
        if (sheet_col(sheet, row_stats_names[k]) < 0)
            continue;
        stored = column(sheet, row, row_stats_names[k], room);
        snprintf(now, sizeof(now), "%" PRIu64, stats[k]);
        if (strcmp(stored, now) != 0)
            add_difference(list, row_stats_names[k], stored, now);
    }
    return list;
}

static void trace_freep(struct trace **t)
{
    trace_free(t);
}

int run_repro(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    struct repro_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *sheet = NULL, *list = NULL;
    CLEANUP(trace_freep) struct trace *t = NULL;
    const char *tmp = getenv("TMPDIR");
    CLEANUP(freep)
    char *temp = path_fmt("%s/siofleet-repro-%d.trc", tmp && *tmp ? tmp : "/tmp", (int)getpid());
    struct arch arch;
    enum rules rules = RULES_MODEL;
    struct id trace, point;
    struct point_result p = { 0 };
    fleet_signals();
    int r = temp ? 0 : err_sys(&e, ENOMEM, "repro");
    if (r >= 0 && !o->data)
        r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    if (r >= 0)
        r = find_rows(o, cl, argv[0], &sheet, &e);
    if (r >= 0)
        r = parse_row(sheet, 0, &arch, &rules, &trace, &e);
    if (r >= 0) {
        r = get_trace(o, cl, &trace, temp, &t, &e);
        unlink(temp);
    }
    if (r >= 0)
        r = run_points(t, rules, &arch, 1, 1, 0, keep_result, &p, &e);
    if (r < 0)
        return cli_fail(c, &e);
    arch_point_id(&arch, rules, &trace, &point);
    list = compare(sheet, 0, &p, &point);
    char room[CELL_LEN], hex[ID_HEX_LEN];
    size_t n = json_array_size(list), i;
    json_t *d;
    id_hex(&point, hex);
    int status;
    if (o->json) {
        status = cli_json(c, json_pack("{s:s, s:b, s:O, s:s, s:o, s:o}", "schema",
                                       "siofleet.repro/1", "equal", n == 0, "differing", list,
                                       "point", hex, "trace", json_id(&trace), "error",
                                       *p.error ? json_str(p.error) : json_null()));
    } else {
        printf("point %s: %s\n", hex, n ? "differs" : "equal");
        json_array_foreach (list, i, d)
            printf("  %s: stored %s, now %s\n", json_string_value(json_object_get(d, "column")),
                   json_string_value(json_object_get(d, "stored")),
                   json_string_value(json_object_get(d, "now")));
        const char *agent = column(sheet, 0, "agent", room);
        if (n && *agent)
            printf("  the row was made on agent '%s'\n", agent);
        status = cli_flush(c);
    }
    if (status || !n)
        return status;
    fprintf(stderr, "siofleet: point %.16s: %zu values differ from the stored row\n", hex, n);
    return 4;
}
