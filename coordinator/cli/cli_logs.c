/* logs: what a task writes, or wrote. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/cli/job_run.h"
#include "proto/base/clean.h"

enum { OUTPUT_MAX = 4 << 20, FOLLOW_MS = 200 };

struct stream {
    uint64_t from;
    bool over, said_wait;
};

static void print_bytes(const json_t *text)
{
    const unsigned char *p = (const unsigned char *)json_string_value(text);
    size_t n = json_string_length(text);
    for (size_t i = 0; i < n; i++) { /* code points 0 to 255 are the bytes */
        unsigned b = p[i];
        if (b >= 0xc0 && i + 1 < n)
            b = (b & 3) << 6 | (p[++i] & 0x3f);
        putchar((int)b);
    }
}

/* The rest of a stream that is over: the store has its beginning and its end. */
static int print_rest(struct client *cl, const json_t *doc, struct stream *s, struct err *e)
{
    const json_t *output = json_object_get(doc, "output");
    const char *tail = json_string_value(json_object_get(doc, "tail"));
    CLEANUP(buf_clear) struct buf b = BUF_INIT(OUTPUT_MAX);
    uint64_t total = 0;
    if (!json_is_object(output)) {
        if (tail && s->from == 0)
            fputs(tail, stdout);
        return 0;
    }
    int r = job_output(cl, output, &b, e);
    if (r < 0)
        return r;
    json_get_u64(output, "total_b", &total, NULL);
    uint64_t left = total > s->from ? total - s->from : 0;
    if (left > b.len)
        left = b.len;
    fwrite(b.data + (b.len - left), 1, left, stdout);
    return 0;
}

static bool is_over(const char *state)
{
    return state &&
           (!strcmp(state, "done") || !strcmp(state, "failed") || !strcmp(state, "cancelled"));
}

/* One look at a stream. 1 = there may be more at once. */
static int look(struct client *cl, const char *id, struct stream *s, bool is_err, bool follow,
                struct err *e)
{
    CLEANUP(json_decrefp)
    json_t *args =
        json_pack("{s:s, s:o, s:b}", "id", id, "from", json_u64(s->from), "stderr", is_err);
    CLEANUP(json_decrefp) json_t *doc = NULL;
    int r = client_ask_one(cl, "logs", args, &doc, e);
    if (r < 0)
        return r;
    const char *state = json_string_value(json_object_get(doc, "state")),
               *why = json_string_value(json_object_get(doc, "reason"));
    if (is_over(state)) {
        s->over = true;
        return print_rest(cl, doc, s, e);
    }
    uint64_t next = s->from;
    json_get_u64(doc, "next", &next, NULL);
    print_bytes(json_object_get(doc, "data"));
    bool more = next > s->from;
    s->from = next;
    if (!more && !is_err && state && !strcmp(state, "queued") && !s->said_wait) {
        fprintf(stderr, "siofleet: %s: %s\n", id, why && *why ? why : "it waits for an agent");
        s->said_wait = true;
    }
    if (!more && !follow)
        s->over = true;
    return more;
}

int run_logs(struct cli *c, void *opts, int argc, char **argv)
{
    struct logs_opt *o = opts;
    struct err e = { 0 };
    CLEANUP(client_free) struct client *cl = NULL;
    struct stream streams[2] = { 0 };
    bool begun = false;
    (void)argc;
    fleet_signals();
    int r = client_open(&o->fleet, 0, &fleet_stop, &cl, &e);
    while (r >= 0 && (!streams[0].over || !streams[1].over)) {
        bool more = false;
        for (int i = 0; r >= 0 && i < 2; i++) {
            if (streams[i].over)
                continue;
            r = look(cl, argv[0], &streams[i], i == 1, o->follow, &e);
            more |= r > 0;
        }
        if (fflush(stdout) != 0)
            break; /* nobody reads any more */
        if (begun && o->follow && (r == -ETIMEDOUT || r == -SF_ENOFLEET))
            r = 0; /* a task outlives its coordinator's restart, and so does who follows it */
        begun |= r >= 0;
        if (r >= 0 && !more && o->follow && !(streams[0].over && streams[1].over))
            nanosleep(&(struct timespec){ .tv_nsec = FOLLOW_MS * 1000000 }, NULL);
        if (fleet_stop)
            r = err_set(&e, ECANCELED, "logs: interrupted");
    }
    return r < 0 ? cli_fail(c, &e) : cli_flush(c);
}
