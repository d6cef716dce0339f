#include "tests/oracle/model_twin.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 u128;

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

/* ---- a cache: a list of cells a set ----
 *
 * `back` is the number of the deviation (README's table) that is put back: the reference's behaviour in this one point. 0 = none.
 */

enum repl { LRU, LFU, BELADY };

struct cell {
    uint64_t a, b; /* key: address part (or source-id) and tenant */
    uint64_t last; /* when it was found or inserted, as a count of accesses */
    uint64_t counter, next_use;
};

struct cache {
    struct cell *cells; /* sets x ways */
    uint64_t *used;     /* cells in use, by set */
    uint64_t *rows;
    bool *missed; /* by tenant */
    uint64_t sets, ways, log_sets, log_groups, clock;
    enum repl repl;
    unsigned back;
    uint64_t hit[2], miss[2], conflict[2], domains;
};

static uint64_t log2_of(uint64_t v)
{
    uint64_t n = 0;
    while (v > 1) {
        v /= 2;
        n++;
    }
    return n;
}

static void cache_make(struct cache *c, uint64_t entries, uint64_t ways, uint64_t groups,
                       enum repl repl, uint64_t tenants)
{
    memset(c, 0, sizeof(*c));
    c->repl = repl;
    c->missed = must(calloc(tenants + 1, sizeof(bool)));
    if (entries == 0 || ways == 0)
        return;
    c->sets = entries / ways;
    c->ways = ways;
    c->log_sets = log2_of(c->sets);
    c->log_groups = log2_of(groups ? groups : 1);
    c->cells = must(calloc(c->sets * ways, sizeof(*c->cells)));
    c->used = must(calloc(c->sets, sizeof(*c->used)));
    c->rows = must(calloc(c->sets, sizeof(*c->rows)));
}

static void cache_drop(struct cache *c)
{
    free(c->cells);
    free(c->used);
    free(c->rows);
    free(c->missed);
}

/* who: 0 demand, 1 prefetch */
static bool cache_access(struct cache *c, uint64_t bits, uint64_t a, uint64_t b, uint64_t tenant,
                         bool alloc, uint64_t next_use, int who)
{
    if (c->sets == 0)
        return false;
    uint64_t field = c->log_sets - c->log_groups;
    uint64_t set = tenant % (1ull << c->log_groups) * (1ull << field) + bits % (1ull << field);
    struct cell *s = c->cells + set * c->ways;
    c->clock++;
    if (alloc && who == 0)
        c->rows[set]++;
    for (uint64_t i = 0; i < c->used[set]; i++) {
        if (s[i].a != a || s[i].b != b)
            continue;
        s[i].last = c->clock;
        s[i].next_use = next_use;
        s[i].counter++;
        if (c->repl == LFU && s[i].counter == 15)
            for (uint64_t j = 0; j < c->used[set]; j++)
                s[j].counter /= 2;
        if (alloc)
            c->hit[who]++;
        return true;
    }
    if (!alloc)
        return false;
    c->miss[who]++;
    if (who == 0 && !c->missed[tenant]) {
        c->missed[tenant] = true;
        c->domains++;
    }
    if (c->used[set] == c->ways) {
        uint64_t worst = 0, ties = 1;
        for (uint64_t i = 1; i < c->ways; i++) {
            bool worse = false, tie = true;
            if (c->repl == LFU) {
                worse = s[i].counter < s[worst].counter;
                tie = s[i].counter == s[worst].counter;
            } else if (c->repl == BELADY) {
                worse = s[i].next_use > s[worst].next_use;
                tie = s[i].next_use == s[worst].next_use;
            }
            ties = worse ? 1 : ties + tie;
            if (c->back == 2 && c->repl != LRU && tie ? rand() % (int)ties == 0
                                                      : worse || (tie && s[i].last < s[worst].last))
                worst = i;
        }
        memmove(&s[worst], &s[worst + 1], (c->ways - worst - 1) * sizeof(*s));
        c->used[set]--;
        c->conflict[who]++;
    }
    s[c->used[set]++] = (struct cell){ .a = a, .b = b, .last = c->clock, .next_use = next_use };
    return false;
}

/* ---- the machine ---- */

enum { QC, QP, QF, QI, STAGES };

struct job {
    uint64_t ready, order; /* order: when it was put in, counted over everything */
    uint64_t nominal;      /* when it would be there if it never waited */
    uint64_t next_use;
    uint32_t entry;
    bool prefetch;
};

struct queue {
    struct job *jobs;
    size_t n, room;
    uint64_t free_at;
};

