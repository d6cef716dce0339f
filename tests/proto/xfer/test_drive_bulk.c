/* Transfers that go beside the link: a coordinator and an agent in one process, real stores and bulk connections over loopback, the link
 * a queue in memory. When it goes so, when not, and what a connection that breaks or brings damaged chunks costs. */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/rng.h"
#include "proto/bulk/bulk.h"
#include "proto/cas/cas.h"
#include "proto/xfer/drive.h"

enum { QUEUE = 64, PATIENCE_MS = 60000, CHUNKS = 12 };

struct side {
    struct cas *cas;
    struct xfers *x;
    struct bulk *bulk;
    struct side *other;
    struct buf q[QUEUE];
    size_t n;
    unsigned chunks, tickets; /* of the link, that came to us */
    unsigned ends[2];
    struct xfers_end last;
    uint64_t features;
    bool deaf; /* tickets that come are for a port where nobody listens */
};

static char root[256];
static struct side home, away; /* the coordinator, an agent */
static struct xfer_store plain;
static atomic_bool full; /* nothing behind the fourth chunk finds space */
static unsigned closed;  /* puts that ended before they were whole */

static int put_write(void *put, uint64_t index, const void *p, size_t n, struct err *e)
{
    return full && index >= 4 ? err_set(e, ENOSPC, "no space")
                              : plain.put_write(put, index, p, n, e);
}

static void put_close(void *put)
{
    closed++;
    plain.close(put);
}

static int side_send(void *ctx, uint64_t peer, const struct msg *m)
{
    struct side *o = ((struct side *)ctx)->other;
    struct err e = { 0 };
    struct msg bent = *m;
    (void)peer;
    if (o->n == QUEUE)
        return -EAGAIN;
    o->chunks += m->type == M_CHUNK;
    o->tickets += m->type == M_BULK_TICKET;
    if (m->type == M_BULK_TICKET && o->deaf) { /* the discard port: refused at once */
        bent.bulk_ticket.dial = ":9";
        bent.bulk_ticket.dial_len = 2;
    }
    o->q[o->n] = BUF_INIT(FRAME_MAX + 4096);
    cr_assert(msg_encode(&bent, &o->q[o->n], &e) == 0, "%s", e.text);
    o->n++;
    return 0;
}

static int side_ended(void *ctx, const struct xfers_end *end, struct err *e)
{
    struct side *s = ctx;
    (void)e;
    s->ends[end->dir]++;
    s->last = *end;
    return 0;
}

static uint64_t side_features(void *ctx, uint64_t peer)
{
    (void)peer;
    return ((struct side *)ctx)->features;
}

static void side_make(struct side *s, struct side *other, const char *name, bool coordinator)
{
    struct err e = { 0 };
    CLEANUP(freep) char *dir = path_fmt("%s/%s", root, name);
    struct bulk_conf conf = { .listen = coordinator ? "tcp://127.0.0.1:*" : NULL };
    *s = (struct side){ .other = other, .features = bulk_features() };
    cr_assert(cas_open(dir, 0, &s->cas, &e) == 0, "%s", e.text);
    struct xfer_store st = xfer_store_cas(s->cas);
    plain = st;
    st.put_write = put_write;
    st.close = put_close;
    struct xfers_ops ops = {
        .ctx = s, .send = side_send, .ended = side_ended, .features = side_features
    };
    cr_assert((s->x = xfers_new(&st, &ops, 1 << 30)));
    cr_assert(bulk_new(&conf, &s->bulk, &e) == 0, "%s", e.text);
    cr_assert_eq(xfers_set_bulk(s->x, &(struct xfers_bulk){ .bulk = s->bulk,
                                                            .makes_tickets = coordinator,
                                                            .host = "127.0.0.1" }),
                 0);
}

static void start(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof(root), "%s/siofleet-drive.XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(root));
    full = false;
    closed = 0;
    side_make(&home, &away, "home", true);
    side_make(&away, &home, "away", false);
}

static void side_free(struct side *s)
{
    xfers_free(&s->x);
    bulk_free(&s->bulk);
    cas_free(&s->cas);
    while (s->n)
        buf_clear(&s->q[--s->n]);
}

static void stop(void)
{
    side_free(&home);
    side_free(&away);
    dir_remove(root, NULL);
}

TestSuite(drive_bulk, .init = start, .fini = stop);

static void turn(struct side *s)
{
    xfers_tick(s->x, clock_mono_ms());
    while (s->n) {
        struct msg m;
        struct buf b = s->q[0];
        memmove(s->q, s->q + 1, --s->n * sizeof(s->q[0]));
        cr_assert_eq(msg_decode(b.data, b.len, &m, NULL), 0);
        cr_assert_eq(xfers_msg(s->x, 1, &m, clock_mono_ms()), 1);
        msg_clear(&m);
        buf_clear(&b);
    }
}

