/* ls, and the verbs that only tell the coordinator something. */
#include "coordinator/cli/cli_fleet.h"

#include <string.h>
#include <time.h>

#include "coordinator/cli/fleet_run.h"
#include "coordinator/cli/sheet.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/num.h"
#include "proto/base/file.h"
#include "proto/base/space.h"

enum { ENDED = 20 }; /* tasks that `ls tasks` shows beside those that are not over */

volatile sig_atomic_t fleet_stop;

static void on_signal(int sig)
{
    if (fleet_stop) {
        file_abort_all();
        _exit(5);
    }
    fleet_stop = sig;
}

void fleet_signals(void)
{
    /* no SA_RESTART: a wait must notice */
    struct sigaction sa = { .sa_handler = on_signal };
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

/* ---- ls */

int collect_items(void *ctx, json_t *body, struct err *e)
{
    json_t *all = ctx, *items = json_object_get(body, "items");
    if (!json_is_array(items) || json_array_extend(all, items) < 0)
        return err_set(e, SF_EFORMAT, "coordinator: answer without items");
    return 0;
}

/* A value for people: ages and sizes with a unit, lists and objects as k=v words. */
static json_t *shown(const char *key, const json_t *v)
{
    char text[200];
    uint64_t n = json_is_integer(v) ? (uint64_t)json_integer_value(v) : 0;
    if (json_is_integer(v) && (!strcmp(key, "last_seen_ms") || !strcmp(key, "eta_ms"))) {
        const char *ago = key[0] == 'l' ? " ago" : "";
        if (n < 10000)
            snprintf(text, sizeof(text), "%.1f s%s", (double)n / 1000, ago);
        else if (n < 600000)
            snprintf(text, sizeof(text), "%.0f s%s", (double)n / 1000, ago);
        else if (n < 172800000)
            snprintf(text, sizeof(text), "%.1f h%s", (double)n / 3600000, ago);
        else
            snprintf(text, sizeof(text), "%.0f d%s", (double)n / 86400000, ago);
        return json_string(text);
    }
    if (json_is_integer(v) && (!strcmp(key, "bytes") || !strcmp(key, "size_b")))
        return json_string(size_text(n, text));
    if (json_is_object(v) && !strcmp(key, "answers")) {
        uint64_t ms;
        bool told = json_get_u64(json_object_get(v, "beat"), "p99_ms", &ms, NULL) == 0;
        return told ? json_sprintf("%llu ms", (unsigned long long)ms) : json_string("-");
    }
    if (json_is_object(v)) {
        size_t at = 0;
        text[0] = '\0';
        void *it = json_object_iter((json_t *)(uintptr_t)v);
        for (; it && at < sizeof(text) - 1;
             it = json_object_iter_next((json_t *)(uintptr_t)v, it)) {
            char room[CELL_LEN];
            int w = snprintf(text + at, sizeof(text) - at, "%s%s=%s", at ? "," : "",
                             json_object_iter_key(it), cell_text(json_object_iter_value(it), room));
            at += w > 0 ? (size_t)w : 0;
        }
        return json_str(text);
    }
    if (json_is_array(v)) {
        snprintf(text, sizeof(text), "%zu", json_array_size(v));
        return json_string(text);
    }
    return v ? json_incref((json_t *)(uintptr_t)v) : json_null();
}

static const char *heading(const char *key)
{
    if (!strcmp(key, "last_seen_ms"))
        return "last_seen";
    if (!strcmp(key, "eta_ms"))
        return "eta";
    return key;
}

json_t *items_sheet(const json_t *items)
{
    json_t *cols = json_array(), *rows = json_array(), *item;
    const json_t *first = json_array_get(items, 0);
    size_t i;
    json_array_foreach (items, i, item) {
        json_t *row = json_array();
        for (void *it = json_object_iter((json_t *)(uintptr_t)first); it;
             it = json_object_iter_next((json_t *)(uintptr_t)first, it)) {
            const char *key = json_object_iter_key(it);
            if (!strcmp(key, "schema"))
                continue;
            if (i == 0)
                json_array_append_new(cols, json_string(heading(key)));
            json_array_append_new(row, shown(key, json_object_get(item, key)));
        }
        json_array_append_new(rows, row);
    }
    return json_pack("{s:o, s:o}", "columns", cols, "rows", rows);
}

int run_ls(struct cli *c, void *opts, int argc, char **argv)
{
    struct ls_opt *o = opts;
    c->json = o->json;
    static const char *const kinds[] = { "sweeps", "jobs", "tasks", "agents", "artefacts" };
    const char *kind = argc ? argv[0] : "sweeps";
    size_t k = 0;
    while (k < ARRAY_LEN(kinds) && strcmp(kinds[k], kind) != 0)
        k++;
    if (k == ARRAY_LEN(kinds))
        return cli_failf(c, SF_EUSAGE,
                         "ls: '%.64s' is none of sweeps, jobs, tasks, agents, artefacts", kind);
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    json_t *items = json_array();
    char what[32];
    snprintf(what, sizeof(what), "ls-%s", kind);
    fleet_signals();
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    json_t *args = json_pack("{s:I}", "ended", (json_int_t)(o->ended.set ? o->ended.v : ENDED));
    r = r < 0 ? r : client_ask(cl, what, args, collect_items, items, &e);
    json_decref(args);
    int status;
    if (r < 0) {
        status = cli_fail(c, &e);
    } else if (o->json) {
        status = cli_json(c, json_pack("{s:s, s:s, s:O}", "schema", "siofleet.ls/1", "kind", kind,
                                       "items", items));
    } else {
        if (json_array_size(items)) {
            json_t *sheet = items_sheet(items);
            sheet_print(sheet, stdout);
            json_decref(sheet);
        } else {
            fprintf(stderr, "no %s\n", kind);
        }
        status = cli_flush(c);
    }
    json_decref(items);
    return status;
}

/* ---- cancel, hold, release, retry, drain, undrain */

static int control(struct cli *c, const char *word, const struct control_opt *o, uint64_t value,
                   int argc, char **argv);

/* "+2h", or a time of this host's clock: 2026-11-30T18:00[:00], with Z of UTC. Seconds since 1970, rounded up. */
static int start_time(const char *s, uint64_t *ret_s, struct err *e)
{
    uint64_t now = clock_wall_ms(), ms = 0;
    *ret_s = 0;
    if (*s == '+') {
        int r = num_ms(s + 1, "--at", &ms, e);
        if (r < 0)
            return r;
        *ret_s = ms / 1000 <= UINT32_MAX ? (now + ms + 999) / 1000 : 0;
    } else {
        struct tm tm = { .tm_isdst = -1 };
        const char *end = strptime(s, "%Y-%m-%dT%H:%M", &tm);
        if (end && *end == ':')
            end = strptime(end, ":%S", &tm);
        bool utc = end && *end == 'Z';
        if (!end || end[utc])
            return err_set(e, SF_EUSAGE, "--at: '%.64s' is no time like 2026-11-30T18:00 or +2h",
                           s);
        time_t t = utc ? timegm(&tm) : mktime(&tm);
        *ret_s = t > 0 ? (uint64_t)t : 0;
    }
    return *ret_s * 1000 < now || *ret_s > UINT32_MAX
               ? err_set(e, SF_EUSAGE, "--at: '%.64s' is over, or too far away", s)
               : 0;
}

int run_control(struct cli *c, void *opts, int argc, char **argv)
{
    const struct control_opt *o = opts;
    char word[32];
    if (o->reason && strlen(o->reason) > 150)
        return cli_failf(c, SF_EUSAGE, "--reason: more than 150 bytes");
    if (o->time.set && !o->time.v)
        return cli_failf(c, SF_EUSAGE, "--for: no time at all");
    if (o->at) {
        struct err e = { 0 };
        uint64_t from, secs = o->time.set ? o->time.v / 1000 + (o->time.v % 1000 != 0) : 0;
        if (start_time(o->at, &from, &e) < 0)
            return cli_fail(c, &e);
        if (secs > UINT32_MAX)
            return cli_failf(c, SF_EUSAGE, "--for: too long");
        return control(c, "drain-at", o, from << 32 | secs, argc, argv);
    }
    snprintf(word, sizeof(word), "%s%s", c->verb->name,
             o->failed     ? "-failed"
             : o->time.set ? "-for"
                           : "");
    return control(c, word, o, o->time.v, argc, argv);
}

int run_priority(struct cli *c, void *opts, int argc, char **argv)
{
    const struct control_opt *o = opts;
    struct err e = { 0 };
    uint64_t n;
    c->json = o->json;
    if (num_u64(argv[0], 0, UINT32_MAX, "priority", &n, &e) < 0)
        return cli_fail(c, &e);
    return control(c, "priority", o, n, argc - 1, argv + 1);
}

int run_control_word(struct cli *c, const char *word, const struct control_opt *o, int argc,
                     char **argv)
{
    return control(c, word, o, 0, argc, argv);
}

static int control(struct cli *c, const char *word, const struct control_opt *o, uint64_t value,
                   int argc, char **argv)
{
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    fleet_signals();
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    if (r < 0)
        return cli_fail(c, &e);
    json_t *items = json_array();
    int status = 0;
    for (int i = 0; i < argc; i++) {
        char text[1001] = "";
        e = (struct err){ 0 };
        r = client_control_with(cl, word, argv[i], o->reason ? o->reason : "", value, text, &e);
        if (r < 0) {
            /* with several targets the others still get their turn; the first failure gives the exit status */
            struct cli quiet = { .verb = c->verb, .json = o->json && argc == 1 };
            int s = cli_fail(&quiet, &e);
            status = status ? status : s;
            if (r == -ECANCELED || r == -SF_ENOFLEET || r == -SF_EREFUSED)
                break;
        }
        json_array_append_new(items, json_pack("{s:o, s:b, s:o}", "target", json_str(argv[i]), "ok",
                                               r >= 0, "text", json_str(r < 0 ? e.text : text)));
        if (r >= 0 && !o->json)
            printf("%s\n", *text ? text : argv[i]);
    }
    if (o->json && (argc > 1 || !status)) {
        int out = cli_json(c, json_pack("{s:s, s:s, s:O}", "schema", "siofleet.control/1", "verb",
                                        word, "items", items));
        status = status ? status : out;
    }
    json_decref(items);
    if (!o->json) {
        int out = cli_flush(c);
        status = status ? status : out;
    }
    return status;
}
