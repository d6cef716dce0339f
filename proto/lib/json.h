/* JSON in and out: jansson, with the conventions that scripts rely on. CLEANUP(json_decrefp) is
 * jansson's own. */
#pragma once
#include <jansson.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"

/* An exact integer: a JSON number up to 2^53-1, above that a decimal string. New reference. */
json_t *json_u64(uint64_t v);
/* 64 hex digits. New reference. */
json_t *json_id(const struct id *id);
/* The string, or null for NULL (also when it is not UTF-8: then with its bad bytes replaced). New
 * reference. */
json_t *json_str(const char *s);
/* n bytes as text, zero bytes too; when they are not UTF-8, with the bad ones replaced. s may be NULL when n is 0.
 * New reference. */
json_t *json_bytes(const void *s, size_t n);

/* Reads what json_u64() writes. Returns 0 or -SF_EFORMAT. */
int json_get_u64(const json_t *obj, const char *key, uint64_t *ret, struct err *e);

/* Canonical text (sorted keys, no blanks): what ids are made of. Owned by the caller. */
char *json_canonical(const json_t *j);
void json_hash(const json_t *j, struct id *ret);
