#include "collect/recipe.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collect/conf.h"
#include "collect/kit_hash.h"
#include "collect/stack.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/ini.h"

enum { INI_MAX = 64 << 10, KEYS_MAX = 128, START_MS = 600000 /* guests that come and go */ };

void collect_recipe_clear(struct collect_recipe *r)
{
    free(r->ini);
    for (size_t i = 0; i < r->n_files; i++)
        free(r->file[i].path);
    *r = (struct collect_recipe){ 0 };
}

/* ---- one text for all files that mean the same */

struct word {
    const char *section, *key, *value;
};

/* bytes and duration: the later one counts, so bytes stands behind. */
static int by_name(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    int c = strcmp(x->section, y->section);
    const char *kx = strcmp(x->key, "bytes") ? x->key : "durationbytes",
               *ky = strcmp(y->key, "bytes") ? y->key : "durationbytes";
    return c ? c : strcmp(kx, ky);
}

static void take(struct word v[], size_t *n, const struct ini *ini)
{
    for (size_t i = 0; i < ini->n_sections; i++) {
        const struct ini_section *s = &ini->sections[i];
        for (size_t k = 0; k < s->n_keys; k++) {
            size_t at = 0;
            while (at < *n &&
                   (strcmp(v[at].section, s->name) != 0 || strcmp(v[at].key, s->keys[k].name) != 0))
                at++;
            if (at == KEYS_MAX)
                return;
            *n += at == *n;
            v[at] = (struct word){ s->name, s->keys[k].name, s->keys[k].value };
        }
    }
}

static bool is_file(const struct collect_conf *c, const char *key)
{
    return !strcmp(key, "kernel") || !strcmp(key, "initrd") || !strcmp(key, "script") ||
           (!strcmp(key, "disk") && !c->debootstrap);
}

/* As seen from anywhere: a host that runs it has another working folder. */
static char *whole_path(const struct ini *ini, const char *value)
{
    char *path = ini_path(ini, value);
    CLEANUP(freep) char *cwd = path && *path != '/' ? getcwd(NULL, 0) : NULL;
    if (!cwd)
        return path;
    char *whole = path_fmt("%s/%s", cwd, path);
    free(path);
    return whole;
}

static int write_ini(const struct ini *ini, const struct collect_conf *c, struct collect_recipe *r,
                     struct err *e)
{
    CLEANUP(ini_free) struct ini *own = NULL;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(INI_MAX);
    struct word v[KEYS_MAX];
    size_t n = 0;
    const char *section = "";
    int rc = ini_text(c->profile, conf_profile(c->profile), &own, e);
    if (rc < 0)
        return rc;
    take(v, &n, own);
    take(v, &n, ini);
    qsort(v, n, sizeof(v[0]), by_name);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        if (!strcmp(v[i].key, "runs") || (!strcmp(v[i].key, "bytes") && !c->bytes_b))
            continue;
        if (is_file(c, v[i].key)) {
            if (r->n_files == COLLECT_FILES_MAX)
                return err_set(e, SF_EUSAGE, "%s: too many files", ini->path);
            snprintf(r->file[r->n_files].key, sizeof(r->file[0].key), "%s", v[i].key);
            r->file[r->n_files].path = ini_path(ini, v[i].value);
            if (!r->file[r->n_files++].path)
                return err_sys(e, ENOMEM, "%s", ini->path);
            continue;
        }
        CLEANUP(freep)
        char *path = !strcmp(v[i].key, "qemu") ? whole_path(ini, v[i].value) : NULL;
        if (strcmp(section, v[i].section) != 0)
            rc = buf_addf(&b, "[%s]\n", section = v[i].section);
        if (rc >= 0)
            rc = buf_addf(&b, "%s = %s\n", v[i].key, path ? path : v[i].value);
    }
    if (rc < 0)
        return err_sys(e, -rc, "%s", ini->path);
    r->ini = strdup((char *)b.data);
    return r->ini ? 0 : err_sys(e, ENOMEM, "%s", ini->path);
}

