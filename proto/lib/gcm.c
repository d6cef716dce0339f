#include "proto/lib/gcm.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

enum {
    ROUNDS = 14,
    BLOCK = 16,
    WIDE = 4,                 /* vectors at a time; */
    STEP = WIDE * 4 * BLOCK,  /* their bytes */
    CPU_VAES = 1 << 9,        /* cpuid 7, ecx */
    CPU_VPCLMULQDQ = 1 << 10, /* as well */
};

#define ISA __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmul")))
#define INLINE __attribute__((always_inline)) static inline
/* so that the vectors stay in registers, whatever the level of optimisation */
#define UNROLL _Pragma("GCC unroll 16")

bool gcm_has(void)
{
    unsigned a, b, c = 0, d;
    const char *want = getenv("SIOFLEET_ISA");
    if (want && strcmp(want, "avx512"))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & CPU_VAES) && (c & CPU_VPCLMULQDQ) &&
           __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
}

/* ---- one block */

ISA INLINE __m128i load(const void *p)
{
    return _mm_loadu_si128(p);
}

/* The bytes of a block the other way round: the hash counts its bits from the other end. */
ISA INLINE __m128i turn(__m128i x)
{
    return _mm_shuffle_epi8(x, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

ISA INLINE __m128i encrypt(const struct gcm *g, __m128i x)
{
    x = _mm_xor_si128(x, load(g->round[0]));
    for (int i = 1; i < ROUNDS; i++)
        x = _mm_aesenc_si128(x, load(g->round[i]));
    return _mm_aesenclast_si128(x, load(g->round[ROUNDS]));
}

/* x^128 = x^7 + x^2 + x + 1, turned. */
ISA INLINE __m128i modulus(void)
{
    return _mm_set_epi64x((long long)0xc200000000000000, 1);
}

/* a * b of the field, where b is a power of the hash key as it stands in struct gcm: times x, which
 * saves to shift each product by a bit. */
ISA INLINE __m128i multiply(__m128i a, __m128i b)
{
    __m128i lo = _mm_clmulepi64_si128(a, b, 0x00), hi = _mm_clmulepi64_si128(a, b, 0x11);
    __m128i mid = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    mid = _mm_xor_si128(
        mid, _mm_xor_si128(_mm_shuffle_epi32(lo, 0x4e), _mm_clmulepi64_si128(modulus(), lo, 0x01)));
    return _mm_xor_si128(hi, _mm_xor_si128(_mm_shuffle_epi32(mid, 0x4e),
                                           _mm_clmulepi64_si128(modulus(), mid, 0x01)));
}

/* ---- four blocks a vector */

ISA INLINE __m512i four(const void *p)
{
    return _mm512_broadcast_i32x4(load(p));
}

ISA INLINE __m512i turn4(__m512i x)
{
    return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                                                                      10, 11, 12, 13, 14, 15)));
}

