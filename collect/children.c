#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collect/stack_int.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

void args_clear(struct args *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i]);
    a->n = 0;
}

void arg(struct args *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = NULL;
    if (a->n + 1 >= ARRAY_LEN(a->v) || vasprintf(&s, fmt, ap) < 0)
        a->failed = true;
    else
        a->v[a->n++] = s;
    va_end(ap);
    a->v[a->n] = NULL;
}

static void proc_note(const struct stack *s, pid_t pid)
{
    /* what a later start needs to sweep after a crash: pid and start time, so that a reused pid is let alone */
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (n <= 0 || !s->env->vm_dir)
        return;
    text[n] = 0;
    const char *p = strrchr(text, ')');
    uint64_t started = 0;
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p)
        started = strtoull(p, NULL, 10);
    CLEANUP(freep) char *pids = path_fmt("%s/pids", s->env->vm_dir);
    CLEANUP(fclosep) FILE *f = pids ? fopen(pids, "ae") : NULL;
    if (f)
        fprintf(f, "%d %" PRIu64 "\n", (int)pid, started);
}

int spawn(struct stack *s, const char *name, struct args *a, const int fds[], struct proc **ret,
          struct err *e)
{
    if (a->failed || s->n_procs == PROCS_MAX)
        return err_set(e, ENOMEM, "%s: arguments", name);
    json_t *argv = json_array();
    for (size_t i = 0; i < a->n; i++)
        json_array_append_new(argv, json_str(a->v[i]));
    json_object_set_new(s->res->commands, name, argv);
    CLEANUP(freep) char *out = path_fmt("%s/%s.err", s->dir, name);
    if (!out)
        return err_set(e, ENOMEM, "%s", name);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return err_sys(e, errno, "%s: fork", name);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(127);
        signal(SIGINT, SIG_IGN); /* a terminal's ^C is the runner's business: it ends us in order */
        signal(SIGTERM, SIG_DFL);
        signal(SIGPIPE, SIG_DFL);
        int null = open("/dev/null", O_RDONLY);
        int err = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (null < 0 || err < 0 || dup2(null, 0) < 0 || dup2(err, 1) < 0 || dup2(err, 2) < 0)
            _exit(127);
        for (int i = 0; fds && fds[i] >= 0; i++)
            fcntl(fds[i], F_SETFD, 0);
        execv(a->v[0], a->v);
        dprintf(2, "%s: %s\n", a->v[0], strerror(errno));
        _exit(127);
    }
    struct proc *p = &s->procs[s->n_procs++];
    *p = (struct proc){ .pid = pid };
    snprintf(p->name, sizeof(p->name), "%s", name);
    proc_note(s, pid);
    *ret = p;
    return 0;
}

bool proc_ended(struct proc *p)
{
    if (!p->ended && waitpid(p->pid, &p->status, WNOHANG) == p->pid)
        p->ended = true;
    return p->ended;
}

uint64_t proc_starved_ms(const struct proc *p)
{
    char path[300];
    uint64_t most = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)p->pid);
    DIR *d = opendir(path);
    struct dirent *de;
    while (d && (de = readdir(d))) {
        uint64_t ran, waited;
        snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)p->pid, de->d_name);
        CLEANUP(fclosep) FILE *f = de->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (f && fscanf(f, "%" SCNu64 " %" SCNu64, &ran, &waited) == 2 && waited > most)
            most = waited;
    }
    if (d)
        closedir(d);
    return most / 1000000;
}

void proc_kill(struct proc *p)
{
    if (p->ended)
        return;
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, &p->status, 0) < 0 && errno == EINTR)
        ;
    p->ended = true;
}

void last_words(const struct stack *s, const char *name, char *out, size_t room)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s.err", s->dir, name);
    CLEANUP(fclosep) FILE *f = path ? fopen(path, "re") : NULL;
    char line[400];
    out[0] = 0;
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0])
            snprintf(out, room, "%.*s", (int)room - 1, line);
    }
}
