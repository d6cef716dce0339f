/* Bulk connections: proto/bulk/bulk.h over virtual wires.
 *
 * What the threads of a real one do are events here: beside the loop of their process, at virtual times, one at a time.
 * They stand still while the process is stopped and end with it. Tickets are the real ones; sealing is left out. The
 * wire is TCP: nothing is lost or overtaken, but a cut holds it up, a reset breaks it, and when the power of one end
 * goes the other one hears nothing more.
 */
#include "proto/bulk/bulk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "tests/sim/mutants.h"
#include "tests/sim/sim.h"
#include "tests/sim/wrap.h"

enum {
    WIRE_MS = 1,
    HELD_UP_MS = 100, /* by a cut: how often it is tried again */
    DIAL_MS = 3000,
    AUTH_MS = 5000,
    SILENT_MS = 35000, /* keep-alives without an answer */
    EVENTS = BULK_WINDOW + 8,
    COORDINATOR_PORT = 9,
    FIRST_PORT = 20000,
};

struct bulk_stream {
    struct bulk *bulk;
    struct bulk_stream *next;
    uint64_t id, pair; /* pair: the other end, 0 = none */
    struct bulk_ticket ticket;
    uint64_t size_b;
    char *dial; /* NULL = is called */
    void *ctx;
    bool takes, stop;
    bool no_more, done; /* the other end is gone; with all that it wanted */
    enum { WAITS, DIALS, RUNS, ENDED } state;
    int end_r;
    char end_text[200];
    uint64_t since_ms, moved_b;
    struct bulk_event events[EVENTS];
    size_t first, n;
    /* taking end */
    struct bulk_sink sink;
    struct {
        uint64_t first, n;
    } wants[BULK_WINDOW];
    size_t n_wants, asked;
    uint64_t heard_ms;
    /* giving end */
    int fd;
    uint8_t *have; /* NULL = all */
    uint64_t owed[BULK_WINDOW], flying;
    size_t n_owed, fly_n;
    uint8_t *fly; /* chunk under way; NULL = none */
};

struct bulk {
    struct bulk *next;
    struct part *part;
    int fd;
    uint16_t port; /* 0 = does not listen */
    struct bulk_stream *streams;
    size_t takes, gives;
};

static struct bulk *bulks;
static uint64_t ids;

static struct bulk_stream *by_id(uint64_t id)
{
    for (struct bulk *b = bulks; b && id; b = b->next)
        for (struct bulk_stream *s = b->streams; s; s = s->next)
            if (s->id == id)
                return s;
    return NULL;
}

static unsigned host_of(const struct bulk_stream *s)
{
    return s->bulk->part->host;
}

static void after(uint64_t ms, void (*fn)(void *, uint64_t), const struct bulk_stream *s)
{
    const struct host *h = &world.host[host_of(s)];
    at_ms(world.now_ms + ms + (h->slow_until_ms > world.now_ms ? h->slow_ms : 0), fn, NULL, s->id);
}

/* The stream whose thread acts; NULL = it is no more, or its process stands still and it acts later. */
static struct bulk_stream *acting(uint64_t id, void (*fn)(void *, uint64_t))
{
    struct bulk_stream *s = by_id(id);
    if (!s || s->bulk->part->dead || s->state == ENDED)
        return NULL;
    if (s->bulk->part->frozen_until_ms <= world.now_ms)
        return s;
    at_ms(s->bulk->part->frozen_until_ms, fn, NULL, id);
    return NULL;
}

/* ---- what streams say */

static void push(struct bulk_stream *s, enum bulk_event_kind kind, uint64_t index, int r,
                 const char *text)
{
    if (s->n == EVENTS)
        abort();
    struct bulk_event *ev = &s->events[(s->first + s->n++) % EVENTS];
    *ev = (struct bulk_event){ .kind = kind, .ctx = s->ctx, .stream = s, .index = index, .r = r };
    snprintf(ev->text, sizeof(ev->text), "%.199s", r < 0 ? text : "");
    part_wake(s->bulk->part, world.now_ms);
}

static void end(struct bulk_stream *s, int r, const char *text)
{
    if (s->state == ENDED)
        return;
    s->state = ENDED;
    s->end_r = r;
    snprintf(s->end_text, sizeof(s->end_text), "%.199s", text);
    if (r < 0)
        check_reason(host_of(s), world.now_ms);
    part_wake(s->bulk->part, world.now_ms);
}

