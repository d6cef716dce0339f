#include "deploy/cli_deploy.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "deploy/cli_slurm.h"
#include "deploy/coordinator_host.h"
#include "deploy/embed.h"
#include "deploy/ssh_provider.h"
#include "deploy/table.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/client/client.h"
#include "proto/lib/cli.h"

struct deploy_opts {
    struct opt_multi host;
    const char *class;
    const char *data;
    bool dry_run, keep_data, json, watch, coordinator, remove, purge;
    struct opt_u64 timeout, lines, batch, max_failures;
    struct client_opt fleet;
};

#define OPT_STEPS                                                                                  \
    { "timeout", 0,                                                                                \
      "T",       "longest a step may take without progress (30s)",                                 \
      OPT_MS,    offsetof(struct deploy_opts, timeout),                                            \
      0,         0 },                                                                              \
    {                                                                                              \
        "json", 0, NULL, "one siofleet.deploy/1 document on stdout", OPT_FLAG,                     \
            offsetof(struct deploy_opts, json), 0, 0                                               \
    }
#define OPT_COMMON                                                                                   \
    { "host", 0, "N", "only this host", OPT_MULTI, offsetof(struct deploy_opts, host), 0, 0 },       \
        { "class", 0, "C", "only hosts of this class", OPT_STR, offsetof(struct deploy_opts, class), \
          0,       0 },                                                                              \
        OPT_STEPS
#define OPT_DATA                                                                                   \
    {                                                                                              \
        "data", 0, "DIR",                                                                          \
            "data folder of the coordinator on this machine, whose allow-list gets the agents' "   \
            "keys "                                                                                \
            "(default: the one that server_key lies in)",                                          \
            OPT_STR, offsetof(struct deploy_opts, data), 0, 0                                      \
    }
#define OPT_DRY                                                                                    \
    {                                                                                              \
        "dry-run", 0, NULL, "say what would be done, change nothing", OPT_FLAG,                    \
            offsetof(struct deploy_opts, dry_run), 0, 0                                            \
    }

static const struct opt plain_opts[] = { OPT_COMMON, { 0 } };
static const struct opt up_opts[] = { OPT_COMMON, OPT_DRY, OPT_DATA, { 0 } };
static const struct opt down_opts[] = { OPT_COMMON,
                                        OPT_DRY,
                                        OPT_DATA,
                                        { "keep-data", 0, NULL,
                                          "leave the agent's key and data folder", OPT_FLAG,
                                          offsetof(struct deploy_opts, keep_data), 0, 0 },
                                        { 0 } };
static const struct opt upgrade_opts[] = {
    OPT_COMMON,
    OPT_DRY,
    OPT_DATA,
    { "batch", 0, "N", "hosts at once (1)", OPT_U64, offsetof(struct deploy_opts, batch), 1, 256 },
    { "max-failures", 0, "N", "go on after so many failed hosts (0)", OPT_U64,
      offsetof(struct deploy_opts, max_failures), 0, HOSTS_MAX },
    { 0 }
};
static const struct opt drain_opts[] = {
    OPT_COMMON,
    OPT_DRY,
    { "data", 0, "DIR",
      "data folder of the coordinator on this machine, whose key keys/admin is used (default: the "
      "one that server_key lies in)",
      OPT_STR, offsetof(struct deploy_opts, data), 0, 0 },
    CLIENT_OPTS(struct deploy_opts, fleet),
    { 0 }
};
static const struct opt status_opts[] = { OPT_COMMON,
                                          { "watch", 0, NULL,
                                            "print the table again every 2 s, until SIGINT",
                                            OPT_FLAG, offsetof(struct deploy_opts, watch), 0, 0 },
                                          { 0 } };
static const struct opt coordinator_opts[] = {
    OPT_STEPS,
    OPT_DRY,
    { "remove", 0, NULL, "stop it and remove it from its host; its store stays", OPT_FLAG,
      offsetof(struct deploy_opts, remove), 0, 0 },
    { "purge", 0, NULL, "with --remove: its store, too, with all results and keys", OPT_FLAG,
      offsetof(struct deploy_opts, purge), 0, 0 },
    { 0 }
};
static const struct opt logs_opts[] = {
    OPT_COMMON,
    { "coordinator", 0, NULL, "those of the coordinator that deploy coordinator started", OPT_FLAG,
      offsetof(struct deploy_opts, coordinator), 0, 0 },
    { "lines", 'n', "N", "newest lines a host (50)", OPT_U64, offsetof(struct deploy_opts, lines),
      1, 10000 },
    { 0 }
};

