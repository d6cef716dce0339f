#include "proto/lib/zio.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"

enum { IN_ROOM = 1 << 17 };

struct zio {
    int fd;
    char *path;
    uint64_t max_b, got_b;
    ZSTD_DCtx *d; /* NULL for a plain file */
    uint8_t *in;
    size_t in_len, in_pos;
    bool in_eof;
    size_t hint; /* ZSTD's last return: 0 = between frames */
};

int zio_open(const char *path, uint64_t max_b, struct zio **ret, struct err *e)
{
    CLEANUP(zio_free) struct zio *z = calloc(1, sizeof(*z));
    if (!z)
        return err_sys(e, ENOMEM, "%s", path);
    z->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (z->fd < 0)
        return err_sys(e, errno, "%s", path);
    z->max_b = max_b;
    z->path = strdup(path);
    z->in = malloc(IN_ROOM);
    if (!z->path || !z->in)
        return err_sys(e, ENOMEM, "%s", path);
    ssize_t r = read_full(z->fd, z->in, IN_ROOM);
    if (r < 0)
        return err_sys(e, (int)-r, "%s", path);
    z->in_len = (size_t)r;
    static const uint8_t magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };
    if (z->in_len >= 4 && !memcmp(z->in, magic, 4)) {
        z->d = ZSTD_createDCtx();
        if (!z->d)
            return err_sys(e, ENOMEM, "%s", path);
        /* 128 MiB windows: what `zstd --long` may make; a hostile header cannot ask for more */
        ZSTD_DCtx_setParameter(z->d, ZSTD_d_windowLogMax, 27);
    }
    *ret = TAKE(z);
    return 0;
}

void zio_free(struct zio **zp)
{
    struct zio *z = *zp;
    *zp = NULL;
    if (!z)
        return;
    if (z->fd >= 0)
        close(z->fd);
    ZSTD_freeDCtx(z->d);
    free(z->in);
    free(z->path);
    free(z);
}

static int refill(struct zio *z, struct err *e)
{
    if (z->in_pos < z->in_len || z->in_eof)
        return 0;
    ssize_t r = read_full(z->fd, z->in, IN_ROOM);
    if (r < 0)
        return err_sys(e, (int)-r, "%s", z->path);
    z->in_len = (size_t)r;
    z->in_pos = 0;
    z->in_eof = r == 0;
    return 0;
}

ssize_t zio_read(struct zio *z, void *p, size_t n, struct err *e)
{
    size_t got = 0;
    while (got < n) {
        int r = refill(z, e);
        if (r < 0)
            return r;
        size_t left = z->in_len - z->in_pos;
        if (!z->d) {
            if (!left)
                break;
            size_t m = left < n - got ? left : n - got;
            memcpy((uint8_t *)p + got, z->in + z->in_pos, m);
            z->in_pos += m;
            got += m;
            continue;
        }
        if (!left && z->hint == 0)
            break;
        ZSTD_inBuffer in = { z->in, z->in_len, z->in_pos };
        ZSTD_outBuffer out = { (uint8_t *)p + got, n - got, 0 };
        size_t h = ZSTD_decompressStream(z->d, &out, &in);
        if (ZSTD_isError(h))
            return err_set(e, SF_EINTEGRITY, "%s: damaged zstd stream: %s", z->path,
                           ZSTD_getErrorName(h));
        z->hint = h;
        z->in_pos = in.pos;
        got += out.pos;
        if (!left && !out.pos)
            return err_set(e, SF_EINTEGRITY, "%s: zstd stream is truncated", z->path);
    }
    z->got_b += got;
    if (z->max_b && z->got_b > z->max_b)
        return err_set(e, EFBIG, "%s: longer than %llu bytes", z->path,
                       (unsigned long long)z->max_b);
    return (ssize_t)got;
}

size_t zio_bound(size_t n)
{
    return ZSTD_compressBound(n);
}

ssize_t zio_pack(void *dst, size_t room, const void *src, size_t n, int level)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    if (!c)
        return -ENOMEM;
    ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    size_t r = ZSTD_compress2(c, dst, room, src, n);
    ZSTD_freeCCtx(c);
    return ZSTD_isError(r) ? -ENOSPC : (ssize_t)r;
}

struct zio_out {
    int fd;
    char *path;
    ZSTD_CCtx *c;
    struct cid *cid;
    uint8_t *room; /* IN_ROOM */
};

