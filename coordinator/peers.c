#include "coordinator/peers.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/list.h"
#include "coordinator/map.h"

enum { BARRED = 6 };

struct peer_agent {
    uint64_t num;
    bool serves;
    unsigned load;    /* who fetches from it now */
    unsigned fetches; /* of its own */
    size_t n_held;
    struct list held; /* of struct held, by_agent */
};

struct artefact {
    struct id id;
    struct list held;      /* of struct held, by_artefact */
    struct artefact *next; /* of equal first bytes */
};

/* An agent has an artefact, or fetches it. */
struct held {
    struct peer_agent *agent;
    struct artefact *artefact;
    struct list by_agent, by_artefact;
    bool whole, damaged;
    bool fetching;           /* until it is whole; from is valid */
    struct held *from;       /* NULL = the coordinator */
    unsigned children;       /* that have from == this */
    uint64_t barred[BARRED]; /* agents that failed it */
    unsigned n_barred;
};

struct peers {
    struct map agents;    /* number -> peer_agent */
    struct map artefacts; /* first 8 bytes of the id -> artefact */
    size_t n_held;
};

struct peers *peers_new(void)
{
    return calloc(1, sizeof(struct peers));
}

static uint64_t key_of(const struct id *id)
{
    uint64_t k;
    memcpy(&k, id->b, sizeof(k));
    return k;
}

static struct peer_agent *find_agent(const struct peers *p, uint64_t num)
{
    return map_get(&p->agents, num);
}

static struct artefact *find_artefact(const struct peers *p, const struct id *id)
{
    struct artefact *a = map_get(&p->artefacts, key_of(id));
    while (a && !id_eq(&a->id, id))
        a = a->next;
    return a;
}

static struct held *find_held(const struct peer_agent *g, const struct artefact *a)
{
    if (!g || !a)
        return NULL;
    LIST_EACH(l, next, &a->held)
    {
        struct held *h = LIST_OF(l, struct held, by_artefact);
        if (h->agent == g)
            return h;
    }
    return NULL;
}

static struct peer_agent *need_agent(struct peers *p, uint64_t num)
{
    struct peer_agent *g = find_agent(p, num);
    if (g || !num)
        return g;
    g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->num = num;
    list_init(&g->held);
    if (map_put(&p->agents, num, g) < 0) {
        free(g);
        return NULL;
    }
    return g;
}

static struct artefact *need_artefact(struct peers *p, const struct id *id)
{
    struct artefact *a = find_artefact(p, id);
    if (a)
        return a;
    a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    a->id = *id;
    list_init(&a->held);
    struct artefact *first = map_get(&p->artefacts, key_of(id));
    if (first) { /* behind the one that the map names */
        a->next = first->next;
        first->next = a;
    } else if (map_put(&p->artefacts, key_of(id), a) < 0) {
        free(a);
        return NULL;
    }
    return a;
}

/* An artefact that nobody has or fetches is no longer remembered; the one that the map names only as the last of its chain. */
static void tidy(struct peers *p, struct artefact *a)
{
    if (!a || !list_empty(&a->held))
        return;
    struct artefact *first = map_get(&p->artefacts, key_of(&a->id));
    if (first != a) {
        struct artefact *before = first;
        while (before->next != a)
            before = before->next;
        before->next = a->next;
        free(a);
        a = first;
    }
    if (!a->next && list_empty(&a->held)) {
        map_del(&p->artefacts, key_of(&a->id));
        free(a);
    }
}

/* It fetches no longer from where it fetched. */
static void detach(struct held *h)
{
    if (h->fetching && h->from) {
        h->from->children--;
        h->from->agent->load--;
    }
    h->agent->fetches -= h->fetching;
    h->fetching = false;
    h->from = NULL;
}

/* Whoever fetches from h goes on there, or asks again: it is not counted any more. */
static void drop(struct peers *p, struct held *h)
{
    struct artefact *a = h->artefact;
    detach(h);
    LIST_EACH(l, next, &a->held)
    {
        struct held *child = LIST_OF(l, struct held, by_artefact);
        if (child->fetching && child->from == h) {
            h->agent->load--;
            child->from = NULL;
        }
    }
    list_del(&h->by_agent);
    list_del(&h->by_artefact);
    h->agent->n_held--;
    p->n_held--;
    free(h);
    tidy(p, a);
}

