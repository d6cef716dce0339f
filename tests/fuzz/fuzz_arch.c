/* Any text as an architecture file of `--cfg` and `cfg=`, and its lines as the KEY=VALUE of `--arch`: what it sets can be told
 * and read back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "perf/arch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look(const struct arch *a)
{
    struct arch b;
    struct err e;
    json_t *j = arch_json(a);
    if (arch_from_json(j, &b, &e) < 0 || memcmp(a, &b, sizeof(b)))
        abort();
    json_decref(j);
    arch_check(a, RULES_MODEL, &e);
    arch_check(a, RULES_HYPERSIO, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arch a;
    struct err e;
    char *text = malloc(n + 1), *save = NULL;
    if (n)
        memcpy(text, data, n);
    text[n] = '\0';
    arch_default(&a);
    if (arch_cfg_text(&a, "fuzz.cfg", text, &e) == 0)
        look(&a);
    /* the reader changed the text */
    if (n)
        memcpy(text, data, n);
    arch_default(&a);
    for (char *w = strtok_r(text, "\n", &save); w; w = strtok_r(NULL, "\n", &save)) {
        char *eq = strchr(w, '=');
        if (!eq)
            continue;
        *eq = '\0';
        if (!strcmp(w, "preset"))
            arch_preset(&a, eq + 1, "fuzz", &e);
        else
            arch_set(&a, w, eq + 1, "fuzz", &e);
    }
    look(&a);
    free(text);
    return 0;
}
