/* Verbs `log import|cat|info`. */
#include "perf/cli_perf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "perf/logtext.h"
#include "perf/qemulog.h"
#include "proto/base/clean.h"

/* ---- siofleet.log/1 */

static json_t *info_json(const struct slog_info *i, const struct id *id, const char *path,
                         uint64_t bytes)
{
    json_t *j = json_object(), *list = json_array(), *kinds = json_object(),
           *devices = json_array();
    json_object_set_new(j, "schema", json_string("siofleet.log/1"));
    json_object_set_new(j, "id", json_id(id));
    json_object_set_new(j, "path", json_str(path));
    json_object_set_new(j, "bytes", json_u64(bytes));
    json_object_set_new(j, "source", json_string(slog_source_name(i->source)));
    json_object_set_new(j, "lines", i->source == SLOG_RING ? json_null() : json_u64(i->lines));
    json_object_set_new(j, "ignored", i->source == SLOG_RING ? json_null() : json_u64(i->ignored));
    for (uint64_t k = 0; k < i->n_refused && k < SLOG_REFUSED_MAX; k++) {
        json_t *o = json_object();
        json_object_set_new(o, "line", json_u64(i->refused[k].line));
        json_object_set_new(o, "reason", json_str(i->refused[k].reason));
        json_array_append_new(list, o);
    }
    json_object_set_new(j, "refused", list);
    json_object_set_new(j, "events", json_u64(i->events));
    for (unsigned k = 1; k < LOG_KINDS; k++)
        json_object_set_new(kinds, slog_kind_name(k), json_u64(i->by_kind[k]));
    json_object_set_new(j, "by_kind", kinds);
    for (size_t k = 0; k < i->n_devices; k++) {
        json_t *o = json_object();
        json_object_set_new(o, "sid", json_u64(i->devices[k].sid));
        json_object_set_new(o, "domain",
                            i->devices[k].domain ? json_u64(i->devices[k].domain) : json_null());
        json_object_set_new(o, "events", json_u64(i->devices[k].events));
        json_array_append_new(devices, o);
    }
    json_object_set_new(j, "devices", devices);
    json_object_set_new(j, "dropped", json_u64(i->dropped));
    json_object_set_new(j, "duration_ns", i->duration_ns ? json_u64(i->duration_ns) : json_null());
    /* additions to the contract's list */
    uint64_t hits = i->by_kind[LOG_PAGE_HIT], all = hits + i->by_kind[LOG_PAGE_UPDATE];
    json_object_set_new(j, "refused_lines", json_u64(i->n_refused));
    json_object_set_new(j, "hit_ppm", all ? json_u64(hits * 1000000 / all) : json_null());
    return j;
}

/* Figures that need every event: different pages, and how many events fell into each twentieth of the time. */
struct tally {
    struct page {
        uint64_t at;
        uint32_t domain, used;
    } * pages;
    size_t n, room;
    uint64_t first_ns, duration_ns, parts[20];
};

static void tally_page(struct tally *t, uint64_t at, uint32_t domain)
{
    uint64_t h = (at ^ (uint64_t)domain << 40) * 0x9e3779b97f4a7c15u;
    size_t i = (h ^ h >> 31) & (t->room - 1);
    for (; t->pages[i].used; i = (i + 1) & (t->room - 1))
        if (t->pages[i].at == at && t->pages[i].domain == domain)
            return;
    t->pages[i] = (struct page){ at, domain, 1 };
    t->n++;
}

static bool tally_grow(struct tally *t)
{
    struct tally wide = { .room = t->room ? 2 * t->room : 4096 };
    wide.pages = calloc(wide.room, sizeof(*wide.pages));
    if (!wide.pages)
        return false;
    for (size_t i = 0; i < t->room; i++)
        if (t->pages[i].used)
            tally_page(&wide, t->pages[i].at, t->pages[i].domain);
    free(t->pages);
    t->pages = wide.pages;
    t->room = wide.room;
    return true;
}

