
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/lib/zio.h"
#include "proto/wire/utf8.h"
#include "proto/xfer/drive_in.h"

enum {
    SENDERS_MAX = 1024,
    SENDERS_PEER_MAX = 64,
    SENDER_IDLE_MS = 60000, /* a receiver that asked nothing for so long is done */
    OFFER_TRIES = 24,       /* of XFER_TIMEOUT_MS each, without any sign of the receiver */
    PUMP_CHUNKS = 4,        /* chunks sent in one call: the loop has other things to do */
    FULL_RETRY_MS = 5,
    PACK_LEVEL = 1,
    CHECK_CHUNKS = 4, /* of an interrupted transfer that are hashed in one call */
};

struct xfers *xfers_new(const struct xfer_store *store, const struct xfers_ops *ops, uint64_t max_b)
{
    struct xfers *x = calloc(1, sizeof(*x));
    if (!x)
        return NULL;
    x->store = *store;
    x->ops = *ops;
    x->max_b = max_b;
    x->raw = malloc(CID_CHUNK);
    x->packed = malloc(zio_bound(CID_CHUNK));
    if (!x->raw || !x->packed)
        xfers_free(&x);
    return x;
}

static void in_free(struct xfers *x, struct in *in)
{
    if (in->put)
        x->store.close(in->put);
    xfer_recv_clear(&in->m);
    free(in);
    x->n_ins--;
}

static void bury(struct xfers *x)
{
    if (x->depth)
        return;
    for (struct in **p = &x->ins; *p;) {
        struct in *in = *p;
        if (in->dead) {
            *p = in->next;
            in_free(x, in);
        } else {
            p = &in->next;
        }
    }
    for (struct offer **p = &x->offers; *p;) {
        struct offer *o = *p;
        if (o->dead) {
            *p = o->next;
            free(o);
            x->n_offers--;
        } else {
            p = &o->next;
        }
    }
    for (struct sender **p = &x->senders; *p;) {
        struct sender *s = *p;
        if (s->dead) {
            *p = s->next;
            free(s->hashes);
            free(s);
            x->n_senders--;
        } else {
            p = &s->next;
        }
    }
}

void xfers_free(struct xfers **xp)
{
    struct xfers *x = *xp;
    if (!x)
        return;
    *xp = NULL;
    xfers_bulk_clear(x);
    for (struct in *i = x->ins; i; i = i->next)
        i->dead = true;
    for (struct offer *o = x->offers; o; o = o->next)
        o->dead = true;
    for (struct sender *s = x->senders; s; s = s->next)
        s->dead = true;
    x->depth = 0;
    bury(x);
    free(x->raw);
    free(x->packed);
    free(x->host);
    free(x->haves);
    free(x);
}

/* ---- messages */

int xfers_send(struct xfers *x, uint64_t peer, const struct msg *m)
{
    return x->ops.send(x->ops.ctx, peer, m);
}

void xfers_send_fail(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id, int code,
                     const char *text)
{
    char clean[1001];
    utf8_clean(text, clean, sizeof(clean));
    struct msg m = { .type = M_XFER_FAIL,
                     .xfer_fail = {
                         .req = req, .id = *id, .code = err_name(code), .text = clean } };
    xfers_send(x, peer, &m);
}

static void send_have(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id)
{
    struct msg m = { .type = M_PUT_HAVE, .put_have = { .req = req, .id = *id } };
    xfers_send(x, peer, &m);
}

/* ---- ends */

static int tell_end(struct xfers *x, const struct xfers_end *end, struct err *e)
{
    return x->ops.ended ? x->ops.ended(x->ops.ctx, end, e) : 0;
}

/* What the haves acknowledge is durable, or their puts fail. */
static void settle(struct xfers *x)
{
    struct err e = { 0 };
    int r = x->n_haves && x->ops.settle ? x->ops.settle(x->ops.ctx, &e) : 0;
    for (size_t i = 0; i < x->n_haves; i++) {
        const struct have *h = &x->haves[i];
        if (r < 0)
            xfers_send_fail(x, h->peer, h->req, &h->id, -r, e.text);
        else
            send_have(x, h->peer, h->req, &h->id);
    }
    x->n_haves = 0;
}

