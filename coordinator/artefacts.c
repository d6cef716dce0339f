/* What users ask about artefacts, and the removal of those that nothing needs. */
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "coordinator/hub.h"
#include "coordinator/refs.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/base/num.h"

enum {
    ITEMS_PAGE = 2000,
    GC_SLICE = 256,     /* artefacts removed in one turn */
    VERIFY_CHUNKS = 32, /* hashed for one question: some 30 ms */
    OLDER_MS = 3600000,
};

/* ---- who needs what */

/* All artefacts with what needs them, also what only this process knows: traces that open sweeps wait for or use. */
static int make_refs(struct hub *h, struct refs *ret, struct err *e)
{
    int r = refs_make(h->store, h->cas, ret, e);
    for (size_t i = 0; r >= 0 && i < h->n_lives; i++) {
        const struct live *l = h->lives[i];
        for (uint32_t t = 0; t < l->n_traces; t++) {
            struct ref *x = l->tr[t].num ? refs_find(ret, &l->tr[t].id) : NULL;
            if (!x)
                continue;
            x->refs++;
            ref_need(x, NEED_WORK, "trace of sweep '%.60s' (not over)", l->name);
        }
    }
    return r;
}

/* A listing in pages is one picture: it is kept until its last page, or until the next listing begins. */
static int page_refs(struct hub *h, const char *cursor, uint64_t *ret_from, struct err *e)
{
    *ret_from = 0;
    if (*cursor && num_u64(cursor, 0, UINT64_MAX, "cursor", ret_from, e) < 0)
        return -SF_EUSAGE;
    if (*cursor && h->refs.v && *ret_from <= h->refs.n)
        return 0;
    refs_clear(&h->refs);
    return make_refs(h, &h->refs, e);
}

static void end_page(struct hub *h, uint64_t at, char next[STORE_CURSOR])
{
    if (at < h->refs.n)
        snprintf(next, STORE_CURSOR, "%" PRIu64, at);
    else
        refs_clear(&h->refs);
}

static json_t *ref_doc(const struct ref *x)
{
    char when[CLOCK_RFC3339_LEN];
    clock_rfc3339(x->a.added_ms, when);
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "id", json_id(&x->a.id), "size_b",
                     json_u64(x->a.size_b), "kind", *x->a.kind ? json_str(x->a.kind) : json_null(),
                     "name", json_str(x->a.name), "added",
                     x->a.added_ms ? json_string(when) : json_null());
}

int hub_store_ls(struct hub *h, const char *cursor, json_t **ret, char next[STORE_CURSOR],
                 struct err *e)
{
    uint64_t from;
    int r = page_refs(h, cursor, &from, e);
    if (r < 0)
        return r;
    json_t *items = json_array();
    uint64_t at = from;
    for (; at < h->refs.n && at < from + ITEMS_PAGE; at++) {
        const struct ref *x = &h->refs.v[at];
        json_t *j = ref_doc(x);
        json_object_set_new(j, "here", json_boolean(x->here));
        json_object_set_new(j, "need", json_string(need_name(x->need)));
        json_object_set_new(j, "refs", json_integer(x->refs));
        json_object_set_new(j, "why", *x->why ? json_str(x->why) : json_null());
        json_array_append_new(items, j);
    }
    end_page(h, at, next);
    *ret = json_pack("{s:s, s:s, s:o}", "schema", "siofleet.ls/1", "kind", "artefacts", "items",
                     items);
    return 0;
}

/* ---- df */

static void count(json_t *by, const char *key, uint64_t size_b)
{
    json_t *j = json_object_get(by, key);
    uint64_t n = 0, b = 0;
    if (!j) {
        j = json_object();
        json_object_set_new(by, key, j);
    }
    json_get_u64(j, "artefacts", &n, NULL);
    json_get_u64(j, "bytes", &b, NULL);
    json_object_set_new(j, "artefacts", json_u64(n + 1));
    json_object_set_new(j, "bytes", json_u64(b + size_b));
}

static uint64_t size_of(const char *dir, const char *name)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
    struct stat st;
    return path && stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void closedirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

/* DIR/damaged: cb for each file; returns the bytes of those for which it gave true. */
static uint64_t each_damaged(struct hub *h, bool (*cb)(struct hub *h, const char *path,
                                                       const char *name, const struct stat *st))
{
    CLEANUP(freep) char *dir = path_fmt("%s/damaged", h->conf->data);
    CLEANUP(closedirp) DIR *d = dir ? opendir(dir) : NULL;
    uint64_t sum = 0;
    for (struct dirent *x; d && (x = readdir(d));) {
        struct stat st;
        CLEANUP(freep) char *path = path_fmt("%s/%s", dir, x->d_name);
        if (path && x->d_name[0] != '.' && lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
            cb(h, path, x->d_name, &st))
            sum += (uint64_t)st.st_size;
    }
    return sum;
}

