/* siofleet-shim: runs one command and outlives whoever started it.
 *
 *     siofleet-shim [OPTION]... DIR -- CMD ARG...
 *
 * The command runs in its own session with stdin from /dev/null; what it writes goes to the bounded files DIR/stdout and
 * DIR/stderr (ring.h), which are made with their first byte. When it has ended, nothing of its process tree is left and
 * DIR/status appears by rename.
 *
 *   DIR/lock    flock held while the shim lives: the one sure sign, since process numbers are reused. It holds
 *               "SHIM [CGROUP]", blanks and LF: the room that the status takes at the end, when the file is renamed
 *   DIR/status  {"schema":"siofleet.task-status/1","cause":"done|exit|signal|oom|timeout|cancelled",...}
 *
 * SIGTERM or SIGINT cancels: the tree gets SIGTERM, after the grace time SIGKILL; a second one kills at once. What holds
 * the tree together:
 *
 *   --cgroup    a control group of its own (cgroup.h): killed as a whole, limits kept by the kernel
 *   subreaper   a grandchild that forked twice and lost its parent still becomes our child
 *   --mark      and SIOFLEET_TASK_DIR in the environment: when the shim itself was killed, the agent finds by them what
 *               is left (orphans.h). The command itself is killed by the kernel then (PR_SET_PDEATHSIG).
 *
 * Static and libc only, since its start is part of every task's price; so are the few files it makes. It never syncs:
 * after a power loss the task is lost anyway, and a status that is torn then reads as lost.
 */
#include <ctype.h>
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
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/cgroup.h"
#include "agent/ring.h"
#include "agent/tree.h"

enum {
    STATUS_MAX = 1024, /* of the status file, bytes */
    TREE_MAX = 65536,  /* processes of a task looked at together */
    SHORT_MS = 50,     /* a task that ends by then has not filled the memory */
    WATCH_MS = 100, /* how often the number of processes is looked at, where no cgroup limits it */
    DIE_MS = 10000, /* a process that will not die by then (uninterruptible) is given up */
};

/* One stream of the command. The head is kept for ever, behind it a ring keeps the newest bytes. */
struct stream {
    const char *name;
    int from; /* read end of the pipe, -1 after its end */
    int to;   /* the file; -1 = none yet */
    uint64_t head, tail, total;
};

struct shim {
    const char *dir, *cwd;
    const char *group; /* its cgroup; NULL = none */
    bool grouped;      /* the command runs in the group */
    uint64_t timeout_ms, grace_ms, cap_b, mark;
    struct cgroup_limits limits, limited; /* asked for; kept by the kernel */
    int lock_fd;
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
    bool oom_known;
    uint64_t oom_before;
    uint16_t watch_at; /* of the host: this many processes make the tree worth counting */
};

static const char usage[] =
    "Usage: siofleet-shim [OPTION]... DIR -- CMD ARG...\n"
    "Run CMD in its own session, keep its output bounded, leave nothing of it behind.\n\n"
    "  --timeout-ms N    end CMD after N ms (0 = never)\n"
    "  --grace-ms N      time between SIGTERM and SIGKILL (2000)\n"
    "  --log-cap BYTES   most bytes kept of each of stdout and stderr (1048576)\n"
    "  --lock-fd N       DIR/lock, opened and locked by the caller\n"
    "  --chdir DIR       CMD starts there (DIR of the task)\n"
    "  --no-new-privs    CMD cannot gain rights by set-user-id programs\n"
    "  --mark N          all processes of CMD carry the mark N\n"
    "  --cgroup FOLDER   run CMD in a control group of its own, made there and removed\n"
    "  --memory-b N      most bytes of memory of all of CMD's processes (needs --cgroup)\n"
    "  --cores N         most cores they use together (needs --cgroup)\n"
    "  --pids N          most processes at a time (without a cgroup: CMD is ended above it)\n";

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

