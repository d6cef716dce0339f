/* The loop of the model engine. Included by model_scalar.c, model_avx2.c and model_avx512.c, which differ in how a line of
 * tags is searched and in the compiler's target; results are equal.
 *
 * The four stages fall into two halves that only talk over PCIe, 450 ns away: the device's (arrivals, QC, QI: context
 * cache, IOTLB, buffer) and the chipset's (QP, QF: page caches). So each half runs alone over a stretch of up to
 * 450 ns behind what the other has done, and no half ever looks at the other's queues inside it. Within a half all is
 * done in order of time; at equal times arrivals < QC < QI and QP < QF, which is the order of the stages.
 *
 * The including file defines
 *   line_probe(line, lanes, ways, key)           whether the key is in the line; if so it becomes the first
 *   line_fill(line, lanes, ways, key, &fresh)    the same, but inserts it if it was not; fresh: nothing fell out
 *   MODEL_LOOP                                   the name of the function
 *
 * Each function takes its case and is inlined where that is constant: `inorder`, `prefetch`, and `common`, which promises the usual
 * shapes (no salloc, no detail, CC that never evicts, LRU lines of 8 tags in the IOTLB and 16 in the page caches).
 */
#include "perf/model.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* What the loop changes all the time. A local whose address goes nowhere: the compiler keeps it in registers and need not
 * fear that a store into a queue changes it. */
struct hot {
    const uint32_t *ev, *next_use;
    const struct model_entry *entry;
    struct model_flow *flow;
    uint64_t pos, n;
    /* the next slot, and the gate: when it next opens (the slot, or never while the queue is full) */
    uint64_t gate, slot, slot_ps, slot_frac, gbps, step_ps, step_frac;
    uint64_t queue, flying, sent, dropped;
    struct model_ring qc, qp, qf, near, far;
    uint64_t qc_free, qp_free, qf_free, qi_free, last;
    uint64_t limit; /* where the front's stretch ends */
    /* common: the caches' lines, and what is counted */
    uint32_t *iotlb, *l2, *l3, iotlb_ways, l2_ways, l3_ways;
    uint8_t *cc;
    uint64_t cc_miss, iotlb_miss;
    uint64_t l2_all[2], l2_miss[2], l2_fresh[2], l3_all[2], l3_miss[2], l3_fresh[2];
};

/* ---- caches */

static ALWAYS_INLINE bool tlb_access(struct tlb *t, uint32_t key, uint32_t set, bool alloc,
                                     uint32_t due, enum tlb_who who, uint32_t gid)
{
    bool found, fresh = true;
    if (t->kind == TLB_LINE) {
        uint32_t *line = t->line + (size_t)set * t->lanes;
        found = alloc ? line_fill(line, t->lanes, t->ways, key, &fresh)
                      : line_probe(line, t->lanes, t->ways, key);
    } else if (t->kind == TLB_ALL) {
        found = t->seen[key];
        if (alloc)
            t->seen[key] = 1;
    } else if (t->kind == TLB_ABSENT) {
        return false;
    } else {
        return tlb_slow(t, key, set, alloc, due, who, gid);
    }
    if (alloc)
        tlb_count(t, found, !fresh, set, who, gid);
    return found;
}

static ALWAYS_INLINE bool cc_access(struct model *m, struct hot *h, const struct model_entry *d,
                                    bool alloc, bool common)
{
    if (!common)
        return tlb_access(&m->cc, d->cc, m->cc_set ? m->cc_set[d->cc] : 0, alloc, 0, TLB_DEMAND,
                          d->gid);
    bool found = h->cc[d->cc];
    if (alloc && UNLIKELY(!found)) {
        h->cc[d->cc] = 1;
        h->cc_miss++;
        m->cc.domain[d->gid] = 1;
    }
    return found;
}

