#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "agent/facts.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

static char dir[4000];
static struct err e;

static void setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/facts-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(dir));
}

static void teardown(void)
{
    cr_assert(dir_remove(dir, &e) == 0);
}

TestSuite(facts, .init = setup, .fini = teardown);

static void put(const char *name, const char *text)
{
    char path[4200];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    cr_assert(dir_make(path, 0700, &e) == 0);
    *slash = '/';
    cr_assert(file_write(path, text, strlen(text), 0600, true, &e) == 0, "%s", e.text);
}

static const char *text(const struct facts *f, const char *key)
{
    return json_string_value(json_object_get(f->json, key));
}

Test(facts, are_read_from_proc_and_sys)
{
    put("cpuinfo",
        "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz \nmicrocode\t: 0x2b\n\nprocessor\t: 1\n");
    put("meminfo", "MemTotal:        2097152 kB\nMemFree: 1 kB\n");
    put("devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
    struct facts f;
    cr_assert(facts_get(dir, dir, true, &f, &e) == 0);
    cr_assert_str_eq(text(&f, "cpu"), "Some CPU @ 2.00GHz");
    cr_assert_str_eq(text(&f, "microcode"), "0x2b");
    cr_assert_str_eq(text(&f, "governor"), "performance");
    cr_assert_str_eq(text(&f, "accel"), "kvm");
    cr_assert_eq(f.memory_mib, 2048);
    cr_assert_geq(f.cores, 1);
    facts_clear(&f);
}

Test(facts, what_cannot_be_found_out_is_null)
{
    struct facts f;
    cr_assert(facts_get(dir, dir, false, &f, &e) == 0);
    cr_assert(json_is_null(json_object_get(f.json, "cpu")));
    cr_assert(json_is_null(json_object_get(f.json, "governor")));
    cr_assert_str_eq(text(&f, "accel"), "tcg");
    cr_assert(text(&f, "kernel") && text(&f, "host"));
    facts_clear(&f);
}

Test(facts, kvm_is_probed_once_a_boot_of_the_host)
{
    char path[4200];
    snprintf(path, sizeof(path), "%s/kvm", dir);
    bool first = facts_kvm(path);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(300);
    cr_assert(file_read(path, &b, &e) == 0);
    cr_assert_eq(facts_kvm(path), first);
    /* what the file says is believed while its key holds */
    b.data[b.len - 2] = first ? '0' : '1';
    cr_assert(file_write(path, b.data, b.len, 0600, true, &e) == 0);
    cr_assert_eq(facts_kvm(path), !first);
    /* another boot: asked again */
    b.data[0] = b.data[0] == 'a' ? 'b' : 'a';
    cr_assert(file_write(path, b.data, b.len, 0600, true, &e) == 0);
    cr_assert_eq(facts_kvm(path), first);
}
