#include "perf/arch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"

enum kind { NUM, BOOL, POLICY };

struct key {
    const char *name;
    enum kind kind;
    uint32_t def, lo, hi;
};

static const struct key keys[ARCH_N] = {
#define X(name, kind, def, lo, hi) { #name, kind, def, lo, hi },
    ARCH_KEYS(X)
#undef X
};

const char *const arch_names[ARCH_N] = {
#define X(name, kind, def, lo, hi) #name,
    ARCH_KEYS(X)
#undef X
};

static const char *const policies[] = { "lru", "lfu", "oracle" };

/* The struct is a plain array of its keys: that is what lets one list serve everything. */
static uint32_t *values(struct arch *a)
{
    return (uint32_t *)(void *)a;
}

static const uint32_t *values_ro(const struct arch *a)
{
    return (const uint32_t *)(const void *)a;
}

void arch_default(struct arch *a)
{
    static const struct arch all = {
#define X(name, kind, def, lo, hi) .name = def,
        ARCH_KEYS(X)
#undef X
    };
    *a = all;
}

int arch_preset(struct arch *a, const char *name, const char *place, struct err *e)
{
    if (!strcmp(name, "default")) {
        arch_default(a);
        return 0;
    }
    if (!strcmp(name, "hypertrio")) {
        arch_default(a);
        a->queue = 32;
        a->iotlb_groups = 8;
        a->l2_groups = 32;
        a->l3_groups = 64;
        a->pf_entries = 8;
        a->pf_distance = 48;
        a->pf_history = 2;
        return 0;
    }
    return err_set(e, SF_EUSAGE, "%s: unknown preset '%.64s' (default, hypertrio)", place, name);
}

int arch_key(const char *name)
{
    for (unsigned k = 0; k < ARCH_N; k++)
        if (!strcmp(keys[k].name, name))
            return (int)k;
    return -1;
}

uint32_t arch_highest(unsigned k)
{
    return keys[k].hi;
}

bool arch_numeric(unsigned k)
{
    return keys[k].kind == NUM;
}

int arch_value(unsigned k, const char *text, const char *place, uint32_t *ret, struct err *e)
{
    uint64_t v = 0;
    int r = 0;
    switch (keys[k].kind) {
    case NUM:
        r = num_u64(text, keys[k].lo, keys[k].hi, place, &v, e);
        break;
    case BOOL:
        r = num_bool(text, place, &v, e);
        break;
    case POLICY:
        for (v = 0; v < ARRAY_LEN(policies) && strcmp(policies[v], text); v++)
            ;
        if (v == ARRAY_LEN(policies))
            r = err_set(e, SF_EUSAGE, "%s: unknown policy '%.64s' (lru, lfu, oracle)", place, text);
        break;
    }
    if (r == 0)
        *ret = (uint32_t)v;
    return r;
}

int arch_set(struct arch *a, const char *key, const char *value, const char *place, struct err *e)
{
    int k = arch_key(key);
    if (k < 0)
        return err_set(e, SF_EUSAGE, "%s: unknown architecture key '%.64s'", place, key);
    return arch_value((unsigned)k, value, place, values(a) + k, e);
}

void arch_put(struct arch *a, unsigned k, uint32_t v)
{
    values(a)[k] = v;
}

uint32_t arch_get(const struct arch *a, unsigned k)
{
    return values_ro(a)[k];
}

/* ---- HyperSIO's architecture file */

static const struct {
    const char *section, *field, *key;
} cfg_fields[] = {
    { "CC", "size", "cc_entries" },          { "CC", "assoc", "cc_ways" },
    { "CC", "groups", "cc_groups" },         { "IOTLB", "size", "iotlb_entries" },
    { "IOTLB", "assoc", "iotlb_ways" },      { "IOTLB", "groups", "iotlb_groups" },
    { "L2PAGE", "size", "l2_entries" },      { "L2PAGE", "assoc", "l2_ways" },
    { "L2PAGE", "groups", "l2_groups" },     { "L3PAGE", "size", "l3_entries" },
    { "L3PAGE", "assoc", "l3_ways" },        { "L3PAGE", "groups", "l3_groups" },
    { "PREFETCH", "size", "pf_entries" },    { "PREFETCH", "assoc", "pf_distance" },
    { "PREFETCH", "histlen", "pf_history" },
};

static const char *const cfg_sections[] = {
    "CC", "IOTLB", "L2PAGE", "L3PAGE", "L1PAGE", "PREFETCH"
};
static const char *const cfg_names[] = { "size", "assoc", "groups", "histlen" };

