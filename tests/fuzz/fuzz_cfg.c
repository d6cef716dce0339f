/* Any bytes as the reference's architecture file: what passes the checks must be a geometry that the engine can run. */
#include <stdlib.h>

#include "perf/compat/cfg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct compat_cfg c;
    struct arch a = { .link_gbps = 200, .queue = 1 };
    struct err e;
    compat_cfg_text((const char *)data, n, &c);
    if (compat_cfg_arch(&c, "fuzz", &a, &e) < 0)
        return 0;
    /* entries without ways are no cache for the reference; a sweep calls that an error */
    uint32_t *cache[4][2] = { { &a.cc_entries, &a.cc_ways },
                              { &a.iotlb_entries, &a.iotlb_ways },
                              { &a.l2_entries, &a.l2_ways },
                              { &a.l3_entries, &a.l3_ways } };
    for (int i = 0; i < 4; i++)
        if (!*cache[i][1])
            *cache[i][0] = 0;
    if (arch_check(&a, RULES_HYPERSIO, &e) < 0)
        abort();
    return 0;
}
