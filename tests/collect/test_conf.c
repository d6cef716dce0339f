#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "collect/conf.h"
#include "collect/recipe.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

static int parse(const char *text, struct collect_conf *c, struct err *e)
{
    *e = (struct err){ 0 };
    return conf_parse("run.ini", text, c, e);
}

Test(conf, every_profile_is_a_run)
{
    struct err e;
    for (size_t i = 0; conf_profile_names[i]; i++) {
        struct collect_conf c;
        cr_assert_eq(parse(conf_profile(conf_profile_names[i]), &c, &e), 0, "%s", e.text);
        cr_assert_str_eq(c.profile, conf_profile_names[i]);
        cr_assert_eq(c.nics, strcmp(c.profile, "many") ? (c.guests ? c.guests : 1) : 24);
        conf_clear(&c);
    }
    cr_assert_null(conf_profile("huge"));
}

Test(conf, what_a_file_leaves_out_comes_from_its_profile)
{
    struct collect_conf c;
    struct err e;
    cr_assert_eq(parse("[collect]\nprofile = many\nnics = 3\n", &c, &e), 0, "%s", e.text);
    cr_assert_eq(c.nics, 3);
    cr_assert_eq(c.memory_b, (uint64_t)1 << 30);
    cr_assert_str_eq(c.rate, "8M");
    conf_clear(&c);
}

Test(conf, the_later_of_bytes_and_duration_counts)
{
    struct collect_conf c;
    struct err e;
    cr_assert_eq(parse("[collect]\n[workload]\nduration = 7s\n", &c, &e), 0);
    cr_assert_eq(c.bytes_b, 0, "the profile's own bound must not stay");
    cr_assert_eq(c.duration_ms, 7000);
    conf_clear(&c);
    cr_assert_eq(parse("[collect]\n[workload]\nduration = 7s\nbytes = 1M\n", &c, &e), 0);
    cr_assert_eq(c.bytes_b, 1 << 20);
    conf_clear(&c);
}

Test(conf, disks_make_a_disk_workload)
{
    struct collect_conf c;
    struct err e;
    cr_assert_eq(parse("[collect]\nnic_model = nvme\n", &c, &e), 0);
    cr_assert_eq(c.kind, WORK_DISK);
    cr_assert_str_eq(conf_module(c.model), "nvme");
    conf_clear(&c);
}

Test(conf, what_is_no_run_is_refused_with_its_line)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        { "[workload]\nkind = iperf3\n", "no [collect] section" },
        { "[collect]\nprofile = huge\n", "run.ini:2: 'huge' is none of" },
        { "[collect]\nnisc = 2\n", "run.ini:2: unknown key 'nisc'" },
        { "[collect]\nnics = 25\n", "run.ini:2" },
        { "[collect]\nnics = 0\n", "run.ini:2" },
        { "[collect]\nnics = 5\n", "1 to 4 NICs" },
        { "[collect]\nguests = 2\n", "belongs to profile tenants" },
        { "[collect]\nprofile = tenants\nguests = 25\n", "run.ini:3" },
        { "[collect]\nnic_model = rtl8139\n", "none of: e1000" },
        { "[collect]\nmemory = 64M\n", "128M to 4T" },
        { "[collect]\ntracer = printf\n", "none of: ring, log" },
        { "[collect]\nkernel = /nonexistent/vmlinux\n", "cannot be read" },
        { "[collect]\n[workload]\nrate = 8M;reboot\n", "run.ini:3" },
        { "[collect]\n[workload]\nrate = $(reboot)\n", "is no rate" },
        { "[collect]\n[workload]\nkind = disk\n", "needs nic_model = nvme" },
        { "[collect]\n[workload]\nkind = script\n", "needs script = FILE" },
        { "[collect]\n[workload]\nduration = 10ms\n", "1s to 24h" },
        { "[collect]\n[workload]\nduration = 2s\nduration = 3s\n", "run.ini:4" },
        { "[collect]\nicount = 3\nvcpus = 2\n", "icount needs one vCPU" },
        { "[collect]\nprofile = tenants\nnic_model = nvme\n", "over NICs only" },
        { "[collect]\nprofile = tenants\ndisk = debootstrap\n", "with one guest" },
        { "[collect]\nnic_model = nvme\n[workload]\nblock = 5000\n", "in steps of 4K" },
        { "[collect]\nnic_model = nvme\n[workload]\npattern = zigzag\n", "none of: seq, rand" },
        { "[collect]\nats = yes\n", "needs nic_model = virtio" },
        { "[collect]\nprofile = tenants\nnic_model = virtio\nats = yes\n", "outside of tenants" },
        { "[collect]\nnet = bridge\n", "none of: socket, tap" },
        { "[collect]\nnic_model = nvme\nnet = tap\n", "needs NICs" },
        { "[collect]\n[fleet]\nx = 1\n", "unknown section [fleet]" },
        { "[collect] \n nonsense\n", "run.ini:2" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct collect_conf c;
        struct err e;
        cr_expect_eq(parse(rows[i].text, &c, &e), -SF_EUSAGE, "row %zu", i);
        cr_expect_not_null(strstr(e.text, rows[i].says), "row %zu says: %s", i, e.text);
        conf_clear(&c);
    }
}

