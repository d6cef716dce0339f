#include <criterion/criterion.h>
#include <string.h>

#include "perf/arch.h"
#include "proto/base/rng.h"
#include "scratch.h"

TestSuite(arch, .init = scratch_make, .fini = scratch_remove);

Test(arch, default_is_the_contracts)
{
    struct arch a;
    arch_default(&a);
    json_t *j = arch_json(&a);
    char *s = json_dumps(j, JSON_COMPACT);
    cr_assert_str_eq(
        s,
        "{\"link_gbps\":200,\"queue\":1,\"inorder\":false,\"salloc\":false,\"cc_entries\":1536,"
        "\"cc_ways\":1536,\"cc_groups\":1,\"iotlb_entries\":64,\"iotlb_ways\":8,\"iotlb_groups\":1,"
        "\"iotlb_policy\":\"lru\",\"l2_entries\":512,\"l2_ways\":16,\"l2_groups\":1,"
        "\"l3_entries\":1024,\"l3_ways\":16,\"l3_groups\":1,\"pf_entries\":0,\"pf_distance\":32,"
        "\"pf_history\":2}");
    struct arch b;
    cr_assert_eq(arch_from_json(j, &b, NULL), 0);
    cr_assert_arr_eq(&a, &b, sizeof(a));
    free(s);
    json_decref(j);
}

Test(arch, keys_take_their_kind_of_value_only)
{
    struct arch a;
    arch_default(&a);
    static const struct {
        const char *key, *value;
        bool good;
    } rows[] = {
        { "queue", "32", true },
        { "queue", "0", false },
        { "queue", "-1", false },
        { "queue", "1048577", false },
        { "link_gbps", "0", false },
        { "link_gbps", "12336", true },
        { "link_gbps", "12337", false },
        { "inorder", "yes", true },
        { "inorder", "maybe", false },
        { "iotlb_policy", "oracle", true },
        { "iotlb_policy", "fifo", false },
        { "iotlb_ways", "0", true },
        { "iotlb_ways", "4K", false },
        { "iotlb", "1", false },
        { "", "1", false },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err e = { 0 };
        int r = arch_set(&a, rows[i].key, rows[i].value, "--arch", &e);
        cr_expect_eq(r, rows[i].good ? 0 : -SF_EUSAGE, "%s=%s", rows[i].key, rows[i].value);
        if (!rows[i].good)
            cr_expect_eq(strncmp(e.text, "--arch: ", 8), 0, "%s", e.text);
    }
    char text[16];
    arch_text(&a, (unsigned)arch_key("iotlb_policy"), text);
    cr_assert_str_eq(text, "oracle");
    arch_text(&a, (unsigned)arch_key("inorder"), text);
    cr_assert_str_eq(text, "yes");
}

Test(arch, impossible_geometry_is_refused_by_the_rules_it_breaks)
{
    static const struct {
        const char *key;
        uint32_t value;
        bool model, hypersio; /* accepted */
    } rows[] = {
        { "iotlb_ways", 0, false, false },    { "iotlb_entries", 0, true, true },
        { "iotlb_entries", 50, false, true }, { "iotlb_entries", 48, false, true },
        { "iotlb_groups", 16, false, false }, { "iotlb_groups", 8, true, true },
        { "iotlb_groups", 0, true, false },   { "iotlb_groups", 3, false, true },
        { "l2_ways", 0, false, false },       { "l3_groups", 128, false, false },
        { "pf_distance", 0, true, false },    { "pf_history", 0, true, false },
        { "queue", 0, false, false },         { "link_gbps", 0, false, false },
        { "link_gbps", 20000, false, false }, { "cc_entries", 0, true, true },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct arch a;
        struct err e = { 0 };
        arch_default(&a);
        arch_put(&a, (unsigned)arch_key(rows[i].key), rows[i].value);
        cr_expect_eq(arch_check(&a, RULES_MODEL, &e) == 0, rows[i].model, "%s=%u %s", rows[i].key,
                     rows[i].value, e.text);
        cr_expect_eq(arch_check(&a, RULES_HYPERSIO, &e) == 0, rows[i].hypersio, "%s=%u %s",
                     rows[i].key, rows[i].value, e.text);
    }
    struct arch a;
    arch_default(&a);
    cr_assert_eq(arch_preset(&a, "hypertrio", "", NULL), 0);
    cr_assert_eq(arch_check(&a, RULES_MODEL, NULL), 0);
    cr_assert_eq(arch_preset(&a, "best", "--preset", NULL), -SF_EUSAGE);
}

