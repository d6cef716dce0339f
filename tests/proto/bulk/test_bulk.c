/* Bulk connections over loopback: what arrives, who gets in, and what a bent wire or a bad peer does. */
#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/mman.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/rng.h"
#include "proto/bulk/bulk.h"
#include "proto/bulk/conn.h"
#include "tests/proto/bulk/wire.h"

enum { PATIENCE_MS = 60000, CHUNKS_MAX = 40 };

static struct {
    struct bulk *giver, *taker;
    struct bulk_stream *give, *take;
    struct bulk_ticket ticket;
    struct id artefact, hashes[CHUNKS_MAX];
    uint8_t *data, *out;
    uint64_t size;
    size_t n_chunks, got, bad;
    int fd;
    bool up, ended[2]; /* giver, taker */
    int end_r[2];
    char end_text[2][200];
    bool held; /* write waits for gate */
    sem_t gate;
    atomic_uint writes;
} w;

static int put(void *ctx, uint64_t index, const void *p, size_t n, struct err *e)
{
    (void)ctx;
    (void)e;
    if (w.held)
        sem_wait(&w.gate);
    memcpy(w.out + index * CID_CHUNK, p, n);
    atomic_fetch_add(&w.writes, 1);
    return 0;
}

static int check(void *ctx, uint64_t index, const struct id *is, size_t n, struct err *e)
{
    (void)ctx;
    (void)n;
    return id_eq(is, &w.hashes[index]) ? 0 : err_set(e, SF_EINTEGRITY, "chunk %u", (unsigned)index);
}

static const struct bulk_sink sink = { .write = put, .verify = check };

static void start(void)
{
    memset(&w, 0, sizeof(w));
    w.fd = -1;
    sem_init(&w.gate, 0, 0);
}

/* size bytes, of which every second chunk can be packed. Both ends listen. */
static void open_ends(uint64_t size, uint64_t rate_b)
{
    struct bulk_conf conf = { .listen = "tcp://127.0.0.1:*", .rate_b = rate_b };
    struct err e = { 0 };
    struct rng rng = { 11 };
    w.size = size;
    w.n_chunks = (size_t)((size + CID_CHUNK - 1) / CID_CHUNK);
    cr_assert(w.n_chunks <= CHUNKS_MAX);
    w.data = malloc(size + 8);
    w.out = calloc(1, size);
    for (uint64_t i = 0; i < size; i += 8) {
        uint64_t v = (i / CID_CHUNK) % 2 ? i / 512 : rng_u64(&rng);
        memcpy(w.data + i, &v, 8);
    }
    for (size_t i = 0; i < w.n_chunks; i++) {
        uint64_t left = size - i * (uint64_t)CID_CHUNK;
        hash_bytes(w.data + i * CID_CHUNK, left < CID_CHUNK ? (size_t)left : CID_CHUNK,
                   &w.hashes[i]);
    }
    w.artefact = w.hashes[0];
    w.fd = memfd_create("bulk", MFD_CLOEXEC);
    cr_assert(w.fd >= 0 && pwrite_all(w.fd, w.data, size, 0) == 0);
    cr_assert(bulk_new(&conf, &w.giver, &e) == 0, "%s", e.text);
    cr_assert(bulk_new(&conf, &w.taker, &e) == 0, "%s", e.text);
}

static void stop(void)
{
    bulk_free(&w.giver);
    bulk_free(&w.taker);
    closep(&w.fd);
    free(w.data);
    free(w.out);
    sem_destroy(&w.gate);
}

TestSuite(bulk, .init = start, .fini = stop);

static void events(int ms)
{
    struct bulk *b[2] = { w.giver, w.taker };
    struct pollfd p[2] = { { .fd = bulk_fd(b[0]), .events = POLLIN },
                           { .fd = bulk_fd(b[1]), .events = POLLIN } };
    poll(p, 2, ms);
    for (int i = 0; i < 2; i++) {
        struct bulk_event ev;
        while (bulk_next(b[i], &ev)) {
            if (ev.kind == BULK_END) {
                w.ended[i] = true;
                w.end_r[i] = ev.r;
                memcpy(w.end_text[i], ev.text, sizeof(ev.text));
            } else if (ev.kind == BULK_UP && i == 1) {
                w.up = true;
                bulk_want(w.take, 0, w.n_chunks);
            } else if (ev.kind == BULK_CHUNK) {
                *(ev.r < 0 ? &w.bad : &w.got) += 1;
                if (w.got == w.n_chunks)
                    bulk_stop(w.take);
            }
        }
    }
}

