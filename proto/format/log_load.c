/* Reading of a log. */
#include "proto/format/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/format/frame.h"
#include "proto/format/log_file.h"

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
