#include "collect/kit.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collect/collect.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

/* kit.tar is made by the build from qemu-patch/ and collect/guest/ */
__asm__(".section .rodata\n"
        ".balign 8\n"
        ".global siofleet_kit\nsiofleet_kit:\n"
        ".incbin \"" SIOFLEET_KIT "\"\n"
        ".global siofleet_kit_end\nsiofleet_kit_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const unsigned char siofleet_kit[], siofleet_kit_end[];

enum { OUT_MAX = 1 << 20 };

/* Run a command to its end, stdout into *out, stdin from in (n bytes), stderr ours. Returns its exit status or a
 * negative error. It dies with us. */
static int run(char *const argv[], const void *in, size_t n, struct buf *out, bool quiet,
               struct err *e)
{
    int to[2], from[2];
    if (pipe2(from, O_CLOEXEC) < 0)
        return err_sys(e, errno, "%s", argv[0]);
    if (pipe2(to, O_CLOEXEC) < 0) {
        close(from[0]);
        close(from[1]);
        return err_sys(e, errno, "%s", argv[0]);
    }
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(127);
        signal(SIGPIPE, SIG_DFL);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        if (dup2(to[0], 0) < 0 || dup2(from[1], 1) < 0)
            _exit(127);
        int null = quiet ? open("/dev/null", O_WRONLY) : -1;
        if (quiet)
            dup2(null, 2);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    if (pid < 0) {
        int code = errno;
        close(to[1]);
        close(from[0]);
        return err_sys(e, code, "%s", argv[0]);
    }
    const char *p = in;
    bool failed = false;
    while (from[0] >= 0) {
        struct pollfd f[2] = { { .fd = from[0], .events = POLLIN },
                               { .fd = n ? to[1] : -1, .events = POLLOUT } };
        if (!n && to[1] >= 0)
            closep(&to[1]);
        int ready = poll(f, 2, 200);
        if (collect_stop && pid > 0)
            kill(pid, SIGTERM); /* the script cleans up and ends, which closes its output */
        if (ready <= 0)
            continue;
        if (f[1].revents) {
            ssize_t w = write(to[1], p, n < 65536 ? n : 65536);
            if (w > 0) {
                p += w;
                n -= (size_t)w;
            } else if (errno != EINTR && errno != EAGAIN) {
                n = 0;
            }
        }
        if (f[0].revents) {
            uint8_t *room = buf_reserve(out, 4096);
            ssize_t r = room ? read(from[0], room, 4096) : -1;
            if (r > 0)
                out->len += (size_t)r;
            else if (r == 0 || errno != EINTR)
                failed = r < 0, closep(&from[0]);
        }
    }
    closep(&to[1]);
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (failed)
        return err_set(e, SF_EFAILED, "%s: more output than %d bytes", argv[0], OUT_MAX);
    if (buf_add(out, "", 1) < 0) /* a string from here on */
        return err_set(e, ENOMEM, "%s", argv[0]);
    out->len--;
    if (WIFSIGNALED(status))
        return err_set(
            e, WTERMSIG(status) == SIGINT || WTERMSIG(status) == SIGTERM ? ECANCELED : SF_EFAILED,
            "%s: ended by signal %d", argv[0], WTERMSIG(status));
    return WEXITSTATUS(status);
}

int kit_unpack(char **ret, struct err *e)
{
    size_t n = (size_t)(siofleet_kit_end - siofleet_kit);
    struct id id;
    char hex[ID_HEX_LEN];
    hash_bytes(siofleet_kit, n, &id);
    id_hex(&id, hex);
    CLEANUP(freep) char *cache = path_xdg("CACHE");
    CLEANUP(freep) char *parent = cache ? path_fmt("%s/kit", cache) : NULL;
    CLEANUP(freep) char *dir = cache ? path_fmt("%s/kit/%.16s", cache, hex) : NULL;
    CLEANUP(freep)
    char *temp = cache ? path_fmt("%s/kit/.%.16s.%d", cache, hex, (int)getpid()) : NULL;
    if (!dir || !temp || !parent)
        return err_set(e, ENOMEM, "kit");
    if (access(dir, X_OK) < 0) {
        int r = dir_make(temp, 0755, e);
        if (r < 0)
            return r;
        char *argv[] = { (char *)"tar", (char *)"-x", (char *)"-C", temp,
                         (char *)"-f",  (char *)"-",  NULL };
        CLEANUP(buf_clear) struct buf out = BUF_INIT(OUT_MAX);
        r = run(argv, siofleet_kit, n, &out, false, e);
        if (r == 0 && rename(temp, dir) < 0 && access(dir, X_OK) < 0)
            r = err_sys(e, errno, "%s", dir);
        else if (r > 0)
            r = err_set(e, SF_EFAILED, "%s: tar failed with status %d", temp, r);
        if (access(temp, F_OK) == 0)
            dir_remove(temp, NULL);
        if (r < 0)
            return r;
    }
    *ret = TAKE(dir);
    return 0;
}

/* Last line of a script's output: what it made. */
static char *last_line(struct buf *b)
{
    char *s = (char *)b->data;
    while (b->len && s[b->len - 1] == '\n')
        s[--b->len] = 0;
    char *nl = b->len ? strrchr(s, '\n') : NULL;
    return strdup(nl ? nl + 1 : b->len ? s : "");
}

/* Run one script of the kit: first its --check, then, if that says no and we may, for real. takes: seconds that this is
 * expected to take here. */
static int make(const char *what, unsigned takes, const char *script, const char *arg1,
                const char *arg2, bool check, bool may_build, char **ret, struct err *e)
{
    CLEANUP(freep) char *dir = NULL;
    int r = kit_unpack(&dir, e);
    if (r < 0)
        return r;
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, script);
    if (!path)
        return err_set(e, ENOMEM, "%s", what);
    if (check) {
        CLEANUP(buf_clear) struct buf out = BUF_INIT(OUT_MAX);
        char *argv[] = { (char *)"sh", path, (char *)"--check", NULL };
        r = run(argv, NULL, 0, &out, true, e);
        if (r < 0)
            return r;
        if (r == 0) {
            *ret = last_line(&out);
            return *ret ? 0 : err_set(e, ENOMEM, "%s", what);
        }
        if (!may_build)
            return err_set(e, SF_EFAILED, "%s: not prepared on this host; run sh %s", what, path);
        if (takes < 60)
            log_info("%s is not in the cache yet: making it once, about %u s", what, takes);
        else
            log_info(
                "%s is not in the cache yet: building it once, about %u min on this host's idle "
                "cores",
                what, (takes + 30) / 60);
    }
    CLEANUP(buf_clear) struct buf out = BUF_INIT(OUT_MAX);
    char *argv[] = { (char *)"sh", path, (char *)arg1, (char *)arg2, NULL };
    r = run(argv, NULL, 0, &out, false, e);
    if (r < 0)
        return r;
    if (r > 0)
        return err_set(e, r == 130 || r == 143 ? ECANCELED : SF_EFAILED,
                       "%s: preparing it failed with status %d; its last lines say why", what, r);
    *ret = last_line(&out);
    return *ret ? 0 : err_set(e, ENOMEM, "%s", what);
}

