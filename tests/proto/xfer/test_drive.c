/* Two processes' transfers face to face: real stores, a channel in memory that is slow, full or lossy, a clock that is told. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/rng.h"
#include "proto/cas/cas.h"
#include "proto/xfer/drive.h"
#include "proto/xfer/xfer.h"

enum { QUEUE = 32 };

static char root[256];

static void start(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof(root), "%s/siofleet-drive.XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(root));
}

static void stop(void)
{
    dir_remove(root, NULL);
}

TestSuite(drive, .init = start, .fini = stop);

struct side {
    struct cas *cas;
    struct xfers *x;
    struct side *other;
    uint64_t peer;       /* as which we know the other */
    struct side *both;   /* who is the peer 3 here, beside the other; NULL = nobody */
    struct buf q[QUEUE]; /* frames on the way to us */
    size_t n;
    int loss; /* per cent of what is sent to us */
    bool cut;
    struct rng rng;
    unsigned ends[2], offers, chunks;
    struct xfers_end last;
    int refuse_offer, refuse_end, refuse_get; /* SF_E* or errno */
};

static int side_send(void *ctx, uint64_t peer, const struct msg *m)
{
    struct side *s = ctx, *o = s->both && peer == 3 ? s->both : s->other;
    struct err e = { 0 };
    cr_assert(peer == s->peer || s->both);
    if (s->cut)
        return -EHOSTUNREACH;
    if (o->n == QUEUE)
        return -EAGAIN;
    if (rng_below(&s->rng, 100) < (uint64_t)o->loss)
        return 0;
    if (m->type == M_CHUNK)
        o->chunks++;
    o->q[o->n] = BUF_INIT(FRAME_MAX + 4096);
    cr_assert(msg_encode(m, &o->q[o->n], &e) == 0, "%s", e.text);
    o->n++;
    return 0;
}

static int side_offered(void *ctx, uint64_t peer, const struct msg_put_offer *of, bool here,
                        struct err *e)
{
    struct side *s = ctx;
    (void)peer;
    (void)of;
    (void)here;
    s->offers++;
    return s->refuse_offer ? err_set(e, s->refuse_offer, "not here") : 0;
}

static int side_wanted(void *ctx, uint64_t peer, const struct id *id, struct err *e)
{
    struct side *s = ctx;
    (void)peer;
    (void)id;
    return s->refuse_get ? err_set(e, s->refuse_get, "not for you") : 0;
}

static int side_ended(void *ctx, const struct xfers_end *end, struct err *e)
{
    struct side *s = ctx;
    s->ends[end->dir]++;
    s->last = *end;
    return s->refuse_end ? err_set(e, s->refuse_end, "cannot note it") : 0;
}

static void side_make(struct side *s, struct side *other, const char *name, uint64_t peer,
                      uint64_t cap)
{
    struct err e = { 0 };
    CLEANUP(freep) char *dir = path_fmt("%s/%s", root, name);
    memset(s, 0, sizeof(*s));
    s->other = other;
    s->peer = peer;
    s->rng.s = peer;
    cr_assert(cas_open(dir, cap, &s->cas, &e) == 0, "%s", e.text);
    struct xfer_store st = xfer_store_cas(s->cas);
    struct xfers_ops ops = { .ctx = s,
                             .send = side_send,
                             .offered = side_offered,
                             .wanted = side_wanted,
                             .ended = side_ended };
    cr_assert((s->x = xfers_new(&st, &ops, 1 << 30)));
}

static void side_empty(struct side *s)
{
    while (s->n)
        buf_clear(&s->q[--s->n]);
}

static void side_free(struct side *s)
{
    xfers_free(&s->x);
    cas_free(&s->cas);
    side_empty(s);
}

/* Hand over one frame. */
static void deliver(struct side *s, uint64_t now)
{
    struct msg m;
    struct buf b = s->q[0];
    memmove(s->q, s->q + 1, --s->n * sizeof(s->q[0]));
    cr_assert_eq(msg_decode(b.data, b.len, &m, NULL), 0);
    cr_assert_eq(xfers_msg(s->x, s->peer, &m, now), 1);
    msg_clear(&m);
    buf_clear(&b);
}

/* Until nothing is running or the time is over. *now moves. */
static void run(struct side *a, struct side *b, uint64_t *now, uint64_t until)
{
    while (*now < until) {
        int64_t wa = xfers_tick(a->x, *now), wb = xfers_tick(b->x, *now);
        if (a->n || b->n) {
            if (a->n)
                deliver(a, *now);
            if (b->n)
                deliver(b, *now);
            *now += 1;
            continue;
        }
        if (!xfers_running(a->x) && !xfers_running(b->x))
            return;
        int64_t w = wa < 0 ? wb : wb < 0 || wa < wb ? wa : wb;
        cr_assert(w >= 0, "running, and nothing is due");
        *now += w ? (uint64_t)w : 1;
    }
}

