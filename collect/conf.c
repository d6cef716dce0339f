#include "collect/conf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/num.h"
#include "proto/lib/ini.h"

const char *const conf_profile_names[] = { "quick", "many", "tenants", "big", NULL };

static const char quick_ini[] =
    "# quick: one guest (L1), 1 to 4 NICs behind the emulated IOMMU, traffic from its own kernel.\n"
    "#\n"
    "#   host iperf3 <== user network ==> e1000 at 00:02.0 [..00:05.0] <-> intel-iommu <-> L1 "
    "memory\n"
    "#\n"
    "[collect]\n"
    "profile = quick\n"
    "runs = 1\n"
    "nics = 1\n"
    "; e1000 e1000e virtio nvme virtio-blk\n"
    "nic_model = e1000\n"
    "memory = 512M\n"
    "vcpus = 1\n"
    "; auto (KVM where it really runs guests, else TCG) kvm tcg\n"
    "accel = auto\n"
    "; ring (binary, about 40 ns an event) log (text) both; stock: Debian's unpatched QEMU, "
    "without page sizes\n"
    "tracer = ring\n"
    "; with caching mode Linux invalidates strictly, whatever invalidation says\n"
    "caching_mode = yes\n"
    "; lazy strict\n"
    "invalidation = lazy\n"
    "; virtio only: cards that may ask for translations; does so where the host offers vhost and "
    "net = tap\n"
    "ats = no\n"
    "; socket (no root) or tap\n"
    "net = socket\n"
    "include_boot = no\n"
    "allow_drops = no\n"
    "\n"
    "[workload]\n"
    "; iperf3 disk script\n"
    "kind = iperf3\n"
    "proto = tcp\n"
    "; tx rx both, as the guest sees it\n"
    "direction = tx\n"
    "; duration = 2s, or until so much is sent: the later of the two keys counts\n"
    "bytes = 40M\n"
    "; a NIC, as iperf3 takes it (200M); without it as fast as it goes\n"
    "; rate = 200M\n";

static const char many_ini[] =
    "# many: one guest (L1) with up to 24 NICs or disks behind the emulated IOMMU.\n"
    "#\n"
    "#   host iperf3 <== 24 user networks ==> e1000 at 00:02.0 .. 00:19.0 <-> intel-iommu <-> L1 "
    "memory\n"
    "#\n"
    "# NICs sit in slots 2 to 25. Unbounded senders share very unequally: a rate keeps them "
    "balanced.\n"
    "[collect]\n"
    "profile = many\n"
    "runs = 1\n"
    "nics = 24\n"
    "nic_model = e1000\n"
    "memory = 1G\n"
    "vcpus = 1\n"
    "accel = auto\n"
    "tracer = ring\n"
    "caching_mode = yes\n"
    "invalidation = lazy\n"
    "\n"
    "[workload]\n"
    "kind = iperf3\n"
    "proto = tcp\n"
    "direction = tx\n"
    "duration = 5s\n"
    "rate = 8M\n";

static const char tenants_ini[] =
    "# tenants: L1 gives one NIC each to 1 to 24 L2 guests by VFIO; each L2 talks to a client VM "
    "of its own.\n"
    "#\n"
    "#   client VM 1 <== socket ==> e1000 at 00:02.0 <-> intel-iommu of L0 <-> memory of L2 1 \\\n"
    "#   client VM 2 <== socket ==> e1000 at 00:03.0 <-> intel-iommu of L0 <-> memory of L2 2  | "
    "inside L1\n"
    "#   ...                                                                                  /\n"
    "#\n"
    "# No root, no taps, unless net = tap: then a bridge with two taps for each pair. Tried with "
    "up to 4\n"
    "# L2s; more are untested until somebody ran them.\n"
    "[collect]\n"
    "profile = tenants\n"
    "runs = 1\n"
    "guests = 2\n"
    "nic_model = e1000\n"
    "memory = 3G\n"
    "vcpus = 2\n"
    "accel = auto\n"
    "tracer = ring\n"
    "; no = 4 KiB pages for the L2s, yes = 2 MiB pages\n"
    "thp = yes\n"
    "caching_mode = yes\n"
    "; socket or tap (root, or a network namespace of your own)\n"
    "net = socket\n"
    "\n"
    "[workload]\n"
    "kind = iperf3\n"
    "proto = tcp\n"
    "direction = tx\n"
    "duration = 5s\n";

