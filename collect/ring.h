/* The reader's side of the trace ring (layout: qemu-patch/README.md, event record: proto/format/event.h).
 *
 * The ring lives in a memfd: nothing to clean up, whoever dies. QEMU inherits the descriptor.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/format/event.h"

enum {
    RING_OFF = 0,
    RING_ON = 1,
    RING_ARMED = 2 /* no records; snapshots reach the text events */
};

struct ring_header {
    char magic[8];
    uint32_t version, record_size;
    uint64_t n_records, data_off;
    uint8_t pad0[96];
    /* written by the reader */
    uint32_t enable, snapshot;
    uint64_t tail;
    uint8_t pad1[112];
    /* written by QEMU */
    uint64_t head, dropped;
    uint32_t clock, snapshot_done;
    uint64_t pid;
};
_Static_assert(offsetof(struct ring_header, enable) == 128, "ring layout");
_Static_assert(offsetof(struct ring_header, head) == 256, "ring layout");

struct ring {
    int fd;
    size_t size;
    struct ring_header *h;
    const struct log_event *rec;
    uint64_t tail;
};

/* n_records: power of two. The memory is touched only as far as it is used. */
int ring_new(struct ring *r, uint64_t n_records, struct err *e);
void ring_clear(struct ring *r); /* accepts a zeroed one */

/* RING_OFF, RING_ON or RING_ARMED; snapshot: ask for the cached context entries before the next event. */
void ring_enable(struct ring *r, uint32_t state, bool snapshot);

/* Records that wait, oldest first: *ret points into the ring, at most up to its end; ring_release() gives them back.
 * Returns their number, or -SF_EINTEGRITY when the head runs backwards or laps the reader. */
int64_t ring_peek(struct ring *r, const struct log_event **ret, struct err *e);
void ring_release(struct ring *r, uint64_t n);
uint64_t ring_dropped(const struct ring *r);
