#include "perf/sweep.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"
#include "proto/lib/ini.h"

/* An axis is one key with its values, kept as runs: a range is one run, however long it is. A
 * section is a list of axes; a point's digits in the mixed radix of their counts (last axis
 * fastest) choose the values. */
struct run {
    uint64_t lo, step, count;
    bool mul; /* lo * step^i instead of lo + step * i */
};

struct axis {
    int key;
    struct run *runs;
    size_t n;
    uint64_t count;
};

/* Keys of [arch]: 0..ARCH_N-1 are those of arch.h. */
enum {
    KEY_PRESET = ARCH_N,
    KEY_CFG,
    KEY_TENANTS,
    KEY_ORDER,
    KEY_BURST,
    KEY_SEED,
    KEY_REPLICATE,
    KEY_END
};

static const char *const more_keys[] = { "preset", "cfg",  "tenants",  "order",
                                         "burst",  "seed", "replicate" };
static const char *const presets[] = { "default", "hypertrio" };

/* What an architecture file names; by value, so that no path has to travel. */
struct cfg {
    bool has[ARCH_N];
    struct arch v;
};

struct axes {
    struct axis *v;
    size_t n;
    uint64_t count; /* product */
};

struct arch_sec {
    char *name;
    int line;
    struct axes axes;
    struct cfg *cfgs;
    size_t n_cfgs;
};

struct trace_sec {
    char *name;
    struct axes axes;
    char *file;
    struct id id;
    bool have_id, from_recipe;
    struct recipe recipe;
};

struct sweep {
    struct sweep_head head;
    char *collect_text; /* content of RUN.ini, NULL = none */
    struct trace_sec *traces;
    size_t n_traces;
    struct arch_sec *archs;
    size_t n_archs;
    uint64_t trace_count, arch_count, points;
    struct recipe scratch; /* shallow: logs belong to a section */
};

enum { AXES_MAX = 64, SECTIONS_MAX = 4096, CHECKS_MAX = 1 << 20 };
/* an index stays exact as a JSON number */
#define POINTS_MAX (UINT64_C(1) << 53)

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

static struct sweep *sweep_new(void)
{
    struct sweep *s = calloc(1, sizeof(*s));
    if (s) {
        s->head.timeout_ms = 600000;
        s->head.retries = 3;
    }
    return s;
}

/* ---- axes */

static const char *key_name(int key)
{
    return key < ARCH_N ? arch_names[key] : more_keys[key - ARCH_N];
}

static bool key_numeric(int key)
{
    return key < ARCH_N ? arch_numeric((unsigned)key)
                        : key != KEY_PRESET && key != KEY_CFG && key != KEY_ORDER;
}

/* Values that an axis may hold. Architecture numbers out of their own range make invalid points,
 * which skip_invalid may want to keep, so only the type bounds them here. */
static void key_bounds(int key, uint64_t *lo, uint64_t *hi)
{
    *lo = 0;
    *hi = UINT32_MAX;
    switch (key) {
    case KEY_PRESET:
        *hi = ARRAY_LEN(presets) - 1;
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

static int axes_add(struct axes *a, int key, const char *place, struct axis **ret, struct err *e)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].key == key)
            return err_set(e, SF_EUSAGE, "%s: key '%s' stands twice", place, key_name(key));
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

static int axis_add(struct axis *x, struct run run, const char *place, struct err *e)
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

/* Multiply the counts of all axes. */
static int axes_seal(struct axes *a, const char *place, struct err *e)
{
    a->count = 1;
    for (size_t i = 0; i < a->n; i++)
        if (__builtin_mul_overflow(a->count, a->v[i].count, &a->count) || a->count > POINTS_MAX)
            return err_set(e, SF_EUSAGE, "%s: more points than a sweep can number", place);
    return 0;
}

/* ---- values as users write them */

struct parse {
    const struct ini *ini;
    const char *place;
    struct arch_sec *arch; /* takes cfg files, or NULL */
    struct err *e;
};

