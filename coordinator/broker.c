/* Agents give artefacts to each other: who tells what it has, who is sent to whom (peers.h decides), and what becomes of
 * it. The coordinator makes the tickets and hands them to both ends; it gives an artefact itself to users, to those whom
 * other agents have failed twice, and wherever nobody else has it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/log.h"

enum { BROKEN_MAX = 2, TRIES = 3, AGAIN_MS = 1 };

static struct hub_agent *agent_of(const struct hub *h, uint64_t peer)
{
    return map_get(&h->agent_of_peer, peer);
}

uint64_t hub_features(const struct hub *h, uint64_t peer)
{
    return (uint64_t)(uintptr_t)map_get(&h->features, peer);
}

static const char *name_of(const struct hub *h, uint64_t peer)
{
    const struct hub_agent *a = agent_of(h, peer);
    return a ? a->info.name : "?";
}

void hub_peer_hello(struct hub *h, const struct peer *p, const struct msg_agent_hello *m)
{
    struct hub_agent *a = agent_of(h, p->id);
    const char *colon = strrchr(p->addr, ':');
    if (!a || !h->bulk || !h->peers)
        return;
    a->bulk_at[0] = '\0';
    if (m->bulk_port && colon && m->features & WIRE_BULK)
        snprintf(a->bulk_at, sizeof(a->bulk_at), "%.*s:%u", (int)(colon - p->addr), p->addr,
                 (unsigned)m->bulk_port);
    peers_serves(h->peers, p->id, a->bulk_at[0] != '\0');
}

void hub_peer_holds(struct hub *h, const struct peer *p, const struct msg_holds *m)
{
    if (!h->peers || !agent_of(h, p->id))
        return;
    if (m->all)
        peers_anew(h->peers, p->id);
    for (size_t i = 0; i < m->n_gone; i++)
        peers_lost(h->peers, p->id, &m->gone[i].id);
    for (size_t i = 0; i < m->n_has; i++)
        peers_has(h->peers, p->id, &m->has[i].id);
}

/* Both ends of a connection, the one that is called first. */
static int send_tickets(struct hub *h, uint64_t from, uint64_t to, const struct msg_bulk_ask *m)
{
    struct bulk_ticket t;
    const struct hub_agent *a = agent_of(h, from);
    if (!a || !a->bulk_at[0])
        return -EHOSTUNREACH;
    bulk_ticket_new(&t, &m->id, bulk_features() & hub_features(h, from) & hub_features(h, to));
    struct msg give = bulk_ticket_msg(&t, 0, true, NULL);
    struct msg take = bulk_ticket_msg(&t, m->req, false, a->bulk_at);
    int r = link_send(h->link, from, &give, NULL);
    return r < 0 ? r : link_send(h->link, to, &take, NULL);
}

int hub_broker(void *ctx, uint64_t peer, const struct msg_bulk_ask *m)
{
    struct hub *h = ctx;
    char hex[ID_HEX_LEN];
    if (!h->peers || !agent_of(h, peer) || !(hub_features(h, peer) & WIRE_PEERS))
        return 0;
    id_hex(&m->id, hex);
    uint64_t failed = m->broken ? peers_source(h->peers, peer, &m->id) : 0;
    if (failed)
        log_warn("agent '%s' did not get artefact %.16s from agent '%s': %s", name_of(h, peer), hex,
                 name_of(h, failed),
                 m->damaged ? "its bytes are damaged; nobody is sent to it again for this one"
                            : "no answer, or too slow");
    for (int i = 0; i < TRIES; i++) {
        uint64_t from = peers_ask(h->peers, peer, &m->id, failed, i == 0 && failed && m->damaged,
                                  m->broken >= BROKEN_MAX);
        if (!from) {
            log_info("agent '%s' gets artefact %.16s from here", name_of(h, peer), hex);
            return 0;
        }
        if (send_tickets(h, from, peer, m) >= 0) {
            log_info("agent '%s' gets artefact %.16s from agent '%s'", name_of(h, peer), hex,
                     name_of(h, from));
            return 1;
        }
        failed = from;
    }
    return 0;
}

void hub_peer_no(struct hub *h, const struct peer *p, const struct msg_bulk_no *m)
{
    uint64_t to[PEERS_SERVE];
    if (!h->peers || !m->gives || !agent_of(h, p->id))
        return;
    size_t n = peers_children(h->peers, p->id, &m->id, to);
    for (size_t i = 0; i < n; i++) {
        struct msg no = { .type = M_BULK_NO,
                          .bulk_no = { .id = m->id, .wait_ms = AGAIN_MS, .text = "not there" } };
        link_send(h->link, to[i], &no, NULL);
    }
    if (n && !m->wait_ms)
        peers_lost(h->peers, p->id, &m->id);
}

void hub_peer_gone(struct hub *h, uint64_t peer)
{
    if (h->peers)
        peers_gone(h->peers, peer);
}
