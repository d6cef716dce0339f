#include <criterion/criterion.h>
#include <string.h>

#include "proto/base/rng.h"
#include "proto/format/frame.h"
#include "proto/format/trace.h"
#include "tests/perf/scratch.h"

TestSuite(trace, .init = scratch_make, .fini = scratch_remove);

static struct trace *make(uint64_t seed, uint64_t n, uint32_t gids)
{
    struct rng r = { seed };
    struct trace *t = calloc(1, sizeof(*t));
    t->head = (struct trace_head){ .rules = 1,
                                   .order = (uint32_t)rng_below(&r, 3),
                                   .burst = 3,
                                   .seed = seed,
                                   .replicate = 1,
                                   .tenants = gids,
                                   .devices = gids,
                                   .early_end = seed & 1 };
    t->n = n;
    t->n_gids = gids;
    uint32_t per = 1 + (uint32_t)rng_below(&r, 300);
    t->n_entries = gids * per;
    t->entry = calloc(t->n_entries + 1, sizeof(*t->entry));
    for (uint32_t i = 0; i < t->n_entries; i++) {
        struct trace_entry *x = &t->entry[i];
        x->gid = i % gids;
        x->sid = 0x10 + 8 * (x->gid % 7);
        x->level = (uint8_t)(1 + rng_below(&r, 3));
        x->mask = ~UINT64_C(0) << (3 + 9 * x->level);
        x->iova =
            (rng_below(&r, 64) << 21 | rng_below(&r, 512) << 12) & (x->mask | ~UINT64_C(0x1fffff));
        x->slpte = rng_u64(&r) >> rng_below(&r, 60);
    }
    t->ev = calloc(n + 1, sizeof(*t->ev));
    t->off = calloc(n + 1, sizeof(*t->off));
    uint32_t g = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (i % 3 == 0)
            g = seed & 2 ? (g + 1) % gids : (uint32_t)rng_below(&r, gids);
        t->ev[i] = g + gids * (uint32_t)rng_below(&r, per);
        t->off[i] = (uint32_t)rng_below(&r, 0x200000) & (uint32_t)~t->entry[t->ev[i]].mask;
    }
    t->n_cc = gids;
    t->cc = calloc(gids + 1, sizeof(*t->cc));
    t->n_slpt = 50;
    t->slpt = calloc(50, sizeof(*t->slpt));
    for (uint32_t i = 0; i < gids; i++)
        t->cc[i] = (struct trace_cc){
            .high = rng_u64(&r), .low = rng_u64(&r), .sid = 16 + 8 * i, .gen = i
        };
    for (uint32_t i = 0; i < 50; i++)
        t->slpt[i] = (struct trace_slpt){ .entry_addr = rng_u64(&r),
                                          .level = 1 + i % 3,
                                          .slpte = rng_u64(&r),
                                          .iova = rng_u64(&r),
                                          .base = rng_u64(&r),
                                          .did = i };
    cr_assert_eq(trace_keys(t, NULL), 0);
    return t;
}

static void same(const struct trace *a, const struct trace *b)
{
    cr_assert_eq(a->n, b->n);
    cr_assert_eq(a->n_gids, b->n_gids);
    cr_assert_eq(a->n_cc, b->n_cc);
    cr_assert_eq(a->n_slpt, b->n_slpt);
    cr_assert_eq(a->head.seed, b->head.seed);
    cr_assert_eq(a->head.early_end, b->head.early_end);
    for (uint64_t i = 0; i < a->n; i++) {
        const struct trace_entry *x = &a->entry[a->ev[i]], *y = &b->entry[b->ev[i]];
        cr_assert(x->iova == y->iova && x->mask == y->mask && x->slpte == y->slpte &&
                  x->sid == y->sid && x->gid == y->gid && x->level == y->level &&
                  a->off[i] == b->off[i]);
    }
    cr_assert_arr_eq(a->cc, b->cc, a->n_cc * sizeof(*a->cc));
    for (size_t i = 0; i < a->n_slpt; i++) {
        const struct trace_slpt *x = &a->slpt[i], *y = &b->slpt[i];
        cr_assert(x->entry_addr == y->entry_addr && x->level == y->level && x->slpte == y->slpte &&
                  x->iova == y->iova && x->base == y->base && x->did == y->did);
    }
}

