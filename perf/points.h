/* Points of one trace as they stand in the spec of a task (proto/wire/README.md): written by the coordinator, read by the agent.
 * Each with its whole architecture, or (lists) one architecture for all and a list a point of what differs from it, which takes a
 * twentieth of the bytes. Readers take both: a spec lies on an agent's disk while its program is replaced.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "perf/arch.h"
#include "proto/base/buf.h"

struct point {
    uint64_t index; /* in its sweep */
    struct arch arch;
};

/* Append the members "points" and, with lists, "arch" and "vary", commas between them, to a JSON object. n >= 1. 0, -EMSGSIZE or
 * -ENOMEM. */
int points_text(const struct point p[], size_t n, bool lists, struct buf *out);

/* Their number, or -SF_EFORMAT: 1 to max of them. What they are is not looked at. */
int points_count(const json_t *spec, size_t max, struct err *e);
/* All of them; index and arch have room for points_count(). -SF_EFORMAT with the point and what is wrong: no number, a value out
 * of range, a list of another length, an unknown key. */
int points_read(const json_t *spec, uint64_t index[], struct arch arch[], struct err *e);
