#include "coordinator/results_local.h"

#include <string.h>

#include "coordinator/store.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"

int results_local(const char *dir, const char *what, const json_t *args,
                  int (*part)(void *ctx, json_t *body, struct err *e), void *ctx, struct err *e)
{
    CLEANUP(store_free) struct store *st = NULL;
    int r = store_open_ro(dir, &st, e);
    if (r < 0)
        return r;
    bool sql = !strcmp(what, "sql");
    struct buf body = BUF_INIT(2 * STORE_PAGE_B);
    char cursor[STORE_CURSOR] = "", next[STORE_CURSOR] = "";
    do {
        buf_reset(&body);
        /* no limit of time: nobody else waits for this process */
        r = sql ? store_sql(st, args, 0, cursor, &body, next, e)
                : store_results(st, args, cursor, &body, next, e);
        if (r < 0)
            break;
        json_t *j = json_loadb(body.data ? (const char *)body.data : "", body.len, 0, NULL);
        r = j ? part(ctx, j, e) : err_set(e, SF_EFORMAT, "%s: page that is no JSON", dir);
        json_decref(j);
        memcpy(cursor, next, sizeof(cursor));
    } while (r >= 0 && *cursor);
    buf_clear(&body);
    return r < 0 ? r : 0;
}
