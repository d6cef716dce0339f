#include "deploy/release.h"

#include <gnu/libc-version.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collect/kit.h"
#include "deploy/embed.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

int release_make(struct release *ret, struct err *e)
{
    *ret = (struct release){ .glibc = "" };
    char self[PATH_MAX];
    if (!realpath("/proc/self/exe", self))
        return err_sys(e, errno, "/proc/self/exe");
    CLEANUP(freep)
    char *shim = path_fmt("%.*s/siofleet-shim", (int)(strrchr(self, '/') - self), self);
    if (!shim)
        return err_sys(e, ENOMEM, "release");
    CLEANUP(pack_list_clear) struct pack_list l = { .n = 0 };
    pack_add(&l, "siofleet", self, 0755);
    pack_add(&l, "siofleet-shim", shim, 0755);
    pack_add_text(&l, "run.sh", embed_run, embed_run_n, 0644);
    pack_add_text(&l, "supervise.sh", embed_supervise, embed_supervise_n, 0644);
    int r = pack_add_libs(&l, "lib", NULL, e);
    snprintf(ret->glibc, sizeof(ret->glibc), "%s", gnu_get_libc_version());
    return r < 0 ? r : pack_make(&l, &ret->pack, e);
}

void release_clear(struct release *r)
{
    pack_clear(&r->pack);
}

int release_collect(bool may_build, struct pack *ret, struct err *e)
{
    CLEANUP(kit_qemu_clear) struct kit_qemu qemu = { 0 };
    CLEANUP(freep) char *image = NULL, *real = NULL;
    int r = kit_qemu(may_build, &qemu, e);
    if (r == 0)
        r = kit_image(may_build, &image, e);
    if (r < 0)
        return r;
    /* .../qemu/HASH/bin/qemu-system-x86_64 and .../image/HASH */
    real = realpath(qemu.path, NULL);
    char *bin = real ? strstr(real, "/bin/qemu-system-") : NULL;
    if (!bin)
        return err_set(e, SF_EFAILED, "%s: lies in no folder of the cache", qemu.path);
    CLEANUP(pack_list_clear) struct pack_list l = { .n = 0 };
    r = pack_add_libs(&l, "lib", real, e);
    *bin = '\0';
    CLEANUP(freep) char *q = path_fmt("qemu/%s", strrchr(real, '/') + 1);
    CLEANUP(freep) char *i = path_fmt("image/%s", strrchr(image, '/') + 1);
    if (!q || !i)
        return err_sys(e, ENOMEM, "pack");
    if (r == 0)
        r = pack_add_tree(&l, q, real, "vtd-ring-bench", e);
    /* the initramfs of nested guests is made on the host, from what is in the pack */
    if (r == 0)
        r = pack_add_tree(&l, i, image, "nested-", e);
    return r < 0 ? r : pack_make(&l, ret, e);
}
