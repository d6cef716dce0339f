#include "coordinator/cli/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

/* Sizes in px of the viewBox. A glyph is taken as wide as DejaVu Sans makes it, the widest of the
 * usual fonts, so that a label that fits here fits everywhere. */
enum { PLOT_W = 660, PLOT_H = 380, LEFT = 78, RIGHT_PAD = 18, FONT = 13, LEGEND_ROW = 22 };
static const double GLYPH = 0.62;

/* Okabe and Ito without yellow, which vanishes on white. */
static const unsigned char HUES[][3] = {
    { 0xd5, 0x5e, 0x00 }, /* vermillion */
    { 0x00, 0x72, 0xb2 }, /* blue */
    { 0x00, 0x9e, 0x73 }, /* green */
    { 0xcc, 0x79, 0xa7 }, /* purple */
    { 0xe6, 0x9f, 0x00 }, /* orange */
    { 0x56, 0xb4, 0xe9 }, /* sky */
    { 0x33, 0x33, 0x33 }, /* black */
};
static const char *const DASHES[] = { "", "7 4", "2 3", "9 3 2 3" };

void plot_clear(struct plot *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->series[i].name);
        free(p->series[i].pt);
    }
    free(p->series);
    *p = (struct plot){ 0 };
}

struct plot_series *plot_add(struct plot *p, const char *name)
{
    if (p->n >= PLOT_SERIES_MAX)
        return NULL;
    if (p->n == p->room) {
        size_t room = p->room ? p->room * 2 : 8;
        struct plot_series *v = realloc(p->series, room * sizeof(*v));
        if (!v)
            return NULL;
        p->series = v;
        p->room = room;
    }
    struct plot_series s = { .name = strdup(name), .hue = (unsigned)p->n, .n_shades = 1 };
    if (!s.name)
        return NULL;
    p->series[p->n] = s;
    return &p->series[p->n++];
}

int plot_point(struct plot_series *s, double x, double y, double lo, double hi, struct err *e)
{
    if (!isfinite(x) || !isfinite(y) || !isfinite(lo) || !isfinite(hi))
        return err_set(e, SF_EFORMAT, "plot: series '%.100s' has a value that is not a number",
                       s->name);
    if (s->n >= PLOT_POINTS_MAX)
        return err_set(e, SF_EFORMAT, "plot: series '%.100s' has more than %d points", s->name,
                       PLOT_POINTS_MAX);
    if (s->n == s->room) {
        size_t room = s->room ? s->room * 2 : 16;
        struct plot_point *v = realloc(s->pt, room * sizeof(*v));
        if (!v)
            return err_sys(e, ENOMEM, "plot");
        s->pt = v;
        s->room = room;
    }
    s->pt[s->n++] = (struct plot_point){ .x = x, .y = y, .lo = lo, .hi = hi };
    return 0;
}

static int by_x(const void *a, const void *b)
{
    const struct plot_point *p = a, *q = b;
    if (p->x != q->x)
        return p->x < q->x ? -1 : 1;
    return (p->y > q->y) - (p->y < q->y);
}

/* ---- text */

/* Length of the UTF-8 sequence at s, 0 when it is none. */
static size_t utf8_len(const unsigned char *s)
{
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
               : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                                             : 0;
    if (s[0] >= 0xf0 && s[0] < 0xf5)
        n = 4;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0)))
        return 0;
    if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90)))
        return 0;
    return n;
}

