/* siofleet-shim from outside: it is a program, so it is run. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/cgroup.h"
#include "agent/orphans.h"
#include "agent/ring.h"
#include "agent/tree.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/lib/json.h"

static char shim[4096], dir[4096];

static void setup(void)
{
    const char *bin = getenv("SIOFLEET_BIN"), *tmp = getenv("TMPDIR");
    cr_assert(bin, "SIOFLEET_BIN names the build folder");
    snprintf(shim, sizeof(shim), "%s/siofleet-shim", bin);
    snprintf(dir, sizeof(dir), "%s/shim-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(dir));
}

static void teardown(void)
{
    struct err e;
    cr_assert(dir_remove(dir, &e) == 0, "%s", e.text);
}

TestSuite(shim, .init = setup, .fini = teardown);

static void nap(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

/* Start the shim with `opts` (blank-separated) on `sh -c script`. */
static pid_t spawn(const char *opts, const char *script)
{
    const char *argv[32] = { shim };
    int n = 1;
    char *copy = strdup(opts), *save = NULL;
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[n++] = w;
    argv[n++] = dir;
    argv[n++] = "--";
    argv[n++] = "/bin/sh";
    argv[n++] = "-c";
    argv[n++] = script;
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        execv(shim, (char **)argv);
        _exit(99);
    }
    free(copy);
    return pid;
}

static int wait_exit(pid_t pid)
{
    int status;
    cr_assert(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool have(const char *name)
{
    CLEANUP(freep) char *p = path_fmt("%s/%s", dir, name);
    struct stat st;
    return stat(p, &st) == 0 && st.st_size > 0;
}

static void wait_for(const char *name)
{
    for (int i = 0; i < 12000 && !have(name); i++)
        nap();
    cr_assert(have(name), "%s did not appear", name);
}

static long number_in(const char *name)
{
    CLEANUP(freep) char *p = path_fmt("%s/%s", dir, name);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    struct err e;
    cr_assert(file_read(p, &b, &e) == 0, "%s", e.text);
    return strtol((char *)b.data, NULL, 10);
}

/* Gone, or a zombie that its new parent has not waited for yet. */
static bool gone(long pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return true;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    char *p = n > 0 ? strrchr(text, ')') : NULL;
    return !p || p[2] == 'Z' || p[2] == 'X';
}

static void assert_gone(const char *name)
{
    long pid = number_in(name);
    for (int i = 0; i < 2000 && !gone(pid); i++)
        nap();
    cr_assert(gone(pid), "%s (%ld) still runs", name, pid);
}

static json_t *status(void)
{
    CLEANUP(freep) char *p = path_fmt("%s/status", dir);
    json_error_t je;
    json_t *j = json_load_file(p, 0, &je);
    cr_assert(j, "%s: %s", p, je.text);
    cr_assert_str_eq(json_string_value(json_object_get(j, "schema")), "siofleet.task-status/1");
    return j;
}

static void expect(const char *cause, int code, int sig)
{
    json_t *j = status();
    cr_assert_str_eq(json_string_value(json_object_get(j, "cause")), cause);
    cr_assert_eq(json_integer_value(json_object_get(j, "exit")), code);
    cr_assert_eq(json_integer_value(json_object_get(j, "signal")), sig);
    json_decref(j);
}

static char *tail_of(const char *name, uint64_t max)
{
    CLEANUP(freep) char *p = path_fmt("%s/%s", dir, name);
    struct buf b = BUF_INIT(1 << 20);
    struct err e;
    cr_assert(ring_tail(p, max, &b, &e) == 0, "%s", e.text);
    char *s = strdup(b.data ? (char *)b.data : "");
    buf_clear(&b);
    return s;
}

Test(shim, keeps_how_the_command_ended)
{
    const struct {
        const char *script, *cause;
        int code, sig;
    } rows[] = { { "exit 0", "done", 0, 0 },
                 { "exit 7", "exit", 7, 0 },
                 { "kill -SEGV $$", "signal", 0, SIGSEGV },
                 { "exec /no/such/program", "exit", 127, 0 } };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cr_assert_eq(wait_exit(spawn("", rows[i].script)), 0);
        expect(rows[i].cause, rows[i].code, rows[i].sig);
    }
}

Test(shim, keeps_both_streams_apart)
{
    wait_exit(spawn("", "echo data; echo trouble >&2"));
    CLEANUP(freep) char *out = tail_of("stdout", 1000), *err = tail_of("stderr", 1000);
    cr_assert_str_eq(out, "data\n");
    cr_assert_str_eq(err, "trouble\n");
}

Test(shim, command_that_cannot_start_says_why)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl(shim, shim, dir, "--", "/no/such/program", (char *)NULL);
        _exit(99);
    }
    cr_assert_eq(wait_exit(pid), 0);
    expect("exit", 127, 0);
    CLEANUP(freep) char *err = tail_of("stderr", 1000);
    cr_assert_str_eq(err, "siofleet: /no/such/program: No such file or directory\n");
}