static int tally_add(struct tally *t, const struct log_event ev[], size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct log_event *x = &ev[i];
        if (x->time_ns && !t->first_ns)
            t->first_ns = x->time_ns;
        if (t->duration_ns && x->time_ns >= t->first_ns &&
            x->time_ns - t->first_ns <= t->duration_ns)
            t->parts[(uint64_t)((unsigned __int128)(x->time_ns - t->first_ns) * 20 /
                                (t->duration_ns + 1))]++;
        if (x->kind != LOG_PAGE_UPDATE && x->kind != LOG_PAGE_HIT)
            continue;
        if (2 * t->n >= t->room && !tally_grow(t))
            return err_sys(e, ENOMEM, "log");
        unsigned level = x->level >= 1 && x->level <= 5 ? x->level : 1;
        tally_page(t,
                   x->p[0] & (x->kind == LOG_PAGE_HIT ? x->p[2] : ~UINT64_C(0) << (3 + 9 * level)),
                   x->domain);
    }
    return 0;
}

static void tally_clear(struct tally *t)
{
    free(t->pages);
}

static json_t *rate_json(const struct tally *t)
{
    if (!t || !t->duration_ns)
        return json_null();
    json_t *list = json_array();
    for (unsigned i = 0; i < 20; i++) {
        json_t *o = json_object();
        json_object_set_new(o, "from_ns", json_u64(t->duration_ns / 20 * i));
        json_object_set_new(o, "events", json_u64(t->parts[i]));
        json_array_append_new(list, o);
    }
    return list;
}

/* t: NULL = not counted */
static int print_info(struct cli *c, const struct slog_info *i, const struct id *id,
                      const char *path, const struct tally *t)
{
    struct stat st;
    uint64_t bytes = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
    if (c->json) {
        json_t *j = info_json(i, id, path, bytes);
        json_object_set_new(j, "pages", t ? json_u64(t->n) : json_null());
        json_object_set_new(j, "rate", rate_json(t));
        return cli_json(c, j);
    }
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    printf("id         %s\npath       %s\nbytes      %" PRIu64 "\nsource     %s\n", hex, path,
           bytes, slog_source_name(i->source));
    if (i->source != SLOG_RING)
        printf("lines      %" PRIu64 " (%" PRIu64 " ignored, %" PRIu64 " refused)\n", i->lines,
               i->ignored, i->n_refused);
    printf("events     %" PRIu64 "\n", i->events);
    for (unsigned k = 1; k < LOG_KINDS; k++)
        if (i->by_kind[k])
            printf("           %-12s %" PRIu64 "\n", slog_kind_name(k), i->by_kind[k]);
    printf("devices    %zu\n", i->n_devices);
    if (t)
        printf("pages      %zu\n", t->n);
    if (i->dropped)
        printf("dropped    %" PRIu64 "\n", i->dropped);
    if (i->duration_ns)
        printf("duration   %" PRIu64 ".%03" PRIu64 " ms\n", i->duration_ns / 1000000,
               i->duration_ns / 1000 % 1000);
    for (uint64_t k = 0; k < i->n_refused && k < SLOG_REFUSED_MAX; k++)
        printf("refused    line %" PRIu64 ": %s\n", i->refused[k].line, i->refused[k].reason);
    return cli_flush(c);
}

/* ---- import */

struct import_opts {
    const char *out;
    bool force, json;
};

static int run_import(struct cli *c, void *opts, int argc, char **argv)
{
    const struct import_opts *o = opts;
    struct err e = { 0 };
    struct id id;
    CLEANUP(slog_info_clear) struct slog_info info = { 0 };
    if (!o->out)
        return cli_failf(c, SF_EUSAGE, "-o: the output file is missing");
    if (log_import((const char *const *)argv, (size_t)argc, o->out, o->force, &id, &info, &e) < 0)
        return cli_fail(c, &e);
    for (uint64_t k = 0; k < info.n_refused && k < 10; k++)
        fprintf(stderr, "siofleet: %s:%" PRIu64 ": line refused: %s\n",
                argc == 1 ? argv[0] : "line", info.refused[k].line, info.refused[k].reason);
    if (info.n_refused > 10)
        fprintf(stderr, "siofleet: %s: %" PRIu64 " lines refused; the first ten are shown\n",
                o->out, info.n_refused);
    return print_info(c, &info, &id, o->out, NULL);
}

