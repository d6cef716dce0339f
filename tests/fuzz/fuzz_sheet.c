/* Any bytes as a file of results: what is taken is printed, digested and drawn; the CSV of a sheet reads back as the
 * same CSV, and a picture holds no markup of the input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/chart.h"
#include "coordinator/cli/sheet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char *csv(const json_t *sheet, size_t *ret_n)
{
    char *s = NULL;
    FILE *f = open_memstream(&s, ret_n);
    if (!f)
        abort();
    sheet_csv_head(json_object_get(sheet, "columns"), f);
    for (size_t i = 0; i < sheet_n_rows(sheet); i++)
        sheet_csv_row(json_array_get(json_object_get(sheet, "rows"), i), f);
    fclose(f);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1);
    if (!text)
        return 0;
    memcpy(text, data, n);
    text[n] = '\0';
    json_t *sheet = NULL, *again = NULL;
    struct err e;
    if (sheet_parse("fuzz", text, n, &sheet, &e) >= 0) {
        size_t n1, n2;
        char *one = csv(sheet, &n1);
        if (*text != '{') {
            if (sheet_parse("fuzz", one, n1, &again, &e) < 0)
                abort();
            char *two = csv(again, &n2);
            if (n1 != n2 || memcmp(one, two, n1) != 0)
                abort();
            free(two);
            json_decref(again);
        }
        free(one);
        json_t *d = sheet_digest(sheet, 100, true);
        char *out = NULL;
        size_t out_n;
        FILE *f = open_memstream(&out, &out_n);
        if (f) {
            sheet_print(d, f);
            fclose(f);
        }
        free(out);
        json_decref(d);
        const char *x = json_string_value(json_array_get(json_object_get(sheet, "columns"), 0));
        const char *y = json_string_value(json_array_get(json_object_get(sheet, "columns"), 1));
        struct chart c = { 0 };
        struct chart_want w = { .x = x, .y = y };
        struct buf b = BUF_INIT(PLOT_SVG_MAX);
        if (x && y && chart_make(sheet, &w, &c, &e) >= 0 &&
            chart_page(&c, sheet, x, y, x, &b, &e) >= 0 && b.data && strstr((char *)b.data, "<script"))
            abort();
        chart_clear(&c);
        buf_clear(&b);
        json_decref(sheet);
    }
    free(text);
    return 0;
}
