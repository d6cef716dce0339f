#include "proto/lib/aead.h"

#include <sodium.h>
#include <string.h>

#include "proto/base/err.h"

_Static_assert(sizeof(crypto_aead_aes256gcm_state) <= sizeof(((struct aead *)0)->opaque),
               "aead too small");

bool aead_has(enum aead_alg alg)
{
    return alg == AEAD_XCHACHA20 || (alg == AEAD_AES256GCM && crypto_aead_aes256gcm_is_available());
}

void aead_init(struct aead *a, enum aead_alg alg, const uint8_t key[AEAD_KEY])
{
    a->alg = alg;
    if (alg == AEAD_AES256GCM)
        crypto_aead_aes256gcm_beforenm((crypto_aead_aes256gcm_state *)(void *)a->opaque, key);
    else
        memcpy(a->opaque, key, AEAD_KEY);
}

void aead_clear(struct aead *a)
{
    sodium_memzero(a, sizeof(*a));
}

/* The number in the first bytes, little endian; 12 of them count for AES, 24 for XChaCha20. */
static void nonce_of(uint64_t n, uint8_t out[24])
{
    memset(out, 0, 24);
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(n >> (8 * i));
}

void aead_seal(const struct aead *a, uint64_t nonce, const void *p, size_t n, void *out)
{
    uint8_t no[24];
    nonce_of(nonce, no);
    if (a->alg == AEAD_AES256GCM)
        crypto_aead_aes256gcm_encrypt_afternm(
            out, NULL, p, n, NULL, 0, NULL, no,
            (const crypto_aead_aes256gcm_state *)(const void *)a->opaque);
    else
        crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, p, n, NULL, 0, NULL, no, a->opaque);
}

int aead_open(const struct aead *a, uint64_t nonce, const void *p, size_t n, void *out)
{
    uint8_t no[24];
    int r;
    if (n < AEAD_TAG)
        return -SF_EINTEGRITY;
    nonce_of(nonce, no);
    if (a->alg == AEAD_AES256GCM)
        r = crypto_aead_aes256gcm_decrypt_afternm(
            out, NULL, NULL, p, n, NULL, 0, no,
            (const crypto_aead_aes256gcm_state *)(const void *)a->opaque);
    else
        r = crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, p, n, NULL, 0, no,
                                                       a->opaque);
    return r ? -SF_EINTEGRITY : 0;
}
