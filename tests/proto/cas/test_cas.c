#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/rng.h"
#include "proto/cas/cas.h"
#include "proto/cas/map.h"

static char root[256];

static void start(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof(root), "%s/siofleet-cas.XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(root));
}

static void stop(void)
{
    dir_remove(root, NULL);
}

TestSuite(cas, .init = start, .fini = stop);

/* Content with chunks that differ: seed and index decide every byte. */
struct content {
    uint8_t *p;
    uint64_t size;
    size_t n;
    struct id id, hashes[8];
};

static struct content make(uint64_t seed, uint64_t size)
{
    struct content c = { .p = malloc(size + 1), .size = size };
    struct rng r = { seed };
    for (uint64_t i = 0; i < size; i++)
        c.p[i] = (uint8_t)rng_u64(&r);
    for (uint64_t off = 0; off < size; off += CID_CHUNK)
        hash_bytes(c.p + off, size - off < CID_CHUNK ? size - off : CID_CHUNK, &c.hashes[c.n++]);
    cid_bytes(c.p, size, &c.id);
    return c;
}

static size_t len_of(const struct content *c, size_t i)
{
    return i + 1 < c->n ? CID_CHUNK : c->size - i * CID_CHUNK;
}

static struct cas *store(uint64_t cap)
{
    struct cas *s = NULL;
    struct err e = { 0 };
    cr_assert(cas_open(root, cap, &s, &e) == 0, "%s", e.text);
    return s;
}

static void put(struct cas *s, const struct content *c)
{
    struct cas_put *p;
    struct err e = { 0 };
    cr_assert(cas_begin(s, &c->id, c->size, c->hashes, c->n, &p, &e) == 0, "%s", e.text);
    for (size_t i = 0; i < c->n; i++)
        cr_assert(cas_put_chunk(p, i, c->p + i * CID_CHUNK, len_of(c, i), &e) == 0, "%s", e.text);
    cr_assert(cas_commit(&p, &e) == 0, "%s", e.text);
    cr_assert_null(p);
}

/* Begin again what an earlier put left; its chunks are looked at one by one. */
static struct cas_put *again(struct cas *s, const struct content *c)
{
    struct cas_put *p;
    struct err e = { 0 };
    int r;
    cr_assert(cas_begin(s, &c->id, c->size, c->hashes, c->n, &p, &e) == 0, "%s", e.text);
    for (size_t i = 0; (r = cas_put_check(p, 1, &e)) == 0; i++)
        cr_assert(i < c->n);
    cr_assert(r == 1, "%s", e.text);
    return p;
}

Test(cas, what_is_put_comes_back_in_the_same_bytes_also_after_a_restart)
{
    static const uint64_t sizes[] = { 0, 1, CID_CHUNK, CID_CHUNK + 1, 3 * CID_CHUNK - 7 };
    for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
        struct content c = make(k + 1, sizes[k]);
        struct cas *s = store(0);
        put(s, &c);
        cas_free(&s);
        s = store(0);
        struct err e = { 0 };
        CLEANUP(freep) struct id *hashes = NULL;
        size_t n;
        uint64_t size, bad;
        cr_assert(cas_hashes(s, &c.id, &hashes, &n, &size, &e) == 0, "%s", e.text);
        cr_assert(n == c.n && size == c.size && !memcmp(hashes, c.hashes, n * ID_LEN));
        uint8_t *chunk = malloc(CID_CHUNK);
        for (size_t i = 0; i < n; i++) {
            ssize_t got = cas_read(s, &c.id, i, chunk, CID_CHUNK, &e);
            cr_assert_eq(got, (ssize_t)len_of(&c, i));
            cr_assert(!memcmp(chunk, c.p + i * CID_CHUNK, (size_t)got));
        }
        cr_assert_eq(cas_read(s, &c.id, n, chunk, CID_CHUNK, &e), -EINVAL);
        cr_assert_eq(cas_verify(s, &c.id, &bad, &e), 0);
        free(chunk);
        free(c.p);
        cas_free(&s);
    }
}

