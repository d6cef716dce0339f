/* INI documents: [section] or [section NAME], key = value, # and ; comments, LF or CRLF (libinih
 * reads the lines).
 *
 * The whole document is kept with line numbers, so that a later check can say "file:line: ...". A
 * doubled key, a line that is neither, and a section name that stands twice are refused while
 * reading.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"

struct ini_key {
    char *name, *value;
    int line;
};

struct ini_section {
    char *name; /* "trace" of [trace NAME] */
    char *arg;  /* "NAME", or "" */
    int line;
    struct ini_key *keys;
    size_t n_keys;
};

struct ini {
    char *path;                   /* as given: named in errors */
    struct ini_section *sections; /* in file order */
    size_t n_sections;
};

/* -SF_EUSAGE with file:line, -errno when unreadable; at most 1 MiB, 4096 bytes a line. Owned by the
 * caller. */
int ini_load(const char *path, struct ini **ret, struct err *e);
int ini_text(const char *path, const char *text, struct ini **ret, struct err *e);
/* The same for files that need no section: keys before any [section] belong to `section` (NULL: are refused). */
int ini_load_flat(const char *path, const char *section, struct ini **ret, struct err *e);
void ini_free(struct ini **ini);

const struct ini_section *ini_section(const struct ini *ini, const char *name,
                                      const char *arg);            /* NULL = none */
const char *ini_get(const struct ini_section *s, const char *key); /* NULL = absent */

/* "path:line" of a key or section into a static thread-local buffer: the place of an error. */
const char *ini_place(const struct ini *ini, int line);

/* Path relative to the INI's folder unless absolute. Owned by the caller. */
char *ini_path(const struct ini *ini, const char *value);
