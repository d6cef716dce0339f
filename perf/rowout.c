#include "perf/rowout.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/lib/cli.h"

/* Columns before and behind the architecture keys, in the order that scripts rely on. */
enum {
    C_NAME,
    C_INDEX,
    C_POINT,
    C_TRACE,
    C_RULES,
    C_TENANTS,
    C_ORDER,
    C_BURST,
    C_SEED,
    C_REPLICATE,
    C_ARCH
};

static const char *const first[] = { "name",    "index", "point", "trace", "rules",
                                     "tenants", "order", "burst", "seed",  "replicate" };

static const struct {
    const char *name;
    size_t off;
} stats[] = {
#define S(x)                                                                                       \
    {                                                                                              \
#x, offsetof(struct row_stats, x)                                                          \
    }
    S(time_ps),    S(requests),       S(pkts_sent),   S(pkts_dropped), S(mbps),
    S(util_ppm),   S(cc_hit),         S(cc_miss),     S(cc_conflict),  S(iotlb_hit),
    S(iotlb_miss), S(iotlb_conflict), S(l2_hit),      S(l2_miss),      S(l2_conflict),
    S(l3_hit),     S(l3_miss),        S(l3_conflict), S(pf_accesses),  S(pf_predictions),
    S(pf_correct), S(pf_incorrect),   S(pf_fill),     S(pf_fill_same), S(pf_hit),
    S(pf_miss),    S(jain_ppm),
#undef S
};

enum { C_STATUS = C_ARCH + ARCH_N, C_STATS, C_END = C_STATS + ARRAY_LEN(stats) };
_Static_assert((int)C_END <= (int)RESULT_COLUMNS_MAX, "RESULT_COLUMNS_MAX");

const char *row_status_name(enum row_status s)
{
    return s == ROW_DONE ? "done" : s == ROW_FAILED ? "failed" : "invalid";
}

const char *const *result_columns(size_t *ret_n)
{
    static const char *names[C_END];
    if (!names[C_END - 1])
        for (size_t i = 0; i < C_END; i++)
            names[i] = i < C_ARCH      ? first[i]
                       : i < C_STATUS  ? arch_names[i - C_ARCH]
                       : i == C_STATUS ? "status"
                                       : stats[i - C_STATS].name;
    *ret_n = C_END;
    return names;
}

int result_column(const char *name)
{
    size_t n;
    const char *const *names = result_columns(&n);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(names[i], name))
            return (int)i;
    return -1;
}

void result_from_head(struct result_row *r, const struct trace_head *h)
{
    r->tenants = h->tenants;
    r->order = (enum trace_order)h->order;
    r->burst = h->burst;
    r->seed = h->seed;
    r->replicate = h->replicate;
}

void result_from_recipe(struct result_row *r, const struct recipe *rec)
{
    r->tenants = rec->tenants;
    r->order = rec->order;
    r->burst = rec->burst;
    r->seed = rec->seed;
    r->replicate = rec->replicate;
}

static uint64_t stat_at(const struct result_row *r, size_t i)
{
    uint64_t v;
    memcpy(&v, (const char *)&r->stats + stats[i].off, sizeof(v));
    return v;
}

static enum cell_kind number(char *out, uint64_t v)
{
    snprintf(out, 24, "%" PRIu64, v);
    return CELL_NUMBER;
}

static enum cell_kind nothing(char *out)
{
    *out = '\0';
    return CELL_NULL;
}

enum cell_kind result_cell(const struct result_row *r, size_t column, char *out)
{
    struct id id;
    if (column >= C_STATS)
        return r->status == ROW_DONE ? number(out, stat_at(r, column - C_STATS)) : nothing(out);
    if (column >= C_ARCH && column < C_STATUS) {
        arch_text(&r->arch, (unsigned)column - C_ARCH, out);
        return arch_numeric((unsigned)column - C_ARCH) ? CELL_NUMBER : CELL_TEXT;
    }
    switch (column) {
    case C_NAME:
        snprintf(out, 160, "%.150s", r->name ? r->name : "");
        return CELL_TEXT;
    case C_INDEX:
        return number(out, r->index);
    case C_POINT:
        if (!r->have_trace)
            return nothing(out);
        arch_point_id(&r->arch, r->rules, &r->trace, &id);
        id_hex(&id, out);
        return CELL_TEXT;
    case C_TRACE:
        if (!r->have_trace)
            return nothing(out);
        id_hex(&r->trace, out);
        return CELL_TEXT;
    case C_RULES:
        strcpy(out, rules_name(r->rules));
        return CELL_TEXT;
    case C_TENANTS:
        return r->tenants ? number(out, r->tenants) : nothing(out);
    case C_ORDER:
        strcpy(out, order_name(r->order));
        return CELL_TEXT;
    case C_BURST:
        return number(out, r->burst);
    case C_SEED:
        return number(out, r->seed);
    case C_REPLICATE:
        return number(out, r->replicate);
    default:
        strcpy(out, row_status_name(r->status));
        return CELL_TEXT;
    }
}

void result_csv_head(FILE *f)
{
    size_t n;
    const char *const *names = result_columns(&n);
    for (size_t i = 0; i < n; i++)
        csv_cell(f, names[i], i + 1 == n);
}

