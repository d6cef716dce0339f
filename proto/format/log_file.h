/* Inside of a log file's writer (log_save.c) and reader (log_load.c); nothing else includes this. The file: README.md. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "proto/format/frame.h"
#include "proto/format/log.h"

extern const struct frame_kind slog_kind;

enum { FRAME_EVENTS = 1 << 18, LEVEL = 3, LEVEL_TIMES = 1 };

/* Sections of a frame, in this order, then walks and the summary at the end of the file. */
enum { SEC_TURNS = 1, SEC_OPS, SEC_P0, SEC_P1, SEC_P2, SEC_REST, SEC_TIMES, SEC_WALKS, SEC_INFO };
enum { COLUMNS = SEC_TIMES };

/* A context entry that an event's walk began with, where it is not the device's last one. event: its number in the log. */
struct walk {
    uint64_t event, high, low;
};

/* ---- what context foretells
 *
 * Writer and reader keep the same state, so both know the same guess; the writer says which fields differ from it.
 */

/* What a page or a table entry held last: direct-mapped, forgets. */
enum { MEMO = 1 << 15 };
struct memo {
    uint64_t key, value;
};

struct device {
    uint64_t high, low, gen;
    uint64_t iova[3]; /* last walk, last hit, anything else */
    uint64_t base[8]; /* last table by level */
    uint64_t slpte, mask, leaf;
    uint64_t p1[LOG_KINDS], p2[LOG_KINDS];
    uint32_t domain;
    uint8_t level[LOG_KINDS], before; /* kind of the device's event before */
    uint8_t top;
};

static inline uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

static inline uint64_t page_key(const struct log_event *ev, uint64_t mask)
{
    return mix((ev->p[0] & mask) ^ (uint64_t)ev->sid << 1 ^ 1);
}

static inline uint64_t slot_key(const struct log_event *ev)
{
    unsigned shift = ((ev->level - 1u) & 7) * 9 + 12;
    return mix((ev->p[2] + 8 * (ev->p[0] >> (shift & 63) & 511)) << 1);
}

static inline uint64_t recall(const struct memo *m, uint64_t key, uint64_t otherwise)
{
    const struct memo *s = &m[key >> 40 & (MEMO - 1)];
    return s->key == key ? s->value : otherwise;
}

static inline void remember(struct memo *m, uint64_t key, uint64_t value)
{
    m[key >> 40 & (MEMO - 1)] = (struct memo){ key, value };
}

/* Guesses are made field by field, each from the fields before it: level and domain, then p[0], p[2], p[1]. */
static inline uint8_t guess_level(const struct device *d, unsigned kind)
{
    if (kind == LOG_SLPTE_FETCH) {
        uint8_t last = d->level[LOG_SLPTE_FETCH];
        return d->before == LOG_SLPTE_FETCH && last > 1 ? (uint8_t)(last - 1) : d->top;
    }
    return kind == LOG_PAGE_UPDATE ? d->level[LOG_SLPTE_FETCH] : d->level[kind];
}

static inline uint32_t guess_domain(const struct device *d, unsigned kind)
{
    return kind <= LOG_CC_HIT ? 0 : d->domain;
}

static inline bool goes_on(const struct device *d, const struct log_event *ev)
{
    return d->before == LOG_SLPTE_FETCH && d->level[LOG_SLPTE_FETCH] == ev->level + 1;
}

static inline uint64_t guess_p0(const struct device *d, const struct log_event *ev)
{
    switch (ev->kind) {
    case LOG_CC_UPDATE:
    case LOG_CC_HIT:
        return d->high;
    case LOG_SLPTE_FETCH:
    case LOG_PAGE_UPDATE:
        return d->iova[0];
    case LOG_PAGE_HIT:
        return d->iova[1];
    default:
        return d->iova[2];
    }
}

static inline uint64_t guess_p2(const struct device *d, const struct log_event *ev)
{
    switch (ev->kind) {
    case LOG_CC_HIT:
        return d->gen;
    case LOG_SLPTE_FETCH:
        return goes_on(d, ev) ? d->slpte & UINT64_C(0x000ffffffffff000) : d->base[ev->level & 7];
    case LOG_PAGE_HIT:
        return d->mask;
    default:
        return d->p2[ev->kind];
    }
}

static inline uint64_t guess_p1(const struct device *d, const struct memo *m,
                                const struct log_event *ev)
{
    switch (ev->kind) {
    case LOG_CC_UPDATE:
    case LOG_CC_HIT:
        return d->low;
    case LOG_SLPTE_FETCH:
        return recall(m, slot_key(ev), d->leaf);
    case LOG_PAGE_UPDATE:
        return d->slpte;
    case LOG_PAGE_HIT:
        return recall(m, page_key(ev, ev->p[2]), d->leaf);
    default:
        return d->p1[ev->kind];
    }
}

static inline void learn(struct device *d, struct memo *m, const struct log_event *ev)
{
    switch (ev->kind) {
    case LOG_CC_UPDATE:
        d->high = ev->p[0];
        d->low = ev->p[1];
        d->gen = ev->p[2] >> 32;
        break;
    case LOG_CC_HIT:
        d->high = ev->p[0];
        d->low = ev->p[1];
        d->gen = ev->p[2];
        break;
    case LOG_SLPTE_FETCH:
        if (d->before != LOG_SLPTE_FETCH)
            d->top = ev->level;
        d->iova[0] = ev->p[0];
        d->slpte = ev->p[1];
        d->base[ev->level & 7] = ev->p[2];
        if (ev->level == 1)
            d->leaf = ev->p[1];
        remember(m, slot_key(ev), ev->p[1]);
        break;
    case LOG_PAGE_UPDATE:
        d->iova[0] = ev->p[0];
        d->leaf = ev->p[1];
        remember(m,
                 page_key(ev, ~UINT64_C(0)
                                  << (ev->level >= 1 && ev->level <= 5 ? 3 + 9 * ev->level : 12)),
                 ev->p[1]);
        break;
    case LOG_PAGE_HIT:
        d->iova[1] = ev->p[0];
        d->mask = ev->p[2];
        remember(m, page_key(ev, ev->p[2]), ev->p[1]);
        break;
    default:
        d->iova[2] = ev->p[0];
        break;
    }
    d->p1[ev->kind] = ev->p[1];
    d->p2[ev->kind] = ev->p[2];
    if (ev->kind > LOG_CC_HIT)
        d->domain = ev->domain;
    d->level[ev->kind] = ev->level;
    d->before = ev->kind;
}

static inline void fresh(struct device *d)
{
    *d = (struct device){ .top = 3, .mask = ~UINT64_C(0xfff), .low = 1 };
}

/* Op byte: kind - 1 in the low bits, then what differs from its guess. */
enum { OP_KIND = 7, OP_REST = 1 << 3, OP_P0 = 1 << 4, OP_P1 = 1 << 5, OP_P2 = 1 << 6 };
