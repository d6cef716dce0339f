/* A sweep as it is stored and sent: canonical JSON, ids instead of paths. What comes back may be anybody's. */
#include <stdlib.h>
#include <string.h>

#include "perf/sweep_in.h"
#include "proto/base/clean.h"
#include "proto/base/num.h"

static json_t *axes_json(const struct axes *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < a->n; i++) {
        const struct axis *x = &a->v[i];
        json_t *runs = json_array();
        for (size_t k = 0; k < x->n; k++) {
            const struct run *r = &x->runs[k];
            json_t *v = json_array();
            json_array_append_new(v, json_u64(r->lo));
            if (r->count > 1) {
                json_array_append_new(v, json_string(r->mul ? "x" : "+"));
                json_array_append_new(v, json_u64(r->step));
                json_array_append_new(v, json_u64(r->count));
            }
            json_array_append_new(runs, v);
        }
        json_t *o = json_object();
        json_object_set_new(o, "key", json_string(sweep_key_name(x->key)));
        json_object_set_new(o, "values", runs);
        json_array_append_new(list, o);
    }
    return list;
}

json_t *sweep_json(const struct sweep *s)
{
    const struct sweep_head *h = &s->head;
    json_t *traces = json_array(), *archs = json_array();
    for (size_t i = 0; i < s->n_traces; i++) {
        const struct trace_sec *t = &s->traces[i];
        json_t *o = json_object();
        json_object_set_new(o, "name", json_str(t->name));
        json_object_set_new(o, "id", t->have_id ? json_id(&t->id) : json_null());
        json_object_set_new(o, "recipe",
                            t->from_recipe ? recipe_json(&t->recipe, false) : json_null());
        json_object_set_new(o, "axes", axes_json(&t->axes));
        json_array_append_new(traces, o);
    }
    for (size_t i = 0; i < s->n_archs; i++) {
        const struct arch_sec *a = &s->archs[i];
        json_t *o = json_object(), *cfgs = json_array();
        for (size_t c = 0; c < a->n_cfgs; c++) {
            json_t *v = json_object();
            for (unsigned k = 0; k < ARCH_N; k++)
                if (a->cfgs[c].has[k])
                    json_object_set_new(v, arch_names[k], json_u64(arch_get(&a->cfgs[c].v, k)));
            json_array_append_new(cfgs, v);
        }
        json_object_set_new(o, "name", json_str(a->name));
        json_object_set_new(o, "axes", axes_json(&a->axes));
        json_object_set_new(o, "cfgs", cfgs);
        json_array_append_new(archs, o);
    }
    json_t *j = json_object();
    json_object_set_new(j, "name", json_str(h->name));
    json_object_set_new(j, "rules", json_string(rules_name(h->rules)));
    json_object_set_new(j, "timeout_ms", json_u64(h->timeout_ms));
    json_object_set_new(j, "retries", json_u64(h->retries));
    json_object_set_new(j, "priority", json_u64(h->priority));
    json_object_set_new(j, "block", json_u64(h->block));
    json_object_set_new(j, "pace_ms", json_u64(h->pace_ms));
    json_object_set_new(j, "skip_invalid", json_boolean(h->skip_invalid));
    json_object_set_new(j, "collect", json_str(s->collect_text));
    json_object_set_new(j, "traces", traces);
    json_object_set_new(j, "archs", archs);
    return j;
}

static int bad(struct err *e, const char *what)
{
    return err_set(e, SF_EFORMAT, "sweep: %s not understood", what);
}

static int item_u64(const json_t *list, size_t i, uint64_t *ret)
{
    const json_t *j = json_array_get(list, i);
    if (json_is_integer(j) && json_integer_value(j) >= 0) {
        *ret = (uint64_t)json_integer_value(j);
        return 0;
    }
    return json_is_string(j) ? num_u64(json_string_value(j), 0, UINT64_MAX, "", ret, NULL) : -1;
}

