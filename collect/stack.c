#include "collect/stack.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collect/net.h"
#include "collect/stack_int.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

const char *const phase_names[] = {
    "boot", "start", "measured phase", "results", "power off", "end"
};

/* ---- the loop */

static int died(struct stack *s, const struct proc *p, struct err *e)
{
    char why[200];
    last_words(s, p->name, why, sizeof(why));
    if (s->trouble[0])
        return err_set(e, SF_EFAILED, "%s", s->trouble);
    if (WIFSIGNALED(p->status))
        return err_set(e, SF_EFAILED, "%s: QEMU was killed by signal %d during %s", p->name,
                       WTERMSIG(p->status), phase_names[s->phase]);
    return err_set(e, SF_EFAILED, "%s: QEMU ended with status %d during %s%s%s", p->name,
                   WEXITSTATUS(p->status), phase_names[s->phase],
                   why[0] || s->l1.last[0] ? ": " : "", why[0] ? why : s->l1.last);
}

/* QEMU's own text log says nothing of lines that found no room, so a run ends before that. */
static int watch_space(struct stack *s, uint64_t now, struct err *e)
{
    struct statvfs fs;
    if (now - s->last_space_ms < 500)
        return 0;
    s->last_space_ms = now;
    if (statvfs(s->dir, &fs) < 0)
        return err_sys(e, errno, "%s", s->dir);
    uint64_t mib = (uint64_t)fs.f_bavail * fs.f_frsize / MIB;
    return mib < SPACE_MIN_MIB
               ? err_set(e, ENOSPC, "%s: %" PRIu64 " MiB free during the %s, a run needs %d",
                         s->dir, mib, phase_names[s->phase], SPACE_MIN_MIB)
               : 0;
}

static int watch(struct stack *s, struct err *e)
{
    uint64_t now = clock_mono_ms();
    if (s->phase < PH_EXIT) {
        int r = watch_space(s, now, e);
        if (r < 0)
            return r;
    }
    if (s->trouble[0])
        return err_set(e, SF_EFAILED, "%s", s->trouble);
    for (size_t i = 0; i < s->n_procs; i++) {
        struct proc *p = &s->procs[i];
        if (!proc_ended(p))
            continue;
        if (p == s->l1.proc && s->phase == PH_EXIT) {
            enter(s, PH_DONE);
            return 0;
        }
        /* the line may still hold the guest's last words: let them be read first */
        if (p == s->l1.proc && (s->l1.con >= 0 || s->l1.ctl >= 0))
            continue;
        if (s->phase < PH_EXIT)
            return died(s, p, e);
    }
    if (s->env->keep && s->phase == PH_EXIT)
        return 0;
    uint64_t starved = now > s->end_ms ? proc_starved_ms(s->l1.proc) - s->starved_ms : 0;
    if (starved > 3 * (s->end_ms - s->phase_ms))
        starved = 3 * (s->end_ms - s->phase_ms);
    if (now > s->end_ms + starved) {
        if (s->phase ==
            PH_EXIT) { /* everything is here; a guest that does not power off is put down */
            enter(s, PH_DONE);
            return 0;
        }
        return err_set(e, ETIMEDOUT,
                       "l1: guest silent: no end of the %s in %" PRIu64 " s (%" PRIu64
                       " of them without a processor); last line: %s",
                       phase_names[s->phase], (now - s->phase_ms) / 1000, starved / 1000,
                       s->l1.last[0] ? s->l1.last : "(none)");
    }
    if (s->c->timeout_ms && now - s->start_ms > s->c->timeout_ms)
        return err_set(e, ETIMEDOUT, "run: over its timeout of %" PRIu64 " ms during the %s",
                       s->c->timeout_ms, phase_names[s->phase]);
    /* a guest that the host cannot run (KVM) or that paused itself stops in a state of its own, without a word */
    if (now - s->last_status_ms > 2000 && s->phase < PH_EXIT) {
        CLEANUP(json_decrefp) json_t *st = NULL;
        int asked = qmp_call(&s->qmp, "query-status", NULL, 1000, &st, NULL);
        /* from the answer on: a QEMU that waits for us to read its lines gets the time for that */
        s->last_status_ms = clock_mono_ms();
        if (asked == 0) {
            const char *w = json_string_value(json_object_get(st, "status"));
            if (w && (strcmp(w, "internal-error") == 0 || strcmp(w, "guest-panicked") == 0))
                return err_set(e, SF_EFAILED, "l1: QEMU reports '%s'", w);
        }
    }
    return 0;
}

