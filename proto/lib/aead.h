/* Sealing of a stream of frames: AEAD with the number of the frame as nonce. A key seals one
 * direction of one connection and is never used again.
 *
 * AES-256-GCM is libIPSec_MB's where the host has it and vector AES (gcm.h: three times as fast as the next), else libcrypto's:
 * 2.4 times as fast as libsodium's on the same core, and there anyway (libssh2). XChaCha20-Poly1305, for machines without AES
 * instructions, is libsodium's. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gcm_key_data;

enum { AEAD_KEY = 32, AEAD_TAG = 16 };
enum aead_alg { AEAD_AES256GCM = 1, AEAD_XCHACHA20 = 2 };

struct aead {
    enum aead_alg alg;
    struct gcm_key_data *gcm; /* AES, owned; NULL: by ctx */
    void *ctx;                /* libcrypto's, owned */
    uint8_t key[AEAD_KEY];    /* XChaCha20 */
};

/* AES needs the instructions of the processor. */
bool aead_has(enum aead_alg alg);
/* alg must be here. 0 or -ENOMEM. End it with aead_clear(), which wipes it; a zeroed one may be cleared, too. */
int aead_init(struct aead *a, enum aead_alg alg, const uint8_t key[AEAD_KEY]);
void aead_clear(struct aead *a);
/* One thread at a time. out: n + AEAD_TAG bytes, p itself or none of it. nonce: never twice under one key. n: below 2 GiB. */
void aead_seal(struct aead *a, uint64_t nonce, const void *p, size_t n, void *out);
/* n: with the tag. out: n - AEAD_TAG bytes, as above. 0, or -SF_EINTEGRITY and nothing of out counts. */
int aead_open(struct aead *a, uint64_t nonce, const void *p, size_t n, void *out);
