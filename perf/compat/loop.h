/* The loop of the engine under hypersio rules. Included by loop_scalar.c, loop_avx2.c and loop_avx512.c, which define
 *   line_touch(line, lanes, key)                 whether the key is in the line; if so it becomes the first
 *   line_fill(line, lanes, ways, key, &full)     the same, but inserts it if it was not; full: a key fell out
 *   LOOP                                         the name of the function
 *
 * What happens next is the least of five keys, time << 3 | stage: the next slot and the next pick of each stage. A stage
 * picks at most once a ns, so after a pick at t its key is max(top, t + 1). Times are 32 bits above a base that moves.
 *
 * This is the general form, for any architecture and trace; usual.h has the short one for usual ones.
 *
 * The exact heap of the reference decides between equal times. Its pop sinks a hole to the bottom without looking at the
 * element that fills it, so the way down has a known length: no branch depends on what is compared.
 */
#include <stdlib.h>
#include <string.h>

#include "perf/compat/run.h"
#include "perf/compat/usual.h"
#include "proto/base/err.h"

/* ---- caches */

static INLINE void count(struct cache *c, bool found, bool full, uint32_t set, uint32_t gid)
{
    c->rows[set]++;
    if (!found) {
        c->miss++;
        c->conflict += full;
        c->used[gid] = 1;
    }
}

/* One copy of it serves all look-ups. */
static __attribute__((noinline)) bool cache_access(struct cache *c, uint32_t en, uint32_t key,
                                                   uint32_t set, uint64_t next, uint32_t gid,
                                                   bool alloc)
{
    bool found, full = false;
    switch (c->kind) {
    case CACHE_NONE:
        return false;
    case CACHE_KEEPS:
        found = c->seen[key];
        if (!alloc)
            return found;
        c->seen[key] = 1;
        break;
    case CACHE_LINE8:
    case CACHE_LINE16: {
        unsigned lanes = c->kind == CACHE_LINE8 ? 8 : 16;
        uint32_t *line = c->line + (size_t)set * lanes;
        if (!alloc)
            return line_touch(line, lanes, key);
        found = line_fill(line, lanes, c->ways, key, &full);
        break;
    }
    default:
        return compat_access_slow(c, en, key, set, next, gid, alloc);
    }
    count(c, found, full, set, gid);
    return found;
}

/* ---- queues */

static INLINE void heap_place(uint64_t *a, uint32_t i, uint64_t v)
{
    while (i > 0) {
        uint32_t up = (i - 1) / 2;
        uint64_t p = a[up];
        if (p <= (v | UINT32_MAX))
            break;
        a[i] = p;
        i = up;
    }
    a[i] = v;
}

static INLINE uint64_t heap_pop(struct queue *q)
{
    uint64_t *a = q->a, top = a[0];
    uint32_t n = --q->n;
    uint64_t v = a[n];
    a[n] = NO_ITEM;
    if (!n)
        return top;
    uint32_t hole = 0;
    int depth = 31 - __builtin_clz(n);
    for (int i = 1; i < depth; i++) {
        uint64_t l = a[2 * hole + 1], r = a[2 * hole + 2];
        bool left = r > (l | UINT32_MAX); /* equal times: the right one */
        a[hole] = left ? l : r;
        hole = 2 * hole + 2 - left;
    }
    if (depth) {
        /* the last level may end before this node's children */
        uint32_t child = 2 * hole + 1;
        uint64_t l = a[child], r = a[child + 1];
        bool left = r > (l | UINT32_MAX), there = child < n;
        a[hole] = left ? l : r;
        child += !left;
        hole = there ? child : hole;
    }
    heap_place(a, hole, v);
    return top;
}

static INLINE uint64_t queue_top(const struct queue *q, bool fifo)
{
    return (fifo ? q->n ? q->a[q->first] : NO_ITEM : q->a[0]) >> 32;
}

static INLINE uint32_t queue_pop(struct queue *q, bool fifo)
{
    if (!fifo)
        return (uint32_t)heap_pop(q);
    uint64_t v = q->a[q->first];
    q->first = (q->first + 1) & (q->room - 1);
    q->n--;
    return (uint32_t)v;
}

