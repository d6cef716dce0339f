/* Writing a trace file: equal content gives equal bytes. The layout stands in trace_file.h. */
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/format/trace_file.h"

const struct frame_kind trace_kind = { .magic = { (char)0x89, 'S', 'F', 'T', 'R', 'C', '\r', '\n' },
                                       .what = "trace",
                                       .version = 2,
                                       .header_b = TRACE_HEADER_B };

/* Level 19 would save a sixth of the bytes for ten times the time. */
enum { LEVEL = 7 };
#define NONE UINT32_MAX

/* What saving needs besides the trace: entries in canonical order. A word is a place with one page-table entry. */
struct canon {
    const struct trace *t;
    struct trace_entry *place; /* sorted, different; owned */
    uint64_t *word;  /* page-table entries, place by place, in order of appearance; owned */
    uint32_t *words; /* first word of each place, n_places + 1; owned */
    uint32_t *place_of, *word_of; /* by entry of the trace; owned */
    uint32_t *first;              /* first place of each gid, n_gids + 1; owned */
    uint32_t *tenant;             /* number of each gid among those with places; owned */
    uint64_t *addr;               /* different addresses, ascending; owned */
    struct trace_counts n;
    unsigned tenant_w;
};

static void canon_clear(struct canon *c)
{
    free(c->place);
    free(c->word);
    free(c->words);
    free(c->place_of);
    free(c->word_of);
    free(c->first);
    free(c->tenant);
    free(c->addr);
}

static int cmp_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int by_place(const struct trace_entry *a, const struct trace_entry *b)
{
    int r = cmp_u64(a->gid, b->gid);
    r = r ? r : cmp_u64(a->sid, b->sid);
    r = r ? r : cmp_u64(a->mask, b->mask);
    r = r ? r : cmp_u64(a->level, b->level);
    return r ? r : cmp_u64(a->iova, b->iova);
}

static int by_content(const struct trace_entry *a, const struct trace_entry *b)
{
    int r = by_place(a, b);
    return r ? r : cmp_u64(a->slpte, b->slpte);
}

static int by_number(const void *a, const void *b, void *entries)
{
    const struct trace_entry *x = entries;
    return by_content(&x[*(const uint32_t *)a], &x[*(const uint32_t *)b]);
}

static int by_value(const void *a, const void *b)
{
    return cmp_u64(*(const uint64_t *)a, *(const uint64_t *)b);
}

/* Places in their order; twin: for each entry, in order of content, one that stands for all of the same content. */
static int canon_places(struct canon *c, uint32_t *twin, struct err *e)
{
    const struct trace *t = c->t;
    size_t n = t->n_entries, m = 0;
    CLEANUP(freep) uint32_t *order = malloc((n + 1) * sizeof(*order));
    CLEANUP(freep) bool *used = calloc(n + 1, sizeof(*used));
    if (!order || !used)
        return err_sys(e, ENOMEM, "trace");
    for (uint64_t i = 0; i < t->n; i++)
        used[t->ev[i]] = true;
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
        if (!i || by_place(&c->place[c->n.n_places - 1], x)) {
            c->first[x->gid + 1]++;
            c->addr[c->n.n_places] = x->iova;
            c->place[c->n.n_places++] = *x;
        }
        c->place_of[order[i]] = c->n.n_places - 1;
        twin[order[i]] =
            i && !by_content(&t->entry[order[i - 1]], x) ? twin[order[i - 1]] : order[i];
    }
    for (uint32_t g = 0; g < t->n_gids; g++)
        c->first[g + 1] += c->first[g];
    if (c->n.n_places)
        qsort(c->addr, c->n.n_places, sizeof(*c->addr), by_value);
    for (uint32_t i = 0; i < c->n.n_places; i++)
        if (!i || c->addr[i] != c->addr[c->n.n_addr - 1])
            c->addr[c->n.n_addr++] = c->addr[i];
    return 0;
}

