#include "deploy/slurm.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/num.h"

enum { COMMAND_MS = 30000, OUTPUT_MAX = 4 << 20 };

/* What a job may know of our environment: Slurm hands it on, and secrets of the user have no business there. */
static char **clean_environment(void)
{
    static const char *const keep[] = { "PATH=", "HOME=",  "USER=",  "LOGNAME=", "LANG=",
                                        "SLURM", "SBATCH", "SQUEUE", "TZ=" };
    extern char **environ;
    size_t n = 0, all = 0;
    while (environ[all])
        all++;
    char **v = calloc(all + 1, sizeof(*v));
    for (size_t i = 0; v && i < all; i++)
        for (size_t k = 0; k < ARRAY_LEN(keep); k++)
            if (!strncmp(environ[i], keep[k], strlen(keep[k]))) {
                v[n++] = environ[i];
                break;
            }
    return v;
}

/* Runs in the child. */
static void become(const char *const argv[], char **env, int out, int errors)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(errors, 2) < 0)
        _exit(126);
    execvpe(argv[0], (char *const *)argv, env);
    _exit(127);
}

/* Read both pipes until they end. false when the time is up first. */
static bool drain(int out, int errors, struct buf *b, struct buf *said)
{
    struct pollfd p[2] = { { .fd = out, .events = POLLIN }, { .fd = errors, .events = POLLIN } };
    uint64_t end = clock_mono_ms() + COMMAND_MS;
    while (p[0].fd >= 0 || p[1].fd >= 0) {
        uint64_t now = clock_mono_ms();
        if (now >= end)
            return false;
        if (poll(p, 2, (int)(end - now)) < 0)
            continue; /* a signal: the command goes on */
        for (int i = 0; i < 2; i++) {
            char text[8192];
            if (p[i].fd < 0 || !p[i].revents)
                continue;
            ssize_t n = read(p[i].fd, text, sizeof(text));
            if (n == 0 || (n < 0 && errno != EINTR))
                p[i].fd = -1;
            else if (n > 0)
                buf_add(i ? said : b, text, (size_t)n); /* what is beyond the cap is lost */
        }
    }
    return true;
}

/* The last line, which is where Slurm's commands put the cause. */
static const char *last_line(struct buf *said)
{
    if (!said->len)
        return "";
    char *s = (char *)said->data;
    size_t n = strlen(s);
    while (n && (s[n - 1] == '\n' || s[n - 1] == ' '))
        s[--n] = '\0';
    char *line = strrchr(s, '\n');
    return line ? line + 1 : s;
}

/* Run it; its output into *b, a terminating 0 behind it. -SF_EFAILED with what it said. */
static int run(const char *const argv[], struct buf *b, struct err *e)
{
    CLEANUP(buf_clear) struct buf said = BUF_INIT(65536);
    CLEANUP(freep) char **env = clean_environment();
    int out[2] = { -1, -1 }, errors[2] = { -1, -1 };
    if (!env)
        return err_sys(e, ENOMEM, "%s", argv[0]);
    if (pipe2(out, O_CLOEXEC) < 0)
        return err_sys(e, errno, "%s", argv[0]);
    if (pipe2(errors, O_CLOEXEC) < 0) {
        close(out[0]);
        close(out[1]);
        return err_sys(e, errno, "%s", argv[0]);
    }
    pid_t pid = fork();
    if (pid == 0)
        become(argv, env, out[1], errors[1]);
    int wrong = errno, status = 0;
    close(out[1]);
    close(errors[1]);
    bool whole = pid > 0 && drain(out[0], errors[0], b, &said);
    close(out[0]);
    close(errors[0]);
    if (pid < 0)
        return err_sys(e, wrong, "%s", argv[0]);
    if (!whole)
        kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!whole)
        return err_set(e, ETIMEDOUT, "%s: no answer in %d s", argv[0], COMMAND_MS / 1000);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127 && !said.len)
        return err_set(e, ENOENT, "%s: not found: is this a machine of a Slurm cluster?", argv[0]);
    if (status != 0) {
        const char *line = last_line(&said);
        size_t own = strlen(argv[0]);
        if (!strncmp(line, argv[0], own) && !strncmp(line + own, ": ", 2))
            line += own + 2;
        if (!strncmp(line, "error: ", 7))
            line += 7;
        return err_set(e, SF_EFAILED, "%s: %s", argv[0], *line ? line : "failed without a word");
    }
    return 0;
}

/* ---- the queue */

