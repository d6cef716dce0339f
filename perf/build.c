#include "perf/build.h"

#include <stdlib.h>
#include <string.h>

#include "perf/compat/crand.h"
#include "perf/qemulog.h"
#include "proto/base/clean.h"
#include "proto/base/rng.h"

/* 16 bits name a device, a domain or a tenant in the reference's files. */
enum { IDS = 1 << 16, UIDS_PER_LOG = 128 };
#define NONE UINT32_MAX

/* Open addressing from a 64-bit key to a number; keys stand with the caller. */
struct index {
    uint32_t *slot; /* NONE = free */
    uint32_t mask, n;
};

struct builder {
    enum rules rules;
    struct build_hooks hooks;
    uint64_t k; /* number of the log that is read */
    char *path; /* borrowed, of that log */

    /* translations in log order: entry and offset in its 2 MiB piece */
    uint32_t *fe, *fo;
    size_t n, room;
    struct trace_entry *entry;
    uint32_t *after; /* entry -> the one that followed it last in its tenant: mostly so again */
    uint32_t n_entries, entry_room;
    struct index entries;

    uint32_t
        gid_of[IDS]; /* by UID (hypersio) or by the log's domain (model, cleared for each log) */
    uint32_t n_gids;
    struct seen {
        uint32_t in;    /* 1 + last log that showed it */
        uint32_t entry; /* of its last translation, NONE before the first */
    } * tenant;         /* by GID */
    size_t gid_room;
    uint64_t seen;    /* different GIDs in this log */
    uint64_t refused; /* events of this log that the rules cannot take */

    uint8_t valid_sid[IDS / 8];
    uint8_t valid_did[IDS / 8];

    struct trace_cc *cc;
    size_t n_cc, cc_room;
    struct index ccs;
    struct trace_slpt *slpt;
    uint32_t *slpt_gid;
    size_t n_slpt, slpt_room;
    struct index slpts;

    struct build_report *rep; /* borrowed, may be NULL */
};

static inline uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

static int index_init(struct index *x, uint32_t slots)
{
    x->slot = malloc((size_t)slots * sizeof(*x->slot));
    if (!x->slot)
        return -ENOMEM;
    memset(x->slot, 0xff, (size_t)slots * sizeof(*x->slot));
    x->mask = slots - 1;
    return 0;
}

/* Doubles the slots when they are half full. hash_of gives the hash of element i. */
static int index_room(struct index *x, uint64_t (*hash_of)(const struct builder *b, uint32_t i),
                      const struct builder *b)
{
    if (x->n < x->mask / 2)
        return 0;
    if (x->mask >= 1u << 31)
        return -ENOMEM;
    struct index y = { .n = x->n };
    if (index_init(&y, 2 * (x->mask + 1)) < 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < x->n; i++) {
        uint64_t h = hash_of(b, i);
        while (y.slot[h & y.mask] != NONE)
            h++;
        y.slot[h & y.mask] = i;
    }
    free(x->slot);
    *x = y;
    return 0;
}

/* Room for one more of size bytes in *p. */
static int room_for(void *p, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return 0;
    size_t want = *room ? 2 * *room : 1024;
    void *q = realloc(*(void **)p, want * size);
    if (!q)
        return -ENOMEM;
    *(void **)p = q;
    *room = want;
    return 0;
}

static void note(const struct builder *b, enum build_note_kind kind, uint64_t a, uint64_t v,
                 uint64_t c, const char *text)
{
    if (b->hooks.note)
        b->hooks.note(b->hooks.user,
                      &(struct build_note){
                          .kind = kind, .a = a, .b = v, .c = c, .path = b->path, .text = text });
}

static void bit_set(uint8_t *bits, uint32_t i)
{
    bits[i >> 3] |= (uint8_t)(1u << (i & 7));
}

static bool bit(const uint8_t *bits, uint32_t i)
{
    return bits[i >> 3] >> (i & 7) & 1;
}

