#include "coordinator/cli/help.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/cli/verbs.h"
#include "proto/base/clean.h"
#include "proto/lib/cli.h"

static const char intro[] =
    "siofleet turns a handful of machines into one instrument for hyper-tenant I/O-translation\n"
    "experiments: it collects IOMMU logs, builds traces of many tenants from them, sweeps an\n"
    "architecture model over the traces on every core of every host, and keeps all results in one\n"
    "place with their provenance.\n";

static const char examples[] =
    "  siofleet trace build --log a.log --tenants 24 -o a.trc     one trace from one log\n"
    "  siofleet perf run a.trc --preset hypertrio                 one architecture, on this host\n"
    "  siofleet perf sweep sweep.ini --csv                        many, on all cores of this host\n"
    "  siofleet sweep run sweep.ini --csv out.csv                 the same on the fleet, same "
    "bytes\n"
    "  siofleet results query --sweep last                        its rows again, any time later\n";

/* ---- help */

static size_t head_len(const struct verb *v)
{
    return strcspn(v->name, " ");
}

struct listing {
    const char *word; /* only this group, NULL = all */
    char last[32];
};

static int list_verb(void *user, const struct verb *v)
{
    struct listing *l = user;
    char word[32];
    snprintf(word, sizeof(word), "%.*s", (int)head_len(v), v->name);
    if (l->word && strcmp(l->word, word))
        return 0;
    if (!l->word && strcmp(l->last, word)) {
        const char *s = verbs_is_group(word) ? verbs_group_summary(word) : NULL;
        if (s)
            printf("\n%s: %s\n", word, s);
        else if (!l->last[0] || verbs_is_group(l->last))
            putchar('\n');
        strcpy(l->last, word);
    }
    printf("  %-20s %s\n", v->name, v->summary);
    return 0;
}

void help_program(void)
{
    printf("usage: siofleet VERB [OPTION...] [ARG...]\n\n%s\nExamples:\n%s", intro, examples);
    struct listing l = { 0 };
    verbs_each(list_verb, &l);
    printf("\n`siofleet VERB --help` teaches one verb by example. Data goes to stdout, everything "
           "else to\n"
           "stderr. Exit: 0 done, 1 the work failed, 2 usage, 3 no coordinator or refused, 4 "
           "integrity,\n"
           "5 cancelled.\n");
}

void help_group(const char *word)
{
    const char *s = verbs_group_summary(word);
    printf("usage: siofleet %s VERB [OPTION...] [ARG...]\n\n", word);
    if (s)
        printf("%s: %s\n\n", word, s);
    struct listing l = { .word = word };
    verbs_each(list_verb, &l);
    printf("\n`siofleet %s VERB --help` teaches one of them by example.\n", word);
}

/* Text with each line indented by two. */
static void indented(const char *s)
{
    while (*s) {
        size_t n = strcspn(s, "\n");
        if (n)
            printf("  %.*s", (int)n, s);
        putchar('\n');
        s += n + (s[n] == '\n');
    }
}

static void option_name(const struct opt *d, char *out, size_t room)
{
    char letter[8] = "";
    if (d->letter)
        snprintf(letter, sizeof(letter), "-%c, ", d->letter);
    snprintf(out, room, "%s--%s%s%s", letter, d->name, d->kind == OPT_FLAG ? "" : " ",
             d->kind == OPT_FLAG ? ""
             : d->arg            ? d->arg
                                 : "VALUE");
}

void help_verb(const struct verb *v)
{
    printf("usage: siofleet %s%s%s%s\n\n%s\n", v->name,
           v->opts && v->opts->name ? " [OPTION...]" : "", v->args && *v->args ? " " : "",
           v->args ? v->args : "", v->summary);
    if (v->details) {
        putchar('\n');
        fputs(v->details, stdout);
        if (v->details[0] && v->details[strlen(v->details) - 1] != '\n')
            putchar('\n');
    }
    if (v->examples) {
        printf("\nExamples:\n");
        indented(v->examples);
    }
    if (!v->opts || !v->opts->name)
        return;
    printf("\nOptions:\n");
    for (const struct opt *d = v->opts; d->name; d++) {
        char name[80];
        option_name(d, name, sizeof(name));
        printf("  %-28s %s%s\n", name, d->help ? d->help : "",
               d->kind == OPT_MULTI ? " (may be repeated)" : "");
    }
}

/* ---- manual page */

