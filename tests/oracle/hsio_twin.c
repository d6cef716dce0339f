#include "tests/oracle/hsio_twin.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void *get(size_t n, size_t size)
{
    void *p = calloc(n + 1, size);
    if (!p)
        abort();
    return p;
}

/* ---- the reference's table order: a list; equal buckets stand together */

struct item {
    uint64_t hash, value, key;
    uint32_t did;
};

struct list {
    struct item *v;
    uint32_t n, room, buckets, limit;
};

static uint32_t next_prime(uint32_t limit)
{
    static const uint32_t p[] = { 13,     29,     59,      127,     257,     541,     1109,
                                  2357,   5087,   10273,   20753,   42043,   85229,   172933,
                                  351061, 712697, 1447153, 2938679, 5967347, 12117689 };
    unsigned i = 0;
    while (limit && p[i] < 2 * limit)
        i++;
    return p[i];
}

static void list_put(struct list *l, struct item x)
{
    uint32_t at = 0;
    while (at < l->n && l->v[at].hash % l->buckets != x.hash % l->buckets)
        at++;
    if (at == l->n)
        at = 0;
    memmove(&l->v[at + 1], &l->v[at], (l->n - at) * sizeof(x));
    l->v[at] = x;
    l->n++;
}

static void list_insert(struct list *l, struct item x)
{
    if (l->n == l->room) {
        struct item *v = get(2 * (size_t)l->room + 16, sizeof(*v));
        if (l->n)
            memcpy(v, l->v, l->n * sizeof(*v));
        free(l->v);
        l->v = v;
        l->room = 2 * l->room + 16;
    }
    if (l->n + 1 > l->limit) {
        struct item *old = get(l->n, sizeof(*old));
        uint32_t n = l->n;
        if (n)
            memcpy(old, l->v, n * sizeof(*old));
        l->limit = l->buckets = next_prime(l->limit);
        l->n = 0;
        for (uint32_t i = 0; i < n; i++)
            list_put(l, old[i]);
        free(old);
    }
    list_put(l, x);
}

static void list_erase(struct list *l, uint32_t at)
{
    memmove(&l->v[at], &l->v[at + 1], (l->n - at - 1) * sizeof(*l->v));
    l->n--;
}

/* ---- random numbers: the whole sequence from its definition */

struct numbers {
    uint32_t *r;
    size_t n, room, k;
};

static uint32_t number(struct numbers *s)
{
    while (s->n <= s->k + 344) {
        if (s->n == s->room) {
            s->room = 2 * s->room + 1000;
            s->r = realloc(s->r, s->room * sizeof(*s->r));
            if (!s->r)
                abort();
        }
        size_t i = s->n++;
        if (i == 0)
            s->r[i] = 1;
        else if (i < 31)
            s->r[i] = (uint32_t)(16807ull * s->r[i - 1] % 2147483647);
        else
            s->r[i] = i < 34 ? s->r[i - 31] : s->r[i - 3] + s->r[i - 31];
    }
    return s->r[344 + s->k++] >> 1;
}

/* ---- caches */

enum row_policy { LRU, LFU, NAT };

struct cache {
    enum row_policy policy;
    uint32_t sets, ways, groups;
    struct list *set; /* LRU: in recency order, most recent first */
    uint64_t hit, miss, conflict, *rows;
    bool *used;
    struct numbers *random;
};

static unsigned floor_log2(uint32_t v)
{
    unsigned n = 0;
    while (v > 1) {
        v /= 2;
        n++;
    }
    return n;
}

static void cache_init(struct cache *c, enum row_policy policy, uint32_t size, uint32_t ways,
                       uint32_t groups, uint32_t dids, struct numbers *random)
{
    *c = (struct cache){ policy, ways ? size / ways : 0, ways, groups, NULL, 0, 0, 0, NULL, NULL,
                         random };
    c->set = get(c->sets, sizeof(*c->set));
    c->rows = get(c->sets, sizeof(*c->rows));
    c->used = get(dids, sizeof(*c->used));
}

static void evict(struct cache *c, struct list *l)
{
    uint32_t victim = 0;
    if (c->policy == LRU) {
        victim = l->n - 1;
    } else if (c->policy == LFU) {
        uint64_t least = UINT64_MAX;
        uint32_t n = 0;
        for (uint32_t i = 0; i < l->n; i++)
            least = l->v[i].value < least ? l->v[i].value : least;
        for (uint32_t i = 0; i < l->n; i++)
            n += l->v[i].value == least;
        uint32_t k = number(c->random) % n;
        for (uint32_t i = 0; i < l->n; i++)
            if (l->v[i].value == least && k-- == 0)
                victim = i;
    } else {
        for (uint32_t i = 1; i < l->n; i++)
            if (l->v[i].value > l->v[victim].value)
                victim = i;
    }
    list_erase(l, victim);
}