static void manifest_value(const char *text, const char *key, char *out, size_t room)
{
    size_t n = strlen(key);
    for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
        if (strncmp(p, key, n) == 0 && p[n] == '=') {
            size_t len = strcspn(p + n + 1, "\n");
            snprintf(out, room, "%.*s", (int)(len < room ? len : room - 1), p + n + 1);
            return;
        }
}

int kit_look(const char *path, struct kit_qemu *ret, struct err *e)
{
    *ret = (struct kit_qemu){ 0 };
    CLEANUP(buf_clear) struct buf ver = BUF_INIT(OUT_MAX), help = BUF_INIT(OUT_MAX);
    char *va[] = { (char *)path, (char *)"--version", NULL };
    char *ha[] = { (char *)path, (char *)"-device", (char *)"intel-iommu,help", NULL };
    int r = run(va, NULL, 0, &ver, true, e);
    if (r < 0)
        return r;
    static const char start[] = "QEMU emulator version ";
    if (r > 0 || strncmp((char *)ver.data, start, strlen(start)) != 0)
        return err_set(e, SF_EFAILED, "%s: not a QEMU that starts here", path);
    r = run(ha, NULL, 0, &help, true, e);
    if (r < 0)
        return r;
    if (r > 0 || !strstr((char *)help.data, "caching-mode"))
        return err_set(e, SF_EFAILED, "%s: emulates no intel-iommu", path);
    ret->patched = strstr((char *)help.data, "trace-ring") != NULL;
    const char *v = (char *)ver.data + strlen(start);
    snprintf(ret->version, sizeof(ret->version), "%.*s", (int)strcspn(v, "\n"), v);
    CLEANUP(freep) char *real = realpath(path, NULL);
    char *slash = real ? strstr(real, "/bin/qemu-system-x86_64") : NULL;
    if (slash) {
        *slash = 0;
        CLEANUP(freep) char *share = path_fmt("%s/share/qemu", real);
        CLEANUP(freep) char *mf = path_fmt("%s/manifest", real);
        CLEANUP(buf_clear) struct buf m = BUF_INIT(65536);
        if (mf && file_read(mf, &m, NULL) == 0 && m.len) {
            manifest_value((char *)m.data, "version", ret->version, sizeof(ret->version));
            manifest_value((char *)m.data, "series", ret->series, sizeof(ret->series));
            manifest_value((char *)m.data, "hash", ret->hash, sizeof(ret->hash));
            if (share && access(share, R_OK) == 0)
                ret->share = TAKE(share);
        }
    }
    if (!ret->hash[0]) {
        struct id id;
        if (cid_file(path, &id, NULL, NULL) == 0)
            id_hex(&id, ret->hash);
    }
    ret->path = strdup(path);
    return ret->path ? 0 : err_set(e, ENOMEM, "%s", path);
}

