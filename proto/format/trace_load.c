/* Reading a trace file: any bytes, quickly. The layout stands in trace_file.h.
 *
 * What costs is what is done for each event and for each place, so these loops have neither calls nor branches that depend on the
 * numbers; ranges are checked by the maximum of many numbers at once. Compiled with -O3: the compiler makes vectors of them.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/base/big.h"
#include "proto/base/clean.h"
#include "proto/format/trace_file.h"

struct loader {
    struct frame_in f;
    struct trace *t;
    struct trace_counts n;
    uint32_t n_tenants; /* those with places; only these have a number in a frame */
    unsigned tenant_w;  /* bytes of such a number */
    uint8_t *raw;       /* section buffer */
    size_t room;
    uint32_t *words; /* first word of each place, n_places + 1; NULL where entries are places */
    uint64_t *word;  /* page-table entries, n_words */
    uint32_t *first; /* first place of each tenant, n_tenants + 1 */

    /* of a frame */
    uint32_t *start;    /* of each tenant, n_tenants + 1; moves while events are spread */
    uint32_t *flat;     /* a frame's entries, tenant by tenant */
    uint32_t *flat_off; /* the same of offsets, or NULL */
    uint32_t *who; /* runs: the first, then those of a round, then those behind the last round */
    uint8_t *lens;
    uint32_t round, times, rest;
};

static void loader_clear(struct loader *l)
{
    frame_close(&l->f);
    trace_free(&l->t);
    free(l->raw);
    free(l->words);
    free(l->word);
    free(l->first);
    free(l->start);
    free(l->flat);
    free(l->flat_off);
    free(l->who);
    free(l->lens);
}

static int damage(const struct loader *l, struct err *e, const char *what)
{
    return err_set(e, SF_EINTEGRITY, "%s: trace file is damaged: %s", l->f.path, what);
}

static int no_memory(const struct loader *l, struct err *e)
{
    return err_sys(e, ENOMEM, "%s", l->f.path);
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
                                   .early_end = get_u32(h + 72) };
    t->n = get_u64(h + 40);
    t->n_cc = get_u64(h + 48);
    t->n_slpt = get_u64(h + 56);
    t->n_gids = get_u32(h + 76);
    l->n = (struct trace_counts){ .n_addr = get_u32(h + 80),
                                  .n_places = get_u32(h + 84),
                                  .n_words = get_u32(h + 88),
                                  .variant_w = get_u32(h + 92),
                                  .offset_w = get_u32(h + 96) };
    uint64_t frames = (t->n + FRAME_EVENTS - 1) / FRAME_EVENTS;
    if (t->n >= UINT32_MAX || l->n.n_addr > l->n.n_places || l->n.n_places > l->n.n_words ||
        l->n.n_words > t->n || l->n.variant_w > 4 || l->n.offset_w > 3 ||
        l->f.n != SEC_TABLES + SEC_FRAME * frames || t->head.tenants > t->n_gids ||
        t->n_gids > (uint64_t)l->n.n_places + TRACE_IDLE_MAX)
        return damage(l, e, "its header is impossible");
    return 0;
}

/* ---- planes and columns */

/* Planes of n bytes, the lowest bytes first, back to numbers. */
static void join(uint32_t *restrict out, const uint8_t *restrict p, size_t n, unsigned w)
{
    switch (w) {
    case 0:
        memset(out, 0, n * sizeof(*out));
        break;
    case 1:
        for (size_t i = 0; i < n; i++)
            out[i] = p[i];
        break;
    case 2:
        for (size_t i = 0; i < n; i++)
            out[i] = (uint32_t)p[i] | (uint32_t)p[n + i] << 8;
        break;
    case 3:
        for (size_t i = 0; i < n; i++)
            out[i] = (uint32_t)p[i] | (uint32_t)p[n + i] << 8 | (uint32_t)p[2 * n + i] << 16;
        break;
    default:
        for (size_t i = 0; i < n; i++)
            out[i] = (uint32_t)p[i] | (uint32_t)p[n + i] << 8 | (uint32_t)p[2 * n + i] << 16 |
                     (uint32_t)p[3 * n + i] << 24;
        break;
    }
}

