/*
 * ACPI fixed hardware: PM1 event and control registers, PM timer, power button, and the reset
 * register.
 *
 * Port offsets from the base: 0 status (2), 2 enable (2), 4 control (2), 8 timer (4), 12 reset (1).
 *
 * Threads: ports are touched by vCPU threads, the button by any. acpi_pm.lock protects the state;
 * the SCI and the event sink are called with it held.
 */
#ifndef DEVICE_ACPI_PM_H
#define DEVICE_ACPI_PM_H

#include "device/event.h"
#include "device/irq.h"
#include "loop/timer.h"
#include "mem/aspace.h"

#define ACPI_PM_LEN 16
#define ACPI_PM_EVENT 0
#define ACPI_PM_CONTROL 4
#define ACPI_PM_TIMER 8
#define ACPI_PM_RESET 12
#define ACPI_PM_RESET_VALUE 6
#define ACPI_PM_TIMER_HZ 3579545ll
#define ACPI_PM_SLP_TYP_S5 5 /* what the DSDT's \_S5 says */

struct acpi_pm_state {
    u16 status, enable, control;
    s64 epoch_ns; /* when the timer was 0 (machine's monotonic clock) */
    s64 saved_ns; /* when it was saved (machine's monotonic clock): times move along on loading */
    u64 half;     /* half periods of the timer that were handled: bit 31 has changed so often */
};

struct acpi_pm {
    pthread_mutex_t lock;
    struct acpi_pm_state s;
    struct irq sci;
    struct event_sink sink;
    struct timerq *q;
    struct timer timer;
    struct io_region io;
};

void acpi_pm_init(struct acpi_pm *p, u16 base, struct timerq *q, struct irq sci,
                  struct event_sink sink);
void acpi_pm_fini(struct acpi_pm *p);
void acpi_pm_reset(struct acpi_pm *p);
int acpi_pm_map(struct acpi_pm *p, struct aspace *pio, struct err *err);
/* The user presses the power button: a guest that listens shuts down. Any thread. */
void acpi_pm_power_button(struct acpi_pm *p);
/* After the state was loaded. */
void acpi_pm_resume(struct acpi_pm *p);

#endif
