#include "collect/stack.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>

#include "collect/cpio.h"
#include "collect/qmp.h"
#include "collect/ring.h"
#include "collect/sink.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

enum {
    PROCS_MAX = 2 + 2 * CONF_NICS_MAX,
    CONF_MAX = 64 * 1024,
    LINE_MAX_B = 4096,
    FILE_MAX_B = 64 << 20,
    RING_RECORDS =
        1 << 20, /* 40 MiB: five seconds of a typical run, half a second of the busiest */
    MIB = 1 << 20,
};

/* ---- argument vectors */

struct args {
    char *v[512];
    size_t n;
    bool failed;
};

static void args_clear(struct args *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i]);
    a->n = 0;
}

__attribute__((format(printf, 2, 3))) static void arg(struct args *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = NULL;
    if (a->n + 1 >= ARRAY_LEN(a->v) || vasprintf(&s, fmt, ap) < 0)
        a->failed = true;
    else
        a->v[a->n++] = s;
    va_end(ap);
    a->v[a->n] = NULL;
}

/* "-name" and its value */
#define arg2(a, name, ...) (arg(a, "%s", name), arg(a, __VA_ARGS__))

/* ---- processes */

struct proc {
    char name[16];
    pid_t pid;
    bool ended;
    int status;
};

enum phase { PH_BOOT, PH_START, PH_MEASURE, PH_SEND, PH_EXIT, PH_DONE };
static const char *const phase_names[] = { "boot",    "start",     "measured phase",
                                           "results", "power off", "end" };

/* A guest with its three lines: console (serial 0), control (serial 1), monitor. */
struct vm {
    struct proc *proc;
    int con, ctl, mon;
    struct buf line;  /* console line so far */
    char last[200];   /* last console line that says something */
    struct buf words; /* control bytes not yet understood */
    char file_name[64];
    uint64_t file_left; /* bytes of a FILE still to come */
    int file_fd;
    int log_fd;
    bool ready, told_boot;
};

struct stack {
    const struct collect_conf *c;
    const struct stack_env *env;
    const char *dir;
    struct stack_result *res;
    struct proc procs[PROCS_MAX];
    size_t n_procs;
    struct vm l1, clients[CONF_GUESTS_MAX];
    size_t n_clients;
    struct qmp qmp;
    struct ring ring;
    struct sink *sink;
    pthread_t reader;
    bool reading;
    int reader_stop;       /* atomic */
    struct err reader_err; /* valid after the join */
    int ports[CONF_NICS_MAX];
    int con_listen, con_peer; /* `vm console` */
    enum phase phase;
    uint64_t start_ms, phase_ms, end_ms, last_status_ms;
    int end_status;
    char trouble[300]; /* panic or the like, seen on a console */
    char initrd[PATH_MAX];
};

static void proc_note(const struct stack *s, pid_t pid)
{
    /* what a later start needs to sweep after a crash: pid and start time, so that a reused pid is let alone */
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (n <= 0 || !s->env->vm_dir)
        return;
    text[n] = 0;
    const char *p = strrchr(text, ')');
    uint64_t started = 0;
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p)
        started = strtoull(p, NULL, 10);
    CLEANUP(freep) char *pids = path_fmt("%s/pids", s->env->vm_dir);
    CLEANUP(fclosep) FILE *f = pids ? fopen(pids, "ae") : NULL;
    if (f)
        fprintf(f, "%d %" PRIu64 "\n", (int)pid, started);
}

/* fds: what the child keeps, -1 ends the list. Its output goes to DIR/NAME.err. */
static int spawn(struct stack *s, const char *name, struct args *a, const int fds[],
                 struct proc **ret, struct err *e)
{
    if (a->failed || s->n_procs == PROCS_MAX)
        return err_set(e, ENOMEM, "%s: arguments", name);
    json_t *argv = json_array();
    for (size_t i = 0; i < a->n; i++)
        json_array_append_new(argv, json_str(a->v[i]));
    json_object_set_new(s->res->commands, name, argv);
    CLEANUP(freep) char *out = path_fmt("%s/%s.err", s->dir, name);
    if (!out)
        return err_set(e, ENOMEM, "%s", name);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return err_sys(e, errno, "%s: fork", name);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(127);
        signal(SIGINT, SIG_IGN); /* a terminal's ^C is the runner's business: it ends us in order */
        signal(SIGTERM, SIG_DFL);
        signal(SIGPIPE, SIG_DFL);
        int null = open("/dev/null", O_RDONLY);
        int err = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (null < 0 || err < 0 || dup2(null, 0) < 0 || dup2(err, 1) < 0 || dup2(err, 2) < 0)
            _exit(127);
        for (int i = 0; fds && fds[i] >= 0; i++)
            fcntl(fds[i], F_SETFD, 0);
        execv(a->v[0], a->v);
        dprintf(2, "%s: %s\n", a->v[0], strerror(errno));
        _exit(127);
    }
    struct proc *p = &s->procs[s->n_procs++];
    *p = (struct proc){ .pid = pid };
    snprintf(p->name, sizeof(p->name), "%s", name);
    proc_note(s, pid);
    *ret = p;
    return 0;
}

static bool proc_ended(struct proc *p)
{
    if (!p->ended && waitpid(p->pid, &p->status, WNOHANG) == p->pid)
        p->ended = true;
    return p->ended;
}

static void proc_kill(struct proc *p)
{
    if (p->ended)
        return;
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, &p->status, 0) < 0 && errno == EINTR)
        ;
    p->ended = true;
}

/* Last line of DIR/NAME.err: why a process ended. */
static void last_words(const struct stack *s, const char *name, char *out, size_t room)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s.err", s->dir, name);
    CLEANUP(fclosep) FILE *f = path ? fopen(path, "re") : NULL;
    char line[400];
    out[0] = 0;
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0])
            snprintf(out, room, "%.*s", (int)room - 1, line);
    }
}

/* ---- per-run files of a guest */

static void conf_add(struct buf *b, int *r, const char *key, const char *value)
{
    /* values are numbers, words of our tables and checked rates: nothing a shell would act on */
    if (*r == 0)
        *r = buf_addf(b, "%s='%s'\n", key, value);
}

