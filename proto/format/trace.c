#include "proto/format/trace.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/format/frame.h"

void trace_free(struct trace **tp)
{
    struct trace *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    free(t->ev);
    free(t->off);
    free(t->next);
    free(t->entry);
    free(t->key_page);
    free(t->key_l2);
    free(t->key_l3);
    free(t->key_addr);
    free(t->key_sid);
    free(t->cc);
    free(t->slpt);
    free(t);
}

/* ---- keys */

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

static size_t dense_slot(const struct dense *d, uint64_t a, uint32_t b)
{
    uint64_t h = (a ^ ((uint64_t)b << 32 | b)) * 0x9e3779b97f4a7c15u;
    size_t i = (h ^ h >> 29) & (d->room - 1);
    while (d->cells[i].number != UINT32_MAX && (d->cells[i].a != a || d->cells[i].b != b))
        i = (i + 1) & (d->room - 1);
    return i;
}

static bool dense_grow(struct dense *d)
{
    struct dense wide = { .room = d->room ? 4 * d->room : 256 };
    wide.cells = malloc(wide.room * sizeof(*wide.cells));
    if (!wide.cells)
        return false;
    memset(wide.cells, 0xff, wide.room * sizeof(*wide.cells));
    for (size_t i = 0; i < d->room; i++)
        if (d->cells[i].number != UINT32_MAX)
            wide.cells[dense_slot(&wide, d->cells[i].a, d->cells[i].b)] = d->cells[i];
    free(d->cells);
    d->cells = wide.cells;
    d->room = wide.room;
    return true;
}

static uint32_t dense_find(struct dense *d, uint64_t a, uint32_t b)
{
    if (2 * (size_t)d->n_cells >= d->room && !dense_grow(d)) {
        d->failed = true;
        return 0;
    }
    struct cell *c = &d->cells[dense_slot(d, a, b)];
    if (c->number == UINT32_MAX) {
        *c = (struct cell){ a, b, d->n++ };
        d->n_cells++;
    }
    return c->number;
}

static inline uint32_t dense_number(struct dense *d, uint64_t a, uint32_t b)
{
    if (d->any && d->last_a == a && d->last_b == b)
        return d->last;
    d->any = true;
    d->last_a = a;
    d->last_b = b;
    return d->last = dense_find(d, a, b);
}

static bool same_class(const struct trace_entry *a, const struct trace_entry *b)
{
    return a->gid == b->gid && a->sid == b->sid && a->mask == b->mask && a->level == b->level;
}

/* Entries of a tenant from i on that ascend in their address and share all else; a table sorted for the file is made
 * of such stretches, and one that is a tenant's only one needs no search for equal keys. */
static uint32_t stretch(const struct trace *t, uint32_t i)
{
    uint32_t k = i + 1;
    while (k < t->n_entries && same_class(&t->entry[k - 1], &t->entry[k]) &&
           t->entry[k - 1].iova <= t->entry[k].iova)
        k++;
    return k;
}

static bool sorted_by_tenant(const struct trace *t)
{
    for (uint32_t i = 1; i < t->n_entries; i++)
        if (t->entry[i].gid < t->entry[i - 1].gid)
            return false;
    return true;
}

int trace_keys(struct trace *t, struct err *e)
{
    enum { SHIFT_2M = 21, SHIFT_1G = 30 };
    uint32_t **columns[] = { &t->key_page, &t->key_l2, &t->key_l3, &t->key_addr, &t->key_sid };
    for (size_t c = 0; c < ARRAY_LEN(columns); c++) {
        free(*columns[c]);
        *columns[c] = malloc(((size_t)t->n_entries + 1) * sizeof(uint32_t));
        if (!*columns[c])
            return err_sys(e, ENOMEM, "trace");
    }
    struct dense page = { 0 }, l2 = { 0 }, l3 = { 0 }, addr = { 0 }, sid = { 0 };
    /* tenants that come back later in the table might repeat a key */
    bool sorted = sorted_by_tenant(t);
    for (uint32_t i = 0, end; i < t->n_entries; i = end) {
        const struct trace_entry *x = &t->entry[i];
        uint64_t mask = x->mask;
        uint32_t gid = x->gid, s = dense_number(&sid, x->sid, 0);
        end = stretch(t, i);
        /* a mask with holes would not keep the order of addresses */
        bool alone = sorted && mask && !(~mask & (~mask + 1)) && (!i || x[-1].gid != gid) &&
                     (end == t->n_entries || t->entry[end].gid != gid);
        for (uint32_t k = i; k < end; k++) {
            t->key_addr[k] = dense_number(&addr, t->entry[k].iova & mask, 0);
            t->key_sid[k] = s;
        }
        if (alone) {
            /* ascending addresses that no other stretch has: a key differs from the one before, or is new */
            uint64_t before = ~t->entry[i].iova;
            for (uint32_t k = i; k < end; k++) {
                uint64_t iova = t->entry[k].iova, differs = iova ^ before;
                page.n += (differs & mask) != 0;
                l2.n += differs >> SHIFT_2M != 0;
                l3.n += differs >> SHIFT_1G != 0;
                t->key_page[k] = page.n - 1;
                t->key_l2[k] = l2.n - 1;
                t->key_l3[k] = l3.n - 1;
                before = iova;
            }
            continue;
        }
        for (uint32_t k = i; k < end; k++) {
            uint64_t iova = t->entry[k].iova;
            t->key_page[k] = dense_number(&page, iova & mask, gid);
            t->key_l2[k] = dense_number(&l2, iova >> SHIFT_2M, gid);
            t->key_l3[k] = dense_number(&l3, iova >> SHIFT_1G, gid);
        }
    }
    t->n_page = page.n;
    t->n_l2 = l2.n;
    t->n_l3 = l3.n;
    t->n_addr = addr.n;
    t->n_sids = sid.n;
    free(page.cells);
    free(l2.cells);
    free(l3.cells);
    free(addr.cells);
    free(sid.cells);
    return page.failed || l2.failed || l3.failed || addr.failed || sid.failed
               ? err_sys(e, ENOMEM, "trace")
               : 0;
}

