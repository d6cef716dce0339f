/* `hypersio-perf`: the reference's command line, file places, text and exit codes over our builder and engine.
 *
 * Where the reference aborts, hangs or is undefined, this program prints one line on stderr and exits with 2.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/build.h"
#include "perf/compat/cfg.h"
#include "perf/compat/compat.h"
#include "perf/compat/hashord.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"

#define LINE "------------------------------------------\n"
#define DOUBLE_LINE "======================================================\n"

static const char help[] =
    "Usage: hypersio-perf --build --ltype txt --lbase NAME --tenantnum N [OPTION VALUE]...\n"
    "       hypersio-perf --run --config FILE --prefix NAME --iotlbrepl lru|lfu|oracle [OPTION "
    "VALUE]...\n"
    "\n"
    "Drop-in for the HyperSIO model. Logs are $HYPERSIO_HOME/build/qemu_logs/NAME_0.txt, "
    "NAME_1.txt, ...;\n"
    "traces are $HYPERSIO_HOME/build/hypersio_traces/PREFIX_{iotlb_trace,cc_data,slpt_data}.bin.\n"
    "\n"
    "  --build  --tenantnum N  --maxdevperlog N  --lbase NAME  --tname NAME  --order rr|rand|orig\n"
    "           --consec N (events in a row, 3)  --ltype txt\n"
    "  --run    --config FILE  --prefix NAME  --tqueue N  --inorder  --salloc  --tenantnum N\n"
    "           --iotlbrepl lru|lfu|oracle  --linkbwgbps N\n"
    "\n"
    "Exit: 0 done, 1 a log is missing (the files are written), 2 refused.\n";

static void say(const char *level, const char *place, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void say(const char *level, const char *place, const char *fmt, ...)
{
    printf("%-7s %s: ", level, place);
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}
#define INFO(...) say("[INFO]", __VA_ARGS__)
#define WARN(...) say("[WARN]", __VA_ARGS__)
#define ERROR(...) say("[ERROR]", __VA_ARGS__)

static int refuse(const struct err *e)
{
    fflush(stdout);
    fprintf(stderr, "hypersio-perf: %s\n", e->text);
    return 2;
}

static int refusef(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int refusef(const char *fmt, ...)
{
    struct err e = { .code = SF_EUSAGE };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e.text, sizeof(e.text), fmt, ap);
    va_end(ap);
    return refuse(&e);
}

/* ---------------------------------------------------------------- options */

struct args {
    int n;
    struct {
        const char *name, *value;
    } * v;
    const char
        *last; /* text of the option read last: what the reference reads again when one is absent */
};

static bool has(const struct args *a, const char *name)
{
    for (int i = 0; i < a->n; i++)
        if (!strcmp(a->v[i].name, name))
            return true;
    return false;
}

/* Value of an option; the last one wins. *ret stays when it is absent. */
static bool get(struct args *a, const char *name, const char **ret)
{
    for (int i = a->n - 1; i >= 0; i--)
        if (!strcmp(a->v[i].name, name)) {
            *ret = a->last = a->v[i].value;
            return true;
        }
    return false;
}

/* Blanks in front, a plus and any text behind the digits are passed over, as the reference does. */
static int get_number(const char *text, const char *option, uint64_t lo, uint64_t hi, uint64_t *ret,
                      struct err *e)
{
    if (!*text)
        return err_set(e, SF_EUSAGE, "--%s: a number is missing", option);
    char place[64], digits[32];
    snprintf(place, sizeof(place), "--%s", option);
    const char *p = text + strspn(text, " \t\n\v\f\r");
    p += *p == '+';
    size_t n = strspn(p, "0123456789");
    if (!n || n >= sizeof(digits))
        return num_u64(text, lo, hi, place, ret, e);
    memcpy(digits, p, n);
    digits[n] = 0;
    return num_u64(digits, lo, hi, place, ret, e);
}

/* ---------------------------------------------------------------- --build */

struct build_print {
    bool missing;
};

