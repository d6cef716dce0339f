/* Peers that mean harm or speak something else: a clear refusal, nothing changed, nobody else disturbed. */
#include <poll.h>
#include <sys/resource.h>

#include "tests/proto/link/raw.h"

Test(hostile, frames_that_are_no_messages_are_refused_in_both_logs)
{
    static const struct {
        const char *what;
        uint8_t b[16];
        size_t n;
        const char *code, *text;
    } rows[] = {
        { "older version",
          { 0x95, 0, 12, 1, 1, 1 },
          6,
          "PROTOCOL",
          "protocol 0, the coordinator's is 1: upgrade siofleet of the agent" },
        { "newer version",
          { 0x93, 3, 1, 1 },
          4,
          "PROTOCOL",
          "protocol 3, the coordinator's is 1: upgrade siofleet of the coordinator" },
        { "garbage", { 'G', 'E', 'T', ' ', '/' }, 5, "MALFORMED", "frame: not a message" },
        { "nothing", { 0 }, 0, "MALFORMED", "frame: not a message" },
        { "unknown type", { 0x92, 1, 99 }, 3, "MALFORMED", "frame: message type 99 is unknown" },
        { "gigabytes",
          { 0x96, 1, 4, 1, 1, 1, 0xdd, 0xff, 0xff, 0xff, 0xff },
          11,
          "MALFORMED",
          "message 'beat': field 'tasks' is longer than the frame" },
    };
    struct rig g;
    struct key_pair k;
    struct raw w;
    rig_start(&g);
    rig_log_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    raw_open(&w, &g, &k, NULL);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct msg m;
        cr_assert(zmq_send(w.sock, rows[i].b, rows[i].n, 0) >= 0);
        raw_recv(&w, &g, &m);
        cr_assert_eq(m.type, M_REFUSE, "%s", rows[i].what);
        cr_assert_eq(m.refuse.exit, 3);
        cr_assert_str_eq(m.refuse.code, rows[i].code);
        cr_assert_str_eq(m.refuse.text, rows[i].text);
        msg_clear(&m);
    }
    cr_assert(rig_logged(&g, "agent 'n1' at 127.0.0.1:"));
    cr_assert(rig_logged(&g, "upgrade siofleet of the coordinator, message refused"));
    struct msg m;
    cr_assert(zmq_send(w.sock, "x", 1, ZMQ_SNDMORE) >= 0 && zmq_send(w.sock, "y", 1, 0) >= 0);
    raw_recv(&w, &g, &m);
    cr_assert_str_eq(m.refuse.text, "frame: more than one part");
    msg_clear(&m);
    raw_close(&w);
    rig_stop(&g);
}

Test(hostile, a_coordinator_of_another_version_is_told_to_the_client)
{
    struct rig g;
    struct key_pair k;
    struct link_event ev;
    rig_start(&g);
    rig_log_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    /* a ROUTER with our key that answers in version 2 */
    int one = 1, zero = 0;
    char ep[100];
    size_t n = sizeof(ep);
    void *ctx = zmq_ctx_new(), *s = zmq_socket(ctx, ZMQ_ROUTER);
    zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof(zero));
    zmq_setsockopt(s, ZMQ_CURVE_SERVER, &one, sizeof(one));
    zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, g.server_key.secret, 41);
    cr_assert_eq(zmq_bind(s, "tcp://127.0.0.1:*"), 0);
    zmq_getsockopt(s, ZMQ_LAST_ENDPOINT, ep, &n);
    struct link *c = NULL;
    cr_assert_eq(link_client(ep, &k, g.server_key.pub.z85, &c, NULL), 0);
    rig_expect(&c, 1, 0, LINK_UP, 0, &ev);
    struct msg beat = { .type = M_BEAT, .beat = { .boot = 1, .seq = 1 } };
    cr_assert_eq(link_send(c, 1, &beat, NULL), 0);
    uint8_t id[300], frame[300];
    int id_len = zmq_recv(s, id, sizeof(id), 0);
    cr_assert(id_len > 0 && zmq_recv(s, frame, sizeof(frame), 0) > 0);
    cr_assert(zmq_send(s, id, (size_t)id_len, ZMQ_SNDMORE) >= 0);
    cr_assert(zmq_send(s, "\x92\x02\x02", 3, 0) >= 0);
    rig_expect(&c, 1, 0, LINK_REFUSED, 0, &ev);
    cr_assert(strstr(ev.text, "protocol 1, the coordinator's is 2: upgrade siofleet of the agent"),
              "%s", ev.text);
    link_event_clear(&ev);
    link_free(&c, 0);
    zmq_close(s);
    zmq_ctx_term(ctx);
    rig_stop(&g);
}

