/* The iteration order of the reference's hash tables: chained, one singly linked list through all
 * elements, bucket counts from a fixed list of primes. Victims, files and print order of the
 * reference depend on it; nothing else does.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"

/* Elements are numbered 1..cap by the caller; 0 is the head of the list. All arrays borrowed from
 * one pool. */
struct hashord {
    uint64_t *hash; /* cap + 1 */
    uint32_t *next; /* cap + 1; 0 = end; next[0] = first */
    uint32_t
        *bucket; /* hashord_buckets(cap): element before the bucket's first, HASHORD_NONE = empty */
    uint32_t n, n_buckets, limit;
};
#define HASHORD_NONE UINT32_MAX

/* Buckets that a table of cap elements may come to have. cap <= 12117689. */
uint32_t hashord_buckets(uint32_t cap);
/* Arrays must be set; the table is empty afterwards. */
void hashord_init(struct hashord *t);
void hashord_insert(struct hashord *t, uint32_t i, uint64_t hash); /* i not in the table */
void hashord_erase(struct hashord *t, uint32_t i);

/* Order in which n different hashes, inserted in turn, come out: indices into ret_order. 0 or
 * -ENOMEM. */
int hashord_order(const uint64_t *hash, uint32_t n, uint32_t *ret_order);