static bool cache_access(struct cache *c, uint64_t bits, struct item x, uint32_t did, bool alloc)
{
    if (!c->sets)
        return false;
    unsigned g = floor_log2(c->groups), f = floor_log2(c->sets) - g;
    uint32_t at = ((did & ((1u << g) - 1)) << f) | (uint32_t)(bits & ((1u << f) - 1));
    struct list *l = &c->set[at];
    uint32_t i = 0;
    while (i < l->n && (l->v[i].key != x.key || l->v[i].did != x.did))
        i++;
    bool found = i < l->n;
    if (found) {
        if (c->policy == LRU) {
            list_erase(l, i);
            memmove(&l->v[1], &l->v[0], l->n * sizeof(x));
            l->v[0] = x;
            l->n++;
        } else if (c->policy == LFU) {
            if (++l->v[i].value == 15)
                for (uint32_t k = 0; k < l->n; k++)
                    l->v[k].value /= 2;
        } else {
            l->v[i].value = x.value;
        }
    }
    if (!alloc)
        return found;
    c->rows[at]++;
    if (found) {
        c->hit++;
        return true;
    }
    c->miss++;
    c->used[did] = true;
    if (l->n == c->ways) {
        c->conflict++;
        evict(c, l);
    }
    if (c->policy == LFU)
        x.value = 0;
    if (c->policy != LRU) {
        list_insert(l, x);
    } else {
        x.hash = 0;
        l->limit = UINT32_MAX;
        l->buckets = 1;
        list_insert(l, x); /* one bucket: to the front */
    }
    return false;
}

/* ---- queues */

struct tran {
    uint64_t time, start, end, next;
    const struct trace_entry *e;
    bool prefetch;
};

struct queue {
    struct tran *a;
    size_t n, room;
    bool fifo;
};

