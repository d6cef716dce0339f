#include "coordinator/serve.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/format/trace.h"

enum {
    TURN_MESSAGES = 512, /* taken before they are made durable together */
    TURN_MS = 20,
    TURN_MAX_MS = 100,
    TURN_WORTH =
        4, /* messages are taken for so many times what it took to make the last ones durable */
    POLL_MAX_MS = 250,
    LINGER_MS = 1000,
};

/* ---- transfers */

static int x_send(void *ctx, uint64_t peer, const struct msg *m)
{
    return link_send(((struct hub *)ctx)->link, peer, m, NULL);
}

/* The note in the store joins the file in the cas; durable with the next commit. */
static int note_artefact(struct hub *h, const struct id *id, uint64_t size_b, const char *kind,
                         const char *name, struct err *e)
{
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    struct store_artefact a = { .id = *id, .size_b = size_b, .added_ms = clock_wall_ms() };
    snprintf(a.kind, sizeof(a.kind), "%s", *kind ? kind : "trace");
    snprintf(a.name, sizeof(a.name), "%s", name);
    bool trace = !strcmp(a.kind, "trace");
    if (trace) { /* what calls itself a trace and is none goes at once */
        CLEANUP(freep) char *path = cas_path(h->cas, id);
        struct trace_head head;
        uint64_t events;
        int bad = path ? trace_read_head(path, &head, &events, e)
                       : err_sys(e, ENOMEM, "artefact %.8s", hex);
        if (bad < 0) {
            err_place(e, bad, path ? path : "", ""); /* who offers it has a name for it */
            log_warn("artefact %.8s: offered as a trace: %s", hex, e->text);
            cas_delete(h->cas, id, NULL);
            return bad;
        }
    }
    if (!hub_write(h)) {
        *e = h->why;
        return -h->why.code;
    }
    struct store_trace tr;
    int r = store_add_artefact(h->store, &a, NULL, e);
    if (r >= 0 && trace)
        r = hub_note_trace(h, id, &tr, e);
    if (r < 0) {
        hub_fail(h, e);
        return r;
    }
    log_info("artefact %.8s (%s, %" PRIu64 " bytes) is here", hex, a.kind, a.size_b);
    return 0;
}

static int x_settle(void *ctx, struct err *e)
{
    return hub_commit(ctx) ? 0 : err_set(e, ENOSPC, "artefacts cannot be noted in the store");
}

static int x_offered(void *ctx, uint64_t peer, const struct msg_put_offer *o, bool here,
                     struct err *e)
{
    struct hub *h = ctx;
    (void)peer;
    if (strcmp(o->kind, "log") != 0 && strcmp(o->kind, "trace") != 0 &&
        strcmp(o->kind, "file") != 0)
        return err_set(e, SF_EUSAGE, "artefact of kind '%.31s': log, trace or file is known here",
                       o->kind);
    cas_use(h->cas, &o->id);
    if (here) { /* it came before, but perhaps the disk was full when it was to be noted */
        char hex[ID_HEX_LEN];
        struct store_artefact a;
        id_hex(&o->id, hex);
        if (store_artefact(h->store, hex, &a, NULL) == 0)
            return 0;
        int r = note_artefact(h, &o->id, o->size_b, o->kind, o->name, e);
        return r < 0 ? r : x_settle(h, e);
    }
    return hub_admit_put(h, &o->id, o->size_b, e);
}

static int x_ended(void *ctx, const struct xfers_end *end, struct err *e)
{
    struct hub *h = ctx;
    char hex[ID_HEX_LEN];
    struct store_artefact old;
    id_hex(&end->id, hex);
    if (end->dir != XFERS_IN)
        return 0;
    if (end->code) {
        if (end->code == SF_EINTEGRITY || end->code == ENOENT)
            hub_spoil(h, &end->id);
        if (!hub_mended(h, &end->id, end->peer, false))
            log_warn("artefact %.8s: not taken: %s", hex, end->text);
        return 0;
    }
    hub_spoiled(h, &end->id);                                    /* no more */
    bool known = store_artefact(h->store, hex, &old, NULL) == 0; /* it was here before */
    int r = note_artefact(h, &end->id, end->size_b, known ? old.kind : end->kind,
                          known ? old.name : end->name, e);
    if (r >= 0 && (h->n_wants || !strcmp(known ? old.kind : end->kind, "trace"))) {
        r = x_settle(h, e); /* somebody waits for it, who may not be told before it is durable */
        if (r >= 0)
            hub_mended(h, &end->id, end->peer, true);
    }
    if (r >= 0 && end->bulk_chunks)
        log_info("artefact %.8s: %" PRIu64 " chunks of it came by bulk", hex, end->bulk_chunks);
    return r;
}