/* What an engine needs is there without the rest, too: entries that differ only in their page-table entry are one then. */
static void same_places(const struct trace *all, const struct trace *engine)
{
    cr_assert(all->n_page == engine->n_page && all->n_l2 == engine->n_l2 &&
              all->n_l3 == engine->n_l3 && all->n_sids == engine->n_sids);
    for (uint64_t i = 0; i < all->n; i++) {
        const struct trace_entry *x = &all->entry[all->ev[i]], *y = &engine->entry[engine->ev[i]];
        cr_assert(x->iova == y->iova && x->mask == y->mask && x->sid == y->sid &&
                  x->gid == y->gid && x->level == y->level && !y->slpte);
    }
}

enum { ALL = TRACE_WITH_OFFSETS | TRACE_WITH_EXPORT };

Test(trace, comes_back_as_it_was_and_with_the_same_bytes)
{
    static const struct {
        uint64_t n;
        uint32_t gids;
    } sizes[] = { { 0, 1 },      { 1, 1 },       { 10, 3 },           { 5000, 1 },
                  { 40000, 24 }, { 30000, 700 }, { (1 << 20) + 7, 5 } };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct trace *t = make(77 + i, sizes[i].n, sizes[i].gids), *u = NULL, *v = NULL;
        struct err e = { 0 };
        struct id a, b, c, d;
        const char *path = in_scratch("a.trc");
        cr_assert_eq(trace_save(t, path, true, &a, &e), 0, "%s", e.text);
        cr_assert_eq(trace_content_id(t, &b, &e), 0);
        cr_assert_eq(cid_file(path, &c, NULL, &e), 0);
        cr_assert(id_eq(&a, &b) && id_eq(&a, &c));
        cr_assert_eq(trace_load(path, ALL, &u, &e), 0, "%s", e.text);
        same(t, u);
        /* entries are numbered anew, the bytes are the same */
        cr_assert_eq(trace_content_id(u, &d, &e), 0);
        cr_assert(id_eq(&a, &d));
        cr_assert_eq(trace_load(path, 0, &v, &e), 0, "%s", e.text);
        cr_assert(!v->off && !v->n_cc && v->n == t->n && v->n_entries <= u->n_entries);
        same_places(u, v);
        struct trace_head h;
        uint64_t n;
        cr_assert_eq(trace_read_head(path, &h, &n, &e), 0);
        cr_assert(n == t->n && h.tenants == t->head.tenants);
        trace_free(&t);
        trace_free(&u);
        trace_free(&v);
    }
}

/* Turns of every shape: rounds that a frame's end cuts, that change their course once, that are followed by a rest; runs longer than
 * one can be. */
Test(trace, order_of_any_shape_comes_back)
{
    for (uint64_t shape = 0; shape < 7; shape++) {
        uint64_t n = shape < 3 ? (1 << 20) + 1000 * shape + 1 : 20000 + shape;
        uint32_t gids = shape == 6 ? 1 : 4 + (uint32_t)shape,
                 burst = shape == 5 ? 700 : 1 + 2 * (uint32_t)shape;
        struct trace *t = make(30 + shape, n, gids), *u = NULL, *v = NULL;
        struct err e = { 0 };
        struct id a, b;
        for (uint64_t i = 0; i < n; i++) {
            uint32_t g = (uint32_t)(i / burst % gids), local = t->ev[i] / gids;
            if (shape == 3 && i == 9999)
                g = (g + 1) % gids;
            if (shape == 4 && i > 15000)
                g = (uint32_t)(i * i % gids);
            t->ev[i] = g + gids * local;
        }
        cr_assert_eq(trace_save(t, in_scratch("o.trc"), true, &a, &e), 0, "%s", e.text);
        cr_assert_eq(trace_load(in_scratch("o.trc"), ALL, &u, &e), 0, "%s", e.text);
        cr_assert_eq(trace_load(in_scratch("o.trc"), 0, &v, &e), 0, "%s", e.text);
        same_places(u, v);
        for (uint64_t i = 0; i < n; i++)
            cr_assert(t->entry[t->ev[i]].slpte == u->entry[u->ev[i]].slpte &&
                      t->off[i] == u->off[i]);
        cr_assert_eq(trace_content_id(u, &b, &e), 0);
        cr_assert(id_eq(&a, &b));
        trace_free(&t);
        trace_free(&u);
        trace_free(&v);
    }
}

