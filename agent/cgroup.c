#include "agent/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_in(const char *path, const char *name, int flags)
{
    char file[CGROUP_PATH_MAX + 64];
    int n = snprintf(file, sizeof(file), "%s/%s", path, name);
    if (n < 0 || (size_t)n >= sizeof(file)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open(file, flags | O_CLOEXEC);
}

static int put(const char *path, const char *name, const char *text)
{
    int fd = open_in(path, name, O_WRONLY);
    if (fd < 0)
        return -errno;
    int r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return r;
}

static int get(const char *path, const char *name, char *out, size_t room)
{
    int fd = open_in(path, name, O_RDONLY);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, out, room - 1);
    int r = n < 0 ? -errno : 0;
    close(fd);
    out[n > 0 ? n : 0] = '\0';
    return r;
}

static bool put_number(const char *path, const char *name, uint64_t n)
{
    char text[32];
    snprintf(text, sizeof(text), "%" PRIu64, n);
    return put(path, name, text) == 0;
}

int cgroup_make(const char *path, const struct cgroup_limits *want,
                struct cgroup_limits *ret_limited)
{
    struct cgroup_limits got = *want;
    if (mkdir(path, 0700) < 0)
        return -errno;
    if (got.memory_b && put_number(path, "memory.max", got.memory_b)) {
        put(path, "memory.swap.max", "0");
        put(path, "memory.oom.group", "1"); /* half a task is of no use to anybody */
    } else {
        got.memory_b = 0;
    }
    if (got.pids && !put_number(path, "pids.max", got.pids))
        got.pids = 0;
    if (got.cores) {
        char text[64];
        snprintf(text, sizeof(text), "%" PRIu64 " 100000", got.cores * 100000);
        if (put(path, "cpu.max", text) < 0)
            got.cores = 0;
    }
    *ret_limited = got;
    return 0;
}

/* Call fn for each folder directly below. */
static void below(const char *path, void (*fn)(const char *sub))
{
    DIR *d = opendir(path);
    for (struct dirent *x; d && (x = readdir(d));) {
        char sub[CGROUP_PATH_MAX];
        if (x->d_name[0] == '.' || x->d_type != DT_DIR)
            continue;
        int n = snprintf(sub, sizeof(sub), "%s/%s", path, x->d_name);
        if (n > 0 && (size_t)n < sizeof(sub))
            fn(sub);
    }
    if (d)
        closedir(d);
}

/* Before Linux 5.14: one by one, while more appear. The numbers are the kernel's own list of who is inside now. */
static void kill_listed(const char *path)
{
    for (int i = 0; i < 100; i++) {
        char text[65536];
        bool any = false;
        if (get(path, "cgroup.procs", text, sizeof(text)) < 0)
            break;
        for (char *p = text, *end; *p; p = end + 1) {
            long pid = strtol(p, &end, 10);
            if (*end != '\n')
                break;
            any |= pid > 1 && kill((pid_t)pid, SIGKILL) == 0;
        }
        if (!any)
            break;
    }
    below(path, kill_listed);
}

int cgroup_kill(const char *path)
{
    int r = put(path, "cgroup.kill", "1");
    if (r == -ENOENT && access(path, F_OK) == 0) {
        kill_listed(path);
        r = 0;
    }
    return r;
}

bool cgroup_populated(const char *path)
{
    char text[512];
    return get(path, "cgroup.events", text, sizeof(text)) == 0 && strstr(text, "populated 1");
}

uint64_t cgroup_oom_kills(const char *path)
{
    char text[512];
    if (get(path, "memory.events", text, sizeof(text)) < 0)
        return 0;
    const char *p = strstr(text, "oom_kill ");
    return p ? strtoull(p + 9, NULL, 10) : 0;
}

static void remove_tree(const char *path)
{
    if (rmdir(path) < 0 && errno == EBUSY) {
        below(path, remove_tree);
        rmdir(path);
    }
}

int cgroup_remove(const char *path)
{
    struct stat st;
    remove_tree(path);
    return stat(path, &st) < 0 ? 0 : -EBUSY;
}

/* ---- where */