/* Everything a call needs; the parts point at each other, so it stays where it is. */
struct call {
    struct hosts *h;
    const struct host **list;
    size_t n;
    struct release release;
    struct pack collect;
    struct host *place; /* the coordinator's, when it lives on a host of the list */
    struct allow *allow;
    struct buf server;
    struct job_plan plan;
    struct ssh_provider ssh;
    struct place_result *results;
};

static void call_clear(struct call *k)
{
    for (size_t i = 0; k->results && i < k->n; i++)
        place_result_clear(&k->results[i]);
    allow_free(&k->allow);
    coordinator_place_free(&k->place);
    release_clear(&k->release);
    pack_clear(&k->collect);
    buf_clear(&k->server);
    hosts_free(&k->h);
    freep(&k->list);
    freep(&k->results);
}

static void say(const char *host, const char *text)
{
    fprintf(stderr, "%s: %s\n", host, text);
}

/* ---- what a call works on */

static int select_hosts(const struct hosts *h, const struct deploy_opts *o, const struct host **ret,
                        size_t *ret_n, struct err *e)
{
    size_t n = 0;
    for (size_t k = 0; k < o->host.n; k++) {
        bool found = false;
        for (size_t i = 0; i < h->n; i++)
            found |= !strcmp(h->host[i].name, o->host.v[k]);
        if (!found)
            return err_set(e, SF_EUSAGE, "--host: no host '%s' in %s", o->host.v[k], h->path);
    }
    bool class_found = !o->class;
    for (size_t c = 1; c < h->n_classes && !class_found; c++)
        class_found = !strcmp(h->classes[c]->name, o->class);
    if (!class_found)
        return err_set(e, SF_EUSAGE, "--class: no [class %s] in %s", o->class, h->path);
    for (size_t i = 0; i < h->n; i++) {
        bool take = !o->host.n;
        for (size_t k = 0; k < o->host.n; k++)
            take |= !strcmp(h->host[i].name, o->host.v[k]);
        if (take && (!o->class || !strcmp(h->host[i].class->name, o->class)))
            ret[n++] = &h->host[i];
    }
    *ret_n = n;
    return n ? 0 : err_set(e, SF_EUSAGE, "%s: no host is left by --host and --class", h->path);
}

/* Whose allow-list takes the agents' keys: that of a data folder here, or of the host that `deploy coordinator` chose.
 */
static int find_allow(struct cli *c, const struct deploy_opts *o, struct call *k, bool needed)
{
    struct err e = { 0 };
    CLEANUP(freep)
    char *data = o->data            ? strdup(o->data)
                 : k->h->server_key ? allow_data_of(k->h->server_key)
                                    : NULL;
    int r = 0;
    if (data) {
        r = allow_local(data, &k->allow, &e);
    } else if (hosts_coordinator(k->h)) {
        r = coordinator_place(k->h, &k->place, &e);
        if (r == 0)
            r = allow_remote(&k->plan, k->place, &k->allow, &e);
    } else if (needed) {
        return cli_failf(c, SF_EUSAGE,
                         "%s: the agents' keys must join an allow-list, but server_key= lies in no "
                         "coordinator's data folder, and no [host] is the coordinator's: name the "
                         "folder with --data",
                         k->h->path);
    }
    k->plan.allow = k->allow;
    return r < 0 ? cli_fail(c, &e) : 0;
}

static int load_server_key(struct cli *c, struct call *k)
{
    struct err e = { 0 };
    struct key_pub pub;
    const struct hosts *h = k->h;
    if (!h->coordinator || !h->server_key)
        return cli_failf(c, SF_EUSAGE, "%s: [fleet] needs coordinator= and server_key=", h->path);
    if (access(h->server_key, F_OK) < 0)
        return cli_failf(
            c, errno,
            "%s: %s; siofleet deploy coordinator writes it, else it is a coordinator's "
            "DATA/keys/coordinator.pub",
            h->server_key, strerror(errno));
    if (file_read(h->server_key, &k->server, &e) < 0 || key_load_pub(h->server_key, &pub, &e) < 0)
        return cli_fail(c, &e);
    if (pub.role != ROLE_COORDINATOR)
        return cli_failf(c, SF_EUSAGE, "%s: is the key of a %s, not of a coordinator",
                         h->server_key, role_name(pub.role));
    k->plan.server_line = (const char *)k->server.data;
    return 0;
}

