/* Which artefact is needed by what: the answer to "may it go?".
 *
 * Conservative: an artefact is needed by every document of the store that has its id anywhere in its text (recipes, jobs,
 * what tasks left), and a trace by the results that were computed from it. Made anew for each question: O(documents).
 */
#pragma once
#include "coordinator/store.h"
#include "proto/cas/cas.h"

/* What speaks for keeping it, the strongest last. */
enum need {
    NEED_NONE,
    NEED_PROVENANCE, /* results, or what ended work has left or was made of */
    NEED_PINNED,     /* somebody said so */
    NEED_WORK,       /* a sweep or job that is not over */
};

struct ref {
    struct store_artefact a; /* of one that the store does not name: kind "", added_ms 0 */
    uint64_t used_ms;        /* last use, wall; 0 = not here */
    uint32_t refs;           /* documents that name it */
    enum need need;
    bool here;        /* its file is */
    bool rebuildable; /* a trace whose recipe and logs are here */
    char why[120];    /* the first document of the strongest need, for people */
};

struct refs {
    struct ref *v; /* owned, by id */
    size_t n;
};

/* All artefacts of the store and of its folder. -ENOMEM and the store's errors. */
int refs_make(struct store *st, const struct cas *c, struct refs *ret, struct err *e);
void refs_clear(struct refs *r);
struct ref *refs_find(const struct refs *r, const struct id *id); /* NULL = none */
/* Something else needs it. */
void ref_need(struct ref *r, enum need need, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
const char *need_name(enum need n); /* "unreferenced", "provenance", "pinned", "work" */
