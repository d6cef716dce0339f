/* Any bytes as a frame. What decodes must be a legal message: it encodes again and means the same. */
#include <stdint.h>
#include <stdlib.h>

#include "tests/proto/wire/fill.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct buf out = { .cap = FRAME_MAX + 4096 };
    struct msg m, again;
    struct err e;
    if (msg_decode(data, n, &m, &e) < 0)
        return 0;
    const struct wire_type *t = wire_type(m.type);
    /* every number in its shortest form: never longer than what came, but for fields that may be missing, at most two bytes
     * each and two for their number */
    size_t most = n + 2 * wire_added(m.type) + 2;
    if (!t || msg_encode(&m, &out, &e) < 0 || out.len > most ||
        msg_decode(out.data, out.len, &again, &e) < 0 || again.type != m.type ||
        fill_differs(&t->part, wire_body(&m), wire_body(&again)))
        abort();
    msg_clear(&m);
    msg_clear(&again);
    return 0;
}