int trace_next(struct trace *t, struct err *e)
{
    if (t->next || !t->n)
        return 0;
    CLEANUP(freep) uint32_t *soon = malloc(((size_t)t->n_page + 1) * sizeof(*soon));
    uint32_t *next = malloc(t->n * sizeof(*next));
    if (!soon || !next) {
        free(next);
        return err_sys(e, ENOMEM, "trace");
    }
    memset(soon, 0xff, ((size_t)t->n_page + 1) * sizeof(*soon));
    for (uint64_t i = t->n; i-- > 0;) {
        uint32_t page = t->key_page[t->ev[i]];
        next[i] = soon[page];
        soon[page] = (uint32_t)i;
    }
    t->next = next;
    return 0;
}

/* ---- the file
 *
 * Sections: 1 entries, 2 context records, 3 page-table records (columns of variable-length differences), then for
 * each frame of 2^20 events: 4 order (who is next, and for how many events), 5 entries of the events, tenant by
 * tenant, counted from the tenant's first entry, 6 offsets, tenant by tenant. Numbers of 5 and 6 are split into byte
 * planes. Undoing the interleaving before packing is what makes the numbers repeat: a tenant walks its own rings.
 */

static const struct frame_kind trace_kind = { .magic = { (char)0x89, 'S', 'F', 'T', 'R', 'C', '\r',
                                                         '\n' },
                                              .what = "trace",
                                              .version = 1,
                                              .header_b = 112 };

enum { SEC_ENTRIES = 1, SEC_CC, SEC_SLPT, SEC_ORDER, SEC_INDEX, SEC_OFFSETS };
enum { FRAME_EVENTS = 1 << 20, RUN_MAX = 255 };
/* Level 19 would save a sixth of the bytes for ten times the time. */
enum { LEVEL = 7 };

static unsigned width_of(uint64_t max)
{
    unsigned w = 0;
    for (; max; max >>= 8)
        w++;
    return w;
}

/* ---- saving */

/* What saving needs besides the trace: entries in canonical order. */
struct canon {
    const struct trace *t;
    struct trace_entry *entry; /* sorted, without doubles and unused ones; owned */
    uint32_t *number;          /* old number -> new one; owned */
    uint32_t n;
    uint32_t *first; /* first entry of each gid, n_gids + 1; owned */
    unsigned index_w, offset_w, gid_w;
};

static void canon_clear(struct canon *c)
{
    free(c->entry);
    free(c->number);
    free(c->first);
}

static int cmp_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int by_content(const struct trace_entry *a, const struct trace_entry *b)
{
    int r = cmp_u64(a->gid, b->gid);
    r = r ? r : cmp_u64(a->sid, b->sid);
    r = r ? r : cmp_u64(a->mask, b->mask);
    r = r ? r : cmp_u64(a->level, b->level);
    r = r ? r : cmp_u64(a->iova, b->iova);
    return r ? r : cmp_u64(a->slpte, b->slpte);
}

static int by_number(const void *a, const void *b, void *entries)
{
    const struct trace_entry *x = entries;
    return by_content(&x[*(const uint32_t *)a], &x[*(const uint32_t *)b]);
}

