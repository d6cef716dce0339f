/* The two machines of a stream over a channel that loses, doubles, delays and overtakes, with ends that are killed; and
 * the taking end over a real store. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/rng.h"
#include "proto/cas/grow.h"
#include "proto/xfer/stream.h"
#include "proto/xfer/streams.h"

enum { FLIGHT = 512 };

static struct {
    struct rng g;
    uint64_t now, size, freed_disk; /* freed_disk: what the sender's notes say */
    struct stream_send s;
    struct stream_recv r;
    bool done, ended;
    struct {
        bool used, to_recv;
        uint64_t at;
        enum stream_what what;
        uint64_t a, b; /* place and length; taken and durable */
    } fly[FLIGHT];
    int loss, dup;
} w;

static void send_one(bool to_recv, enum stream_what what, uint64_t a, uint64_t b)
{
    for (int k = (int)rng_below(&w.g, 100) < w.dup ? 2 : 1; k; k--) {
        if ((int)rng_below(&w.g, 100) < w.loss)
            continue;
        for (size_t i = 0; i < FLIGHT; i++)
            if (!w.fly[i].used) {
                w.fly[i].used = true;
                w.fly[i].to_recv = to_recv;
                w.fly[i].at = w.now + 1 + rng_below(&w.g, w.loss ? 40 : 1);
                w.fly[i].what = what;
                w.fly[i].a = a;
                w.fly[i].b = b;
                break;
            }
    }
}

static void tell(void)
{
    send_one(false, STREAM_SEND_NOTHING, w.r.taken_b, w.r.durable_b);
}

static void deliver(size_t i)
{
    uint64_t a = w.fly[i].a, b = w.fly[i].b;
    w.fly[i].used = false;
    if (!w.fly[i].to_recv) {
        if (w.fly[i].what == STREAM_SEND_END) {
            stream_send_over(&w.s, true);
        } else {
            stream_send_at(&w.s, a, b, w.now);
        }
        return;
    }
    switch (w.fly[i].what) {
    case STREAM_SEND_DATA:
        stream_recv_data(&w.r, a, b, w.now);
        tell();
        break;
    case STREAM_SEND_END:
        if (w.done || w.r.taken_b == a) {
            w.done = true;
            send_one(false, STREAM_SEND_END, 0, 0);
        } else {
            tell();
        }
        break;
    default:
        cr_assert(w.r.durable_b >= a, "freed and not there");
        tell();
        break;
    }
}

static void turn(void)
{
    uint64_t off = 0, n = 0;
    enum stream_what what;
    w.now++;
    for (size_t i = 0; i < FLIGHT; i++)
        if (w.fly[i].used && w.fly[i].at <= w.now)
            deliver(i);
    if (stream_recv_due(&w.r, w.now)) {
        stream_recv_synced(&w.r);
        tell();
    }
    while ((what = stream_send_next(&w.s, w.now, &off, &n)) != STREAM_SEND_NOTHING) {
        if (what == STREAM_SEND_OPEN)
            off = w.s.freed_b;
        else if (what == STREAM_SEND_END)
            off = w.size;
        send_one(true, what, off, n);
        stream_sent(&w.s, what, n, w.now);
    }
    if (w.s.durable_b > w.s.freed_b && w.s.state == STREAM_FLOW)
        w.freed_disk = w.s.freed_b = w.s.durable_b;
    if (!w.done)
        cr_assert(w.freed_disk <= w.r.durable_b, "freed %llu, durable %llu",
                  (unsigned long long)w.freed_disk, (unsigned long long)w.r.durable_b);
    const char *why = stream_send_check(&w.s);
    cr_assert(!why, "%s", why);
}

static void begin(uint64_t seed, uint64_t size, int loss, int dup)
{
    memset(&w, 0, sizeof(w));
    w.g.s = seed;
    w.now = 1000;
    w.size = size;
    w.loss = loss;
    w.dup = dup;
    stream_send_init(&w.s, 0);
    stream_recv_init(&w.r, 0);
}

Test(stream, what_grows_arrives_and_is_freed_on_the_way)
{
    begin(1, (12 << 20) + 77, 0, 0);
    uint64_t grown = 0, kept_most = 0;
    while (w.s.state != STREAM_DONE) {
        grown = grown + 100000 < w.size ? grown + 100000 : w.size;
        stream_send_grew(&w.s, grown);
        if (grown == w.size)
            stream_send_ended(&w.s);
        else if (grown - w.s.freed_b > kept_most)
            kept_most = grown - w.s.freed_b;
        turn();
        cr_assert(w.now < 100000);
    }
    cr_assert_eq(w.r.taken_b, w.size);
    cr_assert(kept_most <= STREAM_SYNC_B + 2 * (uint64_t)CID_CHUNK, "kept %llu",
              (unsigned long long)kept_most);
}

