#include "coordinator/refs.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SHOWN = 60 };

const char *need_name(enum need n)
{
    static const char *const names[] = { "unreferenced", "provenance", "pinned", "work" };
    return names[n];
}

void ref_need(struct ref *r, enum need need, const char *fmt, ...)
{
    if (need < r->need || (need == r->need && *r->why))
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->why, sizeof(r->why), fmt, ap);
    va_end(ap);
    r->need = need;
}

struct ref *refs_find(const struct refs *r, const struct id *id)
{
    size_t lo = 0, hi = r->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int d = id_cmp(&r->v[mid].a.id, id);
        if (!d)
            return &r->v[mid];
        if (d < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* ---- what there is */

struct filling {
    struct refs *out;
    size_t room;
};

static int add_stored(void *ctx, const struct store_artefact *a)
{
    struct filling *f = ctx;
    if (f->out->n == f->room) {
        size_t room = f->room ? f->room * 2 : 256;
        void *v = realloc(f->out->v, room * sizeof(*f->out->v));
        if (!v)
            return -ENOMEM;
        f->out->v = v;
        f->room = room;
    }
    f->out->v[f->out->n++] = (struct ref){ .a = *a };
    return 0;
}

static int by_id(const void *a, const void *b)
{
    return id_cmp(&((const struct ref *)a)->a.id, &((const struct ref *)b)->a.id);
}

/* Both lists are by id: one walk tells which of the one are not in the other. */
static int add_files(struct filling *f, const struct cas *c)
{
    const struct cas_item *it;
    size_t n = cas_list(c, &it), stored = f->out->n, k = 0;
    for (size_t i = 0; i < n; i++) {
        if (it[i].gone)
            continue;
        while (k < stored && id_cmp(&f->out->v[k].a.id, &it[i].id) < 0)
            k++;
        if (k == stored || !id_eq(&f->out->v[k].a.id, &it[i].id)) {
            int r =
                add_stored(f, &(struct store_artefact){ .id = it[i].id, .size_b = it[i].size_b });
            if (r < 0)
                return r;
            f->out->v[f->out->n - 1].here = true;
            f->out->v[f->out->n - 1].used_ms = it[i].used_ms;
        } else {
            f->out->v[k].here = true;
            f->out->v[k].used_ms = it[i].used_ms;
        }
    }
    if (f->out->n > stored)
        qsort(f->out->v, f->out->n, sizeof(*f->out->v), by_id);
    return 0;
}

/* ---- who needs it */

/* Each run of exactly 64 hex digits in a text. */
static const char *next_id(const char *p, struct id *ret)
{
    static const char hex[] = "0123456789abcdef";
    char word[ID_HEX_LEN];
    for (;;) {
        p += strcspn(p, hex);
        size_t n = strspn(p, hex);
        if (!n)
            return NULL;
        if (n == ID_HEX_LEN - 1) {
            memcpy(word, p, n);
            word[n] = 0;
            if (id_parse(word, ret, NULL) == 0)
                return p + n;
        }
        p += n;
    }
}

static void need_of(struct ref *r, const struct store_doc *d)
{
    enum need need = d->open ? NEED_WORK : NEED_PROVENANCE;
    const char *end = d->open ? " (not over)" : "";
    switch (d->kind) {
    case DOC_SWEEP:
        ref_need(r, need, "sweep '%.*s'%s", NAME_SHOWN, d->name, end);
        break;
    case DOC_JOB:
        ref_need(r, need, "job '%.*s'%s", NAME_SHOWN, d->name, end);
        break;
    case DOC_OUTPUT:
        ref_need(r, need, "left by task %" PRIu64 " of job '%.*s'%s", d->no, NAME_SHOWN, d->name,
                 end);
        break;
    case DOC_RECIPE:
        ref_need(r, NEED_PROVENANCE, "a log of a trace with results");
        break;
    case DOC_TRACE:
        ref_need(r, NEED_PROVENANCE, "results were computed from it");
        break;
    }
}

static int look_at(void *ctx, const struct store_doc *d)
{
    const struct refs *all = ctx;
    struct ref *r, *trace = d->kind >= DOC_RECIPE ? refs_find(all, &d->id) : NULL;
    struct id id;
    bool logs_here = true;
    if (d->kind == DOC_TRACE && trace) {
        trace->refs++;
        need_of(trace, d);
    }
    for (const char *p = d->text; (p = next_id(p, &id));) {
        r = refs_find(all, &id);
        logs_here &= r && r->here;
        if (!r || (d->kind == DOC_RECIPE && !d->used))
            continue;
        r->refs++;
        need_of(r, d);
    }
    if (d->kind == DOC_RECIPE && trace && *d->text) {
        hash_bytes(d->text, strlen(d->text), &id);
        trace->rebuildable |= logs_here && id_eq(&id, &d->key);
    }
    return 0;
}

int refs_make(struct store *st, const struct cas *c, struct refs *ret, struct err *e)
{
    *ret = (struct refs){ 0 };
    struct filling f = { .out = ret };
    int r = store_artefacts(st, add_stored, &f, e);
    if (r >= 0)
        r = add_files(&f, c);
    if (r >= 0)
        r = store_docs(st, look_at, ret, e);
    for (size_t i = 0; r >= 0 && i < ret->n; i++)
        if (ret->v[i].a.pinned)
            ref_need(&ret->v[i], NEED_PINNED, "pinned");
    if (r < 0) {
        refs_clear(ret);
        return e && e->code ? r : err_sys(e, -r, "artefacts");
    }
    return 0;
}

void refs_clear(struct refs *r)
{
    free(r->v);
    *r = (struct refs){ 0 };
}