static struct id content(struct side *s, uint64_t seed, uint64_t size)
{
    struct rng r = { seed };
    struct err e = { 0 };
    struct id id;
    uint8_t *p = malloc(size + 1);
    CLEANUP(freep) char *path = path_fmt("%s/content", root);
    for (uint64_t i = 0; i < size; i++)
        p[i] = i / CID_CHUNK % 2 ? 'x' : (uint8_t)rng_u64(&r);
    cr_assert_eq(file_write(path, p, size, 0600, true, &e), 0);
    cr_assert(cas_import(s->cas, path, &id, NULL, &e) == 0, "%s", e.text);
    free(p);
    return id;
}

static void check_whole(struct side *s, const struct id *id)
{
    uint64_t bad;
    struct err e = { 0 };
    cr_assert(cas_verify(s->cas, id, &bad, &e) == 0, "%s", e.text);
}

Test(drive, an_offer_ends_durable_on_both_sides_once)
{
    static const int losses[] = { 0, 0, 10, 25 };
    struct side a, b;
    for (size_t k = 0; k < ARRAY_LEN(losses); k++) {
        uint64_t now = 1000;
        side_make(&a, &b, "a", 1, 0);
        side_make(&b, &a, "b", 2, 0);
        struct id id = content(&a, k, k ? (4 * k + 1) * CID_CHUNK + 3 : 0);
        a.loss = b.loss = losses[k];
        cr_assert_eq(xfers_offer(a.x, 1, 9, &id, "log", "n", now, NULL), 0);
        cr_assert_eq(xfers_offer(a.x, 1, 9, &id, "log", "n", now, NULL), -EALREADY);
        run(&a, &b, &now, 10000000);
        cr_assert_eq(a.ends[XFERS_OUT], 1);
        cr_assert(a.last.code == 0 && id_eq(&a.last.id, &id) && a.last.req == 9);
        cr_assert_eq(b.ends[XFERS_IN], 1);
        cr_assert(b.last.code == 0 && !strcmp(b.last.kind, "log") && !strcmp(b.last.name, "n"));
        check_whole(&b, &id);
        side_free(&a);
        side_free(&b);
    }
}

Test(drive, a_fetch_brings_it_and_says_nothing_to_the_giver_at_the_end)
{
    struct side a, b;
    uint64_t now = 1000;
    side_make(&a, &b, "a", 1, 0);
    side_make(&b, &a, "b", 2, 0);
    struct id id = content(&a, 5, 40 * CID_CHUNK), none = { { 1 } };
    cr_assert_eq(xfers_fetch(b.x, 2, 0, &id, now, NULL), 0);
    cr_assert_eq(xfers_fetch(b.x, 2, 0, &id, now, NULL), -EALREADY);
    cr_assert(xfers_busy(b.x, &id));
    run(&a, &b, &now, 10000000);
    cr_assert(b.ends[XFERS_IN] == 1 && b.last.code == 0);
    cr_assert_eq(b.chunks, 40, "each chunk travels once");
    check_whole(&b, &id);
    cr_assert_eq(xfers_fetch(b.x, 2, 0, &id, now, NULL), -EEXIST);
    cr_assert_eq(xfers_fetch(b.x, 2, 0, &none, now, NULL), 0);
    run(&a, &b, &now, 20000000);
    cr_assert(b.ends[XFERS_IN] == 2 && b.last.code == ENOENT, "%d", b.last.code);
    a.refuse_get = SF_EREFUSED;
    id = content(&a, 6, 10);
    cr_assert_eq(xfers_fetch(b.x, 2, 0, &id, now, NULL), 0);
    run(&a, &b, &now, 30000000);
    cr_assert(b.ends[XFERS_IN] == 3 && b.last.code == SF_EREFUSED);
    cr_assert_eq(a.ends[XFERS_IN] + a.ends[XFERS_OUT], 0);
    side_free(&a);
    side_free(&b);
}