struct requester {
    uint32_t sid, gid;
    uint32_t *past; /* entry numbers, oldest first */
    size_t n_past;
    long successor; /* -1 = none */
    int confidence;
};

struct twin {
    const struct trace *t;
    const struct arch *a;
    unsigned back;
    struct cache cc, iotlb, l2, l3, buffer;
    struct queue q[STAGES];
    uint64_t order;
    struct requester *req;
    size_t n_req;
    long *seen, *guess; /* by QC access: who, and what was predicted then */
    size_t n_seen;
    uint64_t under_way;
    struct row_stats s;
};

/* back == 1: the order of equal times is that of a binary heap. */
static void sift(struct queue *q, size_t i, struct job v)
{
    for (; i > 0 && q->jobs[(i - 1) / 2].ready > v.ready; i = (i - 1) / 2)
        q->jobs[i] = q->jobs[(i - 1) / 2];
    q->jobs[i] = v;
}

/* j as it is, ready at `at` after `latency` without waiting. */
static void put(struct twin *w, int stage, uint64_t at, uint64_t latency, struct job j)
{
    struct queue *q = &w->q[stage];
    if (q->n == q->room) {
        q->room = q->room ? 2 * q->room : 16;
        q->jobs = must(realloc(q->jobs, q->room * sizeof(*q->jobs)));
    }
    j.ready = at;
    j.order = w->order++;
    j.nominal += latency;
    q->jobs[q->n++] = j;
    if (w->back == 1)
        sift(q, q->n - 1, j);
}

/* Number of the job that the stage would take, -1 for none. */
static long choose(const struct twin *w, const struct queue *q)
{
    long best = -1;
    if (w->back == 1)
        return q->n ? 0 : -1;
    for (size_t i = 0; i < q->n; i++) {
        if (best < 0) {
            best = (long)i;
            continue;
        }
        const struct job *x = &q->jobs[i], *y = &q->jobs[best];
        if (w->a->inorder ? x->order < y->order
                          : x->ready < y->ready || (x->ready == y->ready && x->order < y->order))
            best = (long)i;
    }
    return best;
}

static struct job take(const struct twin *w, struct queue *q, long i)
{
    struct job j = q->jobs[i];
    if (w->back == 1) {
        struct job v = q->jobs[--q->n];
        size_t k = 0, child;
        for (; (child = 2 * k + 1) < q->n; k = child) {
            child += child + 1 < q->n && q->jobs[child + 1].ready <= q->jobs[child].ready;
            q->jobs[k] = q->jobs[child];
        }
        if (q->n)
            sift(q, k, v);
        return j;
    }
    memmove(&q->jobs[i], &q->jobs[i + 1], (q->n - (size_t)i - 1) * sizeof(*q->jobs));
    q->n--;
    return j;
}

static bool may_fill(const struct twin *w, uint32_t gid, int which)
{
    uint64_t g[3] = { w->a->iotlb_groups, w->a->l2_groups, w->a->l3_groups }, from = 0;
    if (!w->a->salloc)
        return true;
    for (int i = 0; i < 3; i++)
        if (g[i] == 0)
            g[i] = 1;
    for (int i = 0; i < which; i++)
        from += g[i];
    return from <= gid && gid < from + g[which];
}

#define NS 1000ull

static bool iotlb(struct twin *w, const struct trace_entry *d, bool alloc, uint64_t next_use)
{
    return cache_access(&w->iotlb, d->iova >> 21, d->iova & d->mask, d->gid, d->gid, alloc,
                        next_use, 0);
}

static bool l2page(struct twin *w, const struct trace_entry *d, bool alloc, int who)
{
    return d->level <= 2 &&
           cache_access(&w->l2, d->iova >> 21, d->iova >> 21, d->gid, d->gid, alloc, 0, who);
}

static bool l3page(struct twin *w, const struct trace_entry *d, bool alloc, int who)
{
    return cache_access(&w->l3, d->iova >> 30, d->iova >> 30, d->gid, d->gid, alloc, 0, who);
}

static bool prefetching(const struct arch *a, unsigned back)
{
    return (a->pf_entries > 0 || back == 18) && a->pf_distance > 0 && a->pf_history > 0;
}

