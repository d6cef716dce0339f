/* What needs which artefact. */
#include "coordinator/store_in.h"

#include <stdlib.h>
#include <string.h>

/* Traces are numbered from 1 without gaps, so a bit each is little. */
int db_mark_used(struct store *st, uint64_t trace, struct err *e)
{
    if (!trace || (trace / 8 < st->n_used && st->used[trace / 8] >> trace % 8 & 1))
        return 0;
    sqlite3_stmt *s = db_use(st, "UPDATE t_trace SET used = 1 WHERE num = ? AND used = 0", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", trace);
    int r = db_step(st, s, e, "trace");
    if (r < 0)
        return r;
    if (trace / 8 >= st->n_used) {
        size_t n = (size_t)(trace / 8 + 1) * 2;
        uint8_t *p = n < (64u << 20) ? realloc(st->used, n) : NULL;
        if (!p)
            return 0; /* it is asked again for the next row */
        memset(p + st->n_used, 0, n - st->n_used);
        st->used = p;
        st->n_used = n;
    }
    st->used[trace / 8] |= (uint8_t)(1u << trace % 8);
    return 0;
}

int store_del_artefact(struct store *st, const struct id *id, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "DELETE FROM t_artefact WHERE id = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "i", id);
    return db_step(st, s, e, "artefact");
}

int store_pin_artefact(struct store *st, const struct id *id, bool pinned, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "UPDATE t_artefact SET pinned = ? WHERE id = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "ui", (uint64_t)pinned, id);
    return db_step(st, s, e, "artefact");
}

int store_docs(struct store *st, int (*cb)(void *ctx, const struct store_doc *d), void *ctx,
               struct err *e)
{
    /* number, name, open, used, id, key, text */
    static const char *const sql[] = {
        [DOC_SWEEP] = "SELECT seq,name,state < 2,0,NULL,NULL,json FROM t_sweep",
        [DOC_JOB] = "SELECT seq,name,state < 2,0,NULL,NULL,json FROM t_job",
        [DOC_OUTPUT] = "SELECT t.task,j.name,j.state < 2,0,NULL,NULL,t.info FROM t_jobtask t JOIN"
                       " t_job j ON j.seq = t.job WHERE t.info IS NOT NULL",
        [DOC_RECIPE] = "SELECT 0,'',0,t.used,t.id,c.id,c.json FROM t_recipe c JOIN t_trace t ON"
                       " t.num = c.trace",
        [DOC_TRACE] = "SELECT 0,'',0,1,id,NULL,NULL FROM t_trace WHERE used = 1",
    };
    for (size_t k = 0; k < sizeof(sql) / sizeof(sql[0]); k++) {
        sqlite3_stmt *s = db_use(st, sql[k], e);
        if (!s)
            return -EIO;
        int r, stop = 0;
        while (!stop && (r = db_step(st, s, e, "read")) == 1) {
            const unsigned char *name = sqlite3_column_text(s, 1),
                                *text = sqlite3_column_text(s, 6);
            struct store_doc d = { .kind = (enum store_doc_kind)k,
                                   .no = db_u64(s, 0),
                                   .name = name ? (const char *)name : "",
                                   .open = db_u64(s, 2),
                                   .used = db_u64(s, 3),
                                   .text = text ? (const char *)text : "" };
            db_id(s, 4, &d.id);
            db_id(s, 5, &d.key);
            stop = cb(ctx, &d);
        }
        sqlite3_reset(s);
        if (stop || r < 0)
            return stop ? stop : r;
    }
    return 0;
}
