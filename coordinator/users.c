/* What users want done: submit, control. Each request gets exactly one answer. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/num.h"

enum { KNOWN_AT_SUBMIT = 20000, DRAIN_MS = 2000, CLOCK_STEP_MS = 1000 };

void hub_refuse(struct hub *h, uint64_t peer, uint64_t req, const struct err *e, const char *code)
{
    link_refuse(h->link, peer, req, err_exit(e->code), code ? code : err_name(e->code), e->text);
}

/* ---- live sweeps */

static int add_live(struct hub *h, struct live *l) /* taken */
{
    if (h->n_lives == h->room_lives) {
        size_t room = h->room_lives ? h->room_lives * 2 : 16;
        void *v = realloc(h->lives, room * sizeof(struct live *));
        if (!v)
            return -ENOMEM;
        h->lives = v;
        h->room_lives = room;
    }
    int r = map_put(&h->live, l->seq, l);
    if (r >= 0)
        h->lives[h->n_lives++] = l;
    return r;
}

void hub_drop_live(struct hub *h, struct live *l)
{
    for (size_t i = 0; i < h->n_lives; i++)
        if (h->lives[i] == l) {
            h->lives[i] = h->lives[--h->n_lives];
            map_del(&h->live, l->seq);
            break;
        }
    live_free(&l);
}

int hub_look_up_traces(struct hub *h, struct live *l, struct err *e)
{
    for (uint32_t t = 0; t < l->n_traces; t++) {
        int r = l->build[t] ? store_recipe(h->store, &l->key[t], &l->tr[t], e)
                            : hub_note_trace(h, &l->key[t], &l->tr[t], e);
        if (r == -ENOENT) {
            l->tr[t].num = 0;
            continue;
        }
        if (r < 0)
            return r;
        l->ready[t] = cas_has(h->cas, &l->tr[t].id);
    }
    return 0;
}

/* Points whose result is known already, and invalid ones, get their rows at once. *todo: the rest. */
static int known_now(struct hub *h, struct live *l, struct spans *todo, struct err *e)
{
    for (uint64_t i = 0; i < l->points; i++) {
        struct store_row row = { .sweep = l->seq, .index = i, .by = BY_ENGINE };
        uint32_t t;
        int r = 0;
        if (live_point(l, i, &t, &row.arch, &row.point) == 0 && l->tr[t].num) {
            struct err why = { 0 };
            row.trace = l->tr[t].num;
            if (arch_check(&row.arch, l->rules, &why) < 0) {
                row.status = ROW_INVALID;
                row.error = why.text;
                r = store_put_row(h->store, &row, clock_wall_ms(), e);
                if (r >= 0)
                    continue;
            } else {
                r = store_put_known(h->store, &row, h->engines, h->n_engines, e);
                if (r == 1)
                    continue;
            }
        }
        if (r >= 0)
            r = spans_add(todo, i, i + 1);
        if (r < 0)
            return r;
    }
    return 0;
}

int hub_load_sweep(struct hub *h, uint64_t seq, struct err *e)
{
    struct store_sweep w;
    CLEANUP(freep) char *json = NULL;
    int r = store_sweep(h->store, seq, &w, &json, e);
    if (r < 0)
        return r;
    json_t *j = json_loads(json, 0, NULL);
    struct live *l = NULL;
    r = j ? live_new(j, &l, e)
          : err_set(e, SF_EINTEGRITY, "sweep %" PRIu64 ": its recipe is damaged", seq);
    json_decref(j);
    if (r < 0)
        return r;
    l->seq = seq;
    l->id = w.id;
    struct spans todo = { 0 };
    if (l->waiting) { /* for its collection: hub_look_after() brings it */
        live_free(&l);
        return 0;
    }
    r = hub_look_up_traces(h, l, e);
    if (r >= 0)
        r = store_missing(h->store, seq, l->points, &todo, e);
    if (r >= 0)
        r = add_live(h, l);
    if (r < 0) {
        spans_clear(&todo);
        live_free(&l);
        return r;
    }
    struct sched_event ev;
    struct sched_actions *out = &h->out;
    struct sweep_head head = *sweep_head(l->sweep);
    head.priority = w.priority;
    live_event(l, &head, w.held, &todo, &ev);
    r = sched_step(&h->sched, &ev, clock_mono_ms(), out, e);
    spans_clear(&todo);
    return r;
}