static int parse_cfg(struct parse *p, const char *word, uint64_t *ret)
{
    CLEANUP(freep) char *path = ini_path(p->ini, word);
    struct cfg *v = realloc(p->arch->cfgs, (p->arch->n_cfgs + 1) * sizeof(*v));
    if (v)
        p->arch->cfgs = v;
    if (!path || !v)
        return err_sys(p->e, ENOMEM, "%s", p->place);
    struct cfg *c = &v[p->arch->n_cfgs];
    *c = (struct cfg){ 0 };
    /* read over two different grounds: what comes out equal was named by the file */
    struct arch a, b;
    for (unsigned k = 0; k < ARCH_N; k++) {
        arch_put(&a, k, 0);
        arch_put(&b, k, UINT32_MAX);
    }
    int r = arch_read_cfg(&a, path, p->e);
    if (r == 0)
        r = arch_read_cfg(&b, path, p->e);
    if (r < 0) {
        /* a file that an INI names and that cannot be read is a wrong value */
        if (r != -SF_EUSAGE) {
            char why[sizeof(p->e->text)];
            snprintf(why, sizeof(why), "%s", p->e ? p->e->text : path);
            r = err_set(p->e, SF_EUSAGE, "%s: %s", p->place, why);
        }
        return r;
    }
    for (unsigned k = 0; k < ARCH_N; k++)
        c->has[k] = arch_get(&a, k) == arch_get(&b, k);
    c->v = a;
    *ret = p->arch->n_cfgs++;
    return 0;
}

static int parse_value(struct parse *p, int key, const char *word, uint64_t *ret)
{
    uint64_t lo, hi;
    if (key_numeric(key)) {
        key_bounds(key, &lo, &hi);
        return num_u64(word, lo, hi, p->place, ret, p->e);
    }
    if (key < ARCH_N) {
        uint32_t v;
        int r = arch_value((unsigned)key, word, p->place, &v, p->e);
        *ret = r == 0 ? v : 0;
        return r;
    }
    if (key == KEY_ORDER) {
        enum trace_order o;
        int r = order_parse(word, p->place, &o, p->e);
        *ret = r == 0 ? o : 0;
        return r;
    }
    if (key == KEY_CFG)
        return parse_cfg(p, word, ret);
    for (*ret = 0; *ret < ARRAY_LEN(presets); (*ret)++)
        if (!strcmp(presets[*ret], word))
            return 0;
    return err_set(p->e, SF_EUSAGE, "%s: unknown preset '%.64s' (default, hypertrio)", p->place,
                   word);
}

static int parse_range(struct parse *p, int key, char *word, char *dots, struct axis *x)
{
    if (!key_numeric(key))
        return err_set(p->e, SF_EUSAGE, "%s: '%s' takes a list, not a range", p->place,
                       key_name(key));
    char *colon = strchr(dots, ':');
    if (!colon || (colon[1] != '+' && colon[1] != 'x'))
        return err_set(p->e, SF_EUSAGE, "%s: '%.64s' is no range (lo..hi:+N or lo..hi:xN)",
                       p->place, word);
    *dots = *colon = '\0';
    uint64_t lo, hi;
    struct run run = { .mul = colon[1] == 'x' };
    int r = parse_value(p, key, word, &lo);
    if (r == 0)
        r = parse_value(p, key, dots + 2, &hi);
    if (r == 0)
        r = num_u64(colon + 2, run.mul ? 2 : 1, UINT64_MAX, p->place, &run.step, p->e);
    if (r < 0)
        return r;
    if (lo > hi)
        return err_set(p->e, SF_EUSAGE, "%s: range %" PRIu64 "..%" PRIu64 " runs backwards",
                       p->place, lo, hi);
    if (run.mul && !lo)
        return err_set(p->e, SF_EUSAGE, "%s: a range with x cannot start at 0", p->place);
    run.lo = lo;
    if (!run.mul) {
        run.count = (hi - lo) / run.step;
        if (run.count == UINT64_MAX)
            return err_set(p->e, SF_EUSAGE, "%s: more values than a sweep can number", p->place);
        run.count++;
    } else {
        for (uint64_t v = lo;;) {
            run.count++;
            if (__builtin_mul_overflow(v, run.step, &v) || v > hi)
                break;
        }
    }
    return axis_add(x, run, p->place, p->e);
}

