/* Transfers over bulk connections: who asks for one, what comes of it, and the way back to the link.
 *
 * The taking end wants one. At the coordinator it makes the ticket and waits to be called; elsewhere
 * it asks the coordinator, which makes it, and gives itself or has another give. Whatever fails ends
 * in the same place: the machine asks for what is missing, over the next connection or the link. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "proto/wire/utf8.h"
#include "proto/xfer/drive_in.h"

enum {
    ASK_MS = 3000,      /* no answer to bulk_ask: ask again */
    WITHOUT_MS = 10000, /* still none: over the link */
    BUSY_MS = 300,      /* no stream is free: try again */
    QUIET_MS = 15000,   /* asked for and nothing came: the connection is dead */
    BROKEN_MAX = 3,     /* connections in a row that brought nothing */
    OFF_MS = 60000,     /* the coordinator's port cannot be reached: not tried again for so long */
    SLOW_MS = 30000,    /* another agent that brings less than a chunk in so long is left */
    LOOK_MS = 500,
};

int xfers_set_bulk(struct xfers *x, const struct xfers_bulk *b)
{
    char *host = b->host ? strdup(b->host) : NULL;
    if (b->host && !host)
        return -ENOMEM;
    free(x->host);
    x->host = host;
    x->bulk = *b;
    x->bulk.host = host;
    return 0;
}

/* Bytes that are not here. The flow's threads must not hold the put. */
static uint64_t missing(struct xfers *x, struct in *in)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < in->m.n_chunks; i++)
        n += !x->store.put_has(in->put, i);
    return n * CID_CHUNK;
}

static uint64_t features(struct xfers *x, uint64_t peer)
{
    return x->bulk.bulk && x->ops.features ? x->ops.features(x->ops.ctx, peer) & bulk_features()
                                           : 0;
}

static struct flow *flow_new(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id,
                             uint64_t size_b)
{
    struct flow *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->peer = peer;
    f->req = req;
    f->id = *id;
    f->size_b = size_b;
    f->next = x->flows;
    x->flows = f;
    return f;
}

static void flow_free(struct xfers *x, struct flow *f)
{
    struct flow **p = &x->flows;
    while (*p != f)
        p = &(*p)->next;
    *p = f->next;
    if (f->put)
        x->store.close(f->put);
    free(f);
}

static void send_no(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id,
                    uint64_t wait_ms, const char *text, bool gives)
{
    char clean[200];
    utf8_clean(text, clean, sizeof(clean));
    struct msg m = {
        .type = M_BULK_NO,
        .bulk_no = { .req = req, .id = *id, .wait_ms = wait_ms, .text = clean, .gives = gives }
    };
    xfers_send(x, peer, &m);
}

/* ---- taking */

static void ask_anew(struct xfers *x, struct in *in, uint64_t now_ms)
{
    struct xfer_event ev = { .kind = XFER_EV_UP };
    xfers_in_step(x, in, &ev, now_ms);
}

static void alive(struct xfers *x, struct in *in, uint64_t now_ms)
{
    struct xfer_event ev = { .kind = XFER_EV_ALIVE };
    xfers_in_step(x, in, &ev, now_ms);
}

static void do_without(struct xfers *x, struct in *in, uint64_t now_ms)
{
    in->bulk = BULK_NOT;
    xfer_recv_window(&in->m, XFER_WINDOW);
    ask_anew(x, in, now_ms);
}

static void put_off(struct in *in, uint64_t ms, uint64_t now_ms)
{
    in->bulk_ask_ms = now_ms + ms;
    in->bulk_until_ms = in->bulk_ask_ms + WITHOUT_MS;
}

static void join_class(struct xfers *x, const struct flow *f)
{
    if (x->ops.class_of)
        bulk_join(f->stream, x->ops.class_of(x->ops.ctx, f->peer));
}