static size_t glyphs(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

int page_escape(struct buf *out, const char *s)
{
    int r = 0;
    while (*s && r == 0) {
        size_t n = utf8_len((const unsigned char *)s);
        if (n != 1) {
            r = n ? buf_add(out, s, n) : buf_adds(out, "?");
            s += n ? n : 1;
            continue;
        }
        switch (*s) {
        case '&':
            r = buf_adds(out, "&amp;");
            break;
        case '<':
            r = buf_adds(out, "&lt;");
            break;
        case '>':
            r = buf_adds(out, "&gt;");
            break;
        case '"':
            r = buf_adds(out, "&quot;");
            break;
        case '\'':
            r = buf_adds(out, "&#39;");
            break;
        default:
            r = (unsigned char)*s < 0x20 || *s == 0x7f ? buf_adds(out, " ") : buf_add(out, s, 1);
        }
        s++;
    }
    return r;
}

/* Text of at most max glyphs, cut with an ellipsis. */
static int escape_cut(struct buf *out, const char *s, size_t max)
{
    if (glyphs(s) <= max)
        return page_escape(out, s);
    char cut[256];
    size_t n = 0, g = 0;
    while (s[n] && n < sizeof(cut) - 8) {
        if (((unsigned char)s[n] & 0xc0) != 0x80 && ++g >= max)
            break;
        n++;
    }
    memcpy(cut, s, n);
    memcpy(cut + n, "\xe2\x80\xa6", 4);
    return page_escape(out, cut);
}

static int text_at(struct buf *out, double x, double y, const char *anchor, const char *extra,
                   const char *s, size_t max)
{
    int r = buf_addf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s%s>", x, y, anchor,
                     *extra ? " " : "", extra);
    if (r == 0)
        r = escape_cut(out, s, max);
    return r ? r : buf_adds(out, "</text>\n");
}

/* A number as short as it can be said; C locale digits. */
static void number(double v, char out[32])
{
    if (fabs(v) < 1e-12)
        v = 0;
    snprintf(out, 32, "%.10g", v);
    if (fabs(v) >= 10000 && fabs(v) < 1e15 && v == floor(v)) {
        /* groups of three, with a thin no-break space */
        char digits[32], *o = out;
        snprintf(digits, sizeof(digits), "%.0f", fabs(v));
        size_t n = strlen(digits);
        if (v < 0)
            *o++ = '-';
        if (n > 6) {
            snprintf(out, 32, "%.4g", v);
            return;
        }
        for (size_t i = 0; i < n; i++) {
            if (i && (n - i) % 3 == 0) {
                memcpy(o, "\xe2\x80\x89", 3);
                o += 3;
            }
            *o++ = digits[i];
        }
        *o = '\0';
    }
}

/* ---- axes */

enum { TICKS_MAX = 24 };

struct axis {
    double lo, hi; /* in plotted coordinates: log2 applied */
    bool log2;
    double tick[TICKS_MAX]; /* in values */
    size_t n_ticks;
    double at, len; /* px of lo, px from lo to hi (negative: upwards) */
};

static double axis_px(const struct axis *a, double v)
{
    double c = a->log2 ? log2(v) : v;
    return a->at + (c - a->lo) / (a->hi - a->lo) * a->len;
}

static double nice_step(double span, int want)
{
    double raw = span / want, mag = pow(10, floor(log10(raw)));
    double f = raw / mag;
    return (f <= 1 ? 1 : f <= 2 ? 2 : f <= 2.5 ? 2.5 : f <= 5 ? 5 : 10) * mag;
}

static void linear_ticks(struct axis *a, int want, bool widen)
{
    double step = nice_step(a->hi - a->lo, want);
    if (widen) {
        a->lo = floor(a->lo / step + 1e-9) * step;
        a->hi = ceil(a->hi / step - 1e-9) * step;
    }
    double first = ceil(a->lo / step - 1e-9);
    for (int i = 0; a->n_ticks < TICKS_MAX && (first + i) * step <= a->hi + step * 1e-9; i++)
        a->tick[a->n_ticks++] = (first + i) * step;
}

static double label_px(double v)
{
    char s[32];
    number(v, s);
    return (double)glyphs(s) * FONT * GLYPH;
}

/* Ticks at the values that occur; false when their labels would touch. */
static bool value_ticks(struct axis *a, const double *v, size_t n)
{
    if (n > TICKS_MAX)
        return false;
    for (size_t i = 1; i < n; i++) {
        double gap = axis_px(a, v[i]) - axis_px(a, v[i - 1]);
        if (gap < (label_px(v[i]) + label_px(v[i - 1])) / 2 + 10)
            return false;
    }
    memcpy(a->tick, v, n * sizeof(*v));
    a->n_ticks = n;
    return true;
}

