/* Any bytes as a trace file; the checksums are made to fit, or nothing behind them would ever be reached. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/format/frame.h"
#include "proto/format/trace.h"
#include "reframe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct trace *t = NULL;
    struct err e;
    uint8_t *p = malloc(n + 1);
    if (n)
        memcpy(p, data, n);
    for (int round = 0; round < 2; round++) {
        if (trace_load_bytes("fuzz", p, n, TRACE_WITH_OFFSETS | TRACE_WITH_EXPORT, &t, &e) == 0) {
            for (uint64_t i = 0; i < t->n; i++)
                if (t->ev[i] >= t->n_entries || t->entry[t->ev[i]].gid >= t->n_gids)
                    abort();
            trace_free(&t);
        }
        reframe(p, n, 112);
    }
    free(p);
    return 0;
}
