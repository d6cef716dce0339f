#include "agent/runner.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/orphans.h"
#include "agent/ring.h"
#include "agent/spec.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"

extern char **environ;

enum { TAIL_MAX = 4000, LOCK_FD = 9 };

static const char *const kind_names[CORE_KINDS] = { "points", "trace", "exec", "collect" };

int run_kind_parse(const char *name)
{
    for (int k = 0; k < CORE_KINDS; k++)
        if (!strcmp(name, kind_names[k]))
            return k;
    return -EINVAL;
}

/* ---- folders */

/* A small file inside a folder that is not visible yet or whose loss is found by reading it: no sync. */
static int put_file(const char *dir, const char *name, const void *p, size_t n, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
    if (!path)
        return err_sys(e, ENOMEM, "%s", dir);
    CLEANUP(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : write_all(fd, p, n);
    return r < 0 ? err_sys(e, -r, "%s", path) : 0;
}

static int put_json(const char *dir, const char *name, const json_t *j, struct err *e)
{
    CLEANUP(freep) char *text = json_dumps(j, JSON_COMPACT);
    if (!text)
        return err_sys(e, ENOMEM, "%s", dir);
    return put_file(dir, name, text, strlen(text), e);
}

static json_t *get_json(const char *dir, const char *name, size_t cap)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(cap);
    if (!path || file_read(path, &b, NULL) < 0 || b.len == 0)
        return NULL;
    return json_loadb((char *)b.data, b.len, 0, NULL);
}

static json_t *grant_json(const struct run_grant *g)
{
    json_t *j = json_object();
    json_object_set_new(j, "task", json_u64(g->key.task));
    json_object_set_new(j, "epoch", json_u64(g->key.epoch));
    json_object_set_new(j, "n", json_u64(g->key.n));
    json_object_set_new(j, "kind", json_string(kind_names[g->kind]));
    json_object_set_new(j, "sweep", json_id(&g->sweep));
    json_object_set_new(j, "engine", json_id(&g->engine));
    json_object_set_new(j, "trace", json_id(&g->trace));
    json_object_set_new(j, "timeout_ms", json_u64(g->timeout_ms));
    json_object_set_new(j, "points", json_u64(g->points));
    json_object_set_new(j, "threads", json_u64(g->threads));
    json_object_set_new(j, "host_boot", json_string(g->host_boot));
    return j;
}

int run_create(const char *tasks, const struct run_grant *g, const void *spec, size_t n,
               char **ret_dir, struct err *e)
{
    char name[80];
    snprintf(name, sizeof(name), "%" PRIu64 "-%" PRIu64 "-%" PRIu64, g->key.task, g->key.epoch,
             g->key.n);
    CLEANUP(freep)
    char *dir = path_fmt("%s/%s", tasks, name), *temp = path_fmt("%s/.new-%s", tasks, name),
         *scratch = path_fmt("%s/.new-%s/tmp", tasks, name),
         *work = path_fmt("%s/.new-%s/cwd", tasks, name);
    CLEANUP(json_decrefp) json_t *j = grant_json(g);
    if (!dir || !temp || !scratch || !work || !j)
        return err_sys(e, ENOMEM, "%s", tasks);
    int r = dir_make(scratch, 0700, e);
    if (r == 0 && g->kind == CORE_EXEC)
        r = dir_make(work, 0700, e);
    if (r == 0)
        r = put_json(temp, "grant", j, e);
    if (r == 0)
        r = put_file(temp, "spec.json", spec, n, e);
    if (r == 0 && rename(temp, dir) < 0)
        r = err_sys(e, errno == ENOTEMPTY ? EEXIST : errno, "%s", dir);
    if (r < 0) {
        dir_remove(temp, NULL);
        return r;
    }
    *ret_dir = TAKE(dir);
    return 0;
}

static int get_id(const json_t *j, const char *key, struct id *ret, struct err *e)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? id_parse(s, ret, e) : -SF_EFORMAT;
}

int run_load(const char *dir, struct run_grant *ret, struct err *e)
{
    *ret = (struct run_grant){ 0 };
    CLEANUP(json_decrefp) json_t *j = get_json(dir, "grant", 16384);
    const char *kind = json_string_value(json_object_get(j, "kind"));
    int k = kind ? run_kind_parse(kind) : -EINVAL;
    if (k < 0 || json_get_u64(j, "task", &ret->key.task, NULL) < 0 ||
        json_get_u64(j, "epoch", &ret->key.epoch, NULL) < 0 ||
        json_get_u64(j, "n", &ret->key.n, NULL) < 0 ||
        json_get_u64(j, "timeout_ms", &ret->timeout_ms, NULL) < 0 ||
        json_get_u64(j, "points", &ret->points, NULL) < 0 ||
        json_get_u64(j, "threads", &ret->threads, NULL) < 0 ||
        get_id(j, "sweep", &ret->sweep, NULL) < 0 || get_id(j, "engine", &ret->engine, NULL) < 0 ||
        get_id(j, "trace", &ret->trace, NULL) < 0)
        return err_set(e, SF_EINTEGRITY, "%s/grant: not readable", dir);
    ret->kind = (enum core_kind)k;
    const char *boot = json_string_value(json_object_get(j, "host_boot"));
    snprintf(ret->host_boot, sizeof(ret->host_boot), "%s", boot ? boot : "");
    return 0;
}

