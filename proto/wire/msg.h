/* The messages of a fleet. One field list a message gives its struct, bounds, encoder, decoder and the table in
 * proto/wire/README.md. Role table: who may send what is one row a message, below.
 *
 * A frame is one MessagePack array [version, type, field...]. Version is first, unknown trailing fields are skipped,
 * missing ones are refused, but for those of MSG_ADDED. FRAME_MAX is checked before anything is looked at, each count against the bytes left
 * before anything is allocated.
 *
 * Field kinds: U64(name, lo, hi)  STR(name, lo, hi) UTF-8 bytes without NUL  BIN(name, lo, hi) bytes
 *              ID(name) 32 bytes  LIST(name, struct, hi) of a sub-list below
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/lib/hash.h"

/* A program speaks its own version and the one before; the newer of two peers speaks the older one's (link.h). What comes
 * new within a version is told by `features` and MSG_ADDED. `refuse` keeps its fields for ever: peers that are further apart
 * are told with it. */
enum { WIRE_VERSION = 1 };
unsigned wire_version(void); /* WIRE_VERSION; tests link another one */
unsigned wire_oldest(void);

enum { FRAME_MAX = (1 << 20) + (64 << 10), WIRE_CHUNK = 1 << 20 };

/* Who a key belongs to; bits, so that a row of the table can name several. */
enum role { ROLE_COORDINATOR = 1, ROLE_AGENT = 2, ROLE_USER = 4, ROLE_READER = 8 };

/* ---- parts of messages */

/* A lease as an agent sees it. state: 1 accepted, 2 running, 3 ended but not yet acknowledged. */
#define PART_TASK_REF(U64, STR, BIN, ID, LIST)                                                     \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)                                                                          \
    U64(state, 0, 3)                                                                               \
    U64(done, 0, UINT64_MAX) /* points finished so far */

#define PART_ROW(U64, STR, BIN, ID, LIST)                                                          \
    U64(index, 0, UINT64_MAX) /* in its sweep */                                                   \
    ID(point)                                                                                      \
    U64(status, 0, 2) /* enum row_status */                                                        \
    STR(error, 0, 500)                                                                             \
    BIN(stats, 0, 1024) /* row_stats_pack() */                                                     \
    U64(duration_us, 0, UINT64_MAX)

#define PART_HELD(U64, STR, BIN, ID, LIST) ID(id)

/* Round trips of an agent's own messages, the last ones (proto/base/trips.h). */
#define PART_TRIPS(U64, STR, BIN, ID, LIST)                                                        \
    U64(kind, 0, 15) /* enum wire_trips_kind */                                                    \
    U64(n, 1, UINT64_MAX)                                                                          \
    U64(p50_us, 0, UINT64_MAX)                                                                     \
    U64(p99_us, 0, UINT64_MAX)                                                                     \
    U64(max_us, 0, UINT64_MAX)

/* ---- agent <-> coordinator */

#define MSG_AGENT_HELLO(U64, STR, BIN, ID, LIST)                                                   \
    BIN(install, 16, 16)     /* made once per data directory */                                    \
    U64(boot, 1, UINT64_MAX) /* durable, raised at each start */                                   \
    STR(name, 1, 64)                                                                               \
    STR(version, 1, 32)                                                                            \
    ID(engine) /* of the program file: results are accepted from a known engine */                 \
    U64(cores, 1, 4096)                                                                            \
    U64(memory_mib, 0, UINT64_MAX)                                                                 \
    U64(kvm, 0, 1)       /* usable, by functional probe */                                         \
    STR(labels, 0, 1000) /* k=v,... */                                                             \
    BIN(facts, 0, 16384) /* JSON: cpu, microcode, kernel, governor, isa, ... */                    \
    LIST(running, task_ref, 4096)                                                                  \
    U64(features, 0, UINT64_MAX) /* WIRE_BULK ... */                                               \
    U64(bulk_port, 0, 65535) /* where it takes bulk connections of other agents; 0 = nowhere */    \
    BIN(session, 0, 16)      /* made up at each start: tells copies of one folder apart */         \
    U64(class_rate_b, 0, UINT64_MAX) /* a second, of all agents of its class; 0 = no limit */

