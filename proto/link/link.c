/* ROUTER and DEALER behind one API. See link.h for what a user sees; here is how libzmq 4.3 is kept in hand.
 *
 * - The ZAP handler is a REP socket served in link_poll(), by the thread that owns the link: no thread of ours, and the
 *   allow-list needs no lock. A message carries the key that was let in as its User-Id, so the role of a message is the
 *   role of its key, whatever routing id a peer chose.
 * - The monitor tells of closed connections by file descriptor; a message tells the descriptor it came through. The
 *   two are joined in conn.fd. libzmq cannot close one peer of a ROUTER, so link_drop() shuts the descriptor down.
 * - The monitor's queue is unlimited on purpose: libzmq's I/O thread blocks on a full one, for ever. It holds a few bytes
 *   a connection and is emptied in each link_poll().
 * - A monitor is stopped before its reading end is closed, else the I/O thread waits for a reader that is gone.
 */
#include "proto/link/link.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <zmq.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/num.h"
#include "proto/base/rng.h"
#include "proto/link/allow.h"
#include "proto/wire/schema.h"
#include "proto/wire/utf8.h"

enum {
    BUCKETS = 1024,
    EPS_MAX = 16,
    EXTRA_MAX = 1024,
    SERVER_RCVHWM = 32, /* messages of one peer that wait to be read; the rest waits in TCP */
    HANDSHAKE_MS = 10000,
    BEAT_MS = 2000, /* libzmq's own heartbeat: notices a dead TCP connection */
    BEAT_LOST_MS = 10000,
    ALLOW_CHECK_MS = 300, /* how soon a revoked key is dropped */
    RETRY_MIN_MS = 100,
    RETRY_MAX_MS = 2000,
    RETRY_REFUSED_MS = 2000,
    CONNECT_MS = 8000,   /* a connection that is not up by then is begun anew */
    NO_DETAIL_MAX = 2,   /* closed in the handshake so often: the server key is wrong */
    LINES_S = 5,         /* log lines a second about one peer, and about strangers */
    REFUSALS_S = 50,     /* refusals a second that one peer is answered */
    REFUSED_DROP = 1000, /* bad messages of one connection before it is closed */
    RECV_BUDGET = 64,    /* bad messages worked off in one link_recv() */
    GONE_AFTER = 1000,   /* messages that may pass before a LINK_GONE that waits */
};

/* At most so many a second; counts what it kept back. */
struct limit {
    uint64_t second;
    unsigned n, kept;
};

/* A connection as the server knows it, from its first message to its LINK_GONE. */
struct conn {
    struct conn *next_rid, *next_id, *next_gone;
    uint8_t rid[255];
    uint8_t rid_len;
    bool gone;    /* waits in link.gone */
    bool revoked; /* its key is not allowed any more: nothing of it counts */
    int fd;
    uint64_t refused;
    struct limit lines, answers;
    struct peer peer;
    char why[128];
};

/* What is known of an accepted descriptor; index = the descriptor. */
struct fd_info {
    bool live;
    char addr[LINK_ADDR_LEN];
};

enum client_state { DOWN, CONNECTING, UP, CLOSING };

struct link {
    bool server;
    void *ctx, *sock, *mon, *zap;
    unsigned mon_n;
    struct buf out;
    struct link_stats stats;
    struct limit lines;

    /* server */
    struct allow allow;
    uint64_t allow_next_ms;
    char *eps[EPS_MAX];
    size_t n_eps;
    struct conn *by_rid[BUCKETS], *by_id[BUCKETS], *gone, **gone_tail;
    size_t n_conns, n_live;
    uint64_t last_id;
    unsigned since_gone;
    struct fd_info *fds;
    size_t n_fds, live_max;
    int failed_event; /* HANDSHAKE_FAILED_* whose DISCONNECTED names the descriptor */
    uint64_t failed_value;

    /* client */
    enum client_state state;
    struct key_pair key;
    char server_key[KEY_Z85_LEN];
    char *ep;
    uint64_t since_ms, retry_ms;
    unsigned tries, no_detail;
    bool refused_told;
    bool say_up, say_refused;
    char text[256];
    struct rng rng;
};

/* ---- small helpers */

static bool limit_ok(struct limit *l, unsigned max, uint64_t now_ms)
{
    if (l->second != now_ms / 1000) {
        l->second = now_ms / 1000;
        l->n = 0;
    }
    if (l->n >= max) {
        l->kept++;
        return false;
    }
    l->n++;
    return true;
}

/* " (12 more like it not shown)" once something was kept back. */
static const char *limit_kept(struct limit *l, char out[64])
{
    out[0] = 0;
    if (l->kept)
        snprintf(out, 64, " (%u lines before were left out)", l->kept);
    l->kept = 0;
    return out;
}

static int set_int(void *s, int opt, int v)
{
    return zmq_setsockopt(s, opt, &v, sizeof(v));
}

static int common_options(void *s, int rcvhwm)
{
    int64_t max = FRAME_MAX + 256; /* and what CURVE adds */
    int r = zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &max, sizeof(max));
    r |= set_int(s, ZMQ_LINGER, 0);
    r |= set_int(s, ZMQ_SNDHWM, LINK_QUEUE);
    r |= set_int(s, ZMQ_RCVHWM, rcvhwm);
    r |= set_int(s, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    r |= set_int(s, ZMQ_HEARTBEAT_IVL, BEAT_MS);
    r |= set_int(s, ZMQ_HEARTBEAT_TIMEOUT, BEAT_LOST_MS);
    r |= set_int(s, ZMQ_HEARTBEAT_TTL, BEAT_LOST_MS);
    r |= set_int(s, ZMQ_TCP_KEEPALIVE, 1);
    return r ? -errno : 0;
}

