#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/qemulog.h"

#define HIT                                                                                        \
    "vtd_iotlb_page_hit IOTLB page hit sid 0x10 iova 0xabc123 pmask 0xfffffffffffff000 slpte "     \
    "0x5003 domain 0x7"
#define FETCH                                                                                      \
    "vtd_slpte_fetch SLPTE fetch: high 0x301 low 0x1 iova 0x2 level 0x1 addr 0x3 slpte 0x4"
#define UPDATE                                                                                     \
    "vtd_iotlb_page_update IOTLB page update sid 0x18 iova 0x1000 slpte 0x2 level 0x1 domain 0x3"
#define CC                                                                                         \
    "vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x10 high 0x301 low 0x1 gen 12 -> "    \
    "gen 13"

static const struct qlog_rules plain;
static const struct qlog_rules model = { .crlf = true, .gen_decimal = true, .cc_hit = true };

static enum qlog_kind one(const char *line, const struct qlog_rules *r, struct qlog_event *ev,
                          const char **reason)
{
    return qlog_line(line, strlen(line), r, ev, reason);
}

Test(qemulog, tells_the_kind_of_odd_spellings)
{
    static const struct {
        const char *line;
        enum qlog_kind kind, model_kind;
        const char *why;
    } rows[] = {
        { HIT, QLOG_HIT, QLOG_HIT, "usual" },
        { "4711@1.2:" HIT " and more", QLOG_HIT, QLOG_HIT, "text behind the last value" },
        { HIT "\r", QLOG_OTHER, QLOG_HIT, "CR LF" },
        { "\r" HIT, QLOG_OTHER, QLOG_OTHER, "CR before the keyword" },
        { "vtd_iotlb_page_hit xsid\t0x1  iova \r 0xA\vpmask 0x0 slpte 0x1\fdomain 0x1", QLOG_HIT,
          QLOG_HIT, "any white space, CR inside the chain, no border before a name" },
        { "vtd_iotlb_page_hit sid 0X1 iova 0xA pmask 0x0 slpte 0x1 domain 0x1", QLOG_OTHER,
          QLOG_OTHER, "capital X" },
        { "vtd_iotlb_page_hit Sid 0x1 iova 0xA pmask 0x0 slpte 0x1 domain 0x1", QLOG_OTHER,
          QLOG_OTHER, "capital name" },
        { "vtd_iotlb_page_hit sid 0x1 iova 0xA oh pmask 0x0 slpte 0x1 domain 0x1", QLOG_OTHER,
          QLOG_OTHER, "broken chain" },
        { "sid 0x1 iova 0xA pmask 0x0 slpte 0x1 domain 0x1 vtd_iotlb_page_hit", QLOG_OTHER,
          QLOG_OTHER, "chain before the keyword" },
        { UPDATE, QLOG_UPDATE, QLOG_UPDATE, "usual" },
        { CC, QLOG_CC_UPDATE, QLOG_CC_UPDATE, "usual" },
        { "vtd_iotlb_cc_hit IOTLB context hit bus 0x0 devfn 0x10 high 0x301 low 0x1 gen 1",
          QLOG_OTHER, QLOG_CC_HIT, "context hits count under model rules only" },
        { FETCH, QLOG_SLPTE, QLOG_SLPTE, "usual" },
        { "vtd_iotlb_page_hit " FETCH, QLOG_SLPTE, QLOG_SLPTE, "the second keyword's chain" },
        { "", QLOG_OTHER, QLOG_OTHER, "nothing" },
        { "vtd_", QLOG_OTHER, QLOG_OTHER, "a beginning" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct qlog_event ev;
        const char *reason;
        cr_expect_eq(one(rows[i].line, &plain, &ev, &reason), rows[i].kind, "%s", rows[i].why);
        cr_expect_null(reason);
        cr_expect_eq(one(rows[i].line, &model, &ev, &reason), rows[i].model_kind, "model: %s",
                     rows[i].why);
    }
}

Test(qemulog, takes_the_rightmost_complete_chain)
{
    struct qlog_event ev;
    const char *reason;
    cr_assert_eq(one("vtd_iotlb_page_update sid 0x10 iova 0x1 slpte 0x2 level 0x1 domain 0x3"
                     " sid 0x18 iova 0x4 slpte 0x5 level 0x2 domain 0x6 sid 0x20 iova 0x7",
                     &plain, &ev, &reason),
                 QLOG_UPDATE);
    cr_expect_eq(ev.update.sid, 0x18);
    cr_expect_eq(ev.update.domain, 6);
}

Test(qemulog, reads_gen_by_its_rules)
{
    struct qlog_event ev;
    const char *reason;
    one(CC, &plain, &ev, &reason);
    cr_expect_eq(ev.cc.gen, 0x12);
    one(CC, &model, &ev, &reason);
    cr_expect_eq(ev.cc.gen, 12);
}

Test(qemulog, refuses_with_a_reason)
{
    static const struct {
        const char *line, *reason;
    } rows[] = {
        { "vtd_iotlb_page_update sid 0x10 iova 0x1 slpte 0x2 level 0x4 domain 0x3",
          "level above 3" },
        { "vtd_iotlb_page_hit sid 0x1 iova 0x12345678123456789 pmask 0x0 slpte 0x1 domain 0x1",
          "a value has more than 64 bits" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct qlog_event ev;
        const char *reason;
        cr_expect_eq(one(rows[i].line, &plain, &ev, &reason), QLOG_OTHER);
        cr_assert_not_null(reason);
        cr_expect_str_eq(reason, rows[i].reason);
    }
    struct qlog_event ev;
    const char *reason;
    /* of a foreign device only what names it is read */
    static const uint8_t none[8192];
    cr_expect_eq(
        one("vtd_iotlb_cc_update bus 0x0 devfn 0x10 high 0x12345678123456789 low 0x1 gen 1",
            &(struct qlog_rules){ .valid_sid = none }, &ev, &reason),
        QLOG_OTHER);
    cr_expect_null(reason);
    cr_expect_eq(one("vtd_iotlb_page_hit sid 0x1 iova 0x00000000000000000000000012 pmask 0x0 slpte "
                     "0x1 domain 0x1",
                     &plain, &ev, &reason),
                 QLOG_HIT);
    cr_expect_eq(ev.hit.iova, 0x12);
}

static uint64_t count(const char *text, size_t n, const struct qlog_rules *r,
                      struct qlog_counts *ret)
{
    struct qlog *q = NULL;
    struct err e;
    cr_assert_eq(qlog_open_text(text, n, r, NULL, NULL, &q, &e), 0);
    struct qlog_event ev[3];
    uint64_t all = 0;
    ssize_t k;
    while ((k = qlog_read(q, ev, 3, &e)) > 0)
        all += (uint64_t)k;
    cr_assert_eq(k, 0);
    if (ret)
        *ret = *qlog_counts(q);
    qlog_free(&q);
    return all;
}

/* A log is cut anywhere within its last line: what is left of an event is told, and nothing else is. */
Test(qemulog, last_line_that_is_cut_short_is_refused)
{
    static const struct {
        const char *last;
        uint64_t events, refused, refused_plain;
    } rows[] = {
        { "vtd_iotlb_page_hit IOTLB page hit sid 0x10 iova 0xfffff00c pmask 0xffff", 1, 1, 0 },
        { "vtd_slpte_fetch SLPTE fetch: high 0x301", 1, 1, 0 },
        { "vtd_iotlb_page_hit IOTLB page hit sid 0x10 iova 0xfffff00c pmask 0xffff\n", 1, 0, 0 },
        { "qemu: terminating on sig", 1, 0, 0 },
        { UPDATE, 2, 0, 0 },
    };
    static const uint8_t none[8192]; /* no device counts: whole lines of others are no news */
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[1024];
        struct qlog_counts c;
        struct qlog_rules others = model;
        int n = snprintf(text, sizeof(text), "%s\n%s", HIT, rows[i].last);
        cr_expect_eq(count(text, (size_t)n, &model, &c), rows[i].events, "%zu", i);
        cr_expect_eq(c.refused, rows[i].refused, "%zu", i);
        cr_expect_eq(c.lines, 2);
        count(text, (size_t)n, &plain, &c);
        cr_expect_eq(c.refused, rows[i].refused_plain, "%zu", i);
        others.valid_sid = none;
        count(text, (size_t)n, &others, &c);
        cr_expect_eq(c.refused, rows[i].refused, "%zu", i);
    }
}

Test(qemulog, reads_lines_across_blocks_and_a_last_one_without_lf)
{
    enum { LINES = 9000 };
    char *text = malloc(LINES * 256), *p = text;
    cr_assert_not_null(text);
    for (int i = 0; i < LINES; i++)
        p += sprintf(p, "%s%s", i % 7 == 3 ? "odd " : "", i % 3 ? HIT : UPDATE), *p++ = '\n';
    struct qlog_counts c;
    cr_expect_eq(count(text, (size_t)(p - text), &plain, &c), LINES);
    cr_expect_eq(c.lines, LINES);
    cr_expect_eq(c.by_kind[QLOG_UPDATE], LINES / 3);
    cr_expect_eq(count(text, (size_t)(p - text) - 1, &plain, &c), LINES);
    cr_expect_eq(count("\n\n", 2, &plain, &c), 0);
    cr_expect_eq(c.lines, 2);
    cr_expect_eq(count("", 0, &plain, &c), 0);
    cr_expect_eq(c.lines, 0);
    free(text);
}

Test(qemulog, parses_a_line_of_ten_megabytes)
{
    size_t n = 10 << 20;
    char *text = malloc(2 * n + 512);
    cr_assert_not_null(text);
    memset(text, 'x', n);
    memcpy(text, "vtd_iotlb_page_hit ", 19);
    size_t len = n + (size_t)sprintf(text + n, "sid 0x10 iova 0x1 pmask 0x0 slpte 0x1 domain 0x1");
    memset(text + len, ' ', 1000);
    len += 1000;
    text[len++] = '\n';
    len += (size_t)sprintf(text + len, HIT "\n");
    cr_expect_eq(count(text, len, &plain, NULL), 2);
    free(text);
}

Test(qemulog, refuses_a_line_beyond_its_limit_and_goes_on)
{
    size_t n = (size_t)QLOG_LINE_MAX + (1 << 20);
    char *text = malloc(n + 512);
    cr_assert_not_null(text);
    memset(text, 'x', n);
    text[n] = '\n';
    size_t len = n + 1 + (size_t)sprintf(text + n + 1, HIT "\n");
    struct qlog_counts c;
    cr_expect_eq(count(text, len, &plain, &c), 1);
    cr_expect_eq(c.lines, 2);
    cr_expect_eq(c.refused, 1);
    free(text);
}

/* A short cut that saw other events than the general matcher would be wrong numbers, silently. */
Test(qemulog, short_cut_and_general_matcher_agree_on_mangled_lines)
{
    static const char *const seeds[] = {
        HIT, UPDATE, CC, FETCH, "4711@1591234567.363599:" FETCH, "4711@1591234567.363599:" HIT
    };
    uint64_t x = 88172645463325252u;
    uint8_t valid[8192];
    memset(valid, 0xff, sizeof(valid));
    struct qlog_rules r = { .valid_sid = valid };
    for (int i = 0; i < 60000; i++) {
        char line[256];
        struct qlog_event ev, want;
        const char *reason;
        struct err e;
        strcpy(line, seeds[i % 6]);
        size_t n = strlen(line);
        for (int k = 0; k < 2; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            static const char bytes[] = " \t\rx0:fF\nsv_";
            line[(x >> 8) % n] = bytes[(x >> 32) % (sizeof(bytes) - 1)];
            if (x >> 60 == 0)
                n = 1 + (x >> 20) % n;
        }
        struct qlog *q = NULL;
        cr_assert_eq(qlog_open_text(line, n, &r, NULL, NULL, &q, &e), 0);
        const char *lf = memchr(line, '\n', n);
        enum qlog_kind kind = qlog_line(line, lf ? (size_t)(lf - line) : n, &r, &want, &reason);
        ssize_t got = qlog_read(q, &ev, 1, &e);
        if (kind == QLOG_OTHER)
            cr_assert(got == 0 || ev.line > 1, "%.*s", (int)n, line);
        else
            cr_assert(got == 1 && ev.line == 1 && ev.kind == kind &&
                          !memcmp(ev.v, want.v, (kind == QLOG_SLPTE ? 6 : 5) * 8),
                      "%.*s", (int)n, line);
        qlog_free(&q);
    }
}