#define MSG_WELCOME(U64, STR, BIN, ID, LIST)                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(lease_ms, 1, UINT64_MAX)                                                                   \
    U64(heartbeat_ms, 1, UINT64_MAX)                                                               \
    STR(version, 1, 32)                                                                            \
    LIST(drop, task_ref, 4096) /* of those announced: not yours any more, end them */              \
    U64(features, 0, UINT64_MAX)                                                                   \
    U64(bulk_port, 0, 65535) /* of the coordinator; 0 = chunks go over this link */

#define MSG_REFUSE(U64, STR, BIN, ID, LIST)                                                        \
    U64(req, 0, UINT64_MAX) /* 0 for agents */                                                     \
    U64(exit, 1, 5)                                                                                \
    STR(code, 1, 64)                                                                               \
    STR(text, 1, 1000)

#define MSG_BEAT(U64, STR, BIN, ID, LIST)                                                          \
    U64(boot, 1, UINT64_MAX)                                                                       \
    U64(seq, 1, UINT64_MAX)                                                                        \
    U64(accept, 0, 1)           /* 0 = draining: grant nothing new */                              \
    LIST(tasks, task_ref, 4096) /* renews exactly these leases */                                  \
    U64(space, 0, 2)            /* enum space_level of its disk */                                 \
    U64(disk_b, 0, UINT64_MAX)  /* 0 = not told, as all that follow */                             \
    U64(free_b, 0, UINT64_MAX)                                                                     \
    U64(cache_b, 0, UINT64_MAX)    /* whole artefacts */                                           \
    U64(reserved_b, 0, UINT64_MAX) /* by transfers, also cut-off ones */                           \
    U64(pinned_b, 0, UINT64_MAX)   /* of the whole ones, in use by tasks */                        \
    U64(cap_b, 0, UINT64_MAX)      /* 0 = none */                                                  \
    LIST(trips, trips, 16)

#define MSG_BEAT_ACK(U64, STR, BIN, ID, LIST)                                                      \
    U64(seq, 1, UINT64_MAX)                                                                        \
    LIST(drop, task_ref, 4096)

#define MSG_GRANT(U64, STR, BIN, ID, LIST)                                                         \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)                                                                          \
    STR(kind, 1, 31) /* points, trace, collect, exec */                                            \
    ID(sweep)                                                                                      \
    U64(timeout_ms, 0, UINT64_MAX) /* 0 = none */                                                  \
    BIN(spec, 0, 1 << 20)          /* JSON, see proto/wire/README.md "Task specs" */

#define MSG_DECLINE(U64, STR, BIN, ID, LIST)                                                       \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)                                                                          \
    STR(code, 1, 64)                                                                               \
    STR(text, 0, 1000)

/* Results of a points task while it runs. seq counts from 1 in an attempt; what is not acknowledged is sent again. */
#define MSG_ROWS(U64, STR, BIN, ID, LIST)                                                          \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)                                                                          \
    U64(seq, 1, UINT64_MAX)                                                                        \
    ID(sweep)                                                                                      \
    ID(trace)                                                                                      \
    ID(engine)                                                                                     \
    U64(threads, 0, 4096)                                                                          \
    LIST(rows, row, 1024)

/* The same in few bytes, for a coordinator with WIRE_ROW_BLOCK: n_rows rows, one behind the other (rows.h). */
#define MSG_ROW_BLOCK(U64, STR, BIN, ID, LIST)                                                     \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)                                                                          \
    U64(seq, 1, UINT64_MAX)                                                                        \
    ID(sweep)                                                                                      \
    ID(trace)                                                                                      \
    ID(engine)                                                                                     \
    U64(threads, 0, 4096)                                                                          \
    U64(n_rows, 0, 1024)                                                                           \
    BIN(rows, 0, 1 << 20)

#define MSG_ROWS_ACK(U64, STR, BIN, ID, LIST) /* durable */                                        \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)                                                                          \
    U64(seq, 1, UINT64_MAX)

