/* The reference's model, event driven: the same numbers as its loop over every nanosecond.
 *
 * Exact means: equal times leave a queue in the order of the reference's heap (leaf-search pop on an array), LFU and
 * oracle victims follow its hash order and its random numbers. Everything else is free to be fast: dense key
 * numbers in place of addresses, sets as one line of keys in recency order, no allocation in the loop.
 */
#include <stdlib.h>
#include <string.h>

#include "perf/compat/compat.h"
#include "perf/compat/run.h"
#include "perf/flow.h"
#include "proto/base/clean.h"

/* ---------------------------------------------------------------- the slow kinds of cache */

static uint32_t hset_find(const struct hset *s, uint32_t ways, uint64_t hash, uint32_t key)
{
    if (ways <= 32) {
        for (uint32_t i = 1; i <= ways; i++)
            if (s->key[i] == key)
                return i;
        return 0;
    }
    uint32_t b = (uint32_t)(hash % s->t.n_buckets);
    if (s->t.bucket[b] == HASHORD_NONE)
        return 0;
    uint32_t i = s->t.next[s->t.bucket[b]];
    while (i && s->t.hash[i] % s->t.n_buckets == b) {
        if (s->key[i] == key)
            return i;
        i = s->t.next[i];
    }
    return 0;
}

static void hset_evict(struct cache *c, struct hset *s)
{
    uint32_t victim = 0;
    if (c->lfu) {
        uint64_t least = UINT64_MAX;
        uint32_t n = 0;
        for (uint32_t i = s->t.next[0]; i; i = s->t.next[i]) {
            if (s->value[i] < least) {
                least = s->value[i];
                n = 0;
            }
            n += s->value[i] == least;
        }
        uint32_t k = crand_next(c->random) % n;
        for (uint32_t i = s->t.next[0]; i; i = s->t.next[i])
            if (s->value[i] == least && k-- == 0) {
                victim = i;
                break;
            }
    } else {
        uint64_t most = 0;
        for (uint32_t i = s->t.next[0]; i; i = s->t.next[i])
            if (!victim || s->value[i] > most) {
                victim = i;
                most = s->value[i];
            }
    }
    hashord_erase(&s->t, victim);
    s->key[victim] = EMPTY;
    s->free = victim;
}

static void count_miss(struct cache *c, bool full, uint32_t gid)
{
    c->miss++;
    c->conflict += full;
    c->used[gid] = 1;
}

static bool hash_access(struct cache *c, uint32_t en, uint32_t key, uint32_t set, uint64_t next,
                        uint32_t gid, bool alloc)
{
    struct hset *s = &c->set[set];
    uint64_t hash = c->hash[en];
    uint32_t i = hset_find(s, c->ways, hash, key);
    if (i) {
        if (!c->lfu)
            s->value[i] = next;
        else if (++s->value[i] == 15)
            for (uint32_t k = s->t.next[0]; k; k = s->t.next[k])
                s->value[k] /= 2;
        c->rows[set] += alloc;
        return true;
    }
    if (!alloc)
        return false;
    bool full = s->t.n == c->ways;
    count_miss(c, full, gid);
    c->rows[set]++;
    i = s->t.n + 1;
    if (full) {
        hset_evict(c, s);
        i = s->free;
    }
    s->key[i] = key;
    s->value[i] = c->lfu ? 0 : next;
    hashord_insert(&s->t, i, hash);
    return false;
}

static bool list_access(struct cache *c, uint32_t key, uint32_t set, uint32_t gid, bool alloc)
{
    struct node *node = c->node;
    uint32_t head = c->keys + set;
    bool found = c->seen[key];
    if (found) {
        node[node[key].up].down = node[key].down;
        node[node[key].down].up = node[key].up;
    } else if (alloc) {
        bool full = c->filled[set] == c->ways;
        if (full) {
            uint32_t last = node[head].up;
            node[head].up = node[last].up;
            node[node[last].up].down = head;
            c->seen[last] = 0;
        } else {
            c->filled[set]++;
        }
        count_miss(c, full, gid);
        c->seen[key] = 1;
    } else {
        return false;
    }
    node[key] = (struct node){ .up = head, .down = node[head].down };
    node[node[head].down].up = key;
    node[head].down = key;
    c->rows[set] += alloc;
    return found;
}

