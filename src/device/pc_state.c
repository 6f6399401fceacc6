/*
 * Saved state of the PC's fixed devices; see pc_state.h. style: table
 *
 * Times in state are the machine's monotonic clock, which is another one where the state is loaded: each struct with
 * times also says when it was saved, and loading moves its times by the difference.
 */
#include "device/pc_state.h"

#include "device/acpi_pm.h"
#include "device/fw_cfg.h"
#include "device/hpet.h"
#include "device/i8042.h"
#include "device/ioapic.h"
#include "device/lapic_parts.h"
#include "device/pic.h"
#include "device/pit.h"
#include "device/rtc.h"
#include "device/serial.h"

#include <errno.h>

/* Times further than this from the moment of saving cannot be: sums with them would overflow. */
#define TIME_MAX (INT64_MAX / 4)

static bool time_ok(s64 t)
{
    return t == TIMER_NEVER || (t > -TIME_MAX && t < TIME_MAX);
}

static s64 move(s64 t, s64 by)
{
    return t == TIMER_NEVER ? t : t + by;
}

static int refuse(struct err *err, const char *what)
{
    return err_set(err, EINVAL, "%s", what);
}

/* 8259s */

static const struct field pic_fields[] = {
    STATE_EACH(struct pic_state, chip, irr, 1, FIELD_HEX),
    STATE_EACH(struct pic_state, chip, isr, 1, FIELD_HEX),
    STATE_EACH(struct pic_state, chip, imr, 1, FIELD_HEX),
    STATE_EACH(struct pic_state, chip, lines, 1, FIELD_HEX),
    STATE_EACH(struct pic_state, chip, elcr, 1, FIELD_HEX),
    STATE_EACH(struct pic_state, chip, base, 1, FIELD_HEX),
    STATE_EACH(struct pic_state, chip, top, 1, FIELD_UINT),
    STATE_EACH(struct pic_state, chip, init, 1, FIELD_UINT),
    STATE_EACH(struct pic_state, chip, icw1, 1, FIELD_HEX),
    STATE_EACH(struct pic_state, chip, auto_eoi, 1, FIELD_UINT),
    STATE_EACH(struct pic_state, chip, rotate_auto_eoi, 1, FIELD_UINT),
    STATE_EACH(struct pic_state, chip, special_mask, 1, FIELD_UINT),
    STATE_EACH(struct pic_state, chip, fully_nested, 1, FIELD_UINT),
    STATE_EACH(struct pic_state, chip, read_isr, 1, FIELD_UINT),
    STATE_EACH(struct pic_state, chip, poll, 1, FIELD_UINT),
};
static STATE_TABLE(pic_table, struct pic_state, 1, pic_fields);

static int pic_check(void *opaque, const void *scratch, struct err *err)
{
    const struct pic_state *s = scratch;

    for (unsigned i = 0; i < 2; i++) {
        if (s->chip[i].top > 7 || s->chip[i].init > 4 || s->chip[i].init == 1)
            return refuse(err, "no such state of an 8259");
    }
    return 0;
}

static int pic_post_load(void *opaque, struct err *err)
{
    pic_resume(opaque);
    return 0;
}

const struct pc_state pic_pc_state = {"pic",     &pic_table, offsetof(struct pic, s),
                                      pic_check, NULL,       pic_post_load};

/* PIT */

static const struct field pit_fields[] = {
    STATE_EACH(struct pit_state, ch, start_ns, 1, FIELD_SINT),
    STATE_EACH(struct pit_state, ch, count, 1, FIELD_UINT),
    STATE_EACH(struct pit_state, ch, latch, 1, FIELD_UINT),
    STATE_EACH(struct pit_state, ch, latched, 1, FIELD_UINT),
    STATE_EACH(struct pit_state, ch, status, 1, FIELD_HEX),
    STATE_EACH(struct pit_state, ch, status_latched, 1, FIELD_UINT),
    STATE_EACH(struct pit_state, ch, mode, 1, FIELD_UINT),
    STATE_EACH(struct pit_state, ch, bcd, 1, FIELD_UINT),
    STATE_EACH(struct pit_state, ch, access, 1, FIELD_UINT),
    STATE_EACH(struct pit_state, ch, write_low, 1, FIELD_HEX),
    STATE_EACH(struct pit_state, ch, write_high_next, 1, FIELD_UINT),
    STATE_EACH(struct pit_state, ch, read_high_next, 1, FIELD_UINT),
    STATE_EACH(struct pit_state, ch, gate, 1, FIELD_UINT),
    STATE_SINT(struct pit_state, saved_ns, 1),
    STATE_UINT(struct pit_state, speaker, 1),
    STATE_UINT(struct pit_state, refresh, 1),
    STATE_UINT(struct pit_state, disabled, 1),
};
static STATE_TABLE(pit_table, struct pit_state, 1, pit_fields);

