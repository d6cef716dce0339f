#include "proto/base/big.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { HUGE_B = 2 << 20, LEAST_B = 1 << 20 };

void *big_alloc(size_t n)
{
    if (n < LEAST_B || n > SIZE_MAX - HUGE_B)
        return malloc(n);
    n = (n + HUGE_B - 1) & ~(size_t)(HUGE_B - 1);
    void *p = aligned_alloc(HUGE_B, n);
    if (p)
        madvise(p, n, MADV_HUGEPAGE); /* a wish; refused where the kernel has none */
    return p;
}
