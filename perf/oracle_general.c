#include "perf/oracle_general.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "perf/arch.h"
#include "perf/compat/compat.h"
#include "perf/recipe.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/format/frame.h"

enum { ORACLE_B = 24, BATCH = 16384 };

/* ---- oracleGeneral */

/* A tenant's number beside the page number keeps addresses readable; where it does not fit, a dense number does. */
static uint64_t object_of(const struct trace *t, uint32_t entry)
{
    const struct trace_entry *x = &t->entry[entry];
    if (t->n_gids > 4096)
        return t->key_page[entry];
    return (uint64_t)x->gid << 52 | (x->iova & x->mask) >> 12;
}

int oracle_general_write(const struct trace *t, const char *path, bool force, struct err *e)
{
    CLEANUP(file_abort) struct file_new f = { .fd = -1 };
    CLEANUP(freep) uint32_t *soon = malloc(((size_t)t->n_page + 1) * sizeof(*soon));
    CLEANUP(freep) uint32_t *next = malloc((t->n + 1) * sizeof(*next));
    CLEANUP(freep) uint8_t *b = malloc(BATCH * ORACLE_B);
    if (!soon || !next || !b)
        return err_sys(e, ENOMEM, "%s", path);
    memset(soon, 0xff, ((size_t)t->n_page + 1) * sizeof(*soon));
    for (uint64_t i = t->n; i-- > 0;) {
        uint32_t page = t->key_page[t->ev[i]];
        next[i] = soon[page];
        soon[page] = (uint32_t)i;
    }
    int r = file_begin(&f, path, 0644, force, e);
    for (uint64_t i = 0; r == 0 && i < t->n;) {
        size_t k = 0;
        for (; k < BATCH && i < t->n; k++, i++) {
            uint8_t *p = b + k * ORACLE_B;
            uint64_t size = ~t->entry[t->ev[i]].mask + 1;
            put_u32(p, (uint32_t)i);
            put_u64(p + 4, object_of(t, t->ev[i]));
            put_u32(p + 12, size > UINT32_MAX ? UINT32_MAX : (uint32_t)size);
            put_u64(p + 16, next[i] == UINT32_MAX ? UINT64_MAX : next[i]);
        }
        int w = write_all(f.fd, b, k * ORACLE_B);
        if (w < 0)
            r = err_sys(e, -w, "%s", path);
    }
    return r < 0 ? r : file_commit(&f, e);
}

/* Objects to entries, in order of first appearance. */
struct objects {
    struct slot {
        uint64_t object;
        uint32_t entry, level; /* level 0 = free */
    } * slots;
    size_t mask;
    struct trace *t;
    uint32_t room;
    uint64_t n[4];
};

static int grow(struct objects *o)
{
    size_t room = 2 * (o->mask + 1);
    struct slot *s = calloc(room, sizeof(*s));
    struct trace_entry *x = realloc(o->t->entry, room * sizeof(*x));
    if (x)
        o->t->entry = x;
    if (!s || !x) {
        free(s);
        return -ENOMEM;
    }
    for (size_t i = 0; i <= o->mask; i++)
        if (o->slots[i].level) {
            size_t h = (o->slots[i].object * 0x9e3779b97f4a7c15u >> 20) & (room - 1);
            while (s[h].level)
                h = (h + 1) & (room - 1);
            s[h] = o->slots[i];
        }
    free(o->slots);
    o->slots = s;
    o->mask = room - 1;
    return 0;
}

static int64_t entry_of(struct objects *o, uint64_t object, uint32_t size)
{
    /* pages of each size have a region of their own, so that none lies within another */
    static const uint64_t region[4] = { 0, 0, UINT64_C(1) << 50, UINT64_C(1) << 54 };
    unsigned level = size == 1u << 30 ? 3 : size == 1u << 21 ? 2 : 1;
    size_t h = (object * 0x9e3779b97f4a7c15u >> 20) & o->mask;
    for (; o->slots[h].level; h = (h + 1) & o->mask)
        if (o->slots[h].object == object && o->slots[h].level == level)
            return o->slots[h].entry;
    if (2 * (size_t)o->t->n_entries > o->mask) {
        if (grow(o) < 0)
            return -ENOMEM;
        return entry_of(o, object, size);
    }
    unsigned shift = 3 + 9 * level;
    uint32_t i = o->t->n_entries++;
    o->slots[h] = (struct slot){ object, i, level };
    uint64_t page = o->n[level]++;
    o->t->entry[i] = (struct trace_entry){ .iova = region[level] + (page << shift),
                                           .mask = ~UINT64_C(0) << shift,
                                           .slpte = (page << shift) | 3,
                                           .sid = 0x10,
                                           .level = (uint8_t)level };
    return i;
}

static void clear_objects(struct objects *o)
{
    free(o->slots);
}

