/* The loop for usual architectures: what loop.h does, with less. Included by loop_scalar.c, loop_avx2.c and loop_avx512.c before loop.h;
 * it takes line_touch() and line_fill() from them and defines USUAL, the name of its function.
 *
 * Usual (usual_fits): out of order, every tenant cacheable, pages of 4 KiB and 2 MiB, one set of contexts that never evicts, IOTLB and
 * prefetch buffer of at most 8 ways, page caches of at most 16, LRU, histories of at most HIST_NEAR, and few requests under way.
 *
 * An item of a queue is 32 bits: time << 16 | stage << 13 | PRE | number of the request. Times are ns above a base that moves, so the
 * top of a queue is at once the key by which the next stage is chosen: the least of five items says when, who and what. What differs
 * from loop.h beside that:
 * - The three translations of a packet that find their contexts are a queue of their own while QC is empty: equal times leave a heap
 *   of three as they came.
 * - A push with the latest time that its queue can hold (prefetches into QP, L2PAGE hits into QI) goes to the end unasked.
 * - A packet that meets an empty QI and no other stage in the next four ns is looked up in the slot that reads it.
 */
#include <stdlib.h>
#include <string.h>

#include "perf/compat/run.h"
#include "proto/base/err.h"

#define INLINE inline __attribute__((always_inline))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

enum { U_SLOT, U_QC, U_QP, U_QF, U_QI };
enum { U_REQUESTS = 1023, U_PRE = 1 << 12, U_NUMBER = U_PRE | 0x3ff };
#define U_NS(ns) ((uint32_t)(ns) << 16)
#define U_STAGE(s) ((uint32_t)(s) << 13)
#define U_LOW 0xffffu
#define U_NEVER UINT32_MAX

/* What the stages need of a trace entry, in half a line. */
struct u_ent {
    uint32_t page, io, l2, l3, addr;
    uint16_t set_io, set_l2, set_l3, gid, sid, level;
};

struct u_sid {
    uint32_t addr[HIST_NEAR]; /* a ring of pf_history places; no address: EMPTY */
    uint32_t succ, at;
    uint32_t told[2]; /* accesses whose page the history did not hold, and held */
    uint32_t
        ent[2 * HIST_NEAR]; /* the same ring twice: once full, from ent[at] on the oldest first */
};

struct u_request {
    uint64_t start;
    uint32_t ent, latency; /* latency: of a demand, nominal so far */
};

/* 1-based; behind the last item all places hold ones, and a[0] is 0, so that nothing asks whether a child or a parent exists. */
struct u_heap {
    _Alignas(64) uint32_t a[2 * U_REQUESTS + 2];
    uint32_t n;
};

struct u_room {
    struct u_heap qc, qp, qf, qi;
    struct u_request req[U_REQUESTS + 1];
    uint16_t demands[U_REQUESTS + 1], prefetches[U_REQUESTS + 1]; /* numbers not in use */
    uint32_t alone[PER_PACKET]; /* QC as a queue, the next one last */
};

static INLINE uint32_t u_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static INLINE uint32_t u_max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* a[0] is 0: nothing rises above the first place. */
static INLINE void u_place(uint32_t *a, size_t i, uint32_t v)
{
    uint32_t p;
    while (UNLIKELY((p = a[i >> 1]) > (v | U_LOW))) {
        a[i] = p;
        i >>= 1;
    }
    a[i] = v;
}

static INLINE void u_push(struct u_heap *q, uint32_t v)
{
    u_place(q->a, ++q->n, v);
}

/* v is not earlier than any item of the queue. */
static INLINE void u_append(struct u_heap *q, uint32_t v)
{
    q->a[++q->n] = v;
}

