/* Writing of a log. */
#include "proto/format/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/format/frame.h"
#include "proto/format/log_file.h"

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
