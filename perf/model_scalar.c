/* The loop for any machine, and for valgrind. */
#include "perf/model.h"

#define INLINE static inline __attribute__((always_inline))

INLINE void to_front(uint32_t *line, uint32_t i, uint32_t key)
{
    for (; i; i--)
        line[i] = line[i - 1];
    line[0] = key;
}

INLINE uint32_t find(const uint32_t *line, uint32_t ways, uint32_t key)
{
    uint32_t i = 0;
    while (i < ways && line[i] != key)
        i++;
    return i;
}

INLINE bool line_probe(uint32_t *line, uint32_t lanes, uint32_t ways, uint32_t key)
{
    uint32_t i = find(line, ways, key);
    (void)lanes;
    if (i == ways)
        return false;
    to_front(line, i, key);
    return true;
}

INLINE bool line_fill(uint32_t *line, uint32_t lanes, uint32_t ways, uint32_t key, bool *ret_fresh)
{
    uint32_t i = find(line, ways, key);
    (void)lanes;
    *ret_fresh = i == ways && line[ways - 1] == TLB_NONE;
    to_front(line, i == ways ? ways - 1 : i, key);
    return i < ways;
}

#define MODEL_LOOP model_loop_scalar
#include "perf/model_loop.h"
