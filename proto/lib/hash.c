#include "proto/lib/hash.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/blake.h"

_Static_assert((int)HASH_LANES == (int)BLAKE_LANES, "as many lanes as there are");
_Static_assert(sizeof(crypto_generichash_state) <= sizeof(struct hasher), "hasher too small");

static const char magic[10] = "siofleet-1";

__attribute__((constructor)) static void start_sodium(void)
{
    if (sodium_init() < 0)
        abort(); /* no entropy source: nothing here could be trusted */
}

void hash_bytes(const void *p, size_t n, struct id *ret)
{
    crypto_generichash(ret->b, ID_LEN, p, n, NULL, 0);
}

void hash_many(const void *const p[], const size_t n[], size_t count, struct id ret[])
{
    size_t width = blake_width();
    for (size_t at = 0, k; at < count; at += k) {
        const uint8_t *lane[HASH_LANES];
        uint8_t out[HASH_LANES][ID_LEN];
        size_t blocks = blake_blocks(n[at]);
        for (k = 0; k < width && at + k < count && blake_blocks(n[at + k]) == blocks; k++)
            lane[k] = p[at + k];
        if (k == 1) {
            hash_bytes(p[at], n[at], &ret[at]);
            continue;
        }
        blake_lanes(lane, n + at, k, out);
        memcpy(&ret[at], out, k * ID_LEN);
    }
}

ssize_t hash_chunks(int fd, uint64_t size_b, uint64_t from, size_t n, uint8_t *block,
                    struct id ret[])
{
    uint64_t at = from * CID_CHUNK;
    size_t want = size_b - at < n * (uint64_t)CID_CHUNK ? (size_t)(size_b - at) : n * CID_CHUNK;
    const void *p[HASH_LANES];
    size_t len[HASH_LANES], k = 0;
    ssize_t got = pread_full(fd, block, want, (off_t)at);
    if (got < 0)
        return got;
    for (size_t off = 0; off < want; off += len[k++]) {
        len[k] = want - off < CID_CHUNK ? want - off : CID_CHUNK;
        p[k] = block + off;
        if (off + len[k] > (size_t)got)
            break;
    }
    hash_many(p, len, k, ret);
    return (ssize_t)k;
}

void hasher_init(struct hasher *h)
{
    crypto_generichash_init((crypto_generichash_state *)(void *)h->opaque, NULL, 0, ID_LEN);
}

void hasher_add(struct hasher *h, const void *p, size_t n)
{
    crypto_generichash_update((crypto_generichash_state *)(void *)h->opaque, p, n);
}

void hasher_end(struct hasher *h, struct id *ret)
{
    crypto_generichash_final((crypto_generichash_state *)(void *)h->opaque, ret->b, ID_LEN);
}

/* The chunk digests are kept until the end, since the size is hashed before them. */
struct cid {
    struct hasher chunk;
    size_t in_chunk;
    uint64_t size;
    struct id *digests;
    size_t n, room;
};

struct cid *cid_new(void)
{
    struct cid *c = aligned_alloc(64, sizeof(*c));
    if (!c)
        return NULL;
    memset(c, 0, sizeof(*c));
    hasher_init(&c->chunk);
    return c;
}

static void make_room(struct cid *c, size_t n)
{
    if (c->room - c->n < n) {
        size_t room = c->room ? c->room * 2 : 64; /* more than n */
        struct id *p = realloc(c->digests, room * sizeof(*p));
        if (!p)
            abort(); /* 32 bytes a MiB: the machine is out of memory for good */
        c->digests = p;
        c->room = room;
    }
}

static void end_chunk(struct cid *c)
{
    make_room(c, 1);
    hasher_end(&c->chunk, &c->digests[c->n++]);
    hasher_init(&c->chunk);
    c->in_chunk = 0;
}

void cid_add(struct cid *c, const void *p, size_t n)
{
    const uint8_t *b = p;
    c->size += n;
    while (n) {
        const void *p_of[HASH_LANES];
        size_t len[HASH_LANES], k = 0;
        for (; !c->in_chunk && k < HASH_LANES && n >= CID_CHUNK; n -= CID_CHUNK, b += CID_CHUNK) {
            p_of[k] = b;
            len[k++] = CID_CHUNK;
        }
        if (k) {
            make_room(c, k);
            hash_many(p_of, len, k, c->digests + c->n);
            c->n += k;
            continue;
        }
        size_t m = CID_CHUNK - c->in_chunk;
        if (m > n)
            m = n;
        hasher_add(&c->chunk, b, m);
        c->in_chunk += m;
        b += m;
        n -= m;
        if (c->in_chunk == CID_CHUNK)
            end_chunk(c);
    }
}

void cid_end(struct cid *c, struct id *ret, uint64_t *ret_size)
{
    if (c->in_chunk)
        end_chunk(c);
    cid_of_chunks(c->size, c->digests, c->n, ret);
    if (ret_size)
        *ret_size = c->size;
}

void cid_free(struct cid **c)
{
    if (*c) {
        free((*c)->digests);
        free(*c);
    }
    *c = NULL;
}

void cid_of_chunks(uint64_t size, const struct id chunks[], size_t n, struct id *ret)
{
    struct hasher h;
    uint8_t le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (uint8_t)(size >> (8 * i));
    hasher_init(&h);
    hasher_add(&h, magic, sizeof(magic));
    hasher_add(&h, le, sizeof(le));
    for (size_t i = 0; i < n; i++)
        hasher_add(&h, chunks[i].b, ID_LEN);
    hasher_end(&h, ret);
}

void cid_bytes(const void *p, size_t n, struct id *ret)
{
    struct cid *c = cid_new();
    if (!c)
        abort();
    cid_add(c, p, n);
    cid_end(c, ret, NULL);
    cid_free(&c);
}

int cid_file(const char *path, struct id *ret, uint64_t *ret_size, struct err *e)
{
    /* a pipe would lose what it holds to the hash */
    struct stat st;
    CLEANUP(closep) int fd = file_open_regular(path, &st, e);
    if (fd < 0)
        return fd;
    CLEANUP(cid_free) struct cid *c = cid_new();
    size_t room = st.st_size < CID_CHUNK ? CID_CHUNK : HASH_LANES * CID_CHUNK;
    CLEANUP(freep) uint8_t *block = malloc(room);
    if (!c || !block)
        return err_sys(e, ENOMEM, "%s", path);
    for (;;) {
        ssize_t r = read_full(fd, block, room);
        if (r < 0)
            return err_sys(e, (int)-r, "%s", path);
        if (r == 0)
            break;
        cid_add(c, block, (size_t)r);
    }
    cid_end(c, ret, ret_size);
    return 0;
}

void id_hex(const struct id *id, char out[ID_HEX_LEN])
{
    sodium_bin2hex(out, ID_HEX_LEN, id->b, ID_LEN);
}

int id_parse(const char *s, struct id *ret, struct err *e)
{
    size_t n = strlen(s);
    if (n == 64 && strspn(s, "0123456789abcdef") == 64) {
        sodium_hex2bin(ret->b, ID_LEN, s, n, NULL, NULL, NULL);
        return 0;
    }
    return err_set(e, SF_EUSAGE, "%.80s: not an id (64 lower-case hex digits)", s);
}

bool id_eq(const struct id *a, const struct id *b)
{
    return memcmp(a->b, b->b, ID_LEN) == 0;
}

int id_cmp(const struct id *a, const struct id *b)
{
    return memcmp(a->b, b->b, ID_LEN);
}

uint64_t hash_fast(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(p, n, seed);
}

void random_bytes(void *p, size_t n)
{
    randombytes_buf(p, n);
}
