/* The agent of a host: registers with a coordinator, runs what it is granted, sends back what came of it.
 *
 * One thread, one loop over the link, signals and the shims. What to do is decided by core.h; this does it. It goes
 * on through the coordinator's absence and through its own restart: everything is in DATA.
 *
 *     DATA/lock      one agent a folder
 *     DATA/install   JSON: who this install is (16 random bytes) and how often it was started
 *     DATA/kvm       what the last probe of KVM gave, for this boot of the host
 *     DATA/cache/    artefacts, proto/cas
 *     DATA/tasks/    runner.h
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "proto/base/err.h"

struct agent_conf {
    const char *data, *connect, *server_key, *key; /* borrowed */
    const char *name;                              /* NULL = as the key says */
    uint64_t cores;                                /* 0 = all */
    uint64_t memory_mib;                           /* 0 = all */
    const char *labels;                            /* k=v,... ; "" = none */
    uint64_t cache_max_b;
    uint64_t high_water_b, low_water_b; /* proto/base/space.h */
    bool bulk; /* large artefacts go over connections of their own, where the coordinator can */
    const char *
        bulk_listen; /* tcp://HOST:PORT where other agents may fetch them; NULL = any port of the address that the
                                coordinator sees */
    uint64_t bulk_rate_b; /* of these, a second and each way; 0 = no limit */
    uint64_t
        class_rate_b; /* of all agents of its class together, as the coordinator keeps it; 0 = no limit */
    const char *ready_file; /* NULL = none */
    int log_json;
};

/* Until drained (SIGTERM or SIGINT). Returns 0; -ECANCELED when a second signal stopped it before all was told;
 * -SF_EREFUSED when the coordinator will not have it; -EBUSY when another agent has DATA; -errno. */
int agent_run(const struct agent_conf *conf, struct err *e);