/* A cursor over the bytes of a section. */
struct bytes {
    const uint8_t *p, *end;
};

/* n values of a column. False where the bytes do not hold them. */
static bool get_column(struct bytes *b, uint64_t *restrict out, size_t n)
{
    if (b->end - b->p < COLUMN_HEAD_B)
        return false;
    unsigned w = b->p[0];
    uint64_t v = get_u64(b->p + 1);
    const uint8_t *restrict p = b->p + COLUMN_HEAD_B;
    size_t left = (size_t)(b->end - p), k = n ? n - 1 : 0;
    if (w > 8 || (w && k > left / w))
        return false;
    b->p = p + w * k;
    if (!n)
        return true;
    *out++ = v;
    if (!w) {
        for (size_t i = 0; i < k; i++)
            out[i] = v;
        return true;
    }
    for (size_t i = 0; i < k; i++)
        out[i] = p[i];
    for (unsigned plane = 1; plane < w; plane++)
        for (size_t i = 0; i < k; i++)
            out[i] |= (uint64_t)p[plane * k + i] << (8 * plane);
    for (size_t i = 0; i < k; i++)
        out[i] = v = unzigzag(out[i], v);
    return true;
}

static int section(struct loader *l, uint64_t i, uint32_t kind, uint32_t number, struct bytes *ret,
                   struct err *e)
{
    size_t len = 0;
    int r = frame_read(&l->f, i, kind, number, &l->raw, &l->room, &len, e);
    *ret = (struct bytes){ l->raw, r < 0 ? l->raw : l->raw + len };
    return r;
}

/* ---- what only an export reads */

static void set_cc(struct trace *t, unsigned k, const uint64_t *v)
{
    struct trace_cc *x = t->cc;
    size_t n = t->n_cc;
    for (size_t i = 0; k == CC_SID && i < n; i++)
        x[i].sid = (uint32_t)v[i];
    for (size_t i = 0; k == CC_HIGH && i < n; i++)
        x[i].high = v[i];
    for (size_t i = 0; k == CC_LOW && i < n; i++)
        x[i].low = v[i];
    for (size_t i = 0; k == CC_GEN && i < n; i++)
        x[i].gen = (uint32_t)v[i];
}

static void set_slpt(struct trace *t, unsigned k, const uint64_t *v)
{
    struct trace_slpt *x = t->slpt;
    size_t n = t->n_slpt;
    for (size_t i = 0; k == SLPT_DID && i < n; i++)
        x[i].did = (uint32_t)v[i];
    for (size_t i = 0; k == SLPT_LEVEL && i < n; i++)
        x[i].level = v[i];
    for (size_t i = 0; k == SLPT_IOVA && i < n; i++)
        x[i].iova = v[i] << 12;
    for (size_t i = 0; k == SLPT_IOVA_LOW && i < n; i++)
        x[i].iova |= v[i] & 0xfff;
    for (size_t i = 0; k == SLPT_SLPTE && i < n; i++)
        x[i].slpte = v[i] << 12;
    for (size_t i = 0; k == SLPT_SLPTE_LOW && i < n; i++)
        x[i].slpte |= v[i] & 0xfff;
    for (size_t i = 0; k == SLPT_BASE && i < n; i++)
        x[i].base = v[i];
    for (size_t i = 0; k == SLPT_ADDR && i < n; i++)
        x[i].entry_addr = v[i] + slot_of(&x[i]);
}

static int read_columns(struct loader *l, uint32_t kind, size_t n, unsigned columns,
                        void (*set)(struct trace *t, unsigned k, const uint64_t *v), struct err *e)
{
    CLEANUP(freep) uint64_t *v = malloc((n + 1) * sizeof(*v));
    struct bytes b;
    int r = v ? section(l, kind - 1, kind, 0, &b, e) : no_memory(l, e);
    if (r < 0)
        return r;
    for (unsigned k = 0; k < columns; k++) {
        if (!get_column(&b, v, n))
            return damage(l, e, "a table is too short");
        set(l->t, k, v);
    }
    return b.p == b.end ? 0 : damage(l, e, "a table is too long");
}

