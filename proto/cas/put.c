/* See cas.h: artefacts that come chunk by chunk, from the space that they will take to their commit. */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/cas/in.h"

static void put_free(struct cas_put *p)
{
    struct cas_put **q = &p->cas->puts;
    while (*q && *q != p)
        q = &(*q)->next;
    if (*q) {
        *q = p->next;
        p->cas->reserved_b -= p->size_b;
    }
    closep(&p->fd);
    closep(&p->map_fd);
    cas_map_clear(&p->map);
    free(p->written);
    free(p->path);
    free(p->map_path);
    free(p);
}

static bool bit(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

static void count(struct cas_put *p, uint64_t index)
{
    if (cas_map_get(&p->map, index))
        return;
    cas_map_set(&p->map, index);
    p->n_have++;
}

int cas_put_check(struct cas_put *p, size_t n, struct err *e)
{
    uint64_t i = p->checked;
    CLEANUP(freep) uint8_t *block = NULL;
    while (n) {
        while (i < p->map.n && !bit(p->written, i))
            i++;
        size_t run = 0;
        while (run < HASH_LANES && run < n && i + run < p->map.n && bit(p->written, i + run))
            run++;
        if (!run)
            break;
        struct id is[HASH_LANES];
        if (!block && !(block = malloc((n < HASH_LANES ? n : HASH_LANES) * CID_CHUNK)))
            return err_sys(e, ENOMEM, "%s", p->path);
        ssize_t got = hash_chunks(p->fd, p->size_b, i, run, block, is);
        if (got < 0)
            return err_sys(e, (int)-got, "%s", p->path);
        for (size_t k = 0; k < run; k++, i++) {
            if ((ssize_t)k < got && id_eq(&is[k], &p->map.hashes[i]))
                count(p, i);
            else
                p->written[i / 8] &= (uint8_t) ~(1u << (i % 8));
        }
        n -= run;
    }
    while (i < p->map.n && !bit(p->written, i))
        i++;
    p->checked = i;
    return i == p->map.n;
}

/* The space of chunks that are not written. Best effort: where there are no holes it stays with the put. */
static void give_back(const struct cas_put *p)
{
    for (uint64_t i = 0, end; i < p->map.n; i = end) {
        for (end = i + 1; end < p->map.n && bit(p->written, end) == bit(p->written, i);)
            end++;
        if (!bit(p->written, i))
            fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(i * CID_CHUNK),
                      (off_t)((end - i) * CID_CHUNK));
    }
}