static ALWAYS_INLINE bool iotlb_probe(struct model *m, struct hot *h, const struct model_entry *d,
                                      uint32_t x, bool common)
{
    if (!common)
        return tlb_access(&m->iotlb, d->iotlb, d->iotlb_set, false, x, TLB_DEMAND, d->gid);
    return line_probe(h->iotlb + (size_t)d->iotlb_set * 8, 8, h->iotlb_ways, d->iotlb);
}

/* common: conflicts and domains follow in the end, see finish(). */
static ALWAYS_INLINE void iotlb_fill(struct model *m, struct hot *h, const struct model_entry *d,
                                     uint32_t x, bool common)
{
    if (!common) {
        tlb_access(&m->iotlb, d->iotlb, d->iotlb_set, d->l3_set & MODEL_ALLOC_IOTLB, x, TLB_DEMAND,
                   d->gid);
        return;
    }
    bool fresh,
        found = line_fill(h->iotlb + (size_t)d->iotlb_set * 8, 8, h->iotlb_ways, d->iotlb, &fresh);
    h->iotlb_miss += !found;
}

static ALWAYS_INLINE bool page_probe(struct model *m, struct tlb *t, uint32_t *lines, uint32_t ways,
                                     uint32_t key, uint32_t set, const struct model_entry *d,
                                     bool common)
{
    (void)m;
    if (!common)
        return tlb_access(t, key, set, false, 0, TLB_DEMAND, d->gid);
    return line_probe(lines + (size_t)set * 16, 16, ways, key);
}

/* Whether the buffer has the page already is as good as a coin: counted without a branch. */
static ALWAYS_INLINE void buffer_fill(struct model *m, uint32_t page, uint32_t gid)
{
    if (UNLIKELY(m->buffer.kind != TLB_LINE)) {
        tlb_access(&m->buffer, page, 0, true, 0, TLB_PREFETCH, gid);
        return;
    }
    bool fresh, found = line_fill(m->buffer.line, m->buffer.lanes, m->buffer.ways, page, &fresh);
    m->buffer.hit[TLB_PREFETCH] += found;
    m->buffer.miss[TLB_PREFETCH] += !found;
}

/* ---- queues */

static ALWAYS_INLINE bool ring_empty(const struct model_ring *r)
{
    return r->head == r->tail;
}

static ALWAYS_INLINE struct model_item *ring_at(const struct model_ring *r, uint64_t at)
{
    return (struct model_item *)(void *)(r->a + at);
}

static ALWAYS_INLINE struct model_item *ring_front(const struct model_ring *r)
{
    return ring_at(r, r->head);
}

static ALWAYS_INLINE struct model_item ring_pop(struct model_ring *r)
{
    struct model_item it = *ring_front(r);
    r->head = (r->head + sizeof(it)) & r->mask;
    return it;
}

/* Behind everything that is ready no later: first in, first out among equal times. In order: at the end. The item before the front,
 * taken out earlier, is never later than what comes: no end of the search is needed. */
static ALWAYS_INLINE void ring_push(struct model_ring *r, bool sorted, struct model_item it)
{
    uint64_t at = r->tail;
    r->tail = (at + sizeof(it)) & r->mask;
    ring_at(r, r->tail)->t = MODEL_NEVER;
    if (sorted)
        for (uint64_t before; UNLIKELY(ring_at(r, before = (at - sizeof(it)) & r->mask)->t > it.t);
             at = before)
            *ring_at(r, at) = *ring_at(r, before);
    *ring_at(r, at) = it;
}

static ALWAYS_INLINE uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static ALWAYS_INLINE uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- the device's half */

