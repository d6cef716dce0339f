#include "perf/mrc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

#define PPM 1000000u
#define ALWAYS_INLINE inline __attribute__((always_inline))

void mrc_clear(struct mrc *m)
{
    free(m->count);
    free(m->group_count);
    free(m->group_cold);
    free(m->group_uses);
    *m = (struct mrc){ 0 };
}

/* ---- stack distances
 *
 * Time is a row of places; each page has one mark, at the place of its last use. The distance of an access is the number of
 * marks behind its page's. Marks are bits; a Fenwick tree counts them by blocks of 512, without the block being filled, so that near
 * reuse never sees the tree. When the row is full, the marks move together at its start. */

enum { BLOCK = 512, WORDS = BLOCK / 64 };
#define NONE UINT32_MAX

struct stack {
    uint64_t *bits;                    /* room bits */
    uint32_t *tree;                    /* Fenwick over blocks, 1-based */
    uint32_t *page;                    /* by place: whose mark may be there */
    uint32_t *last;                    /* by page: place of its mark, NONE = not seen */
    uint32_t room, blocks, now, marks; /* marks: pages seen */
};

static void stack_clear(struct stack *s)
{
    free(s->bits);
    free(s->tree);
    free(s->page);
    free(s->last);
    *s = (struct stack){ 0 };
}

static int stack_init(struct stack *s, uint32_t pages)
{
    /* four places a page: moving together costs little, and a small row stays in the cache */
    uint64_t room = ((uint64_t)pages * 4 + 4 * BLOCK) / BLOCK * BLOCK;
    if (room >= NONE)
        return -ENOMEM;
    *s = (struct stack){ .room = (uint32_t)room, .blocks = (uint32_t)(room / BLOCK) };
    s->bits = calloc(room / 64, sizeof(*s->bits));
    s->tree = calloc(s->blocks + 1u, sizeof(*s->tree));
    s->page = malloc(room * sizeof(*s->page));
    s->last = malloc(((size_t)pages + 1) * sizeof(*s->last));
    if (!s->bits || !s->tree || !s->page || !s->last)
        return -ENOMEM;
    memset(s->last, 0xff, ((size_t)pages + 1) * sizeof(*s->last));
    return 0;
}

static void tree_add(struct stack *s, uint32_t block, uint32_t v)
{
    for (uint32_t i = block + 1; i <= s->blocks; i += i & -i)
        s->tree[i] += v;
}

static uint32_t tree_before(const struct stack *s, uint32_t block)
{
    uint32_t sum = 0;
    for (uint32_t i = block; i; i &= i - 1)
        sum += s->tree[i];
    return sum;
}

static ALWAYS_INLINE uint32_t block_marks(const struct stack *s, uint32_t block)
{
    uint32_t sum = 0;
    for (unsigned w = 0; w < WORDS; w++)
        sum += (uint32_t)__builtin_popcountll(s->bits[block * WORDS + w]);
    return sum;
}

/* The row is full: marks close ranks. */
static void stack_compact(struct stack *s)
{
    uint32_t to = 0;
    for (uint32_t w = 0; w < s->room / 64; w++)
        for (uint64_t b = s->bits[w]; b; b &= b - 1) {
            uint32_t page = s->page[w * 64 + (uint32_t)__builtin_ctzll(b)];
            s->page[to] = page;
            s->last[page] = to++;
        }
    memset(s->bits, 0, s->room / 64 * sizeof(*s->bits));
    for (uint32_t i = 0; i < to; i++)
        s->bits[i / 64] |= 1ull << i % 64;
    s->now = to;
    memset(s->tree, 0, (s->blocks + 1u) * sizeof(*s->tree));
    for (uint32_t b = 0; b < to / BLOCK; b++)
        tree_add(s, b, BLOCK);
}

