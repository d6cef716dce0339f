/* The ROUTER of a coordinator, and who may connect to it.
 *
 * - The ZAP handler is a socket served in link_poll(), by the thread that owns the link: no thread of ours, and the
 *   allow-list needs no lock. A message carries the key that was let in as its User-Id, so the role of a message is the
 *   role of its key, whatever routing id a peer chose.
 * - The monitor tells of closed connections by file descriptor; a message tells the descriptor it came through. The
 *   two are joined in conn.fd. libzmq cannot close one peer of a ROUTER, so link_drop() shuts the descriptor down.
 */
#include "proto/link/link_in.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/lib/locked.h"
#include "proto/wire/schema.h"

/* ---- connections */

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

struct conn *server_conn(const struct link *l, uint64_t id)
{
    struct conn *c = l->by_id[id % BUCKETS];
    while (c && c->peer.id != id)
        c = c->next_id;
    return c;
}

static bool has_fd(const struct link *l, int fd)
{
    return fd >= 0 && (size_t)fd < l->n_fds;
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
    if (has_fd(l, c->fd)) {
        p = &l->fds[c->fd].conns;
        while (*p && *p != c)
            p = &(*p)->next_fd;
        if (*p)
            *p = c->next_fd;
    }
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
    if (has_fd(l, fd)) {
        memcpy(c->peer.addr, l->fds[fd].addr, sizeof(c->peer.addr));
        c->next_fd = l->fds[fd].conns;
        l->fds[fd].conns = c;
    }
    struct conn **b = &l->by_rid[rid_bucket(rid, n)];
    c->next_rid = *b;
    *b = c;
    b = &l->by_id[c->peer.id % BUCKETS];
    c->next_id = *b;
    *b = c;
    l->n_conns++;
    return c;
}

void server_gone(struct link *l, struct conn *c, const char *why)
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

/* Shut a descriptor of libzmq's down: its I/O thread sees the end of the stream and closes it. Only while the monitor says it
 * is open and it still leads to the same peer, since the number could have been given to another file. */
static void fd_shut(const struct link *l, int fd)
{
    char now[LINK_ADDR_LEN];
    if (!has_fd(l, fd) || !l->fds[fd].live || !l->fds[fd].addr[0])
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
        size_t n = (size_t)fd * 2 + 64;
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
        if (link_limit(&l->lines, LINES_S, now))
            log_warn("link: %zu connections are open, the one from %s is closed%s", l->n_live - 1,
                     l->fds[fd].addr, link_kept(&l->lines, kept));
        fd_shut(l, fd);
    }
}

static void fd_closed(struct link *l, int fd)
{
    if (!has_fd(l, fd) || !l->fds[fd].live)
        return;
    l->fds[fd].live = false;
    l->n_live--;
    for (struct conn *c = l->fds[fd].conns; c; c = c->next_fd)
        server_gone(l, c, "connection closed");
}

static void server_monitor(struct link *l)
{
    int event;
    uint64_t value;
    char kept[64];
    l->look_mon = false; /* emptied here */
    while (link_monitor_read(l->mon, &event, &value)) {
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
            if (l->failed_event && link_limit(&l->lines, LINES_S, clock_mono_ms()))
                log_warn("link: %s%s: handshake failed, %s; connection refused%s", "peer ",
                         has_fd(l, fd) && l->fds[fd].addr[0] ? l->fds[fd].addr : "(unknown)",
                         l->failed_event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL
                             ? "it closed or fell silent"
                         : l->failed_value == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC
                             ? "it holds another server key"
                             : "it is not a siofleet of this protocol",
                         link_kept(&l->lines, kept));
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
            server_gone(l, c, "key revoked");
        }
}

static void server_refresh(struct link *l)
{
    if (allow_refresh(&l->allow) == 1)
        server_recheck(l);
}

/* ---- ZAP (RFC 27): who may connect
 *
 * A connection asks through a pipe of its own, which libzmq keeps as long as the connection, though nothing ever comes
 * through it again: two queues and their ends, 10 KiB. So the handler is a ROUTER, which tells the pipes apart; the number of
 * the pipe goes into the User-Id beside the key, so that the first message of a connection names it; and then the pipe is
 * closed: with ZMQ_ROUTER_HANDOVER a ROUTER closes the one that had a routing id when another comes with the same. */

#define ZAP_EP "inproc://zeromq.zap.01"
enum { PIPE_LEN = 5, USER_LEN = KEY_Z85_LEN + 8 };

