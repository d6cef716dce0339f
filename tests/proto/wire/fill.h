/* Legal messages made from the schema: for tests, old frames and the corpus of the fuzzer. */
#pragma once
#include <stdlib.h>
#include <string.h>

#include "proto/base/rng.h"
#include "proto/wire/schema.h"

enum fill { FILL_LOW, FILL_HIGH, FILL_RANDOM };

/* Memory of filled messages; fill_clear() frees all of it. */
struct fill_mem {
    void *v[20000];
    size_t n;
};

static inline void *fill_take(struct fill_mem *mem, size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p || mem->n == sizeof(mem->v) / sizeof(mem->v[0]))
        abort();
    return mem->v[mem->n++] = p;
}

static inline void fill_clear(struct fill_mem *mem)
{
    while (mem->n)
        free(mem->v[--mem->n]);
}

/* Long things stay short enough that a message of all high values is still legal. */
static inline uint64_t fill_len(enum fill how, struct rng *r, uint64_t lo, uint64_t hi,
                                uint64_t cap)
{
    if (how == FILL_LOW)
        return lo;
    if (how == FILL_HIGH)
        return hi < cap ? hi : cap;
    return lo + rng_below(r, (hi < cap ? hi : cap) - lo + 1);
}

static inline void fill_part(const struct wire_part *part, void *to, enum fill how, struct rng *r,
                             struct fill_mem *mem)
{
    static const char *const words[] = { "a", "é", "漢", "🜂", "z" };
    for (size_t i = 0; i < part->n; i++) {
        const struct wire_field *f = &part->fields[i];
        uint8_t *at = (uint8_t *)to + f->off;
        uint64_t v;
        size_t n;
        switch (f->kind) {
        case WIRE_KIND_U64:
            v = how == FILL_LOW ? f->lo : how == FILL_HIGH ? f->hi : rng_u64(r) >> rng_below(r, 64);
            if (v < f->lo || v > f->hi)
                v = f->hi - f->lo == UINT64_MAX ? v : f->lo + v % (f->hi - f->lo + 1);
            memcpy(at, &v, sizeof(v));
            continue;
        case WIRE_KIND_ID:
            for (size_t k = 0; k < ID_LEN; k++)
                at[k] = how == FILL_LOW ? 0 : (uint8_t)rng_u64(r);
            continue;
        case WIRE_KIND_STR:
        case WIRE_KIND_BIN: {
            n = fill_len(how, r, f->lo, f->hi, 3000);
            char *p = fill_take(mem, n + 1);
            for (size_t k = 0; k < n;) {
                const char *w = words[rng_below(r, 5)];
                if (f->kind == WIRE_KIND_BIN)
                    p[k++] = (char)rng_u64(r);
                else if (k + strlen(w) <= n)
                    memcpy(p + k, w, strlen(w)), k += strlen(w);
                else
                    p[k++] = 'x';
            }
            memcpy(at, &p, sizeof(p));
            break;
        }
        default: {
            n = fill_len(how, r, 0, f->hi, 20);
            uint8_t *p = fill_take(mem, n * f->part->size);
            for (size_t k = 0; k < n; k++)
                fill_part(f->part, p + k * f->part->size, how, r, mem);
            memcpy(at, &p, sizeof(p));
        }
        }
        memcpy((uint8_t *)to + f->off_len, &n, sizeof(n));
    }
}

static inline struct msg fill_msg(const struct wire_type *t, enum fill how, struct rng *r,
                                  struct fill_mem *mem)
{
    struct msg m = { .type = t->type };
    fill_part(&t->part, wire_body(&m), how, r, mem);
    return m;
}

/* NULL, or the name of the first field that differs. */
static inline const char *fill_differs(const struct wire_part *part, const void *a, const void *b)
{
    for (size_t i = 0; i < part->n; i++) {
        const struct wire_field *f = &part->fields[i];
        const uint8_t *x = (const uint8_t *)a + f->off, *y = (const uint8_t *)b + f->off;
        if (f->kind == WIRE_KIND_U64 || f->kind == WIRE_KIND_ID) {
            if (memcmp(x, y, f->kind == WIRE_KIND_ID ? ID_LEN : sizeof(uint64_t)))
                return f->name;
            continue;
        }
        size_t n, m;
        const uint8_t *p, *q;
        memcpy(&n, (const uint8_t *)a + f->off_len, sizeof(n));
        memcpy(&m, (const uint8_t *)b + f->off_len, sizeof(m));
        memcpy(&p, x, sizeof(p));
        memcpy(&q, y, sizeof(q));
        if (n != m || (f->kind != WIRE_KIND_LIST && n && memcmp(p, q, n)))
            return f->name;
        if (f->kind == WIRE_KIND_STR && q[n])
            return f->name;
        for (size_t k = 0; f->kind == WIRE_KIND_LIST && k < n; k++) {
            const char *d = fill_differs(f->part, p + k * f->part->size, q + k * f->part->size);
            if (d)
                return d;
        }
    }
    return NULL;
}
