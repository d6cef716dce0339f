/* Inside of the trace file's writer (trace_save.c) and reader (trace_load.c); nothing else includes this.
 *
 * Sections
 *   1 places   what an engine needs to know of an access: distinct (tenant, source-id, mask, level, address piece), sorted. First the
 *              distinct address pieces, ascending; then stretches of places that share all but the address; then, for
 *              each place but the first of its stretch, how far its address is from the one before, less one
 *   2 context records, 3 page-table records: only an export reads them
 *   4 words    the page-table entries that each place had, in order of appearance: only an export
 *   then for each frame of 2^20 events
 *   5 order    who is next and for how many events; a round once where rounds repeat
 *   6 places of the events, tenant by tenant, counted from the tenant's first place
 *   7 which of the place's page-table entries, tenant by tenant: only an export
 *   8 offsets  inside the 2 MiB piece, tenant by tenant: only an export
 *
 * In 5 a tenant is known by its number among those with places. Undoing the interleaving before packing is what makes the numbers repeat: a tenant walks its own rings. All numbers are split into
 * planes, the lowest bytes of all first, so that they unpack without a branch.
 */
#pragma once
#include "proto/format/frame.h"
#include "proto/format/trace.h"

extern const struct frame_kind trace_kind;

enum {
    SEC_PLACES = 1,
    SEC_CC,
    SEC_SLPT,
    SEC_WORDS,
    SEC_TABLES = SEC_WORDS, /* so many sections stand before the frames */
    SEC_ORDER,
    SEC_INDEX,
    SEC_VARIANT,
    SEC_OFFSETS,
    SEC_FRAME = SEC_OFFSETS - SEC_TABLES, /* so many a frame */
};
enum { TRACE_HEADER_B = 112, FRAME_EVENTS = 1 << 20, RUN_MAX = 255 };
/* Most tenants without any place: what is made for each tenant must not be large for a small file. */
enum { TRACE_IDLE_MAX = 1 << 20 };

/* The fixed header: numbers of both sides. */
struct trace_counts {
    uint32_t n_addr, n_places,
        n_words; /* distinct address pieces, places, (place, page-table entry) pairs */
    uint32_t variant_w, offset_w; /* bytes of a number in sections 7 and 8 */
};

/* Bytes that hold every number up to max. */
static inline unsigned width_of(uint64_t max)
{
    unsigned w = 0;
    for (; max; max >>= 8)
        w++;
    return w;
}

static inline bool same_class(const struct trace_entry *a, const struct trace_entry *b)
{
    return a->gid == b->gid && a->sid == b->sid && a->mask == b->mask && a->level == b->level;
}

/* An entry's address follows from its table and IOVA in every log; the column keeps what an import may differ by. */
static inline uint64_t slot_of(const struct trace_slpt *s)
{
    unsigned shift = ((unsigned)(s->level - 1) & 3) * 9 + 12;
    return s->base + 8 * (s->iova >> shift & 511);
}

/* The columns of the record tables, in file order. A column is a width u8, the first value u64, then the differences of each value to
 * the one before (zigzag) in planes. */
enum { CC_SID, CC_HIGH, CC_LOW, CC_GEN, CC_COLUMNS };
enum {
    SLPT_DID,
    SLPT_LEVEL,
    SLPT_IOVA,
    SLPT_IOVA_LOW, /* the low 12 bits apart */
    SLPT_SLPTE,
    SLPT_SLPTE_LOW,
    SLPT_BASE,
    SLPT_ADDR, /* difference to slot_of() */
    SLPT_COLUMNS
};
enum {
    STRETCH_GID,
    STRETCH_SID,
    STRETCH_MASK,
    STRETCH_LEVEL,
    STRETCH_LEN,
    STRETCH_ADDR,
    STRETCH_COLUMNS
};
/* Section 5: runs of a round u32, rounds u32, first run (tenant u32, length u8); then planes of the tenants and lengths of a round's runs and of
 * those behind the last round. */
enum { COLUMN_HEAD_B = 9, ORDER_HEAD_B = 13 };

/* ---- keys of a trace's entries, stretch by stretch (trace.c) */

/* Numbers different (address, tenant) pairs in order of first appearance: open addressing, at most half full, grown
 * as keys come, so that the few keys of large pages stay in cache. */
struct dense {
    struct cell {
        uint64_t a;
        uint32_t b, number; /* number UINT32_MAX = empty */
    } * cells;
    size_t room;
    uint32_t n, n_cells;
    uint64_t last_a;
    uint32_t last_b,
        last; /* the pair asked for last: neighbours in a table mostly share their keys */
    bool any, failed;
};

struct keys {
    struct trace *t;
    struct dense page, l2, l3, addr, sid;
};
/* Makes the columns key_*; t->n_entries is known. keys_end() also after a failure of memory inside. */
int keys_begin(struct keys *k, struct trace *t, struct err *e);
/* Entries from..to-1 share all but address and page-table entry and ascend in their address. only: no other stretch has this
 * tenant. Fills all columns but key_addr. */
void keys_stretch(struct keys *k, uint32_t from, uint32_t to, bool only);
void keys_addresses(struct keys *k); /* key_addr and n_addr, by search */
int keys_end(struct keys *k, struct err *e);