Test(arch, hypersio_file_sets_what_it_names)
{
    struct arch a;
    struct err e = { 0 };
    arch_default(&a);
    const char *p = put(
        "a.cfg", "CC\nsize:1536\nassoc:1536\ngroups:1\nhistlen:0\n//------\nIOTLB\nsize: 128 rest\n"
                 "assoc:4\nPREFETCH\nsize:8\nassoc:48\ngroups:0\nhistlen:3\n");
    cr_assert_eq(arch_read_cfg(&a, p, &e), 0, "%s", e.text);
    cr_assert_eq(a.iotlb_entries, 128);
    cr_assert_eq(a.iotlb_ways, 4);
    cr_assert_eq(a.pf_entries, 8);
    cr_assert_eq(a.pf_distance, 48);
    cr_assert_eq(a.pf_history, 3);
    cr_assert_eq(a.l2_entries, 512);
    static const struct {
        const char *text, *why;
    } wrong[] = {
        { "", "empty" },
        { "IOTLB\n\nsize:3\n", ":2: an empty line" },
        { "IOTLB\nways:3\n", ":2: 'ways:3'" },
        { "DTLB\n", ":1: unknown section" },
        { "size:3\n", ":1: 'size:3' stands before" },
        { "CC\nsize:\n", ":2: '' is not a whole number" },
        { "CC\nsize:x1\n", ":2: 'x1' is not a whole number" },
        { "CC\nsize:99999999999999999999\n", ":2: 99999999999999999999 is not in 0..16777216" },
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_expect_eq(arch_read_cfg(&a, put("b.cfg", wrong[i].text), &e), -SF_EUSAGE);
        cr_expect(strstr(e.text, wrong[i].why), "%s", e.text);
    }
}

Test(arch, point_id_is_the_hash_of_canonical_json)
{
    struct arch a;
    struct id trace, fast, slow;
    memset(&trace, 0xab, sizeof(trace));
    arch_default(&a);
    arch_set(&a, "inorder", "yes", "", NULL);
    arch_set(&a, "iotlb_policy", "lfu", "", NULL);
    arch_point_id(&a, RULES_HYPERSIO, &trace, &fast);
    json_t *j = json_object();
    json_object_set_new(j, "trace", json_id(&trace));
    json_object_set_new(j, "rules", json_string("hypersio"));
    json_object_set_new(j, "arch", arch_json(&a));
    json_hash(j, &slow);
    json_decref(j);
    cr_assert(id_eq(&fast, &slow));
    char text[ARCH_TEXT_MAX];
    j = arch_json(&a);
    char *want = json_dumps(j, JSON_COMPACT);
    cr_assert_eq(arch_text_json(&a, text), strlen(want));
    cr_assert_str_eq(text, want);
    free(want);
    json_decref(j);
}

/* Every length of a value after every other, several keys at once, every point of a batch. */
Test(arch, many_points_one_after_the_other_are_written_and_named_as_each_alone)
{
    enum { N = 300 };
    static struct arch a[N];
    const struct arch *p[N];
    static struct id got[N];
    struct id trace, want;
    struct rng rng = { 7 };
    struct arch_line line;
    memset(&trace, 0xab, sizeof(trace));
    for (size_t i = 0; i < N; i++) {
        if (i)
            a[i] = a[i - 1];
        else
            arch_default(&a[i]);
        for (uint64_t n = rng_below(&rng, 4); n--;) {
            unsigned k = (unsigned)rng_below(&rng, ARCH_N);
            bool num = arch_numeric(k);
            arch_put(&a[i], k, (uint32_t)rng_below(&rng, num ? 1u << rng_below(&rng, 25) : 2));
        }
        p[i] = &a[i];
        char text[ARCH_TEXT_MAX];
        if (i)
            arch_line_next(&line, &a[i]);
        else
            arch_line_first(&line, &a[i]);
        arch_text_json(&a[i], text);
        cr_assert_str_eq(line.text, text);
        cr_assert_eq(line.len, strlen(text));
    }
    arch_point_ids(p, N, RULES_MODEL, &trace, got);
    for (size_t i = 0; i < N; i++) {
        arch_point_id(&a[i], RULES_MODEL, &trace, &want);
        cr_assert(id_eq(&want, &got[i]), "%zu", i);
    }
}