static int cmp_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int x_axis(const struct plot *p, struct axis *a, struct err *e)
{
    size_t total = 0, n = 0;
    for (size_t i = 0; i < p->n; i++)
        total += p->series[i].n;
    CLEANUP(freep) double *v = malloc((total + 1) * sizeof(*v));
    if (!v)
        return err_sys(e, ENOMEM, "plot");
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->series[i].n; k++)
            v[n++] = p->series[i].pt[k].x;
    qsort(v, n, sizeof(*v), cmp_double);
    size_t u = 0;
    for (size_t i = 0; i < n; i++)
        if (u == 0 || v[u - 1] != v[i])
            v[u++] = v[i];
    a->log2 =
        v[0] > 0 && (p->x_scale == PLOT_LOG2 || (p->x_scale == PLOT_AUTO && v[u - 1] >= 8 * v[0]));
    a->lo = a->log2 ? log2(v[0]) : v[0];
    a->hi = a->log2 ? log2(v[u - 1]) : v[u - 1];
    if (a->hi - a->lo < 1e-9 * fmax(1, fabs(a->hi))) {
        double w = a->log2 ? 1 : fmax(1, fabs(a->hi) / 2);
        a->lo -= w;
        a->hi += w;
    } else { /* a little air, so that markers do not sit on the frame */
        double w = (a->hi - a->lo) * 0.03;
        a->lo -= w;
        a->hi += w;
    }
    if (value_ticks(a, v, u))
        return 0;
    if (a->log2) {
        int step = 1;
        while ((a->hi - a->lo) / step > 10)
            step++;
        for (int k = (int)ceil(a->lo); k <= a->hi && a->n_ticks < TICKS_MAX; k++)
            if (k % step == 0)
                a->tick[a->n_ticks++] = exp2(k);
        if (a->n_ticks >= 2)
            return 0;
        a->n_ticks = 0;
        double keep[3] = { v[0], v[u / 2], v[u - 1] };
        memcpy(a->tick, keep, sizeof(keep));
        a->n_ticks = 3;
        return 0;
    }
    linear_ticks(a, 7, false);
    return 0;
}

static void y_axis(const struct plot *p, struct axis *a)
{
    double lo = INFINITY, hi = -INFINITY;
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->series[i].n; k++) {
            lo = fmin(lo, p->series[i].pt[k].lo);
            hi = fmax(hi, p->series[i].pt[k].hi);
        }
    a->lo = fmin(lo, 0); /* a length from 0 is comparable by eye */
    a->hi = fmax(hi, 0);
    if (a->hi - a->lo < 1e-300)
        a->hi = a->lo + 1;
    linear_ticks(a, 5, true);
}

/* ---- marks */

struct ink {
    unsigned char c[3];
    const char *dash;
    unsigned marker;
};

static struct ink ink_of(const struct plot_series *s)
{
    struct ink k;
    const unsigned char *h = HUES[s->hue % ARRAY_LEN(HUES)];
    double light = s->n_shades > 1 ? 0.58 * (1 - (double)s->shade / (s->n_shades - 1)) : 0;
    for (int i = 0; i < 3; i++)
        k.c[i] = (unsigned char)lround(h[i] + (255 - h[i]) * light);
    k.dash = DASHES[s->hue / ARRAY_LEN(HUES) % ARRAY_LEN(DASHES)];
    k.marker = s->n_shades > 1 ? s->shade : s->hue;
    return k;
}

static int marker(struct buf *out, const struct ink *k, double x, double y, const char *tip)
{
    const double r = 4.2;
    int w = 0;
    char fill[48];
    snprintf(fill, sizeof(fill), "fill=\"#%02x%02x%02x\" stroke=\"#fff\" stroke-width=\".8\"",
             k->c[0], k->c[1], k->c[2]);
    switch (k->marker % 6) {
    case 0:
        w = buf_addf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" %s>", x, y, r, fill);
        break;
    case 1:
        w = buf_addf(out, "<path d=\"M%.1f %.1fh7.6v7.6h-7.6z\" %s>", x - 3.8, y - 3.8, fill);
        break;
    case 2:
        w = buf_addf(out, "<path d=\"M%.1f %.1fl5 8.6h-10z\" %s>", x, y - 5.4, fill);
        break;
    case 3:
        w = buf_addf(out, "<path d=\"M%.1f %.1fl5.4 5.4l-5.4 5.4l-5.4 -5.4z\" %s>", x, y - 5.4,
                     fill);
        break;
    case 4:
        w = buf_addf(out, "<path d=\"M%.1f %.1fl5 -8.6h-10z\" %s>", x, y + 5.4, fill);
        break;
    default:
        w = buf_addf(out, "<path d=\"M%.1f %.1fh3v-3.4h3v3.4h3.4v3h-3.4v3.4h-3v-3.4h-3.4z\" %s>",
                     x - 4.7, y - 1.5, fill);
    }
    if (w == 0 && *tip) {
        w = buf_adds(out, "<title>");
        w = w ? w : page_escape(out, tip);
        w = w ? w : buf_adds(out, "</title>");
    }
    return w ? w : buf_adds(out, k->marker % 6 == 0 ? "</circle>\n" : "</path>\n");
}

