#include "proto/lib/ini.h"

#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"

struct load {
    struct ini *ini;
    struct err *e;
    int failed;
    int line;
    const char *next; /* rest of the text, for the reader */
    const char *flat; /* section of the keys that stand before any; NULL = there may be none */
};

static char *dup_trimmed(const char *s, size_t n)
{
    while (n && (*s == ' ' || *s == '\t'))
        s++, n--;
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r'))
        n--;
    return strndup(s, n);
}

static int add_section(struct load *l, const char *full, int line)
{
    struct ini *ini = l->ini;
    const char *sp = strpbrk(full, " \t");
    size_t n = sp ? (size_t)(sp - full) : strlen(full);
    struct ini_section *v = realloc(ini->sections, (ini->n_sections + 1) * sizeof(*v));
    if (!v)
        return err_sys(l->e, ENOMEM, "%s", ini->path);
    ini->sections = v;
    struct ini_section *s = &v[ini->n_sections++];
    *s = (struct ini_section){ .line = line };
    s->name = strndup(full, n);
    s->arg = sp ? dup_trimmed(sp, strlen(sp)) : strdup("");
    if (!s->name || !s->arg)
        return err_sys(l->e, ENOMEM, "%s", ini->path);
    for (size_t i = 0; i + 1 < ini->n_sections; i++)
        if (!strcmp(v[i].name, s->name) && !strcmp(v[i].arg, s->arg))
            return err_set(l->e, SF_EUSAGE, "%s:%d: section [%s] stands twice (first on line %d)",
                           ini->path, line, full, v[i].line);
    return 0;
}

/* inih calls this for each key; sections are told by the reader below, which sees every line. */
static int on_key(void *user, const char *section, const char *name, const char *value)
{
    struct load *l = user;
    struct ini *ini = l->ini;
    (void)section;
    if (l->failed)
        return 1;
    if (!ini->n_sections && l->flat && (l->failed = add_section(l, l->flat, l->line)) < 0)
        return 1;
    if (!ini->n_sections) {
        l->failed = err_set(l->e, SF_EUSAGE, "%s:%d: key '%s' before any [section]", ini->path,
                            l->line, name);
        return 1;
    }
    struct ini_section *s = &ini->sections[ini->n_sections - 1];
    for (size_t i = 0; i < s->n_keys; i++)
        if (!strcmp(s->keys[i].name, name)) {
            l->failed = err_set(l->e, SF_EUSAGE, "%s:%d: key '%s' stands twice (first on line %d)",
                                ini->path, l->line, name, s->keys[i].line);
            return 1;
        }
    struct ini_key *v = realloc(s->keys, (s->n_keys + 1) * sizeof(*v));
    if (!v) {
        l->failed = err_sys(l->e, ENOMEM, "%s", ini->path);
        return 1;
    }
    s->keys = v;
    v[s->n_keys] = (struct ini_key){ strdup(name), strdup(value), l->line };
    if (!v[s->n_keys].name || !v[s->n_keys].value)
        l->failed = err_sys(l->e, ENOMEM, "%s", ini->path);
    s->n_keys++;
    return 1;
}

/* Feeds one line at a time; a line longer than inih's buffer or indented like a continuation would
 * be misread silently, so the first is refused and the second loses its indent. */
