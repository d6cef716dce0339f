#include "coordinator/cli/sheet.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "perf/arch.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/cli.h"

enum { SHEET_FILE_MAX = 256 << 20, ID_SHOWN = 12, DESIGN = -2 };

int sheet_col(const json_t *sheet, const char *name)
{
    size_t i;
    json_t *c;
    json_array_foreach (json_object_get(sheet, "columns"), i, c) {
        const char *s = json_string_value(c);
        if (s && !strcmp(s, name))
            return (int)i;
    }
    return -1;
}

size_t sheet_n_cols(const json_t *sheet)
{
    return json_array_size(json_object_get(sheet, "columns"));
}

size_t sheet_n_rows(const json_t *sheet)
{
    return json_array_size(json_object_get(sheet, "rows"));
}

const json_t *sheet_cell(const json_t *sheet, size_t row, int col)
{
    return col < 0
               ? NULL
               : json_array_get(json_array_get(json_object_get(sheet, "rows"), row), (size_t)col);
}

const char *cell_text(const json_t *cell, char room[CELL_LEN])
{
    switch (cell ? json_typeof(cell) : JSON_NULL) {
    case JSON_STRING:
        return json_string_value(cell);
    case JSON_INTEGER:
        snprintf(room, CELL_LEN, "%" JSON_INTEGER_FORMAT, json_integer_value(cell));
        return room;
    case JSON_REAL:
        snprintf(room, CELL_LEN, "%.15g", json_real_value(cell));
        return room;
    case JSON_TRUE:
        return "yes";
    case JSON_FALSE:
        return "no";
    default:
        return "";
    }
}

bool cell_number(const json_t *cell, double *ret)
{
    char room[CELL_LEN], *end;
    const char *s = cell_text(cell, room);
    if (!strcmp(s, "yes") || !strcmp(s, "no")) {
        *ret = s[0] == 'y';
        return true;
    }
    /* digits only: strtod would also take "inf", "nan" and hex, which an id may look like */
    if (!*s || strspn(s, "0123456789.-+eE") != strlen(s))
        return false;
    *ret = strtod(s, &end);
    return *end == '\0' && isfinite(*ret);
}

void sheet_csv_head(const json_t *columns, FILE *f)
{
    sheet_csv_row(columns, f);
}

void sheet_csv_row(const json_t *row, FILE *f)
{
    size_t n = json_array_size(row);
    char room[CELL_LEN];
    for (size_t i = 0; i < n; i++)
        csv_cell(f, cell_text(json_array_get(row, i), room), i + 1 == n);
}

int sheet_collect(void *ctx, json_t *body, struct err *e)
{
    json_t **sheet = ctx, *rows = json_object_get(body, "rows"), *row;
    const json_t *cols = json_object_get(body, "columns");
    if (!json_is_array(rows) || (!*sheet && !json_is_array(cols)))
        return err_set(e, SF_EFORMAT, "coordinator: answer without columns and rows");
    if (!*sheet) {
        *sheet =
            json_pack("{s:s, s:O, s:[]}", "schema", "siofleet.results/1", "columns", cols, "rows");
        if (!*sheet)
            return err_sys(e, ENOMEM, "results");
    }
    json_t *all = json_object_get(*sheet, "rows");
    if (json_array_size(all) + json_array_size(rows) > SHEET_ROWS_MAX)
        return err_set(
            e, EFBIG,
            "results: more than %d rows: name the sweep or --where, or write them with --csv",
            SHEET_ROWS_MAX);
    size_t i;
    json_array_foreach (rows, i, row) {
        if (!json_is_array(row))
            return err_set(e, SF_EFORMAT, "coordinator: a row that is no list");
        if (json_array_append(all, row) < 0)
            return err_sys(e, ENOMEM, "results");
    }
    return 0;
}

/* ---- CSV in */