/* "tcp://HOST:PORT" and nothing else: libzmq would take other transports and a source address, too. */
static int check_ep(const char *ep, bool bind, struct err *e)
{
    uint64_t port;
    const char *host = ep + 6, *colon;
    if (strncmp(ep, "tcp://", 6) || strlen(ep) > 300 || !(colon = strrchr(host, ':')) ||
        colon == host || strpbrk(ep, "; \t\r\n") ||
        (host[0] != '[' && memchr(host, ':', (size_t)(colon - host))) ||
        (!bind && host[0] == '*') ||
        (!(bind && !strcmp(colon + 1, "*")) &&
         num_u64(colon + 1, bind ? 0 : 1, 65535, "port", &port, NULL) < 0))
        return err_set(e, SF_EUSAGE, "%.200s: is no endpoint of the form tcp://HOST:PORT", ep);
    return 0;
}

/* Open a monitor of s for events; its reading end goes to *ret. */
static int monitor_open(struct link *l, void *s, int events, void **ret)
{
    char name[64];
    snprintf(name, sizeof(name), "inproc://monitor-%u", ++l->mon_n);
    if (zmq_socket_monitor(s, name, events) < 0)
        return -errno;
    void *m = zmq_socket(l->ctx, ZMQ_PAIR);
    if (m && set_int(m, ZMQ_RCVHWM, 0) == 0 && set_int(m, ZMQ_LINGER, 0) == 0 &&
        zmq_connect(m, name) == 0) {
        *ret = m;
        return 0;
    }
    int r = -errno;
    zmq_socket_monitor(s, NULL, 0);
    if (m)
        zmq_close(m);
    return r;
}

static void close_pair(void **s, void **mon)
{
    if (*s)
        zmq_socket_monitor(*s, NULL, 0);
    if (*mon)
        zmq_close(*mon);
    if (*s)
        zmq_close(*s);
    *s = *mon = NULL;
}

/* One monitor event: 1 = *event, *value; 0 = none. */
static int monitor_read(void *mon, int *event, uint64_t *value)
{
    int got = 0;
    for (int more = 1, part = 0; more; part++) {
        zmq_msg_t m;
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, mon, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&m);
            return 0;
        }
        if (part == 0 && zmq_msg_size(&m) >= 6) {
            uint16_t ev;
            uint32_t v;
            memcpy(&ev, zmq_msg_data(&m), 2);
            memcpy(&v, (char *)zmq_msg_data(&m) + 2, 4);
            *event = ev;
            *value = v;
            got = 1;
        }
        more = zmq_msg_more(&m);
        zmq_msg_close(&m);
    }
    return got;
}

static bool readable(void *s)
{
    int ev = 0;
    size_t n = sizeof(ev);
    return s && zmq_getsockopt(s, ZMQ_EVENTS, &ev, &n) == 0 && (ev & ZMQ_POLLIN);
}

/* ---- server: connections */

static size_t rid_bucket(const uint8_t *rid, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++)
        h = (h ^ rid[i]) * UINT64_C(0x100000001b3);
    return (h ^ h >> 32) % BUCKETS;
}

static struct conn *conn_by_rid(struct link *l, const uint8_t *rid, size_t n, const char *key)
{
    for (struct conn *c = l->by_rid[rid_bucket(rid, n)]; c; c = c->next_rid)
        if (c->rid_len == n && !memcmp(c->rid, rid, n) && !strcmp(c->peer.key, key))
            return c;
    return NULL;
}

static struct conn *conn_by_id(const struct link *l, uint64_t id)
{
    struct conn *c = l->by_id[id % BUCKETS];
    while (c && c->peer.id != id)
        c = c->next_id;
    return c;
}

static void conn_free(struct link *l, struct conn *c)
{
    struct conn **p = &l->by_rid[rid_bucket(c->rid, c->rid_len)];
    while (*p != c)
        p = &(*p)->next_rid;
    *p = c->next_rid;
    p = &l->by_id[c->peer.id % BUCKETS];
    while (*p != c)
        p = &(*p)->next_id;
    *p = c->next_id;
    l->n_conns--;
    free(c);
}

static struct conn *conn_new(struct link *l, const uint8_t *rid, size_t n, int fd,
                             const struct key_pub *k)
{
    struct conn *c = l->n_conns < LINK_PEERS_MAX ? calloc(1, sizeof(*c)) : NULL;
    if (!c)
        return NULL;
    memcpy(c->rid, rid, n);
    c->rid_len = (uint8_t)n;
    c->fd = fd;
    c->peer.id = ++l->last_id;
    c->peer.role = k->role;
    memcpy(c->peer.name, k->name, sizeof(k->name));
    memcpy(c->peer.key, k->z85, sizeof(k->z85));
    if (fd >= 0 && (size_t)fd < l->n_fds)
        memcpy(c->peer.addr, l->fds[fd].addr, sizeof(c->peer.addr));
    struct conn **b = &l->by_rid[rid_bucket(rid, n)];
    c->next_rid = *b;
    *b = c;
    b = &l->by_id[c->peer.id % BUCKETS];
    c->next_id = *b;
    *b = c;
    l->n_conns++;
    return c;
}