/* It has ended well: put_have, once that is settled. */
static void have(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id)
{
    if (x->n_haves == x->room_haves) {
        size_t room = x->room_haves ? x->room_haves * 2 : 16;
        void *v = realloc(x->haves, room * sizeof(*x->haves));
        if (!v)
            return; /* it offers again */
        x->haves = v;
        x->room_haves = room;
    }
    x->haves[x->n_haves++] = (struct have){ peer, req, *id };
    if (!x->ticks)
        settle(x);
}

static void in_end(struct xfers *x, struct in *in, int code, const char *text)
{
    struct err e = { 0 };
    if (in->dead)
        return;
    in->dead = true;
    if (code)
        xfers_bulk_no_more(x, &in->m.id);
    xfers_bulk_let_go(x, in);
    if (in->put) {
        x->store.close(in->put);
        in->put = NULL;
    }
    struct xfers_end end = { .dir = XFERS_IN,
                             .peer = in->peer,
                             .req = in->m.req,
                             .id = in->m.id,
                             .size_b = in->m.size_b == UINT64_MAX ? 0 : in->m.size_b,
                             .bulk_chunks = in->bulk_chunks,
                             .code = code };
    memcpy(end.kind, in->kind, sizeof(end.kind));
    memcpy(end.name, in->name, sizeof(end.name));
    snprintf(end.text, sizeof(end.text), "%s", text ? text : "");
    int r = tell_end(x, &end, &e);
    for (size_t i = 0; i < in->n_others && !code && r >= 0; i++)
        have(x, in->others[i].peer, in->others[i].req, &in->m.id);
    if (!in->offered || in->told)
        return;
    if (code)
        xfers_send_fail(x, in->peer, in->m.req, &in->m.id, code, text ? text : "");
    else if (r < 0)
        xfers_send_fail(x, in->peer, in->m.req, &in->m.id, -r, e.text);
    else
        have(x, in->peer, in->m.req, &in->m.id);
}

static void offer_end(struct xfers *x, struct offer *o, int code, const char *text)
{
    if (o->dead)
        return;
    o->dead = true;
    struct xfers_end end = { .dir = XFERS_OUT,
                             .peer = o->peer,
                             .req = o->req,
                             .id = o->id,
                             .size_b = o->size_b,
                             .code = code };
    memcpy(end.kind, o->kind, sizeof(end.kind));
    memcpy(end.name, o->name, sizeof(end.name));
    snprintf(end.text, sizeof(end.text), "%s", text ? text : "");
    tell_end(x, &end, NULL);
}

/* ---- receiving */

/* The chunks that are there, a bit each; owned. in->put NULL = all. */
static uint8_t *what_is_here(struct xfers *x, const struct in *in)
{
    uint8_t *have = calloc(1, in->m.n_chunks / 8 + 1);
    for (size_t i = 0; have && i < in->m.n_chunks; i++)
        if (!in->put || x->store.put_has(in->put, i))
            have[i / 8] |= (uint8_t)(1u << (i % 8));
    return have;
}

/* Its put is open. What an interrupted one left is looked at, a piece in each call, since it may be gigabytes; then what is missing
 * is asked for. */
static void in_check(struct xfers *x, struct in *in, int r, struct err *e, uint64_t now_ms)
{
    CLEANUP(freep) uint8_t *have = NULL;
    struct xfer_event ev = { .kind = XFER_EV_OPENED, .text = e->text };
    if (r >= 0 && in->put && x->store.put_check)
        r = x->store.put_check(in->put, CHECK_CHUNKS, e);
    else if (r >= 0)
        r = 1;
    in->checking = r == 0;
    if (in->checking)
        return;
    if (r >= 0 && !(have = what_is_here(x, in)))
        r = err_sys(e, ENOMEM, "transfer");
    ev.r = r < 0 ? r : 0;
    ev.have = have;
    if (r >= 0)
        xfers_bulk_begin(x, in, now_ms);
    xfers_in_step(x, in, &ev, now_ms);
}

