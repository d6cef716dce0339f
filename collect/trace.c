/* The tracers of a run: on, off, and the log they leave. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "collect/stack_int.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

const char *const text_events[] = { "vtd_iotlb_page_update", "vtd_iotlb_page_hit",
                                    "vtd_iotlb_cc_update",   "vtd_iotlb_cc_hit",
                                    "vtd_slpte_fetch",       NULL };

bool has_event(const struct collect_conf *c, const char *event)
{
    return c->tracer != TRACER_STOCK || strcmp(event, "vtd_slpte_fetch") != 0;
}

bool has_ring(const struct collect_conf *c)
{
    /* the text tracer of the patched QEMU has one as well: it carries the snapshot request */
    return c->tracer == TRACER_RING || c->tracer == TRACER_BOTH || c->tracer == TRACER_LOG;
}

/* Both tracers are there to be compared: they see the same only from reset to the end, since two switches cannot be
 * thrown at one moment. */
bool whole_run(const struct collect_conf *c)
{
    return c->include_boot || c->tracer == TRACER_BOTH;
}

bool has_text(const struct collect_conf *c)
{
    return c->tracer == TRACER_LOG || c->tracer == TRACER_BOTH || c->tracer == TRACER_STOCK;
}

static void *read_ring(void *arg)
{
    struct stack *s = arg;
    for (;;) {
        /* taken before the ring is looked at: what was written until the stop is in the last round */
        int last = __atomic_load_n(&s->reader_stop, __ATOMIC_ACQUIRE);
        const struct log_event *ev;
        int64_t n;
        while ((n = ring_peek(&s->ring, &ev, &s->ring_reader.err)) > 0) {
            if (sink_add(s->sink, ev, (size_t)n, &s->ring_reader.err) < 0)
                return s;
            ring_release(&s->ring, (uint64_t)n);
        }
        if (n < 0)
            return s;
        if (last)
            return NULL;
        usleep(5000);
    }
}

static void *read_text(void *arg)
{
    struct stack *s = arg;
    while (!__atomic_load_n(&s->reader_stop, __ATOMIC_ACQUIRE)) {
        if (text_pump(s->text, &s->text_reader.err) < 0)
            return s;
        usleep(20000);
    }
    return NULL; /* take_log() takes the rest, when QEMU has ended */
}

static int reader_start(struct reader *r, void *(*main)(void *), struct stack *s, struct err *e)
{
    int rc = pthread_create(&r->thread, NULL, main, s);
    if (rc)
        return err_sys(e, rc, "log reader");
    r->runs = true;
    return 0;
}

static int reader_join(struct reader *r, struct err *e)
{
    void *failed = NULL;
    if (!r->runs)
        return 0;
    pthread_join(r->thread, &failed);
    r->runs = false;
    if (!failed)
        return 0;
    if (e)
        *e = r->err;
    return -r->err.code;
}

static int set_text_events(struct stack *s, bool on, struct err *e)
{
    for (size_t i = 0; text_events[i]; i++) {
        if (!has_event(s->c, text_events[i]))
            continue;
        int r =
            qmp_call(&s->qmp, "trace-event-set-state",
                     json_pack("{s:s, s:b}", "name", text_events[i], "enable", on), 30000, NULL, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int trace_start(struct stack *s, bool snapshot, struct err *e)
{
    const struct collect_conf *c = s->c;
    int r = 0;
    if (has_text(c) && !whole_run(c))
        r = set_text_events(s, true, e);
    if (r < 0)
        return r;
    if (c->tracer == TRACER_LOG)
        ring_enable(&s->ring, RING_ARMED, snapshot);
    if (c->tracer == TRACER_RING || c->tracer == TRACER_BOTH) {
        r = reader_start(&s->ring_reader, read_ring, s, e);
        if (r < 0)
            return r;
        ring_enable(&s->ring, RING_ON, snapshot);
    }
    return s->text ? reader_start(&s->text_reader, read_text, s, e) : 0;
}

int readers_stop(struct stack *s, struct err *e)
{
    if (has_ring(s->c) && s->ring.h)
        ring_enable(&s->ring, RING_OFF, false);
    __atomic_store_n(&s->reader_stop, 1, __ATOMIC_RELEASE);
    int r = reader_join(&s->ring_reader, e), t = reader_join(&s->text_reader, r < 0 ? NULL : e);
    return r < 0 ? r : t;
}

int trace_stop(struct stack *s, struct err *e)
{
    int r = readers_stop(s, e);
    return r < 0 || !has_text(s->c) ? r : set_text_events(s, false, e);
}

static struct stack_log log_of(const char *name, const struct sink_result *r)
{
    struct stack_log l = {
        .id = r->id, .bytes = r->bytes, .events = r->events, .devices = r->devices
    };
    snprintf(l.name, sizeof(l.name), "%s", name);
    return l;
}

int take_log(struct stack *s, struct err *e)
{
    struct stack_result *res = s->res;
    if (s->sink) {
        struct sink_result sr;
        res->dropped = ring_dropped(&s->ring);
        int r = sink_end(s->sink, res->dropped, &sr, e);
        s->sink = NULL;
        if (r < 0)
            return r;
        res->log = log_of("log.slog", &sr);
        if (res->dropped && !s->c->allow_drops)
            return err_set(e, SF_EFAILED,
                           "trace ring: %" PRIu64
                           " events dropped (allow_drops = yes keeps such a log)",
                           res->dropped);
    }
    if (s->text) {
        struct sink_result sr;
        int r = text_end(&s->text, &sr, e);
        if (r < 0)
            return r;
        *(s->c->tracer == TRACER_BOTH ? &res->text : &res->log) = log_of("run.log.zst", &sr);
    }
    if (s->c->tracer != TRACER_OFF && !res->log.events)
        return err_set(e, SF_EFAILED,
                       "trace: no event in the measured phase; is the guest's IOMMU on?");
    return 0;
}
