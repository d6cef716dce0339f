/* The table of messages in proto/wire/README.md. */
#pragma once
#include <stdio.h>

void wire_table(FILE *f);