static int read_words(struct loader *l, struct err *e)
{
    size_t n = l->n.n_words, places = l->n.n_places;
    struct bytes b;
    int r = section(l, SEC_WORDS - 1, SEC_WORDS, 0, &b, e);
    if (r < 0)
        return r;
    unsigned w = l->n.variant_w;
    if (w && places > (size_t)(b.end - b.p) / w)
        return damage(l, e, "a table is too short");
    l->words = big_alloc((places + 1) * sizeof(*l->words));
    l->word = big_alloc((n + 1) * sizeof(*l->word));
    CLEANUP(freep) uint64_t *low = malloc((n + 1) * sizeof(*low));
    if (!l->words || !l->word || !low)
        return no_memory(l, e);
    join(l->words, b.p, places, w);
    b.p += places * w;
    uint64_t sum = 0;
    for (size_t i = 0; i < places; i++) {
        uint64_t k = (uint64_t)l->words[i] + 1;
        l->words[i] = (uint32_t)sum;
        sum += k;
    }
    l->words[places] = (uint32_t)sum;
    if (sum != n || !get_column(&b, l->word, n) || !get_column(&b, low, n) || b.p != b.end)
        return damage(l, e, "its page-table entries do not fit");
    for (size_t i = 0; i < n; i++)
        l->word[i] = l->word[i] << 12 | (low[i] & 0xfff);
    return 0;
}

/* The first column of a table has a byte a record at least, so their number is known to fit before memory is reserved. */
static int read_export(struct loader *l, struct err *e)
{
    struct trace *t = l->t;
    uint64_t raw[2];
    int r = frame_check(&l->f, SEC_CC - 1, SEC_CC, 0, &raw[0], e);
    if (r == 0)
        r = frame_check(&l->f, SEC_SLPT - 1, SEC_SLPT, 0, &raw[1], e);
    if (r == 0 && (t->n_cc > raw[0] || t->n_slpt > raw[1]))
        r = damage(l, e, "a table is too short");
    if (r < 0)
        return r;
    t->cc = calloc(t->n_cc + 1, sizeof(*t->cc));
    t->slpt = big_alloc((t->n_slpt + 1) * sizeof(*t->slpt));
    if (!t->cc || !t->slpt)
        return no_memory(l, e);
    r = read_columns(l, SEC_CC, t->n_cc, CC_COLUMNS, set_cc, e);
    if (r == 0)
        r = read_columns(l, SEC_SLPT, t->n_slpt, SLPT_COLUMNS, set_slpt, e);
    return r < 0 ? r : read_words(l, e);
}

/* ---- places */

struct stretch_table {
    uint32_t n;
    uint64_t *v[STRETCH_COLUMNS];
    uint64_t *addr;
    const uint8_t *gap;
    unsigned gap_w;
};

static bool class_above(const struct stretch_table *s, uint32_t i)
{
    static const int order[] = { STRETCH_GID, STRETCH_SID, STRETCH_MASK, STRETCH_LEVEL };
    for (size_t k = 0; k < ARRAY_LEN(order); k++)
        if (s->v[order[k]][i] != s->v[order[k]][i - 1])
            return s->v[order[k]][i] > s->v[order[k]][i - 1];
    return false;
}

/* The entries of places from..to-1, whose addresses start with number `at`; now holds what they share. Returns whether all
 * addresses are there; *odd collects the bits of an address that its mask takes away. */
