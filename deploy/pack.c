#include "deploy/pack.h"

#include <fcntl.h>
#include <fts.h>
#include <link.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/hash.h"

extern char **environ;

/* ---- the list */

static struct pack_item *add(struct pack_list *l, const char *name, mode_t mode)
{
    static struct pack_item none;
    if (l->n == ARRAY_LEN(l->v)) {
        l->full = true;
        return &none;
    }
    struct pack_item *i = &l->v[l->n++];
    *i = (struct pack_item){ .name = strdup(name), .mode = mode };
    if (!i->name)
        l->full = true;
    return i;
}

void pack_add(struct pack_list *l, const char *name, const char *path, mode_t mode)
{
    char *copy = strdup(path);
    if (copy && l->n < ARRAY_LEN(l->v)) {
        add(l, name, mode)->path = copy;
    } else {
        free(copy);
        l->full = true;
    }
}

void pack_add_text(struct pack_list *l, const char *name, const char *text, size_t n, mode_t mode)
{
    struct pack_item *i = add(l, name, mode);
    i->text = text;
    i->text_n = n;
}

int pack_add_tree(struct pack_list *l, const char *prefix, const char *dir, const char *skip,
                  struct err *e)
{
    char *const roots[] = { (char *)dir, NULL };
    FTS *walk = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    if (!walk)
        return err_sys(e, errno, "%s", dir);
    int r = 0;
    size_t n = strlen(dir);
    for (FTSENT *f; r == 0 && (f = fts_read(walk));) {
        if (f->fts_info == FTS_DNR || f->fts_info == FTS_ERR || f->fts_info == FTS_NS)
            r = err_sys(e, f->fts_errno, "%s", f->fts_path);
        if (f->fts_info != FTS_F || (skip && !strncmp(f->fts_name, skip, strlen(skip))))
            continue;
        CLEANUP(freep) char *name = path_fmt("%s%s", prefix, f->fts_path + n);
        if (name)
            pack_add(l, name, f->fts_path, f->fts_statp->st_mode & 0111 ? 0755 : 0644);
        else
            l->full = true;
    }
    fts_close(walk);
    return r;
}

void pack_list_clear(struct pack_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i].name);
        free(l->v[i].path);
    }
    l->n = 0;
}

/* ---- other programs */

/* Run argv with its output in the file out. */
static int tool(char *const argv[], const char *out, struct err *e)
{
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t pid;
    int r = posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    if (r)
        return err_sys(e, r, "%s", argv[0]);
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(e, errno, "%s", argv[0]);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return err_set(e, SF_EFAILED, "%s: failed with status %d", argv[0],
                       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return 0;
}

/* The same with what it printed in b. */
static int tool_out(char *const argv[], struct buf *b, struct err *e)
{
    char out[] = "/tmp/siofleet-XXXXXX";
    CLEANUP(closep) int fd = mkstemp(out);
    if (fd < 0)
        return err_sys(e, errno, "%s", out);
    int r = tool(argv, out, e);
    if (r == 0)
        r = file_read(out, b, e);
    unlink(out);
    return r;
}

/* ---- libraries */

/* Those that belong to the host: they must fit its kernel and its dynamic loader. */
static bool is_glibc(const char *name)
{
    static const char *const names[] = { "ld-linux",   "libc.so",   "libm.so",      "libpthread.so",
                                         "libdl.so",   "librt.so",  "libresolv.so", "libnss_",
                                         "libutil.so", "linux-vdso" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!strncmp(name, names[i], strlen(names[i])))
            return true;
    return false;
}

struct libs {
    struct pack_list *l;
    const char *prefix;
};

static void add_lib(const struct libs *s, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash || is_glibc(slash + 1) || strstr(slash + 1, "libasan") ||
        strstr(slash + 1, "libubsan"))
        return;
    CLEANUP(freep) char *name = path_fmt("%s/%s", s->prefix, slash + 1);
    if (name)
        pack_add(s->l, name, path, 0644);
    else
        s->l->full = true;
}

static int on_object(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size;
    add_lib(user, info->dlpi_name);
    return 0;
}

int pack_add_libs(struct pack_list *l, const char *prefix, const char *program, struct err *e)
{
    struct libs s = { l, prefix };
    if (!program) {
        dl_iterate_phdr(on_object, &s);
        return 0;
    }
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    char *argv[] = { (char *)"ldd", (char *)program, NULL };
    int r = tool_out(argv, &b, e);
    char *save = NULL;
    for (char *line = r == 0 && b.len ? strtok_r((char *)b.data, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        char *path = strstr(line, " => /");
        if (path) {
            path += 4;
            path[strcspn(path, " ")] = '\0';
            add_lib(&s, path);
        }
    }
    return r;
}

/* ---- the archive */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pack_item *)a)->name, ((const struct pack_item *)b)->name);
}

static int item_hash(const struct pack_item *i, struct hasher *h, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(512u << 20);
    int r = i->path ? file_read(i->path, &b, e) : buf_add(&b, i->text, i->text_n);
    if (r < 0)
        return r;
    struct id id;
    hash_bytes(b.data, b.len, &id);
    hasher_add(h, i->name, strlen(i->name) + 1);
    hasher_add(h, id.b, ID_LEN);
    return 0;
}