/* Kills since boot for want of memory: with a SIGKILL that nobody of ours sent, a rise is the best hint there is where no
 * cgroup counts them. Not asked for short tasks: the kernel adds up a lot for this number. */
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

static void stream_add(struct stream *s, const char *p, size_t n)
{
    if (s->to < 0)
        s->to = open(s->name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
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
        ssize_t w = s->to < 0 ? -1 : pwrite(s->to, p, part, (off_t)(RING_HEADER + at));
        if (w < 0 && s->to >= 0 && errno == EINTR)
            continue;
        /* what could not be written is counted, so that offsets stay true; the file has a hole there */
        size_t step = w > 0 ? (size_t)w : part;
        s->total += step;
        p += step;
        n -= step;
    }
    if (s->to >= 0)
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

/* The rest, after the tree's end. Somebody outside of it may still hold the pipe. */
static void stream_drain(struct stream *s)
{
    struct pollfd p = { .fd = s->from, .events = POLLIN };
    while (s->from >= 0 && poll(&p, 1, 0) > 0 && stream_pump(s))
        ;
}

/* ---- the tree */

static struct proc tree[TREE_MAX];

static size_t tree_signal(int sig)
{
    size_t n = tree_list(tree, TREE_MAX), alive = 0;
    for (size_t i = 0; i < n; i++)
        alive += tree[i].state != 'Z' && proc_signal(&tree[i], sig) == 0;
    return alive;
}

/* Reap what has ended. Returns false when there is no child any more. */
static bool reap(struct shim *s)
{
    siginfo_t info = { 0 };
    /* Its process group ends with the command, at one blow. While it is not reaped nobody else can have its number. */
    if (!s->child_ended && waitid(P_PID, (id_t)s->child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid)
        kill(-s->child, SIGKILL);
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
        } else if (s->child_ended && !s->kill_at_ms && WIFSIGNALED(status) &&
                   WTERMSIG(status) == SIGKILL) {
            s->killed++;
        }
    }
}

/* End everything below us. */
static void tree_kill(struct shim *s)
{
    uint64_t until = mono_ms() + DIE_MS;
    if (!s->child_ended)
        kill(-s->child, SIGKILL);
    for (int round = 0; reap(s); round++) {
        if (s->grouped)
            cgroup_kill(s->group);
        s->left = tree_signal(SIGKILL);
        if (mono_ms() > until)
            return;
        struct timespec nap = { .tv_nsec = 1000000 };
        if (round && s->left < 64) /* more than that multiply: no rest then */
            nanosleep(&nap, NULL);
    }
    s->left = 0;
}

static uint16_t host_procs(void)
{
    struct sysinfo info;
    return sysinfo(&info) == 0 ? info.procs : 0;
}

/* More processes than allowed, where the kernel does not see to it. One cheap number of the whole host says when the
 * tree can have grown by half of what it still may: only then it is counted. */