static int draw_series(struct buf *out, const struct plot_series *s, const struct axis *ax,
                       const struct axis *ay)
{
    struct ink k = ink_of(s);
    int r = 0;
    if (s->n > 1) {
        r = buf_adds(out, "<polyline fill=\"none\" stroke-linejoin=\"round\" points=\"");
        for (size_t i = 0; i < s->n && r == 0; i++)
            r = buf_addf(out, "%s%.1f,%.1f", i ? " " : "", axis_px(ax, s->pt[i].x),
                         axis_px(ay, s->pt[i].y));
        r = r ? r
              : buf_addf(out, "\" stroke=\"#%02x%02x%02x\" stroke-width=\"2.2\"", k.c[0], k.c[1],
                         k.c[2]);
        if (*k.dash)
            r = r ? r : buf_addf(out, " stroke-dasharray=\"%s\"", k.dash);
        r = r ? r : buf_adds(out, "/>\n");
    }
    for (size_t i = 0; i < s->n && r == 0; i++) {
        const struct plot_point *q = &s->pt[i];
        double x = axis_px(ax, q->x);
        if (q->hi > q->lo)
            r = buf_addf(out,
                         "<path d=\"M%.1f %.1fV%.1fM%.1f %.1fh8M%.1f %.1fh8\" fill=\"none\" "
                         "stroke=\"#%02x%02x%02x\" stroke-width=\"1.2\"/>\n",
                         x, axis_px(ay, q->lo), axis_px(ay, q->hi), x - 4, axis_px(ay, q->lo),
                         x - 4, axis_px(ay, q->hi), k.c[0], k.c[1], k.c[2]);
        char tip[256], sx[32], sy[32];
        number(q->x, sx);
        snprintf(sy, sizeof(sy), "%.6g", q->y);
        snprintf(tip, sizeof(tip), "%.160s: %s, %s", s->name, sx, sy);
        /* a dense line needs no marks */
        if (r == 0 && s->n <= 200)
            r = marker(out, &k, x, axis_px(ay, q->y), tip);
    }
    return r;
}

