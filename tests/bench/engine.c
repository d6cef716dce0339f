/* How fast the engine is: the table of the reference simulator's speed with ours beside it, and the model's own figures.
 *
 *   engine [--home DIR] [--reps N] [--only builds|runs|model|scaling|mrc|decode|instructions]... [--json FILE] [--baseline FILE [--worse PERCENT]]
 *   engine --count CASE REPS      run one case REPS times and print its events: for counting instructions under cachegrind
 *
 * Inputs are made once by tests/tools/gen_logs.py in DIR/build/qemu_logs (DIR: the cache folder). Times are CPU time
 * (user + system) of one core, the best of N for the model and the median of N children for the drop-in. The reference's numbers were
 * measured on another machine (3.66 GHz Zen 4): compare ratios between rows, and against a baseline of the same machine.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <fcntl.h>
#include <unistd.h>

#include "perf/build.h"
#include "perf/compat/compat.h"
#include "perf/engine.h"
#include "perf/model.h"
#include "perf/mrc.h"
#include "perf/run.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/lib/json.h"
#include "tests/bench/counted.h"

static void die(const char *what, const struct err *e)
{
    fprintf(stderr, "engine: %s: %s\n", what, e ? e->text : "failed");
    exit(1);
}

/* ---- inputs */

struct input {
    const char *base, *spec;
    unsigned logs, tenants, devices;
    /* the reference: CPU ns a line (build) and an event (run base, run ht) */
    double build_ns, base_ns, ht_ns;
};

static const struct input inputs[] = {
    { "b1",
      "\"seed\":51,\"logs\":1,\"devs\":1,\"packets\":300000,\"acc_per_page\":1500,\"init_pages\":"
      "70,\"jitter\":0",
      1, 1, 1, 11940, 770, 810 },
    { "b24",
      "\"seed\":52,\"logs\":1,\"devs\":24,\"packets\":12500,\"acc_per_page\":1500,\"init_pages\":"
      "70,\"jitter\":0.01",
      1, 24, 24, 12710, 9180, 1645 },
    { "b256",
      "\"seed\":53,\"logs\":11,\"devs\":24,\"packets\":1200,\"acc_per_page\":1500,\"init_pages\":"
      "30,\"jitter\":0.01",
      11, 256, 24, 12790, 10150, 3540 },
    { "b1024",
      "\"seed\":54,\"logs\":43,\"devs\":24,\"packets\":330,\"acc_per_page\":150,\"init_pages\":10,"
      "\"jitter\":0.01",
      43, 1024, 24, 12590, 14310, 7390 },
};
static const struct input hit_input = { "b16",
                                        "\"seed\":60,\"devs\":16,\"packets\":20000,\"acc_per_"
                                        "page\":1500,\"init_pages\":70,\"jitter\":0.01",
                                        1,
                                        16,
                                        24,
                                        0,
                                        0,
                                        0 };
static const double reference_s = 94.8;

static char *log_path(const char *home, const struct input *in, unsigned k)
{
    return path_fmt("%s/build/qemu_logs/%s_%u.txt", home, in->base, k);
}

static void make_logs(const char *home, const struct input *in)
{
    CLEANUP(freep) char *last = log_path(home, in, in->logs - 1);
    if (access(last, R_OK) == 0)
        return;
    const char *src = getenv("SIOFLEET_SRC");
    CLEANUP(freep) char *tool = path_fmt("%s/tests/tools/gen_logs.py", src ? src : ".");
    CLEANUP(freep) char *out = path_fmt("%s/build/qemu_logs", home);
    CLEANUP(freep) char *spec = path_fmt("{\"base\":\"%s\",%s}", in->base, in->spec);
    struct err e = { 0 };
    if (dir_make(out, 0755, &e) < 0)
        die("logs", &e);
    fprintf(stderr, "engine: making %s\n", in->base);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, 1);
        execlp("python3", "python3", tool, "--out", out, "--spec", spec, (char *)NULL);
        _exit(127);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || status)
        die("gen_logs.py", NULL);
}