/* A routing id that a ROUTER made: a zero, then a number. */
static uint32_t pipe_number(const char *id)
{
    uint32_t n;
    memcpy(&n, id + 1, sizeof(n));
    return ntohl(n);
}

/* One part of an answer. */
static void zap_part(struct link *l, const void *p, size_t n, bool more)
{
    zmq_send(l->zap, p, n, (more ? ZMQ_SNDMORE : 0) | ZMQ_DONTWAIT);
}

static void zap_serve(struct link *l)
{
    enum { PIPE, EMPTY, VERSION, REQUEST, DOMAIN, ADDRESS, IDENTITY, MECHANISM, KEY, PARTS };
    l->look_zap = false; /* emptied here */
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
        char z85[KEY_Z85_LEN] = "", kept[64], user[USER_LEN] = "";
        if (n == PARTS && len[PIPE] == PIPE_LEN && !len[EMPTY] && !strcmp(part[VERSION], "1.0") &&
            !strcmp(part[MECHANISM], "CURVE") && len[KEY] == 32 &&
            zmq_z85_encode(z85, (const uint8_t *)part[KEY], 32)) {
            server_refresh(l); /* allowed or revoked a moment ago counts */
            k = allow_find(&l->allow, z85);
        }
        if (!k) {
            l->stats.refused_keys++;
            if (link_limit(&l->lines, LINES_S, clock_mono_ms()))
                log_warn("link: peer %s: key %s is not allowed, connection refused%s",
                         n > ADDRESS && len[ADDRESS] ? part[ADDRESS] : "(unknown)",
                         z85[0] ? z85 : "(none)", link_kept(&l->lines, kept));
        }
        const char *text = k ? "" : "key not allowed";
        if (k)
            snprintf(user, sizeof(user), "%s%08" PRIx32, z85, pipe_number(part[PIPE]));
        zap_part(l, part[PIPE], len[PIPE], true);
        zap_part(l, "", 0, true);
        zap_part(l, "1.0", 3, true);
        zap_part(l, part[REQUEST], len[REQUEST], true);
        zap_part(l, k ? "200" : "400", 3, true);
        zap_part(l, text, strlen(text), true);
        zap_part(l, user, strlen(user), true);
        zap_part(l, "", 0, false);
    }
}

/* Close the pipes of connections that are through. */
static void zap_close_pipes(struct link *l)
{
    for (size_t i = 0; i < l->n_through; i++) {
        uint32_t n = htonl(l->through[i]);
        uint8_t id[PIPE_LEN] = { 0 };
        memcpy(id + 1, &n, sizeof(n));
        if (zmq_setsockopt(l->zap_end, ZMQ_ROUTING_ID, id, sizeof(id)) == 0)
            zmq_connect(l->zap_end, ZAP_EP);
    }
    if (l->n_through)
        zmq_disconnect(l->zap_end, ZAP_EP);
    l->n_through = 0;
}

/* The connection that was let in as this user is through. */
static void zap_through(struct link *l, const char *user)
{
    if (l->n_through == THROUGH_MAX)
        zap_close_pipes(l);
    l->through[l->n_through++] = (uint32_t)strtoul(user + KEY_Z85_LEN - 1, NULL, 16);
}

/* As many connections as descriptors allow; the store, transfers and everything else have a quarter of them. */
static size_t peers_max(void)
{
    struct rlimit lim;
    return getrlimit(RLIMIT_NOFILE, &lim) < 0 || lim.rlim_cur / 4 * 3 > LINK_PEERS_MAX
               ? LINK_PEERS_MAX
               : lim.rlim_cur / 4 * 3;
}

