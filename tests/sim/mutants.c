/* Bugs on purpose: each must be caught by a plan in schedules/ (those with `expect`), or the rules are worth nothing.
 *
 *   sync-lies         a disk says that it synced and did not (disk.c)
 *   names-unsynced    the same for folders only (disk.c)
 *   commit-late       the coordinator answers before its transaction is committed
 *   epoch-stays       the epoch is not raised at a start
 *   lease-forever     silent agents keep their tasks
 *   attempt-reused    every try of a task has the number 1
 *   cancel-forgotten  a cancelled sweep goes on
 */
#include <string.h>

#include "coordinator/store.h"
#include "tests/sim/mutants.h"
#include "tests/sim/sim.h"

bool mutant(const char *name)
{
    return sim_mutant && !strcmp(sim_mutant, name);
}

static bool uncommitted;

void mutants_begin(void)
{
    uncommitted = false;
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

bool mutant_event(struct sched *s, const struct sched_event *ev, uint64_t now_ms)
{
    if (mutant("cancel-forgotten") && ev->type == EV_CANCEL_SWEEP)
        return true;
    for (uint64_t num = 1; mutant("lease-forever") && num < s->cfg.next_task; num++) {
        struct sched_task *t = sched_task(s, num);
        if (t && t->state == TASK_LEASED)
            t->lease_ms = now_ms + 60000;
    }
    return false;
}

void mutant_actions(struct sched_actions *out)
{
    for (size_t i = 0; mutant("attempt-reused") && i < out->n; i++)
        if (out->v[i].type == ACT_GRANT)
            out->v[i].n = 1;
}