int builder_new(enum rules rules, const struct build_hooks *hooks, struct builder **ret,
                struct err *e)
{
    struct builder *b = calloc(1, sizeof(*b));
    if (!b)
        return err_sys(e, ENOMEM, "trace construction");
    b->rules = rules;
    if (hooks)
        b->hooks = *hooks;
    memset(b->gid_of, 0xff, sizeof(b->gid_of));
    if (index_init(&b->entries, 1 << 12) < 0 || index_init(&b->ccs, 1 << 8) < 0 ||
        index_init(&b->slpts, 1 << 12) < 0) {
        builder_free(&b);
        return err_sys(e, ENOMEM, "trace construction");
    }
    *ret = b;
    return 0;
}

void builder_free(struct builder **bp)
{
    struct builder *b = *bp;
    *bp = NULL;
    if (!b)
        return;
    free(b->fe);
    free(b->fo);
    free(b->entry);
    free(b->entries.slot);
    free(b->after);
    free(b->tenant);
    free(b->cc);
    free(b->ccs.slot);
    free(b->slpt);
    free(b->slpt_gid);
    free(b->slpts.slot);
    free(b);
}

/* ---------------------------------------------------------------- one event */

/* The tenant of a domain of this log; new ones get the next number. NONE without memory. */
static inline uint32_t gid_for(struct builder *b, uint32_t did)
{
    uint32_t uid = b->rules == RULES_HYPERSIO ? (uint16_t)(did + UIDS_PER_LOG * b->k) : did;
    uint32_t g = b->gid_of[uid];
    if (g == NONE) {
        if (room_for(&b->tenant, b->n_gids, &b->gid_room, sizeof(*b->tenant)) < 0)
            return NONE;
        g = b->gid_of[uid] = b->n_gids++;
        b->tenant[g] = (struct seen){ .entry = NONE };
        note(b, BUILD_MAPPING, uid, g, 0, NULL);
    }
    if (b->tenant[g].in != b->k + 1) {
        b->tenant[g].in = (uint32_t)(b->k + 1);
        b->seen++;
    }
    return g;
}

static inline uint32_t sid_for(const struct builder *b, uint64_t sid)
{
    return b->rules == RULES_HYPERSIO ? (uint16_t)(sid + UIDS_PER_LOG * b->k)
                                      : (uint32_t)((b->k << 16) | (sid & 0xffff));
}

static inline uint64_t entry_hash(const struct trace_entry *t)
{
    return mix(t->iova ^ t->slpte * 0xff51afd7ed558ccdu ^ ((uint64_t)t->sid << 13) ^
               ((uint64_t)t->gid << 40) ^ t->mask * 5 ^ t->level);
}

static uint64_t entry_hash_of(const struct builder *b, uint32_t i)
{
    return entry_hash(&b->entry[i]);
}

static inline bool same_entry(const struct trace_entry *x, const struct trace_entry *y)
{
    return !((x->iova ^ y->iova) | (x->mask ^ y->mask) | (x->slpte ^ y->slpte) | (x->sid ^ y->sid) |
             (x->gid ^ y->gid) | (uint64_t)(x->level ^ y->level));
}

/* Number of an entry, new or not; NONE without memory. */
static uint32_t number_entry(struct builder *b, const struct trace_entry *t)
{
    uint64_t h = entry_hash(t);
    uint32_t i;
    while ((i = b->entries.slot[h & b->entries.mask]) != NONE) {
        if (same_entry(&b->entry[i], t))
            return i;
        h++;
    }
    size_t room = b->entry_room, same_room = room;
    if (b->n_entries == NONE - 1 || room_for(&b->entry, b->n_entries, &room, sizeof(*t)) < 0 ||
        room_for(&b->after, b->n_entries, &same_room, sizeof(*b->after)) < 0)
        return NONE;
    b->entry_room = (uint32_t)room;
    i = b->n_entries++;
    b->entry[i] = *t;
    b->after[i] = i;
    b->entries.slot[h & b->entries.mask] = i;
    b->entries.n++;
    return index_room(&b->entries, entry_hash_of, b) < 0 ? NONE : i;
}

