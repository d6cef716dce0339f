#include "collect/collect.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collect/images.h"
#include "collect/kit.h"
#include "collect/kvm.h"
#include "collect/stack.h"
#include "collect/vm.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

volatile sig_atomic_t collect_stop;

enum { RESULT_MAX = 4 << 20, DISK_MIN_MIB = 300, JOBS_MAX = 64 };

struct job {
    pid_t pid; /* 0 = idle */
    unsigned run;
    int result; /* memfd the child leaves its JSON in */
};

struct collection {
    const struct collect_conf *c;
    const struct collect_opts *o;
    struct kit_qemu qemu;
    char *image, *nested, *out;
    char *disk; /* of ours; a user's own stands in the INI */
    char id[ID_HEX_LEN], key[ID_HEX_LEN];
    bool kvm, ssh;
    json_t *runs;
    int lock_fd; /* the output folder itself, locked */
};

static uint64_t mem_available(void)
{
    CLEANUP(fclosep) FILE *f = fopen("/proc/meminfo", "re");
    char line[200];
    uint64_t kib;
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
            return kib << 10;
    return UINT64_MAX; /* unknown: let it try */
}

static int check_room(const struct collection *k, struct err *e)
{
    char why[200];
    uint64_t need = stack_memory(k->c, why, sizeof(why)), have = mem_available();
    if (need > have)
        return err_set(e, ENOMEM,
                       "%s: not enough memory: a run needs %s, %" PRIu64 " MiB are available",
                       k->c->path, why, have >> 20);
    struct statvfs fs;
    if (statvfs(k->out, &fs) == 0) {
        uint64_t mib = (uint64_t)fs.f_bavail * fs.f_frsize >> 20;
        if (mib < DISK_MIN_MIB)
            return err_set(e, ENOSPC, "%s: %" PRIu64 " MiB free, a run needs %d MiB", k->out, mib,
                           DISK_MIN_MIB);
    }
    return 0;
}

/* ---- provenance */

static json_t *lacks(const struct collection *k)
{
    json_t *a = json_array();
    if (k->c->tracer == TRACER_STOCK) {
        json_array_append_new(a, json_string("page_mask"));
        json_array_append_new(a, json_string("level"));
        json_array_append_new(a, json_string("slpte_fetch"));
        json_array_append_new(a, json_string("snapshot"));
    }
    if (k->c->tracer != TRACER_RING && k->c->tracer != TRACER_BOTH) {
        json_array_append_new(a, json_string("time"));
        json_array_append_new(a, json_string("invalidate"));
        json_array_append_new(a, json_string("fault"));
    }
    if (!stack_asks(k->c) || (k->c->tracer != TRACER_RING && k->c->tracer != TRACER_BOTH))
        json_array_append_new(a, json_string("ats"));
    return a;
}

static json_t *host_facts(void)
{
    struct utsname u;
    char cpu[160] = "";
    CLEANUP(fclosep) FILE *f = fopen("/proc/cpuinfo", "re");
    char line[300];
    while (f && fgets(line, sizeof(line), f) && sscanf(line, "model name : %159[^\n]", cpu) != 1)
        ;
    if (uname(&u) < 0)
        memset(&u, 0, sizeof(u));
    return json_pack("{s:o, s:o, s:o, s:i}", "host", json_str(u.nodename), "kernel",
                     json_str(u.release), "cpu", json_str(cpu), "cores",
                     (int)sysconf(_SC_NPROCESSORS_ONLN));
}

static json_t *log_json(const struct stack_log *l, uint64_t dropped)
{
    char hex[ID_HEX_LEN];
    if (!l->name[0])
        return json_null();
    id_hex(&l->id, hex);
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "id", hex, "path", l->name, "bytes",
                     json_u64(l->bytes), "events", json_u64(l->events), "dropped",
                     json_u64(dropped), "devices", json_u64(l->devices));
}

static json_t *phases_json(const struct stack_phases *p)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "boot_ms", json_u64(p->boot_ms), "ready_ms",
                     json_u64(p->ready_ms), "measured_ms", json_u64(p->measured_ms), "stop_ms",
                     json_u64(p->stop_ms));
}

