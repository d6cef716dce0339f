/* The batch system Slurm, through its own commands: sbatch, squeue, scancel, scontrol. They are run without a shell, in a
 * process group of their own (an interrupt at the terminal must not tear a submission), each for at most 30 s.
 *
 * The queue is the only record of what was submitted: a job is ours when its work folder is one of ours. So nothing is
 * forgotten and nothing submitted twice when the program that submits is killed at any moment.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "deploy/slurm_conf.h"
#include "proto/base/err.h"

struct slurm_job {
    uint64_t id;
    enum { SLURM_PENDING, SLURM_RUNNING, SLURM_ENDING, SLURM_ENDED } state;
    char word[24];    /* its state in Slurm's own words: "PREEMPTED" */
    char reason[64];  /* why it waits: "Resources" */
    char node[64];    /* "" = none yet */
    uint64_t left_ms; /* until its time is up; UINT64_MAX = no limit */
    char *dir;        /* its work folder */
};

struct slurm_list {
    struct slurm_job *v;
    size_t n;
};

/* All jobs of this user that Slurm knows of, those that ended a short while ago included, oldest first. */
int slurm_list(struct slurm_list *ret, struct err *e);
void slurm_list_clear(struct slurm_list *l);
/* The lines of squeue, `ID|STATE|REASON|LEFT|NODE|FOLDER`; what is no such line is skipped. text is eaten. */
int slurm_parse(char *text, struct slurm_list *ret, struct err *e);

/* Submit the agent NAME with the work folder DIR. test: only ask whether it could ever run. */
int slurm_submit(const struct slurm_conf *c, const char *name, const char *dir, bool test,
                 uint64_t *ret_id, struct err *e);
/* Ask the agent to end (SIGTERM), or end the job at once, whatever it does. One that is gone already is fine. */
int slurm_cancel(uint64_t id, bool at_once, struct err *e);
/* Why a job is over, for people: "FAILED with status 1 on n3". Best effort. */
void slurm_why(uint64_t id, char text[160]);
