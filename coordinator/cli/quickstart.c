/* quickstart: the whole way on one host. A log collected here from a real guest, a coordinator and two agents as separate
 * processes on loopback, real keys, real logs, two sweeps, their results as CSV, picture and page; then everything is
 * stopped.
 *
 * The store stays (under $XDG_DATA_HOME), so that a second run shows what a fleet does with what it knows: nothing again.
 */
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>

#include "coordinator/cli/chart.h"
#include "coordinator/cli/fleet_run.h"
#include "coordinator/cli/live.h"
#include "coordinator/cli/procs.h"
#include "coordinator/cli/sheet.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/link/keys.h"

enum {
    AGENTS = 2,
    READY_MS = 30000,
    STOP_MS = 10000,
    STOP_NOW_MS = 1500,
    STALL_MS = 45000,
    SPACE_MIB = 24
};

/* 24 devices a log and five logs hold 120 tenants: all real, none replicated. All tenants use the same few addresses, so
 * a larger IOTLB helps through its ways, not through its sets: the 8 sets stay, which is also what the 8 partitions of
 * hypertrio need at least. */
#define SIZES(X, preset)                                                                           \
    X(preset, 64, 8)                                                                               \
    X(preset, 128, 16)                                                                             \
    X(preset, 256, 32) X(preset, 512, 64) X(preset, 1024, 128) X(preset, 2048, 256)
#define SECTION(preset, entries, ways)                                                             \
    "\n[arch " #preset "-" #entries "]\n"                                                          \
    "preset = " #preset "\niotlb_entries = " #entries "\niotlb_ways = " #ways "\n"
static const char SWEEP[] =
    "# Written by siofleet quickstart: 4 traces x 12 architectures.\n"
    "[sweep]\n"
    "name = quickstart\n"
    "\n"
    "[trace]\n"
    "logs = logs/e1000-24nic-*.log.zst\n"
    "tenants = 4,24,72,120\n" SIZES(SECTION, default) SIZES(SECTION, hypertrio);

/* The log collected here is a series of its own: one guest's cards, so 1 to 4 tenants. */
static const char SWEEP_LIVE[] =
    "# Written by siofleet quickstart: 3 traces x 2 architectures.\n"
    "[sweep]\n"
    "name = quickstart-live\n"
    "\n"
    "[trace]\n"
    "logs = " LIVE_LOG "\n"
    "devices_per_log = 4\n"
    "tenants = 1,2,4\n" SECTION(default, 64, 8) SECTION(hypertrio, 64, 8);

struct quick {
    const struct quickstart_opt *o;
    char *dir;  /* store and keys */
    char *out;  /* what the user looks at */
    char *self; /* this program */
    int lock;
    struct procs procs;
    char endpoint[128];
    struct client *cl;
    char sweep
        [2]
        [ID_HEX_LEN]; /* of the logs that come along, of the one collected here; "" = not submitted */
    uint64_t points, known;
    bool live, live_kept;   /* there is a log collected here; by an earlier run */
    struct err live_why;    /* why there is none, though it was wanted */
    uint64_t seen, seen_ms; /* points at the last change, and when */
};

static char *at(const struct quick *q, const char *name)
{
    return path_fmt("%s/%s", q->dir, name);
}

/* Whether the folder holds the logs. */
static bool has_logs(const char *dir)
{
    glob_t g;
    CLEANUP(freep) char *pattern = path_fmt("%s/e1000-24nic-*.log.zst", dir);
    bool ok = pattern && glob(pattern, 0, NULL, &g) == 0;
    if (ok) {
        ok = g.gl_pathc >= 5;
        globfree(&g);
    }
    return ok;
}

/* The logs that come with the program: --logs, else near the program (a build folder inside the checkout, or an installed
 * tree). Owned; NULL = nowhere. */
static char *find_logs(const struct quick *q)
{
    if (q->o->logs)
        return has_logs(q->o->logs) ? realpath(q->o->logs, NULL) : NULL;
    CLEANUP(freep) char *up = strdup(q->self);
    for (int k = 0; up && k < 6; k++) {
        char *slash = strrchr(up, '/');
        if (!slash)
            break;
        *slash = '\0';
        static const char *const places[] = { "tests/data/real-log", "share/siofleet/real-log" };
        for (size_t i = 0; i < ARRAY_LEN(places); i++) {
            char *dir = path_fmt("%s/%s", up, places[i]);
            if (dir && has_logs(dir))
                return dir;
            free(dir);
        }
    }
    return NULL;
}

