/* A real agent process against a coordinator played by the test, over real links. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/tree.h"
#include "perf/points.h"
#include "perf/recipe.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/cas/cas.h"
#include "proto/format/row.h"
#include "proto/lib/json.h"
#include "proto/link/link.h"
#include "proto/wire/rows.h"
#include "proto/xfer/drive.h"

enum { TASKS = 16, POINTS = 64, PATIENCE_MS = 30000 };

static char dir[3000], program[3000], endpoint[100];
static struct err e;
static struct key_pair server_key;

/* What the coordinator has seen. */
static struct {
    struct link *link;
    struct cas *cas;
    struct xfers *xfers;
    uint64_t peer;
    bool mute;      /* answers nothing but xfers */
    bool keep_rows; /* does not acknowledge rows */
    const char *refuse_hello;
    uint64_t drop; /* a task to drop at the next hello */
    uint64_t features;
    unsigned plain, blocks; /* messages of rows */
    unsigned hellos, beats, declines;
    uint64_t boot, accept;
    struct wire_task_ref running[8];
    size_t n_running;
    char decline[64];
    unsigned rows[TASKS], row_status[TASKS][POINTS];
    uint8_t got[TASKS][POINTS];
    struct id point[TASKS][POINTS];
    char error[TASKS][200];
    struct {
        bool over;
        char cause[32], tail[2000], info[4000];
        uint64_t exit, signal;
    } end[TASKS];
    struct id put;
    bool have_put;
} co;

static const char *in(const char *fmt, ...)
{
    static char out[8][4200];
    static unsigned k;
    char *p = out[k++ % 8];
    int n = snprintf(p, sizeof(out[0]), "%s/", dir);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p + n, sizeof(out[0]) - (size_t)n, fmt, ap);
    va_end(ap);
    return p;
}

/* ---- the coordinator */

static int co_send(void *ctx, uint64_t peer, const struct msg *m)
{
    (void)ctx;
    return link_send(co.link, peer, m, NULL);
}

static int co_ended(void *ctx, const struct xfers_end *end, struct err *err)
{
    (void)ctx;
    (void)err;
    if (end->dir == XFERS_IN && end->code == 0) {
        co.put = end->id;
        co.have_put = true;
    }
    return 0;
}

static void co_open(void)
{
    const char *eps[] = { endpoint[0] ? endpoint : "tcp://127.0.0.1:*" };
    CLEANUP(freep) char *allowed = keys_dir(dir);
    /* a port that was just closed may need a moment */
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    int r;
    while ((r = link_server(eps, 1, &server_key, allowed, &co.link, &e)) < 0 &&
           clock_mono_ms() < until)
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
    cr_assert(r == 0, "%s", e.text);
    snprintf(endpoint, sizeof(endpoint), "%s", link_endpoint(co.link, 0));
    struct xfer_store store = xfer_store_cas(co.cas);
    struct xfers_ops ops = { .send = co_send, .ended = co_ended };
    co.xfers = xfers_new(&store, &ops, CAS_SIZE_MAX);
    co.hellos = 0;
}

static void co_close(void)
{
    xfers_free(&co.xfers);
    link_free(&co.link, 0);
}