static int pit_check(void *opaque, const void *scratch, struct err *err)
{
    const struct pit_state *s = scratch;

    for (unsigned i = 0; i < 3; i++) {
        const struct pit_channel *c = &s->ch[i];

        if (c->count > 65536 || c->mode > 5 || c->access > 3 || c->latched > 2 || c->bcd > 1 ||
            c->gate > 1 || !time_ok(c->start_ns) || c->start_ns == TIMER_NEVER)
            return refuse(err, "no such state of a counter");
    }
    if (!time_ok(s->saved_ns) || s->speaker > 1 || s->refresh > 1)
        return refuse(err, "no such state of the timer");
    return 0;
}

static void pit_pre_save(void *opaque)
{
    struct pit *p = opaque;

    p->s.saved_ns = timerq_now(p->q);
}

static int pit_post_load(void *opaque, struct err *err)
{
    struct pit *p = opaque;
    s64 by = timerq_now(p->q) - p->s.saved_ns;

    for (unsigned i = 0; i < 3; i++)
        p->s.ch[i].start_ns = move(p->s.ch[i].start_ns, by);
    pit_resume(p);
    return 0;
}

const struct pc_state pit_pc_state = {"pit",     &pit_table,   offsetof(struct pit, s),
                                      pit_check, pit_pre_save, pit_post_load};

/* I/O APIC */

static const struct field ioapic_fields[] = {
    STATE_HEXES(struct ioapic_state, entry, 1),
    STATE_HEX(struct ioapic_state, lines, 1),
    STATE_UINT(struct ioapic_state, id, 1),
    STATE_UINT(struct ioapic_state, select, 1),
};
static STATE_TABLE(ioapic_table, struct ioapic_state, 1, ioapic_fields);

static int ioapic_check(void *opaque, const void *scratch, struct err *err)
{
    const struct ioapic_state *s = scratch;

    if (s->lines >> IOAPIC_PINS || s->id > 15 || s->select > 255)
        return refuse(err, "no such state of an I/O APIC");
    return 0;
}

const struct pc_state ioapic_pc_state = {"ioapic",     &ioapic_table, offsetof(struct ioapic, s),
                                         ioapic_check, NULL,          NULL};

/* Local APIC */

static const struct field lapic_fields[] = {
    STATE_HEX(struct lapic_state, apic_base, 1),     STATE_HEX(struct lapic_state, icr, 1),
    STATE_UINT(struct lapic_state, tsc_deadline, 1), STATE_SINT(struct lapic_state, timer_ns, 1),
    STATE_SINT(struct lapic_state, saved_ns, 1),     STATE_SINT(struct lapic_state, tsc_offset, 1),
    STATE_HEX(struct lapic_state, tpr, 1),           STATE_HEX(struct lapic_state, ldr, 1),
    STATE_HEX(struct lapic_state, dfr, 1),           STATE_HEX(struct lapic_state, svr, 1),
    STATE_HEX(struct lapic_state, esr, 1),           STATE_HEX(struct lapic_state, esr_new, 1),
    STATE_HEXES(struct lapic_state, lvt, 1),         STATE_UINT(struct lapic_state, timer_count, 1),
    STATE_HEX(struct lapic_state, timer_divide, 1),  STATE_HEXES(struct lapic_state, irr, 1),
    STATE_HEXES(struct lapic_state, isr, 1),         STATE_HEXES(struct lapic_state, tmr, 1),
    STATE_UINT(struct lapic_state, extint, 1),       STATE_SINT(struct lapic_state, sipi, 1),
};
static STATE_TABLE(lapic_table, struct lapic_state, 1, lapic_fields);

static int lapic_check(void *opaque, const void *scratch, struct err *err)
{
    const struct lapic_state *s = scratch;
    u64 mode = s->apic_base & (APIC_BASE_EN | APIC_BASE_X2);

    if (mode == APIC_BASE_X2 || s->tpr > 0xff || s->sipi < -1 || s->sipi > 255 ||
        (s->timer_divide & ~0xbu))
        return refuse(err, "no such state of a local APIC");
    if (!time_ok(s->timer_ns) || !time_ok(s->saved_ns) || s->saved_ns == TIMER_NEVER)
        return refuse(err, "a timer that is out of range");
    if (s->timer_ns != TIMER_NEVER && !s->timer_count)
        return refuse(err, "a timer that runs without a count");
    return 0;
}

