/* The plan of a seed: a fleet, its sweeps, and what goes wrong. */
#include "proto/base/rng.h"
#include "tests/sim/plan.h"
#include "tests/sim/sim.h"

static uint64_t between(struct rng *r, uint64_t lo, uint64_t hi)
{
    return lo + rng_below(r, hi - lo + 1);
}

static bool one_in(struct rng *r, uint64_t n)
{
    return rng_below(r, n) == 0;
}

static void add(struct plan *p, uint64_t ms, enum plan_verb verb, int64_t a, int64_t b, int64_t c,
                int64_t d)
{
    plan_add(p, &(struct plan_event){ .ms = ms, .verb = verb, .arg = { a, b, c, d } });
}

static void sweeps(struct plan *p, struct rng *r)
{
    uint64_t n = between(r, 1, 3);
    for (uint64_t i = 0; i < n; i++) {
        struct plan_sweep *w = &p->sweep[p->n_sweeps++];
        *w = (struct plan_sweep){ .seed = between(r, 1, 3),
                                  .recipes = between(r, 1, 3),
                                  .gbps = between(r, 1, 40),
                                  .archs = between(r, 2, 50),
                                  .block = one_in(r, 2) ? 0 : between(r, 1, 12),
                                  .retries = between(r, 1, 4),
                                  .priority = rng_below(r, 3),
                                  .timeout_ms = 1000 * between(r, 20, 60),
                                  .by_id = one_in(r, 4)                     ? 1
                                           : one_in(r, p->stream_b ? 2 : 6) ? 2
                                                                            : 0 };
        uint64_t at = i ? between(r, 0, 60000) : between(r, 0, 2000);
        add(p, at, PLAN_submit, (int64_t)i, 0, 0, 0);
        if (one_in(r, 8))
            add(p, at + between(r, 500, 40000), PLAN_cancel, (int64_t)i, 0, 0, 0);
        if (one_in(r, 6))
            add(p, at + between(r, 500, 20000), PLAN_hold, (int64_t)i,
                (int64_t)between(r, 1000, 30000), 0, 0);
        if (one_in(r, 6))
            add(p, at + between(r, 20000, 60000), PLAN_retry, (int64_t)i, 0, 0, 0);
    }
    for (uint64_t i = between(r, 0, 2); i && one_in(r, 2); i--)
        add(p, between(r, 100, 80000), PLAN_exec, (int64_t)between(r, 0, 12000),
            (int64_t)between(r, 0, 9000), one_in(r, 4) ? 3 : 0, 0);
    for (uint64_t i = between(r, 0, 2); i && one_in(r, 3); i--)
        add(p, between(r, 100, 70000), PLAN_collect, (int64_t)between(r, 1, 5),
            (int64_t)between(r, 100, 9000), 0, 0);
    if (one_in(r, 5)) {
        const struct plan_sweep *w = &p->sweep[rng_below(r, p->n_sweeps)];
        uint64_t how = rng_below(r, POISON_HOST + 1);
        add(p, 0, PLAN_poison, (int64_t)(w->seed + rng_below(r, w->recipes)),
            (int64_t)(w->gbps + rng_below(r, w->archs)), (int64_t)how, 0);
        for (uint64_t i = 0; how == POISON_HANG && i < n; i++)
            p->sweep[i].timeout_ms = 6000; /* each try takes so long */
    }
}

/* Artefacts that are large enough to go beside the link, from agent to agent too, and logs that leave while they grow. */
static void moves(struct plan *p, struct rng *r)
{
    bool streams = one_in(r, 2);
    if (!one_in(r, 3)) /* so slow that what goes wrong meets them */
        p->mib_ms = between(r, 100, 4000);
    p->bulk = !streams || one_in(r, 2);
    if (p->bulk && !one_in(r, 3)) {
        p->agents = between(r, 2, 4);
        p->log_b = between(r, 3 << 20, 6 << 20) + 4096;
        p->cache_b += p->cache_b ? p->log_b : 0;
    }
    if (streams) {
        p->stream_b = between(r, 3 << 20, 10 << 20);
        p->cache_b += p->cache_b ? 2 * p->stream_b : 0;
        add(p, between(r, 100, 60000), PLAN_collect, (int64_t)between(r, 1, 3),
            (int64_t)between(r, 500, 15000), 0, 0);
    }
}

