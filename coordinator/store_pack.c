/* The architecture and the statistics of a row as one value each: a column for each number cost three times what the rest of a row
 * does. A packed list is its numbers in their order (ARCH_KEYS, ROW_STATS), each in 7 bits a byte from the low end on with the
 * top bit saying that more follow (LEB128), as short as can be. Zeros at the end of the statistics are left out, so that what a
 * later program adds to the list is 0 in older rows, and equal results are equal bytes.
 *
 * SQL reads a number by its name: arch_queue(arch), stat_mbps(stats). All connections know these functions. */
#include "coordinator/store_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/format/frame.h"

/* As get_var(), but any bytes are fine: what a number has too many of is cut off. */
static const uint8_t *get_number(const uint8_t *p, const uint8_t *end, uint64_t *ret)
{
    unsigned shift = 0;
    *ret = 0;
    for (bool more = true; more && p < end; p++, shift += 7) {
        if (shift < 64)
            *ret |= (uint64_t)(*p & 0x7f) << shift;
        more = *p & 0x80;
    }
    return p;
}

/* Where number k begins, or end. Eight bytes at a time: numbers end at bytes without the top bit. */
static const uint8_t *find_number(const uint8_t *p, const uint8_t *end, size_t k)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    while (end - p >= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        size_t ends = ((~word >> 7 & ones) * ones) >> 56;
        if (ends >= k)
            break;
        k -= ends;
        p += 8;
    }
    while (k && p < end)
        k -= !(*p++ & 0x80);
    return p;
}

size_t db_pack_arch(const struct arch *a, uint8_t out[PACKED_ARCH])
{
    const uint32_t *v = (const uint32_t *)(const void *)a;
    uint8_t *p = out;
    for (unsigned k = 0; k < ARCH_N; k++)
        p += put_var(p, v[k]);
    return (size_t)(p - out);
}

size_t db_pack_stats(const struct row_stats *s, uint8_t out[PACKED_STATS])
{
    const uint64_t *v = (const uint64_t *)(const void *)s;
    size_t n = ROW_STATS_N;
    while (n && !v[n - 1])
        n--;
    uint8_t *p = out;
    for (size_t k = 0; k < n; k++)
        p += put_var(p, v[k]);
    return (size_t)(p - out);
}

void db_unpack_arch(const void *p, size_t n, struct arch *ret)
{
    const uint8_t *at = p, *end = at + n;
    arch_default(ret);
    for (unsigned k = 0; k < ARCH_N && at < end; k++) {
        uint64_t v;
        at = get_number(at, end, &v);
        arch_put(ret, k, (uint32_t)v);
    }
}

/* ---- in SQL */

/* arch_NAME(arch) and stat_NAME(stats). A function for each: an argument that says which one would have to be looked up for each row. */
static void number_of(sqlite3_context *c, int argc, sqlite3_value **v)
{
    (void)argc;
    uintptr_t k = (uintptr_t)sqlite3_user_data(c);
    bool stat = k >= ARCH_N;
    if (sqlite3_value_type(v[0]) != SQLITE_BLOB)
        return; /* null */
    size_t n = (size_t)sqlite3_value_bytes(v[0]);
    const uint8_t *all = n ? sqlite3_value_blob(v[0]) : (const uint8_t *)"", *end = all + n;
    const uint8_t *p = find_number(all, end, stat ? k - ARCH_N : k);
    uint64_t number;
    if (p == end && !stat)
        return;
    get_number(p, end, &number);
    sqlite3_result_int64(c, (sqlite3_int64)number);
}

/* pack_arch(every key), for rows of before: null is the default, as it is for what a row of before did not know. */
static void pack_arch(sqlite3_context *c, int n, sqlite3_value **v)
{
    struct arch a;
    uint8_t out[PACKED_ARCH];
    arch_default(&a);
    for (int i = 0; i < n; i++)
        if (sqlite3_value_type(v[i]) != SQLITE_NULL)
            arch_put(&a, (unsigned)i, (uint32_t)sqlite3_value_int64(v[i]));
    sqlite3_result_blob(c, out, (int)db_pack_arch(&a, out), SQLITE_TRANSIENT);
}

/* pack_stats(every number), likewise: null is 0. */
static void pack_stats(sqlite3_context *c, int n, sqlite3_value **v)
{
    struct row_stats s;
    uint64_t *out = (uint64_t *)(void *)&s;
    uint8_t packed[PACKED_STATS];
    for (int i = 0; i < n; i++)
        out[i] = (uint64_t)sqlite3_value_int64(v[i]);
    sqlite3_result_blob(c, packed, (int)db_pack_stats(&s, packed), SQLITE_TRANSIENT);
}

