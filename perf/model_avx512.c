/* The loop with AVX-512: a set of up to 16 tags is one register. Compiled with -mavx512f -mavx512vl
 * -mbmi; run only where the machine has them. */
#include <immintrin.h>

#include "perf/model.h"

static inline __attribute__((always_inline)) bool line_touch(uint32_t *line, uint32_t lanes,
                                                             uint32_t ways, uint32_t key,
                                                             bool alloc, bool *ret_evicted)
{
    uint32_t in_use = (2u << (ways - 1)) - 1, m, move;
    if (lanes == TLB_LANES / 2) {
        __m256i k = _mm256_set1_epi32((int)key),
                a = _mm256_load_si256((const __m256i *)(const void *)line);
        m = _mm256_cmpeq_epi32_mask(a, k);
        if (!m) {
            if (!alloc)
                return false;
            *ret_evicted = line[ways - 1] != TLB_NONE;
        }
        move = _blsmsk_u32(m) & in_use; /* the lanes up to the key's, or all */
        _mm256_store_si256((__m256i *)(void *)line,
                           _mm256_mask_alignr_epi32(a, (__mmask8)move, a, k, 7));
        return m;
    }
    __m512i k = _mm512_set1_epi32((int)key), a = _mm512_load_si512(line);
    m = _mm512_cmpeq_epi32_mask(a, k);
    if (!m) {
        if (!alloc)
            return false;
        *ret_evicted = line[ways - 1] != TLB_NONE;
    }
    move = _blsmsk_u32(m) & in_use;
    _mm512_store_si512(line, _mm512_mask_alignr_epi32(a, (__mmask16)move, a, k, 15));
    return m;
}

#define LINE_TOUCH line_touch
#define MODEL_LOOP model_loop_avx512
#include "perf/model_loop.h"
