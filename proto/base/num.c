#include "proto/base/num.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Digits at *s into *ret; *s moves behind them. Returns 0, or -ERANGE (over 64 bits), -EINVAL (no digit). */
static int digits(const char **s, uint64_t *ret)
{
    uint64_t v = 0;
    const char *p = *s;
    if (*p < '0' || *p > '9')
        return -EINVAL;
    bool over = false;
    for (; *p >= '0' && *p <= '9'; p++)
        over |= __builtin_mul_overflow(v, 10u, &v) ||
                __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v);
    *s = p;
    *ret = v;
    return over ? -ERANGE : 0;
}

int num_u64(const char *s, uint64_t lo, uint64_t hi, const char *place, uint64_t *ret,
            struct err *e)
{
    uint64_t v;
    const char *p = s;
    int r = digits(&p, &v);
    if (r == -EINVAL || *p)
        return err_set(e, SF_EUSAGE, "%s: '%.64s' is not a whole number", place, s);
    if (r < 0 || v < lo || v > hi)
        return err_set(e, SF_EUSAGE, "%s: %.64s is not in %" PRIu64 "..%" PRIu64, place, s, lo, hi);
    *ret = v;
    return 0;
}

static int scaled(const char *s, const char *const names[], const uint64_t factors[],
                  const char *what, const char *place, uint64_t *ret, struct err *e)
{
    uint64_t v;
    const char *p = s;
    int r = digits(&p, &v);
    if (r == 0)
        for (int i = 0; names[i]; i++)
            if (!strcmp(p, names[i])) {
                if (__builtin_mul_overflow(v, factors[i], &v))
                    break;
                *ret = v;
                return 0;
            }
    return err_set(e, SF_EUSAGE, "%s: '%.64s' is not %s", place, s, what);
}

int num_size(const char *s, const char *place, uint64_t *ret_b, struct err *e)
{
    static const char *const names[] = { "", "K", "M", "G", "T", NULL };
    static const uint64_t factors[] = { 1, 1ull << 10, 1ull << 20, 1ull << 30, 1ull << 40 };
    return scaled(s, names, factors, "a size (4096, 4K, 64M, 2G)", place, ret_b, e);
}

int num_ms(const char *s, const char *place, uint64_t *ret_ms, struct err *e)
{
    static const char *const names[] = { "ms", "s", "m", "h", NULL };
    static const uint64_t factors[] = { 1, 1000, 60000, 3600000 };
    return scaled(s, names, factors, "a time (500ms, 10s, 5m, 2h)", place, ret_ms, e);
}

int num_bool(const char *s, const char *place, uint64_t *ret, struct err *e)
{
    static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };
    for (unsigned i = 0; i < 8; i++)
        if (!strcmp(s, words[i])) {
            *ret = i & 1;
            return 0;
        }
    return err_set(e, SF_EUSAGE, "%s: '%.64s' is neither yes nor no", place, s);
}

char *num_ms_text(uint64_t ms, char out[NUM_MS_LEN])
{
    static const struct {
        uint64_t ms;
        char name[4];
    } units[] = { { 86400000, "d" }, { 3600000, "h" }, { 60000, "m" }, { 1000, "s" } };
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        uint64_t tenths = ms / (units[i].ms / 10);
        if (ms < units[i].ms)
            continue;
        if (tenths % 10)
            snprintf(out, NUM_MS_LEN, "%llu.%llu %s", (unsigned long long)(tenths / 10),
                     (unsigned long long)(tenths % 10), units[i].name);
        else
            snprintf(out, NUM_MS_LEN, "%llu %s", (unsigned long long)(tenths / 10), units[i].name);
        return out;
    }
    snprintf(out, NUM_MS_LEN, "%llu ms", (unsigned long long)ms);
    return out;
}
