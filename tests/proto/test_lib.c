/* proto/lib: content ids, zstd streams, INI, JSON. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/rng.h"
#include "proto/lib/aead.h"
#include "proto/lib/hash.h"
#include "proto/lib/ini.h"
#include "proto/lib/json.h"
#include "proto/lib/locked.h"
#include "proto/lib/zio.h"

static char *scratch(void)
{
    char *dir = path_fmt("%s/sf-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    return dir;
}

static void expect_id(const struct id *id, const char *hex)
{
    char h[ID_HEX_LEN];
    id_hex(id, h);
    cr_expect_str_eq(h, hex);
}

/* The figures come from Python's hashlib.blake2b(digest_size=32) put together by the published
 * formula. */
Test(hash, content_ids_follow_the_published_formula)
{
    struct id id;
    cid_bytes("", 0, &id);
    expect_id(&id, "012aff5a40224eb6d246789a22d9140c6d7876a64f62cb97f1c5a229e0e9b549");
    cid_bytes("abc", 3, &id);
    expect_id(&id, "777dea1d8122d5e2ce88f544c4c29ad4c0ab7fb7d4fe1e4e34a2d2092e01c3d2");
    size_t n = (2u << 20) + 5;
    CLEANUP(freep) uint8_t *big = malloc(n);
    for (size_t i = 0; i < n; i++)
        big[i] = (uint8_t)(i * 7);
    cid_bytes(big, n, &id);
    expect_id(&id, "b62f45918349110f725e6639722f9556cc81a6520faa0b5fcf80622149d2579c");
    /* the same in uneven pieces */
    CLEANUP(cid_free) struct cid *c = cid_new();
    for (size_t at = 0; at < n;) {
        size_t m = at % 99991 + 1;
        if (m > n - at)
            m = n - at;
        cid_add(c, big + at, m);
        at += m;
    }
    uint64_t size;
    cid_end(c, &id, &size);
    cr_assert_eq(size, n);
    expect_id(&id, "b62f45918349110f725e6639722f9556cc81a6520faa0b5fcf80622149d2579c");
}

/* Each code path against libsodium, for every number of whole and short messages side by side. */
Test(hash, messages_side_by_side_hash_as_each_alone)
{
    enum { N = 2 * HASH_LANES + 1 };
    static const char *const paths[] = { "scalar", "avx2", "avx512" };
    static uint8_t data[CID_CHUNK + N * 64];
    const void *p[N];
    size_t n[N];
    struct id want[N], got[N];
    random_bytes(data, sizeof(data));
    for (size_t i = 0; i < N; i++) {
        p[i] = data + 64 * i + i % 3; /* not aligned */
        n[i] = i == 3 || i == 12 ? CID_CHUNK / 3 : CID_CHUNK;
        hash_bytes(p[i], n[i], &want[i]);
    }
    for (size_t k = 0; k < sizeof(paths) / sizeof(paths[0]); k++) {
        setenv("SIOFLEET_ISA", paths[k], 1);
        for (size_t count = 0; count <= N; count++) {
            memset(got, 0, sizeof(got));
            hash_many(p, n, count, got);
            cr_assert_eq(memcmp(got, want, count * sizeof(got[0])), 0, "%s: %zu", paths[k], count);
        }
    }
}

/* Texts of a few blocks, as points have: their last blocks are full to different degrees. */
Test(hash, short_messages_side_by_side_hash_as_each_alone)
{
    enum { N = 400 };
    static const char *const paths[] = { "scalar", "avx2", "avx512" };
    uint8_t data[N];
    const void *p[N];
    size_t n[N];
    struct id want[N], got[N];
    random_bytes(data, sizeof(data));
    for (size_t i = 0; i < N; i++) {
        n[i] = i < N / 2 ? 2 * i : i % 140; /* of a length, and of mixed ones */
        p[i] = data + (N - n[i]);
        hash_bytes(p[i], n[i], &want[i]);
    }
    for (size_t k = 0; k < sizeof(paths) / sizeof(paths[0]); k++) {
        setenv("SIOFLEET_ISA", paths[k], 1);
        memset(got, 0, sizeof(got));
        hash_many(p, n, N, got);
        cr_assert_eq(memcmp(got, want, sizeof(got)), 0, "%s", paths[k]);
    }
}

