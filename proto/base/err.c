#include "proto/base/err.h"

#include <stdio.h>
#include <string.h>

static void put(struct err *e, int code, const char *fmt, va_list ap)
{
    e->code = code;
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    /* one line, whatever bytes a hostile name held */
    for (char *p = e->text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        put(e, code, fmt, ap);
        va_end(ap);
    }
    return -code;
}

int err_sys(struct err *e, int code, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        put(e, code, fmt, ap);
        va_end(ap);
        size_t n = strlen(e->text);
        snprintf(e->text + n, sizeof(e->text) - n, ": %s", strerror(code));
    }
    return -code;
}

int err_wrap(struct err *e, int r, const char *fmt, ...)
{
    if (e) {
        struct err inner = *e;
        va_list ap;
        va_start(ap, fmt);
        put(e, inner.code ? inner.code : (r < 0 ? -r : r), fmt, ap);
        va_end(ap);
        size_t n = strlen(e->text);
        snprintf(e->text + n, sizeof(e->text) - n, "%s%s", n ? ": " : "", inner.text);
    }
    return r;
}

int err_place(struct err *e, int r, const char *from, const char *to)
{
    size_t n = strlen(from);
    if (!e || !n || strncmp(e->text, from, n) != 0 || e->text[n] != ':')
        return r;
    struct err inner = *e;
    const char *rest = inner.text + n;
    if (!*to)
        rest += strspn(rest, ": ");
    snprintf(e->text, sizeof(e->text), "%s%s", to, rest);
    return r;
}

static const struct {
    int code, exit;
    const char *name;
} codes[] = {
    { SF_EUSAGE, 2, "USAGE" },         { SF_EFORMAT, 1, "FORMAT" },
    { SF_EINTEGRITY, 4, "INTEGRITY" }, { SF_ENOFLEET, 3, "NO_COORDINATOR" },
    { SF_EREFUSED, 3, "REFUSED" },     { SF_EFAILED, 1, "FAILED" },
    { ECANCELED, 5, "CANCELLED" },     { EINTR, 5, "CANCELLED" },
    { ETIMEDOUT, 1, "DEADLINE" },      { ENOSPC, 1, "NO_SPACE" },
    { EADDRINUSE, 1, "PORT_IN_USE" },  { EWOULDBLOCK, 1, "LOCKED" },
    { ENOENT, 1, "NOT_FOUND" },        { EACCES, 1, "NO_PERMISSION" },
    { EEXIST, 1, "EXISTS" },           { ENOMEM, 1, "NO_MEMORY" },
};

int err_exit(int code)
{
    if (code == 0)
        return 0;
    if (code < 0)
        code = -code;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].code == code)
            return codes[i].exit;
    return 1;
}

const char *err_name(int code)
{
    if (code < 0)
        code = -code;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].code == code)
            return codes[i].name;
    const char *s = strerrorname_np(code);
    return s ? s : "ERROR";
}