/* Imported traces number their tenants as they like. */
Test(trace, tenants_without_events_keep_their_numbers)
{
    struct trace *t = make(6, 2000, 5), *u = NULL;
    struct err e = { 0 };
    for (uint32_t i = 0; i < t->n_entries; i++)
        t->entry[i].gid = t->entry[i].gid * 1000 + 17;
    t->n_gids = 65000;
    cr_assert_eq(trace_save(t, in_scratch("i.trc"), true, NULL, &e), 0, "%s", e.text);
    cr_assert_eq(trace_load(in_scratch("i.trc"), ALL, &u, &e), 0, "%s", e.text);
    same(t, u);
    trace_free(&u);
    t->n_gids = 1 << 21;
    cr_assert_eq(trace_save(t, in_scratch("j.trc"), true, NULL, &e), -EOVERFLOW);
    trace_free(&t);
}

/* A table of equal records has no difference to tell its length by. */
Test(trace, records_that_are_all_alike_come_back)
{
    struct trace *t = make(4, 300, 2), *u = NULL;
    struct err e = { 0 };
    t->slpt = realloc(t->slpt, 5000 * sizeof(*t->slpt));
    for (t->n_slpt = 1; t->n_slpt < 5000; t->n_slpt++)
        t->slpt[t->n_slpt] = t->slpt[0];
    cr_assert_eq(trace_save(t, in_scratch("r.trc"), true, NULL, &e), 0, "%s", e.text);
    cr_assert_eq(trace_load(in_scratch("r.trc"), ALL, &u, &e), 0, "%s", e.text);
    cr_assert(u->n_slpt == 5000 && u->slpt[4999].iova == t->slpt[0].iova);
    trace_free(&t);
    trace_free(&u);
}

Test(trace, number_of_an_entry_and_unused_ones_do_not_reach_the_file)
{
    struct trace *t = make(5, 4000, 4), *u = make(5, 4000, 4);
    /* turn the table of u around and double an entry */
    uint32_t n = u->n_entries;
    for (uint32_t i = 0; i < n / 2; i++) {
        struct trace_entry x = u->entry[i];
        u->entry[i] = u->entry[n - 1 - i];
        u->entry[n - 1 - i] = x;
    }
    for (uint64_t i = 0; i < u->n; i++)
        u->ev[i] = n - 1 - u->ev[i];
    u->entry = realloc(u->entry, (n + 2) * sizeof(*u->entry));
    u->entry[n] = u->entry[u->ev[100]];
    u->entry[n + 1] = (struct trace_entry){ .iova = 0x123456000 };
    u->ev[100] = n;
    u->n_entries = n + 2;
    struct id a, b;
    cr_assert_eq(trace_content_id(t, &a, NULL), 0);
    cr_assert_eq(trace_content_id(u, &b, NULL), 0);
    cr_assert(id_eq(&a, &b));
    trace_free(&t);
    trace_free(&u);
}

static size_t slurp(const char *path, uint8_t **ret)
{
    struct buf b = BUF_INIT(1u << 24);
    cr_assert_eq(file_read(path, &b, NULL), 0);
    *ret = b.data;
    return b.len;
}

