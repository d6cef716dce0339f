/* A RUN.ini as others can run it: on another host, tomorrow, or not at all because the run was made already. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"

enum { COLLECT_FILES_MAX = 8 };

struct collect_recipe {
    /* Every key that counts, the profile's own included, sorted: two files that mean the same give the same text. Without
     * runs=, and without those of `file`. qemu= stays a path of the host that runs it. Owned. */
    char *ini;
    char profile[16];
    uint64_t runs;
    uint64_t cores;      /* that a run keeps busy; it also runs on fewer */
    uint64_t memory_mib; /* that a run needs of its host */
    uint64_t
        takes_ms; /* a run, at most: timeout=, or duration= and the guests' start; 0 = not said */
    bool kvm;     /* only with a usable KVM */
    bool own_all; /* its QEMU and guest are all the user's: nothing needs to be prepared */
    struct {
        char key[16]; /* kernel, initrd, disk, script */
        char *path;   /* owned */
    } file[COLLECT_FILES_MAX];
    size_t n_files;
};

/* -SF_EUSAGE with file:line for what is no run. collect_recipe_clear() in any case. */
int collect_recipe_load(const char *path, struct collect_recipe *ret, struct err *e);
void collect_recipe_clear(struct collect_recipe *r);

/* What this host can do for a collection, told from its files in no time:
 * ready  the patched QEMU and the guest image are in the cache
 * can    they can be made here: the tools are there
 * no     neither */
enum collect_ability { COLLECT_IS_READY, COLLECT_CAN_BUILD, COLLECT_CANNOT };
enum collect_ability collect_ability(void);
const char *collect_ability_name(enum collect_ability a); /* "ready", "can", "no" */
