#include "coordinator/grants.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"

enum { SIFT_MAX = 64 }; /* points that are looked up at once */

static int note_point(struct granted *t, uint64_t sweep, uint64_t index)
{
    struct sched_event *v = hub_grown(t->points, t->n_points, &t->room_points, sizeof(*v));
    if (!v)
        return -ENOMEM;
    t->points = v;
    v[t->n_points++] =
        (struct sched_event){ .type = EV_POINT, .point = { .sweep = sweep, .index = index } };
    return 0;
}

/* n points of a grant that need no agent: known ones are copied, invalid ones get their row. Adds the rest to at. */
static int sift_some(struct hub *h, struct live *l, struct store_row row[], size_t n,
                     struct point at[SCHED_BLOCK_MAX], size_t *n_at, struct granted *turn,
                     struct err *e)
{
    bool maybe[SIFT_MAX];
    int r = store_maybe_known(h->store, row, n, maybe, e);
    for (size_t i = 0; r >= 0 && i < n; i++) {
        struct err why = { 0 };
        uint32_t t;
        if (arch_check(&row[i].arch, l->rules, &why) < 0) {
            live_point(l, row[i].index, &t, &row[i].arch, &row[i].point);
            row[i].status = ROW_INVALID;
            row[i].error = why.text;
            r = store_put_row(h->store, &row[i], clock_wall_ms(), e);
            if (r >= 0)
                r = note_point(turn, l->seq, row[i].index);
            continue;
        }
        if (maybe[i]) {
            live_point(l, row[i].index, &t, &row[i].arch, &row[i].point);
            r = store_put_known(h->store, &row[i], h->engines, h->n_engines, e);
        }
        if (r == 1 && maybe[i])
            r = note_point(turn, l->seq, row[i].index);
        else if (r >= 0 && *n_at < SCHED_BLOCK_MAX)
            at[(*n_at)++] = (struct point){ row[i].index, row[i].arch };
    }
    return r < 0 ? r : 0;
}

/* All points of a grant through sift_some(). */
static int sift(struct hub *h, struct live *l, uint32_t t, const struct span *spans, size_t n_spans,
                struct point at[SCHED_BLOCK_MAX], size_t *ret_n, struct granted *turn,
                struct err *e)
{
    struct store_row row[SIFT_MAX];
    size_t n = 0;
    int r = 0;
    *ret_n = 0;
    for (size_t k = 0; k < n_spans; k++)
        for (uint64_t i = spans[k].lo; i < spans[k].hi; i++) {
            uint32_t no;
            row[n] = (struct store_row){
                .sweep = l->seq, .index = i, .trace = l->tr[t].num, .by = BY_ENGINE
            };
            if (live_arch(l, i, &no, &row[n].arch) < 0)
                return err_set(e, EINVAL, "sweep '%.100s': no point %" PRIu64, l->name, i);
            if (++n < SIFT_MAX)
                continue;
            r = sift_some(h, l, row, n, at, ret_n, turn, e);
            if (r < 0)
                return r;
            n = 0;
        }
    return sift_some(h, l, row, n, at, ret_n, turn, e);
}

/* What goes out for a grant that is stored. spec: its text is taken. */
static int add_sending(struct granted *turn, const struct sched_action *a, const struct id *of,
                       bool nothing, struct buf *spec)
{
    struct hub_agent *ag = a->agent ? a->agent->user : NULL;
    struct sending *v = hub_grown(turn->v, turn->n, &turn->room, sizeof(*v));
    if (!v)
        return -ENOMEM;
    turn->v = v;
    v[turn->n++] = (struct sending){ .task = a->task,
                                     .epoch = a->epoch,
                                     .n = a->n,
                                     .agent = a->agent,
                                     .peer = ag ? ag->peer : 0,
                                     .nothing = nothing,
                                     .spec = spec->data,
                                     .msg = { .type = M_GRANT,
                                              .grant = { .task = a->task,
                                                         .epoch = a->epoch,
                                                         .n = a->n,
                                                         .kind = task_kind_name(a->kind),
                                                         .sweep = *of,
                                                         .timeout_ms = a->timeout_ms,
                                                         .spec = spec->data,
                                                         .spec_len = spec->len } } };
    *spec = BUF_INIT(spec->cap);
    return 0;
}

