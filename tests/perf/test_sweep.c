#include <criterion/criterion.h>
#include <string.h>

#include "perf/sweep.h"
#include "scratch.h"

TestSuite(sweep, .init = scratch_make, .fini = scratch_remove);

#define TRACE "[trace t]\nlogs=a.log\n"

static struct sweep *load(const char *text)
{
    struct sweep *s = NULL;
    struct err e = { 0 };
    put("a.log", "x");
    cr_assert_eq(sweep_load(put("s.ini", text), &s, &e), 0, "%s", e.text);
    return s;
}

/* All values of one key of a one-trace sweep, as text. */
static const char *values(const char *line, const char *key)
{
    static char out[4096];
    char ini[1024];
    snprintf(ini, sizeof(ini), "[sweep]\nskip_invalid=yes\n" TRACE "[arch a]\n%s\n", line);
    struct sweep *s = load(ini);
    out[0] = '\0';
    for (uint64_t i = 0; i < sweep_points(s); i++) {
        uint64_t t;
        struct arch a;
        char text[16];
        cr_assert_eq(sweep_point(s, i, &t, &a), 0);
        arch_text(&a, (unsigned)arch_key(key), text);
        strcat(strcat(out, i ? " " : ""), text);
    }
    sweep_free(&s);
    return out;
}

