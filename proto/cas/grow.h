/* Artefacts that come in while they are still being written, so that neither size nor name is known.
 *
 *     DIR/growing/KEY         the bytes so far
 *     DIR/growing/KEY.hashes  hashes of its whole chunks, each written after its bytes were durable
 *
 * After a crash it goes on behind the last chunk in the list. It becomes an artefact by rename when the hashes give the
 * id that its writer says; nothing is read again. One that nobody added to for GROW_DAYS is removed.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/cas/cas.h"

enum { GROW_DAYS = 7 };

struct cas_grow;

/* key: whoever writes it made it up. make = false: -ENOENT where there is none. One owner. */
int cas_grow_open(struct cas *c, const struct id *key, bool make, struct cas_grow **ret,
                  struct err *e);
uint64_t cas_grow_durable(const struct cas_grow *g); /* whole chunks that survive a crash, bytes */
/* The next n bytes. -errno: nothing was added. */
int cas_grow_add(struct cas_grow *g, const void *p, size_t n, struct err *e);
/* Make the whole chunks durable. */
int cas_grow_sync(struct cas_grow *g, struct err *e);
/* All of it is there: make it the artefact id. -SF_EINTEGRITY when it is not: it can then only be dropped. Otherwise an
 * error changes nothing. Frees *g on success; here already counts as one. */
int cas_grow_end(struct cas_grow **g, const struct id *id, struct err *e);
/* drop = true removes it. Accepts NULL. Frees *g. */
void cas_grow_close(struct cas_grow **g, bool drop);
/* Remove what nobody added to since. Open ones stay. */
void cas_grow_collect(struct cas *c, uint64_t before_wall_ms);
