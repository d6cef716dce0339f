/* Round trips: how long what was sent last took until it was answered. Of the last TRIPS_KEPT answers; more than TRIPS_OPEN
 * that wait at once are not all measured (the oldest is forgotten). No clock of its own, no allocation; one thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { TRIPS_KEPT = 128, TRIPS_OPEN = 16 };

/* Names what was sent; 0 where there is nothing to say. */
struct trip_key {
    uint64_t task, epoch, n, seq;
};

struct trips {
    uint32_t us[TRIPS_KEPT]; /* a ring */
    size_t n, at;
    struct {
        struct trip_key key;
        uint64_t sent_ns;
    } open[TRIPS_OPEN]; /* oldest first */
    size_t n_open;
};

struct trips_sum {
    uint64_t n; /* answers looked at; 0 = none, and the others are 0 */
    uint64_t p50_us, p99_us, max_us;
};

/* Sent at now_ns, monotonic. Sent once more before its answer: the first time counts. */
void trips_sent(struct trips *t, const struct trip_key *key, uint64_t now_ns);
/* Nothing when it was not sent, or forgotten. */
void trips_answered(struct trips *t, const struct trip_key *key, uint64_t now_ns);
/* The connection is gone: what waits is answered over another one, or never. */
void trips_forget(struct trips *t);
/* O(n log n) of TRIPS_KEPT. */
void trips_sum(const struct trips *t, struct trips_sum *ret);
