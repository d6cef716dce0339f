#include "deploy/ssh.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libssh2.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deploy/known.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"

enum { OUT_MAX = 1 << 20, BLOCK = 32768, FLUSH_MS = 5000 };

struct ssh {
    char *name;
    int fd;
    LIBSSH2_SESSION *session;
    uint64_t sent_b, stall_ms;
};

/* sshd drops connections at random once ten of them are not logged in yet (MaxStartups 10:30:100), and many addresses may
 * be one sshd: no more than so many are begun at once. A host that says nothing gives its turn back after a while. */
enum { STARTUPS = 8, STARTUP_MS = 3000 };
static struct {
    pthread_mutex_t lock;
    uint64_t since_ms[STARTUPS]; /* 0 = free */
} gate = { .lock = PTHREAD_MUTEX_INITIALIZER };

static uint64_t *gate_enter(uint64_t deadline, uint64_t *ret_since)
{
    for (;;) {
        uint64_t now = clock_mono_ms(), *found = NULL;
        pthread_mutex_lock(&gate.lock);
        for (int i = 0; i < STARTUPS && !found; i++)
            if (gate.since_ms[i] + STARTUP_MS <= now || !gate.since_ms[i])
                found = &gate.since_ms[i];
        if (found)
            *found = *ret_since = now;
        pthread_mutex_unlock(&gate.lock);
        if (found || now >= deadline)
            return found;
        usleep(10000);
    }
}

static void gate_leave(uint64_t *slot, uint64_t since)
{
    pthread_mutex_lock(&gate.lock);
    if (slot && *slot == since)
        *slot = 0;
    pthread_mutex_unlock(&gate.lock);
}

int ssh_init(struct err *e)
{
    return libssh2_init(0) ? err_set(e, ENOMEM, "ssh: cannot start libssh2") : 0;
}

void ssh_free(struct ssh **sp)
{
    struct ssh *s = *sp;
    *sp = NULL;
    if (!s)
        return;
    if (s->session) {
        libssh2_session_set_timeout(s->session, 2000);
        libssh2_session_disconnect(s->session, "done");
        libssh2_session_free(s->session);
    }
    if (s->fd >= 0)
        close(s->fd);
    free(s->name);
    free(s);
}

static const char *why(struct ssh *s)
{
    char *text = NULL;
    libssh2_session_last_error(s->session, &text, NULL, 0);
    return text && *text ? text : "no reason given";
}

/* ---- reach */

static int connect_until(const struct addrinfo *ai, uint64_t deadline, int *ret_fd)
{
    CLEANUP(closep) int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 && errno != EINPROGRESS)
        return -errno;
    for (;;) {
        uint64_t now = clock_mono_ms();
        if (now >= deadline)
            return -ETIMEDOUT;
        struct pollfd p = { .fd = fd, .events = POLLOUT };
        int n = poll(&p, 1, (int)(deadline - now));
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            break;
    }
    int cause = 0;
    socklen_t len = sizeof(cause);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &cause, &len) < 0)
        return -errno;
    if (cause)
        return -cause;
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0)
        return -errno;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    *ret_fd = take_fd(&fd);
    return 0;
}

static int reach(const struct ssh_target *t, uint64_t deadline, int *ret_fd, struct err *e)
{
    char port[8];
    snprintf(port, sizeof(port), "%u", (unsigned)t->port);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    int r = getaddrinfo(t->address, port, &hints, &list);
    if (r)
        return err_set(e, EHOSTUNREACH, "%s: address '%s' is not known: %s", t->name, t->address,
                       gai_strerror(r));
    r = -EHOSTUNREACH;
    for (struct addrinfo *ai = list; ai && r < 0; ai = ai->ai_next)
        r = connect_until(ai, deadline, ret_fd);
    freeaddrinfo(list);
    if (r < 0)
        return err_set(e, -r, "%s: cannot reach %s port %s: %s", t->name, t->address, port,
                       r == -ETIMEDOUT ? "no answer in time" : strerror(-r));
    return 0;
}

/* ---- host key */

