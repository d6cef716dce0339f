#include "agent/product.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/ring.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

enum {
    INFO_MAX = 65536,     /* of task_end.info */
    INLINE_MAX = 4096,    /* of an output inside the info: the worst JSON is six times as long */
    OUTPUT_MAX = 4 << 20, /* of a kept output; the shim keeps less */
};

void products_clear(struct products *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->v[i].path);
        free(p->v[i].name);
    }
    free(p->v);
    json_decref(p->info);
    *p = (struct products){ 0 };
}

static struct product *add(struct products *p, const char *path, const char *name, const char *kind,
                           json_t *at)
{
    struct product *v = realloc(p->v, (p->n + 1) * sizeof(*v));
    if (!v)
        return NULL;
    p->v = v;
    v[p->n] =
        (struct product){ .path = strdup(path), .name = strdup(name), .kind = kind, .at = at };
    if (!v[p->n].path || !v[p->n].name) {
        free(v[p->n].path);
        free(v[p->n].name);
        return NULL;
    }
    return &v[p->n++];
}

static int read_json(const char *dir, const char *name, json_t **ret, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(INFO_MAX * 2);
    if (!path)
        return err_sys(e, ENOMEM, "%s", dir);
    int r = file_read(path, &b, e);
    if (r < 0)
        return r;
    *ret = json_loadb(b.data ? (char *)b.data : "", b.len, 0, NULL);
    return json_is_object(*ret) ? 0 : err_set(e, SF_EINTEGRITY, "%s: not readable", path);
}

static int list_trace(const char *dir, struct products *p, struct err *e)
{
    int r = read_json(dir, "info.json", &p->info, e);
    if (r < 0)
        return r;
    struct id id;
    const char *hex = json_string_value(json_object_get(p->info, "id"));
    if (!hex || id_parse(hex, &id, NULL) < 0)
        return err_set(e, SF_EINTEGRITY, "%s/info.json: names no trace", dir);
    CLEANUP(freep) char *path = path_fmt("%s/product", dir);
    struct product *x = path ? add(p, path, "", "trace", p->info) : NULL;
    if (!x)
        return err_sys(e, ENOMEM, "%s", dir);
    x->id = id;
    x->known = true;
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* A stream of a command: what its bounded log kept. Short text goes into the info itself. */
static int list_output(const char *dir, const char *stream, struct products *p, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, stream);
    CLEANUP(freep) char *kept = path_fmt("%s/%s.kept", dir, stream);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(OUTPUT_MAX);
    uint64_t total = 0;
    json_t *at = json_object();
    if (!path || !kept || !at || json_object_set_new(p->info, stream, at) < 0)
        return err_sys(e, ENOMEM, "%s", dir);
    int r = ring_read(path, 0, OUTPUT_MAX, &b, &total, e);
    if (r < 0 && r != -ENOENT) /* a command that could not be started has no output */
        return r;
    json_object_set_new(at, "total_b", json_u64(total));
    json_object_set_new(at, "kept_b", json_u64(b.len));
    /* a zero byte is no part of any text that the decoders of the info take */
    bool short_text = b.len <= INLINE_MAX && (!b.len || !memchr(b.data, 0, b.len));
    json_t *text = short_text ? json_stringn(b.len ? (char *)b.data : "", b.len) : NULL;
    if (text)
        return json_object_set_new(at, "text", text) < 0 ? err_sys(e, ENOMEM, "%s", dir) : 0;
    r = file_write(kept, b.data, b.len, 0600, true, e);
    if (r < 0)
        return r;
    return add(p, kept, stream, "file", at) ? 0 : err_sys(e, ENOMEM, "%s", dir);
}

static int list_exec(const char *dir, const json_t *spec, struct products *p, struct err *e)
{
    CLEANUP(json_decrefp) json_t *files = json_array();
    json_t *name;
    size_t i;
    p->info = json_object();
    int r = list_output(dir, "stdout", p, e);
    if (r == 0)
        r = list_output(dir, "stderr", p, e);
    if (r < 0 || !files || json_object_set(p->info, "files", files) < 0)
        return r < 0 ? r : err_sys(e, ENOMEM, "%s", dir);
    json_array_foreach (json_object_get(spec, "copy"), i, name) {
        const char *s = json_string_value(name);
        json_t *at = json_pack("{s:O}", "path", name);
        CLEANUP(freep)
        char *path = s && *s == '/' ? strdup(s) : path_fmt("%s/cwd/%s", dir, s ? s : "");
        struct product *x = at && path ? add(p, path, base_name(s), "file", at) : NULL;
        if (json_array_append_new(files, at) < 0 || !x)
            return err_sys(e, ENOMEM, "%s", dir);
        x->optional = true;
    }
    return 0;
}

