#include "deploy/release.h"

#include <fcntl.h>
#include <gnu/libc-version.h>
#include <limits.h>
#include <link.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deploy/embed.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

extern char **environ;

/* Libraries that belong to the host: they must fit its kernel and its dynamic loader. */
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

struct item {
    char *name; /* inside the pack */
    char *path; /* NULL: text */
    const char *text;
    size_t text_n;
    mode_t mode;
};

struct items {
    struct item v[128];
    size_t n;
    bool full;
};

static void add(struct items *t, const char *name, const char *path, const char *text, size_t n,
                mode_t mode)
{
    if (t->n == ARRAY_LEN(t->v)) {
        t->full = true;
        return;
    }
    struct item *i = &t->v[t->n++];
    *i = (struct item){ strdup(name), path ? strdup(path) : NULL, text, n, mode };
    if (!i->name || (path && !i->path))
        t->full = true;
}

static void items_clear(struct items *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free(t->v[i].name);
        free(t->v[i].path);
    }
}

static int on_object(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size;
    const char *slash = strrchr(info->dlpi_name, '/');
    if (!slash || is_glibc(slash + 1) || strstr(slash + 1, "libasan") ||
        strstr(slash + 1, "libubsan"))
        return 0;
    char name[300];
    snprintf(name, sizeof(name), "lib/%.200s", slash + 1);
    add(user, name, info->dlpi_name, NULL, 0, 0644);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct item *)a)->name, ((const struct item *)b)->name);
}

static int copy(const struct item *i, const char *dir, struct hasher *h, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(256u << 20);
    int r = i->path ? file_read(i->path, &b, e) : buf_add(&b, i->text, i->text_n);
    if (r < 0)
        return r;
    CLEANUP(freep) char *to = path_fmt("%s/%s", dir, i->name);
    if (!to)
        return err_sys(e, ENOMEM, "release");
    hasher_add(h, i->name, strlen(i->name) + 1);
    struct id id;
    hash_bytes(b.data, b.len, &id);
    hasher_add(h, id.b, ID_LEN);
    CLEANUP(closep) int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, i->mode);
    if (fd < 0)
        return err_sys(e, errno, "%s", to);
    fchmod(fd, i->mode);
    r = write_all(fd, b.data, b.len);
    return r < 0 ? err_sys(e, -r, "%s", to) : 0;
}

/* Run argv with its output in a file (or read back); names the program on failure. */
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
        return err_set(e, SF_EFAILED, "%s: failed with status %d", argv[0], status);
    return 0;
}

static int sha256(const char *path, const char *scratch, char ret[65], struct err *e)
{
    CLEANUP(freep) char *out = path_fmt("%s/sum", scratch);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    char *argv[] = { (char *)"sha256sum", (char *)path, NULL };
    if (!out)
        return err_sys(e, ENOMEM, "release");
    int r = tool(argv, out, e);
    if (r == 0)
        r = file_read(out, &b, e);
    if (r == 0 && b.len < 64)
        r = err_set(e, SF_EFAILED, "sha256sum: no sum of %s", path);
    if (r == 0) {
        memcpy(ret, b.data, 64);
        ret[64] = '\0';
    }
    return r;
}

static int pack(const struct items *t, const char *dir, const char *cache, struct release *ret,
                struct err *e)
{
    struct hasher h;
    hasher_init(&h);
    CLEANUP(freep) char *tree = path_fmt("%s/tree", dir), *lib = path_fmt("%s/tree/lib", dir);
    CLEANUP(freep) char *tar = path_fmt("%s/pack.tar", dir), *tgz = path_fmt("%s/pack.tgz", dir);
    if (!tree || !lib || !tar || !tgz)
        return err_sys(e, ENOMEM, "release");
    int r = dir_make(lib, 0755, e);
    for (size_t i = 0; r == 0 && i < t->n; i++)
        r = copy(&t->v[i], tree, &h, e);
    if (r < 0)
        return r;
    struct id id;
    char hex[ID_HEX_LEN];
    hasher_end(&h, &id);
    id_hex(&id, hex);
    snprintf(ret->id, sizeof(ret->id), "%.16s", hex);
    ret->pack = path_fmt("%s/%s.tgz", cache, ret->id);
    if (!ret->pack)
        return err_sys(e, ENOMEM, "release");
    if (access(ret->pack, R_OK) < 0) {
        char *tar_argv[] = { (char *)"tar",        (char *)"--sort=name",
                             (char *)"--mtime=@0", (char *)"--owner=0",
                             (char *)"--group=0",  (char *)"--numeric-owner",
                             (char *)"-C",         tree,
                             (char *)"-cf",        (char *)"-",
                             (char *)".",          NULL };
        char *gzip_argv[] = { (char *)"gzip", (char *)"-n", (char *)"-6", (char *)"-c", tar, NULL };
        r = tool(tar_argv, tar, e);
        if (r == 0)
            r = tool(gzip_argv, tgz, e);
        if (r == 0 && rename(tgz, ret->pack) < 0)
            r = err_sys(e, errno, "%s", ret->pack);
    }
    struct stat st;
    if (r == 0 && stat(ret->pack, &st) < 0)
        r = err_sys(e, errno, "%s", ret->pack);
    if (r == 0) {
        ret->pack_b = (uint64_t)st.st_size;
        r = sha256(ret->pack, dir, ret->sha256, e);
    }
    return r;
}

int release_make(const char *program, struct release *ret, struct err *e)
{
    *ret = (struct release){ 0 };
    char self[PATH_MAX];
    if (!realpath(program ? program : "/proc/self/exe", self))
        return err_sys(e, errno, "%s", program ? program : "/proc/self/exe");
    CLEANUP(freep)
    char *shim = path_fmt("%.*s/siofleet-shim", (int)(strrchr(self, '/') - self), self);
    CLEANUP(freep)
    char *cache = path_xdg("CACHE"), *releases = cache ? path_fmt("%s/release", cache) : NULL;
    CLEANUP(freep) char *dir = releases ? path_fmt("%s/make-XXXXXX", releases) : NULL;
    if (!shim || !dir)
        return err_sys(e, ENOMEM, "release");
    int r = dir_make(releases, 0700, e);
    if (r < 0)
        return r;
    if (!mkdtemp(dir))
        return err_sys(e, errno, "%s", dir);

    CLEANUP(items_clear) struct items t = { .n = 0 };
    add(&t, "siofleet", self, NULL, 0, 0755);
    add(&t, "siofleet-shim", shim, NULL, 0, 0755);
    add(&t, "run-agent.sh", NULL, embed_run_agent, embed_run_agent_n, 0644);
    add(&t, "supervise.sh", NULL, embed_supervise, embed_supervise_n, 0644);
    dl_iterate_phdr(on_object, &t);
    if (t.full)
        r = err_set(e, ENOMEM, "release: too many libraries");
    qsort(t.v, t.n, sizeof(t.v[0]), by_name);
    if (r == 0)
        r = pack(&t, dir, releases, ret, e);
    dir_remove(dir, NULL);
    snprintf(ret->glibc, sizeof(ret->glibc), "%s", gnu_get_libc_version());
    snprintf(ret->version, sizeof(ret->version), "%s", SIOFLEET_VERSION);
    if (r < 0)
        release_clear(ret);
    return r;
}

void release_clear(struct release *r)
{
    free(r->pack);
    *r = (struct release){ 0 };
}
