/* Files that go to the coordinator or come from it, as stores of transfers. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/cas/cas.h"
#include "proto/client/client_in.h"

enum {
    XFER_STALL_MS = 120000,
    HASHERS = 4,        /* threads that hash a file, at most; */
    HASHER_CHUNKS = 32, /* one for so many chunks */
};

/* One file that is sent or received. */
struct one_file {
    const char *path, *kind, *name; /* kind NULL: is received */
    int fd;
    struct stat st; /* when it was hashed */
    struct id id, *hashes;
    size_t n;
    uint64_t size;
    struct file_new out;
    uint8_t *have;
    bool force, done;
    int code;
    char text[200];
};

/* Files that move together; the context of their store and of the transfers. */
struct move {
    struct client *c;
    struct one_file *v;
    size_t n;
    uint64_t moved_ms;
    void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b);
    void *ctx;
};

static size_t chunk_len(uint64_t size, uint64_t index)
{
    uint64_t off = index * CID_CHUNK;
    return size - off < CID_CHUNK ? (size_t)(size - off) : CID_CHUNK;
}

static void one_clear(struct one_file *f)
{
    closep(&f->fd);
    file_abort(&f->out);
    free(f->hashes);
    free(f->have);
}

static struct one_file *one_find(const struct move *v, const struct id *id)
{
    for (size_t i = 0; i < v->n; i++)
        if (id_eq(id, &v->v[i].id))
            return &v->v[i];
    return NULL;
}

static struct one_file *one_to_give(const struct move *v, const struct id *id, struct err *e)
{
    struct one_file *f = one_find(v, id);
    if (f && f->fd >= 0)
        return f;
    err_set(e, ENOENT, "%s: not here", v->v[0].path);
    return NULL;
}

static int one_hashes(void *ctx, const struct id *id, struct id **ret, size_t *ret_n,
                      uint64_t *ret_size, struct err *e)
{
    struct one_file *f = one_to_give(ctx, id, e);
    if (!f)
        return -ENOENT;
    *ret = malloc(f->n ? f->n * ID_LEN : 1);
    if (!*ret)
        return err_sys(e, ENOMEM, "%s", f->path);
    if (f->n)
        memcpy(*ret, f->hashes, f->n * ID_LEN);
    *ret_n = f->n;
    *ret_size = f->size;
    return 0;
}

static ssize_t one_read(void *ctx, const struct id *id, uint64_t index, void *p, size_t room,
                        struct err *e)
{
    struct one_file *f = one_to_give(ctx, id, e);
    if (!f)
        return -ENOENT;
    if (index >= f->n || chunk_len(f->size, index) > room)
        return err_set(e, EINVAL, "%s: no chunk %llu", f->path, (unsigned long long)index);
    size_t n = chunk_len(f->size, index);
    ssize_t r = pread_full(f->fd, p, n, (off_t)(index * CID_CHUNK));
    if (r < 0) /* for good: the offer is not made again */
        return err_set(e, SF_EFAILED, "%s", strerror((int)-r));
    if ((size_t)r < n)
        return err_set(e, SF_EFAILED, "became shorter while it was sent");
    return r;
}

static int one_begin(void *ctx, const struct id *id, uint64_t size_b, const struct id hashes[],
                     size_t n, void **ret_put, struct err *e)
{
    struct one_file *f = one_find(ctx, id);
    if (!f)
        return err_set(e, SF_EREFUSED, "another artefact than was asked for");
    f->hashes = malloc(n ? n * ID_LEN : 1);
    f->have = calloc(1, n / 8 + 1);
    if (!f->hashes || !f->have)
        return err_sys(e, ENOMEM, "%s", f->path);
    if (n)
        memcpy(f->hashes, hashes, n * ID_LEN);
    f->n = n;
    f->size = size_b;
    int r = file_begin(&f->out, f->path, 0644, f->force, e);
    if (r < 0)
        return r;
    r = size_b ? -posix_fallocate(f->out.fd, 0, (off_t)size_b) : 0;
    if (r < 0)
        return err_sys(e, -r, "%s: cannot reserve %llu bytes", f->path, (unsigned long long)size_b);
    *ret_put = f;
    return 0;
}

static bool one_has(void *put, uint64_t index)
{
    const struct one_file *f = put;
    return f->have[index / 8] >> (index % 8) & 1;
}

