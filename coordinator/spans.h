/* A set of point numbers as sorted, disjoint, non-touching ranges: 10^9 points that wait cost one
 * range. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
    uint64_t lo, hi; /* lo <= i < hi, never empty */
};

struct spans {
    struct span *v;   /* owned */
    uint32_t n, room; /* ranges */
    uint64_t total;   /* numbers in the set */
};

void spans_clear(struct spans *s);
/* Add lo..hi-1; what is in the set already stays. Returns 0 or -ENOMEM (the set is as before).
 * O(ranges). */
int spans_add(struct spans *s, uint64_t lo, uint64_t hi);
int spans_add_all(struct spans *s, const struct spans *more);
/* Remove lo..hi-1. Returns how many were in the set (>= 0), or -ENOMEM. */
int64_t spans_del(struct spans *s, uint64_t lo, uint64_t hi);
bool spans_has(const struct spans *s, uint64_t i);
/* Move the upper half of the set to *upper (empty before). */
int spans_halve(struct spans *s, struct spans *upper);
bool spans_ok(const struct spans *s); /* the invariant above */
