#include "deploy/cli_slurm.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deploy/embed.h"
#include "deploy/scale.h"
#include "deploy/slurm_provider.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/base/num.h"
#include "proto/client/client.h"
#include "proto/lib/cli.h"

enum { WAIT_TOLD_MS = 30000, STOP_MS = 90000, CONNECT_MS = 3000 };

const struct opt slurm_opts[] = {
    { "min", 0, "N", "agents to keep without work (min=)", OPT_U64, offsetof(struct slurm_opt, min),
      0, SLURM_MAX },
    { "max", 0, "N", "agents at most (max=)", OPT_U64, offsetof(struct slurm_opt, max), 1,
      SLURM_MAX },
    { "idle", 0, "T", "let an agent go that had no work for so long (idle=)", OPT_MS,
      offsetof(struct slurm_opt, idle), 0, 0 },
    { "data", 0, "DIR",
      "data folder of the coordinator on this machine, whose allow-list gets the agents' keys "
      "(default: the one that server_key lies in)",
      OPT_STR, offsetof(struct slurm_opt, data), 0, 0 },
    { "template", 0, NULL, "print a commented CONF.ini", OPT_FLAG,
      offsetof(struct slurm_opt, template), 0, 0 },
    { "log-json", 0, NULL, "log one JSON object a line", OPT_FLAG,
      offsetof(struct slurm_opt, log_json), 0, 0 },
    { 0 }
};

/* What was told of a place, so that it is told once. */
struct told {
    uint64_t job, since_ms;
    char reason[64];
    bool registered;
};

struct drive {
    struct slurm_conf *conf;
    struct slurm_provider slurm;
    struct release release;
    struct allow *allow;
    struct buf server;
    char *data;  /* the coordinator's, with the allow-list */
    char *admin; /* the key that lies there */
    int lock;
    struct client *client;
    struct scale scale;
    struct scale_seen *seen;
    struct scale_action *actions;
    struct told *told;
    uint64_t points, wanted;
    bool no_queue, no_coordinator; /* already told */
};

static volatile sig_atomic_t stop, stop_now;
static void on_stop(int sig)
{
    (void)sig;
    stop_now = stop;
    stop = 1;
}

static void drive_clear(struct drive *d)
{
    client_free(&d->client);
    slurm_provider_clear(&d->slurm);
    allow_free(&d->allow);
    release_clear(&d->release);
    buf_clear(&d->server);
    scale_clear(&d->scale);
    freep(&d->seen);
    freep(&d->actions);
    freep(&d->told);
    freep(&d->data);
    freep(&d->admin);
    closep(&d->lock);
    slurm_conf_free(&d->conf);
}

/* ---- the coordinator */

static int connect_fleet(struct drive *d, struct err *e)
{
    if (d->client)
        return 0;
    struct client_opt o = { .connect = d->conf->coordinator,
                            .server_key = d->conf->server_key,
                            .key = d->conf->key ? d->conf->key : d->admin };
    return client_open(&o, CONNECT_MS, &stop, &d->client, e);
}

static size_t place_named(const struct drive *d, const char *name)
{
    size_t n = strlen(d->conf->name), i;
    if (!name || strncmp(name, d->conf->name, n) != 0 || name[n] != '-')
        return SIZE_MAX;
    i = strtoul(name + n + 1, NULL, 10) - 1;
    return i < d->conf->max && !strcmp(d->slurm.place[i].name, name) ? i : SIZE_MAX;
}

static int see_agents(void *ctx, json_t *body, struct err *e)
{
    (void)e;
    struct drive *d = ctx;
    size_t k;
    json_t *a;
    json_array_foreach (json_object_get(body, "items"), k, a) {
        size_t i = place_named(d, json_string_value(json_object_get(a, "name")));
        const char *state = json_string_value(json_object_get(a, "state"));
        uint64_t running = 0;
        if (i == SIZE_MAX || !state)
            continue;
        json_get_u64(a, "running", &running, NULL);
        struct scale_seen *s = &d->seen[i];
        /* a data folder that was lost leaves an older agent of the same name behind */
        bool here = strcmp(state, "stopped") != 0 && strcmp(state, "lost") != 0 &&
                    strcmp(state, "revoked") != 0;
        if (!here)
            continue;
        s->registered = true;
        s->drained = !strcmp(state, "drained") || !strcmp(state, "draining");
        s->running = running;
    }
    return 0;
}

