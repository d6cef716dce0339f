#include "proto/lib/locked.h"

#include <dlfcn.h>
#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static struct slot {
    atomic_bool taken;
    unsigned char *mem; /* LOCKED_MAX_B bytes up to the guard page; never unmapped */
} slots[LOCKED_SLOTS];

static atomic_uint n_slots; /* those before it have memory */
static atomic_ullong served;

void locked_start(void)
{
    static atomic_flag once = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&once))
        return;
    for (unsigned i = 0; i < LOCKED_SLOTS; i++) {
        if (!(slots[i].mem = sodium_malloc(LOCKED_MAX_B)))
            return;
        sodium_memzero(slots[i].mem, LOCKED_MAX_B);
        atomic_store_explicit(&n_slots, i + 1, memory_order_release);
    }
}

uint64_t locked_served(void)
{
    return atomic_load(&served);
}

void *sodium_allocarray(size_t count, size_t size)
{
    if (count && size >= SIZE_MAX / count) {
        errno = ENOMEM;
        return NULL;
    }
    size_t n = count * size;
    unsigned have = atomic_load_explicit(&n_slots, memory_order_acquire);
    for (unsigned i = 0; n && n <= LOCKED_MAX_B && i < have; i++)
        if (!atomic_exchange_explicit(&slots[i].taken, true, memory_order_acquire)) {
            atomic_fetch_add_explicit(&served, 1, memory_order_relaxed);
            return slots[i].mem + LOCKED_MAX_B - n;
        }
    return sodium_malloc(n);
}

/* libsodium's own, behind ours. */
static void free_mapped(void *p)
{
    static _Atomic(void *) found;
    void *f = atomic_load(&found);
    if (!f) {
        if (!(f = dlsym(RTLD_NEXT, "sodium_free")))
            abort(); /* there would be no way to wipe it */
        atomic_store(&found, f);
    }
    void (*own)(void *);
    memcpy(&own, &f, sizeof(own));
    own(p);
}

void sodium_free(void *p)
{
    unsigned have = atomic_load_explicit(&n_slots, memory_order_acquire);
    for (unsigned i = 0; p && i < have; i++) {
        uintptr_t at = (uintptr_t)p - (uintptr_t)slots[i].mem;
        if (at < LOCKED_MAX_B) {
            sodium_memzero(slots[i].mem, LOCKED_MAX_B);
            atomic_store_explicit(&slots[i].taken, false, memory_order_release);
            return;
        }
    }
    free_mapped(p);
}
