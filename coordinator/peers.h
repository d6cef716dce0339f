/* Who has which artefact, and who gets it from whom: so that one copy leaves the coordinator and not one a host.
 *
 * An agent that fetches an artefact gives the chunks that it has to the next one while it still fetches the rest. So
 * agents that want the same artefact at the same time form a chain behind the coordinator, and all have it little later
 * than the first: each host's link carries the artefact once in and once out. Agents that have all of it serve
 * PEERS_SERVE at a time; one that is still fetching serves one. An agent that has failed somebody is not named to it
 * again for that artefact; one whose bytes were damaged is named to nobody until it has it anew.
 *
 * Pure: no I/O, no clock. What is forgotten (a new connection, a full table) costs a copy from the coordinator.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/lib/hash.h"

enum {
    PEERS_HELD = 65536,      /* (agent, artefact) pairs that are remembered in all */
    PEERS_HELD_AGENT = 4096, /* and of one agent */
    PEERS_SERVE = 2,         /* fetchers of one artefact at one agent that has all of it */
    PEERS_LOAD = 8,          /* fetchers of any artefacts at one agent */
    PEERS_DEPTH = 32,        /* agents between the coordinator and a fetcher */
};

struct peers;
struct peers *peers_new(void); /* NULL without memory */
void peers_free(struct peers **p);

/* agent: any number other than 0 that stands for one connection of it. */

/* It can be reached by others: only then it is named to them. */
void peers_serves(struct peers *p, uint64_t agent, bool can);
/* It has all of id, or has it no more. */
void peers_has(struct peers *p, uint64_t agent, const struct id *id);
void peers_lost(struct peers *p, uint64_t agent, const struct id *id);
/* What it has is told anew: that which it does not fetch is forgotten. */
void peers_anew(struct peers *p, uint64_t agent);
/* Its connection is closed. Who fetches from it finds out by itself. */
void peers_gone(struct peers *p, uint64_t agent);

/* agent wants id: from whom? Another agent, or 0 for the coordinator. It counts as fetching from there until
 * peers_idle(), peers_has(), peers_gone() or its next question, which an agent asks when its source did not answer.
 *
 * failed   the source that it had and that failed it, 0 = none
 * damaged  ... with bytes that were not those of the artefact
 * direct   it has been failed often: from the coordinator
 */
uint64_t peers_ask(struct peers *p, uint64_t agent, const struct id *id, uint64_t failed,
                   bool damaged, bool direct);
/* From whom agent fetches id now; 0 = the coordinator, or it does not fetch it. */
uint64_t peers_source(const struct peers *p, uint64_t agent, const struct id *id);
/* Who fetches id from agent now: up to PEERS_SERVE of them. */
size_t peers_children(const struct peers *p, uint64_t agent, const struct id *id,
                      uint64_t ret[PEERS_SERVE]);
/* It has no task, so it fetches nothing: its task was cancelled or ended without what it fetched. O(1) when it fetched nothing. */
void peers_idle(struct peers *p, uint64_t agent);

/* NULL, or which rule does not hold (tests call it after each step). */
const char *peers_check(const struct peers *p);
size_t peers_held(const struct peers *p); /* pairs remembered */
