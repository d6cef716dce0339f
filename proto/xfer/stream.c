#include "proto/xfer/stream.h"

void stream_send_init(struct stream_send *s, uint64_t freed_b)
{
    *s = (struct stream_send){ .freed_b = freed_b, .grown_b = freed_b };
}

void stream_send_grew(struct stream_send *s, uint64_t size_b)
{
    if (size_b > s->grown_b && !s->ended)
        s->grown_b = size_b;
}

void stream_send_ended(struct stream_send *s)
{
    s->ended = true;
}

static bool over(const struct stream_send *s)
{
    return s->state == STREAM_DONE || s->state == STREAM_FAILED;
}

enum stream_what stream_send_next(struct stream_send *s, uint64_t now_ms, uint64_t *ret_off,
                                  uint64_t *ret_n)
{
    if (over(s))
        return STREAM_SEND_NOTHING;
    if (s->waits && now_ms >= s->asked_ms + STREAM_TIMEOUT_MS)
        stream_send_up(s);
    if (s->state == STREAM_ASK) {
        if (s->waits)
            return STREAM_SEND_NOTHING;
        /* the end says all that an open would, and is understood even by one that has forgotten the stream */
        return s->ended ? STREAM_SEND_END : STREAM_SEND_OPEN;
    }
    uint64_t left = s->grown_b - s->sent_b, room = STREAM_WINDOW - (s->sent_b - s->taken_b);
    if (left && (left >= STREAM_PIECE || s->ended) && room >= STREAM_PIECE) {
        *ret_off = s->sent_b;
        *ret_n = left < STREAM_PIECE ? left : STREAM_PIECE;
        return STREAM_SEND_DATA;
    }
    return s->ended && !left && s->taken_b == s->sent_b && !s->waits ? STREAM_SEND_END
                                                                     : STREAM_SEND_NOTHING;
}

void stream_sent(struct stream_send *s, enum stream_what what, uint64_t n, uint64_t now_ms)
{
    if (what == STREAM_SEND_DATA)
        s->sent_b += n;
    if (!s->waits)
        s->asked_ms = now_ms;
    s->waits = true;
}

void stream_send_at(struct stream_send *s, uint64_t taken_b, uint64_t durable_b, uint64_t now_ms)
{
    if (over(s) || durable_b > taken_b || taken_b > s->grown_b || durable_b < s->freed_b)
        return;
    if (s->state == STREAM_ASK) {
        s->state = STREAM_FLOW;
        s->sent_b = s->taken_b = taken_b;
        s->durable_b = durable_b;
        s->waits = false;
        return;
    }
    if (taken_b > s->sent_b || taken_b < s->taken_b)
        return;
    s->waits = taken_b < s->sent_b;
    if (taken_b > s->taken_b)
        s->asked_ms = now_ms;
    s->taken_b = taken_b;
    if (durable_b > s->durable_b)
        s->durable_b = durable_b;
}

void stream_send_over(struct stream_send *s, bool ok)
{
    if (!over(s))
        s->state = ok ? STREAM_DONE : STREAM_FAILED;
}

void stream_send_up(struct stream_send *s)
{
    if (over(s))
        return;
    s->state = STREAM_ASK;
    s->waits = false;
}

int64_t stream_send_wait(const struct stream_send *s, uint64_t now_ms)
{
    if (over(s) || !s->waits)
        return -1;
    uint64_t at = s->asked_ms + STREAM_TIMEOUT_MS;
    return at > now_ms ? (int64_t)(at - now_ms) : 0;
}

const char *stream_send_check(const struct stream_send *s)
{
    if (over(s) || s->state == STREAM_ASK)
        return NULL;
    if (s->durable_b > s->taken_b || s->taken_b > s->sent_b || s->sent_b > s->grown_b)
        return "order";
    if (s->freed_b > s->durable_b)
        return "freed before it was durable";
    if (s->sent_b - s->taken_b > STREAM_WINDOW)
        return "window";
    return NULL;
}

/* ---- the end that takes it */

void stream_recv_init(struct stream_recv *r, uint64_t durable_b)
{
    *r = (struct stream_recv){ .taken_b = durable_b, .durable_b = durable_b };
}

bool stream_recv_data(struct stream_recv *r, uint64_t off, uint64_t n, uint64_t now_ms)
{
    if (off != r->taken_b || n > UINT64_MAX - off)
        return false;
    r->taken_b += n;
    if (!r->chunk_ms && r->taken_b - r->durable_b >= CID_CHUNK)
        r->chunk_ms = now_ms ? now_ms : 1;
    return true;
}

bool stream_recv_due(const struct stream_recv *r, uint64_t now_ms)
{
    return r->chunk_ms &&
           (r->taken_b - r->durable_b >= STREAM_SYNC_B || now_ms >= r->chunk_ms + STREAM_SYNC_MS);
}

bool stream_recv_synced(struct stream_recv *r)
{
    uint64_t whole = r->taken_b / CID_CHUNK * CID_CHUNK;
    bool moved = whole > r->durable_b;
    r->durable_b = moved ? whole : r->durable_b;
    r->chunk_ms = 0;
    return moved;
}