/* Folders, lock, logs, sweep file. */
static int prepare(struct quick *q, struct err *e)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0)
        return err_sys(e, errno, "/proc/self/exe");
    self[n] = '\0';
    q->self = strdup(self);
    if (q->o->data) {
        q->dir = strdup(q->o->data);
    } else {
        CLEANUP(freep) char *base = path_xdg("DATA");
        q->dir = base ? path_fmt("%s/quickstart", base) : NULL;
    }
    if (q->o->out && !*q->o->out)
        return err_set(e, SF_EUSAGE, "--out: is empty");
    q->out = q->o->out ? strdup(q->o->out) : q->dir ? path_fmt("%s/out", q->dir) : NULL;
    if (!q->self || !q->dir || !q->out)
        return err_sys(e, ENOMEM, "quickstart");
    CLEANUP(freep) char *logs = find_logs(q);
    if (!logs)
        return err_set(
            e, ENOENT,
            "%s: no e1000-24nic-*.log.zst there; they come with the source, in tests/data/real-log",
            q->o->logs ? q->o->logs : "--logs");
    CLEANUP(freep)
    char *run = at(q, "run"), *link = at(q, "logs"), *ini = at(q, "sweep.ini"),
         *live = at(q, "sweep-live.ini"), *lock = at(q, "lock");
    int r = dir_make(run, 0700, e);
    r = r < 0 ? r : dir_make(q->out, 0755, e);
    if (r < 0)
        return r;
    struct statvfs fs;
    if (statvfs(q->dir, &fs) == 0 && ((uint64_t)fs.f_bavail * fs.f_frsize) >> 20 < SPACE_MIB)
        return err_set(e, ENOSPC, "%s: less than %d MiB left on the device", q->dir, SPACE_MIB);
    q->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (q->lock < 0)
        return err_sys(e, errno, "%s", lock);
    if (flock(q->lock, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, EBUSY, "%s: another quickstart is running", q->dir);
    unlink(link);
    if (symlink(logs, link) < 0)
        return err_sys(e, errno, "%s", link);
    r = file_write(ini, SWEEP, sizeof(SWEEP) - 1, 0644, true, e);
    return r < 0 ? r : file_write(live, SWEEP_LIVE, sizeof(SWEEP_LIVE) - 1, 0644, true, e);
}

/* Without a log of its own the quickstart goes on with those that come along, and says so at its end. */
static int collect(struct quick *q, struct err *e)
{
    if (q->o->offline)
        return 0;
    struct procs one = { .n = 0 };
    int r = live_collect(&one, q->self, q->dir, &fleet_stop, &q->live_kept, &q->live_why);
    procs_stop(&one, STOP_MS);
    q->live = r >= 0;
    if (r == -ECANCELED)
        return err_set(e, ECANCELED, "%s", q->live_why.text);
    return 0;
}

/* ---- the fleet */

static int start_coordinator(struct quick *q, struct err *e)
{
    CLEANUP(freep)
    char *data = at(q, "coordinator"), *ready = at(q, "run/coordinator.ready"),
         *log = at(q, "coordinator.log");
    unlink(ready);
    char *argv[] = { q->self,
                     (char *)"coordinator",
                     (char *)"--data",
                     data,
                     (char *)"--listen",
                     (char *)"tcp://127.0.0.1:*",
                     (char *)"--heartbeat-ms",
                     (char *)"500",
                     (char *)"--ready-file",
                     ready,
                     NULL };
    json_t *doc = NULL;
    int r = procs_start(&q->procs, "coordinator", argv, log, e);
    r = r < 0 ? r : procs_ready(&q->procs.p[q->procs.n - 1], ready, READY_MS, &fleet_stop, &doc, e);
    if (r >= 0) {
        const char *ep = json_string_value(json_object_get(doc, "endpoint"));
        if (!ep || strlen(ep) >= sizeof(q->endpoint))
            r = err_set(e, SF_EFORMAT, "%s: no endpoint", ready);
        else
            strcpy(q->endpoint, ep);
    }
    json_decref(doc);
    return r;
}

