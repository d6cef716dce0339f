/* The network: proto/link/link.h over virtual wires.
 *
 * Messages travel as the frames of proto/wire and are decoded and role-checked by the receiver, as proto/link does it. What
 * CURVE and ZeroMQ do is modelled: a client connects again until somebody listens, a closed end is seen by the other one,
 * a silent end after SILENT_MS. Unlike TCP a wire may lose, double and overtake messages of a connection that lives.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/link/link.h"
#include "tests/sim/sim.h"
#include "tests/sim/wrap.h"

enum { WIRE_MS = 1, RETRY_MS = 500, SILENT_MS = 6000 };

struct item {
    struct item *next;
    enum link_event_kind kind;
    uint64_t conn;
    size_t len;
    uint8_t frame[];
};

struct end {
    struct link *link; /* NULL = closed on this side */
    uint64_t last_ms;  /* newest delivery to this end */
    unsigned queued;   /* on their way to it or unread there */
};

struct conn {
    struct conn *next;
    uint64_t id;
    unsigned host[2]; /* 0 client, 1 server */
    struct end end[2];
    bool known;     /* the server has read something of it */
    enum role role; /* of the client */
    char name[KEY_NAME_LEN], key[KEY_Z85_LEN];
};

struct link {
    struct part *part;
    struct link *next; /* of the part */
    bool server;
    enum role role;
    char name[KEY_NAME_LEN], key[KEY_Z85_LEN];
    struct conn *conn; /* of a client */
    struct item *first, **last;
    bool gone; /* freed by its owner; the memory waits for the end of the world */
    struct link *all;
};

struct wire {
    uint64_t cut_since_ms, cut_until_ms;
    uint64_t count[NET_FAULTS], delay_ms[NET_FAULTS];
};

static struct {
    struct conn *conns;
    struct link *links, *server;
    uint64_t ids, most;
    struct wire wire[HOSTS_MAX][HOSTS_MAX];
    struct buf frame;
} net;

void net_init(void)
{
    memset(&net, 0, sizeof(net));
    buf_init(&net.frame, FRAME_MAX);
}

static bool cut(unsigned from, unsigned to)
{
    return net.wire[from][to].cut_until_ms > world.now_ms;
}

uint64_t net_open_ms(unsigned from, unsigned to)
{
    return cut(from, to) ? net.wire[from][to].cut_until_ms : world.now_ms;
}

uint64_t net_queue_most(void)
{
    return net.most;
}

/* ---- ends of connections */

static void put_item(struct link *l, struct item *i)
{
    i->next = NULL;
    *l->last = i;
    l->last = &i->next;
    part_wake(l->part, world.now_ms);
}

static struct conn *conn_of(uint64_t id)
{
    for (struct conn *c = net.conns; c; c = c->next)
        if (c->id == id)
            return c;
    return NULL;
}

static void try_event(void *arg, uint64_t n);

/* One end is closed; its owner learns of it unless it did it itself. */
static void close_end(struct conn *c, unsigned side, bool tell)
{
    struct link *l = c->end[side].link;
    if (!l)
        return;
    c->end[side].link = NULL;
    if (l->conn == c)
        l->conn = NULL;
    if (l->gone || l->part->dead)
        return;
    if (tell && (side == 0 || c->known)) {
        struct item *i = calloc(1, sizeof(*i));
        if (!i)
            abort();
        i->kind = LINK_GONE;
        i->conn = c->id;
        put_item(l, i);
    }
    if (side == 0)
        at_ms(world.now_ms + RETRY_MS, try_event, l, 0);
}

/* n: conn id * 2 + side that is to notice */
static void notice_event(void *arg, uint64_t n)
{
    (void)arg;
    struct conn *c = conn_of(n / 2);
    if (c)
        close_end(c, n % 2, true);
}

static void reset_event(void *arg, uint64_t n)
{
    struct conn *c = conn_of(n / 2);
    unsigned side = n % 2;
    if (!c || !c->end[side].link)
        return;
    if (cut(c->host[!side], c->host[side]))
        at_ms(world.now_ms + SILENT_MS, notice_event, NULL, n);
    else
        notice_event(arg, n);
}

/* This side is no more; quietly: no reset reaches the other one, which notices by silence. */
static void drop_end(struct conn *c, unsigned side, bool quietly, bool tell)
{
    if (!c->end[side].link)
        return;
    check_reason(c->host[0], world.now_ms);
    check_reason(c->host[1], world.now_ms);
    close_end(c, side, tell);
    at_ms(world.now_ms + (quietly ? SILENT_MS : WIRE_MS), quietly ? notice_event : reset_event,
          NULL, c->id * 2 + !side);
}

