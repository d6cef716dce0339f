#include "proto/lib/aead.h"

#include <errno.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/err.h"
#include "proto/lib/gcm.h"

bool aead_has(enum aead_alg alg)
{
    return alg == AEAD_XCHACHA20 || (alg == AEAD_AES256GCM && crypto_aead_aes256gcm_is_available());
}

int aead_init(struct aead *a, enum aead_alg alg, const uint8_t key[AEAD_KEY])
{
    *a = (struct aead){ .alg = alg };
    if (alg != AEAD_AES256GCM) {
        memcpy(a->key, key, AEAD_KEY);
        return 0;
    }
    if (gcm_has())
        return (a->gcm = gcm_new(key)) ? 0 : -ENOMEM;
    a->ctx = EVP_CIPHER_CTX_new();
    if (a->ctx && EVP_EncryptInit_ex(a->ctx, EVP_aes_256_gcm(), NULL, key, NULL) == 1)
        return 0;
    aead_clear(a);
    return -ENOMEM;
}

void aead_clear(struct aead *a)
{
    gcm_free(&a->gcm);
    EVP_CIPHER_CTX_free(a->ctx);
    sodium_memzero(a, sizeof(*a));
}

/* The number in the first bytes, little endian; 12 of them count for AES, 24 for XChaCha20. */
static void nonce_of(uint64_t n, uint8_t out[24])
{
    memset(out, 0, 24);
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(n >> (8 * i));
}

void aead_seal(struct aead *a, uint64_t nonce, const void *p, size_t n, void *out)
{
    uint8_t no[24];
    int got;
    nonce_of(nonce, no);
    if (a->alg != AEAD_AES256GCM) {
        crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, p, n, NULL, 0, NULL, no, a->key);
        return;
    }
    uint8_t *end = (uint8_t *)out + n;
    if (a->gcm) {
        gcm_seal(a->gcm, no, p, n, out, end);
        return;
    }
    if (EVP_EncryptInit_ex(a->ctx, NULL, NULL, NULL, no) != 1 ||
        EVP_EncryptUpdate(a->ctx, out, &got, p, (int)n) != 1 ||
        EVP_EncryptFinal_ex(a->ctx, end, &got) != 1 ||
        EVP_CIPHER_CTX_ctrl(a->ctx, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, end) != 1)
        abort(); /* it cannot fail once the key is set; what is not sealed may not leave */
}

int aead_open(struct aead *a, uint64_t nonce, const void *p, size_t n, void *out)
{
    uint8_t no[24];
    int got;
    if (n < AEAD_TAG)
        return -SF_EINTEGRITY;
    nonce_of(nonce, no);
    if (a->alg != AEAD_AES256GCM)
        return crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, p, n, NULL, 0, no,
                                                          a->key)
                   ? -SF_EINTEGRITY
                   : 0;
    n -= AEAD_TAG;
    uint8_t tag[AEAD_TAG], right[AEAD_TAG];
    memcpy(tag, (const uint8_t *)p + n, AEAD_TAG);
    if (a->gcm) {
        gcm_open(a->gcm, no, p, n, out, right);
        return sodium_memcmp(tag, right, AEAD_TAG) ? -SF_EINTEGRITY : 0;
    }
    bool ok = EVP_DecryptInit_ex(a->ctx, NULL, NULL, NULL, no) == 1 &&
              EVP_DecryptUpdate(a->ctx, out, &got, p, (int)n) == 1 &&
              EVP_CIPHER_CTX_ctrl(a->ctx, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, tag) == 1 &&
              EVP_DecryptFinal_ex(a->ctx, (uint8_t *)out + n, &got) == 1;
    return ok ? 0 : -SF_EINTEGRITY;
}
