/*
 * The interrupt controllers of an accelerator that has its own (struct board_irqchip), saved as if they were ours: before
 * saving, their registers become the state of our devices, which are there for that only; after loading, the other way
 * round. So a machine may be loaded under any accelerator.
 *
 * Threads: the main one, with all vCPUs stopped.
 */
#include "board/parts.h"
#include "device/lapic_regs.h"

#include <errno.h>
#include <stdlib.h>

#define VERSION_VALUE 0x50014u
#define ENTRY_LEVEL BIT(15)

static void pic_from(struct pic_chip *c, const struct x86_pic *p)
{
    *c = (struct pic_chip){.irr = p->irr,
                           .isr = p->isr,
                           .imr = p->imr,
                           .lines = p->lines,
                           .elcr = p->elcr,
                           .base = p->base,
                           .top = p->top & 7,
                           .init = p->init,
                           .icw1 = (u8)(0x10 | !!p->four),
                           .auto_eoi = p->auto_eoi,
                           .rotate_auto_eoi = p->rotate_auto_eoi,
                           .special_mask = p->special_mask,
                           .fully_nested = p->fully_nested,
                           .read_isr = p->read_isr,
                           .poll = p->poll};
}

static void pic_to(struct x86_pic *p, const struct pic_chip *c)
{
    *p = (struct x86_pic){.irr = c->irr,
                          .imr = c->imr,
                          .isr = c->isr,
                          .base = c->base,
                          .elcr = c->elcr,
                          .lines = c->lines,
                          .top = c->top,
                          .init = c->init,
                          .four = c->icw1 & 1,
                          .read_isr = c->read_isr,
                          .poll = c->poll,
                          .special_mask = c->special_mask,
                          .auto_eoi = c->auto_eoi,
                          .rotate_auto_eoi = c->rotate_auto_eoi,
                          .fully_nested = c->fully_nested};
}

#define CHANNEL_FIELDS(x)                                                                         \
    x(start_ns) x(count) x(latch) x(latched) x(status) x(status_latched) x(mode) x(bcd) x(access) \
        x(write_low) x(write_high_next) x(read_high_next) x(gate)

static void channel_from(struct pit_channel *c, const struct x86_pit_channel *k)
{
#define FROM(field) c->field = k->field;
    CHANNEL_FIELDS(FROM)
}

static void channel_to(struct x86_pit_channel *k, const struct pit_channel *c, s64 later_ns)
{
#define TO(field) k->field = c->field;
    CHANNEL_FIELDS(TO)
    k->start_ns += later_ns;
}

static void lapic_from(struct lapic_state *s, const struct x86_lapic *l, s64 now_ns)
{
    u64 left_ns = (u64)l->reg[LAPIC_TIMER_CURRENT] * lapic_divisor(l->reg[LAPIC_TIMER_DIVIDE]);
    bool counts = l->reg[LAPIC_TIMER_CURRENT] && l->reg[LAPIC_TIMER_COUNT] &&
                  lapic_timer_mode(l->reg[LAPIC_LVT]) != TIMER_DEADLINE;

    *s = (struct lapic_state){.apic_base = l->apic_base,
                              .icr = (u64)l->reg[LAPIC_ICR_HIGH] << 32 | l->reg[LAPIC_ICR],
                              .saved_ns = now_ns,
                              .tsc_deadline = l->tsc_deadline,
                              .timer_ns = counts ? now_ns + (s64)left_ns : TIMER_NEVER,
                              .tpr = l->reg[LAPIC_TPR] & 0xff,
                              .ldr = l->reg[LAPIC_LDR],
                              .dfr = l->reg[LAPIC_DFR],
                              .svr = l->reg[LAPIC_SVR],
                              .esr = l->reg[LAPIC_ESR],
                              .timer_count = l->reg[LAPIC_TIMER_COUNT],
                              .timer_divide = l->reg[LAPIC_TIMER_DIVIDE] & 0xb,
                              .sipi = -1};
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        s->lvt[i] = l->reg[LAPIC_LVT + i];
    for (unsigned i = 0; i < 8; i++) {
        s->isr[i] = l->reg[LAPIC_ISR + i];
        s->tmr[i] = l->reg[LAPIC_TMR + i];
        s->irr[i] = l->reg[LAPIC_IRR + i];
    }
}

