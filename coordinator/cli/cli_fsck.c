/* fsck: every stored byte of a coordinator's or an agent's folder, without either running (or beside it, to look only). */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/spool.h"
#include "coordinator/cli/fleet_run.h"
#include "coordinator/store.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/cas/cas.h"

struct fsck {
    const char *data;
    bool repair;
    int lock;        /* on DIR/lock while it changes something; -1 = none */
    struct cas *cas; /* NULL = none there */
    json_t *bad, *advice;
    uint64_t artefacts, bytes, repaired, left; /* left: bad ones that stay */
    json_t *salvage; /* what was saved of a damaged store; NULL = nothing to */
    struct progress bar;
};

static void add_bad(struct fsck *f, const struct id *id, uint64_t chunk, const char *reason,
                    bool mended)
{
    json_array_append_new(f->bad, json_pack("{s:o, s:o, s:o}", "id", json_id(id), "chunk",
                                            chunk == UINT64_MAX ? json_null() : json_u64(chunk),
                                            "reason", json_str(reason)));
    f->repaired += mended;
    f->left += !mended;
}

static void advise(struct fsck *f, const char *text)
{
    size_t i;
    json_t *j;
    json_array_foreach (f->advice, i, j)
        if (!strcmp(json_string_value(j), text))
            return;
    json_array_append_new(f->advice, json_string(text));
}

