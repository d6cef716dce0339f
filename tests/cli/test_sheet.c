#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cli/chart.h"
#include "coordinator/cli/sheet.h"

static json_t *load_text(const char *text, int want, struct err *e)
{
    char path[] = "sheet-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    json_t *j = NULL;
    int r = sheet_load(path, &j, e);
    unlink(path);
    cr_assert_eq(r, want, "%d: %s", r, r < 0 ? e->text : "");
    return j;
}

static char *csv(const json_t *sheet)
{
    char *s = NULL;
    size_t n;
    FILE *f = open_memstream(&s, &n);
    sheet_csv_head(json_object_get(sheet, "columns"), f);
    for (size_t i = 0; i < sheet_n_rows(sheet); i++)
        sheet_csv_row(json_array_get(json_object_get(sheet, "rows"), i), f);
    fclose(f);
    return s;
}

Test(sheet, csv_goes_in_and_out_unchanged)
{
    struct err e;
    const char *text = "name,index,mbps,note\n"
                       "\"a,b\",0,18446744073709551615,\"say \"\"hi\"\"\"\n"
                       "\"two\nlines\",1,,\n";
    json_t *j = load_text(text, 0, &e);
    cr_assert_eq(sheet_n_rows(j), 2);
    char *s = csv(j);
    cr_assert_str_eq(s, text);
    free(s);
    json_decref(j);
}

Test(sheet, a_document_and_its_csv_are_the_same_sheet)
{
    struct err e;
    json_t *a = load_text("{\"schema\":\"siofleet.results/1\",\"columns\":[\"x\",\"y\"],"
                          "\"rows\":[[1,\"18446744073709551615\"],[null,\"no\"]]}",
                          0, &e);
    char *s = csv(a);
    cr_assert_str_eq(s, "x,y\n1,18446744073709551615\n,no\n");
    free(s);
    json_decref(a);
}

Test(sheet, broken_files_are_refused_with_their_line)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        { "", "empty" },
        { "a,b\n1\n", ":2: number of cells differs" },
        { "a,b\n1,2\n\"x,2\n", "a quote is not closed" },
        { "a,b\n\"x\"y,2\n", ":2: text after a closing quote" },
        { "{\"columns\":[]}", "not a siofleet.results/1 document" },
        { "{\"columns\":[\"a\"],\"rows\":[1]}", "not a siofleet.results/1 document" },
        { "{\n\"rows\":", ":2: " },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err e;
        cr_assert_null(load_text(rows[i].text, -SF_EFORMAT, &e));
        cr_assert(strstr(e.text, rows[i].says), "'%s' says '%s'", rows[i].text, e.text);
    }
}

