#include "proto/xfer/streams.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/cas/grow.h"
#include "proto/wire/utf8.h"
#include "proto/xfer/stream.h"

enum { COLLECT_MS = 3600000, TELL_MS = 30000 };

struct entry {
    struct entry *next;
    uint64_t peer, used_ms;
    struct id stream, key; /* as the peer calls it; in the store */
    struct cas_grow *g;
    struct stream_recv r;
};

struct streams {
    struct cas *cas;
    struct streams_ops ops;
    struct entry *v;
    size_t n;
    uint64_t collect_ms, told_ms;
};

struct streams *streams_new(struct cas *c, const struct streams_ops *ops)
{
    struct streams *s = calloc(1, sizeof(*s));
    if (s)
        *s = (struct streams){ .cas = c, .ops = *ops };
    return s;
}

static void remove_entry(struct streams *s, struct entry *x, bool drop)
{
    struct entry **p = &s->v;
    while (*p != x)
        p = &(*p)->next;
    *p = x->next;
    cas_grow_close(&x->g, drop);
    free(x);
    s->n--;
}

void streams_free(struct streams **sp)
{
    struct streams *s = *sp;
    if (!s)
        return;
    *sp = NULL;
    while (s->v)
        remove_entry(s, s->v, false);
    free(s);
}

static void trouble(struct streams *s, const struct err *e, uint64_t now_ms)
{
    if (s->told_ms && now_ms - s->told_ms < TELL_MS)
        return;
    s->told_ms = now_ms;
    log_warn("a stream waits: %s", e->text);
}

static void say_at(struct streams *s, const struct entry *x)
{
    struct msg m = {
        .type = M_STREAM_AT,
        .stream_at = { .stream = x->stream, .taken_b = x->r.taken_b, .durable_b = x->r.durable_b }
    };
    s->ops.send(s->ops.ctx, x->peer, &m);
}

static void say_over(struct streams *s, uint64_t peer, const struct id *stream, int code,
                     const char *text)
{
    char clean[400];
    utf8_clean(text, clean, sizeof(clean));
    struct msg m = { .type = M_STREAM_OVER,
                     .stream_over = {
                         .stream = *stream, .code = code ? err_name(code) : "", .text = clean } };
    s->ops.send(s->ops.ctx, peer, &m);
}

/* What the key of one peer calls so is not what another calls so. */
static struct id key_of(const char *owner, const struct id *stream)
{
    struct hasher h;
    struct id key;
    hasher_init(&h);
    hasher_add(&h, owner, strlen(owner) + 1);
    hasher_add(&h, stream->b, ID_LEN);
    hasher_end(&h, &key);
    return key;
}

static struct entry *find(struct streams *s, const struct id *key)
{
    for (struct entry *x = s->v; x; x = x->next)
        if (id_eq(&x->key, key))
            return x;
    return NULL;
}

/* 0; -ENOENT there is none and make is false; -EBUSY; -errno. */
static int open_entry(struct streams *s, const struct id *key, const struct id *stream, bool make,
                      uint64_t now_ms, struct entry **ret, struct err *e)
{
    *ret = find(s, key);
    if (*ret)
        return 0;
    if (s->n >= STREAMS_MAX) {
        struct entry *old = s->v;
        for (struct entry *x = s->v; x; x = x->next)
            if (x->used_ms < old->used_ms)
                old = x;
        if (now_ms - old->used_ms < STREAMS_QUIET_MS / 2)
            return err_set(e, EBUSY, "%d of them are open", STREAMS_MAX);
        remove_entry(s, old, false);
    }
    struct entry *x = calloc(1, sizeof(*x));
    if (!x)
        return err_sys(e, ENOMEM, "stream");
    int r = cas_grow_open(s->cas, key, make, &x->g, e);
    if (r < 0) {
        free(x);
        return r;
    }
    x->key = *key;
    x->stream = *stream;
    stream_recv_init(&x->r, cas_grow_durable(x->g));
    x->next = s->v;
    s->v = x;
    s->n++;
    *ret = x;
    return 0;
}

static void sync_entry(struct streams *s, struct entry *x, uint64_t now_ms)
{
    struct err e = { 0 };
    if (cas_grow_sync(x->g, &e) < 0) {
        trouble(s, &e, now_ms);
        remove_entry(s, x, false); /* what is on the disk is looked at anew when it goes on */
        return;
    }
    if (stream_recv_synced(&x->r))
        say_at(s, x);
}

/* The stream, at least as far as its sender has freed its bytes; NULL when this was answered. */
static struct entry *join(struct streams *s, uint64_t peer, const struct id *key,
                          const struct id *stream, uint64_t freed_b, uint64_t now_ms)
{
    struct err e = { 0 };
    struct entry *x = NULL;
    int r = open_entry(s, key, stream, freed_b == 0, now_ms, &x, &e);
    if (r < 0 && r != -ENOENT) {
        trouble(s, &e, now_ms); /* it asks again */
        return NULL;
    }
    if (r < 0 || x->r.durable_b < freed_b) {
        say_over(s, peer, stream, SF_EINTEGRITY,
                 "the beginning of it is lost at the coordinator (it was given up, or its store "
                 "was replaced)");
        if (x)
            remove_entry(s, x, true);
        return NULL;
    }
    x->peer = peer;
    x->used_ms = now_ms;
    return x;
}