static void conn_gone(struct link *l, struct conn *c, const char *why)
{
    if (c->gone)
        return;
    c->gone = true;
    snprintf(c->why, sizeof(c->why), "%s", why);
    c->next_gone = NULL;
    *l->gone_tail = c;
    l->gone_tail = &c->next_gone;
    l->stats.gone++;
}

/* Shut a descriptor of libzmq's down: its I/O thread sees the end of the stream and closes it. Only while the monitor says it
 * is open and it still leads to the same peer, since the number could have been given to another file. */
static void fd_addr(int fd, char out[LINK_ADDR_LEN])
{
    struct sockaddr_storage sa = { 0 };
    socklen_t n = sizeof(sa);
    char host[INET6_ADDRSTRLEN] = "";
    out[0] = 0;
    if (fd < 0 || getpeername(fd, (struct sockaddr *)&sa, &n) < 0)
        return;
    if (sa.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&sa;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(out, LINK_ADDR_LEN, "%s:%u", host, ntohs(in->sin_port));
    } else if (sa.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)&sa;
        inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof(host));
        snprintf(out, LINK_ADDR_LEN, "[%s]:%u", host, ntohs(in->sin6_port));
    }
}

static void fd_shut(const struct link *l, int fd)
{
    char now[LINK_ADDR_LEN];
    if (fd < 0 || (size_t)fd >= l->n_fds || !l->fds[fd].live || !l->fds[fd].addr[0])
        return;
    fd_addr(fd, now);
    if (!strcmp(now, l->fds[fd].addr))
        shutdown(fd, SHUT_RDWR);
}

static void fd_accepted(struct link *l, int fd)
{
    if (fd < 0)
        return;
    if ((size_t)fd >= l->n_fds) {
        size_t n = (size_t)fd + 64;
        struct fd_info *p = realloc(l->fds, n * sizeof(*p));
        if (!p)
            return;
        memset(p + l->n_fds, 0, (n - l->n_fds) * sizeof(*p));
        l->fds = p;
        l->n_fds = n;
    }
    if (!l->fds[fd].live)
        l->n_live++;
    l->fds[fd].live = true;
    fd_addr(fd, l->fds[fd].addr);
    l->stats.connects++;
    if (l->n_live > l->live_max) {
        uint64_t now = clock_mono_ms();
        char kept[64];
        if (limit_ok(&l->lines, LINES_S, now))
            log_warn("link: %zu connections are open, the one from %s is closed%s", l->n_live - 1,
                     l->fds[fd].addr, limit_kept(&l->lines, kept));
        fd_shut(l, fd);
    }
}

static void fd_closed(struct link *l, int fd)
{
    if (fd < 0 || (size_t)fd >= l->n_fds || !l->fds[fd].live)
        return;
    l->fds[fd].live = false;
    l->n_live--;
    for (size_t b = 0; b < BUCKETS; b++)
        for (struct conn *c = l->by_id[b]; c; c = c->next_id)
            if (c->fd == fd && !c->gone)
                conn_gone(l, c, "connection closed");
}

static void server_monitor(struct link *l)
{
    int event;
    uint64_t value;
    char kept[64];
    while (monitor_read(l->mon, &event, &value)) {
        switch (event) {
        case ZMQ_EVENT_ACCEPTED:
            fd_accepted(l, (int)value);
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
            l->failed_event = event;
            l->failed_value = value;
            break;
        case ZMQ_EVENT_DISCONNECTED: {
            int fd = (int)value;
            if (l->failed_event && limit_ok(&l->lines, LINES_S, clock_mono_ms()))
                log_warn("link: %s%s: handshake failed, %s; connection refused%s", "peer ",
                         fd >= 0 && (size_t)fd < l->n_fds && l->fds[fd].addr[0] ? l->fds[fd].addr
                                                                                : "(unknown)",
                         l->failed_event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL
                             ? "it closed or fell silent"
                         : l->failed_value == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC
                             ? "it holds another server key"
                             : "it is not a siofleet of this protocol",
                         limit_kept(&l->lines, kept));
            l->failed_event = 0;
            fd_closed(l, fd);
            break;
        }
        default:
            break;
        }
    }
}

/* Keys that are not allowed any more, or with another role, lose their connections. */
static void server_recheck(struct link *l)
{
    for (size_t b = 0; b < BUCKETS; b++)
        for (struct conn *c = l->by_id[b]; c; c = c->next_id) {
            const struct key_pub *k = allow_find(&l->allow, c->peer.key);
            if (c->revoked || (k && k->role == c->peer.role && !strcmp(k->name, c->peer.name)))
                continue;
            c->revoked = true;
            log_info("link: key '%s' is revoked, connection from %s closed", c->peer.name,
                     c->peer.addr);
            fd_shut(l, c->fd);
            conn_gone(l, c, "key revoked");
        }
}

static void server_refresh(struct link *l)
{
    if (allow_refresh(&l->allow) == 1)
        server_recheck(l);
}

/* ---- server: ZAP (RFC 27): who may connect */

