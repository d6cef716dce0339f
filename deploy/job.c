#include "deploy/job.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "deploy/embed.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/num.h"

enum { REFUSED_TRIES = 5, OPEN_MS = 20000 };

void job_clear(struct job *j)
{
    job_disconnect(j);
    free(j->data);
    j->data = NULL;
}

/* ---- saying what happens */

void job_note(struct job *j, const char *fmt, ...)
{
    if (!j->p->note)
        return;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    j->p->note(j->h->name, text);
}

bool job_action(struct job *j, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    json_array_append_new(j->ret->actions, json_str(text));
    if (j->p->dry_run)
        job_note(j, "would %s", text);
    return !j->p->dry_run;
}

int job_fail(struct job *j, const char *step, const struct err *e, const char *fix)
{
    /* its name in front is dropped: whoever prints the message has it */
    size_t n = strlen(j->h->name);
    const char *text = e->text;
    if (!strncmp(text, j->h->name, n) && !strncmp(text + n, ": ", 2))
        text += n + 2;
    j->ret->status = PLACE_FAILED;
    j->ret->step = step;
    j->ret->code = e->code ? e->code : SF_EFAILED;
    snprintf(j->ret->message, sizeof(j->ret->message), "%s", text);
    snprintf(j->ret->fix, sizeof(j->ret->fix), "%s", fix ? fix : "");
    return -j->ret->code;
}

int job_failf(struct job *j, int code, const char *step, const char *fix, const char *fmt, ...)
{
    struct err e;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err_set(&e, code, "%s", text);
    return job_fail(j, step, &e, fix);
}

static void join(char *to, size_t room, const char *more)
{
    size_t n = strlen(to);
    if (more[0])
        snprintf(to + n, room - n, "%s%s", n ? "; " : "", more);
}

void job_problem(struct job *j, const char *step, const char *fix, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (j->ret->status != PLACE_FAILED) {
        j->ret->status = PLACE_FAILED;
        j->ret->step = step;
        j->ret->code = SF_EFAILED;
    }
    join(j->ret->message, sizeof(j->ret->message), text);
    join(j->ret->fix, sizeof(j->ret->fix), fix);
    json_t *list = json_object_get(j->ret->facts, "problems");
    if (!list) {
        list = json_array();
        json_object_set_new(j->ret->facts, "problems", list);
    }
    json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "step", step, "message",
                                          json_str(text), "fix", json_str(fix)));
}

void job_forgive(struct job *j)
{
    j->ret->status = PLACE_OK;
    j->ret->code = 0;
    j->ret->message[0] = j->ret->fix[0] = '\0';
}

/* ---- talking to the host */

static const char *login_fix(enum ssh_step at)
{
    switch (at) {
    case SSH_REACH:
        return "is it on, is the address right, does sshd listen on that port?";
    case SSH_HANDSHAKE:
        return "is that an sshd? it may be overloaded (MaxStartups in its sshd_config)";
    case SSH_HOSTKEY:
        return "compare the fingerprint with the host's own (there: ssh-keygen -lf "
               "/etc/ssh/ssh_host_ed25519_key.pub), then put it into known_hosts or pin it with "
               "hostkey=";
    default:
        return "put your public key into ~/.ssh/authorized_keys there (ssh-copy-id), or name the "
               "right key with identity=";
    }
}

int job_open(struct job *j, uint64_t timeout_ms, enum ssh_step *ret_at, struct err *e)
{
    const struct ssh_target t = { .name = j->h->name,
                                  .address = j->h->address,
                                  .port = j->h->port,
                                  .user = j->h->user,
                                  .identity = j->p->hosts->identity,
                                  .known_hosts = j->p->hosts->known_hosts,
                                  .hostkey = j->h->hostkey };
    return ssh_open(&t, timeout_ms, &j->ssh, ret_at, e);
}

