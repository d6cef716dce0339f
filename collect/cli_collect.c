#include "collect/cli_collect.h"

#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

#include "collect/collect.h"
#include "proto/base/clean.h"

int (*collect_on_fleet)(struct cli *c, const struct collect_fleet *f);

static void on_stop(int sig)
{
    (void)sig;
    collect_stop = 1;
}

struct collect_opt {
    bool local, keep, no_prepare, json;
    struct opt_u64 jobs;
    struct collect_fleet fleet; /* out: of both */
};

static const struct opt collect_opts[] = {
    { "local", 0, NULL, "on this host, without a fleet", OPT_FLAG,
      offsetof(struct collect_opt, local), 0, 0 },
    { "out", 'o', "DIR", "results here; runs it already holds are kept", OPT_STR,
      offsetof(struct collect_opt, fleet.out), 0, 0 },
    { "keep", 0, NULL, "leave the last guest up until `vm stop` or ^C", OPT_FLAG,
      offsetof(struct collect_opt, keep), 0, 0 },
    { "no-prepare", 0, NULL, "fail instead of building QEMU or the guest image", OPT_FLAG,
      offsetof(struct collect_opt, no_prepare), 0, 0 },
    { "jobs", 'j', "N", "stacks at once (default: what cores and memory hold)", OPT_U64,
      offsetof(struct collect_opt, jobs), 1, 64 },
    { "detach", 0, NULL, "on a fleet: do not wait, print the job's id", OPT_FLAG,
      offsetof(struct collect_opt, fleet.detach), 0, 0 },
    { "plan", 0, NULL, "on a fleet: say which runs are missing, start nothing", OPT_FLAG,
      offsetof(struct collect_opt, fleet.plan), 0, 0 },
    { "again", 0, NULL, "on a fleet: make every run anew, also those that were made before",
      OPT_FLAG, offsetof(struct collect_opt, fleet.again), 0, 0 },
    { "labels", 0, "K=V,...", "on a fleet: only agents with all of these", OPT_STR,
      offsetof(struct collect_opt, fleet.labels), 0, 0 },
    { "request-id", 0, "S", "on a fleet: the same S gives the same job", OPT_STR,
      offsetof(struct collect_opt, fleet.request_id), 0, 0 },
    { "connect", 0, "EP", "coordinator, tcp://HOST:PORT (SIOFLEET_CONNECT)", OPT_STR,
      offsetof(struct collect_opt, fleet.connect), 0, 0 },
    { "server-key", 0, "FILE", "its public key (SIOFLEET_SERVER_KEY)", OPT_STR,
      offsetof(struct collect_opt, fleet.server_key), 0, 0 },
    { "key", 0, "FILE", "your secret key (SIOFLEET_KEY)", OPT_STR,
      offsetof(struct collect_opt, fleet.key), 0, 0 },
    { "json", 0, NULL, "a siofleet.collection/1 document", OPT_FLAG,
      offsetof(struct collect_opt, json), 0, 0 },
    { 0 },
};

static int print_init(struct cli *c, const char *name)
{
    if (!name || strcmp(name, "--list") == 0) {
        for (size_t i = 0; conf_profile_names[i]; i++)
            puts(conf_profile_names[i]);
        return cli_flush(c);
    }
    const char *text = conf_profile(name);
    if (!text)
        return cli_failf(c, SF_EUSAGE, "collect init: '%s' is none of: quick, many, tenants, big",
                         name);
    fputs(text, stdout);
    return cli_flush(c);
}

void collect_print(const json_t *doc)
{
    static const char *const names[] = { "run",   "status",      "events", "devices", "dropped",
                                         "bytes", "measured_ms", "log",    "agent" };
    bool fleet = json_object_get(json_array_get(json_object_get(doc, "runs"), 0), "agent");
    struct table *t = table_new(names, ARRAY_LEN(names) - !fleet);
    size_t i;
    json_t *r;
    json_array_foreach (json_object_get(doc, "runs"), i, r) {
        json_t *log = json_object_get(r, "log"), *ph = json_object_get(r, "phases");
        static const char *const nums[] = { "events", "devices", "dropped", "bytes" };
        table_cell(t, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(r, "run")));
        table_cell(t, "%s", json_string_value(json_object_get(r, "status")));
        for (size_t k = 0; k < ARRAY_LEN(nums); k++) {
            uint64_t v = 0;
            if (json_is_object(log) && json_get_u64(log, nums[k], &v, NULL) == 0)
                table_cell(t, "%" PRIu64, v);
            else
                table_cell(t, "-");
        }
        uint64_t ms = 0;
        if (json_is_object(ph) && json_get_u64(ph, "measured_ms", &ms, NULL) == 0)
            table_cell(t, "%" PRIu64, ms);
        else
            table_cell(t, "-");
        const char *p = json_string_value(json_object_get(log, "path"));
        if (!p)
            p = json_string_value(json_object_get(log, "id"));
        table_cell(t, "%s", p ? p : "-");
        const char *agent = json_string_value(json_object_get(r, "agent"));
        if (fleet)
            table_cell(t, "%s", agent ? agent : "-");
    }
    table_print(t, stdout);
    table_free(&t);
}

