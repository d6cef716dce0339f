/* What an agent does with its tasks: a pure machine, (state, event, now) -> actions.
 *
 * No I/O, no clock, no allocation, no log line: the same code runs in the agent and in a simulated cluster. Messages
 * may be lost, doubled and late; the child processes may end at any time; the coordinator may be away for hours.
 *
 * A task's states, and what moves it (tests check each move against this table, core_move_ok()):
 *
 *     fetch ──ready──▶ wait ──cores──▶ run ──ended──▶ [make ──made──▶] ended ──acknowledged──▶ gone
 *       │               │               └─cancel, drain─▶ stop ─ended─▶ ended, or gone when dropped
 *       └───────────────┴── cannot, drain: declined, gone; cancel: ended; drop: gone
 *
 * make stores and offers what the task leaves: a trace; a command's output and files, however it ended; a collection's
 * logs.
 *
 * Rows are numbered by their place in the task's spool. A batch is named by seq = its first row's place + 1, so the
 * same rows have the same seq after a restart of the agent too. The end of a task is reported when all its rows
 * are acknowledged.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CORE_TASKS_MAX = 64,  /* in all; those that ended and wait for their acknowledgement included */
    CORE_POINTS_MAX = 2,  /* accepted and not ended: one runs, one waits so that nobody idles */
    CORE_TRACE_MAX = 8,   /* trace tasks likewise; as many as there are cores run */
    CORE_EXEC_MAX = 16,   /* commands; all run: the coordinator knows what a host can bear */
    CORE_COLLECT_MAX = 8, /* collections likewise */
    CORE_WINDOW = 4,      /* batches of rows of a task that wait for their acknowledgement */
    CORE_BATCH = 1024,    /* rows a batch */
    CORE_RESEND_MS = 10000,
    CORE_HELLO_MS = 5000,
    CORE_SPACE_MS = 5000, /* after a full disk: no new task for so long */
};

/* An attempt: names a task everywhere. */
struct task_key {
    uint64_t task, epoch, n;
};

enum core_kind { CORE_POINTS, CORE_TRACE, CORE_EXEC, CORE_COLLECT, CORE_KINDS };
enum core_state {
    CORE_ST_GONE,
    CORE_ST_FETCH,
    CORE_ST_WAIT,
    CORE_ST_RUN,
    CORE_ST_STOP,
    CORE_ST_MAKE,
    CORE_ST_ENDED,
    CORE_STATES
};

/* How a task ended, in the words of task_end.cause. */
enum task_cause {
    CAUSE_NONE,
    CAUSE_DONE,
    CAUSE_EXIT,
    CAUSE_SIGNAL,
    CAUSE_OOM,
    CAUSE_TIMEOUT,
    CAUSE_CANCELLED,
    CAUSE_INTEGRITY,
    CAUSE_LOST,
    CAUSE_SPACE,
    CAUSE_RECIPE, /* a trace: its logs do not hold what its recipe asks for, on any host */
};

struct core_batch {
    uint64_t first, n, sent_ms; /* n 0 = free */
};

struct core_task {
    struct task_key key;
    enum core_kind kind;
    enum core_state state;
    enum task_cause cause;                /* make: how its process ended */
    uint64_t points;                      /* that it was given */
    uint64_t rows;                        /* in its spool */
    uint64_t rows_sent;                   /* place of the next row to send */
    uint64_t rows_acked;                  /* all before this place are acknowledged */
    struct core_batch batch[CORE_WINDOW]; /* sent and not acknowledged, in order of first */
    uint64_t end_sent_ms;                 /* 0 = not sent on this connection */
    uint64_t order;                       /* of acceptance */
    bool cancel;                          /* stop: ends as cancelled */
    bool drop;                            /* stop: nobody wants to know */
    bool give_back;                       /* stop: the agent drains */
    bool
        found; /* on disk after a restart, at work: perhaps one that was to be stopped, beside others */
};

struct core {
    struct core_task t[CORE_TASKS_MAX];
    uint64_t cores;
    bool up, welcome, closed, drain, drain_hard;
    uint64_t hello_ms; /* when it was sent on this connection; 0 = not yet */
    uint64_t lease_ms, heartbeat_ms, epoch;
    uint64_t beat_ms, beat_seq, beat_acked;
    uint64_t orders;
    uint64_t no_space_until_ms;
    bool tight; /* too little space for anything new */
};

