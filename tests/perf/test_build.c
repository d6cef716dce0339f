#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/build.h"
#include "proto/base/file.h"

/* Two small logs: log 0 has devices 2 and 3 (domains 1 and 2), log 1 device 2 (domain 1 as well). */
static char folder[256];

static void hit(struct buf *b, unsigned sid, unsigned page, unsigned domain)
{
    cr_assert_eq(buf_addf(b,
                          "vtd_iotlb_page_hit IOTLB page hit sid 0x%x iova 0x%x004 pmask "
                          "0xfffffffffffff000 slpte 0x%x003 domain 0x%x\n",
                          sid, page, page + 0x100, domain),
                 0);
}

static const char *log_file(const char *name, const struct buf *b)
{
    static char path[2][512];
    static int k;
    char *p = path[k++ & 1];
    struct err e;
    snprintf(p, 512, "%s/%s", folder, name);
    cr_assert_eq(file_write(p, b->data, b->len, 0644, true, &e), 0, "%s", e.text);
    return p;
}

static void start(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/sf-build-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(folder));
}

static void end(void)
{
    struct err e;
    dir_remove(folder, &e);
}

static struct recipe two_logs(enum rules rules)
{
    struct recipe r;
    struct err e;
    struct buf a = BUF_INIT(1 << 16), b = BUF_INIT(1 << 16);
    for (unsigned i = 0; i < 8; i++) {
        hit(&a, 0x10, 1 + i, 1);
        if (i < 5)
            hit(&a, 0x18, 1 + i, 2);
    }
    for (unsigned i = 0; i < 6; i++)
        hit(&b, 0x10, 1 + i, 1);
    recipe_init(&r);
    r.rules = rules;
    r.burst = 2;
    cr_assert_eq(recipe_add_log(&r, log_file("a.txt", &a), &e), 0);
    cr_assert_eq(recipe_add_log(&r, log_file("b.txt", &b), &e), 0);
    buf_clear(&a);
    buf_clear(&b);
    return r;
}

static struct trace *must(const struct recipe *r)
{
    struct trace *t = NULL;
    struct err e = { 0 };
    cr_assert_eq(build_trace(r, NULL, &t, NULL, &e), 0, "%s", e.text);
    return t;
}

TestSuite(build, .init = start, .fini = end);

Test(build, model_rules_keep_tenants_of_several_logs_apart)
{
    struct recipe r = two_logs(RULES_MODEL);
    struct trace *t = must(&r);
    cr_expect_eq(t->head.tenants, 3);
    cr_expect_eq(t->head.devices, 3);
    cr_expect_eq(t->n_gids, 3);
    trace_free(&t);
    recipe_clear(&r);
}

Test(build, round_robin_ends_in_the_round_of_the_first_exhausted_tenant)
{
    struct recipe r = two_logs(RULES_MODEL);
    struct trace *t = must(&r);
    /* 8, 5 and 6 events in bursts of 2: the second tenant gives 2, 2, 1 and ends it; the others finish that round */
    uint64_t n[3] = { 0 };
    for (uint64_t i = 0; i < t->n; i++)
        n[t->entry[t->ev[i]].gid]++;
    cr_expect_eq(n[0], 6);
    cr_expect_eq(n[1], 5);
    cr_expect_eq(n[2], 6);
    cr_expect(t->head.early_end);
    trace_free(&t);
    recipe_clear(&r);
}

Test(build, random_and_original_order_use_every_event)
{
    for (int rules = 0; rules < 2; rules++) {
        struct recipe r = two_logs(rules ? RULES_HYPERSIO : RULES_MODEL);
        r.order = ORDER_RAND;
        struct trace *t = must(&r);
        cr_expect_eq(t->n, 19);
        trace_free(&t);
        r.order = ORDER_ORIG;
        t = must(&r);
        cr_expect_eq(t->n, 19);
        cr_expect_eq(t->entry[t->ev[0]].gid, 0);
        cr_expect_eq(t->entry[t->ev[1]].gid, 1);
        trace_free(&t);
        recipe_clear(&r);
    }
}

Test(build, another_seed_gives_another_random_order)
{
    struct recipe r = two_logs(RULES_MODEL);
    r.order = ORDER_RAND;
    r.burst = 1;
    struct trace *a = must(&r), *b = must(&r);
    r.seed = 2;
    struct trace *c = must(&r);
    cr_expect(!memcmp(a->ev, b->ev, a->n * sizeof(*a->ev)));
    bool same = a->n_entries == c->n_entries;
    for (uint64_t i = 0; same && i < a->n; i++)
        same = a->entry[a->ev[i]].iova == c->entry[c->ev[i]].iova &&
               a->entry[a->ev[i]].gid == c->entry[c->ev[i]].gid;
    cr_expect(!same);
    trace_free(&a);
    trace_free(&b);
    trace_free(&c);
    recipe_clear(&r);
}

Test(build, replicas_are_tenants_of_their_own_that_start_elsewhere)
{
    struct recipe r = two_logs(RULES_MODEL);
    r.replicate = 4;
    r.burst = 1;
    struct trace *t = must(&r);
    cr_expect_eq(t->head.tenants, 12);
    cr_expect_eq(t->head.devices, 12);
    cr_expect_eq(t->n_gids, 12);
    /* the first event of tenant 0 and of its copies: 8 events, so 2 apart */
    for (unsigned c = 0; c < 4; c++) {
        uint64_t i = 0;
        while (t->entry[t->ev[i]].gid != 3 * c)
            i++;
        cr_expect_eq(t->entry[t->ev[i]].iova >> 12, 1 + 2 * c, "copy %u", c);
        cr_expect_eq(t->off[i], 4);
    }
    trace_free(&t);
    r.tenants = 7;
    t = must(&r);
    cr_expect_eq(t->head.tenants, 7);
    cr_expect_eq(t->n_gids, 7);
    trace_free(&t);
    r.order = ORDER_ORIG;
    t = must(&r);
    cr_expect_eq(t->n, 19 + 19 + 8);
    trace_free(&t);
    recipe_clear(&r);
}