/* What the file of a put still wants of the disk. */
static uint64_t wanted(const struct cas_put *p)
{
    struct stat st;
    uint64_t own = p->fd >= 0 && fstat(p->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    return own < p->size_b ? p->size_b - own : 0;
}

/* Take the space of the whole from the disk. tmpfs would make its pages, as much work as to write them and all of it before the
 * first byte: there the space is booked, beside what other open puts have booked. -errno. */
static int take_space(const struct cas_put *p)
{
    struct statfs fs;
    uint64_t sum = 0;
    if (!p->size_b)
        return 0;
    if (fstatfs(p->fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
        return -posix_fallocate(p->fd, 0, (off_t)p->size_b);
    for (const struct cas_put *q = p->cas->puts; q; q = q->next)
        sum += wanted(q);
    /* no f_blocks: without a limit */
    if (fs.f_blocks && sum > (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize)
        return -ENOSPC;
    return ftruncate(p->fd, (off_t)p->size_b) < 0 ? -errno : 0;
}

/* Reserve the space of the whole; what is reserved or written of it already counts. Puts that nobody works on give way when that
 * would be enough. Refused, one that is resumed keeps what is written of it. */
static int reserve(struct cas_put *p)
{
    struct statvfs fs;
    int r = take_space(p);
    if (r == -ENOSPC && p->cas->n_idle && statvfs(p->cas->dir, &fs) == 0 &&
        wanted(p) <= (uint64_t)fs.f_bavail * fs.f_frsize + p->cas->idle_b) {
        cas_idle_drop_all(p->cas);
        r = take_space(p);
    }
    if (r < 0 && p->resumed)
        give_back(p);
    return r;
}

int cas_make_partial(const struct cas *c, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/partial", c->dir);
    return path ? dir_make(path, 0700, e) : err_sys(e, ENOMEM, "%s", c->dir);
}

static int begin(struct cas_put *p, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(cas_map_size(p->map.n));
    CLEANUP(cas_map_clear) struct cas_map old = { 0 };
    struct err ignored;
    struct id got;
    int r = cas_make_partial(p->cas, e);
    if (r < 0)
        return r;
    r = file_read(p->map_path, &b, &ignored);
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->fd < 0)
        return err_sys(e, errno, "%s", p->path);
    /* an old map that is damaged or of another size is worth nothing; the put begins anew */
    bool again =
        r >= 0 && cas_map_parse(b.data, b.len, &old, &ignored) >= 0 && old.size_b == p->size_b;
    if (again) {
        cid_of_chunks(old.size_b, old.hashes, old.n, &got);
        again = id_eq(&got, &p->id);
    }
    if (ftruncate(p->fd, again ? (off_t)p->size_b : 0) < 0)
        return err_sys(e, errno, "%s", p->path);
    p->resumed = again;
    if (again)
        memcpy(p->written, old.bits, (old.n + 7) / 8);
    else
        p->checked = p->map.n;
    r = reserve(p);
    if (r < 0)
        return err_sys(e, -r, "%s: cannot reserve %llu bytes", p->path,
                       (unsigned long long)p->size_b);
    if (p->map.n <= 1)
        return 0; /* there is no half of a chunk to resume: a file less to make durable */
    buf_reset(&b);
    r = again ? 0 : cas_map_pack(&p->map, &b);
    if (r < 0)
        return err_sys(e, -r, "%s", p->map_path);
    if (!again) /* else it is there, and needs no space of a disk that may be full */
        r = file_write(p->map_path, b.data, b.len, 0600, true, e);
    if (r < 0)
        return r;
    p->map_fd = open(p->map_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    return p->map_fd < 0 ? err_sys(e, errno, "%s", p->map_path) : 0;
}

int cas_begin(struct cas *c, const struct id *id, uint64_t size_b, const struct id hashes[],
              size_t n, struct cas_put **ret, struct err *e)
{
    char hex[ID_HEX_LEN];
    struct id got;
    id_hex(id, hex);
    *ret = NULL;
    if (size_b > CAS_SIZE_MAX)
        return err_set(e, EFBIG, "artefact %.12s: %llu bytes are too many", hex,
                       (unsigned long long)size_b);
    if (n != chunks_of(size_b))
        return err_set(e, SF_EINTEGRITY, "artefact %.12s: %zu chunk hashes for %llu bytes", hex, n,
                       (unsigned long long)size_b);
    cid_of_chunks(size_b, hashes, n, &got);
    if (!id_eq(&got, id))
        return err_set(e, SF_EINTEGRITY, "artefact %.12s: the chunk hashes are not its own", hex);
    if (cas_check(c, id))
        return err_set(e, EEXIST, "artefact %.12s: here already", hex);
    for (struct cas_put *p = c->puts; p; p = p->next)
        if (id_eq(&p->id, id))
            return err_set(e, EBUSY, "artefact %.12s: is coming in already", hex);
    bool resumed = cas_idle_take(c, id, false); /* its own space is not in its way */
    int r = cas_make_room(c, size_b, e);
    if (r < 0) {
        cas_leave(c, id, size_b, resumed && r == -ENOSPC);
        return r;
    }
    struct cas_put *p = calloc(1, sizeof(*p));
    if (!p)
        return err_sys(e, ENOMEM, "artefact %.12s", hex);
    p->cas = c;
    p->id = *id;
    p->size_b = size_b;
    p->fd = p->map_fd = -1;
    p->next = c->puts;
    c->puts = p;
    c->reserved_b += size_b;
    p->path = cas_partial_path(c, id, "");
    p->map_path = cas_partial_path(c, id, ".map");
    p->written = calloc(1, n / 8 + 1);
    if (!p->path || !p->map_path || !p->written || cas_map_init(&p->map, size_b, hashes) < 0)
        r = err_sys(e, ENOMEM, "artefact %.12s", hex);
    else
        r = begin(p, e);
    if (r < 0) {
        cas_leave(c, id, size_b, p->resumed && r == -ENOSPC);
        put_free(p);
        return r;
    }
    *ret = p;
    return 0;
}

bool cas_put_has(const struct cas_put *p, uint64_t index)
{
    return index < p->map.n && cas_map_get(&p->map, index);
}

uint64_t cas_put_missing(const struct cas_put *p, uint64_t from)
{
    while (from < p->map.n && cas_map_get(&p->map, from))
        from++;
    return from < p->map.n ? from : p->map.n;
}

static int not_of_it(const struct cas_put *p, uint64_t index, size_t n, struct err *e)
{
    char hex[ID_HEX_LEN];
    if (index < p->map.n && n == chunk_len(p->size_b, index))
        return 0;
    id_hex(&p->id, hex);
    return err_set(e, SF_EINTEGRITY, "artefact %.12s: chunk %llu of %zu bytes is none of it", hex,
                   (unsigned long long)index, n);
}

int cas_put_write(struct cas_put *p, uint64_t index, const void *data, size_t n, struct err *e)
{
    int r = not_of_it(p, index, n, e);
    if (r < 0)
        return r;
    r = pwrite_all(p->fd, data, n, (off_t)(index * CID_CHUNK));
    if (r < 0)
        return err_sys(e, -r, "%s", p->path);
    /* started now, most of it is on the disk when the commit waits for it */
    sync_file_range(p->fd, (off_t)(index * CID_CHUNK), (off_t)n, SYNC_FILE_RANGE_WRITE);
    /* a hint only: not worth failing for */
    off_t off = cas_map_off(&p->map, index);
    p->written[index / 8] |= (uint8_t)(1u << (index % 8));
    if (p->map_fd >= 0)
        pwrite_all(p->map_fd, &p->written[index / 8], 1, off);
    return 0;
}

static int is_right(const struct cas_put *p, uint64_t index, const struct id *is, size_t n,
                    struct err *e)
{
    char hex[ID_HEX_LEN];
    int r = not_of_it(p, index, n, e);
    if (r < 0)
        return r;
    if (id_eq(is, &p->map.hashes[index]))
        return 0;
    id_hex(&p->id, hex);
    return err_set(e, SF_EINTEGRITY, "artefact %.12s: chunk %llu is damaged", hex,
                   (unsigned long long)index);
}

int cas_put_verify(struct cas_put *p, uint64_t index, const struct id *is, size_t n, struct err *e)
{
    int r = is_right(p, index, is, n, e);
    if (r >= 0)
        count(p, index);
    return r;
}

int cas_put_open(const struct cas_put *p, struct err *e)
{
    int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? err_sys(e, errno, "%s", p->path) : fd;
}

int cas_put_sync(struct cas_put *p, struct err *e)
{
    return fsync(p->fd) < 0 ? err_sys(e, errno, "%s", p->path) : 0;
}

int cas_put_chunk(struct cas_put *p, uint64_t index, const void *data, size_t n, struct err *e)
{
    struct id is;
    if (index < p->map.n && n == chunk_len(p->size_b, index) && cas_map_get(&p->map, index))
        return 0;
    /* the other way round: what is damaged is not written at all, and what could not be written does not count */
    hash_bytes(data, n, &is);
    int r = is_right(p, index, &is, n, e);
    if (r >= 0)
        r = cas_put_write(p, index, data, n, e);
    if (r >= 0)
        count(p, index);
    return r;
}

static int whole(const struct cas_put *p, struct err *e)
{
    char hex[ID_HEX_LEN];
    id_hex(&p->id, hex);
    return p->n_have < p->map.n ? err_set(e, EINVAL, "artefact %.12s: chunk %llu is missing", hex,
                                          (unsigned long long)cas_put_missing(p, 0))
                                : 0;
}

/* fsync each folder once. ret: what it is for each. */
static void sync_folders(const struct publish u[], size_t n, int ret[], struct err errs[])
{
    for (size_t i = 0; i < n; i++) {
        size_t same = 0;
        if (ret[i] < 0)
            continue;
        while (same < i && (ret[same] < 0 || strcmp(u[same].folder, u[i].folder)))
            same++;
        int r = same < i ? 0 : dir_sync(u[i].folder);
        if (r >= 0)
            continue;
        ret[i] = err_sys(&errs[i], -r, "%s", u[i].folder);
        publish_back(&u[i]);
    }
}

void cas_commit_all(struct cas_put *p[], size_t n, int ret[], struct err errs[])
{
    struct publish *u = calloc(n + 1, sizeof(*u));
    for (size_t i = 0; i < n; i++) {
        ret[i] = u ? whole(p[i], &errs[i]) : err_sys(&errs[i], ENOMEM, "%s", p[i]->cas->dir);
        if (!u)
            continue;
        u[i] = (struct publish){ .cas = p[i]->cas,
                                 .id = &p[i]->id,
                                 .size = p[i]->size_b,
                                 .temp = p[i]->path,
                                 .temp_fd = p[i]->fd,
                                 .list_fd = -1 };
        if (ret[i] >= 0)
            ret[i] = publish_begin(&u[i], p[i]->map.hashes, p[i]->map.n, &errs[i]);
    }
    for (size_t i = 0; i < n; i++) {
        if (ret[i] >= 0)
            ret[i] = publish_rename(&u[i], &errs[i]);
        if (ret[i] < 0 && u && u[i].list)
            unlink(u[i].list);
    }
    sync_folders(u, u ? n : 0, ret, errs);
    for (size_t i = 0; i < n; i++) {
        if (ret[i] >= 0)
            ret[i] = publish_end(&u[i], &errs[i]);
        if (u)
            publish_clear(&u[i]);
        if (ret[i] < 0)
            continue;
        unlink(p[i]->map_path);
        put_free(p[i]);
        p[i] = NULL;
    }
    free(u);
}

int cas_commit(struct cas_put **pp, struct err *e)
{
    struct err why = { 0 };
    int r;
    cas_commit_all(pp, 1, &r, &why);
    if (r < 0 && e)
        *e = why;
    return r;
}

void cas_put_close(struct cas_put **pp, bool drop)
{
    struct cas_put *p = *pp;
    if (!p)
        return;
    *pp = NULL;
    struct cas *c = p->cas;
    cas_leave(c, &p->id, p->size_b, !drop && (p->n_have || p->checked < p->map.n));
    put_free(p);
}
