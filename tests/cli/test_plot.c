#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/plot.h"

static struct plot_series *series(struct plot *p, const char *name, const double xy[][2], size_t n)
{
    struct plot_series *s = plot_add(p, name);
    cr_assert(s);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(plot_point(s, xy[i][0], xy[i][1], xy[i][1], xy[i][1], NULL), 0);
    return s;
}

static char *svg(struct plot *p)
{
    static struct buf b;
    struct err e;
    buf_clear(&b);
    buf_init(&b, PLOT_SVG_MAX);
    cr_assert_eq(plot_svg(p, true, &b, &e), 0, "%s", e.text);
    return (char *)b.data;
}

static size_t count(const char *s, const char *what)
{
    size_t n = 0;
    for (; (s = strstr(s, what)); s += strlen(what))
        n++;
    return n;
}

/* Every <text> of the chart with its box must lie inside the picture; those on the x axis must not
 * touch. */
struct label {
    double x, y, w;
    char text[128];
};

static size_t labels(const char *s, struct label *v, size_t room)
{
    size_t n = 0;
    while ((s = strstr(s, "<text x=\"")) && n < room) {
        struct label *l = &v[n++];
        l->x = strtod(s + 9, NULL);
        l->y = strtod(strstr(s, "y=\"") + 3, NULL);
        const char *anchor = strstr(s, "anchor=\"") + 8, *open = strchr(s, '>') + 1,
                   *end = strstr(open, "</text>");
        snprintf(l->text, sizeof(l->text), "%.*s", (int)(end - open), open);
        size_t glyphs = 0;
        for (const char *c = open; c < end; c++)
            glyphs += ((unsigned char)*c & 0xc0) != 0x80;
        l->w = (double)glyphs * 13 * 0.62;
        if (anchor[0] == 'm')
            l->x -= l->w / 2;
        else if (anchor[0] == 'e' && anchor[1] == 'n')
            l->x -= l->w;
        s = end;
    }
    return n;
}

static void assert_readable(const char *s)
{
    static struct label v[512];
    size_t n = labels(s, v, 512);
    double w = strtod(strstr(s, "width=\"") + 7, NULL);
    for (size_t i = 0; i < n; i++) {
        if (strstr(v[i].text, "rotate") || v[i].x < 20)
            continue; /* the y label stands upright */
        cr_expect(v[i].x >= 0 && v[i].x + v[i].w <= w + 1, "'%s' leaves the picture", v[i].text);
        for (size_t k = i + 1; k < n; k++)
            if (fabs(v[i].y - v[k].y) < 12 && v[k].x >= 20)
                cr_expect(v[i].x + v[i].w <= v[k].x || v[k].x + v[k].w <= v[i].x,
                          "'%s' overlaps '%s'", v[i].text, v[k].text);
    }
}

Test(plot, the_same_data_give_the_same_bytes_in_any_order)
{
    struct plot a = { .title = "t", .x_label = "x" }, b = { .title = "t", .x_label = "x" };
    series(&a, "s", (double[][2]){ { 1, 2 }, { 3, 4 }, { 5, 1 } }, 3);
    series(&b, "s", (double[][2]){ { 5, 1 }, { 1, 2 }, { 3, 4 } }, 3);
    char *first = strdup(svg(&a));
    cr_assert_str_eq(first, svg(&b));
    free(first);
    plot_clear(&a);
    plot_clear(&b);
}

Test(plot, labels_never_overlap_or_leave_the_picture)
{
    static const double sets[][8] = {
        { 4, 24, 72, 120 },
        { 1, 2, 3, 4, 5, 6, 7, 8 },
        { 1, 1000000, 1000001, 0 },
        { 0, 0, 0, 0 },
        { 100000, 100001, 100002, 100003 },
        { 0.001, 0.5, 12345.678, 3 },
        { -5, 5, -1000, 1000000 },
        { 1e-9, 1e-8, 1e-7, 1e-6 },
        { 1e15, 1e16, 1e17, 1e18 },
    };
    for (size_t k = 0; k < sizeof(sets) / sizeof(sets[0]); k++) {
        for (int scale = PLOT_AUTO; scale <= PLOT_LOG2; scale++) {
            struct plot p = { .title = "Title",
                              .subtitle = "and more",
                              .x_label = "x",
                              .y_label = "y",
                              .x_scale = (enum plot_scale)scale };
            for (size_t i = 0; i < 30; i++) {
                char name[128];
                snprintf(name, sizeof(name),
                         "series %zu with a rather long name that goes on and on for ever", i);
                struct plot_series *s = plot_add(&p, name);
                for (size_t j = 0; j < 8; j++)
                    cr_assert_eq(plot_point(s, sets[k][j], sets[k][7 - j] * (double)i,
                                            sets[k][7 - j] * (double)i, sets[k][7 - j] * (double)i,
                                            NULL),
                                 0);
            }
            assert_readable(svg(&p));
            plot_clear(&p);
        }
    }
}