static int parse_word(struct parse *p, int key, char *word, struct axis *x);

static int parse_file(struct parse *p, int key, const char *name, struct axis *x)
{
    CLEANUP(freep) char *path = ini_path(p->ini, name);
    if (!path)
        return err_sys(p->e, ENOMEM, "%s", p->place);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64u << 20);
    struct err why = { 0 };
    if (file_read(path, &b, &why) < 0)
        return err_set(p->e, SF_EUSAGE, "%s: %.400s", p->place, why.text);
    if (b.len && memchr(b.data, 0, b.len))
        return err_set(p->e, SF_EUSAGE, "%.380s: not a text file (it holds a zero byte)", path);
    int n = 0;
    for (char *next = b.len ? (char *)b.data : (char *)""; *next;) {
        char *line = next;
        next = strchrnul(line, '\n');
        if (*next)
            *next++ = '\0';
        n++;
        line += strspn(line, " \t");
        size_t len = strlen(line);
        while (len && strchr(" \t\r", line[len - 1]))
            line[--len] = '\0';
        if (!len)
            continue;
        char place[400];
        snprintf(place, sizeof(place), "%.380s:%d", path, n);
        struct parse q = *p;
        q.place = place;
        uint64_t v;
        int r = parse_value(&q, key, line, &v);
        if (r == 0)
            r = axis_add(x, (struct run){ .lo = v, .count = 1 }, place, p->e);
        if (r < 0)
            return r;
    }
    if (!n || !x->count)
        return err_set(p->e, SF_EUSAGE, "%.380s: holds no value", path);
    return 0;
}

static int parse_word(struct parse *p, int key, char *word, struct axis *x)
{
    if (word[0] == '@')
        return parse_file(p, key, word + 1, x);
    char *dots = key == KEY_CFG ? NULL : strstr(word, "..");
    if (dots)
        return parse_range(p, key, word, dots, x);
    uint64_t v;
    int r = parse_value(p, key, word, &v);
    return r < 0 ? r : axis_add(x, (struct run){ .lo = v, .count = 1 }, p->place, p->e);
}

