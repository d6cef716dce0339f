#include "collect/vm.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "collect/net.h"
#include "collect/ssh.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

static char *root(void)
{
    CLEANUP(freep) char *cache = path_xdg("CACHE");
    return cache ? path_fmt("%s/vm", cache) : NULL;
}

int vm_register(const char *profile, const char *collection, unsigned run, const char *part,
                struct vm_state *ret, struct err *e)
{
    *ret = (struct vm_state){ .lock_fd = -1 };
    uint8_t rnd[8];
    random_bytes(rnd, sizeof(rnd));
    for (int i = 0; i < 8; i++)
        snprintf(ret->id + 2 * i, 3, "%02x", rnd[i]);
    CLEANUP(freep) char *r = root();
    CLEANUP(freep) char *dir = r ? path_fmt("%s/%s", r, ret->id) : NULL;
    /* born under a hidden name: a sweep must not meet it before its lock is held */
    CLEANUP(freep) char *birth = r ? path_fmt("%s/.%s", r, ret->id) : NULL;
    CLEANUP(freep) char *lock = birth ? path_fmt("%s/lock", birth) : NULL;
    CLEANUP(freep) char *json = dir ? path_fmt("%s/vm.json", dir) : NULL;
    if (!json || !lock)
        return err_set(e, ENOMEM, "vm state");
    int res = dir_make(birth, 0700, e);
    if (res < 0)
        return res;
    CLEANUP(closep) int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || rename(birth, dir) < 0)
        return err_sys(e, errno, "%s", lock);
    char started[CLOCK_RFC3339_LEN];
    clock_rfc3339(clock_wall_ms(), started);
    json_t *j = json_pack("{s:s, s:s, s:i, s:s, s:i, s:s, s:o}", "id", ret->id, "collection",
                          collection, "run", (int)run, "profile", profile, "pid", (int)getpid(),
                          "started", started, "part", json_str(part));
    CLEANUP(freep) char *text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
    json_decref(j);
    res =
        text ? file_write(json, text, strlen(text), 0600, true, e) : err_set(e, ENOMEM, "vm state");
    if (res < 0)
        return res;
    ret->dir = TAKE(dir);
    ret->lock_fd = take_fd(&fd);
    return 0;
}

void vm_unregister(struct vm_state *v)
{
    if (v->dir && net_sweep(v->dir))
        dir_remove(v->dir, NULL);
    closep(&v->lock_fd);
    free(v->dir);
    v->dir = NULL;
}