/* Returns the new top. */
static INLINE uint32_t u_pop(struct u_heap *q)
{
    uint32_t *a = q->a, n = q->n, v = a[n];
    a[n] = U_NEVER;
    q->n = --n;
    if (!n)
        return U_NEVER;
    if (n == 1)
        return a[1] = v;
    size_t hole = 1;
    uint32_t top;
#define LEVEL()                                                                                    \
    do {                                                                                           \
        uint32_t l_ = a[2 * hole], r_ = a[2 * hole + 1];                                           \
        size_t right_ = (l_ | U_LOW) >= r_; /* equal times: the right one */                       \
        l_ = right_ ? r_ : l_;                                                                     \
        a[hole] = l_;                                                                              \
        hole = 2 * hole + right_;                                                                  \
        top = l_;                                                                                  \
    } while (0)
    LEVEL();
    uint32_t first = top;
    switch (__builtin_clz(n)) {
    case 22:
        LEVEL();
        /* fall through */
    case 23:
        LEVEL();
        /* fall through */
    case 24:
        LEVEL();
        /* fall through */
    case 25:
        LEVEL();
        /* fall through */
    case 26:
        LEVEL();
        /* fall through */
    case 27:
        LEVEL();
        /* fall through */
    case 28:
        LEVEL();
        /* fall through */
    case 29:
        LEVEL();
        /* fall through */
    default:
        break;
    }
#undef LEVEL
    /* the last level may end before it comes here */
    hole >>= hole > n;
    u_place(a, hole, v);
    return u_min(first, v); /* of three items the last may be the second */
}

static INLINE bool u_among(const uint32_t addr[HIST_NEAR], uint32_t x)
{
#ifdef __AVX2__
    __m128i v = _mm_load_si128((const __m128i *)addr);
    __m128i same = _mm_cmpeq_epi32(v, _mm_set1_epi32((int)x));
    return _mm_movemask_epi8(same);
#else
    return (addr[0] == x) | (addr[1] == x) | (addr[2] == x) | (addr[3] == x);
#endif
}

static void u_earlier(struct u_heap *q, uint32_t by)
{
    for (uint32_t i = 1; i <= q->n; i++)
        q->a[i] -= by;
}

static uint32_t u_least(const struct u_heap *q, uint32_t v)
{
    for (uint32_t i = 1; i <= q->n; i++)
        v = q->a[i] < v ? q->a[i] : v;
    return v;
}

static INLINE bool u_touch(const struct cache *c, uint32_t key, uint32_t set)
{
    if (c->kind == CACHE_KEEPS)
        return c->seen[key];
    return line_touch(c->line + (size_t)set * 16, 16, key);
}

static INLINE bool u_fill(struct cache *c, bool small, uint32_t key, uint32_t set, uint32_t gid)
{
    bool found, full = false;
    if (small) {
        found = line_fill(c->line + (size_t)set * 8, 8, c->ways, key, &full);
    } else if (c->kind == CACHE_KEEPS) {
        found = c->seen[key];
        c->seen[key] = 1;
    } else {
        found = line_fill(c->line + (size_t)set * 16, 16, c->ways, key, &full);
    }
    c->rows[set]++;
    if (!found) {
        c->miss++;
        c->conflict += full;
        c->used[gid] = 1;
    }
    return found;
}

/* The context cache: all of it. */
#define U_CONTEXT(n)                                                                               \
    do {                                                                                           \
        if (UNLIKELY(!cc_seen[(n)->sid])) {                                                        \
            cc_seen[(n)->sid] = 1;                                                                 \
            s->cc.miss++;                                                                          \
            s->cc.used[(n)->gid] = 1;                                                              \
        }                                                                                          \
    } while (0)

