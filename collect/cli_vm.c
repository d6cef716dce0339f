/* Verbs about what runs and what is kept: `vm ls|console|ssh|stop|images|clean`. */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "collect/cli_collect.h"
#include "collect/images.h"
#include "collect/vm.h"
#include "proto/base/clean.h"

struct vm_opt {
    bool json;
};

static const struct opt vm_opts[] = {
    { "json", 0, NULL, "one JSON document", OPT_FLAG, offsetof(struct vm_opt, json), 0, 0 },
    { 0 },
};

static int run_ls(struct cli *c, void *opt, int argc, char **argv)
{
    struct vm_opt *o = opt;
    (void)argc;
    (void)argv;
    c->json = o->json;
    json_t *all = vm_list();
    if (c->json)
        return cli_json(c, json_pack("{s:s, s:o}", "schema", "siofleet.vm/1", "items", all));
    static const char *const names[] = { "id",       "profile", "run",       "pid",
                                         "ssh_port", "started", "collection" };
    struct table *t = table_new(names, ARRAY_LEN(names));
    size_t i;
    json_t *v;
    json_array_foreach (all, i, v) {
        for (size_t k = 0; k < ARRAY_LEN(names); k++) {
            json_t *x = json_object_get(v, names[k]);
            if (json_is_integer(x))
                table_cell(t, "%" JSON_INTEGER_FORMAT, json_integer_value(x));
            else if (!json_is_string(x))
                table_cell(t, "-");
            else
                table_cell(t, "%.*s", strcmp(names[k], "collection") ? 64 : 16,
                           json_string_value(x));
        }
    }
    table_print(t, stdout);
    table_free(&t);
    json_decref(all);
    return cli_flush(c);
}

static int with_vm(struct cli *c, void *opt, int argc, char **argv,
                   int (*f)(const json_t *, struct err *))
{
    struct vm_opt *o = opt;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(json_decrefp) json_t *vm = NULL;
    int r = vm_find(argc ? argv[0] : NULL, &vm, &e);
    if (r == 0)
        r = f(vm, &e);
    if (r < 0)
        return cli_fail(c, &e);
    if (c->json)
        return cli_json(c, json_pack("{s:s, s:[O]}", "schema", "siofleet.vm/1", "items", vm));
    return 0;
}

static int run_console(struct cli *c, void *opt, int argc, char **argv)
{
    return with_vm(c, opt, argc, argv, vm_console);
}

static int run_ssh(struct cli *c, void *opt, int argc, char **argv)
{
    (void)opt;
    struct err e = { 0 };
    CLEANUP(json_decrefp) json_t *vm = NULL;
    int r = vm_find(argc ? argv[0] : NULL, &vm, &e);
    if (r == 0)
        r = vm_ssh(vm, argc > 1 ? argc - 1 : 0, argv + 1, &e);
    return r < 0 ? cli_fail(c, &e) : 0;
}

static int run_stop(struct cli *c, void *opt, int argc, char **argv)
{
    return with_vm(c, opt, argc, argv, vm_stop);
}

static int show_images(struct cli *c, json_t *list)
{
    if (c->json)
        return cli_json(c, json_pack("{s:s, s:o}", "schema", "siofleet.images/1", "items", list));
    static const char *const names[] = { "kind", "id", "MiB", "made", "current" };
    struct table *t = table_new(names, ARRAY_LEN(names));
    size_t i;
    json_t *v;
    json_array_foreach (list, i, v) {
        uint64_t b = 0;
        json_get_u64(v, "bytes", &b, NULL);
        table_cell(t, "%s", json_string_value(json_object_get(v, "kind")));
        table_cell(t, "%.16s", json_string_value(json_object_get(v, "id")));
        table_cell(t, "%.1f", (double)b / (1 << 20));
        table_cell(t, "%s", json_string_value(json_object_get(v, "made")));
        table_cell(t, "%s", json_is_true(json_object_get(v, "current")) ? "yes" : "no");
    }
    table_print(t, stdout);
    table_free(&t);
    json_decref(list);
    return cli_flush(c);
}

static int run_images(struct cli *c, void *opt, int argc, char **argv)
{
    struct vm_opt *o = opt;
    (void)argc;
    (void)argv;
    c->json = o->json;
    return show_images(c, images_list());
}

struct clean_opt {
    bool all, dry, json;
};

static const struct opt clean_opts[] = {
    { "all", 0, NULL, "also what a collection would take (it is built again then)", OPT_FLAG,
      offsetof(struct clean_opt, all), 0, 0 },
    { "dry-run", 0, NULL, "only show it", OPT_FLAG, offsetof(struct clean_opt, dry), 0, 0 },
    { "json", 0, NULL, "one JSON document", OPT_FLAG, offsetof(struct clean_opt, json), 0, 0 },
    { 0 },
};

static int run_clean(struct cli *c, void *opt, int argc, char **argv)
{
    struct clean_opt *o = opt;
    c->json = o->json;
    struct err e = { 0 };
    json_t *gone;
    if (images_clean(argv, argc, o->all, o->dry, &gone, &e) < 0)
        return cli_fail(c, &e);
    return show_images(c, gone);
}

const struct verb vm_verbs[] = {
    { .name = "vm ls",
      .args = "",
      .summary = "list the guests that run on this host",
      .opts = vm_opts,
      .opts_size = sizeof(struct vm_opt),
      .run = run_ls },
    { .name = "vm console",
      .args = "[ID]",
      .summary = "attach to a guest's console",
      .opts = vm_opts,
      .opts_size = sizeof(struct vm_opt),
      .max_args = 1,
      .run = run_console },
    { .name = "vm ssh",
      .args = "[ID [COMMAND...]]",
      .summary = "log in to a guest that runs from a disk image with sshd",
      .details = "For runs with disk = (`disk = debootstrap` makes such an image). Key and host "
                 "key are made "
                 "for\n"
                 "each run; the port is on loopback and ends with the guest. Exits with the "
                 "command's status.",
      .examples = "siofleet vm ssh                        # the only guest: a shell in it\n"
                  "siofleet vm ssh last cat /proc/cpuinfo\n",
      .max_args = -1,
      .stop_at_first = 1,
      .run = run_ssh },
    { .name = "vm stop",
      .args = "[ID]",
      .summary = "end a guest and its collection",
      .opts = vm_opts,
      .opts_size = sizeof(struct vm_opt),
      .max_args = 1,
      .run = run_stop },
    { .name = "vm images",
      .args = "",
      .summary = "list the QEMU builds, guest images and disk images kept on this host",
      .opts = vm_opts,
      .opts_size = sizeof(struct vm_opt),
      .run = run_images },
    { .name = "vm clean",
      .args = "[ID...]",
      .summary = "remove kept builds and images that no collection would take",
      .details = "Never while a collection runs on this host. With IDs only these.",
      .examples =
          "siofleet vm clean --dry-run\n"
          "siofleet vm clean --all         # everything: the next collection builds it again\n",
      .opts = clean_opts,
      .opts_size = sizeof(struct clean_opt),
      .max_args = -1,
      .run = run_clean },
    { 0 },
};
