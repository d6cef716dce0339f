/* What the verbs of `deploy` show to people: one line a host. */
#pragma once
#include <stdio.h>

#include "deploy/hosts.h"
#include "deploy/provider.h"

/* What a host said of itself; "" = it did not. Borrowed. */
const char *deploy_fact(const struct place_result *r, const char *key);
/* The table of check, of status, or of what changes something. list, results: n each. */
void deploy_table(enum place_verb verb, const struct host *const list[],
                  const struct place_result results[], size_t n, FILE *f);
/* The table of status as one screen of the terminal that stdout is: cleared first, cut to its width and height. Returns 0, or
 * 1 when a host failed or the terminal is gone. */
int deploy_screen(const struct host *const list[], const struct place_result results[], size_t n);
