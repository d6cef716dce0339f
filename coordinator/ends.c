/* Tasks that agents ended or do not take. */
#include <inttypes.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/num.h"
#include "proto/format/trace.h"

int hub_note_trace(struct hub *h, const struct id *id, struct store_trace *ret, struct err *e)
{
    int r = store_trace(h->store, id, ret, e);
    if (r != -ENOENT)
        return r;
    CLEANUP(freep) char *path = cas_path(h->cas, id);
    if (!path)
        return err_set(e, ENOENT, "trace: not here");
    struct trace_head head;
    uint64_t events = 0;
    char hex[ID_HEX_LEN], name[32];
    id_hex(id, hex);
    snprintf(name, sizeof(name), "trace %.16s", hex);
    r = trace_read_head(path, &head, &events, e);
    if (r < 0)
        return err_place(e, r, path, name);
    *ret = (struct store_trace){ .id = *id,
                                 .tenants = head.tenants,
                                 .burst = head.burst,
                                 .seed = head.seed,
                                 .replicate = head.replicate };
    snprintf(ret->order, sizeof(ret->order), "%s", order_name((enum trace_order)head.order));
    snprintf(ret->rules, sizeof(ret->rules), "%s", rules_name((enum rules)head.rules));
    char info[64];
    snprintf(info, sizeof(info), "{\"events\":%" PRIu64 "}", events);
    return store_add_trace(h->store, ret, info, e);
}

static void trace_here(struct hub *h, const struct id *key, const struct store_trace *tr)
{
    for (size_t i = 0; i < h->n_lives; i++) {
        struct live *l = h->lives[i];
        for (uint32_t t = 0; t < l->n_traces; t++)
            if (id_eq(&l->key[t], key)) {
                l->tr[t] = *tr;
                l->ready[t] = true;
            }
    }
}

/* A trace was built. Returns 1 when it is here and noted, 0 when it must be fetched first, or an error. */
static int trace_made(struct hub *h, const struct peer *p, const struct id *key,
                      const struct msg_task_end *m, struct err *e)
{
    json_t *info = json_loadb((const char *)m->info, m->info_len, 0, NULL);
    struct id id;
    const char *hex = json_string_value(json_object_get(info, "id"));
    int r = hex ? id_parse(hex, &id, e) : -SF_EFORMAT;
    json_decref(info);
    if (r < 0)
        return err_set(e, SF_EFORMAT, "task %" PRIu64 ": the end names no trace", m->task);
    if (!cas_has(h->cas, &id)) {
        if (hub_spoiled(h, &id))
            return err_set(e, SF_EINTEGRITY, "task %" PRIu64 ": its trace cannot be had whole",
                           m->task);
        if (!xfers_busy(h->xfers, &id))
            xfers_fetch(h->xfers, p->id, 0, &id, clock_mono_ms(), e);
        e->code = 0;
        return 0;
    }
    struct store_trace tr;
    r = hub_note_trace(h, &id, &tr, e);
    CLEANUP(freep) char *json = NULL;
    for (size_t i = 0; i < h->n_lives && !json; i++) {
        const struct recipe *rec = live_recipe(h->lives[i], live_find(h->lives[i], key));
        json_t *j = rec ? recipe_json(rec, false) : NULL;
        json = j ? json_canonical(j) : NULL;
        json_decref(j);
    }
    if (r >= 0)
        r = store_add_recipe(h->store, key, &id, json, e);
    if (r < 0)
        return r;
    trace_here(h, key, &tr);
    return 1;
}