/* The other end hears that this one is gone, once it can. */
static void closed_event(void *arg, uint64_t id)
{
    (void)arg;
    struct bulk_stream *s = acting(id, closed_event);
    if (s && s->done && !s->takes)
        end(s, 0, "");
    else if (s)
        end(s, -ECONNRESET, "bulk: the other end closed the connection");
}

static void tell_pair(struct bulk_stream *s)
{
    struct bulk_stream *t = by_id(s->pair);
    s->pair = 0;
    if (!t || t->pair != s->id)
        return;
    t->pair = 0;
    t->no_more = true;
    t->done = s->stop && !s->bulk->part->dead;
    uint64_t open = net_open_ms(host_of(s), host_of(t));
    at_ms(open + WIRE_MS, closed_event, NULL, t->id);
}

static void stop_event(void *arg, uint64_t id)
{
    (void)arg;
    struct bulk_stream *s = acting(id, stop_event);
    if (!s)
        return;
    end(s, 0, "");
    tell_pair(s);
}

static void broken(struct bulk_stream *s, int r, const char *text)
{
    end(s, r, text);
    tell_pair(s);
}

/* ---- chunks */

static void give_event(void *arg, uint64_t id);

static void arrive_event(void *arg, uint64_t id)
{
    (void)arg;
    struct bulk_stream *g = by_id(id), *t = g ? by_id(g->pair) : NULL;
    struct err e = { 0 };
    if (!g || !t || !g->fly || t->state != RUNS || t->bulk->part->dead)
        return;
    uint64_t open = net_open_ms(host_of(g), host_of(t));
    if (t->bulk->part->frozen_until_ms > open)
        open = t->bulk->part->frozen_until_ms;
    if (open > world.now_ms) {
        at_ms(open, arrive_event, NULL, id);
        return;
    }
    CLEANUP(freep) uint8_t *p = g->fly;
    uint64_t index = g->flying;
    g->fly = NULL;
    check_chunk(host_of(g), host_of(t), &t->ticket.artefact, index, true);
    world.cur = t->bulk->part;
    int r = t->sink.write(t->sink.put, index, p, g->fly_n, &e);
    struct id is;
    hash_bytes(p, g->fly_n, &is);
    if (r >= 0)
        r = t->sink.verify(t->sink.put, index, &is, g->fly_n, &e);
    world.cur = NULL;
    if (t->bulk->part->dead)
        return;
    t->moved_b += g->fly_n;
    t->heard_ms = world.now_ms;
    t->asked--;
    push(t, BULK_CHUNK, index, r, e.text);
    if (!g->bulk->part->dead && g->state == RUNS) {
        g->moved_b += g->fly_n;
        after(0, give_event, g);
    }
}

/* The next chunk that is owed and here goes out. */
static void give_event(void *arg, uint64_t id)
{
    (void)arg;
    struct bulk_stream *g = acting(id, give_event);
    size_t k = 0;
    if (!g || g->state != RUNS || g->fly || g->no_more)
        return;
    while (k < g->n_owed && g->have && !(g->have[g->owed[k] / 8] >> g->owed[k] % 8 & 1))
        k++;
    if (k == g->n_owed)
        return;
    uint64_t off = g->owed[k] * CID_CHUNK;
    size_t n = g->size_b - off < CID_CHUNK ? (size_t)(g->size_b - off) : CID_CHUNK;
    CLEANUP(freep) uint8_t *p = malloc(n);
    if (!p)
        abort();
    world.cur = g->bulk->part;
    ssize_t got = pread_full(g->fd, p, n, (off_t)off);
    world.cur = NULL;
    if (g->bulk->part->dead)
        return;
    if (got < 0 || (size_t)got < n) {
        broken(g, got < 0 ? (int)got : -SF_EINTEGRITY, "chunk: cannot be read");
        return;
    }
    g->flying = g->owed[k];
    g->fly_n = n;
    g->fly = TAKE(p);
    memmove(g->owed + k, g->owed + k + 1, (--g->n_owed - k) * sizeof(g->owed[0]));
    after(WIRE_MS + n * world.plan->mib_ms / (1 << 20), arrive_event, g);
}