#define MSG_TASK_END(U64, STR, BIN, ID, LIST)                                                      \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)                                                                          \
    ID(sweep)                                                                                      \
    /* done, exit, signal, oom, timeout, cancelled, integrity, lost, space, recipe */              \
    STR(cause, 1, 32)                                                                              \
    U64(exit, 0, 255)                                                                              \
    U64(signal, 0, 128)                                                                            \
    U64(duration_ms, 0, UINT64_MAX)                                                                \
    BIN(info, 0, 65536) /* JSON of what was made, e.g. a trace's; "" for points */                 \
    BIN(tail, 0, 16384) /* last lines of the task's stderr */

#define MSG_END_ACK(U64, STR, BIN, ID, LIST)                                                       \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)

#define MSG_CANCEL(U64, STR, BIN, ID, LIST)                                                        \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)

/* What a task that is still on its agent has written. stream: 0 stdout, 1 stderr; from: place in the stream. */
#define MSG_LOG_GET(U64, STR, BIN, ID, LIST)                                                       \
    U64(req, 1, UINT64_MAX) /* the coordinator's */                                                \
    U64(task, 1, UINT64_MAX)                                                                       \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    U64(n, 1, UINT64_MAX)                                                                          \
    U64(stream, 0, 1)                                                                              \
    U64(from, 0, UINT64_MAX)                                                                       \
    U64(max_b, 1, 65536)

/* from moves to next; what the bounded log has lost in between is skipped. known 0: no such attempt here. */
#define MSG_LOG_DATA(U64, STR, BIN, ID, LIST)                                                      \
    U64(req, 1, UINT64_MAX)                                                                        \
    U64(known, 0, 1)                                                                               \
    U64(next, 0, UINT64_MAX)                                                                       \
    BIN(data, 0, 65536)

/* Artefacts that the agent has whole, and gives to other agents when the coordinator hands it a ticket. */
#define MSG_HOLDS(U64, STR, BIN, ID, LIST)                                                         \
    U64(all, 0, 1) /* these are all: what was said before is void */                               \
    LIST(has, held, 4096)                                                                          \
    LIST(gone, held, 4096) /* no more */

/* ---- artefacts, both directions. A side asks for chunks; the other sends as many as it was given credit for. */

#define MSG_PUT_OFFER(U64, STR, BIN, ID, LIST)                                                     \
    U64(req, 1, UINT64_MAX)                                                                        \
    ID(id)                                                                                         \
    U64(size_b, 0, UINT64_MAX)                                                                     \
    STR(kind, 1, 31) /* log, trace, file */                                                        \
    STR(name, 0, 255)

#define MSG_PUT_HAVE(U64, STR, BIN, ID,                                                            \
                     LIST) /* durable already, or durable now: the end of a put */                 \
    U64(req, 0, UINT64_MAX)                                                                        \
    ID(id)

/* "Send me": hashes first (want_hashes 1), then chunks first .. first+credit-1. */
#define MSG_GET(U64, STR, BIN, ID, LIST)                                                           \
    U64(req, 0, UINT64_MAX)                                                                        \
    ID(id)                                                                                         \
    U64(want_hashes, 0, 1)                                                                         \
    U64(first, 0, UINT64_MAX)                                                                      \
    U64(credit, 0, 64)

#define MSG_HASHES(U64, STR, BIN, ID, LIST)                                                        \
    U64(req, 0, UINT64_MAX)                                                                        \
    ID(id)                                                                                         \
    U64(size_b, 0, UINT64_MAX)                                                                     \
    U64(first, 0, UINT64_MAX)                                                                      \
    BIN(hashes, 0, 1 << 20) /* 32 bytes a chunk, at most 32768 of them */

#define MSG_CHUNK(U64, STR, BIN, ID, LIST)                                                         \
    U64(req, 0, UINT64_MAX)                                                                        \
    ID(id)                                                                                         \
    U64(index, 0, UINT64_MAX)                                                                      \
    U64(packed, 0, 1) /* 1 = one zstd frame */                                                     \
    BIN(data, 0, WIRE_CHUNK)