Test(build, more_tenants_than_the_logs_hold_is_a_usage_error)
{
    struct recipe r = two_logs(RULES_MODEL);
    struct trace *t = NULL;
    struct err e = { 0 };
    r.tenants = 4;
    cr_expect_eq(build_trace(&r, NULL, &t, NULL, &e), -SF_EUSAGE);
    cr_expect_str_eq(e.text, "tenants: 4 asked for, the logs hold 3");
    r.replicate = 2;
    t = must(&r);
    cr_expect_eq(t->head.tenants, 4);
    trace_free(&t);
    recipe_clear(&r);
}

Test(build, fewer_tenants_take_the_first_devices)
{
    struct recipe r = two_logs(RULES_MODEL);
    r.tenants = 1;
    struct trace *t = must(&r);
    cr_expect_eq(t->head.tenants, 1);
    cr_expect_eq(t->n, 8);
    trace_free(&t);
    recipe_clear(&r);
}

Test(build, a_device_with_two_domains_stops_model_rules)
{
    struct recipe r;
    struct err e = { 0 };
    struct trace *t = NULL;
    struct buf a = BUF_INIT(1 << 16);
    hit(&a, 0x10, 1, 1);
    hit(&a, 0x10, 1, 9);
    recipe_init(&r);
    r.tenants = 1;
    cr_assert_eq(recipe_add_log(&r, log_file("a.txt", &a), &e), 0);
    cr_expect_eq(build_trace(&r, NULL, &t, NULL, &e), -SF_EFORMAT);
    cr_expect_not_null(strstr(e.text, "a.txt: shows 2 domains"), "%s", e.text);
    r.rules = RULES_HYPERSIO;
    t = must(&r);
    cr_expect_eq(t->head.tenants, 2);
    trace_free(&t);
    buf_clear(&a);
    recipe_clear(&r);
}

Test(build, empty_missing_and_unknown_logs_are_one_clear_error)
{
    struct recipe r;
    struct err e = { 0 };
    struct trace *t = NULL;
    struct buf a = BUF_INIT(16);
    recipe_init(&r);
    cr_expect_eq(build_trace(&r, NULL, &t, NULL, &e), -SF_EUSAGE);
    cr_assert_eq(recipe_add_log(&r, log_file("empty.txt", &a), &e), 0);
    cr_expect_eq(build_trace(&r, NULL, &t, NULL, &e), -SF_EFORMAT);
    cr_expect_not_null(strstr(e.text, "empty.txt: no translation"), "%s", e.text);
    unlink(r.logs[0].path);
    cr_expect_eq(build_trace(&r, NULL, &t, NULL, &e), -ENOENT);
    cr_expect_not_null(strstr(e.text, "empty.txt"), "%s", e.text);
    recipe_clear(&r);
}

static void told(void *user, const struct build_note *n)
{
    if (n->kind == BUILD_REFUSED) {
        char *all = user;
        sprintf(all + strlen(all), "%d:%s;", (int)n->a, n->text);
    }
}

/* The reference takes them for pages of unknown size; there are none. */
Test(build, model_rules_refuse_pages_of_no_size_by_line)
{
    struct recipe r;
    struct trace *t = NULL;
    struct build_report rep;
    struct err e = { 0 };
    struct buf b = BUF_INIT(1 << 12);
    char all[512] = "";
    struct build_hooks hooks = { .user = all, .note = told };
    hit(&b, 0x10, 1, 1);
    buf_addf(&b, "vtd_iotlb_page_hit IOTLB page hit sid 0x10 iova 0x2004 pmask 0xfffffffffffff123 "
                 "slpte 0x3 domain 0x1\n"
                 "vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x2004 slpte 0x3 level 0x0 "
                 "domain 0x1\n");
    recipe_init(&r);
    cr_assert_eq(recipe_add_log(&r, log_file("odd.txt", &b), &e), 0);
    cr_assert_eq(build_trace(&r, &hooks, &t, &rep, &e), 0, "%s", e.text);
    cr_expect_str_eq(all, "2:its page mask is of no page;3:level 0 is of no page;");
    cr_expect(t->n == 1 && rep.refused == 2 && rep.logs[0].refused == 2);
    build_report_clear(&rep);
    trace_free(&t);
    all[0] = '\0';
    r.rules = RULES_HYPERSIO;
    cr_assert_eq(build_trace(&r, &hooks, &t, NULL, &e), 0, "%s", e.text);
    cr_expect(t->n == 3 && !all[0]);
    trace_free(&t);
    recipe_clear(&r);
    buf_clear(&b);
}

Test(build, report_names_logs_with_their_counts)
{
    struct recipe r = two_logs(RULES_MODEL);
    struct trace *t = NULL;
    struct build_report rep;
    struct err e = { 0 };
    cr_assert_eq(build_trace(&r, NULL, &t, &rep, &e), 0);
    cr_assert_eq(rep.n_logs, 2);
    cr_expect_eq(rep.logs[0].parsed, 13);
    cr_expect_eq(rep.logs[0].devices, 2);
    cr_expect_eq(rep.logs[1].lines, 6);
    cr_expect_eq(rep.logs[1].ignored, 0);
    build_report_clear(&rep);
    trace_free(&t);
    recipe_clear(&r);
}
