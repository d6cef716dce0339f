/* The loop with AVX2: eight tags a compare. Compiled with -mavx2 -mbmi; run only where the machine has both. */
#include <immintrin.h>

#include "perf/model.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m256i *vec(uint32_t *p)
{
    return (__m256i *)(void *)p;
}

INLINE uint32_t equal(__m256i a, __m256i b)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)));
}

/* All ones in the lanes up to and including pos; none for -1. */
INLINE __m256i upto(int pos)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(pos + 1),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* v moved up by one lane, with `in` in lane 0 */
INLINE __m256i up1(__m256i v, __m256i in)
{
    return _mm256_blend_epi32(
        _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6)), in, 1);
}

/* The tags up to pos move up by one and k becomes the first; b: the upper half, unused with 8 lanes. */
INLINE void move(uint32_t *line, uint32_t lanes, __m256i k, __m256i a, __m256i b, int pos)
{
    _mm256_store_si256(vec(line), _mm256_blendv_epi8(a, up1(a, k), upto(pos)));
    if (lanes == 8)
        return;
    __m256i top = _mm256_permutevar8x32_epi32(a, _mm256_set1_epi32(7));
    _mm256_store_si256(vec(line + 8), _mm256_blendv_epi8(b, up1(b, top), upto(pos - 8)));
}

INLINE bool line_probe(uint32_t *line, uint32_t lanes, uint32_t ways, uint32_t key)
{
    __m256i k = _mm256_set1_epi32((int)key), a = _mm256_load_si256(vec(line)), b = a;
    uint32_t m = equal(a, k);
    (void)ways;
    if (lanes != 8) {
        b = _mm256_load_si256(vec(line + 8));
        m |= equal(b, k) << 8;
    }
    if (!m)
        return false;
    move(line, lanes, k, a, b, (int)_tzcnt_u32(m));
    return true;
}

INLINE bool line_fill(uint32_t *line, uint32_t lanes, uint32_t ways, uint32_t key, bool *ret_fresh)
{
    __m256i k = _mm256_set1_epi32((int)key), a = _mm256_load_si256(vec(line)), b = a;
    uint32_t m = equal(a, k);
    if (lanes != 8) {
        b = _mm256_load_si256(vec(line + 8));
        m |= equal(b, k) << 8;
    }
    *ret_fresh = !m & (line[ways - 1] == TLB_NONE);
    move(line, lanes, k, a, b, (int)_tzcnt_u32(m | 1u << (ways - 1)));
    return m;
}

#define MODEL_LOOP model_loop_avx2
#include "perf/model_loop.h"