static bool make_entries(struct loader *l, const uint64_t *restrict addr,
                         const uint32_t *restrict gap, uint32_t n, uint64_t at,
                         struct trace_entry now, uint32_t place, uint32_t *entry, uint64_t *odd)
{
    struct trace_entry *restrict x = l->t->entry + *entry;
    uint32_t *restrict key = l->t->key_addr + *entry;
    uint64_t n_addr = l->n.n_addr, any = 0;
    if (l->words) {
        for (uint32_t i = 0; i < n; i++) {
            at += i ? (uint64_t)gap[i] + 1 : 0;
            if (at >= n_addr)
                return false;
            now.iova = addr[at];
            any |= now.iova;
            for (uint32_t w = l->words[place + i]; w < l->words[place + i + 1]; w++) {
                now.slpte = l->word[w];
                *x++ = now;
                *key++ = (uint32_t)at;
                (*entry)++;
            }
        }
    } else {
        for (uint32_t i = 0; i < n; i++) {
            at += i ? (uint64_t)gap[i] + 1 : 0;
            if (at >= n_addr)
                return false;
            now.iova = addr[at];
            any |= now.iova;
            x[i] = now;
            key[i] = (uint32_t)at;
        }
        *entry += n;
    }
    *odd |= any & ~now.mask;
    return true;
}

static int fill_places(struct loader *l, const struct stretch_table *s, struct keys *k,
                       uint32_t *gap, struct err *e)
{
    struct trace *t = l->t;
    uint32_t place = 0, entry = 0;
    uint64_t odd = 0;
    bool single = true; /* of the current tenant, the stretches so far */
    for (uint32_t i = 0; i < s->n; i++) {
        uint64_t gid = s->v[STRETCH_GID][i], sid = s->v[STRETCH_SID][i],
                 level = s->v[STRETCH_LEVEL][i], n = s->v[STRETCH_LEN][i];
        if (gid >= t->n_gids || sid > UINT32_MAX || level > 3 || !n || n > l->n.n_places - place ||
            (i && !class_above(s, i)))
            return damage(l, e, "its places are not in order");
        single = (!i || s->v[STRETCH_GID][i - 1] != gid) &&
                 (i + 1 == s->n || s->v[STRETCH_GID][i + 1] != gid);
        uint32_t from = entry;
        const struct trace_entry now = { .mask = s->v[STRETCH_MASK][i],
                                         .sid = (uint32_t)sid,
                                         .gid = (uint32_t)gid,
                                         .level = (uint8_t)level };
        if (!make_entries(l, s->addr, gap + place, (uint32_t)n, s->v[STRETCH_ADDR][i], now, place,
                          &entry, &odd))
            return damage(l, e, "its places do not fit");
        keys_stretch(k, from, entry, single);
        place += (uint32_t)n;
        if (i + 1 == s->n || s->v[STRETCH_GID][i + 1] != gid)
            l->first[++l->n_tenants] = place;
    }
    if (place != l->n.n_places)
        return damage(l, e, "its places do not fit");
    l->tenant_w = width_of(l->n_tenants ? l->n_tenants - 1 : 0);
    /* equal pages have equal addresses, so the table's numbers are the keys; not where a page is larger than a piece */
    if (odd)
        keys_addresses(k);
    else
        t->n_addr = l->n.n_addr;
    return 0;
}

static int read_places(struct loader *l, struct err *e)
{
    static const char misfit[] = "its places do not fit";
    struct trace *t = l->t;
    struct bytes b;
    int r = section(l, SEC_PLACES - 1, SEC_PLACES, 0, &b, e);
    if (r < 0)
        return r;
    if (b.end - b.p < 5)
        return damage(l, e, misfit);
    struct stretch_table s = { .n = get_u32(b.p), .gap_w = b.p[4] };
    b.p += 5;
    size_t len = (size_t)(b.end - b.p), n_addr = l->n.n_addr, n = l->n.n_places;
    /* addresses and tenants differ from one to the next, which takes a byte each */
    if (s.gap_w > 4 || s.n > n || n_addr > len || s.n > len || (s.gap_w && n > len / s.gap_w))
        return damage(l, e, misfit);
    CLEANUP(freep)
    uint64_t *v = malloc((n_addr + (size_t)STRETCH_COLUMNS * s.n + 1) * sizeof(*v));
    CLEANUP(freep) uint32_t *gap = malloc((n + 1) * sizeof(*gap));
    t->n_entries = l->words ? l->n.n_words : l->n.n_places;
    t->entry = big_alloc(((size_t)t->n_entries + 1) * sizeof(*t->entry));
    l->first = calloc((size_t)s.n + 1, sizeof(*l->first));
    if (!v || !gap || !t->entry || !l->first)
        return no_memory(l, e);
    s.addr = v;
    bool fits = get_column(&b, s.addr, n_addr);
    for (unsigned k = 0; fits && k < STRETCH_COLUMNS; k++) {
        s.v[k] = v + n_addr + (size_t)k * s.n;
        fits = get_column(&b, s.v[k], s.n);
    }
    if (!fits || (size_t)(b.end - b.p) != n * s.gap_w)
        return damage(l, e, misfit);
    for (size_t i = 1; i < n_addr; i++)
        if (s.addr[i] <= s.addr[i - 1])
            return damage(l, e, "its addresses are not in order");
    join(gap, b.p, n, s.gap_w);
    struct keys k;
    r = keys_begin(&k, t, e);
    if (r < 0)
        return r;
    r = fill_places(l, &s, &k, gap, e);
    int r2 = keys_end(&k, e);
    return r < 0 ? r : r2;
}