static int x_streamed(void *ctx, const struct xfers_end *end, struct err *e)
{
    int r = x_ended(ctx, end, e);
    return r < 0 ? r : x_settle(ctx, e);
}

static int x_room(void *ctx, uint64_t more_b, struct err *e)
{
    struct hub *h = ctx;
    return h->conf->store_max_b && cas_bytes(h->cas) + more_b > h->conf->store_max_b
               ? err_set(e, ENOSPC, "store: full (--store-max)")
               : 0;
}

/* A peer wants one that should be here. */
static int x_wanted(void *ctx, uint64_t peer, const struct id *id, struct err *e)
{
    struct hub *h = ctx;
    (void)peer;
    if (cas_check(h->cas, id)) {
        cas_use(h->cas, id);
        return 0;
    }
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    hub_missing(h, id);
    return err_set(e, ENOENT, "artefact %.16s: not at the coordinator", hex);
}

/* Reading for a transfer: what cannot be read whole is looked into. */
static ssize_t x_read(void *ctx, const struct id *id, uint64_t index, void *p, size_t room,
                      struct err *e)
{
    struct hub *h = ctx;
    ssize_t n = cas_read(h->cas, id, index, p, room, e);
    if (n < 0 && n != -EINVAL)
        hub_suspect(h, id);
    return n;
}

static int x_begin(void *ctx, const struct id *id, uint64_t size_b, const struct id hashes[],
                   size_t n, void **ret_put, struct err *e)
{
    struct hub *h = ctx;
    return h->plain.begin(h->cas, id, size_b, hashes, n, ret_put, e);
}

static int x_hashes(void *ctx, const struct id *id, struct id **ret, size_t *ret_n,
                    uint64_t *ret_size, struct err *e)
{
    struct hub *h = ctx;
    int r = cas_hashes(h->cas, id, ret, ret_n, ret_size, e);
    if (r < 0 && r != -ENOENT)
        hub_suspect(h, id);
    return r;
}

static int x_open(void *ctx, const struct id *id, uint64_t *ret_size, struct err *e)
{
    struct hub *h = ctx;
    int r = cas_open_item(h->cas, id, ret_size, e);
    if (r < 0 && r != -ENOENT)
        hub_suspect(h, id);
    return r;
}

static uint64_t x_features(void *ctx, uint64_t peer)
{
    return hub_features(ctx, peer);
}

/* From its hello. Without memory it is one that can do nothing new. */
static void note_features(struct hub *h, uint64_t peer, uint64_t features)
{
    map_del(&h->features, peer);
    if (features)
        map_put(&h->features, peer, (void *)(uintptr_t)features);
}

/* ---- start */

static int make_key(const char *dir, const char *name, enum role role, struct key_pair *ret,
                    bool *made, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/keys/%s", dir, name);
    if (!path)
        return err_sys(e, ENOMEM, "%s", dir);
    *made = access(path, F_OK) < 0;
    return *made ? key_new(path, role, name, ret, e) : key_load(path, ret, e);
}

static int make_keys(const char *dir, struct key_pair *own, struct err *e)
{
    CLEANUP(freep) char *keys = path_fmt("%s/keys", dir);
    struct key_pair admin;
    bool made;
    int r = keys ? dir_make(keys, 0700, e) : err_sys(e, ENOMEM, "%s", dir);
    if (r >= 0)
        r = make_key(dir, "coordinator", ROLE_COORDINATOR, own, &made, e);
    if (r < 0)
        return r;
    r = make_key(dir, "admin", ROLE_USER, &admin, &made, e);
    if (r >= 0 && made)
        r = keys_allow(dir, &admin.pub, e);
    key_clear(&admin);
    return r;
}

