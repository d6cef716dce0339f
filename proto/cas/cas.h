/* Content store: artefacts by name (content id, proto/lib/hash.h) in a directory.
 *
 *     DIR/ab/abcd...         the bytes, mode 0444; whole or absent
 *     DIR/ab/abcd....hashes  "SFH1", u32le 0, u64le size, chunk hashes; checked when read
 *     DIR/partial/ID         bytes of a put that is not whole
 *     DIR/growing/...        see grow.h
 *     DIR/partial/ID.map     its size, hashes and one bit a chunk, see map.h
 *
 * A put resumes at its first missing chunk, also after a crash: set bits are only a hint, the
 * chunks are hashed again (cas_put_check()) before they count. An artefact becomes visible by rename after fsync.
 *
 * A put that nobody works on keeps its space until the cap or the disk needs it, at most 7 days.
 *
 * One process owns a store; other processes may read the paths. Not thread-safe.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"

#define CAS_SIZE_MAX                                                                               \
    (UINT64_C(1) << 44) /* of one artefact: 16 TiB, so that hostile sizes cost no memory */

struct cas;
struct cas_put;

struct cas_item {
    struct id id;
    uint64_t size_b;
    uint64_t used_ms; /* wall time of the last use: LRU order */
    unsigned pins;
    bool gone; /* its files were removed; it stands here for its pins only, size_b is 0 */
};

/* Open or make the store. cap_b: most bytes of whole artefacts and running puts, 0 = no cap.
 * Leftovers of crashes other than partial puts are removed. -errno. */
int cas_open(const char *dir, uint64_t cap_b, struct cas **ret, struct err *e);
/* To look only: nothing is made, removed or resumed; another process may own it. -ENOENT where there is none. */
int cas_open_ro(const char *dir, struct cas **ret, struct err *e);
void cas_free(struct cas **c);

bool cas_has(const struct cas *c, const struct id *id);
/* As cas_has, after a look at the directory: one whose files somebody removed is forgotten, so that
 * it can be put again. Its pins stay. */
bool cas_check(struct cas *c, const struct id *id);
/* *ret borrowed until the next call that changes the store. Returns 0 or -ENOENT. */
int cas_stat(const struct cas *c, const struct id *id, const struct cas_item **ret);
/* Where it is. Owned; NULL when it is not here (or without memory). Counts as a use. Pin it while
 * it must stay. */
char *cas_path(struct cas *c, const struct id *id);
/* All items by id; *ret borrowed until the next call that changes the store. */
size_t cas_list(const struct cas *c, const struct cas_item **ret);
/* Whole artefacts, growing ones (grow.h), and space reserved by open puts. */
uint64_t cas_bytes(const struct cas *c);
/* The artefact was asked for or named: it counts as used now. Nothing when it is not here. */
void cas_use(struct cas *c, const struct id *id);

struct cas_figures {
    uint64_t artefacts, used_b;   /* whole ones */
    uint64_t pinned_b;            /* of them */
    uint64_t reserved_b;          /* by puts that are at work */
    uint64_t partials, partial_b; /* puts that nobody works on */
    uint64_t growing_b;           /* artefacts that come while they are written */
    uint64_t cap_b;               /* 0 = none */
};
void cas_figures(const struct cas *c, struct cas_figures *ret);
/* Give need bytes back to the disk: puts that nobody works on go, then what is unpinned, each the longest unused first. Returns the
 * bytes that went. */
uint64_t cas_shrink(struct cas *c, uint64_t need);
/* Bytes that are taken by a put of this id that nobody works on; 0 = there is none. */
uint64_t cas_partial(const struct cas *c, const struct id *id);
/* Remove puts that nobody has worked on since before_ms (wall). Returns the bytes they had reserved; drop = false: would have. */
uint64_t cas_drop_partials(struct cas *c, uint64_t before_ms, bool drop, size_t *ret_n);

/* Chunk hashes of an artefact. *ret owned (free()); NULL for size 0. -ENOENT, -SF_EINTEGRITY when
 * they do not give the id. */
int cas_hashes(const struct cas *c, const struct id *id, struct id **ret, size_t *ret_n,
               uint64_t *ret_size, struct err *e);
/* Chunk index (1 MiB, the last one shorter) into p, room >= CID_CHUNK. Returns its bytes; -ENOENT;
 * -EINVAL past the end; -errno. Not verified here: the receiver does. */
ssize_t cas_read(const struct cas *c, const struct id *id, uint64_t index, void *p, size_t room,
                 struct err *e);

/* The bytes of an artefact, to be read elsewhere (another thread): a descriptor of the caller's, or -errno. It stays good when
 * the artefact is removed. */
int cas_open_item(const struct cas *c, const struct id *id, uint64_t *ret_size, struct err *e);