static void co_msg(uint64_t peer, const struct msg *m)
{
    struct msg a = { 0 };
    if (xfers_msg(co.xfers, peer, m, clock_mono_ms()))
        return;
    switch (m->type) {
    case M_AGENT_HELLO:
        if (co.mute)
            return;
        if (co.refuse_hello) {
            link_refuse(co.link, peer, 0, 3, "FOREIGN", co.refuse_hello);
            return;
        }
        co.peer = peer;
        co.hellos++;
        co.boot = m->agent_hello.boot;
        co.n_running = m->agent_hello.n_running;
        for (size_t i = 0; i < co.n_running && i < ARRAY_LEN(co.running); i++)
            co.running[i] = m->agent_hello.running[i];
        a.type = M_WELCOME;
        a.welcome.epoch = 1;
        a.welcome.lease_ms = 1000;
        a.welcome.heartbeat_ms = 100;
        a.welcome.version = "0";
        a.welcome.features = co.features;
        struct wire_task_ref drop = { .task = co.drop, .epoch = 1, .n = 1 };
        if (co.drop) {
            a.welcome.drop = &drop;
            a.welcome.n_drop = 1;
        }
        link_send(co.link, peer, &a, NULL);
        break;
    case M_BEAT:
        co.beats++;
        co.accept = m->beat.accept;
        a.type = M_BEAT_ACK;
        a.beat_ack.seq = m->beat.seq;
        link_send(co.link, peer, &a, NULL);
        break;
    case M_DECLINE:
        co.declines++;
        snprintf(co.decline, sizeof(co.decline), "%s", m->decline.code);
        break;
    case M_ROWS:
    case M_ROW_BLOCK: {
        struct rows_reader in;
        struct msg_rows head;
        struct wire_row r;
        struct row_stats stats;
        cr_assert(rows_reader_init(&in, m, &head, &e) == 0, "%s", e.text);
        cr_assert_lt(head.task, TASKS);
        ++*(m->type == M_ROWS ? &co.plain : &co.blocks);
        while (rows_next(&in, &r, &stats)) {
            cr_assert_lt(r.index, POINTS);
            co.got[head.task][r.index]++;
            co.point[head.task][r.index] = r.point;
            co.row_status[head.task][r.index] = (unsigned)r.status;
            co.rows[head.task]++;
            snprintf(co.error[head.task], sizeof(co.error[0]), "%s", r.error);
            if (r.status == ROW_DONE)
                cr_assert(r.stats_len && stats.requests);
        }
        if (co.keep_rows)
            return;
        a.type = M_ROWS_ACK;
        a.rows_ack.task = head.task;
        a.rows_ack.epoch = head.epoch;
        a.rows_ack.n = head.n;
        a.rows_ack.seq = head.seq;
        link_send(co.link, peer, &a, NULL);
        break;
    }
    case M_TASK_END:
        cr_assert_lt(m->task_end.task, TASKS);
        co.end[m->task_end.task].over = true;
        snprintf(co.end[m->task_end.task].cause, 32, "%s", m->task_end.cause);
        snprintf(co.end[m->task_end.task].tail, 2000, "%.*s", (int)m->task_end.tail_len,
                 m->task_end.tail ? (const char *)m->task_end.tail : "");
        snprintf(co.end[m->task_end.task].info, 4000, "%.*s", (int)m->task_end.info_len,
                 m->task_end.info ? (const char *)m->task_end.info : "");
        co.end[m->task_end.task].exit = m->task_end.exit;
        co.end[m->task_end.task].signal = m->task_end.signal;
        a.type = M_END_ACK;
        a.end_ack.task = m->task_end.task;
        a.end_ack.epoch = m->task_end.epoch;
        a.end_ack.n = m->task_end.n;
        link_send(co.link, peer, &a, NULL);
        break;
    default:
        break;
    }
}

static void co_turn(void)
{
    struct link_event ev;
    xfers_tick(co.xfers, clock_mono_ms());
    link_poll(co.link, NULL, 0, 10, NULL);
    while (link_recv(co.link, &ev, NULL) == 1) {
        if (ev.kind == LINK_MSG)
            co_msg(ev.peer.id, &ev.msg);
        else if (ev.kind == LINK_GONE)
            xfers_gone(co.xfers, ev.peer.id, false);
        link_event_clear(&ev);
    }
}

static char *said(void);

/* Run the coordinator until cond holds. */
#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        uint64_t until_ = clock_mono_ms() + PATIENCE_MS;                                           \
        while (!(cond) && clock_mono_ms() < until_)                                                \
            co_turn();                                                                             \
        if (!(cond)) {                                                                             \
            CLEANUP(freep) char *log_ = said();                                                    \
            cr_assert(cond, "never came: %s; the agent said: %s", #cond, log_);                    \
        }                                                                                          \
    } while (0)

static void grant(uint64_t task, const char *kind, json_t *spec)
{
    CLEANUP(freep) char *text = json_dumps(spec, 0);
    json_decref(spec);
    struct msg m = { .type = M_GRANT };
    m.grant.task = task;
    m.grant.epoch = m.grant.n = 1;
    m.grant.kind = kind;
    m.grant.sweep.b[0] = 7;
    m.grant.spec = (const uint8_t *)text;
    m.grant.spec_len = strlen(text);
    cr_assert(link_send(co.link, co.peer, &m, &e) == 0, "%s", e.text);
}

static void cancel(uint64_t task)
{
    struct msg m = { .type = M_CANCEL };
    m.cancel.task = task;
    m.cancel.epoch = m.cancel.n = 1;
    link_send(co.link, co.peer, &m, NULL);
}

/* ---- specs */