static int loop(struct stack *s, struct err *e)
{
    while (s->phase != PH_DONE) {
        struct pollfd p[4 + 2 * CONF_GUESTS_MAX];
        struct vm *who[ARRAY_LEN(p)];
        nfds_t n = 0;
        for (size_t i = 0; i <= s->n_clients; i++) {
            struct vm *v = i ? &s->clients[i - 1] : &s->l1;
            who[n] = v;
            p[n++] = (struct pollfd){ .fd = v->con, .events = POLLIN };
            who[n] = v;
            p[n++] = (struct pollfd){ .fd = v->ctl, .events = POLLIN };
        }
        nfds_t guests = n;
        p[n++] = (struct pollfd){ .fd = s->con_listen, .events = POLLIN };
        p[n++] = (struct pollfd){ .fd = s->con_peer, .events = POLLIN };
        if (poll(p, n, 100) < 0 && errno != EINTR)
            return err_sys(e, errno, "poll");
        if (*s->env->stop) {
            if (s->env->keep && s->phase == PH_EXIT) {
                enter(s, PH_DONE);
                return 0;
            }
            return err_set(e, ECANCELED, "run: cancelled during the %s", phase_names[s->phase]);
        }
        for (nfds_t i = 0; i < guests; i++)
            if (p[i].revents) {
                int r = hear(s, who[i], i % 2, e);
                if (r < 0)
                    return r;
            }
        console_turn(s, p[guests].revents != 0, p[guests + 1].revents != 0);
        int r = watch(s, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- taking home */

static void take_workload(struct stack *s)
{
    struct stack_result *res = s->res;
    const char *names[CONF_NICS_MAX + 1];
    char text[CONF_NICS_MAX + 1][32];
    size_t n = 0;
    if (s->c->kind == WORK_SCRIPT)
        names[n++] = "script";
    for (uint64_t i = 0; i < s->c->nics && s->c->kind != WORK_SCRIPT; i++) {
        snprintf(text[n], sizeof(text[n]), "%s%" PRIu64, s->c->kind == WORK_DISK ? "disk" : "nic",
                 i + 1);
        names[n] = text[n];
        n++;
    }
    for (size_t i = 0; i < n; i++) {
        static const char *const ends[] = { "json", "txt", "err" };
        CLEANUP(freep) char *exit_path = path_fmt("%s/workload-%s.exit", s->dir, names[i]);
        CLEANUP(buf_clear) struct buf b = BUF_INIT(64);
        long status = -1;
        if (exit_path && file_read(exit_path, &b, NULL) == 0 && b.len) {
            status = strtol((char *)b.data, NULL, 10);
            unlink(exit_path);
        }
        char found[40] = "";
        for (size_t k = 0; k < ARRAY_LEN(ends) && !found[0]; k++) {
            char f[40];
            snprintf(f, sizeof(f), "workload-%s.%s", names[i], ends[k]);
            CLEANUP(freep) char *path = path_fmt("%s/%s", s->dir, f);
            if (path && access(path, R_OK) == 0)
                snprintf(found, sizeof(found), "%s", f);
        }
        if (status != 0)
            res->workload_failed = true;
        json_array_append_new(res->workload,
                              json_pack("{s:s, s:o, s:o}", "name", names[i], "exit",
                                        status < 0 ? json_null() : json_integer(status), "path",
                                        found[0] ? json_string(found) : json_null()));
    }
}

static void vm_clear(struct vm *v)
{
    closep(&v->con);
    closep(&v->ctl);
    closep(&v->mon);
    closep(&v->file_fd);
    closep(&v->log_fd);
    buf_clear(&v->line);
    buf_clear(&v->words);
}

/* What card i is plugged into: fds[0] goes to L1's QEMU, fds[1] to its client's; -1 = QEMU's own user network. */
static int connect_nic(struct stack *s, unsigned i, int fds[2], struct err *e)
{
    const struct collect_conf *c = s->c;
    bool virtio = strcmp(c->model, "virtio") == 0;
    if (c->tap && !s->env->vm_dir)
        return err_set(e, EINVAL, "net = tap: no state folder");
    if (c->tap && c->guests)
        return net_pair(s->env->vm_dir, i, virtio, fds, e);
    if (c->tap)
        return net_host(s->env->vm_dir, i, virtio, &fds[0], e);
    if (c->guests && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return err_sys(e, errno, "socketpair");
    return 0;
}

static int start(struct stack *s, struct err *e)
{
    const struct collect_conf *c = s->c;
    int nets[CONF_NICS_MAX][2], mine[CONF_NICS_MAX], r = 0;
    for (size_t i = 0; i < CONF_NICS_MAX; i++)
        nets[i][0] = nets[i][1] = mine[i] = -1;
    s->vhost = stack_asks(c);
    /* a script finds the same servers, unless all is the user's own */
    CLEANUP(freep) char *iperf = path_fmt("%s/host/iperf3", s->env->image);
    bool peers = !c->guests && (c->kind == WORK_IPERF3 ||
                                (c->kind == WORK_SCRIPT && iperf && access(iperf, X_OK) == 0));
    if (has_ring(c)) {
        r = ring_new(&s->ring, RING_RECORDS, e);
        if (r < 0)
            return r;
        if (c->tracer != TRACER_LOG) {
            CLEANUP(freep) char *path = path_fmt("%s/log.slog", s->dir);
            r = path ? sink_new(path, s->env->growing, &s->sink, e) : err_set(e, ENOMEM, "log");
            if (r < 0)
                return r;
        }
    }
    if (has_text(c)) {
        CLEANUP(freep) char *path = path_fmt("%s/run.log", s->dir);
        r = path ? text_new(path, c->tracer == TRACER_BOTH ? s->env->growing_text : s->env->growing,
                            &s->text, e)
                 : err_set(e, ENOMEM, "log");
        if (r < 0)
            return r;
    }
    if (c->kind == WORK_DISK)
        r = make_disks(s, e);
    for (uint64_t i = 0; r == 0 && i < c->nics && !conf_is_disk(c->model); i++) {
        r = connect_nic(s, (unsigned)i, nets[i], e);
        mine[i] = nets[i][0];
        if (r == 0 && c->guests)
            r = start_client(s, i, nets[i][1], e);
        else if (r == 0 && peers)
            r = start_peer(s, i, e);
    }
    if (r == 0 && whole_run(c))
        r = trace_start(s, false, e);
    if (r == 0)
        r = start_l1(s, mine, e);
    for (size_t i = 0; i < CONF_NICS_MAX; i++) {
        closep(&nets[i][0]);
        closep(&nets[i][1]);
    }
    if (r < 0)
        return r;
    qmp_init(&s->qmp, s->l1.mon);
    r = qmp_hello(&s->qmp, 30000, e);
    if (r < 0) {
        /* gone at once: its own message says more than the closed line */
        for (int t = 0; t < 100 && !proc_ended(s->l1.proc); t++)
            usleep(10000);
        return s->l1.proc->ended ? died(s, s->l1.proc, e) : r;
    }
    return 0;
}

int stack_run(const struct collect_conf *c, const struct stack_env *env, const char *dir,
              struct stack_result *ret, struct err *e)
{
    *ret = (struct stack_result){ .workload = json_array(), .commands = json_object() };
    CLEANUP(freep) struct stack *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(e, ENOMEM, "run");
    s->c = c;
    s->env = env;
    s->dir = dir;
    s->res = ret;
    s->ring.fd = -1;
    for (size_t i = 0; i <= CONF_GUESTS_MAX; i++) {
        struct vm *v = i ? &s->clients[i - 1] : &s->l1;
        v->con = v->ctl = v->mon = v->file_fd = v->log_fd = -1;
    }
    console_open(s);
    s->start_ms = s->phase_ms = clock_mono_ms();
    enter(s, PH_BOOT);
    s->phase_ms = s->start_ms;

    int r = start(s, e);
    if (r == 0)
        r = loop(s, e);
    int stopped = readers_stop(s, r == 0 ? e : NULL);
    for (size_t i = s->n_procs; i-- > 0;)
        proc_kill(&s->procs[i]);
    if (r == 0)
        r = stopped;
    if (r == 0)
        r = take_log(s, e);
    if (r == 0)
        take_workload(s);
    if (r == 0 && (ret->workload_failed || s->end_status))
        r = err_set(e, SF_EFAILED, "workload: at least one part failed in the guest; last line: %s",
                    s->l1.last[0] ? s->l1.last : "(none)");

    sink_abort(&s->sink);
    text_abort(&s->text);
    qmp_clear(&s->qmp);
    ring_clear(&s->ring);
    closep(&s->con_listen);
    closep(&s->con_peer);
    vm_clear(&s->l1);
    for (size_t i = 0; i < s->n_clients; i++)
        vm_clear(&s->clients[i]);
    /* what only the run needed */
    if (s->initrd[0])
        unlink(s->initrd);
    for (size_t i = 0; i < s->n_clients; i++) {
        CLEANUP(freep) char *p = path_fmt("%s/client%zu.cpio", dir, i + 1);
        if (p)
            unlink(p);
    }
    for (uint64_t i = 0; c->kind == WORK_DISK && i < c->nics; i++) {
        CLEANUP(freep) char *p = path_fmt("%s/disk%" PRIu64 ".img", dir, i + 1);
        if (p)
            unlink(p);
    }
    return r;
}

void stack_result_clear(struct stack_result *r)
{
    json_decref(r->workload);
    json_decref(r->commands);
    *r = (struct stack_result){ 0 };
}

bool stack_asks(const struct collect_conf *c)
{
    return c->ats && c->tap && access("/dev/vhost-net", R_OK | W_OK) == 0;
}

uint64_t stack_memory(const struct collect_conf *c, char *why, size_t room)
{
    uint64_t mib = c->memory_b / MIB;
    uint64_t array = mib * 18 / 1000; /* the guest's page array, 1.6 %, and its page tables */
    uint64_t base = 300 + c->nics * 8;
    uint64_t nested = c->guests ? 700 + c->guests * (300 + 200) : 0;
    uint64_t all = base + array + nested;
    if (!c->guests && mib < 2048 && all > mib + 200)
        all = mib + 200;
    snprintf(why, room,
             "%" PRIu64 " MiB (%" PRIu64 " for QEMU and guest, %" PRIu64
             " for the page array of a %" PRIu64 " MiB guest, %" PRIu64 " for L2s and clients)",
             all, base, array, mib, nested);
    return all * MIB;
}