static void in_open(struct xfers *x, struct in *in, const struct xfer_action *a, uint64_t now_ms)
{
    struct err e = { 0 };
    int r = x->store.begin(x->store.ctx, &in->m.id, a->size_b, a->hashes, a->n, &in->put, &e);
    if (r < 0)
        in->put = NULL;
    /* here: it came by another way meanwhile */
    in_check(x, in, r == -EEXIST ? 0 : r, &e, now_ms);
}

static int do_write(struct xfers *x, struct in *in, const struct xfer_action *a, struct err *e)
{
    const void *p = a->data;
    ssize_t n = (ssize_t)a->n;
    CLEANUP(freep) uint8_t *plain = NULL;
    if (a->packed) {
        plain = malloc(CID_CHUNK);
        if (!plain)
            return err_sys(e, ENOMEM, "transfer");
        n = zio_unpack(plain, CID_CHUNK, a->data, a->n);
        if (n < 0)
            return err_set(e, SF_EINTEGRITY, "chunk %llu: damaged", (unsigned long long)a->index);
        p = plain;
    }
    return x->store.write(in->put, a->index, p, (size_t)n, e);
}

/* Carry the actions out and feed their results back, until there are none. The machine answers one result with few actions, and
 * only SENDs follow more than once, so a small queue suffices. */
static void in_act(struct xfers *x, struct in *in, const struct xfer_actions *acts, uint64_t now_ms)
{
    for (size_t i = 0; i < acts->n && !in->dead; i++) {
        const struct xfer_action *a = &acts->v[i];
        struct err e = { 0 };
        struct xfer_event ev = { .text = e.text };
        switch (a->kind) {
        case XFER_DO_SEND:
            if (a->msg.type != M_GET || !xfers_bulk_get(x, in, &a->msg.get))
                xfers_send(x, in->peer, &a->msg);
            continue;
        case XFER_DO_OPEN:
            in_open(x, in, a, now_ms);
            continue;
        case XFER_DO_WRITE:
            ev.kind = XFER_EV_WROTE;
            ev.index = a->index;
            ev.r = in->put ? do_write(x, in, a, &e) : 0;
            break;
        case XFER_DO_COMMIT:
            if (xfers_bulk_commit(x, in))
                continue;
            in->commit_due = x->store.commit_all && in->put;
            if (!in->commit_due)
                xfers_in_commit(x, in, now_ms);
            continue;
        case XFER_DO_DONE:
            in_end(x, in, 0, NULL);
            return;
        case XFER_DO_FAIL:
            in_end(x, in, a->code, a->text);
            return;
        }
        xfers_in_step(x, in, &ev, now_ms);
    }
}

void xfers_in_step(struct xfers *x, struct in *in, const struct xfer_event *ev, uint64_t now_ms)
{
    struct xfer_actions acts;
    size_t had = in->m.n_have;
    xfer_recv_step(&in->m, ev, now_ms, &acts);
    if (ev->kind == XFER_EV_WROTE && ev->r >= 0)
        xfers_bulk_here(x, &in->m.id, ev->index);
    if (x->ops.moved && in->m.n_have != had) {
        uint64_t done = (uint64_t)in->m.n_have * CID_CHUNK;
        x->ops.moved(x->ops.ctx, XFERS_IN, &in->m.id, done < in->m.size_b ? done : in->m.size_b,
                     in->m.size_b);
    }
    in_act(x, in, &acts, now_ms);
}

void xfers_in_commit(struct xfers *x, struct in *in, uint64_t now_ms)
{
    struct err e = { 0 };
    struct xfer_event ev = { .kind = XFER_EV_COMMITTED, .text = e.text };
    ev.r = in->put ? x->store.commit(in->put, &e) : 0;
    if (ev.r >= 0)
        in->put = NULL;
    xfers_in_step(x, in, &ev, now_ms);
}

