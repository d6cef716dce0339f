/* Per-tenant throughput and its fairness, the same arithmetic for both rule sets: integers only, so
 * that every host and every build gives the same digits. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "proto/format/row.h"

/* A translation carries a third of a 1542-byte packet with its preamble and gap: 12336 / 3 bits. */
enum { FLOW_BITS = 4112 };

/* 10^scale x bits / ps, rounded down; 0 for no time. scale 6 gives Mb/s, 9 gives kb/s. */
static inline uint64_t flow_rate(uint64_t translations, uint64_t time_ps, unsigned scale)
{
    unsigned __int128 v = (unsigned __int128)translations * FLOW_BITS;
    for (unsigned i = 0; i < scale; i++)
        v *= 10;
    return time_ps ? (uint64_t)(v / time_ps) : 0;
}

/* Sums over tenants. */
struct flow_sum {
    unsigned __int128 sum,
        squares; /* of kb/s; n * squares stays below 2^128 up to 2^28 tenants at 2^36 kb/s */
    uint64_t n, min_kbps, max_kbps;
};

static inline void flow_add(struct flow_sum *s, uint64_t translations, uint64_t time_ps)
{
    uint64_t r = flow_rate(translations, time_ps, 9);
    s->min_kbps = s->n && s->min_kbps < r ? s->min_kbps : r;
    s->max_kbps = s->n && s->max_kbps > r ? s->max_kbps : r;
    s->sum += r;
    s->squares += (unsigned __int128)r * r;
    s->n++;
}

/* Jain's index (sum x)^2 / (n sum x^2) in ppm, rounded down; 0 without tenants. */
static inline void flow_end(const struct flow_sum *s, struct row_stats *ret)
{
    unsigned __int128 top = s->sum, below = s->squares * s->n;
    /* (sum x)^2 x 10^6 must fit: sums beyond 2^53 lose low bits on both sides alike */
    unsigned shift = 0;
    while ((top >> shift) >> 53)
        shift++;
    top >>= shift;
    below >>= 2 * shift;
    ret->jain_ppm = below ? (uint64_t)(top * top * 1000000u / below) : 0;
    if (ret->jain_ppm > 1000000)
        ret->jain_ppm = 1000000;
    ret->min_flow_mbps = s->min_kbps / 1000;
    ret->max_flow_mbps = s->max_kbps / 1000;
}
