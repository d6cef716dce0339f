#include "tests/bench/counted.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/engine.h"
#include "perf/mrc.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "tests/oracle/random_case.h"

static void die(const char *what, const struct err *e)
{
    fprintf(stderr, "engine: %s: %s\n", what, e ? e->text : "failed");
    exit(1);
}

/* Packets of ring page, buffer page and mailbox page, as a NIC's, `tenants` in turn. */
static struct trace *packets(uint32_t tenants, uint32_t rounds)
{
    enum { PAGES = 34 };
    struct trace_entry *d = calloc((size_t)tenants * PAGES, sizeof(*d));
    uint32_t *ev = malloc((size_t)tenants * rounds * 3 * sizeof(*ev));
    uint64_t n = 0;
    if (!d || !ev)
        die("trace", NULL);
    for (uint32_t g = 0; g < tenants; g++)
        for (uint32_t p = 0; p < PAGES; p++) {
            bool small = p < 2;
            uint64_t iova = p == 0   ? 0x34800000
                            : p == 1 ? 0x34a03000
                                     : 0xbb000000 + ((uint64_t)p << 21);
            d[g * PAGES + p] = (struct trace_entry){ .iova = iova,
                                                     .mask = small ? ~0xfffull : ~0x1fffffull,
                                                     .sid = g * 8 + 16,
                                                     .gid = g,
                                                     .level = small ? 1 : 2 };
        }
    for (uint32_t r = 0; r < rounds; r++)
        for (uint32_t g = 0; g < tenants; g++) {
            ev[n++] = g * PAGES;
            ev[n++] = g * PAGES + 2 + (r / 16 + g) % (PAGES - 2);
            ev[n++] = g * PAGES + 1;
        }
    struct trace *t = trace_of(d, tenants * PAGES, ev, n);
    free(d);
    free(ev);
    return t;
}

/* template: of mkstemp() */
static int file_temp(char *template, const struct trace *t)
{
    CLEANUP(closep) int fd = mkstemp(template);
    return fd < 0 ? -1 : trace_save(t, template, true, NULL, NULL);
}

int counted_run(const char *name, unsigned reps)
{
    struct arch a;
    enum rules rules = RULES_MODEL;
    struct trace *t = NULL;
    struct err e = { 0 };
    char path[] = "/tmp/sf-bench-XXXXXX";
    arch_default(&a);
    if (!strcmp(name, "hit")) {
        t = packets(16, 800);
        a.iotlb_groups = 8;
    } else if (!strcmp(name, "miss")) {
        t = packets(512, 25);
        a.queue = 32;
    } else if (!strcmp(name, "hypertrio") || !strcmp(name, "hypersio")) {
        t = packets(512, 25);
        arch_preset(&a, "hypertrio", "bench", NULL);
        rules = name[5] == 's' ? RULES_HYPERSIO : RULES_MODEL;
    } else if (!strcmp(name, "curve")) {
        t = packets(512, 25);
    } else if (!strcmp(name, "decode")) {
        t = packets(512, 100);
        if (file_temp(path, t) < 0)
            die(name, NULL);
    } else {
        fprintf(stderr,
                "engine: --count: '%s' is none of hit, miss, hypertrio, hypersio, curve, decode\n",
                name);
        return 2;
    }
    for (unsigned i = 0; i < reps; i++) {
        struct row_stats s;
        struct mrc m;
        struct trace *u;
        if (!strcmp(name, "decode")) {
            if (trace_load(path, 0, &u, &e) < 0)
                die(name, &e);
            trace_free(&u);
        } else if (!strcmp(name, "curve")) {
            if (mrc_full(t, &m, &e) < 0)
                die(name, &e);
            mrc_clear(&m);
        } else if (engine_run(t, &a, rules, &s, NULL, &e) < 0) {
            die(name, &e);
        }
    }
    if (!strcmp(name, "decode"))
        unlink(path);
    printf("%" PRIu64 "\n", t->n);
    trace_free(&t);
    return 0;
}

/* What cachegrind counts in this program with --count NAME REPS; 0 without valgrind. */
static uint64_t instructions_of(const char *name, unsigned reps, uint64_t *ret_events)
{
    char self[4096], line[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        die("/proc/self/exe", NULL);
    self[n] = '\0';
    setenv("BENCH_SELF", self, 1);
    CLEANUP(freep)
    char *cmd = path_fmt("SIOFLEET_ISA=scalar valgrind --tool=cachegrind --cache-sim=no "
                         "--cachegrind-out-file=/dev/null \"$BENCH_SELF\" --count %s %u 2>&1",
                         name, reps);
    FILE *f = popen(cmd, "r");
    uint64_t refs = 0;
    while (f && fgets(line, sizeof(line), f)) {
        char *at = strstr(line, "refs:");
        if (line[0] != '=')
            *ret_events = strtoull(line, NULL, 10);
        for (const char *c = at ? at : ""; *c && *c != '\n'; c++)
            refs = *c >= '0' && *c <= '9' ? 10 * refs + (uint64_t)(*c - '0') : refs;
    }
    if (f)
        pclose(f);
    return refs;
}

void counted_table(void (*note)(const char *name, double v))
{
    static const char *const names[] = {
        "hit", "miss", "hypertrio", "hypersio", "curve", "decode"
    };
    printf("instructions an event, scalar path:");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        uint64_t events = 0, one = instructions_of(names[i], 1, &events),
                 two = instructions_of(names[i], 2, &events);
        if (!one || two <= one || !events) {
            printf(" not counted (no valgrind)");
            break;
        }
        char key[64];
        snprintf(key, sizeof(key), "instructions_%s", names[i]);
        note(key, (double)(two - one) / (double)events);
        printf(" %s %.0f", names[i], (double)(two - one) / (double)events);
    }
    printf("\n");
}
