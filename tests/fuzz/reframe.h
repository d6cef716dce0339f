/* Make every checksum of a framed file fit its bytes, so that a fuzzer gets past them. Header and index are mended where
 * they are at all plausible; anything else is left for the reader to refuse. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "proto/format/frame.h"

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
