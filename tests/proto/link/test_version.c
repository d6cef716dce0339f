/* Peers of different protocol versions. Both ends live in this process: `speaks` is what the one at work speaks. */
#include "tests/proto/link/rig.h"

static unsigned speaks;

/* instead of proto/wire/version.c */
unsigned wire_version(void)
{
    return speaks;
}

struct two {
    struct rig g;
    struct key_pair key;
    struct link *end[2]; /* 0 the coordinator, 1 the agent */
    unsigned version[2];
};

static void start(struct two *t, unsigned coordinator, unsigned agent)
{
    t->version[0] = coordinator;
    t->version[1] = agent;
    speaks = coordinator;
    rig_start(&t->g);
    rig_key(&t->g, "n1", ROLE_AGENT, "n1", true, &t->key);
    t->end[0] = t->g.server;
    speaks = agent;
    t->end[1] = rig_client(&t->g, &t->key);
}

static void stop(struct two *t)
{
    link_free(&t->end[1], 0);
    rig_stop(&t->g);
}

/* The next event of one end; both are pumped. */
static void next(struct two *t, size_t which, struct link_event *ev)
{
    uint64_t until = clock_mono_ms() + RIG_WAIT_MS;
    struct err e = { 0 };
    while (clock_mono_ms() < until)
        for (size_t i = 0; i < 2; i++) {
            speaks = t->version[i];
            link_poll(t->end[i], NULL, 0, 1, NULL);
            /* the server refuses by itself; nothing else of it is waited for meanwhile */
            if (i == which || i == 0) {
                int r = link_recv(t->end[i], ev, &e);
                cr_assert(r >= 0, "%s", e.text);
                if (r == 1 && i == which)
                    return;
                cr_assert_eq(r, 0, "the server took a message");
            }
        }
    cr_assert_fail("nothing came");
}

static void send(struct two *t, size_t from, uint64_t to, const struct msg *m)
{
    speaks = t->version[from];
    cr_assert_eq(link_send(t->end[from], to, m, NULL), 0);
}

static const struct msg beat = { .type = M_BEAT, .beat = { .boot = 1, .seq = 7 } },
                        ack = { .type = M_BEAT_ACK, .beat_ack = { .seq = 7 } };

static void talks(struct two *t, unsigned version)
{
    struct link_event ev;
    send(t, 1, 1, &beat);
    next(t, 0, &ev);
    cr_assert(ev.kind == LINK_MSG && ev.msg.type == M_BEAT);
    cr_assert_eq(ev.msg.version, version);
    send(t, 0, ev.peer.id, &ack);
    link_event_clear(&ev);
    next(t, 1, &ev);
    cr_assert(ev.kind == LINK_MSG && ev.msg.type == M_BEAT_ACK);
    cr_assert_eq(ev.msg.version, version);
    link_event_clear(&ev);
}

Test(version, an_agent_one_version_older_is_served_in_its_own)
{
    struct two t;
    struct link_event ev;
    start(&t, 2, 1);
    next(&t, 1, &ev);
    cr_assert_eq(ev.kind, LINK_UP);
    talks(&t, 1);
    stop(&t);
}

Test(version, an_agent_one_version_newer_begins_anew_in_the_coordinators)
{
    struct two t;
    struct link_event ev;
    start(&t, 1, 2);
    next(&t, 1, &ev);
    cr_assert_eq(ev.kind, LINK_UP);
    /* what was sent before it knew is said again behind the second LINK_UP, and only there */
    send(&t, 1, 1, &beat);
    send(&t, 1, 1, &beat);
    next(&t, 1, &ev);
    cr_assert_eq(ev.kind, LINK_UP);
    talks(&t, 1);
    stop(&t);
}

Test(version, the_same_version_is_spoken_as_it_is)
{
    struct two t;
    struct link_event ev;
    start(&t, 3, 3);
    next(&t, 1, &ev);
    talks(&t, 3);
    stop(&t);
}

Test(version, two_versions_apart_each_side_hears_who_is_to_be_upgraded)
{
    struct {
        unsigned coordinator, agent;
        const char *text;
    } rows[] = {
        { 3, 1, "protocol 1, the coordinator's is 3: upgrade siofleet of the agent" },
        { 1, 3, "protocol 3, the coordinator's is 1: upgrade siofleet of the coordinator" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct two t;
        struct link_event ev;
        struct link_stats st;
        start(&t, rows[i].coordinator, rows[i].agent);
        next(&t, 1, &ev);
        cr_assert_eq(ev.kind, LINK_UP);
        send(&t, 1, 1, &beat);
        next(&t, 1, &ev);
        if (ev.kind == LINK_MSG) {
            cr_assert_eq(ev.msg.type, M_REFUSE);
            cr_assert_eq(ev.msg.refuse.exit, 3);
            cr_assert_str_eq(ev.msg.refuse.text, rows[i].text);
        } else {
            cr_assert_eq(ev.kind, LINK_REFUSED);
            cr_assert(strstr(ev.text, rows[i].text), "%s", ev.text);
        }
        link_event_clear(&ev);
        link_stats(t.end[0], &st);
        cr_assert_eq(st.received, 0);
        cr_assert_eq(st.refused_msgs, 1);
        stop(&t);
    }
}