static int canon_make(struct canon *c, const struct trace *t, struct err *e)
{
    *c = (struct canon){ .t = t };
    if (t->n >= UINT32_MAX)
        return err_set(e, EOVERFLOW, "trace: %llu events, a file holds at most 2^32-2",
                       (unsigned long long)t->n);
    size_t n = t->n_entries;
    CLEANUP(freep) uint32_t *order = malloc((n + 1) * sizeof(*order));
    CLEANUP(freep) bool *used = calloc(n + 1, sizeof(*used));
    c->entry = malloc((n + 1) * sizeof(*c->entry));
    c->number = malloc((n + 1) * sizeof(*c->number));
    c->first = calloc((size_t)t->n_gids + 2, sizeof(*c->first));
    if (!order || !used || !c->entry || !c->number || !c->first)
        return err_sys(e, ENOMEM, "trace");
    for (uint64_t i = 0; i < t->n; i++)
        used[t->ev[i]] = true;
    size_t m = 0;
    bool sorted = true;
    for (size_t i = 0; i < n; i++)
        if (used[i]) {
            sorted = sorted && (!m || by_content(&t->entry[order[m - 1]], &t->entry[i]) < 0);
            order[m++] = (uint32_t)i;
        }
    if (!sorted)
        qsort_r(order, m, sizeof(*order), by_number, t->entry);
    for (size_t i = 0; i < m; i++) {
        const struct trace_entry *x = &t->entry[order[i]];
        if (x->gid >= t->n_gids)
            return err_set(e, EINVAL, "trace: an entry's tenant is out of range");
        if (!c->n || by_content(&c->entry[c->n - 1], x)) {
            c->entry[c->n++] = *x;
            c->first[x->gid + 1]++;
        }
        c->number[order[i]] = c->n - 1;
    }
    uint32_t most = 0, off = 0;
    for (uint32_t g = 0; g < t->n_gids; g++) {
        if (c->first[g + 1] > most)
            most = c->first[g + 1];
        c->first[g + 1] += c->first[g];
    }
    for (uint64_t i = 0; t->off && i < t->n; i++)
        off |= t->off[i];
    c->index_w = width_of(most ? most - 1 : 0);
    c->offset_w = width_of(off);
    c->gid_w = width_of(t->n_gids ? t->n_gids - 1 : 0);
    return 0;
}

static void header_of(const struct canon *c, uint8_t *h)
{
    const struct trace *t = c->t;
    const struct trace_head *d = &t->head;
    const uint64_t wide[] = { d->burst,   d->seed, d->replicate, d->tenants,
                              d->devices, t->n,    t->n_cc,      t->n_slpt };
    const uint32_t narrow[] = { d->rules,     d->order,   c->n,        t->n_gids,
                                d->early_end, c->index_w, c->offset_w, c->gid_w };
    memset(h, 0, trace_kind.header_b);
    for (size_t i = 0; i < ARRAY_LEN(wide); i++)
        put_u64(h + 8 * i, wide[i]);
    for (size_t i = 0; i < ARRAY_LEN(narrow); i++)
        put_u32(h + 64 + 4 * i, narrow[i]);
}

/* A column: value i of the records as a difference to the one before. */
typedef uint64_t (*column)(const void *records, size_t i);

static uint64_t cc_sid(const void *r, size_t i)
{
    return ((const struct trace_cc *)r)[i].sid;
}
static uint64_t cc_high(const void *r, size_t i)
{
    return ((const struct trace_cc *)r)[i].high;
}
static uint64_t cc_low(const void *r, size_t i)
{
    return ((const struct trace_cc *)r)[i].low;
}
static uint64_t cc_gen(const void *r, size_t i)
{
    return ((const struct trace_cc *)r)[i].gen;
}
static uint64_t slpt_did(const void *r, size_t i)
{
    return ((const struct trace_slpt *)r)[i].did;
}
static uint64_t slpt_level(const void *r, size_t i)
{
    return ((const struct trace_slpt *)r)[i].level;
}
static uint64_t slpt_iova(const void *r, size_t i)
{
    return ((const struct trace_slpt *)r)[i].iova >> 12;
}
static uint64_t slpt_iova_low(const void *r, size_t i)
{
    return ((const struct trace_slpt *)r)[i].iova & 0xfff;
}
static uint64_t slpt_slpte(const void *r, size_t i)
{
    return ((const struct trace_slpt *)r)[i].slpte >> 12;
}
static uint64_t slpt_slpte_low(const void *r, size_t i)
{
    return ((const struct trace_slpt *)r)[i].slpte & 0xfff;
}
static uint64_t slpt_base(const void *r, size_t i)
{
    return ((const struct trace_slpt *)r)[i].base;
}

/* An entry's address follows from its table and IOVA in every log; the column keeps what an import may differ by. */
static uint64_t slot_of(const struct trace_slpt *s)
{
    unsigned shift = ((unsigned)(s->level - 1) & 3) * 9 + 12;
    return s->base + 8 * (s->iova >> shift & 511);
}
static uint64_t slpt_addr(const void *r, size_t i)
{
    const struct trace_slpt *s = (const struct trace_slpt *)r + i;
    return s->entry_addr - slot_of(s);
}