static int one_put(void *put, uint64_t index, const void *p, size_t n, struct err *e)
{
    struct one_file *f = put;
    if (index >= f->n || n != chunk_len(f->size, index))
        return err_set(e, SF_EINTEGRITY, "chunk %llu: wrong length", (unsigned long long)index);
    int r = pwrite_all(f->out.fd, p, n, (off_t)(index * CID_CHUNK));
    return r < 0 ? err_sys(e, -r, "%s", f->path) : 0;
}

static int one_verify(void *put, uint64_t index, const struct id *is, size_t n, struct err *e)
{
    struct one_file *f = put;
    (void)n;
    if (!id_eq(is, &f->hashes[index]))
        return err_set(e, SF_EINTEGRITY, "chunk %llu: damaged", (unsigned long long)index);
    f->have[index / 8] |= (uint8_t)(1u << (index % 8));
    return 0;
}

static int one_write(void *put, uint64_t index, const void *p, size_t n, struct err *e)
{
    struct id is;
    int r = one_put(put, index, p, n, e);
    if (r < 0)
        return r;
    hash_bytes(p, n, &is);
    return one_verify(put, index, &is, n, e);
}

static int one_open(void *ctx, const struct id *id, uint64_t *ret_size, struct err *e)
{
    struct one_file *f = one_to_give(ctx, id, e);
    if (!f)
        return -ENOENT;
    int fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
    *ret_size = f->size;
    return fd < 0 ? err_sys(e, errno, "%s", f->path) : fd;
}

static int one_sync(void *put, struct err *e)
{
    struct one_file *f = put;
    return fsync(f->out.fd) < 0 ? err_sys(e, errno, "%s", f->path) : 0;
}

static int one_commit(void *put, struct err *e)
{
    struct one_file *f = put;
    return file_commit(&f->out, e);
}

static void one_close(void *put)
{
    struct one_file *f = put;
    file_abort(&f->out);
}

static int move_send(void *ctx, uint64_t peer, const struct msg *m)
{
    return client_send_xfer(((struct move *)ctx)->c, peer, m);
}

static void one_end(struct one_file *f, int code, const char *text)
{
    f->done = true;
    f->code = code;
    snprintf(f->text, sizeof(f->text), "%s", text);
}

static int move_ended(void *ctx, const struct xfers_end *end, struct err *e)
{
    struct move *v = ctx;
    (void)e;
    for (size_t i = 0; i < v->n; i++) /* several may have the same bytes */
        if (id_eq(&v->v[i].id, &end->id))
            one_end(&v->v[i], end->code, end->text);
    return 0;
}

static uint64_t move_features(void *ctx, uint64_t peer)
{
    (void)peer;
    return ((struct move *)ctx)->c->features;
}

static void move_moved(void *ctx, enum xfers_dir dir, const struct id *id, uint64_t done_b,
                       uint64_t size_b)
{
    struct move *v = ctx;
    (void)dir;
    (void)id;
    v->moved_ms = clock_mono_ms();
    if (v->moved && v->n == 1)
        v->moved(v->ctx, done_b, size_b);
}

static int move_refused(void *ctx, uint64_t peer, const struct msg_put_offer *o, bool here,
                        struct err *e)
{
    (void)ctx;
    (void)peer;
    (void)o;
    (void)here;
    return err_set(e, SF_EREFUSED, "nothing is taken here");
}

/* Large files go beside the link. Without it they go over the link. */
static void set_bulk(struct client *c)
{
    const char *host = strncmp(c->ep, "tcp://", 6) ? NULL : c->ep + 6;
    const char *colon = host ? strrchr(host, ':') : NULL;
    char at[256];
    if (!colon || (size_t)(colon - host) >= sizeof(at) || !(c->features & WIRE_BULK) ||
        (!c->bulk && bulk_new(&(struct bulk_conf){ 0 }, &c->bulk, NULL) < 0))
        return;
    snprintf(at, sizeof(at), "%.*s", (int)(colon - host), host);
    if (xfers_set_bulk(c->xfers, &(struct xfers_bulk){ .bulk = c->bulk, .host = at }) < 0)
        bulk_free(&c->bulk);
}

static bool all_done(const struct move *v)
{
    size_t i = 0;
    while (i < v->n && v->v[i].done)
        i++;
    return i == v->n;
}

