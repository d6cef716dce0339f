/* What agents say. A peer that has not said hello on this connection is told to. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

enum {
    TAKEN_MS =
        600000, /* a start takes over from one at work so often in so long; after that it is a copy */
    TAKEN_MAX = 3,
    COPY_TELL_MS = 60000, /* at least between two log lines about that */
};

enum copy { COPY_NO, COPY_WAIT, COPY_YES };

int hub_engine(struct hub *h, const struct id *engine, uint64_t *ret_num, struct err *e)
{
    int r = store_engine(h->store, engine, ret_num, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < h->n_engines; i++)
        if (h->engines[i] == *ret_num)
            return 0;
    if (h->n_engines == h->room_engines) {
        size_t room = h->room_engines ? h->room_engines * 2 : 8;
        void *v = realloc(h->engines, room * sizeof(*h->engines));
        if (!v)
            return err_sys(e, ENOMEM, "engine");
        h->engines = v;
        h->room_engines = room;
    }
    h->engines[h->n_engines++] = *ret_num;
    return 0;
}

struct hub_agent *hub_agent_of(struct hub *h, const struct peer *p)
{
    struct hub_agent *a = map_get(&h->agent_of_peer, p->id);
    if (!a) /* exit 1: it may go on, once it has said hello */
        link_refuse(h->link, p->id, 0, 1, "HELLO_FIRST", "say agent_hello first");
    else if (a->hello && !hub_commit(h)) /* the scheduler must know it first */
        return map_get(&h->agent_of_peer, p->id);
    return a;
}

void hub_refuse_agent(struct hub *h, const struct peer *p, const char *code, const char *text)
{
    log_warn("agent '%s' refused: %s", p->name, text);
    link_refuse(h->link, p->id, 0, 3, code, text);
}

void hub_set_peer(struct hub *h, struct hub_agent *a, uint64_t peer)
{
    if (a->peer)
        map_del(&h->agent_of_peer, a->peer);
    a->peer = peer;
    if (peer)
        map_put(&h->agent_of_peer, peer, a);
}

static bool json_ok(const uint8_t *p, size_t n)
{
    json_t *j = json_loadb((const char *)p, n, 0, NULL);
    bool ok = json_is_object(j);
    json_decref(j);
    return ok;
}

/* What an agent's facts say of collecting: "ready" QEMU and image are there, "can" they can be made. */
static uint8_t collect_of(const char *facts)
{
    CLEANUP(json_decrefp) json_t *j = facts ? json_loads(facts, 0, NULL) : NULL;
    const char *s = json_string_value(json_object_get(j, "collect"));
    if (!s)
        return COLLECT_NO;
    return !strcmp(s, "ready") ? COLLECT_READY : !strcmp(s, "can") ? COLLECT_CAN : COLLECT_NO;
}

/* Each start counts the boot up, so two processes of one boot are two folders. */
static bool another_session(const struct hub_agent *a, const struct msg_agent_hello *m)
{
    static const uint8_t none[16];
    return m->session_len == sizeof(none) && memcmp(a->session, none, sizeof(none)) != 0 &&
           memcmp(a->session, m->session, sizeof(none)) != 0;
}

/* A start of an install at work elsewhere. The same boot is a copy of its data directory. A higher one takes over, as after
 * a restart; but a restarted agent has closed its connection first, so this happens again and again only where copies are
 * restarted by their supervisors, or on a host that loses its power and is back within three beats. Which of the two tells
 * the one before: while it may be gone the new one is not answered (it says hello again), and when it was heard again it
 * stays. */
static enum copy is_copy(const struct hub *h, struct hub_agent *a, const struct sched_agent *known,
                         const struct peer *p, const struct msg_agent_hello *m)
{
    uint64_t now = clock_mono_ms();
    if (!a || !known || !a->peer || a->peer == p->id || !another_session(a, m) ||
        now - known->heard_ms >= 3 * h->conf->heartbeat_ms)
        return COPY_NO;
    if (m->boot == known->boot)
        return COPY_YES;
    if (!link_peer_up(h->link, a->peer))
        return COPY_NO;
    if (a->doubt_ms)
        /* a beat later: what was on its way when it lost its power is no sign of life */
        return known->heard_ms >= a->doubt_ms + h->conf->heartbeat_ms ? COPY_YES : COPY_WAIT;
    if (now - a->taken_ms > TAKEN_MS) {
        a->taken = 0;
        a->taken_ms = now;
    }
    if (++a->taken <= TAKEN_MAX)
        return COPY_NO;
    a->doubt_ms = now;
    return COPY_WAIT;
}

