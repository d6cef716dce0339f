#include "agent/spool.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/json.h"

enum {
    SUM = 8,
    HEAD = 4 + SUM,
    FIXED = 8 + ID_LEN + 1 + 8 + 2 + 2,
    BODY_MAX = FIXED + SPOOL_ERROR_MAX + SPOOL_STATS_MAX
};

struct spool {
    char *path;
    int fd;
    uint64_t end;  /* offset behind the last whole record */
    uint64_t *off; /* of each record */
    size_t n, room;
};

static void put_le(uint8_t *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

int spool_append(int fd, const struct spool_row rows[], size_t n, struct buf *scratch,
                 struct err *e)
{
    buf_reset(scratch);
    for (size_t i = 0; i < n; i++) {
        const struct spool_row *r = &rows[i];
        size_t n_error = r->error ? strnlen(r->error, SPOOL_ERROR_MAX) : 0;
        if (r->n_stats > SPOOL_STATS_MAX)
            return err_set(e, EINVAL, "row %" PRIu64 ": statistics of %zu bytes", r->index,
                           r->n_stats);
        size_t body = FIXED + n_error + r->n_stats;
        uint8_t *p = buf_reserve(scratch, HEAD + body);
        if (!p)
            return err_set(e, EMSGSIZE, "row %" PRIu64 ": too many rows at once", r->index);
        uint8_t *b = p + HEAD;
        put_le(b, r->index, 8);
        memcpy(b + 8, r->point.b, ID_LEN);
        b[8 + ID_LEN] = (uint8_t)r->status;
        put_le(b + 9 + ID_LEN, r->duration_us, 8);
        put_le(b + 17 + ID_LEN, n_error, 2);
        put_le(b + 19 + ID_LEN, r->n_stats, 2);
        if (n_error)
            memcpy(b + FIXED, r->error, n_error);
        if (r->n_stats)
            memcpy(b + FIXED + n_error, r->stats, r->n_stats);
        struct id sum;
        hash_bytes(b, body, &sum);
        put_le(p, body, 4);
        memcpy(p + 4, sum.b, SUM);
        scratch->len += HEAD + body;
    }
    int r = write_all(fd, scratch->data, scratch->len);
    return r < 0 ? err_sys(e, -r, "rows") : 0;
}

int spool_open(const char *path, struct spool **ret, struct err *e)
{
    struct spool *s = calloc(1, sizeof(*s));
    char *copy = strdup(path);
    if (!s || !copy) {
        free(s);
        free(copy);
        return err_sys(e, ENOMEM, "%s", path);
    }
    s->path = copy;
    s->fd = -1;
    *ret = s;
    return 0;
}

void spool_close(struct spool **s)
{
    if (!*s)
        return;
    closep(&(*s)->fd);
    free((*s)->off);
    free((*s)->path);
    free(*s);
    *s = NULL;
}

uint64_t spool_count(const struct spool *s)
{
    return s->n;
}

int spool_sync(const struct spool *s)
{
    return s->fd >= 0 && fdatasync(s->fd) < 0 ? -errno : 0;
}

static int note(struct spool *s, uint64_t off)
{
    if (s->n == s->room) {
        size_t room = s->room ? 2 * s->room : 256;
        uint64_t *more = realloc(s->off, room * sizeof(*more));
        if (!more)
            return -ENOMEM;
        s->off = more;
        s->room = room;
    }
    s->off[s->n++] = off;
    return 0;
}

/* 1 = a whole record at p, *ret_n its length; 0 = more bytes are needed; negative = not a record. */
static int check(const uint8_t *p, size_t n, size_t *ret_n)
{
    if (n < HEAD)
        return 0;
    uint64_t body = get_le(p, 4);
    if (body < FIXED || body > BODY_MAX)
        return -SF_EINTEGRITY;
    if (n < HEAD + body)
        return 0;
    const uint8_t *b = p + HEAD;
    struct id sum;
    hash_bytes(b, (size_t)body, &sum);
    uint64_t n_error = get_le(b + 17 + ID_LEN, 2), n_stats = get_le(b + 19 + ID_LEN, 2);
    if (memcmp(sum.b, p + 4, SUM) != 0 || FIXED + n_error + n_stats != body ||
        n_stats > SPOOL_STATS_MAX)
        return -SF_EINTEGRITY;
    *ret_n = HEAD + (size_t)body;
    return 1;
}

int spool_poll(struct spool *s, struct err *e)
{
    if (s->fd < 0)
        s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (s->fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "%s", s->path);
    enum { PIECE = 1 << 18 };
    CLEANUP(freep) uint8_t *p = malloc(PIECE);
    if (!p)
        return err_sys(e, ENOMEM, "%s", s->path);
    for (;;) {
        ssize_t n = pread_full(s->fd, p, PIECE, (off_t)s->end);
        if (n < 0)
            return err_sys(e, (int)-n, "%s", s->path);
        size_t at = 0, len = 0;
        int r = 0;
        while ((r = check(p + at, (size_t)n - at, &len)) == 1) {
            if (note(s, s->end + at) < 0)
                return err_sys(e, ENOMEM, "%s", s->path);
            at += len;
        }
        s->end += at;
        if (r < 0)
            return err_set(e, SF_EINTEGRITY, "%s: row %zu is damaged", s->path, s->n);
        if (n < PIECE || at == 0)
            return 0;
    }
}

int spool_read(struct spool *s, uint64_t first, uint64_t n, struct wire_row *ret, struct buf *block,
               struct err *e)
{
    buf_reset(block);
    if (first + n > s->n)
        return err_set(e, EINVAL, "%s: no row %" PRIu64, s->path, first + n - 1);
    uint64_t from = n ? s->off[first] : 0, to = first + n < s->n ? s->off[first + n] : s->end;
    size_t len = n ? (size_t)(to - from) : 0;
    /* one byte behind each text is needed for its end: texts are moved over the two lengths in front of them */
    uint8_t *p = buf_reserve(block, len);
    if (!p && len)
        return err_sys(e, ENOMEM, "%s", s->path);
    ssize_t got = len ? pread_full(s->fd, p, len, (off_t)from) : 0;
    if (got < 0 || (size_t)got != len)
        return err_sys(e, got < 0 ? (int)-got : EIO, "%s", s->path);
    for (uint64_t i = 0; i < n; i++) {
        size_t size = 0;
        if (check(p, len, &size) != 1)
            return err_set(e, SF_EINTEGRITY, "%s: row %" PRIu64 " is damaged", s->path, first + i);
        uint8_t *b = p + HEAD;
        struct wire_row *r = &ret[i];
        *r = (struct wire_row){ .index = get_le(b, 8),
                                .status = b[8 + ID_LEN],
                                .duration_us = get_le(b + 9 + ID_LEN, 8) };
        memcpy(r->point.b, b + 8, ID_LEN);
        r->error_len = (size_t)get_le(b + 17 + ID_LEN, 2);
        r->stats_len = (size_t)get_le(b + 19 + ID_LEN, 2);
        r->stats = b + FIXED + r->error_len;
        char *text = (char *)b + FIXED - 1;
        memmove(text, b + FIXED, r->error_len);
        text[r->error_len] = '\0';
        r->error = text;
        p += size;
        len -= size;
    }
    return 0;
}

/* ---- small files */

int spool_save_acked(const char *dir, uint64_t rows)
{
    CLEANUP(freep) char *path = path_fmt("%s/acked", dir);
    if (!path)
        return -ENOMEM;
    CLEANUP(closep) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    char text[32];
    snprintf(text, sizeof(text), "%020" PRIu64 "\n", rows);
    return fd < 0 ? -errno : pwrite_all(fd, text, 21, 0);
}

uint64_t spool_load_acked(const char *dir)
{
    CLEANUP(freep) char *path = path_fmt("%s/acked", dir);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64);
    if (!path || file_read(path, &b, NULL) < 0 || b.len != 21 || b.data[20] != '\n')
        return 0;
    return strtoull((char *)b.data, NULL, 10);
}

