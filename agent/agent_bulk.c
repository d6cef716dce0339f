#include "agent/agent_in.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/grow.h"
#include "agent/spec.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/lib/json.h"

enum { OFFER_AGAIN_MS = 2000 };
enum { OFFERS_MAX = 4 }; /* of a task at a time: the coordinator takes a few of an agent together */

void agent_unpin(struct agent *a, struct run *r)
{
    for (size_t i = 0; r->pinned && i < r->n_inputs; i++)
        cas_unpin(a->cas, &r->inputs[i]);
    r->pinned = false;
    for (size_t i = 0; i < r->products.n; i++) {
        if (r->products.v[i].pinned)
            cas_unpin(a->cas, &r->products.v[i].id);
        r->products.v[i].pinned = false;
    }
}

/* Note the size of an input; false when id is none of this task. */
static bool wants(struct run *r, const struct id *id, uint64_t size_b)
{
    bool found = false;
    for (size_t i = 0; i < r->n_inputs; i++)
        if (id_eq(&r->inputs[i], id)) {
            found = true;
            if (r->sizes && size_b)
                r->sizes[i] = size_b;
        }
    return found;
}

/* What is known of the inputs is more than the cache may hold: no waiting for space helps, so the attempt fails. */
static bool never_fits(struct agent *a, struct run *r)
{
    uint64_t sum = 0, cap = a->conf->cache_max_b;
    for (size_t i = 0; r->sizes && i < r->n_inputs; i++)
        if (__builtin_add_overflow(sum, r->sizes[i], &sum))
            sum = UINT64_MAX;
    if (!cap || sum <= cap)
        return false;
    char text[160];
    snprintf(text, sizeof(text),
             "input of %.1f MiB does not fit into the cache of %.1f MiB (--cache-max)",
             (double)sum / 1048576, (double)cap / 1048576);
    r->fetching = false;
    agent_run_cannot(a, r, EFBIG, text);
    return true;
}

void agent_get_inputs(struct agent *a, struct run *r)
{
    struct err e = { 0 };
    const struct cas_item *item;
    size_t here = 0;
    r->fetching = true;
    if (!r->sizes)
        r->sizes = calloc(r->n_inputs + 1, sizeof(*r->sizes));
    for (size_t i = 0; i < r->n_inputs; i++)
        if (cas_check(a->cas, &r->inputs[i]) && cas_stat(a->cas, &r->inputs[i], &item) == 0)
            wants(r, &r->inputs[i], item->size_b);
    if (never_fits(a, r))
        return;
    for (size_t i = 0; i < r->n_inputs; i++) {
        if (cas_has(a->cas, &r->inputs[i])) {
            here++;
            continue;
        }
        int rc = xfers_fetch(a->xfers, COORDINATOR, 0, &r->inputs[i], clock_mono_ms(), &e);
        if (rc < 0 && rc != -EALREADY && rc != -EBUSY && rc != -EEXIST) {
            r->fetching = false;
            agent_run_cannot(a, r, rc, e.text);
            return;
        }
    }
    if (here < r->n_inputs)
        return;
    for (size_t i = 0; i < r->n_inputs; i++)
        cas_pin(a->cas, &r->inputs[i]);
    r->pinned = true;
    r->fetching = false;
    agent_push(a, (struct core_event){ .kind = CORE_READY, .key = r->g.key });
}

static void made(struct agent *a, struct run *r, enum task_cause cause)
{
    r->offering = false;
    agent_push(a, (struct core_event){ .kind = CORE_MADE, .key = r->g.key, .cause = cause });
}

/* Store what the task left, once, and write its info. */
static int store_products(struct agent *a, struct run *r, struct err *e)
{
    CLEANUP(buf_clear) struct buf text = BUF_INIT(SPEC_MAX);
    CLEANUP(json_decrefp) json_t *spec = NULL;
    int rc = 0;
    if (!r->products.info) {
        rc = run_load_spec(r->dir, &text, e);
        spec = rc == 0 ? json_loadb(text.data ? (char *)text.data : "", text.len, 0, NULL) : NULL;
        if (rc == 0)
            rc = products_list(r->dir, r->g.kind, spec, &r->products, e);
        for (size_t i = 0; rc == 0 && i < r->products.n; i++)
            r->products.v[i].grown = agent_grow_is(r, &r->products.v[i]);
    }
    if (rc == 0)
        rc = products_store(&r->products, a->cas, e);
    if (rc < 0 || r->end.info)
        return rc;
    r->end.info = products_info(&r->products);
    return r->end.info
               ? 0
               : err_set(e, EMSGSIZE, "task %" PRIu64 ": its answer is too long", r->g.key.task);
}

void agent_offer_products(struct agent *a, struct run *r)
{
    struct err e = { 0 };
    size_t busy = 0, open = 0;
    if (r->pinned)
        agent_unpin(a, r); /* the inputs have done their work: they may make room */
    int rc = store_products(a, r, &e);
    for (size_t i = 0; rc == 0 && i < r->products.n; i++) {
        struct product *x = &r->products.v[i];
        if (x->done)
            continue;
        open++;
        if (x->grown) {
            rc = agent_grow_end(a, r, x, &e);
            x->done = rc > 0;
            open -= x->done;
            rc = rc > 0 ? 0 : rc;
            continue;
        }
        if (!x->pinned) /* until the coordinator has it */
            x->pinned = cas_pin(a->cas, &x->id) == 0;
        if (!x->offered && busy < OFFERS_MAX && !a->offer_again_ms) {
            rc = xfers_offer(a->xfers, COORDINATOR, ++a->offers, &x->id, x->kind, x->name,
                             clock_mono_ms(), &e);
            x->offered = rc == 0;
            if (rc == -EALREADY || rc == -EBUSY)
                rc = 0; /* another task offers the same, or will make room by ending */
        }
        busy += x->offered;
    }
    r->offering = rc == 0 && open;
    if (rc < 0) {
        agent_run_why(r, e.text);
        made(a, r, agent_cause_of(rc));
    } else if (!open) {
        made(a, r, CAUSE_DONE);
    }
}

