/* See cas.h. The index is in memory, made from a scan at the start: the directory is the only truth. */
#include "proto/cas/cas.h"

#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/cas/map.h"

/* A put that is not whole and that nobody works on. Its space is taken all the same. */
struct idle {
    struct id id;
    uint64_t size_b, used_ms;
};

struct cas {
    char *dir;
    uint64_t cap_b, used_b, reserved_b, idle_b, grow_b;
    struct idle *idle; /* oldest first */
    size_t n_idle;
    struct cas_item *v; /* by id */
    size_t n, room;
    struct cas_put *puts;
    unsigned temp_n;
    bool look_only;
};

enum { IDLE_DAYS = 7 };

struct cas_put {
    struct cas *cas; /* borrowed */
    struct cas_put *next;
    struct id id;
    uint64_t size_b;
    struct cas_map map;
    bool resumed;     /* an earlier put left some of it */
    uint8_t *written; /* as the file of the map has it: also what is not verified yet */
    uint64_t checked; /* below this, all that is written counts: cas_put_check() */
    char *path, *map_path;
    int fd, map_fd;
    uint64_t n_have;
};

static uint64_t chunks_of(uint64_t size)
{
    return size / CID_CHUNK + (size % CID_CHUNK != 0);
}

static size_t chunk_len(uint64_t size, uint64_t index)
{
    uint64_t off = index * CID_CHUNK;
    return size - off < CID_CHUNK ? (size_t)(size - off) : CID_CHUNK;
}

static char *item_path(const struct cas *c, const struct id *id, const char *suffix)
{
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    return path_fmt("%s/%.2s/%s%s", c->dir, hex, hex, suffix);
}

static char *partial_path(const struct cas *c, const struct id *id, const char *suffix)
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

static struct cas_item *item(const struct cas *c, const struct id *id)
{
    bool found;
    size_t i = find(c, id, &found);
    return found && !c->v[i].gone ? &c->v[i] : NULL;
}

static int insert(struct cas *c, const struct id *id, uint64_t size, uint64_t used_ms)
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
        if (insert(c, &id, (uint64_t)st.st_size,
                   (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000) < 0)
            return err_sys(e, ENOMEM, "%s", path);
    }
    return 0;
}

static void partial_unlink(const struct cas *c, const struct id *id)
{
    CLEANUP(freep) char *path = partial_path(c, id, "");
    CLEANUP(freep) char *map = partial_path(c, id, ".map");
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

/* Somebody works on it again, or it is removed: then with its files. False: there is none. */
static bool idle_take(struct cas *c, const struct id *id, bool drop)
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

/* Nobody works on it any more: kept for who resumes it, or removed, so that its space is of use to others. */
static void leave(struct cas *c, const struct id *id, uint64_t size, bool keep)
{
    if (keep)
        idle_add(c, id, size, clock_wall_ms());
    else
        partial_unlink(c, id);
}

static void idle_drop_all(struct cas *c)
{
    while (c->n_idle) {
        struct id id = c->idle[0].id;
        idle_take(c, &id, true);
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
    return item(c, id) != NULL;
}

int cas_stat(const struct cas *c, const struct id *id, const struct cas_item **ret)
{
    *ret = item(c, id);
    return *ret ? 0 : -ENOENT;
}

/* The time of the file carries the order of use over a restart. */
static void use(struct cas *c, struct cas_item *it)
{
    CLEANUP(freep) char *path = item_path(c, &it->id, "");
    it->used_ms = clock_wall_ms();
    if (path)
        utimensat(AT_FDCWD, path, NULL, 0);
}

char *cas_path(struct cas *c, const struct id *id)
{
    struct cas_item *it = item(c, id);
    if (!it)
        return NULL;
    use(c, it);
    return item_path(c, id, "");
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
    struct cas_item *it = item(c, id);
    if (it)
        use(c, it);
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
            idle_take(c, &id, true);
        } else {
            i++;
        }
    }
    return sum;
}

