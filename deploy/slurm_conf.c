#include "deploy/slurm_conf.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "deploy/hosts.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"
#include "proto/lib/ini.h"

enum kind { WORD, PATH, NUMBER, TIME, SIZE_MIB };

/* One table is the whole of the format: section, key, where it goes, and for numbers the range. */
static const struct field {
    const char *section, *key;
    enum kind kind;
    size_t off;
    uint64_t lo, hi;
} fields[] = {
#define F(section, key, kind, member, lo, hi)                                                      \
    {                                                                                              \
        section, key, kind, offsetof(struct slurm_conf, member), lo, hi                            \
    }
    F("fleet", "coordinator", WORD, coordinator, 0, 0),
    F("fleet", "server_key", PATH, server_key, 0, 0),
    F("fleet", "key", PATH, key, 0, 0),
    F("slurm", "name", WORD, name, 0, 0),
    F("slurm", "data", PATH, data, 0, 0),
    F("slurm", "min", NUMBER, min, 0, SLURM_MAX),
    F("slurm", "max", NUMBER, max, 1, SLURM_MAX),
    F("slurm", "points", NUMBER, points, 1, 1000000),
    F("slurm", "idle", TIME, idle_ms, 0, 0),
    F("slurm", "walltime", TIME, walltime_ms, 60000, 0),
    F("slurm", "drain", TIME, drain_ms, 0, 0),
    F("slurm", "start", TIME, start_ms, 1000, 0),
    F("slurm", "held", TIME, held_ms, 0, 0),
    F("slurm", "poll", TIME, poll_ms, 100, 0),
    F("slurm", "cores", NUMBER, cores, 1, 4096),
    F("slurm", "memory", SIZE_MIB, memory_mib, 0, 0),
    F("slurm", "labels", WORD, labels, 0, 0),
    F("slurm", "partition", WORD, partition, 0, 0),
    F("slurm", "account", WORD, account, 0, 0),
    F("slurm", "qos", WORD, qos, 0, 0),
    F("slurm", "constraint", WORD, constraint, 0, 0),
    F("slurm", "reservation", WORD, reservation, 0, 0),
#undef F
};

static int set(struct slurm_conf *c, const struct ini *ini, const struct ini_key *k,
               const struct field *f, struct err *e)
{
    const char *place = ini_place(ini, k->line);
    void *at = (char *)c + f->off;
    if (f->kind == WORD || f->kind == PATH) {
        char *v = f->kind == PATH ? hosts_local_path(ini, k->value) : strdup(k->value);
        free(*(char **)at);
        *(char **)at = v;
        return v ? 0 : err_sys(e, ENOMEM, "%s", place);
    }
    uint64_t *n = at;
    if (f->kind == NUMBER)
        return num_u64(k->value, f->lo, f->hi, place, n, e);
    int r = f->kind == TIME ? num_ms(k->value, place, n, e) : num_size(k->value, place, n, e);
    if (r == 0 && f->kind == SIZE_MIB)
        *n >>= 20;
    if (r == 0 && *n < f->lo)
        return err_set(e, SF_EUSAGE, "%s: %s= must be at least %llu ms", place, k->name,
                       (unsigned long long)f->lo);
    return r;
}

