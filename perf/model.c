/* Setup and statistics of the model engine; its loop is in model_loop.h. */
#include "perf/model.h"

#include <stdlib.h>
#include <string.h>

#include "perf/flow.h"
#include "proto/base/clean.h"

/* ---- dense numbers for pairs ---- */

struct pairs {
    uint64_t *key;
    uint32_t *id;
    uint32_t mask, n;
};

static int pairs_init(struct pairs *p, uint32_t most)
{
    uint32_t room = 64;
    while (room < 2u * most)
        room *= 2;
    *p = (struct pairs){ .mask = room - 1 };
    p->key = malloc(room * sizeof(*p->key));
    p->id = malloc(room * sizeof(*p->id));
    if (!p->key || !p->id)
        return -ENOMEM;
    memset(p->id, 0xff, room * sizeof(*p->id));
    return 0;
}

static void pairs_clear(struct pairs *p)
{
    free(p->key);
    free(p->id);
}

static uint32_t pairs_id(struct pairs *p, uint32_t a, uint32_t b)
{
    uint64_t key = (uint64_t)a << 32 | b, h = key * 0x9e3779b97f4a7c15u;
    uint32_t i = (uint32_t)(h >> 32) & p->mask;
    while (p->id[i] != TLB_NONE && p->key[i] != key)
        i = (i + 1) & p->mask;
    if (p->id[i] == TLB_NONE) {
        p->key[i] = key;
        p->id[i] = p->n++;
    }
    return p->id[i];
}

/* ---- geometry ---- */

static unsigned log2_floor(uint32_t v)
{
    return v ? 31u - (unsigned)__builtin_clz(v) : 0;
}

/* Set of an access: the low bits of the tenant choose the partition, the address bits the set in
 * it. */
static uint32_t set_of(uint32_t entries, uint32_t ways, uint32_t groups, uint32_t gid,
                       uint64_t bits)
{
    if (!entries || !ways)
        return 0;
    uint32_t sets = entries / ways;
    unsigned g = log2_floor(groups), f = log2_floor(sets) - g;
    return (gid & ((1u << g) - 1)) << f | (uint32_t)(bits & ((1u << f) - 1));
}

static bool cacheable(uint32_t gid, uint32_t from, uint32_t groups)
{
    return gid >= from && gid - from < groups;
}

static int ring_init(struct model_ring *r, uint64_t most)
{
    uint32_t room = 16;
    while (room < most + 2) /* the one that is never ready, and the last one that was taken */
        room *= 2;
    struct model_item *a = calloc(room, sizeof(*a));
    if (!a)
        return -ENOMEM;
    a[0].t = MODEL_NEVER;
    *r = (struct model_ring){ .a = (char *)a, .mask = room * sizeof(*a) - 1 };
    return 0;
}

static void model_clear(struct model *m)
{
    tlb_clear(&m->cc);
    tlb_clear(&m->iotlb);
    tlb_clear(&m->l2);
    tlb_clear(&m->l3);
    tlb_clear(&m->buffer);
    free(m->entry);
    free(m->cc_set);
    free(m->qc.a);
    free(m->qp.a);
    free(m->qf.a);
    free(m->qi_near.a);
    free(m->qi_far.a);
    free(m->flow);
    free(m->flow_order);
    free(m->req);
    free(m->entry_req);
    free(m->history);
    free(m->fifo);
    free(m->guess);
}

