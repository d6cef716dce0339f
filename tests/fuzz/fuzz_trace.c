/* Any bytes as a trace file, as they are and with checksums that fit; or, behind a first byte other than a file's, as sections that are not
 * packed yet. What is taken is sound, says the same without what only an export needs, and is saved again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/format/frame.h"
#include "proto/format/trace.h"
#include "reframe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum {
    HEADER_B = 112,
    VERSION = 2,
    ALL = TRACE_WITH_OFFSETS | TRACE_WITH_EXPORT,
    EVENTS_SAVED = 4096
};

static void look(const uint8_t *p, size_t n)
{
    struct trace *t = NULL, *u = NULL;
    struct err e;
    struct id id;
    int r = trace_load_bytes("fuzz", p, n, ALL, &t, &e);
    int r2 = trace_load_bytes("fuzz", p, n, 0, &u, &e);
    if (r == 0 && (r2 < 0 || t->n != u->n))
        abort();
    for (uint64_t i = 0; r == 0 && i < t->n; i++) {
        if (t->ev[i] >= t->n_entries || u->ev[i] >= u->n_entries)
            abort();
        const struct trace_entry *x = &t->entry[t->ev[i]], *y = &u->entry[u->ev[i]];
        if (x->gid >= t->n_gids || x->gid != y->gid || x->iova != y->iova || x->mask != y->mask)
            abort();
    }
    if (r == 0 && t->n <= EVENTS_SAVED && trace_content_id(t, &id, &e) < 0)
        abort();
    for (uint32_t i = 0; r2 == 0 && i < u->n_entries; i++)
        if (u->key_page[i] >= u->n_page || u->key_l2[i] >= u->n_l2 || u->key_l3[i] >= u->n_l3 ||
            u->key_addr[i] >= u->n_addr || u->key_sid[i] >= u->n_sids)
            abort();
    trace_free(&t);
    trace_free(&u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char magic[8] = { (char)0x89, 'S', 'F', 'T', 'R', 'C', '\r', '\n' };
    each_frame(magic, VERSION, HEADER_B, data, n, look);
    return 0;
}