#define QUEUE_PUSH(q, at, payload)                                                                 \
    do {                                                                                           \
        if (UNLIKELY((q).n == (q).room)) {                                                         \
            (q) = compat_queue_more(q, fifo);                                                      \
            if (!(q).room) {                                                                       \
                r = -ENOMEM;                                                                       \
                goto out;                                                                          \
            }                                                                                      \
        }                                                                                          \
        uint64_t item_ = (uint64_t)(at) << 32 | (payload);                                         \
        if (fifo)                                                                                  \
            (q).a[((q).first + (q).n++) & ((q).room - 1)] = item_;                                 \
        else                                                                                       \
            heap_place((q).a, (q).n++, item_);                                                     \
    } while (0)

static INLINE uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static INLINE uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* A push wakes a stage: always in a heap, in a FIFO only at the front. */
#define WAKE(key, q, time, stage)                                                                  \
    do {                                                                                           \
        if (!fifo || (q).n == 1)                                                                   \
            (key) = least(key, KEY(time, stage));                                                  \
    } while (0)

/* ---- moving the base of time */

static void queue_earlier(struct queue *q, bool fifo, uint64_t by)
{
    for (uint32_t i = 0; i < q->n; i++)
        q->a[fifo ? (q->first + i) & (q->room - 1) : i] -= by << 32;
}

static uint64_t queue_least(const struct queue *q, bool fifo, uint64_t v)
{
    for (uint32_t i = 0; i < q->n; i++)
        v = least(v, q->a[fifo ? (q->first + i) & (q->room - 1) : i] >> 32);
    return v;
}

/* ---- the loop */

enum { S_SLOT, S_QC, S_QP, S_QF, S_QI };
#define KEY(time, stage) ((uint64_t)(time) << 3 | (stage))

/* Each stage ends in a copy of its own of this choice, and so in a branch of its own, whose history is its own
 * (-fno-crossjumping keeps the compiler from joining them). */
#define NEXT()                                                                                     \
    do {                                                                                           \
        uint64_t k_ = least(least(ks, least(kc, kp)), least(kf, ki));                              \
        t = k_ >> 3;                                                                               \
        switch (k_ & 7) {                                                                          \
        case S_SLOT:                                                                               \
            goto at_slot;                                                                          \
        case S_QC:                                                                                 \
            goto at_qc;                                                                            \
        case S_QP:                                                                                 \
            goto at_qp;                                                                            \
        case S_QF:                                                                                 \
            goto at_qf;                                                                            \
        case S_QI:                                                                                 \
            goto at_qi;                                                                            \
        default:                                                                                   \
            __builtin_unreachable();                                                               \
        }                                                                                          \
    } while (0)