/* Room for one more: of an agent's, what it has and nobody fetches from it goes first. */
static struct held *need_held(struct peers *p, uint64_t num, const struct id *id)
{
    struct peer_agent *g = need_agent(p, num);
    struct held *h = find_held(g, find_artefact(p, id));
    if (h || !g)
        return h;
    if (g->n_held >= PEERS_HELD_AGENT || p->n_held >= PEERS_HELD)
        LIST_EACH(l, next, &g->held)
        {
            struct held *old = LIST_OF(l, struct held, by_agent);
            if (!old->children && !old->fetching) {
                drop(p, old);
                break;
            }
        }
    if (g->n_held >= PEERS_HELD_AGENT || p->n_held >= PEERS_HELD)
        return NULL;
    struct artefact *a = need_artefact(p, id);
    h = a ? calloc(1, sizeof(*h)) : NULL;
    if (!h) {
        tidy(p, a);
        return NULL;
    }
    h->agent = g;
    h->artefact = a;
    list_add(&g->held, &h->by_agent);
    list_add(&a->held, &h->by_artefact);
    g->n_held++;
    p->n_held++;
    return h;
}

void peers_serves(struct peers *p, uint64_t agent, bool can)
{
    struct peer_agent *g = need_agent(p, agent);
    if (g)
        g->serves = can;
}

void peers_has(struct peers *p, uint64_t agent, const struct id *id)
{
    struct held *h = need_held(p, agent, id);
    if (!h)
        return;
    detach(h);
    if (!h->whole)
        h->damaged = false; /* what it has now was verified */
    h->whole = true;
    h->n_barred = 0;
}

void peers_lost(struct peers *p, uint64_t agent, const struct id *id)
{
    struct held *h = find_held(find_agent(p, agent), find_artefact(p, id));
    if (h)
        drop(p, h);
}

void peers_idle(struct peers *p, uint64_t agent)
{
    struct peer_agent *g = find_agent(p, agent);
    if (!g || !g->fetches)
        return;
    LIST_EACH(l, next, &g->held)
    {
        struct held *h = LIST_OF(l, struct held, by_agent);
        if (!h->whole)
            drop(p, h);
    }
}

void peers_anew(struct peers *p, uint64_t agent)
{
    struct peer_agent *g = find_agent(p, agent);
    if (!g)
        return;
    LIST_EACH(l, next, &g->held)
    {
        struct held *h = LIST_OF(l, struct held, by_agent);
        if (h->whole)
            drop(p, h);
    }
}

void peers_gone(struct peers *p, uint64_t agent)
{
    struct peer_agent *g = find_agent(p, agent);
    if (!g)
        return;
    while (!list_empty(&g->held))
        drop(p, LIST_OF(g->held.next, struct held, by_agent));
    map_del(&p->agents, agent);
    free(g);
}

/* How many agents stand between h and the coordinator or a whole copy; UINT32_MAX when `not` is among them. */
static unsigned depth(const struct held *h, const struct held * not )
{
    unsigned n = 0;
    for (; h; h = h->fetching ? h->from : NULL, n++)
        if (h == not || n > PEERS_DEPTH)
            return UINT32_MAX;
    return n;
}

static bool barred(const struct held *h, uint64_t agent)
{
    for (unsigned i = 0; i < h->n_barred; i++)
        if (h->barred[i] == agent)
            return true;
    return false;
}

/* The least busy one; of equals the one nearest to a whole copy. */
static struct held *choose(const struct held *me)
{
    struct held *best = NULL;
    unsigned best_depth = 0;
    LIST_EACH(l, next, &me->artefact->held)
    {
        struct held *h = LIST_OF(l, struct held, by_artefact);
        if (h == me || h->damaged || !h->agent->serves || h->agent->load >= PEERS_LOAD ||
            !(h->whole || h->fetching) || h->children >= (h->whole ? PEERS_SERVE : 1) ||
            barred(me, h->agent->num))
            continue;
        unsigned d = depth(h, me);
        if (d > PEERS_DEPTH)
            continue;
        if (!best || h->children < best->children ||
            (h->children == best->children && (h->whole != best->whole ? h->whole
                                               : h->whole ? h->agent->load < best->agent->load
                                                          : d < best_depth))) {
            best = h;
            best_depth = d;
        }
    }
    return best;
}