static int write_ready(const struct hub *h, const struct key_pair *own, struct err *e)
{
    if (!h->conf->ready_file)
        return 0;
    json_t *j = json_object();
    json_object_set_new(j, "schema", json_string("siofleet.ready/1"));
    json_object_set_new(j, "pid", json_integer(getpid()));
    json_object_set_new(j, "endpoint", json_str(link_endpoint(h->link, 0)));
    json_object_set_new(j, "bulk_port", h->bulk ? json_integer(bulk_port(h->bulk)) : json_null());
    json_object_set_new(j, "server_key", json_str(own->pub.z85));
    json_object_set_new(j, "version", json_string(SIOFLEET_VERSION));
    json_object_set_new(j, "protocol", json_integer(wire_version()));
    json_object_set_new(j, "epoch", json_u64(h->epoch));
    CLEANUP(freep) char *text = json_dumps(j, JSON_COMPACT);
    json_decref(j);
    CLEANUP(freep) char *line = text ? path_fmt("%s\n", text) : NULL;
    return line ? file_write(h->conf->ready_file, line, strlen(line), 0644, true, e)
                : err_sys(e, ENOMEM, "ready file");
}

/* The epoch is raised and durable before anything is granted under it. */
static int raise_epoch(struct hub *h, struct err *e)
{
    int r = store_get(h->store, "epoch", &h->epoch, e);
    if (r >= 0)
        r = store_begin(h->store, e);
    if (r >= 0)
        r = store_set(h->store, "epoch", ++h->epoch, e);
    char text[64];
    snprintf(text, sizeof(text), "epoch %" PRIu64, h->epoch);
    if (r >= 0)
        r = store_event(h->store, clock_wall_ms(), "coordinator", "start", text, e);
    return r < 0 ? r : store_commit(h->store, e);
}

static int own_engine(struct hub *h, struct err *e)
{
    uint64_t num;
    int r = cid_file("/proc/self/exe", &h->engine, NULL, e);
    return r < 0 ? r : hub_engine(h, &h->engine, &num, e);
}

/* ---- loop */

static void on_message(struct hub *h, const struct link_event *ev)
{
    const struct peer *p = &ev->peer;
    const struct msg *m = &ev->msg;
    if (m->type == M_XFER_FAIL && !strcmp(m->xfer_fail.code, err_name(SF_EINTEGRITY)))
        hub_suspect(h, &m->xfer_fail.id);
    if (m->type == M_BULK_NO)
        hub_peer_no(h, p, &m->bulk_no);
    if (xfers_msg(h->xfers, p->id, m, clock_mono_ms()) ||
        streams_msg(h->streams, p->id, p->key, m, clock_mono_ms()))
        return;
    switch (m->type) {
    case M_AGENT_HELLO:
        note_features(h, p->id, m->agent_hello.features);
        hub_hello(h, p, &m->agent_hello);
        hub_peer_hello(h, p, &m->agent_hello);
        hub_class_hello(h, p, &m->agent_hello);
        break;
    case M_HOLDS:
        hub_peer_holds(h, p, &m->holds);
        break;
    case M_BEAT:
        hub_beat(h, p, &m->beat);
        break;
    case M_ROWS:
    case M_ROW_BLOCK:
        hub_rows(h, p, m);
        break;
    case M_TASK_END:
        hub_task_end(h, p, &m->task_end);
        break;
    case M_DECLINE:
        hub_decline(h, p, &m->decline);
        break;
    case M_USER_HELLO: {
        note_features(h, p->id, m->user_hello.features);
        struct msg w = { .type = M_USER_WELCOME,
                         .user_welcome = { .req = m->user_hello.req,
                                           .epoch = h->epoch,
                                           .version = SIOFLEET_VERSION,
                                           .role = role_name(p->role),
                                           .features = h->bulk ? bulk_features() : 0,
                                           .bulk_port = h->bulk ? bulk_port(h->bulk) : 0 } };
        link_send(h->link, p->id, &w, NULL);
        break;
    }
    case M_LOG_DATA:
        hub_log_data(h, p, &m->log_data);
        break;
    case M_SUBMIT_JOB:
        hub_submit_job(h, p, &m->submit_job);
        break;
    case M_SUBMIT:
        hub_submit(h, p, &m->submit);
        break;
    case M_CONTROL:
        hub_control(h, p, &m->control);
        break;
    case M_ASK:
        hub_ask(h, p, &m->ask);
        break;
    default:
        break;
    }
}

