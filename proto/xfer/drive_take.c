/* Artefacts that come in over the link: offered or fetched, opened, written, committed, acknowledged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/lib/zio.h"
#include "proto/xfer/drive_in.h"

enum {
    CHECK_CHUNKS = 4, /* of an interrupted transfer that are hashed in one call */
};

static void send_have(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id)
{
    struct msg m = { .type = M_PUT_HAVE, .put_have = { .req = req, .id = *id } };
    xfers_send(x, peer, &m);
}

void xfers_settle(struct xfers *x)
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
        xfers_settle(x);
}

void xfers_in_end(struct xfers *x, struct in *in, int code, const char *text)
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
    int r = xfers_tell_end(x, &end, &e);
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

/* The chunks that are there, a bit each; owned. in->put NULL = all. */
static uint8_t *what_is_here(struct xfers *x, const struct in *in)
{
    uint8_t *have = calloc(1, in->m.n_chunks / 8 + 1);
    for (size_t i = 0; have && i < in->m.n_chunks; i++)
        if (!in->put || x->store.put_has(in->put, i))
            have[i / 8] |= (uint8_t)(1u << (i % 8));
    return have;
}

void xfers_in_check(struct xfers *x, struct in *in, int r, struct err *e, uint64_t now_ms)
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
    xfers_in_check(x, in, r == -EEXIST ? 0 : r, &e, now_ms);
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
            xfers_in_end(x, in, 0, NULL);
            return;
        case XFER_DO_FAIL:
            xfers_in_end(x, in, a->code, a->text);
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

void xfers_commit_due(struct xfers *x, uint64_t now_ms)
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
    xfers_bury(x);
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

void xfers_put_offered(struct xfers *x, uint64_t peer, const struct msg_put_offer *o,
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
