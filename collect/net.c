#include "collect/net.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"

#define BRIDGE_MARK "sf"

/* "sf", six digits of the stack's id, a letter, the card */
static void link_name(const char *vm_dir, char kind, unsigned i, char out[IFNAMSIZ])
{
    const char *base = strrchr(vm_dir, '/');
    snprintf(out, IFNAMSIZ, BRIDGE_MARK "%.6s%c%02u", base ? base + 1 : vm_dir, kind, i % 100);
}

static int control(void)
{
    return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static int refused(struct err *e, const char *name)
{
    int code = errno;
    if (code == EPERM || code == EACCES)
        return err_set(e, code,
                       "net = tap: %s: %s; it needs CAP_NET_ADMIN: root, or a network namespace of "
                       "your own (unshare -rn)",
                       name, strerror(code));
    return err_sys(e, code, "net = tap: %s", name);
}

/* Guests' traffic is what a run traces: the host's own IPv6 chatter stays out. */
static void no_ipv6(const char *name)
{
    char path[80];
    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    CLEANUP(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "1", 1) != 1) {
        /* a read-only /proc: a few more packets, nothing worse */
    }
}

static int link_up(int s, const char *name, bool up, struct err *e)
{
    struct ifreq r = { 0 };
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    if (ioctl(s, SIOCGIFFLAGS, &r) < 0)
        return refused(e, name);
    r.ifr_flags = (short)(up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
    return ioctl(s, SIOCSIFFLAGS, &r) < 0 ? refused(e, name) : 0;
}

static int tap_new(const char *name, bool vnet_hdr, int *ret, struct err *e)
{
    CLEANUP(closep) int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return refused(e, "/dev/net/tun");
    struct ifreq r = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (vnet_hdr ? IFF_VNET_HDR : 0)) };
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &r) < 0)
        return refused(e, name);
    no_ipv6(name);
    *ret = take_fd(&fd);
    return 0;
}

static uint64_t own_ns(void)
{
    struct stat st;
    return stat("/proc/self/ns/net", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static int note(const char *vm_dir, const char *name, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/net", vm_dir);
    CLEANUP(fclosep) FILE *f = path ? fopen(path, "ae") : NULL;
    if (!f || fprintf(f, "%" PRIu64 " %s\n", own_ns(), name) < 0 || fflush(f) != 0)
        return err_sys(e, path ? errno : ENOMEM, "net = tap: %s", path ? path : "note");
    return 0;
}

int net_pair(const char *vm_dir, unsigned i, bool vnet_hdr, int fds[2], struct err *e)
{
    char bridge[IFNAMSIZ], name[IFNAMSIZ];
    CLEANUP(closep) int s = control();
    if (s < 0)
        return err_sys(e, errno, "net = tap");
    link_name(vm_dir, 'b', i, bridge);
    int r = note(vm_dir, bridge, e);
    if (r < 0)
        return r;
    if (ioctl(s, SIOCBRADDBR, bridge) < 0)
        return refused(e, bridge);
    no_ipv6(bridge);
    for (int k = 0; k < 2; k++) {
        link_name(vm_dir, k ? 'c' : 't', i, name);
        r = tap_new(name, k == 0 && vnet_hdr, &fds[k], e);
        if (r < 0)
            return r;
        struct ifreq b = { 0 };
        snprintf(b.ifr_name, sizeof(b.ifr_name), "%s", bridge);
        b.ifr_ifindex = (int)if_nametoindex(name);
        if (ioctl(s, SIOCBRADDIF, &b) < 0)
            return refused(e, name);
        r = link_up(s, name, true, e);
        if (r < 0)
            return r;
    }
    return link_up(s, bridge, true, e);
}

struct in_addr net_host_addr(unsigned i)
{
    return (struct in_addr){ htonl(0x0a000002u | (11u + i) << 8) };
}

static bool have_address(struct in_addr a)
{
    CLEANUP(closep) int s = control();
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = a };
    return s >= 0 && bind(s, (struct sockaddr *)&sa, sizeof(sa)) == 0;
}

int net_host(const char *vm_dir, unsigned i, bool vnet_hdr, int *fd, struct err *e)
{
    char name[IFNAMSIZ];
    struct in_addr a = net_host_addr(i);
    CLEANUP(closep) int s = control();
    if (s < 0)
        return err_sys(e, errno, "net = tap");
    if (have_address(a))
        return err_set(e, EADDRINUSE,
                       "net = tap: %s is an address of this network namespace already; one such "
                       "stack at a time",
                       inet_ntoa(a));
    link_name(vm_dir, 't', i, name);
    int r = tap_new(name, vnet_hdr, fd, e);
    if (r < 0)
        return r;
    struct ifreq q = { 0 };
    snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", name);
    struct sockaddr_in *sa = (struct sockaddr_in *)&q.ifr_addr;
    *sa = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr = a };
    if (ioctl(s, SIOCSIFADDR, &q) < 0)
        return refused(e, name);
    sa->sin_addr.s_addr = htonl(0xffffff00u);
    if (ioctl(s, SIOCSIFNETMASK, &q) < 0)
        return refused(e, name);
    return link_up(s, name, true, e);
}

/* ---- removing */

/* Whether some process or a name below /run/netns still holds the namespace. */
static bool ns_lives(uint64_t ino)
{
    static const char *const places[] = { "/proc", "/run/netns" };
    for (size_t k = 0; k < ARRAY_LEN(places); k++) {
        DIR *d = opendir(places[k]);
        struct dirent *de;
        bool found = false;
        while (d && !found && (de = readdir(d))) {
            char path[320];
            struct stat st;
            if (de->d_name[0] == '.')
                continue;
            snprintf(path, sizeof(path), k ? "%s/%s" : "%s/%s/ns/net", places[k], de->d_name);
            found = stat(path, &st) == 0 && (uint64_t)st.st_ino == ino;
        }
        if (d)
            closedir(d);
        if (found)
            return true;
    }
    return false;
}

bool net_sweep(const char *vm_dir)
{
    CLEANUP(freep) char *path = path_fmt("%s/net", vm_dir);
    CLEANUP(fclosep) FILE *f = path ? fopen(path, "re") : NULL;
    CLEANUP(closep) int s = control();
    uint64_t ns, own = own_ns();
    char name[IFNAMSIZ];
    bool all = true;
    /* IFNAMSIZ is 16 */
    while (f && fscanf(f, "%" SCNu64 " %15s", &ns, name) == 2) {
        if (strncmp(name, BRIDGE_MARK, strlen(BRIDGE_MARK)) != 0)
            continue;
        if (ns != own) {
            all = all && !ns_lives(ns);
            continue;
        }
        if (if_nametoindex(name) && s >= 0) {
            link_up(s, name, false, NULL);
            all = ioctl(s, SIOCBRDELBR, name) == 0 && all;
        }
    }
    return all;
}
