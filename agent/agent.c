#include "agent/agent_in.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/grow.h"
#include "agent/ring.h"
#include "agent/spec.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/lib/json.h"

enum {
    LOOK_MS = 20,    /* how often a running task's rows are looked for */
    DRAIN_MS = 7500, /* a drain that takes longer is cut short: 10 s are promised */
    HARD_MS = 1500,  /* for shims to kill their tasks */
    TURN_MAX = 256,  /* messages taken before anything else is looked at */
};

/* ---- messages */

static void on_grant(struct agent *a, const struct msg_grant *m)
{
    struct core_event ev = { .kind = CORE_GRANT, .key = { m->task, m->epoch, m->n } };
    struct core_action no = { .kind = CORE_DO_DECLINE, .key = ev.key };
    struct run_grant g = { .key = ev.key };
    struct id *inputs = NULL;
    size_t n = 0;
    struct err e = { 0 };
    int kind = run_kind_parse(m->kind);
    if (kind < 0) {
        no.code = "KIND";
        no.text = "this agent does not know tasks of this kind";
        agent_send_decline(a, &no);
        return;
    }
    g.kind = (enum core_kind)kind;
    if (spec_parse(&g, m->spec, m->spec_len, &inputs, &n, &e) < 0) {
        no.code = "SPEC";
        no.text = e.text;
        agent_send_decline(a, &no);
        return;
    }
    free(inputs);
    if (agent_program_changed(a))
        agent_work_off(a);
    ev.task_kind = g.kind;
    ev.points = g.points;
    a->grant = m;
    agent_step(a, &ev);
    a->grant = NULL;
}

static void write_ready(struct agent *a)
{
    if (!a->conf->ready_file)
        return;
    struct err e = { 0 };
    CLEANUP(json_decrefp) json_t *j = json_object();
    json_object_set_new(j, "schema", json_string("siofleet.ready/1"));
    json_object_set_new(j, "pid", json_integer(getpid()));
    json_object_set_new(j, "endpoint", json_str(a->conf->connect));
    json_object_set_new(j, "server_key", json_str(a->server.z85));
    json_object_set_new(j, "version", json_string(SIOFLEET_VERSION));
    json_object_set_new(j, "protocol", json_integer(wire_version()));
    json_object_set_new(j, "boot", json_u64(a->boot));
    CLEANUP(freep) char *text = json_dumps(j, JSON_COMPACT);
    CLEANUP(freep) char *line = text ? path_fmt("%s\n", text) : NULL;
    if (!line || file_write(a->conf->ready_file, line, strlen(line), 0644, true, &e) < 0)
        log_warn("ready file: %s", e.text);
}

static void dropped(struct agent *a, const struct wire_task_ref refs[], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct task_key key = { refs[i].task, refs[i].epoch, refs[i].n };
        if (!core_find(&a->core, &key))
            continue;
        log_info("task %" PRIu64 " is not ours any more; dropped", key.task);
        agent_push(a, (struct core_event){ .kind = CORE_DROPPED, .key = key });
    }
}

static void on_welcome(struct agent *a, const struct msg_welcome *m)
{
    /* first, so that nothing is sent for what is not ours */
    dropped(a, m->drop, m->n_drop);
    agent_push(a, (struct core_event){ .kind = CORE_WELCOME,
                                       .epoch = m->epoch,
                                       .lease_ms = m->lease_ms,
                                       .heartbeat_ms = m->heartbeat_ms });
    a->features = m->features;
    xfers_up(a->xfers, COORDINATOR, clock_mono_ms());
    agent_grow_up(a);
    agent_holds_up(a);
    log_info("registered with %s, epoch %" PRIu64 ", boot %" PRIu64, a->conf->connect, m->epoch,
             a->boot);
    if (!a->welcomed)
        write_ready(a);
    a->welcomed = true;
}

/* What the coordinator will not have ends the agent: it cannot become right by asking again. */
static void give_up(struct agent *a, int code, const char *text)
{
    if (a->fatal.code)
        return;
    err_set(&a->fatal, code, "%s: %s", a->conf->connect, text);
    agent_push(a, (struct core_event){ .kind = CORE_DRAIN });
    agent_push(a, (struct core_event){ .kind = CORE_DRAIN });
    a->drain_ms = clock_mono_ms();
    a->drain_cut = true;
}