static int run_from_json(struct axis *x, const json_t *v, size_t n_cfgs, struct err *e)
{
    uint64_t lo, hi;
    struct run run = { .count = 1 };
    sweep_key_bounds(x->key, &lo, &hi);
    if (x->key == KEY_CFG)
        hi = n_cfgs ? n_cfgs - 1 : 0;
    else if (x->key < ARCH_N && !arch_numeric((unsigned)x->key))
        hi = 2;
    size_t n = json_array_size(v);
    if ((n != 1 && n != 4) || item_u64(v, 0, &run.lo) < 0 || (x->key == KEY_CFG && !n_cfgs))
        return bad(e, "a value");
    uint64_t last = run.lo;
    if (n == 4) {
        const char *op = json_string_value(json_array_get(v, 1));
        if (!op || (strcmp(op, "x") && strcmp(op, "+")) || item_u64(v, 2, &run.step) < 0 ||
            item_u64(v, 3, &run.count) < 0 || run.count < 2 || run.count > POINTS_MAX)
            return bad(e, "a range");
        run.mul = *op == 'x';
        uint64_t span;
        if (!run.step || (run.mul && (run.step < 2 || run.count > 64 || !run.lo)))
            return bad(e, "a range");
        if (run.mul) {
            for (uint64_t i = 1; i < run.count; i++)
                if (__builtin_mul_overflow(last, run.step, &last))
                    return bad(e, "a range");
        } else if (__builtin_mul_overflow(run.step, run.count - 1, &span) ||
                   __builtin_add_overflow(last, span, &last)) {
            return bad(e, "a range");
        }
    }
    if (run.lo < lo || last > hi)
        return bad(e, "a value out of range");
    return axis_add(x, run, "sweep", e);
}

static int axes_from_json(struct axes *a, const json_t *list, bool arch, size_t n_cfgs,
                          struct err *e)
{
    if (!json_is_array(list))
        return bad(e, "axes");
    size_t i, k;
    json_t *o, *v;
    json_array_foreach ((json_t *)list, i, o) {
        const char *name = json_string_value(json_object_get(o, "key"));
        const json_t *values = json_object_get(o, "values");
        int key = !name ? -1 : arch ? arch_key(name) : sweep_trace_key(name);
        if (arch && name && !strcmp(name, "preset"))
            key = KEY_PRESET;
        if (arch && name && !strcmp(name, "cfg"))
            key = KEY_CFG;
        if (key < 0 || !json_array_size(values))
            return bad(e, "an axis");
        struct axis *x;
        int r = axes_add(a, key, "sweep", &x, e);
        json_array_foreach ((json_t *)values, k, v)
            if (r == 0)
                r = run_from_json(x, v, n_cfgs, e);
        if (r < 0)
            return r;
    }
    return axes_seal(a, "sweep", e);
}

static int trace_from_json(struct sweep *s, const json_t *o, struct err *e)
{
    struct trace_sec *t = &s->traces[s->n_traces++];
    const char *name = json_string_value(json_object_get(o, "name"));
    const json_t *recipe = json_object_get(o, "recipe");
    const char *id = json_string_value(json_object_get(o, "id"));
    recipe_init(&t->recipe);
    t->name = strdup(name ? name : "");
    if (!t->name)
        return err_sys(e, ENOMEM, "sweep");
    if (id && (id_parse(id, &t->id, NULL) < 0))
        return bad(e, "a trace's id");
    t->have_id = id != NULL;
    t->from_recipe = json_is_object(recipe);
    if (t->from_recipe == t->have_id)
        return bad(e, "a trace without exactly one of id and recipe");
    int r = t->from_recipe ? recipe_from_json(recipe, &t->recipe, e) : 0;
    if (r == 0)
        r = axes_from_json(&t->axes, json_object_get(o, "axes"), false, 0, e);
    if (r == 0 && t->axes.n && !t->from_recipe)
        r = bad(e, "a trace with an id and keys");
    return r;
}