static uint64_t count_lines(const char *home, const struct input *in)
{
    uint64_t n = 0;
    for (unsigned k = 0; k < in->logs; k++) {
        CLEANUP(freep) char *path = log_path(home, in, k);
        CLEANUP(fclosep) FILE *f = fopen(path, "r");
        char part[1 << 16];
        size_t got;
        while (f && (got = fread(part, 1, sizeof(part), f)) > 0)
            for (char *p = part; (p = memchr(p, '\n', (size_t)(part + got - p))); p++)
                n++;
    }
    return n;
}

static struct trace *make_trace(const char *home, const struct input *in, uint64_t burst)
{
    struct recipe r;
    struct trace *t;
    struct err e = { 0 };
    recipe_init(&r);
    for (unsigned k = 0; k < in->logs; k++) {
        CLEANUP(freep) char *path = log_path(home, in, k);
        if (recipe_add_log(&r, path, &e) < 0)
            die(in->base, &e);
    }
    r.tenants = in->tenants;
    r.devices_per_log = in->devices;
    r.burst = burst;
    if (build_trace(&r, NULL, &t, NULL, &e) < 0)
        die(in->base, &e);
    recipe_clear(&r);
    return t;
}

/* ---- results */

static json_t *results; /* name -> number */

static void note(const char *name, double v)
{
    json_object_set_new(results, name, json_real(v));
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* ---- the drop-in, as the reference was measured: one process a command */

static double drop_in_ns(const char *home, const char **argv, unsigned reps)
{
    double took[32];
    int argc = 0;
    while (argv[argc])
        argc++;
    for (unsigned i = 0; i < reps; i++) {
        struct rusage u;
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            int null = open("/dev/null", O_RDWR | O_CLOEXEC);
            dup2(null, 1);
            dup2(null, 2);
            setenv("HYPERSIO_HOME", home, 1);
            int rc = hypersio_perf_main(argc, (char **)(void *)argv);
            fflush(NULL);
            _exit(rc);
        }
        if (pid < 0 || wait4(pid, &status, 0, &u) < 0 || status)
            die(argv[1], NULL);
        took[i] = ((double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec) * 1e9 +
                  ((double)u.ru_utime.tv_usec + (double)u.ru_stime.tv_usec) * 1e3;
    }
    qsort(took, reps, sizeof(*took), by_value);
    return took[reps / 2];
}

static double row(const char *what, const char *set, const char *unit, double reference,
                  double ours, uint64_t n)
{
    char name[64];
    snprintf(name, sizeof(name), "%s_%s_ns", what, set);
    note(name, ours / (double)n);
    printf("%-6s %-6s %10.0f %10.1f %8.1f  %s\n", what, set, reference, ours / (double)n,
           reference * (double)n / ours, unit);
    return ours;
}

static void hypersio_table(const char *home, unsigned reps, bool builds, bool runs)
{
    static const char base_cfg[] =
        "CC\nsize:1536\nassoc:1536\ngroups:1\nIOTLB\nsize:64\nassoc:8\ngroups:1\n"
        "L2PAGE\nsize:512\nassoc:16\ngroups:1\nL3PAGE\nsize:1024\nassoc:16\ngroups:1\n"
        "PREFETCH\nsize:0\nassoc:32\nhistlen:2\n";
    static const char ht_cfg[] =
        "CC\nsize:1536\nassoc:1536\ngroups:1\nIOTLB\nsize:64\nassoc:8\ngroups:8\n"
        "L2PAGE\nsize:512\nassoc:16\ngroups:32\nL3PAGE\nsize:1024\nassoc:16\ngroups:64\n"
        "PREFETCH\nsize:8\nassoc:48\nhistlen:2\n";
    CLEANUP(freep) char *traces = path_fmt("%s/build/hypersio_traces", home);
    CLEANUP(freep) char *base = path_fmt("%s/base.cfg", home), *ht = path_fmt("%s/ht.cfg", home);
    struct err e = { 0 };
    if (dir_make(traces, 0755, &e) < 0 ||
        file_write(base, base_cfg, strlen(base_cfg), 0644, true, &e) < 0 ||
        file_write(ht, ht_cfg, strlen(ht_cfg), 0644, true, &e) < 0)
        die("configuration", &e);
    double total = 0;
    printf("rules hypersio: CPU ns a line (build) or event (run)\n%-6s %-6s %10s %10s %8s\n", "",
           "", "reference", "ours", "ratio");
    for (size_t i = 0; builds && i < ARRAY_LEN(inputs); i++) {
        const struct input *in = &inputs[i];
        char tenants[16], devices[16];
        snprintf(tenants, sizeof(tenants), "%u", in->tenants);
        snprintf(devices, sizeof(devices), "%u", in->devices);
        const char *argv[] = {
            "hypersio-perf", "--build", "--ltype",        "txt",    "--lbase", in->base,
            "--tenantnum",   tenants,   "--maxdevperlog", devices,  "--order", "rr",
            "--consec",      "3",       "--tname",        in->base, NULL
        };
        uint64_t n = count_lines(home, in);
        total += row("build", in->base, "line", in->build_ns, drop_in_ns(home, argv, reps), n);
    }
    for (size_t i = 0; runs && i < ARRAY_LEN(inputs); i++)
        for (int is_ht = 0; is_ht < 2; is_ht++) {
            const struct input *in = &inputs[i];
            char tenants[16], prefix[64];
            snprintf(tenants, sizeof(tenants), "%u", in->tenants);
            snprintf(prefix, sizeof(prefix), "%s_tnt_%u_rr3", in->base, in->tenants);
            const char *argv[] = { "hypersio-perf", "--run", "--config",    is_ht ? ht : base,
                                   "--prefix",      prefix,  "--tqueue",    is_ht ? "32" : "1",
                                   "--tenantnum",   tenants, "--iotlbrepl", "lru",
                                   "--linkbwgbps",  "200",   NULL };
            CLEANUP(freep) char *file = path_fmt("%s/%s_iotlb_trace.bin", traces, prefix);
            CLEANUP(closep) int fd = open(file, O_RDONLY | O_CLOEXEC);
            off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
            if (size <= 0)
                die(file, NULL);
            total += row(is_ht ? "ht" : "base", in->base, "event", is_ht ? in->ht_ns : in->base_ns,
                         drop_in_ns(home, argv, reps), (uint64_t)size / 48);
        }
    if (builds && runs) {
        note("suite_s", total / 1e9);
        printf("%-13s %8.1f s %8.2f s %8.1f\n", "all twelve", reference_s, total / 1e9,
               reference_s * 1e9 / total);
    }
}

/* ---- the model */

static double model_ns(const struct trace *t, const struct arch *a, unsigned reps,
                       struct row_stats *s)
{
    double best = 0;
    struct err e = { 0 };
    for (unsigned i = 0; i < reps; i++) {
        double from = cpu_ns();
        if (engine_run(t, a, RULES_MODEL, s, NULL, &e) < 0)
            die("model", &e);
        double took = cpu_ns() - from;
        best = !i || took < best ? took : best;
    }
    return best;
}

static void model_row(const char *name, const struct trace *t, const struct arch *a, unsigned reps,
                      double reference)
{
    struct row_stats s;
    double ns = model_ns(t, a, reps, &s) / (double)t->n;
    char key[64];
    snprintf(key, sizeof(key), "model_%s_ns", name);
    note(key, ns);
    printf("%-12s %8.1f ns/event %8.1f M events/s", name, ns, 1e3 / ns);
    if (reference > 0)
        printf(" %8.1f times the reference", reference / ns);
    printf("   (%u tenants, %" PRIu64 " Mb/s)\n", t->n_gids, s.mbps);
}

static void model_table(const char *home, unsigned reps)
{
    struct arch base, ht, hit, miss;
    arch_default(&base);
    arch_preset(&ht, "hypertrio", "bench", NULL);
    hit = miss = base;
    hit.iotlb_groups = 8;
    miss.queue = 32;
    printf("rules model (%s)\n",
           getenv("SIOFLEET_ISA") ? getenv("SIOFLEET_ISA") : "best code path of this machine");
    struct trace *t = make_trace(home, &hit_input, 3);
    model_row("hit", t, &hit, reps, 0);
    hit.queue = 32;
    model_row("hit_q32", t, &hit, reps, 0);
    trace_free(&t);
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++) {
        char name[32];
        t = make_trace(home, &inputs[i], 3);
        snprintf(name, sizeof(name), "base_%s", inputs[i].base);
        model_row(name, t, &base, reps, inputs[i].base_ns);
        snprintf(name, sizeof(name), "ht_%s", inputs[i].base);
        model_row(name, t, &ht, reps, inputs[i].ht_ns);
        if (!strcmp(inputs[i].base, "b1024")) {
            model_row("miss", t, &miss, reps, 0);
            /* what a run reads: the events, and tables by entry (the trace's own, its keys, the loop's) */
            double entry_b =
                sizeof(struct trace_entry) + 5 * sizeof(uint32_t) + sizeof(struct model_entry);
            double bytes = (double)t->n * sizeof(*t->ev) + (double)t->n_entries * entry_b;
            note("memory_b", bytes / (double)t->n);
            printf("memory while simulating: %.1f B an event (%u different entries; 4 B more for "
                   "the oracle policy)\n",
                   bytes / (double)t->n, t->n_entries);
        }
        trace_free(&t);
    }
}

