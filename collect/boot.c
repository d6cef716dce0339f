/* Command lines and files of the guests. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "collect/cpio.h"
#include "collect/net.h"
#include "collect/ssh.h"
#include "collect/stack_int.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

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
    conf_num(b, &r, "BLOCK", c->block_b);
    conf_add(b, &r, "PATTERN", c->random ? "rand" : "seq");
    conf_add(b, &r, "KEEP", s->env->keep ? "yes" : "no");
    conf_add(b, &r, "THP", c->thp ? "yes" : "no");
    conf_add(b, &r, "DISK", s->env->disk ? "yes" : "no");
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
    if (r == 0 && s->ssh_port) {
        CLEANUP(buf_clear) struct buf host = BUF_INIT(CONF_MAX), pub = BUF_INIT(CONF_MAX);
        r = ssh_guest_files(s->env->vm_dir, &host, &pub, e);
        if (r < 0)
            return r;
        r = cpio_add(&all, ino++, "host_key", 0100600, host.data, host.len);
        r = r ? r : cpio_add(&all, ino++, "authorized_keys", 0100600, pub.data, pub.len);
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

static int free_port(struct in_addr a)
{
    CLEANUP(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = a };
    socklen_t n = sizeof(sa);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, n) < 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &n) < 0)
        return -errno;
    return ntohs(sa.sin_port);
}

int start_peer(struct stack *s, uint64_t i, struct err *e)
{
    struct in_addr on = { htonl(INADDR_LOOPBACK) };
    if (s->c->tap)
        on = net_host_addr((unsigned)i);
    for (int attempt = 0; attempt < 5; attempt++) {
        int port = free_port(on);
        if (port < 0)
            return err_sys(e, -port, "iperf3: no free port");
        struct args a = { .n = 0 };
        char name[16];
        snprintf(name, sizeof(name), "peer%" PRIu64, i + 1);
        arg(&a, "%s/host/lib/ld-linux-x86-64.so.2", s->env->image);
        arg2(&a, "--library-path", "%s/host/lib", s->env->image);
        arg(&a, "%s/host/iperf3", s->env->image);
        arg(&a, "-s");
        arg2(&a, "-B", "%s", inet_ntoa(on));
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
    if (c->tap)
        arg2(a, "-netdev", "tap,id=n%u,fd=%d%s", n, net_fd, s->vhost ? ",vhost=on" : "");
    else if (net_fd >= 0)
        arg2(a, "-netdev", "stream,id=n%u,server=off,addr.type=fd,addr.str=%d", n, net_fd);
    else
        arg2(a, "-netdev", "user,id=n%u,net=10.0.%u.0/24,host=10.0.%u.2,ipv6=off", n, n + 11,
             n + 11);
    bool virtio = strcmp(c->model, "virtio") == 0;
    char place[32];
    snprintf(place, sizeof(place), "addr=0x%x", slot);
    if (c->ats) { /* a PCI Express capability, which devices on the root bus lack */
        arg2(a, "-device", "pcie-root-port,id=rp%u,chassis=%u,addr=0x%x", n, n + 1, slot);
        snprintf(place, sizeof(place), "bus=rp%u,addr=0x0", n);
    }
    arg2(a, "-device", "%s,netdev=n%u,%s,mac=52:54:00:00:01:%02x,romfile=%s%s",
         virtio ? "virtio-net-pci" : c->model, n, place, n + 1,
         virtio ? ",iommu_platform=on,disable-legacy=on" : "", c->ats ? ",ats=on" : "");
}

/* Keys and port for `vm ssh`. A port that somebody takes before QEMU has it costs this attempt. */
static int way_in(struct stack *s, struct err *e)
{
    int r = ssh_keys(s->env->vm_dir, e);
    if (r == -SF_EFAILED) { /* a convenience: the run itself needs no openssh-client */
        log_warn("no vm ssh into this run: %s", e->text);
        return 0;
    }
    if (r < 0)
        return r;
    r = free_port((struct in_addr){ htonl(INADDR_LOOPBACK) });
    if (r < 0)
        return err_sys(e, -r, "ssh: no free port");
    s->ssh_port = r;
    return ssh_note(s->env->vm_dir, r, e);
}

int start_l1(struct stack *s, const int net_fds[], struct err *e)
{
    const struct collect_conf *c = s->c;
    bool nest = c->guests > 0;
    struct lines l;
    struct args a = { .n = 0 };
    int keep[4 + CONF_NICS_MAX + 1], n_keep = 0;
    int r = s->env->ssh ? way_in(s, e) : 0;
    if (r < 0)
        return r;
    r = make_initrd(s, "l1", nest ? "nest" : "l1", 0, s->initrd, sizeof(s->initrd), e);
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
    char ring[32] = "";
    if (has_ring(c))
        snprintf(ring, sizeof(ring), ",trace-ring=%d", s->ring.fd);
    arg2(&a, "-device", "intel-iommu,intremap=on,caching-mode=%s%s%s",
         c->caching_mode ? "on" : "off", c->ats ? ",device-iotlb=on" : "", ring);
    for (uint64_t i = 0; i < c->nics; i++)
        device_args(s, &a, i, net_fds[i]);
    if (s->env->disk) {
        /* without iommu_platform: neither the disk nor the way in passes the IOMMU, so the log does not show them */
        arg2(&a, "-drive", "file=%s,if=none,id=root,snapshot=on", s->env->disk);
        arg2(&a, "-device", "virtio-blk-pci,drive=root,serial=siofleet,addr=0x1e");
    }
    if (s->ssh_port) {
        arg2(&a, "-netdev",
             "user,id=way,net=10.1.0.0/24,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:%d-:22",
             s->ssh_port);
        arg2(&a, "-device", "virtio-net-pci,netdev=way,addr=0x1d,mac=52:54:00:02:01:01,romfile=");
    }
    if (has_text(c)) {
        arg2(&a, "-D", "%s/run.log", s->dir);
        for (size_t i = 0; whole_run(c) && text_events[i]; i++)
            if (has_event(c, text_events[i]))
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
    for (uint64_t i = 0; i < c->nics; i++)
        if (net_fds[i] >= 0)
            keep[n_keep++] = net_fds[i];
    keep[n_keep] = -1;
    r = spawn(s, "l1", &a, keep, &s->l1.proc, e);
out:
    args_clear(&a);
    lines_close(&l);
    return r;
}

int start_client(struct stack *s, uint64_t i, int net_fd, struct err *e)
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
    arg2(&a, "-netdev",
         s->c->tap ? "tap,id=n0,fd=%d" : "stream,id=n0,server=off,addr.type=fd,addr.str=%d",
         net_fd);
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

int make_disks(struct stack *s, struct err *e)
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