static void on_data(struct streams *s, uint64_t peer, const struct id *key,
                    const struct msg_stream_data *m, uint64_t now_ms)
{
    struct err e = { 0 };
    struct entry *x = find(s, key);
    if (!x || x->peer != peer)
        return; /* after silence it asks where it is */
    x->used_ms = now_ms;
    if (m->offset != x->r.taken_b) {
        say_at(s, x);
        return;
    }
    int r = s->ops.room ? s->ops.room(s->ops.ctx, m->data_len, &e) : 0;
    if (r >= 0)
        r = cas_grow_add(x->g, m->data, m->data_len, &e);
    if (r < 0) {
        trouble(s, &e, now_ms);
        remove_entry(s, x, false);
        return;
    }
    stream_recv_data(&x->r, m->offset, m->data_len, now_ms);
    if (stream_recv_due(&x->r, now_ms))
        sync_entry(s, x, now_ms);
    else
        say_at(s, x);
}

static void on_end(struct streams *s, uint64_t peer, const struct id *key,
                   const struct msg_stream_end *m, uint64_t now_ms)
{
    struct err e = { 0 };
    struct entry *x = find(s, key);
    struct xfers_end end = { .dir = XFERS_IN, .peer = peer, .id = m->id, .size_b = m->size_b };
    snprintf(end.kind, sizeof(end.kind), "%s", m->kind);
    snprintf(end.name, sizeof(end.name), "%s", m->name ? m->name : "");
    if (cas_check(s->cas, &m->id)) { /* said before, or somebody else brought it */
        int r = s->ops.ended(s->ops.ctx, &end, &e);
        if (r >= 0 && (x || open_entry(s, key, &m->stream, false, now_ms, &x, &e) == 0))
            remove_entry(s, x, true);
        if (r >= 0 || r == -SF_EFORMAT || r == -SF_EINTEGRITY)
            say_over(s, peer, &m->stream, r < 0 ? -r : 0, e.text);
        return;
    }
    x = join(s, peer, key, &m->stream, m->freed_b, now_ms);
    if (!x)
        return;
    if (x->r.taken_b < m->size_b) {
        say_at(s, x);
        return;
    }
    int r = x->r.taken_b > m->size_b ? err_set(&e, SF_EINTEGRITY, "more bytes came than there are")
                                     : cas_grow_end(&x->g, &m->id, &e);
    if (r < 0 && r != -SF_EINTEGRITY) {
        trouble(s, &e, now_ms);
        return;
    }
    if (r < 0) {
        say_over(s, peer, &m->stream, -r, e.text);
        remove_entry(s, x, true);
        return;
    }
    remove_entry(s, x, false);
    r = s->ops.ended(s->ops.ctx, &end, &e);
    if (r >= 0 || r == -SF_EFORMAT || r == -SF_EINTEGRITY)
        say_over(s, peer, &m->stream, r < 0 ? -r : 0, e.text);
}

int streams_msg(struct streams *s, uint64_t peer, const char *owner, const struct msg *m,
                uint64_t now_ms)
{
    const struct id *stream = m->type == M_STREAM_OPEN   ? &m->stream_open.stream
                              : m->type == M_STREAM_DATA ? &m->stream_data.stream
                              : m->type == M_STREAM_END  ? &m->stream_end.stream
                              : m->type == M_STREAM_DROP ? &m->stream_drop.stream
                                                         : NULL;
    if (!stream)
        return 0;
    struct id key = key_of(owner, stream);
    struct entry *x;
    switch (m->type) {
    case M_STREAM_OPEN:
        if ((x = join(s, peer, &key, stream, m->stream_open.freed_b, now_ms)))
            say_at(s, x);
        break;
    case M_STREAM_DATA:
        on_data(s, peer, &key, &m->stream_data, now_ms);
        break;
    case M_STREAM_END:
        on_end(s, peer, &key, &m->stream_end, now_ms);
        break;
    default:
        if (open_entry(s, &key, stream, false, now_ms, &x, NULL) == 0)
            remove_entry(s, x, true);
        break;
    }
    return 1;
}

int64_t streams_tick(struct streams *s, uint64_t now_ms)
{
    int64_t wait = -1;
    if (now_ms >= s->collect_ms) {
        uint64_t wall = clock_wall_ms(), days = GROW_DAYS * UINT64_C(86400000);
        cas_grow_collect(s->cas, wall > days ? wall - days : 0);
        s->collect_ms = now_ms + COLLECT_MS;
    }
    for (struct entry *x = s->v, *next; x; x = next) {
        next = x->next;
        if (stream_recv_due(&x->r, now_ms)) {
            sync_entry(s, x, now_ms);
        } else if (now_ms - x->used_ms >= STREAMS_QUIET_MS) {
            remove_entry(s, x, false);
        } else if (x->r.chunk_ms) {
            uint64_t at = x->r.chunk_ms + STREAM_SYNC_MS;
            int64_t ms = at > now_ms ? (int64_t)(at - now_ms) : 0;
            if (wait < 0 || ms < wait)
                wait = ms;
        }
    }
    return wait;
}