static int add_translation(struct builder *b, uint64_t raw_sid, uint64_t iova, uint64_t mask,
                           uint64_t slpte, uint64_t domain, unsigned level)
{
    struct trace_entry t = { .mask = mask, .slpte = slpte, .level = (uint8_t)level };
    t.gid = gid_for(b, (uint16_t)domain);
    if (t.gid == NONE)
        return -ENOMEM;
    t.sid = sid_for(b, raw_sid);
    t.iova = iova & (mask | ~UINT64_C(0x1fffff));
    struct seen *v = &b->tenant[t.gid];
    uint32_t i = v->entry == NONE ? NONE : b->after[v->entry];
    if (i == NONE || !same_entry(&b->entry[i], &t)) {
        i = number_entry(b, &t);
        if (i == NONE)
            return -ENOMEM;
        if (v->entry != NONE)
            b->after[v->entry] = i;
    }
    v->entry = i;
    if (b->n == b->room) {
        size_t room = b->room ? 2 * b->room : 1 << 16;
        uint32_t *fe = realloc(b->fe, room * sizeof(*fe));
        if (fe)
            b->fe = fe;
        uint32_t *fo = realloc(b->fo, room * sizeof(*fo));
        if (fo)
            b->fo = fo;
        if (!fe || !fo)
            return -ENOMEM;
        b->room = room;
    }
    b->fe[b->n] = i;
    b->fo[b->n++] = (uint32_t)(iova - t.iova);
    return 0;
}

static uint64_t cc_hash_of(const struct builder *b, uint32_t i)
{
    return mix(b->cc[i].sid);
}

static int add_context(struct builder *b, const struct qlog_event *ev)
{
    uint64_t sid = (ev->cc.bus & 0xffff) << 8 | (ev->cc.devfn & 0xffff);
    uint32_t did = ev->cc.high >> 8 & 0xffff;
    bit_set(b->valid_did, did);
    if (gid_for(b, did) == NONE)
        return -ENOMEM;
    bool compat = b->rules == RULES_HYPERSIO;
    struct trace_cc c = { .high = ev->cc.high,
                          .low = ev->cc.low,
                          .sid = sid_for(b, sid),
                          .gen = compat ? (uint16_t)ev->cc.gen : (uint32_t)ev->cc.gen };
    uint64_t h = mix(c.sid);
    uint32_t i;
    while ((i = b->ccs.slot[h & b->ccs.mask]) != NONE && b->cc[i].sid != c.sid)
        h++;
    if (i != NONE) {
        if (b->cc[i].high != c.high || b->cc[i].low != c.low) {
            if (b->rep)
                b->rep->ctx_changed++;
            note(b, BUILD_CTX_CHANGED, c.sid, 0, 0, NULL);
        }
        b->cc[i] = c;
        return 0;
    }
    if (room_for(&b->cc, b->n_cc, &b->cc_room, sizeof(c)) < 0)
        return -ENOMEM;
    b->ccs.slot[h & b->ccs.mask] = (uint32_t)b->n_cc;
    b->cc[b->n_cc++] = c;
    b->ccs.n++;
    return index_room(&b->ccs, cc_hash_of, b);
}

static inline uint64_t slpt_hash(const struct builder *b, uint64_t addr, uint32_t gid)
{
    return mix(addr ^ (b->rules == RULES_HYPERSIO ? 0 : (uint64_t)gid << 48));
}

static uint64_t slpt_hash_of(const struct builder *b, uint32_t i)
{
    return slpt_hash(b, b->slpt[i].entry_addr, b->slpt_gid[i]);
}