Test(trace, any_flipped_bit_and_any_truncation_is_damage)
{
    struct trace *t = make(9, 600, 5), *u = NULL;
    uint8_t *p;
    cr_assert_eq(trace_save(t, in_scratch("a.trc"), true, NULL, NULL), 0);
    size_t n = slurp(in_scratch("a.trc"), &p);
    for (size_t i = 0; i < n; i++) {
        struct err e = { 0 };
        p[i] ^= (uint8_t)(1 << i % 8);
        int r = trace_load_bytes("a.trc", p, n, i & 1 ? ALL : 0, &u, &e);
        cr_assert_eq(r, -SF_EINTEGRITY, "byte %zu: %d %s", i, r, e.text);
        cr_assert(!strncmp(e.text, "a.trc: ", 7) && !u);
        p[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t i = 1; i < n; i++) {
        struct err e = { 0 };
        uint8_t *cut = malloc(i); /* exactly as long, for the address sanitizer */
        memcpy(cut, p, i);
        int r = trace_load_bytes("a.trc", cut, i, ALL, &u, &e);
        cr_assert_eq(r, -SF_EINTEGRITY, "%zu bytes: %d %s", i, r, e.text);
        free(cut);
    }
    p = realloc(p, n + 1);
    p[n] = 0;
    cr_assert_eq(trace_load_bytes("a.trc", p, n + 1, ALL, &u, NULL), -SF_EINTEGRITY);
    free(p);
    trace_free(&t);
}

Test(trace, another_version_and_other_files_are_not_understood)
{
    struct trace *t = make(9, 600, 5), *u = NULL;
    struct err e = { 0 };
    uint8_t *p;
    cr_assert_eq(trace_save(t, in_scratch("a.trc"), true, NULL, NULL), 0);
    size_t n = slurp(in_scratch("a.trc"), &p);
    put_u32(p + 8, 1);
    put_u32(p + 12, (uint32_t)hash_fast(p, 12, 0));
    cr_assert_eq(trace_load_bytes("a.trc", p, n, 0, &u, &e), -SF_EFORMAT);
    cr_assert_str_eq(e.text, "a.trc: trace file of version 1, this program reads version 2");
    cr_assert_eq(trace_load_bytes("e", p, 0, 0, &u, &e), -SF_EFORMAT);
    cr_assert_str_eq(e.text, "e: the file is empty");
    cr_assert_eq(trace_load(put("x.trc", "vtd_iotlb_page_update\n"), 0, &u, &e), -SF_EFORMAT);
    cr_assert(strstr(e.text, "x.trc: not a siofleet trace file"));
    cr_assert_eq(trace_load(scratch, 0, &u, &e), -SF_EFORMAT);
    cr_assert_eq(trace_load(in_scratch("missing"), 0, &u, &e), -ENOENT);
    free(p);
    trace_free(&t);
}

Test(trace, next_access_is_the_next_event_of_the_same_page)
{
    struct trace *t = make(3, 3000, 6);
    cr_assert_eq(trace_next(t, NULL), 0);
    for (uint64_t i = 0; i < t->n; i++) {
        const struct trace_entry *x = &t->entry[t->ev[i]];
        uint32_t want = UINT32_MAX;
        for (uint64_t k = i + 1; k < t->n && want == UINT32_MAX; k++) {
            const struct trace_entry *y = &t->entry[t->ev[k]];
            if ((x->iova & x->mask) == (y->iova & y->mask) && x->gid == y->gid)
                want = (uint32_t)k;
        }
        cr_assert_eq(t->next[i], want);
    }
    trace_free(&t);
}

/* Equal numbers exactly for equal keys, in tables sorted or not, with masks of every kind. */
Test(trace, keys_are_numbered_alike_exactly_when_they_are_alike)
{
    static const uint64_t masks[] = {
        0, ~UINT64_C(0xfff), ~UINT64_C(0x1fffff), ~UINT64_C(0x3fffffff), 0xff0ff000, ~UINT64_C(0)
    };
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct trace *t = make(seed, 3000, seed % 2 ? 1 : 6), *u = NULL;
        for (uint32_t i = 0; i < t->n_entries; i++) {
            struct trace_entry *x = &t->entry[i];
            x->mask = masks[seed % 3 ? seed % 6 : (i / 7) % 6];
            x->level = 1;
            x->iova = (x->iova ^ seed << 12) & (x->mask | ~UINT64_C(0x1fffff));
        }
        memset(t->off, 0, t->n * sizeof(*t->off));
        cr_assert_eq(trace_keys(t, NULL), 0);
        cr_assert_eq(trace_save(t, in_scratch("k.trc"), true, NULL, NULL), 0);
        /* sorted now, and in every second round without what only an export needs */
        cr_assert_eq(trace_load(in_scratch("k.trc"), seed & 2 ? ALL : 0, &u, NULL), 0);
        for (struct trace *v = t; v; v = v == t ? u : NULL)
            for (uint32_t i = 0; i < v->n_entries; i += 3)
                for (uint32_t k = 0; k < v->n_entries; k += 1 + k % 5) {
                    const struct trace_entry *x = &v->entry[i], *y = &v->entry[k];
                    bool g = x->gid == y->gid;
                    cr_assert_eq(v->key_page[i] == v->key_page[k],
                                 g && (x->iova & x->mask) == (y->iova & y->mask));
                    cr_assert_eq(v->key_l2[i] == v->key_l2[k], g && x->iova >> 21 == y->iova >> 21);
                    cr_assert_eq(v->key_l3[i] == v->key_l3[k], g && x->iova >> 30 == y->iova >> 30);
                    cr_assert_eq(v->key_addr[i] == v->key_addr[k],
                                 (x->iova & x->mask) == (y->iova & y->mask));
                    cr_assert_eq(v->key_sid[i] == v->key_sid[k], x->sid == y->sid);
                    cr_assert(v->key_page[i] < v->n_page && v->key_l2[i] < v->n_l2 &&
                              v->key_l3[i] < v->n_l3 && v->key_addr[i] < v->n_addr &&
                              v->key_sid[i] < v->n_sids);
                }
        trace_free(&t);
        trace_free(&u);
    }
}