int cas_hashes(const struct cas *c, const struct id *id, struct id **ret, size_t *ret_n,
               uint64_t *ret_size, struct err *e)
{
    char hex[ID_HEX_LEN];
    const struct cas_item *it = item(c, id);
    id_hex(id, hex);
    if (!it)
        return err_set(e, ENOENT, "artefact %.12s: not here", hex);
    uint64_t n = chunks_of(it->size_b);
    CLEANUP(freep) char *path = item_path(c, id, ".hashes");
    CLEANUP(buf_clear) struct buf b = BUF_INIT(16 + n * ID_LEN);
    if (!path)
        return err_sys(e, ENOMEM, "artefact %.12s", hex);
    int r = file_read(path, &b, e);
    if (r < 0 && r != -EFBIG)
        return r;
    uint64_t size = 0;
    if (r < 0 || b.len != 16 + n * ID_LEN || memcmp(b.data, "SFH1\0\0\0\0", 8))
        return err_set(e, SF_EINTEGRITY, "%s: damaged", path);
    memcpy(&size, b.data + 8, 8);
    if (le64toh(size) != it->size_b)
        return err_set(e, SF_EINTEGRITY, "%s: damaged", path);
    struct id got, *list = malloc(n ? n * ID_LEN : 1);
    if (!list)
        return err_sys(e, ENOMEM, "artefact %.12s", hex);
    memcpy(list, b.data + 16, n * ID_LEN);
    cid_of_chunks(it->size_b, list, n, &got);
    if (!id_eq(&got, id)) {
        free(list);
        return err_set(e, SF_EINTEGRITY, "%s: damaged", path);
    }
    *ret = list;
    *ret_n = n;
    *ret_size = it->size_b;
    return 0;
}

ssize_t cas_read(const struct cas *c, const struct id *id, uint64_t index, void *p, size_t room,
                 struct err *e)
{
    char hex[ID_HEX_LEN];
    const struct cas_item *it = item(c, id);
    id_hex(id, hex);
    if (!it)
        return err_set(e, ENOENT, "artefact %.12s: not here", hex);
    if (index >= chunks_of(it->size_b) || room < chunk_len(it->size_b, index))
        return err_set(e, EINVAL, "artefact %.12s: no chunk %llu", hex, (unsigned long long)index);
    uint64_t size;
    CLEANUP(closep) int fd = cas_open_item(c, id, &size, e);
    if (fd < 0)
        return fd;
    size_t n = chunk_len(it->size_b, index);
    ssize_t got = pread_full(fd, p, n, (off_t)(index * CID_CHUNK));
    if (got < 0)
        return err_sys(e, (int)-got, "artefact %.12s", hex);
    if ((size_t)got < n)
        return err_set(e, SF_EINTEGRITY, "artefact %.12s: truncated in chunk %llu", hex,
                       (unsigned long long)index);
    return got;
}

int cas_open_item(const struct cas *c, const struct id *id, uint64_t *ret_size, struct err *e)
{
    char hex[ID_HEX_LEN];
    const struct cas_item *it = item(c, id);
    id_hex(id, hex);
    if (!it)
        return err_set(e, ENOENT, "artefact %.12s: not here", hex);
    CLEANUP(freep) char *path = item_path(c, id, "");
    if (!path)
        return err_sys(e, ENOMEM, "artefact %.12s", hex);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    *ret_size = it->size_b;
    return fd < 0 ? err_sys(e, errno, "%s", path) : fd;
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
    struct cas_item *it = item(c, id);
    CLEANUP(freep) char *path = item_path(c, id, "");
    CLEANUP(freep) char *list = item_path(c, id, ".hashes");
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

static int remove_item(struct cas *c, struct cas_item *it, struct err *e)
{
    CLEANUP(freep) char *path = item_path(c, &it->id, "");
    CLEANUP(freep) char *list = item_path(c, &it->id, ".hashes");
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
    struct cas_item *it = item(c, id);
    id_hex(id, hex);
    if (!it)
        return err_set(e, ENOENT, "artefact %.12s: not here", hex);
    if (it->pins)
        return err_set(e, EBUSY, "artefact %.12s: in use", hex);
    return remove_item(c, it, e);
}

int cas_pin(struct cas *c, const struct id *id)
{
    struct cas_item *it = item(c, id);
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

/* Room for need bytes under the cap, by removing puts that nobody works on, then what is unpinned, each the longest unused
 * first; nothing is removed when that would not be enough. */
static int make_room(struct cas *c, uint64_t need, struct err *e)
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
        idle_take(c, &id, true);
    }
    while (cas_bytes(c) > c->cap_b - need) {
        struct cas_item *old = oldest(c);
        int r = old ? remove_item(c, old, e) : err_set(e, ENOSPC, "%s: no room", c->dir);
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
        idle_take(c, &id, true);
    }
    while (before - cas_bytes(c) < need) {
        struct cas_item *old = oldest(c);
        if (!old || remove_item(c, old, NULL) < 0)
            break;
    }
    return before - cas_bytes(c);
}

