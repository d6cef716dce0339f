/* What the guests say on console and control line, and `vm console`. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "collect/stack_int.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

void enter(struct stack *s, enum phase p)
{
    const struct collect_conf *c = s->c;
    uint64_t now = clock_mono_ms(), took = now - s->phase_ms;
    uint64_t slow = (c->memory_b >> 30) * 300 + (1 + c->guests) * 30000 + c->nics * 2000;
    struct stack_phases *ph = &s->res->phases;
    static const uint64_t base_ms[] = { 60000, 60000, 60000, 60000, 30000, 0 };
    switch (p) {
    case PH_START:
        ph->boot_ms = took;
        break;
    case PH_MEASURE:
        ph->ready_ms = took;
        break;
    case PH_SEND:
        ph->measured_ms = took;
        break;
    case PH_DONE:
        ph->stop_ms += took;
        break;
    case PH_EXIT:
        ph->stop_ms = took;
        break;
    case PH_BOOT:
        break;
    }
    s->phase = p;
    s->phase_ms = now;
    s->starved_ms = s->l1.proc ? proc_starved_ms(s->l1.proc) : 0;
    s->end_ms = now + base_ms[p] + slow;
    if (p == PH_MEASURE)
        s->end_ms += c->bytes_b ? 600000 : c->duration_ms * (c->icount >= 0 ? 20 : 2);
}

/* What a Linux console says when the guest is lost. */
static bool bad_news(const char *line)
{
    static const char *const words[] = {
        "Kernel panic",        "Oops:", "BUG: ", "general protection fault", "stack end detected",
        "Unable to mount root"
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strstr(line, words[i]))
            return true;
    return false;
}

static void hear_console(struct stack *s, struct vm *v, const uint8_t *p, size_t n)
{
    static const char cut[] = "\n[siofleet: the rest is not kept]\n";
    bool room = v->log_len + n <= SERIAL_MAX_B;
    if (v->log_len <= SERIAL_MAX_B &&
        write_all(v->log_fd, room ? (const void *)p : cut, room ? n : sizeof(cut) - 1) < 0) {
        /* a full disk is seen in watch(); the serial log is for people */
    }
    v->log_len += n;
    for (size_t i = 0; i < n; i++) {
        char ch = (char)p[i];
        if (ch == '\n' || v->line.len + 1 >= LINE_MAX_B) {
            char *t = v->line.len ? (char *)v->line.data : NULL;
            if (t) {
                t[v->line.len] = 0;
                snprintf(v->last, sizeof(v->last), "%s", t);
                if (!s->trouble[0] && bad_news(t))
                    snprintf(s->trouble, sizeof(s->trouble), "%s: guest panic: %.220s",
                             v->proc->name, t);
            }
            buf_reset(&v->line);
        } else if (ch >= 0x20 && ch != 0x7f) {
            buf_add(&v->line, &ch, 1);
        }
    }
}

