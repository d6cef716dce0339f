/* siofleet-shim: runs one command and outlives whoever started it.
 *
 *     siofleet-shim [OPTION]... DIR -- CMD ARG...
 *
 * The command runs in its own session with stdin from /dev/null; what it writes goes to the bounded
 * files DIR/stdout and DIR/stderr (ring.h). When it has ended, nothing of its process tree is left
 * and DIR/status appears by rename.
 *
 *   DIR/lock    flock held while the shim lives: the one sure sign, since process numbers are
 * reused DIR/pid     "SHIM CHILD\n" once the command runs DIR/status
 * {"schema":"siofleet.task-status/1","cause":"done|exit|signal|oom|timeout|cancelled",...}
 *
 * SIGTERM or SIGINT cancels: the tree gets SIGTERM, after the grace time SIGKILL; a second one
 * kills at once. The shim is a subreaper: a grandchild that forked twice and lost its parent still
 * becomes its child. The command itself is killed by the kernel when the shim dies
 * (PR_SET_PDEATHSIG); the rest of such a tree is found by the agent through SIOFLEET_TASK_DIR in
 * its environment.
 *
 * Static and libc only, since its start is part of every task's price. It never syncs: after a
 * power loss the task is lost anyway, and a status that is torn then reads as lost.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/ring.h"

/* One stream of the command. The head is kept for ever, behind it a ring keeps the newest bytes. */
struct stream {
    int from; /* read end of the pipe, -1 after its end */
    int to;   /* the file; -1 when it could not be made: the bytes are dropped then */
    uint64_t head, tail, total;
};

struct shim {
    const char *dir, *cwd;
    uint64_t timeout_ms, grace_ms, cap_b;
    int lock_fd, status_fd;
    bool no_new_privs;
    struct stream out, err;
    pid_t child;
    bool child_ended;
    int wait_status;
    uint64_t start_ms, start_wall_ms, end_ms;
    const char *reason;  /* "timeout", "cancelled"; NULL = ended by itself */
    uint64_t kill_at_ms; /* 0 = no kill pending */
    uint64_t killed;     /* leftovers that had to be killed */
    uint64_t left;       /* processes that would not die */
    uint64_t oom_before;
};

static const char usage[] =
    "Usage: siofleet-shim [OPTION]... DIR -- CMD ARG...\n"
    "Run CMD in its own session, keep its output bounded, leave nothing of it behind.\n\n"
    "  --timeout-ms N    end CMD after N ms (0 = never)\n"
    "  --grace-ms N      time between SIGTERM and SIGKILL (2000)\n"
    "  --log-cap BYTES   most bytes kept of each of stdout and stderr (1048576)\n"
    "  --lock-fd N       DIR/lock, opened and locked by the caller\n"
    "  --chdir DIR       CMD starts there (DIR of the task)\n"
    "  --no-new-privs    CMD cannot gain rights by set-user-id programs\n";

static uint64_t mono_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int fail(int code, const char *place, const char *cause)
{
    dprintf(2, "siofleet: %s: %s\n", place, cause);
    return code;
}

/* Kills since boot for want of memory: with a SIGKILL that nobody of ours sent, a rise is the best
 * hint there is. */
static uint64_t oom_kills(void)
{
    char text[16384];
    int fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    const char *at = strstr(text, "\noom_kill ");
    return at ? strtoull(at + 10, NULL, 10) : 0;
}

/* ---- bounded output */

static void stream_header(struct stream *s)
{
    char text[RING_HEADER + 1];
    ring_header(text, s->head, s->tail, s->total);
    if (pwrite(s->to, text, RING_HEADER, 0) != RING_HEADER) {
        /* a full disk costs log lines, never the task */
    }
}

static void stream_open(struct stream *s, const char *name, uint64_t cap_b)
{
    s->head = cap_b / 4;
    s->tail = cap_b - s->head;
    s->total = 0;
    s->to = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (s->to >= 0)
        stream_header(s);
}

static void stream_add(struct stream *s, const char *p, size_t n)
{
    if (s->to < 0)
        return;
    while (n) {
        uint64_t at, room;
        if (s->total < s->head) {
            at = s->total;
            room = s->head - s->total;
        } else {
            uint64_t in = (s->total - s->head) % s->tail;
            at = s->head + in;
            room = s->tail - in;
        }
        size_t part = n < room ? n : (size_t)room;
        ssize_t w = pwrite(s->to, p, part, (off_t)(RING_HEADER + at));
        if (w < 0 && errno == EINTR)
            continue;
        /* what could not be written is counted, so that offsets stay true; the file has a hole
         * there */
        size_t step = w > 0 ? (size_t)w : part;
        s->total += step;
        p += step;
        n -= step;
    }
    stream_header(s);
}

