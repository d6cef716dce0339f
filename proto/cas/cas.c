/* See cas.h: what is in a store, what it may hold, and what goes when it is full. The index is in memory, made from a scan at the
 * start: the directory is the only truth. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/cas/in.h"

enum { IDLE_DAYS = 7 };

char *cas_item_path(const struct cas *c, const struct id *id, const char *suffix)
{
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    return path_fmt("%s/%.2s/%s%s", c->dir, hex, hex, suffix);
}

char *cas_partial_path(const struct cas *c, const struct id *id, const char *suffix)
{
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    return path_fmt("%s/partial/%s%s", c->dir, hex, suffix);
}

/* Where id stands, or where it would be inserted. */
static size_t find(const struct cas *c, const struct id *id, bool *ret_found)
{
    size_t lo = 0, hi = c->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int d = id_cmp(&c->v[mid].id, id);
        if (!d) {
            *ret_found = true;
            return mid;
        }
        if (d < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *ret_found = false;
    return lo;
}

struct cas_item *cas_find(const struct cas *c, const struct id *id)
{
    bool found;
    size_t i = find(c, id, &found);
    return found && !c->v[i].gone ? &c->v[i] : NULL;
}

int cas_insert(struct cas *c, const struct id *id, uint64_t size, uint64_t used_ms)
{
    bool found;
    size_t i = find(c, id, &found);
    if (found && c->v[i].gone) {
        c->v[i].gone = false;
        c->v[i].size_b = size;
        c->v[i].used_ms = used_ms;
        c->used_b += size;
    }
    if (found)
        return 0;
    if (c->n == c->room) {
        size_t room = c->room ? c->room * 2 : 64;
        void *p = realloc(c->v, room * sizeof(*c->v));
        if (!p)
            return -ENOMEM;
        c->v = p;
        c->room = room;
    }
    memmove(c->v + i + 1, c->v + i, (c->n - i) * sizeof(*c->v));
    c->v[i] = (struct cas_item){ .id = *id, .size_b = size, .used_ms = used_ms };
    c->n++;
    c->used_b += size;
    return 0;
}

static void closedirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

/* One folder DIR/xx. A hash list without its bytes, or bytes without their list, are leftovers of a crash. */
static int scan_folder(struct cas *c, const char *path, const char *xx, struct err *e)
{
    CLEANUP(closedirp) DIR *d = opendir(path);
    if (!d)
        return errno == ENOENT || errno == ENOTDIR ? 0 : err_sys(e, errno, "%s", path);
    for (struct dirent *de; (de = readdir(d));) {
        char hex[ID_HEX_LEN], other[ID_HEX_LEN + 8];
        struct id id;
        struct stat st, st2;
        size_t n = strlen(de->d_name);
        if (de->d_name[0] == '.')
            continue;
        bool list = n == ID_HEX_LEN - 1 + 7 && !strcmp(de->d_name + ID_HEX_LEN - 1, ".hashes");
        if (n != ID_HEX_LEN - 1 && !list)
            continue;
        snprintf(hex, sizeof(hex), "%.64s", de->d_name);
        if (id_parse(hex, &id, NULL) < 0 || strncmp(hex, xx, 2))
            continue;
        snprintf(other, sizeof(other), "%s%s", hex, list ? "" : ".hashes");
        if (fstatat(dirfd(d), other, &st2, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT && !c->look_only)
                unlinkat(dirfd(d), de->d_name, 0);
            continue;
        }
        if (list || fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(st.st_mode))
            continue;
        if (cas_insert(c, &id, (uint64_t)st.st_size,
                       (uint64_t)st.st_mtim.tv_sec * 1000 +
                           (uint64_t)st.st_mtim.tv_nsec / 1000000) < 0)
            return err_sys(e, ENOMEM, "%s", path);
    }
    return 0;
}

static void partial_unlink(const struct cas *c, const struct id *id)
{
    CLEANUP(freep) char *path = cas_partial_path(c, id, "");
    CLEANUP(freep) char *map = cas_partial_path(c, id, ".map");
    if (path)
        unlink(path);
    if (map)
        unlink(map);
}

/* Without memory it is removed: what is not counted may not stay. */
static void idle_add(struct cas *c, const struct id *id, uint64_t size, uint64_t used_ms)
{
    struct idle *p = realloc(c->idle, (c->n_idle + 1) * sizeof(*p));
    if (!p) {
        partial_unlink(c, id);
        return;
    }
    c->idle = p;
    size_t i = c->n_idle++;
    for (; i && p[i - 1].used_ms > used_ms; i--)
        p[i] = p[i - 1];
    p[i] = (struct idle){ *id, size, used_ms };
    c->idle_b += size;
}

bool cas_idle_take(struct cas *c, const struct id *id, bool drop)
{
    for (size_t i = 0; i < c->n_idle; i++) {
        if (!id_eq(&c->idle[i].id, id))
            continue;
        if (drop)
            partial_unlink(c, id);
        c->idle_b -= c->idle[i].size_b;
        memmove(c->idle + i, c->idle + i + 1, (--c->n_idle - i) * sizeof(*c->idle));
        return true;
    }
    return false;
}

void cas_leave(struct cas *c, const struct id *id, uint64_t size, bool keep)
{
    if (keep)
        idle_add(c, id, size, clock_wall_ms());
    else
        partial_unlink(c, id);
}

void cas_idle_drop_all(struct cas *c)
{
    while (c->n_idle) {
        struct id id = c->idle[0].id;
        cas_idle_take(c, &id, true);
    }
}

/* Temp files of imports that did not end go, and puts that nobody resumed for IDLE_DAYS; the others keep their files. */
static void scan_partial(struct cas *c, const char *path)
{
    CLEANUP(closedirp) DIR *d = opendir(path);
    uint64_t now = clock_wall_ms();
    if (!d)
        return;
    for (struct dirent *de; (de = readdir(d));) {
        struct stat st;
        struct id id;
        if (de->d_name[0] == '.')
            continue;
        if (id_parse(de->d_name, &id, NULL) < 0) {
            char hex[ID_HEX_LEN];
            snprintf(hex, sizeof(hex), "%.64s", de->d_name);
            bool map = strlen(de->d_name) == ID_HEX_LEN - 1 + 4 &&
                       !strcmp(de->d_name + ID_HEX_LEN - 1, ".map");
            if (!strncmp(de->d_name, "import-", 7) ||
                (map && fstatat(dirfd(d), hex, &st, AT_SYMLINK_NOFOLLOW) < 0))
                unlinkat(dirfd(d), de->d_name, 0);
            continue;
        }
        if (fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
            continue;
        uint64_t used = (uint64_t)st.st_mtim.tv_sec * 1000;
        if (used + IDLE_DAYS * UINT64_C(86400000) < now)
            partial_unlink(c, &id);
        else
            idle_add(c, &id, (uint64_t)st.st_size, used);
    }
}

static void scan_growing(struct cas *c)
{
    CLEANUP(freep) char *path = path_fmt("%s/growing", c->dir);
    CLEANUP(closedirp) DIR *d = path ? opendir(path) : NULL;
    for (struct dirent *de; d && (de = readdir(d));) {
        struct stat st;
        struct id key;
        if (id_parse(de->d_name, &key, NULL) == 0 &&
            fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            c->grow_b += (uint64_t)st.st_size;
    }
}

static int open_any(const char *dir, uint64_t cap_b, bool look_only, struct cas **ret,
                    struct err *e)
{
    struct cas *c = calloc(1, sizeof(*c));
    CLEANUP(freep) char *partial = path_fmt("%s/partial", dir);
    int r = 0;
    if (!c || !partial || !(c->dir = strdup(dir)))
        r = err_sys(e, ENOMEM, "%s", dir);
    if (r >= 0) {
        c->cap_b = cap_b;
        c->look_only = look_only;
        if (look_only)
            r = access(dir, R_OK | X_OK) < 0 ? err_sys(e, errno, "%s", dir) : 0;
        else
            r = dir_make(partial, 0700, e);
    }
    if (r >= 0 && !look_only) {
        scan_partial(c, partial);
        scan_growing(c);
    }
    for (int i = 0; i < 256 && r >= 0; i++) {
        char xx[3];
        snprintf(xx, sizeof(xx), "%02x", (unsigned)i);
        CLEANUP(freep) char *path = path_fmt("%s/%s", dir, xx);
        r = path ? scan_folder(c, path, xx, e) : err_sys(e, ENOMEM, "%s", dir);
    }
    if (r < 0) {
        cas_free(&c);
        return r;
    }
    *ret = c;
    return 0;
}

int cas_open(const char *dir, uint64_t cap_b, struct cas **ret, struct err *e)
{
    return open_any(dir, cap_b, false, ret, e);
}

int cas_open_ro(const char *dir, struct cas **ret, struct err *e)
{
    return open_any(dir, 0, true, ret, e);
}

void cas_free(struct cas **cp)
{
    struct cas *c = *cp;
    if (!c)
        return;
    *cp = NULL;
    while (c->puts) {
        struct cas_put *p = c->puts;
        cas_put_close(&p, false);
    }
    free(c->v);
    free(c->idle);
    free(c->dir);
    free(c);
}

bool cas_has(const struct cas *c, const struct id *id)
{
    return cas_find(c, id) != NULL;
}

int cas_stat(const struct cas *c, const struct id *id, const struct cas_item **ret)
{
    *ret = cas_find(c, id);
    return *ret ? 0 : -ENOENT;
}

void cas_touch(struct cas *c, struct cas_item *it)
{
    CLEANUP(freep) char *path = cas_item_path(c, &it->id, "");
    it->used_ms = clock_wall_ms();
    if (path)
        utimensat(AT_FDCWD, path, NULL, 0);
}

char *cas_path(struct cas *c, const struct id *id)
{
    struct cas_item *it = cas_find(c, id);
    if (!it)
        return NULL;
    cas_touch(c, it);
    return cas_item_path(c, id, "");
}

size_t cas_list(const struct cas *c, const struct cas_item **ret)
{
    *ret = c->v;
    return c->n;
}

uint64_t cas_bytes(const struct cas *c)
{
    return c->used_b + c->reserved_b + c->idle_b + c->grow_b;
}

void cas_use(struct cas *c, const struct id *id)
{
    struct cas_item *it = cas_find(c, id);
    if (it)
        cas_touch(c, it);
}

void cas_figures(const struct cas *c, struct cas_figures *ret)
{
    *ret = (struct cas_figures){ .used_b = c->used_b,
                                 .reserved_b = c->reserved_b,
                                 .partials = c->n_idle,
                                 .partial_b = c->idle_b,
                                 .growing_b = c->grow_b,
                                 .cap_b = c->cap_b };
    for (size_t i = 0; i < c->n; i++) {
        ret->artefacts += !c->v[i].gone;
        ret->pinned_b += c->v[i].pins ? c->v[i].size_b : 0;
    }
}

uint64_t cas_partial(const struct cas *c, const struct id *id)
{
    for (size_t i = 0; i < c->n_idle; i++)
        if (id_eq(&c->idle[i].id, id))
            return c->idle[i].size_b;
    return 0;
}

uint64_t cas_drop_partials(struct cas *c, uint64_t before_ms, bool drop, size_t *ret_n)
{
    uint64_t sum = 0;
    *ret_n = 0;
    for (size_t i = 0; i < c->n_idle;) {
        if (c->idle[i].used_ms >= before_ms)
            break; /* oldest first */
        sum += c->idle[i].size_b;
        ++*ret_n;
        if (drop) {
            struct id id = c->idle[i].id;
            cas_idle_take(c, &id, true);
        } else {
            i++;
        }
    }
    return sum;
}

static void forget(struct cas *c, struct cas_item *it)
{
    size_t i = (size_t)(it - c->v);
    c->used_b -= it->size_b;
    memmove(c->v + i, c->v + i + 1, (c->n - i - 1) * sizeof(*c->v));
    c->n--;
}

bool cas_check(struct cas *c, const struct id *id)
{
    struct cas_item *it = cas_find(c, id);
    CLEANUP(freep) char *path = cas_item_path(c, id, "");
    CLEANUP(freep) char *list = cas_item_path(c, id, ".hashes");
    if (!it || !path || !list)
        return it != NULL;
    if ((access(path, F_OK) == 0 || errno != ENOENT) &&
        (access(list, F_OK) == 0 || errno != ENOENT))
        return true;
    c->used_b -= it->size_b;
    it->size_b = 0;
    it->gone = true;
    if (!it->pins)
        forget(c, it);
    return false;
}

int cas_remove(struct cas *c, struct cas_item *it, struct err *e)
{
    CLEANUP(freep) char *path = cas_item_path(c, &it->id, "");
    CLEANUP(freep) char *list = cas_item_path(c, &it->id, ".hashes");
    if (!path || !list)
        return err_sys(e, ENOMEM, "%s", c->dir);
    /* bytes first: what a crash leaves is a list without bytes, which the next start removes */
    if (unlink(path) < 0 && errno != ENOENT)
        return err_sys(e, errno, "%s", path);
    unlink(list);
    forget(c, it);
    return 0;
}

int cas_delete(struct cas *c, const struct id *id, struct err *e)
{
    char hex[ID_HEX_LEN];
    struct cas_item *it = cas_find(c, id);
    id_hex(id, hex);
    if (!it)
        return err_set(e, ENOENT, "artefact %.12s: not here", hex);
    if (it->pins)
        return err_set(e, EBUSY, "artefact %.12s: in use", hex);
    return cas_remove(c, it, e);
}

int cas_aside(struct cas *c, const struct id *id, const char *to, struct err *e)
{
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    CLEANUP(freep) char *from = cas_item_path(c, id, "");
    CLEANUP(freep) char *from_list = cas_item_path(c, id, ".hashes");
    CLEANUP(freep) char *path = path_fmt("%s/%s", to, hex);
    CLEANUP(freep) char *path_list = path_fmt("%s/%s.hashes", to, hex);
    if (!from || !from_list || !path || !path_list)
        return err_sys(e, ENOMEM, "%s", c->dir);
    if (!cas_find(c, id))
        return err_set(e, ENOENT, "%s: not here", from);
    int r = dir_make(to, 0700, e);
    if (r < 0)
        return r;
    rename(from_list, path_list); /* the list may be what is missing */
    if (rename(from, path) < 0 && errno != ENOENT)
        return err_sys(e, errno, "%s: cannot be moved to %s", from, to);
    cas_check(c, id);
    return 0;
}

int cas_pin(struct cas *c, const struct id *id)
{
    struct cas_item *it = cas_find(c, id);
    if (!it)
        return -ENOENT;
    it->pins++;
    return 0;
}

void cas_unpin(struct cas *c, const struct id *id)
{
    bool found;
    size_t i = find(c, id, &found);
    if (!found || !c->v[i].pins)
        return;
    if (--c->v[i].pins == 0 && c->v[i].gone)
        forget(c, &c->v[i]);
}

/* What is unpinned and was not used for the longest time; NULL = nothing. */
static struct cas_item *oldest(struct cas *c)
{
    struct cas_item *old = NULL;
    for (size_t i = 0; i < c->n; i++)
        if (!c->v[i].pins && (!old || c->v[i].used_ms < old->used_ms))
            old = &c->v[i];
    return old;
}

int cas_make_room(struct cas *c, uint64_t need, struct err *e)
{
    if (!c->cap_b || need <= c->cap_b - (cas_bytes(c) < c->cap_b ? cas_bytes(c) : c->cap_b))
        return 0;
    uint64_t pinned = 0;
    for (size_t i = 0; i < c->n; i++)
        if (c->v[i].pins)
            pinned += c->v[i].size_b;
    if (need > c->cap_b)
        return err_set(e, EFBIG, "%s: %llu bytes are more than its cap of %llu", c->dir,
                       (unsigned long long)need, (unsigned long long)c->cap_b);
    if (pinned + c->reserved_b > c->cap_b - need)
        return err_set(e, ENOSPC, "%s: no room for %llu bytes under its cap of %llu", c->dir,
                       (unsigned long long)need, (unsigned long long)c->cap_b);
    while (cas_bytes(c) > c->cap_b - need && c->n_idle) {
        struct id id = c->idle[0].id;
        cas_idle_take(c, &id, true);
    }
    while (cas_bytes(c) > c->cap_b - need) {
        struct cas_item *old = oldest(c);
        int r = old ? cas_remove(c, old, e) : err_set(e, ENOSPC, "%s: no room", c->dir);
        if (r < 0)
            return r;
    }
    return 0;
}

uint64_t cas_shrink(struct cas *c, uint64_t need)
{
    uint64_t before = cas_bytes(c);
    while (c->n_idle && before - cas_bytes(c) < need) {
        struct id id = c->idle[0].id;
        cas_idle_take(c, &id, true);
    }
    while (before - cas_bytes(c) < need) {
        struct cas_item *old = oldest(c);
        if (!old || cas_remove(c, old, NULL) < 0)
            break;
    }
    return before - cas_bytes(c);
}

const char *cas_dir(const struct cas *c)
{
    return c->dir;
}

void cas_grow_count(struct cas *c, int64_t more_b)
{
    c->grow_b += (uint64_t)more_b;
}
