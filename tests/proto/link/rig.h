/* A server and clients of one process over real CURVE sockets on loopback, pumped by one thread. */
#pragma once
#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/link/link.h"

enum { RIG_WAIT_MS = 60000 };

struct rig {
    char dir[256];
    struct key_pair server_key;
    struct link *server;
};

static inline void rig_key(struct rig *g, const char *file, enum role role, const char *name,
                           bool allow, struct key_pair *ret)
{
    struct err e = { 0 };
    CLEANUP(freep) char *path = path_fmt("%s/%s", g->dir, file);
    cr_assert(key_new(path, role, name, ret, &e) == 0, "%s", e.text);
    if (allow)
        cr_assert(keys_allow(g->dir, &ret->pub, &e) == 0, "%s", e.text);
}

static inline void rig_listen(struct rig *g, const char *ep)
{
    struct err e = { 0 };
    CLEANUP(freep) char *allowed = keys_dir(g->dir);
    cr_assert(link_server(&ep, 1, &g->server_key, allowed, &g->server, &e) == 0, "%s", e.text);
}

static inline void rig_start(struct rig *g)
{
    const char *tmp = getenv("TMPDIR");
    memset(g, 0, sizeof(*g));
    snprintf(g->dir, sizeof(g->dir), "%s/siofleet-link.XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(g->dir));
    rig_key(g, "server", ROLE_COORDINATOR, "server", false, &g->server_key);
    rig_listen(g, "tcp://127.0.0.1:*");
}

static inline void rig_stop(struct rig *g)
{
    link_free(&g->server, 0);
    dir_remove(g->dir, NULL);
}

static inline struct link *rig_client(struct rig *g, const struct key_pair *k)
{
    struct link *l = NULL;
    struct err e = { 0 };
    cr_assert(link_client(link_endpoint(g->server, 0), k, g->server_key.pub.z85, &l, &e) == 0, "%s",
              e.text);
    return l;
}

/* Pump the links until which has an event; the events of others are dropped. Fails the test after RIG_WAIT_MS. */
static inline void rig_wait(struct link *const links[], size_t n, size_t which,
                            struct link_event *ev)
{
    uint64_t end = clock_mono_ms() + RIG_WAIT_MS;
    struct err e = { 0 };
    while (clock_mono_ms() < end)
        for (size_t i = 0; i < n; i++) {
            if (!links[i])
                continue;
            link_poll(links[i], NULL, 0, 1, NULL);
            int r = i == which ? link_recv(links[i], ev, &e) : 0;
            cr_assert(r >= 0, "%s", e.text);
            if (r == 1)
                return;
        }
    cr_assert_fail("nothing came");
}

/* Pump both until which has an event of this kind (and, for LINK_MSG, type; 0 = any). Other events of it are dropped. */
static inline void rig_expect(struct link *const links[], size_t n, size_t which,
                              enum link_event_kind kind, enum msg_type type, struct link_event *ev)
{
    for (;;) {
        rig_wait(links, n, which, ev);
        if (ev->kind == kind && (kind != LINK_MSG || !type || ev->msg.type == type))
            return;
        link_event_clear(ev);
    }
}
