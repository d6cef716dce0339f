#include "proto/wire/utf8.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the valid character at p (n >= 1 left), 0 when it is none. */
static size_t one(const uint8_t *p, size_t n)
{
    if (p[0] < 0x80)
        return p[0] ? 1 : 0;
    size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

bool utf8_valid(const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0, len; i < n; i += len) {
        len = one(b + i, n - i);
        if (!len)
            return false;
    }
    return true;
}

size_t utf8_clean(const char *s, char *out, size_t room)
{
    size_t n = strlen(s), o = 0;
    for (size_t i = 0; i < n;) {
        size_t len = one((const uint8_t *)s + i, n - i);
        size_t w = len ? len : 1;
        if (o + w >= room)
            break;
        if (len)
            memcpy(out + o, s + i, len);
        else
            out[o] = '?';
        o += w;
        i += w;
    }
    out[o] = 0;
    return o;
}
