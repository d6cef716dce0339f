#include "coordinator/cli/procs.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"

enum { TERM_GRACE_MS = 2000, LOG_MAX = 4 << 20, READY_MAX = 65536 };

static void nap(long ms)
{
    nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

int procs_start(struct procs *ps, const char *name, char *const argv[], const char *log,
                struct err *e)
{
    if (ps->n == PROCS_MAX)
        return err_set(e, ENOSPC, "%s: too many processes", name);
    struct proc *p = &ps->p[ps->n];
    *p = (struct proc){ .log = log ? strdup(log) : NULL };
    snprintf(p->name, sizeof(p->name), "%s", name);
    CLEANUP(closep)
    int out = log ? open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_APPEND, 0644)
                  : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    CLEANUP(closep) int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if ((log && !p->log) || out < 0 || null < 0) {
        int code = log && !p->log ? ENOMEM : errno;
        free(p->log);
        return err_sys(e, code, "%s", log ? log : name);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    fflush(NULL);
    pid_t self = getpid(), pid = fork();
    if (pid < 0) {
        free(p->log);
        return err_sys(e, errno, "%s", name);
    }
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != self || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
            _exit(127);
        execv(argv[0], argv);
        dprintf(2, "siofleet: %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    p->pid = pid;
    ps->n++;
    return 0;
}

/* The last line of a log, which is where a program says why it ended. */
static void last_line(const char *path, char *out, size_t room)
{
    struct buf b = BUF_INIT(LOG_MAX);
    snprintf(out, room, "%s", path ? "it said nothing" : "what it said stands above");
    if (path && file_read(path, &b, NULL) >= 0 && b.len) {
        char *s = (char *)b.data;
        size_t n = strlen(s);
        while (n && s[n - 1] == '\n')
            s[--n] = '\0';
        char *line = strrchr(s, '\n');
        line = line ? line + 1 : s;
        if (!strncmp(line, "siofleet: ", 10))
            line += 10;
        if (*line)
            snprintf(out, room, "%s", line);
    }
    buf_clear(&b);
}

/* 0 while it runs, else -SF_EFAILED. */
static int gone(struct proc *p, struct err *e)
{
    int st;
    if (p->pid <= 0 || waitpid(p->pid, &st, WNOHANG) != p->pid)
        return p->pid > 0 ? 0 : err_set(e, SF_EFAILED, "%s: not running", p->name);
    p->pid = 0;
    char said[300];
    last_line(p->log, said, sizeof(said));
    if (WIFSIGNALED(st))
        return err_set(e, SF_EFAILED, "%s: ended by signal %d: %s", p->name, WTERMSIG(st), said);
    return err_set(e, SF_EFAILED, "%s: ended with exit %d: %s", p->name, WEXITSTATUS(st), said);
}

void procs_said(const struct proc *p, char *out, size_t room)
{
    last_line(p->log, out, room);
}

int procs_check(struct procs *ps, struct err *e)
{
    for (size_t i = 0; i < ps->n; i++) {
        int r = gone(&ps->p[i], e);
        if (r < 0)
            return r;
    }
    return 0;
}

int procs_ready(struct proc *p, const char *path, uint64_t timeout_ms, const volatile int *stop,
                json_t **ret, struct err *e)
{
    uint64_t start = clock_mono_ms();
    struct buf b = BUF_INIT(READY_MAX);
    while (access(path, F_OK) != 0) {
        int r = gone(p, e);
        if (r < 0)
            return r;
        if (stop && *stop)
            return err_set(e, ECANCELED, "%s: interrupted", p->name);
        if (clock_mono_ms() - start > timeout_ms) {
            char said[300];
            last_line(p->log, said, sizeof(said));
            return err_set(e, ETIMEDOUT, "%s: not ready after %d s: %s", p->name,
                           (int)(timeout_ms / 1000), said);
        }
        nap(10);
    }
    int r = file_read(path, &b, e);
    if (r >= 0) {
        *ret = json_loadb(b.data ? (char *)b.data : "", b.len, 0, NULL);
        if (!*ret)
            r = err_set(e, SF_EFORMAT, "%s: not a ready file", path);
    }
    buf_clear(&b);
    return r < 0 ? r : 0;
}

int procs_wait(struct proc *p, const volatile int *stop, int *status, struct err *e)
{
    int st;
    for (pid_t r; (r = waitpid(p->pid, &st, WNOHANG)) != p->pid;) {
        if (r < 0 && errno != EINTR)
            return err_sys(e, errno, "%s", p->name);
        if (stop && *stop)
            return err_set(e, ECANCELED, "%s: interrupted", p->name);
        nap(20);
    }
    p->pid = 0;
    *status = WIFSIGNALED(st) ? 128 + WTERMSIG(st) : WEXITSTATUS(st);
    return 0;
}

/* Waits up to grace_ms for its end. */
static bool ended(struct proc *p, uint64_t grace_ms)
{
    uint64_t start = clock_mono_ms();
    while (p->pid > 0) {
        pid_t r = waitpid(p->pid, NULL, WNOHANG);
        if (r == p->pid || (r < 0 && errno == ECHILD)) {
            p->pid = 0;
            break;
        }
        if (clock_mono_ms() - start >= grace_ms)
            return false;
        nap(5);
    }
    return true;
}

/* Children that this process did not start itself: orphans of the stopped ones. Returns their number, each sent sig. */
static size_t orphans(int sig)
{
    size_t n = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *de; d && (de = readdir(d));) {
        char path[280], text[512], *end;
        pid_t pid = (pid_t)strtol(de->d_name, &end, 10);
        if (pid <= 0 || *end)
            continue;
        snprintf(path, sizeof(path), "/proc/%s/stat", de->d_name);
        CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t k = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        if (k <= 0)
            continue;
        text[k] = '\0';
        /* the name stands in parentheses and may hold anything, so read from the last one on */
        char *tail = strrchr(text, ')'), state;
        int ppid;
        if (!tail || sscanf(tail + 1, " %c %d", &state, &ppid) != 2 || ppid != getpid() ||
            state == 'Z')
            continue;
        n++;
        kill(pid, sig);
    }
    if (d)
        closedir(d);
    return n;
}

size_t procs_stop(struct procs *ps, uint64_t grace_ms)
{
    size_t killed = 0;
    for (size_t i = ps->n; i > 0; i--) {
        struct proc *p = &ps->p[i - 1];
        if (p->pid > 0)
            kill(p->pid, SIGTERM);
        if (!ended(p, grace_ms)) {
            kill(p->pid, SIGTERM); /* a second one: at once */
            if (!ended(p, TERM_GRACE_MS)) {
                kill(p->pid, SIGKILL);
                ended(p, TERM_GRACE_MS);
                killed++;
            }
        }
        free(p->log);
        *p = (struct proc){ 0 };
    }
    bool any = ps->n > 0;
    ps->n = 0;
    if (!any)
        return 0;
    uint64_t start = clock_mono_ms();
    while (orphans(clock_mono_ms() - start < TERM_GRACE_MS ? SIGTERM : SIGKILL)) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        nap(50);
        if (clock_mono_ms() - start > 3 * TERM_GRACE_MS)
            break;
    }
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    return killed;
}
