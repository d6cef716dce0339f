#include "agent/collect.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/grow.h"
#include "collect/collect.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

enum { INI_MAX = 128 << 10 };

static void on_term(int sig)
{
    (void)sig;
    collect_stop = 1;
}

/* RUN.ini of this host: the spec's text, one run, and where its files lie here. */
static int write_ini(const char *path, const json_t *spec, const json_t *run, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(INI_MAX);
    json_t *files = json_object_get(spec, "files"), *id;
    const json_t *inputs = json_object_get(run, "inputs");
    const char *key, *text = json_string_value(json_object_get(spec, "ini"));
    static const char *const sections[] = { "collect", "workload" };
    int r = 0;
    if (!text)
        return err_set(e, SF_EFORMAT, "task spec: no ini");
    /* the text has each section once; the files join the section of their kind */
    for (size_t i = 0; r >= 0 && i < ARRAY_LEN(sections); i++) {
        char head[32];
        snprintf(head, sizeof(head), "[%s]\n", sections[i]);
        const char *at = strstr(text, head), *body = at ? at + strlen(head) : NULL,
                   *end = body ? strstr(body, "\n[") : NULL;
        r = buf_adds(&b, head);
        if (r >= 0 && body)
            r = buf_add(&b, body, end ? (size_t)(end + 1 - body) : strlen(body));
        json_object_foreach (files, key, id) {
            bool script = !strcmp(key, "script");
            const char *hex = json_string_value(id),
                       *at_path = json_string_value(json_object_get(inputs, hex ? hex : ""));
            if (script != (i == 1))
                continue;
            if (!at_path)
                return err_set(e, ENOENT, "%s: not among the task's inputs", key);
            if (r >= 0)
                r = buf_addf(&b, "%s = %s\n", key, at_path);
        }
        if (r >= 0 && i == 0)
            r = buf_adds(&b, "runs = 1\n");
    }
    return r < 0 ? err_sys(e, -r, "%s", path) : file_write(path, b.data, b.len, 0600, true, e);
}

static const char *base_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash ? slash + 1 : path ? path : "";
}

/* Every file of the run, the log first. */
static int list_files(const char *dir, const json_t *run, json_t **ret, struct err *e)
{
    const json_t *log = json_object_get(run, "log"), *text = json_object_get(run, "text");
    const char *name = json_string_value(json_object_get(log, "path")),
               *text_name = json_string_value(json_object_get(text, "path"));
    CLEANUP(freep) char *from = path_fmt("%s/out/run-0001", dir);
    DIR *d = from ? opendir(from) : NULL;
    if (!d)
        return err_sys(e, errno, "%s", from ? from : dir);
    json_t *files = json_array();
    for (struct dirent *x; (x = readdir(d));) {
        CLEANUP(freep) char *path = path_fmt("%s/%s", from, x->d_name);
        struct stat st;
        if (x->d_name[0] == '.' || !path || lstat(path, &st) < 0 || !S_ISREG(st.st_mode))
            continue;
        bool is_log = name && !strcmp(x->d_name, name);
        CLEANUP(freep) char *rel = path_fmt("out/run-0001/%s", x->d_name);
        json_t *f = json_pack("{s:o, s:s, s:o}", "name", json_str(x->d_name), "kind",
                              is_log ? "log" : "file", "path", json_str(rel));
        /* these may have left already: then nobody can hash them here */
        if (is_log)
            json_object_set(f, "id", json_object_get(log, "id"));
        else if (text_name && !strcmp(x->d_name, text_name))
            json_object_set(f, "id", json_object_get(text, "id"));
        json_array_insert_new(files, is_log ? 0 : json_array_size(files), f);
    }
    closedir(d);
    *ret = files;
    return 0;
}

/* Paths of this host are of no use elsewhere: the files' names stand for them. */
static void make_portable(json_t *r, uint64_t no)
{
    static const char *const logs[] = { "log", "text" };
    json_t *w;
    size_t i;
    json_object_set_new(r, "run", json_u64(no));
    for (i = 0; i < ARRAY_LEN(logs); i++) {
        json_t *log = json_object_get(r, logs[i]);
        const char *p = json_string_value(json_object_get(log, "path"));
        if (p)
            json_object_set_new(log, "path", json_str(base_name(p)));
    }
    json_array_foreach (json_object_get(r, "workload"), i, w) {
        const char *p = json_string_value(json_object_get(w, "path"));
        if (p)
            json_object_set_new(w, "path", json_str(base_name(p)));
    }
}

int collect_task(const char *dir, const json_t *spec, const json_t *run, struct err *e)
{
    CLEANUP(freep)
    char *ini = path_fmt("%s/run.ini", dir), *out = path_fmt("%s/out", dir),
         *info = path_fmt("%s/info.json", dir), *growing = path_fmt("%s/" GROW_FILE, dir),
         *growing_text = path_fmt("%s/" GROW_TEXT, dir);
    struct collect_conf conf = { 0 };
    CLEANUP(json_decrefp) json_t *doc = NULL;
    json_t *files = NULL;
    uint64_t no = 0;
    if (!ini || !out || !info || !growing || !growing_text)
        return err_sys(e, ENOMEM, "%s", dir);
    struct sigaction sa = { .sa_handler = on_term };
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    int r = json_get_u64(spec, "run", &no, e);
    if (r == 0)
        r = write_ini(ini, spec, run, e);
    if (r == 0) {
        r = conf_load(ini, &conf, e);
        struct collect_opts o = {
            .out = out, .jobs = 1, .growing = growing, .growing_text = growing_text
        };
        if (r == 0)
            r = collect_local(&conf, &o, &doc, e);
        conf_clear(&conf);
    }
    if (r < 0)
        return r;
    json_t *one = json_array_get(json_object_get(doc, "runs"), 0);
    make_portable(one, no);
    r = list_files(dir, one, &files, e);
    if (r < 0)
        return r;
    json_object_set_new(doc, "files", files);
    CLEANUP(freep) char *text = json_dumps(doc, JSON_COMPACT | JSON_PRESERVE_ORDER);
    return text ? file_write(info, text, strlen(text), 0600, true, e)
                : err_sys(e, ENOMEM, "%s", info);
}
