#include "proto/lib/blake.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t iv[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

static const uint8_t sigma[10][16] = {
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    { 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
    { 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 },
    { 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
    { 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 },
    { 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
    { 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 },
    { 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
    { 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 },
    { 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
};

enum { BLOCK = 128, WORDS = BLOCK / 8 };

size_t blake_blocks(size_t n)
{
    return n ? (n - 1) / BLOCK + 1 : 1;
}

typedef uint64_t v4 __attribute__((vector_size(32)));
typedef uint64_t v8 __attribute__((vector_size(64)));

#define ROTATE(x, n) (((x) >> (n)) | ((x) << (64 - (n))))

#define MIX(a, b, c, d, x, y)                                                                      \
    do {                                                                                           \
        v[a] += v[b] + (x);                                                                        \
        v[d] = ROTATE(v[d] ^ v[a], 32);                                                            \
        v[c] += v[d];                                                                              \
        v[b] = ROTATE(v[b] ^ v[c], 24);                                                            \
        v[a] += v[b] + (y);                                                                        \
        v[d] = ROTATE(v[d] ^ v[a], 16);                                                            \
        v[c] += v[d];                                                                              \
        v[b] = ROTATE(v[b] ^ v[c], 63);                                                            \
    } while (0)

/* Unrolled, so that the words stay in registers. */
#define ROUND(r)                                                                                   \
    do {                                                                                           \
        const uint8_t *s = sigma[(r) % 10];                                                        \
        MIX(0, 4, 8, 12, m[s[0]], m[s[1]]);                                                        \
        MIX(1, 5, 9, 13, m[s[2]], m[s[3]]);                                                        \
        MIX(2, 6, 10, 14, m[s[4]], m[s[5]]);                                                       \
        MIX(3, 7, 11, 15, m[s[6]], m[s[7]]);                                                       \
        MIX(0, 5, 10, 15, m[s[8]], m[s[9]]);                                                       \
        MIX(1, 6, 11, 12, m[s[10]], m[s[11]]);                                                     \
        MIX(2, 7, 8, 13, m[s[12]], m[s[13]]);                                                      \
        MIX(3, 4, 9, 14, m[s[14]], m[s[15]]);                                                      \
    } while (0)

struct messages {
    const uint8_t *p[BLAKE_LANES];    /* all blocks but the last one */
    uint64_t n[BLAKE_LANES];          /* bytes of the whole */
    size_t blocks;                    /* of each */
    uint8_t last[BLAKE_LANES][BLOCK]; /* filled up with zeros */
};

/* One function a width and instruction set: a vector of 64-bit words holds the same word of each message. The first word
 * of the state takes the parameters: 32 bytes of digest, no key, no tree. */
#define LANES(name, vec, isa)                                                                      \
    __attribute__((target(isa))) static void name(const struct messages *in, uint8_t(*out)[32])    \
    {                                                                                              \
        const vec zero = { 0 };                                                                    \
        vec h[8], v[16], m[WORDS], n;                                                              \
        for (int i = 0; i < 8; i++)                                                                \
            h[i] = zero + iv[i];                                                                   \
        h[0] ^= zero + 0x01010020;                                                                 \
        for (size_t l = 0; l < sizeof(vec) / 8; l++)                                               \
            n[l] = in->n[l];                                                                       \
        for (size_t b = 0; b < in->blocks; b++) {                                                  \
            bool last = b + 1 == in->blocks;                                                       \
            for (int i = 0; i < WORDS; i++)                                                        \
                for (size_t l = 0; l < sizeof(vec) / 8; l++) {                                     \
                    uint64_t word; /* little endian, as the vectors of these machines */           \
                    memcpy(&word, (last ? in->last[l] : in->p[l] + b * BLOCK) + 8 * i, 8);         \
                    m[i][l] = word;                                                                \
                }                                                                                  \
            for (int i = 0; i < 8; i++) {                                                          \
                v[i] = h[i];                                                                       \
                v[i + 8] = zero + iv[i];                                                           \
            }                                                                                      \
            v[12] ^= last ? n : zero + (uint64_t)((b + 1) * BLOCK);                                \
            v[14] ^= zero + (last ? UINT64_MAX : 0);                                               \
            ROUND(0);                                                                              \
            ROUND(1);                                                                              \
            ROUND(2);                                                                              \
            ROUND(3);                                                                              \
            ROUND(4);                                                                              \
            ROUND(5);                                                                              \
            ROUND(6);                                                                              \
            ROUND(7);                                                                              \
            ROUND(8);                                                                              \
            ROUND(9);                                                                              \
            ROUND(10);                                                                             \
            ROUND(11);                                                                             \
            for (int i = 0; i < 8; i++)                                                            \
                h[i] ^= v[i] ^ v[i + 8];                                                           \
        }                                                                                          \
        for (size_t l = 0; l < sizeof(vec) / 8; l++)                                               \
            for (int i = 0; i < 4; i++) {                                                          \
                uint64_t word = h[i][l];                                                           \
                memcpy(out[l] + 8 * i, &word, 8);                                                  \
            }                                                                                      \
    }

#if defined(__x86_64__)
LANES(four_avx2, v4, "avx2")
LANES(four_avx512, v4, "avx512f,avx512vl")
LANES(eight_avx512, v8, "avx512f,avx512vl")

/* 2 = AVX-512, 1 = AVX2, 0. Another value of SIOFLEET_ISA is refused where it is read first. */
static int isa(void)
{
    const char *want = getenv("SIOFLEET_ISA");
    int most = !want || strcmp(want, "scalar") ? 2 : 0;
    if (want && !strcmp(want, "avx2"))
        most = 1;
    if (most && __builtin_cpu_supports("avx2"))
        return most == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
                   ? 2
                   : 1;
    return 0;
}

size_t blake_width(void)
{
    static const size_t width[] = { 1, 4, 8 };
    return width[isa()];
}

void blake_lanes(const uint8_t *const p[], const size_t n[], size_t count, uint8_t (*out)[32])
{
    struct messages s = { .blocks = blake_blocks(n[0]) };
    uint8_t got[BLAKE_LANES][32];
    size_t whole = (s.blocks - 1) * BLOCK;
    /* lanes that are left over hash the last message again */
    for (size_t i = 0; i < BLAKE_LANES; i++) {
        size_t k = i < count ? i : count - 1;
        s.p[i] = p[k];
        s.n[i] = n[k];
        if (n[k])
            memcpy(s.last[i], p[k] + whole, n[k] - whole);
    }
    if (isa() < 2)
        four_avx2(&s, got);
    else if (count <= 4)
        four_avx512(&s, got);
    else
        eight_avx512(&s, got);
    memcpy(out, got, 32 * count);
}
#else
size_t blake_width(void)
{
    return 1;
}

void blake_lanes(const uint8_t *const p[], const size_t n[], size_t count, uint8_t (*out)[32])
{
    (void)p;
    (void)n;
    (void)count;
    (void)out;
    abort();
}
#endif
