/* The receiver and the sender machine face to face over a channel that loses, doubles, reorders, delays and damages. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/rng.h"
#include "proto/xfer/xfer.h"

enum { CHUNKS_MAX = 400, FLIGHT_MAX = 4096 };

/* Chunk i is one byte of value i (mod 251): content does not matter to the machines, which chunk it is does. */
struct world {
    struct rng rng;
    uint64_t now, size;
    size_t n;
    struct id id, hashes[CHUNKS_MAX];
    struct xfer_recv r;
    struct xfer_send s;
    uint8_t stored[CHUNKS_MAX];
    unsigned writes, done, failed, commits;
    int code;
    int loss, dup, damage; /* per cent */
    struct {
        uint64_t at;
        bool to_sender;
        struct msg m;
        uint8_t byte;
    } flight[FLIGHT_MAX];
    size_t n_flight;
    uint64_t sent_msgs;
};

static void world_make(struct world *w, uint64_t seed, size_t n)
{
    memset(w, 0, sizeof(*w));
    w->rng.s = seed;
    w->now = 1000;
    w->n = n;
    w->size = n ? (n - 1) * (uint64_t)CID_CHUNK + 1 + rng_below(&w->rng, CID_CHUNK) : 0;
    for (size_t i = 0; i < n; i++)
        hash_bytes(&i, sizeof(i), &w->hashes[i]);
    cid_of_chunks(w->size, w->hashes, n, &w->id);
    xfer_send_init(&w->s, &w->id, w->size);
}

static void fly(struct world *w, bool to_sender, const struct msg *m, uint8_t byte)
{
    w->sent_msgs++;
    for (int k = rng_below(&w->rng, 100) < (uint64_t)w->dup ? 2 : 1; k; k--) {
        if (rng_below(&w->rng, 100) < (uint64_t)w->loss || w->n_flight == FLIGHT_MAX)
            continue;
        w->flight[w->n_flight].at = w->now + 1 + rng_below(&w->rng, 50);
        w->flight[w->n_flight].to_sender = to_sender;
        w->flight[w->n_flight].m = *m;
        w->flight[w->n_flight++].byte = byte;
    }
}

static void step(struct world *w, const struct xfer_event *ev);

static void act(struct world *w, const struct xfer_actions *acts)
{
    for (size_t i = 0; i < acts->n; i++) {
        const struct xfer_action *a = &acts->v[i];
        struct xfer_event ev = { 0 };
        switch (a->kind) {
        case XFER_DO_SEND:
            fly(w, true, &a->msg, 0);
            continue;
        case XFER_DO_OPEN:
            cr_assert(a->n == w->n && a->size_b == w->size);
            ev.kind = XFER_EV_OPENED;
            uint8_t have[CHUNKS_MAX / 8 + 1] = { 0 };
            for (size_t k = 0; k < w->n; k++)
                have[k / 8] |= (uint8_t)(w->stored[k] << (k % 8));
            ev.have = have;
            step(w, &ev);
            continue;
        case XFER_DO_WRITE:
            ev.kind = XFER_EV_WROTE;
            ev.index = a->index;
            w->writes++;
            if (*a->data == (uint8_t)(a->index % 251))
                w->stored[a->index] = 1;
            else
                ev.r = -SF_EINTEGRITY;
            break;
        case XFER_DO_COMMIT:
            for (size_t k = 0; k < w->n; k++)
                cr_assert(w->stored[k], "committed without chunk %zu", k);
            w->commits++;
            ev.kind = XFER_EV_COMMITTED;
            break;
        case XFER_DO_DONE:
            w->done++;
            continue;
        case XFER_DO_FAIL:
            w->failed++;
            w->code = a->code;
            continue;
        }
        step(w, &ev);
    }
}

static void step(struct world *w, const struct xfer_event *ev)
{
    struct xfer_actions acts;
    xfer_recv_step(&w->r, ev, w->now, &acts);
    act(w, &acts);
    const char *broken = xfer_recv_check(&w->r);
    cr_assert(!broken, "after event %d: %s", (int)ev->kind, broken);
}

static void send_owed(struct world *w)
{
    uint64_t index, n;
    for (int what; (what = xfer_send_next(&w->s, &index, &n));) {
        struct msg m = { 0 };
        uint8_t byte = (uint8_t)(index % 251);
        if (what == 1) {
            m.type = M_HASHES;
            m.hashes.id = w->id;
            m.hashes.size_b = w->size;
            m.hashes.first = index;
            m.hashes.hashes = (const uint8_t *)(w->hashes + index);
            m.hashes.hashes_len = n * ID_LEN;
        } else {
            m.type = M_CHUNK;
            m.chunk.id = w->id;
            m.chunk.index = index;
            m.chunk.data_len = 1;
            if (rng_below(&w->rng, 100) < (uint64_t)w->damage)
                byte++;
        }
        fly(w, false, &m, byte);
        xfer_send_done(&w->s);
    }
}

