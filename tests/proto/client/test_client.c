/* The client library against a small coordinator in a thread of its own: both over real sockets. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "proto/base/rng.h"
#include "proto/cas/cas.h"
#include "proto/client/client.h"
#include "proto/xfer/drive.h"
#include "tests/proto/link/rig.h"

struct coord {
    struct rig rig;
    char ep[100];
    pthread_t thread;
    atomic_bool stop;
    atomic_uint asked, offered;
    /* what it does */
    bool refuse_hello, silent, drop_first;
    struct cas *cas;
    struct xfers *xfers;
};

static int coord_send(void *ctx, uint64_t peer, const struct msg *m)
{
    struct coord *c = ctx;
    return link_send(c->rig.server, peer, m, NULL);
}

static int coord_offered(void *ctx, uint64_t peer, const struct msg_put_offer *o, bool here,
                         struct err *e)
{
    struct coord *c = ctx;
    (void)peer;
    (void)here;
    atomic_fetch_add(&c->offered, 1);
    return strcmp(o->kind, "log") ? err_set(e, ENOSPC, "no room for a %s", o->kind) : 0;
}

static void coord_answer(struct coord *c, uint64_t peer, const struct msg *m)
{
    struct msg a = { 0 };
    char body[64], cursor[16] = "";
    switch (m->type) {
    case M_USER_HELLO:
        if (c->refuse_hello) {
            link_refuse(c->rig.server, peer, m->user_hello.req, 3, "VERSION", "too old");
            return;
        }
        a = (struct msg){ .type = M_USER_WELCOME,
                          .user_welcome = { .req = m->user_hello.req,
                                            .epoch = 7,
                                            .version = "0.0.1",
                                            .role = "user" } };
        break;
    case M_ASK: {
        unsigned n = atomic_fetch_add(&c->asked, 1);
        if (c->silent)
            return;
        if (c->drop_first && n == 0) {
            link_drop(c->rig.server, peer, "test");
            return;
        }
        int part = m->ask.cursor_len ? atoi(m->ask.cursor) : 0;
        if (!strcmp(m->ask.what, "pages") && part < 3)
            snprintf(cursor, sizeof(cursor), "%d", part + 1);
        if (!strcmp(m->ask.what, "stuck"))
            strcpy(cursor, "0");
        snprintf(body, sizeof(body), strcmp(m->ask.what, "junk") ? "{\"part\":%d}" : "{%d", part);
        a = (struct msg){ .type = M_PART,
                          .part = { .req = m->ask.req,
                                    .cursor = cursor,
                                    .body = (const uint8_t *)body,
                                    .body_len = strlen(body) } };
        break;
    }
    case M_CONTROL:
        if (strcmp(m->control.target, "last")) {
            link_refuse(c->rig.server, peer, m->control.req, 1, "NO_SPACE", "no such thing");
            return;
        }
        a = (struct msg){ .type = M_OK, .ok = { .req = m->control.req, .text = "as you wish" } };
        break;
    case M_SUBMIT:
        a = (struct msg){ .type = M_SUBMITTED,
                          .submitted = { .req = m->submit.req,
                                         .points = m->submit.request_id_len,
                                         .known = m->submit.sweep_len } };
        break;
    default:
        xfers_msg(c->xfers, peer, m, clock_mono_ms());
        return;
    }
    link_send(c->rig.server, peer, &a, NULL);
}

static void *coord_run(void *arg)
{
    struct coord *c = arg;
    while (!c->stop) {
        struct link_event ev;
        xfers_tick(c->xfers, clock_mono_ms());
        link_poll(c->rig.server, NULL, 0, 5, NULL);
        while (link_recv(c->rig.server, &ev, NULL) == 1) {
            if (ev.kind == LINK_MSG)
                coord_answer(c, ev.peer.id, &ev.msg);
            else if (ev.kind == LINK_GONE)
                xfers_gone(c->xfers, ev.peer.id, false);
            link_event_clear(&ev);
        }
    }
    return NULL;
}