static const struct opt import_options[] = {
    { .name = "output",
      .letter = 'o',
      .arg = "OUT.slog",
      .help = "the log file",
      .kind = OPT_STR,
      .off = offsetof(struct import_opts, out) },
    { .name = "force",
      .help = "replace an existing file",
      .kind = OPT_FLAG,
      .off = offsetof(struct import_opts, force) },
    { .name = "json",
      .help = "siofleet.log/1",
      .kind = OPT_FLAG,
      .off = offsetof(struct import_opts, json) },
    { 0 },
};

/* ---- info */

struct info_opts {
    bool json;
};

/* A text log has the same figures: read, never written. */
static int info_of_text(const char *path, struct slog_info *ret, struct err *e)
{
    const char *paths[] = { path };
    return log_import(paths, 1, NULL, false, NULL, ret, e);
}

static int run_info(struct cli *c, void *o, int argc, char **argv)
{
    (void)o, (void)argc;
    struct err e = { 0 };
    struct id id;
    CLEANUP(slog_info_clear) struct slog_info text = { 0 };
    CLEANUP(slog_close) struct slog_in *in = NULL;
    int r = cid_file(argv[0], &id, NULL, &e);
    if (r == 0)
        r = slog_open(argv[0], &in, &e);
    if (r == -SF_EFORMAT && strstr(e.text, "not a siofleet"))
        r = info_of_text(argv[0], &text, &e);
    CLEANUP(tally_clear) struct tally t = { .duration_ns = in ? slog_info(in)->duration_ns : 0 };
    struct log_event ev[1024];
    while (r == 0 && in) { /* damage anywhere in the file shows here */
        ssize_t n = slog_read(in, ev, ARRAY_LEN(ev), &e);
        r = n > 0 ? tally_add(&t, ev, (size_t)n, &e) : (int)n;
        if (n <= 0)
            break;
    }
    if (r < 0)
        return cli_fail(c, &e);
    return print_info(c, in ? slog_info(in) : &text, &id, argv[0], in ? &t : NULL);
}

static const struct opt info_options[] = {
    { .name = "json",
      .help = "siofleet.log/1",
      .kind = OPT_FLAG,
      .off = offsetof(struct info_opts, json) },
    { 0 },
};

/* ---- cat */

struct cat_opts {
    const char *format;
};

static int print_json(const struct log_event *ev, FILE *f)
{
    static const char *const names[LOG_KINDS][3] = {
        [LOG_CC_UPDATE] = { "high", "low", NULL },
        [LOG_CC_HIT] = { "high", "low", "gen" },
        [LOG_SLPTE_FETCH] = { "iova", "slpte", "base" },
        [LOG_PAGE_UPDATE] = { "iova", "slpte", NULL },
        [LOG_PAGE_HIT] = { "iova", "slpte", "mask" },
        [LOG_INVALIDATE] = { "address", "log2_pages", NULL },
        [LOG_FAULT] = { "address", NULL, NULL },
        [LOG_ATS] = { "iova", "bytes", NULL },
    };
    json_t *j = json_object();
    json_object_set_new(j, "kind", json_string(slog_kind_name(ev->kind)));
    json_object_set_new(j, "time_ns", ev->time_ns ? json_u64(ev->time_ns) : json_null());
    json_object_set_new(j, "sid", json_u64(ev->sid));
    if (ev->kind > LOG_CC_HIT)
        json_object_set_new(j, "domain", json_u64(ev->domain));
    json_object_set_new(j, "level", json_u64(ev->level));
    for (unsigned i = 0; i < 3; i++)
        if (names[ev->kind][i])
            json_object_set_new(j, names[ev->kind][i], json_u64(ev->p[i]));
    if (ev->kind == LOG_CC_UPDATE) {
        json_object_set_new(j, "gen_before", json_u64(ev->p[2] & UINT32_MAX));
        json_object_set_new(j, "gen_after", json_u64(ev->p[2] >> 32));
    }
    CLEANUP(freep) char *text = json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(j);
    if (!text)
        return -ENOMEM;
    fprintf(f, "%s\n", text);
    return 0;
}