static int add_columns(struct frame_out *o, uint32_t kind, const void *records, size_t n,
                       const column columns[], size_t n_columns, struct err *e)
{
    CLEANUP(freep) uint8_t *b = malloc(10 * n * n_columns + 1);
    if (!b)
        return err_sys(e, ENOMEM, "trace");
    size_t len = 0;
    for (size_t k = 0; k < n_columns; k++) {
        uint64_t before = 0;
        for (size_t i = 0; i < n; i++) {
            uint64_t v = columns[k](records, i);
            len += put_var(b + len, zigzag(v, before));
            before = v;
        }
    }
    return frame_add(o, kind, 0, b, len, LEVEL, e);
}

static const column cc_columns[] = { cc_sid, cc_high, cc_low, cc_gen };
static const column slpt_columns[] = { slpt_did,   slpt_level,     slpt_iova, slpt_iova_low,
                                       slpt_slpte, slpt_slpte_low, slpt_base, slpt_addr };

/* Entries: stretches that share tenant, source-id, mask and level, each with its length; then addresses, ascending
 * within a stretch; then page-table entries, high and low part apart. */
static int add_entries(struct frame_out *o, const struct canon *c, struct err *e)
{
    const struct trace_entry *x = c->entry, none = { 0 };
    CLEANUP(freep) uint8_t *b = malloc((size_t)80 * c->n + 16);
    if (!b)
        return err_sys(e, ENOMEM, "trace");
    uint64_t low = 0;
    for (uint32_t i = 0; i < c->n; i++)
        low |= x[i].iova;
    unsigned shift = low ? (unsigned)__builtin_ctzll(low) : 0;
    size_t len = put_var(b, shift);
    const struct trace_entry *before = &none;
    for (uint32_t i = 0, k; i < c->n; i = k) {
        for (k = i + 1; k < c->n && same_class(&x[i], &x[k]); k++)
            ;
        len += put_var(b + len, k - i);
        len += put_var(b + len, x[i].gid - before->gid);
        len += put_var(b + len, zigzag(x[i].sid, before->sid));
        len += put_var(b + len, zigzag(x[i].mask, before->mask));
        b[len++] = x[i].level;
        before = &x[i];
    }
    for (uint32_t i = 0; i < c->n; i++)
        len +=
            put_var(b + len,
                    (x[i].iova - (i && same_class(&x[i - 1], &x[i]) ? x[i - 1].iova : 0)) >> shift);
    for (uint32_t i = 0; i < c->n; i++)
        len += put_var(b + len, zigzag(x[i].slpte >> 12, i ? x[i - 1].slpte >> 12 : 0));
    for (uint32_t i = 0; i < c->n; i++)
        len += put_var(b + len, zigzag(x[i].slpte & 0xfff, i ? x[i - 1].slpte & 0xfff : 0));
    return frame_add(o, SEC_ENTRIES, 0, b, len, LEVEL, e);
}

/* One frame: events from..from+n. work: at least 9 bytes an event. */
static int add_frame(struct frame_out *o, const struct canon *c, uint32_t number, uint64_t from,
                     uint32_t n, uint8_t *work, uint32_t *at, struct err *e)
{
    const struct trace *t = c->t;
    const uint32_t *ev = t->ev + from;
    size_t runs = 0;
    uint8_t *gids = work, *lens = work + (size_t)4 * n;
    for (uint32_t i = 0; i < n;) {
        uint32_t gid = t->entry[ev[i]].gid, k = i + 1;
        while (k < n && k - i < RUN_MAX && t->entry[ev[k]].gid == gid)
            k++;
        put_u32(gids + 4 * runs, gid);
        lens[runs++] = (uint8_t)(k - i);
        i = k;
    }
    CLEANUP(freep) uint8_t *raw = malloc((size_t)n * 5 + 1);
    if (!raw)
        return err_sys(e, ENOMEM, "trace");
    for (unsigned w = 0; w < c->gid_w; w++)
        for (size_t i = 0; i < runs; i++)
            raw[w * runs + i] = gids[4 * i + w];
    memcpy(raw + c->gid_w * runs, lens, runs);
    int r = frame_add(o, SEC_ORDER, number, raw, (c->gid_w + 1) * runs, LEVEL, e);

    /* where each tenant's events go */
    memset(at, 0, ((size_t)t->n_gids + 1) * sizeof(*at));
    for (uint32_t i = 0; i < n; i++)
        at[t->entry[ev[i]].gid + 1]++;
    for (uint32_t g = 0; g < t->n_gids; g++)
        at[g + 1] += at[g];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t gid = t->entry[ev[i]].gid, local = c->number[ev[i]] - c->first[gid],
                 pos = at[gid]++;
        for (unsigned w = 0; w < c->index_w; w++)
            raw[(size_t)w * n + pos] = (uint8_t)(local >> (8 * w));
        for (unsigned w = 0; w < c->offset_w; w++)
            work[(size_t)w * n + pos] = (uint8_t)(t->off[from + i] >> (8 * w));
    }
    if (r == 0)
        r = frame_add(o, SEC_INDEX, number, raw, (size_t)c->index_w * n, LEVEL, e);
    if (r == 0)
        r = frame_add(o, SEC_OFFSETS, number, work, (size_t)c->offset_w * n, LEVEL, e);
    return r;
}

