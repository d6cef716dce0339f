#include "deploy/cli_deploy.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "deploy/host_job.h"
#include "deploy/ssh.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/client/client.h"
#include "proto/lib/cli.h"
#include "proto/link/keys.h"

struct deploy_opts {
    struct opt_multi host;
    const char *class;
    const char *data;
    bool dry_run, keep_data, json;
    struct opt_u64 timeout, lines, batch, max_failures;
    struct client_opt fleet;
};

#define OPT_COMMON                                                                                   \
    { "host",    0,                                                                                  \
      "N",       "only this host (may be repeated)",                                                 \
      OPT_MULTI, offsetof(struct deploy_opts, host),                                                 \
      0,         0 },                                                                                \
        { "class", 0, "C", "only hosts of this class", OPT_STR, offsetof(struct deploy_opts, class), \
          0,       0 },                                                                              \
        { "timeout", 0,                                                                              \
          "T",       "longest a step may take without progress (30s)",                               \
          OPT_MS,    offsetof(struct deploy_opts, timeout),                                          \
          0,         0 },                                                                            \
    {                                                                                                \
        "json", 0, NULL, "one siofleet.deploy/1 document on stdout", OPT_FLAG,                       \
            offsetof(struct deploy_opts, json), 0, 0                                                 \
    }
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
    OPT_COMMON, OPT_DATA, CLIENT_OPTS(struct deploy_opts, fleet), { 0 }
};
static const struct opt logs_opts[] = { OPT_COMMON,
                                        { "lines", 'n', "N", "newest lines a host (50)", OPT_U64,
                                          offsetof(struct deploy_opts, lines), 1, 10000 },
                                        { 0 } };

/* ---- a bounded pool of workers */

struct pool {
    const struct job_plan *plan;
    const struct host **hosts;
    struct job_result *results;
    size_t n, next;
    pthread_mutex_t lock;
};

static void *work(void *user)
{
    struct pool *p = user;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        size_t i = p->next < p->n ? p->next++ : p->n;
        pthread_mutex_unlock(&p->lock);
        if (i == p->n)
            return NULL;
        job_run(p->plan, p->hosts[i], &p->results[i]);
    }
}

static void run_all(struct pool *p, uint64_t parallel)
{
    pthread_t threads[256];
    size_t want = parallel < p->n ? (size_t)parallel : p->n, started = 0;
    if (want > ARRAY_LEN(threads))
        want = ARRAY_LEN(threads);
    pthread_mutex_init(&p->lock, NULL);
    while (started < want && pthread_create(&threads[started], NULL, work, p) == 0)
        started++;
    if (!started)
        work(p);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
}

/* In batches, so that most of the fleet works on meanwhile; stops when too many have failed. The rest is skipped. */
static void run_rolling(struct pool *p, uint64_t batch, uint64_t max_failures)
{
    uint64_t failed = 0;
    size_t i = 0;
    while (i < p->n && failed <= max_failures) {
        size_t m = batch < p->n - i ? (size_t)batch : p->n - i;
        struct pool part = {
            .plan = p->plan, .hosts = p->hosts + i, .results = p->results + i, .n = m
        };
        run_all(&part, m);
        for (size_t k = 0; k < m; k++)
            failed += part.results[k].status == JOB_FAILED;
        i += m;
    }
    for (; i < p->n; i++)
        p->results[i] = (struct job_result){ .status = JOB_SKIPPED,
                                             .step = "upgrade",
                                             .actions = json_array() };
}

