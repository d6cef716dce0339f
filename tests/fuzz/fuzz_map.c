/* Any bytes as the map of a put that is not whole. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/cas/map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct cas_map m;
    struct err e;
    if (cas_map_parse(data, n, &m, &e) < 0)
        return 0;
    struct buf b = BUF_INIT(n);
    for (uint64_t i = 0; i < m.n; i++)
        cas_map_get(&m, i);
    if (cas_map_pack(&m, &b) < 0 || b.len != n || memcmp(b.data, data, n))
        abort();
    buf_clear(&b);
    cas_map_clear(&m);
    return 0;
}