/* Learn from requester r's access and make its prefetches. */
static ALWAYS_INLINE void probe(struct model *m, struct hot *h, uint32_t e, uint64_t t,
                                bool inorder)
{
    uint32_t r = m->entry_req[e], page = m->entry_page[e], guess;
    struct model_req *q = &m->req[r];
    uint32_t *past = m->history + (size_t)r * m->depth;
    bool known = false;
    for (uint32_t i = 0; i < q->used; i++)
        known |= m->entry_page[past[i]] == page;
    q->hit += known;
    q->miss += !known;
    if (q->used < m->depth) {
        past[q->used++] = e;
    } else {
        past[q->at] = e;
        q->at = (q->at + 1) *
                (q->at + 1 != m->depth); /* no branch: with depth 2 it goes every other way */
    }
    if (m->fifo_used == m->distance) {
        uint32_t before = m->fifo[m->fifo_at];
        struct model_req *b = &m->req[before];
        guess = m->guess[m->fifo_at];
        if (guess != TLB_NONE) {
            m->correct += guess == r;
            m->incorrect += guess != r;
        }
        m->same += before == r;
        m->different += before != r;
        if (b->next == r) {
            b->confidence += b->confidence < 3;
        } else if (b->next == TLB_NONE || --b->confidence == 0) {
            b->next = before == r ? TLB_NONE : r;
            b->confidence = 1;
            m->mappings += before != r;
        }
    } else {
        m->fifo_used++;
    }
    guess = q->next;
    m->fifo[m->fifo_at] = r;
    m->guess[m->fifo_at] = guess;
    m->fifo_at = m->fifo_at + 1 == m->distance ? 0 : m->fifo_at + 1;
    if (guess == TLB_NONE)
        return;
    m->predictions++;
    struct model_req *g = &m->req[guess];
    past = m->history + (size_t)guess * m->depth;
    uint32_t at = g->used < m->depth ? 0 : g->at;
    for (uint32_t i = 0; i < g->used; i++) {
        if (UNLIKELY(m->under_way == MODEL_PF_MAX)) {
            m->pf_dropped += g->used - i;
            break;
        }
        m->under_way++;
        h->limit = sooner(h->limit, t + MODEL_HISTORY_PS + (inorder ? 0 : MODEL_PCIE_PS));
        ring_push(&h->qp, !inorder,
                  (struct model_item){ t + MODEL_HISTORY_PS, past[at] | MODEL_F_PREFETCH });
        at = at + 1 == g->used ? 0 : at + 1;
    }
}

/* QC's access, but for the context cache. Returns whether IOTLB or buffer answered; if not, the translation is on its way to
 * QP. ex: entry and next use, as in an item. */
static ALWAYS_INLINE bool qc_access(struct model *m, struct hot *h, uint64_t ex, uint64_t t,
                                    bool *ret_iotlb, bool inorder, bool prefetch, bool common)
{
    uint32_t e = (uint32_t)ex;
    const struct model_entry *d = &h->entry[e];
    bool hit = iotlb_probe(m, h, d, (uint32_t)(ex >> 32), common);
    *ret_iotlb = hit;
    if (prefetch) {
        bool b = tlb_access(&m->buffer, m->entry_page[e], 0, false, 0, TLB_DEMAND, d->gid);
        m->buffer_hit += b;
        m->buffer_miss += !b;
        hit |= b;
    }
    if (!hit) {
        h->limit = sooner(h->limit, t + MODEL_PCIE_PS + (inorder ? 0 : MODEL_PCIE_PS));
        /* without prefetches QP gets everything in order of time */
        ring_push(&h->qp, prefetch && !inorder, (struct model_item){ t + MODEL_PCIE_PS, ex });
    }
    if (prefetch)
        probe(m, h, e, t, inorder);
    return hit;
}

static ALWAYS_INLINE void completed(struct model *m, struct hot *h, uint32_t gid, uint64_t t)
{
    struct model_flow *f = &h->flow[gid];
    if (UNLIKELY(!f->n))
        m->flow_order[m->n_flows++] = gid;
    f->n++;
    f->last = t;
    h->last = t;
}

static ALWAYS_INLINE void slot_advance(struct hot *h)
{
    h->slot_ps += h->step_ps;
    h->slot_frac += h->step_frac;
    bool over = h->slot_frac >= h->gbps;
    h->slot_frac -= over ? h->gbps : 0;
    h->slot_ps += over;
    h->slot = h->slot_ps + (h->slot_frac > 0);
}