static long requester_of(struct twin *w, const struct trace_entry *d)
{
    for (size_t i = 0; i < w->n_req; i++)
        if (w->req[i].sid == d->sid && (w->req[i].gid == d->gid || w->back == 20))
            return (long)i;
    w->req = must(realloc(w->req, (w->n_req + 1) * sizeof(*w->req)));
    w->req[w->n_req] = (struct requester){ .sid = d->sid, .gid = d->gid, .successor = -1 };
    w->req[w->n_req].past = must(calloc(w->a->pf_history + 1, sizeof(uint32_t)));
    return (long)w->n_req++;
}

/* back == 19: what was seen `distance` accesses before the last one is followed by this, once and for all; the last prediction is scored
 * now, whatever it was made for. */
static void learn_late(struct twin *w, size_t k, long r)
{
    if (k && w->guess[k - 1] >= 0) {
        if (w->guess[k - 1] == r)
            w->s.pf_correct++;
        else
            w->s.pf_incorrect++;
    }
    if (k <= w->a->pf_distance)
        return;
    struct requester *b = &w->req[w->seen[k - w->a->pf_distance - 1]];
    if (b == &w->req[r]) {
        w->s.pf_same_sid++;
        return;
    }
    w->s.pf_diff_sid++;
    if (b->successor < 0) {
        b->successor = r;
        w->s.pf_new_mappings++;
    }
}

static void prefetcher(struct twin *w, uint32_t entry, uint64_t t)
{
    long r = requester_of(w, &w->t->entry[entry]);
    struct requester *q = &w->req[r];
    q->past[q->n_past++] = entry;
    if (q->n_past > w->a->pf_history)
        memmove(q->past, q->past + 1, --q->n_past * sizeof(*q->past));

    size_t k = w->n_seen++;
    w->seen[k] = r;
    w->guess[k] = -1;
    if (w->back == 19)
        learn_late(w, k, r);
    else if (k >= w->a->pf_distance) {
        long p = w->seen[k - w->a->pf_distance], g = w->guess[k - w->a->pf_distance];
        struct requester *b = &w->req[p];
        if (g >= 0 && g == r)
            w->s.pf_correct++;
        if (g >= 0 && g != r)
            w->s.pf_incorrect++;
        if (p == r)
            w->s.pf_same_sid++;
        else
            w->s.pf_diff_sid++;
        bool renew = false;
        if (b->successor < 0) {
            renew = true;
        } else if (b->successor == r) {
            if (b->confidence < 3)
                b->confidence++;
        } else {
            b->confidence--;
            renew = b->confidence == 0;
        }
        if (renew && p == r) {
            b->successor = -1;
        } else if (renew) {
            b->successor = r;
            b->confidence = 1;
            w->s.pf_new_mappings++;
        }
    }
    if (q->successor < 0)
        return;
    w->s.pf_predictions++;
    w->guess[k] = q->successor;
    struct requester *g = &w->req[q->successor];
    for (size_t i = 0; i < g->n_past; i++) {
        if (w->under_way >= 2048) {
            w->s.pf_dropped++;
            continue;
        }
        w->under_way++;
        put(w, QP, t + 500 * NS, 0, (struct job){ .entry = g->past[i], .prefetch = true });
    }
}

static void stage_qc(struct twin *w, struct job j, uint64_t t)
{
    const struct trace_entry *d = &w->t->entry[j.entry];
    cache_access(&w->cc, d->sid, d->sid, 0, d->gid, true, 0, 0);
    bool hit = iotlb(w, d, false, j.next_use);
    if (prefetching(w->a, w->back)) {
        bool b = cache_access(&w->buffer, 0, d->iova & d->mask, d->gid, d->gid, false, 0, 0);
        if (b)
            w->s.pf_hit++;
        else
            w->s.pf_miss++;
        hit = hit || b;
    }
    if (hit)
        put(w, QI, t + (w->back == 15 ? 1 : 2) * NS, 2 * NS, j);
    else
        put(w, QP, t + 450 * NS, 450 * NS, j);
    if (prefetching(w->a, w->back))
        prefetcher(w, j.entry, t);
}

static void stage_qp(struct twin *w, struct job j, uint64_t t)
{
    const struct trace_entry *d = &w->t->entry[j.entry];
    bool h2 = l2page(w, d, false, 0), h3 = l3page(w, d, false, 0);
    unsigned reads = (h2 ? 2u : h3 ? 3u : w->back == 14 ? 2u * d->level : 4u) - d->level;
    uint64_t walk = 50 * NS * reads + (h2 || h3 ? 5 * NS : 0);
    if (reads == 0)
        put(w, QI, t + (w->back == 15 ? h2 ? 454 : 4 : 455) * NS, 455 * NS, j);
    else
        put(w, QF, t + (w->back == 15 ? 50 * NS * reads - NS : walk), walk, j);
}

