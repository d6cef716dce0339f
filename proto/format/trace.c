#include "proto/format/trace.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/big.h"
#include "proto/base/clean.h"
#include "proto/format/trace_file.h"

void trace_free(struct trace **tp)
{
    struct trace *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    free(t->ev);
    free(t->off);
    free(t->next);
    free(t->entry);
    free(t->key_page);
    free(t->key_l2);
    free(t->key_l3);
    free(t->key_addr);
    free(t->key_sid);
    free(t->cc);
    free(t->slpt);
    free(t);
}

/* ---- keys */

static size_t dense_slot(const struct dense *d, uint64_t a, uint32_t b)
{
    uint64_t h = (a ^ ((uint64_t)b << 32 | b)) * 0x9e3779b97f4a7c15u;
    size_t i = (h ^ h >> 29) & (d->room - 1);
    while (d->cells[i].number != UINT32_MAX && (d->cells[i].a != a || d->cells[i].b != b))
        i = (i + 1) & (d->room - 1);
    return i;
}

static bool dense_grow(struct dense *d)
{
    struct dense wide = { .room = d->room ? 4 * d->room : 256 };
    wide.cells = malloc(wide.room * sizeof(*wide.cells));
    if (!wide.cells)
        return false;
    memset(wide.cells, 0xff, wide.room * sizeof(*wide.cells));
    for (size_t i = 0; i < d->room; i++)
        if (d->cells[i].number != UINT32_MAX)
            wide.cells[dense_slot(&wide, d->cells[i].a, d->cells[i].b)] = d->cells[i];
    free(d->cells);
    d->cells = wide.cells;
    d->room = wide.room;
    return true;
}

static uint32_t dense_find(struct dense *d, uint64_t a, uint32_t b)
{
    if (2 * (size_t)d->n_cells >= d->room && !dense_grow(d)) {
        d->failed = true;
        return 0;
    }
    struct cell *c = &d->cells[dense_slot(d, a, b)];
    if (c->number == UINT32_MAX) {
        *c = (struct cell){ a, b, d->n++ };
        d->n_cells++;
    }
    return c->number;
}

static inline uint32_t dense_number(struct dense *d, uint64_t a, uint32_t b)
{
    if (d->any && d->last_a == a && d->last_b == b)
        return d->last;
    d->any = true;
    d->last_a = a;
    d->last_b = b;
    return d->last = dense_find(d, a, b);
}

/* Entries of a tenant from i on that ascend in their address and share all else; a table sorted for the file is made
 * of such stretches, and one that is a tenant's only one needs no search for equal keys. */
static uint32_t stretch(const struct trace *t, uint32_t i)
{
    uint32_t k = i + 1;
    while (k < t->n_entries && same_class(&t->entry[k - 1], &t->entry[k]) &&
           t->entry[k - 1].iova <= t->entry[k].iova)
        k++;
    return k;
}

static bool sorted_by_tenant(const struct trace *t)
{
    for (uint32_t i = 1; i < t->n_entries; i++)
        if (t->entry[i].gid < t->entry[i - 1].gid)
            return false;
    return true;
}

int keys_begin(struct keys *k, struct trace *t, struct err *e)
{
    *k = (struct keys){ .t = t };
    uint32_t **columns[] = { &t->key_page, &t->key_l2, &t->key_l3, &t->key_addr, &t->key_sid };
    for (size_t c = 0; c < ARRAY_LEN(columns); c++) {
        free(*columns[c]);
        *columns[c] = big_alloc(((size_t)t->n_entries + 1) * sizeof(uint32_t));
        if (!*columns[c])
            return err_sys(e, ENOMEM, "trace");
    }
    return 0;
}

void keys_stretch(struct keys *k, uint32_t from, uint32_t to, bool only)
{
    enum { SHIFT_2M = 21, SHIFT_1G = 30 };
    struct trace *t = k->t;
    const struct trace_entry *x = t->entry;
    uint64_t mask = x[from].mask;
    uint32_t gid = x[from].gid, sid = dense_number(&k->sid, x[from].sid, 0);
    for (uint32_t i = from; i < to; i++)
        t->key_sid[i] = sid;
    /* a mask with holes would not keep the order of addresses */
    if (only && mask && !(~mask & (~mask + 1))) {
        /* ascending addresses that no other stretch has: a key differs from the one before, or is new */
        uint64_t before = ~x[from].iova;
        uint32_t page = k->page.n, l2 = k->l2.n, l3 = k->l3.n;
        for (uint32_t i = from; i < to; i++) {
            uint64_t iova = x[i].iova, differs = iova ^ before;
            page += (differs & mask) != 0;
            l2 += differs >> SHIFT_2M != 0;
            l3 += differs >> SHIFT_1G != 0;
            t->key_page[i] = page - 1;
            t->key_l2[i] = l2 - 1;
            t->key_l3[i] = l3 - 1;
            before = iova;
        }
        k->page.n = page;
        k->l2.n = l2;
        k->l3.n = l3;
        return;
    }
    for (uint32_t i = from; i < to; i++) {
        t->key_page[i] = dense_number(&k->page, x[i].iova & mask, gid);
        t->key_l2[i] = dense_number(&k->l2, x[i].iova >> SHIFT_2M, gid);
        t->key_l3[i] = dense_number(&k->l3, x[i].iova >> SHIFT_1G, gid);
    }
}

void keys_addresses(struct keys *k)
{
    struct trace *t = k->t;
    for (uint32_t i = 0; i < t->n_entries; i++)
        t->key_addr[i] = dense_number(&k->addr, t->entry[i].iova & t->entry[i].mask, 0);
    t->n_addr = k->addr.n;
}

int keys_end(struct keys *k, struct err *e)
{
    struct dense *all[] = { &k->page, &k->l2, &k->l3, &k->addr, &k->sid };
    bool failed = false;
    k->t->n_page = k->page.n;
    k->t->n_l2 = k->l2.n;
    k->t->n_l3 = k->l3.n;
    k->t->n_sids = k->sid.n;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        failed |= all[i]->failed;
        freep(&all[i]->cells);
    }
    return failed ? err_sys(e, ENOMEM, "trace") : 0;
}

int trace_keys(struct trace *t, struct err *e)
{
    struct keys k;
    int r = keys_begin(&k, t, e);
    if (r < 0)
        return r;
    /* tenants that come back later in the table might repeat a key */
    bool sorted = sorted_by_tenant(t);
    for (uint32_t i = 0, end; i < t->n_entries; i = end) {
        uint32_t gid = t->entry[i].gid;
        end = stretch(t, i);
        keys_stretch(&k, i, end,
                     sorted && (!i || t->entry[i - 1].gid != gid) &&
                         (end == t->n_entries || t->entry[end].gid != gid));
    }
    keys_addresses(&k);
    return keys_end(&k, e);
}

int trace_next(struct trace *t, struct err *e)
{
    if (t->next || !t->n)
        return 0;
    CLEANUP(freep) uint32_t *soon = malloc(((size_t)t->n_page + 1) * sizeof(*soon));
    uint32_t *next = big_alloc(t->n * sizeof(*next));
    if (!soon || !next) {
        free(next);
        return err_sys(e, ENOMEM, "trace");
    }
    memset(soon, 0xff, ((size_t)t->n_page + 1) * sizeof(*soon));
    for (uint64_t i = t->n; i-- > 0;) {
        uint32_t page = t->key_page[t->ev[i]];
        next[i] = soon[page];
        soon[page] = (uint32_t)i;
    }
    t->next = next;
    return 0;
}