static void conf_num(struct buf *b, int *r, const char *key, uint64_t v)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, v);
    conf_add(b, r, key, text);
}

static void append_text(const struct collect_conf *c, char *out, size_t room)
{
    snprintf(out, room,
             "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic no_timer_check net.ifnames=0 "
             "random.trust_cpu=on "
             "mitigations=off iommu.strict=%d%s",
             c->strict, c->thp ? "" : " transparent_hugepage=never");
}

static int guest_conf(const struct stack *s, const char *role, uint64_t index, struct buf *b)
{
    const struct collect_conf *c = s->c;
    static const char *const kinds[] = { "iperf3", "disk", "script" };
    char append[300];
    int r = 0;
    append_text(c, append, sizeof(append));
    conf_add(b, &r, "ROLE", role);
    conf_num(b, &r, "INDEX", index);
    conf_num(b, &r, "NICS", c->nics);
    conf_add(b, &r, "MODEL", c->model);
    conf_add(b, &r, "MODULE", conf_module(c->model));
    conf_add(b, &r, "KIND", kinds[c->kind]);
    conf_add(b, &r, "PROTO", c->udp ? "udp" : "tcp");
    conf_add(b, &r, "DIRECTION", c->direction);
    conf_add(b, &r, "RATE", c->rate);
    conf_num(b, &r, "SECONDS_", (c->duration_ms + 999) / 1000);
    if (c->bytes_b)
        conf_num(b, &r, "BYTES", c->bytes_b);
    else
        conf_add(b, &r, "BYTES", "");
    if (c->length_b)
        conf_num(b, &r, "LENGTH", c->length_b);
    else
        conf_add(b, &r, "LENGTH", "");
    conf_add(b, &r, "KEEP", s->env->keep ? "yes" : "no");
    conf_add(b, &r, "THP", c->thp ? "yes" : "no");
    conf_add(b, &r, "L2_MEMORY", "192");
    conf_add(b, &r, "L2_APPEND", append);
    if (r == 0)
        r = buf_adds(b, "PORTS='");
    for (uint64_t i = 0; r == 0 && i < c->nics; i++)
        r = buf_addf(b, "%s%d", i ? " " : "", s->ports[i]);
    return r ? r : buf_adds(b, "'\n");
}

static int copy_into(int out, const char *path, struct err *e)
{
    CLEANUP(closep) int in = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (in < 0 || fstat(in, &st) < 0)
        return err_sys(e, errno, "%s", path);
    off_t at = 0;
    while (at < st.st_size) {
        ssize_t n = sendfile(out, in, &at, (size_t)(st.st_size - at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_sys(e, n < 0 ? errno : EIO, "%s", path);
    }
    /* the next archive starts on a boundary of 4 */
    static const char zero[4];
    return at % 4 ? write_all(out, zero, 4 - (size_t)(at % 4)) : 0;
}

/* DIR/NAME.cpio = the image's archive (or the user's), for L1 of tenants its QEMU, and the per-run files. */
static int make_initrd(struct stack *s, const char *name, const char *role, uint64_t index,
                       char *path, size_t room, struct err *e)
{
    const struct collect_conf *c = s->c;
    CLEANUP(buf_clear) struct buf conf = BUF_INIT(CONF_MAX), all = BUF_INIT(FILE_MAX_B);
    uint32_t ino = 1;
    int r = guest_conf(s, role, index, &conf);
    if (r == 0)
        r = cpio_add(&all, ino++, "run.conf", 0100644, conf.data, conf.len);
    if (r == 0 && c->script && strcmp(role, "l1") == 0) {
        CLEANUP(buf_clear) struct buf script = BUF_INIT(16 << 20);
        r = file_read(c->script, &script, e);
        if (r < 0)
            return r;
        r = cpio_add(&all, ino++, "workload", 0100755, script.data, script.len);
    }
    bool nest = strcmp(role, "nest") == 0;
    if (r == 0 && nest)
        r = cpio_add(&all, ino++, "l2", 040755, NULL, 0);
    for (uint64_t i = 1; r == 0 && nest && i <= c->guests; i++) {
        CLEANUP(buf_clear) struct buf l2 = BUF_INIT(CONF_MAX), inner = BUF_INIT(2 * CONF_MAX);
        char file[32];
        snprintf(file, sizeof(file), "l2/conf-%" PRIu64 ".cpio", i);
        r = guest_conf(s, "l2", i, &l2);
        if (r == 0)
            r = cpio_add(&inner, 1, "run.conf", 0100644, l2.data, l2.len);
        if (r == 0)
            r = cpio_end(&inner);
        if (r == 0)
            r = cpio_add(&all, ino++, file, 0100644, inner.data, inner.len);
    }
    if (r == 0)
        r = cpio_end(&all);
    if (r < 0)
        return err_set(e, -r, "%s: run files too long", name);

    snprintf(path, room, "%s/%s.cpio", s->dir, name);
    CLEANUP(closep) int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out < 0)
        return err_sys(e, errno, "%s", path);
    CLEANUP(freep) char *base = path_fmt("%s/base.cpio", s->env->image);
    if (!base)
        return err_set(e, ENOMEM, "%s", name);
    r = copy_into(out, c->initrd && strcmp(role, "l1") == 0 ? c->initrd : base, e);
    if (r == 0 && nest)
        r = copy_into(out, s->env->nested, e);
    if (r == 0) {
        r = write_all(out, all.data, all.len);
        if (r < 0)
            err_sys(e, -r, "%s", path);
    }
    return r;
}

/* ---- starting */

struct lines {
    int con[2], ctl[2], mon[2]; /* [0] ours, [1] QEMU's */
};

static void lines_close(struct lines *l)
{
    int *const all[] = { l->con, l->ctl, l->mon };
    for (size_t i = 0; i < 3; i++) {
        closep(&all[i][0]);
        closep(&all[i][1]);
    }
}

static int lines_open(struct lines *l, struct err *e)
{
    *l = (struct lines){ { -1, -1 }, { -1, -1 }, { -1, -1 } };
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l->con) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l->ctl) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l->mon) < 0)
        return err_sys(e, errno, "socketpair");
    return 0;
}

