/*
 * Accelerators: who executes the guest's instructions. Two implement this table: `bt`, the binary translator,
 * and `kvm`. Port and memory I/O are calls from the accelerator into the machine's address spaces, never exits,
 * so no instruction is ever seen half done.
 *
 * Threads: vcpu_run() and the state calls belong to the vCPU's own thread; vcpu_kick(), irq_line() and msi() may
 * be called from any thread.
 */
#ifndef ACCEL_ACCEL_H
#define ACCEL_ACCEL_H

#include "base/err.h"
#include "mem/aspace.h"
#include "mem/gmem.h"
#include "x86/cpu.h"
#include "x86/cpuid.h"
#include "x86/irqchip.h"

/* The machine's side of an interrupt controller that lives in the VMM (accelerators without ACCEL_IRQCHIP). */
struct accel_intc {
    /* Is an interrupt waiting that this cpu's controller would deliver now (priority above TPR)? Cheap; any thread. */
    bool (*pending)(void *opaque, unsigned cpu);
    /* Acknowledges it and returns its vector, or -1 when it has gone (then nothing is delivered). */
    int (*acknowledge)(void *opaque, unsigned cpu);
    u64 (*get_tpr)(void *opaque, unsigned cpu);           /* CR8, 0..15 */
    void (*set_tpr)(void *opaque, unsigned cpu, u64 cr8);
    /* MSRs 0x1b (APIC base), 0x6e0 (TSC deadline) and 0x800-0x8ff (x2APIC). false: the access raises #GP. */
    bool (*read_msr)(void *opaque, unsigned cpu, u32 msr, u64 *ret_value);
    bool (*write_msr)(void *opaque, unsigned cpu, u32 msr, u64 value);
    /* Taken by the accelerator when it sees vcpu_event() flags: INIT and start-up messages. The vector of a pending
     * SIPI, or -1. */
    int (*take_sipi)(void *opaque, unsigned cpu);
    /* The guest has set its TSC: it is host TSC + offset from now on. TSC deadlines move along. */
    void (*tsc_moved)(void *opaque, unsigned cpu, s64 offset);
    void *opaque;
};

/* Everything an accelerator needs to know of the machine it drives. Owned by the machine, outlives the accelerator. */
struct accel_machine {
    struct gmem *ram;
    struct aspace *mmio, *pio;
    const struct cpu_model *model;
    unsigned cpus;
    struct accel_intc intc;
    const char *name; /* for messages */
    /* A thread of the accelerator's own calls this first: it locks itself in. NULL: it need not. */
    int (*enter_thread)(void *opaque, struct err *err);
    void *enter_opaque;
};

/* Asynchronous requests to a vCPU, combined as bits in vcpu_event(). */
enum vcpu_event {
    VCPU_EV_INTR = 1, /* look at intc.pending() again */
    VCPU_EV_NMI = 2,
    VCPU_EV_INIT = 4,
    VCPU_EV_SIPI = 8,
    VCPU_EV_STOP = 16, /* make vcpu_run() return VCPU_STOPPED */
};

enum vcpu_exit {
    VCPU_STOPPED,  /* VCPU_EV_STOP was seen; state is at an instruction boundary */
    VCPU_SHUTDOWN, /* triple fault */
    VCPU_FAILED,   /* *err says why: the host or the accelerator failed */
};

enum accel_caps { ACCEL_IRQCHIP = 1 /* PIC, I/O APIC, local APICs and PIT live in the accelerator */ };

struct vcpu; /* the accelerator's own */
struct accel;

struct accel_ops {
    const char *name;
    const char *summary; /* one line for `trapeze accel` */
    u32 caps;
    /* Does it work here? 0, or -errno with the reason. Must be honest and quick (tens of milliseconds). */
    int (*probe)(struct err *err);
    int (*new)(struct accel_machine *m, struct accel **ret_accel, struct err *err);
    void (*free)(struct accel *a);
    int (*vcpu_new)(struct accel *a, unsigned index, struct vcpu **ret_vcpu, struct err *err);
    void (*vcpu_free)(struct vcpu *v);
    /* Called once in the thread that will run it, before the first vcpu_run. */
    int (*vcpu_attach)(struct vcpu *v, struct err *err);
    /* Maybe called after it in the same thread, while the machine is still being made: what makes the first run quicker. May
     * be NULL. */
    void (*vcpu_warm)(struct vcpu *v);
    enum vcpu_exit (*vcpu_run)(struct vcpu *v, struct err *err);
    void (*vcpu_event)(struct vcpu *v, u32 events); /* any thread; wakes a halted or running vCPU */
    int (*vcpu_get)(struct vcpu *v, struct x86_cpu *ret_state, struct err *err);
    int (*vcpu_set)(struct vcpu *v, const struct x86_cpu *state, struct err *err);
    /* Timers that fire in the vCPU's own thread (its local APIC's). NULL with ACCEL_IRQCHIP. */
    struct timerq *(*vcpu_timers)(struct vcpu *v);
    /* With ACCEL_IRQCHIP only: */
    void (*irq_line)(struct accel *a, unsigned gsi, bool level);
    void (*msi)(struct accel *a, u64 addr, u32 data);
    /* The controllers' registers; any thread, all vCPUs stopped. Set after the vCPUs' state. */
    int (*irqchip_get)(struct accel *a, struct x86_irqchip *ret_state, struct err *err);
    int (*irqchip_set)(struct accel *a, const struct x86_irqchip *state, struct err *err);
};

extern const struct accel_ops accel_bt, accel_kvm;
extern const struct accel_ops *const accel_list[]; /* in order of preference, NULL at the end */

/* `name` is "auto", "bt" or "kvm". auto: the first whose probe succeeds; ret_why gets one line that says why. */
int accel_choose(const char *name, const struct accel_ops **ret_ops, char *ret_why, size_t why_len, struct err *err);

#endif
