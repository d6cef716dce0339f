#include "collect/text.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/zio.h"

enum { LEVEL = 9, READ_B = 256 << 10, LINE_B = 4096, FREE_B = 4 << 20 };

struct text {
    char *path, *packed;
    int fd; /* -1 = QEMU has not made it yet */
    struct zio_out *out;
    uint64_t read_b, freed_b;
    bool unfreeable; /* the file system makes no holes */
    struct sink_result res;
    uint8_t seen[SINK_SEEN_B];
    size_t line_len;
    char line[LINE_B + 1],
        buf[READ_B]; /* line: the one that is not whole; what is longer is not looked at */
};

int text_new(const char *path, const char *growing, struct text **ret, struct err *e)
{
    CLEANUP(text_abort) struct text *t = calloc(1, sizeof(*t));
    if (!t)
        return err_sys(e, ENOMEM, "%s", path);
    t->fd = -1;
    t->path = strdup(path);
    t->packed = path_fmt("%s.zst", path);
    if (!t->path || !t->packed)
        return err_sys(e, ENOMEM, "%s", path);
    int r = zio_create(t->packed, LEVEL, &t->out, e);
    if (r < 0)
        return r;
    if (growing) {
        unlink(growing);
        if (link(t->packed, growing) < 0)
            return err_sys(e, errno, "%s", growing);
    }
    *ret = TAKE(t);
    return 0;
}

static void count(struct text *t)
{
    t->line[t->line_len] = 0;
    if (t->line_len && strstr(t->line, "vtd_")) {
        char *sid = strstr(t->line, "sid 0x");
        t->res.events++;
        if (sid)
            sink_see(t->seen, &t->res.devices, (uint16_t)strtoul(sid + 4, NULL, 16));
    }
    t->line_len = 0;
}

static void take_lines(struct text *t, const char *p, size_t n)
{
    while (n) {
        const char *nl = memchr(p, '\n', n);
        size_t part = nl ? (size_t)(nl - p) : n, room = LINE_B - t->line_len;
        size_t kept = part < room ? part : room;
        memcpy(t->line + t->line_len, p, kept);
        t->line_len += kept;
        if (nl)
            count(t);
        part += nl != NULL;
        p += part;
        n -= part;
    }
}

static void free_read(struct text *t)
{
    uint64_t to = t->read_b / FREE_B * FREE_B;
    if (t->unfreeable || to <= t->freed_b)
        return;
    if (fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)t->freed_b,
                  (off_t)(to - t->freed_b)) < 0)
        t->unfreeable = true;
    t->freed_b = to;
}

int text_pump(struct text *t, struct err *e)
{
    if (t->fd < 0)
        t->fd = open(t->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (t->fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "%s", t->path);
    for (;;) {
        ssize_t n = pread_full(t->fd, t->buf, READ_B, (off_t)t->read_b);
        if (n <= 0)
            return n < 0 ? err_sys(e, (int)-n, "%s", t->path) : 0;
        int r = zio_write(t->out, t->buf, (size_t)n, e);
        if (r < 0)
            return r;
        take_lines(t, t->buf, (size_t)n);
        t->read_b += (uint64_t)n;
        free_read(t);
    }
}

static void text_free(struct text *t)
{
    closep(&t->fd);
    free(t->path);
    free(t->packed);
    free(t);
}

int text_end(struct text **tp, struct sink_result *ret, struct err *e)
{
    struct text *t = *tp;
    int r = text_pump(t, e);
    if (r == 0 && t->fd < 0)
        r = err_sys(e, ENOENT, "%s", t->path);
    if (r == 0) {
        count(t);
        r = zio_end(&t->out, &t->res.id, &t->res.bytes, e);
    }
    if (r < 0) {
        text_abort(tp);
        return r;
    }
    unlink(t->path);
    *ret = t->res;
    text_free(t);
    *tp = NULL;
    return 0;
}

void text_abort(struct text **tp)
{
    struct text *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    zio_abort(&t->out);
    text_free(t);
}
