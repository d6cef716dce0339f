#include "deploy/table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/lib/cli.h"

const char *deploy_fact(const struct place_result *r, const char *key)
{
    const char *s = json_string_value(json_object_get(r->facts, key));
    return s ? s : "";
}

static void cell_time(struct table *t, const char *seconds)
{
    unsigned long s = strtoul(seconds, NULL, 10);
    if (!*seconds)
        table_cell(t, "%s", "");
    else if (s < 7200)
        table_cell(t, "%lu:%02lu", s / 60, s % 60);
    else
        table_cell(t, "%lu h", s / 3600);
}

static void cell_mib(struct table *t, const char *kib)
{
    if (*kib)
        table_cell(t, "%lu MiB", strtoul(kib, NULL, 10) / 1024);
    else
        table_cell(t, "%s", "");
}

void deploy_table(enum place_verb verb, const struct host *const list[],
                  const struct place_result results[], size_t n, FILE *f)
{
    static const char *const checks[] = { "HOST",  "STATE", "CORES", "MEMORY", "FREE",
                                          "GLIBC", "KVM",   "CLOCK", "AGENT",  "CAUSE" };
    static const char *const states[] = { "HOST",  "STATE", "VERSION",    "UP",   "LOAD",
                                          "TASKS", "FREE",  "LAST ERROR", "CAUSE" };
    static const char *const names[] = {
        "HOST", "STATE", "STEP", "VERSION", "SENT", "TIME", "CAUSE"
    };
    CLEANUP(table_free)
    struct table *t = verb == PLACE_CHECK    ? table_new(checks, ARRAY_LEN(checks))
                      : verb == PLACE_STATUS ? table_new(states, ARRAY_LEN(states))
                                             : table_new(names, ARRAY_LEN(names));
    for (size_t i = 0; t && i < n; i++) {
        const struct place_result *r = &results[i];
        table_cell(t, "%s", list[i]->name);
        table_cell(t, "%s", place_status_name(r));
        if (verb == PLACE_CHECK) {
            table_cell(t, "%s", deploy_fact(r, "cores"));
            cell_mib(t, deploy_fact(r, "memory_kib"));
            cell_mib(t, deploy_fact(r, "free_kib"));
            table_cell(t, "%s", deploy_fact(r, "glibc"));
            table_cell(t, "%s", deploy_fact(r, "kvm"));
            table_cell(t, "%s%s", deploy_fact(r, "clock_offset_ms"), r->facts ? " ms" : "");
            table_cell(t, "%s",
                       !r->facts                      ? ""
                       : deploy_fact(r, "release")[0] ? deploy_fact(r, "agent")
                                                      : "none");
        } else if (verb == PLACE_STATUS) {
            table_cell(t, "%s", r->version);
            cell_time(t, deploy_fact(r, "uptime_s"));
            table_cell(t, "%s", deploy_fact(r, "load"));
            table_cell(t, "%s", deploy_fact(r, "tasks"));
            cell_mib(t, deploy_fact(r, "free_kib"));
            table_cell(t, "%s", deploy_fact(r, "last_error"));
        } else {
            table_cell(t, "%s", r->step);
            table_cell(t, "%s", r->version);
            table_cell(t, "%llu", (unsigned long long)r->bytes_sent);
            table_cell(t, "%llu ms", (unsigned long long)r->ms);
        }
        if (r->status == PLACE_FAILED)
            table_cell(t, "%s%s%s", r->message, r->fix[0] ? " -- " : "", r->fix);
        else
            table_cell(t, "%s", "");
    }
    if (t)
        table_print(t, f);
}

/* One line of text, cut at width; a character that is cut through goes. */
static void put_line(const char *line, size_t n, size_t width)
{
    while (n && line[n - 1] == ' ')
        n--;
    if (n > width)
        for (n = width; n && ((unsigned char)line[n] & 0xc0) == 0x80;)
            n--;
    printf("%.*s\n", (int)n, line);
}

int deploy_screen(const struct host *const list[], const struct place_result results[], size_t n)
{
    CLEANUP(freep) char *text = NULL;
    size_t len = 0, failed = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return 1;
    deploy_table(PLACE_STATUS, list, results, n, f);
    if (fclose(f) == EOF)
        return 1;
    struct winsize w = { .ws_row = 24, .ws_col = 80 }, got;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &got) == 0 && got.ws_row && got.ws_col)
        w = got;
    /* the head, two lines below, and one that the cursor is on */
    size_t room = w.ws_row > 4 ? w.ws_row - 4u : 1, shown = n > room ? room : n, row = 0;
    fputs("\033[H\033[2J", stdout);
    for (const char *p = text; *p && row <= shown; row++) {
        size_t line = strcspn(p, "\n");
        put_line(p, line, w.ws_col);
        p += line + (p[line] == '\n');
    }
    for (size_t i = 0; i < n; i++)
        failed += results[i].status == PLACE_FAILED;
    char at[16] = "", end[160];
    time_t now = time(NULL);
    struct tm tm;
    if (localtime_r(&now, &tm))
        strftime(at, sizeof(at), "%H:%M:%S", &tm);
    int r = snprintf(end, sizeof(end), "%s  %zu hosts, %zu failed", at, n, failed);
    if (shown < n)
        r += snprintf(end + r, sizeof(end) - (size_t)r, " (%zu more than fit: --host, --class)",
                      n - shown);
    put_line(end, (size_t)r, w.ws_col);
    return fflush(stdout) == EOF ? 1 : failed != 0;
}
