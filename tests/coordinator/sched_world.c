#include "tests/coordinator/sched_world.h"

#include <criterion/criterion.h>
#include <string.h>

uint64_t plan_trace(void *ctx, uint64_t i)
{
    return i / ((struct world *)ctx)->trace_points;
}

uint64_t plan_end(void *ctx, uint64_t i)
{
    return (i / ((struct world *)ctx)->trace_points + 1) * ((struct world *)ctx)->trace_points;
}

void world_init(struct world *w, uint64_t epoch)
{
    *w = (struct world){ .now = 1000, .trace_points = 1000000 };
    sched_init(&w->s, &(struct sched_cfg){ .epoch = epoch, .lease_ms = LEASE, .seed = 7 }, w->now);
}

void world_clear(struct world *w)
{
    sched_clear(&w->s);
    sched_actions_clear(&w->out);
}

int step(struct world *w, const struct sched_event *ev)
{
    w->e.code = 0;
    int r = sched_step(&w->s, ev, w->now, &w->out, &w->e);
    struct err e = { 0 };
    cr_assert_eq(sched_check(&w->s, &e), 0, "after event %d: %s", ev->type, e.text);
    return r;
}

int fresh(struct world *w, const struct sched_event *ev)
{
    sched_actions_reset(&w->out);
    return step(w, ev);
}

void tick(struct world *w)
{
    cr_assert_eq(fresh(w, &(struct sched_event){ .type = EV_TICK }), 0);
}

const struct sched_action *action(const struct world *w, enum sched_action_type t, size_t nth)
{
    for (size_t i = 0; i < w->out.n; i++)
        if (w->out.v[i].type == t && !nth--)
            return &w->out.v[i];
    return NULL;
}

size_t actions(const struct world *w, enum sched_action_type t)
{
    size_t n = 0;
    for (size_t i = 0; i < w->out.n; i++)
        n += w->out.v[i].type == t;
    return n;
}

struct sched_event agent_event(enum sched_event_type t, int no, uint64_t boot, uint32_t cores)
{
    struct sched_event ev = { .type = t,
                              .agent = { .boot = boot, .cores = cores, .accept = true } };
    memset(ev.agent.install, no, 16);
    return ev;
}

int hello(struct world *w, int no, uint64_t boot, uint32_t cores)
{
    struct sched_event ev = agent_event(EV_HELLO, no, boot, cores);
    return fresh(w, &ev);
}

int beat(struct world *w, int no, uint64_t boot, const struct sched_ref *refs, size_t n)
{
    struct sched_event ev = agent_event(EV_BEAT, no, boot, 0);
    ev.agent.refs = refs;
    ev.agent.n_refs = n;
    return fresh(w, &ev);
}

struct sched_agent *agent(struct world *w, int no)
{
    uint8_t install[16];
    memset(install, no, 16);
    return sched_agent(&w->s, install);
}

struct id key_of(unsigned no)
{
    struct id k = { { 0 } };
    for (unsigned i = 0; i < 8; i++)
        k.b[i] = (uint8_t)(no * 37 + i);
    return k;
}

int sweep(struct world *w, uint64_t seq, uint64_t points, uint32_t n_traces, unsigned first_key,
          bool build, uint64_t block, uint32_t retries, uint64_t priority)
{
    struct id key[64];
    bool b[64], ready[64];
    for (uint32_t i = 0; i < n_traces; i++) {
        key[i] = key_of(first_key + i);
        b[i] = build;
        ready[i] = !build;
    }
    struct sched_event ev = { .type = EV_SWEEP,
                              .sweep = { .seq = seq,
                                         .points = points,
                                         .block = block,
                                         .retries = retries,
                                         .priority = priority,
                                         .plan = { w, plan_trace, plan_end },
                                         .key = key,
                                         .build = b,
                                         .ready = ready,
                                         .n_traces = n_traces } };
    return fresh(w, &ev);
}

int point(struct world *w, uint64_t seq, uint64_t i, const struct sched_action *by)
{
    struct sched_event ev = { .type = EV_POINT,
                              .point = { .sweep = seq, .index = i, .duration_us = 50000 } };
    if (by) {
        ev.point.task = by->task;
        ev.point.epoch = by->epoch;
        ev.point.n = by->n;
    }
    return step(w, &ev);
}

int task_end(struct world *w, const struct sched_action *g, const char *cause)
{
    return step(w, &(struct sched_event){ .type = EV_END,
                                          .end = { g->task, g->epoch, g->n, cause, NULL } });
}

void all_points(struct world *w, const struct sched_action *g, const struct span *spans)
{
    for (size_t k = 0; k < g->count; k++)
        for (uint64_t i = spans[k].lo; i < spans[k].hi; i++)
            cr_assert_eq(point(w, g->sweep, i, g), 0);
}

bool given(const struct world *w, size_t nth, struct given *g)
{
    const struct sched_action *a = action(w, ACT_GRANT, nth);
    if (!a)
        return false;
    g->a = *a;
    cr_assert_leq(a->count, 64);
    if (a->count)
        memcpy(g->spans, w->out.spans + a->first, a->count * sizeof(struct span));
    return true;
}

uint64_t n_points(const struct given *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < g->a.count; i++)
        n += g->spans[i].hi - g->spans[i].lo;
    return n;
}

struct sched_ref ref_of(const struct given *g, unsigned state)
{
    return (struct sched_ref){ g->a.task, g->a.epoch, g->a.n, state };
}

void runs_on(struct world *w, int no, uint64_t boot, struct given *g)
{
    for (int i = 0; i < 200; i++) {
        tick(w);
        if (given(w, 0, g))
            break;
        w->now += 500;
        beat(w, no, boot, NULL, 0);
    }
    struct sched_ref ref = ref_of(g, 2);
    cr_assert_eq(beat(w, no, boot, &ref, 1), 0);
}