/* Words of each place in order of appearance: they go up by one where a page is mapped anew, which packs well. */
static int canon_words(struct canon *c, const uint32_t *twin, struct err *e)
{
    const struct trace *t = c->t;
    CLEANUP(freep) uint32_t *seen = malloc(((size_t)t->n_entries + 1) * sizeof(*seen));
    if (!seen)
        return err_sys(e, ENOMEM, "trace");
    size_t n = 0;
    memset(c->word_of, 0xff, (size_t)t->n_entries * sizeof(*c->word_of));
    for (uint64_t i = 0; i < t->n; i++) {
        uint32_t x = twin[t->ev[i]];
        if (c->word_of[x] == NONE) {
            c->word_of[x] = c->words[c->place_of[x] + 1]++;
            seen[n++] = x;
        }
    }
    uint32_t most = 0;
    for (uint32_t i = 0; i < c->n.n_places; i++) {
        most = c->words[i + 1] > most ? c->words[i + 1] : most;
        c->words[i + 1] += c->words[i];
    }
    c->n.n_words = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        c->word[c->words[c->place_of[seen[i]]] + c->word_of[seen[i]]] = t->entry[seen[i]].slpte;
    for (uint32_t i = 0; i < t->n_entries; i++)
        c->word_of[i] = c->word_of[twin[i]];
    c->n.variant_w = width_of(most ? most - 1 : 0);
    return 0;
}

static int canon_make(struct canon *c, const struct trace *t, struct err *e)
{
    *c = (struct canon){ .t = t };
    if (t->n >= UINT32_MAX)
        return err_set(e, EOVERFLOW, "trace: %llu events, a file holds at most 2^32-2",
                       (unsigned long long)t->n);
    size_t n = (size_t)t->n_entries + 1;
    CLEANUP(freep) uint32_t *twin = calloc(n, sizeof(*twin));
    c->place = malloc(n * sizeof(*c->place));
    c->word = malloc(n * sizeof(*c->word));
    c->words = calloc(n + 1, sizeof(*c->words));
    c->place_of = malloc(n * sizeof(*c->place_of));
    c->word_of = malloc(n * sizeof(*c->word_of));
    c->addr = malloc(n * sizeof(*c->addr));
    c->first = calloc((size_t)t->n_gids + 2, sizeof(*c->first));
    c->tenant = calloc((size_t)t->n_gids + 1, sizeof(*c->tenant));
    if (!twin || !c->place || !c->word || !c->words || !c->place_of || !c->word_of || !c->addr ||
        !c->first || !c->tenant)
        return err_sys(e, ENOMEM, "trace");
    int r = canon_places(c, twin, e);
    if (r == 0)
        r = canon_words(c, twin, e);
    if (r < 0)
        return r;
    uint32_t off = 0;
    for (uint64_t i = 0; t->off && i < t->n; i++)
        off |= t->off[i];
    c->n.offset_w = width_of(off);
    uint32_t tenants = 0;
    for (uint32_t g = 0; g < t->n_gids; g++)
        c->tenant[g] = c->first[g + 1] > c->first[g] ? tenants++ : 0;
    c->tenant_w = width_of(tenants ? tenants - 1 : 0);
    if (t->n_gids > (uint64_t)c->n.n_places + TRACE_IDLE_MAX)
        return err_set(e, EOVERFLOW, "trace: more than %d tenants have no event", TRACE_IDLE_MAX);
    return 0;
}

static void header_of(const struct canon *c, uint8_t *h)
{
    const struct trace *t = c->t;
    const struct trace_head *d = &t->head;
    const uint64_t wide[] = { d->burst,   d->seed, d->replicate, d->tenants,
                              d->devices, t->n,    t->n_cc,      t->n_slpt };
    const uint32_t narrow[] = { d->rules,     d->order,       d->early_end,
                                t->n_gids,    c->n.n_addr,    c->n.n_places,
                                c->n.n_words, c->n.variant_w, c->n.offset_w };
    memset(h, 0, TRACE_HEADER_B);
    for (size_t i = 0; i < ARRAY_LEN(wide); i++)
        put_u64(h + 8 * i, wide[i]);
    for (size_t i = 0; i < ARRAY_LEN(narrow); i++)
        put_u32(h + 64 + 4 * i, narrow[i]);
}

/* ---- columns */

static size_t put_planes(uint8_t *b, const uint64_t *v, size_t n, unsigned w)
{
    for (unsigned k = 0; k < w; k++)
        for (size_t i = 0; i < n; i++)
            b[k * n + i] = (uint8_t)(v[i] >> (8 * k));
    return w * n;
}