/* Room in the queue again since time t: the slots up to then were refused. */
static ALWAYS_INLINE void slot_resume(struct hot *h, uint64_t t)
{
    if (h->pos == h->n)
        return;
    if (h->slot <= t) {
        /* fewest j with slot + j packets > t, all in units of 1 / gbps ps; t - slot is a few us */
        uint64_t behind = (t - h->slot_ps) * h->gbps - h->slot_frac;
        uint64_t j = behind / MODEL_PACKET_FBIT + 1;
        uint64_t f = h->slot_frac + j * MODEL_PACKET_FBIT;
        h->dropped += j;
        h->slot_ps += f / h->gbps;
        h->slot_frac = f % h->gbps;
        h->slot = h->slot_ps + (h->slot_frac > 0);
    }
    h->gate = h->slot;
}

static ALWAYS_INLINE void qi_access(struct model *m, struct hot *h, struct model_item it,
                                    uint64_t t, bool prefetch, bool common)
{
    uint32_t e = (uint32_t)it.ex & MODEL_F_ENTRY;
    const struct model_entry *d = &h->entry[e];
    h->qi_free = t + MODEL_STAGE_PS;
    if (prefetch && it.ex & MODEL_F_PREFETCH) {
        buffer_fill(m, m->entry_page[e], d->gid);
        m->under_way--;
        return;
    }
    iotlb_fill(m, h, d, (uint32_t)(it.ex >> 32), common);
    completed(m, h, d->gid, t);
    if (h->flying-- == h->queue)
        slot_resume(h, t);
}

/* A slot with room: read a packet. qi: when QI starts next. */
static ALWAYS_INLINE void arrive(struct model *m, struct hot *h, uint64_t qi, bool inorder,
                                 bool prefetch, bool common)
{
    enum { K = MODEL_PACKET_EVENTS };
    const uint64_t t = h->slot, left = h->n - h->pos;
    const uint32_t k = LIKELY(left >= K) ? K : (uint32_t)left;
    uint64_t ex[K] = { 0 };
    bool found[K], all = k == K;
    for (uint32_t i = 0; i < K; i++) {
        if (UNLIKELY(i >= k))
            break;
        ex[i] = h->ev[h->pos + i];
        const struct model_entry *d = &h->entry[ex[i]];
        if (!common && h->next_use)
            ex[i] |= (uint64_t)h->next_use[h->pos + i] << 32;
        found[i] = cc_access(m, h, d, false, common);
        all &= found[i];
        if (UNLIKELY(h->flow[d->gid].first == MODEL_NEVER))
            h->flow[d->gid].first = t;
    }
    h->pos += k;
    h->flying += k;
    h->sent++;
    slot_advance(h);
    h->gate = h->flying < h->queue && left > k ? h->slot : MODEL_NEVER;

    const uint64_t end = t + K * MODEL_STAGE_PS; /* QC's last access if nothing is before it */
    if (UNLIKELY(!all || !ring_empty(&h->qc) || h->qc_free > t + MODEL_CC_HIT_PS || qi < end ||
                 h->limit <= end || h->slot <= end)) {
        for (uint32_t i = 0; i < k; i++)
            ring_push(
                &h->qc, !inorder,
                (struct model_item){ t + (found[i] ? MODEL_CC_HIT_PS : MODEL_CC_MISS_PS), ex[i] });
        return;
    }
    /* Nothing else of this half happens before QC has seen all of them. */
    bool iotlb[K], hit[K];
    all = true;
    for (uint32_t i = 0; i < K; i++) {
        if (!common)
            cc_access(m, h, &h->entry[(uint32_t)ex[i]], true, common);
        hit[i] = qc_access(m, h, ex[i], t + MODEL_CC_HIT_PS + i * (uint64_t)MODEL_STAGE_PS,
                           &iotlb[i], inorder, prefetch, common);
        all &= iotlb[i];
    }
    h->qc_free = end + MODEL_STAGE_PS;
    const uint64_t start = t + MODEL_CC_HIT_PS + MODEL_TLB_HIT_PS, done = end + MODEL_TLB_HIT_PS;
    if (all && (common || m->iotlb.kind <= TLB_LIST) && ring_empty(&h->near) &&
        (!inorder || ring_empty(&h->far)) && h->qi_free <= start && qi > done && h->limit > done &&
        h->slot > done) {
        /* QI will find them all again, and finding the same keys in the same order twice leaves LRU order as once. */
        for (uint32_t i = 0; i < K; i++) {
            const struct model_entry *d = &h->entry[(uint32_t)ex[i]];
            if (!common && d->l3_set & MODEL_ALLOC_IOTLB)
                tlb_count(&m->iotlb, true, false, d->iotlb_set, TLB_DEMAND, d->gid);
            completed(m, h, d->gid, start + i * (uint64_t)MODEL_STAGE_PS);
        }
        h->qi_free = done + MODEL_STAGE_PS;
        h->flying -= K;
        h->gate = left > K ? h->slot : MODEL_NEVER;
        return;
    }
    for (uint32_t i = 0; i < K; i++)
        if (hit[i])
            ring_push(&h->near, false,
                      (struct model_item){ start + i * (uint64_t)MODEL_STAGE_PS, ex[i] });
}