bool compat_access_slow(struct cache *c, uint32_t en, uint32_t key, uint32_t set, uint64_t next,
                        uint32_t gid, bool alloc)
{
    if (c->kind == CACHE_LIST)
        return list_access(c, key, set, gid, alloc);
    return hash_access(c, en, key, set, next, gid, alloc);
}

static int hash_init(struct cache *c)
{
    size_t n = (size_t)c->ways + 1, buckets = hashord_buckets(c->ways);
    size_t each = n * (8 + 8 + 4 + 4) + buckets * 4;
    each = (each + 7) & ~(size_t)7;
    c->set = calloc(c->sets, sizeof(*c->set));
    c->pool = calloc(c->sets, each);
    if (!c->set || !c->pool)
        return -ENOMEM;
    uint8_t *p = c->pool;
    for (uint32_t i = 0; i < c->sets; i++, p += each) {
        struct hset *s = &c->set[i];
        s->t.hash = (uint64_t *)p;
        s->value = s->t.hash + n;
        s->t.next = (uint32_t *)(s->value + n);
        s->key = s->t.next + n;
        s->t.bucket = s->key + n;
        memset(s->key, 0xff, n * sizeof(*s->key));
        hashord_init(&s->t);
    }
    return 0;
}

static int list_init(struct cache *c)
{
    c->seen = calloc((size_t)c->keys + 1, 1);
    c->node = malloc(((size_t)c->keys + c->sets) * sizeof(*c->node));
    c->filled = calloc(c->sets, sizeof(*c->filled));
    if (!c->seen || !c->node || !c->filled)
        return -ENOMEM;
    for (uint32_t i = 0; i < c->sets; i++)
        c->node[c->keys + i] = (struct node){ .up = c->keys + i, .down = c->keys + i };
    return 0;
}

int compat_vanish(struct compat_vanished *v, uint32_t en, bool ended)
{
    if (v->n == v->room) {
        size_t room = v->room ? 2 * v->room : 1024;
        uint32_t *p = realloc(v->entry, room * sizeof(*p));
        if (!p)
            return -ENOMEM;
        v->entry = p;
        v->room = room;
    }
    v->entry[v->n++] = en;
    if (!ended)
        v->playing = v->n;
    return 0;
}

/* ---------------------------------------------------------------- geometry and kind */

static unsigned log2_floor(uint32_t v)
{
    return v ? 31u - (unsigned)__builtin_clz(v) : 0;
}

struct geometry {
    uint32_t sets, ways;
    unsigned f; /* index bits below the partition */
    uint32_t gmask, fmask;
};

static struct geometry geometry(uint32_t entries, uint32_t ways, uint32_t groups)
{
    struct geometry g = { .sets = ways ? entries / ways : 0, .ways = ways };
    unsigned b = log2_floor(g.sets), l = log2_floor(groups);
    g.f = b > l ? b - l : 0;
    g.gmask = (1u << l) - 1;
    g.fmask = (1u << g.f) - 1;
    return g;
}

static uint32_t set_of(const struct geometry *g, uint32_t gid, uint64_t bits)
{
    return ((gid & g->gmask) << g->f) | ((uint32_t)bits & g->fmask);
}

/* Where in struct ent a cache finds its key and its set. */
struct view {
    size_t key, set; /* offsets; set 0 = always set 0 */
};

static uint32_t field(const struct ent *n, size_t off)
{
    uint32_t v;
    memcpy(&v, (const uint8_t *)n + off, sizeof(v));
    return v;
}

/* No set will ever be full: then only the first access of each key is a miss, whatever the policy. */
static int never_full(const struct run *s, const struct view *v, uint32_t sets, uint32_t ways,
                      uint32_t keys)
{
    uint64_t want = keys < s->t->n_entries ? keys : s->t->n_entries;
    if (want > (uint64_t)sets * ways)
        return 0;
    CLEANUP(freep) uint32_t *set = malloc(((size_t)keys + 1) * sizeof(*set));
    CLEANUP(freep) uint32_t *n = calloc(sets, sizeof(*n));
    if (!set || !n)
        return -ENOMEM;
    memset(set, 0xff, ((size_t)keys + 1) * sizeof(*set));
    for (uint32_t i = 0; i < s->t->n_entries; i++) {
        uint32_t k = field(&s->ent[i], v->key), at = v->set ? field(&s->ent[i], v->set) : 0;
        if (set[k] == EMPTY) {
            set[k] = at;
            if (++n[at] > ways)
                return 0;
        } else if (set[k] != at) {
            return 0;
        }
    }
    return 1;
}