static void zap_serve(struct link *l)
{
    enum { VERSION, REQUEST, DOMAIN, ADDRESS, IDENTITY, MECHANISM, KEY, PARTS };
    for (;;) {
        char part[PARTS][256];
        size_t len[PARTS] = { 0 };
        int n = 0, more = 1;
        while (more) {
            zmq_msg_t m;
            zmq_msg_init(&m);
            if (zmq_msg_recv(&m, l->zap, ZMQ_DONTWAIT) < 0) {
                zmq_msg_close(&m);
                return;
            }
            size_t size = zmq_msg_size(&m);
            if (n < PARTS && size < sizeof(part[0])) {
                memcpy(part[n], zmq_msg_data(&m), size);
                part[n][size] = 0;
                len[n] = size;
            }
            n++;
            more = zmq_msg_more(&m);
            zmq_msg_close(&m);
        }
        const struct key_pub *k = NULL;
        char z85[KEY_Z85_LEN] = "", kept[64];
        if (n == PARTS && !strcmp(part[VERSION], "1.0") && !strcmp(part[MECHANISM], "CURVE") &&
            len[KEY] == 32 && zmq_z85_encode(z85, (const uint8_t *)part[KEY], 32)) {
            server_refresh(l); /* allowed or revoked a moment ago counts */
            k = allow_find(&l->allow, z85);
        }
        if (!k) {
            l->stats.refused_keys++;
            if (limit_ok(&l->lines, LINES_S, clock_mono_ms()))
                log_warn("link: peer %s: key %s is not allowed, connection refused%s",
                         n > ADDRESS && len[ADDRESS] ? part[ADDRESS] : "(unknown)",
                         z85[0] ? z85 : "(none)", limit_kept(&l->lines, kept));
        }
        const char *code = k ? "200" : "400", *text = k ? "" : "key not allowed";
        size_t id_len = n > REQUEST ? len[REQUEST] : 0;
        zmq_send(l->zap, "1.0", 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
        zmq_send(l->zap, part[REQUEST], id_len, ZMQ_SNDMORE | ZMQ_DONTWAIT);
        zmq_send(l->zap, code, 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
        zmq_send(l->zap, text, strlen(text), ZMQ_SNDMORE | ZMQ_DONTWAIT);
        zmq_send(l->zap, k ? z85 : "", k ? strlen(z85) : 0, ZMQ_SNDMORE | ZMQ_DONTWAIT);
        zmq_send(l->zap, "", 0, ZMQ_DONTWAIT);
    }
}

int link_server(const char *const eps[], size_t n, const struct key_pair *key, const char *allowed,
                struct link **ret, struct err *e)
{
    struct link *l = NULL;
    int r;
    if (!n || n > EPS_MAX)
        return err_set(e, SF_EUSAGE, "--listen: 1 to %d endpoints", EPS_MAX);
    for (size_t i = 0; i < n; i++)
        if ((r = check_ep(eps[i], true, e)) < 0)
            return r;
    if (key->pub.role != ROLE_COORDINATOR)
        return err_set(e, SF_EREFUSED, "key '%s': is not a coordinator's", key->pub.name);
    l = calloc(1, sizeof(*l));
    if (!l)
        return err_sys(e, ENOMEM, "link");
    l->server = true;
    l->gone_tail = &l->gone;
    buf_init(&l->out, FRAME_MAX + 4096);
    struct rlimit lim;
    l->live_max = LINK_PEERS_MAX;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur / 2 < l->live_max)
        l->live_max = lim.rlim_cur / 2; /* the store needs descriptors, too */
    r = allow_init(&l->allow, allowed, e);
    if (r < 0)
        goto fail;
    allow_refresh(&l->allow);
    if (!(l->ctx = zmq_ctx_new()) || !(l->zap = zmq_socket(l->ctx, ZMQ_REP)) ||
        set_int(l->zap, ZMQ_LINGER, 0) < 0 || set_int(l->zap, ZMQ_RCVHWM, 0) < 0 ||
        set_int(l->zap, ZMQ_SNDHWM, 0) < 0 || zmq_bind(l->zap, "inproc://zeromq.zap.01") < 0 ||
        !(l->sock = zmq_socket(l->ctx, ZMQ_ROUTER)) || common_options(l->sock, SERVER_RCVHWM) < 0 ||
        set_int(l->sock, ZMQ_ROUTER_MANDATORY, 1) < 0 ||
        set_int(l->sock, ZMQ_CURVE_SERVER, 1) < 0 || set_int(l->sock, ZMQ_BACKLOG, 256) < 0 ||
        zmq_setsockopt(l->sock, ZMQ_CURVE_SECRETKEY, key->secret, KEY_Z85_LEN) < 0 ||
        zmq_setsockopt(l->sock, ZMQ_ZAP_DOMAIN, "siofleet", 8) < 0) {
        r = err_sys(e, errno, "link: cannot set up sockets");
        goto fail;
    }
    r = monitor_open(l, l->sock,
                     ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED |
                         ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL,
                     &l->mon);
    if (r < 0) {
        err_sys(e, -r, "link: cannot set up the monitor");
        goto fail;
    }
    for (size_t i = 0; i < n; i++) {
        char real[400];
        size_t len = sizeof(real);
        set_int(l->sock, ZMQ_IPV6, eps[i][6] == '[');
        if (zmq_bind(l->sock, eps[i]) < 0 ||
            zmq_getsockopt(l->sock, ZMQ_LAST_ENDPOINT, real, &len) < 0) {
            r = err_sys(e, errno, "%s: cannot listen", eps[i]);
            goto fail;
        }
        if (!(l->eps[i] = strdup(real))) {
            r = err_sys(e, ENOMEM, "link");
            goto fail;
        }
        l->n_eps++;
    }
    *ret = l;
    return 0;
fail:
    link_free(&l, 0);
    return r;
}

/* ---- client */

static void client_down(struct link *l, uint64_t wait_ms)
{
    close_pair(&l->sock, &l->mon);
    l->state = DOWN;
    l->retry_ms = clock_mono_ms() + wait_ms / 2 + rng_below(&l->rng, wait_ms / 2 + 1);
}

static uint64_t client_backoff(struct link *l)
{
    uint64_t ms = RETRY_MIN_MS << (l->tries < 6 ? l->tries : 6);
    l->tries++;
    return ms > RETRY_MAX_MS ? RETRY_MAX_MS : ms;
}

static void client_connect(struct link *l)
{
    l->since_ms = clock_mono_ms();
    l->sock = zmq_socket(l->ctx, ZMQ_DEALER);
    if (l->sock && common_options(l->sock, LINK_QUEUE) == 0 &&
        set_int(l->sock, ZMQ_RECONNECT_IVL, -1) == 0 &&
        set_int(l->sock, ZMQ_CONNECT_TIMEOUT, CONNECT_MS) == 0 &&
        set_int(l->sock, ZMQ_IPV6, l->ep[6] == '[') == 0 &&
        zmq_setsockopt(l->sock, ZMQ_CURVE_SERVERKEY, l->server_key, KEY_Z85_LEN) == 0 &&
        zmq_setsockopt(l->sock, ZMQ_CURVE_PUBLICKEY, l->key.pub.z85, KEY_Z85_LEN) == 0 &&
        zmq_setsockopt(l->sock, ZMQ_CURVE_SECRETKEY, l->key.secret, KEY_Z85_LEN) == 0 &&
        monitor_open(l, l->sock,
                     ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED |
                         ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                         ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH,
                     &l->mon) == 0 &&
        zmq_connect(l->sock, l->ep) == 0) {
        l->state = CONNECTING;
        l->stats.connects++;
        return;
    }
    /* out of descriptors or memory: later, perhaps */
    snprintf(l->text, sizeof(l->text), "cannot connect: %s", zmq_strerror(errno));
    client_down(l, RETRY_MAX_MS);
}

/* Said once until the link was up again. */
static void client_refused(struct link *l)
{
    if (!l->refused_told)
        l->say_refused = true;
    l->refused_told = true;
    l->stats.refused_keys++;
}

static void client_monitor(struct link *l)
{
    int event;
    uint64_t value;
    while (l->mon && monitor_read(l->mon, &event, &value)) {
        switch (event) {
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
            l->state = UP;
            l->tries = l->no_detail = 0;
            l->refused_told = false;
            l->say_up = true;
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
            snprintf(l->text, sizeof(l->text),
                     "%.120s: the coordinator does not allow the key '%s' (%s)", l->ep,
                     l->key.pub.name, role_name(l->key.pub.role));
            client_refused(l);
            client_down(l, RETRY_REFUSED_MS);
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
            snprintf(l->text, sizeof(l->text),
                     "%.120s: handshake failed, this is not a siofleet coordinator with this key",
                     l->ep);
            client_refused(l);
            client_down(l, RETRY_REFUSED_MS);
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            /* A server that cannot open our first box just closes; so does one that is stopped in that
             * moment. */
            if (++l->no_detail >= NO_DETAIL_MAX) {
                snprintf(
                    l->text, sizeof(l->text),
                    "%.120s: closes the connection in the handshake, the server key is not its own",
                    l->ep);
                client_refused(l);
            }
            client_down(l, l->no_detail >= NO_DETAIL_MAX ? RETRY_REFUSED_MS : RETRY_MIN_MS);
            break;
        case ZMQ_EVENT_DISCONNECTED:
        case ZMQ_EVENT_CLOSED:
        case ZMQ_EVENT_CONNECT_RETRIED:
            if (l->state == UP) {
                l->state = CLOSING; /* what came before is read first */
                l->stats.gone++;
            } else if (l->state == CONNECTING) {
                client_down(l, client_backoff(l));
            }
            break;
        default:
            break;
        }
    }
}

int link_client(const char *ep, const struct key_pair *key, const char *server_key,
                struct link **ret, struct err *e)
{
    struct link *l = NULL;
    int r = check_ep(ep, false, e);
    if (r < 0)
        return r;
    if (strlen(server_key) != KEY_Z85_LEN - 1)
        return err_set(e, SF_EUSAGE, "server key: is not 40 characters of Z85");
    l = calloc(1, sizeof(*l));
    if (!l)
        return err_sys(e, ENOMEM, "link");
    buf_init(&l->out, FRAME_MAX + 4096);
    l->gone_tail = &l->gone;
    l->key = *key;
    memcpy(l->server_key, server_key, KEY_Z85_LEN);
    random_bytes(&l->rng, sizeof(l->rng));
    l->ep = strdup(ep);
    l->ctx = l->ep ? zmq_ctx_new() : NULL;
    if (!l->ctx) {
        r = err_sys(e, ENOMEM, "link");
        link_free(&l, 0);
        return r;
    }
    client_connect(l);
    *ret = l;
    return 0;
}

/* ---- both */

const char *link_endpoint(const struct link *l, size_t i)
{
    return i < l->n_eps ? l->eps[i] : NULL;
}

bool link_is_up(const struct link *l)
{
    return l->server || l->state == UP;
}

size_t link_n_peers(const struct link *l)
{
    return l->n_conns;
}

void link_stats(const struct link *l, struct link_stats *ret)
{
    *ret = l->stats;
}

/* Everything that is not messages. */
static void service(struct link *l)
{
    uint64_t now = clock_mono_ms();
    if (l->server) {
        zap_serve(l);
        server_monitor(l);
        if (now >= l->allow_next_ms) {
            l->allow_next_ms = now + ALLOW_CHECK_MS;
            server_refresh(l);
        }
        return;
    }
    client_monitor(l);
    if (l->state == CONNECTING && now - l->since_ms > CONNECT_MS + 2000)
        client_down(l, client_backoff(l));
    if (l->state == DOWN && now >= l->retry_ms)
        client_connect(l);
}

/* Is there something for link_recv()? */
static bool pending(const struct link *l)
{
    return l->gone || l->say_up || l->say_refused || l->state == CLOSING || readable(l->sock);
}

/* ms until service() has something to do of itself, at most max (-1 = for ever). */
static int64_t next_wake(const struct link *l, int64_t max)
{
    uint64_t now = clock_mono_ms(), at;
    if (l->server)
        at = l->allow_next_ms;
    else if (l->state == DOWN)
        at = l->retry_ms;
    else if (l->state == CONNECTING)
        at = l->since_ms + CONNECT_MS + 2001;
    else
        return max;
    int64_t wait = at > now ? (int64_t)(at - now) : 0;
    return max >= 0 && max < wait ? max : wait;
}

int link_poll(struct link *l, struct pollfd extra[], size_t n_extra, int64_t timeout_ms,
              struct err *e)
{
    uint64_t end = clock_mono_ms() + (timeout_ms > 0 ? (uint64_t)timeout_ms : 0);
    struct pollfd small[32], *p = small;
    CLEANUP(freep) struct pollfd *big = NULL;
    if (n_extra > EXTRA_MAX)
        return err_set(e, EINVAL, "link: %zu descriptors to wait for", n_extra);
    if (n_extra + 3 > ARRAY_LEN(small)) {
        big = calloc(n_extra + 3, sizeof(*big));
        if (!big)
            return err_sys(e, ENOMEM, "link");
        p = big;
    }
    for (;;) {
        service(l);
        bool ready = pending(l);
        size_t n = 0;
        void *socks[] = { l->sock, l->mon, l->zap };
        for (size_t i = 0; i < ARRAY_LEN(socks); i++) {
            int fd = -1;
            size_t len = sizeof(fd);
            if (socks[i] && zmq_getsockopt(socks[i], ZMQ_FD, &fd, &len) == 0)
                p[n++] = (struct pollfd){ .fd = fd, .events = POLLIN };
            /* libzmq's descriptors tell of changes only: what is there already must be asked for */
            if (i > 0 && readable(socks[i]))
                ready = true;
        }
        if (n_extra)
            memcpy(p + n, extra, n_extra * sizeof(*p));
        uint64_t now = clock_mono_ms();
        int64_t wait = timeout_ms < 0 ? -1 : end > now ? (int64_t)(end - now) : 0;
        wait = ready ? 0 : next_wake(l, wait);
        int r = poll(p, n + n_extra, wait < 0 ? -1 : wait > 1000000 ? 1000000 : (int)wait);
        if (r < 0 && errno != EINTR)
            return err_sys(e, errno, "poll");
        bool intr = r < 0, hit = false;
        for (size_t i = 0; i < n_extra; i++) {
            extra[i].revents = intr ? 0 : p[n + i].revents;
            hit |= extra[i].revents != 0;
        }
        service(l);
        if (pending(l))
            return 1;
        if (hit || intr || (timeout_ms >= 0 && clock_mono_ms() >= end))
            return 0;
    }
}

void link_event_clear(struct link_event *ev)
{
    msg_clear(&ev->msg);
    memset(ev, 0, sizeof(*ev));
}

static int send_to(struct link *l, struct conn *c, const void *p, size_t n)
{
    for (int i = 0;; i++) {
        int r = 0;
        if (c)
            r = zmq_send(l->sock, c->rid, c->rid_len, ZMQ_SNDMORE | ZMQ_DONTWAIT);
        if (r >= 0)
            r = zmq_send(l->sock, p, n, ZMQ_DONTWAIT);
        if (r >= 0) {
            l->stats.sent++;
            return 0;
        }
        if (errno == EINTR && i < 10)
            continue;
        if (errno == EAGAIN && i == 0) {
            readable(l->sock); /* makes libzmq look at what the I/O thread told it */
            continue;
        }
        return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EHOSTUNREACH;
    }
}

int link_send(struct link *l, uint64_t peer, const struct msg *m, struct err *e)
{
    struct conn *c = NULL;
    if (l->server ? !(c = conn_by_id(l, peer)) || c->gone : l->state != UP || peer != 1)
        return err_set(e, EHOSTUNREACH, "message '%s': peer %llu is not connected",
                       msg_name(m->type), (unsigned long long)peer);
    int r = msg_encode(m, &l->out, e);
    if (r < 0)
        return r;
    r = send_to(l, c, l->out.data, l->out.len);
    if (r == -EAGAIN) {
        l->stats.full++;
        return err_set(e, EAGAIN, "message '%s': the queue of peer %llu is full", msg_name(m->type),
                       (unsigned long long)peer);
    }
    if (r < 0) {
        if (c)
            conn_gone(l, c, "not reachable");
        return err_set(e, EHOSTUNREACH, "message '%s': peer %llu is gone", msg_name(m->type),
                       (unsigned long long)peer);
    }
    return 0;
}

int link_refuse(struct link *l, uint64_t peer, uint64_t req, int exit_status, const char *code,
                const char *text)
{
    char clean[1001], name[65];
    utf8_clean(text, clean, sizeof(clean));
    utf8_clean(code, name, sizeof(name));
    struct msg m = { .type = M_REFUSE,
                     .refuse = {
                         .req = req,
                         .exit = exit_status >= 1 && exit_status <= 5 ? (uint64_t)exit_status : 1,
                         .code = name[0] ? name : "FAILED",
                         .text = clean[0] ? clean : "refused" } };
    return link_send(l, peer, &m, NULL);
}

void link_drop(struct link *l, uint64_t peer, const char *why)
{
    struct conn *c = l->server ? conn_by_id(l, peer) : NULL;
    if (!c || c->gone)
        return;
    fd_shut(l, c->fd);
    conn_gone(l, c, why);
}

/* A message that does not count: one line here, a refusal there. */
static void refuse_conn(struct link *l, struct conn *c, uint64_t req, const char *code,
                        const char *text)
{
    uint64_t now = clock_mono_ms();
    char kept[64];
    l->stats.refused_msgs++;
    c->refused++;
    if (limit_ok(&c->lines, LINES_S, now))
        log_warn("link: %s '%s' at %s: %s, message refused%s", role_name(c->peer.role),
                 c->peer.name, c->peer.addr, text, limit_kept(&c->lines, kept));
    if (limit_ok(&c->answers, REFUSALS_S, now) && !c->gone)
        link_refuse(l, c->peer.id, req, 3, code, text);
    if (c->refused >= REFUSED_DROP && !c->gone) {
        log_warn("link: %s '%s' at %s: %llu messages refused, connection closed",
                 role_name(c->peer.role), c->peer.name, c->peer.addr,
                 (unsigned long long)c->refused);
        link_drop(l, c->peer.id, "too many refused messages");
    }
}

static uint64_t req_of(struct msg *m)
{
    uint64_t *req = wire_req(m);
    return req ? *req : 0;
}

/* Take what came as one message of c. Returns 1 = in *ev, 0 = refused, -ENOMEM. */
static int take_server(struct link *l, struct conn *c, zmq_msg_t *frame, bool single,
                       struct link_event *ev, struct err *e)
{
    struct err why = { 0 };
    char text[400];
    int r = single ? msg_decode(zmq_msg_data(frame), zmq_msg_size(frame), &ev->msg, &why)
                   : err_set(&why, SF_EFORMAT, "frame: more than one part");
    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "%s", why.text);
    if (r < 0) {
        refuse_conn(l, c, 0, r == -SF_EREFUSED ? "PROTOCOL" : "MALFORMED", why.text);
        return 0;
    }
    if (!(msg_roles(ev->msg.type) & c->peer.role)) {
        snprintf(text, sizeof(text), "message '%s': role '%s' may not send it",
                 msg_name(ev->msg.type), role_name(c->peer.role));
        refuse_conn(l, c, req_of(&ev->msg), "ROLE", text);
        msg_clear(&ev->msg);
        return 0;
    }
    ev->kind = LINK_MSG;
    ev->peer = c->peer;
    l->stats.received++;
    return 1;
}