Test(cas, a_put_resumes_at_its_first_missing_chunk_after_a_restart)
{
    struct content c = make(7, 3 * CID_CHUNK + 5);
    struct cas *s = store(0);
    struct cas_put *p;
    struct err e = { 0 };
    cr_assert_eq(cas_begin(s, &c.id, c.size, c.hashes, c.n, &p, &e), 0);
    cr_assert_eq(cas_put_chunk(p, 0, c.p, CID_CHUNK, &e), 0);
    cr_assert_eq(cas_put_chunk(p, 3, c.p + 3 * CID_CHUNK, 5, &e), 0);
    cr_assert_eq(cas_commit(&p, &e), -EINVAL);
    cas_free(&s); /* closes the put, keeps what came */
    s = store(0);
    cr_assert_not(cas_has(s, &c.id));
    cr_assert_eq(cas_begin(s, &c.id, c.size, c.hashes, c.n, &p, &e), 0);
    cr_assert_not(cas_put_has(p, 0), "it is not looked at yet");
    cr_assert_eq(cas_put_check(p, 1, &e), 0);
    cr_assert(cas_put_has(p, 0) && !cas_put_has(p, 3));
    cas_put_close(&p, false); /* in the middle of it: nothing is lost */
    p = again(s, &c);
    cr_assert(cas_put_has(p, 0) && cas_put_has(p, 3));
    cr_assert_eq(cas_put_missing(p, 0), 1);
    cr_assert_eq(cas_put_missing(p, 3), 4);
    for (size_t i = 1; i < 3; i++)
        cr_assert_eq(cas_put_chunk(p, i, c.p + i * CID_CHUNK, CID_CHUNK, &e), 0);
    cr_assert(cas_commit(&p, &e) == 0, "%s", e.text);
    uint64_t bad;
    cr_assert_eq(cas_verify(s, &c.id, &bad, &e), 0);
    cas_free(&s);
    free(c.p);
}

/* A crash may leave bits of chunks whose bytes never reached the disk. */
Test(cas, a_partial_chunk_that_is_damaged_is_asked_for_again)
{
    struct content c = make(8, 2 * CID_CHUNK);
    struct cas *s = store(0);
    struct cas_put *p;
    struct err e = { 0 };
    char hex[ID_HEX_LEN], path[400];
    cr_assert_eq(cas_begin(s, &c.id, c.size, c.hashes, c.n, &p, &e), 0);
    cr_assert_eq(cas_put_chunk(p, 0, c.p, CID_CHUNK, &e), 0);
    cr_assert_eq(cas_put_chunk(p, 1, c.p + CID_CHUNK, CID_CHUNK, &e), 0);
    cas_put_close(&p, false);
    id_hex(&c.id, hex);
    snprintf(path, sizeof(path), "%s/partial/%s", root, hex);
    int fd = open(path, O_RDWR);
    cr_assert(fd >= 0 && pwrite(fd, "x", 1, CID_CHUNK + 99) == 1);
    close(fd);
    p = again(s, &c);
    cr_assert(cas_put_has(p, 0) && !cas_put_has(p, 1));
    cas_put_close(&p, true);
    cr_assert(access(path, F_OK) < 0);

    /* a map that is cut off is worth nothing, and harmless */
    cr_assert_eq(cas_begin(s, &c.id, c.size, c.hashes, c.n, &p, &e), 0);
    cr_assert_eq(cas_put_chunk(p, 0, c.p, CID_CHUNK, &e), 0);
    cas_put_close(&p, false);
    snprintf(path, sizeof(path), "%s/partial/%s.map", root, hex);
    cr_assert_eq(truncate(path, 20), 0);
    cr_assert(cas_begin(s, &c.id, c.size, c.hashes, c.n, &p, &e) == 0, "%s", e.text);
    cr_assert_eq(cas_put_missing(p, 0), 0);
    cas_put_close(&p, true);
    cas_free(&s);
    free(c.p);
}

