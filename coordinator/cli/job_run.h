/* What exec, collect and logs share: submit a job, follow it, take its answers. */
#pragma once
#include "coordinator/cli/fleet_run.h"

/* Submit doc (borrowed) once, whatever interrupts it: the same request id is asked again. hex: id of the job. */
int job_submit(struct client *cl, const json_t *doc, const char *request_id, char hex[ID_HEX_LEN],
               struct msg_submitted *ret, struct err *e);

/* follow() a job: *ret is the last siofleet.job/1 document, without items. quiet: no progress line. */
enum job_unit { JOB_RUNS, JOB_HOSTS };
int job_follow(struct client *cl, const char *hex, enum job_unit unit, bool quiet, json_t **ret,
               struct err *e);
/* After -ECANCELED of job_follow(): cancel it. Reports, and returns the exit status. */
int job_cancel(struct cli *c, struct client *cl, const char *hex);

/* The document with all items. New reference. */
int job_items(struct client *cl, const char *hex, json_t **ret, struct err *e);

/* What an OUTPUT of an answer (agent/product.h) kept, into *b (its cap is the limit): fetched where it is an artefact. */
int job_output(struct client *cl, const json_t *output, struct buf *b, struct err *e);

/* "n1: " ... why an item failed, for people. */
void job_item_why(const json_t *item, char out[300]);