static const char big_ini[] = "# big: a guest with more memory than the host, lazily backed; about "
                              "1.6 % of it is really used.\n"
                              "#\n"
                              "#   host iperf3 <== user network ==> e1000 at 00:02.0 <-> "
                              "intel-iommu <-> L1 memory, 64G to 1T\n"
                              "#\n"
                              "[collect]\n"
                              "profile = big\n"
                              "runs = 1\n"
                              "nics = 1\n"
                              "nic_model = e1000\n"
                              "memory = 64G\n"
                              "vcpus = 1\n"
                              "accel = auto\n"
                              "tracer = ring\n"
                              "\n"
                              "[workload]\n"
                              "kind = iperf3\n"
                              "proto = tcp\n"
                              "direction = tx\n"
                              "duration = 3s\n";

const char *conf_profile(const char *name)
{
    static const char *const text[] = { quick_ini, many_ini, tenants_ini, big_ini };
    for (size_t i = 0; conf_profile_names[i]; i++)
        if (strcmp(name, conf_profile_names[i]) == 0)
            return text[i];
    return NULL;
}

static const struct {
    const char *model, *module;
    bool disk;
} models[] = {
    { "e1000", "e1000", false },          { "e1000e", "e1000e", false },
    { "virtio", "virtio_net", false },    { "nvme", "nvme", true },
    { "virtio-blk", "virtio_blk", true },
};

const char *conf_module(const char *model)
{
    for (size_t i = 0; i < ARRAY_LEN(models); i++)
        if (strcmp(model, models[i].model) == 0)
            return models[i].module;
    return NULL;
}

bool conf_is_disk(const char *model)
{
    for (size_t i = 0; i < ARRAY_LEN(models); i++)
        if (strcmp(model, models[i].model) == 0)
            return models[i].disk;
    return false;
}

static const char *const tracers[] = { "ring", "log", "stock", "both", "off", NULL };
static const char *const accels[] = { "auto", "kvm", "tcg", NULL };
static const char *const kinds[] = { "iperf3", "disk", "script", NULL };
static const char *const protos[] = { "tcp", "udp", NULL };
static const char *const directions[] = { "tx", "rx", "both", NULL };
static const char *const invalidations[] = { "lazy", "strict", NULL };
static const char *const patterns[] = { "seq", "rand", NULL };
static const char *const nets[] = { "socket", "tap", NULL };

const char *conf_tracer_name(enum conf_tracer t)
{
    return tracers[t];
}

static int choice(const char *place, const char *v, const char *const names[], struct err *e)
{
    char list[96] = "";
    for (int i = 0; names[i]; i++) {
        if (strcmp(v, names[i]) == 0)
            return i;
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "", names[i]);
    }
    return err_set(e, SF_EUSAGE, "%s: '%s' is none of: %s", place, v, list);
}

static int flag(const char *place, const char *v, bool *ret, struct err *e)
{
    uint64_t u;
    int r = num_bool(v, place, &u, e);
    if (r == 0)
        *ret = u != 0;
    return r;
}

/* A rate goes to iperf3's command line in the guest: digits, one fraction, one of K M G. */
static int rate(const char *place, const char *v, char out[24], struct err *e)
{
    size_t n = strspn(v, "0123456789");
    size_t all = n;
    if (v[all] == '.')
        all += 1 + strspn(v + all + 1, "0123456789");
    if (v[all] && strchr("KMGkmg", v[all]))
        all++;
    if (n == 0 || v[all] || all >= 24)
        return err_set(e, SF_EUSAGE, "%s: '%s' is no rate like 200M (bits a second)", place, v);
    memcpy(out, v, all + 1);
    return 0;
}