Test(cas, nothing_wrong_gets_in)
{
    struct content c = make(9, CID_CHUNK + 10);
    struct cas *s = store(0);
    struct cas_put *p, *q;
    struct err e = { 0 };
    struct id wrong = c.id;
    wrong.b[0] ^= 1;
    cr_assert_eq(cas_begin(s, &wrong, c.size, c.hashes, c.n, &p, &e), -SF_EINTEGRITY);
    cr_assert_eq(cas_begin(s, &c.id, c.size + 1, c.hashes, c.n, &p, &e), -SF_EINTEGRITY);
    cr_assert_eq(cas_begin(s, &c.id, c.size, c.hashes, 1, &p, &e), -SF_EINTEGRITY);
    cr_assert_eq(cas_begin(s, &c.id, UINT64_MAX, c.hashes, c.n, &p, &e), -EFBIG);
    cr_assert_eq(cas_begin(s, &c.id, c.size, c.hashes, c.n, &p, &e), 0);
    cr_assert_eq(cas_begin(s, &c.id, c.size, c.hashes, c.n, &q, &e), -EBUSY);
    cr_assert_eq(cas_put_chunk(p, 0, c.p, 10, &e), -SF_EINTEGRITY);
    cr_assert_eq(cas_put_chunk(p, 1, c.p, 10, &e), -SF_EINTEGRITY);
    cr_assert_eq(cas_put_chunk(p, 2, c.p, 10, &e), -SF_EINTEGRITY);
    c.p[5] ^= 1;
    cr_assert_eq(cas_put_chunk(p, 0, c.p, CID_CHUNK, &e), -SF_EINTEGRITY);
    c.p[5] ^= 1;
    cr_assert_eq(cas_put_missing(p, 0), 0);
    cas_put_close(&p, true);
    put(s, &c);
    cr_assert_eq(cas_begin(s, &c.id, c.size, c.hashes, c.n, &p, &e), -EEXIST);
    cas_free(&s);
    free(c.p);
}

Test(cas, damage_is_found_and_named)
{
    struct content c = make(10, 2 * CID_CHUNK + 3);
    struct cas *s = store(0);
    struct err e = { 0 };
    uint64_t bad;
    put(s, &c);
    CLEANUP(freep) char *path = cas_path(s, &c.id);
    struct stat st;
    cr_assert(stat(path, &st) == 0 && (st.st_mode & 07777) == 0444);
    chmod(path, 0644);
    int fd = open(path, O_RDWR);
    cr_assert_eq(pwrite(fd, &(uint8_t){ (uint8_t)~c.p[CID_CHUNK] }, 1, CID_CHUNK), 1);
    cr_assert_eq(cas_verify(s, &c.id, &bad, &e), -SF_EINTEGRITY);
    cr_assert_eq(bad, 1);
    cr_assert_eq(pwrite(fd, &c.p[CID_CHUNK], 1, CID_CHUNK), 1);
    cr_assert_eq(cas_verify(s, &c.id, &bad, &e), 0);
    cr_assert_eq(ftruncate(fd, CID_CHUNK), 0);
    cr_assert_eq(cas_verify(s, &c.id, &bad, &e), -SF_EINTEGRITY);
    cr_assert_eq(bad, 1);
    close(fd);
    CLEANUP(freep) char *list = path_fmt("%s.hashes", path);
    cr_assert_eq(truncate(list, 47), 0);
    cr_assert_eq(cas_verify(s, &c.id, &bad, &e), -SF_EINTEGRITY);
    cr_assert_eq(bad, UINT64_MAX);
    cas_free(&s);
    free(c.p);
}

Test(cas, the_least_recently_used_goes_first_and_pins_hold)
{
    struct content c[4];
    struct cas *s = store(3 * 1000);
    struct cas_put *p;
    struct err e = { 0 };
    for (size_t i = 0; i < 4; i++)
        c[i] = make(20 + i, 1000);
    for (size_t i = 0; i < 3; i++) {
        put(s, &c[i]);
        usleep(3000);
    }
    free(cas_path(s, &c[0].id)); /* used: now 1 is the oldest */
    cr_assert_eq(cas_pin(s, &c[1].id), 0);
    put(s, &c[3]);
    cr_assert(cas_has(s, &c[0].id) && cas_has(s, &c[1].id) && !cas_has(s, &c[2].id));
    cr_assert_eq(cas_bytes(s), 3000);
    cr_assert_eq(cas_delete(s, &c[1].id, &e), -EBUSY);
    cas_pin(s, &c[0].id);
    cas_pin(s, &c[3].id);
    cr_assert_eq(cas_begin(s, &c[2].id, 1000, c[2].hashes, 1, &p, &e), -ENOSPC);
    cr_assert(strstr(e.text, "no room"), "%s", e.text);
    struct content large = make(24, 3001); /* never has room, whatever goes */
    cr_assert_eq(cas_begin(s, &large.id, 3001, large.hashes, 1, &p, &e), -EFBIG);
    free(large.p);
    cas_unpin(s, &c[1].id);
    cr_assert_eq(cas_delete(s, &c[1].id, &e), 0);
    /* space of a put that is not whole counts */
    cr_assert_eq(cas_begin(s, &c[2].id, 1000, c[2].hashes, 1, &p, &e), 0);
    cr_assert_eq(cas_bytes(s), 3000);
    cas_put_close(&p, true);
    cr_assert_eq(cas_bytes(s), 2000);
    cas_free(&s);
    for (size_t i = 0; i < 4; i++)
        free(c[i].p);
}

