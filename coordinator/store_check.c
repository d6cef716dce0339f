/* Whether the file is whole: at a start as much as there is time for, for fsck all of it. */
#include "coordinator/store_in.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"

enum { CHECK_MS = 250 };

static void finalizep(sqlite3_stmt **s)
{
    sqlite3_finalize(*s);
}

static int check_time(void *until_ms)
{
    return clock_mono_ms() >= *(uint64_t *)until_ms;
}

/* 0, or -SF_EINTEGRITY with what the pragma says is wrong first; a page with a wrong sum is named as that, *ret_page. */
static int ask(struct store *st, const char *pragma, uint64_t *ret_page, struct err *e)
{
    CLEANUP(finalizep) sqlite3_stmt *s = NULL;
    db_bad_page(st->db);
    int rc = sqlite3_prepare_v2(st->db, pragma, -1, &s, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    const char *text = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(s, 0) : NULL;
    if ((rc & 0xff) == SQLITE_INTERRUPT || (text && !strcmp(text, "ok")))
        return 0;
    if ((*ret_page = db_bad_page(st->db)))
        return err_set(e, SF_EINTEGRITY,
                       "%s: damaged: page %" PRIu64 " does not have the sum it was written with",
                       st->path, *ret_page);
    if (text)
        return err_set(e, SF_EINTEGRITY, "%s: damaged: %.150s", st->path, text);
    return rc == SQLITE_DONE ? 0 : db_error(st, rc, e, "check");
}

int db_quick_check(struct store *st, struct err *e)
{
    uint64_t until_ms = clock_mono_ms() + CHECK_MS, page;
    sqlite3_progress_handler(st->db, 20000, check_time, &until_ms);
    int r = ask(st, "PRAGMA quick_check(1)", &page, e);
    sqlite3_progress_handler(st->db, 0, NULL, NULL);
    return r;
}

/* Whether a table can be read to its end, with what overflows its pages. */
static bool reads(sqlite3 *db, const char *table)
{
    CLEANUP(finalizep) sqlite3_stmt *s = NULL;
    char sql[100];
    int rc;
    snprintf(sql, sizeof(sql), "SELECT * FROM %.60s NOT INDEXED", table);
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
        return false;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW)
        for (int i = 0; i < sqlite3_column_count(s); i++)
            if (sqlite3_column_type(s, i) >= SQLITE_TEXT)
                sqlite3_column_blob(s, i);
    return rc == SQLITE_DONE;
}

/* The first table that cannot be read: what the damage costs. */
static void name_table(struct store *st, struct err *e)
{
    CLEANUP(finalizep) sqlite3_stmt *s = NULL;
    char table[64] = "";
    if (sqlite3_prepare_v2(st->db, "SELECT name FROM sqlite_master WHERE type = 'table'", -1, &s,
                           NULL) != SQLITE_OK)
        return;
    while (!*table && sqlite3_step(s) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(s, 0);
        if (name && !reads(st->db, name))
            snprintf(table, sizeof(table), "%s", name);
    }
    struct err why = *e;
    err_set(e, SF_EINTEGRITY, "%s (%s%s)", why.text, *table ? "table " : "an index", table);
}

int store_check(struct store *st, struct err *e)
{
    uint64_t page = 0;
    int r = ask(st, "PRAGMA integrity_check(1)", &page, e);
    if (page)
        name_table(st, e);
    return r;
}

bool store_has_sums(struct store *st)
{
    return db_has_sums(st->db);
}

int store_add_sums(struct store *st, struct err *e)
{
    db_want_sums(st->db);
    int r = db_exec(st, "PRAGMA temp_store = FILE", e, "checksums");
    return r < 0 ? r : db_exec(st, "VACUUM", e, "checksums");
}
