/* The reference's model, event driven: the same numbers as its loop over every nanosecond.
 *
 * Exact means: equal times leave a queue in the order of the reference's heap (leaf-search pop on an array), LFU and
 * oracle victims follow its hash order and its random numbers. Everything else is free to be fast: dense key
 * numbers in place of addresses, sets as arrays in recency order, no allocation in the loop.
 */
#include <stdlib.h>
#include <string.h>

#include "perf/compat/compat.h"
#include "perf/compat/crand.h"
#include "perf/compat/hashord.h"
#include "perf/flow.h"
#include "proto/base/clean.h"

enum {
    PCIE = 450, /* ns one way */
    DRAM = 50,
    CC_HIT = 1,
    CC_MISS = 1000,
    TLB_HIT = 2,
    PAGE_HIT = 5,
    PACKET_BITS = 12336,
    PER_PACKET = 3,
    ID_BITS = 24, /* of a heap item; the rest is its time */
};
#define EMPTY UINT32_MAX
#define NEVER UINT64_MAX
#define PREFETCH (1u << 31) /* of a translation's entry number */
#define TIME_END (UINT64_C(1) << (64 - ID_BITS))

/* What a look-up needs of a trace entry, once for each architecture. */
struct ent {
    uint32_t page, l2, l3, addr; /* keys */
    uint32_t sid, gid;
    uint32_t set_cc, set_io, set_l2, set_l3;
    uint32_t level;
};

struct stats {
    uint64_t hit, miss, conflict, domains;
    uint64_t *rows;
    uint8_t *used; /* by GID */
};

static inline void count_miss(struct stats *s, uint32_t gid)
{
    s->miss++;
    s->domains += !s->used[gid];
    s->used[gid] = 1;
}

/* ---------------------------------------------------------------- LRU: keys of a set in recency order */

struct lru {
    uint32_t sets, ways;
    uint32_t *tag; /* sets x ways; EMPTY at the end of a set that is not full */
    struct stats st;
};

static inline bool lru_access(struct lru *c, uint32_t set, uint32_t key, uint32_t gid, bool alloc)
{
    if (!c->sets)
        return false;
    uint32_t *t = c->tag + (size_t)set * c->ways, w = c->ways, i = 0;
    while (i < w && t[i] != key)
        i++;
    if (i < w) {
        memmove(t + 1, t, i * sizeof(*t));
        t[0] = key;
        if (alloc) {
            c->st.hit++;
            c->st.rows[set]++;
        }
        return true;
    }
    if (alloc) {
        count_miss(&c->st, gid);
        c->st.conflict += t[w - 1] != EMPTY;
        memmove(t + 1, t, (w - 1) * sizeof(*t));
        t[0] = key;
        c->st.rows[set]++;
    }
    return false;
}

/* ---------------------------------------------------------------- LFU and oracle: a hash table a set */

struct hset {
    struct hashord t;
    uint32_t *key;   /* 1..ways; EMPTY = free */
    uint64_t *value; /* LFU: counter; oracle: next access */
    uint32_t free;   /* a free element, or 0 */
};

struct hcache {
    uint32_t sets, ways;
    bool lfu;
    struct hset *set;
    void *pool;
    struct crand *rnd;
    struct stats st;
};

static inline uint32_t hset_find(const struct hset *s, uint32_t ways, uint64_t hash, uint32_t key)
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

static void hset_evict(struct hcache *c, struct hset *s)
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
        uint32_t k = crand_next(c->rnd) % n;
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

static inline bool hcache_access(struct hcache *c, uint32_t set, uint32_t key, uint64_t hash,
                                 uint64_t next, uint32_t gid, bool alloc)
{
    if (!c->sets)
        return false;
    struct hset *s = &c->set[set];
    uint32_t i = hset_find(s, c->ways, hash, key);
    if (i) {
        if (c->lfu) {
            if (++s->value[i] == 15)
                for (uint32_t k = s->t.next[0]; k; k = s->t.next[k])
                    s->value[k] /= 2;
        } else {
            s->value[i] = next;
        }
        if (alloc) {
            c->st.hit++;
            c->st.rows[set]++;
        }
        return true;
    }
    if (!alloc)
        return false;
    count_miss(&c->st, gid);
    c->st.rows[set]++;
    if (s->t.n == c->ways) {
        c->st.conflict++;
        hset_evict(c, s);
        i = s->free;
    } else {
        i = s->t.n + 1;
    }
    s->key[i] = key;
    s->value[i] = c->lfu ? 0 : next;
    hashord_insert(&s->t, i, hash);
    return false;
}

