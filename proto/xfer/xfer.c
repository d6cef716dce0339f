#include "proto/xfer/xfer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool bit(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

static void set_bit(uint8_t *bits, uint64_t i, bool on)
{
    uint8_t mask = (uint8_t)(1u << (i % 8));
    bits[i / 8] = on ? bits[i / 8] | mask : (uint8_t)(bits[i / 8] & ~mask);
}

static uint64_t chunks_of(uint64_t size)
{
    return size / CID_CHUNK + (size % CID_CHUNK != 0);
}

/* The next free action. A step never needs more than fit; if one did, the tick would ask again. */
static struct xfer_action *act(struct xfer_actions *out, enum xfer_action_kind kind)
{
    static _Thread_local struct xfer_action spare;
    struct xfer_action *a =
        out->n < sizeof(out->v) / sizeof(out->v[0]) ? &out->v[out->n++] : &spare;
    memset(a, 0, sizeof(*a));
    a->kind = kind;
    return a;
}

static void fail(struct xfer_recv *x, struct xfer_actions *out, int code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void fail(struct xfer_recv *x, struct xfer_actions *out, int code, const char *fmt, ...)
{
    va_list ap;
    x->state = XFER_FAILED;
    struct xfer_action *a = act(out, XFER_DO_FAIL);
    a->code = code;
    va_start(ap, fmt);
    vsnprintf(a->text, sizeof(a->text), fmt, ap);
    va_end(ap);
}

static void ask_hashes(struct xfer_recv *x, struct xfer_actions *out)
{
    struct xfer_action *a = act(out, XFER_DO_SEND);
    a->msg.type = M_GET;
    a->msg.get = (struct msg_get){
        .req = x->req, .id = x->id, .want_hashes = 1, .first = x->n_hashes, .credit = 0
    };
}

/* Ask for runs of missing chunks until the window is full. */
static void ask_chunks(struct xfer_recv *x, struct xfer_actions *out)
{
    for (int runs = 0; runs < 4 && x->n_asked < x->window; runs++) {
        while (x->next < x->n_chunks && (bit(x->have, x->next) || bit(x->asked, x->next)))
            x->next++;
        uint64_t first = x->next, end = first;
        while (end < x->n_chunks && x->n_asked < x->window && !bit(x->have, end) &&
               !bit(x->asked, end)) {
            set_bit(x->asked, end++, true);
            x->n_asked++;
        }
        if (end == first)
            return;
        struct xfer_action *a = act(out, XFER_DO_SEND);
        a->msg.type = M_GET;
        a->msg.get =
            (struct msg_get){ .req = x->req, .id = x->id, .first = first, .credit = end - first };
    }
}

/* What was asked for and did not come is not coming. */
static void forget_asked(struct xfer_recv *x)
{
    if (x->asked)
        memset(x->asked, 0, (x->n_chunks + 7) / 8);
    x->n_asked = 0;
    x->next = 0;
}

static void commit_if_whole(struct xfer_recv *x, struct xfer_actions *out)
{
    if (x->n_have == x->n_chunks) {
        x->state = XFER_COMMITTING;
        act(out, XFER_DO_COMMIT);
    }
}

static void open_if_listed(struct xfer_recv *x, struct xfer_actions *out)
{
    if (x->n_hashes < x->n_chunks)
        return;
    struct id got;
    cid_of_chunks(x->size_b, x->hashes, x->n_chunks, &got);
    if (!id_eq(&got, &x->id)) {
        fail(x, out, SF_EINTEGRITY, "the chunk hashes sent are not those of the artefact");
        return;
    }
    x->state = XFER_OPENING;
    struct xfer_action *a = act(out, XFER_DO_OPEN);
    a->size_b = x->size_b;
    a->hashes = x->hashes;
    a->n = x->n_chunks;
}

/* The size is known: make the tables. */
static bool take_size(struct xfer_recv *x, uint64_t size_b, struct xfer_actions *out)
{
    if (size_b > x->max_b) {
        fail(x, out, EFBIG, "%llu bytes are more than the %llu that are taken",
             (unsigned long long)size_b, (unsigned long long)x->max_b);
        return false;
    }
    x->size_b = size_b;
    x->n_chunks = chunks_of(size_b);
    size_t bits = (x->n_chunks + 7) / 8;
    x->hashes = malloc(x->n_chunks ? x->n_chunks * ID_LEN : 1);
    x->have = calloc(1, bits ? bits : 1);
    x->asked = calloc(1, bits ? bits : 1);
    if (x->hashes && x->have && x->asked)
        return true;
    fail(x, out, ENOMEM, "no memory for %zu chunk hashes", x->n_chunks);
    return false;
}

void xfer_recv_init(struct xfer_recv *x, uint64_t req, const struct id *id, uint64_t size_b,
                    uint64_t max_b, uint64_t now_ms, struct xfer_actions *out)
{
    *x = (struct xfer_recv){ .state = XFER_HASHES,
                             .req = req,
                             .id = *id,
                             .size_b = UINT64_MAX,
                             .max_b = max_b,
                             .quiet_since_ms = now_ms,
                             .window = XFER_WINDOW };
    out->n = 0;
    if (size_b != UINT64_MAX && size_b > max_b) {
        fail(x, out, EFBIG, "%llu bytes are more than the %llu that are taken",
             (unsigned long long)size_b, (unsigned long long)max_b);
        return;
    }
    ask_hashes(x, out);
}

void xfer_recv_clear(struct xfer_recv *x)
{
    free(x->hashes);
    free(x->have);
    free(x->asked);
    memset(x, 0, sizeof(*x));
    x->state = XFER_FAILED;
}

void xfer_recv_window(struct xfer_recv *x, size_t n)
{
    x->window = n;
}

static void on_hashes(struct xfer_recv *x, const struct msg_hashes *h, uint64_t now_ms,
                      struct xfer_actions *out)
{
    if (x->state != XFER_HASHES)
        return;
    if (x->size_b == UINT64_MAX && !take_size(x, h->size_b, out))
        return;
    size_t n = h->hashes_len / ID_LEN;
    if (h->size_b != x->size_b || h->hashes_len % ID_LEN || n > x->n_chunks ||
        h->first > x->n_chunks - n) {
        fail(x, out, SF_EINTEGRITY, "the sender's list of chunks contradicts itself");
        return;
    }
    /* repeated or early parts are not needed; the part that continues is */
    if (h->first > x->n_hashes || h->first + n < x->n_hashes)
        return;
    size_t skip = x->n_hashes - (size_t)h->first;
    if (n == skip && x->n_hashes < x->n_chunks)
        return;
    if (n > skip)
        memcpy(x->hashes + x->n_hashes, h->hashes + skip * ID_LEN, (n - skip) * ID_LEN);
    x->n_hashes += n - skip;
    x->quiet_since_ms = now_ms;
    x->tries = 0;
    open_if_listed(x, out);
}

static void on_chunk(struct xfer_recv *x, const struct msg_chunk *c, struct xfer_actions *out)
{
    if (x->state != XFER_CHUNKS || c->index >= x->n_chunks || bit(x->have, c->index))
        return;
    struct xfer_action *a = act(out, XFER_DO_WRITE);
    a->index = c->index;
    a->data = c->data;
    a->n = c->data_len;
    a->packed = c->packed;
}

int xfer_code(const char *name)
{
    static const int codes[] = { ENOENT,     ENOSPC, SF_EREFUSED, SF_EINTEGRITY, EFBIG,
                                 SF_EFORMAT, EACCES, EBUSY,       ECANCELED };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (!strcmp(err_name(codes[i]), name))
            return codes[i];
    return SF_EFAILED;
}

static void on_msg(struct xfer_recv *x, const struct msg *m, uint64_t now_ms,
                   struct xfer_actions *out)
{
    switch (m->type) {
    case M_HASHES:
        if (id_eq(&m->hashes.id, &x->id))
            on_hashes(x, &m->hashes, now_ms, out);
        break;
    case M_CHUNK:
        if (id_eq(&m->chunk.id, &x->id))
            on_chunk(x, &m->chunk, out);
        break;
    case M_XFER_FAIL:
        if (id_eq(&m->xfer_fail.id, &x->id))
            fail(x, out, xfer_code(m->xfer_fail.code), "%.180s",
                 m->xfer_fail.text ? m->xfer_fail.text : "");
        break;
    default:
        break;
    }
}

static void ask_again(struct xfer_recv *x, uint64_t now_ms, struct xfer_actions *out)
{
    x->quiet_since_ms = now_ms;
    if (x->state == XFER_HASHES) {
        ask_hashes(x, out);
    } else if (x->state == XFER_CHUNKS) {
        forget_asked(x);
        ask_chunks(x, out);
    }
}

static void on_opened(struct xfer_recv *x, const struct xfer_event *ev, uint64_t now_ms,
                      struct xfer_actions *out)
{
    if (ev->r < 0) {
        fail(x, out, -ev->r, "%.180s", ev->text ? ev->text : "cannot store it");
        return;
    }
    x->state = XFER_CHUNKS;
    x->quiet_since_ms = now_ms;
    for (uint64_t i = 0; ev->have && i < x->n_chunks; i++)
        if (bit(ev->have, i)) {
            set_bit(x->have, i, true);
            x->n_have++;
        }
    commit_if_whole(x, out);
    if (x->state == XFER_CHUNKS)
        ask_chunks(x, out);
}

static void on_wrote(struct xfer_recv *x, const struct xfer_event *ev, uint64_t now_ms,
                     struct xfer_actions *out)
{
    uint64_t i = ev->index;
    if (i >= x->n_chunks || bit(x->have, i))
        return;
    if (ev->r < 0 && ev->r != -SF_EINTEGRITY) {
        fail(x, out, -ev->r, "%.180s", ev->text ? ev->text : "cannot store it");
        return;
    }
    if (bit(x->asked, i)) {
        set_bit(x->asked, i, false);
        x->n_asked--;
    }
    if (ev->r < 0) {
        if (i < x->next)
            x->next = i;
        if (++x->damaged >= XFER_DAMAGED_MAX) {
            fail(x, out, SF_EINTEGRITY, "%u chunks arrived damaged", x->damaged);
            return;
        }
    } else {
        set_bit(x->have, i, true);
        x->n_have++;
        x->quiet_since_ms = now_ms;
        x->tries = 0;
        commit_if_whole(x, out);
    }
    /* half a window at a time: one question for several chunks */
    if (x->state == XFER_CHUNKS && x->n_asked <= x->window / 2)
        ask_chunks(x, out);
}

int xfer_recv_step(struct xfer_recv *x, const struct xfer_event *ev, uint64_t now_ms,
                   struct xfer_actions *out)
{
    out->n = 0;
    if (x->state == XFER_DONE || x->state == XFER_FAILED)
        return 0;
    switch (ev->kind) {
    case XFER_EV_MSG:
        on_msg(x, ev->msg, now_ms, out);
        break;
    case XFER_EV_TICK:
        if (now_ms < xfer_recv_deadline(x))
            break;
        if (++x->tries >= XFER_TRIES)
            fail(x, out, ETIMEDOUT, "nothing came for %llu s",
                 (unsigned long long)XFER_TIMEOUT_MS * XFER_TRIES / 1000);
        else
            ask_again(x, now_ms, out);
        break;
    case XFER_EV_UP:
        x->tries = 0;
        ask_again(x, now_ms, out);
        break;
    case XFER_EV_ALIVE:
        x->tries = 0;
        x->quiet_since_ms = now_ms;
        break;
    case XFER_EV_OPENED:
        if (x->state == XFER_OPENING)
            on_opened(x, ev, now_ms, out);
        break;
    case XFER_EV_WROTE:
        if (x->state == XFER_CHUNKS)
            on_wrote(x, ev, now_ms, out);
        break;
    case XFER_EV_COMMITTED:
        if (x->state != XFER_COMMITTING)
            break;
        if (ev->r < 0) {
            fail(x, out, -ev->r, "%.180s", ev->text ? ev->text : "cannot store it");
        } else {
            x->state = XFER_DONE;
            act(out, XFER_DO_DONE);
        }
        break;
    }
    return x->state == XFER_FAILED && out->n && out->v[out->n - 1].code == ENOMEM ? -ENOMEM : 0;
}

uint64_t xfer_recv_deadline(const struct xfer_recv *x)
{
    return x->state == XFER_HASHES || x->state == XFER_CHUNKS ? x->quiet_since_ms + XFER_TIMEOUT_MS
                                                              : UINT64_MAX;
}

const char *xfer_recv_check(const struct xfer_recv *x)
{
    if (x->size_b == UINT64_MAX)
        return x->n_chunks || x->hashes ? "chunks of an unknown size" : NULL;
    if (x->n_chunks != chunks_of(x->size_b))
        return "number of chunks";
    if (x->n_hashes > x->n_chunks)
        return "more hashes than chunks";
    if (!x->have || !x->asked)
        return x->state == XFER_FAILED ? NULL : "no tables";
    uint64_t have = 0, asked = 0;
    for (uint64_t i = 0; i < x->n_chunks; i++) {
        have += bit(x->have, i);
        asked += bit(x->asked, i);
        if (bit(x->have, i) && bit(x->asked, i))
            return "a chunk that is here is asked for";
        if (i < x->next && !bit(x->have, i) && !bit(x->asked, i))
            return "a chunk below next is neither here nor asked for";
    }
    if (have != x->n_have || asked != x->n_asked)
        return "counts differ from bits";
    if (x->n_asked > x->window)
        return "window";
    if ((x->state == XFER_DONE || x->state == XFER_COMMITTING) && x->n_have != x->n_chunks)
        return "done without all chunks";
    if (x->state == XFER_CHUNKS && x->n_have == x->n_chunks)
        return "whole and not committed";
    return NULL;
}

/* ---- sender */

void xfer_send_init(struct xfer_send *s, const struct id *id, uint64_t size_b)
{
    *s = (struct xfer_send){ .id = *id, .size_b = size_b, .n_chunks = chunks_of(size_b) };
}

int xfer_send_get(struct xfer_send *s, const struct msg_get *g)
{
    if (g->want_hashes) {
        if (g->first > s->n_chunks)
            return -EINVAL;
        s->owes_hashes = true;
        s->hashes_from = g->first;
        s->req = g->req;
        return 0;
    }
    if (g->credit > XFER_CREDIT_MAX || g->first >= s->n_chunks ||
        g->credit > s->n_chunks - g->first)
        return -EINVAL;
    s->req = g->req;
    for (uint64_t c = g->first; c < g->first + g->credit && s->n_owed < XFER_CREDIT_MAX; c++) {
        size_t k = 0;
        while (k < s->n_owed && s->owed[k] != c)
            k++;
        if (k == s->n_owed)
            s->owed[s->n_owed++] = c;
    }
    return 0;
}

int xfer_send_next(const struct xfer_send *s, uint64_t *ret_index, uint64_t *ret_n)
{
    if (s->owes_hashes) {
        uint64_t left = s->n_chunks - s->hashes_from;
        *ret_index = s->hashes_from;
        *ret_n = left < XFER_HASHES_MSG ? left : XFER_HASHES_MSG;
        return 1;
    }
    if (s->n_owed) {
        *ret_index = s->owed[0];
        *ret_n = 1;
        return 2;
    }
    return 0;
}

void xfer_send_done(struct xfer_send *s)
{
    if (s->owes_hashes) {
        uint64_t left = s->n_chunks - s->hashes_from;
        uint64_t n = left < XFER_HASHES_MSG ? left : XFER_HASHES_MSG;
        s->hashes_from += n;
        s->owes_hashes = s->hashes_from < s->n_chunks;
    } else if (s->n_owed) {
        memmove(s->owed, s->owed + 1, --s->n_owed * sizeof(s->owed[0]));
    }
}