static void say(void *user, const char *host, const char *text)
{
    (void)user;
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

/* The coordinator's data folder, when its server_key=DATA/keys/coordinator.pub lies on this machine. */
static char *data_of_key(const char *server_key)
{
    char real[PATH_MAX];
    if (!realpath(server_key, real))
        return NULL;
    char *slash = strrchr(real, '/');
    if (!slash)
        return NULL;
    *slash = '\0';
    size_t n = strlen(real);
    if (n < 6 || strcmp(real + n - 5, "/keys") != 0)
        return NULL;
    return strndup(real, n - 5);
}

static json_t *document(const char *verb, const struct pool *p, unsigned *ret_failed)
{
    unsigned changed = 0, unchanged = 0, failed = 0;
    uint64_t bytes = 0;
    json_t *list = json_array();
    for (size_t i = 0; i < p->n; i++) {
        const struct job_result *r = &p->results[i];
        changed += r->status == JOB_CHANGED;
        unchanged += r->status == JOB_OK;
        failed += r->status == JOB_FAILED;
        bytes += r->bytes_sent;
        bool bad = r->status == JOB_FAILED;
        json_t *o = json_object();
        json_object_set_new(o, "host", json_str(p->hosts[i]->name));
        json_object_set_new(o, "status", json_string(job_status_name(r)));
        json_object_set_new(o, "step", json_string(r->step));
        json_object_set_new(o, "code", bad ? json_string(err_name(r->code)) : json_null());
        json_object_set_new(o, "message", bad ? json_str(r->message) : json_null());
        json_object_set_new(o, "fix", bad && r->fix[0] ? json_str(r->fix) : json_null());
        json_object_set(o, "actions", r->actions);
        json_object_set_new(o, "bytes_sent", json_u64(r->bytes_sent));
        json_object_set_new(o, "ms", json_u64(r->ms));
        json_object_set_new(o, "version", r->version[0] ? json_string(r->version) : json_null());
        json_object_set_new(o, "facts", r->facts ? json_incref(r->facts) : json_null());
        json_array_append_new(list, o);
    }
    *ret_failed = failed;
    json_t *doc = json_object();
    json_object_set_new(doc, "schema", json_string("siofleet.deploy/1"));
    json_object_set_new(doc, "verb", json_string(verb));
    json_object_set_new(doc, "changed", json_integer(changed));
    json_object_set_new(doc, "unchanged", json_integer(unchanged));
    json_object_set_new(doc, "failed", json_integer(failed));
    json_object_set_new(doc, "bytes_sent", json_u64(bytes));
    json_object_set_new(doc, "hosts", list);
    return doc;
}

static const char *said(const struct job_result *r, const char *key)
{
    const char *s = json_string_value(json_object_get(r->facts, key));
    return s ? s : "";
}

static void print_table(enum job_verb verb, const struct pool *p)
{
    static const char *const check_names[] = { "HOST",  "STATE", "CORES", "MEMORY", "FREE",
                                               "GLIBC", "KVM",   "CLOCK", "AGENT",  "CAUSE" };
    static const char *const names[] = {
        "HOST", "STATE", "STEP", "VERSION", "SENT", "TIME", "CAUSE"
    };
    bool wide = verb == JOB_CHECK || verb == JOB_STATUS;
    CLEANUP(table_free)
    struct table *t =
        wide ? table_new(check_names, ARRAY_LEN(check_names)) : table_new(names, ARRAY_LEN(names));
    if (!t)
        return;
    for (size_t i = 0; i < p->n; i++) {
        const struct job_result *r = &p->results[i];
        table_cell(t, "%s", p->hosts[i]->name);
        table_cell(t, "%s", job_status_name(r));
        if (wide) {
            table_cell(t, "%s", said(r, "cores"));
            table_cell(t, "%ld MiB", atol(said(r, "memory_kib")) / 1024);
            table_cell(t, "%ld MiB", atol(said(r, "free_kib")) / 1024);
            table_cell(t, "%s", said(r, "glibc"));
            table_cell(t, "%s", said(r, "kvm"));
            table_cell(t, "%s ms", said(r, "clock_offset_ms"));
            table_cell(t, "%s", said(r, "release")[0] ? said(r, "agent") : "none");
        } else {
            table_cell(t, "%s", r->step);
            table_cell(t, "%s", r->version);
            table_cell(t, "%llu", (unsigned long long)r->bytes_sent);
            table_cell(t, "%llu ms", (unsigned long long)r->ms);
        }
        if (r->status == JOB_FAILED)
            table_cell(t, "%s%s%s", r->message, r->fix[0] ? " -- " : "", r->fix);
        else
            table_cell(t, "%s", "");
    }
    table_print(t, stdout);
}

/* Print what came of it, free the results, give the exit status. */
static int report(struct cli *c, const struct deploy_opts *o, enum job_verb verb, const char *name,
                  struct pool *p)
{
    unsigned failed = 0;
    json_t *doc = document(name, p, &failed);
    int status = 0;
    if (o->json) {
        status = cli_json(c, doc);
    } else {
        if (verb == JOB_LOGS) {
            for (size_t i = 0; i < p->n; i++)
                printf("%s%s%s%s%s", p->n > 1 ? "== " : "", p->n > 1 ? p->hosts[i]->name : "",
                       p->n > 1 ? "\n" : "", p->results[i].text ? p->results[i].text : "", "");
        } else {
            print_table(verb, p);
        }
        status = cli_flush(c);
        json_decref(doc);
    }
    for (size_t i = 0; i < p->n; i++) {
        if (p->results[i].status == JOB_FAILED)
            fprintf(stderr, "siofleet: %s: %s\n", p->hosts[i]->name, p->results[i].message);
        job_result_clear(&p->results[i]);
    }
    return status ? status : failed ? 1 : 0;
}

static int deploy(struct cli *c, struct deploy_opts *o, const char *path, enum job_verb verb,
                  const char *name)
{
    struct err e = { 0 };
    CLEANUP(hosts_free) struct hosts *h = NULL;
    if (hosts_load(path, &h, &e) < 0)
        return cli_fail(c, &e);
    CLEANUP(freep) const struct host **list = calloc(h->n, sizeof(struct host *));
    CLEANUP(release_clear) struct release rel = { 0 };
    CLEANUP(freep) char *data = NULL;
    CLEANUP(buf_clear) struct buf server = BUF_INIT(4096);
    struct pool p = { .hosts = list };
    if (!list)
        return cli_failf(c, ENOMEM, "%s: out of memory", path);
    if (select_hosts(h, o, list, &p.n, &e) < 0)
        return cli_fail(c, &e);

    struct job_plan plan = { .verb = verb,
                             .hosts = h,
                             .dry_run = o->dry_run,
                             .keep_data = o->keep_data,
                             .timeout_ms = o->timeout.set ? o->timeout.v : 30000,
                             .lines = o->lines.set ? o->lines.v : 50 };
    if (plan.timeout_ms == 0)
        return cli_failf(c, SF_EUSAGE, "--timeout: 0 gives no step a chance");
    bool up = verb == JOB_UP || verb == JOB_UPGRADE;
    if (up) {
        struct key_pub pub;
        if (!h->coordinator || !h->server_key)
            return cli_failf(c, SF_EUSAGE, "%s: [fleet] needs coordinator= and server_key=", path);
        if (file_read(h->server_key, &server, &e) < 0 || key_load_pub(h->server_key, &pub, &e) < 0)
            return cli_fail(c, &e);
        if (pub.role != ROLE_COORDINATOR)
            return cli_failf(c, SF_EUSAGE, "%s: is the key of a %s, not of a coordinator",
                             h->server_key, role_name(pub.role));
        plan.server_line = (const char *)server.data;
    }
    if (up || verb == JOB_DOWN) {
        data = o->data ? strdup(o->data) : h->server_key ? data_of_key(h->server_key) : NULL;
        plan.allow_data = data;
        if (!data && up)
            return cli_failf(c, SF_EUSAGE,
                             "%s: server_key lies in no coordinator's data folder: name that with "
                             "--data, so that "
                             "the agents' keys can be allowed",
                             path);
    }
    if (up || verb == JOB_CHECK) {
        if (release_make(NULL, &rel, &e) < 0)
            return cli_fail(c, &e);
        plan.release = &rel;
    }
    if (ssh_init(&e) < 0)
        return cli_fail(c, &e);
    if (up || verb == JOB_DOWN)
        plan.note = say;

    CLEANUP(freep) struct job_result *results = calloc(p.n, sizeof(*results));
    if (!results)
        return cli_failf(c, ENOMEM, "%s: out of memory", path);
    p.plan = &plan;
    p.results = results;
    if (verb == JOB_UPGRADE)
        run_rolling(&p, o->batch.set ? o->batch.v : 1, o->max_failures.v);
    else
        run_all(&p, h->parallel);

    return report(c, o, verb, name, &p);
}

/* drain, undrain: the coordinator's business; the INI says which agents and where it is. */
static int drain(struct cli *c, struct deploy_opts *o, const char *path, const char *verb)
{
    struct err e = { 0 };
    CLEANUP(hosts_free) struct hosts *h = NULL;
    if (hosts_load(path, &h, &e) < 0)
        return cli_fail(c, &e);
    CLEANUP(freep) const struct host **list = calloc(h->n, sizeof(struct host *));
    CLEANUP(freep) struct job_result *results = calloc(h->n, sizeof(*results));
    CLEANUP(freep) char *data = NULL, *admin = NULL;
    struct pool p = { .hosts = list, .results = results };
    if (!list || !results)
        return cli_failf(c, ENOMEM, "%s: out of memory", path);
    if (select_hosts(h, o, list, &p.n, &e) < 0)
        return cli_fail(c, &e);
    /* what is not given comes from the INI; the key is the administrator's that the coordinator made beside its own */
    if (!o->fleet.connect)
        o->fleet.connect = h->coordinator;
    if (!o->fleet.server_key)
        o->fleet.server_key = h->server_key;
    if (!o->fleet.key && (data = o->data         ? strdup(o->data)
                                 : h->server_key ? data_of_key(h->server_key)
                                                 : NULL))
        o->fleet.key = admin = path_fmt("%s/keys/admin", data);
    CLEANUP(client_free) struct client *cl = NULL;
    if (client_open(&o->fleet, 0, NULL, &cl, &e) < 0)
        return cli_fail(c, &e);
    for (size_t i = 0; i < p.n; i++) {
        struct job_result *r = &results[i];
        *r = (struct job_result){ .status = JOB_CHANGED, .step = verb, .actions = json_array() };
        if (client_control(cl, verb, list[i]->name, NULL, &e) < 0) {
            r->status = JOB_FAILED;
            r->code = e.code;
            snprintf(r->message, sizeof(r->message), "%s", e.text);
        } else {
            json_array_append_new(r->actions, json_string(verb));
        }
    }
    return report(c, o, JOB_UP, verb, &p);
}

static int run_check(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], JOB_CHECK, "check");
}
static int run_up(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], JOB_UP, "up");
}
static int run_upgrade(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], JOB_UPGRADE, "upgrade");
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
    return deploy(c, o, argv[0], JOB_STATUS, "status");
}
static int run_down(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], JOB_DOWN, "down");
}
static int run_logs(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    return deploy(c, o, argv[0], JOB_LOGS, "logs");
}

