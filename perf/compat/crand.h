/* The C library's default rand() as a value: additive feedback over 31 words, seeded by the Lehmer
 * generator 16807 (glibc's TYPE_3). Own state, so that runs on several threads do not disturb each
 * other. */
#pragma once
#include <stdint.h>

struct crand {
    uint32_t r[31];
    unsigned i;
};

static inline uint32_t crand_next(struct crand *c)
{
    unsigned i = c->i;
    uint32_t v = c->r[i] += c->r[i < 3 ? i + 28 : i - 3];
    c->i = i == 30 ? 0 : i + 1;
    return v >> 1;
}

static inline void crand_seed(struct crand *c, uint32_t seed)
{
    int64_t v = seed ? (int32_t)seed : 1;
    c->r[0] = (uint32_t)v;
    for (int i = 1; i < 31; i++) {
        v = 16807 * v % 2147483647;
        if (v < 0)
            v += 2147483647;
        c->r[i] = (uint32_t)v;
    }
    /* word k of the sequence stands at k mod 31, word 34 is the first made by feedback */
    c->i = 3;
    for (int i = 0; i < 310; i++)
        (void)crand_next(c);
}
