#include "deploy/host_job.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "deploy/embed.h"
#include "deploy/ssh.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/num.h"
#include "proto/link/keys.h"

enum { CONNECT_TRIES = 5 };

/* A release with its libraries, one spare, and room for an agent's cache. */
static const uint64_t FREE_MIN_KIB = 512 << 10;

struct job {
    const struct job_plan *p;
    const struct host *h;
    struct job_result *ret;
    struct ssh *ssh;
    char *data; /* resolved on the host */
};

static pthread_mutex_t allow_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- saying what happened */

static void note(struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct job *j, const char *fmt, ...)
{
    if (!j->p->note)
        return;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    j->p->note(j->p->note_user, j->h->name, text);
}

/* One thing that is changed. Returns whether to do it now (not in a dry run). */
static bool action(struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool action(struct job *j, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    json_array_append_new(j->ret->actions, json_str(text));
    note(j, "%s%s", j->p->dry_run ? "would " : "", text);
    return !j->p->dry_run;
}

/* The error of e (or of fmt) becomes the host's; its name in front is dropped, since the table has it. */
static int fail(struct job *j, const char *step, const struct err *e, const char *fix)
{
    size_t n = strlen(j->h->name);
    const char *text = e->text;
    if (!strncmp(text, j->h->name, n) && !strncmp(text + n, ": ", 2))
        text += n + 2;
    j->ret->status = JOB_FAILED;
    j->ret->step = step;
    j->ret->code = e->code ? e->code : SF_EFAILED;
    snprintf(j->ret->message, sizeof(j->ret->message), "%s", text);
    snprintf(j->ret->fix, sizeof(j->ret->fix), "%s", fix ? fix : "");
    return -j->ret->code;
}

static int failf(struct job *j, const char *step, const char *fix, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static int failf(struct job *j, const char *step, const char *fix, const char *fmt, ...)
{
    struct err e;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err_set(&e, SF_EFAILED, "%s", text);
    return fail(j, step, &e, fix);
}

/* ---- talking to the host */

static const char *login_fix(enum ssh_step at)
{
    switch (at) {
    case SSH_REACH:
        return "is it on, is the address right, does sshd listen on that port?";
    case SSH_HANDSHAKE:
        return "sshd there may be overloaded (MaxStartups) or not an sshd";
    case SSH_HOSTKEY:
        return "compare the fingerprint with the host's own (ssh-keygen -lf "
               "/etc/ssh/ssh_host_ed25519_key.pub), then accept or pin it";
    default:
        return "put your public key into ~/.ssh/authorized_keys there (ssh-copy-id), or name the "
               "key with identity=";
    }
}

static struct ssh_target target(const struct job *j)
{
    return (struct ssh_target){ .name = j->h->name,
                                .address = j->h->address,
                                .port = j->h->port,
                                .user = j->h->user,
                                .identity = j->p->hosts->identity,
                                .known_hosts = j->p->hosts->known_hosts,
                                .hostkey = j->h->hostkey };
}

/* A failure that is tried again after all. */
static void forgive(struct job *j)
{
    j->ret->status = JOB_OK;
    j->ret->code = 0;
    j->ret->message[0] = j->ret->fix[0] = '\0';
}

static int connect_host(struct job *j)
{
    const struct ssh_target t = target(j);
    struct err e = { 0 };
    enum ssh_step at = SSH_REACH;
    for (int i = 1;; i++) {
        int r = ssh_open(&t, j->p->timeout_ms < 20000 ? j->p->timeout_ms : 20000, &j->ssh, &at, &e);
        if (r == 0)
            return 0;
        /* only what may pass by itself is tried again: an sshd at its MaxStartups drops connections at random */
        bool again =
            (at == SSH_REACH && r != -EHOSTUNREACH) || (at == SSH_HANDSHAKE && r != -ETIMEDOUT);
        if (!again || i == CONNECT_TRIES)
            return fail(j, "connect", &e, login_fix(at));
        usleep((useconds_t)(300000 * i + (long)(clock_mono_ns() % 300000)));
    }
}

/* One verb of host.sh. ret may be NULL when the output does not matter. Status other than 0 is a failure. */
static int remote(struct job *j, const char *step, const char *verb, const char *const args[],
                  ssh_source in, void *in_user, uint64_t timeout_ms, struct ssh_result *ret)
{
    CLEANUP(ssh_result_clear) struct ssh_result local = { 0 };
    if (!ret)
        ret = &local;
    const char *words[12] = { verb, j->data ? j->data : j->h->data };
    size_t n = 2;
    for (size_t i = 0; args && args[i] && n + 1 < ARRAY_LEN(words); i++)
        words[n++] = args[i];
    struct err e = { 0 };
    int r = ssh_script(j->ssh, embed_host, words, in, in_user, timeout_ms, ret, &e);
    if (r < 0)
        return fail(j, step, &e, NULL);
    if (ret->status == 0)
        return 0;
    const char *said = ret->err.len ? (const char *)ret->err.data : "nothing";
    bool full = strstr(said, "No space left") != NULL;
    return failf(j, step, full ? "free some space there" : NULL, "%s failed with status %d: %.*s",
                 verb, ret->status, (int)strcspn(said, "\n"), said);
}

static const char *fact(const struct job *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j->ret->facts, key));
    return s ? s : "";
}

