#include "proto/format/row.h"

#include <endian.h>
#include <string.h>

#include "proto/format/frame.h"

const char *const row_stats_names[ROW_STATS_N] = {
#define X(name) #name,
    ROW_STATS(X)
#undef X
};

void row_stats_pack(const struct row_stats *s, uint8_t out[ROW_STATS_BYTES])
{
    const uint64_t *v = (const uint64_t *)(const void *)s;
    for (unsigned i = 0; i < ROW_STATS_N; i++)
        for (unsigned b = 0; b < 8; b++)
            out[8 * i + b] = (uint8_t)(v[i] >> (8 * b));
}

int row_stats_unpack(const void *p, size_t n, struct row_stats *ret, struct err *e)
{
    if (n > ROW_STATS_BYTES || n % 8)
        return err_set(e, SF_EINTEGRITY, "row: %zu bytes, expected %d", n, (int)ROW_STATS_BYTES);
    uint64_t *v = (uint64_t *)(void *)ret;
    memset(ret, 0, sizeof(*ret));
    if (n)
        memcpy(v, p, n);
    for (size_t i = 0; i < n / 8; i++)
        v[i] = le64toh(v[i]);
    return 0;
}

_Static_assert(ROW_STATS_N <= 64, "one word of bits");

size_t row_stats_shorten(const struct row_stats *s, uint8_t out[ROW_STATS_SHORT_MAX])
{
    const uint64_t *v = (const uint64_t *)(const void *)s;
    uint64_t bits = 0;
    for (unsigned i = 0; i < ROW_STATS_N; i++)
        bits |= (uint64_t)(v[i] != 0) << i;
    uint8_t *p = out + 1;
    for (uint64_t left = bits; left; left >>= 8)
        *p++ = (uint8_t)left;
    out[0] = (uint8_t)(p - out - 1);
    for (; bits; bits &= bits - 1)
        p += put_var(p, v[__builtin_ctzll(bits)]);
    return (size_t)(p - out);
}

bool row_stats_lengthen(const uint8_t **p, const uint8_t *end, struct row_stats *ret)
{
    uint64_t *v = (uint64_t *)(void *)ret, bits = 0, num = 0;
    if (*p == end)
        return false;
    size_t n = *(*p)++;
    if (n > (ROW_STATS_N + 7) / 8 || n > (size_t)(end - *p) || (n && !(*p)[n - 1]))
        return false;
    for (size_t i = 0; i < n; i++)
        bits |= (uint64_t) * (*p)++ << 8 * i;
    if (ROW_STATS_N < 64 && bits >> ROW_STATS_N)
        return false;
    if (ret)
        memset(ret, 0, sizeof(*ret));
    for (; bits; bits &= bits - 1) {
        /* a last byte of 0: the number is 0, or longer than it need be */
        if (!get_var(p, end, &num) || !(*p)[-1])
            return false;
        if (ret)
            v[__builtin_ctzll(bits)] = num;
    }
    return true;
}