static int start_agent(struct quick *q, int i, unsigned cores, struct err *e)
{
    char name[32], n_cores[16];
    snprintf(name, sizeof(name), "quick%d", i + 1);
    snprintf(n_cores, sizeof(n_cores), "%u", cores);
    CLEANUP(freep)
    char *dir = at(q, name), *key = path_fmt("%s/key", dir), *pub = path_fmt("%s/key.pub", dir),
         *ready = path_fmt("%s/run/%s.ready", q->dir, name),
         *log = path_fmt("%s/%s.log", q->dir, name),
         *server = at(q, "coordinator/keys/coordinator.pub"), *data = at(q, "coordinator");
    int r = dir_make(dir, 0700, e);
    struct key_pub kp;
    if (r >= 0 && access(key, F_OK) != 0)
        r = key_new(key, ROLE_AGENT, name, NULL, e);
    r = r < 0 ? r : key_load_pub(pub, &kp, e);
    r = r < 0 ? r : keys_allow(data, &kp, e);
    if (r < 0)
        return r;
    unlink(ready);
    char *argv[] = { q->self,
                     (char *)"agent",
                     (char *)"--data",
                     dir,
                     (char *)"--connect",
                     q->endpoint,
                     (char *)"--server-key",
                     server,
                     (char *)"--key",
                     key,
                     (char *)"--name",
                     name,
                     (char *)"--cores",
                     n_cores,
                     (char *)"--ready-file",
                     ready,
                     NULL };
    return procs_start(&q->procs, name, argv, log, e);
}

static int start_fleet(struct quick *q, struct err *e)
{
    int r = start_coordinator(q, e);
    if (r < 0)
        return r;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned cores = cpus > AGENTS ? (unsigned)(cpus / AGENTS) : 1;
    for (int i = 0; i < AGENTS && r >= 0; i++)
        r = start_agent(q, i, cores, e);
    for (int i = 0; i < AGENTS && r >= 0; i++) {
        CLEANUP(freep) char *ready = path_fmt("%s/run/quick%d.ready", q->dir, i + 1);
        json_t *doc = NULL;
        r = procs_ready(&q->procs.p[1 + i], ready, READY_MS, &fleet_stop, &doc, e);
        json_decref(doc);
    }
    if (r >= 0)
        fprintf(stderr,
                "fleet: coordinator on %s and %d agents of %u core%s, every link encrypted\n",
                q->endpoint, AGENTS, cores, cores == 1 ? "" : "s");
    return r;
}

/* A fleet waits for ever for an agent or for space on its disk; somebody who tries the program does not. */
static int watch(void *ctx, const json_t *sweep, struct err *e)
{
    struct quick *q = ctx;
    uint64_t n = 0, now = clock_mono_ms();
    int r = procs_check(&q->procs, e);
    if (r < 0)
        return r;
    json_get_u64(sweep, "done", &n, NULL);
    if (n != q->seen || !q->seen_ms) {
        q->seen = n;
        q->seen_ms = now;
    }
    if (now - q->seen_ms < STALL_MS)
        return 0;
    char said[300];
    procs_said(&q->procs.p[0], said, sizeof(said));
    return err_set(e, SF_EFAILED, "quickstart: no new point for %d s (logs in %s); coordinator: %s",
                   STALL_MS / 1000, q->dir, said);
}