/* ---- frames */

/* Runs of the frame, and where each tenant's events start. */
static int read_order(struct loader *l, uint64_t i, uint32_t number, uint32_t n, struct err *e)
{
    static const char misfit[] = "the order of a frame does not fit";
    struct bytes b;
    int r = section(l, i, SEC_ORDER, number, &b, e);
    if (r < 0)
        return r;
    size_t len = (size_t)(b.end - b.p), runs = (len - ORDER_HEAD_B) / (l->tenant_w + 1);
    uint32_t tenants = l->n_tenants, *start = l->start;
    if (len < ORDER_HEAD_B || runs >= n || runs * (l->tenant_w + 1) != len - ORDER_HEAD_B)
        return damage(l, e, misfit);
    l->round = get_u32(b.p);
    l->times = get_u32(b.p + 4);
    l->who[0] = get_u32(b.p + 8);
    l->lens[0] = b.p[12];
    b.p += ORDER_HEAD_B;
    if (l->round > runs || l->times > n)
        return damage(l, e, misfit);
    l->rest = (uint32_t)runs - l->round;
    join(l->who + 1, b.p, runs, l->tenant_w);
    memcpy(l->lens + 1, b.p + runs * l->tenant_w, runs);
    memset(start, 0, ((size_t)tenants + 1) * sizeof(*start));
    uint64_t all = 0;
    for (size_t k = 0; k <= runs; k++) {
        uint64_t events = l->lens[k] * (uint64_t)(k && k <= l->round ? l->times : 1);
        if (l->who[k] >= tenants || !l->lens[k] || (all += events) > n)
            return damage(l, e, misfit);
        start[l->who[k] + 1] += (uint32_t)events;
    }
    if (all != n)
        return damage(l, e, misfit);
    for (uint32_t g = 0; g < tenants; g++)
        start[g + 1] += start[g];
    return 0;
}

/* Numbers that stand tenant by tenant in l->flat, in the order of the events: n runs of them. All arrays have room for three more:
 * what is copied too much is written over by the next run. */
static inline __attribute__((always_inline)) void spread_runs(const struct loader *l, size_t run,
                                                              size_t n, uint32_t **ev,
                                                              uint32_t **off, bool with_off)
{
    const uint32_t *restrict who = l->who + run, *restrict flat = l->flat,
                             *restrict far = l->flat_off;
    const uint8_t *restrict lens = l->lens + run;
    uint32_t *restrict at = l->start, *restrict to = *ev, *restrict to_off = *off;
    for (size_t k = 0; k < n; k++) {
        uint32_t len = lens[k], from = at[who[k]];
        at[who[k]] = from + len;
        uint32_t i = 0;
        do {
            memcpy(to + i, flat + from + i, 4 * sizeof(*to));
            if (with_off)
                memcpy(to_off + i, far + from + i, 4 * sizeof(*to));
            i += 4;
        } while (__builtin_expect(i < len, 0));
        to += len;
        if (with_off)
            to_off += len;
    }
    *ev = to;
    *off = to_off;
}

