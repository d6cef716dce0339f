/* Canaries: an agent that registers with a program whose results are not vouched for on its host runs one known point before
 * anything else. Another result than the stored one, bit for bit, is an alarm: the agent is drained and named. Its rows go
 * nowhere: a sweep that is over stays as it is. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

enum { TRIES = 3, AGAIN_MS = 24 * 3600 * 1000, TIMEOUT_MS = 30000 };
static const uint64_t trace_max_b = 64 << 20; /* nobody waits for a big trace only to be trusted */

static void live_freep(struct live **l)
{
    live_free(l);
}

static struct sched_event event_of(enum sched_event_type type, const struct hub_agent *a,
                                   bool accept)
{
    struct sched_event ev = { .type = type, .agent = { .accept = accept } };
    memcpy(ev.agent.install, a->info.install, 16);
    return ev;
}

static void over(struct hub *h, struct hub_agent *a, bool good)
{
    struct sched_event ev = event_of(EV_CANARY_OVER, a, good);
    a->canary.task = 0;
    hub_step(h, &ev);
}

void hub_canary_begin(struct hub *h, struct hub_agent *a)
{
    struct err e = { 0 };
    struct store_canary c;
    char verdict[16];
    uint64_t at = 0, now = clock_wall_ms();
    a->canary.task = 0;
    a->canary.tries = 0;
    const struct sched_agent *s = sched_agent(&h->sched, a->info.install);
    if (!s || s->drained || !list_empty(&s->tasks))
        return; /* it is at work already: a restart of this coordinator, or a short absence */
    int r = store_last_canary(h->store, a->info.install, a->engine, &at, verdict, &e);
    if (r < 0 && r != -ENOENT)
        return;
    if (r == 0 && !strcmp(verdict, "equal") && now - at < AGAIN_MS)
        return;
    if (store_pick_canary(h->store, a->info.install, a->engine, trace_max_b, &c, &e) < 0 ||
        !cas_has(h->cas, &c.trace))
        return; /* nothing is known that could be compared */
    a->canary.sweep = c.sweep;
    a->canary.index = c.index;
    a->canary.trace = c.trace;
    struct sched_event ev = event_of(EV_CANARY, a, true);
    hub_step(h, &ev);
}

void hub_canary_grant(struct hub *h, const struct sched_action *act)
{
    struct hub_agent *a = act->agent->user;
    CLEANUP(buf_clear) struct buf spec = BUF_INIT(1 << 20);
    CLEANUP(live_freep) struct live *own = NULL;
    struct err e = { 0 };
    struct store_sweep w;
    struct point at = { .index = a ? a->canary.index : 0 };
    struct id point;
    uint32_t t;
    if (!a || act->agent->canary != act->task)
        return;
    int r = a->peer ? store_sweep(h->store, a->canary.sweep, &w, NULL, &e) : -ENOENT;
    struct live *l = r >= 0 ? hub_find_live(h, &w.id, &own) : NULL;
    if (!l || live_point(l, at.index, &t, &at.arch, &point) < 0 || !l->tr[t].num)
        r = -ENOENT;
    if (r >= 0)
        r = live_points_spec(l, t, &at, 1, false, &spec, &e);
    struct msg m = { .type = M_GRANT,
                     .grant = { .task = act->task,
                                .epoch = act->epoch,
                                .n = act->n,
                                .kind = "points",
                                .sweep = w.id,
                                .timeout_ms = TIMEOUT_MS,
                                .spec = spec.data,
                                .spec_len = spec.len } };
    a->canary.task = act->task;
    a->canary.verdict = CANARY_OPEN;
    a->canary.tries++;
    if (r < 0 || link_send(h->link, a->peer, &m, &e) < 0)
        over(h, a, true); /* it says nothing against the agent */
}

static bool is_canary(const struct hub *h, const struct hub_agent *a, uint64_t task, uint64_t epoch)
{
    return a->canary.task && task == a->canary.task && epoch == h->epoch;
}

