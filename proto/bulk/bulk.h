/* Bulk connections: TCP connections beside the link that carry the chunks of one artefact each,
 * sealed (AEAD), in threads of their own. Who takes what, what is missing and what is durable stays
 * with proto/xfer and the link; a bulk connection only moves chunks, fast and out of the way.
 *
 * Both ends hold a ticket, made by the coordinator and handed out over the link (CURVE). It is good
 * for one artefact and one connection, and for ttl_ms. Either end may listen; the dialling end says
 * the ticket's id in clear, everything else in both directions is sealed: keys of the ticket, one a
 * direction, nonce = number of the frame. README.md has the frames, the figures and the limits.
 *
 *      taking end                                         sending end
 *      bulk_take(ticket, dial|NULL, sink)                 bulk_give(ticket, dial|NULL, fd, size)
 *      BULK_UP                                            BULK_UP
 *      bulk_want(first, n)        ---- want ---->         reads, packs, seals
 *      BULK_CHUNK(index, r)       <--- chunk ----
 *      bulk_stop()                ---- bye ----->         BULK_END
 *      BULK_END
 *
 * A stream always ends with exactly one BULK_END; only then its threads have let go of sink and fd.
 * What was asked for and has no BULK_CHUNK by then did not come.
 *
 * Memory   at most BULK_STREAM_B a stream and BULK_TOTAL_B in all; more streams than that allows are
 *          -EBUSY.
 * Threads  every function here: the one thread that owns the struct bulk. Its own threads call the
 *          sink only.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"
#include "proto/wire/msg.h"

enum {
    BULK_TICKET_LEN = 16,
    BULK_KEY_LEN = 32,
    BULK_TTL_MS = 10000,  /* a ticket that nobody used for so long is void */
    BULK_MIN_B = 4 << 20, /* smaller transfers are faster over the link */
    BULK_WINDOW = 64,     /* chunks asked for ahead: costs 8 bytes a chunk, not its megabyte */
    BULK_TAKES_MAX = 24,  /* streams at once, tickets that wait for their peer included */
    BULK_GIVES_MAX = 40,
};
#define BULK_STREAM_B (UINT64_C(20) << 20)
#define BULK_TOTAL_B (UINT64_C(256) << 20)

enum bulk_alg { BULK_AES256GCM = 1, BULK_XCHACHA20 = 2 };

struct bulk_ticket {
    uint8_t id[BULK_TICKET_LEN];
    uint8_t keys[2]
                [BULK_KEY_LEN]; /* [0] sealed by the end that dials, [1] by the one that listens */
    enum bulk_alg alg;
    struct id artefact;
    uint32_t ttl_ms;
};

/* WIRE_BULK, and WIRE_BULK_AES where this machine has it: for the hellos. */
uint64_t bulk_features(void);
/* Fresh and random. features: of all ends, and-ed. */
void bulk_ticket_new(struct bulk_ticket *t, const struct id *artefact, uint64_t features);
/* The message that hands it to an end. send: that end sends the chunks. dial: as in msg.h. Borrows t and dial. */
struct msg bulk_ticket_msg(const struct bulk_ticket *t, uint64_t req, bool send, const char *dial);
/* -SF_EFORMAT for an algorithm that is not here. */
int bulk_ticket_parse(const struct msg_bulk_ticket *m, struct bulk_ticket *ret, struct err *e);

struct bulk;
struct bulk_conf {
    const char *listen; /* "tcp://HOST:PORT", PORT may be *; NULL = this end only dials */
    uint64_t rate_b;    /* bytes a second of all streams together and each way; 0 = no limit */
};

/* Starts the listener's thread. -EADDRINUSE and other -errno with the address named, -SF_EUSAGE for what is no
 * endpoint. */
int bulk_new(const struct bulk_conf *conf, struct bulk **ret, struct err *e);
/* An endpoint for listen: any port of the address from which this host reaches HOST ("tcp://ADDRESS:*"; loopback, when HOST is
 * there). Nothing is sent. */
int bulk_own_address(const char *host, char *ret, size_t room, struct err *e);
/* Ends all streams, without their events. Waits for a sink's write that is under way. Accepts NULL. */
void bulk_free(struct bulk **b);
uint16_t bulk_port(const struct bulk *b); /* bound; 0 = does not listen */
int bulk_fd(const struct bulk *b);        /* poll it for POLLIN: bulk_next() has something */