/* What one path seals the others open: agents of before seal with libsodium. */
Test(aead, aes_256_gcm_is_the_same_on_every_path)
{
    enum { LONGEST = 1100 };
    static const char *const paths[] = { "scalar", "avx512" }; /* libcrypto; libIPSec_MB, where it is */
    uint8_t key[AEAD_KEY], text[LONGEST], sealed[LONGEST + AEAD_TAG], theirs[LONGEST + AEAD_TAG],
        back[LONGEST], no[12] = { 5, 1 };
    if (!aead_has(AEAD_AES256GCM))
        cr_skip_test("no AES instructions");
    for (size_t k = 0; k < 2; k++) {
        setenv("SIOFLEET_ISA", paths[k], 1);
        /* more than once through all that is done at a time, and each length of a rest */
        for (size_t n = 0; n <= LONGEST; n += n < 300 ? 1 : 83) {
            struct aead a;
            random_bytes(key, sizeof(key));
            random_bytes(text, sizeof(text));
            cr_assert_eq(aead_init(&a, AEAD_AES256GCM, key), 0);
            crypto_aead_aes256gcm_encrypt(theirs, NULL, text, n, NULL, 0, NULL, no, key);
            memset(sealed, 0, sizeof(sealed));
            aead_seal(&a, 256 + 5, text, n, sealed);
            cr_assert_eq(memcmp(sealed, theirs, n + AEAD_TAG), 0, "%s, %zu bytes", paths[k], n);
            cr_assert(n == LONGEST || !sealed[n + AEAD_TAG], "%s, %zu bytes", paths[k], n);
            cr_assert_eq(aead_open(&a, 256 + 5, sealed, n + AEAD_TAG, back), 0);
            cr_assert_eq(memcmp(back, text, n), 0);
            cr_assert_eq(aead_open(&a, 256 + 4, sealed, n + AEAD_TAG, back), -SF_EINTEGRITY);
            sealed[n / 2] ^= 1;
            cr_assert_eq(aead_open(&a, 256 + 5, sealed, n + AEAD_TAG, back), -SF_EINTEGRITY);
            cr_assert_eq(aead_open(&a, 256 + 5, sealed, AEAD_TAG - 1, back), -SF_EINTEGRITY);
            /* in place */
            memcpy(sealed, text, n);
            aead_seal(&a, 256 + 5, sealed, n, sealed);
            cr_assert_eq(memcmp(sealed, theirs, n + AEAD_TAG), 0);
            cr_assert_eq(aead_open(&a, 256 + 5, sealed, n + AEAD_TAG, sealed), 0);
            cr_assert_eq(memcmp(sealed, text, n), 0);
            aead_clear(&a);
        }
    }
    unsetenv("SIOFLEET_ISA");
}

Test(hash, an_id_is_64_lower_case_digits)
{
    struct id id;
    struct err e;
    cr_assert_eq(
        id_parse("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", &id, &e), 0);
    cr_assert_eq(id.b[31], 0xff);
    cr_assert_eq(
        id_parse("00112233445566778899AABBccddeeff00112233445566778899aabbccddeeff", &id, &e),
        -SF_EUSAGE);
    cr_assert_eq(id_parse("00", &id, &e), -SF_EUSAGE);
}