static void print_note(void *user, const struct build_note *n)
{
    struct build_print *p = user;
    switch (n->kind) {
    case BUILD_LOG:
        INFO("src/trace.cpp:165", "Parsing file: %s", n->path);
        break;
    case BUILD_MISSING:
        p->missing = true;
        ERROR("src/trace.cpp:159", "Can't open file %s", n->path);
        ERROR("src/trace.cpp:134", "Failed to read log %s", n->path);
        break;
    case BUILD_MAPPING:
        INFO("src/trace.cpp:292", "Creating mapping UID: %" PRIu64 " GID: %" PRIu64, n->a, n->b);
        break;
    case BUILD_BAD_MASK:
        ERROR("src/trace.cpp:252", "Can't convert mask 0x%" PRIx64 " to any level!", n->a);
        break;
    case BUILD_BAD_LEVEL:
        /* the reference ends this one without an LF */
        printf("[ERROR] src/trace.cpp:223: Page level can't be 0!");
        break;
    case BUILD_CTX_CHANGED:
        WARN("src/trace.cpp:313", "Context entry for SID 0x%" PRIx64 " is changed in the trace!",
             n->a);
        break;
    case BUILD_SLPTE_CONFLICT:
        WARN("src/trace.cpp:332", "New SLPTE conflicts with an existing one!");
        break;
    case BUILD_REFUSED:
        WARN("src/trace.cpp:170", "%s:%" PRIu64 ": %s, line ignored", n->path, n->a, n->text);
        break;
    case BUILD_PARSED:
        INFO("src/trace.cpp:180", "Parsed %" PRIu64 " events from %" PRIu64 " devices", n->a, n->b);
        INFO("src/trace.cpp:181", "Ignored %" PRIu64 " events", n->c);
        break;
    case BUILD_VALID:
    case BUILD_DEVICES:
        break;
    }
}

static int cmd_build(struct args *a, const char *home)
{
    struct err e = { 0 };
    const char *tenantnum = "", *maxdev, *lbase = "", *tname = "", *order_text = "rr",
               *consec = "3", *ltype = "";
    uint64_t n, d, c;
    /* an absent number is taken from the text of the option read before it, as the reference does */
    get(a, "build", &tenantnum);
    if (!get(a, "tenantnum", &tenantnum) && !*tenantnum)
        return refusef("--tenantnum: missing");
    if (get_number(tenantnum, "tenantnum", 0, UINT32_MAX, &n, &e) < 0)
        return refuse(&e);
    maxdev = tenantnum;
    get(a, "maxdevperlog", &maxdev);
    if (get_number(maxdev, "maxdevperlog", 0, UINT32_MAX, &d, &e) < 0)
        return refuse(&e);
    get(a, "lbase", &lbase);
    get(a, "tname", &tname);
    get(a, "order", &order_text);
    get(a, "consec", &consec);
    get(a, "ltype", &ltype);
    enum trace_order order = !strcmp(order_text, "rr")     ? ORDER_RR
                             : !strcmp(order_text, "rand") ? ORDER_RAND
                                                           : ORDER_ORIG;
    if (order == ORDER_ORIG && strcmp(order_text, "orig") != 0)
        return refusef("--order: '%s' is none of rr, rand, orig", order_text);
    if (get_number(consec, "consec", order == ORDER_ORIG ? 0 : 1, UINT64_MAX, &c, &e) < 0)
        return refuse(&e);
    if (strcmp(ltype, "txt") != 0)
        return refusef("--ltype: '%s': only txt logs are read", ltype);
    INFO("src/main.cpp:130", "Target number of tenants: %" PRIu64, n);
    INFO("src/main.cpp:134", "Maximum number of devices per log: %" PRIu64, d);
    INFO("src/main.cpp:137", "Setting log_base to: %s", lbase);
    INFO("src/main.cpp:140", "Test name: %s", tname);
    INFO("src/main.cpp:145", "Using '%s' order for IOVA translation events", order_text);
    INFO("src/main.cpp:150", "Setting consecutive number of events per device to: %" PRIu64, c);
    INFO("src/main.cpp:163", "Building a trace");

    struct build_print print = { 0 };
    struct build_hooks hooks = { .user = &print, .note = print_note };
    CLEANUP(builder_free) struct builder *b = NULL;
    if (builder_new(RULES_HYPERSIO, &hooks, &b, &e) < 0)
        return refuse(&e);
    uint64_t left = n;
    for (uint64_t k = 0; left > 0; k++) {
        uint64_t valid = left < d ? left : d, seen;
        CLEANUP(freep)
        char *path = path_fmt("%s/build/qemu_logs/%s_%" PRIu64 ".txt", home, lbase, k);
        if (!path)
            return refusef("no memory");
        INFO("src/trace.cpp:121", "Setting %" PRIu64 " valid devices in log #%" PRIu64, valid, k);
        int r = builder_log(b, path, valid, NULL, &seen, &e);
        if (r < 0 && print.missing)
            break;
        if (r < 0)
            return refuse(&e);
        if (seen != d)
            WARN("src/trace.cpp:184",
                 "Encountered %" PRIu64 " devices while expecting maximum %" PRIu64
                 " devices in log %s",
                 seen, d, path);
        left -= seen;
    }
    CLEANUP(trace_free) struct trace *t = NULL;
    if (builder_finish(b, order, c ? c : 1, 1, 0, 1, &t, &e) < 0)
        return refuse(&e);
    if (trace_next(t, &e) < 0)
        return refuse(&e);
    CLEANUP(freep) char *dir = path_fmt("%s/build/hypersio_traces", home);
    CLEANUP(freep)
    char *prefix = path_fmt("%s_tnt_%" PRIu64 "_%s%" PRIu64, tname, t->head.tenants, order_text, c);
    if (!dir || !prefix)
        return refusef("no memory");
    INFO("src/trace.cpp:367",
         "Saving IOVA trace of %" PRIu64 " domains to a file %s/%s_iotlb_trace.bin",
         t->head.tenants, dir, prefix);
    if (t->head.early_end)
        INFO("src/trace.cpp:468", "Ending trace generation after first did stream is over");
    if (compat_files_write(t, dir, prefix, &e) < 0)
        return refuse(&e);
    INFO("src/trace.cpp:391", "Saved %" PRIu64 " IOVA translation events", t->n);
    INFO("src/trace.cpp:534", "Saved CC data for %zu SIDs to file: %s/%s_cc_data.bin", t->n_cc, dir,
         prefix);
    INFO("src/trace.cpp:547", "Saved %zu SLPT entries for different levels to: %s/%s_slpt_data.bin",
         t->n_slpt, dir, prefix);
    return print.missing ? 1 : 0;
}

