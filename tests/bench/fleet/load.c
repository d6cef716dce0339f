/* Agents without work: many CURVE connections from one process that speak the agents' protocol and answer grants at once. By
 * it a coordinator is measured alone: what is left beside it is encryption, TCP and this program.
 *
 *   load agents --data DIR --connect EP [--agents N] [--cores N] [--sweep INI] [--points N] [--seconds N] [--hold N]
 *               [--beat-ms N] [--collect] [--plain] [--ready-file F]
 *   load latency --data DIR --connect EP --sweep INI [--runs N] [--gap-ms N]
 *   load queue --data DIR --connect EP [--jobs N] [--tasks N]     jobs of so many tasks that fit no agent
 *   load queue --data DIR --connect EP [--jobs N] --exec AGENT    so many commands `true` for one agent
 *   load stamp                              CLOCK_MONOTONIC in ns, for tasks that say when they started
 *
 * Each agent is a connection with a key of its own, put into the allow-list of the coordinator in DIR; all hang on one ROUTER,
 * so that each costs one descriptor. A block of points is
 * answered with one row a point (status done, statistics all zero) and its end, as a real agent's messages; a block counts
 * when end_ack came, a row when rows_ack came, which the coordinator sends after its commit. --sweep names the sweep's INI:
 * the ids of its points are made before the clock runs, as a real agent's task makes them elsewhere. --hold keeps the first
 * N tasks of each agent for ever, named as running in each beat. --plain: every second one speaks as agents did
 * before row_block and lists of points. cpu_s is from the first grant on. SIGUSR1: the coordinator was started anew; every connection is
 * made again, as a real agent does when its own breaks, and --ready-file appears again when all are back. JSON on stdout; exit 1 with one line when something is
 * refused or rows are missing.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "perf/sweep.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/rng.h"
#include "proto/format/row.h"
#include "proto/lib/locked.h"
#include "proto/link/keys.h"
#include "proto/wire/rows.h"

enum { TASKS_MAX = 64, SAMPLES_MAX = 1 << 20 };

struct held {
    uint64_t task, epoch, n;
    unsigned rows;
    bool ended; /* waits for its end_ack */
};

struct agent {
    struct key_pair key;
    uint8_t install[16];
    uint64_t beat_at_ms, beat_ns, seq;
    bool welcome, early; /* early: its last beat */
    uint64_t features;   /* of the coordinator */
    unsigned n_held;
    struct held *held; /* TASKS_MAX of them, made with the first task */
};

static struct {
    const char *data, *ep, *sweep_ini, *ready_file, *exec;
    uint64_t agents, cores, points, seconds, hold, beat_ms, runs, gap_ms, jobs, tasks;
    bool collect, plain;
    bool fail; /* rows say that their point failed: it stays unknown and can be asked for again */
} opt = {
    .agents = 1, .cores = 16, .beat_ms = 2000, .runs = 200, .gap_ms = 5, .jobs = 1, .tasks = 1000
};

static struct {
    uint64_t welcomed, hellos, grants, rows_sent, rows_acked, ends_acked, beats, beat_acks, drops,
        held;
    uint64_t first_grant_ns, last_ack_ns, welcome_ns, start_ns,
        cpu_us; /* cpu_us: before the first grant */
} sum;

static char server_key[KEY_Z85_LEN];
static struct agent *agents;
static void *ctx, *hub; /* hub: all agents */
static struct id *point_id;
static uint64_t n_points;
static struct samples {
    uint32_t *us;
    size_t n;
} samples, early; /* early: of beats sent before all agents were welcome */
static volatile sig_atomic_t stop, anew;
static struct buf frame, packed;

static void die(const char *place, const char *text)
{
    fprintf(stderr, "load: %s: %s\n", place, text);
    exit(1);
}

static void on_signal(int sig)
{
    if (sig == SIGUSR1)
        anew = 1;
    else
        stop = 1;
}

static void note_sample(struct samples *s, uint64_t ns)
{
    if (s->n < SAMPLES_MAX)
        s->us[s->n++] = (uint32_t)(ns / 1000);
}

