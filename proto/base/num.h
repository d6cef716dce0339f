/* Numbers as users write them. All return 0, or -SF_EUSAGE with "PLACE: CAUSE" in *e.
 *
 * place  what to name in an error: an option, or file:line; borrowed
 */
#pragma once
#include <stdint.h>

#include "proto/base/err.h"

/* Decimal, no sign, no blanks, lo <= *ret <= hi. */
int num_u64(const char *s, uint64_t lo, uint64_t hi, const char *place, uint64_t *ret,
            struct err *e);

/* Bytes: a number, optionally K, M, G or T (powers of 1024). */
int num_size(const char *s, const char *place, uint64_t *ret_b, struct err *e);

/* Times: a number with ms, s, m or h: 500ms 10s 5m. */
int num_ms(const char *s, const char *place, uint64_t *ret_ms, struct err *e);
/* The other way, for people: "250 ms", "3.2 s", "10 m", "1.5 h", "2 d". Returns out. */
enum { NUM_MS_LEN = 24 };
char *num_ms_text(uint64_t ms, char out[NUM_MS_LEN]);

/* yes/no (also true/false, on/off, 1/0). *ret is 1 or 0. */
int num_bool(const char *s, const char *place, uint64_t *ret, struct err *e);
