/* Frames of a bulk connection, plain and pure: what they say, and what may follow what. conn.h seals
 * them and moves them.
 *
 * A frame is a head of 8 bytes (u32le length of the body, u8 type, 3 zero bytes) and its body, each
 * sealed by itself, so that not even lengths are in clear. Numbers are little endian.
 *
 *     hello  "SFB1", u32 1 = I send chunks 0 = I take them, u64 size, id    first, both ways
 *     want   u64 first, u64 n                                               from the taking end
 *     chunk  u64 index, u32 length, u32 1 = packed (one zstd frame)         then data frames of that length
 *     data   1 .. FRAME_BODY_MAX bytes
 *     bye    text                                                           last, both ways
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"

enum {
    FRAME_HEAD = 8,
    FRAME_HELLO_LEN = 16 + ID_LEN,
    FRAME_WANT_LEN = 16,
    FRAME_CHUNK_LEN = 16,
    FRAME_BYE_MAX = 200,
    FRAME_BODY_MAX = 128 << 10, /* of data: small, so that it can wait in small pieces */
};

enum frame_type { FRAME_HELLO = 1, FRAME_WANT, FRAME_CHUNK, FRAME_DATA, FRAME_BYE };

void frame_head(uint8_t out[FRAME_HEAD], enum frame_type type, size_t body);
void frame_hello(uint8_t out[FRAME_HELLO_LEN], bool gives, uint64_t size_b, const struct id *id);
void frame_want(uint8_t out[FRAME_WANT_LEN], uint64_t first, uint64_t n);
void frame_chunk(uint8_t out[FRAME_CHUNK_LEN], uint64_t index, size_t len, bool packed);

/* What the other end may say next. Set by hand: takes, id, size_b, and for a taking end room and
 * packed_room. */
struct frame_rx {
    bool takes; /* this end takes chunks */
    struct id id;
    uint64_t size_b;
    uint8_t *room; /* CID_CHUNK bytes: where a plain chunk goes; may be changed between chunks */
    uint8_t *packed_room; /* CID_CHUNK bytes: where a packed one goes */
    bool hello;           /* was said */
    enum frame_type type; /* of the frame whose body is due */
    size_t body;
    uint8_t small[FRAME_BYE_MAX + 1];
    /* the chunk that is coming, or came last */
    uint64_t index;
    size_t len, got;
    bool packed;
    /* RX_WANT */
    uint64_t first, n;
};

enum frame_rx_got { RX_MORE, RX_HELLO, RX_WANT, RX_CHUNK_BEGINS, RX_CHUNK, RX_BYE };

/* A head came. *ret_to: where the body belongs, of the length returned (never 0). -SF_EFORMAT: the other end broke the
 * rules, e says how. */
ssize_t frame_rx_head(struct frame_rx *rx, const uint8_t head[FRAME_HEAD], uint8_t **ret_to,
                      struct err *e);
/* Its body is there. enum frame_rx_got, or -SF_EFORMAT. RX_CHUNK: len bytes in room or packed_room. RX_BYE: small is the
 * text, printable. */
int frame_rx_body(struct frame_rx *rx, struct err *e);
