#include <inttypes.h>
#include <stdio.h>

#include "coordinator/hub.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

char *hub_space_why(const struct hub *h, char out[200])
{
    char text[SPACE_TEXT_LEN];
    out[0] = 0;
    if (h->space.level != SPACE_OK)
        snprintf(out, 200, "no space for more: %s%s", space_text(&h->space, text),
                 h->space.level == SPACE_PAUSED ? "; nothing is granted" : "");
    else if (h->at_cap)
        snprintf(out, 200, "no space for more: its artefacts have reached --store-max");
    return out;
}

int hub_admit(const struct hub *h, uint64_t size_b, struct err *e)
{
    char why[200];
    uint64_t max = h->conf->store_max_b, used = cas_bytes(h->cas);
    if (*hub_space_why(h, why))
        return err_set(e, ENOSPC, "store: %s; `siofleet store gc --dry-run` says what may go", why);
    if (max && (used > max || size_b > max - used))
        return err_set(e, ENOSPC, "store: no space for %" PRIu64 " bytes more (--store-max)",
                       size_b);
    return 0;
}

int hub_admit_put(const struct hub *h, const struct id *id, uint64_t size_b, struct err *e)
{
    uint64_t counted = cas_partial(h->cas, id);
    if (counted && counted >= size_b && h->space.level == SPACE_OK)
        return 0; /* it takes nothing more, also where it is what reached --store-max */
    return hub_admit(h, size_b - (counted < size_b ? counted : size_b), e);
}

static void tell(struct hub *h, bool cap_only)
{
    char why[200];
    struct err e = { 0 };
    if (*hub_space_why(h, why))
        log_warn("store: %s; nothing new is accepted until there is%s", why,
                 h->space.level == SPACE_PAUSED ? ", and what waits is not granted" : "");
    else
        log_info("store: there is space again; work goes on");
    /* a note that needs the disk that is full is no help */
    if (!cap_only && h->space.level == SPACE_PAUSED)
        return;
    if (hub_write(h) && store_event(h->store, clock_wall_ms(), "store", "space",
                                    *why ? why : "there is space again", &e) < 0)
        hub_fail(h, &e);
}

void hub_look_at_space(struct hub *h)
{
    uint64_t now = clock_mono_ms();
    if (now < h->space_ms)
        return;
    h->space_ms = now + SPACE_LOOK_MS;
    enum space_level was = h->space.level;
    bool was_cap = h->at_cap;
    space_look(&h->space, h->conf->data, NULL);
    h->at_cap = h->conf->store_max_b && cas_bytes(h->cas) >= h->conf->store_max_b;
    h->sched.paused = h->space.level == SPACE_PAUSED;
    if (h->space.level != was || h->at_cap != was_cap)
        tell(h, h->space.level == was);
}

void hub_agent_space(struct hub_agent *a, const struct msg_beat *m)
{
    enum space_level was = a->space.disk.level;
    a->space.disk.level = (enum space_level)m->space;
    a->space.disk.disk_b = m->disk_b;
    a->space.disk.free_b = m->free_b;
    a->space.cache_b = m->cache_b;
    a->space.reserved_b = m->reserved_b;
    a->space.pinned_b = m->pinned_b;
    a->space.cap_b = m->cap_b;
    if (a->space.disk.level == was)
        return;
    char size[32];
    if (a->space.disk.level == SPACE_OK)
        log_info("agent '%s': has space again", a->info.name);
    else
        log_warn("agent '%s': %s free on its disk; %s", a->info.name, size_text(m->free_b, size),
                 a->space.disk.level == SPACE_PAUSED ? "its tasks are paused until there is more"
                                                     : "it takes nothing new");
}
