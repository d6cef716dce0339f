#include <criterion/criterion.h>
#include <string.h>

#include "proto/base/clock.h"
#include "proto/base/rng.h"
#include "proto/format/frame.h"
#include "proto/format/log.h"
#include "tests/perf/scratch.h"

TestSuite(slog, .init = scratch_make, .fini = scratch_remove);

/* A walk-like stream of a few devices with every kind in it, odd values included. */
static struct log_event *make(uint64_t seed, size_t n, bool timed)
{
    struct rng r = { seed };
    struct log_event *v = calloc(n + 1, sizeof(*v));
    uint64_t now = 1000000;
    for (size_t i = 0; i < n; i++) {
        struct log_event *x = &v[i];
        unsigned roll = (unsigned)rng_below(&r, 100);
        now += rng_below(&r, 900);
        x->time_ns = timed ? now : 0;
        x->sid = (uint16_t)(16 + 8 * rng_below(&r, 5));
        x->domain = x->sid / 8;
        x->kind = (uint8_t)(roll < 5    ? LOG_CC_UPDATE
                            : roll < 20 ? LOG_CC_HIT
                            : roll < 50 ? LOG_SLPTE_FETCH
                            : roll < 60 ? LOG_PAGE_UPDATE
                            : roll < 97 ? LOG_PAGE_HIT
                                        : (uint64_t)LOG_INVALIDATE + roll - 97);
        x->level = (uint8_t)(x->kind == LOG_SLPTE_FETCH || x->kind == LOG_PAGE_UPDATE
                                 ? 1 + rng_below(&r, 3)
                                 : 0);
        for (int k = 0; k < 3; k++)
            x->p[k] =
                rng_below(&r, 50) ? rng_below(&r, 64) << 12 : rng_u64(&r) >> rng_below(&r, 64);
        if (x->kind == LOG_PAGE_HIT)
            x->p[2] = ~UINT64_C(0xfff);
        if (!rng_below(&r, 200))
            *x = (struct log_event){ x->time_ns,
                                     (uint16_t)rng_u64(&r),
                                     (uint8_t)(1 + rng_below(&r, 8)),
                                     (uint8_t)rng_u64(&r),
                                     (uint32_t)rng_u64(&r),
                                     { rng_u64(&r), rng_u64(&r), rng_u64(&r) } };
    }
    return v;
}

static const char *save(const struct log_event *v, size_t n, struct id *ret_id)
{
    struct slog_out *o;
    struct err e = { 0 };
    const char *path = in_scratch("a.slog");
    cr_assert_eq(slog_create(path, SLOG_RING, true, &o, &e), 0, "%s", e.text);
    for (size_t i = 0; i < n;) { /* in uneven portions */
        size_t k = n - i < 1000 + i % 77 ? n - i : 1000 + i % 77;
        cr_assert_eq(slog_add(o, v + i, k, &e), 0, "%s", e.text);
        i += k;
    }
    cr_assert_eq(slog_end(&o, 3, ret_id, NULL, &e), 0, "%s", e.text);
    return path;
}