/* An offer has ended. */
static void product_sent(struct agent *a, struct run *r, const struct xfers_end *end)
{
    bool mine = false, open = false;
    for (size_t i = 0; i < r->products.n; i++) {
        struct product *x = &r->products.v[i];
        if (x->stored && !x->done && id_eq(&x->id, &end->id)) {
            mine = true;
            x->done = !end->code;
            if (end->code == ENOSPC) /* it stays here, pinned, until there is space */
                x->offered = false;
        }
        open |= !x->done;
    }
    if (!mine || (open && !end->code))
        return; /* the loop offers the next ones */
    if (end->code == ENOSPC) {
        if (!a->offer_again_ms)
            log_warn("task %" PRIu64 ": waits: the coordinator has no space: %s", r->g.key.task,
                     end->text);
        a->offer_again_ms = clock_mono_ms() + OFFER_AGAIN_MS;
        return;
    }
    if (end->code)
        agent_run_why(r, end->text);
    made(a, r, end->code ? agent_cause_of(end->code) : CAUSE_DONE);
}

static int xfer_send(void *ctx, uint64_t peer, const struct msg *m)
{
    struct agent *a = ctx;
    return link_send(a->link, peer, m, NULL);
}

/* The coordinator has nothing to give unasked. */
static int xfer_offered(void *ctx, uint64_t peer, const struct msg_put_offer *o, bool here,
                        struct err *e)
{
    (void)ctx;
    (void)peer;
    (void)o;
    (void)here;
    return err_set(e, SF_EREFUSED, "an agent takes only what it asked for");
}

static int xfer_ended(void *ctx, const struct xfers_end *end, struct err *e)
{
    (void)e;
    struct agent *a = ctx;
    a->inputs_moved = true;
    if (end->dir == XFERS_IN && !end->code && end->bulk_chunks) {
        char hex[ID_HEX_LEN];
        id_hex(&end->id, hex);
        log_info("artefact %.8s is here, %" PRIu64 " chunks of it came by bulk", hex,
                 end->bulk_chunks);
    }
    for (size_t i = 0; i < CORE_TASKS_MAX; i++) {
        struct run *r = &a->runs[i];
        if (!r->used)
            continue;
        if (end->dir == XFERS_OUT && r->offering) {
            product_sent(a, r, end);
        } else if (end->dir == XFERS_IN && r->fetching && wants(r, &end->id, end->size_b) &&
                   !never_fits(a, r) && end->code) {
            char hex[ID_HEX_LEN], text[300];
            id_hex(&end->id, hex);
            snprintf(text, sizeof(text), "input %s: %s", hex, end->text);
            r->fetching = false;
            agent_run_cannot(a, r, end->code, text);
        }
    }
    return 0;
}

static uint64_t xfer_features(void *ctx, uint64_t peer)
{
    (void)peer;
    return ((struct agent *)ctx)->features;
}

/* Where the coordinator is, for bulk connections to it: the host of --connect, owned. */
static char *coordinator_host(const struct agent *a)
{
    const char *host = strncmp(a->conf->connect, "tcp://", 6) ? NULL : a->conf->connect + 6;
    const char *colon = host ? strrchr(host, ':') : NULL;
    return colon ? strndup(host, (size_t)(colon - host)) : NULL;
}

int agent_xfers_open(struct agent *a, struct err *e)
{
    struct xfer_store store = xfer_store_cas(a->cas);
    struct xfers_ops ops = { .ctx = a,
                             .send = xfer_send,
                             .offered = xfer_offered,
                             .ended = xfer_ended,
                             .features = xfer_features };
    CLEANUP(freep) char *host = coordinator_host(a);
    a->xfers = xfers_new(&store, &ops, CAS_SIZE_MAX);
    if (!a->xfers)
        return err_sys(e, ENOMEM, "%s/cache", a->data);
    if (!a->conf->bulk || !host)
        return 0;
    struct bulk_conf conf = { .listen = a->conf->bulk_listen, .rate_b = a->conf->bulk_rate_b };
    char beside[128];
    struct err why = { 0 };
    if (!conf.listen && bulk_own_address(host, beside, sizeof(beside), &why) == 0)
        conf.listen = beside;
    int r = bulk_new(&conf, &a->bulk, e);
    if (r < 0 && !a->conf->bulk_listen && r != -ENOMEM) { /* nobody asked for it */
        log_warn("other agents cannot fetch from here: %s", e->text);
        conf.listen = NULL;
        r = bulk_new(&conf, &a->bulk, e);
    } else if (!conf.listen) {
        log_warn("other agents cannot fetch from here: %s", why.text);
    }
    if (r >= 0 &&
        xfers_set_bulk(a->xfers, &(struct xfers_bulk){ .bulk = a->bulk, .host = host }) < 0)
        r = err_sys(e, ENOMEM, "bulk");
    return r;
}