Test(drive, what_the_receiver_refuses_is_told_to_the_sender)
{
    struct side a, b;
    uint64_t now = 1000;
    side_make(&a, &b, "a", 1, 0);
    side_make(&b, &a, "b", 2, 2 * CID_CHUNK);
    struct id id = content(&a, 7, 3 * CID_CHUNK), small = content(&a, 8, 10);
    cr_assert_eq(xfers_offer(a.x, 1, 1, &id, "log", "", now, NULL), 0);
    run(&a, &b, &now, 10000000);
    cr_assert(a.ends[XFERS_OUT] == 1 && a.last.code == EFBIG, "%d %s", a.last.code, a.last.text);
    cr_assert(strstr(a.last.text, "more than its cap"), "%s", a.last.text);
    b.refuse_offer = SF_EREFUSED;
    cr_assert_eq(xfers_offer(a.x, 1, 2, &small, "log", "", now, NULL), 0);
    run(&a, &b, &now, 20000000);
    cr_assert(a.ends[XFERS_OUT] == 2 && a.last.code == SF_EREFUSED);
    b.refuse_offer = 0;
    b.refuse_end =
        ENOSPC; /* whole, but its note is not durable: the sender must not believe it is */
    cr_assert_eq(xfers_offer(a.x, 1, 3, &small, "log", "", now, NULL), 0);
    run(&a, &b, &now, 30000000);
    cr_assert(a.ends[XFERS_OUT] == 3 && a.last.code == ENOSPC);
    b.refuse_end = 0;
    cr_assert_eq(xfers_offer(a.x, 1, 4, &small, "log", "", now, NULL), 0);
    run(&a, &b, &now, 40000000);
    cr_assert(a.ends[XFERS_OUT] == 4 && a.last.code == 0);
    side_free(&a);
    side_free(&b);
}

Test(drive, a_cut_costs_only_what_was_on_the_way)
{
    struct side a, b;
    uint64_t now = 1000;
    side_make(&a, &b, "a", 1, 0);
    side_make(&b, &a, "b", 2, 0);
    struct id id = content(&a, 9, 60 * CID_CHUNK);
    cr_assert_eq(xfers_offer(a.x, 1, 1, &id, "trace", "t", now, NULL), 0);
    run(&a, &b, &now, now + 20);
    cr_assert(b.chunks > 5 && b.chunks < 50, "%u", b.chunks);
    /* the receiver forgets the peer, keeps the partial; the sender waits for its connection */
    unsigned before = b.chunks;
    side_empty(&a);
    side_empty(&b);
    xfers_gone(b.x, 2, false);
    xfers_gone(a.x, 1, true);
    cr_assert(b.ends[XFERS_IN] == 1 && b.last.code == EHOSTUNREACH);
    cr_assert_eq(a.ends[XFERS_OUT], 0);
    cr_assert_eq(xfers_tick(a.x, now + 100000), -1, "nothing is due while it is cut");
    b.peer = 3; /* a new connection is a new peer there */
    xfers_up(a.x, 1, now);
    run(&a, &b, &now, 10000000);
    cr_assert(a.ends[XFERS_OUT] == 1 && a.last.code == 0);
    cr_assert(b.chunks < 60 + XFER_WINDOW + 4, "%u chunks before, %u in all", before, b.chunks);
    check_whole(&b, &id);
    side_free(&a);
    side_free(&b);
}

/* Gigabytes of an interrupted transfer hashed in one go would keep the loop from everything else. */
Test(drive, what_a_cut_left_is_looked_at_in_pieces)
{
    struct side a, b;
    uint64_t now = 1000;
    unsigned pieces = 0, before;
    side_make(&a, &b, "a", 1, 0);
    side_make(&b, &a, "b", 2, 0);
    struct id id = content(&a, 9, 40 * CID_CHUNK);
    cr_assert_eq(xfers_offer(a.x, 1, 1, &id, "trace", "t", now, NULL), 0);
    run(&a, &b, &now, now + 20);
    before = b.chunks;
    cr_assert(before >= 10 && before < 35, "%u", before);
    side_empty(&a);
    side_empty(&b);
    xfers_gone(b.x, 2, false);
    xfers_gone(a.x, 1, true);
    b.peer = 3;
    xfers_up(a.x, 1, now);
    for (; b.chunks == before && now < 1000000; now++) {
        xfers_tick(a.x, now);
        pieces += xfers_tick(b.x, now) == 0;
        if (a.n)
            deliver(&a, now);
        if (b.n)
            deliver(&b, now);
    }
    cr_assert(pieces >= 2, "in %u", pieces);
    run(&a, &b, &now, 10000000);
    cr_assert(a.ends[XFERS_OUT] == 1 && a.last.code == 0);
    check_whole(&b, &id);
    side_free(&a);
    side_free(&b);
}

Test(drive, a_receiver_that_never_answers_ends_the_offer)
{
    struct side a, b;
    uint64_t now = 1000;
    side_make(&a, &b, "a", 1, 0);
    side_make(&b, &a, "b", 2, 0);
    struct id id = content(&a, 10, 10);
    b.loss = 100;
    cr_assert_eq(xfers_offer(a.x, 1, 1, &id, "log", "", now, NULL), 0);
    run(&a, &b, &now, 10000000);
    cr_assert(a.ends[XFERS_OUT] == 1 && a.last.code == ETIMEDOUT);
    cr_assert_eq(xfers_tick(a.x, now), -1);
    side_free(&a);
    side_free(&b);
}

