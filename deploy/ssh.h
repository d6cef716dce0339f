/* One SSH session to one host, blocking with deadlines: one worker thread a host (libssh2's
 * non-blocking mode is delicate: a call that returned EAGAIN must be repeated with the same
 * arguments, and exec and close can lose their state).
 *
 * Commands are argument vectors; each argument is quoted for the remote shell here, so that no name
 * or value of a user is ever interpreted. Bulk data goes through a command's standard input.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"

struct ssh;

struct ssh_target {
    const char *name; /* named in errors */
    const char *address;
    uint64_t port;
    const char *user;
    const char *identity; /* private key file (ed25519), NULL = ssh-agent, then ~/.ssh/id_ed25519 */
    const char *known_hosts; /* NULL = ~/.ssh/known_hosts */
    const char *hostkey;     /* pinned "SHA256:...", NULL = known_hosts decides */
};

/* Where a connection can fail; *ret_step of ssh_open(), for the table that `deploy check` prints.
 */
enum ssh_step { SSH_REACH, SSH_HANDSHAKE, SSH_HOSTKEY, SSH_LOGIN, SSH_OPEN };

/* Connect, check the host key (pinned, or known_hosts: hashed lines too; @revoked is honoured,
 * @cert-authority refused with that reason), log in with a key. No password is ever asked for.
 * Errors: -ETIMEDOUT, -ECONNREFUSED, ... for the network, -SF_EREFUSED for host key and login; the
 * text says how to mend it. Sessions that are not logged in yet are few at any time, whoever opens them (sshd's
 * MaxStartups). A fed command whose input does not move for timeout_ms ends with -ETIMEDOUT. Threads: one session a thread; ssh_init() once before. */
int ssh_init(struct err *e);
int ssh_open(const struct ssh_target *t, uint64_t timeout_ms, struct ssh **ret,
             enum ssh_step *ret_step, struct err *e);
void ssh_free(struct ssh **s);

/* What an exec is fed with: return the count put into p (at most n), 0 at the end, -errno to give
 * up. */
typedef long (*ssh_source)(void *user, void *p, size_t n);

struct ssh_result {
    int status; /* exit status; 128 + signal number unknown = 255 when the far side died of a signal
                 */
    struct buf out, err; /* owned; capped: what goes beyond is dropped and cut set */
    bool cut;
};
void ssh_result_clear(struct ssh_result *r);

/* Run argv (NULL-terminated) on the host. in: NULL or fed to its standard input. Returns 0 when the
 * command ran, whatever its status; -ETIMEDOUT at the deadline, -ECONNRESET when the connection
 * broke. */
int ssh_run(struct ssh *s, const char *const argv[], ssh_source in, void *in_user,
            uint64_t timeout_ms, struct ssh_result *ret, struct err *e);
/* The same for a fixed script of ours: `sh -c SCRIPT sh ARG...`, the arguments as $1, $2, ... */
int ssh_script(struct ssh *s, const char *script, const char *const args[], ssh_source in,
               void *in_user, uint64_t timeout_ms, struct ssh_result *ret, struct err *e);

/* Bytes that went to the host as payload (standard input of commands) since ssh_open(). */
uint64_t ssh_sent_b(const struct ssh *s);

/* s in single quotes for a POSIX shell, appended to b. */
int ssh_quote(struct buf *b, const char *s);
