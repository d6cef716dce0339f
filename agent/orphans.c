#include "agent/orphans.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/tree.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

enum { WAIT_MS = 3000 };

static const char *name_of(const char *dir)
{
    const char *slash = strrchr(dir, '/');
    return slash ? slash + 1 : dir;
}

uint64_t orphans_mark(const char *dir)
{
    struct stat st;
    return stat(dir, &st) == 0 ? mark_of(dir, (uint64_t)st.st_dev, (uint64_t)st.st_ino) : 0;
}

/* "siofleet-", who the agent's folder of tasks is, "-" and the task's name: unique among all groups of the host. */
static int prefix_of(const char *tasks, char out[40])
{
    uint64_t id = orphans_mark(tasks);
    return snprintf(out, 40, "siofleet-%016" PRIx64 "-", id);
}

void orphans_group(const char *base, const char *dir, char out[CGROUP_PATH_MAX])
{
    char prefix[40];
    CLEANUP(freep) char *tasks = strndup(dir, (size_t)(name_of(dir) - dir - (name_of(dir) > dir)));
    out[0] = '\0';
    if (!tasks)
        return;
    prefix_of(tasks, prefix);
    if (snprintf(out, CGROUP_PATH_MAX, "%s/%s%s", base, prefix, name_of(dir)) >= CGROUP_PATH_MAX)
        out[0] = '\0';
}

/* The group that the shim noted, if it is one of this task. */
static void noted_group(const char *dir, char out[CGROUP_PATH_MAX])
{
    CLEANUP(freep) char *path = path_fmt("%s/lock", dir);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    const char *name = name_of(dir);
    out[0] = '\0';
    if (!path || file_read(path, &b, NULL) < 0 || !b.len)
        return;
    char *at = strchr((char *)b.data, ' '), *end = at ? strchr(++at, ' ') : NULL;
    if (!end || (size_t)(end - at) >= CGROUP_PATH_MAX)
        return;
    *end = '\0';
    size_t n = strlen(name), len = strlen(at);
    if (*at != '/' || len <= n || strcmp(at + len - n, name) != 0 || at[len - n - 1] != '-' ||
        !strstr(at, "/siofleet-"))
        return;
    snprintf(out, CGROUP_PATH_MAX, "%s", at);
}

static bool in_environment(pid_t pid, const char *word, struct buf *b)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/%ld/environ", (long)pid);
    buf_reset(b);
    if (file_read(path, b, NULL) < 0)
        return false;
    size_t n = strlen(word) + 1;
    for (size_t at = 0; at + n <= b->len;) {
        if (!memcmp(b->data + at, word, n))
            return true;
        const uint8_t *end = memchr(b->data + at, 0, b->len - at);
        at = end ? (size_t)(end - b->data) + 1 : b->len;
    }
    return false;
}

/* One look at all processes. Returns how many of them are the task's. */
static unsigned kill_marked(uint64_t mark, const char *word)
{
    unsigned found = 0;
    DIR *d = opendir("/proc");
    if (!d)
        return 0;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4 << 20);
    for (struct dirent *x; (x = readdir(d));) {
        struct proc p;
        if (!isdigit((unsigned char)x->d_name[0]) ||
            proc_look((pid_t)strtol(x->d_name, NULL, 10), &p) < 0 || p.state == 'Z' ||
            p.pid == getpid())
            continue;
        uint64_t its = mark_get(p.pid);
        if (its ? its == mark : in_environment(p.pid, word, &b))
            found += proc_signal(&p, SIGKILL) == 0;
    }
    closedir(d);
    return found;
}

unsigned orphans_kill(const char *base, const char *dir)
{
    char groups[2][CGROUP_PATH_MAX] = { "", "" };
    CLEANUP(freep) char *word = path_fmt("SIOFLEET_TASK_DIR=%s", dir);
    uint64_t mark = orphans_mark(dir), until = clock_mono_ms() + WAIT_MS;
    unsigned all = 0, n = 0;
    if (!word)
        return 0;
    noted_group(dir, groups[0]);
    if (base)
        orphans_group(base, dir, groups[1]);
    do {
        bool more = false;
        for (int i = 0; i < 2; i++)
            if (groups[i][0] && cgroup_populated(groups[i])) {
                cgroup_kill(groups[i]);
                more = true;
            }
        n = kill_marked(mark, word);
        all += n;
        if (!n && !more)
            break;
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    } while (clock_mono_ms() < until);
    for (int i = 0; i < 2; i++)
        if (groups[i][0])
            cgroup_remove(groups[i]);
    if (n)
        log_warn("%s: its shim was killed; %u of its processes do not end", dir, n);
    else if (all)
        log_warn("%s: its shim was killed; ended %u processes that it left behind", dir, all);
    return all;
}

void orphans_sweep_groups(const char *base, const char *tasks)
{
    char prefix[40];
    int n = prefix_of(tasks, prefix);
    DIR *d = opendir(base);
    for (struct dirent *x; d && (x = readdir(d));) {
        CLEANUP(freep) char *dir = NULL, *group = NULL;
        struct stat st;
        if (strncmp(x->d_name, prefix, (size_t)n) != 0)
            continue;
        dir = path_fmt("%s/%s", tasks, x->d_name + n);
        group = path_fmt("%s/%s", base, x->d_name);
        if (!dir || !group || stat(dir, &st) == 0)
            continue;
        cgroup_kill(group);
        if (cgroup_remove(group) < 0)
            log_warn("%s: a task that nobody knows does not end", group);
    }
    if (d)
        closedir(d);
}
