/* The rules of what is moved: artefacts between agents, users and the coordinator, and logs that leave while they grow.
 *
 *   - what an agent says it has is whole, and its bytes are right;
 *   - a chunk comes to a host twice only with a reason: something happened there, at the other end, or between them;
 *   - bytes of a stream that the coordinator called durable stay so, whatever happens to it; only what was called so is
 *     freed; a stream that is over is an artefact that is acknowledged;
 *   - in the end nothing is under way.
 */
#include <stdio.h>
#include <string.h>

#include "proto/lib/hash.h"
#include "proto/wire/msg.h"
#include "proto/xfer/drive.h"
#include "tests/sim/sim.h"

enum { FETCHES = 2048, CHUNKS = 12, STREAMS = 128, BEFORE_MS = 20000 };

/* An artefact that comes to a host. */
struct fetch {
    struct id id;
    unsigned to, from[CHUNKS]; /* host + 1; of from the last ones */
    uint64_t ms[CHUNKS];
};

struct grown {
    struct id stream, id;
    unsigned from;
    uint64_t durable_b;
    bool ended, dropped, over; /* over: the coordinator said that it has all of it */
};

static struct {
    struct fetch fetch[FETCHES];
    struct grown grown[STREAMS];
    unsigned n_grown;
    uint64_t reason_ms[HOSTS_MAX];
    bool rots[HOSTS_MAX];
    const struct part *xfers_of[HOSTS_MAX];
    const struct xfers *xfers[HOSTS_MAX];
} move;

static struct move_stats own_stats;
struct move_stats *move_stats = &own_stats;

void check_move_begin(void)
{
    memset(&move, 0, sizeof(move));
}

void check_reason(unsigned host, uint64_t until_ms)
{
    if (until_ms > move.reason_ms[host])
        move.reason_ms[host] = until_ms;
}

void check_rots(unsigned host)
{
    move.rots[host] = true;
}

static struct fetch *find(unsigned host, const struct id *id)
{
    size_t at;
    memcpy(&at, id->b, sizeof(at));
    for (size_t i = 0; i < FETCHES; i++) {
        struct fetch *f = &move.fetch[(at + host + i) % FETCHES];
        if (!f->to || (f->to == host + 1 && id_eq(&f->id, id))) {
            f->to = host + 1;
            f->id = *id;
            return f;
        }
    }
    return NULL;
}

/* /sim/HOST/data/.../ID: what was there of it must come again. */
void check_gone(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    struct id id;
    char hex[ID_HEX_LEN];
    if (strspn(name, "0123456789abcdef") != ID_HEX_LEN - 1 || name[ID_HEX_LEN - 1])
        return;
    snprintf(hex, sizeof(hex), "%s", name);
    for (unsigned h = 0; h < world.n_hosts && id_parse(hex, &id, NULL) == 0; h++) {
        size_t n = strlen(world.host[h].name);
        struct fetch *f = NULL;
        if (!strncmp(path + 5, world.host[h].name, n) && path[5 + n] == '/')
            f = find(h, &id);
        if (f)
            memset(f->ms, 0, sizeof(f->ms));
    }
}

static bool reason(unsigned host, uint64_t since_ms)
{
    return move.rots[host] ||
           (move.reason_ms[host] && move.reason_ms[host] + BEFORE_MS >= since_ms);
}

void check_chunk(unsigned from, unsigned to, const struct id *id, uint64_t index, bool bulk)
{
    struct fetch *f = index < CHUNKS ? find(to, id) : NULL;
    move_stats->chunks++;
    move_stats->bulk += bulk;
    move_stats->peer += from >= FIRST_AGENT_HOST && to >= FIRST_AGENT_HOST;
    if (!f)
        return;
    if (f->ms[index]) {
        uint64_t since = f->ms[index];
        char hex[ID_HEX_LEN];
        id_hex(id, hex);
        move_stats->again++;
        if (!reason(to, since) && !reason(from, since) && !reason(f->from[index], since))
            sim_fail("chunk %llu of %.8s came to %s at %llu ms from %s and comes again from %s "
                     "without a reason",
                     (unsigned long long)index, hex, world.host[to].name, (unsigned long long)since,
                     world.host[f->from[index]].name, world.host[from].name);
    }
    f->ms[index] = world.now_ms ? world.now_ms : 1;
    f->from[index] = from;
}

/* ---- streams */