/* One message off the ROUTER: 1 = in *ev, 0 = dealt with, -EAGAIN = none, -ENOMEM. */
static int recv_server(struct link *l, struct link_event *ev, struct err *e)
{
    zmq_msg_t m;
    uint8_t rid[256];
    size_t rid_len;
    int r;
    zmq_msg_init(&m);
    if (zmq_msg_recv(&m, l->sock, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&m);
        return -EAGAIN;
    }
    rid_len = zmq_msg_size(&m);
    bool odd = rid_len == 0 || rid_len > 255 || !zmq_msg_more(&m);
    if (!odd)
        memcpy(rid, zmq_msg_data(&m), rid_len);
    int more = zmq_msg_more(&m);
    size_t parts = 0;
    int fd = -1;
    char key[KEY_Z85_LEN] = "";
    zmq_msg_t first;
    zmq_msg_init(&first);
    while (more) {
        zmq_msg_close(&m);
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, l->sock, ZMQ_DONTWAIT) < 0)
            break;
        more = zmq_msg_more(&m);
        if (parts++ == 0) {
            const char *user = zmq_msg_gets(&m, "User-Id");
            if (user)
                snprintf(key, sizeof(key), "%s", user);
            fd = zmq_msg_get(&m, ZMQ_SRCFD);
            zmq_msg_move(&first, &m);
        }
    }
    zmq_msg_close(&m);
    r = 0;
    if (odd || !parts || !key[0])
        goto out;
    /* Closings that happened before this message must be known before its descriptor is believed. */
    server_monitor(l);
    struct conn *c = conn_by_rid(l, rid, rid_len, key);
    if (!c) {
        const struct key_pub *k = allow_find(&l->allow, key);
        if (!k) {
            /* revoked after its handshake */
            l->stats.refused_keys++;
            fd_shut(l, fd);
            goto out;
        }
        c = conn_new(l, rid, rid_len, fd, k);
        if (!c) {
            char kept[64];
            if (limit_ok(&l->lines, LINES_S, clock_mono_ms()))
                log_warn("link: no room for %s '%s', connection closed%s", role_name(k->role),
                         k->name, limit_kept(&l->lines, kept));
            fd_shut(l, fd);
            goto out;
        }
        if (fd < 0 || (size_t)fd >= l->n_fds || !l->fds[fd].live)
            conn_gone(l, c, "connection closed");
    }
    if (c->revoked) {
        l->stats.refused_msgs++;
        goto out;
    }
    r = take_server(l, c, &first, parts == 1, ev, e);