/* Appends a column of `least` bytes a number or more to b, which has room for 9 + 8 n bytes. v is overwritten. */
static size_t put_column(uint8_t *b, uint64_t *v, size_t n, unsigned least)
{
    uint64_t before = n ? v[0] : 0, all = 0;
    put_u64(b + 1, before);
    for (size_t i = 1; i < n; i++) {
        uint64_t z = zigzag(v[i], before);
        before = v[i];
        v[i] = z;
        all |= z;
    }
    unsigned w = width_of(all);
    w = w < least ? least : w;
    b[0] = (uint8_t)w;
    return COLUMN_HEAD_B + (n ? put_planes(b + COLUMN_HEAD_B, v + 1, n - 1, w) : 0);
}

static uint64_t cc_value(const struct canon *c, size_t i, unsigned k)
{
    const struct trace_cc *x = &c->t->cc[i];
    const uint64_t v[CC_COLUMNS] = {
        [CC_SID] = x->sid, [CC_HIGH] = x->high, [CC_LOW] = x->low, [CC_GEN] = x->gen
    };
    return v[k];
}

static uint64_t slpt_value(const struct canon *c, size_t i, unsigned k)
{
    const struct trace_slpt *x = &c->t->slpt[i];
    const uint64_t v[SLPT_COLUMNS] = {
        [SLPT_DID] = x->did,           [SLPT_LEVEL] = x->level,
        [SLPT_IOVA] = x->iova >> 12,   [SLPT_IOVA_LOW] = x->iova & 0xfff,
        [SLPT_SLPTE] = x->slpte >> 12, [SLPT_SLPTE_LOW] = x->slpte & 0xfff,
        [SLPT_BASE] = x->base,         [SLPT_ADDR] = x->entry_addr - slot_of(x)
    };
    return v[k];
}

static int add_columns(struct frame_out *o, const struct canon *c, uint32_t kind, size_t n,
                       unsigned columns,
                       uint64_t (*value)(const struct canon *c, size_t i, unsigned k),
                       struct err *e)
{
    CLEANUP(freep) uint8_t *b = malloc((COLUMN_HEAD_B + 8 * n) * columns + 1);
    CLEANUP(freep) uint64_t *v = malloc((n + 1) * sizeof(*v));
    if (!b || !v)
        return err_sys(e, ENOMEM, "trace");
    size_t len = 0;
    for (unsigned k = 0; k < columns; k++) {
        for (size_t i = 0; i < n; i++)
            v[i] = value(c, i, k);
        /* the reader takes the number of records from the first column's size */
        len += put_column(b + len, v, n, !k);
    }
    return frame_add(o, kind, 0, b, len, LEVEL, e);
}

/* ---- tables */

