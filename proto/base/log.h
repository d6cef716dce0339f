/* Log lines on stderr: `siofleet[agent n1]: agent 'n3' silent for 15 s, task 41 requeued`.
 *
 * A line names the thing, the number with its unit and the consequence. With json, one object a
 * line:
 * {"time":RFC3339,"level":"info","who":"...","text":"..."}. Thread-safe: one write(2) a line.
 */
#pragma once
#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO };

/* who: copied, "coordinator" or "agent n1"; NULL = plain `siofleet: text`. Call once, before
 * threads. */
void log_init(const char *who, bool json, enum log_level max);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