static void silent_event(void *arg, uint64_t n)
{
    (void)arg;
    unsigned from = (unsigned)(n / HOSTS_MAX % HOSTS_MAX), to = (unsigned)(n % HOSTS_MAX);
    const struct wire *w = &net.wire[from][to];
    if (!cut(from, to) || world.now_ms - w->cut_since_ms < SILENT_MS)
        return;
    for (struct conn *c = net.conns; c; c = c->next)
        for (unsigned side = 0; side < 2; side++)
            if (c->host[side] == to && c->host[!side] == from)
                drop_end(c, side, false, true);
}

void net_cut(unsigned from, unsigned to, uint64_t until_ms)
{
    struct wire *w = &net.wire[from][to];
    if (!cut(from, to))
        w->cut_since_ms = world.now_ms;
    if (until_ms > w->cut_until_ms)
        w->cut_until_ms = until_ms;
    at_ms(w->cut_since_ms + SILENT_MS, silent_event, NULL, from * HOSTS_MAX + to);
}

void net_fault(enum net_fault f, unsigned from, unsigned to, uint64_t count, uint64_t delay_ms)
{
    net.wire[from][to].count[f] = count;
    net.wire[from][to].delay_ms[f] = delay_ms;
}

void net_mend(void)
{
    memset(net.wire, 0, sizeof(net.wire));
}

void net_reset(unsigned host)
{
    bulk_reset(host);
    for (struct conn *c = net.conns; c; c = c->next)
        for (unsigned side = 0; side < 2; side++)
            if (c->host[side] == host)
                drop_end(c, side, false, true);
}

void net_part_dead(struct part *p, bool power)
{
    bulk_part_dead(p, power);
    for (struct link *l = p->links; l; l = l->next) {
        if (net.server == l)
            net.server = NULL;
        for (struct conn *c = net.conns; c; c = c->next)
            for (unsigned side = 0; side < 2; side++)
                if (c->end[side].link == l)
                    drop_end(c, side, power, false);
    }
}

/* ---- messages on their way */

static void deliver_event(void *arg, uint64_t n)
{
    struct item *i = arg;
    struct conn *c = conn_of(i->conn);
    unsigned side = (unsigned)n;
    struct link *l = c ? c->end[side].link : NULL;
    if (!l || l->gone || l->part->dead) {
        free(i);
        return;
    }
    world.messages++;
    put_item(l, i);
}

static void carry(struct conn *c, unsigned to, const void *frame, size_t n, uint64_t extra_ms)
{
    struct item *i = malloc(sizeof(*i) + n);
    if (!i)
        abort();
    *i = (struct item){ .kind = LINK_MSG, .conn = c->id, .len = n };
    memcpy(i->frame, frame, n);
    uint64_t when = world.now_ms + WIRE_MS + n * world.plan->mib_ms / (1 << 20);
    if (when < c->end[to].last_ms)
        when = c->end[to].last_ms;
    if (!extra_ms) /* what is held up is overtaken */
        c->end[to].last_ms = when;
    if (++c->end[to].queued > net.most)
        net.most = c->end[to].queued;
    at_ms(when + extra_ms, deliver_event, i, to);
}

static bool strikes(struct wire *w, enum net_fault f)
{
    if (!w->count[f])
        return false;
    w->count[f]--;
    return true;
}

/* What agents and the coordinator say that they can do, but with one agent in three as programs before row_block and lists of
 * points did: then both speak the old forms. */
static struct msg as_of_before(const struct msg *m, unsigned agent)
{
    struct msg old = *m;
    if ((world.plan->random + agent) % 3)
        return old;
    if (m->type == M_AGENT_HELLO)
        old.agent_hello.features &= ~(uint64_t)WIRE_POINT_LISTS;
    else
        old.welcome.features &= ~(uint64_t)WIRE_ROW_BLOCK;
    return old;
}

