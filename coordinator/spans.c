#include "coordinator/spans.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void spans_clear(struct spans *s)
{
    free(s->v);
    *s = (struct spans){ 0 };
}

/* Number of the first range whose end is above i. */
static size_t above(const struct spans *s, uint64_t i)
{
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->v[mid].hi > i)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static int room_for(struct spans *s, size_t n)
{
    if (n <= s->room)
        return 0;
    size_t room = s->room ? (size_t)s->room * 2 : 2;
    while (room < n)
        room *= 2;
    if (room > UINT32_MAX)
        return -ENOMEM;
    struct span *v = realloc(s->v, room * sizeof(*v));
    if (!v)
        return -ENOMEM;
    s->v = v;
    s->room = (uint32_t)room;
    return 0;
}

int spans_add(struct spans *s, uint64_t lo, uint64_t hi)
{
    if (lo >= hi)
        return 0;
    int r = room_for(s, s->n + 1);
    if (r < 0)
        return r;
    /* first range that touches or lies above lo */
    size_t a = lo ? above(s, lo - 1) : 0;
    size_t b = a;
    uint64_t gone = 0;
    struct span merged = { lo, hi };
    while (b < s->n && s->v[b].lo <= hi) {
        gone += s->v[b].hi - s->v[b].lo;
        if (s->v[b].lo < merged.lo)
            merged.lo = s->v[b].lo;
        if (s->v[b].hi > merged.hi)
            merged.hi = s->v[b].hi;
        b++;
    }
    memmove(&s->v[a + 1], &s->v[b], (s->n - b) * sizeof(*s->v));
    s->v[a] = merged;
    s->n = (uint32_t)(s->n - (b - a) + 1);
    s->total += merged.hi - merged.lo - gone;
    return 0;
}

int spans_add_all(struct spans *s, const struct spans *more)
{
    for (size_t i = 0; i < more->n; i++) {
        int r = spans_add(s, more->v[i].lo, more->v[i].hi);
        if (r < 0)
            return r;
    }
    return 0;
}

int64_t spans_del(struct spans *s, uint64_t lo, uint64_t hi)
{
    if (lo >= hi)
        return 0;
    size_t a = above(s, lo);
    if (a == s->n || s->v[a].lo >= hi)
        return 0;
    if (s->v[a].lo < lo && s->v[a].hi > hi) { /* a hole in one range */
        int r = room_for(s, s->n + 1);
        if (r < 0)
            return r;
        memmove(&s->v[a + 1], &s->v[a], (s->n - a) * sizeof(*s->v));
        s->n++;
        s->v[a].hi = lo;
        s->v[a + 1].lo = hi;
        s->total -= hi - lo;
        return (int64_t)(hi - lo);
    }
    uint64_t gone = 0;
    if (s->v[a].lo < lo) {
        gone += s->v[a].hi - lo;
        s->v[a].hi = lo;
        a++;
    }
    size_t b = a;
    while (b < s->n && s->v[b].hi <= hi) {
        gone += s->v[b].hi - s->v[b].lo;
        b++;
    }
    if (b < s->n && s->v[b].lo < hi) {
        gone += hi - s->v[b].lo;
        s->v[b].lo = hi;
    }
    memmove(&s->v[a], &s->v[b], (s->n - b) * sizeof(*s->v));
    s->n -= (uint32_t)(b - a);
    s->total -= gone;
    return (int64_t)gone;
}

bool spans_has(const struct spans *s, uint64_t i)
{
    size_t a = above(s, i);
    return a < s->n && s->v[a].lo <= i;
}

int spans_halve(struct spans *s, struct spans *upper)
{
    uint64_t keep = s->total - s->total / 2;
    size_t a = 0;
    while (a < s->n && s->v[a].hi - s->v[a].lo <= keep) {
        keep -= s->v[a].hi - s->v[a].lo;
        a++;
    }
    if (a == s->n)
        return 0;
    uint64_t cut = s->v[a].lo + keep, end = s->v[s->n - 1].hi;
    for (size_t i = a; i < s->n; i++) {
        int r = spans_add(upper, i == a ? cut : s->v[i].lo, s->v[i].hi);
        if (r < 0) {
            spans_clear(upper);
            return r;
        }
    }
    int64_t n = spans_del(s, cut, end);
    return n < 0 ? (int)n : 0;
}

bool spans_ok(const struct spans *s)
{
    uint64_t total = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].lo >= s->v[i].hi || (i && s->v[i - 1].hi >= s->v[i].lo))
            return false;
        total += s->v[i].hi - s->v[i].lo;
    }
    return total == s->total;
}