/* The taking end's questions reach the giving one. */
static void want_event(void *arg, uint64_t id)
{
    (void)arg;
    struct bulk_stream *t = acting(id, want_event), *g = t ? by_id(t->pair) : NULL;
    if (!g || t->state != RUNS)
        return;
    uint64_t open = net_open_ms(host_of(t), host_of(g));
    if (open > world.now_ms) {
        at_ms(open, want_event, NULL, id);
        return;
    }
    for (size_t i = 0; i < t->n_wants; i++)
        for (uint64_t k = 0; k < t->wants[i].n; k++) {
            if (g->n_owed == BULK_WINDOW) {
                sim_fail("%s asks for more chunks at once than may be", t->bulk->part->name);
                return;
            }
            g->owed[g->n_owed++] = t->wants[i].first + k;
        }
    t->n_wants = 0;
    after(0, give_event, g);
}

static void sync_event(void *arg, uint64_t id)
{
    (void)arg;
    struct bulk_stream *s = acting(id, sync_event);
    struct err e = { 0 };
    if (!s)
        return;
    world.cur = s->bulk->part;
    int r = s->sink.sync ? s->sink.sync(s->sink.put, &e) : 0;
    world.cur = NULL;
    if (!s->bulk->part->dead)
        push(s, BULK_SYNCED, 0, r, e.text);
}

/* ---- connections */

/* The one that listens at "HOST:PORT"; *ret_host: whose address it is. */
static struct bulk *listener(const char *at, unsigned *ret_host)
{
    const char *colon = strrchr(at, ':');
    size_t n = colon ? (size_t)(colon - at) : 0;
    *ret_host = HOSTS_MAX;
    for (unsigned i = 0; i < world.n_hosts; i++) {
        const char *name = i == COORDINATOR_HOST ? "sim" : world.host[i].name;
        if (strlen(name) == n && !strncmp(name, at, n))
            *ret_host = i;
    }
    for (struct bulk *b = bulks; b && colon; b = b->next)
        if (b->port && b->port == atoi(colon + 1) && b->part->host == *ret_host && !b->part->dead)
            return b;
    return NULL;
}

static void dial_event(void *arg, uint64_t id)
{
    (void)arg;
    unsigned host;
    struct bulk_stream *s = acting(id, dial_event);
    if (!s || s->state != DIALS)
        return;
    struct bulk *b = listener(s->dial, &host);
    uint64_t waited = world.now_ms - s->since_ms;
    bool cut = host < HOSTS_MAX && (net_open_ms(host_of(s), host) > world.now_ms ||
                                    net_open_ms(host, host_of(s)) > world.now_ms);
    if (cut || host == HOSTS_MAX || world.host[host].down) {
        if (waited >= DIAL_MS)
            end(s, -ETIMEDOUT, "bulk: cannot connect");
        else
            after(HELD_UP_MS, dial_event, s);
        return;
    }
    if (!b) {
        end(s, -ECONNREFUSED, "bulk: cannot connect");
        return;
    }
    struct bulk_stream *t = b->streams;
    while (t && (t->state != WAITS || t->stop ||
                 memcmp(t->ticket.id, s->ticket.id, BULK_TICKET_LEN) != 0))
        t = t->next;
    if (!t || b->part->frozen_until_ms > world.now_ms) {
        if (waited >= AUTH_MS)
            end(s, -SF_EREFUSED, "bulk: does not take the ticket");
        else
            after(HELD_UP_MS, dial_event, s); /* it may be on its way */
        return;
    }
    if (t->takes == s->takes || t->size_b != s->size_b ||
        !id_eq(&t->ticket.artefact, &s->ticket.artefact) ||
        memcmp(t->ticket.keys, s->ticket.keys, sizeof(t->ticket.keys)) != 0) {
        sim_fail("%s and %s hold different tickets of one number", s->bulk->part->name,
                 b->part->name);
        return;
    }
    s->pair = t->id;
    t->pair = s->id;
    s->state = t->state = RUNS;
    push(s, BULK_UP, 0, 0, "");
    push(t, BULK_UP, 0, 0, "");
}

static void expire_event(void *arg, uint64_t id)
{
    (void)arg;
    struct bulk_stream *s = acting(id, expire_event);
    if (s && s->state == WAITS)
        end(s, -ETIMEDOUT, "bulk: nobody came with the ticket");
}

