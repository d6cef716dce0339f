/* Files for hosts as one compressed archive, named by its content and kept in the cache. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"

struct pack {
    char id[17];     /* first 16 digits of the hash over all names and contents */
    char sha256[65]; /* of the archive: coreutils on the host can check it */
    char *path;      /* .tgz in the cache; owned */
    uint64_t size_b;
};

/* What goes into one. */
struct pack_list {
    struct pack_item {
        char *name;       /* inside the pack; owned */
        char *path;       /* file here, NULL: text; owned */
        const char *text; /* borrowed */
        size_t text_n;
        mode_t mode;
    } v[256];
    size_t n;
    bool full; /* something did not fit, or memory ran out: pack_make() refuses */
};
void pack_add(struct pack_list *l, const char *name, const char *path, mode_t mode);
void pack_add_text(struct pack_list *l, const char *name, const char *text, size_t n, mode_t mode);
/* The regular files of a folder and those below it, as PREFIX/...; skip: names starting so are left out, or NULL. */
int pack_add_tree(struct pack_list *l, const char *prefix, const char *dir, const char *skip,
                  struct err *e);
void pack_list_clear(struct pack_list *l);

/* Make it, or take the one that an earlier call left in the cache. The list is sorted by this. */
int pack_make(struct pack_list *l, struct pack *ret, struct err *e);
void pack_clear(struct pack *p);
/* Its files into a folder of this machine that is there. */
int pack_unpack(const struct pack *p, const char *dir, struct err *e);

/* The libraries that this process (program NULL) or a program of the same machine needs, without those of glibc, as
 * PREFIX/NAME. A program is asked with ldd. */
int pack_add_libs(struct pack_list *l, const char *prefix, const char *program, struct err *e);
