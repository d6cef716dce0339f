/* A sweep in memory: keys and their values, and from a number to the trace and architecture that it is. */
#include "perf/sweep.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "perf/sweep_in.h"
#include "proto/base/clean.h"

static const char *const more_keys[] = { "preset", "cfg",  "tenants",  "order",
                                         "burst",  "seed", "replicate" };
const char *const sweep_presets[SWEEP_PRESETS] = { "default", "hypertrio" };

static void axes_clear(struct axes *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i].runs);
    free(a->v);
    *a = (struct axes){ 0 };
}

void sweep_free(struct sweep **sp)
{
    struct sweep *s = *sp;
    *sp = NULL;
    if (!s)
        return;
    for (size_t i = 0; i < s->n_traces; i++) {
        axes_clear(&s->traces[i].axes);
        recipe_clear(&s->traces[i].recipe);
        free(s->traces[i].name);
        free(s->traces[i].file);
    }
    for (size_t i = 0; i < s->n_archs; i++) {
        axes_clear(&s->archs[i].axes);
        free(s->archs[i].name);
        free(s->archs[i].cfgs);
    }
    free(s->traces);
    free(s->archs);
    free(s->collect_text);
    free(s);
}

struct sweep *sweep_new(void)
{
    struct sweep *s = calloc(1, sizeof(*s));
    if (s) {
        s->head.timeout_ms = 600000;
        s->head.retries = 3;
    }
    return s;
}

/* ---- axes */

const char *sweep_key_name(int key)
{
    return key < ARCH_N ? arch_names[key] : more_keys[key - ARCH_N];
}

int sweep_trace_key(const char *name)
{
    for (int k = KEY_TENANTS; k < KEY_END; k++)
        if (!strcmp(sweep_key_name(k), name))
            return k;
    return -1;
}

void sweep_key_bounds(int key, uint64_t *lo, uint64_t *hi)
{
    *lo = 0;
    *hi = UINT32_MAX;
    switch (key) {
    case KEY_PRESET:
        *hi = SWEEP_PRESETS - 1;
        break;
    case KEY_ORDER:
        *hi = ORDER_ORIG;
        break;
    case KEY_TENANTS:
        *lo = 1;
        *hi = RECIPE_TENANTS_MAX;
        break;
    case KEY_BURST:
        *lo = 1;
        *hi = RECIPE_BURST_MAX;
        break;
    case KEY_SEED:
        *hi = UINT64_MAX;
        break;
    case KEY_REPLICATE:
        *lo = 1;
        *hi = RECIPE_REPLICATE_MAX;
        break;
    default:
        break;
    }
}

int axes_add(struct axes *a, int key, const char *place, struct axis **ret, struct err *e)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].key == key)
            return err_set(e, SF_EUSAGE, "%s: key '%s' stands twice", place, sweep_key_name(key));
    if (a->n == AXES_MAX)
        return err_set(e, SF_EUSAGE, "%s: too many keys", place);
    struct axis *v = realloc(a->v, (a->n + 1) * sizeof(*v));
    if (!v)
        return err_sys(e, ENOMEM, "%s", place);
    a->v = v;
    v[a->n] = (struct axis){ .key = key };
    *ret = &v[a->n++];
    return 0;
}

int axis_add(struct axis *x, struct run run, const char *place, struct err *e)
{
    struct run *last = x->n ? &x->runs[x->n - 1] : NULL;
    if (__builtin_add_overflow(x->count, run.count, &x->count) || x->count > POINTS_MAX)
        return err_set(e, SF_EUSAGE, "%s: more values than a sweep can number", place);
    /* a long @file of consecutive numbers is one run again */
    if (last && run.count == 1 && !last->mul && last->count > 1 &&
        run.lo == last->lo + last->step * last->count) {
        last->count++;
        return 0;
    }
    if (last && run.count == 1 && last->count == 1 && run.lo > last->lo && x->n > 1) {
        struct run *before = &x->runs[x->n - 2];
        if (before->count == 1 && !before->mul && last->lo > before->lo &&
            last->lo - before->lo == run.lo - last->lo) {
            before->step = last->lo - before->lo;
            before->count = 3;
            x->n--;
            return 0;
        }
    }
    if ((x->n & (x->n - 1)) == 0) { /* grow by doubling */
        struct run *v = realloc(x->runs, (x->n ? 2 * x->n : 1) * sizeof(*v));
        if (!v)
            return err_sys(e, ENOMEM, "%s", place);
        x->runs = v;
    }
    if (run.count == 1)
        run.step = 0, run.mul = false;
    x->runs[x->n++] = run;
    return 0;
}

