#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "deploy/job.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/lib/hash.h"

enum { SECRET_MAX = 65536, BOOT_TRY_MS = 5000 };

/* Reboot and come back: until the machine says another boot id, or the step's deadline. */
static int reboot_host(struct job *j, const struct setup_step *s)
{
    CLEANUP(ssh_result_clear) struct ssh_result before = { 0 };
    struct words w = { .n = 0 }, boot = { .n = 0 };
    words_add(&w, "boot", NULL);
    words_add(&w, "reboot", s->sudo ? "yes" : "no", NULL);
    words_add(&boot, "boot", NULL);
    int r = job_call(j, &w, NULL, NULL, j->p->timeout_ms, &before);
    if (r < 0)
        return r;
    job_note(j, "reboots after set-up step '%s'", s->name);
    uint64_t deadline = clock_mono_ms() + s->timeout_ms;
    while (clock_mono_ms() < deadline) {
        job_disconnect(j);
        usleep(500000);
        struct err e = { 0 };
        enum ssh_step at;
        r = job_open(j, BOOT_TRY_MS, &at, &e);
        if (r == -SF_EREFUSED)
            return job_fail(j, "reboot", &e, NULL);
        CLEANUP(ssh_result_clear) struct ssh_result now = { 0 };
        if (r < 0 || job_call(j, &boot, NULL, NULL, BOOT_TRY_MS, &now) < 0) {
            job_forgive(j);
            continue;
        }
        if (now.out.len && before.out.len &&
            strcmp((char *)now.out.data, (char *)before.out.data) != 0)
            return 0;
    }
    return job_failf(j, ETIMEDOUT, "reboot", "look at its console; up again goes on",
                     "did not come back from the reboot of step '%s' in %llu s", s->name,
                     (unsigned long long)s->timeout_ms / 1000);
}

struct feed {
    const uint8_t *p;
    size_t n;
};
static long feed(void *user, void *p, size_t n)
{
    struct feed *f = user;
    if (n > f->n)
        n = f->n;
    memcpy(p, f->p, n);
    f->p += n;
    f->n -= n;
    return (long)n;
}

static int add_base64(struct buf *b, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        char o[4] = { digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
                      i + 2 < n ? digits[v & 63] : '=' };
        r = buf_add(b, o, 4);
    }
    return r;
}

/* Lines NAME BASE64 for the command's standard input. */
static int read_secrets(const struct setup_step *s, struct buf *lines, struct err *e)
{
    for (size_t i = 0; i < s->n_secrets; i++) {
        const struct secret *o = &s->secrets[i];
        CLEANUP(buf_clear) struct buf b = BUF_INIT(SECRET_MAX);
        if (o->file) {
            int r = file_read(o->file, &b, e);
            if (r < 0)
                return err_wrap(e, r, "setup.%s.secret.%s", s->name, o->name);
            while (b.len && b.data[b.len - 1] == '\n')
                b.len--;
        } else {
            const char *v = getenv(o->env);
            if (!v)
                return err_set(e, SF_EUSAGE, "setup.%s.secret.%s: %s is not in the environment",
                               s->name, o->name, o->env);
            if (buf_adds(&b, v) < 0)
                return err_set(e, E2BIG, "setup.%s.secret.%s: longer than %d bytes", s->name,
                               o->name, SECRET_MAX);
        }
        if (!b.len || memchr(b.data, '\0', b.len))
            return err_set(e, SF_EUSAGE, "setup.%s.secret.%s: is empty or holds a zero byte",
                           s->name, o->name);
        if (buf_addf(lines, "%s ", o->name) < 0 || add_base64(lines, b.data, b.len) < 0 ||
            buf_adds(lines, "\n") < 0)
            return err_set(e, E2BIG, "setup.%s: too many secrets", s->name);
        explicit_bzero(b.data, b.len);
    }
    return 0;
}

/* What the step is, in its file names on the host: its name, and the hash of what it does. */
static void step_mark(const struct setup_step *s, char mark[120])
{
    struct hasher h;
    struct id id;
    char hex[ID_HEX_LEN];
    hasher_init(&h);
    hasher_add(&h, s->command, strlen(s->command) + 1);
    hasher_add(&h, s->sudo ? "s" : "-", 1);
    hasher_add(&h, s->reboot ? "r" : "-", 1);
    hasher_end(&h, &id);
    id_hex(&id, hex);
    snprintf(mark, 120, "%.64s.%.16s", s->name, hex);
}

static int run_step(struct job *j, const struct setup_step *s, const char *mark)
{
    char seconds[24];
    snprintf(seconds, sizeof(seconds), "%llu", (unsigned long long)(s->timeout_ms + 999) / 1000);
    CLEANUP(buf_clear) struct buf lines = BUF_INIT(16 * SECRET_MAX);
    struct err e = { 0 };
    int r = read_secrets(s, &lines, &e);
    if (r < 0)
        return job_fail(j, "setup", &e, "secrets are read on this machine");
    struct feed f = { lines.data, lines.len };
    struct words w = { .n = 0 };
    words_add(&w, "step", mark, seconds, s->sudo ? "yes" : "no", s->command, NULL);
    if (!s->reboot)
        words_add(&w, "mark", mark, NULL);
    job_note(j, "set-up step '%s'", s->name);
    /* it may wait for its turn, and a command that ignores SIGTERM has some more */
    r = job_call(j, &w, feed, &f, s->timeout_ms + 40000, NULL);
    if (lines.len)
        explicit_bzero(lines.data, lines.len);
    if (r < 0) {
        char text[sizeof(j->ret->message)];
        snprintf(text, sizeof(text), "set-up step '%s': %.400s", s->name, j->ret->message);
        snprintf(j->ret->message, sizeof(j->ret->message), "%s", text);
        if (j->ret->code == EWOULDBLOCK || j->ret->code == EEXIST)
            return r; /* it did not run at all */
        snprintf(j->ret->fix, sizeof(j->ret->fix),
                 "its output is in %.200s/steps/%s.log there; run up again to go on with it",
                 j->data, mark);
        return r;
    }
    if (!s->reboot)
        return 0;
    r = reboot_host(j, s);
    if (r < 0)
        return r;
    struct words done = { .n = 0 };
    words_add(&done, "mark", mark, NULL);
    return job_call(j, &done, NULL, NULL, j->p->timeout_ms, NULL);
}

int setup_steps(struct job *j)
{
    const struct host_class *c = j->h->class;
    bool rebooted = false;
    for (size_t i = 0; i < c->n_steps; i++) {
        const struct setup_step *s = &c->steps[i];
        char mark[120];
        step_mark(s, mark);
        if (job_fact_has(j, "step", mark) ||
            !job_action(j, "run set-up step '%s'%s", s->name, s->reboot ? ", then reboot" : ""))
            continue;
        int r = run_step(j, s, mark);
        if (r < 0)
            return r;
        rebooted |= s->reboot;
    }
    /* what ran before a reboot does not run now */
    return rebooted ? job_probe(j, PLACE_UP) : 0;
}