/* Points that wait, and our agents. d->points is UINT64_MAX when the coordinator does not say. */
static int look_fleet(struct drive *d, struct err *e)
{
    CLEANUP(json_decrefp) json_t *queue = NULL;
    d->points = UINT64_MAX;
    int r = connect_fleet(d, e);
    r = r < 0 ? r : client_ask_one(d->client, "queue", NULL, &queue, e);
    if (r == 0) {
        for (size_t i = 0; i < d->conf->max; i++)
            d->seen[i] = (struct scale_seen){ .job = d->seen[i].job,
                                              .state = d->seen[i].state,
                                              .hopeless = d->seen[i].hopeless,
                                              .left_ms = d->seen[i].left_ms };
        r = client_ask(d->client, "ls-agents", NULL, see_agents, d, e);
    }
    if (r < 0) {
        client_free(&d->client);
        return r;
    }
    r = json_get_u64(queue, "points", &d->points, e);
    return r;
}

/* ---- acting */

static int act(struct drive *d, size_t i, enum place_verb verb, struct err *e)
{
    struct place_result r = { .status = PLACE_OK, .step = "start", .actions = json_array() };
    d->slurm.base.run(&d->slurm.base, i, verb, &r);
    int code = r.status == PLACE_FAILED ? r.code : 0;
    if (code)
        err_set(e, code, "%s", r.message);
    place_result_clear(&r);
    return -code;
}

enum { NEXT_LEN = 48 };
/* "; next try in 8 s", while a failure keeps back what is wanted. */
static const char *next_try(const struct drive *d, char text[NEXT_LEN])
{
    uint64_t ms = scale_wait_ms(&d->scale, clock_mono_ms());
    text[0] = '\0';
    if (ms)
        snprintf(text, NEXT_LEN, "; next try in %llu s", (unsigned long long)(ms + 500) / 1000);
    return text;
}

