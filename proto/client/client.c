#include "proto/client/client_in.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/bulk/bulk.h"
#include "proto/cas/cas.h"
#include "proto/lib/ini.h"
#include "proto/link/link.h"
#include "proto/wire/schema.h"
#include "proto/xfer/drive.h"

/* ---- settings */

struct settings {
    char *connect, *server_key, *key; /* owned */
};

static void settings_clear(struct settings *s)
{
    free(s->connect);
    free(s->server_key);
    free(s->key);
}

/* The option, else the environment. A copy, NULL = neither. */
static char *given(const char *option, const char *env)
{
    const char *v = option ? option : getenv(env);
    return v && *v ? strdup(v) : NULL;
}

static int settings_find(const struct client_opt *o, struct settings *s, struct err *e)
{
    s->connect = given(o ? o->connect : NULL, "SIOFLEET_CONNECT");
    s->server_key = given(o ? o->server_key : NULL, "SIOFLEET_SERVER_KEY");
    s->key = given(o ? o->key : NULL, "SIOFLEET_KEY");
    if (s->connect && s->server_key && s->key)
        return 0;
    CLEANUP(freep) char *dir = path_xdg("CONFIG");
    CLEANUP(freep) char *path = dir ? path_fmt("%s/client.ini", dir) : NULL;
    CLEANUP(ini_free) struct ini *ini = NULL;
    if (!path)
        return err_sys(e, ENOMEM, "settings");
    int r = ini_load_flat(path, "client", &ini, e);
    if (r < 0 && r != -ENOENT)
        return r;
    static const char *const names[] = { "connect", "server_key", "key" };
    char **to[] = { &s->connect, &s->server_key, &s->key };
    for (size_t k = 0; ini && k < ini->n_sections; k++) {
        const struct ini_section *sec = &ini->sections[k];
        if (strcmp(sec->name, "client") || sec->arg[0])
            return err_set(e, SF_EUSAGE, "%s: unknown section [%s]", ini_place(ini, sec->line),
                           sec->name);
        for (size_t i = 0; i < sec->n_keys; i++) {
            size_t n = 0;
            while (n < ARRAY_LEN(names) && strcmp(names[n], sec->keys[i].name))
                n++;
            if (n == ARRAY_LEN(names))
                return err_set(e, SF_EUSAGE, "%s: unknown key '%s'",
                               ini_place(ini, sec->keys[i].line), sec->keys[i].name);
            if (!*to[n])
                *to[n] = n ? ini_path(ini, sec->keys[i].value) : strdup(sec->keys[i].value);
        }
    }
    static const char *const options[] = { "--connect", "--server-key", "--key" };
    static const char *const envs[] = { "SIOFLEET_CONNECT", "SIOFLEET_SERVER_KEY", "SIOFLEET_KEY" };
    for (size_t i = 0; i < ARRAY_LEN(to); i++)
        if (!*to[i])
            return err_set(e, SF_ENOFLEET, "%s: not given, neither in %s nor in %s", options[i],
                           envs[i], path);
    return 0;
}

/* ---- messages in and out */

int client_stopped(const struct client *c, struct err *e)
{
    return c->stop && *c->stop ? err_set(e, ECANCELED, "%s: interrupted", c->ep) : 0;
}

/* What a `refuse` says, as an error. */
static int refusal(struct client *c, const struct msg_refuse *r, struct err *e)
{
    static const int codes[] = { 0, SF_EFAILED, SF_EUSAGE, SF_EREFUSED, SF_EINTEGRITY, ECANCELED };
    snprintf(c->refusal, sizeof(c->refusal), "%s", r->code);
    /* a code that has a name here keeps it ("NO_SPACE") when its exit status is the one that was said */
    int code = codes[r->exit];
    static const int known[] = { ENOENT, EEXIST, ENOSPC, SF_EFORMAT, ETIMEDOUT };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (!strcmp(err_name(known[i]), r->code) && err_exit(known[i]) == (int)r->exit)
            code = known[i];
    /* at the hello there is no question yet that could be the place of the error */
    return r->req && r->req == c->hello_req ? err_set(e, code, "%s: %s", c->ep, r->text)
                                            : err_set(e, code, "%s", r->text);
}

