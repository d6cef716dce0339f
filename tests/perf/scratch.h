/* A folder of its own for a test, and files in it. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"

static char scratch[4096];

static inline void scratch_make(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch, sizeof(scratch), "%s/sf-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(scratch))
        abort();
}

static inline void scratch_remove(void)
{
    dir_remove(scratch, NULL);
}

/* Path in the folder; valid for four calls. */
static inline const char *in_scratch(const char *name)
{
    static char ring[4][4300];
    static unsigned i;
    char *s = ring[i++ % 4];
    snprintf(s, sizeof(ring[0]), "%s/%s", scratch, name);
    return s;
}

static inline const char *put(const char *name, const char *text)
{
    const char *path = in_scratch(name);
    if (file_write(path, text, strlen(text), 0644, true, NULL) < 0)
        abort();
    return path;
}