#define UNTIL(cond)                                                                                \
    for (uint64_t end_ = clock_mono_ms() + PATIENCE_MS; !(cond); events(20))                       \
    cr_assert(clock_mono_ms() < end_, "never: " #cond)

/* The giver dials port of the taker. */
static void connect_ends(uint16_t port)
{
    char to[32];
    struct err e = { 0 };
    snprintf(to, sizeof(to), "127.0.0.1:%u", (unsigned)port);
    int fd = dup(w.fd);
    cr_assert(bulk_take(w.taker, &w.ticket, NULL, w.size, &sink, NULL, &w.take, &e) == 0, "%s",
              e.text);
    cr_assert(bulk_give(w.giver, &w.ticket, to, w.size, fd, NULL, &w.give, &e) == 0, "%s", e.text);
}

Test(bulk, chunks_arrive_whole_with_either_cipher_and_either_end_dialling)
{
    open_ends(5 * CID_CHUNK + 12345, 0);
    for (int k = 0; k < 4; k++) {
        char to[32];
        struct err e = { 0 };
        memset(w.out, 0, w.size);
        memset(w.ended, 0, sizeof(w.ended));
        w.got = 0;
        bulk_ticket_new(&w.ticket, &w.artefact, k & 1 ? WIRE_BULK : bulk_features());
        cr_assert((k & 1) == 0 || w.ticket.alg == BULK_XCHACHA20);
        if (k & 2) {
            snprintf(to, sizeof(to), "127.0.0.1:%u", (unsigned)bulk_port(w.giver));
            cr_assert_eq(bulk_give(w.giver, &w.ticket, NULL, w.size, dup(w.fd), NULL, &w.give, &e),
                         0);
            cr_assert_eq(bulk_take(w.taker, &w.ticket, to, w.size, &sink, NULL, &w.take, &e), 0);
        } else {
            connect_ends(bulk_port(w.taker));
        }
        UNTIL(w.ended[0] && w.ended[1]);
        cr_assert(w.end_r[0] == 0 && w.end_r[1] == 0, "%s %s", w.end_text[0], w.end_text[1]);
        cr_assert(!memcmp(w.data, w.out, w.size));
    }
    struct bulk_stats s;
    bulk_stats(w.giver, &s);
    cr_assert(s.wire_out_b < 4 * w.size * 3 / 4, "every second chunk is packed: %llu",
              (unsigned long long)s.wire_out_b);
    cr_assert(s.streams == 4 && !s.gives && !s.refused);
}

/* What the wire shows is the ticket's id and noise: no id, no length, nothing of the content. */
Test(bulk, nothing_but_the_tickets_id_is_in_clear)
{
    struct wire tap = { .how = WIRE_STRAIGHT };
    open_ends(2 * CID_CHUNK, 0);
    memset(w.data, 0, CID_CHUNK); /* a packed chunk, too, would begin with zstd's magic */
    bulk_ticket_new(&w.ticket, &w.artefact, bulk_features());
    wire_start(&tap, bulk_port(w.taker));
    connect_ends(tap.port);
    UNTIL(w.ended[0] && w.ended[1]);
    cr_assert_eq(w.got, w.n_chunks);
    cr_assert(tap.n_seen[WIRE_CALLED] > CID_CHUNK);
    cr_assert(!memcmp(tap.seen[WIRE_CALLED], w.ticket.id, sizeof(w.ticket.id)));
    for (int d = 0; d < 2; d++) {
        const uint8_t *p = tap.seen[d];
        size_t n = tap.n_seen[d], zeros = 0;
        cr_assert_null(memmem(p, n, w.artefact.b, 8));
        cr_assert_null(memmem(p, n, "SFB1", 4));
        cr_assert_null(memmem(p, n, w.ticket.keys[d], 8));
        cr_assert_null(memmem(p, n, w.data + CID_CHUNK + 64, 16));
        for (size_t i = 0; i < n; i++)
            zeros += !p[i];
        cr_assert(n < 4096 || (zeros > n / 512 && zeros < n / 128), "%zu of %zu", zeros, n);
    }
    wire_end(&tap);
}

/* One changed, missing or repeated piece anywhere ends the connection: no chunk of it counts. */
Test(bulk, a_bent_wire_is_noticed)
{
    static const struct {
        const char *what;
        enum wire_how how;
        int dir;
        size_t at, span;
        int r; /* of the taker, which listens; 0 = it never comes up */
    } rows[] = {
        { "a bit of the ticket", WIRE_FLIP, WIRE_CALLED, 3, 1, 0 },
        { "a bit of the hello", WIRE_FLIP, WIRE_CALLED, 20, 1, 0 },
        { "a bit of the answer", WIRE_FLIP, WIRE_BACK, 5, 1, -ECONNRESET },
        { "a bit of the question", WIRE_FLIP, WIRE_BACK, 88 + 30, 1, -ECONNRESET },
        { "a bit of a head", WIRE_FLIP, WIRE_CALLED, 104 + 4, 1, -SF_EINTEGRITY },
        { "a bit of a body", WIRE_FLIP, WIRE_CALLED, 500000, 1, -SF_EINTEGRITY },
        { "a byte is missing", WIRE_DROP, WIRE_CALLED, 300000, 1, -SF_EINTEGRITY },
        { "a frame comes twice", WIRE_TWICE, WIRE_CALLED, 104, 56, -SF_EINTEGRITY },
        { "cut in a frame", WIRE_CUT, WIRE_CALLED, 700001, 1, -ECONNRESET },
        { "cut between frames", WIRE_CUT, WIRE_CALLED, 104 + 56, 1, -ECONNRESET },
    };
    open_ends(3 * CID_CHUNK, 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct wire bent = {
            .how = rows[i].how, .bend = rows[i].dir, .at = rows[i].at, .span = rows[i].span
        };
        w.up = w.ended[0] = w.ended[1] = false;
        w.got = 0;
        bulk_ticket_new(&w.ticket, &w.artefact, bulk_features());
        wire_start(&bent, bulk_port(w.taker));
        connect_ends(bent.port);
        if (rows[i].r == 0) {
            UNTIL(w.ended[0]);
            cr_assert(!w.up && !w.ended[1], "%s", rows[i].what);
            bulk_stop(w.take);
        }
        UNTIL(w.ended[0] && w.ended[1]);
        cr_assert_lt(w.end_r[0], 0, "%s: giver %d", rows[i].what, w.end_r[0]);
        cr_assert(w.end_r[1] == rows[i].r ||
                      (rows[i].r == -ECONNRESET && w.end_r[1] == -ECONNABORTED),
                  "%s: taker %d %s", rows[i].what, w.end_r[1], w.end_text[1]);
        cr_assert_eq(w.bad, 0);
        cr_assert_lt(w.got, w.n_chunks);
        for (size_t c = 0; c < w.n_chunks; c++)
            cr_assert(w.out[c * CID_CHUNK] == 0 || w.out[c * CID_CHUNK] == w.data[c * CID_CHUNK]);
        wire_end(&bent);
    }
}

/* A peer of our own making, that dials. */
struct peer {
    struct conn c;
    struct frame_rx rx;
    atomic_bool stop;
};

static void peer_dial(struct peer *p, const struct bulk_ticket *t, bool gives, uint64_t size,
                      const struct id *artefact)
{
    char to[32];
    uint8_t body[FRAME_HELLO_LEN];
    struct err e = { 0 };
    memset(p, 0, sizeof(*p));
    snprintf(to, sizeof(to), "127.0.0.1:%u", (unsigned)bulk_port(w.taker));
    p->c.wake_fd = -1;
    p->c.stop = &p->stop;
    cr_assert_eq(conn_init(&p->c), 0);
    p->c.fd = conn_dial(to, -1, &p->stop, 5000, &e);
    cr_assert(p->c.fd >= 0, "%s", e.text);
    cr_assert_eq(aead_init(&p->c.out.key, (enum aead_alg)t->alg, t->keys[0]), 0);
    cr_assert_eq(aead_init(&p->c.in.key, (enum aead_alg)t->alg, t->keys[1]), 0);
    memcpy(p->c.out_buf, t->id, sizeof(t->id));
    p->c.out_len = sizeof(t->id);
    frame_hello(body, gives, size, artefact);
    conn_put(&p->c, FRAME_HELLO, body, sizeof(body));
    cr_assert_eq(conn_flush(&p->c, NULL, NULL), 0);
}

static bool peer_is_cut(struct peer *p, int ms)
{
    uint8_t b;
    struct pollfd q = { .fd = p->c.fd, .events = POLLIN };
    return poll(&q, 1, ms) > 0 && recv(p->c.fd, &b, 1, MSG_PEEK) <= 0;
}

Test(bulk, a_ticket_is_good_once_for_one_artefact_and_only_with_its_key)
{
    struct peer nobody, p, later;
    struct bulk_ticket t, forged;
    struct bulk_stats s;
    struct id other = { { 1 } };
    open_ends(2 * CID_CHUNK, 0);
    bulk_ticket_new(&t, &w.artefact, bulk_features());
    bulk_ticket_new(&forged, &w.artefact, bulk_features());
    peer_dial(&nobody, &forged, true, w.size, &w.artefact); /* a ticket that was never made */
    cr_assert_eq(bulk_take(w.taker, &t, NULL, w.size, &sink, NULL, &w.take, NULL), 0);
    /* its id was seen on a wire, its keys were not */
    memcpy(forged.id, t.id, sizeof(t.id));
    peer_dial(&p, &forged, true, w.size, &w.artefact);
    UNTIL(peer_is_cut(&p, 0));
    conn_clear(&p.c);
    /* the right key, for something else: the other side, another artefact, another size */
    for (int i = 0; i < 3; i++) {
        peer_dial(&p, &t, i != 0, w.size - (i == 1), i == 2 ? &other : &w.artefact);
        UNTIL(peer_is_cut(&p, 0));
        conn_clear(&p.c);
    }
    cr_assert(!w.up && !w.ended[1]);
    /* all that did not spend it */
    peer_dial(&p, &t, true, w.size, &w.artefact);
    UNTIL(w.up);
    /* and now it is spent, also for who knows all of it */
    peer_dial(&later, &t, true, w.size, &w.artefact);
    UNTIL(peer_is_cut(&later, 0) && peer_is_cut(&nobody, 0));
    bulk_stats(w.taker, &s);
    cr_assert(s.streams == 1 && s.refused == 6, "%u", (unsigned)s.refused);
    conn_clear(&p.c);
    conn_clear(&later.c);
    conn_clear(&nobody.c);
    UNTIL(w.ended[1]);
    cr_assert_eq(w.end_r[1], -ECONNRESET);
}

Test(bulk, a_ticket_may_come_before_its_end_knows_it_and_expires)
{
    struct peer early;
    struct bulk_ticket t;
    open_ends(2 * CID_CHUNK, 0);
    bulk_ticket_new(&t, &w.artefact, bulk_features());
    peer_dial(&early, &t, true, w.size, &w.artefact);
    cr_assert_not(peer_is_cut(&early, 100));
    cr_assert_eq(bulk_take(w.taker, &t, NULL, w.size, &sink, NULL, &w.take, NULL), 0);
    UNTIL(w.up);
    conn_clear(&early.c);
    UNTIL(w.ended[1]);
    w.ended[1] = false;
    bulk_ticket_new(&t, &w.artefact, bulk_features());
    t.ttl_ms = 100;
    cr_assert_eq(bulk_take(w.taker, &t, NULL, w.size, &sink, NULL, &w.take, NULL), 0);
    UNTIL(w.ended[1]);
    cr_assert_eq(w.end_r[1], -ETIMEDOUT);
}

Test(bulk, connections_without_a_ticket_are_few)
{
    int fd[80];
    uint8_t b;
    struct bulk_stats s;
    open_ends(CID_CHUNK, 0);
    for (size_t i = 0; i < ARRAY_LEN(fd); i++)
        fd[i] = wire_socket(bulk_port(w.taker), false);
    do {
        events(10);
        bulk_stats(w.taker, &s);
    } while (s.refused < ARRAY_LEN(fd) - 64);
    cr_assert_eq(recv(fd[0], &b, 1, 0), 0, "the first is cut for the last");
    /* one with a ticket comes through the crowd */
    bulk_ticket_new(&w.ticket, &w.artefact, bulk_features());
    connect_ends(bulk_port(w.taker));
    UNTIL(w.ended[0] && w.ended[1]);
    cr_assert_eq(w.got, 1);
    for (size_t i = 0; i < ARRAY_LEN(fd); i++)
        close(fd[i]);
}

Test(bulk, a_peer_that_breaks_the_rules_is_cut)
{
    static const struct {
        const char *what;
        enum frame_type type;
        uint64_t index;
        uint32_t len;
        bool packed, whole;
        const char *cause;
    } rows[] = {
        { "a chunk unasked", FRAME_CHUNK, 5, CID_CHUNK, false, false, "unasked" },
        { "a chunk past the end", FRAME_CHUNK, 6, CID_CHUNK, false, false, "none" },
        { "a chunk too long", FRAME_CHUNK, 0, CID_CHUNK + 1, false, false, "wrong length" },
        { "a packed chunk of full length", FRAME_CHUNK, 0, CID_CHUNK, true, false, "wrong length" },
        { "a question", FRAME_WANT, 0, 0, false, false, "out of place" },
        { "data of no chunk", FRAME_DATA, 0, 16, false, false, "out of place" },
        { "a second hello", FRAME_HELLO, 0, 0, false, false, "out of place" },
        { "a frame of a new kind", (enum frame_type)77, 0, 16, false, false, "out of place" },
    };
    open_ends(6 * CID_CHUNK, 0);
    w.n_chunks = 5; /* the last one is not asked for */
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct peer p;
        uint8_t body[FRAME_HELLO_LEN] = { 0 };
        size_t n = rows[i].type == FRAME_HELLO ? FRAME_HELLO_LEN : FRAME_CHUNK_LEN;
        w.up = w.ended[1] = false;
        bulk_ticket_new(&w.ticket, &w.artefact, bulk_features());
        cr_assert_eq(bulk_take(w.taker, &w.ticket, NULL, w.size, &sink, NULL, &w.take, NULL), 0);
        peer_dial(&p, &w.ticket, true, w.size, &w.artefact);
        UNTIL(w.up);
        if (rows[i].type == FRAME_CHUNK)
            frame_chunk(body, rows[i].index, rows[i].len, rows[i].packed);
        conn_put(&p.c, rows[i].type, body, n);
        cr_assert_eq(conn_flush(&p.c, NULL, NULL), 0);
        UNTIL(w.ended[1]);
        cr_assert_eq(w.end_r[1], -SF_EFORMAT, "%s: %d %s", rows[i].what, w.end_r[1], w.end_text[1]);
        cr_assert(strstr(w.end_text[1], rows[i].cause), "%s: %s", rows[i].what, w.end_text[1]);
        conn_clear(&p.c);
    }
    cr_assert_eq(w.got, 0);
}

