#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/wire/rows.h"
#include "proto/wire/utf8.h"
#include "tests/proto/wire/fill.h"
#include "tests/proto/wire/table.h"

static struct fill_mem mem;
static struct buf frame = { .cap = FRAME_MAX + 4096 };

static void stop(void)
{
    fill_clear(&mem);
    buf_clear(&frame);
}

TestSuite(wire, .fini = stop);

static const char *src(void)
{
    const char *s = getenv("SIOFLEET_SRC");
    return s ? s : "../..";
}

Test(wire, every_message_comes_back_as_it_was_sent)
{
    const struct wire_type *t;
    struct rng r = { 42 };
    for (size_t i = 0; (t = wire_type_at(i)); i++)
        for (int k = 0; k < 40; k++) {
            struct err e = { 0 };
            struct msg back, m = fill_msg(t,
                                          k == 0   ? FILL_LOW
                                          : k == 1 ? FILL_HIGH
                                                   : FILL_RANDOM,
                                          &r, &mem);
            cr_assert(msg_encode(&m, &frame, &e) == 0, "%s", e.text);
            cr_assert(msg_decode(frame.data, frame.len, &back, &e) == 0, "%s", e.text);
            cr_assert_eq(back.type, m.type);
            const char *d = fill_differs(&t->part, wire_body(&m), wire_body(&back));
            cr_assert(!d, "%s: field '%s' differs", t->part.name, d);
            msg_clear(&back);
            fill_clear(&mem);
        }
}

static const uint8_t too_much[1 << 21];

/* Set field f of m past its bound. Returns false when the type has no such value. */
static bool spoil(struct msg *m, const struct wire_field *f, bool high)
{
    uint8_t *at = (uint8_t *)wire_body(m) + f->off;
    if (f->kind == WIRE_KIND_ID || (high && f->hi == UINT64_MAX) || (!high && f->lo == 0))
        return false;
    if (f->kind == WIRE_KIND_U64) {
        uint64_t v = high ? f->hi + 1 : f->lo - 1;
        memcpy(at, &v, sizeof(v));
        return true;
    }
    size_t n = high ? f->hi + 1 : f->lo - 1;
    const void *p = n ? (const void *)too_much : NULL;
    memcpy(at, &p, sizeof(p));
    memcpy((uint8_t *)wire_body(m) + f->off_len, &n, sizeof(n));
    return true;
}

Test(wire, nothing_out_of_bounds_is_sent)
{
    const struct wire_type *t;
    struct rng r = { 1 };
    size_t tried = 0;
    for (size_t i = 0; (t = wire_type_at(i)); i++)
        for (size_t k = 0; k < 2 * t->part.n; k++) {
            struct err e = { 0 };
            struct msg m = fill_msg(t, FILL_LOW, &r, &mem);
            if (!spoil(&m, &t->part.fields[k / 2], k & 1))
                continue;
            tried++;
            cr_assert_eq(msg_encode(&m, &frame, &e), -EINVAL, "%s.%s", t->part.name,
                         t->part.fields[k / 2].name);
            cr_assert(strstr(e.text, t->part.fields[k / 2].name), "%s", e.text);
            cr_assert_eq(frame.len, 0);
        }
    cr_assert(tried > 100, "%zu", tried);
    struct msg m = { .type = 999 };
    cr_assert_eq(msg_encode(&m, &frame, NULL), -EINVAL);
    m = (struct msg){ .type = M_OK, .ok = { .req = 1, .text = "bad \xff" } };
    cr_assert_eq(msg_encode(&m, &frame, NULL), -EINVAL);
    /* the sum may be too long where no field is */
    struct wire_row *rows = calloc(1024, sizeof(*rows));
    char error[501];
    memset(error, 'x', 500);
    error[500] = 0;
    for (int i = 0; i < 1024; i++) {
        rows[i].error = error;
        rows[i].stats = too_much;
        rows[i].stats_len = 1024;
    }
    m = (struct msg){ .type = M_ROWS,
                      .rows = {
                          .task = 1, .epoch = 1, .n = 1, .seq = 1, .rows = rows, .n_rows = 1024 } };
    cr_assert_eq(msg_encode(&m, &frame, NULL), -EMSGSIZE);
    free(rows);
}