static uint64_t cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int by_value(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

static void sort_samples(struct samples *s)
{
    if (s->n)
        qsort(s->us, s->n, sizeof(*s->us), by_value);
}

static uint32_t percentile(const struct samples *s, double p)
{
    return s->n ? s->us[(size_t)((double)(s->n - 1) * p)] : 0;
}

/* ---- connections */

struct name { /* of a connection, as our ROUTER knows it */
    char a;
    uint32_t i;
} __attribute__((packed));

static void pack(const struct msg *m)
{
    struct err e = { 0 };
    if (msg_encode(m, &frame, &e) < 0)
        die("message", e.text);
}

static void send_msg(void *sock, const struct msg *m)
{
    pack(m);
    if (zmq_send(sock, frame.data, frame.len, 0) < 0)
        die("send", zmq_strerror(errno));
}

static void agent_send(const struct agent *a, const struct msg *m)
{
    struct name name = { 'a', (uint32_t)(a - agents) };
    pack(m);
    if (zmq_send(hub, &name, sizeof(name), ZMQ_SNDMORE) < 0 ||
        zmq_send(hub, frame.data, frame.len, 0) < 0)
        die(a->key.pub.name, zmq_strerror(errno));
}

static void *new_socket(int type)
{
    void *s = zmq_socket(ctx, type);
    int zero = 0;
    if (!s || zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof(zero)) ||
        zmq_setsockopt(s, ZMQ_SNDHWM, &zero, sizeof(zero)) ||
        zmq_setsockopt(s, ZMQ_RCVHWM, &zero, sizeof(zero)) ||
        zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, server_key, KEY_Z85_LEN))
        die("socket", zmq_strerror(errno));
    return s;
}

static void connect_as(void *s, const struct key_pair *k)
{
    if (zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, k->pub.z85, KEY_Z85_LEN) ||
        zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, k->secret, KEY_Z85_LEN) || zmq_connect(s, opt.ep))
        die(opt.ep, zmq_strerror(errno));
}

static bool plain(const struct agent *a)
{
    return opt.plain && (a - agents) % 2;
}

static void say_hello(struct agent *a)
{
    struct wire_task_ref refs[TASKS_MAX];
    char facts[64];
    snprintf(facts, sizeof(facts), "{\"host\":\"load\"%s}",
             opt.collect ? ",\"collect\":\"ready\"" : "");
    for (unsigned i = 0; i < a->n_held; i++)
        refs[i] = (struct wire_task_ref){ .task = a->held[i].task,
                                          .epoch = a->held[i].epoch,
                                          .n = a->held[i].n,
                                          .state = a->held[i].ended ? 3 : 2 };
    struct msg m = { .type = M_AGENT_HELLO,
                     .agent_hello = { .install = a->install,
                                      .install_len = 16,
                                      .boot = 1,
                                      .name = a->key.pub.name,
                                      .version = "load",
                                      .cores = opt.cores,
                                      .memory_mib = 1 << 20,
                                      .labels = "class=load",
                                      .facts = (const uint8_t *)facts,
                                      .facts_len = strlen(facts),
                                      .features = plain(a) ? 0 : WIRE_POINT_LISTS,
                                      .running = refs,
                                      .n_running = a->n_held } };
    memset(m.agent_hello.engine.b, 7, sizeof(m.agent_hello.engine.b));
    agent_send(a, &m);
    sum.hellos++;
    a->welcome = false;
}

static void beat(struct agent *a)
{
    struct wire_task_ref refs[TASKS_MAX];
    for (unsigned i = 0; i < a->n_held; i++)
        refs[i] = (struct wire_task_ref){ .task = a->held[i].task,
                                          .epoch = a->held[i].epoch,
                                          .n = a->held[i].n,
                                          .state = a->held[i].ended ? 3 : 2 };
    struct msg m = {
        .type = M_BEAT,
        .beat = { .boot = 1, .seq = ++a->seq, .accept = 1, .tasks = refs, .n_tasks = a->n_held }
    };
    a->beat_ns = clock_mono_ns();
    a->early = sum.welcomed < opt.agents;
    agent_send(a, &m);
    sum.beats++;
}

/* ---- work */

