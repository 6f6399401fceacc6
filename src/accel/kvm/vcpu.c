/*
 * One processor under KVM: its thread's loop around KVM_RUN, the exits that are port and memory I/O, and the requests
 * that other threads send it.
 *
 * No request is lost (invariant): a requester sets `events`, then run->immediate_exit, then signals. The loop clears
 * immediate_exit before it reads `events`; so a request that it has not seen makes the next KVM_RUN return at once,
 * wherever the signal falls.
 *
 * Threads: all belongs to the vCPU's own thread, except kvm_vcpu_event().
 */
#include "accel/kvm/kvm.h"
#include "accel/trace.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum step { STEP_AGAIN, STEP_SHUTDOWN, STEP_FAILED };

int kvm_vcpu_new(struct accel *a, unsigned index, struct vcpu **ret_vcpu, struct err *err)
{
    struct vcpu *v = calloc(1, sizeof(*v));
    int rc = 0;

    if (!v)
        return err_sys(err, ENOMEM, "kvm: cpu%u", index);
    v->accel = a;
    v->index = index;
    pthread_mutex_init(&v->lock, NULL);
    v->fd = kvm_ioctl(a->vm_fd, KVM_CREATE_VCPU, (void *)(long)index);
    if (v->fd < 0)
        rc = err_sys(err, -v->fd, "kvm: cpu%u", index);
    if (!rc) {
        v->run = mmap(NULL, a->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
        if (v->run == MAP_FAILED) {
            v->run = NULL;
            rc = err_sys(err, errno, "kvm: cpu%u: shared memory", index);
        }
    }
    if (!rc)
        rc = kvm_set_cpuid(v, err);
    if (rc) {
        kvm_vcpu_free(v);
        return rc;
    }
    a->vcpu[index] = v;
    *ret_vcpu = v;
    return 0;
}

void kvm_vcpu_free(struct vcpu *v)
{
    if (!v)
        return;
    if (v->accel->vcpu[v->index] == v)
        v->accel->vcpu[v->index] = NULL;
    if (v->run)
        munmap(v->run, v->accel->run_bytes);
    if (v->fd >= 0)
        close(v->fd);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

int kvm_vcpu_attach(struct vcpu *v, struct err *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, KVM_KICK_SIGNAL);
    if (pthread_sigmask(SIG_UNBLOCK, &set, NULL))
        return err_sys(err, EINVAL, "kvm: cpu%u: signal mask", v->index);
    pthread_mutex_lock(&v->lock);
    v->thread = pthread_self();
    v->attached = true;
    pthread_mutex_unlock(&v->lock);
    return 0;
}

void kvm_vcpu_event(struct vcpu *v, u32 events)
{
    atomic_fetch_or(&v->events, events);
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&v->lock);
    if (v->attached && !pthread_equal(v->thread, pthread_self()))
        pthread_kill(v->thread, KVM_KICK_SIGNAL);
    pthread_mutex_unlock(&v->lock);
}

static void port_io(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    u8 *data = (u8 *)run + run->io.data_offset;

    for (u32 i = 0; i < run->io.count; i++, data += run->io.size) {
        u64 value = 0;

        if (run->io.direction == KVM_EXIT_IO_IN) {
            value = aspace_read(v->accel->m->pio, run->io.port, run->io.size);
            memcpy(data, &value, run->io.size);
        } else {
            memcpy(&value, data, run->io.size);
            aspace_write(v->accel->m->pio, run->io.port, run->io.size, value);
        }
    }
}

/* KVM hands over up to 8 bytes as they are in memory; a length that is no power of two goes byte by byte. */
static void memory_io(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    u32 len = MIN(run->mmio.len, sizeof(run->mmio.data));
    u32 size = len == 1 || len == 2 || len == 4 || len == 8 ? len : 1;

    for (u32 at = 0; at < len; at += size) {
        u64 value = 0;

        if (run->mmio.is_write) {
            memcpy(&value, run->mmio.data + at, size);
            aspace_write(v->accel->m->mmio, run->mmio.phys_addr + at, size, value);
        } else {
            value = aspace_read(v->accel->m->mmio, run->mmio.phys_addr + at, size);
            memcpy(run->mmio.data + at, &value, size);
        }
    }
}

