/* Tells the coordinator which artefacts this agent has, so that it can send other agents here. */
#include <stdlib.h>
#include <string.h>

#include "agent/agent_in.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"

enum { HELD_MAX = 4096, TELL_MS = 100 };

static int by_use(const void *a, const void *b)
{
    const struct cas_item *x = a, *y = b;
    return x->used_ms < y->used_ms ? 1 : x->used_ms > y->used_ms ? -1 : id_cmp(&x->id, &y->id);
}

static int by_id(const void *a, const void *b)
{
    return id_cmp(&((const struct wire_held *)a)->id, &((const struct wire_held *)b)->id);
}

/* What is here, by id; of too many those that were used last. Owned; NULL without memory. */
static struct wire_held *held(const struct agent *a, size_t *ret_n)
{
    const struct cas_item *v;
    size_t n = cas_list(a->cas, &v), k = 0;
    CLEANUP(freep) struct cas_item *w = malloc((n + 1) * sizeof(*w));
    if (!w)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!v[i].gone && v[i].size_b >= BULK_MIN_B) /* of smaller ones each gets its own */
            w[k++] = v[i];
    if (k > HELD_MAX) {
        qsort(w, k, sizeof(*w), by_use);
        k = HELD_MAX;
    }
    struct wire_held *h = malloc((k + 1) * sizeof(*h));
    for (size_t i = 0; h && i < k; i++)
        h[i].id = w[i].id;
    if (h && k)
        qsort(h, k, sizeof(*h), by_id);
    *ret_n = k;
    return h;
}

/* Which of v are not in w. */
static size_t without(const struct wire_held *v, size_t n, const struct wire_held *w, size_t m,
                      struct wire_held *out)
{
    size_t k = 0, j = 0;
    for (size_t i = 0; i < n; i++) {
        while (j < m && id_cmp(&w[j].id, &v[i].id) < 0)
            j++;
        if (j == m || !id_eq(&w[j].id, &v[i].id))
            out[k++] = v[i];
    }
    return k;
}

void agent_holds_up(struct agent *a)
{
    a->holds.anew = true;
}

void agent_holds_clear(struct agent *a)
{
    free(a->holds.told);
    a->holds.told = NULL;
    a->holds.n_told = 0;
}

void agent_holds_tell(struct agent *a)
{
    struct holds *s = &a->holds;
    const struct cas_item *v;
    uint64_t now = clock_mono_ms(), bytes = cas_bytes(a->cas);
    size_t n = cas_list(a->cas, &v);
    if (!a->welcomed || !(a->features & WIRE_PEERS) || !a->bulk || !bulk_port(a->bulk) ||
        !link_is_up(a->link) || now < s->next_ms ||
        (!s->anew && n == s->seen_n && bytes == s->seen_b))
        return;
    s->next_ms = now + TELL_MS;
    if (s->anew)
        agent_holds_clear(a);
    size_t n_now;
    CLEANUP(freep) struct wire_held *here = held(a, &n_now);
    CLEANUP(freep) struct wire_held *has = malloc((HELD_MAX + 1) * sizeof(*has));
    CLEANUP(freep) struct wire_held *gone = malloc((HELD_MAX + 1) * sizeof(*gone));
    if (!here || !has || !gone)
        return;
    struct msg m = { .type = M_HOLDS };
    m.holds.all = s->anew;
    m.holds.has = has;
    m.holds.n_has = without(here, n_now, s->told, s->n_told, has);
    m.holds.gone = gone;
    m.holds.n_gone = without(s->told, s->n_told, here, n_now, gone);
    if ((s->anew || m.holds.n_has || m.holds.n_gone) &&
        link_send(a->link, COORDINATOR, &m, NULL) < 0)
        return; /* later */
    free(s->told);
    s->told = TAKE(here);
    s->n_told = n_now;
    s->seen_n = n;
    s->seen_b = bytes;
    s->anew = false;
}