/* ---------------------------------------------------------------- --run */

static int print_cacheable(bool salloc, uint32_t from, uint32_t n)
{
    if (!salloc) {
        printf("CACHEALE DIDs     : ALL\n");
        return 0;
    }
    printf("CACHEALE DIDs     : %u\n{ ", n);
    CLEANUP(freep) uint64_t *h = malloc(((size_t)n + 1) * sizeof(*h));
    CLEANUP(freep) uint32_t *order = malloc(((size_t)n + 1) * sizeof(*order));
    if (!h || !order)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        h[i] = from + i;
    if (hashord_order(h, n, order) < 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        printf("%s%" PRIu64, i ? ", " : "", h[order[i]]);
    printf(" }\n");
    return 0;
}

static void print_configuration(const struct compat_cfg *c, const struct arch *a, uint64_t queue)
{
    printf(LINE "SIOPERF Configuration\n" LINE);
    printf("TRANSL QUEUE ENTR : %" PRIu64 "\n", queue);
    printf("TRANSL QUEUE OOO  : %s\n", a->inorder ? "NO" : "YES");
    printf("SELECTIVE ALLOC   : %s\n", a->salloc ? "YES" : "NO");
    uint32_t from = 0;
    for (int i = 0; i <= CFG_L3PAGE; i++) {
        const struct compat_cache *s = &c->c[i];
        printf(LINE "%s Configuration\n" LINE, compat_section_names[i]);
        printf("SIZE              : %" PRIu64 "\n", s->size);
        printf("ASSOCIATIVITY     : %" PRIu64 "\n", s->assoc);
        printf("GROUPS            : %" PRIu64 "\n", s->groups);
        print_cacheable(a->salloc && i != CFG_CC, from, (uint32_t)s->groups);
        if (i != CFG_CC)
            from += (uint32_t)s->groups;
    }
}

static void print_cache(const char *name, uint64_t hit, uint64_t miss, uint64_t conflict,
                        uint64_t domains, const uint64_t *rows, size_t n)
{
    printf(LINE "%s Statistics\n" LINE, name);
    printf("HIT               : %" PRIu64 "\n", hit);
    printf("MISS              : %" PRIu64 "\n", miss);
    printf("CONFLICT          : %" PRIu64 "\n", conflict);
    printf("# DOMAINS USED    : %" PRIu64 "\n", domains);
    printf("Row Stat :\n[");
    for (size_t i = 0; i < n; i++)
        printf("%s%" PRIu64, i ? ", " : "", rows[i]);
    printf("]\n");
}

static void print_vanished(const struct trace *t, const struct compat_vanished *v, size_t from,
                           size_t to)
{
    for (size_t i = from; i < to; i++) {
        const struct trace_entry *x = &t->entry[v->entry[i]];
        WARN("./include/sioperf.tcc:368", "Wow, unexpected level 0x%x!", x->level);
        INFO("src/event.cpp:125",
             "Translate Event: did 0x%x, iova 0x%" PRIx64 ", mask 0x%" PRIx64 ", slpte 0x%" PRIx64
             ", lvl 0x%x, nat %" PRIu64,
             x->gid, x->iova, x->mask, x->slpte, x->level, UINT64_MAX);
    }
}

static int print_statistics(const struct row_stats *r, const struct engine_detail *d,
                            const struct arch *a, const struct compat_cfg *c)
{
    CLEANUP(freep) uint32_t *order = malloc((d->n_flows + 1) * sizeof(*order));
    if (!order || compat_flow_order(d, order) < 0)
        return refusef("no memory");
    printf(LINE);
    printf("Time elapsed :        %" PRIu64 " ns\n", r->time_ps / 1000);
    printf("Requests translated:  %" PRIu64 "\n", r->requests);
    printf("Pkts dropped:         %" PRIu64 "\n", r->pkts_dropped);
    printf("[Mb/s] for 1542B pkts: %" PRIu64 "\n", r->mbps);
    printf(LINE "Per Flow Statistics:\n");
    for (size_t i = 0; i < d->n_flows; i++) {
        const struct engine_flow *f = &d->flows[order[i]];
        printf("DID: 0x%6x, Time: %" PRIu64 " ns, Trans #: %6" PRIu64 ", BW %6" PRIu64 " Mb/s\n",
               f->gid, f->time_ps / 1000, f->trans, f->bw_mbps);
    }
    printf(LINE);
    print_cache("CC", r->cc_hit, r->cc_miss, r->cc_conflict, r->cc_domains, d->rows[0],
                d->n_rows[0]);
    print_cache("IOTLB", r->iotlb_hit, r->iotlb_miss, r->iotlb_conflict, r->iotlb_domains,
                d->rows[1], d->n_rows[1]);
    print_cache("L2PAGE", r->l2_hit, r->l2_miss, r->l2_conflict, r->l2_domains, d->rows[2],
                d->n_rows[2]);
    print_cache("L3PAGE", r->l3_hit, r->l3_miss, r->l3_conflict, r->l3_domains, d->rows[3],
                d->n_rows[3]);
    printf(DOUBLE_LINE "Prefetcher Statistics\n" DOUBLE_LINE);
    printf("Accesses                   : %" PRIu64 "\n", r->pf_accesses);
    printf("Correct SID Predictions    : %" PRIu64 "\n", r->pf_correct);
    printf("Incorrect SID Predictions  : %" PRIu64 "\n", r->pf_incorrect);
    printf("Predictions Made           : %" PRIu64 "\n", r->pf_predictions);
    printf("New SID mappings           : %" PRIu64 "\n", r->pf_new_mappings);
    printf("Trans to the same SID      : %" PRIu64 "\n", r->pf_same_sid);
    printf("Trans to diff SID          : %" PRIu64 "\n", r->pf_diff_sid);
    printf("Prefetch distance          : %" PRIu64 "\n", c->c[CFG_PREFETCH].assoc);
    printf("Addr history length        : %u\n", a->pf_history);
    for (size_t i = 0; i < d->n_hist; i++)
        printf("SID 0x%x History Stat      : h %" PRIu64 " m %" PRIu64 "\n", d->hist[i].sid,
               d->hist[i].hit, d->hist[i].miss);
    printf(DOUBLE_LINE "Prefetcher Buffer Statistics\n" DOUBLE_LINE);
    printf("Buffer size                : %" PRIu64 "\n", r->pf_size);
    printf("Fill the same entry        : %" PRIu64 "\n", r->pf_fill_same);
    printf("Buffer fill                : %" PRIu64 "\n", r->pf_fill);
    printf("Buffer hit                 : %" PRIu64 "\n", r->pf_hit);
    printf("Buffer miss                : %" PRIu64 "\n", r->pf_miss);
    return 0;
}

/* The three messages on geometry that the reference prints and ignores. */
static void geometry_messages(const struct compat_cfg *c)
{
    for (int i = 0; i <= CFG_L3PAGE; i++) {
        const struct compat_cache *s = &c->c[i];
        const char *name = compat_section_names[i];
        uint64_t sets = s->assoc ? s->size / s->assoc : 0;
        if (s->assoc && s->size % s->assoc)
            ERROR("./include/cache.tcc:61",
                  "Size %" PRIu64 " is not divisible by associativity %" PRIu64 "!", s->size,
                  s->assoc);
        if (s->groups && sets % s->groups)
            ERROR("./include/cache.tcc:66",
                  "%s: Can not equally partition %" PRIu64 " sets into %" PRIu64 " groups", name,
                  sets, s->groups);
        if (i == CFG_CC && sets > 1)
            ERROR("./include/sioperf.tcc:591",
                  "Expected Fully Associative or Empty Context Cache!");
    }
}

static int cmd_run(struct args *a, const char *home)
{
    struct err e = { 0 };
    const char *config = "cache.cfg", *prefix = "", *tqueue = "1", *tenantnum = NULL, *repl = "",
               *bw = "200";
    uint64_t queue, gbps, tenants;
    const char *none;
    get(a, "run", &none);
    get(a, "config", &config);
    get(a, "prefix", &prefix);
    get(a, "tqueue", &tqueue);
    if (get_number(tqueue, "tqueue", 1, UINT64_MAX, &queue, &e) < 0)
        return refuse(&e);
    /* more than a trace has events is no different from that */
    struct arch arch = { .queue = (uint32_t)(queue < UINT32_MAX - 2 ? queue : UINT32_MAX - 2) };
    arch.inorder = get(a, "inorder", &none);
    arch.salloc = get(a, "salloc", &none);
    /* an absent number is taken from the text of the option read before it, as the reference does; it is only printed */
    const char *before = a->last;
    if (get(a, "tenantnum", &tenantnum) || !*before) {
        if (get_number(tenantnum ? tenantnum : "", "tenantnum", 0, UINT64_MAX, &tenants, &e) < 0)
            return refuse(&e);
    } else {
        tenants = strtoull(before, NULL, 10);
    }
    get(a, "iotlbrepl", &repl);
    if (!strcmp(repl, "lru"))
        arch.iotlb_policy = POLICY_LRU;
    else if (!strcmp(repl, "lfu"))
        arch.iotlb_policy = POLICY_LFU;
    else if (!strcmp(repl, "oracle"))
        arch.iotlb_policy = POLICY_ORACLE;
    else
        return refusef("--iotlbrepl: '%s' is none of lru, lfu, oracle", repl);
    get(a, "linkbwgbps", &bw);
    if (get_number(bw, "linkbwgbps", 1, 12336, &gbps, &e) < 0)
        return refuse(&e);
    arch.link_gbps = (uint32_t)gbps;

    struct compat_cfg cfg;
    if (compat_cfg_read(config, &cfg, &e) < 0 || compat_cfg_arch(&cfg, config, &arch, &e) < 0)
        return refuse(&e);

    INFO("src/main.cpp:193", "Setting Translation Queue size to %" PRIu64 " entries", queue);
    if (arch.salloc)
        INFO("src/main.cpp:199", "Selective allocation based on DID");
    else
        INFO("src/main.cpp:201", "Translation Allocation in all caches");
    INFO("src/main.cpp:206", "Expected number of tenants: %" PRIu64, tenants);
    INFO("src/main.cpp:211", "IOTLB Replacement Policy: %s", repl);
    INFO("src/main.cpp:216", "Link Bandwidth: %" PRIu64 " Gb/s", gbps);
    INFO("./include/sioperf.tcc:528", "Reading Configuration from %s", config);
    if (cfg.bad_line)
        ERROR("./include/sioperf.tcc:570", "Unknown %s: %s",
              cfg.why == CFG_BAD_KEY ? "configuration" : "Cache Name", cfg.bad);
    geometry_messages(&cfg);
    print_configuration(&cfg, &arch, queue);

    CLEANUP(freep) char *dir = path_fmt("%s/build/hypersio_traces", home);
    if (!dir)
        return refusef("no memory");
    static const struct {
        const char *place, *what, *name;
    } inputs[3] = {
        { "./include/sioperf.tcc:108", "Reading Context Data from:", "cc_data" },
        { "./include/sioperf.tcc:115", "Reading SLPT Data from:", "slpt_data" },
        { "./include/sioperf.tcc:153", "Playing Translation Trace from:", "iotlb_trace" },
    };
    for (int i = 0; i < 3; i++) {
        CLEANUP(freep) char *path = path_fmt("%s/%s_%s.bin", dir, prefix, inputs[i].name);
        if (!path)
            return refusef("no memory");
        bool there = access(path, R_OK) == 0;
        if (i == 2 && !there) {
            ERROR(inputs[i].place, "Can't open IOVA trace file: %s", path);
            return 0;
        }
        INFO(inputs[i].place, "%s %s", inputs[i].what, path);
        if (!there) {
            ERROR(inputs[i].place, "Can't open %s Data file: %s!", i ? "SLPT" : "Context Cache",
                  path);
            ERROR(inputs[i].place, "Failed to read %s Data", i ? "SLPT" : "Context");
            ERROR(inputs[i].place, "Can't setup environment for simulation!");
            return 0;
        }
    }
    CLEANUP(trace_free) struct trace *t = NULL;
    unsigned with = arch.iotlb_policy == POLICY_ORACLE ? COMPAT_WITH_NEXT : 0;
    if (compat_files_read(dir, prefix, with, &t, &e) < 0)
        return refuse(&e);
    if (!t->n)
        return refusef("%s/%s_iotlb_trace.bin: no translation", dir, prefix);
    struct row_stats row;
    CLEANUP(engine_detail_clear) struct engine_detail d = { 0 };
    if (compat_engine_run(t, &arch, &row, &d, &e) < 0)
        return refuse(&e);
    CLEANUP(freep) uint32_t *vanished = NULL;
    struct compat_vanished list = { 0 };
    if (d.warnings) {
        /* once more, so slowly that the address of each of them is known */
        trace_free(&t);
        engine_detail_clear(&d);
        int r = compat_files_read(dir, prefix, with | COMPAT_EACH_EVENT, &t, &e);
        if (r == 0)
            r = compat_engine_list(t, &arch, &row, &d, &list, &e);
        vanished = list.entry;
        if (r < 0)
            return refuse(&e);
    }
    print_vanished(t, &list, 0, list.playing);
    INFO("./include/sioperf.tcc:208", "\n\nWaiting for translations to drain...\n");
    print_vanished(t, &list, list.playing, list.n);
    return print_statistics(&row, &d, &arch, &cfg);
}

/* ---------------------------------------------------------------- main */

int hypersio_perf_main(int argc, char **argv)
{
    struct args a = { 0 };
    a.v = calloc((size_t)argc + 1, sizeof(*a.v));
    if (!a.v)
        return refusef("no memory");
    CLEANUP(freep) void *owned = a.v;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            ERROR("src/main.cpp:88", "Unexpected option: %s", argv[i]);
            return fflush(stdout) == 0 ? 0 : 1;
        }
        a.v[a.n].name = strrchr(argv[i], '-') + 1;
        a.v[a.n++].value = i + 1 < argc && argv[i + 1][0] != '-' ? argv[++i] : "";
    }
    if (has(&a, "help")) {
        fputs(help, stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    bool build = has(&a, "build"), run = has(&a, "run");
    if (!build && !run) {
        ERROR("src/main.cpp:286", "Incorrect options!");
        fputs(help, stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    const char *home = getenv("HYPERSIO_HOME");
    if (!home || !*home)
        return refusef("HYPERSIO_HOME: not set");
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    int r = build ? cmd_build(&a, home) : cmd_run(&a, home);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "hypersio-perf: stdout: cannot be written\n");
        return 1;
    }
    return r;
}