static void on_gone(struct hub *h, const struct peer *p)
{
    xfers_gone(h->xfers, p->id, false);
    map_del(&h->features, p->id);
    hub_peer_gone(h, p->id);
    struct hub_agent *a = map_get(&h->agent_of_peer, p->id);
    if (a && a->hello)
        hub_commit(h);
    a = map_get(&h->agent_of_peer, p->id);
    if (!a)
        return;
    map_del(&h->agent_of_peer, p->id);
    a->peer = 0;
    trips_forget(&a->cancels);
    hub_class_gone(h, a);
    struct sched_event ev = { .type = EV_GONE };
    memcpy(ev.agent.install, a->info.install, 16);
    hub_step(h, &ev);
    const struct sched_agent *s = sched_agent(&h->sched, a->info.install);
    if (!s || !s->stopped) {
        log_info("agent '%s' disconnected; its leases run on", a->info.name);
        return;
    }
    log_info("agent '%s' stopped", a->info.name);
    struct err e = { 0 };
    uint64_t now = clock_wall_ms();
    if (hub_write(h) && (store_agent_stopped(h->store, a->info.install, now, &e) < 0 ||
                         store_event(h->store, now, "agent", a->info.name, "stopped", &e) < 0))
        hub_fail(h, &e);
}

static int take_messages(struct hub *h, struct err *e)
{
    uint64_t until = clock_mono_ms() + h->turn_ms;
    for (int i = 0; i < TURN_MESSAGES; i++) {
        struct link_event ev;
        int r = link_recv(h->link, &ev, e);
        if (r < 0)
            return r;
        if (r == 0)
            break;
        if (ev.kind == LINK_MSG)
            on_message(h, &ev);
        else if (ev.kind == LINK_GONE)
            on_gone(h, &ev.peer);
        link_event_clear(&ev);
        if (clock_mono_ms() >= until)
            break;
    }
    return 0;
}

/* 1 = a signal to end came. */
static int take_signals(int fd)
{
    struct signalfd_siginfo s;
    int n = 0;
    while (read(fd, &s, sizeof(s)) == (ssize_t)sizeof(s))
        n++;
    return n;
}

static int loop(struct hub *h, int sig, struct err *e)
{
    int64_t xfer_ms = -1;
    for (;;) {
        uint64_t now = clock_mono_ms(),
                 next = now < h->tick_ms ? h->tick_ms : sched_next_ms(&h->sched);
        int64_t wait = next <= now                ? 0
                       : next - now < POLL_MAX_MS ? (int64_t)(next - now)
                                                  : POLL_MAX_MS;
        if (xfer_ms >= 0 && xfer_ms < wait)
            wait = xfer_ms;
        if (h->gc || (h->sched.loading && now >= h->rest.next_ms))
            wait = 0;
        struct pollfd fds[2] = { { .fd = sig, .events = POLLIN },
                                 { .fd = h->bulk ? bulk_fd(h->bulk) : -1, .events = POLLIN } };
        int r = link_poll(h->link, fds, h->bulk ? 2 : 1, wait, e);
        if (r < 0)
            return r;
        if (fds[0].revents && take_signals(sig)) {
            log_info("stopping: nothing new is granted, what runs on agents runs on");
            hub_step(h, &(struct sched_event){ .type = EV_STOP });
            r = take_messages(h, e); /* what is here already is still answered */
            hub_commit(h);
            h->tick_ms = 0;
            hub_tick(h);
            return take_signals(sig) ? -ECANCELED : r;
        }
        r = take_messages(h, e);
        if (r < 0)
            return r;
        uint64_t start = clock_mono_ms();
        hub_commit(h);
        uint64_t took = clock_mono_ms() - start;
        hub_look_at_space(h);
        hub_mend(h);
        hub_gc_step(h);
        hub_restore_some(h);
        xfer_ms = xfers_tick(h->xfers, clock_mono_ms());
        int64_t stream_ms = streams_tick(h->streams, clock_mono_ms());
        if (xfer_ms < 0 || (stream_ms >= 0 && stream_ms < xfer_ms))
            xfer_ms = stream_ms;
        hub_commit(h); /* a transfer may have ended */
        hub_log_tick(h, clock_mono_ms());
        hub_look_after(h);
        hub_drain_due(h);
        hub_commit(h);
        start = clock_mono_ms();
        hub_tick(h);
        /* on a slow disk more goes into one transaction: the wait for it is shared */
        took = TURN_WORTH * (took + clock_mono_ms() - start);
        h->turn_ms = took < TURN_MS ? TURN_MS : took < TURN_MAX_MS ? took : TURN_MAX_MS;
    }
}

