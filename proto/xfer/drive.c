/* Transfers as the loop sees them: what comes in, what is due, who went and came back. What they take is in drive_take.c, what they
 * give in drive_give.c, and what goes beside the link in drive_bulk.c. */
#include <stdlib.h>

#include "proto/base/clean.h"
#include "proto/lib/zio.h"
#include "proto/wire/utf8.h"
#include "proto/xfer/drive_in.h"

enum {
    SENDER_IDLE_MS = 60000, /* a receiver that asked nothing for so long is done */
    OFFER_TRIES = 24,       /* of XFER_TIMEOUT_MS each, without any sign of the receiver */
    FULL_RETRY_MS = 5,
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

void xfers_bury(struct xfers *x)
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
    xfers_bury(x);
    free(x->raw);
    free(x->packed);
    free(x->host);
    free(x->haves);
    free(x);
}

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

int xfers_tell_end(struct xfers *x, const struct xfers_end *end, struct err *e)
{
    return x->ops.ended ? x->ops.ended(x->ops.ctx, end, e) : 0;
}

int xfers_msg(struct xfers *x, uint64_t peer, const struct msg *m, uint64_t now_ms)
{
    struct xfer_event ev = { .kind = XFER_EV_MSG, .msg = m };
    struct in *in;
    int r = 1;
    x->depth++;
    switch (m->type) {
    case M_PUT_OFFER:
        xfers_put_offered(x, peer, &m->put_offer, now_ms);
        break;
    case M_PUT_HAVE:
        for (struct offer *o = x->offers; o; o = o->next)
            if (!o->dead && o->peer == peer && id_eq(&o->id, &m->put_have.id))
                xfers_offer_end(x, o, 0, NULL);
        break;
    case M_GET:
        xfers_asked(x, peer, &m->get, now_ms);
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
        struct sender *s = xfers_find_sender(x, peer, &f->id);
        if (s)
            s->dead = true;
        for (struct offer *o = x->offers; o; o = o->next)
            if (!o->dead && o->peer == peer && id_eq(&o->id, &f->id))
                xfers_offer_end(x, o, xfer_code(f->code), f->text);
        break;
    }
    default:
        r = 0;
        break;
    }
    if (r && (!x->full || now_ms >= x->full_ms + FULL_RETRY_MS))
        xfers_pump(x, now_ms);
    x->depth--;
    xfers_bury(x);
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
            xfers_in_check(x, i, 0, &e, now_ms);
        if (!i->dead && i->checking)
            wait = 0;
        if (i->dead || i->suspended || (i->flow && i->flow->up))
            continue;
        if (now_ms >= xfer_recv_deadline(&i->m))
            xfers_in_step(x, i, &ev, now_ms);
    }
    xfers_commit_due(x, now_ms);
    x->ticks = false;
    xfers_settle(x);
    for (struct offer *o = x->offers; o; o = o->next) {
        if (o->dead || o->suspended || now_ms < o->sent_ms + XFER_TIMEOUT_MS)
            continue;
        if (++o->tries >= OFFER_TRIES)
            xfers_offer_end(x, o, ETIMEDOUT, "the receiver does not answer");
        else
            xfers_send_offer(x, o, now_ms);
    }
    for (struct sender *s = x->senders; s; s = s->next)
        if (now_ms >= s->used_ms + SENDER_IDLE_MS)
            s->dead = true;
    bool more = xfers_pump(x, now_ms);
    x->depth--;
    xfers_bury(x);
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
            xfers_in_end(x, i, EHOSTUNREACH, "the sender is gone");
        }
    }
    for (struct offer *o = x->offers; o; o = o->next) {
        if (o->peer != peer || o->dead)
            continue;
        o->suspended = true;
        if (!keep)
            xfers_offer_end(x, o, EHOSTUNREACH, "the receiver is gone");
    }
    x->depth--;
    xfers_bury(x);
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
            xfers_send_offer(x, o, now_ms);
        }
    x->depth--;
    xfers_bury(x);
}

size_t xfers_running(const struct xfers *x)
{
    return x->n_ins + x->n_offers;
}

bool xfers_busy(const struct xfers *x, const struct id *id)
{
    return xfers_find_in((struct xfers *)x, id) != NULL;
}