/* The prefetcher sees the access at T_; its prefetches go to QP. */
#define U_PROBE(n, en, T_)                                                                         \
    do {                                                                                           \
        uint32_t sid_ = (n)->sid;                                                                  \
        struct u_sid *q_ = &sids[sid_];                                                            \
        bool known_ = u_among(q_->addr, (n)->addr);                                                \
        q_->told[known_]++;                                                                        \
        uint32_t at_ = q_->at;                                                                     \
        q_->addr[at_] = (n)->addr;                                                                 \
        q_->ent[at_] = q_->ent[at_ + len] = (en);                                                  \
        q_->at = at_ + 1 == len ? 0 : at_ + 1;                                                     \
        correct += prediction == sid_;                                                             \
        same += prev == sid_;                                                                      \
        prediction = q_->succ;                                                                     \
        if (UNLIKELY(sids[prev].succ == EMPTY) && prev != sid_) {                                  \
            sids[prev].succ = sid_;                                                                \
            new_mappings++;                                                                        \
        }                                                                                          \
        prev = fifo[fifo_at];                                                                      \
        fifo[fifo_at] = sid_;                                                                      \
        fifo_at = fifo_at + 1 == distance ? 0 : fifo_at + 1;                                       \
        if (prediction != EMPTY) {                                                                 \
            predictions++;                                                                         \
            q_ = &sids[prediction];                                                                \
            uint32_t cnt_ = q_->told[0] + q_->told[1];                                             \
            const uint32_t *e_ = q_->ent;                                                          \
            if (cnt_ >= len) {                                                                     \
                cnt_ = len;                                                                        \
                e_ += q_->at;                                                                      \
            }                                                                                      \
            if (UNLIKELY(n_prefetches < cnt_)) {                                                   \
                r = -E2BIG;                                                                        \
                goto out;                                                                          \
            }                                                                                      \
            for (const uint32_t *end_ = e_ + cnt_; e_ < end_; e_++) {                              \
                uint32_t id_ = w->prefetches[--n_prefetches];                                      \
                w->req[id_].ent = *e_;                                                             \
                u_append(&w->qp, (T_) + U_NS(PCIE + DRAM) + (U_STAGE(U_QP) | U_PRE) + id_);        \
            }                                                                                      \
            kp = u_min(kp, (T_) + U_NS(PCIE + DRAM) + U_STAGE(U_QP));                              \
        }                                                                                          \
    } while (0)

/* A demand is translated: the IOTLB is filled, the flow told. */
#define U_DONE(n_, start_, latency_)                                                               \
    do {                                                                                           \
        u_fill(&s->io, true, (n_)->io, (n_)->set_io, (n_)->gid);                                   \
        struct flow *f_ = &flows[(n_)->gid];                                                       \
        uint64_t from_ = (start_), to_ = from_ + (latency_);                                       \
        if (UNLIKELY(!f_->n)) {                                                                    \
            s->flow_order[s->n_flows++] = (n_)->gid;                                               \
            f_->first = from_;                                                                     \
        }                                                                                          \
        f_->n++;                                                                                   \
        f_->first = from_ < f_->first ? from_ : f_->first;                                         \
        f_->last = to_ > f_->last ? to_ : f_->last;                                                \
    } while (0)

#define U_NEXT()                                                                                   \
    do {                                                                                           \
        uint32_t k_ = u_min(u_min(ks, u_min(kc, kp)), u_min(kf, ki));                              \
        T = k_ & ~U_LOW;                                                                           \
        switch (k_ >> 13 & 7) {                                                                    \
        case U_SLOT:                                                                               \
            goto at_slot;                                                                          \
        case U_QC:                                                                                 \
            goto at_qc;                                                                            \
        case U_QP:                                                                                 \
            goto at_qp;                                                                            \
        case U_QF:                                                                                 \
            goto at_qf;                                                                            \
        case U_QI:                                                                                 \
            goto at_qi;                                                                            \
        default:                                                                                   \
            __builtin_unreachable();                                                               \
        }                                                                                          \
    } while (0)

static INLINE int u_run(struct run *s, struct u_room *w, const struct u_ent *ent,
                        struct u_sid *sids, bool buffer)
{
    const uint32_t *evs = s->t->ev;
    const uint64_t n_ev = s->t->n;
    const uint32_t period = PACKET_BITS / s->a->link_gbps, queue = s->a->queue;
    const uint32_t len = s->a->pf_history, distance = s->a->pf_distance;
    uint32_t *const fifo = s->fifo;
    uint8_t *const cc_seen = s->cc.seen;
    struct flow *const flows = s->flow;
    uint32_t n_demands = 0, n_prefetches = 0, flying = 0, opens = queue - 1;
    uint64_t base = 0, at = 0, dropped = 0, sent = 0, correct = 0, predictions = 0, same = 0;
    uint64_t new_mappings = 0, fills = 0, fills_same = 0, buf_hit = 0;
    uint32_t prev = s->t->n_sids, prediction = EMPTY, fifo_at = 0, alone = 0, slot = 0;
    uint32_t ks = U_STAGE(U_SLOT), kc = U_NEVER, kp = U_NEVER, kf = U_NEVER, ki = U_NEVER, T;
    bool ended = false;
    int r = 0;

    for (uint32_t i = U_REQUESTS; i-- > queue + 2;)
        w->prefetches[n_prefetches++] = (uint16_t)i;
    for (uint32_t i = queue + 2; i-- > 0;)
        w->demands[n_demands++] = (uint16_t)i;
    for (uint32_t i = 0; i < distance; i++)
        fifo[i] = prev; /* none: the one behind the last has a successor */