static char *next_line(char *out, int room, void *user)
{
    struct load *l = user;
    if (l->failed || !*l->next)
        return NULL;
    const char *nl = strchrnul(l->next, '\n');
    const char *start = l->next;
    l->next = *nl ? nl + 1 : nl;
    l->line++;
    while (start < nl && (*start == ' ' || *start == '\t'))
        start++;
    size_t n = (size_t)(nl - start);
    if (n && start[n - 1] == '\r')
        n--;
    if (n + 2 > (size_t)room || n > 4096) {
        l->failed = err_set(l->e, SF_EUSAGE, "%s:%d: line longer than %d characters", l->ini->path,
                            l->line, room < 4096 ? room - 2 : 4096);
        return NULL;
    }
    memcpy(out, start, n);
    out[n] = '\0';
    if (out[0] == '[') {
        char *end = strrchr(out, ']');
        char *hash = strpbrk(out, "#;");
        if (hash && end && hash < end)
            end = NULL;
        if (!end) {
            l->failed = err_set(l->e, SF_EUSAGE, "%s:%d: '[' without ']'", l->ini->path, l->line);
        } else {
            char *name = dup_trimmed(out + 1, (size_t)(end - out - 1));
            if (!name || !*name)
                l->failed = err_set(l->e, SF_EUSAGE, "%s:%d: section without a name", l->ini->path,
                                    l->line);
            else
                l->failed = add_section(l, name, l->line);
            free(name);
        }
    }
    out[n] = '\n';
    out[n + 1] = '\0';
    return out;
}

static int parse(const char *path, const char *text, const char *flat, struct ini **ret,
                 struct err *e)
{
    CLEANUP(ini_free) struct ini *ini = calloc(1, sizeof(*ini));
    if (!ini || !(ini->path = strdup(path)))
        return err_sys(e, ENOMEM, "%s", path);
    if (!strncmp(text, "\xef\xbb\xbf", 3))
        text += 3;
    struct load l = { .ini = ini, .e = e, .next = text, .flat = flat };
    int bad = ini_parse_stream(next_line, &l, on_key, &l);
    if (l.failed < 0)
        return l.failed;
    if (bad > 0)
        return err_set(e, SF_EUSAGE, "%s:%d: neither a [section] nor key = value", path, bad);
    if (bad < 0)
        return err_sys(e, ENOMEM, "%s", path);
    *ret = TAKE(ini);
    return 0;
}

int ini_text(const char *path, const char *text, struct ini **ret, struct err *e)
{
    return parse(path, text, NULL, ret, e);
}

int ini_load_flat(const char *path, const char *section, struct ini **ret, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1u << 20);
    int r = file_read_text(path, &b, e);
    if (r < 0)
        return r;
    return parse(path, b.len ? (const char *)b.data : "", section, ret, e);
}

int ini_load(const char *path, struct ini **ret, struct err *e)
{
    return ini_load_flat(path, NULL, ret, e);
}

void ini_free(struct ini **p)
{
    struct ini *ini = *p;
    *p = NULL;
    if (!ini)
        return;
    for (size_t i = 0; i < ini->n_sections; i++) {
        struct ini_section *s = &ini->sections[i];
        for (size_t k = 0; k < s->n_keys; k++) {
            free(s->keys[k].name);
            free(s->keys[k].value);
        }
        free(s->keys);
        free(s->name);
        free(s->arg);
    }
    free(ini->sections);
    free(ini->path);
    free(ini);
}

const struct ini_section *ini_section(const struct ini *ini, const char *name, const char *arg)
{
    for (size_t i = 0; i < ini->n_sections; i++)
        if (!strcmp(ini->sections[i].name, name) && (!arg || !strcmp(ini->sections[i].arg, arg)))
            return &ini->sections[i];
    return NULL;
}

const char *ini_get(const struct ini_section *s, const char *key)
{
    for (size_t i = 0; s && i < s->n_keys; i++)
        if (!strcmp(s->keys[i].name, key))
            return s->keys[i].value;
    return NULL;
}

const char *ini_place(const struct ini *ini, int line)
{
    static _Thread_local char place[400];
    snprintf(place, sizeof(place), "%.380s:%d", ini->path, line);
    return place;
}

char *ini_path(const struct ini *ini, const char *value)
{
    const char *slash = strrchr(ini->path, '/');
    if (value[0] == '/' || !slash)
        return strdup(value);
    return path_fmt("%.*s/%s", (int)(slash - ini->path), ini->path, value);
}
