#include "tests/sim/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/num.h"
#include "tests/sim/sim.h"

const char *const poison_names[] = { "exit", "signal", "hang", "host" };
enum { N_POISON = sizeof(poison_names) / sizeof(*poison_names) };

static const struct {
    const char *name, *args;
} verbs[] = {
#define X(name, args) { #name, args },
    PLAN_VERBS(X)
#undef X
};

#define SETTINGS(X)                                                                                \
    X(random)                                                                                      \
    X(agents)                                                                                      \
    X(cores)                                                                                       \
    X(lease_ms)                                                                                    \
    X(heartbeat_ms)                                                                                \
    X(grain_ms)                                                                                    \
    X(point_ms) X(log_b) X(cache_b) X(mib_ms) X(bulk) X(stream_b) X(fresh) X(quiet_ms) X(end_ms)

#define SWEEP_SETTINGS(X)                                                                          \
    X(seed) X(recipes) X(gbps) X(archs) X(block) X(retries) X(priority) X(timeout_ms) X(by_id)

void plan_default(struct plan *p)
{
    *p = (struct plan){ .random = 1,
                        .agents = 3,
                        .cores = 2,
                        .lease_ms = 10000,
                        .heartbeat_ms = 2000,
                        .grain_ms = 200,
                        .point_ms = 100,
                        .log_b = 4096,
                        .mib_ms = 10,
                        .quiet_ms = 110000,
                        .end_ms = 200000 };
}

bool plan_takes_hosts(const struct plan *p)
{
    for (size_t i = 0; i < p->n_ev; i++)
        if (p->ev[i].verb == PLAN_poison && p->ev[i].arg[2] == POISON_HOST)
            return true;
    return false;
}

const char *plan_host_name(unsigned host, char out[8])
{
    if (host < FIRST_AGENT_HOST)
        snprintf(out, 8, "%s", host == COORDINATOR_HOST ? "c" : "u");
    else
        snprintf(out, 8, "a%u", (host - FIRST_AGENT_HOST) % 100);
    return out;
}

int plan_add(struct plan *p, const struct plan_event *ev)
{
    if (p->n_ev == PLAN_EVENTS_MAX)
        return -ENOSPC;
    size_t i = p->n_ev++;
    for (; i && p->ev[i - 1].ms > ev->ms; i--)
        p->ev[i] = p->ev[i - 1];
    p->ev[i] = *ev;
    return 0;
}

/* ---- text */