/* Offer or fetch all and work until they ended. to: where a fetched one goes, NULL = its path. 0; -errno for all of them. */
static int move(struct move *v, const struct xfer_store *to, struct err *e)
{
    struct client *c = v->c;
    struct xfer_store store = { .ctx = v,
                                .hashes = one_hashes,
                                .read = one_read,
                                .begin = v->v[0].kind ? NULL : one_begin,
                                .put_has = one_has,
                                .write = one_write,
                                .commit = one_commit,
                                .close = one_close,
                                .open = one_open,
                                .put_write = one_put,
                                .put_verify = one_verify,
                                .put_sync = one_sync };
    struct xfers_ops ops = { .ctx = v,
                             .send = move_send,
                             .offered = move_refused,
                             .ended = move_ended,
                             .features = move_features,
                             .moved = move_moved };
    bool up;
    int r = 0;
    c->xfers = xfers_new(to ? to : &store, &ops, CAS_SIZE_MAX);
    if (!c->xfers)
        return err_sys(e, ENOMEM, "%s", v->v[0].path);
    c->refusal[0] = 0;
    set_bulk(c);
    v->moved_ms = clock_mono_ms();
    uint64_t req = ++c->last_req, now = v->moved_ms;
    for (size_t i = 0; i < v->n && r >= 0; i++) {
        struct one_file *f = &v->v[i];
        if (f->done)
            continue;
        r = f->kind ? xfers_offer(c->xfers, 1, req, &f->id, f->kind, f->name, now, e)
                    : xfers_fetch(c->xfers, 1, req, &f->id, now, e);
        if (r == -EALREADY && one_find(v, &f->id) != f)
            r = 0; /* it ends with the one that has the same bytes */
    }
    while (r >= 0 && !all_done(v)) {
        now = clock_mono_ms();
        /* one that waits for its turn hears of it */
        if (now - (v->moved_ms > c->heard_ms ? v->moved_ms : c->heard_ms) > XFER_STALL_MS)
            r = c->ready ? err_set(e, ETIMEDOUT, "%s: nothing moved for %d s", v->v[0].path,
                                   XFER_STALL_MS / 1000)
                         : err_set(e, SF_ENOFLEET, "%s: the coordinator went away", c->ep);
        else
            r = client_work(c, SLICE_MS, req, NULL, &up, e);
    }
    xfers_free(&c->xfers);
    return r < 0 ? r : 0;
}

