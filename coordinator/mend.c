/* Artefacts that the store names and that are damaged or gone. A damaged one is moved to DIR/damaged; both are fetched from
 * the agents, one after the other, until one has it. A trace of a recipe is also built again. Bytes are hashed only when
 * somebody complained: a whole store is for `siofleet fsck`. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

enum { FETCHES = 4, TRIED_MAX = 64, HASH_PAUSE = 9, READS = 5, READ_AGAIN_MS = 2000 };

struct hub_want {
    struct id id;
    uint64_t peer;             /* asked now; 0 = nobody */
    uint64_t tried[TRIED_MAX]; /* connections that do not have it */
    size_t n_tried;
};

static struct hub_want *find_want(const struct hub *h, const struct id *id)
{
    for (size_t i = 0; i < h->n_wants; i++)
        if (id_eq(&h->wants[i].id, id))
            return &h->wants[i];
    return NULL;
}

static void add_want(struct hub *h, const struct id *id)
{
    if (find_want(h, id))
        return;
    if (h->n_wants == h->room_wants) {
        size_t room = h->room_wants ? h->room_wants * 2 : 16;
        void *v = realloc(h->wants, room * sizeof(*h->wants));
        if (!v)
            return; /* found again at the next complaint or start */
        h->wants = v;
        h->room_wants = room;
    }
    h->wants[h->n_wants++] = (struct hub_want){ .id = *id };
}

/* Traces of live sweeps with this id are there (again), or are not. */
static void tell_traces(struct hub *h, const struct id *id, bool ready)
{
    for (size_t i = 0; i < h->n_lives; i++) {
        struct live *l = h->lives[i];
        for (uint32_t t = 0; t < l->n_traces; t++) {
            if (!l->tr[t].num || !id_eq(&l->tr[t].id, id) || l->ready[t] == ready)
                continue;
            l->ready[t] = ready;
            hub_step(h, &(struct sched_event){ .type = ready ? EV_TRACE_READY : EV_TRACE_LOST,
                                               .trace = { .key = l->key[t] } });
        }
    }
}

static void lost(struct hub *h, const struct id *id, const char *how)
{
    char hex[ID_HEX_LEN];
    struct store_artefact a;
    struct err e = { 0 };
    id_hex(id, hex);
    xfers_forget(h->xfers, id);
    tell_traces(h, id, false);
    if (store_artefact(h->store, hex, &a, NULL) < 0)
        return; /* nobody promised to have it */
    log_error("artefact %.16s (%s%s%s) is %s; fetched again from an agent that has it", hex, a.kind,
              *a.name ? " " : "", a.name, how);
    if (hub_write(h) && store_event(h->store, clock_wall_ms(), "store", hex, how, &e) < 0)
        hub_fail(h, &e);
    add_want(h, id);
}

void hub_missing(struct hub *h, const struct id *id)
{
    if (!find_want(h, id))
        lost(h, id, "gone");
}

void hub_spoil(struct hub *h, const struct id *id)
{
    h->spoiled[h->n_spoiled++ % ARRAY_LEN(h->spoiled)] = *id;
}

bool hub_spoiled(struct hub *h, const struct id *id)
{
    bool is = false;
    for (size_t i = 0; i < ARRAY_LEN(h->spoiled) && i < h->n_spoiled; i++)
        if (id_eq(&h->spoiled[i], id)) {
            h->spoiled[i] = (struct id){ { 0 } };
            is = true;
        }
    return is;
}

void hub_suspect(struct hub *h, const struct id *id)
{
    for (size_t i = 0; i < h->n_suspects; i++)
        if (id_eq(&h->suspect[i], id))
            return;
    if (h->n_suspects < ARRAY_LEN(h->suspect) && cas_has(h->cas, id))
        h->suspect[h->n_suspects++] = *id;
}

