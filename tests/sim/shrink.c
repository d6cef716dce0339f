/* Delta debugging over a plan's events, then over its settings. */
#include <stddef.h>
#include <string.h>

#include "tests/sim/plan.h"

enum { TRIES_MAX = 1500 };

struct shrinker {
    struct plan *best, next;
    bool (*fails)(const struct plan *p, void *ctx);
    void *ctx;
    unsigned tries;
};

static bool take(struct shrinker *s)
{
    if (s->tries++ >= TRIES_MAX || !s->fails(&s->next, s->ctx))
        return false;
    *s->best = s->next;
    return true;
}

static bool without(struct shrinker *s, size_t at, size_t n)
{
    s->next = *s->best;
    memmove(s->next.ev + at, s->next.ev + at + n, (s->next.n_ev - at - n) * sizeof(*s->next.ev));
    s->next.n_ev -= n;
    return take(s);
}

static void drop_events(struct shrinker *s)
{
    for (size_t n = s->best->n_ev; n; n /= 2)
        for (size_t at = s->best->n_ev; at > 0;) {
            size_t k = at < n ? at : n;
            at -= k;
            without(s, at, k);
        }
}

/* A number towards a smaller one: that itself, else half way. */
static void lower(struct shrinker *s, size_t off, uint64_t to)
{
    for (;;) {
        uint64_t was;
        memcpy(&was, (char *)s->best + off, sizeof(was));
        if (was <= to)
            return;
        s->next = *s->best;
        memcpy((char *)&s->next + off, &to, sizeof(to));
        if (take(s))
            return;
        uint64_t half = to + (was - to) / 2;
        if (half == was)
            return;
        s->next = *s->best;
        memcpy((char *)&s->next + off, &half, sizeof(half));
        if (!take(s))
            return;
    }
}

static const char *const args[] = {
#define X(name, a) a,
    PLAN_VERBS(X)
#undef X
};

/* Arguments that are plain numbers, of all events. */
static void lower_args(struct shrinker *s)
{
    for (size_t i = 0; i < s->best->n_ev; i++)
        for (int k = 0; args[s->best->ev[i].verb][k]; k++)
            if (args[s->best->ev[i].verb][k] == 'n' && s->best->ev[i].verb != PLAN_poison)
                lower(s,
                      offsetof(struct plan, ev) + i * sizeof(struct plan_event) +
                          offsetof(struct plan_event, arg) + (size_t)k * sizeof(int64_t),
                      1);
}

static bool names(const struct plan *p, char kind, unsigned what)
{
    for (size_t i = 0; i < p->n_ev; i++)
        for (int k = 0; args[p->ev[i].verb][k]; k++)
            if (args[p->ev[i].verb][k] == kind && p->ev[i].arg[k] == what)
                return true;
    return false;
}

void plan_shrink(struct plan *p, bool (*fails)(const struct plan *p, void *ctx), void *ctx)
{
    static struct shrinker s;
    s = (struct shrinker){ .best = p, .fails = fails, .ctx = ctx };
    for (size_t was = p->n_ev + 1; was != p->n_ev;) {
        was = p->n_ev;
        drop_events(&s);
    }
    lower_args(&s);
    drop_events(&s);
    while (p->n_sweeps > 1 && !names(p, 's', p->n_sweeps - 1)) {
        s.next = *p;
        s.next.n_sweeps--;
        if (!take(&s))
            break;
    }
    while (p->agents > 1 && !names(p, 'h', 1 + (unsigned)p->agents)) {
        s.next = *p;
        s.next.agents--;
        if (!take(&s))
            break;
    }
    lower(&s, offsetof(struct plan, log_b), 1);
    lower(&s, offsetof(struct plan, cores), 1);
    lower(&s, offsetof(struct plan, mib_ms), 10);
    lower(&s, offsetof(struct plan, bulk), 0);
    lower(&s, offsetof(struct plan, stream_b), 0);
    lower(&s, offsetof(struct plan, cache_b), 0);
    for (unsigned i = 0; i < p->n_sweeps; i++) {
        size_t at = offsetof(struct plan, sweep) + i * sizeof(*p->sweep);
        lower(&s, at + offsetof(struct plan_sweep, recipes), 1);
        lower(&s, at + offsetof(struct plan_sweep, archs), 1);
    }
}
