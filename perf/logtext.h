/* Log files and the text that QEMU would have printed: either way. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/format/event.h"
#include "proto/format/log.h"

/* The last context entry of each source-id: a walk's line repeats it. */
struct contexts;
struct contexts *contexts_new(void);
void contexts_free(struct contexts **c);
void contexts_set(struct contexts *c, const struct log_event *ev); /* of a CC_UPDATE or CC_HIT */
bool contexts_get(const struct contexts *c, uint16_t sid, uint64_t *high,
                  uint64_t *low); /* false, 0, 0: none yet */

/* One event as QEMU's line without prefix and LF. high, low: of a SLPTE_FETCH. Returns the length, 0 where the text
 * format has no line for it (invalidations, faults, ATS). out: 256 bytes. */
size_t event_text(const struct log_event *ev, uint64_t high, uint64_t low, char *out);

/* Text logs into one log file, in order; out NULL: only for its figures. Nothing remains of it on failure. -SF_EFORMAT where they hold no event. */
int log_import(const char *const paths[], size_t n, const char *out, bool force, struct id *ret_id,
               struct slog_info *ret_info, struct err *e);
