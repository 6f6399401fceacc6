/*
 * The interrupt controllers as accelerators without their own see them: accel.h's struct accel_intc
 * over the local APICs. Threads: see accel.h.
 */
#include "board/parts.h"

static bool pending(void *opaque, unsigned cpu)
{
    struct board *b = opaque;

    return lapic_pending(&b->lapic, cpu);
}

static int acknowledge(void *opaque, unsigned cpu)
{
    struct board *b = opaque;

    return lapic_acknowledge(&b->lapic, cpu);
}

static u64 get_tpr(void *opaque, unsigned cpu)
{
    struct board *b = opaque;

    return lapic_get_cr8(&b->lapic, cpu);
}

static void set_tpr(void *opaque, unsigned cpu, u64 cr8)
{
    struct board *b = opaque;

    lapic_set_cr8(&b->lapic, cpu, cr8);
}

static bool read_msr(void *opaque, unsigned cpu, u32 msr, u64 *ret_value)
{
    struct board *b = opaque;

    return lapic_read_msr(&b->lapic, cpu, msr, ret_value);
}

static bool write_msr(void *opaque, unsigned cpu, u32 msr, u64 value)
{
    struct board *b = opaque;

    return lapic_write_msr(&b->lapic, cpu, msr, value);
}

static int take_sipi(void *opaque, unsigned cpu)
{
    struct board *b = opaque;

    return lapic_take_sipi(&b->lapic, cpu);
}

static void tsc_moved(void *opaque, unsigned cpu, s64 offset)
{
    board_set_tsc_offset(opaque, cpu, offset);
}

struct accel_intc board_intc(struct board *b)
{
    if (!b->has_intc)
        return (struct accel_intc){.opaque = b};
    return (struct accel_intc){
        .pending = pending,
        .acknowledge = acknowledge,
        .get_tpr = get_tpr,
        .set_tpr = set_tpr,
        .read_msr = read_msr,
        .write_msr = write_msr,
        .take_sipi = take_sipi,
        .tsc_moved = tsc_moved,
        .opaque = b,
    };
}
