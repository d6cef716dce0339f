/* Locked memory that is used again.
 *
 * libzmq takes each plaintext of a CURVE handshake from libsodium's guarded allocator: five on a server, each a mapping of its
 * own that is protected, locked, wiped and unmapped again, ten system calls, and, with a second thread, an interrupt of the
 * other core. Of 0.62 ms that a handshake takes that is a quarter, and after a restart thousands come at once.
 *
 * After locked_start() sodium_allocarray() and sodium_free() of this program, which the loader gives to libzmq as well, hand
 * out LOCKED_SLOTS pages that were mapped so once, one for each allocation of up to LOCKED_MAX_B bytes. What they promise
 * stays: the pages are locked, kept out of core dumps and lie between guard pages, the end of an allocation on the guard
 * page behind it; what is freed is wiped at once. What is given up is that the use of a freed one faults. When all slots are
 * taken, and for what is larger, libsodium's own is called. Where the loader does not give them to libzmq it is slower.
 */
#pragma once
#include <stdint.h>

enum { LOCKED_SLOTS = 8, LOCKED_MAX_B = 2048 };

/* Idempotent. Never fails: without memory there are fewer slots. Any thread may allocate and free, also while this runs. */
void locked_start(void);

/* How many allocations slots have served so far. */
uint64_t locked_served(void);