static int vm_begin(struct stack *s, struct vm *v, struct lines *l, const char *name, struct err *e)
{
    buf_init(&v->line, LINE_MAX_B);
    buf_init(&v->words, LINE_MAX_B);
    v->con = take_fd(&l->con[0]);
    v->ctl = take_fd(&l->ctl[0]);
    v->mon = take_fd(&l->mon[0]);
    CLEANUP(freep) char *path = path_fmt("%s/%s.serial.log", s->dir, name);
    v->log_fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    return v->log_fd < 0 ? err_sys(e, errno, "%s: serial log", name) : 0;
}

static void base_args(const struct stack *s, struct args *a, const struct lines *l,
                      const char *name)
{
    arg(a, "%s", s->env->qemu);
    arg2(a, "-name", "siofleet-%s", name);
    if (s->env->share)
        arg2(a, "-L", "%s", s->env->share);
    arg(a, "-nodefaults");
    arg(a, "-no-user-config");
    arg2(a, "-display", "none");
    arg(a, "-no-reboot");
    arg2(a, "-chardev", "socket,id=con,fd=%d", l->con[1]);
    arg2(a, "-serial", "chardev:con");
    arg2(a, "-chardev", "socket,id=ctl,fd=%d", l->ctl[1]);
    arg2(a, "-serial", "chardev:ctl");
    arg2(a, "-chardev", "socket,id=mon,fd=%d", l->mon[1]);
    arg2(a, "-mon", "chardev=mon,mode=control");
}

static bool listens(int port)
{
    CLEANUP(fclosep) FILE *f = fopen("/proc/net/tcp", "re");
    char line[256];
    while (f && fgets(line, sizeof(line), f)) {
        unsigned lport, state;
        if (sscanf(line, " %*u: %*x:%x %*x:%*x %x", &lport, &state) == 2 &&
            lport == (unsigned)port && state == 0x0a)
            return true;
    }
    return false;
}

static int free_port(void)
{
    CLEANUP(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(sa);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, n) < 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &n) < 0)
        return -errno;
    return ntohs(sa.sin_port);
}

/* iperf3's server side for one NIC, from the guest image. A port that somebody takes meanwhile is replaced. */
static int start_peer(struct stack *s, uint64_t i, struct err *e)
{
    for (int attempt = 0; attempt < 5; attempt++) {
        int port = free_port();
        if (port < 0)
            return err_sys(e, -port, "iperf3: no free port");
        struct args a = { .n = 0 };
        char name[16];
        snprintf(name, sizeof(name), "peer%" PRIu64, i + 1);
        arg(&a, "%s/host/lib/ld-linux-x86-64.so.2", s->env->image);
        arg2(&a, "--library-path", "%s/host/lib", s->env->image);
        arg(&a, "%s/host/iperf3", s->env->image);
        arg(&a, "-s");
        arg2(&a, "-B", "127.0.0.1");
        arg2(&a, "-p", "%d", port);
        struct proc *p;
        int r = spawn(s, name, &a, NULL, &p, e);
        args_clear(&a);
        if (r < 0)
            return r;
        for (int t = 0; t < 500 && !proc_ended(p); t++) {
            if (listens(port)) {
                s->ports[i] = port;
                return 0;
            }
            usleep(10000);
        }
        proc_kill(p);
        s->n_procs--;
    }
    char why[200];
    last_words(s, "peer1", why, sizeof(why));
    return err_set(e, SF_EFAILED, "iperf3 server: %s", why[0] ? why : "does not start");
}

static const char *const text_events[] = { "vtd_iotlb_page_update", "vtd_iotlb_page_hit",
                                           "vtd_iotlb_cc_update", "vtd_iotlb_cc_hit",
                                           "vtd_slpte_fetch" };

static bool has_ring(const struct collect_conf *c)
{
    /* the text tracer of the patched QEMU has one as well: it carries the snapshot request */
    return c->tracer == TRACER_RING || c->tracer == TRACER_BOTH || c->tracer == TRACER_LOG;
}

/* Both tracers are there to be compared: they see the same only from reset to the end, since two switches cannot be
 * thrown at one moment. */
static bool whole_run(const struct collect_conf *c)
{
    return c->include_boot || c->tracer == TRACER_BOTH;
}

static bool has_text(const struct collect_conf *c)
{
    return c->tracer == TRACER_LOG || c->tracer == TRACER_BOTH || c->tracer == TRACER_STOCK;
}

static void device_args(const struct stack *s, struct args *a, uint64_t i, int net_fd)
{
    const struct collect_conf *c = s->c;
    unsigned n = (unsigned)i, slot = n + 2;
    if (conf_is_disk(c->model)) {
        arg2(a, "-drive", "file=%s/disk%u.img,if=none,id=d%u,format=raw,cache=unsafe", s->dir,
             n + 1, n);
        if (strcmp(c->model, "nvme") == 0)
            arg2(a, "-device", "nvme,drive=d%u,serial=disk%u,addr=0x%x,romfile=", n, n + 1, slot);
        else
            arg2(a, "-device",
                 "virtio-blk-pci,drive=d%u,serial=disk%u,addr=0x%x,iommu_platform=on,disable-"
                 "legacy=on",
                 n, n + 1, slot);
        return;
    }
    if (net_fd >= 0)
        arg2(a, "-netdev", "stream,id=n%u,server=off,addr.type=fd,addr.str=%d", n, net_fd);
    else
        arg2(a, "-netdev", "user,id=n%u,net=10.0.%u.0/24,host=10.0.%u.2,ipv6=off", n, n + 11,
             n + 11);
    const char *model = strcmp(c->model, "virtio") == 0 ? "virtio-net-pci" : c->model;
    arg2(a, "-device", "%s,netdev=n%u,addr=0x%x,mac=52:54:00:00:01:%02x,romfile=%s", model, n, slot,
         n + 1, strcmp(c->model, "virtio") == 0 ? ",iommu_platform=on,disable-legacy=on" : "");
}

