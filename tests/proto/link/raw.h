/* A peer that says what it likes: a DEALER with a key of its own, or a bare TCP connection. */
#pragma once
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <zmq.h>

#include "tests/proto/link/rig.h"

struct raw {
    void *ctx, *sock;
};

static inline void raw_open(struct raw *w, struct rig *g, const struct key_pair *k, const char *id)
{
    int zero = 0;
    cr_assert((w->ctx = zmq_ctx_new()) && (w->sock = zmq_socket(w->ctx, ZMQ_DEALER)));
    zmq_setsockopt(w->sock, ZMQ_LINGER, &zero, sizeof(zero));
    if (id)
        cr_assert_eq(zmq_setsockopt(w->sock, ZMQ_ROUTING_ID, id, strlen(id)), 0);
    if (k) {
        cr_assert_eq(zmq_setsockopt(w->sock, ZMQ_CURVE_SERVERKEY, g->server_key.pub.z85, 41), 0);
        cr_assert_eq(zmq_setsockopt(w->sock, ZMQ_CURVE_PUBLICKEY, k->pub.z85, 41), 0);
        cr_assert_eq(zmq_setsockopt(w->sock, ZMQ_CURVE_SECRETKEY, k->secret, 41), 0);
    }
    cr_assert_eq(zmq_connect(w->sock, link_endpoint(g->server, 0)), 0);
}

static inline void raw_close(struct raw *w)
{
    zmq_close(w->sock);
    zmq_ctx_term(w->ctx);
}

/* Pump the server until the raw peer has a message; decode it. */
static inline void raw_recv(struct raw *w, struct rig *g, struct msg *ret)
{
    uint64_t end = clock_mono_ms() + RIG_WAIT_MS;
    static uint8_t b[FRAME_MAX];
    while (clock_mono_ms() < end) {
        struct link_event ev;
        link_poll(g->server, NULL, 0, 1, NULL);
        cr_assert_eq(link_recv(g->server, &ev, NULL), 0, "the server took it");
        int n = zmq_recv(w->sock, b, sizeof(b), ZMQ_DONTWAIT);
        if (n >= 0) {
            cr_assert_eq(msg_decode(b, (size_t)n, ret, NULL), 0);
            return;
        }
    }
    cr_assert_fail("no answer");
}

static inline int raw_tcp(struct rig *g)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    sa.sin_port = htons((uint16_t)atoi(strrchr(link_endpoint(g->server, 0), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
    return fd;
}

/* Everything logged from here on goes to DIR/log. */
static inline void rig_log_start(struct rig *g)
{
    CLEANUP(freep) char *path = path_fmt("%s/log", g->dir);
    FILE *f = freopen(path, "w", stderr);
    cr_assert(f);
}

/* Does the log hold this? */
static inline bool rig_logged(struct rig *g, const char *text)
{
    CLEANUP(freep) char *path = path_fmt("%s/log", g->dir);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4 << 20);
    return file_read(path, &b, NULL) == 0 && b.len && strstr((char *)b.data, text);
}
