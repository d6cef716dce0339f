/* Where agents live. A provider has a fixed number of places, each of which holds one agent or none; the verbs of
 * `siofleet deploy` are done to places. SSH: one place a host of HOSTS.ini (host_job.c). A batch system: one place a
 * job that it may run at once; `up` submits, `status` polls, `down` cancels.
 *
 * What all providers share is here: the bounded pool of workers, rolling batches, and the siofleet.deploy/1 document.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/json.h"

enum place_verb {
    PLACE_CHECK, /* could an agent live here? Changes nothing */
    PLACE_UP,    /* an agent runs here afterwards; it did already: nothing changes */
    PLACE_UPGRADE, /* the same with this release, or with the one of before when it does not come up */
    PLACE_STATUS, /* does one run here? Changes nothing */
    PLACE_LOGS,   /* its newest log lines into text */
    PLACE_DOWN    /* nothing of it is left */
};

struct place_result {
    enum { PLACE_OK, PLACE_CHANGED, PLACE_FAILED, PLACE_SKIPPED } status;
    const char *step;  /* static name of the step it ended in */
    int code;          /* positive error code, 0 = none */
    char message[512]; /* of a failure, without the place's name in front */
    char fix[512];     /* what to do about it; "" = nothing known */
    json_t *actions;   /* array of what was (dry run: would be) done; owned */
    json_t *facts;     /* object of what is known about the place; owned; may be NULL */
    char *text;        /* logs; owned; may be NULL */
    uint64_t bytes_sent, ms;
    char version[32]; /* of the release in use, "" = none */
};

struct provider {
    size_t n;                                                    /* places */
    const char *(*name)(const struct provider *p, size_t place); /* borrowed; unique */
    /* Do the verb to one place. *ret comes zeroed but for actions, and tells all: no other failure. Blocks; called
     * from several threads, for different places. */
    void (*run)(const struct provider *p, size_t place, enum place_verb verb,
                struct place_result *ret);
    /* Progress, from any thread: text says what happens at a place. May be NULL. */
    void (*note)(const char *place, const char *text);
};

/* The verb at all places, at most `parallel` (1..256) at once. results: n of them, zeroed; place_result_clear() each. */
void provider_run(const struct provider *p, enum place_verb verb, uint64_t parallel,
                  struct place_result results[]);

/* The same, `batch` places at a time; no further batch after more than max_failures failed: the rest is skipped. */
void provider_roll(const struct provider *p, enum place_verb verb, uint64_t batch,
                   uint64_t max_failures, struct place_result results[]);

/* siofleet.deploy/1. New reference. *ret_failed = places that failed. */
json_t *provider_document(const struct provider *p, const char *verb,
                          const struct place_result results[], unsigned *ret_failed);

const char *place_status_name(const struct place_result *r);
void place_result_clear(struct place_result *r);
