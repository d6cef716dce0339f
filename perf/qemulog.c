#include "perf/qemulog.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "proto/base/clean.h"
#include "perf/logtext.h"
#include "proto/base/file.h"
#include "proto/format/log.h"
#include "proto/lib/zio.h"

enum {
    BLOCK = 256 << 10, /* bytes a read: stays in the second-level cache while it is taken apart */
    PAD = 64,          /* readable bytes behind the text, all 0 */
};

/* ---------------------------------------------------------------- the general matcher */

struct pattern {
    enum qlog_kind kind;
    const char *keyword;
    unsigned n;
    const char *names[6];
};

static const struct pattern patterns[] = {
    { QLOG_UPDATE, "vtd_iotlb_page_update", 5, { "sid", "iova", "slpte", "level", "domain" } },
    { QLOG_HIT, "vtd_iotlb_page_hit", 5, { "sid", "iova", "pmask", "slpte", "domain" } },
    { QLOG_CC_UPDATE, "vtd_iotlb_cc_update", 5, { "bus", "devfn", "high", "low", "gen" } },
    { QLOG_CC_HIT, "vtd_iotlb_cc_hit", 5, { "bus", "devfn", "high", "low", "gen" } },
    { QLOG_SLPTE, "vtd_slpte_fetch", 6, { "high", "low", "iova", "level", "addr", "slpte" } },
};

#define X 0x80
/* Value of a hex digit, 0x80 for any other byte. */
static const uint8_t digit_of[256] = {
    X, X, X, X, X, X, X, X,  X,  X,  X,  X,  X,  X,  X,  X,  X, X, X, X, X, X, X, X, X, X, X, X, X,
    X, X, X, X, X, X, X, X,  X,  X,  X,  X,  X,  X,  X,  X,  X, X, X, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
    X, X, X, X, X, X, X, 10, 11, 12, 13, 14, 15, X,  X,  X,  X, X, X, X, X, X, X, X, X, X, X, X, X,
    X, X, X, X, X, X, X, X,  X,  X,  10, 11, 12, 13, 14, 15, X, X, X, X, X, X, X, X, X, X, X, X, X,
    X, X, X, X, X, X, X, X,  X,  X,  X,  X,  X,  X,  X,  X,  X, X, X, X, X, X, X, X, X, X, X, X, X,
    X, X, X, X, X, X, X, X,  X,  X,  X,  X,  X,  X,  X,  X,  X, X, X, X, X, X, X, X, X, X, X, X, X,
    X, X, X, X, X, X, X, X,  X,  X,  X,  X,  X,  X,  X,  X,  X, X, X, X, X, X, X, X, X, X, X, X, X,
    X, X, X, X, X, X, X, X,  X,  X,  X,  X,  X,  X,  X,  X,  X, X, X, X, X, X, X, X, X, X, X, X, X,
    X, X, X, X, X, X, X, X,  X,  X,  X,  X,  X,  X,  X,  X,  X, X, X, X, X, X, X, X,
};
#undef X

