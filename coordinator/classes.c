/* Rates of classes: all agents with one label class=NAME share one limit of what large artefacts take at the coordinator. */
#include <stdio.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/log.h"

static void class_of_labels(const char *labels, char out[64])
{
    const char *at = labels;
    out[0] = 0;
    while (at && strncmp(at, "class=", 6) != 0)
        at = (at = strchr(at, ',')) ? at + 1 : NULL;
    if (at)
        snprintf(out, 64, "%.*s", (int)strcspn(at + 6, ","), at + 6);
}

/* Those that are started anew with another rate come one by one: until the last, the least counts. */
static void look(struct hub *h, const char *name)
{
    struct err e = { 0 };
    uint64_t least = 0;
    for (const struct hub_agent *i = h->agents; i; i = i->next)
        if (i->peer && i->class_rate_b && !strcmp(i->class_name, name) &&
            (!least || i->class_rate_b < least))
            least = i->class_rate_b;
    if (bulk_class(h->bulk, name, least, &e) < 0)
        log_warn("class '%s': its rate is not kept: %s", name, e.text);
}

void hub_class_hello(struct hub *h, const struct peer *p, const struct msg_agent_hello *m)
{
    struct hub_agent *a = map_get(&h->agent_of_peer, p->id);
    if (!a || !h->bulk)
        return;
    char was[64];
    memcpy(was, a->class_name, sizeof(was));
    class_of_labels(m->labels, a->class_name);
    a->class_rate_b = m->class_rate_b;
    if (*was && strcmp(was, a->class_name) != 0)
        look(h, was);
    if (*a->class_name)
        look(h, a->class_name);
}

void hub_class_gone(struct hub *h, const struct hub_agent *a)
{
    if (h->bulk && *a->class_name)
        look(h, a->class_name);
}

const char *hub_class_of(void *ctx, uint64_t peer)
{
    struct hub *h = ctx;
    const struct hub_agent *a = map_get(&h->agent_of_peer, peer);
    return a && *a->class_name ? a->class_name : NULL;
}