static bool any_collects(const struct call *k)
{
    bool any = false;
    for (size_t i = 0; i < k->n; i++)
        any |= k->list[i]->class->collect;
    return any;
}

/* What all verbs need first. Returns 0 or an exit status. */
static int open_call(struct cli *c, const struct deploy_opts *o, const char *path, struct call *k)
{
    struct err e = { 0 };
    c->json = o->json;
    k->server = BUF_INIT(4096);
    if (hosts_load(path, &k->h, &e) < 0)
        return cli_fail(c, &e);
    k->list = calloc(k->h->n, sizeof(struct host *));
    k->results = calloc(k->h->n, sizeof(*k->results));
    if (!k->list || !k->results)
        return cli_failf(c, ENOMEM, "%s: out of memory", path);
    if (select_hosts(k->h, o, k->list, &k->n, &e) < 0)
        return cli_fail(c, &e);
    k->plan = (struct job_plan){ .hosts = k->h,
                                 .dry_run = o->dry_run,
                                 .keep_data = o->keep_data,
                                 .timeout_ms = o->timeout.set ? o->timeout.v : 30000,
                                 .lines = o->lines.set ? o->lines.v : 50 };
    if (k->plan.timeout_ms == 0)
        return cli_failf(c, SF_EUSAGE, "--timeout: 0 gives no step a chance");
    return ssh_init(&e) < 0 ? cli_fail(c, &e) : 0;
}

/* ---- what came of it */

/* Print what came of it and give the exit status. */
static int report(struct cli *c, const struct deploy_opts *o, enum place_verb verb,
                  const char *name, struct call *k, uint64_t start_ms)
{
    unsigned failed = 0;
    json_t *doc = provider_document(&k->ssh.base, name, k->results, &failed);
    int status = 0;
    fprintf(stderr, "%s: %zu host%s, %lld changed, %lld unchanged, %u failed, %.1f s\n", name, k->n,
            k->n == 1 ? "" : "s", (long long)json_integer_value(json_object_get(doc, "changed")),
            (long long)json_integer_value(json_object_get(doc, "unchanged")), failed,
            (double)(clock_mono_ms() - start_ms) / 1000);
    if (o->json) {
        status = cli_json(c, doc);
    } else {
        if (verb == PLACE_LOGS) {
            for (size_t i = 0; i < k->n; i++)
                printf("%s%s%s%s", k->n > 1 ? "== " : "", k->n > 1 ? k->list[i]->name : "",
                       k->n > 1 ? "\n" : "", k->results[i].text ? k->results[i].text : "");
        } else {
            deploy_table(verb, k->list, k->results, k->n, stdout);
        }
        status = cli_flush(c);
        json_decref(doc);
    }
    size_t skipped = 0;
    for (size_t i = 0; i < k->n; i++) {
        skipped += k->results[i].status == PLACE_SKIPPED;
        if (k->results[i].status == PLACE_FAILED)
            fprintf(stderr, "siofleet: %s: %s\n", k->list[i]->name, k->results[i].message);
    }
    if (skipped)
        fprintf(stderr, "siofleet: %s: stopped after %u failures, %zu hosts are as they were\n",
                name, failed, skipped);
    return status ? status : failed ? 1 : 0;
}

/* ---- verbs */

/* The table changes nothing, so that there is nothing to wait for, such as a host that does not answer. */
static void on_stop(int sig)
{
    (void)sig;
    _exit(5);
}

/* The status table again and again, until SIGINT, or until nobody reads it. */
static int watch(struct cli *c, const struct deploy_opts *o, struct call *k)
{
    struct sigaction sa = { .sa_handler = on_stop };
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    int status;
    do {
        uint64_t start = clock_mono_ms();
        provider_run(&k->ssh.base, PLACE_STATUS, k->h->parallel, k->results);
        status = isatty(STDOUT_FILENO) ? deploy_screen(k->list, k->results, k->n)
                                       : report(c, o, PLACE_STATUS, "status", k, start);
        for (size_t i = 0; i < k->n; i++)
            place_result_clear(&k->results[i]);
        nanosleep(&(struct timespec){ 2, 0 }, NULL);
    } while (!ferror(stdout));
    return status;
}

