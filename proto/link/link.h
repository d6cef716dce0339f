/* Links between a coordinator and its peers: the only user of zmq.h.
 *
 * A server is a ROUTER, a client a DEALER, every socket speaks CURVE, and the server lets in only
 * keys of its allow-list (ZAP). A message that comes out of link_recv() is decoded, within its
 * bounds, and of a type that the sender's role may send; everything else was refused (answered with
 * `refuse`, one rate-limited log line) and changed nothing.
 *
 * Why not let libzmq reconnect: it does not after a failed handshake, and it re-sends what was
 * queued before. Here each connection of a client is a fresh socket: nothing old is ever sent on a
 * new connection, LINK_UP says when to say hello again. All queues are bounded: LINK_QUEUE messages
 * each way and peer, FRAME_MAX bytes a message.
 *
 * Limits   a server holds 32 unread messages of a peer (the rest waits in its TCP) and at most
 *          LINK_PEERS_MAX connections or three quarters of the descriptors that the process may have
 *          open (RLIMIT_NOFILE); it closes what goes over, and a peer after 1000 refused messages. Not bounded, since libzmq cannot: a peer
 *          with a listed key and a ZMTP of its own sending one message of endless parts.
 * Threads  a link belongs to one thread. libzmq's I/O thread is inside; block signals that you want
 *          from signalfd before making the first link.
 * Time     nothing happens between calls: reconnects, handshakes of new peers and monitors are
 *          worked on in link_poll(), so call it at least every few seconds.
 */
#pragma once
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/link/keys.h"
#include "proto/wire/msg.h"

enum { LINK_QUEUE = 128, LINK_PEERS_MAX = 16384, LINK_ADDR_LEN = 64 };

struct link;

/* Who sent it. On a server: a connection (the same key may have several, each with its own id; an
 * id is never used again). On a client: the coordinator, id 1. */
struct peer {
    uint64_t id;
    enum role role;
    char name[KEY_NAME_LEN]; /* from the allow-list, not from the peer */
    char key[KEY_Z85_LEN];
    char addr[LINK_ADDR_LEN]; /* for log lines; may be "" */
};

enum link_event_kind {
    LINK_MSG, /* msg is valid; link_event_clear() frees it */
    LINK_UP,  /* client: connected and let in; say hello (again). A server gives none: a peer exists
                 from its  first message on */
    LINK_GONE,    /* the connection is closed: peer.id will not be heard again. Work goes by leases,
                     not by this */
    LINK_REFUSED, /* client: the coordinator does not take our key, or is not the one whose key we
                     hold. text says which. The client goes on trying, more slowly; a command gives
                     up */
};

struct link_event {
    enum link_event_kind kind;
    struct peer peer;
    struct msg msg;
    char text[256]; /* LINK_GONE, LINK_REFUSED: why */
};

void link_event_clear(struct link_event *ev);

/* Listen on n endpoints "tcp://HOST:PORT" (HOST an address or name, PORT a number or '*').
 *
 * key      the server's own, role coordinator; borrowed for the call
 * allowed  folder of the allow-list, copied; read again when it changed
 *
 * Returns 0, -EADDRINUSE and other -errno with the endpoint named, -SF_EUSAGE for what is no
 * endpoint. */
int link_server(const char *const eps[], size_t n, const struct key_pair *key, const char *allowed,
                struct link **ret, struct err *e);

/* Connect to one endpoint; does not wait: LINK_UP or LINK_REFUSED come from link_recv().
 * server_key: Z85 public key of the coordinator. -SF_EUSAGE for what is no endpoint. */
int link_client(const char *ep, const struct key_pair *key, const char *server_key,
                struct link **ret, struct err *e);

/* Bound endpoint i of a server with its real port, "tcp://127.0.0.1:40123"; NULL past the last.
 * Borrowed. */
const char *link_endpoint(const struct link *l, size_t i);

/* Wait until link_recv() has something, one of the extra fds is ready (revents filled as by
 * poll(2)), a signal came or timeout_ms passed (-1 = for ever). extra may be NULL. Returns 1 when
 * link_recv() may have something, else 0; -errno only for broken arguments. EINTR is 0. */
int link_poll(struct link *l, struct pollfd extra[], size_t n_extra, int64_t timeout_ms,
              struct err *e);

/* Next event, never blocks. Returns 1 with *ev filled (link_event_clear() it), 0 when there is none
 * now. Peers' errors are dealt with inside. -ENOMEM. */
int link_recv(struct link *l, struct link_event *ev, struct err *e);

/* Send to a peer (id 1 on a client). Never blocks. Returns 0 = queued, -EAGAIN = this peer's queue
 * is full (keep it and try later), -EHOSTUNREACH = peer gone or, on a client, not connected;
 * -EINVAL, -EMSGSIZE for a message out of bounds. */
int link_send(struct link *l, uint64_t peer, const struct msg *m, struct err *e);

/* Shorthand: a `refuse` to a peer; text is cut to fit. exit 1..5. */
int link_refuse(struct link *l, uint64_t peer, uint64_t req, int exit_status, const char *code,
                const char *text);

/* Close a peer's connection (server). It sees a disconnect and may come again, unless its key was
 * revoked. */
void link_drop(struct link *l, uint64_t peer, const char *why);

bool link_is_up(const struct link *l);     /* client: connected and let in. server: true */
size_t link_n_peers(const struct link *l); /* server: peers heard and not gone */
/* Server: whether the connection of this peer is open, also when its LINK_GONE was not fetched yet. */
bool link_peer_up(const struct link *l, uint64_t peer);
/* Server: whether this key, with this role, is on the allow-list, as it was last read (a second ago at most). */
bool link_key_allowed(const struct link *l, const char *z85, enum role role);

/* Counters since the start, for `ls`, tests and the bench. */
struct link_stats {
    uint64_t sent, received, refused_msgs, refused_keys, full, gone, connects;
};
void link_stats(const struct link *l, struct link_stats *ret);

/* Messages queued are given linger_ms to leave. Accepts NULL, sets *l = NULL. */
void link_free(struct link **l, int linger_ms);
