/* A trace in memory, and its file (.trc).
 *
 * An event is a dense index into the table of entries (4 bytes an event while simulating, 8 with the next access
 * time that the oracle policy needs, 12 with the offset that an export needs). An entry is one distinct
 * (sid, gid, level, mask, address piece, slpte); everything that an engine or an export wants is a function of it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"

struct trace_entry {
    uint64_t iova; /* event's iova & (mask | ~(2 MiB - 1)): an event's own iova is this + its offset (< 2 MiB) */
    uint64_t mask; /* page mask of the event */
    uint64_t slpte; /* 0 when loaded without TRACE_WITH_EXPORT */
    uint32_t sid;  /* 16 bits under hypersio rules; wide enough for (log, sid) under model rules */
    uint32_t gid;  /* tenant: 0 .. n_gids-1 */
    uint8_t level; /* 1..3; 0 = unknown mask (hypersio rules only) */
};

/* What only an export of the reference's files needs; in order of first appearance. */
struct trace_cc {
    uint64_t high, low;
    uint32_t sid;
    uint32_t gen;
};
struct trace_slpt {
    uint64_t entry_addr, level, slpte, iova, base;
    uint32_t did; /* the log's own domain id */
};

/* What the content itself says of its making; all of it is in the file. */
struct trace_head {
    uint32_t rules, order; /* enum rules (perf/arch.h), enum trace_order (perf/recipe.h) */
    uint64_t burst, seed, replicate;
    uint64_t tenants; /* with at least one event */
    uint64_t devices; /* different source-ids */
    bool early_end;   /* rr ended with the first exhausted tenant */
};

struct trace {
    struct trace_head head;
    uint64_t n;                /* events */
    uint32_t *ev;              /* n entry numbers; owned */
    uint32_t *off;             /* n offsets inside the entry's 2 MiB piece, or NULL when loaded without; owned */
    uint32_t *next;            /* n next access times (UINT32_MAX = never), or NULL; owned; see trace_next() */
    struct trace_entry *entry; /* owned */
    uint32_t n_entries, n_gids, n_sids;
    /* Dense key numbers of each entry, made by trace_keys(): equal number = equal key. */
    uint32_t *key_page; /* (iova & mask, gid): IOTLB, prefetch buffer, next access */
    uint32_t *key_l2;   /* (iova & ~(2 MiB - 1), gid) */
    uint32_t *key_l3;   /* (iova & ~(1 GiB - 1), gid) */
    uint32_t *key_addr; /* (iova & mask) alone: the prefetcher's history */
    uint32_t *key_sid;  /* sid, dense */
    uint32_t n_page, n_l2, n_l3, n_addr;
    struct trace_cc *cc;
    size_t n_cc;
    struct trace_slpt *slpt;
    size_t n_slpt;
};

void trace_free(struct trace **t);
int trace_keys(struct trace *t, struct err *e); /* fills key_*; O(entries) */
int trace_next(struct trace *t, struct err *e); /* fills next; O(n); idempotent, not thread-safe */

/* Head and number of events of a file, from its first bytes; the same errors as trace_load(). */
int trace_read_head(const char *path, struct trace_head *ret, uint64_t *ret_events, struct err *e);

/* Without TRACE_WITH_EXPORT no slpte is loaded: entries that differ in nothing else are one then, and cc and slpt are empty.
 * Cost of loading without both: about 40 instructions an event on real logs; 4 B an event and 60 B an entry stay. */
enum { TRACE_WITH_OFFSETS = 1, TRACE_WITH_EXPORT = 2 };
/* Write canonical bytes (same content, same bytes): entries are sorted and those without events left out, so a loaded
 * trace may number its entries otherwise than the saved one did; results do not depend on the numbers. ret_id: content id of the file's bytes; may be NULL. */
int trace_save(const struct trace *t, const char *path, bool force, struct id *ret_id, struct err *e);
/* Content id without writing a file. */
int trace_content_id(const struct trace *t, struct id *ret, struct err *e);
/* Every frame's checksum is verified. -SF_EINTEGRITY for damage, -SF_EFORMAT for another version or no trace. Calls trace_keys(). */
int trace_load(const char *path, unsigned flags, struct trace **ret, struct err *e);
/* The same over bytes in memory (borrowed for the call). name: for messages. */
int trace_load_bytes(const char *name, const void *p, size_t n, unsigned flags, struct trace **ret, struct err *e);
