/* Files that are whole or absent, and the few path helpers that everything needs. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"

/* Whole file into *b (its cap is the limit; longer = -EFBIG). */
int file_read(const char *path, struct buf *b, struct err *e);
/* The same of a text: a zero byte, where readers of strings would stop without a word, is -SF_EUSAGE with its line. */
int file_read_text(const char *path, struct buf *b, struct err *e);

/* Write n bytes so that path is either as before or whole: temp file beside it, fsync, rename,
 * fsync of the folder. force = false: an existing path is refused with -EEXIST; a folder, device
 * or pipe always is. */
int file_write(const char *path, const void *p, size_t n, mode_t mode, bool force, struct err *e);

/* The same in steps, for content that is streamed. file_commit() or file_abort() ends it. */
struct file_new {
    int fd; /* -1 when idle */
    char *path, *temp;
    bool force;
};
int file_begin(struct file_new *f, const char *path, mode_t mode, bool force, struct err *e);
int file_commit(struct file_new *f, struct err *e);
void file_abort(struct file_new *f); /* accepts an idle one; usable with CLEANUP */

/* Remove the temporary files of all idle or running steps: for a signal handler that ends the process. */
void file_abort_all(void);

/* Open a regular file for reading; *ret_st is what fstat() says of it. Anything else is refused with -SF_EFORMAT, and
 * without waiting: a pipe would block in open() until somebody writes. Returns the descriptor. */
int file_open_regular(const char *path, struct stat *ret_st, struct err *e);

/* All of n bytes, retried on EINTR and short writes. Returns 0 or -errno. */
int write_all(int fd, const void *p, size_t n);
int pwrite_all(int fd, const void *p, size_t n, off_t off);
/* Up to n bytes until end of file. Returns the count or -errno. */
ssize_t read_full(int fd, void *p, size_t n);
ssize_t pread_full(int fd, void *p, size_t n, off_t off);

/* mkdir -p. mode is for folders made here. */
int dir_make(const char *path, mode_t mode, struct err *e);
int dir_sync(const char *path); /* fsync of a folder; 0 or -errno */
/* rm -r of a tree that is ours; never follows links; a missing one is fine. */
int dir_remove(const char *path, struct err *e);

/* "a/b" from a printf format; NULL only without memory. Owned by the caller. */
char *path_fmt(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* $XDG_{CACHE,DATA,CONFIG}_HOME/siofleet, or the default under $HOME (unset: the home of
 * the user's account). kind: "CACHE", "DATA", "CONFIG". Owned. */
char *path_xdg(const char *kind);
