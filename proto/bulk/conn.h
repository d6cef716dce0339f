/* One connected socket that speaks sealed frames: bytes in both directions, sealed and opened in
 * place, with the waits between. Blocking calls return -ECANCELED soon after *stop was set and
 * wake_fd written. One thread. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"
#include "proto/bulk/frame.h"
#include "proto/bulk/pace.h"
#include "proto/lib/aead.h"

enum {
    CONN_HEAD = FRAME_HEAD + AEAD_TAG, /* of a frame on the wire */
    CONN_OUT = 64 + CONN_HEAD + FRAME_BODY_MAX + AEAD_TAG,
    CONN_IN = CONN_HEAD + FRAME_BODY_MAX + AEAD_TAG + CONN_HEAD,
};

/* One direction: its key and the number of the next sealed piece. */
struct conn_seal {
    struct aead key;
    uint64_t n;
};

struct conn {
    int fd;      /* owned; not blocking */
    int wake_fd; /* borrowed */
    const atomic_bool *stop;
    struct conn_seal in, out;
    uint8_t *in_buf, *out_buf; /* owned; CONN_IN, CONN_OUT */
    size_t in_off, in_len, out_off, out_len;
    bool has_head; /* of the frame that comes; its body goes to body_to */
    uint8_t *body_to;
    size_t body;
    _Atomic uint64_t wire_in_b, wire_out_b;
    /* since when it waits for bytes of the other end (monotonic ns); 0 = it does not */
    _Atomic uint64_t waits_since_ns;
};

int conn_init(struct conn *c);
void conn_clear(struct conn *c);

/* "HOST:PORT", also "[V6]:PORT"; names are looked up. Connects within timeout_ms. Returns the socket. */
int conn_dial(const char *to, int wake_fd, const atomic_bool *stop, unsigned timeout_ms,
              struct err *e);
/* What every bulk socket is set to. */
void conn_tune(int fd);

/* Wait for events (POLLIN, POLLOUT) at most timeout_ms, -1 = for ever. 1, 0 = time is over, -ECANCELED. */
int conn_wait(struct conn *c, short events, int timeout_ms);
/* Sleep. 0 or -ECANCELED. */
int conn_sleep(struct conn *c, uint64_t ns);

/* Seal a frame behind what is in out_buf; it must fit. */
void conn_put(struct conn *c, enum frame_type type, const void *body, size_t n);
/* Write what it takes now. 0, also when some is left; -errno. */
int conn_flush_some(struct conn *c);
/* Write all, as pace and rate allow (both may be NULL). */
int conn_flush(struct conn *c, struct pace *pace, struct pace_rate *rate);

/* Read what is there: > 0, -EAGAIN, 0 = the other end closed, -errno. rate may be NULL. */
ssize_t conn_fill(struct conn *c, struct pace_rate *rate, uint64_t *ret_wait_ns);
/* The next frame of what was read: enum frame_rx_got, -EAGAIN when more bytes are needed, -SF_EINTEGRITY when it was not
 * sealed by the other end in this place, -SF_EFORMAT. */
int conn_next(struct conn *c, struct frame_rx *rx, struct err *e);
