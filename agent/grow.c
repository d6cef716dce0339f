#include "agent/grow.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_in.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/lib/json.h"
#include "proto/xfer/stream.h"

enum { PIECES_TURN = 8, FULL_RETRY_MS = 5, NOTE_MAX = 1000 };

static const char *const names[GROW_FILES] = { GROW_FILE, GROW_TEXT };

struct grow {
    const char *name; /* of names */
    struct id stream;
    struct stream_send s;
    int fd;
    uint64_t ino;
    bool unfreeable; /* the file system makes no holes */
    bool full;       /* the link's queue was, just now */
    struct id id;    /* of all of it, once s.ended */
    char why[300];   /* FAILED: as the coordinator says */
};

static void grow_free(struct grow **gp)
{
    if (*gp) {
        closep(&(*gp)->fd);
        free(*gp);
    }
    *gp = NULL;
}

/* Durable before anything is freed: what is gone here must never be asked for. */
static int note(const struct run *r, const struct grow *g, uint64_t freed_b, struct err *e)
{
    char hex[ID_HEX_LEN];
    id_hex(&g->stream, hex);
    CLEANUP(freep) char *path = path_fmt("%s/%s" GROW_NOTE, r->dir, g->name);
    CLEANUP(freep)
    char *text = path_fmt("{\"stream\":\"%s\",\"inode\":%" PRIu64 ",\"freed_b\":%" PRIu64 "}\n",
                          hex, g->ino, freed_b);
    return path && text ? file_write(path, text, strlen(text), 0600, true, e)
                        : err_sys(e, ENOMEM, "%s", r->dir);
}

static int open_file(const struct run *r, const char *name)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", r->dir, name);
    return path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
}

static void begin(struct run *r, size_t which, uint64_t ino)
{
    struct err e = { 0 };
    struct grow *g = calloc(1, sizeof(*g));
    if (!g)
        return;
    random_bytes(&g->stream, sizeof(g->stream));
    g->name = names[which];
    g->ino = ino;
    g->fd = open_file(r, g->name);
    stream_send_init(&g->s, 0);
    r->grow[which] = g;
    if (g->fd < 0 || note(r, g, 0, &e) < 0)
        grow_free(&r->grow[which]); /* it is tried again, or goes whole at the end */
    else
        log_info("task %" PRIu64 ": its log goes to the coordinator while it is written",
                 r->g.key.task);
}

static void load(struct run *r, size_t which)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s" GROW_NOTE, r->dir, names[which]);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(NOTE_MAX);
    if (!path || file_read(path, &b, NULL) < 0)
        return;
    CLEANUP(json_decrefp) json_t *j = json_loadb(b.data ? (char *)b.data : "", b.len, 0, NULL);
    const char *hex = json_string_value(json_object_get(j, "stream"));
    struct grow *g = calloc(1, sizeof(*g));
    uint64_t freed = 0;
    if (!g || !hex || id_parse(hex, &g->stream, NULL) < 0 ||
        json_get_u64(j, "inode", &g->ino, NULL) < 0 ||
        json_get_u64(j, "freed_b", &freed, NULL) < 0) {
        free(g);
        return;
    }
    g->name = names[which];
    g->fd = open_file(r, g->name);
    stream_send_init(&g->s, freed);
    r->grow[which] = g;
}

void agent_grow_load(struct run *r)
{
    for (size_t i = 0; i < GROW_FILES; i++)
        load(r, i);
}

static void send_drop(struct agent *a, const struct grow *g)
{
    struct msg m = { .type = M_STREAM_DROP, .stream_drop = { .stream = g->stream } };
    link_send(a->link, COORDINATOR, &m, NULL); /* lost: the coordinator drops it by itself, later */
}

static void close_one(struct agent *a, struct grow **g, bool drop)
{
    if (*g && drop && (*g)->s.state != STREAM_DONE)
        send_drop(a, *g);
    grow_free(g);
}