static int run_init(struct cli *c, void *o, int argc, char **argv)
{
    (void)o, (void)argc, (void)argv;
    fputs(
        "# The hosts of a fleet. Ranges: [host kvm[01-40].lab]. Paths are relative to this file.\n"
        "[fleet]\n"
        "coordinator = tcp://head.lab:7700     ; where the agents connect to\n"
        "server_key  = data/keys/coordinator.pub ; made by the coordinator at its first start\n"
        "user        = lab                     ; who logs in; needs no root\n"
        ";port       = 22\n"
        ";identity   = ~/.ssh/id_ed25519       ; an ed25519 key; default: ssh-agent, then that "
        "file\n"
        ";known_hosts = ~/.ssh/known_hosts\n"
        ";data       = ~/.local/share/siofleet ; everything on a host lives there\n"
        ";parallel   = 16                      ; hosts worked on at once\n"
        "\n"
        "[class big]\n"
        "labels  = disk=nvme,room=2            ; for choosing hosts later\n"
        ";cores  = 16                          ; default: all\n"
        ";memory = 64G\n"
        "collect = yes                         ; runs QEMU stacks, too\n"
        "; set-up steps run once each, in this order, before a host joins\n"
        ";setup.modules = modprobe kvm_amd\n"
        ";setup.modules.sudo = yes\n"
        ";setup.modules.timeout = 30s\n"
        "\n"
        "[host kvm[01-04].lab]\n"
        "class = big\n"
        "\n"
        "[host spare]\n"
        "address = 192.0.2.17\n"
        ";hostkey = SHA256:...                 ; pins the key instead of known_hosts\n",
        stdout);
    return cli_flush(c);
}