/* Paths in a run's own result are relative to its folder; the document has them whole. */
static json_t *absolute(const struct collection *k, unsigned run, json_t *r)
{
    static const char *const logs[] = { "log", "text" };
    size_t i;
    json_t *w;
    for (i = 0; i < ARRAY_LEN(logs); i++) {
        json_t *log = json_object_get(r, logs[i]);
        const char *p = json_string_value(json_object_get(log, "path"));
        if (p) {
            CLEANUP(freep) char *full = path_fmt("%s/run-%04u/%s", k->out, run, p);
            json_object_set_new(log, "path", json_str(full));
        }
    }
    json_array_foreach (json_object_get(r, "workload"), i, w) {
        const char *wp = json_string_value(json_object_get(w, "path"));
        if (wp) {
            CLEANUP(freep) char *full = path_fmt("%s/run-%04u/%s", k->out, run, wp);
            json_object_set_new(w, "path", json_str(full));
        }
    }
    return r;
}

/* The log that a failed run would have had: what was lost is reported although nothing is published. */
static json_t *lost_log(const struct stack_result *r)
{
    if (!r->dropped)
        return NULL;
    return json_pack("{s:n, s:n, s:n, s:o, s:o, s:o}", "id", "path", "bytes", "events",
                     json_u64(r->log.events), "dropped", json_u64(r->dropped), "devices",
                     json_u64(r->log.devices));
}

static json_t *failed_run(unsigned run, unsigned retries, const char *status, const char *text)
{
    return json_pack("{s:i, s:s, s:i, s:n, s:n, s:[], s:o, s:n}", "run", (int)run, "status", status,
                     "retries", (int)retries, "log", "phases", "workload", "error", json_str(text),
                     "text");
}

/* ---- one run, in a process of its own */

static int save_json(const char *dir, const char *name, const json_t *j, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", dir, name);
    CLEANUP(freep) char *text = json_dumps(j, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    if (!path || !text)
        return err_set(e, ENOMEM, "%s", name);
    return file_write(path, text, strlen(text), 0644, true, e);
}

/* One attempt into PART; on success PART becomes the run's folder. */
static int attempt(const struct collection *k, unsigned run, unsigned n, bool kvm, json_t **ret,
                   json_t **lost, struct err *e)
{
    CLEANUP(freep) char *part = path_fmt("%s/.run-%04u.part", k->out, run);
    CLEANUP(freep) char *final = path_fmt("%s/run-%04u", k->out, run);
    if (!part || !final)
        return err_set(e, ENOMEM, "run %u", run);
    int r = dir_remove(part, e);
    if (r == 0)
        r = dir_make(part, 0755, e);
    if (r < 0)
        return r;
    struct vm_state vm;
    r = vm_register(k->c->profile, k->id, run, part, &vm, e);
    if (r < 0) {
        dir_remove(part, NULL);
        return r;
    }
    struct stack_env env = { .qemu = k->qemu.path,
                             .share = k->qemu.share,
                             .image = k->image,
                             .nested = k->nested,
                             .disk = k->disk ? k->disk : k->c->disk,
                             .ssh = k->ssh,
                             .kvm = kvm,
                             .keep = k->o->keep && run == k->c->runs,
                             .growing = k->o->growing,
                             .growing_text = k->o->growing_text,
                             .vm_dir = vm.dir,
                             .stop = &collect_stop };
    struct stack_result res;
    r = stack_run(k->c, &env, part, &res, e);
    if (r == 0) {
        json_t *doc =
            json_pack("{s:i, s:s, s:i, s:o, s:o, s:O, s:n, s:s, s:o}", "run", (int)run, "status",
                      "done", "retries", (int)n, "log", log_json(&res.log, res.dropped), "phases",
                      phases_json(&res.phases), "workload", res.workload, "error", "accel",
                      kvm ? "kvm" : "tcg", "text", log_json(&res.text, 0));
        json_t *prov =
            json_pack("{s:s, s:s, s:o, s:O, s:{s:s, s:s, s:s}}", "collection", k->id, "accel",
                      kvm ? "kvm" : "tcg", "host", host_facts(), "commands", res.commands, "qemu",
                      "version", k->qemu.version, "series", k->qemu.series, "hash", k->qemu.hash);
        r = doc && prov ? save_json(part, "provenance.json", prov, e)
                        : err_set(e, ENOMEM, "run %u", run);
        if (r == 0)
            r = save_json(part, "result.json", doc, e);
        if (r == 0) {
            dir_remove(final, NULL);
            if (rename(part, final) < 0)
                r = err_sys(e, errno, "%s", final);
            else
                dir_sync(k->out);
        }
        json_decref(prov);
        if (r == 0)
            *ret = doc;
        else
            json_decref(doc);
    }
    if (r < 0) {
        json_decref(*lost);
        *lost = lost_log(&res);
        dir_remove(part, NULL);
    }
    stack_result_clear(&res);
    vm_unregister(&vm);
    return r;
}

static int child(const struct collection *k, unsigned run, int result_fd)
{
    struct err e = { 0 };
    json_t *doc = NULL;
    CLEANUP(json_decrefp) json_t *lost = NULL;
    bool kvm = k->kvm;
    int r = -SF_EFAILED;
    unsigned n;
    /* one retry: an emulated guest may be unlucky on a loaded host; a KVM guest then goes without KVM, if it may */
    for (n = 0; n < 2; n++) {
        e = (struct err){ 0 };
        r = attempt(k, run, n, kvm, &doc, &lost, &e);
        if (r == 0 || collect_stop || r == -ENOMEM || r == -ENOSPC)
            break;
        if (n == 0) {
            if (kvm && k->c->accel == ACCEL_AUTO)
                kvm = false;
            log_warn("run %u: %s; trying once more%s", run, e.text,
                     k->kvm && !kvm ? " without KVM" : "");
        }
    }
    if (n > 1)
        n = 1;
    if (r < 0)
        doc = failed_run(run, n, collect_stop ? "cancelled" : "failed", e.text);
    if (r < 0 && lost)
        json_object_set(doc, "log", lost);
    json_object_set_new(doc, "code", json_integer(r < 0 ? -r : 0));
    CLEANUP(freep) char *text = json_dumps(doc, JSON_COMPACT | JSON_PRESERVE_ORDER);
    if (!text || write_all(result_fd, text, strlen(text)) < 0)
        return 1;
    return 0;
}

/* ---- all runs */

static json_t *old_run(const struct collection *k, unsigned run)
{
    CLEANUP(freep) char *path = path_fmt("%s/run-%04u/result.json", k->out, run);
    json_t *j = path ? json_load_file(path, 0, NULL) : NULL;
    const char *st = json_string_value(json_object_get(j, "status"));
    if (st && strcmp(st, "done") == 0)
        return absolute(k, run, j);
    json_decref(j);
    return NULL;
}

static int start_job(struct collection *k, struct job *j, unsigned run, struct err *e)
{
    CLEANUP(closep) int fd = memfd_create("siofleet-run", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "run %u", run);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return err_sys(e, errno, "run %u: fork", run);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(1);
        _exit(child(k, run, fd));
    }
    *j = (struct job){ .pid = pid, .run = run, .result = take_fd(&fd) };
    return 0;
}

