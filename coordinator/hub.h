/* Inside of the coordinator's loop: what serve.c, turn.c, users.c and ask.c share.
 *
 * A turn: messages are taken and written to the store in one transaction; after its commit the scheduler learns of them
 * and the answers go out; then the scheduler's actions are stored in a second transaction, and only what is durable
 * (grants) is sent. A turn that cannot be stored changed nothing: agents send again, users are told.
 */
#pragma once
#include "coordinator/job.h"
#include "coordinator/live.h"
#include "coordinator/map.h"
#include "coordinator/peers.h"
#include "coordinator/refs.h"
#include "coordinator/sched.h"
#include "coordinator/store.h"
#include "proto/base/space.h"
#include "proto/base/trips.h"
#include "proto/bulk/bulk.h"
#include "proto/cas/cas.h"
#include "proto/link/link.h"
#include "proto/wire/rows.h"
#include "proto/xfer/drive.h"
#include "proto/xfer/streams.h"

struct coordinator_conf {
    const char *data;
    const char *const *listen; /* n_listen endpoints */
    size_t n_listen;
    const char *bulk;       /* where bulk connections are taken; NULL = none */
    uint64_t bulk_rate_b;   /* a second, each way; 0 = no limit */
    const char *ready_file; /* NULL = none */
    uint64_t lease_ms, heartbeat_ms, store_max_b; /* 0 = no cap */
    uint64_t high_water_b, low_water_b;           /* proto/base/space.h */
};

/* An agent that said hello to this coordinator. Lives until the end of the process: numbers of installs are few. */
struct hub_agent {
    struct store_agent info;
    uint64_t peer; /* connection; 0 = gone */
    char addr[LINK_ADDR_LEN];
    uint8_t session[16]; /* 0 = not told */
    uint64_t reg, engine;
    uint64_t last_seen_ms; /* wall */
    bool hello;            /* said, and not committed yet: the scheduler does not know */
    bool here;             /* it was on this connection before that hello, too */
    /* times that another start of the same install took over from one that was at work, since the first of them */
    unsigned taken;
    uint64_t taken_ms; /* monotonic */
    uint64_t doubt_ms; /* since then it is to show that it is not gone, monotonic; 0 = no doubt */
    uint64_t copy_told_ms;           /* a refusal for that was logged; monotonic */
    char bulk_at[LINK_ADDR_LEN + 8]; /* "HOST:PORT" where other agents reach it; "" = nowhere */
    struct {
        struct space disk; /* disk_b 0 = it does not say */
        uint64_t cache_b, reserved_b, pinned_b, cap_b;
    } space;                         /* of its last beat */
    struct trips_sum beats, results; /* likewise */
    char class_name[64];             /* of its label class=; "" = none */
    uint64_t class_rate_b;           /* that it was started with */
    struct trips cancels;            /* from a cancel until the task's end came */
    struct {
        uint64_t task; /* 0 = none runs */
        uint64_t sweep, index;
        struct id trace; /* of that point */
        unsigned tries;
        enum { CANARY_OPEN, CANARY_EQUAL, CANARY_DIFFERS } verdict;
        char alarm[160]; /* why it was drained; "" = it was not, or was undrained since */
    } canary;
    struct hub_agent *next;
};

/* What is owed once the turn is durable. */
struct hub_answer {
    uint64_t peer, req; /* req != 0: a user waits, also for bad news */
    struct msg msg;     /* without borrowed parts but text */
    char *text;         /* owned */
    bool late;          /* not before what the scheduler makes of it is stored, too */
};

/* A user who waits for what a task on an agent has written. */
struct hub_wait {
    uint64_t req; /* of log_get; 0 = free */
    uint64_t peer, user_req, agent_peer, until_ms;
    json_t *doc; /* the answer but for the data; owned */
};
enum { HUB_WAITS = 128 };

