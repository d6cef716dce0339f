/* The provider of `siofleet deploy slurm`: its places are agents in Slurm jobs, at most one job each.
 *
 * A place is a folder of CONF.ini's data=, which this machine and the nodes see, laid out as the data folder of a host is:
 *     data/releases/ID/            as on hosts          data/job.sh     what Slurm starts
 *     data/NAME-3/{current,args,server.pub,agent.key,agent.key.pub,agent/,run/,log/}
 * The key is made here, for nobody else to read; its path, not its content, stands in args.
 */
#pragma once
#include "deploy/allow.h"
#include "deploy/provider.h"
#include "deploy/release.h"
#include "deploy/slurm.h"

struct slurm_place {
    char *name, *dir;
    uint64_t job;           /* as last seen or submitted; 0 = none */
    struct slurm_job *seen; /* borrowed from the list of slurm_look(); NULL = not in the queue */
};

struct slurm_provider {
    struct provider base;
    const struct slurm_conf *conf;
    const struct release *release;
    const char *server_line; /* the coordinator's public key line, with LF */
    struct allow *allow;
    struct slurm_place *place; /* base.n of them */
    struct slurm_list list;
    size_t strays; /* live jobs of places that there are no more, as last looked */
    bool cancel;   /* PLACE_DOWN ends the job at once instead of asking its agent */
};

/* All borrowed. Makes data= with the release in it. */
int slurm_provider_init(struct slurm_provider *p, const struct slurm_conf *conf,
                        const struct release *release, const char *server_line, struct allow *allow,
                        struct err *e);
void slurm_provider_clear(struct slurm_provider *p);

/* Ask for the queue, and find each place's job in it: the oldest that is alive, else the one it had. Others that are alive in
 * the same place are cancelled: two agents must not share a key; so are those of places beyond a smaller max=. On failure
 * everything is as before. */
int slurm_look(struct slurm_provider *p, struct err *e);

/* PLACE_CHECK: could its job ever run? PLACE_UP: submit it. PLACE_STATUS: is it there, as last looked? PLACE_LOGS: the last
 * lines of its agent. PLACE_DOWN: end its job. PLACE_UPGRADE: nothing to do, a job has the release of when it started. */

/* The key of a place that has no job: no longer allowed, no longer there. */
int slurm_forget_key(struct slurm_provider *p, size_t place, struct err *e);
