/* The thread that takes connections in: nobody gets further than a sealed hello without a ticket. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/bulk/in.h"

/* A connection that has not shown a ticket yet. Never read beyond its hello. */
struct guest {
    int fd; /* -1 = free */
    uint64_t since_ms;
    size_t n;
    uint8_t b[BULK_TICKET_LEN + HELLO_WIRE];
};

int listen_start(struct bulk *b, const char *ep, struct err *e)
{
    char host[256];
    const char *at = strncmp(ep, "tcp://", 6) ? NULL : ep + 6;
    const char *colon = at ? strrchr(at, ':') : NULL;
    struct addrinfo *list = NULL, hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct sockaddr_storage bound;
    socklen_t n = sizeof(bound);
    int one = 1, r = -EADDRNOTAVAIL;
    if (!colon || colon == at || !colon[1] || (size_t)(colon - at) >= sizeof(host))
        return err_set(e, SF_EUSAGE, "'%.80s': is no tcp://HOST:PORT", ep);
    bool brackets = *at == '[' && colon[-1] == ']';
    snprintf(host, sizeof(host), "%.*s", (int)(colon - at) - 2 * brackets, at + brackets);
    int g = getaddrinfo(strcmp(host, "*") ? host : NULL, strcmp(colon + 1, "*") ? colon + 1 : "0",
                        &hints, &list);
    if (g)
        return err_set(e, SF_EUSAGE, "%.80s: %s", ep, gai_strerror(g));
    for (const struct addrinfo *a = list; a && r < 0; a = a->ai_next) {
        CLEANUP(closep)
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd >= 0)
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (fd < 0 || bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 64) < 0)
            r = -errno;
        else
            r = b->listen_fd = take_fd(&fd);
    }
    freeaddrinfo(list);
    if (r < 0)
        return err_sys(e, -r, "%.80s", ep);
    if (getsockname(b->listen_fd, (struct sockaddr *)&bound, &n) < 0)
        return err_sys(e, errno, "%.80s", ep);
    b->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                : ((struct sockaddr_in *)&bound)->sin_port);
    r = thread_start(&b->listener, listen_main, b);
    if (r < 0)
        return err_sys(e, -r, "%.80s: thread", ep);
    b->has_listener = true;
    return 0;
}

int bulk_own_address(const char *host, char *ret, size_t room, struct err *e)
{
    char name[256], addr[NI_MAXHOST];
    struct addrinfo *list = NULL, hints = { .ai_socktype = SOCK_DGRAM };
    struct sockaddr_storage own;
    size_t len = strlen(host);
    bool brackets = len > 2 && *host == '[' && host[len - 1] == ']';
    snprintf(name, sizeof(name), "%.*s", (int)len - 2 * brackets, host + brackets);
    int g = getaddrinfo(name, "9", &hints, &list), r = -EADDRNOTAVAIL;
    if (g)
        return err_set(e, EADDRNOTAVAIL, "%.80s: %s", host, gai_strerror(g));
    for (const struct addrinfo *a = list; a && r < 0; a = a->ai_next) {
        CLEANUP(closep) int fd = socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        socklen_t n = sizeof(own);
        /* the kernel chooses the address when a datagram socket is connected */
        if (fd < 0 || connect(fd, a->ai_addr, a->ai_addrlen) < 0 ||
            getsockname(fd, (struct sockaddr *)&own, &n) < 0)
            r = -errno;
        else
            r = getnameinfo((struct sockaddr *)&own, n, addr, sizeof(addr), NULL, 0, NI_NUMERICHOST)
                    ? -EADDRNOTAVAIL
                    : 0;
    }
    freeaddrinfo(list);
    if (r < 0)
        return err_sys(e, -r, "%.80s", host);
    bool six = own.ss_family == AF_INET6;
    snprintf(ret, room, "tcp://%s%s%s:*", six ? "[" : "", addr, six ? "]" : "");
    return 0;
}

static void refuse(struct bulk *b, struct guest *g)
{
    closep(&g->fd);
    pthread_mutex_lock(&b->lock);
    b->stats.refused++;
    pthread_mutex_unlock(&b->lock);
}

/* The hello is there: give it to the stream whose ticket it shows. A ticket that is not here yet may be on its way. Returns
 * false when it is to wait. */