static void begin(struct world *w)
{
    struct xfer_actions acts;
    xfer_recv_init(&w->r, 5, &w->id, UINT64_MAX, 1ull << 40, w->now, &acts);
    act(w, &acts);
}

/* Let time pass until the transfer ended. */
static void run(struct world *w, uint64_t until)
{
    while (!w->done && !w->failed && w->now < until) {
        uint64_t next = xfer_recv_deadline(&w->r);
        size_t pick = SIZE_MAX;
        for (size_t i = 0; i < w->n_flight; i++)
            if (w->flight[i].at <= next &&
                (pick == SIZE_MAX || w->flight[i].at < w->flight[pick].at))
                pick = i;
        if (pick == SIZE_MAX) {
            cr_assert_neq(next, UINT64_MAX, "nothing to wait for");
            w->now = next;
            step(w, &(struct xfer_event){ .kind = XFER_EV_TICK });
            continue;
        }
        struct msg m = w->flight[pick].m;
        uint8_t byte = w->flight[pick].byte;
        bool to_sender = w->flight[pick].to_sender;
        if (w->flight[pick].at > w->now)
            w->now = w->flight[pick].at;
        w->flight[pick] = w->flight[--w->n_flight];
        if (to_sender) {
            cr_assert_eq(xfer_send_get(&w->s, &m.get), 0);
            send_owed(w);
        } else {
            if (m.type == M_CHUNK)
                m.chunk.data = &byte;
            step(w, &(struct xfer_event){ .kind = XFER_EV_MSG, .msg = &m });
        }
    }
}

Test(xfer, every_schedule_ends_whole_or_says_why)
{
    static const struct {
        size_t n;
        int loss, dup, damage;
    } rows[] = { { 0, 0, 0, 0 },   { 1, 0, 0, 0 },     { 300, 0, 0, 0 },  { 40, 20, 0, 0 },
                 { 40, 0, 50, 0 }, { 100, 10, 10, 0 }, { 100, 5, 20, 2 }, { 17, 40, 40, 0 } };
    struct world *w = malloc(sizeof(*w));
    for (size_t k = 0; k < ARRAY_LEN(rows); k++)
        for (uint64_t seed = 1; seed <= 40; seed++) {
            world_make(w, seed * 977 + k, rows[k].n);
            w->loss = rows[k].loss;
            w->dup = rows[k].dup;
            w->damage = rows[k].damage;
            begin(w);
            run(w, UINT64_MAX);
            cr_assert(w->done == 1 || (rows[k].damage && w->code == SF_EINTEGRITY),
                      "row %zu seed %lu: done %u failed %u code %d", k, (unsigned long)seed,
                      w->done, w->failed, w->code);
            cr_assert_eq(w->commits, w->done);
            if (!rows[k].damage)
                cr_assert_eq(w->writes, rows[k].n, "each chunk is stored once");
            xfer_recv_clear(&w->r);
        }
    free(w);
}

Test(xfer, a_clean_channel_costs_one_question_for_several_chunks)
{
    struct world *w = malloc(sizeof(*w));
    world_make(w, 3, 320);
    begin(w);
    run(w, UINT64_MAX);
    cr_assert_eq(w->done, 1);
    cr_assert(w->sent_msgs < 320 + 320 / 4, "%lu messages for 320 chunks",
              (unsigned long)w->sent_msgs);
    xfer_recv_clear(&w->r);
    free(w);
}

Test(xfer, what_is_here_already_is_not_asked_for)
{
    struct world *w = malloc(sizeof(*w));
    world_make(w, 4, 200);
    for (size_t i = 0; i < 200; i++)
        w->stored[i] = i % 3 != 1;
    begin(w);
    run(w, UINT64_MAX);
    cr_assert_eq(w->done, 1);
    cr_assert_eq(w->writes, 67);
    xfer_recv_clear(&w->r);

    world_make(w, 5, 200);
    memset(w->stored, 1, 200);
    begin(w);
    run(w, UINT64_MAX);
    cr_assert(w->done == 1 && w->writes == 0);
    xfer_recv_clear(&w->r);
    free(w);
}

Test(xfer, silence_is_asked_again_and_ends_in_a_deadline)
{
    struct world *w = malloc(sizeof(*w));
    world_make(w, 6, 10);
    w->loss = 100;
    begin(w);
    run(w, UINT64_MAX);
    cr_assert(w->failed == 1 && w->code == ETIMEDOUT);
    cr_assert_eq(w->sent_msgs, XFER_TRIES);
    cr_assert_eq(w->now, 1000 + (uint64_t)XFER_TRIES * XFER_TIMEOUT_MS);
    xfer_recv_clear(&w->r);
    free(w);
}