static struct coord *coord_make(void)
{
    struct coord *c = calloc(1, sizeof(*c));
    struct key_pair k;
    struct err e = { 0 };
    rig_start(&c->rig);
    rig_key(&c->rig, "ann", ROLE_USER, "ann", true, &k);
    rig_key(&c->rig, "eve", ROLE_USER, "eve", false, &k);
    snprintf(c->ep, sizeof(c->ep), "%s", link_endpoint(c->rig.server, 0));
    CLEANUP(freep) char *dir = path_fmt("%s/store", c->rig.dir);
    cr_assert(cas_open(dir, 0, &c->cas, &e) == 0, "%s", e.text);
    struct xfer_store st = xfer_store_cas(c->cas);
    struct xfers_ops ops = { .ctx = c, .send = coord_send, .offered = coord_offered };
    cr_assert((c->xfers = xfers_new(&st, &ops, 1 << 30)));
    return c;
}

static void coord_start(struct coord *c)
{
    cr_assert_eq(pthread_create(&c->thread, NULL, coord_run, c), 0);
}

static void coord_stop(struct coord *c)
{
    c->stop = true;
    pthread_join(c->thread, NULL);
    xfers_free(&c->xfers);
    cas_free(&c->cas);
    rig_stop(&c->rig);
    free(c);
}

/* Settings for the key file `who` of the rig; storage is static. */
static struct client_opt opts(struct coord *c, const char *who)
{
    static char server[300], key[300];
    snprintf(server, sizeof(server), "%s/server.pub", c->rig.dir);
    snprintf(key, sizeof(key), "%s/%s", c->rig.dir, who);
    return (struct client_opt){ c->ep, server, key };
}

static struct client *dial(struct coord *c)
{
    struct client_opt o = opts(c, "ann");
    struct client *cl = NULL;
    struct err e = { 0 };
    cr_assert(client_open(&o, 60000, NULL, &cl, &e) == 0, "%s", e.text);
    return cl;
}

static int count_part(void *ctx, json_t *body, struct err *e)
{
    uint64_t n;
    int *seen = ctx;
    cr_assert_eq(json_get_u64(body, "part", &n, e), 0);
    cr_assert_eq((int)n, (*seen)++);
    return 0;
}

Test(client, asks_and_gets_all_parts_in_order)
{
    struct coord *c = coord_make();
    coord_start(c);
    struct client *cl = dial(c);
    struct err e = { 0 };
    int seen = 0;
    cr_assert(client_ask(cl, "pages", NULL, count_part, &seen, &e) == 0, "%s", e.text);
    cr_assert_eq(seen, 4);
    json_t *doc = NULL;
    cr_assert(client_ask_one(cl, "one", NULL, &doc, &e) == 0, "%s", e.text);
    json_decref(doc);
    cr_assert_eq(client_ask_one(cl, "pages", NULL, &doc, &e), -SF_EFORMAT);
    cr_assert_eq(client_ask_one(cl, "junk", NULL, &doc, &e), -SF_EFORMAT);
    seen = 0;
    cr_assert_eq(client_ask_one(cl, "stuck", NULL, &doc, &e), -SF_EFORMAT);

    char text[1001];
    cr_assert(client_control(cl, "cancel", "last", text, &e) == 0, "%s", e.text);
    cr_assert_str_eq(text, "as you wish");
    cr_assert_eq(client_control(cl, "cancel", "else", text, &e), -ENOSPC);
    cr_assert_str_eq(e.text, "no such thing");
    cr_assert_str_eq(client_refusal(cl), "NO_SPACE");
    struct msg_submitted s;
    cr_assert(client_submit(cl, NULL, "{}", 2, &s, &e) == 0, "%s", e.text);
    cr_assert(s.points == 32 && s.known == 2, "a request id of its own");
    cr_assert_eq(client_control(cl, "cancel", "", text, &e), -SF_EUSAGE);
    client_free(&cl);
    coord_stop(c);
}