static void lapic_to(struct x86_lapic *l, const struct lapic_state *s, unsigned cpu)
{
    s64 left_ns = s->timer_ns == TIMER_NEVER ? 0 : MAX(s->timer_ns - s->saved_ns, 1);

    *l = (struct x86_lapic){.apic_base = s->apic_base, .tsc_deadline = s->tsc_deadline};
    l->reg[LAPIC_ID] = cpu << 24;
    l->reg[LAPIC_VERSION] = VERSION_VALUE;
    l->reg[LAPIC_TPR] = s->tpr;
    l->reg[LAPIC_LDR] = s->ldr;
    l->reg[LAPIC_DFR] = s->dfr;
    l->reg[LAPIC_SVR] = s->svr;
    l->reg[LAPIC_ESR] = s->esr;
    l->reg[LAPIC_ICR] = (u32)s->icr;
    l->reg[LAPIC_ICR_HIGH] = (u32)(s->icr >> 32);
    l->reg[LAPIC_TIMER_COUNT] = s->timer_count;
    l->reg[LAPIC_TIMER_DIVIDE] = s->timer_divide;
    l->reg[LAPIC_TIMER_CURRENT] =
        left_ns
            ? (u32)MIN(MAX((u64)left_ns / lapic_divisor(s->timer_divide), 1), (u64)s->timer_count)
            : 0;
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        l->reg[LAPIC_LVT + i] = s->lvt[i];
    for (unsigned i = 0; i < 8; i++) {
        l->reg[LAPIC_ISR + i] = s->isr[i];
        l->reg[LAPIC_TMR + i] = s->tmr[i];
        l->reg[LAPIC_IRR + i] = s->irr[i];
    }
}

/* Levels of the I/O APIC's pins: what our devices drive, with the timer's line at its pin. */
static u32 pin_levels(struct board *b)
{
    u32 lines = atomic_load(&b->irqchip_lines);

    return (lines & ~1u) | (lines & 1) << MEMMAP_GSI_PIT;
}

void irqchip_from_registers(struct board *b, const struct x86_irqchip *k, s64 now_ns)
{
    for (unsigned i = 0; i < 2; i++)
        pic_from(&b->pic.s.chip[i], &k->pic[i]);
    for (unsigned i = 0; i < 3; i++)
        channel_from(&b->pit.s.ch[i], &k->pit[i]);
    b->pit.s.saved_ns = now_ns;
    b->pit.s.speaker = k->speaker;
    b->pit.s.refresh = 0;
    b->pit.s.disabled = k->pit_disabled;
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        b->ioapic.s.entry[i] = k->ioapic_entry[i];
    b->ioapic.s.id = k->ioapic_id & 0xf;
    b->ioapic.s.select = k->ioapic_select & 0xff;
    b->ioapic.s.lines = pin_levels(b);
    for (unsigned i = 0; i < b->config.cpus; i++)
        lapic_from(&b->lapic.cpu[i].s, &k->lapic[i], now_ns);
}

void irqchip_to_registers(struct board *b, struct x86_irqchip *k, s64 now_ns)
{
    u32 level = 0;

    *k = (struct x86_irqchip){.speaker = b->pit.s.speaker,
                              .pit_disabled = !!b->pit.s.disabled,
                              .ioapic_id = b->ioapic.s.id,
                              .ioapic_select = b->ioapic.s.select};
    for (unsigned i = 0; i < 2; i++)
        pic_to(&k->pic[i], &b->pic.s.chip[i]);
    for (unsigned i = 0; i < 3; i++)
        channel_to(&k->pit[i], &b->pit.s.ch[i], now_ns - b->pit.s.saved_ns);
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        k->ioapic_entry[i] = b->ioapic.s.entry[i];
        level |= b->ioapic.s.entry[i] & ENTRY_LEVEL ? 1u << i : 0;
    }
    k->ioapic_irr = b->ioapic.s.lines & level;
    for (unsigned i = 0; i < b->config.cpus; i++)
        lapic_to(&k->lapic[i], &b->lapic.cpu[i].s, i);
}

int board_get_irqchip(struct board *b, struct err *err)
{
    auto_free struct x86_irqchip *k = NULL;
    int rc;

    if (b->has_intc)
        return 0;
    k = calloc(1, sizeof(*k));
    if (!k || !b->config.irqchip.get)
        return err_set(err, k ? ENOTSUP : ENOMEM, "%s: interrupt controllers cannot be saved",
                       b->config.name);
    rc = b->config.irqchip.get(b->config.irqchip.opaque, k, err);
    if (!rc)
        irqchip_from_registers(b, k, timerq_now(b->config.timers));
    return rc;
}

int board_set_irqchip(struct board *b, struct err *err)
{
    auto_free struct x86_irqchip *k = NULL;
    u32 lines = atomic_load(&b->irqchip_lines);
    int rc;

    if (b->has_intc)
        return 0;
    k = calloc(1, sizeof(*k));
    if (!k || !b->config.irqchip.set)
        return err_set(err, k ? ENOTSUP : ENOMEM, "%s: interrupt controllers cannot be loaded",
                       b->config.name);
    irqchip_to_registers(b, k, timerq_now(b->config.timers));
    rc = b->config.irqchip.set(b->config.irqchip.opaque, k, err);
    /* Who drives a line told the controllers before they got this state. */
    for (unsigned gsi = 0; gsi < MEMMAP_GSIS && !rc; gsi++)
        if (lines >> gsi & 1)
            b->config.irqchip.irq_line(b->config.irqchip.opaque, gsi, true);
    return rc;
}