out:
    zmq_msg_close(&first);
    return r;
}

static void coordinator_peer(const struct link *l, struct peer *p)
{
    p->id = 1;
    p->role = ROLE_COORDINATOR;
    snprintf(p->name, sizeof(p->name), "coordinator");
    memcpy(p->key, l->server_key, sizeof(p->key));
    snprintf(p->addr, sizeof(p->addr), "%.63s", l->ep);
}

/* One message off the DEALER, as recv_server(). */
static int recv_client(struct link *l, struct link_event *ev, struct err *e)
{
    zmq_msg_t m;
    struct err why = { 0 };
    char kept[64];
    zmq_msg_init(&m);
    if (!l->sock || zmq_msg_recv(&m, l->sock, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&m);
        return -EAGAIN;
    }
    int r;
    if (zmq_msg_more(&m)) {
        for (int more = 1; more;) {
            zmq_msg_close(&m);
            zmq_msg_init(&m);
            more = zmq_msg_recv(&m, l->sock, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&m);
        }
        r = err_set(&why, SF_EFORMAT, "frame: more than one part");
    } else {
        r = msg_decode(zmq_msg_data(&m), zmq_msg_size(&m), &ev->msg, &why);
    }
    zmq_msg_close(&m);
    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "%s", why.text);
    if (r >= 0 && !(msg_roles(ev->msg.type) & ROLE_COORDINATOR)) {
        r = err_set(&why, SF_EFORMAT, "message '%s': a coordinator may not send it",
                    msg_name(ev->msg.type));
        msg_clear(&ev->msg);
    }
    if (r < 0) {
        l->stats.refused_msgs++;
        if (limit_ok(&l->lines, LINES_S, clock_mono_ms()))
            log_warn("link: coordinator at %s: %s, message ignored%s", l->ep, why.text,
                     limit_kept(&l->lines, kept));
        if (r == -SF_EREFUSED) {
            snprintf(l->text, sizeof(l->text), "%.60s: %.180s", l->ep, why.text);
            client_refused(l);
        }
        return 0;
    }
    ev->kind = LINK_MSG;
    coordinator_peer(l, &ev->peer);
    l->stats.received++;
    return 1;
}

