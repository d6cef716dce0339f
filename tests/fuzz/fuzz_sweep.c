/* Any text as SWEEP.ini, then as the stored JSON: a sweep that is accepted can be numbered, expanded and stored. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "perf/sweep.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look(struct sweep *s)
{
    uint64_t points = sweep_points(s), t;
    struct arch a;
    struct sweep_trace st;
    struct err e;
    if (!points || !sweep_n_traces(s))
        abort();
    uint64_t at[] = { 0, points / 2, points - 1 };
    for (int i = 0; i < 3; i++) {
        if (sweep_point(s, at[i], &t, &a) < 0 || t >= sweep_n_traces(s) ||
            sweep_trace(s, t, &st, &e) < 0 || sweep_trace_end(s, at[i]) <= at[i])
            abort();
        if (!sweep_head(s)->skip_invalid && arch_check(&a, sweep_head(s)->rules, &e) < 0)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct sweep *s = NULL, *back = NULL;
    struct err e;
    char *text = malloc(n + 1);
    if (n)
        memcpy(text, data, n);
    text[n] = '\0';
    /* a value that starts with @ or holds a wildcard would read this machine's files */
    if (!strpbrk(text, "@*?") && sweep_text("fuzz.ini", text, &s, &e) == 0) {
        look(s);
        json_t *j = sweep_json(s);
        json_decref(j);
        sweep_free(&s);
    }
    json_t *j = json_loadb((const char *)data, n, 0, NULL);
    if (j && sweep_from_json(j, &back, &e) == 0) {
        look(back);
        json_t *k = sweep_json(back);
        json_decref(k);
        sweep_free(&back);
    }
    json_decref(j);
    free(text);
    return 0;
}