Test(sheet, numbers_are_told_from_words)
{
    static const struct {
        const char *text;
        bool number;
        double value;
    } rows[] = {
        { "12", true, 12 },  { "-1.5", true, -1.5 }, { "yes", true, 1 },  { "no", true, 0 },
        { "", false, 0 },    { "inf", false, 0 },    { "nan", false, 0 }, { "0x10", false, 0 },
        { "lru", false, 0 }, { "1e999", false, 0 },  { "--", false, 0 },  { "12 ", false, 0 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *j = json_string(rows[i].text);
        double v = 0;
        cr_expect_eq(cell_number(j, &v), rows[i].number, "'%s'", rows[i].text);
        cr_expect_eq(v, rows[i].number ? rows[i].value : v, "'%s'", rows[i].text);
        json_decref(j);
    }
}

static const char *const SWEEP =
    "name,index,tenants,queue,iotlb_entries,l2_groups,l3_groups,pf_entries,status,util_ppm\n"
    "s,0,4,1,64,1,1,0,done,900000\n"
    "s,1,120,1,64,1,1,0,done,100000\n"
    "s,2,4,32,64,32,64,8,done,990000\n"
    "s,3,120,32,64,32,64,8,done,980000\n"
    "s,4,4,1,128,1,1,0,done,950000\n"
    "s,5,120,1,128,1,1,0,done,200000\n"
    "s,6,4,32,128,32,64,8,done,995000\n"
    "s,7,120,32,128,32,64,8,failed,\n";

Test(chart, series_are_found_and_named_by_what_differs)
{
    struct err e;
    json_t *j = load_text(SWEEP, 0, &e);
    struct chart c;
    struct chart_want w = { .x = "tenants", .y = "util_ppm" };
    cr_assert_eq(chart_make(j, &w, &c, &e), 0, "%s", e.text);
    cr_assert_str_eq(c.series, "design,iotlb_entries");
    cr_assert_eq(c.plot.n, 4);
    cr_assert_str_eq(c.plot.series[0].name, "default, IOTLB 64");
    cr_assert_str_eq(c.plot.series[3].name, "hypertrio, IOTLB 128");
    cr_assert_eq(c.plot.series[0].hue, c.plot.series[1].hue);
    cr_assert_neq(c.plot.series[0].hue, c.plot.series[2].hue);
    cr_assert_eq(c.points, 7);
    cr_assert_eq(c.skipped, 1, "a failed point has no number");
    cr_assert_eq(c.shared, 0);
    cr_assert_str_eq(c.y_label, "link utilisation (%)");
    cr_assert_float_eq(c.plot.series[0].pt[0].y, 90, 1e-9);
    chart_clear(&c);
    json_decref(j);
}

Test(chart, points_on_one_mark_become_mean_and_bar)
{
    struct err e;
    json_t *j = load_text(SWEEP, 0, &e);
    struct chart c;
    struct chart_want w = { .x = "tenants", .y = "util_ppm", .series = "queue" };
    cr_assert_eq(chart_make(j, &w, &c, &e), 0, "%s", e.text);
    cr_assert_eq(c.plot.n, 2);
    struct plot_point p = c.plot.series[0].pt[0];
    cr_assert_float_eq(p.y, 92.5, 1e-9);
    cr_assert_float_eq(p.lo, 90, 1e-9);
    cr_assert_float_eq(p.hi, 95, 1e-9);
    cr_assert_eq(c.shared, 3);
    chart_clear(&c);
    json_decref(j);
}

Test(chart, wrong_columns_are_named)
{
    struct err e;
    json_t *j = load_text(SWEEP, 0, &e);
    static const struct {
        struct chart_want w;
        int code;
        const char *says;
    } rows[] = {
        { { .x = "tenant", .y = "util_ppm" },
          -SF_EUSAGE,
          "no column 'tenant'; there are: name index tenants" },
        { { .x = "tenants", .y = "util_ppm", .series = "queue,nope" },
          -SF_EUSAGE,
          "no column 'nope'" },
        { { .x = "design", .y = "util_ppm" }, -SF_EUSAGE, "--x" },
        { { .x = "status", .y = "util_ppm" }, -SF_EFORMAT, "no row has numbers" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct chart c;
        cr_assert_eq(chart_make(j, &rows[i].w, &c, &e), rows[i].code);
        cr_assert(strstr(e.text, rows[i].says), "%s", e.text);
        chart_clear(&c);
    }
    json_decref(j);
}

Test(chart, page_holds_picture_table_and_provenance)
{
    struct err e;
    json_t *j = load_text("tenants,mbps,agent,host\n1,10,n1,h1\n2,20,n2,h1\n3,30,n1,h1\n", 0, &e);
    struct chart c;
    struct chart_want w = { .x = "tenants", .y = "mbps", .series = "" };
    cr_assert_eq(chart_make(j, &w, &c, &e), 0, "%s", e.text);
    struct buf b = BUF_INIT(1 << 20);
    cr_assert_eq(chart_page(&c, j, "T", "lead", "[sweep]\nname = <x>\n", &b, &e), 0, "%s", e.text);
    char *s = (char *)b.data;
    cr_assert(strstr(s, "<svg"));
    cr_assert(strstr(s, "Where the numbers come from"));
    cr_assert(strstr(s, "<dt>host</dt><dd>h1</dd>"));
    cr_assert(strstr(s, "<pre>[sweep]\nname = &lt;x&gt;\n</pre>"));
    cr_assert(strstr(s, "<td>n1</td><td class=\"n\">2</td>"), "%s", s);
    cr_assert_not(strstr(s, "://"));
    buf_clear(&b);
    chart_clear(&c);
    json_decref(j);
}

Test(sheet, a_digest_names_a_preset_once_and_hides_what_repeats_it)
{
    struct err e;
    json_t *j = load_text(SWEEP, 0, &e);
    json_t *d = sheet_digest(j, 3, false);
    static const char *const want[] = { "index",         "tenants", "design",
                                        "iotlb_entries", "status",  "util_ppm" };
    cr_assert_eq(sheet_n_cols(d), sizeof(want) / sizeof(want[0]));
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        cr_expect_eq(sheet_col(d, want[i]), (int)i, "%s", want[i]);
    cr_assert_eq(sheet_n_rows(d), 3);
    char room[CELL_LEN];
    cr_assert_str_eq(cell_text(sheet_cell(d, 0, 2), room), "default");
    json_decref(d);
    json_decref(j);
}