static int run_collect(struct cli *c, void *opt, int argc, char **argv)
{
    struct collect_opt *o = opt;
    c->json = o->json;
    if (argc < 1)
        return cli_failf(c, SF_EUSAGE,
                         "collect: names no RUN.ini (`siofleet collect init quick` prints one)");
    if (strcmp(argv[0], "init") == 0 && !o->local)
        return print_init(c, argc > 1 ? argv[1] : NULL);
    if (argc > 1)
        return cli_failf(c, SF_EUSAGE, "%s: one RUN.ini at a time", argv[1]);
    struct collect_conf conf;
    struct err e = { 0 };
    int r = conf_load(argv[0], &conf, &e);
    if (r < 0) {
        conf_clear(&conf);
        return cli_fail(c, &e);
    }
    if (!o->local) {
        conf_clear(&conf);
        if (!collect_on_fleet)
            return cli_failf(c, SF_ENOFLEET,
                             "collect: no fleet here; --local collects on this host");
        o->fleet.ini = argv[0];
        return collect_on_fleet(c, &o->fleet);
    }
    if (o->fleet.detach || o->fleet.plan || o->fleet.again)
        return cli_failf(c, SF_EUSAGE, "%s: on a fleet only, not with --local",
                         o->fleet.detach ? "--detach"
                         : o->fleet.plan ? "--plan"
                                         : "--again");
    struct sigaction sa = { .sa_handler = on_stop };
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    struct collect_opts co = {
        .out = o->fleet.out, .keep = o->keep, .no_prepare = o->no_prepare, .jobs = o->jobs.v
    };
    CLEANUP(json_decrefp) json_t *doc = NULL;
    r = collect_local(&conf, &co, &doc, &e);
    conf_clear(&conf);
    if (r < 0 && (!doc || !c->json))
        return cli_fail(c, &e);
    if (c->json) {
        /* runs that worked are worth their document; the cause of the others stands in it and on stderr */
        int out = cli_json(c, json_incref(doc));
        if (r == 0)
            return out;
        struct cli quiet = { .verb = c->verb };
        return cli_fail(&quiet, &e);
    }
    collect_print(doc);
    return cli_flush(c);
}

struct init_opt {
    bool list;
};

static const struct opt init_opts[] = {
    { "list", 0, NULL, "the profiles' names", OPT_FLAG, offsetof(struct init_opt, list), 0, 0 },
    { 0 },
};

static int run_init(struct cli *c, void *opt, int argc, char **argv)
{
    struct init_opt *o = opt;
    return print_init(c, o->list || !argc ? NULL : argv[0]);
}

const struct verb collect_verbs[] = {
    { .name = "collect init",
      .args = "[PROFILE]",
      .summary = "print a profile's INI, or with --list the profiles",
      .examples = "siofleet collect init quick > run.ini   # a start for your own\n",
      .opts = init_opts,
      .opts_size = sizeof(struct init_opt),
      .max_args = 1,
      .run = run_init },
    { .name = "collect",
      .args = "RUN.ini",
      .summary = "collect IOMMU logs from patched QEMU stacks",
      .details =
          "Builds QEMU and the guest image when they are not in the cache (minutes, once), "
          "boots the stack, traces\n"
          "the measured phase and publishes log, workload output, serial logs and "
          "provenance of each run.\n"
          "\n"
          "On a fleet the runs are spread over agents that can collect and have the memory. The "
          "same RUN.ini\n"
          "given again makes only the runs that are missing, so a collection that was cut off "
          "is resumed, and one\n"
          "with more runs= is continued. Ctrl-C cancels it (exit 5); runs that are done stay. "
          "Logs stay at the\n"
          "coordinator as artefacts; -o DIR brings them here.",
      .examples =
          "siofleet collect --local run.ini -o logs   # on this host\n"
          "siofleet collect run.ini -o logs           # on the fleet\n"
          "siofleet collect run.ini --plan            # which runs are missing\n"
          "siofleet collect run.ini --detach          # prints the job's id; siofleet logs -f, "
          "cancel\n",
      .opts = collect_opts,
      .opts_size = sizeof(struct collect_opt),
      .max_args = 2,
      .run = run_collect },
    { 0 },
};