static int set_path(const struct ini *ini, const char *place, const char *v, char **ret,
                    struct err *e)
{
    free(*ret);
    *ret = ini_path(ini, v);
    if (!*ret)
        return err_set(e, ENOMEM, "%s", place);
    if (access(*ret, R_OK) < 0)
        return err_set(e, SF_EUSAGE, "%s: '%s': cannot be read", place, *ret);
    return 0;
}

static int set_collect(struct collect_conf *c, const struct ini *ini, const struct ini_key *k,
                       struct err *e)
{
    const char *place = ini_place(ini, k->line), *v = k->value;
    int r;
#define KEY(s) (strcmp(k->name, s) == 0)
    if (KEY("profile"))
        return 0; /* read first */
    if (KEY("runs"))
        return num_u64(v, 1, 100000, place, &c->runs, e);
    if (KEY("nics"))
        return num_u64(v, 1, CONF_NICS_MAX, place, &c->nics, e);
    if (KEY("guests"))
        return num_u64(v, 1, CONF_GUESTS_MAX, place, &c->guests, e);
    if (KEY("nic_model")) {
        if (!conf_module(v))
            return err_set(e, SF_EUSAGE,
                           "%s: '%s' is none of: e1000, e1000e, virtio, nvme, virtio-blk", place,
                           v);
        snprintf(c->model, sizeof(c->model), "%s", v);
        return 0;
    }
    if (KEY("memory")) {
        r = num_size(v, place, &c->memory_b, e);
        if (r == 0 && (c->memory_b < (128u << 20) || c->memory_b > ((uint64_t)4 << 40)))
            return err_set(e, SF_EUSAGE, "%s: a guest has 128M to 4T of memory", place);
        return r;
    }
    if (KEY("vcpus"))
        return num_u64(v, 1, 64, place, &c->vcpus, e);
    if (KEY("accel")) {
        r = choice(place, v, accels, e);
        c->accel = r < 0 ? ACCEL_AUTO : (enum conf_accel)r;
        return r < 0 ? r : 0;
    }
    if (KEY("tracer")) {
        r = choice(place, v, tracers, e);
        c->tracer = r < 0 ? TRACER_RING : (enum conf_tracer)r;
        return r < 0 ? r : 0;
    }
    if (KEY("icount")) {
        uint64_t u = 0;
        if (strcmp(v, "no") == 0) {
            c->icount = -1;
            return 0;
        }
        r = num_u64(v, 0, 10, place, &u, e);
        c->icount = (int)u;
        return r;
    }
    if (KEY("thp"))
        return flag(place, v, &c->thp, e);
    if (KEY("caching_mode"))
        return flag(place, v, &c->caching_mode, e);
    if (KEY("invalidation")) {
        r = choice(place, v, invalidations, e);
        c->strict = r == 1;
        return r < 0 ? r : 0;
    }
    if (KEY("ats"))
        return flag(place, v, &c->ats, e);
    if (KEY("net")) {
        r = choice(place, v, nets, e);
        c->tap = r == 1;
        return r < 0 ? r : 0;
    }
    if (KEY("include_boot"))
        return flag(place, v, &c->include_boot, e);
    if (KEY("allow_drops"))
        return flag(place, v, &c->allow_drops, e);
    if (KEY("timeout"))
        return num_ms(v, place, &c->timeout_ms, e);
    if (KEY("kernel"))
        return set_path(ini, place, v, &c->kernel, e);
    if (KEY("initrd"))
        return set_path(ini, place, v, &c->initrd, e);
    if (KEY("disk") && (c->debootstrap = strcmp(v, "debootstrap") == 0)) {
        free(c->disk);
        c->disk = NULL;
        return 0;
    }
    if (KEY("disk"))
        return set_path(ini, place, v, &c->disk, e);
    if (KEY("qemu"))
        return set_path(ini, place, v, &c->qemu, e);
    return err_set(e, SF_EUSAGE, "%s: unknown key '%s' in [collect]", place, k->name);
}