/* ---- submit */

static int admit(struct hub *h, struct live *l, struct err *e)
{
    int r = 0;
    if (!sweep_head(l->sweep)->skip_invalid)
        r = live_check(l, e);
    if (r < 0)
        return r;
    for (uint32_t t = 0; t < l->n_traces; t++) {
        const struct recipe *rec = live_recipe(l, t);
        char hex[ID_HEX_LEN];
        if (!rec && !cas_has(h->cas, &l->key[t])) {
            id_hex(&l->key[t], hex);
            return err_set(e, ENOENT, "trace %.16s: not at the coordinator; put it first", hex);
        }
        for (size_t i = 0; rec && i < rec->n_logs && !l->ready[t]; i++)
            if (!cas_has(h->cas, &rec->logs[i].id)) {
                id_hex(&rec->logs[i].id, hex);
                return err_set(e, ENOENT, "log %.16s: not at the coordinator; put it first", hex);
            }
        /* they were put before this, perhaps long ago: now they are wanted (store gc) */
        if (!rec)
            cas_use(h->cas, &l->key[t]);
        for (size_t i = 0; rec && i < rec->n_logs; i++)
            cas_use(h->cas, &rec->logs[i].id);
    }
    return 0;
}

static void answer_submitted(struct hub *h, const struct peer *p, uint64_t req,
                             const struct store_sweep *w, uint64_t known)
{
    struct msg m = { .type = M_SUBMITTED,
                     .submitted = {
                         .req = req, .sweep = w->id, .points = w->points, .known = known } };
    hub_answer(h, p->id, req, &m, NULL);
}

