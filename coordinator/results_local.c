#include "coordinator/results_local.h"

#include <string.h>

#include "coordinator/audit.h"
#include "coordinator/store.h"
#include "proto/base/clean.h"

int results_local(const char *dir, const char *what, const json_t *args,
                  int (*part)(void *ctx, json_t *body, struct err *e), void *ctx, struct err *e)
{
    CLEANUP(store_free) struct store *st = NULL;
    CLEANUP(buf_clear) struct buf body = BUF_INIT(1 << 20);
    char cursor[STORE_CURSOR] = "", next[STORE_CURSOR];
    bool sql = !strcmp(what, "sql"), audit = !strcmp(what, "audit");
    if (!sql && !audit && strcmp(what, "results") != 0)
        return err_set(e, SF_EUSAGE, "%s: needs a coordinator", what);
    int r = store_open_ro(dir, &st, e);
    while (r >= 0) {
        json_t *doc = NULL;
        *next = 0;
        r = audit ? audit_page(st, args, cursor, NULL, NULL, &doc, next, e)
            : sql ? store_sql(st, args, 0, cursor, &body, next, e)
                  : store_results(st, args, cursor, &body, next, e);
        if (r < 0)
            break;
        if (!audit)
            doc = json_loadb((const char *)body.data, body.len, 0, NULL);
        r = doc ? part(ctx, doc, e) : err_sys(e, ENOMEM, "%s", dir);
        json_decref(doc);
        if (r < 0 || !*next)
            break;
        memcpy(cursor, next, sizeof(cursor));
    }
    return r < 0 ? r : 0;
}