static bool too_many(struct shim *s)
{
    uint16_t now = host_procs();
    uint64_t room = s->limits.pids, have = 0;
    if ((int16_t)(now - s->watch_at) >= 0) {
        have = tree_list(tree, TREE_MAX);
        if (have > s->limits.pids)
            return true;
        room -= have;
    }
    uint64_t step = room / 2 < 8 ? 8 : room / 2 > 8192 ? 8192 : room / 2;
    uint16_t next = (uint16_t)(now + step);
    if (have || (int16_t)(next - s->watch_at) < 0)
        s->watch_at = next;
    return false;
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
        cause = sig == SIGKILL && s->oom_known && oom_kills() > s->oom_before ? "oom" : "signal";
    }
    if (!s->child_ended)
        cause = "signal", sig = SIGKILL;
    if (s->limited.memory_b && (code || sig) && cgroup_oom_kills(s->group))
        cause = "oom";
    if (s->reason)
        cause = s->reason;
    struct rusage u = { 0 };
    getrusage(RUSAGE_CHILDREN, &u);
    char text[STATUS_MAX];
    int n = snprintf(
        text, sizeof(text),
        "{\"schema\":\"siofleet.task-status/1\",\"cause\":\"%s\",\"exit\":%d,\"signal\":%d,"
        "\"started_ms\":%" PRIu64 ",\"duration_ms\":%" PRIu64 ",\"user_ms\":%" PRIu64
        ",\"system_ms\":%" PRIu64 ",\"maxrss_kib\":%ld,"
        "\"killed\":%" PRIu64 ",\"left\":%" PRIu64 ",\"stdout_b\":%" PRIu64 ",\"stderr_b\":%" PRIu64
        ",\"cgroup\":%s}\n",
        cause, code, sig, s->start_wall_ms, (s->end_ms ? s->end_ms : mono_ms()) - s->start_ms,
        (uint64_t)u.ru_utime.tv_sec * 1000 + (uint64_t)u.ru_utime.tv_usec / 1000,
        (uint64_t)u.ru_stime.tv_sec * 1000 + (uint64_t)u.ru_stime.tv_usec / 1000, u.ru_maxrss,
        s->killed, s->left, s->out.total, s->err.total, s->grouped ? "true" : "false");
    /* over the number and the blanks: a disk that filled up meanwhile cannot hide how the task ended */
    if (pwrite(s->lock_fd, text, (size_t)n, 0) == n && ftruncate(s->lock_fd, n) == 0)
        rename("lock", "status");
}

static int write_number(struct shim *s)
{
    char text[STATUS_MAX];
    memset(text, ' ', sizeof(text));
    int n = snprintf(text, sizeof(text), "%ld %s", (long)getpid(), s->group ? s->group : "");
    text[n] = ' ';
    text[sizeof(text) - 1] = '\n';
    ssize_t w = pwrite(s->lock_fd, text, sizeof(text), 0);
    return w == sizeof(text) ? 0 : w < 0 ? -errno : -ENOSPC;
}

struct start {
    const struct shim *s;
    char **argv;
    const sigset_t *mask;
    pid_t parent;
    int in, out, err;
    int join; /* cgroup.procs, or -1 */
};