int link_send(struct link *l, uint64_t peer, const struct msg *m, struct err *e)
{
    struct msg old;
    if (m->type == M_AGENT_HELLO || m->type == M_WELCOME) {
        const struct conn *c = l->server ? conn_of(peer) : l->conn;
        old = as_of_before(m, c ? c->host[0] : 0);
        m = &old;
    }
    int r = msg_encode(m, &net.frame, e);
    if (r < 0) {
        if (!l->part->dead)
            sim_fail("%s cannot encode a message of type %d: %s", l->part->name, (int)m->type,
                     e ? e->text : "?");
        return r;
    }
    unsigned side = l->server;
    struct conn *c = l->server ? conn_of(peer) : l->conn;
    if (l->part->dead || !c || c->end[side].link != l)
        return -EHOSTUNREACH;
    if (c->end[!side].queued >= LINK_QUEUE)
        return -EAGAIN;
    check_sent(l->part, c->host[!side], m);
    struct wire *w = &net.wire[c->host[side]][c->host[!side]];
    uint64_t late = 0;
    bool lost = cut(c->host[side], c->host[!side]) || strikes(w, NET_LOSS);
    bool twice = !lost && strikes(w, NET_DUP);
    if (!lost && strikes(w, NET_DELAY))
        late = w->delay_ms[NET_DELAY];
    for (int i = 0; (lost || twice || late) && i < 2; i++)
        check_reason(c->host[i], world.now_ms + late + (twice ? w->delay_ms[NET_DUP] : 0));
    if (lost)
        return 0;
    if (twice)
        carry(c, !side, net.frame.data, net.frame.len, w->delay_ms[NET_DUP]);
    carry(c, !side, net.frame.data, net.frame.len, late);
    return 0;
}

int link_refuse(struct link *l, uint64_t peer, uint64_t req, int exit_status, const char *code,
                const char *text)
{
    char cut_text[1000];
    snprintf(cut_text, sizeof(cut_text), "%s", *text ? text : "refused");
    struct msg m = {
        .type = M_REFUSE,
        .refuse = { .req = req, .exit = (uint64_t)exit_status, .code = code, .text = cut_text }
    };
    return link_send(l, peer, &m, NULL);
}

/* ---- links */

static struct link *link_make(const struct key_pair *key, bool server)
{
    struct link *l = calloc(1, sizeof(*l));
    if (!l)
        abort();
    l->part = world.cur;
    l->server = server;
    l->role = key->pub.role;
    memcpy(l->name, key->pub.name, sizeof(l->name));
    memcpy(l->key, key->pub.z85, sizeof(l->key));
    l->last = &l->first;
    l->next = l->part->links;
    l->part->links = l;
    l->all = net.links;
    net.links = l;
    return l;
}

int link_server(const char *const eps[], size_t n, const struct key_pair *key, const char *allowed,
                struct link **ret, struct err *e)
{
    (void)eps;
    (void)n;
    (void)allowed;
    if (world.cur->dead)
        return err_sys(e, EIO, "link");
    if (net.server)
        return err_sys(e, EADDRINUSE, "tcp://sim");
    *ret = net.server = link_make(key, true);
    return 0;
}

static void try_event(void *arg, uint64_t n)
{
    struct link *l = arg;
    (void)n;
    if (l->gone || l->part->dead || l->conn)
        return;
    unsigned a = l->part->host;
    if (!net.server || net.server->part->dead || net.server->part->frozen_until_ms > world.now_ms ||
        cut(a, COORDINATOR_HOST) || cut(COORDINATOR_HOST, a)) {
        at_ms(world.now_ms + RETRY_MS, try_event, l, 0);
        return;
    }
    struct conn *c = calloc(1, sizeof(*c));
    struct item *i = calloc(1, sizeof(*i));
    if (!c || !i)
        abort();
    *c = (struct conn){ .next = net.conns,
                        .id = ++net.ids + 1,
                        .host = { a, COORDINATOR_HOST },
                        .end = { { .link = l }, { .link = net.server } },
                        .role = l->role };
    memcpy(c->name, l->name, sizeof(c->name));
    memcpy(c->key, l->key, sizeof(c->key));
    net.conns = c;
    l->conn = c;
    i->kind = LINK_UP;
    i->conn = c->id;
    put_item(l, i);
}

int link_client(const char *ep, const struct key_pair *key, const char *server_key,
                struct link **ret, struct err *e)
{
    (void)ep;
    (void)server_key;
    (void)e;
    *ret = link_make(key, false);
    at_ms(world.now_ms + WIRE_MS, try_event, *ret, 0);
    return 0;
}

const char *link_endpoint(const struct link *l, size_t i)
{
    (void)l;
    return i ? NULL : "tcp://sim:1";
}