static void silent_event(void *arg, uint64_t id)
{
    (void)arg;
    struct bulk_stream *s = acting(id, silent_event);
    if (s)
        end(s, -ETIMEDOUT, "bulk: Connection timed out");
}

void bulk_part_dead(struct part *p, bool power)
{
    for (struct bulk *b = bulks; b; b = b->next)
        for (struct bulk_stream *s = b->part == p ? b->streams : NULL; s; s = s->next) {
            struct bulk_stream *t = by_id(s->pair);
            if (power && t && t->pair == s->id) {
                t->pair = 0;
                t->no_more = true;
                after(SILENT_MS, silent_event, t);
                s->pair = 0;
            } else {
                tell_pair(s);
            }
        }
}

void bulk_reset(unsigned host)
{
    for (struct bulk *b = bulks; b; b = b->next)
        for (struct bulk_stream *s = b->streams; s; s = s->next) {
            struct bulk_stream *t = by_id(s->pair);
            if (!t || (host_of(s) != host && host_of(t) != host))
                continue;
            tell_pair(s);
            s->no_more = true;
            at_ms(world.now_ms + WIRE_MS, closed_event, NULL, s->id);
        }
}

/* ---- proto/bulk/bulk.h */

int bulk_own_address(const char *host, char *ret, size_t room, struct err *e)
{
    (void)host, (void)e;
    snprintf(ret, room, "tcp://%s:*", world.host[world.cur->host].name);
    return 0;
}

int bulk_new(const struct bulk_conf *conf, struct bulk **ret, struct err *e)
{
    struct bulk *b = calloc(1, sizeof(*b));
    if (!b)
        abort();
    *b = (struct bulk){ .part = world.cur };
    if (conf->listen && world.cur->kind == PART_COORDINATOR)
        b->port = COORDINATOR_PORT;
    else if (conf->listen)
        b->port = (uint16_t)(FIRST_PORT + world.cur->pid % 10000);
    for (const struct bulk *o = bulks; o; o = o->next)
        if (b->port == COORDINATOR_PORT && o->port == b->port && !o->part->dead) {
            free(b);
            return err_sys(e, EADDRINUSE, "%s", conf->listen);
        }
    b->fd = wrap_fd_bulk(b);
    b->next = bulks;
    bulks = b;
    *ret = b;
    return 0;
}

static void stream_free(struct bulk_stream *s)
{
    *(s->takes ? &s->bulk->takes : &s->bulk->gives) -= 1;
    closep(&s->fd);
    free(s->fly);
    free(s->have);
    free(s->dial);
    free(s);
}

void bulk_free(struct bulk **bp)
{
    struct bulk *b = *bp;
    if (!b)
        return;
    *bp = NULL;
    while (b->streams) {
        struct bulk_stream *s = b->streams;
        tell_pair(s);
        b->streams = s->next;
        stream_free(s);
    }
    struct bulk **at = &bulks;
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    closep(&b->fd);
    free(b);
}

uint16_t bulk_port(const struct bulk *b)
{
    return b->port;
}

int bulk_fd(const struct bulk *b)
{
    return b->fd;
}

static int stream_new(struct bulk *b, const struct bulk_ticket *t, const char *dial,
                      uint64_t size_b, bool takes, void *ctx, struct bulk_stream **ret,
                      struct err *e)
{
    if (!dial && !b->port)
        return err_set(e, ENOTCONN, "bulk: nobody can connect to this end");
    if (takes ? b->takes >= BULK_TAKES_MAX : b->gives >= BULK_GIVES_MAX)
        return err_set(e, EBUSY, "bulk: as many streams run as may");
    struct bulk_stream *s = calloc(1, sizeof(*s));
    if (!s)
        abort();
    *s = (struct bulk_stream){ .bulk = b,
                               .next = b->streams,
                               .id = ++ids,
                               .ticket = *t,
                               .size_b = size_b,
                               .dial = dial ? strdup(dial) : NULL,
                               .ctx = ctx,
                               .takes = takes,
                               .state = dial ? DIALS : WAITS,
                               .since_ms = world.now_ms,
                               .fd = -1 };
    b->streams = s;
    *(takes ? &b->takes : &b->gives) += 1;
    if (dial)
        after(WIRE_MS, dial_event, s);
    else
        after(t->ttl_ms, expire_event, s);
    *ret = s;
    return 0;
}

