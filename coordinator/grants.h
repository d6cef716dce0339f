/* Grants of a turn: stored with what must be known of them, and what goes out when that is durable. */
#pragma once
#include "coordinator/hub.h"

/* A block on its way out. */
struct sending {
    uint64_t task, epoch, n;
    uint64_t peer;
    struct sched_agent *agent;
    bool nothing; /* all of it was known or invalid */
    struct msg msg;
    uint8_t *spec; /* owned */
};

struct granted {
    struct sending *v;
    size_t n, room;
    struct sched_event *points; /* for after the commit */
    size_t n_points, room_points;
};

/* Store one ACT_GRANT; what is to be sent, and points that need no agent, are added to *turn. 0 or an error. */
int grant_store(struct hub *h, const struct sched_action *a, struct granted *turn, struct err *e);
void granted_clear(struct granted *t);
