/* ROUTER and DEALER behind one API. See link.h for what a user sees; here and in server.c and client.c is how libzmq 4.3 is
 * kept in hand.
 *
 * - The monitor's queue is unlimited on purpose: libzmq's I/O thread blocks on a full one, for ever. It holds a few bytes
 *   a connection and is emptied in each link_poll().
 * - No heartbeats of libzmq's: each message cancels their timers, and a timer is cancelled by walking along all of them. The
 *   kernel's keep-alive notices a dead connection as well, and ten thousand of them cost nothing.
 * - A monitor is stopped before its reading end is closed, else the I/O thread waits for a reader that is gone.
 */
#include "proto/link/link_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/num.h"
#include "proto/wire/utf8.h"

/* ---- small helpers */

bool link_limit(struct limit *l, unsigned max, uint64_t now_ms)
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
const char *link_kept(struct limit *l, char out[64])
{
    out[0] = 0;
    if (l->kept)
        snprintf(out, 64, " (%u lines before were left out)", l->kept);
    l->kept = 0;
    return out;
}

int link_set_int(void *s, int opt, int v)
{
    return zmq_setsockopt(s, opt, &v, sizeof(v));
}

int link_options(void *s, int rcvhwm)
{
    int64_t max = FRAME_MAX + 256; /* and what CURVE adds */
    int r = zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &max, sizeof(max));
    r |= link_set_int(s, ZMQ_LINGER, 0);
    r |= link_set_int(s, ZMQ_SNDHWM, LINK_QUEUE);
    r |= link_set_int(s, ZMQ_RCVHWM, rcvhwm);
    r |= link_set_int(s, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    r |= link_set_int(s, ZMQ_TCP_KEEPALIVE, 1);
    r |= link_set_int(s, ZMQ_TCP_KEEPALIVE_IDLE, IDLE_S);
    r |= link_set_int(s, ZMQ_TCP_KEEPALIVE_INTVL, PROBE_S);
    r |= link_set_int(s, ZMQ_TCP_KEEPALIVE_CNT, 3);
    r |= link_set_int(s, ZMQ_TCP_MAXRT, DEAD_MS);
    return r ? -errno : 0;
}

/* "tcp://HOST:PORT" and nothing else: libzmq would take other transports and a source address, too. */
int link_check_ep(const char *ep, bool bind, struct err *e)
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
int link_monitor(struct link *l, void *s, int events, void **ret)
{
    char name[64];
    snprintf(name, sizeof(name), "inproc://monitor-%u", ++l->mon_n);
    if (zmq_socket_monitor(s, name, events) < 0)
        return -errno;
    void *m = zmq_socket(l->ctx, ZMQ_PAIR);
    if (m && link_set_int(m, ZMQ_RCVHWM, 0) == 0 && link_set_int(m, ZMQ_LINGER, 0) == 0 &&
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

void link_close_pair(void **s, void **mon)
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
int link_monitor_read(void *mon, int *event, uint64_t *value)
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

bool link_peer_up(const struct link *l, uint64_t peer)
{
    const struct conn *c = server_conn(l, peer);
    return c && !c->gone;
}

bool link_key_allowed(const struct link *l, const char *z85, enum role role)
{
    const struct key_pub *k = allow_find(&l->allow, z85);
    return k && k->role == role;
}

void link_stats(const struct link *l, struct link_stats *ret)
{
    *ret = l->stats;
}

/* Everything that is not messages. */
static void service(struct link *l)
{
    if (l->server)
        server_service(l);
    else
        client_service(l);
}

/* Is there something for link_recv()? */
static bool pending(struct link *l)
{
    if (l->gone || l->say_up || l->say_refused || l->state == CLOSING)
        return true;
    if (!l->server)
        return readable(l->sock);
    l->look_sock = l->look_sock && readable(l->sock);
    return l->look_sock;
}

/* Thousands of agents send their beats one after the other. Each by itself would cost a turn of the caller's loop and a
 * signal of the I/O thread. Anything else than beats is never waited for, nor where they are few. */
static void gather(const struct link *l, struct pollfd extra[], size_t n_extra, int64_t timeout_ms)
{
    if (l->beats && !l->others && !l->gone && (timeout_ms < 0 || timeout_ms >= GATHER_MS) &&
        clock_mono_ns() - l->polled_ns < GATHER_MS * 1000000u)
        poll(extra, n_extra, GATHER_MS);
}

/* ms until service() has something to do of itself, at most max (-1 = for ever). */
static int64_t next_wake(const struct link *l, int64_t max)
{
    uint64_t now = clock_mono_ms(), at = l->server ? l->allow_next_ms : client_wake_ms(l);
    if (at == UINT64_MAX)
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
    if (l->server)
        gather(l, extra, n_extra, timeout_ms);
    for (;;) {
        service(l);
        bool ready = pending(l);
        size_t n = 0;
        void *socks[] = { l->sock, l->mon, l->zap };
        bool *look[] = { &l->look_sock, &l->look_mon, &l->look_zap }, *told[ARRAY_LEN(socks)];
        for (size_t i = 0; i < ARRAY_LEN(socks); i++) {
            int fd = -1;
            size_t len = sizeof(fd);
            if (socks[i] && zmq_getsockopt(socks[i], ZMQ_FD, &fd, &len) == 0) {
                told[n] = look[i];
                p[n++] = (struct pollfd){ .fd = fd, .events = POLLIN };
            }
            /* libzmq's descriptors tell of changes only: what is there already must be asked for */
            if (i > 0 && !l->server && readable(socks[i]))
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
        for (size_t i = 0; i < n; i++)
            *told[i] = *told[i] || intr || p[i].revents;
        for (size_t i = 0; i < n_extra; i++) {
            extra[i].revents = intr ? 0 : p[n + i].revents;
            hit |= extra[i].revents != 0;
        }
        service(l);
        r = pending(l);
        if (r || hit || intr || (timeout_ms >= 0 && clock_mono_ms() >= end)) {
            l->polled_ns = clock_mono_ns();
            l->beats = l->others = false;
            return r;
        }
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
        l->look_sock = true; /* libzmq may have taken notice of messages meanwhile */
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
    if (l->server ? !(c = server_conn(l, peer)) || c->gone : l->state != UP || peer != 1)
        return err_set(e, EHOSTUNREACH, "message '%s': peer %llu is not connected",
                       msg_name(m->type), (unsigned long long)peer);
    unsigned version = c ? c->version : l->version;
    int r = msg_encode_as(m, version ? version : wire_version(), &l->out, e);
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
            server_gone(l, c, "not reachable");
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

int link_recv(struct link *l, struct link_event *ev, struct err *e)
{
    memset(ev, 0, sizeof(*ev));
    return l->server ? server_recv(l, ev, e) : client_recv(l, ev, e);
}

void link_free(struct link **lp, int linger_ms)
{
    struct link *l = *lp;
    if (!l)
        return;
    *lp = NULL;
    if (l->sock)
        link_set_int(l->sock, ZMQ_LINGER, linger_ms > 0 ? linger_ms : 0);
    link_close_pair(&l->sock, &l->mon);
    if (l->zap_end)
        zmq_close(l->zap_end);
    if (l->zap)
        zmq_close(l->zap);
    if (l->ctx)
        while (zmq_ctx_term(l->ctx) < 0 && errno == EINTR)
            continue;
    server_clear(l);
    key_clear(&l->key);
    free(l->ep);
    buf_clear(&l->out);
    free(l);
}