static int run_sweep(struct quick *q, int which, struct err *e)
{
    CLEANUP(freep)
    char *server = at(q, "coordinator/keys/coordinator.pub"),
         *key = at(q, "coordinator/keys/admin"),
         *ini = at(q, which ? "sweep-live.ini" : "sweep.ini");
    struct client_opt co = { .connect = q->endpoint, .server_key = server, .key = key };
    struct msg_submitted sub;
    CLEANUP(sweep_free) struct sweep *s = NULL;
    int r = sweep_open(ini, &s, e);
    r = r < 0 || q->cl ? r : client_open(&co, READY_MS, &fleet_stop, &q->cl, e);
    r = r < 0 ? r : sweep_send(q->cl, s, NULL, &sub, e);
    if (r < 0)
        return r;
    id_hex(&sub.sweep, q->sweep[which]);
    q->points += sub.points;
    q->seen_ms = 0;
    fprintf(stderr, "sweep: %" PRIu64 " points: %s\n", sub.points,
            which ? "1, 2 and 4 tenants of the log collected here x 2 architectures"
                  : "4, 24, 72 and 120 tenants of real logs x 12 architectures");
    json_t *doc = NULL;
    r = sweep_follow(q->cl, q->sweep[which], 0, watch, q, &doc, e);
    if (r >= 0 && sweep_verdict(q->cl, doc) != 0)
        r = err_set(e, SF_EFAILED, "quickstart: the sweep did not succeed; see %s/*.log", q->dir);
    /* `known` of the last document counts points that became known through a trace made earlier, too */
    uint64_t known = 0;
    if (r >= 0)
        json_get_u64(doc, "known", &known, NULL);
    q->known += known > sub.known ? known : sub.known;
    json_decref(doc);
    if (r == -ETIMEDOUT || r == -SF_ENOFLEET) {
        struct err why;
        if (procs_check(&q->procs, &why) < 0)
            return err_set(e, why.code, "%s", why.text);
    }
    return r;
}

/* ---- what came out */

static int ask_rows(struct quick *q, bool provenance, json_t **ret, struct err *e)
{
    const char *ids[2] = { q->sweep[0], q->sweep[1] };
    struct results_opt ro = { .sweep = { .v = ids, .n = q->live ? 2 : 1 },
                              .provenance = provenance };
    return results_ask(&ro, q->cl, sheet_collect, ret, e);
}

static bool is_live(const json_t *sheet, size_t row)
{
    char room[CELL_LEN];
    return !strcmp(cell_text(sheet_cell(sheet, row, sheet_col(sheet, "name")), room),
                   "quickstart-live");
}

/* The y of a design at one number of tenants and one IOTLB size, in ppm; -1 = no such row. */
static double util(const json_t *sheet, bool live, bool hyper, const char *tenants,
                   const char *entries)
{
    char room[CELL_LEN];
    for (size_t i = 0; i < sheet_n_rows(sheet); i++) {
        double v;
        if (is_live(sheet, i) != live ||
            strcmp(cell_text(sheet_cell(sheet, i, sheet_col(sheet, "tenants")), room), tenants) !=
                0 ||
            strcmp(cell_text(sheet_cell(sheet, i, sheet_col(sheet, "iotlb_entries")), room),
                   entries) != 0)
            continue;
        bool is =
            strcmp(cell_text(sheet_cell(sheet, i, sheet_col(sheet, "queue")), room), "1") != 0;
        if (is == hyper && cell_number(sheet_cell(sheet, i, sheet_col(sheet, "util_ppm")), &v))
            return v;
    }
    return -1;
}

static const char *const TENANTS[] = { "4", "24", "72", "120" };
static const char *const ENTRIES[] = { "64", "128", "256", "512", "1024", "2048" };

static void add_cell(struct table *t, double ppm)
{
    if (ppm < 0)
        table_cell(t, "-");
    else
        table_cell(t, "%.1f%%", ppm / 10000);
}

/* The same rows with a column that tells the log collected here from the others: the chart's series. Shares the cells. */
static json_t *with_design(const json_t *sheet)
{
    json_t *copy =
        json_pack("{s:o, s:[]}", "columns", json_copy(json_object_get(sheet, "columns")), "rows");
    json_array_append_new(json_object_get(copy, "columns"), json_string("design"));
    for (size_t i = 0; i < sheet_n_rows(sheet); i++) {
        json_t *row = json_copy(json_array_get(json_object_get(sheet, "rows"), i));
        const char *d = sheet_design(sheet, i);
        json_array_append_new(row,
                              json_sprintf("%s%s", is_live(sheet, i) ? "live " : "", d ? d : ""));
        json_array_append_new(json_object_get(copy, "rows"), row);
    }
    return copy;
}