Test(shim, output_is_bounded_and_keeps_head_and_tail)
{
    wait_exit(
        spawn("--log-cap 8192", "i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i+1)); done"));
    CLEANUP(freep) char *p = path_fmt("%s/stdout", dir);
    struct stat st;
    cr_assert(stat(p, &st) == 0 && st.st_size <= 8192 + RING_HEADER);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    struct err e;
    uint64_t next;
    cr_assert(ring_read(p, 0, UINT64_MAX, &b, &next, &e) == 0);
    cr_assert(b.len == 8192);
    cr_assert(!strncmp((char *)b.data, "line 0\nline 1\n", 14));
    cr_assert(!strcmp((char *)b.data + b.len - 10, "line 3999\n"));
    CLEANUP(freep) char *t = tail_of("stdout", 25);
    cr_assert_str_eq(t, "line 3998\nline 3999\n");
    buf_reset(&b);
    cr_assert(ring_read(p, next, UINT64_MAX, &b, &next, &e) == 0);
    cr_assert_eq(b.len, 0);
}

/* A grandchild in its own session that ignores SIGTERM and whose parents are gone: the hardest one
 * to end. */
#define STUBBORN                                                                                   \
    "(setsid sh -c 'trap \"\" TERM HUP; echo $$ >far; while :; do sleep 1; done' >/dev/null 2>&1 " \
    "&) & "                                                                                        \
    "while [ ! -s far ]; do sleep 0.02; done; "

Test(shim, nothing_of_the_tree_outlives_a_normal_end)
{
    wait_exit(spawn("", STUBBORN "exit 3"));
    expect("exit", 3, 0);
    assert_gone("far");
    json_t *j = status();
    cr_assert_geq(json_integer_value(json_object_get(j, "killed")), 1);
    cr_assert_eq(json_integer_value(json_object_get(j, "left")), 0);
    json_decref(j);
}

Test(shim, timeout_ends_the_whole_tree)
{
    wait_exit(spawn("--timeout-ms 300 --grace-ms 100",
                    STUBBORN "trap '' TERM; while :; do sleep 1; done"));
    json_t *j = status();
    cr_assert_str_eq(json_string_value(json_object_get(j, "cause")), "timeout");
    cr_assert_geq(json_integer_value(json_object_get(j, "duration_ms")), 300);
    json_decref(j);
    assert_gone("far");
}

Test(shim, cancel_gives_grace_then_ends_the_whole_tree)
{
    pid_t pid = spawn("--grace-ms 60000", STUBBORN "trap 'echo bye; exit 4' TERM; echo $$ >near; "
                                                   "while :; do sleep 0.02; done");
    wait_for("near");
    kill(pid, SIGTERM);
    cr_assert_eq(wait_exit(pid), 0);
    expect("cancelled", 4, 0);
    CLEANUP(freep) char *out = tail_of("stdout", 100);
    cr_assert_str_eq(out, "bye\n");
    assert_gone("far");
    assert_gone("near");
}

Test(shim, second_cancel_does_not_wait)
{
    pid_t pid = spawn("--grace-ms 600000",
                      STUBBORN "trap '' TERM; echo $$ >near; while :; do sleep 1; done");
    wait_for("near");
    kill(pid, SIGTERM);
    /* two signals of one number sent at once are one: repeat until it is gone, far below the grace
     * time */
    int st;
    for (int i = 0; i < 2000 && waitpid(pid, &st, WNOHANG) == 0; i++) {
        nap();
        kill(pid, SIGTERM);
    }
    expect("cancelled", 0, SIGKILL);
    assert_gone("far");
    assert_gone("near");
}

