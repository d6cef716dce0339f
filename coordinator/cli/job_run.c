#include "coordinator/cli/job_run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cli/follow.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

enum { QUIET_MS = 1500 };

int job_submit(struct client *cl, const json_t *doc, const char *request_id, char hex[ID_HEX_LEN],
               struct msg_submitted *ret, struct err *e)
{
    CLEANUP(freep) char *text = json_canonical(doc);
    struct id nonce;
    char own[ID_HEX_LEN];
    if (!text)
        return err_sys(e, ENOMEM, "job");
    if (!request_id || !*request_id) {
        random_bytes(&nonce, sizeof(nonce));
        id_hex(&nonce, own);
        request_id = own;
    }
    int r = client_submit_job(cl, request_id, text, strlen(text), ret, e);
    if (r == -ECANCELED) {
        /* a signal in the middle leaves open whether the job exists: asked again it says its id, and can be cancelled */
        sig_atomic_t sig = fleet_stop;
        fleet_stop = 0;
        r = client_submit_job(cl, request_id, text, strlen(text), ret, e);
        fleet_stop = sig;
    }
    if (r >= 0)
        id_hex(&ret->sweep, hex);
    return r < 0 ? r : 0;
}

static uint64_t num(const json_t *doc, const char *key)
{
    uint64_t v = 0;
    json_get_u64(doc, key, &v, NULL);
    return v;
}

static void runs_at(const json_t *doc, struct follow_at *ret)
{
    *ret = (struct follow_at){ "runs", num(doc, "done") + num(doc, "failed"), num(doc, "tasks") };
}

static void hosts_at(const json_t *doc, struct follow_at *ret)
{
    runs_at(doc, ret);
    ret->unit = "hosts";
}

int job_follow(struct client *cl, const char *hex, enum job_unit unit, bool quiet, json_t **ret,
               struct err *e)
{
    return follow(cl,
                  &(struct follow){ .what = "job",
                                    .id = hex,
                                    .quiet_ms = quiet ? UINT64_MAX : QUIET_MS,
                                    .told = true,
                                    .at = unit == JOB_RUNS ? runs_at : hosts_at },
                  ret, e);
}

int job_cancel(struct cli *c, struct client *cl, const char *hex)
{
    int sig = fleet_stop;
    const char *word = sig == SIGINT ? "interrupted" : "terminated";
    struct err e = { 0 };
    fleet_stop = 0;
    if (client_control(cl, "cancel", hex, NULL, &e) < 0)
        return cli_failf(c, ECANCELED, "job %.16s: %s, and it could not be cancelled: %s", hex,
                         word, e.text);
    return cli_failf(c, ECANCELED, "job %.16s: %s, cancelled", hex, word);
}

static int join(void *ctx, json_t *body, struct err *e)
{
    json_t **all = ctx, *items = json_object_get(body, "items");
    if (!json_is_array(items))
        return err_set(e, SF_EFORMAT, "coordinator: answer without items");
    if (!*all) {
        *all = json_incref(body);
        return 0;
    }
    return json_array_extend(json_object_get(*all, "items"), items) < 0
               ? err_sys(e, ENOMEM, "items")
               : 0;
}

int job_items(struct client *cl, const char *hex, json_t **ret, struct err *e)
{
    CLEANUP(json_decrefp) json_t *args = json_pack("{s:s, s:b}", "id", hex, "items", 1);
    *ret = NULL;
    int r = client_ask(cl, "job", args, join, ret, e);
    if (r >= 0 && !*ret)
        r = err_set(e, SF_EFORMAT, "coordinator: empty answer");
    return r < 0 ? r : 0;
}

int job_output(struct client *cl, const json_t *output, struct buf *b, struct err *e)
{
    const json_t *text = json_object_get(output, "text");
    const char *hex = json_string_value(json_object_get(output, "id"));
    struct id id;
    if (text)
        return buf_add(b, json_string_value(text), json_string_length(text)) < 0
                   ? err_sys(e, ENOMEM, "output")
                   : 0;
    if (!hex || id_parse(hex, &id, NULL) < 0)
        return 0;
    const char *tmp = getenv("TMPDIR");
    CLEANUP(freep) char *dir = path_fmt("%s/siofleet-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!dir || !mkdtemp(dir))
        return err_sys(e, errno, "%s", dir ? dir : "output");
    CLEANUP(freep) char *path = path_fmt("%s/output", dir);
    int r = path ? client_get(cl, &id, path, true, NULL, NULL, e) : err_sys(e, ENOMEM, "output");
    if (r >= 0)
        r = file_read(path, b, e);
    dir_remove(dir, NULL);
    return r < 0 ? r : 0;
}

void job_item_why(const json_t *item, char out[300])
{
    const char *reason = json_string_value(json_object_get(item, "reason")),
               *cause = json_string_value(json_object_get(item, "cause")),
               *tail = json_string_value(json_object_get(item, "tail"));
    char last[160] = "";
    if (tail) { /* its last line that says something */
        size_t end = strlen(tail);
        while (end && (tail[end - 1] == '\n' || tail[end - 1] == ' '))
            end--;
        size_t at = end;
        while (at && tail[at - 1] != '\n')
            at--;
        size_t skip = end - at > 10 && !strncmp(tail + at, "siofleet: ", 10) ? 10 : 0;
        snprintf(last, sizeof(last), "%.*s", (int)(end - at - skip), tail + at + skip);
    }
    if (cause && !strcmp(cause, "exit"))
        snprintf(out, 300, "exit %" PRIu64, num(item, "exit"));
    else if (cause && !strcmp(cause, "signal"))
        snprintf(out, 300, "ended by signal %" PRIu64, num(item, "signal"));
    else
        snprintf(out, 300, "%s",
                 !cause && reason          ? reason /* it waits, for a person */
                 : !cause                  ? "failed"
                 : !strcmp(cause, "lost")  ? "its host was lost"
                 : !strcmp(cause, "oom")   ? "killed for want of memory"
                 : !strcmp(cause, "space") ? "no space on its host"
                                           : cause);
    size_t at = strlen(out);
    if (*last)
        snprintf(out + at, 300 - at, ": %s", last);
}