int job_connect(struct job *j)
{
    uint64_t deadline = clock_mono_ms() + j->p->timeout_ms;
    for (unsigned i = 1;; i++) {
        struct err e = { 0 };
        enum ssh_step at = SSH_REACH;
        uint64_t now = clock_mono_ms(), left = deadline > now ? deadline - now : 1;
        int r = job_open(j, left < OPEN_MS ? left : OPEN_MS, &at, &e);
        if (r == 0)
            return 0;
        /* Only what may pass by itself: an sshd at its MaxStartups drops connections at random, so that is asked for
         * patiently; a port that refuses may be an sshd that restarts. A refused key is refused at once. */
        uint64_t nap = 200 * i + clock_mono_ns() % 300;
        bool again = (r == -ECONNRESET && at <= SSH_HANDSHAKE) ||
                     (r == -ECONNREFUSED && i < REFUSED_TRIES) || (r == -ETIMEDOUT && i == 1);
        if (!again || clock_mono_ms() + nap >= deadline)
            return job_fail(j, "connect", &e, login_fix(at));
        usleep((useconds_t)nap * 1000);
    }
}

void job_disconnect(struct job *j)
{
    if (j->ssh)
        j->ret->bytes_sent += ssh_sent_b(j->ssh);
    ssh_free(&j->ssh);
}

void words_add(struct words *w, const char *verb, ...)
{
    size_t at = w->n, args = 0;
    if (w->n + 2 >= ARRAY_LEN(w->v) || w->verbs == ARRAY_LEN(w->counts))
        abort(); /* fixed calls of ours, far below these bounds */
    w->v[w->n] = verb;
    w->n += 2;
    va_list ap;
    va_start(ap, verb);
    for (const char *s = va_arg(ap, const char *); s; s = va_arg(ap, const char *), args++) {
        if (w->n + 1 >= ARRAY_LEN(w->v))
            abort();
        w->v[w->n++] = s;
    }
    va_end(ap);
    snprintf(w->counts[w->verbs], sizeof(w->counts[0]), "%zu", args);
    w->v[at + 1] = w->counts[w->verbs++];
    w->v[w->n] = NULL;
}

/* What people call it, for the verb of host.sh that failed. */
static const char *step_of(const char *verb)
{
    static const char *const names[][2] = {
        { "probe", "probe" },    { "look", "probe" },          { "put", "copy" },
        { "forget", "copy" },    { "pack", "collect" },        { "key", "key" },
        { "start", "start" },    { "configure", "configure" }, { "ready", "register" },
        { "prune", "prune" },    { "rollback", "rollback" },   { "boot", "reboot" },
        { "reboot", "reboot" },  { "step", "setup" },          { "mark", "setup" },
        { "status", "status" },  { "logs", "logs" },           { "remove", "remove" },
        { "allow", "allow" },    { "allowed", "allow" },       { "revoke", "revoke" },
        { "pub", "server key" }, { "stop", "stop" },
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!strcmp(names[i][0], verb))
            return names[i][1];
    return "login";
}

/* What a failed command said: its code, and what mends it. */
static int judge(const char *said, const char **ret_fix)
{
    static const struct {
        const char *text;
        int code;
        const char *fix;
    } known[] = {
        { "No space left", ENOSPC, "free some space there, or choose another data=" },
        { "Disk quota exceeded", EDQUOT, "raise the quota, or choose another data=" },
        { "Read-only file system", EROFS, "mount it writable, or choose another data=" },
        { "Permission denied", EACCES, "give the user that folder, or choose another data=" },
        { " is shared with the host ", EEXIST,
          "give each host a data= of its own (was the machine renamed: remove .siofleet there)" },
        { "another siofleet deploy is at work", EWOULDBLOCK, "wait for it, then run this again" },
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strstr(said, known[i].text)) {
            *ret_fix = known[i].fix;
            return known[i].code;
        }
    *ret_fix = NULL;
    return SF_EFAILED;
}

