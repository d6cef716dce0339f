/* Water marks of a disk: how much must stay free.
 *
 * Below the high one nothing new is taken, below the low one running work pauses. Each ends only with a quarter of the mark
 * more, so that a disk at a mark does not switch to and fro. A mark of SPACE_AUTO is a share of the disk: 5 % but at most 1 GiB,
 * and 1 % but at most 256 MiB; 0 is no mark.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "proto/base/err.h"

#define SPACE_AUTO UINT64_MAX
enum { SPACE_TEXT_LEN = 160, SPACE_LOOK_MS = 250 };

enum space_level { SPACE_OK, SPACE_TIGHT, SPACE_PAUSED };

struct space {
    uint64_t high_b, low_b;  /* as given, or SPACE_AUTO; zeroed memory has no marks */
    uint64_t free_b, disk_b; /* at the last look */
    enum space_level level;
};

/* The level with so much free. */
enum space_level space_step(struct space *s, uint64_t free_b, uint64_t disk_b);
/* The same for the disk that holds path. -errno leaves the level as it was. */
int space_look(struct space *s, const char *path, struct err *e);
uint64_t space_high(const struct space *s); /* the marks in bytes, of this disk */
uint64_t space_low(const struct space *s);
const char *space_name(enum space_level l); /* "ok", "tight", "paused" */
/* "12.0 MiB are free on its disk, 64.0 MiB are to stay free". Returns out. */
char *space_text(const struct space *s, char out[SPACE_TEXT_LEN]);
/* "1.5 MiB". Returns out. */
char *size_text(uint64_t b, char out[32]);