/* How long each of two threads worked, by the kernel's number of the thread. */
struct work {
    pid_t thread[2];
    double us[2];
};

static int add_work(void *user, size_t i, const struct point_result *r)
{
    struct work *w = user;
    pid_t me = gettid();
    unsigned k = w->thread[0] && w->thread[0] != me;
    (void)i;
    w->thread[k] = me;
    w->us[k] += (double)r->duration_us;
    return r->status == ROW_DONE ? 0 : -SF_EFAILED;
}

/* Paired: one and two threads in turn, the median of the ratios. By the wall, which only a quiet machine tells; and by CPU time (what two
 * threads do more than one) and balance (how long the one with less to do waits), which any tells. */
static void scaling(const char *home, unsigned reps)
{
    enum { POINTS = 24 };
    struct arch a[POINTS];
    struct err e = { 0 };
    double ratio[32], cpu_ratio[32], balance[32], one = 0;
    struct trace *t = make_trace(home, &inputs[3], 3);
    for (unsigned i = 0; i < POINTS; i++) {
        arch_default(&a[i]);
        a[i].queue = 1 + 3 * i;
        a[i].iotlb_entries = 64u << i % 4;
    }
    for (unsigned i = 0; i < reps; i++) {
        uint64_t wall[2];
        double cpu[2];
        struct work w;
        for (unsigned k = 0; k < 2; k++) {
            uint64_t from = clock_mono_ns();
            cpu[k] = -cpu_ns();
            w = (struct work){ 0 };
            if (run_points(t, RULES_MODEL, a, POINTS, k + 1, 0, add_work, &w, &e) < 0)
                die("points", &e);
            cpu[k] += cpu_ns();
            wall[k] = clock_mono_ns() - from;
        }
        one = (double)wall[0];
        ratio[i] = (double)wall[0] / (double)wall[1] / 2;
        cpu_ratio[i] = cpu[0] / cpu[1];
        balance[i] = (w.us[0] + w.us[1]) / 2 / (w.us[0] > w.us[1] ? w.us[0] : w.us[1]);
    }
    qsort(ratio, reps, sizeof(*ratio), by_value);
    qsort(cpu_ratio, reps, sizeof(*ratio), by_value);
    qsort(balance, reps, sizeof(*ratio), by_value);
    note("efficiency_2_threads", ratio[reps / 2]);
    note("efficiency_2_threads_cpu", cpu_ratio[reps / 2]);
    note("efficiency_2_threads_balance", balance[reps / 2]);
    printf("scaling: %u points of %.0f ms: parallel efficiency on 2 threads %.2f (%ld cores "
           "online); CPU time of one / of two %.2f, balance %.2f\n",
           POINTS, one / 1e6 / POINTS, ratio[reps / 2], sysconf(_SC_NPROCESSORS_ONLN),
           cpu_ratio[reps / 2], balance[reps / 2]);
    trace_free(&t);
}

