/* An artefact that is sent while it is still being written: pure machines for both ends. No I/O, no clock.
 *
 *     stream_open ->    <- stream_at(taken, durable)    stream_data(offset) -> ...    <- stream_at ...
 *     stream_end(size, id) ->    <- stream_over
 *
 * Bytes go in order, in pieces of at most STREAM_PIECE, and at most STREAM_WINDOW of them are sent and not yet taken: so
 * little of a stream is ever queued before a heartbeat. The receiver says how far it is and how much of that a crash
 * would leave, in whole chunks; the sender may then free those bytes. After silence or on a new connection the sender
 * asks where the receiver is and goes on from there. The receiver hashes chunks as they come; the artefact exists when
 * their hashes give the id that the writer computed from what it wrote.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"

enum {
    STREAM_PIECE = 64 << 10,
    STREAM_WINDOW = 4 * STREAM_PIECE,
    STREAM_TIMEOUT_MS = 5000, /* no answer for so long: ask again, for ever */
    STREAM_SYNC_B = 8 << 20,  /* the receiver makes whole chunks durable when so much waits, */
    STREAM_SYNC_MS = 1000,    /* or a chunk has waited for so long */
};

/* ---- the end that has the growing file */

enum stream_state {
    STREAM_ASK,  /* where is the receiver? */
    STREAM_FLOW, /* from sent_b on */
    STREAM_DONE, /* whole and durable there */
    STREAM_FAILED,
};

struct stream_send {
    enum stream_state state;
    uint64_t grown_b; /* what has been written */
    uint64_t sent_b, taken_b,
        durable_b;     /* durable_b <= taken_b <= sent_b <= grown_b once it flows */
    uint64_t freed_b;  /* gone here */
    bool ended, waits; /* grown_b is all; something was asked that has no answer yet */
    uint64_t asked_ms;
};

enum stream_what { STREAM_SEND_NOTHING, STREAM_SEND_OPEN, STREAM_SEND_DATA, STREAM_SEND_END };

/* freed_b: of an earlier life of the sender. */
void stream_send_init(struct stream_send *s, uint64_t freed_b);
void stream_send_grew(struct stream_send *s, uint64_t size_b); /* never smaller than before */
void stream_send_ended(struct stream_send *s);                 /* at the size that it has */
/* What to send now; of DATA the place and length. Send it, then say so with stream_sent(); when a queue is full, just try
 * again later. */
enum stream_what stream_send_next(struct stream_send *s, uint64_t now_ms, uint64_t *ret_off,
                                  uint64_t *ret_n);
void stream_sent(struct stream_send *s, enum stream_what what, uint64_t n, uint64_t now_ms);
/* stream_at. Late, repeated and impossible ones change nothing. (A receiver that does not have what is freed here knows
 * it from freed_b, and says that it is over.) */
void stream_send_at(struct stream_send *s, uint64_t taken_b, uint64_t durable_b, uint64_t now_ms);
void stream_send_over(struct stream_send *s, bool ok);
/* A new connection: what was sent and not taken is lost. */
void stream_send_up(struct stream_send *s);
/* ms from now until stream_send_next() must be called again though nothing happens; -1 = never. */
int64_t stream_send_wait(const struct stream_send *s, uint64_t now_ms);
const char *
stream_send_check(const struct stream_send *s); /* NULL, or the rule that does not hold */

/* ---- the end that takes it */

struct stream_recv {
    uint64_t taken_b, durable_b; /* durable_b is a multiple of the chunk */
    uint64_t chunk_ms;           /* since when a whole chunk waits to be made durable; 0 = none */
};

/* durable_b: of an earlier life of the receiver. */
void stream_recv_init(struct stream_recv *r, uint64_t durable_b);
/* n bytes at off came: true = write them, they are the next ones; false = say where this end is. */
bool stream_recv_data(struct stream_recv *r, uint64_t off, uint64_t n, uint64_t now_ms);
/* Whole chunks should be made durable now. */
bool stream_recv_due(const struct stream_recv *r, uint64_t now_ms);
/* They are. Returns true when durable_b moved. */
bool stream_recv_synced(struct stream_recv *r);