static int save(const struct trace *t, const char *path, bool force, struct id *ret_id,
                struct err *e)
{
    CLEANUP(canon_clear) struct canon c;
    int r = canon_make(&c, t, e);
    if (r < 0)
        return path ? err_wrap(e, r, "%s", path) : r;
    uint64_t most = t->n < FRAME_EVENTS ? t->n : FRAME_EVENTS;
    CLEANUP(freep) uint8_t *work = malloc(5 * most + 1);
    CLEANUP(freep) uint32_t *at = malloc(((size_t)t->n_gids + 2) * sizeof(*at));
    if (!work || !at)
        return err_sys(e, ENOMEM, "trace");
    uint8_t header[112];
    header_of(&c, header);
    CLEANUP(frame_abort) struct frame_out o = { .file.fd = -1 };
    r = frame_begin(&o, &trace_kind, path, header, force, e);
    if (r == 0)
        r = add_entries(&o, &c, e);
    if (r == 0)
        r = add_columns(&o, SEC_CC, t->cc, t->n_cc, cc_columns, ARRAY_LEN(cc_columns), e);
    if (r == 0)
        r = add_columns(&o, SEC_SLPT, t->slpt, t->n_slpt, slpt_columns, ARRAY_LEN(slpt_columns), e);
    uint32_t number = 0;
    for (uint64_t i = 0; i < t->n && r == 0; i += FRAME_EVENTS)
        r = add_frame(&o, &c, number++, i,
                      (uint32_t)(t->n - i < FRAME_EVENTS ? t->n - i : FRAME_EVENTS), work, at, e);
    return r < 0 ? r : frame_end(&o, ret_id, e);
}

int trace_save(const struct trace *t, const char *path, bool force, struct id *ret_id,
               struct err *e)
{
    return save(t, path, force, ret_id, e);
}

int trace_content_id(const struct trace *t, struct id *ret, struct err *e)
{
    return save(t, NULL, false, ret, e);
}

/* ---- loading */

struct loader {
    struct frame_in f;
    struct trace *t;
    unsigned index_w, offset_w, gid_w;
    uint32_t *first; /* first entry of each gid, n_gids + 1 */
    uint32_t *at;
    uint8_t *raw; /* section buffer */
    size_t room;
    uint32_t *flat; /* a frame's numbers, tenant by tenant */
};

static void loader_clear(struct loader *l)
{
    frame_close(&l->f);
    trace_free(&l->t);
    free(l->first);
    free(l->at);
    free(l->raw);
    free(l->flat);
}

static int damage(const struct loader *l, struct err *e, const char *what)
{
    return err_set(e, SF_EINTEGRITY, "%s: trace file is damaged: %s", l->f.path, what);
}

static int read_header(struct loader *l, struct err *e)
{
    const uint8_t *h = l->f.header;
    struct trace *t = l->t;
    t->head = (struct trace_head){ .burst = get_u64(h),
                                   .seed = get_u64(h + 8),
                                   .replicate = get_u64(h + 16),
                                   .tenants = get_u64(h + 24),
                                   .devices = get_u64(h + 32),
                                   .rules = get_u32(h + 64),
                                   .order = get_u32(h + 68),
                                   .early_end = get_u32(h + 80) };
    t->n = get_u64(h + 40);
    t->n_cc = get_u64(h + 48);
    t->n_slpt = get_u64(h + 56);
    t->n_entries = get_u32(h + 72);
    t->n_gids = get_u32(h + 76);
    l->index_w = get_u32(h + 84);
    l->offset_w = get_u32(h + 88);
    l->gid_w = get_u32(h + 92);
    uint64_t frames = (t->n + FRAME_EVENTS - 1) / FRAME_EVENTS;
    if (t->n >= UINT32_MAX || t->n_entries > t->n || l->index_w > 4 || l->offset_w > 3 ||
        l->gid_w > 4 || l->gid_w != width_of(t->n_gids ? t->n_gids - 1 : 0) ||
        l->f.n != 3 + 3 * frames || t->head.tenants > t->n_gids)
        return damage(l, e, "its header is impossible");
    return 0;
}

/* The inverse of add_columns(): value k of record i goes to records through set(). A record costs a byte a column at
 * least, so the count is known to fit before memory is reserved. */