static int recv_gone(struct link *l, struct link_event *ev)
{
    struct conn *c = l->gone;
    if (!c)
        return 0;
    l->gone = c->next_gone;
    if (!l->gone)
        l->gone_tail = &l->gone;
    l->since_gone = 0;
    ev->kind = LINK_GONE;
    ev->peer = c->peer;
    snprintf(ev->text, sizeof(ev->text), "%s", c->why);
    conn_free(l, c);
    return 1;
}

int link_recv(struct link *l, struct link_event *ev, struct err *e)
{
    memset(ev, 0, sizeof(*ev));
    if (l->server) {
        if (l->gone && l->since_gone >= GONE_AFTER)
            return recv_gone(l, ev);
        for (int i = 0; i < RECV_BUDGET; i++) {
            int r = recv_server(l, ev, e);
            if (r == -EAGAIN)
                return recv_gone(l, ev);
            l->since_gone++;
            if (r)
                return r;
        }
        return 0;
    }
    if (l->say_up || l->say_refused) {
        ev->kind = l->say_up ? LINK_UP : LINK_REFUSED;
        if (l->say_up)
            l->say_up = false;
        else
            l->say_refused = false;
        if (ev->kind == LINK_REFUSED)
            snprintf(ev->text, sizeof(ev->text), "%s", l->text);
        coordinator_peer(l, &ev->peer);
        return 1;
    }
    for (int i = 0; i < RECV_BUDGET; i++) {
        int r = recv_client(l, ev, e);
        if (r == 0)
            continue;
        if (r != -EAGAIN)
            return r;
        if (l->state != CLOSING)
            return 0;
        ev->kind = LINK_GONE;
        coordinator_peer(l, &ev->peer);
        snprintf(ev->text, sizeof(ev->text), "connection closed");
        client_down(l, client_backoff(l));
        return 1;
    }
    return 0;
}

void link_free(struct link **lp, int linger_ms)
{
    struct link *l = *lp;
    if (!l)
        return;
    *lp = NULL;
    if (l->sock)
        set_int(l->sock, ZMQ_LINGER, linger_ms > 0 ? linger_ms : 0);
    close_pair(&l->sock, &l->mon);
    if (l->zap)
        zmq_close(l->zap);
    if (l->ctx)
        while (zmq_ctx_term(l->ctx) < 0 && errno == EINTR)
            continue;
    for (size_t b = 0; b < BUCKETS; b++)
        while (l->by_id[b]) {
            struct conn *c = l->by_id[b];
            l->by_id[b] = c->next_id;
            free(c);
        }
    for (size_t i = 0; i < EPS_MAX; i++)
        free(l->eps[i]);
    allow_clear(&l->allow);
    key_clear(&l->key);
    free(l->fds);
    free(l->ep);
    buf_clear(&l->out);
    free(l);
}