Test(slog, events_come_back_as_they_were)
{
    static const size_t sizes[] = { 0, 1, 500, 30000, (1 << 18) + 1000 };
    for (size_t s = 0; s < 5; s++) {
        size_t n = sizes[s];
        struct log_event *v = make(40 + s, n, s & 1), *w = calloc(n + 1, sizeof(*w));
        struct slog_in *in = NULL;
        struct err e = { 0 };
        struct id a, b;
        const char *path = save(v, n, &a);
        cr_assert_eq(cid_file(path, &b, NULL, NULL), 0);
        cr_assert(id_eq(&a, &b));
        cr_assert_eq(slog_open(path, &in, &e), 0, "%s", e.text);
        size_t got = 0;
        for (ssize_t k;
             (k = slog_read(in, w + got, n + 1 - got < 777 ? n + 1 - got : 777, &e)) > 0;)
            got += (size_t)k;
        cr_assert_eq(got, n, "%s", e.text);
        for (size_t i = 0; i < n; i++)
            cr_assert(!memcmp(&v[i], &w[i], sizeof(*v)), "seed %zu, event %zu of kind %u", 40 + s,
                      i, v[i].kind);
        const struct slog_info *f = slog_info(in);
        cr_assert(f->events == n && f->dropped == 3 && f->source == SLOG_RING);
        uint64_t sum = 0, of_no_device = 0;
        for (size_t i = 0; i < f->n_devices; i++)
            sum += f->devices[i].events;
        for (size_t i = 0; i < n; i++)
            of_no_device += v[i].kind == LOG_INVALIDATE && v[i].level != LOG_INV_CC_DEVICE;
        cr_assert_eq(sum + of_no_device, n);
        if (n > 1 && s & 1)
            cr_assert_eq(f->duration_ns, v[n - 1].time_ns - v[0].time_ns);
        slog_close(&in);
        free(v);
        free(w);
    }
}

Test(slog, any_flipped_bit_and_any_truncation_is_damage)
{
    struct log_event *v = make(3, 400, true);
    struct buf b = BUF_INIT(1u << 24);
    cr_assert_eq(file_read(save(v, 400, NULL), &b, NULL), 0);
    for (size_t i = 0; i < b.len; i++) {
        struct slog_in *in = NULL;
        struct log_event w[400];
        struct err e = { 0 };
        b.data[i] ^= (uint8_t)(1 << i % 8);
        ssize_t r = slog_open_bytes("a.slog", b.data, b.len, &in, &e);
        if (r == 0)
            r = slog_read(in, w, 400, &e);
        cr_assert_eq(r, -SF_EINTEGRITY, "byte %zu: %zd %s", i, r, e.text);
        slog_close(&in);
        b.data[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t i = 1; i < b.len; i++) {
        struct slog_in *in = NULL;
        uint8_t *cut = malloc(i);
        memcpy(cut, b.data, i);
        cr_assert_eq(slog_open_bytes("a.slog", cut, i, &in, NULL), -SF_EINTEGRITY, "%zu bytes", i);
        free(cut);
    }
    buf_clear(&b);
    free(v);
}

Test(slog, refused_lines_and_foreign_walks_are_kept)
{
    struct slog_out *o;
    struct slog_in *in;
    struct log_event f = {
        .kind = LOG_SLPTE_FETCH, .sid = 16, .level = 1, .p = { 0x1000, 0x2003, 0x3000 }
    };
    uint64_t high, low;
    cr_assert_eq(slog_create(in_scratch("b.slog"), SLOG_TEXT, false, &o, NULL), 0);
    for (uint64_t i = 0; i < 150; i++)
        slog_refuse(o, 10 + i, "level above 3");
    cr_assert_eq(slog_add(o, &f, 1, NULL), 0);
    cr_assert_eq(slog_add_walk(o, &f, 77, 88, NULL), 0);
    slog_count_lines(o, 200, 48);
    cr_assert_eq(slog_add(o, &(struct log_event){ 0 }, 1, NULL), -EINVAL);
    cr_assert_eq(slog_end(&o, 0, NULL, NULL, NULL), 0);
    cr_assert_eq(slog_open(in_scratch("b.slog"), &in, NULL), 0);
    const struct slog_info *i = slog_info(in);
    cr_assert(i->n_refused == 150 && i->refused[99].line == 109 && i->lines == 200 &&
              i->ignored == 48);
    cr_assert_str_eq(i->refused[0].reason, "level above 3");
    cr_assert(!slog_walk(in, 0, &high, &low));
    cr_assert(slog_walk(in, 1, &high, &low) && high == 77 && low == 88);
    slog_close(&in);
    /* given up: no file */
    cr_assert_eq(slog_create(in_scratch("c.slog"), SLOG_TEXT, false, &o, NULL), 0);
    slog_abort(&o);
    cr_assert_eq(slog_open(in_scratch("c.slog"), &in, NULL), -ENOENT);
}