/* One line of a file, found by take(), which may change it. */
static int find_line(const char *proc, const char *file,
                     bool (*take)(char *line, char out[CGROUP_PATH_MAX], char *more),
                     char out[CGROUP_PATH_MAX], char *more)
{
    char path[CGROUP_PATH_MAX], line[4096];
    snprintf(path, sizeof(path), "%s/self/%s", proc, file);
    FILE *f = fopen(path, "re");
    int r = -ENOENT;
    while (f && r < 0 && fgets(line, sizeof(line), f))
        if (take(line, out, more))
            r = 0;
    if (f)
        fclose(f);
    return r;
}

/* ID PARENT MAJ:MIN ROOT PLACE OPTIONS... - TYPE SOURCE OPTIONS */
static bool take_mount(char *line, char out[CGROUP_PATH_MAX], char *root)
{
    char place[CGROUP_PATH_MAX];
    const char *type = strstr(line, " - cgroup2 ");
    if (!type || sscanf(line, "%*s %*s %*s %959s %959s", root, place) != 2 || strchr(place, '\\'))
        return false;
    strcpy(out, place);
    return true;
}

static bool take_own(char *line, char out[CGROUP_PATH_MAX], char *unused)
{
    (void)unused;
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "0::/", 4) != 0 || strlen(line + 3) >= CGROUP_PATH_MAX)
        return false;
    strcpy(out, line + 3);
    return true;
}

static bool hands_down(const char *path)
{
    char text[256];
    return get(path, "cgroup.subtree_control", text, sizeof(text)) == 0 && text[0] > ' ';
}

/* Groups can be made in it and processes moved there from beside it or below it. */
static int usable(const char *path)
{
    char probe[CGROUP_PATH_MAX];
    int n = snprintf(probe, sizeof(probe), "%s/siofleet-probe-%ld", path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof(probe))
        return -ENAMETOOLONG;
    int fd = open_in(path, "cgroup.procs", O_WRONLY);
    if (fd < 0)
        return -errno;
    close(fd);
    if (mkdir(probe, 0700) < 0)
        return -errno;
    fd = open_in(probe, "cgroup.procs", O_WRONLY);
    int r = fd < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    rmdir(probe);
    return r;
}

int cgroup_base(const char *proc, char ret_path[CGROUP_PATH_MAX], char ret_why[200])
{
    char mount[CGROUP_PATH_MAX], root[CGROUP_PATH_MAX], own[CGROUP_PATH_MAX];
    ret_path[0] = ret_why[0] = '\0';
    if (find_line(proc, "mountinfo", take_mount, mount, root) < 0) {
        snprintf(ret_why, 200, "no cgroup2 file system is mounted");
        return -ENOENT;
    }
    size_t n = strcmp(root, "/") ? strlen(root) : 0;
    if (find_line(proc, "cgroup", take_own, own, NULL) < 0 || strncmp(own, root, n) != 0 ||
        (own[n] != '/' && own[n])) {
        snprintf(ret_why, 200, "%s shows no group of this process", mount);
        return -ENOENT;
    }
    char path[CGROUP_PATH_MAX], above[CGROUP_PATH_MAX];
    bool top = !own[n] || !own[n + 1];
    int len = snprintf(path, sizeof(path), "%s%s", mount, top ? "" : own + n);
    if (len < 0 || (size_t)len >= sizeof(path))
        return -ENAMETOOLONG;
    if (top) {
        /* the top may have processes and hand down at once; each alone, as one that cannot be spoils the others */
        put(path, "cgroup.subtree_control", "+memory");
        put(path, "cgroup.subtree_control", "+pids");
        put(path, "cgroup.subtree_control", "+cpu");
    } else if (!hands_down(path)) {
        strcpy(above, path);
        *strrchr(above, '/') = '\0';
        if (strlen(above) >= strlen(mount) && hands_down(above) && usable(above) == 0) {
            strcpy(ret_path, above);
            return 0;
        }
    }
    int r = usable(path);
    if (r < 0) {
        snprintf(ret_why, 200, "%.100s: %s", path, strerror(-r));
        return r;
    }
    strcpy(ret_path, path);
    return 0;
}

void cgroup_controllers(const char *base, char out[64])
{
    static const char *const names[] = { "memory", "pids", "cpu" };
    char text[256];
    out[0] = '\0';
    if (get(base, "cgroup.subtree_control", text, sizeof(text)) < 0)
        return;
    text[strcspn(text, "\n")] = '\0';
    for (char *save = NULL, *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
        for (size_t i = 0; i < 3; i++)
            if (!strcmp(w, names[i]))
                snprintf(out + strlen(out), 64 - strlen(out), "%s%s", out[0] ? " " : "", w);
}
