/* The child's side of a task: what `siofleet __task DIR` does under the shim. No fleet, no network.
 *
 * Reads DIR/spec.json and DIR/run.json. A points task appends a row to DIR/rows for each point as it is done, in any
 * order; a trace task writes DIR/product and DIR/info.json. Errors go to stderr, one line.
 *
 * Returns the exit status: 0, 1 = failed, RUN_EXIT_INTEGRITY, RUN_EXIT_RECIPE, RUN_EXIT_SPACE.
 */
#pragma once

/* In the environment: bytes that are to stay free on the disk of DIR (or SPACE_AUTO, proto/base/space.h); with less, or none, a points task waits between points and a
 * trace task before it begins. It says so once on stderr and goes on by itself. "" or 0 = a full disk ends it (RUN_EXIT_SPACE). */
#define TASK_LOW_WATER "SIOFLEET_LOW_WATER"

/* File in DIR of a task that ended with RUN_EXIT_INTEGRITY: the inputs that it has found whole, an id in hex a line. */
#define TASK_WHOLE "whole"

int task_main(const char *dir);