static void print_table(const struct quick *q, const json_t *sheet)
{
    static const char *const names[] = { "design",     "IOTLB",      "4 tenants",
                                         "24 tenants", "72 tenants", "120 tenants" };
    struct table *t = table_new(names, ARRAY_LEN(names));
    for (int h = 0; t && h < 2; h++)
        for (size_t s = 0; s < ARRAY_LEN(ENTRIES); s++) {
            table_cell(t, h ? "hypertrio" : "default");
            table_cell(t, "%s", ENTRIES[s]);
            for (size_t k = 0; k < ARRAY_LEN(TENANTS); k++)
                add_cell(t, util(sheet, false, h, TENANTS[k], ENTRIES[s]));
        }
    printf("Utilisation of a 200 Gb/s link, by design and IOTLB entries:\n\n");
    if (t)
        table_print(t, stdout);
    table_free(&t);
    if (!q->live)
        return;
    static const char *const few[] = { "1", "2", "4" };
    static const char *const heads[] = { "design", "IOTLB", "1 tenant", "2 tenants", "4 tenants" };
    t = table_new(heads, ARRAY_LEN(heads));
    for (int h = 0; t && h < 2; h++) {
        table_cell(t, h ? "hypertrio" : "default");
        table_cell(t, "%s", ENTRIES[0]);
        for (size_t k = 0; k < ARRAY_LEN(few); k++)
            add_cell(t, util(sheet, true, h, few[k], ENTRIES[0]));
    }
    printf("\nThe log collected on this host:\n\n");
    if (t)
        table_print(t, stdout);
    table_free(&t);
}

static int write_results(struct quick *q, json_t **ret_sheet, struct err *e)
{
    CLEANUP(freep)
    char *csv = path_fmt("%s/results.csv", q->out), *svg = path_fmt("%s/plot.svg", q->out),
         *html = path_fmt("%s/report.html", q->out), *text = NULL;
    json_t *sheet = NULL, *prov = NULL, *drawn = NULL;
    struct chart c = { 0 };
    struct buf b = BUF_INIT(PLOT_SVG_MAX);
    size_t n = 0;
    int r = ask_rows(q, false, &sheet, e);
    r = r < 0 ? r : ask_rows(q, true, &prov, e);
    if (r >= 0 && sheet_n_rows(sheet) != q->points)
        r = err_set(e, SF_EINTEGRITY, "quickstart: %zu rows for %" PRIu64 " points",
                    sheet_n_rows(sheet), q->points);
    if (r >= 0) {
        FILE *f = open_memstream(&text, &n);
        if (f) {
            sheet_csv_head(json_object_get(sheet, "columns"), f);
            for (size_t i = 0; i < sheet_n_rows(sheet); i++)
                sheet_csv_row(json_array_get(json_object_get(sheet, "rows"), i), f);
        }
        if (!f || fclose(f) != 0)
            r = err_sys(e, ENOMEM, "%s", csv);
    }
    r = r < 0 ? r : file_write(csv, text, n, 0644, true, e);
    char title[160], lead[400];
    if (r >= 0) {
        double d = util(sheet, false, false, "120", "64"),
               h = util(sheet, false, true, "120", "64");
        snprintf(title, sizeof(title),
                 "120 tenants on one 200 Gb/s link: default uses %.0f %%, hypertrio %.0f %%",
                 d / 10000, h / 10000);
        snprintf(lead, sizeof(lead),
                 "%" PRIu64
                 " points of the I/O-translation model over IOMMU logs of real guests with 24 "
                 "network cards each: utilisation of a 200 Gb/s link against the number of "
                 "tenants, for the default design and for hypertrio (partitioned caches, a "
                 "deeper queue, prefetching), with IOTLBs of 64 to 2048 entries.%s",
                 q->points,
                 q->live ? " The series called live come from a guest with 4 cards that ran on "
                           "this host."
                         : "");
        struct chart_want w = {
            .x = "tenants",
            .y = "util_ppm",
            .series = "design,iotlb_entries",
            .title = title,
            .subtitle = q->live ? "IOMMU logs of real 24-NIC guests, and live: of a 4-NIC guest on "
                                  "this host"
                                : "IOMMU logs of real 24-NIC guests; IOTLBs of 64 to 2048 entries"
        };
        drawn = with_design(prov);
        r = drawn ? chart_make(drawn, &w, &c, e) : err_sys(e, ENOMEM, "%s", svg);
        r = r < 0 ? r : chart_svg(&c, &b, e);
        r = r < 0 ? r : write_out(svg, &b, true, e);
        buf_reset(&b);
        r = r < 0 ? r : chart_page(&c, prov, "siofleet quickstart", lead, SWEEP, &b, e);
        r = r < 0 ? r : write_out(html, &b, true, e);
    }
    chart_clear(&c);
    buf_clear(&b);
    json_decref(drawn);
    json_decref(prov);
    *ret_sheet = sheet;
    return r < 0 ? r : 0;
}

