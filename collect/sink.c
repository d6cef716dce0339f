#include "collect/sink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/format/log.h"

struct sink {
    struct slog_out *out;
    char *path;
    uint64_t devices; /* with translations: an invalidation has no device */
    uint8_t seen[SINK_SEEN_B];
};

void sink_see(uint8_t seen[SINK_SEEN_B], uint64_t *devices, uint16_t sid)
{
    uint8_t bit = (uint8_t)(1u << (sid & 7));
    if (!(seen[sid >> 3] & bit)) {
        seen[sid >> 3] |= bit;
        (*devices)++;
    }
}

int sink_new(const char *path, const char *growing, struct sink **ret, struct err *e)
{
    struct sink *s = calloc(1, sizeof(*s));
    if (s)
        s->path = strdup(path);
    if (!s || !s->path) {
        free(s);
        return err_set(e, ENOMEM, "%s", path);
    }
    int r = slog_create(path, SLOG_RING, false, &s->out, e);
    if (r == 0 && growing && (r = slog_link(s->out, growing, e)) < 0)
        slog_abort(&s->out);
    if (r < 0) {
        free(s->path);
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

int sink_add(struct sink *s, const struct log_event *ev, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (ev[i].kind == LOG_PAGE_HIT || ev[i].kind == LOG_PAGE_UPDATE)
            sink_see(s->seen, &s->devices, ev[i].sid);
    return slog_add(s->out, ev, n, e);
}

int sink_end(struct sink *s, uint64_t dropped, struct sink_result *ret, struct err *e)
{
    struct slog_info info = { 0 };
    struct stat st;
    *ret = (struct sink_result){ 0 };
    int r = slog_end(&s->out, dropped, &ret->id, &info, e);
    if (r == 0 && stat(s->path, &st) < 0)
        r = err_sys(e, errno, "%s", s->path);
    if (r == 0) {
        ret->bytes = (uint64_t)st.st_size;
        ret->events = info.events;
        ret->devices = s->devices;
    }
    slog_info_clear(&info);
    free(s->path);
    free(s);
    return r;
}

void sink_abort(struct sink **sp)
{
    if (*sp) {
        slog_abort(&(*sp)->out);
        free((*sp)->path);
        free(*sp);
    }
    *sp = NULL;
}
