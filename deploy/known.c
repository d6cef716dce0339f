#include "deploy/known.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/clean.h"

#define BLANKS " \t"

bool known_parse(const char *line, struct known_line *ret)
{
    static const char *const marks[] = {
        [KNOWN_REVOKED] = "@revoked", [KNOWN_AUTHORITY] = "@cert-authority"
    };
    *ret = (struct known_line){ .mark = KNOWN_KEY };
    line += strspn(line, BLANKS);
    if (*line == '@') {
        size_t n = strcspn(line, BLANKS);
        for (size_t i = KNOWN_REVOKED; i < ARRAY_LEN(marks); i++)
            if (strlen(marks[i]) == n && !strncmp(line, marks[i], n))
                ret->mark = i;
        if (ret->mark == KNOWN_KEY)
            return false;
        line += n + strspn(line + n, BLANKS);
    }
    ret->hosts = line;
    ret->hosts_n = strcspn(line, BLANKS);
    ret->key = line + ret->hosts_n + strspn(line + ret->hosts_n, BLANKS);
    return *line && *line != '#' && *ret->key;
}

bool known_hashed(const struct known_line *k)
{
    return k->hosts[0] == '|';
}

/* pattern: n characters with * and ?, in any case. */
static bool fits(const char *pattern, size_t n, const char *s)
{
    for (; n && *pattern != '*'; pattern++, n--, s++)
        if (!*s ||
            (*pattern != '?' && tolower((unsigned char)*pattern) != tolower((unsigned char)*s)))
            return false;
    if (!n)
        return !*s;
    while (n && *pattern == '*')
        pattern++, n--;
    for (; n && *s; s++)
        if (fits(pattern, n, s))
            return true;
    return !n;
}

bool known_names(const struct known_line *k, const char *address, uint64_t port)
{
    char with_port[300];
    snprintf(with_port, sizeof(with_port), "[%s]:%u", address, (unsigned)port);
    bool named = false;
    const char *end = k->hosts + k->hosts_n;
    for (const char *p = k->hosts; p < end;) {
        size_t n = strcspn(p, ",");
        if (p + n > end)
            n = (size_t)(end - p);
        bool not = *p == '!';
        if (fits(p + not, n - not, address) || fits(p + not, n - not, with_port)) {
            if (not )
                return false;
            named = true;
        }
        p += n + 1;
    }
    return named;
}

bool known_same_kind(const struct known_line *k, const void *raw, size_t n)
{
    const uint8_t *b = raw;
    size_t kind = strcspn(k->key, BLANKS);
    return n >= 4 + kind && !b[0] && !b[1] && ((size_t)b[2] << 8 | b[3]) == kind &&
           !memcmp(b + 4, k->key, kind);
}
