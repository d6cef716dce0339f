/* Bugs on purpose, by name: mutants.c. */
#pragma once
#include <stdbool.h>

#include "coordinator/sched.h"
#include "coordinator/store.h"

bool mutant(const char *name);
void mutants_begin(void);
/* Before a step: true = the scheduler never hears of it. Behind it: what it wants done is changed. */
bool mutant_event(struct sched *s, const struct sched_event *ev, uint64_t now_ms);
void mutant_actions(struct sched_actions *out);
struct xfer_recv;
struct xfer_event;
bool mutant_transfer(const struct xfer_recv *x,
                     const struct xfer_event *ev); /* it never hears of it */
extern bool mutant_lies;                           /* a sync is none, now */

int __real_store_commit(struct store *st, struct err *e);
int __wrap_store_commit(struct store *st, struct err *e);