void hub_submit(struct hub *h, const struct peer *p, const struct msg_submit *m)
{
    struct err e = { 0 };
    struct store_sweep w = { 0 };
    CLEANUP(freep) char *json = NULL;
    struct live *l = NULL;
    json_error_t je;
    int r;
    if (!hub_write(h)) {
        hub_refuse(h, p->id, m->req, &h->why, h->why.code == ENOSPC ? "NO_SPACE" : NULL);
        return;
    }
    if (*m->request_id && store_sweep_by_request(h->store, m->request_id, &w, &e) == 0) {
        answer_submitted(h, p, m->req, &w, w.known);
        return;
    }
    if (hub_admit(h, 0, &e) < 0) {
        hub_refuse(h, p->id, m->req, &e, "NO_SPACE");
        return;
    }
    json_t *j = json_loadb((const char *)m->sweep, m->sweep_len, JSON_REJECT_DUPLICATES, &je);
    r = j ? live_new(j, &l, &e) : err_set(&e, SF_EUSAGE, "sweep: not JSON: %s", je.text);
    if (r >= 0)
        json = json_canonical(j);
    json_decref(j);
    if (r >= 0 && !json)
        r = err_sys(&e, ENOMEM, "sweep");
    if (r >= 0)
        r = hub_look_up_traces(h, l, &e);
    if (r >= 0)
        r = admit(h, l, &e);
    if (r < 0) {
        hub_refuse(h, p->id, m->req, &e, r == -ENOENT ? "MISSING" : NULL);
        live_free(&l);
        return;
    }
    const struct sweep_head *head = sweep_head(l->sweep);
    random_bytes(w.id.b, sizeof(w.id.b)); /* two submits of one recipe are two sweeps */
    snprintf(w.name, sizeof(w.name), "%s", head->name);
    snprintf(w.request_id, sizeof(w.request_id), "%s", m->request_id);
    w.priority = head->priority;
    w.points = l->points;
    w.submitted_ms = clock_wall_ms();
    char hex[ID_HEX_LEN];
    id_hex(&w.id, hex);
    if (l->waiting) {
        r = hub_submit_after(h, l, &w, json, p->name, &e);
        live_free(&l);
        if (r < 0 && h->failed) {
            struct msg no = { .type = M_REFUSE };
            hub_answer(h, p->id, m->req, &no, NULL);
        } else if (r < 0) {
            hub_refuse(h, p->id, m->req, &e, r == -ENOENT ? "MISSING" : NULL);
        } else {
            answer_submitted(h, p, m->req, &w, 0);
        }
        return;
    }
    r = store_add_sweep(h->store, &w, json, p->name, &e);
    l->seq = w.seq;
    l->id = w.id;
    struct spans todo = { 0 };
    bool look = l->points <= KNOWN_AT_SUBMIT;
    if (r >= 0 && look)
        r = known_now(h, l, &todo, &e);
    if (r >= 0)
        r = store_event(h->store, w.submitted_ms, "sweep", hex, "submitted", &e);
    if (r >= 0)
        r = store_sweep(h->store, w.seq, &w, NULL, &e);
    if (r >= 0)
        r = add_live(h, l);
    if (r < 0) {
        struct msg no = { .type = M_REFUSE };
        spans_clear(&todo);
        live_free(&l);
        hub_answer(h, p->id, m->req, &no, NULL); /* hub_commit() tells all who wait */
        hub_fail(h, &e);
        return;
    }
    log_info("sweep '%s' (%.8s) from '%s': %" PRIu64 " points, %" PRIu64 " known, %u traces",
             w.name, hex, p->name, w.points, w.known, l->n_traces);
    answer_submitted(h, p, m->req, &w, w.known);
    struct sched_event ev;
    live_event(l, head, false, NULL, &ev);
    /* the scheduler takes the ranges in hub_commit(); they live until then behind the event */
    if (look) {
        ev.sweep.todo = malloc(sizeof(todo));
        if (ev.sweep.todo)
            *ev.sweep.todo = todo;
        else
            spans_clear(&todo);
    }
    hub_event(h, &ev);
}

/* ---- control */

static int control_task(struct hub *h, const char *verb, uint64_t task, char text[256],
                        struct err *e)
{
    struct sched_event ev = { .end = { .task = task } };
    if (!strcmp(verb, "cancel"))
        ev.type = EV_CANCEL_TASK;
    else if (!strcmp(verb, "retry"))
        ev.type = EV_RETRY_TASK;
    else
        return err_set(e, SF_EUSAGE, "%s: works on sweeps and jobs, not on tasks", verb);
    if (!sched_task(&h->sched, task))
        return err_set(e, ENOENT, "task %" PRIu64 ": neither waits nor runs%s", task,
                       ev.type == EV_RETRY_TASK ? "; one that has failed runs again with its"
                                                  " sweep or job: name that"
                                                : "");
    hub_event(h, &ev);
    snprintf(text, 256, "task %" PRIu64 ": %s", task,
             ev.type == EV_RETRY_TASK ? "retried now" : "cancelled");
    return 0;
}

int hub_commit_now(struct hub *h, struct err *e)
{
    if (hub_commit(h))
        return hub_write(h) ? 0 : err_set(e, h->why.code, "%s", h->why.text);
    return err_set(e, h->why.code ? h->why.code : EIO, "%s", h->why.text);
}

