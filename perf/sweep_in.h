/* What the parts of a sweep share, and nobody else includes: sweep.c expands it, sweep_ini.c reads it as users write it,
 * sweep_json.c stores it. */
#pragma once
#include "perf/sweep.h"

/* An axis is one key with its values, kept as runs: a range is one run, however long it is. A
 * section is a list of axes; a point's digits in the mixed radix of their counts (last axis
 * fastest) choose the values. */
struct run {
    uint64_t lo, step, count;
    bool mul; /* lo * step^i instead of lo + step * i */
};

struct axis {
    int key;
    struct run *runs;
    size_t n;
    uint64_t count;
};

/* Keys of [arch]: 0..ARCH_N-1 are those of arch.h. */
enum {
    KEY_PRESET = ARCH_N,
    KEY_CFG,
    KEY_TENANTS,
    KEY_ORDER,
    KEY_BURST,
    KEY_SEED,
    KEY_REPLICATE,
    KEY_END
};

enum { SWEEP_PRESETS = 2 };
extern const char *const sweep_presets[SWEEP_PRESETS];

/* What an architecture file names; by value, so that no path has to travel. */
struct cfg {
    bool has[ARCH_N];
    struct arch v;
};

struct axes {
    struct axis *v;
    size_t n;
    uint64_t count; /* product */
};

struct arch_sec {
    char *name;
    int line;
    struct axes axes;
    struct cfg *cfgs;
    size_t n_cfgs;
};

struct trace_sec {
    char *name;
    struct axes axes;
    char *file;
    struct id id;
    bool have_id, from_recipe;
    struct recipe recipe;
};

struct sweep {
    struct sweep_head head;
    char *collect_text; /* content of RUN.ini, NULL = none */
    struct trace_sec *traces;
    size_t n_traces;
    struct arch_sec *archs;
    size_t n_archs;
    uint64_t trace_count, arch_count, points;
    struct recipe scratch; /* shallow: logs belong to a section */
};

enum { AXES_MAX = 64, SECTIONS_MAX = 4096, CHECKS_MAX = 1 << 20 };
/* an index stays exact as a JSON number */
#define POINTS_MAX (UINT64_C(1) << 53)

struct sweep *sweep_new(void); /* with the defaults of [sweep]; NULL = no memory */

/* Name of a key, and the key of a name that [trace] takes (-1 = none). */
const char *sweep_key_name(int key);
int sweep_trace_key(const char *name);
/* Values that an axis may hold. Architecture numbers out of their own range make invalid points,
 * which skip_invalid may want to keep, so only the type bounds them here. */
void sweep_key_bounds(int key, uint64_t *lo, uint64_t *hi);

/* One key more, without a value; *ret lives until the next one. -SF_EUSAGE when it stands twice. */
int axes_add(struct axes *a, int key, const char *place, struct axis **ret, struct err *e);
int axis_add(struct axis *x, struct run run, const char *place, struct err *e);
/* Multiply the counts of all axes. */
int axes_seal(struct axes *a, const char *place, struct err *e);

/* Number everything; a sweep without [arch] has the default one. */
int sweep_seal(struct sweep *s, const char *place, struct err *e);
/* Whether a section holds an invalid point: -SF_EUSAGE. Each cache has its own keys, so each is tried alone
 * with all its values while the other axes rest: 10^9 points cost a few thousand checks. */
int sweep_check_section(const struct sweep *s, const struct arch_sec *a, const char *place,
                        struct err *e);
