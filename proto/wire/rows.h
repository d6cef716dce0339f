/* Rows as bytes: what `row_block` carries, and one way to read it and `rows`. A row is
 *
 *     u8      1, 2: status   4: it has statistics   8: it has an error   16: an index follows, as it is not the next one
 *     LEB128  index          when bit 16
 *     32 B    id of the point
 *     LEB128  duration in us
 *             statistics     when bit 4: row_stats_shorten()
 *     LEB128  length of the error, its bytes (UTF-8), a 0     when bit 8
 *
 * "The next one" is 0 for the first row. One row has one form, so what was read and is written again gives the same bytes.
 */
#pragma once
#include "proto/base/buf.h"
#include "proto/format/row.h"
#include "proto/wire/msg.h"

enum { ROWS_MAX = 1024, ROWS_ERROR_MAX = 500 };

/* Append one row. *next: 0 before the first; stats NULL = none; of w all but its statistics counts. 0, -EINVAL (status, error),
 * -EMSGSIZE or -ENOMEM. */
int row_block_add(struct buf *out, uint64_t *next, const struct wire_row *w,
                  const struct row_stats *stats);
/* n rows into out (reset first). -EINVAL as above, also for statistics of another length than this program's: then they go as
 * they are, in `rows`. */
int row_block_pack(const struct wire_row rows[], size_t n, struct buf *out);
/* The message for what row_block_pack() made; fields of head, its list apart. */
struct msg row_block_of(const struct msg_rows *head, const struct buf *packed);

/* The rows of a message, one by one, from the message's own memory. */
struct rows_reader {
    const struct wire_row *row; /* of `rows` */
    const uint8_t *p, *end;     /* of `row_block` */
    uint64_t next;
    size_t left;
};

/* m: rows or row_block; must live while it is read. *ret_head: its fields, without the list. -SF_EFORMAT for a block that is not
 * n_rows legal rows: nothing of it is read then. */
int rows_reader_init(struct rows_reader *r, const struct msg *m, struct msg_rows *ret_head,
                     struct err *e);
/* false = none left. ret->stats_len is 0 where there are no statistics, or not as many as this program's; else they are in
 * *stats. */
bool rows_next(struct rows_reader *r, struct wire_row *ret, struct row_stats *stats);
