/* Bugs on purpose: each must be caught by a plan in schedules/ (those with `expect`), or the rules are worth nothing.
 *
 *   sync-lies         a disk says that it synced and did not (disk.c)
 *   names-unsynced    the same for folders only (disk.c)
 *   commit-late       the coordinator answers before its transaction is committed
 *   epoch-stays       the epoch is not raised at a start
 *   lease-forever     silent agents keep their tasks
 *   attempt-reused    every try of a task has the number 1
 *   cancel-forgotten  a cancelled sweep goes on
 *   cancel-unheard    an agent does not end what is cancelled, though a cancel and each beat's answer say so (check.c)
 *   hold-unheard, drain-unheard   a hold, a drain changes nothing
 *   orphans-early     what agents may still claim after a start is given to others
 *   canary-unheard    an agent gets work whatever its canary said
 *   differing-silent  a result that differs is taken for an equal one (check.c)
 *   stream-early      what has come of a log that grows is called durable before it is synced
 *   chunk-wrong       other bytes are written than were verified
 *   chunk-forgotten   a chunk that was written is not remembered, once a transfer
 *   bulk-left         bulk connections are not ended
 */
#include <stdlib.h>
#include <string.h>

#include "coordinator/store.h"
#include "proto/base/clean.h"
#include "proto/cas/grow.h"
#include "proto/xfer/xfer.h"
#include "tests/sim/mutants.h"
#include "tests/sim/sim.h"

bool mutant(const char *name)
{
    return sim_mutant && !strcmp(sim_mutant, name);
}

static bool uncommitted;
static struct id forgotten; /* of which a chunk was */
bool mutant_lies;

void mutants_begin(void)
{
    uncommitted = false;
    forgotten = (struct id){ 0 };
}

int __real_store_begin(struct store *st, struct err *e);
int __wrap_store_begin(struct store *st, struct err *e);
int __wrap_store_begin(struct store *st, struct err *e)
{
    if (uncommitted) {
        uncommitted = false;
        int r = __real_store_commit(st, e);
        if (r < 0)
            return r;
    }
    return __real_store_begin(st, e);
}

int __wrap_store_commit(struct store *st, struct err *e)
{
    if (!mutant("commit-late"))
        return __real_store_commit(st, e);
    uncommitted = true;
    return 0;
}

int __real_store_set(struct store *st, const char *key, uint64_t value, struct err *e);
int __wrap_store_set(struct store *st, const char *key, uint64_t value, struct err *e);
int __wrap_store_set(struct store *st, const char *key, uint64_t value, struct err *e)
{
    if (mutant("epoch-stays") && !strcmp(key, "epoch"))
        return 0;
    return __real_store_set(st, key, value, e);
}

int __real_cas_grow_sync(struct cas_grow *g, struct err *e);
int __wrap_cas_grow_sync(struct cas_grow *g, struct err *e);
int __wrap_cas_grow_sync(struct cas_grow *g, struct err *e)
{
    mutant_lies = mutant("stream-early");
    int r = __real_cas_grow_sync(g, e);
    mutant_lies = false;
    return r;
}

int __real_cas_put_write(struct cas_put *p, uint64_t index, const void *data, size_t n,
                         struct err *e);
int __wrap_cas_put_write(struct cas_put *p, uint64_t index, const void *data, size_t n,
                         struct err *e);
int __wrap_cas_put_write(struct cas_put *p, uint64_t index, const void *data, size_t n,
                         struct err *e)
{
    CLEANUP(freep) uint8_t *other = mutant("chunk-wrong") && index == 1 ? malloc(n) : NULL;
    if (!other)
        return __real_cas_put_write(p, index, data, n, e);
    memcpy(other, data, n);
    other[n / 2] ^= 1;
    return __real_cas_put_write(p, index, other, n, e);
}

bool mutant_transfer(const struct xfer_recv *x, const struct xfer_event *ev)
{
    if (!mutant("chunk-forgotten") || ev->kind != XFER_EV_WROTE || ev->index != 1 ||
        id_eq(&x->id, &forgotten))
        return false;
    forgotten = x->id;
    return true;
}

bool mutant_event(struct sched *s, const struct sched_event *ev, uint64_t now_ms)
{
    if ((mutant("cancel-forgotten") && ev->type == EV_CANCEL_SWEEP) ||
        (mutant("hold-unheard") && ev->type == EV_HOLD) ||
        (mutant("drain-unheard") && ev->type == EV_DRAIN))
        return true;
    if (mutant("canary-unheard") && ev->type == EV_CANARY_OVER) {
        struct sched_agent *a = sched_agent(s, ev->agent.install);
        if (a)
            a->canary = 0;
        return true;
    }
    for (uint64_t num = 1; mutant("lease-forever") && num < s->cfg.next_task; num++) {
        struct sched_task *t = sched_task(s, num);
        if (t && t->state == TASK_LEASED)
            t->lease_ms = now_ms + 60000;
    }
    for (uint64_t num = 1; mutant("orphans-early") && num < s->cfg.next_task; num++) {
        struct sched_task *t = sched_task(s, num);
        if (t && t->state == TASK_ORPHAN)
            t->lease_ms = 0;
    }
    return false;
}

void mutant_actions(struct sched_actions *out)
{
    for (size_t i = 0; mutant("attempt-reused") && i < out->n; i++)
        if (out->v[i].type == ACT_GRANT)
            out->v[i].n = 1;
}
