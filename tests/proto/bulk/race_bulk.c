/* Bulk connections under ThreadSanitizer: streams of one process with itself, several at once, under a shared rate; one is
 * stopped in mid-way, one asks for a sync, and the last ones still run when the whole is freed. A program of its own, since
 * Criterion and ThreadSanitizer do not work together. */
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/rng.h"
#include "proto/bulk/bulk.h"

enum {
    CHUNKS = 24,
    PAIRS = 4,
    STOPPED = 1,
    SIZE_B = CHUNKS * CID_CHUNK - 4321,
    GIVE_UP_MS = 300000
};

struct side {
    struct bulk_stream *stream; /* NULL after its end */
    int fd;                     /* of a taking end: where chunks go */
    atomic_uint wrote, verified;
    uint64_t asked, got;
    bool synced;
    int end_r;
};

static struct id hashes[CHUNKS];

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static int put(void *ctx, uint64_t index, const void *p, size_t n, struct err *e)
{
    struct side *s = ctx;
    int r = pwrite_all(s->fd, p, n, (off_t)(index * CID_CHUNK));
    atomic_fetch_add(&s->wrote, 1);
    return r < 0 ? err_sys(e, -r, "chunk") : 0;
}

static int check(void *ctx, uint64_t index, const struct id *is, size_t n, struct err *e)
{
    struct side *s = ctx;
    (void)n;
    atomic_fetch_add(&s->verified, 1);
    return id_eq(is, &hashes[index]) ? 0 : err_set(e, SF_EINTEGRITY, "chunk");
}

static int sync_file(void *ctx, struct err *e)
{
    struct side *s = ctx;
    return fsync(s->fd) < 0 ? err_sys(e, EIO, "sync") : 0;
}

/* A file of random bytes whose second half packs well. */
static int source(void)
{
    static uint8_t chunk[CID_CHUNK];
    struct rng rng = { 7 };
    int fd = memfd_create("source", MFD_CLOEXEC);
    CHECK(fd >= 0);
    for (uint64_t i = 0; i < CHUNKS; i++) {
        size_t n = i + 1 < CHUNKS ? CID_CHUNK : SIZE_B % CID_CHUNK;
        for (size_t k = 0; k < n; k++)
            chunk[k] = i < CHUNKS / 2 ? (uint8_t)rng_below(&rng, 256) : (uint8_t)(k % 61);
        CHECK(pwrite_all(fd, chunk, n, (off_t)(i * CID_CHUNK)) >= 0);
        hash_bytes(chunk, n, &hashes[i]);
    }
    return fd;
}

static void ask(struct side *s)
{
    uint64_t n = CHUNKS - s->asked < 5 ? CHUNKS - s->asked : 5;
    if (n && s->asked - s->got < 10) {
        bulk_want(s->stream, s->asked, n);
        s->asked += n;
    }
}

static void event(const struct bulk_event *ev, struct side *takes, unsigned *running)
{
    struct side *s = ev->ctx;
    bool taking = s >= takes && s < takes + PAIRS;
    if (ev->kind == BULK_END) {
        s->stream = NULL;
        s->end_r = ev->r;
        --*running;
        return;
    }
    CHECK(ev->r >= 0);
    if (!taking)
        return;
    s->synced |= ev->kind == BULK_SYNCED;
    s->got += ev->kind == BULK_CHUNK;
    if (s - takes == STOPPED && s->got >= 3)
        bulk_stop(s->stream);
    else if (s->got == CHUNKS && !s->synced)
        bulk_sync(s->stream);
    else if (s->synced)
        bulk_stop(s->stream);
    else
        ask(s);
}

static void start(struct bulk *b, int fd, bool dials, struct side *give, struct side *take)
{
    const struct bulk_sink sink = { take, put, check, sync_file };
    const struct id id = { { 9 } };
    struct bulk_ticket t;
    struct err e = { 0 };
    char to[32];
    snprintf(to, sizeof(to), "127.0.0.1:%u", bulk_port(b));
    bulk_ticket_new(&t, &id, bulk_features());
    take->fd = memfd_create("sink", MFD_CLOEXEC);
    CHECK(take->fd >= 0 && ftruncate(take->fd, SIZE_B) >= 0);
    CHECK(bulk_take(b, &t, dials ? to : NULL, SIZE_B, &sink, take, &take->stream, &e) >= 0);
    CHECK(bulk_give(b, &t, dials ? NULL : to, SIZE_B, dup(fd), give, &give->stream, &e) >= 0);
}

int main(void)
{
    const struct bulk_conf conf = { .listen = "tcp://127.0.0.1:*", .rate_b = 400u << 20 };
    static struct side gives[PAIRS + 2], takes[PAIRS + 2];
    struct err e = { 0 };
    struct bulk *b;
    struct bulk_stats st;
    unsigned running = 2 * PAIRS;
    int fd = source();
    CHECK(bulk_new(&conf, &b, &e) >= 0);
    for (unsigned i = 0; i < PAIRS; i++)
        start(b, fd, i % 2, &gives[i], &takes[i]);
    for (uint64_t end = clock_mono_ms() + GIVE_UP_MS; running;) {
        struct bulk_event ev;
        struct pollfd p = { .fd = bulk_fd(b), .events = POLLIN };
        CHECK(clock_mono_ms() < end);
        poll(&p, 1, 1000);
        while (bulk_next(b, &ev))
            event(&ev, takes, &running);
    }
    for (unsigned i = 0; i < PAIRS; i++) {
        bool whole = i != STOPPED;
        CHECK(takes[i].end_r == 0);
        CHECK(!whole || (takes[i].synced && takes[i].got == CHUNKS && takes[i].verified == CHUNKS));
    }
    bulk_stats(b, &st);
    CHECK(st.streams >= 2 * PAIRS - 1 && st.took_b > (uint64_t)(PAIRS - 1) * SIZE_B - 1);

    /* freed while they wait, dial and run */
    start(b, fd, true, &gives[PAIRS], &takes[PAIRS]);
    start(b, fd, false, &gives[PAIRS + 1], &takes[PAIRS + 1]);
    bulk_want(takes[PAIRS].stream, 0, CHUNKS);
    bulk_free(&b);
    for (unsigned i = 0; i < PAIRS + 2; i++)
        close(takes[i].fd);
    close(fd);
    puts("ok 1 - streams of several threads, stopped, synced, freed while they run");
    return 0;
}
