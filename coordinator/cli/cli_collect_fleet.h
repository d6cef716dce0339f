/* `collect RUN.ini` on the fleet, and what a sweep with [collect] shares with it. */
#pragma once
#include "collect/recipe.h"
#include "proto/client/client.h"
#include "proto/lib/json.h"

/* Give the verb `collect` a fleet. */
void collect_fleet_init(void);

/* Upload what the recipe names by path. */
int collect_put_files(struct client *cl, const struct collect_recipe *r,
                      struct id ids[COLLECT_FILES_MAX], struct err *e);
/* The job as it is submitted. ids: of its files. *ret: a new reference. -ENOMEM. */
int collect_job(const struct collect_recipe *r, const struct id ids[], const char *name,
                const char *labels, bool again, json_t **ret);