/* dial NULL = to be called. */
static int take(struct xfers *x, struct in *in, const struct bulk_ticket *t, const char *dial,
                bool home, struct err *e)
{
    struct bulk_sink sink = { .put = in->put,
                              .write = x->store.put_write,
                              .verify = x->store.put_verify,
                              .sync = x->store.put_sync };
    struct flow *f = flow_new(x, in->peer, in->m.req, &in->m.id, in->m.size_b);
    if (!f)
        return err_sys(e, ENOMEM, "transfer");
    f->takes = true;
    f->dialled = dial != NULL;
    f->home = home;
    int r = bulk_take(x->bulk.bulk, t, dial, in->m.size_b, &sink, f, &f->stream, e);
    if (r < 0) {
        flow_free(x, f);
        return r;
    }
    join_class(x, f);
    f->in = in;
    in->flow = f;
    in->bulk_damaged = false;
    return 0;
}

/* Try to get a stream for in. */
static void want(struct xfers *x, struct in *in, uint64_t now_ms)
{
    struct bulk_ticket t;
    struct err e = { 0 };
    if (!x->bulk.makes_tickets) {
        struct msg m = { .type = M_BULK_ASK,
                         .bulk_ask = { .req = in->m.req,
                                       .id = in->m.id,
                                       .size_b = in->m.size_b,
                                       .missing_b = missing(x, in),
                                       .broken = in->bulk_broken,
                                       .damaged = in->bulk_damaged } };
        in->bulk_ask_ms = now_ms + ASK_MS;
        xfers_send(x, in->peer, &m);
        return;
    }
    char dial[16];
    bulk_ticket_new(&t, &in->m.id, features(x, in->peer));
    int r = take(x, in, &t, NULL, false, &e);
    if (r == -EBUSY) {
        /* it waits for its turn; so that the offering end knows, it is asked for nothing */
        struct msg m = { .type = M_GET, .get = { .req = in->m.req, .id = in->m.id } };
        xfers_send(x, in->peer, &m);
        put_off(in, BUSY_MS, now_ms);
        alive(x, in, now_ms);
    } else if (r < 0) {
        do_without(x, in, now_ms);
    } else {
        snprintf(dial, sizeof(dial), ":%u", (unsigned)bulk_port(x->bulk.bulk));
        struct msg m = bulk_ticket_msg(&t, in->m.req, true, dial);
        if (xfers_send(x, in->peer, &m) < 0)
            bulk_stop(in->flow->stream);
    }
}

void xfers_bulk_begin(struct xfers *x, struct in *in, uint64_t now_ms)
{
    if (!in->put || in->checking || in->flow || !x->store.put_write ||
        in->bulk_broken >= BROKEN_MAX || !(features(x, in->peer) & WIRE_BULK) ||
        now_ms < x->bulk_off_ms || missing(x, in) < BULK_MIN_B)
        return;
    in->bulk = BULK_WANTED;
    put_off(in, 0, now_ms);
    want(x, in, now_ms);
}

bool xfers_bulk_get(struct xfers *x, struct in *in, const struct msg_get *g)
{
    (void)x;
    if (g->want_hashes || in->bulk == BULK_NOT)
        return false;
    if (in->flow && in->flow->up)
        bulk_want(in->flow->stream, g->first, g->credit);
    return true;
}

bool xfers_bulk_commit(struct xfers *x, struct in *in)
{
    (void)x;
    if (!in->flow)
        return false;
    in->committing = true;
    bulk_sync(in->flow->stream);
    return true;
}

void xfers_bulk_let_go(struct xfers *x, struct in *in)
{
    struct flow *f = in->flow;
    (void)x;
    if (!f)
        return;
    f->in = NULL;
    f->put = in->put;
    in->put = NULL;
    in->flow = NULL;
    bulk_stop(f->stream);
}

bool xfers_bulk_holds(const struct xfers *x, const struct id *id)
{
    for (const struct flow *f = x->flows; f; f = f->next)
        if (f->put && id_eq(&f->id, id))
            return true;
    return false;
}

/* ---- giving */

/* One that comes in, far enough to be given on. */
static const struct in *coming(struct xfers *x, const struct id *id)
{
    const struct in *in = xfers_find_in(x, id);
    bool open = in && in->put && (in->m.state == XFER_CHUNKS || in->m.state == XFER_COMMITTING);
    return open && x->store.put_open ? in : NULL;
}