/* The recipe of a RUN.ini with this text, in a folder of its own. */
static void recipe_of(const char *text, struct collect_recipe *r)
{
    char dir[] = "/tmp/recipe-XXXXXX";
    struct err e = { 0 };
    cr_assert(mkdtemp(dir));
    CLEANUP(freep) char *path = path_fmt("%s/run.ini", dir);
    CLEANUP(freep) char *kernel = path_fmt("%s/kernel", dir);
    cr_assert_eq(file_write(kernel, "k", 1, 0600, true, &e), 0, "%s", e.text);
    cr_assert_eq(file_write(path, text, strlen(text), 0600, true, &e), 0, "%s", e.text);
    int rc = collect_recipe_load(path, r, &e);
    dir_remove(dir, NULL);
    cr_assert_eq(rc, 0, "%s", e.text);
}

Test(recipe, files_that_mean_the_same_give_the_same_text)
{
    struct collect_recipe a, b;
    recipe_of("[collect]\nnics = 2\nruns = 3\n[workload]\nbytes = 9M\n", &a);
    recipe_of("; remark\n[workload]\nbytes=9M\n[collect]\nruns = 44\nprofile = quick\nnics=2\n",
              &b);
    cr_assert_str_eq(a.ini, b.ini);
    cr_assert_eq(a.runs, 3);
    cr_assert_eq(b.runs, 44);
    collect_recipe_clear(&a);
    collect_recipe_clear(&b);
}

Test(recipe, what_it_says_is_what_the_file_said)
{
    static const char *const texts[] = {
        "[collect]\nprofile = many\nnics = 3\n[workload]\nbytes = 5M\n", /* over the profile's duration */
        "[collect]\n[workload]\nduration = 7s\n", /* over the profile's bytes */
        "[collect]\nprofile = tenants\nguests = 4\nmemory = 5G\n",
        "[collect]\nprofile = big\nicount = 3\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct collect_recipe r;
        struct collect_conf was, is;
        struct err e;
        recipe_of(texts[i], &r);
        cr_assert_eq(parse(texts[i], &was, &e), 0);
        cr_assert_eq(parse(r.ini, &is, &e), 0, "%s", e.text);
        cr_assert_str_eq(is.profile, was.profile);
        cr_assert_eq(is.nics, was.nics);
        cr_assert_eq(is.guests, was.guests);
        cr_assert_eq(is.memory_b, was.memory_b);
        cr_assert_eq(is.bytes_b, was.bytes_b);
        cr_assert(was.bytes_b || is.duration_ms == was.duration_ms);
        cr_assert_eq(is.icount, was.icount);
        cr_assert_eq(r.cores, 2 + was.guests);
        cr_assert_gt(r.memory_mib, 200);
        conf_clear(&was);
        conf_clear(&is);
        collect_recipe_clear(&r);
    }
}

Test(recipe, how_long_a_run_may_take_is_its_timeout_or_follows_from_its_duration)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } rows[] = {
        { "[collect]\ntimeout = 3m\n[workload]\nduration = 1h\n", 180000 },
        { "[collect]\n[workload]\nduration = 7s\n", 600000 + 2 * 7000 },
        { "[collect]\nicount = 3\n[workload]\nduration = 7s\n", 600000 + 20 * 7000 },
        { "[collect]\n[workload]\nbytes = 7M\n", 0 }, /* depends on the host */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct collect_recipe r;
        recipe_of(rows[i].text, &r);
        cr_assert_eq(r.takes_ms, rows[i].ms, "%s", rows[i].text);
        collect_recipe_clear(&r);
    }
}

Test(recipe, files_travel_beside_the_text)
{
    struct collect_recipe r;
    recipe_of("[collect]\nkernel = kernel\n", &r);
    cr_assert_eq(r.n_files, 1);
    cr_assert_str_eq(r.file[0].key, "kernel");
    cr_assert(strstr(r.file[0].path, "/recipe-"));
    cr_assert(!strstr(r.ini, "kernel"));
    collect_recipe_clear(&r);
}