/* Commit what is due, as many at a time as fit. */
static void commit_due(struct xfers *x, uint64_t now_ms)
{
    struct in *v[XFERS_COMMIT_MAX];
    void *put[XFERS_COMMIT_MAX];
    int ret[XFERS_COMMIT_MAX];
    size_t n;
    do {
        n = 0;
        for (struct in *in = x->ins; in && n < XFERS_COMMIT_MAX; in = in->next) {
            if (in->dead || !in->commit_due)
                continue;
            in->commit_due = false;
            put[n] = in->put;
            v[n++] = in;
        }
        struct err *errs = n ? calloc(n, sizeof(*errs)) : NULL;
        if (errs)
            x->store.commit_all(put, n, ret, errs);
        for (size_t i = 0; i < n; i++) {
            struct xfer_event ev = { .kind = XFER_EV_COMMITTED,
                                     .r = errs ? ret[i] : -ENOMEM,
                                     .text = errs ? errs[i].text : "no memory" };
            if (ev.r >= 0)
                v[i]->put = NULL;
            xfers_in_step(x, v[i], &ev, now_ms);
        }
        free(errs);
    } while (n);
}

struct in *xfers_find_in(struct xfers *x, const struct id *id)
{
    for (struct in *i = x->ins; i; i = i->next)
        if (!i->dead && id_eq(&i->m.id, id))
            return i;
    return NULL;
}

static int in_new(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id, uint64_t size,
                  const struct msg_put_offer *o, uint64_t now_ms, struct err *e)
{
    struct xfer_actions acts;
    if (!x->store.begin)
        return err_set(e, SF_EREFUSED, "transfer: nothing is taken here");
    if (x->n_ins >= XFERS_MAX)
        return err_set(e, EBUSY, "transfer: %d are running", XFERS_MAX);
    struct in *in = calloc(1, sizeof(*in));
    if (!in)
        return err_sys(e, ENOMEM, "transfer");
    in->peer = peer;
    if (o) {
        in->offered = true;
        snprintf(in->kind, sizeof(in->kind), "%s", o->kind ? o->kind : "");
        snprintf(in->name, sizeof(in->name), "%s", o->name ? o->name : "");
    }
    in->next = x->ins;
    x->ins = in;
    x->n_ins++;
    xfer_recv_init(&in->m, req, id, size, x->max_b, now_ms, &acts);
    in_act(x, in, &acts, now_ms);
    return 0;
}

static int here(struct xfers *x, const struct id *id)
{
    CLEANUP(freep) struct id *hashes = NULL;
    size_t n;
    uint64_t size;
    return x->store.hashes ? x->store.hashes(x->store.ctx, id, &hashes, &n, &size, NULL) : -ENOENT;
}

int xfers_fetch(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id, uint64_t now_ms,
                struct err *e)
{
    if (xfers_find_in(x, id))
        return err_set(e, EALREADY, "transfer: is coming in already");
    if (here(x, id) == 0)
        return err_set(e, EEXIST, "transfer: here already");
    x->depth++;
    int r = in_new(x, peer, req, id, UINT64_MAX, NULL, now_ms, e);
    x->depth--;
    bury(x);
    return r;
}

/* Another peer offers what comes in already. Nothing is asked of it, which tells it to wait; it is told when the artefact is
 * here, and should that fail its next try finds nobody before it. */
static void other_offer(struct xfers *x, struct in *in, uint64_t peer, uint64_t req)
{
    struct msg m = { .type = M_GET, .get = { .req = req, .id = in->m.id } };
    size_t i = 0;
    while (i < in->n_others && in->others[i].peer != peer)
        i++;
    if (i < OTHERS_MAX) {
        in->others[i].peer = peer;
        in->others[i].req = req;
        in->n_others += i == in->n_others;
    }
    xfers_send(x, peer, &m);
}

