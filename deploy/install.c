#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "deploy/job.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"
#include "proto/lib/hash.h"

enum { COPY_TRIES = 5, NOT_WHOLE = 75 /* of host.sh */ };

/* ---- packs */

static long read_pack(void *user, void *p, size_t n)
{
    return read_full(*(int *)user, p, n);
}

/* Bytes of the pack that an earlier, broken copy left there. */
static uint64_t part_there(struct job *j, const struct pack *k)
{
    size_t i, n = strlen(k->id);
    json_t *v;
    uint64_t at = 0;
    json_array_foreach (json_object_get(j->ret->facts, "part"), i, v) {
        const char *s = json_string_value(v);
        if (!strncmp(s, k->id, n) && s[n] == ' ')
            num_u64(s + n + 1, 0, UINT64_MAX, "part", &at, NULL);
    }
    return at <= k->size_b ? at : 0;
}

static int put(struct job *j, const char *kind, const struct pack *k, uint64_t at, int *ret_status)
{
    CLEANUP(closep) int fd = open(k->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || lseek(fd, (off_t)at, SEEK_SET) < 0)
        return job_failf(j, errno, "copy", NULL, "%s: %s", k->path, strerror(errno));
    char offset[24];
    snprintf(offset, sizeof(offset), "%llu", (unsigned long long)at);
    struct words w = { .n = 0 };
    words_add(&w, "put", kind, k->id, offset, k->sha256, NULL);
    CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
    /* 20 KiB a second may still pass; a copy that stands still is noticed by the session */
    int r = job_call(j, &w, read_pack, &fd, j->p->timeout_ms + (k->size_b - at) / 20, &res);
    *ret_status = r < 0 ? res.status : 0;
    return r;
}

/* Send what is missing of a pack, over as many connections as it takes while each brings some of it. */
static int send_pack(struct job *j, const char *kind, const struct pack *k, const char *what)
{
    if (job_fact_has(j, "have", k->id) || !job_action(j, "send %s %s (%llu KiB)", what, k->id,
                                                      (unsigned long long)(k->size_b + 1023) >> 10))
        return 0;
    uint64_t at = part_there(j, k);
    bool afresh = false;
    for (int stuck = 0;;) {
        int status = 0, r = put(j, kind, k, at, &status);
        if (r == 0)
            return 0;
        if (status == NOT_WHOLE && !afresh) {
            /* what was there before, or came over the broken connection, is not a part of it */
            struct words w = { .n = 0 };
            words_add(&w, "forget", k->id, NULL);
            job_disconnect(j); /* a packet of the copy may still be stuck in it */
            job_forgive(j);
            if ((r = job_connect(j)) < 0)
                return r;
            r = job_call(j, &w, NULL, NULL, j->p->timeout_ms, NULL);
            afresh = true;
            at = 0;
            if (r < 0)
                return r;
            continue;
        }
        if (r != -ECONNRESET && r != -ETIMEDOUT)
            return r;
        job_note(j, "connection broke in the copy");
        job_disconnect(j);
        job_forgive(j);
        r = job_connect(j);
        if (r == 0)
            r = job_probe(j, PLACE_UP);
        if (r < 0)
            return r;
        if (job_fact_has(j, "have", k->id)) /* somebody else brought it */
            return 0;
        uint64_t now = part_there(j, k);
        stuck = now > at ? 0 : stuck + 1;
        if (stuck == COPY_TRIES)
            return job_failf(j, ECONNRESET, "copy", "look at the network between",
                             "the connection breaks in every copy");
        at = now;
        job_note(j, "goes on with the copy at %llu KiB", (unsigned long long)at >> 10);
    }
}

static int install_release(struct job *j)
{
    return send_pack(j, "releases", &j->p->release->pack, "release");
}

static int install_collect(struct job *j)
{
    if (!j->h->class->collect || !j->p->collect)
        return 0;
    int r = send_pack(j, "packs", j->p->collect, "collection pack");
    if (r < 0 || !strcmp(job_fact(j, "pack"), j->p->collect->id) ||
        !job_action(j, "use collection pack %s", j->p->collect->id))
        return r;
    struct words w = { .n = 0 };
    words_add(&w, "pack", j->p->collect->id, NULL);
    return job_call(j, &w, NULL, NULL, j->p->timeout_ms, NULL);
}

/* ---- keys */

