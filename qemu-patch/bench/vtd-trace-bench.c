/*
 * Cost of one IOMMU trace event through QEMU's own trace function, by the backend
 * that this tree was configured with (log or simple)
 *
 * vtd-trace-bench FILE EVENT-BYTES: writes to FILE; prints "NS ns an event MEDIAN
 * median BYTES bytes an event DROPPED of EVENTS dropped".  Events come in bursts that
 * fit into simple's buffer, with a pause for its writer in between, so that none need
 * be dropped; EVENT-BYTES is the size of one in FILE (0: FILE is text, one line each).
 * With a fourth argument there are no pauses.
 *
 * This work is licensed under the terms of the GNU GPL, version 2 or later.
 * See the COPYING file in the top-level directory.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/config-file.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "qemu/option.h"
#include "qemu/timer.h"
#include "trace/control.h"
#include "hw/i386/trace.h"
#ifdef CONFIG_TRACE_SIMPLE
#include "trace/simple.h"
#endif

#define BURST  256
#define BURSTS 2048

static double ns[BURSTS];

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static uint64_t lines(const char *path)
{
    FILE *f = fopen(path, "r");
    uint64_t n = 0;
    int c;

    while (f && (c = getc(f)) != EOF) {
        n += c == '\n';
    }
    if (f) {
        fclose(f);
    }
    return n;
}

int main(int argc, char **argv)
{
    uint64_t written, sent = (uint64_t)BURST * BURSTS;
    unsigned size = argc > 2 ? atoi(argv[2]) : 0;
    bool pause = argc < 4;
    g_autofree char *opts = NULL;
    struct stat st;

    if (argc < 3) {
        fprintf(stderr, "usage: vtd-trace-bench FILE EVENT-BYTES [nopause]\n");
        return 2;
    }
    qemu_add_opts(&qemu_trace_opts);
    module_call_init(MODULE_INIT_TRACE);
    if (!trace_init_backends()) {
        return 1;
    }
    opts = g_strdup_printf("enable=vtd_iotlb_page_hit%s%s", size ? ",file=" : "",
                           size ? argv[1] : "");
    trace_opt_parse(opts);
    trace_init_file();
    if (!size) {
        qemu_set_log_filename_flags(argv[1], LOG_TRACE, &error_fatal);
    }
    for (unsigned i = 0; i < BURSTS; i++) {
        int64_t t = get_clock();
        for (uint64_t k = 0; k < BURST; k++) {
            trace_vtd_iotlb_page_hit(0x20, k << 12, ~0xfffull, k << 12 | 3, 3);
        }
        ns[i] = (double)(get_clock() - t) / BURST;
        if (pause) {
            g_usleep(1000);
        }
    }
#ifdef CONFIG_TRACE_SIMPLE
    st_flush_trace_buffer();
    g_usleep(200000);
#endif
    qemu_set_log(0, &error_fatal);
    if (stat(argv[1], &st) < 0) {
        perror(argv[1]);
        return 1;
    }
    written = size ? st.st_size / size : lines(argv[1]);
    qsort(ns, BURSTS, sizeof(ns[0]), compare);
    printf("%.1f ns an event %.1f median %.1f bytes an event %" PRIu64 " of %" PRIu64
           " dropped\n", ns[0], ns[BURSTS / 2],
           written ? (double)st.st_size / written : 0.0,
           sent > written ? sent - written : 0, sent);
    return 0;
}
