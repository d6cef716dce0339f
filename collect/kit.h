/* The scripts and patches that make QEMU and the guest image, carried inside the program: a host needs no checkout.
 * They are unpacked once into the cache and run from there. */
#pragma once
#include <stdbool.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"

struct kit_qemu {
    char *path;  /* binary; owned */
    char *share; /* firmware folder or NULL; owned */
    char version[64], series[72], hash[72];
    bool patched; /* has the trace ring */
};

/* The patched QEMU from the cache, built when it is not there (minutes; progress on stderr) unless !may_build: then
 * -SF_EFAILED naming the command. */
int kit_qemu(bool may_build, struct kit_qemu *ret, struct err *e);
/* Look at a given binary: -SF_EFAILED when it does not start or emulates no intel-iommu. */
int kit_look(const char *path, struct kit_qemu *ret, struct err *e);
/* Debian's own from PATH: -SF_EFAILED when there is none. */
int kit_stock(struct kit_qemu *ret, struct err *e);
void kit_qemu_clear(struct kit_qemu *q);

/* Folder of the guest image, and the cpio that gives L1 a QEMU of its own. Owned by the caller. */
int kit_image(bool may_build, char **ret, struct err *e);
int kit_nested(bool may_build, const char *qemu, char **ret, struct err *e);

/* A disk image of this Debian release with sshd, made by debootstrap. Owned by the caller. */
int kit_disk(bool may_build, char **ret, struct err *e);

/* Unpack into the cache (nothing to do when it is there); the folder, owned by the caller. */
int kit_unpack(char **ret, struct err *e);
