#include "proto/bulk/frame.h"

#include <endian.h>
#include <string.h>
#include <sys/types.h>

static const char magic[4] = "SFB1";

static void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, 8);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return le64toh(v);
}

static uint64_t chunks_of(uint64_t size)
{
    return size / CID_CHUNK + (size % CID_CHUNK != 0);
}

void frame_head(uint8_t out[FRAME_HEAD], enum frame_type type, size_t body)
{
    memset(out, 0, FRAME_HEAD);
    put32(out, (uint32_t)body);
    out[4] = (uint8_t)type;
}

void frame_hello(uint8_t out[FRAME_HELLO_LEN], bool gives, uint64_t size_b, const struct id *id)
{
    memcpy(out, magic, 4);
    put32(out + 4, gives);
    put64(out + 8, size_b);
    memcpy(out + 16, id->b, ID_LEN);
}

void frame_want(uint8_t out[FRAME_WANT_LEN], uint64_t first, uint64_t n)
{
    put64(out, first);
    put64(out + 8, n);
}

void frame_chunk(uint8_t out[FRAME_CHUNK_LEN], uint64_t index, size_t len, bool packed)
{
    put64(out, index);
    put32(out + 8, (uint32_t)len);
    put32(out + 12, packed);
}

static int bad(struct err *e, const char *what)
{
    return err_set(e, SF_EFORMAT, "bulk: the other end sends %s", what);
}

ssize_t frame_rx_head(struct frame_rx *rx, const uint8_t head[FRAME_HEAD], uint8_t **ret_to,
                      struct err *e)
{
    size_t n = get32(head);
    bool in_chunk = rx->got < rx->len, ok = false;
    rx->type = head[4];
    if (head[5] || head[6] || head[7])
        return bad(e, "a frame of another version");
    if (!rx->hello && rx->type != FRAME_HELLO)
        return bad(e, "something before its hello");
    *ret_to = rx->small;
    switch (rx->type) {
    case FRAME_HELLO:
        ok = !rx->hello && n == FRAME_HELLO_LEN;
        break;
    case FRAME_WANT:
        ok = !rx->takes && n == FRAME_WANT_LEN;
        break;
    case FRAME_CHUNK:
        ok = rx->takes && !in_chunk && n == FRAME_CHUNK_LEN;
        break;
    case FRAME_DATA:
        ok = in_chunk && n && n <= FRAME_BODY_MAX && n <= rx->len - rx->got;
        if (ok)
            *ret_to = (rx->packed ? rx->packed_room : rx->room) + rx->got;
        break;
    case FRAME_BYE:
        ok = n && n <= FRAME_BYE_MAX;
        break;
    }
    rx->body = n;
    return ok ? (ssize_t)n : bad(e, "a frame that is out of place");
}

int frame_rx_body(struct frame_rx *rx, struct err *e)
{
    const uint8_t *b = rx->small;
    uint64_t n_chunks = chunks_of(rx->size_b);
    switch (rx->type) {
    case FRAME_HELLO:
        if (memcmp(b, magic, 4) || get32(b + 4) > 1)
            return bad(e, "a hello of another version");
        if (get32(b + 4) != rx->takes || get64(b + 8) != rx->size_b ||
            memcmp(b + 16, rx->id.b, ID_LEN))
            return bad(e, "the hello of another transfer");
        rx->hello = true;
        return RX_HELLO;
    case FRAME_WANT:
        rx->first = get64(b);
        rx->n = get64(b + 8);
        if (rx->first > n_chunks || rx->n > n_chunks - rx->first)
            return bad(e, "a question for chunks that are none");
        return RX_WANT;
    case FRAME_CHUNK: {
        uint64_t index = get64(b);
        size_t len = get32(b + 8), full = CID_CHUNK;
        uint32_t packed = get32(b + 12);
        if (index >= n_chunks)
            return bad(e, "a chunk that is none");
        if (index == n_chunks - 1)
            full = (size_t)(rx->size_b - index * CID_CHUNK);
        if (packed > 1 || !len || (packed ? len >= full : len != full))
            return bad(e, "a chunk of a wrong length");
        rx->index = index;
        rx->len = len;
        rx->got = 0;
        rx->packed = packed;
        return RX_CHUNK_BEGINS;
    }
    case FRAME_DATA:
        rx->got += rx->body;
        return rx->got == rx->len ? RX_CHUNK : RX_MORE;
    case FRAME_BYE:
        rx->small[rx->body] = 0;
        for (size_t i = 0; i < rx->body; i++)
            if (rx->small[i] < 0x20 || rx->small[i] > 0x7e)
                rx->small[i] = '?';
        return RX_BYE;
    }
    return bad(e, "a frame that is out of place");
}