static json_t *end_job(struct collection *k, struct job *j, int status)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(RESULT_MAX);
    CLEANUP(closep) int fd = j->result;
    struct stat st;
    json_t *doc = NULL;
    if (fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size < RESULT_MAX) {
        uint8_t *room = buf_reserve(&b, (size_t)st.st_size);
        if (room && pread_full(fd, room, (size_t)st.st_size, 0) == st.st_size)
            doc = json_loadb((char *)room, (size_t)st.st_size, 0, NULL);
    }
    if (!doc) {
        char text[120];
        if (WIFSIGNALED(status))
            snprintf(text, sizeof(text), "run %u: its runner was killed by signal %d", j->run,
                     WTERMSIG(status));
        else
            snprintf(text, sizeof(text), "run %u: its runner ended with status %d", j->run,
                     WEXITSTATUS(status));
        doc = failed_run(j->run, 0, "failed", text);
        json_object_set_new(doc, "code", json_integer(SF_EFAILED));
        vm_sweep();
    }
    j->pid = 0;
    return absolute(k, j->run, doc);
}

static uint64_t how_many(const struct collection *k)
{
    char why[200];
    uint64_t per_run = k->c->guests ? 2 + k->c->guests : 2;
    cpu_set_t set;
    uint64_t cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint64_t)CPU_COUNT(&set) : 1;
    uint64_t n = cores / per_run,
             mem = mem_available() / (stack_memory(k->c, why, sizeof(why)) + 1);
    if (k->o->jobs)
        n = k->o->jobs;
    if (k->c->tap && !k->c->guests)
        n = 1; /* the host's ends have fixed addresses */
    if (n > mem)
        n = mem;
    if (n > JOBS_MAX)
        n = JOBS_MAX;
    return n ? n : 1;
}