static int retry_sweep(struct hub *h, const struct store_sweep *w, bool failed_only, char text[256],
                       struct err *e)
{
    int r = hub_commit_now(h, e); /* the scheduler knows all that came before */
    if (r < 0)
        return r;
    const struct sched_sweep *s = sched_sweep(&h->sched, w->seq);
    struct spans again = { 0 };
    struct store_job job;
    bool bound = true;
    if (!s && hub_after_job(h, w->seq, &job, &bound, NULL) == 0 && !bound) {
        int jr = job.state > SWEEP_RUNNING
                     ? hub_control_job(h, failed_only ? "retry-failed" : "retry", 0, &job, text, e)
                     : 0;
        if (jr >= 0 && w->state > SWEEP_RUNNING)
            jr = store_sweep_state(h->store, w->seq, SWEEP_QUEUED, 0, e);
        h->jobs_over = true;
        return jr;
    }
    if (s && s->over)
        return err_set(e, EBUSY, "sweep '%.100s': its last tasks are ending; try again in a moment",
                       w->name);
    r = store_take_failed(h->store, w->seq, &again, e);
    bool rest;
    uint64_t n = again.total + (s ? sched_quarantined(s, &rest) : 0);
    if (r >= 0 && s) {
        /* rows that are still there after all must not wait as well */
        r = hub_commit_now(h, e);
        r = r < 0 ? r
                  : sched_step(&h->sched,
                               &(struct sched_event){ .type = EV_REDO,
                                                      .sweep = { .seq = w->seq, .todo = &again } },
                               clock_mono_ms(), &h->out, e);
    } else if (r >= 0 && (n || (w->state == SWEEP_CANCELLED && !failed_only))) {
        r = store_sweep_state(h->store, w->seq, SWEEP_RUNNING, 0, e);
        if (r >= 0) /* a hold ended with the sweep: nobody could release it since */
            r = store_sweep_held(h->store, w->seq, false, e);
        if (r >= 0)
            r = hub_commit_now(h, e);
        if (r >= 0)
            r = hub_load_sweep(h, w->seq, e);
        n = w->points - w->done - w->invalid;
    }
    spans_clear(&again);
    snprintf(text, 256, "sweep '%.100s': %" PRIu64 " points run again", w->name, n);
    return r < 0 ? r : 0;
}

static int control_sweep(struct hub *h, const char *verb, uint64_t value,
                         const struct store_sweep *w, char text[256], struct err *e)
{
    struct sched_event ev = { .sweep = { .seq = w->seq } };
    int r = 0;
    if (!strncmp(verb, "retry", 5))
        return retry_sweep(h, w, !strcmp(verb, "retry-failed"), text, e);
    if (w->state > SWEEP_RUNNING) {
        snprintf(text, 256, "sweep '%.100s' is %s already", w->name,
                 sweep_state_name(w->state, false));
        return 0;
    }
    if (!strcmp(verb, "cancel")) {
        ev.type = EV_CANCEL_SWEEP;
        snprintf(text, 256, "sweep '%.100s': cancelled", w->name);
        /* durable before it is answered, whatever becomes of its tasks */
        r = store_sweep_state(h->store, w->seq, SWEEP_CANCELLED, clock_wall_ms(), e);
    } else if (!strcmp(verb, "priority")) {
        ev.type = EV_PRIORITY;
        ev.sweep.priority = value;
        snprintf(text, 256, "sweep '%.100s': priority %" PRIu64, w->name, value);
        r = store_sweep_priority(h->store, w->seq, value, e);
    } else {
        bool hold = !strcmp(verb, "hold");
        ev.type = hold ? EV_HOLD : EV_RELEASE;
        snprintf(text, 256, "sweep '%.100s': %s", w->name, hold ? "held" : "released");
        r = store_sweep_held(h->store, w->seq, hold, e);
    }
    struct store_job job;
    bool bound = true;
    char said[256];
    if (r >= 0 && hub_after_job(h, w->seq, &job, &bound, NULL) == 0 && !bound)
        r = hub_control_job(h, verb, value, &job, said, e); /* what it waits for, too */
    if (r >= 0)
        hub_event(h, &ev);
    return r;
}

uint64_t hub_drain_at(const struct store_agent *a)
{
    uint64_t wall = clock_wall_ms(), from = a->drained ? 0 : a->drain_from_ms;
    return !from ? 0 : clock_mono_ms() + (from > wall ? from - wall : 0);
}