static int cfg_field(struct arch *a, const char *section, const char *line, const char *place,
                     struct err *e)
{
    const char *field = NULL;
    for (size_t i = 0; i < ARRAY_LEN(cfg_names); i++)
        if (!strncmp(line, cfg_names[i], strlen(cfg_names[i])))
            field = cfg_names[i];
    if (!field)
        return err_set(e, SF_EUSAGE, "%s: '%.64s' is neither size, assoc, groups nor histlen",
                       place, line);
    if (!section)
        return err_set(e, SF_EUSAGE, "%s: '%.64s' stands before any section", place, line);
    const char *p = strchr(line, ':') + 1;
    p += strspn(p, " \t");
    char digits[24];
    snprintf(digits, sizeof(digits), "%.*s", (int)strspn(p, "0123456789"), p);
    if (!*digits)
        return err_set(e, SF_EUSAGE, "%s: '%.64s' is not a whole number", place, p);
    for (size_t i = 0; i < ARRAY_LEN(cfg_fields); i++)
        if (!strcmp(cfg_fields[i].section, section) && !strcmp(cfg_fields[i].field, field))
            return arch_set(a, cfg_fields[i].key, digits, place, e);
    /* fields that the reference reads and never uses */
    uint64_t unused;
    return num_u64(digits, 0, UINT32_MAX, place, &unused, e);
}

int arch_cfg_text(struct arch *a, const char *path, char *text, struct err *e)
{
    int r;
    const char *section = NULL;
    int n = 0, blank = 0;
    char *next = text;
    while (*next) {
        char *line = next;
        next = strchrnul(line, '\n');
        if (*next)
            *next++ = '\0';
        n++;
        char place[400];
        snprintf(place, sizeof(place), "%.380s:%d", path, n);
        size_t len = strlen(line);
        while (len && strchr(" \t\r", line[len - 1]))
            line[--len] = '\0';
        if (!len) {
            blank = blank ? blank : n;
            continue;
        }
        /* the reference stops reading there and takes 0 for the rest: nobody means that */
        if (blank)
            return err_set(e, SF_EUSAGE,
                           "%.380s:%d: an empty line ends the reading here, but more follows", path,
                           blank);
        if (!strncmp(line, "//", 2))
            continue;
        if (strchr(line, ':')) {
            r = cfg_field(a, section, line, place, e);
            if (r < 0)
                return r;
            continue;
        }
        section = NULL;
        for (size_t i = 0; i < ARRAY_LEN(cfg_sections); i++)
            if (!strcmp(cfg_sections[i], line))
                section = cfg_sections[i];
        if (!section)
            return err_set(e, SF_EUSAGE, "%s: unknown section '%.64s'", place, line);
    }
    return 0;
}

int arch_read_cfg(struct arch *a, const char *path, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1u << 20);
    int r = file_read_text(path, &b, e);
    if (r < 0)
        return r;
    if (!b.len)
        return err_set(e, SF_EUSAGE, "%s: the file is empty", path);
    return arch_cfg_text(a, path, (char *)b.data, e);
}

/* ---- checks */

static bool pow2(uint32_t v)
{
    return v && !(v & (v - 1));
}

static unsigned log2_floor(uint32_t v)
{
    return 31u - (unsigned)__builtin_clz(v);
}

static int check_cache(const char *name, uint32_t entries, uint32_t ways, uint32_t groups,
                       enum rules rules, struct err *e)
{
    if (!entries)
        return 0; /* no such cache */
    if (!ways)
        return err_set(e, SF_EUSAGE, "%s_ways: 0 ways with %" PRIu32 " entries", name, entries);
    uint32_t sets = entries / ways;
    if (rules == RULES_MODEL) {
        if (entries % ways)
            return err_set(e, SF_EUSAGE,
                           "%s_entries: %" PRIu32 " is not a multiple of %s_ways %" PRIu32, name,
                           entries, name, ways);
        if (!pow2(sets))
            return err_set(e, SF_EUSAGE,
                           "%s_entries: %" PRIu32 " / %" PRIu32 " ways = %" PRIu32
                           " sets, not a power of two",
                           name, entries, ways, sets);
        if (!groups)
            return 0; /* as 1 */
        if (!pow2(groups))
            return err_set(e, SF_EUSAGE, "%s_groups: %" PRIu32 " is not a power of two", name,
                           groups);
    } else {
        if (!sets)
            return 0;
        if (!groups)
            return err_set(e, SF_EUSAGE, "%s_groups: 0 groups in a cache that exists", name);
    }
    if (log2_floor(groups) > log2_floor(sets))
        return err_set(e, SF_EUSAGE, "%s_groups: %" PRIu32 " groups in %" PRIu32 " sets", name,
                       groups, sets);
    return 0;
}

