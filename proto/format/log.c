#include "proto/format/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/format/frame.h"
#include "proto/lib/json.h"

static const struct frame_kind slog_kind = { .magic = { (char)0x89, 'S', 'F', 'L', 'O', 'G', '\r',
                                                        '\n' },
                                             .what = "log",
                                             .version = 1,
                                             .header_b = 8 };

enum { FRAME_EVENTS = 1 << 18, LEVEL = 3, LEVEL_TIMES = 1 };

/* Sections of a frame, in this order, then walks and the summary at the end of the file. */
enum { SEC_TURNS = 1, SEC_OPS, SEC_P0, SEC_P1, SEC_P2, SEC_REST, SEC_TIMES, SEC_WALKS, SEC_INFO };
enum { COLUMNS = SEC_TIMES };

static const char *const kinds[LOG_KINDS] = {
    "",         "cc_update",  "cc_hit", "slpte_fetch", "page_update",
    "page_hit", "invalidate", "fault",  "ats"
};

const char *slog_kind_name(unsigned kind)
{
    return kind < LOG_KINDS ? kinds[kind] : "?";
}

static const char *const sources[] = { "text", "ring", "stock" };

const char *slog_source_name(enum slog_source s)
{
    return (unsigned)s < ARRAY_LEN(sources) ? sources[s] : "?";
}

void slog_info_clear(struct slog_info *i)
{
    free(i->refused);
    free(i->devices);
    *i = (struct slog_info){ 0 };
}

/* ---- what context foretells
 *
 * Writer and reader keep the same state, so both know the same guess; the writer says which fields differ from it.
 */

/* What a page or a table entry held last: direct-mapped, forgets. */
enum { MEMO = 1 << 15 };
struct memo {
    uint64_t key, value;
};

struct device {
    uint64_t high, low, gen;
    uint64_t iova[3]; /* last walk, last hit, anything else */
    uint64_t base[8]; /* last table by level */
    uint64_t slpte, mask, leaf;
    uint64_t p1[LOG_KINDS], p2[LOG_KINDS];
    uint32_t domain;
    uint8_t level[LOG_KINDS], before; /* kind of the device's event before */
    uint8_t top;
};

static uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

static uint64_t page_key(const struct log_event *ev, uint64_t mask)
{
    return mix((ev->p[0] & mask) ^ (uint64_t)ev->sid << 1 ^ 1);
}

static uint64_t slot_key(const struct log_event *ev)
{
    unsigned shift = ((ev->level - 1u) & 7) * 9 + 12;
    return mix((ev->p[2] + 8 * (ev->p[0] >> (shift & 63) & 511)) << 1);
}

static uint64_t recall(const struct memo *m, uint64_t key, uint64_t otherwise)
{
    const struct memo *s = &m[key >> 40 & (MEMO - 1)];
    return s->key == key ? s->value : otherwise;
}

static void remember(struct memo *m, uint64_t key, uint64_t value)
{
    m[key >> 40 & (MEMO - 1)] = (struct memo){ key, value };
}

/* Guesses are made field by field, each from the fields before it: level and domain, then p[0], p[2], p[1]. */
static uint8_t guess_level(const struct device *d, unsigned kind)
{
    if (kind == LOG_SLPTE_FETCH) {
        uint8_t last = d->level[LOG_SLPTE_FETCH];
        return d->before == LOG_SLPTE_FETCH && last > 1 ? (uint8_t)(last - 1) : d->top;
    }
    return kind == LOG_PAGE_UPDATE ? d->level[LOG_SLPTE_FETCH] : d->level[kind];
}

static uint32_t guess_domain(const struct device *d, unsigned kind)
{
    return kind <= LOG_CC_HIT ? 0 : d->domain;
}

static bool goes_on(const struct device *d, const struct log_event *ev)
{
    return d->before == LOG_SLPTE_FETCH && d->level[LOG_SLPTE_FETCH] == ev->level + 1;
}

