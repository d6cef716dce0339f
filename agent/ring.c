#include "agent/ring.h"

#include <fcntl.h>
#include <string.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/err.h"
#include "proto/base/file.h"

struct ring {
    uint64_t head, tail, total;
};

static int ring_open(const char *path, int *ret_fd, struct ring *r, struct err *e)
{
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_sys(e, errno, "%s", path);
    char text[RING_HEADER + 1] = "";
    ssize_t n = pread_full(fd, text, RING_HEADER, 0);
    if (n < 0)
        return err_sys(e, (int)-n, "%s", path);
    if (n != RING_HEADER || text[RING_HEADER - 1] != '\n' ||
        sscanf(text, "siofleet-ring 1 %20" SCNu64 " %20" SCNu64 " %20" SCNu64, &r->head, &r->tail,
               &r->total) != 3 ||
        r->tail == 0 || r->tail > 1u << 30 || r->head > 1u << 30)
        return err_set(e, SF_EFORMAT, "%s: not a log ring", path);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* Part of the stream that lies in one piece in the file, up to n bytes. A hole or a short file ends
 * it. */
static int ring_piece(int fd, const struct ring *r, uint64_t from, uint64_t *n, struct buf *out)
{
    uint64_t at, room;
    if (from < r->head) {
        at = from;
        room = r->head - from;
    } else {
        uint64_t in = (from - r->head) % r->tail;
        at = r->head + in;
        room = r->tail - in;
    }
    if (*n > room)
        *n = room;
    uint8_t *p = buf_reserve(out, (size_t)*n);
    if (!p)
        return -EMSGSIZE;
    ssize_t got = pread_full(fd, p, (size_t)*n, (off_t)(RING_HEADER + at));
    if (got < 0)
        return (int)got;
    *n = (uint64_t)got;
    out->len += (size_t)got;
    out->data[out->len] = 0;
    return 0;
}

int ring_read(const char *path, uint64_t from, uint64_t max_b, struct buf *out, uint64_t *ret_next,
              struct err *e)
{
    CLEANUP(closep) int fd = -1;
    struct ring r;
    int rc = ring_open(path, &fd, &r, e);
    if (rc < 0)
        return rc;
    uint64_t oldest = r.total > r.head + r.tail ? r.total - r.tail : r.head;
    while (from < r.total && max_b) {
        if (from >= r.head && from < oldest)
            from = oldest;
        uint64_t n = r.total - from < max_b ? r.total - from : max_b;
        rc = ring_piece(fd, &r, from, &n, out);
        if (rc < 0)
            return err_sys(e, -rc, "%s", path);
        if (n == 0)
            break;
        from += n;
        max_b -= n;
    }
    if (ret_next)
        *ret_next = from;
    return 0;
}

int ring_tail(const char *path, uint64_t max_b, struct buf *out, struct err *e)
{
    CLEANUP(closep) int fd = -1;
    struct ring r;
    int rc = ring_open(path, &fd, &r, e);
    if (rc < 0)
        return rc;
    size_t before = out->len;
    uint64_t from = r.total > max_b ? r.total - max_b : 0;
    rc = ring_read(path, from, max_b, out, NULL, e);
    if (rc < 0 || from == 0)
        return rc;
    uint8_t *line = memchr(out->data + before, '\n', out->len - before);
    if (line && line + 1 < out->data + out->len) {
        size_t cut = (size_t)(line + 1 - (out->data + before));
        memmove(out->data + before, line + 1, out->len - before - cut + 1);
        out->len -= cut;
    }
    return 0;
}