static int add_slpte(struct builder *b, const struct qlog_event *ev)
{
    uint32_t did = ev->fetch.high >> 8 & 0xffff;
    uint32_t gid = gid_for(b, did);
    if (gid == NONE)
        return -ENOMEM;
    bool compat = b->rules == RULES_HYPERSIO;
    uint64_t shift = ((ev->fetch.level - 1) * 9 + 12) & 63;
    struct trace_slpt s = { .entry_addr = ev->fetch.addr + 8 * (ev->fetch.iova >> shift & 511),
                            .level = ev->fetch.level,
                            .slpte = ev->fetch.slpte,
                            .iova = ev->fetch.iova,
                            .base = ev->fetch.addr,
                            .did = compat ? did : gid };
    uint64_t h = slpt_hash(b, s.entry_addr, gid);
    uint32_t i;
    while ((i = b->slpts.slot[h & b->slpts.mask]) != NONE &&
           (b->slpt[i].entry_addr != s.entry_addr || (!compat && b->slpt_gid[i] != gid)))
        h++;
    if (i != NONE) {
        const struct trace_slpt *o = &b->slpt[i];
        if (o->base != s.base || b->slpt_gid[i] != gid || o->level != s.level) {
            if (b->rep)
                b->rep->slpte_conflicts++;
            note(b, BUILD_SLPTE_CONFLICT, 0, 0, 0, NULL);
        }
        b->slpt[i] = s;
        b->slpt_gid[i] = gid;
        return 0;
    }
    size_t room = b->slpt_room;
    if (room_for(&b->slpt, b->n_slpt, &room, sizeof(s)) < 0 ||
        room_for(&b->slpt_gid, b->n_slpt, &b->slpt_room, sizeof(gid)) < 0)
        return -ENOMEM;
    b->slpts.slot[h & b->slpts.mask] = (uint32_t)b->n_slpt;
    b->slpt_gid[b->n_slpt] = gid;
    b->slpt[b->n_slpt++] = s;
    b->slpts.n++;
    return index_room(&b->slpts, slpt_hash_of, b);
}

static const uint64_t level_mask[4] = { 0, ~UINT64_C(0xfff), ~UINT64_C(0x1fffff),
                                        ~UINT64_C(0x3fffffff) };

static void refused(void *user, uint64_t line, const char *reason)
{
    struct builder *b = user;
    if (b->rep)
        b->rep->refused++;
    note(b, BUILD_REFUSED, line, 0, 0, reason);
}

/* A line that reads well and says what the model rules cannot take. Counted beside those that the reader refused. */
static int refuse_event(struct builder *b, const struct qlog_event *ev, const char *reason)
{
    b->refused++;
    refused(b, ev->line, reason);
    return 0;
}

/* Returns 1 when the event counts, 0 when it is ignored, -ENOMEM. */
static inline int add_event(struct builder *b, const struct qlog_event *ev)
{
    bool compat = b->rules == RULES_HYPERSIO;
    unsigned level = 0;
    int r;
    switch (ev->kind) {
    case QLOG_HIT:
        for (unsigned i = 1; i <= 3; i++)
            if (ev->hit.pmask == level_mask[i])
                level = i;
        if (!level) {
            if (!compat)
                return refuse_event(b, ev, "its page mask is of no page");
            note(b, BUILD_BAD_MASK, ev->hit.pmask, ev->line, 0, NULL);
        }
        r = add_translation(b, ev->hit.sid, ev->hit.iova, ev->hit.pmask, ev->hit.slpte,
                            ev->hit.domain, level);
        break;
    case QLOG_UPDATE:
        level = (unsigned)ev->update.level;
        if (!level) {
            if (!compat)
                return refuse_event(b, ev, "level 0 is of no page");
            note(b, BUILD_BAD_LEVEL, 0, ev->line, 0, NULL);
        }
        r = add_translation(b, ev->update.sid, ev->update.iova, level_mask[level], ev->update.slpte,
                            ev->update.domain, level);
        break;
    case QLOG_CC_UPDATE:
    case QLOG_CC_HIT:
        r = add_context(b, ev);
        break;
    case QLOG_SLPTE:
        if (!bit(b->valid_did, ev->fetch.high >> 8 & 0xffff))
            return 0;
        r = add_slpte(b, ev);
        break;
    default:
        return 0;
    }
    return r < 0 ? r : 1;
}

