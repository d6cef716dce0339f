#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "perf/points.h"
#include "proto/base/clean.h"
#include "proto/base/rng.h"

enum { N = 1024 };

static json_t *text_of(const struct point p[], size_t n, bool lists, size_t *ret_b)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    cr_assert_eq(buf_adds(&b, "{"), 0);
    cr_assert_eq(points_text(p, n, lists, &b), 0);
    cr_assert_eq(buf_adds(&b, "}"), 0);
    json_t *j = json_loadb((const char *)b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
    cr_assert(j, "%s", (const char *)b.data);
    *ret_b = b.len;
    return j;
}

Test(points, both_forms_give_the_points_that_were_written)
{
    static struct point p[N];
    static uint64_t index[N];
    static struct arch arch[N];
    struct rng r = { 3 };
    for (int k = 0; k < 12; k++) {
        size_t n = k ? 1 + rng_below(&r, k % 3 ? N : 3) : N, len[2];
        for (size_t i = 0; i < n; i++) {
            arch_preset(&p[i].arch, k % 2 ? "hypertrio" : "default", "", NULL);
            p[i].index = rng_u64(&r) >> (1 + rng_below(&r, 62));
            p[i].arch.queue = 1 + (uint32_t)i % 7;
            p[i].arch.pf_distance = 1 + (uint32_t)i;
            if (k > 3) {
                p[i].arch.inorder = (uint32_t)rng_below(&r, 2);
                p[i].arch.iotlb_policy = (uint32_t)rng_below(&r, 3);
                p[i].arch.cc_entries = (uint32_t)rng_below(&r, (1u << 24) + 1);
            }
        }
        for (int lists = 0; lists < 2; lists++) {
            struct err e = { 0 };
            CLEANUP(json_decrefp) json_t *j = text_of(p, n, lists, &len[lists]);
            cr_assert_eq(points_count(j, N, &e), (int)n);
            cr_assert(points_read(j, index, arch, &e) == 0, "%s", e.text);
            for (size_t i = 0; i < n; i++) {
                cr_assert_eq(index[i], p[i].index);
                cr_assert(!memcmp(&arch[i], &p[i].arch, sizeof(arch[i])));
            }
        }
        cr_assert(k || len[1] * 10 < len[0], "%zu and %zu bytes", len[1], len[0]);
    }
}

Test(points, what_are_no_points_is_refused)
{
    static const struct {
        const char *spec, *text;
    } bad[] = {
        { "{}", "no list of 1 to 4 points" },
        { "{\"points\":[]}", "no list of 1 to 4 points" },
        { "{\"points\":[1,2,3,4,5]}", "no list of 1 to 4 points" },
        { "{\"points\":[{}]}", "point 0: index: not a whole number" },
        { "{\"points\":[{\"index\":1}]}", "point 0: arch: not an object" },
        { "{\"points\":[[1]]}", "point 0: index" },
        { "{\"points\":[[1]],\"vary\":[]}", "arch: not an object" },
        { "{\"points\":[[1]],\"vary\":3,\"arch\":{}}", "'vary' is no list" },
        { "{\"points\":[[1]],\"vary\":[\"x\"],\"arch\":{}}", "'vary' names no key 'x'" },
        { "{\"points\":[[1]],\"vary\":[7],\"arch\":{}}", "'vary' names no key ''" },
        { "{\"points\":[[1,2],[2]],\"vary\":[\"queue\"],\"arch\":{}}",
          "point 1: 1 numbers, expected 2" },
        { "{\"points\":[[1,2,3]],\"vary\":[\"queue\"],\"arch\":{}}",
          "point 0: 3 numbers, expected 2" },
        { "{\"points\":[{\"index\":1}],\"vary\":[],\"arch\":{}}", "point 0: 0 numbers" },
        { "{\"points\":[[-1]],\"vary\":[],\"arch\":{}}", "index: not a number" },
        { "{\"points\":[[1,1048577]],\"vary\":[\"queue\"],\"arch\":{}}",
          "queue: no number up to 1048576" },
        { "{\"points\":[[1,2]],\"vary\":[\"inorder\"],\"arch\":{}}", "inorder: no number up to 1" },
        { "{\"points\":[[1,3]],\"vary\":[\"iotlb_policy\"],\"arch\":{}}",
          "iotlb_policy: no number up to 2" },
        { "{\"points\":[[1,\"lru\"]],\"vary\":[\"iotlb_policy\"],\"arch\":{}}",
          "iotlb_policy: no number" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint64_t index[4];
        struct arch arch[4];
        struct err e = { 0 };
        CLEANUP(json_decrefp) json_t *j = json_loads(bad[i].spec, 0, NULL);
        cr_assert(j, "%s", bad[i].spec);
        int r = points_count(j, 4, &e);
        if (r >= 0)
            r = points_read(j, index, arch, &e);
        cr_assert_eq(r, -SF_EFORMAT, "%s", bad[i].spec);
        cr_assert(strstr(e.text, bad[i].text), "%s: %s", bad[i].spec, e.text);
    }
    char many[600] = "{\"points\":[[1]],\"arch\":{},\"vary\":[\"queue\"";
    for (unsigned i = 0; i < ARCH_N; i++)
        strcat(many, ",\"queue\"");
    strcat(many, "]}");
    uint64_t index;
    struct arch arch;
    struct err e = { 0 };
    CLEANUP(json_decrefp) json_t *j = json_loads(many, 0, NULL);
    cr_assert_eq(points_read(j, &index, &arch, &e), -SF_EFORMAT);
    cr_assert(strstr(e.text, "'vary' is no list of up to 20 keys"), "%s", e.text);
}
