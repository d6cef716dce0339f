/* A peer that talks nonsense: babble EP SERVER.pub KEY FRAMES SEED COUNT
 *
 * With a key: COUNT frames over CURVE, each one of the folder FRAMES, as it is or with bits flipped, cut off, drawn out or
 * joined to another. With `-` for a key: COUNT bare TCP connections that send noise, in every third case behind a greeting
 * of ZMTP. What comes back is thrown away. Exits 0 when it could connect at all. */
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/rng.h"
#include "proto/link/keys.h"

enum { FRAMES_MAX = 100, LEN_MAX = 1 << 16 };

static struct buf frames[FRAMES_MAX];
static size_t n_frames;
static struct rng rng;

static void read_frames(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *x; d && (x = readdir(d)) && n_frames < FRAMES_MAX;) {
        CLEANUP(freep) char *path = path_fmt("%s/%s", dir, x->d_name);
        struct buf *f = &frames[n_frames];
        buf_init(f, LEN_MAX);
        if (x->d_name[0] != '.' && file_read(path, f, NULL) == 0 && f->len)
            n_frames++;
    }
    if (d)
        closedir(d);
}

/* One frame, spoiled or not; returns its length. */
static size_t make(uint8_t out[LEN_MAX])
{
    const struct buf *f = &frames[rng_below(&rng, n_frames)],
                     *g = &frames[rng_below(&rng, n_frames)];
    size_t n = f->len, how = rng_below(&rng, 6);
    memcpy(out, f->data, n);
    if (how == 1 || how == 2)
        for (size_t i = 0, k = 1 + rng_below(&rng, 8); i < k; i++)
            out[rng_below(&rng, n)] ^= (uint8_t)(1u << rng_below(&rng, 8));
    if (how == 3)
        n = rng_below(&rng, n);
    if (how == 4 && n + g->len <= LEN_MAX) {
        size_t at = rng_below(&rng, n);
        memcpy(out + at, g->data, g->len);
        n = at + g->len;
    }
    if (how == 5)
        for (size_t i = 2; i < n; i++)
            if (rng_below(&rng, 4) == 0)
                out[i] = (uint8_t)rng_below(&rng, 256);
    return n;
}

static int speak(const char *ep, const char *server, const char *key, uint64_t count)
{
    struct key_pub pub;
    struct key_pair k;
    struct err e = { 0 };
    static uint8_t out[LEN_MAX];
    int linger = 500, wait = 200;
    if (key_load_pub(server, &pub, &e) < 0 || key_load(key, &k, &e) < 0) {
        fprintf(stderr, "babble: %s\n", e.text);
        return 1;
    }
    void *ctx = zmq_ctx_new(), *s = zmq_socket(ctx, ZMQ_DEALER);
    zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(s, ZMQ_SNDTIMEO, &wait, sizeof(wait));
    zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, pub.z85, 41);
    zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, k.pub.z85, 41);
    zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, k.secret, 41);
    int r = zmq_connect(s, ep);
    uint64_t sent = 0, stuck = 0;
    while (r == 0 && sent < count && stuck < 25) {
        size_t n = make(out);
        int more = rng_below(&rng, 50) == 0 ? ZMQ_SNDMORE : 0;
        if (zmq_send(s, out, n, more) < 0) {
            stuck++; /* not connected (any more): with a key that is not listed, for ever */
            continue;
        }
        if (more)
            zmq_send(s, out, n, 0);
        sent++;
        char in[4096];
        while (zmq_recv(s, in, sizeof(in), ZMQ_DONTWAIT) >= 0)
            continue;
    }
    printf("%llu frames sent\n", (unsigned long long)sent);
    key_clear(&k);
    zmq_close(s);
    zmq_ctx_term(ctx);
    return r < 0;
}

static int noise(const char *ep, uint64_t count)
{
    static const uint8_t greeting[64] = { 0xff, 0, 0, 0,   0,   0,   0,   0,  1,
                                          0x7f, 3, 0, 'C', 'U', 'R', 'V', 'E' };
    static uint8_t out[LEN_MAX];
    struct sockaddr_in sa = { .sin_family = AF_INET };
    char host[64];
    unsigned port;
    if (sscanf(ep, "tcp://%63[^:]:%u", host, &port) != 2 ||
        inet_pton(AF_INET, host, &sa.sin_addr) != 1)
        return 2;
    sa.sin_port = htons((uint16_t)port);
    uint64_t open = 0;
    for (uint64_t i = 0; i < count; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
            size_t n = 1 + rng_below(&rng, 4000);
            for (size_t k = 0; k < n; k++)
                out[k] = (uint8_t)rng_below(&rng, 256);
            open++;
            if (i % 3 == 0)
                send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL);
            send(fd, out, n, MSG_NOSIGNAL);
        }
        if (fd >= 0)
            close(fd);
    }
    printf("%llu connections\n", (unsigned long long)open);
    return open == 0;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: babble EP SERVER.pub KEY|- FRAMES SEED COUNT\n");
        return 2;
    }
    uint64_t count = strtoull(argv[6], NULL, 10);
    rng.s = strtoull(argv[5], NULL, 10);
    read_frames(argv[4]);
    if (!n_frames)
        return 2;
    int r = strcmp(argv[3], "-") ? speak(argv[1], argv[2], argv[3], count) : noise(argv[1], count);
    for (size_t i = 0; i < FRAMES_MAX; i++)
        buf_clear(&frames[i]);
    return r;
}
