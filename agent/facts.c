#include "agent/facts.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "collect/kvm.h"
#include "collect/recipe.h"
#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

/* Value behind "key<blanks>:" at the start of a line, without blanks around; owned, NULL = none. */
static char *line_value(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *line = text; line && *line;) {
        const char *end = strchr(line, '\n');
        if (!strncmp(line, key, n)) {
            const char *p = line + n;
            p += strspn(p, " \t");
            if (*p == ':') {
                p += 1 + strspn(p + 1, " \t");
                const char *stop = end ? end : p + strlen(p);
                while (stop > p && (stop[-1] == ' ' || stop[-1] == '\r'))
                    stop--;
                return stop > p ? strndup(p, (size_t)(stop - p)) : NULL;
            }
        }
        line = end ? end + 1 : NULL;
    }
    return NULL;
}

static char *file_text(const char *root, const char *name, size_t cap)
{
    CLEANUP(freep) char *path = path_fmt("%s/%s", root, name);
    CLEANUP(buf_clear) struct buf b = BUF_INIT(cap);
    /* a longer file than the cap is an error, but what was read of it is enough */
    if (!path || (file_read(path, &b, NULL) < 0 && b.len == 0) || !b.data)
        return NULL;
    return strndup((char *)b.data, b.len);
}

/* The engine's code path; the same order of preference as the engine's own choice. */
static const char *isa(void)
{
    const char *want = getenv("SIOFLEET_ISA");
    if (want && *want)
        return want;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") ? "avx512"
                                                                                       : "avx2";
#endif
    return "scalar";
}

void facts_boot(char out[FACTS_BOOT])
{
    CLEANUP(freep) char *boot = file_text("/proc", "sys/kernel/random/boot_id", 128);
    snprintf(out, FACTS_BOOT, "%.36s", boot ? boot : "");
}

bool facts_kvm(const char *cache)
{
    char boot[FACTS_BOOT], key[160], line[200];
    facts_boot(boot);
    snprintf(key, sizeof(key), "%s %s ", boot, access("/dev/kvm", R_OK | W_OK) == 0 ? "rw" : "no");
    CLEANUP(buf_clear) struct buf b = BUF_INIT(256);
    size_t n = strlen(key);
    if (*boot && file_read(cache, &b, NULL) == 0 && b.len == n + 2 && !memcmp(b.data, key, n) &&
        (b.data[n] == '0' || b.data[n] == '1'))
        return b.data[n] == '1';
    bool usable = kvm_usable();
    snprintf(line, sizeof(line), "%s%d\n", key, usable);
    file_write(cache, line, strlen(line), 0600, true, NULL);
    return usable;
}

int facts_get(const char *proc, const char *sys, bool kvm, struct facts *ret, struct err *e)
{
    *ret = (struct facts){ 0 };
    cpu_set_t set;
    ret->cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint64_t)CPU_COUNT(&set) : 1;
    if (ret->cores == 0)
        ret->cores = 1;
    CLEANUP(freep) char *mem = file_text(proc, "meminfo", 16384);
    CLEANUP(freep) char *total = mem ? line_value(mem, "MemTotal") : NULL;
    ret->memory_mib = total ? strtoull(total, NULL, 10) / 1024 : 0;
    ret->kvm = kvm;

    CLEANUP(freep) char *cpuinfo = file_text(proc, "cpuinfo", 65536);
    CLEANUP(freep) char *cpu = cpuinfo ? line_value(cpuinfo, "model name") : NULL;
    CLEANUP(freep) char *microcode = cpuinfo ? line_value(cpuinfo, "microcode") : NULL;
    CLEANUP(freep)
    char *governor = file_text(sys, "devices/system/cpu/cpu0/cpufreq/scaling_governor", 256);
    if (governor)
        governor[strcspn(governor, "\n")] = '\0';
    struct utsname u = { 0 };
    uname(&u);
    json_t *j = json_object();
    if (!j)
        return err_sys(e, ENOMEM, "host facts");
    json_object_set_new(j, "host", json_str(u.nodename));
    json_object_set_new(j, "cpu", json_str(cpu));
    json_object_set_new(j, "microcode", json_str(microcode));
    json_object_set_new(j, "kernel", json_str(u.release));
    json_object_set_new(j, "governor", json_str(governor));
    json_object_set_new(j, "isa", json_str(isa()));
    json_object_set_new(j, "accel", json_string(ret->kvm ? "kvm" : "tcg"));
    json_object_set_new(j, "cores", json_u64(ret->cores));
    json_object_set_new(j, "memory_mib", json_u64(ret->memory_mib));
    json_object_set_new(j, "collect", json_string(collect_ability_name(collect_ability())));
    ret->json = j;
    return 0;
}

void facts_clear(struct facts *f)
{
    json_decref(f->json);
    f->json = NULL;
}
