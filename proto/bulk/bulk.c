#include "proto/bulk/bulk.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/bulk/in.h"

enum { DIAL_MS = 3000, REFUSED_TELL_MS = 10000 };

void wake(int fd)
{
    uint64_t one = 1;
    ssize_t r;
    do
        r = write(fd, &one, sizeof(one));
    while (r < 0 && errno == EINTR);
}

static void unwake(int fd)
{
    uint64_t n;
    ssize_t r;
    do
        r = read(fd, &n, sizeof(n));
    while (r < 0 && errno == EINTR);
}

int thread_start(pthread_t *t, void *(*fn)(void *), void *arg)
{
    sigset_t all, old;
    pthread_attr_t a;
    sigfillset(&all);
    pthread_attr_init(&a);
    pthread_attr_setstacksize(&a, 256 << 10);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(t, &a, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&a);
    return -r;
}

/* ---- what streams say */

static void push(struct bulk_stream *s, enum bulk_event_kind kind, uint64_t index, int r,
                 const char *text)
{
    struct bulk_event *ev = &s->events[(s->ev_first + s->ev_n) % EVENTS];
    /* chunks are at most BULK_WINDOW, the others come once: there is room */
    if (s->ev_n == EVENTS)
        abort();
    *ev = (struct bulk_event){ .kind = kind, .ctx = s->ctx, .stream = s, .index = index, .r = r };
    snprintf(ev->text, sizeof(ev->text), "%.199s", r < 0 && text ? text : "");
    s->ev_n++;
}

void stream_event(struct bulk_stream *s, enum bulk_event_kind kind, uint64_t index, int r,
                  const char *text)
{
    pthread_mutex_lock(&s->bulk->lock);
    push(s, kind, index, r, text);
    if (kind == BULK_UP)
        s->bulk->stats.streams++;
    pthread_mutex_unlock(&s->bulk->lock);
    wake(s->bulk->event_fd);
}

void stream_ended(struct bulk_stream *s, int r, const char *text)
{
    pthread_mutex_lock(&s->bulk->lock);
    s->state = STREAM_ENDED;
    s->end_r = r == -ECANCELED ? 0 : r;
    snprintf(s->end_text, sizeof(s->end_text), "%.199s", text ? text : "");
    pthread_mutex_unlock(&s->bulk->lock);
    wake(s->bulk->event_fd);
}

int stream_start(struct bulk_stream *s)
{
    s->state = STREAM_RUNS;
    int r = thread_start(&s->thread, s->takes ? take_main : give_main, s);
    s->has_thread = r >= 0;
    return r;
}

int stream_hello(struct bulk_stream *s, struct frame_rx *rx, struct err *e)
{
    struct conn *c = &s->conn;
    uint8_t body[FRAME_HELLO_LEN];
    if (s->dial) {
        c->fd = conn_dial(s->dial, c->wake_fd, c->stop, DIAL_MS, e);
        if (c->fd < 0)
            return c->fd;
        memcpy(c->out_buf, s->ticket.id, BULK_TICKET_LEN);
        c->out_len = BULK_TICKET_LEN;
    } else {
        rx->hello = true; /* the listener heard it */
    }
    frame_hello(body, !s->takes, s->size_b, &s->ticket.artefact);
    conn_put(c, FRAME_HELLO, body, sizeof(body));
    int r = conn_flush(c, NULL, NULL);
    if (r < 0)
        return err_sys(e, -r, "bulk");
    for (uint64_t until = clock_mono_ms() + AUTH_MS; !rx->hello;) {
        r = conn_next(c, rx, e);
        if (r != -EAGAIN) {
            if (r < 0)
                return r;
            continue;
        }
        uint64_t now = clock_mono_ms();
        r = now < until ? conn_wait(c, POLLIN, (int)(until - now)) : -ETIMEDOUT;
        if (r < 0)
            return r == -ECANCELED ? r : err_sys(e, -r, "bulk: %s", s->dial);
        ssize_t n = r ? conn_fill(c, NULL, NULL) : -EAGAIN;
        if (n == 0)
            return err_set(e, SF_EREFUSED, "bulk: %s does not take the ticket", s->dial);
        if (n < 0 && n != -EAGAIN)
            return err_sys(e, (int)-n, "bulk: %s", s->dial);
    }
    return 0;
}