/* Last line of a task's stderr that says something, for people. */
static void last_line(const uint8_t *tail, size_t n, char out[160])
{
    size_t end = n;
    out[0] = 0;
    while (end) {
        while (end && (tail[end - 1] == '\n' || tail[end - 1] == '\r' || tail[end - 1] == ' '))
            end--;
        size_t at = end;
        while (at && tail[at - 1] != '\n')
            at--;
        if (at < end) {
            size_t len = end - at < 159 ? end - at : 159;
            for (size_t i = 0; i < len; i++) {
                uint8_t c = tail[at + i];
                out[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
            }
            out[len] = 0;
            if (!strncmp(out, "siofleet: ", 10))
                memmove(out, out + 10, strlen(out + 10) + 1);
            return;
        }
        end = at;
    }
}

/* Why an attempt failed, as rows and `why` say it. What the program said itself needs no more words: the text is then the one
 * of the same failure on one host. */
static void say_cause(const char *cause, const struct msg_task_end *m, uint64_t timeout_ms,
                      const char *line, char out[200])
{
    char what[80], time[NUM_MS_LEN];
    const char *sig = sigabbrev_np((int)m->signal);
    if ((!strcmp(cause, "exit") || !strcmp(cause, "recipe")) && *line) {
        snprintf(out, 200, "%s", line);
        return;
    }
    if (!strcmp(cause, "timeout")) {
        snprintf(out, 200, "timeout after %s", num_ms_text(timeout_ms, time));
        return;
    }
    if (!strcmp(cause, "exit"))
        snprintf(what, sizeof(what), "exit status %" PRIu64, m->exit);
    else if (!strcmp(cause, "signal") && sig)
        snprintf(what, sizeof(what), "killed by SIG%s", sig);
    else if (!strcmp(cause, "signal"))
        snprintf(what, sizeof(what), "killed by signal %" PRIu64, m->signal);
    else if (!strcmp(cause, "oom"))
        snprintf(what, sizeof(what), "killed for want of memory");
    else if (!strcmp(cause, "space"))
        snprintf(what, sizeof(what), "no space left on its agent");
    else
        snprintf(what, sizeof(what), "%s", cause);
    snprintf(out, 200, "%s%s%s", what, *line ? ": " : "", line);
}

/* An agent got damaged input: perhaps what lies here is. */
static void suspect_inputs(struct hub *h, const struct sched_task *t)
{
    for (size_t i = 0; i < h->n_lives; i++) {
        struct live *l = h->lives[i];
        uint32_t k = live_find(l, &t->trace->key);
        if (k == UINT32_MAX)
            continue;
        const struct recipe *rec = t->kind == TASK_TRACE ? live_recipe(l, k) : NULL;
        for (size_t n = 0; rec && n < rec->n_logs; n++)
            hub_suspect(h, &rec->logs[n].id);
        if (t->kind == TASK_POINTS)
            hub_suspect(h, &l->tr[k].id);
        return;
    }
}

void hub_task_end(struct hub *h, const struct peer *p, const struct msg_task_end *m)
{
    struct hub_agent *a = hub_agent_of(h, p);
    if (a)
        trips_answered(&a->cancels, &(struct trip_key){ m->task, m->epoch, m->n, 0 },
                       clock_mono_ns());
    if (!a || hub_canary_end(h, a, m) || !hub_write(h))
        return;
    struct err e = { 0 };
    const struct sched_task *t = sched_task(&h->sched, m->task);
    bool open = t && t->epoch == m->epoch && t->n == m->n && !task_waits(t);
    const char *cause = m->cause;
    char line[160];
    int r = 0;
    if (open && t->kind == TASK_TRACE && !strcmp(cause, "done")) {
        r = trace_made(h, p, &t->trace->key, m, &e);
        if (r == 0)
            return; /* the agent says it again; by then the trace is here */
        if (r == -SF_EFORMAT ||
            r == -SF_EINTEGRITY) { /* what it made is no trace: its failure, not ours */
            log_warn("agent '%s': %s", a->info.name, e.text);
            cause = "integrity";
            r = 0;
        }
    }
    if (open && t->job && (r = hub_job_end(h, p, a, t, m, &cause, &e)) == 0)
        return; /* likewise: its artefacts */
    if (open && t->trace && !strcmp(cause, "integrity"))
        suspect_inputs(h, t);
    last_line(m->tail, m->tail_len, line);
    if (r >= 0)
        r = store_end_attempt(h->store, m->task, m->epoch, m->n, cause, m->exit, m->signal,
                              clock_wall_ms(), m->tail, m->tail_len, &e);
    if (r < 0) {
        hub_fail(h, &e);
        return;
    }
    if (strcmp(cause, "done") != 0)
        log_info("task %" PRIu64 " on agent '%s' ended: %s%s%s", m->task, a->info.name, cause,
                 *line ? ": " : "", line);
    struct msg ack = { .type = M_END_ACK, .end_ack = { m->task, m->epoch, m->n } };
    hub_answer(h, p->id, 0, &ack, NULL);
    if (!open)
        return;
    char text[200];
    say_cause(cause, m, sched_timeout_ms(t), line, text);
    hub_event(h, &(struct sched_event){ .type = EV_END,
                                        .end = { m->task, m->epoch, m->n, cause, text } });
}

void hub_decline(struct hub *h, const struct peer *p, const struct msg_decline *m)
{
    struct hub_agent *a = hub_agent_of(h, p);
    if (!a || hub_canary_declined(h, a, m))
        return;
    log_info("task %" PRIu64 " declined by agent '%s': %s%s%.200s", m->task, a->info.name, m->code,
             *m->text ? ": " : "", m->text);
    hub_step(h, &(struct sched_event){ .type = EV_DECLINE,
                                       .end = { m->task, m->epoch, m->n, "declined", NULL } });
}