static bool admit(struct bulk *b, struct guest *g)
{
    struct frame_rx rx = { 0 };
    bool known = false, ok = false;
    pthread_mutex_lock(&b->lock);
    for (struct bulk_stream *s = b->streams; s && !known; s = s->next) {
        if (s->state != STREAM_WAITS || s->dial || atomic_load(&s->stop) ||
            memcmp(s->ticket.id, g->b, BULK_TICKET_LEN))
            continue;
        known = true;
        /* counted apart: who cannot seal does not spend the ticket, nor its first number */
        struct aead *key = &s->conn.in.key;
        uint64_t k = s->conn.in.n;
        uint8_t head[FRAME_HEAD], *to;
        struct err why;
        rx = (struct frame_rx){ .takes = s->takes, .id = s->ticket.artefact, .size_b = s->size_b };
        ok = aead_open(key, k++, g->b + BULK_TICKET_LEN, CONN_HEAD, head) == 0 &&
             frame_rx_head(&rx, head, &to, &why) == FRAME_HELLO_LEN &&
             aead_open(key, k++, g->b + BULK_TICKET_LEN + CONN_HEAD, FRAME_HELLO_LEN + AEAD_TAG,
                       to) == 0 &&
             frame_rx_body(&rx, &why) == RX_HELLO;
        if (ok) {
            s->conn.in.n = k;
            s->conn.fd = take_fd(&g->fd);
            conn_tune(s->conn.fd);
            if (stream_start(s) < 0) {
                s->state = STREAM_ENDED;
                s->end_r = -ENOMEM;
                wake(b->event_fd);
            }
        }
    }
    pthread_mutex_unlock(&b->lock);
    if (known && !ok)
        refuse(b, g);
    return known;
}

/* Bytes of a guest, and its time. */
static void attend(struct bulk *b, struct guest *g, uint64_t now_ms)
{
    if (g->n < sizeof(g->b)) {
        ssize_t r = recv(g->fd, g->b + g->n, sizeof(g->b) - g->n, 0);
        if (r > 0)
            g->n += (size_t)r;
        else if (r == 0 || (errno != EAGAIN && errno != EINTR))
            refuse(b, g);
    }
    if (g->fd >= 0 && g->n == sizeof(g->b) && admit(b, g))
        return;
    if (g->fd >= 0 && now_ms >= g->since_ms + AUTH_MS)
        refuse(b, g);
}

static void welcome(struct bulk *b, struct guest guests[AUTH_CONNS], uint64_t now_ms)
{
    for (;;) {
        int fd = accept4(b->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
            struct timespec t = { .tv_nsec = 50000000 };
            nanosleep(&t, NULL); /* no descriptor is free: do not ask for one all the time */
        }
        if (fd < 0)
            return;
        struct guest *g = &guests[0];
        for (size_t i = 0; i < AUTH_CONNS && g->fd >= 0; i++)
            if (guests[i].fd < 0 || guests[i].since_ms < g->since_ms)
                g = &guests[i];
        if (g->fd >= 0)
            refuse(b, g);
        g->fd = fd;
        g->since_ms = now_ms;
        g->n = 0;
    }
}

static void expire(struct bulk *b, uint64_t now_ms)
{
    pthread_mutex_lock(&b->lock);
    for (struct bulk_stream *s = b->streams; s; s = s->next)
        if (s->state == STREAM_WAITS && (now_ms >= s->expires_ms || atomic_load(&s->stop))) {
            s->state = STREAM_ENDED;
            s->end_r = atomic_load(&s->stop) ? 0 : -ETIMEDOUT;
            snprintf(s->end_text, sizeof(s->end_text), "bulk: nobody came with the ticket");
            wake(b->event_fd);
        }
    pthread_mutex_unlock(&b->lock);
}

void *listen_main(void *arg)
{
    struct bulk *b = arg;
    struct guest guests[AUTH_CONNS];
    struct pollfd p[AUTH_CONNS + 2];
    for (size_t i = 0; i < AUTH_CONNS; i++)
        guests[i].fd = -1;
    while (!atomic_load(&b->stop)) {
        size_t n = 2;
        bool busy = false;
        p[0] = (struct pollfd){ .fd = b->listen_fd, .events = POLLIN };
        p[1] = (struct pollfd){ .fd = b->wake_fd, .events = POLLIN };
        for (size_t i = 0; i < AUTH_CONNS; i++) {
            busy |= guests[i].fd >= 0;
            /* one whose hello is whole waits for its ticket: what more it says does not matter yet */
            if (guests[i].fd >= 0 && guests[i].n < sizeof(guests[i].b))
                p[n++] = (struct pollfd){ .fd = guests[i].fd, .events = POLLIN };
        }
        pthread_mutex_lock(&b->lock);
        for (struct bulk_stream *s = b->streams; s; s = s->next)
            busy |= s->state == STREAM_WAITS;
        pthread_mutex_unlock(&b->lock);
        poll(p, n, busy ? 250 : -1);
        if (p[1].revents & POLLIN) {
            uint64_t v;
            if (read(b->wake_fd, &v, sizeof(v)) < 0 && errno != EAGAIN)
                break;
        }
        uint64_t now = clock_mono_ms();
        if (p[0].revents)
            welcome(b, guests, now);
        for (size_t i = 0; i < AUTH_CONNS; i++)
            if (guests[i].fd >= 0)
                attend(b, &guests[i], now);
        expire(b, now);
    }
    for (size_t i = 0; i < AUTH_CONNS; i++)
        closep(&guests[i].fd);
    return NULL;
}
