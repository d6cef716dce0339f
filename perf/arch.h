/* An architecture point: everything that a sweep varies besides the trace. One key list gives the
 * struct, flags, INI keys, JSON and CSV columns, in the order that scripts rely on. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "proto/lib/hash.h"
#include "proto/lib/json.h"

enum arch_policy { POLICY_LRU = 0, POLICY_LFU = 1, POLICY_ORACLE = 2 };
enum rules { RULES_MODEL = 0, RULES_HYPERSIO = 1 };

/* X(name, kind, default, lowest, highest): kind NUM, BOOL or POLICY */
#define ARCH_KEYS(X)                                                                               \
    X(link_gbps, NUM, 200, 1, 12336)                                                               \
    X(queue, NUM, 1, 1, 1u << 20)                                                                  \
    X(inorder, BOOL, 0, 0, 1)                                                                      \
    X(salloc, BOOL, 0, 0, 1)                                                                       \
    X(cc_entries, NUM, 1536, 0, 1u << 24)                                                          \
    X(cc_ways, NUM, 1536, 0, 1u << 24)                                                             \
    X(cc_groups, NUM, 1, 0, 1u << 24)                                                              \
    X(iotlb_entries, NUM, 64, 0, 1u << 24)                                                         \
    X(iotlb_ways, NUM, 8, 0, 1u << 24)                                                             \
    X(iotlb_groups, NUM, 1, 0, 1u << 24)                                                           \
    X(iotlb_policy, POLICY, POLICY_LRU, 0, 2)                                                      \
    X(l2_entries, NUM, 512, 0, 1u << 24)                                                           \
    X(l2_ways, NUM, 16, 0, 1u << 24)                                                               \
    X(l2_groups, NUM, 1, 0, 1u << 24)                                                              \
    X(l3_entries, NUM, 1024, 0, 1u << 24)                                                          \
    X(l3_ways, NUM, 16, 0, 1u << 24)                                                               \
    X(l3_groups, NUM, 1, 0, 1u << 24)                                                              \
    X(pf_entries, NUM, 0, 0, 1u << 20)                                                             \
    X(pf_distance, NUM, 32, 0, 1u << 24)                                                           \
    X(pf_history, NUM, 2, 0, 1u << 16)

struct arch {
#define X(name, kind, def, lo, hi) uint32_t name;
    ARCH_KEYS(X)
#undef X
};

enum { ARCH_N = sizeof(struct arch) / sizeof(uint32_t) };
extern const char *const arch_names[ARCH_N];

void arch_default(struct arch *a);
/* "default" or "hypertrio". Returns 0 or -SF_EUSAGE. place: option or file:line, borrowed. */
int arch_preset(struct arch *a, const char *name, const char *place, struct err *e);
/* One key from text. Returns 0 or -SF_EUSAGE (unknown key, value not of its kind or out of range).
 */
int arch_set(struct arch *a, const char *key, const char *value, const char *place, struct err *e);
/* A HyperSIO architecture file (`CC`, `size:1536`, ...): what it names is set, the rest stays. */
int arch_read_cfg(struct arch *a, const char *path, struct err *e);
/* The same over text in memory, which is changed. path: for messages. */
int arch_cfg_text(struct arch *a, const char *path, char *text, struct err *e);
/* Whether an engine can run it: geometry that the model refuses and the reference crashes on (zero
 * ways, sets not a power of two under model, groups above sets, queue 0, ...). Returns 0 or
 * -SF_EUSAGE with the reason. */
int arch_check(const struct arch *a, enum rules rules, struct err *e);

/* Keys by number, for code that treats them all alike. arch_key(): -1 = unknown. arch_value()
 * parses without setting. */
int arch_key(const char *name);
bool arch_numeric(unsigned k); /* takes ranges */
uint32_t arch_highest(unsigned k);
int arch_value(unsigned k, const char *text, const char *place, uint32_t *ret, struct err *e);
void arch_put(struct arch *a, unsigned k, uint32_t v);
uint32_t arch_get(const struct arch *a, unsigned k);

/* Value of key number k as users write it ("64", "no", "lru"): into out, at least 16 bytes. */
void arch_text(const struct arch *a, unsigned k, char *out);
/* {"link_gbps":200,...,"inorder":false,...,"iotlb_policy":"lru",...} in key order. New reference.
 */
json_t *arch_json(const struct arch *a);
int arch_from_json(const json_t *j, struct arch *ret, struct err *e);
/* The bytes of arch_json() without spaces, NUL behind; returns their number. */
enum { ARCH_TEXT_MAX = 1024 };
size_t arch_text_json(const struct arch *a, char out[ARCH_TEXT_MAX]);

/* The same of many, one after the other: neighbours in a sweep differ in a key or two, and only what changed is written.
 * text: len bytes and a NUL. Cost: about 20 ns for each changed value, 10 ns for the others together. */
struct arch_line {
    struct arch now;     /* that text is of */
    uint16_t at[ARCH_N]; /* the value of each key in text: where it begins, */
    uint8_t n[ARCH_N];   /* and its length */
    size_t len;
    char text[ARCH_TEXT_MAX];
};
void arch_line_first(struct arch_line *l, const struct arch *a); /* whatever *l was */
void arch_line_next(struct arch_line *l, const struct arch *a);

const char *rules_name(enum rules r); /* "model", "hypersio" */
int rules_parse(const char *s, const char *place, enum rules *ret, struct err *e);

/* Id of a point: BLAKE2b-256 of the canonical JSON of {"arch":...,"rules":...,"trace":...}. */
void arch_point_id(const struct arch *a, enum rules rules, const struct id *trace, struct id *ret);
/* Of n points over one trace, a quarter of the time for each when they are neighbours (hash_many()). */
void arch_point_ids(const struct arch *const a[], size_t n, enum rules rules,
                    const struct id *trace, struct id ret[]);