/* ---------------------------------------------------------------- one log */

int builder_log(struct builder *b, const char *path, uint64_t valid, struct build_log *log,
                uint64_t *ret_seen, struct err *e)
{
    memset(b->valid_sid, 0, sizeof(b->valid_sid));
    for (uint64_t i = 0; i < valid && i < IDS; i++)
        bit_set(b->valid_sid, (uint16_t)((2 + i) << 3));
    memset(b->valid_did, 0, sizeof(b->valid_did));
    if (b->rules == RULES_MODEL)
        memset(b->gid_of, 0xff, sizeof(b->gid_of));
    b->seen = b->refused = 0;
    b->path = (char *)path;

    struct qlog_rules rules = { .valid_sid = b->valid_sid };
    rules.crlf = rules.gen_decimal = rules.cc_hit = b->rules == RULES_MODEL;
    CLEANUP(qlog_free) struct qlog *q = NULL;
    int r = qlog_open(path, &rules, refused, b, &q, e);
    if (r < 0) {
        note(b, BUILD_MISSING, 0, 0, 0, NULL);
        return r;
    }
    note(b, BUILD_LOG, 0, 0, 0, NULL);
    uint64_t parsed = 0;
    struct qlog_event ev[128];
    ssize_t n;
    while ((n = qlog_read(q, ev, 128, e)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            r = add_event(b, &ev[i]);
            if (r < 0)
                return err_sys(e, -r, "%s", path);
            parsed += (uint64_t)r;
        }
    }
    if (n < 0)
        return (int)n;
    const struct qlog_counts *c = qlog_counts(q);
    if (log) {
        log->lines = c->lines;
        log->bytes = c->bytes;
        log->refused = c->refused + b->refused;
        log->parsed = parsed;
        log->ignored = c->lines - parsed;
        log->devices = b->seen;
    }
    note(b, BUILD_PARSED, parsed, b->seen, c->lines - parsed, NULL);
    b->k++;
    *ret_seen = b->seen;
    return 0;
}

/* ---------------------------------------------------------------- the order */

/* A tenant of the trace: a real one, or a copy of it that starts elsewhere in its events. */
struct tenant {
    uint32_t real;  /* GID in the logs */
    uint32_t copy;  /* 0 = the real one */
    uint64_t begin; /* of its list */
    uint64_t len;
    uint64_t offset; /* where it starts in its list, < len */
    uint64_t done;
    uint64_t map; /* its part of the entry map */
};

struct order {
    const struct builder *b;
    struct trace *t;
    uint32_t *list;  /* event numbers by tenant */
    uint32_t *local; /* entry -> number among its tenant's entries; NULL without copies */
    uint32_t *map;   /* -> entry of the trace, NONE = not used yet */
    uint32_t n_gids, copies_from;
    struct tenant *tenant;
    size_t n_tenants;
};

static inline void emit_event(struct order *o, const struct tenant *v, uint64_t x)
{
    const struct builder *b = o->b;
    struct trace *t = o->t;
    uint32_t en = b->fe[x];
    uint32_t *m = &o->map[o->local ? v->map + o->local[en] : en];
    if (*m == NONE) {
        struct trace_entry *n = &t->entry[t->n_entries];
        *n = b->entry[en];
        if (v->copy) {
            /* a copy is as if its log stood behind all others once more */
            n->gid = o->copies_from + (uint32_t)(v - o->tenant);
            n->sid = b->rules == RULES_HYPERSIO ? (uint16_t)(n->sid + UIDS_PER_LOG * b->k * v->copy)
                                                : n->sid + (uint32_t)((b->k * v->copy) << 16);
        }
        *m = t->n_entries++;
    }
    t->ev[t->n] = *m;
    t->off[t->n++] = b->fo[x];
}