static int arch_sec_from_json(struct sweep *s, const json_t *o, struct err *e)
{
    struct arch_sec *a = &s->archs[s->n_archs++];
    const char *name = json_string_value(json_object_get(o, "name"));
    const json_t *cfgs = json_object_get(o, "cfgs");
    a->name = strdup(name ? name : "");
    a->cfgs = calloc(json_array_size(cfgs) + 1, sizeof(*a->cfgs));
    if (!a->name || !a->cfgs)
        return err_sys(e, ENOMEM, "sweep");
    size_t i;
    json_t *c, *v;
    const char *key;
    json_array_foreach ((json_t *)cfgs, i, c) {
        struct cfg *dst = &a->cfgs[a->n_cfgs++];
        if (!json_is_object(c))
            return bad(e, "an architecture file");
        json_object_foreach (c, key, v) {
            int k = arch_key(key);
            uint64_t n;
            if (k < 0 || !arch_numeric((unsigned)k) || json_get_u64(c, key, &n, NULL) < 0 ||
                n > UINT32_MAX)
                return bad(e, "an architecture file");
            dst->has[k] = true;
            arch_put(&dst->v, (unsigned)k, (uint32_t)n);
        }
    }
    return axes_from_json(&a->axes, json_object_get(o, "axes"), true, a->n_cfgs, e);
}

int sweep_from_json(const json_t *j, struct sweep **ret, struct err *e)
{
    CLEANUP(sweep_free) struct sweep *s = sweep_new();
    if (!s)
        return err_sys(e, ENOMEM, "sweep");
    struct sweep_head *h = &s->head;
    const char *name = json_string_value(json_object_get(j, "name"));
    const char *rules = json_string_value(json_object_get(j, "rules"));
    const char *collect = json_string_value(json_object_get(j, "collect"));
    if (!name || !*name || strlen(name) >= sizeof(h->name))
        return bad(e, "name");
    strcpy(h->name, name);
    if (!rules || rules_parse(rules, "sweep", &h->rules, NULL) < 0)
        return bad(e, "rules");
    if (collect && !(s->collect_text = strdup(collect)))
        return err_sys(e, ENOMEM, "sweep");
    if (collect)
        strcpy(h->collect_run, "stored");
    h->skip_invalid = json_is_true(json_object_get(j, "skip_invalid"));
    if (json_get_u64(j, "timeout_ms", &h->timeout_ms, NULL) < 0 ||
        json_get_u64(j, "retries", &h->retries, NULL) < 0 ||
        json_get_u64(j, "priority", &h->priority, NULL) < 0 ||
        json_get_u64(j, "block", &h->block, NULL) < 0 ||
        json_get_u64(j, "pace_ms", &h->pace_ms, NULL) < 0 || !h->timeout_ms ||
        h->timeout_ms > UINT64_C(1) << 48 || h->retries > 98 || h->priority > 1000000 ||
        h->block > 1u << 20 || h->pace_ms > 3600000)
        return bad(e, "a number of [sweep]");
    const json_t *traces = json_object_get(j, "traces"), *archs = json_object_get(j, "archs");
    size_t nt = json_array_size(traces), na = json_array_size(archs);
    if (!nt || nt > SECTIONS_MAX || !na || na > SECTIONS_MAX)
        return bad(e, "the number of traces or archs");
    s->traces = calloc(nt, sizeof(*s->traces));
    s->archs = calloc(na, sizeof(*s->archs));
    if (!s->traces || !s->archs)
        return err_sys(e, ENOMEM, "sweep");
    int r = 0;
    for (size_t i = 0; i < nt && r == 0; i++)
        r = trace_from_json(s, json_array_get(traces, i), e);
    for (size_t i = 0; i < na && r == 0; i++)
        r = arch_sec_from_json(s, json_array_get(archs, i), e);
    if (r == 0)
        r = sweep_seal(s, "sweep", e);
    for (size_t i = 0; i < na && r == 0 && !h->skip_invalid; i++)
        r = sweep_check_section(s, &s->archs[i], "sweep", e);
    if (r < 0)
        return r == -SF_EUSAGE && e ? -(e->code = SF_EFORMAT) : r;
    *ret = TAKE(s);
    return 0;
}
