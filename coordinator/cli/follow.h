/* Follow what runs on the fleet to its end: a sweep, a job. */
#pragma once
#include "coordinator/cli/fleet_run.h"

/* How far it is. */
struct follow_at {
    const char *unit; /* static */
    uint64_t over, total;
};

struct follow {
    const char *what; /* the question of `ask` about it, and its word for people: "sweep", "job" */
    const char *id;
    uint64_t deadline_ms; /* 0 = none */
    uint64_t quiet_ms;    /* what is over sooner needs no progress line; UINT64_MAX = none at all */
    bool told;            /* what it waits for is said without a progress line, too */
    void (*at)(const json_t *doc, struct follow_at *ret);
    /* Sees each document; a negative return ends the following with that. May be NULL. */
    int (*tick)(void *ctx, const json_t *doc, struct err *e);
    void *ctx;
};

/* Until it has ended, over restarts of its coordinator too: progress on stderr, and what it waits for besides its turn, if so. *ret: the
 * last document (new reference, also on failure when there was one). Returns 0 when it ended (however), -ECANCELED on a
 * signal, -ETIMEDOUT at the deadline. */
int follow(struct client *cl, const struct follow *f, json_t **ret, struct err *e);
/* Done, failed, cancelled; or in quarantine: only a person lets that go on. */
bool follow_ended(const char *state);