static void on_put_offer(struct xfers *x, uint64_t peer, const struct msg_put_offer *o,
                         uint64_t now_ms)
{
    struct err e = { 0 };
    struct in *in = xfers_find_in(x, &o->id);
    if (in) {
        if (in->peer == peer) { /* it repeats itself */
            in->offered = true;
            in->m.req = o->req;
        } else {
            other_offer(x, in, peer, o->req);
        }
        return;
    }
    int r = here(x, &o->id);
    if (r == 0 || r == -ENOENT) {
        bool is_here = r == 0;
        r = x->ops.offered ? x->ops.offered(x->ops.ctx, peer, o, is_here, &e) : 0;
        if (r >= 0 && is_here) {
            send_have(x, peer, o->req, &o->id);
            return;
        }
    }
    size_t of_peer = 0;
    for (struct in *i = x->ins; i; i = i->next)
        of_peer += i->peer == peer && !i->dead;
    if (r >= 0 && of_peer >= XFERS_PEER_MAX)
        return; /* its next try may find room */
    if (r >= 0)
        r = in_new(x, peer, o->req, &o->id, o->size_b, o, now_ms, &e);
    if (r < 0 && r != -EBUSY)
        xfers_send_fail(x, peer, o->req, &o->id, -r, e.text[0] ? e.text : "cannot take it");
}

/* ---- sending */

static struct sender *find_sender(struct xfers *x, uint64_t peer, const struct id *id)
{
    for (struct sender *s = x->senders; s; s = s->next)
        if (!s->dead && s->peer == peer && id_eq(&s->s.id, id))
            return s;
    return NULL;
}

/* It cannot be given. Damaged, gone or not what it was, it never can: then an offer of it is over, too, or it would be made for
 * ever. */
static void cannot_give(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id, int code,
                        const char *text)
{
    bool never = code == SF_EINTEGRITY || code == ENOENT || code == SF_EFAILED;
    xfers_send_fail(x, peer, req, id, code, text);
    for (struct offer *o = x->offers; o && never; o = o->next)
        if (!o->dead && o->peer == peer && id_eq(&o->id, id))
            offer_end(x, o, code, text);
}

static int sender_new(struct xfers *x, uint64_t peer, const struct id *id, struct sender **ret,
                      struct err *e)
{
    CLEANUP(freep) struct id *hashes = NULL;
    size_t n, of_peer = 0;
    uint64_t size;
    int r = x->ops.wanted ? x->ops.wanted(x->ops.ctx, peer, id, e) : 0;
    if (r < 0)
        return r;
    if (!x->store.hashes)
        return err_set(e, ENOENT, "transfer: nothing is given here");
    struct sender *oldest = NULL;
    for (struct sender *s = x->senders; s; s = s->next) {
        if (s->dead)
            continue;
        of_peer += s->peer == peer;
        if (!s->s.owes_hashes && !s->s.n_owed && s->peer == peer &&
            (!oldest || s->used_ms < oldest->used_ms))
            oldest = s;
    }
    /* A sender that owes nothing is only a memory of the hashes: the next question makes it again. */
    if (of_peer >= SENDERS_PEER_MAX && oldest)
        oldest->dead = true;
    else if (of_peer >= SENDERS_PEER_MAX || x->n_senders >= SENDERS_MAX)
        return err_set(e, EBUSY, "transfer: too many at once");
    r = x->store.hashes(x->store.ctx, id, &hashes, &n, &size, e);
    if (r < 0)
        return r;
    struct sender *s = calloc(1, sizeof(*s));
    if (!s)
        return err_sys(e, ENOMEM, "transfer");
    s->peer = peer;
    s->hashes = TAKE(hashes);
    xfer_send_init(&s->s, id, size);
    s->next = x->senders;
    x->senders = s;
    x->n_senders++;
    *ret = s;
    return 0;
}

/* Read and pack a chunk unless it is the one that waits. */
static int prepare(struct xfers *x, struct sender *s, uint64_t index, struct err *e)
{
    const struct id *id = &s->s.id;
    if (x->raw_len && x->chunk_index == index && id_eq(&x->chunk_id, id))
        return 0;
    x->raw_len = 0;
    ssize_t n = x->store.read(x->store.ctx, id, index, x->raw, CID_CHUNK, e);
    if (n < 0)
        return (int)n;
    ssize_t m = 0;
    bool packed = zio_worth_try(&s->worth);
    if (packed) {
        m = zio_pack(x->packed, zio_bound(CID_CHUNK), x->raw, (size_t)n, PACK_LEVEL);
        packed = zio_worth_note(&s->worth, (size_t)n, m);
    }
    x->packed_len = packed ? (size_t)m : 0;
    x->chunk_id = *id;
    x->chunk_index = index;
    x->raw_len = (size_t)n;
    return 0;
}