static bool any_damaged(struct hub *h, const char *path, const char *name, const struct stat *st)
{
    (void)h;
    (void)path;
    (void)name;
    (void)st;
    return true;
}

/* As their last beats said; agents that say nothing of it are left out. */
static json_t *agents_df(const struct hub *h)
{
    json_t *list = json_array();
    for (const struct hub_agent *a = h->agents; a; a = a->next) {
        if (!a->peer || !a->space.disk.disk_b)
            continue;
        json_array_append_new(
            list,
            json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "name", json_str(a->info.name),
                      "state", space_name(a->space.disk.level), "used_b",
                      json_u64(a->space.cache_b), "reserved_b", json_u64(a->space.reserved_b),
                      "pinned_b", json_u64(a->space.pinned_b), "cap_b",
                      a->space.cap_b ? json_u64(a->space.cap_b) : json_null(), "free_b",
                      json_u64(a->space.disk.free_b), "disk_b", json_u64(a->space.disk.disk_b)));
    }
    return list;
}

int hub_store_df(struct hub *h, json_t **ret, struct err *e)
{
    struct refs all;
    struct cas_figures f;
    struct statvfs fs = { 0 };
    int r = make_refs(h, &all, e);
    if (r < 0)
        return r;
    json_t *kinds = json_object(), *needs = json_object();
    uint64_t missing = 0;
    for (size_t i = 0; i < all.n; i++) {
        const struct ref *x = &all.v[i];
        missing += !x->here;
        if (!x->here)
            continue;
        count(kinds, *x->a.kind ? x->a.kind : "unknown", x->a.size_b);
        count(needs, need_name(x->need), x->a.size_b);
    }
    refs_clear(&all);
    cas_figures(h->cas, &f);
    statvfs(h->conf->data, &fs);
    json_t *j = json_object();
    json_object_set_new(j, "artefacts", json_u64(f.artefacts));
    json_object_set_new(j, "missing", json_u64(missing));
    json_object_set_new(j, "used_b", json_u64(f.used_b));
    json_object_set_new(j, "reserved_b", json_u64(f.reserved_b));
    json_object_set_new(j, "partial_b", json_u64(f.partial_b));
    json_object_set_new(j, "growing_b", json_u64(f.growing_b));
    json_object_set_new(j, "damaged_b", json_u64(each_damaged(h, any_damaged)));
    json_object_set_new(
        j, "db_b",
        json_u64(size_of(h->conf->data, "store.db") + size_of(h->conf->data, "store.db-wal")));
    json_object_set_new(j, "cap_b",
                        h->conf->store_max_b ? json_u64(h->conf->store_max_b) : json_null());
    json_object_set_new(j, "free_b", json_u64((uint64_t)fs.f_bavail * fs.f_frsize));
    json_object_set_new(j, "disk_b", json_u64((uint64_t)fs.f_blocks * fs.f_frsize));
    json_object_set_new(j, "by_kind", kinds);
    json_object_set_new(j, "by_need", needs);
    char why[200];
    hub_space_why(h, why);
    json_object_set_new(
        j, "state",
        json_string(h->at_cap && !h->space.level ? "tight" : space_name(h->space.level)));
    json_object_set_new(j, "why", *why ? json_string(why) : json_null());
    json_object_set_new(j, "high_water_b", json_u64(space_high(&h->space)));
    json_object_set_new(j, "low_water_b", json_u64(space_low(&h->space)));
    *ret =
        json_pack("{s:s, s:o, s:o}", "schema", "siofleet.df/1", "store", j, "agents", agents_df(h));
    return 0;
}

/* ---- verify: cursor is the id of an artefact, or where to go on in it */

