#include "perf/tracedoc.h"

#include <stdlib.h>
#include <string.h>

#include "perf/mrc.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

void trace_origin_clear(struct trace_origin *o)
{
    json_decref(o->logs);
    *o = (struct trace_origin){ 0 };
}

int trace_origin_from_build(const struct recipe *r, const struct build_report *rep,
                            struct trace_origin *ret)
{
    *ret = (struct trace_origin){ .logs = json_array() };
    struct recipe known;
    if (recipe_copy(r, &known, NULL) < 0)
        return -ENOMEM;
    ret->have_recipe = true;
    for (size_t i = 0; i < known.n_logs; i++)
        ret->have_recipe &= known.logs[i].have_id;
    if (ret->have_recipe)
        recipe_id(&known, &ret->recipe_id);
    recipe_clear(&known);
    for (size_t i = 0; i < rep->n_logs; i++) {
        const struct build_log *l = &rep->logs[i];
        json_t *o = json_object();
        json_object_set_new(o, "id", l->have_id ? json_id(&l->id) : json_null());
        json_object_set_new(o, "path", json_str(l->path));
        json_object_set_new(o, "parsed", json_u64(l->parsed));
        json_object_set_new(o, "ignored", json_u64(l->ignored));
        json_object_set_new(o, "devices", json_u64(l->devices));
        json_object_set_new(o, "refused", json_u64(l->refused));
        json_array_append_new(ret->logs, o);
    }
    return 0;
}

json_t *trace_json(const struct trace *t, const struct id *id, uint64_t bytes, const char *path,
                   const struct trace_origin *o)
{
    json_t *j = json_object();
    json_object_set_new(j, "schema", json_string("siofleet.trace/1"));
    json_object_set_new(j, "id", json_id(id));
    json_object_set_new(j, "recipe_id", o && o->have_recipe ? json_id(&o->recipe_id) : json_null());
    json_object_set_new(j, "path", json_str(path));
    json_object_set_new(j, "bytes", json_u64(bytes));
    json_object_set_new(j, "events", json_u64(t->n));
    json_object_set_new(j, "tenants", json_u64(t->head.tenants));
    json_object_set_new(j, "devices", json_u64(t->head.devices));
    json_object_set_new(j, "pages", json_u64(t->n_page));
    json_object_set_new(j, "order", json_string(order_name((enum trace_order)t->head.order)));
    json_object_set_new(j, "burst", json_u64(t->head.burst));
    json_object_set_new(j, "seed", json_u64(t->head.seed));
    json_object_set_new(j, "replicate", json_u64(t->head.replicate));
    json_object_set_new(j, "rules", json_string(rules_name((enum rules)t->head.rules)));
    json_object_set_new(j, "early_end", json_boolean(t->head.early_end));
    json_object_set_new(j, "logs", o && o->logs ? json_incref(o->logs) : json_null());
    return j;
}

/* ---- trace info */