/* "I take chunks of this artefact: over a bulk connection, if you like" (proto/bulk). Answered by bulk_ticket or bulk_no.
 */
#define MSG_BULK_ASK(U64, STR, BIN, ID, LIST)                                                      \
    U64(req, 0, UINT64_MAX)                                                                        \
    ID(id)                                                                                         \
    U64(size_b, 0, UINT64_MAX)                                                                     \
    U64(missing_b, 0, UINT64_MAX) /* of it */                                                      \
    U64(broken, 0, UINT64_MAX)    /* bulk connections of this transfer that broke so far */        \
    U64(damaged, 0, 1)            /* the last one brought bytes that are none of the artefact */

/* One end of a bulk connection; the other end has, or gets, its twin. It is used once. */
#define MSG_BULK_TICKET(U64, STR, BIN, ID, LIST)                                                   \
    U64(req, 0, UINT64_MAX)                                                                        \
    ID(id) /* the only artefact it is good for */                                                  \
    BIN(ticket, 16, 16)                                                                            \
    BIN(keys, 64, 64) /* 32 bytes from the end that dials, 32 from the one that listens */         \
    U64(alg, 1, 2)    /* enum bulk_alg */                                                          \
    U64(send, 0, 1)   /* 1 = you send chunks, 0 = you take them */                                 \
    STR(dial, 0, 255) /* "HOST:PORT", ":PORT" = at the coordinator; "" = you are called */         \
    U64(ttl_ms, 1, 600000)

/* No bulk connection for this transfer: not wanted, none free (then wait_ms != 0: ask again), or it cannot be made. */
#define MSG_BULK_NO(U64, STR, BIN, ID, LIST)                                                       \
    U64(req, 0, UINT64_MAX)                                                                        \
    ID(id)                                                                                         \
    U64(wait_ms, 0, 600000)                                                                        \
    STR(text, 0, 1000)                                                                             \
    U64(gives, 0, 1) /* by the end that was to send chunks */

#define MSG_XFER_FAIL(U64, STR, BIN, ID, LIST)                                                     \
    U64(req, 0, UINT64_MAX)                                                                        \
    ID(id)                                                                                         \
    STR(code, 1, 64)                                                                               \
    STR(text, 0, 1000)

/* ---- artefacts whose length is not known yet (proto/xfer/stream.h). `stream` names one; the agent that began it made it up. */

/* "Where are you?": answered by stream_at, also for one that begins here, or by stream_over. */
#define MSG_STREAM_OPEN(U64, STR, BIN, ID, LIST)                                                   \
    ID(stream)                                                                                     \
    U64(freed_b, 0, UINT64_MAX) /* bytes that the agent has no more: they must be here */          \
    STR(kind, 1, 31)            /* log, file */                                                    \
    STR(name, 0, 255)

#define MSG_STREAM_DATA(U64, STR, BIN, ID, LIST)                                                   \
    ID(stream)                                                                                     \
    U64(offset, 0, UINT64_MAX)                                                                     \
    BIN(data, 1, 65536)

/* All of it has been written: size_b bytes with this content id. May be the first word of a stream. */
#define MSG_STREAM_END(U64, STR, BIN, ID, LIST)                                                    \
    ID(stream)                                                                                     \
    U64(freed_b, 0, UINT64_MAX)                                                                    \
    U64(size_b, 0, UINT64_MAX)                                                                     \
    ID(id)                                                                                         \
    STR(kind, 1, 31)                                                                               \
    STR(name, 0, 255)

/* It will not be ended. */
#define MSG_STREAM_DROP(U64, STR, BIN, ID, LIST) ID(stream)

/* Bytes below taken_b need not be sent again while this connection lasts, those below durable_b never. */
#define MSG_STREAM_AT(U64, STR, BIN, ID, LIST)                                                     \
    ID(stream)                                                                                     \
    U64(taken_b, 0, UINT64_MAX)                                                                    \
    U64(durable_b, 0, UINT64_MAX)