/* Entry tables and the four caches. */
static int setup_caches(struct model *m, const struct trace *t, const struct arch *a, bool rows,
                        struct err *e)
{
    uint32_t n = t->n_entries;
    uint32_t iotlb_groups = a->iotlb_groups ? a->iotlb_groups : 1,
             cc_groups = a->cc_groups ? a->cc_groups : 1;
    uint32_t l2_groups = a->l2_groups ? a->l2_groups : 1,
             l3_groups = a->l3_groups ? a->l3_groups : 1;
    CLEANUP(freep) uint32_t *key = malloc(((size_t)n + 1) * sizeof(*key));
    CLEANUP(freep) uint32_t *set = malloc(((size_t)n + 1) * sizeof(*set));
    CLEANUP(pairs_clear) struct pairs p = { 0 };
    m->entry = aligned_alloc(64, (((size_t)n + 1) * sizeof(*m->entry) + 63) & ~(size_t)63);
    if (!key || !set || !m->entry || pairs_init(&p, n) < 0)
        return err_sys(e, ENOMEM, "%u trace entries", n);
    struct tlb_use use = { .key = key, .set = set, .n = n, .n_gids = t->n_gids };
    bool cc_one = a->cc_ways && a->cc_entries / a->cc_ways <= 1;
    int r;

    for (uint32_t i = 0; i < n; i++) {
        const struct trace_entry *d = &t->entry[i];
        if (d->level < 1 || d->level > 3)
            return err_set(e, SF_EFORMAT, "trace: entry %u: level %u, the model rules know 1 to 3",
                           i, d->level);
        m->entry[i].gid = d->gid;
        set[i] = set_of(a->cc_entries, a->cc_ways, cc_groups, d->gid, d->sid);
        /* one source-id with two domains may live in two partitions at once */
        key[i] = cc_one ? t->key_sid[i] : pairs_id(&p, t->key_sid[i], set[i]);
        m->entry[i].cc = key[i];
    }
    use.n_keys = cc_one ? t->n_sids : p.n;
    if ((r = tlb_init(&m->cc, a->cc_entries, a->cc_ways, 8, POLICY_LFU, &use, rows, e)) < 0)
        return r;
    if (m->cc.sets > 1) {
        m->cc_set = malloc(((size_t)use.n_keys + 1) * sizeof(*m->cc_set));
        if (!m->cc_set)
            return err_sys(e, ENOMEM, "context cache");
        for (uint32_t i = 0; i < n; i++)
            m->cc_set[key[i]] = set[i];
    }
    pairs_clear(&p);

    /* the index of a 1 GiB page's access is finer than the page: its key may live in several sets
     */
    if (pairs_init(&p, n) < 0)
        return err_sys(e, ENOMEM, "%u trace entries", n);
    for (uint32_t i = 0; i < n; i++) {
        const struct trace_entry *d = &t->entry[i];
        set[i] = set_of(a->iotlb_entries, a->iotlb_ways, iotlb_groups, d->gid, d->iova >> 21);
        key[i] = pairs_id(&p, t->key_page[i], set[i]);
        m->entry[i].iotlb = key[i];
        m->entry[i].iotlb_set = set[i];
    }
    use.n_keys = p.n;
    if ((r = tlb_init(&m->iotlb, a->iotlb_entries, a->iotlb_ways, 8,
                      (enum arch_policy)a->iotlb_policy, &use, rows, e)) < 0)
        return r;

    uint32_t used = 0; /* a 1 GiB leaf has no entry in L2PAGE: only the others can fill it */
    for (uint32_t i = 0; i < n; i++) {
        const struct trace_entry *d = &t->entry[i];
        uint32_t s = set_of(a->l2_entries, a->l2_ways, l2_groups, d->gid, d->iova >> 21);
        m->entry[i].l2 = t->key_l2[i];
        m->entry[i].l2_set = s | (uint32_t)d->level << MODEL_LEVEL_SHIFT;
        if (d->level <= 2) {
            key[used] = t->key_l2[i];
            set[used++] = s;
        }
    }
    use.n = used;
    use.n_keys = t->n_l2;
    if ((r = tlb_init(&m->l2, a->l2_entries, a->l2_ways, 16, POLICY_LRU, &use, rows, e)) < 0)
        return r;