Test(client, a_broken_connection_costs_the_question_again)
{
    struct coord *c = coord_make();
    c->drop_first = true;
    coord_start(c);
    struct client *cl = dial(c);
    struct err e = { 0 };
    json_t *doc = NULL;
    cr_assert(client_ask_one(cl, "one", NULL, &doc, &e) == 0, "%s", e.text);
    cr_assert_eq(c->asked, 2);
    json_decref(doc);
    client_free(&cl);
    coord_stop(c);
}

Test(client, what_keeps_it_out_has_its_own_error)
{
    struct coord *c = coord_make();
    struct client *cl = NULL;
    struct err e = { 0 };
    struct client_opt o = opts(c, "eve");
    char path[300];
    coord_start(c);
    cr_assert_eq(client_open(&o, 60000, NULL, &cl, &e), -SF_EREFUSED);
    cr_assert(strstr(e.text, "does not allow the key 'eve'"), "%s", e.text);
    cr_assert_eq(err_exit(e.code), 3);

    o = opts(c, "ann");
    snprintf(path, sizeof(path), "%s/eve.pub", c->rig.dir);
    o.server_key = path;
    cr_assert_eq(client_open(&o, 60000, NULL, &cl, &e), -SF_EREFUSED);
    cr_assert(strstr(e.text, "not a coordinator's"), "%s", e.text);

    o = opts(c, "ann");
    o.connect = "tcp://127.0.0.1:1";
    cr_assert_eq(client_open(&o, 300, NULL, &cl, &e), -SF_ENOFLEET);
    cr_assert(strstr(e.text, "tcp://127.0.0.1:1: no coordinator"), "%s", e.text);

    o = opts(c, "ann");
    chmod(o.key, 0644);
    cr_assert_eq(client_open(&o, 300, NULL, &cl, &e), -SF_EREFUSED);
    cr_assert(strstr(e.text, "chmod 600"), "%s", e.text);
    chmod(o.key, 0600);

    c->refuse_hello = true;
    cr_assert_eq(client_open(&o, 60000, NULL, &cl, &e), -SF_EREFUSED);
    cr_assert(strstr(e.text, "tcp://") == e.text && strstr(e.text, ": too old"), "%s", e.text);
    coord_stop(c);
}

Test(client, a_deadline_and_a_stop_end_a_call)
{
    struct coord *c = coord_make();
    struct err e = { 0 };
    static volatile sig_atomic_t stop;
    struct client *cl = NULL;
    struct client_opt o = opts(c, "ann");
    c->silent = true;
    coord_start(c);
    cr_assert(client_open(&o, 60000, &stop, &cl, &e) == 0, "%s", e.text);
    struct msg a, q = { .type = M_ASK, .ask = { .what = "x" } };
    cr_assert_eq(client_call(cl, &q, 50, &a, &e), -ETIMEDOUT);
    stop = 1;
    cr_assert_eq(client_call(cl, &q, 0, &a, &e), -ECANCELED);
    cr_assert_eq(err_exit(e.code), 5);
    client_free(&cl);
    coord_stop(c);
}