static void refuse_copy(struct hub *h, struct hub_agent *a, const struct peer *p, const char *name)
{
    char text[512];
    uint64_t now = clock_mono_ms();
    snprintf(text, sizeof(text),
             "agent '%s' is at work at %s with this very data directory: one of them is a copy "
             "and needs a directory and a key of its own",
             name, a->addr);
    if (!a->copy_told_ms || now - a->copy_told_ms >= COPY_TELL_MS) {
        log_warn("agent '%s' at %s refused: %s", p->name, p->addr, text);
        a->copy_told_ms = now;
    }
    link_refuse(h->link, p->id, 0, 3, "COPY", text);
}

static uint64_t install_key(const uint8_t install[16])
{
    uint64_t k;
    memcpy(&k, install, sizeof(k)); /* random: any eight bytes serve */
    return k;
}

struct hub_agent *hub_agent(const struct hub *h, const uint8_t install[16])
{
    struct hub_agent *a = map_get(&h->agent_of_install, install_key(install));
    return a && !memcmp(a->info.install, install, 16) ? a : NULL;
}

static uint64_t name_key(const char *name)
{
    return hash_fast(name, strlen(name), 0);
}

void hub_hello(struct hub *h, const struct peer *p, const struct msg_agent_hello *m)
{
    struct err e = { 0 };
    char text[512];
    struct hub_agent *a = hub_agent(h, m->install);
    if (a && a->hello && !hub_commit(h)) /* said twice within a turn: one after the other */
        return;
    const struct sched_agent *known = sched_agent(&h->sched, m->install);
    const struct hub_agent *other = map_get(&h->agent_of_name, name_key(m->name));
    if (other && other != a && other->peer && !strcmp(other->info.name, m->name)) {
        snprintf(text, sizeof(text), "the name '%s' is taken by another agent that is connected",
                 m->name);
        hub_refuse_agent(h, p, "NAME_TAKEN", text);
        return;
    }
    if (known && m->boot < known->boot) {
        snprintf(text, sizeof(text),
                 "boot %" PRIu64 " of agent '%s' is fenced by its boot %" PRIu64 "%s%s", m->boot,
                 m->name, known->boot, a && a->addr[0] ? " at " : "", a ? a->addr : "");
        hub_refuse_agent(h, p, "FENCED", text);
        return;
    }
    if (a && a->peer && strcmp(a->info.key, p->key) != 0) {
        snprintf(text, sizeof(text), "agent '%s': this install is connected with another key",
                 m->name);
        hub_refuse_agent(h, p, "INSTALL_TAKEN", text);
        return;
    }
    enum copy copy = is_copy(h, a, known, p, m);
    if (copy == COPY_YES)
        refuse_copy(h, a, p, m->name);
    if (copy != COPY_NO)
        return;
    if (!hub_write(h))
        return; /* it says hello again */
    struct store_agent info = { .boot = m->boot,
                                .cores = m->cores,
                                .memory_mib = m->memory_mib,
                                .kvm = m->kvm,
                                .engine = m->engine,
                                .last_seen_ms = clock_wall_ms() };
    memcpy(info.install, m->install, 16);
    snprintf(info.key, sizeof(info.key), "%s", p->key);
    snprintf(info.name, sizeof(info.name), "%s", m->name);
    snprintf(info.version, sizeof(info.version), "%s", m->version);
    snprintf(info.labels, sizeof(info.labels), "%s", m->labels);
    CLEANUP(freep)
    char *facts = json_ok(m->facts, m->facts_len) ? strndup((const char *)m->facts, m->facts_len)
                                                  : strdup("{}");
    uint64_t reg = 0, engine = 0;
    int r = facts ? store_add_agent(h->store, &info, facts, &reg, &e) : -ENOMEM;
    if (r == -EEXIST) {
        hub_refuse_agent(h, p, "KEY_TAKEN",
                         "this key belongs to another install: one key for each agent");
        return;
    }
    if (r >= 0 && a)
        r = hub_canary_recall(h, a, &info, &e);
    if (r >= 0)
        r = hub_engine(h, &m->engine, &engine, &e);
    if (r >= 0)
        r = store_event(h->store, info.last_seen_ms, "agent", info.name, "registered", &e);
    struct sched_ref *refs = calloc(m->n_running + 1, sizeof(*refs));
    if (r >= 0 && !refs)
        r = err_sys(&e, ENOMEM, "agent '%s'", info.name);
    if (!a && r >= 0) {
        a = calloc(1, sizeof(*a));
        if (a) {
            a->next = h->agents;
            h->agents = a;
            map_put(&h->agent_of_install, install_key(m->install), a);
        } else {
            r = err_sys(&e, ENOMEM, "agent '%s'", info.name);
        }
    }
    if (r < 0) {
        free(refs);
        hub_fail(h, &e);
        return;
    }
    a->info = info;
    snprintf(a->addr, sizeof(a->addr), "%s", p->addr);
    memset(a->session, 0, sizeof(a->session));
    if (m->session_len == sizeof(a->session))
        memcpy(a->session, m->session, sizeof(a->session));
    map_del(&h->agent_of_name, name_key(info.name));
    map_put(&h->agent_of_name, name_key(info.name), a);
    a->reg = reg;
    a->engine = engine;
    a->last_seen_ms = info.last_seen_ms;
    if (a->doubt_ms) /* the one before is gone: it was a restart */
        a->taken = 0;
    a->doubt_ms = 0;
    a->here = a->peer == p->id; /* a hello that was doubled on its way */
    a->hello = true;
    hub_set_peer(h, a, p->id);
    log_info("agent '%s' registered: boot %" PRIu64 ", %" PRIu64 " cores, holds %zu tasks",
             info.name, info.boot, info.cores, m->n_running);
    for (size_t i = 0; i < m->n_running; i++)
        refs[i] = (struct sched_ref){ m->running[i].task, m->running[i].epoch, m->running[i].n,
                                      (unsigned)m->running[i].state };
    struct sched_event ev = { .type = EV_HELLO,
                              .agent = { .boot = m->boot,
                                         .cores = (uint32_t)m->cores,
                                         .memory_mib = m->memory_mib,
                                         .kvm = m->kvm,
                                         .collect = labels_have(info.labels, "collect=no")
                                                        ? COLLECT_NO
                                                        : collect_of(facts),
                                         .labels = a->info.labels,
                                         .accept = true,
                                         .drained = info.drained,
                                         .drain_at_ms = hub_drain_at(&a->info),
                                         .refs = refs,
                                         .n_refs = m->n_running,
                                         .user = a } };
    memcpy(ev.agent.install, m->install, 16);
    hub_event(h, &ev);
}