/* How the file ended. */
static int one_result(const struct one_file *f, struct err *e)
{
    return f->code ? err_set(e, f->code, "%s: %s", f->path, f->text) : 0;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Somebody wrote to f since it was hashed. */
static bool changed(const struct one_file *f)
{
    struct stat now;
    return fstat(f->fd, &now) == 0 &&
           (now.st_size != f->st.st_size || !same_time(&now.st_mtim, &f->st.st_mtim));
}

/* The chunk hashes of f, by several threads: the first byte leaves when the last one is hashed. */
struct hashing {
    const struct client *c;
    struct one_file *f;
    _Atomic uint64_t next; /* chunk */
    atomic_int r;          /* the first -errno; 1 = it became shorter */
};

static void *hash_some(void *arg)
{
    struct hashing *h = arg;
    struct one_file *f = h->f;
    CLEANUP(freep)
    uint8_t *block = malloc((f->n < HASH_LANES ? f->n : HASH_LANES) * (size_t)CID_CHUNK);
    int r = block ? 0 : -ENOMEM;
    while (r == 0 && atomic_load(&h->r) == 0) {
        uint64_t i = atomic_fetch_add(&h->next, HASH_LANES);
        if (i >= f->n)
            break;
        size_t n = f->n - i < HASH_LANES ? (size_t)(f->n - i) : HASH_LANES;
        ssize_t got = hash_chunks(f->fd, f->size, i, n, block, f->hashes + i);
        r = got < 0 ? (int)got : (size_t)got < n ? 1 : h->c->stop && *h->c->stop ? -ECANCELED : 0;
    }
    int none = 0;
    if (r)
        atomic_compare_exchange_strong(&h->r, &none, r);
    return NULL;
}

static int hash_file(const struct client *c, struct one_file *f, struct err *e)
{
    struct hashing h = { .c = c, .f = f };
    pthread_t t[HASHERS - 1];
    size_t n = 0;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    while (n < HASHERS - 1 && (long)n + 1 < cores && (n + 1) * HASHER_CHUNKS < f->n &&
           pthread_create(&t[n], NULL, hash_some, &h) == 0)
        n++;
    if (f->n)
        hash_some(&h);
    while (n)
        pthread_join(t[--n], NULL);
    int r = atomic_load(&h.r);
    if (r == 1)
        return err_set(e, SF_EFAILED, "%s: became shorter while it was read", f->path);
    return r < 0 ? r == -ECANCELED ? client_stopped(c, e) : err_sys(e, -r, "%s", f->path) : 0;
}

static int one_hash(const struct client *c, struct one_file *f, struct err *e)
{
    f->fd = file_open_regular(f->path, &f->st, e);
    if (f->fd < 0)
        return f->fd;
    f->size = (uint64_t)f->st.st_size;
    if (f->size > CAS_SIZE_MAX)
        return err_set(e, EFBIG, "%s: too long", f->path);
    f->n = f->size / CID_CHUNK + (f->size % CID_CHUNK != 0);
    f->hashes = malloc(f->n ? f->n * ID_LEN : 1);
    if (!f->hashes)
        return err_sys(e, ENOMEM, "%s", f->path);
    int r = hash_file(c, f, e);
    if (r < 0)
        return r;
    cid_of_chunks(f->size, f->hashes, f->n, &f->id);
    return 0;
}

int client_puts(struct client *c, struct client_file file[], size_t n,
                void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx,
                struct err *e)
{
    struct one_file f[CLIENT_PUTS_MAX] = { 0 };
    struct move v = { .c = c, .v = f, .moved = moved, .ctx = ctx };
    struct err first = { 0 };
    int r = 0, bad = 0;
    for (size_t i = 0; i < n && i < CLIENT_PUTS_MAX; i++) {
        f[i] = (struct one_file){
            .path = file[i].path, .kind = file[i].kind, .name = file[i].name, .fd = -1, .out.fd = -1
        };
        file[i].sent = false;
    }
    /* those before one that cannot be read are sent all the same */
    while (bad >= 0 && v.n < n && v.n < CLIENT_PUTS_MAX)
        if ((bad = one_hash(c, &f[v.n], &first)) >= 0)
            v.n++;
    if (v.n)
        r = move(&v, NULL, e);
    for (size_t i = 0; i < v.n && r >= 0; i++) {
        struct err why = { 0 };
        int rc = one_result(&f[i], &why);
        /* what came was not what had been hashed: nobody's damage */
        if ((rc == -SF_EINTEGRITY || rc == -SF_EFAILED) && changed(&f[i]))
            rc = err_set(&why, SF_EFAILED, "%s: changed while it was sent", f[i].path);
        file[i].sent = rc >= 0;
        file[i].id = f[i].id;
        file[i].size_b = f[i].size;
        if (rc < 0) {
            if (e)
                *e = why;
            r = rc;
        }
    }
    for (size_t i = 0; i < n && i < CLIENT_PUTS_MAX; i++)
        one_clear(&f[i]);
    if (r >= 0 && bad < 0) {
        if (e)
            *e = first;
        return bad;
    }
    return r;
}

int client_put(struct client *c, const char *path, const char *kind, const char *name,
               struct id *ret_id, uint64_t *ret_size,
               void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx, struct err *e)
{
    struct client_file f = { .path = path, .kind = kind, .name = name };
    int r = client_puts(c, &f, 1, moved, ctx, e);
    if (r < 0)
        return r;
    *ret_id = f.id;
    if (ret_size)
        *ret_size = f.size_b;
    return 0;
}

static int get(struct client *c, const struct id *id, const char *path, bool force,
               const struct xfer_store *to, void (*moved)(void *ctx, uint64_t, uint64_t), void *ctx,
               struct err *e)
{
    CLEANUP(one_clear)
    struct one_file f = { .path = path, .fd = -1, .id = *id, .out.fd = -1, .force = force };
    struct move v = { .c = c, .v = &f, .n = 1, .moved = moved, .ctx = ctx };
    int r = move(&v, to, e);
    return r < 0 ? r : one_result(&f, e);
}

int client_get(struct client *c, const struct id *id, const char *path, bool force,
               void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx, struct err *e)
{
    if (!force && access(path, F_OK) == 0)
        return err_sys(e, EEXIST, "%s", path);
    return get(c, id, path, force, NULL, moved, ctx, e);
}

int client_fetch(struct client *c, const struct id *id, const struct xfer_store *to,
                 void (*moved)(void *ctx, uint64_t done_b, uint64_t size_b), void *ctx,
                 struct err *e)
{
    char hex[ID_HEX_LEN], name[40];
    id_hex(id, hex);
    snprintf(name, sizeof(name), "artefact %.16s", hex);
    return get(c, id, name, false, to, moved, ctx, e);
}
