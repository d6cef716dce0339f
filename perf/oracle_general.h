/* Foreign trace files in and out: libCacheSim's oracleGeneral, and the reference's three files with all they hold.
 *
 * oracleGeneral: 24 packed little-endian bytes an event: time u32, object u64, size u32, next access i64 (-1 = never).
 * Object = page number in the high bits beside the tenant: (iova & mask) | tenant where the tenant fits below the
 * page size, else a dense number; time = index of the event; size = bytes of the page.
 */
#pragma once
#include <stdbool.h>

#include "proto/base/err.h"
#include "proto/format/trace.h"

int oracle_general_write(const struct trace *t, const char *path, bool force, struct err *e);
/* One tenant; each object becomes a page of 4 KiB (or of its size where that is 2 MiB or 1 GiB). -SF_EFORMAT for a file
 * that is not a whole number of records or is empty. */
int oracle_general_read(const char *path, struct trace **ret, struct err *e);

/* The reference's three files, context and page-table records included (in the order of their files). */
int hypersio_import(const char *dir, const char *prefix, struct trace **ret, struct err *e);