static void drop_task(struct agent *a, uint64_t task)
{
    for (unsigned i = 0; i < a->n_held; i++)
        if (a->held[i].task == task) {
            a->held[i] = a->held[--a->n_held];
            return;
        }
}

/* A task that ended, and whose end_ack was lost with the coordinator of before: to be dropped in order. */
static bool forget_ended(struct agent *a, uint64_t task)
{
    for (unsigned i = 0; i < a->n_held; i++)
        if (a->held[i].task == task && a->held[i].ended) {
            drop_task(a, task);
            return true;
        }
    return false;
}

static void end_task(struct agent *a, const struct held *h, const struct id *sweep,
                     const char *cause, const char *info)
{
    struct msg m = { .type = M_TASK_END,
                     .task_end = { .task = h->task,
                                   .epoch = h->epoch,
                                   .n = h->n,
                                   .sweep = *sweep,
                                   .cause = cause,
                                   .info = (const uint8_t *)info,
                                   .info_len = strlen(info) } };
    agent_send(a, &m);
}

/* The text behind "key":" in a spec. */
static const char *text_of(const char *spec, const char *end, const char *key)
{
    const char *p = memmem(spec, (size_t)(end - spec), key, strlen(key));
    if (!p)
        die("grant", "a spec that is not understood");
    return p + strlen(key);
}

/* The number of the next point of a spec, in either form; *p moves behind it. */
static bool next_index(const char **p, const char *end, bool lists, uint64_t *ret)
{
    const char *s = lists ? memchr(*p, '[', (size_t)(end - *p))
                          : memmem(*p, (size_t)(end - *p), "\"index\":", 8);
    if (!s)
        return false;
    s += lists ? 1 : 8;
    for (*ret = 0; s < end && *s >= '0' && *s <= '9'; s++)
        *ret = *ret * 10 + (uint64_t)(*s - '0');
    *p = s;
    return true;
}

static void run_points(struct agent *a, struct held *h, const struct msg_grant *g)
{
    static struct wire_row rows[ROWS_MAX];
    static const struct row_stats stats;
    static const uint8_t bytes[ROW_STATS_BYTES];
    const char *p = (const char *)g->spec, *end = p + g->spec_len;
    struct msg m = { .type = M_ROWS,
                     .rows = { .task = g->task,
                               .epoch = g->epoch,
                               .n = g->n,
                               .seq = 1,
                               .sweep = g->sweep,
                               .threads = 1,
                               .rows = rows } };
    bool block = !plain(a) && a->features & WIRE_ROW_BLOCK;
    uint64_t i, next = 0;
    char hex[ID_HEX_LEN] = "";
    memcpy(hex, text_of(p, end, "\"trace\":\""), ID_HEX_LEN - 1);
    if (id_parse(hex, &m.rows.trace, NULL) < 0)
        die("grant", "a spec without a trace");
    memset(m.rows.engine.b, 7, sizeof(m.rows.engine.b));
    p = text_of(p, end, "\"points\":[");
    buf_reset(&packed);
    for (bool lists = *p == '['; next_index(&p, end, lists, &i);) {
        if (i >= n_points || m.rows.n_rows == ROWS_MAX)
            die("grant", "a point that is none of the sweep's (--sweep)");
        struct wire_row *w = &rows[block ? 0 : m.rows.n_rows];
        *w = (struct wire_row){ .index = i,
                                .point = point_id[i],
                                .status = opt.fail ? ROW_FAILED : ROW_DONE,
                                .error = opt.fail ? "made to fail" : "",
                                .stats = bytes,
                                .stats_len = opt.fail ? 0 : sizeof(bytes),
                                .duration_us = 1 };
        if (block && row_block_add(&packed, &next, w, opt.fail ? NULL : &stats) < 0)
            die("rows", "no memory");
        m.rows.n_rows++;
    }
    sum.rows_sent += m.rows.n_rows;
    h->rows = (unsigned)m.rows.n_rows;
    h->ended = true;
    if (block)
        m = row_block_of(&m.rows, &packed);
    agent_send(a, &m);
    end_task(a, h, &g->sweep, "done", "");
}