/* The child, in memory that it shares with its waiting parent: it changes nothing there and never returns. */
static void child(void *arg)
{
    const struct start *t = arg;
    const struct shim *s = t->s;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != t->parent)
        _exit(127);
    if (t->join >= 0 && write(t->join, "0", 1) != 1) {
        dprintf(t->err, "siofleet: %s: %s\n", s->group, strerror(errno));
        _exit(126);
    }
    setpgid(0, 0); /* to be killed at one blow */
    if (s->mark)
        mark_set(s->mark);
    if (s->no_new_privs)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    struct rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    sigprocmask(SIG_SETMASK, t->mask, NULL);
    dup2(t->in, 0);
    dup2(t->out, 1);
    dup2(t->err, 2);
    if (s->cwd && chdir(s->cwd) < 0) {
        dprintf(2, "siofleet: %s: %s\n", s->cwd, strerror(errno));
        _exit(126);
    }
    execvp(t->argv[0], t->argv);
    dprintf(2, "siofleet: %s: %s\n", t->argv[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

#ifdef __x86_64__
struct clone_words {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup;
};
enum {
    WITH_MEMORY = 0x100, /* CLONE_VM, CLONE_VFORK: as vfork(2) */
    AND_WAIT = 0x4000,
};
static const uint64_t into_cgroup = UINT64_C(0x200000000);

/* vfork(2) into a cgroup: to be born there costs the kernel a hundredth of being moved there. Only with a stack of its own
 * may the child call functions, hence these words. */
static long clone_into(int group_fd, void (*fn)(void *), void *arg)
{
    static char stack[65536] __attribute__((aligned(16)));
    struct clone_words w = { .flags = WITH_MEMORY | AND_WAIT | into_cgroup,
                             .exit_signal = SIGCHLD,
                             .stack = (uint64_t)(uintptr_t)stack,
                             .stack_size = sizeof(stack),
                             .cgroup = (uint64_t)group_fd };
    register void (*f)(void *) __asm__("r8") = fn;
    register void *a __asm__("r9") = arg;
    long r;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "movq %%r9, %%rdi\n\t"
                     "callq *%%r8\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(r)
                     : "0"((long)SYS_clone3), "D"(&w), "S"(sizeof(w)), "r"(f), "r"(a)
                     : "rcx", "r11", "memory");
    return r;
}
#else
static long clone_into(int group_fd, void (*fn)(void *), void *arg)
{
    (void)group_fd, (void)fn, (void)arg;
    return -ENOSYS;
}
#endif

static pid_t spawn_grouped(struct shim *s, struct start *t)
{
    char procs[CGROUP_PATH_MAX + 16];
    int dir = open(s->group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long pid = dir < 0 ? -errno : clone_into(dir, child, t);
    if (dir >= 0)
        close(dir);
    if (pid >= 0)
        return (pid_t)pid;
    /* a kernel before Linux 5.7, a filter of system calls: moved there before its first instruction, then */
    snprintf(procs, sizeof(procs), "%s/cgroup.procs", s->group);
    t->join = open(procs, O_WRONLY | O_CLOEXEC);
    if (t->join < 0)
        return -1;
    pid_t p = vfork();
    if (p == 0)
        child(t);
    close(t->join);
    t->join = -1;
    return p;
}

static int start(struct shim *s, char **argv, const sigset_t *old)
{
    int po[2], pe[2];
    if (pipe2(po, O_CLOEXEC) < 0 || pipe2(pe, O_CLOEXEC) < 0)
        return -1;
    struct start t = { .s = s,
                       .argv = argv,
                       .mask = old,
                       .parent = getpid(),
                       .in = open("/dev/null", O_RDWR | O_CLOEXEC),
                       .out = po[1],
                       .err = pe[1],
                       .join = -1 };
    if (t.in < 0)
        return -1;
    s->child = -1;
    if (s->group) {
        s->child = spawn_grouped(s, &t);
        s->grouped = s->child > 0;
    }
    if (s->child < 0) {
        pid_t pid = vfork();
        if (pid == 0)
            child(&t);
        s->child = pid;
    }
    if (s->child < 0)
        return -1;
    /* from here on nobody may be listening; errors have nowhere to go but the status */
    for (int fd = 0; fd < 3; fd++)
        dup2(t.in, fd);
    close(t.in);
    close(po[1]);
    close(pe[1]);
    s->out.from = po[0];
    s->err.from = pe[0];
    fcntl(s->out.from, F_SETFL, O_NONBLOCK);
    fcntl(s->err.from, F_SETFL, O_NONBLOCK);
    return 0;
}

static void make_group(struct shim *s)
{
    if (s->group && cgroup_make(s->group, &s->limits, &s->limited) < 0) {
        s->group = NULL; /* it works without */
        s->limited = (struct cgroup_limits){ 0 };
    }
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
    bool watch = s->limits.pids && !s->limited.pids;
    s->watch_at = (uint16_t)(host_procs() + (s->limits.pids > 16384 ? 8192 : s->limits.pids / 2));
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
            if (now >= at)
                return;
        }
        uint64_t most = watch ? WATCH_MS : 60000;
        if (!s->oom_known) {
            uint64_t ran = now - s->start_ms;
            if (ran >= SHORT_MS) {
                s->oom_before = oom_kills();
                s->oom_known = true;
            } else if (most > SHORT_MS - ran) {
                most = SHORT_MS - ran;
            }
        }
        int wait = (int)(at - now < most ? at - now : most);
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
        if (watch && !s->child_ended && too_many(s)) {
            char line[80];
            int n = snprintf(line, sizeof(line),
                             "siofleet: more than %" PRIu64 " processes; all are ended\n",
                             s->limits.pids);
            stream_add(&s->err, line, (size_t)n);
            return;
        }
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
    uint64_t lock = UINT64_MAX;
    const struct {
        const char *name;
        uint64_t *number;
        const char **text;
    } options[] = { { "--timeout-ms", &s->timeout_ms, NULL },
                    { "--grace-ms", &s->grace_ms, NULL },
                    { "--log-cap", &s->cap_b, NULL },
                    { "--lock-fd", &lock, NULL },
                    { "--mark", &s->mark, NULL },
                    { "--memory-b", &s->limits.memory_b, NULL },
                    { "--cores", &s->limits.cores, NULL },
                    { "--pids", &s->limits.pids, NULL },
                    { "--chdir", NULL, &s->cwd },
                    { "--cgroup", NULL, &s->group } };
    const size_t n = sizeof(options) / sizeof(options[0]);
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--no-new-privs")) {
            s->no_new_privs = true;
            continue;
        }
        size_t k = 0;
        while (k < n && strcmp(argv[i], options[k].name))
            k++;
        if (k == n)
            return fail(2, argv[i], "no such option");
        if (i + 1 < argc && options[k].text)
            *options[k].text = argv[i + 1];
        else if (i + 1 >= argc || !number(argv[i + 1], options[k].number))
            return fail(2, argv[i], options[k].text ? "needs a folder" : "needs a number");
        i++;
    }
    if (i + 2 >= argc || strcmp(argv[i + 1], "--"))
        return fail(2, "siofleet-shim", "needs DIR -- CMD");
    if (s->cap_b < 4096 || s->cap_b > 1u << 30)
        return fail(2, "--log-cap", "from 4096 to 1073741824");
    if (lock != UINT64_MAX && (lock < 3 || lock > 1023))
        return fail(2, "--lock-fd", "from 3 to 1023");
    if (s->mark >> MARK_BITS)
        return fail(2, "--mark", "too large");
    if (s->group && strlen(s->group) >= CGROUP_PATH_MAX)
        return fail(2, "--cgroup", "too long");
    s->lock_fd = lock == UINT64_MAX ? -1 : (int)lock;
    s->dir = argv[i];
    *ret_cmd = argv + i + 2;
    return 0;
}