/* code "": the artefact is whole and durable. Else it never will be. */
#define MSG_STREAM_OVER(U64, STR, BIN, ID, LIST)                                                   \
    ID(stream)                                                                                     \
    STR(code, 0, 64)                                                                               \
    STR(text, 0, 1000)

/* ---- users (the command line, the web page). req pairs an answer with its question. */

#define MSG_USER_HELLO(U64, STR, BIN, ID, LIST)                                                    \
    U64(req, 1, UINT64_MAX)                                                                        \
    STR(version, 1, 32)                                                                            \
    U64(features, 0, UINT64_MAX)

#define MSG_USER_WELCOME(U64, STR, BIN, ID, LIST)                                                  \
    U64(req, 1, UINT64_MAX)                                                                        \
    U64(epoch, 1, UINT64_MAX)                                                                      \
    STR(version, 1, 32)                                                                            \
    STR(role, 1, 16)                                                                               \
    U64(features, 0, UINT64_MAX)                                                                   \
    U64(bulk_port, 0, 65535)

#define MSG_SUBMIT(U64, STR, BIN, ID, LIST)                                                        \
    U64(req, 1, UINT64_MAX)                                                                        \
    STR(request_id, 0, 128) /* same id, same sweep */                                              \
    BIN(sweep, 2, 1 << 20)  /* sweep_json() */

#define MSG_SUBMITTED(U64, STR, BIN, ID, LIST) /* durable */                                       \
    U64(req, 1, UINT64_MAX)                                                                        \
    ID(sweep)                                                                                      \
    U64(points, 0, UINT64_MAX)                                                                     \
    U64(known, 0, UINT64_MAX)

/* A command or a collection, see proto/wire/README.md "Jobs". Answered by submitted, which then names the job and its
 * tasks. */
#define MSG_SUBMIT_JOB(U64, STR, BIN, ID, LIST)                                                    \
    U64(req, 1, UINT64_MAX)                                                                        \
    STR(request_id, 0, 128) /* same id, same job */                                                \
    BIN(job, 2, 1 << 20)    /* JSON */

/* cancel, hold, release, retry, retry-failed, drain, drain-for, undrain, priority, ... */
#define MSG_CONTROL(U64, STR, BIN, ID, LIST)                                                       \
    U64(req, 1, UINT64_MAX)                                                                        \
    STR(verb, 1, 31)                                                                               \
    STR(target, 1, 128)       /* id, unique prefix, "last", task number or agent name */           \
    STR(text, 0, 150)         /* drain: why, for people */                                         \
    U64(value, 0, UINT64_MAX) /* drain-for: ms; priority: the new one */

#define MSG_OK(U64, STR, BIN, ID, LIST)                                                            \
    U64(req, 1, UINT64_MAX)                                                                        \
    STR(text, 0, 1000)

/* what: "sweep", "ls-sweeps", "ls-tasks", "ls-agents", "ls-artefacts", "results", "sql", "plan-known", ... */
#define MSG_ASK(U64, STR, BIN, ID, LIST)                                                           \
    U64(req, 1, UINT64_MAX)                                                                        \
    STR(what, 1, 31)                                                                               \
    BIN(args, 0, 65536) /* JSON object */                                                          \
    STR(cursor, 0, 256) /* "" = from the start; then what the last part gave */

#define MSG_PART(U64, STR, BIN, ID, LIST)                                                          \
    U64(req, 1, UINT64_MAX)                                                                        \
    STR(cursor, 0, 256)   /* "" = this was the last */                                             \
    BIN(body, 0, 1 << 20) /* JSON */

