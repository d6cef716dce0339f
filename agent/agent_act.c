#include "agent/agent_in.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/grow.h"
#include "agent/spec.h"
#include "agent/task.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/wire/rows.h"

enum { RETRY_MS = 5 }; /* after a full queue */

static void do_accept(struct agent *a, const struct core_action *act)
{
    struct err e = { 0 };
    struct run *r = agent_run_find(a, &act->key);
    if (!r) {
        const struct msg_grant *m = a->grant;
        if (!m || m->task != act->key.task)
            return;
        struct run_grant g = { .key = act->key,
                               .kind = core_find(&a->core, &act->key)->kind,
                               .sweep = m->sweep,
                               .engine = a->engine,
                               .timeout_ms = m->timeout_ms,
                               .threads = a->core.cores };
        memcpy(g.host_boot, a->host_boot, sizeof(g.host_boot));
        r = agent_run_new(a, &g);
        if (!r)
            return;
        int rc = spec_parse(&r->g, m->spec, m->spec_len, &r->inputs, &r->n_inputs, &e);
        if (rc == 0)
            rc = run_create(a->tasks, &r->g, m->spec, m->spec_len, &r->dir, &e);
        if (rc < 0) {
            agent_run_cannot(a, r, rc, e.text);
            agent_sweep_soon(a); /* what was begun of its folder */
            return;
        }
    }
    agent_get_inputs(a, r);
}

bool agent_program_changed(struct agent *a)
{
    struct stat st;
    bool same = stat(a->program, &st) == 0 && st.st_ino == a->program_st.st_ino &&
                st.st_dev == a->program_st.st_dev && st.st_size == a->program_st.st_size &&
                st.st_mtim.tv_sec == a->program_st.st_mtim.tv_sec &&
                st.st_mtim.tv_nsec == a->program_st.st_mtim.tv_nsec;
    if (!same && !a->replaced) {
        log_warn("%s was replaced; nothing new is taken until the agent is restarted", a->program);
        agent_push(a, (struct core_event){ .kind = CORE_CLOSE });
        a->replaced = true;
    }
    return !same;
}

static void do_start(struct agent *a, const struct core_action *act)
{
    struct run *r = agent_run_find(a, &act->key);
    struct err e = { 0 };
    if (!r)
        return;
    if (agent_program_changed(a)) {
        agent_run_why(r, "the program file was replaced; it goes to another agent");
        agent_push(
            a, (struct core_event){ .kind = CORE_CANNOT, .key = r->g.key, .cause = CAUSE_LOST });
        return;
    }
    for (size_t i = 0; i < r->n_inputs; i++)
        if (!cas_check(a->cas, &r->inputs[i])) {
            /* not the task's fault: it is granted again, and then the input is fetched again */
            agent_run_why(r, "an input was removed from the cache");
            agent_push(a, (struct core_event){
                              .kind = CORE_CANNOT, .key = r->g.key, .cause = CAUSE_LOST });
            return;
        }
    char **paths = calloc(r->n_inputs + 1, sizeof(*paths));
    if (!paths) {
        agent_run_cannot(a, r, -ENOMEM, "no memory for the paths of its inputs");
        return;
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->n_inputs; i++)
        if (!(paths[i] = cas_path(a->cas, &r->inputs[i])))
            rc = err_set(&e, ENOENT, "%s: an input is gone from the cache", r->dir);
    if (rc == 0)
        rc = run_start(r->dir, &r->g, &a->host, r->inputs, paths, r->n_inputs, &r->pidfd, &e);
    for (size_t i = 0; i < r->n_inputs; i++)
        free(paths[i]);
    free(paths);
    if (rc < 0)
        agent_run_cannot(a, r, rc, e.text);
}

/* What a task found damaged, or may have: it is fetched again before the next task uses it. Hashing it here to be sure would
 * keep the loop from its beats; the task has done so and says what is whole. */
