/* The reference's architecture file, read as the reference reads it: what is not understood ends the reading, what
 * was not read stays 0. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "perf/arch.h"
#include "proto/base/err.h"

enum compat_section { CFG_CC, CFG_IOTLB, CFG_L2PAGE, CFG_L3PAGE, CFG_PREFETCH, CFG_L1PAGE, CFG_N };

struct compat_cfg {
    struct compat_cache {
        bool there; /* its section line was read */
        uint64_t size, assoc, groups, histlen;
    } c[CFG_N];
    enum compat_cfg_bad {
        CFG_GOOD,
        CFG_BAD_NAME, /* no such section */
        CFG_BAD_KEY,
        CFG_NO_SECTION, /* a value before the first section */
        CFG_BAD_NUMBER
    } why;
    unsigned bad_line; /* line that ended the reading, 0 = none */
    char bad[1024];    /* its text, cut */
};

extern const char *const compat_section_names[CFG_N];

/* Text of n bytes. Never fails: see bad_line. */
void compat_cfg_text(const char *text, size_t n, struct compat_cfg *ret);
/* -errno when unreadable. */
int compat_cfg_read(const char *path, struct compat_cfg *ret, struct err *e);

/* Into the keys of an architecture. -SF_EUSAGE for what the reference crashes on (absent section, value without a
 * section, no number, groups 0, groups above sets, no distance, no history) and for sizes beyond ours. A distance is cut
 * to 2^24. place: the file, borrowed. */
int compat_cfg_arch(const struct compat_cfg *c, const char *place, struct arch *a, struct err *e);
