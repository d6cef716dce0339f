/* What the verbs of the SSH provider share: one host, its session, what it said of itself, and the result. A job runs in
 * one thread; the plan is the same for all and only read. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "deploy/allow.h"
#include "deploy/hosts.h"
#include "deploy/provider.h"
#include "deploy/release.h"
#include "deploy/ssh.h"

/* The same for all hosts of a call; borrowed. */
struct job_plan {
    const struct hosts *hosts;
    const struct release *release; /* check, up, upgrade, coordinator; NULL otherwise */
    const struct pack *collect;    /* for hosts with collect=yes; NULL = none of them collects */
    const char
        *server_line;    /* the coordinator's public key line, with LF; NULL when there is none */
    const char *listen;  /* the service is the coordinator, listening there; NULL = an agent */
    struct allow *allow; /* takes the agents' keys; NULL = nobody does */
    bool dry_run, keep_data;
    uint64_t timeout_ms;                              /* of each remote step */
    uint64_t lines;                                   /* logs */
    void (*note)(const char *host, const char *text); /* may be NULL */
};

struct job {
    const struct job_plan *p;
    const struct host *h;
    struct place_result *ret;
    struct ssh *ssh;
    char *data; /* resolved on the host; owned */
};

void job_clear(struct job *j);

/* ---- saying what happens */

void job_note(struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One thing that is changed. Returns whether to do it now (not in a dry run). */
bool job_action(struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The job failed at this step (static string). fix may be NULL. Returns -code. */
int job_fail(struct job *j, const char *step, const struct err *e, const char *fix);
int job_failf(struct job *j, int code, const char *step, const char *fix, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* One of several things that do not fit: joined in message and fix, listed in facts.problems. */
void job_problem(struct job *j, const char *step, const char *fix, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void job_forgive(struct job *j); /* a failure that is tried again after all */

/* ---- talking to the host */

/* Connect and log in; tries again, with back-off, what may pass by itself, until the plan's timeout. */
int job_connect(struct job *j);
/* Once, for at most timeout_ms. *ret_at: where it failed. */
int job_open(struct job *j, uint64_t timeout_ms, enum ssh_step *ret_at, struct err *e);
void job_disconnect(struct job *j);

/* Verbs of remote/host.sh with their arguments, run one after the other in one command. */
struct words {
    const char *v[64]; /* borrowed */
    char counts[12][4];
    size_t n, verbs;
};
void words_add(struct words *w, const char *verb, ...) __attribute__((sentinel));

/* Run them. A verb that fails is the job's failure, with its step and the first line it said. -ECONNRESET when the
 * connection broke, -ETIMEDOUT. ret may be NULL; else ssh_result_clear() it, also after a failure. */
int job_call(struct job *j, const struct words *w, ssh_source in, void *in_user,
             uint64_t timeout_ms, struct ssh_result *ret);

/* ---- what the host said of itself */

/* Fills ret->facts and j->data; with more of them for check and status. */
int job_probe(struct job *j, enum place_verb verb);
void job_facts(struct job *j, char *lines);                 /* `key value` lines; eaten */
const char *job_fact(const struct job *j, const char *key); /* "" = not said */
uint64_t job_fact_u64(const struct job *j, const char *key);
/* Of a key that may stand on several lines (have, step). */
bool job_fact_has(const struct job *j, const char *key, const char *value);

/* ---- verbs, each in its file */

int check_fits(struct job *j);  /* what must fit before anything is changed */
int check_full(struct job *j);  /* all that `deploy check` tells */
int setup_steps(struct job *j); /* those that are not done yet */
int install_agent(struct job *j, enum place_verb verb);
int install_coordinator(struct job *j); /* its public key is in facts.pub then */
int remove_agent(struct job *j);
