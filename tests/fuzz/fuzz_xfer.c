/* Any sequence of events for a receiver: its invariants hold, its memory is bounded, it commits only what is whole. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/err.h"
#include "proto/xfer/xfer.h"

enum { CHUNKS = 40 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct xfer_recv x;
static uint8_t stored[CHUNKS];
static struct id hashes[CHUNKS];
static uint64_t now;
static uint8_t bad; /* which answers of the store fail */

static void step(const struct xfer_event *ev);

static void act(const struct xfer_actions *acts)
{
    for (size_t i = 0; i < acts->n; i++) {
        const struct xfer_action *a = &acts->v[i];
        struct xfer_event ev = { 0 };
        switch (a->kind) {
        case XFER_DO_OPEN:
            ev.kind = XFER_EV_OPENED;
            ev.r = bad & 1 ? -ENOSPC : 0;
            break;
        case XFER_DO_WRITE:
            ev.kind = XFER_EV_WROTE;
            ev.index = a->index;
            ev.r = bad & 2 ? -SF_EINTEGRITY : bad & 4 ? -EIO : 0;
            if (!ev.r)
                stored[a->index] = 1;
            break;
        case XFER_DO_COMMIT:
            for (size_t k = 0; k < x.n_chunks; k++)
                if (!stored[k])
                    abort();
            ev.kind = XFER_EV_COMMITTED;
            ev.r = bad & 8 ? -EIO : 0;
            break;
        default:
            continue;
        }
        step(&ev);
    }
}

static void step(const struct xfer_event *ev)
{
    struct xfer_actions acts;
    xfer_recv_step(&x, ev, now, &acts);
    act(&acts);
    if (xfer_recv_check(&x))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct xfer_actions acts;
    struct id id;
    uint64_t size = (n ? data[0] % CHUNKS : 0) * (uint64_t)CID_CHUNK;
    size_t n_chunks = size / CID_CHUNK;
    for (size_t i = 0; i < CHUNKS; i++)
        hash_bytes(&i, sizeof(i), &hashes[i]);
    cid_of_chunks(size, hashes, n_chunks, &id);
    memset(stored, 0, sizeof(stored));
    now = 0;
    bad = 0;
    xfer_recv_init(&x, 1, &id, UINT64_MAX, CHUNKS * (uint64_t)CID_CHUNK, now, &acts);
    act(&acts);
    for (size_t i = 1; i + 2 < n; i += 3) {
        uint8_t op = data[i], a = data[i + 1], b = data[i + 2];
        struct msg m = { 0 };
        struct xfer_event ev = { .kind = XFER_EV_MSG, .msg = &m };
        bad = op >> 4;
        switch (op & 15) {
        case 0:
        case 1: { /* hashes, right or not */
            size_t count = b % (CHUNKS - a % CHUNKS + 1);
            m.type = M_HASHES;
            m.hashes = (struct msg_hashes){ .id = id,
                                            .size_b = op & 1 ? size : a * (uint64_t)CID_CHUNK,
                                            .first = a % CHUNKS,
                                            .hashes = hashes[a % CHUNKS].b,
                                            .hashes_len = count * ID_LEN - (op & 1 ? 0 : b & 1) };
            if (!count)
                m.hashes.hashes_len = 0;
            break;
        }
        case 2: /* the whole list */
            m.type = M_HASHES;
            m.hashes = (struct msg_hashes){
                .id = id, .size_b = size, .hashes = hashes[0].b, .hashes_len = n_chunks * ID_LEN
            };
            break;
        case 3:
        case 4:
        case 5:
            m.type = M_CHUNK;
            m.chunk = (struct msg_chunk){ .id = id, .index = a, .data = &b, .data_len = 1 };
            break;
        case 6:
            m.type = M_XFER_FAIL;
            m.xfer_fail = (struct msg_xfer_fail){ .id = id, .code = "NO_SPACE", .text = "" };
            break;
        case 7:
            ev.kind = XFER_EV_UP;
            break;
        case 8: /* answers that nobody asked for */
            ev = (struct xfer_event){ .kind = XFER_EV_WROTE, .index = a, .r = -SF_EINTEGRITY };
            break;
        default:
            ev.kind = XFER_EV_TICK;
            now += (uint64_t)a * 100;
            break;
        }
        step(&ev);
    }
    xfer_recv_clear(&x);
    return 0;
}