void xfers_bulk_here(struct xfers *x, const struct id *id, uint64_t index)
{
    for (struct flow *f = x->flows; f; f = f->next)
        if (f->some && id_eq(&f->id, id))
            bulk_have(f->stream, index);
}

void xfers_bulk_no_more(struct xfers *x, const struct id *id)
{
    for (struct flow *f = x->flows; f; f = f->next)
        if (f->some && id_eq(&f->id, id))
            bulk_stop(f->stream);
}

static int give(struct xfers *x, uint64_t peer, uint64_t req, const struct bulk_ticket *t,
                const char *dial, bool home, struct err *e)
{
    uint64_t size;
    int r = x->ops.wanted ? x->ops.wanted(x->ops.ctx, peer, &t->artefact, e) : 0;
    if (r < 0)
        return r;
    if (!x->store.open)
        return err_set(e, ENOENT, "transfer: nothing is given here");
    int fd = x->store.open(x->store.ctx, &t->artefact, &size, e);
    const struct in *in = fd == -ENOENT ? coming(x, &t->artefact) : NULL;
    if (in) {
        fd = x->store.put_open(in->put, e);
        size = in->m.size_b;
    }
    if (fd < 0)
        return fd;
    struct flow *f = flow_new(x, peer, req, &t->artefact, size);
    r = f ? 0 : err_sys(e, ENOMEM, "transfer");
    if (r >= 0) {
        f->dialled = dial != NULL;
        f->home = home;
        f->some = in != NULL;
        r = bulk_give_some(x->bulk.bulk, t, dial, size, fd, in ? in->m.have : NULL, f, &f->stream,
                           e);
    }
    if (r >= 0)
        join_class(x, f);
    if (r < 0) {
        close(fd);
        if (f)
            flow_free(x, f);
    }
    return r;
}

static void on_ask(struct xfers *x, uint64_t peer, const struct msg_bulk_ask *m)
{
    struct bulk_ticket t;
    struct err e = { 0 };
    char dial[16];
    if (!x->bulk.bulk || !x->bulk.makes_tickets) {
        send_no(x, peer, m->req, &m->id, 0, "no bulk connections are made here", true);
        return;
    }
    for (struct flow *f = x->flows; f; f = f->next)
        if (!f->takes && !f->up && f->peer == peer && id_eq(&f->id, &m->id))
            bulk_stop(f->stream); /* its ticket was lost */
    if (x->ops.broker && x->ops.broker(x->ops.ctx, peer, m) == 1)
        return;
    bulk_ticket_new(&t, &m->id, features(x, peer));
    int r = give(x, peer, m->req, &t, NULL, false, &e);
    if (r < 0) {
        send_no(x, peer, m->req, &m->id, r == -EBUSY ? BUSY_MS : 0, e.text, true);
        return;
    }
    snprintf(dial, sizeof(dial), ":%u", (unsigned)bulk_port(x->bulk.bulk));
    struct msg a = bulk_ticket_msg(&t, m->req, false, dial);
    xfers_send(x, peer, &a);
}

static void on_ticket(struct xfers *x, uint64_t peer, const struct msg_bulk_ticket *m,
                      uint64_t now_ms)
{
    struct bulk_ticket t;
    struct err e = { 0 };
    char at[300];
    const char *dial = m->dial_len ? m->dial : NULL;
    struct in *in = m->send ? NULL : xfers_find_in(x, &m->id);
    int r = x->bulk.bulk ? bulk_ticket_parse(m, &t, &e)
                         : err_set(&e, ENOTCONN, "no bulk connections are made here");
    bool home = dial && *dial == ':';
    if (r >= 0 && home && now_ms < x->bulk_off_ms)
        r = err_set(&e, EHOSTUNREACH, "the coordinator's port cannot be reached");
    if (home) {
        snprintf(at, sizeof(at), "%s%s", x->host ? x->host : "", dial);
        dial = at;
    }
    if (r >= 0 && m->send)
        r = give(x, peer, m->req, &t, dial, home, &e);
    else if (r >= 0 && (!in || in->peer != peer || in->bulk != BULK_WANTED || in->flow))
        r = err_set(&e, ENOENT, "transfer: is not waited for");
    else if (r >= 0)
        r = take(x, in, &t, dial, home, &e);
    if (r >= 0)
        return;
    send_no(x, peer, m->req, &m->id, r == -EBUSY ? BUSY_MS : 0, e.text, m->send);
    if (in && in->peer == peer && in->bulk == BULK_WANTED && !in->flow) {
        if (r == -EBUSY)
            put_off(in, BUSY_MS, now_ms);
        else
            do_without(x, in, now_ms);
    }
}