/* "bytes 0f ae 2f" of an instruction KVM gave up on, when it says; else an empty string. */
static void describe_insn(const struct kvm_run *run, char *buf, size_t len)
{
    const u32 with_bytes = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    size_t n = 0;

    buf[0] = 0;
    if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION ||
        run->emulation_failure.ndata < 3 || !(run->emulation_failure.flags & with_bytes))
        return;
    n = (size_t)snprintf(buf, len, ", bytes");
    for (u32 i = 0; i < run->emulation_failure.insn_size && i < 15 && n < len; i++)
        n += (size_t)snprintf(buf + n, len - n, " %02x", run->emulation_failure.insn_bytes[i]);
}

static enum step internal_error(struct vcpu *v, struct err *err)
{
    struct kvm_regs regs = {0};
    char insn[80];

    kvm_ioctl(v->fd, KVM_GET_REGS, &regs);
    if (v->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
        int rc = kvm_complete(v);
        trace_accel_kvm_complete(v->index, regs.rip, rc);
        if (!rc)
            return STEP_AGAIN;
    }
    describe_insn(v->run, insn, sizeof(insn));
    if (v->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
        err_set(err, EIO, "kvm: cpu%u: KVM cannot execute the instruction at rip 0x%llx%s",
                v->index, regs.rip, insn);
    else
        err_set(err, EIO, "kvm: cpu%u: KVM's internal error %u at rip 0x%llx", v->index,
                v->run->internal.suberror, regs.rip);
    return STEP_FAILED;
}

static enum step handle_exit(struct vcpu *v, struct err *err)
{
    struct kvm_run *run = v->run;

    trace_accel_kvm_exit(v->index, run->exit_reason);
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        port_io(v);
        v->io_unfinished = true;
        return STEP_AGAIN;
    case KVM_EXIT_MMIO:
        memory_io(v);
        v->io_unfinished = true;
        return STEP_AGAIN;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return STEP_AGAIN;
    case KVM_EXIT_SHUTDOWN:
        return STEP_SHUTDOWN;
    case KVM_EXIT_INTERNAL_ERROR:
        return internal_error(v, err);
    case KVM_EXIT_FAIL_ENTRY:
        err_set(err, EIO, "kvm: cpu%u: the processor refuses the guest's state, reason 0x%llx",
                v->index, run->fail_entry.hardware_entry_failure_reason);
        return STEP_FAILED;
    default:
        err_set(err, EIO, "kvm: cpu%u: exit %u is not known here", v->index, run->exit_reason);
        return STEP_FAILED;
    }
}

/* Enters the guest once. */
static enum step enter(struct vcpu *v, struct err *err)
{
    int rc;

    rc = ioctl(v->fd, KVM_RUN, 0) ? -errno : 0;
    v->io_unfinished =
        false; /* entering completes what the last exit began, even if it returns at once */
    if (rc == -EINTR || rc == -EAGAIN)
        return STEP_AGAIN;
    if (rc) {
        err_sys(err, -rc, "kvm: cpu%u", v->index);
        return STEP_FAILED;
    }
    return handle_exit(v, err);
}

/* Brings a processor whose last exit was I/O to an instruction boundary, without running the guest. */
static enum step finish_io(struct vcpu *v, struct err *err)
{
    enum step step = STEP_AGAIN;

    while (v->io_unfinished && step == STEP_AGAIN) {
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        step = enter(v, err);
    }
    return step;
}

enum vcpu_exit kvm_vcpu_run(struct vcpu *v, struct err *err)
{
    enum step step = STEP_AGAIN;
    bool stop = false;

    while (step == STEP_AGAIN && !stop) {
        u32 events;

        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        events = atomic_exchange(&v->events, 0);
        if (events & VCPU_EV_NMI)
            kvm_ioctl(v->fd, KVM_NMI, NULL);
        stop = events & VCPU_EV_STOP;
        if (atomic_load(&v->accel->lost)) {
            err_sys(err, atomic_load(&v->accel->lost), "kvm: cpu%u: guest memory cannot be had",
                    v->index);
            return VCPU_FAILED;
        }
        step = stop ? finish_io(v, err) : enter(v, err);
    }
    switch (step) {
    case STEP_AGAIN:
        return VCPU_STOPPED;
    case STEP_SHUTDOWN:
        return VCPU_SHUTDOWN;
    case STEP_FAILED:
        break;
    }
    return VCPU_FAILED;
}