static int64_t agent(const struct plan *p, struct rng *r)
{
    return (int64_t)(FIRST_AGENT_HOST + rng_below(r, p->agents));
}

/* Coordinator as often as all agents together. */
static int64_t host(const struct plan *p, struct rng *r)
{
    return one_in(r, 2) ? COORDINATOR_HOST : agent(p, r);
}

static void net_fault_at(struct plan *p, struct rng *r, uint64_t at)
{
    static const enum plan_verb verbs[] = { PLAN_loss, PLAN_dup, PLAN_delay, PLAN_cut, PLAN_cut };
    enum plan_verb v = verbs[rng_below(r, 5)];
    int64_t a = one_in(r, 8) ? USER_HOST : agent(p, r), c = COORDINATOR_HOST;
    bool back = one_in(r, 2);
    if (p->bulk && one_in(r, 2)) /* between two agents; of one that is alone the coordinator's */
        c = agent(p, r) == a ? c : agent(p, r);
    int64_t from = back ? c : a, to = back ? a : c;
    int64_t len = (int64_t)(one_in(r, 3) ? between(r, 10000, 30000) : between(r, 200, 8000));
    if (v == PLAN_cut) {
        add(p, at, v, from, to, len, 0);
        if (one_in(r, 2)) /* both ways */
            add(p, at, v, to, from, len, 0);
    } else {
        int64_t n = (int64_t)between(r, 1, 12), late = (int64_t)between(r, 5, 3000);
        add(p, at, v, from, to, n, v == PLAN_loss ? 0 : late);
    }
}

static void disk_fault_at(struct plan *p, struct rng *r, uint64_t at)
{
    static const enum plan_verb verbs[] = { PLAN_enospc, PLAN_eio, PLAN_torn, PLAN_nosync };
    int64_t h = host(p, r);
    if (one_in(r, 4))
        add(p, at, PLAN_full, h, (int64_t)between(r, 500, 15000), 0, 0);
    else
        add(p, at, verbs[rng_below(r, 4)], h, (int64_t)between(r, 1, 4), (int64_t)rng_below(r, 60),
            0);
}

static void crash_at(struct plan *p, struct rng *r, uint64_t at)
{
    int64_t h = host(p, r);
    int64_t down = (int64_t)(one_in(r, 4) ? between(r, 8000, 20000) : between(r, 50, 4000));
    switch (rng_below(r, 5)) {
    case 0:
        add(p, at, PLAN_kill, h, down, 0, 0);
        break;
    case 1:
        add(p, at, PLAN_power, h, down, (int64_t)rng_below(r, 100000), 0);
        if (one_in(r, 3)) /* and once more when it has just come up */
            add(p, at + (uint64_t)down + between(r, 5, 5000), PLAN_power, h,
                (int64_t)between(r, 50, 3000), (int64_t)rng_below(r, 100000), 0);
        break;
    case 2:
        add(p, at, PLAN_killop, h, down, (int64_t)rng_below(r, 80), 0);
        break;
    case 3:
        add(p, at, PLAN_powerop, h, down, (int64_t)rng_below(r, 80), 0);
        break;
    default:
        if (one_in(r, 3))
            add(p, at, PLAN_stop, h, 0, 0, 0);
        else
            add(p, at, PLAN_reset, h, 0, 0, 0);
    }
}

/* A wire that comes and goes; a house without power. */
static void storm_at(struct plan *p, struct rng *r, uint64_t at)
{
    int64_t a = agent(p, r), c = COORDINATOR_HOST;
    if (one_in(r, 2)) {
        for (uint64_t n = between(r, 3, 8), ms = at; n; n--) {
            int64_t len = (int64_t)between(r, 200, 7000);
            bool back = one_in(r, 2);
            add(p, ms, PLAN_cut, back ? c : a, back ? a : c, len, 0);
            if (one_in(r, 2))
                add(p, ms, PLAN_reset, a, 0, 0, 0);
            ms += (uint64_t)len + between(r, 50, 3000);
        }
        return;
    }
    for (uint64_t h = 0; h < FIRST_AGENT_HOST + p->agents; h++)
        if (h != USER_HOST)
            add(p, at + rng_below(r, 300), PLAN_power, (int64_t)h, (int64_t)between(r, 100, 6000),
                (int64_t)rng_below(r, 100000), 0);
}

