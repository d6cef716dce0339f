#include "collect/ring.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/base/clean.h"

enum { RING_DATA = 4096, RING_VERSION = 1 };

int ring_new(struct ring *r, uint64_t n_records, struct err *e)
{
    *r = (struct ring){ .fd = -1 };
    CLEANUP(closep) int fd = memfd_create("siofleet-ring", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "trace ring");
    size_t size = RING_DATA + n_records * sizeof(struct log_event);
    if (ftruncate(fd, (off_t)size) < 0)
        return err_sys(e, errno, "trace ring: %zu bytes", size);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return err_sys(e, errno, "trace ring: %zu bytes", size);
    r->size = size;
    r->h = p;
    r->rec = (const struct log_event *)((const char *)p + RING_DATA);
    memcpy(r->h->magic, "SIORING1", 8);
    r->h->version = RING_VERSION;
    r->h->record_size = sizeof(struct log_event);
    r->h->n_records = n_records;
    r->h->data_off = RING_DATA;
    r->fd = take_fd(&fd);
    return 0;
}

void ring_clear(struct ring *r)
{
    if (r->h) {
        munmap(r->h, r->size);
        close(r->fd);
    }
    *r = (struct ring){ .fd = -1 };
}

void ring_enable(struct ring *r, uint32_t state, bool snapshot)
{
    if (snapshot)
        __atomic_store_n(&r->h->snapshot, r->h->snapshot + 1, __ATOMIC_RELEASE);
    __atomic_store_n(&r->h->enable, state, __ATOMIC_RELEASE);
}

int64_t ring_peek(struct ring *r, const struct log_event **ret, struct err *e)
{
    uint64_t n_records = (r->size - RING_DATA) / sizeof(struct log_event);
    uint64_t n = __atomic_load_n(&r->h->head, __ATOMIC_ACQUIRE) - r->tail;
    if (n > n_records)
        return err_set(e, SF_EINTEGRITY,
                       "trace ring: %" PRIu64 " records wait in a ring of %" PRIu64, n, n_records);
    uint64_t at = r->tail & (n_records - 1);
    if (n > n_records - at)
        n = n_records - at;
    *ret = r->rec + at;
    return (int64_t)n;
}

void ring_release(struct ring *r, uint64_t n)
{
    r->tail += n;
    __atomic_store_n(&r->h->tail, r->tail, __ATOMIC_RELEASE);
}

uint64_t ring_dropped(const struct ring *r)
{
    return __atomic_load_n(&r->h->dropped, __ATOMIC_ACQUIRE);
}