static int set_workload(struct collect_conf *c, const struct ini *ini, const struct ini_key *k,
                        struct err *e)
{
    const char *place = ini_place(ini, k->line), *v = k->value;
    int r;
    if (KEY("kind")) {
        r = choice(place, v, kinds, e);
        c->kind = r < 0 ? WORK_IPERF3 : (enum conf_kind)r;
        return r < 0 ? r : 0;
    }
    if (KEY("proto")) {
        r = choice(place, v, protos, e);
        c->udp = r == 1;
        return r < 0 ? r : 0;
    }
    if (KEY("direction")) {
        r = choice(place, v, directions, e);
        if (r >= 0)
            snprintf(c->direction, sizeof(c->direction), "%s", v);
        return r < 0 ? r : 0;
    }
    if (KEY("rate"))
        return rate(place, v, c->rate, e);
    if (KEY("duration")) {
        r = num_ms(v, place, &c->duration_ms, e);
        c->bytes_b = 0;
        if (r == 0 && (c->duration_ms < 1000 || c->duration_ms > 24u * 3600 * 1000))
            return err_set(e, SF_EUSAGE, "%s: a measured phase takes 1s to 24h", place);
        return r;
    }
    if (KEY("bytes"))
        return num_size(v, place, &c->bytes_b, e);
    if (KEY("length"))
        return num_u64(v, 16, 65507, place, &c->length_b, e);
    if (KEY("block")) {
        r = num_size(v, place, &c->block_b, e);
        if (r == 0 && (c->block_b < 4096 || c->block_b > (1 << 20) || c->block_b % 4096))
            return err_set(e, SF_EUSAGE, "%s: a block has 4K to 1M, in steps of 4K", place);
        return r;
    }
    if (KEY("pattern")) {
        r = choice(place, v, patterns, e);
        c->random = r == 1;
        return r < 0 ? r : 0;
    }
    if (KEY("script"))
        return set_path(ini, place, v, &c->script, e);
#undef KEY
    return err_set(e, SF_EUSAGE, "%s: unknown key '%s' in [workload]", place, k->name);
}

static int check(struct collect_conf *c, struct err *e)
{
    bool nested = strcmp(c->profile, "tenants") == 0;
    if (nested) {
        c->nics = c->guests;
        if (conf_is_disk(c->model) || c->kind != WORK_IPERF3)
            return err_set(e, SF_EUSAGE, "%s: profile tenants runs iperf3 over NICs only", c->path);
        if (strcmp(c->direction, "both") == 0 && c->udp)
            return err_set(e, SF_EUSAGE, "%s: direction = both needs proto = tcp here", c->path);
    } else if (c->guests) {
        return err_set(e, SF_EUSAGE, "%s: guests = belongs to profile tenants", c->path);
    }
    if (strcmp(c->profile, "quick") == 0 && c->nics > 4)
        return err_set(e, SF_EUSAGE, "%s: profile quick has 1 to 4 NICs; profile many has up to 24",
                       c->path);
    if (conf_is_disk(c->model) && c->kind == WORK_IPERF3)
        c->kind = WORK_DISK;
    if (c->kind == WORK_DISK && !conf_is_disk(c->model))
        return err_set(e, SF_EUSAGE, "%s: kind = disk needs nic_model = nvme or virtio-blk",
                       c->path);
    if (c->kind == WORK_SCRIPT && !c->script)
        return err_set(e, SF_EUSAGE, "%s: kind = script needs script = FILE", c->path);
    if (c->kind != WORK_SCRIPT && c->script)
        return err_set(e, SF_EUSAGE, "%s: script = needs kind = script", c->path);
    if (c->icount >= 0 && (c->vcpus > 1 || nested || c->accel == ACCEL_KVM))
        return err_set(e, SF_EUSAGE, "%s: icount needs one vCPU, TCG and no nested guests",
                       c->path);
    if (c->ats && (strcmp(c->model, "virtio") != 0 || nested))
        return err_set(e, SF_EUSAGE, "%s: ats = yes needs nic_model = virtio, outside of tenants",
                       c->path);
    if (c->tap && conf_is_disk(c->model))
        return err_set(e, SF_EUSAGE, "%s: net = tap needs NICs", c->path);
    if (c->debootstrap && c->initrd)
        return err_set(e, SF_EUSAGE,
                       "%s: disk = debootstrap goes with the initramfs of ours: leave initrd= out",
                       c->path);
    if (nested && (c->disk || c->debootstrap))
        return err_set(e, SF_EUSAGE, "%s: disk = belongs to profiles with one guest", c->path);
    if (c->include_boot && c->tracer == TRACER_OFF)
        return err_set(e, SF_EUSAGE, "%s: include_boot needs a tracer", c->path);
    return 0;
}