/* As multiply(), of WIDE vectors with the 16 powers, and the sum of all blocks. */
ISA INLINE __m128i multiply_all(const struct gcm *g, const __m512i a[WIDE])
{
    __m512i lo = _mm512_setzero_si512(), mid = lo, hi = lo;
    __m512i mod = _mm512_broadcast_i32x4(modulus());
    UNROLL
    for (int i = 0; i < WIDE; i++) {
        __m512i b = _mm512_loadu_si512(g->power[4 * i]);
        lo = _mm512_xor_si512(lo, _mm512_clmulepi64_epi128(a[i], b, 0x00));
        hi = _mm512_xor_si512(hi, _mm512_clmulepi64_epi128(a[i], b, 0x11));
        mid = _mm512_ternarylogic_epi64(mid, _mm512_clmulepi64_epi128(a[i], b, 0x01),
                                        _mm512_clmulepi64_epi128(a[i], b, 0x10), 0x96);
    }
    mid = _mm512_ternarylogic_epi64(mid, _mm512_shuffle_epi32(lo, _MM_PERM_BADC),
                                    _mm512_clmulepi64_epi128(mod, lo, 0x01), 0x96);
    hi = _mm512_ternarylogic_epi64(hi, _mm512_shuffle_epi32(mid, _MM_PERM_BADC),
                                   _mm512_clmulepi64_epi128(mod, mid, 0x01), 0x96);
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(hi), _mm512_extracti64x4_epi64(hi, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* ---- the whole */

ISA static void init(struct gcm *g, const uint8_t key[GCM_KEY])
{
    __m128i k[ROUNDS + 1] = { load(key), load(key + BLOCK) };
#define EXPAND(i, rcon)                                                                            \
    do {                                                                                           \
        __m128i t = k[(i)-2];                                                                      \
        __m128i w = (i) % 2 ? _mm_shuffle_epi32(_mm_aeskeygenassist_si128(k[(i)-1], 0), 0xaa)      \
                            : _mm_shuffle_epi32(_mm_aeskeygenassist_si128(k[(i)-1], rcon), 0xff);  \
        t = _mm_xor_si128(t, _mm_slli_si128(t, 4));                                                \
        t = _mm_xor_si128(t, _mm_slli_si128(t, 8));                                                \
        k[i] = _mm_xor_si128(t, w);                                                                \
    } while (0)
    EXPAND(2, 1);
    EXPAND(3, 0);
    EXPAND(4, 2);
    EXPAND(5, 0);
    EXPAND(6, 4);
    EXPAND(7, 0);
    EXPAND(8, 8);
    EXPAND(9, 0);
    EXPAND(10, 16);
    EXPAND(11, 0);
    EXPAND(12, 32);
    EXPAND(13, 0);
    EXPAND(14, 64);
#undef EXPAND
    memcpy(g->round, k, sizeof(g->round));
    uint64_t h[2];
    __m128i hash = turn(encrypt(g, _mm_setzero_si128()));
    memcpy(h, &hash, sizeof(h));
    /* times x */
    uint64_t over = -(h[1] >> 63);
    h[1] = (h[1] << 1 | h[0] >> 63) ^ (over & 0xc200000000000000);
    h[0] = h[0] << 1 ^ (over & 1);
    __m128i first = _mm_set_epi64x((long long)h[1], (long long)h[0]), p = first;
    for (int i = 15; i >= 0; i--) {
        memcpy(g->power[i], &p, BLOCK);
        p = multiply(p, first);
    }
}

/* Both directions; the hash is of what is sealed. */
ISA INLINE void work(const struct gcm *g, const uint8_t nonce[GCM_NONCE], const uint8_t *p,
                     size_t n, uint8_t *out, uint8_t *tag, bool seals)
{
    uint8_t first[BLOCK] = { 0 };
    memcpy(first, nonce, GCM_NONCE);
    first[BLOCK - 1] = 1;
    /* turned, the counter is the lowest word */
    __m128i count = turn(load(first)), sum = _mm_setzero_si128();
    __m128i one = _mm_set_epi32(0, 0, 0, 1);
    __m128i mask = encrypt(g, load(first));
    uint64_t bits = (uint64_t)n * 8;
    count = _mm_add_epi32(count, one);
    if (n >= STEP) {
        __m512i counts =
            _mm512_add_epi32(_mm512_broadcast_i32x4(count),
                             _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0));
        __m512i by4 = _mm512_broadcast_i32x4(_mm_set_epi32(0, 0, 0, 4));
        __m512i k[ROUNDS + 1];
        UNROLL
        for (int i = 0; i <= ROUNDS; i++)
            k[i] = four(g->round[i]);
        for (; n >= STEP; n -= STEP, p += STEP, out += STEP) {
            __m512i x[WIDE], hashed[WIDE];
            UNROLL
            for (int i = 0; i < WIDE; i++) {
                x[i] = _mm512_xor_si512(turn4(counts), k[0]);
                counts = _mm512_add_epi32(counts, by4);
            }
            UNROLL
            for (int r = 1; r < ROUNDS; r++)
                UNROLL
            for (int i = 0; i < WIDE; i++)
                x[i] = _mm512_aesenc_epi128(x[i], k[r]);
            UNROLL
            for (int i = 0; i < WIDE; i++) {
                __m512i in = _mm512_loadu_si512(p + 64 * i);
                /* the last round's xor takes the bytes with it */
                x[i] = _mm512_aesenclast_epi128(x[i], _mm512_xor_si512(k[ROUNDS], in));
                _mm512_storeu_si512(out + 64 * i, x[i]);
                hashed[i] = turn4(seals ? x[i] : in);
            }
            hashed[0] = _mm512_xor_si512(hashed[0], _mm512_zextsi128_si512(sum));
            sum = multiply_all(g, hashed);
        }
        count = _mm512_castsi512_si128(counts);
    }
    __m128i h = load(g->power[15]);
    while (n) {
        size_t m = n < BLOCK ? n : BLOCK;
        __mmask16 some = (__mmask16)((1u << m) - 1);
        __m128i in = _mm_maskz_loadu_epi8(some, p);
        __m128i x = _mm_maskz_mov_epi8(some, _mm_xor_si128(encrypt(g, turn(count)), in));
        _mm_mask_storeu_epi8(out, some, x);
        sum = multiply(_mm_xor_si128(sum, turn(seals ? x : in)), h);
        count = _mm_add_epi32(count, one);
        n -= m;
        p += m;
        out += m;
    }
    sum = multiply(_mm_xor_si128(sum, _mm_set_epi64x(0, (long long)bits)), h);
    _mm_storeu_si128((__m128i *)tag, _mm_xor_si128(turn(sum), mask));
}

ISA static void seal(const struct gcm *g, const uint8_t nonce[GCM_NONCE], const uint8_t *p,
                     size_t n, uint8_t *out, uint8_t *tag)
{
    work(g, nonce, p, n, out, tag, true);
}

ISA static void open_(const struct gcm *g, const uint8_t nonce[GCM_NONCE], const uint8_t *p,
                      size_t n, uint8_t *out, uint8_t *tag)
{
    work(g, nonce, p, n, out, tag, false);
}
#else
bool gcm_has(void)
{
    return false;
}

static void init(struct gcm *g, const uint8_t key[GCM_KEY])
{
    (void)g;
    (void)key;
    abort();
}

static void seal(const struct gcm *g, const uint8_t nonce[GCM_NONCE], const uint8_t *p, size_t n,
                 uint8_t *out, uint8_t *tag)
{
    (void)g;
    (void)nonce;
    (void)p;
    (void)n;
    (void)out;
    (void)tag;
    abort();
}
#define open_ seal
#endif

void gcm_init(struct gcm *g, const uint8_t key[GCM_KEY])
{
    init(g, key);
}

void gcm_seal(const struct gcm *g, const uint8_t nonce[GCM_NONCE], const uint8_t *p, size_t n,
              uint8_t *out, uint8_t *tag)
{
    seal(g, nonce, p, n, out, tag);
}

bool gcm_open(const struct gcm *g, const uint8_t nonce[GCM_NONCE], const uint8_t *p, size_t n,
              uint8_t *out, const uint8_t *tag)
{
    uint8_t is[GCM_TAG], differ = 0;
    open_(g, nonce, p, n, out, is);
    for (size_t i = 0; i < GCM_TAG; i++)
        differ |= is[i] ^ tag[i];
    return !differ;
}