void stream_bye(struct bulk_stream *s, const char *text)
{
    struct conn *c = &s->conn;
    size_t n = strnlen(text, FRAME_BYE_MAX);
    /* what is left of another frame would make it unreadable only for an end that does not read anyway */
    if (c->fd < 0 || !n || c->out_len + 2 * CONN_HEAD + n > CONN_OUT)
        return;
    conn_put(c, FRAME_BYE, text, n);
    conn_flush_some(c);
}

/* ---- the loop's side */

int bulk_new(const struct bulk_conf *conf, struct bulk **ret, struct err *e)
{
    struct bulk *b = calloc(1, sizeof(*b));
    if (!b)
        return err_sys(e, ENOMEM, "bulk");
    pthread_mutex_init(&b->lock, NULL);
    pthread_mutex_init(&b->in.lock, NULL);
    pthread_mutex_init(&b->out.lock, NULL);
    b->in.rate_b = b->out.rate_b = conf->rate_b;
    atomic_store(&b->rooms_left, ROOMS_SHARED);
    b->listen_fd = -1;
    b->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    b->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int r = b->event_fd < 0 || b->wake_fd < 0 ? err_sys(e, errno, "bulk") : 0;
    if (r >= 0 && conf->listen)
        r = listen_start(b, conf->listen, e);
    if (r < 0) {
        bulk_free(&b);
        return r;
    }
    *ret = b;
    return 0;
}

static void stream_free(struct bulk_stream *s)
{
    if (s->has_thread)
        pthread_join(s->thread, NULL);
    conn_clear(&s->conn);
    closep(&s->wake_fd);
    closep(&s->file_fd);
    for (size_t i = 0; i < s->n_rooms; i++)
        free(s->rooms[i]);
    if (s->n_rooms > TAKE_ROOMS_OWN)
        atomic_fetch_add(&s->bulk->rooms_left, (int)(s->n_rooms - TAKE_ROOMS_OWN));
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->cond);
    memset(&s->ticket, 0, sizeof(s->ticket));
    free(s->dial);
    free(s->have);
    free(s);
}

void bulk_free(struct bulk **bp)
{
    struct bulk *b = *bp;
    if (!b)
        return;
    *bp = NULL;
    atomic_store(&b->stop, true);
    for (struct bulk_stream *s = b->streams; s; s = s->next)
        bulk_stop(s);
    if (b->wake_fd >= 0)
        wake(b->wake_fd);
    if (b->has_listener)
        pthread_join(b->listener, NULL);
    while (b->streams) {
        struct bulk_stream *s = b->streams;
        b->streams = s->next;
        stream_free(s);
    }
    closep(&b->listen_fd);
    closep(&b->event_fd);
    closep(&b->wake_fd);
    while (b->classes) {
        struct bulk_class *c = b->classes;
        b->classes = c->next;
        pthread_mutex_destroy(&c->in.lock);
        pthread_mutex_destroy(&c->out.lock);
        free(c->name);
        free(c);
    }
    pthread_mutex_destroy(&b->lock);
    pthread_mutex_destroy(&b->in.lock);
    pthread_mutex_destroy(&b->out.lock);
    free(b);
}

uint16_t bulk_port(const struct bulk *b)
{
    return b->port;
}

int bulk_fd(const struct bulk *b)
{
    return b->event_fd;
}

