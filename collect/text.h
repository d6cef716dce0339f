/* QEMU's text log, packed while QEMU writes it: what has been packed is freed at once by punching holes, so that a run of
 * hours needs room for the packed log only, a thirtieth. QEMU never waits for the packing; on a file system without
 * holes, or when packing falls behind, the text takes the room that it takes. */
#pragma once
#include "collect/sink.h"

struct text;

/* path: what QEMU writes, there or not yet. The packed log is PATH.zst; growing: another name of that from the start,
 * NULL = none. */
int text_new(const char *path, const char *growing, struct text **ret, struct err *e);
/* Take what was written since. One thread at a time. */
int text_pump(struct text *t, struct err *e);
/* QEMU has ended: takes the rest, removes path and frees t, also on failure (then no packed log is left). */
int text_end(struct text **t, struct sink_result *ret, struct err *e);
void text_abort(struct text **t); /* accepts NULL; removes the packed log */
