/* proto/base: numbers, buffers, files, options, errors. */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/err.h"
#include "proto/base/file.h"
#include "proto/base/num.h"
#include "proto/base/opt.h"
#include "proto/base/space.h"
#include "proto/base/trips.h"

Test(err, text_keeps_place_and_cause_on_one_line)
{
    struct err e = { 0 };
    int r = err_set(&e, SF_EFORMAT, "a.log:%d: bad\nthing\x1b[2J", 7);
    cr_assert_eq(r, -SF_EFORMAT);
    cr_assert_str_eq(e.text, "a.log:7: bad?thing?[2J");
    r = err_wrap(&e, r, "sweep '%s'", "x");
    cr_assert_eq(r, -SF_EFORMAT);
    cr_assert_str_eq(e.text, "sweep 'x': a.log:7: bad?thing?[2J");
    cr_assert_eq(err_exit(r), 1);
}

Test(err, a_place_gets_the_name_that_its_reader_knows)
{
    static const struct {
        const char *from, *to, *text;
    } t[] = { { "cas/ab", "trace ab", "trace ab: is cut" },
              { "cas/ab", "", "is cut" },
              { "cas/a", "x", "cas/ab: is cut" },
              { "", "x", "cas/ab: is cut" } };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct err e;
        int r = err_set(&e, EIO, "cas/ab: is cut");
        cr_expect_eq(err_place(&e, r, t[i].from, t[i].to), -EIO);
        cr_expect_str_eq(e.text, t[i].text);
    }
    cr_assert_eq(err_place(NULL, -EIO, "a", "b"), -EIO);
}

Test(err, exit_codes_are_those_scripts_rely_on)
{
    static const struct {
        int code, status;
    } t[] = { { 0, 0 },           { SF_EUSAGE, 2 },   { SF_EFORMAT, 1 }, { SF_EINTEGRITY, 4 },
              { SF_ENOFLEET, 3 }, { SF_EREFUSED, 3 }, { ECANCELED, 5 },  { EINTR, 5 },
              { ENOSPC, 1 },      { EADDRINUSE, 1 },  { ETIMEDOUT, 1 },  { SF_EFAILED, 1 },
              { EIO, 1 } };
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        cr_expect_eq(err_exit(-t[i].code), t[i].status, "code %d", t[i].code);
}

Test(err, accepts_no_place_to_put_it)
{
    cr_assert_eq(err_set(NULL, EIO, "x"), -EIO);
    cr_assert_eq(err_sys(NULL, EIO, "x"), -EIO);
    cr_assert_eq(err_wrap(NULL, -EIO, "x"), -EIO);
}

Test(num, refuses_what_is_not_a_number_or_out_of_range)
{
    uint64_t v = 7;
    struct err e = { 0 };
    static const char *const bad[] = { "",   "-1",   "+1",  " 1",
                                       "1 ", "0x10", "1e3", "18446744073709551616",
                                       "ten" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(num_u64(bad[i], 0, UINT64_MAX, "--n", &v, &e), -SF_EUSAGE, "'%s'", bad[i]);
    cr_assert_eq(v, 7);
    cr_assert_eq(num_u64("18446744073709551615", 0, UINT64_MAX, "--n", &v, &e), 0);
    cr_assert_eq(v, UINT64_MAX);
    cr_assert_eq(num_u64("5", 6, 9, "--n", &v, &e), -SF_EUSAGE);
    cr_assert_str_eq(e.text, "--n: 5 is not in 6..9");
    cr_assert_eq(num_u64("99999999999999999999", 6, 9, "--n", &v, &e), -SF_EUSAGE);
    cr_assert_str_eq(e.text, "--n: 99999999999999999999 is not in 6..9");
}

Test(num, sizes_and_times_have_units)
{
    uint64_t v;
    struct err e;
    cr_assert(num_size("4K", "x", &v, &e) == 0 && v == 4096);
    cr_assert(num_size("2G", "x", &v, &e) == 0 && v == 2ull << 30);
    cr_assert_eq(num_size("99999999999T", "x", &v, &e), -SF_EUSAGE);
    cr_assert_eq(num_size("4k", "x", &v, &e), -SF_EUSAGE);
    cr_assert(num_ms("500ms", "x", &v, &e) == 0 && v == 500);
    cr_assert(num_ms("5m", "x", &v, &e) == 0 && v == 300000);
    cr_assert_eq(num_ms("5", "x", &v, &e), -SF_EUSAGE);
}

Test(buf, never_grows_past_its_cap_and_keeps_its_content)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(10);
    cr_assert_eq(buf_adds(&b, "12345678"), 0);
    cr_assert_eq(buf_adds(&b, "abc"), -EMSGSIZE);
    cr_assert_eq(b.len, 8);
    cr_assert_eq(buf_addf(&b, "%d", 42), 0);
    cr_assert_str_eq((char *)b.data, "1234567842");
    cr_assert_null(buf_reserve(&b, 1));
    cr_assert_null(buf_reserve(&b, SIZE_MAX));
}