int run_load_spec(const char *dir, struct buf *ret, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/spec.json", dir);
    buf_init(ret, SPEC_MAX);
    return path ? file_read(path, ret, e) : err_sys(e, ENOMEM, "%s", dir);
}

static bool have(const char *dir, const char *name)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
    return path && access(path, F_OK) == 0;
}

/* Somebody holds DIR/lock: the shim lives. */
static bool locked(const char *dir)
{
    CLEANUP(freep) char *path = path_fmt("%s/lock", dir);
    CLEANUP(closep) int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

enum run_state run_look(const char *dir)
{
    if (have(dir, "end"))
        return RUN_OVER;
    if (locked(dir))
        return RUN_ALIVE;
    if (have(dir, "status"))
        return RUN_EXITED;
    return have(dir, "lock") ? RUN_LOST : RUN_FRESH;
}

/* ---- processes */

static int pidfd_open_(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static int put_run(const char *dir, const struct run_grant *g, const struct id inputs[],
                   char *const paths[], size_t n, struct err *e)
{
    CLEANUP(json_decrefp) json_t *j = json_object();
    json_t *in = json_object();
    json_object_set_new(j, "threads", json_u64(g->threads));
    for (size_t i = 0; i < n; i++) {
        char hex[ID_HEX_LEN];
        id_hex(&inputs[i], hex);
        json_object_set_new(in, hex, json_str(paths[i]));
    }
    json_object_set_new(j, "inputs", in);
    return put_json(dir, "run.json", j, e);
}

/* Words for a command line; texts made here are freed with it. */
struct words {
    const char **v;
    char *made[8];
    size_t n, n_made;
    bool failed;
};

static void words_clear(struct words *w)
{
    for (size_t i = 0; i < w->n_made; i++)
        free(w->made[i]);
    free(w->v);
}

static void word(struct words *w, const char *text)
{
    w->v[w->n++] = text;
}

static void option(struct words *w, const char *name, uint64_t value)
{
    char *text = path_fmt("%" PRIu64, value);
    w->failed |= !text;
    word(w, name);
    word(w, text);
    w->made[w->n_made++] = text;
}

/* The shim's command line. A command runs under the shim itself, without our program in between: its start is part of
 * its price. */
static int command(const char *dir, const struct run_grant *g, const struct run_host *h,
                   const char *group, json_t **ret_spec, struct words *w, struct err *e)
{
    CLEANUP(freep) const char **argv = NULL;
    size_t n = 0;
    uint64_t cores = 0, memory_mib = 0;
    if (g->kind == CORE_EXEC) {
        *ret_spec = get_json(dir, "spec.json", SPEC_MAX);
        int r = spec_argv(*ret_spec, &argv, e);
        if (r == 0)
            r = spec_limits(*ret_spec, &cores, &memory_mib, e);
        if (r < 0)
            return r;
        while (argv[n])
            n++;
    }
    w->v = calloc(n + 32, sizeof(*w->v));
    if (!w->v)
        return err_sys(e, ENOMEM, "%s", dir);
    word(w, h->shim);
    word(w, "--no-new-privs");
    option(w, "--timeout-ms", g->timeout_ms);
    option(w, "--lock-fd", LOCK_FD);
    option(w, "--mark", orphans_mark(dir));
    option(w, "--pids", RUN_PIDS_MAX);
    if (group) {
        word(w, "--cgroup");
        word(w, group);
        if (cores)
            option(w, "--cores", cores);
        if (memory_mib)
            option(w, "--memory-b", memory_mib << 20);
    }
    if (n) {
        word(w, "--chdir");
        word(w, "cwd");
    }
    word(w, dir);
    word(w, "--");
    for (size_t i = 0; i < n; i++)
        word(w, argv[i]);
    if (!n) {
        word(w, h->program);
        word(w, "__task");
        word(w, dir);
    }
    return w->failed ? err_sys(e, ENOMEM, "%s", dir) : 0;
}

static bool is_var(const char *word, const char *name)
{
    size_t n = strlen(name);
    return !strncmp(word, name, n) && word[n] == '=';
}

int run_start(const char *dir, const struct run_grant *g, const struct run_host *h,
              const struct id inputs[], char *const paths[], size_t n, int *ret_pidfd,
              struct err *e)
{
    int r = g->kind == CORE_EXEC ? 0 : put_run(dir, g, inputs, paths, n, e);
    if (r < 0)
        return r;
    CLEANUP(freep)
    char *lock = path_fmt("%s/lock", dir), *tmp = path_fmt("TMPDIR=%s/tmp", dir),
         *mark = path_fmt("SIOFLEET_TASK_DIR=%s", dir);
    if (!lock || !tmp || !mark)
        return err_sys(e, ENOMEM, "%s", dir);
    /* locked before the shim exists: at no moment does a started task look like a dead one */
    CLEANUP(closep) int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_sys(e, errno, "%s", lock);

    char group[CGROUP_PATH_MAX] = "";
    if (h->groups)
        orphans_group(h->groups, dir, group);
    CLEANUP(json_decrefp) json_t *spec = NULL; /* words point into it */
    CLEANUP(words_clear) struct words argv = { 0 };
    r = command(dir, g, h, group[0] ? group : NULL, &spec, &argv, e);
    if (r < 0)
        return r;
    size_t n_env = 0;
    while (environ[n_env])
        n_env++;
    CLEANUP(freep) char **env = calloc(n_env + 3, sizeof(*env));
    if (!env)
        return err_sys(e, ENOMEM, "%s", dir);
    size_t k = 0;
    for (size_t i = 0; i < n_env; i++)
        if (!is_var(environ[i], "TMPDIR") && !is_var(environ[i], "SIOFLEET_TASK_DIR"))
            env[k++] = environ[i];
    env[k++] = tmp;
    env[k] = mark;

    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, fd, LOCK_FD);
    pid_t pid;
    r = posix_spawn(&pid, h->shim, &fa, NULL, (char **)(uintptr_t)argv.v, env);
    posix_spawn_file_actions_destroy(&fa);
    if (r)
        return err_sys(e, r, "%s", h->shim);
    *ret_pidfd = pidfd_open_(pid);
    if (*ret_pidfd < 0) {
        r = errno;
        kill(pid, SIGKILL); /* without a descriptor nobody would see it end */
        waitpid(pid, NULL, 0);
        return err_sys(e, r, "%s: process %ld", dir, (long)pid);
    }
    return 0;
}

static long number_in(const char *dir, const char *name)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    return path && file_read(path, &b, NULL) == 0 && b.len ? strtol((char *)b.data, NULL, 10) : 0;
}

