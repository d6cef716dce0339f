/* Users: the real client library (proto/client) on the user's host, one process a command. A command that is not done is
 * said again until it is: submit has its request id, the others may be repeated. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/build.h"
#include "perf/sweep.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/client/client.h"
#include "tests/sim/sim.h"

enum { AGAIN_MS = 2000, PATIENCE_MS = 30000 };

struct command {
    enum plan_verb verb;
    int64_t arg, arg2, arg3;
    unsigned no;
    char job[ID_HEX_LEN]; /* once submitted */
    uint64_t undo_ms;     /* of a hold or a drain: when it is taken back; 0 = now */
    uint64_t since_ms;
    bool done, again, bring;
};

static struct {
    struct sweep *sweep[PLAN_SWEEPS_MAX];
    char *json[PLAN_SWEEPS_MAX];
    char id[PLAN_SWEEPS_MAX][ID_HEX_LEN]; /* once submitted */
    char job[ID_HEX_LEN];                 /* the newest one; "" = none yet */
    unsigned running, commands;
} users;

/* ---- what users have on their disk */

void user_log(unsigned no, struct buf *b)
{
    for (unsigned i = 0; i < 12; i++)
        if (buf_addf(b,
                     "vtd_iotlb_page_hit IOTLB page hit sid 0x%x iova 0x%x004 pmask "
                     "0xfffffffffffff000 slpte 0x%x003 domain 0x%x\n",
                     i % 2 ? 0x18u : 0x10u, 1 + i + no, 0x100 + i, 1 + i % 2) < 0)
            abort();
}

void user_filler(unsigned no, uint64_t size_b, struct buf *b)
{
    enum { FRESH = 8 };
    static uint8_t lines[FRESH][4096];
    for (uint64_t k = 0; b->len < size_b; k++) {
        uint8_t *line = lines[k % FRESH];
        if (k >= FRESH) { /* a lot of them: only their numbers differ */
            for (unsigned i = 0; i < 8; i++)
                line[i] = (uint8_t)('a' + (k >> 4 * i & 15));
            if (buf_add(b, line, sizeof(lines[0])) < 0)
                abort();
            continue;
        }
        struct rng rng = { k + no * 7919 };
        for (size_t i = 0; i < sizeof(lines[0]); i++)
            line[i] = (uint8_t)('a' + (rng_u64(&rng) & 15));
        line[sizeof(lines[0]) - 1] = '\n';
        if (buf_add(b, line, sizeof(lines[0])) < 0)
            abort();
    }
}

static int put_log(unsigned no, uint64_t size_b, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64 << 20);
    char path[64];
    user_log(no, &b);
    user_filler(no, size_b, &b);
    snprintf(path, sizeof(path), "/sim/u/log%u", no);
    return file_write(path, b.data, b.len, 0600, true, e);
}

static int put_trace(uint64_t seed, const char *path, struct err *e)
{
    struct recipe rec;
    struct trace *t = NULL;
    recipe_init(&rec);
    rec.seed = seed;
    int r = recipe_add_log(&rec, "/sim/u/log0", e);
    if (r >= 0)
        r = build_trace(&rec, NULL, &t, NULL, e);
    if (r >= 0)
        r = trace_save(t, path, true, NULL, e);
    trace_free(&t);
    recipe_clear(&rec);
    return r;
}

/* A collection of some runs that take so long each. Two of the same name and time have the same runs. */
static void collect_job_text(uint64_t runs, uint64_t ms, const char *name, char out[256])
{
    snprintf(
        out, 256,
        "{\"kind\":\"collect\",\"name\":\"%s\",\"timeout_ms\":60000,\"cores\":1,\"own_all\":true,"
        "\"runs\":%u,\"files\":{},\"ini\":\"ms = %u\"}",
        name, (unsigned)runs, (unsigned)ms);
}