static uint64_t run_value(const struct run *r, uint64_t i)
{
    if (!r->mul)
        return r->lo + r->step * i;
    uint64_t v = r->lo;
    while (i--)
        v *= r->step;
    return v;
}

static uint64_t axis_value(const struct axis *x, uint64_t i)
{
    const struct run *r = x->runs;
    while (i >= r->count)
        i -= (r++)->count;
    return run_value(r, i);
}

int axes_seal(struct axes *a, const char *place, struct err *e)
{
    a->count = 1;
    for (size_t i = 0; i < a->n; i++)
        if (__builtin_mul_overflow(a->count, a->v[i].count, &a->count) || a->count > POINTS_MAX)
            return err_set(e, SF_EUSAGE, "%s: more points than a sweep can number", place);
    return 0;
}

/* ---- numbering */

static bool uses_collect(const struct recipe *r)
{
    for (size_t i = 0; i < r->n_logs; i++)
        if (r->logs[i].path && !strcmp(r->logs[i].path, RECIPE_COLLECT))
            return true;
    return false;
}

int sweep_seal(struct sweep *s, const char *place, struct err *e)
{
    if (!s->n_traces)
        return err_set(e, SF_EUSAGE, "%s: no [trace] section", place);
    if (!s->n_archs) {
        s->archs = calloc(1, sizeof(*s->archs));
        if (!s->archs || !(s->archs[0].name = strdup("")))
            return err_sys(e, ENOMEM, "%s", place);
        s->n_archs = 1;
        s->archs[0].axes.count = 1;
    }
    for (size_t i = 0; i < s->n_traces; i++)
        if (__builtin_add_overflow(s->trace_count, s->traces[i].axes.count, &s->trace_count))
            return err_set(e, SF_EUSAGE, "%s: more points than a sweep can number", place);
    for (size_t i = 0; i < s->n_archs; i++)
        if (__builtin_add_overflow(s->arch_count, s->archs[i].axes.count, &s->arch_count))
            return err_set(e, SF_EUSAGE, "%s: more points than a sweep can number", place);
    if (__builtin_mul_overflow(s->trace_count, s->arch_count, &s->points) || s->points > POINTS_MAX)
        return err_set(e, SF_EUSAGE, "%s: more points than a sweep can number", place);
    for (size_t i = 0; i < s->n_traces; i++)
        if (uses_collect(&s->traces[i].recipe) && !s->collect_text)
            return err_set(e, SF_EUSAGE, "%s: [trace%s%s] wants %s, but there is no [collect]",
                           place, *s->traces[i].name ? " " : "", s->traces[i].name, RECIPE_COLLECT);
    return 0;
}

/* ---- expansion */

static void arch_of(const struct arch_sec *a, uint64_t rest, struct arch *ret)
{
    uint64_t digit[AXES_MAX] = { 0 };
    for (size_t i = a->axes.n; i-- > 0;) {
        digit[i] = rest % a->axes.v[i].count;
        rest /= a->axes.v[i].count;
    }
    arch_default(ret);
    /* order of effect, whatever the order of writing: preset, file, single keys */
    for (size_t i = 0; i < a->axes.n; i++)
        if (a->axes.v[i].key == KEY_PRESET)
            arch_preset(ret, sweep_presets[axis_value(&a->axes.v[i], digit[i])], "", NULL);
    for (size_t i = 0; i < a->axes.n; i++)
        if (a->axes.v[i].key == KEY_CFG) {
            const struct cfg *c = &a->cfgs[axis_value(&a->axes.v[i], digit[i])];
            for (unsigned k = 0; k < ARCH_N; k++)
                if (c->has[k])
                    arch_put(ret, k, arch_get(&c->v, k));
        }
    for (size_t i = 0; i < a->axes.n; i++)
        if (a->axes.v[i].key < ARCH_N)
            arch_put(ret, (unsigned)a->axes.v[i].key,
                     (uint32_t)axis_value(&a->axes.v[i], digit[i]));
}