static void on_grant(struct agent *a, const struct msg_grant *g)
{
    if (!a->held && !(a->held = calloc(TASKS_MAX, sizeof(*a->held))))
        die("agent", "no memory");
    if (a->n_held == TASKS_MAX)
        die("grant", "more tasks than an agent can hold");
    struct held *h = &a->held[a->n_held++];
    *h = (struct held){ .task = g->task, .epoch = g->epoch, .n = g->n };
    if (!sum.grants++) {
        sum.first_grant_ns = clock_mono_ns();
        sum.cpu_us = cpu_us();
    }
    if (a->n_held <= opt.hold) {
        sum.held++;
        return;
    }
    if (!strcmp(g->kind, "points")) {
        run_points(a, h, g);
        return;
    }
    h->ended = true;
    end_task(a, h, &g->sweep, "done", "{}");
}

static void on_message(struct agent *a, const struct msg *m)
{
    switch (m->type) {
    case M_WELCOME:
        if (!a->welcome && ++sum.welcomed)
            sum.welcome_ns = clock_mono_ns();
        a->welcome = true;
        a->features = m->welcome.features;
        break;
    case M_BEAT_ACK:
        sum.beat_acks++;
        for (size_t i = 0; i < m->beat_ack.n_drop; i++)
            sum.drops += !forget_ended(a, m->beat_ack.drop[i].task);
        if (a->beat_ns && m->beat_ack.seq == a->seq)
            note_sample(a->early ? &early : &samples, clock_mono_ns() - a->beat_ns);
        break;
    case M_GRANT:
        on_grant(a, &m->grant);
        break;
    case M_ROWS_ACK:
        for (unsigned i = 0; i < a->n_held; i++)
            if (a->held[i].task == m->rows_ack.task)
                sum.rows_acked += a->held[i].rows, a->held[i].rows = 0;
        sum.last_ack_ns = clock_mono_ns();
        break;
    case M_END_ACK:
        sum.ends_acked++;
        drop_task(a, m->end_ack.task);
        sum.last_ack_ns = clock_mono_ns();
        break;
    case M_CANCEL:
        drop_task(a, m->cancel.task);
        break;
    case M_REFUSE:
        if (strcmp(m->refuse.code, "HELLO_FIRST") != 0)
            die("refused", m->refuse.text);
        if (a->welcome) {
            a->welcome = false;
            sum.welcomed--;
            say_hello(a);
        }
        break;
    default:
        break;
    }
}

/* Everything that came. */
static void drain(void)
{
    zmq_msg_t z;
    struct name name;
    zmq_msg_init(&z);
    while (zmq_msg_recv(&z, hub, ZMQ_DONTWAIT) >= 0) {
        struct msg m;
        struct err e = { 0 };
        if (zmq_msg_size(&z) != sizeof(name) || !zmq_msg_more(&z))
            die("message", "not of a connection of ours");
        memcpy(&name, zmq_msg_data(&z), sizeof(name));
        if (zmq_msg_recv(&z, hub, 0) < 0 ||
            msg_decode(zmq_msg_data(&z), zmq_msg_size(&z), &m, &e) < 0)
            die("message", e.text);
        on_message(&agents[name.i], &m);
        msg_clear(&m);
    }
    zmq_msg_close(&z);
}

