#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/spool.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

static char dir[4096], path[4200];
static struct err e;

static void setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/spool-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/rows", dir);
}

static void teardown(void)
{
    cr_assert(dir_remove(dir, &e) == 0);
}

TestSuite(spool, .init = setup, .fini = teardown);

static void append(uint64_t first, uint64_t n)
{
    CLEANUP(closep) int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    CLEANUP(buf_clear) struct buf scratch = BUF_INIT(1 << 20);
    for (uint64_t i = first; i < first + n; i++) {
        uint8_t stats[300];
        memset(stats, (int)i, sizeof(stats));
        struct spool_row r = { .index = i,
                               .status = i % 3,
                               .duration_us = 1000 + i,
                               .error = i % 3 ? "no such way" : NULL,
                               .stats = stats,
                               .n_stats = i % 3 ? 0 : sizeof(stats) };
        r.point.b[0] = (uint8_t)i;
        cr_assert(spool_append(fd, &r, 1, &scratch, &e) == 0, "%s", e.text);
    }
}

static void expect(struct spool *s, uint64_t first, uint64_t n)
{
    struct wire_row rows[64];
    CLEANUP(buf_clear) struct buf block = BUF_INIT(1 << 20);
    cr_assert(spool_read(s, first, n, rows, &block, &e) == 0, "%s", e.text);
    for (uint64_t i = 0; i < n; i++) {
        cr_assert_eq(rows[i].index, first + i);
        cr_assert_eq(rows[i].point.b[0], (uint8_t)(first + i));
        cr_assert_eq(rows[i].duration_us, 1000 + first + i);
        cr_assert_str_eq(rows[i].error, (first + i) % 3 ? "no such way" : "");
        cr_assert_eq(rows[i].stats_len, (first + i) % 3 ? 0 : 300);
        if (rows[i].stats_len)
            cr_assert_eq(rows[i].stats[299], (uint8_t)(first + i));
    }
}

Test(spool, rows_are_seen_while_the_file_grows)
{
    struct spool *s;
    cr_assert(spool_open(path, &s, &e) == 0);
    cr_assert(spool_poll(s, &e) == 0);
    cr_assert_eq(spool_count(s), 0);
    append(0, 10);
    cr_assert(spool_poll(s, &e) == 0);
    cr_assert_eq(spool_count(s), 10);
    expect(s, 3, 7);
    append(10, 1000);
    cr_assert(spool_poll(s, &e) == 0);
    cr_assert_eq(spool_count(s), 1010);
    expect(s, 9, 2);
    expect(s, 946, 64);
    spool_close(&s);
}

Test(spool, torn_last_record_waits_for_its_rest)
{
    append(0, 2);
    struct stat st;
    stat(path, &st);
    struct spool *s;
    for (off_t cut = 1; cut < 50; cut += 7) {
        cr_assert(truncate(path, st.st_size - cut) == 0);
        cr_assert(spool_open(path, &s, &e) == 0);
        cr_assert(spool_poll(s, &e) == 0);
        cr_assert_eq(spool_count(s), 1);
        expect(s, 0, 1);
        spool_close(&s);
        unlink(path);
        append(0, 2);
    }
}

Test(spool, flipped_bit_is_found_and_what_stands_before_it_counts)
{
    append(0, 3);
    struct stat st;
    stat(path, &st);
    CLEANUP(closep) int fd = open(path, O_RDWR);
    for (off_t at = 0; at < st.st_size; at += 13) {
        uint8_t b;
        cr_assert(pread(fd, &b, 1, at) == 1);
        b ^= 4;
        cr_assert(pwrite(fd, &b, 1, at) == 1);
        struct spool *s;
        cr_assert(spool_open(path, &s, &e) == 0);
        int r = spool_poll(s, &e);
        cr_assert(r == -SF_EINTEGRITY || spool_count(s) < 3);
        expect(s, 0, spool_count(s));
        spool_close(&s);
        b ^= 4;
        cr_assert(pwrite(fd, &b, 1, at) == 1);
    }
}

Test(spool, acknowledged_count_and_end_survive)
{
    cr_assert_eq(spool_load_acked(dir), 0);
    cr_assert(spool_save_acked(dir, 77) == 0);
    cr_assert(spool_save_acked(dir, 78) == 0);
    cr_assert_eq(spool_load_acked(dir), 78);
    struct spool_end end = { .cause = CAUSE_TIMEOUT,
                             .exit = 3,
                             .duration_ms = 12,
                             .tail = strdup("a\nb\xff\n") },
                     got;
    cr_assert(spool_load_end(dir, &got, &e) == -ENOENT);
    cr_assert(spool_save_end(dir, &end, true, &e) == 0);
    cr_assert(spool_load_end(dir, &got, &e) == 0);
    cr_assert_eq(got.cause, CAUSE_TIMEOUT);
    cr_assert_eq(got.exit, 3);
    cr_assert_eq(got.duration_ms, 12);
    cr_assert(!got.info && !strncmp(got.tail, "a\nb", 3));
    spool_end_clear(&end);
    spool_end_clear(&got);
}
