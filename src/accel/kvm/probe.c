/*
 * Does KVM work here? A /dev/kvm may be there and not be able to run a guest kernel: one without hardware behind it
 * emulates ring 0 and stops at instructions its emulator does not know. So a small guest (probe_guest.S) is run through
 * the modes and instructions a kernel needs; where it stops is the reason.
 *
 * A guest that hangs is ended by a timer's signal, repeated so that it cannot fall between two entries unseen.
 * Runs in one thread, before the machine is made; leaves nothing behind.
 */
#include "accel/kvm/kvm.h"
#include "accel/kvm/probe_guest.h"
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS 20000000l
#define TICKS_MAX 50 /* one second: a loaded host is slow, but not that slow */
#define CPUID_ENTRIES 256

static const char *const stage_names[] = {
    [STAGE_START] = "the first instruction",
    [STAGE_REAL] = "real mode",
    [STAGE_PROTECTED] = "the switch to protected mode",
    [STAGE_INT3_32] = "int3 in 32-bit protected mode",
    [STAGE_LONG] = "the switch to long mode",
    [STAGE_INT3_64] = "int3 in ring 0",
    [STAGE_IRETQ] = "iretq in ring 0",
    [STAGE_FXSAVE] = "fxsave or fxrstor in ring 0",
    [STAGE_SSE] = "SSE instructions in ring 0",
    [STAGE_XSETBV] = "xsetbv",
    [STAGE_XSAVE] = "xsave in ring 0",
    [STAGE_XRSTOR] = "xrstor in ring 0",
    [STAGE_CMPXCHG16B] = "cmpxchg16b in ring 0",
    [STAGE_SWAPGS] = "swapgs",
    [STAGE_INVLPG] = "invlpg or a write to cr3",
    [STAGE_MMIO] = "memory-mapped I/O",
    [STAGE_RING3] = "sysret to ring 3 and syscall back",
};

extern const u8 probe_guest[], probe_guest_end[], probe_int3_32[], probe_int3_64[];

struct probe {
    int kvm_fd, vm_fd, vcpu_fd;
    u8 *ram;
    struct kvm_run *run;
    size_t run_bytes;
    timer_t timer;
    bool has_timer;
    unsigned ticks, stage;
    bool wrong; /* the guest found a result that is not right */
};

static void put64(struct probe *p, u32 at, u64 value)
{
    memcpy(p->ram + at, &value, 8);
}

/* The guest's code, the first 4 MiB mapped by two large pages, and a gate for int3 in each IDT. */
static void lay_out(struct probe *p)
{
    u64 int3_32 = (u64)(probe_int3_32 - probe_guest) + PROBE_BASE;
    u64 int3_64 = (u64)(probe_int3_64 - probe_guest) + PROBE_BASE;

    memcpy(p->ram + PROBE_BASE, probe_guest, (size_t)(probe_guest_end - probe_guest));
    put64(p, PROBE_PML4, PROBE_PDPT | 7);
    put64(p, PROBE_PDPT, PROBE_PD | 7);
    put64(p, PROBE_PD, 0x87);
    put64(p, PROBE_PD + 8, 0x200087);
    put64(p, PROBE_IDT_32 + VEC_BP * 8, int3_32 | 0x08 << 16 | 0x8eull << 40);
    put64(p, PROBE_IDT_64 + VEC_BP * 16, int3_64 | 0x18 << 16 | 0x8eull << 40);
}

static int set_cpuid(struct probe *p)
{
    auto_free struct kvm_cpuid2 *list =
        calloc(1, sizeof(*list) + CPUID_ENTRIES * sizeof(list->entries[0]));
    int rc;

    if (!list)
        return -ENOMEM;
    list->nent = CPUID_ENTRIES;
    rc = kvm_ioctl(p->kvm_fd, KVM_GET_SUPPORTED_CPUID, list);
    return rc < 0 ? rc : kvm_ioctl(p->vcpu_fd, KVM_SET_CPUID2, list);
}

static int set_start(struct probe *p)
{
    struct kvm_regs regs = {.rip = PROBE_BASE, .rflags = 2, .rsp = PROBE_STACK};
    struct kvm_sregs sregs;
    int rc = kvm_ioctl(p->vcpu_fd, KVM_GET_SREGS, &sregs);

    if (rc < 0)
        return rc;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    rc = kvm_ioctl(p->vcpu_fd, KVM_SET_SREGS, &sregs);
    return rc < 0 ? rc : kvm_ioctl(p->vcpu_fd, KVM_SET_REGS, &regs);
}