static void drop_inputs(struct agent *a, const struct run *r)
{
    CLEANUP(freep) char *to = path_fmt("%s/damaged", a->data);
    CLEANUP(freep) char *told = r->dir ? path_fmt("%s/" TASK_WHOLE, r->dir) : NULL;
    CLEANUP(buf_clear) struct buf whole = BUF_INIT(1 << 20);
    if (!to)
        return;
    if (told && file_read(told, &whole, NULL) < 0)
        buf_clear(&whole);
    for (size_t i = 0; i < r->n_inputs; i++) {
        char hex[ID_HEX_LEN];
        id_hex(&r->inputs[i], hex);
        if (!whole.len || !memmem(whole.data, whole.len, hex, strlen(hex)))
            cas_aside(a->cas, &r->inputs[i], to, NULL);
    }
    dir_remove(to, NULL);
}

static void do_save_end(struct agent *a, const struct core_action *act)
{
    struct run *r = agent_run_find(a, &act->key);
    struct err e = { 0 };
    if (!r)
        return;
    r->end.cause = act->cause;
    r->over = true;
    r->fetching = r->offering = false;
    agent_unpin(a, r);
    if (act->cause == CAUSE_INTEGRITY)
        drop_inputs(a, r);
    closep(&r->pidfd);
    if (!r->dir)
        return; /* it never came so far as to have a folder */
    if (r->spool)
        spool_sync(r->spool);
    /* without it a restarted agent looks at the status again, or calls the task lost: worse, not wrong */
    if (spool_save_end(r->dir, &r->end, r->g.kind != CORE_EXEC, &e) < 0)
        log_warn("task %" PRIu64 ": its end is not on disk: %s", r->g.key.task, e.text);
    if (act->cause != CAUSE_DONE)
        log_info("task %" PRIu64 " ended: %s", r->g.key.task, task_cause_name(act->cause));
}

static int send_hello(struct agent *a, size_t n_refs)
{
    struct msg m = { .type = M_AGENT_HELLO };
    struct msg_agent_hello *h = &m.agent_hello;
    h->install = a->install;
    h->install_len = sizeof(a->install);
    h->boot = a->boot;
    h->session = a->session;
    h->session_len = sizeof(a->session);
    h->name = a->name;
    h->version = SIOFLEET_VERSION;
    h->engine = a->engine;
    h->cores = a->core.cores;
    h->memory_mib = a->conf->memory_mib ? a->conf->memory_mib : a->facts.memory_mib;
    h->kvm = a->facts.kvm;
    h->labels = a->conf->labels;
    h->facts = (const uint8_t *)a->facts_text;
    h->facts_len = strlen(a->facts_text);
    h->running = a->refs;
    h->n_running = n_refs;
    h->features = WIRE_POINT_LISTS | (a->bulk ? bulk_features() | WIRE_PEERS : 0);
    h->class_rate_b = a->conf->class_rate_b;
    h->bulk_port = a->bulk ? bulk_port(a->bulk) : 0;
    return link_send(a->link, COORDINATOR, &m, NULL);
}

/* References to all tasks that are still somebody's; returns how many. */
static size_t fill_refs(struct agent *a)
{
    size_t n = 0;
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        const struct core_task *t = &a->core.t[i];
        if (t->state == CORE_ST_GONE || t->drop)
            continue;
        a->refs[n++] = (struct wire_task_ref){ .task = t->key.task,
                                               .epoch = t->key.epoch,
                                               .n = t->key.n,
                                               .state = core_ref_state(t),
                                               .done = t->rows };
    }
    return n;
}

static size_t fill_trips(const struct trips *t, enum wire_trips_kind kind, struct wire_trips *ret)
{
    struct trips_sum s;
    trips_sum(t, &s);
    *ret = (struct wire_trips){
        .kind = kind, .n = s.n, .p50_us = s.p50_us, .p99_us = s.p99_us, .max_us = s.max_us
    };
    return s.n > 0;
}