static void spread(struct loader *l, uint32_t *ev, uint32_t *off)
{
    const size_t from[] = { 0, 1, 1 + (size_t)l->round }, n[] = { 1, l->round, l->rest };
    for (int part = 0; part < 3; part++)
        for (uint32_t i = part == 1 ? l->times : 1; i; i--)
            if (off)
                spread_runs(l, from[part], n[part], &ev, &off, true);
            else
                spread_runs(l, from[part], n[part], &ev, &off, false);
}

/* Places of one tenant, counted from its first, to numbers of the table. Returns the greatest. */
static uint32_t place_numbers(uint32_t *restrict out, const uint8_t *const *plane, uint32_t n,
                              unsigned w, uint32_t base)
{
    uint32_t most = 0;
    const uint8_t *restrict a = plane[0], *restrict b = plane[1], *restrict c = plane[2],
                            *restrict d = plane[3];
    switch (w) {
    case 0:
        for (uint32_t i = 0; i < n; i++)
            out[i] = base;
        break;
    case 1: {
        uint8_t m = 0;
        for (uint32_t i = 0; i < n; i++) {
            m = a[i] > m ? a[i] : m;
            out[i] = base + a[i];
        }
        most = m;
        break;
    }
    case 2:
        for (uint32_t i = 0; i < n; i++) {
            int32_t v = a[i] | b[i] << 8;
            most = (uint32_t)(v > (int32_t)most ? v : (int32_t)most);
            out[i] = base + (uint32_t)v;
        }
        break;
    default:
        for (uint32_t i = 0; i < n; i++) {
            uint32_t v = (uint32_t)a[i] | (uint32_t)b[i] << 8 | (uint32_t)c[i] << 16 |
                         (w > 3 ? (uint32_t)d[i] << 24 : 0);
            most = v > most ? v : most;
            out[i] = base + v;
        }
        break;
    }
    return most;
}

static int read_index(struct loader *l, uint64_t i, uint32_t number, uint32_t n, struct err *e)
{
    static const char misfit[] = "the places of a frame do not fit";
    struct bytes b;
    int r = section(l, i, SEC_INDEX, number, &b, e);
    if (r < 0)
        return r;
    uint64_t len[4] = { 0 };
    for (uint32_t g = 0; g < l->n_tenants; g++) {
        uint32_t events = l->start[g + 1] - l->start[g], places = l->first[g + 1] - l->first[g];
        for (unsigned w = width_of(places - 1), k = 0; k < w; k++)
            len[k] += events;
    }
    if ((uint64_t)(b.end - b.p) != len[0] + len[1] + len[2] + len[3])
        return damage(l, e, misfit);
    const uint8_t *plane[4] = { b.p };
    for (int k = 1; k < 4; k++)
        plane[k] = plane[k - 1] + len[k - 1];
    uint32_t bad = 0;
    for (uint32_t g = 0; g < l->n_tenants; g++) {
        uint32_t from = l->start[g], events = l->start[g + 1] - from, base = l->first[g],
                 places = l->first[g + 1] - base;
        if (!events)
            continue;
        unsigned w = width_of(places - 1);
        bad |= place_numbers(l->flat + from, plane, events, w, base) >= places;
        for (unsigned k = 0; k < w; k++)
            plane[k] += events;
    }
    (void)n;
    return bad ? damage(l, e, misfit) : 0;
}

/* Places in l->flat become entries. */
static int read_variants(struct loader *l, uint64_t i, uint32_t number, uint32_t n, struct err *e)
{
    static const char misfit[] = "the page-table entries of a frame do not fit";
    struct bytes b;
    int r = section(l, i, SEC_VARIANT, number, &b, e);
    if (r < 0)
        return r;
    unsigned w = l->n.variant_w;
    if ((size_t)(b.end - b.p) != (size_t)w * n)
        return damage(l, e, misfit);
    uint32_t *restrict flat = l->flat, bad = 0;
    const uint32_t *restrict words = l->words;
    const uint8_t *restrict p = b.p;
    if (w < 2) {
        for (uint32_t k = 0; k < n; k++) {
            uint32_t place = flat[k], v = w ? p[k] : 0, base = words[place];
            bad |= v >= words[place + 1] - base;
            flat[k] = base + v;
        }
        return bad ? damage(l, e, misfit) : 0;
    }
    CLEANUP(freep) uint32_t *more = malloc(n * sizeof(*more));
    if (!more)
        return no_memory(l, e);
    join(more, p, n, w);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t place = flat[k], v = more[k], base = words[place];
        bad |= v >= words[place + 1] - base;
        flat[k] = base + v;
    }
    return bad ? damage(l, e, misfit) : 0;
}