enum core_event_kind {
    CORE_UP,       /* the link is there */
    CORE_DOWN,     /* it is not: whatever was sent may be lost */
    CORE_WELCOME,  /* epoch, lease_ms, heartbeat_ms */
    CORE_BEAT_ACK, /* seq */
    CORE_GRANT,    /* key, kind, points */
    CORE_READY,    /* key: its inputs are here */
    CORE_CANNOT,   /* key, cause: inputs cannot be had, or it could not be started */
    CORE_ROWS,     /* key, rows: so many are in its spool now */
    CORE_EXITED, /* key, cause, rows: its process ended and nothing of it is left; rows is final */
    CORE_MADE,   /* key, cause: what it left is at the coordinator (done), or never will be */
    CORE_ROWS_ACK, /* key, seq */
    CORE_END_ACK,  /* key */
    CORE_CANCEL,   /* key */
    CORE_DROPPED,  /* key: not ours any more */
    CORE_DRAIN,    /* end everything; a second one: at once */
    CORE_CLOSE,    /* nothing new from now on; what is here goes on */
    CORE_SPACE,    /* rows: 1 = too little space is left for new tasks, 0 = enough */
    CORE_FACTS,    /* the host's facts changed: say hello once more */
    CORE_TICK,     /* time passed */
    CORE_ADOPT, /* key, kind, points, rows, seq = rows acknowledged, state: found on disk after a restart */
};

struct core_event {
    enum core_event_kind kind;
    struct task_key key;
    enum core_kind task_kind;
    enum core_state state;
    enum task_cause cause;
    uint64_t points, rows, seq;
    uint64_t epoch, lease_ms, heartbeat_ms;
};

enum core_action_kind {
    CORE_DO_HELLO, /* with refs of all tasks, core_refs() */
    CORE_DO_BEAT,  /* seq */
    CORE_DO_DECLINE, /* key, text; cause says whether its folder is there (not for a task that was never taken) */
    CORE_DO_ACCEPT,    /* key: make its folder, get its inputs; answer READY or CANNOT */
    CORE_DO_START,     /* key: answer CANNOT, or EXITED in the end */
    CORE_DO_STOP,      /* key, hard: ask the shim to end it, or to kill it at once */
    CORE_DO_MAKE,      /* key, cause: store and offer what it left; answer MADE */
    CORE_DO_SAVE_END,  /* key, cause: durable on return */
    CORE_DO_SEND_ROWS, /* key, seq, first, rows */
    CORE_DO_SAVE_ACK,  /* key, rows: so many need not be sent again after a restart */
    CORE_DO_SEND_END,  /* key */
    CORE_DO_REMOVE,    /* key: its folder goes */
    CORE_DO_EXIT,      /* drained */
};

struct core_action {
    enum core_action_kind kind;
    struct task_key key;
    enum task_cause cause;
    uint64_t seq, first, rows;
    bool hard;
    const char *code, *text; /* of a decline; static */
};

struct core_actions {
    struct core_action v[CORE_TASKS_MAX * (CORE_WINDOW + 4) + 8]; /* more than any step gives */
    size_t n;
};

void core_init(struct core *c, uint64_t cores);

/* One step. *out is reset first; its actions are to be done in order. now: ms, monotonic, never going back. Events of
 * unknown tasks and repeated or late ones change nothing. */
void core_step(struct core *c, const struct core_event *ev, uint64_t now_ms,
               struct core_actions *out);

/* A message could not be queued (full or link down): it will be asked for again at the next tick. */
void core_unsent(struct core *c, const struct core_action *a);

/* When the next TICK is due, ms; UINT64_MAX = none. */
uint64_t core_deadline(const struct core *c);

/* The task, or NULL. Borrowed until the next step. */
const struct core_task *core_find(const struct core *c, const struct task_key *key);

/* New tasks are welcome: what a beat says. */
bool core_accepts(const struct core *c, uint64_t now_ms);

/* State of a task as messages say it: 1 accepted, 2 running, 3 ended. */
unsigned core_ref_state(const struct core_task *t);

/* NULL, or the rule that does not hold. Called after each step in tests. */
const char *core_check(const struct core *c);
/* Whether a task may go from one state to another in one step. */
bool core_move_ok(enum core_state from, enum core_state to);

const char *task_cause_name(enum task_cause c);  /* "done", "exit", ... */
enum task_cause task_cause_parse(const char *s); /* CAUSE_NONE when unknown */
const char *core_state_name(enum core_state s);
bool task_key_eq(const struct task_key *a, const struct task_key *b);
