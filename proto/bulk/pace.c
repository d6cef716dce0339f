#include "proto/bulk/pace.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

uint64_t pace_rate_take(struct pace_rate *r, size_t n, uint64_t now_ns)
{
    uint64_t wait = 0;
    for (; r; r = r->above) {
        uint64_t rate = atomic_load(&r->rate_b);
        if (!rate)
            continue;
        pthread_mutex_lock(&r->lock);
        if (r->free_ns < now_ns)
            r->free_ns = now_ns;
        r->free_ns += (uint64_t)((double)n * 1e9 / (double)rate);
        if (wait < r->free_ns - now_ns)
            wait = r->free_ns - now_ns;
        pthread_mutex_unlock(&r->lock);
    }
    return wait;
}

size_t pace_rate_piece(const struct pace_rate *r, size_t most)
{
    for (; r; r = r->above) {
        uint64_t rate = atomic_load(&r->rate_b), n = rate / 20;
        if (rate && n < most)
            most = n < 1024 ? 1024 : (size_t)n;
    }
    return most;
}

void pace_init(struct pace *p)
{
    *p = (struct pace){ .limit_b = UINT64_C(256) << 10 };
}

static void look(struct pace *p, int fd)
{
    struct tcp_info ti;
    socklen_t n = sizeof(ti);
    memset(&ti, 0, sizeof(ti));
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &n) < 0 || !ti.tcpi_delivery_rate)
        return;
    p->rate_b = ti.tcpi_delivery_rate;
    double ms = (double)ti.tcpi_min_rtt / 1000 + PACE_QUEUE_MS;
    p->limit_b = (uint64_t)((double)p->rate_b * ms / 1000);
    if (p->limit_b < PACE_MIN_B)
        p->limit_b = PACE_MIN_B;
}

size_t pace_room(struct pace *p, int fd, size_t n, uint64_t now_ns, uint64_t *ret_wait_ns)
{
    int queued = 0;
    if (now_ns >= p->look_ns) {
        look(p, fd);
        p->look_ns = now_ns + PACE_LOOK_NS;
    }
    if (ioctl(fd, SIOCOUTQ, &queued) < 0 || queued < 0)
        return n; /* the write will say what is wrong */
    uint64_t room = (uint64_t)queued < p->limit_b ? p->limit_b - (uint64_t)queued : 0;
    /* a quarter at least, or the pieces would be small and the wakes many */
    uint64_t need = n < p->limit_b / 4 ? n : p->limit_b / 4;
    if (room >= need)
        return room < n ? (size_t)room : n;
    uint64_t rate = p->rate_b ? p->rate_b : PACE_MIN_B;
    uint64_t wait = (need - room) * 1000 * 1000 * 1000 / rate;
    *ret_wait_ns = wait < 200 * 1000         ? 200 * 1000
                   : wait > 50 * 1000 * 1000 ? 50 * 1000 * 1000
                                             : wait;
    return 0;
}