static void stage_qf(struct twin *w, struct job j, uint64_t t)
{
    const struct trace_entry *d = &w->t->entry[j.entry];
    l2page(w, d, may_fill(w, d->gid, 1), j.prefetch);
    l3page(w, d, may_fill(w, d->gid, 2), j.prefetch);
    put(w, QI, t + 450 * NS, 450 * NS, j);
}

static uint64_t rate(uint64_t n, uint64_t ps, uint64_t scale)
{
    return (uint64_t)((u128)n * 4112 * scale / ps);
}

void twin_detail_clear(struct twin_detail *d)
{
    for (int i = 0; i < 4; i++)
        free(d->rows[i]);
    free(d->flow_first);
    free(d->flow_last);
    free(d->flow_n);
    memset(d, 0, sizeof(*d));
}

/* When slot k is. back == 21: in whole ns, too early at most speeds. */
static uint64_t slot_time(const struct twin *w, uint64_t k)
{
    if (w->back == 21)
        return k * (12336 / w->a->link_gbps) * NS;
    return (uint64_t)(((u128)k * 12336000 + w->a->link_gbps - 1) / w->a->link_gbps);
}

void model_twin_back(const struct trace *t, const struct arch *a, unsigned back,
                     struct row_stats *ret, struct twin_detail *detail)
{
    struct twin w = { .t = t, .a = a, .back = back };
    uint64_t tenants = t->n_gids;
    cache_make(&w.cc, a->cc_entries, a->cc_ways, a->cc_groups, LFU, tenants);
    cache_make(&w.iotlb, a->iotlb_entries, a->iotlb_ways, a->iotlb_groups,
               a->iotlb_policy == POLICY_LFU      ? LFU
               : a->iotlb_policy == POLICY_ORACLE ? BELADY
                                                  : LRU,
               tenants);
    cache_make(&w.l2, a->l2_entries, a->l2_ways, a->l2_groups, LRU, tenants);
    cache_make(&w.l3, a->l3_entries, a->l3_ways, a->l3_groups, LRU, tenants);
    cache_make(&w.buffer, prefetching(a, back) ? a->pf_entries : 0, a->pf_entries, 1, LRU, tenants);
    w.cc.back = w.iotlb.back = back;
    w.seen = must(calloc(t->n + 1, sizeof(*w.seen)));
    w.guess = must(calloc(t->n + 1, sizeof(*w.guess)));
    uint64_t *first = must(malloc((tenants + 1) * sizeof(*first)));
    uint64_t *last = must(calloc(tenants + 1, sizeof(*last))),
             *done = must(calloc(tenants + 1, sizeof(*done)));
    for (uint64_t i = 0; i <= tenants; i++)
        first[i] = UINT64_MAX;

    uint64_t slot = 0, pos = 0, flying = 0, end = 0;
    for (;;) {
        uint64_t best = pos < t->n ? slot_time(&w, slot) : UINT64_MAX;
        int what = -1; /* -1 = a slot; else a stage. Earlier ones win equal times. */
        long which = -1;
        for (int i = 0; i < STAGES; i++) {
            long c = choose(&w, &w.q[i]);
            if (c < 0)
                continue;
            uint64_t at = w.q[i].jobs[c].ready;
            if (at < w.q[i].free_at)
                at = w.q[i].free_at;
            if (at < best) {
                best = at;
                what = i;
                which = c;
            }
        }
        if (best == UINT64_MAX || (back == 38 && pos == t->n && !flying))
            break;
        if (what < 0) {
            slot++;
            if (flying >= a->queue) {
                w.s.pkts_dropped++;
                continue;
            }
            w.s.pkts_sent++;
            for (int i = 0; i < 3 && pos < t->n; i++, pos++) {
                uint32_t entry = t->ev[pos];
                const struct trace_entry *d = &t->entry[entry];
                bool found = cache_access(&w.cc, d->sid, d->sid, 0, d->gid, false, 0, 0);
                if (best < first[d->gid])
                    first[d->gid] = best;
                uint64_t latency = (found ? 1 : 1000) * NS;
                put(&w, QC, best + latency, latency,
                    (struct job){
                        .nominal = best, .entry = entry, .next_use = t->next ? t->next[pos] : 0 });
                flying++;
                w.s.requests++;
            }
            if (pos == t->n) /* the wire time of the last packet */
                end = slot_time(&w, slot);
            continue;
        }
        struct job j = take(&w, &w.q[what], which);
        w.q[what].free_at = best + NS;
        if (what == QC) {
            stage_qc(&w, j, best);
        } else if (what == QP) {
            stage_qp(&w, j, best);
        } else if (what == QF) {
            stage_qf(&w, j, best);
        } else if (j.prefetch) {
            const struct trace_entry *d = &t->entry[j.entry];
            w.s.pf_fill++;
            w.s.pf_fill_same +=
                cache_access(&w.buffer, 0, d->iova & d->mask, d->gid, d->gid, true, 0, 1);
            w.under_way--;
        } else {
            const struct trace_entry *d = &t->entry[j.entry];
            iotlb(&w, d, may_fill(&w, d->gid, 0), j.next_use);
            if (back != 17)
                last[d->gid] = best;
            else if (last[d->gid] < j.nominal)
                last[d->gid] = j.nominal;
            done[d->gid]++;
            flying--;
            if (best > end)
                end = best;
        }
    }