int sweep_check_section(const struct sweep *s, const struct arch_sec *a, const char *place,
                        struct err *e)
{
    static const char *const parts[] = { "cc_", "iotlb_", "l2_", "l3_", "pf_", "" };
    for (size_t p = 0; p < ARRAY_LEN(parts); p++) {
        uint64_t stride[AXES_MAX], n[AXES_MAX], digit[AXES_MAX] = { 0 }, below = 1, tries = 1;
        for (size_t i = a->axes.n; i-- > 0;) {
            int key = a->axes.v[i].key;
            bool prefixed = false;
            for (size_t q = 0; key < ARCH_N && q + 1 < ARRAY_LEN(parts); q++)
                prefixed |= !strncmp(arch_names[key], parts[q], strlen(parts[q]));
            bool mine =
                key >= ARCH_N ||
                (*parts[p] ? !strncmp(sweep_key_name(key), parts[p], strlen(parts[p])) : !prefixed);
            stride[i] = below;
            n[i] = mine ? a->axes.v[i].count : 1;
            below *= a->axes.v[i].count;
            if (__builtin_mul_overflow(tries, n[i], &tries) || tries > CHECKS_MAX)
                return err_set(e, SF_EUSAGE,
                               "%s: more than %u combinations of one cache to check; say "
                               "skip_invalid = yes in [sweep]",
                               place, CHECKS_MAX);
        }
        for (;;) {
            uint64_t index = 0;
            for (size_t i = 0; i < a->axes.n; i++)
                index += digit[i] * stride[i];
            struct arch v;
            arch_of(a, index, &v);
            struct err why = { 0 };
            if (arch_check(&v, s->head.rules, &why) < 0)
                return err_set(e, SF_EUSAGE, "%s: invalid point: %.400s", place, why.text);
            size_t i = a->axes.n;
            while (i > 0 && ++digit[i - 1] == n[i - 1])
                digit[--i] = 0;
            if (i == 0)
                break;
        }
    }
    return 0;
}

const struct sweep_head *sweep_head(const struct sweep *s)
{
    return &s->head;
}

const char *sweep_collect_text(const struct sweep *s)
{
    return s->collect_text;
}

uint64_t sweep_points(const struct sweep *s)
{
    return s->points;
}

uint64_t sweep_n_traces(const struct sweep *s)
{
    return s->trace_count;
}

int sweep_trace(struct sweep *s, uint64_t t, struct sweep_trace *ret, struct err *e)
{
    if (t >= s->trace_count)
        return err_set(e, EINVAL, "sweep: no trace %" PRIu64, t);
    const struct trace_sec *sec = s->traces;
    while (t >= sec->axes.count)
        t -= (sec++)->axes.count;
    *ret = (struct sweep_trace){
        .name = sec->name, .file = sec->file, .id = sec->id, .have_id = sec->have_id
    };
    if (!sec->from_recipe)
        return 0;
    s->scratch = sec->recipe;
    for (size_t i = sec->axes.n; i-- > 0;) {
        const struct axis *x = &sec->axes.v[i];
        uint64_t v = axis_value(x, t % x->count);
        t /= x->count;
        switch (x->key) {
        case KEY_TENANTS:
            s->scratch.tenants = v;
            break;
        case KEY_ORDER:
            s->scratch.order = (enum trace_order)v;
            break;
        case KEY_BURST:
            s->scratch.burst = v;
            break;
        case KEY_SEED:
            s->scratch.seed = v;
            break;
        default:
            s->scratch.replicate = v;
            break;
        }
    }
    ret->from_recipe = true;
    ret->recipe = &s->scratch;
    recipe_id(&s->scratch, &ret->recipe_id);
    return 0;
}