static int stream_new(struct bulk *b, const struct bulk_ticket *t, const char *dial,
                      uint64_t size_b, bool takes, void *ctx, struct bulk_stream **ret,
                      struct err *e)
{
    if (!dial && b->listen_fd < 0)
        return err_set(e, ENOTCONN, "bulk: nobody can connect to this end");
    if (takes ? b->stats.takes >= BULK_TAKES_MAX : b->stats.gives >= BULK_GIVES_MAX)
        return err_set(e, EBUSY, "bulk: as many streams run as may");
    struct bulk_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return err_sys(e, ENOMEM, "bulk");
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->cond, NULL);
    s->bulk = b;
    s->ticket = *t;
    s->size_b = size_b;
    s->takes = takes;
    s->in = &b->in;
    s->out = &b->out;
    s->ctx = ctx;
    s->file_fd = s->conn.fd = -1;
    s->expires_ms = clock_mono_ms() + t->ttl_ms;
    s->wake_fd = s->conn.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->conn.stop = &s->stop;
    int r = aead_init(&s->conn.out.key, (enum aead_alg)t->alg, t->keys[dial ? 0 : 1]);
    if (r >= 0)
        r = aead_init(&s->conn.in.key, (enum aead_alg)t->alg, t->keys[dial ? 1 : 0]);
    if (dial)
        s->dial = strdup(dial);
    if (r < 0 || s->wake_fd < 0 || (dial && !s->dial)) {
        stream_free(s);
        return err_sys(e, ENOMEM, "bulk");
    }
    *ret = s;
    return 0;
}

/* Into the list; it dials or waits. */
static int stream_add(struct bulk *b, struct bulk_stream *s, struct err *e)
{
    pthread_mutex_lock(&b->lock);
    int r = s->dial ? stream_start(s) : 0;
    if (r >= 0) {
        s->next = b->streams;
        b->streams = s;
        *(s->takes ? &b->stats.takes : &b->stats.gives) += 1;
    }
    pthread_mutex_unlock(&b->lock);
    if (r < 0) {
        stream_free(s);
        return err_sys(e, -r, "bulk: thread");
    }
    if (!s->dial)
        wake(b->wake_fd); /* the other end may be here already */
    return 0;
}

int bulk_take(struct bulk *b, const struct bulk_ticket *t, const char *dial, uint64_t size_b,
              const struct bulk_sink *sink, void *ctx, struct bulk_stream **ret, struct err *e)
{
    struct bulk_stream *s;
    int r = stream_new(b, t, dial, size_b, true, ctx, &s, e);
    if (r < 0)
        return r;
    s->sink = *sink;
    r = stream_add(b, s, e);
    if (r >= 0)
        *ret = s;
    return r;
}

int bulk_give(struct bulk *b, const struct bulk_ticket *t, const char *dial, uint64_t size_b,
              int fd, void *ctx, struct bulk_stream **ret, struct err *e)
{
    return bulk_give_some(b, t, dial, size_b, fd, NULL, ctx, ret, e);
}

int bulk_give_some(struct bulk *b, const struct bulk_ticket *t, const char *dial, uint64_t size_b,
                   int fd, const uint8_t *have, void *ctx, struct bulk_stream **ret, struct err *e)
{
    struct bulk_stream *s;
    CLEANUP(freep) uint8_t *bits = NULL;
    if (have) {
        size_t n = (size_t)(size_b / CID_CHUNK / 8 + 1);
        bits = malloc(n);
        if (!bits)
            return err_sys(e, ENOMEM, "bulk");
        memcpy(bits, have, n);
    }
    int r = stream_new(b, t, dial, size_b, false, ctx, &s, e);
    if (r < 0)
        return r;
    s->have = TAKE(bits);
    s->file_fd = fd;
    r = stream_add(b, s, e);
    if (r >= 0)
        *ret = s;
    return r;
}

static struct bulk_class *find_class(const struct bulk *b, const char *name)
{
    struct bulk_class *c = name ? b->classes : NULL;
    while (c && strcmp(c->name, name) != 0)
        c = c->next;
    return c;
}

int bulk_class(struct bulk *b, const char *name, uint64_t rate_b, struct err *e)
{
    struct bulk_class *c = find_class(b, name);
    if (!c) {
        c = calloc(1, sizeof(*c));
        if (!c || !(c->name = strdup(name))) {
            free(c);
            return err_sys(e, ENOMEM, "bulk");
        }
        pthread_mutex_init(&c->in.lock, NULL);
        pthread_mutex_init(&c->out.lock, NULL);
        c->in.above = &b->in;
        c->out.above = &b->out;
        c->next = b->classes;
        b->classes = c;
    }
    atomic_store(&c->in.rate_b, rate_b);
    atomic_store(&c->out.rate_b, rate_b);
    return 0;
}