static void place(struct queue *q, size_t i, struct tran v)
{
    while (i > 0 && q->a[(i - 1) / 2].time > v.time) {
        q->a[i] = q->a[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    q->a[i] = v;
}

static void push(struct queue *q, uint64_t time, struct tran v)
{
    if (q->n == q->room) {
        q->room = 2 * q->room + 64;
        q->a = realloc(q->a, q->room * sizeof(*q->a));
        if (!q->a)
            abort();
    }
    v.time = time;
    if (q->fifo)
        q->a[q->n++] = v;
    else
        place(q, q->n++, v);
}

static bool pick(struct queue *q, uint64_t now, struct tran *ret)
{
    if (!q->n || q->a[0].time > now)
        return false;
    *ret = q->a[0];
    if (q->fifo) {
        memmove(q->a, q->a + 1, --q->n * sizeof(*q->a));
        return true;
    }
    struct tran v = q->a[--q->n];
    size_t i = 0;
    while (2 * i + 1 < q->n) {
        size_t child = 2 * i + 1;
        if (child + 1 < q->n && !(q->a[child + 1].time > q->a[child].time))
            child++;
        q->a[i] = q->a[child];
        i = child;
    }
    if (q->n)
        place(q, i, v);
    return true;
}

/* ---- the model */

struct sid {
    bool seen, has_next;
    uint32_t next;
    const struct trace_entry **hist;
    uint32_t n;
    uint64_t hit, miss;
};

struct flow {
    uint64_t first, last, n;
};

struct model {
    const struct arch *a;
    struct row_stats *r;
    struct engine_detail *d;
    struct cache cc, io, l2, l3, buf;
    struct queue qc, qp, qf, qi;
    struct sid *sid; /* by SID */
    uint32_t *fifo, fifo_n;
    bool have_prev, have_prediction, stuck;
    uint32_t prev, prediction;
    struct flow *flow;
    uint64_t flying;
};

enum { M2 = 21, G1 = 30 };

static struct item key_of(const struct trace_entry *e, uint64_t mask, uint64_t next)
{
    uint64_t addr = e->iova & mask;
    return (struct item){ .hash = addr << 16 | e->gid, .value = next, .key = addr, .did = e->gid };
}

static bool cc(struct model *m, const struct trace_entry *e, bool alloc)
{
    return cache_access(&m->cc, e->sid, (struct item){ .hash = e->sid, .key = e->sid }, e->gid,
                        alloc);
}

static bool page(struct cache *c, const struct trace_entry *e, uint64_t next, bool alloc)
{
    return cache_access(c, e->iova >> M2, key_of(e, e->mask, next), e->gid, alloc);
}

static bool level2(struct model *m, const struct trace_entry *e, bool alloc)
{
    return cache_access(&m->l2, e->iova >> M2, key_of(e, ~0ull << M2, 0), e->gid, alloc);
}

static bool level3(struct model *m, const struct trace_entry *e, bool alloc)
{
    return cache_access(&m->l3, e->iova >> G1, key_of(e, ~0ull << G1, 0), e->gid, alloc);
}

static void probe(struct model *m, const struct trace_entry *e, uint64_t t)
{
    struct row_stats *r = m->r;
    struct sid *s = &m->sid[e->sid];
    s->seen = true;
    if (!s->hist)
        s->hist = get(m->a->pf_history, sizeof(*s->hist));
    r->pf_accesses++;
    bool found = false;
    for (uint32_t i = 0; i < s->n; i++)
        found |= (s->hist[i]->iova & s->hist[i]->mask) == (e->iova & e->mask);
    *(found ? &s->hit : &s->miss) += 1;
    if (s->n == m->a->pf_history)
        memmove(s->hist, s->hist + 1, --s->n * sizeof(*s->hist));
    s->hist[s->n++] = e;
    if (m->have_prediction)
        *(m->prediction == e->sid ? &r->pf_correct : &r->pf_incorrect) += 1;
    m->have_prediction = s->has_next;
    m->prediction = s->next;
    r->pf_predictions += s->has_next;
    if (m->have_prev) {
        struct sid *p = &m->sid[m->prev];
        if (m->prev != e->sid) {
            if (!p->has_next) {
                p->has_next = true;
                p->next = e->sid;
                r->pf_new_mappings++;
            }
            r->pf_diff_sid++;
        } else {
            r->pf_same_sid++;
        }
    }
    if (m->fifo_n == m->a->pf_distance) {
        m->prev = m->fifo[0];
        m->have_prev = true;
        memmove(m->fifo, m->fifo + 1, --m->fifo_n * sizeof(*m->fifo));
    }
    m->fifo[m->fifo_n++] = e->sid;
    if (!m->have_prediction)
        return;
    const struct sid *p = &m->sid[m->prediction];
    for (uint32_t i = 0; i < p->n; i++)
        push(&m->qp, t + 500, (struct tran){ .e = p->hist[i], .prefetch = true });
}

static void stages(struct model *m, uint64_t t)
{
    const struct arch *a = m->a;
    struct tran x;
    if (pick(&m->qc, t, &x)) {
        cc(m, x.e, true);
        bool ih = page(&m->io, x.e, x.next, false), ph = page(&m->buf, x.e, 0, false);
        *(ph ? &m->r->pf_hit : &m->r->pf_miss) += 1;
        if (ih || ph) {
            x.end += 2;
            push(&m->qi, t + 1, x);
        } else {
            x.end += 450;
            push(&m->qp, t + 450, x);
        }
        probe(m, x.e, t);
    }
    if (pick(&m->qp, t, &x)) {
        bool h2 = level2(m, x.e, false), h3 = level3(m, x.e, false);
        uint64_t lv = x.e->level, d;
        if (h2 && lv > 2) {
            m->d->warnings++;
            m->stuck |= !x.prefetch;
        } else if (h2 && lv == 2) {
            x.end += 455;
            push(&m->qi, t + 454, x);
        } else if (!h2 && h3 && lv == 3) {
            x.end += 5;
            push(&m->qi, t + 4, x);
        } else {
            d = 50 * (h2 ? 2 - lv : h3 ? 3 - lv : lv);
            x.end += d;
            push(&m->qf, t + d - 1, x);
        }
    }
    if (pick(&m->qf, t, &x)) {
        uint64_t g = x.e->gid, gi = a->iotlb_groups, g2 = gi + a->l2_groups, g3 = g2 + a->l3_groups;
        level2(m, x.e, !a->salloc || (g >= gi && g < g2));
        level3(m, x.e, !a->salloc || (g >= g2 && g < g3));
        x.end += 450;
        push(&m->qi, t + 450, x);
    }
    if (pick(&m->qi, t, &x)) {
        if (x.prefetch) {
            m->r->pf_fill_same += page(&m->buf, x.e, 0, true);
            m->r->pf_fill++;
            return;
        }
        page(&m->io, x.e, x.next, !a->salloc || x.e->gid < a->iotlb_groups);
        m->flying--;
        struct flow *f = &m->flow[x.e->gid];
        if (!f->n)
            m->d->flows[m->d->n_flows++].gid = x.e->gid;
        f->first = !f->n || x.start < f->first ? x.start : f->first;
        f->last = x.end > f->last ? x.end : f->last;
        f->n++;
    }
}

static uint64_t count_used(const struct cache *c, uint32_t dids)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < dids; i++)
        n += c->used[i];
    return n;
}