static int cat(struct slog_in *in, bool as_json, struct err *e)
{
    CLEANUP(contexts_free) struct contexts *contexts = contexts_new();
    if (!contexts)
        return err_sys(e, ENOMEM, "log");
    struct log_event ev[1024];
    uint64_t event = 0;
    ssize_t n;
    while ((n = slog_read(in, ev, ARRAY_LEN(ev), e)) > 0) {
        for (ssize_t i = 0; i < n; i++, event++) {
            if (as_json) {
                if (print_json(&ev[i], stdout) < 0)
                    return err_sys(e, ENOMEM, "log");
                continue;
            }
            char line[320];
            uint64_t high = 0, low = 0;
            if (ev[i].kind <= LOG_CC_HIT)
                contexts_set(contexts, &ev[i]);
            else if (ev[i].kind == LOG_SLPTE_FETCH && !slog_walk(in, event, &high, &low))
                contexts_get(contexts, ev[i].sid, &high, &low);
            size_t len = event_text(&ev[i], high, low, line);
            if (!len)
                continue;
            line[len++] = '\n';
            fwrite(line, 1, len, stdout);
        }
        if (ferror(stdout))
            return err_sys(e, errno ? errno : EIO, "standard output");
    }
    return (int)n;
}

static int run_cat(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    const struct cat_opts *o = opts;
    struct err e = { 0 };
    bool as_json = o->format && !strcmp(o->format, "jsonl");
    if (o->format && !as_json && strcmp(o->format, "hypersio"))
        return cli_failf(c, SF_EUSAGE, "--format: unknown format '%.60s' (hypersio, jsonl)",
                         o->format);
    CLEANUP(slog_close) struct slog_in *in = NULL;
    int r = slog_open(argv[0], &in, &e);
    if (r == 0)
        r = cat(in, as_json, &e);
    if (r < 0 && as_json) {
        cli_fail(c, &e);
        return cli_jsonl_end(c, err_exit(e.code));
    }
    if (r < 0)
        return cli_fail(c, &e);
    return as_json ? cli_jsonl_end(c, 0) : cli_flush(c);
}

static const struct opt cat_options[] = {
    { .name = "format",
      .arg = "hypersio|jsonl",
      .help = "QEMU's text lines (default), or an object a line",
      .kind = OPT_STR,
      .off = offsetof(struct cat_opts, format) },
    { 0 },
};

const struct verb log_verbs[] = {
    { .name = "log import",
      .args = "FILE...",
      .summary = "make a log file from QEMU's text logs",
      .details =
          "Reads text, plain or zstd: context updates and hits, page-table fetches, page updates "
          "and hits.\n"
          "Other lines are counted as ignored; lines that are damaged are refused and named.",
      .examples = "siofleet log import vm1.log -o vm1.slog\n"
                  "siofleet log import part1.log part2.log.zst -o all.slog --json",
      .opts = import_options,
      .opts_size = sizeof(struct import_opts),
      .min_args = 1,
      .max_args = -1,
      .run = run_import },
    { .name = "log cat",
      .args = "FILE",
      .summary = "print a log file as QEMU's text lines or as JSON lines",
      .details =
          "The text has the lines that `log import` read, without what stood before their names.\n"
          "Invalidations, faults and ATS events have no line in it.",
      .examples = "siofleet log cat vm1.slog | head\n"
                  "siofleet log cat vm1.slog --format jsonl | jq 'select(.kind == \"invalidate\")'",
      .opts = cat_options,
      .opts_size = sizeof(struct cat_opts),
      .min_args = 1,
      .max_args = 1,
      .run = run_cat },
    { .name = "log info",
      .args = "FILE",
      .summary = "what a log holds: events, devices, domains, lines refused",
      .examples = "siofleet log info vm1.slog\n"
                  "siofleet log info old.log.zst --json    text logs, too",
      .opts = info_options,
      .opts_size = sizeof(struct info_opts),
      .min_args = 1,
      .max_args = 1,
      .run = run_info },
    { 0 },
};