static bool is_white(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

struct value {
    const char *p, *end; /* its digits */
};

/* The chain of a pattern starting at p; returns its end or NULL. */
static const char *chain_at(const struct pattern *pat, const char *p, const char *end,
                            struct value *v)
{
    for (unsigned i = 0; i < pat->n; i++) {
        size_t len = strlen(pat->names[i]);
        if (i) {
            const char *w = p;
            while (p < end && is_white(*p))
                p++;
            if (p == w)
                return NULL;
        }
        if ((size_t)(end - p) < len || memcmp(p, pat->names[i], len) != 0)
            return NULL;
        p += len;
        const char *w = p;
        while (p < end && is_white(*p))
            p++;
        if (p == w)
            return NULL;
        if (strcmp(pat->names[i], "gen") != 0) {
            if (end - p < 2 || p[0] != '0' || p[1] != 'x')
                return NULL;
            p += 2;
        }
        v[i].p = p;
        while (p < end && digit_of[(uint8_t)*p] < 16)
            p++;
        v[i].end = p;
        if (v[i].p == p)
            return NULL;
    }
    return p;
}

/* The rightmost complete chain that starts at lo or later; bytes outside it may be anything but CR.
 */
static bool find_chain(const struct pattern *pat, const char *lo, const char *line, const char *end,
                       struct value *v)
{
    size_t n = (size_t)(end - line);
    const char *cr_first = memchr(line, '\r', n);
    const char *cr_last = cr_first ? memrchr(line, '\r', n) : NULL;
    const char *hi = cr_first ? cr_first : end; /* a chain starts before this */
    while (hi > lo) {
        const char *p = memrchr(lo, pat->names[0][0], (size_t)(hi - lo));
        if (!p)
            return false;
        const char *q = chain_at(pat, p, end, v);
        if (q && (!cr_last || q > cr_last))
            return true;
        hi = p;
    }
    return false;
}

static bool value_of(struct value v, bool decimal, uint64_t *ret)
{
    uint64_t x = 0;
    for (const char *p = v.p; p < v.end; p++) {
        uint8_t d = digit_of[(uint8_t)*p];
        if (decimal) {
            if (d > 9 || __builtin_mul_overflow(x, 10, &x) || __builtin_add_overflow(x, d, &x))
                return false;
        } else {
            if (x >> 60)
                return false;
            x = x << 4 | d;
        }
    }
    *ret = x;
    return true;
}

static bool sid_ok(const struct qlog_rules *r, uint64_t sid)
{
    sid &= 0xffff;
    return !r->valid_sid || (r->valid_sid[sid >> 3] >> (sid & 7) & 1);
}

static const char too_wide[] = "a value has more than 64 bits";
static const char too_long[] = "longer than 64 MiB";

enum qlog_kind qlog_line(const char *p, size_t n, const struct qlog_rules *r, struct qlog_event *ev,
                         const char **reason)
{
    *reason = NULL;
    if (r->crlf && n && p[n - 1] == '\r')
        n--;
    const char *first = memmem(p, n, "vtd_", 4), *end = p + n;
    bool translation = true;
    if (!first)
        return QLOG_OTHER;
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        const struct pattern *pat = &patterns[i];
        if (pat->kind == QLOG_CC_HIT && !r->cc_hit)
            continue;
        if (!translation && pat->kind <= QLOG_HIT)
            continue;
        size_t len = strlen(pat->keyword);
        const char *key = memmem(first, (size_t)(end - first), pat->keyword, len);
        struct value v[6];
        if (!key || !find_chain(pat, key + len, p, end, v))
            continue;
        if (pat->kind <= QLOG_HIT) {
            if (!value_of(v[0], false, &ev->v[0])) {
                *reason = too_wide;
                return QLOG_OTHER;
            }
            if (!sid_ok(r, ev->v[0])) {
                translation = false;
                continue;
            }
        }
        bool context = pat->kind == QLOG_CC_UPDATE || pat->kind == QLOG_CC_HIT, counts = true;
        for (unsigned k = 0; k < pat->n && counts; k++) {
            bool gen = k == 4 && context;
            if (!value_of(v[k], gen && r->gen_decimal, &ev->v[k])) {
                *reason = gen && r->gen_decimal ? "gen is no decimal number" : too_wide;
                return QLOG_OTHER;
            }
            /* what is wrong with the other values of a foreign device does not matter */
            if (k == 1 && context)
                counts = sid_ok(r, (ev->cc.bus & 0xffff) << 8 | (ev->cc.devfn & 0xffff));
        }
        if (!counts)
            continue;
        if (pat->kind == QLOG_CC_UPDATE) {
            static const char arrow[] = " -> gen ";
            struct value after = { .p = v[4].end + sizeof(arrow) - 1 };
            ev->cc.gen_after = ev->cc.gen;
            if ((size_t)(end - v[4].end) >= sizeof(arrow) &&
                !memcmp(v[4].end, arrow, sizeof(arrow) - 1)) {
                for (after.end = after.p; after.end < end && digit_of[(uint8_t)*after.end] < 16;)
                    after.end++;
                if (after.end > after.p && !value_of(after, r->gen_decimal, &ev->cc.gen_after))
                    ev->cc.gen_after = ev->cc.gen;
            }
        }
        if (pat->kind == QLOG_UPDATE && ev->update.level > 3) {
            *reason = "level above 3";
            return QLOG_OTHER;
        }
        ev->kind = pat->kind;
        return pat->kind;
    }
    return QLOG_OTHER;
}

