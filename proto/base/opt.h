/* Option and verb tables: one table a verb gives parsing, --help, shell completion and the man
 * page.
 *
 * Parsing is getopt_long's. glibc's argp is not used: it prints two lines of its own on a wrong
 * option and offers no hook to replace them, while scripts rely on exactly one line `siofleet:
 * PLACE: CAUSE`.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"

enum opt_kind {
    OPT_FLAG,  /* bool */
    OPT_STR,   /* const char *, borrowed from argv */
    OPT_U64,   /* struct opt_u64: decimal within min..max */
    OPT_SIZE,  /* struct opt_u64: bytes, K M G T */
    OPT_MS,    /* struct opt_u64: ms, from 500ms 10s 5m 2h */
    OPT_MULTI, /* struct opt_multi: may be repeated */
};

struct opt_u64 {
    uint64_t v;
    int set; /* 1 = given by the user */
};

struct opt_multi {
    const char **v; /* owned by the parser, freed by opt_free() */
    size_t n;
};

struct opt {
    const char *name; /* long name without dashes; ends the table when NULL */
    char letter;      /* short form, 0 = none */
    const char *arg;  /* placeholder in help, NULL for a flag */
    const char *help;
    enum opt_kind kind;
    size_t off;        /* offset of the destination in the verb's option struct */
    uint64_t min, max; /* for OPT_U64; max 0 = no limit */
};

struct cli; /* proto/lib/cli.h: output and errors of one verb call */

struct verb {
    const char *name;       /* one or two words: "perf run"; ends a table when NULL */
    const char *args;       /* after the options: "TRACE..." or "" */
    const char *summary;    /* one line, no full stop */
    const char *details;    /* paragraphs for --help, may be NULL */
    const char *examples;   /* command lines with a comment each, for --help */
    const struct opt *opts; /* NULL = none */
    size_t opts_size;       /* bytes of the option struct; given zeroed to run() */
    int min_args, max_args; /* positional arguments; max_args -1 = any */
    int stop_at_first; /* 1: everything from the first positional belongs to the command (exec) */
    /* o: option struct, filled. Returns the exit status. */
    int (*run)(struct cli *c, void *o, int argc, char **argv);
};

/* Parse argv[0..argc) (argv[0] = first word after the verb) into the zeroed struct at o.
 * On success *ret_args points at the positional arguments (permuted inside argv). Returns their
 * number or -SF_EUSAGE; an empty one is refused, but in a command (stop_at_first). --help is not handled here. Not thread-safe (getopt). */
int opt_parse(const struct verb *v, void *o, int argc, char **argv, char ***ret_args,
              struct err *e);
void opt_free(const struct verb *v, void *o);
