/* The reference's three files: packed little-endian records, no header. */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "perf/compat/compat.h"
#include "perf/compat/hashord.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

enum { IOTLB_REC = 48, CC_REC = 20, SLPT_REC = 42, BATCH = 1024 };

static inline void put16(uint8_t *p, uint64_t v)
{
    uint16_t x = htole16((uint16_t)v);
    memcpy(p, &x, 2);
}

static inline void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, 4);
}

static inline void put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, 8);
}

static inline uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return le64toh(v);
}

static int write_iotlb(int fd, const struct trace *t)
{
    uint8_t *out = malloc(BATCH * IOTLB_REC);
    if (!out)
        return -ENOMEM;
    int r = 0;
    for (uint64_t i = 0; i < t->n && r == 0;) {
        uint64_t m = t->n - i < BATCH ? t->n - i : BATCH;
        uint8_t *p = out;
        for (uint64_t k = 0; k < m; k++, i++, p += IOTLB_REC) {
            const struct trace_entry *n = &t->entry[t->ev[i]];
            put32(p, 1);
            put16(p + 4, n->sid);
            put16(p + 6, n->gid);
            put64(p + 8, n->iova + t->off[i]);
            put64(p + 16, n->mask);
            put64(p + 24, n->level);
            put64(p + 32, n->slpte);
            put64(p + 40, t->next[i] == UINT32_MAX ? UINT64_MAX : t->next[i]);
        }
        r = write_all(fd, out, m * IOTLB_REC);
    }
    free(out);
    return r;
}

static int write_cc(int fd, const struct trace *t, const uint32_t *order)
{
    uint8_t *out = malloc(t->n_cc * CC_REC + 1), *p = out;
    if (!out)
        return -ENOMEM;
    for (size_t i = 0; i < t->n_cc; i++, p += CC_REC) {
        const struct trace_cc *c = &t->cc[order[i]];
        put16(p, c->sid);
        put64(p + 2, c->high);
        put64(p + 10, c->low);
        put16(p + 18, c->gen);
    }
    int r = write_all(fd, out, t->n_cc * CC_REC);
    free(out);
    return r;
}

static int write_slpt(int fd, const struct trace *t, const uint32_t *order)
{
    uint8_t *out = malloc(t->n_slpt * SLPT_REC + 1), *p = out;
    if (!out)
        return -ENOMEM;
    for (size_t i = 0; i < t->n_slpt; i++, p += SLPT_REC) {
        const struct trace_slpt *s = &t->slpt[order[i]];
        put16(p, s->did);
        put64(p + 2, s->entry_addr);
        put64(p + 10, s->level);
        put64(p + 18, s->slpte);
        put64(p + 26, s->iova);
        put64(p + 34, s->base);
    }
    int r = write_all(fd, out, t->n_slpt * SLPT_REC);
    free(out);
    return r;
}

int compat_files_write(const struct trace *t, const char *dir, const char *prefix, struct err *e)
{
    static const char *const names[3] = { "iotlb_trace", "cc_data", "slpt_data" };
    size_t most = t->n_cc > t->n_slpt ? t->n_cc : t->n_slpt;
    CLEANUP(freep) uint64_t *hash = malloc((most + 1) * sizeof(*hash));
    CLEANUP(freep) uint32_t *order = malloc((most + 1) * sizeof(*order));
    if (!hash || !order || most >= UINT32_MAX)
        return err_sys(e, ENOMEM, "%s/%s", dir, prefix);
    for (int i = 0; i < 3; i++) {
        CLEANUP(freep) char *path = path_fmt("%s/%s_%s.bin", dir, prefix, names[i]);
        if (!path)
            return err_sys(e, ENOMEM, "%s/%s", dir, prefix);
        /* an older file of that name is overwritten in place and cut: its pages are in memory already */
        CLEANUP(closep) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return err_sys(e, errno, "%s", path);
        int r = 0;
        if (i == 0) {
            r = write_iotlb(fd, t);
        } else {
            size_t n = i == 1 ? t->n_cc : t->n_slpt;
            for (size_t k = 0; k < n; k++)
                hash[k] = i == 1 ? t->cc[k].sid : t->slpt[k].entry_addr;
            r = hashord_order(hash, (uint32_t)n, order);
            if (r == 0)
                r = i == 1 ? write_cc(fd, t, order) : write_slpt(fd, t, order);
        }
        struct stat st;
        if (r == 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
            off_t end = lseek(fd, 0, SEEK_CUR);
            if (end < 0 || (st.st_size != end && ftruncate(fd, end) < 0))
                r = -errno;
        }
        if (r == 0 && close(take_fd(&fd)) < 0)
            r = -errno;
        if (r < 0)
            return err_sys(e, -r, "%s", path);
    }
    return 0;
}

