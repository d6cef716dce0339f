#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "deploy/job.h"
#include "proto/base/clean.h"

/* A release with its libraries, one spare, and room for an agent's cache; a collection pack with its guests. */
static const uint64_t FREE_MIN_MIB = 512, COLLECT_MIN_MIB = 1024;
enum { CLOCK_MAX_MS = 60000 };

static bool glibc_older(const char *a, const char *b)
{
    char *a2, *b2;
    unsigned long major_a = strtoul(a, &a2, 10), major_b = strtoul(b, &b2, 10);
    if (*a2 != '.' || *b2 != '.')
        return true; /* not glibc at all */
    unsigned long minor_a = strtoul(a2 + 1, NULL, 10), minor_b = strtoul(b2 + 1, NULL, 10);
    return major_a < major_b || (major_a == major_b && minor_a < minor_b);
}

static uint64_t need_mib(const struct job *j)
{
    uint64_t need = 0;
    if (j->p->release && !job_fact_has(j, "have", j->p->release->pack.id))
        need += FREE_MIN_MIB;
    if (j->h->class->collect && !(j->p->collect && job_fact_has(j, "have", j->p->collect->id)))
        need += COLLECT_MIN_MIB;
    return need;
}

int check_fits(struct job *j)
{
    const struct host_class *c = j->h->class;
    struct utsname u;
    uname(&u);
    if (strcmp(job_fact(j, "arch"), u.machine) != 0)
        job_problem(j, "architecture", "deploy from a machine of that kind",
                    "is %s, this release is for %s", job_fact(j, "arch"), u.machine);
    if (j->p->release && glibc_older(job_fact(j, "glibc"), j->p->release->glibc))
        job_problem(j, "glibc", "upgrade the host, or build on a distribution as old as it",
                    "has %s%s, this release needs glibc %s",
                    job_fact(j, "glibc")[0] ? "glibc " : "no glibc", job_fact(j, "glibc"),
                    j->p->release->glibc);
    if (!strcmp(job_fact(j, "writable"), "no"))
        job_problem(j, "disk", "choose another data=, or give the user that folder",
                    "'%s' is not writable for '%s'", job_fact(j, "above"), j->h->user);
    if (job_fact(j, "in_way")[0])
        job_problem(j, "folder", "choose another data=", "'%s' is no folder",
                    job_fact(j, "in_way"));
    if (job_fact(j, "foreign")[0])
        job_problem(j, "folder", "choose a data= of its own, such as a new folder in this one",
                    "'%s' holds '%s', which no deploy made", j->data, job_fact(j, "foreign"));
    uint64_t free_mib = job_fact_u64(j, "free_kib") >> 10, need = need_mib(j);
    if (free_mib < need)
        job_problem(j, "disk", "free some space, or choose another data=",
                    "%llu MiB free under '%s', %llu needed", (unsigned long long)free_mib,
                    job_fact(j, "above"), (unsigned long long)need);
    if (c->cores > job_fact_u64(j, "cores"))
        job_problem(j, "cores", "lower cores= of its class",
                    "has %llu cores, its class asks for %llu",
                    (unsigned long long)job_fact_u64(j, "cores"), (unsigned long long)c->cores);
    if (c->memory_mib > job_fact_u64(j, "memory_kib") >> 10)
        job_problem(j, "memory", "lower memory= of its class",
                    "has %llu MiB, its class asks for %llu",
                    (unsigned long long)job_fact_u64(j, "memory_kib") >> 10,
                    (unsigned long long)c->memory_mib);
    return j->ret->status == PLACE_FAILED ? -j->ret->code : 0;
}

static void look_problems(struct job *j)
{
    bool collects = j->h->class->collect;
    const char *kvm = job_fact(j, "kvm");
    if (!strcmp(job_fact(j, "port"), "closed"))
        job_problem(j, "coordinator",
                    "start it (siofleet deploy coordinator, or siofleet coordinator --listen), and "
                    "open its port in the firewalls between",
                    "cannot connect to %s from there", j->p->hosts->coordinator);
    else if (!strcmp(job_fact(j, "bulk_port"), "closed"))
        job_note(j,
                 "warning: cannot connect to bulk_port %u of the coordinator from there: large "
                 "artefacts go over the slower link",
                 (unsigned)j->p->hosts->bulk_port);
    if (!strcmp(job_fact(j, "exec"), "no"))
        job_problem(j, "exec", "mount it without noexec, or choose another data=",
                    "'%s' is mounted noexec: no program of it would run", job_fact(j, "above"));
    if (collects && !strcmp(kvm, "denied"))
        job_problem(j, "kvm", "as root there: usermod -aG kvm USER, or a udev rule for /dev/kvm",
                    "user '%s' may not open /dev/kvm", j->h->user);
    else if (collects && !strcmp(kvm, "unusable"))
        job_note(j,
                 "warning: /dev/kvm opens, but runs no guest at speed: collections will use TCG");
    else if (collects && !strcmp(kvm, "absent"))
        job_note(j, "warning: no /dev/kvm: collections will use TCG (modprobe kvm_intel or "
                    "kvm_amd, or virtualisation in its firmware set-up)");
    if (collects && job_fact(j, "address_space")[0] &&
        strcmp(job_fact(j, "address_space"), "unlimited") != 0)
        job_problem(j, "qemu", "raise it in /etc/security/limits.conf (as unlimited)",
                    "a process may have only %s bytes of address space: QEMU would not start",
                    job_fact(j, "address_space"));
}

static void sudo_problem(struct job *j)
{
    const struct host_class *c = j->h->class;
    bool wanted = false;
    for (size_t i = 0; i < c->n_steps; i++)
        wanted |= c->steps[i].sudo;
    if (!wanted || !strcmp(job_fact(j, "uid"), "0"))
        return;
    const char *argv[] = { "sudo", "-n", "true", NULL };
    CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
    struct err e = { 0 };
    if (ssh_run(j->ssh, argv, NULL, NULL, j->p->timeout_ms, &res, &e) < 0)
        job_problem(j, "sudo", "", "%s", e.text);
    else if (res.status)
        job_problem(j, "sudo", "allow it in sudoers (NOPASSWD), or drop the steps with sudo=yes",
                    "'%s' cannot use sudo without a password", j->h->user);
}

int check_full(struct job *j)
{
    check_fits(j);
    long long offset = strtoll(job_fact(j, "clock_offset_ms"), NULL, 10);
    if (offset > CLOCK_MAX_MS || offset < -CLOCK_MAX_MS)
        job_problem(j, "clock", "set its clock (timedatectl set-ntp true)",
                    "its clock is %lld s off; times in results would mislead", offset / 1000);
    look_problems(j);
    sudo_problem(j);
    if (j->ret->status == PLACE_FAILED)
        return -j->ret->code;
    j->ret->step = "check";
    return 0;
}
