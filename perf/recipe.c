#include "perf/recipe.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"

static const char *const orders[] = { "rr", "rand", "orig" };

const char *order_name(enum trace_order o)
{
    return (unsigned)o < ARRAY_LEN(orders) ? orders[o] : "?";
}

int order_parse(const char *s, const char *place, enum trace_order *ret, struct err *e)
{
    for (unsigned i = 0; i < ARRAY_LEN(orders); i++)
        if (!strcmp(orders[i], s)) {
            *ret = (enum trace_order)i;
            return 0;
        }
    return err_set(e, SF_EUSAGE, "%s: unknown order '%.64s' (rr, rand, orig)", place, s);
}

void recipe_init(struct recipe *r)
{
    *r = (struct recipe){ .devices_per_log = 24,
                          .order = ORDER_RR,
                          .burst = 3,
                          .seed = 1,
                          .replicate = 1,
                          .rules = RULES_MODEL };
}

static void clear_logs(struct recipe *r)
{
    for (size_t i = 0; i < r->n_logs; i++)
        free(r->logs[i].path);
    free(r->logs);
    r->logs = NULL;
    r->n_logs = 0;
}

void recipe_clear(struct recipe *r)
{
    clear_logs(r);
    recipe_init(r);
}

int recipe_copy(const struct recipe *from, struct recipe *to, struct err *e)
{
    struct recipe n = *from;
    n.logs = calloc(from->n_logs + 1, sizeof(*n.logs));
    n.n_logs = 0;
    if (!n.logs)
        return err_sys(e, ENOMEM, "recipe");
    for (size_t i = 0; i < from->n_logs; i++) {
        n.logs[i] = from->logs[i];
        n.n_logs++;
        if (from->logs[i].path && !(n.logs[i].path = strdup(from->logs[i].path))) {
            clear_logs(&n);
            return err_sys(e, ENOMEM, "recipe");
        }
    }
    *to = n;
    return 0;
}

int recipe_add_log(struct recipe *r, const char *path, struct err *e)
{
    char *copy = strdup(path);
    struct recipe_log *v = realloc(r->logs, (r->n_logs + 1) * sizeof(*v));
    if (v)
        r->logs = v;
    if (!copy || !v) {
        free(copy);
        return err_sys(e, ENOMEM, "%s", path);
    }
    v[r->n_logs++] = (struct recipe_log){ .path = copy };
    return 0;
}

/* One word of logs=: a file, or a glob whose matches come sorted bytewise (glob() itself sorts by
 * locale). */
static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_word(struct recipe *r, const char *word, const char *base, const char *place,
                    struct err *e)
{
    CLEANUP(freep)
    char *path = base && *base && word[0] != '/' ? path_fmt("%s/%s", base, word) : strdup(word);
    if (!path)
        return err_sys(e, ENOMEM, "%s", place);
    if (!strcmp(word, RECIPE_COLLECT))
        return recipe_add_log(r, word, e);
    if (!strpbrk(word, "*?["))
        return recipe_add_log(r, path, e);
    glob_t g = { 0 };
    int rc = glob(path, GLOB_NOSORT, NULL, &g);
    if (rc != 0 || !g.gl_pathc) {
        globfree(&g);
        return err_set(e, SF_EUSAGE, "%s: no log matches '%.200s'", place, word);
    }
    qsort(g.gl_pathv, g.gl_pathc, sizeof(*g.gl_pathv), by_bytes);
    rc = 0;
    for (size_t i = 0; i < g.gl_pathc && rc == 0; i++)
        rc = recipe_add_log(r, g.gl_pathv[i], e);
    globfree(&g);
    return rc;
}