/* A log of two devices; its id, after it was put into the coordinator's store. */
static struct id make_log(void)
{
    FILE *f = fopen(in("log.txt"), "w");
    for (int i = 0; i < 300; i++)
        fprintf(f,
                "vtd_iotlb_page_hit IOTLB page hit sid 0x%x iova 0x%x004 pmask 0xfffffffffffff000 "
                "slpte 0x%x003 "
                "domain 0x%x\n",
                i % 2 ? 0x18 : 0x10, 0xfff00 + i / 3, 0x12300 + i / 3, 1 + i % 2);
    fclose(f);
    struct id id;
    cr_assert(cas_import(co.cas, in("log.txt"), &id, NULL, &e) == 0, "%s", e.text);
    return id;
}

static json_t *trace_spec(const struct id *log)
{
    struct recipe r;
    recipe_init(&r);
    recipe_add_log(&r, "", NULL);
    r.logs[0].id = *log;
    r.logs[0].have_id = true;
    r.tenants = 2;
    json_t *j = json_object();
    json_object_set_new(j, "recipe", recipe_json(&r, false));
    recipe_clear(&r);
    return j;
}

static json_t *points_spec(const struct id *trace, size_t n, uint64_t pace_ms)
{
    json_t *points = json_array(), *j = json_object();
    for (size_t i = 0; i < n; i++) {
        struct arch a;
        arch_default(&a);
        a.queue = 1 + (uint32_t)i;
        json_t *p = json_object();
        json_object_set_new(p, "index", json_u64(i));
        json_object_set_new(p, "arch", arch_json(&a));
        json_array_append_new(points, p);
    }
    json_object_set_new(j, "trace", json_id(trace));
    json_object_set_new(j, "rules", json_string("model"));
    json_object_set_new(j, "pace_ms", json_u64(pace_ms));
    json_object_set_new(j, "points", points);
    return j;
}

/* The same points as lists. */
static json_t *lists_spec(const struct id *trace, size_t n)
{
    static const struct point none;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 16);
    json_t *j = points_spec(trace, 1, 0), *lists;
    struct point p[POINTS];
    for (size_t i = 0; i < n; i++) {
        p[i] = none;
        p[i].index = i;
        arch_default(&p[i].arch);
        p[i].arch.queue = 1 + (uint32_t)i;
    }
    cr_assert(buf_adds(&b, "{") == 0 && points_text(p, n, true, &b) == 0 && buf_adds(&b, "}") == 0);
    lists = json_loads((const char *)b.data, 0, NULL);
    cr_assert(json_array_size(json_array_get(json_object_get(lists, "points"), 0)) == 2);
    json_object_update(j, lists);
    json_decref(lists);
    return j;
}

static json_t *exec_spec(const char *script)
{
    return json_pack("{s:[s,s,s], s:[]}", "argv", "/bin/sh", "-c", script, "copy");
}

/* ---- the agent */

static pid_t agent_start_with(const char *data, const char *server_pub, const char *key,
                              const char *extra)
{
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        int fd = open(in("agent.err"), O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves no agent */
        execl(program, program, "agent", "--data", data, "--connect", endpoint, "--server-key",
              server_pub, "--key", key, "--cores", "2", "--ready-file", in("ready"),
              extra ? "--cache-max" : NULL, extra, (char *)NULL);
        _exit(99);
    }
    return pid;
}

static pid_t agent_start(void)
{
    unsigned before = co.hellos;
    pid_t pid = agent_start_with(in("agent"), in("co.key.pub"), in("n1.key"), NULL);
    UNTIL(co.hellos > before);
    return pid;
}

static int exit_of(pid_t pid)
{
    int status = 0;
    pid_t got = 0;
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    while ((got = waitpid(pid, &status, WNOHANG)) == 0 && clock_mono_ms() < until)
        co_turn();
    cr_assert(got == pid, "the agent does not end");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void agent_stop(pid_t pid)
{
    kill(pid, SIGTERM);
    cr_assert_eq(exit_of(pid), 0);
}

static char *said(void)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    file_read(in("agent.err"), &b, NULL);
    return strdup(b.data ? (char *)b.data : "");
}

static bool agent_said(const char *text)
{
    CLEANUP(freep) char *all = said();
    return strstr(all, text) != NULL;
}

