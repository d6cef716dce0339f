#include "perf/engine.h"

#include <stdlib.h>

#include "perf/compat/compat.h"
#include "perf/model.h"

void engine_detail_clear(struct engine_detail *d)
{
    free(d->flows);
    free(d->hist);
    for (unsigned i = 0; i < 4; i++)
        free(d->rows[i]);
    *d = (struct engine_detail){ 0 };
}

int engine_run(const struct trace *t, const struct arch *a, enum rules rules, struct row_stats *ret,
               struct engine_detail *detail, struct err *e)
{
    if (rules == RULES_HYPERSIO)
        return compat_engine_run(t, a, ret, detail, e);
    return model_run(t, a, ret, detail, e);
}
