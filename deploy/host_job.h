/* What is done to one host: check, up, upgrade, status, down, logs. Each job runs in a worker thread with its own SSH session. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "deploy/hosts.h"
#include "deploy/release.h"
#include "proto/base/err.h"
#include "proto/lib/json.h"

enum job_verb { JOB_CHECK, JOB_UP, JOB_UPGRADE, JOB_STATUS, JOB_DOWN, JOB_LOGS };

/* The same for all hosts of a call; borrowed, read only while jobs run. */
struct job_plan {
    enum job_verb verb;
    const struct hosts *hosts;
    const struct release *release; /* check, up, upgrade; NULL otherwise */
    const char
        *server_line; /* the coordinator's public key line, with LF; NULL when there is none */
    const char *
        allow_data; /* data folder of the coordinator whose allow-list gets the agents' keys; NULL = none here */
    bool dry_run, keep_data;
    uint64_t timeout_ms; /* of each remote step */
    uint64_t lines;      /* logs */
    void (*note)(void *user, const char *host,
                 const char *text); /* progress; any thread; may be NULL */
    void *note_user;
};

struct job_result {
    enum { JOB_OK, JOB_CHANGED, JOB_FAILED, JOB_SKIPPED } status;
    const char *step;  /* static name of the step it ended in */
    int code;          /* positive error code, 0 = none */
    char message[512]; /* of a failure, without the host's name in front */
    char fix[512];     /* what to do about it; "" = nothing known */
    json_t *actions;   /* what was (dry run: would be) done; owned */
    json_t *facts;     /* object of what the host said; owned; may be NULL */
    char *text;        /* logs; owned; may be NULL */
    uint64_t bytes_sent, ms;
    char version[32]; /* of the release in use, "" = none */
};

/* Fills *ret, never fails otherwise. Thread-safe for different hosts. */
void job_run(const struct job_plan *p, const struct host *h, struct job_result *ret);
void job_result_clear(struct job_result *r);
const char *job_status_name(const struct job_result *r);