static inline void emit(struct order *o, struct tenant *v)
{
    uint64_t i = v->offset + v->done++;
    emit_event(o, v, o->list[v->begin + (i < v->len ? i : i - v->len)]);
}

/* Up to burst events of a tenant; false when it had to emit and had none left. */
static inline bool emit_burst(struct order *o, struct tenant *v, uint64_t burst)
{
    for (uint64_t i = 0; i < burst; i++) {
        if (v->done == v->len)
            return false;
        emit(o, v);
    }
    return true;
}

static void order_rr(struct order *o, uint64_t burst)
{
    bool over = o->n_tenants == 0;
    while (!over)
        for (size_t i = 0; i < o->n_tenants; i++)
            over |= !emit_burst(o, &o->tenant[i], burst);
    o->t->head.early_end = o->n_tenants > 0;
}

static int order_rand(struct order *o, uint64_t burst, uint64_t seed)
{
    uint32_t *live = malloc(o->n_tenants * sizeof(*live) + 1);
    if (!live)
        return -ENOMEM;
    size_t n = o->n_tenants;
    for (size_t i = 0; i < n; i++)
        live[i] = (uint32_t)i;
    struct crand c;
    crand_seed(&c, (uint32_t)seed);
    struct rng g = { seed };
    bool compat = o->b->rules == RULES_HYPERSIO;
    while (n) {
        size_t i = compat ? crand_next(&c) % n : rng_below(&g, n);
        if (!emit_burst(o, &o->tenant[live[i]], burst)) {
            memmove(&live[i], &live[i + 1], (n - i - 1) * sizeof(*live));
            n--;
        }
    }
    free(live);
    return 0;
}

/* Log order. A copy follows behind, each tenant from its own start on, in the real log's
 * interleaving. */
static void order_orig(struct order *o)
{
    const struct builder *b = o->b;
    for (size_t at = 0; at < o->n_tenants;) {
        uint32_t copy = o->tenant[at].copy;
        size_t end = at;
        while (end < o->n_tenants && o->tenant[end].copy == copy)
            end++;
        size_t left = 0;
        for (size_t i = at; i < end; i++)
            left += o->tenant[i].len;
        if (!copy && !o->local) {
            for (uint64_t x = 0; x < b->n; x++)
                emit_event(o, &o->tenant[0], x);
        } else {
            /* tenants of a copy stand in ascending order of `real`: their places by real number */
            for (uint64_t x = 0; left && x < b->n; x++) {
                uint32_t real = b->entry[b->fe[x]].gid;
                size_t lo = at, hi = end;
                while (lo < hi) {
                    size_t mid = (lo + hi) / 2;
                    if (o->tenant[mid].real < real)
                        lo = mid + 1;
                    else
                        hi = mid;
                }
                if (lo < end && o->tenant[lo].real == real) {
                    emit(o, &o->tenant[lo]);
                    left--;
                }
            }
        }
        at = end;
    }
}

static void order_clear(struct order *o)
{
    free(o->list);
    free(o->local);
    free(o->map);
    free(o->tenant);
}