static uint64_t guess_p0(const struct device *d, const struct log_event *ev)
{
    switch (ev->kind) {
    case LOG_CC_UPDATE:
    case LOG_CC_HIT:
        return d->high;
    case LOG_SLPTE_FETCH:
    case LOG_PAGE_UPDATE:
        return d->iova[0];
    case LOG_PAGE_HIT:
        return d->iova[1];
    default:
        return d->iova[2];
    }
}

static uint64_t guess_p2(const struct device *d, const struct log_event *ev)
{
    switch (ev->kind) {
    case LOG_CC_HIT:
        return d->gen;
    case LOG_SLPTE_FETCH:
        return goes_on(d, ev) ? d->slpte & UINT64_C(0x000ffffffffff000) : d->base[ev->level & 7];
    case LOG_PAGE_HIT:
        return d->mask;
    default:
        return d->p2[ev->kind];
    }
}

static uint64_t guess_p1(const struct device *d, const struct memo *m, const struct log_event *ev)
{
    switch (ev->kind) {
    case LOG_CC_UPDATE:
    case LOG_CC_HIT:
        return d->low;
    case LOG_SLPTE_FETCH:
        return recall(m, slot_key(ev), d->leaf);
    case LOG_PAGE_UPDATE:
        return d->slpte;
    case LOG_PAGE_HIT:
        return recall(m, page_key(ev, ev->p[2]), d->leaf);
    default:
        return d->p1[ev->kind];
    }
}

static void learn(struct device *d, struct memo *m, const struct log_event *ev)
{
    switch (ev->kind) {
    case LOG_CC_UPDATE:
        d->high = ev->p[0];
        d->low = ev->p[1];
        d->gen = ev->p[2] >> 32;
        break;
    case LOG_CC_HIT:
        d->high = ev->p[0];
        d->low = ev->p[1];
        d->gen = ev->p[2];
        break;
    case LOG_SLPTE_FETCH:
        if (d->before != LOG_SLPTE_FETCH)
            d->top = ev->level;
        d->iova[0] = ev->p[0];
        d->slpte = ev->p[1];
        d->base[ev->level & 7] = ev->p[2];
        if (ev->level == 1)
            d->leaf = ev->p[1];
        remember(m, slot_key(ev), ev->p[1]);
        break;
    case LOG_PAGE_UPDATE:
        d->iova[0] = ev->p[0];
        d->leaf = ev->p[1];
        remember(m,
                 page_key(ev, ~UINT64_C(0)
                                  << (ev->level >= 1 && ev->level <= 5 ? 3 + 9 * ev->level : 12)),
                 ev->p[1]);
        break;
    case LOG_PAGE_HIT:
        d->iova[1] = ev->p[0];
        d->mask = ev->p[2];
        remember(m, page_key(ev, ev->p[2]), ev->p[1]);
        break;
    default:
        d->iova[2] = ev->p[0];
        break;
    }
    d->p1[ev->kind] = ev->p[1];
    d->p2[ev->kind] = ev->p[2];
    if (ev->kind > LOG_CC_HIT)
        d->domain = ev->domain;
    d->level[ev->kind] = ev->level;
    d->before = ev->kind;
}

static void fresh(struct device *d)
{
    *d = (struct device){ .top = 3, .mask = ~UINT64_C(0xfff), .low = 1 };
}

/* Op byte: kind - 1 in the low bits, then what differs from its guess. */
enum { OP_KIND = 7, OP_REST = 1 << 3, OP_P0 = 1 << 4, OP_P1 = 1 << 5, OP_P2 = 1 << 6 };

/* ---- writing */

struct walk {
    uint64_t event, high, low;
};

struct slog_out {
    struct frame_out f;
    struct slog_info info;
    uint64_t *by_sid;     /* 65536 counts */
    uint32_t *domain_of;  /* 65536 */
    struct log_event *ev; /* of the frame under way */
    size_t n;
    uint32_t frames;
    uint64_t first_ns, last_ns;
    bool timed, frame_timed; /* some event of the log, of the frame under way, has a time */
    struct walk *walks;
    size_t n_walks, walk_room;
    /* work space of a frame */
    uint8_t *column[COLUMNS + 1];
    size_t len[COLUMNS + 1];
    struct memo *memo;
    uint32_t *first;  /* 65537: where a device's events begin in sorted */
    uint32_t *sorted; /* events by device, in order */
};

