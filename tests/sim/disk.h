/* A host's disk in memory, with the lies of a real one.
 *
 * What is written is visible at once but durable only after a sync: of a file, its bytes; of a directory, every name
 * made, changed or removed on the disk before (a journal is committed whole), or COMMIT_MS later by itself. At a loss of
 * power each unsynced write survives, is lost or is torn at sectors, and of the unsynced names a prefix survives.
 *
 * Faults fall on operations of the part that runs; the simulator's own calls never fail.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct bulk;
struct disk;
struct inode;

/* An open file description. */
struct ofd {
    enum ofd_kind { OFD_FILE, OFD_DIR, OFD_PID, OFD_SIGNALS, OFD_BULK } kind;
    const struct bulk *bulk;
    unsigned refs, host;
    struct disk *disk;
    struct inode *inode;
    int flags;
    uint64_t pos, pid;
    bool locked, shared;
};

enum disk_fault {
    DISK_ENOSPC,
    DISK_EIO,
    DISK_TORN,
    DISK_SYNC,
    DISK_CRASH,
    DISK_POWER,
    DISK_FAULTS
};

struct disk *disk_new(unsigned host);
void disk_free(struct disk **d);
/* Power went: what was not synced is at the mercy of salt (same salt, same outcome). */
void disk_power_loss(struct disk *d, uint64_t salt);
/* The next `count` operations that can fail so do, after `skip` of them. */
void disk_fault(struct disk *d, enum disk_fault f, uint64_t count, uint64_t skip);
/* The part that does an operation that changes something, after `skip` of them, is killed (power: with its host). */
void disk_kill_at(struct disk *d, bool power, uint64_t skip, uint64_t down_ms);
void disk_full(struct disk *d, uint64_t until_ms);
bool disk_is_full(const char *path); /* the disk that path lies on */
/* Turn a bit in one of the files below a folder, durable or not: it stays so. ret_name: of the file; "" = there is none. */
void disk_rot(struct disk *d, const char *folder, uint64_t salt, char ret_name[128]);
void disk_mend(struct disk *d); /* no fault any more */

/* Every path begins with /sim/HOST/; false for any other. */
bool disk_owns(const char *path);

/* All return 0 or more, or a negative errno. */
int disk_open(const char *path, int flags, mode_t mode, struct ofd **ret);
void disk_close(struct ofd *f); /* drops a reference */
ssize_t disk_pread(struct ofd *f, void *p, size_t n, uint64_t off);
ssize_t disk_pwrite(struct ofd *f, const void *p, size_t n, uint64_t off);
ssize_t disk_append(struct ofd *f, const void *p, size_t n);
int disk_truncate(struct ofd *f, uint64_t size);
int disk_reserve(struct ofd *f, uint64_t size);
int disk_sync(struct ofd *f);
int disk_sync_names(struct ofd *f); /* the journal of names of its disk */
bool disk_is(const struct ofd *f, const char *path);
int disk_stat(const char *path, struct stat *st);
void disk_fstat(struct ofd *f, struct stat *st);
int disk_unlink(const char *path);
int disk_rmdir(const char *path);
int disk_mkdir(const char *path);
int disk_rename(const char *from, const char *to);
int disk_link(const char *from, const char *to);
int disk_touch(const char *path);
int disk_flock(struct ofd *f, int op);
void disk_unflock(struct ofd *f);
/* Name number i of an open directory, or NULL. Borrowed until the directory changes. */
const char *disk_name(struct ofd *dir, size_t i);
int disk_at(struct ofd *dir, const char *name, char *path, size_t n); /* path of a name in it */
uint64_t disk_size(const struct ofd *f);
const uint8_t *disk_bytes(const struct ofd *f);
/* Writes of this file that are not durable yet; 0 when a fault since its last sync may have left them there. */
uint64_t disk_unsynced(const char *path);
/* SQLite's locks on a file, and the memory shared by those who have it open (its WAL index). */
enum { DISK_SHM_MAX = 64 };
struct disk_locks {
    unsigned shared;
    bool reserved, pending, exclusive;
    unsigned shm_users;
    uint16_t shm_shared[8];
    bool shm_exclusive[8];
    void *region[DISK_SHM_MAX];
};
struct disk_locks *disk_locks(struct ofd *f);

/* A copy of all that is durable on it, and back: so that not every world makes its first store anew. */
struct disk *disk_copy(const struct disk *d, unsigned host);
