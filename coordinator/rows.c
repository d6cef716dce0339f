/* Results that agents send: checked against their sweep, stored, acknowledged. */
#include <inttypes.h>
#include <stdlib.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

enum { ROWS_AT_ONCE = 128 };

struct live *hub_find_live(struct hub *h, const struct id *id, struct live **own)
{
    *own = NULL;
    for (size_t i = 0; i < h->n_lives; i++)
        if (id_eq(&h->lives[i]->id, id))
            return h->lives[i];
    char hex[ID_HEX_LEN];
    struct store_sweep w;
    struct err e = { 0 };
    CLEANUP(freep) char *json = NULL;
    id_hex(id, hex);
    if (store_find_sweep(h->store, hex, &w, &e) < 0 ||
        store_sweep(h->store, w.seq, &w, &json, &e) < 0)
        return NULL;
    json_t *j = json_loads(json, 0, NULL);
    struct live *l = NULL;
    if (j && live_new(j, &l, &e) == 0) {
        l->seq = w.seq;
        l->id = w.id;
        if (hub_look_up_traces(h, l, &e) < 0)
            live_free(&l);
    }
    json_decref(j);
    *own = l;
    return l;
}

static void live_freep(struct live **l)
{
    live_free(l);
}

/* The rows of one message, on their way into the store. */
struct taking {
    const struct msg_rows *m; /* head */
    const struct hub_agent *a;
    const struct live *l;
    bool late; /* the attempt is fenced */
    uint64_t now_ms, n_late, foreign;
    size_t n;
    struct store_row row[ROWS_AT_ONCE];
    struct id said[ROWS_AT_ONCE]; /* the points, as the message has them */
};

static int put_aside(struct hub *h, const struct taking *k, const struct store_row *row,
                     const char *kind, struct err *e)
{
    return store_aside(h->store, row, kind, k->a->info.install, k->now_ms, e);
}

/* Whether a row may be one of this sweep's: right trace, and its point is still to be looked at. Fills what the sweep says of it. */
static bool may_fit(const struct taking *k, const struct wire_row *w, struct store_row *row)
{
    uint32_t t;
    if (live_arch(k->l, w->index, &t, &row->arch) < 0 || !k->l->tr[t].num)
        return false;
    row->trace = k->l->tr[t].num;
    return id_eq(&k->l->tr[t].id, &k->m->trace);
}

/* The ids of all points at once; rows with another one go. */
static int check_points(struct hub *h, struct taking *k, struct err *e)
{
    const struct arch *arch[ROWS_AT_ONCE];
    struct id point[ROWS_AT_ONCE];
    size_t n = 0;
    int r = 0;
    for (size_t i = 0; i < k->n; i++)
        arch[i] = &k->row[i].arch;
    arch_point_ids(arch, k->n, k->l->rules, &k->m->trace, point);
    for (size_t i = 0; r >= 0 && i < k->n; i++) {
        struct store_row *row = &k->row[i];
        row->point = point[i];
        if (id_eq(&point[i], &k->said[i])) {
            if (n < i)
                k->row[n] = *row;
            n++;
        } else {
            k->foreign++;
            r = put_aside(h, k, row, "foreign", e);
        }
    }
    k->n = n;
    return r;
}

/* Store them, and note what becomes of each. */
static int put_rows(struct hub *h, struct taking *k, struct err *e)
{
    enum store_put put[ROWS_AT_ONCE];
    int r = check_points(h, k, e);
    if (r >= 0)
        r = store_put_rows(h->store, k->row, k->n, k->now_ms, put, e);
    for (size_t i = 0; r >= 0 && i < k->n; i++) {
        const struct store_row *w = &k->row[i];
        if (put[i] == PUT_DIFFERS)
            log_error("sweep '%s': point %" PRIu64
                      ": agent '%s' has another result than the accepted one; kept aside",
                      k->l->name, w->index, k->a->info.name);
        if (put[i] == PUT_FIRST || put[i] == PUT_REPLACED) {
            h->rows++;
            hub_event(h, &(struct sched_event){ .type = EV_POINT,
                                                .point = { k->l->seq, w->index, w->duration_us,
                                                           k->m->task, k->m->epoch, k->m->n } });
        }
        k->n_late += k->late;
        if (put[i] == PUT_EQUAL || k->late)
            r = put_aside(h, k, w, put[i] == PUT_EQUAL ? "duplicate" : "late", e);
    }
    k->n = 0;
    return r;
}