/* The bounds again, on the way in: a frame that our encoder would not make. Only single fields of one byte heads. */
Test(wire, nothing_out_of_bounds_is_taken)
{
    static const struct {
        const char *what;
        uint8_t b[64];
        size_t n;
        int r;
        const char *text;
    } rows[] = {
        { "as it should be", { 0x94, 1, 12, 1, 1 }, 5, -SF_EFORMAT, "'n' is missing" },
        { "a cancel", { 0x95, 1, 12, 1, 1, 1 }, 6, 0, "" },
        { "below the bound", { 0x95, 1, 12, 1, 0, 1 }, 6, -SF_EFORMAT, "'epoch' is out of range" },
        { "one byte left over", { 0x95, 1, 12, 1, 1, 1, 0 }, 7, -SF_EFORMAT, "too many" },
        { "trailing field", { 0x96, 1, 12, 1, 1, 1, 0xc0 }, 7, 0, "" },
        { "trailing list", { 0x96, 1, 12, 1, 1, 1, 0x92, 0x81, 1, 2, 0xa1, 'x' }, 12, 0, "" },
        { "trailing junk", { 0x96, 1, 12, 1, 1, 1, 0xc1 }, 7, -SF_EFORMAT, "not MessagePack" },
        { "trailing list cut",
          { 0x96, 1, 12, 1, 1, 1, 0xdd, 0xff, 0xff, 0xff, 0xff },
          11,
          -SF_EFORMAT,
          "cut off" },
        { "trailing map of maps",
          { 0x96, 1, 12, 1, 1, 1, 0xdf, 0x7f, 0xff, 0xff, 0xff },
          11,
          -SF_EFORMAT,
          "cut off" },
        { "trailing ext cut",
          { 0x96, 1, 12, 1, 1, 1, 0xc9, 0xff, 0xff, 0xff, 0xff, 1 },
          12,
          -SF_EFORMAT,
          "cut off" },
        { "a negative number", { 0x95, 1, 12, 1, 1, 0xff }, 6, -SF_EFORMAT, "unsigned" },
        { "a string for a number", { 0x95, 1, 12, 1, 1, 0xa1, 'x' }, 7, -SF_EFORMAT, "unsigned" },
        { "number cut off", { 0x95, 1, 12, 1, 1, 0xcf, 1 }, 7, -SF_EFORMAT, "cut off" },
        { "older version", { 0x95, 0, 12, 1, 1, 1 }, 6, -SF_EREFUSED, "version 0" },
        { "newer version", { 0x92, 2, 0xc0 }, 3, -SF_EREFUSED, "version 2" },
        { "unknown type", { 0x92, 1, 99 }, 3, -SF_EFORMAT, "type 99" },
        { "huge type",
          { 0x92, 1, 0xcf, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 12 },
          11,
          -SF_EFORMAT,
          "unknown" },
        { "empty", { 0 }, 0, -SF_EFORMAT, "not a message" },
        { "no list", { 0x01 }, 1, -SF_EFORMAT, "not a message" },
        { "count of gigabytes", { 0xdd, 0x0f, 0, 0, 0 }, 5, -SF_EFORMAT, "not a message" },
        { "beat with a list of gigabytes",
          { 0x96, 1, 4, 1, 1, 1, 0xdd, 0xff, 0xff, 0xff, 0xff },
          11,
          -SF_EFORMAT,
          "longer" },
        { "beat whose list cannot fit",
          { 0x96, 1, 4, 1, 1, 1, 0x9f, 0x95, 1, 1, 1, 1, 1 },
          13,
          -SF_EFORMAT,
          "longer" },
        { "beat with a bad item",
          { 0x96, 1, 4, 1, 1, 1, 0x91, 1, 1, 1, 1, 1, 1 },
          13,
          -SF_EFORMAT,
          "no list" },
        { "beat with an item short of a field",
          { 0x96, 1, 4, 1, 1, 1, 0x91, 0x94, 1, 1, 1, 1 },
          12,
          -SF_EFORMAT,
          "longer" },
        { "ok with a zero byte", { 0x94, 1, 45, 1, 0xa2, 'a', 0 }, 7, -SF_EFORMAT, "UTF-8" },
        { "ok with a surrogate",
          { 0x94, 1, 45, 1, 0xa3, 0xed, 0xa0, 0x80 },
          8,
          -SF_EFORMAT,
          "UTF-8" },
        { "ok with bytes for text", { 0x94, 1, 45, 1, 0xc4, 1, 'a' }, 7, -SF_EFORMAT, "string" },
        { "ok longer than the frame",
          { 0x94, 1, 45, 1, 0xdb, 0xff, 0xff, 0xff, 0xff },
          9,
          -SF_EFORMAT,
          "longer" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err e = { 0 };
        struct msg m;
        /* an exact copy, so that the sanitizer sees each byte read past the end */
        uint8_t *copy = malloc(rows[i].n ? rows[i].n : 1);
        memcpy(copy, rows[i].b, rows[i].n);
        int r = msg_decode(copy, rows[i].n, &m, &e);
        cr_assert_eq(r, rows[i].r, "%s: %d %s", rows[i].what, r, e.text);
        cr_assert(r == 0 || strstr(e.text, rows[i].text), "%s: %s", rows[i].what, e.text);
        cr_assert(r == 0 || !m.block);
        msg_clear(&m);
        free(copy);
    }
    struct msg m;
    cr_assert_eq(msg_decode(too_much, FRAME_MAX + 1, &m, NULL), -SF_EFORMAT);
}

Test(wire, a_frame_cut_anywhere_is_refused)
{
    const struct wire_type *t;
    struct rng r = { 5 };
    for (size_t i = 0; (t = wire_type_at(i)); i++) {
        struct msg back, m = fill_msg(t, FILL_RANDOM, &r, &mem);
        cr_assert_eq(msg_encode(&m, &frame, NULL), 0);
        for (size_t n = 0; n < frame.len; n += n < 200 ? 1 : 37) {
            uint8_t *copy = malloc(n ? n : 1);
            memcpy(copy, frame.data, n);
            cr_assert_eq(msg_decode(copy, n, &back, NULL), -SF_EFORMAT, "%s at %zu", t->part.name,
                         n);
            free(copy);
        }
    }
}

/* What decodes is legal: it can be sent again and means the same. */
Test(wire, changed_bytes_give_a_legal_message_or_none)
{
    const struct wire_type *t;
    struct rng r = { 6 };
    struct buf again = BUF_INIT(FRAME_MAX + 4096);
    size_t legal = 0;
    for (size_t i = 0; (t = wire_type_at(i)); i++)
        for (int k = 0; k < 300; k++) {
            struct err e = { 0 };
            struct msg a, b, m = fill_msg(t, FILL_RANDOM, &r, &mem);
            cr_assert_eq(msg_encode(&m, &frame, NULL), 0);
            for (uint64_t c = 1 + rng_below(&r, 3); c; c--)
                frame.data[rng_below(&r, k & 1            ? frame.len
                                         : frame.len < 40 ? frame.len
                                                          : 40)] = (uint8_t)rng_u64(&r);
            fill_clear(&mem);
            if (msg_decode(frame.data, frame.len, &a, &e) < 0)
                continue;
            legal++;
            const struct wire_type *ta = wire_type(a.type);
            cr_assert(msg_encode(&a, &again, &e) == 0, "%s", e.text);
            cr_assert(msg_decode(again.data, again.len, &b, &e) == 0, "%s", e.text);
            cr_assert_null(fill_differs(&ta->part, wire_body(&a), wire_body(&b)));
            msg_clear(&a);
            msg_clear(&b);
        }
    cr_assert(legal > 100, "%zu", legal);
    buf_clear(&again);
}

/* How many values a frame of ours promises; *ret_head: the bytes that say so. */
static size_t promised(const struct buf *f, size_t *ret_head)
{
    *ret_head = f->data[0] == 0xdc ? 3 : 1;
    return f->data[0] == 0xdc ? (size_t)f->data[1] << 8 | f->data[2] : f->data[0] & 0x0fu;
}

/* Promise n values less. */
static void promise_less(struct buf *f, size_t n)
{
    size_t head, had = promised(f, &head);
    f->data[head - 1] = (uint8_t)(f->data[head - 1] - n);
    if (head == 1 || had - n > 15)
        return;
    f->data[2] |= 0x90;
    f->len -= 2;
    memmove(f->data, f->data + 2, f->len);
}

/* Frames of every version that was ever released. To add the frames of new messages: wire_table tests/data/wire */
Test(wire, old_frames_decode_for_ever)
{
    CLEANUP(freep) char *dir = path_fmt("%s/tests/data/wire", src());
    DIR *d = opendir(dir);
    size_t whole = 0, first = 0;
    cr_assert(d, "%s", dir);
    for (struct dirent *de; (de = readdir(d));) {
        if (!strstr(de->d_name, ".frame"))
            continue;
        CLEANUP(freep) char *path = path_fmt("%s/%s", dir, de->d_name);
        struct buf again = BUF_INIT(FRAME_MAX);
        struct err e = { 0 };
        struct msg m;
        char name[64];
        buf_reset(&frame);
        cr_assert(file_read(path, &frame, &e) == 0, "%s", e.text);
        cr_assert(msg_decode(frame.data, frame.len, &m, &e) == 0, "%s: %s", de->d_name, e.text);
        const struct wire_type *t = wire_type(m.type);
        size_t head, head_again, fields = promised(&frame, &head) - 2;
        snprintf(name, sizeof(name), "v1-%s.frame", t->part.name);
        if (fields > t->part.n - wire_added(m.type))
            snprintf(name, sizeof(name), "v1-%s.%zu.frame", t->part.name, fields);
        cr_assert_str_eq(name, de->d_name);
        cr_assert(fields <= t->part.n && fields >= t->part.n - wire_added(m.type));
        cr_assert(msg_encode(&m, &again, &e) == 0, "%s", e.text);
        /* fields added later stand at the end, and are empty when the frame has none */
        cr_assert_eq(promised(&again, &head_again), t->part.n + 2);
        size_t at = head_again + frame.len - head;
        cr_assert(!memcmp(again.data + head_again, frame.data + head, frame.len - head), "%s",
                  de->d_name);
        for (size_t k = fields; k < t->part.n; k++) {
            uint8_t b = again.data[at++];
            cr_assert(b == 0 || b == 0xa0 || b == 0x90 || (b == 0xc4 && again.data[at++] == 0));
        }
        cr_assert_eq(at, again.len);
        msg_clear(&m);
        buf_clear(&again);
        whole += fields == t->part.n;
        first += fields == t->part.n - wire_added(m.type);
    }
    closedir(d);
    size_t types = 0;
    while (wire_type_at(types))
        types++;
    cr_assert(first == types && whole == types,
              "a message without an old frame: run wire_table tests/data/wire");
}

/* A peer of before must still be understood: what it does not send is 0 or empty, so that must be legal. */
Test(wire, fields_added_later_may_be_missing)
{
    const struct wire_type *t;
    struct rng r = { 7 };
    size_t seen = 0;
    for (size_t i = 0; (t = wire_type_at(i)); i++) {
        size_t n = wire_added(t->type);
        cr_assert(n < t->part.n);
        for (size_t k = t->part.n - n; k < t->part.n; k++) {
            const struct wire_field *f = &t->part.fields[k];
            cr_assert(f->lo == 0 && f->kind != WIRE_KIND_ID, "%s.%s", t->part.name, f->name);
            seen++;
        }
        struct msg back, m = fill_msg(t, FILL_LOW, &r, &mem);
        cr_assert_eq(msg_encode(&m, &frame, NULL), 0);
        for (size_t k = t->part.n - n; k < t->part.n; k++) /* an empty field is one byte or two */
            frame.len -= t->part.fields[k].kind == WIRE_KIND_BIN ? 2 : 1;
        promise_less(&frame, n);
        struct buf less = BUF_INIT(FRAME_MAX);
        buf_add(&less, frame.data, frame.len);
        promise_less(&less, 1);
        cr_assert_eq(msg_decode(less.data, less.len, &back, NULL), -SF_EFORMAT);
        buf_clear(&less);
        if (n)
            cr_assert_eq(msg_decode(frame.data, frame.len, &back, NULL), 0);
        if (n)
            cr_assert_null(fill_differs(&t->part, wire_body(&m), wire_body(&back)));
        if (n)
            msg_clear(&back);
    }
    cr_assert(seen >= 7);
}

Test(wire, the_table_in_the_readme_is_that_of_the_code)
{
    CLEANUP(freep) char *path = path_fmt("%s/proto/wire/README.md", src());
    CLEANUP(freep) char *table = NULL;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    struct err e = { 0 };
    size_t n;
    cr_assert(file_read(path, &b, &e) == 0, "%s", e.text);
    FILE *f = open_memstream(&table, &n);
    wire_table(f);
    fclose(f);
    cr_assert(strstr((char *)b.data, table),
              "proto/wire/README.md is stale: put the output of wire_table between its marks");
}

Test(wire, roles_have_names_and_unknown_types_have_no_sender)
{
    enum role r;
    cr_assert(role_parse("reader", &r) == 0 && r == ROLE_READER);
    cr_assert_eq(role_parse("root", &r), -EINVAL);
    cr_assert_str_eq(role_name(ROLE_AGENT), "agent");
    cr_assert_eq(msg_roles(99), 0);
    cr_assert_str_eq(msg_name(99), "?");
    const struct wire_type *t, *last = NULL;
    for (size_t i = 0; (t = wire_type_at(i)); last = t, i++) {
        cr_assert(t->roles, "%s", t->part.name);
        cr_assert(!last || last->type < t->type, "numbers are in order and used once");
        cr_assert(wire_type(t->type) == t);
    }
}

Test(wire, utf8_is_told_from_bytes)
{
    static const struct {
        const char *s, *clean;
        bool ok;
    } rows[] = { { "", "", true },
                 { "abc", "abc", true },
                 { "é漢🜂", "é漢🜂", true },
                 { "\xc0\x80", "??", false },
                 { "\xe0\x80\x80", "???", false },
                 { "\xed\xa0\x80", "???", false },
                 { "\xf4\x90\x80\x80", "????", false },
                 { "a\xff"
                   "b",
                   "a?b", false },
                 { "a\xe6\xbc", "a??", false } };
    char out[64];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cr_assert_eq(utf8_valid(rows[i].s, strlen(rows[i].s)), rows[i].ok, "%zu", i);
        utf8_clean(rows[i].s, out, sizeof(out));
        cr_assert_str_eq(out, rows[i].clean, "%zu", i);
        for (size_t room = 1; room < 8; room++) {
            size_t n = utf8_clean(rows[i].s, out, room);
            cr_assert(n < room && n == strlen(out) && utf8_valid(out, n));
        }
    }
    cr_assert_not(utf8_valid("a\0b", 3));
}

