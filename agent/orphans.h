/* What a task left behind whose shim was killed. While a shim lives nothing gets away from it; when it is killed, the
 * kernel kills the command, and the rest of the tree is found here:
 *
 *   by its control group, where it had one: all of it, at one blow
 *   by its mark (tree.h), and by SIOFLEET_TASK_DIR in its environment where a mark could not be set
 *
 * Each signal goes to the process that was looked at, never to another one that got its number since.
 */
#pragma once
#include <stdint.h>

#include "agent/cgroup.h"

/* The mark of the task in that folder: the same for as long as the folder is there; 0 without one. */
uint64_t orphans_mark(const char *dir);

/* The control group of the task in that folder, below base. */
void orphans_group(const char *base, const char *dir, char out[CGROUP_PATH_MAX]);

/* End all of a task whose shim does not live (any more). Waits until they are gone, at most 3 s. base: NULL = the agent
 * makes no groups now; that of a task of before is found too. Returns how many processes were found. */
unsigned orphans_kill(const char *base, const char *dir);

/* End and remove what is left in groups of tasks of this folder whose own folder is not there: nobody knows them. */
void orphans_sweep_groups(const char *base, const char *tasks);
