/* Frames to messages: a cursor over the frame, steered by the schema.
 *
 * Two passes over the same code. The first checks everything and adds up what the values need, the
 * second, which cannot fail any more, copies them into one block of that size. Every count is
 * compared with the bytes left before anything is done with it; depth is that of the schema; values
 * nobody asked for are skipped without recursion.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "proto/wire/schema.h"
#include "proto/wire/utf8.h"

struct cursor {
    const uint8_t *p, *end;
};

/* The block being filled; base NULL = only counting. */
struct arena {
    uint8_t *base;
    size_t used;
};

static void *arena_take(struct arena *a, size_t n, size_t align)
{
    a->used = (a->used + align - 1) & ~(align - 1);
    void *p = a->base ? a->base + a->used : NULL;
    a->used += n;
    return p;
}

enum tag { TAG_UINT, TAG_STR, TAG_BIN, TAG_ARRAY, TAG_MAP, TAG_OTHER };

/* Read the head of one value. *ret_n: the number, the length or the count; for TAG_OTHER (nil,
 * bool, float, negative, ext) the bytes of its body. Returns the tag, or -1 when the head is cut
 * off or no MessagePack. */
static int head(struct cursor *c, uint64_t *ret_n)
{
    if (c->p == c->end)
        return -1;
    uint8_t b = *c->p++;
    size_t width;
    enum tag tag;
    if (b < 0x80)
        return *ret_n = b, TAG_UINT;
    if (b < 0x90)
        return *ret_n = b & 0x0f, TAG_MAP;
    if (b < 0xa0)
        return *ret_n = b & 0x0f, TAG_ARRAY;
    if (b < 0xc0)
        return *ret_n = b & 0x1f, TAG_STR;
    if (b >= 0xe0)
        return *ret_n = 0, TAG_OTHER;
    switch (b) {
    case 0xc0: /* nil */
    case 0xc2: /* false */
    case 0xc3: /* true */
        return *ret_n = 0, TAG_OTHER;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        tag = TAG_BIN, width = (size_t)1 << (b - 0xc4);
        break;
    case 0xc7: /* ext: a type byte belongs to the body */
    case 0xc8:
    case 0xc9:
        tag = TAG_OTHER, width = (size_t)1 << (b - 0xc7);
        break;
    case 0xca:
        return *ret_n = 4, TAG_OTHER;
    case 0xcb:
        return *ret_n = 8, TAG_OTHER;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        tag = TAG_UINT, width = (size_t)1 << (b - 0xcc);
        break;
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return *ret_n = (uint64_t)1 << (b - 0xd0), TAG_OTHER;
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: /* fixext */
        return *ret_n = 1 + ((uint64_t)1 << (b - 0xd4)), TAG_OTHER;
    case 0xd9:
    case 0xda:
    case 0xdb:
        tag = TAG_STR, width = (size_t)1 << (b - 0xd9);
        break;
    case 0xdc:
    case 0xdd:
        tag = TAG_ARRAY, width = (size_t)2 << (b - 0xdc);
        break;
    case 0xde:
    case 0xdf:
        tag = TAG_MAP, width = (size_t)2 << (b - 0xde);
        break;
    default:
        return -1; /* 0xc1 is never used */
    }
    if ((size_t)(c->end - c->p) < width)
        return -1;
    uint64_t v = 0;
    for (size_t i = 0; i < width; i++)
        v = v << 8 | *c->p++;
    *ret_n = b >= 0xc7 && b <= 0xc9 ? v + 1 : v;
    return (int)tag;
}

static uint64_t left(const struct cursor *c)
{
    return (uint64_t)(c->end - c->p);
}

/* Over one value of any kind. Each value that a head promises needs a byte at least, so the sum of
 * promises never passes the bytes left. Returns 0 or -1. */
static int skip(struct cursor *c)
{
    uint64_t owed = 1, n;
    while (owed) {
        int tag = head(c, &n);
        if (tag < 0)
            return -1;
        owed--;
        if (tag == TAG_UINT)
            continue;
        if (n > left(c))
            return -1;
        if (tag == TAG_ARRAY)
            owed += n;
        else if (tag == TAG_MAP)
            owed += 2 * n;
        else
            c->p += n;
        if (owed > left(c))
            return -1;
    }
    return 0;
}

static int bad(struct err *e, const char *msg, const struct wire_field *f, const char *what)
{
    return err_set(e, SF_EFORMAT, "message '%s': field '%s' %s", msg, f->name, what);
}

static void put_len(uint8_t *s, const struct wire_field *f, size_t n)
{
    if (s)
        memcpy(s + f->off_len, &n, sizeof(n));
}

static void put_ptr(uint8_t *s, const struct wire_field *f, const void *p)
{
    if (s)
        memcpy(s + f->off, &p, sizeof(p));
}

/* A field that the sender did not know: 0 or empty. */
static void unpack_nothing(uint8_t *s, const struct wire_field *f)
{
    if (s && f->kind != WIRE_KIND_U64)
        put_ptr(s, f, f->kind == WIRE_KIND_LIST ? NULL : "");
}

/* n_values values of a struct whose fields are part's, the last n_added of which may be missing; s
 * NULL = only counting, else all 0. */
