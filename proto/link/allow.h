/* The allow-list in memory: kept in step with its folder, looked up by key. No zmq here. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "proto/link/keys.h"

struct allow {
    char *dir;            /* owned */
    struct key_pub *list; /* owned, by key */
    size_t n;
    uint64_t mark; /* of the folder's names, sizes and times when it was read; 0 = never read */
    uint64_t changed_ns, looked_ns; /* time of the folder itself, and when that was asked; wall */
    uint64_t whole_ms;              /* the next look at every file; monotonic */
};

int allow_init(struct allow *a, const char *dir, struct err *e);
void allow_clear(struct allow *a);

/* Read again if the folder looks different. A key that was added or taken away shows in the time of the folder, which is
 * one question; one that was written over shows in its own, so now and then all are asked: with thousands of keys that
 * takes a while and is done as often as it stays below 2 % of the time. Returns 1 = read again, 0 = same; an unreadable
 * folder keeps what is known and is logged once (-errno). */
int allow_refresh(struct allow *a);

/* NULL = not allowed. Borrowed until the next refresh. */
const struct key_pub *allow_find(const struct allow *a, const char *z85);
