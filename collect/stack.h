/* One run: boot a stack of guests, start tracing when they are ready, run the workload, stop, take everything home.
 *
 * The runner is one process a run: it forks QEMU and its helpers with a parent-death signal, talks to them over
 * socketpairs it made itself (no socket path, no port of its own), and owns one folder.
 */
#pragma once
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "collect/conf.h"
#include "proto/base/err.h"
#include "proto/lib/hash.h"
#include "proto/lib/json.h"

struct stack_env {
    const char *qemu;   /* binary */
    const char *share;  /* firmware folder for -L, NULL = QEMU's own */
    const char *image;  /* guest image folder */
    const char *nested; /* cpio with QEMU and L2 parts; NULL unless profile tenants */
    const char *disk;   /* the guest's disk image, left as it is; NULL = none */
    bool ssh;           /* the disk has sshd: made reachable */
    bool kvm;
    bool keep;                         /* leave the guest up after the workload until *stop */
    const char *growing;               /* second name of the log while it is written, NULL = none */
    const char *growing_text;          /* tracer = both: of the text beside the ring's */
    const char *vm_dir;                /* state folder of this stack: console socket, pids */
    const volatile sig_atomic_t *stop; /* set = cancel (or end of keep) */
};

struct stack_phases {
    uint64_t boot_ms, ready_ms, measured_ms, stop_ms;
};

struct stack_log {
    char name[32]; /* inside the run's folder; "" = none */
    struct id id;
    uint64_t bytes, events, devices;
};

struct stack_result {
    struct stack_phases phases;
    struct stack_log log, text; /* text: beside a ring's log (tracer = both) */
    uint64_t dropped;
    json_t *workload; /* [{name,exit,path}] */
    json_t *commands; /* {name: [argv]} */
    bool workload_failed;
};

/* dir: an existing, empty folder; on failure its content is of no use. Returns 0, -ECANCELED after *stop, or an error
 * whose text names the phase and the guest's last words.
 * Threads: call from the main thread of a single-threaded process (parent-death signals go by thread). */
int stack_run(const struct collect_conf *c, const struct stack_env *env, const char *dir,
              struct stack_result *ret, struct err *e);
void stack_result_clear(struct stack_result *r);

/* Whether cards of this run ask the IOMMU for translations that they keep (ATS): the kernel's vhost does, nothing else. */
bool stack_asks(const struct collect_conf *c);

/* Host memory a run needs, in bytes, with the sum as text for a refusal (at least 160 bytes). */
uint64_t stack_memory(const struct collect_conf *c, char *why, size_t room);
