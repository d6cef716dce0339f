#include <criterion/criterion.h>
#include <string.h>

#include "perf/recipe.h"
#include "scratch.h"

TestSuite(recipe, .init = scratch_make, .fini = scratch_remove);

Test(recipe, logs_of_a_glob_come_sorted_bytewise_and_relative_to_the_file)
{
    put("b.log", "b");
    put("a.log", "a");
    put("B.log", "c");
    struct recipe r;
    struct err e = { 0 };
    recipe_init(&r);
    cr_assert_eq(
        recipe_load(
            &r, put("r.ini", "[trace]\nlogs = *.log, a.log\ntenants=4\norder=rand\nburst=9\n"), &e),
        0, "%s", e.text);
    cr_assert_eq(r.n_logs, 4);
    static const char *const want[] = { "/B.log", "/a.log", "/b.log", "/a.log" };
    for (size_t i = 0; i < 4; i++)
        cr_expect(strstr(r.logs[i].path, want[i]), "%s", r.logs[i].path);
    cr_assert_eq(r.order, ORDER_RAND);
    cr_assert_eq(r.devices_per_log, 24);
    recipe_clear(&r);
}

Test(recipe, id_holds_content_but_no_path)
{
    put("a.log", "same");
    put("b.log", "same");
    put("c.log", "other");
    struct id id[3];
    for (int i = 0; i < 3; i++) {
        struct recipe r;
        recipe_init(&r);
        char name[8] = { (char)('a' + i), '.', 'l', 'o', 'g', 0 };
        cr_assert_eq(recipe_add_log(&r, in_scratch(name), NULL), 0);
        cr_assert_eq(recipe_identify(&r, NULL), 0);
        recipe_id(&r, &id[i]);
        /* through JSON and back, without paths */
        json_t *j = recipe_json(&r, false);
        struct recipe back;
        cr_assert_eq(recipe_from_json(j, &back, NULL), 0);
        struct id again;
        recipe_id(&back, &again);
        cr_assert(id_eq(&id[i], &again));
        json_decref(j);
        recipe_clear(&back);
        recipe_clear(&r);
    }
    cr_assert(id_eq(&id[0], &id[1]));
    cr_assert(!id_eq(&id[0], &id[2]));
}

Test(recipe, wrong_keys_and_values_name_their_line)
{
    static const struct {
        const char *text, *why;
    } rows[] = {
        { "[trace]\nlogs=a\nburst=0\n", "r.ini:3: 0 is not in" },
        { "[trace]\nlogs=a\norder=up\n", "r.ini:3: unknown order 'up'" },
        { "[trace]\nlogs=nothing*\n", "r.ini:2: no log matches" },
        { "[trace]\nlogs=\n", "r.ini:2: logs is empty" },
        { "[trace]\nlog=a\n", "r.ini:2: unknown key 'log'" },
        { "[trace]\nlogs=a\nlogs=b\n", "r.ini:3: key 'logs' stands twice" },
        { "[arch]\n", "r.ini:1: unknown section" },
        { "[trace a]\n[trace b]\n", "r.ini:2: a recipe has one" },
        { "", "r.ini: no [trace]" },
        { "[trace]\nreplicate=0\n", "r.ini:2: " },
        { "[trace]\ntenants=1..4:+1\n", "r.ini:2: '1..4:+1' is not a whole number" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct recipe r;
        struct err e = { 0 };
        recipe_init(&r);
        cr_expect_eq(recipe_load(&r, put("r.ini", rows[i].text), &e), -SF_EUSAGE, "%s",
                     rows[i].text);
        cr_expect(strstr(e.text, rows[i].why), "%s: %s", rows[i].why, e.text);
        recipe_clear(&r);
    }
}
