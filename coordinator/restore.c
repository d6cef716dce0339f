/* What a start brings back from the store into the scheduler: open sweeps, jobs, attempts that were open, tasks that waited
 * after a failure.
 *
 * A long queue would keep agents and users waiting: what a short one needs is read before the coordinator serves, the jobs
 * behind it, the first to be granted first, between the turns of the loop. Nothing is granted until all are here, so
 * nobody is overtaken; whoever asks about jobs or changes one has the rest read at once. Jobs of which an attempt was open
 * are here from the start, so what agents say finds its task. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

enum {
    START_JOBS = 4,      /* read before anything is served */
    SLICE_TASKS = 10000, /* then in each turn, 5 ms; one job at least */
    AGAIN_MS = 1000,     /* the store could not be read */
    TRIES_MAX = 5,
};

/* ---- jobs */

static int note_job(void *ctx, const struct store_job *w)
{
    struct hub *h = ctx;
    if (h->rest.n == h->rest.room) {
        size_t room = h->rest.room ? 2 * h->rest.room : 64;
        void *v = realloc(h->rest.job, room * sizeof(*h->rest.job));
        if (!v)
            return -ENOMEM;
        h->rest.job = v;
        h->rest.room = room;
    }
    h->rest.job[h->rest.n++] = (struct hub_rest_job){ .seq = w->seq, .priority = w->priority };
    return map_put(&h->rest.absent, w->seq, h);
}

static int by_turn(const void *x, const void *y)
{
    const struct hub_rest_job *a = x, *b = y;
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    return a->seq < b->seq ? -1 : a->seq > b->seq;
}

/* One bad job must not keep the fleet from its work; one that could not be read just now is asked for again. */
static int load_job(struct hub *h, uint64_t seq, bool last, struct err *e)
{
    int r = hub_job(h, seq) ? 0 : hub_load_job(h, seq, false, e);
    bool again = r == -EIO || r == -EBUSY || r == -ENOMEM || r == -ENOSPC;
    if (again && !last)
        return r;
    map_del(&h->rest.absent, seq);
    if (r < 0)
        log_error("job %" PRIu64 ": %s; it waits as it is", seq, e->code ? e->text : strerror(-r));
    return 0;
}

/* The next one is here, or cannot be had now: -EAGAIN. */
static int next_job(struct hub *h)
{
    struct err e = { 0 };
    struct hub_rest_job *j = h->rest.at < h->rest.n ? &h->rest.job[h->rest.at] : NULL;
    if (j && map_get(&h->rest.absent, j->seq) &&
        load_job(h, j->seq, ++j->tries == TRIES_MAX, &e) < 0) {
        h->rest.next_ms = clock_mono_ms() + AGAIN_MS;
        return -EAGAIN;
    }
    if (j && ++h->rest.at < h->rest.n)
        return 0;
    hub_restore_clear(h);
    return 0;
}

void hub_restore_some(struct hub *h)
{
    if (!h->sched.loading || clock_mono_ms() < h->rest.next_ms)
        return;
    size_t enough = h->sched.tasks.used + SLICE_TASKS;
    while (h->sched.loading && h->sched.tasks.used < enough && next_job(h) == 0)
        continue;
}

void hub_restore_rest(struct hub *h)
{
    while (h->sched.loading && next_job(h) == 0)
        continue;
}

void hub_restore_clear(struct hub *h)
{
    free(h->rest.job);
    map_clear(&h->rest.absent);
    memset(&h->rest, 0, sizeof(h->rest));
    h->sched.loading = false;
}

static int find_jobs(struct hub *h, struct err *e)
{
    int r = store_jobs(h->store, 0, true, note_job, h, e);
    if (r < 0)
        return e->code ? r : err_sys(e, -r, "jobs");
    if (h->rest.n)
        qsort(h->rest.job, h->rest.n, sizeof(*h->rest.job), by_turn);
    h->sched.loading = h->rest.n > 0;
    for (int i = 0; h->sched.loading && i < START_JOBS && next_job(h) == 0; i++)
        continue;
    return 0;
}

static int job_of(void *ctx, const struct store_job_task *t)
{
    *(uint64_t *)ctx = t->job;
    return 0;
}

/* The job of a task that an agent may still have. Without it the attempt would pass for one that nobody needs. */
static int need_job(struct hub *h, uint64_t task, struct err *e)
{
    uint64_t job = 0;
    if (!h->sched.loading || sched_task(&h->sched, task))
        return 0;
    int r = store_job_task(h->store, task, job_of, &job, e);
    if (r == -ENOENT || !map_get(&h->rest.absent, job))
        return r == -ENOENT ? 0 : r;
    return load_job(h, job, false, e);
}

/* ---- sweeps, attempts, notes */