/* ---- rows as bytes */

enum { SOME = 200 };

/* Rows as engines make them and such as nobody does. */
static void make_rows(struct rng *r, struct wire_row rows[SOME], struct row_stats stats[SOME])
{
    static const char *const errors[] = { "", "", "x", "wohl: größer als \xe2\x88\x9e" };
    for (size_t i = 0; i < SOME; i++) {
        uint64_t *v = (uint64_t *)(void *)&stats[i];
        unsigned some = (unsigned)rng_below(r, 4);
        for (size_t k = 0; k < ROW_STATS_N; k++)
            v[k] = rng_below(r, 3) < some ? rng_u64(r) >> rng_below(r, 64) : 0;
        rows[i] = (struct wire_row){ .index = rng_below(r, 4) ? (i ? rows[i - 1].index + 1 : 0)
                                                              : rng_u64(r) >> rng_below(r, 64),
                                     .status = rng_below(r, 3),
                                     .error = errors[rng_below(r, 4)],
                                     .duration_us = rng_u64(r) >> rng_below(r, 64) };
        rows[i].error_len = strlen(rows[i].error);
        hash_bytes(&i, sizeof(i), &rows[i].point);
        uint8_t *p = fill_take(&mem, ROW_STATS_BYTES);
        row_stats_pack(&stats[i], p);
        rows[i].stats = p;
        rows[i].stats_len = rng_below(r, 5) ? ROW_STATS_BYTES : 0;
    }
}