void hub_beat(struct hub *h, const struct peer *p, const struct msg_beat *m)
{
    struct hub_agent *a = hub_agent_of(h, p);
    if (!a)
        return;
    a->last_seen_ms = clock_wall_ms();
    hub_agent_space(a, m);
    hub_agent_trips(a, m);
    if (!m->n_tasks && h->peers)
        peers_idle(h->peers, p->id);
    struct sched_ref *refs = calloc(m->n_tasks + 1, sizeof(*refs));
    if (!refs)
        return;
    for (size_t i = 0; i < m->n_tasks; i++)
        refs[i] = (struct sched_ref){ m->tasks[i].task, m->tasks[i].epoch, m->tasks[i].n,
                                      (unsigned)m->tasks[i].state };
    struct sched_event ev = {
        .type = EV_BEAT,
        .agent = { .boot = m->boot, .accept = m->accept, .refs = refs, .n_refs = m->n_tasks }
    };
    memcpy(ev.agent.install, a->info.install, 16);
    struct err e = { 0 };
    size_t at = h->out.n;
    int r = sched_step(&h->sched, &ev, clock_mono_ms(), &h->out, &e);
    if (r == -SF_EREFUSED)
        hub_refuse_agent(h, p, "FENCED", e.text);
    else if (r >= 0 && at < h->out.n)
        h->out.v[at].n = m->seq;
    free(refs);
}