    for (uint32_t i = 0; i < n; i++) {
        const struct trace_entry *d = &t->entry[i];
        uint32_t s = set_of(a->l3_entries, a->l3_ways, l3_groups, d->gid, d->iova >> 30), f = 0;
        key[i] = t->key_l3[i];
        set[i] = s;
        if (!a->salloc || cacheable(d->gid, 0, iotlb_groups))
            f |= MODEL_ALLOC_IOTLB;
        if (!a->salloc || cacheable(d->gid, iotlb_groups, l2_groups))
            f |= MODEL_ALLOC_L2;
        if (!a->salloc || cacheable(d->gid, iotlb_groups + l2_groups, l3_groups))
            f |= MODEL_ALLOC_L3;
        m->entry[i].l3 = t->key_l3[i];
        m->entry[i].l3_set = s | f;
    }
    use.n = n;
    use.n_keys = t->n_l3;
    return tlb_init(&m->l3, a->l3_entries, a->l3_ways, 16, POLICY_LRU, &use, rows, e);
}

static int setup_prefetcher(struct model *m, const struct trace *t, const struct arch *a,
                            struct err *e)
{
    uint32_t n = t->n_entries;
    CLEANUP(pairs_clear) struct pairs p = { 0 };
    CLEANUP(freep) uint32_t *set = calloc((size_t)n + 1, sizeof(*set));
    m->entry_req = malloc(((size_t)n + 1) * sizeof(*m->entry_req));
    m->entry_page = t->key_page;
    if (!set || !m->entry_req || pairs_init(&p, n) < 0)
        return err_sys(e, ENOMEM, "prefetcher");
    for (uint32_t i = 0; i < n; i++)
        m->entry_req[i] = pairs_id(&p, t->key_sid[i], t->entry[i].gid);
    m->n_req = p.n;
    m->depth = a->pf_history;
    m->distance = a->pf_distance;
    m->req = calloc((size_t)p.n + 1, sizeof(*m->req));
    m->history = malloc(((size_t)p.n * m->depth + 1) * sizeof(*m->history));
    m->fifo = malloc((size_t)m->distance * sizeof(*m->fifo));
    m->guess = malloc((size_t)m->distance * sizeof(*m->guess));
    if (!m->req || !m->history || !m->fifo || !m->guess)
        return err_sys(e, ENOMEM, "prefetcher");
    for (uint32_t i = 0; i < p.n; i++)
        m->req[i].next = TLB_NONE;
    memset(m->guess, 0xff, (size_t)m->distance * sizeof(*m->guess));
    struct tlb_use use = {
        .key = t->key_page, .set = set, .n = n, .n_keys = t->n_page, .n_gids = t->n_gids
    };
    return tlb_init(&m->buffer, a->pf_entries, a->pf_entries, 8, POLICY_LRU, &use, false, e);
}

static int setup(struct model *m, const struct trace *t, const struct arch *a, bool rows,
                 struct err *e)
{
    m->ev = t->ev;
    m->n = t->n;
    m->next_use = a->iotlb_policy == POLICY_ORACLE ? t->next : NULL;
    if (a->iotlb_policy == POLICY_ORACLE && !t->next && t->n)
        return err_set(e, SF_EUSAGE, "trace: the oracle policy needs next access times");
    if (t->n_entries >= MODEL_F_LEAF)
        return err_set(e, SF_EFORMAT, "trace: %u different entries, at most %u", t->n_entries,
                       MODEL_F_LEAF - 1);
    m->inorder = a->inorder;
    m->prefetch = a->pf_entries && a->pf_distance && a->pf_history;
    m->gbps = a->link_gbps;
    m->queue = a->queue;
    m->n_gids = t->n_gids;
    uint64_t most = (a->queue < t->n ? a->queue : t->n) + MODEL_PACKET_EVENTS +
                    (m->prefetch ? MODEL_PF_MAX : 0);
    m->flow = malloc(((size_t)t->n_gids + 1) * sizeof(*m->flow));
    m->flow_order = malloc(((size_t)t->n_gids + 1) * sizeof(*m->flow_order));
    if (!m->flow || !m->flow_order || ring_init(&m->qc, most) < 0 || ring_init(&m->qp, most) < 0 ||
        ring_init(&m->qf, most) < 0 || ring_init(&m->qi_near, most) < 0 ||
        ring_init(&m->qi_far, most) < 0)
        return err_sys(e, ENOMEM, "queues of %u", a->queue);
    for (uint32_t i = 0; i < t->n_gids; i++)
        m->flow[i] = (struct model_flow){ .first = MODEL_NEVER };
    int r = setup_caches(m, t, a, rows, e);
    if (r < 0)
        return r;
    m->common = !m->inorder && !rows && !a->salloc && !m->next_use && m->cc.kind == TLB_ALL &&
                m->iotlb.kind == TLB_LINE && m->iotlb.lanes == 8 && m->l2.kind == TLB_LINE &&
                m->l3.kind == TLB_LINE;
    if (!m->prefetch)
        return 0;
    return setup_prefetcher(m, t, a, e);
}