static int larger_first(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Share of the events that go to the hottest percent of the pages (at least one page). */
static json_t *hot(const uint32_t *sorted, uint32_t n, uint64_t events, unsigned percent)
{
    uint64_t k = ((uint64_t)n * percent + 99) / 100, sum = 0;
    for (uint64_t i = 0; i < k && i < n; i++)
        sum += sorted[i];
    return events ? json_u64((uint64_t)((unsigned __int128)sum * 1000000 / events)) : json_null();
}

/* LRU stack distances: distance d = different pages touched since the last touch of this page, itself included.
 * Buckets end at powers of two. */
static int reuse(const struct trace *t, uint64_t buckets[34], uint64_t *ret_cold, struct err *e)
{
    CLEANUP(mrc_clear) struct mrc m = { 0 };
    int r = mrc_full(t, &m, e);
    if (r < 0)
        return r;
    memset(buckets, 0, 34 * sizeof(*buckets));
    for (size_t i = 0; i < m.n; i++)
        buckets[i ? 64 - __builtin_clzll(i) : 0] += m.count[i];
    *ret_cold = m.cold;
    return 0;
}

struct piece {
    uint64_t at; /* 2 MiB pieces */
    uint64_t events;
};

static int by_at(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Touched IOVAs, neighbouring 2 MiB pieces joined. */
static int ranges(const struct trace *t, const uint64_t *per_entry, json_t *doc, struct err *e)
{
    CLEANUP(freep) struct piece *p = malloc(((size_t)t->n_entries + 1) * sizeof(*p));
    if (!p)
        return err_sys(e, ENOMEM, "trace");
    size_t n = 0;
    for (uint32_t i = 0; i < t->n_entries; i++)
        if (per_entry[i])
            p[n++] = (struct piece){ t->entry[i].iova >> 21, per_entry[i] };
    qsort(p, n, sizeof(*p), by_at);
    json_t *list = json_array();
    for (size_t i = 0, k; i < n; i = k) {
        uint64_t events = p[i].events;
        for (k = i + 1; k < n && p[k].at - p[k - 1].at <= 1; k++)
            events += p[k].events;
        json_t *o = json_object();
        json_object_set_new(o, "from", json_u64(p[i].at << 21));
        json_object_set_new(o, "to", json_u64((p[k - 1].at << 21) + 0x1fffff));
        json_object_set_new(o, "events", json_u64(events));
        json_array_append_new(list, o);
    }
    json_object_set_new(doc, "iova_ranges", list);
    return 0;
}

int trace_info_json(const struct trace *t, json_t *doc, struct err *e)
{
    uint64_t buckets[34], cold = 0;
    int r = reuse(t, buckets, &cold, e);
    if (r < 0)
        return r;
    CLEANUP(freep) uint64_t *per_entry = calloc((size_t)t->n_entries + 1, sizeof(*per_entry));
    CLEANUP(freep) uint32_t *per_page = calloc((size_t)t->n_page + 1, sizeof(*per_page));
    CLEANUP(freep) uint64_t *mask_of = calloc((size_t)t->n_page + 1, sizeof(*mask_of));
    struct tenant {
        uint64_t events, pages, sid;
    };
    CLEANUP(freep) struct tenant *tenants = calloc((size_t)t->n_gids + 1, sizeof(*tenants));
    if (!per_entry || !per_page || !mask_of || !tenants)
        return err_sys(e, ENOMEM, "trace");
    for (uint64_t i = 0; i < t->n; i++)
        per_entry[t->ev[i]]++;
    for (uint32_t i = 0; i < t->n_entries; i++) {
        const struct trace_entry *x = &t->entry[i];
        if (!per_entry[i])
            continue;
        struct tenant *g = &tenants[x->gid];
        if (!g->events)
            g->sid = x->sid;
        g->events += per_entry[i];
        if (!per_page[t->key_page[i]]) {
            g->pages++;
            mask_of[t->key_page[i]] = x->mask;
        }
        per_page[t->key_page[i]] += (uint32_t)per_entry[i];
    }

    json_t *sizes = json_object();
    for (uint32_t p = 0; p < t->n_page; p++) {
        char name[24];
        snprintf(name, sizeof(name), "%llu", (unsigned long long)(~mask_of[p] + 1));
        json_t *have = json_object_get(sizes, name);
        json_object_set_new(sizes, name, json_integer(have ? json_integer_value(have) + 1 : 1));
    }
    json_object_set_new(doc, "pages_by_size", sizes);

    qsort(per_page, t->n_page, sizeof(*per_page), larger_first);
    json_t *h = json_object();
    json_object_set_new(h, "1", hot(per_page, t->n_page, t->n, 1));
    json_object_set_new(h, "10", hot(per_page, t->n_page, t->n, 10));
    json_object_set_new(doc, "hot_ppm", h);

    json_t *list = json_array();
    for (unsigned i = 0; i < 34; i++)
        if (buckets[i]) {
            json_t *o = json_object();
            json_object_set_new(o, "distance", json_u64(UINT64_C(1) << i));
            json_object_set_new(o, "count", json_u64(buckets[i]));
            json_array_append_new(list, o);
        }
    if (cold) {
        json_t *o = json_object();
        json_object_set_new(o, "distance", json_null()); /* the first touch of a page */
        json_object_set_new(o, "count", json_u64(cold));
        json_array_append_new(list, o);
    }
    json_object_set_new(doc, "reuse", list);

    list = json_array();
    for (uint32_t g = 0; g < t->n_gids; g++)
        if (tenants[g].events) {
            json_t *o = json_object();
            json_object_set_new(o, "tenant", json_u64(g));
            json_object_set_new(o, "sid", json_u64(tenants[g].sid));
            json_object_set_new(o, "events", json_u64(tenants[g].events));
            json_object_set_new(o, "pages", json_u64(tenants[g].pages));
            json_array_append_new(list, o);
        }
    json_object_set_new(doc, "per_tenant", list);
    return ranges(t, per_entry, doc, e);
}

/* ---- the file beside a trace */

int trace_origin_save(const char *path, const struct id *id, const struct trace_origin *o,
                      struct err *e)
{
    CLEANUP(freep) char *side = path_fmt("%s.json", path);
    CLEANUP(json_decrefp) json_t *j = json_object();
    json_object_set_new(j, "schema", json_string("siofleet.origin/1"));
    json_object_set_new(j, "id", json_id(id));
    json_object_set_new(j, "recipe_id", o->have_recipe ? json_id(&o->recipe_id) : json_null());
    json_object_set_new(j, "logs", o->logs ? json_incref(o->logs) : json_null());
    CLEANUP(freep) char *text = json_dumps(j, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    if (!side || !text)
        return err_sys(e, ENOMEM, "%s", path);
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the final 0, which is not written */
    return file_write(side, text, n + 1, 0644, true, e);
}

void trace_origin_load(const char *path, const struct id *id, struct trace_origin *ret)
{
    *ret = (struct trace_origin){ 0 };
    CLEANUP(freep) char *side = path_fmt("%s.json", path);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64u << 20);
    if (!side || file_read(side, &b, NULL) < 0)
        return;
    CLEANUP(json_decrefp)
    json_t *j = json_loadb((const char *)b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
    struct id said;
    const char *hex = json_string_value(json_object_get(j, "id"));
    if (!hex || id_parse(hex, &said, NULL) < 0 || !id_eq(&said, id))
        return;
    hex = json_string_value(json_object_get(j, "recipe_id"));
    ret->have_recipe = hex && id_parse(hex, &ret->recipe_id, NULL) == 0;
    json_t *logs = json_object_get(j, "logs");
    if (json_is_array(logs))
        ret->logs = json_incref(logs);
}
