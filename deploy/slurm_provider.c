#include "deploy/slurm_provider.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deploy/pack.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

enum { LOGS_KEPT = 5, TAIL_B = 8192 };

static const char job_script[] = "#!/bin/sh\n"
                                 "# What Slurm starts, with a place's folder as its argument. The "
                                 "agent takes this process, so that signals reach it.\n"
                                 "umask 077\n"
                                 "exec /bin/sh \"$1/current/run.sh\" \"$1\"\n";

static const char *name(const struct provider *base, size_t place)
{
    return ((const struct slurm_provider *)base)->place[place].name;
}

/* ---- the folder of a place */

static int add_arg(struct buf *b, const char *option, const char *value)
{
    return strchr(value, '\n') ? -EINVAL : buf_addf(b, "%s\n%s\n", option, value);
}

static int write_args(const struct slurm_provider *p, const struct slurm_place *l, struct err *e)
{
    const struct slurm_conf *c = p->conf;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(16384);
    CLEANUP(freep) char *path = path_fmt("%s/args", l->dir);
    char number[24];
    int r = buf_adds(&b, "agent\n");
    /* run.sh goes to the folder first */
    r = r < 0 ? r : add_arg(&b, "--data", "agent");
    r = r < 0 ? r : add_arg(&b, "--connect", c->coordinator);
    r = r < 0 ? r : add_arg(&b, "--server-key", "server.pub");
    r = r < 0 ? r : add_arg(&b, "--key", "agent.key");
    r = r < 0 ? r : add_arg(&b, "--name", l->name);
    r = r < 0 ? r : add_arg(&b, "--ready-file", "run/ready");
    snprintf(number, sizeof(number), "%llu", (unsigned long long)c->cores);
    r = r < 0 ? r : add_arg(&b, "--cores", number);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)c->memory_mib);
    if (c->memory_mib)
        r = r < 0 ? r : add_arg(&b, "--memory", number);
    /* a job brings no QEMU: collections keep away */
    CLEANUP(freep)
    char *labels = path_fmt("%s%sclass=%s,collect=no", c->labels ? c->labels : "",
                            c->labels ? "," : "", c->name);
    if (!labels || !path)
        return err_sys(e, ENOMEM, "%s", l->dir);
    r = r < 0 ? r : add_arg(&b, "--labels", labels);
    if (r < 0)
        return err_set(e, SF_EUSAGE, "%s: its settings are too long", p->conf->path);
    return file_write(path, b.data, b.len, 0600, true, e);
}

static int switch_release(const struct slurm_provider *p, const struct slurm_place *l,
                          struct err *e)
{
    CLEANUP(freep) char *target = path_fmt("../releases/%s", p->release->pack.id);
    CLEANUP(freep) char *link = path_fmt("%s/current", l->dir);
    CLEANUP(freep) char *temp = path_fmt("%s/current.new", l->dir);
    if (!target || !link || !temp)
        return err_sys(e, ENOMEM, "%s", l->dir);
    unlink(temp);
    if (symlink(target, temp) < 0 || rename(temp, link) < 0)
        return err_sys(e, errno, "%s", link);
    return 0;
}

/* 1 = it was allowed just now. */
static int ensure_key(struct slurm_provider *p, const struct slurm_place *l, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/agent.key", l->dir);
    struct key_pair pair;
    if (!path)
        return err_sys(e, ENOMEM, "%s", l->dir);
    int r = access(path, F_OK) == 0 ? key_load(path, &pair, e)
                                    : key_new(path, ROLE_AGENT, l->name, &pair, e);
    if (r < 0)
        return r;
    struct key_pub pub = pair.pub;
    key_clear(&pair);
    r = allow_add(p->allow, &pub, e);
    return r == -EEXIST ? err_wrap(e, r, "siofleet keys revoke the old one first") : r;
}

int slurm_forget_key(struct slurm_provider *p, size_t place, struct err *e)
{
    const struct slurm_place *l = &p->place[place];
    CLEANUP(freep) char *path = path_fmt("%s/agent.key", l->dir);
    CLEANUP(freep) char *pub = path_fmt("%s/agent.key.pub", l->dir);
    if (!path || !pub)
        return err_sys(e, ENOMEM, "%s", l->dir);
    if (access(path, F_OK) < 0)
        return 0;
    struct key_pair pair;
    int r = key_load(path, &pair, e);
    if (r < 0)
        return r;
    const struct key_pub mine = pair.pub;
    key_clear(&pair);
    r = allow_remove(p->allow, &mine, e);
    if (r < 0)
        return r;
    return unlink(path) < 0 || unlink(pub) < 0 ? err_sys(e, errno, "%s", path) : 0;
}

static int newest_first(const struct dirent **a, const struct dirent **b)
{
    return strverscmp((*b)->d_name, (*a)->d_name);
}
static int is_log(const struct dirent *d)
{
    return !strncmp(d->d_name, "job-", 4);
}