static int set_logs(struct recipe *r, const char *value, const char *base, const char *place,
                    struct err *e)
{
    clear_logs(r);
    CLEANUP(freep) char *copy = strdup(value);
    if (!copy)
        return err_sys(e, ENOMEM, "%s", place);
    char *save = NULL;
    for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        w += strspn(w, " \t");
        size_t n = strlen(w);
        while (n && (w[n - 1] == ' ' || w[n - 1] == '\t'))
            w[--n] = '\0';
        if (!n)
            continue;
        int rc = add_word(r, w, base, place, e);
        if (rc < 0)
            return rc;
    }
    if (!r->n_logs)
        return err_set(e, SF_EUSAGE, "%s: logs is empty", place);
    return 0;
}

int recipe_set(struct recipe *r, const char *key, const char *value, const char *base,
               const char *place, struct err *e)
{
    if (!strcmp(key, "logs"))
        return set_logs(r, value, base, place, e);
    if (!strcmp(key, "order"))
        return order_parse(value, place, &r->order, e);
    if (!strcmp(key, "rules"))
        return rules_parse(value, place, &r->rules, e);
    if (!strcmp(key, "tenants"))
        return num_u64(value, 1, RECIPE_TENANTS_MAX, place, &r->tenants, e);
    if (!strcmp(key, "devices_per_log"))
        return num_u64(value, 1, 65536, place, &r->devices_per_log, e);
    if (!strcmp(key, "burst"))
        return num_u64(value, 1, RECIPE_BURST_MAX, place, &r->burst, e);
    if (!strcmp(key, "seed"))
        return num_u64(value, 0, UINT64_MAX, place, &r->seed, e);
    if (!strcmp(key, "replicate"))
        return num_u64(value, 1, RECIPE_REPLICATE_MAX, place, &r->replicate, e);
    return err_set(e, SF_EUSAGE, "%s: unknown key '%.64s' in [trace]", place, key);
}