static void tell_drained(struct hub *h, const struct store_agent *a)
{
    struct sched_event ev = { .type = EV_DRAIN,
                              .agent = { .accept = !a->drained, .drain_at_ms = hub_drain_at(a) } };
    memcpy(ev.agent.install, a->install, 16);
    hub_event(h, &ev);
}

static int set_drained(struct hub *h, const struct store_agent *a, bool drain, const char *why,
                       uint64_t from_ms, uint64_t until_ms, struct err *e)
{
    int r =
        store_agent_drained(h->store, a->install, drain, *why ? why : NULL, from_ms, until_ms, e);
    if (r < 0)
        return r;
    struct store_agent told = { .drained = drain, .drain_from_ms = from_ms };
    memcpy(told.install, a->install, 16);
    tell_drained(h, &told);
    struct hub_agent *i = hub_agent(h, a->install);
    if (i) {
        i->info.drained = drain;
        i->info.drain_from_ms = from_ms;
        i->info.drained_until_ms = until_ms;
        snprintf(i->info.why, sizeof(i->info.why), "%.160s", why);
        if (!drain)
            *i->canary.alarm = '\0';
    }
    return 0;
}

/* drain-at: the start in the upper half of the value, how long in the lower one, in seconds; 0 = until undrain. */
static int plan_drain(struct hub *h, const struct store_agent *a, const struct msg_control *m,
                      char text[256], struct err *e)
{
    uint64_t from_ms = (m->value >> 32) * 1000, for_ms = (m->value & UINT32_MAX) * 1000;
    char from[CLOCK_RFC3339_LEN], until[CLOCK_RFC3339_LEN];
    if (a->drained)
        return err_set(e, SF_EFAILED, "agent '%.64s': is drained already", a->name);
    int r = set_drained(h, a, false, m->text, from_ms, for_ms ? from_ms + for_ms : 0, e);
    if (r < 0)
        return r;
    clock_rfc3339(from_ms, from);
    clock_rfc3339(from_ms + for_ms, until);
    snprintf(text, 256, "agent '%.64s': takes nothing new from %s%s%s", a->name, from,
             for_ms ? " until " : "", for_ms ? until : "");
    return 0;
}