Test(cas, a_put_that_nobody_resumes_makes_room_first)
{
    struct content c[3] = { make(50, 2 * CID_CHUNK), make(51, 2 * CID_CHUNK), make(52, 1000) };
    struct cas *s = store(4 * CID_CHUNK);
    struct cas_put *p;
    struct err e = { 0 };
    put(s, &c[2]);
    cr_assert_eq(cas_begin(s, &c[0].id, c[0].size, c[0].hashes, c[0].n, &p, &e), 0);
    cr_assert_eq(cas_put_chunk(p, 0, c[0].p, CID_CHUNK, &e), 0);
    cas_put_close(&p, false);
    cas_free(&s);
    s = store(4 * CID_CHUNK);
    cr_assert_eq(cas_bytes(s), 1000 + 2 * CID_CHUNK, "its space counts");
    put(s, &c[1]);
    cr_assert_eq(cas_bytes(s), 1000 + 2 * CID_CHUNK, "the idle put went, the artefact stayed");
    cr_assert(cas_has(s, &c[2].id));
    cr_assert_eq(cas_begin(s, &c[0].id, c[0].size, c[0].hashes, c[0].n, &p, &e), 0);
    cr_assert_eq(cas_put_missing(p, 0), 0);
    cas_put_close(&p, true);
    cas_free(&s);

    /* and goes by itself after a week */
    char hex[ID_HEX_LEN], path[400];
    struct timespec old[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
    id_hex(&c[0].id, hex);
    snprintf(path, sizeof(path), "%s/partial/%s", root, hex);
    cr_assert_eq(file_write(path, "x", 1, 0600, true, NULL), 0);
    cr_assert_eq(utimensat(AT_FDCWD, path, old, 0), 0);
    s = store(0);
    cr_assert(access(path, F_OK) < 0);
    cas_free(&s);
    for (size_t i = 0; i < 3; i++)
        free(c[i].p);
}

Test(cas, a_put_that_is_refused_for_space_when_it_begins_again_keeps_what_came)
{
    struct content c[2] = { make(53, 3 * CID_CHUNK), make(54, 2 * CID_CHUNK) };
    struct cas *s = store(0);
    struct cas_put *p;
    struct err e = { 0 };
    put(s, &c[1]);
    cr_assert_eq(cas_partial(s, &c[0].id), 0);
    cr_assert_eq(cas_begin(s, &c[0].id, c[0].size, c[0].hashes, c[0].n, &p, &e), 0);
    cr_assert_eq(cas_put_chunk(p, 1, c[0].p + CID_CHUNK, CID_CHUNK, &e), 0);
    cas_put_close(&p, false);
    cas_free(&s);
    s = store(4 * CID_CHUNK);
    cas_pin(s, &c[1].id);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(cas_begin(s, &c[0].id, c[0].size, c[0].hashes, c[0].n, &p, &e), -ENOSPC);
        cr_assert_eq(cas_partial(s, &c[0].id), c[0].size);
        cr_assert_eq(cas_bytes(s), 5 * CID_CHUNK);
    }
    cas_unpin(s, &c[1].id);
    cr_assert_eq(cas_begin(s, &c[0].id, c[0].size, c[0].hashes, c[0].n, &p, &e), 0);
    cr_assert_eq(cas_put_check(p, 3, &e), 1);
    cr_assert(!cas_put_has(p, 0) && cas_put_has(p, 1) && !cas_put_has(p, 2));
    cas_put_close(&p, true);
    cr_assert_eq(cas_bytes(s), 0);
    cas_free(&s);
    free(c[0].p);
    free(c[1].p);
}