static int list_collect(const char *dir, struct products *p, struct err *e)
{
    int r = read_json(dir, "info.json", &p->info, e);
    json_t *at;
    size_t i;
    if (r == -ENOENT && (p->info = json_object())) /* it failed: what it said is all */
        r = 0;
    if (r == 0)
        r = list_output(dir, "stdout", p, e);
    if (r == 0)
        r = list_output(dir, "stderr", p, e);
    if (r < 0)
        return r;
    json_array_foreach (json_object_get(p->info, "files"), i, at) {
        const char *s = json_string_value(json_object_get(at, "path")),
                   *name = json_string_value(json_object_get(at, "name")),
                   *kind = json_string_value(json_object_get(at, "kind"));
        if (!s || !name || !kind)
            return err_set(e, SF_EINTEGRITY, "%s/info.json: a file without a path", dir);
        CLEANUP(freep) char *path = path_fmt("%s/%s", dir, s);
        struct product *x =
            path ? add(p, path, name, strcmp(kind, "log") ? "file" : "log", at) : NULL;
        if (!x)
            return err_sys(e, ENOMEM, "%s", dir);
        const char *hex = json_string_value(json_object_get(at, "id"));
        x->told = hex && id_parse(hex, &x->id, NULL) == 0;
    }
    return 0;
}

int products_list(const char *dir, enum core_kind kind, const json_t *spec, struct products *ret,
                  struct err *e)
{
    *ret = (struct products){ 0 };
    int r = kind == CORE_TRACE  ? list_trace(dir, ret, e)
            : kind == CORE_EXEC ? list_exec(dir, spec, ret, e)
                                : list_collect(dir, ret, e);
    if (r < 0)
        products_clear(ret);
    return r;
}

/* A file that a command was to leave: whatever is wrong with it belongs to the answer, not to the attempt. */
static bool openable(struct product *x)
{
    struct err why = { 0 };
    struct stat st;
    CLEANUP(closep) int fd = file_open_regular(x->path, &st, &why);
    if (fd >= 0)
        return true;
    json_object_set_new(
        x->at, "error",
        json_str(why.code == SF_EFORMAT ? "not a regular file" : strerror(why.code)));
    return false;
}

int products_store(struct products *p, struct cas *cas, struct err *e)
{
    for (size_t i = 0; i < p->n; i++) {
        struct product *x = &p->v[i];
        struct id id;
        uint64_t size_b = 0;
        if (x->stored || x->done)
            continue;
        if (x->grown) {
            struct stat st;
            if (stat(x->path, &st) < 0)
                return err_sys(e, errno, "%s", x->path);
            x->stored = true;
            json_object_set_new(x->at, "bytes", json_u64((uint64_t)st.st_size));
            continue;
        }
        uint64_t bad;
        if (x->known && cas_check(cas, &x->id) && cas_verify(cas, &x->id, &bad, NULL) == 0) {
            x->stored = true;
            continue;
        }
        if (x->optional && !openable(x)) {
            x->done = true;
            continue;
        }
        int r = cas_import(cas, x->path, &id, &size_b, e);
        if (r == 0 && x->known && !id_eq(&id, &x->id))
            r = err_set(e, SF_EINTEGRITY, "%s: does not hash to its own name", x->path);
        if (r < 0)
            return r;
        x->stored = true;
        if (x->known) {
            unlink(x->path); /* a trace is large, and its id finds it again */
            continue;
        }
        x->id = id;
        json_object_set_new(x->at, "bytes", json_u64(size_b));
        json_object_set_new(x->at, "id", json_id(&id));
    }
    return 0;
}

char *products_info(const struct products *p)
{
    /* where the files lay is the agent's own business */
    CLEANUP(json_decrefp) json_t *j = json_copy(p->info);
    json_t *files = json_deep_copy(json_object_get(j, "files")), *f;
    size_t i;
    json_array_foreach (files, i, f)
        if (json_object_get(
                f, "name")) /* a command's files have none: their path is what was asked for */
            json_object_del(f, "path");
    if (files)
        json_object_set_new(j, "files", files);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (text && strlen(text) > INFO_MAX) {
        free(text);
        return NULL;
    }
    return text;
}
