#include "proto/format/frame.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "proto/base/big.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/zio.h"

static const char end_magic[8] = { 's', 'f', 'l', 't', 'e', 'n', 'd', '\n' };

/* 2^28 sections of one file: 8 GiB of index would be a damaged or hostile count */
#define SECTIONS_MAX (UINT64_C(1) << 28)

static int emit(struct frame_out *o, const void *p, size_t n, struct err *e)
{
    cid_add(o->cid, p, n);
    o->off += n;
    int r = o->to_file ? write_all(o->file.fd, p, n) : 0;
    return r < 0 ? err_sys(e, -r, "%s", o->file.path) : 0;
}

static size_t head_size(const struct frame_kind *kind)
{
    return FRAME_START_B + kind->header_b + 8;
}

int frame_begin(struct frame_out *o, const struct frame_kind *kind, const char *path,
                const void *header, bool force, struct err *e)
{
    *o = (struct frame_out){ .kind = kind, .file.fd = -1, .to_file = path != NULL };
    buf_init(&o->index, 16 * SECTIONS_MAX);
    o->cid = cid_new();
    o->header = calloc(1, head_size(kind));
    if (!o->cid || !o->header)
        return err_sys(e, ENOMEM, "%s", kind->what);
    uint8_t *h = o->header;
    memcpy(h, kind->magic, 8);
    put_u32(h + 8, kind->version);
    put_u32(h + 12, (uint32_t)hash_fast(h, 12, 0));
    memcpy(h + FRAME_START_B, header, kind->header_b);
    put_u64(h + FRAME_START_B + kind->header_b, hash_fast(h, FRAME_START_B + kind->header_b, 0));
    int r = path ? file_begin(&o->file, path, 0644, force, e) : 0;
    return r < 0 ? r : emit(o, h, head_size(kind), e);
}

int frame_add(struct frame_out *o, uint32_t kind, uint32_t number, const void *raw, size_t n,
              int level, struct err *e)
{
    size_t room = FRAME_SECTION_B + zio_bound(n);
    CLEANUP(freep) uint8_t *b = malloc(room);
    if (!b)
        return err_sys(e, ENOMEM, "%s", o->kind->what);
    ssize_t packed = zio_pack(b + FRAME_SECTION_B, room - FRAME_SECTION_B, n ? raw : "", n, level);
    if (packed < 0)
        return err_sys(e, (int)-packed, "%s", o->kind->what);
    put_u32(b, kind);
    put_u32(b + 4, number);
    put_u64(b + 8, n);
    put_u64(b + 16, (uint64_t)packed);
    uint8_t x[16];
    put_u64(x, o->off);
    put_u64(x + 8, hash_fast(b, FRAME_SECTION_B + (size_t)packed, 0));
    if (buf_add(&o->index, x, sizeof(x)) < 0)
        return err_sys(e, ENOMEM, "%s", o->kind->what);
    o->n++;
    return emit(o, b, FRAME_SECTION_B + (size_t)packed, e);
}

int frame_end(struct frame_out *o, struct id *ret_id, struct err *e)
{
    uint8_t t[FRAME_TRAILER_B];
    put_u64(t, o->n);
    put_u64(t + 8, o->off);
    uint64_t head = get_u64(o->header + head_size(o->kind) - 8);
    put_u64(t + 16, hash_fast(o->index.data, o->index.len, hash_fast(t, 16, head)));
    memcpy(t + 24, end_magic, 8);
    int r = o->index.len ? emit(o, o->index.data, o->index.len, e) : 0;
    if (r == 0)
        r = emit(o, t, sizeof(t), e);
    if (r == 0 && o->to_file)
        r = file_commit(&o->file, e);
    if (r == 0 && ret_id)
        cid_end(o->cid, ret_id, NULL);
    frame_abort(o);
    return r;
}

void frame_abort(struct frame_out *o)
{
    file_abort(&o->file);
    cid_free(&o->cid);
    buf_clear(&o->index);
    freep(&o->header);
}

/* ---- reading */

static int damaged(const struct frame_in *f, struct err *e, const char *what)
{
    return err_set(e, SF_EINTEGRITY, "%s: %s file is damaged: %s", f->path, f->kind->what, what);
}

