#include "coordinator/cli_coordinator.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "coordinator/serve.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/base/space.h"
#include "proto/lib/cli.h"

struct coordinator_opts {
    const char *data, *ready_file;
    const char *bulk;
    struct opt_multi listen;
    struct opt_u64 lease, heartbeat, store_max, bulk_rate, high_water, low_water;
    bool log_json;
};

#define AT(m) offsetof(struct coordinator_opts, m)
static const struct opt coordinator_opts[] = {
    { "data", 0, "DIR", "where the store, artefacts and keys are kept", OPT_STR, AT(data), 0, 0 },
    { "listen", 0, "EP", "tcp://HOST:PORT (default tcp://127.0.0.1:7420)", OPT_MULTI, AT(listen), 0,
      0 },
    { "bulk", 0, "EP",
      "tcp://HOST:PORT for large artefacts, or off (default: the host of the first --listen, any "
      "port)",
      OPT_STR, AT(bulk), 0, 0 },
    { "bulk-rate", 0, "SIZE", "most bytes a second of these, each way (default: no limit)",
      OPT_SIZE, AT(bulk_rate), 1024, 0 },
    { "ready-file", 0, "F", "written once serving (siofleet.ready/1)", OPT_STR, AT(ready_file), 0,
      0 },
    { "lease-ms", 0, "N", "an agent silent for so long loses its tasks (default 10000)", OPT_U64,
      AT(lease), 100, 86400000 },
    { "heartbeat-ms", 0, "N", "agents report this often (default 2000)", OPT_U64, AT(heartbeat), 10,
      3600000 },
    { "store-max", 0, "SIZE",
      "most bytes of artefacts; beyond it nothing new is taken (default: the disk)", OPT_SIZE,
      AT(store_max), 0, 0 },
    { "high-water", 0, "SIZE",
      "with less space free on its disk nothing new is taken (default 5 % of it, at most 1G)",
      OPT_SIZE, AT(high_water), 0, 0 },
    { "low-water", 0, "SIZE",
      "with less, what waits is not granted either (default 1 %, at most 256M; 0 = never)",
      OPT_SIZE, AT(low_water), 0, 0 },
    { "log-json", 0, NULL, "log lines as JSON objects", OPT_FLAG, AT(log_json), 0, 0 },
    { 0 },
};

/* Any port of the host of an endpoint: bulk connections are as open as the link is. Owned. */
static char *bulk_beside(const char *ep)
{
    const char *colon = strrchr(ep, ':');
    return colon ? path_fmt("%.*s:*", (int)(colon - ep), ep) : NULL;
}

static int coordinator_verb(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    const struct coordinator_opts *o = opts;
    static const char *const home[] = { "tcp://127.0.0.1:7420" };
    if (!o->data || !*o->data)
        return cli_failf(c, SF_EUSAGE, "--data: needed");
    struct coordinator_conf conf = { .data = o->data,
                                     .listen = o->listen.n ? o->listen.v : home,
                                     .n_listen = o->listen.n ? o->listen.n : 1,
                                     .ready_file = o->ready_file,
                                     .lease_ms = o->lease.set ? o->lease.v : 10000,
                                     .heartbeat_ms = o->heartbeat.set ? o->heartbeat.v : 2000,
                                     .store_max_b = o->store_max.set ? o->store_max.v : 0,
                                     .high_water_b =
                                         o->high_water.set ? o->high_water.v : SPACE_AUTO,
                                     .low_water_b =
                                         o->low_water.set ? o->low_water.v : SPACE_AUTO };
    CLEANUP(freep) char *beside = bulk_beside(conf.listen[0]);
    if (!o->bulk)
        conf.bulk = beside;
    else if (strcmp(o->bulk, "off") != 0)
        conf.bulk = o->bulk;
    conf.bulk_rate_b = o->bulk_rate.set ? o->bulk_rate.v : 0;
    if (o->high_water.set && o->low_water.set && o->low_water.v > o->high_water.v)
        return cli_failf(c, SF_EUSAGE, "--low-water: more than --high-water");
    if (!o->heartbeat.set && conf.heartbeat_ms * 3 > conf.lease_ms)
        conf.heartbeat_ms = conf.lease_ms / 5 ? conf.lease_ms / 5 : 1;
    if (conf.heartbeat_ms * 2 > conf.lease_ms)
        return cli_failf(
            c, SF_EUSAGE,
            "--heartbeat-ms: more than half of the lease: one lost message would cost a task");
    log_init("coordinator", o->log_json, LOG_LEVEL_INFO);
    struct err e = { 0 };
    int r = coordinator_run(&conf, &e);
    if (r == -ECANCELED && !e.code)
        err_set(&e, ECANCELED, "coordinator: stopped by a second signal");
    log_init(NULL, false, LOG_LEVEL_INFO);
    return r < 0 ? cli_fail(c, &e) : 0;
}

const struct verb coordinator_verbs[] = {
    { .name = "coordinator",
      .args = "",
      .summary = "hand out sweeps to agents and keep their results",
      .details = "Serves until SIGTERM. Everything it acknowledged survives kill -9 and a restart; "
                 "tasks on agents\n"
                 "run on meanwhile. The first start makes DIR/keys/coordinator (its own), and "
                 "DIR/keys/admin for\n"
                 "its user; allow agents with `siofleet keys allow`. It listens on loopback unless "
                 "--listen says\n"
                 "otherwise.",
      .examples = "siofleet coordinator --data /srv/fleet --listen tcp://0.0.0.0:7420\n"
                  "siofleet coordinator --data /srv/fleet --lease-ms 30000   # for a flaky network",
      .opts = coordinator_opts,
      .opts_size = sizeof(struct coordinator_opts),
      .run = coordinator_verb },
    { 0 },
};