int oracle_general_read(const char *path, struct trace **ret, struct err *e)
{
    struct stat st;
    CLEANUP(closep) int fd = file_open_regular(path, &st, e);
    if (fd < 0)
        return fd;
    if (!st.st_size)
        return err_set(e, SF_EFORMAT, "%s: the file is empty", path);
    if (st.st_size % ORACLE_B)
        return err_set(e, SF_EFORMAT, "%s: truncated: %lld bytes are no whole records of %d bytes",
                       path, (long long)st.st_size, ORACLE_B);
    uint64_t n = (uint64_t)st.st_size / ORACLE_B;
    if (n >= UINT32_MAX)
        return err_set(e, SF_EFORMAT, "%s: more than 2^32-2 events", path);
    CLEANUP(trace_free) struct trace *t = calloc(1, sizeof(*t));
    if (!t)
        return err_sys(e, ENOMEM, "%s", path);
    CLEANUP(clear_objects) struct objects o = { .t = t, .mask = 4095 };
    o.slots = calloc(4096, sizeof(*o.slots));
    t->entry = malloc(4096 * sizeof(*t->entry));
    t->ev = malloc(n * sizeof(*t->ev));
    t->off = calloc(n, sizeof(*t->off));
    CLEANUP(freep) uint8_t *b = malloc(BATCH * ORACLE_B);
    if (!o.slots || !t->entry || !t->ev || !t->off || !b)
        return err_sys(e, ENOMEM, "%s", path);
    while (t->n < n) {
        size_t want = n - t->n < BATCH ? n - t->n : BATCH;
        ssize_t got = read_full(fd, b, want * ORACLE_B);
        if (got < 0)
            return err_sys(e, (int)-got, "%s", path);
        if ((size_t)got != want * ORACLE_B)
            return err_set(e, SF_EFORMAT, "%s: truncated while it was read", path);
        for (size_t k = 0; k < want; k++) {
            const uint8_t *p = b + k * ORACLE_B;
            uint64_t next = get_u64(p + 16);
            /* never: -1, or what some writers of the format put there */
            bool never = next == UINT64_MAX || next == INT64_MAX;
            if (!never && (next <= t->n || next >= n))
                return err_set(
                    e, SF_EFORMAT,
                    "%s: record %llu is no oracleGeneral event (its next access is %lld)", path,
                    (unsigned long long)t->n, (long long)next);
            int64_t i = entry_of(&o, get_u64(p + 4), get_u32(p + 12));
            if (i < 0)
                return err_sys(e, ENOMEM, "%s", path);
            t->ev[t->n++] = (uint32_t)i;
        }
    }
    t->n_gids = 1;
    t->head = (struct trace_head){
        .order = ORDER_ORIG, .burst = 1, .seed = 1, .replicate = 1, .tenants = 1, .devices = 1
    };
    int r = trace_keys(t, e);
    if (r == 0)
        *ret = TAKE(t);
    return r;
}

/* ---- the reference's files */

static int whole_file(const char *dir, const char *prefix, const char *part, size_t record_b,
                      struct buf *b, size_t *ret_n, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s_%s.bin", dir, prefix, part);
    if (!path)
        return err_sys(e, ENOMEM, "%s", dir);
    int r = file_read(path, b, e);
    if (r < 0)
        return r;
    if (b->len % record_b)
        return err_set(e, SF_EFORMAT, "%s: truncated: %zu bytes are no whole records of %zu bytes",
                       path, b->len, record_b);
    *ret_n = b->len / record_b;
    return 0;
}

static uint32_t get_u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

/* The name says how the trace was made: <name>_tnt_<tenants>_<order><burst>. */
static void head_from_name(const char *prefix, struct trace_head *h)
{
    h->order = ORDER_ORIG;
    h->burst = h->seed = h->replicate = 1;
    const char *at = NULL;
    for (const char *p = prefix; (p = strstr(p, "_tnt_")); p++)
        at = p;
    if (!at)
        return;
    at += 5 + strspn(at + 5, "0123456789");
    for (int o = ORDER_RR; o <= ORDER_ORIG; o++) {
        const char *name = order_name((enum trace_order)o);
        size_t n = strlen(name);
        if (*at == '_' && !strncmp(at + 1, name, n) && isdigit((unsigned char)at[1 + n])) {
            h->order = (uint32_t)o;
            h->burst = strtoull(at + 1 + n, NULL, 10);
        }
    }
}

int hypersio_import(const char *dir, const char *prefix, struct trace **ret, struct err *e)
{
    CLEANUP(trace_free) struct trace *t = NULL;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(UINT32_MAX);
    int r = compat_files_read(dir, prefix, COMPAT_WITH_OFFSETS | COMPAT_WITH_NEXT, &t, e);
    if (r == 0)
        r = whole_file(dir, prefix, "cc_data", 20, &b, &t->n_cc, e);
    if (r < 0)
        return r;
    t->cc = calloc(t->n_cc + 1, sizeof(*t->cc));
    if (!t->cc)
        return err_sys(e, ENOMEM, "%s", dir);
    for (size_t i = 0; i < t->n_cc; i++) {
        const uint8_t *p = b.data + 20 * i;
        t->cc[i] = (struct trace_cc){ .sid = get_u16(p),
                                      .high = get_u64(p + 2),
                                      .low = get_u64(p + 10),
                                      .gen = get_u16(p + 18) };
    }
    buf_reset(&b);
    r = whole_file(dir, prefix, "slpt_data", 42, &b, &t->n_slpt, e);
    if (r < 0) {
        t->n_slpt = 0;
        return r;
    }
    t->slpt = calloc(t->n_slpt + 1, sizeof(*t->slpt));
    if (!t->slpt)
        return err_sys(e, ENOMEM, "%s", dir);
    for (size_t i = 0; i < t->n_slpt; i++) {
        const uint8_t *p = b.data + 42 * i;
        t->slpt[i] = (struct trace_slpt){ .did = get_u16(p),
                                          .entry_addr = get_u64(p + 2),
                                          .level = get_u64(p + 10),
                                          .slpte = get_u64(p + 18),
                                          .iova = get_u64(p + 26),
                                          .base = get_u64(p + 34) };
    }
    head_from_name(prefix, &t->head);
    t->head.rules = RULES_HYPERSIO;
    t->head.devices = t->n_sids;
    CLEANUP(freep) bool *seen = calloc((size_t)t->n_gids + 1, sizeof(*seen));
    if (!seen)
        return err_sys(e, ENOMEM, "%s", dir);
    for (uint32_t i = 0; i < t->n_entries; i++) {
        t->head.tenants += !seen[t->entry[i].gid];
        seen[t->entry[i].gid] = true;
    }
    *ret = TAKE(t);
    return 0;
}
