/* exec: a command on hosts of the fleet. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cli/job_run.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

enum { OUTPUT_MAX = 4 << 20 };

static json_t *list(const struct opt_multi *m)
{
    json_t *a = json_array();
    for (size_t i = 0; i < m->n; i++)
        json_array_append_new(a, json_str(m->v[i]));
    return a;
}

/* Text that JSON cannot hold as it is would reach the host as something else. */
static int check_words(int argc, char **argv, struct err *e)
{
    for (int i = 0; i < argc; i++) {
        json_t *t = json_string(argv[i]);
        if (!t)
            return err_set(e, SF_EUSAGE, "exec: word %d of the command is not UTF-8", i + 1);
        json_decref(t);
    }
    if (!*argv[0])
        return err_set(e, SF_EUSAGE, "exec: the command is empty");
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Two files of one name would take each other's place. */
static int check_copies(const struct exec_opt *o, struct err *e)
{
    for (size_t i = 0; i < o->copy.n; i++) {
        const char *name = base_name(o->copy.v[i]);
        CLEANUP(json_decrefp) json_t *text = json_string(o->copy.v[i]);
        if (!text)
            return err_set(e, SF_EUSAGE, "--copy: a name that is not UTF-8");
        if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
            return err_set(e, SF_EUSAGE, "--copy: '%s' names no file", o->copy.v[i]);
        for (size_t k = 0; k < i; k++)
            if (!strcmp(name, base_name(o->copy.v[k])))
                return err_set(e, SF_EUSAGE, "--copy: two files are called '%s'", name);
    }
    return 0;
}

static json_t *exec_doc(const struct exec_opt *o, int argc, char **argv)
{
    json_t *words = json_array(), *d = json_object();
    for (int i = 0; i < argc; i++)
        json_array_append_new(words, json_string(argv[i]));
    json_object_set_new(d, "kind", json_string("exec"));
    json_object_set_new(d, "name", json_str(base_name(argv[0])));
    json_object_set_new(d, "argv", words);
    json_object_set_new(d, "copy", list(&o->copy));
    json_object_set_new(d, "hosts", list(&o->host));
    json_object_set_new(d, "class", o->class ? json_str(o->class) : json_null());
    CLEANUP(buf_clear) struct buf labels = BUF_INIT(4096);
    for (size_t i = 0; i < o->label.n; i++)
        buf_addf(&labels, "%s%s", i ? "," : "", o->label.v[i]);
    json_object_set_new(d, "labels", labels.len ? json_str((char *)labels.data) : json_null());
    json_object_set_new(d, "cores", json_u64(o->cores.v));
    json_object_set_new(d, "memory_mib", json_u64((o->memory.v + (1 << 20) - 1) >> 20));
    json_object_set_new(d, "kvm", json_boolean(o->kvm));
    json_object_set_new(d, "exclusive", json_boolean(o->exclusive));
    json_object_set_new(d, "timeout_ms", json_u64(o->timeout.v));
    return d;
}

/* ---- answers */

/* Copy one file to OUT/HOST/NAME; what is wrong with it is said in f. */
static int fetch_file(struct client *cl, const struct exec_opt *o, const char *host, json_t *f,
                      struct err *e)
{
    const char *path = json_string_value(json_object_get(f, "path")),
               *hex = json_string_value(json_object_get(f, "id"));
    struct id id;
    if (!path || strchr(host, '/') || !strcmp(host, "..") || !strcmp(host, "."))
        return err_set(e, SF_EFORMAT, "coordinator: a file without a place");
    if (!hex || id_parse(hex, &id, NULL) < 0) {
        const char *why = json_string_value(json_object_get(f, "error"));
        return err_set(e, SF_EFAILED, "%s: %s", path, why ? why : "not copied");
    }
    CLEANUP(freep) char *dir = path_fmt("%s/%s", o->out ? o->out : ".", host);
    CLEANUP(freep) char *to = dir ? path_fmt("%s/%s", dir, base_name(path)) : NULL;
    if (!to)
        return err_sys(e, ENOMEM, "%s", path);
    int r = dir_make(dir, 0755, e);
    if (r >= 0)
        r = client_get(cl, &id, to, o->force, NULL, NULL, e);
    if (r >= 0)
        json_object_set_new(f, "file", json_str(to));
    return r < 0 ? r : 0;
}

/* Each line behind the host's name when there are several. */
static void print_lines(FILE *out, const char *host, bool several, const struct buf *b)
{
    const char *p = (const char *)b->data;
    size_t left = b->len;
    while (left) {
        const char *end = memchr(p, '\n', left);
        size_t n = end ? (size_t)(end - p) + 1 : left;
        if (several)
            fprintf(out, "%s: ", host);
        fwrite(p, 1, n, out);
        if (several && !end)
            putc('\n', out);
        p += n;
        left -= n;
    }
}

struct answer {
    struct client *cl;
    const struct exec_opt *o;
    bool several;
    json_t *hosts; /* of the document; NULL = text */
    unsigned bad;
};

static int one_stream(struct answer *a, const json_t *info, const char *name, FILE *to,
                      const char *host, json_t *doc, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(OUTPUT_MAX);
    const json_t *output = json_object_get(info, name);
    uint64_t total = 0, kept = 0;
    int r = job_output(a->cl, output, &b, e);
    if (r < 0)
        return r;
    json_get_u64(output, "total_b", &total, NULL);
    json_get_u64(output, "kept_b", &kept, NULL);
    if (total > kept)
        fprintf(stderr,
                "siofleet: %s: %s: %" PRIu64 " bytes, of which the first and last %" PRIu64
                " were kept\n",
                host, name, total, kept);
    char key[24];
    snprintf(key, sizeof(key), "%s_b", name);
    if (a->hosts) {
        json_object_set_new(doc, name, json_bytes(b.data, b.len));
        json_object_set_new(doc, key, json_u64(total));
    } else {
        print_lines(to, host, a->several, &b);
    }
    return 0;
}

static void complain(struct answer *a, const char *host, const char *text)
{
    fprintf(stderr, "siofleet: %s: %s\n", host, text);
    a->bad++;
}

static void take_answer(struct answer *a, json_t *item)
{
    struct err e = { 0 };
    const char *host = json_string_value(json_object_get(item, "agent")),
               *state = json_string_value(json_object_get(item, "state"));
    json_t *info = json_object_get(item, "info"), *files = json_object_get(info, "files"), *f;
    json_t *doc = json_object();
    static const char *const same[] = { "task", "cause", "exit", "signal", "duration_ms" };
    unsigned before = a->bad;
    size_t i;
    host = host ? host : "?";
    json_object_set_new(doc, "host", json_str(host));
    json_object_set_new(doc, "status", json_str(state));
    for (i = 0; i < ARRAY_LEN(same); i++)
        json_object_set(doc, same[i], json_object_get(item, same[i]));
    json_object_set_new(doc, "stdout", json_null());
    json_object_set_new(doc, "stderr", json_null());
    if (json_is_object(info) &&
        (one_stream(a, info, "stdout", stdout, host, doc, &e) < 0 ||
         (fflush(stdout), one_stream(a, info, "stderr", stderr, host, doc, &e) < 0)))
        complain(a, host, e.text);
    json_array_foreach (files, i, f) {
        e = (struct err){ 0 };
        if (fetch_file(a->cl, a->o, host, f, &e) < 0) {
            json_object_set_new(f, "error", json_str(e.text));
            if (state && !strcmp(state, "done"))
                complain(a, host, e.text);
        }
    }
    json_object_set(doc, "files", json_is_array(files) ? files : json_null());
    if (!state || strcmp(state, "done") != 0) {
        char why[300];
        /* what the command itself said stands above already */
        if (json_is_object(info))
            json_object_del(item, "tail");
        job_item_why(item, why);
        if (a->bad == before)
            complain(a, host, why);
    }
    if (a->hosts)
        json_array_append_new(a->hosts, doc);
    else
        json_decref(doc);
}

int run_exec(struct cli *c, void *opts, int argc, char **argv)
{
    struct exec_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *doc = NULL, *last = NULL, *all = NULL;
    struct msg_submitted sub;
    char hex[ID_HEX_LEN];
    int r = check_words(argc, argv, &e);
    if (r == 0)
        r = check_copies(o, &e);
    if (r < 0)
        return cli_fail(c, &e);
    fleet_signals();
    doc = exec_doc(o, argc, argv);
    r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : job_submit(cl, doc, o->request_id, hex, &sub, &e);
    if (r < 0)
        return cli_fail(c, &e);
    r = job_follow(cl, hex, JOB_HOSTS, sub.points < 2, &last, &e);
    if (r == -ECANCELED && fleet_stop)
        return job_cancel(c, cl, hex);
    r = r < 0 ? r : job_items(cl, hex, &all, &e);
    if (r < 0)
        return cli_fail(c, &e);
    json_t *items = json_object_get(all, "items"), *item;
    struct answer a = { .cl = cl,
                        .o = o,
                        .several = json_array_size(items) > 1,
                        .hosts = o->json ? json_array() : NULL };
    size_t i;
    json_array_foreach (items, i, item)
        take_answer(&a, item);
    const char *state = json_string_value(json_object_get(all, "state"));
    bool cancelled = state && !strcmp(state, "cancelled");
    int out = o->json ? cli_json(c, json_pack("{s:s, s:O, s:O, s:o}", "schema", "siofleet.exec/1",
                                              "job", json_object_get(all, "job"), "state",
                                              json_object_get(all, "state"), "hosts", a.hosts))
                      : cli_flush(c);
    return cancelled ? 5 : a.bad ? 1 : out;
}