/* Takes what is there. Returns false at the end of the stream. */
static bool stream_pump(struct stream *s)
{
    char part[65536];
    for (int i = 0; i < 16; i++) {
        ssize_t n = read(s->from, part, sizeof(part));
        if (n > 0) {
            stream_add(s, part, (size_t)n);
            continue;
        }
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            return true;
        close(s->from);
        s->from = -1;
        return false;
    }
    return true;
}

/* ---- the tree */

struct proc {
    pid_t pid, ppid; /* pid 0 = counted among ours already */
};

static int proc_parent(const char *pid, pid_t *ret)
{
    char path[64], text[512];
    snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    const char *p = strrchr(text, ')'); /* the name may hold blanks and brackets */
    if (!p || strlen(p) < 5)
        return -1;
    *ret = (pid_t)strtol(p + 4, NULL, 10);
    return 0;
}

/* Send sig to every descendant. Returns how many there are. Reads /proc, so it also finds what
 * changed its session. */
static uint64_t tree_signal(int sig)
{
    static struct proc list[65536];
    static pid_t ours[65536];
    size_t n = 0, n_ours = 0;
    DIR *d = opendir("/proc");
    if (!d)
        return 0;
    for (struct dirent *x; (x = readdir(d)) && n < sizeof(list) / sizeof(list[0]);) {
        pid_t parent;
        if (isdigit((unsigned char)x->d_name[0]) && proc_parent(x->d_name, &parent) == 0)
            list[n++] = (struct proc){ (pid_t)strtol(x->d_name, NULL, 10), parent };
    }
    closedir(d);
    pid_t above = getpid();
    for (size_t at = 0;; above = ours[at++]) {
        for (size_t i = 0; i < n; i++)
            if (list[i].pid && list[i].ppid == above) {
                ours[n_ours++] = list[i].pid;
                list[i].pid = 0;
            }
        if (at == n_ours)
            break;
    }
    for (size_t i = 0; i < n_ours; i++)
        kill(ours[i], sig);
    return n_ours;
}

/* Reap what has ended. Returns false when there is no child any more. */
static bool reap(struct shim *s)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid == 0)
            return true;
        if (pid < 0) {
            if (errno == EINTR)
                continue;
            return false;
        }
        if (pid == s->child) {
            s->child_ended = true;
            s->wait_status = status;
            s->end_ms = mono_ms();
        }
    }
}

/* End everything below us. A process that will not die (uninterruptible, other user) is given up
 * after 10 s. */
static void tree_kill(struct shim *s)
{
    uint64_t until = mono_ms() + 10000;
    bool first = s->child_ended;
    while (reap(s)) {
        s->left = tree_signal(SIGKILL);
        if (first)
            s->killed = s->left;
        first = false;
        if (mono_ms() > until)
            return;
        struct timespec nap = { .tv_nsec = 2000000 };
        nanosleep(&nap, NULL);
    }
    s->left = 0;
}

/* ---- start, status */

static void write_status(struct shim *s)
{
    int code = 0, sig = 0;
    const char *cause = "done";
    if (WIFEXITED(s->wait_status)) {
        code = WEXITSTATUS(s->wait_status);
        if (code)
            cause = "exit";
    } else if (WIFSIGNALED(s->wait_status)) {
        sig = WTERMSIG(s->wait_status);
        cause = sig == SIGKILL && !s->reason && oom_kills() > s->oom_before ? "oom" : "signal";
    }
    if (!s->child_ended)
        cause = "signal", sig = SIGKILL;
    if (s->reason)
        cause = s->reason;
    struct rusage u = { 0 };
    getrusage(RUSAGE_CHILDREN, &u);
    char text[1024];
    int n = snprintf(
        text, sizeof(text),
        "{\"schema\":\"siofleet.task-status/1\",\"cause\":\"%s\",\"exit\":%d,\"signal\":%d,"
        "\"started_ms\":%" PRIu64 ",\"duration_ms\":%" PRIu64 ",\"user_ms\":%" PRIu64
        ",\"system_ms\":%" PRIu64 ",\"maxrss_kib\":%ld,"
        "\"killed\":%" PRIu64 ",\"left\":%" PRIu64 ",\"stdout_b\":%" PRIu64 ",\"stderr_b\":%" PRIu64
        "}\n",
        cause, code, sig, s->start_wall_ms, (s->end_ms ? s->end_ms : mono_ms()) - s->start_ms,
        (uint64_t)u.ru_utime.tv_sec * 1000 + (uint64_t)u.ru_utime.tv_usec / 1000,
        (uint64_t)u.ru_stime.tv_sec * 1000 + (uint64_t)u.ru_stime.tv_usec / 1000, u.ru_maxrss,
        s->killed, s->left, s->out.total, s->err.total);
    /* the space was reserved at the start: a disk that filled up meanwhile cannot hide how the task
     * ended */
    if (pwrite(s->status_fd, text, (size_t)n, 0) != n || ftruncate(s->status_fd, n) < 0)
        return;
    rename("status.new", "status");
}