static char *scratch(void)
{
    char *dir = path_fmt("%s/sf-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    return dir;
}

Test(file, is_whole_or_absent_and_not_replaced_unasked)
{
    CLEANUP(freep) char *dir = scratch();
    CLEANUP(freep) char *path = path_fmt("%s/a/b/c", dir);
    CLEANUP(freep) char *sub = path_fmt("%s/a/b", dir);
    struct err e = { 0 };
    cr_assert_eq(dir_make(sub, 0700, &e), 0);
    cr_assert_eq(file_write(path, "one", 3, 0600, false, &e), 0);
    cr_assert_eq(file_write(path, "two", 3, 0600, false, &e), -EEXIST);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(100);
    cr_assert_eq(file_read(path, &b, &e), 0);
    cr_assert_str_eq((char *)b.data, "one");
    cr_assert_eq(file_write(path, "three", 5, 0600, true, &e), 0);
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_size, 5);
    cr_assert_eq(st.st_mode & 0777, 0600);
    /* what is no file is never replaced: as root, --force would end /dev/null */
    CLEANUP(freep) char *pipe = path_fmt("%s/pipe", dir);
    CLEANUP(freep) char *link = path_fmt("%s/link", dir);
    cr_assert_eq(mkfifo(pipe, 0600), 0);
    cr_assert_eq(symlink(pipe, link), 0);
    cr_assert_eq(file_write(pipe, "x", 1, 0600, true, &e), -EEXIST);
    cr_assert_eq(file_write(link, "x", 1, 0600, true, &e), -EEXIST);
    cr_assert_eq(file_write("", "x", 1, 0600, true, &e), -SF_EUSAGE);
    cr_assert(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
    /* an aborted one leaves nothing behind */
    struct file_new f;
    CLEANUP(freep) char *other = path_fmt("%s/a/b/d", dir);
    cr_assert_eq(file_begin(&f, other, 0600, false, &e), 0);
    cr_assert_eq(write_all(f.fd, "x", 1), 0);
    file_abort(&f);
    cr_assert_neq(access(other, F_OK), 0);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(sub), 0, "a temp file was left");
    cr_assert_eq(dir_remove(dir, &e), 0);
    cr_assert_neq(access(dir, F_OK), 0);
}

Test(file, without_home_the_folders_are_those_of_the_account_not_in_tmp)
{
    setenv("XDG_DATA_HOME", "/x", 1);
    CLEANUP(freep) char *given = path_xdg("DATA");
    cr_assert_str_eq(given, "/x/siofleet");
    unsetenv("XDG_DATA_HOME");
    setenv("HOME", "/h", 1);
    CLEANUP(freep) char *home = path_xdg("DATA");
    cr_assert_str_eq(home, "/h/.local/share/siofleet");
    unsetenv("HOME");
    CLEANUP(freep) char *none = path_xdg("DATA");
    cr_assert_neq(strncmp(none, "/tmp/", 5), 0, "%s", none);
}

Test(file, only_a_regular_file_is_opened_as_input_and_nothing_waits)
{
    CLEANUP(freep) char *dir = scratch();
    CLEANUP(freep) char *fifo = path_fmt("%s/fifo", dir), *path = path_fmt("%s/f", dir);
    struct err e = { 0 };
    struct stat st;
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    cr_expect_eq(file_open_regular(fifo, &st, &e),
                 -SF_EFORMAT); /* open(2) alone would wait for a writer */
    cr_expect_eq(file_open_regular(dir, &st, &e), -SF_EFORMAT);
    cr_expect_eq(file_open_regular("/dev/zero", &st, &e), -SF_EFORMAT);
    cr_expect_eq(file_open_regular(path, &st, &e), -ENOENT);
    cr_assert_eq(file_write(path, "123", 3, 0600, false, &e), 0);
    int fd = file_open_regular(path, &st, &e);
    cr_assert_geq(fd, 0, "%s", e.text);
    cr_expect_eq(st.st_size, 3);
    close(fd);
    cr_assert_eq(dir_remove(dir, &e), 0);
}