int arch_check(const struct arch *a, enum rules rules, struct err *e)
{
    for (unsigned k = 0; k < ARCH_N; k++) {
        uint32_t v = values_ro(a)[k];
        if (v < keys[k].lo || v > keys[k].hi)
            return err_set(e, SF_EUSAGE, "%s: %" PRIu32 " is not in %" PRIu32 "..%" PRIu32,
                           keys[k].name, v, keys[k].lo, keys[k].hi);
    }
    int r = check_cache("cc", a->cc_entries, a->cc_ways, a->cc_groups, rules, e);
    if (r == 0)
        r = check_cache("iotlb", a->iotlb_entries, a->iotlb_ways, a->iotlb_groups, rules, e);
    if (r == 0)
        r = check_cache("l2", a->l2_entries, a->l2_ways, a->l2_groups, rules, e);
    if (r == 0)
        r = check_cache("l3", a->l3_entries, a->l3_ways, a->l3_groups, rules, e);
    if (r < 0)
        return r;
    /* the reference probes its history even without a buffer; under model no buffer means no
     * prefetcher */
    if (rules == RULES_HYPERSIO || a->pf_entries) {
        if (!a->pf_distance)
            return err_set(e, SF_EUSAGE, "pf_distance: 0, the prefetcher needs at least 1");
        if (!a->pf_history)
            return err_set(e, SF_EUSAGE, "pf_history: 0, the prefetcher needs at least 1");
    }
    return 0;
}

/* ---- text, JSON, id */

void arch_text(const struct arch *a, unsigned k, char *out)
{
    uint32_t v = values_ro(a)[k];
    switch (keys[k].kind) {
    case NUM:
        snprintf(out, 16, "%" PRIu32, v);
        break;
    case BOOL:
        strcpy(out, v ? "yes" : "no");
        break;
    case POLICY:
        strcpy(out, v < ARRAY_LEN(policies) ? policies[v] : "?");
        break;
    }
}

json_t *arch_json(const struct arch *a)
{
    json_t *j = json_object();
    for (unsigned k = 0; k < ARCH_N; k++) {
        char text[16];
        arch_text(a, k, text);
        json_t *v = keys[k].kind == NUM    ? json_u64(values_ro(a)[k])
                    : keys[k].kind == BOOL ? json_boolean(values_ro(a)[k])
                                           : json_string(text);
        json_object_set_new(j, keys[k].name, v);
    }
    return j;
}

int arch_from_json(const json_t *j, struct arch *ret, struct err *e)
{
    if (!json_is_object(j))
        return err_set(e, SF_EFORMAT, "arch: not an object");
    arch_default(ret);
    const char *name;
    json_t *v;
    json_object_foreach ((json_t *)j, name, v) {
        int k = arch_key(name);
        if (k < 0)
            return err_set(e, SF_EFORMAT, "arch: unknown key '%.64s'", name);
        struct err why = { 0 };
        uint64_t num = 0;
        int r;
        if (keys[k].kind == BOOL) {
            num = json_is_true(v);
            r = json_is_boolean(v) ? 0 : -1;
        } else if (keys[k].kind == NUM) {
            r = json_get_u64(j, name, &num, NULL);
            if (r == 0 && num > keys[k].hi)
                r = -1;
        } else {
            uint32_t small = 0;
            r = json_is_string(v)
                    ? arch_value((unsigned)k, json_string_value(v), name, &small, &why)
                    : -1;
            num = small;
        }
        if (r < 0)
            return err_set(e, SF_EFORMAT, "arch: %s: value not understood", name);
        values(ret)[k] = (uint32_t)num;
    }
    return 0;
}

const char *rules_name(enum rules r)
{
    return r == RULES_HYPERSIO ? "hypersio" : "model";
}

int rules_parse(const char *s, const char *place, enum rules *ret, struct err *e)
{
    if (!strcmp(s, "model"))
        *ret = RULES_MODEL;
    else if (!strcmp(s, "hypersio"))
        *ret = RULES_HYPERSIO;
    else
        return err_set(e, SF_EUSAGE, "%s: unknown rules '%.64s' (model, hypersio)", place, s);
    return 0;
}

/* ---- JSON without a tree: a sweep names millions of points */

static char *put_bytes(char *p, const char *s, size_t n)
{
    memcpy(p, s, n);
    return p + n;
}

#define PUT(p, literal) put_bytes(p, literal, sizeof(literal) - 1)