/* What a task has written since; its end, too, until that is acknowledged. */
static void on_log_get(struct agent *a, const struct msg_log_get *m)
{
    struct task_key key = { m->task, m->epoch, m->n };
    struct run *r = agent_run_find(a, &key);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(65536 + 1);
    CLEANUP(freep)
    char *path = r && r->dir ? path_fmt("%s/%s", r->dir, m->stream ? "stderr" : "stdout") : NULL;
    struct msg ans = { .type = M_LOG_DATA,
                       .log_data = { .req = m->req, .known = path != NULL, .next = m->from } };
    if (path)
        ring_read(path, m->from, m->max_b, &b, &ans.log_data.next, NULL);
    ans.log_data.data = b.data;
    ans.log_data.data_len = b.len;
    link_send(a->link, COORDINATOR, &ans, NULL); /* a lost one is asked for again */
}

static void on_msg(struct agent *a, const struct msg *m)
{
    if (xfers_msg(a->xfers, COORDINATOR, m, clock_mono_ms()) || agent_grow_msg(a, m))
        return;
    switch (m->type) {
    case M_WELCOME:
        on_welcome(a, &m->welcome);
        break;
    case M_REFUSE:
        if (!strcmp(m->refuse.code, "HELLO_FIRST")) {
            /* it forgot us (its disk failed while it noted a second hello): as on a new connection. Once: what was sent
             * before the hello is refused as well. */
            if (a->core.welcome)
                agent_push(a, (struct core_event){ .kind = CORE_UP });
        } else if (m->refuse.exit == 1)
            log_warn("the coordinator refuses: %s", m->refuse.text);
        else
            give_up(a, SF_EREFUSED, m->refuse.text);
        break;
    case M_BEAT_ACK:
        trips_answered(&a->beats, &(struct trip_key){ .seq = m->beat_ack.seq }, clock_mono_ns());
        agent_push(a, (struct core_event){ .kind = CORE_BEAT_ACK, .seq = m->beat_ack.seq });
        dropped(a, m->beat_ack.drop, m->beat_ack.n_drop);
        break;
    case M_GRANT:
        on_grant(a, &m->grant);
        break;
    case M_ROWS_ACK:
        trips_answered(&a->results,
                       &(struct trip_key){ m->rows_ack.task, m->rows_ack.epoch, m->rows_ack.n,
                                           m->rows_ack.seq },
                       clock_mono_ns());
        agent_push(
            a, (struct core_event){ .kind = CORE_ROWS_ACK,
                                    .key = { m->rows_ack.task, m->rows_ack.epoch, m->rows_ack.n },
                                    .seq = m->rows_ack.seq });
        break;
    case M_END_ACK:
        trips_answered(&a->results,
                       &(struct trip_key){ m->end_ack.task, m->end_ack.epoch, m->end_ack.n, 0 },
                       clock_mono_ns());
        agent_push(
            a, (struct core_event){ .kind = CORE_END_ACK,
                                    .key = { m->end_ack.task, m->end_ack.epoch, m->end_ack.n } });
        break;
    case M_CANCEL:
        agent_push(a,
                   (struct core_event){ .kind = CORE_CANCEL,
                                        .key = { m->cancel.task, m->cancel.epoch, m->cancel.n } });
        break;
    case M_LOG_GET:
        on_log_get(a, &m->log_get);
        break;
    default:
        break;
    }
}

static void on_refused(struct agent *a, const char *text)
{
    /* the link begins with the endpoint, and so do the lines below */
    size_t n = strlen(a->conf->connect);
    if (!strncmp(text, a->conf->connect, n) && !strncmp(text + n, ": ", 2))
        text += n + 2;
    if (!a->welcomed) {
        give_up(a, SF_EREFUSED, text);
        return;
    }
    /* it had us before: perhaps its keys are being changed. What runs goes on. */
    uint64_t now = clock_mono_ms();
    if (now - a->refused_log_ms >= 60000 || !a->refused_log_ms)
        log_warn("refused by %s: %s; trying on", a->conf->connect, text);
    a->refused_log_ms = now;
}