/* QI serves what QC answered (near) and what came back over PCIe (far) as one queue. */
static ALWAYS_INLINE bool qi_takes_far(const struct hot *h, uint64_t near, uint64_t far,
                                       bool inorder)
{
    if (!inorder) /* equal times: what came from far was put in earlier */
        return far <= near;
    if (ring_empty(&h->far) || ring_empty(&h->near))
        return ring_empty(&h->near);
    /* by when it was put in; at the same time QC's comes before QP's and QF's */
    far -=
        ring_front(&h->far)->ex & MODEL_F_LEAF ? MODEL_PCIE_PS + MODEL_PAGE_HIT_PS : MODEL_PCIE_PS;
    return far < near - MODEL_TLB_HIT_PS;
}

/* The device's half, up to the time at which the other half may have something to say. In order, QI must know of all that was
 * put in before: the stretch ends with what the back has done. */
static ALWAYS_INLINE void front(struct model *m, struct hot *h, bool inorder, bool prefetch,
                                bool common)
{
    for (;;) {
        uint64_t near = ring_front(&h->near)->t, far = ring_front(&h->far)->t;
        bool take_far = qi_takes_far(h, near, far, inorder);
        uint64_t qi = later(take_far ? far : near, h->qi_free);
        uint64_t qc = later(ring_front(&h->qc)->t, h->qc_free);
        uint64_t t = sooner(sooner(h->gate, qc), qi);
        if (UNLIKELY(t >= h->limit))
            return;
        if (t == h->gate) {
            arrive(m, h, qi, inorder, prefetch, common);
        } else if (UNLIKELY(t == qc)) {
            struct model_item it = ring_pop(&h->qc);
            bool iotlb;
            h->qc_free = t + MODEL_STAGE_PS;
            cc_access(m, h, &h->entry[(uint32_t)it.ex], true, common);
            if (qc_access(m, h, it.ex, t, &iotlb, inorder, prefetch, common))
                ring_push(&h->near, false, (struct model_item){ t + MODEL_TLB_HIT_PS, it.ex });
        } else if (take_far) {
            qi_access(m, h, ring_pop(&h->far), t, prefetch, common);
        } else {
            qi_access(m, h, ring_pop(&h->near), t, prefetch, common);
        }
    }
}

/* ---- the chipset's half */

