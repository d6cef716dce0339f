/* Inside of the fleet verbs: their option structs and run functions, one file a noun; cli_fleet.c has the tables. */
#pragma once
#include <signal.h>
#include <stdbool.h>

#include "perf/sweep.h"
#include "proto/base/opt.h"
#include "proto/client/client.h"
#include "proto/lib/cli.h"

struct sweep_opt {
    struct client_opt fleet;
    bool json, force;
    const char *request_id, *csv;
    struct opt_u64 timeout_ms;
};
int run_sweep_plan(struct cli *c, void *o, int argc, char **argv);
int run_sweep_submit(struct cli *c, void *o, int argc, char **argv);
int run_sweep_run(struct cli *c, void *o, int argc, char **argv);
int run_sweep_wait(struct cli *c, void *o, int argc, char **argv);

struct results_opt {
    struct client_opt fleet;
    bool json, csv, provenance, force;
    struct opt_multi sweep, where;
    const char *sql, *data, *from, *out;
    const char *x, *y, *series, *title;
};
int run_results_query(struct cli *c, void *o, int argc, char **argv);
int run_results_plot(struct cli *c, void *o, int argc, char **argv);

struct ls_opt {
    struct client_opt fleet;
    bool json;
    struct opt_u64 ended;
};
int run_ls(struct cli *c, void *o, int argc, char **argv);

struct control_opt {
    struct client_opt fleet;
    bool json, failed;
    const char *reason, *at;
    struct opt_u64 time;
};
int run_control(struct cli *c, void *o, int argc, char **argv);
int run_priority(struct cli *c, void *o, int argc, char **argv);
/* control(word, each of argv), and what came of it. */
int run_control_word(struct cli *c, const char *word, const struct control_opt *o, int argc,
                     char **argv);

struct why_opt {
    struct client_opt fleet;
    bool json;
};
int run_why(struct cli *c, void *o, int argc, char **argv);
struct audit_opt {
    struct client_opt fleet;
    bool json;
    const char *data;
};
int run_audit(struct cli *c, void *o, int argc, char **argv);

struct exec_opt {
    struct client_opt fleet;
    bool json, force, kvm, exclusive;
    const char *class, *out, *request_id;
    struct opt_multi host, copy, label;
    struct opt_u64 cores, memory, timeout;
};
int run_exec(struct cli *c, void *o, int argc, char **argv);

struct logs_opt {
    struct client_opt fleet;
    bool follow;
};
int run_logs(struct cli *c, void *o, int argc, char **argv);

struct repro_opt {
    struct client_opt fleet;
    bool json;
    const char *data;
};
int run_repro(struct cli *c, void *o, int argc, char **argv);

struct fsck_opt {
    bool json, repair, files_only; /* files_only: neither store nor tasks */
    const char *data;
};
int run_fsck(struct cli *c, void *o, int argc, char **argv);

struct quickstart_opt {
    bool json, offline;
    const char *out, *logs, *data;
};
int run_quickstart(struct cli *c, void *o, int argc, char **argv);

/* ---- shared */

/* Items of a siofleet.ls/1 document as a sheet: sizes and ages for people. New reference. */
json_t *items_sheet(const json_t *items);
/* log, trace or file, by its first bytes. */
const char *artefact_kind(const char *path);
/* One part of such a document: its items go to the array ctx. */
int collect_items(void *ctx, json_t *body, struct err *e);

/* SIGINT and SIGTERM set this to the signal from here on; a second one ends the process at once. */
extern volatile sig_atomic_t fleet_stop;
void fleet_signals(void);

/* Ask for results and hand over each part: over the fleet, or from the store at o->data. what: "results" or "sql". */
int results_ask(const struct results_opt *o, struct client *cl,
                int (*part)(void *ctx, json_t *body, struct err *e), void *ctx, struct err *e);

/* Load SWEEP.ini and hash what it names; its RUN.ini is read, too. */
int sweep_open(const char *path, struct sweep **ret, struct err *e);

/* The job of a sweep's [collect]: a new reference. With a client its files are uploaded, without they are only hashed. */
int sweep_collect_job(struct sweep *s, struct client *cl, json_t **ret, struct err *e);

/* Upload what an opened sweep names by path, submit it. */
int sweep_send(struct client *cl, struct sweep *s, const char *request_id,
               struct msg_submitted *ret, struct err *e);

/* Follow a sweep to its end: progress on stderr, and that no agent takes work, if so. deadline_ms 0 = none. tick (may be NULL) sees each siofleet.sweep/1
 * document; a negative return of it ends the following with that. *ret: the last document (new reference, also on failure
 * when there was one). Returns 0 when it ended (however), -ECANCELED on a signal, -ETIMEDOUT at the deadline. */
int sweep_follow(struct client *cl, const char *id, uint64_t deadline_ms,
                 int (*tick)(void *ctx, const json_t *sweep, struct err *e), void *ctx,
                 json_t **ret, struct err *e);
/* Exit status of an ended sweep: 0, 1 (some point failed), 5 (cancelled); says why on stderr, with the
 * first failed point. */
int sweep_verdict(struct client *cl, const json_t *sweep);

/* Write b to path; an existing file only with force. */
int write_out(const char *path, const struct buf *b, bool force, struct err *e);