static int take_messages(struct agent *a, struct err *e)
{
    for (int i = 0; i < TURN_MAX; i++) {
        struct link_event ev;
        int r = link_recv(a->link, &ev, e);
        if (r <= 0)
            return r;
        switch (ev.kind) {
        case LINK_MSG:
            on_msg(a, &ev.msg);
            break;
        case LINK_UP:
            a->absent_told = false;
            agent_push(a, (struct core_event){ .kind = CORE_UP });
            break;
        case LINK_GONE:
            if (a->welcomed && !a->exit_now)
                log_warn("coordinator %s is gone (%s); what runs goes on", a->conf->connect,
                         ev.text);
            xfers_gone(a->xfers, COORDINATOR, true);
            trips_forget(&a->beats);
            trips_forget(&a->results);
            agent_push(a, (struct core_event){ .kind = CORE_DOWN });
            break;
        case LINK_REFUSED:
            on_refused(a, ev.text);
            break;
        }
        link_event_clear(&ev);
        agent_work_off(a);
    }
    return 0;
}

/* ---- start */

static int load_install(struct agent *a, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/install", a->data);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    if (!path)
        return err_sys(e, ENOMEM, "%s", a->data);
    int r = file_read(path, &b, e);
    if (r == -ENOENT) {
        random_bytes(a->install, sizeof(a->install));
    } else if (r < 0) {
        return r;
    } else {
        CLEANUP(json_decrefp) json_t *j = json_loadb(b.data ? (char *)b.data : "", b.len, 0, NULL);
        const char *hex = json_string_value(json_object_get(j, "install"));
        if (!hex || strlen(hex) != 32 || strspn(hex, "0123456789abcdef") != 32 ||
            json_get_u64(j, "boot", &a->boot, NULL) < 0)
            return err_set(e, SF_EINTEGRITY,
                           "%s: not readable; with another data directory and a new key this host "
                           "can join again",
                           path);
        for (size_t i = 0; i < sizeof(a->install); i++) {
            char two[3] = { hex[2 * i], hex[2 * i + 1], '\0' };
            a->install[i] = (uint8_t)strtoul(two, NULL, 16);
        }
    }
    random_bytes(a->session, sizeof(a->session));
    a->boot++;
    char hex[33];
    for (size_t i = 0; i < sizeof(a->install); i++)
        snprintf(hex + 2 * i, 3, "%02x", a->install[i]);
    CLEANUP(freep)
    char *text = path_fmt("{\"install\":\"%s\",\"boot\":%" PRIu64 "}\n", hex, a->boot);
    return text ? file_write(path, text, strlen(text), 0600, true, e)
                : err_sys(e, ENOMEM, "%s", path);
}