static int hcache_init(struct hcache *c, uint32_t sets, uint32_t ways, bool lfu, struct crand *rnd)
{
    c->sets = sets;
    c->ways = ways;
    c->lfu = lfu;
    c->rnd = rnd;
    if (!sets)
        return 0;
    size_t n = (size_t)ways + 1, buckets = hashord_buckets(ways);
    size_t each = n * (8 + 8 + 4 + 4) + buckets * 4;
    each = (each + 7) & ~(size_t)7;
    c->set = calloc(sets, sizeof(*c->set));
    c->pool = calloc(sets, each);
    if (!c->set || !c->pool)
        return -ENOMEM;
    uint8_t *p = c->pool;
    for (uint32_t i = 0; i < sets; i++, p += each) {
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

/* ---------------------------------------------------------------- queues */

/* Items are time << ID_BITS | translation; only times are compared. a[0] is all ones when empty. */
struct queue {
    uint64_t *a;
    size_t n, room;
    size_t first; /* FIFO: where the front stands */
    bool fifo;
};

static inline uint64_t item_time(uint64_t item)
{
    return item >> ID_BITS;
}

static inline uint64_t queue_time(const struct queue *q)
{
    return q->n ? item_time(q->a[q->fifo ? q->first : 0]) : NEVER;
}

static inline void sift_up(uint64_t *a, size_t i, uint64_t v)
{
    while (i > 0) {
        size_t up = (i - 1) / 2;
        if (item_time(a[up]) <= item_time(v))
            break;
        a[i] = a[up];
        i = up;
    }
    a[i] = v;
}

static bool queue_grow(struct queue *q)
{
    uint64_t *a = malloc(2 * q->room * sizeof(*a));
    if (!a)
        return false;
    for (size_t i = 0; i < q->n; i++)
        a[i] = q->a[(q->first + i) & (q->room - 1)];
    free(q->a);
    q->a = a;
    q->first = 0;
    q->room *= 2;
    return true;
}

static inline bool queue_push(struct queue *q, uint64_t time, uint32_t id)
{
    if (q->n == q->room && !queue_grow(q))
        return false;
    uint64_t v = time << ID_BITS | id;
    if (q->fifo)
        q->a[(q->first + q->n++) & (q->room - 1)] = v;
    else
        sift_up(q->a, q->n++, v);
    return true;
}

static inline uint32_t queue_pop(struct queue *q)
{
    uint64_t *a = q->a, top;
    if (q->fifo) {
        top = a[q->first];
        q->first = (q->first + 1) & (q->room - 1);
        q->n--;
        return (uint32_t)(top & ((1u << ID_BITS) - 1));
    }
    top = a[0];
    size_t n = --q->n, hole = 0;
    uint64_t v = a[n];
    while (2 * hole + 2 < n) {
        size_t child = 2 * hole + 2;
        child -= item_time(a[child]) > item_time(a[child - 1]);
        a[hole] = a[child];
        hole = child;
    }
    if (2 * hole + 2 == n) {
        a[hole] = a[2 * hole + 1];
        hole = 2 * hole + 1;
    }
    if (n)
        sift_up(a, hole, v);
    return (uint32_t)(top & ((1u << ID_BITS) - 1));
}

/* ---------------------------------------------------------------- the state of a run */

struct tran {
    uint64_t start;
    uint32_t ent;     /* | PREFETCH */
    uint32_t ev;      /* event number, for its next access time */
    uint32_t latency; /* nominal, so far */
    uint32_t link;    /* free list */
};

struct flow {
    uint64_t first, last, n;
};

struct run {
    const struct trace *t;
    const struct arch *a;
    struct ent *ent;
    uint64_t *hash_io, *hash_cc; /* by entry; only for the caches that need them */
    struct crand rnd;

    uint8_t *cc_seen; /* context cache that never evicts: by SID; else NULL */
    struct hcache cc;
    struct lru io_lru, l2, l3, buf;
    struct hcache io_h;

    struct queue qc, qp, qf, qi;
    struct tran *tran;
    uint32_t n_tran, tran_room, tran_free;

    /* prefetcher */
    uint32_t *succ;             /* by SID; EMPTY = none yet */
    uint32_t *hist;             /* SID x history: entries, a ring */
    uint32_t *hist_n, *hist_at; /* filled; place of the oldest */
    uint64_t *hist_hit, *hist_miss;
    uint32_t *fifo; /* the last SIDs */
    uint32_t fifo_n, fifo_at;
    uint32_t prev, prediction;

    struct flow *flow;
    uint32_t *flow_order, n_flows;
    uint64_t flying, warnings, pkts_sent, dropped, requests;
    struct row_stats *r;
};

static uint32_t tran_new(struct run *s)
{
    uint32_t id = s->tran_free;
    if (id != EMPTY) {
        s->tran_free = s->tran[id].link;
        return id;
    }
    if (s->n_tran == s->tran_room) {
        if (s->tran_room == 1u << ID_BITS)
            return EMPTY;
        struct tran *p = realloc(s->tran, 2 * (size_t)s->tran_room * sizeof(*p));
        if (!p)
            return EMPTY;
        s->tran = p;
        s->tran_room *= 2;
    }
    return s->n_tran++;
}

static inline void tran_done(struct run *s, uint32_t id)
{
    s->tran[id].link = s->tran_free;
    s->tran_free = id;
}

static inline bool cc_access(struct run *s, const struct ent *n, uint32_t en, bool alloc)
{
    if (!s->cc_seen)
        return hcache_access(&s->cc, n->set_cc, n->sid, s->hash_cc ? s->hash_cc[en] : 0, 0, n->gid,
                             alloc);
    bool found = s->cc_seen[n->sid];
    if (alloc) {
        s->cc.st.rows[0]++;
        if (found) {
            s->cc.st.hit++;
        } else {
            s->cc_seen[n->sid] = 1;
            count_miss(&s->cc.st, n->gid);
        }
    }
    return found;
}

static inline bool io_access(struct run *s, const struct ent *n, uint32_t en, uint32_t ev,
                             bool alloc)
{
    if (s->a->iotlb_policy == POLICY_LRU)
        return lru_access(&s->io_lru, n->set_io, n->page, n->gid, alloc);
    uint64_t next = NEVER;
    if (s->a->iotlb_policy == POLICY_ORACLE && s->t->next[ev] != UINT32_MAX)
        next = s->t->next[ev];
    return hcache_access(&s->io_h, n->set_io, n->page, s->hash_io[en], next, n->gid, alloc);
}

/* One access seen by the prefetcher; the prediction's history goes to QP. */
static bool probe(struct run *s, uint32_t en, uint64_t t)
{
    const struct ent *n = &s->ent[en];
    uint32_t sid = n->sid, len = s->a->pf_history;
    struct row_stats *r = s->r;
    r->pf_accesses++;
    uint32_t *h = s->hist + (size_t)sid * len, have = s->hist_n[sid];
    bool found = false;
    for (uint32_t i = 0; i < have && !found; i++)
        found = s->ent[h[i]].addr == n->addr;
    if (found)
        s->hist_hit[sid]++;
    else
        s->hist_miss[sid]++;
    if (have == len) {
        h[s->hist_at[sid]] = en;
        s->hist_at[sid] = s->hist_at[sid] + 1 == len ? 0 : s->hist_at[sid] + 1;
    } else {
        h[have] = en;
        s->hist_n[sid]++;
    }
    if (s->prediction != EMPTY) {
        if (s->prediction == sid)
            r->pf_correct++;
        else
            r->pf_incorrect++;
    }
    s->prediction = s->succ[sid];
    r->pf_predictions += s->prediction != EMPTY;
    if (s->prev != EMPTY) {
        if (s->prev != sid) {
            if (s->succ[s->prev] == EMPTY) {
                s->succ[s->prev] = sid;
                r->pf_new_mappings++;
            }
            r->pf_diff_sid++;
        } else {
            r->pf_same_sid++;
        }
    }
    if (s->fifo_n == s->a->pf_distance) {
        s->prev = s->fifo[s->fifo_at];
        s->fifo[s->fifo_at] = sid;
        s->fifo_at = s->fifo_at + 1 == s->a->pf_distance ? 0 : s->fifo_at + 1;
    } else {
        s->fifo[s->fifo_n++] = sid;
    }
    if (s->prediction == EMPTY)
        return true;
    uint32_t p = s->prediction, at = s->hist_at[p], cnt = s->hist_n[p];
    h = s->hist + (size_t)p * len;
    for (uint32_t i = 0; i < cnt; i++) {
        uint32_t id = tran_new(s);
        if (id == EMPTY)
            return false;
        s->tran[id] = (struct tran){ .ent = h[at] | PREFETCH };
        if (!queue_push(&s->qp, t + PCIE + DRAM, id))
            return false;
        at = at + 1 == len ? 0 : at + 1;
    }
    return true;
}

/* The four stages at time t. Returns 0, -ENOMEM, -SF_EFAILED when a demand translation vanishes. */
static inline int stages(struct run *s, uint64_t t)
{
    const struct arch *a = s->a;
    struct row_stats *r = s->r;
    if (queue_time(&s->qc) <= t) {
        uint32_t id = queue_pop(&s->qc);
        struct tran *x = &s->tran[id];
        uint32_t en = x->ent;
        const struct ent *n = &s->ent[en];
        cc_access(s, n, en, true);
        bool hit = io_access(s, n, en, x->ev, false);
        if (lru_access(&s->buf, 0, n->page, n->gid, false)) {
            r->pf_hit++;
            hit = true;
        } else {
            r->pf_miss++;
        }
        bool ok;
        if (hit) {
            x->latency += TLB_HIT;
            ok = queue_push(&s->qi, t + 1, id);
        } else {
            x->latency += PCIE;
            ok = queue_push(&s->qp, t + PCIE, id);
        }
        if (!ok || !probe(s, en, t))
            return -ENOMEM;
    }
    if (queue_time(&s->qp) <= t) {
        uint32_t id = queue_pop(&s->qp);
        struct tran *x = &s->tran[id];
        const struct ent *n = &s->ent[x->ent & ~PREFETCH];
        bool h2 = lru_access(&s->l2, n->set_l2, n->l2, n->gid, false);
        bool h3 = lru_access(&s->l3, n->set_l3, n->l3, n->gid, false);
        uint32_t lv = n->level, d;
        bool ok;
        if (h2 && lv > 2) {
            if (!(x->ent & PREFETCH))
                return -SF_EFAILED;
            s->warnings++;
            tran_done(s, id);
            ok = true;
        } else if (h2 && lv == 2) {
            x->latency += PAGE_HIT + PCIE;
            ok = queue_push(&s->qi, t + PAGE_HIT + PCIE - 1, id);
        } else if (!h2 && h3 && lv == 3) {
            x->latency += PAGE_HIT;
            ok = queue_push(&s->qi, t + PAGE_HIT - 1, id);
        } else {
            d = DRAM * (h2 ? 2 - lv : h3 ? 3 - lv : lv);
            x->latency += d;
            ok = queue_push(&s->qf, t + d - 1, id);
        }
        if (!ok)
            return -ENOMEM;
    }
    if (queue_time(&s->qf) <= t) {
        uint32_t id = queue_pop(&s->qf);
        struct tran *x = &s->tran[id];
        const struct ent *n = &s->ent[x->ent & ~PREFETCH];
        bool c2 = true, c3 = true;
        if (a->salloc) {
            uint64_t g1 = a->iotlb_groups, g2 = g1 + a->l2_groups, g3 = g2 + a->l3_groups;
            c2 = n->gid >= g1 && n->gid < g2;
            c3 = n->gid >= g2 && n->gid < g3;
        }
        lru_access(&s->l2, n->set_l2, n->l2, n->gid, c2);
        lru_access(&s->l3, n->set_l3, n->l3, n->gid, c3);
        x->latency += PCIE;
        if (!queue_push(&s->qi, t + PCIE, id))
            return -ENOMEM;
    }
    if (queue_time(&s->qi) <= t) {
        uint32_t id = queue_pop(&s->qi);
        struct tran *x = &s->tran[id];
        uint32_t en = x->ent & ~PREFETCH;
        const struct ent *n = &s->ent[en];
        if (x->ent & PREFETCH) {
            r->pf_fill++;
            r->pf_fill_same += lru_access(&s->buf, 0, n->page, n->gid, true);
        } else {
            io_access(s, n, en, x->ev, !a->salloc || n->gid < a->iotlb_groups);
            s->flying--;
            struct flow *f = &s->flow[n->gid];
            if (!f->n) {
                s->flow_order[s->n_flows++] = n->gid;
                f->first = x->start;
            }
            f->n++;
            if (x->start < f->first)
                f->first = x->start;
            if (x->start + x->latency > f->last)
                f->last = x->start + x->latency;
        }
        tran_done(s, id);
    }
    return 0;
}

static inline uint64_t next_time(const struct run *s, uint64_t t)
{
    uint64_t a = queue_time(&s->qc), b = queue_time(&s->qp), c = queue_time(&s->qf),
             d = queue_time(&s->qi);
    a = a < b ? a : b;
    c = c < d ? c : d;
    a = a < c ? a : c;
    return a > t ? a : t;
}

/* The loop. *ret_t: simulated ns. */
static int loop(struct run *s, uint64_t *ret_t)
{
    const struct trace *tr = s->t;
    const struct arch *a = s->a;
    uint64_t t = 0, slot = 0, period = PACKET_BITS / a->link_gbps, at = 0;
    bool ended = false;
    while (!ended) {
        if (t == slot) {
            slot += period;
            if (s->flying < a->queue) {
                uint64_t left = tr->n - at, take = left < PER_PACKET ? left : PER_PACKET;
                for (uint64_t i = 0; i < take; i++) {
                    uint32_t en = tr->ev[at], id = tran_new(s);
                    if (id == EMPTY)
                        return -ENOMEM;
                    uint32_t d = cc_access(s, &s->ent[en], en, false) ? CC_HIT : CC_MISS;
                    s->tran[id] =
                        (struct tran){ .start = t, .ent = en, .ev = (uint32_t)at, .latency = d };
                    if (!queue_push(&s->qc, t + d, id))
                        return -ENOMEM;
                    at++;
                }
                s->flying += take;
                s->pkts_sent += take > 0;
                ended = take < PER_PACKET;
                if (ended)
                    break;
            } else {
                s->dropped++;
            }
        }
        int r = stages(s, t);
        if (r < 0)
            return r;
        uint64_t next = next_time(s, t + 1);
        if (s->flying < a->queue) {
            t = next < slot ? next : slot;
        } else {
            /* slots that pass while the queue is full */
            if (slot < next) {
                uint64_t skip = (next - slot + period - 1) / period;
                s->dropped += skip;
                slot += skip * period;
            }
            t = next;
        }
        if (t >= TIME_END - 4096)
            return -EOVERFLOW;
    }
    s->requests = at;
    while (s->flying) {
        t = next_time(s, t);
        int r = stages(s, t);
        if (r < 0)
            return r;
        t++;
        if (t >= TIME_END - 4096)
            return -EOVERFLOW;
    }
    *ret_t = t;
    return 0;
}

/* ---------------------------------------------------------------- around it */

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

static int stats_init(struct stats *s, uint32_t sets, uint32_t gids)
{
    s->rows = calloc((size_t)sets + 1, sizeof(*s->rows));
    s->used = calloc((size_t)gids + 1, 1);
    return s->rows && s->used ? 0 : -ENOMEM;
}

static int lru_init(struct lru *c, uint32_t sets, uint32_t ways, uint32_t gids)
{
    c->sets = sets;
    c->ways = ways;
    c->tag = malloc((size_t)sets * ways * sizeof(*c->tag) + 64);
    if (!c->tag)
        return -ENOMEM;
    memset(c->tag, 0xff, (size_t)sets * ways * sizeof(*c->tag) + 64);
    return stats_init(&c->st, sets, gids);
}

static int queue_init(struct queue *q, bool fifo)
{
    q->room = 1024;
    q->fifo = fifo;
    q->a = malloc(q->room * sizeof(*q->a));
    return q->a ? 0 : -ENOMEM;
}

static void run_clear(struct run *s)
{
    struct lru *l[] = { &s->io_lru, &s->l2, &s->l3, &s->buf };
    for (size_t i = 0; i < ARRAY_LEN(l); i++) {
        free(l[i]->tag);
        free(l[i]->st.rows);
        free(l[i]->st.used);
    }
    struct hcache *h[] = { &s->cc, &s->io_h };
    for (size_t i = 0; i < ARRAY_LEN(h); i++) {
        free(h[i]->set);
        free(h[i]->pool);
        free(h[i]->st.rows);
        free(h[i]->st.used);
    }
    free(s->ent);
    free(s->hash_io);
    free(s->hash_cc);
    free(s->cc_seen);
    free(s->qc.a);
    free(s->qp.a);
    free(s->qf.a);
    free(s->qi.a);
    free(s->tran);
    free(s->succ);
    free(s->hist);
    free(s->hist_n);
    free(s->hist_at);
    free(s->hist_hit);
    free(s->hist_miss);
    free(s->fifo);
    free(s->flow);
    free(s->flow_order);
}

static int run_init(struct run *s, const struct trace *t, const struct arch *a)
{
    s->t = t;
    s->a = a;
    struct geometry cc = geometry(a->cc_entries, a->cc_ways, a->cc_groups);
    struct geometry io = geometry(a->iotlb_entries, a->iotlb_ways, a->iotlb_groups);
    struct geometry l2 = geometry(a->l2_entries, a->l2_ways, a->l2_groups);
    struct geometry l3 = geometry(a->l3_entries, a->l3_ways, a->l3_groups);
    crand_seed(&s->rnd, 1);
    bool lru = a->iotlb_policy == POLICY_LRU;
    bool cc_keeps = cc.sets == 1 && cc.ways >= t->n_sids;
    int r = lru_init(&s->io_lru, lru ? io.sets : 0, io.ways, t->n_gids);
    r |= hcache_init(&s->io_h, lru ? 0 : io.sets, io.ways, a->iotlb_policy == POLICY_LFU, &s->rnd);
    r |= lru_init(&s->l2, l2.sets, l2.ways, t->n_gids);
    r |= lru_init(&s->l3, l3.sets, l3.ways, t->n_gids);
    r |= lru_init(&s->buf, a->pf_entries ? 1 : 0, a->pf_entries, t->n_gids);
    r |= hcache_init(&s->cc, cc_keeps ? 0 : cc.sets, cc.ways, true, &s->rnd);
    r |= stats_init(&s->cc.st, cc.sets, t->n_gids);
    r |= stats_init(&s->io_h.st, lru ? 0 : io.sets, t->n_gids);
    if (cc_keeps) {
        s->cc_seen = calloc((size_t)t->n_sids + 1, 1);
        r |= s->cc_seen ? 0 : -ENOMEM;
    }
    struct queue *q[] = { &s->qc, &s->qp, &s->qf, &s->qi };
    for (size_t i = 0; i < ARRAY_LEN(q); i++)
        r |= queue_init(q[i], a->inorder);
    s->tran_room = 1024;
    s->tran_free = EMPTY;
    s->prev = s->prediction = EMPTY;
    s->tran = malloc(s->tran_room * sizeof(*s->tran));
    s->ent = malloc(((size_t)t->n_entries + 1) * sizeof(*s->ent));
    s->succ = malloc(((size_t)t->n_sids + 1) * sizeof(*s->succ));
    s->hist = malloc(((size_t)t->n_sids * a->pf_history + 1) * sizeof(*s->hist));
    s->hist_n = calloc((size_t)t->n_sids + 1, sizeof(*s->hist_n));
    s->hist_at = calloc((size_t)t->n_sids + 1, sizeof(*s->hist_at));
    s->hist_hit = calloc((size_t)t->n_sids + 1, sizeof(*s->hist_hit));
    s->hist_miss = calloc((size_t)t->n_sids + 1, sizeof(*s->hist_miss));
    s->fifo = malloc(((size_t)a->pf_distance + 1) * sizeof(*s->fifo));
    s->flow = calloc((size_t)t->n_gids + 1, sizeof(*s->flow));
    s->flow_order = malloc(((size_t)t->n_gids + 1) * sizeof(*s->flow_order));
    if (r || !s->tran || !s->ent || !s->succ || !s->hist || !s->hist_n || !s->hist_at ||
        !s->hist_hit || !s->hist_miss || !s->fifo || !s->flow || !s->flow_order)
        return -ENOMEM;
    memset(s->succ, 0xff, ((size_t)t->n_sids + 1) * sizeof(*s->succ));
    if (!lru) {
        s->hash_io = malloc(((size_t)t->n_entries + 1) * sizeof(*s->hash_io));
        if (!s->hash_io)
            return -ENOMEM;
    }
    if (!cc_keeps && cc.sets) {
        s->hash_cc = malloc(((size_t)t->n_entries + 1) * sizeof(*s->hash_cc));
        if (!s->hash_cc)
            return -ENOMEM;
    }
    for (uint32_t i = 0; i < t->n_entries; i++) {
        const struct trace_entry *x = &t->entry[i];
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
                                  .level = x->level };
        if (s->hash_io)
            s->hash_io[i] = (x->iova & x->mask) << 16 | x->gid;
        if (s->hash_cc)
            s->hash_cc[i] = x->sid;
    }
    return 0;
}

#define PUT_CACHE(r, name, st)                                                                     \
    do {                                                                                           \
        (r)->name##_hit = (st)->hit;                                                               \
        (r)->name##_miss = (st)->miss;                                                             \
        (r)->name##_conflict = (st)->conflict;                                                     \
        (r)->name##_domains = (st)->domains;                                                       \
    } while (0)

static int by_sid(const void *x, const void *y)
{
    const struct engine_hist *a = x, *b = y;
    return a->sid < b->sid ? -1 : a->sid > b->sid;
}

static int fill_detail(struct run *s, struct engine_detail *d)
{
    const struct trace *t = s->t;
    const struct arch *a = s->a;
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
        if (s->hist_n[i])
            d->hist[n++] = (struct engine_hist){ .sid = d->hist[i].sid,
                                                 .hit = s->hist_hit[i],
                                                 .miss = s->hist_miss[i] };
    d->n_hist = n;
    qsort(d->hist, n, sizeof(*d->hist), by_sid);
    bool lru = a->iotlb_policy == POLICY_LRU;
    uint64_t **rows[4] = { &s->cc.st.rows, lru ? &s->io_lru.st.rows : &s->io_h.st.rows,
                           &s->l2.st.rows, &s->l3.st.rows };
    uint32_t entries[4] = { a->cc_entries, a->iotlb_entries, a->l2_entries, a->l3_entries };
    uint32_t ways[4] = { a->cc_ways, a->iotlb_ways, a->l2_ways, a->l3_ways };
    for (int i = 0; i < 4; i++) {
        d->rows[i] = TAKE(*rows[i]);
        d->n_rows[i] = ways[i] ? entries[i] / ways[i] : 0;
    }
    d->warnings = s->warnings;
    return 0;
}

int compat_engine_run(const struct trace *t, const struct arch *a, struct row_stats *ret,
                      struct engine_detail *detail, struct err *e)
{
    CLEANUP(run_clear) struct run s = { 0 };
    memset(ret, 0, sizeof(*ret));
    if (detail)
        memset(detail, 0, sizeof(*detail));
    s.r = ret;
    if (!t->n)
        return err_set(e, SF_EFORMAT, "trace: no event");
    if (run_init(&s, t, a) < 0)
        return err_sys(e, ENOMEM, "engine");
    uint64_t ns = 0;
    int r = loop(&s, &ns);
    if (r == -SF_EFAILED)
        return err_set(e, SF_EFAILED,
                       "engine: a 1 GiB translation met a cached 2 MiB entry: the run never ends");
    if (r == -EOVERFLOW)
        return err_set(e, SF_EFAILED, "engine: more than 2^40 ns of simulated time");
    if (r < 0)
        return err_sys(e, ENOMEM, "engine: %u translations in flight", s.n_tran);
    bool lru = a->iotlb_policy == POLICY_LRU;
    ret->time_ps = ns * 1000;
    ret->requests = s.requests;
    ret->pkts_sent = s.pkts_sent;
    ret->pkts_dropped = s.dropped;
    ret->mbps = s.requests / 3 * 12336000 / ns;
    ret->util_ppm =
        (uint64_t)((unsigned __int128)(s.requests / 3) * 12336 * 1000000 / ns / a->link_gbps);
    PUT_CACHE(ret, cc, &s.cc.st);
    PUT_CACHE(ret, iotlb, lru ? &s.io_lru.st : &s.io_h.st);
    PUT_CACHE(ret, l2, &s.l2.st);
    PUT_CACHE(ret, l3, &s.l3.st);
    ret->pf_size = a->pf_entries;
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