Test(shim, stopped_command_can_be_cancelled)
{
    pid_t pid = spawn("--grace-ms 600000", "echo $$ >near; kill -STOP $$; sleep 600");
    wait_for("near");
    kill(pid, SIGTERM);
    cr_assert_eq(wait_exit(pid), 0);
    expect("cancelled", 0, SIGTERM);
}

Test(shim, outlives_its_starter)
{
    /* the starter is killed while the command runs; the test becomes the shim's parent, as init
     * would */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t starter = fork();
    if (starter == 0) {
        spawn("", "echo $$ >near; while [ ! -e go ]; do sleep 0.02; done; echo late; exit 5");
        pause();
        _exit(0);
    }
    wait_for("near");
    wait_for("lock");
    kill(starter, SIGKILL);
    waitpid(starter, NULL, 0);
    cr_assert(!gone(number_in("near")));
    CLEANUP(freep) char *go = path_fmt("%s/go", dir);
    close(open(go, O_WRONLY | O_CREAT, 0600));
    wait_exit((pid_t)number_in("lock"));
    expect("exit", 5, 0);
    CLEANUP(freep) char *out = tail_of("stdout", 100);
    cr_assert_str_eq(out, "late\n");
}

Test(shim, command_dies_with_a_killed_shim)
{
    pid_t pid = spawn("", "echo $$ >near; exec sleep 600");
    wait_for("near");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_gone("near");
    cr_assert(!have("status"));
}

/* ---- what a killed shim leaves */

/* A daemon that has left the command in every way there is; its own environment is empty. */
#define RUNAWAY                                                                                    \
    "exec 3>far; (env -i setsid /bin/sh -c 'trap \"\" TERM HUP; cd /; echo $$ >&3; exec 3>&-; "    \
    "while :; do sleep 0.1; done' </dev/null >/dev/null 2>&1 &) & exec 3>&-; "

