/* store ls|df|gc|verify|pin|unpin|get|put: the coordinator's artefacts. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "coordinator/cli/fleet_run.h"
#include "coordinator/cli/sheet.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/base/space.h"
#include "proto/cas/cas.h"
#include "proto/format/log.h"
#include "proto/format/trace.h"
#include "proto/xfer/drive.h"

enum { GC_MS = 600000, GC_SHOWN = 40 };

struct store_opt {
    struct client_opt fleet;
    bool json, dry_run, rebuildable, provenance, force;
    struct opt_u64 older;
    const char *data, *out, *kind, *name;
};

static uint64_t num_of(const json_t *j, const char *key)
{
    uint64_t v = 0;
    json_get_u64(j, key, &v, NULL);
    return v;
}

static const char *text_of(const json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? s : "";
}

static void print_sheet(const json_t *items)
{
    json_t *sheet = items_sheet(items);
    sheet_print(sheet, stdout);
    json_decref(sheet);
}

/* ---- ls */

static int run_store_ls(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct store_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *items = json_array();
    fleet_signals();
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : client_ask(cl, "store-ls", NULL, collect_items, items, &e);
    if (r < 0)
        return cli_fail(c, &e);
    if (o->json)
        return cli_json(c, json_pack("{s:s, s:s, s:O}", "schema", "siofleet.ls/1", "kind",
                                     "artefacts", "items", items));
    if (json_array_size(items))
        print_sheet(items);
    else
        fprintf(stderr, "no artefacts\n");
    return cli_flush(c);
}

/* ---- df */

static void print_by(const json_t *by, const char *title)
{
    const char *key;
    json_t *j;
    char size[32];
    json_object_foreach ((json_t *)(uintptr_t)by, key, j)
        printf("  %s %-13s %8" PRIu64 " artefacts  %12s\n", title, key, num_of(j, "artefacts"),
               size_text(num_of(j, "bytes"), size));
}

static void print_size(const char *what, const json_t *j, const char *key)
{
    char size[32];
    if (!json_is_null(json_object_get(j, key)))
        printf("  %-40s  %12s\n", what, size_text(num_of(j, key), size));
}

static void print_df(const json_t *doc)
{
    const json_t *s = json_object_get(doc, "store"), *a;
    size_t i;
    printf("coordinator: %" PRIu64 " artefacts", num_of(s, "artefacts"));
    if (num_of(s, "missing"))
        printf(", %" PRIu64 " more are missing", num_of(s, "missing"));
    if (*text_of(s, "state") && strcmp(text_of(s, "state"), "ok") != 0)
        printf("; %s: %s", text_of(s, "state"), text_of(s, "why"));
    putchar('\n');
    print_by(json_object_get(s, "by_kind"), "kind");
    print_by(json_object_get(s, "by_need"), "need");
    print_size("whole artefacts", s, "used_b");
    print_size("reserved by uploads at work", s, "reserved_b");
    print_size("reserved by uploads that were cut off", s, "partial_b");
    print_size("logs that are still being written", s, "growing_b");
    print_size("moved aside as damaged", s, "damaged_b");
    print_size("store.db", s, "db_b");
    print_size("cap (--store-max)", s, "cap_b");
    print_size("free on its disk", s, "free_b");
    print_size("size of its disk", s, "disk_b");
    json_array_foreach (json_object_get(doc, "agents"), i, a) {
        printf("agent '%s'%s%s%s%s\n", text_of(a, "name"),
               strcmp(text_of(a, "state"), "ok") ? ": " : "",
               strcmp(text_of(a, "state"), "ok") ? text_of(a, "state") : "",
               *text_of(a, "why") ? ": " : "", text_of(a, "why"));
        print_size("cache", a, "used_b");
        print_size("reserved by transfers", a, "reserved_b");
        print_size("in use by tasks", a, "pinned_b");
        print_size("cap (--cache-max)", a, "cap_b");
        print_size("free on its disk", a, "free_b");
        print_size("size of its disk", a, "disk_b");
    }
}

