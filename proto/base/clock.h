/* Clocks. Leases and deadlines use the monotonic clock only; wall time is for people. */
#pragma once
#include <stdint.h>

#define CLOCK_RFC3339_LEN 32

uint64_t clock_mono_ms(void); /* CLOCK_MONOTONIC */
uint64_t clock_mono_ns(void);
uint64_t clock_wall_ms(void); /* ms since 1970, UTC */

/* "2026-11-21T20:15:03.042Z" into out, at least CLOCK_RFC3339_LEN bytes. */
void clock_rfc3339(uint64_t wall_ms, char *out);