/* The key pair is made on the host; only its public line comes here and joins the allow-list. */
static int agent_key(struct job *j)
{
    char line[256] = "";
    if (job_fact(j, "pub")[0]) {
        snprintf(line, sizeof(line), "%s", job_fact(j, "pub"));
    } else {
        if (!job_action(j, "make the agent's key pair there"))
            return 0;
        CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
        struct words w = { .n = 0 };
        words_add(&w, "key", j->p->release->pack.id, j->h->name, NULL);
        int r = job_call(j, &w, NULL, NULL, j->p->timeout_ms, &res);
        if (r < 0)
            return r;
        if (res.out.len)
            snprintf(line, sizeof(line), "%.*s", (int)strcspn((char *)res.out.data, "\n"),
                     (char *)res.out.data);
    }
    struct key_pub pub;
    struct err e = { 0 };
    if (key_parse_pub(line, strlen(line), "its public key", &pub, &e) < 0)
        return job_fail(j, "key", &e, "remove agent.key there and run up again");
    if (pub.role != ROLE_AGENT)
        return job_failf(j, SF_EREFUSED, "key", "remove agent.key there and run up again",
                         "its key has the role %s", role_name(pub.role));
    if (!j->p->allow || j->p->dry_run)
        return 0;
    int r = allow_add(j->p->allow, &pub, &e);
    if (r > 0)
        job_action(j, "allow the key '%s'", pub.name);
    return r < 0 ? job_fail(j, "allow", &e,
                            r == -EEXIST ? "siofleet keys revoke the old one first" : NULL)
                 : 0;
}

/* ---- the service */