Test(zio, reads_plain_and_compressed_alike_and_names_damage)
{
    CLEANUP(freep) char *dir = scratch();
    CLEANUP(freep) char *path = path_fmt("%s/f", dir);
    struct err e = { 0 };
    size_t n = 1000000;
    CLEANUP(freep) uint8_t *data = malloc(n), *back = malloc(n + 1), *packed = malloc(zio_bound(n));
    struct rng rng = { 42 };
    for (size_t i = 0; i < n; i++)
        data[i] = (uint8_t)(rng_u64(&rng) & 0x33);
    ssize_t p = zio_pack(packed, zio_bound(n), data, n, 3);
    cr_assert_gt(p, 0);
    for (int zipped = 0; zipped < 2; zipped++) {
        cr_assert_eq(
            file_write(path, zipped ? packed : data, zipped ? (size_t)p : n, 0600, true, &e), 0);
        CLEANUP(zio_free) struct zio *z = NULL;
        cr_assert_eq(zio_open(path, 0, &z, &e), 0);
        cr_assert_eq(zio_read(z, back, n + 1, &e), (ssize_t)n);
        cr_assert_eq(memcmp(back, data, n), 0);
        cr_assert_eq(zio_read(z, back, 1, &e), 0);
        CLEANUP(zio_free) struct zio *capped = NULL;
        cr_assert_eq(zio_open(path, n - 1, &capped, &e), 0);
        cr_assert_eq(zio_read(capped, back, n, &e), -EFBIG);
    }
    static const size_t cuts[] = { 5, 100, 0 };
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
        size_t keep = cuts[i] ? cuts[i] : (size_t)p - 1;
        cr_assert_eq(file_write(path, packed, keep, 0600, true, &e), 0);
        CLEANUP(zio_free) struct zio *z = NULL;
        cr_assert_eq(zio_open(path, 0, &z, &e), 0);
        ssize_t got = zio_read(z, back, n, &e);
        if (got > 0) /* all there but the checksum behind it: the next read says so */
            got = zio_read(z, back, 1, &e);
        cr_expect_eq(got, -SF_EINTEGRITY, "cut at %zu", keep);
    }
    packed[p / 2] ^= 0x40;
    cr_assert_eq(file_write(path, packed, (size_t)p, 0600, true, &e), 0);
    CLEANUP(zio_free) struct zio *z = NULL;
    cr_assert_eq(zio_open(path, 0, &z, &e), 0);
    cr_assert_eq(zio_read(z, back, n, &e), -SF_EINTEGRITY);
    cr_assert_not_null(strstr(e.text, path));
    cr_assert_eq(dir_remove(dir, &e), 0);
}

Test(zio, packs_what_is_written_into_a_file_that_reads_back)
{
    CLEANUP(freep) char *dir = scratch();
    CLEANUP(freep) char *to = path_fmt("%s/f.zst", dir);
    struct err e = { 0 };
    static const size_t lens[] = { 0, 1, 1 << 17, (1 << 17) + 1, 700000 };
    CLEANUP(freep) uint8_t *data = malloc(700000), *back = malloc(700001);
    struct rng rng = { 7 };
    struct zio_out *z = NULL;
    struct id id, of_file;
    uint64_t size, size_of_file;
    for (size_t i = 0; i < 700000; i++)
        data[i] = (uint8_t)(rng_u64(&rng) & 7);
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        cr_assert_eq(zio_create(to, 9, &z, &e), 0, "%s", e.text);
        struct zio_out *other = NULL;
        cr_expect_eq(zio_create(to, 9, &other, &e), -EEXIST);
        for (size_t at = 0, n; at < lens[i]; at += n) { /* in pieces of any length */
            n = 1 + rng_u64(&rng) % 90000;
            n = n < lens[i] - at ? n : lens[i] - at;
            cr_assert_eq(zio_write(z, data + at, n, &e), 0, "%s", e.text);
        }
        cr_assert_eq(zio_end(&z, &id, &size, &e), 0, "%s", e.text);
        cr_assert_eq(cid_file(to, &of_file, &size_of_file, &e), 0);
        cr_expect(id_eq(&id, &of_file) && size == size_of_file, "length %zu", lens[i]);
        CLEANUP(zio_free) struct zio *in = NULL;
        cr_assert_eq(zio_open(to, 0, &in, &e), 0);
        cr_assert_eq(zio_read(in, back, 700001, &e), (ssize_t)lens[i]);
        cr_expect_eq(memcmp(back, data, lens[i]), 0, "length %zu", lens[i]);
        unlink(to);
    }
    cr_assert_eq(zio_create(to, 9, &z, &e), 0, "%s", e.text);
    cr_assert_eq(zio_write(z, data, 5, &e), 0);
    zio_abort(&z);
    cr_expect_eq(access(to, F_OK), -1, "an aborted one leaves nothing");
    cr_assert_eq(dir_remove(dir, &e), 0);
}