static int deploy(struct cli *c, struct deploy_opts *o, const char *path, enum place_verb verb,
                  const char *name)
{
    struct err e = { 0 };
    CLEANUP(call_clear) struct call k = { .n = 0 };
    uint64_t start = clock_mono_ms();
    int status = open_call(c, o, path, &k);
    if (status)
        return status;
    bool up = verb == PLACE_UP || verb == PLACE_UPGRADE;
    if (up && (status = load_server_key(c, &k)))
        return status;
    if ((up || verb == PLACE_DOWN) && (status = find_allow(c, o, &k, up)))
        return status;
    if ((up || verb == PLACE_CHECK) && release_make(&k.release, &e) < 0)
        return cli_fail(c, &e);
    if (up && any_collects(&k)) {
        if (release_collect(!o->dry_run, &k.collect, &e) < 0)
            return cli_fail(c, &e);
        k.plan.collect = &k.collect;
    }
    if (up || verb == PLACE_CHECK)
        k.plan.release = &k.release;
    if (up || verb == PLACE_DOWN || verb == PLACE_CHECK)
        k.plan.note = say;
    if (o->coordinator) { /* logs of its service instead of the agents' */
        if (coordinator_place(k.h, &k.place, &e) < 0)
            return cli_fail(c, &e);
        k.list[0] = k.place;
        k.n = 1;
    }
    ssh_provider_init(&k.ssh, &k.plan, k.list, k.n);
    if (o->watch)
        return o->json ? cli_failf(c, SF_EUSAGE, "--watch: is for people; with --json ask again")
                       : watch(c, o, &k);
    if (verb == PLACE_UPGRADE)
        provider_roll(&k.ssh.base, verb, o->batch.set ? o->batch.v : 1, o->max_failures.v,
                      k.results);
    else
        provider_run(&k.ssh.base, verb, k.h->parallel, k.results);
    return report(c, o, verb, name, &k, start);
}

/* The coordinator on its host of the list; afterwards this machine is its user. */
static int coordinator(struct cli *c, struct deploy_opts *o, const char *path)
{
    struct err e = { 0 };
    CLEANUP(call_clear) struct call k = { .n = 0 };
    char listen[64];
    uint64_t start = clock_mono_ms();
    int status = open_call(c, o, path, &k);
    if (status)
        return status;
    if (o->purge && !o->remove)
        return cli_failf(c, SF_EUSAGE, "--purge: only with --remove");
    if (!k.h->server_key)
        return cli_failf(c, SF_EUSAGE, "%s: [fleet] needs server_key=", path);
    if (coordinator_place(k.h, &k.place, &e) < 0 || coordinator_listen(k.h, listen, &e) < 0)
        return cli_fail(c, &e);
    if (!o->remove && release_make(&k.release, &e) < 0)
        return cli_fail(c, &e);
    k.plan.release = &k.release;
    k.plan.listen = listen;
    k.plan.keep_data = !o->purge;
    k.plan.note = say;
    k.list[0] = k.place;
    k.n = 1;
    ssh_provider_init(&k.ssh, &k.plan, k.list, k.n);
    provider_run(&k.ssh.base, o->remove ? PLACE_DOWN : PLACE_UP, 1, k.results);
    struct place_result *r = k.results;
    const char *line = deploy_fact(r, "pub");
    if (!o->remove && !o->dry_run && r->status != PLACE_FAILED && line[0]) {
        CLEANUP(freep) char *text = path_fmt("%s\n", line);
        size_t before = json_array_size(r->actions);
        if (!text)
            return cli_failf(c, ENOMEM, "%s: out of memory", path);
        if (coordinator_join(&k.plan, k.place, text, r->actions, &e) < 0) {
            r->status = PLACE_FAILED;
            r->step = "join";
            r->code = e.code;
            snprintf(r->message, sizeof(r->message), "%s", e.text);
        } else if (json_array_size(r->actions) > before) {
            r->status = PLACE_CHANGED;
        }
    }
    return report(c, o, PLACE_UP, "coordinator", &k, start);
}

/* Of the hosts whose agents are there: what drain, or undrain, would find done. */
struct done_search {
    const struct call *k;
    bool drain;
    bool *done; /* k->n of them */
};

