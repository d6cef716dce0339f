/* AES-256-GCM with vector AES (VAES, VPCLMULQDQ, AVX-512): four blocks an instruction. Inside of aead.c, which has libcrypto for
 * other processors: libcrypto 3.0 works on one block at a time. No associated data, nonces of 12 bytes. No branch and no
 * address depends on key or bytes.
 *
 * GB/s of a core (128 KiB in its cache): 8 to 10, libcrypto 3.0 3.0. Debian's libIPSec_MB does 10, but is 12.8 MB to carry to each host. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GCM_KEY = 32, GCM_NONCE = 12, GCM_TAG = 16 };

/* An expanded key: secret, to be wiped. Read only once it is made, so any number of threads may use it. */
struct gcm {
    uint8_t round[15][16];
    uint8_t power[16][16]; /* of the hash key: [0] = 16th, [15] = first */
};

/* Whether this processor can; SIOFLEET_ISA=scalar or avx2 says no. Nothing else here may be called where it cannot. */
bool gcm_has(void);
void gcm_init(struct gcm *g, const uint8_t key[GCM_KEY]);
/* n (below 2 GiB) bytes at p to out, which is p itself or apart from it. tag: GCM_TAG bytes.
 * Source   NIST SP 800-38D; the reduction: Gueron, Kounavis, Intel's white paper on carry-less multiplication. */
void gcm_seal(const struct gcm *g, const uint8_t nonce[GCM_NONCE], const uint8_t *p, size_t n,
              uint8_t *out, uint8_t *tag);
/* False when the tag is not theirs: then nothing of out counts. */
bool gcm_open(const struct gcm *g, const uint8_t nonce[GCM_NONCE], const uint8_t *p, size_t n,
              uint8_t *out, const uint8_t *tag);
