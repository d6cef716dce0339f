#include "proto/lib/locked.h"
#include "proto/link/link_in.h"
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

/* Whether the ZAP handler still knows a pipe by this number. */
static bool zap_has(struct rig *g, uint32_t number)
{
    const uint8_t id[5] = { 0, (uint8_t)(number >> 24), (uint8_t)(number >> 16),
                            (uint8_t)(number >> 8), (uint8_t)number };
    link_set_int(g->server->zap, ZMQ_ROUTER_MANDATORY, 1);
    bool has = zmq_send(g->server->zap, id, sizeof(id), ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0;
    cr_assert(has || errno == EHOSTUNREACH);
    link_set_int(g->server->zap, ZMQ_ROUTER_MANDATORY, 0);
    return has;
}

Test(link, a_connection_gives_back_the_pipe_that_let_it_in_and_goes_on)
{
    struct rig g;
    struct key_pair k;
    struct link_event ev;
    rig_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    cr_assert(link_send(c, 1, &beat, NULL) == 0);
    rig_expect(both, 2, 0, LINK_MSG, M_BEAT, &ev);
    link_event_clear(&ev);
    cr_assert_eq(g.server->n_through, 1);
    uint32_t number = g.server->through[0];
    link_poll(g.server, NULL, 0, 0, NULL);
    cr_assert_eq(g.server->n_through, 0);
    uint64_t end = clock_mono_ms() + RIG_WAIT_MS;
    bool there = true;
    while (there && clock_mono_ms() < end) {
        link_poll(g.server, NULL, 0, 1, NULL);
        there = zap_has(&g, number);
        if (there) /* the one that came for it: end the message that was begun to it */
            zmq_send(g.server->zap, "", 0, ZMQ_DONTWAIT);
    }
    cr_assert(!there, "the pipe is kept as long as the connection");
    for (int i = 0; i < 300; i++) { /* more than a chunk of a queue holds, both ways */
        cr_assert(link_send(c, 1, &beat, NULL) == 0);
        rig_expect(both, 2, 0, LINK_MSG, M_BEAT, &ev);
        struct msg ack = { .type = M_BEAT_ACK, .beat_ack = { .seq = 7 } };
        cr_assert(link_send(g.server, ev.peer.id, &ack, NULL) == 0);
        link_event_clear(&ev);
        rig_expect(both, 2, 1, LINK_MSG, M_BEAT_ACK, &ev);
        link_event_clear(&ev);
    }
    link_free(&c, 0);
    both[1] = NULL;
    rig_expect(both, 1, 0, LINK_GONE, 0, &ev);
    link_event_clear(&ev);
    rig_stop(&g);
}

/* Connections come and go all the time while pipes of others are closed. */
Test(link, many_that_come_and_go_are_all_let_in_and_a_foreign_key_never)
{
    enum { N = 12, ROUNDS = 4 };
    struct rig g;
    struct key_pair k[N + 1];
    struct link *all[N + 2] = { 0 };
    struct link_event ev;
    struct link_stats st = { 0 };
    uint64_t up = 0;
    rig_start(&g);
    for (int i = 0; i <= N; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        rig_key(&g, name, ROLE_AGENT, name, i < N, &k[i]); /* the last one is not allowed */
    }
    all[0] = g.server;
    for (int round = 0; round < ROUNDS; round++) {
        bool heard[N + 1] = { 0 };
        bool told = all[N + 1]; /* the foreign one that it is; it stays for two rounds */
        int n = 0;
        for (int i = 0; i <= N; i++)
            if (!all[i + 1])
                all[i + 1] = rig_client(&g, &k[i]);
        for (uint64_t end = clock_mono_ms() + RIG_WAIT_MS; n < N || !told;) {
            cr_assert_lt(clock_mono_ms(), end);
            for (int i = 0; i <= N + 1; i++) {
                link_poll(all[i], NULL, 0, 0, NULL);
                while (link_recv(all[i], &ev, NULL) == 1) {
                    if (i) {
                        cr_assert(ev.kind == (i == N + 1 ? LINK_REFUSED : LINK_UP), "%s: %s",
                                  k[i - 1].pub.name, ev.text);
                        up += i <= N;
                        told |= i > N;
                    } else if (ev.kind == LINK_MSG) {
                        int who = atoi(ev.peer.name + 1);
                        cr_assert(who >= 0 && who < N);
                        cr_assert_str_eq(ev.peer.key, k[who].pub.z85);
                        n += !heard[who];
                        heard[who] = true;
                    }
                    link_event_clear(&ev);
                }
                if (i && i <= N && link_is_up(all[i]) && !heard[i - 1])
                    link_send(all[i], 1, &beat, NULL);
            }
        }
        link_stats(g.server, &st);
        for (int i = round % 2; i <= N; i += 2) /* these begin anew, among them the foreign one */
            link_free(&all[i + 1], 0);
    }
    cr_assert_geq(up, N + (ROUNDS - 1) * (N / 2));
    cr_assert_geq(st.refused_keys, ROUNDS / 2);
    for (int i = 0; i <= N; i++)
        link_free(&all[i + 1], 0);
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