void agent_grow_close(struct agent *a, struct run *r, bool drop)
{
    for (size_t i = 0; i < GROW_FILES; i++)
        close_one(a, &r->grow[i], drop);
}

void agent_grow_look(struct agent *a, struct run *r)
{
    for (size_t i = 0; r->dir && r->g.kind == CORE_COLLECT && i < GROW_FILES; i++) {
        struct stat st;
        struct grow **g = &r->grow[i];
        CLEANUP(freep) char *path = path_fmt("%s/%s", r->dir, names[i]);
        if (!path || stat(path, &st) < 0)
            continue;
        if (*g && (*g)->ino != st.st_ino) /* the run is made once more, from its start */
            close_one(a, g, true);
        if (*g)
            stream_send_grew(&(*g)->s, (uint64_t)st.st_size);
        else if (a->features & WIRE_STREAM && st.st_size >= GROW_FROM_B)
            begin(r, i, st.st_ino);
    }
}

/* What is durable there is not needed here. */
static void free_bytes(const struct run *r, struct grow *g)
{
    struct err e = { 0 };
    uint64_t to = g->s.durable_b;
    if (g->unfreeable || g->s.state != STREAM_FLOW || to < g->s.freed_b + GROW_FREE_B)
        return;
    if (note(r, g, to, &e) < 0) {
        log_warn("task %" PRIu64 ": %s", r->g.key.task, e.text);
        g->unfreeable = true;
        return;
    }
    if (fallocate(g->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)g->s.freed_b,
                  (off_t)(to - g->s.freed_b)) < 0) {
        log_warn("task %" PRIu64 ": what the coordinator has of its log is not freed here: %s",
                 r->g.key.task, strerror(errno));
        g->unfreeable = true;
        return;
    }
    g->s.freed_b = to;
}

/* The product that it becomes; NULL before the child has ended. */
static const struct product *becomes(const struct run *r, const struct grow *g)
{
    struct stat st;
    for (size_t i = 0; i < r->products.n; i++)
        if (r->products.v[i].grown && stat(r->products.v[i].path, &st) == 0 && st.st_ino == g->ino)
            return &r->products.v[i];
    return NULL;
}

static int send_what(struct agent *a, const struct run *r, const struct grow *g,
                     enum stream_what what, uint64_t off, uint64_t n)
{
    const char *kind = g->name == names[0] ? "log" : "file";
    uint8_t piece[STREAM_PIECE];
    struct msg m = { 0 };
    if (what == STREAM_SEND_DATA) {
        ssize_t got = pread_full(g->fd, piece, n, (off_t)off);
        if (got < 0 || (uint64_t)got != n)
            return got < 0 ? (int)got : -EIO;
        m.type = M_STREAM_DATA;
        m.stream_data = (struct msg_stream_data){
            .stream = g->stream, .offset = off, .data = piece, .data_len = n
        };
    } else if (what == STREAM_SEND_OPEN) {
        m.type = M_STREAM_OPEN;
        m.stream_open = (struct msg_stream_open){
            .stream = g->stream, .freed_b = g->s.freed_b, .kind = kind, .name = ""
        };
    } else {
        const struct product *x = becomes(r, g);
        m.type = M_STREAM_END;
        m.stream_end = (struct msg_stream_end){ .stream = g->stream,
                                                .freed_b = g->s.freed_b,
                                                .size_b = g->s.grown_b,
                                                .id = g->id,
                                                .kind = kind,
                                                .name = x ? x->name : "" };
    }
    return link_send(a->link, COORDINATOR, &m, NULL);
}

static void pump(struct agent *a, const struct run *r, struct grow *g, uint64_t now)
{
    g->full = false;
    for (int i = 0; i < PIECES_TURN; i++) {
        uint64_t off = 0, n = 0;
        enum stream_what what = stream_send_next(&g->s, now, &off, &n);
        if (what == STREAM_SEND_NOTHING)
            return;
        int rc = send_what(a, r, g, what, off, n);
        g->full = rc < 0;
        if (rc < 0) /* the queue is full, the link is down, the disk is ill: again in a moment */
            return;
        stream_sent(&g->s, what, n, now);
    }
    g->full = true; /* more at once, after the others had their turn */
}

