/*
 * Local APICs and the bus between them: where every interrupt of the machine ends, and how
 * processors interrupt each other. Intel SDM 3A, chapter 10 (APIC); section numbers in the code are
 * of that chapter.
 *
 * One `struct lapic_bus` holds the local APICs of all processors; APIC id == index of the
 * processor.
 *
 * Threads: register and MSR access, acknowledge and the timer belong to the vCPU's own thread;
 * messages (IPIs, MSIs, I/O APIC) come from any thread. lapic.lock protects the state; `ready` is
 * what a hot path may poll without it. Lock order: device, then PIC or I/O APIC, then lapic. A
 * lapic never calls the PIC or the I/O APIC under its lock.
 */
#ifndef DEVICE_LAPIC_H
#define DEVICE_LAPIC_H

#include "device/kick.h"
#include "loop/timer.h"
#include "mem/aspace.h"
#include <pthread.h>
#include <stdatomic.h>

#define LAPIC_CPUS 32
#define LAPIC_BASE 0xfee00000ull
#define LAPIC_LEN 0x1000ull

enum lapic_lvt {
    LVT_TIMER,
    LVT_THERMAL,
    LVT_PERF,
    LVT_LINT0,
    LVT_LINT1,
    LVT_ERROR,
    LAPIC_LVTS,
};

enum lapic_mode {
    LAPIC_FIXED = 0,
    LAPIC_LOWEST = 1,
    LAPIC_SMI = 2,
    LAPIC_NMI = 4,
    LAPIC_INIT = 5,
    LAPIC_SIPI = 6,
    LAPIC_EXTINT = 7,
};

/* Guest-visible state of one local APIC. */
struct lapic_state {
    u64 apic_base; /* IA32_APIC_BASE */
    u64 icr;
    s64 saved_ns; /* when it was saved (machine's monotonic clock): times move along on loading */
    u64 tsc_deadline; /* in guest TSC ticks, 0: not armed */
    s64 timer_ns;     /* one-shot and periodic: when it expires, TIMER_NEVER: stopped. Machine's
                         monotonic clock */
    s64 tsc_offset;   /* guest TSC - host TSC, as the processor told us */
    u32 tpr, ldr, dfr, svr, esr, esr_new;
    u32 lvt[LAPIC_LVTS];
    u32 timer_count, timer_divide;
    u32 irr[8], isr[8], tmr[8];
    u32 extint; /* level of the PIC's output at LINT0 */
    s32 sipi;   /* vector of a start-up message that nobody took yet, or -1 */
};

struct lapic_bus;

struct lapic {
    pthread_mutex_t lock;
    struct lapic_state s; /* protected by lock */
    atomic_uint ready;    /* enum lapic_ready bits, derived from s */
    unsigned cpu;
    struct lapic_bus *bus;
    struct timer timer;
    bool has_timer;
};

enum lapic_ready { LAPIC_READY_FIXED = 1, LAPIC_READY_EXTINT = 2 };

struct lapic_bus {
    unsigned cpus;
    u32 tsc_khz;
    struct cpu_kicker kicker;
    void (*eoi)(
        void *opaque,
        u8 vector); /* end of a level-triggered interrupt: the I/O APIC listens; may be NULL */
    void *eoi_opaque;
    int (*pic_ack)(void *opaque); /* vector from the 8259s; may be NULL */
    void *pic_opaque;
    u64 (*host_tsc)(void *opaque); /* NULL: the host's own; tests put a stepped one here */
    void *host_tsc_opaque;
    atomic_uint rotate; /* where the search for the lowest priority starts */
    struct io_region mmio;
    struct lapic cpu[LAPIC_CPUS];
};

/* A message on the bus. */
struct lapic_msg {
    u32 dest; /* APIC id or logical destination */
    u8 mode;  /* enum lapic_mode */
    u8 vector;
    bool logical; /* dest is a logical destination */
    bool wide;    /* dest has 32 bits (x2APIC); else 8, and 0xff is everybody */
    bool level;   /* level-triggered: ends with a message to the I/O APIC */
};

/* cpus: 1..LAPIC_CPUS. All are in power-on state; timers do nothing until lapic_set_timers(). */
void lapic_bus_init(struct lapic_bus *bus, unsigned cpus, u32 tsc_khz);
void lapic_bus_fini(struct lapic_bus *bus);
void lapic_bus_reset(struct lapic_bus *bus);
/* The registers at LAPIC_BASE; they are those of the thread's processor, see
 * lapic_set_thread_cpu(). */
int lapic_bus_map(struct lapic_bus *bus, struct aspace *mmio, struct err *err);
/* The queue of the vCPU's own thread. Before the vCPU runs. */
void lapic_set_timers(struct lapic_bus *bus, unsigned cpu, struct timerq *q);
/* Says which processor the calling thread runs; memory-mapped accesses in it go to that one's local
 * APIC. */
void lapic_set_thread_cpu(unsigned cpu);

/* Delivers to every destination that matches; true when at least one accepted it. Any thread. */
bool lapic_bus_deliver(struct lapic_bus *bus, const struct lapic_msg *m);
/* A write of data to addr in [0xfee00000, 0xfef00000), 10.11. Any thread. */
void lapic_bus_msi(struct lapic_bus *bus, u64 addr, u32 data);
/* The PIC's output, wired to LINT0 of the first processor. Any thread. */
void lapic_bus_extint(struct lapic_bus *bus, bool level);
/* LINT1 of all processors: a non-maskable interrupt where the guest has set it up so. Any thread.
 */
void lapic_bus_nmi(struct lapic_bus *bus);

/* Hot: is there an interrupt that the processor would take if RFLAGS.IF is set? */
static inline bool lapic_pending(const struct lapic_bus *bus, unsigned cpu)
{
    return atomic_load_explicit(&bus->cpu[cpu].ready, memory_order_acquire) != 0;
}

/* Takes the interrupt and returns its vector, or -1 when there is none any more. */
int lapic_acknowledge(struct lapic_bus *bus, unsigned cpu);
u64 lapic_get_cr8(struct lapic_bus *bus, unsigned cpu);
void lapic_set_cr8(struct lapic_bus *bus, unsigned cpu, u64 cr8);
/* IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC registers. false: #GP. */
bool lapic_read_msr(struct lapic_bus *bus, unsigned cpu, u32 msr, u64 *ret_value);
bool lapic_write_msr(struct lapic_bus *bus, unsigned cpu, u32 msr, u64 value);
/* The pending start-up vector, or -1; taking it clears it. */
int lapic_take_sipi(struct lapic_bus *bus, unsigned cpu);
/* The guest's TSC has become host TSC + offset: a deadline that is set moves along. */
void lapic_set_tsc_offset(struct lapic_bus *bus, unsigned cpu, s64 offset);
/* After the state was loaded from a snapshot: derives what is derived and arms the timer. */
void lapic_resume(struct lapic_bus *bus, unsigned cpu);

#endif