/* Processes of tasks of this test: those with its folder in their command line. */
static int task_processes(pid_t *ret)
{
    int n = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *x; (x = readdir(d));) {
        CLEANUP(freep) char *path = path_fmt("/proc/%s/cmdline", x->d_name);
        CLEANUP(buf_clear) struct buf b = BUF_INIT(65536);
        if (x->d_name[0] < '0' || x->d_name[0] > '9' || file_read(path, &b, NULL) < 0 || !b.len)
            continue;
        if (memmem(b.data, b.len, dir, strlen(dir)) && memmem(b.data, b.len, "__task", 6)) {
            n++;
            if (ret && !memmem(b.data, b.len, "siofleet-shim", 13))
                *ret = (pid_t)atoi(x->d_name);
        }
    }
    closedir(d);
    return n;
}

static pid_t shim_of(uint64_t task)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    while ((file_read(in("agent/tasks/%" PRIu64 "-1-1/lock", task), &b, NULL) < 0 || !b.len) &&
           clock_mono_ms() < until)
        co_turn();
    cr_assert(b.len > 0);
    return (pid_t)atoi((char *)b.data);
}

static size_t folders(void)
{
    size_t n = 0;
    DIR *d = opendir(in("agent/tasks"));
    for (struct dirent *x; d && (x = readdir(d));)
        n += x->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

/* A trace at the coordinator, made by the agent; task number 1. */
static struct id make_trace(void)
{
    struct id log = make_log();
    grant(1, "trace", trace_spec(&log));
    UNTIL(co.end[1].over);
    cr_assert_str_eq(co.end[1].cause, "done", "%s", co.end[1].tail);
    cr_assert(co.have_put && cas_has(co.cas, &co.put));
    return co.put;
}

static void setup(void)
{
    const char *bin = getenv("SIOFLEET_BIN"), *tmp = getenv("TMPDIR");
    cr_assert(bin);
    snprintf(program, sizeof(program), "%s/siofleet", bin);
    snprintf(dir, sizeof(dir), "%s/agent-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(dir));
    struct key_pair agent;
    cr_assert(key_new(in("co.key"), ROLE_COORDINATOR, "head", &server_key, &e) == 0, "%s", e.text);
    cr_assert(key_new(in("n1.key"), ROLE_AGENT, "n1", &agent, &e) == 0);
    cr_assert(keys_allow(dir, &agent.pub, &e) == 0, "%s", e.text);
    cr_assert(cas_open(in("cas"), 0, &co.cas, &e) == 0, "%s", e.text);
    co.features = WIRE_ROW_BLOCK;
    co_open();
}

static void teardown(void)
{
    co_close();
    cas_free(&co.cas);
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    while (task_processes(NULL) && clock_mono_ms() < until)
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
    cr_assert_eq(task_processes(NULL), 0, "a task is left behind");
    cr_assert(dir_remove(dir, &e) == 0, "%s", e.text);
}

TestSuite(agent, .init = setup, .fini = teardown);

Test(agent, builds_a_trace_and_runs_points_on_it)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    CLEANUP(json_decrefp) json_t *info = json_loads(co.end[1].info, 0, NULL);
    char hex[ID_HEX_LEN];
    id_hex(&trace, hex);
    cr_assert_str_eq(json_string_value(json_object_get(info, "id")), hex);
    cr_assert_eq(json_integer_value(json_object_get(info, "tenants")), 2);
    grant(2, "points", points_spec(&trace, 20, 0));
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "done");
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(co.got[2][i], 1);
        cr_assert_eq(co.row_status[2][i], ROW_DONE);
    }
    cr_assert(co.blocks && !co.plain);
    grant(3, "points", lists_spec(&trace, 20));
    UNTIL(co.end[3].over);
    cr_assert_str_eq(co.end[3].cause, "done", "%s", co.end[3].tail);
    cr_assert(!memcmp(co.point[2], co.point[3], 20 * sizeof(struct id)));
    UNTIL(folders() == 0);
    cr_assert(access(in("ready"), F_OK) == 0);
    agent_stop(pid);
    cr_assert(access(in("ready"), F_OK) < 0);
}

Test(agent, data_directory_may_be_relative)
{
    cr_assert(chdir(dir) == 0);
    pid_t pid = agent_start_with("agent", "co.key.pub", "n1.key", NULL);
    UNTIL(co.hellos == 1);
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 2, 0));
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "done", "%s", co.end[2].tail);
    agent_stop(pid);
    cr_assert(chdir("/") == 0);
}