static int add_function(sqlite3 *db, const char *prefix, const char *name, int n, uintptr_t ctx,
                        void (*f)(sqlite3_context *, int, sqlite3_value **))
{
    char full[64];
    snprintf(full, sizeof(full), "%s%s", prefix, name);
    return sqlite3_create_function_v2(db, full, n,
                                      SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS,
                                      (void *)ctx, f, NULL, NULL, NULL);
}

int db_functions(sqlite3 *db)
{
    int rc = SQLITE_OK;
    for (unsigned k = 0; rc == SQLITE_OK && k < ARCH_N; k++)
        rc = add_function(db, "arch_", arch_names[k], 1, k, number_of);
    for (unsigned k = 0; rc == SQLITE_OK && k < ROW_STATS_N; k++)
        rc = add_function(db, "stat_", row_stats_names[k], 1, ARCH_N + k, number_of);
    if (rc == SQLITE_OK)
        rc = add_function(db, "pack_", "arch", ARCH_N, 0, pack_arch);
    if (rc == SQLITE_OK)
        rc = add_function(db, "pack_", "stats", ROW_STATS_N, 0, pack_stats);
    return rc;
}

/* ---- rows of before version 13, with a column for each number */

/* "NAME(a_queue,NULL,...)": null where the table has no such column. */
static int add_call(struct buf *out, const char *name, const char *prefix,
                    const char *const names[], const bool has[], size_t n)
{
    int r = buf_addf(out, "%s(", name);
    for (size_t i = 0; r >= 0 && i < n; i++)
        r = has[i] ? buf_addf(out, "%s%s%s", i ? "," : "", prefix, names[i])
                   : buf_adds(out, i ? ",NULL" : "NULL");
    return r < 0 ? r : buf_adds(out, ")");
}

int db_old_numbers(sqlite3 *db, struct buf *arch, struct buf *stats)
{
    bool has_arch[ARCH_N] = { false }, has_stat[ROW_STATS_N] = { false };
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db, "SELECT name FROM pragma_table_info('t_row')", -1, &s, NULL);
    while (rc == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW) {
        const char *col = (const char *)sqlite3_column_text(s, 0);
        for (size_t i = 0; col && i < ARCH_N; i++)
            has_arch[i] |= !strncmp(col, "a_", 2) && !strcmp(col + 2, arch_names[i]);
        for (size_t i = 0; col && i < ROW_STATS_N; i++)
            has_stat[i] |= !strncmp(col, "s_", 2) && !strcmp(col + 2, row_stats_names[i]);
    }
    sqlite3_finalize(s);
    int r = add_call(arch, "pack_arch", "a_", arch_names, has_arch, ARCH_N);
    if (r >= 0)
        r = buf_adds(stats, "CASE status WHEN 0 THEN ");
    if (r >= 0)
        r = add_call(stats, "pack_stats", "s_", row_stats_names, has_stat, ROW_STATS_N);
    return r < 0 ? r : buf_adds(stats, " END");
}

int db_pack_rows(struct store *st, struct err *e)
{
    CLEANUP(buf_clear) struct buf arch = BUF_INIT(8 << 10), stats = BUF_INIT(8 << 10);
    int r = db_old_numbers(st->db, &arch, &stats);
    CLEANUP(freep)
    char *sql = r < 0 ? NULL
                      : path_fmt("INSERT INTO t_row SELECT sweep,idx,status,%s,%s,point,trace,near,"
                                 "by,epoch,n,task,reg,engine,threads,started_ms,duration_us,"
                                 "error FROM t_row_old ORDER BY sweep, idx;"
                                 "DROP TABLE t_row_old",
                                 (char *)stats.data, (char *)arch.data);
    if (!sql)
        return err_sys(e, ENOMEM, "%s: rows", st->path);
    r = db_exec(
        st,
        "DROP VIEW IF EXISTS results;" /* it names columns that go; made again at the end */
        "ALTER TABLE t_row RENAME TO t_row_old;"
        "CREATE TABLE t_row(sweep INTEGER NOT NULL, idx INTEGER NOT NULL,"
        " status INTEGER NOT NULL, stats BLOB, arch BLOB, point BLOB, trace INTEGER, near INTEGER,"
        " by INTEGER NOT NULL, epoch INTEGER, n INTEGER, task INTEGER, reg INTEGER,"
        " engine INTEGER, threads INTEGER, started_ms INTEGER, duration_us INTEGER,"
        " error TEXT, PRIMARY KEY(sweep, idx)) STRICT, WITHOUT ROWID",
        e, "rows");
    if (r >= 0)
        r = db_exec(st, sql, e, "rows");
    return r < 0 ? r : db_fill_near(st, e);
}
