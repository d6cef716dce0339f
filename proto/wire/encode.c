/* Messages to frames. msgpack-c packs; it is never asked to unpack (it believes any count it
 * reads). */
#include <msgpack.h>
#include <string.h>

#include "proto/wire/schema.h"
#include "proto/wire/utf8.h"

static int add(void *ctx, const char *p, size_t n)
{
    return buf_add(ctx, p, n) < 0 ? -1 : 0;
}

static size_t get_len(const uint8_t *s, const struct wire_field *f)
{
    size_t n;
    memcpy(&n, s + f->off_len, sizeof(n));
    return n;
}

static const void *get_ptr(const uint8_t *s, const struct wire_field *f)
{
    const void *p;
    memcpy(&p, s + f->off, sizeof(p));
    return p;
}

/* -EMSGSIZE when out is full: the only way the packer fails. */
static int pack_part(msgpack_packer *pk, const struct wire_part *part, const uint8_t *s,
                     const char *msg, struct err *e)
{
    int r = 0;
    for (size_t i = 0; i < part->n && !r; i++) {
        const struct wire_field *f = &part->fields[i];
        uint64_t v = 0;
        if (f->kind == WIRE_KIND_U64) {
            memcpy(&v, s + f->off, sizeof(v));
            if (v < f->lo || v > f->hi)
                return err_set(e, EINVAL, "message '%s': field '%s' is %llu, not %llu..%llu", msg,
                               f->name, (unsigned long long)v, (unsigned long long)f->lo,
                               (unsigned long long)f->hi);
            r = msgpack_pack_uint64(pk, v);
            continue;
        }
        if (f->kind == WIRE_KIND_ID) {
            r = msgpack_pack_bin(pk, ID_LEN);
            if (!r)
                r = msgpack_pack_bin_body(pk, s + f->off, ID_LEN);
            continue;
        }
        const void *p = get_ptr(s, f);
        size_t n = get_len(s, f);
        if (f->kind == WIRE_KIND_STR && !n && p)
            n = strlen(p);
        if (n < f->lo || n > f->hi || (n && !p))
            return err_set(e, EINVAL, "message '%s': field '%s' has length %zu, not %llu..%llu",
                           msg, f->name, n, (unsigned long long)f->lo, (unsigned long long)f->hi);
        switch (f->kind) {
        case WIRE_KIND_STR:
            if (!utf8_valid(p, n))
                return err_set(e, EINVAL, "message '%s': field '%s' is not UTF-8 text", msg,
                               f->name);
            r = msgpack_pack_str(pk, n);
            if (!r && n)
                r = msgpack_pack_str_body(pk, p, n);
            break;
        case WIRE_KIND_BIN:
            r = msgpack_pack_bin(pk, n);
            if (!r && n)
                r = msgpack_pack_bin_body(pk, p, n);
            break;
        default:
            r = msgpack_pack_array(pk, n);
            for (size_t k = 0; k < n && !r; k++) {
                r = msgpack_pack_array(pk, f->part->n);
                if (!r)
                    r = pack_part(pk, f->part, (const uint8_t *)p + k * f->part->size, msg, e);
                if (r < -1)
                    return r; /* said already */
            }
        }
    }
    if (r)
        return err_set(e, EMSGSIZE, "message '%s': longer than %d bytes", msg, FRAME_MAX);
    return 0;
}

int msg_encode_as(const struct msg *m, unsigned version, struct buf *out, struct err *e)
{
    const struct wire_type *t = wire_type(m->type);
    buf_reset(out);
    if (!t)
        return err_set(e, EINVAL, "message type %d: unknown", (int)m->type);
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, add);
    int r = msgpack_pack_array(&pk, 2 + t->part.n);
    if (!r)
        r = msgpack_pack_uint64(&pk, version);
    if (!r)
        r = msgpack_pack_uint64(&pk, (uint64_t)m->type);
    if (r)
        r = err_set(e, EMSGSIZE, "message '%s': longer than %d bytes", t->part.name, FRAME_MAX);
    else
        r = pack_part(&pk, &t->part, (const uint8_t *)wire_body((struct msg *)m), t->part.name, e);
    if (!r && out->len > FRAME_MAX)
        r = err_set(e, EMSGSIZE, "message '%s': longer than %d bytes", t->part.name, FRAME_MAX);
    if (r)
        buf_reset(out);
    return r;
}

int msg_encode(const struct msg *m, struct buf *out, struct err *e)
{
    return msg_encode_as(m, wire_version(), out, e);
}
