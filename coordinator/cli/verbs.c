#include "coordinator/cli/verbs.h"

#include <string.h>

#include "proto/base/clean.h"

/* CMakeLists.txt defines SF_HAVE_X once X's source is part of a library of this build. */
#ifdef SF_HAVE_deploy_verbs
extern const struct verb deploy_verbs[];
#endif
#ifdef SF_HAVE_collect_verbs
extern const struct verb collect_verbs[];
extern const struct verb vm_verbs[];
#endif
#ifdef SF_HAVE_log_verbs
extern const struct verb log_verbs[];
#endif
#ifdef SF_HAVE_trace_verbs
extern const struct verb trace_verbs[];
#endif
#ifdef SF_HAVE_perf_verbs
extern const struct verb perf_verbs[];
#endif
#ifdef SF_HAVE_fleet_verbs
extern const struct verb fleet_verbs[];
#endif
#ifdef SF_HAVE_store_verbs
extern const struct verb store_verbs[];
#endif
#ifdef SF_HAVE_coordinator_verbs
extern const struct verb coordinator_verbs[];
#endif
#ifdef SF_HAVE_agent_verbs
extern const struct verb agent_verbs[];
#endif
#ifdef SF_HAVE_keys_verbs
extern const struct verb keys_verbs[];
#endif

static const struct verb *const tables[] = {
#ifdef SF_HAVE_fleet_verbs
    fleet_verbs,
#endif
#ifdef SF_HAVE_log_verbs
    log_verbs,
#endif
#ifdef SF_HAVE_trace_verbs
    trace_verbs,
#endif
#ifdef SF_HAVE_perf_verbs
    perf_verbs,
#endif
#ifdef SF_HAVE_collect_verbs
    collect_verbs,     vm_verbs,
#endif
#ifdef SF_HAVE_deploy_verbs
    deploy_verbs,
#endif
#ifdef SF_HAVE_store_verbs
    store_verbs,
#endif
#ifdef SF_HAVE_coordinator_verbs
    coordinator_verbs,
#endif
#ifdef SF_HAVE_agent_verbs
    agent_verbs,
#endif
#ifdef SF_HAVE_keys_verbs
    keys_verbs,
#endif
    own_verbs,
};

static const struct {
    const char *word, *summary;
} groups[] = {
    { "log", "IOMMU logs: import, look into, print" },
    { "trace", "traces built from logs: build, look into, convert" },
    { "perf", "the performance model on this host, without a fleet" },
    { "sweep", "sweeps on the fleet: plan, submit, follow" },
    { "results", "rows of finished sweeps: tables, CSV, pictures" },
    { "collect", "IOMMU logs from patched QEMU stacks" },
    { "vm", "running QEMU stacks" },
    { "keys", "keys of coordinators, agents and users" },
    { "deploy", "agents on many hosts, over SSH or in Slurm's allocations" },
    { "store", "the coordinator's artefacts" },
};

static int each(int (*cb)(void *user, const struct verb *v), void *user, int hidden)
{
    for (size_t t = 0; t < ARRAY_LEN(tables); t++)
        for (const struct verb *v = tables[t]; v->name; v++) {
            int r = v->name[0] == '_' && !hidden ? 0 : cb(user, v);
            if (r)
                return r;
        }
    return 0;
}

int verbs_each(int (*cb)(void *user, const struct verb *v), void *user)
{
    return each(cb, user, 0);
}

struct search {
    int argc;
    char **argv;
    const struct verb *one, *two;
};

static int match(void *user, const struct verb *v)
{
    struct search *s = user;
    const char *sp = strchr(v->name, ' ');
    if (!sp) {
        if (!s->one && !strcmp(v->name, s->argv[0]))
            s->one = v;
    } else if (!s->two && s->argc > 1 && strlen(s->argv[0]) == (size_t)(sp - v->name) &&
               !strncmp(v->name, s->argv[0], (size_t)(sp - v->name)) &&
               !strcmp(sp + 1, s->argv[1])) {
        s->two = v;
    }
    return 0;
}

const struct verb *verbs_find(int argc, char **argv, int *ret_words)
{
    struct search s = { .argc = argc, .argv = argv };
    if (argc > 0)
        each(match, &s, 1);
    *ret_words = s.two ? 2 : 1;
    return s.two ? s.two : s.one;
}

static int in_group(void *user, const struct verb *v)
{
    const char *word = user, *sp = strchr(v->name, ' ');
    return sp && strlen(word) == (size_t)(sp - v->name) && !strncmp(v->name, word, strlen(word));
}

int verbs_is_group(const char *word)
{
    return verbs_each(in_group, (void *)(uintptr_t)word);
}

const char *verbs_group_summary(const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        if (!strcmp(groups[i].word, word))
            return groups[i].summary;
    return NULL;
}
