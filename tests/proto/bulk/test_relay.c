/* Giving a file whose chunks are still coming: over real connections on loopback. */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/bulk/bulk.h"

enum { CHUNKS = 6, PATIENCE_MS = 20000 };

static struct {
    struct bulk *giver, *taker;
    struct bulk_stream *give, *take;
    uint8_t *data;
    int fd;
    unsigned got[CHUNKS], n;
    int gave_end, took_end;
    bool up;
} w;

static int put(void *ctx, uint64_t index, const void *p, size_t n, struct err *e)
{
    (void)ctx;
    return n == CID_CHUNK && !memcmp(p, w.data + index * CID_CHUNK, n)
               ? 0
               : err_set(e, SF_EINTEGRITY, "chunk %u", (unsigned)index);
}

static int check(void *ctx, uint64_t index, const struct id *is, size_t n, struct err *e)
{
    struct id want;
    (void)ctx;
    hash_bytes(w.data + index * CID_CHUNK, n, &want);
    return id_eq(is, &want) ? 0 : err_set(e, SF_EINTEGRITY, "chunk %u", (unsigned)index);
}

static void events(struct bulk *b, int ms)
{
    struct bulk_event ev;
    struct pollfd p = { .fd = bulk_fd(b), .events = POLLIN };
    poll(&p, 1, ms);
    while (bulk_next(b, &ev)) {
        if (ev.kind == BULK_END) {
            *(b == w.giver ? &w.gave_end : &w.took_end) = ev.r < 0 ? ev.r : 1;
        } else if (b == w.taker && ev.kind == BULK_UP) {
            w.up = true;
            bulk_want(w.take, 0, CHUNKS);
        } else if (b == w.taker && ev.kind == BULK_CHUNK) {
            cr_assert_eq(ev.r, 0, "%s", ev.text);
            w.got[w.n++] = (unsigned)ev.index;
        }
    }
}

static void until(bool (*fn)(void))
{
    uint64_t end = clock_mono_ms() + PATIENCE_MS;
    while (!fn()) {
        cr_assert(clock_mono_ms() < end, "too long");
        events(w.taker, 5);
        events(w.giver, 0);
    }
}

static unsigned wanted;
static bool enough(void)
{
    return w.n >= wanted;
}

static bool is_up(void)
{
    return w.up;
}

static bool gave_over(void)
{
    return w.gave_end != 0;
}

static void begin(uint8_t have)
{
    struct err e = { 0 };
    struct bulk_ticket t;
    struct id id = { { 1 } };
    struct bulk_conf listens = { .listen = "tcp://127.0.0.1:*" }, dials = { 0 };
    struct bulk_sink sink = { .write = put, .verify = check };
    char dial[32];
    w.fd = memfd_create("relay", MFD_CLOEXEC);
    w.data = malloc(CHUNKS * (size_t)CID_CHUNK);
    cr_assert(w.fd >= 0 && w.data);
    random_bytes(w.data, CHUNKS * (size_t)CID_CHUNK);
    cr_assert(pwrite_all(w.fd, w.data, CHUNKS * (size_t)CID_CHUNK, 0) == 0);
    cr_assert(bulk_new(&listens, &w.giver, &e) == 0, "%s", e.text);
    cr_assert(bulk_new(&dials, &w.taker, &e) == 0, "%s", e.text);
    bulk_ticket_new(&t, &id, bulk_features());
    snprintf(dial, sizeof(dial), "127.0.0.1:%u", (unsigned)bulk_port(w.giver));
    cr_assert(bulk_give_some(w.giver, &t, NULL, CHUNKS * (uint64_t)CID_CHUNK, w.fd, &have, NULL,
                             &w.give, &e) == 0);
    cr_assert(
        bulk_take(w.taker, &t, dial, CHUNKS * (uint64_t)CID_CHUNK, &sink, NULL, &w.take, &e) == 0);
    until(is_up);
}

static void end(void)
{
    bulk_free(&w.taker);
    bulk_free(&w.giver);
    free(w.data);
}

Test(relay, chunks_are_given_when_they_are_here)
{
    begin(1 << 3);
    wanted = 1;
    until(enough);
    cr_assert_eq(w.got[0], 3);
    static const unsigned order[] = { 5, 0, 4, 1, 2 };
    for (unsigned i = 0; i < 5; i++) {
        events(w.taker, 20);
        cr_assert_eq(w.n, i + 1, "one that is not here yet was given");
        bulk_have(w.give, order[i]);
        wanted = i + 2;
        until(enough);
        cr_assert_eq(w.got[i + 1], order[i]);
    }
    end();
}

Test(relay, one_whose_taker_leaves_ends_though_nothing_comes)
{
    begin(0);
    bulk_stop(w.take);
    until(gave_over);
    end();
}

Test(relay, one_that_is_stopped_ends_though_nothing_comes)
{
    begin(0);
    bulk_stop(w.give);
    until(gave_over);
    end();
}
