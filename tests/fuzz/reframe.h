/* Past the checksums of a framed file: either they are made to fit, or the file is put together from sections that are not packed yet
 * (a packed one has zstd's own checksum, which a fuzzer does not hit). Anything implausible is left for the reader to refuse. */
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/format/frame.h"
#include "proto/lib/zio.h"

/* Make every checksum fit the bytes. */
static inline void reframe(uint8_t *p, size_t n, size_t header_b)
{
    size_t head = FRAME_START_B + header_b + 8;
    if (n < head + FRAME_TRAILER_B)
        return;
    put_u32(p + 12, (uint32_t)hash_fast(p, 12, 0));
    put_u64(p + head - 8, hash_fast(p, head - 8, 0));
    uint8_t *t = p + n - FRAME_TRAILER_B;
    uint64_t sections = get_u64(t), off = get_u64(t + 8);
    if (off < head || off > n - FRAME_TRAILER_B || sections > (n - FRAME_TRAILER_B - off) / 16)
        return;
    for (uint64_t i = 0; i < sections; i++) {
        uint8_t *x = p + off + 16 * i;
        uint64_t at = get_u64(x);
        if (at < head || at > off || off - at < FRAME_SECTION_B ||
            get_u64(p + at + 16) > off - at - FRAME_SECTION_B)
            continue;
        put_u64(x + 8, hash_fast(p + at, FRAME_SECTION_B + get_u64(p + at + 16), 0));
    }
    put_u64(t + 16, hash_fast(p + off, 16 * sections, hash_fast(t, 16, get_u64(p + head - 8))));
}

/* A file from its fixed header and sections: kind u8, number u8, length u16, bytes. Owned by the caller; NULL where the input is no such
 * list. magic: the first 8 bytes of a file. */
static inline uint8_t *compose(const char magic[8], uint32_t version, size_t header_b,
                               const uint8_t *data, size_t n, size_t *ret_n)
{
    enum { SECTIONS = 64 };
    size_t head = FRAME_START_B + header_b + 8, at = head, sections = 0;
    if (n < header_b)
        return NULL;
    uint8_t index[16 * SECTIONS];
    uint8_t *p = calloc(1, head + SECTIONS * (FRAME_SECTION_B + 16 + zio_bound(0)) + zio_bound(n) +
                               FRAME_TRAILER_B + n);
    memcpy(p, magic, 8);
    put_u32(p + 8, version);
    memcpy(p + FRAME_START_B, data, header_b);
    for (size_t i = header_b; i + 4 <= n && sections < SECTIONS; sections++) {
        size_t len = data[i + 2] | (size_t)data[i + 3] << 8;
        len = len < n - i - 4 ? len : n - i - 4;
        ssize_t packed = zio_pack(p + at + FRAME_SECTION_B, zio_bound(len), data + i + 4, len, 1);
        if (packed < 0)
            abort();
        put_u32(p + at, data[i]);
        put_u32(p + at + 4, data[i + 1]);
        put_u64(p + at + 8, len);
        put_u64(p + at + 16, (uint64_t)packed);
        put_u64(index + 16 * sections, at);
        at += FRAME_SECTION_B + (size_t)packed;
        i += 4 + len;
    }
    memcpy(p + at, index, 16 * sections);
    put_u64(p + at + 16 * sections, sections);
    put_u64(p + at + 16 * sections + 8, at);
    memcpy(p + at + 16 * sections + 24, "sfltend\n", 8);
    *ret_n = at + 16 * sections + FRAME_TRAILER_B;
    reframe(p, *ret_n, header_b);
    return p;
}

/* A whole file as it is, and once more with its checksums put right; anything else as sections of a file of its own. */
static inline void each_frame(const char magic[8], uint32_t version, size_t header_b,
                              const uint8_t *data, size_t n,
                              void (*look)(const uint8_t *file, size_t n))
{
    if (!n)
        return;
    size_t len = n;
    bool whole = data[0] == (uint8_t)magic[0];
    uint8_t *p = whole ? malloc(n) : compose(magic, version, header_b, data + 1, n - 1, &len);
    if (p && whole) {
        memcpy(p, data, n);
        look(p, n);
        reframe(p, n, header_b);
    }
    if (p)
        look(p, len);
    free(p);
}
