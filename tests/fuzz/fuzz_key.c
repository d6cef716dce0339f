/* Any bytes as a key file, public or secret. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/link/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct key_pub pub;
    struct key_pair pair;
    struct err e;
    int r = key_parse_pub((const char *)data, n, "fuzz", &pub, &e);
    /* a name becomes a file name: it must never lead elsewhere */
    if (r == 0 &&
        (strlen(pub.z85) != 40 || !pub.name[0] || pub.name[0] == '.' || strchr(pub.name, '/')))
        abort();
    r = key_parse((const char *)data, n, "fuzz", &pair, &e);
    if (r == 0 && strlen(pair.secret) != 40)
        abort();
    return 0;
}
