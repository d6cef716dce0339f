#include "coordinator/live.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

void live_free(struct live **pl)
{
    struct live *l = *pl;
    *pl = NULL;
    if (!l)
        return;
    sweep_free(&l->sweep);
    free(l->key);
    free(l->build);
    free(l->ready);
    free(l->tr);
    free(l);
}

int live_new(const json_t *json, struct live **ret, struct err *e)
{
    CLEANUP(live_free) struct live *l = calloc(1, sizeof(*l));
    if (!l)
        return err_sys(e, ENOMEM, "sweep");
    int r = sweep_from_json(json, &l->sweep, e);
    if (r < 0)
        return r;
    const struct sweep_head *h = sweep_head(l->sweep);
    snprintf(l->name, sizeof(l->name), "%s", h->name);
    l->rules = h->rules;
    l->points = sweep_points(l->sweep);
    uint64_t n = sweep_n_traces(l->sweep);
    l->waiting = sweep_collect_text(l->sweep) != NULL;
    if (n > LIVE_TRACES_MAX)
        return err_set(e, SF_EUSAGE, "sweep '%.100s': %" PRIu64 " traces, at most %d", l->name, n,
                       (int)LIVE_TRACES_MAX);
    l->key = calloc(n + 1, sizeof(*l->key));
    l->build = calloc(n + 1, sizeof(*l->build));
    l->ready = calloc(n + 1, sizeof(*l->ready));
    l->tr = calloc(n + 1, sizeof(*l->tr));
    if (!l->key || !l->build || !l->ready || !l->tr)
        return err_sys(e, ENOMEM, "sweep");
    for (uint32_t t = 0; t < n && !l->waiting; t++) {
        struct sweep_trace tr;
        r = sweep_trace(l->sweep, t, &tr, e);
        if (r < 0)
            return r;
        l->build[t] = tr.from_recipe;
        if (tr.from_recipe) {
            for (size_t i = 0; i < tr.recipe->n_logs; i++)
                if (!tr.recipe->logs[i].have_id)
                    return err_set(e, SF_EUSAGE, "sweep '%.100s': a log without an id", l->name);
            recipe_id(tr.recipe, &l->key[t]);
        } else if (tr.have_id) {
            l->key[t] = tr.id;
        } else {
            return err_set(e, SF_EUSAGE, "sweep '%.100s': a trace without an id", l->name);
        }
        l->n_traces++;
    }
    *ret = TAKE(l);
    return 0;
}

static uint64_t plan_trace(void *ctx, uint64_t index)
{
    uint64_t t = UINT64_MAX;
    sweep_point(((struct live *)ctx)->sweep, index, &t, NULL);
    return t;
}

static uint64_t plan_end(void *ctx, uint64_t index)
{
    return sweep_trace_end(((struct live *)ctx)->sweep, index);
}

static struct sched_plan plan_of(struct live *l)
{
    return (struct sched_plan){ l, plan_trace, plan_end };
}

void live_event(struct live *l, const struct sweep_head *h, bool held, struct spans *todo,
                struct sched_event *ev)
{
    *ev =
        (struct sched_event){ .type = EV_SWEEP,
                              .sweep = { .seq = l->seq,
                                         .points = l->points,
                                         .timeout_ms = h->timeout_ms,
                                         .block = h->block,
                                         .pace_ms = h->pace_ms,
                                         .priority = h->priority,
                                         .retries = h->retries > 1000 ? 1000 : (uint32_t)h->retries,
                                         .held = held,
                                         .plan = plan_of(l),
                                         .todo = todo,
                                         .key = l->key,
                                         .build = l->build,
                                         .ready = l->ready,
                                         .n_traces = l->n_traces,
                                         .user = l } };
}

int live_check(const struct live *l, struct err *e)
{
    struct arch a;
    struct err why = { 0 };
    uint64_t t;
    for (uint64_t i = 0; i < l->points && i < LIVE_CHECK_MAX; i++) {
        int r = sweep_point(l->sweep, i, &t, &a);
        if (r >= 0)
            r = arch_check(&a, l->rules, &why);
        if (r < 0)
            return err_set(e, SF_EUSAGE, "sweep '%.100s': point %" PRIu64 ": %.300s", l->name, i,
                           why.text);
    }
    return 0;
}

const struct recipe *live_recipe(struct live *l, uint32_t t)
{
    struct sweep_trace tr;
    if (t >= l->n_traces || !l->build[t] || sweep_trace(l->sweep, t, &tr, NULL) < 0)
        return NULL;
    return tr.recipe;
}

uint32_t live_find(const struct live *l, const struct id *key)
{
    for (uint32_t t = 0; t < l->n_traces; t++)
        if (id_eq(&l->key[t], key))
            return t;
    return UINT32_MAX;
}

int live_arch(const struct live *l, uint64_t index, uint32_t *ret_trace, struct arch *ret)
{
    uint64_t t;
    if (index >= l->points || sweep_point(l->sweep, index, &t, ret) < 0 || t >= l->n_traces)
        return -ENOENT;
    *ret_trace = (uint32_t)t;
    return 0;
}

int live_point(const struct live *l, uint64_t index, uint32_t *ret_trace, struct arch *ret,
               struct id *ret_id)
{
    if (live_arch(l, index, ret_trace, ret) < 0)
        return -ENOENT;
    memset(ret_id, 0, sizeof(*ret_id));
    if (l->tr[*ret_trace].num)
        arch_point_id(ret, l->rules, &l->tr[*ret_trace].id, ret_id);
    return 0;
}

int live_points_spec(const struct live *l, uint32_t t, const struct point at[], size_t n,
                     bool lists, struct buf *out, struct err *e)
{
    char sweep[ID_HEX_LEN], trace[ID_HEX_LEN];
    id_hex(&l->id, sweep);
    id_hex(&l->tr[t].id, trace);
    buf_reset(out);
    int r = buf_addf(out,
                     "{\"sweep\":\"%s\",\"trace\":\"%s\",\"rules\":\"%s\",\"pace_ms\":%" PRIu64 ",",
                     sweep, trace, rules_name(l->rules), sweep_head(l->sweep)->pace_ms);
    if (r >= 0)
        r = points_text(at, n, lists, out);
    if (r >= 0)
        r = buf_adds(out, "}");
    return r < 0 ? err_sys(e, -r, "sweep '%.100s': task of %zu points", l->name, n) : 0;
}

int live_trace_spec(struct live *l, uint32_t t, struct buf *out, struct err *e)
{
    const struct recipe *rec = live_recipe(l, t);
    json_t *j = rec ? json_pack("{s:o}", "recipe", recipe_json(rec, false)) : NULL;
    CLEANUP(freep) char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    buf_reset(out);
    int r = text ? buf_adds(out, text) : -ENOMEM;
    return r < 0 ? err_sys(e, -r, "sweep '%.100s': recipe", l->name) : 0;
}
