/* What every verb prints, and how: data on stdout, one error line on stderr, documents under
 * --json.
 *
 * A verb's run() gets a struct cli; it returns the exit status, usually through one of these.
 */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "proto/base/err.h"
#include "proto/base/opt.h"
#include "proto/lib/json.h"

struct cli {
    const struct verb *verb;
    bool json; /* a verb sets it from its own --json or --jsonl before it can fail */
};

/* Report e: the line `siofleet: PLACE: CAUSE`, and under --json the siofleet.error/1 document.
 * Returns the exit status. */
int cli_fail(const struct cli *c, const struct err *e);

/* The same for an error made on the spot. code as in err_set(). */
int cli_failf(const struct cli *c, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* One document and LF on stdout; doc (taken) must have "schema" first. Returns 0, or 1 when stdout
 * is closed or full. */
int cli_json(const struct cli *c, json_t *doc);
/* One compact object and LF: a line of --jsonl. doc is taken. */
int cli_jsonl(const struct cli *c, json_t *doc);
/* The last line of --jsonl. Returns exit_status. */
int cli_jsonl_end(const struct cli *c, int exit_status);

/* fflush(stdout) with a check: a full disk behind a redirect must not pass for success. */
int cli_flush(const struct cli *c);

/* A table with aligned columns: numbers to the right, words to the left. Rows are added cell by
 * cell. */
struct table;
struct table *table_new(const char *const names[], size_t n); /* NULL without memory */
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(const struct table *t, FILE *f);
void table_free(struct table **t);

/* RFC 4180: append one cell, quoted where it must be, to f. */
void csv_cell(FILE *f, const char *s, bool last);

/* A progress line on stderr: redrawn on a terminal, at most one plain line every 2 s otherwise;
 * rate and ETA from the first call on. done <= total; total 0 = unknown. */
struct progress {
    const char *what;
    uint64_t start_ms, last_ms, first_done;
    bool tty, shown;
};
void progress_start(struct progress *p, const char *what);
void progress_step(struct progress *p, uint64_t done, uint64_t total);
void progress_end(struct progress *p); /* ends the terminal line */