static int verify_from(struct hub *h, const char *only, const char *cursor, struct id *id,
                       uint64_t *chunk, bool *ret_end, struct err *e)
{
    const struct cas_item *it;
    size_t n = cas_list(h->cas, &it), i = 0;
    char hex[ID_HEX_LEN] = "";
    *chunk = 0;
    *ret_end = false;
    if (!*cursor && only) {
        struct store_artefact a;
        int r = store_artefact(h->store, only, &a, e);
        *id = a.id;
        return r;
    }
    if (*cursor) {
        snprintf(hex, sizeof(hex), "%.64s", cursor);
        if (id_parse(hex, id, e) < 0 ||
            (cursor[64] == '.' && num_u64(cursor + 65, 0, UINT64_MAX, "cursor", chunk, e) < 0))
            return -SF_EUSAGE;
        if (cursor[64])
            return 0;
    }
    while (i < n && (it[i].gone || (*cursor && id_cmp(&it[i].id, id) <= 0)))
        i++;
    *ret_end = i == n;
    if (i < n)
        *id = it[i].id;
    return 0;
}

int hub_store_verify(struct hub *h, const json_t *args, const char *cursor, json_t **ret,
                     char next[STORE_CURSOR], struct err *e)
{
    const char *only = json_string_value(json_object_get(args, "id"));
    struct id id;
    uint64_t chunk, at, bytes = 0, files = 0;
    bool end;
    if (strlen(cursor) >= 65 && cursor[64] && cursor[64] != '.')
        return err_set(e, SF_EUSAGE, "cursor: '%.80s' is none", cursor);
    int r = verify_from(h, only, cursor, &id, &at, &end, e);
    if (r < 0)
        return r;
    json_t *bad = json_array();
    for (int left = VERIFY_CHUNKS; !end && left > 0;) {
        struct err why = { 0 };
        char hex[ID_HEX_LEN], from[ID_HEX_LEN];
        const struct cas_item *it;
        id_hex(&id, hex);
        bool here = cas_stat(h->cas, &id, &it) == 0;
        uint64_t all = here ? it->size_b / CID_CHUNK + (it->size_b % CID_CHUNK != 0) : 0;
        uint64_t take = all > at && all - at < (uint64_t)left ? all - at : (uint64_t)left;
        r = cas_verify_part(h->cas, &id, at, take, &chunk, &why);
        if (r < 0 && r != -ENOENT && r != -ENOMEM) {
            const char *reason = strrchr(why.text, ':'); /* without the path: the id names it */
            json_array_append_new(bad,
                                  json_pack("{s:o, s:o, s:s}", "id", json_id(&id), "chunk",
                                            chunk == UINT64_MAX ? json_null() : json_u64(chunk),
                                            "reason", reason ? reason + 2 : why.text));
            hub_suspect(h, &id); /* moved aside and fetched again */
        } else if (r == -ENOENT && only) {
            json_array_append_new(bad, json_pack("{s:o, s:o, s:s}", "id", json_id(&id), "chunk",
                                                 json_null(), "reason", "not here"));
        }
        left -= take ? (int)take : 1;
        if (r == 0) { /* it goes on */
            at += take;
            bytes += take * CID_CHUNK;
            if (left <= 0)
                snprintf(next, STORE_CURSOR, "%s.%" PRIu64, hex, at);
            continue;
        }
        files++;
        bytes +=
            here ? it->size_b - (at * CID_CHUNK < it->size_b ? at * CID_CHUNK : it->size_b) : 0;
        if (only)
            break;
        memcpy(from, hex, sizeof(from));
        if (verify_from(h, NULL, from, &id, &at, &end, NULL) < 0)
            break;
        if (!end && left <= 0)
            snprintf(next, STORE_CURSOR, "%s", from);
    }
    struct cas_figures f;
    cas_figures(h->cas, &f);
    *ret = json_pack("{s:o, s:o, s:o, s:o}", "artefacts", json_u64(files), "bytes", json_u64(bytes),
                     "bad", bad, "all_b", json_u64(f.used_b));
    return 0;
}

/* ---- gc */

struct gc_opt {
    uint64_t older_ms;
    bool rebuildable, provenance;
};

/* Why an artefact stays; NULL = it may go. */
static const char *gc_keeps(const struct ref *x, const struct gc_opt *o, uint64_t now)
{
    uint64_t used = x->used_ms > x->a.added_ms ? x->used_ms : x->a.added_ms;
    if (x->need >= NEED_PINNED)
        return x->need == NEED_WORK ? "WORK" : "PINNED";
    if (x->need == NEED_PROVENANCE && !o->provenance && !(o->rebuildable && x->rebuildable))
        return x->rebuildable ? "REBUILDABLE" : "PROVENANCE";
    if (used + o->older_ms > now) /* also after a step of the clock */
        return "YOUNG";
    return NULL;
}

