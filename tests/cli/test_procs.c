#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cli/procs.h"
#include "proto/base/clock.h"

static char dir[64];

static void setup(void)
{
    strcpy(dir, "procs-XXXXXX");
    cr_assert(mkdtemp(dir));
}

static void teardown(void)
{
    char cmd[100];
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    cr_assert_eq(system(cmd), 0);
}

static struct proc *start(struct procs *ps, const char *script)
{
    char log[128];
    struct err e;
    snprintf(log, sizeof(log), "%s/log", dir);
    char *argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)(uintptr_t)script, NULL };
    cr_assert_eq(procs_start(ps, "helper", argv, log, &e), 0, "%s", e.text);
    return &ps->p[ps->n - 1];
}

static bool alive(pid_t pid)
{
    return kill(pid, 0) == 0;
}

/* The pid that the script wrote, once it has. */
static pid_t written(const char *path)
{
    int pid = 0;
    for (uint64_t end = clock_mono_ms() + 20000; pid == 0 && clock_mono_ms() < end; usleep(5000)) {
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%d\n", &pid) != 1)
            pid = 0;
        if (f)
            fclose(f);
    }
    cr_assert(pid > 0, "%s was never written", path);
    return pid;
}

TestSuite(procs, .init = setup, .fini = teardown);

Test(procs, a_ready_file_is_waited_for_and_read)
{
    struct procs ps = { 0 };
    char script[600], path[128];
    struct err e;
    json_t *doc = NULL;
    snprintf(path, sizeof(path), "%s/ready", dir);
    snprintf(script, sizeof(script),
             "sleep 0.1; echo '{\"pid\":1}' >%s.t; mv %s.t %s; exec sleep 100", path, path, path);
    struct proc *p = start(&ps, script);
    pid_t pid = p->pid;
    cr_assert_eq(procs_ready(p, path, 20000, NULL, &doc, &e), 0, "%s", e.text);
    cr_assert_eq(json_integer_value(json_object_get(doc, "pid")), 1);
    json_decref(doc);
    cr_assert_eq(procs_check(&ps, &e), 0);
    cr_assert_eq(procs_stop(&ps, 10000), 0);
    cr_assert_not(alive(pid));
}

Test(procs, one_that_ends_early_is_named_with_its_last_line)
{
    struct procs ps = { 0 };
    struct err e;
    json_t *doc = NULL;
    struct proc *p = start(&ps, "echo first; echo 'siofleet: --data: no such thing' >&2; exit 2");
    cr_assert_eq(procs_ready(p, "never", 20000, NULL, &doc, &e), -SF_EFAILED);
    cr_assert_str_eq(e.text, "helper: ended with exit 2: --data: no such thing");
    cr_assert_eq(procs_check(&ps, &e), -SF_EFAILED);
    procs_stop(&ps, 1000);
}

Test(procs, what_a_stopped_one_leaves_behind_is_ended_too)
{
    struct procs ps = { 0 };
    char script[600], path[128];
    snprintf(path, sizeof(path), "%s/pid", dir);
    snprintf(script, sizeof(script), "setsid sleep 1000 & echo $! >%s; exec sleep 1000", path);
    start(&ps, script);
    pid_t orphan = written(path);
    cr_assert(alive(orphan));
    procs_stop(&ps, 10000);
    cr_assert_not(alive(orphan));
}

Test(procs, one_that_ignores_the_signal_is_killed)
{
    struct procs ps = { 0 };
    char script[600], path[128];
    snprintf(path, sizeof(path), "%s/pid", dir);
    snprintf(script, sizeof(script), "trap '' TERM; echo $$ >%s; while :; do sleep 0.05; done",
             path);
    start(&ps, script);
    pid_t pid = written(path);
    cr_assert_eq(procs_stop(&ps, 50), 1);
    cr_assert_not(alive(pid));
}
