/* The loop for any machine, and for valgrind. */
#include "perf/model.h"

static inline __attribute__((always_inline)) bool line_touch(uint32_t *line, uint32_t lanes,
                                                             uint32_t ways, uint32_t key,
                                                             bool alloc, bool *ret_evicted)
{
    uint32_t i = 0;
    (void)lanes;
    while (i < ways && line[i] != key)
        i++;
    bool found = i < ways;
    if (!found) {
        if (!alloc)
            return false;
        i = ways - 1;
        *ret_evicted = line[i] != TLB_NONE;
    }
    for (; i; i--)
        line[i] = line[i - 1];
    line[0] = key;
    return found;
}

#define LINE_TOUCH line_touch
#define MODEL_LOOP model_loop_scalar
#include "perf/model_loop.h"
