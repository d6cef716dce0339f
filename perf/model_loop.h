/* The loop of the model engine. Included by model_scalar.c, model_avx2.c and model_avx512.c, which
 * differ in how a line of tags is searched (LINE_TOUCH) and in the compiler's target; results are
 * equal.
 *
 * The four stages fall into two halves that only talk over PCIe, 450 ns away: the device's
 * (arrivals, QC, QI: context cache, IOTLB, buffer) and the chipset's (QP, QF: page caches). So each
 * half runs alone over a stretch of up to 450 ns behind what the other has done, and no half ever
 * looks at the other's queues inside it. Within a half all is done in order of time; at equal times
 * arrivals < QC < QI and QP < QF, which is the order of the stages.
 */
#include "perf/model.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* LINE_TOUCH(tags, lanes, ways, key, alloc, &evicted): whether the key is there; it becomes the
 * first tag, if it was there or is to be inserted. evicted: a key fell out. Defined by the
 * including file. */

static ALWAYS_INLINE bool tlb_access(struct tlb *t, uint32_t key, uint32_t set, bool alloc,
                                     uint32_t due, enum tlb_who who, uint32_t gid)
{
    bool found, evicted = false;
    if (t->kind == TLB_LINE) {
        found =
            LINE_TOUCH(t->line + (size_t)set * t->lanes, t->lanes, t->ways, key, alloc, &evicted);
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
        tlb_count(t, found, evicted, set, who, gid);
    return found;
}

static ALWAYS_INLINE bool ring_empty(const struct model_ring *r)
{
    return r->head == r->tail;
}

static ALWAYS_INLINE struct model_item *ring_front(const struct model_ring *r)
{
    return &r->a[r->head & r->mask];
}

/* Behind everything that is ready no later: first in, first out among equal times. In order: at the
 * end. */
static ALWAYS_INLINE void ring_push(struct model_ring *r, bool inorder, struct model_item it)
{
    uint32_t i = r->tail++;
    if (!inorder)
        for (; i != r->head && r->a[(i - 1) & r->mask].t > it.t; i--)
            r->a[i & r->mask] = r->a[(i - 1) & r->mask];
    r->a[i & r->mask] = it;
}

static ALWAYS_INLINE uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static ALWAYS_INLINE uint64_t ring_next(const struct model_ring *r, uint64_t free_at)
{
    return ring_empty(r) ? MODEL_NEVER : later(ring_front(r)->t, free_at);
}

/* QI serves what QC answered and what came back from far as one queue. */
static ALWAYS_INLINE struct model_ring *qi_pick(struct model *m, bool inorder)
{
    if (ring_empty(&m->qi_far))
        return &m->qi_near;
    if (ring_empty(&m->qi_near))
        return &m->qi_far;
    uint64_t near = ring_front(&m->qi_near)->t, far = ring_front(&m->qi_far)->t;
    if (inorder) { /* by when it was put in; at the same time QC's comes before QP's and QF's */
        near -= MODEL_TLB_HIT_PS;
        far -= ring_front(&m->qi_far)->e & MODEL_F_LEAF ? MODEL_PCIE_PS + MODEL_PAGE_HIT_PS
                                                        : MODEL_PCIE_PS;
        return near <= far ? &m->qi_near : &m->qi_far;
    }
    /* equal times: what came from far was put in earlier */
    return far <= near ? &m->qi_far : &m->qi_near;
}

static ALWAYS_INLINE void to_back(struct model *m, uint64_t ready)
{
    if (ready < m->back_next)
        m->back_next = ready;
}

/* Learn from requester r's access and make its prefetches. */
static ALWAYS_INLINE void probe(struct model *m, uint32_t e, uint64_t t, bool inorder)
{
    uint32_t r = m->entry_req[e], page = m->entry_page[e], guess;
    struct model_req *q = &m->req[r];
    uint32_t *h = m->history + (size_t)r * m->depth;
    bool known = false;
    for (uint32_t i = 0; i < q->used; i++)
        known |= m->entry_page[h[i]] == page;
    q->hit += known;
    q->miss += !known;
    if (q->used < m->depth) {
        h[q->used++] = e;
    } else {
        h[q->at] = e;
        q->at = q->at + 1 == m->depth ? 0 : q->at + 1;
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
    h = m->history + (size_t)guess * m->depth;
    uint32_t at = g->used < m->depth ? 0 : g->at;
    for (uint32_t i = 0; i < g->used; i++) {
        if (UNLIKELY(m->under_way == MODEL_PF_MAX)) {
            m->pf_dropped += g->used - i;
            break;
        }
        m->under_way++;
        to_back(m, t + MODEL_HISTORY_PS);
        ring_push(&m->qp, inorder,
                  (struct model_item){ t + MODEL_HISTORY_PS, h[at] | MODEL_F_PREFETCH, 0 });
        at = at + 1 == g->used ? 0 : at + 1;
    }
}

/* QC's access. Returns whether IOTLB or buffer answered; if not, the translation is on its way to
 * QP. */
static ALWAYS_INLINE bool qc_access(struct model *m, uint32_t e, uint32_t x, uint64_t t,
                                    bool *ret_iotlb, bool inorder, bool prefetch)
{
    const struct model_entry *d = &m->entry[e];
    tlb_access(&m->cc, d->cc, m->cc_set ? m->cc_set[d->cc] : 0, true, 0, TLB_DEMAND, d->gid);
    bool hit = tlb_access(&m->iotlb, d->iotlb, d->iotlb_set, false, x, TLB_DEMAND, d->gid);
    *ret_iotlb = hit;
    if (prefetch) {
        bool b = tlb_access(&m->buffer, m->entry_page[e], 0, false, 0, TLB_DEMAND, d->gid);
        m->buffer_hit += b;
        m->buffer_miss += !b;
        hit |= b;
    }
    if (!hit) {
        to_back(m, t + MODEL_PCIE_PS);
        ring_push(&m->qp, inorder, (struct model_item){ t + MODEL_PCIE_PS, e, x });
    }
    if (prefetch)
        probe(m, e, t, inorder);
    return hit;
}

static ALWAYS_INLINE void completed(struct model *m, uint32_t gid, uint64_t t)
{
    struct model_flow *f = &m->flow[gid];
    if (UNLIKELY(!f->n))
        m->flow_order[m->n_flows++] = gid;
    f->n++;
    f->last = t;
    m->last = t;
}

static ALWAYS_INLINE void slot_round(struct model *m)
{
    m->slot = m->slot_ps + (m->slot_frac > 0);
}

static ALWAYS_INLINE void slot_advance(struct model *m)
{
    m->slot_ps += m->step_ps;
    m->slot_frac += m->step_frac;
    if (m->slot_frac >= m->gbps) {
        m->slot_frac -= m->gbps;
        m->slot_ps++;
    }
    slot_round(m);
}

/* Room in the queue again since time t: the slots up to then were refused. */
static ALWAYS_INLINE void slot_resume(struct model *m, uint64_t t)
{
    if (m->pos == m->n || m->slot > t)
        return;
    /* fewest j with slot + j packets > t, all in units of 1 / gbps ps; t - slot is a few us */
    uint64_t behind = (t - m->slot_ps) * m->gbps - m->slot_frac;
    uint64_t j = behind / MODEL_PACKET_FBIT + 1;
    uint64_t f = m->slot_frac + j * MODEL_PACKET_FBIT;
    m->dropped += j;
    m->slot_ps += f / m->gbps;
    m->slot_frac = f % m->gbps;
    slot_round(m);
}

static ALWAYS_INLINE void qi_access(struct model *m, struct model_item it, uint64_t t)
{
    uint32_t e = it.e & MODEL_F_ENTRY;
    const struct model_entry *d = &m->entry[e];
    m->qi_free = t + MODEL_STAGE_PS;
    if (it.e & MODEL_F_PREFETCH) {
        tlb_access(&m->buffer, m->entry_page[e], 0, true, 0, TLB_PREFETCH, d->gid);
        m->under_way--;
        return;
    }
    tlb_access(&m->iotlb, d->iotlb, d->iotlb_set, d->l3_set & MODEL_ALLOC_IOTLB, it.x, TLB_DEMAND,
               d->gid);
    completed(m, d->gid, t);
    if (m->flying-- == m->queue)
        slot_resume(m, t);
}

/* A slot with room: read a packet. qi: when QI starts next; limit: where this stretch ends. */
static ALWAYS_INLINE void arrive(struct model *m, uint64_t qi, uint64_t limit, bool inorder,
                                 bool prefetch)
{
    uint64_t t = m->slot;
    uint32_t k =
        m->n - m->pos < MODEL_PACKET_EVENTS ? (uint32_t)(m->n - m->pos) : MODEL_PACKET_EVENTS;
    uint32_t e[MODEL_PACKET_EVENTS], x[MODEL_PACKET_EVENTS] = { 0 };
    bool found[MODEL_PACKET_EVENTS], all = true;
    for (uint32_t i = 0; i < k; i++) {
        e[i] = m->ev[m->pos + i];
        if (m->next_use)
            x[i] = m->next_use[m->pos + i];
        const struct model_entry *d = &m->entry[e[i]];
        found[i] = tlb_access(&m->cc, d->cc, m->cc_set ? m->cc_set[d->cc] : 0, false, 0, TLB_DEMAND,
                              d->gid);
        all &= found[i];
        if (UNLIKELY(m->flow[d->gid].first == MODEL_NEVER))
            m->flow[d->gid].first = t;
    }
    m->pos += k;
    m->flying += k;
    m->sent++;
    slot_advance(m);

    uint64_t end = t + k * (uint64_t)MODEL_STAGE_PS; /* QC's last access if nothing is before it */
    if (UNLIKELY(!all || !ring_empty(&m->qc) || m->qc_free > t + MODEL_CC_HIT_PS || qi < end ||
                 limit <= end || (m->slot <= end && m->pos < m->n))) {
        for (uint32_t i = 0; i < k; i++)
            ring_push(&m->qc, inorder,
                      (struct model_item){ t + (found[i] ? MODEL_CC_HIT_PS : MODEL_CC_MISS_PS),
                                           e[i], x[i] });
        return;
    }
    /* Nothing else of this half happens before QC has seen all of them. */
    bool iotlb[MODEL_PACKET_EVENTS], hit[MODEL_PACKET_EVENTS];
    all = true;
    for (uint32_t i = 0; i < k; i++) {
        hit[i] = qc_access(m, e[i], x[i], t + MODEL_CC_HIT_PS + i * (uint64_t)MODEL_STAGE_PS,
                           &iotlb[i], inorder, prefetch);
        all &= iotlb[i];
    }
    m->qc_free = end + MODEL_STAGE_PS;
    uint64_t done = end + MODEL_TLB_HIT_PS;
    if (all && m->iotlb.kind <= TLB_LIST && ring_empty(&m->qi_near) &&
        (!inorder || ring_empty(&m->qi_far)) &&
        m->qi_free <= t + MODEL_CC_HIT_PS + MODEL_TLB_HIT_PS && qi > done && limit > done &&
        m->slot > done) {
        /* QI will find them all again, and finding the same keys in the same order twice leaves LRU
         * order as once. */
        for (uint32_t i = 0; i < k; i++) {
            const struct model_entry *d = &m->entry[e[i]];
            if (d->l3_set & MODEL_ALLOC_IOTLB)
                tlb_count(&m->iotlb, true, false, d->iotlb_set, TLB_DEMAND, d->gid);
            completed(m, d->gid,
                      t + MODEL_CC_HIT_PS + MODEL_TLB_HIT_PS + i * (uint64_t)MODEL_STAGE_PS);
        }
        m->qi_free = done + MODEL_STAGE_PS;
        m->flying -= k;
        return;
    }
    for (uint32_t i = 0; i < k; i++)
        if (hit[i])
            ring_push(&m->qi_near, inorder,
                      (struct model_item){ t + MODEL_CC_HIT_PS + MODEL_TLB_HIT_PS +
                                               i * (uint64_t)MODEL_STAGE_PS,
                                           e[i], x[i] });
}

/* The device's half, up to the time at which the other half may have something to say. Returns
 * whether anything is left here to wait for. In order, QI must know of all that was put in before:
 * the stretch ends with what the back has done. */
static ALWAYS_INLINE void front(struct model *m, bool inorder, bool prefetch)
{
    const uint64_t ahead = inorder ? 0 : MODEL_PCIE_PS;
    for (;;) {
        uint64_t limit = m->back_next == MODEL_NEVER ? MODEL_NEVER : m->back_next + ahead;
        struct model_ring *r = qi_pick(m, inorder);
        uint64_t slot = m->pos < m->n && m->flying < m->queue ? m->slot : MODEL_NEVER;
        uint64_t qc = ring_next(&m->qc, m->qc_free), qi = ring_next(r, m->qi_free);
        uint64_t t = slot < qc ? slot : qc;
        t = t < qi ? t : qi;
        if (t >= limit)
            return;
        if (t == slot) {
            arrive(m, qi < qc ? qi : qc, limit, inorder, prefetch);
        } else if (t == qc) {
            struct model_item it = *ring_front(&m->qc);
            bool iotlb;
            m->qc.head++;
            m->qc_free = t + MODEL_STAGE_PS;
            if (qc_access(m, it.e, it.x, t, &iotlb, inorder, prefetch))
                ring_push(&m->qi_near, inorder,
                          (struct model_item){ t + MODEL_TLB_HIT_PS, it.e, it.x });
        } else {
            struct model_item it = *ring_front(r);
            r->head++;
            qi_access(m, it, t);
        }
    }
}

static ALWAYS_INLINE void qp_access(struct model *m, struct model_item it, uint64_t t, bool inorder)
{
    const struct model_entry *d = &m->entry[it.e & MODEL_F_ENTRY];
    uint32_t level = d->l2_set >> MODEL_LEVEL_SHIFT;
    bool h2 = level <= 2 &&
              tlb_access(&m->l2, d->l2, d->l2_set & MODEL_SET_MASK, false, 0, TLB_DEMAND, d->gid);
    bool h3 = tlb_access(&m->l3, d->l3, d->l3_set & MODEL_SET_MASK, false, 0, TLB_DEMAND, d->gid);
    uint32_t reads = (h2 ? 2 : h3 ? 3 : 4) - level;
    if (reads) {
        it.t = t + (h2 | h3 ? MODEL_PAGE_HIT_PS : 0) + reads * (uint64_t)MODEL_MEM_PS;
        ring_push(&m->qf, inorder, it);
    } else {
        it.t = t + MODEL_PAGE_HIT_PS + MODEL_PCIE_PS;
        it.e |= MODEL_F_LEAF;
        ring_push(&m->qi_far, inorder, it);
    }
}

static ALWAYS_INLINE void qf_access(struct model *m, struct model_item it, uint64_t t, bool inorder)
{
    const struct model_entry *d = &m->entry[it.e & MODEL_F_ENTRY];
    enum tlb_who who = it.e & MODEL_F_PREFETCH ? TLB_PREFETCH : TLB_DEMAND;
    if (d->l2_set >> MODEL_LEVEL_SHIFT <= 2)
        tlb_access(&m->l2, d->l2, d->l2_set & MODEL_SET_MASK, d->l3_set & MODEL_ALLOC_L2, 0, who,
                   d->gid);
    tlb_access(&m->l3, d->l3, d->l3_set & MODEL_SET_MASK, d->l3_set & MODEL_ALLOC_L3, 0, who,
               d->gid);
    it.t = t + MODEL_PCIE_PS;
    ring_push(&m->qi_far, inorder, it);
}

/* The chipset's half, all that happens before `limit`. */
static ALWAYS_INLINE void back(struct model *m, uint64_t limit, bool inorder)
{
    for (;;) {
        uint64_t qp = ring_next(&m->qp, m->qp_free), qf = ring_next(&m->qf, m->qf_free);
        uint64_t t = qp <= qf ? qp : qf;
        m->back_next = t;
        if (t >= limit)
            return;
        if (qp <= qf) {
            struct model_item it = *ring_front(&m->qp);
            m->qp.head++;
            m->qp_free = t + MODEL_STAGE_PS;
            qp_access(m, it, t, inorder);
        } else {
            struct model_item it = *ring_front(&m->qf);
            m->qf.head++;
            m->qf_free = t + MODEL_STAGE_PS;
            qf_access(m, it, t, inorder);
        }
    }
}

static ALWAYS_INLINE void loop(struct model *m, bool inorder, bool prefetch)
{
    for (;;) {
        front(m, inorder, prefetch);
        if (m->back_next == MODEL_NEVER)
            return;
        /* the front has done everything before this time, so nothing new reaches QP for another
         * trip */
        back(m, m->back_next + (inorder ? 0 : MODEL_PCIE_PS) + MODEL_PCIE_PS, inorder);
    }
}

void MODEL_LOOP(struct model *m)
{
    if (m->inorder) {
        if (m->prefetch)
            loop(m, true, true);
        else
            loop(m, true, false);
    } else {
        if (m->prefetch)
            loop(m, false, true);
        else
            loop(m, false, false);
    }
}
