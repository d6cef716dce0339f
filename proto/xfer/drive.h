/* All transfers of one process: the pure machines of xfer.h bound to a way to send and to stores.
 *
 * An event loop gives every put_offer, put_have, get, hashes, chunk, xfer_fail and bulk_* to
 * xfers_msg(), calls xfers_tick() when due, and learns of ends through one callback. Used by agent, coordinator
 * and client alike. With xfers_set_bulk(), poll bulk_fd() too and call xfers_tick() when it is readable.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"
#include "proto/wire/msg.h"

/* Where artefacts come from and go to. ctx is passed through. */
struct xfer_store {
    void *ctx;
    /* Hashes of an artefact that can be sent: *ret owned. -ENOENT = not here. */
    int (*hashes)(void *ctx, const struct id *id, struct id **ret, size_t *ret_n,
                  uint64_t *ret_size, struct err *e);
    ssize_t (*read)(void *ctx, const struct id *id, uint64_t index, void *p, size_t room,
                    struct err *e);
    /* -EEXIST = here already. *ret_put goes to the calls below. NULL = this side takes nothing. */
    int (*begin)(void *ctx, const struct id *id, uint64_t size_b, const struct id hashes[],
                 size_t n, void **ret_put, struct err *e);
    /* Look at n more chunks of what an earlier put left: 1 = nothing (more) to look at, 0 = there is more, -errno. Called until
     * it returned 1, before anything else is done with the put; between the calls the loop turns. NULL = nothing is ever left. */
    int (*put_check)(void *put, size_t n, struct err *e);
    bool (*put_has)(void *put, uint64_t index);
    int (*write)(void *put, uint64_t index, const void *p, size_t n,
                 struct err *e);             /* verifies; -SF_EINTEGRITY */
    int (*commit)(void *put, struct err *e); /* frees put on success */
    /* Of up to XFERS_COMMIT_MAX, whose waits for the disk are one: ret[i] as commit would, with errs[i]. NULL = one by one. */
    void (*commit_all)(void *put[], size_t n, int ret[], struct err errs[]);
    void (*close)(void *put); /* keeps the partial; frees put */
    /* For bulk connections, all or none of them. open: a descriptor to pread() the bytes from, the caller's. The others are
     * called from threads, see struct bulk_sink; meanwhile nobody calls another function with this put. */
    int (*open)(void *ctx, const struct id *id, uint64_t *ret_size, struct err *e);
    int (*put_write)(void *put, uint64_t index, const void *p, size_t n, struct err *e);
    int (*put_verify)(void *put, uint64_t index, const struct id *is, size_t n, struct err *e);
    int (*put_sync)(void *put, struct err *e);
    /* As open, of one that is not whole yet: only what has come may be read. May be NULL; may be called at any time. */
    int (*put_open)(void *put, struct err *e);
};

struct bulk;
struct cas;
/* A store over a cas (borrowed for as long as the store is used). */
struct xfer_store xfer_store_cas(struct cas *c);
enum { XFERS_COMMIT_MAX = 64 };

enum xfers_dir { XFERS_IN, XFERS_OUT };

/* How a transfer ended. */
struct xfers_end {
    enum xfers_dir dir;
    uint64_t peer, req;
    struct id id;
    uint64_t size_b;
    char kind[32], name[256]; /* of the offer; "" for a plain fetch */
    uint64_t bulk_chunks;     /* IN: that came over bulk connections */
    int code; /* 0 = whole and durable at the receiver; positive errno or SF_E* otherwise */
    char text[200];
};

