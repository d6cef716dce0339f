/* The loop with AVX2: a line is one or two registers. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define INLINE_256 inline __attribute__((always_inline))

/* Ones in the lanes from `from` on: lanes 0..7 of a sliding window. */
static const int32_t window[32] = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                    0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0 };

/* The first n lanes move up by one (the n-th falls out), the key becomes the first. n: 1..lanes. */
static INLINE_256 void line_put(uint32_t *line, unsigned lanes, uint32_t key, unsigned n)
{
    const __m256i up = _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6);
    __m256i v = _mm256_load_si256((const __m256i *)line);
    __m256i kv = _mm256_set1_epi32((int)key);
    __m256i r = _mm256_permutevar8x32_epi32(v, up);
    __m256i m = _mm256_loadu_si256((const __m256i *)(window + 16 - n));
    if (lanes == 16) {
        __m256i w = _mm256_load_si256((const __m256i *)(line + 8));
        __m256i q = _mm256_blend_epi32(_mm256_permutevar8x32_epi32(w, up), r, 1);
        __m256i mq = _mm256_loadu_si256((const __m256i *)(window + 24 - n));
        _mm256_store_si256((__m256i *)(line + 8), _mm256_blendv_epi8(w, q, mq));
    }
    r = _mm256_blend_epi32(r, kv, 1);
    _mm256_store_si256((__m256i *)line, _mm256_blendv_epi8(v, r, m));
}

static INLINE_256 uint32_t line_find(const uint32_t *line, unsigned lanes, uint32_t key)
{
    __m256i kv = _mm256_set1_epi32((int)key);
    __m256i a = _mm256_cmpeq_epi32(_mm256_load_si256((const __m256i *)line), kv);
    uint32_t m = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(a));
    if (lanes == 16) {
        __m256i b = _mm256_cmpeq_epi32(_mm256_load_si256((const __m256i *)(line + 8)), kv);
        m |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(b)) << 8;
    }
    return m;
}

static INLINE_256 bool line_touch(uint32_t *line, unsigned lanes, uint32_t key)
{
    uint32_t m = line_find(line, lanes, key);
    if (!m)
        return false;
    line_put(line, lanes, key, (unsigned)__builtin_ctz(m) + 1);
    return true;
}

static INLINE_256 bool line_fill(uint32_t *line, unsigned lanes, uint32_t ways, uint32_t key,
                                 bool *full)
{
    uint32_t m = line_find(line, lanes, key);
    if (m) {
        line_put(line, lanes, key, (unsigned)__builtin_ctz(m) + 1);
        return true;
    }
    *full = line[ways - 1] != UINT32_MAX;
    line_put(line, lanes, key, ways);
    return false;
}

#define USUAL compat_usual_avx2
#define LOOP compat_loop_avx2
#include "perf/compat/loop.h"