enum policy { LRU, LFU, NAT };

static int cache_init(struct run *s, struct cache *c, const struct geometry *g, enum policy policy,
                      uint32_t keys, const struct view *v)
{
    c->sets = g->sets;
    c->ways = g->ways;
    c->keys = keys;
    c->lfu = policy == LFU;
    c->random = &s->random;
    c->rows = calloc((size_t)g->sets + 1, sizeof(*c->rows));
    c->used = calloc((size_t)s->t->n_gids + 1, 1);
    if (!c->rows || !c->used)
        return -ENOMEM;
    c->kind = CACHE_NONE;
    if (!g->sets)
        return 0;
    int r = never_full(s, v, g->sets, g->ways, keys);
    if (r < 0)
        return r;
    if (r) {
        c->kind = CACHE_KEEPS;
        c->seen = calloc((size_t)keys + 1, 1);
        return c->seen ? 0 : -ENOMEM;
    }
    if (policy != LRU) {
        c->kind = CACHE_HASH;
        return hash_init(c);
    }
    if (g->ways > 16) {
        c->kind = CACHE_LIST;
        return list_init(c);
    }
    c->kind = g->ways <= 8 ? CACHE_LINE8 : CACHE_LINE16;
    size_t bytes = (size_t)g->sets * (g->ways <= 8 ? 32 : 64);
    c->line = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (!c->line)
        return -ENOMEM;
    memset(c->line, 0xff, bytes);
    return 0;
}

static void cache_clear(struct cache *c)
{
    free(c->line);
    free(c->seen);
    free(c->node);
    free(c->filled);
    free(c->set);
    free(c->pool);
    free(c->hash);
    free(c->rows);
    free(c->used);
}

/* ---------------------------------------------------------------- queues */

/* The children of a place stand in one aligned pair: the array starts 8 bytes behind a line. */
static int queue_init(struct queue *q, uint32_t room)
{
    size_t n = 2 * (size_t)room + 8;
    uint64_t *p = aligned_alloc(64, (n * sizeof(*p) + 63) & ~(size_t)63);
    if (!p)
        return -ENOMEM;
    memset(p, 0xff, n * sizeof(*p));
    *q = (struct queue){ .a = p + 1, .room = room };
    return 0;
}

static void queue_clear(struct queue *q)
{
    if (q->a)
        free(q->a - 1);
}

__attribute__((noinline, cold)) struct queue compat_queue_more(struct queue q, bool fifo)
{
    struct queue m;
    if (q.room >= 1u << 29 || queue_init(&m, 2 * q.room) < 0) {
        q.room = 0;
        return q;
    }
    for (uint32_t i = 0; i < q.n; i++)
        m.a[i] = q.a[fifo ? (q.first + i) & (q.room - 1) : i];
    m.n = q.n;
    queue_clear(&q);
    return m;
}

/* ---------------------------------------------------------------- a run */

static void run_clear(struct run *s)
{
    cache_clear(&s->cc);
    cache_clear(&s->io);
    cache_clear(&s->l2);
    cache_clear(&s->l3);
    cache_clear(&s->buf);
    queue_clear(&s->qc);
    queue_clear(&s->qp);
    queue_clear(&s->qf);
    queue_clear(&s->qi);
    free(s->ent);
    free(s->demand);
    free(s->idle);
    free(s->req);
    free(s->hist);
    free(s->fifo);
    free(s->flow);
    free(s->flow_order);
}

struct pair {
    uint64_t v; /* page << 32 | set */
    uint32_t en;
};

static int by_pair(const void *x, const void *y)
{
    uint64_t a = ((const struct pair *)x)->v, b = ((const struct pair *)y)->v;
    return a < b ? -1 : a > b;
}

