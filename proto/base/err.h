/* Errors: a negative errno plus one line of text, on the caller's stack.
 *
 * Functions return 0 or more on success and a negative errno on failure, and say why in *e.
 * Libraries return, main and message loops print, once. The text has the form "PLACE: CAUSE": the
 * file with its line, the option, the host or the id comes first, so that the line can be read on
 * another machine.
 */
#pragma once
#include <errno.h>
#include <stdarg.h>

/* Codes of ours beside errno's: they choose the exit status, see err_exit(). All are positive, like
 * errno. */
enum {
    SF_EUSAGE = 10001,  /* wrong option, key or value; nothing was started */
    SF_EFORMAT = 10002, /* input not understood, empty, or of another version */
    SF_EINTEGRITY =
        10003,           /* checksum, truncation or bit flip in a format of ours; results differ */
    SF_ENOFLEET = 10004, /* no coordinator answers */
    SF_EREFUSED = 10005, /* key, role or protocol version refused */
    SF_EFAILED = 10006,  /* the work itself failed */
};

struct err {
    int code;       /* positive errno or SF_E*; 0 = none */
    char text[512]; /* "PLACE: CAUSE", no final newline */
};

/* Fill *e (may be NULL). code: positive. Returns -code, so that `return err_set(...)` reads well.
 * Never allocates. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, with ": strerror(code)" appended. */
int err_sys(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "prefix: " in front of the text in *e (may be NULL). Returns r unchanged. */
int err_wrap(struct err *e, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Where the text in *e (may be NULL) begins with the place `from`, call that place `to`; "" = leave it out, the caller's
 * caller names it. For files that the reader knows by another name. Returns r unchanged. */
int err_place(struct err *e, int r, const char *from, const char *to);

/* Exit status of the contract for a code (positive or negative): 0..5. */
int err_exit(int code);

/* Short upper-case name of a code for machine-readable errors ("USAGE", "ENOSPC"); static storage.
 */
const char *err_name(int code);