void slurm_list_clear(struct slurm_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].dir);
    free(l->v);
    *l = (struct slurm_list){ 0 };
}

/* [[D-]HH:]MM:SS */
static uint64_t time_left(const char *s)
{
    uint64_t days = 0, v = 0;
    const char *dash = strchr(s, '-');
    if (dash) {
        days = strtoull(s, NULL, 10);
        s = dash + 1;
    }
    if (*s < '0' || *s > '9')
        return UINT64_MAX; /* UNLIMITED, NOT_SET, INVALID */
    for (;;) {
        char *end;
        v = v * 60 + strtoull(s, &end, 10);
        if (*end != ':')
            break;
        s = end + 1;
    }
    return (days * 86400 + v) * 1000;
}

static int state_of(const char *word)
{
    static const struct {
        const char *word;
        int state;
    } words[] = {
        { "PENDING", SLURM_PENDING },      { "REQUEUED", SLURM_PENDING },
        { "REQUEUE_HOLD", SLURM_PENDING }, { "REQUEUE_FED", SLURM_PENDING },
        { "SPECIAL_EXIT", SLURM_PENDING }, { "RESV_DEL_HOLD", SLURM_PENDING },
        { "RUNNING", SLURM_RUNNING },      { "CONFIGURING", SLURM_RUNNING },
        { "SUSPENDED", SLURM_RUNNING },    { "STOPPED", SLURM_RUNNING },
        { "RESIZING", SLURM_RUNNING },     { "COMPLETING", SLURM_ENDING },
        { "SIGNALING", SLURM_ENDING },     { "STAGE_OUT", SLURM_ENDING },
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(words[i].word, word))
            return words[i].state;
    return SLURM_ENDED;
}

static int by_id(const void *a, const void *b)
{
    const struct slurm_job *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

int slurm_parse(char *text, struct slurm_list *ret, struct err *e)
{
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *part[6];
        size_t n = 0;
        while (n < 5 && (part[n] = strsep(&line, "|")) && line)
            n++;
        part[5] = line; /* a folder may hold any letter */
        uint64_t id;
        if (n < 5 || num_u64(part[0], 1, UINT64_MAX, "job", &id, NULL) < 0)
            continue; /* of an array, or none */
        struct slurm_job *v = realloc(ret->v, (ret->n + 1) * sizeof(*v));
        if (!v)
            return err_sys(e, ENOMEM, "squeue");
        ret->v = v;
        struct slurm_job *j = &v[ret->n];
        *j = (struct slurm_job){ .id = id, .state = (unsigned)state_of(part[1]) };
        snprintf(j->word, sizeof(j->word), "%s", part[1]);
        snprintf(j->reason, sizeof(j->reason), "%s", part[2]);
        j->left_ms = time_left(part[3]);
        snprintf(j->node, sizeof(j->node), "%s", part[4]);
        if (!(j->dir = strdup(part[5])))
            return err_sys(e, ENOMEM, "squeue");
        ret->n++;
    }
    if (ret->n)
        qsort(ret->v, ret->n, sizeof(*ret->v), by_id);
    return 0;
}

int slurm_list(struct slurm_list *ret, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(OUTPUT_MAX);
    char uid[24];
    snprintf(uid, sizeof(uid), "%u", (unsigned)getuid());
    const char *const argv[] = {
        "squeue", "-h", "-a", "-t", "all", "-u", uid, "-o", "%i|%T|%r|%L|%N|%Z", NULL
    };
    int r = run(argv, &b, e);
    if (r == 0 && b.len)
        r = slurm_parse((char *)b.data, ret, e);
    return r;
}

/* ---- jobs */

/* Where its words go; Slurm expands % in it. */
static void output(const char *dir, char *out, size_t room)
{
    size_t n = (size_t)snprintf(out, room, "--output=");
    for (; *dir && n < room - 20; dir++) {
        if (*dir == '%')
            out[n++] = '%';
        out[n++] = *dir;
    }
    snprintf(out + n, room - n, "/log/job-%%j.log");
}