static double mrc_ns(const struct trace *t, int what, unsigned reps)
{
    double best = 0;
    for (unsigned i = 0; i < reps; i++) {
        struct mrc m;
        double from = cpu_ns();
        int r = what == 0   ? mrc_full(t, &m, NULL)
                : what == 1 ? mrc_sets(t, 64, &m, NULL)
                            : mrc_sample(t, 10000, &m, NULL);
        if (r < 0)
            die("curve", NULL);
        double took = cpu_ns() - from;
        mrc_clear(&m);
        best = !i || took < best ? took : best;
    }
    return best / (double)t->n;
}

static void curves(const char *home, unsigned reps)
{
    static const char *const names[] = { "full", "sets", "sample" };
    struct trace *t = make_trace(home, &inputs[3], 3);
    printf("miss-ratio curve:");
    for (int k = 0; k < 3; k++) {
        char key[32];
        double ns = mrc_ns(t, k, reps);
        snprintf(key, sizeof(key), "mrc_%s_ns", names[k]);
        note(key, ns);
        printf(" %s %.1f ns/event%s",
               k == 0   ? "all sizes"
               : k == 1 ? "all ways of 64 sets"
                        : "1 % of the pages",
               ns, k < 2 ? "," : "\n");
    }
    trace_free(&t);
}

