#include "collect/sink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"

struct sink {
    struct file_new file;
    uint64_t events, devices;
    uint8_t seen[65536 / 8];
};

static void see(uint8_t seen[], uint64_t *devices, uint16_t sid)
{
    uint8_t bit = (uint8_t)(1u << (sid & 7));
    if (!(seen[sid >> 3] & bit)) {
        seen[sid >> 3] |= bit;
        (*devices)++;
    }
}

int sink_new(const char *path, struct sink **ret, struct err *e)
{
    struct sink *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(e, ENOMEM, "%s", path);
    int r = file_begin(&s->file, path, 0644, false, e);
    if (r < 0) {
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

int sink_add(struct sink *s, const struct log_event *ev, size_t n, struct err *e)
{
    int r = write_all(s->file.fd, ev, n * sizeof(*ev));
    if (r < 0)
        return err_sys(e, -r, "%s", s->file.path);
    for (size_t i = 0; i < n; i++)
        if (ev[i].kind == LOG_PAGE_HIT || ev[i].kind == LOG_PAGE_UPDATE)
            see(s->seen, &s->devices, ev[i].sid);
    s->events += n;
    return 0;
}

int sink_end(struct sink *s, uint64_t dropped, struct sink_result *ret, struct err *e)
{
    (void)dropped;
    *ret = (struct sink_result){ .events = s->events, .devices = s->devices };
    CLEANUP(freep) char *path = strdup(s->file.path);
    int r = file_commit(&s->file, e);
    free(s);
    return r < 0 ? r : cid_file(path, &ret->id, &ret->bytes, e);
}

void sink_abort(struct sink **sp)
{
    if (*sp) {
        file_abort(&(*sp)->file);
        free(*sp);
    }
    *sp = NULL;
}

int sink_text(const char *path, struct sink_result *ret, struct err *e)
{
    uint8_t seen[65536 / 8] = { 0 };
    *ret = (struct sink_result){ 0 };
    CLEANUP(fclosep) FILE *f = fopen(path, "re");
    if (!f)
        return err_sys(e, errno, "%s", path);
    CLEANUP(freep) char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, f) > 0) {
        if (!strstr(line, "vtd_"))
            continue;
        ret->events++;
        char *sid = strstr(line, "sid 0x");
        if (sid)
            see(seen, &ret->devices, (uint16_t)strtoul(sid + 4, NULL, 16));
    }
    return cid_file(path, &ret->id, &ret->bytes, e);
}