struct xfers_ops {
    void *ctx;
    /* As link_send(): 0, -EAGAIN, -EHOSTUNREACH. */
    int (*send)(void *ctx, uint64_t peer, const struct msg *m);
    /* A peer offers an artefact that is not here: 0 = take it, else -SF_E*, -ENOSPC... (it is
     * told). NULL = take all. Called for what is here already too (here = true), so that kind and
     * name can be noted. */
    int (*offered)(void *ctx, uint64_t peer, const struct msg_put_offer *o, bool here,
                   struct err *e);
    /* A peer wants an artefact: 0 = may have it. NULL = all may. */
    int (*wanted)(void *ctx, uint64_t peer, const struct id *id, struct err *e);
    /* Ended. Called once for each fetch and offer of ours, and each offer taken; for IN before
     * put_have is sent, so that a durable note of it can be made first: a negative return fails the
     * put. May start other transfers. */
    int (*ended)(void *ctx, const struct xfers_end *end, struct err *e);
    /* What ended() noted must be durable now: put_have follows. A negative return fails the puts that ended since the last call. NULL =
     * it is. */
    int (*settle)(void *ctx, struct err *e);
    /* What a peer can do (enum wire_feature); NULL = nothing. */
    uint64_t (*features)(void *ctx, uint64_t peer);
    /* The coordinator: a peer takes chunks of an artefact and asks for a bulk connection. 1 = somebody else will give them, and
     * was told; 0 = we do. NULL = always we. */
    int (*broker)(void *ctx, uint64_t peer, const struct msg_bulk_ask *m);
    /* The class of bulk streams (bulk_class()) that this peer's belong to, or NULL; borrowed for the call. May be NULL. */
    const char *(*class_of)(void *ctx, uint64_t peer);
    /* Progress, may be NULL. */
    void (*moved)(void *ctx, enum xfers_dir dir, const struct id *id, uint64_t done_b,
                  uint64_t size_b);
};

enum {
    XFERS_MAX = 256,
    XFERS_PEER_MAX = 16
}; /* running receives in all, and of one peer's offers */

struct xfers;
/* store and ops copied. max_b: largest artefact taken. NULL without memory. */
struct xfers *xfers_new(const struct xfer_store *store, const struct xfers_ops *ops,
                        uint64_t max_b);
void xfers_free(struct xfers **x);

/* Chunks of artefacts of BULK_MIN_B or more go over bulk connections from now on, with peers whose
 * features have them. Small ones, those for which no connection can be made or which broke it more
 * than once, and hashes go over the link as ever. */
struct xfers_bulk {
    struct bulk *bulk;  /* borrowed; this is the only reader of its events */
    bool makes_tickets; /* the coordinator; it listens */
    const char *host;   /* else: where the coordinator is, for tickets that dial ":PORT"; copied */
};
int xfers_set_bulk(struct xfers *x, const struct xfers_bulk *b);

/* Fetch id from peer. req: 1 or more on a user's link, 0 elsewhere. 0; -EEXIST here already;
 * -EALREADY running; -EBUSY at XFERS_MAX. */
int xfers_fetch(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id, uint64_t now_ms,
                struct err *e);

/* Offer an artefact of the store to peer, until put_have or xfer_fail comes; repeated after silence
 * and xfers_up(). -ENOENT, -EALREADY, -EBUSY. */
int xfers_offer(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id, const char *kind,
                const char *name, uint64_t now_ms, struct err *e);

/* A message of these kinds from a peer. Returns 1 when it was one of them, 0 when not. What became whole by it is made durable by
 * the next xfers_tick(), together: call that before waiting for anything. */
int xfers_msg(struct xfers *x, uint64_t peer, const struct msg *m, uint64_t now_ms);

/* Do what is due; send what was owed when a queue was full. Returns ms until the next call is due,
 * -1 = none. */
int64_t xfers_tick(struct xfers *x, uint64_t now_ms);

/* The peer is gone. keep = false: its transfers end with EHOSTUNREACH. keep = true (an agent's
 * coordinator): they wait for xfers_up(). */
void xfers_gone(struct xfers *x, uint64_t peer, bool keep);
void xfers_up(struct xfers *x, uint64_t peer, uint64_t now_ms);

/* The bytes of an artefact turned out to be damaged: what is kept of them is dropped, so that nobody is sent them again. */
void xfers_forget(struct xfers *x, const struct id *id);

size_t xfers_running(const struct xfers *x);
bool xfers_busy(const struct xfers *x, const struct id *id); /* is this one coming in */
