/* The DEALER of an agent or a command: a fresh socket for each connection. */
#include "proto/link/link_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"

static void client_down(struct link *l, uint64_t wait_ms)
{
    link_close_pair(&l->sock, &l->mon);
    l->state = DOWN;
    l->retry_ms = clock_mono_ms() + wait_ms / 2 + rng_below(&l->rng, wait_ms / 2 + 1);
}

static uint64_t client_backoff(struct link *l)
{
    uint64_t ms = RETRY_MIN_MS << (l->tries < 6 ? l->tries : 6);
    l->tries++;
    return ms > RETRY_MAX_MS ? RETRY_MAX_MS : ms;
}

static void client_connect(struct link *l)
{
    l->since_ms = clock_mono_ms();
    l->version = wire_version();
    l->sock = zmq_socket(l->ctx, ZMQ_DEALER);
    if (l->sock && link_options(l->sock, LINK_QUEUE) == 0 &&
        link_set_int(l->sock, ZMQ_RECONNECT_IVL, -1) == 0 &&
        link_set_int(l->sock, ZMQ_CONNECT_TIMEOUT, CONNECT_MS) == 0 &&
        link_set_int(l->sock, ZMQ_IPV6, l->ep[6] == '[') == 0 &&
        zmq_setsockopt(l->sock, ZMQ_CURVE_SERVERKEY, l->server_key, KEY_Z85_LEN) == 0 &&
        zmq_setsockopt(l->sock, ZMQ_CURVE_PUBLICKEY, l->key.pub.z85, KEY_Z85_LEN) == 0 &&
        zmq_setsockopt(l->sock, ZMQ_CURVE_SECRETKEY, l->key.secret, KEY_Z85_LEN) == 0 &&
        link_monitor(l, l->sock,
                     ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED |
                         ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                         ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH,
                     &l->mon) == 0 &&
        zmq_connect(l->sock, l->ep) == 0) {
        l->state = CONNECTING;
        l->stats.connects++;
        return;
    }
    /* out of descriptors or memory: later, perhaps */
    snprintf(l->text, sizeof(l->text), "cannot connect: %s", zmq_strerror(errno));
    client_down(l, RETRY_MAX_MS);
}

/* Said once until the link was up again. */
static void client_refused(struct link *l)
{
    if (!l->refused_told)
        l->say_refused = true;
    l->refused_told = true;
    l->stats.refused_keys++;
}

static void client_monitor(struct link *l)
{
    int event;
    uint64_t value;
    while (l->mon && link_monitor_read(l->mon, &event, &value)) {
        switch (event) {
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
            l->state = UP;
            l->tries = l->no_detail = 0;
            l->refused_told = false;
            l->say_up = true;
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
            snprintf(l->text, sizeof(l->text),
                     "%.120s: the coordinator does not allow the key '%s' (%s)", l->ep,
                     l->key.pub.name, role_name(l->key.pub.role));
            client_refused(l);
            client_down(l, RETRY_REFUSED_MS);
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
            snprintf(l->text, sizeof(l->text),
                     "%.120s: handshake failed, this is not a siofleet coordinator with this key",
                     l->ep);
            client_refused(l);
            client_down(l, RETRY_REFUSED_MS);
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            /* A server that cannot open our first box just closes; so does one that is stopped in that
             * moment. */
            if (++l->no_detail >= NO_DETAIL_MAX) {
                snprintf(
                    l->text, sizeof(l->text),
                    "%.120s: closes the connection in the handshake, the server key is not its own",
                    l->ep);
                client_refused(l);
            }
            client_down(l, l->no_detail >= NO_DETAIL_MAX ? RETRY_REFUSED_MS : RETRY_MIN_MS);
            break;
        case ZMQ_EVENT_DISCONNECTED:
        case ZMQ_EVENT_CLOSED:
        case ZMQ_EVENT_CONNECT_RETRIED:
            if (l->state == UP) {
                l->state = CLOSING; /* what came before is read first */
                l->stats.gone++;
            } else if (l->state == CONNECTING) {
                client_down(l, client_backoff(l));
            }
            break;
        default:
            break;
        }
    }
}

int link_client(const char *ep, const struct key_pair *key, const char *server_key,
                struct link **ret, struct err *e)
{
    struct link *l = NULL;
    int r = link_check_ep(ep, false, e);
    if (r < 0)
        return r;
    if (strlen(server_key) != KEY_Z85_LEN - 1)
        return err_set(e, SF_EUSAGE, "server key: is not 40 characters of Z85");
    l = calloc(1, sizeof(*l));
    if (!l)
        return err_sys(e, ENOMEM, "link");
    buf_init(&l->out, FRAME_MAX + 4096);
    l->gone_tail = &l->gone;
    l->key = *key;
    memcpy(l->server_key, server_key, KEY_Z85_LEN);
    random_bytes(&l->rng, sizeof(l->rng));
    l->ep = strdup(ep);
    l->ctx = l->ep ? zmq_ctx_new() : NULL;
    if (!l->ctx) {
        r = err_sys(e, ENOMEM, "link");
        link_free(&l, 0);
        return r;
    }
    client_connect(l);
    *ret = l;
    return 0;
}
static void coordinator_peer(const struct link *l, struct peer *p)
{
    p->id = 1;
    p->role = ROLE_COORDINATOR;
    snprintf(p->name, sizeof(p->name), "coordinator");
    memcpy(p->key, l->server_key, sizeof(p->key));
    snprintf(p->addr, sizeof(p->addr), "%.63s", l->ep);
}

