/* What this machine can do by itself, beside which the figures of a fleet count as ratios. JSON on stdout.
 *
 *   probe DIR [SHIM]
 *
 * DIR     a folder on the disk of the store
 * spawn   with SHIM: /bin/true by posix_spawn, two at a time, in rounds of 200, in turn with the same under siofleet-shim,
 *         each in a task folder of its own as an agent makes it (median of the rounds' ratios)
 * fsync   4 KiB appended and fdatasync, one after the other
 * loopback  a byte there and back over TCP on 127.0.0.1
 * hash    BLAKE2b-256 of 1 MiB
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/lib/hash.h"

enum { ROUND = 200, ROUNDS = 7, WINDOW = 2, SYNCS = 200, TRIPS = 5000 };

extern char **environ;

static void die(const char *place)
{
    fprintf(stderr, "probe: %s: %s\n", place, strerror(errno));
    exit(1);
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof(*v), by_value);
    return v[n / 2];
}

static pid_t start(const char *dir, const char *shim, int n)
{
    static char sub[4096], name[] = "siofleet-shim", dashes[] = "--", cmd[] = "/bin/true";
    char *bare[] = { cmd, NULL }, *under[] = { name, sub, dashes, cmd, NULL };
    pid_t pid;
    snprintf(sub, sizeof(sub), "%s/%d", dir, n);
    if (shim && mkdir(sub, 0700) < 0)
        die(sub);
    errno = posix_spawn(&pid, shim ? shim : "/bin/true", NULL, NULL, shim ? under : bare, environ);
    if (errno)
        die(shim ? shim : "/bin/true");
    return pid;
}

/* Processes a second. */
static double spawn_round(const char *dir, const char *shim)
{
    static int n;
    uint64_t t = clock_mono_ns();
    for (int i = 0, open = 0; i < ROUND || open;) {
        int st;
        while (i < ROUND && open < WINDOW) {
            start(dir, shim, n++);
            i++;
            open++;
        }
        if (wait(&st) < 0 || st)
            die("a process failed");
        open--;
    }
    return ROUND * 1e9 / (double)(clock_mono_ns() - t);
}

static double fsync_us(const char *dir)
{
    static char block[4096];
    double v[SYNCS];
    CLEANUP(freep) char *path = path_fmt("%s/sync", dir);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    for (int i = 0; i < SYNCS; i++) {
        uint64_t t = clock_mono_ns();
        if (fd < 0 || write(fd, block, sizeof(block)) != sizeof(block) || fdatasync(fd) < 0)
            die(dir);
        v[i] = (double)(clock_mono_ns() - t) / 1e3;
    }
    close(fd);
    return median(v, SYNCS);
}

static double loopback_us(void)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sa);
    int one = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (l < 0 || bind(l, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(l, 1) < 0 ||
        getsockname(l, (struct sockaddr *)&sa, &len) < 0)
        die("127.0.0.1");
    pid_t pid = fork();
    if (pid == 0) {
        char c;
        int s = accept(l, NULL, NULL);
        setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        while (read(s, &c, 1) == 1 && write(s, &c, 1) == 1)
            continue;
        _exit(0);
    }
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (pid < 0 || s < 0 || connect(s, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        die("127.0.0.1");
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    static double v[TRIPS];
    for (int i = 0; i < TRIPS; i++) {
        char c = 0;
        uint64_t t = clock_mono_ns();
        if (write(s, &c, 1) != 1 || read(s, &c, 1) != 1)
            die("127.0.0.1");
        v[i] = (double)(clock_mono_ns() - t) / 1e3;
    }
    close(s);
    close(l);
    waitpid(pid, NULL, 0);
    return median(v, TRIPS);
}

static double hash_mib_s(void)
{
    static uint8_t chunk[1 << 20];
    struct id id;
    double v[64];
    for (int i = 0; i < 64; i++) {
        uint64_t t = clock_mono_ns();
        hash_bytes(chunk, sizeof(chunk), &id);
        v[i] = 1e9 / (double)(clock_mono_ns() - t);
    }
    return median(v, 64);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "probe: probe DIR [SHIM]\n");
        return 2;
    }
    double bare[ROUNDS], under[ROUNDS], ratio[ROUNDS];
    CLEANUP(freep) char *dir = path_fmt("%s/tasks", argv[1]);
    if (!dir || mkdir(dir, 0700) < 0)
        die(argv[1]);
    for (int i = 0; argc > 2 && i < ROUNDS; i++) {
        bare[i] = spawn_round(dir, NULL);
        under[i] = spawn_round(dir, argv[2]);
        ratio[i] = under[i] / bare[i];
    }
    printf("{");
    if (argc > 2)
        printf("\"spawn_per_s\":%.0f,\"shim_per_s\":%.0f,\"shim_ratio\":%.3f,",
               median(bare, ROUNDS), median(under, ROUNDS), median(ratio, ROUNDS));
    printf("\"fsync_us\":%.0f,\"loopback_us\":%.1f,\"hash_mib_s\":%.0f}\n", fsync_us(argv[1]),
           loopback_us(), hash_mib_s());
    dir_remove(dir, NULL);
    return 0;
}
