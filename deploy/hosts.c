#include "deploy/hosts.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"
#include "proto/lib/ini.h"

enum { STEP_TIMEOUT_MS = 600000 };

int hosts_expand(const char *pattern, const char *place, int (*cb)(void *user, const char *name),
                 void *user, struct err *e)
{
    const char *open = strchr(pattern, '[');
    if (!open)
        return cb(user, pattern);
    const char *close = strchr(open, ']'), *dash = strchr(open, '-');
    if (!close || !dash || dash > close || strchr(close, '['))
        return err_set(e, SF_EUSAGE, "%s: '%.100s' is not a range like kvm[01-40].lab", place,
                       pattern);
    char lo_s[16] = "", hi_s[16] = "";
    size_t lo_n = (size_t)(dash - open - 1), hi_n = (size_t)(close - dash - 1);
    if (!lo_n || !hi_n || lo_n >= sizeof(lo_s) || hi_n >= sizeof(hi_s))
        return err_set(e, SF_EUSAGE, "%s: '%.100s' is not a range like kvm[01-40].lab", place,
                       pattern);
    memcpy(lo_s, open + 1, lo_n);
    memcpy(hi_s, dash + 1, hi_n);
    uint64_t lo, hi;
    if (num_u64(lo_s, 0, 99999999, place, &lo, e) < 0 ||
        num_u64(hi_s, 0, 99999999, place, &hi, e) < 0)
        return -SF_EUSAGE;
    if (hi < lo)
        return err_set(e, SF_EUSAGE, "%s: range %s-%s runs backwards", place, lo_s, hi_s);
    if (hi - lo >= HOSTS_MAX)
        return err_set(e, SF_EUSAGE, "%s: range %s-%s has more than %d hosts", place, lo_s, hi_s,
                       HOSTS_MAX);
    for (uint64_t i = lo; i <= hi; i++) {
        char name[300];
        int n = snprintf(name, sizeof(name), "%.*s%0*llu%s", (int)(open - pattern), pattern,
                         (int)lo_n, (unsigned long long)i, close + 1);
        if (n >= (int)sizeof(name))
            return err_set(e, SF_EUSAGE, "%s: host name too long", place);
        int r = cb(user, name);
        if (r)
            return r;
    }
    return 0;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

/* An address ends up in messages and in ssh's known_hosts. */
static bool address_ok(const char *s)
{
    return *s && *s != '-' && strlen(s) < 256 && strspn(s, LETTERS ".-:") == strlen(s);
}

/* Who logs in; stands in messages and units. */
static bool user_ok(const char *s)
{
    return *s && *s != '-' && strlen(s) < 64 && strspn(s, LETTERS ".-@\\") == strlen(s);
}

bool hosts_name_ok(const char *s)
{
    return *s && *s != '-' && *s != '.' && strlen(s) <= 64 && strspn(s, LETTERS ".-") == strlen(s);
}

/* A folder on the host. It is only ever quoted, but it stands alone on a line of several files. */
static bool data_ok(const char *s)
{
    size_t root = s[0] == '~'; /* a home is no folder for a fleet, nor is / */
    return s[root] == '/' && s[root + strspn(s + root, "/.")] && strlen(s) < 1024;
}

char *hosts_local_path(const struct ini *ini, const char *value)
{
    const char *home = getenv("HOME");
    if (!strncmp(value, "~/", 2) && home)
        return path_fmt("%s/%s", home, value + 2);
    return ini_path(ini, value);
}

bool hosts_endpoint(const struct hosts *h, char host[256], char port[8])
{
    const char *at =
        h->coordinator && !strncmp(h->coordinator, "tcp://", 6) ? h->coordinator + 6 : NULL;
    const char *colon = at ? strrchr(at, ':') : NULL;
    host[0] = port[0] = '\0';
    if (!colon || (size_t)(colon - at) >= 256 || strlen(colon + 1) >= 8)
        return false;
    bool brackets = at[0] == '[' && colon[-1] == ']';
    snprintf(host, 256, "%.*s", (int)(colon - at) - 2 * brackets, at + brackets);
    snprintf(port, 8, "%s", colon + 1);
    return true;
}

const struct host *hosts_coordinator(const struct hosts *h)
{
    char host[256], port[8];
    if (hosts_endpoint(h, host, port))
        for (size_t i = 0; i < h->n; i++)
            if (!strcmp(h->host[i].name, host) || !strcmp(h->host[i].address, host))
                return &h->host[i];
    return NULL;
}

static int set_str(char **dst, const char *v)
{
    free(*dst);
    *dst = strdup(v);
    return *dst ? 0 : -ENOMEM;
}

struct load {
    const struct ini *ini;
    struct hosts *h;
    struct host defaults; /* of [fleet]; strings borrowed */
    const struct ini_section *section;
    struct err *e;
};

static int unknown(struct load *l, const struct ini_key *k, const char *where)
{
    return err_set(l->e, SF_EUSAGE, "%s: unknown key '%s' in %s", ini_place(l->ini, k->line),
                   k->name, where);
}

static int load_data(struct load *l, const struct ini_key *k, char **ret)
{
    if (!data_ok(k->value))
        return err_set(l->e, SF_EUSAGE,
                       "%s: data= is a folder of its own on the host, from / or ~/ on",
                       ini_place(l->ini, k->line));
    return set_str(ret, k->value);
}

bool hosts_label_ok(const char *s)
{
    return *s && strspn(s, LETTERS ".-/") == strlen(s);
}

bool hosts_labels_ok(const char *s)
{
    if (strlen(s) > 1000)
        return false;
    while (*s) {
        size_t k = strspn(s, LETTERS ".-/"), v = s[k] == '=' ? strspn(s + k + 1, LETTERS ".-/") : 0;
        if (!k || s[k] != '=')
            return false;
        s += k + 1 + v;
        if (*s && (*s != ',' || !*++s))
            return false;
    }
    return true;
}

static struct setup_step *step_named(struct host_class *c, const char *name, size_t n)
{
    for (size_t i = 0; i < c->n_steps; i++)
        if (strlen(c->steps[i].name) == n && !memcmp(c->steps[i].name, name, n))
            return &c->steps[i];
    return NULL;
}

/* setup.NAME.secret.VAR = file:PATH or env:VARIABLE */
static int load_secret(struct load *l, struct setup_step *s, const char *var,
                       const struct ini_key *k)
{
    const char *place = ini_place(l->ini, k->line);
    bool file = !strncmp(k->value, "file:", 5), env = !strncmp(k->value, "env:", 4);
    if (!*var || strspn(var, LETTERS) != strlen(var) || (*var >= '0' && *var <= '9') ||
        strlen(var) > 64)
        return err_set(l->e, SF_EUSAGE, "%s: '%.100s' is no name of a variable", place, var);
    if ((!file && !env) || !k->value[env ? 4 : 5])
        return err_set(l->e, SF_EUSAGE,
                       "%s: a secret is file:PATH or env:VARIABLE, never the value", place);
    struct secret *v = realloc(s->secrets, (s->n_secrets + 1) * sizeof(*v));
    if (!v)
        return err_sys(l->e, ENOMEM, "%s", place);
    s->secrets = v;
    v[s->n_secrets] =
        (struct secret){ strdup(var), file ? hosts_local_path(l->ini, k->value + 5) : NULL,
                         env ? strdup(k->value + 4) : NULL };
    struct secret *o = &v[s->n_secrets++];
    return o->name && (o->file || o->env) ? 0 : err_sys(l->e, ENOMEM, "%s", place);
}

static int load_setup(struct load *l, struct host_class *c, const struct ini_key *k)
{
    const char *place = ini_place(l->ini, k->line);
    const char *name = k->name + strlen("setup.");
    const char *dot = strchr(name, '.');
    size_t n = dot ? (size_t)(dot - name) : strlen(name);
    /* it is part of file names on the host */
    if (!n || n > 64 || strspn(name, LETTERS "-") != n)
        return err_set(l->e, SF_EUSAGE, "%s: '%s' names no step", place, k->name);
    struct setup_step *s = step_named(c, name, n);
    if (!dot) {
        if (!*k->value)
            return err_set(l->e, SF_EUSAGE, "%s: '%s' has no command", place, k->name);
        struct setup_step *v = realloc(c->steps, (c->n_steps + 1) * sizeof(*v));
        if (!v)
            return err_sys(l->e, ENOMEM, "%s", place);
        c->steps = v;
        v[c->n_steps] = (struct setup_step){ .name = strdup(name),
                                             .command = strdup(k->value),
                                             .timeout_ms = STEP_TIMEOUT_MS };
        if (!v[c->n_steps].name || !v[c->n_steps].command)
            return err_sys(l->e, ENOMEM, "%s", place);
        c->n_steps++;
        return 0;
    }
    if (!s)
        return err_set(l->e, SF_EUSAGE, "%s: '%s' stands before setup.%.*s itself", place, k->name,
                       (int)n, name);
    uint64_t v = 0;
    int r;
    if (!strcmp(dot, ".sudo")) {
        r = num_bool(k->value, place, &v, l->e);
        s->sudo = v;
    } else if (!strcmp(dot, ".reboot")) {
        r = num_bool(k->value, place, &v, l->e);
        s->reboot = v;
    } else if (!strcmp(dot, ".timeout")) {
        r = num_ms(k->value, place, &s->timeout_ms, l->e);
    } else if (!strncmp(dot, ".secret.", 8)) {
        r = load_secret(l, s, dot + 8, k);
    } else {
        return unknown(l, k, "a set-up step (sudo, reboot, timeout, secret.VARIABLE)");
    }
    return r;
}

static int load_class(struct load *l, const struct ini_section *s)
{
    struct host_class **v = realloc(l->h->classes, (l->h->n_classes + 1) * sizeof(*v));
    if (!v)
        return err_sys(l->e, ENOMEM, "%s", l->ini->path);
    l->h->classes = v;
    struct host_class *c = v[l->h->n_classes] = calloc(1, sizeof(*c));
    if (!c || !(c->name = strdup(s ? s->arg : "")))
        return err_sys(l->e, ENOMEM, "%s", l->ini->path);
    l->h->n_classes++;
    if (s && !*s->arg)
        return err_set(l->e, SF_EUSAGE, "%s: [class] without a name", ini_place(l->ini, s->line));
    for (size_t i = 0; s && i < s->n_keys; i++) {
        const struct ini_key *k = &s->keys[i];
        const char *place = ini_place(l->ini, k->line);
        uint64_t b;
        int r = 0;
        if (!strcmp(k->name, "labels")) {
            r = hosts_labels_ok(k->value)
                    ? set_str(&c->labels, k->value)
                    : err_set(l->e, SF_EUSAGE, "%s: '%.100s' is not k=v,...", place, k->value);
        } else if (!strcmp(k->name, "cores")) {
            r = num_u64(k->value, 0, 4096, place, &c->cores, l->e);
        } else if (!strcmp(k->name, "memory")) {
            r = num_size(k->value, place, &c->memory_mib, l->e);
            if (r == 0 && c->memory_mib && c->memory_mib < 1 << 20)
                return err_set(l->e, SF_EUSAGE, "%s: memory=%s is less than 1M (64G, 512M)", place,
                               k->value);
            c->memory_mib >>= 20;
        } else if (!strcmp(k->name, "bulk_rate")) {
            r = num_size(k->value, place, &c->bulk_rate_b, l->e);
        } else if (!strcmp(k->name, "class_rate")) {
            r = num_size(k->value, place, &c->class_rate_b, l->e);
        } else if (!strcmp(k->name, "collect")) {
            r = num_bool(k->value, place, &b, l->e);
            c->collect = r == 0 && b;
            c->no_collect = r == 0 && !b;
        } else if (!strncmp(k->name, "setup.", 6)) {
            r = load_setup(l, c, k);
        } else {
            r = unknown(l, k, "[class]");
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static int bad_user(struct load *l, const struct ini_key *k)
{
    return err_set(l->e, SF_EUSAGE, "%s: '%.100s' is no user's name", ini_place(l->ini, k->line),
                   k->value);
}

static int load_coordinator(struct load *l, const struct ini_key *k)
{
    struct hosts *h = l->h;
    char host[256], port[8];
    uint64_t n;
    int r = set_str(&h->coordinator, k->value);
    if (r == 0 && (!hosts_endpoint(h, host, port) || !*host || !strcmp(host, "*") ||
                   num_u64(port, 1, 65535, "", &n, NULL) < 0))
        r = err_set(l->e, SF_EUSAGE,
                    "%s: coordinator=%.100s is not tcp://HOST:PORT, where agents connect to",
                    ini_place(l->ini, k->line), k->value);
    return r;
}

static int load_fleet(struct load *l, const struct ini_section *s)
{
    struct hosts *h = l->h;
    for (size_t i = 0; i < s->n_keys; i++) {
        const struct ini_key *k = &s->keys[i];
        const char *place = ini_place(l->ini, k->line);
        int r = 0;
        if (!strcmp(k->name, "coordinator"))
            r = load_coordinator(l, k);
        else if (!strcmp(k->name, "server_key"))
            r = (h->server_key = hosts_local_path(l->ini, k->value)) ? 0 : -ENOMEM;
        else if (!strcmp(k->name, "identity"))
            r = (h->identity = hosts_local_path(l->ini, k->value)) ? 0 : -ENOMEM;
        else if (!strcmp(k->name, "known_hosts"))
            r = (h->known_hosts = hosts_local_path(l->ini, k->value)) ? 0 : -ENOMEM;
        else if (!strcmp(k->name, "user"))
            r = user_ok(k->value) ? (l->defaults.user = k->value, 0) : bad_user(l, k);
        else if (!strcmp(k->name, "data"))
            r = data_ok(k->value) ? (l->defaults.data = k->value, 0) : load_data(l, k, NULL);
        else if (!strcmp(k->name, "port"))
            r = num_u64(k->value, 1, 65535, place, &l->defaults.port, l->e);
        else if (!strcmp(k->name, "bulk_port"))
            r = num_u64(k->value, 1, 65535, place, &h->bulk_port, l->e);
        else if (!strcmp(k->name, "parallel"))
            r = num_u64(k->value, 1, 256, place, &h->parallel, l->e);
        else
            r = unknown(l, k, "[fleet]");
        if (r == -ENOMEM)
            return err_sys(l->e, ENOMEM, "%s", place);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_host(void *user, const char *name)
{
    struct load *l = user;
    struct hosts *h = l->h;
    const struct ini_section *s = l->section;
    const char *where = ini_place(l->ini, s->line);
    if (!hosts_name_ok(name))
        return err_set(l->e, SF_EUSAGE, "%s: '%.100s' is no host name", where, name);
    for (size_t i = 0; i < h->n; i++)
        if (!strcmp(h->host[i].name, name))
            return err_set(l->e, SF_EUSAGE, "%s: host '%s' stands twice", where, name);
    if (h->n == HOSTS_MAX)
        return err_set(l->e, SF_EUSAGE, "%s: more than %d hosts", where, HOSTS_MAX);
    struct host *v = realloc(h->host, (h->n + 1) * sizeof(*v));
    if (!v)
        return err_sys(l->e, ENOMEM, "%s", where);
    h->host = v;
    struct host *o = &v[h->n++];
    *o = (struct host){ .port = l->defaults.port, .class = h->classes[0] };
    if (set_str(&o->name, name) < 0 || set_str(&o->address, name) < 0 ||
        set_str(&o->user, l->defaults.user) < 0 || set_str(&o->data, l->defaults.data) < 0)
        return err_sys(l->e, ENOMEM, "%s", where);
    for (size_t i = 0; i < s->n_keys; i++) {
        const struct ini_key *k = &s->keys[i];
        const char *place = ini_place(l->ini, k->line);
        int r = 0;
        if (!strcmp(k->name, "address")) {
            r = address_ok(k->value)
                    ? set_str(&o->address, k->value)
                    : err_set(l->e, SF_EUSAGE, "%s: '%.100s' is no address", place, k->value);
        } else if (!strcmp(k->name, "port")) {
            r = num_u64(k->value, 1, 65535, place, &o->port, l->e);
        } else if (!strcmp(k->name, "user")) {
            r = user_ok(k->value) ? set_str(&o->user, k->value) : bad_user(l, k);
        } else if (!strcmp(k->name, "data")) {
            r = load_data(l, k, &o->data);
        } else if (!strcmp(k->name, "hostkey")) {
            /* what `ssh-keygen -lf` prints: 43 base64 digits of a SHA-256 */
            if (strncmp(k->value, "SHA256:", 7) != 0 || strlen(k->value) != 50)
                return err_set(l->e, SF_EUSAGE,
                               "%s: a host key looks like SHA256: and 43 more characters", place);
            r = set_str(&o->hostkey, k->value);
        } else if (!strcmp(k->name, "class")) {
            o->class = NULL;
            for (size_t c = 1; c < h->n_classes; c++)
                if (!strcmp(h->classes[c]->name, k->value))
                    o->class = h->classes[c];
            if (!o->class)
                return err_set(l->e, SF_EUSAGE, "%s: no [class %s]", place, k->value);
        } else {
            r = unknown(l, k, "[host]");
        }
        if (r == -ENOMEM)
            return err_sys(l->e, ENOMEM, "%s", place);
        if (r < 0)
            return r;
    }
    where = ini_place(l->ini, s->line); /* its text is that of the newest call */
    if (o->hostkey && strchr(s->arg, '['))
        return err_set(l->e, SF_EUSAGE, "%s: one hostkey cannot be that of a range of hosts",
                       where);
    for (const struct host *p = h->host; p < o; p++)
        if (p->port == o->port && !strcmp(p->address, o->address) && !strcmp(p->user, o->user) &&
            !strcmp(p->data, o->data))
            return err_set(l->e, SF_EUSAGE,
                           "%s: '%s' is the same place as '%s': address, port, user and data",
                           where, o->name, p->name);
    return 0;
}

int hosts_load(const char *path, struct hosts **ret, struct err *e)
{
    CLEANUP(ini_free) struct ini *ini = NULL;
    int r = ini_load(path, &ini, e);
    if (r < 0)
        return r;
    CLEANUP(hosts_free) struct hosts *h = calloc(1, sizeof(*h));
    if (!h || !(h->path = strdup(path)))
        return err_sys(e, ENOMEM, "%s", path);
    h->parallel = 16;
    struct passwd *pw = getpwuid(getuid());
    struct load l = { .ini = ini, .h = h, .e = e };
    l.defaults = (struct host){ .user = pw ? pw->pw_name : (char *)"root",
                                .port = 22,
                                .data = (char *)"~/.local/share/siofleet" };

    const struct ini_section *fleet = ini_section(ini, "fleet", "");
    if (!fleet)
        return err_set(e, SF_EUSAGE,
                       "%s: no [fleet] section (siofleet deploy init prints a template)", path);
    r = load_fleet(&l, fleet);
    if (r == 0)
        r = load_class(&l, NULL);
    for (size_t i = 0; r == 0 && i < ini->n_sections; i++) {
        const struct ini_section *s = &ini->sections[i];
        if (!strcmp(s->name, "class"))
            r = load_class(&l, s);
        else if (strcmp(s->name, "host") != 0 && s != fleet)
            r = err_set(e, SF_EUSAGE, "%s: unknown section [%s]", ini_place(ini, s->line), s->name);
    }
    for (size_t i = 0; r == 0 && i < ini->n_sections; i++) {
        l.section = &ini->sections[i];
        if (!strcmp(l.section->name, "host"))
            r = hosts_expand(l.section->arg, ini_place(ini, l.section->line), add_host, &l, e);
    }
    if (r < 0)
        return r;
    if (!h->n)
        return err_set(e, SF_EUSAGE, "%s: no [host NAME] section", path);
    *ret = TAKE(h);
    return 0;
}

void hosts_free(struct hosts **hp)
{
    struct hosts *h = *hp;
    *hp = NULL;
    if (!h)
        return;
    for (size_t i = 0; i < h->n; i++) {
        struct host *o = &h->host[i];
        free(o->name);
        free(o->address);
        free(o->user);
        free(o->data);
        free(o->hostkey);
    }
    for (size_t i = 0; i < h->n_classes; i++) {
        struct host_class *c = h->classes[i];
        for (size_t k = 0; k < c->n_steps; k++) {
            struct setup_step *t = &c->steps[k];
            for (size_t m = 0; m < t->n_secrets; m++) {
                free(t->secrets[m].name);
                free(t->secrets[m].file);
                free(t->secrets[m].env);
            }
            free(t->secrets);
            free(t->name);
            free(t->command);
        }
        free(c->steps);
        free(c->labels);
        free(c->name);
        free(c);
    }
    free(h->classes);
    free(h->host);
    free(h->path);
    free(h->coordinator);
    free(h->server_key);
    free(h->identity);
    free(h->known_hosts);
    free(h);
}