    struct row_stats *s = &w.s;
    s->time_ps = end;
    if (back == 22)
        end += NS;
    if (end) {
        uint64_t counted = back == 22 ? t->n - t->n % 3 : t->n;
        s->mbps = rate(counted, end, 1000000);
        s->util_ppm = (uint64_t)((u128)counted * 4112 * 1000000000u / ((u128)end * a->link_gbps));
    }
    s->cc_hit = w.cc.hit[0], s->cc_miss = w.cc.miss[0], s->cc_conflict = w.cc.conflict[0];
    s->iotlb_hit = w.iotlb.hit[0], s->iotlb_miss = w.iotlb.miss[0],
    s->iotlb_conflict = w.iotlb.conflict[0];
    s->l2_hit = w.l2.hit[0], s->l2_miss = w.l2.miss[0], s->l2_conflict = w.l2.conflict[0];
    s->l3_hit = w.l3.hit[0], s->l3_miss = w.l3.miss[0], s->l3_conflict = w.l3.conflict[0];
    s->cc_domains = w.cc.domains, s->iotlb_domains = w.iotlb.domains;
    s->l2_domains = w.l2.domains, s->l3_domains = w.l3.domains;
    s->pf_l2_hit = w.l2.hit[1], s->pf_l2_miss = w.l2.miss[1], s->pf_l2_conflict = w.l2.conflict[1];
    s->pf_l3_hit = w.l3.hit[1], s->pf_l3_miss = w.l3.miss[1], s->pf_l3_conflict = w.l3.conflict[1];
    if (prefetching(a, back)) {
        s->pf_accesses = t->n;
        s->pf_size = a->pf_entries;
    }
    u128 sum = 0, squares = 0, n = 0;
    s->min_flow_mbps = UINT64_MAX;
    for (uint64_t i = 0; i < tenants; i++) {
        if (!done[i])
            continue;
        uint64_t kbps = rate(done[i], last[i] - first[i], 1000000000), mbps = kbps / 1000;
        sum += kbps;
        squares += (u128)kbps * kbps;
        n++;
        if (mbps < s->min_flow_mbps)
            s->min_flow_mbps = mbps;
        if (mbps > s->max_flow_mbps)
            s->max_flow_mbps = mbps;
    }
    if (n)
        s->jain_ppm = (uint64_t)(sum * sum * 1000000 / (n * squares)); /* small cases: it fits */
    else
        s->min_flow_mbps = 0;
    *ret = w.s;

    if (detail) {
        struct cache *c[4] = { &w.cc, &w.iotlb, &w.l2, &w.l3 };
        for (int i = 0; i < 4; i++) {
            detail->rows[i] = c[i]->rows;
            detail->n_rows[i] = c[i]->sets;
            c[i]->rows = NULL;
        }
        detail->flow_first = first;
        detail->flow_last = last;
        detail->flow_n = done;
    } else {
        free(first);
        free(last);
        free(done);
    }
    for (size_t i = 0; i < w.n_req; i++)
        free(w.req[i].past);
    free(w.req);
    free(w.seen);
    free(w.guess);
    for (int i = 0; i < STAGES; i++)
        free(w.q[i].jobs);
    cache_drop(&w.cc);
    cache_drop(&w.iotlb);
    cache_drop(&w.l2);
    cache_drop(&w.l3);
    cache_drop(&w.buffer);
}

void model_twin(const struct trace *t, const struct arch *a, struct row_stats *ret,
                struct twin_detail *detail)
{
    model_twin_back(t, a, 0, ret, detail);
}
