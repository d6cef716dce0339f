/* CONF.ini of `siofleet deploy slurm`: how many agents to keep in Slurm's allocations, and what each asks for.
 *
 *     [fleet]  coordinator= server_key= key=
 *     [slurm]  name= data= min= max= idle= points= cores= memory= labels= walltime= drain= start= held= poll=
 *              partition= account= qos= constraint= reservation= options=
 */
#pragma once
#include <stdint.h>

#include "proto/base/err.h"

enum { SLURM_MAX = 1000 }; /* agents */

struct slurm_conf {
    char *path;
    char *coordinator, *server_key; /* endpoint for the agents; file with its public key */
    char *key;                      /* of a user, for drain and for asking; NULL = the usual ones */
    char *name;                     /* agents are NAME-1 ... */
    char *data;                     /* folder that this machine and all nodes see; absolute */
    uint64_t min, max;              /* agents */
    uint64_t points;                /* an agent is wanted for each so many points that wait */
    uint64_t idle_ms;               /* an agent without work for so long is let go */
    uint64_t walltime_ms;           /* of a job; whole minutes */
    uint64_t drain_ms; /* so long before the end of its job an agent gets nothing new */
    uint64_t start_ms; /* an agent that has not registered by then is given up */
    uint64_t held_ms;  /* so long a job may be held by what waiting does not mend */
    uint64_t poll_ms;
    uint64_t cores, memory_mib; /* of a job; memory 0 = what the partition gives */
    char *labels;               /* k=v,... or NULL */
    char *partition, *account, *qos, *constraint, *reservation; /* NULL = not said */
    char **options; /* further words for sbatch; NULL-terminated; never NULL */
};

/* -SF_EUSAGE with file:line for anything unknown, doubled or out of range. Owned by the caller. */
int slurm_conf_load(const char *path, struct slurm_conf **ret, struct err *e);
void slurm_conf_free(struct slurm_conf **c);