static void fingerprint(struct ssh *s, char out[64])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *h =
        (const unsigned char *)libssh2_hostkey_hash(s->session, LIBSSH2_HOSTKEY_HASH_SHA256);
    char *o = out + sprintf(out, "SHA256:");
    for (int i = 0; h && i < 32; i += 3) {
        unsigned v = (unsigned)h[i] << 16 | (i + 1 < 32 ? (unsigned)h[i + 1] << 8 : 0) |
                     (i + 2 < 32 ? h[i + 2] : 0);
        *o++ = digits[v >> 18];
        *o++ = digits[v >> 12 & 63];
        *o++ = digits[v >> 6 & 63];
        if (i + 2 < 32)
            *o++ = digits[v & 63];
    }
    *o = '\0';
}

/* What a collection of known_hosts' lines says of the host's key. */
static int match_key(LIBSSH2_KNOWNHOSTS *kh, const struct ssh_target *t, const char *key,
                     size_t key_n)
{
    return libssh2_knownhost_checkp(kh, t->address, (int)t->port, key, key_n,
                                    LIBSSH2_KNOWNHOST_TYPE_PLAIN | LIBSSH2_KNOWNHOST_KEYENC_RAW,
                                    NULL);
}

/* The lines that may name this host, each kind in a collection of its own. What libssh2 would misread is written for it as a
 * plain line of the host. */
enum { SAME_KIND, OTHER_KIND, REVOKED, COLLECTIONS };

static int collect_lines(char *text, const struct ssh_target *t, const char *key, size_t key_n,
                         LIBSSH2_KNOWNHOSTS *const kh[], bool *ret_authority)
{
    char *save = NULL;
    for (char *line = strtok_r(text, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save)) {
        struct known_line k;
        if (!known_parse(line, &k) || (!known_hashed(&k) && !known_names(&k, t->address, t->port)))
            continue;
        if (k.mark == KNOWN_AUTHORITY) {
            *ret_authority = true;
            continue;
        }
        CLEANUP(freep)
        char *plain = known_hashed(&k) ? strdup(k.hosts) : path_fmt("%s %s", t->address, k.key);
        if (!plain)
            return -ENOMEM;
        libssh2_knownhost_readline(kh[k.mark == KNOWN_REVOKED           ? REVOKED
                                      : known_same_kind(&k, key, key_n) ? SAME_KIND
                                                                        : OTHER_KIND],
                                   plain, strlen(plain), LIBSSH2_KNOWNHOST_FILE_OPENSSH);
    }
    return 0;
}

static int judge_key(struct ssh *s, const struct ssh_target *t, char *text, const char *path,
                     LIBSSH2_KNOWNHOSTS *const kh[], struct err *e)
{
    char print[64];
    fingerprint(s, print);
    size_t key_n;
    int type;
    const char *key = libssh2_session_hostkey(s->session, &key_n, &type);
    if (!key)
        return err_set(e, SF_EREFUSED, "%s: shows no host key", t->name);
    bool authority = false;
    if (text && collect_lines(text, t, key, key_n, kh, &authority) < 0)
        return err_sys(e, ENOMEM, "%s", t->name);
    if (match_key(kh[REVOKED], t, key, key_n) == LIBSSH2_KNOWNHOST_CHECK_MATCH)
        return err_set(e, SF_EREFUSED, "%s: its host key is marked @revoked in %s", t->name, path);
    int match = match_key(kh[SAME_KIND], t, key, key_n);
    if (match == LIBSSH2_KNOWNHOST_CHECK_MATCH)
        return 0;
    if (match == LIBSSH2_KNOWNHOST_CHECK_MISMATCH)
        return err_set(e, SF_EREFUSED, "%s: host key %s differs from the one in %s", t->name, print,
                       path);
    bool other = match_key(kh[OTHER_KIND], t, key, key_n) != LIBSSH2_KNOWNHOST_CHECK_NOTFOUND;
    return err_set(e, SF_EREFUSED,
                   "%s: host key %s is not known%s; check it, then: ssh-keyscan -p %u %s >> %s",
                   t->name, print,
                   authority ? " (certificate authorities are not supported)"
                   : other   ? " (only another kind of key is)"
                             : "",
                   (unsigned)t->port, t->address, path);
}