int slurm_submit(const struct slurm_conf *c, const char *name, const char *dir, bool test,
                 uint64_t *ret_id, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(65536);
    char cores[64], memory[64], minutes[64], job[128], work[1200], out[2400], script[1200];
    char partition[300], account[300], qos[300], constraint[300], reservation[300];
    const char *argv[128];
    size_t n = 0;
    snprintf(cores, sizeof(cores), "--cpus-per-task=%llu", (unsigned long long)c->cores);
    snprintf(memory, sizeof(memory), "--mem=%lluM", (unsigned long long)c->memory_mib);
    snprintf(minutes, sizeof(minutes), "--time=%llu",
             (unsigned long long)(c->walltime_ms + 59999) / 60000);
    snprintf(job, sizeof(job), "--job-name=%s", name);
    snprintf(work, sizeof(work), "--chdir=%s", dir);
    output(dir, out, sizeof(out));
    snprintf(script, sizeof(script), "%s/job.sh", c->data);
    argv[n++] = "sbatch";
    argv[n++] = test ? "--test-only" : "--parsable";
    /* Slurm must not start it again by itself: it would be a second agent of this name */
    argv[n++] = "--no-requeue";
    argv[n++] = "--export=ALL";
    argv[n++] = "--nodes=1";
    argv[n++] = "--ntasks=1";
    argv[n++] = cores;
    argv[n++] = minutes;
    argv[n++] = job;
    argv[n++] = work;
    argv[n++] = out;
    argv[n++] = "--open-mode=append";
    if (c->memory_mib)
        argv[n++] = memory;
    const struct {
        const char *name, *value;
        char *text;
    } own[] = { { "partition", c->partition, partition },
                { "account", c->account, account },
                { "qos", c->qos, qos },
                { "constraint", c->constraint, constraint },
                { "reservation", c->reservation, reservation } };
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (own[i].value) {
            snprintf(own[i].text, 300, "--%s=%s", own[i].name, own[i].value);
            argv[n++] = own[i].text;
        }
    for (char **o = c->options; *o; o++) {
        if (n > ARRAY_LEN(argv) - 4)
            return err_set(e, E2BIG, "%s: more than a hundred options=", c->path);
        argv[n++] = *o;
    }
    argv[n++] = script;
    argv[n++] = dir;
    argv[n] = NULL;
    int r = run(argv, &b, e);
    if (r < 0 || test)
        return r;
    /* ID, or ID;CLUSTER */
    char *text = b.len ? (char *)b.data : (char *)"";
    char digits[24];
    snprintf(digits, sizeof(digits), "%.*s", (int)strspn(text, "0123456789"), text);
    if (num_u64(digits, 1, UINT64_MAX, "job", ret_id, NULL) < 0)
        return err_set(e, SF_EFAILED, "sbatch: says '%.80s' instead of a job's number", text);
    return 0;
}

int slurm_cancel(uint64_t id, bool at_once, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(65536);
    char number[24];
    snprintf(number, sizeof(number), "%llu", (unsigned long long)id);
    /* --batch reaches the script's process, which is the agent */
    const char *const soft[] = { "scancel", "--quiet", "--batch", "--signal=TERM", number, NULL };
    const char *const hard[] = { "scancel", "--quiet", number, NULL };
    return run(at_once ? hard : soft, &b, e);
}

/* The value of " KEY=" in a line of scontrol. */
static void value(const char *line, const char *key, char ret[64])
{
    const char *at = strstr(line, key);
    ret[0] = '\0';
    if (at)
        snprintf(ret, 64, "%.*s", (int)strcspn(at + strlen(key), " \n"), at + strlen(key));
}

void slurm_why(uint64_t id, char text[160])
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(65536);
    char number[24], state[64] = "", code[64] = "", reason[64] = "", node[64] = "";
    snprintf(number, sizeof(number), "%llu", (unsigned long long)id);
    const char *const argv[] = { "scontrol", "-o", "show", "job", number, NULL };
    if (run(argv, &b, NULL) < 0 || !b.len) {
        snprintf(text, 160, "vanished from Slurm's queue");
        return;
    }
    const char *line = (const char *)b.data;
    value(line, " JobState=", state);
    value(line, " ExitCode=", code);
    value(line, " Reason=", reason);
    value(line, " BatchHost=", node);
    unsigned status = 0, signo = 0;
    if (sscanf(code, "%u:%u", &status, &signo) != 2)
        status = signo = 0;
    int n = snprintf(text, 160, "%s", state);
    if (signo)
        n += snprintf(text + n, 160 - (size_t)n, " by signal %u", signo);
    else if (status)
        n += snprintf(text + n, 160 - (size_t)n, " with status %u", status);
    if (node[0] && n < 160)
        n += snprintf(text + n, 160 - (size_t)n, " on %s", node);
    if (reason[0] && strcmp(reason, "None") != 0 && n < 160)
        snprintf(text + n, 160 - (size_t)n, " (%s)", reason);
}