/* Begin or resume a put. hashes: n = ceil(size/1 MiB) of them, copied; -SF_EINTEGRITY unless they
 * give the id. Space is reserved at once (on tmpfs booked: what other open puts want counts, what other programs take later does not): -ENOSPC when the disk or the cap (after evicting what is
 * unpinned, oldest first) has no room, -EFBIG when it alone is larger than the cap. -EEXIST when it
 * is here already, -EBUSY when this id is being put. What an earlier put of it holds counts as its space, and is kept when there is
 * no room for the rest (-ENOSPC). One owner; end it with cas_commit or
 * cas_put_close. */
int cas_begin(struct cas *c, const struct id *id, uint64_t size_b, const struct id hashes[],
              size_t n, struct cas_put **ret, struct err *e);
/* What an earlier put of this id left counts only when it was hashed again: n more chunks of it. 1 = all were, 0 = there are
 * more, -errno. Those that are not it any more will be missing. Until it returned 1 nothing else may be done with the put but
 * to close it. n chunks cost n MiB of reading and hashing and of memory (HASH_LANES MiB at most). */
int cas_put_check(struct cas_put *p, size_t n, struct err *e);
bool cas_put_has(const struct cas_put *p, uint64_t index);
/* First missing chunk at or after from; the number of chunks when none is. */
uint64_t cas_put_missing(const struct cas_put *p, uint64_t from);
/* Add a chunk: 0 (also when it was there), -SF_EINTEGRITY when length or hash is wrong, -errno. */
int cas_put_chunk(struct cas_put *p, uint64_t index, const void *data, size_t n, struct err *e);
/* The same in two steps for two threads, each step in one thread at a time, while nobody else does anything with this put but
 * cas_put_has() of other chunks: first the bytes, then whether they are the right ones (is: the BLAKE2b-256 of them). Bytes that were written and not
 * verified when the process was killed are found by the next cas_begin(). */
int cas_put_write(struct cas_put *p, uint64_t index, const void *data, size_t n, struct err *e);
int cas_put_verify(struct cas_put *p, uint64_t index, const struct id *is, size_t n, struct err *e);
/* A descriptor of the caller's to read what has come, in any thread. It stays good when the put has ended. */
int cas_put_open(const struct cas_put *p, struct err *e);
/* fsync what was written so far, so that a commit has little to wait for. Any one thread. */
int cas_put_sync(struct cas_put *p, struct err *e);
/* fsync and make visible. -EINVAL when chunks are missing. Frees *p on success. */
int cas_commit(struct cas_put **p, struct err *e);
/* The same of n puts, which wait for the disk together: ret[i] is what cas_commit() would return, with errs[i]. */
void cas_commit_all(struct cas_put *p[], size_t n, int ret[], struct err errs[]);
/* Leave it: drop = false keeps what came for a later cas_begin. Accepts NULL. Frees *p. */
void cas_put_close(struct cas_put **p, bool drop);

/* Take a file in: shared blocks where the file system can (FICLONE), else copied; hashed while
 * streamed. The file may not change meanwhile. Already here: hashed as well, and replaced when it is damaged, else it counts
 * as a use. ret_size may be NULL.
 * -ENOSPC and -EFBIG as cas_begin(). */
int cas_import(struct cas *c, const char *path, struct id *ret, uint64_t *ret_size, struct err *e);

/* -ENOENT; -EBUSY while pinned. */
int cas_delete(struct cas *c, const struct id *id, struct err *e);
/* Move what is damaged out of the way, into the folder to (made), and forget it here; pins stay. -ENOENT. */
int cas_aside(struct cas *c, const struct id *id, const char *to, struct err *e);
/* Pins are counted and die with the process. -ENOENT. */
int cas_pin(struct cas *c, const struct id *id);
void cas_unpin(struct cas *c, const struct id *id);

/* Hash n chunks from chunk `from` on: 0 = they are well, 1 = and they were the last; else as cas_verify(). */
int cas_verify_part(const struct cas *c, const struct id *id, uint64_t from, uint64_t n,
                    uint64_t *ret_chunk, struct err *e);
/* ---- for grow.h */

const char *cas_dir(const struct cas *c); /* borrowed */
/* Growing files have become so many bytes longer. */
void cas_grow_count(struct cas *c, int64_t more_b);
/* Rename a whole file of the store's own folder, open as fd, to the artefact id that its n hashes give; it is fsynced
 * here and not read. -errno: it is where it was. */
int cas_adopt(struct cas *c, const struct id *id, uint64_t size_b, const struct id hashes[],
              size_t n, const char *path, int fd, struct err *e);

/* Hash the whole artefact. 0, or -SF_EINTEGRITY with *ret_chunk = first bad chunk (UINT64_MAX: the
 * hashes or the size). */
int cas_verify(const struct cas *c, const struct id *id, uint64_t *ret_chunk, struct err *e);
