/* Inside of the scheduler: what sched.c (the step), sched_task.c, sched_sweep.c, sched_agent.c and sched_grant.c share. */
#pragma once
#include "coordinator/sched.h"

/* sched_task.c: actions */
void *sched_grown(void *v, size_t n, size_t *room, size_t size);
int sched_act(struct sched_actions *o, enum sched_action_type type, struct sched_action **ret);
int sched_act_span(struct sched_actions *o, struct sched_action *a, uint64_t lo, uint64_t hi);
int sched_act_ref(struct sched_actions *o, struct sched_action *a, const struct sched_ref *ref);

/* sched_task.c: tasks */
void sched_move(struct sched *s, struct sched_task *t, enum task_move m);
void sched_join(struct sched_task *t, struct sched_agent *a);
void sched_leave(struct sched_task *t);
struct sched_past *
sched_past(struct sched_task *t); /* made when it has none; NULL without memory */
/* What a restart must know of a task: to the store. news: it was put into quarantine just now. */
int sched_note(struct sched_task *t, bool news, struct sched_actions *out);
/* Out of quarantine, with a clean record. */
int sched_free_quarantine(struct sched *s, struct sched_task *t, struct sched_actions *out);
/* This boot of an agent is alive after all: nobody killed it. */
int sched_revive(struct sched *s, const struct sched_agent *a, struct sched_actions *out);
bool sched_same(const struct sched_task *t, uint64_t epoch, uint64_t n);
int sched_new_task(struct sched *s, enum task_kind kind, struct sched_sweep *w,
                   struct sched_trace *tr, uint64_t num, struct sched_task **ret);
/* One without a place yet: the caller puts it into the list of its job. */
int sched_bare_task(struct sched *s, enum task_kind kind, uint64_t num, struct sched_task **ret);
void sched_free_task(struct sched_task *t);
extern const struct sched_needs sched_no_needs;
/* n_kills has changed: the list of suspects follows. */
void sched_suspect(struct sched *s, struct sched_task *t);
void sched_free_trace(struct sched *s, struct sched_trace *t);
/* It leaves every table. Its points must be out of it. */
void sched_end_task(struct sched *s, struct sched_task *t);
/* The task's points leave it for good (accepted elsewhere, given up, or the sweep was cancelled); it ends. */
int sched_finish(struct sched *s, struct sched_task *t, struct sched_actions *out);
int sched_give_up(struct sched_sweep *w, const struct spans *pts, const char *text,
                  struct sched_actions *out);
/* An attempt is over without a word about it. host: as its agent fell silent, or came back without it. */
int sched_lose(struct sched *s, struct sched_task *t, const char *cause, bool host, uint64_t now,
               struct sched_actions *out);
/* Say to its agent that it is to end; also again. */
int sched_act_cancel(const struct sched_task *t, struct sched_actions *out);
int sched_stop(struct sched *s, struct sched_task *t, struct sched_actions *out);
int sched_ev_point(struct sched *s, const struct sched_event *ev, uint64_t now,
                   struct sched_actions *out);
int sched_ev_end(struct sched *s, const struct sched_event *ev, uint64_t now,
                 struct sched_actions *out, struct err *e);
int sched_ev_decline(struct sched *s, const struct sched_event *ev, uint64_t now,
                     struct sched_actions *out, struct err *e);

/* sched_sweep.c */
void sched_free_sweep(struct sched_sweep *w);
/* After anything that may have been the last: say once that a sweep is over, forget it when nothing runs for it. */
int sched_settle(struct sched *s, struct sched_sweep *w, struct sched_actions *out);
void sched_order(struct sched *s, struct sched_sweep *w);
void sched_charge(struct sched_sweep *w, uint64_t us);
int sched_ev_sweep(struct sched *s, const struct sched_event *ev, struct sched_actions *out,
                   struct err *e);
int sched_cancel_sweep(struct sched *s, struct sched_sweep *w, struct sched_actions *out);
int sched_cancel_task(struct sched *s, struct sched_task *t, struct sched_actions *out);
int sched_redo(struct sched *s, struct sched_sweep *w, const struct sched_event *ev,
               struct sched_actions *out);

/* sched_agent.c */
int sched_ev_hello(struct sched *s, const struct sched_event *ev, uint64_t now,
                   struct sched_actions *out, struct err *e);
int sched_ev_canary(struct sched *s, const struct sched_event *ev, uint64_t now,
                    struct sched_actions *out, struct err *e);
int sched_ev_beat(struct sched *s, const struct sched_event *ev, uint64_t now,
                  struct sched_actions *out, struct err *e);
int sched_ev_restore(struct sched *s, const struct sched_event *ev, uint64_t now,
                     struct sched_actions *out, struct err *e);
int sched_expire(struct sched *s, uint64_t now, struct sched_actions *out);

/* sched_job.c */
void sched_free_job(struct sched_job *j);
void sched_order_job(struct sched *s, struct sched_job *j, uint64_t priority);
int sched_ev_job(struct sched *s, const struct sched_event *ev, struct sched_actions *out,
                 struct err *e);
int sched_cancel_job(struct sched *s, struct sched_job *j, struct sched_actions *out);
int sched_cancel_job_task(struct sched *s, struct sched_task *t, struct sched_actions *out);
/* One task of a job is over for good: told, or (text NULL) known already. */
int sched_job_over(struct sched *s, struct sched_task *t, const char *text, bool cancelled,
                   struct sched_actions *out);
/* An attempt of one is over without success. count: it was the task's own fault. */
int sched_job_again(struct sched *s, struct sched_task *t, bool count, const char *text,
                    uint64_t now, struct sched_actions *out);
void sched_job_soon(struct sched_task *t); /* its back-off was set */
int sched_grant_jobs(struct sched *s, uint64_t now, struct sched_actions *out);
/* Agents that an exclusive task has to itself take nothing else in this round. */
void sched_reserve_agents(struct sched *s);
/* Grant the task to the best agent that has room for it. Nobody has, and it must be alone: one is kept free of other work.
 * 1 = granted, 0 = it must wait. ready_only: of those that can collect, only prepared ones. */
int sched_place(struct sched *s, struct sched_task *t, bool ready_only, uint64_t now,
                struct sched_actions *out);

/* sched_grant.c */
bool sched_takes(const struct sched_agent *a, uint64_t now);
bool sched_better_elsewhere(const struct sched *s, const struct sched_task *t,
                            const struct sched_agent *a, uint64_t now);
int sched_grant(struct sched *s, struct sched_task *t, struct sched_agent *a, uint64_t now,
                struct sched_actions *out);
int sched_dispatch(struct sched *s, uint64_t now, struct sched_actions *out);

/* sched.c: tables */
uint64_t sched_key(const void *id); /* ids are hashes, installs are random: any eight bytes serve */
struct sched_trace *sched_find_trace(const struct sched *s, const struct id *key);