Test(agent, invalid_point_is_a_row_not_a_failure)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    json_t *spec = points_spec(&trace, 2, 0);
    json_t *bad = json_object_get(json_array_get(json_object_get(spec, "points"), 1), "arch");
    json_object_set_new(bad, "iotlb_groups", json_integer(4096));
    grant(2, "points", spec);
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "done", "%s", co.end[2].tail);
    cr_assert_eq(co.row_status[2][0], ROW_DONE);
    cr_assert_eq(co.row_status[2][1], ROW_INVALID);
    agent_stop(pid);
}

Test(agent, coordinator_of_before_gets_its_rows_one_by_one)
{
    co.features = 0;
    pid_t pid = agent_start();
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 3, 0));
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "done", "%s", co.end[2].tail);
    cr_assert_eq(co.rows[2], 3);
    cr_assert(co.plain && !co.blocks);
    agent_stop(pid);
}

Test(agent, cancel_ends_a_running_task_and_keeps_its_rows)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 64, 60));
    UNTIL(co.rows[2] >= 2); /* rows come while it runs */
    cr_assert(!co.end[2].over);
    cancel(2);
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "cancelled");
    cr_assert_lt(co.rows[2], 64);
    cr_assert_eq(task_processes(NULL), 0);
    agent_stop(pid);
}

Test(agent, coordinator_away_costs_no_row_and_no_restart)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    co.keep_rows = true;
    grant(2, "points", points_spec(&trace, 40, 30));
    UNTIL(co.rows[2] >= 2);
    co_close();
    nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
    co.keep_rows = false;
    memset(co.got[2], 0, sizeof(co.got[2]));
    co_open();
    UNTIL(co.hellos == 1);
    cr_assert_eq(co.n_running, 1);
    cr_assert_eq(co.running[0].task, 2);
    UNTIL(co.end[2].over);
    for (int i = 0; i < 40; i++)
        cr_assert_eq(co.got[2][i], 1, "point %d", i);
    cr_assert_eq(co.boot, 1);
    agent_stop(pid);
}

Test(agent, killed_agent_takes_its_running_task_over)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 40, 40));
    UNTIL(co.rows[2] >= 2);
    pid_t shim = shim_of(2);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    cr_assert(kill(shim, 0) == 0);
    pid = agent_start();
    cr_assert_eq(co.boot, 2);
    cr_assert_eq(co.n_running, 1);
    cr_assert_eq(co.running[0].state, 2);
    cr_assert_eq(shim_of(2), shim);
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "done");
    for (int i = 0; i < 40; i++)
        cr_assert_geq(co.got[2][i], 1, "point %d", i);
    UNTIL(folders() == 0);
    agent_stop(pid);
}

Test(agent, task_that_ended_while_no_agent_was_there_is_told)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 10, 40));
    UNTIL(co.rows[2] >= 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    UNTIL(task_processes(NULL) == 0);
    pid = agent_start();
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "done");
    for (int i = 0; i < 10; i++)
        cr_assert_geq(co.got[2][i], 1, "point %d", i);
    agent_stop(pid);
}

Test(agent, granted_task_that_never_started_starts_after_a_restart)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 30, 50));
    UNTIL(co.rows[2] >= 1);
    grant(3, "points", points_spec(&trace, 5, 0)); /* waits for the first */
    UNTIL(folders() == 2);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CLEANUP(freep)
    char *half = path_fmt("%s/agent/tasks/.new-9-1-1", dir),
         *junk = path_fmt("%s/agent/tasks/8-1-1", dir);
    cr_assert(dir_make(half, 0700, &e) == 0 && dir_make(junk, 0700, &e) == 0);
    pid = agent_start();
    cr_assert_eq(co.n_running, 2);
    UNTIL(co.end[2].over && co.end[3].over);
    cr_assert_str_eq(co.end[3].cause, "done", "%s", co.end[3].tail);
    UNTIL(folders() == 0);
    UNTIL(access(half, F_OK) < 0);
    agent_stop(pid);
}

Test(agent, killed_shim_loses_the_task_and_leaves_nothing)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 64, 100));
    UNTIL(co.rows[2] >= 1);
    kill(shim_of(2), SIGKILL);
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "lost");
    UNTIL(task_processes(NULL) == 0);
    agent_stop(pid);
}

/* A command whose daemon has left it in every way there is: own session, no parent, empty environment, no descriptors,
 * another folder, deaf to SIGTERM. Its number stands in cwd/far. */