int plan_text(const struct plan *p, const char *comment, struct buf *out)
{
    int r = buf_addf(out, "# %s\nplan 1\n", comment);
    struct plan d;
    plan_default(&d);
    if (*p->expect && r >= 0)
        r = buf_addf(out, "expect %s\n", p->expect);
#define X(name)                                                                                    \
    if (r >= 0 && p->name != d.name)                                                               \
        r = buf_addf(out, "set " #name " %" PRIu64 "\n", p->name);
    SETTINGS(X)
#undef X
    for (unsigned i = 0; i < p->n_sweeps && r >= 0; i++) {
        r = buf_addf(out, "sweep");
#define X(name)                                                                                    \
    if (r >= 0)                                                                                    \
        r = buf_addf(out, " " #name "=%" PRIu64, p->sweep[i].name);
        SWEEP_SETTINGS(X)
#undef X
        if (r >= 0)
            r = buf_adds(out, "\n");
    }
    for (size_t i = 0; i < p->n_ev && r >= 0; i++) {
        const struct plan_event *ev = &p->ev[i];
        const char *args = verbs[ev->verb].args;
        char host[8];
        r = buf_addf(out, "%" PRIu64 " %s", ev->ms, verbs[ev->verb].name);
        for (int k = 0; args[k] && r >= 0; k++)
            r = args[k] == 'h'   ? buf_addf(out, " %s", plan_host_name((unsigned)ev->arg[k], host))
                : args[k] == 's' ? buf_addf(out, " s%" PRId64, ev->arg[k])
                : args[k] == 'w' ? buf_addf(out, " %s", poison_names[ev->arg[k]])
                                 : buf_addf(out, " %" PRId64, ev->arg[k]);
        if (r >= 0)
            r = buf_adds(out, "\n");
    }
    return r;
}

struct reader {
    const char *name;
    unsigned line;
    struct plan *p;
    struct err *e;
};

static int bad(const struct reader *r, const char *what)
{
    return err_set(r->e, SF_EFORMAT, "%s:%u: %s", r->name, r->line, what);
}

static int number(const struct reader *r, const char *word, uint64_t *ret)
{
    return word && num_u64(word, 0, UINT64_MAX, "", ret, NULL) == 0 ? 0
                                                                    : bad(r, "a number is missing");
}

static int read_setting(struct reader *r, char **save)
{
    const char *key = strtok_r(NULL, " ", save), *value = strtok_r(NULL, " ", save);
    uint64_t v = 0;
    int rc = number(r, value, &v);
    if (rc < 0)
        return rc;
#define X(name)                                                                                    \
    if (key && !strcmp(key, #name)) {                                                              \
        r->p->name = v;                                                                            \
        return 0;                                                                                  \
    }
    SETTINGS(X)
#undef X
    return bad(r, "unknown setting");
}

static int read_sweep(struct reader *r, char **save)
{
    if (r->p->n_sweeps == PLAN_SWEEPS_MAX)
        return bad(r, "too many sweeps");
    struct plan_sweep *w = &r->p->sweep[r->p->n_sweeps++];
    for (char *word; (word = strtok_r(NULL, " ", save));) {
        char *eq = strchr(word, '=');
        uint64_t v = 0;
        bool known = false;
        if (!eq)
            return bad(r, "KEY=VALUE expected");
        *eq = '\0';
        int rc = number(r, eq + 1, &v);
        if (rc < 0)
            return rc;
#define X(name)                                                                                    \
    if (!strcmp(word, #name)) {                                                                    \
        w->name = v;                                                                               \
        known = true;                                                                              \
    }
        SWEEP_SETTINGS(X)
#undef X
        if (!known)
            return bad(r, "unknown key of a sweep");
    }
    if (!w->recipes || !w->archs || w->recipes * w->archs > PLAN_POINTS_MAX)
        return bad(r, "a sweep of no points, or of too many");
    return 0;
}

static int read_arg(struct reader *r, char kind, const char *word, int64_t *ret)
{
    char name[8], *end;
    if (!word)
        return bad(r, "too few arguments");
    if (kind == 'h') {
        for (unsigned h = 0; h < FIRST_AGENT_HOST + r->p->agents; h++)
            if (!strcmp(plan_host_name(h, name), word)) {
                *ret = h;
                return 0;
            }
        return bad(r, "no such host");
    }
    if (kind == 'w') {
        for (int i = 0; i < N_POISON; i++)
            if (!strcmp(poison_names[i], word)) {
                *ret = i;
                return 0;
            }
        return bad(r, "no such end");
    }
    if (kind == 's') {
        if (*word++ != 's')
            return bad(r, "a sweep is s0, s1, ...");
    }
    errno = 0;
    *ret = strtoll(word, &end, 10);
    if (errno || *end || end == word || (kind != 'i' && *ret < 0))
        return bad(r, "not a number");
    return kind == 's' && *ret >= r->p->n_sweeps ? bad(r, "no such sweep") : 0;
}

static int read_event(struct reader *r, const char *first, char **save)
{
    struct plan_event ev = { 0 };
    const char *verb = strtok_r(NULL, " ", save);
    int rc = number(r, first, &ev.ms);
    if (rc < 0)
        return rc;
    int v = 0;
    while (v < PLAN_VERB_COUNT && (!verb || strcmp(verbs[v].name, verb) != 0))
        v++;
    if (v == PLAN_VERB_COUNT)
        return bad(r, "unknown verb");
    ev.verb = (enum plan_verb)v;
    for (int k = 0; verbs[v].args[k]; k++)
        if ((rc = read_arg(r, verbs[v].args[k], strtok_r(NULL, " ", save), &ev.arg[k])) < 0)
            return rc;
    return plan_add(r->p, &ev) < 0 ? bad(r, "too many events") : 0;
}

int plan_parse(const char *name, const char *text, struct plan *ret, struct err *e)
{
    struct reader r = { .name = name, .p = ret, .e = e };
    char *copy = strdup(text), *next = copy, *line;
    int rc = copy ? 0 : -ENOMEM;
    bool headed = false;
    plan_default(ret);
    while (rc >= 0 && (line = strsep(&next, "\n"))) {
        char *save = NULL, *word = strtok_r(line, " ", &save);
        r.line++;
        if (!word || *word == '#')
            continue;
        const char *second;
        if (!headed) {
            second = strtok_r(NULL, " ", &save);
            headed = !strcmp(word, "plan") && second && !strcmp(second, "1");
            rc = headed ? 0 : bad(&r, "'plan 1' expected");
        } else if (!strcmp(word, "set")) {
            rc = read_setting(&r, &save);
        } else if (!strcmp(word, "sweep")) {
            rc = read_sweep(&r, &save);
        } else if (!strcmp(word, "expect")) {
            second = strtok_r(NULL, " ", &save);
            snprintf(ret->expect, sizeof(ret->expect), "%s", second ? second : "");
        } else {
            rc = read_event(&r, word, &save);
        }
    }
    free(copy);
    if (rc >= 0 && ret->agents + FIRST_AGENT_HOST > HOSTS_MAX)
        rc = err_set(e, SF_EFORMAT, "%s: too many agents", name);
    return rc;
}
