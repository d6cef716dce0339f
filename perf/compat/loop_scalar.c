/* The loop for any machine, and the twin that the vector forms are compared with. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline __attribute__((always_inline)) bool line_touch(uint32_t *line, unsigned lanes,
                                                             uint32_t key)
{
    unsigned i = 0;
    while (i < lanes && line[i] != key)
        i++;
    if (i == lanes)
        return false;
    for (; i > 0; i--)
        line[i] = line[i - 1];
    line[0] = key;
    return true;
}

static inline __attribute__((always_inline)) bool line_fill(uint32_t *line, unsigned lanes,
                                                            uint32_t ways, uint32_t key, bool *full)
{
    if (line_touch(line, lanes, key))
        return true;
    *full = line[ways - 1] != UINT32_MAX;
    for (unsigned i = ways - 1; i > 0; i--)
        line[i] = line[i - 1];
    line[0] = key;
    return false;
}

#define USUAL compat_usual_scalar
#define LOOP compat_loop_scalar
#include "perf/compat/loop.h"