/* Start time of a process as the kernel counts it; 0 = no such process. */
static uint64_t start_time(int pid)
{
    CLEANUP(freep) char *path = path_fmt("/proc/%d/stat", pid);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(8192);
    if (!path || file_read(path, &b, NULL) < 0 || !b.len)
        return 0;
    const char *p = strrchr((char *)b.data, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p ? strtoull(p, NULL, 10) : 0;
}

static void sweep_one(const char *dir)
{
    CLEANUP(freep) char *pids = path_fmt("%s/pids", dir);
    CLEANUP(freep) char *json = path_fmt("%s/vm.json", dir);
    CLEANUP(fclosep) FILE *f = pids ? fopen(pids, "re") : NULL;
    int pid;
    uint64_t started;
    while (f && fscanf(f, "%d %" SCNu64, &pid, &started) == 2)
        if (pid > 1 && started && start_time(pid) == started)
            kill(pid, SIGKILL);
    if (!net_sweep(dir))
        return; /* for a start in the namespace that has its bridges */
    CLEANUP(json_decrefp) json_t *j = json ? json_load_file(json, 0, NULL) : NULL;
    const char *part = json_string_value(json_object_get(j, "part"));
    const char *base = part ? strrchr(part, '/') : NULL;
    size_t n = base ? strlen(base) : 0;
    if (base && strncmp(base, "/.run-", 6) == 0 && n > 11 && strcmp(base + n - 5, ".part") == 0)
        dir_remove(part, NULL);
    log_info("removed what the interrupted stack %s left behind", strrchr(dir, '/') + 1);
    dir_remove(dir, NULL);
}

/* Calls each for every state folder; live tells whether its runner holds the lock. */
static void walk(void (*each)(const char *dir, bool live, void *p), void *p)
{
    CLEANUP(freep) char *r = root();
    DIR *d = r ? opendir(r) : NULL;
    struct dirent *de;
    while (d && (de = readdir(d))) {
        if (de->d_name[0] == '.')
            continue;
        CLEANUP(freep) char *dir = path_fmt("%s/%s", r, de->d_name);
        CLEANUP(freep) char *lock = dir ? path_fmt("%s/lock", dir) : NULL;
        CLEANUP(closep) int fd = lock ? open(lock, O_RDWR | O_CLOEXEC) : -1;
        if (fd < 0)
            continue;
        bool live = flock(fd, LOCK_EX | LOCK_NB) < 0;
        each(dir, live, p);
    }
    if (d)
        closedir(d);
}

static void sweep_dead(const char *dir, bool live, void *p)
{
    (void)p;
    if (!live)
        sweep_one(dir);
}

void vm_sweep(void)
{
    walk(sweep_dead, NULL);
}

static void list_live(const char *dir, bool live, void *p)
{
    CLEANUP(freep) char *json = path_fmt("%s/vm.json", dir);
    json_t *j = live && json ? json_load_file(json, 0, NULL) : NULL;
    if (j) {
        int port = ssh_port(dir);
        json_object_del(j, "part");
        json_object_set_new(j, "ssh_port", port ? json_integer(port) : json_null());
        json_array_append_new(p, j);
    }
}

json_t *vm_list(void)
{
    json_t *a = json_array();
    walk(list_live, a);
    return a;
}

int vm_find(const char *prefix, json_t **ret, struct err *e)
{
    CLEANUP(json_decrefp) json_t *all = vm_list();
    size_t i;
    json_t *v, *found = NULL;
    json_array_foreach (all, i, v) {
        const char *id = json_string_value(json_object_get(v, "id"));
        if (prefix && strcmp(prefix, "last") != 0 &&
            (!id || strncmp(id, prefix, strlen(prefix)) != 0))
            continue;
        if (found)
            return err_set(e, ENOENT, "%s: several guests match; see vm ls",
                           prefix ? prefix : "vm");
        found = v;
    }
    if (!found)
        return err_set(e, ENOENT, "%s: no such guest is running", prefix ? prefix : "vm");
    *ret = json_incref(found);
    return 0;
}

int vm_stop(const json_t *vm, struct err *e)
{
    int pid = (int)json_integer_value(json_object_get(vm, "pid"));
    const char *id = json_string_value(json_object_get(vm, "id"));
    if (pid <= 1 || !id)
        return err_set(e, SF_EFORMAT, "vm: state file without a pid");
    uint64_t started = start_time(pid);
    if (kill(pid, SIGTERM) < 0 && errno != ESRCH)
        return err_sys(e, errno, "%s: process %d", id, pid);
    for (int i = 0; i < 3000; i++) {
        if (!started || start_time(pid) != started)
            return 0;
        usleep(10000);
    }
    return err_set(e, ETIMEDOUT, "%s: process %d does not end", id, pid);
}

int vm_ssh(const json_t *vm, int argc, char **args, struct err *e)
{
    const char *id = json_string_value(json_object_get(vm, "id"));
    CLEANUP(freep) char *r = root();
    CLEANUP(freep) char *dir = r && id ? path_fmt("%s/%s", r, id) : NULL;
    return dir ? ssh_enter(dir, id, argc, args, e) : err_set(e, SF_EFORMAT, "vm: no id");
}

int vm_console(const json_t *vm, struct err *e)
{
    const char *id = json_string_value(json_object_get(vm, "id"));
    CLEANUP(freep) char *r = root();
    CLEANUP(freep) char *path = r ? path_fmt("%s/%s", r, id ? id : "") : NULL;
    CLEANUP(closep) int dir = path ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    CLEANUP(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/console", dir);
    if (dir < 0 || fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return err_sys(e, errno, "%s: console", id ? id : "vm");
    struct termios old, raw;
    bool tty = tcgetattr(0, &old) == 0;
    if (tty) {
        fprintf(stderr, "attached to %s; ^] leaves\n", id);
        raw = old;
        cfmakeraw(&raw);
        tcsetattr(0, TCSANOW, &raw);
    }
    struct pollfd p[2] = { { .fd = 0, .events = POLLIN }, { .fd = fd, .events = POLLIN } };
    int res = 0;
    for (bool on = true; on;) {
        if (poll(p, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            res = err_sys(e, errno, "console");
            break;
        }
        char b[4096];
        if (p[1].revents) {
            ssize_t n = recv(fd, b, sizeof(b), 0);
            on = n > 0 && write_all(1, b, (size_t)n) == 0;
        }
        if (p[0].revents && on) {
            ssize_t n = read(0, b, sizeof(b));
            if (n <= 0)
                p[0].fd = -1; /* input ended: go on showing the guest */
            else if (tty && memchr(b, 0x1d, (size_t)n))
                on = false;
            else
                on = send(fd, b, (size_t)n, MSG_NOSIGNAL) == n;
        }
    }
    if (tty)
        tcsetattr(0, TCSANOW, &old);
    return res;
}
