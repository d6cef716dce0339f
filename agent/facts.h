/* What an agent tells of its host: for matching tasks to hosts, and as provenance beside every result. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/json.h"

struct facts {
    uint64_t cores;      /* that this process may run on */
    uint64_t memory_mib; /* of the host */
    bool kvm;            /* usable, by running a guest */
    json_t *
        json; /* {"host","cpu","microcode","kernel","governor","isa","accel","cores","memory_mib"}; owned */
};

/* Names this boot of the host; "" when it is not known. */
enum { FACTS_BOOT = 40 };
void facts_boot(char out[FACTS_BOOT]);

/* Whether KVM is usable: found out by running a guest (up to 2 s where it is not), then kept in the file `cache` for as
 * long as this boot of the host and the access to /dev/kvm stay the same: a restarted agent is back at once. */
bool facts_kvm(const char *cache);

/* Returns 0 or -ENOMEM: what cannot be found out is null. proc, sys: roots to read, "/proc" and "/sys"; tests give
 * others. kvm: see facts_kvm(). */
int facts_get(const char *proc, const char *sys, bool kvm, struct facts *ret, struct err *e);
void facts_clear(struct facts *f);