static int make_sweep(unsigned no, const struct plan_sweep *w, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 16);
    int r = buf_addf(&b, "[sweep]\nname = s%u\nretries = %u\npriority = %u\ntimeout = %us\n", no,
                     (unsigned)w->retries, (unsigned)w->priority, (unsigned)(w->timeout_ms / 1000));
    if (r >= 0 && w->block)
        r = buf_addf(&b, "block = %u\n", (unsigned)w->block);
    if (w->by_id == 2 && r >= 0)
        r = buf_adds(&b, "[collect]\nrun = /sim/u/run.ini\n");
    if (w->by_id != 1 && r >= 0)
        r = buf_addf(&b, "[trace t]\nlogs = %s\nseed = %u..%u:+1\n",
                     w->by_id ? "@collect" : "/sim/u/log0, /sim/u/log1", (unsigned)w->seed,
                     (unsigned)(w->seed + w->recipes - 1));
    for (uint64_t i = 0; w->by_id == 1 && i < w->recipes && r >= 0; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/sim/u/t%u.trc", (unsigned)(w->seed + i));
        r = put_trace(w->seed + i, path, e);
        if (r >= 0)
            r = buf_addf(&b, "[trace t%u]\nfile = %s\n", (unsigned)i, path);
    }
    if (r >= 0)
        r = buf_addf(&b, "[arch a]\nlink_gbps = %u..%u:+1\n", (unsigned)w->gbps,
                     (unsigned)(w->gbps + w->archs - 1));
    if (r >= 0)
        r = sweep_text("sim.ini", (const char *)b.data, &users.sweep[no], e);
    if (r >= 0)
        r = sweep_identify(users.sweep[no], e);
    if (r < 0)
        return r;
    json_t *j = sweep_json(users.sweep[no]);
    if (w->by_id == 2) { /* goes along as the job that it is */
        char job[256];
        collect_job_text(2, 1000 + 10 * world.plan->point_ms, "sweep", job);
        json_object_set_new(j, "collect", json_string(job));
    }
    users.json[no] = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    return users.json[no] ? 0 : -ENOMEM;
}

int users_begin(struct err *e)
{
    const struct plan *plan = world.plan;
    memset(&users, 0, sizeof(users));
    int r = put_log(0, plan->log_b, e);
    if (r >= 0)
        r = put_log(1, 1, e);
    if (r >= 0)
        r = file_write("/sim/u/run.ini", "[collect]\n", 10, 0600, true, e);
    for (unsigned i = 0; i < plan->n_sweeps && r >= 0; i++)
        r = make_sweep(i, &plan->sweep[i], e);
    return r;
}

void users_clear(void)
{
    for (unsigned i = 0; i < PLAN_SWEEPS_MAX; i++) {
        sweep_free(&users.sweep[i]);
        freep(&users.json[i]);
    }
}

/* ---- commands */

struct upload {
    struct client *c;
    struct err *e;
};

static int upload(void *user, const char *path, const struct id *id)
{
    struct upload *u = user;
    struct id got;
    uint64_t size_b;
    (void)id;
    return client_put(u->c, path, strstr(path, ".trc") ? "trace" : "log", "", &got, &size_b, NULL,
                      NULL, u->e);
}

static int submit(struct client *c, unsigned no, struct err *e)
{
    struct upload u = { c, e };
    struct msg_submitted m;
    char name[16];
    snprintf(name, sizeof(name), "s%u", no);
    int r = sweep_files(users.sweep[no], upload, &u);
    if (r >= 0)
        r = client_submit(c, name, users.json[no], strlen(users.json[no]), &m, e);
    if (r < 0)
        return r;
    id_hex(&m.sweep, users.id[no]);
    check_submitted(&m.sweep, no);
    return 0;
}