static int check_hostkey(struct ssh *s, const struct ssh_target *t, struct err *e)
{
    if (t->hostkey) {
        char print[64];
        fingerprint(s, print);
        if (!strcmp(t->hostkey, print))
            return 0;
        return err_set(e, SF_EREFUSED, "%s: host key is %s, pinned is %s", t->name, print,
                       t->hostkey);
    }
    CLEANUP(freep)
    char *path = t->known_hosts
                     ? strdup(t->known_hosts)
                     : path_fmt("%s/.ssh/known_hosts", getenv("HOME") ? getenv("HOME") : "");
    CLEANUP(buf_clear) struct buf text = BUF_INIT(16u << 20);
    struct err fe = { 0 };
    if (!path)
        return err_sys(e, ENOMEM, "%s", t->name);
    int r = file_read(path, &text, &fe);
    if (r < 0 && r != -ENOENT)
        return err_set(e, -r, "%s: %s", t->name, fe.text);
    LIBSSH2_KNOWNHOSTS *kh[COLLECTIONS] = { NULL };
    r = 0;
    for (size_t i = 0; i < COLLECTIONS; i++)
        if (!(kh[i] = libssh2_knownhost_init(s->session)))
            r = err_sys(e, ENOMEM, "%s", t->name);
    if (r == 0)
        r = judge_key(s, t, text.len ? (char *)text.data : NULL, path, kh, e);
    for (size_t i = 0; i < COLLECTIONS; i++)
        if (kh[i])
            libssh2_knownhost_free(kh[i]);
    return r;
}

/* ---- login */

static int login_agent(struct ssh *s, const struct ssh_target *t)
{
    LIBSSH2_AGENT *a = libssh2_agent_init(s->session);
    int r = -1;
    if (a && libssh2_agent_connect(a) == 0 && libssh2_agent_list_identities(a) == 0) {
        struct libssh2_agent_publickey *id = NULL, *prev = NULL;
        while (r < 0 && libssh2_agent_get_identity(a, &id, prev) == 0) {
            if (libssh2_agent_userauth(a, t->user, id) == 0)
                r = 0;
            prev = id;
        }
        libssh2_agent_disconnect(a);
    }
    if (a)
        libssh2_agent_free(a);
    return r;
}

/* libssh2 1.10 signs RSA keys with SHA-1 only, which OpenSSH 8.8 and newer refuse. */
static bool is_rsa(const char *path)
{
    CLEANUP(freep) char *pub = path_fmt("%s.pub", path);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(65536);
    if (pub && file_read(pub, &b, NULL) == 0 && b.len)
        return !strncmp((char *)b.data, "ssh-rsa", 7);
    buf_reset(&b);
    return file_read(path, &b, NULL) == 0 && b.len &&
           strstr((char *)b.data, "BEGIN RSA PRIVATE KEY");
}

/* What ssh itself would not use either: a key that others may read, or that is none. */
static int key_file_ok(const char *path, const struct ssh_target *t, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(65536);
    struct err fe = { 0 };
    if (file_read(path, &b, &fe) < 0)
        return err_set(e, SF_EREFUSED, "%s: no key to log in with: %s", t->name, fe.text);
    if (b.len && (!strncmp((char *)b.data, "ssh-", 4) || !strncmp((char *)b.data, "ecdsa-", 6)))
        return err_set(e, SF_EREFUSED, "%s: %s is a public key: name the private one beside it",
                       t->name, path);
    if (b.len)
        explicit_bzero(b.data, b.len);
    struct stat st;
    if (stat(path, &st) == 0 && st.st_uid == getuid() && st.st_mode & 077)
        return err_set(e, SF_EREFUSED, "%s: key %s is open to others (mode %o): chmod 600 it",
                       t->name, path, st.st_mode & 0777);
    return 0;
}

/* Whether a private key is encrypted: OpenSSH's own format names the cipher at its start ("none" in base64), PEM says so.
 */
static bool is_locked(const char *path)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(65536);
    if (file_read(path, &b, NULL) < 0 || !b.len)
        return false;
    const char *text = (const char *)b.data;
    return strstr(text, "BEGIN OPENSSH PRIVATE KEY")
               ? !strstr(text, "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU")
               : strstr(text, "ENCRYPTED") != NULL;
}

/* A connection that broke during the login is no refusal: it may be tried again. */
static int login_broken(struct ssh *s, const struct ssh_target *t, int r, struct err *e)
{
    switch (r) {
    case LIBSSH2_ERROR_TIMEOUT:
        return err_set(e, ETIMEDOUT, "%s: no answer to the login in time", t->name);
    case LIBSSH2_ERROR_SOCKET_DISCONNECT:
    case LIBSSH2_ERROR_SOCKET_SEND:
    case LIBSSH2_ERROR_SOCKET_RECV:
        return err_set(e, ECONNRESET, "%s: connection broke in the login: %s", t->name, why(s));
    default:
        return 0;
    }
}

