#include "perf/compat/cfg.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"

const char *const compat_section_names[CFG_N] = { "CC",     "IOTLB",    "L2PAGE",
                                                  "L3PAGE", "PREFETCH", "L1PAGE" };

static bool starts(const char *p, size_t n, const char *word)
{
    size_t len = strlen(word);
    return n >= len && !memcmp(p, word, len);
}

/* Decimal after blanks and a sign (a minus wraps); text behind it is ignored. */
static bool number(const char *p, const char *end, uint64_t *ret)
{
    while (p < end && (*p == ' ' || (*p >= '\t' && *p <= '\r')))
        p++;
    bool minus = p < end && *p == '-';
    p += p < end && (*p == '+' || minus);
    if (p == end || *p < '0' || *p > '9')
        return false;
    uint64_t v = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    *ret = minus ? -v : v;
    return true;
}

static enum compat_cfg_bad cfg_line(struct compat_cfg *c, int *section, const char *p, size_t n)
{
    if (starts(p, n, "//"))
        return CFG_GOOD;
    const char *colon = memchr(p, ':', n);
    if (!colon) {
        for (int i = 0; i < CFG_N; i++)
            if (n == strlen(compat_section_names[i]) && starts(p, n, compat_section_names[i])) {
                *section = i;
                c->c[i].there = true;
                return CFG_GOOD;
            }
        return CFG_BAD_NAME;
    }
    struct compat_cache none, *s = *section < 0 ? &none : &c->c[*section];
    uint64_t *to = starts(p, n, "size")      ? &s->size
                   : starts(p, n, "assoc")   ? &s->assoc
                   : starts(p, n, "groups")  ? &s->groups
                   : starts(p, n, "histlen") ? &s->histlen
                                             : NULL;
    if (!to)
        return CFG_BAD_KEY;
    if (*section < 0)
        return CFG_NO_SECTION;
    return number(colon + 1, p + n, to) ? CFG_GOOD : CFG_BAD_NUMBER;
}

void compat_cfg_text(const char *text, size_t n, struct compat_cfg *ret)
{
    memset(ret, 0, sizeof(*ret));
    const char *p = text, *end = text + n;
    int section = -1;
    for (unsigned line = 1; p < end; line++) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((lf ? lf : end) - p);
        ret->why = cfg_line(ret, &section, p, len);
        if (ret->why != CFG_GOOD) {
            ret->bad_line = line;
            size_t k = len < sizeof(ret->bad) - 1 ? len : sizeof(ret->bad) - 1;
            memcpy(ret->bad, p, k);
            ret->bad[k] = 0;
            return;
        }
        p += len + 1;
    }
}

int compat_cfg_read(const char *path, struct compat_cfg *ret, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    int r = file_read(path, &b, e);
    if (r < 0)
        return r;
    compat_cfg_text((const char *)b.data, b.len, ret);
    return 0;
}

static unsigned log2_floor(uint64_t v)
{
    return v ? 63u - (unsigned)__builtin_clzll(v) : 0;
}

/* Entries without ways and less entries than ways are no cache. */
static void put_cache(const struct compat_cache *s, uint32_t *entries, uint32_t *ways,
                      uint32_t *groups)
{
    bool there = s->assoc && s->size >= s->assoc;
    *entries = there ? (uint32_t)s->size : 0;
    *ways = there ? (uint32_t)s->assoc : 0;
    *groups = (uint32_t)s->groups;
}

int compat_cfg_arch(const struct compat_cfg *c, const char *place, struct arch *a, struct err *e)
{
    if (c->why == CFG_NO_SECTION || c->why == CFG_BAD_NUMBER)
        return err_set(e, SF_EUSAGE, "%s:%u: '%.64s' %s", place, c->bad_line, c->bad,
                       c->why == CFG_BAD_NUMBER ? "has no number" : "stands in no section");
    for (int i = 0; i <= CFG_PREFETCH; i++)
        if (!c->c[i].there)
            return err_set(e, SF_EUSAGE, "%s: no section %s", place, compat_section_names[i]);
    for (int i = 0; i <= CFG_L3PAGE; i++) {
        const struct compat_cache *s = &c->c[i];
        const char *name = compat_section_names[i];
        uint64_t sets = s->assoc ? s->size / s->assoc : 0, most = 1u << 24;
        if ((sets && (s->size > most || s->assoc > most)) || s->groups > most)
            return err_set(e, SF_EUSAGE, "%s: %s: a number is above %llu", place, name,
                           (unsigned long long)most);
        if (s->assoc && !s->groups)
            return err_set(e, SF_EUSAGE, "%s: %s: groups must be at least 1", place, name);
        if (sets && log2_floor(s->groups) > log2_floor(sets))
            return err_set(e, SF_EUSAGE, "%s: %s: %llu groups do not fit in %llu sets", place, name,
                           (unsigned long long)s->groups, (unsigned long long)sets);
    }
    const struct compat_cache *p = &c->c[CFG_PREFETCH];
    if (!p->assoc || !p->histlen)
        return err_set(e, SF_EUSAGE, "%s: PREFETCH: %s must be at least 1", place,
                       p->assoc ? "histlen" : "assoc (the distance)");
    if (p->size > 1u << 20 || p->histlen > 1u << 16)
        return err_set(e, SF_EUSAGE, "%s: PREFETCH: size above 1048576 or histlen above 65536",
                       place);
    put_cache(&c->c[CFG_CC], &a->cc_entries, &a->cc_ways, &a->cc_groups);
    put_cache(&c->c[CFG_IOTLB], &a->iotlb_entries, &a->iotlb_ways, &a->iotlb_groups);
    put_cache(&c->c[CFG_L2PAGE], &a->l2_entries, &a->l2_ways, &a->l2_groups);
    put_cache(&c->c[CFG_L3PAGE], &a->l3_entries, &a->l3_ways, &a->l3_groups);
    a->pf_entries = (uint32_t)p->size;
    a->pf_distance = (uint32_t)(p->assoc < 1u << 24 ? p->assoc : 1u << 24);
    a->pf_history = (uint32_t)p->histlen;
    return 0;
}