static void lapic_pre_save(void *opaque)
{
    struct lapic *l = opaque;

    l->s.saved_ns = l->has_timer ? timerq_now(l->timer.q) : 0;
}

static int lapic_post_load(void *opaque, struct err *err)
{
    struct lapic *l = opaque;
    u64 deadline = l->s.tsc_deadline;

    if (l->has_timer)
        l->s.timer_ns = move(l->s.timer_ns, timerq_now(l->timer.q) - l->s.saved_ns);
    /* A deadline is of the guest's TSC, and waits for the offset to this host's, which comes with the processors
     * (lapic_set_tsc_offset()). With the old one it could be over already. */
    l->s.tsc_deadline = 0;
    lapic_resume(l->bus, l->cpu);
    l->s.tsc_deadline = deadline;
    return 0;
}

const struct pc_state lapic_pc_state = {"lapic",     &lapic_table,   offsetof(struct lapic, s),
                                        lapic_check, lapic_pre_save, lapic_post_load};

/* RTC */

static const struct field rtc_fields[] = {
    STATE_BYTES(struct rtc_state, cmos, 1),    STATE_UINT(struct rtc_state, index, 1),
    STATE_SINT(struct rtc_state, offset_s, 1), STATE_SINT(struct rtc_state, next_ns, 1),
    STATE_SINT(struct rtc_state, last_s, 1),   STATE_SINT(struct rtc_state, saved_ns, 1),
    STATE_UINT(struct rtc_state, disabled, 1),
};
static STATE_TABLE(rtc_table, struct rtc_state, 1, rtc_fields);

static int rtc_check(void *opaque, const void *scratch, struct err *err)
{
    const struct rtc_state *s = scratch;
    s64 max = 1ll << 40; /* seconds: some 30,000 years */

    if (s->index >= RTC_CMOS || s->offset_s > max || s->offset_s < -max || s->last_s > max ||
        s->last_s < -max)
        return refuse(err, "no such state of a clock");
    if (!time_ok(s->next_ns) || !time_ok(s->saved_ns) || s->saved_ns == TIMER_NEVER)
        return refuse(err, "a timer that is out of range");
    return 0;
}

static void rtc_pre_save(void *opaque)
{
    struct rtc *r = opaque;

    r->s.saved_ns = timerq_now(r->q);
}

static int rtc_post_load(void *opaque, struct err *err)
{
    struct rtc *r = opaque;

    r->s.next_ns = move(r->s.next_ns, timerq_now(r->q) - r->s.saved_ns);
    rtc_resume(r);
    return 0;
}

const struct pc_state rtc_pc_state = {"rtc",     &rtc_table,   offsetof(struct rtc, s),
                                      rtc_check, rtc_pre_save, rtc_post_load};

/* HPET */

static const struct field hpet_fields[] = {
    STATE_HEX(struct hpet_state, config, 1),       STATE_HEX(struct hpet_state, status, 1),
    STATE_UINT(struct hpet_state, counter, 1),     STATE_SINT(struct hpet_state, start_ns, 1),
    STATE_SINT(struct hpet_state, saved_ns, 1),    STATE_HEXES(struct hpet_state, timer_config, 1),
    STATE_UINTS(struct hpet_state, comparator, 1), STATE_UINTS(struct hpet_state, period, 1),
};
static STATE_TABLE(hpet_table, struct hpet_state, 1, hpet_fields);

static int hpet_check(void *opaque, const void *scratch, struct err *err)
{
    const struct hpet_state *s = scratch;

    if (s->config > 3 || s->status >> HPET_TIMERS)
        return refuse(err, "no such state of an HPET");
    if (!time_ok(s->start_ns) || !time_ok(s->saved_ns) || s->start_ns > s->saved_ns)
        return refuse(err, "a counter that starts in the future");
    return 0;
}

static void hpet_pre_save(void *opaque)
{
    struct hpet *h = opaque;

    h->s.saved_ns = timerq_now(h->q);
}

static int hpet_post_load(void *opaque, struct err *err)
{
    struct hpet *h = opaque;

    h->s.start_ns = move(h->s.start_ns, timerq_now(h->q) - h->s.saved_ns);
    hpet_resume(h);
    return 0;
}

const struct pc_state hpet_pc_state = {"hpet",     &hpet_table,   offsetof(struct hpet, s),
                                       hpet_check, hpet_pre_save, hpet_post_load};

/* Serial port */

