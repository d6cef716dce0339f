/* The little of QEMU's machine protocol that a collection needs, over a connected socket. */
#pragma once
#include <stdint.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/lib/json.h"

struct qmp {
    int fd; /* borrowed */
    struct buf in;
    uint64_t next_id;
};

void qmp_init(struct qmp *q, int fd);
void qmp_clear(struct qmp *q);

/* Greeting and capabilities. All calls: -ETIMEDOUT after timeout_ms, -EPIPE when QEMU is gone, -SF_EFORMAT for an
 * answer that is none, -SF_EFAILED with QEMU's own words for an error. Events are read over. */
int qmp_hello(struct qmp *q, int timeout_ms, struct err *e);

/* args (taken, may be NULL). *ret: the "return" value, owned by the caller; ret may be NULL. */
int qmp_call(struct qmp *q, const char *command, json_t *args, int timeout_ms, json_t **ret,
             struct err *e);
