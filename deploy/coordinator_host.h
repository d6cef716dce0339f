/* `deploy coordinator`: the coordinator as the service of a host of the list, beside its agent and apart from it. */
#pragma once
#include "deploy/job.h"

/* The host that coordinator= names, with the coordinator's own data folder (that of its agents with "-coordinator" behind
 * it). Owned. -SF_EUSAGE when the list has none. */
int coordinator_place(const struct hosts *h, struct host **ret, struct err *e);
void coordinator_place_free(struct host **h);

/* Where it listens: all addresses of that host, at the port of coordinator=. -SF_EUSAGE. */
int coordinator_listen(const struct hosts *h, char ret[64], struct err *e);

/* This machine becomes its user: server_key= holds its public key (line), a user key of our own is allowed there, and the
 * client settings name both, unless they name another coordinator. What is right already stays. actions: array that
 * each change is added to. */
int coordinator_join(const struct job_plan *plan, const struct host *place, const char *line,
                     json_t *actions, struct err *e);
