#include "deploy/provider.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"

struct pool {
    const struct provider *p;
    enum place_verb verb;
    struct place_result *results;
    size_t next, end, done;
    pthread_mutex_t lock;
};

const char *place_status_name(const struct place_result *r)
{
    static const char *const names[] = { "ok", "changed", "failed", "skipped" };
    return names[r->status];
}

void place_result_clear(struct place_result *r)
{
    json_decref(r->actions);
    json_decref(r->facts);
    free(r->text);
    *r = (struct place_result){ 0 };
}

/* One line a place, when it is through. */
static void tell(struct pool *w, size_t place, const struct place_result *r)
{
    pthread_mutex_lock(&w->lock);
    size_t done = ++w->done;
    pthread_mutex_unlock(&w->lock);
    if (!w->p->note)
        return;
    char text[700];
    snprintf(text, sizeof(text), "%s%s%s (%zu of %zu, %.1f s)", place_status_name(r),
             r->message[0] ? ": " : "", r->message, done, w->p->n, (double)r->ms / 1000);
    w->p->note(w->p->name(w->p, place), text);
}

static void *work(void *user)
{
    struct pool *w = user;
    for (;;) {
        pthread_mutex_lock(&w->lock);
        size_t i = w->next < w->end ? w->next++ : w->end;
        pthread_mutex_unlock(&w->lock);
        if (i == w->end)
            return NULL;
        struct place_result *r = &w->results[i];
        *r = (struct place_result){ .status = PLACE_OK, .step = "start", .actions = json_array() };
        uint64_t start = clock_mono_ms();
        w->p->run(w->p, i, w->verb, r);
        r->ms = clock_mono_ms() - start;
        tell(w, i, r);
    }
}

static void run_until(struct pool *w, size_t end, uint64_t parallel)
{
    pthread_t threads[256];
    w->end = end;
    size_t n = end - w->next, want = parallel < n ? (size_t)parallel : n, started = 0;
    if (want > ARRAY_LEN(threads))
        want = ARRAY_LEN(threads);
    while (started < want && pthread_create(&threads[started], NULL, work, w) == 0)
        started++;
    if (!started)
        work(w);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

void provider_run(const struct provider *p, enum place_verb verb, uint64_t parallel,
                  struct place_result results[])
{
    struct pool w = { .p = p, .verb = verb, .results = results, .lock = PTHREAD_MUTEX_INITIALIZER };
    run_until(&w, p->n, parallel);
    pthread_mutex_destroy(&w.lock);
}

void provider_roll(const struct provider *p, enum place_verb verb, uint64_t batch,
                   uint64_t max_failures, struct place_result results[])
{
    struct pool w = { .p = p, .verb = verb, .results = results, .lock = PTHREAD_MUTEX_INITIALIZER };
    uint64_t failed = 0;
    while (w.next < p->n && failed <= max_failures) {
        size_t from = w.next, end = batch < p->n - from ? from + (size_t)batch : p->n;
        run_until(&w, end, batch);
        for (size_t i = from; i < end; i++)
            failed += results[i].status == PLACE_FAILED;
    }
    for (size_t i = w.next; i < p->n; i++)
        results[i] = (struct place_result){ .status = PLACE_SKIPPED,
                                            .step = "wait",
                                            .actions = json_array() };
    pthread_mutex_destroy(&w.lock);
}

json_t *provider_document(const struct provider *p, const char *verb,
                          const struct place_result results[], unsigned *ret_failed)
{
    unsigned changed = 0, unchanged = 0, failed = 0;
    uint64_t bytes = 0;
    json_t *list = json_array();
    for (size_t i = 0; i < p->n; i++) {
        const struct place_result *r = &results[i];
        changed += r->status == PLACE_CHANGED;
        unchanged += r->status == PLACE_OK;
        failed += r->status == PLACE_FAILED;
        bytes += r->bytes_sent;
        bool bad = r->status == PLACE_FAILED;
        json_t *o = json_object();
        json_object_set_new(o, "host", json_str(p->name(p, i)));
        json_object_set_new(o, "status", json_string(place_status_name(r)));
        json_object_set_new(o, "step", json_string(r->step));
        json_object_set_new(o, "code", bad ? json_string(err_name(r->code)) : json_null());
        json_object_set_new(o, "message", bad ? json_str(r->message) : json_null());
        json_object_set_new(o, "fix", bad && r->fix[0] ? json_str(r->fix) : json_null());
        json_object_set(o, "actions", r->actions);
        json_object_set_new(o, "bytes_sent", json_u64(r->bytes_sent));
        json_object_set_new(o, "ms", json_u64(r->ms));
        json_object_set_new(o, "version", r->version[0] ? json_string(r->version) : json_null());
        json_object_set_new(o, "facts", r->facts ? json_incref(r->facts) : json_null());
        json_array_append_new(list, o);
    }
    *ret_failed = failed;
    json_t *doc = json_object();
    json_object_set_new(doc, "schema", json_string("siofleet.deploy/1"));
    json_object_set_new(doc, "verb", json_string(verb));
    json_object_set_new(doc, "changed", json_integer(changed));
    json_object_set_new(doc, "unchanged", json_integer(unchanged));
    json_object_set_new(doc, "failed", json_integer(failed));
    json_object_set_new(doc, "bytes_sent", json_u64(bytes));
    json_object_set_new(doc, "hosts", list);
    return doc;
}
