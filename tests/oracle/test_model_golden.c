/* Golden cases of the model rules: traces with the rows that engine and twin agreed on when they were written. They hold the
 * rules still: a change of perf/README.md's rules has to rewrite them, and shows in the diff.
 *
 *   {"name":, "recipe":{key:value of [trace]...}, "take":N events, "runs":[{"arch":{...}, "stats":{...}}]}
 *   {"name":, "entries":[[sid,gid,level,"0xiova"]...], "events":"0 4 4 1 ...", "runs":[...]}
 *
 * SIOFLEET_GOLDEN_WRITE=1 fills in "stats" instead of comparing (only where engine and twin agree).
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "perf/build.h"
#include "perf/engine.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/json.h"
#include "tests/oracle/model_twin.h"
#include "tests/oracle/random_case.h"

static struct trace *from_recipe(const json_t *keys, uint64_t take)
{
    struct recipe r;
    struct err e = { 0 };
    struct trace *t = NULL;
    const char *key, *src = getenv("SIOFLEET_SRC");
    json_t *v;
    recipe_init(&r);
    json_object_foreach ((json_t *)keys, key, v) {
        int got = recipe_set(&r, key, json_string_value(v), src, key, &e);
        cr_assert_eq(got, 0, "%s", e.text);
    }
    cr_assert_eq(build_trace(&r, NULL, &t, NULL, &e), 0, "%s", e.text);
    recipe_clear(&r);
    if (take && take < t->n) {
        t->n = take;
        free(t->next);
        t->next = NULL;
    }
    cr_assert_eq(trace_next(t, &e), 0, "%s", e.text);
    return t;
}

static struct trace *from_entries(const json_t *entries, const char *events)
{
    size_t n = json_array_size(entries), n_ev = 0;
    CLEANUP(freep) struct trace_entry *d = calloc(n + 1, sizeof(*d));
    CLEANUP(freep) uint32_t *ev = calloc(strlen(events) + 1, sizeof(*ev));
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_array_get(entries, i);
        d[i].sid = (uint32_t)json_integer_value(json_array_get(x, 0));
        d[i].gid = (uint32_t)json_integer_value(json_array_get(x, 1));
        d[i].level = (uint8_t)json_integer_value(json_array_get(x, 2));
        d[i].iova = strtoull(json_string_value(json_array_get(x, 3)), NULL, 0);
        d[i].mask = ~0ull << (12 + 9 * (d[i].level - 1));
    }
    for (char *end; *events; events = end) {
        ev[n_ev] = (uint32_t)strtoul(events, &end, 10);
        if (end == events)
            break;
        cr_assert_lt(ev[n_ev], n);
        n_ev++;
    }
    return trace_of(d, (uint32_t)n, ev, n_ev);
}

static json_t *stats_json(const struct row_stats *s)
{
    json_t *j = json_object();
    const uint64_t *v = (const uint64_t *)s;
    for (unsigned i = 0; i < ROW_STATS_N; i++)
        if (v[i]) /* columns added later are 0 in older cases */
            json_object_set_new(j, row_stats_names[i], json_u64(v[i]));
    return j;
}

static unsigned check_file(const char *path, bool write)
{
    struct err e = { 0 };
    json_error_t why;
    json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    cr_assert_not_null(j, "%s: %s", path, why.text);
    const json_t *recipe = json_object_get(j, "recipe");
    struct trace *t =
        recipe ? from_recipe(recipe, (uint64_t)json_integer_value(json_object_get(j, "take")))
               : from_entries(json_object_get(j, "entries"),
                              json_string_value(json_object_get(j, "events")));
    size_t i;
    json_t *run;
    json_array_foreach (json_object_get(j, "runs"), i, run) {
        struct arch a;
        struct row_stats got, twin;
        cr_assert_eq(arch_from_json(json_object_get(run, "arch"), &a, &e), 0, "%s: %s", path,
                     e.text);
        cr_assert_eq(arch_check(&a, RULES_MODEL, &e), 0, "%s: %s", path, e.text);
        cr_assert_eq(engine_run(t, &a, RULES_MODEL, &got, NULL, &e), 0, "%s: %s", path, e.text);
        model_twin(t, &a, &twin, NULL);
        json_t *want = json_object_get(run, "stats"), *have = stats_json(&got),
               *other = stats_json(&twin);
        cr_assert(json_equal(have, other), "%s: run %zu: engine and twin differ", path, i);
        if (write)
            json_object_set(run, "stats", have);
        else
            cr_assert(json_equal(have, want), "%s: run %zu differs, now: %s", path, i,
                      json_dumps(have, JSON_COMPACT));
        json_decref(have);
        json_decref(other);
    }
    if (write) {
        char *text = json_dumps(j, JSON_INDENT(1));
        cr_assert_eq(file_write(path, text, strlen(text), 0644, true, &e), 0, "%s", e.text);
        free(text);
    }
    json_decref(j);
    trace_free(&t);
    return (unsigned)i;
}

Test(model, still_gives_the_golden_rows)
{
    const char *src = getenv("SIOFLEET_SRC"), *write = getenv("SIOFLEET_GOLDEN_WRITE");
    cr_assert_not_null(src, "SIOFLEET_SRC is not set");
    CLEANUP(freep) char *dir = path_fmt("%s/tests/data/model-golden", src);
    DIR *d = opendir(dir);
    cr_assert_not_null(d, "%s", dir);
    unsigned runs = 0;
    for (struct dirent *f; (f = readdir(d));) {
        size_t n = strlen(f->d_name);
        if (n < 5 || strcmp(f->d_name + n - 5, ".json"))
            continue;
        CLEANUP(freep) char *path = path_fmt("%s/%s", dir, f->d_name);
        runs += check_file(path, write && *write);
    }
    closedir(d);
    cr_assert_geq(runs, 20);
}
