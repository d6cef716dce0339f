/* A store of transfers over a cas. */
#include "proto/cas/cas.h"
#include "proto/xfer/drive.h"

static int of_hashes(void *ctx, const struct id *id, struct id **ret, size_t *ret_n,
                     uint64_t *ret_size, struct err *e)
{
    return cas_hashes(ctx, id, ret, ret_n, ret_size, e);
}

static ssize_t of_read(void *ctx, const struct id *id, uint64_t index, void *p, size_t room,
                       struct err *e)
{
    return cas_read(ctx, id, index, p, room, e);
}

static int of_begin(void *ctx, const struct id *id, uint64_t size_b, const struct id hashes[],
                    size_t n, void **ret_put, struct err *e)
{
    struct cas_put *p;
    int r = cas_begin(ctx, id, size_b, hashes, n, &p, e);
    *ret_put = r < 0 ? NULL : p;
    return r;
}

static int of_put_check(void *put, size_t n, struct err *e)
{
    return cas_put_check(put, n, e);
}

static bool of_has(void *put, uint64_t index)
{
    return cas_put_has(put, index);
}

static int of_write(void *put, uint64_t index, const void *p, size_t n, struct err *e)
{
    return cas_put_chunk(put, index, p, n, e);
}

static int of_commit(void *put, struct err *e)
{
    struct cas_put *p = put;
    return cas_commit(&p, e);
}

static void of_commit_all(void *put[], size_t n, int ret[], struct err errs[])
{
    struct cas_put *p[XFERS_COMMIT_MAX];
    for (size_t i = 0; i < n; i++)
        p[i] = put[i];
    cas_commit_all(p, n, ret, errs);
}

static int of_open(void *ctx, const struct id *id, uint64_t *ret_size, struct err *e)
{
    return cas_open_item(ctx, id, ret_size, e);
}

static int of_put_write(void *put, uint64_t index, const void *p, size_t n, struct err *e)
{
    return cas_put_write(put, index, p, n, e);
}

static int of_put_verify(void *put, uint64_t index, const struct id *is, size_t n, struct err *e)
{
    return cas_put_verify(put, index, is, n, e);
}

static int of_put_sync(void *put, struct err *e)
{
    return cas_put_sync(put, e);
}

static int of_put_open(void *put, struct err *e)
{
    return cas_put_open(put, e);
}

static void of_close(void *put)
{
    struct cas_put *p = put;
    cas_put_close(&p, false);
}

struct xfer_store xfer_store_cas(struct cas *c)
{
    return (struct xfer_store){ .ctx = c,
                                .hashes = of_hashes,
                                .read = of_read,
                                .begin = of_begin,
                                .put_check = of_put_check,
                                .put_has = of_has,
                                .write = of_write,
                                .commit = of_commit,
                                .commit_all = of_commit_all,
                                .close = of_close,
                                .open = of_open,
                                .put_write = of_put_write,
                                .put_verify = of_put_verify,
                                .put_sync = of_put_sync,
                                .put_open = of_put_open };
}