/* ---------------------------------------------------------------- the short cut */

/* Hex digits at *p (16 at most, 1 at least); moves *p behind them. Byte by byte on purpose: the lengths repeat from line
 * to line, so the branches are predicted and nothing waits for where a field ends; 16 bytes at once with SSE2 took half
 * as long again (65 against 43 ns a line). */
static inline bool hex_at(const char **p, uint64_t *ret)
{
    const char *s = *p;
    uint64_t x = 0;
    uint8_t d;
    while ((d = digit_of[(uint8_t)*s]) < 16) {
        x = x << 4 | d;
        s++;
    }
    size_t n = (size_t)(s - *p);
    *p = s;
    *ret = x;
    return n - 1 < 16;
}

/* The same for an address, which mostly has 8 digits or 9: 8 at once. Which it has repeats from line to line, too. */
static inline bool address_at(const char **p, uint64_t *ret)
{
#if defined(__SSE2__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const char *s = *p;
    bool nine = s[8] != ' ';
    if (!nine || s[9] == ' ') {
        __m128i c = _mm_loadl_epi64((const __m128i *)(const void *)(s + nine));
        __m128i d = _mm_sub_epi8(c, _mm_set1_epi8('0'));
        __m128i l = _mm_sub_epi8(_mm_or_si128(c, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
        __m128i is_d = _mm_cmpeq_epi8(_mm_min_epu8(d, _mm_set1_epi8(9)), d);
        __m128i is_l = _mm_cmpeq_epi8(_mm_min_epu8(l, _mm_set1_epi8(5)), l);
        uint8_t first = nine ? digit_of[(uint8_t)*s] : 0;
        if ((_mm_movemask_epi8(_mm_or_si128(is_d, is_l)) & 0xff) == 0xff && first < 16) {
            __m128i v = _mm_or_si128(_mm_and_si128(is_d, d),
                                     _mm_andnot_si128(is_d, _mm_add_epi8(l, _mm_set1_epi8(10))));
            /* digits to bytes, bytes to 16 bits, the first the highest */
            v = _mm_or_si128(_mm_slli_epi16(v, 4), _mm_srli_epi16(v, 8));
            v = _mm_and_si128(v, _mm_set1_epi16(0xff));
            uint32_t x = (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(v, v));
            *ret = (uint64_t)first << 32 | __builtin_bswap32(x);
            *p = s + 8 + nine;
            return true;
        }
    }
#endif
    return hex_at(p, ret);
}

/* The same for a page mask, which is nearly always one of two. */
static inline bool mask_at(const char **p, uint64_t *ret)
{
    if ((*p)[16] == ' ') {
        if (!memcmp(*p, "fffffffffffff000", 16)) {
            *p += 16;
            *ret = ~UINT64_C(0xfff);
            return true;
        }
        if (!memcmp(*p, "ffffffffffe00000", 16)) {
            *p += 16;
            *ret = ~UINT64_C(0x1fffff);
            return true;
        }
    }
    return hex_at(p, ret);
}

#ifdef __SSE2__
/* n, but taken from the last line where it was the same: the processor then goes on along a predicted branch and need
 * not wait until this field's end is known to look at the next. */
static inline unsigned guessed(unsigned n, uint8_t *usual)
{
    unsigned guess = *usual;
    if (__builtin_expect(guess != n, 0)) {
        *usual = (uint8_t)n;
        guess = n;
    }
    __asm__("" : "+r"(guess)); /* or the compiler sees that it equals n */
    return guess;
}

/* Past pid@sec.usec: -- bytes that no keyword, LF or CR has. */
static inline const char *behind_prefix(const char *p, uint8_t usual[2])
{
    uint8_t *last = usual + 1;
    for (;;) {
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i d = _mm_sub_epi8(c, _mm_set1_epi8('.'));
        __m128i in = _mm_cmpeq_epi8(_mm_min_epu8(d, _mm_set1_epi8(':' - '.')), d);
        in = _mm_or_si128(in, _mm_cmpeq_epi8(c, _mm_set1_epi8('@')));
        unsigned n = (unsigned)__builtin_ctz(~(unsigned)_mm_movemask_epi8(in));
        n = guessed(n, usual);
        p += n;
        if (n < 16)
            return p;
        usual += usual != last;
    }
}
#else
static inline const char *behind_prefix(const char *p, uint8_t *usual)
{
    (void)usual;
    while ((uint8_t)(*p - '.') <= ':' - '.' || *p == '@')
        p++;
    return p;
}
#endif

/* Lengths in the last line. */
struct usual {
    uint8_t prefix[2];
};

#define SKIP(text)                                                                                 \
    do {                                                                                           \
        if (memcmp(p, text, sizeof(text) - 1) != 0)                                                \
            return NULL;                                                                           \
        p += sizeof(text) - 1;                                                                     \
    } while (0)
#define ADDRESS(i)                                                                                 \
    do {                                                                                           \
        if (!address_at(&p, &ev->v[i]))                                                            \
            return NULL;                                                                           \
    } while (0)
#define HEX(i)                                                                                     \
    do {                                                                                           \
        if (!hex_at(&p, &ev->v[i]))                                                                \
            return NULL;                                                                           \
    } while (0)

/* A line of the usual spelling, to its LF: returns the LF, or NULL for "ask the general matcher".
 * PAD bytes behind the text are readable, so nothing here checks for its end: no fixed text holds a
 * 0. */
static inline const char *usual_line(const char *p, const struct qlog_rules *r,
                                     struct qlog_event *ev, struct usual *u)
{
    p = behind_prefix(p, u->prefix);
    if (!memcmp(p, "vtd_iotlb_page_hit IOTLB page hit sid 0x", 40)) {
        p += 40;
        HEX(0);
        SKIP(" iova 0x");
        ADDRESS(1);
        SKIP(" pmask 0x");
        if (!mask_at(&p, &ev->hit.pmask))
            return NULL;
        SKIP(" slpte 0x");
        ADDRESS(3);
        SKIP(" domain 0x");
        HEX(4);
        if (*p != '\n')
            return NULL;
        ev->kind = sid_ok(r, ev->v[0]) ? QLOG_HIT : QLOG_OTHER;
        return p;
    }
    if (!memcmp(p, "vtd_slpte_fetch SLPTE fetch: high 0x", 36)) {
        p += 36;
        HEX(0);
        SKIP(" low 0x");
        ADDRESS(1);
        SKIP(" iova 0x");
        ADDRESS(2);
        SKIP(" level 0x");
        HEX(3);
        SKIP(" addr 0x");
        ADDRESS(4);
        SKIP(" slpte 0x");
        HEX(5);
        if (*p != '\n')
            return NULL;
        ev->kind = QLOG_SLPTE;
        return p;
    }
    if (!memcmp(p, "vtd_iotlb_page_update IOTLB page update sid 0x", 46)) {
        p += 46;
        HEX(0);
        SKIP(" iova 0x");
        ADDRESS(1);
        SKIP(" slpte 0x");
        ADDRESS(2);
        SKIP(" level 0x");
        HEX(3);
        SKIP(" domain 0x");
        HEX(4);
        if (*p != '\n' || ev->v[3] > 3)
            return NULL;
        ev->kind = sid_ok(r, ev->v[0]) ? QLOG_UPDATE : QLOG_OTHER;
        return p;
    }
    if (!r->cc_hit && !memcmp(p, "vtd_iotlb_cc_hit IOTLB context hit bus 0x", 41)) {
        p += 41;
        HEX(0);
        SKIP(" devfn 0x");
        HEX(1);
        SKIP(" high 0x");
        HEX(2);
        SKIP(" low 0x");
        ADDRESS(3);
        SKIP(" gen ");
        HEX(4);
        if (*p != '\n')
            return NULL;
        ev->kind = QLOG_OTHER;
        return p;
    }
    return NULL;
}

/* ---------------------------------------------------------------- the reader */

struct qlog {
    struct qlog_rules rules;
    qlog_refused *cb;
    void *user;
    struct qlog_counts c;
    char *path;
    struct zio *zio;      /* for zstd; else fd, else text in memory */
    struct slog_in *slog; /* for a log file of ours: none of the above */
    struct contexts *contexts;
    uint64_t event;
    int fd;
    const char *text;
    size_t text_n;
    char *buf;       /* owned */
    size_t room;     /* bytes of buf without PAD */
    size_t pos, len; /* unread text in buf */
    struct usual usual;
    bool eof, skipping; /* skipping: inside a line that is too long */
    bool cut;           /* the last line has no end of its own */
};

static int qlog_new(const struct qlog_rules *r, size_t room, qlog_refused *cb, void *user,
                    struct qlog **ret)
{
    struct qlog *q = calloc(1, sizeof(*q));
    if (!q)
        return -ENOMEM;
    q->rules = *r;
    q->cb = cb;
    q->user = user;
    q->fd = -1;
    q->room = room;
    q->buf = malloc(q->room + PAD);
    if (!q->buf) {
        free(q);
        return -ENOMEM;
    }
    memset(q->buf, 0, PAD);
    *ret = q;
    return 0;
}

void qlog_free(struct qlog **qp)
{
    struct qlog *q = *qp;
    *qp = NULL;
    if (!q)
        return;
    zio_free(&q->zio);
    slog_close(&q->slog);
    contexts_free(&q->contexts);
    closep(&q->fd);
    free(q->path);
    free(q->buf);
    free(q);
}

int qlog_open(const char *path, const struct qlog_rules *r, qlog_refused *cb, void *user,
              struct qlog **ret, struct err *e)
{
    CLEANUP(qlog_free) struct qlog *q = NULL;
    if (qlog_new(r, BLOCK, cb, user, &q) < 0 || !(q->path = strdup(path)))
        return err_sys(e, ENOMEM, "%s", path);
    q->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (q->fd < 0)
        return err_sys(e, errno, "%s", path);
    ssize_t got = read_full(q->fd, q->buf, q->room);
    if (got < 0)
        return err_sys(e, (int)-got, "%s", path);
    /* no text begins like that, even if the rest of the name of the format is damaged */
    if (got && (uint8_t)q->buf[0] == 0x89) {
        closep(&q->fd);
        q->contexts = contexts_new();
        int s = q->contexts ? slog_open(path, &q->slog, e) : err_sys(e, ENOMEM, "%s", path);
        if (s < 0)
            return s;
    } else if (got >= 4 && !memcmp(q->buf, "\x28\xb5\x2f\xfd", 4)) {
        int s = zio_open(path, 0, &q->zio, e);
        if (s < 0)
            return s;
        closep(&q->fd);
    } else {
        q->len = (size_t)got;
    }
    memset(q->buf + q->len, 0, PAD);
    *ret = TAKE(q);
    return 0;
}

int qlog_open_text(const char *text, size_t n, const struct qlog_rules *r, qlog_refused *cb,
                   void *user, struct qlog **ret, struct err *e)
{
    struct qlog *q;
    if (qlog_new(r, n < BLOCK ? n + 1 : BLOCK, cb, user, &q) < 0)
        return err_sys(e, ENOMEM, "log");
    q->text = text;
    q->text_n = n;
    *ret = q;
    return 0;
}

const struct qlog_counts *qlog_counts(const struct qlog *q)
{
    return &q->c;
}

/* Moves the unread rest to the front and reads on behind it. At the end of the text a missing last
 * LF is added. */
static int refill(struct qlog *q, struct err *e)
{
    size_t rest = q->len - q->pos;
    memmove(q->buf, q->buf + q->pos, rest);
    q->pos = 0;
    q->len = rest;
    if (rest == q->room) {
        char *p = realloc(q->buf, 2 * q->room + PAD);
        if (!p)
            return err_sys(e, ENOMEM, "%s", q->path ? q->path : "log");
        q->buf = p;
        q->room *= 2;
    }
    size_t want = q->room - rest;
    ssize_t got;
    if (q->zio) {
        got = zio_read(q->zio, q->buf + rest, want, e);
        if (got < 0)
            return (int)got;
    } else if (q->fd >= 0) {
        got = read_full(q->fd, q->buf + rest, want);
        if (got < 0)
            return err_sys(e, (int)-got, "%s", q->path);
    } else {
        got = (ssize_t)(q->text_n < want ? q->text_n : want);
        memcpy(q->buf + rest, q->text, (size_t)got);
        q->text += got;
        q->text_n -= (size_t)got;
    }
    q->len += (size_t)got;
    if (!got) {
        q->eof = true;
        q->cut = q->len && q->buf[q->len - 1] != '\n';
        if (q->cut)
            q->buf[q->len++] = '\n';
    }
    memset(q->buf + q->len, 0, PAD);
    return 0;
}

static void refuse(struct qlog *q, const char *reason)
{
    q->c.refused++;
    if (q->cb)
        q->cb(q->user, q->c.lines, reason);
}

/* Whether the last line of a log without an end of line begins an event that it does not finish. Any device's line that is whole is
 * none of that. The reference reads on without a word. */
static bool cut_short(const struct qlog *q, const char *p, size_t n)
{
    struct qlog_rules all = q->rules;
    struct qlog_event ev;
    const char *reason;
    all.valid_sid = NULL;
    all.cc_hit = true;
    return q->rules.crlf && (memmem(p, n, "vtd_iotlb_", 10) || memmem(p, n, "vtd_slpte_", 10)) &&
           qlog_line(p, n, &all, &ev, &reason) == QLOG_OTHER;
}

/* gen as a reader of hexadecimal digits takes what QEMU prints in decimal. */
static uint64_t digits_as_hex(uint64_t v)
{
    uint64_t x = 0;
    for (unsigned shift = 0; v && shift < 64; shift += 4, v /= 10)
        x |= v % 10 << shift;
    return x;
}

/* An event of a log file as the line it stands for would give it. */
static enum qlog_kind from_event(struct qlog *q, const struct log_event *x, struct qlog_event *ev)
{
    const struct qlog_rules *r = &q->rules;
    uint64_t i = q->event++, high = 0, low = 0;
    switch (x->kind) {
    case LOG_CC_UPDATE:
    case LOG_CC_HIT:
        contexts_set(q->contexts, x);
        ev->cc.bus = x->sid >> 8;
        ev->cc.devfn = x->sid & 0xff;
        ev->cc.high = x->p[0];
        ev->cc.low = x->p[1];
        ev->cc.gen = x->p[2] & UINT32_MAX;
        ev->cc.gen_after = x->kind == LOG_CC_UPDATE ? x->p[2] >> 32 : ev->cc.gen;
        if (!r->gen_decimal) {
            ev->cc.gen = digits_as_hex(ev->cc.gen);
            ev->cc.gen_after = digits_as_hex(ev->cc.gen_after);
        }
        if (x->kind == LOG_CC_HIT && !r->cc_hit)
            return QLOG_OTHER;
        return !sid_ok(r, x->sid)      ? QLOG_OTHER
               : x->kind == LOG_CC_HIT ? QLOG_CC_HIT
                                       : QLOG_CC_UPDATE;
    case LOG_SLPTE_FETCH:
        if (!slog_walk(q->slog, i, &high, &low))
            contexts_get(q->contexts, x->sid, &high, &low);
        ev->fetch.high = high;
        ev->fetch.low = low;
        ev->fetch.iova = x->p[0];
        ev->fetch.level = x->level;
        ev->fetch.addr = x->p[2];
        ev->fetch.slpte = x->p[1];
        return QLOG_SLPTE;
    case LOG_PAGE_UPDATE:
        if (!sid_ok(r, x->sid))
            return QLOG_OTHER;
        if (x->level > 3) {
            refuse(q, "level above 3");
            return QLOG_OTHER;
        }
        ev->update.sid = x->sid;
        ev->update.iova = x->p[0];
        ev->update.slpte = x->p[1];
        ev->update.level = x->level;
        ev->update.domain = x->domain;
        return QLOG_UPDATE;
    case LOG_PAGE_HIT:
        ev->hit.sid = x->sid;
        ev->hit.iova = x->p[0];
        ev->hit.pmask = x->p[2];
        ev->hit.slpte = x->p[1];
        ev->hit.domain = x->domain;
        return sid_ok(r, x->sid) ? QLOG_HIT : QLOG_OTHER;
    default:
        return QLOG_OTHER;
    }
}

static ssize_t read_events(struct qlog *q, struct qlog_event *ev, size_t n, struct err *e)
{
    size_t k = 0;
    while (k < n) {
        struct log_event x[256];
        ssize_t got = slog_read(q->slog, x, n - k < 256 ? n - k : 256, e);
        if (got <= 0)
            return got < 0 ? got : (ssize_t)k;
        for (ssize_t i = 0; i < got; i++) {
            q->c.lines++;
            enum qlog_kind kind = from_event(q, &x[i], &ev[k]);
            ev[k].line = q->c.lines;
            ev[k].kind = kind;
            q->c.by_kind[kind]++;
            k += kind != QLOG_OTHER;
        }
    }
    return (ssize_t)k;
}

ssize_t qlog_read(struct qlog *q, struct qlog_event *ev, size_t n, struct err *e)
{
    if (q->slog)
        return read_events(q, ev, n, e);
    size_t k = 0;
    while (k < n) {
        const char *p = q->buf + q->pos, *end = q->buf + q->len;
        const char *lf = NULL;
        if (!q->skipping) {
            /* the short cut may read past the text's end, into zeros, but finds no LF there */
            lf = usual_line(p, &q->rules, &ev[k], &q->usual);
            if (lf) {
                q->pos += (size_t)(lf + 1 - p);
                q->c.lines++;
                q->c.bytes += (size_t)(lf + 1 - p);
                ev[k].line = q->c.lines;
                q->c.by_kind[ev[k].kind]++;
                k += ev[k].kind != QLOG_OTHER;
                continue;
            }
        }
        lf = memchr(p, '\n', (size_t)(end - p));
        if (!lf) {
            if (q->eof)
                break;
            if ((size_t)(end - p) > QLOG_LINE_MAX) {
                if (!q->skipping) {
                    q->c.lines++;
                    q->c.by_kind[QLOG_OTHER]++;
                    refuse(q, too_long);
                }
                q->skipping = true;
                q->c.bytes += (size_t)(end - p);
                q->pos = q->len;
            }
            int r = refill(q, e);
            if (r < 0)
                return r;
            continue;
        }
        q->pos += (size_t)(lf + 1 - p);
        q->c.bytes += (size_t)(lf + 1 - p);
        if (q->skipping) {
            q->skipping = false;
            continue;
        }
        q->c.lines++;
        const char *reason = too_long;
        enum qlog_kind kind = QLOG_OTHER;
        if ((size_t)(lf - p) <= QLOG_LINE_MAX)
            kind = qlog_line(p, (size_t)(lf - p), &q->rules, &ev[k], &reason);
        if (kind == QLOG_OTHER && !reason && q->cut && q->pos == q->len &&
            cut_short(q, p, (size_t)(lf - p)))
            reason = "the log ends within it";
        ev[k].line = q->c.lines;
        ev[k].kind = kind;
        q->c.by_kind[kind]++;
        if (reason)
            refuse(q, reason);
        k += kind != QLOG_OTHER;
    }
    return (ssize_t)k;
}