struct hub {
    const struct coordinator_conf *conf;
    struct link *link;
    struct store *store;
    struct cas *cas;
    struct xfers *xfers;
    struct streams *streams; /* logs that come while they are written */
    struct bulk *bulk;       /* NULL = none */
    struct peers *peers;     /* who has what; NULL without bulk */
    struct map features;     /* connection -> what it said that it can do, not 0 */
    struct xfer_store plain; /* over cas */
    struct sched sched;
    struct sched_actions out;  /* of the steps of this turn */
    struct sched_actions kept; /* not stored yet: the disk is full */
    struct hub_agent *agents;
    struct map agent_of_peer;                   /* connection -> hub_agent */
    struct map agent_of_install, agent_of_name; /* hashes of them -> hub_agent */
    struct map live;                            /* seq -> live */
    struct live **lives;                        /* the same, as a list */
    size_t n_lives, room_lives;
    struct map jobs; /* seq -> job */
    struct {         /* jobs of the store that are not here yet */
        struct hub_rest_job {
            uint64_t seq, priority;
            unsigned tries;
        } * job; /* in the order in which they come; from at on */
        size_t n, at, room;
        struct map absent; /* seq -> this hub */
        uint64_t next_ms;  /* not before; monotonic */
    } rest;
    bool jobs_over; /* since the last look at the sweeps that wait for one */
    struct hub_wait waits[HUB_WAITS];
    uint64_t log_reqs;
    uint64_t epoch;
    struct id engine;  /* of this program file */
    uint64_t *engines; /* numbers of engines whose results count as known */
    size_t n_engines, room_engines;
    /* this turn */
    struct hub_answer *answers;
    size_t n_answers, room_answers;
    struct sched_event *events; /* for after the commit */
    size_t n_events, room_events;
    uint64_t turn_ms; /* how long messages are taken before they are made durable */
    uint64_t tick_ms; /* the scheduler's clock rests until then; monotonic */
    bool failed;      /* the turn cannot be stored */
    struct err why;
    struct space space; /* of the store's disk */
    uint64_t space_ms;  /* the next look */
    bool at_cap;        /* --store-max */
    bool full_told;
    uint64_t full_told_ms, tried_ms;
    uint64_t drain_ms; /* monotonic: when to look at agents' maintenances again */
    /* artefacts that the store names and that are not here, or are damaged */
    struct hub_want *wants;
    size_t n_wants, room_wants;
    struct id spoiled
        [32]; /* what agents have made and cannot give whole; the newest take the place of the oldest */
    size_t n_spoiled;
    struct id suspect[64]; /* to be hashed, one a turn */
    size_t n_suspects;
    uint64_t mend_ms;    /* not before */
    unsigned mend_reads; /* of the suspect looked at, that failed */
    struct refs refs;    /* of a listing in pages */
    struct hub_gc *gc;   /* NULL = none at work */
    /* counters */
    uint64_t rows, rows_late, rows_foreign;
};

/* turn.c */
/* v with room for one more than n: itself, a larger one, or NULL (no memory; v is as it was). */
void *hub_grown(void *v, size_t n, size_t *room, size_t size);
/* To the scheduler, after the commit. refs of an EV_HELLO: taken. */
void hub_event(struct hub *h, const struct sched_event *ev);
/* Owed to a peer after the commit. m's pointers must live until then: static, or `text` (copied; m.ok/refuse text). */
void hub_answer(struct hub *h, uint64_t peer, uint64_t req, const struct msg *m, const char *text);
/* The same, for what only the scheduler's actions make durable: sent at the end of the next hub_tick(). */
void hub_answer_late(struct hub *h, uint64_t peer, uint64_t req, const struct msg *m,
                     const char *text);
void hub_fail(struct hub *h, const struct err *e); /* a write failed: the turn is void */
bool hub_commit(
    struct hub *h); /* end the transaction, tell the scheduler, send what is owed; false = void */