static void print_sum(void)
{
    sort_samples(&samples);
    sort_samples(&early);
    double s = (double)(sum.last_ack_ns - sum.first_grant_ns) / 1e9;
    printf("{\"schema\":\"siofleet.bench_load/1\",\"agents\":%" PRIu64 ",\"welcomed\":%" PRIu64
           ",\"hellos\":%" PRIu64 ",\"connect_s\":%.3f,\"grants\":%" PRIu64 ",\"held\":%" PRIu64
           ",\"rows_sent\":%" PRIu64 ",\"rows_acked\":%" PRIu64 ",\"ends_acked\":%" PRIu64
           ",\"seconds\":%.4f,\"rows_per_s\":%.0f,\"tasks_per_s\":%.0f,\"beats\":%" PRIu64
           ",\"beat_acks\":%" PRIu64 ",\"drops\":%" PRIu64
           ",\"beat_us\":{\"n\":%zu,\"p50\":%u,\"p99\":%u,\"max\":%u}"
           ",\"early_beat_us\":{\"n\":%zu,\"p50\":%u,\"p99\":%u,\"max\":%u},\"cpu_s\":%.2f}\n",
           opt.agents, sum.welcomed, sum.hellos,
           sum.welcome_ns ? (double)(sum.welcome_ns - sum.start_ns) / 1e9 : 0.0, sum.grants,
           sum.held, sum.rows_sent, sum.rows_acked, sum.ends_acked, sum.grants ? s : 0.0,
           sum.grants && s > 0 ? (double)sum.rows_acked / s : 0.0,
           sum.grants && s > 0 ? (double)sum.ends_acked / s : 0.0, sum.beats, sum.beat_acks,
           sum.drops, samples.n, percentile(&samples, 0.5), percentile(&samples, 0.99),
           percentile(&samples, 1.0), early.n, percentile(&early, 0.5), percentile(&early, 0.99),
           percentile(&early, 1.0), (double)(cpu_us() - sum.cpu_us) / 1e6);
}

/* ---- set-up */

/* A key in memory whose public half is allowed; the folder is the coordinator's, and of the form that it reads. */
static void make_key(struct key_pair *k, enum role role, const char *name)
{
    k->pub.role = role;
    snprintf(k->pub.name, sizeof(k->pub.name), "%s", name);
    if (zmq_curve_keypair(k->pub.z85, k->secret))
        die("key", zmq_strerror(errno));
    CLEANUP(freep) char *path = path_fmt("%s/keys/allowed/%s.pub", opt.data, name);
    CLEANUP(freep) char *tmp = path_fmt("%s/keys/allowed/.%s", opt.data, name);
    FILE *f = path && tmp ? fopen(tmp, "w") : NULL;
    if (!f || fprintf(f, "siofleet-key 1 %s %s %s\n", role_name(role), name, k->pub.z85) < 0 ||
        fclose(f) || rename(tmp, path))
        die(opt.data, "the key cannot be allowed");
}

static void read_server_key(void)
{
    CLEANUP(freep) char *path = path_fmt("%s/keys/coordinator.pub", opt.data);
    struct key_pub p;
    struct err e = { 0 };
    if (!path || key_load_pub(path, &p, &e) < 0)
        die(opt.data, e.text);
    memcpy(server_key, p.z85, sizeof(server_key));
}

static void make_points(struct sweep **ret)
{
    struct err e = { 0 };
    struct sweep *s = NULL;
    if (sweep_load(opt.sweep_ini, &s, &e) < 0 || sweep_identify(s, &e) < 0)
        die("--sweep", e.text);
    n_points = sweep_points(s);
    point_id = calloc(n_points, sizeof(*point_id));
    if (!point_id)
        die("--sweep", "no memory for the ids of its points");
    for (uint64_t i = 0; i < n_points; i++) {
        uint64_t t;
        struct arch arch;
        struct sweep_trace tr;
        if (sweep_point(s, i, &t, &arch) < 0 || sweep_trace(s, t, &tr, &e) < 0 || !tr.have_id)
            die("--sweep", "its traces are not named by file");
        arch_point_id(&arch, sweep_head(s)->rules, &tr.id, &point_id[i]);
    }
    if (ret)
        *ret = s;
    else
        sweep_free(&s);
}

static void more_files(void)
{
    struct rlimit lim;
    rlim_t want = opt.agents + 256;
    getrlimit(RLIMIT_NOFILE, &lim);
    if (lim.rlim_cur >= want)
        return;
    lim.rlim_cur = want;
    if (lim.rlim_max < want)
        lim.rlim_max = want;
    if (setrlimit(RLIMIT_NOFILE, &lim))
        die("--agents", "not enough open files are allowed (1 a connection)");
}

