/* Small cases made in memory, the same on every machine: what their instructions are counted by. */
#pragma once

/* `--count NAME REPS`: run one case REPS times and print its events. Returns the exit status. */
int counted_run(const char *name, unsigned reps);

/* Instructions an event of every case, by this program under cachegrind; says so where valgrind is missing. */
void counted_table(void (*note)(const char *name, double v));