static int login(struct ssh *s, const struct ssh_target *t, struct err *e)
{
    bool agent = getenv("SSH_AUTH_SOCK") != NULL;
    if (!t->identity && agent && login_agent(s, t) == 0)
        return 0;
    CLEANUP(freep)
    char *path = t->identity ? strdup(t->identity)
                             : path_fmt("%s/.ssh/id_ed25519", getenv("HOME") ? getenv("HOME") : "");
    if (!path)
        return err_sys(e, ENOMEM, "%s", t->name);
    if (access(path, R_OK) < 0)
        return err_set(e, SF_EREFUSED, "%s: no key to log in with: %s: %s%s", t->name, path,
                       strerror(errno),
                       agent && !t->identity ? ", and ssh-agent has none that is let in"
                       : t->identity         ? ""
                                             : ", and there is no ssh-agent");
    int r = key_file_ok(path, t, e);
    if (r < 0)
        return r;
    CLEANUP(freep) char *pub = path_fmt("%s.pub", path);
    if (!pub)
        return err_sys(e, ENOMEM, "%s", t->name);
    r = libssh2_userauth_publickey_fromfile(s->session, t->user,
                                            access(pub, R_OK) == 0 ? pub : NULL, path, NULL);
    /* a key with a passphrase may be in the agent */
    if (r == 0 ||
        (t->identity && agent && r != LIBSSH2_ERROR_SOCKET_DISCONNECT && login_agent(s, t) == 0))
        return 0;
    int broken = login_broken(s, t, r, e);
    if (broken)
        return broken;
    if (is_rsa(path))
        return err_set(e, SF_EREFUSED,
                       "%s: RSA key %s cannot be used (libssh2 1.10 against OpenSSH 8.8 or newer); "
                       "use an ed25519 key: ssh-keygen -t ed25519",
                       t->name, path);
    if (r == LIBSSH2_ERROR_FILE || is_locked(path))
        return err_set(e, SF_EREFUSED,
                       "%s: key %s cannot be read as an unencrypted private key (load others into "
                       "ssh-agent)",
                       t->name, path);
    return err_set(e, SF_EREFUSED, "%s: login as '%s' with key %s refused: %s", t->name, t->user,
                   path, why(s));
}

static int handshake(struct ssh *s, const struct ssh_target *t, uint64_t deadline,
                     enum ssh_step *ret_step, struct err *e)
{
    *ret_step = SSH_REACH;
    int r = reach(t, deadline, &s->fd, e);
    if (r < 0)
        return r;
    *ret_step = SSH_HANDSHAKE;
    s->session = libssh2_session_init();
    if (!s->session)
        return err_sys(e, ENOMEM, "%s", t->name);
    uint64_t now = clock_mono_ms();
    libssh2_session_set_blocking(s->session, 1);
    libssh2_session_set_timeout(s->session, (long)(deadline > now ? deadline - now : 1));
    /* one fixed choice, so that the key kind asked for is the one that known_hosts most likely holds */
    libssh2_session_method_pref(
        s->session, LIBSSH2_METHOD_HOSTKEY,
        "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521");
    r = libssh2_session_handshake(s->session, s->fd);
    if (r == LIBSSH2_ERROR_TIMEOUT)
        return err_set(e, ETIMEDOUT, "%s: accepts connections, but SSH does not answer", t->name);
    if (r)
        return err_set(e, ECONNRESET, "%s: SSH handshake failed: %s", t->name, why(s));
    *ret_step = SSH_HOSTKEY;
    r = check_hostkey(s, t, e);
    if (r < 0)
        return r;
    *ret_step = SSH_LOGIN;
    return login(s, t, e);
}

int ssh_open(const struct ssh_target *t, uint64_t timeout_ms, struct ssh **ret,
             enum ssh_step *ret_step, struct err *e)
{
    enum ssh_step none;
    if (!ret_step)
        ret_step = &none;
    *ret_step = SSH_REACH;
    CLEANUP(ssh_free) struct ssh *s = calloc(1, sizeof(*s));
    if (!s)
        return err_sys(e, ENOMEM, "%s", t->name);
    s->fd = -1;
    s->stall_ms = timeout_ms;
    if (!(s->name = strdup(t->name)))
        return err_sys(e, ENOMEM, "%s", t->name);
    uint64_t since = 0, *slot = gate_enter(clock_mono_ms() + 10 * timeout_ms, &since);
    int r = handshake(s, t, clock_mono_ms() + timeout_ms, ret_step, e);
    gate_leave(slot, since);
    if (r < 0)
        return r;
    *ret_step = SSH_OPEN;
    /* not before: libssh2 would send a keep-alive in the middle of the key exchange */
    libssh2_keepalive_config(s->session, 1, 15);
    *ret = TAKE(s);
    return 0;
}