static int from_ini(struct ini *ini, struct collect_conf *c, struct err *e);

/* A profile's own values come first, the file's over them. */
static int defaults(struct collect_conf *c, struct err *e)
{
    const char *text = conf_profile(c->profile);
    CLEANUP(ini_free) struct ini *ini = NULL;
    int r = ini_text(c->profile, text, &ini, e);
    return r < 0 ? r : from_ini(ini, c, e);
}

static int from_ini(struct ini *ini, struct collect_conf *c, struct err *e)
{
    for (size_t i = 0; i < ini->n_sections; i++) {
        const struct ini_section *s = &ini->sections[i];
        bool work = strcmp(s->name, "workload") == 0;
        if ((!work && strcmp(s->name, "collect") != 0) || s->arg[0])
            return err_set(e, SF_EUSAGE, "%s: unknown section [%s%s%s]", ini_place(ini, s->line),
                           s->name, s->arg[0] ? " " : "", s->arg);
        for (size_t k = 0; k < s->n_keys; k++) {
            int r =
                work ? set_workload(c, ini, &s->keys[k], e) : set_collect(c, ini, &s->keys[k], e);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int load(struct ini *ini, struct collect_conf *c, struct err *e)
{
    *c = (struct collect_conf){ .path = strdup(ini->path),
                                .icount = -1,
                                .runs = 1,
                                .thp = true,
                                .caching_mode = true,
                                .nics = 1,
                                .block_b = 65536,
                                .vcpus = 1 };
    if (!c->path)
        return err_set(e, ENOMEM, "%s", ini->path);
    strcpy(c->direction, "tx");
    const struct ini_section *s = ini_section(ini, "collect", "");
    if (!s)
        return err_set(e, SF_EUSAGE, "%s: no [collect] section", ini->path);
    const char *p = ini_get(s, "profile");
    if (!p)
        p = "quick";
    if (!conf_profile(p)) {
        int line = s->line;
        for (size_t i = 0; i < s->n_keys; i++)
            if (strcmp(s->keys[i].name, "profile") == 0)
                line = s->keys[i].line;
        return err_set(e, SF_EUSAGE, "%s: '%s' is none of: quick, many, tenants, big",
                       ini_place(ini, line), p);
    }
    snprintf(c->profile, sizeof(c->profile), "%s", p);
    int r = defaults(c, e);
    if (r == 0)
        r = from_ini(ini, c, e);
    return r < 0 ? r : check(c, e);
}

int conf_load(const char *path, struct collect_conf *c, struct err *e)
{
    *c = (struct collect_conf){ 0 };
    CLEANUP(ini_free) struct ini *ini = NULL;
    int r = ini_load(path, &ini, e);
    return r < 0 ? r : load(ini, c, e);
}

int conf_parse(const char *path, const char *text, struct collect_conf *c, struct err *e)
{
    *c = (struct collect_conf){ 0 };
    CLEANUP(ini_free) struct ini *ini = NULL;
    int r = ini_text(path, text, &ini, e);
    return r < 0 ? r : load(ini, c, e);
}

void conf_clear(struct collect_conf *c)
{
    free(c->path);
    free(c->kernel);
    free(c->initrd);
    free(c->disk);
    free(c->qemu);
    free(c->script);
    *c = (struct collect_conf){ 0 };
}