/* Bytes that are sealed and wrong: the chunk is reported, the connection goes on. */
Test(bulk, a_damaged_chunk_is_told_and_can_be_asked_for_again)
{
    open_ends(2 * CID_CHUNK, 0);
    uint8_t right, wrong;
    cr_assert_eq(pread(w.fd, &right, 1, CID_CHUNK + 77), 1);
    wrong = (uint8_t)(right ^ 1);
    cr_assert_eq(pwrite(w.fd, &wrong, 1, CID_CHUNK + 77), 1);
    bulk_ticket_new(&w.ticket, &w.artefact, bulk_features());
    connect_ends(bulk_port(w.taker));
    UNTIL(w.bad == 1 && w.got == 1);
    cr_assert_eq(pwrite(w.fd, &right, 1, CID_CHUNK + 77), 1);
    bulk_want(w.take, 1, 1);
    UNTIL(w.ended[0] && w.ended[1]);
    cr_assert(!memcmp(w.data, w.out, w.size));
}

Test(bulk, a_reader_that_stops_makes_the_sender_wait)
{
    struct bulk_stats s;
    open_ends((uint64_t)CHUNKS_MAX * CID_CHUNK, 0);
    struct rng rng = { 5 };
    for (uint64_t i = 0; i < w.size; i += 8) {
        uint64_t v = rng_u64(&rng);
        memcpy(w.data + i, &v, 8);
    }
    for (size_t i = 0; i < w.n_chunks; i++)
        hash_bytes(w.data + i * CID_CHUNK, CID_CHUNK, &w.hashes[i]);
    cr_assert_eq(pwrite_all(w.fd, w.data, w.size, 0), 0);
    w.held = true;
    bulk_ticket_new(&w.ticket, &w.artefact, bulk_features());
    connect_ends(bulk_port(w.taker));
    UNTIL(w.up);
    uint64_t before, now = 0;
    do {
        before = now;
        events(300);
        bulk_stats(w.giver, &s);
        now = s.wire_out_b;
    } while (now != before || !now);
    cr_assert(now < (UINT64_C(16) << 20), "%llu bytes left before it waited",
              (unsigned long long)now);
    cr_assert(!w.ended[0] && !w.ended[1] && w.got == 0);
    cr_assert_eq(bulk_quiet_ms(w.take), 0, "it is this end that is slow");
    for (size_t i = 0; i < w.n_chunks; i++)
        sem_post(&w.gate);
    UNTIL(w.ended[0] && w.ended[1]);
    cr_assert(w.got == w.n_chunks && !memcmp(w.data, w.out, w.size));
}

