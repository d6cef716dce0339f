/* siofleet VERB ...: find the verb, read its options, run it. Called hypersio-perf, it is that tool. */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cli/cli_collect_fleet.h"
#include "coordinator/cli/help.h"
#include "coordinator/cli/verbs.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/cli.h"

#ifdef SF_HAVE_hypersio_perf_main
int hypersio_perf_main(int argc, char **argv);
#endif

/* A verb with children or a fleet behind it sets a handler of its own. The others hold nothing but files that are
 * being written beside their name: those go, and the status says cancelled. Only what signal-safety(7) allows. */
static void on_cancel(int sig)
{
    static const char line[] = "siofleet: interrupted: cancelled\n";
    (void)sig;
    file_abort_all();
    if (write(STDERR_FILENO, line, sizeof(line) - 1) < 0) {
    }
    _exit(5);
}

static bool has_opt(const struct verb *v, const char *name)
{
    for (const struct opt *d = v->opts; d && d->name; d++)
        if (!strcmp(d->name, name))
            return true;
    return false;
}

/* An option that stands alone, before `--`, and before the command where one follows. */
static bool given(const struct verb *v, int argc, char **argv, const char *word)
{
    for (int i = 0;
         i < argc && strcmp(argv[i], "--") && (!v || !v->stop_at_first || argv[i][0] == '-'); i++)
        if (!strcmp(argv[i], word))
            return true;
    return false;
}

static int unknown(int argc, char **argv)
{
    struct cli c = { .json = given(NULL, argc, argv, "--json") };
    if (verbs_is_group(argv[0])) {
        if (argc > 1 && argv[1][0] != '-')
            return cli_failf(&c, SF_EUSAGE, "%s %.60s: unknown verb (see siofleet %s --help)",
                             argv[0], argv[1], argv[0]);
        return cli_failf(&c, SF_EUSAGE, "%s: a verb is missing (see siofleet %s --help)", argv[0],
                         argv[0]);
    }
    return cli_failf(&c, SF_EUSAGE, "%.60s: unknown verb (see siofleet --help)", argv[0]);
}

static int run(const struct verb *v, int argc, char **argv)
{
    struct cli c = { .verb = v };
    c.json = (has_opt(v, "json") && given(v, argc, argv, "--json")) ||
             (has_opt(v, "jsonl") && given(v, argc, argv, "--jsonl"));
    struct err e = { 0 };
    void *o = calloc(1, v->opts_size + 1);
    if (!o)
        return cli_failf(&c, ENOMEM, "%s: out of memory", v->name);
    char **args;
    int n = opt_parse(v, o, argc, argv, &args, &e);
    int status = n < 0 ? cli_fail(&c, &e) : v->run(&c, o, n, args);
    opt_free(v, o);
    free(o);
    return status;
}

int main(int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "siofleet";
#ifdef SF_HAVE_hypersio_perf_main
    if (!strcmp(name, "hypersio-perf"))
        return hypersio_perf_main(argc, argv);
#else
    (void)name;
#endif
    struct sigaction sa = { .sa_handler = on_cancel };
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);

#if defined(SF_HAVE_fleet_verbs) && defined(SF_HAVE_collect_verbs)
    collect_fleet_init();
#endif
    argc -= argc > 0;
    argv++;
    if (argc <= 0) {
        struct cli c = { 0 };
        return cli_failf(&c, SF_EUSAGE, "siofleet: a verb is missing (see siofleet --help)");
    }
    if (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h")) {
        help_program();
        return cli_flush(NULL);
    }
    if (!strcmp(argv[0], "--version")) {
        printf("siofleet " SIOFLEET_VERSION "\n");
        return cli_flush(NULL);
    }
    int words;
    const struct verb *v = verbs_find(argc, argv, &words);
    /* `collect --help` of a verb that is also a group teaches both */
    if (verbs_is_group(argv[0]) && words == 1 && (!v || argc == 1 || !strcmp(argv[1], "--help")) &&
        argc > 1 && given(v, argc - 1, argv + 1, "--help")) {
        if (v) {
            help_verb(v);
            putchar('\n');
        }
        help_group(argv[0]);
        return cli_flush(NULL);
    }
    if (!v)
        return unknown(argc, argv);
    if (given(v, argc - words, argv + words, "--help")) {
        help_verb(v);
        return cli_flush(NULL);
    }
    return run(v, argc - words, argv + words);
}