    U_NEXT();
at_slot : {
    if (UNLIKELY(T >> 31)) {
        /* everything earlier, so that 16 bits stay enough */
        uint32_t by =
            u_least(&w->qi, u_least(&w->qf, u_least(&w->qp, u_least(&w->qc, T)))) & ~U_LOW;
        if (T - by >= U_NS(1 << 14)) {
            r = -E2BIG;
            goto out;
        }
        u_earlier(&w->qc, by);
        u_earlier(&w->qp, by);
        u_earlier(&w->qf, by);
        u_earlier(&w->qi, by);
        kc = kc == U_NEVER ? kc : kc - by;
        kp = kp == U_NEVER ? kp : kp - by;
        kf = kf == U_NEVER ? kf : kf - by;
        ki = ki == U_NEVER ? ki : ki - by;
        base += by >> 16;
        T -= by;
    }
    slot = T + U_NS(period);
    if (UNLIKELY(n_ev - at < PER_PACKET)) {
        ended = true;
        opens = 0;
    } else {
        const uint32_t *e = evs + at;
        const struct u_ent *n0 = &ent[e[0]], *n1 = &ent[e[1]], *n2 = &ent[e[2]];
        if ((cc_seen[n0->sid] & cc_seen[n1->sid] & cc_seen[n2->sid]) && !w->qc.n) {
            sent++;
            if (!w->qi.n && u_min(kp, kf) > ((T + U_NS(4)) | U_LOW)) {
                /* QC at 1, 2 and 3 ns from here, QI a ns behind it */
                uint32_t before = EMPTY, t = T;
                for (uint32_t i = 0; i < PER_PACKET; i++) {
                    uint32_t en = e[i];
                    const struct u_ent *n = &ent[en];
                    t += U_NS(1);
                    bool hit = line_touch(s->io.line + (size_t)n->set_io * 8, 8, n->io),
                         ahead = false;
                    if (buffer) {
                        ahead = line_touch(s->buf.line, 8, n->page);
                        buf_hit += ahead;
                    }
                    if (UNLIKELY(!(hit | ahead))) {
                        uint32_t id = w->demands[--n_demands];
                        w->req[id] = (struct u_request){ .start = base + (T >> 16),
                                                         .ent = en,
                                                         .latency = CC_HIT + PCIE };
                        flying++;
                        uint32_t v = t + U_NS(PCIE) + U_STAGE(U_QP) + id;
                        u_push(&w->qp, v);
                        kp = u_min(kp, v);
                    }
                    U_PROBE(n, en, t);
                    if (before != EMPTY) {
                        const struct u_ent *b = &ent[before];
                        U_DONE(b, base + (T >> 16), CC_HIT + TLB_HIT);
                    }
                    before = hit | ahead ? en : EMPTY;
                }
                if (before != EMPTY) {
                    const struct u_ent *b = &ent[before];
                    U_DONE(b, base + (T >> 16), CC_HIT + TLB_HIT);
                }
                at += PER_PACKET;
            } else {
                for (uint32_t i = 0; i < PER_PACKET; i++, at++) {
                    uint32_t id = w->demands[--n_demands];
                    w->req[id] = (struct u_request){ .start = base + (T >> 16),
                                                     .ent = evs[at],
                                                     .latency = CC_HIT };
                    w->alone[PER_PACKET - 1 - i] = id;
                }
                alone = PER_PACKET;
                kc = T + U_NS(CC_HIT) + U_STAGE(U_QC);
                flying += PER_PACKET;
            }
            ks = flying < queue ? slot : U_NEVER;
            U_NEXT();
        }
    }
    uint32_t take = ended ? (uint32_t)(n_ev - at) : PER_PACKET;
    sent += take > 0;
    for (uint32_t i = 0; i < take; i++, at++) {
        uint32_t en = evs[at], id = w->demands[--n_demands];
        uint32_t d = cc_seen[ent[en].sid] ? CC_HIT : CC_MISS;
        w->req[id] = (struct u_request){ .start = base + (T >> 16), .ent = en, .latency = d };
        uint32_t v = T + U_NS(d) + U_STAGE(U_QC) + id;
        u_push(&w->qc, v);
        kc = u_min(kc, v);
    }
    flying += take;
    ks = flying < queue ? slot : U_NEVER;
    if (UNLIKELY(ended)) {
        if (!flying) {
            s->time = base + (T >> 16);
            goto out;
        }
        /* the loop leaves at this slot; what is under way drains from the same ns on */
        ks = U_NEVER;
    }
    U_NEXT();
}
at_qc : {
    uint32_t id;
    if (alone) {
        id = w->alone[--alone];
        kc = alone ? T + U_NS(1) + U_STAGE(U_QC) : U_NEVER;
    } else {
        id = w->qc.a[1] & U_NUMBER;
        kc = u_max(u_pop(&w->qc), T + U_NS(1) + U_STAGE(U_QC));
    }
    struct u_request *d = &w->req[id];
    uint32_t en = d->ent;
    const struct u_ent *n = &ent[en];
    U_CONTEXT(n);
    bool hit = line_touch(s->io.line + (size_t)n->set_io * 8, 8, n->io), ahead = false;
    if (buffer) {
        ahead = line_touch(s->buf.line, 8, n->page);
        buf_hit += ahead;
    }
    if (hit | ahead) {
        d->latency += TLB_HIT;
        uint32_t v = T + U_NS(1) + U_STAGE(U_QI) + id;
        u_push(&w->qi, v);
        ki = u_min(ki, v);
    } else {
        d->latency += PCIE;
        uint32_t v = T + U_NS(PCIE) + U_STAGE(U_QP) + id;
        u_push(&w->qp, v);
        kp = u_min(kp, v);
    }
    U_PROBE(n, en, T);
    U_NEXT();
}
at_qp : {
    uint32_t x = w->qp.a[1] & U_NUMBER;
    kp = u_max(u_pop(&w->qp), T + U_NS(1) + U_STAGE(U_QP));
    struct u_request *q = &w->req[x & ~U_PRE];
    const struct u_ent *n = &ent[q->ent];
    bool h2 = u_touch(&s->l2, n->l2, n->set_l2), h3 = u_touch(&s->l3, n->l3, n->set_l3);
    uint32_t lv = n->level;
    if (h2 && lv == 2) {
        q->latency += PAGE_HIT + PCIE;
        uint32_t v = T + U_NS(PAGE_HIT + PCIE - 1) + U_STAGE(U_QI) + x;
        u_append(&w->qi, v);
        ki = u_min(ki, v);
    } else {
        uint32_t d = DRAM * (h2 ? 2 - lv : h3 ? 3 - lv : lv);
        q->latency += d;
        uint32_t v = T + U_NS(d - 1) + U_STAGE(U_QF) + x;
        u_push(&w->qf, v);
        kf = u_min(kf, v);
    }
    U_NEXT();
}
at_qf : {
    uint32_t x = w->qf.a[1] & U_NUMBER;
    kf = u_max(u_pop(&w->qf), T + U_NS(1) + U_STAGE(U_QF));
    struct u_request *q = &w->req[x & ~U_PRE];
    const struct u_ent *n = &ent[q->ent];
    u_fill(&s->l2, false, n->l2, n->set_l2, n->gid);
    u_fill(&s->l3, false, n->l3, n->set_l3, n->gid);
    q->latency += PCIE;
    uint32_t v = T + U_NS(PCIE) + U_STAGE(U_QI) + x;
    u_push(&w->qi, v);
    ki = u_min(ki, v);
    U_NEXT();
}
at_qi : {
    uint32_t x = w->qi.a[1] & U_NUMBER;
    ki = u_max(u_pop(&w->qi), T + U_NS(1) + U_STAGE(U_QI));
    uint32_t id = x & ~U_PRE;
    struct u_request *q = &w->req[id];
    const struct u_ent *n = &ent[q->ent];
    if (x & U_PRE) {
        fills++;
        if (buffer)
            fills_same += u_fill(&s->buf, true, n->page, 0, n->gid);
        w->prefetches[n_prefetches++] = (uint16_t)id;
        U_NEXT();
    }
    U_DONE(n, q->start, q->latency);
    w->demands[n_demands++] = (uint16_t)id;
    if (--flying == opens) {
        if (UNLIKELY(ended)) {
            if (flying)
                U_NEXT();
            s->time = base + (T >> 16) + 1;
            goto out;
        }
        /* slots that passed while the queue was full, this ns' among them */
        if (slot <= T) {
            uint32_t passed = ((T - slot) >> 16) / period + 1;
            dropped += passed;
            slot += U_NS(passed * period);
        }
        ks = slot;
    }
    U_NEXT();
}
out:
    s->requests = at;
    s->pkts_sent = sent;
    s->dropped = dropped;
    s->predictions = predictions;
    s->correct = correct;
    s->incorrect = predictions - (prediction != EMPTY) - correct;
    s->new_mappings = new_mappings;
    s->same_sid = same;
    s->diff_sid = (at > distance ? at - distance - 1 : 0) - same;
    s->fills = fills;
    s->fills_same = fills_same;
    s->buf_hit = buf_hit;
    s->cc.rows[0] = at;
    return r;
}