int job_call(struct job *j, const struct words *w, ssh_source in, void *in_user,
             uint64_t timeout_ms, struct ssh_result *ret)
{
    CLEANUP(ssh_result_clear) struct ssh_result local = { 0 };
    if (!ret)
        ret = &local;
    const char *words[ARRAY_LEN(w->v) + 2] = { j->data ? j->data : j->h->data };
    memcpy(words + 1, w->v, (w->n + 1) * sizeof(w->v[0]));
    struct err e = { 0 };
    int r = ssh_script(j->ssh, embed_host, words, in, in_user, timeout_ms, ret, &e);
    if (r < 0)
        return job_fail(j, step_of(w->v[0]), &e, NULL);
    if (ret->status == 0)
        return 0;
    /* the last line names the verb, the first one says why */
    char *said = ret->err.len ? (char *)ret->err.data : (char *)"";
    char *last = strstr(said, "verb ");
    for (char *p = last; p; p = strstr(p + 1, "\nverb "))
        last = *p == '\n' ? p + 1 : p;
    const char *verb = last ? last + 5 : "";
    if (last) {
        last[strcspn(last, "\n")] = '\0';
        if (last > said)
            last[-1] = '\0';
        else
            said = last + strlen(last);
    }
    const char *fix;
    int code = judge(said, &fix), n = (int)strcspn(said, "\n");
    if (!strncmp(said, "siofleet: ", 10))
        said += 10, n -= 10;
    if (n <= 0)
        return job_failf(j, code, step_of(verb), fix, "'%s' ended with status %d", verb,
                         ret->status);
    return job_failf(j, code, step_of(verb), fix, "%.*s", n, said);
}

/* ---- what the host said of itself */

void job_facts(struct job *j, char *lines)
{
    if (!j->ret->facts)
        j->ret->facts = json_object();
    char *save = NULL;
    for (char *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *blank = strchr(line, ' ');
        if (!blank)
            continue;
        *blank = '\0';
        if (!strcmp(line, "have") || !strcmp(line, "step") || !strcmp(line, "part")) {
            json_t *list = json_object_get(j->ret->facts, line);
            if (!list) {
                list = json_array();
                json_object_set_new(j->ret->facts, line, list);
            }
            json_array_append_new(list, json_str(blank + 1));
        } else {
            json_object_set_new(j->ret->facts, line, json_str(blank + 1));
        }
    }
}

const char *job_fact(const struct job *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j->ret->facts, key));
    return s ? s : "";
}

uint64_t job_fact_u64(const struct job *j, const char *key)
{
    uint64_t v = 0;
    return num_u64(job_fact(j, key), 0, UINT64_MAX, key, &v, NULL) == 0 ? v : 0;
}

bool job_fact_has(const struct job *j, const char *key, const char *value)
{
    size_t i;
    json_t *v;
    json_array_foreach (json_object_get(j->ret->facts, key), i, v)
        if (!strcmp(json_string_value(v), value))
            return true;
    return false;
}

int job_probe(struct job *j, enum place_verb verb)
{
    CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
    struct words w = { .n = 0 };
    char host[256] = "", port[8] = "", bulk[8] = "";
    words_add(&w, "probe", NULL);
    if (verb == PLACE_CHECK) {
        hosts_endpoint(j->p->hosts, host, port);
        if (j->p->hosts->bulk_port)
            snprintf(bulk, sizeof(bulk), "%u", (unsigned)j->p->hosts->bulk_port);
        words_add(&w, "look", host, port, bulk, embed_kvm, NULL);
    } else if (verb == PLACE_STATUS) {
        words_add(&w, "status", NULL);
    }
    words_add(&w, "clock", NULL);
    uint64_t t0 = clock_wall_ms();
    int r = job_call(j, &w, NULL, NULL, j->p->timeout_ms, &res);
    if (r < 0)
        return r;
    uint64_t t1 = clock_wall_ms();
    json_decref(j->ret->facts);
    j->ret->facts = NULL;
    if (res.out.len)
        job_facts(j, (char *)res.out.data);
    if (!job_fact(j, "data")[0])
        return job_failf(j, SF_EFAILED, "probe",
                         "let its shell start commands that come over ssh (no menu, no exit in its "
                         "start-up files)",
                         "its shell does not answer as expected");
    free(j->data);
    j->data = strdup(job_fact(j, "data"));
    /* offset of its clock against ours: the middles of what both saw of the call */
    uint64_t there = (job_fact_u64(j, "clock_ms") + job_fact_u64(j, "clock_end_ms")) / 2,
             here = t0 + (t1 - t0) / 2;
    char offset[32];
    snprintf(offset, sizeof(offset), "%lld", (long long)(there - here));
    json_object_set_new(j->ret->facts, "clock_offset_ms", json_str(offset));
    if (job_fact(j, "release")[0])
        snprintf(j->ret->version, sizeof(j->ret->version), "%.16s", job_fact(j, "release"));
    return j->data ? 0 : job_failf(j, ENOMEM, "probe", NULL, "out of memory");
}