/* Words that blanks part: no shell reads them. */
static int set_options(struct slurm_conf *c, const char *text, const char *place, struct err *e)
{
    CLEANUP(freep) char *copy = strdup(text);
    char *save = NULL;
    size_t n = 0;
    if (!copy)
        return err_sys(e, ENOMEM, "%s", place);
    for (char *w = strtok_r(copy, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        if (w[0] != '-')
            return err_set(e, SF_EUSAGE,
                           "%s: options= are words like --gres=gpu:1, '%.100s' is not one", place,
                           w);
        char **v = realloc(c->options, (n + 2) * sizeof(*v));
        if (!v)
            return err_sys(e, ENOMEM, "%s", place);
        c->options = v;
        v[n] = strdup(w);
        v[n + 1] = NULL;
        if (!v[n++])
            return err_sys(e, ENOMEM, "%s", place);
    }
    return 0;
}

static int section(struct slurm_conf *c, const struct ini *ini, const struct ini_section *s,
                   struct err *e)
{
    bool known = !strcmp(s->name, "fleet") || !strcmp(s->name, "slurm");
    if (!known || *s->arg)
        return err_set(e, SF_EUSAGE, "%s: [%s%s%s] is neither [fleet] nor [slurm]",
                       ini_place(ini, s->line), s->name, *s->arg ? " " : "", s->arg);
    for (size_t i = 0; i < s->n_keys; i++) {
        const struct ini_key *k = &s->keys[i];
        const struct field *f = NULL;
        int r;
        for (size_t n = 0; n < ARRAY_LEN(fields) && !f; n++)
            if (!strcmp(fields[n].section, s->name) && !strcmp(fields[n].key, k->name))
                f = &fields[n];
        if (f)
            r = set(c, ini, k, f, e);
        else if (!strcmp(s->name, "slurm") && !strcmp(k->name, "options"))
            r = set_options(c, k->value, ini_place(ini, k->line), e);
        else
            r = err_set(e, SF_EUSAGE, "%s: unknown key '%s' in [%s]", ini_place(ini, k->line),
                        k->name, s->name);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What fits one by one, but not together. */
static int whole(struct slurm_conf *c, struct err *e)
{
    if (!c->coordinator || !c->server_key)
        return err_set(e, SF_EUSAGE, "%s: [fleet] needs coordinator= and server_key=", c->path);
    if (!c->data)
        return err_set(e, SF_EUSAGE, "%s: [slurm] needs data=, a folder that all nodes see",
                       c->path);
    /* squeue prints it on a line, sbatch reads a pattern in it */
    if (c->data[0] != '/' || strpbrk(c->data, "\n\\") || strlen(c->data) > 1000)
        return err_set(e, SF_EUSAGE, "%s: data= is a folder, from / on, without backslashes",
                       c->path);
    if (!hosts_name_ok(c->name) || strlen(c->name) > 50)
        return err_set(e, SF_EUSAGE, "%s: name=%.100s: letters, digits, '.', '_', '-', 50 at most",
                       c->path, c->name);
    if (c->labels && !hosts_labels_ok(c->labels))
        return err_set(e, SF_EUSAGE, "%s: labels=%.100s is not k=v,...", c->path, c->labels);
    if (c->drain_ms == UINT64_MAX)
        c->drain_ms = c->walltime_ms / 4 < 120000 ? c->walltime_ms / 4 : 120000;
    if (c->drain_ms >= c->walltime_ms)
        return err_set(e, SF_EUSAGE, "%s: drain= must be shorter than walltime=", c->path);
    return 0;
}

int slurm_conf_load(const char *path, struct slurm_conf **ret, struct err *e)
{
    CLEANUP(ini_free) struct ini *ini = NULL;
    int r = ini_load(path, &ini, e);
    if (r < 0)
        return r;
    CLEANUP(slurm_conf_free) struct slurm_conf *c = calloc(1, sizeof(*c));
    if (!c || !(c->path = strdup(path)) || !(c->name = strdup("slurm")) ||
        !(c->options = calloc(1, sizeof(char *))))
        return err_sys(e, ENOMEM, "%s", path);
    c->max = 8;
    c->cores = 1;
    c->idle_ms = 300000;
    c->walltime_ms = 3600000;
    c->drain_ms = UINT64_MAX;
    c->start_ms = 120000;
    c->held_ms = 600000;
    c->poll_ms = 5000;
    for (size_t i = 0; r == 0 && i < ini->n_sections; i++)
        r = section(c, ini, &ini->sections[i], e);
    if (r == 0)
        r = whole(c, e);
    if (r < 0)
        return r;
    if (!c->points)
        c->points = c->cores;
    *ret = TAKE(c);
    return 0;
}

void slurm_conf_free(struct slurm_conf **cp)
{
    struct slurm_conf *c = *cp;
    *cp = NULL;
    if (!c)
        return;
    for (char **o = c->options; o && *o; o++)
        free(*o);
    free(c->options);
    char *const words[] = { c->path,    c->coordinator, c->server_key, c->key,
                            c->name,    c->data,        c->labels,     c->partition,
                            c->account, c->qos,         c->constraint, c->reservation };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        free(words[i]);
    free(c);
}
