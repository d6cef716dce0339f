#include "proto/lib/locked.h"
#include "tests/proto/link/rig.h"

static const struct msg beat = { .type = M_BEAT, .beat = { .boot = 1, .seq = 7 } };

Test(link, a_listed_key_gets_through_and_is_known_by_its_role_and_name)
{
    struct rig g;
    struct key_pair k;
    struct link_event ev;
    rig_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    cr_assert(link_is_up(c));
    cr_assert_gt(locked_served(), 0, "libzmq maps memory anew for each handshake");
    cr_assert(link_send(c, 1, &beat, NULL) == 0);
    rig_expect(both, 2, 0, LINK_MSG, M_BEAT, &ev);
    cr_assert_eq(ev.msg.beat.seq, 7);
    cr_assert_eq(ev.peer.role, ROLE_AGENT);
    cr_assert_str_eq(ev.peer.name, "n1");
    cr_assert_str_eq(ev.peer.key, k.pub.z85);
    cr_assert(!strncmp(ev.peer.addr, "127.0.0.1:", 10), "'%s'", ev.peer.addr);
    struct msg ack = { .type = M_BEAT_ACK, .beat_ack = { .seq = 7 } };
    cr_assert(link_send(g.server, ev.peer.id, &ack, NULL) == 0);
    link_event_clear(&ev);
    rig_expect(both, 2, 1, LINK_MSG, M_BEAT_ACK, &ev);
    cr_assert_eq(ev.msg.beat_ack.seq, 7);
    link_event_clear(&ev);

    link_free(&c, 0);
    both[1] = NULL;
    rig_expect(both, 1, 0, LINK_GONE, 0, &ev);
    cr_assert_str_eq(ev.peer.name, "n1");
    cr_assert_eq(link_send(g.server, ev.peer.id, &ack, NULL), -EHOSTUNREACH);
    cr_assert_eq(link_n_peers(g.server), 0);
    link_event_clear(&ev);
    rig_stop(&g);
}

Test(link, an_unlisted_key_is_refused_and_let_in_once_it_is_allowed)
{
    struct rig g;
    struct key_pair k;
    struct link_event ev;
    struct link_stats st;
    struct err e = { 0 };
    rig_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", false, &k);
    struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_REFUSED, 0, &ev);
    cr_assert(strstr(ev.text, "does not allow the key 'n1'"), "%s", ev.text);
    link_event_clear(&ev);
    link_stats(g.server, &st);
    cr_assert(st.refused_keys >= 1);
    cr_assert_eq(link_n_peers(g.server), 0);
    cr_assert(keys_allow(g.dir, &k.pub, &e) == 0, "%s", e.text);
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    link_event_clear(&ev);
    link_free(&c, 0);
    rig_stop(&g);
}

Test(link, a_revoked_key_is_dropped_and_stays_out)
{
    struct rig g;
    struct key_pair k;
    struct link_event ev;
    struct err e = { 0 };
    rig_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    cr_assert(link_send(c, 1, &beat, NULL) == 0);
    rig_expect(both, 2, 0, LINK_MSG, M_BEAT, &ev);
    link_event_clear(&ev);
    cr_assert(keys_revoke(g.dir, "n1", &e) == 0, "%s", e.text);
    rig_expect(both, 2, 0, LINK_GONE, 0, &ev);
    cr_assert_str_eq(ev.text, "key revoked");
    link_event_clear(&ev);
    rig_expect(both, 2, 1, LINK_REFUSED, 0, &ev);
    link_event_clear(&ev);
    link_free(&c, 0);
    rig_stop(&g);
}

Test(link, a_key_revoked_a_moment_ago_does_not_get_in)
{
    struct rig g;
    struct key_pair k;
    struct link_event ev;
    struct err e = { 0 };
    rig_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_UP, 0, &ev); /* the list is known to the server */
    link_free(&c, 0);
    for (int i = 0; i < 10; i++) {
        cr_assert(keys_revoke(g.dir, "n1", &e) == 0, "%s", e.text);
        both[1] = c = rig_client(&g, &k);
        rig_wait(both, 2, 1, &ev);
        cr_assert_eq(ev.kind, LINK_REFUSED);
        link_event_clear(&ev);
        link_free(&c, 0);
        cr_assert(keys_allow(g.dir, &k.pub, &e) == 0, "%s", e.text);
        both[1] = c = rig_client(&g, &k);
        rig_wait(both, 2, 1, &ev);
        cr_assert_eq(ev.kind, LINK_UP);
        link_event_clear(&ev);
        link_free(&c, 0);
    }
    rig_stop(&g);
}

Test(link, another_server_key_is_told_as_such)
{
    struct rig g;
    struct key_pair k, other;
    struct link_event ev;
    struct link *c = NULL;
    rig_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    rig_key(&g, "other", ROLE_COORDINATOR, "other", false, &other);
    cr_assert(link_client(link_endpoint(g.server, 0), &k, other.pub.z85, &c, NULL) == 0);
    struct link *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_REFUSED, 0, &ev);
    cr_assert(strstr(ev.text, "server key"), "%s", ev.text);
    link_event_clear(&ev);
    link_free(&c, 0);
    rig_stop(&g);
}

Test(link, a_client_comes_back_when_the_server_does)
{
    struct rig g;
    struct key_pair k;
    struct link_event ev;
    rig_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
    char ep[100];
    snprintf(ep, sizeof(ep), "%s", link_endpoint(g.server, 0));
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    link_free(&g.server, 0);
    both[0] = NULL;
    rig_expect(both, 2, 1, LINK_GONE, 0, &ev);
    cr_assert_eq(link_send(c, 1, &beat, NULL), -EHOSTUNREACH);
    rig_listen(&g, ep);
    both[0] = g.server;
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    cr_assert(link_send(c, 1, &beat, NULL) == 0);
    rig_expect(both, 2, 0, LINK_MSG, M_BEAT, &ev);
    link_event_clear(&ev);
    link_free(&c, 0);
    rig_stop(&g);
}

Test(link, a_port_in_use_is_one_clear_error)
{
    struct rig g;
    struct link *l = NULL;
    struct err e = { 0 };
    rig_start(&g);
    const char *ep = link_endpoint(g.server, 0);
    cr_assert_eq(link_server(&ep, 1, &g.server_key, g.dir, &l, &e), -EADDRINUSE);
    cr_assert(strstr(e.text, ep) && !l, "%s", e.text);
    rig_stop(&g);
}

Test(link, what_is_no_endpoint_is_refused)
{
    static const char *const bad[] = { "",
                                       "tcp://",
                                       "tcp://:5000",
                                       "tcp://host",
                                       "tcp://host:",
                                       "tcp://host:0",
                                       "tcp://host:65536",
                                       "tcp://host:x",
                                       "tcp://*:5000",
                                       "tcp://host:*",
                                       "tcp://1.2.3.4:0;5.6.7.8:9",
                                       "ipc:///tmp/x",
                                       "inproc://zeromq.zap.01",
                                       "tcp://a b:1",
                                       "tcp://::1:5000" };
    struct key_pair k = { .pub.role = ROLE_USER };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct link *l = NULL;
        struct err e = { 0 };
        cr_assert_eq(link_client(bad[i], &k, k.secret, &l, &e), -SF_EUSAGE, "'%s'", bad[i]);
    }
}
