#include "perf/logtext.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "perf/qemulog.h"
#include "proto/base/clean.h"

/* ---- contexts */

struct contexts {
    struct context {
        uint64_t high, low;
        bool known;
    } by_sid[65536];
};

struct contexts *contexts_new(void)
{
    return calloc(1, sizeof(struct contexts));
}

void contexts_free(struct contexts **c)
{
    freep(c);
}

void contexts_set(struct contexts *c, const struct log_event *ev)
{
    c->by_sid[ev->sid] = (struct context){ ev->p[0], ev->p[1], true };
}

bool contexts_get(const struct contexts *c, uint16_t sid, uint64_t *high, uint64_t *low)
{
    *high = c->by_sid[sid].high;
    *low = c->by_sid[sid].low;
    return c->by_sid[sid].known;
}

/* ---- text */

static char *word(char *p, const char *s)
{
    size_t n = strlen(s);
    memcpy(p, s, n);
    return p + n;
}

static char *hex(char *p, const char *name, uint64_t v)
{
    p = word(word(p, name), " 0x");
    unsigned digits = v ? (67 - (unsigned)__builtin_clzll(v)) / 4 : 1;
    for (unsigned i = digits; i-- > 0;)
        *p++ = "0123456789abcdef"[v >> (4 * i) & 15];
    return p;
}

size_t event_text(const struct log_event *ev, uint64_t high, uint64_t low, char *out)
{
    char *p = out;
    switch (ev->kind) {
    case LOG_CC_UPDATE:
    case LOG_CC_HIT:
        p = word(p, ev->kind == LOG_CC_HIT ? "vtd_iotlb_cc_hit IOTLB context hit"
                                           : "vtd_iotlb_cc_update IOTLB context update");
        p = hex(p, " bus", ev->sid >> 8);
        p = hex(p, " devfn", ev->sid & 0xff);
        p = hex(p, " high", ev->p[0]);
        p = hex(p, " low", ev->p[1]);
        p += sprintf(p, " gen %" PRIu32, (uint32_t)ev->p[2]);
        if (ev->kind == LOG_CC_UPDATE)
            p += sprintf(p, " -> gen %" PRIu32, (uint32_t)(ev->p[2] >> 32));
        break;
    case LOG_SLPTE_FETCH:
        p = word(p, "vtd_slpte_fetch SLPTE fetch:");
        p = hex(p, " high", high);
        p = hex(p, " low", low);
        p = hex(p, " iova", ev->p[0]);
        p = hex(p, " level", ev->level);
        p = hex(p, " addr", ev->p[2]);
        p = hex(p, " slpte", ev->p[1]);
        break;
    case LOG_PAGE_UPDATE:
        p = word(p, "vtd_iotlb_page_update IOTLB page update");
        p = hex(p, " sid", ev->sid);
        p = hex(p, " iova", ev->p[0]);
        p = hex(p, " slpte", ev->p[1]);
        p = hex(p, " level", ev->level);
        p = hex(p, " domain", ev->domain);
        break;
    case LOG_PAGE_HIT:
        p = word(p, "vtd_iotlb_page_hit IOTLB page hit");
        p = hex(p, " sid", ev->sid);
        p = hex(p, " iova", ev->p[0]);
        p = hex(p, " pmask", ev->p[2]);
        p = hex(p, " slpte", ev->p[1]);
        p = hex(p, " domain", ev->domain);
        break;
    default:
        break;
    }
    return (size_t)(p - out);
}

/* ---- import */

struct import {
    struct slog_out *out;
    struct contexts *contexts;
    uint16_t last_sid;
    /* source-id that last showed a context entry: to whom a walk belongs that does not follow its context event */
    struct owner {
        uint64_t high, low;
        uint32_t sid; /* + 1; 0 = free */
    } owners[4096];
};

static void on_refused(void *user, uint64_t line, const char *reason)
{
    struct import *im = user;
    slog_refuse(im->out, line, reason);
}

static struct owner *owner_of(struct import *im, uint64_t high, uint64_t low)
{
    uint64_t h = (high * 0x9e3779b97f4a7c15u ^ low) * 0xff51afd7ed558ccdu;
    return &im->owners[h >> 52];
}

