/* Any bytes as a log, under both ways of reading. The usual-line short cut must agree with the general matcher, which
 * is asked about every line again. */
#include <stdlib.h>
#include <string.h>

#include "perf/qemulog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const char *text, size_t n, const struct qlog_rules *r)
{
    struct qlog *q = NULL;
    struct err e;
    if (qlog_open_text(text, n, r, NULL, NULL, &q, &e) < 0)
        abort();
    struct qlog_event ev[7];
    ssize_t k;
    const char *p = text;
    uint64_t line = 0, refused = 0, events = 0;
    while ((k = qlog_read(q, ev, 7, &e)) > 0)
        for (ssize_t i = 0; i < k; i++) {
            struct qlog_event want;
            const char *reason;
            enum qlog_kind kind = QLOG_OTHER;
            while (line < ev[i].line) {
                const char *lf = memchr(p, '\n', n - (size_t)(p - text));
                size_t len = lf ? (size_t)(lf - p) : n - (size_t)(p - text);
                kind = qlog_line(p, len, r, &want, &reason);
                refused += reason != NULL;
                if (++line < ev[i].line && kind != QLOG_OTHER)
                    abort(); /* the reader lost an event */
                p += len + (lf != NULL);
            }
            size_t fields = kind == QLOG_SLPTE ? 6 : 5;
            if (kind != ev[i].kind || memcmp(want.v, ev[i].v, fields * sizeof(want.v[0])) != 0)
                abort();
            events++;
        }
    const struct qlog_counts *c = qlog_counts(q);
    uint64_t all = 0;
    for (int i = 0; i < QLOG_KINDS; i++)
        all += c->by_kind[i];
    if (k < 0 || c->lines != all || c->lines < line || c->refused < refused ||
        events != all - c->by_kind[QLOG_OTHER] || c->bytes < n)
        abort();
    qlog_free(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t some[8192];
    memset(some, 0, sizeof(some));
    for (unsigned i = 2; i < 26; i++)
        some[i] = 1; /* bus 0, slots 2 to 25 */
    check((const char *)data, n, &(struct qlog_rules){ .valid_sid = some });
    check((const char *)data, n,
          &(struct qlog_rules){ .crlf = true, .gen_decimal = true, .cc_hit = true });
    return 0;
}
