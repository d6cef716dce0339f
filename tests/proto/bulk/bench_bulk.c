/* Moves one file through a bulk connection of this process with itself and prints bytes and seconds: what the threads and
 * the cipher can do, without a coordinator. Usage: bench_bulk FILE OUT [xchacha] */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/bulk/bulk.h"

static struct id *hashes;
static int out;

static int put(void *ctx, uint64_t index, const void *p, size_t n, struct err *e)
{
    (void)ctx;
    int r = pwrite_all(out, p, n, (off_t)(index * CID_CHUNK));
    return r < 0 ? err_sys(e, -r, "out") : 0;
}

static int check(void *ctx, uint64_t index, const struct id *is, size_t n, struct err *e)
{
    (void)ctx;
    (void)n;
    return id_eq(is, &hashes[index]) ? 0 : err_set(e, SF_EINTEGRITY, "chunk");
}

int main(int argc, char **argv)
{
    struct bulk_conf conf = { .listen = "tcp://127.0.0.1:*" };
    struct bulk *b;
    struct err e = { 0 };
    struct stat st;
    struct bulk_ticket t;
    struct bulk_stream *give, *take;
    struct bulk_sink sink = { .write = put, .verify = check };
    struct id id = { { 7 } };
    char to[64];
    int in = argc > 2 ? open(argv[1], O_RDONLY) : -1;
    out = argc > 2 ? open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;
    if (in < 0 || out < 0 || fstat(in, &st) < 0 || bulk_new(&conf, &b, &e) < 0)
        return fprintf(stderr, "usage: bench_bulk FILE OUT [xchacha] %s\n", e.text), 2;
    uint64_t size = (uint64_t)st.st_size, n = (size + CID_CHUNK - 1) / CID_CHUNK, asked = 0,
             got = 0;
    static uint8_t chunk[CID_CHUNK];
    hashes = calloc(n + 1, sizeof(*hashes));
    for (uint64_t i = 0; i < n; i++) {
        ssize_t m = pread_full(in, chunk, CID_CHUNK, (off_t)(i * CID_CHUNK));
        hash_bytes(chunk, (size_t)m, &hashes[i]);
    }
    if (posix_fallocate(out, 0, st.st_size))
        return 1;
    bulk_ticket_new(&t, &id, argc > 3 ? WIRE_BULK : bulk_features());
    snprintf(to, sizeof(to), "127.0.0.1:%u", bulk_port(b));
    uint64_t t0 = clock_mono_ns();
    if (bulk_take(b, &t, NULL, size, &sink, NULL, &take, &e) < 0 ||
        bulk_give(b, &t, to, size, in, NULL, &give, &e) < 0)
        return fprintf(stderr, "%s\n", e.text), 1;
    unsigned ends = 0;
    while (ends < 2) {
        struct bulk_event ev;
        struct pollfd p = { .fd = bulk_fd(b), .events = POLLIN };
        poll(&p, 1, -1);
        while (bulk_next(b, &ev)) {
            if (ev.kind == BULK_END) {
                ends++;
                if (ev.r < 0)
                    fprintf(stderr, "end: %d %s\n", ev.r, ev.text);
            }
            if (ev.kind == BULK_CHUNK && ev.r < 0)
                return fprintf(stderr, "chunk: %s\n", ev.text), 1;
            if (ev.kind == BULK_CHUNK && ++got == n)
                bulk_stop(take);
            if (ev.stream == take && (ev.kind == BULK_UP || ev.kind == BULK_CHUNK) && got < n &&
                asked - got <= BULK_WINDOW / 2) {
                uint64_t m = BULK_WINDOW - (asked - got);
                if (m > n - asked)
                    m = n - asked;
                bulk_want(take, asked, m);
                asked += m;
            }
        }
    }
    double s = (double)(clock_mono_ns() - t0) / 1e9;
    struct bulk_stats bs;
    struct rusage ru;
    bulk_stats(b, &bs);
    getrusage(RUSAGE_SELF, &ru);
    printf("%.3f GB in %.3f s = %.3f GB/s, wire %.3f GB, %ld MiB resident\n", (double)size / 1e9, s,
           (double)size / 1e9 / s, (double)bs.wire_out_b / 1e9, ru.ru_maxrss / 1024);
    bulk_free(&b);
    free(hashes);
    return 0;
}