int run_adopt(const char *dir, int *ret_pidfd)
{
    long pid = number_in(dir, "lock");
    if (pid <= 0)
        pid = number_in(dir, "pid"); /* a shim of the release before */
    if (pid <= 0)                    /* not written yet, or the status stands there already */
        return locked(dir) ? -EAGAIN : -ESRCH;
    CLEANUP(closep) int fd = pidfd_open_((pid_t)pid);
    /* only the shim writes its number and only it holds the lock: still held means that the number is still its own */
    if (!locked(dir) || fd < 0)
        return -ESRCH;
    *ret_pidfd = take_fd(&fd);
    return 0;
}

void run_stop(int pidfd, bool hard)
{
    if (pidfd < 0)
        return;
    syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
    syscall(SYS_pidfd_send_signal, pidfd, SIGCONT, NULL,
            0); /* a stopped shim could not act on it */
    if (hard) {
        /* two pending signals of one number are one: a moment lets the first be taken */
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
        syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
    }
}

static uint64_t number_of(const json_t *j, const char *key)
{
    uint64_t v;
    return json_get_u64(j, key, &v, NULL) < 0 ? 0 : v;
}

void run_finish(const char *dir, enum core_kind kind, const struct run_host *h, int pidfd,
                struct spool_end *ret)
{
    *ret = (struct spool_end){ .cause = CAUSE_LOST };
    if (pidfd >= 0) {
        siginfo_t info = { 0 };
        waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
    }
    CLEANUP(freep) char *path = path_fmt("%s/stderr", dir);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    if (path && ring_tail(path, TAIL_MAX, &b, NULL) == 0 && b.len) {
        for (uint8_t *p = b.data; (p = memchr(p, 0, (size_t)(b.data + b.len - p)));)
            *p = '?'; /* what stands behind a zero byte belongs to the text */
        ret->tail = strndup((char *)b.data, b.len);
    }
    CLEANUP(json_decrefp) json_t *j = get_json(dir, "status", 4096);
    enum task_cause cause = task_cause_parse(json_string_value(json_object_get(j, "cause")));
    if (cause == CAUSE_NONE) {
        orphans_kill(h->groups, dir);
        if (!ret->tail)
            ret->tail = strdup("siofleet: its shim was killed, or its host went down\n");
        return;
    }
    ret->exit = number_of(j, "exit");
    ret->signal = number_of(j, "signal");
    ret->duration_ms = number_of(j, "duration_ms");
    /* a command's statuses are its own */
    if (cause == CAUSE_EXIT && kind != CORE_EXEC)
        cause = ret->exit == RUN_EXIT_INTEGRITY ? CAUSE_INTEGRITY
                : ret->exit == RUN_EXIT_SPACE   ? CAUSE_SPACE
                : ret->exit == RUN_EXIT_RECIPE  ? CAUSE_RECIPE
                                                : CAUSE_EXIT;
    ret->cause = cause;
}