Test(xfer, a_new_connection_goes_on_at_once_without_repeating_chunks)
{
    struct world *w = malloc(sizeof(*w));
    world_make(w, 7, 100);
    begin(w);
    run(w, w->now + 200);
    cr_assert(w->r.state == XFER_CHUNKS && w->r.n_have > 0);
    w->n_flight = 0; /* all that was on the way is lost */
    step(w, &(struct xfer_event){ .kind = XFER_EV_UP });
    uint64_t then = w->now;
    run(w, UINT64_MAX);
    cr_assert(w->done == 1 && w->writes == 100);
    cr_assert(w->now < then + XFER_TIMEOUT_MS, "it waited for a timeout");
    xfer_recv_clear(&w->r);
    free(w);
}

static void say(struct world *w, struct msg *m)
{
    step(w, &(struct xfer_event){ .kind = XFER_EV_MSG, .msg = m });
}

Test(xfer, a_lying_sender_is_told_from_a_slow_one)
{
    struct world *w = malloc(sizeof(*w));
    static const struct {
        const char *what;
        uint64_t size, first;
        size_t len;
        bool flip;
        int code; /* 0 = no harm, still waiting */
    } rows[] = {
        { "size too large", UINT64_MAX, 0, 0, false, EFBIG },
        { "too many hashes", 10 * CID_CHUNK, 0, 11 * ID_LEN, false, SF_EINTEGRITY },
        { "hashes past the end", 10 * CID_CHUNK, 8, 3 * ID_LEN, false, SF_EINTEGRITY },
        { "first past the end", 10 * CID_CHUNK, UINT64_MAX, ID_LEN, false, SF_EINTEGRITY },
        { "half a hash", 10 * CID_CHUNK, 0, 33, false, SF_EINTEGRITY },
        { "other hashes", 10 * CID_CHUNK, 0, 10 * ID_LEN, true, SF_EINTEGRITY },
        { "a later part first", 10 * CID_CHUNK, 5, 2 * ID_LEN, false, 0 },
        { "an empty part", 10 * CID_CHUNK, 0, 0, false, 0 },
    };
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        struct id list[11];
        world_make(w, 8, 10);
        memcpy(list, w->hashes, sizeof(list));
        w->size = 10 * CID_CHUNK;
        cid_of_chunks(w->size, w->hashes, 10, &w->id);
        begin(w);
        list[3].b[0] ^= rows[k].flip;
        struct msg m = { .type = M_HASHES,
                         .hashes = { .id = w->id,
                                     .size_b = rows[k].size,
                                     .first = rows[k].first,
                                     .hashes = (const uint8_t *)list,
                                     .hashes_len = rows[k].len } };
        say(w, &m);
        cr_assert_eq(w->code, rows[k].code, "%s: code %d", rows[k].what, w->code);
        cr_assert_eq(w->failed, rows[k].code != 0, "%s", rows[k].what);
        xfer_recv_clear(&w->r);
    }
    free(w);
}

/* More than 32 GiB: the list of hashes needs several messages, and one of them is lost. */
Test(xfer, a_long_list_of_hashes_comes_in_parts)
{
    enum { N = 70000 };
    struct id *list = malloc(N * sizeof(*list)), id;
    struct xfer_recv r;
    struct xfer_send s;
    struct xfer_actions acts;
    uint64_t index, n, now = 0, size = (N - 1) * (uint64_t)CID_CHUNK + 1;
    int lost = 0, asked = 0;
    for (size_t i = 0; i < N; i++)
        memset(&list[i], (int)(i % 255), sizeof(list[i]));
    cid_of_chunks(size, list, N, &id);
    xfer_send_init(&s, &id, size);
    xfer_recv_init(&r, 1, &id, UINT64_MAX, UINT64_C(1) << 44, now, &acts);
    while (r.state == XFER_HASHES) {
        cr_assert(acts.n == 1 && acts.v[0].kind == XFER_DO_SEND && asked++ < 3);
        cr_assert_eq(xfer_send_get(&s, &acts.v[0].msg.get), 0);
        while (xfer_send_next(&s, &index, &n) == 1) {
            cr_assert(n <= XFER_HASHES_MSG);
            struct msg m = { .type = M_HASHES,
                             .hashes = { .id = id,
                                         .size_b = size,
                                         .first = index,
                                         .hashes = list[index].b,
                                         .hashes_len = n * ID_LEN } };
            xfer_send_done(&s);
            if (index && !lost++)
                continue;
            xfer_recv_step(&r, &(struct xfer_event){ .kind = XFER_EV_MSG, .msg = &m }, now, &acts);
            cr_assert_null(xfer_recv_check(&r));
        }
        if (r.state != XFER_HASHES)
            break;
        now = xfer_recv_deadline(&r);
        xfer_recv_step(&r, &(struct xfer_event){ .kind = XFER_EV_TICK }, now, &acts);
    }
    cr_assert_eq(r.state, XFER_OPENING);
    cr_assert(acts.n == 1 && acts.v[0].kind == XFER_DO_OPEN && acts.v[0].n == N);
    cr_assert(!memcmp(acts.v[0].hashes, list, N * sizeof(*list)));
    cr_assert_eq(asked, 2);
    xfer_recv_clear(&r);
    free(list);
}

