/* sim: run seeds, or replay plans. README.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"
#include "proto/base/opt.h"
#include "tests/sim/sim.h"

struct opts {
    uint64_t from, seeds, jobs, max_failures;
    const char *replay, *mutant;
    bool shrink, verbose, print;
};

static double cpu_seconds(void)
{
    double sum = 0;
    static const int who[] = { RUSAGE_SELF, RUSAGE_CHILDREN };
    for (int i = 0; i < 2; i++) {
        struct rusage u;
        getrusage(who[i], &u);
        sum += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
    }
    return sum;
}

static double seconds(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* The rule that was broken: what is said of it without its numbers. */
static void rule_of(const char *why, char out[512])
{
    const char *at = strchr(why, ':');
    size_t n = 0;
    for (const char *c = at ? at : why; *c && n < 511; c++)
        if ((*c < '0' || *c > '9') && !(c[0] == 'a' && c[1] >= '0' && c[1] <= '9'))
            out[n++] = *c;
    out[n] = '\0';
}

/* Another failure than the one that is being made smaller is no success. */
static bool still_fails(const struct plan *p, void *ctx)
{
    char why[512], rule[512];
    struct sim_stats st;
    if (sim_run(p, why, &st) == 0)
        return false;
    rule_of(why, rule);
    return !strcmp(rule, ctx);
}

static void print_plan(const struct plan *p, const char *comment)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    if (plan_text(p, comment, &b) >= 0)
        fwrite(b.data, 1, b.len, stdout);
}

static void report(struct plan *p, const char *what, const char *why, bool shrink)
{
    char line[700], again[512];
    struct sim_stats st;
    printf("FAILED %s: %s\n", what, why);
    if (shrink) {
        int keep = sim_verbose;
        char rule[512];
        sim_verbose = 0;
        rule_of(why, rule);
        plan_shrink(p, still_fails, rule);
        sim_run(p, again, &st);
        sim_verbose = keep;
        why = again;
    }
    snprintf(line, sizeof(line), "%s: %s", what, why);
    print_plan(p, line);
    fflush(stdout);
}

static int replay(const char *path, const struct opts *o)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    struct err e = { 0 };
    static struct plan p;
    char why[512];
    struct sim_stats st;
    int r = file_read(path, &b, &e);
    if (r >= 0)
        r = plan_parse(path, (const char *)b.data, &p, &e);
    if (r < 0) {
        fprintf(stderr, "sim: %s\n", e.text);
        return 2;
    }
    if (*p.expect)
        sim_mutant = p.expect;
    r = sim_run(&p, why, &st);
    sim_mutant = o->mutant;
    if (*p.expect) {
        printf("%s %s: mutant %s %s%s\n", r < 0 ? "ok" : "FAILED", path, p.expect,
               r < 0 ? "is caught: " : "is not caught", r < 0 ? why : "");
        return r < 0 ? 0 : 1;
    }
    if (r < 0)
        report(&p, path, why, o->shrink);
    else
        printf("ok %s\n", path);
    return r < 0;
}

/* What is run is what would be printed: a plan that was written and read again. */
static void generate(uint64_t seed, struct plan *ret)
{
    static struct plan p;
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    struct err e = { 0 };
    plan_generate(seed, &p);
    if (plan_text(&p, "", &b) < 0 || plan_parse("generator", (const char *)b.data, ret, &e) < 0) {
        fprintf(stderr, "sim: seed %llu: %s\n", (unsigned long long)seed, e.text);
        exit(2);
    }
}

static int run_seeds(const struct opts *o, uint64_t from, uint64_t step)
{
    static struct plan p;
    char why[512], what[64];
    struct sim_stats st;
    uint64_t failed = 0;
    for (uint64_t s = from; s < o->from + o->seeds && failed < o->max_failures; s += step) {
        generate(s, &p);
        if (o->print) {
            snprintf(what, sizeof(what), "seed %llu", (unsigned long long)s);
            print_plan(&p, what);
            continue;
        }
        if (sim_run(&p, why, &st) == 0)
            continue;
        failed++;
        snprintf(what, sizeof(what), "seed %llu", (unsigned long long)s);
        report(&p, what, why, o->shrink);
    }
    return (int)failed;
}

static int seeds(const struct opts *o)
{
    double wall = seconds(CLOCK_MONOTONIC), cpu;
    int failed = 0;
    fflush(stdout);
    void *shared =
        mmap(NULL, sizeof(*move_stats), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return perror("sim"), 2;
    move_stats = shared;
    if (o->jobs <= 1) {
        failed = run_seeds(o, o->from, 1);
    } else {
        for (uint64_t k = 0; k < o->jobs; k++)
            if (fork() == 0)
                exit(run_seeds(o, o->from + k, o->jobs));
        for (int status; wait(&status) > 0;)
            failed += WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    if (o->print)
        return 0;
    wall = seconds(CLOCK_MONOTONIC) - wall;
    cpu = cpu_seconds();
    printf(
        "%llu seeds of 200 virtual s, %d failed: %.1f s, %.1f s of CPU: %.1f seeds/s, %.0f x real "
        "time, %.0f x by CPU\n",
        (unsigned long long)o->seeds, failed, wall, cpu, (double)o->seeds / wall,
        200.0 * (double)o->seeds / wall, 200.0 * (double)o->seeds / cpu);
    printf("chunks of artefacts: %llu, beside the link %llu, from agents %llu, again for a reason "
           "%llu; streams: %llu\n",
           (unsigned long long)move_stats->chunks, (unsigned long long)move_stats->bulk,
           (unsigned long long)move_stats->peer, (unsigned long long)move_stats->again,
           (unsigned long long)move_stats->streams);
    return failed ? 1 : 0;
}

static bool number(const char *s, uint64_t *ret)
{
    return num_u64(s, 0, UINT64_MAX, "sim", ret, NULL) == 0;
}

int main(int argc, char **argv)
{
    struct opts o = { .from = 1, .seeds = 100, .jobs = 1, .max_failures = 5 };
    int failed = 0, files = 0;
    bool shrink = true;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(a, "--seed") && number(v, &o.from))
            o.seeds = 1, i++;
        else if (!strcmp(a, "--from") && number(v, &o.from))
            i++;
        else if (!strcmp(a, "--seeds") && number(v, &o.seeds))
            i++;
        else if (!strcmp(a, "--max-failures") && number(v, &o.max_failures))
            i++;
        else if (!strcmp(a, "--jobs") && number(v, &o.jobs))
            i++;
        else if (!strcmp(a, "--mutant"))
            o.mutant = v, i++;
        else if (!strcmp(a, "--no-shrink"))
            shrink = false;
        else if (!strcmp(a, "--print"))
            o.print = true;
        else if (!strcmp(a, "-v"))
            sim_verbose = 1;
        else if (!strcmp(a, "--replay"))
            files = i + 1, i = argc;
        else
            return fprintf(stderr, "sim: '%s': see tests/sim/README.md\n", a), 2;
    }
    o.shrink = shrink;
    sim_mutant = o.mutant;
    if (files) {
        for (int i = files; i < argc; i++)
            failed |= replay(argv[i], &o);
    } else {
        failed = seeds(&o);
    }
    check_clear();
    return failed;
}
