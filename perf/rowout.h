/* One row as it leaves the program: the default columns of CSV and siofleet.results/1, and siofleet.row/1.
 *
 * Shared by `perf sweep` and the fleet, whose bytes must be equal: nothing here depends on host, time or attempt.
 */
#pragma once
#include <stdio.h>

#include "perf/arch.h"
#include "perf/recipe.h"
#include "proto/format/row.h"
#include "proto/format/trace.h"

struct result_row {
    const char *name; /* of the sweep; borrowed */
    uint64_t index;
    struct id trace;
    bool have_trace; /* false where no trace could be had: point and trace are unknown then */
    struct id recipe_id;
    bool have_recipe;
    enum rules rules;
    uint64_t tenants, burst, seed, replicate; /* tenants 0 = unknown */
    enum trace_order order;
    struct arch arch;
    enum row_status status;
    const char *error; /* borrowed; NULL = none */
    struct row_stats stats;
};

/* What a row says of its trace, from the trace itself or, where there is none, from its recipe. */
void result_from_head(struct result_row *r, const struct trace_head *h);
void result_from_recipe(struct result_row *r, const struct recipe *rec);

enum { RESULT_COLUMNS_MAX = 80 };
/* Names of the default columns, *ret_n of them; static. */
const char *const *result_columns(size_t *ret_n);
/* Default column number of a name; -1 = none. */
int result_column(const char *name);

enum cell_kind { CELL_NULL, CELL_NUMBER, CELL_TEXT };
/* Cell of a default column: text into out (room for 160 bytes, "" for CELL_NULL). */
enum cell_kind result_cell(const struct result_row *r, size_t column, char *out);

void result_csv_head(FILE *f);
void result_csv(const struct result_row *r, FILE *f);
json_t *result_columns_json(void); /* new reference */
json_t *
result_cells_json(const struct result_row *r);   /* a row of siofleet.results/1; new reference */
json_t *result_json(const struct result_row *r); /* siofleet.row/1, schema first; new reference */

const char *row_status_name(enum row_status s); /* done, failed, invalid */
