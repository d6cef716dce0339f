#include "proto/base/opt.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/num.h"

enum { OPT_MAX = 64, LONG_BASE = 256 };

static int take(const struct opt *d, void *o, const char *val, struct err *e)
{
    char place[80];
    snprintf(place, sizeof(place), "--%s", d->name);
    char *dst = (char *)o + d->off;
    switch (d->kind) {
    case OPT_FLAG:
        *(bool *)dst = true;
        return 0;
    case OPT_STR:
        *(const char **)dst = val;
        return 0;
    case OPT_MULTI: {
        struct opt_multi *m = (struct opt_multi *)dst;
        const char **v = realloc(m->v, (m->n + 1) * sizeof(*v));
        if (!v)
            return err_sys(e, ENOMEM, "%s", place);
        m->v = v;
        m->v[m->n++] = val;
        return 0;
    }
    case OPT_U64:
    case OPT_SIZE:
    case OPT_MS: {
        struct opt_u64 *u = (struct opt_u64 *)dst;
        u->set = 1;
        if (d->kind == OPT_SIZE)
            return num_size(val, place, &u->v, e);
        if (d->kind == OPT_MS)
            return num_ms(val, place, &u->v, e);
        return num_u64(val, d->min, d->max ? d->max : UINT64_MAX, place, &u->v, e);
    }
    }
    return err_set(e, EINVAL, "%s: option of no kind", place);
}

int opt_parse(const struct verb *v, void *o, int argc, char **argv, char ***ret_args, struct err *e)
{
    struct option longs[OPT_MAX + 1] = { 0 };
    char shorts[2 * OPT_MAX + 3];
    size_t n = 0, s = 0;
    if (v->stop_at_first)
        shorts[s++] = '+';
    shorts[s++] = ':';
    for (const struct opt *d = v->opts; d && d->name && n < OPT_MAX; d++, n++) {
        longs[n] =
            (struct option){ .name = d->name,
                             .has_arg = d->kind == OPT_FLAG ? no_argument : required_argument,
                             .val = LONG_BASE + (int)n };
        if (d->letter) {
            shorts[s++] = d->letter;
            if (d->kind != OPT_FLAG)
                shorts[s++] = ':';
        }
    }
    shorts[s] = '\0';

    /* getopt skips argv[0]; give it one that is not ours */
    char **av = calloc((size_t)argc + 2, sizeof(*av));
    if (!av)
        return err_sys(e, ENOMEM, "options");
    av[0] = (char *)"siofleet";
    for (int i = 0; i < argc; i++)
        av[i + 1] = argv[i];
    optind = 0;
    opterr = 0;
    int r = 0, c;
    while (r >= 0 && (c = getopt_long(argc + 1, av, shorts, longs, NULL)) != -1) {
        const char *word = optind > 0 && optind - 1 <= argc ? av[optind - 1] : "?";
        if (c == ':') {
            r = err_set(e, SF_EUSAGE, "%s: a value is missing", word);
        } else if (c == '?') {
            if (optopt >= LONG_BASE)
                r = err_set(e, SF_EUSAGE, "%s: takes no value", word);
            else if (optopt)
                r = err_set(e, SF_EUSAGE, "-%c: unknown option (see siofleet %s --help)", optopt,
                            v->name);
            else
                r = err_set(e, SF_EUSAGE, "%s: unknown option (see siofleet %s --help)", word,
                            v->name);
        } else {
            const struct opt *d = NULL;
            if (c >= LONG_BASE) {
                d = &v->opts[c - LONG_BASE];
            } else {
                for (d = v->opts; d->letter != (char)c; d++)
                    ;
            }
            r = take(d, o, optarg, e);
        }
    }
    int left = argc + 1 - optind;
    if (r >= 0) {
        for (int i = 0; i < argc; i++)
            argv[i] = av[i + 1];
        *ret_args = argv + (optind - 1);
        if (left < v->min_args)
            r = err_set(e, SF_EUSAGE, "%s: missing argument: siofleet %s %s", v->name, v->name,
                        v->args);
        else if (v->max_args >= 0 && left > v->max_args)
            r = err_set(e, SF_EUSAGE, "%s: one argument too many: '%.100s'", v->name,
                        (*ret_args)[v->max_args]);
        else
            r = left;
        /* an unset variable of a script: no file, id or name is called so */
        for (int i = 0; r >= 0 && i < left && !v->stop_at_first; i++)
            if (!*(*ret_args)[i])
                r = err_set(e, SF_EUSAGE, "%s: an argument is empty: siofleet %s %s", v->name,
                            v->name, v->args);
    }
    free(av);
    return r;
}

void opt_free(const struct verb *v, void *o)
{
    for (const struct opt *d = v->opts; d && d->name; d++)
        if (d->kind == OPT_MULTI) {
            struct opt_multi *m = (struct opt_multi *)((char *)o + d->off);
            free(m->v);
            *m = (struct opt_multi){ 0 };
        }
}
