/* Jobs that are not over: what their tasks are granted as. No I/O. */
#pragma once
#include "coordinator/sched.h"
#include "proto/lib/json.h"

enum { JOB_TASKS_MAX = 10000 };

/* A submitted job, checked. Lives until the scheduler says that it is over. */
struct job {
    uint64_t seq;
    struct id id;
    enum task_kind kind;
    char name[128];
    json_t *doc; /* as stored */
    struct sched_needs needs;
    char *labels; /* of needs */
    uint64_t timeout_ms, priority, runs;
    uint32_t retries;
    bool again;
    struct sched_job_task *tasks; /* for the event that hands it to the scheduler */
    size_t n_tasks;
};

/* doc: borrowed. -SF_EUSAGE for what is no job. The forms stand in proto/wire/README.md, "Jobs". */
int job_new(json_t *doc, struct job **ret, struct err *e);
void job_free(struct job **j);
/* The scheduler has them now: ten thousand take a megabyte. Accepts NULL. */
void job_forget_tasks(struct job *j);
/* Spec of the task with this index: as in proto/wire/README.md. Owned; NULL without memory. */
char *job_spec(const struct job *j, uint64_t index);
/* What makes two runs of collections the same. */
void job_run_key(const struct job *j, uint64_t index, struct id *ret);
/* The event that hands it, with j->tasks, to the scheduler. */
void job_event(struct job *j, bool held, struct sched_event *ev);
/* Every artefact that an answer's info names: cb is called with each; a return other than 0 ends it and is returned. */
int job_artefacts(const json_t *info, int (*cb)(void *ctx, const struct id *id), void *ctx);