static int read_columns(struct loader *l, uint64_t section, uint32_t kind, uint64_t n,
                        size_t n_columns, size_t record_b, void **ret,
                        void (*set)(void *records, size_t i, size_t k, uint64_t v), struct err *e)
{
    size_t len;
    int r = frame_read(&l->f, section, kind, 0, &l->raw, &l->room, &len, e);
    if (r < 0)
        return r;
    if (n > len / n_columns)
        return damage(l, e, "a table is too short");
    *ret = calloc(n + 1, record_b);
    if (!*ret)
        return err_sys(e, ENOMEM, "%s", l->f.path);
    const uint8_t *p = l->raw, *end = l->raw + len;
    for (size_t k = 0; k < n_columns; k++) {
        uint64_t v = 0, z;
        for (size_t i = 0; i < n; i++) {
            if (!get_var(&p, end, &z))
                return damage(l, e, "a table is too short");
            v = unzigzag(z, v);
            set(*ret, i, k, v);
        }
    }
    return p == end ? 0 : damage(l, e, "a table is too long");
}

static void set_cc(void *records, size_t i, size_t k, uint64_t v)
{
    struct trace_cc *x = (struct trace_cc *)records + i;
    if (k == 0)
        x->sid = (uint32_t)v;
    else if (k == 1)
        x->high = v;
    else if (k == 2)
        x->low = v;
    else
        x->gen = (uint32_t)v;
}

static void set_slpt(void *records, size_t i, size_t k, uint64_t v)
{
    struct trace_slpt *x = (struct trace_slpt *)records + i;
    switch (k) {
    case 0:
        x->did = (uint32_t)v;
        break;
    case 1:
        x->level = v;
        break;
    case 2:
        x->iova = v << 12;
        break;
    case 3:
        x->iova |= v & 0xfff;
        break;
    case 4:
        x->slpte = v << 12;
        break;
    case 5:
        x->slpte |= v & 0xfff;
        break;
    case 6:
        x->base = v;
        break;
    default:
        x->entry_addr = v + slot_of(x);
        break;
    }
}

/* The three columns of n entries, whose stretches are set already: false where the bytes do not fit. */
static bool entry_columns(struct trace_entry *x, uint32_t n, unsigned shift, const uint8_t *p,
                          const uint8_t *end)
{
    uint64_t v;
    for (uint32_t i = 0; i < n; i++) {
        if (!get_var(&p, end, &v))
            return false;
        x[i].iova =
            (v << shift) + (x[i].slpte ? 0 : x[i - 1].iova); /* 1 marks the first of a stretch */
    }
    uint64_t high = 0, low = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!get_var(&p, end, &v))
            return false;
        high = unzigzag(v, high);
        x[i].slpte = high << 12;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!get_var(&p, end, &v))
            return false;
        low = unzigzag(v, low);
        x[i].slpte |= low & 0xfff;
    }
    return p == end;
}

static int read_entries(struct loader *l, struct err *e)
{
    static const char misfit[] = "its entries do not fit";
    struct trace *t = l->t;
    size_t len;
    int r = frame_read(&l->f, 0, SEC_ENTRIES, 0, &l->raw, &l->room, &len, e);
    if (r < 0)
        return r;
    if (t->n_entries > len / 3) /* three columns, a byte each at least */
        return damage(l, e, misfit);
    struct trace_entry *x = t->entry = malloc(((size_t)t->n_entries + 1) * sizeof(*t->entry));
    if (!x)
        return err_sys(e, ENOMEM, "%s", l->f.path);
    const uint8_t *p = l->raw, *end = p + len;
    uint64_t shift, count, gid, sid, mask;
    if (!get_var(&p, end, &shift) || shift > 63)
        return damage(l, e, misfit);
    struct trace_entry now = { 0 };
    for (uint32_t i = 0; i < t->n_entries;) {
        if (!get_var(&p, end, &count) || !get_var(&p, end, &gid) || !get_var(&p, end, &sid) ||
            !get_var(&p, end, &mask) || p == end || !count || count > t->n_entries - i ||
            gid > UINT32_MAX)
            return damage(l, e, misfit);
        now.gid += (uint32_t)gid;
        now.sid = (uint32_t)unzigzag(sid, now.sid);
        now.mask = unzigzag(mask, now.mask);
        now.level = *p++;
        x[i] = now;
        x[i].slpte = 1; /* marks the first of a stretch until its own word comes */
        for (i++, count--; count; count--)
            x[i++] = now;
    }
    if (!entry_columns(x, t->n_entries, (unsigned)shift, p, end))
        return damage(l, e, misfit);
    /* tenants without events are few beside those with; a count beyond all entries and records is damage */
    if (t->n_gids > (uint64_t)t->n_entries + (1u << 24))
        return damage(l, e, "its header is impossible");
    l->first = calloc((size_t)t->n_gids + 2, sizeof(*l->first));
    l->at = malloc(((size_t)t->n_gids + 2) * sizeof(*l->at));
    if (!l->first || !l->at)
        return err_sys(e, ENOMEM, "%s", l->f.path);
    bool bad = false;
    for (uint32_t i = 0, k; i < t->n_entries; i = k) {
        bad |= x[i].gid >= t->n_gids || x[i].level > 3 || (i && by_content(&x[i - 1], &x[i]) >= 0);
        for (k = i + 1; k < t->n_entries && same_class(&x[i], &x[k]); k++)
            bad |= x[k].iova < x[k - 1].iova ||
                   (x[k].iova == x[k - 1].iova && x[k].slpte <= x[k - 1].slpte);
        if (bad)
            return damage(l, e, "its entries are not in order");
        l->first[x[i].gid + 1] += k - i;
    }
    for (uint32_t g = 0; g < t->n_gids; g++)
        l->first[g + 1] += l->first[g];
    return 0;
}

