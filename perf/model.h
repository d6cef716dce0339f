/* Inside of the model engine: what setup (model.c) hands to the loop (model_loop.h, compiled once a
 * instruction set). Semantics: perf/README.md. Nothing outside perf/model*.c includes this, but for
 * tests. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "perf/arch.h"
#include "perf/engine.h"
#include "perf/tlb.h"
#include "proto/format/trace.h"

/* All times in ps. Source: HyperSIO's constants (perf-model section 10), each applied as its full
 * nominal latency. */
enum {
    MODEL_STAGE_PS = 1000, /* a stage starts at most one access a ns */
    MODEL_CC_HIT_PS = 1000,
    MODEL_CC_MISS_PS = 1000000, /* PCIe both ways and two memory reads */
    MODEL_TLB_HIT_PS = 2000,
    MODEL_PCIE_PS = 450000,
    MODEL_MEM_PS = 50000,
    MODEL_PAGE_HIT_PS = 5000,
    MODEL_HISTORY_PS = MODEL_PCIE_PS + MODEL_MEM_PS,
    MODEL_PACKET_FBIT = 12336000, /* a packet's wire time in ps is this / link_gbps */
    MODEL_PACKET_EVENTS = 3,
    MODEL_PF_MAX = 2048, /* prefetches under way; further ones are dropped and counted */
};
#define MODEL_NEVER UINT64_MAX

/* What the loop needs to know of a trace entry: half a cache line. Keys are dense numbers. */
struct model_entry {
    uint32_t iotlb, l2, l3, cc; /* keys; the IOTLB's and the CC's are numbered by (key, set) */
    uint32_t gid, iotlb_set;
    uint32_t l2_set; /* low 25 bits, level in the top 2 */
    uint32_t l3_set; /* low 25 bits, MODEL_ALLOC_* in the top 3 */
};
enum { MODEL_SET_BITS = 25, MODEL_SET_MASK = (1 << MODEL_SET_BITS) - 1, MODEL_LEVEL_SHIFT = 30 };
#define MODEL_ALLOC_IOTLB (1u << 29)
#define MODEL_ALLOC_L2 (1u << 30)
#define MODEL_ALLOC_L3 (1u << 31)

/* A translation in a queue. */
struct model_item {
    uint64_t t; /* when it is ready */
    uint64_t
        ex; /* low half: entry number with the flags below; high half: next use of its key (Belady only) */
};
#define MODEL_F_PREFETCH (1u << 31)
#define MODEL_F_LEAF (1u << 30) /* answered by a page cache: 455 ns after its pick, not 450 */
#define MODEL_F_ENTRY (MODEL_F_LEAF - 1)

/* Behind the last item stands one that is never ready: an empty queue needs no test. */
struct model_ring {
    char *a;                   /* items, owned */
    uint64_t mask, head, tail; /* in bytes; head and tail stay inside */
};

struct model_flow {
    uint64_t first, last, n; /* slot of its first packet, its last completion, completions */
};

/* The prefetcher's view of a requester: (source-id, tenant) */
struct model_req {
    uint32_t next; /* predicted successor, TLB_NONE = none */
    uint8_t confidence;
    uint32_t used, at; /* history: filled places, place of the oldest */
    uint64_t hit, miss;
};

struct model {
    const uint32_t *ev, *next_use; /* borrowed from the trace; next_use NULL unless Belady */
    uint64_t n, pos;
    struct model_entry *entry;
    struct tlb cc, iotlb, l2, l3, buffer;
    uint32_t *cc_set;               /* by CC key; NULL with one set */
    bool inorder, prefetch, common; /* common: the shapes that the loop's short form knows */

    uint64_t gbps, queue;
    /* out: the slot behind the last packet's, the last completion, packets read, slots refused */
    uint64_t slot, last, sent, dropped;

    /* queues of the four stages; QI takes from two, what QC answered and what came back over PCIe */
    struct model_ring qc, qp, qf, qi_near, qi_far;

    struct model_flow *flow;
    uint32_t *flow_order, n_flows, n_gids; /* tenants in order of first completion */

    /* prefetcher */
    struct model_req *req;
    uint32_t *entry_req, *entry_page; /* by entry: requester; page key for buffer and history */
    uint32_t *history;                /* depth a requester: entry numbers */
    uint32_t depth, distance;
    uint32_t *fifo, *guess; /* the last `distance` requesters and what was predicted at each */
    uint32_t fifo_at, fifo_used;
    uint32_t under_way, n_req;
    uint64_t predictions, correct, incorrect, same, different, mappings, buffer_hit, buffer_miss,
        pf_dropped;
};

void model_loop_scalar(struct model *m);
void model_loop_avx2(struct model *m);
void model_loop_avx512(struct model *m);

int model_run(const struct trace *t, const struct arch *a, struct row_stats *ret,
              struct engine_detail *detail, struct err *e);
