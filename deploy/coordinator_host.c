#include "deploy/coordinator_host.h"

#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"

int coordinator_place(const struct hosts *h, struct host **ret, struct err *e)
{
    char host[256], port[8];
    const struct host *found = hosts_coordinator(h);
    if (!hosts_endpoint(h, host, port))
        return err_set(e, SF_EUSAGE, "%s: [fleet] needs coordinator=tcp://HOST:PORT", h->path);
    if (!found)
        return err_set(e, SF_EUSAGE,
                       "%s: coordinator= is at '%.200s', which is neither name nor address of a "
                       "[host] of the list",
                       h->path, host);
    CLEANUP(coordinator_place_free) struct host *o = calloc(1, sizeof(*o));
    if (!o)
        return err_sys(e, ENOMEM, "%s", h->path);
    *o = *found;
    if (!(o->data = path_fmt("%s-coordinator", found->data)))
        return err_sys(e, ENOMEM, "%s", h->path);
    *ret = TAKE(o);
    return 0;
}

void coordinator_place_free(struct host **h)
{
    if (*h)
        free((*h)->data);
    freep(h);
}

int coordinator_listen(const struct hosts *h, char ret[64], struct err *e)
{
    char host[256], port[8];
    if (!hosts_endpoint(h, host, port) || !strcmp(port, "*"))
        return err_set(e, SF_EUSAGE, "%s: coordinator= needs a port that agents can connect to",
                       h->path);
    snprintf(ret, 64, "tcp://%s:%s", strchr(host, ':') ? "[::]" : "0.0.0.0", port);
    return 0;
}

static int save_server_key(const char *path, const char *line, json_t *actions, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    int r = file_read(path, &b, NULL);
    if (r == 0 && b.len && !strcmp((char *)b.data, line))
        return 0;
    if (r == 0)
        return err_set(e, EEXIST,
                       "%s: holds the key of another coordinator; move it away and run this again",
                       path);
    r = file_write(path, line, strlen(line), 0644, false, e);
    if (r == 0)
        json_array_append_new(actions, json_string("write its public key to server_key="));
    return r;
}

/* USER.MACHINE with what a key's name may not hold replaced. */
static void user_name(char out[KEY_NAME_LEN])
{
    char machine[65] = "here";
    struct passwd *pw = getpwuid(getuid());
    gethostname(machine, sizeof(machine) - 1);
    snprintf(out, KEY_NAME_LEN, "%.31s.%.31s", pw ? pw->pw_name : "user", machine);
    for (char *s = out; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
              strchr("._", *s)))
            *s = '_';
    if (out[0] == '.')
        out[0] = '_';
}

static int write_settings(const struct job_plan *plan, const char *path, const char *key,
                          json_t *actions, struct err *e)
{
    const struct hosts *h = plan->hosts;
    char server[PATH_MAX];
    if (!realpath(h->server_key, server))
        return err_sys(e, errno, "%s", h->server_key);
    CLEANUP(buf_clear) struct buf text = BUF_INIT(16384), old = BUF_INIT(1 << 20);
    if (buf_addf(&text, "connect = %s\nserver_key = %s\nkey = %s\n", h->coordinator, server, key) <
        0)
        return err_sys(e, E2BIG, "%s", path);
    int r = file_read(path, &old, NULL);
    if (r == 0 && old.len && !strcmp((char *)old.data, (char *)text.data))
        return 0;
    if (r == 0) { /* nothing that is done: a second run says it again and has changed nothing */
        if (plan->note)
            plan->note(path, "names another coordinator and stays as it is");
        return 0;
    }
    r = file_write(path, text.data, text.len, 0600, false, e);
    if (r == 0)
        json_array_append_new(actions, json_string("write the client settings"));
    return r;
}

int coordinator_join(const struct job_plan *plan, const struct host *place, const char *line,
                     json_t *actions, struct err *e)
{
    CLEANUP(freep) char *dir = path_xdg("CONFIG");
    CLEANUP(freep) char *key = dir ? path_fmt("%s/client.key", dir) : NULL;
    CLEANUP(freep) char *pub_path = dir ? path_fmt("%s/client.key.pub", dir) : NULL;
    CLEANUP(freep) char *ini = dir ? path_fmt("%s/client.ini", dir) : NULL;
    CLEANUP(allow_free) struct allow *allow = NULL;
    struct key_pub pub;
    if (!key || !pub_path || !ini)
        return err_sys(e, ENOMEM, "client settings");
    int r = save_server_key(plan->hosts->server_key, line, actions, e);
    if (r == 0)
        r = dir_make(dir, 0700, e);
    if (r == 0 && access(key, F_OK) < 0) {
        char name[KEY_NAME_LEN];
        user_name(name);
        r = key_new(key, ROLE_USER, name, NULL, e);
        if (r == 0)
            json_array_append_new(actions, json_string("make your user key"));
    }
    if (r == 0)
        r = key_load_pub(pub_path, &pub, e);
    if (r == 0)
        r = allow_remote(plan, place, &allow, e);
    if (r < 0)
        return r;
    r = allow_add(allow, &pub, e);
    if (r < 0)
        return r;
    if (r > 0)
        json_array_append_new(actions, json_string("allow your user key there"));
    return write_settings(plan, ini, key, actions, e);
}
