#include "proto/client/client.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
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

enum {
    SLICE_MS = 100,
    XFER_STALL_MS = 120000,
    HASHERS = 4,        /* threads that hash a file, at most; */
    HASHER_CHUNKS = 32, /* one for so many chunks */
};

struct client {
    struct link *link;
    struct xfers *xfers; /* while a file moves */
    struct bulk *bulk;   /* made with the first file; NULL = none */
    uint64_t features;   /* of the coordinator, as of its last welcome */
    uint64_t heard_ms;   /* when it last said something about the file that moves */
    const volatile sig_atomic_t *stop;
    char *ep;
    uint64_t last_req, hello_req;
    bool ready; /* the hello of this connection is answered */
    char refusal[65];
    unsigned connect_ms;
};

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

static int stopped(const struct client *c, struct err *e)
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

static int xfer_send_cb(void *ctx, uint64_t peer, const struct msg *m)
{
    struct client *c = ctx;
    return c->ready ? link_send(c->link, peer, m, NULL) : -EHOSTUNREACH;
}

/* Work for at most wait_ms or until something happens. want: the req whose answer goes to *ret (then 1 is returned),
 * 0 = none. Sets *ret_up when a hello was answered, after which questions must be asked again. */
static int work(struct client *c, int64_t wait_ms, uint64_t want, struct msg *ret, bool *ret_up,
                struct err *e)
{
    int r = stopped(c, e);
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
        int r = work(c, (int64_t)(end_ms - now), 0, NULL, &up, e);
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
        r = work(c, asked || !c->ready ? (int64_t)(end - now) : 10, *req, ret, &up, e);
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

/* ---- files */

/* One file that is sent or received, as a store. */
struct one_file {
    struct client *c;
    const char *path;
    int fd;
    struct id id, *hashes;
    size_t n;
    uint64_t size;
    struct file_new out;
    uint8_t *have;
    bool force, done;
    int code;
    char text[200];
    uint64_t moved_ms;
    void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b);
    void *ctx;
};

static size_t chunk_len(uint64_t size, uint64_t index)
{
    uint64_t off = index * CID_CHUNK;
    return size - off < CID_CHUNK ? (size_t)(size - off) : CID_CHUNK;
}

static void one_clear(struct one_file *f)
{
    closep(&f->fd);
    file_abort(&f->out);
    free(f->hashes);
    free(f->have);
}

static int one_hashes(void *ctx, const struct id *id, struct id **ret, size_t *ret_n,
                      uint64_t *ret_size, struct err *e)
{
    struct one_file *f = ctx;
    if (f->fd < 0 || !id_eq(id, &f->id))
        return err_set(e, ENOENT, "%s: not here", f->path);
    *ret = malloc(f->n ? f->n * ID_LEN : 1);
    if (!*ret)
        return err_sys(e, ENOMEM, "%s", f->path);
    if (f->n)
        memcpy(*ret, f->hashes, f->n * ID_LEN);
    *ret_n = f->n;
    *ret_size = f->size;
    return 0;
}

static ssize_t one_read(void *ctx, const struct id *id, uint64_t index, void *p, size_t room,
                        struct err *e)
{
    struct one_file *f = ctx;
    if (!id_eq(id, &f->id) || index >= f->n || chunk_len(f->size, index) > room)
        return err_set(e, EINVAL, "%s: no chunk %llu", f->path, (unsigned long long)index);
    size_t n = chunk_len(f->size, index);
    ssize_t r = pread_full(f->fd, p, n, (off_t)(index * CID_CHUNK));
    if (r < 0) /* for good: the offer is not made again */
        return err_set(e, SF_EFAILED, "%s", strerror((int)-r));
    if ((size_t)r < n)
        return err_set(e, SF_EFAILED, "became shorter while it was sent");
    return r;
}

