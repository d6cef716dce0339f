/* The loop with AVX-512: a set of up to 16 tags is one register. Compiled with -mavx512f -mavx512vl -mbmi; run only where the
 * machine has them. */
#include <immintrin.h>

#include "perf/model.h"

#define INLINE static inline __attribute__((always_inline))

/* The lanes up to and including the key's, or all: x ^ (x - 1). The key's lane is the last that changes when it moves to
 * the front. */
INLINE bool touch(uint32_t *line, uint32_t lanes, uint32_t ways, uint32_t key, bool alloc)
{
    const uint32_t last = 1u << (ways - 1);
    uint32_t m, lane;
    if (lanes == 8) {
        __m256i k = _mm256_set1_epi32((int)key),
                a = _mm256_load_si256((const __m256i *)(const void *)line);
        m = _mm256_cmpeq_epi32_mask(a, k);
        lane = alloc ? m | last : m;
        _mm256_store_si256(
            (__m256i *)(void *)line,
            _mm256_mask_alignr_epi32(a, alloc || m ? (__mmask8)_blsmsk_u32(lane) : 0, a, k, 7));
    } else {
        __m512i k = _mm512_set1_epi32((int)key), a = _mm512_load_si512(line);
        m = _mm512_cmpeq_epi32_mask(a, k);
        lane = alloc ? m | last : m;
        _mm512_store_si512(line, _mm512_mask_alignr_epi32(
                                     a, alloc || m ? (__mmask16)_blsmsk_u32(lane) : 0, a, k, 15));
    }
    return m;
}

INLINE bool line_probe(uint32_t *line, uint32_t lanes, uint32_t ways, uint32_t key)
{
    return touch(line, lanes, ways, key, false);
}

INLINE bool line_fill(uint32_t *line, uint32_t lanes, uint32_t ways, uint32_t key, bool *ret_fresh)
{
    bool room = line[ways - 1] == TLB_NONE, found = touch(line, lanes, ways, key, true);
    *ret_fresh = room & !found;
    return found;
}

#define MODEL_LOOP model_loop_avx512
#include "perf/model_loop.h"