int sweep_point(const struct sweep *s, uint64_t index, uint64_t *ret_trace, struct arch *ret_arch)
{
    if (index >= s->points)
        return -EINVAL;
    *ret_trace = index / s->arch_count;
    if (!ret_arch)
        return 0;
    uint64_t i = index % s->arch_count;
    const struct arch_sec *sec = s->archs;
    while (i >= sec->axes.count)
        i -= (sec++)->axes.count;
    arch_of(sec, i, ret_arch);
    return 0;
}

uint64_t sweep_trace_end(const struct sweep *s, uint64_t index)
{
    return index >= s->points ? s->points : (index / s->arch_count + 1) * s->arch_count;
}

/* ---- files */

int sweep_identify(struct sweep *s, struct err *e)
{
    for (size_t i = 0; i < s->n_traces; i++) {
        struct trace_sec *t = &s->traces[i];
        if (t->file && !t->have_id) {
            int r = cid_file(t->file, &t->id, NULL, e);
            if (r < 0)
                return r;
            t->have_id = true;
        }
        /* the same logs often stand in several sections: hash each once */
        for (size_t k = 0; k < t->recipe.n_logs; k++) {
            struct recipe_log *l = &t->recipe.logs[k];
            for (size_t j = 0; j <= i && !l->have_id && l->path; j++)
                for (size_t m = 0; m < s->traces[j].recipe.n_logs && !l->have_id; m++) {
                    const struct recipe_log *o = &s->traces[j].recipe.logs[m];
                    if (o != l && o->have_id && o->path && !strcmp(o->path, l->path)) {
                        l->id = o->id;
                        l->have_id = true;
                    }
                }
            if (l->have_id || !l->path || !strcmp(l->path, RECIPE_COLLECT))
                continue;
            int r = cid_file(l->path, &l->id, NULL, e);
            if (r < 0)
                return r;
            l->have_id = true;
        }
    }
    return 0;
}

struct seen {
    const char **v;
    size_t n;
};

static int see(struct seen *seen, const char *path, const struct id *id,
               int (*cb)(void *, const char *, const struct id *), void *user)
{
    for (size_t i = 0; i < seen->n; i++)
        if (!strcmp(seen->v[i], path))
            return 0;
    const char **v = realloc(seen->v, (seen->n + 1) * sizeof(*v));
    if (!v)
        return -ENOMEM;
    seen->v = v;
    v[seen->n++] = path;
    return cb(user, path, id);
}

int sweep_files(struct sweep *s, int (*cb)(void *user, const char *path, const struct id *id),
                void *user)
{
    struct seen seen = { 0 };
    int r = 0;
    for (size_t i = 0; i < s->n_traces && r == 0; i++) {
        const struct trace_sec *t = &s->traces[i];
        if (t->file)
            r = see(&seen, t->file, &t->id, cb, user);
        for (size_t k = 0; k < t->recipe.n_logs && r == 0; k++) {
            const struct recipe_log *l = &t->recipe.logs[k];
            if (l->path && *l->path && strcmp(l->path, RECIPE_COLLECT))
                r = see(&seen, l->path, &l->id, cb, user);
        }
    }
    free(seen.v);
    return r;
}

int sweep_bind_collect(struct sweep *s, const struct id ids[], size_t n, struct err *e)
{
    for (size_t i = 0; i < s->n_traces; i++) {
        struct recipe *r = &s->traces[i].recipe;
        if (!uses_collect(r))
            continue;
        struct recipe_log *v = calloc(r->n_logs + n, sizeof(*v));
        if (!v)
            return err_sys(e, ENOMEM, "sweep");
        size_t m = 0;
        for (size_t k = 0; k < r->n_logs; k++) {
            if (!r->logs[k].path || strcmp(r->logs[k].path, RECIPE_COLLECT)) {
                v[m++] = r->logs[k];
                continue;
            }
            free(r->logs[k].path);
            for (size_t j = 0; j < n; j++)
                v[m++] = (struct recipe_log){ .id = ids[j], .have_id = true };
        }
        free(r->logs);
        r->logs = v;
        r->n_logs = m;
    }
    return 0;
}
