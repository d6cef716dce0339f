#include "proto/cas/grow.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"

struct cas_grow {
    struct cas *cas; /* borrowed */
    char *path, *list_path;
    int fd, list_fd;
    uint64_t taken_b;
    uint64_t listed; /* chunks in the list, durable */
    struct id *late; /* hashes of whole chunks behind those */
    size_t n_late, room_late;
    struct hasher hash; /* of the chunk that is not whole */
};

static char *path_of(const struct cas *c, const struct id *key, const char *suffix)
{
    char hex[ID_HEX_LEN];
    id_hex(key, hex);
    return path_fmt("%s/growing/%s%s", cas_dir(c), hex, suffix);
}

static void grow_free(struct cas_grow *g)
{
    closep(&g->fd);
    closep(&g->list_fd);
    free(g->path);
    free(g->list_path);
    free(g->late);
    free(g);
}

static void grow_freep(struct cas_grow **g)
{
    if (*g)
        grow_free(*g);
}

/* What is behind the last whole chunk that is in the list was not durable, and is not counted. */
static int resume(struct cas_grow *g, struct err *e)
{
    struct stat st, list;
    if (fstat(g->fd, &st) < 0 || fstat(g->list_fd, &list) < 0)
        return err_sys(e, errno, "%s", g->path);
    uint64_t chunks = (uint64_t)st.st_size / CID_CHUNK, hashes = (uint64_t)list.st_size / ID_LEN;
    g->listed = chunks < hashes ? chunks : hashes;
    g->taken_b = g->listed * CID_CHUNK;
    if (ftruncate(g->fd, (off_t)g->taken_b) < 0 ||
        ftruncate(g->list_fd, (off_t)(g->listed * ID_LEN)) < 0)
        return err_sys(e, errno, "%s", g->path);
    cas_grow_count(g->cas, (int64_t)g->taken_b - (int64_t)st.st_size);
    return 0;
}

int cas_grow_open(struct cas *c, const struct id *key, bool make, struct cas_grow **ret,
                  struct err *e)
{
    CLEANUP(grow_freep) struct cas_grow *g = calloc(1, sizeof(*g));
    CLEANUP(freep) char *dir = path_fmt("%s/growing", cas_dir(c));
    if (!g || !dir)
        return err_sys(e, ENOMEM, "%s", cas_dir(c));
    g->cas = c;
    g->fd = g->list_fd = -1;
    g->path = path_of(c, key, "");
    g->list_path = path_of(c, key, ".hashes");
    if (!g->path || !g->list_path)
        return err_sys(e, ENOMEM, "%s", dir);
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT : 0);
    int r = make ? dir_make(dir, 0700, e) : 0;
    if (r < 0)
        return r;
    g->fd = open(g->path, flags, 0600);
    if (g->fd >= 0)
        g->list_fd = open(g->list_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (g->fd < 0 || g->list_fd < 0)
        return err_sys(e, errno, "%s", g->path);
    r = make ? dir_sync(dir) : 0;
    if (r < 0)
        return err_sys(e, -r, "%s", dir);
    r = resume(g, e);
    if (r < 0)
        return r;
    hasher_init(&g->hash);
    *ret = TAKE(g);
    return 0;
}

uint64_t cas_grow_durable(const struct cas_grow *g)
{
    return g->listed * CID_CHUNK;
}

static int chunk_over(struct cas_grow *g, struct err *e)
{
    if (g->n_late == g->room_late) {
        size_t room = g->room_late ? g->room_late * 2 : 16;
        void *p = realloc(g->late, room * sizeof(*g->late));
        if (!p)
            return err_sys(e, ENOMEM, "%s", g->path);
        g->late = p;
        g->room_late = room;
    }
    /* started now, most of it is on the disk when a sync waits for it */
    sync_file_range(g->fd, (off_t)(g->taken_b / CID_CHUNK * CID_CHUNK), CID_CHUNK,
                    SYNC_FILE_RANGE_WRITE);
    hasher_end(&g->hash, &g->late[g->n_late++]);
    hasher_init(&g->hash);
    return 0;
}

int cas_grow_add(struct cas_grow *g, const void *p, size_t n, struct err *e)
{
    const uint8_t *b = p;
    while (n) {
        size_t part = CID_CHUNK - g->taken_b % CID_CHUNK;
        if (part > n)
            part = n;
        int r = pwrite_all(g->fd, b, part, (off_t)g->taken_b);
        if (r < 0)
            return err_sys(e, -r, "%s", g->path);
        struct hasher before = g->hash;
        hasher_add(&g->hash, b, part);
        r = (g->taken_b + part) % CID_CHUNK ? 0 : chunk_over(g, e);
        if (r < 0) {
            g->hash = before;
            return r;
        }
        g->taken_b += part;
        cas_grow_count(g->cas, (int64_t)part);
        b += part;
        n -= part;
    }
    return 0;
}