Test(file, longer_than_the_cap_is_refused)
{
    CLEANUP(freep) char *dir = scratch();
    CLEANUP(freep) char *path = path_fmt("%s/f", dir);
    struct err e = { 0 };
    cr_assert_eq(file_write(path, "0123456789", 10, 0600, false, &e), 0);
    struct buf b = BUF_INIT(10);
    cr_assert_eq(file_read(path, &b, &e), 0);
    cr_assert_eq(b.len, 10);
    buf_clear(&b);
    buf_init(&b, 9);
    cr_assert_eq(file_read(path, &b, &e), -EFBIG);
    buf_clear(&b);
    cr_assert_eq(dir_remove(dir, &e), 0);
}

struct demo {
    bool json;
    const char *out;
    struct opt_u64 threads, timeout;
    struct opt_multi arch;
};
static const struct opt demo_opts[] = {
    { "json", 0, NULL, "print JSON", OPT_FLAG, offsetof(struct demo, json), 0, 0 },
    { "out", 'o', "FILE", "write there", OPT_STR, offsetof(struct demo, out), 0, 0 },
    { "threads", 0, "N", "threads", OPT_U64, offsetof(struct demo, threads), 1, 64 },
    { "timeout", 0, "T", "give up", OPT_MS, offsetof(struct demo, timeout), 0, 0 },
    { "arch", 0, "K=V", "one key", OPT_MULTI, offsetof(struct demo, arch), 0, 0 },
    { 0 },
};
static const struct verb demo_verb = { .name = "demo",
                                       .args = "FILE",
                                       .opts = demo_opts,
                                       .opts_size = sizeof(struct demo),
                                       .min_args = 1,
                                       .max_args = 1 };

static int parse(struct demo *d, struct err *e, const char *a, const char *b, const char *c)
{
    const char *argv[] = { a, b, c };
    int argc = a ? b ? c ? 3 : 2 : 1 : 0;
    char **rest;
    memset(d, 0, sizeof(*d));
    int r = opt_parse(&demo_verb, d, argc, (char **)argv, &rest, e);
    if (r == 1)
        cr_assert_str_eq(rest[0], "file");
    return r;
}

Test(opt, takes_options_before_and_behind_arguments)
{
    struct demo d;
    struct err e = { 0 };
    cr_assert_eq(parse(&d, &e, "file", "-o", "x"), 1);
    cr_assert_str_eq(d.out, "x");
    cr_assert_eq(parse(&d, &e, "--threads=8", "file", "--json"), 1);
    cr_assert(d.json && d.threads.set && d.threads.v == 8);
    cr_assert_eq(parse(&d, &e, "--arch=a=1", "--arch=b=2", "file"), 1);
    cr_assert(d.arch.n == 2 && !strcmp(d.arch.v[1], "b=2"));
    opt_free(&demo_verb, &d);
}

Test(opt, names_what_is_wrong_in_one_line)
{
    struct demo d;
    struct err e = { 0 };
    cr_assert_eq(parse(&d, &e, "--nope", "file", NULL), -SF_EUSAGE);
    cr_assert_str_eq(e.text, "--nope: unknown option (see siofleet demo --help)");
    cr_assert_eq(parse(&d, &e, "-z", "file", NULL), -SF_EUSAGE);
    cr_assert_eq(parse(&d, &e, "file", "--out", NULL), -SF_EUSAGE);
    cr_assert_str_eq(e.text, "--out: a value is missing");
    cr_assert_eq(parse(&d, &e, "--json=1", "file", NULL), -SF_EUSAGE);
    cr_assert_eq(parse(&d, &e, "--threads=65", "file", NULL), -SF_EUSAGE);
    cr_assert_str_eq(e.text, "--threads: 65 is not in 1..64");
    cr_assert_eq(parse(&d, &e, "--json", NULL, NULL), -SF_EUSAGE);
    cr_assert_eq(parse(&d, &e, "file", "more", NULL), -SF_EUSAGE);
    cr_assert_str_eq(e.text, "demo: one argument too many: 'more'");
}

