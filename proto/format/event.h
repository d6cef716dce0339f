/* One event of an IOMMU log: what the ring tracer writes, a log file (.slog) holds and a trace is built from.
 *
 * 40 bytes, host (little-endian) order; the patched QEMU writes exactly this layout (qemu-patch/, vtd_ring.h).
 * The payload words have a name a kind:
 *
 *   kind          sid     level         domain        p[0]     p[1]      p[2]
 *   CC_UPDATE     device  1 = snapshot  -             high     low       gen before | gen after << 32
 *   CC_HIT        device  -             -             high     low       gen
 *   SLPTE_FETCH   device  1..4          domain        iova     slpte     table base
 *   PAGE_UPDATE   device  1..4          domain        iova     slpte     -
 *   PAGE_HIT      device  -             domain        iova     slpte     page mask
 *   INVALIDATE    device  enum log_inv  domain        address  log2 pages  -
 *   FAULT         device  VT-d reason   1 = write     address  -         -
 *   ATS           device  0 = request   1 = write     iova     -         -
 *                         1 = device-IOTLB invalidation        address  bytes  -
 *
 * A walk belongs to the context event just before it: everything happens under the IOMMU lock, so high and low of a
 * SLPTE_FETCH are those of the last context event (in a text log too: QEMU prints them from the same entry).
 * A snapshot is a context entry that was cached when tracing was switched on; gen before = gen after.
 */
#pragma once
#include <stdint.h>

enum log_kind {
    LOG_CC_UPDATE = 1,
    LOG_CC_HIT,
    LOG_SLPTE_FETCH,
    LOG_PAGE_UPDATE,
    LOG_PAGE_HIT,
    LOG_INVALIDATE,
    LOG_FAULT,
    LOG_ATS,
    LOG_KINDS /* one past the last */
};

enum log_inv {
    LOG_INV_CC_GLOBAL = 1,
    LOG_INV_CC_DEVICE,
    LOG_INV_IOTLB_GLOBAL,
    LOG_INV_IOTLB_DOMAIN,
    LOG_INV_IOTLB_PAGES,
    LOG_INV_IOTLB_FULL, /* the emulated IOTLB dropped all entries by itself: its limit was reached */
};

struct log_event {
    uint64_t time_ns; /* host's monotonic clock, or the guest's virtual clock under icount; 0 = not known */
    uint16_t sid;     /* bus << 8 | devfn */
    uint8_t kind;     /* enum log_kind */
    uint8_t level;
    uint32_t domain;
    uint64_t p[3];
};

_Static_assert(sizeof(struct log_event) == 40, "the ring's record layout");
