/* Any text as an INI document: sections and keys have names and lines. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/lib/ini.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct ini *ini = NULL;
    struct err e;
    char *text = malloc(n + 1);
    if (n)
        memcpy(text, data, n);
    text[n] = '\0';
    if (ini_text("fuzz.ini", text, &ini, &e) == 0)
        for (size_t i = 0; i < ini->n_sections; i++) {
            const struct ini_section *s = &ini->sections[i];
            if (!s->name || !s->arg || s->line < 1)
                abort();
            for (size_t k = 0; k < s->n_keys; k++)
                if (!s->keys[k].name || !s->keys[k].value || s->keys[k].line < s->line)
                    abort();
        }
    ini_free(&ini);
    free(text);
    return 0;
}
