/* What siofleet-shim costs: `true` started by posix_spawn, and the same under the shim as the agent calls it, in turns, so
 * that a busy machine is as busy for both. JSON on stdout.
 *
 *     fleet_shim SHIM DIR [ROUNDS [AT-A-TIME]]      DIR: where task folders are made, e.g. on a tmpfs
 *
 * `ratio` compares starts a second, `cpu_ratio` processor time: the second one hardly depends on what else runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/cgroup.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

enum { N = 100, LOCK_FD = 9 };
enum way { BARE, SHIM, GROUPED, WAYS };

extern char **environ;

static const char *shim, *base;
static char groups[CGROUP_PATH_MAX];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_CHILDREN, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what)
{
    fprintf(stderr, "siofleet: bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void start(enum way way, const char *dir, int i)
{
    static const char true_path[] = "/bin/true";
    char group[CGROUP_PATH_MAX + 64];
    const char *v[24] = { true_path };
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    int fd = -1;
    if (way != BARE) {
        static const char *const words[] = {
            "--no-new-privs", "--timeout-ms", "60000",  "--lock-fd", "9",
            "--mark",         "4711",         "--pids", "4096"
        };
        size_t n = 0;
        v[n++] = shim;
        for (size_t k = 0; k < ARRAY_LEN(words); k++)
            v[n++] = words[k];
        if (way == GROUPED) {
            snprintf(group, sizeof(group), "%s/siofleet-bench-%ld-%d", groups, (long)getpid(), i);
            v[n++] = "--cgroup";
            v[n++] = group;
        }
        v[n++] = dir;
        v[n++] = "--";
        v[n++] = true_path;
        CLEANUP(freep) char *lock = path_fmt("%s/lock", dir);
        fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
            die(lock);
        posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_adddup2(&fa, fd, LOCK_FD);
    }
    pid_t pid;
    errno = posix_spawn(&pid, v[0], &fa, NULL, (char **)(uintptr_t)v, environ);
    if (errno)
        die(v[0]);
    posix_spawn_file_actions_destroy(&fa);
    closep(&fd);
}

static void one_round(enum way way, int at_a_time, double *ret_s, double *ret_cpu_s)
{
    char *dirs[N];
    CLEANUP(freep) char *top = path_fmt("%s/shim-bench-%ld", base, (long)getpid());
    struct err e = { 0 };
    for (int i = 0; i < N; i++) {
        dirs[i] = path_fmt("%s/%d", top, i);
        if (dir_make(dirs[i], 0700, &e) < 0)
            die(e.text);
    }
    double t = now(), c = cpu();
    for (int begun = 0, ended = 0; ended < N; ended++) {
        while (begun < N && begun - ended < at_a_time) {
            start(way, dirs[begun], begun);
            begun++;
        }
        int status;
        if (wait(&status) < 0 || status != 0)
            die("a task failed");
    }
    *ret_s += now() - t;
    *ret_cpu_s += cpu() - c;
    for (int i = 0; i < N; i++)
        free(dirs[i]);
    dir_remove(top, NULL);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: fleet_shim SHIM DIR [ROUNDS [AT-A-TIME]]\n");
        return 2;
    }
    shim = argv[1];
    base = argv[2];
    int rounds = argc > 3 ? atoi(argv[3]) : 10, at_a_time = argc > 4 ? atoi(argv[4]) : 2;
    double s[WAYS] = { 0 }, c[WAYS] = { 0 }, load = 0;
    char why[200];
    int ways = cgroup_base("/proc", groups, why) == 0 ? WAYS : GROUPED;
    for (int r = 0; r < rounds; r++)
        for (int w = 0; w < ways; w++)
            one_round((enum way)w, at_a_time, &s[w], &c[w]);
    getloadavg(&load, 1);
    double n = (double)rounds * N;
    printf("{\"schema\":\"siofleet.bench-shim/1\",\"starts\":%.0f,\"at_a_time\":%d,\"load\":%.1f",
           n, at_a_time, load);
    static const char *const names[] = { "bare", "shim", "shim_cgroup" };
    for (int w = 0; w < ways; w++)
        printf(",\"%s\":{\"per_s\":%.0f,\"cpu_us\":%.0f,\"ratio\":%.2f,\"cpu_ratio\":%.2f}",
               names[w], n / s[w], c[w] / n * 1e6, s[0] / s[w], c[0] / c[w]);
    printf("}\n");
    return 0;
}