/* X(number, name, roles that may send it). Numbers are for ever. */
#define MSG_TYPES(X)                                                                               \
    X(1, agent_hello, AGENT_HELLO, ROLE_AGENT)                                                     \
    X(2, welcome, WELCOME, ROLE_COORDINATOR)                                                       \
    X(3, refuse, REFUSE, ROLE_COORDINATOR)                                                         \
    X(4, beat, BEAT, ROLE_AGENT)                                                                   \
    X(5, beat_ack, BEAT_ACK, ROLE_COORDINATOR)                                                     \
    X(6, grant, GRANT, ROLE_COORDINATOR)                                                           \
    X(7, decline, DECLINE, ROLE_AGENT)                                                             \
    X(8, rows, ROWS, ROLE_AGENT)                                                                   \
    X(9, rows_ack, ROWS_ACK, ROLE_COORDINATOR)                                                     \
    X(10, task_end, TASK_END, ROLE_AGENT)                                                          \
    X(11, end_ack, END_ACK, ROLE_COORDINATOR)                                                      \
    X(12, cancel, CANCEL, ROLE_COORDINATOR)                                                        \
    X(13, log_get, LOG_GET, ROLE_COORDINATOR)                                                      \
    X(14, log_data, LOG_DATA, ROLE_AGENT)                                                          \
    X(15, row_block, ROW_BLOCK, ROLE_AGENT)                                                        \
    X(20, put_offer, PUT_OFFER, ROLE_AGENT | ROLE_USER)                                            \
    X(21, put_have, PUT_HAVE, ROLE_COORDINATOR)                                                    \
    X(22, get, GET, ROLE_COORDINATOR | ROLE_AGENT | ROLE_USER | ROLE_READER)                       \
    X(23, hashes, HASHES, ROLE_COORDINATOR | ROLE_AGENT | ROLE_USER)                               \
    X(24, chunk, CHUNK, ROLE_COORDINATOR | ROLE_AGENT | ROLE_USER)                                 \
    X(25, xfer_fail, XFER_FAIL, ROLE_COORDINATOR | ROLE_AGENT | ROLE_USER)                         \
    X(26, bulk_ask, BULK_ASK, ROLE_AGENT | ROLE_USER | ROLE_READER)                                \
    X(27, bulk_ticket, BULK_TICKET, ROLE_COORDINATOR)                                              \
    X(28, bulk_no, BULK_NO, ROLE_COORDINATOR | ROLE_AGENT | ROLE_USER | ROLE_READER)               \
    X(30, stream_open, STREAM_OPEN, ROLE_AGENT)                                                    \
    X(31, stream_data, STREAM_DATA, ROLE_AGENT)                                                    \
    X(32, stream_end, STREAM_END, ROLE_AGENT)                                                      \
    X(33, stream_drop, STREAM_DROP, ROLE_AGENT)                                                    \
    X(34, stream_at, STREAM_AT, ROLE_COORDINATOR)                                                  \
    X(35, stream_over, STREAM_OVER, ROLE_COORDINATOR)                                              \
    X(36, holds, HOLDS, ROLE_AGENT)                                                                \
    X(40, user_hello, USER_HELLO, ROLE_USER | ROLE_READER)                                         \
    X(41, user_welcome, USER_WELCOME, ROLE_COORDINATOR)                                            \
    X(42, submit, SUBMIT, ROLE_USER)                                                               \
    X(43, submitted, SUBMITTED, ROLE_COORDINATOR)                                                  \
    X(44, control, CONTROL, ROLE_USER)                                                             \
    X(45, ok, OK, ROLE_COORDINATOR)                                                                \
    X(46, ask, ASK, ROLE_USER | ROLE_READER)                                                       \
    X(47, part, PART, ROLE_COORDINATOR)                                                            \
    X(48, submit_job, SUBMIT_JOB, ROLE_USER)

/* X(message, fields): how many of its last fields came after its first release. They take 0 and empty: a peer of before
 * sends none of them, and skips those that it gets. */
#define MSG_ADDED(X)                                                                               \
    X(AGENT_HELLO, 4)                                                                              \
    X(BULK_ASK, 1)                                                                                 \
    X(BULK_NO, 1)                                                                                  \
    X(WELCOME, 2)                                                                                  \
    X(BEAT, 8)                                                                                     \
    X(USER_HELLO, 1)                                                                               \
    X(CONTROL, 2)                                                                                  \
    X(USER_WELCOME, 2)

