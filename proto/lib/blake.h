/* BLAKE2b-256 of several messages at once, a vector lane each. One message can use no more than a
 * quarter of a vector unit, since each of its steps waits for the one before; four or eight side by
 * side fill it. Inside of hash.c, which has the case of one message (libsodium). */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* How many at a time are worth collecting: 8 (AVX-512), 4 (AVX2) or 1 (neither: blake_lanes() must not be called).
 * SIOFLEET_ISA pins it. */
enum { BLAKE_LANES = 8 };
size_t blake_width(void);

/* Of 128 bytes, the last one perhaps not full: how many a message of n bytes has. */
size_t blake_blocks(size_t n);

/* out[i] = BLAKE2b-256 of the n[i] bytes at p[i], for count (1 to blake_width()) messages.
 *
 * n        blake_blocks() of all are equal
 * Cost     that of 4, for up to 4, else that of 8 messages; no allocation. GB/s of a core that does 0.65 of one message
 *          (shared with a busy neighbour): 1.3 with AVX2, 1.8 with 4 and 2.5 with 8 lanes of AVX-512.
 * Source   RFC 7693. */
void blake_lanes(const uint8_t *const p[], const size_t n[], size_t count, uint8_t (*out)[32]);
