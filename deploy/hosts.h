/* HOSTS.ini: which machines make the fleet, and what each class of them needs.
 *
 *     [fleet]   coordinator= server_key= bulk_port= user= port= identity= known_hosts= data= parallel=
 *     [class X] labels= cores= memory= bulk_rate= class_rate= collect= setup.NAME= setup.NAME.{sudo,reboot,timeout}=
 *               setup.NAME.secret.VAR=file:PATH|env:VARIABLE
 *     [host N]  address= port= user= class= data= hostkey=        N may hold one range: kvm[01-40].lab
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"

enum { HOSTS_MAX = 4096 };

/* What a step's command finds in its environment and nobody else sees. */
struct secret {
    char *name;       /* of the variable: letters, digits, _ */
    char *file, *env; /* where the value is read here; one of them is NULL */
};

struct setup_step {
    char *name, *command; /* run by the host's shell, as the user wrote it */
    bool sudo, reboot;
    uint64_t timeout_ms;
    struct secret *secrets;
    size_t n_secrets;
};

struct host_class {
    char *name;
    char *labels;             /* k=v,... or NULL */
    uint64_t cores;           /* 0 = all of the host's */
    uint64_t bulk_rate_b;     /* of large artefacts, a second, of each host; 0 = no limit */
    uint64_t class_rate_b;    /* of all of its hosts together, at the coordinator; 0 = no limit */
    uint64_t memory_mib;      /* 0 = all */
    bool collect, no_collect; /* yes, no; neither when it is not said */
    struct setup_step *steps; /* in file order */
    size_t n_steps;
};

struct host {
    char *name, *address, *user;
    uint64_t port;
    char *data;                     /* folder on the host; "~/" at its start = the user's home */
    char *hostkey;                  /* "SHA256:..." pinned, or NULL = known_hosts decides */
    const struct host_class *class; /* borrowed from the list; never NULL */
};

struct hosts {
    char *path;
    char *coordinator;            /* endpoint for the agents */
    char *server_key;             /* file with the coordinator's public key */
    uint64_t bulk_port;           /* of the coordinator, for large artefacts; 0 = any */
    char *identity, *known_hosts; /* NULL = ssh's own defaults */
    uint64_t parallel;
    struct host_class **classes; /* the first is "" (no class) */
    size_t n_classes;
    struct host *host; /* in file order, ranges expanded */
    size_t n;
};

/* -SF_EUSAGE with file:line for anything unknown, doubled or out of range. Owned by the caller. */
int hosts_load(const char *path, struct hosts **ret, struct err *e);
void hosts_free(struct hosts **h);

/* HOST and PORT of coordinator=tcp://HOST:PORT (brackets of an IPv6 address removed). false, and both empty, when there is
 * none. */
bool hosts_endpoint(const struct hosts *h, char host[256], char port[8]);
/* The host of the list that coordinator= names by its name or address; NULL = none. Borrowed. */
const struct host *hosts_coordinator(const struct hosts *h);

/* Whether s can stand as a label's value, as labels (k=v,... as the agent takes it: better refused here than on forty
 * hosts), and as a host's name (which is its agent's too, and that of the agent's key). */
bool hosts_label_ok(const char *s);
bool hosts_labels_ok(const char *s);
bool hosts_name_ok(const char *s);

struct ini;
/* A path on this machine: "~/" is our home, else as in any INI. Owned; NULL without memory. */
char *hosts_local_path(const struct ini *ini, const char *value);

/* Expand "kvm[01-40].lab" (one range, width of the first number kept); a name without a range gives
 * itself. cb is called for each; its non-zero return ends the walk and is returned. -SF_EUSAGE for
 * a range that is none. */
int hosts_expand(const char *pattern, const char *place, int (*cb)(void *user, const char *name),
                 void *user, struct err *e);
