/* deploy/ssh against a real sshd on loopback: keys, host keys, commands, deadlines. A program of
 * its own: it needs a daemon around all of its checks, and is run under ThreadSanitizer too. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deploy/ssh.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"

static int bad;
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #cond);                                      \
            printf(__VA_ARGS__);                                                                   \
            puts("");                                                                              \
            bad++;                                                                                 \
        }                                                                                          \
    } while (0)

static char dir[200];

static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int sh(const char *fmt, ...)
{
    char line[2000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    int r = system(line);
    return WIFEXITED(r) ? WEXITSTATUS(r) : -1;
}

static unsigned free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(a);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        exit(1);
    close(fd);
    return ntohs(a.sin_port);
}

static pid_t sshd_start(unsigned port)
{
    char conf[300];
    snprintf(conf, sizeof(conf), "%s/sshd_config", dir);
    FILE *f = fopen(conf, "w");
    if (!f)
        exit(1);
    fprintf(f,
            "ListenAddress 127.0.0.1\nPort %u\nHostKey %s/host\nAuthorizedKeysFile "
            "%s/authorized\nPidFile none\n"
            "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM "
            "no\nUseDNS no\n"
            "PermitRootLogin yes\n",
            port, dir, dir);
    fclose(f);
    pid_t pid = fork();
    if (pid == 0) {
        char log[300];
        snprintf(log, sizeof(log), "%s/sshd.log", dir);
        execl("/usr/sbin/sshd", "/usr/sbin/sshd", "-D", "-f", conf, "-E", log, NULL);
        _exit(127);
    }
    for (int i = 0; i < 600; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in a = { .sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int r = connect(fd, (struct sockaddr *)&a, sizeof(a));
        close(fd);
        if (r == 0)
            return pid;
        usleep(50000);
    }
    return pid;
}

struct feed {
    size_t left;
};
static long zeros(void *user, void *p, size_t n)
{
    struct feed *f = user;
    if (n > f->left)
        n = f->left;
    memset(p, 'z', n);
    f->left -= n;
    return (long)n;
}

int main(void)
{
    if (access("/usr/sbin/sshd", X_OK) < 0) {
        puts("skipped: /usr/sbin/sshd is not installed");
        return 77;
    }
    snprintf(dir, sizeof(dir), "%s/ssh-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(dir))
        return 1;
    chmod(dir, 0755);
    if (geteuid() == 0)
        sh("mkdir -p -m 0755 /run/sshd");
    sh("for k in host user other; do ssh-keygen -q -t ed25519 -N '' -f %s/$k; done", dir);
    sh("ssh-keygen -q -t rsa -b 2048 -N '' -f %s/rsa", dir);
    sh("cat %s/user.pub %s/rsa.pub > %s/authorized", dir, dir, dir);
    unsigned port = free_port();
    sh("echo \"[127.0.0.1]:%u $(cut -d' ' -f1,2 %s/host.pub)\" > %s/known", port, dir, dir);
    sh("cp %s/known %s/hashed; ssh-keygen -q -H -f %s/hashed >/dev/null 2>&1", dir, dir, dir);
    sh("echo \"[127.0.0.1]:%u $(cut -d' ' -f1,2 %s/other.pub)\" > %s/wrong; : > %s/none", port, dir,
       dir, dir);
    sh("(echo \"@revoked [127.0.0.1]:%u $(cut -d' ' -f1,2 %s/host.pub)\"; cat %s/known) > "
       "%s/revoked",
       port, dir, dir, dir);
    sh("echo \"@cert-authority [127.0.0.1]:%u $(cut -d' ' -f1,2 %s/host.pub)\" > %s/authority",
       port, dir, dir);
    sh("(echo \"@revoked * $(cut -d' ' -f1,2 %s/host.pub)\"; cat %s/known) > %s/revoked-all", dir,
       dir, dir);
    sh("(echo \" @revoked [127.*]:%u $(cut -d' ' -f1,2 %s/host.pub)\"; cat %s/hashed) > "
       "%s/revoked-some",
       port, dir, dir, dir);
    sh("echo \"*,!10.* $(cut -d' ' -f1,2 %s/host.pub)\" > %s/pattern", dir, dir);
    sh("echo \"*,!127.* $(cut -d' ' -f1,2 %s/host.pub)\" > %s/not", dir, dir);
    sh("echo \"[127.0.0.1]:%u $(cut -d' ' -f1,2 %s/rsa.pub)\" > %s/kind", port, dir, dir);
    sh("cp %s/user %s/open && chmod 644 %s/open", dir, dir, dir);
    pid_t sshd = sshd_start(port);

    char key[300], known[300];
    snprintf(key, sizeof(key), "%s/user", dir);
    struct err e = { 0 };
    struct passwd *pw = getpwuid(getuid());
    struct ssh_target t = { .name = "h1",
                            .address = "127.0.0.1",
                            .port = port,
                            .user = pw->pw_name,
                            .identity = key,
                            .known_hosts = known };
    enum ssh_step step;
    CHECK(ssh_init(&e) == 0, "%s", e.text);

    static const struct {
        const char *file;
        bool good;
        const char *word;
    } hostkeys[] = { { "known", true, "" },
                     { "hashed", true, "" },
                     { "wrong", false, "differs" },
                     { "none", false, "ssh-keyscan" },
                     { "pattern", true, "" },
                     { "not", false, "is not known; check it" },
                     { "kind", false, "not known (only another kind of key is)" },
                     { "revoked", false, "@revoked" },
                     { "revoked-all", false, "@revoked" },
                     { "revoked-some", false, "@revoked" },
                     { "authority", false, "certificate authorities are not supported" } };
    for (size_t i = 0; i < ARRAY_LEN(hostkeys); i++) {
        CLEANUP(ssh_free) struct ssh *s = NULL;
        snprintf(known, sizeof(known), "%s/%s", dir, hostkeys[i].file);
        int r = ssh_open(&t, 20000, &s, &step, &e);
        if (hostkeys[i].good)
            CHECK(r == 0, "%s: %s", hostkeys[i].file, e.text);
        else
            CHECK(r == -SF_EREFUSED && step == SSH_HOSTKEY && strstr(e.text, hostkeys[i].word),
                  "%s: %s", hostkeys[i].file, e.text);
    }
    snprintf(known, sizeof(known), "%s/known", dir);

    { /* a pinned key needs no known_hosts, and a wrong pin is refused */
        CLEANUP(ssh_free) struct ssh *s = NULL, *s2 = NULL;
        char pin[64] = "";
        char cmd[400];
        snprintf(cmd, sizeof(cmd), "ssh-keygen -lf %s/host.pub | cut -d' ' -f2", dir);
        FILE *f = popen(cmd, "r");
        if (f && fgets(pin, sizeof(pin), f))
            pin[strcspn(pin, "\n")] = '\0';
        if (f)
            pclose(f);
        struct ssh_target p = t;
        p.known_hosts = "/nonexistent";
        p.hostkey = pin;
        CHECK(ssh_open(&p, 20000, &s, &step, &e) == 0, "%s", e.text);
        p.hostkey = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        CHECK(ssh_open(&p, 20000, &s2, &step, &e) == -SF_EREFUSED && step == SSH_HOSTKEY, "%s",
              e.text);
    }
    { /* refused and unusable keys */
        CLEANUP(ssh_free) struct ssh *s = NULL;
        char other[300];
        struct ssh_target o = t;
        o.identity = other;
        snprintf(other, sizeof(other), "%s/other", dir);
        CHECK(ssh_open(&o, 20000, &s, &step, &e) == -SF_EREFUSED && step == SSH_LOGIN, "%s",
              e.text);
        snprintf(other, sizeof(other), "%s/rsa", dir);
        CHECK(ssh_open(&o, 20000, &s, &step, &e) == -SF_EREFUSED && strstr(e.text, "ed25519"), "%s",
              e.text);
        snprintf(other, sizeof(other), "%s/open", dir);
        CHECK(ssh_open(&o, 20000, &s, &step, &e) == -SF_EREFUSED && strstr(e.text, "chmod 600"),
              "%s", e.text);
        snprintf(other, sizeof(other), "%s/user.pub", dir);
        CHECK(ssh_open(&o, 20000, &s, &step, &e) == -SF_EREFUSED && strstr(e.text, "public key"),
              "%s", e.text);
        snprintf(other, sizeof(other), "%s/missing", dir);
        CHECK(ssh_open(&o, 20000, &s, &step, &e) == -SF_EREFUSED && strstr(e.text, "missing"), "%s",
              e.text);
    }
    { /* commands: nothing of an argument is interpreted, statuses and both streams come back, input
         is fed */
        CLEANUP(ssh_free) struct ssh *s = NULL;
        CHECK(ssh_open(&t, 20000, &s, &step, &e) == 0, "%s", e.text);
        if (s) {
            const char *odd = "a'b\"c $(id) `id` ; & | \\ * \n end";
            const char *argv[] = { "printf", "%s", odd, NULL };
            CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
            CHECK(ssh_run(s, argv, NULL, NULL, 20000, &res, &e) == 0, "%s", e.text);
            CHECK(res.status == 0 && res.out.len == strlen(odd) &&
                      !memcmp(res.out.data, odd, res.out.len),
                  "quoting");
            ssh_result_clear(&res);
            const char *args[] = { "7", NULL };
            CHECK(ssh_script(s, "echo out; echo err >&2; exit $1", args, NULL, NULL, 20000, &res,
                             &e) == 0,
                  "%s", e.text);
            CHECK(res.status == 7 && res.out.len == 4 && res.err.len == 4, "status %d", res.status);
            ssh_result_clear(&res);
            struct feed feed = { 9u << 20 };
            const char *wc[] = { "wc", "-c", NULL };
            CHECK(ssh_run(s, wc, zeros, &feed, 60000, &res, &e) == 0, "%s", e.text);
            CHECK(res.out.len && atol((char *)res.out.data) == 9l << 20, "9 MiB arrive");
            CHECK(ssh_sent_b(s) == 9u << 20, "payload is counted");
            ssh_result_clear(&res);
            /* the last packets of one stream may come while the other is read: nothing else will then wake who waits
             * for the socket, for a second */
            uint64_t took[12], least = UINT64_MAX;
            unsigned waited = 0;
            for (size_t i = 0; i < ARRAY_LEN(took); i++) {
                uint64_t from = clock_mono_ms();
                CHECK(ssh_script(s, "echo out; echo err >&2", NULL, NULL, NULL, 20000, &res, &e) ==
                          0,
                      "%s", e.text);
                took[i] = clock_mono_ms() - from;
                least = took[i] < least ? took[i] : least;
                ssh_result_clear(&res);
            }
            for (size_t i = 0; i < ARRAY_LEN(took); i++)
                waited += took[i] >= least + 950 && took[i] <= least + 1150;
            CHECK(waited <= 2, "%u of %zu commands took a second more than the quickest", waited,
                  ARRAY_LEN(took));
            /* a command that does not want all of its input, and what comes after it */
            {
                struct feed unread = { 64u << 20 };
                CHECK(ssh_script(s, "head -c 1000000 >/dev/null; exit 3", NULL, zeros, &unread,
                                 20000, &res, &e) == 0 &&
                          res.status == 3,
                      "%s", e.text);
                ssh_result_clear(&res);
                CHECK(ssh_script(s, "exit 4", NULL, NULL, NULL, 20000, &res, &e) == 0 &&
                          res.status == 4,
                      "%s", e.text);
                ssh_result_clear(&res);
            }
            const char *sleep_[] = { "sleep", "30", NULL };
            uint64_t t0 = clock_mono_ms();
            CHECK(ssh_run(s, sleep_, NULL, NULL, 300, &res, &e) == -ETIMEDOUT, "%s", e.text);
            CHECK(clock_mono_ms() - t0 < 15000, "a deadline is kept");
        }
    }
    { /* a host that accepts and never answers */
        CLEANUP(closep) int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t n = sizeof(a);
        if (bind(fd, (struct sockaddr *)&a, n) < 0 || listen(fd, 4) < 0 ||
            getsockname(fd, (struct sockaddr *)&a, &n) < 0)
            return 1;
        struct ssh_target m = t;
        m.port = ntohs(a.sin_port);
        CLEANUP(ssh_free) struct ssh *s = NULL;
        CHECK(ssh_open(&m, 500, &s, &step, &e) == -ETIMEDOUT && step == SSH_HANDSHAKE, "%s",
              e.text);
        struct ssh_target c = t;
        c.port = free_port();
        CHECK(ssh_open(&c, 5000, &s, &step, &e) == -ECONNREFUSED && step == SSH_REACH, "%s",
              e.text);
    }
    kill(sshd, SIGTERM);
    waitpid(sshd, NULL, 0);
    dir_remove(dir, NULL);
    printf("%s\n", bad ? "failed" : "passed");
    return bad ? 1 : 0;
}