/* Where chunks go. write and verify are called by two threads, each in the order of arrival, verify
 * of a chunk after its write; sync by the second of them. p: plain bytes, borrowed; is: the
 * BLAKE2b-256 of them. write: 0 or a fatal -errno. verify: 0, -SF_EINTEGRITY (is asked for again) or
 * a fatal -errno. */
struct bulk_sink {
    void *put;
    int (*write)(void *put, uint64_t index, const void *p, size_t n, struct err *e);
    int (*verify)(void *put, uint64_t index, const struct id *is, size_t n, struct err *e);
    int (*sync)(void *put,
                struct err *e); /* fsync, before a commit in the loop would wait for it */
};

struct bulk_stream;

/* Take the chunks of an artefact of size_b bytes. dial: "HOST:PORT" to call, NULL = to be called,
 * within ttl_ms. ctx comes back in the events. sink copied; what it points to stays until BULK_END.
 * -EBUSY no stream is free; -ENOTCONN to be called, and this end does not listen. */
int bulk_take(struct bulk *b, const struct bulk_ticket *t, const char *dial, uint64_t size_b,
              const struct bulk_sink *sink, void *ctx, struct bulk_stream **ret, struct err *e);
/* Give them: fd is read with pread(2), taken on success. */
int bulk_give(struct bulk *b, const struct bulk_ticket *t, const char *dial, uint64_t size_b,
              int fd, void *ctx, struct bulk_stream **ret, struct err *e);

/* The same of a file that is not whole yet, because its chunks still come from somewhere else: have, a bit a chunk, says which
 * are there (copied). A chunk that is not waits for bulk_have(). */
int bulk_give_some(struct bulk *b, const struct bulk_ticket *t, const char *dial, uint64_t size_b,
                   int fd, const uint8_t *have, void *ctx, struct bulk_stream **ret, struct err *e);
/* Chunk index is there now. Nothing for a stream that gives a whole file. */
void bulk_have(struct bulk_stream *s, uint64_t index);

/* Classes of streams: those of one share its rate evenly, within that of all. rate_b: bytes a second of all of them together,
 * each way; 0 = no limit. Made when missing, changed for streams that run as well; lives as long as b. -ENOMEM. */
int bulk_class(struct bulk *b, const char *name, uint64_t rate_b, struct err *e);
/* Into a class, before the other end has the ticket. NULL or one that was never made: none. */
void bulk_join(struct bulk_stream *s, const char *class_name);

/* Ask for n chunks from first on: taking end, after BULK_UP. Never blocks. At most BULK_WINDOW may be
 * asked for and not here. */
void bulk_want(struct bulk_stream *s, uint64_t first, uint64_t n);
/* Have sink.sync called; answered by BULK_SYNCED. */
void bulk_sync(struct bulk_stream *s);
/* End it: BULK_END comes soon, when no call of the sink is under way. May be called again. */
void bulk_stop(struct bulk_stream *s);
/* Bytes of chunks that moved so far, as they go over the wire: whole chunks would be too coarse to tell a slow stream from
 * a dead one. */
uint64_t bulk_moved(const struct bulk_stream *s);
/* How long it has been waiting for the other end; 0 while it works, or nothing is asked for. */
uint64_t bulk_quiet_ms(const struct bulk_stream *s);

enum bulk_event_kind { BULK_UP, BULK_CHUNK, BULK_SYNCED, BULK_END };

struct bulk_event {
    enum bulk_event_kind kind;
    void *ctx;
    struct bulk_stream *stream; /* gone after BULK_END */
    uint64_t index;             /* BULK_CHUNK */
    uint64_t moved_b;           /* BULK_END: as bulk_moved() would say */
    int r;          /* BULK_CHUNK, BULK_SYNCED: of the sink. BULK_END: 0 = stopped, else -errno */
    char text[200]; /* when r < 0 */
};

/* Next event, never blocks: 1, or 0 when there is none. */
int bulk_next(struct bulk *b, struct bulk_event *ret);

struct bulk_stats {
    uint64_t takes, gives;          /* streams now */
    uint64_t took_b, gave_b;        /* bytes of chunks since the start */
    uint64_t wire_in_b, wire_out_b; /* as they went over the wire */
    uint64_t streams, refused;      /* authenticated; cut before that */
};
void bulk_stats(struct bulk *b, struct bulk_stats *ret);
