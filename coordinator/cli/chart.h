/* From a sheet of results to a picture: which column is x, which y, what tells the lines apart, and
 * the units. */
#pragma once
#include "coordinator/cli/plot.h"
#include "proto/base/err.h"
#include "proto/lib/json.h"

struct chart_want {
    const char *x, *y; /* columns, or "design"; borrowed */
    const char
        *series; /* columns by comma, "" = none, NULL = the fewest that tell all points apart */
    const char *title; /* NULL = made from the columns */
    const char *subtitle;
};

struct chart {
    struct plot plot; /* borrows from the rest */
    char title[200], subtitle[240], x_label[96], y_label[96];
    char series[200]; /* the columns used */
    size_t points, skipped,
        shared; /* drawn; without a number (failed, null); marks that stand for several points */
};

/* Fill *ret from the sheet (only read). The column "design" is made here: the preset whose queue,
 * groups and prefetcher a point has, "default", "hypertrio" or "other".
 *
 * Points that share a series and an x become one mark at their mean with a bar from the lowest to
 * the highest. Returns 0; -SF_EUSAGE for a column that is not there (e names those that are);
 * -SF_EFORMAT when nothing can be drawn or there are too many series. chart_clear() in any case. */
int chart_make(const json_t *sheet, const struct chart_want *want, struct chart *ret,
               struct err *e);
void chart_clear(struct chart *c);

/* The picture as a whole .svg document. */
int chart_svg(struct chart *c, struct buf *out, struct err *e);

/* A whole page: picture, table of the main columns, what the rows came from (when the sheet has provenance columns), and
 * the sweep file (ini, may be NULL). */
int chart_page(struct chart *c, const json_t *sheet, const char *title, const char *lead,
               const char *ini, struct buf *out, struct err *e);
