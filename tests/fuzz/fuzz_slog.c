/* Any bytes as a log file, as they are and with checksums that fit; or, behind a first byte other than a file's, as sections that are not
 * packed yet. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/format/frame.h"
#include "proto/format/log.h"
#include "reframe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { HEADER_B = 8, VERSION = 1 };

static void look(const uint8_t *p, size_t n)
{
    struct slog_in *in = NULL;
    struct err e;
    struct log_event ev[256];
    if (slog_open_bytes("fuzz", p, n, &in, &e) < 0)
        return;
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
    slog_close(&in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char magic[8] = { (char)0x89, 'S', 'F', 'L', 'O', 'G', '\r', '\n' };
    each_frame(magic, VERSION, HEADER_B, data, n, look);
    return 0;
}
