/* How bytes that are whole become an artefact: durable first, then visible by rename. And files that are taken in at once. */
#include <endian.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/cas/in.h"

void publish_clear(struct publish *u)
{
    closep(&u->list_fd);
    free(u->path);
    free(u->list);
    free(u->folder);
}

int publish_begin(struct publish *u, const struct id *hashes, size_t n, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(16 + n * ID_LEN);
    uint64_t le = htole64(u->size);
    u->list_fd = -1;
    u->path = cas_item_path(u->cas, u->id, "");
    u->list = cas_item_path(u->cas, u->id, ".hashes");
    u->folder = u->path ? strdup(u->path) : NULL;
    if (!u->path || !u->list || !u->folder || buf_add(&b, "SFH1\0\0\0\0", 8) < 0 ||
        buf_add(&b, &le, 8) < 0 || buf_add(&b, hashes, n * ID_LEN) < 0)
        return err_sys(e, ENOMEM, "%s", u->cas->dir);
    *strrchr(u->folder, '/') = 0;
    int r = dir_make(u->folder, 0700, e);
    if (r < 0)
        return r;
    unlink(u->list); /* of a crash */
    u->list_fd = open(u->list, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0444);
    if (u->list_fd < 0)
        return err_sys(e, errno, "%s", u->list);
    r = pwrite_all(u->list_fd, b.data, b.len, 0);
    if (r < 0)
        return err_sys(e, -r, "%s", u->list);
    if (fchmod(u->temp_fd, 0444) < 0)
        return err_sys(e, errno, "%s", u->temp);
    sync_file_range(u->list_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    sync_file_range(u->temp_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    return 0;
}

int publish_rename(const struct publish *u, struct err *e)
{
    if (fsync(u->temp_fd) < 0)
        return err_sys(e, errno, "%s", u->temp);
    if (fsync(u->list_fd) < 0)
        return err_sys(e, errno, "%s", u->list);
    return rename(u->temp, u->path) < 0 ? err_sys(e, errno, "%s", u->path) : 0;
}

void publish_back(const struct publish *u)
{
    if (rename(u->path, u->temp) == 0)
        unlink(u->list);
}

int publish_end(const struct publish *u, struct err *e)
{
    return cas_insert(u->cas, u->id, u->size, clock_wall_ms()) < 0
               ? err_sys(e, ENOMEM, "%s", u->path)
               : 0;
}

static int publish(struct cas *c, const struct id *id, uint64_t size, const struct id *hashes,
                   size_t n, const char *temp, int temp_fd, struct err *e)
{
    CLEANUP(publish_clear)
    struct publish u = { .cas = c, .id = id, .size = size, .temp = temp, .temp_fd = temp_fd };
    int r = publish_begin(&u, hashes, n, e);
    if (r >= 0)
        r = publish_rename(&u, e);
    if (r < 0) {
        if (u.list)
            unlink(u.list);
        return r;
    }
    r = dir_sync(u.folder);
    if (r >= 0)
        return publish_end(&u, e);
    publish_back(&u);
    return err_sys(e, -r, "%s", u.folder);
}

int cas_adopt(struct cas *c, const struct id *id, uint64_t size_b, const struct id hashes[],
              size_t n, const char *path, int fd, struct err *e)
{
    return publish(c, id, size_b, hashes, n, path, fd, e);
}

static void unlinkp(char **path)
{
    if (*path) {
        unlink(*path);
        free(*path);
    }
    *path = NULL;
}

int cas_import(struct cas *c, const char *path, struct id *ret, uint64_t *ret_size, struct err *e)
{
    struct stat st, after;
    CLEANUP(closep) int in = file_open_regular(path, &st, e);
    CLEANUP(closep) int out = -1;
    CLEANUP(freep) uint8_t *block = NULL;
    CLEANUP(freep) struct id *hashes = NULL;
    if (in < 0)
        return in;
    uint64_t size = (uint64_t)st.st_size, n = chunks_of(size);
    if (size > CAS_SIZE_MAX)
        return err_set(e, EFBIG, "%s: too long", path);
    size_t lanes = n < HASH_LANES ? (size_t)n + !n : HASH_LANES;
    hashes = malloc(n ? n * sizeof(*hashes) : 1);
    block = malloc(lanes * CID_CHUNK);
    if (!hashes || !block)
        return err_sys(e, ENOMEM, "%s", path);
    int r = cas_make_room(c, size, e);
    r = r < 0 ? r : cas_make_partial(c, e);
    if (r < 0)
        return r;
    char *name = path_fmt("%s/partial/import-%u", c->dir, ++c->temp_n);
    if (!name)
        return err_sys(e, ENOMEM, "%s", path);
    out = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0) {
        r = err_sys(e, errno, "%s", name);
        free(name);
        return r;
    }
    CLEANUP(unlinkp) char *temp = name;
    /* What is hashed is what is kept: with shared blocks the clone is read, not the original. */
    bool shared = size && ioctl(out, FICLONE, in) == 0;
    if (size && !shared) {
        r = -posix_fallocate(out, 0, (off_t)size);
        if (r < 0)
            return err_sys(e, -r, "%s: cannot reserve %llu bytes", temp, (unsigned long long)size);
    }
    for (uint64_t i = 0; i < n;) {
        size_t m = n - i < lanes ? (size_t)(n - i) : lanes;
        uint64_t at = i * CID_CHUNK, end = (i + m) * CID_CHUNK;
        ssize_t got = hash_chunks(shared ? out : in, size, i, m, block, &hashes[i]);
        if (got < 0)
            return err_sys(e, (int)-got, "%s", path);
        if ((size_t)got < m)
            return err_set(e, SF_EFAILED, "%s: became shorter while it was read", path);
        r = shared ? 0
                   : pwrite_all(out, block, (size_t)((end < size ? end : size) - at), (off_t)at);
        if (r < 0)
            return err_sys(e, -r, "%s", temp);
        i += m;
    }
    if (fstat(out, &after) < 0 || (uint64_t)after.st_size != size)
        return err_set(e, SF_EFAILED, "%s: changed its length while it was read", path);
    cid_of_chunks(size, hashes, n, ret);
    if (ret_size)
        *ret_size = size;
    uint64_t bad;
    if (cas_check(c, ret)) {
        if (cas_verify(c, ret, &bad, NULL) != -SF_EINTEGRITY) {
            cas_touch(c, cas_find(c, ret));
            return 0;
        }
        r = cas_remove(c, cas_find(c, ret), e); /* it has rotted; here is what it was */
        if (r < 0)
            return r;
    }
    r = publish(c, ret, size, hashes, n, temp, out, e);
    return r < 0 ? r : 0;
}
