/* All streams that come in at one process: the machine of stream.h bound to a way to send and to a store (proto/cas/grow.h).
 *
 * A stream belongs to the key of the peer that began it: another one cannot add to it. Its artefact is told through the
 * same callback as any other that has come, and is durable and noted before stream_over says so.
 */
#pragma once
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/wire/msg.h"
#include "proto/xfer/drive.h"

enum {
    STREAMS_MAX = 256, /* open at once; more wait for one that is quiet */
    STREAMS_QUIET_MS =
        30000 /* without a word: its files are closed, and opened again when it goes on */
};

struct streams_ops {
    void *ctx;
    int (*send)(void *ctx, uint64_t peer, const struct msg *m); /* as link_send() */
    /* May the store grow by more_b? 0 or -errno: nothing is taken, the sender comes again. NULL = always. */
    int (*room)(void *ctx, uint64_t more_b, struct err *e);
    /* An artefact is here, possibly again; negative: it could not be noted, the sender says its end again. */
    int (*ended)(void *ctx, const struct xfers_end *end, struct err *e);
};

struct streams;
/* cas borrowed, ops copied. Streams that nobody went on with are removed (GROW_DAYS). NULL without memory. */
struct streams *streams_new(struct cas *c, const struct streams_ops *ops);
void streams_free(struct streams **s);

/* A message of the four kinds. owner: the peer's public key. Returns 1 when it was one of them, 0 when not. */
int streams_msg(struct streams *s, uint64_t peer, const char *owner, const struct msg *m,
                uint64_t now_ms);
/* Make durable what is due. Returns ms until the next call is due, -1 = none. */
int64_t streams_tick(struct streams *s, uint64_t now_ms);