/* Take the next row of r; 0 = there is none. */
static int take_row(struct hub *h, struct taking *k, struct rows_reader *r, uint64_t engine,
                    struct err *e)
{
    struct store_row *row = &k->row[k->n];
    struct wire_row w;
    *row = (struct store_row){ .sweep = k->l->seq,
                               .epoch = k->m->epoch,
                               .n = k->m->n,
                               .task = k->m->task,
                               .reg = k->a->reg,
                               .engine = engine,
                               .threads = k->m->threads,
                               .by = BY_ENGINE };
    if (!rows_next(r, &w, &row->stats))
        return 0;
    row->index = w.index;
    row->status = (enum row_status)w.status;
    row->error = w.error;
    row->duration_us = w.duration_us;
    row->started_ms = k->now_ms - w.duration_us / 1000;
    k->said[k->n] = w.point;
    int rc = 0;
    if (!may_fit(k, &w, row) || (row->status == ROW_DONE && !w.stats_len)) {
        k->foreign++;
        rc = put_aside(h, k, row, "foreign", e);
    } else if (++k->n == ROWS_AT_ONCE) {
        rc = put_rows(h, k, e);
    }
    return rc < 0 ? rc : 1;
}

void hub_rows(struct hub *h, const struct peer *p, const struct msg *msg)
{
    struct hub_agent *a = hub_agent_of(h, p);
    struct rows_reader in;
    struct msg_rows head, *m = &head;
    struct err e = { 0 };
    if (!a)
        return;
    if (rows_reader_init(&in, msg, m, &e) < 0) {
        hub_refuse_agent(h, p, "MALFORMED", e.text);
        return;
    }
    if (hub_canary_rows(h, a, m, &in) || !hub_write(h))
        return;
    CLEANUP(live_freep) struct live *own = NULL;
    struct live *l = hub_find_live(h, &m->sweep, &own);
    const struct sched_task *task = sched_task(&h->sched, m->task);
    static struct taking k; /* one loop, one thread */
    k.m = m;
    k.a = a;
    k.l = l;
    k.late = !task || task->epoch != m->epoch || task->n != m->n;
    k.now_ms = clock_wall_ms();
    k.n = k.n_late = k.foreign = 0;
    uint64_t engine = 0;
    int r = store_engine(h->store, &m->engine, &engine, &e);
    a->last_seen_ms = k.now_ms;
    for (bool more = l && r >= 0; more; more = r > 0)
        r = take_row(h, &k, &in, engine, &e);
    if (r >= 0 && k.n)
        r = put_rows(h, &k, &e);
    if (r >= 0 && l && (k.n_late || k.foreign))
        r = store_sweep_late(h->store, l->seq, k.n_late, k.foreign, &e);
    if (r >= 0 && !l) { /* of no sweep here: counted for the store as a whole */
        uint64_t all = 0;
        r = store_get(h->store, "foreign", &all, &e);
        if (r >= 0)
            r = store_set(h->store, "foreign", all + m->n_rows, &e);
    }
    if (r < 0) {
        hub_fail(h, &e);
        return;
    }
    h->rows_late += k.n_late;
    h->rows_foreign += k.foreign;
    if (!l || k.foreign)
        log_warn("agent '%s', task %" PRIu64 ": %zu rows that fit no sweep here, not taken",
                 a->info.name, m->task, l ? (size_t)k.foreign : m->n_rows);
    struct msg ack = { .type = M_ROWS_ACK, .rows_ack = { m->task, m->epoch, m->n, m->seq } };
    hub_answer(h, p->id, 0, &ack, NULL);
}
