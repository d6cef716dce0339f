#include "agent/cli_agent.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/task.h"
#include "proto/base/space.h"
#include "proto/lib/cli.h"

struct agent_opts {
    const char *data, *connect, *server_key, *key, *name, *labels, *ready_file, *bulk;
    struct opt_u64 cores, memory, cache_max, bulk_rate, class_rate, high_water, low_water;
    bool log_json;
};

#define AT(m) offsetof(struct agent_opts, m)
static const struct opt agent_opts[] = {
    { "data", 0, "DIR", "where tasks, results on their way and cached artefacts are kept", OPT_STR,
      AT(data), 0, 0 },
    { "connect", 0, "EP", "coordinator, tcp://HOST:PORT", OPT_STR, AT(connect), 0, 0 },
    { "server-key", 0, "FILE", "its public key", OPT_STR, AT(server_key), 0, 0 },
    { "key", 0, "FILE", "this agent's secret key (siofleet keys new --role agent)", OPT_STR,
      AT(key), 0, 0 },
    { "name", 0, "N", "shown by `ls agents` (default: the key's name)", OPT_STR, AT(name), 0, 0 },
    { "cores", 0, "N", "threads for a task (default: all)", OPT_U64, AT(cores), 1, 4096 },
    { "memory", 0, "MIB", "memory to tell the coordinator of (default: all)", OPT_U64, AT(memory),
      1, 0 },
    { "labels", 0, "K=V,...", "for matching tasks to hosts", OPT_STR, AT(labels), 0, 0 },
    { "cache-max", 0, "SIZE", "most bytes of cached artefacts (default 16G)", OPT_SIZE,
      AT(cache_max), 0, 0 },
    { "bulk", 0, "EP",
      "tcp://HOST:PORT where other agents may fetch large artefacts, or off: nothing beside the "
      "link (default: any port of the address that the coordinator sees)",
      OPT_STR, AT(bulk), 0, 0 },
    { "bulk-rate", 0, "SIZE",
      "most bytes a second of large artefacts, each way (default: no limit)", OPT_SIZE,
      AT(bulk_rate), 0, 0 },
    { "class-rate", 0, "SIZE",
      "most bytes a second of large artefacts between the coordinator and all agents with the same "
      "label class=NAME together, each way; the least that one of them says counts (default: no "
      "limit)",
      OPT_SIZE, AT(class_rate), 0, 0 },
    { "high-water", 0, "SIZE",
      "with less space free on its disk nothing new is taken (default 5 % of it, at most 1G)",
      OPT_SIZE, AT(high_water), 0, 0 },
    { "low-water", 0, "SIZE",
      "with less, running tasks wait until there is more (default 1 %, at most 256M; 0 = never)",
      OPT_SIZE, AT(low_water), 0, 0 },
    { "ready-file", 0, "F", "written once registered (siofleet.ready/1)", OPT_STR, AT(ready_file),
      0, 0 },
    { "log-json", 0, NULL, "log lines as JSON objects", OPT_FLAG, AT(log_json), 0, 0 },
    { 0 },
};

static bool name_ok(const char *s)
{
    size_t n = strlen(s);
    if (n < 1 || n > 64 || s[0] == '.' || s[0] == '-')
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("._-", *s))
            return false;
    return true;
}

/* k=v,...: keys and values of letters, digits and ._-/ */
static bool labels_ok(const char *s)
{
    if (strlen(s) > 1000)
        return false;
    while (*s) {
        size_t k = strcspn(s, "=,"), v = s[k] == '=' ? strcspn(s + k + 1, ",") : 0;
        if (!k || s[k] != '=')
            return false;
        for (size_t i = 0; i < k + 1 + v; i++)
            if (i != k && !isalnum((unsigned char)s[i]) && !strchr("._-/", s[i]))
                return false;
        s += k + 1 + v;
        if (*s == ',' && !*++s)
            return false;
    }
    return true;
}

static int agent_verb(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    const struct agent_opts *o = opts;
    const struct {
        const char *name, *value;
    } needed[] = { { "--data", o->data },
                   { "--connect", o->connect },
                   { "--server-key", o->server_key },
                   { "--key", o->key } };
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
        if (!needed[i].value || !*needed[i].value)
            return cli_failf(c, SF_EUSAGE, "%s: needed", needed[i].name);
    if (o->name && !name_ok(o->name))
        return cli_failf(c, SF_EUSAGE, "--name: '%s' is not 1 to 64 of A-Z a-z 0-9 . _ -", o->name);
    if (o->labels && !labels_ok(o->labels))
        return cli_failf(c, SF_EUSAGE, "--labels: '%s' is not k=v,...", o->labels);
    if (o->high_water.set && o->low_water.set && o->low_water.v > o->high_water.v)
        return cli_failf(c, SF_EUSAGE, "--low-water: more than --high-water");
    const struct agent_conf conf = {
        .data = o->data,
        .connect = o->connect,
        .server_key = o->server_key,
        .key = o->key,
        .name = o->name,
        .cores = o->cores.set ? o->cores.v : 0,
        .memory_mib = o->memory.set ? o->memory.v : 0,
        .labels = o->labels ? o->labels : "",
        .cache_max_b = o->cache_max.set ? o->cache_max.v : (uint64_t)16 << 30,
        .bulk = !o->bulk || strcmp(o->bulk, "off") != 0,
        .bulk_listen = o->bulk && strcmp(o->bulk, "off") ? o->bulk : NULL,
        .bulk_rate_b = o->bulk_rate.set ? o->bulk_rate.v : 0,
        .class_rate_b = o->class_rate.set ? o->class_rate.v : 0,
        .high_water_b = o->high_water.set ? o->high_water.v : SPACE_AUTO,
        .low_water_b = o->low_water.set ? o->low_water.v : SPACE_AUTO,
        .ready_file = o->ready_file,
        .log_json = o->log_json
    };
    struct err e = { 0 };
    int r = agent_run(&conf, &e);
    return r < 0 ? cli_fail(c, &e) : 0;
}

static int task_verb(struct cli *c, void *opts, int argc, char **argv)
{
    (void)c;
    (void)opts;
    (void)argc;
    return task_main(argv[0]);
}

const struct verb agent_verbs[] = {
    { .name = "agent",
      .args = "",
      .summary = "run tasks on this host for a coordinator",
      .details = "Registers with the coordinator, runs points and trace builds in child processes "
                 "on all cores,\n"
                 "and sends rows back while they run. It goes on while the coordinator is away; "
                 "restarted, it takes\n"
                 "over what still runs. SIGTERM ends its tasks, gives them back and exits within "
                 "10 s; a second one\n"
                 "stops at once.",
      .examples = "siofleet keys new n1.key --role agent --name n1\n"
                  "siofleet keys allow --data DIR n1.key.pub     # on the coordinator's host\n"
                  "siofleet agent --data /var/lib/siofleet --connect tcp://head:7700 \\\n"
                  "               --server-key coordinator.pub --key n1.key\n",
      .opts = agent_opts,
      .opts_size = sizeof(struct agent_opts),
      .run = agent_verb },
    { .name = "__task",
      .args = "DIR",
      .summary = "run one task of an agent",
      .min_args = 1,
      .max_args = 1,
      .run = task_verb },
    { 0 },
};