static int lock_data(struct agent *a, struct err *e)
{
    int r = dir_make(a->conf->data, 0700, e);
    if (r < 0)
        return r;
    /* absolute: tasks run in folders of their own */
    a->data = realpath(a->conf->data, NULL);
    if (!a->data)
        return err_sys(e, errno, "%s", a->conf->data);
    CLEANUP(freep)
    char *path = path_fmt("%s/lock", a->data), *db = path_fmt("%s/store.db", a->data),
         *install = path_fmt("%s/install", a->data);
    if (!path || !db || !install)
        return err_sys(e, ENOMEM, "%s", a->data);
    if (access(db, F_OK) == 0 && access(install, F_OK) < 0)
        return err_set(e, EBUSY, "%s: the data folder of a coordinator", a->conf->data);
    a->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (a->lock_fd < 0)
        return err_sys(e, errno, "%s", path);
    if (flock(a->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? err_set(e, EBUSY, "%s: another agent runs on this data directory",
                             a->conf->data)
                   : err_sys(e, errno, "%s", path);
    return 0;
}

static int find_programs(struct agent *a, struct err *e)
{
    a->program = realpath("/proc/self/exe", NULL);
    if (!a->program || stat(a->program, &a->program_st) < 0)
        return err_sys(e, errno, "own program file");
    char *slash = strrchr(a->program, '/');
    a->shim = path_fmt("%.*s/siofleet-shim", (int)(slash - a->program), a->program);
    if (!a->shim)
        return err_sys(e, ENOMEM, "%s", a->program);
    if (access(a->shim, X_OK) < 0)
        return err_sys(e, errno, "%s", a->shim);
    return cid_file(a->program, &a->engine, NULL, e);
}

static int load_keys(struct agent *a, struct err *e)
{
    int r = key_load(a->conf->key, &a->key, e);
    if (r == 0)
        r = key_load_pub(a->conf->server_key, &a->server, e);
    if (r < 0)
        return r;
    if (a->key.pub.role != ROLE_AGENT)
        return err_set(e, SF_EREFUSED, "%s: a key of role %s; an agent needs one of role agent",
                       a->conf->key, role_name(a->key.pub.role));
    if (a->server.role != ROLE_COORDINATOR)
        return err_set(e, SF_EREFUSED, "%s: a key of role %s; the coordinator's is needed",
                       a->conf->server_key, role_name(a->server.role));
    snprintf(a->name, sizeof(a->name), "%s", a->conf->name ? a->conf->name : a->key.pub.name);
    return 0;
}

static int open_stores(struct agent *a, struct err *e)
{
    a->cache = path_fmt("%s/cache", a->data);
    a->tasks = path_fmt("%s/tasks", a->data);
    if (!a->cache || !a->tasks)
        return err_sys(e, ENOMEM, "%s", a->data);
    int r = dir_make(a->tasks, 0700, e);
    if (r == 0)
        r = cas_open(a->cache, a->conf->cache_max_b, &a->cas, e);
    agent_disks(a);
    return r < 0 ? r : agent_xfers_open(a, e);
}

/* Control groups are a help, not a need. */
static void find_groups(struct agent *a)
{
    char why[200], limits[64] = "";
    a->host = (struct run_host){ .shim = a->shim, .program = a->program };
    if (cgroup_base("/proc", a->groups, why) < 0) {
        log_info("no control groups for tasks: %s; their limits are not kept", why);
    } else {
        a->host.groups = a->groups;
        cgroup_controllers(a->groups, limits);
        log_info("control groups for tasks in %s limit: %s", a->groups, limits[0] ? limits : "-");
    }
    json_object_set_new(a->facts.json, "cgroup", a->host.groups ? json_str(limits) : json_null());
}

static int take_signals(struct agent *a, struct err *e)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    a->sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return a->sig_fd < 0 ? err_sys(e, errno, "signals") : 0;
}

static int start(struct agent *a, struct err *e)
{
    a->start_ms = clock_mono_ms();
    int r = load_keys(a, e);
    if (r < 0)
        return r;
    char who[96];
    snprintf(who, sizeof(who), "agent %s", a->name);
    log_init(who, a->conf->log_json, LOG_LEVEL_INFO);
    if ((r = find_programs(a, e)) < 0 || (r = lock_data(a, e)) < 0 ||
        (r = load_install(a, e)) < 0 || (r = open_stores(a, e)) < 0 || (r = take_signals(a, e)) < 0)
        return r;
    CLEANUP(freep) char *kvm = path_fmt("%s/kvm", a->data);
    if (!kvm)
        return err_sys(e, ENOMEM, "agent");
    facts_boot(a->host_boot);
    r = facts_get("/proc", "/sys", facts_kvm(kvm), &a->facts, e);
    if (r < 0)
        return r;
    find_groups(a);
    a->facts_text = json_dumps(a->facts.json, JSON_COMPACT);
    a->rows = calloc(CORE_BATCH, sizeof(*a->rows));
    buf_init(&a->block, FRAME_MAX * 2);
    buf_init(&a->packed, FRAME_MAX);
    if (!a->facts_text || !a->rows)
        return err_sys(e, ENOMEM, "agent");
    core_init(&a->core, a->conf->cores ? a->conf->cores : a->facts.cores);
    if (a->conf->ready_file)
        unlink(a->conf->ready_file); /* of an earlier run: nobody may take it for this one's */
    agent_look_at_space(a);
    r = link_client(a->conf->connect, &a->key, a->server.z85, &a->link, e);
    if (r == 0)
        r = agent_adopt_runs(a, e);
    if (r == 0)
        agent_work_off(a);
    return r;
}

/* ---- the loop */

static void on_signals(struct agent *a)
{
    struct signalfd_siginfo info;
    while (read(a->sig_fd, &info, sizeof(info)) == sizeof(info)) {
        uint64_t now = clock_mono_ms();
        if (!a->drain_ms)
            log_info("stopping: tasks are ended and given back");
        else
            a->drain_cut = true;
        a->drain_ms = now;
        agent_push(a, (struct core_event){ .kind = CORE_DRAIN });
    }
}

/* A drain has its time; what is not told by then is on disk for the next start. */
static void limit_drain(struct agent *a)
{
    uint64_t now = clock_mono_ms();
    if (!a->drain_ms)
        return;
    if (!a->core.drain_hard && now - a->drain_ms >= DRAIN_MS) {
        a->drain_ms = now;
        agent_push(a, (struct core_event){ .kind = CORE_DRAIN });
    } else if (a->core.drain_hard && now - a->drain_ms >= HARD_MS) {
        a->exit_now = true;
    }
}

static int64_t wait_ms(struct agent *a, int64_t xfer_ms)
{
    uint64_t now = clock_mono_ms(), at = core_deadline(&a->core);
    if (at < a->retry_ms)
        at = a->retry_ms;
    uint64_t most = a->drain_ms ? 20 : a->offer_again_ms || a->space.level ? SPACE_LOOK_MS : 2000;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (a->runs[i].used && (a->runs[i].pidfd >= 0 || a->runs[i].adopting))
            most = most < LOOK_MS ? most : LOOK_MS;
    if (xfer_ms >= 0 && (uint64_t)xfer_ms < most)
        most = (uint64_t)xfer_ms;
    if (at <= now)
        return 0;
    return at - now < most ? (int64_t)(at - now) : (int64_t)most;
}

static int turn(struct agent *a, struct err *e)
{
    int64_t xfer_ms = xfers_tick(a->xfers, clock_mono_ms());
    agent_holds_tell(a);
    int64_t grow_ms = agent_grow_pump(a);
    if (xfer_ms < 0 || (grow_ms >= 0 && grow_ms < xfer_ms))
        xfer_ms = grow_ms;
    agent_work_off(a);
    struct pollfd p[2 + CORE_TASKS_MAX] = { { .fd = a->sig_fd, .events = POLLIN } };
    size_t n = 1;
    if (a->bulk)
        p[n++] = (struct pollfd){ .fd = bulk_fd(a->bulk), .events = POLLIN };
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (a->runs[i].used && a->runs[i].pidfd >= 0)
            p[n++] = (struct pollfd){ .fd = a->runs[i].pidfd, .events = POLLIN };
    int r = link_poll(a->link, p, n, wait_ms(a, xfer_ms), e);
    if (r < 0)
        return r;
    on_signals(a);
    r = take_messages(a, e);
    if (r < 0)
        return r;
    agent_look_at_runs(a);
    agent_work_off(a);
    if (a->inputs_moved) {
        a->inputs_moved = false;
        for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
            struct run *x = &a->runs[i];
            if (x->used && x->fetching)
                agent_get_inputs(a, x);
            else if (x->used && x->offering)
                agent_offer_products(a, x);
        }
    }
    limit_drain(a);
    agent_look_at_space(a);
    if (a->offer_again_ms && clock_mono_ms() >= a->offer_again_ms) {
        a->offer_again_ms = 0;
        a->inputs_moved = true;
    }
    agent_sweep_folders(a);
    agent_push(a, (struct core_event){ .kind = CORE_TICK });
    agent_work_off(a);
    if (!a->welcomed && !a->absent_told && clock_mono_ms() - a->start_ms > 5000) {
        log_warn("no coordinator answers at %s; trying on", a->conf->connect);
        a->absent_told = true;
    }
    return 0;
}

