#include "coordinator/audit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/live.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/num.h"

enum { AUDIT_ROWS = 20000, AUDIT_LIST = 1000 };

static json_t *when(uint64_t wall_ms)
{
    char text[CLOCK_RFC3339_LEN];
    if (!wall_ms)
        return json_null();
    clock_rfc3339(wall_ms, text);
    return json_string(text);
}

/* One page a question. The first has the counters and what lies beside, each has rows. */

struct audit {
    struct live *l;
    json_t *missing, *wrong;
    uint64_t next, n_missing, listed, accepted, failed, rows;
};

static void miss(struct audit *a, uint64_t lo, uint64_t hi)
{
    a->n_missing += hi - lo;
    for (uint64_t i = lo; i < hi && a->listed < AUDIT_LIST; i++, a->listed++)
        json_array_append_new(a->missing, json_u64(i));
}

static int audit_row(void *ctx, const struct store_seen *r)
{
    struct audit *a = ctx;
    const char *bad = NULL;
    if (r->index > a->next)
        miss(a, a->next, r->index < a->l->points ? r->index : a->l->points);
    a->next = r->index + 1;
    a->rows++;
    a->accepted += r->status != ROW_FAILED;
    a->failed += r->status == ROW_FAILED;
    struct arch arch;
    struct id point;
    uint32_t t;
    if (live_point(a->l, r->index, &t, &arch, &point) < 0)
        bad = "no point of the sweep has this index";
    else if (r->status == ROW_DONE && (!r->has_point || !r->trace))
        bad = "a done row without its point or trace";
    else if (r->status == ROW_DONE && a->l->tr[t].num &&
             (a->l->tr[t].num != r->trace || !id_eq(&point, &r->point)))
        bad = "its row is of another point or trace than the recipe says";
    if (bad && json_array_size(a->wrong) < AUDIT_LIST)
        json_array_append_new(a->wrong,
                              json_pack("{s:o, s:s}", "index", json_u64(r->index), "reason", bad));
    return 0;
}

static int add_beside(void *ctx, const struct store_beside *b)
{
    json_array_append_new(
        ctx, json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "index", json_u64(b->index), "kind",
                       b->kind, "task", json_u64(b->task), "epoch", json_u64(b->epoch), "n",
                       json_u64(b->n), "agent", json_str(b->agent), "at", when(b->at_ms)));
    return 0;
}

static int audit_head(struct store *st, const struct store_sweep *w, const char *state, json_t *j,
                      struct err *e)
{
    char hex[ID_HEX_LEN];
    json_t *differing = json_array(), *beside = json_array();
    id_hex(&w->id, hex);
    json_object_set_new(j, "duplicate_equal", json_u64(w->equal));
    json_object_set_new(j, "late", json_u64(w->late));
    json_object_set_new(j, "foreign", json_u64(w->foreign));
    json_object_set_new(j, "differing", differing);
    json_object_set_new(j, "beside", beside);
    json_object_set_new(j, "n_differing", json_u64(w->differing));
    json_object_set_new(j, "sweep", json_string(hex));
    json_object_set_new(j, "name", json_str(w->name));
    json_object_set_new(j, "state", json_string(state));
    json_object_set_new(j, "counted", json_u64(w->done + w->invalid));
    int r = store_beside(st, w->seq, AUDIT_LIST, true, add_beside, differing, e);
    return r < 0 ? r : store_beside(st, w->seq, AUDIT_LIST, false, add_beside, beside, e);
}

/* What the store knows of the traces; without it a row is only checked for being a point's. */
static int look_up(struct store *st, struct live *l, struct err *e)
{
    for (uint32_t t = 0; t < l->n_traces; t++) {
        int r = l->build[t] ? store_recipe(st, &l->key[t], &l->tr[t], e)
                            : store_trace(st, &l->key[t], &l->tr[t], e);
        if (r == -ENOENT)
            l->tr[t].num = 0;
        else if (r < 0)
            return r;
    }
    return 0;
}

int audit_page(struct store *st, const json_t *args, const char *cursor,
               const char *(*state)(void *ctx, const struct store_sweep *w), void *ctx,
               json_t **ret, char next[STORE_CURSOR], struct err *e)
{
    const char *text = json_string_value(json_object_get(args, "id"));
    struct store_sweep w;
    uint64_t from = 0;
    CLEANUP(freep) char *json = NULL;
    if (*cursor && num_u64(cursor, 0, UINT64_MAX, "cursor", &from, e) < 0)
        return -SF_EUSAGE;
    int r = store_find_sweep(st, text ? text : "last", &w, e);
    if (r >= 0)
        r = store_sweep(st, w.seq, &w, &json, e);
    if (r < 0)
        return r;
    struct live *l = NULL;
    json_t *recipe = json_loads(json, 0, NULL);
    r = recipe ? live_new(recipe, &l, e)
               : err_set(e, SF_EINTEGRITY, "sweep '%.100s': its recipe is damaged", w.name);
    json_decref(recipe);
    if (r >= 0)
        r = look_up(st, l, e);
    if (r < 0) {
        live_free(&l);
        return r;
    }
    struct audit a = { .l = l, .missing = json_array(), .wrong = json_array(), .next = from };
    r = store_scan(st, w.seq, from, AUDIT_ROWS, audit_row, &a, e);
    bool more = a.rows == AUDIT_ROWS;
    if (!more && a.next < l->points)
        miss(&a, a.next, l->points);
    if (more)
        snprintf(next, STORE_CURSOR, "%" PRIu64, a.next);
    json_t *j = json_object();
    json_object_set_new(j, "points", json_u64(w.points));
    json_object_set_new(j, "accepted", json_u64(a.accepted));
    json_object_set_new(j, "missing", a.missing);
    json_object_set_new(j, "n_missing", json_u64(a.n_missing));
    json_object_set_new(j, "failed", json_u64(a.failed));
    json_object_set_new(j, "wrong", a.wrong);
    if (r >= 0 && !from)
        r = audit_head(st, &w, state ? state(ctx, &w) : sweep_state_name(w.state, w.held), j, e);
    live_free(&l);
    if (r < 0)
        json_decref(j);
    else
        *ret = j;
    return r < 0 ? r : 0;
}