/* ---- commands */

int ssh_quote(struct buf *b, const char *s)
{
    int r = buf_adds(b, "'");
    for (; r == 0 && *s; s++)
        r = *s == '\'' ? buf_adds(b, "'\\''") : buf_add(b, s, 1);
    return r < 0 ? r : buf_adds(b, "'");
}

void ssh_result_clear(struct ssh_result *r)
{
    buf_clear(&r->out);
    buf_clear(&r->err);
}

uint64_t ssh_sent_b(const struct ssh *s)
{
    return s->sent_b;
}

/* Wait until the socket can do what libssh2 blocks on, or the deadline. */
static int wait_socket(struct ssh *s, uint64_t deadline)
{
    uint64_t now = clock_mono_ms();
    if (now >= deadline)
        return -ETIMEDOUT;
    int dirs = libssh2_session_block_directions(s->session);
    struct pollfd p = { .fd = s->fd };
    if (dirs & LIBSSH2_SESSION_BLOCK_INBOUND || !dirs)
        p.events |= POLLIN;
    if (dirs & LIBSSH2_SESSION_BLOCK_OUTBOUND)
        p.events |= POLLOUT;
    uint64_t left = deadline - now;
    int n = poll(&p, 1, left > 1000 ? 1000 : (int)left);
    return n < 0 && errno != EINTR ? -errno : 0;
}

static void drain(LIBSSH2_CHANNEL *ch, int stream, struct buf *b, bool *cut, bool *progress,
                  int *ret_broken)
{
    char block[BLOCK];
    for (;;) {
        ssize_t n = libssh2_channel_read_ex(ch, stream, block, sizeof(block));
        if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
            return;
        if (n < 0) {
            *ret_broken = 1;
            return;
        }
        *progress = true;
        if (buf_add(b, block, (size_t)n) < 0)
            *cut = true;
    }
}

/* Standard input, output and errors move in turns, so that neither side fills up and blocks the
 * other. */
static int pump(struct ssh *s, LIBSSH2_CHANNEL *ch, ssh_source in, void *in_user, uint64_t deadline,
                struct ssh_result *ret, struct err *e)
{
    CLEANUP(freep) char *block = malloc(BLOCK);
    if (!block)
        return err_sys(e, ENOMEM, "%s", s->name);
    size_t have = 0, at = 0;
    bool in_done = in == NULL, eof_sent = false;
    int broken = 0;
    uint64_t moved = clock_mono_ms();
    while (!libssh2_channel_eof(ch)) {
        bool progress = false;
        if (!in_done && at == have) {
            long n = in(in_user, block, BLOCK);
            if (n < 0)
                return err_sys(e, (int)-n, "%s: source of a copy", s->name);
            have = (size_t)n;
            at = 0;
            in_done = n == 0;
        }
        if (at < have) {
            ssize_t w = libssh2_channel_write(ch, block + at, have - at);
            if (w > 0) {
                at += (size_t)w;
                s->sent_b += (uint64_t)w;
                progress = true;
            } else if (w == LIBSSH2_ERROR_CHANNEL_CLOSED || w == LIBSSH2_ERROR_CHANNEL_EOF_SENT) {
                in_done = eof_sent = true; /* the command ended without wanting the rest */
                at = have;
            } else if (w < 0 && w != LIBSSH2_ERROR_EAGAIN) {
                broken = 1;
            }
        } else if (in_done && !eof_sent) {
            int r = libssh2_channel_send_eof(ch);
            if (r == 0)
                eof_sent = progress = true;
            else if (r != LIBSSH2_ERROR_EAGAIN)
                broken = 1;
        }
        drain(ch, 0, &ret->out, &ret->cut, &progress, &broken);
        drain(ch, SSH_EXTENDED_DATA_STDERR, &ret->err, &ret->cut, &progress, &broken);
        /* reading the one also takes the other's packets from the socket, which then has nothing to wait for */
        if (libssh2_poll_channel_read(ch, 0))
            progress = true;
        if (broken)
            return err_set(e, ECONNRESET, "%s: connection broke: %s", s->name, why(s));
        if (progress)
            moved = clock_mono_ms();
        else if (!in_done && clock_mono_ms() - moved > s->stall_ms)
            return err_set(e, ETIMEDOUT, "%s: the copy stands still for %llu s", s->name,
                           (unsigned long long)s->stall_ms / 1000);
        if (!progress) {
            int r = wait_socket(s, deadline);
            if (r < 0)
                return err_set(e, -r, "%s: %s", s->name,
                               r == -ETIMEDOUT ? "no answer in time" : strerror(-r));
            int next;
            libssh2_keepalive_send(s->session, &next);
        } else if (clock_mono_ms() >= deadline) {
            return err_set(e, ETIMEDOUT, "%s: command did not end in time", s->name);
        }
    }
    /* the command has ended without all of its input: a packet that libssh2 has begun must go whole all the same, or the
     * session takes no other call */
    uint64_t until = clock_mono_ms() + FLUSH_MS;
    while (at < have && libssh2_channel_write(ch, block + at, have - at) == LIBSSH2_ERROR_EAGAIN &&
           wait_socket(s, until) == 0)
        ;
    return 0;
}

