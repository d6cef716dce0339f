/* A sweep as users write it: SWEEP.ini, its lists, ranges and files of values. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/sweep_in.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"
#include "proto/lib/ini.h"

/* ---- values as users write them */

static bool key_numeric(int key)
{
    return key < ARCH_N ? arch_numeric((unsigned)key)
                        : key != KEY_PRESET && key != KEY_CFG && key != KEY_ORDER;
}

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
        sweep_key_bounds(key, &lo, &hi);
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
    for (*ret = 0; *ret < SWEEP_PRESETS; (*ret)++)
        if (!strcmp(sweep_presets[*ret], word))
            return 0;
    return err_set(p->e, SF_EUSAGE, "%s: unknown preset '%.64s' (default, hypertrio)", p->place,
                   word);
}

static int parse_range(struct parse *p, int key, char *word, char *dots, struct axis *x)
{
    if (!key_numeric(key))
        return err_set(p->e, SF_EUSAGE, "%s: '%s' takes a list, not a range", p->place,
                       sweep_key_name(key));
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
    if (file_read_text(path, &b, &why) < 0)
        return err_set(p->e, SF_EUSAGE, "%s: %.400s", p->place, why.text);
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
            return err_set(p->e, SF_EUSAGE, "%s: '%s' has an empty value", p->place,
                           sweep_key_name(key));
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
        if (file_read_text(path, &b, &why) < 0)
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
        int r = 0, k = sweep_trace_key(key);
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
        r = sweep_seal(s, path, e);
    for (size_t i = 0; i < s->n_archs && r == 0 && !s->head.skip_invalid; i++)
        r = sweep_check_section(s, &s->archs[i],
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
