/* The bounded log of a task's output: its first bytes and its last ones, in a file of fixed size at
 * most.
 *
 * [64 bytes header][head bytes][ring of tail bytes]. Header, ASCII, padded with blanks, ending in
 * LF: "siofleet-ring 1 HEAD TAIL TOTAL". Byte number i of the stream stands at 64 + i while i <
 * HEAD, later at 64 + HEAD + (i - HEAD) % TAIL. TOTAL is written after the bytes it counts.
 *
 * Written by siofleet-shim, which is libc only; hence a header that both sides include and nothing
 * else.
 */
#pragma once
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

struct buf;
struct err;

enum { RING_HEADER = 64 };

/* Writes the header text; out has room for RING_HEADER + 1 bytes. */
static inline void ring_header(char *out, uint64_t head, uint64_t tail, uint64_t total)
{
    int n = snprintf(out, RING_HEADER, "siofleet-ring 1 %" PRIu64 " %" PRIu64 " %" PRIu64, head,
                     tail, total);
    for (int i = n < RING_HEADER ? n : RING_HEADER - 1; i < RING_HEADER - 1; i++)
        out[i] = ' ';
    out[RING_HEADER - 1] = '\n';
    out[RING_HEADER] = '\0';
}

/* Append to *out what the file still holds of the bytes from..TOTAL-1, at most max_b of them,
 * oldest first; what the ring has overwritten is skipped. from may be past the end: nothing is
 * added then.
 *
 * ret_next  offset behind the last byte given: the next call's from; may be NULL
 *
 * Returns 0, -ENOENT when there is no file, -SF_EFORMAT for anything that is no ring. The writer
 * may be at work: bytes that it overwrites meanwhile are given as they are found.
 */
int ring_read(const char *path, uint64_t from, uint64_t max_b, struct buf *out, uint64_t *ret_next,
              struct err *e);

/* The last max_b bytes, from the start of a line when there is one. */
int ring_tail(const char *path, uint64_t max_b, struct buf *out, struct err *e);
