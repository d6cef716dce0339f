#include "proto/link/allow.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

enum {
    ALLOW_WHOLE_MS = 250, /* at least between two looks at every file */
    ALLOW_COST = 200,     /* and so many times what such a look takes: with 10,000 keys 2 s */
};

static void closedirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    for (const uint8_t *b = p; n; n--, b++)
        h = (h ^ *b) * UINT64_C(0x100000001b3);
    return h;
}

/* What would differ after any allow, revoke or edit. The order of readdir is stable while nothing changes; if it is not,
 * the list is read once more than needed. The time of the folder alone misses a file written in place. */
static int folder_mark(const char *dir, uint64_t *ret)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    CLEANUP(closedirp) DIR *d = opendir(dir);
    if (!d) {
        if (errno != ENOENT)
            return -errno;
        *ret = 1;
        return 0;
    }
    for (struct dirent *de; (de = readdir(d));) {
        struct stat st;
        if (de->d_name[0] == '.' || fstatat(dirfd(d), de->d_name, &st, 0) < 0)
            continue;
        h = mix(h, de->d_name, strlen(de->d_name) + 1);
        h = mix(h, &st.st_ino, sizeof(st.st_ino));
        h = mix(h, &st.st_size, sizeof(st.st_size));
        h = mix(h, &st.st_mtim.tv_sec, sizeof(st.st_mtim.tv_sec));
        h = mix(h, &st.st_mtim.tv_nsec, sizeof(st.st_mtim.tv_nsec));
    }
    *ret = h | 2; /* neither "never" nor "no folder" */
    return 0;
}

int allow_init(struct allow *a, const char *dir, struct err *e)
{
    *a = (struct allow){ .dir = strdup(dir) };
    return a->dir ? 0 : err_sys(e, ENOMEM, "%s", dir);
}

void allow_clear(struct allow *a)
{
    free(a->dir);
    free(a->list);
    *a = (struct allow){ 0 };
}

static int by_key(const void *x, const void *y)
{
    return strcmp(((const struct key_pub *)x)->z85, ((const struct key_pub *)y)->z85);
}

/* Whether the folder may be another one than at the last look. A change in the same tick of the file system's clock as that
 * look does not show, so what changed just before it counts as changed still. */
static bool folder_moved(struct allow *a)
{
    enum { TICK_NS = 20000000 };
    struct stat st;
    uint64_t then = a->changed_ns, looked = a->looked_ns;
    a->looked_ns = clock_wall_ms() * 1000000;
    a->changed_ns = stat(a->dir, &st) < 0
                        ? 1
                        : (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec;
    return then != a->changed_ns || then + TICK_NS >= looked;
}

int allow_refresh(struct allow *a)
{
    uint64_t mark = 0, now = clock_mono_ms();
    struct err e;
    if (!folder_moved(a) && a->mark && now < a->whole_ms)
        return 0;
    uint64_t start = clock_mono_ns();
    int r = folder_mark(a->dir, &mark);
    a->whole_ms = now + ALLOW_WHOLE_MS + (clock_mono_ns() - start) * ALLOW_COST / 1000000;
    if (r < 0)
        return r;
    if (mark == a->mark)
        return 0;
    struct key_pub *list;
    size_t n;
    r = keys_list(a->dir, &list, &n, &e);
    /* remembered even when reading failed: the same broken state is reported once, not each time */
    a->mark = mark;
    if (r < 0) {
        log_error("%s, the keys known before stay allowed", e.text);
        return r;
    }
    if (n)
        qsort(list, n, sizeof(*list), by_key);
    free(a->list);
    a->list = list;
    a->n = n;
    return 1;
}

const struct key_pub *allow_find(const struct allow *a, const char *z85)
{
    struct key_pub want;
    if (!a->n || strlen(z85) >= sizeof(want.z85))
        return NULL;
    strcpy(want.z85, z85);
    return bsearch(&want, a->list, a->n, sizeof(want), by_key);
}