int cas_grow_sync(struct cas_grow *g, struct err *e)
{
    if (!g->n_late)
        return 0;
    /* bytes first: a hash in the list says that they are durable */
    if (fdatasync(g->fd) < 0)
        return err_sys(e, errno, "%s", g->path);
    int r = pwrite_all(g->list_fd, g->late, g->n_late * ID_LEN, (off_t)(g->listed * ID_LEN));
    if (r < 0)
        return err_sys(e, -r, "%s", g->list_path);
    if (fdatasync(g->list_fd) < 0)
        return err_sys(e, errno, "%s", g->list_path);
    g->listed += g->n_late;
    g->n_late = 0;
    return 0;
}

/* All hashes, the last chunk's too. *ret owned. */
static int all_hashes(struct cas_grow *g, struct id **ret, size_t *ret_n, struct err *e)
{
    size_t n = (size_t)(g->listed + g->n_late), last = g->taken_b % CID_CHUNK != 0;
    CLEANUP(freep) struct id *v = malloc((n + 1) * sizeof(*v));
    if (!v)
        return err_sys(e, ENOMEM, "%s", g->path);
    ssize_t got = pread_full(g->list_fd, v, g->listed * ID_LEN, 0);
    if (got < 0 || (uint64_t)got != g->listed * ID_LEN)
        return err_sys(e, got < 0 ? (int)-got : EIO, "%s", g->list_path);
    if (g->n_late)
        memcpy(v + g->listed, g->late, g->n_late * ID_LEN);
    if (last) {
        struct hasher h = g->hash; /* this may be tried again */
        hasher_end(&h, &v[n]);
    }
    *ret = TAKE(v);
    *ret_n = n + last;
    return 0;
}

int cas_grow_end(struct cas_grow **gp, const struct id *id, struct err *e)
{
    struct cas_grow *g = *gp;
    CLEANUP(freep) struct id *hashes = NULL;
    struct id got;
    size_t n = 0;
    int r = all_hashes(g, &hashes, &n, e);
    if (r < 0)
        return r;
    cid_of_chunks(g->taken_b, hashes, n, &got);
    if (!id_eq(&got, id)) {
        char want[ID_HEX_LEN];
        id_hex(id, want);
        return err_set(e, SF_EINTEGRITY, "artefact %.12s: what came is not what was written", want);
    }
    if (!cas_check(g->cas, id)) {
        r = cas_adopt(g->cas, id, g->taken_b, hashes, n, g->path, g->fd, e);
        if (r < 0)
            return r;
    } else {
        unlink(g->path);
    }
    unlink(g->list_path);
    cas_grow_count(g->cas, -(int64_t)g->taken_b);
    grow_free(g);
    *gp = NULL;
    return 0;
}

void cas_grow_close(struct cas_grow **gp, bool drop)
{
    struct cas_grow *g = *gp;
    if (!g)
        return;
    *gp = NULL;
    if (drop) {
        unlink(g->path);
        unlink(g->list_path);
        cas_grow_count(g->cas, -(int64_t)g->taken_b);
    }
    grow_free(g);
}

void cas_grow_collect(struct cas *c, uint64_t before_wall_ms)
{
    CLEANUP(freep) char *dir = path_fmt("%s/growing", cas_dir(c));
    DIR *d = dir ? opendir(dir) : NULL;
    if (!d)
        return;
    for (struct dirent *x; (x = readdir(d));) {
        char list[ID_HEX_LEN + 8], hex[ID_HEX_LEN];
        struct id key;
        struct stat st;
        snprintf(hex, sizeof(hex), "%.64s", x->d_name);
        if (!strcmp(x->d_name + strlen(hex), ".hashes") &&
            fstatat(dirfd(d), hex, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
            unlinkat(dirfd(d), x->d_name, 0); /* it became an artefact just before a crash */
        if (id_parse(x->d_name, &key, NULL) < 0 ||
            fstatat(dirfd(d), x->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            (uint64_t)st.st_mtim.tv_sec * 1000 >= before_wall_ms)
            continue;
        snprintf(list, sizeof(list), "%.64s.hashes", x->d_name);
        if (unlinkat(dirfd(d), x->d_name, 0) == 0)
            cas_grow_count(c, -(int64_t)st.st_size);
        unlinkat(dirfd(d), list, 0);
    }
    closedir(d);
}