static void kill_shim(pid_t pid)
{
    wait_for("far");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

Test(shim, killed_shim_s_daemon_is_found_by_its_mark)
{
    char opts[64], other[4200];
    snprintf(opts, sizeof(opts), "--mark %llu", (unsigned long long)orphans_mark(dir));
    pid_t pid = spawn(opts, RUNAWAY "while :; do sleep 0.1; done");
    kill_shim(pid);
    cr_assert(!gone(number_in("far")));
    /* another task's folder of the same name is another task */
    snprintf(other, sizeof(other), "%s/%s", dir, strrchr(dir, '/') + 1);
    cr_assert(mkdir(other, 0700) == 0);
    cr_assert_eq(orphans_kill(NULL, other), 0);
    cr_assert(!gone(number_in("far")));
    cr_assert_geq(orphans_kill(NULL, dir), 1);
    assert_gone("far");
    cr_assert_eq(orphans_kill(NULL, dir), 0);
}

Test(shim, killed_shim_s_daemon_is_found_by_its_environment_without_a_mark)
{
    setenv("SIOFLEET_TASK_DIR", dir, 1);
    pid_t pid = spawn("", STUBBORN "sleep 600");
    kill_shim(pid);
    unsetenv("SIOFLEET_TASK_DIR");
    cr_assert_geq(orphans_kill(NULL, dir), 1);
    assert_gone("far");
}

Test(shim, mark_is_there_after_exec_and_gives_no_other_process_away)
{
    char word[40];
    cr_assert_eq(mark_get(getpid()), 0);
    wait_exit(spawn("--mark 4711", "exec setsid -w env -i sh -c 'ulimit -R 2>/dev/null; grep "
                                   "\"realtime timeout\" /proc/self/limits'"));
    snprintf(word, sizeof(word), "%llu", (1ull << 62) + 4711);
    CLEANUP(freep) char *out = tail_of("stdout", 1000);
    cr_assert(strstr(out, word), "%s", out);
    cr_assert_neq(mark_of("/a", 1, 2), mark_of("/a", 1, 3));
    cr_assert_neq(mark_of("/a", 1, 2), mark_of("/b", 1, 2));
}

Test(shim, signal_goes_to_the_process_that_was_looked_at_or_to_none)
{
    struct proc p;
    pid_t pid = fork();
    if (pid == 0)
        _exit(pause());
    cr_assert(proc_look(pid, &p) == 0);
    p.start++; /* as if another process had got the number */
    cr_assert(proc_signal(&p, SIGKILL) < 0);
    p.start--;
    cr_assert(proc_signal(&p, SIGKILL) == 0);
    int st;
    cr_assert(waitpid(pid, &st, 0) == pid && WIFSIGNALED(st));
    cr_assert(proc_signal(&p, SIGKILL) < 0);
}

/* The same for a user without any rights: what root may do is no help then. */
Test(shim, all_of_a_tree_is_ended_without_rights)
{
    enum { NOBODY = 65534 };
    char own[] = "/tmp/sf-shim-XXXXXX", opts[64];
    struct err e;
    if (getuid() != 0)
        return; /* all tests here run without rights then */
    teardown(); /* its own folder lies where other users cannot look */
    cr_assert(mkdtemp(own) && chown(own, NOBODY, NOBODY) == 0);
    snprintf(dir, sizeof(dir), "%s", own);
    pid_t user = fork();
    if (user == 0) {
        if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
            _exit(90);
        if (access(shim, X_OK) < 0)
            _exit(77); /* a build folder that nobody else may look into */
        snprintf(opts, sizeof(opts), "--mark %llu", (unsigned long long)orphans_mark(dir));
        kill_shim(spawn(opts, RUNAWAY "while :; do sleep 0.1; done"));
        if (orphans_kill(NULL, dir) < 1)
            _exit(91);
        long far = number_in("far");
        for (int i = 0; i < 2000 && !gone(far); i++)
            nap();
        _exit(gone(far) ? 0 : 92);
    }
    int code = wait_exit(user);
    cr_assert(dir_remove(own, &e) == 0, "%s", e.text);
    cr_assert(mkdir(own, 0700) == 0); /* for the end of the test */
    if (code == 77)
        cr_skip_test("%s is not to be seen by other users", shim);
    cr_assert_eq(code, 0);
}

/* ---- limits */

/* 300 processes, each with a session of its own; bounded itself, should nobody bound it. */
#define MANY "i=0; while [ $i -lt 300 ]; do setsid sleep 30 & i=$((i+1)); done; wait"

Test(shim, too_many_processes_end_the_task_and_all_of_them)
{
    wait_exit(spawn("--pids 40", MANY));
    expect("signal", 0, SIGKILL);
    CLEANUP(freep) char *err = tail_of("stderr", 200);
    cr_assert(strstr(err, "siofleet: more than 40 processes; all are ended\n"), "%s", err);
    json_t *j = status();
    cr_assert_lt(json_integer_value(json_object_get(j, "duration_ms")), 20000);
    cr_assert_eq(json_integer_value(json_object_get(j, "left")), 0);
    json_decref(j);
}

Test(shim, fewer_processes_than_the_limit_are_let_alone)
{
    wait_exit(spawn("--pids 400", "i=0; while [ $i -lt 60 ]; do sleep 0.3 & i=$((i+1)); done; "
                                  "wait; echo all"));
    expect("done", 0, 0);
}

/* Where this process may make control groups; else the test is skipped, loudly. */
static void need_groups(char base[CGROUP_PATH_MAX])
{
    char why[200];
    if (cgroup_base("/proc", base, why) < 0)
        cr_skip_test("no control groups here: %s", why);
}

Test(shim, command_lives_in_a_group_that_ends_with_it)
{
    char base[CGROUP_PATH_MAX], group[CGROUP_PATH_MAX], opts[CGROUP_PATH_MAX + 32];
    need_groups(base);
    orphans_group(base, dir, group);
    snprintf(opts, sizeof(opts), "--cgroup %s", group);
    wait_exit(spawn(opts, STUBBORN "grep ^0:: /proc/self/cgroup; exit 3"));
    expect("exit", 3, 0);
    assert_gone("far");
    json_t *j = status();
    cr_assert(json_is_true(json_object_get(j, "cgroup")));
    json_decref(j);
    CLEANUP(freep) char *out = tail_of("stdout", 2000);
    cr_assert(strstr(out, strrchr(group, '/')), "%s", out);
    cr_assert(access(group, F_OK) < 0);
}

Test(shim, killed_shim_s_group_is_ended_and_removed)
{
    char base[CGROUP_PATH_MAX], group[CGROUP_PATH_MAX], opts[CGROUP_PATH_MAX + 32];
    need_groups(base);
    orphans_group(base, dir, group);
    snprintf(opts, sizeof(opts), "--cgroup %s", group);
    kill_shim(spawn(opts, RUNAWAY "while :; do sleep 0.1; done"));
    cr_assert(cgroup_populated(group));
    orphans_kill(NULL, dir); /* finds the group by the shim's note */
    assert_gone("far");
    cr_assert(access(group, F_OK) < 0);
}

Test(shim, group_that_cannot_be_made_is_done_without)
{
    wait_exit(spawn("--cgroup /proc/none/at/all --memory-b 1000000", "echo ran"));
    expect("done", 0, 0);
    json_t *j = status();
    cr_assert(json_is_false(json_object_get(j, "cgroup")));
    json_decref(j);
}

/* A host as /proc shows it: lines of mountinfo and of cgroup. */
static int base_of(const char *mounts, const char *own, char base[CGROUP_PATH_MAX], char why[200])
{
    struct err e;
    CLEANUP(freep) char *self = path_fmt("%s/self", dir);
    CLEANUP(freep) char *a = path_fmt("%s/mountinfo", self), *b = path_fmt("%s/cgroup", self);
    cr_assert(dir_make(self, 0700, &e) == 0);
    cr_assert(file_write(a, mounts, strlen(mounts), 0600, true, &e) == 0);
    cr_assert(file_write(b, own, strlen(own), 0600, true, &e) == 0);
    return cgroup_base(dir, base, why);
}

Test(shim, place_for_groups_is_found_or_said_to_be_missing)
{
    char base[CGROUP_PATH_MAX], why[200];
    struct err e;
    cr_assert(base_of("", "0::/\n", base, why) < 0);
    cr_assert_str_eq(why, "no cgroup2 file system is mounted");
    CLEANUP(freep) char *mounts = path_fmt("30 23 0:27 / %s/cg rw - cgroup2 cgroup2 rw\n", dir);
    CLEANUP(freep) char *unit = path_fmt("%s/cg/a.slice/b.service", dir);
    CLEANUP(freep) char *slice = path_fmt("%s/cg/a.slice", dir);
    cr_assert(dir_make(unit, 0700, &e) == 0);
    cr_assert(base_of(mounts, "4:memory:/x\n", base, why) < 0);
    cr_assert(strstr(why, "shows no group of this process"), "%s", why);
    /* plain folders are no groups: nothing can be joined there */
    cr_assert(base_of(mounts, "0::/a.slice/b.service\n", base, why) < 0);
    cr_assert(strstr(why, slice), "%s", why);
    cr_assert_str_eq(base, "");
}

Test(shim, second_shim_in_one_folder_is_refused)
{
    pid_t pid = spawn("", "echo $$ >near; while [ ! -e go ]; do sleep 0.02; done");
    wait_for("near");
    cr_assert_eq(wait_exit(spawn("", "exit 0")), 1);
    CLEANUP(freep) char *go = path_fmt("%s/go", dir);
    close(open(go, O_WRONLY | O_CREAT, 0600));
    cr_assert_eq(wait_exit(pid), 0);
    expect("done", 0, 0);
}

Test(shim, command_inherits_no_descriptor_and_no_blocked_signal)
{
    int extra = open("/dev/null", O_RDONLY);
    cr_assert(dup2(extra, 77) == 77);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    /* the glob itself needs one descriptor while it looks */
    wait_exit(spawn(
        "",
        "cd /proc/self/fd; for f in *; do [ -e $f ] && [ $f -gt 2 ] && [ $f -lt 10 ] && echo $f;"
        "done; [ -e 77 ] && echo 77; grep SigBlk /proc/self/status | tr -d '0\\t'"));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    close(77);
    CLEANUP(freep) char *out = tail_of("stdout", 1000);
    cr_assert_str_eq(out, "SigBlk:\n");
}

Test(shim, wrong_use_is_exit_2_and_starts_nothing)
{
    const char *const rows[][6] = {
        { shim, NULL },
        { shim, dir, NULL },
        { shim, dir, "--", NULL },
        { shim, "--timeout-ms", "x", dir, "--", NULL },
        { shim, "--what", dir, "--", "true", NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            close(2);
            execv(shim, (char **)rows[i]);
            _exit(99);
        }
        cr_assert_eq(wait_exit(pid), 2, "row %zu", i);
    }
    cr_assert(!have("lock"));
}

Test(shim, folder_that_is_not_there_is_exit_1)
{
    pid_t pid = fork();
    if (pid == 0) {
        close(2);
        execl(shim, shim, "/no/such/folder", "--", "true", (char *)NULL);
        _exit(99);
    }
    cr_assert_eq(wait_exit(pid), 1);
}