#define DAEMON                                                                                     \
    "exec 3>far; (env -i setsid /bin/sh -c 'trap \"\" TERM HUP; cd /; echo $$ >&3; exec 3>&-; "    \
    "while :; do sleep 0.1; done' </dev/null >/dev/null 2>&1 &) & exec 3>&-; "                     \
    "while :; do sleep 0.1; done"

static pid_t daemon_of(uint64_t task)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64);
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    while ((file_read(in("agent/tasks/%" PRIu64 "-1-1/cwd/far", task), &b, NULL) < 0 || !b.len) &&
           clock_mono_ms() < until)
        co_turn();
    cr_assert(b.len > 0);
    return (pid_t)atoi((char *)b.data);
}

/* Gone, or waiting for its new parent. */
static bool gone(pid_t pid)
{
    struct proc p;
    return proc_look(pid, &p) < 0 || p.state == 'Z';
}

Test(agent, killed_shim_leaves_no_daemon)
{
    pid_t pid = agent_start();
    grant(2, "exec", exec_spec(DAEMON));
    pid_t far = daemon_of(2);
    kill(shim_of(2), SIGKILL);
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "lost");
    UNTIL(gone(far));
    agent_stop(pid);
}

Test(agent, killed_shim_and_agent_leave_no_daemon_to_the_next_agent)
{
    pid_t pid = agent_start();
    grant(2, "exec", exec_spec(DAEMON));
    pid_t far = daemon_of(2), shim = shim_of(2);
    kill(pid, SIGKILL);
    kill(shim, SIGKILL);
    waitpid(pid, NULL, 0);
    pid = agent_start();
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "lost");
    UNTIL(gone(far));
    UNTIL(folders() == 0);
    agent_stop(pid);
}

Test(agent, restarted_agent_has_its_running_task_back_within_500_ms)
{
    pid_t pid = agent_start();
    grant(2, "exec", exec_spec("while :; do sleep 0.1; done"));
    pid_t shim = shim_of(2);
    uint64_t best_ms = UINT64_MAX;
    for (int i = 0; i < 5 && best_ms > 500; i++) { /* a busy machine may be late, not always */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        uint64_t start = clock_mono_ms();
        pid = agent_start();
        uint64_t ms = clock_mono_ms() - start;
        cr_assert_eq(co.n_running, 1);
        cr_assert_eq(co.running[0].state, 2);
        cr_assert_eq(shim_of(2), shim);
        best_ms = ms < best_ms ? ms : best_ms;
    }
    cr_assert_leq(best_ms, 500);
    cancel(2);
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "cancelled");
    UNTIL(gone(shim));
    agent_stop(pid);
}

Test(agent, killed_task_is_told_with_its_signal)
{
    pid_t pid = agent_start(), task = 0;
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 64, 100));
    UNTIL(co.rows[2] >= 1);
    cr_assert(task_processes(&task) >= 1 && task > 0);
    kill(task, SIGUSR1); /* not one that a sanitizer takes for a bug */
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "signal");
    cr_assert_eq(co.end[2].signal, SIGUSR1);
    agent_stop(pid);
}

Test(agent, dropped_task_is_forgotten)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 64, 100));
    UNTIL(co.rows[2] >= 1);
    co.drop = 2;
    co_close();
    co_open();
    UNTIL(co.hellos == 1);
    UNTIL(folders() == 0);
    cr_assert_eq(task_processes(NULL), 0);
    cr_assert(!co.end[2].over);
    agent_stop(pid);
}

Test(agent, drain_gives_its_tasks_back_and_leaves_nothing)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 64, 100));
    UNTIL(co.rows[2] >= 1);
    grant(3, "points", points_spec(&trace, 64, 100));
    UNTIL(folders() == 2);
    kill(pid, SIGTERM);
    cr_assert_eq(exit_of(pid), 0);
    cr_assert(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "cancelled");
    cr_assert_str_eq(co.decline, "DRAINING");
    cr_assert_eq(task_processes(NULL), 0);
    cr_assert_eq(folders(), 0);
}

Test(agent, drain_ends_in_time_when_nobody_acknowledges)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    co.keep_rows = true;
    grant(2, "points", points_spec(&trace, 64, 100));
    UNTIL(co.rows[2] >= 1);
    uint64_t start = clock_mono_ms();
    kill(pid, SIGTERM);
    cr_assert_eq(exit_of(pid), 0);
    cr_assert_leq(clock_mono_ms() - start, 10000);
    cr_assert_eq(task_processes(NULL), 0);
    /* told at the next start */
    co.keep_rows = false;
    pid = agent_start();
    UNTIL(co.end[2].over);
    agent_stop(pid);
}

