/* Any text as RECIPE.ini, then as a recipe's JSON (what a coordinator stores and sends to agents): what is taken is told in
 * canonical JSON, which is read back as the same recipe. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "perf/recipe.h"
#include "proto/base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look(struct recipe *r)
{
    struct recipe back, copy;
    struct err e;
    struct id id;
    for (size_t i = 0; i < r->n_logs; i++)
        r->logs[i].have_id = !r->logs[i].path || strcmp(r->logs[i].path, RECIPE_COLLECT) != 0;
    recipe_id(r, &id);
    json_t *j = recipe_json(r, true), *again = NULL;
    if (!j)
        abort();
    recipe_init(&back);
    recipe_init(&copy);
    if (recipe_from_json(j, &back, &e) < 0 || recipe_copy(&back, &copy, &e) < 0)
        abort();
    again = recipe_json(&copy, true);
    if (!json_equal(j, again))
        abort();
    json_decref(j);
    json_decref(again);
    recipe_clear(&back);
    recipe_clear(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static int fd = -1;
    if (!n)
        return 0;
    struct recipe r;
    struct err e;
    char path[64];
    if (fd < 0 && (fd = memfd_create("recipe", MFD_CLOEXEC)) < 0)
        abort();
    if (ftruncate(fd, 0) < 0 || pwrite_all(fd, data, n, 0) < 0)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    /* a wildcard would read this machine's folders */
    bool wild = memchr(data, '*', n) || memchr(data, '?', n) ||
                memchr(data, '[', n) != memrchr(data, '[', n);
    recipe_init(&r);
    if (!wild && recipe_load(&r, path, &e) == 0)
        look(&r);
    recipe_clear(&r);
    json_t *j = json_loadb((const char *)data, n, 0, NULL);
    recipe_init(&r);
    if (j && recipe_from_json(j, &r, &e) == 0)
        look(&r);
    recipe_clear(&r);
    json_decref(j);
    return 0;
}