static int start_l1(struct stack *s, const int net_fds[], struct err *e)
{
    const struct collect_conf *c = s->c;
    bool nest = c->guests > 0;
    struct lines l;
    struct args a = { .n = 0 };
    int keep[4 + CONF_NICS_MAX], n_keep = 0;
    int r = make_initrd(s, "l1", nest ? "nest" : "l1", 0, s->initrd, sizeof(s->initrd), e);
    if (r < 0)
        return r;
    r = lines_open(&l, e);
    if (r == 0)
        r = vm_begin(s, &s->l1, &l, "l1", e);
    if (r < 0)
        goto out;
    base_args(s, &a, &l, "l1");
    uint64_t mib = c->memory_b >> 20;
    bool lazy = mib > 4096;
    arg2(&a, "-M", "q35,kernel-irqchip=split%s", lazy ? ",memory-backend=m0" : "");
    if (lazy)
        arg2(&a, "-object", "memory-backend-ram,id=m0,size=%" PRIu64 "M,reserve=off", mib);
    arg2(&a, "-m", "%" PRIu64 "M", mib);
    if (c->icount >= 0)
        arg2(&a, "-icount", "shift=%d,sleep=off", c->icount);
    arg2(&a, "-accel", "%s", s->env->kvm ? "kvm" : "tcg");
    arg2(&a, "-cpu", "%s%s%s", s->env->kvm ? "host" : "max", nest && !s->env->kvm ? ",npt=off" : "",
         lazy ? ",phys-bits=46" : "");
    arg2(&a, "-smp", "%" PRIu64, c->vcpus);
    if (has_ring(c))
        arg2(&a, "-device", "intel-iommu,intremap=on,caching-mode=%s,trace-ring=%d",
             c->caching_mode ? "on" : "off", s->ring.fd);
    else
        arg2(&a, "-device", "intel-iommu,intremap=on,caching-mode=%s",
             c->caching_mode ? "on" : "off");
    for (uint64_t i = 0; i < c->nics; i++)
        device_args(s, &a, i, nest ? net_fds[i] : -1);
    if (c->disk) {
        arg2(&a, "-drive", "file=%s,if=none,id=root,snapshot=on", c->disk);
        arg2(&a, "-device", "virtio-blk-pci,drive=root,addr=0x1e");
    }
    if (has_text(c)) {
        arg2(&a, "-D", "%s/run.log", s->dir);
        for (size_t i = 0; whole_run(c) && i < ARRAY_LEN(text_events); i++)
            if (c->tracer != TRACER_STOCK || strcmp(text_events[i], "vtd_slpte_fetch") != 0)
                arg2(&a, "-trace", "%s", text_events[i]);
    }
    if (c->kernel)
        arg2(&a, "-kernel", "%s", c->kernel);
    else
        arg2(&a, "-kernel", "%s/vmlinux", s->env->image);
    arg2(&a, "-initrd", "%s", s->initrd);
    char append[300];
    append_text(c, append, sizeof(append));
    arg2(&a, "-append", "%s", append);

    keep[n_keep++] = l.con[1];
    keep[n_keep++] = l.ctl[1];
    keep[n_keep++] = l.mon[1];
    if (has_ring(c))
        keep[n_keep++] = s->ring.fd;
    for (uint64_t i = 0; nest && i < c->nics && n_keep + 1 < (int)ARRAY_LEN(keep); i++)
        keep[n_keep++] = net_fds[i];
    keep[n_keep < (int)ARRAY_LEN(keep) ? n_keep : (int)ARRAY_LEN(keep) - 1] = -1;
    r = spawn(s, "l1", &a, keep, &s->l1.proc, e);
out:
    args_clear(&a);
    lines_close(&l);
    return r;
}

static int start_client(struct stack *s, uint64_t i, int net_fd, struct err *e)
{
    char name[16], initrd[PATH_MAX], append[300];
    struct lines l;
    struct args a = { .n = 0 };
    struct vm *v = &s->clients[i];
    snprintf(name, sizeof(name), "client%" PRIu64, i + 1);
    int r = make_initrd(s, name, "client", i + 1, initrd, sizeof(initrd), e);
    if (r < 0)
        return r;
    r = lines_open(&l, e);
    if (r == 0)
        r = vm_begin(s, v, &l, name, e);
    s->n_clients = i + 1;
    if (r < 0)
        goto out;
    base_args(s, &a, &l, name);
    arg2(&a, "-M", "q35");
    arg2(&a, "-accel", "%s", s->env->kvm ? "kvm" : "tcg");
    arg2(&a, "-cpu", "%s", s->env->kvm ? "host" : "max");
    arg2(&a, "-m", "160M");
    arg2(&a, "-netdev", "stream,id=n0,server=off,addr.type=fd,addr.str=%d", net_fd);
    arg2(&a, "-device",
         "virtio-net-pci,netdev=n0,mac=52:54:00:01:01:%02x,romfile=", (unsigned)i + 1);
    arg2(&a, "-kernel", "%s/vmlinux", s->env->image);
    arg2(&a, "-initrd", "%s", initrd);
    append_text(s->c, append, sizeof(append));
    arg2(&a, "-append", "%s", append);
    int keep[] = { l.con[1], l.ctl[1], l.mon[1], net_fd, -1 };
    r = spawn(s, name, &a, keep, &v->proc, e);
out:
    args_clear(&a);
    lines_close(&l);
    return r;
}

static int make_disks(struct stack *s, struct err *e)
{
    for (uint64_t i = 0; i < s->c->nics; i++) {
        CLEANUP(freep) char *path = path_fmt("%s/disk%" PRIu64 ".img", s->dir, i + 1);
        CLEANUP(closep)
        int fd = path ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644) : -1;
        uint64_t size = s->c->bytes_b > 256u * MIB ? s->c->bytes_b : 256u * MIB;
        if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
            return err_sys(e, errno, "disk %" PRIu64, i + 1);
    }
    return 0;
}