#define UNTIL(cond)                                                                                \
    for (uint64_t end_ = clock_mono_ms() + PATIENCE_MS; !(cond); turns())                          \
    cr_assert(clock_mono_ms() < end_, "never: " #cond)

static void turns(void)
{
    struct pollfd p[2] = { { .fd = bulk_fd(home.bulk), .events = POLLIN },
                           { .fd = bulk_fd(away.bulk), .events = POLLIN } };
    poll(p, 2, home.n || away.n ? 0 : 10);
    turn(&home);
    turn(&away);
}

static struct id content(struct side *s, uint64_t seed, uint64_t size)
{
    struct rng r = { seed };
    struct err e = { 0 };
    struct id id;
    uint8_t *p = malloc(size);
    CLEANUP(freep) char *path = path_fmt("%s/content", root);
    for (uint64_t i = 0; i + 8 <= size; i += 8) {
        uint64_t v = rng_u64(&r);
        memcpy(p + i, &v, 8);
    }
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

static void offer(const struct id *id)
{
    struct err e = { 0 };
    cr_assert(xfers_offer(away.x, 1, 1, id, "log", "n", clock_mono_ms(), &e) == 0, "%s", e.text);
}

Test(drive_bulk, a_large_offer_and_a_large_fetch_go_beside_the_link)
{
    struct id up = content(&away, 1, CHUNKS * CID_CHUNK + 5),
              down = content(&home, 2, CHUNKS * CID_CHUNK);
    offer(&up);
    UNTIL(away.ends[XFERS_OUT] == 1);
    cr_assert(away.last.code == 0 && home.last.code == 0);
    cr_assert_eq(home.last.bulk_chunks, CHUNKS + 1);
    cr_assert_eq(xfers_fetch(away.x, 1, 0, &down, clock_mono_ms(), NULL), 0);
    UNTIL(away.ends[XFERS_IN] == 1);
    cr_assert(away.last.code == 0 && away.last.bulk_chunks == CHUNKS);
    cr_assert_eq(home.chunks + away.chunks, 0, "no chunk over the link");
    check_whole(&home, &up);
    check_whole(&away, &down);
}

Test(drive_bulk, small_ones_and_peers_without_the_feature_use_the_link)
{
    struct id small = content(&away, 3, 3 * CID_CHUNK),
              large = content(&away, 4, CHUNKS * CID_CHUNK);
    offer(&small);
    UNTIL(away.ends[XFERS_OUT] == 1);
    cr_assert(home.last.bulk_chunks == 0 && home.chunks == 3);
    home.features = 0;
    offer(&large);
    UNTIL(away.ends[XFERS_OUT] == 2);
    cr_assert(home.last.bulk_chunks == 0 && home.chunks == 3 + CHUNKS);
    check_whole(&home, &large);
}

Test(drive_bulk, a_port_that_cannot_be_reached_leads_to_the_link_and_is_left_alone_for_a_while)
{
    struct id one = content(&away, 5, CHUNKS * CID_CHUNK),
              two = content(&away, 6, CHUNKS * CID_CHUNK);
    away.deaf = true;
    offer(&one);
    UNTIL(away.ends[XFERS_OUT] == 1);
    cr_assert(away.last.code == 0 && home.last.bulk_chunks == 0 && home.chunks == CHUNKS);
    away.deaf = false;
    offer(&two);
    UNTIL(away.ends[XFERS_OUT] == 2);
    cr_assert(away.last.code == 0 && home.last.bulk_chunks == 0, "it is not tried again so soon");
    check_whole(&home, &one);
    check_whole(&home, &two);
}

Test(drive_bulk, a_disk_that_is_full_in_the_middle_is_told_and_what_had_come_is_not_sent_again)
{
    struct id id = content(&away, 7, CHUNKS * CID_CHUNK);
    full = true;
    offer(&id);
    UNTIL(away.ends[XFERS_OUT] == 1);
    cr_assert_eq(away.last.code, ENOSPC, "%s", away.last.text);
    cr_assert_not(cas_has(home.cas, &id));
    UNTIL(closed == 1); /* its threads may write until then */
    full = false;
    offer(&id);
    UNTIL(away.ends[XFERS_OUT] == 2);
    cr_assert_eq(away.last.code, 0, "%s", away.last.text);
    cr_assert(home.last.bulk_chunks >= CHUNKS - 4 && home.last.bulk_chunks < CHUNKS);
    check_whole(&home, &id);
}

Test(drive_bulk, damaged_bytes_of_the_sender_never_become_an_artefact)
{
    struct id id = content(&away, 8, CHUNKS * CID_CHUNK);
    CLEANUP(freep) char *path = cas_path(away.cas, &id);
    cr_assert_eq(chmod(path, 0600), 0);
    FILE *f = fopen(path, "r+");
    cr_assert(f && fseek(f, 5 * (long)CID_CHUNK, SEEK_SET) == 0 && fputs("rot", f) >= 0);
    fclose(f);
    offer(&id);
    UNTIL(away.ends[XFERS_OUT] == 1);
    cr_assert_eq(away.last.code, SF_EINTEGRITY, "%d %s", away.last.code, away.last.text);
    cr_assert_not(cas_has(home.cas, &id));
}
