/* Any bytes as a log file; the checksums are made to fit, or nothing behind them would ever be reached. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/format/frame.h"
#include "proto/format/log.h"
#include "reframe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct slog_in *in = NULL;
    struct err e;
    struct log_event ev[256];
    uint8_t *p = malloc(n + 1);
    if (n)
        memcpy(p, data, n);
    for (int round = 0; round < 2; round++) {
        if (slog_open_bytes("fuzz", p, n, &in, &e) == 0) {
            uint64_t total = 0, high, low;
            ssize_t k;
            while ((k = slog_read(in, ev, 256, &e)) > 0)
                for (ssize_t i = 0; i < k; i++) {
                    if (ev[i].kind < LOG_CC_UPDATE || ev[i].kind >= LOG_KINDS)
                        abort();
                    slog_walk(in, total++, &high, &low);
                }
            if (k == 0 && total != slog_info(in)->events)
                abort();
            slog_seek(in, total / 2, &e);
            slog_close(&in);
        }
        reframe(p, n, 8);
    }
    free(p);
    return 0;
}
