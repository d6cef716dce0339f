/* Line charts as SVG, and one self-contained HTML page around a chart and its table.
 *
 * Own writer: a chart needs no library on any host, the same data give the same bytes (no time, no
 * random ids), and the file opens anywhere. Colours are Okabe and Ito's set, which stays distinct
 * with each kind of colour blindness; series differ by marker and dash as well. Not a plotting
 * package: one chart, points joined by lines, one legend.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"

enum plot_scale {
    PLOT_AUTO,
    PLOT_LINEAR,
    PLOT_LOG2
}; /* auto: log2 when all > 0 and the largest >= 8 x the smallest */

enum { PLOT_SERIES_MAX = 64, PLOT_POINTS_MAX = 100000, PLOT_SVG_MAX = 64 << 20 };

struct plot_point {
    double x, y, lo, hi; /* lo <= y <= hi; lo == hi: no bar. In the unit of the axis */
};

/* Points are drawn in ascending x whatever the order of adding. */
struct plot_series {
    char *name; /* owned */
    /* What belongs together has one hue; inside a hue, shade 0 of n_shades is the lightest. */
    unsigned hue, shade, n_shades;
    struct plot_point *pt; /* owned */
    size_t n, room;
};

struct plot {
    const char *title, *subtitle;  /* borrowed; NULL or "" = none */
    const char *x_label, *y_label; /* borrowed, with the unit: "link utilisation (%)" */
    enum plot_scale x_scale;
    struct plot_series *series; /* owned */
    size_t n, room;
};

void plot_clear(struct plot *p);

/* A new series at the end; name is copied. NULL without memory or at PLOT_SERIES_MAX. */
struct plot_series *plot_add(struct plot *p, const char *name);
/* Returns 0, -ENOMEM, or -SF_EFORMAT for a value that is not finite or point PLOT_POINTS_MAX + 1.
 */
int plot_point(struct plot_series *s, double x, double y, double lo, double hi, struct err *e);

/* Append an <svg> element (with xml = true: a whole .svg document).
 * Returns 0, -SF_EFORMAT when there is no point to draw, -ENOMEM/-EMSGSIZE. Sorts the points of p.
 */
int plot_svg(struct plot *p, bool xml, struct buf *out, struct err *e);

/* A self-contained page, in parts, in this order: begin, any of the middle ones, end. Text is
 * escaped by the writer; the page loads nothing and runs no script. All return 0 or
 * -ENOMEM/-EMSGSIZE. */
int page_begin(struct buf *out, const char *title, const char *lead);
int page_section(struct buf *out, const char *heading);
int page_text(struct buf *out, const char *text);
int page_plot(struct buf *out, struct plot *p, struct err *e);
int page_table_begin(struct buf *out, const char *const names[], size_t n);
int page_table_row(struct buf *out, const char *const cells[], size_t n);
int page_table_end(struct buf *out);
int page_list_begin(struct buf *out); /* names with a value each */
int page_list_item(struct buf *out, const char *name, const char *value);
int page_list_end(struct buf *out);
int page_code(struct buf *out, const char *text); /* lines as they are */
int page_end(struct buf *out);

/* Append s with & < > " and ' as entities, control bytes as spaces, broken UTF-8 as '?'. */
int page_escape(struct buf *out, const char *s);