static int run_store_df(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct store_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *doc = NULL;
    fleet_signals();
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : client_ask_one(cl, "store-df", NULL, &doc, &e);
    if (r < 0)
        return cli_fail(c, &e);
    if (o->json)
        return cli_json(c, TAKE(doc));
    print_df(doc);
    return cli_flush(c);
}

/* ---- gc */

/* Pages into one document: items are joined, the rest is the first page's. */
static int join_items(void *ctx, json_t *page, struct err *e)
{
    json_t **doc = ctx, *items = json_object_get(page, "items");
    if (!json_is_array(items))
        return err_set(e, SF_EFORMAT, "coordinator: answer without items");
    if (*doc)
        json_array_extend(json_object_get(*doc, "items"), items);
    else
        *doc = json_incref(page);
    return 0;
}

struct gc_sum {
    uint64_t remove, remove_b, keep, keep_b;
};

static struct gc_sum sum_items(const json_t *items)
{
    struct gc_sum s = { 0 };
    size_t i;
    json_t *j;
    json_array_foreach (items, i, j) {
        bool goes = !strcmp(text_of(j, "action"), "remove");
        *(goes ? &s.remove : &s.keep) += 1;
        *(goes ? &s.remove_b : &s.keep_b) += num_of(j, "size_b");
    }
    return s;
}

static void print_gc(const json_t *items, bool keep)
{
    size_t i, shown = 0, more = 0;
    json_t *j;
    char size[32];
    json_array_foreach (items, i, j) {
        if ((!strcmp(text_of(j, "action"), "remove")) == keep)
            continue;
        if (shown++ >= GC_SHOWN) {
            more++;
            continue;
        }
        printf("%s %.16s %10s %-5s %s%s%s\n", keep ? "keep  " : "remove", text_of(j, "id"),
               size_text(num_of(j, "size_b"), size), text_of(j, "kind"), text_of(j, "name"),
               *text_of(j, "name") ? ": " : "", text_of(j, "why"));
    }
    if (more)
        printf("%s %zu more; --json names them\n", keep ? "keep  " : "remove", more);
}

static int gc_now(struct client *cl, const struct store_opt *o, uint64_t older, json_t **ret,
                  struct err *e)
{
    CLEANUP(msg_clear) struct msg a = { 0 };
    char target[100];
    snprintf(target, sizeof(target), "older=%" PRIu64 ",rebuildable=%d,provenance=%d", older,
             o->rebuildable, o->provenance);
    struct msg q = { .type = M_CONTROL, .control = { .verb = "gc", .target = target } };
    int r = client_call(cl, &q, GC_MS, &a, e);
    if (r < 0)
        return r;
    *ret = a.type == M_OK ? json_loads(a.ok.text, 0, NULL) : NULL;
    return *ret ? 0 : err_set(e, SF_EFORMAT, "gc: the coordinator's answer is not understood");
}

static int run_store_gc(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct store_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    uint64_t older = o->older.set ? o->older.v : 3600000;
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *doc = NULL, *done = NULL;
    CLEANUP(json_decrefp)
    json_t *args = json_pack("{s:o, s:b, s:b}", "older_ms", json_u64(older), "rebuildable",
                             o->rebuildable, "provenance", o->provenance);
    fleet_signals();
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : client_ask(cl, "store-gc", args, join_items, &doc, &e);
    if (r >= 0 && !o->dry_run)
        r = gc_now(cl, o, older, &done, &e);
    if (r < 0)
        return cli_fail(c, &e);
    const json_t *items = json_object_get(doc, "items");
    struct gc_sum s = sum_items(items);
    if (o->json) {
        json_t *j = json_pack("{s:s, s:b, s:o, s:o, s:o, s:o, s:o}", "schema", "siofleet.gc/1",
                              "dry_run", o->dry_run, "remove", json_u64(s.remove), "remove_b",
                              json_u64(s.remove_b), "keep", json_u64(s.keep), "keep_b",
                              json_u64(s.keep_b), "done", done ? json_incref(done) : json_null());
        json_object_update(j, doc);
        return cli_json(c, j);
    }
    char a[32], b[32], p[32];
    print_gc(items, false);
    if (o->dry_run)
        print_gc(items, true);
    if (o->dry_run)
        printf("would remove %" PRIu64 " artefacts (%s) and %" PRIu64
               " uploads that were cut off (%s), would keep %" PRIu64 " (%s)\n",
               s.remove, size_text(s.remove_b, a), num_of(doc, "partials"),
               size_text(num_of(doc, "partial_b"), p), s.keep, size_text(s.keep_b, b));
    else
        printf("removed %" PRIu64 " artefacts (%s) and %" PRIu64
               " uploads that were cut off (%s)\n",
               num_of(done, "removed"), size_text(num_of(done, "freed_b"), a),
               num_of(done, "partials"), size_text(num_of(done, "partial_b"), p));
    return cli_flush(c);
}