/* ---- */

static void stop_fleet(struct quick *q, bool failed)
{
    /* tasks outlive their agent on purpose, so an unfinished sweep is called off first */
    for (int i = 0; i < 2; i++)
        if (failed && q->cl && q->sweep[i][0]) {
            fleet_stop = 0;
            client_control(q->cl, "cancel", q->sweep[i], NULL, NULL);
        }
    client_free(&q->cl);
    procs_stop(&q->procs, failed ? STOP_NOW_MS : STOP_MS);
    if (q->dir) {
        CLEANUP(freep) char *run = at(q, "run");
        if (run)
            dir_remove(run, NULL);
    }
}

/* {log, kept, error}; null with --offline. */
static json_t *live_json(const struct quick *q)
{
    if (q->o->offline)
        return json_null();
    CLEANUP(freep) char *log = at(q, LIVE_LOG);
    return json_pack("{s:o, s:b, s:o}", "log", q->live ? json_str(log) : json_null(), "kept",
                     q->live_kept, "error", q->live ? json_null() : json_str(q->live_why.text));
}

int run_quickstart(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct quickstart_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    struct quick q = { .o = o, .lock = -1 };
    uint64_t start = clock_mono_ms();
    json_t *sheet = NULL;
    fleet_signals();
    int r = prepare(&q, &e);
    bool locked = r >= 0;
    r = r < 0 ? r : collect(&q, &e);
    r = r < 0 ? r : start_fleet(&q, &e);
    r = r < 0 ? r : run_sweep(&q, 0, &e);
    r = r < 0 || !q.live ? r : run_sweep(&q, 1, &e);
    r = r < 0 ? r : write_results(&q, &sheet, &e);
    if (locked)
        stop_fleet(&q, r < 0);
    int status;
    uint64_t ms = clock_mono_ms() - start;
    if (r < 0) {
        status = cli_fail(c, &e);
    } else {
        fprintf(stderr, "reused: %" PRIu64 " of %" PRIu64 " points%s\n", q.known, q.points,
                q.known ? " had their result from an earlier run"
                        : " (run it again: it will know them)");
        fprintf(stderr, "stopped: coordinator and agents; the store stays in %s/coordinator\n",
                q.dir);
        CLEANUP(freep)
        char *csv = path_fmt("%s/results.csv", q.out), *svg = path_fmt("%s/plot.svg", q.out),
             *html = path_fmt("%s/report.html", q.out);
        if (o->json) {
            status = cli_json(
                c, json_pack("{s:s, s:o, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "schema",
                             "siofleet.quickstart/1", "out", json_str(q.out), "agents", AGENTS,
                             "points", json_u64(q.points), "reused", json_u64(q.known), "seconds",
                             json_u64((ms + 500) / 1000), "csv", json_str(csv), "svg",
                             json_str(svg), "html", json_str(html), "live", live_json(&q)));
        } else {
            print_table(&q, sheet);
            printf("\n%" PRIu64 " points, %" PRIu64 " of them reused, %.1f s\n%s\n%s\n%s\n",
                   q.points, q.known, (double)ms / 1000, csv, svg, html);
            status = cli_flush(c);
            if (status == 0)
                fprintf(stderr,
                        "next: look at report.html; then your own machines: %s deploy init > "
                        "hosts.ini\n",
                        q.self);
        }
        if (status == 0 && !o->offline && !q.live) {
            /* all the rest is there; what was asked for and is not makes the status */
            struct cli text = { .verb = c->verb };
            status = cli_fail(&text, &q.live_why);
        }
    }
    json_decref(sheet);
    closep(&q.lock);
    free(q.dir);
    free(q.out);
    free(q.self);
    return status;
}