Test(wire, rows_come_back_from_a_block_as_they_were)
{
    static struct wire_row rows[SOME];
    static struct row_stats stats[SOME];
    struct rng r = { 11 };
    struct buf out = BUF_INIT(FRAME_MAX), again = BUF_INIT(FRAME_MAX);
    struct msg_rows head = { .task = 1, .epoch = 2, .n = 3, .seq = 4, .threads = 5 };
    for (int k = 0; k < 20; k++) {
        struct err e = { 0 };
        make_rows(&r, rows, stats);
        if (k == 0)
            rows[0].index = UINT64_MAX;
        head.rows = rows;
        head.n_rows = SOME;
        cr_assert_eq(row_block_pack(rows, SOME, &out), 0);
        struct msg m[2] = { { .type = M_ROWS, .rows = head }, row_block_of(&head, &out) }, back;
        for (int form = 0; form < 2; form++) {
            struct rows_reader in;
            struct msg_rows h;
            struct wire_row w;
            struct row_stats s;
            uint64_t next = 0;
            buf_reset(&again);
            cr_assert(msg_encode(&m[form], &frame, &e) == 0, "%s", e.text);
            cr_assert(msg_decode(frame.data, frame.len, &back, &e) == 0, "%s", e.text);
            cr_assert(rows_reader_init(&in, &back, &h, &e) == 0, "%s", e.text);
            cr_assert(h.task == 1 && h.epoch == 2 && h.n == 3 && h.seq == 4 && h.threads == 5 &&
                      h.n_rows == SOME);
            for (size_t i = 0; i < SOME; i++) {
                cr_assert(rows_next(&in, &w, &s));
                cr_assert_eq(w.index, rows[i].index);
                cr_assert_eq(w.status, rows[i].status);
                cr_assert_eq(w.duration_us, rows[i].duration_us);
                cr_assert(id_eq(&w.point, &rows[i].point));
                cr_assert_str_eq(w.error, rows[i].error);
                cr_assert_eq(w.error_len, rows[i].error_len);
                cr_assert_eq(!w.stats_len, !rows[i].stats_len);
                cr_assert(!w.stats_len || !memcmp(&s, &stats[i], sizeof(s)));
                cr_assert_eq(row_block_add(&again, &next, &w, w.stats_len ? &s : NULL), 0);
            }
            cr_assert(!rows_next(&in, &w, &s));
            cr_assert(again.len == out.len && !memcmp(again.data, out.data, out.len));
            msg_clear(&back);
        }
        fill_clear(&mem);
    }
    /* a row of nothing but its point: what empty tasks cost */
    struct wire_row row = { .duration_us = 1 };
    struct row_stats none = { 0 };
    uint64_t next = 0;
    buf_reset(&out);
    cr_assert_eq(row_block_add(&out, &next, &row, &none), 0);
    cr_assert_eq(out.len, 35);
    /* statistics of another program go as they are, in `rows` */
    row.stats = (const uint8_t *)&none;
    row.stats_len = ROW_STATS_BYTES - 8;
    cr_assert_eq(row_block_pack(&row, 1, &out), -EINVAL);
    buf_clear(&out);
    buf_clear(&again);
}