/* Byte planes back to numbers. */
static void join(uint32_t *out, const uint8_t *raw, size_t n, unsigned w)
{
    switch (w) {
    case 0:
        memset(out, 0, n * sizeof(*out));
        break;
    case 1:
        for (size_t i = 0; i < n; i++)
            out[i] = raw[i];
        break;
    case 2:
        for (size_t i = 0; i < n; i++)
            out[i] = (uint32_t)raw[i] | (uint32_t)raw[n + i] << 8;
        break;
    case 3:
        for (size_t i = 0; i < n; i++)
            out[i] = (uint32_t)raw[i] | (uint32_t)raw[n + i] << 8 | (uint32_t)raw[2 * n + i] << 16;
        break;
    default:
        for (size_t i = 0; i < n; i++)
            out[i] = (uint32_t)raw[i] | (uint32_t)raw[n + i] << 8 | (uint32_t)raw[2 * n + i] << 16 |
                     (uint32_t)raw[3 * n + i] << 24;
        break;
    }
}

/* Spread numbers that stand tenant by tenant over the events of a frame. */
static void spread(const struct loader *l, uint32_t *out, const uint32_t *gids, const uint8_t *lens,
                   size_t runs)
{
    const uint32_t *flat = l->flat;
    uint32_t *at = l->at;
    for (size_t i = 0; i < runs; i++) {
        uint32_t from = at[gids[i]], n = lens[i];
        at[gids[i]] = from + n;
        /* both ends have room for three more: what is copied too much is written over by the next run */
        if (n <= 4)
            memcpy(out, flat + from, 4 * sizeof(*out));
        else
            memcpy(out, flat + from, n * sizeof(*out));
        out += n;
    }
}

/* Entries of one tenant, counted from its first, to numbers of the table; nonzero where one is out of range. */
static uint32_t rebase(uint32_t *flat, uint32_t n, uint32_t base, uint32_t count)
{
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++) {
        bad |= flat[i] >= count;
        flat[i] += base;
    }
    return bad;
}

/* at[gid] = first event of the tenant within the frame. False when a run is impossible. */
static bool count_runs(const struct loader *l, const uint32_t *gids, const uint8_t *lens,
                       size_t runs, uint32_t n)
{
    uint32_t n_gids = l->t->n_gids, *at = l->at;
    memset(at, 0, ((size_t)n_gids + 1) * sizeof(*at));
    uint64_t total = 0;
    for (size_t i = 0; i < runs; i++) {
        if (gids[i] >= n_gids || !lens[i])
            return false;
        at[gids[i] + 1] += lens[i];
        total += lens[i];
    }
    if (total != n)
        return false;
    for (uint32_t g = 0; g < n_gids; g++)
        at[g + 1] += at[g];
    return true;
}

