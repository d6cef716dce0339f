/* Inside of the coordinator's loop: what serve.c, turn.c, users.c and ask.c share.
 *
 * A turn: messages are taken and written to the store in one transaction; after its commit the scheduler learns of them
 * and the answers go out; then the scheduler's actions are stored in a second transaction, and only what is durable
 * (grants) is sent. A turn that cannot be stored changed nothing: agents send again, users are told.
 */
#pragma once
#include "coordinator/live.h"
#include "coordinator/map.h"
#include "coordinator/sched.h"
#include "coordinator/store.h"
#include "proto/cas/cas.h"
#include "proto/link/link.h"
#include "proto/xfer/drive.h"

struct coordinator_conf {
    const char *data;
    const char *const *listen; /* n_listen endpoints */
    size_t n_listen;
    const char *ready_file;                       /* NULL = none */
    uint64_t lease_ms, heartbeat_ms, store_max_b; /* 0 = no cap */
};

/* An agent that said hello to this coordinator. Lives until the end of the process: numbers of installs are few. */
struct hub_agent {
    struct store_agent info;
    uint64_t peer; /* connection; 0 = gone */
    uint64_t reg, engine;
    uint64_t last_seen_ms; /* wall */
    struct hub_agent *next;
};

/* What is owed once the turn is durable. */
struct hub_answer {
    uint64_t peer, req; /* req != 0: a user waits, also for bad news */
    struct msg msg;     /* without borrowed parts but text */
    char *text;         /* owned */
};

struct hub {
    const struct coordinator_conf *conf;
    struct link *link;
    struct store *store;
    struct cas *cas;
    struct xfers *xfers;
    struct sched sched;
    struct sched_actions out;  /* of the steps of this turn */
    struct sched_actions kept; /* not stored yet: the disk is full */
    struct hub_agent *agents;
    struct map agent_of_peer; /* connection -> hub_agent */
    struct map live;          /* seq -> live */
    struct live **lives;      /* the same, as a list */
    size_t n_lives, room_lives;
    uint64_t epoch;
    struct id engine;  /* of this program file */
    uint64_t *engines; /* numbers of engines whose results count as known */
    size_t n_engines, room_engines;
    /* this turn */
    struct hub_answer *answers;
    size_t n_answers, room_answers;
    struct sched_event *events; /* for after the commit */
    size_t n_events, room_events;
    bool failed; /* the turn cannot be stored */
    struct err why;
    bool full_told;
    uint64_t full_told_ms;
    /* counters */
    uint64_t rows, rows_late, rows_foreign;
};

/* turn.c */
void hub_event(struct hub *h,
               const struct sched_event *ev); /* to the scheduler, after the commit */
/* Owed to a peer after the commit. m's pointers must live until then: static, or `text` (copied; m.ok/refuse text). */
void hub_answer(struct hub *h, uint64_t peer, uint64_t req, const struct msg *m, const char *text);
void hub_fail(struct hub *h, const struct err *e); /* a write failed: the turn is void */
bool hub_commit(
    struct hub *h); /* end the transaction, tell the scheduler, send what is owed; false = void */
void hub_tick(struct hub *h); /* the scheduler's clock, its actions, grants */
void hub_step(struct hub *h,
              const struct sched_event *ev); /* at once: nothing durable depends on it */
bool hub_write(struct hub *h); /* opens the transaction; false when the turn has failed */
void hub_clear(struct hub *h);

/* agents.c: messages of agents */
void hub_hello(struct hub *h, const struct peer *p, const struct msg_agent_hello *m);
void hub_beat(struct hub *h, const struct peer *p, const struct msg_beat *m);
void hub_rows(struct hub *h, const struct peer *p, const struct msg_rows *m);
void hub_task_end(struct hub *h, const struct peer *p, const struct msg_task_end *m);
void hub_decline(struct hub *h, const struct peer *p, const struct msg_decline *m);
void hub_trace_here(struct hub *h, const struct id *key, const struct store_trace *tr);
/* Head of a trace file in the cas -> its row in the store. */
int hub_note_trace(struct hub *h, const struct id *id, struct store_trace *ret, struct err *e);

/* ask.c: questions of users */
void hub_ask(struct hub *h, const struct peer *p, const struct msg_ask *m);

const char *hub_sweep_state(struct hub *h, const struct store_sweep *w); /* as people see it */
const char *hub_agent_state(struct hub *h, const struct store_agent *a);
const char *hub_ended_state(const char *cause); /* of a task: "done", "cancelled", "failed" */

/* why.c: documents of two questions */
int hub_why(struct hub *h, const json_t *args, json_t **ret, struct err *e);
int hub_audit(struct hub *h, const json_t *args, const char *cursor, json_t **ret,
              char next[STORE_CURSOR], struct err *e);

/* users.c: messages of users that change something */
void hub_submit(struct hub *h, const struct peer *p, const struct msg_submit *m);
void hub_control(struct hub *h, const struct peer *p, const struct msg_control *m);
void hub_refuse(struct hub *h, uint64_t peer, uint64_t req, const struct err *e, const char *code);
/* A sweep of the store into memory and into the scheduler. */
int hub_load_sweep(struct hub *h, uint64_t seq, struct err *e);
int hub_add_live(struct hub *h, struct live *l); /* taken */
void hub_drop_live(struct hub *h, struct live *l);
int hub_look_up_traces(struct hub *h, struct live *l, struct err *e);
int hub_engine(struct hub *h, const struct id *engine, uint64_t *ret_num,
               struct err *e); /* remembered as known */
