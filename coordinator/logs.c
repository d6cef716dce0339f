/* `logs`: what a task has written. A running task's agent is asked; of one that is over the store knows the answer's
 * output, or the last lines. Bytes travel as code points 0 to 255, so that any output fits JSON. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/num.h"

enum { WAIT_MS = 5000, PIECE_B = 65536 };

static json_t *bytes_json(const uint8_t *p, size_t n)
{
    CLEANUP(freep) char *text = malloc(2 * n + 1);
    size_t k = 0;
    if (!text)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (p[i] >= 0x80)
            text[k++] = (char)(0xc0 | p[i] >> 6);
        text[k++] = (char)(p[i] >= 0x80 ? 0x80 | (p[i] & 0x3f) : p[i]);
    }
    return json_stringn(text, k);
}

void hub_log_clear(struct hub *h)
{
    for (size_t i = 0; i < HUB_WAITS; i++)
        json_decref(h->waits[i].doc);
    memset(h->waits, 0, sizeof(h->waits));
}

static void answer(struct hub *h, struct hub_wait *w)
{
    CLEANUP(freep) char *text = json_dumps(w->doc, JSON_COMPACT);
    struct msg part = { .type = M_PART,
                        .part = { .req = w->user_req,
                                  .cursor = "",
                                  .body = (const uint8_t *)text,
                                  .body_len = text ? strlen(text) : 0 } };
    if (text)
        link_send(h->link, w->peer, &part, NULL); /* a lost answer is asked for again */
    json_decref(w->doc);
    *w = (struct hub_wait){ 0 };
}

void hub_log_data(struct hub *h, const struct peer *p, const struct msg_log_data *m)
{
    for (size_t i = 0; i < HUB_WAITS; i++) {
        struct hub_wait *w = &h->waits[i];
        if (!w->req || w->req != m->req || w->agent_peer != p->id)
            continue;
        json_object_set_new(w->doc, "next", json_u64(m->next));
        json_object_set_new(w->doc, "data", bytes_json(m->data, m->data_len));
        answer(h, w);
        return;
    }
}

/* An agent that does not answer is one that is not there: nothing new for now. */
void hub_log_tick(struct hub *h, uint64_t now_ms)
{
    for (size_t i = 0; i < HUB_WAITS; i++)
        if (h->waits[i].req && now_ms >= h->waits[i].until_ms)
            answer(h, &h->waits[i]);
}

struct found {
    enum sweep_state state;
    const char *stream;
    json_t *doc;
};

static int ended(void *ctx, const struct store_job_task *t)
{
    struct found *f = ctx;
    f->state = t->state;
    CLEANUP(json_decrefp) json_t *info = t->info ? json_loads(t->info, 0, NULL) : NULL;
    json_t *out = json_object_get(info, f->stream);
    json_object_set_new(f->doc, "agent", *t->agent ? json_str(t->agent) : json_null());
    json_object_set_new(f->doc, "attempt", json_u64(t->n));
    json_object_set_new(f->doc, "output", json_is_object(out) ? json_incref(out) : json_null());
    if (!json_is_object(out) && !strcmp(f->stream, "stderr") && t->tail)
        json_object_set_new(f->doc, "tail", json_str(t->tail));
    return 0;
}

static int over(struct hub *h, uint64_t task, struct found *f, struct err *e)
{
    int r = store_job_task(h->store, task, ended, f, NULL);
    if (r >= 0) {
        json_object_set_new(f->doc, "state", json_string(sweep_state_name(f->state, false)));
        return 0;
    }
    char cause[33] = "", kind[16] = "";
    CLEANUP(freep) char *tail = NULL;
    r = store_last_attempt(h->store, task, cause, kind, &tail, e);
    if (r < 0)
        return r;
    json_object_set_new(f->doc, "state", json_string(!strcmp(cause, "done") ? "done" : "failed"));
    json_object_set_new(f->doc, "kind", json_str(kind));
    if (!strcmp(f->stream, "stderr"))
        json_object_set_new(f->doc, "tail", json_str(tail));
    return 0;
}