static int read_frame(struct loader *l, uint32_t number, uint32_t n, unsigned flags, struct err *e)
{
    struct trace *t = l->t;
    uint64_t from = (uint64_t)number * FRAME_EVENTS, section = 3 + 3 * (uint64_t)number;
    size_t len;
    int r = frame_read(&l->f, section, SEC_ORDER, number, &l->raw, &l->room, &len, e);
    if (r < 0)
        return r;
    size_t runs = len / (l->gid_w + 1);
    if (runs * (l->gid_w + 1) != len || runs > n)
        return damage(l, e, "the order of a frame does not fit");
    CLEANUP(freep) uint32_t *gids = malloc((runs + 1) * sizeof(*gids));
    CLEANUP(freep) uint8_t *lens = malloc(runs + 1);
    if (!gids || !lens)
        return err_sys(e, ENOMEM, "%s", l->f.path);
    join(gids, l->raw, runs, l->gid_w);
    memcpy(lens, l->raw + l->gid_w * runs, runs);
    if (!count_runs(l, gids, lens, runs, n))
        return damage(l, e, "the order of a frame does not fit");

    r = frame_read(&l->f, section + 1, SEC_INDEX, number, &l->raw, &l->room, &len, e);
    if (r < 0)
        return r;
    if (len != (size_t)l->index_w * n)
        return damage(l, e, "the entries of a frame do not fit");
    join(l->flat, l->raw, n, l->index_w);
    uint32_t bad = 0;
    for (uint32_t g = 0; g < t->n_gids; g++)
        bad |= rebase(l->flat + l->at[g], l->at[g + 1] - l->at[g], l->first[g],
                      l->first[g + 1] - l->first[g]);
    if (bad)
        return damage(l, e, "the entries of a frame do not fit");
    spread(l, t->ev + from, gids, lens, runs);

    if (!(flags & TRACE_WITH_OFFSETS)) {
        uint64_t raw_b;
        return frame_check(&l->f, section + 2, SEC_OFFSETS, number, &raw_b, e);
    }
    r = frame_read(&l->f, section + 2, SEC_OFFSETS, number, &l->raw, &l->room, &len, e);
    if (r < 0)
        return r;
    if (len != (size_t)l->offset_w * n)
        return damage(l, e, "the offsets of a frame do not fit");
    join(l->flat, l->raw, n, l->offset_w);
    count_runs(l, gids, lens, runs, n);
    spread(l, t->off + from, gids, lens, runs);
    return 0;
}

static int load(struct loader *l, unsigned flags, struct err *e)
{
    struct trace *t = l->t;
    int r = read_header(l, e);
    if (r == 0)
        r = read_entries(l, e);
    if (r < 0)
        return r;
    uint64_t raw_b;
    if (flags & TRACE_WITH_EXPORT) {
        void *cc = NULL, *slpt = NULL;
        r = read_columns(l, 1, SEC_CC, t->n_cc, ARRAY_LEN(cc_columns), sizeof(*t->cc), &cc, set_cc,
                         e);
        t->cc = cc;
        if (r == 0)
            r = read_columns(l, 2, SEC_SLPT, t->n_slpt, ARRAY_LEN(slpt_columns), sizeof(*t->slpt),
                             &slpt, set_slpt, e);
        t->slpt = slpt;
    } else {
        t->n_cc = t->n_slpt = 0;
        r = frame_check(&l->f, 1, SEC_CC, 0, &raw_b, e);
        if (r == 0)
            r = frame_check(&l->f, 2, SEC_SLPT, 0, &raw_b, e);
    }
    if (r < 0)
        return r;
    uint64_t most = t->n < FRAME_EVENTS ? t->n : FRAME_EVENTS;
    l->flat = malloc((most + 4) * sizeof(*l->flat));
    t->ev = malloc((t->n + 4) * sizeof(*t->ev));
    if (flags & TRACE_WITH_OFFSETS)
        t->off = malloc((t->n + 4) * sizeof(*t->off));
    if (!l->flat || !t->ev || ((flags & TRACE_WITH_OFFSETS) && !t->off))
        return err_sys(e, ENOMEM, "%s", l->f.path);
    uint32_t number = 0;
    for (uint64_t i = 0; i < t->n && r == 0; i += FRAME_EVENTS, number++)
        r = read_frame(l, number, (uint32_t)(t->n - i < FRAME_EVENTS ? t->n - i : FRAME_EVENTS),
                       flags, e);
    return r < 0 ? r : trace_keys(t, e);
}

static int load_opened(struct loader *l, unsigned flags, struct trace **ret, struct err *e)
{
    l->t = calloc(1, sizeof(*l->t));
    int r = l->t ? load(l, flags, e) : err_sys(e, ENOMEM, "%s", l->f.path);
    if (r == 0)
        *ret = TAKE(l->t);
    return r;
}

int trace_load(const char *path, unsigned flags, struct trace **ret, struct err *e)
{
    CLEANUP(loader_clear) struct loader l = { 0 };
    int r = frame_open(&l.f, &trace_kind, path, e);
    return r < 0 ? r : load_opened(&l, flags, ret, e);
}

int trace_load_bytes(const char *name, const void *p, size_t n, unsigned flags, struct trace **ret,
                     struct err *e)
{
    CLEANUP(loader_clear) struct loader l = { 0 };
    int r = frame_open_bytes(&l.f, &trace_kind, name, p, n, e);
    return r < 0 ? r : load_opened(&l, flags, ret, e);
}

int trace_read_head(const char *path, struct trace_head *ret, uint64_t *ret_events, struct err *e)
{
    CLEANUP(loader_clear) struct loader l = { .t = calloc(1, sizeof(*l.t)) };
    if (!l.t)
        return err_sys(e, ENOMEM, "%s", path);
    int r = frame_open(&l.f, &trace_kind, path, e);
    if (r == 0)
        r = read_header(&l, e);
    if (r == 0) {
        *ret = l.t->head;
        *ret_events = l.t->n;
    }
    return r;
}
