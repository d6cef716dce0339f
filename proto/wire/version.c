/* Alone in its file, so that a test can link another protocol version in its place. */
#include "proto/wire/msg.h"

unsigned wire_version(void)
{
    return WIRE_VERSION;
}
