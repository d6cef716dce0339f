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
    if (arch_check(&a, RULES_HYPERSIO, &e) < 0)
        abort();
    return 0;
}
