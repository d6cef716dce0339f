#include "agent/runner.h"

#include <ctype.h>
#include <dirent.h>
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

#include "agent/ring.h"
#include "agent/spec.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

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

/* The shim's words: six places for its name and first options, then what differs by kind. A command runs under the shim
 * itself, without our program in between: its start is part of its price. */
static int command(const char *dir, const struct run_grant *g, const char *program,
                   json_t **ret_spec, const char ***ret, struct err *e)
{
    enum { FIRST = 6 };
    CLEANUP(freep) const char **words = NULL;
    size_t n = 0, at = FIRST;
    if (g->kind == CORE_EXEC) {
        *ret_spec = get_json(dir, "spec.json", SPEC_MAX);
        int r = spec_argv(*ret_spec, &words, e);
        if (r < 0)
            return r;
        while (words[n])
            n++;
    }
    const char **v = calloc(FIRST + n + 8, sizeof(*v));
    if (!v)
        return err_sys(e, ENOMEM, "%s", dir);
    if (n) {
        v[at++] = "--chdir";
        v[at++] = "cwd";
    }
    v[at++] = dir;
    v[at++] = "--";
    if (n) {
        memcpy(v + at, words, n * sizeof(*v));
    } else {
        v[at++] = program;
        v[at++] = "__task";
        v[at++] = dir;
    }
    *ret = v;
    return 0;
}

int run_start(const char *dir, const struct run_grant *g, const char *shim, const char *program,
              const struct id inputs[], char *const paths[], size_t n, int *ret_pidfd,
              struct err *e)
{
    int r = put_run(dir, g, inputs, paths, n, e);
    if (r < 0)
        return r;
    CLEANUP(freep) char *lock = path_fmt("%s/lock", dir), *tmp = path_fmt("TMPDIR=%s/tmp", dir);
    if (!lock || !tmp)
        return err_sys(e, ENOMEM, "%s", dir);
    /* locked before the shim exists: at no moment does a started task look like a dead one */
    CLEANUP(closep) int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_sys(e, errno, "%s", lock);

    char timeout[24], lock_fd[8];
    snprintf(timeout, sizeof(timeout), "%" PRIu64, g->timeout_ms);
    snprintf(lock_fd, sizeof(lock_fd), "%d", LOCK_FD);
    CLEANUP(freep) const char **argv = NULL;
    CLEANUP(json_decrefp) json_t *spec = NULL; /* words of argv point into it */
    r = command(dir, g, program, &spec, &argv, e);
    if (r < 0)
        return r;
    const char *const first[] = { shim,        "--timeout-ms", timeout,
                                  "--lock-fd", lock_fd,        "--no-new-privs" };
    memcpy(argv, first, sizeof(first));
    size_t n_env = 0;
    while (environ[n_env])
        n_env++;
    CLEANUP(freep) char **env = calloc(n_env + 2, sizeof(*env));
    if (!env)
        return err_sys(e, ENOMEM, "%s", dir);
    size_t k = 0;
    for (size_t i = 0; i < n_env; i++)
        if (strncmp(environ[i], "TMPDIR=", 7) != 0)
            env[k++] = environ[i];
    env[k] = tmp;

    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, fd, LOCK_FD);
    pid_t pid;
    r = posix_spawn(&pid, shim, &fa, NULL, (char **)(uintptr_t)argv, env);
    posix_spawn_file_actions_destroy(&fa);
    if (r)
        return err_sys(e, r, "%s", shim);
    *ret_pidfd = pidfd_open_(pid);
    if (*ret_pidfd < 0) {
        r = errno;
        kill(pid, SIGKILL); /* without a descriptor nobody would see it end */
        waitpid(pid, NULL, 0);
        return err_sys(e, r, "%s: process %ld", dir, (long)pid);
    }
    return 0;
}

int run_adopt(const char *dir, int *ret_pidfd, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/pid", dir);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64);
    if (!path)
        return err_sys(e, ENOMEM, "%s", dir);
    if (file_read(path, &b, NULL) < 0 || b.len == 0)
        return locked(dir) ? -EAGAIN : -ESRCH;
    CLEANUP(closep) int fd = pidfd_open_((pid_t)strtol((char *)b.data, NULL, 10));
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

/* Processes with SIOFLEET_TASK_DIR=DIR: of a task whose shim was killed. Returns how many were found. */
static int kill_marked(const char *mark, size_t n_mark)
{
    int found = 0;
    DIR *d = opendir("/proc");
    if (!d)
        return 0;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4 << 20);
    for (struct dirent *x; (x = readdir(d));) {
        if (!isdigit((unsigned char)x->d_name[0]))
            continue;
        CLEANUP(freep) char *path = path_fmt("/proc/%s/environ", x->d_name);
        buf_reset(&b);
        if (!path || file_read(path, &b, NULL) < 0)
            continue;
        for (size_t at = 0; at + n_mark <= b.len;) {
            if (!memcmp(b.data + at, mark, n_mark)) {
                pid_t pid = (pid_t)strtol(x->d_name, NULL, 10);
                if (pid != getpid() && kill(pid, SIGKILL) == 0)
                    found++;
                break;
            }
            uint8_t *end = memchr(b.data + at, 0, b.len - at);
            at = end ? (size_t)(end - b.data) + 1 : b.len;
        }
    }
    closedir(d);
    return found;
}

static void kill_leftovers(const char *dir)
{
    CLEANUP(freep) char *real = realpath(dir, NULL);
    CLEANUP(freep) char *mark = real ? path_fmt("SIOFLEET_TASK_DIR=%s", real) : NULL;
    if (!mark)
        return;
    uint64_t until = clock_mono_ms() + 3000;
    int killed = 0;
    for (int n; (n = kill_marked(mark, strlen(mark) + 1)) && clock_mono_ms() < until; killed += n)
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    if (killed)
        log_warn("%s: its shim was killed; ended what it left behind", dir);
}

static uint64_t number_of(const json_t *j, const char *key)
{
    uint64_t v;
    return json_get_u64(j, key, &v, NULL) < 0 ? 0 : v;
}

void run_finish(const char *dir, int pidfd, struct spool_end *ret)
{
    *ret = (struct spool_end){ .cause = CAUSE_LOST };
    if (pidfd >= 0) {
        siginfo_t info = { 0 };
        waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
    }
    CLEANUP(freep) char *path = path_fmt("%s/stderr", dir);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    if (path && ring_tail(path, TAIL_MAX, &b, NULL) == 0 && b.len)
        ret->tail = strndup((char *)b.data, b.len);
    CLEANUP(json_decrefp) json_t *j = get_json(dir, "status", 4096);
    enum task_cause cause = task_cause_parse(json_string_value(json_object_get(j, "cause")));
    if (cause == CAUSE_NONE) {
        kill_leftovers(dir);
        return;
    }
    ret->exit = number_of(j, "exit");
    ret->signal = number_of(j, "signal");
    ret->duration_ms = number_of(j, "duration_ms");
    if (cause == CAUSE_EXIT && ret->exit == RUN_EXIT_INTEGRITY)
        cause = CAUSE_INTEGRITY;
    if (cause == CAUSE_EXIT && ret->exit == RUN_EXIT_SPACE)
        cause = CAUSE_SPACE;
    ret->cause = cause;
}
