/* Any frames, sealed rightly or not, for both ends of a bulk connection: what they accept is within the artefact, and no byte goes
 * past the rooms. Bytes of the input: 1 = as a giving end sees it, else as a taking end; then frames as u8 type, u16le length,
 * body; a type of 128 and more is put on the wire unsealed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/bulk/conn.h"

enum { CHUNKS = 3, SIZE = 2 * CID_CHUNK + 1000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct conn out, in;
static uint8_t *room, *packed; /* each of exactly one chunk */

static void setup(void)
{
    static const uint8_t key[AEAD_KEY] = { 1 };
    if (!room) {
        room = malloc(CID_CHUNK);
        packed = malloc(CID_CHUNK);
        if (!room || !packed || conn_init(&out) < 0 || conn_init(&in) < 0)
            abort();
    }
    in.in_off = in.in_len = out.out_off = out.out_len = 0;
    in.in.n = out.out.n = 0;
    in.has_head = false;
    if (aead_init(&out.out.key, AEAD_XCHACHA20, key) < 0 ||
        aead_init(&in.in.key, AEAD_XCHACHA20, key) < 0)
        abort();
}

/* What was put goes over. Returns false when the connection is over. */
static bool deliver(struct frame_rx *rx)
{
    struct err e;
    memcpy(in.in_buf, out.out_buf, out.out_len);
    in.in_off = 0;
    in.in_len = out.out_len;
    out.out_len = 0;
    for (;;) {
        int r = conn_next(&in, rx, &e);
        if (r < 0)
            return r == -EAGAIN && in.in_off == in.in_len;
        if (r == RX_WANT && (rx->takes || rx->first + rx->n > CHUNKS))
            abort();
        if ((r == RX_CHUNK_BEGINS || r == RX_CHUNK) &&
            (!rx->takes || rx->index >= CHUNKS || !rx->len || rx->len > CID_CHUNK ||
             rx->got > rx->len))
            abort();
        if (r == RX_BYE && strlen((char *)rx->small) > FRAME_BYE_MAX)
            abort();
        if (r != RX_HELLO && !rx->hello)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct frame_rx rx = { .id = { { 9 } }, .size_b = SIZE };
    uint8_t hello[FRAME_HELLO_LEN];
    if (!n)
        return 0;
    setup();
    rx.takes = data[0] != 1;
    rx.room = room;
    rx.packed_room = packed;
    frame_hello(hello, rx.takes, SIZE, &rx.id);
    if (data[0] & 2)
        conn_put(&out, FRAME_HELLO, hello, sizeof(hello));
    bool on = deliver(&rx);
    for (size_t i = 1; on && i + 3 <= n;) {
        size_t len = (size_t)(data[i + 1] | data[i + 2] << 8);
        uint8_t type = data[i];
        i += 3;
        if (len > n - i)
            len = n - i;
        if (type >= 128) {
            memcpy(out.out_buf, data + i, len);
            out.out_len = len;
        } else {
            conn_put(&out, (enum frame_type)type, data + i, len);
        }
        on = deliver(&rx);
        i += len;
    }
    return 0;
}
