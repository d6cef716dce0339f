/* A byte stream from a file that may be zstd-compressed (told by its magic number) or plain. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"

struct zio;

/* max_b: refuse (with -EFBIG) streams longer than this after decompression; 0 = no limit. Owned by
 * the caller. */
int zio_open(const char *path, uint64_t max_b, struct zio **ret, struct err *e);
/* Up to n bytes; short only at the end of the stream, 0 there. A truncated or damaged zstd stream
 * is -SF_EINTEGRITY. */
ssize_t zio_read(struct zio *z, void *p, size_t n, struct err *e);
void zio_free(struct zio **z);

/* A new file that is packed while it is written: one zstd frame with a checksum. What has been written stands in the file
 * soon, never changes again, and its content id is known at the end without a second look. */
struct zio_out;
/* -EEXIST when path exists. */
int zio_create(const char *path, int level, struct zio_out **ret, struct err *e);
int zio_write(struct zio_out *z, const void *p, size_t n, struct err *e);
/* Completes it, whole on the disk when this returns 0; else nothing is left there. Frees z in any case. */
int zio_end(struct zio_out **z, struct id *ret, uint64_t *ret_size, struct err *e);
void zio_abort(struct zio_out **z); /* accepts NULL; removes the file */

/* One-shot zstd with a frame checksum. Bounds are the caller's. Return the size or -errno /
 * -SF_EINTEGRITY. */
ssize_t zio_pack(void *dst, size_t room, const void *src, size_t n, int level);
ssize_t zio_unpack(void *dst, size_t room, const void *src, size_t n);
size_t zio_bound(size_t n);

/* The same with its tables kept between calls, for many blocks. level may be negative (faster). NULL without memory. */
struct zio_packer;
struct zio_packer *zio_packer_new(int level);
void zio_packer_level(struct zio_packer *p, int level); /* from the next block on */
void zio_packer_free(struct zio_packer **p);
ssize_t zio_packer_pack(struct zio_packer *p, void *dst, size_t room, const void *src, size_t n);
struct zio_unpacker;
struct zio_unpacker *zio_unpacker_new(void);
void zio_unpacker_free(struct zio_unpacker **u);
ssize_t zio_unpacker_unpack(struct zio_unpacker *u, void *dst, size_t room, const void *src,
                            size_t n);

/* Whether packing the blocks of a stream pays: told by the first ones, so that what cannot be packed costs nothing. After ZIO_TRIES
 * in a row that it did not help, one in ZIO_AGAIN is tried: the middle of a file may differ from its head. All 0 at first. */
enum { ZIO_TRIES = 3, ZIO_AGAIN = 128 };
struct zio_worth {
    unsigned losses, untried;
};
bool zio_worth_try(struct zio_worth *w);
/* A block of n bytes became packed ones (negative: it could not be packed). Returns whether it is sent so. */
bool zio_worth_note(struct zio_worth *w, size_t n, ssize_t packed);
