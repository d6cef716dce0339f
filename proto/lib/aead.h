/* Sealing of a stream of frames: libsodium's AEAD with the number of the frame as nonce. A key
 * seals one direction of one connection and is never used again. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AEAD_KEY = 32, AEAD_TAG = 16 };
enum aead_alg { AEAD_AES256GCM = 1, AEAD_XCHACHA20 = 2 };

struct aead {
    _Alignas(16) uint8_t opaque[512]; /* AES: the expanded key; XChaCha20: the key */
    enum aead_alg alg;
};

/* AES needs the instructions of the processor. */
bool aead_has(enum aead_alg alg);
/* alg must be here. Wipe with aead_clear(). */
void aead_init(struct aead *a, enum aead_alg alg, const uint8_t key[AEAD_KEY]);
void aead_clear(struct aead *a);
/* out: n + AEAD_TAG bytes, may be p. nonce: never twice under one key. */
void aead_seal(const struct aead *a, uint64_t nonce, const void *p, size_t n, void *out);
/* n: with the tag. out: n - AEAD_TAG bytes, may be p. 0, or -SF_EINTEGRITY and nothing of out counts. */
int aead_open(const struct aead *a, uint64_t nonce, const void *p, size_t n, void *out);