static void set_up(void)
{
    struct err e = { 0 };
    more_files();
    locked_start(); /* it stands for thousands of machines: what it costs is none of the coordinator's */
    buf_init(&frame, FRAME_MAX + 4096);
    buf_init(&packed, FRAME_MAX);
    samples.us = malloc(SAMPLES_MAX * sizeof(*samples.us));
    early.us = malloc(SAMPLES_MAX * sizeof(*early.us));
    ctx = zmq_ctx_new();
    if (!samples.us || !early.us || !ctx)
        die("set-up", "no memory");
    read_server_key();
    CLEANUP(freep) char *dir = keys_dir(opt.data);
    if (!dir || dir_make(dir, 0700, &e) < 0)
        die(opt.data, e.text);
    struct sigaction sa = { .sa_handler = on_signal };
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
}

static void open_hub(void)
{
    int one = 1;
    hub = new_socket(ZMQ_ROUTER);
    if (zmq_setsockopt(hub, ZMQ_ROUTER_MANDATORY, &one, sizeof(one)))
        die("socket", zmq_strerror(errno));
}

static void open_agents(void)
{
    agents = calloc(opt.agents, sizeof(*agents));
    if (!agents)
        die("--agents", "no memory");
    for (uint64_t i = 0; i < opt.agents; i++) {
        char name[32];
        snprintf(name, sizeof(name), "load%" PRIu64, i);
        make_key(&agents[i].key, ROLE_AGENT, name);
        random_bytes(agents[i].install, 16);
        agents[i].seq = i; /* one beat in sixteen is answered: each time those of others */
    }
    open_hub();
    sum.start_ns = clock_mono_ns();
}

/* Connections come in steps: a thousand handshakes at once would only wait for each other. */
static void connect_some(uint64_t *n)
{
    for (int k = 0; k < 64 && *n < opt.agents && *n < sum.welcomed + 256; k++) {
        struct agent *a = &agents[*n];
        struct name name = { 'a', (uint32_t)*n };
        if (zmq_setsockopt(hub, ZMQ_CONNECT_ROUTING_ID, &name, sizeof(name)))
            die("socket", zmq_strerror(errno));
        connect_as(hub, &a->key);
        say_hello(a);
        a->beat_at_ms = clock_mono_ms() + opt.beat_ms + *n % opt.beat_ms;
        ++*n;
    }
}

static int run_agents(void)
{
    set_up();
    if (opt.sweep_ini)
        make_points(NULL);
    open_agents();
    uint64_t end_ms = opt.seconds ? clock_mono_ms() + opt.seconds * 1000 : UINT64_MAX, n = 0;
    bool told = false;
    while (!stop && clock_mono_ms() < end_ms && (!opt.points || sum.rows_acked < opt.points)) {
        zmq_pollitem_t poll = { .socket = hub, .events = ZMQ_POLLIN };
        if (anew) {
            anew = 0;
            zmq_close(hub);
            open_hub();
            for (n = 0; n < opt.agents; n++)
                agents[n].welcome = false;
            n = 0;
            sum.welcomed = 0;
            told = false;
        }
        connect_some(&n);
        zmq_poll(&poll, 1, n < opt.agents ? 1 : 5);
        drain();
        uint64_t now = clock_mono_ms();
        static uint64_t looked;
        for (uint64_t i = 0; now != looked && i < n; i++)
            if (agents[i].welcome && now >= agents[i].beat_at_ms) {
                agents[i].beat_at_ms += opt.beat_ms;
                beat(&agents[i]);
            }
        looked = now;
        if (!told && sum.welcomed == opt.agents && opt.ready_file) {
            char text[64];
            struct err e;
            snprintf(text, sizeof(text), "{\"welcome_ns\":%" PRIu64 "}\n", sum.welcome_ns);
            if (file_write(opt.ready_file, text, strlen(text), 0644, false, &e) < 0)
                die(opt.ready_file, e.text);
            told = true;
        }
    }
    print_sum();
    if (opt.points && sum.rows_acked < opt.points)
        die("rows", "not all of them were accepted in time");
    return 0;
}

/* ---- latency: one agent and one user in this process */

