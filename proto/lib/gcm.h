/* AES-256-GCM of libIPSec_MB, where the host has that library and a processor with vector AES: three times as fast as
 * libcrypto 3.0, which works on one block at a time. Inside of aead.c, which has libcrypto for all others. It is looked for when
 * first wanted and not linked: a release is not to carry its 12.8 MB to each host. No associated data, nonces of 12 bytes.
 *
 * GB/s of a core (128 KiB in its cache): 10, libcrypto 3.0 3.0. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GCM_KEY = 32, GCM_NONCE = 12, GCM_TAG = 16 };

struct
    gcm_key_data; /* libIPSec_MB's, expanded: secret. Read only once it is made, so any number of threads may use it. */

/* Whether library (of the version built with) and processor can; SIOFLEET_ISA=scalar or avx2 says no. Any thread. */
bool gcm_has(void);
/* Only where gcm_has(). NULL: no memory. End it with gcm_free(), which wipes it. */
struct gcm_key_data *gcm_new(const uint8_t key[GCM_KEY]);
void gcm_free(struct gcm_key_data **k);
/* n (below 2 GiB) bytes at p to out, which is p itself or apart from it. tag: where GCM_TAG bytes go. */
void gcm_seal(const struct gcm_key_data *k, const uint8_t nonce[GCM_NONCE], const uint8_t *p,
              size_t n, uint8_t *out, uint8_t *tag);
/* The same back. tag: where the tag goes that they should have had; when it is another one nothing of out counts. */
void gcm_open(const struct gcm_key_data *k, const uint8_t nonce[GCM_NONCE], const uint8_t *p,
              size_t n, uint8_t *out, uint8_t *tag);