static void on_no(struct xfers *x, uint64_t peer, const struct msg_bulk_no *m, uint64_t now_ms)
{
    struct in *in = xfers_find_in(x, &m->id);
    for (struct flow *f = x->flows; f; f = f->next)
        if (!f->up && f->peer == peer && id_eq(&f->id, &m->id))
            bulk_stop(f->stream);
    if (!in || in->peer != peer || in->bulk != BULK_WANTED)
        return;
    if (!m->wait_ms)
        in->bulk_broken = BROKEN_MAX;
    if (m->wait_ms) {
        put_off(in, m->wait_ms, now_ms);
        alive(x, in, now_ms);
    } else if (!in->flow) {
        do_without(x, in, now_ms);
    }
}

void xfers_bulk_msg(struct xfers *x, uint64_t peer, const struct msg *m, uint64_t now_ms)
{
    if (m->type == M_BULK_ASK)
        on_ask(x, peer, &m->bulk_ask);
    else if (m->type == M_BULK_TICKET)
        on_ticket(x, peer, &m->bulk_ticket, now_ms);
    else if (m->type == M_BULK_NO)
        on_no(x, peer, &m->bulk_no, now_ms);
}

/* ---- what the threads say */

static void on_up(struct xfers *x, struct flow *f, uint64_t now_ms)
{
    f->up = true;
    if (!f->in)
        return;
    xfer_recv_window(&f->in->m, BULK_WINDOW);
    ask_anew(x, f->in, now_ms);
}

/* Whether another agent gives, not the coordinator. */
static bool of_peer(const struct flow *f)
{
    return f->takes && f->dialled && !f->home;
}

static void on_synced(struct xfers *x, struct flow *f, const struct bulk_event *b, uint64_t now_ms)
{
    struct xfer_event ev = { .kind = XFER_EV_COMMITTED, .r = b->r, .text = b->text };
    if (!f->in || !f->in->committing)
        return;
    if (b->r < 0)
        xfers_in_step(x, f->in, &ev, now_ms);
    else
        bulk_stop(f->stream);
}

static void on_end(struct xfers *x, struct flow *f, const struct bulk_event *b, uint64_t now_ms)
{
    struct in *in = f->in;
    bool brought = f->chunks != 0;
    /* the other end waits for a call that does not come */
    if (b->r < 0 && !f->up && f->dialled)
        send_no(x, f->peer, f->req, &f->id, 0, b->text, !f->takes);
    if (b->r < 0 && b->r != -SF_EREFUSED && !f->up && f->home) {
        if (now_ms >= x->bulk_off_ms)
            log_warn("bulk: %s; artefacts go over the link for now", b->text);
        x->bulk_off_ms = now_ms + OFF_MS;
    }
    if (!f->takes && f->up) {
        char hex[ID_HEX_LEN];
        id_hex(&f->id, hex);
        log_info("artefact %.8s: %llu bytes given by bulk%s%s", hex, (unsigned long long)b->moved_b,
                 b->r < 0 ? ", then it broke: " : "", b->text);
    }
    if (in)
        in->flow = NULL;
    flow_free(x, f);
    if (!in)
        return;
    if (in->committing) {
        xfers_in_commit(x, in, now_ms);
        return;
    }
    in->bulk_broken = in->bulk_broken >= BROKEN_MAX ? BROKEN_MAX
                      : brought                     ? 1
                                                    : in->bulk_broken + 1;
    if (in->bulk_broken >= BROKEN_MAX)
        do_without(x, in, now_ms);
    else
        put_off(in, brought ? 0 : BUSY_MS, now_ms);
}