static int run_latency(void)
{
    struct sweep *s;
    opt.agents = 1;
    opt.fail = true;
    set_up();
    make_points(&s);
    open_agents();
    struct agent *a = &agents[0];
    struct key_pair user_key;
    uint64_t n = 0;
    connect_some(&n);
    make_key(&user_key, ROLE_USER, "load-user");
    void *user = new_socket(ZMQ_DEALER);
    connect_as(user, &user_key);
    json_t *j = sweep_json(s);
    CLEANUP(freep) char *text = json_dumps(j, JSON_COMPACT);
    json_decref(j);
    zmq_pollitem_t poll[2] = { { .socket = hub, .events = ZMQ_POLLIN },
                               { .socket = user, .events = ZMQ_POLLIN } };
    uint64_t end_ms = clock_mono_ms() + 60000 + opt.runs * (opt.gap_ms + 100), sent_ns = 0,
             next_ms = 0, run = 0;
    uint64_t beat_ms = clock_mono_ms() + opt.beat_ms;
    bool open = false, granted = false, answered = false;
    while (!stop && samples.n < opt.runs && clock_mono_ms() < end_ms) {
        uint64_t now = clock_mono_ms();
        if (a->welcome && now >= beat_ms) {
            struct msg m = { .type = M_BEAT, .beat = { .boot = 1, .seq = ++a->seq, .accept = 1 } };
            struct wire_task_ref refs[TASKS_MAX];
            m.beat.tasks = refs;
            for (unsigned i = 0; i < a->n_held; i++)
                refs[m.beat.n_tasks++] = (struct wire_task_ref){ .task = a->held[i].task,
                                                                 .epoch = a->held[i].epoch,
                                                                 .n = a->held[i].n,
                                                                 .state = 3 };
            agent_send(a, &m);
            beat_ms = now + opt.beat_ms;
        }
        if (a->welcome && !open && !a->n_held && now >= next_ms) {
            char id[64];
            snprintf(id, sizeof(id), "load-%d-%" PRIu64, getpid(), ++run);
            struct msg m = { .type = M_SUBMIT,
                             .submit = { .req = run,
                                         .request_id = id,
                                         .sweep = (const uint8_t *)text,
                                         .sweep_len = strlen(text) } };
            sent_ns = clock_mono_ns();
            send_msg(user, &m);
            open = true;
            granted = answered = false;
        }
        zmq_poll(poll, 2, 1);
        uint64_t grants = sum.grants;
        drain();
        if (sum.grants > grants && open && !granted) {
            granted = true;
            note_sample(&samples, clock_mono_ns() - sent_ns);
        }
        zmq_msg_t z;
        zmq_msg_init(&z);
        while (zmq_msg_recv(&z, user, ZMQ_DONTWAIT) >= 0) {
            struct msg m;
            struct err e = { 0 };
            if (msg_decode(zmq_msg_data(&z), zmq_msg_size(&z), &m, &e) < 0)
                die("message", e.text);
            if (m.type == M_REFUSE)
                die("submit", m.refuse.text);
            answered |= m.type == M_SUBMITTED;
            msg_clear(&m);
        }
        zmq_msg_close(&z);
        if (open && granted && answered) {
            open = false;
            next_ms = clock_mono_ms() + opt.gap_ms;
        }
    }
    sweep_free(&s);
    if (samples.n < opt.runs)
        die("latency", "a submit was not granted in time");
    sort_samples(&samples);
    printf("{\"schema\":\"siofleet.bench_latency/"
           "1\",\"runs\":%zu,\"us\":{\"min\":%u,\"p50\":%u,\"p90\":%u,\"p99\":%u,"
           "\"max\":%u}}\n",
           samples.n, percentile(&samples, 0), percentile(&samples, 0.5), percentile(&samples, 0.9),
           percentile(&samples, 0.99), percentile(&samples, 1.0));
    return 0;
}

/* ---- a long queue */