int link_server(const char *const eps[], size_t n, const struct key_pair *key, const char *allowed,
                struct link **ret, struct err *e)
{
    struct link *l = NULL;
    int r;
    if (!n || n > EPS_MAX)
        return err_set(e, SF_EUSAGE, "--listen: 1 to %d endpoints", EPS_MAX);
    for (size_t i = 0; i < n; i++)
        if ((r = link_check_ep(eps[i], true, e)) < 0)
            return r;
    if (key->pub.role != ROLE_COORDINATOR)
        return err_set(e, SF_EREFUSED, "key '%s': is not a coordinator's", key->pub.name);
    l = calloc(1, sizeof(*l));
    if (!l)
        return err_sys(e, ENOMEM, "link");
    locked_start(); /* handshakes come by the thousand */
    l->server = true;
    l->gone_tail = &l->gone;
    buf_init(&l->out, FRAME_MAX + 4096);
    l->live_max = peers_max();
    r = allow_init(&l->allow, allowed, e);
    if (r < 0)
        goto fail;
    allow_refresh(&l->allow);
    /* Two options of libzmq 4.3 that its header keeps for itself. Messages of a few bytes are copied out of the buffer of
     * their stream, which stays small and is used again: without it there are 4 KiB more a connection. And without a ZAP
     * handler nobody is let in; there always is one, this is for the case that there is not. */
    enum { ZERO_COPY_RECV = 10, ZAP_ENFORCE_DOMAIN = 93 };
    l->ctx = zmq_ctx_new();
    if (l->ctx)
        zmq_ctx_set(l->ctx, ZERO_COPY_RECV, 0);
    if (!l->ctx || !(l->zap = zmq_socket(l->ctx, ZMQ_ROUTER)) ||
        !(l->zap_end = zmq_socket(l->ctx, ZMQ_DEALER)) ||
        link_set_int(l->zap_end, ZMQ_LINGER, 0) < 0 ||
        link_set_int(l->zap, ZMQ_ROUTER_HANDOVER, 1) < 0 ||
        link_set_int(l->zap, ZMQ_LINGER, 0) < 0 || link_set_int(l->zap, ZMQ_RCVHWM, 0) < 0 ||
        link_set_int(l->zap, ZMQ_SNDHWM, 0) < 0 || zmq_bind(l->zap, ZAP_EP) < 0 ||
        !(l->sock = zmq_socket(l->ctx, ZMQ_ROUTER)) || link_options(l->sock, SERVER_RCVHWM) < 0 ||
        link_set_int(l->sock, ZMQ_ROUTER_MANDATORY, 1) < 0 ||
        link_set_int(l->sock, ZMQ_CURVE_SERVER, 1) < 0 ||
        link_set_int(l->sock, ZAP_ENFORCE_DOMAIN, 1) < 0 ||
        link_set_int(l->sock, ZMQ_BACKLOG, 256) < 0 ||
        zmq_setsockopt(l->sock, ZMQ_CURVE_SECRETKEY, key->secret, KEY_Z85_LEN) < 0 ||
        zmq_setsockopt(l->sock, ZMQ_ZAP_DOMAIN, "siofleet", 8) < 0) {
        r = err_sys(e, errno, "link: cannot set up sockets");
        goto fail;
    }
    r = link_monitor(l, l->sock,
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
        link_set_int(l->sock, ZMQ_IPV6, eps[i][6] == '[');
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
    l->look_sock = l->look_mon = l->look_zap = true;
    *ret = l;
    return 0;
fail:
    link_free(&l, 0);
    return r;
}
/* ---- messages */

void link_drop(struct link *l, uint64_t peer, const char *why)
{
    struct conn *c = l->server ? server_conn(l, peer) : NULL;
    if (!c || c->gone)
        return;
    fd_shut(l, c->fd);
    server_gone(l, c, why);
}

/* A message that does not count: one line here, a refusal there. */
static void refuse_conn(struct link *l, struct conn *c, uint64_t req, const char *code,
                        const char *text, bool expected)
{
    uint64_t now = clock_mono_ms();
    char kept[64];
    l->stats.refused_msgs++;
    c->refused++;
    if (!expected && link_limit(&c->lines, LINES_S, now))
        log_warn("link: %s '%s' at %s: %s, message refused%s", role_name(c->peer.role),
                 c->peer.name, c->peer.addr, text, link_kept(&c->lines, kept));
    if (link_limit(&c->answers, REFUSALS_S, now) && !c->gone)
        link_refuse(l, c->peer.id, req, 3, code, text);
    if (c->refused >= REFUSED_DROP && !c->gone) {
        log_warn("link: %s '%s' at %s: %llu messages refused, connection closed",
                 role_name(c->peer.role), c->peer.name, c->peer.addr,
                 (unsigned long long)c->refused);
        link_drop(l, c->peer.id, "too many refused messages");
    }
}

/* To a peer of an older version its own is spoken, also to one that is only told that it is too old. */
static void speak(struct conn *c, unsigned version)
{
    unsigned own = wire_version(), v = version > own ? own : version ? version : 1;
    if (v < own && v >= wire_oldest() && c->version != v)
        log_info("link: %s '%s' at %s speaks protocol %u, this coordinator %u; it is served, its "
                 "siofleet can be upgraded",
                 role_name(c->peer.role), c->peer.name, c->peer.addr, v, own);
    c->version = v;
}

static void refuse_version(struct link *l, struct conn *c, unsigned version)
{
    char text[300];
    unsigned own = wire_version();
    bool next = version == own + 1; /* it speaks ours as well, once it knows */
    if (next && !c->refused)
        log_info("link: %s '%s' at %s speaks protocol %u, this coordinator %u; it is asked to "
                 "speak that, siofleet can be upgraded here",
                 role_name(c->peer.role), c->peer.name, c->peer.addr, version, own);
    snprintf(text, sizeof(text), "protocol %u, the coordinator's is %u: upgrade siofleet of the %s",
             version, own, version < own ? role_name(c->peer.role) : "coordinator");
    refuse_conn(l, c, 0, "PROTOCOL", text, next);
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
    if (r != -SF_EFORMAT)
        speak(c, ev->msg.version);
    if (r == -SF_EREFUSED)
        refuse_version(l, c, ev->msg.version);
    else if (r < 0)
        refuse_conn(l, c, 0, "MALFORMED", why.text, false);
    if (r < 0)
        return 0;
    if (!(msg_roles(ev->msg.type) & c->peer.role)) {
        snprintf(text, sizeof(text), "message '%s': role '%s' may not send it",
                 msg_name(ev->msg.type), role_name(c->peer.role));
        refuse_conn(l, c, req_of(&ev->msg), "ROLE", text, false);
        msg_clear(&ev->msg);
        return 0;
    }
    ev->kind = LINK_MSG;
    ev->peer = c->peer;
    l->stats.received++;
    *(ev->msg.type == M_BEAT ? &l->beats : &l->others) = true;
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
    l->look_sock = zmq_msg_recv(&m, l->sock, ZMQ_DONTWAIT) >= 0;
    if (!l->look_sock) {
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
    char user[USER_LEN] = "", key[KEY_Z85_LEN] = "";
    zmq_msg_t first;
    zmq_msg_init(&first);
    while (more) {
        zmq_msg_close(&m);
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, l->sock, ZMQ_DONTWAIT) < 0)
            break;
        more = zmq_msg_more(&m);
        if (parts++ == 0) {
            const char *id = zmq_msg_gets(&m, "User-Id");
            if (id && strlen(id) == USER_LEN - 1) {
                memcpy(user, id, USER_LEN);
                memcpy(key, id, KEY_Z85_LEN - 1);
            }
            fd = zmq_msg_get(&m, ZMQ_SRCFD);
            zmq_msg_move(&first, &m);
        }
    }
    zmq_msg_close(&m);
    r = 0;
    if (odd || !parts || !key[0])
        goto out;
    struct conn *c = conn_by_rid(l, rid, rid_len, key);
    if (!c || c->fd != fd) {
        /* Closings that happened before this message must be known before its descriptor is believed. */
        server_monitor(l);
    }
    if (!c) {
        zap_through(l, user);
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
            if (link_limit(&l->lines, LINES_S, clock_mono_ms()))
                log_warn("link: no room for %s '%s', connection closed%s", role_name(k->role),
                         k->name, link_kept(&l->lines, kept));
            fd_shut(l, fd);
            goto out;
        }
        if (!has_fd(l, fd) || !l->fds[fd].live)
            server_gone(l, c, "connection closed");
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

void server_service(struct link *l)
{
    zap_close_pipes(l);
    if (l->look_zap)
        zap_serve(l);
    if (l->look_mon)
        server_monitor(l);
    uint64_t now = clock_mono_ms();
    if (now >= l->allow_next_ms) {
        l->allow_next_ms = now + ALLOW_CHECK_MS;
        l->look_sock = l->look_mon = l->look_zap =
            true; /* in case a descriptor ever fails to tell */
        server_refresh(l);
    }
}

int server_recv(struct link *l, struct link_event *ev, struct err *e)
{
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

void server_clear(struct link *l)
{
    for (size_t b = 0; b < BUCKETS; b++)
        while (l->by_id[b]) {
            struct conn *c = l->by_id[b];
            l->by_id[b] = c->next_id;
            free(c);
        }
    for (size_t i = 0; i < EPS_MAX; i++)
        free(l->eps[i]);
    allow_clear(&l->allow);
    free(l->fds);
}