void hub_tick(struct hub *h); /* the scheduler's clock, its actions, grants */
void hub_step(struct hub *h,
              const struct sched_event *ev); /* at once: nothing durable depends on it */
bool hub_write(struct hub *h); /* opens the transaction; false when the turn has failed */
void hub_clear(struct hub *h);

/* restore.c: a start */
/* Into the scheduler: all of the store but for long queues of jobs. */
int hub_restore(struct hub *h, struct err *e);
void hub_restore_some(struct hub *h); /* of the rest; once a turn */
void hub_restore_rest(struct hub *h); /* all of it: somebody asks about jobs or changes one */
void hub_restore_clear(struct hub *h);

/* agents.c: who is there */
/* NULL = not heard since the start. */
struct hub_agent *hub_agent(const struct hub *h, const uint8_t install[16]);
/* Of a message: known to the scheduler. NULL = it has not said hello on this connection, and is told to. */
struct hub_agent *hub_agent_of(struct hub *h, const struct peer *p);
/* A refusal that the agent cannot mend by itself. */
void hub_refuse_agent(struct hub *h, const struct peer *p, const char *code, const char *text);
void hub_set_peer(struct hub *h, struct hub_agent *a, uint64_t peer); /* 0 = none */
void hub_hello(struct hub *h, const struct peer *p, const struct msg_agent_hello *m);
void hub_beat(struct hub *h, const struct peer *p, const struct msg_beat *m);

/* rows.c: results. ends.c: tasks that ended, or were not taken */
void hub_rows(struct hub *h, const struct peer *p, const struct msg *m); /* rows or row_block */
void hub_task_end(struct hub *h, const struct peer *p, const struct msg_task_end *m);
void hub_decline(struct hub *h, const struct peer *p, const struct msg_decline *m);
/* Head of a trace file in the cas -> its row in the store. */
int hub_note_trace(struct hub *h, const struct id *id, struct store_trace *ret, struct err *e);

/* jobs.c: commands and collections */
void hub_submit_job(struct hub *h, const struct peer *p, const struct msg_submit_job *m);
/* Store a checked job and hand it to the scheduler after the commit. *j is taken on success. Whether the turn has
 * failed with it: h->failed. */
int hub_add_job(struct hub *h, struct job **j, const char *request_id, const char *by,
                struct store_job *ret, struct err *e);
/* One of the store into memory and into the scheduler. fresh: failures of before do not count. */
int hub_load_job(struct hub *h, uint64_t seq, bool fresh, struct err *e);
struct job *hub_job(struct hub *h, uint64_t seq);
void hub_drop_job(struct hub *h, struct job *j);
/* An agent's answer: 1 = noted, 0 = artefacts of it are still to come, or an error. *cause: as it counts. */
int hub_job_end(struct hub *h, const struct peer *p, const struct hub_agent *a,
                const struct sched_task *t, const struct msg_task_end *m, const char **cause,
                struct err *e);
int hub_job_task(struct hub *h, const struct sched_action *a, struct err *e);
int hub_job_over(struct hub *h, const struct sched_action *a, struct err *e);
int hub_control_job(struct hub *h, const char *verb, uint64_t value, const struct store_job *w,
                    char text[256], struct err *e);
int hub_ask_job(struct hub *h, const json_t *args, const char *cursor, json_t **ret,
                char next[STORE_CURSOR], struct err *e);
int hub_ls_jobs(struct hub *h, const char *cursor, json_t *items, char next[STORE_CURSOR],
                struct err *e);
int hub_ask_runs(struct hub *h, const json_t *args, json_t **ret, struct err *e);

/* after.c: sweeps that wait for their collection */
/* Store both; w: filled but for seq. Whether the turn has failed with it: h->failed. */
int hub_submit_after(struct hub *h, const struct live *l, struct store_sweep *w, const char *json,
                     const char *by, struct err *e);