static int control_agent(struct hub *h, const struct msg_control *m, char text[256], struct err *e)
{
    struct store_agent a;
    bool drain = strcmp(m->verb, "undrain") != 0;
    uint64_t until_ms = !strcmp(m->verb, "drain-for") ? clock_wall_ms() + m->value : 0;
    char when[CLOCK_RFC3339_LEN];
    for (const char *s = m->text; drain && *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            return err_set(e, SF_EUSAGE, "--reason: holds a control character");
    int r = store_find_agent(h->store, m->target, &a, e);
    if (r >= 0 && !strcmp(m->verb, "drain-at"))
        return plan_drain(h, &a, m, text, e);
    if (r >= 0)
        r = set_drained(h, &a, drain, drain ? m->text : "", 0, until_ms, e);
    if (r < 0)
        return r;
    clock_rfc3339(until_ms, when);
    snprintf(text, 256, "agent '%.64s': %s%s%s", a.name,
             drain                           ? "takes nothing new, what runs ends"
             : a.drain_from_ms && !a.drained ? "its maintenance does not take place"
                                             : "takes tasks again",
             until_ms ? "; takes tasks again at " : "", until_ms ? when : "");
    return 0;
}

/* What the time has come for: the agent is drained, or takes tasks again. */
static int drain_due(struct hub *h, const struct store_agent *a, uint64_t now, struct err *e)
{
    char why[sizeof(a->why)];
    bool begin = !a->drained && (!a->drained_until_ms || now < a->drained_until_ms);
    const char *text =
        begin ? "takes nothing new: its maintenance begins" : "takes tasks again: its time is over";
    snprintf(why, sizeof(why), "%s", begin ? a->why : ""); /* of what is written over */
    int r = set_drained(h, a, begin, why, 0, begin ? a->drained_until_ms : 0, e);
    if (r < 0)
        return r;
    log_info("agent '%s' %s", a->name, text);
    store_event(h->store, now, "agent", a->name, text, e);
    return 0;
}

void hub_drain_due(struct hub *h)
{
    uint64_t now = clock_wall_ms(), mono = clock_mono_ms();
    if (mono < h->drain_ms)
        return;
    h->drain_ms = mono + DRAIN_MS;
    for (struct hub_agent *a = h->agents; a; a = a->next) {
        struct err e = { 0 };
        uint64_t due = a->info.drained ? a->info.drained_until_ms : a->info.drain_from_ms;
        const struct sched_agent *s = sched_agent(&h->sched, a->info.install);
        uint64_t at = hub_drain_at(&a->info), known = s ? s->drain_at_ms : 0;
        if (s && due && now < due && (at > known ? at - known : known - at) > CLOCK_STEP_MS)
            tell_drained(h, &a->info); /* the wall clock was set */
        if (!due || now < due)
            continue;
        if (!hub_write(h))
            return; /* tried again */
        if (drain_due(h, &a->info, now, &e) < 0) {
            hub_fail(h, &e);
            return;
        }
    }
}

void hub_control(struct hub *h, const struct peer *p, const struct msg_control *m)
{
    static const char *const verbs[] = { "cancel",       "hold",     "release",   "retry",
                                         "retry-failed", "drain",    "drain-for", "drain-at",
                                         "undrain",      "priority", "pin",       "unpin" };
    struct err e = { 0 };
    char text[256] = "";
    size_t v = 0;
    uint64_t task;
    bool late = false;
    int r = 0;
    hub_restore_rest(h);
    if (!strcmp(m->verb, "gc")) { /* answered when it is done */
        if (hub_gc_begin(h, p, m->req, m->target, &e) < 0)
            hub_refuse(h, p->id, m->req, &e, NULL);
        return;
    }
    while (v < ARRAY_LEN(verbs) && strcmp(verbs[v], m->verb) != 0)
        v++;
    if (!hub_write(h)) {
        e = h->why;
        r = -1;
    } else if (v == ARRAY_LEN(verbs)) {
        r = err_set(&e, SF_EUSAGE, "%.31s: unknown to this coordinator", m->verb);
    } else if (v >= 10) {
        r = hub_pin(h, m->target, v == 10, text, &e);
    } else if (!strcmp(m->verb, "priority") && m->value > UINT32_MAX) {
        r = err_set(&e, SF_EUSAGE, "priority: at most %u", UINT32_MAX);
    } else if (v >= 5 && v <= 8) {
        r = control_agent(h, m, text, &e);
    } else if ((late = hub_is_task(h, m->target, &task))) {
        r = control_task(h, m->verb, task, text, &e);
    } else {
        struct store_sweep w;
        struct store_job j;
        r = store_find_sweep(h->store, m->target, &w, &e);
        if (r >= 0)
            r = control_sweep(h, m->verb, m->value, &w, text, &e);
        else if (r == -ENOENT && store_find_job(h->store, m->target, &j, NULL) == 0)
            r = hub_control_job(h, m->verb, m->value, &j, text, &e);
    }
    if (r < 0) {
        if (!e.code)
            err_sys(&e, -r, "%s", m->verb);
        hub_refuse(h, p->id, m->req, &e, r == -ENOSPC ? "NO_SPACE" : NULL);
        if (r == -ENOSPC || r == -EIO)
            hub_fail(h, &e);
        return;
    }
    log_info("%s", text);
    struct err ignored = { 0 };
    store_event(h->store, clock_wall_ms(), "control", m->target, text, &ignored);
    struct msg ok = { .type = M_OK, .ok = { .req = m->req } };
    (late ? hub_answer_late : hub_answer)(h, p->id, m->req, &ok, text);
}
