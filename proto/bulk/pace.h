/* How fast a bulk connection may send, so that nothing else waits behind it: a rate that is shared
 * by all streams of the process, and a bound on the bytes that stand in queues on the way. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* One rate, one direction. Any thread; rate_b may change at any time. */
struct pace_rate {
    pthread_mutex_t lock;
    _Atomic uint64_t rate_b; /* a second; 0 = no limit */
    uint64_t free_ns;        /* monotonic: when all that was taken so far has passed */
    struct pace_rate *above; /* borrowed: what passes here passes there, too; NULL = nothing */
};

/* n bytes will pass: returns how long to wait before the next ones may (ns). Whoever takes pieces of one size and waits so
 * long behind each has an even share. */
uint64_t pace_rate_take(struct pace_rate *r, size_t n, uint64_t now_ns);
/* The most bytes to move in one piece under this rate, at most most. */
size_t pace_rate_piece(const struct pace_rate *r, size_t most);

enum { PACE_QUEUE_MS = 20, PACE_MIN_B = 32 << 10, PACE_LOOK_NS = 5 * 1000 * 1000 };

/* Bytes of one socket that may be on the way, sent or not: its rate times its round trip on an empty
 * path and PACE_QUEUE_MS more. What TCP itself would add to that only stands in the queue of the
 * slowest hop, in front of heartbeats.
 *
 * Why not a congestion control that minds the queue (bbr, vegas): they are modules that many hosts
 * do not have, and choosing one needs rights. */
struct pace {
    uint64_t limit_b, rate_b, look_ns;
};

void pace_init(struct pace *p);
/* How many of n bytes may be written to fd now; 0 = *ret_wait_ns first. */
size_t pace_room(struct pace *p, int fd, size_t n, uint64_t now_ns, uint64_t *ret_wait_ns);