/* One message off the DEALER, as recv_server(). */
static int recv_client(struct link *l, struct link_event *ev, struct err *e)
{
    zmq_msg_t m;
    struct err why = { 0 };
    char kept[64];
    zmq_msg_init(&m);
    if (!l->sock || zmq_msg_recv(&m, l->sock, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&m);
        return -EAGAIN;
    }
    int r;
    if (zmq_msg_more(&m)) {
        for (int more = 1; more;) {
            zmq_msg_close(&m);
            zmq_msg_init(&m);
            more = zmq_msg_recv(&m, l->sock, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&m);
        }
        r = err_set(&why, SF_EFORMAT, "frame: more than one part");
    } else {
        r = msg_decode(zmq_msg_data(&m), zmq_msg_size(&m), &ev->msg, &why);
    }
    zmq_msg_close(&m);
    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "%s", why.text);
    if (r >= 0 && !(msg_roles(ev->msg.type) & ROLE_COORDINATOR)) {
        r = err_set(&why, SF_EFORMAT, "message '%s': a coordinator may not send it",
                    msg_name(ev->msg.type));
        msg_clear(&ev->msg);
    }
    unsigned own = wire_version(), theirs = ev->msg.version;
    if (r >= 0 && theirs < own && ev->msg.type == M_REFUSE &&
        !strcmp(ev->msg.refuse.code, "PROTOCOL")) {
        msg_clear(&ev->msg);
        if (l->version != theirs) { /* begin anew, in its words */
            log_info("link: coordinator at %s speaks protocol %u, this program %u; it is spoken, "
                     "siofleet can be upgraded there",
                     l->ep, theirs, own);
            l->version = theirs;
            l->say_up = true;
        }
        return 0;
    }
    if (r == -SF_EREFUSED)
        err_set(&why, SF_EREFUSED,
                "protocol %u, the coordinator's is %u: upgrade siofleet of the %s", own, theirs,
                theirs > own ? role_name(l->key.pub.role) : "coordinator");
    if (r < 0) {
        l->stats.refused_msgs++;
        if (r != -SF_EREFUSED && link_limit(&l->lines, LINES_S, clock_mono_ms()))
            log_warn("link: coordinator at %s: %s, message ignored%s", l->ep, why.text,
                     link_kept(&l->lines, kept));
        if (r == -SF_EREFUSED) { /* said by who uses the link */
            snprintf(l->text, sizeof(l->text), "%.60s: %.180s", l->ep, why.text);
            client_refused(l);
        }
        return 0;
    }
    ev->kind = LINK_MSG;
    coordinator_peer(l, &ev->peer);
    l->stats.received++;
    return 1;
}

void client_service(struct link *l)
{
    uint64_t now = clock_mono_ms();
    client_monitor(l);
    if (l->state == CONNECTING && now - l->since_ms > CONNECT_MS + 2000)
        client_down(l, client_backoff(l));
    if (l->state == DOWN && now >= l->retry_ms)
        client_connect(l);
}

uint64_t client_wake_ms(const struct link *l)
{
    return l->state == DOWN         ? l->retry_ms
           : l->state == CONNECTING ? l->since_ms + CONNECT_MS + 2001
                                    : UINT64_MAX;
}

static int client_says(struct link *l, struct link_event *ev)
{
    ev->kind = l->say_up ? LINK_UP : LINK_REFUSED;
    if (l->say_up)
        l->say_up = false;
    else
        l->say_refused = false;
    if (ev->kind == LINK_REFUSED)
        snprintf(ev->text, sizeof(ev->text), "%s", l->text);
    coordinator_peer(l, &ev->peer);
    return 1;
}

int client_recv(struct link *l, struct link_event *ev, struct err *e)
{
    for (int i = 0; i < RECV_BUDGET; i++) {
        if (l->say_up || l->say_refused)
            return client_says(l, ev);
        int r = recv_client(l, ev, e);
        if (r == 0)
            continue;
        if (r != -EAGAIN)
            return r;
        if (l->state != CLOSING)
            return 0;
        ev->kind = LINK_GONE;
        coordinator_peer(l, &ev->peer);
        snprintf(ev->text, sizeof(ev->text), "connection closed");
        client_down(l, client_backoff(l));
        return 1;
    }
    return 0;
}