/* A 1 GiB page can stand in several IOTLB sets: keys for (page, set) where pages alone would not do. */
static int number_io(struct run *s, uint32_t *ret_keys)
{
    uint32_t n = s->t->n_entries;
    *ret_keys = s->t->n_page;
    CLEANUP(freep) uint32_t *set = malloc(((size_t)s->t->n_page + 1) * sizeof(*set));
    if (!set)
        return -ENOMEM;
    memset(set, 0xff, ((size_t)s->t->n_page + 1) * sizeof(*set));
    bool clash = false;
    for (uint32_t i = 0; i < n; i++) {
        struct ent *x = &s->ent[i];
        x->io = x->page;
        clash |= set[x->page] != EMPTY && set[x->page] != x->set_io;
        set[x->page] = x->set_io;
    }
    if (!clash)
        return 0;
    CLEANUP(freep) struct pair *p = malloc(((size_t)n + 1) * sizeof(*p));
    if (!p)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        p[i] = (struct pair){ (uint64_t)s->ent[i].page << 32 | s->ent[i].set_io, i };
    qsort(p, n, sizeof(*p), by_pair);
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++) {
        k += i && p[i].v != p[i - 1].v;
        s->ent[p[i].en].io = k;
    }
    *ret_keys = k + 1;
    return 0;
}

static int run_init(struct run *s, const struct trace *t, const struct arch *a)
{
    s->t = t;
    s->a = a;
    struct geometry cc = geometry(a->cc_entries, a->cc_ways, a->cc_groups);
    struct geometry io = geometry(a->iotlb_entries, a->iotlb_ways, a->iotlb_groups);
    struct geometry l2 = geometry(a->l2_entries, a->l2_ways, a->l2_groups);
    struct geometry l3 = geometry(a->l3_entries, a->l3_ways, a->l3_groups);
    struct geometry buf = { .sets = a->pf_entries ? 1 : 0, .ways = a->pf_entries };
    enum policy policy = a->iotlb_policy == POLICY_LRU   ? LRU
                         : a->iotlb_policy == POLICY_LFU ? LFU
                                                         : NAT;
    uint64_t demands = (uint64_t)a->queue + 2 < t->n ? (uint64_t)a->queue + 2 : t->n;
    size_t n = (size_t)t->n_entries + 1, sids = (size_t)t->n_sids + 1, gids = (size_t)t->n_gids + 1;
    crand_seed(&s->random, 1);
    s->ent = malloc(n * sizeof(*s->ent));
    s->demand = malloc(demands * sizeof(*s->demand));
    s->idle = malloc(demands * sizeof(*s->idle));
    s->req = aligned_alloc(64, (sids * sizeof(*s->req) + 63) & ~(size_t)63);
    s->fifo = malloc(((size_t)a->pf_distance + 1) * sizeof(*s->fifo));
    s->flow = calloc(gids, sizeof(*s->flow));
    s->flow_order = malloc(gids * sizeof(*s->flow_order));
    if (a->pf_history > HIST_NEAR)
        s->hist = malloc(sids * a->pf_history * sizeof(*s->hist));
    if (!s->ent || !s->demand || !s->idle || !s->req || !s->fifo || !s->flow || !s->flow_order ||
        (a->pf_history > HIST_NEAR && !s->hist))
        return -ENOMEM;
    for (uint32_t i = 0; i < demands; i++)
        s->idle[i] = (uint32_t)demands - 1 - i;
    s->n_idle = (uint32_t)demands;
    for (size_t i = 0; i < sids; i++)
        s->req[i] = (struct requester){ .succ = EMPTY };

    uint64_t g1 = a->iotlb_groups, g2 = g1 + a->l2_groups, g3 = g2 + a->l3_groups;
    for (uint32_t i = 0; i < t->n_entries; i++) {
        const struct trace_entry *x = &t->entry[i];
        unsigned fill = FILL_IO | FILL_L2 | FILL_L3;
        if (a->salloc)
            fill = x->gid < g1 ? FILL_IO : x->gid < g2 ? FILL_L2 : x->gid < g3 ? FILL_L3 : 0;
        s->ent[i] = (struct ent){ .page = t->key_page[i],
                                  .l2 = t->key_l2[i],
                                  .l3 = t->key_l3[i],
                                  .addr = t->key_addr[i],
                                  .sid = t->key_sid[i],
                                  .gid = x->gid,
                                  .set_cc = set_of(&cc, x->gid, x->sid),
                                  .set_io = set_of(&io, x->gid, x->iova >> 21),
                                  .set_l2 = set_of(&l2, x->gid, x->iova >> 21),
                                  .set_l3 = set_of(&l3, x->gid, x->iova >> 30),
                                  .level = x->level,
                                  .fill = (uint16_t)fill };
    }
    uint32_t io_keys;
    int r = number_io(s, &io_keys);
#define AT(f) offsetof(struct ent, f)
    if (r == 0)
        r = cache_init(s, &s->cc, &cc, LFU, t->n_sids, &(struct view){ AT(sid), AT(set_cc) });
    if (r == 0)
        r = cache_init(s, &s->io, &io, policy, io_keys, &(struct view){ AT(io), AT(set_io) });
    if (r == 0)
        r = cache_init(s, &s->l2, &l2, LRU, t->n_l2, &(struct view){ AT(l2), AT(set_l2) });
    if (r == 0)
        r = cache_init(s, &s->l3, &l3, LRU, t->n_l3, &(struct view){ AT(l3), AT(set_l3) });
    if (r == 0)
        r = cache_init(s, &s->buf, &buf, LRU, t->n_page, &(struct view){ AT(page), 0 });
#undef AT
    struct cache *hashed[2] = { &s->cc, &s->io };
    for (int i = 0; i < 2 && r == 0; i++) {
        if (hashed[i]->kind != CACHE_HASH)
            continue;
        uint64_t *h = hashed[i]->hash = malloc(n * sizeof(*h));
        if (!h)
            return -ENOMEM;
        for (uint32_t k = 0; k < t->n_entries; k++) {
            const struct trace_entry *x = &t->entry[k];
            h[k] = i == 0 ? x->sid : (x->iova & x->mask) << 16 | x->gid;
        }
    }
    struct queue *q[] = { &s->qc, &s->qp, &s->qf, &s->qi };
    for (size_t i = 0; i < ARRAY_LEN(q) && r == 0; i++)
        r = queue_init(q[i], 1024);
    return r;
}