int64_t agent_grow_pump(struct agent *a)
{
    uint64_t now = clock_mono_ms();
    int64_t wait = -1;
    if (!link_is_up(a->link) || !(a->features & WIRE_STREAM))
        return -1;
    for (size_t i = 0; i < CORE_TASKS_MAX * GROW_FILES; i++) {
        struct run *r = &a->runs[i / GROW_FILES];
        struct grow *g = r->grow[i % GROW_FILES];
        if (!r->used || r->over || !g || g->fd < 0)
            continue;
        pump(a, r, g, now);
        free_bytes(r, g);
        int64_t ms = g->full ? FULL_RETRY_MS : stream_send_wait(&g->s, now);
        if (wait < 0 || (ms >= 0 && ms < wait))
            wait = ms;
    }
    return wait;
}

bool agent_grow_msg(struct agent *a, const struct msg *m)
{
    if (m->type != M_STREAM_AT && m->type != M_STREAM_OVER)
        return false;
    const struct id *stream =
        m->type == M_STREAM_AT ? &m->stream_at.stream : &m->stream_over.stream;
    for (size_t i = 0; i < CORE_TASKS_MAX * GROW_FILES; i++) {
        struct run *r = &a->runs[i / GROW_FILES];
        struct grow *g = r->used ? r->grow[i % GROW_FILES] : NULL;
        if (!g || !id_eq(&g->stream, stream))
            continue;
        if (m->type == M_STREAM_AT) {
            stream_send_at(&g->s, m->stream_at.taken_b, m->stream_at.durable_b, clock_mono_ms());
            continue;
        }
        stream_send_over(&g->s, !*m->stream_over.code);
        snprintf(g->why, sizeof(g->why), "%s", m->stream_over.text ? m->stream_over.text : "");
        a->inputs_moved = true; /* its end is looked at */
        if (g->s.state == STREAM_FAILED && r->pidfd >= 0) {
            log_error("task %" PRIu64 " is ended: its log: %s", r->g.key.task, g->why);
            run_stop(r->pidfd, false); /* hours of it would be for nothing */
        }
    }
    return true;
}

void agent_grow_up(struct agent *a)
{
    for (size_t i = 0; i < CORE_TASKS_MAX * GROW_FILES; i++) {
        struct run *r = &a->runs[i / GROW_FILES];
        if (r->used && r->grow[i % GROW_FILES])
            stream_send_up(&r->grow[i % GROW_FILES]->s);
    }
}

static struct grow *find(const struct run *r, const struct product *x)
{
    struct stat st;
    for (size_t i = 0; i < GROW_FILES; i++)
        if (r->grow[i] && stat(x->path, &st) == 0 && st.st_ino == r->grow[i]->ino)
            return r->grow[i];
    return NULL;
}

bool agent_grow_is(struct run *r, const struct product *x)
{
    const struct grow *g = x->told ? find(r, x) : NULL;
    return g && g->fd >= 0;
}

int agent_grow_end(struct agent *a, struct run *r, const struct product *x, struct err *e)
{
    struct grow *g = find(r, x);
    struct stat st;
    if (a->welcomed && !(a->features & WIRE_STREAM))
        return err_set(e, SF_EINTEGRITY, "%s: the coordinator takes no growing logs any more",
                       x->name);
    if (!g || g->s.state == STREAM_FAILED)
        return err_set(e, SF_EINTEGRITY, "%s: %s", x->name,
                       g && *g->why ? g->why : "its stream to the coordinator broke");
    if (g->s.state == STREAM_DONE)
        return 1;
    if (fstat(g->fd, &st) < 0)
        return err_sys(e, errno, "%s", x->name);
    g->id = x->id;
    stream_send_grew(&g->s, (uint64_t)st.st_size);
    stream_send_ended(&g->s);
    return 0;
}