static void look_at_suspect(struct hub *h)
{
    struct err e = { 0 };
    uint64_t chunk, now = clock_mono_ms();
    if (!h->n_suspects || now < h->mend_ms)
        return;
    struct id id = h->suspect[h->n_suspects - 1];
    int r = cas_verify(h->cas, &id, &chunk, &e);
    uint64_t end = clock_mono_ms();
    if (r < 0 && r != -SF_EINTEGRITY && r != -ENOENT && ++h->mend_reads < READS) {
        h->mend_ms =
            end + READ_AGAIN_MS; /* a disk in trouble is no damage: perhaps it is over soon */
        return;
    }
    h->n_suspects--;
    h->mend_reads = 0;
    h->mend_ms = end + (end - now) *
                           HASH_PAUSE; /* it takes the loop's time: a liar may not have all of it */
    if (r == 0 || r == -ENOMEM)
        return;
    CLEANUP(freep) char *to = path_fmt("%s/damaged", h->conf->data);
    if (!to || cas_aside(h->cas, &id, to, &e) < 0) {
        log_error("%s", e.text);
        return;
    }
    lost(h, &id, "damaged and moved aside");
}

static struct hub_agent *untried(const struct hub *h, const struct hub_want *w)
{
    for (struct hub_agent *a = h->agents; a; a = a->next) {
        bool tried = !a->peer;
        for (size_t i = 0; i < w->n_tried && !tried; i++)
            tried = w->tried[i] == a->peer;
        if (!tried)
            return a;
    }
    return NULL;
}

void hub_mend(struct hub *h)
{
    look_at_suspect(h);
    size_t running = 0;
    for (size_t i = 0; i < h->n_wants; i++)
        running += h->wants[i].peer != 0;
    for (size_t i = 0; i < h->n_wants && running < FETCHES; i++) {
        struct hub_want *w = &h->wants[i];
        struct hub_agent *a = w->peer ? NULL : untried(h, w);
        if (!a)
            continue;
        int r = xfers_fetch(h->xfers, a->peer, 0, &w->id, clock_mono_ms(), NULL);
        if (r == -EALREADY || r == -EBUSY)
            continue; /* somebody brings it, or all hands are full */
        if (w->n_tried == TRIED_MAX)
            memmove(w->tried, w->tried + 1, --w->n_tried * sizeof(*w->tried));
        w->tried[w->n_tried++] = a->peer;
        if (r == -EEXIST) {
            hub_mended(h, &w->id, a->peer, true);
            return; /* the list has changed */
        }
        if (r >= 0) {
            w->peer = a->peer;
            running++;
        }
    }
}

bool hub_mended(struct hub *h, const struct id *id, uint64_t peer, bool ok)
{
    struct hub_want *w = find_want(h, id);
    if (ok)
        tell_traces(h, id, true);
    if (!w)
        return false;
    if (!ok) {
        if (w->peer == peer)
            w->peer = 0;
        return true;
    }
    char hex[ID_HEX_LEN];
    struct err e = { 0 };
    id_hex(id, hex);
    *w = h->wants[--h->n_wants];
    log_info("artefact %.16s is here again", hex);
    if (hub_write(h) && store_event(h->store, clock_wall_ms(), "store", hex, "here again", &e) < 0)
        hub_fail(h, &e);
    return true;
}

void hub_unwant(struct hub *h, const struct id *id)
{
    struct hub_want *w = find_want(h, id);
    if (w)
        *w = h->wants[--h->n_wants];
}

static int look_for(void *ctx, const struct store_artefact *a)
{
    struct hub *h = ctx;
    if (!cas_has(h->cas, &a->id))
        add_want(h, &a->id);
    return 0;
}

int hub_mend_start(struct hub *h, struct err *e)
{
    int r = store_artefacts(h->store, look_for, h, e);
    if (r >= 0 && h->n_wants)
        log_warn("%zu artefacts of the store are not here; fetched from agents that have them",
                 h->n_wants);
    return r;
}

void hub_mend_clear(struct hub *h)
{
    free(h->wants);
    h->wants = NULL;
    h->n_wants = h->room_wants = 0;
}