/* To change something it must belong to nobody. */
static int lock_data(const char *dir, int *ret, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/lock", dir);
    *ret = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (*ret < 0)
        return err_sys(e, errno, "%s/lock", dir);
    if (flock(*ret, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, EBUSY, "%s: a coordinator or agent runs on it; stop it first", dir);
    return 0;
}

static int unlock_data(struct fsck *f)
{
    closep(&f->lock);
    return 0;
}

/* ---- artefacts */

static int check_cas(struct fsck *f, bool agent, struct err *e)
{
    CLEANUP(freep) char *dir = path_fmt("%s/%s", f->data, agent ? "cache" : "cas");
    CLEANUP(freep) char *aside = path_fmt("%s/damaged", f->data);
    if (!dir || !aside)
        return err_sys(e, ENOMEM, "%s", f->data);
    int r = cas_open_ro(dir, &f->cas, e);
    if (r == -ENOENT) {
        e->code = 0;
        return 0;
    }
    if (r < 0)
        return r;
    const struct cas_item *list;
    size_t n = cas_list(f->cas, &list);
    CLEANUP(freep) struct id *ids = calloc(n + 1, sizeof(*ids));
    if (!ids)
        return err_sys(e, ENOMEM, "%s", dir);
    for (size_t i = 0; i < n; i++) {
        ids[i] = list[i].id;
        f->bytes += list[i].size_b;
    }
    f->artefacts = n;
    for (size_t i = 0; i < n; i++) {
        struct err why = { 0 };
        uint64_t chunk = UINT64_MAX;
        progress_step(&f->bar, i, n);
        if (fleet_stop)
            return err_set(e, ECANCELED, "%s: interrupted", f->data);
        r = cas_verify(f->cas, &ids[i], &chunk, &why);
        if (r == 0 || (r == -ENOENT && !cas_check(f->cas, &ids[i])))
            continue; /* a running owner may take one away */
        if (r == -ENOMEM)
            return err_set(e, ENOMEM, "%s", why.text);
        const char *reason = strrchr(why.text, ':'); /* without the path: the id names it */
        bool mended = f->repair && cas_aside(f->cas, &ids[i], aside, &why) == 0;
        add_bad(f, &ids[i], chunk, reason ? reason + 2 : why.text, mended);
        if (!mended)
            advise(f, agent
                          ? "stop the agent, run fsck --repair: damaged artefacts are moved to "
                            "DIR/damaged and fetched again"
                          : "stop the coordinator, run fsck --repair: damaged artefacts are moved "
                            "to DIR/damaged; when it starts "
                            "again it fetches them from agents, and builds traces of recipes anew");
    }
    return 0;
}

/* ---- a coordinator's store */

static int in_cas(void *ctx, const struct store_artefact *a)
{
    struct fsck *f = ctx;
    if (f->cas && cas_has(f->cas, &a->id))
        return 0;
    size_t i;
    json_t *j;
    char hex[ID_HEX_LEN];
    id_hex(&a->id, hex);
    json_array_foreach (f->bad, i, j) /* moved aside just now */
        if (!strcmp(json_string_value(json_object_get(j, "id")), hex))
            return 0;
    add_bad(f, &a->id, UINT64_MAX, "missing: the store names it", false);
    advise(f, "start the coordinator: it fetches what is missing from agents that have it");
    return 0;
}

/* Files that the store does not name are named again: by their first bytes, as what they were called is lost. */
static int name_files(struct fsck *f, uint64_t *ret_n, struct err *e)
{
    CLEANUP(store_free) struct store *st = NULL;
    const struct cas_item *it;
    size_t n = f->cas ? cas_list(f->cas, &it) : 0;
    *ret_n = 0;
    int r = store_open(f->data, &st, e);
    if (r >= 0)
        r = store_begin(st, e);
    for (size_t i = 0; r >= 0 && i < n; i++) {
        struct store_artefact a;
        char hex[ID_HEX_LEN];
        id_hex(&it[i].id, hex);
        if (it[i].gone || store_artefact(st, hex, &a, NULL) != -ENOENT)
            continue;
        CLEANUP(freep) char *path = path_fmt("%s/cas/%.2s/%s", f->data, hex, hex);
        a = (struct store_artefact){ .id = it[i].id,
                                     .size_b = it[i].size_b,
                                     .added_ms = clock_wall_ms() };
        snprintf(a.kind, sizeof(a.kind), "%s", path ? artefact_kind(path) : "file");
        r = store_add_artefact(st, &a, NULL, e);
        ++*ret_n;
    }
    return r < 0 ? r : store_commit(st, e);
}

/* The store itself is damaged. */
static int save_store(struct fsck *f, struct err *e)
{
    char when[CLOCK_RFC3339_LEN];
    uint64_t named = 0;
    clock_rfc3339(clock_wall_ms(), when);
    CLEANUP(freep) char *aside = path_fmt("%s/damaged/store-%s", f->data, when);
    int r = aside ? store_salvage(f->data, aside, &f->salvage, e) : err_sys(e, ENOMEM, "fsck");
    if (r >= 0) /* flock() is held by this process: the store takes its own */
        r = unlock_data(f);
    if (r >= 0)
        r = name_files(f, &named, e);
    if (r < 0)
        return r;
    json_object_set_new(f->salvage, "named", json_u64(named));
    f->repaired++;
    advise(
        f,
        "start the coordinator: it computes again what is lost of open sweeps, agents bring "
        "the rows and artefacts that they still hold; `siofleet audit SWEEP` tells what is whole");
    return 0;
}

/* A store made before there were checksums of pages. */
static int add_sums(struct fsck *f, struct err *e)
{
    CLEANUP(store_free) struct store *st = NULL;
    int r = unlock_data(f);
    if (r >= 0)
        r = store_open(f->data, &st, e);
    if (r >= 0)
        r = store_add_sums(st, e);
    if (r >= 0)
        advise(f, "start the coordinator: the store's pages have checksums now");
    return r;
}

/* A store of an older version: first what a start does to it. */
static int bring_forward(struct fsck *f, struct err *e)
{
    struct store *st = NULL;
    int r = unlock_data(f);
    if (r >= 0)
        r = store_open(f->data, &st, e);
    store_free(&st);
    int locked = lock_data(f->data, &f->lock, r >= 0 ? e : NULL);
    return r < 0 ? r : locked;
}

static int check_store(struct fsck *f, char *ret, size_t room, struct err *e)
{
    struct err why = { 0 };
    struct store *st = NULL;
    int r = f->repair ? store_check_log(f->data, &why) : 0; /* we hold the lock */
    if (r >= 0)
        r = store_open_ro(f->data, &st, &why);
    if (r == -SF_EFORMAT && f->repair && (r = bring_forward(f, &why)) >= 0)
        r = store_open_ro(f->data, &st, &why);
    if (r >= 0)
        r = store_check(st, &why);
    if (r >= 0)
        r = store_artefacts(st, in_cas, f, &why);
    bool sums = r >= 0 && store_has_sums(st);
    store_free(&st);
    if (r >= 0 && !sums && f->repair)
        r = add_sums(f, &why);
    else if (r >= 0 && !sums)
        advise(f, "its pages have no checksums, it was made by an older version: stop the "
                  "coordinator, run fsck --repair");
    if (r >= 0)
        snprintf(ret, room, "ok");
    else if (r == -SF_EINTEGRITY && f->repair) {
        snprintf(ret, room, "%s", why.text);
        return save_store(f, e);
    } else if (r == -SF_EINTEGRITY) {
        snprintf(ret, room, "%s", why.text);
        f->left++;
        advise(f, "stop the coordinator, keep a copy of the folder, run fsck --repair: what can be "
                  "read goes into a new store, the damaged one to DIR/damaged; points whose rows "
                  "are lost are computed again");
    } else {
        *e = why;
        return r;
    }
    return 0;
}

/* ---- an agent's tasks */

static void closedirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

static int check_tasks(struct fsck *f, char *ret, size_t room, struct err *e)
{
    CLEANUP(freep) char *tasks = path_fmt("%s/tasks", f->data);
    CLEANUP(freep) char *install = path_fmt("%s/install", f->data);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    if (!tasks || !install)
        return err_sys(e, ENOMEM, "%s", f->data);
    snprintf(ret, room, "ok");
    json_t *j = NULL;
    if (file_read(install, &b, NULL) >= 0)
        j = json_loadb((const char *)b.data, b.len, 0, NULL);
    if (!json_string_value(json_object_get(j, "install"))) {
        snprintf(ret, room, "%s: damaged", install);
        f->left++;
        advise(f, "the agent's identity cannot be read: remove DIR/install, and give it a new key");
    }
    json_decref(j);
    CLEANUP(closedirp) DIR *d = opendir(tasks);
    for (struct dirent *x; d && (x = readdir(d));) {
        if (x->d_name[0] == '.')
            continue;
        CLEANUP(freep) char *rows = path_fmt("%s/%s/rows", tasks, x->d_name);
        struct spool *s = NULL;
        struct err why = { 0 };
        if (!rows)
            return err_sys(e, ENOMEM, "%s", tasks);
        int r = spool_open(rows, &s, &why);
        if (r >= 0)
            r = spool_poll(s, &why);
        spool_close(&s);
        if (r == -SF_EINTEGRITY) {
            snprintf(ret, room, "%s", why.text);
            f->left += !f->repair;
            f->repaired += f->repair;
            advise(f, "rows behind the damaged one are computed again: the agent ends that task as "
                      "damaged when it starts");
        }
    }
    return 0;
}

/* ---- */

/* *ret_err: why it cannot be told, where that is another reason than that it is not there. */
static bool exists(const char *dir, const char *name, int *ret_err)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
    if (path && access(path, F_OK) == 0)
        return true;
    if (!path || errno != ENOENT)
        *ret_err = path ? errno : ENOMEM;
    return false;
}