static int item_copy(const struct pack_item *i, const char *tree, struct err *e)
{
    CLEANUP(freep) char *to = path_fmt("%s/%s", tree, i->name), *dir = to ? strdup(to) : NULL;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(512u << 20);
    if (!dir)
        return err_sys(e, ENOMEM, "pack");
    *strrchr(dir, '/') = '\0';
    int r = dir_make(dir, 0755, e);
    if (r == 0)
        r = i->path ? file_read(i->path, &b, e) : buf_add(&b, i->text, i->text_n);
    if (r < 0)
        return r;
    CLEANUP(closep) int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, i->mode);
    if (fd < 0)
        return err_sys(e, errno, "%s", to);
    fchmod(fd, i->mode);
    r = write_all(fd, b.data, b.len);
    return r < 0 ? err_sys(e, -r, "%s", to) : 0;
}

static int archive(const struct pack_list *l, const char *cache, const char *path, struct err *e)
{
    CLEANUP(freep) char *dir = path_fmt("%s/make-XXXXXX", cache);
    if (!dir)
        return err_sys(e, ENOMEM, "pack");
    if (!mkdtemp(dir))
        return err_sys(e, errno, "%s", dir);
    CLEANUP(freep) char *tree = path_fmt("%s/tree", dir);
    CLEANUP(freep) char *tar = path_fmt("%s/pack.tar", dir), *tgz = path_fmt("%s/pack.tgz", dir);
    int r = tree && tar && tgz ? 0 : err_sys(e, ENOMEM, "pack");
    for (size_t i = 0; r == 0 && i < l->n; i++)
        r = item_copy(&l->v[i], tree, e);
    char *tar_argv[] = { (char *)"tar",        (char *)"--sort=name",
                         (char *)"--mtime=@0", (char *)"--owner=0",
                         (char *)"--group=0",  (char *)"--numeric-owner",
                         (char *)"-C",         tree,
                         (char *)"-cf",        (char *)"-",
                         (char *)".",          NULL };
    char *gzip_argv[] = { (char *)"gzip", (char *)"-n", (char *)"-6", (char *)"-c", tar, NULL };
    if (r == 0)
        r = tool(tar_argv, tar, e);
    if (r == 0)
        r = tool(gzip_argv, tgz, e);
    if (r == 0) { /* later calls take it from the cache as it is */
        CLEANUP(closep) int fd = open(tgz, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0)
            r = err_sys(e, errno, "%s", tgz);
    }
    if (r == 0 && rename(tgz, path) < 0)
        r = err_sys(e, errno, "%s", path);
    dir_remove(dir, NULL);
    return r;
}

static int sha256(const char *path, char ret[65], struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    char *argv[] = { (char *)"sha256sum", (char *)path, NULL };
    int r = tool_out(argv, &b, e);
    if (r == 0 && b.len < 64)
        r = err_set(e, SF_EFAILED, "sha256sum: no sum of %s", path);
    if (r == 0) {
        /* a name with a backslash or line end in it makes the line start with a backslash */
        memcpy(ret, b.data + (b.data[0] == '\\'), 64);
        ret[64] = '\0';
    }
    return r;
}

int pack_make(struct pack_list *l, struct pack *ret, struct err *e)
{
    *ret = (struct pack){ .size_b = 0 };
    if (l->full)
        return err_set(e, ENOMEM, "pack: more than %zu files", ARRAY_LEN(l->v));
    CLEANUP(freep) char *cache = path_xdg("CACHE");
    CLEANUP(freep) char *dir = cache ? path_fmt("%s/release", cache) : NULL;
    if (!dir)
        return err_sys(e, ENOMEM, "pack");
    int r = dir_make(dir, 0700, e);
    qsort(l->v, l->n, sizeof(l->v[0]), by_name);
    struct hasher h;
    hasher_init(&h);
    for (size_t i = 0; r == 0 && i < l->n; i++)
        r = item_hash(&l->v[i], &h, e);
    if (r < 0)
        return r;
    struct id id;
    char hex[ID_HEX_LEN];
    hasher_end(&h, &id);
    id_hex(&id, hex);
    snprintf(ret->id, sizeof(ret->id), "%.16s", hex);
    ret->path = path_fmt("%s/%s.tgz", dir, ret->id);
    if (!ret->path)
        return err_sys(e, ENOMEM, "pack");
    if (access(ret->path, R_OK) < 0)
        r = archive(l, dir, ret->path, e);
    struct stat st;
    if (r == 0 && stat(ret->path, &st) < 0)
        r = err_sys(e, errno, "%s", ret->path);
    if (r == 0) {
        ret->size_b = (uint64_t)st.st_size;
        r = sha256(ret->path, ret->sha256, e);
    }
    if (r < 0)
        pack_clear(ret);
    return r;
}

int pack_unpack(const struct pack *p, const char *dir, struct err *e)
{
    char *argv[] = { (char *)"tar", (char *)"-C", (char *)dir, (char *)"-xzf", p->path, NULL };
    return tool(argv, "/dev/null", e);
}

void pack_clear(struct pack *p)
{
    free(p->path);
    *p = (struct pack){ .size_b = 0 };
}
