#include "proto/base/trips.h"

#include <stdlib.h>
#include <string.h>

static size_t find(const struct trips *t, const struct trip_key *key)
{
    size_t i = 0;
    while (i < t->n_open && memcmp(&t->open[i].key, key, sizeof(*key)) != 0)
        i++;
    return i;
}

static void drop(struct trips *t, size_t i)
{
    t->n_open--;
    memmove(t->open + i, t->open + i + 1, (t->n_open - i) * sizeof(*t->open));
}

void trips_sent(struct trips *t, const struct trip_key *key, uint64_t now_ns)
{
    if (find(t, key) < t->n_open)
        return;
    if (t->n_open == TRIPS_OPEN)
        drop(t, 0);
    t->open[t->n_open].key = *key;
    t->open[t->n_open++].sent_ns = now_ns;
}

void trips_answered(struct trips *t, const struct trip_key *key, uint64_t now_ns)
{
    size_t i = find(t, key);
    if (i == t->n_open)
        return;
    uint64_t us = (now_ns - t->open[i].sent_ns) / 1000;
    drop(t, i);
    t->us[t->at] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    t->at = (t->at + 1) % TRIPS_KEPT;
    t->n += t->n < TRIPS_KEPT;
}

void trips_forget(struct trips *t)
{
    t->n_open = 0;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void trips_sum(const struct trips *t, struct trips_sum *ret)
{
    uint32_t v[TRIPS_KEPT];
    *ret = (struct trips_sum){ .n = t->n };
    if (!t->n)
        return;
    memcpy(v, t->us, t->n * sizeof(*v));
    qsort(v, t->n, sizeof(*v), by_size);
    ret->p50_us = v[t->n / 2];
    ret->p99_us = v[t->n * 99 / 100];
    ret->max_us = v[t->n - 1];
}
