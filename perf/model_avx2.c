/* The loop with AVX2: eight tags a compare. Compiled with -mavx2 -mbmi; run only where the machine
 * has both. */
#include <immintrin.h>

#include "perf/model.h"

/* All ones in the lanes up to and including pos. */
static inline __attribute__((always_inline)) __m256i upto(int pos)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(pos + 1),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* v moved up by one lane, with `in` in lane 0 */
static inline __attribute__((always_inline)) __m256i up1(__m256i v, __m256i in)
{
    return _mm256_blend_epi32(
        _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6)), in, 1);
}

static inline __attribute__((always_inline)) bool line_touch(uint32_t *line, uint32_t lanes,
                                                             uint32_t ways, uint32_t key,
                                                             bool alloc, bool *ret_evicted)
{
    __m256i k = _mm256_set1_epi32((int)key),
            a = _mm256_load_si256((const __m256i *)(const void *)line);
    uint32_t m = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, k)));
    if (lanes == TLB_LANES / 2) {
        if (!m) {
            if (!alloc)
                return false;
            *ret_evicted = line[ways - 1] != TLB_NONE;
        }
        int pos = m ? (int)_tzcnt_u32(m) : (int)ways - 1;
        _mm256_store_si256((__m256i *)(void *)line, _mm256_blendv_epi8(a, up1(a, k), upto(pos)));
        return m;
    }
    __m256i b = _mm256_load_si256((const __m256i *)(const void *)(line + 8));
    m |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(b, k))) << 8;
    if (!m) {
        if (!alloc)
            return false;
        *ret_evicted = line[ways - 1] != TLB_NONE;
    }
    int pos = m ? (int)_tzcnt_u32(m) : (int)ways - 1;
    __m256i top = _mm256_permutevar8x32_epi32(a, _mm256_set1_epi32(7));
    _mm256_store_si256((__m256i *)(void *)line, _mm256_blendv_epi8(a, up1(a, k), upto(pos)));
    _mm256_store_si256((__m256i *)(void *)(line + 8),
                       _mm256_blendv_epi8(b, up1(b, top), upto(pos - 8)));
    return m;
}

#define LINE_TOUCH line_touch
#define MODEL_LOOP model_loop_avx2
#include "perf/model_loop.h"