void bulk_join(struct bulk_stream *s, const char *class_name)
{
    struct bulk_class *c = find_class(s->bulk, class_name);
    if (!c)
        return;
    pthread_mutex_lock(&s->bulk->lock); /* its thread is started under it */
    s->in = &c->in;
    s->out = &c->out;
    pthread_mutex_unlock(&s->bulk->lock);
}

void bulk_want(struct bulk_stream *s, uint64_t first, uint64_t n)
{
    pthread_mutex_lock(&s->lock);
    if (n && s->n_wants < BULK_WINDOW) {
        s->wants[s->n_wants].first = first;
        s->wants[s->n_wants++].n = n;
    }
    pthread_mutex_unlock(&s->lock);
    wake(s->wake_fd);
}

void bulk_have(struct bulk_stream *s, uint64_t index)
{
    pthread_mutex_lock(&s->lock);
    if (s->have && index <= s->size_b / CID_CHUNK) {
        s->have[index / 8] |= (uint8_t)(1u << (index % 8));
        pthread_cond_broadcast(&s->cond);
    }
    pthread_mutex_unlock(&s->lock);
}

void bulk_sync(struct bulk_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->sync_asked = true;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

void bulk_stop(struct bulk_stream *s)
{
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->stop, true);
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
    wake(s->wake_fd);
    wake(s->bulk->wake_fd);
}

uint64_t bulk_moved(const struct bulk_stream *s)
{
    return atomic_load(&s->moved_b);
}

uint64_t bulk_quiet_ms(const struct bulk_stream *s)
{
    uint64_t since = atomic_load(&s->conn.waits_since_ns), now = clock_mono_ns();
    return since && now > since ? (now - since) / 1000000 : 0;
}

/* An event of any stream, *ret_ended the one that is to be freed with it. lock is held. */
static int next(struct bulk *b, struct bulk_event *ret, struct bulk_stream **ret_ended)
{
    for (struct bulk_stream **p = &b->streams; *p; p = &(*p)->next) {
        struct bulk_stream *s = *p;
        if (s->ev_n) {
            *ret = s->events[s->ev_first];
            s->ev_first = (s->ev_first + 1) % EVENTS;
            s->ev_n--;
            return 1;
        }
        if (s->state != STREAM_ENDED)
            continue;
        *ret = (struct bulk_event){ .kind = BULK_END,
                                    .ctx = s->ctx,
                                    .stream = s,
                                    .moved_b = atomic_load(&s->moved_b),
                                    .r = s->end_r };
        if (s->end_r < 0)
            memcpy(ret->text, s->end_text, sizeof(ret->text));
        *p = s->next;
        *(s->takes ? &b->stats.takes : &b->stats.gives) -= 1;
        *(s->takes ? &b->stats.took_b : &b->stats.gave_b) += s->moved_b;
        b->stats.wire_in_b += s->conn.wire_in_b;
        b->stats.wire_out_b += s->conn.wire_out_b;
        *ret_ended = s;
        return 1;
    }
    return 0;
}

int bulk_next(struct bulk *b, struct bulk_event *ret)
{
    struct bulk_stream *ended = NULL;
    uint64_t now = clock_mono_ms(), refused = 0;
    pthread_mutex_lock(&b->lock);
    int r = next(b, ret, &ended);
    if (!r) {
        unwake(b->event_fd);
        r = next(b, ret, &ended);
    }
    if (b->stats.refused != b->refused_told && now >= b->told_ms + REFUSED_TELL_MS) {
        refused = b->stats.refused - b->refused_told;
        b->refused_told = b->stats.refused;
        b->told_ms = now;
    }
    pthread_mutex_unlock(&b->lock);
    if (refused)
        log_warn("bulk: %llu connections without a valid ticket were cut",
                 (unsigned long long)refused);
    if (ended)
        stream_free(ended);
    return r;
}

void bulk_stats(struct bulk *b, struct bulk_stats *ret)
{
    pthread_mutex_lock(&b->lock);
    *ret = b->stats;
    for (struct bulk_stream *s = b->streams; s; s = s->next) {
        *(s->takes ? &ret->took_b : &ret->gave_b) += s->moved_b;
        ret->wire_in_b += s->conn.wire_in_b;
        ret->wire_out_b += s->conn.wire_out_b;
    }
    pthread_mutex_unlock(&b->lock);
}
