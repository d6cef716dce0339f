#include "proto/bulk/conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"

int conn_init(struct conn *c)
{
    c->in_buf = malloc(CONN_IN);
    c->out_buf = malloc(CONN_OUT);
    return c->in_buf && c->out_buf ? 0 : -ENOMEM;
}

void conn_clear(struct conn *c)
{
    closep(&c->fd);
    free(c->in_buf);
    free(c->out_buf);
    c->in_buf = c->out_buf = NULL;
    aead_clear(&c->in.key);
    aead_clear(&c->out.key);
}

void conn_tune(int fd)
{
    int one = 1, idle = 15, every = 5, tries = 4, unsent = 128 << 10;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof(tries));
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
}

static int wait_fd(int fd, int wake_fd, const atomic_bool *stop, short events, int timeout_ms)
{
    struct pollfd p[2] = { { .fd = fd, .events = events }, { .fd = wake_fd, .events = POLLIN } };
    if (atomic_load(stop))
        return -ECANCELED;
    int r = poll(p, 2, timeout_ms);
    if (r < 0 && errno != EINTR)
        return -errno;
    if (r > 0 && (p[1].revents & POLLIN)) {
        uint64_t n;
        if (read(wake_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
            return -errno;
    }
    if (atomic_load(stop))
        return -ECANCELED;
    return r > 0;
}

int conn_wait(struct conn *c, short events, int timeout_ms)
{
    return wait_fd(c->fd, c->wake_fd, c->stop, events, timeout_ms);
}

int conn_sleep(struct conn *c, uint64_t ns)
{
    uint64_t now = clock_mono_ns(), until = now + ns;
    for (; now < until; now = clock_mono_ns()) {
        uint64_t left = until - now;
        struct timespec t = { .tv_nsec = left < 50000000 ? (long)left : 50000000 };
        if (atomic_load(c->stop))
            return -ECANCELED;
        nanosleep(&t, NULL);
    }
    return 0;
}

static int dial_one(const struct addrinfo *a, int wake_fd, const atomic_bool *stop,
                    unsigned timeout_ms)
{
    CLEANUP(closep)
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int why = 0;
    socklen_t n = sizeof(why);
    if (fd < 0)
        return -errno;
    if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
        if (errno != EINPROGRESS)
            return -errno;
        uint64_t until = clock_mono_ms() + timeout_ms;
        for (;;) {
            uint64_t now = clock_mono_ms();
            int r =
                now < until ? wait_fd(fd, wake_fd, stop, POLLOUT, (int)(until - now)) : -ETIMEDOUT;
            if (r < 0)
                return r;
            struct pollfd p = { .fd = fd, .events = POLLOUT };
            if (poll(&p, 1, 0) > 0)
                break; /* it was not the wake only */
        }
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &n) < 0)
            return -errno;
        if (why)
            return -why;
    }
    return take_fd(&fd);
}

int conn_dial(const char *to, int wake_fd, const atomic_bool *stop, unsigned timeout_ms,
              struct err *e)
{
    char host[256];
    const char *colon = strrchr(to, ':');
    struct addrinfo *list = NULL, hints = { .ai_socktype = SOCK_STREAM };
    if (!colon || !colon[1] || colon == to || (size_t)(colon - to) >= sizeof(host))
        return err_set(e, SF_EUSAGE, "'%.80s': is no HOST:PORT", to);
    bool brackets = *to == '[' && colon[-1] == ']';
    snprintf(host, sizeof(host), "%.*s", (int)(colon - to) - 2 * brackets, to + brackets);
    int r = getaddrinfo(host, colon + 1, &hints, &list);
    if (r)
        return err_set(e, EHOSTUNREACH, "%.80s: %s", to, gai_strerror(r));
    r = -EHOSTUNREACH;
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        r = dial_one(a, wake_fd, stop, timeout_ms);
        if (r >= 0 || r == -ECANCELED)
            break;
    }
    freeaddrinfo(list);
    if (r < 0)
        return err_sys(e, -r, "%.80s", to);
    conn_tune(r);
    return r;
}

static size_t seal(struct conn_seal *s, const void *p, size_t n, uint8_t *out)
{
    aead_seal(&s->key, s->n++, p, n, out);
    return n + AEAD_TAG;
}

