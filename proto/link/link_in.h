/* Inside of a link: what link.c (both sides), server.c (ROUTER, ZAP) and client.c (DEALER) share. */
#pragma once
#include <zmq.h>

#include "proto/base/buf.h"
#include "proto/base/rng.h"
#include "proto/link/allow.h"
#include "proto/link/link.h"

enum {
    BUCKETS = 8192,
    EPS_MAX = 16,
    EXTRA_MAX = 1024,
    SERVER_RCVHWM = 32, /* messages of one peer that wait to be read; the rest waits in TCP */
    HANDSHAKE_MS = 10000,
    IDLE_S =
        5, /* without a word, until the kernel asks whether the other end is there: notices a dead TCP connection */
    PROBE_S = 2,
    DEAD_MS = 10000,      /* what was sent or asked is not acknowledged for so long: closed */
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
    /* where beats alone come more often than this, they are waited for so long and taken together */
    GATHER_MS = 2,
    THROUGH_MAX = 64,
};

/* At most so many a second; counts what it kept back. */
struct limit {
    uint64_t second;
    unsigned n, kept;
};

/* A connection as the server knows it, from its first message to its LINK_GONE. */
struct conn {
    struct conn *next_rid, *next_id, *next_gone, *next_fd;
    uint8_t rid[255];
    uint8_t rid_len;
    bool gone;    /* waits in link.gone */
    bool revoked; /* its key is not allowed any more: nothing of it counts */
    int fd;
    unsigned version; /* spoken to it; 0 = ours */
    uint64_t refused;
    struct limit lines, answers;
    struct peer peer;
    char why[128];
};

/* What is known of an accepted descriptor; index = the descriptor. */
struct fd_info {
    bool live;
    struct conn *conns; /* heard through it */
    char addr[LINK_ADDR_LEN];
};

enum client_state { DOWN, CONNECTING, UP, CLOSING };

struct link {
    bool server;
    void *ctx, *sock, *mon, *zap, *zap_end;
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
    /* Whether a socket may have something that its descriptor does not tell: libzmq's descriptors tell of changes since a
     * call found nothing, and each question costs two system calls. */
    bool look_sock, look_mon, look_zap;
    uint32_t through[THROUGH_MAX]; /* pipes to the ZAP handler that zap_end is to close */
    size_t n_through;
    uint64_t polled_ns; /* when link_poll() returned */
    bool beats, others; /* what came since */
    int failed_event;   /* HANDSHAKE_FAILED_* whose DISCONNECTED names the descriptor */
    uint64_t failed_value;

    /* client */
    enum client_state state;
    struct key_pair key;
    char server_key[KEY_Z85_LEN];
    char *ep;
    uint64_t since_ms, retry_ms;
    unsigned tries, no_detail;
    bool refused_told;
    unsigned version; /* spoken on this connection: ours, or the one before */
    bool say_up, say_refused;
    char text[256];
    struct rng rng;
};

/* ---- link.c */

bool link_limit(struct limit *l, unsigned max, uint64_t now_ms);
/* " (12 lines before were left out)" once something was kept back. */
const char *link_kept(struct limit *l, char out[64]);
int link_set_int(void *s, int opt, int v);
int link_options(void *s, int rcvhwm); /* those of every socket; 0 or -errno */
/* "tcp://HOST:PORT" and nothing else: libzmq would take other transports and a source address, too. */
int link_check_ep(const char *ep, bool bind, struct err *e);
/* Open a monitor of s for events; its reading end goes to *ret. 0 or -errno. */
int link_monitor(struct link *l, void *s, int events, void **ret);
/* One monitor event: 1 = *event, *value; 0 = none. */
int link_monitor_read(void *mon, int *event, uint64_t *value);
void link_close_pair(void **s, void **mon);

/* ---- server.c */

struct conn *server_conn(const struct link *l, uint64_t id);       /* NULL = none */
void server_gone(struct link *l, struct conn *c, const char *why); /* LINK_GONE is to come */
void server_service(struct link *l); /* handshakes, closed connections, the allow-list */
int server_recv(struct link *l, struct link_event *ev, struct err *e); /* as link_recv() */
void server_clear(struct link *l);

/* ---- client.c */

void client_service(struct link *l); /* connections that come up, end, or are due again */
/* When client_service() has something to do of itself; UINT64_MAX = not before something happens. */
uint64_t client_wake_ms(const struct link *l);
int client_recv(struct link *l, struct link_event *ev, struct err *e); /* as link_recv() */