static void out_free(struct slog_out *o)
{
    frame_abort(&o->f);
    slog_info_clear(&o->info);
    free(o->by_sid);
    free(o->domain_of);
    free(o->ev);
    free(o->walks);
    for (int i = 0; i <= COLUMNS; i++)
        free(o->column[i]);
    free(o->memo);
    free(o->first);
    free(o->sorted);
    free(o);
}

void slog_abort(struct slog_out **o)
{
    if (*o)
        out_free(*o);
    *o = NULL;
}

int slog_link(const struct slog_out *o, const char *path, struct err *e)
{
    unlink(path);
    return o->f.to_file && link(o->f.file.temp, path) < 0 ? err_sys(e, errno, "%s", path) : 0;
}

int slog_create(const char *path, enum slog_source source, bool force, struct slog_out **ret,
                struct err *e)
{
    CLEANUP(slog_abort) struct slog_out *o = calloc(1, sizeof(*o));
    if (!o)
        return err_sys(e, ENOMEM, "log");
    o->f.file.fd = -1;
    o->info.source = source;
    o->by_sid = calloc(65536, sizeof(*o->by_sid));
    o->domain_of = calloc(65536, sizeof(*o->domain_of));
    o->ev = malloc(FRAME_EVENTS * sizeof(*o->ev));
    o->memo = malloc(MEMO * sizeof(*o->memo));
    o->first = malloc(65537 * sizeof(*o->first));
    o->sorted = malloc(FRAME_EVENTS * sizeof(*o->sorted));
    o->info.refused = calloc(SLOG_REFUSED_MAX, sizeof(*o->info.refused));
    bool all =
        o->by_sid && o->domain_of && o->ev && o->memo && o->first && o->sorted && o->info.refused;
    for (int i = 1; i <= COLUMNS; i++)
        all = (o->column[i] =
                   malloc((size_t)FRAME_EVENTS * (i == SEC_REST || i == SEC_P1 ? 22 : 11))) &&
              all;
    if (!all)
        return err_sys(e, ENOMEM, "log");
    uint8_t header[8] = { 0 };
    put_u32(header, source);
    int r = frame_begin(&o->f, &slog_kind, path, header, force, e);
    if (r == 0)
        *ret = TAKE(o);
    return r;
}

static void put(struct slog_out *o, int column, uint64_t v)
{
    o->len[column] += put_var(o->column[column] + o->len[column], v);
}

/* An entry that nothing foretold: its page as a difference, its low bits only when they differ. */
static void put_slpte(struct slog_out *o, uint64_t v, uint64_t guess)
{
    bool low = (v ^ guess) & 0xfff;
    put(o, SEC_P1, zigzag(v >> 12, guess >> 12) << 1 | low);
    if (low)
        put(o, SEC_P1, v & 0xfff);
}

static void encode(struct slog_out *o, struct device *d, const struct log_event *ev)
{
    uint8_t op = (uint8_t)(ev->kind - 1);
    uint8_t level = guess_level(d, ev->kind);
    uint32_t domain = guess_domain(d, ev->kind);
    if (ev->level != level || ev->domain != domain) {
        op |= OP_REST;
        put(o, SEC_REST, ev->level);
        put(o, SEC_REST, zigzag(ev->domain, domain));
    }
    uint64_t guess = guess_p0(d, ev);
    if (ev->p[0] != guess) {
        op |= OP_P0;
        put(o, SEC_P0, zigzag(ev->p[0], guess));
    }
    guess = guess_p2(d, ev);
    if (ev->p[2] != guess) {
        op |= OP_P2;
        put(o, SEC_P2, zigzag(ev->p[2], guess));
    }
    guess = guess_p1(d, o->memo, ev);
    if (ev->p[1] != guess) {
        op |= OP_P1;
        put_slpte(o, ev->p[1], guess);
    }
    o->column[SEC_OPS][o->len[SEC_OPS]++] = op;
    learn(d, o->memo, ev);
}