/* A good client next to the bad ones: proof that the server still serves. */
static void check_alive(struct rig *g, struct link *good)
{
    struct link_event ev;
    struct link *both[] = { g->server, good };
    struct msg beat = { .type = M_BEAT, .beat = { .boot = 5, .seq = 55 } };
    cr_assert_eq(link_send(good, 1, &beat, NULL), 0);
    for (;;) {
        rig_expect(both, 2, 0, LINK_MSG, M_BEAT, &ev);
        bool ours = ev.msg.beat.seq == 55;
        struct msg ack = { .type = M_BEAT_ACK, .beat_ack = { .seq = 55 } };
        if (ours)
            cr_assert_eq(link_send(g->server, ev.peer.id, &ack, NULL), 0);
        link_event_clear(&ev);
        if (ours)
            break;
    }
    rig_expect(both, 2, 1, LINK_MSG, M_BEAT_ACK, &ev);
    link_event_clear(&ev);
}

static void wait_closed(struct rig *g, int fd)
{
    uint64_t end = clock_mono_ms() + RIG_WAIT_MS;
    for (;;) {
        char b[512];
        link_poll(g->server, NULL, 0, 5, NULL);
        ssize_t n = recv(fd, b, sizeof(b), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            break;
        cr_assert(clock_mono_ms() < end, "still open");
    }
    close(fd);
}

Test(hostile, bytes_that_are_no_zmtp_are_cut_off_and_logged)
{
    static const struct {
        const char *what, *b;
        size_t n;
    } rows[] = {
        { "http", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27 },
        { "zmtp 1", "\x01\x00\x06\x00hello\x00\x00\x00", 12 },
        { "zmtp 2", "\xff\0\0\0\0\0\0\0\x01\x7f\x01\x05\0\0", 14 },
        { "null mechanism",
          "\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
          "\0\0\0\0"
          "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
          64 },
        { "curve, then nonsense",
          "\xff\0\0\0\0\0\0\0\x01\x7f\x03\0CURVE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
          "\0\0\0\0"
          "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\x05HELLO",
          71 },
        { "curve, then a huge command",
          "\xff\0\0\0\0\0\0\0\x01\x7f\x03\0CURVE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
          "\0\0\0\0"
          "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x06\x7f\xff\xff\xff\xff\xff\xff\xff",
          73 },
    };
    struct rig g;
    struct key_pair k;
    struct link_event ev;
    rig_start(&g);
    rig_log_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int fd = raw_tcp(&g);
        cr_assert_eq(send(fd, rows[i].b, rows[i].n, MSG_NOSIGNAL), (ssize_t)rows[i].n);
        if (i < 2) /* too short to be told from a slow peer: it hangs up itself */
            shutdown(fd, SHUT_WR);
        wait_closed(&g, fd);
    }
    check_alive(&g, c);
    cr_assert(rig_logged(&g, "handshake failed"));
    cr_assert_eq(link_n_peers(g.server), 1);
    link_free(&c, 0);
    rig_stop(&g);
}

Test(hostile, a_peer_without_curve_is_refused)
{
    struct rig g;
    struct key_pair k;
    struct raw w;
    struct link_event ev;
    rig_start(&g);
    rig_log_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    raw_open(&w, &g, NULL, NULL);
    zmq_send(w.sock, "\x95\x01\x0c\x01\x01\x01", 6, 0);
    uint64_t end = clock_mono_ms() + RIG_WAIT_MS;
    while (!rig_logged(&g, "handshake failed") && clock_mono_ms() < end) {
        link_poll(g.server, NULL, 0, 5, NULL);
        cr_assert_eq(link_recv(g.server, &ev, NULL), 0);
    }
    cr_assert(rig_logged(&g, "handshake failed"));
    raw_close(&w);
    rig_stop(&g);
}