static int read_offsets(struct loader *l, uint64_t i, uint32_t number, uint32_t n, struct err *e)
{
    struct bytes b;
    int r = section(l, i, SEC_OFFSETS, number, &b, e);
    if (r < 0)
        return r;
    if ((size_t)(b.end - b.p) != (size_t)l->n.offset_w * n)
        return damage(l, e, "the offsets of a frame do not fit");
    join(l->flat_off, b.p, n, l->n.offset_w);
    return 0;
}

static int read_frame(struct loader *l, uint32_t number, uint32_t n, struct err *e)
{
    struct trace *t = l->t;
    uint64_t from = (uint64_t)number * FRAME_EVENTS, i = SEC_TABLES + SEC_FRAME * (uint64_t)number,
             raw_b;
    int r = read_order(l, i, number, n, e);
    if (r == 0)
        r = read_index(l, i + 1, number, n, e);
    if (r == 0)
        r = l->words ? read_variants(l, i + 2, number, n, e)
                     : frame_check(&l->f, i + 2, SEC_VARIANT, number, &raw_b, e);
    if (r == 0)
        r = t->off ? read_offsets(l, i + 3, number, n, e)
                   : frame_check(&l->f, i + 3, SEC_OFFSETS, number, &raw_b, e);
    if (r == 0)
        spread(l, t->ev + from, t->off ? t->off + from : NULL);
    return r;
}

static int load(struct loader *l, unsigned flags, struct err *e)
{
    struct trace *t = l->t;
    int r = read_header(l, e);
    uint64_t raw_b;
    if (r == 0 && flags & TRACE_WITH_EXPORT) {
        r = read_export(l, e);
    } else if (r == 0) {
        t->n_cc = t->n_slpt = 0;
        for (uint32_t k = SEC_CC; k <= SEC_WORDS && r == 0; k++)
            r = frame_check(&l->f, k - 1, k, 0, &raw_b, e);
    }
    if (r == 0)
        r = read_places(l, e);
    if (r < 0)
        return r;
    size_t most = t->n < FRAME_EVENTS ? t->n : FRAME_EVENTS, tenants = (size_t)l->n_tenants + 1;
    l->start = malloc(tenants * sizeof(*l->start));
    l->flat = big_alloc((most + 4) * sizeof(*l->flat));
    l->who = malloc((most + 1) * sizeof(*l->who));
    l->lens = malloc(most + 1);
    t->ev = big_alloc((t->n + 4) * sizeof(*t->ev));
    if (flags & TRACE_WITH_OFFSETS) {
        t->off = big_alloc((t->n + 4) * sizeof(*t->off));
        l->flat_off = big_alloc((most + 4) * sizeof(*l->flat_off));
    }
    if (!l->start || !l->flat || !l->who || !l->lens || !t->ev ||
        (flags & TRACE_WITH_OFFSETS && (!t->off || !l->flat_off)))
        return no_memory(l, e);
    uint32_t number = 0;
    for (uint64_t i = 0; i < t->n && r == 0; i += FRAME_EVENTS, number++)
        r = read_frame(l, number, (uint32_t)(t->n - i < FRAME_EVENTS ? t->n - i : FRAME_EVENTS), e);
    return r;
}

static int load_opened(struct loader *l, unsigned flags, struct trace **ret, struct err *e)
{
    l->t = calloc(1, sizeof(*l->t));
    int r = l->t ? load(l, flags, e) : no_memory(l, e);
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
