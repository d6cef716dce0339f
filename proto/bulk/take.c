/* The taking end of a stream. Two threads: the first reads, opens, unpacks and writes, the second
 * hashes, so that two cores share the work. A chunk is written before it is verified: what the first
 * thread took over from the kernel is in the page cache when this process is killed, and the next
 * one finds it there (a put hashes again what it finds).
 *
 * Several chunks are hashed side by side for little more than the price of one, so the second thread
 * lets them gather a little while, when more are to come. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/bulk/in.h"
#include "proto/lib/zio.h"

/* Hash n chunks, and say what became of them. */
static void verify(struct bulk_stream *s, struct taken *const v[], size_t n)
{
    const void *p[HASH_LANES];
    size_t len[HASH_LANES];
    struct id is[HASH_LANES];
    for (size_t i = 0; i < n; i++) {
        p[i] = v[i]->p;
        len[i] = v[i]->n;
    }
    hash_many(p, len, n, is);
    for (size_t i = 0; i < n; i++) {
        struct err e = v[i]->e;
        int r = v[i]->r;
        if (r >= 0)
            r = s->sink.verify(s->sink.put, v[i]->index, &is[i], len[i], &e);
        stream_event(s, BULK_CHUNK, v[i]->index, r, e.text);
    }
}

/* HASH_LANES chunks are here, or it is not worth waiting for more; lock is held. */
static void gather(struct bulk_stream *s)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += GATHER_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    while (s->n_taken < HASH_LANES && s->more_come && !s->room_short && !s->sync_asked &&
           !s->over && !atomic_load(&s->stop) &&
           pthread_cond_clockwait(&s->cond, &s->lock, CLOCK_MONOTONIC, &until) == 0)
        continue;
}

static void *verify_main(void *arg)
{
    struct bulk_stream *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->n_taken && !s->sync_asked && !s->over)
            pthread_cond_wait(&s->cond, &s->lock);
        if (s->n_taken) {
            gather(s);
            struct taken *v[HASH_LANES];
            size_t n = s->n_taken < HASH_LANES ? s->n_taken : HASH_LANES;
            for (size_t i = 0; i < n; i++)
                v[i] = &s->taken[(s->taken_first + i) % TAKE_ROOMS];
            pthread_mutex_unlock(&s->lock);
            verify(s, v, n);
            pthread_mutex_lock(&s->lock);
            for (size_t i = 0; i < n; i++)
                s->free_rooms[s->n_free++] = v[i]->p;
            s->taken_first = (s->taken_first + n) % TAKE_ROOMS;
            s->n_taken -= n;
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

/* Memory for one more chunk, if there may be; lock is held. */
static bool room_new(struct bulk_stream *s)
{
    bool own = s->n_rooms < TAKE_ROOMS_OWN;
    if (s->n_rooms == TAKE_ROOMS)
        return false;
    if (!own && atomic_fetch_sub(&s->bulk->rooms_left, 1) <= 0) {
        atomic_fetch_add(&s->bulk->rooms_left, 1);
        return false;
    }
    uint8_t *p = malloc(CID_CHUNK);
    if (p)
        s->rooms[s->n_rooms++] = s->free_rooms[s->n_free++] = p;
    else if (!own)
        atomic_fetch_add(&s->bulk->rooms_left, 1);
    return p != NULL;
}

/* Where the next chunk goes, after a wait. NULL = stopped. */
static uint8_t *room_get(struct bulk_stream *s)
{
    uint8_t *p = NULL;
    pthread_mutex_lock(&s->lock);
    while (!s->n_free && !atomic_load(&s->stop) && !room_new(s)) {
        s->room_short = true;
        pthread_cond_broadcast(&s->cond);
        pthread_cond_wait(&s->cond, &s->lock);
    }
    s->room_short = false;
    if (!atomic_load(&s->stop))
        p = s->free_rooms[--s->n_free];
    pthread_mutex_unlock(&s->lock);
    return p;
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

/* A whole chunk is in rx's room or packed_room: to the disk, then to the second thread. -errno when it cannot be written. */
static int chunk_here(struct bulk_stream *s, const struct frame_rx *rx, bool more_come,
                      struct zio_unpacker *unpacker, struct err *e)
{
    struct taken t = { .p = rx->room, .n = rx->len, .index = rx->index };
    if (rx->packed) {
        ssize_t n = zio_unpacker_unpack(unpacker, t.p, CID_CHUNK, rx->packed_room, rx->len);
        t.n = n < 0 ? 0 : (size_t)n;
        if (n < 0)
            t.r =
                err_set(&t.e, SF_EINTEGRITY, "chunk %llu: damaged", (unsigned long long)rx->index);
    }
    if (t.r >= 0)
        t.r = s->sink.write(s->sink.put, rx->index, t.p, t.n, &t.e);
    pthread_mutex_lock(&s->lock);
    s->taken[(s->taken_first + s->n_taken++) % TAKE_ROOMS] = t;
    s->more_come = more_come;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
    if (t.r >= 0 || t.r == -SF_EINTEGRITY)
        return 0;
    *e = t.e;
    return t.r;
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
    rx->room = room_get(s);
    for (;;) {
        if (!rx->room || atomic_load(&s->stop))
            return -ECANCELED;
        send_wants(s, &asked);
        int r = conn_flush_some(c);
        if (r < 0)
            return err_sys(e, -r, "bulk");
        r = conn_next(c, rx, e);
        if (r == -EAGAIN) {
            uint64_t wait_ns = 0;
            ssize_t n = conn_fill(c, s->in, &wait_ns);
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
            /* the loop ends it; what came until it does would be sent again */
            r = chunk_here(s, rx, asked.n != 0, unpacker, e);
            if (r < 0)
                return r;
            rx->room = room_get(s);
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
    pthread_mutex_lock(&s->lock);
    while (room && s->n_rooms < TAKE_ROOMS_OWN) /* then it never waits for memory */
        room = room_new(s);
    pthread_mutex_unlock(&s->lock);
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
