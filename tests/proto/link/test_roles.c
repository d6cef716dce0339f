/* Who may say what, written down a second time and tried over real links. */
#include "tests/proto/link/raw.h"
#include "tests/proto/wire/fill.h"

enum { C = ROLE_COORDINATOR, A = ROLE_AGENT, U = ROLE_USER, R = ROLE_READER };

static const struct {
    const char *name;
    unsigned may;
} table[] = {
    { "agent_hello", A },
    { "welcome", C },
    { "refuse", C },
    { "beat", A },
    { "beat_ack", C },
    { "grant", C },
    { "decline", A },
    { "rows", A },
    { "rows_ack", C },
    { "task_end", A },
    { "end_ack", C },
    { "cancel", C },
    { "put_offer", A | U },
    { "put_have", C },
    { "get", C | A | U | R },
    { "hashes", C | A | U },
    { "chunk", C | A | U },
    { "xfer_fail", C | A | U },
    { "user_hello", U | R },
    { "user_welcome", C },
    { "submit", U },
    { "submitted", C },
    { "control", U },
    { "ok", C },
    { "ask", U | R },
    { "part", C },
    { "log_get", C },
    { "log_data", A },
    { "row_block", A },
    { "submit_job", U },
    { "bulk_ask", A | U | R },
    { "bulk_ticket", C },
    { "bulk_no", C | A | U | R },
    { "stream_open", A },
    { "stream_data", A },
    { "stream_end", A },
    { "stream_drop", A },
    { "stream_at", C },
    { "stream_over", C },
    { "holds", A },
};

static struct fill_mem mem;

static unsigned may(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (!strcmp(table[i].name, name))
            return table[i].may;
    cr_assert_fail("message '%s' has no row here", name);
    return 0;
}

/* A message that the role may always send: what comes out of the server after it tells that nothing else did. */
static struct msg marker(enum role role)
{
    if (role == ROLE_AGENT)
        return (struct msg){ .type = M_BEAT, .beat = { .boot = 77, .seq = 77 } };
    return (struct msg){ .type = M_ASK, .ask = { .req = 77, .what = "marker" } };
}

Test(roles, each_message_of_each_role_is_accepted_or_refused_as_the_table_says)
{
    static const enum role roles[] = { ROLE_AGENT, ROLE_USER, ROLE_READER };
    struct rig g;
    struct rng rng = { 1 };
    size_t refused = 0, accepted = 0;
    rig_start(&g);
    rig_log_start(&g);
    for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
        struct key_pair k;
        struct link_event ev;
        const struct wire_type *t;
        rig_key(&g, role_name(roles[i]), roles[i], role_name(roles[i]), true, &k);
        struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
        rig_expect(both, 2, 1, LINK_UP, 0, &ev);
        for (size_t n = 0; (t = wire_type_at(n)); n++) {
            struct msg m = fill_msg(t, FILL_LOW, &rng, &mem), mark = marker(roles[i]);
            if (wire_req(&m))
                *wire_req(&m) = 1000 + n;
            cr_assert_eq(link_send(c, 1, &m, NULL), 0);
            cr_assert_eq(link_send(c, 1, &mark, NULL), 0);
            rig_expect(both, 2, 0, LINK_MSG, 0, &ev);
            if (may(t->part.name) & roles[i]) {
                cr_assert_eq(ev.msg.type, t->type, "%s of %s", t->part.name, role_name(roles[i]));
                cr_assert_eq(ev.peer.role, roles[i]);
                link_event_clear(&ev);
                rig_expect(both, 2, 0, LINK_MSG, 0, &ev);
                accepted++;
            } else {
                struct link_event answer;
                char text[200];
                rig_expect(both, 2, 1, LINK_MSG, M_REFUSE, &answer);
                cr_assert_eq(answer.msg.refuse.exit, 3);
                cr_assert_str_eq(answer.msg.refuse.code, "ROLE");
                snprintf(text, sizeof(text), "message '%s': role '%s' may not send it",
                         t->part.name, role_name(roles[i]));
                cr_assert_str_eq(answer.msg.refuse.text, text);
                cr_assert_eq(answer.msg.refuse.req, wire_req(&m) ? 1000 + n : 0);
                link_event_clear(&answer);
                refused++;
            }
            cr_assert_eq(ev.msg.type, mark.type, "%s of %s came through", t->part.name,
                         role_name(roles[i]));
            cr_assert(roles[i] == ROLE_AGENT ? ev.msg.beat.seq == 77 : ev.msg.ask.req == 77);
            link_event_clear(&ev);
            fill_clear(&mem);
        }
        link_free(&c, 0);
    }
    cr_assert_eq(accepted + refused, 3 * ARRAY_LEN(table));
    struct link_stats st;
    link_stats(g.server, &st);
    cr_assert_eq(st.refused_msgs, refused);
    cr_assert(rig_logged(&g, "agent 'agent' at 127.0.0.1:"));
    cr_assert(rig_logged(&g, "role 'reader' may not send it, message refused"));
    rig_stop(&g);
}

Test(roles, a_client_takes_only_what_a_coordinator_may_say)
{
    struct rig g;
    struct rng rng = { 2 };
    struct key_pair k;
    struct link_event ev;
    const struct wire_type *t;
    rig_start(&g);
    rig_log_start(&g);
    rig_key(&g, "u", ROLE_USER, "u", true, &k);
    struct link *c = rig_client(&g, &k), *both[] = { g.server, c };
    struct msg mark = marker(ROLE_USER), end = { .type = M_OK, .ok = { .req = 77 } };
    rig_expect(both, 2, 1, LINK_UP, 0, &ev);
    cr_assert_eq(link_send(c, 1, &mark, NULL), 0);
    rig_expect(both, 2, 0, LINK_MSG, M_ASK, &ev);
    uint64_t id = ev.peer.id;
    link_event_clear(&ev);
    for (size_t n = 0; (t = wire_type_at(n)); n++) {
        struct msg m = fill_msg(t, FILL_LOW, &rng, &mem);
        cr_assert_eq(link_send(g.server, id, &m, NULL), 0);
        cr_assert_eq(link_send(g.server, id, &end, NULL), 0);
        rig_wait(both, 2, 1, &ev);
        if (may(t->part.name) & ROLE_COORDINATOR) {
            cr_assert_eq(ev.msg.type, t->type, "%s", t->part.name);
            link_event_clear(&ev);
            rig_wait(both, 2, 1, &ev);
        }
        cr_assert(ev.msg.type == M_OK && ev.msg.ok.req == 77, "%s", t->part.name);
        link_event_clear(&ev);
        fill_clear(&mem);
    }
    cr_assert(rig_logged(&g, "a coordinator may not send it, message ignored"));
    link_free(&c, 0);
    rig_stop(&g);
}