static void odd_at(struct plan *p, struct rng *r, uint64_t at)
{
    int64_t a = agent(p, r);
    switch (rng_below(r, 10)) {
    case 8:
        add(p, at, PLAN_twin, a, (int64_t)between(r, 1000, 40000), 0, 0);
        break;
    case 9:
        for (uint64_t n = between(r, 1, 4); n; n--)
            add(p, at, PLAN_rot, one_in(r, 4) ? COORDINATOR_HOST : a,
                (int64_t)rng_below(r, 1000000), 0, 0);
        break;
    case 0:
        add(p, at, PLAN_freeze, host(p, r),
            (int64_t)(one_in(r, 2) ? between(r, 500, 5000) : between(r, 9000, 25000)), 0, 0);
        break;
    case 1:
        add(p, at, PLAN_slow, host(p, r), (int64_t)between(r, 2000, 30000),
            (int64_t)between(r, 20, 1500), 0);
        break;
    case 2:
        add(p, at, PLAN_clock, host(p, r),
            (one_in(r, 2) ? 1 : -1) * (int64_t)between(r, 1000, 86400000), 0, 0);
        break;
    case 3:
        add(p, at, PLAN_killtask, a, 0, 0, 0);
        break;
    case 4:
        add(p, at, PLAN_hang, a, (int64_t)between(r, 1000, 40000), 0, 0);
        break;
    case 5:
        add(p, at, PLAN_bad, a, (int64_t)between(r, 500, one_in(r, 3) ? 60000 : 8000), 0, 0);
        break;
    case 6:
        add(p, at, PLAN_wrong, a, (int64_t)between(r, 500, 40000), 0, 0);
        break;
    default:
        add(p, at, PLAN_drain, a, (int64_t)between(r, 1000, 20000), 0, 0);
    }
}

void plan_generate(uint64_t seed, struct plan *p)
{
    struct rng r = { seed * 0x9e3779b97f4a7c15u };
    plan_default(p);
    p->random = rng_u64(&r) >> 20;
    p->agents = between(&r, 1, 4);
    p->cores = between(&r, 1, 4);
    p->point_ms = between(&r, 20, 400);
    p->log_b = one_in(&r, 25) ? between(&r, 1 << 20, 3 << 20) : between(&r, 1, 20000);
    if (one_in(&r, 5)) /* what a task needs has room, little more has */
        p->cache_b = p->log_b + between(&r, 12000, 20000);
    p->fresh = one_in(&r, 10);
    if (one_in(&r, 20))
        moves(p, &r);
    sweeps(p, &r);
    for (unsigned h = 0; h < p->agents; h++) /* what was found bad is mended, and taken back */
        add(p, p->quiet_ms + 5000, PLAN_drain, FIRST_AGENT_HOST + h, 1, 0, 0);
    if (one_in(&r, 20)) { /* nothing but rot: then no point may fail */
        for (uint64_t i = between(&r, 1, 20); i; i--)
            add(p, between(&r, 1000, 60000), PLAN_rot, agent(p, &r),
                (int64_t)rng_below(&r, 1000000), 0, 0);
        return;
    }
    struct rng own = { seed * 0x2545f4914f6cdd1du }; /* the others stay as they were */
    if (one_in(&own, 6))
        add(p, between(&own, 1000, 90000), PLAN_canceljob, 0, 0, 0, 0);
    uint64_t n = one_in(&r, 20) ? 0 : between(&r, 1, 14);
    uint64_t more = p->bulk || p->stream_b ? between(&r, 2, 8) : 0;
    for (uint64_t i = 0; i < n + more; i++) {
        uint64_t at = i < n ? between(&r, 0, 90000) : between(&r, 1000, 40000);
        switch (rng_below(&r, 13)) {
        case 12:
            storm_at(p, &r, at);
            break;
        case 0:
        case 1:
        case 2:
            net_fault_at(p, &r, at);
            break;
        case 3:
        case 4:
        case 5:
            disk_fault_at(p, &r, at);
            break;
        case 6:
        case 7:
        case 8:
            crash_at(p, &r, at);
            break;
        default:
            odd_at(p, &r, at);
        }
    }
}