struct tasks {
    uint64_t first, n;
    char list[80];
};

static int count_task(void *ctx, const struct store_job_task *t)
{
    struct tasks *x = ctx;
    size_t at = strlen(x->list);
    if (!x->n++)
        x->first = t->task;
    if (x->n <= 6)
        snprintf(x->list + at, sizeof(x->list) - at, "%s%" PRIu64, at ? ", " : "", t->task);
    else if (x->n == 7)
        snprintf(x->list + at, sizeof(x->list) - at, ", ...");
    return 0;
}

/* The task that TEXT names: its number, or a job that has only one. */
static int find_task(struct hub *h, const char *text, uint64_t *ret, struct err *e)
{
    if (hub_is_task(h, text, ret))
        return 0;
    struct store_job w;
    struct tasks x = { 0 };
    int r = store_find_job(h->store, text, &w, e);
    if (r >= 0)
        r = store_job_tasks(h->store, w.seq, 0, count_task, &x, e);
    if (r < 0)
        return r;
    *ret = x.first;
    return x.n == 1 ? 0
                    : err_set(e, SF_EUSAGE, "%s: a job of %" PRIu64 " tasks; name one of %s", text,
                              x.n, x.list);
}

int hub_ask_logs(struct hub *h, const struct peer *p, const struct msg_ask *m, const json_t *args,
                 json_t **ret, struct err *e)
{
    const char *text = json_string_value(json_object_get(args, "id"));
    uint64_t task = 0, from = 0;
    bool err_stream = json_is_true(json_object_get(args, "stderr"));
    int r = find_task(h, text ? text : "", &task, e);
    if (r >= 0 && json_object_get(args, "from"))
        r = json_get_u64(args, "from", &from, e);
    if (r < 0)
        return r;
    CLEANUP(json_decrefp)
    json_t *doc =
        json_pack("{s:o, s:o, s:s}", "task", json_u64(task), "next", json_u64(from), "data", "");
    if (!doc)
        return -ENOMEM;
    const struct sched_task *t = sched_task(&h->sched, task);
    struct found f = { .stream = err_stream ? "stderr" : "stdout", .doc = doc };
    if (!t) {
        r = over(h, task, &f, e);
        if (r >= 0)
            *ret = json_incref(doc);
        return r < 0 ? r : 0;
    }
    const struct hub_agent *a = t->agent ? t->agent->user : NULL;
    char why[SCHED_WHY] = "";
    if (t->state == TASK_QUEUED && t->job)
        sched_job_why(&h->sched, t, hub_agent_name, clock_mono_ms(), why);
    json_object_set_new(doc, "state", json_string(task_state_name(t->state)));
    json_object_set_new(doc, "kind", json_string(task_kind_name(t->kind)));
    json_object_set_new(doc, "agent", a ? json_str(a->info.name) : json_null());
    json_object_set_new(doc, "attempt", json_u64(t->n));
    json_object_set_new(doc, "reason", *why ? json_str(why) : json_null());
    struct hub_wait *w = NULL;
    for (size_t i = 0; i < HUB_WAITS && !w; i++)
        if (!h->waits[i].req)
            w = &h->waits[i];
    struct msg q = { .type = M_LOG_GET,
                     .log_get = { .req = h->log_reqs + 1,
                                  .task = task,
                                  .epoch = t->epoch,
                                  .n = t->n,
                                  .stream = err_stream,
                                  .from = from,
                                  .max_b = PIECE_B } };
    if (!w || !a || !a->peer || link_send(h->link, a->peer, &q, NULL) < 0) {
        *ret = json_incref(doc);
        return 0;
    }
    *w = (struct hub_wait){ .req = ++h->log_reqs,
                            .peer = p->id,
                            .user_req = m->req,
                            .agent_peer = a->peer,
                            .until_ms = clock_mono_ms() + WAIT_MS,
                            .doc = json_incref(doc) };
    return 1;
}