static void write_pid(pid_t child)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%ld %ld\n", (long)getpid(), (long)child);
    int fd = open("pid.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    bool ok = write(fd, text, (size_t)n) == n;
    close(fd);
    if (ok)
        rename("pid.new", "pid");
}

static pid_t start(struct shim *s, char **argv, const sigset_t *old)
{
    int po[2], pe[2];
    if (pipe2(po, O_CLOEXEC) < 0 || pipe2(pe, O_CLOEXEC) < 0)
        return -1;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char *cwd = realpath(".", NULL);
    if (null < 0 || !cwd || setenv("SIOFLEET_TASK_DIR", cwd, 1) < 0)
        return -1;
    free(cwd);
    pid_t self = getpid(), pid = fork();
    if (pid < 0)
        return -1;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != self)
            _exit(127);
        setsid();
        if (s->no_new_privs)
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        struct rlimit none = { 0, 0 };
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGPIPE, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        sigprocmask(SIG_SETMASK, old, NULL);
        dup2(null, 0);
        dup2(po[1], 1);
        dup2(pe[1], 2);
        if (s->cwd && chdir(s->cwd) < 0) {
            dprintf(2, "siofleet: %s: %s\n", s->cwd, strerror(errno));
            _exit(126);
        }
        execvp(argv[0], argv);
        dprintf(2, "siofleet: %s: %s\n", argv[0], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
    }
    close(null);
    close(po[1]);
    close(pe[1]);
    s->out.from = po[0];
    s->err.from = pe[0];
    fcntl(s->out.from, F_SETFL, O_NONBLOCK);
    fcntl(s->err.from, F_SETFL, O_NONBLOCK);
    return pid;
}

static void ask_to_end(struct shim *s, const char *reason)
{
    if (!s->reason) {
        s->reason = reason;
        s->kill_at_ms = mono_ms() + s->grace_ms;
        tree_signal(SIGTERM);
        tree_signal(SIGCONT); /* a stopped one could not act on it */
    } else {
        s->kill_at_ms = mono_ms();
    }
}

static void follow(struct shim *s, int sig_fd)
{
    while (!s->child_ended) {
        uint64_t now = mono_ms(), at = UINT64_MAX;
        if (s->timeout_ms && !s->reason) {
            at = s->start_ms + s->timeout_ms;
            if (now >= at) {
                ask_to_end(s, "timeout");
                continue;
            }
        }
        if (s->kill_at_ms) {
            at = s->kill_at_ms;
            if (now >= at) {
                tree_kill(s);
                return;
            }
        }
        int wait = at == UINT64_MAX ? -1 : at - now > 60000 ? 60000 : (int)(at - now);
        struct pollfd p[3] = { { .fd = sig_fd, .events = POLLIN },
                               { .fd = s->out.from, .events = POLLIN },
                               { .fd = s->err.from, .events = POLLIN } };
        if (poll(p, 3, wait) < 0 && errno != EINTR)
            return;
        if (p[1].revents)
            stream_pump(&s->out);
        if (p[2].revents)
            stream_pump(&s->err);
        struct signalfd_siginfo info;
        while (p[0].revents && read(sig_fd, &info, sizeof(info)) == sizeof(info)) {
            if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
                ask_to_end(s, "cancelled");
        }
        reap(s);
    }
}

/* Whole decimal number, or false. */
static bool number(const char *s, uint64_t *ret)
{
    char *end;
    if (!isdigit((unsigned char)s[0]))
        return false;
    errno = 0;
    *ret = strtoull(s, &end, 10);
    return !*end && !errno;
}