static void prune_logs(const char *dir)
{
    struct dirent **v = NULL;
    int n = scandir(dir, &v, is_log, newest_first);
    for (int i = 0; i < n; i++) {
        CLEANUP(freep) char *path = path_fmt("%s/%s", dir, v[i]->d_name);
        if (i >= LOGS_KEPT && path)
            unlink(path);
        free(v[i]);
    }
    free(v);
}

static int prepare(struct slurm_provider *p, const struct slurm_place *l, struct err *e)
{
    CLEANUP(freep) char *log = path_fmt("%s/log", l->dir);
    CLEANUP(freep) char *run = path_fmt("%s/run", l->dir);
    CLEANUP(freep) char *ready = path_fmt("%s/run/ready", l->dir);
    CLEANUP(freep) char *server = path_fmt("%s/server.pub", l->dir);
    if (!log || !run || !ready || !server)
        return err_sys(e, ENOMEM, "%s", l->dir);
    int r = dir_make(log, 0700, e);
    r = r < 0 ? r : dir_make(run, 0700, e);
    if (r == 0)
        r = file_write(server, p->server_line, strlen(p->server_line), 0600, true, e);
    r = r < 0 ? r : ensure_key(p, l, e);
    r = r < 0 ? r : write_args(p, l, e);
    r = r < 0 ? r : switch_release(p, l, e);
    if (r < 0)
        return r;
    unlink(ready); /* of a job that was killed */
    prune_logs(log);
    return 0;
}

/* ---- verbs */

static void fail(struct place_result *ret, const char *step, const struct err *e)
{
    ret->status = PLACE_FAILED;
    ret->step = step;
    ret->code = e->code;
    snprintf(ret->message, sizeof(ret->message), "%s", e->text);
}

static void done(struct place_result *ret, const char *what, uint64_t job)
{
    char text[80];
    snprintf(text, sizeof(text), "%s job %llu", what, (unsigned long long)job);
    ret->status = PLACE_CHANGED;
    json_array_append_new(ret->actions, json_string(text));
}

static void up(struct slurm_provider *p, struct slurm_place *l, struct place_result *ret)
{
    struct err e = { 0 };
    ret->step = "up";
    snprintf(ret->version, sizeof(ret->version), "%s", p->release->pack.id);
    if (l->seen && l->seen->state != SLURM_ENDED)
        return;
    if (prepare(p, l, &e) < 0) {
        fail(ret, "prepare", &e);
        return;
    }
    if (slurm_submit(p->conf, l->name, l->dir, false, &l->job, &e) < 0)
        fail(ret, "submit", &e);
    else
        done(ret, "submit", l->job);
}

static void status(const struct slurm_place *l, struct place_result *ret)
{
    struct err e = { 0 };
    ret->step = "status";
    if (!l->seen || l->seen->state == SLURM_ENDED) {
        err_set(&e, SF_EFAILED, "it has no job");
        fail(ret, "status", &e);
    } else if (l->seen->state == SLURM_PENDING) {
        err_set(&e, SF_EFAILED, "job %llu waits: %s", (unsigned long long)l->seen->id,
                l->seen->reason);
        fail(ret, "status", &e);
    }
    if (l->seen)
        ret->facts = json_pack("{s:I, s:s, s:s}", "job", (json_int_t)l->seen->id, "state",
                               l->seen->word, "node", l->seen->node);
}

/* The end of the newest log. */
static void logs(const struct slurm_place *l, struct place_result *ret)
{
    CLEANUP(freep) char *dir = path_fmt("%s/log", l->dir);
    CLEANUP(freep) char *path = NULL;
    struct dirent **v = NULL;
    int n = dir ? scandir(dir, &v, is_log, newest_first) : 0;
    if (n > 0)
        path = path_fmt("%s/%s", dir, v[0]->d_name);
    for (int i = 0; i < n; i++)
        free(v[i]);
    free(v);
    ret->step = "logs";
    CLEANUP(closep) int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !(ret->text = calloc(1, TAIL_B + 1)))
        return;
    off_t from = st.st_size > TAIL_B ? st.st_size - TAIL_B : 0;
    if (pread_full(fd, ret->text, TAIL_B, from) < 0)
        ret->text[0] = '\0';
}

static void down(struct slurm_provider *p, struct slurm_place *l, struct place_result *ret)
{
    struct err e = { 0 };
    ret->step = "down";
    bool alive = l->seen && l->seen->state != SLURM_ENDED;
    if (!alive)
        return;
    bool at_once = p->cancel || l->seen->state == SLURM_PENDING;
    if (slurm_cancel(l->seen->id, at_once, &e) < 0)
        fail(ret, "cancel", &e);
    else
        done(ret, at_once ? "cancel" : "end", l->seen->id);
}

