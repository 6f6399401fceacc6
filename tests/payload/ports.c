/*
 * See ports.h. Everything runs in the vCPU's thread, which is the only one; so nothing is locked.
 * Local APIC: SDM 3A, chapter 10, the registers a payload uses.
 */
#include "ports.h"

#include <stdio.h>
#include <string.h>

#define MSR_APIC_BASE 0x1b
#define MSR_X2APIC_ID 0x802
#define MSR_X2APIC_VERSION 0x803
#define MSR_X2APIC_TPR 0x808
#define MSR_X2APIC_EOI 0x80b
#define MSR_X2APIC_SPURIOUS 0x80f
#define MSR_X2APIC_ISR 0x810
#define MSR_X2APIC_IRR 0x820
#define MSR_X2APIC_ICR 0x830
#define MSR_X2APIC_SELF 0x83f
#define ICR_MODE_NMI (4u << 8)
#define ICR_MODE_MASK (7u << 8)
#define ICR_OTHERS (3u << 18)

static void line_done(struct machine *m)
{
    bool failed;

    m->line[m->line_len] = 0;
    m->line_len = 0;
    failed = !strncmp(m->line, "not ok ", 7);
    m->cases += failed || !strncmp(m->line, "ok ", 3);
    m->failures += failed && !m->excuse;
    m->plan_seen |= !strncmp(m->line, "1..", 3);
    m->shutdown_expected |= !strcmp(m->line, "# expect-shutdown");
    printf("%s%s\n", m->line,
           failed && m->excuse ? " # TODO this accelerator need not work here" : "");
    fflush(stdout);
}

static void debug_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct machine *m = opaque;

    if (value == '\n')
        line_done(m);
    else if (m->line_len < sizeof(m->line) - 1)
        m->line[m->line_len++] = (char)value;
}

static u64 debug_read(void *opaque, u64 offset, unsigned size)
{
    return 0xe9; /* how guests find the port */
}

static void exit_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct machine *m = opaque;

    if (m->exit_status < 0)
        m->exit_status = (int)(value & 0xff);
    m->ops->vcpu_event(m->vcpu, VCPU_EV_STOP);
}

static u64 exit_read(void *opaque, u64 offset, unsigned size)
{
    return 0;
}

/* Bytes of memory, but for the first 16: a signature, how many accesses there were, the size of the last one. */
static u64 scratch_read(void *opaque, u64 offset, unsigned size)
{
    struct machine *m = opaque;
    u64 value = 0;

    if (offset < 16) {
        memcpy(m->scratch_bytes, "TRAP", 4);
        memcpy(m->scratch_bytes + 4, &m->scratch_accesses, 4);
        memcpy(m->scratch_bytes + 8, &m->scratch_last_size, 4);
    } else {
        m->scratch_accesses++;
        m->scratch_last_size = size;
    }
    memcpy(&value, m->scratch_bytes + offset, size);
    return value;
}

static void scratch_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct machine *m = opaque;

    if (offset < 16) {
        m->scratch_accesses = 0;
        return;
    }
    m->scratch_accesses++;
    m->scratch_last_size = size;
    memcpy(m->scratch_bytes + offset, &value, size);
}

static const struct io_ops debug_ops = {debug_read, debug_write};
static const struct io_ops exit_ops = {exit_read, exit_write};
static const struct io_ops scratch_ops = {scratch_read, scratch_write};

/* The highest vector in a bitmap, or -1. */
static int highest(const u64 *bits)
{
    for (int i = 3; i >= 0; i--)
        if (bits[i])
            return i * 64 + 63 - __builtin_clzll(bits[i]);
    return -1;
}

static bool intc_pending(void *opaque, unsigned cpu)
{
    struct machine *m = opaque;
    int priority = MAX(highest(m->in_service), (int)m->tpr);

    return (m->spurious & 0x100) && highest(m->requested) >> 4 > priority >> 4;
}

static int intc_acknowledge(void *opaque, unsigned cpu)
{
    struct machine *m = opaque;
    int vector = highest(m->requested);

    if (!intc_pending(opaque, cpu))
        return -1;
    m->requested[vector / 64] &= ~BIT(vector % 64);
    m->in_service[vector / 64] |= BIT(vector % 64);
    return vector;
}

static u64 intc_get_tpr(void *opaque, unsigned cpu)
{
    return ((struct machine *)opaque)->tpr >> 4;
}

