/* The container of our own files: a header, compressed sections one after another, an index, a trailer.
 *
 *     16 B  magic (8), version u32, check of these 12 bytes u32
 *     fixed header of the kind of file, ended by its XXH3
 *     sections: kind u32, number u32, raw size u64, packed size u64; packed bytes (one zstd frame)
 *     index: for each section its offset u64 and the XXH3 of its header and packed bytes u64
 *     trailer 32 B: sections u64, offset of the index u64, XXH3 of header and index u64, end magic (8)
 *
 * All numbers are little-endian. Every byte is under a checksum, and a section can be found and read alone. The
 * bytes depend on the content only, so equal content has an equal content id.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/file.h"
#include "proto/lib/hash.h"

struct frame_kind {
    const char magic[8];
    const char *what; /* "trace": for messages */
    uint32_t version;
    size_t header_b; /* of the fixed header, its checksum not included */
};

enum { FRAME_START_B = 16, FRAME_SECTION_B = 24, FRAME_TRAILER_B = 32 };

/* ---- writing: begin, any number of adds, end or abort. */

struct frame_out {
    const struct frame_kind *kind;
    struct file_new file;
    bool to_file;
    struct cid *cid;
    uint64_t off, n;
    struct buf index;
    uint8_t *header; /* start and fixed header, owned */
};

/* path NULL: nothing is written, only the content id is made. header: kind->header_b bytes. */
int frame_begin(struct frame_out *o, const struct frame_kind *kind, const char *path,
                const void *header, bool force, struct err *e);
int frame_add(struct frame_out *o, uint32_t kind, uint32_t number, const void *raw, size_t n,
              int level, struct err *e);
/* Ends it on failure, too. ret_id may be NULL. */
int frame_end(struct frame_out *o, struct id *ret_id, struct err *e);
void frame_abort(struct frame_out *o); /* accepts an ended one */

/* ---- reading: the file is mapped; headers and index are checked at once, a section when it is read. */

struct frame_in {
    const struct frame_kind *kind;
    char *path; /* owned */
    const uint8_t *p;
    size_t size;
    const uint8_t *header; /* the fixed header */
    const uint8_t *index;
    uint64_t n; /* sections */
    bool mapped;
};

/* -SF_EFORMAT: empty, no such file kind, another version; -SF_EINTEGRITY: damaged or truncated. */
int frame_open(struct frame_in *f, const struct frame_kind *kind, const char *path, struct err *e);
/* The same over bytes in memory (borrowed): for fuzzing. */
int frame_open_bytes(struct frame_in *f, const struct frame_kind *kind, const char *name,
                     const void *p, size_t n, struct err *e);
/* Section i must be (kind, number). Its checksum is verified. */
int frame_check(const struct frame_in *f, uint64_t i, uint32_t kind, uint32_t number,
                uint64_t *ret_raw_b, struct err *e);
/* Checked and unpacked into *ret, which holds at least room bytes and is grown when needed (owned by the caller). */
int frame_read(const struct frame_in *f, uint64_t i, uint32_t kind, uint32_t number, uint8_t **ret,
               size_t *room, size_t *ret_n, struct err *e);
void frame_close(struct frame_in *f);

/* ---- little-endian numbers and variable-length ones */

static inline void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline void put_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t get_u64(const uint8_t *p)
{
    return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

/* LEB128, at most 10 bytes. Returns the bytes used. */
static inline size_t put_var(uint8_t *p, uint64_t v)
{
    size_t n = 0;
    for (; v >= 128; v >>= 7)
        p[n++] = (uint8_t)(v | 128);
    p[n++] = (uint8_t)v;
    return n;
}

/* Moves *p; false at the end of the bytes or for a number over 64 bits. */
static inline bool get_var(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70 && *p < end; shift += 7) {
        uint8_t b = *(*p)++;
        if (shift == 63 && b > 1)
            return false;
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128) {
            *ret = v;
            return true;
        }
    }
    return false;
}

/* Small differences of either sign become small numbers; wraps, so any pair of u64 works. */
static inline uint64_t zigzag(uint64_t now, uint64_t before)
{
    uint64_t d = now - before;
    return d << 1 ^ (uint64_t) - (int64_t)(d >> 63);
}

static inline uint64_t unzigzag(uint64_t z, uint64_t before)
{
    return before + (z >> 1 ^ (uint64_t) - (int64_t)(z & 1));
}