static uint64_t fact_u64(const struct job *j, const char *key)
{
    uint64_t v = 0;
    return num_u64(fact(j, key), 0, UINT64_MAX, key, &v, NULL) == 0 ? v : 0;
}

/* A key that may stand on several lines: "have", "step". */
static bool fact_has(const struct job *j, const char *key, const char *value)
{
    size_t i;
    json_t *v;
    json_array_foreach (json_object_get(j->ret->facts, key), i, v)
        if (!strcmp(json_string_value(v), value))
            return true;
    return false;
}

static int probe(struct job *j)
{
    CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
    uint64_t t0 = clock_wall_ms();
    int r = remote(j, "probe", "probe", NULL, NULL, NULL, j->p->timeout_ms, &res);
    if (r < 0)
        return r;
    uint64_t t1 = clock_wall_ms();
    j->ret->facts = json_object();
    char *save = NULL;
    for (char *line = res.out.len ? strtok_r((char *)res.out.data, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        char *blank = strchr(line, ' ');
        if (!blank)
            continue;
        *blank = '\0';
        if (!strcmp(line, "have") || !strcmp(line, "step")) {
            json_t *list = json_object_get(j->ret->facts, line);
            if (!list) {
                list = json_array();
                json_object_set_new(j->ret->facts, line, list);
            }
            json_array_append_new(list, json_str(blank + 1));
        } else {
            json_object_set_new(j->ret->facts, line, json_str(blank + 1));
        }
    }
    if (!fact(j, "data")[0])
        return failf(j, "probe", NULL, "its shell does not answer as expected");
    j->data = strdup(fact(j, "data"));
    /* offset of its clock against ours: middle of the round trip */
    uint64_t there = fact_u64(j, "clock_ms"), here = t0 + (t1 - t0) / 2;
    char offset[32];
    snprintf(offset, sizeof(offset), "%lld", (long long)(there - here));
    json_object_set_new(j->ret->facts, "clock_offset_ms", json_str(offset));
    if (fact(j, "release")[0])
        snprintf(j->ret->version, sizeof(j->ret->version), "%.16s", fact(j, "release"));
    return j->data ? 0 : failf(j, "probe", NULL, "out of memory");
}

/* ---- what must fit before anything is changed */

static int glibc_older(const char *a, const char *b)
{
    unsigned a1 = 0, a2 = 0, b1 = 0, b2 = 0;
    if (sscanf(a, "%u.%u", &a1, &a2) != 2 ||
        sscanf(b, "%u.%u", &b1, &b2) != 2) // NOLINT: missing parts are handled
        return 0;
    return a1 < b1 || (a1 == b1 && a2 < b2);
}

static int fits(struct job *j)
{
    struct utsname u;
    uname(&u);
    if (strcmp(fact(j, "arch"), u.machine) != 0)
        return failf(j, "architecture", "deploy from a machine of that kind",
                     "is %s, this release is for %s", fact(j, "arch"), u.machine);
    if (j->p->release && glibc_older(fact(j, "glibc"), j->p->release->glibc))
        return failf(j, "glibc", "upgrade the host, or build on a distribution as old as it",
                     "has glibc %s, this release needs %s", fact(j, "glibc"), j->p->release->glibc);
    if (!strcmp(fact(j, "writable"), "no"))
        return failf(j, "disk", "choose another data= or give the user that folder",
                     "'%s' is not writable for '%s'", fact(j, "above"), j->h->user);
    if (fact_u64(j, "free_kib") < FREE_MIN_KIB &&
        !fact_has(j, "have", j->p->release ? j->p->release->id : ""))
        return failf(j, "disk", "free some space, or choose another data=",
                     "%llu MiB free under '%s', %llu needed",
                     (unsigned long long)fact_u64(j, "free_kib") >> 10, fact(j, "above"),
                     (unsigned long long)FREE_MIN_KIB >> 10);
    if (j->h->class->cores > fact_u64(j, "cores"))
        return failf(
            j, "cores", "lower cores= of its class", "has %llu cores, its class asks for %llu",
            (unsigned long long)fact_u64(j, "cores"), (unsigned long long)j->h->class->cores);
    if (j->h->class->memory_mib > fact_u64(j, "memory_kib") >> 10)
        return failf(j, "memory", "lower memory= of its class",
                     "has %llu MiB, its class asks for %llu",
                     (unsigned long long)fact_u64(j, "memory_kib") >> 10,
                     (unsigned long long)j->h->class->memory_mib);
    return 0;
}

/* ---- up */

/* Reboot and come back: until the machine says another boot id, or the step's deadline. */
static int reboot_host(struct job *j, const struct setup_step *s)
{
    CLEANUP(ssh_result_clear) struct ssh_result before = { 0 };
    int r = remote(j, "reboot", "boot", NULL, NULL, NULL, j->p->timeout_ms, &before);
    if (r < 0)
        return r;
    const char *args[] = { s->sudo ? "yes" : "no", NULL };
    r = remote(j, "reboot", "reboot", args, NULL, NULL, j->p->timeout_ms, NULL);
    if (r < 0)
        return r;
    uint64_t deadline = clock_mono_ms() + s->timeout_ms;
    while (clock_mono_ms() < deadline) {
        j->ret->bytes_sent += ssh_sent_b(j->ssh);
        ssh_free(&j->ssh);
        usleep(1000000);
        const struct ssh_target t = target(j);
        struct err e = { 0 };
        enum ssh_step at;
        r = ssh_open(&t, 5000, &j->ssh, &at, &e);
        if (r < 0 && at >= SSH_HOSTKEY)
            return fail(j, "reboot", &e, login_fix(at));
        CLEANUP(ssh_result_clear) struct ssh_result now = { 0 };
        if (r < 0 || remote(j, "reboot", "boot", NULL, NULL, NULL, 5000, &now) < 0) {
            forgive(j);
            continue;
        }
        if (now.out.len && before.out.len &&
            strcmp((char *)now.out.data, (char *)before.out.data) != 0)
            return 0;
    }
    return failf(j, "reboot", "look at its console",
                 "did not come back from the reboot of step '%.64s' in %llu s", s->name,
                 (unsigned long long)s->timeout_ms / 1000);
}

static int setup_steps(struct job *j)
{
    const struct host_class *c = j->h->class;
    for (size_t i = 0; i < c->n_steps; i++) {
        const struct setup_step *s = &c->steps[i];
        struct id id;
        char hex[ID_HEX_LEN], mark[120], seconds[24];
        hash_bytes(s->command, strlen(s->command), &id);
        id_hex(&id, hex);
        snprintf(mark, sizeof(mark), "%.64s.%.16s", s->name, hex);
        if (fact_has(j, "step", mark) ||
            !action(j, "run set-up step '%s'%s", s->name, s->reboot ? ", then reboot" : ""))
            continue;
        snprintf(seconds, sizeof(seconds), "%llu",
                 (unsigned long long)(s->timeout_ms + 999) / 1000);
        const char *args[] = { mark, seconds, s->sudo ? "yes" : "no", s->command, NULL };
        int r = remote(j, "setup", "step", args, NULL, NULL, s->timeout_ms + 10000, NULL);
        if (r < 0) {
            char text[sizeof(j->ret->message)];
            snprintf(text, sizeof(text), "set-up step '%.64s': %.400s", s->name, j->ret->message);
            snprintf(j->ret->message, sizeof(j->ret->message), "%s", text);
            snprintf(j->ret->fix, sizeof(j->ret->fix),
                     "its output is in %.200s/steps/%.120s.log there; run up again to go on",
                     j->data, mark);
            return r;
        }
        if (s->reboot)
            r = reboot_host(j, s);
        const char *done[] = { mark, NULL };
        if (r == 0)
            r = remote(j, "setup", "mark", done, NULL, NULL, j->p->timeout_ms, NULL);
        if (r < 0)
            return r;
    }
    return 0;
}

struct pack_source {
    int fd;
};

static long read_pack(void *user, void *p, size_t n)
{
    ssize_t r = read_full(((struct pack_source *)user)->fd, p, n);
    return r;
}

static int send_release(struct job *j)
{
    const struct release *rel = j->p->release;
    if (fact_has(j, "have", rel->id) ||
        !action(j, "send release %s (%llu KiB)", rel->id, (unsigned long long)rel->pack_b >> 10))
        return 0;
    for (int i = 1;; i++) {
        CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
        const char *have[] = { rel->id, NULL };
        int r = remote(j, "copy", "have", have, NULL, NULL, j->p->timeout_ms, &res);
        uint64_t at = 0;
        if (r == 0 && res.out.len) {
            ((char *)res.out.data)[strcspn((char *)res.out.data, "\n")] = '\0';
            num_u64((char *)res.out.data, 0, UINT64_MAX, "have", &at, NULL);
        }
        if (at > rel->pack_b)
            at = 0;
        if (r == 0) {
            CLEANUP(closep) int fd = open(rel->pack, O_RDONLY | O_CLOEXEC);
            if (fd < 0 || lseek(fd, (off_t)at, SEEK_SET) < 0)
                return failf(j, "copy", NULL, "%s: %s", rel->pack, strerror(errno));
            struct pack_source src = { fd };
            char offset[24];
            snprintf(offset, sizeof(offset), "%llu", (unsigned long long)at);
            const char *args[] = { rel->id, offset, NULL };
            /* at a slow 50 KiB/s the pack may still pass */
            r = remote(j, "copy", "receive", args, read_pack, &src,
                       j->p->timeout_ms + (rel->pack_b - at) / 50, NULL);
        }
        if (r == 0) {
            const char *args[] = { rel->id, rel->sha256, NULL };
            r = remote(j, "install", "install", args, NULL, NULL, j->p->timeout_ms, NULL);
            if (r == 0)
                return 0;
        }
        bool broken = j->ret->code == ECONNRESET;
        if (!broken || i == CONNECT_TRIES)
            return r;
        note(j, "connection broke, the copy goes on where it stopped");
        j->ret->bytes_sent += ssh_sent_b(j->ssh);
        ssh_free(&j->ssh);
        forgive(j);
        r = connect_host(j);
        if (r < 0)
            return r;
    }
}

/* The key pair is made on the host; only its public line comes here and joins the allow-list. */
static int agent_key(struct job *j)
{
    char line[256] = "";
    if (fact(j, "pub")[0]) {
        snprintf(line, sizeof(line), "%s", fact(j, "pub"));
    } else {
        if (!action(j, "make the agent's key pair there and allow its public half"))
            return 0;
        CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
        const char *args[] = { j->p->release->id, j->h->name, NULL };
        int r = remote(j, "key", "key", args, NULL, NULL, j->p->timeout_ms, &res);
        if (r < 0)
            return r;
        if (res.out.len)
            snprintf(line, sizeof(line), "%.*s", (int)strcspn((char *)res.out.data, "\n"),
                     (char *)res.out.data);
    }
    struct key_pub pub;
    struct err e = { 0 };
    if (key_parse_pub(line, strlen(line), "its public key", &pub, &e) < 0)
        return fail(j, "key", &e, "remove agent.key there and run up again");
    if (pub.role != ROLE_AGENT)
        return failf(j, "key", "remove agent.key there and run up again", "its key has the role %s",
                     role_name(pub.role));
    if (!j->p->allow_data || j->p->dry_run)
        return 0;
    pthread_mutex_lock(&allow_lock);
    int r = keys_allow(j->p->allow_data, &pub, &e);
    pthread_mutex_unlock(&allow_lock);
    return r < 0 ? fail(j, "allow", &e, "siofleet keys revoke the old one first") : 0;
}

static int add_arg(struct buf *b, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int add_arg(struct buf *b, const char *name, const char *fmt, ...)
{
    char text[1200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    /* one argument a line: a value with a line end in it would become two */
    return strchr(text, '\n') ? -EINVAL : buf_addf(b, "%s\n%s\n", name, text);
}

static int agent_args(struct job *j, struct buf *b)
{
    const struct host_class *c = j->h->class;
    int r = buf_adds(b, "agent\n");
    r = r < 0 ? r : add_arg(b, "--data", "%s/agent", j->data);
    r = r < 0 ? r : add_arg(b, "--connect", "%s", j->p->hosts->coordinator);
    r = r < 0 ? r : add_arg(b, "--server-key", "%s/server.pub", j->data);
    r = r < 0 ? r : add_arg(b, "--key", "%s/agent.key", j->data);
    r = r < 0 ? r : add_arg(b, "--name", "%s", j->h->name);
    r = r < 0 ? r : add_arg(b, "--ready-file", "%s/run/ready", j->data);
    if (c->cores)
        r = r < 0 ? r : add_arg(b, "--cores", "%llu", (unsigned long long)c->cores);
    if (c->memory_mib)
        r = r < 0 ? r : add_arg(b, "--memory", "%llu", (unsigned long long)c->memory_mib);
    if (c->labels)
        r = r < 0 ? r : add_arg(b, "--labels", "%s", c->labels);
    return r;
}

/* Start the agent and wait until the coordinator has taken it. */
static int start(struct job *j)
{
    int r = remote(j, "start", "start", NULL, NULL, NULL, j->p->timeout_ms + 40000, NULL);
    if (r < 0)
        return r;
    char seconds[24];
    snprintf(seconds, sizeof(seconds), "%llu", (unsigned long long)(j->p->timeout_ms + 999) / 1000);
    const char *wait[] = { seconds, NULL };
    r = remote(j, "register", "ready", wait, NULL, NULL, j->p->timeout_ms + 10000, NULL);
    if (r < 0)
        snprintf(j->ret->fix, sizeof(j->ret->fix),
                 "does the coordinator run at %.100s, and is its port open from there? siofleet "
                 "deploy logs shows the agent's own words",
                 j->p->hosts->coordinator);
    return r;
}

/* The new release does not come up: the one before it does its work again; the failure stays the host's result. */
static void roll_back(struct job *j)
{
    struct job_result was = *j->ret;
    if (remote(j, "rollback", "rollback", NULL, NULL, NULL, j->p->timeout_ms, NULL) == 0 &&
        start(j) == 0)
        json_array_append_new(was.actions, json_str("roll back to the release before"));
    was.bytes_sent = j->ret->bytes_sent;
    *j->ret = was;
}

static int configure(struct job *j)
{
    CLEANUP(buf_clear) struct buf args = BUF_INIT(16384);
    if (agent_args(j, &args) < 0)
        return failf(j, "configure", NULL, "its settings do not fit into argument lines");
    struct id id;
    char hex[ID_HEX_LEN];
    hash_bytes(args.data, args.len, &id);
    id_hex(&id, hex);
    size_t server_n = strcspn(j->p->server_line, "\n");
    bool same = !strcmp(hex, fact(j, "args")) && !strcmp(j->p->release->id, fact(j, "release")) &&
                strlen(fact(j, "server")) == server_n &&
                !strncmp(fact(j, "server"), j->p->server_line, server_n);
    bool up = !strcmp(fact(j, "agent"), "up") && fact(j, "ready")[0];
    if (same && up)
        return 0;
    if (!same && action(j, "switch to release %s and its settings", j->p->release->id)) {
        const char *words[] = { j->p->release->id, (const char *)args.data, j->p->server_line,
                                NULL };
        int r = remote(j, "configure", "configure", words, NULL, NULL, j->p->timeout_ms, NULL);
        if (r < 0)
            return r;
    }
    if (!action(j, "%s the agent (%s)", up ? "restart" : "start", fact(j, "service")))
        return 0;
    int r = start(j);
    if (r < 0) {
        if (j->p->verb == JOB_UPGRADE && fact(j, "release")[0] &&
            strcmp(fact(j, "release"), j->p->release->id) != 0)
            roll_back(j);
        return r;
    }
    const char *prune[] = { j->p->release->id, NULL };
    return remote(j, "prune", "prune", prune, NULL, NULL, j->p->timeout_ms, NULL);
}

static int up(struct job *j)
{
    int r = fits(j);
    if (r == 0)
        r = setup_steps(j);
    if (r == 0)
        r = send_release(j);
    if (r == 0)
        r = agent_key(j);
    if (r == 0)
        r = configure(j);
    if (r == 0) {
        j->ret->step = "up";
        j->ret->status = json_array_size(j->ret->actions) ? JOB_CHANGED : JOB_OK;
        if (!j->p->dry_run)
            snprintf(j->ret->version, sizeof(j->ret->version), "%s", j->p->release->id);
    }
    return r;
}

/* ---- the others */

static int check(struct job *j)
{
    int r = fits(j);
    if (r < 0)
        return r;
    long long offset = atoll(fact(j, "clock_offset_ms"));
    if (offset > 60000 || offset < -60000)
        return failf(j, "clock", "set its clock (timedatectl set-ntp true)",
                     "is %lld s off; times in results would mislead", offset / 1000);
    for (size_t i = 0; i < j->h->class->n_steps; i++)
        if (j->h->class->steps[i].sudo && strcmp(fact(j, "uid"), "0") != 0) {
            const char *argv[] = { "sudo", "-n", "true", NULL };
            CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
            struct err e = { 0 };
            r = ssh_run(j->ssh, argv, NULL, NULL, j->p->timeout_ms, &res, &e);
            if (r < 0)
                return fail(j, "sudo", &e, NULL);
            if (res.status)
                return failf(j, "sudo",
                             "allow it in sudoers (NOPASSWD), or drop the steps with sudo=yes",
                             "'%s' cannot use sudo without a password", j->h->user);
            break;
        }
    j->ret->step = "check";
    j->ret->status = JOB_OK;
    return 0;
}

static int status(struct job *j)
{
    if (!fact(j, "release")[0])
        return failf(j, "status", "siofleet deploy up", "no agent is installed");
    if (strcmp(fact(j, "agent"), "up") != 0)
        return failf(j, "status", "siofleet deploy logs, then siofleet deploy up",
                     "the agent does not run");
    j->ret->step = "status";
    j->ret->status = JOB_OK;
    return 0;
}

static int down(struct job *j)
{
    bool there = fact(j, "release")[0] || fact(j, "pub")[0];
    if (there && action(j, "stop the agent and remove what was made in %s", j->data)) {
        const char *args[] = { j->p->keep_data ? "yes" : "no", NULL };
        int r = remote(j, "remove", "remove", args, NULL, NULL, j->p->timeout_ms + 40000, NULL);
        if (r < 0)
            return r;
    }
    struct key_pub pub;
    const char *line = fact(j, "pub");
    if (there && !j->p->keep_data && j->p->allow_data &&
        key_parse_pub(line, strlen(line), "key", &pub, NULL) == 0 &&
        action(j, "revoke the key of '%s'", pub.name)) {
        struct err e = { 0 };
        pthread_mutex_lock(&allow_lock);
        int r = keys_revoke(j->p->allow_data, pub.name, &e);
        pthread_mutex_unlock(&allow_lock);
        if (r < 0 && r != -ENOENT)
            return fail(j, "revoke", &e, NULL);
    }
    j->ret->step = "down";
    j->ret->status = json_array_size(j->ret->actions) ? JOB_CHANGED : JOB_OK;
    j->ret->version[0] = '\0';
    return 0;
}

static int logs(struct job *j)
{
    char n[24];
    snprintf(n, sizeof(n), "%llu", (unsigned long long)j->p->lines);
    const char *args[] = { n, NULL };
    CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
    int r = remote(j, "logs", "logs", args, NULL, NULL, j->p->timeout_ms, &res);
    if (r == 0) {
        j->ret->text = strdup(res.out.len ? (char *)res.out.data : "");
        j->ret->step = "logs";
    }
    return r;
}

void job_run(const struct job_plan *p, const struct host *h, struct job_result *ret)
{
    *ret = (struct job_result){ .status = JOB_OK, .step = "connect", .actions = json_array() };
    struct job j = { .p = p, .h = h, .ret = ret };
    uint64_t start = clock_mono_ms();
    int r = connect_host(&j);
    if (r == 0)
        r = probe(&j);
    if (r == 0) {
        switch (p->verb) {
        case JOB_CHECK:
            check(&j);
            break;
        case JOB_UP:
        case JOB_UPGRADE:
            up(&j);
            break;
        case JOB_STATUS:
            status(&j);
            break;
        case JOB_DOWN:
            down(&j);
            break;
        case JOB_LOGS:
            logs(&j);
            break;
        }
    }
    if (j.ssh)
        ret->bytes_sent += ssh_sent_b(j.ssh);
    ssh_free(&j.ssh);
    free(j.data);
    ret->ms = clock_mono_ms() - start;
}

void job_result_clear(struct job_result *r)
{
    json_decref(r->actions);
    json_decref(r->facts);
    free(r->text);
    *r = (struct job_result){ 0 };
}

const char *job_status_name(const struct job_result *r)
{
    static const char *const names[] = { "ok", "changed", "failed", "skipped" };
    return names[r->status];
}