struct restoring {
    struct hub *h;
    struct err *e;
};

static int load_sweep(void *ctx, const struct store_sweep *w)
{
    struct hub *h = ctx;
    struct err e = { 0 };
    if (hub_load_sweep(h, w->seq, &e) < 0) /* one bad sweep must not keep the fleet from its work */
        log_error("sweep '%s': %s; it waits as it is", w->name, e.text);
    return 0;
}

static void restore_past(struct sched_event *ev, const struct store_task *note)
{
    static struct sched_kill kills[SCHED_KILLS]; /* for one step */
    for (uint32_t i = 0; i < note->n_kills; i++) {
        memcpy(kills[i].install, note->kill[i].install, 16);
        kills[i].boot = note->kill[i].boot;
    }
    ev->restore.kills = kills;
    ev->restore.n_kills = note->n_kills;
    ev->restore.why = note->why;
    ev->restore.noted = true;
}

/* A task that waited after a failure, or in quarantine. */
static int restore_waiting(void *ctx, struct store_task *t)
{
    struct restoring *x = ctx;
    struct hub *h = x->h;
    struct sched_event ev = { .type = EV_RESTORE,
                              .restore = { .task = t->task,
                                           .n = t->n,
                                           .sweep = t->sweep,
                                           .kind = task_kind_parse(t->kind),
                                           .key = t->key,
                                           .points = &t->points,
                                           .total = t->points.total,
                                           .fails = (uint32_t)t->fails,
                                           .quarantined = t->quarantined } };
    const struct sched_sweep *w = sched_sweep(&h->sched, t->sweep);
    ev.restore.timeout_ms = w ? w->timeout_ms : 0;
    restore_past(&ev, t);
    int r = ev.restore.kind >= TASK_EXEC ? need_job(h, t->task, x->e) : 0;
    if (r < 0)
        return r;
    struct err none = { 0 };
    r = sched_step(&h->sched, &ev, clock_mono_ms(), &h->out, &none);
    if (r >= 0 || r == -ENOMEM)
        return r < 0 ? r : 0;
    return store_forget_task(h->store, t->task, x->e); /* its sweep is over, or its trace is here */
}

static int restore_one(void *ctx, struct store_attempt *a)
{
    struct restoring *x = ctx;
    struct hub *h = x->h;
    struct sched_event ev = { .type = EV_RESTORE,
                              .restore = { .task = a->task,
                                           .epoch = a->epoch,
                                           .n = a->n,
                                           .sweep = a->sweep,
                                           .timeout_ms = a->timeout_ms,
                                           .kind = task_kind_parse(a->kind),
                                           .key = a->key,
                                           .points = &a->points,
                                           .total = a->points.total,
                                           .fails = (uint32_t)a->fails,
                                           .open = true } };
    memcpy(ev.restore.install, a->install, 16);
    ev.restore.boot = a->boot;
    struct store_task note = { 0 };
    int r = ev.restore.kind >= TASK_EXEC ? need_job(h, a->task, x->e) : 0;
    if (r < 0)
        return r;
    r = store_task(h->store, a->task, &note, x->e);
    if (r >= 0)
        restore_past(&ev, &note);
    spans_clear(&note.points);
    if (r < 0 && r != -ENOENT)
        return r;
    struct err none = { 0 };
    r = sched_step(&h->sched, &ev, clock_mono_ms(), &h->out, &none);
    if (r >= 0)
        return 0;
    if (r == -ENOMEM)
        return r;
    /* its sweep is over or cancelled: the attempt is closed; what its agent still sends is late */
    return store_end_attempt(h->store, a->task, a->epoch, a->n, "lost", 0, 0, clock_wall_ms(), NULL,
                             0, x->e);
}

int hub_restore(struct hub *h, struct err *e)
{
    struct restoring x = { h, e };
    uint64_t next = 0;
    int r = store_next_task(h->store, &next, e);
    if (r < 0)
        return r;
    sched_init(&h->sched,
               &(struct sched_cfg){ .epoch = h->epoch,
                                    .next_task = next,
                                    .lease_ms = h->conf->lease_ms,
                                    .seed = clock_mono_ns() },
               clock_mono_ms());
    r = store_begin(h->store, e);
    if (r >= 0)
        r = store_sweeps(h->store, 0, true, load_sweep, h, e);
    if (r >= 0)
        r = find_jobs(h, e);
    if (r >= 0)
        r = store_open_attempts(h->store, restore_one, &x, e);
    if (r >= 0)
        r = store_tasks(h->store, restore_waiting, &x, e);
    h->jobs_over = true; /* before this start, perhaps */
    if (r < 0)
        return e->code ? r : err_sys(e, -r, "start");
    return store_commit(h->store, e);
}