Test(zio, what_does_not_pack_is_soon_let_be_and_looked_at_again_now_and_then)
{
    struct zio_worth w = { 0 };
    unsigned tries = 0;
    for (int i = 0; i < 3 + 4 * ZIO_AGAIN; i++)
        if (zio_worth_try(&w)) {
            tries++;
            cr_expect_not(zio_worth_note(&w, 1000, 900));
        }
    cr_expect_eq(tries, ZIO_TRIES + 4);
    for (int i = 0; i < ZIO_AGAIN; i++)
        if (zio_worth_try(&w))
            cr_expect(zio_worth_note(&w, 1000, 800), "it pays from here on");
    cr_expect(zio_worth_try(&w) && zio_worth_try(&w), "each one is packed again");
    cr_expect_not(zio_worth_note(&w, 1000, -1));
}

Test(ini, keeps_order_lines_and_section_arguments)
{
    CLEANUP(ini_free) struct ini *ini = NULL;
    struct err e = { 0 };
    cr_assert_eq(ini_text("s.ini",
                          "; top\r\n[sweep]\r\nname = a b\r\n\n[trace  one]\n  file=x ; behind\n# "
                          "no\n[arch]\n queue = 1,2\n",
                          &ini, &e),
                 0, "%s", e.text);
    cr_assert_eq(ini->n_sections, 3);
    cr_assert_str_eq(ini->sections[1].name, "trace");
    cr_assert_str_eq(ini->sections[1].arg, "one");
    cr_assert_eq(ini->sections[1].line, 5);
    cr_assert_str_eq(ini_get(ini_section(ini, "sweep", ""), "name"), "a b");
    cr_assert_str_eq(ini_get(&ini->sections[1], "file"), "x");
    cr_assert_eq(ini->sections[2].keys[0].line, 9);
    cr_assert_str_eq(ini->sections[2].keys[0].value, "1,2");
}

Test(ini, refuses_with_file_and_line)
{
    static const struct {
        const char *text, *where;
    } t[] = {
        { "[a]\nx=1\nx=2\n", "s.ini:3: key 'x' stands twice (first on line 2)" },
        { "x=1\n", "s.ini:1: key 'x' before any [section]" },
        { "[a]\nnonsense\n", "s.ini:2: neither a [section] nor key = value" },
        { "[a]\n[b]\n[a]\n", "s.ini:3: section [a] stands twice (first on line 1)" },
        { "[a\nx=1\n", "s.ini:1: '[' without ']'" },
        { "[]\n", "s.ini:1: section without a name" },
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        CLEANUP(ini_free) struct ini *ini = NULL;
        struct err e = { 0 };
        cr_expect_eq(ini_text("s.ini", t[i].text, &ini, &e), -SF_EUSAGE, "case %zu", i);
        cr_expect_str_eq(e.text, t[i].where);
    }
    /* a line that the reader would cut silently */
    char longer[6000] = "[a]\nx=";
    memset(longer + 6, 'y', 5000);
    CLEANUP(ini_free) struct ini *ini = NULL;
    struct err e = { 0 };
    cr_expect_eq(ini_text("s.ini", longer, &ini, &e), -SF_EUSAGE);
    cr_expect_not_null(strstr(e.text, "s.ini:2: line longer than"));
}

