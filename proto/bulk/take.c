/* The taking end of a stream. Two threads: the first reads, opens, unpacks and writes, the second
 * hashes, so that two cores share the work. A chunk is written before it is verified: what the first
 * thread took over from the kernel is in the page cache when this process is killed, and the next
 * one finds it there (a put hashes again what it finds). */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/bulk/in.h"
#include "proto/lib/zio.h"

static void *verify_main(void *arg)
{
    struct bulk_stream *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->slot_n && !s->sync_asked && !s->over)
            pthread_cond_wait(&s->cond, &s->lock);
        if (s->slot_n) {
            size_t k = s->slot_first;
            struct err e = { 0 };
            int r = s->slots[k].r;
            uint64_t index = s->slots[k].index;
            pthread_mutex_unlock(&s->lock);
            if (r < 0)
                e = s->slots[k].e;
            else
                r = s->sink.verify(s->sink.put, index, s->slots[k].p, s->slots[k].n, &e);
            stream_event(s, BULK_CHUNK, index, r, e.text);
            pthread_mutex_lock(&s->lock);
            s->slot_first = (k + 1) % TAKE_SLOTS;
            s->slot_n--;
            pthread_cond_broadcast(&s->cond);
        } else if (s->sync_asked) {
            struct err e = { 0 };
            s->sync_asked = false;
            pthread_mutex_unlock(&s->lock);
            int r = s->sink.sync ? s->sink.sync(s->sink.put, &e) : 0;
            stream_event(s, BULK_SYNCED, 0, r, e.text);
            pthread_mutex_lock(&s->lock);
        } else {
            break;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* A free slot's number, after a wait. TAKE_SLOTS = stopped. */
static size_t free_slot(struct bulk_stream *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->slot_n == TAKE_SLOTS && !atomic_load(&s->stop))
        pthread_cond_wait(&s->cond, &s->lock);
    size_t k = atomic_load(&s->stop) ? TAKE_SLOTS : (s->slot_first + s->slot_n) % TAKE_SLOTS;
    pthread_mutex_unlock(&s->lock);
    return k;
}

/* What was asked for and is not here: a giving end that sends anything else is cut off, so that
 * nothing here grows by its will. */
struct asked {
    uint64_t v[BULK_WINDOW];
    size_t n;
};

static bool asked_take(struct asked *a, uint64_t index)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i] == index) {
            a->v[i] = a->v[--a->n];
            return true;
        }
    return false;
}

/* Put the loop's questions behind out_buf. */
static void send_wants(struct bulk_stream *s, struct asked *a)
{
    pthread_mutex_lock(&s->lock);
    size_t k = 0;
    while (k < s->n_wants && s->conn.out_len + 2 * CONN_HEAD + FRAME_WANT_LEN <= CONN_OUT) {
        uint64_t first = s->wants[k].first, n = 0;
        uint8_t body[FRAME_WANT_LEN];
        while (n < s->wants[k].n && a->n < BULK_WINDOW)
            a->v[a->n++] = first + n++;
        if (!n)
            break;
        frame_want(body, first, n);
        conn_put(&s->conn, FRAME_WANT, body, sizeof(body));
        s->wants[k].first += n;
        s->wants[k].n -= n;
        if (!s->wants[k].n)
            k++;
    }
    s->n_wants -= k;
    memmove(s->wants, s->wants + k, s->n_wants * sizeof(s->wants[0]));
    pthread_mutex_unlock(&s->lock);
}

