/* Any bytes as the spec of a task: refused, or with inputs and points that fit each other. */
#include <stdlib.h>

#include "agent/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    for (int kind = 0; kind < CORE_KINDS; kind++) {
        struct run_grant g = { .kind = (enum core_kind)kind };
        struct id *inputs = NULL;
        size_t n_inputs = 0;
        struct err e;
        int r = spec_parse(&g, data, n, &inputs, &n_inputs, &e);
        bool needs = kind == CORE_POINTS || kind == CORE_TRACE;
        if (r == 0 && ((needs && !n_inputs) || (kind == CORE_POINTS && (!g.points || n_inputs != 1))))
            abort();
        if (r < 0 && inputs)
            abort();
        free(inputs);
    }
    return 0;
}
