#include "tests/proto/wire/table.h"

#include <inttypes.h>

#include "proto/base/clean.h"
#include "proto/wire/schema.h"

static void bound(FILE *f, uint64_t v)
{
    if (v == UINT64_MAX)
        fputs("2^64-1", f);
    else if (v >= 1 << 20 && v % (1 << 20) == 0)
        fprintf(f, "%" PRIu64 " Mi", v >> 20);
    else
        fprintf(f, "%" PRIu64, v);
}

static void fields(FILE *f, const struct wire_part *p)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct wire_field *x = &p->fields[i];
        fprintf(f, "%s`%s` ", i ? ", " : "", x->name);
        switch (x->kind) {
        case WIRE_KIND_U64:
            fputs("u64 ", f);
            break;
        case WIRE_KIND_STR:
            fputs("str ", f);
            break;
        case WIRE_KIND_BIN:
            fputs("bin ", f);
            break;
        case WIRE_KIND_ID:
            fputs("id", f);
            continue;
        case WIRE_KIND_LIST:
            fprintf(f, "list of %s ", x->part->name);
            break;
        }
        bound(f, x->lo);
        if (x->lo != x->hi) {
            fputs("..", f);
            bound(f, x->hi);
        }
    }
}

void wire_table(FILE *f)
{
    static const enum role all[] = { ROLE_COORDINATOR, ROLE_AGENT, ROLE_USER, ROLE_READER };
    const struct wire_part *parts[8];
    size_t n_parts = 0;
    fputs("| no | message | sent by | fields |\n|---|---|---|---|\n", f);
    const struct wire_type *t;
    for (size_t i = 0; (t = wire_type_at(i)); i++) {
        fprintf(f, "| %d | `%s` | ", (int)t->type, t->part.name);
        const char *sep = "";
        for (size_t r = 0; r < ARRAY_LEN(all); r++)
            if (t->roles & all[r]) {
                fprintf(f, "%s%s", sep, role_name(all[r]));
                sep = ", ";
            }
        fputs(" | ", f);
        fields(f, &t->part);
        fputs(" |\n", f);
        for (size_t k = 0; k < t->part.n; k++) {
            const struct wire_part *p = t->part.fields[k].part;
            size_t j = 0;
            while (p && j < n_parts && parts[j] != p)
                j++;
            if (p && j == n_parts && n_parts < ARRAY_LEN(parts))
                parts[n_parts++] = p;
        }
    }
    fputs("\nParts of lists:\n\n| part | fields |\n|---|---|\n", f);
    for (size_t j = 0; j < n_parts; j++) {
        fprintf(f, "| `%s` | ", parts[j]->name);
        fields(f, parts[j]);
        fputs(" |\n", f);
    }
}
