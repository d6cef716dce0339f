#include "proto/base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *b, size_t cap)
{
    *b = BUF_INIT(cap);
}

void buf_clear(struct buf *b)
{
    free(b->data);
    *b = BUF_INIT(b->cap);
}

static int grow(struct buf *b, size_t n)
{
    if (n > b->cap || b->len > b->cap - n)
        return -EMSGSIZE;
    size_t need = b->len + n + 1;
    if (need <= b->room)
        return 0;
    size_t room = b->room ? b->room : 256;
    while (room < need)
        room *= 2;
    if (room > b->cap + 1)
        room = b->cap + 1;
    uint8_t *p = realloc(b->data, room);
    if (!p)
        return -ENOMEM;
    b->data = p;
    b->room = room;
    return 0;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
    return grow(b, n) < 0 ? NULL : b->data + b->len;
}

int buf_add(struct buf *b, const void *p, size_t n)
{
    int r = grow(b, n);
    if (r < 0)
        return r;
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return 0;
}

int buf_adds(struct buf *b, const char *s)
{
    return buf_add(b, s, strlen(s));
}

int buf_addf(struct buf *b, const char *fmt, ...)
{
    char small[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    if (n < 0)
        return -EINVAL;
    if ((size_t)n < sizeof(small))
        return buf_add(b, small, (size_t)n);
    int r = grow(b, (size_t)n);
    if (r < 0)
        return r;
    va_start(ap, fmt);
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return 0;
}
