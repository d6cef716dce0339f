/* Instead of proto/wire/version.c in siofleet-protocol: a program of another protocol version, to stand beside one of ours.
 * Never part of siofleet. */
#include <stdlib.h>

#include "proto/wire/msg.h"

unsigned wire_version(void)
{
    const char *s = getenv("SIOFLEET_TEST_PROTOCOL");
    return s ? (unsigned)strtoul(s, NULL, 10) : WIRE_VERSION;
}