Test(sweep, lists_and_ranges_expand_as_written)
{
    put("v.txt", "5\r\n\n 7 \n6");
    put("p.txt", "oracle\nlru\n");
    static const struct {
        const char *line, *key, *want;
    } rows[] = {
        { "queue=4", "queue", "4" },
        { "queue=4, 2,9", "queue", "4 2 9" },
        { "queue=1..10:+3", "queue", "1 4 7 10" },
        { "queue=1..9:+3", "queue", "1 4 7" },
        { "queue=1..64:x4", "queue", "1 4 16 64" },
        { "queue=1..63:x4", "queue", "1 4 16" },
        { "queue=5..5:+1", "queue", "5" },
        { "queue=7,1..3:+1,4,5,20", "queue", "7 1 2 3 4 5 20" },
        { "queue=1,2,3,4,6,8,10,9", "queue", "1 2 3 4 6 8 10 9" },
        { "queue=@v.txt", "queue", "5 7 6" },
        { "queue=1,@v.txt", "queue", "1 5 7 6" },
        { "iotlb_policy=@p.txt", "iotlb_policy", "oracle lru" },
        { "inorder=no,yes", "inorder", "no yes" },
        { "preset=default,hypertrio", "queue", "1 32" },
        { "queue=8\npreset=hypertrio", "queue", "8" },
        { "queue=4294967295", "queue", "4294967295" },
        { "queue=4294967290..4294967295:+2", "queue", "4294967290 4294967292 4294967294" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_str_eq(values(rows[i].line, rows[i].key), rows[i].want, "%s: %s", rows[i].line,
                         values(rows[i].line, rows[i].key));
}

Test(sweep, wrong_values_name_file_and_line)
{
    put("a.log", "x");
    put("bad.txt", "1\ntwo\n");
    put("none.txt", "\n");
    static const struct {
        const char *text, *why;
    } rows[] = {
        { TRACE "[arch a]\nqueue=1..4\n", "s.ini:4: '1..4' is no range" },
        { TRACE "[arch a]\nqueue=1..4:+0\n", "s.ini:4: 0 is not in" },
        { TRACE "[arch a]\nqueue=1..4:x1\n", "s.ini:4: 1 is not in" },
        { TRACE "[arch a]\nqueue=0..4:x2\n", "s.ini:4: a range with x cannot start at 0" },
        { TRACE "[arch a]\nqueue=4..1:+1\n", "s.ini:4: range 4..1 runs backwards" },
        { TRACE "[arch a]\nqueue=1,,2\n", "s.ini:4: 'queue' has an empty value" },
        { TRACE "[arch a]\nqueue=@bad.txt\n", "bad.txt:2: 'two'" },
        { TRACE "[arch a]\nqueue=@none.txt\n", "none.txt: holds no value" },
        { TRACE "[arch a]\nqueue=@missing.txt\n", "s.ini:4: " },
        { TRACE "[arch a]\nqueue=0\n", "s.ini:3: invalid point: queue: 0" },
        { TRACE "[arch a]\nqueue=1,0\n", "s.ini:3: invalid point: queue: 0" },
        { TRACE "[arch a]\niotlb_ways=8,4,0\n", "s.ini:3: invalid point: iotlb_ways: 0" },
        { TRACE "[arch a]\npf_entries=0,8\npf_distance=4,0\n",
          "s.ini:3: invalid point: pf_distance: 0" },
        { TRACE "[arch a]\npreset=best\n", "s.ini:4: unknown preset" },
        { TRACE "[arch a]\ncfg=missing.cfg\n", "missing.cfg: No such file or directory" },
        { TRACE "[arch a]\niotlb_policy=lru..lfu:+1\n", "s.ini:4: 'iotlb_policy' takes a list" },
        { TRACE "[arch a]\nways=4\n", "s.ini:4: unknown key 'ways' in [arch]" },
        { TRACE "[arch a]\nqueue=1\nqueue=2\n", "s.ini:5: key 'queue' stands twice" },
        { TRACE "[arch a]\n[arch a]\n", "s.ini:4: section" },
        { TRACE "colour=red\n", "s.ini:3: unknown key 'colour'" },
        { "[trace t]\ntenants=4\n", "s.ini:1: [trace t] has none of" },
        { "[trace t]\nfile=x.trc\nlogs=a.log\n", "s.ini:1: [trace t] has more than one of" },
        { "[trace t]\nfile=x.trc\nburst=4\n", "s.ini:3: key 'burst' needs logs" },
        { "[trace t]\nid=12\n", "s.ini:2: '12' is not an id" },
        { "[trace t]\nlogs=@collect\n", "s.ini: [trace t] wants @collect" },
        { "[arch a]\n", "s.ini: no [trace]" },
        { "[sweep]\nspeed=9\n" TRACE, "s.ini:2: unknown key 'speed' in [sweep]" },
        { "[sweep]\ntimeout=10\n" TRACE, "s.ini:2: '10' is not a time" },
        { "[sweep]\nname=\n" TRACE, "s.ini:2: a name is" },
        { "[sweeps]\n" TRACE, "s.ini:1: unknown section [sweeps]" },
        { TRACE "[arch a]\nl3_ways=1..9999:+1\nl3_entries=1..9999:+1\n", "s.ini:3: more than 1048576 combinations" },
        { TRACE "[arch a]\nqueue=1..1000000000:+1\nl2_ways=1..1000000000:+1\n",
          "s.ini:3: more points" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sweep *s = NULL;
        struct err e = { 0 };
        cr_expect_eq(sweep_load(put("s.ini", rows[i].text), &s, &e), -SF_EUSAGE, "%s",
                     rows[i].text);
        cr_expect(strstr(e.text, rows[i].why), "want '%s', have '%s'", rows[i].why, e.text);
        sweep_free(&s);
    }
}

Test(sweep, points_come_in_the_contracts_order)
{
    struct sweep *s =
        load("[sweep]\nname=order\n"
             "[arch a]\nqueue=1,2\niotlb_entries=64,128\n[trace one]\nlogs=a.log\nburst=3,9\n"
             "order=rr,rand\n[arch b]\npreset=hypertrio\n[trace two]\nlogs=a.log\nseed=5\n");
    cr_assert_eq(sweep_n_traces(s), 5);
    cr_assert_eq(sweep_points(s), 25);
    uint64_t i = 0;
    for (uint64_t t = 0; t < 5; t++) {
        static const struct {
            const char *name;
            uint64_t burst, seed;
            enum trace_order order;
        } traces[] = { { "one", 3, 1, ORDER_RR },
                       { "one", 3, 1, ORDER_RAND },
                       { "one", 9, 1, ORDER_RR },
                       { "one", 9, 1, ORDER_RAND },
                       { "two", 3, 5, ORDER_RR } };
        struct sweep_trace st;
        cr_assert_eq(sweep_trace(s, t, &st, NULL), 0);
        cr_expect_str_eq(st.name, traces[t].name);
        cr_expect(st.from_recipe);
        cr_expect_eq(st.recipe->burst, traces[t].burst);
        cr_expect_eq(st.recipe->seed, traces[t].seed);
        cr_expect_eq(st.recipe->order, traces[t].order);
        static const struct {
            uint32_t queue, entries, groups;
        } archs[] = { { 1, 64, 1 }, { 1, 128, 1 }, { 2, 64, 1 }, { 2, 128, 1 }, { 32, 64, 8 } };
        for (int k = 0; k < 5; k++, i++) {
            uint64_t tr;
            struct arch a;
            cr_assert_eq(sweep_point(s, i, &tr, &a), 0);
            cr_expect_eq(tr, t);
            cr_expect_eq(a.queue, archs[k].queue);
            cr_expect_eq(a.iotlb_entries, archs[k].entries);
            cr_expect_eq(a.iotlb_groups, archs[k].groups);
            cr_expect_eq(sweep_trace_end(s, i), (t + 1) * 5);
        }
    }
    uint64_t t;
    struct arch a;
    cr_assert_eq(sweep_point(s, 25, &t, &a), -EINVAL);
    sweep_free(&s);
}

Test(sweep, preset_then_file_then_keys_whatever_the_order_of_writing)
{
    put("c.cfg", "IOTLB\nsize:32\nassoc:4\n");
    put("d.cfg", "L2PAGE\nsize:1024\n");
    struct sweep *s = load(TRACE "[arch a]\niotlb_ways=2\ncfg=c.cfg,d.cfg\npreset=hypertrio\n");
    uint64_t t;
    struct arch a;
    cr_assert_eq(sweep_points(s), 2);
    sweep_point(s, 0, &t, &a);
    cr_assert_eq(a.iotlb_ways, 2);
    cr_assert_eq(a.iotlb_entries, 32);
    cr_assert_eq(a.iotlb_groups, 8);
    cr_assert_eq(a.l2_entries, 512);
    sweep_point(s, 1, &t, &a);
    cr_assert_eq(a.iotlb_entries, 64);
    cr_assert_eq(a.l2_entries, 1024);
    sweep_free(&s);
}

Test(sweep, a_billion_points_cost_no_memory)
{
    struct sweep *s =
        load("[sweep]\nskip_invalid=yes\n" TRACE "seed=0..999:+1\n[arch a]\nqueue=1..1000:+1\n"
             "pf_distance=1..1000:+1\n");
    cr_assert_eq(sweep_points(s), 1000000000);
    uint64_t t;
    struct arch a;
    cr_assert_eq(sweep_point(s, 999999999, &t, &a), 0);
    cr_assert_eq(t, 999);
    cr_assert_eq(a.queue, 1000);
    cr_assert_eq(a.pf_distance, 1000);
    struct sweep_trace st;
    cr_assert_eq(sweep_trace(s, 999, &st, NULL), 0);
    cr_assert_eq(st.recipe->seed, 999);
    sweep_free(&s);
}

Test(sweep, stored_form_is_equal_for_equal_sweeps_and_holds_no_path)
{
    put("b.log", "x"); /* same content as a.log */
    put("c.cfg", "IOTLB\nsize:32\nassoc:4\n");
    static const char *const texts[] = {
        "[sweep]\nname=n\nrules=hypersio\npace_ms=5\n[trace t]\nlogs=a.log\ntenants=1,2,3,4\n[arch "
        "a]\ncfg=c.cfg\n"
        "queue=1..8:x2\n",
        "# the same\n[sweep]\r\nname = n\nrules=hypersio\npace_ms=5\n[trace t]\nlogs= "
        "b.log\ntenants=1..4:+1\n"
        "[arch a]\ncfg=c.cfg\nqueue = 1..15:x2 ; four values\n",
    };
    char *stored[2];
    for (int i = 0; i < 2; i++) {
        struct sweep *s = load(texts[i]), *back = NULL;
        struct err e = { 0 };
        cr_assert_eq(sweep_identify(s, &e), 0, "%s", e.text);
        json_t *j = sweep_json(s);
        stored[i] = json_canonical(j);
        cr_expect(!strstr(stored[i], ".log") && !strstr(stored[i], ".cfg"), "%s", stored[i]);
        cr_assert_eq(sweep_from_json(j, &back, &e), 0, "%s", e.text);
        json_t *again = sweep_json(back);
        cr_expect(json_equal(j, again));
        cr_assert_eq(sweep_points(back), 16);
        for (uint64_t p = 0; p < 16; p++) {
            uint64_t t, u;
            struct arch a, b;
            sweep_point(s, p, &t, &a);
            sweep_point(back, p, &u, &b);
            cr_expect_eq(t, u);
            cr_expect_arr_eq(&a, &b, sizeof(a));
        }
        struct sweep_trace st;
        cr_assert_eq(sweep_trace(back, 2, &st, NULL), 0);
        cr_assert_eq(st.recipe->tenants, 3);
        cr_assert_eq(st.recipe->rules, RULES_HYPERSIO);
        json_decref(j);
        json_decref(again);
        sweep_free(&s);
        sweep_free(&back);
    }
    cr_assert_str_eq(stored[0], stored[1]);
    free(stored[0]);
    free(stored[1]);
}

static int count_file(void *user, const char *path, const struct id *id)
{
    struct id want;
    cid_file(path, &want, NULL, NULL);
    cr_expect(id_eq(&want, id), "%s", path);
    ++*(int *)user;
    return 0;
}

Test(sweep, files_are_named_once_with_their_ids)
{
    put("b.log", "y");
    put("x.trc", "z");
    struct sweep *s =
        load("[trace t]\nlogs=a.log,b.log\n[trace u]\nlogs=b.log,a.log\n[trace v]\nfile=x.trc\n");
    struct err e = { 0 };
    int n = 0;
    cr_assert_eq(sweep_identify(s, &e), 0, "%s", e.text);
    cr_assert_eq(sweep_files(s, count_file, &n), 0);
    cr_assert_eq(n, 3);
    sweep_free(&s);
}

Test(sweep, collected_logs_take_the_place_of_at_collect)
{
    put("run.ini", "[collect]\nprofile=quick\n");
    struct sweep *s = load("[collect]\nrun=run.ini\n[trace t]\nlogs=a.log,@collect\n");
    cr_assert_str_eq(sweep_collect_text(s), "[collect]\nprofile=quick\n");
    struct id ids[2] = { { { 1 } }, { { 2 } } };
    struct sweep_trace st;
    cr_assert_eq(sweep_bind_collect(s, ids, 2, NULL), 0);
    cr_assert_eq(sweep_trace(s, 0, &st, NULL), 0);
    cr_assert_eq(st.recipe->n_logs, 3);
    cr_assert(st.recipe->logs[2].have_id && id_eq(&st.recipe->logs[2].id, &ids[1]));
    sweep_free(&s);
}