static char *put_value(char *p, unsigned k, uint32_t v)
{
    if (keys[k].kind == BOOL)
        return v ? PUT(p, "true") : PUT(p, "false");
    if (keys[k].kind == POLICY) {
        const char *s = v < ARRAY_LEN(policies) ? policies[v] : "?";
        *p++ = '"';
        p = put_bytes(p, s, strlen(s));
        *p++ = '"';
        return p;
    }
    char digits[10], *d = digits + sizeof(digits);
    do {
        *--d = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    return put_bytes(p, d, (size_t)(digits + sizeof(digits) - d));
}

/* All of it: `before`, the keys in that order (NULL: their own), `behind`. */
static void line_write(struct arch_line *l, const struct arch *a, const uint8_t order[ARCH_N],
                       const char *before, const char *behind)
{
    static const struct {
        const char *s;
        size_t n;
    } heads[ARCH_N] = {
#define X(name, kind, def, lo, hi) { ",\"" #name "\":", sizeof(",\"" #name "\":") - 1 },
        ARCH_KEYS(X)
#undef X
    };
    char *p = put_bytes(l->text, before, strlen(before));
    *p++ = '{';
    for (unsigned i = 0; i < ARCH_N; i++) {
        unsigned k = order ? order[i] : i;
        p = put_bytes(p, heads[k].s + !i, heads[k].n - !i);
        l->at[k] = (uint16_t)(p - l->text);
        p = put_value(p, k, values_ro(a)[k]);
        l->n[k] = (uint8_t)(p - l->text - l->at[k]);
    }
    *p++ = '}';
    p = put_bytes(p, behind, strlen(behind) + 1);
    l->len = (size_t)(p - l->text) - 1;
    l->now = *a;
}

/* Another value of key k. */
static void line_change(struct arch_line *l, unsigned k, uint32_t v)
{
    char value[16];
    size_t n = (size_t)(put_value(value, k, v) - value), old = l->n[k];
    if (n != old) {
        size_t end = l->at[k] + old;
        memmove(l->text + l->at[k] + n, l->text + end, l->len - end + 1);
        for (unsigned i = 0; i < ARCH_N; i++)
            if (l->at[i] > l->at[k])
                l->at[i] = (uint16_t)(l->at[i] + n - old);
        l->n[k] = (uint8_t)n;
        l->len += n - old;
    }
    memcpy(l->text + l->at[k], value, n);
}

void arch_line_next(struct arch_line *l, const struct arch *a)
{
    for (unsigned k = 0; k < ARCH_N; k++)
        if (values_ro(a)[k] != values_ro(&l->now)[k])
            line_change(l, k, values_ro(a)[k]);
    l->now = *a;
}

void arch_line_first(struct arch_line *l, const struct arch *a)
{
    line_write(l, a, NULL, "", "");
}

size_t arch_text_json(const struct arch *a, char out[ARCH_TEXT_MAX])
{
    struct arch_line l;
    arch_line_first(&l, a);
    memcpy(out, l.text, l.len + 1);
    return l.len;
}

void arch_point_ids(const struct arch *const a[], size_t n, enum rules rules,
                    const struct id *trace, struct id ret[])
{
    enum {
#define X(name, kind, def, lo, hi) K_##name,
        ARCH_KEYS(X)
#undef X
    };
    static const uint8_t sorted[ARCH_N] = {
        K_cc_entries,   K_cc_groups,    K_cc_ways,    K_inorder,    K_iotlb_entries,
        K_iotlb_groups, K_iotlb_policy, K_iotlb_ways, K_l2_entries, K_l2_groups,
        K_l2_ways,      K_l3_entries,   K_l3_groups,  K_l3_ways,    K_link_gbps,
        K_pf_distance,  K_pf_entries,   K_pf_history, K_queue,      K_salloc,
    };
    struct arch_line l;
    char hex[ID_HEX_LEN], behind[128], text[HASH_LANES][ARCH_TEXT_MAX];
    const void *p[HASH_LANES];
    size_t len[HASH_LANES], k = 0;
    id_hex(trace, hex);
    snprintf(behind, sizeof(behind), ",\"rules\":\"%s\",\"trace\":\"%s\"}", rules_name(rules), hex);
    for (size_t i = 0; i < n; i++) {
        if (i)
            arch_line_next(&l, a[i]);
        else
            line_write(&l, a[i], sorted, "{\"arch\":", behind);
        p[k] = memcpy(text[k], l.text, l.len);
        len[k++] = l.len;
        if (k == HASH_LANES || i + 1 == n) {
            hash_many(p, len, k, &ret[i + 1 - k]);
            k = 0;
        }
    }
}

void arch_point_id(const struct arch *a, enum rules rules, const struct id *trace, struct id *ret)
{
    arch_point_ids(&a, 1, rules, trace, ret);
}