static int run_all(struct collection *k, struct err *e)
{
    struct job jobs[JOBS_MAX] = { 0 };
    uint64_t slots = how_many(k), running = 0;
    unsigned next = 1;
    uint64_t done = 0, term_ms = 0;
    int first = 0;
    while (running || (next <= k->c->runs && !collect_stop && !first)) {
        while (running < slots && next <= k->c->runs && !collect_stop && !first) {
            json_t *old = old_run(k, next);
            if (old) {
                log_info("run %u of %" PRIu64 ": kept from before", next, k->c->runs);
                json_array_append_new(k->runs, old);
                next++;
                done++;
                continue;
            }
            size_t i = 0;
            while (jobs[i].pid)
                i++;
            int r = start_job(k, &jobs[i], next, e);
            if (r < 0) {
                first = r;
                break;
            }
            next++;
            running++;
        }
        if (collect_stop && !term_ms) {
            term_ms = clock_mono_ms();
            for (size_t i = 0; i < JOBS_MAX; i++)
                if (jobs[i].pid)
                    kill(jobs[i].pid, SIGTERM);
        } else if (term_ms && clock_mono_ms() - term_ms > 8000) {
            /* its QEMUs die with it; the sweep takes the rest */
            for (size_t i = 0; i < JOBS_MAX; i++)
                if (jobs[i].pid)
                    kill(jobs[i].pid, SIGKILL);
        }
        if (!running)
            continue;
        bool ended = false;
        for (size_t i = 0; i < JOBS_MAX; i++) {
            int status;
            if (!jobs[i].pid || waitpid(jobs[i].pid, &status, WNOHANG) != jobs[i].pid)
                continue;
            ended = true;
            running--;
            unsigned run = jobs[i].run;
            json_t *doc = end_job(k, &jobs[i], status);
            json_int_t code = json_integer_value(json_object_get(doc, "code"));
            json_object_del(doc, "code");
            json_array_append_new(k->runs, doc);
            if (code) {
                const char *t = json_string_value(json_object_get(doc, "error"));
                if (!first)
                    first = err_set(e, code == ECANCELED ? ECANCELED : (int)code, "%s",
                                    t ? t : "run failed");
            } else {
                json_t *log = json_object_get(doc, "log");
                uint64_t events = 0;
                if (json_is_object(log))
                    json_get_u64(log, "events", &events, NULL);
                done++;
                log_info("run %u of %" PRIu64 ": done, %" PRIu64 " events", run, k->c->runs,
                         events);
            }
        }
        if (!ended)
            usleep(20000);
    }
    if (collect_stop && done < k->c->runs && !first)
        first = err_set(e, ECANCELED, "collection: cancelled");
    return first;
}

static int by_run(const void *a, const void *b)
{
    json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "run"));
    json_int_t y = json_integer_value(json_object_get(*(json_t *const *)b, "run"));
    return (x > y) - (x < y);
}

static json_t *sorted(json_t *runs)
{
    size_t n = json_array_size(runs);
    CLEANUP(freep) json_t **v = calloc(n + 1, sizeof(json_t *));
    json_t *a = json_array();
    for (size_t i = 0; v && i < n; i++)
        v[i] = json_array_get(runs, i);
    if (v)
        qsort(v, n, sizeof(*v), by_run);
    for (size_t i = 0; v && i < n; i++)
        json_array_append(a, v[i]);
    return a;
}

static bool empty_folder(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *de;
    bool empty = true;
    while (d && empty && (de = readdir(d)))
        empty = de->d_name[0] == '.';
    if (d)
        closedir(d);
    return empty;
}

static const char *image_name(const struct collection *k)
{
    const char *slash = strrchr(k->image, '/');
    return slash ? slash + 1 : k->image;
}

/* A user's own files by content; a disk, which may be large, by name, size and time. */
static int own_files(const struct collect_conf *c, json_t *j, struct err *e)
{
    const struct {
        const char *key, *path;
    } files[] = { { "kernel", c->kernel }, { "initrd", c->initrd }, { "script", c->script } };
    char hex[ID_HEX_LEN];
    struct stat st;
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct id id;
        if (!files[i].path)
            continue;
        int r = cid_file(files[i].path, &id, NULL, e);
        if (r < 0)
            return r;
        id_hex(&id, hex);
        json_object_set_new(j, files[i].key, json_string(hex));
    }
    if (!c->disk)
        return 0;
    if (stat(c->disk, &st) < 0)
        return err_sys(e, errno, "%s", c->disk);
    json_object_set_new(j, "disk",
                        json_pack("[o, o, o]", json_str(c->disk), json_u64((uint64_t)st.st_size),
                                  json_u64((uint64_t)st.st_mtime)));
    return 0;
}