#define HOSTS_ARG "HOSTS.ini"
const struct verb deploy_verbs[] = {
    { "deploy init", "", "print a commented HOSTS.ini", NULL,
      "siofleet deploy init > hosts.ini    # then edit it", NULL, 0, 0, 0, 0, run_init },
    { "deploy check", HOSTS_ARG, "tell whether each host can take an agent, and what to mend",
      "Connects, checks the host key, logs in, and compares architecture, glibc, disk, cores, "
      "memory, clock and sudo with what\n"
      "the host's class needs. Changes nothing.",
      "siofleet deploy check hosts.ini\nsiofleet deploy check hosts.ini --class big --json",
      plain_opts, sizeof(struct deploy_opts), 1, 1, 0, run_check },
    { "deploy up", HOSTS_ARG, "install, secure and start the agents",
      "Sends the release where it is missing, makes each agent's key pair on its host, allows the "
      "public half here, runs the\n"
      "set-up steps of its class once, starts the agent (systemd, or a supervised background "
      "process) and waits until it has\n"
      "registered. A second run changes nothing. Set-up steps with reboot=yes are refused by this "
      "version.",
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
    { "deploy status", HOSTS_ARG, "tell which agents run", NULL, "siofleet deploy status hosts.ini",
      plain_opts, sizeof(struct deploy_opts), 1, 1, 0, run_status },
    { "deploy logs", HOSTS_ARG, "print the newest log lines of the agents", NULL,
      "siofleet deploy logs hosts.ini --host kvm03.lab -n 200", logs_opts,
      sizeof(struct deploy_opts), 1, 1, 0, run_logs },
    { "deploy down", HOSTS_ARG, "stop the agents and remove all that was made on their hosts",
      "Nothing else is touched. --keep-data leaves the agent's key and data, so that a later up "
      "finds its cache again.",
      "siofleet deploy down hosts.ini\nsiofleet deploy down hosts.ini --host kvm03.lab --keep-data",
      down_opts, sizeof(struct deploy_opts), 1, 1, 0, run_down },
    { 0 },
};
