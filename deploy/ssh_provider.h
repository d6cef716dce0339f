/* The provider of `siofleet deploy` whose places are the hosts of HOSTS.ini, each reached over SSH. */
#pragma once
#include "deploy/job.h"

struct ssh_provider {
    struct provider base;
    const struct job_plan *plan;
    const struct host **hosts; /* base.n of them; borrowed */
};

/* All borrowed. */
void ssh_provider_init(struct ssh_provider *p, const struct job_plan *plan,
                       const struct host **hosts, size_t n);