/* Use a page. Returns its distance, or NONE at its first use. */
static ALWAYS_INLINE uint32_t stack_use(struct stack *s, uint32_t page)
{
    uint32_t at = s->last[page], distance = NONE, current = s->now / BLOCK;
    if (at != NONE) {
        uint32_t block = at / BLOCK, w = at / 64, sum = 0;
        uint64_t bit = 1ull << at % 64;
        sum = (uint32_t)__builtin_popcountll(s->bits[w] & -(bit << 1) & -(uint64_t)(at % 64 != 63));
        uint32_t end = (block + 1) * WORDS;
        for (uint32_t i = w + 1; i < end; i++)
            sum += (uint32_t)__builtin_popcountll(s->bits[i]);
        s->bits[w] &= ~bit;
        if (block == current) {
            distance = sum;
        } else {
            /* all marks but those of the blocks up to this one; the current block is not in the tree */
            distance = sum + (s->marks - tree_before(s, block + 1));
            tree_add(s, block, -1u);
        }
    } else {
        s->marks++;
    }
    s->bits[s->now / 64] |= 1ull << s->now % 64;
    s->page[s->now] = page;
    s->last[page] = s->now++;
    if (s->now % BLOCK == 0) {
        tree_add(s, current, block_marks(s, current));
        if (s->now == s->room)
            stack_compact(s);
    }
    return distance;
}

/* Uses of `pages[i]`, or of `pages[ev[i]]` with ev. */
static ALWAYS_INLINE void use_all(struct stack *s, const uint32_t *ev, const uint32_t *pages,
                                  uint64_t n, struct mrc *m)
{
    for (uint64_t i = 0; i < n; i++) {
        uint32_t d = stack_use(s, pages[ev ? ev[i] : i]);
        if (d == NONE)
            m->cold++;
        else
            m->count[d]++;
    }
}

/* Counting bits is half of the work, and the plain instruction set has none for it. */
#if defined(__x86_64__)
__attribute__((target("popcnt"))) static void use_all_popcnt(struct stack *s, const uint32_t *ev,
                                                             const uint32_t *pages, uint64_t n,
                                                             struct mrc *m)
{
    use_all(s, ev, pages, n, m);
}
#endif

static void use_all_best(struct stack *s, const uint32_t *ev, const uint32_t *pages, uint64_t n,
                         struct mrc *m)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("popcnt")) {
        use_all_popcnt(s, ev, pages, n, m);
        return;
    }
#endif
    use_all(s, ev, pages, n, m);
}

/* ---- curves */

static int mrc_init(struct mrc *m, const struct trace *t, uint64_t sets, uint64_t ppm,
                    size_t distances, struct err *e)
{
    *m = (struct mrc){ .events = t->n, .sets = sets, .ppm = ppm, .n = distances };
    m->count = calloc(distances + 1, sizeof(*m->count));
    if (ppm < PPM) {
        m->group_count = calloc((distances + 1) * MRC_GROUPS, sizeof(*m->group_count));
        m->group_cold = calloc(MRC_GROUPS, sizeof(*m->group_cold));
        m->group_uses = calloc(MRC_GROUPS, sizeof(*m->group_uses));
    }
    if (!m->count || (ppm < PPM && (!m->group_count || !m->group_cold || !m->group_uses))) {
        mrc_clear(m);
        return err_sys(e, ENOMEM, "miss-ratio curve of %zu sizes", distances);
    }
    return 0;
}

int mrc_full(const struct trace *t, struct mrc *ret, struct err *e)
{
    CLEANUP(stack_clear) struct stack s = { 0 };
    int r = mrc_init(ret, t, 1, PPM, t->n_page, e);
    if (r < 0)
        return r;
    if (stack_init(&s, t->n_page) < 0) {
        mrc_clear(ret);
        return err_sys(e, ENOMEM, "%u pages", t->n_page);
    }
    use_all_best(&s, t->ev, t->key_page, t->n, ret);
    ret->sampled = t->n;
    return 0;
}