static ALWAYS_INLINE void qp_access(struct model *m, struct hot *h, struct model_item it,
                                    uint64_t t, bool inorder, bool common)
{
    const struct model_entry *d = &h->entry[it.ex & MODEL_F_ENTRY];
    uint32_t level = d->l2_set >> MODEL_LEVEL_SHIFT;
    bool h2 = LIKELY(level <= 2) && page_probe(m, &m->l2, h->l2, h->l2_ways, d->l2,
                                               d->l2_set & MODEL_SET_MASK, d, common);
    bool h3 =
        page_probe(m, &m->l3, h->l3, h->l3_ways, d->l3, d->l3_set & MODEL_SET_MASK, d, common);
    uint32_t reads = (h2 ? 2 : 4 - h3) - level;
    if (reads) {
        it.t = t + ((h2 | h3) ? MODEL_PAGE_HIT_PS : 0) + reads * (uint64_t)MODEL_MEM_PS;
        ring_push(&h->qf, !inorder, it);
    } else {
        it.t = t + MODEL_PAGE_HIT_PS + MODEL_PCIE_PS;
        it.ex |= MODEL_F_LEAF;
        ring_push(&h->far, !inorder, it);
    }
}

static ALWAYS_INLINE void qf_access(struct model *m, struct hot *h, struct model_item it,
                                    uint64_t t, bool inorder, bool prefetch, bool common)
{
    const struct model_entry *d = &h->entry[it.ex & MODEL_F_ENTRY];
    enum tlb_who who = prefetch && it.ex & MODEL_F_PREFETCH ? TLB_PREFETCH : TLB_DEMAND;
    bool has_l2 = LIKELY(d->l2_set >> MODEL_LEVEL_SHIFT <= 2);
    uint32_t s2 = d->l2_set & MODEL_SET_MASK, s3 = d->l3_set & MODEL_SET_MASK;
    if (common) {
        bool fresh, found;
        if (has_l2) {
            found = line_fill(h->l2 + (size_t)s2 * 16, 16, h->l2_ways, d->l2, &fresh);
            h->l2_all[who]++;
            h->l2_miss[who] += !found;
            m->l2.domain[d->gid] |= !found & (who == TLB_DEMAND);
            if (prefetch)
                h->l2_fresh[who] += fresh;
        }
        found = line_fill(h->l3 + (size_t)s3 * 16, 16, h->l3_ways, d->l3, &fresh);
        h->l3_all[who]++;
        h->l3_miss[who] += !found;
        if (prefetch) {
            h->l3_fresh[who] += fresh;
            m->l3.domain[d->gid] |= !found & (who == TLB_DEMAND);
        }
    } else {
        if (has_l2)
            tlb_access(&m->l2, d->l2, s2, d->l3_set & MODEL_ALLOC_L2, 0, who, d->gid);
        tlb_access(&m->l3, d->l3, s3, d->l3_set & MODEL_ALLOC_L3, 0, who, d->gid);
    }
    it.t = t + MODEL_PCIE_PS;
    ring_push(&h->far, !inorder, it);
}

/* All that happens before `limit`. Returns when something happens next. */
static ALWAYS_INLINE uint64_t back(struct model *m, struct hot *h, uint64_t limit, bool inorder,
                                   bool prefetch, bool common)
{
    for (;;) {
        uint64_t qp = later(ring_front(&h->qp)->t, h->qp_free),
                 qf = later(ring_front(&h->qf)->t, h->qf_free);
        uint64_t t = sooner(qp, qf);
        if (t >= limit)
            return t;
        if (qp <= qf) {
            struct model_item it = ring_pop(&h->qp);
            h->qp_free = t + MODEL_STAGE_PS;
            qp_access(m, h, it, t, inorder, common);
        } else {
            struct model_item it = ring_pop(&h->qf);
            h->qf_free = t + MODEL_STAGE_PS;
            qf_access(m, h, it, t, inorder, prefetch, common);
        }
    }
}

/* ---- both */

