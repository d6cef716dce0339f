/* Helper of bulk.py; JSON on stdout.
 *
 *     bulk_probe machine                 what a core does: BLAKE2b, AES-256-GCM and XChaCha20-Poly1305 in GB/s
 *     bulk_probe unchanged FILE N        offers FILE, which is at the coordinator, N times: ms until it says that it has it, and the
 *                                        bytes of payload that went (SIOFLEET_CONNECT ... as for every verb)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clock.h"
#include "proto/client/client.h"
#include "proto/lib/aead.h"

enum { BLOCK = 128 << 10, SPAN_NS = 300000000 };

static uint8_t block[BLOCK + AEAD_TAG];

static uint8_t many[HASH_LANES][CID_CHUNK];

static double gbps(void (*fn)(void), size_t bytes)
{
    uint64_t t0 = clock_mono_ns(), n = 0, t;
    do {
        fn();
        n++;
        t = clock_mono_ns() - t0;
    } while (t < SPAN_NS);
    return (double)n * (double)bytes / (double)t;
}

static struct aead aes, chacha;

static void do_hash(void)
{
    struct id id;
    hash_bytes(block, BLOCK, &id);
}

static void do_many(void)
{
    const void *p[HASH_LANES];
    size_t n[HASH_LANES];
    struct id id[HASH_LANES];
    for (size_t i = 0; i < HASH_LANES; i++) {
        p[i] = many[i];
        n[i] = CID_CHUNK;
    }
    hash_many(p, n, HASH_LANES, id);
}

static void do_aes(void)
{
    aead_seal(&aes, 1, block, BLOCK, block);
}

static void do_chacha(void)
{
    aead_seal(&chacha, 1, block, BLOCK, block);
}

static int machine(void)
{
    static const uint8_t key[AEAD_KEY] = { 1 };
    if (aead_init(&chacha, AEAD_XCHACHA20, key) < 0)
        return 1;
    printf("{\"blake2b_gbps\":%.3f,\"blake2b_lanes_gbps\":%.3f,\"xchacha20_gbps\":%.3f",
           gbps(do_hash, BLOCK), gbps(do_many, sizeof(many)), gbps(do_chacha, BLOCK));
    if (aead_has(AEAD_AES256GCM) && aead_init(&aes, AEAD_AES256GCM, key) == 0)
        printf(",\"aes256gcm_gbps\":%.3f", gbps(do_aes, BLOCK));
    printf("}\n");
    aead_clear(&aes);
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int unchanged(const char *path, size_t n)
{
    struct client *c = NULL;
    struct err e = { 0 };
    struct msg q = { .type = M_PUT_OFFER, .put_offer = { .kind = "file", .name = "bench" } };
    double *ms = calloc(n, sizeof(*ms));
    int r = ms ? cid_file(path, &q.put_offer.id, &q.put_offer.size_b, &e) : -ENOMEM;
    if (r >= 0)
        r = client_open(NULL, 0, NULL, &c, &e);
    for (size_t i = 0; i < n && r >= 0; i++) {
        struct msg a = { 0 };
        uint64_t t0 = clock_mono_ns();
        r = client_call(c, &q, 0, &a, &e);
        ms[i] = (double)(clock_mono_ns() - t0) / 1e6;
        if (r >= 0 && a.type != M_PUT_HAVE)
            r = err_set(&e, SF_EFAILED, "%s: it asks for it", path);
        msg_clear(&a);
    }
    if (r < 0) {
        fprintf(stderr, "bulk_probe: %s\n", e.text);
    } else {
        qsort(ms, n, sizeof(*ms), by_value);
        printf("{\"offers\":%zu,\"payload_b\":0,\"ms_p50\":%.3f,\"ms_p99\":%.3f}\n", n, ms[n / 2],
               ms[n * 99 / 100]);
    }
    client_free(&c);
    free(ms);
    return r < 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "machine"))
        return machine();
    if (argc == 4 && !strcmp(argv[1], "unchanged") && atoi(argv[3]) > 0)
        return unchanged(argv[2], (size_t)atoi(argv[3]));
    fprintf(stderr, "usage: bulk_probe machine | unchanged FILE N\n");
    return 2;
}