int mrc_sets(const struct trace *t, uint64_t sets, struct mrc *ret, struct err *e)
{
    if (!sets || sets & (sets - 1) || sets > 1u << 24)
        return err_set(e, SF_EUSAGE, "sets: %llu is not a power of two up to 2^24",
                       (unsigned long long)sets);
    if (sets == 1)
        return mrc_full(t, ret, e);
    CLEANUP(stack_clear) struct stack s = { 0 };
    CLEANUP(freep) uint32_t *page = malloc((t->n + 1) * sizeof(*page));
    CLEANUP(freep) uint64_t *from = calloc(sets + 1, sizeof(*from));
    int r = mrc_init(ret, t, sets, PPM, t->n_page, e);
    if (r < 0)
        return r;
    /* accesses of one set after the other: each set is a small full cache, and one structure serves all */
    if (!page || !from || stack_init(&s, t->n_page) < 0) {
        mrc_clear(ret);
        return err_sys(e, ENOMEM, "%llu events", (unsigned long long)t->n);
    }
    for (uint64_t i = 0; i < t->n; i++)
        from[((t->entry[t->ev[i]].iova >> 21) & (sets - 1)) + 1]++;
    for (uint64_t k = 0; k < sets; k++)
        from[k + 1] += from[k];
    for (uint64_t i = 0; i < t->n; i++)
        page[from[(t->entry[t->ev[i]].iova >> 21) & (sets - 1)]++] = t->key_page[t->ev[i]];
    uint64_t i = 0;
    for (uint64_t k = 0; k < sets; k++) { /* from[k] is now the end of set k */
        uint64_t start = i;
        use_all_best(&s, NULL, page + start, from[k] - start, ret);
        i = from[k];
        /* forget this set */
        uint32_t used = s.now / BLOCK + 1 < s.blocks ? s.now / BLOCK + 1 : s.blocks;
        for (uint64_t x = start; x < i; x++)
            s.last[page[x]] = NONE;
        memset(s.bits, 0, used * (BLOCK / 8));
        if (s.now >= BLOCK)
            memset(s.tree, 0, (s.blocks + 1u) * sizeof(*s.tree));
        s.now = s.marks = 0;
    }
    ret->sampled = t->n;
    return 0;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

int mrc_sample(const struct trace *t, uint64_t ppm, struct mrc *ret, struct err *e)
{
    if (ppm < 1 || ppm > PPM)
        return err_set(e, SF_EUSAGE, "sample: %llu is not in 1..1000000", (unsigned long long)ppm);
    if (ppm == PPM)
        return mrc_full(t, ret, e);
    CLEANUP(stack_clear) struct stack s = { 0 };
    /* by page and by entry: number among the chosen pages, NONE = not chosen */
    CLEANUP(freep) uint32_t *chosen = malloc(((size_t)t->n_page + 1) * sizeof(*chosen));
    CLEANUP(freep) uint32_t *entry = malloc(((size_t)t->n_entries + 1) * sizeof(*entry));
    CLEANUP(freep) uint8_t *wanted = calloc((size_t)t->n_entries + 1, 1);
    CLEANUP(freep) uint8_t *group = malloc((size_t)t->n_page + 1);
    if (!chosen || !entry || !wanted || !group)
        return err_sys(e, ENOMEM, "%u pages", t->n_page);
    memset(chosen, 0xff, ((size_t)t->n_page + 1) * sizeof(*chosen));
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_entries; i++) {
        uint32_t page = t->key_page[i];
        if (chosen[page] == NONE) {
            /* by what the page is, not by its number: the same pages whatever the order of the trace */
            uint64_t h = mix(mix((t->entry[i].iova & t->entry[i].mask) + 0x9e3779b97f4a7c15u) +
                             t->entry[i].gid);
            if (((h >> 32) * PPM) >> 32 >= ppm)
                continue;
            group[n] = h & (MRC_GROUPS - 1);
            chosen[page] = n++;
        }
        entry[i] = chosen[page];
        wanted[i] = 1;
    }
    int r = mrc_init(ret, t, 1, ppm, n, e);
    if (r < 0)
        return r;
    if (stack_init(&s, n) < 0) {
        mrc_clear(ret);
        return err_sys(e, ENOMEM, "%u pages", n);
    }
    for (uint64_t i = 0; i < t->n; i++) {
        uint32_t at = t->ev[i];
        if (__builtin_expect(!wanted[at], 1))
            continue;
        uint32_t page = entry[at], d = stack_use(&s, page);
        ret->sampled++;
        ret->group_uses[group[page]]++;
        if (d == NONE) {
            ret->cold++;
            ret->group_cold[group[page]]++;
        } else {
            ret->count[d]++;
            ret->group_count[(size_t)d * MRC_GROUPS + group[page]]++;
        }
    }
    return 0;
}