static int import_event(struct import *im, const struct qlog_event *q, struct err *e)
{
    struct log_event ev = { 0 };
    switch (q->kind) {
    case QLOG_CC_UPDATE:
    case QLOG_CC_HIT:
        ev.kind = q->kind == QLOG_CC_HIT ? LOG_CC_HIT : LOG_CC_UPDATE;
        ev.sid = (uint16_t)(q->cc.bus << 8 | q->cc.devfn);
        ev.p[0] = q->cc.high;
        ev.p[1] = q->cc.low;
        ev.p[2] = (uint32_t)q->cc.gen;
        if (q->kind == QLOG_CC_UPDATE)
            ev.p[2] |= q->cc.gen_after << 32;
        contexts_set(im->contexts, &ev);
        *owner_of(im, ev.p[0], ev.p[1]) = (struct owner){ ev.p[0], ev.p[1], ev.sid + 1u };
        im->last_sid = ev.sid;
        break;
    case QLOG_SLPTE: {
        uint64_t high, low;
        if (q->fetch.level > UINT8_MAX) {
            slog_refuse(im->out, q->line, "level above 255");
            return 0;
        }
        ev.kind = LOG_SLPTE_FETCH;
        ev.sid = im->last_sid;
        ev.level = (uint8_t)q->fetch.level;
        ev.domain = q->fetch.high >> 8 & 0xffff;
        ev.p[0] = q->fetch.iova;
        ev.p[1] = q->fetch.slpte;
        ev.p[2] = q->fetch.addr;
        if (contexts_get(im->contexts, ev.sid, &high, &low) && high == q->fetch.high &&
            low == q->fetch.low)
            break;
        const struct owner *o = owner_of(im, q->fetch.high, q->fetch.low);
        if (o->sid && o->high == q->fetch.high && o->low == q->fetch.low) {
            ev.sid = (uint16_t)(o->sid - 1);
            contexts_get(im->contexts, ev.sid, &high, &low);
            if (high == o->high && low == o->low)
                break;
        }
        return slog_add_walk(im->out, &ev, q->fetch.high, q->fetch.low, e);
    }
    case QLOG_UPDATE:
        ev.kind = LOG_PAGE_UPDATE;
        ev.sid = (uint16_t)q->update.sid;
        ev.level = (uint8_t)q->update.level;
        ev.domain = (uint32_t)q->update.domain;
        ev.p[0] = q->update.iova;
        ev.p[1] = q->update.slpte;
        break;
    case QLOG_HIT:
        ev.kind = LOG_PAGE_HIT;
        ev.sid = (uint16_t)q->hit.sid;
        ev.domain = (uint32_t)q->hit.domain;
        ev.p[0] = q->hit.iova;
        ev.p[1] = q->hit.slpte;
        ev.p[2] = q->hit.pmask;
        break;
    default:
        return 0;
    }
    return slog_add(im->out, &ev, 1, e);
}

static int import_file(struct import *im, const char *path, struct err *e)
{
    CLEANUP(qlog_free) struct qlog *q = NULL;
    CLEANUP(slog_close) struct slog_in *made = NULL;
    /* through text it would lose times, invalidations and faults */
    if (slog_open(path, &made, NULL) == 0)
        return err_set(e, SF_EFORMAT, "%s: is a log file already, not a text log", path);
    struct qlog_rules rules = { .crlf = true, .gen_decimal = true, .cc_hit = true };
    int r = qlog_open(path, &rules, on_refused, im, &q, e);
    if (r < 0)
        return r;
    struct qlog_event ev[256];
    uint64_t events = 0;
    ssize_t n;
    while ((n = qlog_read(q, ev, ARRAY_LEN(ev), e)) > 0) {
        for (ssize_t i = 0; i < n && r == 0; i++)
            r = import_event(im, &ev[i], e);
        if (r < 0)
            return r;
        events += (uint64_t)n;
    }
    if (n < 0)
        return (int)n;
    const struct qlog_counts *c = qlog_counts(q);
    if (!c->lines)
        return err_set(e, SF_EFORMAT, "%s: the file is empty", path);
    if (!events)
        return err_set(e, SF_EFORMAT, "%s: no IOMMU event in %" PRIu64 " lines", path, c->lines);
    /* refused lines are told apart from those that are none of ours */
    slog_count_lines(im->out, c->lines, c->by_kind[QLOG_OTHER] - c->refused);
    return 0;
}

int log_import(const char *const paths[], size_t n, const char *out, bool force, struct id *ret_id,
               struct slog_info *ret_info, struct err *e)
{
    struct import *im = calloc(1, sizeof(*im));
    if (!im)
        return err_sys(e, ENOMEM, "%s", out ? out : "log");
    im->contexts = contexts_new();
    int r = im->contexts ? slog_create(out, SLOG_TEXT, force, &im->out, e)
                         : err_sys(e, ENOMEM, "%s", out ? out : "log");
    for (size_t i = 0; i < n && r == 0; i++)
        r = import_file(im, paths[i], e);
    if (r == 0)
        r = slog_end(&im->out, 0, ret_id, ret_info, e);
    slog_abort(&im->out);
    contexts_free(&im->contexts);
    free(im);
    return r;
}
