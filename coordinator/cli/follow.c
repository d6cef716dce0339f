#include "coordinator/cli/follow.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"

enum {
    NAP_MS = 20, /* short work ends at once, long work is not asked about all the time */
    NAP_MAX_MS = 1000,
    IDLE_MS =
        3000, /* without anything new, until the agents are looked at; and between two looks */
};

bool follow_ended(const char *state)
{
    static const char *const ends[] = { "done", "failed", "cancelled", "quarantined" };
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        if (state && !strcmp(state, ends[i]))
            return true;
    return false;
}

/* What a follower knows about a sweep that does not move. */
struct idle {
    uint64_t over, since_ms; /* what had ended, and when that or the agents were last looked at */
    char said[400];          /* "" = agents take work, as far as is known */
};

enum { READY, CLOSED, DRAINING, DRAINED, STOPPED, LOST, REVOKED, N_AGENT_STATES };
static const char *const agent_states[N_AGENT_STATES] = { "ready",   "closed",  "draining",
                                                          "drained", "stopped", "lost",
                                                          "revoked" };

static int count_agents(void *ctx, json_t *body, struct err *e)
{
    unsigned *n = ctx;
    size_t i;
    json_t *agent;
    (void)e;
    json_array_foreach (json_object_get(body, "items"), i, agent) {
        const char *state = json_string_value(json_object_get(agent, "state"));
        for (unsigned k = 0; state && k < N_AGENT_STATES; k++)
            n[k] += !strcmp(state, agent_states[k]);
    }
    return 0;
}

/* What of it waits for something else than its turn: "" = nothing. */
static void first_reason(struct client *cl, const char *id, char *out, size_t size)
{
    CLEANUP(json_decrefp) json_t *args = json_pack("{s:s}", "id", id), *doc = NULL;
    size_t i;
    const json_t *x;
    if (client_ask_one(cl, "why", args, &doc, NULL) < 0)
        return;
    json_array_foreach (json_object_get(doc, "reasons"), i, x) {
        const char *code = json_string_value(json_object_get(x, "code")),
                   *text = json_string_value(json_object_get(x, "text"));
        if (code && text && (!strcmp(code, "NEEDS") || !strcmp(code, "MAINTENANCE"))) {
            snprintf(out, size, "%s", text);
            return;
        }
    }
}

/* What no agent is there for waits for ever: say so, once for each state of affairs. bar: NULL = none is shown. */
static void tell_idle(struct idle *w, struct client *cl, const char *id, struct progress *bar,
                      uint64_t over)
{
    uint64_t now = clock_mono_ms();
    if (over != w->over || !w->since_ms) {
        w->over = over;
        w->since_ms = now;
    }
    if (now - w->since_ms < IDLE_MS)
        return;
    w->since_ms = now;
    unsigned n[N_AGENT_STATES] = { 0 };
    char text[sizeof(w->said)] = "";
    if (client_ask(cl, "ls-agents", NULL, count_agents, n, NULL) < 0)
        return; /* the next question about the sweep tells why */
    size_t at = 0;
    for (unsigned k = 0; !n[READY] && k < N_AGENT_STATES; k++)
        if (k == READY || n[k])
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%u %s", k ? ", " : "", n[k],
                                   agent_states[k]);
    bool none = *text;
    if (!none)
        first_reason(cl, id, text, sizeof(text));
    if (*text && strcmp(text, w->said) != 0) {
        if (bar)
            progress_end(bar);
        fprintf(stderr, "siofleet: %s%s\n", none ? "no agent takes work: " : "it waits: ", text);
    }
    memcpy(w->said, text, sizeof(text));
}

static int timed_out(const struct follow *f, const struct follow_at *at, struct err *e)
{
    return err_set(e, ETIMEDOUT,
                   "%s %.16s: not ended after %" PRIu64 " ms: %" PRIu64 " of %" PRIu64 " %s",
                   f->what, f->id, f->deadline_ms, at->over, at->total, at->unit);
}

int follow(struct client *cl, const struct follow *f, json_t **ret, struct err *e)
{
    struct progress bar;
    struct idle idle = { 0 };
    struct follow_at at = { 0 };
    const char *unit = NULL; /* of the bar; NULL = none is shown */
    CLEANUP(json_decrefp) json_t *args = json_pack("{s:s}", "id", f->id);
    json_t *doc = NULL;
    uint64_t start = clock_mono_ms(), nap = NAP_MS;
    int r;
    for (;;) {
        json_t *next = NULL;
        r = client_ask_one(cl, f->what, args, &next, e);
        if (doc && (r == -ETIMEDOUT || r == -SF_ENOFLEET)) {
            /* it outlives its coordinator's restart, so whoever follows it waits as well */
            if (unit)
                progress_end(&bar);
            fprintf(stderr, "%s %.16s: the coordinator does not answer, waiting for it\n", f->what,
                    f->id);
            next = json_incref(doc);
            r = 0;
        }
        if (r < 0)
            break;
        json_decref(doc);
        doc = next;
        f->at(doc, &at);
        bool over = follow_ended(json_string_value(json_object_get(doc, "state")));
        uint64_t now = clock_mono_ms();
        if (unit && strcmp(unit, at.unit) != 0) {
            progress_end(&bar);
            unit = NULL;
        }
        if (!unit && (!f->quiet_ms || (!over && now - start >= f->quiet_ms))) {
            unit = at.unit;
            progress_start(&bar, unit);
        }
        if (unit)
            progress_step(&bar, at.over < at.total ? at.over : at.total, at.total);
        if (over || (f->tick && (r = f->tick(f->ctx, doc, e)) < 0))
            break;
        if (unit || f->told)
            tell_idle(&idle, cl, f->id, unit ? &bar : NULL, at.over);
        now = clock_mono_ms();
        if (f->deadline_ms && now - start >= f->deadline_ms) {
            r = timed_out(f, &at, e);
            break;
        }
        uint64_t ms = nap;
        if (f->deadline_ms && start + f->deadline_ms - now < ms)
            ms = start + f->deadline_ms - now;
        nanosleep(&(struct timespec){ .tv_sec = (time_t)(ms / 1000),
                                      .tv_nsec = (long)(ms % 1000 * 1000000) },
                  NULL);
        nap = nap * 3 / 2 < NAP_MAX_MS ? nap * 3 / 2 : NAP_MAX_MS;
        if (fleet_stop) {
            r = err_set(e, ECANCELED, "%s %.16s: interrupted", f->what, f->id);
            break;
        }
    }
    if (unit)
        progress_end(&bar);
    *ret = doc;
    return r < 0 ? r : 0;
}