Test(agent, second_sigterm_stops_at_once)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    co.keep_rows = true;
    grant(2, "points", points_spec(&trace, 64, 100));
    UNTIL(co.rows[2] >= 1);
    kill(pid, SIGTERM);
    UNTIL(co.accept == 0); /* it drains */
    kill(pid, SIGTERM);
    cr_assert_eq(exit_of(pid), 5);
    UNTIL(task_processes(NULL) == 0);
}

Test(agent, what_it_cannot_do_is_declined)
{
    pid_t pid = agent_start();
    struct id none = { .b = { 1 } };
    grant(2, "dance", points_spec(&none, 1, 0));
    UNTIL(co.declines == 1);
    cr_assert_str_eq(co.decline, "KIND");
    grant(3, "points", json_array());
    UNTIL(co.declines == 2);
    cr_assert_str_eq(co.decline, "SPEC");
    grant(4, "points", points_spec(&none, 1, 0)); /* a trace that nobody has */
    UNTIL(co.end[4].over);
    cr_assert_str_eq(co.end[4].cause, "exit");
    cr_assert(strstr(co.end[4].tail, "input 01000000"), "%s", co.end[4].tail);
    agent_stop(pid);
}

Test(agent, input_larger_than_the_cache_fails_the_attempt)
{
    pid_t pid = agent_start_with(in("agent"), in("co.key.pub"), in("n1.key"), "4K");
    UNTIL(co.hellos == 1);
    struct id log = make_log();
    grant(1, "trace", trace_spec(&log));
    UNTIL(co.end[1].over);
    cr_assert_str_eq(co.end[1].cause, "exit");
    cr_assert(strstr(co.end[1].tail, "does not fit into the cache of 0.0 MiB (--cache-max)"), "%s",
              co.end[1].tail);
    cr_assert_eq(co.declines, 0);
    agent_stop(pid);
}

Test(agent, inputs_that_fit_one_by_one_but_not_together_fail_the_attempt)
{
    pid_t pid = agent_start_with(in("agent"), in("co.key.pub"), in("n1.key"), "50K");
    UNTIL(co.hellos == 1);
    make_trace(); /* its log stays */
    struct id logs[2] = { make_log() };
    cr_assert(truncate(in("log.txt"), 30000) == 0);
    cr_assert(cas_import(co.cas, in("log.txt"), &logs[1], NULL, &e) == 0, "%s", e.text);
    struct recipe r;
    recipe_init(&r);
    for (size_t i = 0; i < 2; i++) {
        recipe_add_log(&r, "", NULL);
        r.logs[i].id = logs[i];
        r.logs[i].have_id = true;
    }
    json_t *spec = json_object();
    json_object_set_new(spec, "recipe", recipe_json(&r, false));
    recipe_clear(&r);
    grant(2, "trace", spec);
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "exit");
    cr_assert(strstr(co.end[2].tail, "does not fit into the cache"), "%s", co.end[2].tail);
    agent_stop(pid);
}

Test(agent, input_removed_from_the_cache_is_fetched_again)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    cr_assert(dir_remove(in("agent/cache"), &e) == 0, "%s", e.text);
    grant(2, "points", points_spec(&trace, 64, 100));
    UNTIL(co.rows[2] >= 1);
    grant(3, "points", points_spec(&trace, 2, 0)); /* waits for the first, with its input at hand */
    UNTIL(folders() == 2);
    cr_assert(dir_remove(in("agent/cache"), &e) == 0, "%s", e.text);
    cancel(2); /* it has read its trace, and would go on */
    UNTIL(co.end[2].over && co.end[3].over);
    cr_assert_str_eq(co.end[2].cause, "cancelled", "%s", co.end[2].tail);
    cr_assert_str_eq(co.end[3].cause, "lost"); /* to be granted again */
    cr_assert(strstr(co.end[3].tail, "removed from the cache"), "%s", co.end[3].tail);
    grant(4, "points", points_spec(&trace, 2, 0));
    UNTIL(co.end[4].over);
    cr_assert_str_eq(co.end[4].cause, "done", "%s", co.end[4].tail);
    agent_stop(pid);
}