Test(drive, many_at_once_all_arrive_and_the_queue_stays_short)
{
    struct side a, b;
    uint64_t now = 1000;
    struct id ids[30];
    side_make(&a, &b, "a", 1, 0);
    side_make(&b, &a, "b", 2, 0);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        ids[i] = content(&a, 100 + i, (i % 4) * CID_CHUNK + 5);
        cr_assert_eq(xfers_offer(a.x, 1, i + 1, &ids[i], "log", "", now, NULL), 0);
    }
    run(&a, &b, &now, 10000000);
    cr_assert_eq(a.ends[XFERS_OUT], ARRAY_LEN(ids));
    cr_assert_eq(b.ends[XFERS_IN], ARRAY_LEN(ids));
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        check_whole(&b, &ids[i]);
    side_free(&a);
    side_free(&b);
}

Test(drive, a_hundred_fetched_at_once_all_come)
{
    struct side a, b;
    uint64_t now = 1000;
    struct id ids[100];
    side_make(&a, &b, "a", 1, 0);
    side_make(&b, &a, "b", 2, 0);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        ids[i] = content(&a, 300 + i, 5);
        cr_assert_eq(xfers_fetch(b.x, 2, 0, &ids[i], now, NULL), 0);
    }
    run(&a, &b, &now, 10000000);
    cr_assert_eq(b.ends[XFERS_IN], ARRAY_LEN(ids));
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        cr_assert(cas_has(b.cas, &ids[i]), "%zu", i);
    side_free(&a);
    side_free(&b);
}

Test(drive, damaged_content_of_the_sender_never_becomes_an_artefact)
{
    struct side a, b;
    uint64_t now = 1000;
    side_make(&a, &b, "a", 1, 0);
    side_make(&b, &a, "b", 2, 0);
    struct id id = content(&a, 11, 3 * CID_CHUNK);
    CLEANUP(freep) char *path = cas_path(a.cas, &id);
    FILE *f;
    unlink(path); /* read-only; another file in its place */
    cr_assert((f = fopen(path, "w")));
    for (int i = 0; i < 3 * (int)CID_CHUNK; i++)
        fputc('z', f);
    fclose(f);
    cr_assert_eq(xfers_offer(a.x, 1, 1, &id, "log", "", now, NULL), 0);
    run(&a, &b, &now, 10000000);
    cr_assert(a.ends[XFERS_OUT] == 1 && a.last.code == SF_EINTEGRITY, "%d", a.last.code);
    cr_assert_not(cas_has(b.cas, &id));
    side_free(&a);
    side_free(&b);
}

/* One receiver, two that offer: what each is told. */
Test(drive, two_that_offer_the_same_are_both_told_and_it_comes_once)
{
    struct side a, b, c;
    uint64_t now = 1000;
    side_make(&a, &b, "a", 1, 0);
    side_make(&b, &a, "b", 2, 0);
    side_make(&c, &b, "c", 1, 0);
    struct id id = content(&a, 12, 20 * CID_CHUNK);
    cr_assert(id_eq(&id, (struct id[]){ content(&c, 12, 20 * CID_CHUNK) }));
    cr_assert_eq(xfers_offer(a.x, 1, 7, &id, "log", "", now, NULL), 0);
    run(&a, &b, &now, now + 5);
    cr_assert(b.chunks && b.chunks < 20);
    /* as the peer 3, which is asked for nothing, and so knows that it is heard */
    struct msg offer = {
        .type = M_PUT_OFFER,
        .put_offer = { .req = 8, .id = id, .size_b = 20 * CID_CHUNK, .kind = "log", .name = "" }
    };
    b.both = &c;
    for (int i = 0; i < 3; i++) { /* it repeats itself */
        cr_assert_eq(xfers_msg(b.x, 3, &offer, now), 1);
        struct msg m;
        for (; c.n; buf_clear(&c.q[--c.n])) {
            cr_assert_eq(msg_decode(c.q[c.n - 1].data, c.q[c.n - 1].len, &m, NULL), 0);
            cr_assert(m.type == M_GET && m.get.req == 8 && !m.get.credit && !m.get.want_hashes);
            msg_clear(&m);
        }
    }
    unsigned before = b.chunks;
    run(&a, &b, &now, now + 3000);
    cr_assert(a.ends[XFERS_OUT] == 1 && a.last.code == 0);
    cr_assert_eq(b.chunks, 20, "%u before", before);
    cr_assert_eq(b.ends[XFERS_IN], 1, "one artefact");
    struct msg m;
    cr_assert_eq(c.n, 1);
    cr_assert_eq(msg_decode(c.q[0].data, c.q[0].len, &m, NULL), 0);
    cr_assert(m.type == M_PUT_HAVE && m.put_have.req == 8 && id_eq(&m.put_have.id, &id));
    msg_clear(&m);
    side_free(&a);
    side_free(&b);
    side_free(&c);
}
