/* Any bytes as a frame. What decodes must be a legal message: it encodes again and means the same. */
#include <stdint.h>
#include <stdlib.h>

#include "proto/wire/rows.h"
#include "tests/proto/wire/fill.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The rows of a message: refused, or so many; those of a block give its bytes again. */
static void read_rows(const struct msg *m)
{
    static struct buf out = { .cap = FRAME_MAX + 4096 };
    struct rows_reader in;
    struct msg_rows head;
    struct wire_row w;
    struct row_stats stats;
    uint64_t next = 0, n = 0;
    struct err e;
    if (rows_reader_init(&in, m, &head, &e) < 0)
        return;
    buf_reset(&out);
    for (; rows_next(&in, &w, &stats); n++)
        if (w.error[w.error_len] || row_block_add(&out, &next, &w, w.stats_len ? &stats : NULL) < 0)
            abort();
    if (n != head.n_rows ||
        (m->type == M_ROW_BLOCK && (out.len != m->row_block.rows_len ||
                                    (n && memcmp(out.data, m->row_block.rows, out.len) != 0))))
        abort();
}

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
    if (m.type == M_ROWS || m.type == M_ROW_BLOCK)
        read_rows(&m);
    msg_clear(&m);
    msg_clear(&again);
    return 0;
}
