#include "proto/format/row.h"

#include <endian.h>
#include <string.h>

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