/* One thing that s owes: 1 = sent, 0 = nothing owed, -EAGAIN = queue full. */
static int send_one(struct xfers *x, struct sender *s)
{
    uint64_t index, n;
    struct err e = { 0 };
    struct msg m = { 0 };
    int what = xfer_send_next(&s->s, &index, &n);
    if (!what)
        return 0;
    if (what == 1) {
        m.type = M_HASHES;
        m.hashes = (struct msg_hashes){ .req = s->s.req,
                                        .id = s->s.id,
                                        .size_b = s->s.size_b,
                                        .first = index,
                                        .hashes = (const uint8_t *)(s->hashes + index),
                                        .hashes_len = n * ID_LEN };
    } else {
        int r = prepare(x, s, index, &e);
        if (r < 0) {
            s->dead = true;
            cannot_give(x, s->peer, s->s.req, &s->s.id, -r, e.text);
            return 1;
        }
        m.type = M_CHUNK;
        m.chunk = (struct msg_chunk){ .req = s->s.req,
                                      .id = s->s.id,
                                      .index = index,
                                      .packed = x->packed_len != 0,
                                      .data = x->packed_len ? x->packed : x->raw,
                                      .data_len = x->packed_len ? x->packed_len : x->raw_len };
    }
    int r = xfers_send(x, s->peer, &m);
    if (r == -EAGAIN)
        return r;
    if (r < 0) {
        s->dead = true; /* gone; it will ask again if it comes back */
        return 1;
    }
    xfer_send_done(&s->s);
    if (what == 2 && x->ops.moved)
        x->ops.moved(x->ops.ctx, XFERS_OUT, &s->s.id,
                     (index + 1) * CID_CHUNK < s->s.size_b ? (index + 1) * CID_CHUNK : s->s.size_b,
                     s->s.size_b);
    return 1;
}

/* Send what is owed, a little of each. A peer whose queue is full is left alone until the next time, and so is a budget of chunks:
 * each is read and packed here. Returns true when more could be sent at once. */
static bool pump(struct xfers *x, uint64_t now_ms)
{
    uint64_t full[PUMP_CHUNKS];
    size_t n_full = 0;
    int budget = PUMP_CHUNKS;
    bool more = true;
    x->full = false;
    x->full_ms = now_ms;
    while (more && budget > 0) {
        more = false;
        for (struct sender *s = x->senders; s && budget > 0; s = s->next) {
            size_t k = 0;
            while (k < n_full && full[k] != s->peer)
                k++;
            if (s->dead || k < n_full)
                continue;
            int r = send_one(x, s);
            if (r)
                budget--;
            if (r == -EAGAIN) {
                x->full = true;
                full[n_full++] = s->peer; /* as many as the budget at most */
            }
            if (r == 1)
                more = true;
        }
    }
    return more;
}

static void on_get(struct xfers *x, uint64_t peer, const struct msg_get *g, uint64_t now_ms)
{
    struct err e = { 0 };
    struct sender *s = find_sender(x, peer, &g->id);
    int r = s ? 0 : sender_new(x, peer, &g->id, &s, &e);
    if (r >= 0) {
        s->used_ms = now_ms;
        r = xfer_send_get(&s->s, g);
        if (r < 0)
            err_set(&e, -r, "chunks %llu+%llu: not in this artefact", (unsigned long long)g->first,
                    (unsigned long long)g->credit);
    }
    if (r < 0 && r != -EBUSY) /* busy: it will ask again */
        cannot_give(x, peer, g->req, &g->id, -r, e.text);
    for (struct offer *o = x->offers; o; o = o->next)
        if (!o->dead && o->peer == peer && id_eq(&o->id, &g->id)) {
            o->sent_ms = now_ms; /* it is being taken */
            o->tries = 0;
        }
}

/* ---- offers */