/* ---- puts */

static void put_free(struct cas_put *p)
{
    struct cas_put **q = &p->cas->puts;
    while (*q && *q != p)
        q = &(*q)->next;
    if (*q) {
        *q = p->next;
        p->cas->reserved_b -= p->size_b;
    }
    closep(&p->fd);
    closep(&p->map_fd);
    cas_map_clear(&p->map);
    free(p->written);
    free(p->path);
    free(p->map_path);
    free(p);
}

static bool bit(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

static void count(struct cas_put *p, uint64_t index)
{
    if (cas_map_get(&p->map, index))
        return;
    cas_map_set(&p->map, index);
    p->n_have++;
}

int cas_put_check(struct cas_put *p, size_t n, struct err *e)
{
    uint64_t i = p->checked;
    CLEANUP(freep) uint8_t *block = NULL;
    while (n) {
        while (i < p->map.n && !bit(p->written, i))
            i++;
        size_t run = 0;
        while (run < HASH_LANES && run < n && i + run < p->map.n && bit(p->written, i + run))
            run++;
        if (!run)
            break;
        struct id is[HASH_LANES];
        if (!block && !(block = malloc((n < HASH_LANES ? n : HASH_LANES) * CID_CHUNK)))
            return err_sys(e, ENOMEM, "%s", p->path);
        ssize_t got = hash_chunks(p->fd, p->size_b, i, run, block, is);
        if (got < 0)
            return err_sys(e, (int)-got, "%s", p->path);
        for (size_t k = 0; k < run; k++, i++) {
            if ((ssize_t)k < got && id_eq(&is[k], &p->map.hashes[i]))
                count(p, i);
            else
                p->written[i / 8] &= (uint8_t) ~(1u << (i % 8));
        }
        n -= run;
    }
    while (i < p->map.n && !bit(p->written, i))
        i++;
    p->checked = i;
    return i == p->map.n;
}

/* The space of chunks that are not written. Best effort: where there are no holes it stays with the put. */
static void give_back(const struct cas_put *p)
{
    for (uint64_t i = 0, end; i < p->map.n; i = end) {
        for (end = i + 1; end < p->map.n && bit(p->written, end) == bit(p->written, i);)
            end++;
        if (!bit(p->written, i))
            fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(i * CID_CHUNK),
                      (off_t)((end - i) * CID_CHUNK));
    }
}