void result_csv(const struct result_row *r, FILE *f)
{
    char cell[160];
    for (size_t i = 0; i < C_END; i++) {
        result_cell(r, i, cell);
        csv_cell(f, cell, i + 1 == C_END);
    }
}

json_t *result_columns_json(void)
{
    size_t n;
    const char *const *names = result_columns(&n);
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_string(names[i]));
    return a;
}

json_t *result_cells_json(const struct result_row *r)
{
    char cell[160];
    json_t *a = json_array();
    for (size_t i = 0; i < C_END; i++) {
        enum cell_kind k = result_cell(r, i, cell);
        json_t *v = k == CELL_NULL ? json_null() : k == CELL_TEXT ? json_str(cell) : NULL;
        if (!v)
            v = json_u64(i >= C_STATS ? stat_at(r, i - C_STATS) : strtoull(cell, NULL, 10));
        json_array_append_new(a, v);
    }
    return a;
}

static json_t *cache_json(const struct row_stats *s, unsigned which)
{
    const uint64_t *v = which == 0   ? &s->cc_hit
                        : which == 1 ? &s->iotlb_hit
                        : which == 2 ? &s->l2_hit
                                     : &s->l3_hit;
    static const char *const names[] = { "hit", "miss", "conflict", "domains" };
    json_t *o = json_object();
    for (unsigned i = 0; i < 4; i++)
        json_object_set_new(o, names[i], json_u64(v[i]));
    return o;
}

_Static_assert(offsetof(struct row_stats, cc_domains) == offsetof(struct row_stats, cc_hit) + 24 &&
                   offsetof(struct row_stats, l3_domains) ==
                       offsetof(struct row_stats, l3_hit) + 24,
               "a cache's four counts stand together");

static json_t *stats_json(const struct row_stats *s)
{
    static const char *const caches[] = { "CC", "IOTLB", "L2PAGE", "L3PAGE" };
    json_t *o = json_object(), *c = json_object(), *p = json_object(), *b = json_object();
#define PUT(obj, name, value) json_object_set_new(obj, name, json_u64(value))
    PUT(o, "time_ps", s->time_ps);
    PUT(o, "requests", s->requests);
    PUT(o, "pkts_sent", s->pkts_sent);
    PUT(o, "pkts_dropped", s->pkts_dropped);
    PUT(o, "mbps", s->mbps);
    PUT(o, "util_ppm", s->util_ppm);
    for (unsigned i = 0; i < 4; i++)
        json_object_set_new(c, caches[i], cache_json(s, i));
    json_object_set_new(o, "caches", c);
    PUT(p, "accesses", s->pf_accesses);
    PUT(p, "predictions", s->pf_predictions);
    PUT(p, "sid_correct", s->pf_correct);
    PUT(p, "sid_incorrect", s->pf_incorrect);
    PUT(p, "same_sid", s->pf_same_sid);
    PUT(p, "diff_sid", s->pf_diff_sid);
    PUT(p, "new_mappings", s->pf_new_mappings);
    PUT(b, "size", s->pf_size);
    PUT(b, "fill", s->pf_fill);
    PUT(b, "fill_same", s->pf_fill_same);
    PUT(b, "hit", s->pf_hit);
    PUT(b, "miss", s->pf_miss);
    json_object_set_new(p, "buffer", b);
    json_object_set_new(o, "prefetcher", p);
    PUT(o, "jain_ppm", s->jain_ppm);
    PUT(o, "min_flow_mbps", s->min_flow_mbps);
    PUT(o, "max_flow_mbps", s->max_flow_mbps);
    /* additions to the contract's list come last */
    PUT(p, "dropped", s->pf_dropped);
    PUT(p, "l2_hit", s->pf_l2_hit);
    PUT(p, "l2_miss", s->pf_l2_miss);
    PUT(p, "l2_conflict", s->pf_l2_conflict);
    PUT(p, "l3_hit", s->pf_l3_hit);
    PUT(p, "l3_miss", s->pf_l3_miss);
    PUT(p, "l3_conflict", s->pf_l3_conflict);
#undef PUT
    return o;
}

json_t *result_json(const struct result_row *r)
{
    struct id point;
    json_t *o = json_object();
    if (r->have_trace)
        arch_point_id(&r->arch, r->rules, &r->trace, &point);
    json_object_set_new(o, "schema", json_string("siofleet.row/1"));
    json_object_set_new(o, "point", r->have_trace ? json_id(&point) : json_null());
    json_object_set_new(o, "trace", r->have_trace ? json_id(&r->trace) : json_null());
    json_object_set_new(o, "recipe_id", r->have_recipe ? json_id(&r->recipe_id) : json_null());
    json_object_set_new(o, "rules", json_string(rules_name(r->rules)));
    json_object_set_new(o, "tenants", r->tenants ? json_u64(r->tenants) : json_null());
    json_object_set_new(o, "replicated", json_boolean(r->replicate > 1));
    json_object_set_new(o, "arch", arch_json(&r->arch));
    json_object_set_new(o, "status", json_string(row_status_name(r->status)));
    json_object_set_new(o, "error", json_str(r->error));
    json_object_set_new(o, "stats", r->status == ROW_DONE ? stats_json(&r->stats) : json_null());
    return o;
}