static void send_offer(struct xfers *x, struct offer *o, uint64_t now_ms)
{
    struct msg m = { .type = M_PUT_OFFER,
                     .put_offer = { .req = o->req,
                                    .id = o->id,
                                    .size_b = o->size_b,
                                    .kind = o->kind,
                                    .name = o->name } };
    o->sent_ms = now_ms;
    xfers_send(x, o->peer, &m);
}

int xfers_offer(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id, const char *kind,
                const char *name, uint64_t now_ms, struct err *e)
{
    CLEANUP(freep) struct id *hashes = NULL;
    size_t n;
    uint64_t size;
    for (struct offer *o = x->offers; o; o = o->next)
        if (!o->dead && o->peer == peer && id_eq(&o->id, id))
            return err_set(e, EALREADY, "transfer: is offered already");
    if (x->n_offers >= XFERS_MAX)
        return err_set(e, EBUSY, "transfer: %d offers are waiting", XFERS_MAX);
    int r = x->store.hashes(x->store.ctx, id, &hashes, &n, &size, e);
    if (r < 0)
        return r;
    struct offer *o = calloc(1, sizeof(*o));
    if (!o)
        return err_sys(e, ENOMEM, "transfer");
    o->peer = peer;
    o->req = req;
    o->id = *id;
    o->size_b = size;
    snprintf(o->kind, sizeof(o->kind), "%s", kind);
    utf8_clean(name ? name : "", o->name, sizeof(o->name));
    o->next = x->offers;
    x->offers = o;
    x->n_offers++;
    send_offer(x, o, now_ms);
    return 0;
}

/* ---- the loop's side */

int xfers_msg(struct xfers *x, uint64_t peer, const struct msg *m, uint64_t now_ms)
{
    struct xfer_event ev = { .kind = XFER_EV_MSG, .msg = m };
    struct in *in;
    int r = 1;
    x->depth++;
    switch (m->type) {
    case M_PUT_OFFER:
        on_put_offer(x, peer, &m->put_offer, now_ms);
        break;
    case M_PUT_HAVE:
        for (struct offer *o = x->offers; o; o = o->next)
            if (!o->dead && o->peer == peer && id_eq(&o->id, &m->put_have.id))
                offer_end(x, o, 0, NULL);
        break;
    case M_GET:
        on_get(x, peer, &m->get, now_ms);
        break;
    case M_HASHES:
    case M_CHUNK:
        in = xfers_find_in(x, m->type == M_HASHES ? &m->hashes.id : &m->chunk.id);
        /* while threads hold a put, a late chunk of the link may not touch it; what is dropped is asked for again */
        if (in && in->peer == peer && !in->suspended && !in->flow &&
            !xfers_bulk_holds(x, &in->m.id))
            xfers_in_step(x, in, &ev, now_ms);
        break;
    case M_BULK_ASK:
    case M_BULK_TICKET:
    case M_BULK_NO:
        xfers_bulk_msg(x, peer, m, now_ms);
        break;
    case M_XFER_FAIL: {
        const struct msg_xfer_fail *f = &m->xfer_fail;
        in = xfers_find_in(x, &f->id);
        if (in && in->peer == peer) {
            in->told = true;
            xfers_in_step(x, in, &ev, now_ms);
        }
        struct sender *s = find_sender(x, peer, &f->id);
        if (s)
            s->dead = true;
        for (struct offer *o = x->offers; o; o = o->next)
            if (!o->dead && o->peer == peer && id_eq(&o->id, &f->id))
                offer_end(x, o, xfer_code(f->code), f->text);
        break;
    }
    default:
        r = 0;
        break;
    }
    if (r && (!x->full || now_ms >= x->full_ms + FULL_RETRY_MS))
        pump(x, now_ms);
    x->depth--;
    bury(x);
    return r;
}

static void sooner(int64_t *wait, uint64_t at, uint64_t now)
{
    int64_t ms = at > now ? (int64_t)(at - now) : 0;
    if (at != UINT64_MAX && (*wait < 0 || ms < *wait))
        *wait = ms;
}

