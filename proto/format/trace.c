#include "proto/format/trace.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

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

/* Numbers different (address, tenant) pairs in order of first appearance: open addressing, at most
 * half full. */
struct dense {
    struct cell {
        uint64_t a;
        uint32_t b, number; /* number UINT32_MAX = empty */
    } * cells;
    size_t mask;
    uint32_t n;
};

static int dense_start(struct dense *d, size_t most)
{
    size_t room = 16;
    while (room < 2 * most)
        room *= 2;
    if (!d->cells) {
        d->cells = malloc(room * sizeof(*d->cells));
        if (!d->cells)
            return -ENOMEM;
        d->mask = room - 1;
    }
    memset(d->cells, 0xff, room * sizeof(*d->cells));
    d->n = 0;
    return 0;
}

static uint32_t dense_number(struct dense *d, uint64_t a, uint32_t b)
{
    uint64_t h = (a ^ ((uint64_t)b << 32 | b)) * 0x9e3779b97f4a7c15u;
    for (size_t i = (h ^ h >> 29) & d->mask;; i = (i + 1) & d->mask) {
        struct cell *c = &d->cells[i];
        if (c->number == UINT32_MAX) {
            *c = (struct cell){ a, b, d->n };
            return d->n++;
        }
        if (c->a == a && c->b == b)
            return c->number;
    }
}

int trace_keys(struct trace *t, struct err *e)
{
    enum { SHIFT_2M = 21, SHIFT_1G = 30 };
    size_t bytes = ((size_t)t->n_entries + 1) * sizeof(uint32_t);
    uint32_t **columns[] = { &t->key_page, &t->key_l2, &t->key_l3, &t->key_addr, &t->key_sid };
    uint32_t *counts[] = { &t->n_page, &t->n_l2, &t->n_l3, &t->n_addr, &t->n_sids };
    struct dense d = { 0 };
    int r = 0;
    for (size_t c = 0; c < ARRAY_LEN(columns) && r == 0; c++) {
        free(*columns[c]);
        uint32_t *v = *columns[c] = malloc(bytes);
        r = v ? dense_start(&d, t->n_entries) : -ENOMEM;
        for (uint32_t i = 0; r == 0 && i < t->n_entries; i++) {
            const struct trace_entry *x = &t->entry[i];
            uint64_t a = c == 0 || c == 3 ? x->iova & x->mask
                         : c == 1         ? x->iova >> SHIFT_2M
                         : c == 2         ? x->iova >> SHIFT_1G
                                          : x->sid;
            v[i] = dense_number(&d, a, c < 3 ? x->gid : 0);
        }
        *counts[c] = d.n;
    }
    free(d.cells);
    return r < 0 ? err_sys(e, ENOMEM, "trace") : 0;
}

int trace_next(struct trace *t, struct err *e)
{
    if (t->next || !t->n)
        return 0;
    CLEANUP(freep) uint32_t *soon = malloc(((size_t)t->n_page + 1) * sizeof(*soon));
    uint32_t *next = malloc(t->n * sizeof(*next));
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
