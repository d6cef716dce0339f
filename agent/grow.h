/* A log that goes to the coordinator while it is written (proto/xfer/stream.h), so that a collection of hours needs no
 * room for all of it here.
 *
 * The task's child gives a growing file a second name in the task's folder, GROW_FILE or GROW_TEXT. Once that file is
 * GROW_FROM_B long it is sent; what is durable at the coordinator is freed, GROW_FREE_B at a time, by punching holes. A note
 * in the same folder (that name and GROW_NOTE) says under which name it goes and how far it is freed, so that a restarted
 * agent goes on. Shorter files, and those for a coordinator that takes no streams, go whole at the end, as ever.
 *
 * On a file system without holes it is sent all the same, and only not freed.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/wire/msg.h"

#define GROW_FILE "growing"      /* the log */
#define GROW_TEXT "growing-text" /* with tracer = both: the text beside it */
#define GROW_NOTE ".json"        /* behind either name */

enum { GROW_FROM_B = 4 << 20, GROW_FREE_B = 4 << 20, GROW_FILES = 2 };

struct agent;
struct run;
struct product;

/* While the child runs, and once when it has ended: begin when there is something, see how far the file is. */
void agent_grow_look(struct agent *a, struct run *r);
/* What an earlier life of the agent had begun. */
void agent_grow_load(struct run *r);
/* Send what may be sent. Returns ms until the next call is due, -1 = none. */
int64_t agent_grow_pump(struct agent *a);
/* stream_at and stream_over: returns whether it was one. */
bool agent_grow_msg(struct agent *a, const struct msg *m);
/* A new connection. */
void agent_grow_up(struct agent *a);
/* Whether x, whose id its child has told, is a file that goes this way; then nothing more is written to it. */
bool agent_grow_is(struct run *r, const struct product *x);
/* 1 = the coordinator has it whole, 0 = not yet, -SF_EINTEGRITY = it never will. */
int agent_grow_end(struct agent *a, struct run *r, const struct product *x, struct err *e);
/* drop: the task is over and nobody wants it. */
void agent_grow_close(struct agent *a, struct run *r, bool drop);