static struct grown *grown(unsigned agent, const struct id *stream)
{
    for (unsigned i = 0; i < move.n_grown; i++)
        if (move.grown[i].from == agent && id_eq(&move.grown[i].stream, stream))
            return &move.grown[i];
    if (move.n_grown == STREAMS)
        return NULL;
    move.grown[move.n_grown] = (struct grown){ .stream = *stream, .from = agent };
    return &move.grown[move.n_grown++];
}

static void check_freed(const struct grown *g, uint64_t freed_b)
{
    if (freed_b > g->durable_b)
        sim_fail("%s has freed %llu bytes of a log of which %llu are durable",
                 world.host[g->from].name, (unsigned long long)freed_b,
                 (unsigned long long)g->durable_b);
}

static void check_at(struct grown *g, uint64_t durable_b)
{
    if (g->over)
        return; /* it is an artefact; an open that was doubled on its way comes too late */
    if (durable_b < g->durable_b && !g->dropped && !move.rots[COORDINATOR_HOST])
        sim_fail("%llu bytes of a log of %s were durable at the coordinator, and now %llu are",
                 (unsigned long long)g->durable_b, world.host[g->from].name,
                 (unsigned long long)durable_b);
    if (durable_b > g->durable_b)
        g->durable_b = durable_b;
}

static void check_over(struct grown *g, const struct msg_stream_over *m)
{
    if (!*m->code) {
        char hex[ID_HEX_LEN];
        g->over = true;
        id_hex(&g->id, hex);
        move_stats->streams++;
        check_have(&g->id);
        if (move.rots[COORDINATOR_HOST]) /* perhaps in the file that it was then */
            check_rotten(COORDINATOR_HOST, hex);
    } else if (!g->dropped && !move.rots[COORDINATOR_HOST] && !move.rots[g->from]) {
        sim_fail("a log of %s is refused: %s", world.host[g->from].name, m->text ? m->text : "");
    }
}

/* ---- */

static void check_holds(unsigned agent, const struct msg_holds *m)
{
    struct part *p = world.cur; /* whose disk's faults are not for us */
    world.cur = NULL;
    for (size_t i = 0; i < m->n_has && !move.rots[agent]; i++)
        check_artefact(agent, &m->has[i].id, "said to be at an agent");
    world.cur = p;
}

void check_message(unsigned from, unsigned to, const struct msg *m)
{
    struct grown *g;
    switch (m->type) {
    case M_HOLDS:
        check_holds(from, &m->holds);
        break;
    case M_STREAM_OPEN:
        if ((g = grown(from, &m->stream_open.stream)))
            check_freed(g, m->stream_open.freed_b);
        break;
    case M_STREAM_END:
        if ((g = grown(from, &m->stream_end.stream))) {
            check_freed(g, m->stream_end.freed_b);
            g->id = m->stream_end.id;
            g->ended = true;
        }
        break;
    case M_STREAM_DROP:
        if ((g = grown(from, &m->stream_drop.stream)))
            g->dropped = true;
        break;
    case M_STREAM_AT:
        if ((g = grown(to, &m->stream_at.stream)))
            check_at(g, m->stream_at.durable_b);
        break;
    case M_STREAM_OVER:
        if ((g = grown(to, &m->stream_over.stream)))
            check_over(g, &m->stream_over);
        break;
    default:
        break;
    }
}

/* ---- the end */

int64_t __real_xfers_tick(struct xfers *x, uint64_t now_ms);
int64_t __wrap_xfers_tick(struct xfers *x, uint64_t now_ms);
int64_t __wrap_xfers_tick(struct xfers *x, uint64_t now_ms)
{
    unsigned h = world.cur->host;
    if (world.host[h].main == world.cur) {
        move.xfers[h] = x;
        move.xfers_of[h] = world.cur;
    }
    return __real_xfers_tick(x, now_ms);
}

bool check_moves_over(char why[200])
{
    for (unsigned h = 0; h < world.n_hosts; h++) {
        size_t n = move.xfers[h] && move.xfers_of[h] == world.host[h].main
                       ? xfers_running(move.xfers[h])
                       : 0;
        if (n) {
            snprintf(why, 200, "%s still fetches %zu artefacts", world.host[h].name, n);
            return false;
        }
    }
    size_t n = bulk_streams();
    if (n)
        snprintf(why, 200, "%zu ends of bulk connections are open", n);
    return !n;
}