static int one_begin(void *ctx, const struct id *id, uint64_t size_b, const struct id hashes[],
                     size_t n, void **ret_put, struct err *e)
{
    struct one_file *f = ctx;
    if (!id_eq(id, &f->id))
        return err_set(e, SF_EREFUSED, "%s: another artefact", f->path);
    f->hashes = malloc(n ? n * ID_LEN : 1);
    f->have = calloc(1, n / 8 + 1);
    if (!f->hashes || !f->have)
        return err_sys(e, ENOMEM, "%s", f->path);
    if (n)
        memcpy(f->hashes, hashes, n * ID_LEN);
    f->n = n;
    f->size = size_b;
    int r = file_begin(&f->out, f->path, 0644, f->force, e);
    if (r < 0)
        return r;
    r = size_b ? -posix_fallocate(f->out.fd, 0, (off_t)size_b) : 0;
    if (r < 0)
        return err_sys(e, -r, "%s: cannot reserve %llu bytes", f->path, (unsigned long long)size_b);
    *ret_put = f;
    return 0;
}

static bool one_has(void *put, uint64_t index)
{
    const struct one_file *f = put;
    return f->have[index / 8] >> (index % 8) & 1;
}

static int one_put(void *put, uint64_t index, const void *p, size_t n, struct err *e)
{
    struct one_file *f = put;
    if (index >= f->n || n != chunk_len(f->size, index))
        return err_set(e, SF_EINTEGRITY, "chunk %llu: wrong length", (unsigned long long)index);
    int r = pwrite_all(f->out.fd, p, n, (off_t)(index * CID_CHUNK));
    return r < 0 ? err_sys(e, -r, "%s", f->path) : 0;
}

static int one_verify(void *put, uint64_t index, const struct id *is, size_t n, struct err *e)
{
    struct one_file *f = put;
    (void)n;
    if (!id_eq(is, &f->hashes[index]))
        return err_set(e, SF_EINTEGRITY, "chunk %llu: damaged", (unsigned long long)index);
    f->have[index / 8] |= (uint8_t)(1u << (index % 8));
    return 0;
}

static int one_write(void *put, uint64_t index, const void *p, size_t n, struct err *e)
{
    struct id is;
    int r = one_put(put, index, p, n, e);
    if (r < 0)
        return r;
    hash_bytes(p, n, &is);
    return one_verify(put, index, &is, n, e);
}

static int one_open(void *ctx, const struct id *id, uint64_t *ret_size, struct err *e)
{
    struct one_file *f = ctx;
    if (f->fd < 0 || !id_eq(id, &f->id))
        return err_set(e, ENOENT, "%s: not here", f->path);
    int fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
    *ret_size = f->size;
    return fd < 0 ? err_sys(e, errno, "%s", f->path) : fd;
}

static int one_sync(void *put, struct err *e)
{
    struct one_file *f = put;
    return fsync(f->out.fd) < 0 ? err_sys(e, errno, "%s", f->path) : 0;
}

static int one_commit(void *put, struct err *e)
{
    struct one_file *f = put;
    return file_commit(&f->out, e);
}

static void one_close(void *put)
{
    struct one_file *f = put;
    file_abort(&f->out);
}

/* The callbacks of xfers know one context: this. */
struct move {
    struct client *c;
    struct one_file *f;
};

static int move_send(void *ctx, uint64_t peer, const struct msg *m)
{
    struct move *v = ctx;
    return xfer_send_cb(v->c, peer, m);
}

static int move_ended(void *ctx, const struct xfers_end *end, struct err *e)
{
    struct move *v = ctx;
    (void)e;
    v->f->done = true;
    v->f->code = end->code;
    snprintf(v->f->text, sizeof(v->f->text), "%s", end->text);
    return 0;
}

static uint64_t move_features(void *ctx, uint64_t peer)
{
    (void)peer;
    return ((struct move *)ctx)->c->features;
}

static void move_moved(void *ctx, enum xfers_dir dir, const struct id *id, uint64_t done_b,
                       uint64_t size_b)
{
    struct move *v = ctx;
    (void)dir;
    (void)id;
    v->f->moved_ms = clock_mono_ms();
    if (v->f->moved)
        v->f->moved(v->f->ctx, done_b, size_b);
}