static void print_salvage(const json_t *s)
{
    const json_t *t;
    size_t i;
    printf("the damaged store is kept in %s\n", json_string_value(json_object_get(s, "kept")));
    if (!json_is_true(json_object_get(s, "readable")))
        printf("nothing in it can be read: sweeps, rows and jobs are lost\n");
    json_array_foreach (json_object_get(s, "tables"), i, t) {
        uint64_t rows = 0;
        json_get_u64(t, "rows", &rows, NULL);
        printf("saved %8" PRIu64 " rows of %s%s%s\n", rows,
               json_string_value(json_object_get(t, "table")),
               json_is_true(json_object_get(t, "whole")) ? "" : ": some are lost",
               json_is_true(json_object_get(t, "doubtful"))
                   ? ": some are from a damaged page and may be wrong"
                   : "");
    }
    uint64_t n = 0, named = 0;
    json_get_u64(s, "reopened", &n, NULL);
    json_get_u64(s, "named", &named, NULL);
    printf("%" PRIu64 " sweeps have lost rows and are open again, %" PRIu64
           " artefacts were not named in it\n",
           n, named);
}

int run_fsck(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct fsck_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    char store[640] = "";
    if (!o->data || !*o->data)
        return cli_failf(c, SF_EUSAGE, "--data: needed");
    int why = 0;
    bool coordinator = exists(o->data, "store.db", &why), agent = exists(o->data, "install", &why);
    if (!coordinator && !agent && why)
        return cli_failf(c, why, "%s: %s", o->data, strerror(why));
    if (!coordinator && !agent)
        return cli_failf(c, ENOENT, "%s: no folder of a coordinator (store.db) or agent (install)",
                         o->data);
    fleet_signals();
    struct fsck f = { .data = o->data,
                      .repair = o->repair,
                      .lock = -1,
                      .bad = json_array(),
                      .advice = json_array() };
    progress_start(&f.bar, "artefacts");
    int r = o->repair ? lock_data(o->data, &f.lock, &e) : 0;
    if (r >= 0)
        r = check_cas(&f, !coordinator, &e);
    if (r >= 0 && o->files_only)
        snprintf(store, sizeof(store), "not looked at");
    else if (r >= 0)
        r = coordinator ? check_store(&f, store, sizeof(store), &e)
                        : check_tasks(&f, store, sizeof(store), &e);
    progress_end(&f.bar);
    cas_free(&f.cas);
    closep(&f.lock);
    int status;
    if (r < 0) {
        status = cli_fail(c, &e);
    } else if (o->json) {
        status = cli_json(
            c, json_pack("{s:s, s:o, s:o, s:O, s:o, s:s, s:O, s:o}", "schema", "siofleet.fsck/1",
                         "artefacts", json_u64(f.artefacts), "bytes", json_u64(f.bytes), "bad",
                         f.bad, "repaired", json_u64(f.repaired), "store", store, "advice",
                         f.advice, "salvage", f.salvage ? json_incref(f.salvage) : json_null()));
    } else {
        size_t i;
        json_t *j;
        printf("%" PRIu64 " artefacts, %" PRIu64 " bytes; %s: %s\n", f.artefacts, f.bytes,
               coordinator ? "store" : "tasks", store);
        json_array_foreach (f.bad, i, j) {
            const json_t *chunk = json_object_get(j, "chunk");
            printf("bad %s: %s", json_string_value(json_object_get(j, "id")),
                   json_string_value(json_object_get(j, "reason")));
            if (json_is_integer(chunk))
                printf(" (chunk %lld)", (long long)json_integer_value(chunk));
            putchar('\n');
        }
        if (f.salvage)
            print_salvage(f.salvage);
        json_array_foreach (f.advice, i, j)
            printf("to do: %s\n", json_string_value(j));
        status = cli_flush(c);
    }
    json_decref(f.bad);
    json_decref(f.advice);
    json_decref(f.salvage);
    if (status || r < 0 || !f.left)
        return status;
    fprintf(stderr, "siofleet: %s: %" PRIu64 " damaged or missing\n", o->data, f.left);
    return 4;
}