/* Two large ones, of which the disk has room for one. */
Test(cas, a_put_on_tmpfs_books_its_space_and_takes_none_before_its_bytes)
{
    struct statfs fs;
    struct stat st;
    struct cas *s = NULL;
    struct cas_put *p = NULL, *q = NULL;
    struct err e = { 0 };
    char dir[] = "/dev/shm/siofleet-cas.XXXXXX", hex[ID_HEX_LEN], path[400];
    if (statfs("/dev/shm", &fs) < 0 || fs.f_type != TMPFS_MAGIC || !fs.f_blocks)
        cr_skip_test("/dev/shm is no tmpfs with a limit");
    uint64_t n = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize / CID_CHUNK * 6 / 10;
    if (n < 10 || !mkdtemp(dir))
        cr_skip_test("/dev/shm has no room");
    struct id *hashes = calloc(n, sizeof(*hashes)), one, other;
    uint8_t *chunk = calloc(1, CID_CHUNK);
    for (uint64_t i = 0; i < n; i++)
        hash_bytes("other", 5, &hashes[i]);
    cid_of_chunks(n * CID_CHUNK, hashes, n, &other);
    hash_bytes(chunk, CID_CHUNK, &hashes[0]);
    cid_of_chunks(n * CID_CHUNK, hashes, n, &one);
    cr_expect_eq(cas_open(dir, 0, &s, &e), 0);
    cr_expect_eq(cas_begin(s, &one, n * CID_CHUNK, hashes, n, &p, &e), 0, "%s", e.text);
    id_hex(&one, hex);
    snprintf(path, sizeof(path), "%s/partial/%s", dir, hex);
    cr_expect(stat(path, &st) == 0 && st.st_blocks == 0);
    cr_expect_eq(cas_put_chunk(p, 0, chunk, CID_CHUNK, &e), 0);
    hashes[0] = hashes[1];
    cr_expect_eq(cas_begin(s, &other, n * CID_CHUNK, hashes, n, &q, &e), -ENOSPC);
    cr_expect(strstr(e.text, "cannot reserve") != NULL, "%s", e.text);
    cas_put_close(&p, true);
    cr_expect_eq(cas_begin(s, &other, n * CID_CHUNK, hashes, n, &q, &e), 0, "%s", e.text);
    cas_put_close(&q, false);
    cas_free(&s);
    dir_remove(dir, NULL);
    free(hashes);
    free(chunk);
}

Test(cas, what_was_removed_from_its_directory_can_be_put_again)
{
    struct content c[2] = { make(40, 1000), make(41, 1000) };
    struct cas *s = store(2 * 1000);
    struct err e = { 0 };
    put(s, &c[0]);
    put(s, &c[1]);
    cas_pin(s, &c[0].id); /* somebody has it open still */
    cr_assert(cas_check(s, &c[0].id));
    cr_assert(dir_remove(root, &e) == 0, "%s", e.text);
    cr_assert(cas_has(s, &c[0].id) && !cas_check(s, &c[0].id) && !cas_has(s, &c[0].id));
    cr_assert(!cas_check(s, &c[1].id));
    cr_assert_eq(cas_bytes(s), 0);
    put(s, &c[0]);
    put(s, &c[1]);
    cr_assert(cas_check(s, &c[0].id) && cas_check(s, &c[1].id));
    cr_assert_eq(cas_bytes(s), 2000);
    cr_assert_eq(cas_delete(s, &c[0].id, &e), -EBUSY);
    cas_unpin(s, &c[0].id);
    cr_assert(dir_remove(root, &e) == 0, "%s", e.text);
    cas_pin(s, &c[1].id);
    cr_assert(!cas_check(s, &c[1].id));
    cas_unpin(s, &c[1].id); /* the last trace of it */
    cr_assert(!cas_has(s, &c[1].id));
    cas_free(&s);
    for (size_t i = 0; i < 2; i++)
        free(c[i].p);
}

