/* How much of the log (store.db-wal) is acknowledged. SQLite takes a log that is cut off, damaged or gone for one that ends there:
 * it cannot know that more was committed. So after each commit DIR/store.db-mark says which log it was, and how many frames.
 *
 * The mark is written behind the commit's fsync and is not synced itself. kill -9 leaves it as it was written; after a loss of
 * power it may be older, never newer than the log, and an older one only claims less: of this log fewer frames, or frames of a log
 * that SQLite has since begun anew, with other salts, after all of it was in store.db. Before the log is removed in order,
 * the mark says "nothing is owed" and is synced. Where another program wrote the log back and removed it (a sqlite3 shell after a
 * crash), the last page that was committed is in store.db. */
#include "coordinator/store_in.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"

enum { WAL_HEAD = 32, FRAME_HEAD = 24, AUTO_CHECKPOINT = 4000, PAGE_MAX = 65536, READ_B = 1 << 20 };

/* The file, in this machine's byte order: it tells of files beside it. */
struct mark {
    char magic[8];
    uint8_t salts[8]; /* of the log's head */
    uint64_t frames;  /* 0 = nothing is owed */
    uint64_t page,
        page_sum;   /* of the last frame: number, content without its last 8 bytes (store_sum.c) */
    uint64_t at_ms; /* wall */
    uint64_t sum;   /* of all before */
};
static const char magic[8] = "SFMARK1";

static uint64_t mark_sum(const struct mark *m)
{
    return hash_fast(m, offsetof(struct mark, sum), 0);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- writing */

static int put(struct store *st, struct mark *m)
{
    memcpy(m->magic, magic, sizeof(magic));
    m->at_ms = clock_wall_ms();
    m->sum = mark_sum(m);
    return pwrite_all(st->mark, m, sizeof(*m), 0);
}

/* Fails = the mark stays older. */
static void put_frames(struct store *st, uint64_t frames)
{
    uint8_t head[WAL_HEAD], frame[FRAME_HEAD];
    struct mark m = { .frames = frames };
    sqlite3_file *wal = NULL;
    if (sqlite3_file_control(st->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal) != SQLITE_OK ||
        !wal || !wal->pMethods || wal->pMethods->xRead(wal, head, sizeof(head), 0) != SQLITE_OK)
        return;
    uint32_t size = be32(head + 8);
    sqlite3_int64 at = WAL_HEAD + (sqlite3_int64)(frames - 1) * (FRAME_HEAD + (sqlite3_int64)size);
    if (size < 512 || size > PAGE_MAX || (!st->page && !(st->page = malloc(PAGE_MAX))) ||
        wal->pMethods->xRead(wal, frame, sizeof(frame), at) != SQLITE_OK ||
        wal->pMethods->xRead(wal, st->page, (int)size, at + FRAME_HEAD) != SQLITE_OK)
        return;
    memcpy(m.salts, head + 16, sizeof(m.salts));
    m.page = be32(frame);
    m.page_sum = hash_fast(st->page, size - 8, m.page);
    put(st, &m);
}

/* After each commit, in place of SQLite's own hook, which only sees to checkpoints. */
static int committed(void *ctx, sqlite3 *db, const char *name, int frames)
{
    struct store *st = ctx;
    if (frames <= 0)
        return SQLITE_OK;
    put_frames(st, (uint64_t)frames);
    if (frames >= AUTO_CHECKPOINT) {
        int all = -1, done = -1;
        if (sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, &all, &done) ==
                SQLITE_OK &&
            all == done) /* it is all in store.db, and synced */
            put(st, &(struct mark){ .frames = 0 });
    }
    return SQLITE_OK;
}

int mark_open(struct store *st, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s-mark", st->path);
    st->mark = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (st->mark < 0)
        return err_sys(e, path ? errno : ENOMEM, "%s-mark", st->path);
    sqlite3_wal_hook(st->db, committed, st);
    return 0;
}

