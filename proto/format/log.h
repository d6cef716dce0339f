/* A log file (.slog): IOMMU events of one run, packed, checked and seekable.
 *
 * Events stand in frames of 2^18. Within a frame each device's events are taken apart by themselves: a field that its
 * context foretells (a walk's next table, the page that was just fetched, the entry that a page had last time) costs a
 * bit, what is left is split into columns. Frames do not depend on each other. What was lost, ignored or refused while
 * logging is part of the file; where it came from is not.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"
#include "proto/format/event.h"
#include "proto/lib/hash.h"

enum slog_source { SLOG_TEXT, SLOG_RING, SLOG_STOCK };
const char *slog_source_name(enum slog_source s);
const char *slog_kind_name(unsigned kind); /* "cc_update", ... "ats"; enum log_kind */

enum { SLOG_REFUSED_MAX = 100 };

struct slog_device {
    uint32_t sid, domain; /* the last domain seen, 0 = none */
    uint64_t events;
};

struct slog_info {
    enum slog_source source;
    uint64_t lines, ignored; /* of a text log, else 0 */
    uint64_t n_refused;      /* in all; the first SLOG_REFUSED_MAX are kept */
    struct slog_refused {
        uint64_t line;
        char reason[96];
    } * refused; /* owned */
    uint64_t events, by_kind[LOG_KINDS];
    struct slog_device *devices; /* by source-id ascending; owned */
    size_t n_devices;
    uint64_t dropped, duration_ns; /* first to last event; 0 without times */
};

/* ---- writing */

struct slog_out;
/* path NULL: nothing is written, the figures are taken all the same. */
int slog_create(const char *path, enum slog_source source, bool force, struct slog_out **ret,
                struct err *e);
/* Events in order; times must not be needed to be so. -EINVAL for a kind that is none. Cost: about 40 ns an event. */
int slog_add(struct slog_out *o, const struct log_event ev[], size_t n, struct err *e);
/* One SLPTE_FETCH whose context entry is not the one of the device's last context event (some text logs). */
int slog_add_walk(struct slog_out *o, const struct log_event *ev, uint64_t high, uint64_t low,
                  struct err *e);
void slog_count_lines(struct slog_out *o, uint64_t lines, uint64_t ignored);
void slog_refuse(struct slog_out *o, uint64_t line, const char *reason);
/* The file appears only here. dropped: events that were lost before they reached us. Frees o, also on failure.
 * ret_id, ret_info: may be NULL; clear the latter with slog_info_clear(). */
int slog_end(struct slog_out **o, uint64_t dropped, struct id *ret_id, struct slog_info *ret_info,
             struct err *e);
void slog_abort(struct slog_out **o);
/* A second name for the file while it is written (one that was there goes): what stands in it stays as it is. */
int slog_link(const struct slog_out *o, const char *path, struct err *e);

/* ---- reading */

struct slog_in;
bool slog_is(const void *first,
             size_t n); /* whether bytes begin as a log file does; n of 8 or more */
int slog_open(const char *path, struct slog_in **ret, struct err *e);
int slog_open_bytes(const char *name, const void *p, size_t n, struct slog_in **ret,
                    struct err *e); /* borrowed */
/* Up to n events; 0 at the end. Every checksum of what is read is verified. */
ssize_t slog_read(struct slog_in *in, struct log_event ev[], size_t n, struct err *e);
const struct slog_info *slog_info(const struct slog_in *in);
/* Context words (high, low) of the SLPTE_FETCH that slog_read() gave as event number i: those of the last context
 * event, unless the log says otherwise. Returns whether it does. */
bool slog_walk(const struct slog_in *in, uint64_t i, uint64_t *high, uint64_t *low);
void slog_close(struct slog_in **in);
void slog_info_clear(struct slog_info *i);