static bool u_is_page(const struct cache *c)
{
    return c->kind == CACHE_KEEPS || c->kind == CACHE_LINE16;
}

static bool usual_fits(const struct run *s)
{
    const struct arch *a = s->a;
    const struct trace *t = s->t;
    if (a->inorder || a->salloc || s->cc.kind != CACHE_KEEPS || s->cc.sets != 1 ||
        s->io.kind != CACHE_LINE8 || !u_is_page(&s->l2) || !u_is_page(&s->l3) ||
        (s->buf.kind != CACHE_NONE && s->buf.kind != CACHE_LINE8) || !a->pf_history || s->hist ||
        !a->pf_distance || a->queue > 512 || PACKET_BITS / a->link_gbps < 5)
        return false;
    if (t->n_gids > 1 << 16 || t->n_sids > 1 << 16 || s->io.sets > 1 << 16 ||
        s->l2.sets > 1 << 16 || s->l3.sets > 1 << 16)
        return false;
    for (uint32_t i = 0; i < t->n_entries; i++)
        if (s->ent[i].level != 1 && s->ent[i].level != 2)
            return false;
    return true;
}

/* As LOOP; -E2BIG when more is under way than it has room for: the run has to start again with the other. */
int USUAL(struct run *s)
{
    size_t n = s->t->n_entries, sids = (size_t)s->t->n_sids + 1;
    struct u_room *w = aligned_alloc(64, (sizeof(*w) + 63) & ~(size_t)63);
    struct u_ent *ent = aligned_alloc(64, (n * sizeof(*ent) + 64) & ~(size_t)63);
    struct u_sid *q = aligned_alloc(64, sids * sizeof(*q));
    int r = -ENOMEM;
    if (w && ent && q) {
        struct u_heap *const heaps[] = { &w->qc, &w->qp, &w->qf, &w->qi };
        for (size_t i = 0; i < 4; i++) {
            memset(heaps[i]->a, 0xff, sizeof(heaps[i]->a));
            heaps[i]->a[0] = 0;
            heaps[i]->n = 0;
        }
        for (size_t i = 0; i < n; i++) {
            const struct ent *x = &s->ent[i];
            ent[i] = (struct u_ent){ .page = x->page,
                                     .io = x->io,
                                     .l2 = x->l2,
                                     .l3 = x->l3,
                                     .addr = x->addr,
                                     .set_io = (uint16_t)x->set_io,
                                     .set_l2 = (uint16_t)x->set_l2,
                                     .set_l3 = (uint16_t)x->set_l3,
                                     .gid = (uint16_t)x->gid,
                                     .sid = (uint16_t)x->sid,
                                     .level = x->level };
        }
        for (size_t i = 0; i < sids; i++) {
            q[i] = (struct u_sid){ .succ = EMPTY };
            memset(q[i].addr, 0xff, sizeof(q[i].addr));
        }
        q[sids - 1].succ = 0;
        r = s->buf.kind == CACHE_NONE ? u_run(s, w, ent, q, false) : u_run(s, w, ent, q, true);
        for (size_t i = 0; i < sids - 1; i++) {
            s->req[i].n = q[i].told[0] + q[i].told[1];
            s->req[i].miss = q[i].told[0];
            s->req[i].hit = q[i].told[1];
        }
    }
    free(w);
    free(ent);
    free(q);
    return r;
}