static void gc_args(const json_t *args, struct gc_opt *o)
{
    if (json_get_u64(args, "older_ms", &o->older_ms, NULL) < 0)
        o->older_ms = OLDER_MS;
    o->rebuildable = json_is_true(json_object_get(args, "rebuildable"));
    o->provenance = json_is_true(json_object_get(args, "provenance"));
}

/* A file in DIR/damaged goes when its artefact is whole here again, or when nobody names it any more. */
static bool damaged_idle(struct hub *h, const char *path, const char *name, const struct stat *st)
{
    char hex[ID_HEX_LEN];
    struct id id;
    struct store_artefact a;
    (void)path;
    (void)st;
    snprintf(hex, sizeof(hex), "%.64s", name);
    return id_parse(hex, &id, NULL) == 0 &&
           (cas_has(h->cas, &id) || store_artefact(h->store, hex, &a, NULL) == -ENOENT);
}

static bool damaged_drop(struct hub *h, const char *path, const char *name, const struct stat *st)
{
    return damaged_idle(h, path, name, st) && unlink(path) == 0;
}

static json_t *gc_item(const struct ref *x, const char *keeps)
{
    json_t *j = ref_doc(x);
    bool none = x->need == NEED_NONE;
    char text[200];
    snprintf(text, sizeof(text), "%s%s",
             none ? x->a.kind[0] ? "nothing needs it" : "the store does not know it" : x->why,
             x->rebuildable ? "; can be built again" : "");
    json_object_set_new(j, "action", json_string(keeps ? "keep" : "remove"));
    json_object_set_new(j, "code", json_string(keeps ? keeps : none ? "UNREFERENCED" : "TOLD"));
    json_object_set_new(j, "why", json_str(text));
    return j;
}

int hub_store_gc(struct hub *h, const json_t *args, const char *cursor, json_t **ret,
                 char next[STORE_CURSOR], struct err *e)
{
    struct gc_opt o;
    uint64_t from, now = clock_wall_ms();
    gc_args(args, &o);
    int r = page_refs(h, cursor, &from, e);
    if (r < 0)
        return r;
    *ret = json_object();
    if (!from) {
        size_t n;
        uint64_t b = cas_drop_partials(h->cas, now > o.older_ms ? now - o.older_ms : 0, false, &n);
        json_object_set_new(*ret, "partials", json_u64(n));
        json_object_set_new(*ret, "partial_b", json_u64(b));
        json_object_set_new(*ret, "damaged_b", json_u64(each_damaged(h, damaged_idle)));
    }
    json_t *items = json_array();
    uint64_t at = from;
    for (; at < h->refs.n && at < from + ITEMS_PAGE; at++)
        json_array_append_new(items, gc_item(&h->refs.v[at], gc_keeps(&h->refs.v[at], &o, now)));
    json_object_set_new(*ret, "items", items);
    end_page(h, at, next);
    return 0;
}

/* One removal at a time, a slice a turn: rows first, then files. What a crash leaves are files without rows: the next one
 * finds them. */
struct hub_gc {
    struct id *v; /* owned */
    size_t n, at;
    struct gc_opt o;
    uint64_t peer, req; /* of the last who asked */
    uint64_t removed, freed_b, kept, partials, partial_b, damaged_b;
};

static bool parse_target(const char *target, struct gc_opt *o)
{
    int reb, prov;
    if (sscanf(target, "older=%" SCNu64 ",rebuildable=%d,provenance=%d", &o->older_ms, &reb,
               &prov) != 3)
        return false;
    o->rebuildable = reb;
    o->provenance = prov;
    return true;
}

int hub_gc_begin(struct hub *h, const struct peer *p, uint64_t req, const char *target,
                 struct err *e)
{
    struct gc_opt o;
    struct refs all;
    uint64_t now = clock_wall_ms();
    if (!parse_target(target, &o))
        return err_set(e, SF_EUSAGE, "gc: '%.100s' is not understood", target);
    if (h->gc && memcmp(&h->gc->o, &o, sizeof(o)) != 0)
        return err_set(e, EBUSY, "gc: another one is at work");
    if (h->gc) { /* the question came twice */
        h->gc->peer = p->id;
        h->gc->req = req;
        return 0;
    }
    int r = make_refs(h, &all, e);
    if (r < 0)
        return r;
    struct hub_gc *g = calloc(1, sizeof(*g));
    if (g)
        g->v = calloc(all.n + 1, sizeof(*g->v));
    if (!g || !g->v) {
        free(g);
        refs_clear(&all);
        return err_sys(e, ENOMEM, "gc");
    }
    for (size_t i = 0; i < all.n; i++)
        if (!gc_keeps(&all.v[i], &o, now))
            g->v[g->n++] = all.v[i].a.id;
    refs_clear(&all);
    size_t n;
    g->o = o;
    g->peer = p->id;
    g->req = req;
    g->partial_b = cas_drop_partials(h->cas, now > o.older_ms ? now - o.older_ms : 0, true, &n);
    g->partials = n;
    g->damaged_b = each_damaged(h, damaged_drop);
    h->gc = g;
    return 0;
}