int bulk_take(struct bulk *b, const struct bulk_ticket *t, const char *dial, uint64_t size_b,
              const struct bulk_sink *sink, void *ctx, struct bulk_stream **ret, struct err *e)
{
    int r = stream_new(b, t, dial, size_b, true, ctx, ret, e);
    if (r >= 0)
        (*ret)->sink = *sink;
    return r;
}

/* Rates are not played here. */
int bulk_class(struct bulk *b, const char *name, uint64_t rate_b, struct err *e)
{
    (void)b;
    (void)name;
    (void)rate_b;
    (void)e;
    return 0;
}

void bulk_join(struct bulk_stream *s, const char *class_name)
{
    (void)s;
    (void)class_name;
}

int bulk_give_some(struct bulk *b, const struct bulk_ticket *t, const char *dial, uint64_t size_b,
                   int fd, const uint8_t *have, void *ctx, struct bulk_stream **ret, struct err *e)
{
    int r = stream_new(b, t, dial, size_b, false, ctx, ret, e);
    if (r < 0)
        return r;
    (*ret)->fd = fd;
    if (have) {
        size_t n = (size_t)(size_b / CID_CHUNK / 8 + 1);
        (*ret)->have = malloc(n);
        if (!(*ret)->have)
            abort();
        memcpy((*ret)->have, have, n);
    }
    return 0;
}

int bulk_give(struct bulk *b, const struct bulk_ticket *t, const char *dial, uint64_t size_b,
              int fd, void *ctx, struct bulk_stream **ret, struct err *e)
{
    return bulk_give_some(b, t, dial, size_b, fd, NULL, ctx, ret, e);
}

void bulk_have(struct bulk_stream *s, uint64_t index)
{
    if (!s->have || index > s->size_b / CID_CHUNK)
        return;
    s->have[index / 8] |= (uint8_t)(1u << index % 8);
    after(0, give_event, s);
}

void bulk_want(struct bulk_stream *s, uint64_t first, uint64_t n)
{
    if (!n || s->n_wants == BULK_WINDOW || s->state != RUNS)
        return;
    if (!s->asked)
        s->heard_ms = world.now_ms;
    s->asked += n;
    s->wants[s->n_wants].first = first;
    s->wants[s->n_wants++].n = n;
    after(WIRE_MS, want_event, s);
}

void bulk_sync(struct bulk_stream *s)
{
    after(1, sync_event, s);
}

void bulk_stop(struct bulk_stream *s)
{
    if (!s->stop && !mutant("bulk-left"))
        after(1, stop_event, s);
    s->stop = true;
}

uint64_t bulk_moved(const struct bulk_stream *s)
{
    return s->moved_b;
}

uint64_t bulk_quiet_ms(const struct bulk_stream *s)
{
    return s->takes && s->asked ? world.now_ms - s->heard_ms : 0;
}

bool bulk_ready(const struct bulk *b)
{
    for (const struct bulk_stream *s = b->streams; s; s = s->next)
        if (s->n || s->state == ENDED)
            return true;
    return false;
}

size_t bulk_streams(void)
{
    size_t n = 0;
    for (const struct bulk *b = bulks; b; b = b->next)
        n += b->takes + b->gives;
    return n;
}

int bulk_next(struct bulk *b, struct bulk_event *ret)
{
    for (struct bulk_stream **at = &b->streams, *s; (s = *at); at = &s->next) {
        if (b->part->dead && s->stop)
            end(s, 0, ""); /* its threads are no more */
        if (s->n) {
            *ret = s->events[s->first];
            s->first = (s->first + 1) % EVENTS;
            s->n--;
            return 1;
        }
        if (s->state != ENDED)
            continue;
        *ret = (struct bulk_event){
            .kind = BULK_END, .ctx = s->ctx, .stream = s, .moved_b = s->moved_b, .r = s->end_r
        };
        memcpy(ret->text, s->end_text, sizeof(ret->text));
        *at = s->next;
        stream_free(s);
        return 1;
    }
    return 0;
}

void bulk_stats(struct bulk *b, struct bulk_stats *ret)
{
    *ret = (struct bulk_stats){ .takes = b->takes, .gives = b->gives };
}