static void intc_set_tpr(void *opaque, unsigned cpu, u64 cr8)
{
    struct machine *m = opaque;

    m->tpr = cr8 << 4;
    if (intc_pending(opaque, cpu))
        m->ops->vcpu_event(m->vcpu, VCPU_EV_INTR);
}

static bool intc_read_msr(void *opaque, unsigned cpu, u32 msr, u64 *ret_value)
{
    struct machine *m = opaque;

    *ret_value = 0;
    if (msr == MSR_APIC_BASE)
        *ret_value = m->apic_base;
    else if (msr == MSR_X2APIC_VERSION)
        *ret_value = 0x50014;
    else if (msr == MSR_X2APIC_TPR)
        *ret_value = m->tpr;
    else if (msr == MSR_X2APIC_SPURIOUS)
        *ret_value = m->spurious;
    else if (msr >= MSR_X2APIC_ISR && msr < MSR_X2APIC_ISR + 8)
        *ret_value = (u32)(m->in_service[(msr & 7) / 2] >> (msr & 1) * 32);
    else if (msr >= MSR_X2APIC_IRR && msr < MSR_X2APIC_IRR + 8)
        *ret_value = (u32)(m->requested[(msr & 7) / 2] >> (msr & 1) * 32);
    else if (msr != MSR_X2APIC_ID)
        return false;
    return true;
}

static void request(struct machine *m, unsigned vector)
{
    m->requested[vector / 64] |= BIT(vector % 64);
    m->ops->vcpu_event(m->vcpu, VCPU_EV_INTR);
}

static bool intc_write_msr(void *opaque, unsigned cpu, u32 msr, u64 value)
{
    struct machine *m = opaque;
    int vector = highest(m->in_service);

    switch (msr) {
    case MSR_APIC_BASE:
        m->apic_base = value;
        return true;
    case MSR_X2APIC_TPR:
        intc_set_tpr(m, cpu, value >> 4);
        return true;
    case MSR_X2APIC_EOI:
        if (vector >= 0)
            m->in_service[vector / 64] &= ~BIT(vector % 64);
        if (intc_pending(m, cpu))
            m->ops->vcpu_event(m->vcpu, VCPU_EV_INTR);
        return true;
    case MSR_X2APIC_SPURIOUS:
        m->spurious = value;
        return true;
    case MSR_X2APIC_SELF:
        request(m, value & 0xff);
        return true;
    case MSR_X2APIC_ICR: /* there are no others; every other destination is this processor */
        if ((value & ICR_OTHERS) == ICR_OTHERS)
            return true;
        if ((value & ICR_MODE_MASK) == ICR_MODE_NMI)
            m->ops->vcpu_event(m->vcpu, VCPU_EV_NMI);
        else if (!(value & ICR_MODE_MASK))
            request(m, value & 0xff);
        return true;
    default:
        return false;
    }
}

static int intc_take_sipi(void *opaque, unsigned cpu)
{
    return -1;
}

int machine_ports_init(struct machine *m, struct err *err)
{
    int rc;

    m->exit_status = -1;
    m->apic_base = 0xfee00d00; /* x2APIC, enabled, boot processor */
    m->debug_port =
        (struct io_region){.name = "debug", .base = 0xe9, .len = 1, .ops = &debug_ops, .opaque = m};
    m->exit_port =
        (struct io_region){.name = "exit", .base = 0xf4, .len = 4, .ops = &exit_ops, .opaque = m};
    m->scratch = (struct io_region){.name = "scratch",
                                    .base = SCRATCH_BASE,
                                    .len = SCRATCH_BYTES,
                                    .ops = &scratch_ops,
                                    .opaque = m};
    m->config.intc = (struct accel_intc){
        .pending = intc_pending,
        .acknowledge = intc_acknowledge,
        .get_tpr = intc_get_tpr,
        .set_tpr = intc_set_tpr,
        .read_msr = intc_read_msr,
        .write_msr = intc_write_msr,
        .take_sipi = intc_take_sipi,
        .opaque = m,
    };
    aspace_init(&m->mmio, UINT64_MAX);
    aspace_init(&m->pio, 65536);
    rc = aspace_map(&m->pio, &m->debug_port, err);
    if (!rc)
        rc = aspace_map(&m->pio, &m->exit_port, err);
    if (!rc)
        rc = aspace_map(&m->mmio, &m->scratch, err);
    return rc;
}
