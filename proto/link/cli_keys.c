/* `keys new|allow|revoke|ls`: work on files only, so they need no running coordinator and one that runs sees them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/cli.h"
#include "proto/link/keys.h"

struct new_opt {
    const char *role, *name;
};

static const struct opt new_opts[] = {
    { .name = "role",
      .arg = "ROLE",
      .help = "coordinator, agent, user or reader",
      .kind = OPT_STR,
      .off = offsetof(struct new_opt, role) },
    { .name = "name",
      .arg = "N",
      .help = "name of the holder, shown in lists and logs",
      .kind = OPT_STR,
      .off = offsetof(struct new_opt, name) },
    { 0 },
};

static int run_new(struct cli *c, void *opt, int argc, char **argv)
{
    const struct new_opt *o = opt;
    struct err e = { 0 };
    enum role role;
    (void)argc;
    if (!o->role)
        return cli_failf(c, SF_EUSAGE, "--role: is needed");
    if (!o->name)
        return cli_failf(c, SF_EUSAGE, "--name: is needed");
    if (role_parse(o->role, &role) < 0)
        return cli_failf(c, SF_EUSAGE, "--role: '%s' is not coordinator, agent, user or reader",
                         o->role);
    if (key_new(argv[0], role, o->name, NULL, &e) < 0)
        return cli_fail(c, &e);
    return 0;
}

struct data_opt {
    const char *data;
    bool json;
};

#define DATA_OPT                                                                                   \
    {                                                                                              \
        .name = "data", .arg = "DIR", .help = "data directory of the coordinator",                 \
        .kind = OPT_STR, .off = offsetof(struct data_opt, data)                                    \
    }

static const struct opt data_opts[] = { DATA_OPT, { 0 } };
static const struct opt ls_opts[] = {
    DATA_OPT,
    { .name = "json",
      .help = "siofleet.keys/1",
      .kind = OPT_FLAG,
      .off = offsetof(struct data_opt, json) },
    { 0 },
};

static int need_data(struct cli *c, const struct data_opt *o)
{
    return o->data && o->data[0] ? 0 : cli_failf(c, SF_EUSAGE, "--data: is needed");
}

/* A typing mistake must not make a second list that nobody reads, nor look like an empty one. */
static int need_folder(struct cli *c, const struct data_opt *o)
{
    return access(o->data, F_OK) == 0
               ? 0
               : cli_failf(c, errno,
                           "%s: %s; the first start of `siofleet coordinator --data` makes it",
                           o->data, strerror(errno));
}

static int run_allow(struct cli *c, void *opt, int argc, char **argv)
{
    const struct data_opt *o = opt;
    struct err e = { 0 };
    struct key_pub pub;
    (void)argc;
    if (need_data(c, o))
        return 2;
    if (need_folder(c, o))
        return 1;
    if (key_load_pub(argv[0], &pub, &e) < 0 || keys_allow(o->data, &pub, &e) < 0)
        return cli_fail(c, &e);
    return 0;
}

static int run_revoke(struct cli *c, void *opt, int argc, char **argv)
{
    const struct data_opt *o = opt;
    struct err e = { 0 };
    struct key_pub pub = { 0 };
    const char *name = argv[0];
    size_t n = strlen(name);
    (void)argc;
    if (need_data(c, o))
        return 2;
    /* A file, by its ending or its place: then the key in it counts, whatever name it is allowed under. */
    if (strchr(name, '/') || (n > 4 && !strcmp(name + n - 4, ".pub"))) {
        CLEANUP(freep) char *dir = keys_dir(o->data);
        CLEANUP(freep) struct key_pub *list = NULL;
        size_t n_list = 0, i = 0;
        if (!dir)
            return cli_failf(c, ENOMEM, "%s: no memory", o->data);
        int r = key_load_pub(name, &pub, &e);
        if (r == -ENOENT && !strchr(name, '/') && keys_revoke(o->data, name, NULL) == 0)
            return 0; /* a name that ends like a file */
        if (r < 0 || keys_list(dir, &list, &n_list, &e) < 0)
            return cli_fail(c, &e);
        while (i < n_list && strcmp(list[i].z85, pub.z85))
            i++;
        if (i == n_list)
            return cli_failf(c, ENOENT, "%s: the key is not allowed in '%s'", name, o->data);
        pub = list[i];
        name = pub.name;
    }
    if (keys_revoke(o->data, name, &e) < 0)
        return cli_fail(c, &e);
    return 0;
}

static int run_ls(struct cli *c, void *opt, int argc, char **argv)
{
    const struct data_opt *o = opt;
    struct err e = { 0 };
    (void)argc;
    (void)argv;
    c->json = o->json;
    if (need_data(c, o))
        return 2;
    if (need_folder(c, o))
        return 1;
    CLEANUP(freep) char *dir = keys_dir(o->data);
    CLEANUP(freep) struct key_pub *list = NULL;
    size_t n = 0;
    if (!dir)
        return cli_failf(c, ENOMEM, "%s: no memory", o->data);
    if (keys_list(dir, &list, &n, &e) < 0)
        return cli_fail(c, &e);
    if (c->json) {
        json_t *items = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(items, json_pack("{s:s, s:s, s:s}", "name", list[i].name, "role",
                                                   role_name(list[i].role), "key", list[i].z85));
        return cli_json(c, json_pack("{s:s, s:o}", "schema", "siofleet.keys/1", "items", items));
    }
    static const char *const names[] = { "NAME", "ROLE", "KEY" };
    struct table *t = table_new(names, ARRAY_LEN(names));
    if (!t)
        return cli_failf(c, ENOMEM, "keys ls: no memory");
    for (size_t i = 0; i < n; i++) {
        table_cell(t, "%s", list[i].name);
        table_cell(t, "%s", role_name(list[i].role));
        table_cell(t, "%s", list[i].z85);
    }
    table_print(t, stdout);
    table_free(&t);
    return cli_flush(c);
}

const struct verb keys_verbs[] = {
    { .name = "keys new",
      .args = "FILE",
      .summary = "make a key pair: FILE (secret, mode 0600) and FILE.pub",
      .details = "A key has one role. An agent's key runs tasks, a user's submits and controls, a "
                 "reader's only\n"
                 "asks. An existing file is never overwritten.",
      .examples = "siofleet keys new ann --role user --name ann     # ann and ann.pub\n"
                  "siofleet keys new n7 --role agent --name n7\n",
      .opts = new_opts,
      .opts_size = sizeof(struct new_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_new },
    { .name = "keys allow",
      .args = "FILE.pub",
      .summary = "let a key in; a running coordinator needs no restart",
      .examples = "siofleet keys allow --data /srv/siofleet ann.pub\n",
      .opts = data_opts,
      .opts_size = sizeof(struct data_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_allow },
    { .name = "keys revoke",
      .args = "FILE.pub|NAME",
      .summary = "take a key back; its connections are dropped",
      .details = "An agent that had it is `revoked` in `ls agents`, for a week; what it ran goes "
                 "to others.",
      .examples = "siofleet keys revoke --data /srv/siofleet ann\n",
      .opts = data_opts,
      .opts_size = sizeof(struct data_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_revoke },
    { .name = "keys ls",
      .args = "",
      .summary = "list the allowed keys",
      .examples = "siofleet keys ls --data /srv/siofleet --json\n",
      .opts = ls_opts,
      .opts_size = sizeof(struct data_opt),
      .min_args = 0,
      .max_args = 0,
      .run = run_ls },
    { 0 },
};