static int run_line(struct ssh *s, const char *line, ssh_source in, void *in_user,
                    uint64_t timeout_ms, struct ssh_result *ret, struct err *e)
{
    uint64_t deadline = clock_mono_ms() + timeout_ms;
    *ret = (struct ssh_result){ .out = BUF_INIT(OUT_MAX), .err = BUF_INIT(OUT_MAX) };
    libssh2_session_set_blocking(s->session, 1);
    libssh2_session_set_timeout(s->session, (long)timeout_ms);
    LIBSSH2_CHANNEL *ch = libssh2_channel_open_session(s->session);
    if (!ch)
        return err_set(e, ECONNRESET, "%s: cannot open a channel: %s", s->name, why(s));
    int r = libssh2_channel_exec(ch, line);
    if (r) {
        r = err_set(e, ECONNRESET, "%s: cannot run a command: %s", s->name, why(s));
    } else {
        libssh2_session_set_blocking(s->session, 0);
        r = pump(s, ch, in, in_user, deadline, ret, e);
        libssh2_session_set_blocking(s->session, 1);
        libssh2_session_set_timeout(s->session, 5000);
        if (r == 0) {
            libssh2_channel_close(ch);
            libssh2_channel_wait_closed(ch);
            char *sig = NULL;
            libssh2_channel_get_exit_signal(ch, &sig, NULL, NULL, NULL, NULL, NULL);
            ret->status = sig ? 255 : libssh2_channel_get_exit_status(ch);
            if (sig)
                libssh2_free(s->session, sig);
        }
    }
    libssh2_channel_free(ch);
    return r;
}

static int add_words(struct buf *b, const char *const words[])
{
    for (size_t i = 0; words && words[i]; i++)
        if ((b->len && buf_adds(b, " ") < 0) || ssh_quote(b, words[i]) < 0)
            return -E2BIG;
    return 0;
}

int ssh_run(struct ssh *s, const char *const argv[], ssh_source in, void *in_user,
            uint64_t timeout_ms, struct ssh_result *ret, struct err *e)
{
    CLEANUP(buf_clear) struct buf line = BUF_INIT(128 << 10);
    *ret = (struct ssh_result){ 0 };
    if (add_words(&line, argv) < 0 || !line.len)
        return err_set(e, E2BIG, "%s: command longer than %zu bytes", s->name, line.cap);
    return run_line(s, (char *)line.data, in, in_user, timeout_ms, ret, e);
}

int ssh_script(struct ssh *s, const char *script, const char *const args[], ssh_source in,
               void *in_user, uint64_t timeout_ms, struct ssh_result *ret, struct err *e)
{
    CLEANUP(buf_clear) struct buf line = BUF_INIT(128 << 10);
    *ret = (struct ssh_result){ 0 };
    const char *head[] = { "sh", "-c", script, "sh", NULL };
    if (add_words(&line, head) < 0 || add_words(&line, args) < 0)
        return err_set(e, E2BIG, "%s: command longer than %zu bytes", s->name, line.cap);
    return run_line(s, (char *)line.data, in, in_user, timeout_ms, ret, e);
}