int zio_create(const char *path, int level, struct zio_out **ret, struct err *e)
{
    struct zio_out *z = calloc(1, sizeof(*z));
    if (!z)
        return err_sys(e, ENOMEM, "%s", path);
    z->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (z->fd < 0) {
        int r = err_sys(e, errno, "%s", path);
        free(z);
        return r;
    }
    z->path = strdup(path);
    z->c = ZSTD_createCCtx();
    z->cid = cid_new();
    z->room = malloc(IN_ROOM);
    if (!z->path || !z->c || !z->cid || !z->room) {
        unlink(path);
        zio_abort(&z);
        return err_sys(e, ENOMEM, "%s", path);
    }
    ZSTD_CCtx_setParameter(z->c, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(z->c, ZSTD_c_checksumFlag, 1);
    *ret = z;
    return 0;
}

static int out_step(struct zio_out *z, ZSTD_inBuffer *in, ZSTD_EndDirective what, struct err *e)
{
    for (size_t left = 1; in->pos < in->size || (what == ZSTD_e_end && left);) {
        ZSTD_outBuffer out = { z->room, IN_ROOM, 0 };
        left = ZSTD_compressStream2(z->c, &out, in, what);
        if (ZSTD_isError(left))
            return err_sys(e, ENOMEM, "%s", z->path);
        int r = write_all(z->fd, z->room, out.pos);
        if (r < 0)
            return err_sys(e, -r, "%s", z->path);
        cid_add(z->cid, z->room, out.pos);
    }
    return 0;
}

int zio_write(struct zio_out *z, const void *p, size_t n, struct err *e)
{
    ZSTD_inBuffer in = { p, n, 0 };
    return out_step(z, &in, ZSTD_e_continue, e);
}

static void out_free(struct zio_out *z)
{
    closep(&z->fd);
    ZSTD_freeCCtx(z->c);
    cid_free(&z->cid);
    free(z->room);
    free(z->path);
    free(z);
}

int zio_end(struct zio_out **zp, struct id *ret, uint64_t *ret_size, struct err *e)
{
    struct zio_out *z = *zp;
    ZSTD_inBuffer in = { "", 0, 0 };
    int r = out_step(z, &in, ZSTD_e_end, e);
    if (r == 0 && fsync(z->fd) < 0)
        r = err_sys(e, errno, "%s", z->path);
    if (r < 0) {
        zio_abort(zp);
        return r;
    }
    cid_end(z->cid, ret, ret_size);
    out_free(z);
    *zp = NULL;
    return 0;
}

void zio_abort(struct zio_out **zp)
{
    struct zio_out *z = *zp;
    *zp = NULL;
    if (!z)
        return;
    if (z->path)
        unlink(z->path);
    out_free(z);
}

ssize_t zio_unpack(void *dst, size_t room, const void *src, size_t n)
{
    size_t r = ZSTD_decompress(dst, room, src, n);
    return ZSTD_isError(r) ? -SF_EINTEGRITY : (ssize_t)r;
}

/* The opaque structs are libzstd's own contexts. */
static ZSTD_CCtx *cctx(struct zio_packer *p)
{
    return (ZSTD_CCtx *)(void *)p;
}

static ZSTD_DCtx *dctx(struct zio_unpacker *u)
{
    return (ZSTD_DCtx *)(void *)u;
}

struct zio_packer *zio_packer_new(int level)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    if (c)
        ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
    return (struct zio_packer *)(void *)c;
}

void zio_packer_level(struct zio_packer *p, int level)
{
    ZSTD_CCtx_setParameter(cctx(p), ZSTD_c_compressionLevel, level);
}

void zio_packer_free(struct zio_packer **p)
{
    ZSTD_freeCCtx(cctx(*p));
    *p = NULL;
}

ssize_t zio_packer_pack(struct zio_packer *p, void *dst, size_t room, const void *src, size_t n)
{
    size_t r = ZSTD_compress2(cctx(p), dst, room, src, n);
    return ZSTD_isError(r) ? -ENOSPC : (ssize_t)r;
}

struct zio_unpacker *zio_unpacker_new(void)
{
    return (struct zio_unpacker *)(void *)ZSTD_createDCtx();
}

void zio_unpacker_free(struct zio_unpacker **u)
{
    ZSTD_freeDCtx(dctx(*u));
    *u = NULL;
}

ssize_t zio_unpacker_unpack(struct zio_unpacker *u, void *dst, size_t room, const void *src,
                            size_t n)
{
    size_t r = ZSTD_decompressDCtx(dctx(u), dst, room, src, n);
    return ZSTD_isError(r) ? -SF_EINTEGRITY : (ssize_t)r;
}

bool zio_worth_try(struct zio_worth *w)
{
    if (w->losses >= ZIO_TRIES && ++w->untried < ZIO_AGAIN)
        return false;
    w->untried = 0;
    return true;
}

bool zio_worth_note(struct zio_worth *w, size_t n, ssize_t packed)
{
    bool less = packed > 0 && (size_t)packed < n - n / 8;
    w->losses = less ? 0 : w->losses + 1;
    return less;
}
