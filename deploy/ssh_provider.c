#include "deploy/ssh_provider.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

static int status(struct job *j)
{
    j->ret->step = "status";
    if (!job_fact(j, "release")[0])
        return job_failf(j, SF_EFAILED, "status", "siofleet deploy up", "no agent is installed");
    if (strcmp(job_fact(j, "agent"), "up") != 0)
        return job_failf(j, SF_EFAILED, "status", "siofleet deploy logs, then siofleet deploy up",
                         "the agent does not run");
    if (!job_fact(j, "ready")[0])
        return job_failf(j, SF_EFAILED, "status",
                         "does the coordinator run, and can this host connect to it?",
                         "the agent runs, but has not registered");
    return 0;
}

static int logs(struct job *j)
{
    char n[24];
    snprintf(n, sizeof(n), "%llu", (unsigned long long)j->p->lines);
    struct words w = { .n = 0 };
    words_add(&w, "logs", n, NULL);
    CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
    int r = job_call(j, &w, NULL, NULL, j->p->timeout_ms, &res);
    if (r == 0) {
        j->ret->text = strdup(res.out.len ? (char *)res.out.data : "");
        j->ret->step = "logs";
    }
    return r;
}

static void run(const struct provider *base, size_t place, enum place_verb verb,
                struct place_result *ret)
{
    const struct ssh_provider *p = (const struct ssh_provider *)base;
    CLEANUP(job_clear) struct job j = { .p = p->plan, .h = p->hosts[place], .ret = ret };
    ret->step = "connect";
    if (job_connect(&j) < 0 || job_probe(&j, verb) < 0)
        return;
    switch (verb) {
    case PLACE_CHECK:
        check_full(&j);
        break;
    case PLACE_UP:
    case PLACE_UPGRADE:
        if (p->plan->listen)
            install_coordinator(&j);
        else
            install_agent(&j, verb);
        break;
    case PLACE_STATUS:
        status(&j);
        break;
    case PLACE_LOGS:
        logs(&j);
        break;
    case PLACE_DOWN:
        remove_agent(&j);
        break;
    }
}

static const char *name(const struct provider *base, size_t place)
{
    return ((const struct ssh_provider *)base)->hosts[place]->name;
}

void ssh_provider_init(struct ssh_provider *p, const struct job_plan *plan,
                       const struct host **hosts, size_t n)
{
    *p = (struct ssh_provider){ .base = { .n = n, .name = name, .run = run, .note = plan->note },
                                .plan = plan,
                                .hosts = hosts };
}