/* Accesses in the histogram that a cache of `size` (in units of the histogram's own distances) misses. */
static uint64_t misses(const struct mrc *m, uint64_t size)
{
    uint64_t v = m->cold;
    for (size_t d = size < m->n ? (size_t)size : m->n; d < m->n; d++)
        v += m->count[d];
    return v;
}

struct mrc_point mrc_at(const struct mrc *m, uint64_t size)
{
    struct mrc_point p = { .entries = size * m->sets, .ways = size };
    if (!m->events)
        return p;
    if (m->ppm == PPM) {
        p.miss_ppm = (uint64_t)((unsigned __int128)misses(m, size) * PPM / m->events);
        return p;
    }
    /* A distance d among the chosen pages stands for d / rate; an access for 1 / rate accesses. */
    double rate = (double)m->ppm / PPM, expected = (double)m->events * rate;
    uint64_t s = (uint64_t)ceil((double)size * rate);
    size_t from = s < m->n ? (size_t)s : m->n;
    double miss[MRC_GROUPS], uses[MRC_GROUPS], mean_m = 0, mean_u = 0, mm = 0, mu = 0, uu = 0;
    for (unsigned g = 0; g < MRC_GROUPS; g++) {
        miss[g] = (double)m->group_cold[g];
        for (size_t d = from; d < m->n; d++)
            miss[g] += (double)m->group_count[d * MRC_GROUPS + g];
        uses[g] = (double)m->group_uses[g];
        mean_m += miss[g] / MRC_GROUPS;
        mean_u += uses[g] / MRC_GROUPS;
    }
    for (unsigned g = 0; g < MRC_GROUPS; g++) {
        mm += (miss[g] - mean_m) * (miss[g] - mean_m);
        mu += (miss[g] - mean_m) * (uses[g] - mean_u);
        uu += (uses[g] - mean_u) * (uses[g] - mean_u);
    }
    /* The true number of accesses is known, and the sample has too many or too few: of the difference a share b are misses.
     * SHARDS takes b = 0 (few hot pages make the difference, and they hit); the groups tell. */
    double b = uu > 0 ? mu / uu : 0;
    b = b < 0 ? 0 : b > 1 ? 1 : b;
    double estimate = (double)misses(m, s) + b * (expected - (double)m->sampled);
    /* Pages are what was drawn, so groups of pages are independent: their spread is the sample's. */
    double var = (mm - 2 * b * mu + b * b * uu) / (MRC_GROUPS - 1) * MRC_GROUPS;
    double drawn = sqrt(var > 0 ? var * (1 - rate) : 0);
    /* a scaled distance is itself off by the spread of a count of chosen pages */
    double off = sqrt((double)s * (1 - rate)) + 1;
    uint64_t lo = (double)s > off ? (uint64_t)((double)s - off) : 0, hi = s + (uint64_t)ceil(off);
    double scaled = ((double)misses(m, lo) - (double)misses(m, hi)) / 2;
    /* and what was not drawn at all: one page of average use */
    double unseen = m->n ? (double)m->sampled / (double)m->n : expected;
    double err = 2 * sqrt(drawn * drawn + scaled * scaled + unseen * unseen * 0.25) / expected;
    estimate /= expected;
    p.miss_ppm = estimate > 1 ? PPM : estimate < 0 ? 0 : (uint64_t)(estimate * PPM);
    p.err_ppm = err >= 1 ? PPM : (uint64_t)(err * PPM) + 1;
    return p;
}

size_t mrc_sizes(const struct mrc *m, uint64_t sizes[], size_t most)
{
    uint64_t all = m->ppm == PPM ? m->n : (uint64_t)((double)m->n * PPM / (double)m->ppm);
    size_t n = 0;
    for (uint64_t base = 1; n < most; base *= 2) {
        for (uint64_t q = 4; q < 8 && n < most; q++) {
            if (base * q % 4)
                continue;
            sizes[n++] = base * q / 4;
            if (sizes[n - 1] >= all)
                return n;
        }
    }
    return n;
}
