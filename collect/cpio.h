/* A small "newc" cpio archive in memory: the per-run files that follow the guest image's own archive. */
#pragma once
#include <stdint.h>

#include "proto/base/buf.h"

/* Append one file (mode like 0100755, path without leading /) or one folder (mode 040755, n = 0). Same input, same
 * bytes: no owner, no time. Returns 0, -EMSGSIZE past the buffer's cap, -ENOMEM. */
int cpio_add(struct buf *b, uint32_t ino, const char *path, uint32_t mode, const void *p, size_t n);
/* The trailer, padded to 512 bytes so that another archive may follow. */
int cpio_end(struct buf *b);