/* What a peer can do, bits of `features`. It is sent nothing that it has not named. */
enum wire_feature {
    WIRE_BULK = 1,         /* bulk connections: bulk_ask, bulk_ticket, bulk_no */
    WIRE_BULK_AES = 2,     /* AES-256-GCM in hardware */
    WIRE_STREAM = 4,       /* stream_open ... stream_over */
    WIRE_PEERS = 8,        /* holds, and tickets between agents */
    WIRE_ROW_BLOCK = 16,   /* row_block */
    WIRE_POINT_LISTS = 32, /* specs whose points are lists */
};

/* What a round trip is of. */
enum wire_trips_kind {
    WIRE_TRIPS_BEAT = 0, /* beat -> beat_ack, of those that are answered */
    WIRE_TRIPS_RESULT =
        1, /* rows -> rows_ack, task_end -> end_ack: with the coordinator's commit */
};

/* ---- what the lists give */

#define WIRE_SKIP(...)
#define WIRE_U64(name, lo, hi) uint64_t name;
#define WIRE_STR(name, lo, hi)                                                                     \
    const char *name; /* NUL-terminated, length checked */                                         \
    size_t name##_len;
#define WIRE_BIN(name, lo, hi)                                                                     \
    const uint8_t *name;                                                                           \
    size_t name##_len;
#define WIRE_ID(name) struct id name;
#define WIRE_LIST(name, part, hi)                                                                  \
    struct wire_##part *name;                                                                      \
    size_t n_##name;

struct wire_task_ref {
    PART_TASK_REF(WIRE_U64, WIRE_STR, WIRE_BIN, WIRE_ID, WIRE_LIST)
};
struct wire_held {
    PART_HELD(WIRE_U64, WIRE_STR, WIRE_BIN, WIRE_ID, WIRE_LIST)
};
struct wire_trips {
    PART_TRIPS(WIRE_U64, WIRE_STR, WIRE_BIN, WIRE_ID, WIRE_LIST)
};
struct wire_row {
    PART_ROW(WIRE_U64, WIRE_STR, WIRE_BIN, WIRE_ID, WIRE_LIST)
};

#define X(number, name, NAME, roles)                                                               \
    struct msg_##name {                                                                            \
        MSG_##NAME(WIRE_U64, WIRE_STR, WIRE_BIN, WIRE_ID, WIRE_LIST)                               \
    };
MSG_TYPES(X)
#undef X

enum msg_type {
#define X(number, name, NAME, roles) M_##NAME = number,
    MSG_TYPES(X)
#undef X
};

/* Any message. Strings, bytes and lists point into memory of the message: when decoded, into one block that
 * msg_clear() frees; when filled for sending, into the caller's. */
struct msg {
    enum msg_type type;
    unsigned version; /* of the frame it came in; 0 when filled by hand */
    void *block;      /* owned; NULL when filled by hand */
    union {
#define X(number, name, NAME, roles) struct msg_##name name;
        MSG_TYPES(X)
#undef X
    };
};

/* Append the frame of m to out (reset first). A STR/BIN pointer may be NULL when its length is 0; a STR's length may be
 * left 0 with a non-NULL pointer: then strlen() is taken. A field out of bounds is -EINVAL: nothing illegal is sent. */
int msg_encode(const struct msg *m, struct buf *out, struct err *e);
/* The same for a peer that speaks another version. */
int msg_encode_as(const struct msg *m, unsigned version, struct buf *out, struct err *e);
/* -SF_EFORMAT for anything that is not exactly a message of a version that is spoken here, -SF_EREFUSED for one of another
 * version: ret->version says which. Allocates at most a small multiple of n. */
int msg_decode(const void *frame, size_t n, struct msg *ret, struct err *e);
void msg_clear(struct msg *m);

const char *msg_name(enum msg_type t); /* "agent_hello"; "?" when unknown */
unsigned msg_roles(enum msg_type t);   /* bits of enum role that may send it; 0 = unknown */
const char *role_name(enum role r);    /* "agent" */
int role_parse(const char *s, enum role *ret);