Test(stream, nothing_is_sent_of_less_than_a_piece_until_the_end)
{
    uint64_t off, n;
    begin(1, 1000, 0, 0);
    stream_send_grew(&w.s, 1000);
    turn();
    turn();
    turn();
    cr_assert_eq(w.r.taken_b, 0);
    cr_assert_eq(stream_send_next(&w.s, w.now, &off, &n), STREAM_SEND_NOTHING);
    stream_send_ended(&w.s);
    for (int i = 0; i < 20; i++)
        turn();
    cr_assert_eq(w.s.state, STREAM_DONE);
    cr_assert_eq(w.r.taken_b, 1000);
}

Test(stream, an_empty_one_is_an_artefact_too)
{
    begin(1, 0, 0, 0);
    stream_send_ended(&w.s);
    for (int i = 0; i < 20; i++)
        turn();
    cr_assert_eq(w.s.state, STREAM_DONE);
}

Test(stream, any_loss_and_any_kill_costs_time_only)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        begin(seed, 0, 12, 10);
        w.size = rng_below(&w.g, 20 << 20);
        uint64_t grown = 0, stop = 0;
        while (w.s.state != STREAM_DONE) {
            grown += rng_below(&w.g, 300000);
            if (grown > w.size)
                grown = w.size;
            stream_send_grew(&w.s, grown);
            if (grown == w.size)
                stream_send_ended(&w.s);
            turn();
            cr_assert(++stop < 400000, "seed %llu: never over", (unsigned long long)seed);
            if (stop > 5000)
                w.loss = w.dup = 0;
            uint64_t luck = stop < 5000 ? rng_below(&w.g, 1000) : 999;
            if (luck == 0 && !w.done) { /* the taking end is killed: what was not durable is lost */
                stream_recv_init(&w.r, w.r.durable_b);
                stream_send_up(&w.s);
            } else if (luck == 1) { /* the sending end is; its file and its notes stay */
                stream_send_init(&w.s, w.freed_disk);
            } else if (luck == 2) {
                stream_send_up(&w.s);
            }
        }
        cr_assert(w.done);
    }
}

/* ---- the taking end over a store */

static char root[256];
static struct cas *cas;
static struct streams *ss;
static struct {
    struct msg_stream_at at;
    bool have_at, over, no_room;
    char code[65];
    unsigned ended;
    struct xfers_end end;
} got;

static int on_send(void *ctx, uint64_t peer, const struct msg *m)
{
    (void)ctx, (void)peer;
    if (m->type == M_STREAM_AT) {
        got.at = m->stream_at;
        got.have_at = true;
    } else if (m->type == M_STREAM_OVER) {
        got.over = true;
        snprintf(got.code, sizeof(got.code), "%s", m->stream_over.code);
    }
    return 0;
}

static int on_ended(void *ctx, const struct xfers_end *end, struct err *e)
{
    (void)ctx, (void)e;
    got.ended++;
    got.end = *end;
    return 0;
}

static int on_room(void *ctx, uint64_t more, struct err *e)
{
    (void)ctx, (void)more;
    return got.no_room ? err_set(e, ENOSPC, "store: full") : 0;
}

static void again(void)
{
    struct err e = { 0 };
    struct streams_ops ops = { .send = on_send, .room = on_room, .ended = on_ended };
    streams_free(&ss);
    cas_free(&cas);
    cr_assert(cas_open(root, 0, &cas, &e) == 0, "%s", e.text);
    ss = streams_new(cas, &ops);
    cr_assert(ss);
}

static void start(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof(root), "%s/siofleet-stream.XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(root));
    again();
}

static void stop(void)
{
    streams_free(&ss);
    cas_free(&cas);
    dir_remove(root, NULL);
}

TestSuite(streams, .init = start, .fini = stop);

static const struct id key = { { 7 } };

static void put_open(const char *who, uint64_t freed)
{
    struct msg m = { .type = M_STREAM_OPEN,
                     .stream_open = { .stream = key, .freed_b = freed, .kind = "log" } };
    got.have_at = got.over = false;
    streams_msg(ss, 5, who, &m, 1000);
}

static void put(const char *who, const uint8_t *p, uint64_t from, uint64_t to)
{
    for (uint64_t n; from < to; from += n) {
        n = to - from < STREAM_PIECE ? to - from : STREAM_PIECE;
        struct msg m = { .type = M_STREAM_DATA,
                         .stream_data = {
                             .stream = key, .offset = from, .data = p + from, .data_len = n } };
        streams_msg(ss, 5, who, &m, 1000);
    }
}

static void put_end(const char *who, uint64_t size, const struct id *id, uint64_t freed)
{
    struct msg m = { .type = M_STREAM_END,
                     .stream_end = { .stream = key,
                                     .freed_b = freed,
                                     .size_b = size,
                                     .id = *id,
                                     .kind = "log",
                                     .name = "log.slog" } };
    got.have_at = got.over = false;
    streams_msg(ss, 5, who, &m, 1000);
}