/* Roff would take a leading dot or quote for a request, and a backslash for an escape. */
static void roff(const char *s)
{
    bool start = true;
    for (; *s; s++) {
        if (start && (*s == '.' || *s == '\''))
            fputs("\\&", stdout);
        if (*s == '\\')
            fputs("\\e", stdout);
        else if (*s == '-')
            fputs("\\-", stdout);
        else
            putchar(*s);
        start = *s == '\n';
    }
}

static int man_verb(void *user, const struct verb *v)
{
    (void)user;
    printf(".SS ");
    roff(v->name);
    printf("\n.B siofleet ");
    roff(v->name);
    putchar('\n');
    if (v->opts && v->opts->name)
        printf("[OPTION...]\n");
    if (v->args && *v->args) {
        roff(v->args);
        putchar('\n');
    }
    printf(".PP\n");
    roff(v->summary);
    printf(".\n");
    if (v->details) {
        printf(".PP\n.nf\n");
        roff(v->details);
        printf("\n.fi\n");
    }
    for (const struct opt *d = v->opts; d && d->name; d++) {
        char name[80];
        option_name(d, name, sizeof(name));
        printf(".TP\n.B ");
        roff(name);
        putchar('\n');
        roff(d->help ? d->help : "");
        putchar('\n');
    }
    if (v->examples) {
        printf(".PP\nExamples:\n.PP\n.nf\n.RS 2\n");
        roff(v->examples);
        printf("\n.RE\n.fi\n");
    }
    return 0;
}

void help_man(void)
{
    printf(".TH SIOFLEET 1 \"\" \"siofleet " SIOFLEET_VERSION "\"\n.SH NAME\n"
           "siofleet \\- hyper\\-tenant I/O translation experiments on many hosts\n.SH SYNOPSIS\n"
           ".B siofleet\nVERB [OPTION...] [ARG...]\n.SH DESCRIPTION\n");
    roff(intro);
    printf(".SH VERBS\n");
    verbs_each(man_verb, NULL);
    printf(".SH EXAMPLES\n.nf\n");
    roff(examples);
    printf(".fi\n.SH EXIT STATUS\n0 done; 1 the work failed; 2 usage, nothing was started; 3 no "
           "coordinator, or refused;\n"
           "4 integrity; 5 cancelled.\n.SH ENVIRONMENT\nSIOFLEET_CONNECT, SIOFLEET_SERVER_KEY, "
           "SIOFLEET_KEY: the fleet to\n"
           "talk to. SIOFLEET_ISA: scalar, avx2 or avx512 pins the engine's code path.\n");
}

/* ---- completion */

static int print_word(void *user, const struct verb *v)
{
    char *last = user; /* first words come next to each other */
    char word[32];
    snprintf(word, sizeof(word), "%.*s", (int)head_len(v), v->name);
    if (strcmp(last, word))
        printf(" %s", word);
    strcpy(last, word);
    return 0;
}

static void words(void)
{
    char last[32] = "";
    verbs_each(print_word, last);
}

static int print_second(void *user, const struct verb *v)
{
    const char *word = user;
    size_t n = head_len(v);
    if (v->name[n] && strlen(word) == n && !strncmp(v->name, word, n))
        printf(" %s", v->name + n + 1);
    return 0;
}

static void print_opts(const struct verb *v)
{
    for (const struct opt *d = v->opts; d && d->name; d++)
        printf(" --%s", d->name);
    printf(" --help");
}

static int bash_verb(void *user, const struct verb *v)
{
    bool two = v->name[head_len(v)];
    if (two != *(bool *)user)
        return 0;
    printf("        \"%s%s) opts=\"", v->name, two ? "\"" : " \"*");
    print_opts(v);
    printf("\" ;;\n");
    return 0;
}

struct once {
    char last[32];
};

static int group_line(void *user, const struct verb *v)
{
    struct once *o = user;
    char word[32];
    snprintf(word, sizeof(word), "%.*s", (int)head_len(v), v->name);
    if (!v->name[head_len(v)] || !strcmp(o->last, word))
        return 0;
    strcpy(o->last, word);
    printf("            %s) opts=\"", word);
    verbs_each(print_second, word);
    printf("\" ;;\n");
    return 0;
}