/* ---------------------------------------------------------------- the code path */

typedef int loop_fn(struct run *s);

/* The best that the machine has, or what SIOFLEET_ISA pins. */
static loop_fn *loop_for(void)
{
#ifdef SIOFLEET_X86
    const char *want = getenv("SIOFLEET_ISA");
    bool any = !want || !*want;
    if (any || !strcmp(want, "avx512"))
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
            return compat_loop_avx512;
    if (any || !strcmp(want, "avx512") || !strcmp(want, "avx2"))
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
            return compat_loop_avx2;
#endif
    return compat_loop_scalar;
}

/* ---------------------------------------------------------------- results */

static uint64_t count_used(const struct run *s, const struct cache *c)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < s->t->n_gids; i++)
        n += c->used[i];
    return n;
}

static uint64_t hits(const struct cache *c)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < c->sets; i++)
        n += c->rows[i];
    return n - c->miss;
}

#define PUT_CACHE(r, name, c)                                                                      \
    do {                                                                                           \
        (r)->name##_hit = hits(c);                                                                 \
        (r)->name##_miss = (c)->miss;                                                              \
        (r)->name##_conflict = (c)->conflict;                                                      \
        (r)->name##_domains = count_used(&s, c);                                                   \
    } while (0)

static int by_sid(const void *x, const void *y)
{
    const struct engine_hist *a = x, *b = y;
    return a->sid < b->sid ? -1 : a->sid > b->sid;
}

static int fill_detail(struct run *s, struct engine_detail *d)
{
    const struct trace *t = s->t;
    d->flows = calloc((size_t)s->n_flows + 1, sizeof(*d->flows));
    d->hist = calloc((size_t)t->n_sids + 1, sizeof(*d->hist));
    if (!d->flows || !d->hist)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->n_flows; i++) {
        const struct flow *f = &s->flow[s->flow_order[i]];
        d->flows[d->n_flows++] =
            (struct engine_flow){ .gid = s->flow_order[i],
                                  .time_ps = (f->last - f->first) * 1000,
                                  .trans = f->n,
                                  .bw_mbps = f->n / 3 * 12336000 / (f->last - f->first) };
    }
    for (uint32_t i = 0; i < t->n_entries; i++)
        d->hist[t->key_sid[i]].sid = t->entry[i].sid;
    size_t n = 0;
    for (uint32_t i = 0; i < t->n_sids; i++)
        if (s->req[i].n)
            d->hist[n++] = (struct engine_hist){ .sid = d->hist[i].sid,
                                                 .hit = s->req[i].hit,
                                                 .miss = s->req[i].miss };
    d->n_hist = n;
    qsort(d->hist, n, sizeof(*d->hist), by_sid);
    struct cache *c[4] = { &s->cc, &s->io, &s->l2, &s->l3 };
    for (int i = 0; i < 4; i++) {
        d->rows[i] = TAKE(c[i]->rows);
        d->n_rows[i] = c[i]->sets;
    }
    d->warnings = s->warnings;
    return 0;
}