/* ---- verify */

struct verify {
    json_t *bad;
    uint64_t artefacts, bytes;
    struct progress bar;
};

static int verify_part(void *ctx, json_t *body, struct err *e)
{
    struct verify *v = ctx;
    const json_t *bad = json_object_get(body, "bad");
    if (!json_is_array(bad))
        return err_set(e, SF_EFORMAT, "coordinator: answer is no verification");
    json_array_extend(v->bad, (json_t *)(uintptr_t)bad);
    v->artefacts += num_of(body, "artefacts");
    v->bytes += num_of(body, "bytes");
    progress_step(&v->bar, v->bytes, num_of(body, "all_b"));
    return 0;
}

static int run_store_verify(struct cli *c, void *opts, int argc, char **argv)
{
    struct store_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    if (o->data) {
        struct fsck_opt f = { .json = o->json, .files_only = true, .data = o->data };
        return argc ? cli_failf(c, SF_EUSAGE, "--data: checks all of it; give no ID with it")
                    : run_fsck(c, &f, 0, NULL);
    }
    CLEANUP(client_free) struct client *cl = NULL;
    struct verify v = { .bad = json_array() };
    CLEANUP(json_decrefp)
    json_t *args = argc ? json_pack("{s:o}", "id", json_str(argv[0])) : json_object();
    fleet_signals();
    progress_start(&v.bar, "bytes");
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : client_ask(cl, "store-verify", args, verify_part, &v, &e);
    progress_end(&v.bar);
    size_t n = json_array_size(v.bad), i;
    int status;
    if (r < 0) {
        json_decref(v.bad);
        return cli_fail(c, &e);
    }
    static const char advice[] = "the coordinator moves damaged artefacts aside and fetches them "
                                 "again from agents that have them";
    if (o->json) {
        json_t *tell = json_array();
        if (n)
            json_array_append_new(tell, json_string(advice));
        status = cli_json(c, json_pack("{s:s, s:o, s:o, s:O, s:i, s:s, s:o}", "schema",
                                       "siofleet.fsck/1", "artefacts", json_u64(v.artefacts),
                                       "bytes", json_u64(v.bytes), "bad", v.bad, "repaired", 0,
                                       "store", "not looked at", "advice", tell));
    } else {
        json_t *j;
        printf("%" PRIu64 " artefacts, %" PRIu64 " bytes\n", v.artefacts, v.bytes);
        json_array_foreach (v.bad, i, j)
            printf("bad %s: %s\n", text_of(j, "id"), text_of(j, "reason"));
        if (n)
            printf("to do: nothing; %s\n", advice);
        status = cli_flush(c);
    }
    json_decref(v.bad);
    if (status || !n)
        return status;
    fprintf(stderr, "siofleet: store: %zu artefacts are damaged\n", n);
    return 4;
}

/* ---- get */

static void moved(void *ctx, uint64_t done_b, uint64_t size_b)
{
    progress_step(ctx, done_b, size_b);
}

