#include "collect/images.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "collect/kit.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"

static int use_lock(int how, struct err *e)
{
    CLEANUP(freep) char *cache = path_xdg("CACHE");
    CLEANUP(freep) char *dir = cache ? path_fmt("%s/vm", cache) : NULL;
    CLEANUP(freep) char *path = dir ? path_fmt("%s/.use", dir) : NULL;
    if (!path)
        return err_set(e, ENOMEM, "cache");
    int r = dir_make(dir, 0700, e);
    if (r < 0)
        return r;
    CLEANUP(closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, errno, "%s", path);
    if (flock(fd, how) < 0)
        return errno == EWOULDBLOCK
                   ? err_set(e, EBUSY, "%s: a collection is running (vm ls); nothing is removed",
                             cache)
                   : err_sys(e, errno, "%s", path);
    return take_fd(&fd);
}

int images_hold(struct err *e)
{
    return use_lock(LOCK_SH, e);
}

/* Blocks on the disk, in bytes; links are not followed. */
static uint64_t weigh(const char *path, unsigned depth)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return 0;
    uint64_t all = (uint64_t)st.st_blocks * 512;
    DIR *d = S_ISDIR(st.st_mode) && depth < 64 ? opendir(path) : NULL;
    struct dirent *de;
    while (d && (de = readdir(d))) {
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
            continue;
        CLEANUP(freep) char *p = path_fmt("%s/%s", path, de->d_name);
        if (p)
            all += weigh(p, depth + 1);
    }
    if (d)
        closedir(d);
    return all;
}

/* Whether a build holds CACHE/KIND/lock. */
static bool building(const char *cache, const char *kind)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s/lock", cache, kind);
    CLEANUP(closep) int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
}

static void add(json_t *a, const char *kind, const char *id, const char *path, bool current)
{
    struct stat st;
    char made[CLOCK_RFC3339_LEN];
    if (lstat(path, &st) < 0)
        return;
    clock_rfc3339((uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000,
                  made);
    json_array_append_new(a, json_pack("{s:s, s:o, s:o, s:s, s:b, s:o}", "kind", kind, "id",
                                       json_str(id), "bytes", json_u64(weigh(path, 0)), "made",
                                       made, "current", current, "path", json_str(path)));
}

/* Every folder of CACHE/PLACE; used: a path inside the one that is current. */
static void walk(json_t *a, const char *cache, const char *place, const char *kind,
                 const char *used)
{
    CLEANUP(freep) char *dir = path_fmt("%s/%s", cache, place);
    DIR *d = dir ? opendir(dir) : NULL;
    struct dirent *de;
    struct stat st;
    while (d && (de = readdir(d))) {
        CLEANUP(freep) char *p = path_fmt("%s/%s", dir, de->d_name);
        if (!p || !strcmp(de->d_name, ".") || !strcmp(de->d_name, "..") || lstat(p, &st) < 0 ||
            !S_ISDIR(st.st_mode))
            continue;
        size_t n = strlen(p);
        bool current = used && strncmp(used, p, n) == 0 && (used[n] == '/' || !used[n]);
        if (strcmp(de->d_name, "work") == 0 || de->d_name[0] == '.') {
            if (!building(cache, place))
                add(a, "unfinished", place, p, false);
        } else {
            bool source = strcmp(de->d_name, "source") == 0;
            add(a, source ? "source" : kind, source ? place : de->d_name, p, current);
        }
    }
    if (d)
        closedir(d);
}

json_t *images_list(void)
{
    struct kit_qemu q = { 0 };
    CLEANUP(freep) char *image = NULL, *disk = NULL, *kit = NULL;
    CLEANUP(freep) char *cache = path_xdg("CACHE");
    json_t *a = json_array();
    if (!cache || !a)
        return a;
    kit_unpack(&kit, NULL);
    kit_qemu(false, &q, NULL);
    kit_image(false, &image, NULL);
    kit_disk(false, &disk, NULL);
    walk(a, cache, "qemu", "qemu", q.path);
    walk(a, cache, "image", "image", image);
    walk(a, cache, "disk", "disk", disk);
    walk(a, cache, "kit", "scripts", kit);
    kit_qemu_clear(&q);
    return a;
}

static bool matches(const json_t *item, const char *prefix)
{
    const char *id = json_string_value(json_object_get(item, "id"));
    return id && strncmp(id, prefix, strlen(prefix)) == 0;
}

/* Each prefix names exactly one item that may go. */
static int check_prefixes(const json_t *list, char *const prefix[], int n, bool all, struct err *e)
{
    for (int k = 0; k < n; k++) {
        size_t i, found = 0;
        json_t *v;
        json_array_foreach (list, i, v) {
            if (!matches(v, prefix[k]))
                continue;
            found++;
            if (!all && json_is_true(json_object_get(v, "current")))
                return err_set(e, SF_EUSAGE,
                               "%s: a collection would take it (--all removes it too)", prefix[k]);
        }
        if (found != 1)
            return err_set(e, ENOENT, "%s: %s in the cache; see vm images", prefix[k],
                           found ? "several" : "nothing of that id");
    }
    return 0;
}

int images_clean(char *const prefix[], int n, bool all, bool dry, json_t **ret, struct err *e)
{
    *ret = NULL;
    CLEANUP(closep) int lock = use_lock(LOCK_EX | LOCK_NB, e);
    if (lock < 0)
        return lock;
    CLEANUP(json_decrefp) json_t *list = images_list();
    CLEANUP(json_decrefp) json_t *gone = json_array();
    int r = check_prefixes(list, prefix, n, all, e);
    size_t i;
    json_t *v;
    json_array_foreach (list, i, v) {
        bool wanted = n == 0;
        for (int k = 0; k < n; k++)
            wanted |= matches(v, prefix[k]);
        if (r < 0 || !wanted || (!all && json_is_true(json_object_get(v, "current"))))
            continue;
        if (!dry)
            r = dir_remove(json_string_value(json_object_get(v, "path")), e);
        if (r == 0)
            json_array_append(gone, v);
    }
    if (r < 0)
        return r;
    *ret = TAKE(gone);
    return 0;
}
