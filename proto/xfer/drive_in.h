/* Inside of drive.c, drive_take.c, drive_give.c and drive_bulk.c. */
#pragma once
#include "proto/bulk/bulk.h"
#include "proto/lib/zio.h"
#include "proto/xfer/drive.h"
#include "proto/xfer/xfer.h"

enum { OTHERS_MAX = 16 };

/* Coming in. */
struct in {
    struct in *next;
    uint64_t peer;
    bool offered;   /* by the peer, which waits for put_have */
    bool suspended; /* until xfers_up() */
    bool told;      /* the peer ended it: it needs no xfer_fail */
    bool dead;
    bool checking; /* put_check() has not returned 1 yet */
    struct xfer_recv m;
    void *put;
    char kind[32], name[256];
    /* bulk */
    struct flow *flow; /* that carries its chunks; while it is there, put belongs to its threads */
    enum {
        BULK_NOT,
        BULK_WANTED
    } bulk; /* WANTED: chunks are not asked for over the link meanwhile */
    uint64_t bulk_ask_ms, bulk_until_ms; /* WANTED: when to ask again, and when to do without */
    unsigned bulk_broken;
    uint64_t bulk_chunks; /* that came so */
    bool committing;      /* whole; the flow ends first */
    bool commit_due;      /* whole; the next tick commits it, with others */
    bool bulk_damaged;    /* the last connection brought bytes that were none of it */
    struct {
        uint64_t peer, req;
    } others[OTHERS_MAX]; /* who offer the same: told at once when it is whole */
    size_t n_others;
};

/* Offered by us. */
struct offer {
    struct offer *next;
    uint64_t peer, req, size_b, sent_ms;
    struct id id;
    unsigned tries;
    bool suspended, dead;
    char kind[32], name[256];
};

/* Going out: what a peer has asked for. */
struct sender {
    struct sender *next;
    uint64_t peer, used_ms;
    struct xfer_send s;
    struct id *hashes;
    struct zio_worth worth;
    bool dead;
};

/* A bulk stream of ours, until its BULK_END. */
struct flow {
    struct flow *next;
    struct bulk_stream *stream;
    uint64_t peer, req;
    struct id id;
    bool takes, up;
    bool dialled, home;       /* by us; at the coordinator */
    uint64_t chunks;          /* that came */
    struct in *in;            /* takes: whose chunks these are; NULL = it ended */
    void *put;                /* what it leaves when in has ended: closed with the flow */
    uint64_t size_b, moved_b; /* as seen last */
    bool some;                /* gives what still comes in here */
    uint64_t mark_b, mark_ms; /* takes from another agent: when it was that far */
};

struct xfers {
    struct xfer_store store;
    struct xfers_ops ops;
    uint64_t max_b;
    struct in *ins;
    struct offer *offers;
    struct sender *senders;
    size_t n_ins, n_offers, n_senders;
    unsigned depth; /* of public calls: the dead are buried when the outermost ends */
    /* the chunk that is being sent, kept while a queue is full */
    uint8_t *raw, *packed; /* CID_CHUNK; zio_bound() */
    struct id chunk_id;
    uint64_t chunk_index;
    size_t raw_len, packed_len; /* packed_len 0 = does not pay; raw_len 0 = nothing kept */
    bool full;                  /* some queue was, at the last pump() */
    uint64_t full_ms;           /* when that was */
    struct xfers_bulk bulk;     /* bulk.bulk NULL = none here */
    char *host;                 /* bulk.host, owned */
    struct flow *flows;
    uint64_t bulk_off_ms; /* none is tried before */
    bool ticks;           /* put_have waits for ops.settle at the end of the tick */
    struct have {
        uint64_t peer, req;
        struct id id;
    } * haves; /* owned */
    size_t n_haves, room_haves;
};

/* drive.c */
int xfers_send(struct xfers *x, uint64_t peer, const struct msg *m);
void xfers_send_fail(struct xfers *x, uint64_t peer, uint64_t req, const struct id *id, int code,
                     const char *text);
/* Whoever owns it hears of an end: what ops.ended says, 0 without one. */
int xfers_tell_end(struct xfers *x, const struct xfers_end *end, struct err *e);
/* The last act of a public call: the dead go, unless it was called from another one. */
void xfers_bury(struct xfers *x);

/* drive_take.c */
struct in *xfers_find_in(struct xfers *x, const struct id *id);
/* A step of its machine and everything that follows from it. */
void xfers_in_step(struct xfers *x, struct in *in, const struct xfer_event *ev, uint64_t now_ms);
/* Its artefact is whole and nobody else holds its put: make it durable. */
void xfers_in_commit(struct xfers *x, struct in *in, uint64_t now_ms);
/* Commit what is due, as many at a time as fit. */
void xfers_commit_due(struct xfers *x, uint64_t now_ms);
/* What the haves acknowledge is durable, or their puts fail. */
void xfers_settle(struct xfers *x);
/* Its put is open (r < 0: is not, as e says). What an interrupted one left is looked at, a piece in each call, since it may be
 * gigabytes; then what is missing is asked for. */
void xfers_in_check(struct xfers *x, struct in *in, int r, struct err *e, uint64_t now_ms);
/* It has ended: code 0 = whole, else why not. */
void xfers_in_end(struct xfers *x, struct in *in, int code, const char *text);
void xfers_put_offered(struct xfers *x, uint64_t peer, const struct msg_put_offer *o,
                       uint64_t now_ms);

/* drive_give.c */
struct sender *xfers_find_sender(struct xfers *x, uint64_t peer, const struct id *id);
/* A peer asks for hashes or chunks. */
void xfers_asked(struct xfers *x, uint64_t peer, const struct msg_get *g, uint64_t now_ms);
/* Send what is owed, a little of each. A peer whose queue is full is left alone until the next time, and so is a budget of chunks:
 * each is read and packed here. Returns true when more could be sent at once. */
bool xfers_pump(struct xfers *x, uint64_t now_ms);
void xfers_send_offer(struct xfers *x, struct offer *o, uint64_t now_ms);
/* It has ended: code 0 = the peer has it, else why not. */
void xfers_offer_end(struct xfers *x, struct offer *o, int code, const char *text);

/* drive_bulk.c */
/* Its put is open: chunks may come by bulk. True = then ask for none over the link. */
void xfers_bulk_begin(struct xfers *x, struct in *in, uint64_t now_ms);
/* A question for chunks: true = the flow asks, or it is not asked yet. */
bool xfers_bulk_get(struct xfers *x, struct in *in, const struct msg_get *g);
/* It is whole: true = xfers_in_commit() comes later. */
bool xfers_bulk_commit(struct xfers *x, struct in *in);
/* in has ended; its put, if the flow still uses it, goes with the flow. */
void xfers_bulk_let_go(struct xfers *x, struct in *in);
/* Whether the threads of an ended transfer still hold a put of it. */
bool xfers_bulk_holds(const struct xfers *x, const struct id *id);
/* A chunk of it has come, or no more will: for whoever is given it meanwhile. */
void xfers_bulk_here(struct xfers *x, const struct id *id, uint64_t index);
void xfers_bulk_no_more(struct xfers *x, const struct id *id);
/* A message of the three kinds. */
void xfers_bulk_msg(struct xfers *x, uint64_t peer, const struct msg *m, uint64_t now_ms);
/* Events of the threads and what is due. */
void xfers_bulk_tick(struct xfers *x, uint64_t now_ms, int64_t *wait_ms);
void xfers_bulk_gone(struct xfers *x, uint64_t peer);
/* Ends all flows and waits for them. */
void xfers_bulk_clear(struct xfers *x);