Test(agent, damaged_trace_in_the_cache_is_integrity)
{
    pid_t pid = agent_start();
    struct id trace = make_trace();
    char hex[ID_HEX_LEN];
    id_hex(&trace, hex);
    const char *path = in("agent/cache/%.2s/%s", hex, hex);
    chmod(path, 0600);
    CLEANUP(closep) int fd = open(path, O_WRONLY);
    cr_assert(fd >= 0 && pwrite(fd, "\xff\xff\xff\xff", 4, 100) == 4);
    grant(2, "points", points_spec(&trace, 2, 0));
    UNTIL(co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "integrity");
    agent_stop(pid);
}

Test(agent, replaced_program_takes_nothing_until_it_is_restarted)
{
    static const char *const names[] = { "siofleet", "siofleet-shim" };
    char from[sizeof(program)];
    snprintf(from, sizeof(from), "%s", getenv("SIOFLEET_BIN"));
    cr_assert(dir_make(in("bin"), 0700, &e) == 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        CLEANUP(freep) char *path = path_fmt("%s/%s", from, names[i]);
        CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 28);
        cr_assert(file_read(path, &b, &e) == 0, "%s", e.text);
        cr_assert(file_write(in("bin/%s", names[i]), b.data, b.len, 0700, true, &e) == 0);
    }
    snprintf(program, sizeof(program), "%s", in("bin/siofleet"));
    pid_t pid = agent_start();
    struct id trace = make_trace();
    grant(2, "points", points_spec(&trace, 20, 50));
    UNTIL(co.rows[2] >= 1);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 28);
    cr_assert(file_read(program, &b, &e) == 0 &&
              file_write(program, b.data, b.len, 0700, true, &e) == 0);
    grant(3, "points", points_spec(&trace, 2, 0));
    UNTIL(co.declines == 1);
    cr_assert_str_eq(co.decline, "CLOSED");
    UNTIL(co.accept == 0 && co.end[2].over);
    cr_assert_str_eq(co.end[2].cause, "done"); /* what ran before goes on */
    agent_stop(pid);
    pid = agent_start();
    grant(3, "points", points_spec(&trace, 2, 0));
    UNTIL(co.end[3].over);
    cr_assert_str_eq(co.end[3].cause, "done");
    agent_stop(pid);
}

Test(agent, second_agent_on_one_folder_is_refused)
{
    pid_t pid = agent_start();
    pid_t other = agent_start_with(in("agent"), in("co.key.pub"), in("n1.key"), NULL);
    cr_assert_eq(exit_of(other), 1);
    cr_assert(agent_said("another agent runs on this data directory"));
    agent_stop(pid);
}

Test(agent, refused_hello_is_exit_3_with_the_reason)
{
    co.refuse_hello = "key 'n1' is used by another install";
    pid_t pid = agent_start_with(in("agent"), in("co.key.pub"), in("n1.key"), NULL);
    cr_assert_eq(exit_of(pid), 3);
    cr_assert(agent_said("key 'n1' is used by another install"));
}

Test(agent, unlisted_key_and_wrong_server_key_are_exit_3)
{
    cr_assert(key_new(in("n2.key"), ROLE_AGENT, "n2", NULL, &e) == 0);
    cr_assert(key_new(in("other.key"), ROLE_COORDINATOR, "other", NULL, &e) == 0);
    cr_assert_eq(exit_of(agent_start_with(in("agent"), in("co.key.pub"), in("n2.key"), NULL)), 3);
    cr_assert_eq(exit_of(agent_start_with(in("agent"), in("other.key.pub"), in("n1.key"), NULL)),
                 3);
    cr_assert_eq(exit_of(agent_start_with(in("agent"), in("n2.key.pub"), in("n1.key"), NULL)), 3);
    cr_assert_eq(co.hellos, 0);
}

Test(agent, unusable_data_directory_is_exit_1)
{
    close(open(in("file"), O_WRONLY | O_CREAT, 0600));
    cr_assert_eq(exit_of(agent_start_with(in("file"), in("co.key.pub"), in("n1.key"), NULL)), 1);
    cr_assert_eq(exit_of(agent_start_with("/proc/none", in("co.key.pub"), in("n1.key"), NULL)), 1);
    cr_assert_eq(exit_of(agent_start_with(in("agent"), in("co.key.pub"), in("no.key"), NULL)), 1);
}

Test(agent, waits_for_a_coordinator_that_is_not_there_yet)
{
    co_close();
    pid_t pid = agent_start_with(in("agent"), in("co.key.pub"), in("n1.key"), NULL);
    nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
    co_open();
    UNTIL(co.hellos == 1);
    agent_stop(pid);
}