static int parse_axis(struct parse *p, struct axes *a, int key, const char *value)
{
    struct axis *x;
    int r = axes_add(a, key, p->place, &x, p->e);
    if (r < 0)
        return r;
    CLEANUP(freep) char *copy = strdup(value);
    if (!copy)
        return err_sys(p->e, ENOMEM, "%s", p->place);
    for (char *next = copy; next;) {
        char *w = next;
        next = strchr(w, ',');
        if (next)
            *next++ = '\0';
        w += strspn(w, " \t");
        size_t n = strlen(w);
        while (n && (w[n - 1] == ' ' || w[n - 1] == '\t'))
            w[--n] = '\0';
        if (!n)
            return err_set(p->e, SF_EUSAGE, "%s: '%s' has an empty value", p->place, key_name(key));
        r = parse_word(p, key, w, x);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- sections */

static int load_sweep_section(struct sweep *s, const struct ini *ini, const struct ini_section *sec,
                              struct err *e)
{
    struct sweep_head *h = &s->head;
    for (size_t i = 0; i < sec->n_keys; i++) {
        const char *key = sec->keys[i].name, *v = sec->keys[i].value;
        const char *place = ini_place(ini, sec->keys[i].line);
        uint64_t flag = 0;
        int r;
        if (!strcmp(key, "name")) {
            size_t n = strlen(v);
            r = 0;
            for (size_t k = 0; k < n; k++)
                if ((unsigned char)v[k] < 0x20 || v[k] == 0x7f)
                    r = -1;
            CLEANUP(json_decrefp) json_t *probe = json_string(v);
            if (!n || n >= sizeof(h->name) || r < 0 || !probe)
                r = err_set(e, SF_EUSAGE, "%s: a name is 1 to %zu printable characters", place,
                            sizeof(h->name) - 1);
            else
                strcpy(h->name, v);
        } else if (!strcmp(key, "rules")) {
            r = rules_parse(v, place, &h->rules, e);
        } else if (!strcmp(key, "timeout")) {
            r = num_ms(v, place, &h->timeout_ms, e);
            if (r == 0 && !h->timeout_ms)
                r = err_set(e, SF_EUSAGE, "%s: a timeout of 0 lets nothing run", place);
        } else if (!strcmp(key, "retries")) {
            r = num_u64(v, 0, 98, place, &h->retries, e);
        } else if (!strcmp(key, "priority")) {
            r = num_u64(v, 0, 1000000, place, &h->priority, e);
        } else if (!strcmp(key, "block")) {
            h->block = 0;
            r = !strcmp(v, "auto") ? 0 : num_u64(v, 1, 1u << 20, place, &h->block, e);
        } else if (!strcmp(key, "pace_ms")) {
            r = num_u64(v, 0, 3600000, place, &h->pace_ms, e);
        } else if (!strcmp(key, "skip_invalid")) {
            r = num_bool(v, place, &flag, e);
            h->skip_invalid = flag;
        } else {
            r = err_set(e, SF_EUSAGE, "%s: unknown key '%.64s' in [sweep]", place, key);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static int load_collect_section(struct sweep *s, const struct ini *ini,
                                const struct ini_section *sec, struct err *e)
{
    for (size_t i = 0; i < sec->n_keys; i++) {
        const char *place = ini_place(ini, sec->keys[i].line);
        if (strcmp(sec->keys[i].name, "run"))
            return err_set(e, SF_EUSAGE, "%s: unknown key '%.64s' in [collect]", place,
                           sec->keys[i].name);
        CLEANUP(freep) char *path = ini_path(ini, sec->keys[i].value);
        CLEANUP(buf_clear) struct buf b = BUF_INIT(1u << 20);
        struct err why = { 0 };
        if (!path || strlen(path) >= sizeof(s->head.collect_run))
            return err_set(e, SF_EUSAGE, "%s: path too long", place);
        if (file_read(path, &b, &why) < 0)
            return err_set(e, SF_EUSAGE, "%s: %.400s", place, why.text);
        CLEANUP(json_decrefp) json_t *probe = json_stringn((const char *)b.data, b.len);
        if (!b.len || !probe)
            return err_set(e, SF_EUSAGE, "%s: '%.200s' is not a text file", place, path);
        strcpy(s->head.collect_run, path);
        s->collect_text = strndup((const char *)b.data, b.len);
        if (!s->collect_text)
            return err_sys(e, ENOMEM, "%s", place);
    }
    if (!s->collect_text)
        return err_set(e, SF_EUSAGE, "%s: [collect] names no run", ini_place(ini, sec->line));
    return 0;
}

static int trace_key(const char *name)
{
    for (int k = KEY_TENANTS; k < KEY_END; k++)
        if (!strcmp(key_name(k), name))
            return k;
    return -1;
}

static bool uses_collect(const struct recipe *r)
{
    for (size_t i = 0; i < r->n_logs; i++)
        if (r->logs[i].path && !strcmp(r->logs[i].path, RECIPE_COLLECT))
            return true;
    return false;
}

static int load_trace_section(struct sweep *s, const struct ini *ini, const struct ini_section *sec,
                              struct err *e)
{
    struct trace_sec *v = realloc(s->traces, (s->n_traces + 1) * sizeof(*v));
    if (!v)
        return err_sys(e, ENOMEM, "%s", ini->path);
    s->traces = v;
    struct trace_sec *t = &v[s->n_traces++];
    *t = (struct trace_sec){ .name = strdup(sec->arg) };
    recipe_init(&t->recipe);
    t->recipe.rules = s->head.rules;
    const char *slash = strrchr(ini->path, '/');
    CLEANUP(freep)
    char *base =
        slash ? strndup(ini->path, (size_t)(slash - ini->path) + (slash == ini->path)) : strdup("");
    if (!t->name || !base)
        return err_sys(e, ENOMEM, "%s", ini->path);
    int sources = 0, recipe_line = 0;
    const char *recipe_key = NULL;
    for (size_t i = 0; i < sec->n_keys; i++) {
        const char *key = sec->keys[i].name, *value = sec->keys[i].value;
        const char *place = ini_place(ini, sec->keys[i].line);
        struct parse p = { .ini = ini, .place = place, .e = e };
        int r = 0, k = trace_key(key);
        if (!strcmp(key, "file")) {
            sources++;
            if (!*value)
                return err_set(e, SF_EUSAGE, "%s: file is empty", place);
            t->file = ini_path(ini, value);
            if (!t->file)
                return err_sys(e, ENOMEM, "%s", place);
        } else if (!strcmp(key, "id")) {
            sources++;
            if (id_parse(value, &t->id, NULL) < 0)
                return err_set(e, SF_EUSAGE, "%s: '%.80s' is not an id (64 lower-case hex digits)",
                               place, value);
            t->have_id = true;
        } else {
            if (!strcmp(key, "logs")) {
                sources++;
                t->from_recipe = true;
            }
            recipe_key = key;
            recipe_line = sec->keys[i].line;
            r = k >= 0 ? parse_axis(&p, &t->axes, k, value)
                       : recipe_set(&t->recipe, key, value, base, place, e);
        }
        if (r < 0)
            return r;
    }
    if (!sources)
        return err_set(e, SF_EUSAGE, "%s: [trace%s%s] has none of file, id and logs",
                       ini_place(ini, sec->line), *t->name ? " " : "", t->name);
    if (sources > 1)
        return err_set(e, SF_EUSAGE, "%s: [trace%s%s] has more than one of file, id and logs",
                       ini_place(ini, sec->line), *t->name ? " " : "", t->name);
    if (!t->from_recipe && recipe_key)
        return err_set(e, SF_EUSAGE, "%s: key '%s' needs logs; this trace exists already",
                       ini_place(ini, recipe_line), recipe_key);
    return axes_seal(&t->axes, ini_place(ini, sec->line), e);
}

static int load_arch_section(struct sweep *s, const struct ini *ini, const struct ini_section *sec,
                             struct err *e)
{
    struct arch_sec *v = realloc(s->archs, (s->n_archs + 1) * sizeof(*v));
    if (!v)
        return err_sys(e, ENOMEM, "%s", ini->path);
    s->archs = v;
    struct arch_sec *a = &v[s->n_archs++];
    *a = (struct arch_sec){ .name = strdup(sec->arg), .line = sec->line };
    if (!a->name)
        return err_sys(e, ENOMEM, "%s", ini->path);
    for (size_t i = 0; i < sec->n_keys; i++) {
        const char *key = sec->keys[i].name;
        struct parse p = {
            .ini = ini, .place = ini_place(ini, sec->keys[i].line), .arch = a, .e = e
        };
        int k = !strcmp(key, "preset") ? KEY_PRESET : !strcmp(key, "cfg") ? KEY_CFG : arch_key(key);
        if (k < 0)
            return err_set(e, SF_EUSAGE, "%s: unknown key '%.64s' in [arch]", p.place, key);
        int r = parse_axis(&p, &a->axes, k, sec->keys[i].value);
        if (r < 0)
            return r;
    }
    return axes_seal(&a->axes, ini_place(ini, sec->line), e);
}

/* Number everything; a sweep without [arch] has the default one. */
static int seal(struct sweep *s, const char *place, struct err *e)
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
            arch_preset(ret, presets[axis_value(&a->axes.v[i], digit[i])], "", NULL);
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

/* Whether a section holds an invalid point. Each cache has its own keys, so each is tried alone
 * with all its values while the other axes rest: 10^9 points cost a few thousand checks. */
static int check_section(const struct sweep *s, const struct arch_sec *a, const char *place,
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
                (*parts[p] ? !strncmp(key_name(key), parts[p], strlen(parts[p])) : !prefixed);
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

/* ---- JSON */

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
        json_object_set_new(o, "key", json_string(key_name(x->key)));
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
    key_bounds(x->key, &lo, &hi);
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
        int key = !name ? -1 : arch ? arch_key(name) : trace_key(name);
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
        r = seal(s, "sweep", e);
    for (size_t i = 0; i < na && r == 0 && !h->skip_invalid; i++)
        r = check_section(s, &s->archs[i], "sweep", e);
    if (r < 0)
        return r == -SF_EUSAGE && e ? -(e->code = SF_EFORMAT) : r;
    *ret = TAKE(s);
    return 0;
}

/* ---- the INI */

static int load(const char *path, struct ini *ini, struct sweep **ret, struct err *e)
{
    CLEANUP(sweep_free) struct sweep *s = sweep_new();
    if (!s)
        return err_sys(e, ENOMEM, "%s", path);
    int r = 0;
    if (ini->n_sections > SECTIONS_MAX)
        return err_set(e, SF_EUSAGE, "%s: more than %d sections", path, (int)SECTIONS_MAX);
    const char *slash = strrchr(path, '/');
    const char *stem = slash ? slash + 1 : path;
    const char *dot = strrchr(stem, '.');
    size_t n = dot && dot > stem ? (size_t)(dot - stem) : strlen(stem);
    snprintf(s->head.name, sizeof(s->head.name), "%.*s", n < 100 ? (int)n : 100, stem);
    CLEANUP(json_decrefp) json_t *probe = json_string(s->head.name);
    if (!probe || !s->head.name[0])
        strcpy(s->head.name, "sweep");

    /* [sweep] first: its rules are the default of each [trace], wherever it stands */
    for (size_t i = 0; i < ini->n_sections && r == 0; i++) {
        const struct ini_section *sec = &ini->sections[i];
        if (!strcmp(sec->name, "sweep") && !*sec->arg)
            r = load_sweep_section(s, ini, sec, e);
        else if (!strcmp(sec->name, "collect") && !*sec->arg)
            r = load_collect_section(s, ini, sec, e);
        else if (strcmp(sec->name, "trace") && strcmp(sec->name, "arch"))
            r = err_set(e, SF_EUSAGE, "%s: unknown section [%.64s%s%.64s]",
                        ini_place(ini, sec->line), sec->name, *sec->arg ? " " : "", sec->arg);
    }
    for (size_t i = 0; i < ini->n_sections && r == 0; i++) {
        const struct ini_section *sec = &ini->sections[i];
        if (!strcmp(sec->name, "trace"))
            r = load_trace_section(s, ini, sec, e);
        else if (!strcmp(sec->name, "arch"))
            r = load_arch_section(s, ini, sec, e);
    }
    if (r == 0)
        r = seal(s, path, e);
    for (size_t i = 0; i < s->n_archs && r == 0 && !s->head.skip_invalid; i++)
        r = check_section(s, &s->archs[i],
                          s->archs[i].line ? ini_place(ini, s->archs[i].line) : path, e);
    if (r < 0)
        return r;
    *ret = TAKE(s);
    return 0;
}

int sweep_load(const char *path, struct sweep **ret, struct err *e)
{
    CLEANUP(ini_free) struct ini *ini = NULL;
    int r = ini_load(path, &ini, e);
    return r < 0 ? r : load(path, ini, ret, e);
}

int sweep_text(const char *path, const char *text, struct sweep **ret, struct err *e)
{
    CLEANUP(ini_free) struct ini *ini = NULL;
    int r = ini_text(path, text, &ini, e);
    return r < 0 ? r : load(path, ini, ret, e);
}
