/* Inside of proto/cas: what cas.c, read.c, put.c and publish.c share. */
#pragma once
#include "proto/cas/cas.h"
#include "proto/cas/map.h"

/* A put that is not whole and that nobody works on. Its space is taken all the same. */
struct idle {
    struct id id;
    uint64_t size_b, used_ms;
};

struct cas {
    char *dir;
    uint64_t cap_b, used_b, reserved_b, idle_b, grow_b;
    struct idle *idle; /* oldest first */
    size_t n_idle;
    struct cas_item *v; /* by id */
    size_t n, room;
    struct cas_put *puts;
    unsigned temp_n;
    bool look_only;
};

struct cas_put {
    struct cas *cas; /* borrowed */
    struct cas_put *next;
    struct id id;
    uint64_t size_b;
    struct cas_map map;
    bool resumed;     /* an earlier put left some of it */
    uint8_t *written; /* as the file of the map has it: also what is not verified yet */
    uint64_t checked; /* below this, all that is written counts: cas_put_check() */
    char *path, *map_path;
    int fd, map_fd;
    uint64_t n_have;
};

static inline uint64_t chunks_of(uint64_t size)
{
    return size / CID_CHUNK + (size % CID_CHUNK != 0);
}

static inline size_t chunk_len(uint64_t size, uint64_t index)
{
    uint64_t off = index * CID_CHUNK;
    return size - off < CID_CHUNK ? (size_t)(size - off) : CID_CHUNK;
}

/* cas.c */
/* Where the bytes of an artefact, or those of a put, are. Owned; NULL without memory. */
char *cas_item_path(const struct cas *c, const struct id *id, const char *suffix);
char *cas_partial_path(const struct cas *c, const struct id *id, const char *suffix);
/* Borrowed until the index changes; NULL when it is not here. */
struct cas_item *cas_find(const struct cas *c, const struct id *id);
/* It is here now. 0, also when it was; -ENOMEM. */
int cas_insert(struct cas *c, const struct id *id, uint64_t size, uint64_t used_ms);
/* It is used now. The time of the file carries the order of use over a restart. */
void cas_touch(struct cas *c, struct cas_item *it);
/* Its files and its place in the index go, pinned or not. -errno. */
int cas_remove(struct cas *c, struct cas_item *it, struct err *e);
/* Room for need bytes under the cap, by removing puts that nobody works on, then what is unpinned, each the longest unused
 * first; nothing is removed when that would not be enough. -EFBIG, -ENOSPC. */
int cas_make_room(struct cas *c, uint64_t need, struct err *e);
/* A put that nobody worked on: somebody does again, or it is removed: then with its files. False: there is none. */
bool cas_idle_take(struct cas *c, const struct id *id, bool drop);
void cas_idle_drop_all(struct cas *c);
/* Nobody works on a put any more: kept for who resumes it, or removed, so that its space is of use to others. */
void cas_leave(struct cas *c, const struct id *id, uint64_t size, bool keep);

/* put.c */
/* The folder of puts, which may have been removed since the start. -errno. */
int cas_make_partial(const struct cas *c, struct err *e);

/* publish.c */
/* An artefact on its way to DIR/xx: its list of hashes first, then by rename the bytes at temp. In steps, so that several wait for
 * the disk together. What a crash leaves between two of them is a list without bytes. */
struct publish {
    struct cas *cas;
    const struct id *id;
    uint64_t size;
    const char *temp;
    int temp_fd, list_fd;
    char *path, *list, *folder;
};

void publish_clear(struct publish *u);
/* The list is written; its bytes and those of the artefact begin to move to the disk. -errno. */
int publish_begin(struct publish *u, const struct id *hashes, size_t n, struct err *e);
/* Both are durable, the bytes have their name; u->folder must be fsynced before anybody is told. -errno. */
int publish_rename(const struct publish *u, struct err *e);
/* The folder could not be fsynced: the caller has its file as it was, and may try again. */
void publish_back(const struct publish *u);
/* It counts as here. -ENOMEM. */
int publish_end(const struct publish *u, struct err *e);
