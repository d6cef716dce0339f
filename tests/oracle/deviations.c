/* How much each deviation of perf/README.md's table changes on the real logs: the plain twin with that one put back, against the twin as
 * it is; and what the two readers of logs make of the five logs. Run by hand (SIOFLEET_SRC, or from the source folder):
 *
 *   deviations
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/build.h"
#include "perf/qemulog.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "tests/oracle/model_twin.h"

static char *folder;

static struct trace *load(const char *logs, uint64_t tenants, enum rules rules)
{
    struct recipe r;
    struct trace *t = NULL;
    struct err e = { 0 };
    recipe_init(&r);
    r.tenants = tenants;
    r.rules = rules;
    if (recipe_set(&r, "logs", logs, folder, "deviations", &e) < 0 ||
        build_trace(&r, NULL, &t, NULL, &e) < 0) {
        fprintf(stderr, "deviations: %s\n", e.text);
        exit(1);
    }
    recipe_clear(&r);
    return t;
}

static double change(uint64_t before, uint64_t now)
{
    return before ? 100.0 * ((double)now / (double)before - 1) : 0;
}

static void engine(const char *name, const struct trace *t, const struct arch *a)
{
    static const unsigned backs[] = { 1, 2, 14, 15, 17, 18, 19, 20, 21, 22, 38 };
    struct row_stats model, s;
    model_twin(t, a, &model, NULL);
    printf("%s: %" PRIu64 " Mb/s, IOTLB hits %" PRIu64 ", flows %" PRIu64 "..%" PRIu64
           " Mb/s, prefetches dropped %" PRIu64 "\n",
           name, model.mbps, model.iotlb_hit, model.min_flow_mbps, model.max_flow_mbps,
           model.pf_dropped);
    printf("  36: L2PAGE hit rate %.1f %% of demand, %.1f %% with prefetches mixed in\n",
           100.0 * (double)model.l2_hit / (double)(model.l2_hit + model.l2_miss + 1),
           100.0 * (double)(model.l2_hit + model.pf_l2_hit) /
               (double)(model.l2_hit + model.l2_miss + model.pf_l2_hit + model.pf_l2_miss + 1));
    for (size_t i = 0; i < ARRAY_LEN(backs); i++) {
        model_twin_back(t, a, backs[i], &s, NULL);
        printf("  %2u: Mb/s %" PRIu64 " -> %" PRIu64
               " (%+.2f %%), fastest flow %+.1f %%, time %+.3f %%, "
               "IOTLB hits %+.2f %%, fills %" PRIu64 " -> %" PRIu64 ", correct %" PRIu64 "/%" PRIu64
               " -> %" PRIu64 "/%" PRIu64 "\n",
               backs[i], s.mbps, model.mbps, change(s.mbps, model.mbps),
               change(s.max_flow_mbps, model.max_flow_mbps), change(s.time_ps, model.time_ps),
               change(s.iotlb_hit, model.iotlb_hit), s.pf_fill, model.pf_fill, s.pf_correct,
               s.pf_predictions, model.pf_correct, model.pf_predictions);
        fflush(stdout);
    }
}

static void shape(const char *name, const struct trace *t)
{
    uint64_t large = 0, odd = 0;
    for (uint32_t i = 0; i < t->n_entries; i++) {
        large += t->entry[i].level == 3;
        odd += !t->entry[i].level;
    }
    printf("%s: %" PRIu64 " events, %" PRIu64 " devices, %" PRIu64 " tenants, %zu context and %zu "
           "table records, 1 GiB entries %" PRIu64 ", of no size %" PRIu64 "\n",
           name, t->n, t->head.devices, t->head.tenants, t->n_cc, t->n_slpt, large, odd);
}

static void lines(const char *log)
{
    static const struct qlog_rules rules = { .crlf = true, .gen_decimal = true, .cc_hit = true };
    CLEANUP(freep) char *path = path_fmt("%s/%s", folder, log);
    struct qlog *q = NULL;
    struct err e = { 0 };
    struct qlog_event ev[64];
    if (qlog_open(path, &rules, NULL, NULL, &q, &e) < 0) {
        fprintf(stderr, "deviations: %s\n", e.text);
        exit(1);
    }
    while (qlog_read(q, ev, 64, &e) > 0)
        ;
    const struct qlog_counts *c = qlog_counts(q);
    printf("%s: %" PRIu64 " lines, %" PRIu64 " context hits, %" PRIu64 " refused\n", log, c->lines,
           c->by_kind[QLOG_CC_HIT], c->refused);
    qlog_free(&q);
}

int main(void)
{
    static const char tx3[] = "e1000-24nic-tx3.log.zst", all[] = "e1000-24nic-*";
    const char *src = getenv("SIOFLEET_SRC");
    folder = path_fmt("%s/tests/data/real-log", src ? src : ".");
    struct arch base, ht, lfu;
    arch_default(&base);
    arch_preset(&ht, "hypertrio", "deviations", NULL);
    lfu = base;
    lfu.iotlb_policy = POLICY_LFU;
    lines(tx3);
    lines("e1000-24nic-rx3.log.zst");
    struct trace *t = load(all, 120, RULES_HYPERSIO), *u = load(all, 120, RULES_MODEL);
    shape("five logs, hypersio rules", t);
    shape("five logs, model rules", u);
    /* source-ids that collide, and a prefetcher that goes by source-id alone */
    struct row_stats both, one;
    model_twin_back(t, &ht, 20, &both, NULL);
    model_twin(u, &ht, &one, NULL);
    printf("  4 and 20: Mb/s %" PRIu64 " -> %" PRIu64 " (%+.2f %%)\n", both.mbps, one.mbps,
           change(both.mbps, one.mbps));
    trace_free(&t);
    engine("five logs, hypertrio", u, &ht);
    trace_free(&u);
    t = load(tx3, 24, RULES_MODEL);
    engine("tx3, default", t, &base);
    engine("tx3, LFU", t, &lfu);
    engine("tx3, hypertrio", t, &ht);
    trace_free(&t);
    free(folder);
    return 0;
}