static int run_queue(void)
{
    struct key_pair key;
    char name[32], job[256];
    opt.agents = 1;
    set_up();
    snprintf(name, sizeof(name), "queue%d", (int)getpid());
    make_key(&key, ROLE_USER, name);
    void *sock = new_socket(ZMQ_DEALER);
    connect_as(sock, &key);
    for (uint64_t i = 1; i <= opt.jobs && !stop; i++) {
        int n = opt.exec ? snprintf(job, sizeof(job),
                                    "{\"kind\":\"exec\",\"name\":\"queue\",\"argv\":[\"true\"],"
                                    "\"hosts\":[\"%s\"]}",
                                    opt.exec)
                         : snprintf(job, sizeof(job),
                                    "{\"kind\":\"collect\",\"name\":\"queue\",\"ini\":\"x%" PRIu64
                                    "\",\"runs\":%" PRIu64
                                    ",\"files\":{},\"again\":true,\"labels\":\"no=such\"}",
                                    i, opt.tasks);
        struct msg m = { .type = M_SUBMIT_JOB,
                         .submit_job = { .req = i,
                                         .request_id = "",
                                         .job = (const uint8_t *)job,
                                         .job_len = (size_t)n } };
        send_msg(sock, &m);
        zmq_msg_t z;
        struct err e = { 0 };
        zmq_msg_init(&z);
        if (zmq_msg_recv(&z, sock, 0) < 0)
            die("queue", zmq_strerror(errno));
        if (msg_decode(zmq_msg_data(&z), zmq_msg_size(&z), &m, &e) < 0 || m.type != M_SUBMITTED)
            die("queue", m.type == M_REFUSE ? m.refuse.text : e.text);
        msg_clear(&m);
        zmq_msg_close(&z);
    }
    printf("{\"schema\":\"siofleet.bench_queue/1\",\"tasks\":%" PRIu64 "}\n", opt.jobs * opt.tasks);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        { "data", 1, 0, 'd' },    { "connect", 1, 0, 'e' }, { "agents", 1, 0, 'n' },
        { "cores", 1, 0, 'c' },   { "sweep", 1, 0, 's' },   { "points", 1, 0, 'p' },
        { "seconds", 1, 0, 't' }, { "hold", 1, 0, 'h' },    { "beat-ms", 1, 0, 'b' },
        { "runs", 1, 0, 'r' },    { "gap-ms", 1, 0, 'g' },  { "ready-file", 1, 0, 'f' },
        { "collect", 0, 0, 'k' }, { "plain", 0, 0, 'o' },   { "jobs", 1, 0, 'j' },
        { "tasks", 1, 0, 'q' },   { "exec", 1, 0, 'x' },    { 0 }
    };
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "stamp")) {
        printf("%" PRIu64 "\n", clock_mono_ns());
        return 0;
    }
    for (int c; (c = getopt_long(argc - 1, argv + 1, "", longs, NULL)) != -1;) {
        uint64_t v = optarg ? strtoull(optarg, NULL, 10) : 0;
        switch (c) {
        case 'd':
            opt.data = optarg;
            break;
        case 'e':
            opt.ep = optarg;
            break;
        case 's':
            opt.sweep_ini = optarg;
            break;
        case 'f':
            opt.ready_file = optarg;
            break;
        case 'n':
            opt.agents = v;
            break;
        case 'c':
            opt.cores = v;
            break;
        case 'p':
            opt.points = v;
            break;
        case 't':
            opt.seconds = v;
            break;
        case 'h':
            opt.hold = v;
            break;
        case 'b':
            opt.beat_ms = v;
            break;
        case 'r':
            opt.runs = v;
            break;
        case 'x':
            opt.exec = optarg;
            break;
        case 'j':
            opt.jobs = v;
            break;
        case 'q':
            opt.tasks = v;
            break;
        case 'g':
            opt.gap_ms = v;
            break;
        case 'k':
            opt.collect = true;
            break;
        case 'o':
            opt.plain = true;
            break;
        default:
            return 2;
        }
    }
    if (!opt.data || !opt.ep || !opt.agents || !opt.beat_ms || opt.hold > TASKS_MAX) {
        fprintf(stderr,
                "load: agents|latency|queue --data DIR --connect EP ...; see the head of load.c\n");
        return 2;
    }
    if (!strcmp(what, "agents"))
        return run_agents();
    if (!strcmp(what, "latency") && opt.sweep_ini)
        return run_latency();
    if (!strcmp(what, "queue"))
        return run_queue();
    fprintf(stderr, "load: agents, latency (with --sweep) or queue\n");
    return 2;
}
