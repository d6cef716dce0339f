/* A sheet: rows under named columns, as `siofleet.results/1` carries them:
 * {"columns":[...],"rows":[[...]]}.
 *
 * A cell is an integer, a decimal string above 2^53-1, a word, or null; as CSV it is the same text,
 * so that what a coordinator answers and what `perf sweep --csv` writes are the same bytes.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "proto/base/err.h"
#include "proto/lib/json.h"

enum { CELL_LEN = 32, SHEET_ROWS_MAX = 200000 };

/* Number of the column, -1 = none. */
int sheet_col(const json_t *sheet, const char *name);
size_t sheet_n_cols(const json_t *sheet);
size_t sheet_n_rows(const json_t *sheet);
const json_t *sheet_cell(const json_t *sheet, size_t row,
                         int col); /* borrowed; NULL past the end */

/* Text of a cell: borrowed from it or from room, "" for null. */
const char *cell_text(const json_t *cell, char room[CELL_LEN]);
/* Its number; false when it is none. yes/true = 1, no/false = 0. */
bool cell_number(const json_t *cell, double *ret);

void sheet_csv_head(const json_t *columns, FILE *f);
void sheet_csv_row(const json_t *row, FILE *f);

/* Collect the parts of an answer: pass as the part callback with a json_t ** that starts as NULL.
 * Refuses row SHEET_ROWS_MAX + 1 with -EFBIG, naming the way out. */
int sheet_collect(void *sheet, json_t *body, struct err *e);

/* A CSV file of ours (RFC 4180), or a siofleet.results/1 document, told by its first byte. New
 * reference. -errno, -SF_EFORMAT with file:line. */
int sheet_load(const char *path, json_t **ret, struct err *e);
/* The same from n bytes of text with a 0 behind them; place names it in errors. */
int sheet_parse(const char *place, const char *text, size_t n, json_t **ret, struct err *e);

/* The preset whose queue, page-cache partitions and prefetcher a row has: "default", "hypertrio" or "other"; NULL when the
 * sheet lacks these columns. Static. */
const char *sheet_design(const json_t *sheet, size_t row);

/* Columns worth a person's look, by name: which parameters differ between the rows, then the main
 * statistics. Returns a new sheet (cells shared with the old one) of at most max_rows rows. */
json_t *sheet_digest(const json_t *sheet, size_t max_rows, bool provenance);

/* Aligned table of a whole sheet. On a terminal, words are cut and last columns dropped until it
 * fits; ids are cut to 12 digits. */
void sheet_print(const json_t *sheet, FILE *f);
