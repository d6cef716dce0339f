/* A plan: all that happens to a fleet from outside, as a list of events. A run is a function of its plan alone, so a
 * failing plan can be printed, read again, and made smaller by leaving events out. Form of the file: README.md.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"

enum { PLAN_EVENTS_MAX = 400, PLAN_SWEEPS_MAX = 6, PLAN_ARGS = 4, PLAN_POINTS_MAX = 4096 };

enum plan_verb {
#define PLAN_VERBS(X)                                                                              \
    X(submit, "s")                                                                                 \
    X(cancel, "s")                                                                                 \
    X(hold, "sn")                                                                                  \
    X(retry, "s")                                                                                  \
    X(free, "")                                                                                    \
    X(collect, "nn")                                                                               \
    X(twin, "hn")                                                                                  \
    X(rot, "hn")                                                                                   \
    X(drain, "hn")                                                                                 \
    X(exec, "nnn")                                                                                 \
    X(canceljob, "")                                                                               \
    X(kill, "hn")                                                                                  \
    X(power, "hnn")                                                                                \
    X(stop, "hn")                                                                                  \
    X(freeze, "hn") X(slow, "hnn") X(clock, "hi") X(cut, "hhn") X(loss, "hhn") X(dup, "hhnn")      \
        X(delay, "hhnn") X(reset, "h") X(enospc, "hnn") X(eio, "hnn") X(torn, "hnn")               \
            X(nosync, "hnn") X(killop, "hnn") X(powerop, "hnn") X(full, "hn") X(killtask, "h")     \
                X(hang, "hn") X(bad, "hn") X(wrong, "hn") X(poison, "nnw")
#define X(name, args) PLAN_##name,
    PLAN_VERBS(X)
#undef X
        PLAN_VERB_COUNT
};

/* Arguments by letter: s sweep number, h host number, n number, i signed number, w how a poisoned point ends (poison_*). */
struct plan_event {
    uint64_t ms;
    enum plan_verb verb;
    int64_t arg[PLAN_ARGS];
};

enum poison { POISON_EXIT, POISON_SIGNAL, POISON_HANG, POISON_HOST };
extern const char *const poison_names[];

/* Points = recipes x archs: recipe number r has the seed seed + r, arch number a the link of gbps + a Gb/s. Two sweeps
 * that share both share the point: its result is known. */
struct plan_sweep {
    uint64_t seed, recipes, gbps, archs;
    uint64_t block, retries, priority, timeout_ms;
    uint64_t
        by_id; /* 1: traces are artefacts that exist; 2: recipes over the logs of a collection; else over logs */
};

struct plan {
    uint64_t random; /* what randomness the fleet itself uses */
    uint64_t agents, cores, lease_ms, heartbeat_ms;
    uint64_t grain_ms; /* waits of a part last at least so long unless something arrives */
    uint64_t point_ms; /* one core's time for a point */
    uint64_t log_b;    /* size of a log artefact */
    uint64_t cache_b;  /* of an agent's cache; 0 = no cap */
    uint64_t mib_ms;   /* that a wire takes for a MiB */
    uint64_t bulk;     /* 1 = large artefacts go beside the link, also from agent to agent */
    uint64_t
        stream_b;   /* size of a collection's log, written little by little; 0 = small, at once */
    uint64_t fresh; /* 1 = the coordinator's first start, else its store is there */
    struct plan_sweep sweep[PLAN_SWEEPS_MAX];
    unsigned n_sweeps;
    struct plan_event ev[PLAN_EVENTS_MAX]; /* in order of time */
    size_t n_ev;
    uint64_t quiet_ms, end_ms; /* no fault from here on; the run ends */
    char expect[64];           /* mutant that this plan must catch; "" = it must pass */
};

void plan_default(struct plan *p);
int plan_parse(const char *name, const char *text, struct plan *ret, struct err *e);
int plan_text(const struct plan *p, const char *comment, struct buf *out);
int plan_add(struct plan *p, const struct plan_event *ev); /* keeps the order; -ENOSPC */
/* A point of it takes its host along: what holds the point ends in quarantine, and is cancelled in the end. */
bool plan_takes_hosts(const struct plan *p);
const char *plan_host_name(unsigned host, char out[8]);

/* gen.c: the plan of a seed. */
void plan_generate(uint64_t seed, struct plan *ret);
/* shrink.c: leave out and simplify while `fails` says that it still fails. */
void plan_shrink(struct plan *p, bool (*fails)(const struct plan *p, void *ctx), void *ctx);