int64_t xfers_tick(struct xfers *x, uint64_t now_ms)
{
    struct xfer_event ev = { .kind = XFER_EV_TICK };
    int64_t wait = -1;
    x->depth++;
    x->ticks = true;
    xfers_bulk_tick(x, now_ms, &wait);
    for (struct in *i = x->ins; i; i = i->next) {
        struct err e = { 0 };
        if (!i->dead && i->checking)
            in_check(x, i, 0, &e, now_ms);
        if (!i->dead && i->checking)
            wait = 0;
        if (i->dead || i->suspended || (i->flow && i->flow->up))
            continue;
        if (now_ms >= xfer_recv_deadline(&i->m))
            xfers_in_step(x, i, &ev, now_ms);
    }
    commit_due(x, now_ms);
    x->ticks = false;
    settle(x);
    for (struct offer *o = x->offers; o; o = o->next) {
        if (o->dead || o->suspended || now_ms < o->sent_ms + XFER_TIMEOUT_MS)
            continue;
        if (++o->tries >= OFFER_TRIES)
            offer_end(x, o, ETIMEDOUT, "the receiver does not answer");
        else
            send_offer(x, o, now_ms);
    }
    for (struct sender *s = x->senders; s; s = s->next)
        if (now_ms >= s->used_ms + SENDER_IDLE_MS)
            s->dead = true;
    bool more = pump(x, now_ms);
    x->depth--;
    bury(x);
    if (more)
        return 0;
    if (x->full)
        sooner(&wait, now_ms + FULL_RETRY_MS, now_ms);
    for (struct in *i = x->ins; i; i = i->next)
        if (!i->suspended && !(i->flow && i->flow->up))
            sooner(&wait, xfer_recv_deadline(&i->m), now_ms);
    for (struct offer *o = x->offers; o; o = o->next)
        if (!o->suspended)
            sooner(&wait, o->sent_ms + XFER_TIMEOUT_MS, now_ms);
    for (struct sender *s = x->senders; s; s = s->next)
        sooner(&wait, s->used_ms + SENDER_IDLE_MS, now_ms);
    return wait;
}

void xfers_gone(struct xfers *x, uint64_t peer, bool keep)
{
    x->depth++;
    if (!keep)
        xfers_bulk_gone(x, peer);
    for (struct sender *s = x->senders; s; s = s->next)
        if (s->peer == peer)
            s->dead = true;
    for (struct in *i = x->ins; i; i = i->next) {
        if (i->peer != peer || i->dead)
            continue;
        i->suspended = true;
        if (!keep) {
            i->told = true;
            in_end(x, i, EHOSTUNREACH, "the sender is gone");
        }
    }
    for (struct offer *o = x->offers; o; o = o->next) {
        if (o->peer != peer || o->dead)
            continue;
        o->suspended = true;
        if (!keep)
            offer_end(x, o, EHOSTUNREACH, "the receiver is gone");
    }
    x->depth--;
    bury(x);
}

void xfers_up(struct xfers *x, uint64_t peer, uint64_t now_ms)
{
    struct xfer_event ev = { .kind = XFER_EV_UP };
    x->depth++;
    for (struct in *i = x->ins; i; i = i->next)
        if (i->peer == peer && !i->dead) {
            i->suspended = false;
            xfers_bulk_begin(x, i, now_ms);
            if (i->flow && i->flow->up)
                continue; /* what was asked of it is on its way */
            xfers_in_step(x, i, &ev, now_ms);
        }
    for (struct offer *o = x->offers; o; o = o->next)
        if (o->peer == peer && !o->dead) {
            o->suspended = false;
            o->tries = 0;
            send_offer(x, o, now_ms);
        }
    x->depth--;
    bury(x);
}

void xfers_forget(struct xfers *x, const struct id *id)
{
    if (x->raw_len && id_eq(&x->chunk_id, id))
        x->raw_len = 0;
    for (struct sender *s = x->senders; s; s = s->next)
        if (id_eq(&s->s.id, id))
            s->dead = true;
    bury(x);
}

size_t xfers_running(const struct xfers *x)
{
    return x->n_ins + x->n_offers;
}

bool xfers_busy(const struct xfers *x, const struct id *id)
{
    return xfers_find_in((struct xfers *)x, id) != NULL;
}
