#include "collect/cpio.h"

#include <string.h>

static int pad(struct buf *b, size_t to)
{
    static const char zero[512];
    size_t over = b->len % to;
    return over ? buf_add(b, zero, to - over) : 0;
}

int cpio_add(struct buf *b, uint32_t ino, const char *path, uint32_t mode, const void *p, size_t n)
{
    size_t before = b->len;
    size_t name = strlen(path) + 1;
    int r = buf_addf(b, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", ino, mode,
                     0u, 0u, 1u, 0u, n, 0u, 0u, 0u, 0u, name, 0u);
    if (r == 0)
        r = buf_add(b, path, name);
    if (r == 0)
        r = pad(b, 4);
    if (r == 0 && n)
        r = buf_add(b, p, n);
    if (r == 0)
        r = pad(b, 4);
    if (r < 0)
        b->len = before;
    return r;
}

int cpio_end(struct buf *b)
{
    int r = cpio_add(b, 0, "TRAILER!!!", 0, NULL, 0);
    return r < 0 ? r : pad(b, 512);
}