/* The last line that the agent of a place said. Owned. */
static char *last_words(struct drive *d, size_t i)
{
    struct place_result r = { .status = PLACE_OK, .step = "start", .actions = json_array() };
    d->slurm.base.run(&d->slurm.base, i, PLACE_LOGS, &r);
    char *ret = NULL, *save = NULL;
    for (char *line = r.text ? strtok_r(r.text, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        /* what Slurm itself writes there tells less than what the agent wrote before */
        if (!strncmp(line, "slurmstepd", 10) && ret)
            continue;
        free(ret);
        ret = strdup(line);
    }
    place_result_clear(&r);
    return ret;
}

static void submit(struct drive *d, size_t i)
{
    struct err e = { 0 };
    char next[NEXT_LEN];
    struct slurm_place *l = &d->slurm.place[i];
    /* its agent was drained when its last job ended, perhaps; one that never was is not known yet */
    if (d->client)
        client_control(d->client, "undrain", l->name, NULL, NULL);
    int r = act(d, i, PLACE_UP, &e);
    scale_submitted(&d->scale, i, r == 0 ? l->job : 0, clock_mono_ms());
    if (r == 0)
        log_info("%s: job %llu submitted", l->name, (unsigned long long)l->job);
    else
        log_error("%s: %s%s", l->name, e.text, next_try(d, next));
}

static void over(struct drive *d, const struct scale_action *a)
{
    char why[160], next[NEXT_LEN];
    const char *name = d->slurm.place[a->place].name;
    slurm_why(a->job, why);
    if (a->act == SCALE_OVER) {
        log_info("%s: job %llu is over: %s", name, (unsigned long long)a->job, why);
        return;
    }
    CLEANUP(freep) char *words = last_words(d, a->place);
    log_warn("%s: job %llu ended unasked: %s%s%s%s", name, (unsigned long long)a->job, why,
             words ? "; its agent: " : "", words ? words : "", next_try(d, next));
}

static void do_action(struct drive *d, const struct scale_action *a)
{
    struct err e = { 0 };
    const char *name = d->slurm.place[a->place].name;
    unsigned long long job = (unsigned long long)a->job;
    char next[NEXT_LEN];
    int r = 0;
    switch (a->act) {
    case SCALE_SUBMIT:
        submit(d, a->place);
        return;
    case SCALE_FAILED:
    case SCALE_OVER:
        over(d, a);
        return;
    case SCALE_DRAIN:
        log_info("%s: drained: %s", name, a->why);
        r = d->client ? client_control(d->client, "drain", name, NULL, &e) : 0;
        break;
    case SCALE_STOP:
    case SCALE_CANCEL:
        d->slurm.cancel = a->act == SCALE_CANCEL;
        log_info("%s: job %llu %s: %s%s", name, job, d->slurm.cancel ? "is cancelled" : "is to end",
                 a->why, d->slurm.cancel ? next_try(d, next) : "");
        r = act(d, a->place, PLACE_DOWN, &e);
        break;
    }
    if (r < 0)
        log_warn("%s: %s", name, e.text);
}

/* Reasons that no waiting mends: somebody has to do something. */
static bool hopeless(const char *reason)
{
    static const char *const words[] = {
        "JobHeldUser",
        "JobHeldAdmin",
        "launch_failed_requeued_held",
        "BadConstraints",
        "PartitionDown",
        "PartitionInactive",
        "PartitionNodeLimit",
        "PartitionTimeLimit",
        "InvalidAccount",
        "InvalidQOS",
        "AccountNotAllowed",
        "QOSNotAllowed",
        "DependencyNeverSatisfied",
        "NodeDown",
        "ReservationDeleted",
        "AssociationTimeLimit",
        "QOSTimeLimit",
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(reason, words[i]))
            return true;
    /* "Nodes required for job are DOWN, DRAINED or reserved ..." comes and goes with the nodes: it may mend */
    return strstr(reason, "MaxJobs") == NULL && strncmp(reason, "Assoc", 5) == 0 &&
           strstr(reason, "PerJob") != NULL;
}

static void tell(struct drive *d, size_t i, uint64_t now)
{
    struct told *t = &d->told[i];
    const struct slurm_place *l = &d->slurm.place[i];
    const struct slurm_job *j = l->seen;
    if (!j || j->state == SLURM_ENDED)
        return;
    if (j->id != t->job)
        *t = (struct told){ .job = j->id, .since_ms = now };
    if (j->state == SLURM_PENDING && strcmp(t->reason, j->reason) != 0 &&
        (hopeless(j->reason) || now - t->since_ms >= WAIT_TOLD_MS)) {
        snprintf(t->reason, sizeof(t->reason), "%s", j->reason);
        log_info("%s: job %llu waits: %s", l->name, (unsigned long long)j->id, j->reason);
    }
    if (j->state == SLURM_RUNNING && d->seen[i].registered && !t->registered) {
        t->registered = true;
        log_info("%s: works on %s as job %llu", l->name, j->node, (unsigned long long)j->id);
    }
}

static int look_queue(struct drive *d, struct err *e)
{
    int r = slurm_look(&d->slurm, e);
    for (size_t i = 0; r == 0 && i < d->conf->max; i++) {
        const struct slurm_job *j = d->slurm.place[i].seen;
        struct scale_seen *s = &d->seen[i];
        static const unsigned states[] = { [SLURM_PENDING] = SEEN_WAITS,
                                           [SLURM_RUNNING] = SEEN_RUNS,
                                           [SLURM_ENDING] = SEEN_RUNS,
                                           [SLURM_ENDED] = SEEN_OVER };
        s->job = j ? j->id : 0;
        s->state = j ? states[j->state] : SEEN_NONE;
        s->left_ms = j ? j->left_ms : UINT64_MAX;
        s->hopeless = j && j->state == SLURM_PENDING && hopeless(j->reason);
    }
    return r;
}

/* One failure is one line, however long it lasts; so is its end. */
static void once(bool *told, int r, const char *what, const struct err *e)
{
    if (r < 0 && !*told)
        log_warn("%s; %s", e->text, what);
    else if (r == 0 && *told)
        log_info("%s again", what);
    *told = r < 0;
}

static void turn(struct drive *d)
{
    struct err e = { 0 };
    int r = look_queue(d, &e);
    once(&d->no_queue, r, "the queue is asked", &e);
    if (r < 0)
        return;
    r = look_fleet(d, &e);
    if (stop)
        return;
    once(&d->no_coordinator, r, "the coordinator is asked", &e);
    uint64_t now = clock_mono_ms();
    for (size_t i = 0; i < d->conf->max; i++)
        tell(d, i, now);
    if (d->points != UINT64_MAX) {
        uint64_t want = scale_wanted(&d->scale.conf, d->points);
        if (want != d->wanted)
            log_info("%llu points to do: %llu agents wanted", (unsigned long long)d->points,
                     (unsigned long long)want);
        d->wanted = want;
    }
    size_t n = scale_step(&d->scale, d->seen, d->points, now, d->actions);
    for (size_t i = 0; i < n && !stop; i++)
        do_action(d, &d->actions[i]);
}

/* SIGTERM: no job stays. Agents hand over what they have; those that do not are ended. */
static int wind_up(struct drive *d)
{
    uint64_t start = clock_mono_ms();
    bool *asked = calloc(d->conf->max, sizeof(*asked));
    size_t alive = 1;
    struct err e = { 0 };
    log_info("stops: its jobs end");
    while (asked && alive && !stop_now && clock_mono_ms() - start < STOP_MS) {
        int r = slurm_look(&d->slurm, &e);
        once(&d->no_queue, r, "the queue is asked", &e);
        bool late = clock_mono_ms() - start >= SCALE_LEAVE_MS;
        if (r == 0)
            alive = d->slurm.strays;
        for (size_t i = 0; r == 0 && i < d->conf->max; i++) {
            const struct slurm_job *j = d->slurm.place[i].seen;
            if (!j || j->state == SLURM_ENDED)
                continue;
            alive++;
            if (asked[i] && !late)
                continue;
            d->slurm.cancel = late;
            asked[i] = act(d, i, PLACE_DOWN, &e) == 0;
            if (!asked[i])
                log_warn("%s: %s", d->slurm.place[i].name, e.text);
        }
        if (alive)
            poll(NULL, 0, 300);
    }
    free(asked);
    for (size_t i = 0; i < d->conf->max; i++) {
        const struct slurm_job *j = d->slurm.place[i].seen;
        if (alive && j && j->state != SLURM_ENDED)
            log_error("%s: job %llu is left: scancel %llu", d->slurm.place[i].name,
                      (unsigned long long)j->id, (unsigned long long)j->id);
        else if (!alive && slurm_forget_key(&d->slurm, i, &e) < 0)
            log_warn("%s: %s", d->slurm.place[i].name, e.text);
    }
    if (!alive)
        log_info("stopped: no job is left");
    return alive ? 1 : 0;
}

/* Until the next turn, or a signal. */
static void rest(uint64_t ms)
{
    sigset_t both, was;
    sigemptyset(&both);
    sigaddset(&both, SIGTERM);
    sigaddset(&both, SIGINT);
    sigprocmask(SIG_BLOCK, &both, &was);
    struct timespec t = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };
    if (!stop)
        ppoll(NULL, 0, &t, &was);
    sigprocmask(SIG_SETMASK, &was, NULL);
}