static int send_beat(struct agent *a, uint64_t seq)
{
    struct wire_trips trips[2];
    struct msg m = { .type = M_BEAT };
    m.beat.boot = a->boot;
    m.beat.seq = seq;
    m.beat.accept = core_accepts(&a->core, clock_mono_ms());
    m.beat.n_tasks = fill_refs(a);
    m.beat.tasks = a->refs;
    struct cas_figures f;
    cas_figures(a->cas, &f);
    m.beat.space = a->space.level;
    m.beat.disk_b = a->space.disk_b;
    m.beat.free_b = a->space.free_b;
    m.beat.cache_b = f.used_b;
    m.beat.reserved_b = f.reserved_b + f.partial_b;
    m.beat.pinned_b = f.pinned_b;
    m.beat.cap_b = f.cap_b;
    m.beat.trips = trips;
    m.beat.n_trips = fill_trips(&a->beats, WIRE_TRIPS_BEAT, trips);
    m.beat.n_trips += fill_trips(&a->results, WIRE_TRIPS_RESULT, trips + m.beat.n_trips);
    int r = link_send(a->link, COORDINATOR, &m, NULL);
    if (r >= 0)
        trips_sent(&a->beats, &(struct trip_key){ .seq = seq }, clock_mono_ns());
    return r;
}

int agent_send_decline(struct agent *a, const struct core_action *act)
{
    struct msg m = { .type = M_DECLINE };
    m.decline.task = act->key.task;
    m.decline.epoch = act->key.epoch;
    m.decline.n = act->key.n;
    m.decline.code = act->code;
    m.decline.text = act->text;
    log_info("task %" PRIu64 " not taken: %s", act->key.task, act->text);
    return link_send(a->link, COORDINATOR, &m, NULL);
}

static int send_rows(struct agent *a, const struct core_action *act)
{
    struct run *r = agent_run_find(a, &act->key);
    struct err e = { 0 };
    if (!r || !r->spool)
        return 0;
    int rc = spool_read(r->spool, act->first, act->rows, a->rows, &a->block, &e);
    if (rc < 0) {
        /* unreadable now, readable when counted: the disk is failing. The coordinator's lease runs out. */
        log_error("task %" PRIu64 " is given up: %s", r->g.key.task, e.text);
        agent_push(a, (struct core_event){ .kind = CORE_DROPPED, .key = r->g.key });
        return 0;
    }
    struct msg m = { .type = M_ROWS,
                     .rows = { .task = act->key.task,
                               .epoch = act->key.epoch,
                               .n = act->key.n,
                               .seq = act->seq,
                               .sweep = r->g.sweep,
                               .trace = r->g.trace,
                               .engine = r->g.engine,
                               .threads = r->g.threads,
                               .rows = a->rows,
                               .n_rows = act->rows } };
    if (a->features & WIRE_ROW_BLOCK && row_block_pack(a->rows, act->rows, &a->packed) == 0)
        m = row_block_of(&m.rows, &a->packed);
    rc = link_send(a->link, COORDINATOR, &m, &e);
    if (rc < 0 && rc != -EAGAIN && rc != -EHOSTUNREACH)
        log_error("task %" PRIu64 ": rows cannot be sent: %s", r->g.key.task, e.text);
    if (rc >= 0)
        trips_sent(&a->results, &(struct trip_key){ m.rows.task, m.rows.epoch, m.rows.n, act->seq },
                   clock_mono_ns());
    return rc;
}