static void collect(const struct model *m, const struct arch *a, struct row_stats *s)
{
    *s = (struct row_stats){ 0 };
    if (m->n) {
        /* the last packet's wire time belongs to the run, else a short run would beat the link */
        s->time_ps = m->last > m->slot ? m->last : m->slot;
        s->mbps = flow_rate(m->n, s->time_ps, 6);
        s->util_ppm = (uint64_t)((unsigned __int128)m->n * FLOW_BITS * 1000000000u /
                                 ((unsigned __int128)s->time_ps * m->gbps));
    }
    s->requests = m->n;
    s->pkts_sent = m->sent;
    s->pkts_dropped = m->dropped;
#define CACHE(name, c)                                                                             \
    s->name##_hit = (c)->hit[TLB_DEMAND];                                                          \
    s->name##_miss = (c)->miss[TLB_DEMAND];                                                        \
    s->name##_conflict = (c)->conflict[TLB_DEMAND];                                                \
    s->name##_domains = (c)->domains
    CACHE(cc, &m->cc);
    CACHE(iotlb, &m->iotlb);
    CACHE(l2, &m->l2);
    CACHE(l3, &m->l3);
#undef CACHE
    s->pf_l2_hit = m->l2.hit[TLB_PREFETCH];
    s->pf_l2_miss = m->l2.miss[TLB_PREFETCH];
    s->pf_l2_conflict = m->l2.conflict[TLB_PREFETCH];
    s->pf_l3_hit = m->l3.hit[TLB_PREFETCH];
    s->pf_l3_miss = m->l3.miss[TLB_PREFETCH];
    s->pf_l3_conflict = m->l3.conflict[TLB_PREFETCH];
    s->pf_size = m->prefetch ? a->pf_entries : 0;
    if (m->prefetch) {
        s->pf_accesses = m->n;
        s->pf_predictions = m->predictions;
        s->pf_correct = m->correct;
        s->pf_incorrect = m->incorrect;
        s->pf_same_sid = m->same;
        s->pf_diff_sid = m->different;
        s->pf_new_mappings = m->mappings;
        s->pf_fill = m->buffer.hit[TLB_PREFETCH] + m->buffer.miss[TLB_PREFETCH];
        s->pf_fill_same = m->buffer.hit[TLB_PREFETCH];
        s->pf_hit = m->buffer_hit;
        s->pf_miss = m->buffer_miss;
        s->pf_dropped = m->pf_dropped;
    }
    struct flow_sum f = { 0 };
    for (uint32_t i = 0; i < m->n_flows; i++) {
        const struct model_flow *w = &m->flow[m->flow_order[i]];
        flow_add(&f, w->n, w->last - w->first);
    }
    flow_end(&f, s);
}

static int hist_order(const void *a, const void *b)
{
    const struct engine_hist *x = a, *y = b;
    return x->sid < y->sid ? -1 : x->sid > y->sid;
}

