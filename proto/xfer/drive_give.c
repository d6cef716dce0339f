/* Artefacts that go out over the link: what is offered, and the chunks that were asked for. */
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
    PUMP_CHUNKS = 4, /* chunks sent in one call: the loop has other things to do */
    PACK_LEVEL = 1,
};

struct sender *xfers_find_sender(struct xfers *x, uint64_t peer, const struct id *id)
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
            xfers_offer_end(x, o, code, text);
}

void xfers_offer_end(struct xfers *x, struct offer *o, int code, const char *text)
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
    xfers_tell_end(x, &end, NULL);
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

bool xfers_pump(struct xfers *x, uint64_t now_ms)
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

void xfers_asked(struct xfers *x, uint64_t peer, const struct msg_get *g, uint64_t now_ms)
{
    struct err e = { 0 };
    struct sender *s = xfers_find_sender(x, peer, &g->id);
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

void xfers_forget(struct xfers *x, const struct id *id)
{
    if (x->raw_len && id_eq(&x->chunk_id, id))
        x->raw_len = 0;
    for (struct sender *s = x->senders; s; s = s->next)
        if (id_eq(&s->s.id, id))
            s->dead = true;
    xfers_bury(x);
}

void xfers_send_offer(struct xfers *x, struct offer *o, uint64_t now_ms)
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
    xfers_send_offer(x, o, now_ms);
    return 0;
}
