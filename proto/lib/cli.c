#include "proto/lib/cli.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"

int cli_fail(const struct cli *c, const struct err *e)
{
    int status = err_exit(e->code);
    fflush(stdout);
    fprintf(stderr, "siofleet: %s\n", e->text[0] ? e->text : err_name(e->code));
    if (c && c->json) {
        /* the place ends at the first ": "; a file:line keeps its colon, since no blank follows it
         */
        const char *cut = strstr(e->text, ": ");
        CLEANUP(freep) char *at = cut ? strndup(e->text, (size_t)(cut - e->text)) : NULL;
        json_t *doc = json_object();
        json_object_set_new(doc, "schema", json_string("siofleet.error/1"));
        json_object_set_new(doc, "exit", json_integer(status));
        json_object_set_new(doc, "code", json_string(err_name(e->code)));
        json_object_set_new(doc, "message", json_str(cut ? cut + 2 : e->text));
        json_object_set_new(doc, "place", json_str(at));
        char *s = json_dumps(doc, JSON_COMPACT);
        if (s)
            puts(s);
        free(s);
        json_decref(doc);
        fflush(stdout);
    }
    return status;
}

int cli_failf(const struct cli *c, int code, const char *fmt, ...)
{
    struct err e = { .code = code };
    char text[sizeof(e.text)];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err_set(&e, code, "%s", text);
    return cli_fail(c, &e);
}

int cli_flush(const struct cli *c)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    struct err e;
    int code = errno;
    if (ferror(stdout)) { /* an earlier write failed and its reason is gone: one more byte tells */
        clearerr(stdout);
        errno = 0;
        code = (fputc('\n', stdout) == EOF || fflush(stdout) == EOF) && errno ? errno : EIO;
    }
    err_sys(&e, code ? code : EIO, "standard output");
    struct cli quiet = { .verb = c ? c->verb : NULL };
    return cli_fail(&quiet, &e);
}

static int dump(const struct cli *c, json_t *doc, size_t flags)
{
    CLEANUP(freep) char *s = json_dumps(doc, flags);
    json_decref(doc);
    if (!s)
        return cli_failf(c, ENOMEM, "output: not representable as JSON");
    fputs(s, stdout);
    fputc('\n', stdout);
    return cli_flush(c);
}

int cli_json(const struct cli *c, json_t *doc)
{
    return dump(c, doc, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
}

int cli_jsonl(const struct cli *c, json_t *doc)
{
    return dump(c, doc, JSON_COMPACT | JSON_PRESERVE_ORDER);
}

int cli_jsonl_end(const struct cli *c, int exit_status)
{
    int r = cli_jsonl(c, json_pack("{s:s, s:i}", "schema", "siofleet.end/1", "exit", exit_status));
    return r ? r : exit_status;
}

/* ---- tables */

struct table {
    size_t cols, n, room;
    char **cells; /* row-major, the header first */
};

static void add_cell(struct table *t, char *s)
{
    if (t->n == t->room) {
        size_t room = t->room ? t->room * 2 : 64;
        char **v = realloc(t->cells, room * sizeof(*v));
        if (!v) {
            free(s);
            return;
        }
        t->cells = v;
        t->room = room;
    }
    t->cells[t->n++] = s;
}

struct table *table_new(const char *const names[], size_t n)
{
    struct table *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->cols = n;
    for (size_t i = 0; i < n; i++)
        add_cell(t, strdup(names[i]));
    return t;
}

void table_cell(struct table *t, const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        s = NULL;
    va_end(ap);
    for (char *p = s; p && *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    add_cell(t, s);
}

static bool numeric(const char *s)
{
    return s && *s && strspn(s, "0123456789.,%-+") == strlen(s);
}

void table_print(const struct table *t, FILE *f)
{
    size_t rows = t->cols ? t->n / t->cols : 0;
    CLEANUP(freep) size_t *width = calloc(t->cols + 1, sizeof(*width));
    CLEANUP(freep) bool *right = calloc(t->cols + 1, sizeof(*right));
    if (!width || !right)
        return;
    for (size_t c = 0; c < t->cols; c++) {
        right[c] = rows > 1;
        for (size_t r = 0; r < rows; r++) {
            const char *s = t->cells[r * t->cols + c];
            size_t w = s ? strlen(s) : 0;
            if (w > width[c])
                width[c] = w;
            if (r && !numeric(s) && w)
                right[c] = false;
        }
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < t->cols; c++) {
            const char *s = t->cells[r * t->cols + c];
            bool last = c + 1 == t->cols;
            fprintf(f, "%*s%s",
                    right[c] ? (int)width[c]
                    : last   ? 0
                             : -(int)width[c],
                    s ? s : "", last ? "\n" : "  ");
        }
    }
}

void table_free(struct table **tp)
{
    struct table *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

void csv_cell(FILE *f, const char *s, bool last)
{
    /* what begins with a brace would be taken for JSON where a file of results is read */
    if (strpbrk(s, ",\"\r\n") || *s == '{') {
        fputc('"', f);
        for (; *s; s++) {
            if (*s == '"')
                fputc('"', f);
            fputc(*s, f);
        }
        fputc('"', f);
    } else {
        fputs(s, f);
    }
    fputc(last ? '\n' : ',', f);
}

/* ---- progress */

void progress_start(struct progress *p, const char *what)
{
    *p = (struct progress){ .what = what,
                            .start_ms = clock_mono_ms(),
                            .tty = isatty(STDERR_FILENO) == 1 };
    p->first_done = UINT64_MAX;
    p->last_ms = p->tty ? 0 : p->start_ms; /* what is over at once needs no line in a log */
}

void progress_step(struct progress *p, uint64_t done, uint64_t total)
{
    uint64_t now = clock_mono_ms();
    if (p->first_done == UINT64_MAX)
        p->first_done = done;
    bool whole = total && done >= total;
    uint64_t every = p->tty ? 100 : 2000;
    if (!whole && now - p->last_ms < every)
        return;
    p->last_ms = now;
    p->shown = true;
    double s = (double)(now - p->start_ms) / 1000.0;
    double rate = s > 0.05 ? (double)(done - p->first_done) / s : 0;
    char speed[32] = "", eta[48] = "";
    if (rate > 0)
        snprintf(speed, sizeof(speed), ", %.*f/s", rate < 10 ? 1 : 0, rate);
    if (total && rate > 0 && done < total)
        snprintf(eta, sizeof(eta), ", %.0f s left", (double)(total - done) / rate);
    char bar[32] = "";
    if (p->tty && total) {
        int n = (int)(20 * done / total);
        bar[0] = '[';
        for (int i = 0; i < 20; i++)
            bar[1 + i] = i < n ? '#' : '.';
        memcpy(bar + 21, "] ", 3);
    }
    fprintf(stderr, "%s%s: %s%" PRIu64 "/%" PRIu64 "%s%s%s", p->tty ? "\r\033[K" : "", p->what, bar,
            done, total, speed, eta, p->tty ? "" : "\n");
    fflush(stderr);
}

void progress_end(struct progress *p)
{
    if (p->tty && p->shown)
        fputc('\n', stderr);
    p->shown = false;
}