static int move_refused(void *ctx, uint64_t peer, const struct msg_put_offer *o, bool here,
                        struct err *e)
{
    (void)ctx;
    (void)peer;
    (void)o;
    (void)here;
    return err_set(e, SF_EREFUSED, "nothing is taken here");
}

/* Large files go beside the link. Without it they go over the link. */
static void set_bulk(struct client *c)
{
    const char *host = strncmp(c->ep, "tcp://", 6) ? NULL : c->ep + 6;
    const char *colon = host ? strrchr(host, ':') : NULL;
    char at[256];
    if (!colon || (size_t)(colon - host) >= sizeof(at) || !(c->features & WIRE_BULK) ||
        (!c->bulk && bulk_new(&(struct bulk_conf){ 0 }, &c->bulk, NULL) < 0))
        return;
    snprintf(at, sizeof(at), "%.*s", (int)(colon - host), host);
    if (xfers_set_bulk(c->xfers, &(struct xfers_bulk){ .bulk = c->bulk, .host = at }) < 0)
        bulk_free(&c->bulk);
}

/* Offer (put) or fetch f and work until it ended. to: where a fetched one goes, NULL = f->path. */
static int move(struct client *c, struct one_file *f, const struct xfer_store *to, const char *kind,
                const char *name, struct err *e)
{
    struct xfer_store store = { .ctx = f,
                                .hashes = one_hashes,
                                .read = one_read,
                                .begin = kind ? NULL : one_begin,
                                .put_has = one_has,
                                .write = one_write,
                                .commit = one_commit,
                                .close = one_close,
                                .open = one_open,
                                .put_write = one_put,
                                .put_verify = one_verify,
                                .put_sync = one_sync };
    struct move v = { c, f };
    struct xfers_ops ops = { .ctx = &v,
                             .send = move_send,
                             .offered = move_refused,
                             .ended = move_ended,
                             .features = move_features,
                             .moved = move_moved };
    bool up;
    int r;
    c->xfers = xfers_new(to ? to : &store, &ops, CAS_SIZE_MAX);
    if (!c->xfers)
        return err_sys(e, ENOMEM, "%s", f->path);
    c->refusal[0] = 0;
    set_bulk(c);
    f->moved_ms = clock_mono_ms();
    uint64_t req = ++c->last_req, now = f->moved_ms;
    r = kind ? xfers_offer(c->xfers, 1, req, &f->id, kind, name, now, e)
             : xfers_fetch(c->xfers, 1, req, &f->id, now, e);
    while (r >= 0 && !f->done) {
        now = clock_mono_ms();
        /* one that waits for its turn hears of it */
        if (now - (f->moved_ms > c->heard_ms ? f->moved_ms : c->heard_ms) > XFER_STALL_MS)
            r = c->ready ? err_set(e, ETIMEDOUT, "%s: nothing moved for %d s", f->path,
                                   XFER_STALL_MS / 1000)
                         : err_set(e, SF_ENOFLEET, "%s: the coordinator went away", c->ep);
        else
            r = work(c, SLICE_MS, req, NULL, &up, e);
    }
    xfers_free(&c->xfers);
    if (r < 0)
        return r;
    return f->code ? err_set(e, f->code, "%s: %s", f->path, f->text) : 0;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Somebody wrote to f since st. */
static bool changed(const struct one_file *f, const struct stat *st)
{
    struct stat now;
    return fstat(f->fd, &now) == 0 &&
           (now.st_size != st->st_size || !same_time(&now.st_mtim, &st->st_mtim));
}

/* The chunk hashes of f, by several threads: the first byte leaves when the last one is hashed. */
struct hashing {
    struct one_file *f;
    _Atomic uint64_t next; /* chunk */
    atomic_int r;          /* the first -errno; 1 = it became shorter */
};

static void *hash_some(void *arg)
{
    struct hashing *h = arg;
    struct one_file *f = h->f;
    CLEANUP(freep)
    uint8_t *block = malloc((f->n < HASH_LANES ? f->n : HASH_LANES) * (size_t)CID_CHUNK);
    int r = block ? 0 : -ENOMEM;
    while (r == 0 && atomic_load(&h->r) == 0) {
        uint64_t i = atomic_fetch_add(&h->next, HASH_LANES);
        if (i >= f->n)
            break;
        size_t n = f->n - i < HASH_LANES ? (size_t)(f->n - i) : HASH_LANES;
        ssize_t got = hash_chunks(f->fd, f->size, i, n, block, f->hashes + i);
        r = got < 0 ? (int)got : (size_t)got < n ? 1 : f->c->stop && *f->c->stop ? -ECANCELED : 0;
    }
    int none = 0;
    if (r)
        atomic_compare_exchange_strong(&h->r, &none, r);
    return NULL;
}

static int hash_file(struct one_file *f, struct err *e)
{
    struct hashing h = { .f = f };
    pthread_t t[HASHERS - 1];
    size_t n = 0;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    while (n < HASHERS - 1 && (long)n + 1 < cores && (n + 1) * HASHER_CHUNKS < f->n &&
           pthread_create(&t[n], NULL, hash_some, &h) == 0)
        n++;
    if (f->n)
        hash_some(&h);
    while (n)
        pthread_join(t[--n], NULL);
    int r = atomic_load(&h.r);
    if (r == 1)
        return err_set(e, SF_EFAILED, "%s: became shorter while it was read", f->path);
    return r < 0 ? r == -ECANCELED ? stopped(f->c, e) : err_sys(e, -r, "%s", f->path) : 0;
}

int client_put(struct client *c, const char *path, const char *kind, const char *name,
               struct id *ret_id, uint64_t *ret_size,
               void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx, struct err *e)
{
    CLEANUP(one_clear)
    struct one_file f = {
        .c = c, .path = path, .fd = -1, .out.fd = -1, .moved = moved, .ctx = ctx
    };
    struct stat st;
    f.fd = file_open_regular(path, &st, e);
    if (f.fd < 0)
        return f.fd;
    f.size = (uint64_t)st.st_size;
    if (f.size > CAS_SIZE_MAX)
        return err_set(e, EFBIG, "%s: too long", path);
    f.n = f.size / CID_CHUNK + (f.size % CID_CHUNK != 0);
    f.hashes = malloc(f.n ? f.n * ID_LEN : 1);
    if (!f.hashes)
        return err_sys(e, ENOMEM, "%s", path);
    int r = hash_file(&f, e);
    if (r < 0)
        return r;
    cid_of_chunks(f.size, f.hashes, f.n, &f.id);
    r = move(c, &f, NULL, kind, name, e);
    /* what came was not what had been hashed: nobody's damage */
    if ((r == -SF_EINTEGRITY || r == -SF_EFAILED) && changed(&f, &st))
        return err_set(e, SF_EFAILED, "%s: changed while it was sent", path);
    if (r < 0)
        return r;
    *ret_id = f.id;
    if (ret_size)
        *ret_size = f.size;
    return 0;
}

int client_get(struct client *c, const struct id *id, const char *path, bool force,
               void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx, struct err *e)
{
    CLEANUP(one_clear)
    struct one_file f = { .c = c,
                          .path = path,
                          .fd = -1,
                          .id = *id,
                          .out.fd = -1,
                          .force = force,
                          .moved = moved,
                          .ctx = ctx };
    if (!force && access(path, F_OK) == 0)
        return err_sys(e, EEXIST, "%s", path);
    return move(c, &f, NULL, NULL, NULL, e);
}

int client_fetch(struct client *c, const struct id *id, const struct xfer_store *to,
                 void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx,
                 struct err *e)
{
    char hex[ID_HEX_LEN], name[40];
    id_hex(id, hex);
    snprintf(name, sizeof(name), "artefact %.16s", hex);
    struct one_file f = {
        .c = c, .path = name, .fd = -1, .id = *id, .out.fd = -1, .moved = moved, .ctx = ctx
    };
    return move(c, &f, to, NULL, NULL, e);
}
