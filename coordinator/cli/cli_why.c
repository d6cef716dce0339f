/* why and audit: what the coordinator says, for people. */
#include <inttypes.h>
#include <string.h>

#include "coordinator/cli/fleet_run.h"
#include "coordinator/results_local.h"
#include "proto/base/clean.h"

static const char *text_of(const json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? s : "";
}

static uint64_t num_of(const json_t *j, const char *key)
{
    uint64_t v = 0;
    json_get_u64(j, key, &v, NULL);
    return v;
}

static void print_attempt(const json_t *a)
{
    const char *cause = text_of(a, "cause");
    printf("  task %" PRIu64 ", attempt %" PRIu64 " of epoch %" PRIu64 " on %s: %s",
           num_of(a, "task"), num_of(a, "n"), num_of(a, "epoch"), text_of(a, "agent"),
           *cause ? cause : "runs");
    if (!strcmp(cause, "exit"))
        printf(" %" PRIu64, num_of(a, "exit"));
    if (num_of(a, "signal"))
        printf("%s %" PRIu64, strcmp(cause, "signal") ? ", signal" : "", num_of(a, "signal"));
    printf("%s%s\n", *text_of(a, "ended") ? ", " : "", text_of(a, "ended"));
    size_t i;
    json_t *line;
    json_array_foreach (json_object_get(a, "last_lines"), i, line)
        printf("    | %s\n", json_string_value(line));
}

int run_why(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    struct why_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *doc = NULL, *args = json_pack("{s:o}", "id", json_str(argv[0]));
    fleet_signals();
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    r = r < 0 ? r : client_ask_one(cl, "why", args, &doc, &e);
    if (r < 0)
        return cli_fail(c, &e);
    if (o->json)
        return cli_json(c, TAKE(doc));
    size_t i;
    json_t *item;
    printf("%s %s: %s\n", text_of(doc, "kind"), text_of(doc, "id"), text_of(doc, "state"));
    json_array_foreach (json_object_get(doc, "reasons"), i, item)
        printf("  %s: %s\n", text_of(item, "code"), text_of(item, "text"));
    json_array_foreach (json_object_get(doc, "attempts"), i, item) {
        if (!i)
            printf("attempts, newest first:\n");
        print_attempt(item);
    }
    return cli_flush(c);
}

/* ---- audit */

/* Pages into one document: lists are joined, sums added, what only the first page has is kept. */
static int join_page(void *ctx, json_t *page, struct err *e)
{
    static const char *const lists[] = { "missing", "wrong" };
    static const char *const sums[] = { "accepted", "failed", "n_missing" };
    json_t **doc = ctx;
    if (!json_is_array(json_object_get(page, "missing")))
        return err_set(e, SF_EFORMAT, "coordinator: answer is no audit");
    if (!*doc) {
        *doc = json_incref(page);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        json_array_extend(json_object_get(*doc, lists[i]), json_object_get(page, lists[i]));
    for (size_t i = 0; i < ARRAY_LEN(sums); i++)
        json_object_set_new(*doc, sums[i], json_u64(num_of(*doc, sums[i]) + num_of(page, sums[i])));
    return 0;
}

int run_audit(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    struct audit_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    CLEANUP(json_decrefp) json_t *doc = NULL, *args = json_pack("{s:o}", "id", json_str(argv[0]));
    fleet_signals();
    int r = o->data ? results_local(o->data, "audit", args, join_page, &doc, &e)
                    : client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    if (r >= 0 && !o->data)
        r = client_ask(cl, "audit", args, join_page, &doc, &e);
    if (r < 0)
        return cli_fail(c, &e);
    const char *state = text_of(doc, "state"), *name = text_of(doc, "name");
    bool ended = !strcmp(state, "done") || !strcmp(state, "failed");
    uint64_t missing = num_of(doc, "n_missing"), differing = num_of(doc, "n_differing");
    size_t wrong = json_array_size(json_object_get(doc, "wrong"));
    /* while it runs, rows come between the pages: only an ended one must add up */
    bool adds_up = !ended || num_of(doc, "counted") == num_of(doc, "accepted");
    bool ok = !(ended && missing) && !differing && !wrong && adds_up;
    if (!ok)
        err_set(&e, SF_EINTEGRITY,
                "sweep '%.100s': %" PRIu64 " points missing, %" PRIu64
                " differing, %zu wrong rows%s",
                name, ended ? missing : 0, differing, wrong,
                adds_up ? "" : ", and its counters do not add up");
    if (o->json) {
        CLEANUP(json_decrefp) json_t *all = json_pack("{s:s}", "schema", "siofleet.audit/1");
        json_object_update(all, doc);
        int out = cli_json(c, TAKE(all));
        if (ok || out)
            return out;
        fprintf(stderr, "siofleet: %s\n", e.text);
        return 4;
    }
    printf("sweep '%s' is %s: %" PRIu64 " of %" PRIu64 " points have their result, %" PRIu64
           " failed, %" PRIu64 " missing\n",
           name, state, num_of(doc, "accepted"), num_of(doc, "points"), num_of(doc, "failed"),
           missing);
    printf("beside them: %" PRIu64 " equal, %" PRIu64 " late, %" PRIu64 " foreign, %" PRIu64
           " differing\n",
           num_of(doc, "duplicate_equal"), num_of(doc, "late"), num_of(doc, "foreign"), differing);
    size_t i;
    json_t *item;
    json_array_foreach (json_object_get(doc, "differing"), i, item)
        printf("  point %" PRIu64 ": agent '%s' had another result (task %" PRIu64 ", %s)\n",
               num_of(item, "index"), text_of(item, "agent"), num_of(item, "task"),
               text_of(item, "at"));
    json_array_foreach (json_object_get(doc, "wrong"), i, item)
        printf("  point %" PRIu64 ": %s\n", num_of(item, "index"), text_of(item, "reason"));
    int out = cli_flush(c);
    return ok || out ? out : cli_fail(c, &e);
}