/* ---- the trace */

static void *read_ring(void *arg)
{
    struct stack *s = arg;
    for (;;) {
        /* taken before the ring is looked at: what was written until the stop is in the last round */
        int last = __atomic_load_n(&s->reader_stop, __ATOMIC_ACQUIRE);
        const struct log_event *ev;
        int64_t n;
        while ((n = ring_peek(&s->ring, &ev, &s->reader_err)) > 0) {
            if (sink_add(s->sink, ev, (size_t)n, &s->reader_err) < 0)
                return s;
            ring_release(&s->ring, (uint64_t)n);
        }
        if (n < 0)
            return s;
        if (last)
            return NULL;
        usleep(5000);
    }
}

static int set_text_events(struct stack *s, bool on, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(text_events); i++) {
        if (s->c->tracer == TRACER_STOCK && strcmp(text_events[i], "vtd_slpte_fetch") == 0)
            continue;
        int r =
            qmp_call(&s->qmp, "trace-event-set-state",
                     json_pack("{s:s, s:b}", "name", text_events[i], "enable", on), 30000, NULL, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int trace_start(struct stack *s, bool snapshot, struct err *e)
{
    const struct collect_conf *c = s->c;
    int r = 0;
    if (has_text(c) && !whole_run(c))
        r = set_text_events(s, true, e);
    if (r < 0)
        return r;
    if (c->tracer == TRACER_LOG)
        ring_enable(&s->ring, RING_ARMED, snapshot);
    if (c->tracer == TRACER_RING || c->tracer == TRACER_BOTH) {
        r = pthread_create(&s->reader, NULL, read_ring, s);
        if (r)
            return err_sys(e, r, "ring reader");
        s->reading = true;
        ring_enable(&s->ring, RING_ON, snapshot);
    }
    return 0;
}

static int trace_stop(struct stack *s, struct err *e)
{
    const struct collect_conf *c = s->c;
    if (has_ring(c) && s->ring.h)
        ring_enable(&s->ring, RING_OFF, false);
    if (s->reading) {
        void *failed;
        __atomic_store_n(&s->reader_stop, 1, __ATOMIC_RELEASE);
        pthread_join(s->reader, &failed);
        s->reading = false;
        if (failed) {
            if (e)
                *e = s->reader_err;
            return -s->reader_err.code;
        }
    }
    if (e && has_text(c))
        return set_text_events(s, false, e);
    return 0;
}

/* ---- listening to the guests */

static void enter(struct stack *s, enum phase p)
{
    const struct collect_conf *c = s->c;
    uint64_t now = clock_mono_ms(), took = now - s->phase_ms;
    uint64_t slow = (c->memory_b >> 30) * 300 + (1 + c->guests) * 30000 + c->nics * 2000;
    struct stack_phases *ph = &s->res->phases;
    static const uint64_t base_ms[] = { 60000, 60000, 60000, 60000, 30000, 0 };
    switch (p) {
    case PH_START:
        ph->boot_ms = took;
        break;
    case PH_MEASURE:
        ph->ready_ms = took;
        break;
    case PH_SEND:
        ph->measured_ms = took;
        break;
    case PH_DONE:
        ph->stop_ms += took;
        break;
    case PH_EXIT:
        ph->stop_ms = took;
        break;
    case PH_BOOT:
        break;
    }
    s->phase = p;
    s->phase_ms = now;
    s->end_ms = now + base_ms[p] + slow;
    if (p == PH_MEASURE)
        s->end_ms += c->bytes_b ? 600000 : c->duration_ms * (c->icount >= 0 ? 20 : 2);
}

/* What a Linux console says when the guest is lost. */
static bool bad_news(const char *line)
{
    static const char *const words[] = {
        "Kernel panic",        "Oops:", "BUG: ", "general protection fault", "stack end detected",
        "Unable to mount root"
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strstr(line, words[i]))
            return true;
    return false;
}

static void hear_console(struct stack *s, struct vm *v, const uint8_t *p, size_t n)
{
    if (write_all(v->log_fd, p, n) < 0) {
        /* a full disk shows up when the log itself is written; the serial log is for people */
    }
    for (size_t i = 0; i < n; i++) {
        char ch = (char)p[i];
        if (ch == '\n' || v->line.len + 1 >= LINE_MAX_B) {
            char *t = v->line.len ? (char *)v->line.data : NULL;
            if (t) {
                t[v->line.len] = 0;
                snprintf(v->last, sizeof(v->last), "%s", t);
                if (!s->trouble[0] && bad_news(t))
                    snprintf(s->trouble, sizeof(s->trouble), "%s: guest panic: %.220s",
                             v->proc->name, t);
            }
            buf_reset(&v->line);
        } else if (ch >= 0x20 && ch != 0x7f) {
            buf_add(&v->line, &ch, 1);
        }
    }
}

static int tell(struct vm *v, const char *word, struct err *e)
{
    char line[32];
    int n = snprintf(line, sizeof(line), "%s\n", word);
    if (send(v->ctl, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
        return err_set(e, EPIPE, "%s: control line: %s", v->proc->name, strerror(errno));
    return 0;
}

static bool all_ready(const struct stack *s)
{
    for (size_t i = 0; i < s->n_clients; i++)
        if (!s->clients[i].ready)
            return false;
    return s->l1.ready;
}

static int begin_file(struct stack *s, struct vm *v, const char *rest, struct err *e)
{
    char name[40];
    uint64_t size;
    if (sscanf(rest, "%39[A-Za-z0-9._-] %" SCNu64, name, &size) != 2 || name[0] == '.' ||
        size > FILE_MAX_B)
        return err_set(e, SF_EFORMAT, "%s: bad file announced: '%.80s'", v->proc->name, rest);
    snprintf(v->file_name, sizeof(v->file_name), "workload-%s", name);
    CLEANUP(freep) char *path = path_fmt("%s/%s", s->dir, v->file_name);
    v->file_fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    if (v->file_fd < 0)
        return err_sys(e, errno, "%s", v->file_name);
    v->file_left = size;
    if (!size)
        closep(&v->file_fd);
    return 0;
}

static int hear_word(struct stack *s, struct vm *v, const char *line, struct err *e)
{
    bool l1 = v == &s->l1;
    int r;
    if (strcmp(line, "BOOT") == 0) {
        if (l1 && s->phase == PH_BOOT)
            enter(s, PH_START);
    } else if (strcmp(line, "READY") == 0) {
        v->ready = true;
        if (!l1 && (r = tell(v, "GO", e)) < 0)
            return r;
        if (s->phase == PH_START && all_ready(s)) {
            r = whole_run(s->c) ? 0 : trace_start(s, true, e);
            if (r < 0)
                return r;
            enter(s, PH_MEASURE);
            return tell(&s->l1, "GO", e);
        }
    } else if (strncmp(line, "FAIL ", 5) == 0) {
        return err_set(e, SF_EFAILED, "%s: %.200s", v->proc->name, line + 5);
    } else if (l1 && strncmp(line, "END ", 4) == 0 && s->phase == PH_MEASURE) {
        s->end_status = atoi(line + 4);
        enter(s, PH_SEND);
        r = s->c->tracer == TRACER_BOTH ? 0 : trace_stop(s, e);
        return r < 0 ? r : tell(v, "OK", e);
    } else if (l1 && strncmp(line, "FILE ", 5) == 0 && s->phase == PH_SEND) {
        return begin_file(s, v, line + 5, e);
    } else if (l1 && strcmp(line, "DONE") == 0 && s->phase == PH_SEND) {
        enter(s, PH_EXIT);
        if (s->env->keep)
            log_info(
                "the guest stays up; `siofleet vm console` attaches, `siofleet vm stop` ends it");
    }
    return 0;
}

static int hear_control(struct stack *s, struct vm *v, const uint8_t *p, size_t n, struct err *e)
{
    while (n) {
        if (v->file_left) {
            size_t part = n < v->file_left ? n : (size_t)v->file_left;
            int r = write_all(v->file_fd, p, part);
            if (r < 0)
                return err_sys(e, -r, "%s", v->file_name);
            v->file_left -= part;
            p += part;
            n -= part;
            if (!v->file_left)
                closep(&v->file_fd);
            continue;
        }
        const uint8_t *nl = memchr(p, '\n', n);
        size_t part = nl ? (size_t)(nl - p) : n;
        if (buf_add(&v->words, p, part) < 0)
            return err_set(e, SF_EFORMAT, "%s: control line without an end", v->proc->name);
        p += part;
        n -= part;
        if (!nl)
            break;
        p++;
        n--;
        char line[LINE_MAX_B + 1];
        size_t len = v->words.len;
        memcpy(line, len ? (char *)v->words.data : "", len);
        while (len && line[len - 1] == '\r')
            len--;
        line[len] = 0;
        buf_reset(&v->words);
        int r = hear_word(s, v, line, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Returns 0 and closes the line at its end. */
static int hear(struct stack *s, struct vm *v, bool control, struct err *e)
{
    uint8_t b[16384];
    int *fd = control ? &v->ctl : &v->con;
    ssize_t n = recv(*fd, b, sizeof(b), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        closep(fd);
        return 0;
    }
    if (control)
        return hear_control(s, v, b, (size_t)n, e);
    hear_console(s, v, b, (size_t)n);
    if (v == &s->l1 && s->con_peer >= 0 &&
        send(s->con_peer, b, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
        closep(&s->con_peer);
    return 0;
}

/* ---- `vm console` */

static void console_open(struct stack *s)
{
    s->con_listen = s->con_peer = -1;
    if (!s->env->vm_dir)
        return;
    CLEANUP(closep) int dir = open(s->env->vm_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    /* by way of /proc: the folder's own path may be longer than a socket address */
    snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/console", dir);
    if (dir >= 0 && fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 &&
        listen(fd, 1) == 0)
        s->con_listen = take_fd(&fd);
    else
        log_warn("no console socket: %s", strerror(errno));
}

static void console_turn(struct stack *s, bool incoming, bool typed)
{
    if (incoming) {
        int fd = accept4(s->con_listen, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            closep(&s->con_peer);
            s->con_peer = fd;
        }
    }
    if (typed && s->con_peer >= 0) {
        char b[512];
        ssize_t n = recv(s->con_peer, b, sizeof(b), MSG_DONTWAIT);
        if (n > 0 && s->l1.con >= 0)
            (void)!send(s->l1.con, b, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
        else if (n == 0)
            closep(&s->con_peer);
    }
}

/* ---- the loop */

static int died(struct stack *s, const struct proc *p, struct err *e)
{
    char why[200];
    last_words(s, p->name, why, sizeof(why));
    if (s->trouble[0])
        return err_set(e, SF_EFAILED, "%s", s->trouble);
    if (WIFSIGNALED(p->status))
        return err_set(e, SF_EFAILED, "%s: QEMU was killed by signal %d during %s", p->name,
                       WTERMSIG(p->status), phase_names[s->phase]);
    return err_set(e, SF_EFAILED, "%s: QEMU ended with status %d during %s%s%s", p->name,
                   WEXITSTATUS(p->status), phase_names[s->phase],
                   why[0] || s->l1.last[0] ? ": " : "", why[0] ? why : s->l1.last);
}

static int watch(struct stack *s, struct err *e)
{
    uint64_t now = clock_mono_ms();
    if (s->trouble[0])
        return err_set(e, SF_EFAILED, "%s", s->trouble);
    for (size_t i = 0; i < s->n_procs; i++) {
        struct proc *p = &s->procs[i];
        if (!proc_ended(p))
            continue;
        if (p == s->l1.proc && s->phase == PH_EXIT) {
            enter(s, PH_DONE);
            return 0;
        }
        /* the line may still hold the guest's last words: let them be read first */
        if (p == s->l1.proc && (s->l1.con >= 0 || s->l1.ctl >= 0))
            continue;
        if (s->phase < PH_EXIT)
            return died(s, p, e);
    }
    if (s->env->keep && s->phase == PH_EXIT)
        return 0;
    if (now > s->end_ms) {
        if (s->phase ==
            PH_EXIT) { /* everything is here; a guest that does not power off is put down */
            enter(s, PH_DONE);
            return 0;
        }
        return err_set(e, ETIMEDOUT,
                       "l1: guest silent: no end of the %s in %" PRIu64 " s; last line: %s",
                       phase_names[s->phase], (now - s->phase_ms) / 1000,
                       s->l1.last[0] ? s->l1.last : "(none)");
    }
    if (s->c->timeout_ms && now - s->start_ms > s->c->timeout_ms)
        return err_set(e, ETIMEDOUT, "run: over its timeout of %" PRIu64 " ms during the %s",
                       s->c->timeout_ms, phase_names[s->phase]);
    /* a KVM guest that the host cannot run stops in a state of its own; TCG has no such state */
    if (s->env->kvm && now - s->last_status_ms > 2000 && s->phase < PH_EXIT) {
        CLEANUP(json_decrefp) json_t *st = NULL;
        s->last_status_ms = now;
        if (qmp_call(&s->qmp, "query-status", NULL, 10000, &st, e) == 0) {
            const char *w = json_string_value(json_object_get(st, "status"));
            if (w && (strcmp(w, "internal-error") == 0 || strcmp(w, "guest-panicked") == 0))
                return err_set(e, SF_EFAILED, "l1: QEMU reports '%s'", w);
        }
    }
    return 0;
}

static int loop(struct stack *s, struct err *e)
{
    while (s->phase != PH_DONE) {
        struct pollfd p[4 + 2 * CONF_GUESTS_MAX];
        struct vm *who[ARRAY_LEN(p)];
        nfds_t n = 0;
        for (size_t i = 0; i <= s->n_clients; i++) {
            struct vm *v = i ? &s->clients[i - 1] : &s->l1;
            who[n] = v;
            p[n++] = (struct pollfd){ .fd = v->con, .events = POLLIN };
            who[n] = v;
            p[n++] = (struct pollfd){ .fd = v->ctl, .events = POLLIN };
        }
        nfds_t guests = n;
        p[n++] = (struct pollfd){ .fd = s->con_listen, .events = POLLIN };
        p[n++] = (struct pollfd){ .fd = s->con_peer, .events = POLLIN };
        if (poll(p, n, 100) < 0 && errno != EINTR)
            return err_sys(e, errno, "poll");
        if (*s->env->stop) {
            if (s->env->keep && s->phase == PH_EXIT) {
                enter(s, PH_DONE);
                return 0;
            }
            return err_set(e, ECANCELED, "run: cancelled during the %s", phase_names[s->phase]);
        }
        for (nfds_t i = 0; i < guests; i++)
            if (p[i].revents) {
                int r = hear(s, who[i], i % 2, e);
                if (r < 0)
                    return r;
            }
        console_turn(s, p[guests].revents != 0, p[guests + 1].revents != 0);
        int r = watch(s, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- taking home */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* workload-NAME.exit of each device gives one entry; the result beside it is its path. */
static int take_workload(struct stack *s, struct err *e)
{
    struct stack_result *res = s->res;
    const char *names[CONF_NICS_MAX + 1];
    char text[CONF_NICS_MAX + 1][16];
    size_t n = 0;
    if (s->c->kind == WORK_SCRIPT)
        names[n++] = "script";
    for (uint64_t i = 0; i < s->c->nics && s->c->kind != WORK_SCRIPT; i++) {
        snprintf(text[n], sizeof(text[n]), "%s%" PRIu64, s->c->kind == WORK_DISK ? "disk" : "nic",
                 i + 1);
        names[n] = text[n];
        n++;
    }
    (void)by_name;
    for (size_t i = 0; i < n; i++) {
        static const char *const ends[] = { "json", "txt", "err" };
        CLEANUP(freep) char *exit_path = path_fmt("%s/workload-%s.exit", s->dir, names[i]);
        CLEANUP(buf_clear) struct buf b = BUF_INIT(64);
        long status = -1;
        if (exit_path && file_read(exit_path, &b, NULL) == 0 && b.len) {
            status = strtol((char *)b.data, NULL, 10);
            unlink(exit_path);
        }
        char found[40] = "";
        for (size_t k = 0; k < ARRAY_LEN(ends) && !found[0]; k++) {
            char f[40];
            snprintf(f, sizeof(f), "workload-%s.%s", names[i], ends[k]);
            CLEANUP(freep) char *path = path_fmt("%s/%s", s->dir, f);
            if (path && access(path, R_OK) == 0)
                snprintf(found, sizeof(found), "%s", f);
        }
        if (status != 0)
            res->workload_failed = true;
        json_array_append_new(res->workload,
                              json_pack("{s:s, s:o, s:o}", "name", names[i], "exit",
                                        status < 0 ? json_null() : json_integer(status), "path",
                                        found[0] ? json_string(found) : json_null()));
    }
    (void)e;
    return 0;
}

static int take_log(struct stack *s, struct err *e)
{
    struct stack_result *res = s->res;
    if (s->sink) {
        struct sink_result sr;
        res->dropped = ring_dropped(&s->ring);
        int r = sink_end(s->sink, res->dropped, &sr, e);
        s->sink = NULL;
        if (r < 0)
            return r;
        res->log_id = sr.id;
        res->log_bytes = sr.bytes;
        res->events = sr.events;
        res->devices = sr.devices;
        snprintf(res->log_name, sizeof(res->log_name), "log.slog");
        if (res->dropped && !s->c->allow_drops)
            return err_set(e, SF_EFAILED,
                           "trace ring: %" PRIu64
                           " events dropped (allow_drops = yes keeps such a log)",
                           res->dropped);
    }
    if (has_text(s->c)) {
        CLEANUP(freep) char *path = path_fmt("%s/run.log", s->dir);
        if (!path)
            return err_set(e, ENOMEM, "run.log");
        struct sink_result sr;
        int r = sink_text(path, &sr, e);
        if (r < 0)
            return r;
        if (s->c->tracer != TRACER_BOTH) {
            res->log_id = sr.id;
            res->log_bytes = sr.bytes;
            res->events = sr.events;
            res->devices = sr.devices;
            snprintf(res->log_name, sizeof(res->log_name), "run.log");
        }
    }
    if (s->c->tracer != TRACER_OFF && !res->events)
        return err_set(e, SF_EFAILED,
                       "trace: no event in the measured phase; is the guest's IOMMU on?");
    return 0;
}

static void vm_clear(struct vm *v)
{
    closep(&v->con);
    closep(&v->ctl);
    closep(&v->mon);
    closep(&v->file_fd);
    closep(&v->log_fd);
    buf_clear(&v->line);
    buf_clear(&v->words);
}

static int start(struct stack *s, struct err *e)
{
    const struct collect_conf *c = s->c;
    int nets[CONF_GUESTS_MAX][2], mine[CONF_GUESTS_MAX], r = 0;
    for (size_t i = 0; i < CONF_GUESTS_MAX; i++)
        nets[i][0] = nets[i][1] = -1;
    if (has_ring(c)) {
        r = ring_new(&s->ring, RING_RECORDS, e);
        if (r < 0)
            return r;
        if (c->tracer != TRACER_LOG) {
            CLEANUP(freep) char *path = path_fmt("%s/log.slog", s->dir);
            r = path ? sink_new(path, &s->sink, e) : err_set(e, ENOMEM, "log");
            if (r < 0)
                return r;
        }
    }
    if (c->kind == WORK_DISK)
        r = make_disks(s, e);
    if (r == 0 && c->guests) {
        for (uint64_t i = 0; r == 0 && i < c->guests; i++) {
            if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, nets[i]) < 0)
                r = err_sys(e, errno, "socketpair");
            mine[i] = nets[i][0];
            if (r == 0)
                r = start_client(s, i, nets[i][1], e);
        }
    } else if (r == 0 && c->kind == WORK_IPERF3) {
        for (uint64_t i = 0; r == 0 && i < c->nics; i++)
            r = start_peer(s, i, e);
    }
    if (r == 0 && whole_run(c))
        r = trace_start(s, false, e);
    if (r == 0)
        r = start_l1(s, mine, e);
    for (size_t i = 0; i < CONF_GUESTS_MAX; i++) {
        closep(&nets[i][0]);
        closep(&nets[i][1]);
    }
    if (r < 0)
        return r;
    qmp_init(&s->qmp, s->l1.mon);
    r = qmp_hello(&s->qmp, 30000, e);
    if (r < 0) {
        /* gone at once: its own message says more than the closed line */
        for (int t = 0; t < 100 && !proc_ended(s->l1.proc); t++)
            usleep(10000);
        return s->l1.proc->ended ? died(s, s->l1.proc, e) : r;
    }
    return 0;
}

int stack_run(const struct collect_conf *c, const struct stack_env *env, const char *dir,
              struct stack_result *ret, struct err *e)
{
    *ret = (struct stack_result){ .workload = json_array(), .commands = json_object() };
    CLEANUP(freep) struct stack *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(e, ENOMEM, "run");
    s->c = c;
    s->env = env;
    s->dir = dir;
    s->res = ret;
    s->ring.fd = -1;
    for (size_t i = 0; i <= CONF_GUESTS_MAX; i++) {
        struct vm *v = i ? &s->clients[i - 1] : &s->l1;
        v->con = v->ctl = v->mon = v->file_fd = v->log_fd = -1;
    }
    console_open(s);
    s->start_ms = s->phase_ms = clock_mono_ms();
    enter(s, PH_BOOT);
    s->phase_ms = s->start_ms;

    int r = start(s, e);
    if (r == 0)
        r = loop(s, e);
    int stopped = trace_stop(s, NULL);
    for (size_t i = s->n_procs; i-- > 0;)
        proc_kill(&s->procs[i]);
    (void)stopped;
    if (r == 0)
        r = take_log(s, e);
    if (r == 0)
        r = take_workload(s, e);
    if (r == 0 && (ret->workload_failed || s->end_status))
        r = err_set(e, SF_EFAILED, "workload: at least one part failed in the guest; last line: %s",
                    s->l1.last[0] ? s->l1.last : "(none)");

    sink_abort(&s->sink);
    qmp_clear(&s->qmp);
    ring_clear(&s->ring);
    closep(&s->con_listen);
    closep(&s->con_peer);
    vm_clear(&s->l1);
    for (size_t i = 0; i < s->n_clients; i++)
        vm_clear(&s->clients[i]);
    /* what only the run needed */
    if (s->initrd[0])
        unlink(s->initrd);
    for (size_t i = 0; i < s->n_clients; i++) {
        CLEANUP(freep) char *p = path_fmt("%s/client%zu.cpio", dir, i + 1);
        if (p)
            unlink(p);
    }
    for (uint64_t i = 0; c->kind == WORK_DISK && i < c->nics; i++) {
        CLEANUP(freep) char *p = path_fmt("%s/disk%" PRIu64 ".img", dir, i + 1);
        if (p)
            unlink(p);
    }
    return r;
}

void stack_result_clear(struct stack_result *r)
{
    json_decref(r->workload);
    json_decref(r->commands);
    *r = (struct stack_result){ 0 };
}

uint64_t stack_memory(const struct collect_conf *c, char *why, size_t room)
{
    uint64_t mib = c->memory_b / MIB;
    uint64_t array = mib * 18 / 1000; /* the guest's page array, 1.6 %, and its page tables */
    uint64_t base = 300 + c->nics * 8;
    uint64_t nested = c->guests ? 700 + c->guests * (300 + 200) : 0;
    uint64_t all = base + array + nested;
    if (!c->guests && mib < 2048 && all > mib + 200)
        all = mib + 200;
    snprintf(why, room,
             "%" PRIu64 " MiB (%" PRIu64 " for QEMU and guest, %" PRIu64
             " for the page array of a %" PRIu64 " MiB guest, %" PRIu64 " for L2s and clients)",
             all, base, array, mib, nested);
    return all * MIB;
}