/* Sweeps whose job is over go on, or end with it. At a start, and when a job has ended. */
void hub_look_after(struct hub *h);
/* The job that a sweep waits for, or waited for. -ENOENT. */
int hub_after_job(struct hub *h, uint64_t sweep, struct store_job *ret, bool *ret_bound,
                  struct err *e);

/* logs.c: what tasks write */
/* 1 = answered later, by what the agent says; 0 = *ret is the answer; or an error. */
int hub_ask_logs(struct hub *h, const struct peer *p, const struct msg_ask *m, const json_t *args,
                 json_t **ret, struct err *e);
void hub_log_data(struct hub *h, const struct peer *p, const struct msg_log_data *m);
void hub_log_tick(struct hub *h, uint64_t now_ms);
void hub_log_clear(struct hub *h);

/* The sweep of a message: one that is live, or one from the store; then *own is set and to be freed. */
struct live *hub_find_live(struct hub *h, const struct id *id, struct live **own);

/* canary.c: an agent that is new here, or has a new program, runs a known point first */
void hub_canary_begin(struct hub *h, struct hub_agent *a);
/* With its hello: an alarm that could not be stored when it was raised is stored now, and stands in info. */
int hub_canary_recall(struct hub *h, const struct hub_agent *a, struct store_agent *info,
                      struct err *e);
void hub_canary_grant(struct hub *h, const struct sched_action *act);
/* Whether the message was the canary's: then it is answered. */
bool hub_canary_rows(struct hub *h, struct hub_agent *a, const struct msg_rows *m,
                     struct rows_reader *in);
bool hub_canary_end(struct hub *h, struct hub_agent *a, const struct msg_task_end *m);
bool hub_canary_declined(struct hub *h, struct hub_agent *a, const struct msg_decline *m);

/* What the peer said that it can do, bits of enum wire_feature; 0 = nothing, or gone. */
uint64_t hub_features(const struct hub *h, uint64_t peer);

/* broker.c: artefacts go from agent to agent */
void hub_peer_hello(struct hub *h, const struct peer *p, const struct msg_agent_hello *m);
void hub_peer_holds(struct hub *h, const struct peer *p, const struct msg_holds *m);
/* A bulk_no of an agent that was to give: whoever waits for it asks again. */
void hub_peer_no(struct hub *h, const struct peer *p, const struct msg_bulk_no *m);
void hub_peer_gone(struct hub *h, uint64_t peer);
int hub_broker(void *ctx, uint64_t peer, const struct msg_bulk_ask *m); /* as xfers_ops.broker */

/* classes.c: what an agent says of its class, and what that makes of the rate of all that are connected: the least of theirs */
void hub_class_hello(struct hub *h, const struct peer *p, const struct msg_agent_hello *m);
void hub_class_gone(struct hub *h, const struct hub_agent *a); /* its peer is 0 */
const char *hub_class_of(void *ctx, uint64_t peer);            /* as xfers_ops.class_of */

/* mend.c: what is damaged or missing comes back from an agent that has it */
int hub_mend_start(struct hub *h, struct err *e);     /* looks for what is missing */
void hub_suspect(struct hub *h, const struct id *id); /* somebody got damaged bytes of it */
void hub_missing(struct hub *h, const struct id *id); /* its files are gone */
/* An agent could not give it: damaged there, or gone. Asked about once: what made it is then to be made again. */
void hub_spoil(struct hub *h, const struct id *id);
bool hub_spoiled(struct hub *h, const struct id *id);
void hub_mend(struct hub *h); /* once a turn: what is due */
/* A fetch ended; ok = it is here again. Returns whether it was one of these. */
bool hub_mended(struct hub *h, const struct id *id, uint64_t peer, bool ok);
void hub_unwant(struct hub *h, const struct id *id); /* it was removed on purpose */
void hub_mend_clear(struct hub *h);

/* space.c: a disk that gets full. Below the high-water mark, or at --store-max, nothing new is taken; below the low-water
 * mark nothing is granted; rows of what runs are still stored. */