/* What makes two runs the same: the INI's meaning and the parts they run on. Kept beside the results so that a second
 * start with the same folder only makes what is missing. */
static int own_folder(struct collection *k, struct err *e)
{
    const struct collect_conf *c = k->c;
    json_t *j =
        json_pack("{s:s, s:i, s:s, s:i, s:I, s:i, s:i, s:i, s:i, s:b, s:b, s:b, s:b, s:i, "
                  "s:b, s:s, s:s, s:I, s:I, s:I, s:s, s:s}",
                  "profile", c->profile, "nics", (int)c->nics, "model", c->model, "guests",
                  (int)c->guests, "memory", (json_int_t)c->memory_b, "vcpus", (int)c->vcpus,
                  "accel", (int)c->accel, "tracer", (int)c->tracer, "icount", c->icount, "thp",
                  c->thp, "cm", c->caching_mode, "strict", c->strict, "boot", c->include_boot,
                  "kind", (int)c->kind, "udp", c->udp, "direction", c->direction, "rate", c->rate,
                  "duration", (json_int_t)c->duration_ms, "bytes", (json_int_t)c->bytes_b, "length",
                  (json_int_t)c->length_b, "qemu", k->qemu.hash, "image", image_name(k));
    struct id id;
    if (!j)
        return err_set(e, ENOMEM, "collection");
    if (c->ats)
        json_object_set_new(j, "ats", json_true());
    if (c->kind == WORK_DISK)
        json_object_set_new(j, "disk_load", json_pack("[I, b]", (json_int_t)c->block_b, c->random));
    if (c->tap)
        json_object_set_new(j, "net", json_string("tap"));
    if (k->disk)
        json_object_set_new(j, "disk", json_str(k->disk));
    int own = own_files(c, j, e);
    if (own < 0) {
        json_decref(j);
        return own;
    }
    json_hash(j, &id);
    json_decref(j);
    id_hex(&id, k->key);
    CLEANUP(freep) char *path = path_fmt("%s/collection.key", k->out);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(4096);
    if (!path)
        return err_set(e, ENOMEM, "collection");
    char line[2 * ID_HEX_LEN + 4];
    /* two collections in one folder would take each other's parts apart */
    k->lock_fd = open(k->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (k->lock_fd < 0 || flock(k->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, errno == EWOULDBLOCK ? EBUSY : errno, "%s: %s", k->out,
                       errno == EWOULDBLOCK ? "another collection writes here" : strerror(errno));
    if (access(path, F_OK) == 0) {
        int r = file_read(path, &b, e);
        if (r < 0)
            return r;
        if (b.len < 2 * (ID_HEX_LEN - 1) + 1 ||
            strncmp((char *)b.data, k->key, ID_HEX_LEN - 1) != 0)
            return err_set(e, EEXIST, "%s: holds another collection; name another folder", k->out);
        snprintf(k->id, sizeof(k->id), "%.64s", (char *)b.data + ID_HEX_LEN);
        return 0;
    }
    if (!empty_folder(k->out))
        return err_set(e, EEXIST, "%s: not empty and no collection; name another folder", k->out);
    uint8_t rnd[32];
    random_bytes(rnd, sizeof(rnd));
    struct id cid;
    memcpy(cid.b, rnd, sizeof(cid.b));
    id_hex(&cid, k->id);
    snprintf(line, sizeof(line), "%s %s\n", k->key, k->id);
    return file_write(path, line, strlen(line), 0644, false, e);
}

static int prepare(struct collection *k, struct err *e)
{
    const struct collect_conf *c = k->c;
    bool build = !k->o->no_prepare;
    int r;
    if (c->qemu)
        r = kit_look(c->qemu, &k->qemu, e);
    else if (c->tracer == TRACER_STOCK)
        r = kit_stock(&k->qemu, e);
    else
        r = kit_qemu(build, &k->qemu, e);
    if (r < 0)
        return r;
    if (!k->qemu.patched && c->tracer != TRACER_STOCK && c->tracer != TRACER_OFF)
        return err_set(e, SF_EFAILED,
                       "%s: QEMU without the trace series; leave qemu= out, or use tracer = stock",
                       k->qemu.path);
    /* a user's own kernel and initramfs with a script of their own need nothing of ours */
    if (c->kernel && c->initrd && c->kind == WORK_SCRIPT && !c->guests)
        k->image = strdup("none");
    else
        r = kit_image(build, &k->image, e);
    if (!k->image && r == 0)
        r = err_set(e, ENOMEM, "collection");
    if (r == 0 && c->guests)
        r = kit_nested(build, k->qemu.path, &k->nested, e);
    if (r == 0 && c->debootstrap)
        r = kit_disk(build, &k->disk, e);
    /* an initramfs of the user's own brings up what it likes */
    k->ssh = (c->disk || k->disk) && !c->initrd;
    if (r < 0)
        return r;
    if (c->accel == ACCEL_TCG || c->icount >= 0)
        k->kvm = false;
    else
        k->kvm = kvm_usable();
    if (c->accel == ACCEL_KVM && !k->kvm)
        return err_set(e, SF_EFAILED, "%s: accel = kvm, but KVM does not run guests on this host",
                       c->path);
    return 0;
}

int collect_local(const struct collect_conf *c, const struct collect_opts *o, json_t **ret,
                  struct err *e)
{
    struct collection k = { .c = c, .o = o, .lock_fd = -1 };
    *ret = NULL;
    CLEANUP(closep) int held = images_hold(e);
    if (held < 0)
        return held;
    int r;
    vm_sweep();
    if (c->guests > CONF_GUESTS_TRIED)
        log_warn("%s: %" PRIu64 " L2 guests are untested until somebody ran them (tried: up to %d)",
                 c->path, c->guests, CONF_GUESTS_TRIED);
    if (c->ats && !stack_asks(c))
        log_warn("%s: ats = yes, but no card will ask for translations: that takes net = tap and "
                 "/dev/vhost-net; the guest's device-IOTLB invalidations are all there is to see",
                 c->path);
    r = prepare(&k, e);
    if (r < 0)
        goto out;
    if (o->out) {
        k.out = strdup(o->out);
    } else {
        uint8_t rnd[8];
        char hex[17];
        random_bytes(rnd, sizeof(rnd));
        for (int i = 0; i < 8; i++)
            snprintf(hex + 2 * i, 3, "%02x", rnd[i]);
        CLEANUP(freep) char *data = path_xdg("DATA");
        k.out = data ? path_fmt("%s/collections/%s", data, hex) : NULL;
    }
    k.runs = json_array();
    if (!k.out || !k.runs) {
        r = err_set(e, ENOMEM, "collection");
        goto out;
    }
    r = dir_make(k.out, 0755, e);
    if (r == 0) {
        char *full = realpath(k.out, NULL);
        if (full) {
            free(k.out);
            k.out = full;
        }
        r = own_folder(&k, e);
    }
    if (r == 0)
        r = check_room(&k, e);
    if (r < 0)
        goto out;
    r = run_all(&k, e);
    *ret = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:{s:s, s:o, s:s}, s:s, s:o}", "schema",
                     "siofleet.collection/1", "collection", k.id, "profile", c->profile, "accel",
                     k.kvm ? "kvm" : "tcg", "tracer", conf_tracer_name(c->tracer), "lacks",
                     lacks(&k), "qemu", "version", k.qemu.version, "series",
                     k.qemu.series[0] ? json_string(k.qemu.series) : json_null(), "hash",
                     k.qemu.hash, "image", image_name(&k), "runs", sorted(k.runs));
    if (r == 0 && !*ret)
        r = err_set(e, ENOMEM, "collection");
    if (*ret && save_json(k.out, "collection.json", *ret, r < 0 ? NULL : e) < 0 && r == 0)
        r = -e->code;
out:
    /* an empty folder that we made ourselves says nothing */
    if (r < 0 && k.out && !o->out && !json_array_size(k.runs))
        dir_remove(k.out, NULL);
    closep(&k.lock_fd);
    json_decref(k.runs);
    kit_qemu_clear(&k.qemu);
    free(k.image);
    free(k.nested);
    free(k.disk);
    free(k.out);
    return r;
}