static int parse(struct shim *s, int argc, char **argv, char ***ret_cmd)
{
    uint64_t lock = 0;
    bool have_lock = false;
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = { { "--timeout-ms", &s->timeout_ms },
                    { "--grace-ms", &s->grace_ms },
                    { "--log-cap", &s->cap_b },
                    { "--lock-fd", &lock } };
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--no-new-privs")) {
            s->no_new_privs = true;
            continue;
        }
        if (!strcmp(argv[i], "--chdir")) {
            if (i + 1 >= argc)
                return fail(2, argv[i], "needs a folder");
            s->cwd = argv[++i];
            continue;
        }
        size_t k = 0;
        while (k < 4 && strcmp(argv[i], numbers[k].name))
            k++;
        if (k == 4)
            return fail(2, argv[i], "no such option");
        if (i + 1 >= argc || !number(argv[i + 1], numbers[k].to))
            return fail(2, argv[i], "needs a number");
        have_lock |= k == 3;
        i++;
    }
    if (i + 2 >= argc || strcmp(argv[i + 1], "--"))
        return fail(2, "siofleet-shim", "needs DIR -- CMD");
    if (s->cap_b < 4096 || s->cap_b > 1u << 30)
        return fail(2, "--log-cap", "from 4096 to 1073741824");
    if (have_lock && (lock < 3 || lock > 1023))
        return fail(2, "--lock-fd", "from 3 to 1023");
    s->lock_fd = have_lock ? (int)lock : -1;
    s->dir = argv[i];
    *ret_cmd = argv + i + 2;
    return 0;
}

int main(int argc, char **argv)
{
    static struct shim s = { .grace_ms = 2000,
                             .cap_b = 1 << 20,
                             .status_fd = -1,
                             .out = { .from = -1, .to = -1 },
                             .err = { .from = -1, .to = -1 } };
    char **cmd;
    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(usage, stdout);
        return fflush(stdout) ? 1 : 0;
    }
    int r = parse(&s, argc, argv, &cmd);
    if (r)
        return r;
    if (chdir(s.dir) < 0)
        return fail(1, s.dir, strerror(errno));
    if (s.lock_fd < 0)
        s.lock_fd = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s.lock_fd < 0 || fcntl(s.lock_fd, F_SETFD, FD_CLOEXEC) < 0)
        return fail(1, "lock", strerror(errno));
    if (flock(s.lock_fd, LOCK_EX | LOCK_NB) < 0)
        return fail(1, "lock", errno == EWOULDBLOCK ? "another shim runs here" : strerror(errno));
    /* nothing of the caller's stays open here: its listening sockets and locks must end with it */
    close_range(3, (unsigned)s.lock_fd - 1, 0);
    close_range((unsigned)s.lock_fd + 1, ~0u, 0);

    if (setsid() < 0 && getsid(0) != getpid()) {
        /* a group leader that is no session leader: a shell's job. It works without. */
    }
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return fail(1, "subreaper", strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigset_t set, old;
    sigemptyset(&set);
    sigprocmask(SIG_SETMASK, &set, &old); /* the command starts with nothing blocked */
    old = set;
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    s.status_fd = open("status.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (sig_fd < 0 || s.status_fd < 0)
        return fail(1, s.dir, strerror(errno));
    r = posix_fallocate(s.status_fd, 0, 1024);
    if (r)
        return fail(1, s.dir, strerror(r));
    stream_open(&s.out, "stdout", s.cap_b);
    stream_open(&s.err, "stderr", s.cap_b);
    s.oom_before = oom_kills();
    s.start_ms = mono_ms();
    s.start_wall_ms = wall_ms();
    s.child = start(&s, cmd, &old);
    if (s.child < 0)
        return fail(1, cmd[0], strerror(errno));
    write_pid(s.child);
    /* from here on nobody may be listening; errors have nowhere to go but the status */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        close(null);
    }

    follow(&s, sig_fd);
    tree_kill(&s);
    while (s.out.from >= 0 && stream_pump(&s.out)) {
        struct pollfd p = { .fd = s.out.from, .events = POLLIN };
        if (poll(&p, 1, 0) <= 0)
            break; /* somebody outside the tree still holds the pipe */
    }
    while (s.err.from >= 0 && stream_pump(&s.err)) {
        struct pollfd p = { .fd = s.err.from, .events = POLLIN };
        if (poll(&p, 1, 0) <= 0)
            break;
    }
    write_status(&s);
    return 0;
}
