/* A release: what an agent's host needs and Debian's glibc does not bring, as one pack named by its content.
 *
 *     siofleet  siofleet-shim  run-agent.sh  supervise.sh  lib/libzmq.so.5 ...
 *
 * The program looks for its libraries in lib/ beside it first, so nothing is installed on the host.
 */
#pragma once
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"

struct release {
    char id[17];     /* first 16 digits of the hash over all names and contents */
    char sha256[65]; /* of the pack file: coreutils on the host can check it */
    char *pack;      /* .tgz in the cache; owned */
    uint64_t pack_b;
    char glibc[16];   /* the oldest one it runs with, "2.36" */
    char version[32]; /* of siofleet */
};

/* Pack this program, its shim (which must lie beside it) and the shared libraries this process has loaded, except
 * those of glibc. Reuses the pack of an earlier call. program: NULL = this one; else another siofleet, whose folder holds
 * its shim. */
int release_make(const char *program, struct release *ret, struct err *e);
void release_clear(struct release *r);
