#include "coordinator/cli/chart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/sheet.h"
#include "perf/arch.h"
#include "proto/base/clean.h"

enum { KEYS_MAX = 8, DESIGN = -2, PAGE_ROWS_MAX = 5000, PROV_ROWS_MAX = 200 };

/* ---- columns */

static int column(const json_t *sheet, const char *name, struct err *e)
{
    int c = sheet_col(sheet, name);
    if (c >= 0)
        return c;
    if (!strcmp(name, "design") && sheet_design(sheet, 0))
        return DESIGN;
    char list[400] = "";
    size_t i, at = 0;
    json_t *v;
    json_array_foreach (json_object_get(sheet, "columns"), i, v)
        if (json_is_string(v) && at < sizeof(list) - 80)
            at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%.64s", at ? " " : "",
                                   json_string_value(v));
    return err_set(e, SF_EUSAGE, "results plot: no column '%.64s'; there are: %s", name, list);
}

static const char *text_of(const json_t *sheet, size_t row, int col, char room[CELL_LEN])
{
    return col == DESIGN ? sheet_design(sheet, row) : cell_text(sheet_cell(sheet, row, col), room);
}

/* What a column is called and the factor to its shown unit. */
static double unit_of(const char *col, double largest, char *label, size_t room)
{
    static const struct {
        const char *col, *label;
    } words[] = {
        { "util_ppm", "link utilisation (%)" },
        { "jain_ppm", "fairness between tenants (Jain, %)" },
        { "tenants", "tenants" },
        { "queue", "translation queue (entries)" },
        { "iotlb_entries", "IOTLB entries" },
        { "iotlb_ways", "IOTLB ways" },
        { "iotlb_groups", "IOTLB groups" },
        { "cc_entries", "context cache entries" },
        { "l2_entries", "L2 page cache entries" },
        { "l3_entries", "L3 page cache entries" },
        { "pf_entries", "prefetch buffer (entries)" },
        { "pf_distance", "prefetch distance" },
        { "pf_history", "prefetch history" },
        { "link_gbps", "link (Gb/s)" },
        { "burst", "burst (events)" },
        { "pkts_dropped", "packets turned away (slots)" },
        { "pkts_sent", "packets sent" },
    };
    const char *unit = NULL, *scaled = NULL;
    double by = 1;
    size_t n = strlen(col), cut = n;
    if (n > 4 && !strcmp(col + n - 4, "_ppm")) {
        by = 1e-4;
        unit = "%";
        cut = n - 4;
    } else if (!strcmp(col, "mbps") || (n > 5 && !strcmp(col + n - 5, "_mbps"))) {
        by = largest >= 1000 ? 1e-3 : 1;
        unit = largest >= 1000 ? "Gb/s" : "Mb/s";
        cut = n > 5 ? n - 5 : 0;
        if (!cut)
            scaled = "throughput";
    } else if (n > 3 && !strcmp(col + n - 3, "_ps")) {
        static const char *const ps[] = { "ps", "ns", "\xc2\xb5s", "ms", "s" };
        int k = 0;
        while (k < 4 && largest * by >= 10000) {
            by /= 1000;
            k++;
        }
        unit = ps[k];
        cut = n - 3;
        if (!strcmp(col, "time_ps"))
            scaled = "simulated time";
    } else if (largest >= 1e7) {
        by = 1e-6;
        unit = "millions";
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(words[i].col, col)) {
            if (by == 1 || strstr(words[i].label, "%"))
                snprintf(label, room, "%s", words[i].label);
            else
                snprintf(label, room, "%s (%s)", words[i].label, unit);
            return by;
        }
    char name[64];
    snprintf(name, sizeof(name), "%.*s", (int)(cut < 60 ? cut : 60), col);
    for (char *p = name; *p; p++)
        *p = *p == '_' ? ' ' : *p;
    snprintf(label, room, unit ? "%s (%s)" : "%s", scaled ? scaled : name, unit);
    return by;
}

/* ---- series */

/* Key of a row: the texts of the columns, joined. */
static char *key_of(const json_t *sheet, size_t row, const int col[], size_t n)
{
    struct buf b = BUF_INIT(4096);
    buf_adds(&b, "");
    for (size_t i = 0; i < n; i++) {
        char room[CELL_LEN];
        buf_addf(&b, "%s%s", i ? "\x1f" : "", text_of(sheet, row, col[i], room));
    }
    return b.data ? (char *)b.data : strdup("");
}