bool hub_canary_rows(struct hub *h, struct hub_agent *a, const struct msg_rows *m,
                     struct rows_reader *in)
{
    if (!is_canary(h, a, m->task, m->epoch))
        return false;
    struct err e = { 0 };
    struct row_stats stats;
    struct wire_row w;
    while (rows_next(in, &w, &stats)) {
        if (w.index != a->canary.index)
            continue;
        bool done = w.status == ROW_DONE && w.stats_len;
        int r = done ? store_row_is(h->store, a->canary.sweep, a->canary.index, &stats, &e) : 0;
        if (r >= 0)
            a->canary.verdict = r ? CANARY_EQUAL : CANARY_DIFFERS;
    }
    struct msg ack = { .type = M_ROWS_ACK, .rows_ack = { m->task, m->epoch, m->n, m->seq } };
    hub_answer(h, a->peer, 0, &ack, NULL);
    return true;
}

static int put_alarm(struct hub *h, const struct store_agent *info, const char *why, struct err *e)
{
    int r = store_agent_drained(h->store, info->install, true, why, 0, 0, e);
    return r < 0 ? r : store_event(h->store, clock_wall_ms(), "agent", info->name, why, e);
}

int hub_canary_recall(struct hub *h, const struct hub_agent *a, struct store_agent *info,
                      struct err *e)
{
    if (!*a->canary.alarm || info->drained)
        return 0;
    int r = put_alarm(h, info, a->canary.alarm, e);
    if (r < 0)
        return r;
    info->drained = true;
    snprintf(info->why, sizeof(info->why), "%s", a->canary.alarm);
    return 0;
}

/* Durable, then the scheduler hears of it: an alarm that a restart forgets would be none. */
static void judge(struct hub *h, struct hub_agent *a, const char *verdict, const char *why)
{
    struct err e = { 0 };
    int r = hub_write(h) ? 0 : -EIO;
    if (r >= 0)
        r = store_put_canary(h->store, a->info.install, a->engine, clock_wall_ms(), a->canary.sweep,
                             a->canary.index, verdict, &e);
    if (r >= 0 && why)
        r = put_alarm(h, &a->info, why, &e);
    if (r < 0 && e.code)
        hub_fail(h, &e);
    if (why) {
        log_error("agent '%s' is drained: %s", a->info.name, why);
        a->info.drained = true;
        snprintf(a->info.why, sizeof(a->info.why), "%.160s", why);
        snprintf(a->canary.alarm, sizeof(a->canary.alarm), "%s", why);
    }
    over(h, a, !why);
}

bool hub_canary_end(struct hub *h, struct hub_agent *a, const struct msg_task_end *m)
{
    if (!is_canary(h, a, m->task, m->epoch))
        return false;
    struct msg ack = { .type = M_END_ACK, .end_ack = { m->task, m->epoch, m->n } };
    hub_answer(h, a->peer, 0, &ack, NULL);
    if (!strcmp(m->cause, "integrity"))
        hub_suspect(h, &a->canary.trace); /* it got damaged bytes: perhaps what lies here is */
    char why[200];
    static const char *const own[] = { "exit", "signal", "oom", "timeout" };
    bool failed = false;
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        failed |= !strcmp(m->cause, own[i]);
    if (a->canary.verdict == CANARY_DIFFERS) {
        snprintf(why, sizeof(why),
                 "its canary differs: point %" PRIu64 " of sweep number %" PRIu64
                 " gave another result here than the stored one",
                 a->canary.index, a->canary.sweep);
        judge(h, a, "differs", why);
    } else if (a->canary.verdict == CANARY_EQUAL) {
        judge(h, a, "equal", NULL);
    } else if (failed && a->canary.tries < TRIES) {
        struct sched_event ev = event_of(EV_CANARY, a, true);
        a->canary.task = 0;
        hub_step(h, &ev);
    } else if (failed) {
        snprintf(why, sizeof(why), "a known point failed here %d times: %.32s", (int)TRIES,
                 m->cause);
        judge(h, a, "failed", why);
    } else {
        over(h, a, true);
    }
    return true;
}

bool hub_canary_declined(struct hub *h, struct hub_agent *a, const struct msg_decline *m)
{
    if (!is_canary(h, a, m->task, m->epoch))
        return false;
    over(h, a, true);
    return true;
}
