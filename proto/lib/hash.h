/* Names by content: BLAKE2b-256 (libsodium), the form in which logs, traces, recipes and points are
 * named. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"

#define ID_LEN 32
#define ID_HEX_LEN 65 /* with the final 0 */
#define CID_CHUNK (1u << 20)

struct id {
    uint8_t b[ID_LEN];
};

/* BLAKE2b-256 of n bytes. */
void hash_bytes(const void *p, size_t n, struct id *ret);
/* The same of count messages, p[i] of n[i] bytes. Up to HASH_LANES that follow each other and are of equal length, to the next 128
 * bytes, are hashed at a time: the more, the cheaper each (blake.h). */
enum { HASH_LANES = 8 };
void hash_many(const void *const p[], const size_t n[], size_t count, struct id ret[]);
/* Of n (at most HASH_LANES) chunks of a file of size_b bytes, from chunk `from` on. block: room for n chunks; holds their bytes then.
 * Returns how many are there whole (fewer: the file is shorter than size_b), or -errno. */
ssize_t hash_chunks(int fd, uint64_t size_b, uint64_t from, size_t n, uint8_t *block,
                    struct id ret[]);

/* Streaming BLAKE2b-256. */
struct hasher {
    _Alignas(64) uint8_t opaque[384];
};
void hasher_init(struct hasher *h);
void hasher_add(struct hasher *h, const void *p, size_t n);
void hasher_end(struct hasher *h, struct id *ret);

/* Content id of a byte stream: BLAKE2b-256("siofleet-1" || u64le size || d0 || d1 ...), di =
 * BLAKE2b-256 of the i-th 1 MiB chunk. cid_of_chunks() makes it from known chunk hashes; size 0 has
 * no chunk. */
struct cid;
struct cid *cid_new(void);
void cid_add(struct cid *c, const void *p, size_t n);
void cid_end(struct cid *c, struct id *ret, uint64_t *ret_size); /* ret_size may be NULL */
void cid_free(struct cid **c);
void cid_of_chunks(uint64_t size, const struct id chunks[], size_t n, struct id *ret);
void cid_bytes(const void *p, size_t n, struct id *ret);
int cid_file(const char *path, struct id *ret, uint64_t *ret_size, struct err *e);

void id_hex(const struct id *id, char out[ID_HEX_LEN]);
/* Exactly 64 lower-case hex digits. Returns 0 or -SF_EUSAGE. */
int id_parse(const char *s, struct id *ret, struct err *e);
bool id_eq(const struct id *a, const struct id *b);
int id_cmp(const struct id *a, const struct id *b);

/* XXH3-64: finds damage in frames of our own files, never names anything. */
uint64_t hash_fast(const void *p, size_t n, uint64_t seed);

/* Cryptographically random bytes. */
void random_bytes(void *p, size_t n);