/* The block of b[0..n) is refused, with a line that says text. */
static void refused_block(const char *what, const uint8_t *b, size_t n, size_t n_rows,
                          const char *text)
{
    struct err e = { 0 };
    uint8_t *copy = malloc(n ? n : 1); /* exact, for the sanitizer */
    if (n)
        memcpy(copy, b, n);
    struct msg m = { .type = M_ROW_BLOCK,
                     .row_block = { .n_rows = n_rows, .rows = copy, .rows_len = n } };
    struct rows_reader in;
    struct msg_rows head;
    cr_assert_eq(rows_reader_init(&in, &m, &head, &e), -SF_EFORMAT, "%s", what);
    cr_assert(strstr(e.text, text), "%s: %s", what, e.text);
    free(copy);
}

Test(wire, a_block_that_is_not_so_many_rows_is_refused)
{
    static struct wire_row rows[SOME];
    static struct row_stats stats[SOME];
    struct rng r = { 12 };
    struct buf out = BUF_INIT(FRAME_MAX);
    make_rows(&r, rows, stats);
    cr_assert_eq(row_block_pack(rows, 5, &out), 0);
    for (size_t n = 0; n < out.len; n++)
        refused_block("cut", out.data, n, 5, "is cut off or no row");
    refused_block("a row less", out.data, out.len, 4, "too many");
    refused_block("a row more", out.data, out.len, 6, "row 5 is cut off or no row");
    /* flags, index, point, duration, statistics, error; what is changed stands in front or behind */
    enum { FIXED = 34 };
    static const struct {
        const char *what;
        uint8_t flags, tail[16];
        size_t n_tail;
    } bad[] = {
        { "status 3", 3, { 0 }, 0 },
        { "unknown flag", 32, { 0 }, 0 },
        { "bitmap longer than there are numbers", 4, { 7, 1, 0, 0, 0, 0, 0, 1, 1, 1 }, 10 },
        { "bitmap of 255 bytes", 4, { 255 }, 1 },
        { "bitmap that ends with 0", 4, { 2, 1, 0, 1 }, 4 },
        { "a number that this program has not", 4, { 6, 0, 0, 0, 0, 0, 128, 1 }, 8 },
        { "a number of 0", 4, { 1, 1, 0 }, 3 },
        { "a number longer than it need be", 4, { 1, 1, 129, 0 }, 4 },
        { "a number over 64 bits",
          4,
          { 1, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2 },
          12 },
        { "empty error", 8, { 0, 0 }, 2 },
        { "error without its end", 8, { 2, 'a', 'b' }, 3 },
        { "error of gigabytes", 8, { 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 'a' }, 11 },
        { "error that is no text", 8, { 1, 255, 0 }, 3 },
        { "error with a zero byte", 8, { 2, 'a', 0, 0 }, 4 },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint8_t b[FIXED + 16] = { bad[i].flags };
        memcpy(b + FIXED, bad[i].tail, bad[i].n_tail);
        refused_block(bad[i].what, b, FIXED + bad[i].n_tail, 1, "row 0 is cut off or no row");
    }
    uint8_t next[1 + FIXED] = { 16, 0 };
    refused_block("an index that need not stand there", next, sizeof(next), 1, "row 0");
    buf_clear(&out);
    fill_clear(&mem);
}
