/* Texts made from the verb tables: help, manual page, shell completion. */
#pragma once
#include "proto/base/opt.h"

void help_program(void);
void help_group(const char *word);
void help_verb(const struct verb *v);
void help_man(void);                    /* siofleet(1), roff */
int help_completion(const char *shell); /* bash, zsh, fish; -1 = unknown shell */
