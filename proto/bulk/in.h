/* Inside of proto/bulk: what bulk.c, listen.c, take.c and give.c share. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "proto/bulk/bulk.h"
#include "proto/bulk/conn.h"

enum {
    AUTH_MS = 5000,  /* from connect to a hello that was sealed with the ticket's key */
    AUTH_CONNS = 64, /* connections on the way there; the oldest goes */
    HELLO_WIRE = CONN_HEAD + FRAME_HELLO_LEN + AEAD_TAG,
    /* chunks in the memory of a taking end: so many has each stream; those that the second thread cannot keep up with take more
     * of what all share, until it can hash HASH_LANES at a time while as many come in */
    TAKE_ROOMS_OWN = 2,
    TAKE_ROOMS = 2 * HASH_LANES,
    ROOMS_SHARED = 24,
    GATHER_MS = 15, /* how long a chunk waits for others to be hashed with */
    EVENTS = BULK_WINDOW + 8,
    /* zstd's level where the processor is what takes time, and where the wire does: text logs 1.9 and 1.05 GB/s of a core,
     * packed 10:1 and 25:1 */
    PACK_FAST = -7,
    PACK_SMALL = 3,
};

enum stream_state {
    STREAM_WAITS, /* for the other end to call */
    STREAM_RUNS,  /* its thread does */
    STREAM_ENDED, /* its thread is about to return */
};

struct bulk_stream {
    struct bulk *bulk;        /* borrowed */
    struct bulk_stream *next; /* of bulk->streams */
    struct bulk_ticket ticket;
    uint64_t size_b;
    char *dial; /* owned; NULL = is called */
    void *ctx;
    bool takes;
    uint64_t expires_ms; /* STREAM_WAITS */
    struct conn conn;
    int wake_fd;                /* owned */
    struct pace_rate *in, *out; /* borrowed: of its class, or of all */
    atomic_bool stop;
    pthread_t thread;
    bool has_thread;
    _Atomic uint64_t moved_b;
    /* taking end */
    struct bulk_sink sink;
    /* giving end */
    int file_fd;   /* owned */
    uint8_t *have; /* owned, a bit a chunk, under lock; NULL = all are there */

    /* under bulk->lock */
    enum stream_state state;
    struct bulk_event events[EVENTS];
    size_t ev_first, ev_n;
    int end_r;
    char end_text[200];

    /* under lock: between the loop, and the two threads of a taking end */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct {
        uint64_t first, n;
    } wants[BULK_WINDOW];
    size_t n_wants;
    bool sync_asked, over;      /* over: nothing more will be queued for the second thread */
    uint8_t *rooms[TAKE_ROOMS]; /* of CID_CHUNK, owned */
    size_t n_rooms;
    uint8_t *free_rooms[TAKE_ROOMS]; /* some of them */
    size_t n_free;
    struct taken {
        uint8_t *p; /* a room */
        size_t n;
        uint64_t index;
        int r;
        struct err e;
    } taken
        [TAKE_ROOMS]; /* a ring: chunks that are written and wait for the second thread, or are in its hands */
    size_t taken_first, n_taken;
    bool more_come;  /* others were asked for that are not here yet */
    bool room_short; /* the first thread waits for the second */
    pthread_t verifier;
};

struct bulk_class {
    struct bulk_class *next;
    char *name; /* owned */
    struct pace_rate in, out;
};

struct bulk {
    int event_fd, listen_fd, wake_fd;
    uint16_t port;
    pthread_t listener;
    bool has_listener;
    atomic_bool stop;
    atomic_int rooms_left; /* of ROOMS_SHARED */
    struct pace_rate in, out;
    struct bulk_class *classes; /* the loop's */
    pthread_mutex_t lock;
    struct bulk_stream *streams; /* under lock, as are the counters */
    struct bulk_stats stats;
    uint64_t refused_told, told_ms;
};

/* bulk.c */
/* Any thread. */
void stream_event(struct bulk_stream *s, enum bulk_event_kind kind, uint64_t index, int r,
                  const char *text);
/* The last act of a stream's thread. */
void stream_ended(struct bulk_stream *s, int r, const char *text);
/* Give it its thread. bulk->lock is held. -errno. */
int stream_start(struct bulk_stream *s);
/* Dial, or go on with a connection that was called in; hello both ways. Its thread. */
int stream_hello(struct bulk_stream *s, struct frame_rx *rx, struct err *e);
/* Tell the other end why, as far as it can be told at once. */
void stream_bye(struct bulk_stream *s, const char *text);
/* A thread with all signals blocked: they belong to the loop. */
int thread_start(pthread_t *t, void *(*fn)(void *), void *arg);
void wake(int fd);

/* listen.c */
int listen_start(struct bulk *b, const char *ep, struct err *e);
void *listen_main(void *arg);

/* take.c, give.c: the threads */
void *take_main(void *arg);
void *give_main(void *arg);
