#include "proto/wire/rows.h"

#include <errno.h>
#include <string.h>

#include "proto/format/frame.h"
#include "proto/wire/utf8.h"

enum { F_STATUS = 3, F_STATS = 4, F_ERROR = 8, F_INDEX = 16, VAR_MAX = 10 };
enum { ROW_MAX = 1 + VAR_MAX + ID_LEN + VAR_MAX + ROW_STATS_SHORT_MAX + 2 + ROWS_ERROR_MAX + 1 };

int row_block_add(struct buf *out, uint64_t *next, const struct wire_row *w,
                  const struct row_stats *stats)
{
    size_t n_error = w->error && !w->error_len ? strlen(w->error) : w->error_len;
    if (w->status > ROW_INVALID || n_error > ROWS_ERROR_MAX || !utf8_valid(w->error, n_error))
        return -EINVAL;
    uint8_t *p = buf_reserve(out, ROW_MAX), *from = p;
    if (!p)
        return out->cap - out->len < ROW_MAX ? -EMSGSIZE : -ENOMEM;
    *p++ = (uint8_t)(w->status | (stats ? F_STATS : 0) | (n_error ? F_ERROR : 0) |
                     (w->index != *next ? F_INDEX : 0));
    if (w->index != *next)
        p += put_var(p, w->index);
    *next = w->index + 1;
    memcpy(p, w->point.b, ID_LEN);
    p += ID_LEN;
    p += put_var(p, w->duration_us);
    if (stats)
        p += row_stats_shorten(stats, p);
    if (n_error) {
        p += put_var(p, n_error);
        memcpy(p, w->error, n_error);
        p += n_error;
        *p++ = 0;
    }
    out->len += (size_t)(p - from);
    return 0;
}

int row_block_pack(const struct wire_row rows[], size_t n, struct buf *out)
{
    uint64_t next = 0;
    int r = 0;
    buf_reset(out);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct row_stats s;
        if (rows[i].stats_len && (rows[i].stats_len != ROW_STATS_BYTES ||
                                  row_stats_unpack(rows[i].stats, ROW_STATS_BYTES, &s, NULL) < 0))
            return -EINVAL;
        r = row_block_add(out, &next, &rows[i], rows[i].stats_len ? &s : NULL);
    }
    return r;
}

struct msg row_block_of(const struct msg_rows *h, const struct buf *packed)
{
    return (struct msg){ .type = M_ROW_BLOCK,
                         .row_block = { .task = h->task,
                                        .epoch = h->epoch,
                                        .n = h->n,
                                        .seq = h->seq,
                                        .sweep = h->sweep,
                                        .trace = h->trace,
                                        .engine = h->engine,
                                        .threads = h->threads,
                                        .n_rows = h->n_rows,
                                        .rows = packed->data,
                                        .rows_len = packed->len } };
}

/* A number in its one form, the shortest. */
static bool get_shortest(struct rows_reader *r, uint64_t *ret)
{
    const uint8_t *from = r->p;
    return get_var(&r->p, r->end, ret) && (r->p - from == 1 || r->p[-1]);
}

/* One row of a block; stats NULL = only looked at. false = not a legal one. */
static bool block_next(struct rows_reader *r, struct wire_row *ret, struct row_stats *stats)
{
    if (r->p == r->end)
        return false;
    unsigned flags = *r->p++;
    *ret = (struct wire_row){ .index = r->next, .status = flags & F_STATUS, .error = "" };
    if (flags > (F_STATUS | F_STATS | F_ERROR | F_INDEX) || ret->status > ROW_INVALID)
        return false;
    if (flags & F_INDEX && (!get_shortest(r, &ret->index) || ret->index == r->next))
        return false;
    r->next = ret->index + 1;
    if (r->end - r->p < ID_LEN)
        return false;
    memcpy(ret->point.b, r->p, ID_LEN);
    r->p += ID_LEN;
    if (!get_shortest(r, &ret->duration_us))
        return false;
    if (flags & F_STATS) {
        ret->stats = r->p;
        if (!row_stats_lengthen(&r->p, r->end, stats))
            return false;
        ret->stats_len = (size_t)(r->p - ret->stats);
    }
    if (flags & F_ERROR) {
        uint64_t n;
        if (!get_shortest(r, &n) || !n || n > ROWS_ERROR_MAX || n >= (uint64_t)(r->end - r->p) ||
            r->p[n] || !utf8_valid(r->p, n))
            return false;
        ret->error = (const char *)r->p;
        ret->error_len = n;
        r->p += n + 1;
    }
    return true;
}

int rows_reader_init(struct rows_reader *r, const struct msg *m, struct msg_rows *ret_head,
                     struct err *e)
{
    if (m->type == M_ROWS) {
        *ret_head = m->rows;
        *r = (struct rows_reader){ .row = m->rows.rows, .left = m->rows.n_rows };
        ret_head->rows = NULL;
        return 0;
    }
    const struct msg_row_block *b = &m->row_block;
    *ret_head = (struct msg_rows){ .task = b->task,
                                   .epoch = b->epoch,
                                   .n = b->n,
                                   .seq = b->seq,
                                   .sweep = b->sweep,
                                   .trace = b->trace,
                                   .engine = b->engine,
                                   .threads = b->threads,
                                   .n_rows = b->n_rows };
    *r = (struct rows_reader){ .p = b->rows, .end = b->rows + b->rows_len, .left = b->n_rows };
    struct rows_reader look = *r;
    struct wire_row row;
    for (size_t i = 0; i < b->n_rows; i++)
        if (!block_next(&look, &row, NULL))
            return err_set(e, SF_EFORMAT, "message 'row_block': row %zu is cut off or no row", i);
    if (look.p != look.end)
        return err_set(e, SF_EFORMAT, "message 'row_block': %zu bytes too many",
                       (size_t)(look.end - look.p));
    return 0;
}

bool rows_next(struct rows_reader *r, struct wire_row *ret, struct row_stats *stats)
{
    if (!r->left)
        return false;
    r->left--;
    if (!r->row)
        return block_next(r, ret, stats);
    *ret = *r->row++;
    if (ret->stats_len != ROW_STATS_BYTES ||
        row_stats_unpack(ret->stats, ret->stats_len, stats, NULL) < 0)
        ret->stats_len = 0;
    return true;
}