Test(client, settings_come_from_option_environment_or_file)
{
    struct coord *c = coord_make();
    struct err e = { 0 };
    struct client *cl = NULL;
    struct client_opt none = { 0 }, o = opts(c, "ann");
    char dir[300], path[400], text[1000];
    coord_start(c);
    setenv("XDG_CONFIG_HOME", c->rig.dir, 1);
    unsetenv("SIOFLEET_CONNECT");
    unsetenv("SIOFLEET_SERVER_KEY");
    unsetenv("SIOFLEET_KEY");
    cr_assert_eq(client_open(&none, 100, NULL, &cl, &e), -SF_ENOFLEET);
    cr_assert(strstr(e.text, "--connect") && strstr(e.text, "SIOFLEET_CONNECT"), "%s", e.text);
    snprintf(dir, sizeof(dir), "%s/siofleet", c->rig.dir);
    snprintf(path, sizeof(path), "%s/client.ini", dir);
    cr_assert_eq(dir_make(dir, 0700, &e), 0);
    for (int sect = 0; sect < 2; sect++) {
        int n = snprintf(text, sizeof(text),
                         "# mine\n%sconnect = %s\nserver_key = ../server.pub\nkey = %s\n",
                         sect ? "[client]\n" : "", c->ep, o.key);
        cr_assert_eq(file_write(path, text, (size_t)n, 0600, true, &e), 0);
        cr_assert(client_open(&none, 60000, NULL, &cl, &e) == 0, "%s", e.text);
        client_free(&cl);
    }
    setenv("SIOFLEET_CONNECT", "tcp://127.0.0.1:1", 1);
    cr_assert_eq(client_open(&none, 100, NULL, &cl, &e), -SF_ENOFLEET);
    cr_assert(strstr(e.text, ":1: no coordinator"), "%s", e.text);
    none.connect = c->ep; /* the option wins */
    cr_assert(client_open(&none, 60000, NULL, &cl, &e) == 0, "%s", e.text);
    client_free(&cl);
    cr_assert_eq(file_write(path, "keys = x\n", 9, 0600, true, &e), 0);
    unsetenv("SIOFLEET_CONNECT");
    none.connect = NULL;
    cr_assert_eq(client_open(&none, 100, NULL, &cl, &e), -SF_EUSAGE);
    cr_assert(strstr(e.text, "client.ini:1: unknown key 'keys'"), "%s", e.text);
    coord_stop(c);
}

static uint64_t last_done;

static void moved(void *ctx, uint64_t done, uint64_t size)
{
    (void)ctx;
    cr_assert(done <= size);
    last_done = done;
}

Test(client, a_file_goes_there_and_comes_back_the_same)
{
    static const size_t sizes[] = { 0, 1, CID_CHUNK, 21 * CID_CHUNK + 77 };
    struct coord *c = coord_make();
    struct err e = { 0 };
    char from[300], to[300];
    snprintf(from, sizeof(from), "%s/from", c->rig.dir);
    snprintf(to, sizeof(to), "%s/to", c->rig.dir);
    coord_start(c);
    struct client *cl = dial(c);
    for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
        uint8_t *p = malloc(sizes[k] + 1);
        struct rng r = { k };
        /* half noise, half text, so that both packed and plain chunks travel */
        for (size_t i = 0; i < sizes[k]; i++)
            p[i] = i / CID_CHUNK % 2 ? (uint8_t)rng_u64(&r) : (uint8_t)('a' + i % 23);
        struct id id, want;
        uint64_t size;
        cr_assert_eq(file_write(from, p, sizes[k], 0600, true, &e), 0);
        cid_bytes(p, sizes[k], &want);
        cr_assert(client_put(cl, from, "log", "my log", &id, &size, moved, NULL, &e) == 0, "%s",
                  e.text);
        cr_assert(id_eq(&id, &want) && size == sizes[k]);
        /* again: it is there already */
        cr_assert(client_put(cl, from, "log", "my log", &id, &size, moved, NULL, &e) == 0, "%s",
                  e.text);
        cr_assert_eq(client_get(cl, &id, from, false, moved, NULL, &e), -EEXIST);
        cr_assert(client_get(cl, &id, to, k > 0, moved, NULL, &e) == 0, "%s", e.text);
        cr_assert(!sizes[k] || last_done == sizes[k]);
        struct buf b = BUF_INIT(64u << 20);
        cr_assert_eq(file_read(to, &b, &e), 0);
        cr_assert(b.len == sizes[k] && (!b.len || !memcmp(b.data, p, b.len)));
        buf_clear(&b);
        free(p);
    }
    struct id none = { { 1, 2, 3 } };
    cr_assert_eq(client_get(cl, &none, to, true, NULL, NULL, &e), -ENOENT);
    cr_assert_eq(client_put(cl, from, "trace", "x", &none, NULL, NULL, NULL, &e), -ENOSPC);
    cr_assert(strstr(e.text, "no room for a trace"), "%s", e.text);
    client_free(&cl);
    coord_stop(c);
}