/* All that needs the events in their order, in one pass, as a frame is larger than the processor's caches: who comes next
 * (source-id as a difference to the one before, and how many events in a row), how many events each device has, when. */
static void encode_order(struct slog_out *o)
{
    uint16_t before = 0;
    uint64_t then = 0;
    size_t len = 0;
    uint8_t *times = o->column[SEC_TIMES];
    for (size_t i = 0, k; i < o->n; i = k) {
        uint16_t sid = o->ev[i].sid;
        for (k = i; k < o->n && o->ev[k].sid == sid; k++)
            if (o->frame_timed) {
                len += put_var(times + len, zigzag(o->ev[k].time_ns, then));
                then = o->ev[k].time_ns;
            }
        put(o, SEC_TURNS, (uint16_t)(sid - before));
        put(o, SEC_TURNS, k - i);
        o->first[sid + 1] += (uint32_t)(k - i);
        before = sid;
    }
    o->len[SEC_TIMES] = len;
}

static int flush(struct slog_out *o, struct err *e)
{
    if (!o->n)
        return 0;
    memset(o->len, 0, sizeof(o->len));
    memset(o->memo, 0, MEMO * sizeof(*o->memo));
    memset(o->first, 0, 65537 * sizeof(*o->first));
    encode_order(o);
    for (size_t s = 0; s < 65536; s++)
        o->first[s + 1] += o->first[s];
    for (size_t i = 0; i < o->n; i++)
        o->sorted[o->first[o->ev[i].sid]++] =
            (uint32_t)i; /* first[s] ends as the beginning of s + 1 */
    struct device d;
    uint32_t at = 0;
    for (size_t s = 0; s < 65536; s++) {
        if (at == o->first[s])
            continue;
        fresh(&d);
        for (; at < o->first[s]; at++)
            encode(o, &d, &o->ev[o->sorted[at]]);
    }
    int r = 0;
    for (uint32_t c = 1; c <= COLUMNS && r == 0; c++)
        r = frame_add(&o->f, c, o->frames, o->column[c], o->len[c],
                      c == SEC_TIMES ? LEVEL_TIMES : LEVEL, e);
    o->frames++;
    o->n = 0;
    o->frame_timed = false;
    return r;
}

