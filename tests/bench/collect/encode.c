/* How fast a log file takes events: collect_encode LOG.slog [REPS]. Packs the file's events REPS times (without writing them) and
 * unpacks them, and prints JSON; seconds are CPU time of all threads, the best repetition counts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "proto/base/clean.h"
#include "proto/format/log.h"

enum { CHUNK = 1 << 16 };

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int load(const char *path, struct log_event **ev, size_t n, double *seconds, struct err *e)
{
    struct slog_in *in;
    int r = slog_open(path, &in, e);
    if (r < 0)
        return r;
    double start = cpu_s();
    size_t at = 0;
    ssize_t got = 1;
    while (at < n && got > 0) {
        got = slog_read(in, *ev + at, n - at, e);
        at += got > 0 ? (size_t)got : 0;
    }
    *seconds = cpu_s() - start;
    slog_close(&in);
    return got < 0 ? (int)got : 0;
}

static int pack(const struct log_event *ev, size_t n, enum slog_source source, double *seconds,
                struct err *e)
{
    struct slog_out *out;
    double start = cpu_s();
    int r = slog_create(NULL, source, false, &out, e);
    if (r < 0)
        return r;
    for (size_t at = 0; at < n && r == 0; at += CHUNK)
        r = slog_add(out, ev + at, n - at < CHUNK ? n - at : CHUNK, e);
    if (r < 0) {
        slog_abort(&out);
        return r;
    }
    r = slog_end(&out, 0, NULL, NULL, e);
    *seconds = cpu_s() - start;
    return r;
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    struct slog_in *in;
    struct stat st;
    int reps = argc > 2 ? atoi(argv[2]) : 5;
    if (argc < 2 || reps < 1) {
        fprintf(stderr, "usage: collect_encode LOG.slog [REPS]\n");
        return 2;
    }
    if (slog_open(argv[1], &in, &e) < 0 || stat(argv[1], &st) < 0) {
        fprintf(stderr, "collect_encode: %s\n", e.text);
        return 1;
    }
    size_t n = slog_info(in)->events;
    enum slog_source source = slog_info(in)->source;
    slog_close(&in);
    CLEANUP(freep) struct log_event *ev = calloc(n + 1, sizeof(*ev));
    double in_s = 1e9, out_s = 1e9, s = 0;
    int r = ev ? 0 : err_set(&e, ENOMEM, "events");
    for (int i = 0; i < reps && r == 0; i++) {
        r = load(argv[1], &ev, n, &s, &e);
        in_s = s < in_s ? s : in_s;
        r = r ? r : pack(ev, n, source, &s, &e);
        out_s = s < out_s ? s : out_s;
    }
    if (r < 0) {
        fprintf(stderr, "collect_encode: %s\n", e.text);
        return 1;
    }
    printf("{\"log\": \"%s\", \"events\": %zu, \"bytes_per_event\": %.3f, \"encode_events_per_s\": "
           "%.0f, "
           "\"decode_events_per_s\": %.0f}\n",
           slog_source_name(source), n, (double)st.st_size / (double)n, (double)n / out_s,
           (double)n / in_s);
    return 0;
}