/* ---- the start */

/* One program for each data=: the lock dies with it. */
static int lock_data(struct drive *d, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/lock", d->conf->data);
    d->lock = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (d->lock < 0)
        return err_sys(e, errno, "%s", path ? path : d->conf->data);
    if (flock(d->lock, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, SF_EFAILED, "%s: another siofleet deploy slurm uses it", d->conf->data);
    return 0;
}

static int prepare(struct drive *d, const struct slurm_opt *o, struct err *e)
{
    struct slurm_conf *c = d->conf;
    struct key_pub pub;
    int r = key_load_pub(c->server_key, &pub, e);
    if (r < 0)
        return r;
    if (pub.role != ROLE_COORDINATOR)
        return err_set(e, SF_EUSAGE, "%s: is the key of a %s, not of a coordinator", c->server_key,
                       role_name(pub.role));
    d->data = o->data ? strdup(o->data) : allow_data_of(c->server_key);
    if (!d->data)
        return err_set(e, SF_EUSAGE,
                       "%s: the agents' keys must join an allow-list, but server_key= lies in no "
                       "coordinator's data folder: name that with --data",
                       c->path);
    if (!(d->admin = path_fmt("%s/keys/admin", d->data)))
        return err_sys(e, ENOMEM, "%s", c->path);
    r = file_read(c->server_key, &d->server, e);
    r = r < 0 ? r : allow_local(d->data, &d->allow, e);
    r = r < 0 ? r : dir_make(c->data, 0700, e);
    if (r < 0)
        return r;
    char *real = realpath(c->data, NULL); /* Slurm tells folders so */
    if (!real)
        return err_sys(e, errno, "%s", c->data);
    free(c->data);
    c->data = real;
    r = lock_data(d, e);
    r = r < 0 ? r : connect_fleet(d, e);
    r = r < 0 ? r : release_make(&d->release, e);
    return r < 0 ? r
                 : slurm_provider_init(&d->slurm, c, &d->release, (const char *)d->server.data,
                                       d->allow, e);
}

static int adopt(struct drive *d, struct err *e)
{
    const struct slurm_conf *c = d->conf;
    d->seen = calloc(c->max, sizeof(*d->seen));
    d->told = calloc(c->max, sizeof(*d->told));
    d->actions = calloc(2 * c->max, sizeof(*d->actions));
    struct scale_conf s = { .min = c->min,
                            .max = c->max,
                            .points = c->points,
                            .idle_ms = c->idle_ms,
                            .drain_ms = c->drain_ms,
                            .start_ms = c->start_ms,
                            .held_ms = c->held_ms };
    if (!d->seen || !d->told || !d->actions || scale_init(&d->scale, &s) < 0)
        return err_sys(e, ENOMEM, "%s", c->path);
    int r = slurm_look(&d->slurm, e);
    size_t n = 0;
    for (size_t i = 0; r == 0 && i < c->max; i++)
        n += d->slurm.place[i].seen != NULL;
    if (r < 0)
        return r;
    if (n)
        log_info("%zu jobs of a call before are taken over", n);
    r = act(d, 0, PLACE_CHECK, e);
    if (r < 0 && n) { /* they are to be looked after all the same */
        log_warn("%s", e->text);
        r = 0;
    }
    return r;
}

int slurm_run(struct cli *c, void *opts, int argc, char **argv)
{
    struct slurm_opt *o = opts;
    struct err e = { 0 };
    if (o->template) {
        fwrite(embed_slurm, 1, embed_slurm_n, stdout);
        return cli_flush(c);
    }
    if (argc != 1)
        return cli_failf(c, SF_EUSAGE, "deploy slurm: needs CONF.ini");
    CLEANUP(drive_clear) struct drive d = { .lock = -1, .server = BUF_INIT(4096) };
    if (slurm_conf_load(argv[0], &d.conf, &e) < 0)
        return cli_fail(c, &e);
    if (o->min.set)
        d.conf->min = o->min.v;
    if (o->max.set)
        d.conf->max = o->max.v;
    if (o->idle.set)
        d.conf->idle_ms = o->idle.v;
    if (d.conf->min > d.conf->max)
        return cli_failf(c, SF_EUSAGE, "%s: min %llu is more than max %llu", argv[0],
                         (unsigned long long)d.conf->min, (unsigned long long)d.conf->max);
    log_init("slurm", o->log_json, LOG_LEVEL_INFO);
    umask(077);
    struct sigaction sa = { .sa_handler = on_stop };
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    if (prepare(&d, o, &e) < 0 || adopt(&d, &e) < 0)
        return cli_fail(c, &e);
    while (!stop) {
        turn(&d);
        rest(d.conf->poll_ms);
    }
    return wind_up(&d);
}