int compat_engine_run(const struct trace *t, const struct arch *a, struct row_stats *ret,
                      struct engine_detail *detail, struct err *e)
{
    return compat_engine_list(t, a, ret, detail, NULL, e);
}

int compat_engine_list(const struct trace *t, const struct arch *a, struct row_stats *ret,
                       struct engine_detail *detail, struct compat_vanished *vanished,
                       struct err *e)
{
    CLEANUP(run_clear) struct run s = { .vanished = vanished };
    memset(ret, 0, sizeof(*ret));
    if (detail)
        memset(detail, 0, sizeof(*detail));
    if (!t->n)
        return err_set(e, SF_EFORMAT, "trace: no event");
    if (t->n_entries >= PREFETCH)
        return err_set(e, SF_EFAILED, "engine: more than 2^31 trace entries");
    if (run_init(&s, t, a) < 0)
        return err_sys(e, ENOMEM, "engine");
    int r = loop_for()(&s);
    if (r == -E2BIG) {
        run_clear(&s);
        s = (struct run){ .general = true };
        if (run_init(&s, t, a) < 0)
            return err_sys(e, ENOMEM, "engine");
        r = loop_for()(&s);
    }
    if (r == -SF_EFAILED)
        return err_set(e, SF_EFAILED,
                       "engine: a 1 GiB translation met a cached 2 MiB entry: the run never ends");
    if (r == -EOVERFLOW)
        return err_set(e, SF_EFAILED, "engine: a translation waits for more than 2^30 ns");
    if (r < 0)
        return err_sys(e, ENOMEM, "engine: too many prefetches under way");
    ret->time_ps = s.time * 1000;
    ret->requests = s.requests;
    ret->pkts_sent = s.pkts_sent;
    ret->pkts_dropped = s.dropped;
    ret->mbps = s.requests / 3 * 12336000 / s.time;
    ret->util_ppm = (uint64_t)((unsigned __int128)(s.requests / 3) * PACKET_BITS * 1000000 /
                               s.time / a->link_gbps);
    PUT_CACHE(ret, cc, &s.cc);
    PUT_CACHE(ret, iotlb, &s.io);
    PUT_CACHE(ret, l2, &s.l2);
    PUT_CACHE(ret, l3, &s.l3);
    ret->pf_accesses = s.requests;
    ret->pf_predictions = s.predictions;
    ret->pf_correct = s.correct;
    ret->pf_incorrect = s.incorrect;
    ret->pf_same_sid = s.same_sid;
    ret->pf_diff_sid = s.diff_sid;
    ret->pf_new_mappings = s.new_mappings;
    ret->pf_size = a->pf_entries;
    ret->pf_fill = s.fills;
    ret->pf_fill_same = s.fills_same;
    ret->pf_hit = s.buf_hit;
    ret->pf_miss = s.requests - s.buf_hit;
    struct flow_sum sum = { 0 };
    for (uint32_t i = 0; i < s.n_flows; i++) {
        const struct flow *f = &s.flow[s.flow_order[i]];
        flow_add(&sum, f->n, (f->last - f->first) * 1000);
    }
    flow_end(&sum, ret);
    if (detail && fill_detail(&s, detail) < 0)
        return err_sys(e, ENOMEM, "engine");
    return 0;
}

int compat_flow_order(const struct engine_detail *d, uint32_t *ret)
{
    CLEANUP(freep) uint64_t *h = malloc((d->n_flows + 1) * sizeof(*h));
    if (!h)
        return -ENOMEM;
    for (size_t i = 0; i < d->n_flows; i++)
        h[i] = d->flows[i].gid;
    return hashord_order(h, (uint32_t)d->n_flows, ret);
}
