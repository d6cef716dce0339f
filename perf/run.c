#include "perf/run.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "perf/engine.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"

/* A guess at the work of a point, only to start long ones early. */
static uint64_t weight(const struct point_job *j)
{
    uint64_t w = 4;
    if (j->arch.iotlb_policy != POLICY_LRU)
        w += 4;
    if (j->arch.pf_entries)
        w += 3;
    return w * j->trace->n;
}

struct order {
    size_t i;
    uint64_t weight;
};

static int heavier_first(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return x->i < y->i ? -1 : 1;
}

static void sleep_until(uint64_t mono_ms)
{
    uint64_t now = clock_mono_ms();
    if (now >= mono_ms)
        return;
    uint64_t ms = mono_ms - now;
    struct timespec ts = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };
    while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
        ;
}

static void run_one(const struct point_job *j, enum rules rules, struct point_result *res)
{
    struct err e = { 0 };
    *res = (struct point_result){ .status = ROW_DONE };
    res->code = arch_check(&j->arch, rules, &e);
    if (res->code < 0)
        res->status = ROW_INVALID;
    else if ((res->code = engine_run(j->trace, &j->arch, rules, &res->stats, NULL, &e)) < 0)
        res->status = ROW_FAILED;
    if (res->status != ROW_DONE)
        memcpy(res->error, e.text, sizeof(res->error) - 1);
}

int run_jobs(const struct point_job jobs[], size_t n, enum rules rules, unsigned threads,
             uint64_t pace_ms, int (*done)(void *user, size_t i, const struct point_result *r),
             void *user, struct err *e)
{
    if (!n)
        return 0;
    CLEANUP(freep) struct order *order = malloc(n * sizeof(*order));
    if (!order)
        return err_sys(e, ENOMEM, "points");
    for (size_t i = 0; i < n; i++) {
        order[i] = (struct order){ i, weight(&jobs[i]) };
        /* next access times are shared: made before threads look at them */
        if (jobs[i].arch.iotlb_policy == POLICY_ORACLE && !jobs[i].trace->next) {
            int r = trace_next(jobs[i].trace, e);
            if (r < 0)
                return r;
        }
    }
    qsort(order, n, sizeof(*order), heavier_first);
    unsigned most = threads ? threads : (unsigned)omp_get_num_procs();
    if (most > n)
        most = (unsigned)n;
    int stop = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(most)
    for (size_t k = 0; k < n; k++) {
        int stopped;
#pragma omp atomic read
        stopped = stop;
        if (stopped)
            continue;
        uint64_t start = clock_mono_ns();
        struct point_result res;
        run_one(&jobs[order[k].i], rules, &res);
        if (pace_ms)
            sleep_until(start / 1000000 + pace_ms);
        res.duration_us = (clock_mono_ns() - start) / 1000;
#pragma omp critical(run_jobs_done)
        {
            if (!stop) {
                int r = done(user, order[k].i, &res);
                if (r) {
#pragma omp atomic write
                    stop = r;
                }
            }
        }
    }
    return stop;
}

int run_points(struct trace *t, enum rules rules, const struct arch archs[], size_t n,
               unsigned threads, uint64_t pace_ms,
               int (*done)(void *user, size_t i, const struct point_result *r), void *user,
               struct err *e)
{
    CLEANUP(freep) struct point_job *jobs = malloc((n + 1) * sizeof(*jobs));
    if (!jobs)
        return err_sys(e, ENOMEM, "points");
    for (size_t i = 0; i < n; i++)
        jobs[i] = (struct point_job){ t, archs[i] };
    return run_jobs(jobs, n, rules, threads, pace_ms, done, user, e);
}