Test(hostile, a_routing_id_taken_twice_gives_nobody_the_place_of_another)
{
    struct rig g;
    struct key_pair k1, k2;
    struct raw a, b;
    struct link_event ev;
    rig_start(&g);
    rig_log_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k1);
    rig_key(&g, "u1", ROLE_USER, "u1", true, &k2);
    raw_open(&a, &g, &k1, "same");
    zmq_send(a.sock, "\x96\x01\x04\x01\x01\x01\x90", 7, 0);
    rig_expect(&g.server, 1, 0, LINK_MSG, M_BEAT, &ev);
    uint64_t id = ev.peer.id;
    link_event_clear(&ev);
    raw_open(&b, &g, &k2, "same");
    zmq_send(b.sock, "\x96\x01\x04\x01\x01\x01\x90", 7, 0);
    for (int i = 0; i < 30; i++) {
        link_poll(g.server, NULL, 0, 10, NULL);
        cr_assert_eq(link_recv(g.server, &ev, NULL), 0);
    }
    struct msg ack = { .type = M_BEAT_ACK, .beat_ack = { .seq = 1 } };
    cr_assert_eq(link_send(g.server, id, &ack, NULL), 0);
    uint8_t buf[100];
    int n = -1;
    for (int i = 0; i < 1000 && n < 0; i++) {
        link_poll(g.server, NULL, 0, 5, NULL);
        n = zmq_recv(a.sock, buf, sizeof(buf), ZMQ_DONTWAIT);
    }
    cr_assert(n > 0);
    cr_assert(zmq_recv(b.sock, buf, sizeof(buf), ZMQ_DONTWAIT) < 0);
    raw_close(&a);
    raw_close(&b);
    rig_stop(&g);
}

/* Resident memory in MiB. */
static unsigned long rss_mib(void)
{
    unsigned long size = 0, rss = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%lu %lu", &size, &rss) != 2)
            rss = 0;
        fclose(f);
    }
    return rss * (unsigned long)sysconf(_SC_PAGESIZE) >> 20;
}

Test(hostile, a_flood_that_nobody_reads_is_bounded_and_leaves_the_others_their_turn)
{
    struct rig g;
    struct key_pair k, kg;
    struct raw w;
    struct link_event ev;
    rig_start(&g);
    rig_log_start(&g);
    rig_key(&g, "bad", ROLE_AGENT, "bad", true, &k);
    rig_key(&g, "good", ROLE_AGENT, "good", true, &kg);
    struct link *c = rig_client(&g, &kg), *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    raw_open(&w, &g, &k, NULL);
    int hwm_ms = 0;
    zmq_setsockopt(w.sock, ZMQ_SNDTIMEO, &hwm_ms, sizeof(hwm_ms));
    /* a legal message of 1 MiB, as often as it goes while the server does not read */
    uint8_t *big = calloc(1, CID_CHUNK);
    struct msg m = { .type = M_CHUNK, .chunk = { .data = big, .data_len = CID_CHUNK } };
    struct buf b = BUF_INIT(FRAME_MAX);
    cr_assert_eq(msg_encode(&m, &b, NULL), 0);
    int hwm = 4;
    zmq_setsockopt(w.sock, ZMQ_SNDHWM, &hwm, sizeof(hwm));
    unsigned long before = rss_mib();
    size_t sent = 0;
    uint64_t end = clock_mono_ms() + 20000, quiet = clock_mono_ms();
    bool in = false;
    while (clock_mono_ms() < end && clock_mono_ms() < quiet + 700) {
        if (!in) { /* the handshake needs the server */
            link_poll(g.server, NULL, 0, 1, NULL);
            struct link_stats st;
            link_stats(g.server, &st);
            in = st.connects >= 2 && sent > 4;
        }
        if (zmq_send(w.sock, b.data, b.len, ZMQ_DONTWAIT) >= 0) {
            sent++;
            quiet = clock_mono_ms();
        }
    }
    cr_assert(sent < 1200, "%zu MiB were taken without being read", sent);
    cr_assert(rss_mib() < before + 1300, "%lu -> %lu MiB", before, rss_mib());
    check_alive(&g, c);

    /* and bad messages without end are answered, then cut off */
    for (end = clock_mono_ms() + RIG_WAIT_MS;;) {
        cr_assert(clock_mono_ms() < end, "still connected");
        for (int i = 0; i < 16; i++)
            zmq_send(w.sock, "junk", 4, ZMQ_DONTWAIT);
        link_poll(g.server, NULL, 0, 0, NULL);
        if (link_recv(g.server, &ev, NULL) != 1)
            continue;
        if (ev.kind == LINK_GONE)
            break;
        link_event_clear(&ev);
    }
    cr_assert_str_eq(ev.peer.name, "bad");
    link_event_clear(&ev);
    cr_assert(rig_logged(&g, "messages refused, connection closed"));
    check_alive(&g, c);
    raw_close(&w);
    link_free(&c, 0);
    buf_clear(&b);
    free(big);
    rig_stop(&g);
}

