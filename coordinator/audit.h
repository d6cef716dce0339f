/* Has each point of a sweep its one result: from the store alone, with or without a coordinator. */
#pragma once
#include "coordinator/store.h"

/* A page of siofleet.audit/1 (without schema): args {"id"}; cursor and next as in store_results(). Lists and sums of the pages add
 * up, the rest is in the first. state: how a sweep's state is called, NULL = as stored. -ENOENT, -SF_EUSAGE, -SF_EINTEGRITY a
 * recipe that cannot be read. O(rows of the page) and the sweep's traces. */
int audit_page(struct store *st, const json_t *args, const char *cursor,
               const char *(*state)(void *ctx, const struct store_sweep *w), void *ctx,
               json_t **ret, char next[STORE_CURSOR], struct err *e);
