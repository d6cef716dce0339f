/* Transfer of one artefact: a pure receiver machine (state, event, now) -> actions. No I/O, no
 * clock, no allocation but its own tables. drive.h binds it to a link and a store; the simulator
 * and the tests drive it directly.
 *
 * The receiver asks, the sender answers what it is asked and keeps no state but a queue of chunks
 * it still owes (at most XFER_CREDIT_MAX). So loss, repetition and reordering of any message cost
 * time only: what did not come is asked for again.
 *
 *     put:  put_offer ->        <- put_have (here already), or as get and then put_have (durable)
 *     get:         <- get(want_hashes)    hashes... ->    <- get(first, credit)    chunk... ->  ...
 *
 * xfer_fail ends it from either side. A fetched artefact is not acknowledged: the sender keeps
 * nothing that would wait for it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"
#include "proto/wire/msg.h"

enum {
    XFER_WINDOW = 16,     /* chunks asked for and not yet here, over a link: they are on the way */
    XFER_CREDIT_MAX = 64, /* most chunks of one get */
    XFER_TIMEOUT_MS = 5000, /* nothing came for so long: ask again */
    XFER_TRIES = 12,        /* so often in a row, then fail */
    XFER_DAMAGED_MAX = 8,   /* chunks that fail their hash, then fail */
    XFER_HASHES_MSG = 32768,
};

enum xfer_state { XFER_HASHES, XFER_OPENING, XFER_CHUNKS, XFER_COMMITTING, XFER_DONE, XFER_FAILED };

struct xfer_recv {
    enum xfer_state state;
    uint64_t req;
    struct id id;
    uint64_t size_b; /* UINT64_MAX until known */
    uint64_t max_b;
    size_t n_chunks, n_hashes, n_have, n_asked;
    struct id *hashes;     /* owned, n_chunks once the size is known */
    uint8_t *have, *asked; /* owned, one bit a chunk */
    uint64_t next;         /* no chunk below is missing and unasked */
    uint64_t quiet_since_ms;
    unsigned tries, damaged;
    size_t window; /* XFER_WINDOW, or what xfer_recv_window() said */
};

enum xfer_event_kind {
    XFER_EV_MSG,    /* msg: hashes, chunk or xfer_fail of this id */
    XFER_EV_TICK,   /* time passed */
    XFER_EV_UP,     /* the peer is connected again: everything asked for is lost */
    XFER_EV_ALIVE,  /* a part of a chunk came, or the peer said to wait: no reason to ask again */
    XFER_EV_OPENED, /* answer to OPEN: r = 0 or -errno with text; have: bit a chunk, NULL = none
                       (borrowed for the call) */
    XFER_EV_WROTE,  /* answer to WRITE: index, r = 0, -SF_EINTEGRITY (damaged: will be asked again)
                       or fatal -errno */
    XFER_EV_COMMITTED, /* answer to COMMIT: r */
};

struct xfer_event {
    enum xfer_event_kind kind;
    const struct msg *msg;
    const uint8_t *have;
    uint64_t index;
    int r;
    const char *text; /* may be NULL */
};

enum xfer_action_kind {
    XFER_DO_SEND,   /* msg to the peer; when the link is full or down just drop it: the tick repeats
                       it */
    XFER_DO_OPEN,   /* make room for size_b with hashes[n]; answer OPENED at once */
    XFER_DO_WRITE,  /* unpack (packed), verify and store chunk index; answer WROTE at once */
    XFER_DO_COMMIT, /* make it durable; answer COMMITTED at once */
    XFER_DO_DONE,   /* whole and durable */
    XFER_DO_FAIL,   /* given up: code, text; keep the partial */
};

/* Pointers are borrowed from the machine or from the event's message: act before the next step. */
struct xfer_action {
    enum xfer_action_kind kind;
    struct msg msg;
    uint64_t size_b, index;
    const struct id *hashes;
    size_t n;
    const uint8_t *data;
    bool packed;
    int code;
    char text[200];
};

struct xfer_actions {
    struct xfer_action v[8]; /* a step gives at most this many */
    size_t n;
};

/* Start receiving. size_b: from the offer, UINT64_MAX = unknown. max_b: a larger artefact fails
 * (-EFBIG), at most CAS_SIZE_MAX is sensible. req: goes into every message. Gives the first action.
 */
void xfer_recv_init(struct xfer_recv *x, uint64_t req, const struct id *id, uint64_t size_b,
                    uint64_t max_b, uint64_t now_ms, struct xfer_actions *out);
void xfer_recv_clear(struct xfer_recv *x);
/* How many chunks may be asked for and not yet here, 1 to XFER_CREDIT_MAX. Follow it with XFER_EV_UP when it shrinks. */
void xfer_recv_window(struct xfer_recv *x, size_t n);

/* One step. out is reset first. Messages of other ids, late and repeated ones change nothing.
 * Returns 0; -ENOMEM leaves the machine FAILED with the action for it. */
int xfer_recv_step(struct xfer_recv *x, const struct xfer_event *ev, uint64_t now_ms,
                   struct xfer_actions *out);

/* When the next TICK is due (monotonic ms); UINT64_MAX when ended. */
uint64_t xfer_recv_deadline(const struct xfer_recv *x);

/* NULL, or which rule of the state does not hold (tests call it after each step). */
const char *xfer_recv_check(const struct xfer_recv *x);

/* ---- sender: what it still owes */

struct xfer_send {
    struct id id;
    uint64_t req, size_b;
    size_t n_chunks;
    bool owes_hashes;
    uint64_t hashes_from;
    uint64_t owed[XFER_CREDIT_MAX]; /* chunks, in the order they were asked for, each once */
    size_t n_owed;
};

void xfer_send_init(struct xfer_send *s, const struct id *id, uint64_t size_b);
/* Take a `get` in. Returns 0, or -EINVAL for one past the end or with too much credit: answer it
 * with xfer_fail. What is more than it may owe is forgotten; it will be asked for again. */
int xfer_send_get(struct xfer_send *s, const struct msg_get *g);
/* What to send next: 1 = hashes from *ret_index on, *ret_n of them; 2 = chunk *ret_index; 0 =
 * nothing owed. */
int xfer_send_next(const struct xfer_send *s, uint64_t *ret_index, uint64_t *ret_n);
/* The thing named by xfer_send_next() was queued. */
void xfer_send_done(struct xfer_send *s);

/* The positive errno or SF_E* that an err_name() in an xfer_fail stands for; SF_EFAILED when unknown. */
int xfer_code(const char *name);