static int send_end(struct agent *a, const struct core_action *act)
{
    struct run *r = agent_run_find(a, &act->key);
    struct err e = { 0 };
    if (!r)
        return 0;
    struct msg m = { .type = M_TASK_END };
    m.task_end.task = act->key.task;
    m.task_end.epoch = act->key.epoch;
    m.task_end.n = act->key.n;
    m.task_end.sweep = r->g.sweep;
    m.task_end.cause = task_cause_name(r->end.cause);
    m.task_end.exit = r->end.exit;
    m.task_end.signal = r->end.signal;
    m.task_end.duration_ms = r->end.duration_ms;
    m.task_end.info = (const uint8_t *)r->end.info;
    m.task_end.info_len = r->end.info ? strlen(r->end.info) : 0;
    m.task_end.tail = (const uint8_t *)r->end.tail;
    m.task_end.tail_len = r->end.tail ? strnlen(r->end.tail, 16384) : 0;
    int rc = link_send(a->link, COORDINATOR, &m, &e);
    if (rc < 0 && rc != -EAGAIN && rc != -EHOSTUNREACH)
        log_error("task %" PRIu64 ": its end cannot be sent: %s", r->g.key.task, e.text);
    if (rc >= 0)
        trips_sent(&a->results,
                   &(struct trip_key){ m.task_end.task, m.task_end.epoch, m.task_end.n, 0 },
                   clock_mono_ns());
    return rc;
}

static void do_remove(struct agent *a, const struct core_action *act)
{
    struct run *r = agent_run_find(a, &act->key);
    struct err e = { 0 };
    if (!r)
        return;
    agent_grow_close(a, r, true);
    if (r->dir && dir_remove(r->dir, &e) < 0) {
        log_warn("task %" PRIu64 ": its folder stays for now: %s", r->g.key.task, e.text);
        agent_sweep_soon(a);
    }
    agent_run_clear(a, r);
}

void agent_push(struct agent *a, struct core_event ev)
{
    if (a->n_events < AGENT_EVENTS_MAX)
        a->events[a->n_events++] = ev;
    else
        log_error("more than %d events wait; one is lost", AGENT_EVENTS_MAX);
}

static void act_on(struct agent *a, const struct core_action *act)
{
    int sent = 0;
    struct run *r;
    switch (act->kind) {
    case CORE_DO_HELLO:
        sent = send_hello(a, fill_refs(a));
        break;
    case CORE_DO_BEAT:
        send_beat(a, act->seq); /* the next one comes soon */
        break;
    case CORE_DO_DECLINE:
        agent_send_decline(a, act); /* lost: the next beat does not list it */
        break;
    case CORE_DO_ACCEPT:
        do_accept(a, act);
        break;
    case CORE_DO_START:
        do_start(a, act);
        break;
    case CORE_DO_STOP:
        if ((r = agent_run_find(a, &act->key)))
            run_stop(r->pidfd, act->hard);
        break;
    case CORE_DO_MAKE:
        if ((r = agent_run_find(a, &act->key)))
            agent_offer_products(a, r);
        break;
    case CORE_DO_SAVE_END:
        do_save_end(a, act);
        break;
    case CORE_DO_SEND_ROWS:
        sent = send_rows(a, act);
        break;
    case CORE_DO_SAVE_ACK:
        if ((r = agent_run_find(a, &act->key)) && r->dir)
            spool_save_acked(r->dir, act->rows);
        break;
    case CORE_DO_SEND_END:
        sent = send_end(a, act);
        break;
    case CORE_DO_REMOVE:
        do_remove(a, act);
        break;
    case CORE_DO_EXIT:
        a->exit_now = true;
        break;
    }
    if (sent < 0) {
        core_unsent(&a->core, act);
        a->retry_ms = clock_mono_ms() + RETRY_MS;
    }
}

void agent_step(struct agent *a, const struct core_event *ev)
{
    static struct core_actions out; /* one loop, one thread */
    core_step(&a->core, ev, clock_mono_ms(), &out);
    for (size_t i = 0; i < out.n; i++)
        act_on(a, &out.v[i]);
}

void agent_work_off(struct agent *a)
{
    for (size_t i = 0; i < a->n_events; i++) {
        struct core_event ev = a->events[i];
        agent_step(a, &ev);
    }
    a->n_events = 0;
}