static int find_artefact(struct client *cl, const char *text, struct id *ret, json_t **doc,
                         struct err *e)
{
    CLEANUP(json_decrefp) json_t *args = json_pack("{s:o}", "id", json_str(text));
    int r = client_ask_one(cl, "artefact", args, doc, e);
    return r < 0 ? r : id_parse(text_of(*doc, "id"), ret, e);
}

static int copy_out(const char *path, struct err *e)
{
    struct stat st;
    CLEANUP(freep) char *chunk = malloc(CID_CHUNK);
    CLEANUP(closep) int fd = file_open_regular(path, &st, e);
    ssize_t n;
    if (fd < 0)
        return fd;
    if (!chunk)
        return err_sys(e, ENOMEM, "%s", path);
    while ((n = read_full(fd, chunk, CID_CHUNK)) > 0) {
        int r = write_all(STDOUT_FILENO, chunk, (size_t)n);
        if (r < 0)
            return err_sys(e, -r, "standard output");
    }
    return n < 0 ? err_sys(e, (int)-n, "%s", path) : 0;
}

/* Owned; NULL without memory. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
}

/* Into a small store beside the file, so that what came is kept when the command is cut off, and then to its place. */
static int fetch_to(struct client *cl, const struct id *id, const char *part, const char *out,
                    bool force, struct progress *bar, bool *ret_some, struct err *e)
{
    CLEANUP(cas_free) struct cas *cas = NULL;
    struct cas_figures have;
    int r = cas_open(part, 0, &cas, e);
    if (r < 0)
        return r;
    CLEANUP(freep) char *lock_path = path_fmt("%s/lock", part);
    CLEANUP(closep)
    int lock = lock_path ? open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (lock < 0)
        return err_sys(e, errno, "%s", part);
    if (flock(lock, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, EBUSY, "%s: another command fetches into it", part);
    struct xfer_store to = xfer_store_cas(cas);
    bool before = cas_has(cas, id);
    r = before ? 0 : client_fetch(cl, id, &to, moved, bar, e);
    cas_figures(cas, &have);
    *ret_some = have.artefacts || have.partials;
    if (r < 0)
        return r;
    uint64_t chunk;
    /* what came was hashed as it came */
    if (before && (r = cas_verify(cas, id, &chunk, e)) < 0)
        return r;
    CLEANUP(freep) char *path = cas_path(cas, id);
    CLEANUP(freep) char *folder = folder_of(out);
    if (!path || !folder)
        return err_sys(e, ENOMEM, "%s", out);
    if (!strcmp(out, "-"))
        return copy_out(path, e);
    if (chmod(path, 0644) < 0)
        return err_sys(e, errno, "%s", path);
    if ((force ? rename(path, out) : link(path, out)) < 0)
        return err_sys(e, errno, "%s", out);
    int synced = dir_sync(folder);
    return synced < 0 ? err_sys(e, -synced, "%s", folder) : 0;
}

/* Damaged bytes came: where from? A coordinator that is asked looks, and moves a damaged copy aside, so that the next put of a
 * good one counts. e: what is known so far, made plainer. */
static int blame(struct client *cl, const struct id *id, struct err *e)
{
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    CLEANUP(json_decrefp) json_t *bad = json_array();
    CLEANUP(json_decrefp) json_t *args = json_pack("{s:s}", "id", hex);
    struct verify v = { .bad = bad };
    struct err why = { 0 };
    progress_start(&v.bar, "bytes");
    int r = client_ask(cl, "store-verify", args, verify_part, &v, &why);
    progress_end(&v.bar);
    return r < 0 || !json_array_size(bad)
               ? -SF_EINTEGRITY
               : err_set(e, SF_EINTEGRITY,
                         "artefact %.16s: the coordinator's copy is damaged and is moved aside; "
                         "put it again, unless an agent has it",
                         hex);
}

static int run_store_get(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    struct store_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    struct id id;
    struct progress bar;
    struct stat st;
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *doc = NULL;
    if (!o->out || !*o->out)
        return cli_failf(c, SF_EUSAGE, "-o: needed (- is standard output)");
    bool pipe = !strcmp(o->out, "-");
    if (pipe && o->json)
        return cli_failf(c, SF_EUSAGE, "--json: not together with -o -");
    if (!pipe && lstat(o->out, &st) == 0 && (!o->force || !S_ISREG(st.st_mode)))
        return cli_failf(c, o->force ? SF_EUSAGE : EEXIST, "%s: %s", o->out,
                         o->force ? "is no file" : "is there already; --force replaces it");
    CLEANUP(freep) char *folder = folder_of(o->out);
    if (!folder || (!pipe && access(folder, W_OK | X_OK) < 0))
        return cli_failf(c, errno, "%s: %s", o->out, strerror(errno));
    const char *tmp = getenv("TMPDIR");
    CLEANUP(freep)
    char *part = pipe ? path_fmt("%s/siofleet-get-XXXXXX", tmp && *tmp ? tmp : "/tmp")
                      : path_fmt("%s.part", o->out);
    if (!part)
        return cli_failf(c, ENOMEM, "%s: no memory", o->out);
    fleet_signals();
    log_init(NULL, false, LOG_LEVEL_WARN);
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : find_artefact(cl, argv[0], &id, &doc, &e);
    if (r >= 0 && pipe && !mkdtemp(part))
        r = err_sys(&e, errno, "%s", part);
    if (r >= 0) {
        progress_start(&bar, "bytes");
        bool some = true;
        r = fetch_to(cl, &id, part, o->out, o->force, &bar, &some, &e);
        progress_end(&bar);
        if (r == -SF_EINTEGRITY)
            r = blame(cl, &id, &e);
        if (r >= 0 || pipe || !some)
            dir_remove(part, NULL);
        else
            fprintf(stderr, "%s keeps what came; the same command goes on there\n", part);
    }
    if (r < 0)
        return cli_fail(c, &e);
    if (!o->json)
        return 0;
    json_t *j = json_pack("{s:s}", "schema", "siofleet.get/1");
    json_object_update(j, doc);
    json_object_set_new(j, "path", json_str(o->out));
    return cli_json(c, j);
}

/* ---- put */

const char *artefact_kind(const char *path)
{
    struct trace_head head;
    uint64_t events;
    char first[8];
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read_full(fd, first, sizeof(first)) : -1;
    if (n > 0 && slog_is(first, (size_t)n))
        return "log";
    return n == sizeof(first) && trace_read_head(path, &head, &events, NULL) == 0 ? "trace"
                                                                                  : "file";
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Files of a chunk or less go several at a time. */
static bool is_small(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= (off_t)CID_CHUNK;
}

static int put_some(struct client *cl, struct client_file f[], int n, struct err *e)
{
    struct progress bar;
    char what[80];
    if (n > 1)
        return client_puts(cl, f, (size_t)n, NULL, NULL, e);
    snprintf(what, sizeof(what), "bytes of %.60s", f->name);
    progress_start(&bar, what);
    int r = client_puts(cl, f, 1, moved, &bar, e);
    progress_end(&bar);
    return r;
}

/* Print and note those that are there now. Returns how many. */
static int list_sent(const struct client_file f[], int n, bool json, json_t *items)
{
    int sent = 0;
    for (int i = 0; i < n; i++) {
        char hex[ID_HEX_LEN];
        if (!f[i].sent)
            continue;
        sent++;
        id_hex(&f[i].id, hex);
        if (!json)
            printf("%s\n", hex);
        json_array_append_new(items, json_pack("{s:s, s:o, s:s, s:o, s:o}", "id", hex, "size_b",
                                               json_u64(f[i].size_b), "kind", f[i].kind, "name",
                                               json_str(f[i].name), "path", json_str(f[i].path)));
    }
    return sent;
}

static int run_store_put(struct cli *c, void *opts, int argc, char **argv)
{
    struct store_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *items = json_array();
    if (o->kind && strcmp(o->kind, "log") && strcmp(o->kind, "trace") && strcmp(o->kind, "file"))
        return cli_failf(c, SF_EUSAGE, "--kind: '%.40s' is none of log, trace, file", o->kind);
    if (o->name && argc > 1)
        return cli_failf(c, SF_EUSAGE, "--name: for one file only");
    fleet_signals();
    log_init(NULL, false, LOG_LEVEL_WARN);
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e), sent = 0;
    struct progress all;
    progress_start(&all, "files");
    for (int i = 0, n; r >= 0 && i < argc; i += n) {
        struct client_file f[CLIENT_PUTS_MAX];
        bool small = is_small(argv[i]);
        for (n = 0; !n || (small && i + n < argc && n < CLIENT_PUTS_MAX && is_small(argv[i + n]));
             n++)
            f[n] = (struct client_file){ .path = argv[i + n],
                                         .kind = o->kind ? o->kind : artefact_kind(argv[i + n]),
                                         .name = o->name ? o->name : base_name(argv[i + n]) };
        r = put_some(cl, f, n, &e);
        sent += list_sent(f, n, o->json, items);
        if (n > 1)
            progress_step(&all, (uint64_t)sent, (uint64_t)argc);
    }
    progress_end(&all);
    if (r < 0)
        return cli_fail(c, &e);
    return o->json
               ? cli_json(c, json_pack("{s:s, s:O}", "schema", "siofleet.put/1", "items", items))
               : cli_flush(c);
}

/* ---- pin, unpin: words to the coordinator */

static int run_store_pin(struct cli *c, void *opts, int argc, char **argv)
{
    struct store_opt *o = opts;
    struct control_opt w = { .fleet = o->fleet, .json = o->json };
    return run_control_word(c, strchr(c->verb->name, ' ') + 1, &w, argc, argv);
}

/* ---- tables */

#define OFF(m) offsetof(struct store_opt, m)
#define JSON_OPT                                                                                   \
    {                                                                                              \
        .name = "json", .help = "one JSON document on stdout", .kind = OPT_FLAG, .off = OFF(json)  \
    }

static const struct opt plain_opts[] = { JSON_OPT, CLIENT_OPTS(struct store_opt, fleet), { 0 } };
static const struct opt gc_opts[] = {
    { .name = "dry-run",
      .help = "remove nothing; also say what is kept, and why",
      .kind = OPT_FLAG,
      .off = OFF(dry_run) },
    { .name = "older",
      .arg = "T",
      .help = "only what nobody used for so long (default 1h)",
      .kind = OPT_MS,
      .off = OFF(older) },
    { .name = "rebuildable",
      .help = "also traces of results that can be built again from logs that are here",
      .kind = OPT_FLAG,
      .off = OFF(rebuildable) },
    { .name = "also-provenance",
      .help = "also what results and ended jobs came from or left; rows stay, repro may not work",
      .kind = OPT_FLAG,
      .off = OFF(provenance) },
    JSON_OPT,
    CLIENT_OPTS(struct store_opt, fleet),
    { 0 },
};
static const struct opt verify_opts[] = {
    { .name = "data",
      .arg = "DIR",
      .help = "the files of this coordinator's or agent's folder, without one running",
      .kind = OPT_STR,
      .off = OFF(data) },
    JSON_OPT,
    CLIENT_OPTS(struct store_opt, fleet),
    { 0 },
};
static const struct opt get_opts[] = {
    { .name = "out",
      .letter = 'o',
      .arg = "FILE",
      .help = "where it goes, once it is whole; - = standard output",
      .kind = OPT_STR,
      .off = OFF(out) },
    { .name = "force", .help = "replace an existing file", .kind = OPT_FLAG, .off = OFF(force) },
    JSON_OPT,
    CLIENT_OPTS(struct store_opt, fleet),
    { 0 },
};
static const struct opt put_opts[] = {
    { .name = "kind",
      .arg = "K",
      .help = "log, trace or file (default: by its first bytes)",
      .kind = OPT_STR,
      .off = OFF(kind) },
    { .name = "name",
      .arg = "N",
      .help = "shown by `store ls` (default: the file's)",
      .kind = OPT_STR,
      .off = OFF(name) },
    JSON_OPT,
    CLIENT_OPTS(struct store_opt, fleet),
    { 0 },
};

#define STORE(word, what, lo, hi, table, fn)                                                       \
    .name = "store " word, .args = what, .opts = table, .opts_size = sizeof(struct store_opt),     \
    .min_args = lo, .max_args = hi, .run = fn

const struct verb store_verbs[] = {
    { STORE("ls", "", 0, 0, plain_opts, run_store_ls),
      .summary = "list the artefacts, and what needs each",
      .details =
          "need: work (a sweep or job that is not over), pinned, provenance (results were\n"
          "computed from it, or ended work has left it), unreferenced. refs: how many documents\n"
          "of the store name it; why: the first of them.",
      .examples = "siofleet store ls\n"
                  "siofleet store ls --json | jq '.items[] | select(.need == \"unreferenced\")'" },
    { STORE("df", "", 0, 0, plain_opts, run_store_df),
      .summary = "say what takes the space, here and on the agents",
      .examples = "siofleet store df" },
    { STORE("gc", "", 0, 0, gc_opts, run_store_gc),
      .summary = "remove artefacts that nothing needs",
      .details =
          "Removes what no sweep, job or result names, what is left of uploads that were cut off, "
          "and\n"
          "damaged copies that were replaced. What an open sweep or job needs, or is pinned, "
          "stays\n"
          "whatever is said; what results came from goes only when told. Safe beside running "
          "work:\n"
          "what is used meanwhile stays. A trace that goes is built again when a sweep wants it.",
      .examples = "siofleet store gc --dry-run           # what would go, what stays and why\n"
                  "siofleet store gc --rebuildable       # traces too, logs stay\n"
                  "siofleet store gc --older 7d          # only what was not used for a week" },
    { STORE("verify", "[ID]", 0, 1, verify_opts, run_store_verify),
      .summary = "hash every artefact",
      .details =
          "Exit 4 if one is damaged; a running coordinator moves it aside and fetches it again.\n"
          "`fsck` also checks the store itself.",
      .examples = "siofleet store verify\n"
                  "siofleet store verify --data /srv/fleet    # without a coordinator" },
    { STORE("get", "ID", 1, 1, get_opts, run_store_get), .summary = "fetch an artefact into a file",
      .details =
          "Every chunk is verified; the file appears when it is whole. Cut off, the same command\n"
          "goes on where it was: what came is in FILE.part until then. A damaged copy of the\n"
          "coordinator's is refused and moved aside (exit 4).",
      .examples = "siofleet store get 4f1c22aa -o t.trc\n"
                  "siofleet store get 4f1c22aa -o - | zstd -d | less" },
    { STORE("put", "FILE...", 1, -1, put_opts, run_store_put),
      .summary = "give files to the coordinator and print their ids",
      .details =
          "Only chunks that are missing there are sent: cut off, the same command goes on where\n"
          "it was. A file is sent as it was at the start: what is appended meanwhile is not sent,\n"
          "and one whose bytes change is not taken (exit 1). The id is printed once the file is\n"
          "durable there. What nothing names is removed by the next `store gc`, an hour later;\n"
          "`store pin` keeps it.",
      .examples = "siofleet store put run1.slog run2.slog\n"
                  "siofleet store pin $(siofleet store put disk.img)" },
    { STORE("pin", "ID...", 1, -1, plain_opts, run_store_pin),
      .summary = "keep artefacts whatever `store gc` is told",
      .examples = "siofleet store pin 4f1c22aa" },
    { STORE("unpin", "ID...", 1, -1, plain_opts, run_store_pin),
      .summary = "let `store gc` decide about artefacts again",
      .examples = "siofleet store unpin 4f1c22aa" },
    { 0 },
};