Test(json, numbers_stay_exact)
{
    CLEANUP(json_decrefp) json_t *o = json_object();
    json_object_set_new(o, "a", json_u64((1ull << 53) - 1));
    json_object_set_new(o, "b", json_u64(UINT64_MAX));
    CLEANUP(freep) char *s = json_canonical(o);
    cr_assert_str_eq(s, "{\"a\":9007199254740991,\"b\":\"18446744073709551615\"}");
    uint64_t v;
    struct err e;
    cr_assert(json_get_u64(o, "b", &v, &e) == 0 && v == UINT64_MAX);
    cr_assert_eq(json_get_u64(o, "c", &v, &e), -SF_EFORMAT);
}

Test(json, bytes_that_are_no_text_are_replaced_and_none_is_lost)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *json;
    } rows[] = {
        { NULL, 0, "\"\"" },
        { "a\0b", 3, "\"a\\u0000b\"" },
        { "\xc3\xa4", 2, "\"\xc3\xa4\"" },
        { "a\xff\0b", 4, "\"a?\\u0000b\"" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CLEANUP(json_decrefp) json_t *j = json_bytes(rows[i].bytes, rows[i].n);
        CLEANUP(freep) char *s = json_dumps(j, JSON_ENCODE_ANY);
        cr_expect_str_eq(s, rows[i].json);
    }
}

Test(locked, what_is_freed_is_wiped_and_used_again)
{
    uint64_t before = locked_served();
    void *mapped =
        sodium_allocarray(1, 64); /* before the start: libsodium's, and freed behind it */
    cr_assert_not_null(mapped);
    cr_assert_eq(locked_served(), before);
    locked_start();
    locked_start();
    for (size_t n = 1; n <= LOCKED_MAX_B; n = n * 3 + 1) {
        uint8_t *p = sodium_allocarray(n, 1);
        cr_assert_not_null(p);
        for (size_t i = 0; i < n; i++)
            cr_assert_eq(p[i], 0, "byte %zu of %zu is what the one before left", i, n);
        memset(p, 0xa5, n);
        sodium_free(p);
        uint8_t *q = sodium_allocarray(1, n);
        cr_assert_eq(q, p);
        cr_assert(sodium_is_zero(q, n));
        sodium_free(q);
    }
    cr_assert_gt(locked_served(), before);
    sodium_free(mapped);
    sodium_free(NULL);
}

Test(locked, an_allocation_ends_at_a_guard_page_and_all_taken_ones_are_apart)
{
    enum { N = LOCKED_SLOTS + 3, SIZE = 160 };
    uint8_t *p[N];
    int fd[2];
    cr_assert_eq(pipe(fd), 0);
    locked_start();
    uint64_t before = locked_served();
    for (int i = 0; i < N; i++) {
        cr_assert_not_null(p[i] = sodium_allocarray(SIZE, 1));
        memset(p[i], i, SIZE);
        cr_assert_eq(write(fd[1], p[i] + SIZE - 1, 1), 1);
        cr_assert_eq(write(fd[1], p[i] + SIZE, 1), -1);
        cr_assert_eq(errno, EFAULT);
    }
    cr_assert_eq(locked_served() - before, LOCKED_SLOTS, "the rest is libsodium's");
    for (int i = 0; i < N; i++)
        for (int k = 0; k < SIZE; k++)
            cr_assert_eq(p[i][k], i);
    for (int i = 0; i < N; i++)
        sodium_free(p[i]);
    before = locked_served();
    void *big = sodium_allocarray(LOCKED_MAX_B + 1, 1);
    cr_assert_not_null(big);
    cr_assert_eq(locked_served(), before);
    sodium_free(big);
    cr_assert_null(sodium_allocarray(SIZE_MAX / 2, 3));
    close(fd[0]);
    close(fd[1]);
}