Test(cas, leftovers_of_a_crash_are_gone_after_a_start)
{
    struct content c = make(30, 100);
    struct cas *s = store(0);
    put(s, &c);
    CLEANUP(freep) char *path = cas_path(s, &c.id);
    CLEANUP(freep) char *list = path_fmt("%s.hashes", path);
    CLEANUP(freep) char *temp = path_fmt("%s/partial/import-9", root);
    cr_assert_eq(file_write(temp, "x", 1, 0600, true, NULL), 0);
    cas_free(&s);
    cr_assert_eq(unlink(path), 0);
    s = store(0);
    cr_assert(!cas_has(s, &c.id) && access(list, F_OK) < 0 && access(temp, F_OK) < 0);
    put(s, &c);
    cas_free(&s);
    cr_assert_eq(unlink(list), 0);
    s = store(0);
    cr_assert(!cas_has(s, &c.id) && access(path, F_OK) < 0);
    cas_free(&s);
    free(c.p);
}

Test(cas, import_takes_a_file_in_under_its_name)
{
    struct content c = make(31, 2 * CID_CHUNK + 1);
    struct cas *s = store(0);
    struct err e = { 0 };
    struct id id;
    uint64_t size, bad;
    CLEANUP(freep) char *path = path_fmt("%s/file", root);
    cr_assert_eq(file_write(path, c.p, c.size, 0600, true, NULL), 0);
    for (int twice = 0; twice < 2; twice++) {
        cr_assert(cas_import(s, path, &id, &size, &e) == 0, "%s", e.text);
        cr_assert(id_eq(&id, &c.id) && size == c.size);
    }
    cr_assert_eq(cas_verify(s, &id, &bad, &e), 0);
    const struct cas_item *list;
    cr_assert_eq(cas_list(s, &list), 1);
    cr_assert_eq(cas_import(s, root, &id, &size, &e), -SF_EFORMAT);
    cas_free(&s);
    free(c.p);
}

Test(cas, a_map_survives_its_file_and_nothing_else_is_one)
{
    struct content c = make(40, 3 * CID_CHUNK);
    struct cas_map m, back;
    struct buf b = BUF_INIT(1000);
    cr_assert_eq(cas_map_init(&m, c.size, c.hashes), 0);
    cas_map_set(&m, 2);
    cr_assert_eq(cas_map_pack(&m, &b), 0);
    cr_assert_eq(b.len, cas_map_size(3));
    cr_assert_eq(cas_map_parse(b.data, b.len, &back, NULL), 0);
    cr_assert(back.n == 3 && !cas_map_get(&back, 1) && cas_map_get(&back, 2));
    cas_map_clear(&back);
    for (size_t n = 0; n < b.len; n++)
        cr_assert_eq(cas_map_parse(b.data, n, &back, NULL), -SF_EFORMAT);
    memset(b.data + 8, 0xff, 8);
    cr_assert_eq(cas_map_parse(b.data, b.len, &back, NULL), -SF_EFORMAT);
    cas_map_clear(&m);
    buf_clear(&b);
    free(c.p);
}

Test(cas, a_look_changes_nothing_and_what_is_damaged_can_be_moved_aside)
{
    struct cas *s = store(0), *look = NULL;
    struct content a = make(1, CID_CHUNK + 5), b = make(2, 100);
    struct err e = { 0 };
    char path[700], to[600];
    struct stat st;
    put(s, &a);
    put(s, &b);
    cas_free(&s);
    snprintf(path, sizeof(path), "%s/none", root);
    cr_assert_eq(cas_open_ro(path, &look, &e), -ENOENT);
    cr_assert(stat(path, &st) < 0, "it is not made");
    char hex[ID_HEX_LEN];
    id_hex(&b.id, hex);
    snprintf(path, sizeof(path), "%s/%.2s/%s.hashes", root, hex, hex);
    cr_assert_eq(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/%.2s/%s", root, hex, hex);
    cr_assert_eq(cas_open_ro(root, &look, &e), 0, "%s", e.text);
    cr_assert(cas_has(look, &a.id) && !cas_has(look, &b.id));
    cr_assert_eq(stat(path, &st), 0, "leftovers stay for their owner");
    snprintf(to, sizeof(to), "%s/aside", root);
    cr_assert_eq(cas_aside(look, &a.id, to, &e), 0, "%s", e.text);
    cr_assert(!cas_has(look, &a.id));
    cr_assert_eq(cas_aside(look, &a.id, to, &e), -ENOENT);
    id_hex(&a.id, hex);
    snprintf(path, sizeof(path), "%s/%s", to, hex);
    cr_assert(stat(path, &st) == 0 && (uint64_t)st.st_size == a.size);
    cas_free(&look);
    free(a.p);
    free(b.p);
}