/* One record at *at into a new array of strings; advances *at and *line. */
static json_t *csv_record(const char **at, int *line, const char **bad)
{
    const char *s = *at;
    json_t *row = json_array();
    struct buf cell = BUF_INIT(1 << 20);
    *bad = NULL;
    for (;;) {
        buf_reset(&cell);
        int r = buf_adds(&cell, "");
        if (*s == '"') {
            for (s++;; s++) {
                if (*s == '"' && s[1] == '"') {
                    s++;
                } else if (*s == '"') {
                    s++;
                    break;
                } else if (!*s) {
                    *bad = "a quote is not closed";
                    break;
                }
                *line += *s == '\n';
                r = r ? r : buf_add(&cell, s, 1);
            }
        } else {
            while (*s && *s != ',' && *s != '\n' && *s != '\r') {
                r = r ? r : buf_add(&cell, s, 1);
                s++;
            }
        }
        if (*s == '\r' && s[1] == '\n')
            s++;
        if (!*bad && *s && *s != ',' && *s != '\n')
            *bad = "text after a closing quote";
        if (r < 0)
            *bad = "cell too long";
        if (!*bad && json_array_append_new(row, json_str(cell.data ? (char *)cell.data : "")) < 0)
            *bad = "out of memory";
        if (*bad || *s != ',')
            break;
        s++;
    }
    if (*s == '\n') {
        s++;
        ++*line;
    }
    *at = s;
    buf_clear(&cell);
    return row;
}

static int csv_load(const char *path, const char *text, json_t **ret, struct err *e)
{
    int line = 1;
    const char *bad;
    json_t *cols = csv_record(&text, &line, &bad);
    json_t *sheet =
        json_pack("{s:s, s:o, s:[]}", "schema", "siofleet.results/1", "columns", cols, "rows");
    if (!sheet)
        return err_sys(e, ENOMEM, "%s", path);
    size_t n = json_array_size(cols);
    json_t *rows = json_object_get(sheet, "rows");
    while (!bad && *text) {
        int at = line;
        json_t *row = csv_record(&text, &line, &bad);
        if (!bad && json_array_size(row) != n) {
            bad = "number of cells differs from the header's";
            line = at;
        }
        if (!bad && json_array_size(rows) >= SHEET_ROWS_MAX)
            bad = "too many rows";
        json_array_append_new(rows, row);
    }
    if (bad) {
        json_decref(sheet);
        return err_set(e, SF_EFORMAT, "%s:%d: %s", path, line, bad);
    }
    *ret = sheet;
    return 0;
}

int sheet_parse(const char *place, const char *text, size_t n, json_t **ret, struct err *e)
{
    if (n == 0 || strlen(text) != n)
        return err_set(e, SF_EFORMAT, "%s: %s", place, n ? "not a text file" : "empty");
    if (*text != '{')
        return csv_load(place, text, ret, e);
    json_error_t je;
    json_t *j = json_loads(text, 0, &je), *sheet = NULL;
    if (!j)
        return err_set(e, SF_EFORMAT, "%s:%d: %s", place, je.line, je.text);
    int r = sheet_collect(&sheet, j, e);
    json_decref(j);
    if (r < 0) {
        json_decref(sheet);
        return r == -EFBIG ? r
                           : err_set(e, SF_EFORMAT, "%s: not a siofleet.results/1 document", place);
    }
    *ret = sheet;
    return 0;
}

int sheet_load(const char *path, json_t **ret, struct err *e)
{
    struct buf b = BUF_INIT(SHEET_FILE_MAX);
    int r = file_read(path, &b, e);
    if (r >= 0)
        r = sheet_parse(path, b.data ? (const char *)b.data : "", b.len, ret, e);
    buf_clear(&b);
    return r < 0 ? r : 0;
}

/* ---- for people */

/* Only the keys by which the presets differ and which nobody sweeps together with a cache's size.
 */
static const char *const design_keys[] = { "queue", "l2_groups", "l3_groups", "pf_entries" };

const char *sheet_design(const json_t *sheet, size_t row)
{
    for (size_t k = 0; k < ARRAY_LEN(design_keys); k++)
        if (sheet_col(sheet, design_keys[k]) < 0)
            return NULL;
    static const char *const presets[] = { "default", "hypertrio" };
    for (size_t p = 0; p < ARRAY_LEN(presets); p++) {
        struct arch a;
        arch_default(&a);
        if (arch_preset(&a, presets[p], "preset", NULL) < 0)
            continue;
        bool same = true;
        for (size_t k = 0; k < ARRAY_LEN(design_keys) && same; k++) {
            char text[16], room[CELL_LEN];
            for (unsigned i = 0; i < ARCH_N; i++)
                if (!strcmp(arch_names[i], design_keys[k])) {
                    arch_text(&a, i, text);
                    const json_t *cell = sheet_cell(sheet, row, sheet_col(sheet, design_keys[k]));
                    same &= !strcmp(cell_text(cell, room), text);
                }
        }
        if (same)
            return presets[p];
    }
    return "other";
}

