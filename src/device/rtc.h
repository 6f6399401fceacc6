/*
 * The MC146818 real-time clock with its CMOS memory, ports 0x70 and 0x71. It keeps UTC.
 *
 * Threads: ports are touched by vCPU threads; interrupts come from the thread of the timer queue.
 * rtc.lock protects the state; the line is called with it held.
 */
#ifndef DEVICE_RTC_H
#define DEVICE_RTC_H

#include "device/irq.h"
#include "loop/timer.h"
#include "mem/aspace.h"

#define RTC_CMOS 128

struct rtc_state {
    u8 cmos[RTC_CMOS]; /* clock registers included: 0-9 hold alarms and what was last set; time
                          itself is computed */
    u8 index;
    s64 offset_s; /* the guest's clock - the host's wall clock */
    s64 next_ns;  /* next periodic interrupt (machine's monotonic clock), TIMER_NEVER: none */
    s64 last_s;   /* the second whose update and alarm were handled last */
    s64 saved_ns; /* when it was saved (machine's monotonic clock): times move along on loading */
    u8 disabled;  /* another timer has taken interrupt 8 (HPET, legacy replacement) */
};

struct rtc {
    pthread_mutex_t lock;
    struct rtc_state s;
    struct irq irq;
    struct timerq *q;
    struct timer timer;
    s64 (*wall_ns)(void *opaque); /* UTC in ns since 1970; tests step it. NULL: the host's clock */
    void *wall_opaque;
    struct io_region io;
};

void rtc_init(struct rtc *r, struct timerq *q, struct irq irq);
void rtc_fini(struct rtc *r);
/* The clock goes on, CMOS memory stays, interrupts are off. */
void rtc_reset(struct rtc *r);
int rtc_map(struct rtc *r, struct aspace *pio, struct err *err);
/* Fills in what a PC's firmware would have stored: memory sizes and number of processors. */
void rtc_set_memory(struct rtc *r, u64 below_4g, u64 above_4g, unsigned cpus);
/* Off: interrupts are noted in register C but do not reach the line. */
void rtc_enable_irq(struct rtc *r, bool on);
/* After the state was loaded: arms the timer. */
void rtc_resume(struct rtc *r);

#endif