Test(xfer, messages_of_others_and_late_ones_change_nothing)
{
    struct world *w = malloc(sizeof(*w));
    struct xfer_actions acts;
    uint8_t byte = 0;
    world_make(w, 9, 5);
    begin(w);
    struct msg chunk = { .type = M_CHUNK, .chunk = { .id = w->id, .data = &byte, .data_len = 1 } };
    say(w, &chunk); /* before it was asked for */
    cr_assert_eq(w->writes, 0);
    struct msg other = { .type = M_XFER_FAIL, .xfer_fail = { .code = "NO_SPACE", .text = "x" } };
    say(w, &other);
    cr_assert_eq(w->failed, 0);
    run(w, UINT64_MAX);
    cr_assert_eq(w->done, 1);
    xfer_recv_step(&w->r, &(struct xfer_event){ .kind = XFER_EV_MSG, .msg = &chunk }, w->now,
                   &acts);
    cr_assert_eq(acts.n, 0);
    xfer_recv_step(&w->r, &(struct xfer_event){ .kind = XFER_EV_TICK }, UINT64_MAX, &acts);
    cr_assert_eq(acts.n, 0);
    xfer_recv_clear(&w->r);

    world_make(w, 9, 5);
    begin(w);
    other.xfer_fail.id = w->id;
    say(w, &other);
    cr_assert(w->failed == 1 && w->code == ENOSPC);
    xfer_recv_clear(&w->r);
    free(w);
}

Test(xfer, a_full_disk_ends_it_and_keeps_what_came)
{
    struct xfer_recv r;
    struct xfer_actions acts;
    struct id hash, id;
    hash_bytes("x", 1, &hash);
    cid_of_chunks(1, &hash, 1, &id);
    xfer_recv_init(&r, 1, &id, 1, 100, 0, &acts);
    struct msg m = { .type = M_HASHES,
                     .hashes = { .id = id, .size_b = 1, .hashes = hash.b, .hashes_len = 32 } };
    xfer_recv_step(&r, &(struct xfer_event){ .kind = XFER_EV_MSG, .msg = &m }, 1, &acts);
    cr_assert(acts.n == 1 && acts.v[0].kind == XFER_DO_OPEN);
    xfer_recv_step(&r, &(struct xfer_event){ .kind = XFER_EV_OPENED, .r = -ENOSPC, .text = "full" },
                   2, &acts);
    cr_assert(acts.n == 1 && acts.v[0].kind == XFER_DO_FAIL && acts.v[0].code == ENOSPC);
    cr_assert_str_eq(acts.v[0].text, "full");
    cr_assert_eq(xfer_recv_deadline(&r), UINT64_MAX);
    xfer_recv_clear(&r);
}

Test(xfer, a_sender_gives_what_it_has_and_owes_a_bounded_number)
{
    struct xfer_send s;
    struct id id = { { 1 } };
    uint64_t index, n;
    xfer_send_init(&s, &id, 100ull * CID_CHUNK);
    struct msg_get g = { .first = 90, .credit = 11 };
    cr_assert_eq(xfer_send_get(&s, &g), -EINVAL);
    g = (struct msg_get){ .first = UINT64_MAX, .credit = 1 };
    cr_assert_eq(xfer_send_get(&s, &g), -EINVAL);
    g = (struct msg_get){ .first = 0, .credit = 65 };
    cr_assert_eq(xfer_send_get(&s, &g), -EINVAL);
    g = (struct msg_get){ .want_hashes = 1, .first = 101 };
    cr_assert_eq(xfer_send_get(&s, &g), -EINVAL);
    for (uint64_t i = 0; i < 100; i += 10) {
        g = (struct msg_get){ .first = i, .credit = 10 };
        cr_assert_eq(xfer_send_get(&s, &g), 0);
        cr_assert_eq(xfer_send_get(&s, &g), 0);
    }
    size_t owed = 0;
    while (xfer_send_next(&s, &index, &n)) {
        cr_assert_eq(index, owed);
        owed++;
        xfer_send_done(&s);
    }
    cr_assert_eq(owed, XFER_CREDIT_MAX);
}