/* What was named, asked for or offered since the list was made, by work that began meanwhile. */
static bool needed_now(struct hub *h, const struct hub_gc *g, const struct id *id, uint64_t now)
{
    const struct cas_item *it;
    if (xfers_busy(h->xfers, id))
        return true;
    if (cas_stat(h->cas, id, &it) == 0 && (it->pins || it->used_ms + g->o.older_ms > now))
        return true;
    for (size_t i = 0; i < h->n_lives; i++)
        for (uint32_t t = 0; t < h->lives[i]->n_traces; t++)
            if (h->lives[i]->tr[t].num && id_eq(&h->lives[i]->tr[t].id, id))
                return true;
    return false;
}

static void gc_end(struct hub *h, const struct err *e)
{
    struct hub_gc *g = h->gc;
    char text[400];
    snprintf(text, sizeof(text),
             "{\"removed\":%" PRIu64 ",\"freed_b\":%" PRIu64 ",\"needed_again\":%" PRIu64
             ",\"partials\":%" PRIu64 ",\"partial_b\":%" PRIu64 ",\"damaged_b\":%" PRIu64 "}",
             g->removed, g->freed_b, g->kept, g->partials, g->partial_b, g->damaged_b);
    log_info("gc: %" PRIu64 " artefacts of %" PRIu64 " bytes removed, %" PRIu64
             " unfinished uploads of %" PRIu64 " bytes",
             g->removed, g->freed_b, g->partials, g->partial_b);
    struct msg m = { .type = M_OK,
                     .ok = { .req = g->req, .text = text, .text_len = strlen(text) } };
    if (e)
        link_refuse(h->link, g->peer, g->req, err_exit(e->code), err_name(e->code), e->text);
    else
        link_send(h->link, g->peer, &m, NULL);
    hub_gc_clear(h);
}

void hub_gc_step(struct hub *h)
{
    struct hub_gc *g = h->gc;
    struct err e = { 0 };
    struct id gone[GC_SLICE];
    size_t n = 0;
    if (!g)
        return;
    uint64_t now = clock_wall_ms();
    if (g->at < g->n && !hub_write(h)) {
        gc_end(h, &h->why);
        return;
    }
    for (; n < GC_SLICE && g->at < g->n; g->at++) {
        if (needed_now(h, g, &g->v[g->at], now)) {
            g->kept++;
            continue;
        }
        int r = store_del_artefact(h->store, &g->v[g->at], &e);
        if (r < 0) {
            hub_fail(h, &e);
            break;
        }
        gone[n++] = g->v[g->at];
    }
    if (n && !hub_commit(h)) {
        gc_end(h, e.code ? &e : &(struct err){ .code = ENOSPC, .text = "gc: cannot be noted" });
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const struct cas_item *it;
        uint64_t size = cas_stat(h->cas, &gone[i], &it) == 0 ? it->size_b : 0;
        xfers_forget(h->xfers, &gone[i]);
        int r = cas_delete(h->cas, &gone[i], &e);
        if (r < 0 && r != -ENOENT)
            log_warn("gc: %s", e.text);
        g->removed += r >= 0 || r == -ENOENT;
        g->freed_b += r >= 0 ? size : 0;
        hub_unwant(h, &gone[i]);
    }
    if (g->at >= g->n)
        gc_end(h, NULL);
}

void hub_gc_clear(struct hub *h)
{
    if (h->gc)
        free(h->gc->v);
    free(h->gc);
    h->gc = NULL;
}

int hub_pin(struct hub *h, const char *text, bool pinned, char ret_text[256], struct err *e)
{
    struct store_artefact a;
    char hex[ID_HEX_LEN];
    int r = store_artefact(h->store, text, &a, e);
    if (r >= 0)
        r = store_pin_artefact(h->store, &a.id, pinned, e);
    if (r < 0)
        return r;
    id_hex(&a.id, hex);
    snprintf(ret_text, 256, "artefact %.16s is %s", hex, pinned ? "kept" : "not kept any more");
    return 0;
}