int builder_finish(struct builder *b, enum trace_order order, uint64_t burst, uint64_t seed,
                   uint64_t want, uint64_t replicate, struct trace **ret, struct err *e)
{
    if (!burst)
        return err_set(e, SF_EUSAGE, "burst: 0 events in a row make no trace");
    if (!replicate)
        replicate = 1;
    if (b->n >= UINT32_MAX)
        return err_set(e, SF_EUSAGE, "logs: more than 2^32-2 translations");
    CLEANUP(trace_free) struct trace *t = calloc(1, sizeof(*t));
    CLEANUP(order_clear) struct order o = { .b = b, .t = t, .n_gids = b->n_gids };
    CLEANUP(freep) uint32_t *count = calloc((size_t)b->n_gids + 1, sizeof(*count));
    if (!t || !count)
        return err_sys(e, ENOMEM, "trace construction");

    /* events by tenant */
    o.list = malloc((b->n + 1) * sizeof(*o.list));
    CLEANUP(freep) uint32_t *begin = malloc(((size_t)b->n_gids + 1) * sizeof(*begin));
    if (!o.list || !begin)
        return err_sys(e, ENOMEM, "trace construction");
    for (size_t x = 0; x < b->n; x++)
        count[b->entry[b->fe[x]].gid]++;
    uint32_t at = 0;
    uint64_t real = 0;
    for (uint32_t g = 0; g < b->n_gids; g++) {
        begin[g] = at;
        at += count[g];
        real += count[g] > 0;
    }
    for (size_t x = 0; x < b->n; x++)
        o.list[begin[b->entry[b->fe[x]].gid]++] = (uint32_t)x;

    /* tenants: the real ones, then copy after copy */
    uint64_t total = real * replicate;
    if (want && want < total)
        total = want < real && replicate == 1 ? real : want;
    if (want && total < want)
        return err_set(e, SF_EUSAGE, "tenants: %llu asked for, the logs hold %llu%s",
                       (unsigned long long)want, (unsigned long long)real,
                       replicate > 1 ? " and replicate is too small" : "");
    if (total > UINT32_MAX / 2)
        return err_set(e, SF_EUSAGE, "replicate: more than 2^31 tenants");
    if (b->rules == RULES_HYPERSIO && b->n_gids + (total - (total < real ? total : real)) > IDS)
        return err_set(e, SF_EUSAGE, "replicate: rules hypersio number at most 65536 tenants");
    if (b->rules == RULES_MODEL && b->k * replicate > IDS)
        return err_set(e, SF_EUSAGE, "replicate: more than 65536 logs with their copies");
    o.tenant = calloc(total + 1, sizeof(*o.tenant));
    if (replicate > 1)
        o.local = malloc(((size_t)b->n_entries + 1) * sizeof(*o.local));
    CLEANUP(freep) uint32_t *kinds = calloc((size_t)b->n_gids + 1, sizeof(*kinds));
    if (!o.tenant || !kinds || (replicate > 1 && !o.local))
        return err_sys(e, ENOMEM, "trace construction");
    for (uint32_t i = 0; o.local && i < b->n_entries; i++)
        o.local[i] = kinds[b->entry[i].gid]++;
    uint64_t events = 0, map = 0;
    for (uint32_t c = 0; o.n_tenants < total; c++)
        for (uint32_t g = 0; g < b->n_gids && o.n_tenants < total; g++) {
            if (!count[g])
                continue;
            o.tenant[o.n_tenants++] = (struct tenant){ .real = g,
                                                       .copy = c,
                                                       .begin = begin[g] - count[g],
                                                       .len = count[g],
                                                       .offset = (uint64_t)c * count[g] / replicate,
                                                       .map = map };
            events += count[g];
            map += kinds[g];
        }
    if (!o.local)
        map = b->n_entries;
    if (events >= UINT32_MAX || map >= UINT32_MAX)
        return err_set(e, SF_EUSAGE, "replicate: more than 2^32-2 translations");
    /* the n-th tenant of the list is GID copies_from + n, behind those of the logs */
    o.copies_from = b->n_gids - (uint32_t)(total < real ? total : real);

    t->ev = malloc((events + 1) * sizeof(*t->ev));
    t->off = malloc((events + 1) * sizeof(*t->off));
    t->entry = malloc((map + 1) * sizeof(*t->entry));
    o.map = malloc((map + 1) * sizeof(*o.map));
    if (!t->ev || !t->off || !t->entry || !o.map)
        return err_sys(e, ENOMEM, "trace construction");
    memset(o.map, 0xff, (map + 1) * sizeof(*o.map));
    int r = 0;
    switch (order) {
    case ORDER_RR:
        order_rr(&o, burst);
        break;
    case ORDER_RAND:
        r = order_rand(&o, burst, seed);
        break;
    case ORDER_ORIG:
        order_orig(&o);
        break;
    }
    if (r < 0)
        return err_sys(e, -r, "trace construction");
    t->n_gids = o.copies_from + (uint32_t)(total > real ? total : b->n_gids - o.copies_from);
    t->cc = TAKE(b->cc);
    t->n_cc = b->n_cc;
    t->slpt = TAKE(b->slpt);
    t->n_slpt = b->n_slpt;
    t->head.rules = b->rules;
    t->head.order = order;
    t->head.burst = burst;
    t->head.seed = seed;
    t->head.replicate = replicate;
    t->head.tenants = total;
    r = trace_keys(t, e);
    if (r < 0)
        return r;
    t->head.devices = t->n_sids;
    *ret = TAKE(t);
    return 0;
}