static void events(struct xfers *x, uint64_t now_ms)
{
    struct bulk_event b;
    while (bulk_next(x->bulk.bulk, &b)) {
        struct flow *f = b.ctx;
        struct xfer_event ev = {
            .kind = XFER_EV_WROTE, .index = b.index, .r = b.r, .text = b.text
        };
        switch (b.kind) {
        case BULK_UP:
            on_up(x, f, now_ms);
            break;
        case BULK_CHUNK:
            f->chunks++;
            if (f->in && b.r >= 0)
                f->in->bulk_chunks++;
            if (f->in && b.r == -SF_EINTEGRITY && of_peer(f)) {
                f->in->bulk_damaged = true; /* others have it, too */
                bulk_stop(f->stream);
            }
            if (f->in)
                xfers_in_step(x, f->in, &ev, now_ms);
            break;
        case BULK_SYNCED:
            on_synced(x, f, &b, now_ms);
            break;
        case BULK_END:
            on_end(x, f, &b, now_ms);
            break;
        }
    }
}

/* Whether it moves. */
static void look(struct xfers *x, struct flow *f, uint64_t now_ms)
{
    uint64_t moved = bulk_moved(f->stream);
    bool new = moved != f->moved_b;
    f->moved_b = moved;
    if (f->takes) {
        if (f->in && new)
            alive(x, f->in, now_ms);
        else if (f->in && bulk_quiet_ms(f->stream) > QUIET_MS)
            bulk_stop(f->stream);
        if (!f->mark_ms || moved - f->mark_b >= CID_CHUNK || !f->up) {
            f->mark_b = moved;
            f->mark_ms = now_ms;
        } else if (of_peer(f) && now_ms - f->mark_ms > SLOW_MS) {
            bulk_stop(f->stream);
        }
        return;
    }
    for (struct offer *o = x->offers; o && new; o = o->next)
        if (!o->dead && o->peer == f->peer && id_eq(&o->id, &f->id)) {
            o->sent_ms = now_ms; /* it is being taken */
            o->tries = 0;
        }
    if (new && x->ops.moved)
        x->ops.moved(x->ops.ctx, XFERS_OUT, &f->id, moved < f->size_b ? moved : f->size_b,
                     f->size_b);
}

static void sooner(int64_t *wait, uint64_t at, uint64_t now)
{
    int64_t ms = at > now ? (int64_t)(at - now) : 0;
    if (*wait < 0 || ms < *wait)
        *wait = ms;
}

void xfers_bulk_tick(struct xfers *x, uint64_t now_ms, int64_t *wait_ms)
{
    if (!x->bulk.bulk)
        return;
    events(x, now_ms);
    for (struct flow *f = x->flows; f; f = f->next)
        look(x, f, now_ms);
    for (struct in *i = x->ins; i; i = i->next) {
        if (i->dead || i->flow || i->bulk != BULK_WANTED)
            continue;
        if (now_ms >= i->bulk_until_ms)
            do_without(x, i, now_ms);
        else if (now_ms >= i->bulk_ask_ms)
            want(x, i, now_ms);
        if (!i->dead && !i->flow && i->bulk == BULK_WANTED)
            sooner(wait_ms, i->bulk_ask_ms < i->bulk_until_ms ? i->bulk_ask_ms : i->bulk_until_ms,
                   now_ms);
    }
    if (x->flows)
        sooner(wait_ms, now_ms + LOOK_MS, now_ms);
}

void xfers_bulk_gone(struct xfers *x, uint64_t peer)
{
    for (struct flow *f = x->flows; f; f = f->next)
        if (!f->takes && f->peer == peer)
            bulk_stop(f->stream);
}

void xfers_bulk_clear(struct xfers *x)
{
    for (struct in *i = x->ins; i; i = i->next)
        xfers_bulk_let_go(x, i);
    for (struct flow *f = x->flows; f; f = f->next)
        bulk_stop(f->stream);
    while (x->flows) {
        struct bulk_event b;
        struct pollfd p = { .fd = bulk_fd(x->bulk.bulk), .events = POLLIN };
        poll(&p, 1, 1000);
        while (bulk_next(x->bulk.bulk, &b))
            if (b.kind == BULK_END)
                flow_free(x, b.ctx);
    }
}