/* ---- trace files of the real logs */

static double decode_ns(const char *path, unsigned flags, unsigned reps, uint64_t *ret_events)
{
    double best = 0;
    for (unsigned i = 0; i < reps; i++) {
        struct trace *t;
        struct err e = { 0 };
        double from = cpu_ns();
        if (trace_load(path, flags, &t, &e) < 0)
            die("decode", &e);
        double took = cpu_ns() - from;
        best = !i || took < best ? took : best;
        *ret_events = t->n;
        trace_free(&t);
    }
    return best / (double)*ret_events;
}

static void decoding(const char *home, unsigned reps)
{
    static const struct {
        const char *name, *logs;
        enum trace_order order;
        uint64_t tenants, replicate;
    } rows[] = {
        { "24_rr", "e1000-24nic-tx3.log.zst", ORDER_RR, 24, 1 },
        { "120_rr", "e1000-24nic-*", ORDER_RR, 120, 1 },
        { "120_rand", "e1000-24nic-*", ORDER_RAND, 120, 1 },
        { "120_orig", "e1000-24nic-*", ORDER_ORIG, 120, 1 },
        { "1024_rr", "e1000-24nic-*", ORDER_RR, 1024, 9 },
    };
    const char *src = getenv("SIOFLEET_SRC");
    CLEANUP(freep) char *logs = path_fmt("%s/tests/data/real-log", src ? src : ".");
    CLEANUP(freep) char *path = path_fmt("%s/decode.trc", home);
    printf("trace files of the real logs   B/event, M events/s for an engine, with all that an "
           "export needs\n");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct recipe r;
        struct trace *t;
        struct err e = { 0 };
        struct stat st;
        recipe_init(&r);
        r.order = rows[i].order;
        r.tenants = rows[i].tenants;
        r.replicate = rows[i].replicate;
        if (recipe_set(&r, "logs", rows[i].logs, logs, "decode", &e) < 0 ||
            build_trace(&r, NULL, &t, NULL, &e) < 0 || trace_save(t, path, true, NULL, &e) < 0 ||
            stat(path, &st) < 0)
            die("decode", &e);
        trace_free(&t);
        recipe_clear(&r);
        uint64_t n;
        double engine = decode_ns(path, 0, reps, &n),
               all = decode_ns(path, TRACE_WITH_OFFSETS | TRACE_WITH_EXPORT, reps, &n),
               b = (double)st.st_size / (double)n;
        char key[64];
        snprintf(key, sizeof(key), "decode_%s_ns", rows[i].name);
        note(key, engine);
        snprintf(key, sizeof(key), "decode_all_%s_ns", rows[i].name);
        note(key, all);
        snprintf(key, sizeof(key), "trace_%s_b", rows[i].name);
        note(key, b);
        printf("%-10s %9" PRIu64 " events %8.2f %8.1f %8.1f\n", rows[i].name, n, b, 1e3 / engine,
               1e3 / all);
    }
    unlink(path);
}

/* ---- */

