/* A wire between the two ends of a bulk connection that can be tapped, bent and cut: a listener of its own, one connection to
 * the real one. Bytes of the direction `bend` are counted from the start of the connection. */
#pragma once
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum wire_how { WIRE_STRAIGHT, WIRE_FLIP, WIRE_DROP, WIRE_TWICE, WIRE_CUT };

enum { WIRE_CALLED, WIRE_BACK }; /* from the end that dialled, to it */

struct wire {
    uint16_t port, to; /* its own; the real one's */
    int listen_fd;
    pthread_t thread;
    atomic_bool stop;
    enum wire_how how;
    int bend;         /* direction */
    size_t at, span;  /* which bytes of it are bent */
    uint8_t *seen[2]; /* the first bytes each way */
    size_t n_seen[2], room;
};

static inline int wire_socket(uint16_t port, bool listens)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0);
    if (listens)
        cr_assert(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 8) == 0);
    else
        cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static inline void wire_write(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t r = send(fd, p, n, MSG_NOSIGNAL);
        if (r <= 0)
            return;
        p += r;
        n -= (size_t)r;
    }
}

/* Pass on n bytes that stand at off of direction dir. Returns false when the wire is cut here. */
static inline bool wire_pass(struct wire *w, int fd, int dir, size_t off, uint8_t *p, size_t n)
{
    if (off < w->room) {
        size_t m = n < w->room - off ? n : w->room - off;
        memcpy(w->seen[dir] + off, p, m);
        w->n_seen[dir] = off + m;
    }
    if (dir != w->bend || w->how == WIRE_STRAIGHT || off >= w->at + w->span || off + n <= w->at) {
        wire_write(fd, p, n);
        return true;
    }
    size_t k = w->at > off ? w->at - off : 0,
           end = w->at + w->span - off < n ? w->at + w->span - off : n;
    wire_write(fd, p, k);
    if (w->how == WIRE_CUT)
        return false;
    if (w->how == WIRE_FLIP)
        p[k] ^= 0x10;
    if (w->how != WIRE_DROP)
        wire_write(fd, p + k, end - k);
    if (w->how == WIRE_TWICE)
        wire_write(fd, p + k, end - k);
    wire_write(fd, p + end, n - end);
    if (w->how == WIRE_FLIP)
        w->how = WIRE_STRAIGHT; /* one bit */
    return true;
}

static inline void *wire_main(void *arg)
{
    struct wire *w = arg;
    int fd[2] = { -1, -1 };
    size_t off[2] = { 0, 0 };
    static _Thread_local uint8_t b[65536];
    while (!atomic_load(&w->stop)) {
        struct pollfd p[2] = { { .fd = fd[0] < 0 ? w->listen_fd : fd[0], .events = POLLIN },
                               { .fd = fd[1], .events = POLLIN } };
        poll(p, fd[1] < 0 ? 1 : 2, 50);
        if (fd[0] < 0 && p[0].revents) {
            fd[0] = accept(w->listen_fd, NULL, NULL);
            fd[1] = wire_socket(w->to, false);
            continue;
        }
        bool over = false;
        for (int i = 0; i < 2 && fd[0] >= 0; i++) {
            if (!p[i].revents)
                continue;
            ssize_t n = recv(fd[i], b, sizeof(b), MSG_DONTWAIT);
            if (n < 0)
                continue;
            over |= n == 0 || !wire_pass(w, fd[!i], i, off[i], b, (size_t)n);
            off[i] += (size_t)n;
        }
        if (over)
            break;
    }
    for (int i = 0; i < 2; i++)
        if (fd[i] >= 0)
            close(fd[i]);
    return NULL;
}

static inline void wire_start(struct wire *w, uint16_t to)
{
    struct sockaddr_in a;
    socklen_t n = sizeof(a);
    w->to = to;
    w->listen_fd = wire_socket(0, true);
    cr_assert_eq(getsockname(w->listen_fd, (struct sockaddr *)&a, &n), 0);
    w->port = ntohs(a.sin_port);
    w->room = 4 << 20;
    for (int i = 0; i < 2; i++)
        cr_assert((w->seen[i] = calloc(1, w->room)) != NULL);
    cr_assert_eq(pthread_create(&w->thread, NULL, wire_main, w), 0);
}

static inline void wire_end(struct wire *w)
{
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    close(w->listen_fd);
    free(w->seen[0]);
    free(w->seen[1]);
}