static int control(struct client *c, struct command *cmd, struct err *e)
{
    static const struct {
        const char *verb, *undo;
    } verbs[] = { [PLAN_cancel] = { "cancel", NULL },
                  [PLAN_hold] = { "hold", "release" },
                  [PLAN_retry] = { "retry-failed", NULL },
                  [PLAN_drain] = { "drain", "undrain" },
                  [PLAN_canceljob] = { "cancel", NULL } };
    if (cmd->verb == PLAN_canceljob && !*cmd->job)
        snprintf(cmd->job, sizeof(cmd->job), "%s", users.job);
    const char *target = cmd->verb == PLAN_drain       ? world.host[cmd->arg].name
                         : cmd->verb == PLAN_canceljob ? cmd->job
                                                       : users.id[cmd->arg];
    if (!*target) /* not submitted: a while is waited for that */
        return world.now_ms - cmd->since_ms > PATIENCE_MS ? 0 : -EAGAIN;
    char text[1001];
    bool undo = !cmd->undo_ms;
    check_asked(cmd->verb, cmd->arg, target, undo);
    int r = client_control(
        c, undo && verbs[cmd->verb].undo ? verbs[cmd->verb].undo : verbs[cmd->verb].verb, target,
        text, e);
    if (r >= 0 && cmd->verb == PLAN_cancel && strstr(text, ": cancelled"))
        check_cancelled((unsigned)cmd->arg, true);
    if (r >= 0)
        check_answered(cmd->verb, cmd->arg, target, undo, text);
    if (cmd->verb == PLAN_retry) /* whether or not its answer came */
        check_cancelled((unsigned)cmd->arg, false);
    /* "it is over already", "no such agent yet": an answer is an answer; a disk in trouble is none */
    const char *why = client_refusal(c);
    bool final = *why && strcmp(why, "NO_SPACE") != 0 && strcmp(why, "EIO") != 0;
    return r < 0 && final ? 0 : r;
}

/* A job: submitted, then asked about until it is over. -EAGAIN: not yet. */
static int exec(struct client *c, struct command *cmd, struct err *e)
{
    if (!*cmd->job) {
        char request[16], text[256];
        struct msg_submitted m;
        snprintf(request, sizeof(request), "j%u", cmd->no);
        if (cmd->verb == PLAN_collect)
            collect_job_text((uint64_t)cmd->arg, (uint64_t)cmd->arg2, request, text);
        else
            snprintf(text, sizeof(text),
                     "{\"kind\":\"exec\",\"name\":\"%s\",\"timeout_ms\":30000,\"copy\":[\"out\"],"
                     "\"argv\":[\"sim-command\",\"%d\",\"%d\",\"%d\"]}",
                     request, (int)cmd->arg, (int)cmd->arg2, (int)cmd->arg3);
        int r = client_submit_job(c, request, text, strlen(text), &m, e);
        if (r < 0) /* no agent is there: that is an answer */
            return *client_refusal(c) && strcmp(client_refusal(c), "NO_SPACE") != 0 &&
                           strcmp(client_refusal(c), "EIO") != 0
                       ? 0
                       : r;
        id_hex(&m.sweep, cmd->job);
        snprintf(users.job, sizeof(users.job), "%s", cmd->job);
    }
    CLEANUP(json_decrefp) json_t *args = json_pack("{s:s}", "id", cmd->job), *doc = NULL;
    int r = client_ask_one(c, "job", args, &doc, e);
    const char *state = json_string_value(json_object_get(doc, "state"));
    if (r < 0 && *client_refusal(c) && strcmp(client_refusal(c), "EIO") != 0)
        check_lost(cmd->job, e->text);
    if (r < 0 || !state)
        return r < 0 ? r : -EAGAIN;
    if (!strcmp(state, "failed") && !cmd->again) { /* once more */
        r = client_control(c, "retry-failed", cmd->job, NULL, e);
        cmd->again = r >= 0;
        return r < 0 ? r : -EAGAIN;
    }
    return !strcmp(state, "done") || !strcmp(state, "failed") || !strcmp(state, "cancelled")
               ? 0
               : -EAGAIN;
}