static int collect_detail(struct model *m, const struct trace *t, struct engine_detail *d,
                          struct err *e)
{
    struct tlb *caches[4] = { &m->cc, &m->iotlb, &m->l2, &m->l3 };
    *d = (struct engine_detail){ .n_flows = m->n_flows };
    for (unsigned i = 0; i < 4; i++) {
        d->n_rows[i] = caches[i]->sets;
        d->rows[i] = TAKE(caches[i]->rows);
    }
    d->flows = calloc(m->n_flows + 1u, sizeof(*d->flows));
    d->hist = calloc(m->n_req + 1u, sizeof(*d->hist));
    if (!d->flows || !d->hist) {
        engine_detail_clear(d);
        return err_sys(e, ENOMEM, "detail");
    }
    for (uint32_t i = 0; i < m->n_flows; i++) {
        uint32_t gid = m->flow_order[i];
        const struct model_flow *w = &m->flow[gid];
        d->flows[i].gid = gid;
        d->flows[i].time_ps = w->last - w->first;
        d->flows[i].trans = w->n;
        d->flows[i].bw_mbps = flow_rate(w->n, w->last - w->first, 6);
    }
    /* one line a source-id: its domains together */
    CLEANUP(freep) uint8_t *seen = calloc((size_t)m->n_req + 1, 1);
    if (!seen) {
        engine_detail_clear(d);
        return err_sys(e, ENOMEM, "detail");
    }
    for (uint32_t i = 0; m->prefetch && i < t->n_entries; i++) {
        uint32_t r = m->entry_req[i];
        if (seen[r])
            continue;
        seen[r] = 1;
        d->hist[d->n_hist++] =
            (struct engine_hist){ t->entry[i].sid, m->req[r].hit, m->req[r].miss };
    }
    qsort(d->hist, d->n_hist, sizeof(*d->hist), hist_order);
    size_t n = 0;
    for (size_t i = 0; i < d->n_hist; i++) {
        if (n && d->hist[n - 1].sid == d->hist[i].sid) {
            d->hist[n - 1].hit += d->hist[i].hit;
            d->hist[n - 1].miss += d->hist[i].miss;
        } else {
            d->hist[n++] = d->hist[i];
        }
    }
    d->n_hist = n;
    return 0;
}

/* The code path: the best that the machine has, or what SIOFLEET_ISA pins. A pinned one that the
 * machine lacks is refused rather than replaced: whoever pins wants to know. */
static int pick_loop(void (**ret)(struct model *), struct err *e)
{
    const char *want = getenv("SIOFLEET_ISA");
    *ret = model_loop_scalar;
#ifdef SIOFLEET_X86
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
#else
    bool avx2 = false, avx512 = false;
#endif
    bool auto_pick = !want || !*want;
    if (!auto_pick && strcmp(want, "scalar") && strcmp(want, "avx2") && strcmp(want, "avx512"))
        return err_set(e, SF_EUSAGE, "SIOFLEET_ISA: '%s' is none of scalar, avx2, avx512", want);
    if (!auto_pick && ((!strcmp(want, "avx2") && !avx2) || (!strcmp(want, "avx512") && !avx512)))
        return err_set(e, SF_EUSAGE, "SIOFLEET_ISA: this machine has no %s", want);
#ifdef SIOFLEET_X86
    if (auto_pick ? avx512 : !strcmp(want, "avx512"))
        *ret = model_loop_avx512;
    else if (auto_pick ? avx2 : !strcmp(want, "avx2"))
        *ret = model_loop_avx2;
#endif
    return 0;
}

int model_run(const struct trace *t, const struct arch *a, struct row_stats *ret,
              struct engine_detail *detail, struct err *e)
{
    CLEANUP(model_clear) struct model m = { 0 };
    void (*loop)(struct model *);
    int r = pick_loop(&loop, e);
    if (r < 0 || (r = setup(&m, t, a, detail != NULL, e)) < 0)
        return r;
    loop(&m);
    collect(&m, a, ret);
    return detail ? collect_detail(&m, t, detail, e) : 0;
}
