/* Scope-bound cleanup: what a function acquires is released on every exit path.
 *
 *     CLEANUP(freep) char *name = NULL;
 *     CLEANUP(closep) int fd = -1;
 *     ...
 *     *ret_name = TAKE(name);
 *
 * A cleanup function takes a pointer to the variable and accepts the variable's empty value.
 */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* The value of a pointer variable, which is NULL afterwards: ownership moves to the reader. */
#define TAKE(p)                                                                                    \
    __extension__({                                                                                \
        __typeof__(p) take_ = (p);                                                                 \
        (p) = NULL;                                                                                \
        take_;                                                                                     \
    })

/* The same for a file descriptor. */
static inline int take_fd(int *fd)
{
    int r = *fd;
    *fd = -1;
    return r;
}

static inline void freep(void *p)
{
    free(*(void **)p);
    *(void **)p = NULL;
}

static inline void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline void fclosep(FILE **f)
{
    if (*f)
        fclose(*f);
    *f = NULL;
}

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
