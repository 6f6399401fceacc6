/* Private to the KVM accelerator: its objects, and what its files ask of each other. */
#ifndef ACCEL_KVM_KVM_H
#define ACCEL_KVM_KVM_H

#include "accel/accel.h"
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

/* Sent to a vCPU's thread to bring it out of the kernel; its handler does nothing. */
#define KVM_KICK_SIGNAL SIGUSR1

struct accel {
    struct accel_machine *m;
    int kvm_fd, vm_fd;
    size_t run_bytes; /* of each vCPU's shared page */
    bool has_tsc_offset;
    u32 slot_flags;      /* for every RAM slot: KVM_MEM_LOG_DIRTY_PAGES while writes are tracked */
    bool manual_protect; /* the dirty log is read and re-armed in two steps */
    struct vcpu **vcpu;  /* those there are, by index; changes only while none runs */
    struct absent *absent; /* absent.c; NULL: this host cannot */
    atomic_int lost;       /* the errno that made a page impossible to have, or 0 */
};

struct vcpu {
    struct accel *accel;
    unsigned index;
    int fd;
    struct kvm_run *run;
    atomic_uint events; /* enum vcpu_event, not yet seen by vcpu_run */
    bool
        io_unfinished; /* KVM must be entered once more before the state is at an instruction boundary */
    pthread_mutex_t lock; /* protects attached, thread */
    bool attached;
    pthread_t thread;
};

/* ioctl() that restarts when a signal comes; -errno on failure. */
int kvm_ioctl(int fd, unsigned long request, void *arg);
/* Opens /dev/kvm and checks the version and the capabilities without which there is no machine. */
int kvm_open(int *ret_fd, struct err *err);
/* (Re-)registers all of the guest's memory with a->slot_flags. */
int kvm_set_slots(struct accel *a, struct err *err);

int kvm_vcpu_new(struct accel *a, unsigned index, struct vcpu **ret_vcpu, struct err *err);
void kvm_vcpu_free(struct vcpu *v);
int kvm_vcpu_attach(struct vcpu *v, struct err *err);
enum vcpu_exit kvm_vcpu_run(struct vcpu *v, struct err *err);
void kvm_vcpu_event(struct vcpu *v, u32 events);

/* Tells KVM the model's CPUID leaves, with KVM's own paravirtual ones, as vCPU `index` sees them. */
int kvm_set_cpuid(struct vcpu *v, struct err *err);

int kvm_vcpu_get(struct vcpu *v, struct x86_cpu *ret_state, struct err *err);
int kvm_vcpu_set(struct vcpu *v, const struct x86_cpu *state, struct err *err);
int kvm_get_msrs(struct vcpu *v, struct x86_cpu *c, struct err *err);
int kvm_set_msrs(struct vcpu *v, const struct x86_cpu *c, struct err *err);
void kvm_clock_paused(struct vcpu *v);

/* Does the instruction that KVM gave up on, if it is one of a few that are known. 0: go on with the guest. */
int kvm_complete(struct vcpu *v);

int kvm_probe(struct err *err);

int kvm_irqchip_get(struct accel *a, struct x86_irqchip *ret_state, struct err *err);
int kvm_irqchip_set(struct accel *a, const struct x86_irqchip *state, struct err *err);

/* What the machine's memory asks: dirty.c, and absent.c, which starts threads. */
extern const struct gmem_accel kvm_gmem_accel;
int kvm_dirty_sync(void *opaque, bool on, struct err *err);
int kvm_absent_begin(void *opaque, struct err *err);
void kvm_absent_end(void *opaque);
int kvm_absent_place(void *opaque, u64 page, const void *bytes4096);
/* Leaves a->absent NULL where the host has no userfaultfd for us. */
void kvm_absent_init(struct accel *a);
void kvm_absent_fini(struct accel *a);

#endif