static int see_done(void *ctx, json_t *body, struct err *e)
{
    (void)e;
    struct done_search *d = ctx;
    size_t at;
    json_t *a;
    json_array_foreach (json_object_get(body, "items"), at, a) {
        const char *name = json_string_value(json_object_get(a, "name")),
                   *state = json_string_value(json_object_get(a, "state"));
        if (!name || !state || !strcmp(state, "lost") || !strcmp(state, "stopped") ||
            !strcmp(state, "revoked"))
            continue;
        bool drained = !strcmp(state, "drained") || !strcmp(state, "draining");
        /* with an end, or still to come: a maintenance, which the verb makes another thing */
        bool planned = !json_is_null(json_object_get(a, d->drain ? "until" : "from"));
        for (size_t i = 0; i < d->k->n; i++)
            if (!strcmp(d->k->list[i]->name, name))
                d->done[i] = drained == d->drain && !planned;
    }
    return 0;
}

/* drain, undrain: the coordinator's business; the INI says which agents and where it is. */
static int drain(struct cli *c, struct deploy_opts *o, const char *path, const char *verb)
{
    struct err e = { 0 };
    CLEANUP(call_clear) struct call k = { .n = 0 };
    CLEANUP(freep) char *data = NULL, *admin = NULL;
    uint64_t start = clock_mono_ms();
    int status = open_call(c, o, path, &k);
    if (status)
        return status;
    /* what is not given comes from the INI; the key is the administrator's that the coordinator made beside its own */
    if (!o->fleet.connect)
        o->fleet.connect = k.h->coordinator;
    if (!o->fleet.server_key)
        o->fleet.server_key = k.h->server_key;
    if (!o->fleet.key && (data = o->data           ? strdup(o->data)
                                 : k.h->server_key ? allow_data_of(k.h->server_key)
                                                   : NULL))
        o->fleet.key = admin = path_fmt("%s/keys/admin", data);
    CLEANUP(client_free) struct client *cl = NULL;
    if (client_open(&o->fleet, 0, NULL, &cl, &e) < 0)
        return cli_fail(c, &e);
    CLEANUP(freep) bool *done = calloc(k.n + 1, sizeof(*done));
    if (!done)
        return cli_failf(c, ENOMEM, "%s: out of memory", path);
    struct done_search search = { &k, !strcmp(verb, "drain"), done };
    if (client_ask(cl, "ls-agents", NULL, see_done, &search, &e) < 0)
        return cli_fail(c, &e);
    ssh_provider_init(&k.ssh, &k.plan, k.list, k.n);
    for (size_t i = 0; i < k.n; i++) {
        struct place_result *r = &k.results[i];
        *r =
            (struct place_result){ .status = PLACE_CHANGED, .step = verb, .actions = json_array() };
        if (done[i]) {
            r->status = PLACE_OK;
        } else if (o->dry_run) {
            fprintf(stderr, "%s: would %s\n", k.list[i]->name, verb);
            json_array_append_new(r->actions, json_string(verb));
        } else if (client_control(cl, verb, k.list[i]->name, NULL, &e) < 0) {
            r->status = PLACE_FAILED;
            r->code = e.code;
            snprintf(r->message, sizeof(r->message), "%s", e.text);
        } else {
            json_array_append_new(r->actions, json_string(verb));
        }
    }
    return report(c, o, PLACE_UP, verb, &k, start);
}

static int run_check(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], PLACE_CHECK, "check");
}
static int run_up(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], PLACE_UP, "up");
}
static int run_upgrade(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], PLACE_UPGRADE, "upgrade");
}
static int run_drain(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return drain(c, o, argv[0], "drain");
}
static int run_undrain(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return drain(c, o, argv[0], "undrain");
}
static int run_status(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], PLACE_STATUS, "status");
}
static int run_down(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], PLACE_DOWN, "down");
}
static int run_logs(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], PLACE_LOGS, "logs");
}

static int run_coordinator(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return coordinator(c, o, argv[0]);
}

static int run_init(struct cli *c, void *o, int argc, char **argv)
{
    (void)o, (void)argc, (void)argv;
    fwrite(embed_template, 1, embed_template_n, stdout);
    return cli_flush(c);
}