static int check(struct frame_in *f, struct err *e)
{
    const struct frame_kind *k = f->kind;
    if (!f->size)
        return err_set(e, SF_EFORMAT, "%s: the file is empty", f->path);
    unsigned wrong = 0, bits = 0;
    for (size_t i = 0; i < 8 && i < f->size; i++) {
        unsigned d = (unsigned)(f->p[i] ^ (uint8_t)k->magic[i]);
        wrong += d != 0;
        bits += (unsigned)__builtin_popcount(d);
    }
    /* one changed byte or bit in the name of the format is damage; anything else is another kind of file */
    if (wrong > (f->size >= 8))
        return err_set(e, SF_EFORMAT, "%s: not a siofleet %s file", f->path, k->what);
    if (f->size < FRAME_START_B)
        return damaged(f, e, "truncated");
    if (bits || get_u32(f->p + 12) != (uint32_t)hash_fast(f->p, 12, 0))
        return damaged(f, e, "its first bytes fail their checksum");
    if (get_u32(f->p + 8) != k->version)
        return err_set(e, SF_EFORMAT, "%s: %s file of version %u, this program reads version %u",
                       f->path, k->what, get_u32(f->p + 8), k->version);
    size_t head = head_size(k);
    if (f->size < head + FRAME_TRAILER_B)
        return damaged(f, e, "truncated");
    if (get_u64(f->p + head - 8) != hash_fast(f->p, head - 8, 0))
        return damaged(f, e, "its header fails its checksum");
    const uint8_t *t = f->p + f->size - FRAME_TRAILER_B;
    if (memcmp(t + 24, end_magic, 8))
        return damaged(f, e, "truncated, or its end was changed");
    f->n = get_u64(t);
    uint64_t off = get_u64(t + 8);
    if (f->n > SECTIONS_MAX || off < head || off > f->size ||
        f->size - off != 16 * f->n + FRAME_TRAILER_B)
        return damaged(f, e, "its index does not fit");
    f->index = f->p + off;
    if (get_u64(t + 16) !=
        hash_fast(f->index, 16 * f->n, hash_fast(t, 16, get_u64(f->p + head - 8))))
        return damaged(f, e, "its index fails its checksum");
    /* the sections fill the space between header and index without a gap */
    uint64_t at = head;
    for (uint64_t i = 0; i < f->n; i++) {
        uint64_t packed;
        if (get_u64(f->index + 16 * i) != at || off - at < FRAME_SECTION_B ||
            (packed = get_u64(f->p + at + 16)) > off - at - FRAME_SECTION_B)
            return damaged(f, e, "its sections do not fit");
        at += FRAME_SECTION_B + packed;
    }
    if (at != off)
        return damaged(f, e, "its sections do not fit");
    f->header = f->p + FRAME_START_B;
    return 0;
}

int frame_open_bytes(struct frame_in *f, const struct frame_kind *kind, const char *name,
                     const void *p, size_t n, struct err *e)
{
    *f = (struct frame_in){ .kind = kind, .p = p, .size = n, .path = strdup(name) };
    int r = f->path ? check(f, e) : err_sys(e, ENOMEM, "%s", name);
    if (r < 0)
        frame_close(f);
    return r;
}

int frame_open(struct frame_in *f, const struct frame_kind *kind, const char *path, struct err *e)
{
    *f = (struct frame_in){ .kind = kind, .path = strdup(path) };
    struct stat st;
    CLEANUP(closep) int fd = file_open_regular(path, &st, e);
    int r = fd < 0 ? fd : 0;
    if (!f->path)
        r = err_sys(e, ENOMEM, "%s", path);
    if (r == 0 && st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            r = err_sys(e, errno, "%s", path);
        } else {
            f->p = p;
            f->size = (size_t)st.st_size;
            f->mapped = true;
        }
    }
    if (r == 0)
        r = check(f, e);
    if (r < 0)
        frame_close(f);
    return r;
}

void frame_close(struct frame_in *f)
{
    if (f->mapped)
        munmap((void *)(uintptr_t)f->p, f->size);
    free(f->path);
    *f = (struct frame_in){ 0 };
}

int frame_check(const struct frame_in *f, uint64_t i, uint32_t kind, uint32_t number,
                uint64_t *ret_raw_b, struct err *e)
{
    if (i >= f->n)
        return damaged(f, e, "a section is missing");
    const uint8_t *s = f->p + get_u64(f->index + 16 * i);
    if (hash_fast(s, FRAME_SECTION_B + get_u64(s + 16), 0) != get_u64(f->index + 16 * i + 8))
        return err_set(e, SF_EINTEGRITY, "%s: %s file is damaged: section %llu fails its checksum",
                       f->path, f->kind->what, (unsigned long long)i);
    if (get_u32(s) != kind || get_u32(s + 4) != number)
        return damaged(f, e, "its sections are not in order");
    /* zstd cannot say more with fewer bytes: a claim beyond that must not reserve memory */
    if (get_u64(s + 8) / 65536 > get_u64(s + 16))
        return damaged(f, e, "a section claims an impossible size");
    *ret_raw_b = get_u64(s + 8);
    return 0;
}

int frame_read(const struct frame_in *f, uint64_t i, uint32_t kind, uint32_t number, uint8_t **ret,
               size_t *room, size_t *ret_n, struct err *e)
{
    uint64_t raw;
    int r = frame_check(f, i, kind, number, &raw, e);
    if (r < 0)
        return r;
    if (raw + 1 > *room) {
        uint8_t *p = big_alloc(raw + 1);
        if (!p)
            return err_sys(e, ENOMEM, "%s", f->path);
        free(*ret);
        *ret = p;
        *room = raw + 1;
    }
    const uint8_t *s = f->p + get_u64(f->index + 16 * i);
    ssize_t n = zio_unpack(*ret, raw, s + FRAME_SECTION_B, get_u64(s + 16));
    if (n < 0 || (uint64_t)n != raw)
        return damaged(f, e, "a section cannot be unpacked");
    *ret_n = raw;
    return 0;
}
