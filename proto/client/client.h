/* What a command that talks to a fleet uses: find the coordinator, say hello, ask, wait with a
 * deadline, move files.
 *
 * Settings: the option, else the environment (SIOFLEET_CONNECT, SIOFLEET_SERVER_KEY, SIOFLEET_KEY),
 * else
 * ~/.config/siofleet/client.ini (keys connect, server_key, key; paths relative to it).
 * Errors: -SF_ENOFLEET nobody answers, -SF_EREFUSED key, role or protocol refused (exit 3 both),
 * -ECANCELED *stop was set, -ETIMEDOUT the deadline passed after the hello. What the coordinator
 * refuses comes with its text, and with the code that gives the exit status it named. One thread;
 * one call at a time.
 */
#pragma once
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/base/opt.h"
#include "proto/lib/hash.h"
#include "proto/lib/json.h"
#include "proto/wire/msg.h"

/* Options of every fleet verb. Put `struct client_opt fleet;` in the verb's option struct T and
 * CLIENT_OPTS(T, fleet) in its table. */
struct client_opt {
    const char *connect, *server_key, *key; /* borrowed */
};
#define CLIENT_OPTS(T, m)                                                                          \
    { .name = "connect",                                                                           \
      .arg = "EP",                                                                                 \
      .help = "coordinator, tcp://HOST:PORT (SIOFLEET_CONNECT)",                                   \
      .kind = OPT_STR,                                                                             \
      .off = offsetof(T, m.connect) },                                                             \
        { .name = "server-key",                                                                    \
          .arg = "FILE",                                                                           \
          .help = "its public key (SIOFLEET_SERVER_KEY)",                                          \
          .kind = OPT_STR,                                                                         \
          .off = offsetof(T, m.server_key) },                                                      \
    {                                                                                              \
        .name = "key", .arg = "FILE", .help = "your secret key (SIOFLEET_KEY)", .kind = OPT_STR,   \
        .off = offsetof(T, m.key)                                                                  \
    }

enum { CLIENT_CONNECT_MS = 5000, CLIENT_CALL_MS = 60000 };

struct client;

/* Find, connect, hello. stop: borrowed, may be NULL; checked at least every 100 ms and after each
 * signal. connect_ms 0 = CLIENT_CONNECT_MS. */
int client_open(const struct client_opt *o, unsigned connect_ms, const volatile sig_atomic_t *stop,
                struct client **ret, struct err *e);
void client_free(struct client **c);

/* Send q (its req is filled in here) and wait for the answer with that req into *ret (msg_clear()
 * it). A `refuse` is an error. When the connection breaks the question is asked again on the next
 * one: every question of a user can be repeated (submit has its request id). timeout_ms 0 =
 * CLIENT_CALL_MS. */
int client_call(struct client *c, struct msg *q, unsigned timeout_ms, struct msg *ret,
                struct err *e);

/* Short name of the last refusal ("NO_SPACE"), "" when there was none. Borrowed. */
const char *client_refusal(const struct client *c);

/* An `ask`, all parts. part gets each body, parsed (borrowed); a negative return of it ends the ask
 * with that. args: borrowed, NULL = {}. */
int client_ask(struct client *c, const char *what, const json_t *args,
               int (*part)(void *ctx, json_t *body, struct err *e), void *ctx, struct err *e);
/* One whole document: the only part. *ret is a new reference. -SF_EFORMAT when there are several.
 */
int client_ask_one(struct client *c, const char *what, const json_t *args, json_t **ret,
                   struct err *e);

/* control(verb, target), with what the verb takes besides; text "" and value 0 = nothing. */
int client_control_with(struct client *c, const char *verb, const char *target, const char *text,
                        uint64_t value, char *ret_text, struct err *e);
/* control(verb, target). ret_text: at least 1001 bytes or NULL. */
int client_control(struct client *c, const char *verb, const char *target, char *ret_text,
                   struct err *e);

/* submit. request_id may be NULL. sweep: sweep_json() text. */
int client_submit(struct client *c, const char *request_id, const void *sweep, size_t n,
                  struct msg_submitted *ret, struct err *e);

/* submit_job: ret->sweep is the job's id, points the number of its tasks. */
int client_submit_job(struct client *c, const char *request_id, const void *job, size_t n,
                      struct msg_submitted *ret, struct err *e);

/* Hash the file, offer it, send what is missing; returns when it is durable at the coordinator.
 * kind: log, trace, file. moved may be NULL. */
int client_put(struct client *c, const char *path, const char *kind, const char *name,
               struct id *ret_id, uint64_t *ret_size,
               void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx,
               struct err *e);

/* The same of several at once, at most CLIENT_PUTS_MAX: of small ones most of the time is waiting for the coordinator's disk, and
 * they wait together. moved: only called when there is one. An error is that of one of them; those that are `sent` are durable all
 * the same. */
enum { CLIENT_PUTS_MAX = 16 };
struct client_file {
    const char *path, *kind, *name; /* borrowed */
    struct id id;                   /* out, with size_b: when sent */
    uint64_t size_b;
    bool sent;
};
int client_puts(struct client *c, struct client_file file[], size_t n,
                void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx,
                struct err *e);

/* Fetch an artefact into path (temp, fsync, rename; force = false: an existing path is -EEXIST,
 * before anything moves). */
int client_get(struct client *c, const struct id *id, const char *path, bool force,
               void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx,
               struct err *e);
/* Fetch an artefact into a store that takes it up where it was left: a part of it that is there already is not sent again. */
struct xfer_store;
int client_fetch(struct client *c, const struct id *id, const struct xfer_store *to,
                 void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx,
                 struct err *e);
