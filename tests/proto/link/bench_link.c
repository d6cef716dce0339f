/* What a link carries on loopback: small questions and answers with a window, and chunks of 1 MiB. By hand:
 * bench_link [SECONDS]. Both ends run in this process, each in its own thread, over CURVE and TCP. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/link/link.h"

enum { WINDOW = 100, CHUNKS = 16 };

static struct link *server;
static atomic_bool stop;
static atomic_ullong bytes;

static void *serve(void *arg)
{
    (void)arg;
    while (!stop) {
        struct link_event ev;
        link_poll(server, NULL, 0, 20, NULL);
        while (link_recv(server, &ev, NULL) == 1) {
            if (ev.kind == LINK_MSG && ev.msg.type == M_CHUNK)
                bytes += ev.msg.chunk.data_len;
            if (ev.kind == LINK_MSG) {
                struct msg a = { .type = M_BEAT_ACK, .beat_ack = { .seq = 1 } };
                link_send(server, ev.peer.id, &a, NULL);
            }
            link_event_clear(&ev);
        }
    }
    return NULL;
}

/* Keep window messages m under way for ms; returns how many were answered. */
static uint64_t run(struct link *c, const struct msg *m, unsigned window, uint64_t ms)
{
    uint64_t end = clock_mono_ms() + ms, got = 0;
    unsigned open = 0;
    while (clock_mono_ms() < end || open) {
        struct link_event ev;
        while (clock_mono_ms() < end && open < window && link_send(c, 1, m, NULL) == 0)
            open++;
        link_poll(c, NULL, 0, 20, NULL);
        while (link_recv(c, &ev, NULL) == 1) {
            if (ev.kind == LINK_MSG) {
                open--;
                got++;
            }
            link_event_clear(&ev);
        }
    }
    return got;
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/siofleet-bench.XXXXXX";
    struct key_pair sk, ck;
    struct link *c = NULL;
    struct err e = { 0 };
    pthread_t thread;
    uint64_t ms = (argc > 1 ? strtoull(argv[1], NULL, 10) : 2) * 1000;
    const char *ep = "tcp://127.0.0.1:*";
    if (!mkdtemp(dir))
        return 1;
    CLEANUP(freep) char *s = path_fmt("%s/s", dir);
    CLEANUP(freep) char *k = path_fmt("%s/c", dir);
    CLEANUP(freep) char *allowed = keys_dir(dir);
    if (key_new(s, ROLE_COORDINATOR, "s", &sk, &e) < 0 ||
        key_new(k, ROLE_AGENT, "c", &ck, &e) < 0 || keys_allow(dir, &ck.pub, &e) < 0 ||
        link_server(&ep, 1, &sk, allowed, &server, &e) < 0 ||
        link_client(link_endpoint(server, 0), &ck, sk.pub.z85, &c, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    pthread_create(&thread, NULL, serve, NULL);
    while (!link_is_up(c)) {
        struct link_event ev;
        link_poll(c, NULL, 0, 20, NULL);
        if (link_recv(c, &ev, NULL) == 1)
            link_event_clear(&ev);
    }
    struct msg beat = { .type = M_BEAT, .beat = { .boot = 1, .seq = 1 } };
    uint64_t n = run(c, &beat, WINDOW, ms);
    printf("beat and answer, window %d: %.0f/s\n", WINDOW, (double)n * 1000 / (double)ms);
    n = run(c, &beat, 1, ms);
    printf("beat and answer, one at a time: %.0f/s\n", (double)n * 1000 / (double)ms);
    uint8_t *data = calloc(1, CID_CHUNK);
    struct msg chunk = { .type = M_CHUNK, .chunk = { .data = data, .data_len = CID_CHUNK } };
    uint64_t before = bytes;
    run(c, &chunk, CHUNKS, ms);
    printf("chunks of 1 MiB, window %d: %.0f MiB/s\n", CHUNKS,
           (double)(bytes - before) / 1048576 * 1000 / (double)ms);
    stop = true;
    pthread_join(thread, NULL);
    link_free(&c, 0);
    link_free(&server, 0);
    free(data);
    dir_remove(dir, NULL);
    return 0;
}