Test(hostile, a_peer_that_does_not_read_fills_its_own_queue_only)
{
    struct rig g;
    struct key_pair k, kg;
    struct raw w;
    struct link_event ev;
    rig_start(&g);
    rig_key(&g, "bad", ROLE_AGENT, "bad", true, &k);
    rig_key(&g, "good", ROLE_AGENT, "good", true, &kg);
    struct link *c = rig_client(&g, &kg), *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    raw_open(&w, &g, &k, NULL);
    int hwm = 2;
    zmq_setsockopt(w.sock, ZMQ_RCVHWM, &hwm, sizeof(hwm));
    zmq_send(w.sock, "\x96\x01\x04\x01\x01\x01\x90", 7, 0);
    rig_expect(both, 1, 0, LINK_MSG, M_BEAT, &ev);
    uint64_t id = ev.peer.id;
    link_event_clear(&ev);
    uint8_t *big = calloc(1, CID_CHUNK);
    struct msg m = { .type = M_CHUNK, .chunk = { .data = big, .data_len = CID_CHUNK } };
    int r = 0;
    size_t sent = 0;
    uint64_t quiet = clock_mono_ms();
    while (sent < 3000 && clock_mono_ms() < quiet + 500) {
        r = link_send(g.server, id, &m, NULL);
        if (r == 0) {
            sent++;
            quiet = clock_mono_ms();
        } else {
            cr_assert_eq(r, -EAGAIN);
        }
    }
    cr_assert(r == -EAGAIN && sent < 2 * LINK_QUEUE + 1100, "%zu", sent);
    struct link_stats st;
    link_stats(g.server, &st);
    cr_assert(st.full > 0);
    check_alive(&g, c);
    raw_close(&w);
    link_free(&c, 0);
    free(big);
    rig_stop(&g);
}

Test(hostile, more_connections_than_there_is_room_for_are_closed)
{
    struct rig g = { 0 };
    struct key_pair k;
    struct link_event ev;
    struct rlimit was, small;
    getrlimit(RLIMIT_NOFILE, &was);
    small = was;
    small.rlim_cur = 256; /* room for 192 */
    setrlimit(RLIMIT_NOFILE, &small);
    rig_start(&g);
    setrlimit(RLIMIT_NOFILE, &was);
    rig_log_start(&g);
    rig_key(&g, "n1", ROLE_AGENT, "n1", true, &k);
    struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    int fds[264];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = raw_tcp(&g);
        link_poll(g.server, NULL, 0, 0, NULL);
    }
    size_t closed = 0;
    uint64_t end = clock_mono_ms() + RIG_WAIT_MS;
    while (closed < 72 && clock_mono_ms() < end) {
        link_poll(g.server, NULL, 0, 5, NULL);
        for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
            char b[100];
            ssize_t n = fds[i] >= 0 ? recv(fds[i], b, sizeof(b), MSG_DONTWAIT) : -1;
            if (n == 0 || (n < 0 && fds[i] >= 0 && errno == ECONNRESET)) {
                close(fds[i]);
                fds[i] = -1;
                closed++;
            }
        }
    }
    cr_assert(closed >= 72, "%zu", closed);
    check_alive(&g, c);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    link_free(&c, 0);
    rig_stop(&g);
}