Test(bulk, a_rate_holds_and_streams_are_bounded)
{
    struct bulk_stream *s[BULK_TAKES_MAX];
    struct err e = { 0 };
    open_ends(3 * CID_CHUNK, UINT64_C(6) << 20);
    struct rng rng = { 9 };
    for (uint64_t i = 0; i < w.size; i += 8) {
        uint64_t v = rng_u64(&rng);
        memcpy(w.data + i, &v, 8);
    }
    for (size_t i = 0; i < w.n_chunks; i++)
        hash_bytes(w.data + i * CID_CHUNK, CID_CHUNK, &w.hashes[i]);
    cr_assert_eq(pwrite_all(w.fd, w.data, w.size, 0), 0);
    bulk_ticket_new(&w.ticket, &w.artefact, bulk_features());
    uint64_t t0 = clock_mono_ms();
    connect_ends(bulk_port(w.taker));
    UNTIL(w.ended[0] && w.ended[1]);
    cr_assert_eq(w.got, 3);
    cr_assert(clock_mono_ms() - t0 >= 450, "3 MiB at 6 MiB/s in %llu ms",
              (unsigned long long)(clock_mono_ms() - t0));
    for (size_t i = 0; i < ARRAY_LEN(s); i++) {
        bulk_ticket_new(&w.ticket, &w.artefact, bulk_features());
        cr_assert_eq(bulk_take(w.taker, &w.ticket, NULL, w.size, &sink, NULL, &s[i], &e), 0);
    }
    cr_assert_eq(bulk_take(w.taker, &w.ticket, NULL, w.size, &sink, NULL, &w.take, &e), -EBUSY);
}