int kit_qemu(bool may_build, struct kit_qemu *ret, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    /* measured on two cores: a minute to fetch and configure, two to compile */
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned takes = 60 + 250 / (unsigned)(cores > 0 ? cores : 1);
    int r = make("QEMU", takes, "build.sh", NULL, NULL, true, may_build, &path, e);
    return r < 0 ? r : kit_look(path, ret, e);
}

int kit_stock(struct kit_qemu *ret, struct err *e)
{
    const char *dirs = getenv("PATH");
    CLEANUP(freep) char *copy = strdup(dirs ? dirs : "/usr/bin:/bin");
    char *save = NULL;
    for (char *d = copy ? strtok_r(copy, ":", &save) : NULL; d; d = strtok_r(NULL, ":", &save)) {
        CLEANUP(freep) char *p = path_fmt("%s/qemu-system-x86_64", d);
        if (p && access(p, X_OK) == 0)
            return kit_look(p, ret, e);
    }
    return err_set(e, SF_EFAILED,
                   "tracer = stock: no qemu-system-x86_64 in PATH; install qemu-system-x86");
}

void kit_qemu_clear(struct kit_qemu *q)
{
    free(q->path);
    free(q->share);
    *q = (struct kit_qemu){ 0 };
}

int kit_image(bool may_build, char **ret, struct err *e)
{
    return make("guest image", 15, "guest/image.sh", NULL, NULL, true, may_build, ret, e);
}

int kit_nested(bool may_build, const char *qemu, char **ret, struct err *e)
{
    (void)may_build; /* put together from what is there: seconds, no network */
    return make("L1 image", 5, "guest/image.sh", "--nested", qemu, false, true, ret, e);
}

int kit_disk(bool may_build, char **ret, struct err *e)
{
    return make("disk image", 120, "guest/disk.sh", NULL, NULL, true, may_build, ret, e);
}