static int say_hello(struct client *c, struct err *e)
{
    struct msg m = { .type = M_USER_HELLO,
                     .user_hello = { .req = ++c->last_req,
                                     .version = SIOFLEET_VERSION,
                                     .features = bulk_features() } };
    c->hello_req = c->last_req;
    c->ready = false;
    return link_send(c->link, 1, &m, e);
}

int client_send_xfer(struct client *c, uint64_t peer, const struct msg *m)
{
    return c->ready ? link_send(c->link, peer, m, NULL) : -EHOSTUNREACH;
}

int client_work(struct client *c, int64_t wait_ms, uint64_t want, struct msg *ret, bool *ret_up,
                struct err *e)
{
    int r = client_stopped(c, e);
    if (r < 0)
        return r;
    if (c->xfers) {
        int64_t due = xfers_tick(c->xfers, clock_mono_ms());
        if (due >= 0 && due < wait_ms)
            wait_ms = due;
        if (!xfers_running(c->xfers)) /* it ended in this very tick: nobody will wake us */
            wait_ms = 0;
    }
    struct pollfd fd = { .fd = c->bulk ? bulk_fd(c->bulk) : -1, .events = POLLIN };
    r = link_poll(c->link, &fd, c->bulk && c->xfers ? 1 : 0,
                  wait_ms < SLICE_MS ? wait_ms : SLICE_MS, e);
    if (r < 0)
        return r;
    for (;;) {
        CLEANUP(link_event_clear) struct link_event ev;
        r = link_recv(c->link, &ev, e);
        if (r <= 0)
            return r;
        switch (ev.kind) {
        case LINK_UP:
            say_hello(c, NULL); /* if it does not leave, the connection is down again */
            continue;
        case LINK_GONE:
            c->ready = false;
            if (c->xfers)
                xfers_gone(c->xfers, 1, true);
            continue;
        case LINK_REFUSED:
            snprintf(c->refusal, sizeof(c->refusal), "REFUSED");
            return err_set(e, SF_EREFUSED, "%s", ev.text);
        case LINK_MSG:
            break;
        }
        struct msg *m = &ev.msg;
        uint64_t *req = wire_req(m);
        if (m->type == M_USER_WELCOME && m->user_welcome.req == c->hello_req) {
            c->features = m->user_welcome.features;
            c->ready = true;
            *ret_up = true;
            if (c->xfers)
                xfers_up(c->xfers, 1, clock_mono_ms());
            return 0;
        }
        if (m->type == M_REFUSE &&
            (m->refuse.req == c->hello_req || m->refuse.req == 0 || m->refuse.req == want))
            return refusal(c, &m->refuse, e);
        if (c->xfers && xfers_msg(c->xfers, 1, m, clock_mono_ms())) {
            c->heard_ms = clock_mono_ms();
            return 0;
        }
        if (want && req && *req == want) {
            *ret = *m;
            m->block = NULL; /* taken */
            return 1;
        }
    }
}