static int open_all(struct hub *h, struct key_pair *own, struct err *e)
{
    const struct coordinator_conf *c = h->conf;
    CLEANUP(freep) char *cas_dir = path_fmt("%s/cas", c->data);
    CLEANUP(freep) char *allowed = keys_dir(c->data);
    if (!cas_dir || !allowed)
        return err_sys(e, ENOMEM, "%s", c->data);
    int r = store_open(c->data, &h->store, e);
    if (r >= 0)
        r = make_keys(c->data, own, e);
    if (r >= 0)
        r = cas_open(cas_dir, 0, &h->cas, e);
    /* listening comes before the epoch: a port in use must not cost one */
    if (r >= 0)
        r = link_server(c->listen, c->n_listen, own, allowed, &h->link, e);
    if (r >= 0 && c->bulk)
        r = bulk_new(&(struct bulk_conf){ .listen = c->bulk, .rate_b = c->bulk_rate_b }, &h->bulk,
                     e);
    if (r >= 0)
        r = raise_epoch(h, e);
    if (r >= 0)
        r = own_engine(h, e);
    if (r >= 0)
        r = hub_restore(h, e);
    if (r < 0)
        return r;
    struct xfer_store xs = xfer_store_cas(h->cas);
    struct xfers_ops ops = { .ctx = h,
                             .send = x_send,
                             .offered = x_offered,
                             .wanted = x_wanted,
                             .ended = x_ended,
                             .settle = x_settle,
                             .features = x_features,
                             .broker = hub_broker,
                             .class_of = hub_class_of };
    h->plain = xs;
    xs.ctx = h;
    xs.read = x_read;
    xs.hashes = x_hashes;
    xs.begin = x_begin;
    xs.open = x_open;
    h->xfers = xfers_new(&xs, &ops, CAS_SIZE_MAX);
    struct streams_ops stream_ops = {
        .ctx = h, .send = x_send, .room = x_room, .ended = x_streamed
    };
    h->streams = streams_new(h->cas, &stream_ops);
    if (!h->xfers || !h->streams)
        return err_sys(e, ENOMEM, "transfers");
    if (h->bulk && !(h->peers = peers_new()))
        return err_sys(e, ENOMEM, "transfers");
    if (h->bulk)
        xfers_set_bulk(h->xfers, &(struct xfers_bulk){ .bulk = h->bulk, .makes_tickets = true });
    return hub_mend_start(h, e);
}

/* A connection is a descriptor: the soft limit, often 1024 for the sake of select(), is no limit of ours. */
static void more_files(void)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) < 0 || lim.rlim_cur == lim.rlim_max)
        return;
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
}

int coordinator_run(const struct coordinator_conf *conf, struct err *e)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    more_files();
    CLEANUP(closep) int sig = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (sig < 0)
        return err_sys(e, errno, "signalfd");
    struct hub h = { .conf = conf,
                     .turn_ms = TURN_MS,
                     .space = { .high_b = conf->high_water_b, .low_b = conf->low_water_b } };
    struct key_pair own = { 0 };
    list_init(&h.sched.agent_list);
    list_init(&h.sched.trace_tasks);
    list_init(&h.sched.job_list);
    int r = open_all(&h, &own, e);
    if (r >= 0)
        r = write_ready(&h, &own, e);
    if (r >= 0) {
        log_info("serving %s from %s, epoch %" PRIu64 ", %zu sweeps open", link_endpoint(h.link, 0),
                 conf->data, h.epoch, h.n_lives);
        r = loop(&h, sig, e);
        if (conf->ready_file)
            unlink(conf->ready_file);
    }
    key_clear(&own);
    if (h.link)
        link_free(&h.link, r < 0 ? 0 : LINGER_MS);
    xfers_free(&h.xfers);
    streams_free(&h.streams);
    bulk_free(&h.bulk);
    peers_free(&h.peers);
    map_clear(&h.features);
    hub_clear(&h);
    store_free(&h.store);
    cas_free(&h.cas);
    if (r >= 0)
        log_info("stopped");
    return r;
}