static int cmp_str(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* How many different keys the rows have. */
static size_t distinct(const json_t *sheet, const int col[], size_t n)
{
    size_t rows = sheet_n_rows(sheet), u = 0;
    char **v = calloc(rows + 1, sizeof(*v));
    if (!v)
        return 0;
    for (size_t i = 0; i < rows; i++)
        v[i] = key_of(sheet, i, col, n);
    qsort(v, rows, sizeof(*v), cmp_str);
    for (size_t i = 0; i < rows; i++)
        u += i == 0 || strcmp(v[i - 1], v[i]) != 0;
    for (size_t i = 0; i < rows; i++)
        free(v[i]);
    free(v);
    return u;
}

/* The fewest columns that tell the rows apart at one x, greedily: the one that splits most comes
 * first. */
static size_t choose(const json_t *sheet, int x, int y, int col[], size_t room)
{
    static const char *const params[] = { "design", "rules",     "tenants", "order", "burst",
                                          "seed",   "replicate", "trace",   "name" };
    int cand[16 + ARCH_N];
    size_t n_cand = 0, n = 0;
    for (size_t i = 0; i < ARRAY_LEN(params) + ARCH_N; i++) {
        const char *name = i < ARRAY_LEN(params) ? params[i] : arch_names[i - ARRAY_LEN(params)];
        int c = column(sheet, name, NULL);
        if ((c >= 0 || c == DESIGN) && c != x && c != y && distinct(sheet, &c, 1) > 1)
            cand[n_cand++] = c;
    }
    int with_x[KEYS_MAX + 2] = { x };
    size_t now = distinct(sheet, with_x, 1);
    while (n < room && n < KEYS_MAX) {
        size_t best = 0, most = now;
        for (size_t i = 0; i < n_cand; i++) {
            with_x[1 + n] = cand[i];
            size_t d = distinct(sheet, with_x, 2 + n);
            if (d > most) {
                most = d;
                best = i + 1;
            }
        }
        if (!best)
            break;
        col[n] = with_x[1 + n] = cand[best - 1];
        n++;
        now = most;
    }
    /* the design gives the hue, so it is named first */
    for (size_t i = 1; i < n; i++)
        if (col[i] == DESIGN) {
            memmove(col + 1, col, i * sizeof(*col));
            col[0] = DESIGN;
        }
    return n;
}

struct group {
    char *key;
    double x, sum, lo, hi;
    size_t n, row;
};

static int group_cmp(const void *a, const void *b)
{
    const struct group *p = a, *q = b;
    int c = strcmp(p->key, q->key);
    if (c)
        return c;
    return (p->x > q->x) - (p->x < q->x);
}

/* Order of lines in the legend: key by key, numbers by value. */
struct order {
    const json_t *sheet;
    const int *col;
    size_t n;
};
static int line_cmp(const void *a, const void *b, void *ctx)
{
    const struct order *o = ctx;
    size_t ra = *(const size_t *)a, rb = *(const size_t *)b;
    for (size_t i = 0; i < o->n; i++) {
        char s[CELL_LEN], t[CELL_LEN];
        const char *p = text_of(o->sheet, ra, o->col[i], s),
                   *q = text_of(o->sheet, rb, o->col[i], t);
        char *pe, *qe;
        double x = strtod(p, &pe), y = strtod(q, &qe);
        int c = *p && *q && !*pe && !*qe ? (x > y) - (x < y) : strcmp(p, q);
        if (c)
            return c;
    }
    return 0;
}

static void line_name(const json_t *sheet, size_t row, const int col[], size_t n, char *out,
                      size_t room)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n && at < room - 1; i++) {
        char cell[CELL_LEN], label[96] = "";
        const char *s = text_of(sheet, row, col[i], cell), *name = "";
        if (col[i] != DESIGN)
            name = json_string_value(
                json_array_get(json_object_get(sheet, "columns"), (size_t)col[i]));
        bool bare = col[i] == DESIGN || !strcmp(name, "design") || !strcmp(name, "name") ||
                    !strcmp(name, "rules");
        if (!bare)
            snprintf(label, sizeof(label), "%.80s ", name);
        for (char *p = label; *p; p++)
            *p = *p == '_' ? ' ' : *p;
        static const struct {
            const char *from, *to;
        } shorter[] = { { "iotlb entries ", "IOTLB " }, { "tenants ", "tenants " } };
        for (size_t k = 0; k < ARRAY_LEN(shorter); k++)
            if (!strcmp(label, shorter[k].from))
                snprintf(label, sizeof(label), "%s", shorter[k].to);
        int w = snprintf(out + at, room - at, "%s%s%.*s", i ? ", " : "", label,
                         strlen(s) == 64 ? 8 : 60, s);
        at += w > 0 ? (size_t)w : 0;
    }
}

