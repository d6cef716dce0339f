/* The loop with AVX-512 F and VL: a line is one register. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define INLINE_512 inline __attribute__((always_inline))

/* Lanes below and including `upto` move up by one, the key becomes the first. */
static INLINE_512 void line_put(uint32_t *line, unsigned lanes, uint32_t key, uint32_t mask)
{
    if (lanes == 8) {
        __m256i v = _mm256_load_si256((const __m256i *)line);
        __m256i r = _mm256_alignr_epi32(v, _mm256_set1_epi32((int)key), 7);
        _mm256_store_si256((__m256i *)line, _mm256_mask_mov_epi32(v, (__mmask8)mask, r));
    } else {
        __m512i v = _mm512_load_si512(line);
        __m512i r = _mm512_alignr_epi32(v, _mm512_set1_epi32((int)key), 15);
        _mm512_store_si512(line, _mm512_mask_mov_epi32(v, (__mmask16)mask, r));
    }
}

static INLINE_512 uint32_t line_find(const uint32_t *line, unsigned lanes, uint32_t key)
{
    if (lanes == 8)
        return _mm256_cmpeq_epi32_mask(_mm256_load_si256((const __m256i *)line),
                                       _mm256_set1_epi32((int)key));
    return _mm512_cmpeq_epi32_mask(_mm512_load_si512(line), _mm512_set1_epi32((int)key));
}

static INLINE_512 bool line_touch(uint32_t *line, unsigned lanes, uint32_t key)
{
    uint32_t m = line_find(line, lanes, key);
    if (!m)
        return false;
    line_put(line, lanes, key, m ^ (m - 1));
    return true;
}

static INLINE_512 bool line_fill(uint32_t *line, unsigned lanes, uint32_t ways, uint32_t key,
                                 bool *full)
{
    uint32_t m = line_find(line, lanes, key);
    if (m) {
        line_put(line, lanes, key, m ^ (m - 1));
        return true;
    }
    *full = line[ways - 1] != UINT32_MAX;
    line_put(line, lanes, key, (1u << ways) - 1);
    return false;
}

#define USUAL compat_usual_avx512
#define LOOP compat_loop_avx512
#include "perf/compat/loop.h"
