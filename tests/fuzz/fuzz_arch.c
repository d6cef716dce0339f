/* Any text as an architecture file of `--cfg` and `cfg=`: what it sets can be told and read back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "perf/arch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arch a, b;
    struct err e;
    char *text = malloc(n + 1);
    if (n)
        memcpy(text, data, n);
    text[n] = '\0';
    arch_default(&a);
    if (arch_cfg_text(&a, "fuzz.cfg", text, &e) == 0) {
        json_t *j = arch_json(&a);
        if (arch_from_json(j, &b, &e) < 0 || memcmp(&a, &b, sizeof(a)))
            abort();
        json_decref(j);
        arch_check(&a, RULES_MODEL, &e);
    }
    free(text);
    return 0;
}