/* One argument a line: a value with a line end in it would become two. */
static int add_arg(struct buf *b, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int add_arg(struct buf *b, const char *name, const char *fmt, ...)
{
    char text[1500];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return n >= (int)sizeof(text) || strchr(text, '\n') ? -EINVAL
                                                        : buf_addf(b, "%s\n%s\n", name, text);
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
    if (c->bulk_rate_b)
        r = r < 0 ? r : add_arg(b, "--bulk-rate", "%llu", (unsigned long long)c->bulk_rate_b);
    if (c->class_rate_b)
        r = r < 0 ? r : add_arg(b, "--class-rate", "%llu", (unsigned long long)c->class_rate_b);
    /* `exec --class` and collections go by labels */
    CLEANUP(buf_clear) struct buf labels = BUF_INIT(4096);
    if (c->labels)
        r = r < 0 ? r : buf_adds(&labels, c->labels);
    if (*c->name && hosts_label_ok(c->name))
        r = r < 0 ? r : buf_addf(&labels, "%sclass=%s", labels.len ? "," : "", c->name);
    if (c->no_collect)
        r = r < 0 ? r : buf_addf(&labels, "%scollect=no", labels.len ? "," : "");
    if (labels.len)
        r = r < 0 ? r : add_arg(b, "--labels", "%s", (char *)labels.data);
    return r;
}

static const char *wait_fix(const struct job *j, char text[400])
{
    char host[256], port[8];
    hosts_endpoint(j->p->hosts, host, port);
    snprintf(text, 400,
             "is the coordinator at %.100s, and can this host connect to it? siofleet deploy logs "
             "--host %s tells more",
             j->p->hosts->coordinator, j->h->name);
    return text;
}

/* Verbs that end in a start, and wait until the service says that it is ready. */
static int start(struct job *j, struct words *w)
{
    char seconds[24], fix[400];
    snprintf(seconds, sizeof(seconds), "%llu", (unsigned long long)(j->p->timeout_ms + 999) / 1000);
    words_add(w, "start", NULL);
    words_add(w, "ready", seconds, NULL);
    words_add(w, "prune", j->p->release->pack.id, NULL);
    CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
    int r = job_call(j, w, NULL, NULL, 2 * j->p->timeout_ms + 60000, &res);
    if (r < 0 && !strcmp(j->ret->step, "register") && !j->ret->fix[0])
        snprintf(j->ret->fix, sizeof(j->ret->fix), "%s", wait_fix(j, fix));
    if (r == 0 && res.out.len)
        job_facts(j, (char *)res.out.data);
    return r;
}

/* The new release does not come up: the one before does its work again, with the settings that it had; the failure stays
 * the host's result. */
static void roll_back(struct job *j, const char *id)
{
    struct place_result was = *j->ret;
    size_t n = strlen(was.message);
    struct words w = { .n = 0 };
    words_add(&w, "rollback", id, NULL);
    job_forgive(j);
    if (!j->ssh) /* the connection broke, too */
        job_connect(j);
    if (j->ssh && start(j, &w) == 0) {
        json_array_append_new(was.actions, json_str("roll back to the release before"));
        snprintf(was.message + n, sizeof(was.message) - n, " (release %.16s is back at work)", id);
    } else {
        snprintf(was.message + n, sizeof(was.message) - n,
                 " (nor does release %.16s come back: %.200s)", id, j->ret->message);
    }
    was.bytes_sent = j->ret->bytes_sent;
    was.facts = j->ret->facts;
    *j->ret = was;
}

/* Configure, start, wait until ready. */
static int install_args(struct job *j, const char *args)
{
    const char *id = j->p->release->pack.id, *server = j->p->server_line;
    struct id hash;
    char hex[ID_HEX_LEN], was[17];
    hash_bytes(args, strlen(args), &hash);
    id_hex(&hash, hex);
    snprintf(was, sizeof(was), "%.16s", job_fact(j, "release"));
    size_t server_n = server ? strcspn(server, "\n") : 0;
    bool same = !strcmp(hex, job_fact(j, "args")) && !strcmp(id, was) &&
                strlen(job_fact(j, "server")) == server_n &&
                !strncmp(job_fact(j, "server"), server ? server : "", server_n);
    bool up = !strcmp(job_fact(j, "agent"), "up") && job_fact(j, "ready")[0];
    if (same && up)
        return 0;
    struct words w = { .n = 0 };
    bool now = true;
    if (!same) {
        now = job_action(j, "switch to release %s and its settings", id);
        words_add(&w, "configure", id, args, server ? server : "", NULL);
    }
    now &= job_action(j, "%s it (%s)", up ? "restart" : "start", job_fact(j, "service"));
    if (!now)
        return 0;
    int r = start(j, &w);
    if (r < 0 && was[0] && strcmp(was, id) != 0)
        roll_back(j, was);
    return r;
}

static int finish(struct job *j, const char *step, int r)
{
    if (r < 0)
        return r;
    j->ret->step = step;
    j->ret->status = json_array_size(j->ret->actions) ? PLACE_CHANGED : PLACE_OK;
    if (!j->p->dry_run)
        snprintf(j->ret->version, sizeof(j->ret->version), "%s", j->p->release->pack.id);
    return 0;
}

int install_agent(struct job *j, enum place_verb verb)
{
    int r = check_fits(j);
    if (r == 0)
        r = setup_steps(j);
    if (r == 0)
        r = install_release(j);
    if (r == 0)
        r = install_collect(j);
    if (r == 0)
        r = agent_key(j);
    if (r == 0) {
        CLEANUP(buf_clear) struct buf args = BUF_INIT(16384);
        r = agent_args(j, &args) < 0
                ? job_failf(j, E2BIG, "configure", NULL, "its settings are too long")
                : install_args(j, (const char *)args.data);
    }
    return finish(j, verb == PLACE_UPGRADE ? "upgrade" : "up", r);
}

int install_coordinator(struct job *j)
{
    CLEANUP(buf_clear) struct buf args = BUF_INIT(16384);
    int r = check_fits(j);
    if (r == 0)
        r = install_release(j);
    if (r < 0)
        return r;
    int a = buf_adds(&args, "coordinator\n");
    a = a < 0 ? a : add_arg(&args, "--data", "%s/store", j->data);
    a = a < 0 ? a : add_arg(&args, "--listen", "%s", j->p->listen);
    a = a < 0 ? a : add_arg(&args, "--ready-file", "%s/run/ready", j->data);
    if (j->p->hosts->bulk_port)
        a = a < 0 ? a
                  : add_arg(&args, "--bulk", "%.*s:%u",
                            (int)(strrchr(j->p->listen, ':') - j->p->listen), j->p->listen,
                            (unsigned)j->p->hosts->bulk_port);
    r = a < 0 ? job_failf(j, E2BIG, "configure", NULL, "its settings are too long")
              : install_args(j, (const char *)args.data);
    if (r == 0 && !j->p->dry_run) {
        struct words w = { .n = 0 };
        words_add(&w, "pub", NULL);
        CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
        r = job_call(j, &w, NULL, NULL, j->p->timeout_ms, &res);
        if (r == 0 && res.out.len)
            job_facts(j, (char *)res.out.data);
    }
    return finish(j, "coordinator", r);
}

/* The key that the host shows must not get in any more: before its files go, so that a `down` that fails here can be
 * repeated, and after the agent's end, which gives its tasks back. */
static int revoke_key(struct job *j)
{
    struct key_pub pub;
    struct err e = { 0 };
    const char *line = job_fact(j, "pub");
    if (j->p->keep_data || !j->p->allow ||
        key_parse_pub(line, strlen(line), "key", &pub, NULL) < 0 || pub.role != ROLE_AGENT)
        return 0;
    struct words w = { .n = 0 };
    words_add(&w, "stop", NULL);
    int r = job_call(j, &w, NULL, NULL, j->p->timeout_ms + 60000, NULL);
    if (r < 0)
        return r;
    r = allow_remove(j->p->allow, &pub, &e);
    if (r > 0)
        job_action(j, "revoke the key '%s'", pub.name);
    return r < 0 ? job_fail(j, "revoke", &e, "down again goes on") : 0;
}

int remove_agent(struct job *j)
{
    bool there =
        job_fact(j, "service_files")[0] || (job_fact(j, "data_files")[0] && !j->p->keep_data);
    if (there && job_action(j, "stop it and remove what was made in %s", j->data)) {
        int r = revoke_key(j);
        if (r < 0)
            return r;
        struct words w = { .n = 0 };
        words_add(&w, "remove", j->p->keep_data ? "yes" : "no",
                  j->p->listen ? "coordinator" : "agent", NULL);
        r = job_call(j, &w, NULL, NULL, j->p->timeout_ms + 60000, NULL);
        if (r < 0)
            return r;
    }
    j->ret->step = "down";
    j->ret->status = json_array_size(j->ret->actions) ? PLACE_CHANGED : PLACE_OK;
    j->ret->version[0] = '\0';
    return 0;
}