Test(bulk, errors_name_the_place)
{
    static const struct {
        const char *ep;
        int r;
    } rows[] = { { "tcp://127.0.0.1", -SF_EUSAGE },
                 { "127.0.0.1:1", -SF_EUSAGE },
                 { "tcp://:*", -SF_EUSAGE },
                 { "tcp://127.0.0.1:nope", -SF_EUSAGE },
                 { "tcp://192.0.2.1:*", -EADDRNOTAVAIL } };
    struct bulk *b = NULL;
    struct err e = { 0 };
    open_ends(CID_CHUNK, 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cr_assert_eq(bulk_new(&(struct bulk_conf){ .listen = rows[i].ep }, &b, &e), rows[i].r, "%s",
                     rows[i].ep);
        cr_assert(strstr(e.text, rows[i].ep), "%s", e.text);
    }
    char ep[48];
    snprintf(ep, sizeof(ep), "tcp://127.0.0.1:%u", (unsigned)bulk_port(w.taker));
    cr_assert_eq(bulk_new(&(struct bulk_conf){ .listen = ep }, &b, &e), -EADDRINUSE);
    /* nobody listens where it is sent */
    bulk_ticket_new(&w.ticket, &w.artefact, bulk_features());
    uint16_t port = bulk_port(w.taker);
    bulk_free(&w.taker);
    cr_assert_eq(bulk_new(&(struct bulk_conf){ 0 }, &w.taker, &e), 0);
    cr_assert_eq(bulk_take(w.taker, &w.ticket, NULL, w.size, &sink, NULL, &w.take, &e), -ENOTCONN);
    char to[32];
    snprintf(to, sizeof(to), "127.0.0.1:%u", (unsigned)port);
    cr_assert_eq(bulk_take(w.taker, &w.ticket, to, w.size, &sink, NULL, &w.take, &e), 0);
    UNTIL(w.ended[1]);
    cr_assert_eq(w.end_r[1], -ECONNREFUSED);
    cr_assert(strstr(w.end_text[1], to), "%s", w.end_text[1]);
}