int link_poll(struct link *l, struct pollfd extra[], size_t n_extra, int64_t timeout_ms,
              struct err *e)
{
    uint64_t grain = world.plan->grain_ms;
    bool ready = l->first;
    for (size_t i = 0; i < n_extra && !ready; i++)
        ready = wrap_fd_ready(extra[i].fd);
    uint64_t wait = ready || timeout_ms == 0       ? 0
                    : timeout_ms < 0               ? UINT64_MAX - world.now_ms
                    : (uint64_t)timeout_ms < grain ? grain
                                                   : (uint64_t)timeout_ms;
    if (part_wait(world.now_ms + wait) < 0)
        return err_set(e, EIO, "killed");
    for (size_t i = 0; i < n_extra; i++)
        extra[i].revents = wrap_fd_ready(extra[i].fd) ? POLLIN : 0;
    return l->first ? 1 : 0;
}

static void fill_peer(const struct link *l, const struct conn *c, struct peer *p)
{
    *p = (struct peer){ .id = l->server ? c->id : 1, .role = ROLE_COORDINATOR };
    snprintf(p->name, sizeof(p->name), "coordinator");
    if (!l->server)
        return;
    p->role = c->role;
    memcpy(p->name, c->name, sizeof(p->name));
    memcpy(p->key, c->key, sizeof(p->key));
    snprintf(p->addr, sizeof(p->addr), "%s:1", world.host[c->host[0]].name);
}

int link_recv(struct link *l, struct link_event *ev, struct err *e)
{
    memset(ev, 0, sizeof(*ev));
    while (l->first && !l->part->dead) {
        CLEANUP(freep) struct item *i = l->first;
        l->first = i->next;
        if (!l->first)
            l->last = &l->first;
        struct conn *c = conn_of(i->conn);
        *ev = (struct link_event){ .kind = i->kind };
        fill_peer(l, c, &ev->peer);
        if (i->kind == LINK_GONE)
            snprintf(ev->text, sizeof(ev->text), "connection lost");
        if (i->kind != LINK_MSG)
            return 1;
        c->end[l->server].queued--;
        if (c->end[l->server].link != l)
            continue; /* of a connection that is closed */
        c->known |= l->server;
        int r = msg_decode(i->frame, i->len, &ev->msg, e);
        if (r < 0) {
            sim_fail("%s cannot decode a frame: %s", l->part->name, e ? e->text : "?");
            return r;
        }
        if (msg_roles(ev->msg.type) & ev->peer.role) {
            if (ev->msg.type == M_CHUNK)
                check_chunk(c->host[!l->server], c->host[l->server], &ev->msg.chunk.id,
                            ev->msg.chunk.index, false);
            return 1;
        }
        sim_fail("%s got %s from role %d", l->part->name, msg_name(ev->msg.type),
                 (int)ev->peer.role);
        msg_clear(&ev->msg);
    }
    return 0;
}

void link_event_clear(struct link_event *ev)
{
    msg_clear(&ev->msg);
    memset(ev, 0, sizeof(*ev));
}

void link_drop(struct link *l, uint64_t peer, const char *why)
{
    (void)why;
    struct conn *c = conn_of(peer);
    if (c && l->server)
        drop_end(c, 1, false, false);
}

bool link_is_up(const struct link *l)
{
    return l->server || l->conn;
}

bool link_peer_up(const struct link *l, uint64_t peer)
{
    return l->server && conn_of(peer);
}

bool link_key_allowed(const struct link *l, const char *z85, enum role role)
{
    (void)l, (void)z85, (void)role;
    return true;
}

size_t link_n_peers(const struct link *l)
{
    size_t n = 0;
    for (const struct conn *c = net.conns; c; c = c->next)
        n += c->end[1].link == l && c->known;
    return n;
}

void link_stats(const struct link *l, struct link_stats *ret)
{
    (void)l;
    *ret = (struct link_stats){ 0 };
}

static void drop_items(struct link *l)
{
    while (l->first) {
        struct item *i = l->first;
        l->first = i->next;
        free(i);
    }
    l->last = &l->first;
}

void link_free(struct link **lp, int linger_ms)
{
    struct link *l = *lp;
    (void)linger_ms;
    if (!l)
        return;
    *lp = NULL;
    l->gone = true;
    if (net.server == l)
        net.server = NULL;
    for (struct conn *c = net.conns; c; c = c->next)
        for (unsigned side = 0; side < 2; side++)
            if (c->end[side].link == l)
                drop_end(c, side, false, false);
    drop_items(l);
}

void net_clear(void)
{
    world_forget(deliver_event); /* frames on their way belong to their events */
    while (net.conns) {
        struct conn *c = net.conns;
        net.conns = c->next;
        free(c);
    }
    while (net.links) {
        struct link *l = net.links;
        net.links = l->all;
        drop_items(l);
        free(l);
    }
    buf_clear(&net.frame);
}
