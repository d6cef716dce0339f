/* The file beside a put that is not whole: size, chunk hashes and which chunks are there.
 *
 *     "SFM1"  u32le 0  u64le size  n x 32 bytes of hashes  ceil(n / 8) bytes, bit i % 8 of byte i / 8 = chunk i is there
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/lib/hash.h"

struct cas_map {
    uint64_t size_b, n;
    struct id *hashes; /* owned, n */
    uint8_t *bits;     /* owned, ceil(n / 8) */
};

/* hashes: as many as size_b has chunks, copied. No bit set. -ENOMEM. */
int cas_map_init(struct cas_map *m, uint64_t size_b, const struct id hashes[]);
void cas_map_clear(struct cas_map *m);

size_t cas_map_size(uint64_t n); /* bytes of the file */
int cas_map_pack(const struct cas_map *m, struct buf *out);
/* Any bytes. -SF_EFORMAT. Allocates less than len. */
int cas_map_parse(const void *p, size_t len, struct cas_map *ret, struct err *e);

bool cas_map_get(const struct cas_map *m, uint64_t i);
void cas_map_set(struct cas_map *m, uint64_t i);
/* Where the byte of the file stands that holds bit i. */
off_t cas_map_off(const struct cas_map *m, uint64_t i);
