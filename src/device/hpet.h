/*
 * The high precision event timer: a 64-bit counter at 100 MHz and three comparators.
 *
 * Threads: registers are touched by vCPU threads; interrupts come from the thread of the timer queue. hpet.lock
 * protects the state; lines and legacy() are called with it held.
 */
#ifndef DEVICE_HPET_H
#define DEVICE_HPET_H

#include "device/irq.h"
#include "loop/timer.h"
#include "mem/aspace.h"

#define HPET_TIMERS 3
#define HPET_LEN 0x400
#define HPET_TICK_NS 10
/* Low half of the capabilities: 64 bits, three timers, legacy replacement; also in the ACPI table. */
#define HPET_ID 0x8086a201u

struct hpet_state {
    u64 config, status;
    u64 counter;  /* when stopped; when running, its value at start_ns */
    s64 start_ns; /* machine's monotonic clock */
    s64 saved_ns; /* when it was saved (machine's monotonic clock): times move along on loading */
    u64 timer_config[HPET_TIMERS], comparator[HPET_TIMERS], period[HPET_TIMERS];
};

struct hpet;

struct hpet_timer {
    struct hpet *h;
    struct timer timer;
};

struct hpet {
    pthread_mutex_t lock;
    struct hpet_state s;
    struct irq irq; /* of pin 0; the others are its pins 1, 2, ... : 0-15 ISA, 16-23 PCI */
    /* In legacy replacement mode timers 0 and 1 take the interrupts of PIT and RTC, which are to be silent. */
    void (*legacy)(void *opaque, bool on);
    void *legacy_opaque;
    struct timerq *q;
    struct hpet_timer timer[HPET_TIMERS];
    struct io_region mmio;
};

void hpet_init(struct hpet *h, u64 gpa, struct timerq *q, struct irq irq);
void hpet_fini(struct hpet *h);
void hpet_reset(struct hpet *h);
int hpet_map(struct hpet *h, struct aspace *mmio, struct err *err);
/* After the state was loaded: arms the timers. */
void hpet_resume(struct hpet *h);

#endif
