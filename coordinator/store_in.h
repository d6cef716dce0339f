/* Inside of the store: what store.c, store_schema.c, store_sweep.c, store_fleet.c, store_row.c, store_block.c, store_pack.c, store_refs.c, store_sum.c, store_mark.c and store_ask.c share. Nobody else
 * includes this: sqlite3.h ends here. */
#pragma once
#include <sqlite3.h>

#include "coordinator/store.h"

enum { STMT_MAX = 128 };

struct store {
    sqlite3 *db;
    sqlite3 *asker; /* read-only, for --sql; opened when first asked */
    char *dir, *path;
    int lock, mark;
    uint8_t *page; /* store_mark.c: room for one, made when first needed */
    bool open_tx, read_only;
    struct {
        const char *sql; /* a literal: its address is the key */
        sqlite3_stmt *st;
    } cache[STMT_MAX];
    size_t n_cache;
    uint8_t *used; /* bit a trace: is noted as one that results were computed from */
    size_t n_used; /* bytes */
    struct
        row_count { /* rows of this transaction that t_sweep does not count yet; sweep 0 = none */
        uint64_t sweep;
        int64_t done, failed, invalid, known, equal;
    } count;
    const struct block *block; /* of the statement at work, see store_block.c */
    bool has_block;            /* SQLite knows them */
};

/* store.c: errors and statements */
int db_error(const struct store *st, int rc, struct err *e, const char *what);
/* A prepared statement for a literal text: made once, reset. NULL = failed, e says why. */
sqlite3_stmt *db_use(struct store *st, const char *sql, struct err *e);
/* The same for what touches rows and not t_sweep: rows are counted once for many, just before anybody could look. */
sqlite3_stmt *db_use_row(struct store *st, const char *sql, struct err *e);
/* Bind from the first parameter on: u = uint64_t, t = const char * (NULL = null), b = const void *, size_t (NULL = null),
 * i = const struct id * (NULL = null), z = uint64_t where 0 is null. */
void db_bind(sqlite3_stmt *s, const char *fmt, ...);
/* 1 = a row, 0 = done, or an error. The statement is reset unless a row came. */
int db_step(struct store *st, sqlite3_stmt *s, struct err *e, const char *what);
int db_exec(struct store *st, const char *sql, struct err *e, const char *what);
uint64_t db_u64(sqlite3_stmt *s, int k);
void db_text(sqlite3_stmt *s, int k, char *out, size_t room);
void db_id(sqlite3_stmt *s, int k, struct id *ret);

/* store_pack.c: see there */
enum { PACKED_ARCH = 5 * ARCH_N, PACKED_STATS = 10 * ROW_STATS_N }; /* bytes at most */
size_t db_pack_arch(const struct arch *a, uint8_t out[PACKED_ARCH]);
size_t db_pack_stats(const struct row_stats *s, uint8_t out[PACKED_STATS]);
void db_unpack_arch(const void *p, size_t n, struct arch *ret); /* of any bytes */
/* What SQL reads them with: every connection needs it that reads the view `results`. SQLite's code. */
int db_functions(sqlite3 *db);
/* Two expressions that make them of the columns of a t_row of before version 13. */
int db_old_numbers(sqlite3 *db, struct buf *arch, struct buf *stats);
/* The step to version 13. In one transaction, row by row: t_row is written anew. */
int db_pack_rows(struct store *st, struct err *e);

/* store.c: opens with what every connection has; *ret is to be closed in any case. SQLite's code. */
int db_connect(const char *path, int flags, sqlite3 **ret);

/* The columns of t_row, in their order: what is asked for most is in front, since SQLite goes through a row from its start. */
#define ROW_COLS                                                                                   \
    "sweep,idx,status,stats,arch,point,trace,near,by,epoch,n,task,reg,engine,threads,started_ms,"  \
    "duration_us,error"

/* store_sum.c: the name of the file layer with sums of pages, for sqlite3_open_v2(); NULL = there is no memory. */
const char *db_vfs(void);
/* A new file gets sums; one without gets them with the next VACUUM. Before anything is read. */
int db_want_sums(sqlite3 *db);
bool db_has_sums(sqlite3 *db); /* or will have with the next VACUUM */
/* Pages with a wrong sum are given out as they are (and still noted), for what is better than nothing. */
void db_lenient(sqlite3 *db, bool on);
/* The page that made the last SQLITE_IOERR_DATA, 0 = none since the last call. */
uint64_t db_bad_page(sqlite3 *db);

/* store_check.c: what damage shows in the time that a start may take: a small store is read whole, of a large one the first part */
int db_quick_check(struct store *st, struct err *e);

/* store_mark.c: each commit of st is marked from now on, and checkpoints are made; at the end all of the log goes into
 * store.db, or it stays. st->mark is -1 when not open. */
int mark_open(struct store *st, struct err *e);
void mark_close(struct store *st);

/* store_row.c: st->count goes into t_sweep */
int db_flush_count(struct store *st, struct err *e);

/* One row more for t_sweep. */
int db_count_row(struct store *st, uint64_t sweep, enum row_status status, struct err *e);

/* store_block.c */
/* The number that a point is looked up by in t_row, 0..INT64_MAX. trace: number. Depends on the keys of struct arch, as ids of
 * points do. */
int64_t db_near(uint64_t trace, const struct arch *a);
/* Rows that lack it get it, and all of them their index. */
int db_fill_near(struct store *st, struct err *e);

/* store_schema.c */
struct column {
    const char *name, *expr;
    bool number; /* a whole number, or null */
};
const struct column *store_column(size_t i); /* default ones, then provenance */
extern const char store_results_from[]; /* " FROM t_row r JOIN ..." that the expressions need */
int db_version(struct store *st, uint64_t *ret, struct err *e);
int db_migrate(struct store *st, struct err *e);

/* store_refs.c */
/* Note once that a row was computed from this trace (number; 0 = none). */
int db_mark_used(struct store *st, uint64_t trace, struct err *e);

/* store_fleet.c */
/* "ab12..." of 8 to 64 hex digits -> its bytes as lowest and highest id. */
bool db_id_range(const char *text, struct id *lo, struct id *hi);
void db_artefact(sqlite3_stmt *s,
                 struct store_artefact *a); /* id, size_b, kind, name, added_ms, pinned */
