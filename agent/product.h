/* What a task leaves that must outlive its folder: a trace; a command's output and the files that were asked for; a
 * collection's logs. Each becomes an artefact; the task's info, a JSON document, names them.
 *
 *     trace    info.json as the child wrote it; one product, DIR/product, whose id it holds
 *     exec     {"stdout":OUTPUT,"stderr":OUTPUT,"files":[FILE...]}
 *              OUTPUT {"total_b","kept_b","text"} or with "id" instead of "text" where it is long or no UTF-8;
 *              total_b - kept_b bytes in the middle were lost to the log's cap
 *              FILE {"path","bytes","id"} or {"path","error"}
 *     collect  info.json as the child wrote it, if it did; its "files" [{"name","kind","path"}] get "bytes" and "id" and
 *              lose "path"; with "stdout" and "stderr" like a command
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core.h"
#include "proto/base/err.h"
#include "proto/cas/cas.h"
#include "proto/lib/json.h"

struct product {
    char *path, *name;
    const char *kind;           /* of the artefact: log, trace, file */
    json_t *at;                 /* its object in the info; borrowed */
    struct id id;               /* when stored, or known before */
    bool known;                 /* the id is known before it is stored */
    bool told;                  /* its child has said the id, which need not be looked at */
    bool grown;                 /* it has left, or leaves, by agent/grow.h: it is not stored here */
    bool stored, optional;      /* optional: what cannot be stored is noted in the info instead */
    bool pinned, offered, done; /* for whoever sends them */
};

struct products {
    struct product *v;
    size_t n;
    json_t *info;
};

/* List what a task of that kind left in dir. spec: its spec. -SF_EINTEGRITY when what the child wrote is not readable. */
int products_list(const char *dir, enum core_kind kind, const json_t *spec, struct products *ret,
                  struct err *e);
/* Put all into the cas, fill their ids in the info. -errno; what was stored stays. May be repeated. */
int products_store(struct products *p, struct cas *cas, struct err *e);
/* The info as task_end carries it. Owned; NULL without memory or when it is too long for the message. */
char *products_info(const struct products *p);
void products_clear(struct products *p);
