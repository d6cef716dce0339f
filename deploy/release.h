/* What is sent to hosts. Both are named by their content, so that nothing is sent that is there already.
 *
 * A release is what every agent needs and Debian's glibc does not bring:
 *     siofleet  siofleet-shim  run.sh  supervise.sh  lib/libzmq.so.5 ...
 * The program looks for its libraries in lib/ beside it first, so nothing is installed on the host.
 *
 * A collection pack is what hosts with collect=yes need beside it, in the layout of collect's cache:
 *     qemu/HASH/...  image/HASH/...  lib/   libraries that QEMU needs and the host may lack
 */
#pragma once
#include <stdbool.h>

#include "deploy/pack.h"

struct release {
    struct pack pack;
    char glibc[16]; /* the oldest one it runs with, "2.36" */
};

/* This program, its shim (which must lie beside it) and the shared libraries this process has loaded, except those of
 * glibc. */
int release_make(struct release *ret, struct err *e);
void release_clear(struct release *r);

/* The patched QEMU with its firmware, and the guest image. may_build: prepare here what is not in this machine's cache
 * yet (minutes; as `collect --local` would); else -SF_EFAILED. */
int release_collect(bool may_build, struct pack *ret, struct err *e);
