/* A functional probe: see kvm.h. The child uses system calls only, so that a threaded caller may
 * fork it. */
#include "collect/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"

enum { GUEST_MEM = 64 * 1024, LIMIT_MS = 500 };

/* mov ecx, 0x400000; again: dec ecx; jnz again; out 0x10, al; hlt */
static const uint8_t guest_code[] = { 0x66, 0xb9, 0x00, 0x00, 0x40, 0x00, 0x66,
                                      0x49, 0x75, 0xfc, 0xe6, 0x10, 0xf4 };

static void on_alarm(int sig)
{
    (void)sig;
}

static int probe(void)
{
    CLEANUP(closep) int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0 || ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return 0;
    CLEANUP(closep) int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        return 0;
    uint8_t *mem = mmap(NULL, GUEST_MEM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED)
        return 0;
    memcpy(mem + 0x1000, guest_code, sizeof(guest_code));
    struct kvm_userspace_memory_region region = { .guest_phys_addr = 0,
                                                  .memory_size = GUEST_MEM,
                                                  .userspace_addr = (uintptr_t)mem };
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return 0;
    CLEANUP(closep) int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (cpu < 0 || run_size < (int)sizeof(struct kvm_run))
        return 0;
    struct kvm_run *run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    struct kvm_sregs sregs;
    if (run == MAP_FAILED || ioctl(cpu, KVM_GET_SREGS, &sregs) < 0)
        return 0;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
    if (ioctl(cpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(cpu, KVM_SET_REGS, &regs) < 0)
        return 0;

    /* no SA_RESTART: the timer must break KVM_RUN; it repeats, should it hit just before */
    struct sigaction sa = { .sa_handler = on_alarm };
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaction(SIGALRM, &sa, NULL);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    struct itimerval t = { { 0, LIMIT_MS * 1000 }, { 0, LIMIT_MS * 1000 } };
    setitimer(ITIMER_REAL, &t, NULL);
    return ioctl(cpu, KVM_RUN, 0) == 0 && run->exit_reason == KVM_EXIT_IO;
}

int kvm_usable(void)
{
    if (access("/dev/kvm", R_OK | W_OK) < 0)
        return 0;
    pid_t pid = fork();
    if (pid < 0)
        return 0;
    if (pid == 0)
        _exit(probe() ? 0 : 1);
    uint64_t end = clock_mono_ms() + 2000;
    int status;
    for (;;) {
        pid_t r = waitpid(pid, &status, WNOHANG);
        if (r == pid)
            return WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (r < 0 && errno != EINTR)
            return 0; /* somebody reaps all children: unknown counts as unusable */
        if (clock_mono_ms() > end)
            kill(pid, SIGKILL);
        usleep(2000);
    }
}
