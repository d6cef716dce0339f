/* All verbs of the program, gathered from the folders that are part of this build. */
#pragma once
#include <stddef.h>

#include "proto/base/opt.h"

extern const struct verb own_verbs[]; /* help, completion: of the command line itself */

/* Call cb for each listed verb, in the order of the help; verbs whose name starts with '_' are internal and not
 * listed. cb != 0 stops and is returned. */
int verbs_each(int (*cb)(void *user, const struct verb *v), void *user);

/* The verb that argv names with its first one or two words; two words win. *ret_words says how many. NULL = none. */
const struct verb *verbs_find(int argc, char **argv, int *ret_words);

/* First word of at least one two-word verb. */
int verbs_is_group(const char *word);
const char *verbs_group_summary(const char *word); /* NULL = none */