/* What the file of a put still wants of the disk. */
static uint64_t wanted(const struct cas_put *p)
{
    struct stat st;
    uint64_t own = p->fd >= 0 && fstat(p->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    return own < p->size_b ? p->size_b - own : 0;
}

/* Take the space of the whole from the disk. tmpfs would make its pages, as much work as to write them and all of it before the
 * first byte: there the space is booked, beside what other open puts have booked. -errno. */
static int take_space(const struct cas_put *p)
{
    struct statfs fs;
    uint64_t sum = 0;
    if (!p->size_b)
        return 0;
    if (fstatfs(p->fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
        return -posix_fallocate(p->fd, 0, (off_t)p->size_b);
    for (const struct cas_put *q = p->cas->puts; q; q = q->next)
        sum += wanted(q);
    /* no f_blocks: without a limit */
    if (fs.f_blocks && sum > (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize)
        return -ENOSPC;
    return ftruncate(p->fd, (off_t)p->size_b) < 0 ? -errno : 0;
}

/* Reserve the space of the whole; what is reserved or written of it already counts. Puts that nobody works on give way when that
 * would be enough. Refused, one that is resumed keeps what is written of it. */
static int reserve(struct cas_put *p)
{
    struct statvfs fs;
    int r = take_space(p);
    if (r == -ENOSPC && p->cas->n_idle && statvfs(p->cas->dir, &fs) == 0 &&
        wanted(p) <= (uint64_t)fs.f_bavail * fs.f_frsize + p->cas->idle_b) {
        idle_drop_all(p->cas);
        r = take_space(p);
    }
    if (r < 0 && p->resumed)
        give_back(p);
    return r;
}

/* The folder of puts, which may have been removed since the start. */
static int make_partial(const struct cas *c, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/partial", c->dir);
    return path ? dir_make(path, 0700, e) : err_sys(e, ENOMEM, "%s", c->dir);
}

static int begin(struct cas_put *p, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(cas_map_size(p->map.n));
    CLEANUP(cas_map_clear) struct cas_map old = { 0 };
    struct err ignored;
    struct id got;
    int r = make_partial(p->cas, e);
    if (r < 0)
        return r;
    r = file_read(p->map_path, &b, &ignored);
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->fd < 0)
        return err_sys(e, errno, "%s", p->path);
    /* an old map that is damaged or of another size is worth nothing; the put begins anew */
    bool again =
        r >= 0 && cas_map_parse(b.data, b.len, &old, &ignored) >= 0 && old.size_b == p->size_b;
    if (again) {
        cid_of_chunks(old.size_b, old.hashes, old.n, &got);
        again = id_eq(&got, &p->id);
    }
    if (ftruncate(p->fd, again ? (off_t)p->size_b : 0) < 0)
        return err_sys(e, errno, "%s", p->path);
    p->resumed = again;
    if (again)
        memcpy(p->written, old.bits, (old.n + 7) / 8);
    else
        p->checked = p->map.n;
    r = reserve(p);
    if (r < 0)
        return err_sys(e, -r, "%s: cannot reserve %llu bytes", p->path,
                       (unsigned long long)p->size_b);
    if (p->map.n <= 1)
        return 0; /* there is no half of a chunk to resume: a file less to make durable */
    buf_reset(&b);
    r = again ? 0 : cas_map_pack(&p->map, &b);
    if (r < 0)
        return err_sys(e, -r, "%s", p->map_path);
    if (!again) /* else it is there, and needs no space of a disk that may be full */
        r = file_write(p->map_path, b.data, b.len, 0600, true, e);
    if (r < 0)
        return r;
    p->map_fd = open(p->map_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    return p->map_fd < 0 ? err_sys(e, errno, "%s", p->map_path) : 0;
}

int cas_begin(struct cas *c, const struct id *id, uint64_t size_b, const struct id hashes[],
              size_t n, struct cas_put **ret, struct err *e)
{
    char hex[ID_HEX_LEN];
    struct id got;
    id_hex(id, hex);
    *ret = NULL;
    if (size_b > CAS_SIZE_MAX)
        return err_set(e, EFBIG, "artefact %.12s: %llu bytes are too many", hex,
                       (unsigned long long)size_b);
    if (n != chunks_of(size_b))
        return err_set(e, SF_EINTEGRITY, "artefact %.12s: %zu chunk hashes for %llu bytes", hex, n,
                       (unsigned long long)size_b);
    cid_of_chunks(size_b, hashes, n, &got);
    if (!id_eq(&got, id))
        return err_set(e, SF_EINTEGRITY, "artefact %.12s: the chunk hashes are not its own", hex);
    if (cas_check(c, id))
        return err_set(e, EEXIST, "artefact %.12s: here already", hex);
    for (struct cas_put *p = c->puts; p; p = p->next)
        if (id_eq(&p->id, id))
            return err_set(e, EBUSY, "artefact %.12s: is coming in already", hex);
    bool resumed = idle_take(c, id, false); /* its own space is not in its way */
    int r = make_room(c, size_b, e);
    if (r < 0) {
        leave(c, id, size_b, resumed && r == -ENOSPC);
        return r;
    }
    struct cas_put *p = calloc(1, sizeof(*p));
    if (!p)
        return err_sys(e, ENOMEM, "artefact %.12s", hex);
    p->cas = c;
    p->id = *id;
    p->size_b = size_b;
    p->fd = p->map_fd = -1;
    p->next = c->puts;
    c->puts = p;
    c->reserved_b += size_b;
    p->path = partial_path(c, id, "");
    p->map_path = partial_path(c, id, ".map");
    p->written = calloc(1, n / 8 + 1);
    if (!p->path || !p->map_path || !p->written || cas_map_init(&p->map, size_b, hashes) < 0)
        r = err_sys(e, ENOMEM, "artefact %.12s", hex);
    else
        r = begin(p, e);
    if (r < 0) {
        leave(c, id, size_b, p->resumed && r == -ENOSPC);
        put_free(p);
        return r;
    }
    *ret = p;
    return 0;
}

bool cas_put_has(const struct cas_put *p, uint64_t index)
{
    return index < p->map.n && cas_map_get(&p->map, index);
}

uint64_t cas_put_missing(const struct cas_put *p, uint64_t from)
{
    while (from < p->map.n && cas_map_get(&p->map, from))
        from++;
    return from < p->map.n ? from : p->map.n;
}

static int not_of_it(const struct cas_put *p, uint64_t index, size_t n, struct err *e)
{
    char hex[ID_HEX_LEN];
    if (index < p->map.n && n == chunk_len(p->size_b, index))
        return 0;
    id_hex(&p->id, hex);
    return err_set(e, SF_EINTEGRITY, "artefact %.12s: chunk %llu of %zu bytes is none of it", hex,
                   (unsigned long long)index, n);
}

int cas_put_write(struct cas_put *p, uint64_t index, const void *data, size_t n, struct err *e)
{
    int r = not_of_it(p, index, n, e);
    if (r < 0)
        return r;
    r = pwrite_all(p->fd, data, n, (off_t)(index * CID_CHUNK));
    if (r < 0)
        return err_sys(e, -r, "%s", p->path);
    /* started now, most of it is on the disk when the commit waits for it */
    sync_file_range(p->fd, (off_t)(index * CID_CHUNK), (off_t)n, SYNC_FILE_RANGE_WRITE);
    /* a hint only: not worth failing for */
    off_t off = cas_map_off(&p->map, index);
    p->written[index / 8] |= (uint8_t)(1u << (index % 8));
    if (p->map_fd >= 0)
        pwrite_all(p->map_fd, &p->written[index / 8], 1, off);
    return 0;
}

static int is_right(const struct cas_put *p, uint64_t index, const struct id *is, size_t n,
                    struct err *e)
{
    char hex[ID_HEX_LEN];
    int r = not_of_it(p, index, n, e);
    if (r < 0)
        return r;
    if (id_eq(is, &p->map.hashes[index]))
        return 0;
    id_hex(&p->id, hex);
    return err_set(e, SF_EINTEGRITY, "artefact %.12s: chunk %llu is damaged", hex,
                   (unsigned long long)index);
}

int cas_put_verify(struct cas_put *p, uint64_t index, const struct id *is, size_t n, struct err *e)
{
    int r = is_right(p, index, is, n, e);
    if (r >= 0)
        count(p, index);
    return r;
}

int cas_put_open(const struct cas_put *p, struct err *e)
{
    int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? err_sys(e, errno, "%s", p->path) : fd;
}

int cas_put_sync(struct cas_put *p, struct err *e)
{
    return fsync(p->fd) < 0 ? err_sys(e, errno, "%s", p->path) : 0;
}

int cas_put_chunk(struct cas_put *p, uint64_t index, const void *data, size_t n, struct err *e)
{
    struct id is;
    if (index < p->map.n && n == chunk_len(p->size_b, index) && cas_map_get(&p->map, index))
        return 0;
    /* the other way round: what is damaged is not written at all, and what could not be written does not count */
    hash_bytes(data, n, &is);
    int r = is_right(p, index, &is, n, e);
    if (r >= 0)
        r = cas_put_write(p, index, data, n, e);
    if (r >= 0)
        count(p, index);
    return r;
}

/* An artefact on its way to DIR/xx: its list of hashes first, then by rename the bytes at temp. In steps, so that several wait for
 * the disk together. What a crash leaves between two of them is a list without bytes. */
struct publish {
    struct cas *cas;
    const struct id *id;
    uint64_t size;
    const char *temp;
    int temp_fd, list_fd;
    char *path, *list, *folder;
};

static void publish_clear(struct publish *u)
{
    closep(&u->list_fd);
    free(u->path);
    free(u->list);
    free(u->folder);
}

/* The list is written; its bytes and those of the artefact begin to move to the disk. */
static int publish_begin(struct publish *u, const struct id *hashes, size_t n, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(16 + n * ID_LEN);
    uint64_t le = htole64(u->size);
    u->list_fd = -1;
    u->path = item_path(u->cas, u->id, "");
    u->list = item_path(u->cas, u->id, ".hashes");
    u->folder = u->path ? strdup(u->path) : NULL;
    if (!u->path || !u->list || !u->folder || buf_add(&b, "SFH1\0\0\0\0", 8) < 0 ||
        buf_add(&b, &le, 8) < 0 || buf_add(&b, hashes, n * ID_LEN) < 0)
        return err_sys(e, ENOMEM, "%s", u->cas->dir);
    *strrchr(u->folder, '/') = 0;
    int r = dir_make(u->folder, 0700, e);
    if (r < 0)
        return r;
    unlink(u->list); /* of a crash */
    u->list_fd = open(u->list, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0444);
    if (u->list_fd < 0)
        return err_sys(e, errno, "%s", u->list);
    r = pwrite_all(u->list_fd, b.data, b.len, 0);
    if (r < 0)
        return err_sys(e, -r, "%s", u->list);
    if (fchmod(u->temp_fd, 0444) < 0)
        return err_sys(e, errno, "%s", u->temp);
    sync_file_range(u->list_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    sync_file_range(u->temp_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    return 0;
}

/* Both are durable, the bytes have their name; u->folder must be fsynced before anybody is told. */
static int publish_rename(const struct publish *u, struct err *e)
{
    if (fsync(u->temp_fd) < 0)
        return err_sys(e, errno, "%s", u->temp);
    if (fsync(u->list_fd) < 0)
        return err_sys(e, errno, "%s", u->list);
    return rename(u->temp, u->path) < 0 ? err_sys(e, errno, "%s", u->path) : 0;
}

/* The folder could not be fsynced: the caller has its file as it was, and may try again. */
static void publish_back(const struct publish *u)
{
    if (rename(u->path, u->temp) == 0)
        unlink(u->list);
}

static int publish_end(const struct publish *u, struct err *e)
{
    return insert(u->cas, u->id, u->size, clock_wall_ms()) < 0 ? err_sys(e, ENOMEM, "%s", u->path)
                                                               : 0;
}

static int publish(struct cas *c, const struct id *id, uint64_t size, const struct id *hashes,
                   size_t n, const char *temp, int temp_fd, struct err *e)
{
    CLEANUP(publish_clear)
    struct publish u = { .cas = c, .id = id, .size = size, .temp = temp, .temp_fd = temp_fd };
    int r = publish_begin(&u, hashes, n, e);
    if (r >= 0)
        r = publish_rename(&u, e);
    if (r < 0) {
        if (u.list)
            unlink(u.list);
        return r;
    }
    r = dir_sync(u.folder);
    if (r >= 0)
        return publish_end(&u, e);
    publish_back(&u);
    return err_sys(e, -r, "%s", u.folder);
}

const char *cas_dir(const struct cas *c)
{
    return c->dir;
}

void cas_grow_count(struct cas *c, int64_t more_b)
{
    c->grow_b += (uint64_t)more_b;
}

int cas_adopt(struct cas *c, const struct id *id, uint64_t size_b, const struct id hashes[],
              size_t n, const char *path, int fd, struct err *e)
{
    return publish(c, id, size_b, hashes, n, path, fd, e);
}

static int whole(const struct cas_put *p, struct err *e)
{
    char hex[ID_HEX_LEN];
    id_hex(&p->id, hex);
    return p->n_have < p->map.n ? err_set(e, EINVAL, "artefact %.12s: chunk %llu is missing", hex,
                                          (unsigned long long)cas_put_missing(p, 0))
                                : 0;
}

/* fsync each folder once. ret: what it is for each. */
static void sync_folders(const struct publish u[], size_t n, int ret[], struct err errs[])
{
    for (size_t i = 0; i < n; i++) {
        size_t same = 0;
        if (ret[i] < 0)
            continue;
        while (same < i && (ret[same] < 0 || strcmp(u[same].folder, u[i].folder)))
            same++;
        int r = same < i ? 0 : dir_sync(u[i].folder);
        if (r >= 0)
            continue;
        ret[i] = err_sys(&errs[i], -r, "%s", u[i].folder);
        publish_back(&u[i]);
    }
}

void cas_commit_all(struct cas_put *p[], size_t n, int ret[], struct err errs[])
{
    struct publish *u = calloc(n + 1, sizeof(*u));
    for (size_t i = 0; i < n; i++) {
        ret[i] = u ? whole(p[i], &errs[i]) : err_sys(&errs[i], ENOMEM, "%s", p[i]->cas->dir);
        if (!u)
            continue;
        u[i] = (struct publish){ .cas = p[i]->cas,
                                 .id = &p[i]->id,
                                 .size = p[i]->size_b,
                                 .temp = p[i]->path,
                                 .temp_fd = p[i]->fd,
                                 .list_fd = -1 };
        if (ret[i] >= 0)
            ret[i] = publish_begin(&u[i], p[i]->map.hashes, p[i]->map.n, &errs[i]);
    }
    for (size_t i = 0; i < n; i++) {
        if (ret[i] >= 0)
            ret[i] = publish_rename(&u[i], &errs[i]);
        if (ret[i] < 0 && u && u[i].list)
            unlink(u[i].list);
    }
    sync_folders(u, u ? n : 0, ret, errs);
    for (size_t i = 0; i < n; i++) {
        if (ret[i] >= 0)
            ret[i] = publish_end(&u[i], &errs[i]);
        if (u)
            publish_clear(&u[i]);
        if (ret[i] < 0)
            continue;
        unlink(p[i]->map_path);
        put_free(p[i]);
        p[i] = NULL;
    }
    free(u);
}

int cas_commit(struct cas_put **pp, struct err *e)
{
    struct err why = { 0 };
    int r;
    cas_commit_all(pp, 1, &r, &why);
    if (r < 0 && e)
        *e = why;
    return r;
}

void cas_put_close(struct cas_put **pp, bool drop)
{
    struct cas_put *p = *pp;
    if (!p)
        return;
    *pp = NULL;
    struct cas *c = p->cas;
    leave(c, &p->id, p->size_b, !drop && (p->n_have || p->checked < p->map.n));
    put_free(p);
}

/* ---- import */

static void unlinkp(char **path)
{
    if (*path) {
        unlink(*path);
        free(*path);
    }
    *path = NULL;
}

int cas_import(struct cas *c, const char *path, struct id *ret, uint64_t *ret_size, struct err *e)
{
    struct stat st, after;
    CLEANUP(closep) int in = file_open_regular(path, &st, e);
    CLEANUP(closep) int out = -1;
    CLEANUP(freep) uint8_t *block = NULL;
    CLEANUP(freep) struct id *hashes = NULL;
    if (in < 0)
        return in;
    uint64_t size = (uint64_t)st.st_size, n = chunks_of(size);
    if (size > CAS_SIZE_MAX)
        return err_set(e, EFBIG, "%s: too long", path);
    size_t lanes = n < HASH_LANES ? (size_t)n + !n : HASH_LANES;
    hashes = malloc(n ? n * sizeof(*hashes) : 1);
    block = malloc(lanes * CID_CHUNK);
    if (!hashes || !block)
        return err_sys(e, ENOMEM, "%s", path);
    int r = make_room(c, size, e);
    r = r < 0 ? r : make_partial(c, e);
    if (r < 0)
        return r;
    char *name = path_fmt("%s/partial/import-%u", c->dir, ++c->temp_n);
    if (!name)
        return err_sys(e, ENOMEM, "%s", path);
    out = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0) {
        r = err_sys(e, errno, "%s", name);
        free(name);
        return r;
    }
    CLEANUP(unlinkp) char *temp = name;
    /* What is hashed is what is kept: with shared blocks the clone is read, not the original. */
    bool shared = size && ioctl(out, FICLONE, in) == 0;
    if (size && !shared) {
        r = -posix_fallocate(out, 0, (off_t)size);
        if (r < 0)
            return err_sys(e, -r, "%s: cannot reserve %llu bytes", temp, (unsigned long long)size);
    }
    for (uint64_t i = 0; i < n;) {
        size_t m = n - i < lanes ? (size_t)(n - i) : lanes;
        uint64_t at = i * CID_CHUNK, end = (i + m) * CID_CHUNK;
        ssize_t got = hash_chunks(shared ? out : in, size, i, m, block, &hashes[i]);
        if (got < 0)
            return err_sys(e, (int)-got, "%s", path);
        if ((size_t)got < m)
            return err_set(e, SF_EFAILED, "%s: became shorter while it was read", path);
        r = shared ? 0
                   : pwrite_all(out, block, (size_t)((end < size ? end : size) - at), (off_t)at);
        if (r < 0)
            return err_sys(e, -r, "%s", temp);
        i += m;
    }
    if (fstat(out, &after) < 0 || (uint64_t)after.st_size != size)
        return err_set(e, SF_EFAILED, "%s: changed its length while it was read", path);
    cid_of_chunks(size, hashes, n, ret);
    if (ret_size)
        *ret_size = size;
    uint64_t bad;
    if (cas_check(c, ret)) {
        if (cas_verify(c, ret, &bad, NULL) != -SF_EINTEGRITY) {
            use(c, item(c, ret));
            return 0;
        }
        r = remove_item(c, item(c, ret), e); /* it has rotted; here is what it was */
        if (r < 0)
            return r;
    }
    r = publish(c, ret, size, hashes, n, temp, out, e);
    return r < 0 ? r : 0;
}

int cas_aside(struct cas *c, const struct id *id, const char *to, struct err *e)
{
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    CLEANUP(freep) char *from = item_path(c, id, "");
    CLEANUP(freep) char *from_list = item_path(c, id, ".hashes");
    CLEANUP(freep) char *path = path_fmt("%s/%s", to, hex);
    CLEANUP(freep) char *path_list = path_fmt("%s/%s.hashes", to, hex);
    if (!from || !from_list || !path || !path_list)
        return err_sys(e, ENOMEM, "%s", c->dir);
    if (!item(c, id))
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

int cas_verify_part(const struct cas *c, const struct id *id, uint64_t from, uint64_t count,
                    uint64_t *ret_chunk, struct err *e)
{
    CLEANUP(freep) struct id *hashes = NULL;
    CLEANUP(freep) char *path = item_path(c, id, "");
    struct stat st;
    size_t n;
    uint64_t size;
    *ret_chunk = UINT64_MAX;
    int r = cas_hashes(c, id, &hashes, &n, &size, e);
    if (r < 0)
        return r;
    size_t lanes = n < HASH_LANES ? n + !n : HASH_LANES;
    CLEANUP(freep) uint8_t *block = malloc(lanes * CID_CHUNK);
    if (!block || !path)
        return err_sys(e, ENOMEM, "%s", c->dir);
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, errno, "%s", path);
    uint64_t end = from < n && count < n - from ? from + count : n;
    for (uint64_t i = from; i < end;) {
        struct id is[HASH_LANES];
        size_t m = end - i < lanes ? (size_t)(end - i) : lanes;
        ssize_t got = hash_chunks(fd, size, i, m, block, is);
        if (got < 0)
            return err_sys(e, (int)-got, "%s", path);
        for (size_t k = 0; k < m; k++, i++)
            if ((ssize_t)k >= got || !id_eq(&is[k], &hashes[i])) {
                *ret_chunk = i;
                return err_set(e, SF_EINTEGRITY, "%s: chunk %llu is damaged", path,
                               (unsigned long long)i);
            }
    }
    if ((uint64_t)st.st_size != size)
        return err_set(e, SF_EINTEGRITY, "%s: is %llu bytes long, not %llu", path,
                       (unsigned long long)st.st_size, (unsigned long long)size);
    return end == n;
}

int cas_verify(const struct cas *c, const struct id *id, uint64_t *ret_chunk, struct err *e)
{
    int r = cas_verify_part(c, id, 0, UINT64_MAX, ret_chunk, e);
    return r < 0 ? r : 0;
}