int slog_add(struct slog_out *o, const struct log_event ev[], size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (ev[i].kind < LOG_CC_UPDATE || ev[i].kind >= LOG_KINDS)
            return err_set(e, EINVAL, "log: event %llu is of no kind (%u)",
                           (unsigned long long)o->info.events, ev[i].kind);
        o->ev[o->n++] = ev[i];
        o->info.by_kind[ev[i].kind]++;
        o->info.events++;
        /* a global or a domain's invalidation belongs to no device; its source-id says nothing */
        if (ev[i].kind != LOG_INVALIDATE || ev[i].level == LOG_INV_CC_DEVICE)
            o->by_sid[ev[i].sid]++;
        if (ev[i].kind <= LOG_CC_HIT)
            o->domain_of[ev[i].sid] = ev[i].p[0] >> 8 & 0xffff;
        else if (ev[i].kind <= LOG_PAGE_HIT)
            o->domain_of[ev[i].sid] = ev[i].domain;
        if (ev[i].time_ns) {
            if (!o->timed)
                o->first_ns = ev[i].time_ns;
            o->timed = o->frame_timed = true;
            o->last_ns = ev[i].time_ns;
        }
        if (o->n == FRAME_EVENTS) {
            int r = flush(o, e);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

int slog_add_walk(struct slog_out *o, const struct log_event *ev, uint64_t high, uint64_t low,
                  struct err *e)
{
    if (o->n_walks == o->walk_room) {
        size_t room = o->walk_room ? 2 * o->walk_room : 1024;
        struct walk *v = realloc(o->walks, room * sizeof(*v));
        if (!v)
            return err_sys(e, ENOMEM, "log");
        o->walks = v;
        o->walk_room = room;
    }
    o->walks[o->n_walks++] = (struct walk){ o->info.events, high, low };
    return slog_add(o, ev, 1, e);
}

void slog_count_lines(struct slog_out *o, uint64_t lines, uint64_t ignored)
{
    o->info.lines += lines;
    o->info.ignored += ignored;
}

void slog_refuse(struct slog_out *o, uint64_t line, const char *reason)
{
    struct slog_info *i = &o->info;
    if (i->n_refused < SLOG_REFUSED_MAX) {
        struct slog_refused *x = &i->refused[i->n_refused];
        x->line = line;
        strncpy(x->reason, reason, sizeof(x->reason) - 1);
    }
    i->n_refused++;
}

static int write_walks(struct slog_out *o, struct err *e)
{
    CLEANUP(freep) uint8_t *b = malloc(30 * o->n_walks + 1);
    if (!b)
        return err_sys(e, ENOMEM, "log");
    size_t len = 0;
    struct walk before = { 0 };
    for (size_t i = 0; i < o->n_walks; i++) {
        const struct walk *w = &o->walks[i];
        len += put_var(b + len, w->event - before.event);
        len += put_var(b + len, zigzag(w->high, before.high));
        len += put_var(b + len, zigzag(w->low, before.low));
        before = *w;
    }
    return frame_add(&o->f, SEC_WALKS, (uint32_t)o->n_walks, b, len, LEVEL, e);
}

/* The summary, as numbers: lines, ignored, dropped, duration, kinds, devices, refused lines. */
static int write_info(struct slog_out *o, struct err *e)
{
    struct slog_info *i = &o->info;
    size_t kept = i->n_refused < SLOG_REFUSED_MAX ? i->n_refused : SLOG_REFUSED_MAX;
    for (uint32_t s = 0; s < 65536; s++)
        i->n_devices += o->by_sid[s] != 0;
    i->devices = calloc(i->n_devices + 1, sizeof(*i->devices));
    CLEANUP(freep) uint8_t *b = malloc(256 + 30 * i->n_devices + kept * 128);
    if (!i->devices || !b)
        return err_sys(e, ENOMEM, "log");
    size_t len = 0, n = 0;
    const uint64_t head[] = { i->lines, i->ignored, i->dropped, i->duration_ns, i->events };
    for (size_t k = 0; k < ARRAY_LEN(head); k++)
        len += put_var(b + len, head[k]);
    for (unsigned k = 1; k < LOG_KINDS; k++)
        len += put_var(b + len, i->by_kind[k]);
    len += put_var(b + len, i->n_devices);
    for (uint32_t s = 0; s < 65536; s++)
        if (o->by_sid[s]) {
            i->devices[n++] = (struct slog_device){ s, o->domain_of[s], o->by_sid[s] };
            len += put_var(b + len, s);
            len += put_var(b + len, o->domain_of[s]);
            len += put_var(b + len, o->by_sid[s]);
        }
    len += put_var(b + len, i->n_refused);
    for (size_t k = 0; k < kept; k++) {
        size_t m = strlen(i->refused[k].reason);
        len += put_var(b + len, i->refused[k].line);
        len += put_var(b + len, m);
        memcpy(b + len, i->refused[k].reason, m);
        len += m;
    }
    return frame_add(&o->f, SEC_INFO, 0, b, len, LEVEL, e);
}

int slog_end(struct slog_out **op, uint64_t dropped, struct id *ret_id, struct slog_info *ret_info,
             struct err *e)
{
    struct slog_out *o = *op;
    *op = NULL;
    o->info.dropped = dropped;
    o->info.duration_ns = o->last_ns > o->first_ns ? o->last_ns - o->first_ns : 0;
    int r = flush(o, e);
    if (r == 0)
        r = write_walks(o, e);
    if (r == 0)
        r = write_info(o, e);
    if (r == 0)
        r = frame_end(&o->f, ret_id, e);
    if (r == 0 && ret_info) {
        *ret_info = o->info;
        o->info = (struct slog_info){ 0 };
    }
    out_free(o);
    return r;
}

/* ---- reading */

struct slog_in {
    struct frame_in f;
    struct slog_info info;
    struct walk *walks;
    size_t n_walks;
    uint64_t frames, next_frame; /* next_frame: to be unpacked next */
    struct log_event *ev;        /* of the frame at hand */
    size_t n, pos;
    uint8_t *column[COLUMNS + 1];
    size_t room[COLUMNS + 1], len[COLUMNS + 1];
    struct memo *memo;
    uint32_t *first, *sorted;
};

void slog_close(struct slog_in **inp)
{
    struct slog_in *in = *inp;
    *inp = NULL;
    if (!in)
        return;
    frame_close(&in->f);
    slog_info_clear(&in->info);
    free(in->walks);
    free(in->ev);
    for (int i = 0; i <= COLUMNS; i++)
        free(in->column[i]);
    free(in->memo);
    free(in->first);
    free(in->sorted);
    free(in);
}

static int damage(const struct slog_in *in, struct err *e, const char *what)
{
    return err_set(e, SF_EINTEGRITY, "%s: log file is damaged: %s", in->f.path, what);
}

bool slog_is(const void *first, size_t n)
{
    return n >= 8 && !memcmp(first, slog_kind.magic, 8);
}

/* Reads one number; jumps to the end of the caller where there is none. */
#define NEXT(v)                                                                                    \
    do {                                                                                           \
        if (!get_var(&p, end, &(v)))                                                               \
            return damage(in, e, "its summary is too short");                                      \
    } while (0)

static int read_info(struct slog_in *in, const uint8_t *p, size_t len, struct err *e)
{
    const uint8_t *end = p + len;
    struct slog_info *i = &in->info;
    uint64_t sum = 0, v;
    NEXT(i->lines);
    NEXT(i->ignored);
    NEXT(i->dropped);
    NEXT(i->duration_ns);
    NEXT(i->events);
    for (unsigned k = 1; k < LOG_KINDS; k++) {
        NEXT(i->by_kind[k]);
        sum += i->by_kind[k];
    }
    NEXT(v);
    if (v > 65536)
        return damage(in, e, "its summary is impossible");
    i->devices = calloc(v + 1, sizeof(*i->devices));
    i->refused = calloc(SLOG_REFUSED_MAX, sizeof(*i->refused));
    if (!i->devices || !i->refused)
        return err_sys(e, ENOMEM, "%s", in->f.path);
    for (i->n_devices = 0; i->n_devices < v; i->n_devices++) {
        struct slog_device *d = &i->devices[i->n_devices];
        uint64_t sid, domain;
        NEXT(sid);
        NEXT(domain);
        NEXT(d->events);
        d->sid = (uint32_t)sid;
        d->domain = (uint32_t)domain;
    }
    NEXT(i->n_refused);
    for (uint64_t k = 0; k < i->n_refused && k < SLOG_REFUSED_MAX; k++) {
        NEXT(i->refused[k].line);
        NEXT(v);
        if (v >= sizeof(i->refused[k].reason) || v > (size_t)(end - p))
            return damage(in, e, "its summary is impossible");
        memcpy(i->refused[k].reason, p, v);
        p += v;
    }
    uint64_t most = in->frames * FRAME_EVENTS;
    if (p != end || sum != i->events || i->events > most || i->events + FRAME_EVENTS <= most)
        return damage(in, e, "its summary is impossible");
    return 0;
}

static int read_walks(struct slog_in *in, const uint8_t *p, size_t len, uint32_t n, struct err *e)
{
    const uint8_t *end = p + len;
    if (n > len / 3)
        return damage(in, e, "its summary is too short");
    in->walks = malloc(((size_t)n + 1) * sizeof(*in->walks));
    if (!in->walks)
        return err_sys(e, ENOMEM, "%s", in->f.path);
    struct walk w = { 0 };
    for (in->n_walks = 0; in->n_walks < n; in->n_walks++) {
        uint64_t v;
        NEXT(v);
        w.event += v;
        NEXT(v);
        w.high = unzigzag(v, w.high);
        NEXT(v);
        w.low = unzigzag(v, w.low);
        in->walks[in->n_walks] = w;
    }
    return 0;
}

static int start(struct slog_in *in, struct err *e)
{
    if (in->f.n < 2 || (in->f.n - 2) % COLUMNS)
        return damage(in, e, "sections are missing");
    uint32_t source = get_u32(in->f.header);
    if (source > SLOG_STOCK)
        return damage(in, e, "its header is impossible");
    in->info.source = (enum slog_source)source;
    in->frames = (in->f.n - 2) / COLUMNS;
    size_t len;
    int r = frame_read(&in->f, in->f.n - 1, SEC_INFO, 0, &in->column[0], &in->room[0], &len, e);
    if (r == 0)
        r = read_info(in, in->column[0], len, e);
    if (r < 0)
        return r;
    /* the number of a section of walks is their count */
    const uint8_t *s = in->f.p + get_u64(in->f.index + 16 * (in->f.n - 2));
    uint32_t n = get_u32(s + 4);
    r = frame_read(&in->f, in->f.n - 2, SEC_WALKS, n, &in->column[0], &in->room[0], &len, e);
    if (r == 0)
        r = read_walks(in, in->column[0], len, n, e);
    if (r < 0)
        return r;
    size_t most = in->info.events < FRAME_EVENTS ? in->info.events : FRAME_EVENTS;
    in->ev = malloc((most + 1) * sizeof(*in->ev));
    in->sorted = malloc((most + 1) * sizeof(*in->sorted));
    in->memo = malloc(MEMO * sizeof(*in->memo));
    in->first = malloc(65537 * sizeof(*in->first));
    return in->ev && in->sorted && in->memo && in->first ? 0 : err_sys(e, ENOMEM, "%s", in->f.path);
}

int slog_open(const char *path, struct slog_in **ret, struct err *e)
{
    CLEANUP(slog_close) struct slog_in *in = calloc(1, sizeof(*in));
    int r = in ? frame_open(&in->f, &slog_kind, path, e) : err_sys(e, ENOMEM, "%s", path);
    if (r == 0)
        r = start(in, e);
    if (r == 0)
        *ret = TAKE(in);
    return r;
}

int slog_open_bytes(const char *name, const void *p, size_t n, struct slog_in **ret, struct err *e)
{
    CLEANUP(slog_close) struct slog_in *in = calloc(1, sizeof(*in));
    int r =
        in ? frame_open_bytes(&in->f, &slog_kind, name, p, n, e) : err_sys(e, ENOMEM, "%s", name);
    if (r == 0)
        r = start(in, e);
    if (r == 0)
        *ret = TAKE(in);
    return r;
}

struct cursor {
    const uint8_t *p[COLUMNS + 1], *end[COLUMNS + 1];
};

static bool decode(struct cursor *c, struct device *d, struct memo *m, struct log_event *ev)
{
    if (c->p[SEC_OPS] == c->end[SEC_OPS])
        return false;
    uint8_t op = *c->p[SEC_OPS]++;
    uint64_t v, z;
    ev->kind = (uint8_t)((op & OP_KIND) + 1);
    ev->level = guess_level(d, ev->kind);
    ev->domain = guess_domain(d, ev->kind);
    if (op & OP_REST) {
        if (!get_var(&c->p[SEC_REST], c->end[SEC_REST], &v) ||
            !get_var(&c->p[SEC_REST], c->end[SEC_REST], &z))
            return false;
        ev->level = (uint8_t)v;
        ev->domain = (uint32_t)unzigzag(z, ev->domain);
    }
    ev->p[0] = guess_p0(d, ev);
    if (op & OP_P0) {
        if (!get_var(&c->p[SEC_P0], c->end[SEC_P0], &z))
            return false;
        ev->p[0] = unzigzag(z, ev->p[0]);
    }
    ev->p[2] = guess_p2(d, ev);
    if (op & OP_P2) {
        if (!get_var(&c->p[SEC_P2], c->end[SEC_P2], &z))
            return false;
        ev->p[2] = unzigzag(z, ev->p[2]);
    }
    uint64_t guess = guess_p1(d, m, ev);
    ev->p[1] = guess;
    if (op & OP_P1) {
        if (!get_var(&c->p[SEC_P1], c->end[SEC_P1], &z))
            return false;
        uint64_t low = guess & 0xfff;
        if (z & 1 && !get_var(&c->p[SEC_P1], c->end[SEC_P1], &low))
            return false;
        ev->p[1] = unzigzag(z >> 1, guess >> 12) << 12 | (low & 0xfff);
    }
    learn(d, m, ev);
    return true;
}

/* Turns: fills ev[].sid and first[]. */
static bool decode_turns(struct slog_in *in, size_t n)
{
    const uint8_t *p = in->column[SEC_TURNS], *end = p + in->len[SEC_TURNS];
    memset(in->first, 0, 65537 * sizeof(*in->first));
    uint64_t step, run;
    uint16_t sid = 0;
    for (size_t i = 0; i < n;) {
        if (!get_var(&p, end, &step) || !get_var(&p, end, &run) || !run || run > n - i)
            return false;
        sid = (uint16_t)(sid + step);
        in->first[sid + 1u] += (uint32_t)run;
        for (; run; run--)
            in->ev[i++].sid = sid;
    }
    for (size_t s = 0; s < 65536; s++)
        in->first[s + 1] += in->first[s];
    return p == end;
}

static int read_frame(struct slog_in *in, uint64_t number, struct err *e)
{
    uint64_t left = in->info.events - number * FRAME_EVENTS;
    size_t n = left < FRAME_EVENTS ? left : FRAME_EVENTS;
    in->n = in->pos = 0;
    struct cursor c;
    for (uint32_t k = 1; k <= COLUMNS; k++) {
        int r = frame_read(&in->f, number * COLUMNS + k - 1, k, (uint32_t)number, &in->column[k],
                           &in->room[k], &in->len[k], e);
        if (r < 0)
            return r;
        c.p[k] = in->column[k];
        c.end[k] = c.p[k] + in->len[k];
    }
    if (in->len[SEC_OPS] != n || !decode_turns(in, n))
        return damage(in, e, "a frame does not fit");
    for (size_t i = 0; i < n; i++)
        in->sorted[in->first[in->ev[i].sid]++] = (uint32_t)i;
    memset(in->memo, 0, MEMO * sizeof(*in->memo));
    struct device d;
    uint32_t at = 0;
    for (size_t s = 0; s < 65536; s++) {
        if (at == in->first[s])
            continue;
        fresh(&d);
        for (; at < in->first[s]; at++)
            if (!decode(&c, &d, in->memo, &in->ev[in->sorted[at]]))
                return damage(in, e, "a frame does not fit");
    }
    uint64_t now = 0, z;
    bool timed = in->len[SEC_TIMES] != 0;
    for (size_t i = 0; i < n; i++) {
        if (timed && !get_var(&c.p[SEC_TIMES], c.end[SEC_TIMES], &z))
            return damage(in, e, "a frame does not fit");
        now = timed ? unzigzag(z, now) : 0;
        in->ev[i].time_ns = now;
    }
    for (uint32_t k = SEC_OPS; k <= COLUMNS; k++)
        if (c.p[k] != c.end[k])
            return damage(in, e, "a frame does not fit");
    in->n = n;
    return 0;
}

ssize_t slog_read(struct slog_in *in, struct log_event ev[], size_t n, struct err *e)
{
    size_t got = 0;
    while (got < n) {
        if (in->pos == in->n) {
            if (in->next_frame == in->frames)
                break;
            int r = read_frame(in, in->next_frame, e);
            if (r < 0)
                return r;
            in->next_frame++;
        }
        size_t k = in->n - in->pos < n - got ? in->n - in->pos : n - got;
        memcpy(ev + got, in->ev + in->pos, k * sizeof(*ev));
        in->pos += k;
        got += k;
    }
    return (ssize_t)got;
}

const struct slog_info *slog_info(const struct slog_in *in)
{
    return &in->info;
}

bool slog_walk(const struct slog_in *in, uint64_t i, uint64_t *high, uint64_t *low)
{
    size_t lo = 0, hi = in->n_walks;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (in->walks[mid].event < i)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == in->n_walks || in->walks[lo].event != i)
        return false;
    *high = in->walks[lo].high;
    *low = in->walks[lo].low;
    return true;
}