void conn_put(struct conn *c, enum frame_type type, const void *body, size_t n)
{
    uint8_t head[FRAME_HEAD];
    frame_head(head, type, n);
    if (c->out_off == c->out_len)
        c->out_off = c->out_len = 0;
    c->out_len += seal(&c->out, head, FRAME_HEAD, c->out_buf + c->out_len);
    c->out_len += seal(&c->out, body, n, c->out_buf + c->out_len);
}

/* Up to n bytes of out_buf: bytes written, -errno. */
static ssize_t send_some(struct conn *c, size_t n)
{
    ssize_t r = send(c->fd, c->out_buf + c->out_off, n, MSG_NOSIGNAL);
    if (r < 0)
        return errno == EINTR ? 0 : -errno;
    c->out_off += (size_t)r;
    atomic_fetch_add(&c->wire_out_b, (uint64_t)r);
    return r;
}

int conn_flush_some(struct conn *c)
{
    ssize_t r = 0;
    while (c->out_off < c->out_len && r >= 0)
        r = send_some(c, c->out_len - c->out_off);
    return r >= 0 || r == -EAGAIN ? 0 : (int)r;
}

int conn_flush(struct conn *c, struct pace *pace, struct pace_rate *rate)
{
    while (c->out_off < c->out_len) {
        size_t left = c->out_len - c->out_off, n = left;
        uint64_t wait_ns = 0;
        if (pace)
            n = pace_room(pace, c->fd, left, clock_mono_ns(), &wait_ns);
        ssize_t r = n ? send_some(c, n) : conn_sleep(c, wait_ns);
        if (r == -EAGAIN)
            r = conn_wait(c, POLLOUT, -1);
        else if (n && r > 0 && rate && (wait_ns = pace_rate_take(rate, (size_t)r, clock_mono_ns())))
            r = conn_sleep(c, wait_ns);
        if (r < 0)
            return (int)r;
        if (atomic_load(c->stop))
            return -ECANCELED;
    }
    return 0;
}

ssize_t conn_fill(struct conn *c, struct pace_rate *rate, uint64_t *ret_wait_ns)
{
    size_t have = c->in_len - c->in_off;
    /* the rest of this frame and the head of the next: so a body is never moved */
    size_t need = (c->has_head ? c->body + AEAD_TAG : CONN_HEAD) - have + CONN_HEAD;
    if (have && c->in_off)
        memmove(c->in_buf, c->in_buf + c->in_off, have);
    c->in_off = 0;
    c->in_len = have;
    if (rate)
        need = pace_rate_piece(rate, need);
    ssize_t r;
    do
        r = recv(c->fd, c->in_buf + have, need, 0);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return -errno;
    c->in_len += (size_t)r;
    atomic_fetch_add(&c->wire_in_b, (uint64_t)r);
    if (rate)
        *ret_wait_ns = pace_rate_take(rate, (size_t)r, clock_mono_ns());
    return r;
}

static int not_sealed(struct err *e)
{
    return err_set(e, SF_EINTEGRITY, "bulk: bytes that the other end did not seal");
}

int conn_next(struct conn *c, struct frame_rx *rx, struct err *e)
{
    if (!c->has_head) {
        uint8_t head[FRAME_HEAD];
        if (c->in_len - c->in_off < CONN_HEAD)
            return -EAGAIN;
        if (aead_open(&c->in.key, c->in.n++, c->in_buf + c->in_off, CONN_HEAD, head) < 0)
            return not_sealed(e);
        c->in_off += CONN_HEAD;
        ssize_t n = frame_rx_head(rx, head, &c->body_to, e);
        if (n < 0)
            return (int)n;
        c->body = (size_t)n;
        c->has_head = true;
    }
    if (c->in_len - c->in_off < c->body + AEAD_TAG)
        return -EAGAIN;
    if (aead_open(&c->in.key, c->in.n++, c->in_buf + c->in_off, c->body + AEAD_TAG, c->body_to) < 0)
        return not_sealed(e);
    c->in_off += c->body + AEAD_TAG;
    c->has_head = false;
    return frame_rx_body(rx, e);
}