/* ---------------------------------------------------------------- reading */

static inline uint64_t hash_of(const struct trace_entry *n)
{
    uint64_t x = n->iova ^ n->slpte * 0xff51afd7ed558ccdu ^ ((uint64_t)n->sid << 13) ^
                 ((uint64_t)n->gid << 40) ^ n->mask * 5 ^ n->level;
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

/* An entry as its records show it. */
struct image {
    uint64_t head, iova, keep, mask, level, slpte; /* keep: bits of iova that are the entry's */
};

struct intern {
    struct trace *t;
    size_t room;
    uint32_t *slot, mask;
    struct image *image; /* of each entry that intern() made; owned */
    uint64_t events;     /* in the file */
    bool each;           /* every event is an entry of its own */
};

static uint32_t intern(struct intern *in, const struct trace_entry *n)
{
    uint64_t h = hash_of(n);
    struct trace *t = in->t;
    uint32_t i;
    while ((i = in->slot[h & in->mask]) != UINT32_MAX) {
        const struct trace_entry *o = &t->entry[i];
        if (o->iova == n->iova && o->slpte == n->slpte && o->gid == n->gid && o->sid == n->sid &&
            o->mask == n->mask && o->level == n->level)
            return i;
        h++;
    }
    if (t->n_entries == in->room) {
        struct trace_entry *p = realloc(t->entry, 2 * in->room * sizeof(*p));
        struct image *m = realloc(in->image, 2 * in->room * sizeof(*m));
        uint32_t *s = malloc(8 * in->room * sizeof(*s));
        if (p)
            t->entry = p;
        if (m)
            in->image = m;
        if (!p || !m || !s) {
            free(s);
            return UINT32_MAX;
        }
        in->room *= 2;
        in->mask = (uint32_t)(4 * in->room - 1);
        memset(s, 0xff, 4 * in->room * sizeof(*s));
        for (uint32_t k = 0; k < t->n_entries; k++) {
            uint64_t g = hash_of(&p[k]);
            while (s[g & in->mask] != UINT32_MAX)
                g++;
            s[g & in->mask] = k;
        }
        free(in->slot);
        in->slot = s;
        h = hash_of(n);
        while (s[h & in->mask] != UINT32_MAX)
            h++;
    }
    i = t->n_entries++;
    t->entry[i] = *n;
    in->image[i] = (struct image){ .head = 1 | (uint64_t)n->sid << 32 | (uint64_t)n->gid << 48,
                                   .iova = n->iova,
                                   .keep = n->mask | ~UINT64_C(0x1fffff),
                                   .mask = n->mask,
                                   .level = n->level,
                                   .slpte = n->slpte };
    in->slot[h & in->mask] = i;
    return i;
}

static int not_a_record(const char *path, uint64_t i, struct err *e)
{
    return err_set(e, SF_EFORMAT, "%s: record %llu is no translation", path, (unsigned long long)i);
}

static inline bool is_entry(const struct image *o, const uint64_t r[6])
{
    return !((r[0] ^ o->head) | ((r[1] ^ o->iova) & o->keep) | (r[2] ^ o->mask) |
             (r[3] ^ o->level) | (r[4] ^ o->slpte));
}

static int add_records(struct intern *in, const uint8_t *p, uint64_t m, const char *path,
                       struct err *e)
{
    struct trace *t = in->t;
    for (uint64_t k = 0; k < m; k++, p += IOTLB_REC) {
        uint64_t r[6], next;
        for (int i = 0; i < 6; i++)
            r[i] = get64(p + 8 * i);
        next = r[5];
        if (next <= t->n || (next >= UINT32_MAX && next != UINT64_MAX))
            return not_a_record(path, t->n, e);
        /* the event that named this one as its next access left its own entry here: mostly the same */
        uint32_t i = t->ev[t->n];
        if (in->each || i >= t->n_entries || !is_entry(&in->image[i], r)) {
            if ((uint32_t)r[0] != 1 || r[3] > 3)
                return not_a_record(path, t->n, e);
            struct trace_entry n = { .sid = (uint16_t)(r[0] >> 32),
                                     .gid = (uint16_t)(r[0] >> 48),
                                     .mask = r[2],
                                     .level = (uint8_t)r[3],
                                     .slpte = r[4] };
            n.iova = in->each ? r[1] : r[1] & (n.mask | ~UINT64_C(0x1fffff));
            i = in->each ? t->n_entries++ : intern(in, &n);
            if (in->each)
                t->entry[i] = n;
            if (i == UINT32_MAX)
                return err_sys(e, ENOMEM, "%s", path);
            if (n.gid >= t->n_gids)
                t->n_gids = n.gid + 1;
        }
        t->ev[t->n] = i;
        if (t->off)
            t->off[t->n] = (uint32_t)(r[1] - t->entry[i].iova);
        if (t->next)
            t->next[t->n] = next == UINT64_MAX ? UINT32_MAX : (uint32_t)next;
        t->ev[next < in->events ? next : in->events] = i;
        t->n++;
    }
    return 0;
}

int compat_files_read(const char *dir, const char *prefix, unsigned with, struct trace **ret,
                      struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s_iotlb_trace.bin", dir, prefix);
    if (!path)
        return err_sys(e, ENOMEM, "%s/%s", dir, prefix);
    struct stat st;
    CLEANUP(closep) int fd = file_open_regular(path, &st, e);
    if (fd < 0)
        return fd;
    if (st.st_size % IOTLB_REC)
        return err_set(e, SF_EFORMAT, "%s: truncated: %lld bytes are no whole records of %d bytes",
                       path, (long long)st.st_size, IOTLB_REC);
    uint64_t n = (uint64_t)st.st_size / IOTLB_REC;
    if (n >= UINT32_MAX)
        return err_set(e, SF_EFORMAT, "%s: more than 2^32-2 translations", path);
    CLEANUP(trace_free) struct trace *t = calloc(1, sizeof(*t));
    if (!t)
        return err_sys(e, ENOMEM, "%s", path);
    struct intern in = { .t = t, .room = 1 << 12, .events = n };
    in.mask = (uint32_t)(4 * in.room - 1);
    t->ev = calloc(n + 1, sizeof(*t->ev));
    if (with & COMPAT_WITH_OFFSETS)
        t->off = malloc((n + 1) * sizeof(*t->off));
    if (with & COMPAT_WITH_NEXT)
        t->next = malloc((n + 1) * sizeof(*t->next));
    in.each = with & COMPAT_EACH_EVENT;
    t->entry = malloc((in.each ? n + 1 : in.room) * sizeof(*t->entry));
    in.slot = malloc(4 * in.room * sizeof(*in.slot));
    in.image = malloc(in.room * sizeof(*in.image));
    CLEANUP(freep) uint8_t *buf = malloc(BATCH * IOTLB_REC);
    int r = 0;
    bool all = t->ev && t->entry && in.slot && in.image && buf;
    if (!all || (with & COMPAT_WITH_OFFSETS && !t->off) || (with & COMPAT_WITH_NEXT && !t->next))
        r = err_sys(e, ENOMEM, "%s", path);
    else
        memset(in.slot, 0xff, 4 * in.room * sizeof(*in.slot));
    while (r == 0 && t->n < n) {
        uint64_t m = n - t->n < BATCH ? n - t->n : BATCH;
        ssize_t got = read_full(fd, buf, m * IOTLB_REC);
        if (got < 0)
            r = err_sys(e, (int)-got, "%s", path);
        else if ((uint64_t)got != m * IOTLB_REC)
            r = err_set(e, SF_EFORMAT, "%s: truncated while it was read", path);
        else
            r = add_records(&in, buf, m, path, e);
    }
    free(in.slot);
    free(in.image);
    if (r < 0)
        return r;
    t->head.rules = RULES_HYPERSIO;
    r = trace_keys(t, e);
    if (r < 0)
        return r;
    *ret = TAKE(t);
    return 0;
}