/* ---------------------------------------------------------------- a recipe */

void build_report_clear(struct build_report *r)
{
    for (size_t i = 0; i < r->n_logs; i++)
        free(r->logs[i].path);
    free(r->logs);
    memset(r, 0, sizeof(*r));
}

int build_trace(const struct recipe *r, const struct build_hooks *hooks, struct trace **ret,
                struct build_report *rep, struct err *e)
{
    CLEANUP(builder_free) struct builder *b = NULL;
    CLEANUP(build_report_clear) struct build_report none = { 0 };
    if (!rep)
        rep = &none;
    memset(rep, 0, sizeof(*rep));
    if (!r->n_logs)
        return err_set(e, SF_EUSAGE, "logs: none given");
    if (!r->devices_per_log)
        return err_set(e, SF_EUSAGE, "devices_per_log: 0 devices make no trace");
    int s = builder_new(r->rules, hooks, &b, e);
    if (s < 0)
        return s;
    b->rep = rep;
    rep->logs = calloc(r->n_logs, sizeof(*rep->logs));
    if (!rep->logs)
        return err_sys(e, ENOMEM, "trace construction");
    uint64_t left = r->tenants ? r->tenants : UINT64_MAX;
    for (size_t i = 0; i < r->n_logs && left; i++) {
        const struct recipe_log *l = &r->logs[i];
        CLEANUP(freep) char *path = NULL;
        if (l->path && strcmp(l->path, RECIPE_COLLECT) != 0) {
            path = strdup(l->path);
            if (!path)
                return err_sys(e, ENOMEM, "trace construction");
        } else if (l->have_id && hooks && hooks->resolve) {
            s = hooks->resolve(hooks->user, l, &path, e);
            if (s < 0)
                return s;
        } else if (l->path) {
            return err_set(e, SF_EUSAGE, "logs: %s has a meaning in a sweep only", l->path);
        } else {
            return err_set(e, SF_EUSAGE, "logs: log %zu has neither path nor known id", i);
        }
        struct build_log *log = &rep->logs[rep->n_logs++];
        uint64_t valid = left < r->devices_per_log ? left : r->devices_per_log, seen;
        log->id = l->id;
        log->have_id = l->have_id;
        log->path = strdup(path);
        if (!log->path)
            return err_sys(e, ENOMEM, "trace construction");
        note(b, BUILD_VALID, valid, i, 0, NULL);
        s = builder_log(b, path, valid, log, &seen, e);
        if (s < 0)
            return s;
        if (seen > valid && r->rules == RULES_MODEL)
            return err_set(e, SF_EFORMAT, "%s: shows %llu domains on at most %llu devices", path,
                           (unsigned long long)seen, (unsigned long long)valid);
        if (r->tenants)
            left -= seen;
    }
    CLEANUP(trace_free) struct trace *t = NULL;
    if (!b->n)
        return err_set(e, SF_EFORMAT, "%s: no translation of a device in slots 2 to %llu",
                       rep->logs[0].path, (unsigned long long)r->devices_per_log + 1);
    s = builder_finish(b, r->order, r->burst, r->seed, r->tenants, r->replicate, &t, e);
    if (s < 0)
        return s;
    *ret = TAKE(t);
    return 0;
}
