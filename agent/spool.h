/* What a task has finished, on disk until the coordinator has acknowledged it.
 *
 * DIR/rows   appended by the task while it runs, read by the agent while it grows. A record is
 *            u32le bytes of the body | 8 bytes BLAKE2b of the body | body
 *            body: u64le index | 32 bytes point | u8 status | u64le duration_us | u16le n_error | u16le n_stats | both
 *            One write(2) a call, so a killed task leaves whole records and at most one torn one at the end.
 * DIR/acked  how many rows need not be sent again: 20 digits and LF.
 * DIR/end    JSON: how it ended; its presence means that the task is over.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/lib/hash.h"
#include "proto/wire/msg.h"

enum { SPOOL_ERROR_MAX = 500, SPOOL_STATS_MAX = 1024 };

struct spool_row {
    uint64_t index;
    struct id point;
    unsigned status; /* enum row_status */
    uint64_t duration_us;
    const char *error; /* borrowed; NULL = "" ; cut at SPOOL_ERROR_MAX bytes */
    const void *stats; /* row_stats_pack(), borrowed */
    size_t n_stats;    /* at most SPOOL_STATS_MAX */
};

/* Append n rows with one write to a file opened with O_APPEND. buf: scratch, reset first. Returns 0 or -errno
 * (-ENOSPC leaves a torn record: stop then). Not synced: a task is run again after a power loss. */
int spool_append(int fd, const struct spool_row rows[], size_t n, struct buf *scratch,
                 struct err *e);

struct spool;

/* Follow a rows file, which may not exist yet. Owned by the caller. */
int spool_open(const char *path, struct spool **ret, struct err *e);
void spool_close(struct spool **s);

/* Look for new rows. Returns 0; -SF_EINTEGRITY when a record in the middle is damaged: what stands before it counts. */
int spool_poll(struct spool *s, struct err *e);
uint64_t spool_count(const struct spool *s); /* whole rows seen by spool_poll() */

/* Rows first .. first+n-1 (first + n <= spool_count()) as a message wants them; strings and bytes point into *block. */
int spool_read(struct spool *s, uint64_t first, uint64_t n, struct wire_row *ret, struct buf *block,
               struct err *e);
int spool_sync(const struct spool *s); /* fdatasync; 0 or -errno */

/* DIR/acked. A missing or broken one reads as 0: rows sent twice are accepted once. */
int spool_save_acked(const char *dir, uint64_t rows);
uint64_t spool_load_acked(const char *dir);

/* How a task ended. info and tail are owned. */
struct spool_end {
    enum task_cause cause;
    uint64_t exit, signal, duration_ms;
    char *info; /* JSON text of what was made; NULL = none */
    char *tail; /* last lines of its stderr; NULL = none */
};
void spool_end_clear(struct spool_end *end);
/* durable: on the disk on return; else a power loss may take it, which loses the attempt. Never half of it. */
int spool_save_end(const char *dir, const struct spool_end *end, bool durable, struct err *e);
/* -ENOENT: not over yet. -SF_EINTEGRITY: not readable. */
int spool_load_end(const char *dir, struct spool_end *ret, struct err *e);