static int unpack_part(struct cursor *c, uint64_t n_values, const struct wire_part *part,
                       size_t n_added, uint8_t *s, struct arena *a, const char *msg, struct err *e)
{
    for (size_t i = 0; i < part->n; i++) {
        const struct wire_field *f = &part->fields[i];
        uint64_t n;
        if (i >= n_values && i >= part->n - n_added) {
            unpack_nothing(s, f);
            continue;
        }
        if (i >= n_values)
            return bad(e, msg, f, "is missing");
        int tag = head(c, &n);
        if (tag < 0)
            return bad(e, msg, f, "is cut off");
        if (f->kind == WIRE_KIND_U64) {
            if (tag != TAG_UINT)
                return bad(e, msg, f, "is not an unsigned number");
            if (n < f->lo || n > f->hi)
                return bad(e, msg, f, "is out of range");
            if (s)
                memcpy(s + f->off, &n, sizeof(n));
            continue;
        }
        if (tag != (f->kind == WIRE_KIND_STR    ? TAG_STR
                    : f->kind == WIRE_KIND_LIST ? TAG_ARRAY
                                                : TAG_BIN))
            return bad(e, msg, f,
                       f->kind == WIRE_KIND_STR    ? "is not a string"
                       : f->kind == WIRE_KIND_LIST ? "is not a list"
                                                   : "is not bytes");
        if (n > left(c))
            return bad(e, msg, f, "is longer than the frame");
        if (n < f->lo || n > f->hi)
            return bad(e, msg, f, "has a length out of range");
        switch (f->kind) {
        case WIRE_KIND_ID:
            if (s)
                memcpy(s + f->off, c->p, ID_LEN);
            c->p += n;
            break;
        case WIRE_KIND_STR:
        case WIRE_KIND_BIN: {
            if (f->kind == WIRE_KIND_STR && !utf8_valid(c->p, n))
                return bad(e, msg, f, "is not UTF-8 text");
            uint8_t *to =
                arena_take(a, n + 1, 1); /* a 0 behind bytes, too: cheap, and kind to readers */
            if (to) {
                memcpy(to, c->p, n);
                to[n] = 0;
            }
            put_ptr(s, f, to);
            put_len(s, f, n);
            c->p += n;
            break;
        }
        default: {
            /* an item is a head and a byte a field at least */
            if (n > left(c) / (1 + f->part->n))
                return bad(e, msg, f, "is longer than the frame");
            uint8_t *items = arena_take(a, n * f->part->size, _Alignof(max_align_t));
            for (uint64_t k = 0; k < n; k++) {
                uint64_t m;
                if (head(c, &m) != TAG_ARRAY || m > left(c))
                    return bad(e, msg, f, "has an item that is no list");
                int r = unpack_part(c, m, f->part, 0, items ? items + k * f->part->size : NULL, a,
                                    msg, e);
                if (r < 0)
                    return r;
            }
            put_ptr(s, f, n ? items : NULL);
            put_len(s, f, n);
        }
        }
    }
    for (uint64_t i = part->n; i < n_values; i++)
        if (skip(c) < 0)
            return err_set(e, SF_EFORMAT, "message '%s': cut off or not MessagePack", msg);
    return 0;
}

unsigned wire_oldest(void)
{
    return wire_version() > 1 ? wire_version() - 1 : 1;
}

int msg_decode(const void *frame, size_t n, struct msg *ret, struct err *e)
{
    memset(ret, 0, sizeof(*ret));
    if (n > FRAME_MAX)
        return err_set(e, SF_EFORMAT, "frame: %zu bytes, at most %d are taken", n, FRAME_MAX);
    struct cursor c = { frame, (const uint8_t *)frame + n };
    uint64_t count, version, number;
    if (head(&c, &count) != TAG_ARRAY || count > left(&c) || count < 2 ||
        head(&c, &version) != TAG_UINT)
        return err_set(e, SF_EFORMAT, "frame: not a message");
    ret->version = version < UINT32_MAX ? (unsigned)version : UINT32_MAX;
    if (version < wire_oldest() || version > wire_version())
        return err_set(e, SF_EREFUSED, "frame: protocol version %llu, this program speaks %u",
                       (unsigned long long)version, wire_version());
    if (head(&c, &number) != TAG_UINT)
        return err_set(e, SF_EFORMAT, "frame: not a message");
    const struct wire_type *t = number <= INT32_MAX ? wire_type((enum msg_type)number) : NULL;
    if (!t)
        return err_set(e, SF_EFORMAT, "frame: message type %llu is unknown",
                       (unsigned long long)number);

    size_t n_added = wire_added(t->type);
    struct cursor again = c;
    struct arena a = { NULL, 0 };
    int r = unpack_part(&c, count - 2, &t->part, n_added, NULL, &a, t->part.name, e);
    if (r < 0)
        return r;
    if (c.p != c.end)
        return err_set(e, SF_EFORMAT, "message '%s': %llu bytes too many", t->part.name,
                       (unsigned long long)left(&c));
    a.base = malloc(a.used ? a.used : 1);
    if (!a.base)
        return err_sys(e, ENOMEM, "message '%s'", t->part.name);
    a.used = 0;
    ret->type = t->type;
    ret->block = a.base;
    return unpack_part(&again, count - 2, &t->part, n_added, wire_body(ret), &a, t->part.name, e);
}

void msg_clear(struct msg *m)
{
    free(m->block);
    memset(m, 0, sizeof(*m));
}