void spool_end_clear(struct spool_end *end)
{
    freep(&end->info);
    freep(&end->tail);
}

int spool_save_end(const char *dir, const struct spool_end *end, bool durable, struct err *e)
{
    CLEANUP(json_decrefp) json_t *j = json_object();
    json_object_set_new(j, "cause", json_string(task_cause_name(end->cause)));
    json_object_set_new(j, "exit", json_u64(end->exit));
    json_object_set_new(j, "signal", json_u64(end->signal));
    json_object_set_new(j, "duration_ms", json_u64(end->duration_ms));
    json_object_set_new(j, "info", json_str(end->info));
    json_object_set_new(j, "tail", json_str(end->tail));
    CLEANUP(freep) char *text = json_dumps(j, JSON_COMPACT);
    CLEANUP(freep) char *path = path_fmt("%s/end", dir), *temp = path_fmt("%s/end.new", dir);
    if (!text || !path || !temp)
        return err_sys(e, ENOMEM, "%s", dir);
    if (durable)
        return file_write(path, text, strlen(text), 0600, true, e);
    CLEANUP(closep) int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : write_all(fd, text, strlen(text));
    if (r == 0 && rename(temp, path) < 0)
        r = -errno;
    return r < 0 ? err_sys(e, -r, "%s", path) : 0;
}

static char *text_of(const json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? strdup(s) : NULL;
}

int spool_load_end(const char *dir, struct spool_end *ret, struct err *e)
{
    *ret = (struct spool_end){ 0 };
    CLEANUP(freep) char *path = path_fmt("%s/end", dir);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    if (!path)
        return err_sys(e, ENOMEM, "%s", dir);
    int r = file_read(path, &b, e);
    if (r < 0)
        return r;
    CLEANUP(json_decrefp) json_t *j = json_loadb((char *)b.data, b.len, 0, NULL);
    ret->cause = task_cause_parse(json_string_value(json_object_get(j, "cause")));
    if (ret->cause == CAUSE_NONE || json_get_u64(j, "exit", &ret->exit, NULL) < 0 ||
        json_get_u64(j, "signal", &ret->signal, NULL) < 0 ||
        json_get_u64(j, "duration_ms", &ret->duration_ms, NULL) < 0)
        return err_set(e, SF_EINTEGRITY, "%s: not readable", path);
    ret->info = text_of(j, "info");
    ret->tail = text_of(j, "tail");
    return 0;
}