static int add_places(struct frame_out *o, const struct canon *c, struct err *e)
{
    const struct trace_entry *x = c->place;
    uint32_t n = c->n.n_places, stretches = 0;
    uint64_t most = 0;
    CLEANUP(freep) uint64_t *v = malloc(((size_t)n + 1) * sizeof(*v) * (STRETCH_COLUMNS + 1));
    CLEANUP(freep) uint64_t *gap = calloc((size_t)n + 1, sizeof(*gap));
    CLEANUP(freep)
    uint8_t *b = malloc((COLUMN_HEAD_B + 8 * (size_t)n) * (STRETCH_COLUMNS + 2) + 16);
    if (!v || !gap || !b)
        return err_sys(e, ENOMEM, "trace");
    uint64_t *at[STRETCH_COLUMNS], *addr = v + (size_t)STRETCH_COLUMNS * (n + 1);
    for (unsigned k = 0; k < STRETCH_COLUMNS; k++)
        at[k] = v + (size_t)k * (n + 1);
    for (uint32_t i = 0, before = 0; i < n; i++) {
        bool goes_on = i && same_class(&x[i - 1], &x[i]);
        uint32_t lo = goes_on ? before + 1 : 0, hi = c->n.n_addr;
        while (lo < hi) {
            uint32_t mid = lo + (hi - lo) / 2;
            if (c->addr[mid] < x[i].iova)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (goes_on) {
            at[STRETCH_LEN][stretches - 1]++;
            gap[i] = lo - before - 1;
            most = gap[i] > most ? gap[i] : most;
        } else {
            at[STRETCH_GID][stretches] = x[i].gid;
            at[STRETCH_SID][stretches] = x[i].sid;
            at[STRETCH_MASK][stretches] = x[i].mask;
            at[STRETCH_LEVEL][stretches] = x[i].level;
            at[STRETCH_ADDR][stretches] = lo;
            at[STRETCH_LEN][stretches++] = 1;
        }
        before = lo;
    }
    size_t len = 5;
    unsigned w = width_of(most);
    put_u32(b, stretches);
    b[4] = (uint8_t)w;
    memcpy(addr, c->addr, c->n.n_addr * sizeof(*addr));
    len += put_column(b + len, addr, c->n.n_addr, 0);
    for (unsigned k = 0; k < STRETCH_COLUMNS; k++)
        len += put_column(b + len, at[k], stretches, 0);
    len += put_planes(b + len, gap, n, w);
    return frame_add(o, SEC_PLACES, 0, b, len, LEVEL, e);
}

static int add_words(struct frame_out *o, const struct canon *c, struct err *e)
{
    size_t n = c->n.n_words, places = c->n.n_places;
    CLEANUP(freep) uint64_t *v = malloc((n + 1) * sizeof(*v));
    CLEANUP(freep) uint8_t *b = malloc(2 * (COLUMN_HEAD_B + 8 * n) + 4 * places + 1);
    if (!v || !b)
        return err_sys(e, ENOMEM, "trace");
    for (size_t i = 0; i < places; i++)
        v[i] = c->words[i + 1] - c->words[i] - 1;
    size_t len = put_planes(b, v, places, c->n.variant_w);
    for (size_t i = 0; i < n; i++)
        v[i] = c->word[i] >> 12;
    len += put_column(b + len, v, n, 0);
    for (size_t i = 0; i < n; i++)
        v[i] = c->word[i] & 0xfff;
    len += put_column(b + len, v, n, 0);
    return frame_add(o, SEC_WORDS, 0, b, len, LEVEL, e);
}

/* ---- frames */

struct run {
    uint32_t gid, len;
};

static bool run_eq(const struct run *a, const struct run *b)
{
    return a->gid == b->gid && a->len == b->len;
}

/* Who is next and for how many events. A trace in turns repeats a round of runs: the first run, which a frame may cut, then
 * as many whole rounds as there are, then the rest. */
static int add_order(struct frame_out *o, const struct canon *c, uint32_t number,
                     const uint32_t *ev, uint32_t n, struct run *run, uint8_t *b, struct err *e)
{
    size_t runs = 0;
    for (uint32_t i = 0; i < n;) {
        uint32_t gid = c->t->entry[ev[i]].gid, k = i + 1;
        while (k < n && k - i < RUN_MAX && c->t->entry[ev[k]].gid == gid)
            k++;
        run[runs++] = (struct run){ gid, k - i };
        i = k;
    }
    size_t round = 1, same = 0;
    while (1 + round < runs && !run_eq(&run[1], &run[1 + round]))
        round++;
    while (1 + round + same < runs && run_eq(&run[1 + same], &run[1 + round + same]))
        same++;
    size_t times = same / round ? 1 + same / round : 0;
    if (!times)
        round = 0;
    size_t rest = 1 + round * times; /* the first run of the rest */
    size_t kept = round + runs - rest, len = ORDER_HEAD_B;
    memmove(run + 1 + round, run + rest, (runs - rest) * sizeof(*run));
    put_u32(b, (uint32_t)round);
    put_u32(b + 4, (uint32_t)times);
    put_u32(b + 8, c->tenant[run[0].gid]);
    b[12] = (uint8_t)run[0].len;
    for (unsigned w = 0; w < c->tenant_w; w++)
        for (size_t i = 0; i < kept; i++)
            b[len++] = (uint8_t)(c->tenant[run[1 + i].gid] >> (8 * w));
    for (size_t i = 0; i < kept; i++)
        b[len++] = (uint8_t)run[1 + i].len;
    return frame_add(o, SEC_ORDER, number, b, len, LEVEL, e);
}

/* A tenant's numbers take as many bytes as its places need, so the higher planes are those of some tenants only. */
static size_t put_index(const struct canon *c, uint8_t *b, const uint32_t *local,
                        const uint32_t *end)
{
    size_t len = 0;
    for (unsigned w = 0; w < 4; w++)
        for (uint32_t g = 0, from = 0; g < c->t->n_gids; from = end[g++]) {
            uint32_t places = c->first[g + 1] - c->first[g];
            if (from == end[g] || width_of(places - 1) <= w)
                continue;
            for (uint32_t i = from; i < end[g]; i++)
                b[len++] = (uint8_t)(local[i] >> (8 * w));
        }
    return len;
}

/* Working space of a frame. */
struct space {
    struct run *run;
    uint32_t *at, *local, *variant, *off;
    uint8_t *b;
};

static void space_clear(struct space *s)
{
    free(s->run);
    free(s->at);
    free(s->local);
    free(s->variant);
    free(s->off);
    free(s->b);
}

static int add_numbers(struct frame_out *o, uint32_t kind, uint32_t number, const uint32_t *v,
                       uint32_t n, unsigned w, uint8_t *b, struct err *e)
{
    for (unsigned k = 0; k < w; k++)
        for (uint32_t i = 0; i < n; i++)
            b[(size_t)k * n + i] = (uint8_t)(v[i] >> (8 * k));
    return frame_add(o, kind, number, b, (size_t)w * n, LEVEL, e);
}

/* One frame: events from..from+n. */
static int add_frame(struct frame_out *o, const struct canon *c, uint32_t number, uint64_t from,
                     uint32_t n, struct space *s, struct err *e)
{
    const struct trace *t = c->t;
    const uint32_t *ev = t->ev + from;
    int r = add_order(o, c, number, ev, n, s->run, s->b, e);
    /* where each tenant's events go; at[g] ends as the end of tenant g */
    uint32_t *at = s->at, sum = 0;
    memset(at, 0, ((size_t)t->n_gids + 1) * sizeof(*at));
    for (uint32_t i = 0; i < n; i++)
        at[t->entry[ev[i]].gid]++;
    for (uint32_t g = 0; g < t->n_gids; g++) {
        uint32_t k = at[g];
        at[g] = sum;
        sum += k;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t gid = t->entry[ev[i]].gid, pos = at[gid]++;
        s->local[pos] = c->place_of[ev[i]] - c->first[gid];
        s->variant[pos] = c->word_of[ev[i]];
        s->off[pos] = t->off ? t->off[from + i] : 0;
    }
    if (r == 0)
        r = frame_add(o, SEC_INDEX, number, s->b, put_index(c, s->b, s->local, at), LEVEL, e);
    if (r == 0)
        r = add_numbers(o, SEC_VARIANT, number, s->variant, n, c->n.variant_w, s->b, e);
    if (r == 0)
        r = add_numbers(o, SEC_OFFSETS, number, s->off, n, c->n.offset_w, s->b, e);
    return r;
}

static int save(const struct trace *t, const char *path, bool force, struct id *ret_id,
                struct err *e)
{
    CLEANUP(canon_clear) struct canon c;
    int r = canon_make(&c, t, e);
    if (r < 0)
        return path ? err_wrap(e, r, "%s", path) : r;
    size_t most = t->n < FRAME_EVENTS ? t->n : FRAME_EVENTS;
    CLEANUP(space_clear)
    struct space s = { .run = malloc((most + 1) * sizeof(*s.run)),
                       .at = malloc(((size_t)t->n_gids + 1) * sizeof(*s.at)),
                       .local = malloc((most + 1) * sizeof(*s.local)),
                       .variant = malloc((most + 1) * sizeof(*s.variant)),
                       .off = malloc((most + 1) * sizeof(*s.off)),
                       .b = malloc(5 * most + 16) };
    if (!s.run || !s.at || !s.local || !s.variant || !s.off || !s.b)
        return err_sys(e, ENOMEM, "trace");
    uint8_t header[TRACE_HEADER_B];
    header_of(&c, header);
    CLEANUP(frame_abort) struct frame_out o = { .file.fd = -1 };
    r = frame_begin(&o, &trace_kind, path, header, force, e);
    if (r == 0)
        r = add_places(&o, &c, e);
    if (r == 0)
        r = add_columns(&o, &c, SEC_CC, t->n_cc, CC_COLUMNS, cc_value, e);
    if (r == 0)
        r = add_columns(&o, &c, SEC_SLPT, t->n_slpt, SLPT_COLUMNS, slpt_value, e);
    if (r == 0)
        r = add_words(&o, &c, e);
    uint32_t number = 0;
    for (uint64_t i = 0; i < t->n && r == 0; i += FRAME_EVENTS)
        r = add_frame(&o, &c, number++, i,
                      (uint32_t)(t->n - i < FRAME_EVENTS ? t->n - i : FRAME_EVENTS), &s, e);
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
