/* Inside of a run (stack.h): what its parts share. children.c starts and ends processes, boot.c makes the guests' command
 * lines and files, trace.c switches the tracers, hear.c understands the guests, stack.c is the run from start to end. */
#pragma once
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "collect/qmp.h"
#include "collect/ring.h"
#include "collect/sink.h"
#include "collect/stack.h"
#include "collect/text.h"
#include "proto/base/buf.h"

enum {
    PROCS_MAX = 2 + 2 * CONF_NICS_MAX,
    CONF_MAX = 64 * 1024,
    LINE_MAX_B = 4096,
    FILE_MAX_B = 64 << 20,
    SERIAL_MAX_B = 16 << 20, /* of a guest's console that is kept */
    SPACE_MIN_MIB = 64,      /* left on the disk while a run goes on */
    RING_RECORDS =
        1 << 20, /* 40 MiB: five seconds of a typical run, half a second of the busiest */
    MIB = 1 << 20,
};

/* ---- children.c */

/* An argument vector; failed: no memory or too many, which spawn() reports. */
struct args {
    char *v[512];
    size_t n;
    bool failed;
};

void args_clear(struct args *a);
void arg(struct args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "-name" and its value */
#define arg2(a, name, ...) (arg(a, "%s", name), arg(a, __VA_ARGS__))

struct proc {
    char name[16];
    pid_t pid;
    bool ended;
    int status;
};

struct stack;

/* fds: what the child keeps, -1 ends the list. Its output goes to DIR/NAME.err. */
int spawn(struct stack *s, const char *name, struct args *a, const int fds[], struct proc **ret,
          struct err *e);
bool proc_ended(struct proc *p);
void proc_kill(struct proc *p);
/* How long the thread of p that waited most has been ready to run without a processor, in ms since its start; 0 where the
 * kernel does not say. */
uint64_t proc_starved_ms(const struct proc *p);
/* Last line of DIR/NAME.err: why a process ended. */
void last_words(const struct stack *s, const char *name, char *out, size_t room);

/* ---- the run */

enum phase { PH_BOOT, PH_START, PH_MEASURE, PH_SEND, PH_EXIT, PH_DONE };
extern const char *const phase_names[];

/* A guest with its three lines: console (serial 0), control (serial 1), monitor. */
struct vm {
    struct proc *proc;
    int con, ctl, mon;
    struct buf line;  /* console line so far */
    char last[200];   /* last console line that says something */
    struct buf words; /* control bytes not yet understood */
    char file_name[64];
    uint64_t file_left; /* bytes of a FILE still to come */
    int file_fd;
    int log_fd;
    uint64_t log_len;
    bool ready, told_boot;
};

struct stack {
    const struct collect_conf *c;
    const struct stack_env *env;
    const char *dir;
    struct stack_result *res;
    struct proc procs[PROCS_MAX];
    size_t n_procs;
    struct vm l1, clients[CONF_GUESTS_MAX];
    size_t n_clients;
    struct qmp qmp;
    struct ring ring;
    struct sink *sink;
    struct text *text;
    struct reader {
        pthread_t thread;
        bool runs;
        struct err err; /* valid after the join */
    } ring_reader, text_reader;
    int reader_stop; /* atomic, of both */
    int ports[CONF_NICS_MAX];
    int ssh_port; /* 0 = no way in */
    bool vhost;   /* the kernel serves the NICs, and asks for translations itself (ATS) */
    int con_listen, con_peer; /* `vm console` */
    enum phase phase;
    uint64_t start_ms, phase_ms, end_ms, last_status_ms, last_space_ms;
    uint64_t starved_ms; /* of L1's QEMU, at the start of the phase */
    int end_status;
    char trouble[300]; /* panic or the like, seen on a console */
    char initrd[PATH_MAX];
};

/* Every phase has its deadline. Time in which L1's QEMU got no processor does not count, up to three times the deadline: a
 * busy host is not a silent guest. */
void enter(struct stack *s, enum phase p);

/* ---- boot.c */

/* Start everything up to L1's QEMU, which then runs. */
int start_l1(struct stack *s, const int net_fds[], struct err *e);
int start_client(struct stack *s, uint64_t i, int net_fd, struct err *e);
/* iperf3's server side for one NIC, from the guest image. A port that somebody takes meanwhile is replaced. */
int start_peer(struct stack *s, uint64_t i, struct err *e);
int make_disks(struct stack *s, struct err *e);

/* ---- trace.c */

extern const char *const text_events[]; /* NULL-terminated */
bool has_ring(const struct collect_conf *c);
bool has_text(const struct collect_conf *c);
/* Traced from reset to the end, not in the measured phase only. */
bool whole_run(const struct collect_conf *c);
/* Whether this tracer has that event: stock QEMU lacks one. */
bool has_event(const struct collect_conf *c, const char *event);
int trace_start(struct stack *s, bool snapshot, struct err *e);
int trace_stop(struct stack *s, struct err *e);
/* What needs no QEMU that still answers: the ring's records off, its last ones taken, the readers ended. May be called again. */
int readers_stop(struct stack *s, struct err *e);
/* Complete the log; -SF_EFAILED when records were lost and that is not allowed, or nothing was traced. */
int take_log(struct stack *s, struct err *e);

/* ---- hear.c */

/* Read what waits on a guest's console or control line and act on it; closes the line at its end. */
int hear(struct stack *s, struct vm *v, bool control, struct err *e);
void console_open(struct stack *s);
void console_turn(struct stack *s, bool incoming, bool typed);