void mark_close(struct store *st)
{
    int all = -1, done = -1;
    if (st->mark < 0)
        return;
    sqlite3_wal_hook(st->db, NULL, NULL);
    if (sqlite3_wal_checkpoint_v2(st->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &all, &done) !=
            SQLITE_OK ||
        all != done || put(st, &(struct mark){ .frames = 0 }) < 0 || fsync(st->mark) < 0)
        sqlite3_db_config(st->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* the log stays */
    closep(&st->mark);
}

/* ---- checking */

struct walk {
    int fd;
    bool swap; /* the words of its sums are not in this machine's order */
    uint32_t s0, s1;
};

static uint32_t swap32(uint32_t v)
{
    return v << 24 | (v & 0xff00) << 8 | (v >> 8 & 0xff00) | v >> 24;
}

/* The log's own sum, as its format defines it. n: a multiple of 8. */
static void add_sum(struct walk *w, const uint8_t *p, size_t n)
{
    uint32_t s0 = w->s0, s1 = w->s1;
    for (size_t i = 0; i < n; i += 8) {
        uint32_t v[2];
        memcpy(v, p + i, sizeof(v));
        s0 += (w->swap ? swap32(v[0]) : v[0]) + s1;
        s1 += (w->swap ? swap32(v[1]) : v[1]) + s0;
    }
    w->s0 = s0;
    w->s1 = s1;
}

static bool sum_is(const struct walk *w, const uint8_t *p)
{
    return be32(p) == w->s0 && be32(p + 4) == w->s1;
}

/* How many frames in a row are whole, up to max. Returns 0 or -errno. */
static int walk_frames(struct walk *w, const uint8_t head[WAL_HEAD], uint64_t max, uint64_t *ret)
{
    size_t size = FRAME_HEAD + be32(head + 8), at_once = READ_B / size;
    CLEANUP(freep) uint8_t *buf = malloc(at_once * size);
    if (!buf)
        return -ENOMEM;
    for (*ret = 0; *ret < max;) {
        ssize_t n = pread_full(w->fd, buf, at_once * size, (off_t)(WAL_HEAD + *ret * size));
        if (n < 0)
            return (int)n;
        size_t have = (size_t)n / size;
        for (size_t i = 0; i < have && *ret < max; i++) {
            const uint8_t *f = buf + i * size;
            add_sum(w, f, 8);
            add_sum(w, f + FRAME_HEAD, size - FRAME_HEAD);
            if (!be32(f) || memcmp(f + 8, head + 16, 8) != 0 || !sum_is(w, f + 16))
                return 0;
            ++*ret;
        }
        if (have < at_once)
            return 0;
    }
    return 0;
}

/* Whether the log holds what the mark says. 1 = yes, or it is another log by now; 0 = no, *ret_why and *ret_whole (frames) say
 * how much; or -errno. */
static int log_holds(const char *wal, const struct mark *m, const char **ret_why,
                     uint64_t *ret_whole)
{
    uint8_t head[WAL_HEAD];
    const uint32_t one = 1;
    CLEANUP(closep) int fd = open(wal, O_RDONLY | O_CLOEXEC);
    *ret_whole = 0;
    *ret_why = "it is missing";
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    ssize_t n = pread_full(fd, head, sizeof(head), 0);
    if (n < 0)
        return (int)n;
    *ret_why = n ? "it is cut off" : "it is empty";
    if ((size_t)n < sizeof(head))
        return 0;
    uint32_t kind = be32(head), size = be32(head + 8);
    bool big = kind & 1, here_big = !*(const uint8_t *)&one;
    struct walk w = { .fd = fd, .swap = big != here_big };
    add_sum(&w, head, 24);
    *ret_why = "its head is damaged";
    if ((kind & ~1u) != 0x377f0682 || !sum_is(&w, head + 24) || size < 512 || size > PAGE_MAX ||
        (size & (size - 1)))
        return 0;
    if (memcmp(head + 16, m->salts, sizeof(m->salts)) != 0)
        return 1;
    *ret_why = "it is cut off or damaged";
    int r = walk_frames(&w, head, m->frames, ret_whole);
    return r < 0 ? r : *ret_whole == m->frames;
}

/* Whether the page that was committed last is in the file: 1, 0 or -errno. */
static int page_is_in(const char *db, const struct mark *m)
{
    uint8_t head[100];
    CLEANUP(closep) int fd = open(db, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    ssize_t n = pread_full(fd, head, sizeof(head), 0);
    size_t size = (size_t)head[16] << 8 | head[17];
    size = size == 1 ? PAGE_MAX : size;
    if (n < (ssize_t)sizeof(head) || size < 512)
        return n < 0 ? (int)n : 0;
    CLEANUP(freep) uint8_t *page = malloc(size);
    if (!page)
        return -ENOMEM;
    n = pread_full(fd, page, size, (off_t)((m->page - 1) * size));
    if (n < 0)
        return (int)n;
    return (size_t)n == size && hash_fast(page, size - 8, m->page) == m->page_sum;
}

int store_check_log(const char *dir, struct err *e)
{
    CLEANUP(freep) char *db = path_fmt("%s/store.db", dir);
    CLEANUP(freep) char *wal = path_fmt("%s/store.db-wal", dir);
    CLEANUP(freep) char *path = path_fmt("%s/store.db-mark", dir);
    if (!db || !wal || !path)
        return err_sys(e, ENOMEM, "%s", dir);
    struct mark m;
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "%s", path);
    ssize_t n = pread_full(fd, &m, sizeof(m), 0);
    if (n < 0)
        return err_sys(e, (int)-n, "%s", path);
    if ((size_t)n < sizeof(m) || memcmp(m.magic, magic, sizeof(magic)) != 0 ||
        m.sum != mark_sum(&m) || !m.frames)
        return 0; /* nothing is owed, or nobody knows */
    const char *why;
    uint64_t whole;
    int r = log_holds(wal, &m, &why, &whole);
    struct stat sb;
    if (r == 0 && (stat(wal, &sb) < 0 || !sb.st_size)) /* gone: is what was in it? */
        r = page_is_in(db, &m);
    if (r < 0)
        return err_sys(e, -r, "%s", wal);
    if (r > 0)
        return 0;
    char when[CLOCK_RFC3339_LEN];
    clock_rfc3339(m.at_ms, when);
    return err_set(e, SF_EINTEGRITY,
                   "%s: damaged: %s: %" PRIu64 " of %" PRIu64
                   " frames up to the last commit (%s) are left",
                   wal, why, whole, m.frames, when);
}
