/* Any bytes as a foreign trace: libCacheSim's oracleGeneral, or the reference's three files. What is taken can be saved as a
 * trace file of ours and runs under both rule sets.
 *
 * Input: one byte says which; for the three files two u16 follow, the sizes of the context and page-table file, then the
 * bytes of these two and of the translations. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "perf/engine.h"
#include "perf/mrc.h"
#include "perf/oracle_general.h"
#include "proto/base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { EVENTS_RUN = 4096 };

/* The reader opens by name: files in memory, behind links in a folder of this process. */
static const char *const parts[3] = { "cc_data", "slpt_data", "iotlb_trace" };
static char dir[] =
    "fuzz-import-XXXXXX"; /* in the current folder: run.sh removes its own, also after a crash */
static int fds[3];

static void leave(void)
{
    dir_remove(dir, NULL);
}

static void enter(void)
{
    if (!mkdtemp(dir))
        abort();
    atexit(leave);
    for (int i = 0; i < 3; i++) {
        char from[64], to[64];
        fds[i] = memfd_create(parts[i], MFD_CLOEXEC);
        snprintf(from, sizeof(from), "/proc/%d/fd/%d", (int)getpid(), fds[i]);
        snprintf(to, sizeof(to), "%s/x_tnt_3_rr3_%s.bin", dir, parts[i]);
        if (fds[i] < 0 || symlink(from, to) < 0)
            abort();
    }
}

static void fill(int fd, const uint8_t *p, size_t n)
{
    if (ftruncate(fd, 0) < 0 || pwrite_all(fd, p, n, 0) < 0)
        abort();
}

static void look(struct trace *t)
{
    struct id id;
    struct row_stats s;
    struct arch a;
    struct err e;
    struct mrc m;
    for (uint64_t i = 0; i < t->n; i++)
        if (t->ev[i] >= t->n_entries || t->entry[t->ev[i]].gid >= t->n_gids)
            abort();
    if (trace_content_id(t, &id, &e) < 0 || trace_next(t, &e) < 0)
        abort();
    if (!t->n || t->n > EVENTS_RUN)
        return;
    arch_preset(&a, "hypertrio", "fuzz", NULL);
    a.iotlb_policy = t->n % 3;
    /* the one refuses unknown page sizes, the other a translation that vanishes for ever */
    if (engine_run(t, &a, RULES_MODEL, &s, NULL, &e) < 0 && e.code != SF_EFORMAT)
        abort();
    engine_run(t, &a, RULES_HYPERSIO, &s, NULL, &e);
    if (mrc_full(t, &m, &e) < 0)
        abort();
    mrc_clear(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct trace *t = NULL;
    struct err e;
    if (!fds[0])
        enter();
    if (n < 5)
        return 0;
    if (data[0] & 1) {
        size_t cc = data[1] | (size_t)data[2] << 8, slpt = data[3] | (size_t)data[4] << 8;
        if (cc + slpt > n - 5)
            return 0;
        fill(fds[0], data + 5, cc);
        fill(fds[1], data + 5 + cc, slpt);
        fill(fds[2], data + 5 + cc + slpt, n - 5 - cc - slpt);
        if (hypersio_import(dir, "x_tnt_3_rr3", &t, &e) == 0)
            look(t);
    } else {
        char path[64];
        snprintf(path, sizeof(path), "%s/x_tnt_3_rr3_iotlb_trace.bin", dir);
        fill(fds[2], data + 1, n - 1);
        if (oracle_general_read(path, &t, &e) == 0)
            look(t);
    }
    trace_free(&t);
    return 0;
}