#define HOSTS_ARG "HOSTS.ini"
const struct verb deploy_verbs[] = {
    { "deploy init", "", "print a commented HOSTS.ini", NULL,
      "siofleet deploy init > hosts.ini    # then edit it", NULL, 0, 0, 0, 0, run_init },
    { "deploy check", HOSTS_ARG, "tell whether each host can take an agent, and what to mend",
      "Connects, checks the host key, logs in; compares architecture, glibc, disk, cores, memory, "
      "clock and sudo with what the\n"
      "host's class needs; runs a guest on its /dev/kvm; connects from there to the coordinator. "
      "Names all that does not fit, with\n"
      "the fix. Changes nothing.",
      "siofleet deploy check hosts.ini\nsiofleet deploy check hosts.ini --class big --json",
      plain_opts, sizeof(struct deploy_opts), 1, 1, 0, run_check },
    { "deploy up", HOSTS_ARG, "install, secure and start the agents",
      "Sends the release where it is missing, makes each agent's key pair on its host, allows the "
      "public half here, runs the\n"
      "set-up steps of its class once, starts the agent (systemd, or a supervised background "
      "process) and waits until it has\n"
      "registered. Hosts with collect=yes get QEMU and guest image, too. A second run changes "
      "nothing.",
      "siofleet deploy up hosts.ini\nsiofleet deploy up hosts.ini --host kvm03.lab --dry-run",
      up_opts, sizeof(struct deploy_opts), 1, 1, 0, run_up },
    { "deploy upgrade", HOSTS_ARG, "bring the agents to this release, a batch at a time",
      "A host whose new agent does not register goes back to its release before; the upgrade stops "
      "there unless --max-failures\n"
      "allows more. Running tasks of a host end as unfinished and are given out again; finished "
      "points are kept.",
      "siofleet deploy upgrade hosts.ini --batch 4", upgrade_opts, sizeof(struct deploy_opts), 1, 1,
      0, run_upgrade },
    { "deploy drain", HOSTS_ARG, "give the hosts' agents nothing new", NULL,
      "siofleet deploy drain hosts.ini --host kvm03.lab", drain_opts, sizeof(struct deploy_opts), 1,
      1, 0, run_drain },
    { "deploy undrain", HOSTS_ARG, "let drained agents work again", NULL,
      "siofleet deploy undrain hosts.ini --host kvm03.lab", drain_opts, sizeof(struct deploy_opts),
      1, 1, 0, run_undrain },
    { "deploy coordinator", HOSTS_ARG, "put the coordinator on the host that coordinator= names",
      "Sends the release, starts the coordinator there (systemd, or a supervised background "
      "process), writes its public key to\n"
      "server_key=, makes a user key for you and allows it there, and writes the client settings, "
      "so that `siofleet ls` works.\n"
      "Run again with a newer siofleet it upgrades the coordinator. deploy up then allows the "
      "agents' keys over SSH.",
      "siofleet deploy coordinator hosts.ini && siofleet deploy up hosts.ini\n"
      "siofleet deploy coordinator hosts.ini --remove    # its store stays",
      coordinator_opts, sizeof(struct deploy_opts), 1, 1, 0, run_coordinator },
    { "deploy status", HOSTS_ARG, "tell release, uptime, load, tasks and last error of each agent",
      "It asks the hosts, over SSH, also without a coordinator. What only the coordinator knows, "
      "such as\n"
      "a maintenance that is planned, is in `siofleet ls agents`.",
      "siofleet deploy status hosts.ini\nsiofleet deploy status hosts.ini --watch", status_opts,
      sizeof(struct deploy_opts), 1, 1, 0, run_status },
    { "deploy logs", HOSTS_ARG, "print the newest log lines of the agents", NULL,
      "siofleet deploy logs hosts.ini --host kvm03.lab -n 200", logs_opts,
      sizeof(struct deploy_opts), 1, 1, 0, run_logs },
    { "deploy down", HOSTS_ARG, "stop the agents and remove all that was made on their hosts",
      "Nothing else is touched. --keep-data leaves the agent's key and data, so that a later up "
      "finds its cache again.",
      "siofleet deploy down hosts.ini\nsiofleet deploy down hosts.ini --host kvm03.lab --keep-data",
      down_opts, sizeof(struct deploy_opts), 1, 1, 0, run_down },
    { "deploy slurm", "CONF.ini", "keep agents in Slurm's allocations, as many as there is work",
      "Submits a job for each agent that is wanted (one for each points= that wait, within min and "
      "max), lets agents go that were\n"
      "idle for long, drains those whose allocation ends soon, and explains jobs that wait, fail "
      "or vanish. Runs until SIGTERM,\n"
      "then ends its jobs. Started again after it was killed, it takes over the jobs that are "
      "there.",
      "siofleet deploy slurm --template > slurm.ini    # then edit it\n"
      "siofleet deploy slurm slurm.ini --min 1 --max 32 --idle 10m",
      slurm_opts, sizeof(struct slurm_opt), 0, 1, 0, slurm_run },
    { 0 },
};
