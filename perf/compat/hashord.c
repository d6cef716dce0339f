#include "perf/compat/hashord.h"

#include <stdlib.h>

#include "proto/base/clean.h"

static const uint32_t primes[] = { 13,     29,     59,      127,     257,     541,     1109,
                                   2357,   5087,   10273,   20753,   42043,   85229,   172933,
                                   351061, 712697, 1447153, 2938679, 5967347, 12117689 };

uint32_t hashord_buckets(uint32_t cap)
{
    for (size_t i = 0; i < ARRAY_LEN(primes); i++)
        if (primes[i] >= cap)
            return primes[i];
    return primes[ARRAY_LEN(primes) - 1];
}

void hashord_init(struct hashord *t)
{
    t->n = 0;
    t->n_buckets = 1;
    t->limit = 0;
    t->next[0] = 0;
    t->bucket[0] = HASHORD_NONE;
}

static inline uint32_t bucket_of(const struct hashord *t, uint32_t i)
{
    return (uint32_t)(t->hash[i] % t->n_buckets);
}

static void link_in(struct hashord *t, uint32_t i)
{
    uint32_t b = bucket_of(t, i);
    if (t->bucket[b] == HASHORD_NONE) {
        uint32_t front = t->next[0];
        t->next[i] = front;
        t->next[0] = i;
        if (front)
            t->bucket[bucket_of(t, front)] = i;
        t->bucket[b] = 0;
    } else {
        uint32_t before = t->bucket[b];
        t->next[i] = t->next[before];
        t->next[before] = i;
    }
}

static void grow(struct hashord *t)
{
    uint32_t b = primes[ARRAY_LEN(primes) - 1];
    for (size_t i = 0; i < ARRAY_LEN(primes); i++)
        if (primes[i] > t->limit && primes[i] >= 2ull * t->limit) {
            b = primes[i];
            break;
        }
    t->n_buckets = t->limit = b;
    for (uint32_t k = 0; k < b; k++)
        t->bucket[k] = HASHORD_NONE;
    uint32_t i = t->next[0];
    t->next[0] = 0;
    while (i) {
        uint32_t next = t->next[i];
        link_in(t, i);
        i = next;
    }
}

void hashord_insert(struct hashord *t, uint32_t i, uint64_t hash)
{
    t->hash[i] = hash;
    if (t->n + 1 > t->limit)
        grow(t);
    link_in(t, i);
    t->n++;
}

void hashord_erase(struct hashord *t, uint32_t i)
{
    uint32_t b = bucket_of(t, i);
    uint32_t before = t->bucket[b];
    while (t->next[before] != i)
        before = t->next[before];
    uint32_t after = t->next[i];
    uint32_t after_b = after ? bucket_of(t, after) : HASHORD_NONE;
    if (before == t->bucket[b]) {
        if (after_b != b) {
            if (after)
                t->bucket[after_b] = before;
            t->bucket[b] = HASHORD_NONE;
        }
    } else if (after && after_b != b) {
        t->bucket[after_b] = before;
    }
    t->next[before] = after;
    t->n--;
}

int hashord_order(const uint64_t *hash, uint32_t n, uint32_t *ret_order)
{
    CLEANUP(freep) uint64_t *h = malloc(((size_t)n + 1) * sizeof(*h));
    CLEANUP(freep) uint32_t *next = malloc(((size_t)n + 1) * sizeof(*next));
    CLEANUP(freep) uint32_t *bucket = malloc((size_t)hashord_buckets(n) * sizeof(*bucket));
    if (!h || !next || !bucket)
        return -ENOMEM;
    struct hashord t = { .hash = h, .next = next, .bucket = bucket };
    hashord_init(&t);
    for (uint32_t i = 0; i < n; i++)
        hashord_insert(&t, i + 1, hash[i]);
    size_t k = 0;
    for (uint32_t i = next[0]; i; i = next[i])
        ret_order[k++] = i - 1;
    return 0;
}