static uint8_t *content(uint64_t size, struct id *id)
{
    uint8_t *p = malloc(size + 1);
    struct rng g = { size };
    for (uint64_t i = 0; i < size; i++)
        p[i] = (uint8_t)rng_u64(&g);
    cid_bytes(p, size, id);
    return p;
}

static unsigned growing(void)
{
    CLEANUP(freep) char *cmd = path_fmt("ls %s/growing 2>/dev/null | wc -l", root);
    FILE *f = popen(cmd, "r");
    unsigned n = 99;
    cr_assert(f && fscanf(f, "%u", &n) == 1);
    pclose(f);
    return n;
}

Test(streams, a_growing_artefact_is_seen_only_when_whole_and_goes_on_after_a_kill)
{
    struct id id;
    uint64_t chunk;
    CLEANUP(freep) uint8_t *p = content((3 << 20) + 5, &id);
    put_open("a", 0);
    cr_assert(got.have_at && got.at.taken_b == 0);
    put("a", p, 0, (5 << 19));
    cr_assert_eq(got.at.taken_b, 5 << 19);
    cr_assert_eq(got.at.durable_b, 0);
    streams_tick(ss, 3000);
    cr_assert_eq(got.at.durable_b, 2 << 20);
    cr_assert(!cas_has(cas, &id));
    again(); /* what was behind the last durable chunk is asked for again */
    put_open("a", 2 << 20);
    cr_assert(got.have_at && got.at.taken_b == 2 << 20 && got.at.durable_b == 2 << 20);
    put("a", p, 2 << 20, (3 << 20) + 5);
    put_end("a", (3 << 20) + 5, &id, 2 << 20);
    cr_assert(got.over && !*got.code, "%s", got.code);
    cr_assert_eq(got.ended, 1);
    cr_assert(!strcmp(got.end.kind, "log") && got.end.size_b == (3 << 20) + 5);
    cr_assert(cas_has(cas, &id));
    cr_assert_eq(cas_verify(cas, &id, &chunk, NULL), 0);
    cr_assert_eq(growing(), 0);
    cr_assert_eq(cas_bytes(cas), (3 << 20) + 5);
    put_end("a", (3 << 20) + 5, &id, 3 << 20); /* the answer was lost */
    cr_assert(got.over && !*got.code);
}

Test(streams, bytes_that_are_not_what_was_written_are_no_artefact)
{
    struct id id;
    CLEANUP(freep) uint8_t *p = content(100000, &id);
    put_open("a", 0);
    p[5] ^= 1;
    put("a", p, 0, 100000);
    put_end("a", 100000, &id, 0);
    cr_assert(got.over && !strcmp(got.code, err_name(SF_EINTEGRITY)));
    cr_assert(!cas_has(cas, &id));
    cr_assert_eq(growing(), 0);
    cr_assert_eq(cas_bytes(cas), 0);
}

Test(streams, a_sender_that_has_freed_what_is_not_here_is_told)
{
    put_open("a", 1 << 20);
    cr_assert(got.over && *got.code);
    cr_assert_eq(growing(), 0);
}

Test(streams, another_key_cannot_add_to_it_or_drop_it)
{
    struct id id;
    CLEANUP(freep) uint8_t *p = content(100000, &id);
    struct msg drop = { .type = M_STREAM_DROP, .stream_drop = { .stream = key } };
    put_open("a", 0);
    put("a", p, 0, 65536);
    streams_msg(ss, 6, "b", &drop, 1000);
    put("b", p, 65536, 100000);
    put("a", p, 65536, 100000);
    put_end("a", 100000, &id, 0);
    cr_assert(got.over && !*got.code);
    put_open("a", 0);
    cr_assert_eq(growing(), 2);
    streams_msg(ss, 5, "a", &drop, 1000);
    cr_assert_eq(growing(), 0);
}

Test(streams, a_full_store_takes_nothing_and_goes_on_later)
{
    struct id id;
    CLEANUP(freep) uint8_t *p = content(300000, &id);
    put_open("a", 0);
    put("a", p, 0, 65536);
    got.no_room = true;
    put("a", p, 65536, 131072);
    got.no_room = false;
    put_open("a", 0);
    put("a", p, got.at.taken_b, 300000);
    put_end("a", 300000, &id, 0);
    cr_assert(got.over && !*got.code);
}

Test(streams, one_that_nobody_goes_on_with_is_removed)
{
    struct id id;
    CLEANUP(freep) uint8_t *p = content(70000, &id);
    put_open("a", 0);
    put("a", p, 0, 65536);
    cr_assert_eq(growing(), 2);
    again();
    streams_tick(ss, 1000);
    cr_assert_eq(growing(), 2);
    CLEANUP(freep) char *cmd = path_fmt("touch -d '8 days ago' %s/growing/*", root);
    cr_assert_eq(system(cmd), 0);
    again();
    streams_tick(ss, 1000);
    cr_assert_eq(growing(), 0);
    cr_assert_eq(cas_bytes(cas), 0);
}