uint64_t peers_ask(struct peers *p, uint64_t agent, const struct id *id, uint64_t failed,
                   bool damaged, bool direct)
{
    struct held *h = need_held(p, agent, id);
    if (!h)
        return 0;
    detach(h);
    h->whole = false; /* it would not ask */
    struct held *bad = failed ? find_held(find_agent(p, failed), h->artefact) : NULL;
    if (failed && !barred(h, failed)) {
        if (h->n_barred == BARRED)
            memmove(h->barred, h->barred + 1, --h->n_barred * sizeof(h->barred[0]));
        h->barred[h->n_barred++] = failed;
    }
    if (bad && damaged)
        bad->damaged = true;
    struct held *from = direct || h->n_barred == BARRED ? NULL : choose(h);
    h->fetching = true;
    h->agent->fetches++;
    h->from = from;
    if (!from)
        return 0;
    from->children++;
    from->agent->load++;
    return from->agent->num;
}

uint64_t peers_source(const struct peers *p, uint64_t agent, const struct id *id)
{
    const struct held *h = find_held(find_agent(p, agent), find_artefact(p, id));
    return h && h->fetching && h->from ? h->from->agent->num : 0;
}

size_t peers_children(const struct peers *p, uint64_t agent, const struct id *id,
                      uint64_t ret[PEERS_SERVE])
{
    const struct artefact *a = find_artefact(p, id);
    const struct held *h = find_held(find_agent(p, agent), a);
    size_t n = 0;
    if (!h)
        return 0;
    LIST_EACH(l, next, &a->held)
    {
        const struct held *c = LIST_OF(l, struct held, by_artefact);
        if (c->fetching && c->from == h && n < PEERS_SERVE)
            ret[n++] = c->agent->num;
    }
    return n;
}

size_t peers_held(const struct peers *p)
{
    return p->n_held;
}

const char *peers_check(const struct peers *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->agents.room; i++) {
        uint64_t num = p->agents.slot[i].key;
        struct peer_agent *g = map_get(&p->agents, num);
        if (!g || p->agents.slot[i].val != g)
            continue;
        size_t of_agent = 0;
        unsigned load = 0, fetches = 0;
        LIST_EACH(l, next, &g->held)
        {
            struct held *h = LIST_OF(l, struct held, by_agent);
            unsigned children = 0;
            of_agent++;
            LIST_EACH(m, after, &h->artefact->held)
            {
                struct held *c = LIST_OF(m, struct held, by_artefact);
                children += c->fetching && c->from == h;
            }
            if (h->whole && h->fetching)
                return "whole and fetching";
            if (h->from && !h->fetching)
                return "a source without a fetch";
            if (children != h->children)
                return "children";
            if (children > PEERS_SERVE)
                return "too many children";
            if (h->fetching && depth(h, NULL) == UINT32_MAX)
                return "a circle";
            load += children;
            fetches += h->fetching;
        }
        if (load != g->load)
            return "load";
        if (fetches != g->fetches)
            return "fetches";
        if (of_agent != g->n_held || of_agent > PEERS_HELD_AGENT)
            return "pairs of an agent";
        n += of_agent;
    }
    return n == p->n_held && n <= PEERS_HELD ? NULL : "pairs";
}

void peers_free(struct peers **pp)
{
    struct peers *p = *pp;
    if (!p)
        return;
    *pp = NULL;
    for (size_t i = 0; i < p->agents.room; i++) {
        uint64_t num = p->agents.slot[i].key;
        if (p->agents.slot[i].val && p->agents.slot[i].val == map_get(&p->agents, num))
            peers_gone(p, num);
    }
    map_clear(&p->agents);
    map_clear(&p->artefacts);
    free(p);
}