static int make_vcpu(struct probe *p, struct err *err)
{
    int rc;

    p->vcpu_fd = kvm_ioctl(p->vm_fd, KVM_CREATE_VCPU, NULL);
    if (p->vcpu_fd < 0)
        return err_sys(err, -p->vcpu_fd, "/dev/kvm cannot make a processor");
    rc = kvm_ioctl(p->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    if (rc < 0)
        return err_sys(err, -rc, "/dev/kvm");
    p->run_bytes = (size_t)rc;
    p->run = mmap(NULL, p->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu_fd, 0);
    if (p->run == MAP_FAILED) {
        p->run = NULL;
        return err_sys(err, errno, "/dev/kvm: a processor's shared memory");
    }
    rc = set_cpuid(p);
    if (rc >= 0)
        rc = set_start(p);
    return rc < 0 ? err_sys(err, -rc, "/dev/kvm refuses a processor's state") : 0;
}

static int make_machine(struct probe *p, struct err *err)
{
    struct kvm_userspace_memory_region region = {.memory_size = PROBE_RAM_BYTES};
    int rc = kvm_open(&p->kvm_fd, err);

    if (rc)
        return rc;
    p->vm_fd = kvm_ioctl(p->kvm_fd, KVM_CREATE_VM, NULL);
    if (p->vm_fd < 0)
        return err_sys(err, -p->vm_fd, "/dev/kvm cannot make a machine");
    p->ram =
        mmap(NULL, PROBE_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->ram == MAP_FAILED) {
        p->ram = NULL;
        return err_sys(err, errno, "memory for the KVM probe");
    }
    lay_out(p);
    region.userspace_addr = (u64)(uintptr_t)p->ram;
    rc = kvm_ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
    if (rc < 0)
        return err_sys(err, -rc, "/dev/kvm: memory");
    rc = kvm_ioctl(p->vm_fd, KVM_SET_TSS_ADDR, (void *)0xfeffd000ul);
    if (rc >= 0)
        rc = kvm_ioctl(p->vm_fd, KVM_CREATE_IRQCHIP, NULL);
    if (rc < 0)
        return err_sys(err, -rc, "/dev/kvm: interrupt controllers");
    return make_vcpu(p, err);
}

static int start_timer(struct probe *p, struct err *err)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KVM_KICK_SIGNAL};
    struct itimerspec every = {.it_value = {.tv_nsec = TICK_NS},
                               .it_interval = {.tv_nsec = TICK_NS}};

    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &event, &p->timer))
        return err_sys(err, errno, "timer for the KVM probe");
    p->has_timer = true;
    if (timer_settime(p->timer, 0, &every, NULL))
        return err_sys(err, errno, "timer for the KVM probe");
    return 0;
}

static void on_tick(int signal)
{
}

static void serve_port(struct probe *p)
{
    const u8 *data = (const u8 *)p->run + p->run->io.data_offset;

    if (p->run->io.direction != KVM_EXIT_IO_OUT)
        return;
    if (p->run->io.port == 0x80)
        p->stage = data[0];
    else
        p->wrong = true;
}

static void serve_memory(struct probe *p)
{
    u32 value = PROBE_MMIO_VALUE;

    if (!p->run->mmio.is_write)
        memcpy(p->run->mmio.data, &value, MIN(p->run->mmio.len, sizeof(value)));
}

static int stopped(struct probe *p, const char *how, struct err *err)
{
    const char *where =
        p->stage < ARRAY_LEN(stage_names) ? stage_names[p->stage] : "an unknown place";

    return err_set(err, ENOTSUP, "/dev/kvm is a software KVM that %s %s", how, where);
}

/* 1: go on; 0: the guest has come to its end; else -errno. */
static int step(struct probe *p, struct err *err)
{
    if (ioctl(p->vcpu_fd, KVM_RUN, 0)) {
        if (errno != EINTR && errno != EAGAIN)
            return err_sys(err, errno, "/dev/kvm cannot run a processor");
        return ++p->ticks < TICKS_MAX ? 1 : stopped(p, "hangs at", err);
    }
    switch (p->run->exit_reason) {
    case KVM_EXIT_IO:
        serve_port(p);
        if (p->wrong)
            return stopped(p, "computes wrongly at", err);
        return p->stage != STAGE_DONE;
    case KVM_EXIT_MMIO:
        serve_memory(p);
        return 1;
    case KVM_EXIT_INTR:
        return 1;
    case KVM_EXIT_SHUTDOWN:
        return stopped(p, "ends in a triple fault at", err);
    default:
        return stopped(p, "stops at", err);
    }
}

static int run(struct probe *p, struct err *err)
{
    int rc = make_machine(p, err);

    if (!rc)
        rc = start_timer(p, err);
    if (rc)
        return rc;
    do
        rc = step(p, err);
    while (rc > 0);
    return rc;
}

static void fini(struct probe *p)
{
    if (p->has_timer)
        timer_delete(p->timer);
    if (p->run)
        munmap(p->run, p->run_bytes);
    if (p->ram)
        munmap(p->ram, PROBE_RAM_BYTES);
    if (p->vcpu_fd >= 0)
        close(p->vcpu_fd);
    if (p->vm_fd >= 0)
        close(p->vm_fd);
    if (p->kvm_fd >= 0)
        close(p->kvm_fd);
}

int kvm_probe(struct err *err)
{
    struct probe p = {.kvm_fd = -1, .vm_fd = -1, .vcpu_fd = -1};
    struct sigaction action = {.sa_handler = on_tick}, old;
    sigset_t unblock, old_mask;
    int rc;

    sigemptyset(&unblock);
    sigaddset(&unblock, KVM_KICK_SIGNAL);
    if (sigaction(KVM_KICK_SIGNAL, &action, &old))
        return err_sys(err, errno, "signal handler for the KVM probe");
    pthread_sigmask(SIG_UNBLOCK, &unblock, &old_mask);
    rc = run(&p, err);
    fini(&p);
    pthread_sigmask(SIG_SETMASK, &old_mask, NULL);
    sigaction(KVM_KICK_SIGNAL, &old, NULL);
    return rc;
}