/* What waits in quarantine is let go: a person who looked at it found nothing wrong. */
static int free_one(void *ctx, json_t *body, struct err *e)
{
    struct buf *tasks = ctx;
    json_t *t;
    size_t i;
    json_array_foreach (json_object_get(body, "items"), i, t)
        if (!strcmp(json_string_value(json_object_get(t, "state")), "quarantined"))
            buf_addf(tasks, "%d ", (int)json_integer_value(json_object_get(t, "task")));
    (void)e;
    return 0;
}

static int free_all(struct client *c, struct err *e)
{
    CLEANUP(buf_clear) struct buf tasks = BUF_INIT(1 << 16);
    CLEANUP(json_decrefp) json_t *args = json_object();
    int r = client_ask(c, "ls-tasks", args, free_one, &tasks, e);
    if (r < 0 || buf_add(&tasks, "", 1) < 0)
        return r;
    for (char *save, *t = strtok_r((char *)tasks.data, " ", &save); t;
         t = strtok_r(NULL, " ", &save)) {
        r = client_control(c, "retry", t, NULL, e);
        if (r < 0 && !*client_refusal(c)) /* it is over meanwhile: an answer, too */
            return r;
    }
    return 0;
}

static int bring(struct client *c, struct err *e)
{
    struct upload u = { c, e };
    int r = 0;
    for (unsigned i = 0; r >= 0 && i < world.plan->n_sweeps; i++)
        r = *users.id[i] ? sweep_files(users.sweep[i], upload, &u) : 0;
    return r;
}

static void command_main(struct part *p)
{
    struct command *cmd = p->arg;
    const struct client_opt opt = { .connect = "tcp://sim:1",
                                    .server_key = "/sim/u/coordinator.pub",
                                    .key = "/sim/u/key" };
    while (!p->dead && !cmd->done) {
        struct client *c = NULL;
        struct err e = { 0 };
        int r = client_open(&opt, 0, NULL, &c, &e);
        if (r >= 0)
            r = cmd->bring                  ? bring(c, &e)
                : cmd->verb == PLAN_submit  ? submit(c, (unsigned)cmd->arg, &e)
                : cmd->verb == PLAN_exec    ? exec(c, cmd, &e)
                : cmd->verb == PLAN_collect ? exec(c, cmd, &e)
                : cmd->verb == PLAN_free    ? free_all(c, &e)
                                            : control(c, cmd, &e);
        cmd->done = r >= 0 && !cmd->undo_ms;
        if (r < 0)
            log_info("user: %s", e.text);
        client_free(&c);
        if (r >= 0 && cmd->undo_ms) {
            part_wait(cmd->undo_ms);
            cmd->undo_ms = 0;
        } else if (r < 0) {
            part_wait(world.now_ms + AGAIN_MS);
        }
    }
    users.running--;
}

static void begin(struct command *cmd)
{
    char name[16];
    cmd->no = users.commands;
    cmd->since_ms = world.now_ms;
    snprintf(name, sizeof(name), "u%u", ++users.commands);
    users.running++;
    part_start(PART_USER, USER_HOST, name, command_main, cmd);
}

void user_bring(void)
{
    struct command *cmd = calloc(1, sizeof(*cmd));
    if (!cmd)
        abort();
    cmd->bring = true;
    begin(cmd);
}

void user_command(const struct plan_event *ev)
{
    struct command *cmd = calloc(1, sizeof(*cmd));
    if (!cmd)
        abort();
    cmd->verb = ev->verb;
    cmd->arg = ev->arg[0];
    cmd->arg2 = ev->arg[1];
    cmd->arg3 = ev->arg[2];
    if (ev->verb == PLAN_hold || ev->verb == PLAN_drain)
        cmd->undo_ms = world.now_ms + (uint64_t)ev->arg[1] + 1;
    begin(cmd);
}

bool users_waiting(void)
{
    return users.running;
}