int collect_recipe_load(const char *path, struct collect_recipe *ret, struct err *e)
{
    struct collect_conf c;
    CLEANUP(ini_free) struct ini *ini = NULL;
    char why[200];
    *ret = (struct collect_recipe){ 0 };
    int r = conf_load(path, &c, e);
    if (r == 0)
        r = ini_load(path, &ini, e);
    if (r == 0)
        r = write_ini(ini, &c, ret, e);
    if (r == 0) {
        snprintf(ret->profile, sizeof(ret->profile), "%s", c.profile);
        ret->runs = c.runs;
        ret->cores = 2 + c.guests;
        ret->memory_mib = (stack_memory(&c, why, sizeof(why)) + (1 << 20) - 1) >> 20;
        ret->kvm = c.accel == ACCEL_KVM;
        if (c.timeout_ms)
            ret->takes_ms = c.timeout_ms;
        else if (c.kind != WORK_SCRIPT && !c.bytes_b) /* as long as stack_step() waits for it */
            ret->takes_ms = START_MS + c.duration_ms * (c.icount >= 0 ? 20 : 2);
        ret->own_all = c.qemu && c.kernel && c.initrd && c.kind == WORK_SCRIPT && !c.guests;
    }
    conf_clear(&c);
    return r;
}

/* ---- what is here */

static bool in_path(const char *program)
{
    const char *dirs = getenv("PATH");
    CLEANUP(freep) char *copy = strdup(dirs ? dirs : "/usr/bin:/bin");
    char *save = NULL;
    for (char *d = copy ? strtok_r(copy, ":", &save) : NULL; d; d = strtok_r(NULL, ":", &save)) {
        CLEANUP(freep) char *p = path_fmt("%s/%s", d, program);
        if (p && access(p, X_OK) == 0)
            return true;
    }
    return false;
}

static bool has_line(const char *text, const char *line)
{
    size_t n = strlen(line);
    for (const char *p = text; (p = strstr(p, line)); p += n)
        if ((p == text || p[-1] == '\n') && (p[n] == '\n' || !p[n]))
            return true;
    return false;
}

/* Whether a folder of CACHE/what has a manifest with these lines, and the file. */
static bool made(const char *cache, const char *what, const char *line1, const char *line2,
                 const char *file)
{
    CLEANUP(freep) char *dir = path_fmt("%s/%s", cache, what);
    DIR *d = dir ? opendir(dir) : NULL;
    bool found = false;
    for (struct dirent *x; d && !found && (x = readdir(d));) {
        CLEANUP(freep) char *mf = path_fmt("%s/%s/manifest", dir, x->d_name);
        CLEANUP(freep) char *there = path_fmt("%s/%s/%s", dir, x->d_name, file);
        CLEANUP(buf_clear) struct buf b = BUF_INIT(65536);
        found = x->d_name[0] != '.' && mf && there && file_read(mf, &b, NULL) == 0 && b.len &&
                has_line((char *)b.data, line1) && has_line((char *)b.data, line2) &&
                access(there, R_OK) == 0;
    }
    if (d)
        closedir(d);
    return found;
}

enum collect_ability collect_ability(void)
{
    static const char *const tools[] = { "gcc",         "make",  "meson",   "ninja", "pkg-config",
                                         "python3",     "patch", "flock",   "cpio",  "objcopy",
                                         "dpkg-source", "xz",    "dpkg-deb" };
    CLEANUP(freep) char *cache = path_xdg("CACHE");
    bool qemu = cache && made(cache, "qemu", "series=" KIT_SERIES, "flags=" KIT_FLAGS,
                              "bin/qemu-system-x86_64");
    bool image =
        cache && made(cache, "image", "recipe=" KIT_IMAGE, "recipe=" KIT_IMAGE, "manifest");
    if (qemu && image)
        return COLLECT_IS_READY;
    for (size_t i = 0; i < ARRAY_LEN(tools); i++)
        if (!in_path(tools[i]))
            return COLLECT_CANNOT;
    return COLLECT_CAN_BUILD;
}

const char *collect_ability_name(enum collect_ability a)
{
    static const char *const names[] = { "ready", "can", "no" };
    return names[a];
}
