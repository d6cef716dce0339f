#include "collect/ssh.h"

#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"

extern char **environ;

enum { KEY_MAX = 8192 };

static int keygen(const char *path, struct err *e)
{
    char *argv[] = { (char *)"ssh-keygen", (char *)"-q", (char *)"-t", (char *)"ed25519",
                     (char *)"-N",         (char *)"",   (char *)"-C", (char *)"siofleet",
                     (char *)"-f",         (char *)path, NULL };
    pid_t pid;
    int status, r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (r)
        return err_set(e, SF_EFAILED, "ssh-keygen: %s; install openssh-client", strerror(r));
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(e, errno, "ssh-keygen");
    return status ? err_set(e, SF_EFAILED, "ssh-keygen: failed for %s", path) : 0;
}

int ssh_keys(const char *vm_dir, struct err *e)
{
    CLEANUP(freep)
    char *client = path_fmt("%s/ssh.client", vm_dir), *host = path_fmt("%s/ssh.host", vm_dir),
         *pub = path_fmt("%s/ssh.host.pub", vm_dir), *known = path_fmt("%s/ssh.known", vm_dir),
         *text = NULL;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(KEY_MAX);
    if (!client || !host || !pub || !known)
        return err_set(e, ENOMEM, "ssh keys");
    int r = keygen(client, e);
    r = r < 0 ? r : keygen(host, e);
    r = r < 0 ? r : file_read(pub, &b, e);
    if (r < 0)
        return r;
    text = path_fmt("siofleet %.*s", (int)b.len, (char *)b.data);
    return text ? file_write(known, text, strlen(text), 0600, true, e)
                : err_set(e, ENOMEM, "ssh keys");
}

int ssh_guest_files(const char *vm_dir, struct buf *host_key, struct buf *client_pub, struct err *e)
{
    CLEANUP(freep)
    char *host = path_fmt("%s/ssh.host", vm_dir), *pub = path_fmt("%s/ssh.client.pub", vm_dir);
    if (!host || !pub)
        return err_set(e, ENOMEM, "ssh keys");
    int r = file_read(host, host_key, e);
    return r < 0 ? r : file_read(pub, client_pub, e);
}

int ssh_note(const char *vm_dir, int port, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/ssh.port", vm_dir);
    char text[16];
    int n = snprintf(text, sizeof(text), "%d\n", port);
    return path ? file_write(path, text, (size_t)n, 0600, true, e) : err_set(e, ENOMEM, "ssh");
}

int ssh_port(const char *vm_dir)
{
    CLEANUP(freep) char *path = path_fmt("%s/ssh.port", vm_dir);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64);
    return path && file_read(path, &b, NULL) == 0 && b.len ? atoi((char *)b.data) : 0;
}

int ssh_enter(const char *vm_dir, const char *id, int argc, char **args, struct err *e)
{
    int port = ssh_port(vm_dir);
    if (!port)
        return err_set(e, SF_EFAILED,
                       "%s: its guest has no disk image with sshd (disk =); vm console attaches",
                       id);
    CLEANUP(freep)
    char *known = path_fmt("UserKnownHostsFile=\"%s/ssh.known\"", vm_dir),
         *key = path_fmt("%s/ssh.client", vm_dir), *number = path_fmt("%d", port);
    CLEANUP(freep) char **argv = calloc((size_t)argc + 24, sizeof(*argv));
    if (!known || !key || !number || !argv)
        return err_set(e, ENOMEM, "ssh");
    const char *const fixed[] = { "ssh",
                                  "-F",
                                  "/dev/null",
                                  "-i",
                                  key,
                                  "-p",
                                  number,
                                  "-o",
                                  known,
                                  "-o",
                                  "StrictHostKeyChecking=yes",
                                  "-o",
                                  "HostKeyAlias=siofleet",
                                  "-o",
                                  "IdentitiesOnly=yes",
                                  "-o",
                                  "LogLevel=ERROR",
                                  "root@127.0.0.1",
                                  "--" };
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(fixed) - (argc == 0); i++)
        argv[n++] = (char *)(uintptr_t)fixed[i];
    for (int i = 0; i < argc; i++)
        argv[n++] = args[i];
    execvp(argv[0], argv);
    return err_set(e, SF_EFAILED, "ssh: %s; install openssh-client", strerror(errno));
}