static void cache_end(struct cache *c, uint64_t **ret_rows, size_t *ret_n)
{
    for (uint32_t i = 0; i < c->sets; i++)
        free(c->set[i].v);
    free(c->set);
    free(c->used);
    if (ret_rows) {
        *ret_rows = c->rows;
        *ret_n = c->sets;
    } else {
        free(c->rows);
    }
}

int hsio_twin(const struct trace *t, const struct arch *a, struct row_stats *ret,
              struct engine_detail *d)
{
    struct numbers random = { 0 };
    struct model m = { .a = a, .r = ret, .d = d };
    enum row_policy io = a->iotlb_policy == POLICY_LRU   ? LRU
                         : a->iotlb_policy == POLICY_LFU ? LFU
                                                         : NAT;
    memset(ret, 0, sizeof(*ret));
    memset(d, 0, sizeof(*d));
    cache_init(&m.cc, LFU, a->cc_entries, a->cc_ways, a->cc_groups, t->n_gids, &random);
    cache_init(&m.io, io, a->iotlb_entries, a->iotlb_ways, a->iotlb_groups, t->n_gids, &random);
    cache_init(&m.l2, LRU, a->l2_entries, a->l2_ways, a->l2_groups, t->n_gids, &random);
    cache_init(&m.l3, LRU, a->l3_entries, a->l3_ways, a->l3_groups, t->n_gids, &random);
    cache_init(&m.buf, LRU, a->pf_entries, a->pf_entries, 1, t->n_gids, &random);
    m.qc.fifo = m.qp.fifo = m.qf.fifo = m.qi.fifo = a->inorder;
    m.sid = get(65536, sizeof(*m.sid));
    m.fifo = get(a->pf_distance, sizeof(*m.fifo));
    m.flow = get(t->n_gids, sizeof(*m.flow));
    d->flows = get(t->n_gids, sizeof(*d->flows));

    uint64_t now = 0, period = 12336 / a->link_gbps, at = 0;
    bool ended = false;
    while (!m.stuck) {
        if (now % period == 0) {
            if (m.flying < a->queue) {
                int i;
                for (i = 0; i < 3; i++) {
                    if (at == t->n) {
                        ended = true;
                        break;
                    }
                    struct tran x = { .e = &t->entry[t->ev[at]], .start = now };
                    x.next = t->next[at] == UINT32_MAX ? UINT64_MAX : t->next[at];
                    x.end = now + (cc(&m, x.e, false) ? 1 : 1000);
                    push(&m.qc, x.end, x);
                    at++;
                    m.flying++;
                }
                ret->pkts_sent += i > 0;
            } else {
                ret->pkts_dropped++;
            }
        }
        if (ended)
            break;
        stages(&m, now);
        now++;
    }
    while (m.flying > 0 && !m.stuck) {
        stages(&m, now);
        now++;
    }
    ret->time_ps = now * 1000;
    ret->requests = at;
    ret->mbps = now ? at / 3 * 12336000 / now : 0;
    ret->pf_size = a->pf_entries;
    struct cache *c[4] = { &m.cc, &m.io, &m.l2, &m.l3 };
    uint64_t *out[4] = { &ret->cc_hit, &ret->iotlb_hit, &ret->l2_hit, &ret->l3_hit };
    for (int i = 0; i < 4; i++) {
        uint64_t v[4] = { c[i]->hit, c[i]->miss, c[i]->conflict, count_used(c[i], t->n_gids) };
        memcpy((void *)out[i], v, sizeof(v));
        cache_end(c[i], &d->rows[i], &d->n_rows[i]);
    }
    cache_end(&m.buf, NULL, NULL);
    for (size_t i = 0; i < d->n_flows && !m.stuck; i++) {
        const struct flow *f = &m.flow[d->flows[i].gid];
        d->flows[i].time_ps = (f->last - f->first) * 1000;
        d->flows[i].trans = f->n;
        d->flows[i].bw_mbps = f->n / 3 * 12336000 / (f->last - f->first);
    }
    d->hist = get(65536, sizeof(*d->hist));
    for (uint32_t i = 0; i < 65536; i++) {
        const struct sid *s = &m.sid[i];
        if (s->seen)
            d->hist[d->n_hist++] = (struct engine_hist){ i, s->hit, s->miss };
        free(s->hist);
    }
    struct queue *q[4] = { &m.qc, &m.qp, &m.qf, &m.qi };
    for (int i = 0; i < 4; i++)
        free(q[i]->a);
    free(m.sid);
    free(m.fifo);
    free(m.flow);
    free(random.r);
    return m.stuck ? -1 : 0;
}