static void completion_bash(bool zsh)
{
    printf("# completion of siofleet for %s, made by `siofleet completion %s`\n",
           zsh ? "zsh" : "bash", zsh ? "zsh" : "bash");
    if (zsh)
        printf("autoload -U +X bashcompinit && bashcompinit\n");
    printf("_siofleet() {\n    local cur=${COMP_WORDS[COMP_CWORD]} opts=\"\"\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W \"");
    words();
    printf(" --help --version\" -- \"$cur\"))\n        return\n    fi\n"
           "    if [ \"$COMP_CWORD\" -eq 2 ] && [ \"${cur#-}\" = \"$cur\" ]; then\n"
           "        case ${COMP_WORDS[1]} in\n");
    struct once o = { 0 };
    verbs_each(group_line, &o);
    printf("        esac\n        COMPREPLY=($(compgen -W \"$opts\" -- \"$cur\") $(compgen -f -- "
           "\"$cur\"))\n"
           "        return\n    fi\n"
           "    case $cur in\n    -*)\n        case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n");
    /* two-word verbs before the one-word patterns that would cover them */
    for (int two = 1; two >= 0; two--) {
        bool want = two;
        verbs_each(bash_verb, &want);
    }
    printf("        esac\n        COMPREPLY=($(compgen -W \"$opts\" -- \"$cur\"))\n        return "
           ";;\n    esac\n"
           "    COMPREPLY=($(compgen -f -- \"$cur\"))\n}\n"
           "complete -o filenames -F _siofleet siofleet\n");
}

static int fish_verb(void *user, const struct verb *v)
{
    struct once *o = user;
    size_t n = head_len(v);
    char word[32];
    snprintf(word, sizeof(word), "%.*s", (int)n, v->name);
    if (strcmp(o->last, word)) {
        const char *s = v->name[n] ? verbs_group_summary(word) : v->summary;
        printf("complete -c siofleet -n __fish_use_subcommand -f -a %s -d \"%s\"\n", word,
               s ? s : "");
        strcpy(o->last, word);
    }
    if (v->name[n])
        printf("complete -c siofleet -n '__fish_seen_subcommand_from %s' -a %s -d \"%s\"\n", word,
               v->name + n + 1, v->summary);
    for (const struct opt *d = v->opts; d && d->name; d++) {
        printf("complete -c siofleet -n '__fish_seen_subcommand_from %s%s%s' -l %s", word,
               v->name[n] ? "; and __fish_seen_subcommand_from " : "",
               v->name[n] ? v->name + n + 1 : "", d->name);
        if (d->letter)
            printf(" -s %c", d->letter);
        printf("%s -d \"%s\"\n", d->kind == OPT_FLAG ? "" : " -r", d->help ? d->help : "");
    }
    return 0;
}

int help_completion(const char *shell)
{
    if (!strcmp(shell, "bash") || !strcmp(shell, "zsh")) {
        completion_bash(*shell == 'z');
        return 0;
    }
    if (strcmp(shell, "fish"))
        return -1;
    printf("# completion of siofleet for fish, made by `siofleet completion fish`\n");
    struct once o = { 0 };
    verbs_each(fish_verb, &o);
    return 0;
}

/* ---- verbs of its own */

struct help_opts {
    bool man;
};

static int run_help(struct cli *c, void *o, int argc, char **argv)
{
    const struct help_opts *h = o;
    int words_n;
    if (h->man) {
        help_man();
        return cli_flush(c);
    }
    const struct verb *v = verbs_find(argc, argv, &words_n);
    if (!argc)
        help_program();
    else if (argc == 1 && verbs_is_group(argv[0]))
        help_group(argv[0]);
    else if (v && v->name[0] != '_')
        help_verb(v);
    else
        return cli_failf(c, SF_EUSAGE, "help: no verb '%.60s' (see siofleet --help)", argv[0]);
    return cli_flush(c);
}

static int run_completion(struct cli *c, void *o, int argc, char **argv)
{
    (void)o;
    (void)argc;
    if (help_completion(argv[0]) < 0)
        return cli_failf(c, SF_EUSAGE, "completion: unknown shell '%.60s' (bash, zsh, fish)",
                         argv[0]);
    return cli_flush(c);
}

static const struct opt help_options[] = {
    { .name = "man",
      .help = "the manual page siofleet(1), as roff",
      .kind = OPT_FLAG,
      .off = offsetof(struct help_opts, man) },
    { 0 },
};

const struct verb own_verbs[] = {
    { .name = "help",
      .args = "[VERB]",
      .summary = "help on the program, a group of verbs or one verb",
      .examples = "siofleet help perf run          as siofleet perf run --help\n"
                  "siofleet help --man | man -l -  the manual page",
      .opts = help_options,
      .opts_size = sizeof(struct help_opts),
      .max_args = 2,
      .run = run_help },
    { .name = "completion",
      .args = "bash|zsh|fish",
      .summary = "print the completion script of a shell",
      .examples = "source <(siofleet completion bash)\n"
                  "siofleet completion fish > ~/.config/fish/completions/siofleet.fish",
      .min_args = 1,
      .max_args = 1,
      .run = run_completion },
    { 0 },
};