/* "Link utilisation by tenants": the labels without their units. */
static void made_title(struct chart *c)
{
    int ny = (int)strcspn(c->y_label, "("), nx = (int)strcspn(c->x_label, "(");
    while (ny > 1 && c->y_label[ny - 1] == ' ')
        ny--;
    while (nx > 1 && c->x_label[nx - 1] == ' ')
        nx--;
    snprintf(c->title, sizeof(c->title), "%.*s by %.*s", ny, c->y_label, nx, c->x_label);
    if (c->title[0] >= 'a' && c->title[0] <= 'z')
        c->title[0] = (char)(c->title[0] - 'a' + 'A');
}

/* ---- */

int chart_make(const json_t *sheet, const struct chart_want *want, struct chart *ret, struct err *e)
{
    *ret = (struct chart){ 0 };
    size_t rows = sheet_n_rows(sheet), n_keys = 0;
    int keys[KEYS_MAX];
    int x = column(sheet, want->x, e);
    if (x == DESIGN)
        return err_set(e, SF_EUSAGE, "--x: 'design' is a word; give a column of numbers");
    if (x < 0)
        return x;
    int y = column(sheet, want->y, e);
    if (y == DESIGN)
        return err_set(e, SF_EUSAGE, "--y: 'design' is a word; give a column of numbers");
    if (y < 0)
        return y;
    if (want->series) {
        char list[512], *save = NULL;
        if (strlen(want->series) >= sizeof(list))
            return err_set(e, SF_EUSAGE, "--series: too long");
        strcpy(list, want->series);
        for (char *w = strtok_r(list, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
            if (n_keys == KEYS_MAX)
                return err_set(e, SF_EUSAGE, "--series: more than %d columns", KEYS_MAX);
            int c = column(sheet, w, e);
            if (c < 0 && c != DESIGN)
                return c;
            keys[n_keys++] = c;
        }
    } else {
        n_keys = choose(sheet, x, y, keys, 3);
    }

    CLEANUP(freep) struct group *g = calloc(rows + 1, sizeof(*g));
    CLEANUP(freep) size_t *line = calloc(rows + 1, sizeof(*line));
    if (!g || !line)
        return err_sys(e, ENOMEM, "results plot");
    size_t n = 0, u = 0, n_lines = 0;
    double max_x = 0, max_y = 0;
    for (size_t i = 0; i < rows; i++) {
        double vx, vy;
        if (!cell_number(sheet_cell(sheet, i, x), &vx) ||
            !cell_number(sheet_cell(sheet, i, y), &vy)) {
            ret->skipped++;
            continue;
        }
        g[n++] = (struct group){ .key = key_of(sheet, i, keys, n_keys),
                                 .x = vx,
                                 .sum = vy,
                                 .lo = vy,
                                 .hi = vy,
                                 .n = 1,
                                 .row = i };
        max_x = fmax(max_x, fabs(vx));
        max_y = fmax(max_y, fabs(vy));
    }
    ret->points = n;
    qsort(g, n, sizeof(*g), group_cmp);
    for (size_t i = 0; i < n; i++) {
        if (u && group_cmp(&g[u - 1], &g[i]) == 0) {
            struct group *m = &g[u - 1];
            ret->shared += m->n == 1;
            m->sum += g[i].sum;
            m->lo = fmin(m->lo, g[i].lo);
            m->hi = fmax(m->hi, g[i].hi);
            m->n++;
            free(g[i].key);
        } else {
            if (!u || strcmp(g[u - 1].key, g[i].key))
                line[n_lines++] = g[i].row;
            g[u++] = g[i];
        }
    }
    int r = 0;
    if (n == 0)
        r = err_set(e, SF_EFORMAT, "results plot: no row has numbers in '%.64s' and '%.64s'",
                    want->x, want->y);
    else if (n_lines > PLOT_SERIES_MAX)
        r = err_set(e, SF_EFORMAT,
                    "results plot: %zu series, at most %d can be told apart: choose them with "
                    "--series or --where",
                    n_lines, PLOT_SERIES_MAX);
    double by_x = unit_of(want->x, max_x, ret->x_label, sizeof(ret->x_label));
    double by_y = unit_of(want->y, max_y, ret->y_label, sizeof(ret->y_label));
    struct order o = { .sheet = sheet, .col = keys, .n = n_keys };
    qsort_r(line, n_lines, sizeof(*line), line_cmp, &o);
    /* one hue for each value of the first column, when several columns make the series */
    unsigned hue = 0, first = 0;
    for (size_t i = 0; i < n_lines && r >= 0; i++) {
        char name[256];
        line_name(sheet, line[i], keys, n_keys, name, sizeof(name));
        struct plot_series *s = plot_add(&ret->plot, name);
        CLEANUP(freep) char *key = key_of(sheet, line[i], keys, n_keys);
        if (!s || !key) {
            r = err_sys(e, ENOMEM, "results plot");
            break;
        }
        if (n_keys > 1) {
            char a[CELL_LEN], b[CELL_LEN];
            if (i && strcmp(text_of(sheet, line[i - 1], keys[0], a),
                            text_of(sheet, line[i], keys[0], b)) != 0) {
                for (size_t k = first; k < i; k++)
                    ret->plot.series[k].n_shades = (unsigned)(i - first);
                hue++;
                first = (unsigned)i;
            }
            s->hue = hue;
            s->shade = (unsigned)(i - first);
        }
        for (size_t k = 0; k < u && r >= 0; k++)
            if (!strcmp(g[k].key, key))
                r = plot_point(s, g[k].x * by_x, g[k].sum / (double)g[k].n * by_y, g[k].lo * by_y,
                               g[k].hi * by_y, e);
    }
    if (n_keys > 1)
        for (size_t k = first; k < ret->plot.n; k++)
            ret->plot.series[k].n_shades = (unsigned)(ret->plot.n - first);
    for (size_t i = 0; i < u; i++)
        free(g[i].key);
    if (r < 0)
        return r;

    for (size_t i = 0; i < n_keys; i++) {
        const char *name = keys[i] == DESIGN
                               ? "design"
                               : json_string_value(json_array_get(json_object_get(sheet, "columns"),
                                                                  (size_t)keys[i]));
        size_t at = strlen(ret->series);
        snprintf(ret->series + at, sizeof(ret->series) - at, "%s%s", i ? "," : "", name);
    }
    if (want->title)
        snprintf(ret->title, sizeof(ret->title), "%s", want->title);
    else
        made_title(ret);
    if (want->subtitle)
        snprintf(ret->subtitle, sizeof(ret->subtitle), "%s", want->subtitle);
    else if (ret->shared)
        snprintf(ret->subtitle, sizeof(ret->subtitle),
                 "%zu points; a mark with a bar is the mean, from lowest to highest", ret->points);
    else
        snprintf(ret->subtitle, sizeof(ret->subtitle), "%zu points", ret->points);
    return 0;
}

void chart_clear(struct chart *c)
{
    plot_clear(&c->plot);
    *c = (struct chart){ 0 };
}

/* The plot borrows the texts: they are named where c stays put. */
static void label_plot(struct chart *c)
{
    c->plot.title = c->title;
    c->plot.subtitle = c->subtitle;
    c->plot.x_label = c->x_label;
    c->plot.y_label = c->y_label;
}

int chart_svg(struct chart *c, struct buf *out, struct err *e)
{
    label_plot(c);
    return plot_svg(&c->plot, true, out, e);
}

/* ---- page */

static int page_sheet(struct buf *out, const json_t *sheet)
{
    size_t n = sheet_n_cols(sheet), rows = sheet_n_rows(sheet);
    CLEANUP(freep) const char **cells = calloc(n + 1, sizeof(*cells));
    CLEANUP(freep) char(*room)[CELL_LEN] = calloc(n + 1, sizeof(*room));
    if (!cells || !room)
        return -ENOMEM;
    for (size_t c = 0; c < n; c++)
        cells[c] = json_string_value(json_array_get(json_object_get(sheet, "columns"), c));
    int r = page_table_begin(out, cells, n);
    for (size_t i = 0; i < rows && r == 0; i++) {
        for (size_t c = 0; c < n; c++)
            cells[c] = cell_text(sheet_cell(sheet, i, (int)c), room[c]);
        r = page_table_row(out, cells, n);
    }
    return r ? r : page_table_end(out);
}

/* A list in JSON (content ids of logs) as words. */
static char *words(const char *text)
{
    json_t *j = *text == '[' ? json_loads(text, 0, NULL) : NULL;
    struct buf b = BUF_INIT(1 << 20);
    size_t i;
    json_t *v;
    int r = j ? 0 : buf_adds(&b, text);
    json_array_foreach (j, i, v) {
        char room[CELL_LEN];
        r = r ? r : buf_addf(&b, "%s%s", i ? ", " : "", cell_text(v, room));
    }
    json_decref(j);
    return r == 0 && b.data ? (char *)b.data : (buf_clear(&b), strdup(""));
}

/* Where the rows come from: what is the same for all of them as a list, what differs as a table with the number of rows
 * of each. 0 when the sheet says nothing of it. */
static int page_provenance(struct buf *out, const json_t *sheet)
{
    static const char *const names[] = { "sweep",   "agent", "host",   "engine",      "isa",
                                         "threads", "cpu",   "kernel", "microcode",   "governor",
                                         "accel",   "logs",  "epoch",  "qemu_series", "boot" };
    int differs[ARRAY_LEN(names)];
    size_t n = 0, all = sheet_n_rows(sheet);
    int r = 0, began = 0;
    char room[CELL_LEN];
    for (size_t i = 0; i < ARRAY_LEN(names) && r == 0; i++) {
        int c = sheet_col(sheet, names[i]);
        if (c < 0)
            continue;
        if (distinct(sheet, &c, 1) > 1) {
            differs[n++] = c;
            continue;
        }
        const char *s = text_of(sheet, 0, c, room);
        if (!*s)
            continue;
        if (!began++) {
            r = page_section(out, "Where the numbers come from");
            r = r ? r : page_list_begin(out);
        }
        CLEANUP(freep) char *value = words(s);
        r = r ? r : page_list_item(out, names[i], value ? value : s);
    }
    int started = sheet_col(sheet, "started");
    const char *first = NULL, *last = NULL;
    for (size_t i = 0; i < all && started >= 0; i++) { /* RFC 3339 in UTC sorts as text */
        const char *s = json_string_value(sheet_cell(sheet, i, started));
        first = s && (!first || strcmp(s, first) < 0) ? s : first;
        last = s && (!last || strcmp(s, last) > 0) ? s : last;
    }
    if (r == 0 && first && began) {
        char text[160];
        snprintf(text, sizeof(text), "%.60s to %.60s", first, last);
        r = page_list_item(out, "computed", text);
    }
    if (began)
        r = r ? r : page_list_end(out);
    if (!n || r)
        return r;

    json_t *cols = json_array(), *rows = json_array(), *seen = json_object();
    for (size_t i = 0; i < n; i++)
        json_array_append(cols,
                          json_array_get(json_object_get(sheet, "columns"), (size_t)differs[i]));
    json_array_append_new(cols, json_string("points"));
    for (size_t i = 0; i < all; i++) {
        CLEANUP(freep) char *key = key_of(sheet, i, differs, n);
        json_t *row = json_object_get(seen, key ? key : "");
        if (row) {
            json_t *count = json_array_get(row, n);
            json_integer_set(count, json_integer_value(count) + 1);
            continue;
        }
        if (json_array_size(rows) >= PROV_ROWS_MAX)
            break;
        row = json_array();
        for (size_t k = 0; k < n; k++) {
            const char *s = text_of(sheet, i, differs[k], room);
            json_array_append_new(row, strlen(s) == 64 ? json_stringn(s, 12) : json_str(s));
        }
        json_array_append_new(row, json_integer(1));
        json_array_append(rows, row);
        json_object_set_new(seen, key ? key : "", row);
    }
    json_decref(seen);
    json_t *table = json_pack("{s:o, s:o}", "columns", cols, "rows", rows);
    if (!began)
        r = page_section(out, "Where the numbers come from");
    r = r ? r : page_sheet(out, table);
    json_decref(table);
    return r;
}

int chart_page(struct chart *c, const json_t *sheet, const char *title, const char *lead,
               const char *ini, struct buf *out, struct err *e)
{
    int r = page_begin(out, title ? title : c->title, lead);
    if (r == 0) {
        label_plot(c);
        if (!title || !strcmp(title, c->title))
            c->plot.title = NULL; /* the page's heading says it */
        int p = page_plot(out, &c->plot, e);
        if (p < 0)
            return p;
    }
    json_t *digest = sheet_digest(sheet, PAGE_ROWS_MAX, false);
    r = r ? r : page_section(out, "Results");
    if (sheet_n_rows(sheet) > PAGE_ROWS_MAX)
        r = r ? r
              : page_text(out, "The first 5000 rows; all of them: siofleet results query --csv.");
    r = r ? r : page_sheet(out, digest);
    r = r ? r : page_provenance(out, sheet);
    if (ini) {
        r = r ? r : page_section(out, "The sweep");
        r = r ? r : page_code(out, ini);
    }
    r = r ? r : page_end(out);
    json_decref(digest);
    return r ? err_sys(e, -r, "%s", "page") : 0;
}