/* Until the hello is answered. */
static int wait_ready(struct client *c, uint64_t end_ms, struct err *e)
{
    bool up = false;
    while (!c->ready) {
        uint64_t now = clock_mono_ms();
        if (now >= end_ms)
            return err_set(e, SF_ENOFLEET, "%s: no coordinator answers", c->ep);
        int r = client_work(c, (int64_t)(end_ms - now), 0, NULL, &up, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int client_open(const struct client_opt *o, unsigned connect_ms, const volatile sig_atomic_t *stop,
                struct client **ret, struct err *e)
{
    CLEANUP(settings_clear) struct settings s = { 0 };
    CLEANUP(client_free) struct client *c = NULL;
    CLEANUP(key_clear) struct key_pair key = { 0 };
    struct key_pub server;
    int r = settings_find(o, &s, e);
    if (r < 0)
        return r;
    r = key_load_pub(s.server_key, &server, e);
    if (r < 0)
        return r;
    if (server.role != ROLE_COORDINATOR)
        return err_set(e, SF_EREFUSED, "%s: is a key of role '%s', not a coordinator's",
                       s.server_key, role_name(server.role));
    r = key_load(s.key, &key, e);
    if (r < 0)
        return r;
    c = calloc(1, sizeof(*c));
    if (!c)
        return err_sys(e, ENOMEM, "client");
    c->stop = stop;
    c->ep = TAKE(s.connect);
    c->connect_ms = connect_ms ? connect_ms : CLIENT_CONNECT_MS;
    r = link_client(c->ep, &key, server.z85, &c->link, e);
    if (r < 0)
        return r;
    r = wait_ready(c, clock_mono_ms() + c->connect_ms, e);
    if (r < 0)
        return r;
    *ret = TAKE(c);
    return 0;
}

void client_free(struct client **cp)
{
    struct client *c = *cp;
    if (!c)
        return;
    *cp = NULL;
    xfers_free(&c->xfers);
    bulk_free(&c->bulk);
    link_free(&c->link, 200);
    free(c->ep);
    free(c);
}

const char *client_refusal(const struct client *c)
{
    return c->refusal;
}

int client_call(struct client *c, struct msg *q, unsigned timeout_ms, struct msg *ret,
                struct err *e)
{
    uint64_t end = clock_mono_ms() + (timeout_ms ? timeout_ms : CLIENT_CALL_MS);
    uint64_t *req = wire_req(q);
    bool asked = false;
    if (!req)
        return err_set(e, EINVAL, "message '%s': is no question", msg_name(q->type));
    *req = ++c->last_req;
    c->refusal[0] = 0;
    for (;;) {
        uint64_t now = clock_mono_ms();
        bool up = false;
        int r;
        if (now >= end)
            return c->ready ? err_set(e, ETIMEDOUT, "%s: no answer to '%s' in time", c->ep,
                                      msg_name(q->type))
                            : err_set(e, SF_ENOFLEET, "%s: the coordinator went away", c->ep);
        if (c->ready && !asked) {
            r = link_send(c->link, 1, q, e);
            if (r < 0 && r != -EAGAIN && r != -EHOSTUNREACH)
                return r;
            asked = r >= 0;
        }
        r = client_work(c, asked || !c->ready ? (int64_t)(end - now) : 10, *req, ret, &up, e);
        if (r)
            return r < 0 ? r : 0;
        if (up)
            asked = false;
    }
}

static int unexpected(const struct client *c, struct msg *m, struct err *e)
{
    int r = err_set(e, SF_EREFUSED, "%s: unexpected answer '%s'", c->ep, msg_name(m->type));
    msg_clear(m);
    return r;
}

int client_ask(struct client *c, const char *what, const json_t *args,
               int (*part)(void *ctx, json_t *body, struct err *e), void *ctx, struct err *e)
{
    CLEANUP(freep) char *text = args ? json_dumps(args, JSON_COMPACT) : strdup("{}");
    char cursor[257] = "";
    if (!text)
        return err_sys(e, ENOMEM, "ask '%s'", what);
    do {
        CLEANUP(msg_clear) struct msg a = { 0 };
        struct msg q = { .type = M_ASK,
                         .ask = { .what = what,
                                  .args = (const uint8_t *)text,
                                  .args_len = strlen(text),
                                  .cursor = cursor } };
        int r = client_call(c, &q, 0, &a, e);
        if (r < 0)
            return r;
        if (a.type != M_PART)
            return unexpected(c, &a, e);
        json_error_t je;
        json_t *body = json_loadb((const char *)a.part.body, a.part.body_len,
                                  JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
        if (!body)
            return err_set(e, SF_EFORMAT, "%s: answer to '%s': %s", c->ep, what, je.text);
        r = part(ctx, body, e);
        json_decref(body);
        if (r < 0)
            return r;
        /* an unchanged cursor would ask for ever */
        if (a.part.cursor_len && !strcmp(cursor, a.part.cursor))
            return err_set(e, SF_EFORMAT, "%s: answer to '%s': does not go on", c->ep, what);
        snprintf(cursor, sizeof(cursor), "%s", a.part.cursor_len ? a.part.cursor : "");
    } while (cursor[0]);
    return 0;
}

static int keep_one(void *ctx, json_t *body, struct err *e)
{
    json_t **to = ctx;
    if (*to)
        return err_set(e, SF_EFORMAT, "answer: came in more than one part");
    *to = json_incref(body);
    return 0;
}

int client_ask_one(struct client *c, const char *what, const json_t *args, json_t **ret,
                   struct err *e)
{
    json_t *doc = NULL;
    int r = client_ask(c, what, args, keep_one, &doc, e);
    if (r < 0) {
        json_decref(doc);
        return r;
    }
    *ret = doc;
    return 0;
}

int client_control(struct client *c, const char *verb, const char *target, char *ret_text,
                   struct err *e)
{
    return client_control_with(c, verb, target, "", 0, ret_text, e);
}

int client_control_with(struct client *c, const char *verb, const char *target, const char *text,
                        uint64_t value, char *ret_text, struct err *e)
{
    CLEANUP(msg_clear) struct msg a = { 0 };
    struct msg q = { .type = M_CONTROL,
                     .control = { .verb = verb, .target = target, .text = text, .value = value } };
    if (!*target || strlen(target) > 128)
        return err_set(e, SF_EUSAGE, "'%.140s': is no id and no name", target);
    int r = client_call(c, &q, 0, &a, e);
    if (r < 0)
        return r;
    if (a.type != M_OK)
        return unexpected(c, &a, e);
    if (ret_text)
        snprintf(ret_text, 1001, "%s", a.ok.text);
    return 0;
}

/* m: submit or submit_job, but for its request id. */
static int submit(struct client *c, const char *request_id, struct msg *q, const char **id,
                  struct msg_submitted *ret, struct err *e)
{
    CLEANUP(msg_clear) struct msg a = { 0 };
    char random[2 * 16 + 1];
    /* A question may be asked twice when a connection breaks; without a name of its own it would be two sweeps. */
    if (!request_id || !*request_id) {
        uint8_t raw[16];
        random_bytes(raw, sizeof(raw));
        for (size_t i = 0; i < sizeof(raw); i++)
            snprintf(random + 2 * i, 3, "%02x", raw[i]);
        request_id = random;
    }
    if (strlen(request_id) > 128)
        return err_set(e, SF_EUSAGE, "--request-id: longer than 128 bytes");
    *id = request_id;
    int r = client_call(c, q, 0, &a, e);
    if (r < 0)
        return r;
    if (a.type != M_SUBMITTED)
        return unexpected(c, &a, e);
    *ret = a.submitted;
    return 0;
}

int client_submit(struct client *c, const char *request_id, const void *sweep, size_t n,
                  struct msg_submitted *ret, struct err *e)
{
    struct msg q = { .type = M_SUBMIT, .submit = { .sweep = sweep, .sweep_len = n } };
    return submit(c, request_id, &q, &q.submit.request_id, ret, e);
}

int client_submit_job(struct client *c, const char *request_id, const void *job, size_t n,
                      struct msg_submitted *ret, struct err *e)
{
    struct msg q = { .type = M_SUBMIT_JOB, .submit_job = { .job = job, .job_len = n } };
    return submit(c, request_id, &q, &q.submit_job.request_id, ret, e);
}