static bool varies(const json_t *sheet, int col)
{
    size_t n = sheet_n_rows(sheet);
    const json_t *first = sheet_cell(sheet, 0, col);
    for (size_t i = 1; i < n; i++)
        if (!json_equal(first, sheet_cell(sheet, i, col)))
            return true;
    return false;
}

/* Whether two columns say the same in other words: each value of one goes with one value of the other. */
static bool same_split(const json_t *sheet, int a, int b)
{
    json_t *to = json_object(), *from = json_object();
    size_t n = sheet_n_rows(sheet);
    bool same = true;
    for (size_t i = 0; i < n && same; i++) {
        char ra[CELL_LEN], rb[CELL_LEN];
        const char *x =
            a == DESIGN ? sheet_design(sheet, i) : cell_text(sheet_cell(sheet, i, a), ra);
        const char *y = cell_text(sheet_cell(sheet, i, b), rb);
        const char *was_y = json_string_value(json_object_get(to, x));
        const char *was_x = json_string_value(json_object_get(from, y));
        same = (!was_y || !strcmp(was_y, y)) && (!was_x || !strcmp(was_x, x));
        if (same && !was_y) {
            json_object_set_new(to, x, json_string(y));
            json_object_set_new(from, y, json_string(x));
        }
    }
    json_decref(to);
    json_decref(from);
    return same;
}

/* Every row is one of the presets, and both occur. */
static bool designs_differ(const json_t *sheet)
{
    size_t n = sheet_n_rows(sheet);
    const char *first = n ? sheet_design(sheet, 0) : NULL;
    bool differ = false;
    for (size_t i = 0; first && i < n; i++) {
        const char *d = sheet_design(sheet, i);
        if (!strcmp(d, "other"))
            return false;
        differ |= strcmp(d, first) != 0;
    }
    return differ;
}

