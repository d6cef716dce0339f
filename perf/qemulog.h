/* QEMU's text log of the emulated IOMMU, line by line: five of its trace events are understood.
 *
 * A line is tried against the patterns in the order page_update, page_hit, cc_update, cc_hit,
 * slpte_fetch. A pattern is a keyword and, anywhere behind it, an unbroken chain of `name value`
 * fields; the rightmost complete chain counts. Lines of the usual spelling take a short cut that
 * never sees a regular expression; all others take a general matcher with the same outcome, so that
 * odd spellings cost time but change nothing.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"

enum qlog_kind {
    QLOG_OTHER, /* no event of ours */
    QLOG_UPDATE,
    QLOG_HIT,
    QLOG_CC_UPDATE,
    QLOG_CC_HIT,
    QLOG_SLPTE,
    QLOG_KINDS
};

/* Values in the order of the line; v[] of the other kinds' fields are undefined. */
struct qlog_event {
    union {
        uint64_t v[6];
        struct {
            uint64_t sid, iova, slpte, level, domain;
        } update;
        struct {
            uint64_t sid, iova, pmask, slpte, domain;
        } hit;
        struct {
            uint64_t bus, devfn, high, low, gen; /* gen: before the change */
            uint64_t gen_after; /* of a cc_update; as gen where the line does not say */
        } cc;
        struct {
            uint64_t high, low, iova, level, addr, slpte;
        } fetch;
    };
    uint64_t line; /* from 1 */
    enum qlog_kind kind;
};

/* How lines are read: all false = as the reference reads them. */
struct qlog_rules {
    bool crlf;        /* a CR before the LF belongs to the line's end */
    bool gen_decimal; /* gen is decimal, as QEMU prints it; else hex */
    bool cc_hit;      /* context hits are events */
    /* 65536 bits: source-ids whose update, hit and context events count; NULL = all. Borrowed. */
    const uint8_t *valid_sid;
};

enum { QLOG_LINE_MAX = 64 << 20 }; /* bytes; a longer line is refused */

struct qlog; /* opaque */

struct qlog_counts {
    uint64_t lines, bytes;
    uint64_t refused; /* lines that carry an event's keyword and chain but no usable value, or too
                         long */
    uint64_t by_kind[QLOG_KINDS]; /* events returned; [QLOG_OTHER]: all other lines */
};

/* Called for each refused line. reason: static text. */
typedef void qlog_refused(void *user, uint64_t line, const char *reason);

/* path: plain text, zstd, or a log file of ours (.slog; its events count as lines). r is copied, its bitmap borrowed. cb may be NULL. */
int qlog_open(const char *path, const struct qlog_rules *r, qlog_refused *cb, void *user,
              struct qlog **ret, struct err *e);
/* The same over text in memory, borrowed until qlog_free(). */
int qlog_open_text(const char *text, size_t n, const struct qlog_rules *r, qlog_refused *cb,
                   void *user, struct qlog **ret, struct err *e);
void qlog_free(struct qlog **q);

/* Up to n events. Returns their number, 0 at the end, or -errno / -SF_EINTEGRITY. Cost: about 40 ns
 * a usual line. */
ssize_t qlog_read(struct qlog *q, struct qlog_event *ev, size_t n, struct err *e);
const struct qlog_counts *qlog_counts(const struct qlog *q);

/* One line without its LF, by the general matcher. *reason is set when a line is refused
 * (QLOG_OTHER returned). */
enum qlog_kind qlog_line(const char *p, size_t n, const struct qlog_rules *r, struct qlog_event *ev,
                         const char **reason);