static void stop(struct agent *a)
{
    link_free(&a->link, 500);
    if (a->sweep_ms) { /* what could not be removed before: the next start may be far */
        a->sweep_ms = 1;
        agent_sweep_folders(a);
    }
    if (a->conf->ready_file && a->welcomed)
        unlink(a->conf->ready_file);
    xfers_free(&a->xfers);
    bulk_free(&a->bulk);
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        agent_run_clear(a, &a->runs[i]);
    cas_free(&a->cas);
    agent_holds_clear(a);
    facts_clear(&a->facts);
    key_clear(&a->key);
    buf_clear(&a->block);
    buf_clear(&a->packed);
    free(a->rows);
    free(a->facts_text);
    free(a->data);
    free(a->program);
    free(a->shim);
    free(a->tasks);
    free(a->cache);
    closep(&a->sig_fd);
    closep(&a->lock_fd);
    free(a);
}

int agent_run(const struct agent_conf *conf, struct err *e)
{
    struct agent *a = calloc(1, sizeof(*a));
    if (!a)
        return err_sys(e, ENOMEM, "agent");
    a->conf = conf;
    a->lock_fd = a->sig_fd = -1;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        a->runs[i].pidfd = -1;
    int r = start(a, e);
    while (r == 0 && !a->exit_now)
        r = turn(a, e);
    if (r == 0 && a->fatal.code) {
        *e = a->fatal;
        r = -a->fatal.code;
    } else if (r == 0 && a->drain_cut) {
        r = err_set(e, ECANCELED,
                    "agent: stopped at once; what was not told is told at the next start");
    }
    stop(a);
    return r;
}