int recipe_load(struct recipe *r, const char *path, struct err *e)
{
    CLEANUP(ini_free) struct ini *ini = NULL;
    int rc = ini_load(path, &ini, e);
    if (rc < 0)
        return rc;
    if (!ini->n_sections)
        return err_set(e, SF_EUSAGE, "%s: no [trace] section", path);
    const char *slash = strrchr(path, '/');
    CLEANUP(freep)
    char *base = slash ? strndup(path, (size_t)(slash - path) + (slash == path)) : strdup("");
    if (!base)
        return err_sys(e, ENOMEM, "%s", path);
    for (size_t i = 0; i < ini->n_sections; i++) {
        const struct ini_section *s = &ini->sections[i];
        if (strcmp(s->name, "trace"))
            return err_set(e, SF_EUSAGE, "%s: unknown section [%.64s]", ini_place(ini, s->line),
                           s->name);
        if (i)
            return err_set(e, SF_EUSAGE, "%s: a recipe has one [trace]", ini_place(ini, s->line));
        for (size_t k = 0; k < s->n_keys; k++) {
            rc = recipe_set(r, s->keys[k].name, s->keys[k].value, base,
                            ini_place(ini, s->keys[k].line), e);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

int recipe_identify(struct recipe *r, struct err *e)
{
    for (size_t i = 0; i < r->n_logs; i++) {
        struct recipe_log *l = &r->logs[i];
        if (l->have_id || !l->path || !strcmp(l->path, RECIPE_COLLECT))
            continue;
        int rc = cid_file(l->path, &l->id, NULL, e);
        if (rc < 0)
            return rc;
        l->have_id = true;
    }
    return 0;
}

json_t *recipe_json(const struct recipe *r, bool with_paths)
{
    json_t *logs = json_array();
    for (size_t i = 0; i < r->n_logs; i++) {
        const struct recipe_log *l = &r->logs[i];
        json_t *id = l->have_id                                    ? json_id(&l->id)
                     : l->path && !strcmp(l->path, RECIPE_COLLECT) ? json_string(RECIPE_COLLECT)
                                                                   : json_null();
        if (with_paths) {
            json_t *o = json_object();
            json_object_set_new(o, "id", id);
            json_object_set_new(o, "path", json_str(l->path));
            json_array_append_new(logs, o);
        } else {
            json_array_append_new(logs, id);
        }
    }
    json_t *j = json_object();
    json_object_set_new(j, "logs", logs);
    json_object_set_new(j, "tenants", json_u64(r->tenants));
    json_object_set_new(j, "devices_per_log", json_u64(r->devices_per_log));
    json_object_set_new(j, "order", json_string(order_name(r->order)));
    json_object_set_new(j, "burst", json_u64(r->burst));
    json_object_set_new(j, "seed", json_u64(r->seed));
    json_object_set_new(j, "replicate", json_u64(r->replicate));
    json_object_set_new(j, "rules", json_string(rules_name(r->rules)));
    return j;
}

void recipe_id(const struct recipe *r, struct id *ret)
{
    json_t *j = recipe_json(r, false);
    json_hash(j, ret);
    json_decref(j);
}

static int log_from_json(struct recipe *r, const json_t *j, struct err *e)
{
    const json_t *id = json_is_object(j) ? json_object_get(j, "id") : j;
    const json_t *path = json_is_object(j) ? json_object_get(j, "path") : NULL;
    const char *p = json_string_value(path);
    if (json_is_string(id) && !strcmp(json_string_value(id), RECIPE_COLLECT))
        return recipe_add_log(r, RECIPE_COLLECT, e);
    int rc = recipe_add_log(r, p ? p : "", e);
    if (rc < 0)
        return rc;
    struct recipe_log *l = &r->logs[r->n_logs - 1];
    if (!p) {
        free(l->path);
        l->path = NULL;
    }
    if (json_is_string(id)) {
        if (id_parse(json_string_value(id), &l->id, NULL) < 0)
            return err_set(e, SF_EFORMAT, "recipe: a log's id is not an id");
        l->have_id = true;
    }
    if (!l->have_id && !p)
        return err_set(e, SF_EFORMAT, "recipe: a log with neither id nor path");
    return 0;
}

int recipe_from_json(const json_t *j, struct recipe *ret, struct err *e)
{
    struct recipe r;
    recipe_init(&r);
    const json_t *logs = json_object_get(j, "logs");
    if (!json_is_object(j) || !json_is_array(logs))
        return err_set(e, SF_EFORMAT, "recipe: not an object with logs");
    int rc = 0;
    size_t i;
    json_t *l;
    json_array_foreach ((json_t *)logs, i, l) {
        rc = log_from_json(&r, l, e);
        if (rc < 0)
            break;
    }
    static const struct {
        const char *name;
        size_t off;
        uint64_t lo, hi;
    } nums[] = {
        { "tenants", offsetof(struct recipe, tenants), 0, RECIPE_TENANTS_MAX },
        { "devices_per_log", offsetof(struct recipe, devices_per_log), 1, 65536 },
        { "burst", offsetof(struct recipe, burst), 1, RECIPE_BURST_MAX },
        { "seed", offsetof(struct recipe, seed), 0, UINT64_MAX },
        { "replicate", offsetof(struct recipe, replicate), 1, RECIPE_REPLICATE_MAX },
    };
    for (size_t k = 0; rc == 0 && k < ARRAY_LEN(nums); k++) {
        uint64_t v = 0;
        rc = json_get_u64(j, nums[k].name, &v, e);
        if (rc == 0 && (v < nums[k].lo || v > nums[k].hi))
            rc = err_set(e, SF_EFORMAT, "recipe: %s is out of range", nums[k].name);
        memcpy((char *)&r + nums[k].off, &v, sizeof(v));
    }
    const char *order = json_string_value(json_object_get(j, "order"));
    const char *rules = json_string_value(json_object_get(j, "rules"));
    if (rc == 0 && (!order || order_parse(order, "recipe", &r.order, NULL) < 0))
        rc = err_set(e, SF_EFORMAT, "recipe: order not understood");
    if (rc == 0 && (!rules || rules_parse(rules, "recipe", &r.rules, NULL) < 0))
        rc = err_set(e, SF_EFORMAT, "recipe: rules not understood");
    if (rc < 0) {
        recipe_clear(&r);
        return rc;
    }
    *ret = r;
    return 0;
}
