/* `vm ssh`: keys of one stack, made for it and gone with its state folder, and the way in.
 *
 * Both ends are known beforehand: the guest gets its host key and the one key that may enter, the client the host key it
 * must meet. Needs openssh-client.
 */
#pragma once
#include <stdbool.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/lib/json.h"

/* Make VM_DIR/ssh.client, ssh.host (with .pub) and ssh.known. -SF_EFAILED without ssh-keygen. */
int ssh_keys(const char *vm_dir, struct err *e);
/* What the guest must have of them. */
int ssh_guest_files(const char *vm_dir, struct buf *host_key, struct buf *client_pub,
                    struct err *e);

/* The guest listens behind this loopback port of the host: noted for `vm ls` and `vm ssh`. */
int ssh_note(const char *vm_dir, int port, struct err *e);
int ssh_port(const char *vm_dir); /* 0 = no ssh there */

/* Becomes ssh; returns only with an error. args: command in the guest, may be empty. */
int ssh_enter(const char *vm_dir, const char *id, int argc, char **args, struct err *e);