static ALWAYS_INLINE uint64_t ones(const uint8_t *p, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += p[i];
    return sum;
}

static ALWAYS_INLINE uint64_t filled(const struct tlb *t)
{
    uint64_t n = 0;
    for (size_t i = 0; i < (size_t)t->sets * t->lanes; i++)
        n += t->line[i] != TLB_NONE;
    return n;
}

/* What the short form did not count on the way. A miss that evicted nothing filled a free place, and places stay filled. A tenant's
 * first access to IOTLB and, without prefetches, to L3PAGE misses: keys hold the tenant. */
static ALWAYS_INLINE void finish(struct model *m, const struct hot *h, bool prefetch, bool common)
{
    m->slot = h->slot;
    m->last = h->last;
    m->sent = h->sent;
    m->dropped = h->dropped;
    if (!common)
        return;
    m->cc.hit[0] = h->n - h->cc_miss;
    m->cc.miss[0] = h->cc_miss;
    m->cc.domains = ones(m->cc.domain, m->n_gids);
    m->iotlb.hit[0] = h->n - h->iotlb_miss;
    m->iotlb.miss[0] = h->iotlb_miss;
    m->iotlb.conflict[0] = h->iotlb_miss - filled(&m->iotlb);
    m->iotlb.domains = m->n_flows;
    for (int who = 0; who < (prefetch ? 2 : 1); who++) {
        m->l2.hit[who] = h->l2_all[who] - h->l2_miss[who];
        m->l2.miss[who] = h->l2_miss[who];
        m->l2.conflict[who] = h->l2_miss[who] - (prefetch ? h->l2_fresh[who] : filled(&m->l2));
        m->l3.hit[who] = h->l3_all[who] - h->l3_miss[who];
        m->l3.miss[who] = h->l3_miss[who];
        m->l3.conflict[who] = h->l3_miss[who] - (prefetch ? h->l3_fresh[who] : filled(&m->l3));
    }
    m->l2.domains = ones(m->l2.domain, m->n_gids);
    m->l3.domains = prefetch ? ones(m->l3.domain, m->n_gids) : m->n_flows;
}

static ALWAYS_INLINE void loop(struct model *m, bool inorder, bool prefetch, bool common)
{
    struct hot h = {
        .ev = m->ev,
        .next_use = m->next_use,
        .entry = m->entry,
        .flow = m->flow,
        .n = m->n,
        .gate = m->n ? 0 : MODEL_NEVER,
        .gbps = m->gbps,
        .step_ps = MODEL_PACKET_FBIT / m->gbps,
        .step_frac = MODEL_PACKET_FBIT % m->gbps,
        .queue = m->queue,
        .qc = m->qc,
        .qp = m->qp,
        .qf = m->qf,
        .near = m->qi_near,
        .far = m->qi_far,
        .limit = MODEL_NEVER,
        .iotlb = m->iotlb.line,
        .l2 = m->l2.line,
        .l3 = m->l3.line,
        .cc = m->cc.seen,
        .iotlb_ways = m->iotlb.ways,
        .l2_ways = m->l2.ways,
        .l3_ways = m->l3.ways,
    };
    for (;;) {
        front(m, &h, inorder, prefetch, common);
        if (h.limit == MODEL_NEVER)
            break;
        /* the front has done everything before its limit, so nothing new reaches QP for another trip */
        uint64_t next = back(m, &h, h.limit + MODEL_PCIE_PS, inorder, prefetch, common);
        h.limit = next == MODEL_NEVER ? next : next + (inorder ? 0 : MODEL_PCIE_PS);
    }
    finish(m, &h, prefetch, common);
}

/* Three instances: what is not common asks at run time, which costs little beside what makes it uncommon. */
void MODEL_LOOP(struct model *m)
{
    if (!m->common)
        loop(m, m->inorder, m->prefetch, false);
    else if (m->prefetch)
        loop(m, false, true, true);
    else
        loop(m, false, false, true);
}