json_t *sheet_digest(const json_t *sheet, size_t max_rows, bool provenance)
{
    static const char *const params[] = {
        "rules", "tenants", "order", "burst", "seed", "replicate"
    };
    static const char *const stats[] = { "mbps",      "util_ppm",   "pkts_dropped",
                                         "iotlb_hit", "iotlb_miss", "jain_ppm" };
    static const char *const prov[] = { "sweep", "agent", "host", "attempt", "duration_ms" };
    int col[96];
    size_t n = 0;
    int c;
    if ((c = sheet_col(sheet, "name")) >= 0 && varies(sheet, c))
        col[n++] = c;
    if ((c = sheet_col(sheet, "index")) >= 0)
        col[n++] = c;
    bool told = false; /* what tells the traces apart, before the trace id itself is shown */
    for (size_t i = 0; i < ARRAY_LEN(params); i++)
        if ((c = sheet_col(sheet, params[i])) >= 0 &&
            (varies(sheet, c) || !strcmp(params[i], "tenants"))) {
            told |= varies(sheet, c);
            col[n++] = c;
        }
    if (!told && (c = sheet_col(sheet, "trace")) >= 0 && varies(sheet, c))
        col[n++] = c;
    size_t keys = n;
    if (designs_differ(sheet))
        col[n++] = DESIGN;
    for (unsigned i = 0; i < ARCH_N; i++) {
        if ((c = sheet_col(sheet, arch_names[i])) < 0 || !varies(sheet, c))
            continue;
        bool new =
            true; /* a preset changes many keys at once: one of them is enough to tell the rows apart */
        for (size_t k = keys; k < n && new; k++)
            new = !same_split(sheet, col[k], c);
        if (new)
            col[n++] = c;
    }
    if ((c = sheet_col(sheet, "status")) >= 0) {
        bool all_done = true;
        char room[CELL_LEN];
        for (size_t i = 0; i < sheet_n_rows(sheet) && all_done; i++)
            all_done = !strcmp(cell_text(sheet_cell(sheet, i, c), room), "done");
        if (!all_done) {
            col[n++] = c;
            if ((c = sheet_col(sheet, "error")) >= 0)
                col[n++] = c;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(stats); i++)
        if ((c = sheet_col(sheet, stats[i])) >= 0)
            col[n++] = c;
    for (size_t i = 0; provenance && i < ARRAY_LEN(prov); i++)
        if ((c = sheet_col(sheet, prov[i])) >= 0)
            col[n++] = c;
    if (n < 2)
        for (n = 0; n < sheet_n_cols(sheet) && n < ARRAY_LEN(col); n++)
            col[n] = (int)n;

    json_t *cols = json_array(), *rows = json_array();
    for (size_t i = 0; i < n; i++)
        if (col[i] == DESIGN)
            json_array_append_new(cols, json_string("design"));
        else
            json_array_append(cols,
                              json_array_get(json_object_get(sheet, "columns"), (size_t)col[i]));
    size_t all = sheet_n_rows(sheet);
    for (size_t k = 0; k < all && k < max_rows; k++) {
        json_t *row = json_array();
        for (size_t i = 0; i < n; i++) {
            const json_t *cell = sheet_cell(sheet, k, col[i]);
            if (col[i] == DESIGN)
                json_array_append_new(row, json_string(sheet_design(sheet, k)));
            else
                json_array_append_new(row,
                                      cell ? json_incref((json_t *)(uintptr_t)cell) : json_null());
        }
        json_array_append_new(rows, row);
    }
    return json_pack("{s:s, s:o, s:o}", "schema", "siofleet.results/1", "columns", cols, "rows",
                     rows);
}

static size_t terminal_width(FILE *f)
{
    struct winsize w;
    if (!isatty(fileno(f)) || ioctl(fileno(f), TIOCGWINSZ, &w) < 0 || w.ws_col < 20)
        return 0;
    return w.ws_col;
}

static bool looks_like_id(const char *s)
{
    return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

/* Characters of a UTF-8 text; bytes of the first n of them. */
static size_t chars(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}
static size_t bytes_of(const char *s, size_t n)
{
    size_t i = 0;
    for (; s[i]; i++)
        if (((unsigned char)s[i] & 0xc0) != 0x80 && n-- == 0)
            break;
    return i;
}

void sheet_print(const json_t *sheet, FILE *f)
{
    size_t cols = sheet_n_cols(sheet), rows = sheet_n_rows(sheet), term = terminal_width(f);
    if (cols == 0)
        return;
    CLEANUP(freep) size_t *width = calloc(cols, sizeof(*width));
    CLEANUP(freep) const char **names = calloc(cols, sizeof(*names));
    if (!width || !names)
        return;
    char room[CELL_LEN];
    for (size_t c = 0; c < cols; c++) {
        names[c] = json_string_value(json_array_get(json_object_get(sheet, "columns"), c));
        if (!names[c])
            names[c] = "?";
        width[c] = chars(names[c]);
        for (size_t r = 0; r < rows; r++) {
            const char *s = cell_text(sheet_cell(sheet, r, (int)c), room);
            size_t w = looks_like_id(s) ? ID_SHOWN : chars(s);
            if (w > width[c])
                width[c] = w;
        }
    }
    while (term) {
        size_t sum = 0, widest = 0;
        for (size_t c = 0; c < cols; c++) {
            sum += width[c] + (c ? 2 : 0);
            if (width[c] > width[widest])
                widest = c;
        }
        if (sum <= term || cols == 1)
            break;
        if (width[widest] > 24) /* long words are cut first, then the last columns go */
            width[widest] -= width[widest] - 24 < sum - term ? width[widest] - 24 : sum - term;
        else
            cols--;
    }
    struct table *t = table_new(names, cols);
    for (size_t r = 0; t && r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            const char *s = cell_text(sheet_cell(sheet, r, (int)c), room);
            if (looks_like_id(s))
                table_cell(t, "%.*s", ID_SHOWN, s);
            else if (chars(s) > width[c])
                table_cell(t, "%.*s~", (int)bytes_of(s, width[c] - 1), s);
            else
                table_cell(t, "%s", s);
        }
    if (t)
        table_print(t, f);
    table_free(&t);
}
