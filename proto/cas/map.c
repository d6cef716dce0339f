#include "proto/cas/map.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "proto/cas/cas.h"

enum { HEAD = 16 };

static const uint8_t magic[8] = { 'S', 'F', 'M', '1' };

static uint64_t chunks_of(uint64_t size)
{
    return size / CID_CHUNK + (size % CID_CHUNK != 0);
}

int cas_map_init(struct cas_map *m, uint64_t size_b, const struct id hashes[])
{
    *m = (struct cas_map){ .size_b = size_b, .n = chunks_of(size_b) };
    m->hashes = malloc(m->n ? m->n * ID_LEN : 1);
    m->bits = calloc(1, m->n ? (m->n + 7) / 8 : 1);
    if (!m->hashes || !m->bits) {
        cas_map_clear(m);
        return -ENOMEM;
    }
    if (m->n)
        memcpy(m->hashes, hashes, m->n * ID_LEN);
    return 0;
}

void cas_map_clear(struct cas_map *m)
{
    free(m->hashes);
    free(m->bits);
    *m = (struct cas_map){ 0 };
}

size_t cas_map_size(uint64_t n)
{
    return HEAD + n * ID_LEN + (n + 7) / 8;
}

int cas_map_pack(const struct cas_map *m, struct buf *out)
{
    uint64_t le = htole64(m->size_b);
    int r = buf_add(out, magic, sizeof(magic));
    if (!r)
        r = buf_add(out, &le, sizeof(le));
    if (!r)
        r = buf_add(out, m->hashes, m->n * ID_LEN);
    if (!r)
        r = buf_add(out, m->bits, (m->n + 7) / 8);
    return r;
}

int cas_map_parse(const void *p, size_t len, struct cas_map *ret, struct err *e)
{
    const uint8_t *b = p;
    uint64_t size;
    *ret = (struct cas_map){ 0 };
    if (len < HEAD || memcmp(b, magic, sizeof(magic)))
        return err_set(e, SF_EFORMAT, "not a map of chunks");
    memcpy(&size, b + 8, sizeof(size));
    size = le64toh(size);
    if (size > CAS_SIZE_MAX || len != cas_map_size(chunks_of(size)))
        return err_set(e, SF_EFORMAT, "a map of chunks with a wrong length");
    if (cas_map_init(ret, size, (const void *)(b + HEAD)) < 0)
        return err_sys(e, ENOMEM, "map of chunks");
    memcpy(ret->bits, b + HEAD + ret->n * ID_LEN, (ret->n + 7) / 8);
    return 0;
}

bool cas_map_get(const struct cas_map *m, uint64_t i)
{
    return m->bits[i / 8] >> (i % 8) & 1;
}

void cas_map_set(struct cas_map *m, uint64_t i)
{
    m->bits[i / 8] |= (uint8_t)(1u << (i % 8));
}

off_t cas_map_off(const struct cas_map *m, uint64_t i)
{
    return (off_t)(HEAD + m->n * ID_LEN + i / 8);
}