Test(plot, x_is_logarithmic_when_the_values_span_a_factor_of_eight)
{
    struct plot p = { .x_label = "tenants" };
    series(&p, "s", (double[][2]){ { 4, 1 }, { 24, 2 }, { 120, 3 } }, 3);
    char *s = svg(&p);
    cr_assert(strstr(s, "tenants (log scale)"));
    cr_assert(strstr(s, ">24</text>"), "ticks stand at the values themselves");
    plot_clear(&p);
    p = (struct plot){ .x_label = "tenants" };
    series(&p, "s", (double[][2]){ { 0, 1 }, { 24, 2 }, { 120, 3 } }, 3);
    cr_assert_not(strstr(svg(&p), "log scale"), "zero has no logarithm");
    plot_clear(&p);
}

Test(plot, names_from_outside_cannot_write_markup)
{
    struct plot p = { .title = "<script>alert(1)</script>",
                      .x_label = "\"'&",
                      .y_label = "\xff\xfe\x01" };
    series(&p, "</text><script>", (double[][2]){ { 1, 1 }, { 2, 1 } }, 2);
    char *s = svg(&p);
    cr_assert_not(strstr(s, "<script"));
    for (; *s; s++)
        cr_assert((unsigned char)*s >= 0x20 || *s == '\n');
    plot_clear(&p);
}

Test(plot, refuses_what_cannot_be_drawn)
{
    struct plot p = { 0 };
    struct err e;
    struct buf b = BUF_INIT(PLOT_SVG_MAX);
    cr_assert_eq(plot_svg(&p, true, &b, &e), -SF_EFORMAT);
    struct plot_series *s = plot_add(&p, "s");
    cr_assert_eq(plot_svg(&p, true, &b, &e), -SF_EFORMAT);
    cr_assert_eq(plot_point(s, NAN, 1, 1, 1, &e), -SF_EFORMAT);
    cr_assert_eq(plot_point(s, 1, INFINITY, 1, 1, &e), -SF_EFORMAT);
    for (int i = 1; i < PLOT_SERIES_MAX; i++)
        cr_assert(plot_add(&p, "more"));
    cr_assert_null(plot_add(&p, "one too many"));
    plot_clear(&p);
    buf_clear(&b);
}

Test(plot, a_single_point_and_a_flat_line_are_drawn)
{
    struct plot p = { 0 };
    series(&p, "", (double[][2]){ { 7, 0 } }, 1);
    cr_assert_eq(count(svg(&p), "<circle"), 1, "one mark, and no legend for a nameless series");
    assert_readable(svg(&p));
    plot_clear(&p);
}

Test(plot, page_is_self_contained)
{
    struct buf b = BUF_INIT(1 << 20);
    const char *names[] = { "name", "mbps" }, *cells[] = { "<b>", "12" };
    cr_assert_eq(page_begin(&b, "T & U", "lead"), 0);
    cr_assert_eq(page_section(&b, "Table"), 0);
    cr_assert_eq(page_table_begin(&b, names, 2), 0);
    cr_assert_eq(page_table_row(&b, cells, 2), 0);
    cr_assert_eq(page_table_end(&b), 0);
    cr_assert_eq(page_end(&b), 0);
    char *s = (char *)b.data;
    cr_assert(strstr(s, "<title>T &amp; U</title>"));
    cr_assert(strstr(s, "<td>&lt;b&gt;</td><td class=\"n\">12</td>"));
    cr_assert_not(strstr(s, "://"));
    cr_assert_not(strstr(s, "<script"));
    buf_clear(&b);
}