/* Ratios to an earlier run. Returns whether one is worse than allowed. */
static bool compare(const char *path, double worse_percent)
{
    json_error_t why;
    json_t *old = json_load_file(path, 0, &why);
    const json_t *old_results = json_object_get(old, "results");
    const char *name;
    json_t *v;
    bool bad = false;
    if (!old_results) {
        fprintf(stderr, "engine: %s: %s\n", path, old ? "no results" : why.text);
        exit(1);
    }
    printf("against %s:\n", path);
    json_object_foreach (results, name, v) {
        double was = json_number_value(json_object_get(old_results, name)),
               is = json_number_value(v);
        if (was <= 0)
            continue;
        double change = (is / was - 1) * 100;
        bool more_is_better = strstr(name, "efficiency") != NULL,
             worse = (more_is_better ? -change : change) > worse_percent;
        printf("%-22s %10.2f %10.2f %+7.1f %%%s\n", name, was, is, change, worse ? "  worse" : "");
        bad |= worse;
    }
    json_decref(old);
    return bad;
}

int main(int argc, char **argv)
{
    CLEANUP(freep) char *home = NULL;
    const char *json = NULL, *baseline = NULL;
    const char *parts = "builds runs model scaling mrc decode instructions";
    char only[128] = "";
    unsigned reps = 3;
    double worse = 25;
    if (argc == 4 && !strcmp(argv[1], "--count"))
        return counted_run(argv[2], (unsigned)atoi(argv[3]));
    for (int i = 1; i < argc; i++) {
        const char *o = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(o, "--help")) {
            printf("usage: engine [--home DIR] [--reps N] [--only PART]... [--json FILE] "
                   "[--baseline FILE [--worse PERCENT]]\n"
                   "       engine --count CASE REPS\nparts: %s\n",
                   parts);
            return 0;
        }
        if (!v || strncmp(o, "--", 2)) {
            fprintf(stderr, "engine: %s: a value is missing, or no option (--help)\n", o);
            return 2;
        }
        i++;
        if (!strcmp(o, "--home")) {
            free(home);
            home = strdup(v);
        } else if (!strcmp(o, "--reps") && atoi(v) > 0 && atoi(v) <= 32) {
            reps = (unsigned)atoi(v);
        } else if (!strcmp(o, "--only") && strstr(parts, v)) {
            strncat(only, v, sizeof(only) - strlen(only) - 1);
        } else if (!strcmp(o, "--json")) {
            json = v;
        } else if (!strcmp(o, "--baseline")) {
            baseline = v;
        } else if (!strcmp(o, "--worse")) {
            worse = atof(v);
        } else {
            fprintf(stderr, "engine: %s: not understood with '%s' (--help)\n", o, v);
            return 2;
        }
    }
    if (!home) {
        CLEANUP(freep) char *cache = path_xdg("CACHE");
        home = path_fmt("%s/bench", cache);
    }
    const char *want = only[0] ? only : parts;
    results = json_object();
    bool made = strcmp(want, "decode") != 0 && strcmp(want, "instructions") != 0;
    for (size_t i = 0; made && i < ARRAY_LEN(inputs); i++)
        make_logs(home, &inputs[i]);
    if (made)
        make_logs(home, &hit_input);
    if (strstr(want, "builds") || strstr(want, "runs"))
        hypersio_table(home, reps, strstr(want, "builds"), strstr(want, "runs"));
    if (strstr(want, "model"))
        model_table(home, 3 * reps);
    if (strstr(want, "scaling"))
        scaling(home, reps);
    if (strstr(want, "mrc"))
        curves(home, reps);
    if (strstr(want, "decode"))
        decoding(home, 10 * reps);
    if (strstr(want, "instructions"))
        counted_table(note);
    bool bad = baseline && compare(baseline, worse);
    if (json) {
        struct err e = { 0 };
        json_t *doc = json_object();
        json_object_set_new(doc, "schema", json_string("siofleet.bench-engine/1"));
        json_object_set(doc, "results", results);
        CLEANUP(freep) char *text = json_dumps(doc, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        json_decref(doc);
        if (file_write(json, text, strlen(text), 0644, true, &e) < 0)
            die(json, &e);
    }
    json_decref(results);
    return bad;
}