static int tell(struct vm *v, const char *word, struct err *e)
{
    char line[32];
    int n = snprintf(line, sizeof(line), "%s\n", word);
    if (send(v->ctl, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
        return err_set(e, EPIPE, "%s: control line: %s", v->proc->name, strerror(errno));
    return 0;
}

static bool all_ready(const struct stack *s)
{
    for (size_t i = 0; i < s->n_clients; i++)
        if (!s->clients[i].ready)
            return false;
    return s->l1.ready;
}

static int begin_file(struct stack *s, struct vm *v, const char *rest, struct err *e)
{
    char name[40];
    uint64_t size;
    if (sscanf(rest, "%39[A-Za-z0-9._-] %" SCNu64, name, &size) != 2 || name[0] == '.' ||
        size > FILE_MAX_B)
        return err_set(e, SF_EFORMAT, "%s: bad file announced: '%.80s'", v->proc->name, rest);
    snprintf(v->file_name, sizeof(v->file_name), "workload-%s", name);
    CLEANUP(freep) char *path = path_fmt("%s/%s", s->dir, v->file_name);
    v->file_fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    if (v->file_fd < 0)
        return err_sys(e, errno, "%s", v->file_name);
    v->file_left = size;
    if (!size)
        closep(&v->file_fd);
    return 0;
}

static int hear_word(struct stack *s, struct vm *v, const char *line, struct err *e)
{
    bool l1 = v == &s->l1;
    int r;
    if (strcmp(line, "BOOT") == 0) {
        if (l1 && s->phase == PH_BOOT)
            enter(s, PH_START);
    } else if (strcmp(line, "READY") == 0) {
        v->ready = true;
        if (!l1 && (r = tell(v, "GO", e)) < 0)
            return r;
        if (s->phase == PH_START && all_ready(s)) {
            r = whole_run(s->c) ? 0 : trace_start(s, true, e);
            if (r < 0)
                return r;
            enter(s, PH_MEASURE);
            return tell(&s->l1, "GO", e);
        }
    } else if (strncmp(line, "FAIL ", 5) == 0) {
        return err_set(e, SF_EFAILED, "%s: %.200s", v->proc->name, line + 5);
    } else if (l1 && strncmp(line, "END ", 4) == 0 && s->phase == PH_MEASURE) {
        s->end_status = atoi(line + 4);
        enter(s, PH_SEND);
        r = s->c->tracer == TRACER_BOTH ? 0 : trace_stop(s, e);
        return r < 0 ? r : tell(v, "OK", e);
    } else if (l1 && strncmp(line, "FILE ", 5) == 0 && s->phase == PH_SEND) {
        return begin_file(s, v, line + 5, e);
    } else if (l1 && strcmp(line, "DONE") == 0 && s->phase == PH_SEND) {
        enter(s, PH_EXIT);
        if (s->env->keep)
            log_info(
                "the guest stays up; `siofleet vm console` attaches, `siofleet vm stop` ends it");
    }
    return 0;
}

static int hear_control(struct stack *s, struct vm *v, const uint8_t *p, size_t n, struct err *e)
{
    while (n) {
        if (v->file_left) {
            size_t part = n < v->file_left ? n : (size_t)v->file_left;
            int r = write_all(v->file_fd, p, part);
            if (r < 0)
                return err_sys(e, -r, "%s", v->file_name);
            v->file_left -= part;
            p += part;
            n -= part;
            if (!v->file_left)
                closep(&v->file_fd);
            continue;
        }
        const uint8_t *nl = memchr(p, '\n', n);
        size_t part = nl ? (size_t)(nl - p) : n;
        if (buf_add(&v->words, p, part) < 0)
            return err_set(e, SF_EFORMAT, "%s: control line without an end", v->proc->name);
        p += part;
        n -= part;
        if (!nl)
            break;
        p++;
        n--;
        char line[LINE_MAX_B + 1];
        size_t len = v->words.len;
        memcpy(line, len ? (char *)v->words.data : "", len);
        while (len && line[len - 1] == '\r')
            len--;
        line[len] = 0;
        buf_reset(&v->words);
        int r = hear_word(s, v, line, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int hear(struct stack *s, struct vm *v, bool control, struct err *e)
{
    uint8_t b[16384];
    int *fd = control ? &v->ctl : &v->con;
    ssize_t n = recv(*fd, b, sizeof(b), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        closep(fd);
        return 0;
    }
    if (control)
        return hear_control(s, v, b, (size_t)n, e);
    hear_console(s, v, b, (size_t)n);
    if (v == &s->l1 && s->con_peer >= 0 &&
        send(s->con_peer, b, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
        closep(&s->con_peer);
    return 0;
}

/* ---- `vm console` */

void console_open(struct stack *s)
{
    s->con_listen = s->con_peer = -1;
    if (!s->env->vm_dir)
        return;
    CLEANUP(closep) int dir = open(s->env->vm_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    /* by way of /proc: the folder's own path may be longer than a socket address */
    snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/console", dir);
    if (dir >= 0 && fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 &&
        listen(fd, 1) == 0)
        s->con_listen = take_fd(&fd);
    else
        log_warn("no console socket: %s", strerror(errno));
}

void console_turn(struct stack *s, bool incoming, bool typed)
{
    if (incoming) {
        int fd = accept4(s->con_listen, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            closep(&s->con_peer);
            s->con_peer = fd;
        }
    }
    if (typed && s->con_peer >= 0) {
        char b[512];
        ssize_t n = recv(s->con_peer, b, sizeof(b), MSG_DONTWAIT);
        if (n > 0 && s->l1.con >= 0)
            (void)!send(s->l1.con, b, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
        else if (n == 0)
            closep(&s->con_peer);
    }
}