/* Nothing of the caller's stays open here: its listening sockets and locks must end with it. */
static void close_others(int keep)
{
    if (keep > 3)
        syscall(SYS_close_range, 3u, (unsigned)keep - 1, 0u);
    if (syscall(SYS_close_range, (unsigned)keep + 1, ~0u, 0u) == 0)
        return;
    for (int fd = 3; fd < 1024; fd++) /* before Linux 5.9 */
        if (fd != keep)
            close(fd);
}

int main(int argc, char **argv)
{
    static struct shim s = { .grace_ms = 2000,
                             .cap_b = 1 << 20,
                             .out = { .name = "stdout", .from = -1, .to = -1 },
                             .err = { .name = "stderr", .from = -1, .to = -1 } };
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
    close_others(s.lock_fd);

    if (setsid() < 0 && getsid(0) != getpid()) {
        /* a group leader that is no session leader: a shell's job. It works without. */
    }
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return fail(1, "subreaper", strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigset_t set, none;
    sigemptyset(&none); /* the command starts with nothing blocked */
    set = none;
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_SETMASK, &set, NULL);
    int sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (sig_fd < 0)
        return fail(1, s.dir, strerror(errno));
    s.out.head = s.err.head = s.cap_b / 4;
    s.out.tail = s.err.tail = s.cap_b - s.cap_b / 4;
    make_group(&s);
    r = write_number(&s);
    if (r == 0) {
        s.start_ms = mono_ms();
        s.start_wall_ms = wall_ms();
        r = start(&s, cmd, &none) < 0 ? -errno : 0;
    }
    if (r < 0) {
        if (s.group)
            cgroup_remove(s.group);
        return fail(1, s.dir, strerror(-r));
    }
    follow(&s, sig_fd);
    tree_kill(&s);
    stream_drain(&s.out);
    stream_drain(&s.err);
    write_status(&s);
    if (s.group)
        cgroup_remove(s.group);
    return 0;
}