static void fill_attempt(struct store_attempt *at, const struct sched_action *a)
{
    *at = (struct store_attempt){ .task = a->task,
                                  .epoch = a->epoch,
                                  .n = a->n,
                                  .granted_ms = clock_wall_ms(),
                                  .timeout_ms = a->timeout_ms,
                                  .fails = a->fails };
    snprintf(at->kind, sizeof(at->kind), "%s", task_kind_name(a->kind));
    memcpy(at->install, a->agent->install, 16);
    at->boot = a->agent->boot;
}

static int find_index(void *ctx, const struct store_job_task *t)
{
    *(uint64_t *)ctx = t->index;
    return 0;
}

static int take_job_grant(struct hub *h, const struct sched_action *a, struct granted *turn,
                          struct err *e)
{
    struct job *j = hub_job(h, a->sweep);
    struct store_attempt at;
    struct store_job w;
    uint64_t index = 0;
    if (!j)
        return err_set(e, ENOENT, "task %" PRIu64 ": its job is gone", a->task);
    int r = store_job_task(h->store, a->task, find_index, &index, e);
    if (r < 0)
        return r;
    CLEANUP(freep) char *text = job_spec(j, index);
    CLEANUP(buf_clear) struct buf spec = BUF_INIT(1 << 20);
    r = text ? buf_adds(&spec, text) : -ENOMEM;
    if (r < 0)
        return err_sys(e, -r, "task %" PRIu64, a->task);
    fill_attempt(&at, a);
    at.key = j->id;
    r = store_add_attempt(h->store, &at, e);
    if (r >= 0)
        r = store_job_head(h->store, j->seq, &w, NULL, e);
    if (r >= 0 && w.state == SWEEP_QUEUED)
        r = store_job_state(h->store, j->seq, SWEEP_RUNNING, 0, e);
    return r < 0 ? r : add_sending(turn, a, &j->id, false, &spec);
}

static bool takes_lists(const struct hub *h, const struct sched_agent *a)
{
    const struct hub_agent *ag = a->user;
    return ag && hub_features(h, ag->peer) & WIRE_POINT_LISTS;
}

int grant_store(struct hub *h, const struct sched_action *a, struct granted *turn, struct err *e)
{
    if (a->kind >= TASK_EXEC)
        return take_job_grant(h, a, turn, e);
    struct live *l = map_get(&h->live, a->sweep);
    uint32_t t = l ? live_find(l, &a->key) : UINT32_MAX;
    if (!l || t == UINT32_MAX)
        return err_set(e, ENOENT, "task %" PRIu64 ": its sweep is gone", a->task);
    struct store_attempt at;
    fill_attempt(&at, a);
    at.sweep = a->sweep;
    at.key = a->key;
    bool nothing = false; /* all of it was known or invalid */
    CLEANUP(buf_clear) struct buf spec = BUF_INIT(1 << 20);
    int r;
    if (a->kind == TASK_TRACE) {
        r = live_trace_spec(l, t, &spec, e);
    } else {
        static struct point points[SCHED_BLOCK_MAX]; /* one loop, one thread */
        size_t n;
        const struct span *spans = h->out.spans + a->first;
        r = sift(h, l, t, spans, a->count, points, &n, turn, e);
        nothing = n == 0;
        for (size_t i = 0; r >= 0 && i < a->count; i++)
            r = spans_add(&at.points, spans[i].lo, spans[i].hi);
        if (r >= 0 && n)
            r = live_points_spec(l, t, points, n, takes_lists(h, a->agent), &spec, e);
    }
    if (r >= 0)
        r = store_add_attempt(h->store, &at, e);
    if (r >= 0 && nothing)
        r = store_end_attempt(h->store, a->task, a->epoch, a->n, "done", 0, 0, clock_wall_ms(),
                              NULL, 0, e);
    struct store_sweep w;
    if (r >= 0)
        r = store_sweep(h->store, l->seq, &w, NULL, e);
    if (r >= 0 && w.state == SWEEP_QUEUED)
        r = store_sweep_state(h->store, l->seq, SWEEP_RUNNING, 0, e);
    spans_clear(&at.points);
    return r < 0 ? r : add_sending(turn, a, &l->id, nothing, &spec);
}

void granted_clear(struct granted *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->v[i].spec);
    free(t->v);
    free(t->points);
}