static const struct field serial_fields[] = {
    STATE_HEX(struct serial_state, ier, 1),       STATE_HEX(struct serial_state, fcr, 1),
    STATE_HEX(struct serial_state, lcr, 1),       STATE_HEX(struct serial_state, mcr, 1),
    STATE_HEX(struct serial_state, lsr, 1),       STATE_HEX(struct serial_state, msr, 1),
    STATE_HEX(struct serial_state, scr, 1),       STATE_HEX(struct serial_state, dll, 1),
    STATE_HEX(struct serial_state, dlm, 1),       STATE_UINT(struct serial_state, thr_pending, 1),
    STATE_UINT(struct serial_state, timeout, 1),  STATE_UINT(struct serial_state, rx_count, 1),
    STATE_UINT(struct serial_state, tx_count, 1), STATE_BYTES(struct serial_state, rx, 1),
    STATE_BYTES(struct serial_state, tx, 1),
};
static STATE_TABLE(serial_table, struct serial_state, 1, serial_fields);

static int serial_check(void *opaque, const void *scratch, struct err *err)
{
    const struct serial_state *s = scratch;

    if (s->rx_count > SERIAL_FIFO || s->tx_count > SERIAL_FIFO)
        return refuse(err, "more bytes than its FIFOs hold");
    return 0;
}

static int serial_post_load(void *opaque, struct err *err)
{
    serial_resume(opaque);
    return 0;
}

const struct pc_state serial_pc_state = {"serial",     &serial_table, offsetof(struct serial, s),
                                         serial_check, NULL,          serial_post_load};

/* ACPI */

static const struct field acpi_pm_fields[] = {
    STATE_HEX(struct acpi_pm_state, status, 1),    STATE_HEX(struct acpi_pm_state, enable, 1),
    STATE_HEX(struct acpi_pm_state, control, 1),   STATE_SINT(struct acpi_pm_state, epoch_ns, 1),
    STATE_SINT(struct acpi_pm_state, saved_ns, 1), STATE_UINT(struct acpi_pm_state, half, 1),
};
static STATE_TABLE(acpi_pm_table, struct acpi_pm_state, 1, acpi_pm_fields);

static int acpi_pm_check(void *opaque, const void *scratch, struct err *err)
{
    const struct acpi_pm_state *s = scratch;

    if (!time_ok(s->epoch_ns) || !time_ok(s->saved_ns) || s->epoch_ns > s->saved_ns)
        return refuse(err, "a timer that starts in the future");
    return 0;
}

static void acpi_pm_pre_save(void *opaque)
{
    struct acpi_pm *p = opaque;

    p->s.saved_ns = timerq_now(p->q);
}

static int acpi_pm_post_load(void *opaque, struct err *err)
{
    struct acpi_pm *p = opaque;

    p->s.epoch_ns = move(p->s.epoch_ns, timerq_now(p->q) - p->s.saved_ns);
    acpi_pm_resume(p);
    return 0;
}

const struct pc_state acpi_pm_pc_state = {
    "acpi-pm",     &acpi_pm_table,   offsetof(struct acpi_pm, s),
    acpi_pm_check, acpi_pm_pre_save, acpi_pm_post_load};

/* i8042 */

static const struct field i8042_fields[] = {
    STATE_HEX(struct i8042_state, control, 1), STATE_HEX(struct i8042_state, output_port, 1),
    STATE_HEX(struct i8042_state, command, 1), STATE_HEX(struct i8042_state, keyboard_arg, 1),
    STATE_UINT(struct i8042_state, count, 1),  STATE_BYTES(struct i8042_state, queue, 1),
    STATE_HEX(struct i8042_state, port92, 1),
};
static STATE_TABLE(i8042_table, struct i8042_state, 1, i8042_fields);

static int i8042_check(void *opaque, const void *scratch, struct err *err)
{
    const struct i8042_state *s = scratch;

    return s->count > I8042_QUEUE ? refuse(err, "more bytes than its queue holds") : 0;
}

const struct pc_state i8042_pc_state = {"i8042",     &i8042_table, offsetof(struct i8042, s),
                                        i8042_check, NULL,         NULL};

/* fw_cfg: the items are the machine's configuration, not its state */

static const struct field fw_cfg_fields[] = {
    STATE_HEX(struct fw_cfg_state, selected, 1),
    STATE_UINT(struct fw_cfg_state, offset, 1),
    STATE_HEX(struct fw_cfg_state, dma_addr, 1),
};
static STATE_TABLE(fw_cfg_table, struct fw_cfg_state, 1, fw_cfg_fields);

const struct pc_state fw_cfg_pc_state = {"fw-cfg", &fw_cfg_table, offsetof(struct fw_cfg, s),
                                         NULL,     NULL,          NULL};
