/*
 * ACPI fixed hardware. ACPI 6.4, 4.8.3 (PM1), 4.8.3.3 (PM timer), 4.8.3.6 (reset register).
 *
 * The PM timer is the machine's monotonic clock at 3.579545 MHz, 32 bits wide. Its status bit, set
 * whenever bit 31 changes, is only timed while the guest has enabled it.
 *
 * ACPI mode is always on (SCI_EN is fixed): the FADT has no SMI command port.
 *
 * Threads: see acpi_pm.h.
 */
#include "device/acpi_pm.h"
#include "device/trace.h"
#include <string.h>

#define PM1_TIMER BIT(0)
#define PM1_GLOBAL BIT(5)
#define PM1_POWER_BUTTON BIT(8)
#define PM1_SLEEP_BUTTON BIT(9)
#define PM1_RTC BIT(10)
#define PM1_WAKE BIT(15)
#define PM1_EVENTS (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC)
#define PM1_SCI_EN BIT(0)
#define PM1_SLP_TYP_SHIFT 10
#define PM1_SLP_EN BIT(13)
#define HALF_PERIOD_TICKS (1ull << 31)

static u64 ticks(const struct acpi_pm *p)
{
    return (u64)((unsigned __int128)(timerq_now(p->q) - p->s.epoch_ns) * ACPI_PM_TIMER_HZ /
                 NS_PER_S);
}

/* When half period number `half` begins. */
static s64 half_ns(const struct acpi_pm *p, u64 half)
{
    unsigned __int128 t = (unsigned __int128)half * HALF_PERIOD_TICKS;

    return p->s.epoch_ns + (s64)((t * NS_PER_S + ACPI_PM_TIMER_HZ - 1) / ACPI_PM_TIMER_HZ);
}

static void update_sci(struct acpi_pm *p)
{
    irq_set(&p->sci, (p->s.status & p->s.enable & PM1_EVENTS) != 0);
}

/* Sets the timer's status bit if bit 31 has changed since the last look. */
static void catch_up(struct acpi_pm *p)
{
    u64 half = ticks(p) / HALF_PERIOD_TICKS;

    if (half == p->s.half)
        return;
    p->s.half = half;
    p->s.status |= PM1_TIMER;
}

static void arm(struct acpi_pm *p)
{
    if (p->s.enable & PM1_TIMER)
        timer_arm(&p->timer, half_ns(p, ticks(p) / HALF_PERIOD_TICKS + 1));
    else
        timer_cancel(&p->timer);
}

static void fire(void *opaque)
{
    struct acpi_pm *p = opaque;

    pthread_mutex_lock(&p->lock);
    catch_up(p);
    update_sci(p);
    arm(p);
    pthread_mutex_unlock(&p->lock);
}

static u8 read_byte(struct acpi_pm *p, u64 offset)
{
    switch (offset) {
    case 0 ... 1:
        return (u8)(p->s.status >> 8 * offset);
    case 2 ... 3:
        return (u8)(p->s.enable >> 8 * (offset - 2));
    case 4 ... 5:
        return (u8)((p->s.control | PM1_SCI_EN) >> 8 * (offset - 4));
    case 8 ... 11:
        return (u8)(ticks(p) >> 8 * (offset - 8));
    }
    return 0;
}

static u64 pm_read(void *opaque, u64 offset, unsigned size)
{
    struct acpi_pm *p = opaque;
    u64 value = 0;

    if (offset == ACPI_PM_TIMER && size == 4)
        return (u32)ticks(p); /* whole, so that its bytes belong together; needs no lock */
    pthread_mutex_lock(&p->lock);
    catch_up(p);
    for (unsigned i = 0; i < size; i++)
        value |= (u64)read_byte(p, offset + i) << 8 * i;
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void write_control(struct acpi_pm *p, u16 value)
{
    p->s.control = value & 0x1c06; /* SLP_EN reads as zero */
    if (value & PM1_SLP_EN)
        trace_device_acpi_sleep(value);
    if ((value & PM1_SLP_EN) && (value >> PM1_SLP_TYP_SHIFT & 7) == ACPI_PM_SLP_TYP_S5)
        event_send(&p->sink, MACHINE_POWEROFF, 0);
}

static u16 merge(u16 old, unsigned byte, u8 value)
{
    return (u16)((old & ~(0xff << 8 * byte)) | value << 8 * byte);
}

static void write_byte(struct acpi_pm *p, u64 offset, u8 value)
{
    switch (offset) {
    case 0 ... 1: /* write one to clear */
        p->s.status &= (u16) ~(value << 8 * offset);
        break;
    case 2 ... 3:
        p->s.enable = merge(p->s.enable, offset & 1, value) & PM1_EVENTS;
        arm(p);
        break;
    case 4 ... 5:
        write_control(p, merge(p->s.control, offset & 1, value));
        break;
    case ACPI_PM_RESET:
        if (value == ACPI_PM_RESET_VALUE)
            event_send(&p->sink, MACHINE_RESET, 0);
        break;
    }
}

static void pm_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct acpi_pm *p = opaque;

    pthread_mutex_lock(&p->lock);
    catch_up(p);
    for (unsigned i = 0; i < size; i++)
        write_byte(p, offset + i, (u8)(value >> 8 * i));
    update_sci(p);
    pthread_mutex_unlock(&p->lock);
}

static const struct io_ops pm_ops = {.read = pm_read, .write = pm_write};

void acpi_pm_init(struct acpi_pm *p, u16 base, struct timerq *q, struct irq sci,
                  struct event_sink sink)
{
    memset(p, 0, sizeof(*p));
    pthread_mutex_init(&p->lock, NULL);
    p->q = q;
    p->sci = sci;
    p->sink = sink;
    timer_init(&p->timer, q, fire, p);
    p->io = (struct io_region){
        .name = "acpi-pm", .base = base, .len = ACPI_PM_LEN, .ops = &pm_ops, .opaque = p};
    acpi_pm_reset(p);
}

void acpi_pm_fini(struct acpi_pm *p)
{
    if (!p->q)
        return;
    timer_cancel(&p->timer);
    pthread_mutex_destroy(&p->lock);
}

void acpi_pm_reset(struct acpi_pm *p)
{
    pthread_mutex_lock(&p->lock);
    memset(&p->s, 0, sizeof(p->s));
    p->s.half = ticks(p) / HALF_PERIOD_TICKS;
    arm(p);
    update_sci(p);
    pthread_mutex_unlock(&p->lock);
}

int acpi_pm_map(struct acpi_pm *p, struct aspace *pio, struct err *err)
{
    return aspace_map(pio, &p->io, err);
}

void acpi_pm_power_button(struct acpi_pm *p)
{
    pthread_mutex_lock(&p->lock);
    p->s.status |= PM1_POWER_BUTTON;
    update_sci(p);
    pthread_mutex_unlock(&p->lock);
}

void acpi_pm_resume(struct acpi_pm *p)
{
    pthread_mutex_lock(&p->lock);
    arm(p);
    update_sci(p);
    pthread_mutex_unlock(&p->lock);
}
