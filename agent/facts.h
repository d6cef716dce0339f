/* What an agent tells of its host: for matching tasks to hosts, and as provenance beside every result. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/json.h"

struct facts {
    uint64_t cores;      /* that this process may run on */
    uint64_t memory_mib; /* of the host */
    bool kvm;            /* usable, by running a guest; takes up to 2 s */
    json_t *
        json; /* {"host","cpu","microcode","kernel","governor","isa","accel","cores","memory_mib"}; owned */
};

/* Returns 0 or -ENOMEM: what cannot be found out is null. proc, sys: roots to read, "/proc" and "/sys"; tests give
 * others. probe_kvm: false leaves kvm unusable. */
int facts_get(const char *proc, const char *sys, bool probe_kvm, struct facts *ret, struct err *e);
void facts_clear(struct facts *f);
