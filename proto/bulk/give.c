/* The giving end of a stream: one thread reads, packs where it pays, seals and sends what is asked for. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/bulk/in.h"
#include "proto/lib/zio.h"

enum {
    LOOK_MS = 300, /* how often a peer that waits for a chunk that is not here is looked at */
};

struct give {
    struct bulk_stream *s;
    struct frame_rx rx;
    struct pace pace;
    uint64_t owed[BULK_WINDOW];
    size_t n_owed;
    uint8_t *raw, *packed;
    struct zio_packer *packer;
    bool small; /* PACK_SMALL, else PACK_FAST */
    uint64_t pack_ns,
        wait_ns; /* what packed chunks cost of late: to pack, and to wait for the wire */
    struct zio_worth worth;
};

/* Take in what was asked; wait for it when nothing is owed. */
static int listen_to(struct give *g, struct err *e)
{
    struct conn *c = &g->s->conn;
    for (;;) {
        int r = conn_next(c, &g->rx, e);
        if (r == RX_BYE)
            return strcmp((char *)g->rx.small, "done")
                       ? err_set(e, ECONNABORTED, "bulk: the other end says: %s",
                                 (char *)g->rx.small)
                       : -ECANCELED;
        if (r == RX_WANT) {
            if (g->rx.n > BULK_WINDOW - g->n_owed)
                return err_set(e, SF_EFORMAT, "bulk: the other end asks for too much at once");
            for (uint64_t i = 0; i < g->rx.n; i++)
                g->owed[g->n_owed++] = g->rx.first + i;
        }
        if (r >= 0)
            continue;
        if (r != -EAGAIN)
            return r;
        ssize_t n = conn_fill(c, NULL, NULL);
        if (n == 0)
            return err_set(e, ECONNRESET, "bulk: the other end closed the connection");
        if (n < 0 && n != -EAGAIN)
            return err_sys(e, (int)-n, "bulk");
        if (n == -EAGAIN) {
            if (g->n_owed)
                return 0;
            r = conn_wait(c, POLLIN, -1);
            if (r < 0)
                return r;
        }
    }
}

/* A packed chunk took so long. What came before counts less and less. */
static void choose_level(struct give *g, uint64_t pack_ns, uint64_t wait_ns)
{
    g->pack_ns = g->pack_ns - g->pack_ns / 8 + pack_ns;
    g->wait_ns = g->wait_ns - g->wait_ns / 8 + wait_ns;
    /* far apart, so that it does not swing; between the two either will do */
    bool small = g->small ? g->wait_ns > g->pack_ns / 2 : g->wait_ns > 3 * g->pack_ns;
    if (small != g->small)
        zio_packer_level(g->packer, small ? PACK_SMALL : PACK_FAST);
    g->small = small;
}

/* The bytes to send of the chunk in raw: *ret. Packed where that pays. */
static size_t pack(struct give *g, size_t n, const uint8_t **ret, bool *ret_packed)
{
    *ret = g->raw;
    *ret_packed = false;
    if (!zio_worth_try(&g->worth))
        return n;
    ssize_t m = zio_packer_pack(g->packer, g->packed, CID_CHUNK, g->raw, n);
    if (!zio_worth_note(&g->worth, n, m))
        return n;
    *ret = g->packed;
    *ret_packed = true;
    return (size_t)m;
}

static int give_chunk(struct give *g, uint64_t index, struct err *e)
{
    struct bulk_stream *s = g->s;
    struct conn *c = &s->conn;
    uint64_t off = index * CID_CHUNK;
    size_t full = s->size_b - off < CID_CHUNK ? (size_t)(s->size_b - off) : CID_CHUNK;
    ssize_t got = pread_full(s->file_fd, g->raw, full, (off_t)off);
    if (got < 0)
        return err_sys(e, (int)-got, "chunk %llu", (unsigned long long)index);
    if ((size_t)got < full)
        return err_set(e, SF_EINTEGRITY, "chunk %llu: the file is too short",
                       (unsigned long long)index);
    const uint8_t *p;
    bool packed;
    uint8_t head[FRAME_CHUNK_LEN];
    uint64_t t0 = clock_mono_ns(), t1, flush_ns = 0;
    size_t n = pack(g, full, &p, &packed);
    t1 = clock_mono_ns();
    size_t most = pace_rate_piece(s->out, FRAME_BODY_MAX);
    frame_chunk(head, index, n, packed);
    conn_put(c, FRAME_CHUNK, head, sizeof(head));
    for (size_t done = 0; done < n;) {
        size_t m = n - done < most ? n - done : most;
        conn_put(c, FRAME_DATA, p + done, m);
        uint64_t since = clock_mono_ns();
        int r = conn_flush(c, &g->pace, s->out);
        flush_ns += clock_mono_ns() - since;
        if (r < 0)
            return r == -ECANCELED ? r : err_sys(e, -r, "bulk");
        done += m;
        atomic_fetch_add(&s->moved_b, m);
    }
    if (packed)
        choose_level(g, t1 - t0, flush_ns);
    return 0;
}

/* The first chunk that is owed and here, as place in owed; n_owed = none came in LOOK_MS. */
static size_t one_here(struct give *g)
{
    struct bulk_stream *s = g->s;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    size_t k = 0;
    pthread_mutex_lock(&s->lock);
    for (int r = 0; s->have;
         r = pthread_cond_clockwait(&s->cond, &s->lock, CLOCK_MONOTONIC, &until)) {
        for (k = 0; k < g->n_owed; k++)
            if (s->have[g->owed[k] / 8] >> (g->owed[k] % 8) & 1)
                break;
        if (k < g->n_owed || r || atomic_load(&s->stop))
            break;
    }
    pthread_mutex_unlock(&s->lock);
    return k;
}

static int give(struct give *g, struct err *e)
{
    for (;;) {
        int r = listen_to(g, e);
        if (r < 0)
            return r;
        if (atomic_load(&g->s->stop))
            return -ECANCELED;
        size_t k = one_here(g);
        if (k == g->n_owed)
            continue;
        r = give_chunk(g, g->owed[k], e);
        if (r < 0)
            return r;
        g->n_owed--;
        memmove(g->owed + k, g->owed + k + 1, (g->n_owed - k) * sizeof(g->owed[0]));
    }
}

void *give_main(void *arg)
{
    struct bulk_stream *s = arg;
    struct err e = { 0 };
    CLEANUP(freep) uint8_t *raw = malloc(CID_CHUNK);
    CLEANUP(freep) uint8_t *packed = malloc(CID_CHUNK);
    struct give g = { .s = s,
                      .rx = { .id = s->ticket.artefact, .size_b = s->size_b },
                      .raw = raw,
                      .packed = packed,
                      .packer = zio_packer_new(PACK_FAST) };
    int r = raw && packed && g.packer ? conn_init(&s->conn) : -ENOMEM;
    pace_init(&g.pace);
    if (r < 0)
        err_sys(&e, -r, "bulk");
    else
        r = stream_hello(s, &g.rx, &e);
    if (r >= 0) {
        stream_event(s, BULK_UP, 0, 0, "");
        r = give(&g, &e);
        stream_bye(s, r == -ECANCELED ? "done" : e.text);
    }
    zio_packer_free(&g.packer);
    stream_ended(s, r, e.text);
    return NULL;
}
