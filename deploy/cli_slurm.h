/* `siofleet deploy slurm`: the loop around slurm_provider (what there is), scale (what ought to be) and the coordinator. */
#pragma once
#include <stdbool.h>

#include "proto/base/opt.h"

struct slurm_opt {
    struct opt_u64 min, max, idle;
    bool template, log_json;
    const char *data;
};

/* The verb's options and its run(). */
extern const struct opt slurm_opts[];
int slurm_run(struct cli *c, void *o, int argc, char **argv);