Test(clock, prints_rfc3339_in_utc_with_milliseconds)
{
    char out[CLOCK_RFC3339_LEN];
    clock_rfc3339(1234567890042ull, out);
    cr_assert_str_eq(out, "2009-02-13T23:31:30.042Z");
}

Test(base, times_are_said_in_plain_units)
{
    char s[NUM_MS_LEN];
    cr_assert_str_eq(num_ms_text(0, s), "0 ms");
    cr_assert_str_eq(num_ms_text(999, s), "999 ms");
    cr_assert_str_eq(num_ms_text(3250, s), "3.2 s");
    cr_assert_str_eq(num_ms_text(600000, s), "10 m");
    cr_assert_str_eq(num_ms_text(5400000, s), "1.5 h");
    cr_assert_str_eq(num_ms_text(2 * 86400000ull, s), "2 d");
}

Test(space, marks_stop_new_work_first_then_all_and_let_go_only_with_a_quarter_more)
{
    struct space s = { .high_b = 1000, .low_b = 100 };
    static const struct {
        uint64_t free_b;
        enum space_level level;
    } steps[] = {
        { 5000, SPACE_OK },    { 1000, SPACE_OK },   { 999, SPACE_TIGHT },  { 1249, SPACE_TIGHT },
        { 1250, SPACE_OK },    { 99, SPACE_PAUSED }, { 124, SPACE_PAUSED }, { 125, SPACE_TIGHT },
        { 1249, SPACE_TIGHT }, { 0, SPACE_PAUSED },  { 5000, SPACE_OK },
    };
    for (size_t i = 0; i < ARRAY_LEN(steps); i++)
        cr_assert_eq(space_step(&s, steps[i].free_b, 1 << 20), steps[i].level, "step %zu", i);
    struct space share = { .high_b = SPACE_AUTO, .low_b = SPACE_AUTO };
    space_step(&share, 6 << 20, 6 << 20);
    cr_assert_eq(space_high(&share), 314570);
    space_step(&share, UINT64_C(1) << 50, UINT64_C(1) << 50);
    cr_assert_eq(space_high(&share), UINT64_C(1) << 30, "of a large disk no more than a GiB");
    cr_assert_eq(space_low(&share), UINT64_C(256) << 20);
    struct space none = { 0 };
    cr_assert_eq(space_step(&none, 0, 1 << 20), SPACE_OK, "no marks, no stop");
}

Test(trips, measures_each_from_its_first_sending_to_its_answer)
{
    static struct trips t; /* zeroed */
    struct trips_sum s;
    trips_sum(&t, &s);
    cr_assert(s.n == 0 && s.max_us == 0);
    struct trip_key a = { .seq = 1 }, b = { .task = 7, .seq = 1 };
    trips_sent(&t, &a, 1000000);
    trips_sent(&t, &b, 2000000);
    trips_sent(&t, &a, 3000000); /* again, as nobody answered */
    trips_answered(&t, &a, 5000000);
    trips_answered(&t, &a, 9000000);
    trips_sum(&t, &s);
    cr_assert(s.n == 1 && s.p50_us == 4000 && s.p99_us == 4000 && s.max_us == 4000);
    trips_forget(&t); /* the connection broke */
    trips_answered(&t, &b, 9000000);
    trips_sum(&t, &s);
    cr_assert_eq(s.n, 1);
    for (uint64_t i = 0; i < 100 + TRIPS_KEPT; i++) { /* old ones make room */
        trips_sent(&t, &(struct trip_key){ .seq = 10 + i }, 0);
        trips_answered(&t, &(struct trip_key){ .seq = 10 + i }, (i < 100 ? 999 : i - 99) * 1000);
    }
    trips_sum(&t, &s);
    cr_assert(s.n == TRIPS_KEPT && s.p50_us == 65 && s.p99_us == 127 && s.max_us == 128);
    for (uint64_t i = 0; i < TRIPS_OPEN + 1; i++)
        trips_sent(&t, &(struct trip_key){ .seq = i }, 0);
    trips_answered(&t, &(struct trip_key){ .seq = 0 }, 5000000); /* more than fit were open */
    trips_answered(&t, &(struct trip_key){ .seq = 1 }, 7000000);
    trips_sum(&t, &s);
    cr_assert_eq(s.max_us, 7000);
}