static INLINE int run_as(struct run *s, bool fifo)
{
    const struct ent *ent = s->ent;
    const uint32_t *evs = s->t->ev,
                   *nexts = s->a->iotlb_policy == POLICY_ORACLE ? s->t->next : NULL;
    const uint64_t n_ev = s->t->n, period = PACKET_BITS / s->a->link_gbps;
    const uint32_t queue = s->a->queue, len = s->a->pf_history, distance = s->a->pf_distance;
    const bool far = s->hist != NULL;
    struct queue qc = s->qc, qp = s->qp, qf = s->qf, qi = s->qi;
    struct demand *const demand = s->demand;
    struct requester *const req = s->req;
    uint32_t *const idle = s->idle;
    uint32_t n_idle = s->n_idle, flying = 0, opens = queue - 1;
    uint64_t base = 0, at = 0, slot = 0, t = 0, dropped = 0, sent = 0, warnings = 0;
    uint64_t predictions = 0, correct = 0, incorrect = 0, new_mappings = 0, same = 0, diff = 0;
    uint64_t fills = 0, fills_same = 0, buf_hit = 0;
    uint32_t prev = EMPTY, prediction = EMPTY, fifo_n = 0, fifo_at = 0;
    uint64_t ks = KEY(0, S_SLOT), kc = NO_ITEM, kp = NO_ITEM, kf = NO_ITEM, ki = NO_ITEM;
    bool ended = false;
    int r = 0;

    NEXT();
at_slot : {
    if (UNLIKELY(t >> 31)) {
        /* everything 2^31 ns or so earlier, so that 32 bits stay enough */
        uint64_t by = t;
        by = queue_least(&qc, fifo, by);
        by = queue_least(&qp, fifo, by);
        by = queue_least(&qf, fifo, by);
        by = queue_least(&qi, fifo, by);
        if (t - by >= 1u << 30) {
            r = -EOVERFLOW;
            goto out;
        }
        queue_earlier(&qc, fifo, by);
        queue_earlier(&qp, fifo, by);
        queue_earlier(&qf, fifo, by);
        queue_earlier(&qi, fifo, by);
        kc = qc.n ? kc - KEY(by, 0) : NO_ITEM;
        kp = qp.n ? kp - KEY(by, 0) : NO_ITEM;
        kf = qf.n ? kf - KEY(by, 0) : NO_ITEM;
        ki = qi.n ? ki - KEY(by, 0) : NO_ITEM;
        base += by;
        t -= by;
    }
    uint32_t take = PER_PACKET;
    if (UNLIKELY(n_ev - at < PER_PACKET)) {
        take = (uint32_t)(n_ev - at);
        ended = true;
        opens = 0;
    }
    sent += take > 0;
    for (uint32_t i = 0; i < take; i++, at++) {
        uint32_t en = evs[at], id = idle[--n_idle];
        const struct ent *n = &ent[en];
        bool found = cache_access(&s->cc, en, n->sid, n->set_cc, 0, n->gid, false);
        uint32_t d = found ? CC_HIT : CC_MISS;
        demand[id] =
            (struct demand){ .start = base + t, .ent = en, .ev = (uint32_t)at, .latency = d };
        QUEUE_PUSH(qc, t + d, id);
        WAKE(kc, qc, t + d, S_QC);
    }
    flying += take;
    slot = t + period;
    ks = flying < queue ? KEY(slot, S_SLOT) : NO_ITEM;
    if (UNLIKELY(ended)) {
        if (!flying) {
            s->time = base + t;
            goto out;
        }
        /* the loop leaves at this slot; what is under way drains from the same ns on */
        ks = NO_ITEM;
    }
    NEXT();
}
at_qc : {
    uint32_t id = queue_pop(&qc, fifo);
    struct demand *d = &demand[id];
    uint32_t en = d->ent;
    const struct ent *n = &ent[en];
    kc = KEY(most(queue_top(&qc, fifo), t + 1), S_QC);
    cache_access(&s->cc, en, n->sid, n->set_cc, 0, n->gid, true);
    uint64_t next = nexts && nexts[d->ev] != UINT32_MAX ? nexts[d->ev] : UINT64_MAX;
    bool hit = cache_access(&s->io, en, n->io, n->set_io, next, n->gid, false);
    bool ahead = cache_access(&s->buf, en, n->page, 0, 0, n->gid, false);
    buf_hit += ahead;
    if (hit | ahead) {
        d->latency += TLB_HIT;
        QUEUE_PUSH(qi, t + 1, id);
        WAKE(ki, qi, t + 1, S_QI);
    } else {
        d->latency += PCIE;
        QUEUE_PUSH(qp, t + PCIE, id);
        WAKE(kp, qp, t + PCIE, S_QP);
    }

    /* the prefetcher sees the access */
    uint32_t sid = n->sid;
    struct requester *q = &req[sid];
    uint64_t *h = far ? s->hist + (size_t)sid * len : q->hist;
    uint32_t have = q->n;
    bool known = false;
    for (uint32_t i = 0; i < have; i++)
        known |= h[i] >> 32 == n->addr;
    q->hit += known;
    q->miss += !known;
    h[q->at] = (uint64_t)n->addr << 32 | en;
    q->at = q->at + 1 == len ? 0 : q->at + 1;
    q->n = have + (have < len);
    correct += prediction == sid;
    incorrect += prediction != EMPTY && prediction != sid;
    prediction = q->succ;
    if (prev != EMPTY) {
        if (prev == sid) {
            same++;
        } else {
            diff++;
            if (UNLIKELY(req[prev].succ == EMPTY)) {
                req[prev].succ = sid;
                new_mappings++;
            }
        }
    }
    if (fifo_n == distance) {
        prev = s->fifo[fifo_at];
        s->fifo[fifo_at] = sid;
        fifo_at = fifo_at + 1 == distance ? 0 : fifo_at + 1;
    } else {
        s->fifo[fifo_n++] = sid;
    }
    if (prediction != EMPTY) {
        predictions++;
        q = &req[prediction];
        h = far ? s->hist + (size_t)prediction * len : q->hist;
        uint32_t cnt = q->n, i = cnt < len ? 0 : q->at;
        for (uint32_t c = 0; c < cnt; c++) {
            uint32_t e = (uint32_t)h[i];
            QUEUE_PUSH(qp, t + PCIE + DRAM, e | PREFETCH);
            WAKE(kp, qp, t + PCIE + DRAM, S_QP);
            i = i + 1 == len ? 0 : i + 1;
        }
    }
    NEXT();
}
at_qp : {
    uint32_t id = queue_pop(&qp, fifo);
    bool pre = id >> 31;
    uint32_t en = pre ? id & ~PREFETCH : demand[id].ent;
    const struct ent *n = &ent[en];
    kp = KEY(most(queue_top(&qp, fifo), t + 1), S_QP);
    bool h2 = cache_access(&s->l2, en, n->l2, n->set_l2, 0, n->gid, false);
    bool h3 = cache_access(&s->l3, en, n->l3, n->set_l3, 0, n->gid, false);
    uint32_t lv = n->level, end = h2 ? 2 : 3;
    if ((h2 | h3) && lv >= end) {
        if (UNLIKELY(lv > end)) {
            if (!pre) {
                r = -SF_EFAILED;
                goto out;
            }
            warnings++;
            if (s->vanished && compat_vanish(s->vanished, en, ended) < 0) {
                r = -ENOMEM;
                goto out;
            }
            NEXT();
        }
        uint32_t d = h2 ? PAGE_HIT + PCIE : PAGE_HIT;
        if (!pre)
            demand[id].latency += d;
        QUEUE_PUSH(qi, t + d - 1, id);
        WAKE(ki, qi, t + d - 1, S_QI);
    } else {
        uint32_t d = DRAM * (h2 | h3 ? end - lv : lv);
        if (!pre)
            demand[id].latency += d;
        QUEUE_PUSH(qf, t + d - 1, id);
        WAKE(kf, qf, most(t + d - 1, t), S_QF);
    }
    NEXT();
}
at_qf : {
    uint32_t id = queue_pop(&qf, fifo);
    bool pre = id >> 31;
    uint32_t en = pre ? id & ~PREFETCH : demand[id].ent;
    const struct ent *n = &ent[en];
    kf = KEY(most(queue_top(&qf, fifo), t + 1), S_QF);
    cache_access(&s->l2, en, n->l2, n->set_l2, 0, n->gid, n->fill & FILL_L2);
    cache_access(&s->l3, en, n->l3, n->set_l3, 0, n->gid, n->fill & FILL_L3);
    if (!pre)
        demand[id].latency += PCIE;
    QUEUE_PUSH(qi, t + PCIE, id);
    WAKE(ki, qi, t + PCIE, S_QI);
    NEXT();
}
at_qi : {
    uint32_t id = queue_pop(&qi, fifo);
    ki = KEY(most(queue_top(&qi, fifo), t + 1), S_QI);
    if (id >> 31) {
        uint32_t en = id & ~PREFETCH;
        const struct ent *n = &ent[en];
        fills++;
        fills_same += cache_access(&s->buf, en, n->page, 0, 0, n->gid, true);
        NEXT();
    }
    struct demand *d = &demand[id];
    uint32_t en = d->ent;
    const struct ent *n = &ent[en];
    uint64_t next = nexts && nexts[d->ev] != UINT32_MAX ? nexts[d->ev] : UINT64_MAX;
    cache_access(&s->io, en, n->io, n->set_io, next, n->gid, n->fill & FILL_IO);
    struct flow *f = &s->flow[n->gid];
    if (UNLIKELY(!f->n)) {
        s->flow_order[s->n_flows++] = n->gid;
        f->first = d->start;
    }
    f->n++;
    f->first = least(f->first, d->start);
    f->last = most(f->last, d->start + d->latency);
    idle[n_idle++] = id;
    if (--flying == opens) {
        if (UNLIKELY(ended)) {
            if (flying)
                NEXT();
            s->time = base + t + 1;
            goto out;
        }
        /* slots that passed while the queue was full, this ns' among them */
        if (slot <= t) {
            uint64_t passed = (uint32_t)(t - slot) / (uint32_t)period + 1;
            dropped += passed;
            slot += passed * period;
        }
        ks = KEY(slot, S_SLOT);
    }
    NEXT();
}
out:
    s->qc = qc;
    s->qp = qp;
    s->qf = qf;
    s->qi = qi;
    s->requests = at;
    s->pkts_sent = sent;
    s->dropped = dropped;
    s->warnings = warnings;
    s->predictions = predictions;
    s->correct = correct;
    s->incorrect = incorrect;
    s->new_mappings = new_mappings;
    s->same_sid = same;
    s->diff_sid = diff;
    s->fills = fills;
    s->fills_same = fills_same;
    s->buf_hit = buf_hit;
    return r;
}

int LOOP(struct run *s)
{
    if (!s->general && usual_fits(s))
        return USUAL(s);
    return s->a->inorder ? run_as(s, true) : run_as(s, false);
}
