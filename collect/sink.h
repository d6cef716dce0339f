/* Where a run's events go: the log file, and the counts that the result reports. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/format/event.h"
#include "proto/lib/hash.h"

struct sink;

struct sink_result {
    struct id id;
    uint64_t bytes, events, devices;
};

/* growing: another name that the file has from the start, NULL = none. */
int sink_new(const char *path, const char *growing, struct sink **ret, struct err *e);
/* One thread at a time. */
int sink_add(struct sink *s, const struct log_event *ev, size_t n, struct err *e);
/* Completes the file and frees s, also on failure (then no file is left). dropped is recorded in the log. */
int sink_end(struct sink *s, uint64_t dropped, struct sink_result *ret, struct err *e);
void sink_abort(struct sink **s); /* accepts NULL; removes what was written */

/* Count a device at its first event: a bit a source-id. */
enum { SINK_SEEN_B = 65536 / 8 };
void sink_see(uint8_t seen[SINK_SEEN_B], uint64_t *devices, uint16_t sid);