/* A whole chunk is in room or packed_room: to the disk, then to the second thread. */
static void chunk_here(struct bulk_stream *s, const struct frame_rx *rx, size_t slot,
                       struct zio_unpacker *unpacker)
{
    struct err e = { 0 };
    ssize_t n = (ssize_t)rx->len;
    if (rx->packed) {
        n = zio_unpacker_unpack(unpacker, s->slots[slot].p, CID_CHUNK, rx->packed_room, rx->len);
        if (n < 0)
            err_set(&e, SF_EINTEGRITY, "chunk %llu: damaged", (unsigned long long)rx->index);
    }
    int r = n < 0 ? -SF_EINTEGRITY
                  : s->sink.write(s->sink.put, rx->index, s->slots[slot].p, (size_t)n, &e);
    pthread_mutex_lock(&s->lock);
    s->slots[slot].n = n < 0 ? 0 : (size_t)n;
    s->slots[slot].index = rx->index;
    s->slots[slot].r = r;
    s->slots[slot].e = e;
    s->slot_n++;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

/* Nothing is there to read: wait for it, and for the loop's questions. */
static int wait_more(struct bulk_stream *s, const struct asked *a)
{
    struct conn *c = &s->conn;
    if (a->n)
        atomic_store(&c->waits_since_ns, clock_mono_ns());
    int r = conn_wait(c, (short)(POLLIN | (c->out_off < c->out_len ? POLLOUT : 0)), -1);
    atomic_store(&c->waits_since_ns, 0);
    return r < 0 ? r : 0;
}

static int take(struct bulk_stream *s, struct frame_rx *rx, struct zio_unpacker *unpacker,
                struct err *e)
{
    struct conn *c = &s->conn;
    struct asked asked = { .n = 0 };
    size_t slot = free_slot(s);
    for (;;) {
        if (slot == TAKE_SLOTS || atomic_load(&s->stop))
            return -ECANCELED;
        rx->room = s->slots[slot].p;
        send_wants(s, &asked);
        int r = conn_flush_some(c);
        if (r < 0)
            return err_sys(e, -r, "bulk");
        r = conn_next(c, rx, e);
        if (r == -EAGAIN) {
            uint64_t wait_ns = 0;
            ssize_t n = conn_fill(c, &s->bulk->in, &wait_ns);
            if (n == 0)
                return err_set(e, ECONNRESET, "bulk: the other end closed the connection");
            if (n < 0 && n != -EAGAIN)
                return err_sys(e, (int)-n, "bulk");
            r = n < 0 ? wait_more(s, &asked) : wait_ns ? conn_sleep(c, wait_ns) : 0;
            if (r < 0)
                return r;
            continue;
        }
        if (r < 0)
            return r;
        if (r == RX_BYE)
            return err_set(e, ECONNABORTED, "bulk: the other end says: %s", (char *)rx->small);
        if (r == RX_CHUNK_BEGINS && !asked_take(&asked, rx->index))
            return err_set(e, SF_EFORMAT, "bulk: chunk %llu comes unasked",
                           (unsigned long long)rx->index);
        if (rx->type == FRAME_DATA)
            atomic_fetch_add(&s->moved_b, rx->body);
        if (r == RX_CHUNK) {
            chunk_here(s, rx, slot, unpacker);
            slot = free_slot(s);
        }
    }
}

void *take_main(void *arg)
{
    struct bulk_stream *s = arg;
    struct err e = { 0 };
    struct frame_rx rx = { .takes = true, .id = s->ticket.artefact, .size_b = s->size_b };
    struct zio_unpacker *unpacker = zio_unpacker_new();
    CLEANUP(freep) uint8_t *packed = malloc(CID_CHUNK);
    bool verifier = false, room = unpacker && packed;
    rx.packed_room = packed;
    for (size_t i = 0; i < TAKE_SLOTS && room; i++)
        room = (s->slots[i].p = malloc(CID_CHUNK)) != NULL;
    int r = room ? conn_init(&s->conn) : -ENOMEM;
    if (r >= 0)
        r = thread_start(&s->verifier, verify_main, s);
    if (r < 0)
        err_sys(&e, -r, "bulk");
    else
        verifier = true;
    if (r >= 0)
        r = stream_hello(s, &rx, &e);
    if (r >= 0) {
        stream_event(s, BULK_UP, 0, 0, "");
        r = take(s, &rx, unpacker, &e);
        stream_bye(s, r == -ECANCELED ? "done" : e.text);
    }
    if (verifier) {
        pthread_mutex_lock(&s->lock);
        s->over = true;
        pthread_cond_broadcast(&s->cond);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->verifier, NULL);
    }
    zio_unpacker_free(&unpacker);
    stream_ended(s, r, e.text);
    return NULL;
}