static void run(const struct provider *base, size_t place, enum place_verb verb,
                struct place_result *ret)
{
    struct slurm_provider *p = (struct slurm_provider *)base;
    struct slurm_place *l = &p->place[place];
    struct err e = { 0 };
    switch (verb) {
    case PLACE_CHECK:
        ret->step = "check";
        if (slurm_submit(p->conf, l->name, "/", true, NULL, &e) < 0)
            fail(ret, "check", &e);
        break;
    case PLACE_UP:
        up(p, l, ret);
        break;
    case PLACE_UPGRADE:
        ret->status = PLACE_SKIPPED;
        break;
    case PLACE_STATUS:
        status(l, ret);
        break;
    case PLACE_LOGS:
        logs(l, ret);
        break;
    case PLACE_DOWN:
        down(p, l, ret);
        break;
    }
}

/* ---- the whole */

/* Jobs of places with numbers beyond those that there are, as of a call with a larger max=. */
static void end_strays(struct slurm_provider *p)
{
    CLEANUP(freep) char *prefix = path_fmt("%s/%s-", p->conf->data, p->conf->name);
    p->strays = 0;
    for (size_t k = 0; prefix && k < p->list.n; k++) {
        const struct slurm_job *j = &p->list.v[k];
        if (j->state == SLURM_ENDED || strncmp(j->dir, prefix, strlen(prefix)) != 0)
            continue;
        const char *number = j->dir + strlen(prefix);
        if (!*number || strspn(number, "0123456789") != strlen(number) ||
            strtoul(number, NULL, 10) <= p->base.n)
            continue;
        p->strays++;
        log_warn("%s-%s: job %llu is beyond max: cancelled", p->conf->name, number,
                 (unsigned long long)j->id);
        slurm_cancel(j->id, true, NULL);
    }
}

int slurm_look(struct slurm_provider *p, struct err *e)
{
    struct slurm_list list = { 0 };
    int r = slurm_list(&list, e);
    if (r < 0) {
        slurm_list_clear(&list);
        return r;
    }
    slurm_list_clear(&p->list);
    p->list = list;
    for (size_t i = 0; i < p->base.n; i++) {
        struct slurm_place *l = &p->place[i];
        struct slurm_job *last = NULL;
        l->seen = NULL;
        for (size_t k = 0; k < list.n; k++) {
            struct slurm_job *j = &p->list.v[k];
            if (strcmp(j->dir, l->dir) != 0)
                continue;
            if (j->state == SLURM_ENDED) {
                if (j->id == l->job)
                    last = j;
            } else if (!l->seen) {
                l->seen = j;
            } else {
                log_warn("%s: job %llu is a second one beside job %llu: cancelled", l->name,
                         (unsigned long long)j->id, (unsigned long long)l->seen->id);
                slurm_cancel(j->id, true, NULL);
            }
        }
        if (l->seen)
            l->job = l->seen->id;
        else
            l->seen = last;
    }
    end_strays(p);
    return 0;
}

static int unpack(const struct slurm_provider *p, struct err *e)
{
    const struct pack *k = &p->release->pack;
    CLEANUP(freep) char *dir = path_fmt("%s/releases/%s", p->conf->data, k->id);
    CLEANUP(freep) char *temp = path_fmt("%s/releases/.%s.new", p->conf->data, k->id);
    CLEANUP(freep) char *script = path_fmt("%s/job.sh", p->conf->data);
    if (!dir || !temp || !script)
        return err_sys(e, ENOMEM, "%s", p->conf->data);
    int r = 0;
    if (access(dir, F_OK) < 0) {
        r = dir_remove(temp, e);
        r = r < 0 ? r : dir_make(temp, 0700, e);
        r = r < 0 ? r : pack_unpack(k, temp, e);
        if (r == 0 && rename(temp, dir) < 0)
            r = err_sys(e, errno, "%s", dir);
    }
    return r < 0 ? r : file_write(script, job_script, sizeof(job_script) - 1, 0700, true, e);
}

int slurm_provider_init(struct slurm_provider *p, const struct slurm_conf *conf,
                        const struct release *release, const char *server_line, struct allow *allow,
                        struct err *e)
{
    *p = (struct slurm_provider){ .base = { .n = conf->max, .name = name, .run = run },
                                  .conf = conf,
                                  .release = release,
                                  .server_line = server_line,
                                  .allow = allow };
    p->place = calloc(conf->max, sizeof(*p->place));
    if (!p->place)
        return err_sys(e, ENOMEM, "%s", conf->path);
    for (size_t i = 0; i < conf->max; i++) {
        struct slurm_place *l = &p->place[i];
        l->name = path_fmt("%s-%zu", conf->name, i + 1);
        l->dir = l->name ? path_fmt("%s/%s", conf->data, l->name) : NULL;
        if (!l->dir)
            return err_sys(e, ENOMEM, "%s", conf->path);
    }
    return unpack(p, e);
}

void slurm_provider_clear(struct slurm_provider *p)
{
    for (size_t i = 0; p->place && i < p->base.n; i++) {
        free(p->place[i].name);
        free(p->place[i].dir);
    }
    freep(&p->place);
    slurm_list_clear(&p->list);
}