int plot_svg(struct plot *p, bool xml, struct buf *out, struct err *e)
{
    size_t total = 0, widest = 0;
    for (size_t i = 0; i < p->n; i++) {
        struct plot_series *s = &p->series[i];
        if (s->n)
            qsort(s->pt, s->n, sizeof(*s->pt), by_x);
        total += s->n;
        if (glyphs(s->name) > widest)
            widest = glyphs(s->name);
    }
    if (total == 0)
        return err_set(e, SF_EFORMAT, "plot: no point to draw");
    bool legend = p->n > 1 || (p->n == 1 && p->series[0].name[0]);
    size_t max_name = 44;
    if (widest > max_name)
        widest = max_name;
    double legend_w = legend ? 52 + (double)widest * FONT * GLYPH : 0;
    double top = 16;
    bool title = p->title && *p->title, sub = p->subtitle && *p->subtitle;
    if (title)
        top += 26;
    if (sub)
        top += 20;
    double h = PLOT_H;
    if (legend && (double)p->n * LEGEND_ROW > h)
        h = (double)p->n * LEGEND_ROW;
    double width = LEFT + PLOT_W + RIGHT_PAD + legend_w, height = top + h + 62;

    struct axis ax = { .at = LEFT, .len = PLOT_W }, ay = { .at = top + h, .len = -h };
    int r = x_axis(p, &ax, e);
    if (r < 0)
        return r;
    y_axis(p, &ay);

    if (xml)
        r = buf_adds(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    /* inside HTML the element needs no namespace, and the page then holds no address at all */
    r = r ? r
          : buf_addf(out,
                     "<svg%s width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
                     "role=\"img\" font-family=\"'DejaVu Sans', 'Segoe UI', Helvetica, Arial, "
                     "sans-serif\" font-size=\"%d\" fill=\"#222\">\n<title>",
                     xml ? " xmlns=\"http://www.w3.org/2000/svg\"" : "", width, height, width,
                     height, FONT);
    r = r ? r : page_escape(out, title ? p->title : "chart");
    r = r ? r : buf_adds(out, "</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n");
    double y = 16;
    size_t fit = (size_t)((width - LEFT) / (FONT * GLYPH));
    if (title) {
        y += 12;
        r = r ? r
              : text_at(out, LEFT, y, "start", "font-size=\"17\" font-weight=\"bold\"", p->title,
                        (size_t)((width - LEFT) / (17 * 0.68)));
    }
    if (sub)
        r = r ? r : text_at(out, LEFT, y + 20, "start", "fill=\"#555\"", p->subtitle, fit);

    /* grid, ticks, labels */
    char s[32];
    for (size_t i = 0; i < ay.n_ticks && r == 0; i++) {
        double py = axis_px(&ay, ay.tick[i]);
        r = buf_addf(out, "<path d=\"M%d %.1fh%d\" stroke=\"%s\" fill=\"none\"/>\n", LEFT, py,
                     PLOT_W, fabs(ay.tick[i]) < 1e-300 ? "#666" : "#e2e2e2");
        number(ay.tick[i], s);
        r = r ? r : text_at(out, LEFT - 8, py + 4.5, "end", "", s, 16);
    }
    for (size_t i = 0; i < ax.n_ticks && r == 0; i++) {
        double px = axis_px(&ax, ax.tick[i]);
        r = buf_addf(out, "<path d=\"M%.1f %.1fv%.1f\" stroke=\"#eeeeee\" fill=\"none\"/>\n", px,
                     top, h);
        r = r ? r
              : buf_addf(out, "<path d=\"M%.1f %.1fv5\" stroke=\"#666\" fill=\"none\"/>\n", px,
                         top + h);
        number(ax.tick[i], s);
        r = r ? r : text_at(out, px, top + h + 20, "middle", "", s, 16);
    }
    r = r ? r
          : buf_addf(out, "<path d=\"M%d %.1fv%.1fh%d\" stroke=\"#666\" fill=\"none\"/>\n", LEFT,
                     top, h, PLOT_W);
    char label[160];
    snprintf(label, sizeof(label), "%s%s", p->x_label ? p->x_label : "x",
             ax.log2 ? " (log scale)" : "");
    r = r ? r : text_at(out, LEFT + PLOT_W / 2.0, top + h + 46, "middle", "", label, 80);
    char turn[64];
    snprintf(turn, sizeof(turn), "transform=\"rotate(-90 18 %.1f)\"", top + h / 2);
    r = r ? r
          : text_at(out, 18, top + h / 2, "middle", turn, p->y_label ? p->y_label : "y",
                    (size_t)(h / 8));

    /* the first series on top: it is the one named first */
    for (size_t i = p->n; i > 0 && r == 0; i--)
        r = draw_series(out, &p->series[i - 1], &ax, &ay);

    for (size_t i = 0; legend && i < p->n && r == 0; i++) {
        struct ink k = ink_of(&p->series[i]);
        double lx = LEFT + PLOT_W + RIGHT_PAD, ly = top + 10 + (double)i * LEGEND_ROW;
        r = buf_addf(
            out,
            "<path d=\"M%.1f %.1fh28\" fill=\"none\" stroke=\"#%02x%02x%02x\" stroke-width=\"2.2\"",
            lx, ly, k.c[0], k.c[1], k.c[2]);
        if (*k.dash)
            r = r ? r : buf_addf(out, " stroke-dasharray=\"%s\"", k.dash);
        r = r ? r : buf_adds(out, "/>\n");
        r = r ? r : marker(out, &k, lx + 14, ly, "");
        r = r ? r : text_at(out, lx + 36, ly + 4.5, "start", "", p->series[i].name, max_name);
    }
    r = r ? r : buf_adds(out, "</svg>\n");
    if (r < 0)
        return err_sys(e, -r, "plot");
    return 0;
}

/* ---- page */

int page_begin(struct buf *out, const char *title, const char *lead)
{
    int r = buf_adds(
        out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
             "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
             "'unsafe-inline'\">\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
    r = r ? r : page_escape(out, title);
    r = r ? r
          : buf_adds(
                out,
                "</title>\n<style>\n"
                "body{font:15px/1.5 'DejaVu Sans','Segoe UI',Helvetica,Arial,sans-serif;color:#222;"
                "background:#fff;max-width:1080px;margin:2em auto;padding:0 1em}\n"
                "h1{font-size:1.5em;margin:.2em 0}h2{font-size:1.15em;margin:1.6em 0 .4em}\n"
                "svg{max-width:100%;height:auto}p{max-width:60em}\n"
                ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;"
                "font-variant-numeric:tabular-nums}\n"
                "th,td{padding:.25em .7em;text-align:left;border-bottom:1px solid #e2e2e2;"
                "white-space:nowrap}\n"
                "th{border-bottom:2px solid #888;position:sticky;top:0;background:#fff}\n"
                "dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1.4em;"
                "font-size:13px}dt{color:#555}dd{margin:0;overflow-wrap:anywhere}\n"
                "pre{background:#f6f6f6;padding:.8em 1em;overflow-x:auto}\n"
                "td.n,th.n{text-align:right}tr:hover td{background:#f4f7fb}\n"
                "</style>\n</head>\n<body>\n<h1>");
    r = r ? r : page_escape(out, title);
    r = r ? r : buf_adds(out, "</h1>\n");
    if (lead && *lead)
        r = r ? r : page_text(out, lead);
    return r;
}

static int element(struct buf *out, const char *tag, const char *text)
{
    int r = buf_addf(out, "<%s>", tag);
    r = r ? r : page_escape(out, text);
    return r ? r : buf_addf(out, "</%s>\n", tag);
}

int page_section(struct buf *out, const char *heading)
{
    return element(out, "h2", heading);
}

int page_text(struct buf *out, const char *text)
{
    return element(out, "p", text);
}

int page_plot(struct buf *out, struct plot *p, struct err *e)
{
    return plot_svg(p, false, out, e);
}

int page_table_begin(struct buf *out, const char *const names[], size_t n)
{
    int r = buf_adds(out, "<div class=\"wide\"><table>\n<thead><tr>");
    for (size_t i = 0; i < n && r == 0; i++) {
        r = buf_adds(out, "<th>");
        r = r ? r : page_escape(out, names[i]);
        r = r ? r : buf_adds(out, "</th>");
    }
    return r ? r : buf_adds(out, "</tr></thead>\n<tbody>\n");
}

int page_table_row(struct buf *out, const char *const cells[], size_t n)
{
    int r = buf_adds(out, "<tr>");
    for (size_t i = 0; i < n && r == 0; i++) {
        const char *c = cells[i] ? cells[i] : "";
        bool num = *c && strspn(c, "0123456789.,%-+ ") == strlen(c);
        r = buf_adds(out, num ? "<td class=\"n\">" : "<td>");
        r = r ? r : page_escape(out, c);
        r = r ? r : buf_adds(out, "</td>");
    }
    return r ? r : buf_adds(out, "</tr>\n");
}

int page_table_end(struct buf *out)
{
    return buf_adds(out, "</tbody></table></div>\n");
}

int page_list_begin(struct buf *out)
{
    return buf_adds(out, "<dl>\n");
}

int page_list_item(struct buf *out, const char *name, const char *value)
{
    int r = buf_adds(out, "<dt>");
    r = r ? r : page_escape(out, name);
    r = r ? r : buf_adds(out, "</dt><dd>");
    r = r ? r : page_escape(out, value);
    return r ? r : buf_adds(out, "</dd>\n");
}

int page_list_end(struct buf *out)
{
    return buf_adds(out, "</dl>\n");
}

int page_code(struct buf *out, const char *text)
{
    int r = buf_adds(out, "<pre>");
    while (*text && r == 0) { /* escaping makes blanks of line ends */
        CLEANUP(freep) char *line = strndup(text, strcspn(text, "\n"));
        if (!line)
            return -ENOMEM;
        r = page_escape(out, line);
        r = r ? r : buf_adds(out, "\n");
        text += strlen(line);
        text += *text == '\n';
    }
    return r ? r : buf_adds(out, "</pre>\n");
}

int page_end(struct buf *out)
{
    return buf_adds(out, "</body>\n</html>\n");
}