void hub_look_at_space(struct hub *h); /* once a turn */
/* 0, or -ENOSPC: new work, or size_b more bytes of it, are not taken now. */
int hub_admit(const struct hub *h, uint64_t size_b, struct err *e);
/* The same for an artefact: what an earlier put of it holds is counted already. */
int hub_admit_put(const struct hub *h, const struct id *id, uint64_t size_b, struct err *e);
/* Why nothing is admitted or granted; "" = nothing speaks against it. Returns out. */
char *hub_space_why(const struct hub *h, char out[200]);
void hub_agent_space(struct hub_agent *a, const struct msg_beat *m);

/* answers.c: how soon messages are answered; what the last beat said of it, and ends after a cancel */
void hub_agent_trips(struct hub_agent *a, const struct msg_beat *m);
/* {beat,result,cancel}, each {n,p50_ms,p99_ms,max_ms} or null. a may be NULL. */
json_t *hub_agent_answers(const struct hub_agent *a);

/* artefacts.c: questions about artefacts, and the removal of those that nothing needs */
int hub_store_ls(struct hub *h, const char *cursor, json_t **ret, char next[STORE_CURSOR],
                 struct err *e);
int hub_store_df(struct hub *h, json_t **ret, struct err *e);
int hub_store_gc(struct hub *h, const json_t *args, const char *cursor, json_t **ret,
                 char next[STORE_CURSOR], struct err *e);
int hub_store_verify(struct hub *h, const json_t *args, const char *cursor, json_t **ret,
                     char next[STORE_CURSOR], struct err *e);
/* target: "older=MS,rebuildable=0|1,provenance=0|1". Answered by a later hub_gc_step(). */
int hub_gc_begin(struct hub *h, const struct peer *p, uint64_t req, const char *target,
                 struct err *e);
void hub_gc_step(struct hub *h); /* once a turn */
void hub_gc_clear(struct hub *h);
int hub_pin(struct hub *h, const char *text, bool pinned, char ret_text[256], struct err *e);

/* ask.c: questions of users */
void hub_ask(struct hub *h, const struct peer *p, const struct msg_ask *m);

const char *hub_sweep_state(struct hub *h, const struct store_sweep *w); /* as people see it */
const char *hub_agent_state(struct hub *h, const struct store_agent *a);
const char *hub_job_state(struct hub *h, const struct store_job *w);
/* Whether text is the number of a task. Eight digits and more may begin an id as well: then only of one that is not over. */
bool hub_is_task(const struct hub *h, const char *text, uint64_t *ret);
const char *hub_ended_state(const char *cause); /* of a task: "done", "cancelled", "failed" */

/* why.c */
int hub_why(struct hub *h, const json_t *args, json_t **ret, struct err *e);

/* users.c: messages of users that change something */
void hub_submit(struct hub *h, const struct peer *p, const struct msg_submit *m);
/* Maintenances that begin and end by themselves. Once a turn. */
void hub_drain_due(struct hub *h);
uint64_t
hub_drain_at(const struct store_agent *a); /* monotonic: its planned maintenance; 0 = none */
sched_name_fn hub_agent_name;              /* for people, also of one that has not said hello yet */
void hub_control(struct hub *h, const struct peer *p, const struct msg_control *m);
void hub_refuse(struct hub *h, uint64_t peer, uint64_t req, const struct err *e, const char *code);
/* End the transaction in the middle of a turn, so that what follows may tell the scheduler, and open the next one. */
int hub_commit_now(struct hub *h, struct err *e);
/* A sweep of the store into memory and into the scheduler. */
int hub_load_sweep(struct hub *h, uint64_t seq, struct err *e);
void hub_drop_live(struct hub *h, struct live *l);
int hub_look_up_traces(struct hub *h, struct live *l, struct err *e);
int hub_engine(struct hub *h, const struct id *engine, uint64_t *ret_num,
               struct err *e); /* remembered as known */
