/* The board as a test bench. */
#include "pc.h"
#include "base/log.h"

static void record_event(void *opaque, enum machine_event event, int value)
{
    struct pc *pc = opaque;

    assert_true(pc->nevents < PC_EVENTS);
    pc->events[pc->nevents].event = event;
    pc->events[pc->nevents++].value = value;
}

static void record_kick(void *opaque, unsigned cpu, u32 bits)
{
    struct pc *pc = opaque;

    pc->kicks[cpu] |= bits;
}

static size_t console_write(struct chardev *c, const u8 *buf, size_t len)
{
    struct pc *pc = CONTAINER_OF(c, struct pc, console);
    size_t n = MIN(len, pc->room);

    n = MIN(n, sizeof(pc->out) - pc->nout);
    memcpy(pc->out + pc->nout, buf, n);
    pc->nout += n;
    pc->room -= n;
    return n;
}

static void console_accept(struct chardev *c)
{
    CONTAINER_OF(c, struct pc, console)->accepts++;
}

static void debug_write(void *opaque, u8 byte)
{
    struct pc *pc = opaque;

    if (pc->ndebug < sizeof(pc->debug))
        pc->debug[pc->ndebug++] = byte;
}

static u64 stepped_tsc(void *opaque)
{
    struct pc *pc = opaque;

    return (u64)timerq_now(&pc->q) * PC_TSC_KHZ / 1000000;
}

static s64 stepped_wall(void *opaque)
{
    struct pc *pc = opaque;

    return PC_WALL_S * NS_PER_S + timerq_now(&pc->q);
}

void pc_init(struct pc *pc, unsigned cpus)
{
    struct board_config c = {.name = "test", .cpus = cpus};
    struct err err = ERR_INIT;

    memset(pc, 0, sizeof(*pc));
    log_set_level(LOG_ERROR);
    assert_int_equal(gmem_init(&pc->ram, PC_RAM, &err), 0);
    timerq_init(&pc->q);
    pc->q.stepped = true;
    pc->model.tsc_khz = PC_TSC_KHZ;
    pc->model.phys_bits = 40;
    pc->console = (struct chardev){.write = console_write, .accept_input = console_accept};
    pc->room = sizeof(pc->out);
    c.ram = &pc->ram;
    c.model = &pc->model;
    c.timers = &pc->q;
    c.console = &pc->console;
    c.sink = (struct event_sink){record_event, pc};
    c.kicker = (struct cpu_kicker){record_kick, pc};
    c.debug_console = 0x402;
    c.debug_exit = 0xf4;
    c.hpet = true;
    c.debug_write = debug_write;
    c.debug_opaque = pc;
    assert_int_equal(board_new(&c, &pc->b, &err), 0);
    pc->b->lapic.host_tsc = stepped_tsc;
    pc->b->lapic.host_tsc_opaque = pc;
    pc->b->rtc.wall_ns = stepped_wall;
    pc->b->rtc.wall_opaque = pc;
    rtc_reset(&pc->b->rtc);
    for (unsigned i = 0; i < cpus; i++)
        board_set_cpu_timers(pc->b, i, &pc->q);
}

void pc_fini(struct pc *pc)
{
    board_free(pc->b);
    timerq_fini(&pc->q);
    gmem_fini(&pc->ram);
}

void pc_step(struct pc *pc, s64 ns)
{
    timerq_step(&pc->q, ns);
}

u32 pc_in(struct pc *pc, u16 port, unsigned size)
{
    return (u32)aspace_read(board_pio(pc->b), port, size);
}

void pc_out(struct pc *pc, u16 port, unsigned size, u32 value)
{
    aspace_write(board_pio(pc->b), port, size, value);
}

u8 pc_inb(struct pc *pc, u16 port)
{
    return (u8)pc_in(pc, port, 1);
}

void pc_outb(struct pc *pc, u16 port, u8 value)
{
    pc_out(pc, port, 1, value);
}

u32 pc_take_kicks(struct pc *pc, unsigned cpu)
{
    u32 bits = pc->kicks[cpu];

    pc->kicks[cpu] = 0;
    return bits;
}

u32 pc_apic_read(struct pc *pc, unsigned cpu, u32 offset)
{
    board_enter_cpu(pc->b, cpu);
    return (u32)aspace_read(board_mmio(pc->b), MEMMAP_LAPIC + offset, 4);
}

void pc_apic_write(struct pc *pc, unsigned cpu, u32 offset, u32 value)
{
    board_enter_cpu(pc->b, cpu);
    aspace_write(board_mmio(pc->b), MEMMAP_LAPIC + offset, 4, value);
}

u32 pc_ioapic_read(struct pc *pc, u32 index)
{
    aspace_write(board_mmio(pc->b), MEMMAP_IOAPIC, 4, index);
    return (u32)aspace_read(board_mmio(pc->b), MEMMAP_IOAPIC + 0x10, 4);
}

void pc_ioapic_write(struct pc *pc, u32 index, u32 value)
{
    aspace_write(board_mmio(pc->b), MEMMAP_IOAPIC, 4, index);
    aspace_write(board_mmio(pc->b), MEMMAP_IOAPIC + 0x10, 4, value);
}

static void init_pic(struct pc *pc, u16 port, u8 base, u8 cascade, u8 mask)
{
    pc_outb(pc, port, 0x11);
    pc_outb(pc, port + 1, base);
    pc_outb(pc, port + 1, cascade);
    pc_outb(pc, port + 1, 0x01);
    pc_outb(pc, port + 1, mask);
}

void pc_enable_apics(struct pc *pc)
{
    init_pic(pc, 0x20, 0x30, 4, 0xff);
    init_pic(pc, 0xa0, 0x38, 2, 0xff);
    for (unsigned i = 0; i < pc->b->config.cpus; i++) {
        pc_apic_write(pc, i, 0xf0, 0x1ff);
        pc_apic_write(pc, i, 0x80, 0);
        pc_apic_write(pc, i, 0xe0, 0xffffffff);
        pc_apic_write(pc, i, 0xd0, 1u << (24 + i % 8));
    }
}

void pc_init_pics(struct pc *pc)
{
    init_pic(pc, 0x20, 0x20, 4, 0);
    init_pic(pc, 0xa0, 0x28, 2, 0);
    pc_apic_write(pc, 0, 0xf0, 0x1ff);
    pc_apic_write(pc, 0, 0x350, 0x700);
}

bool pc_pending(struct pc *pc, unsigned cpu)
{
    struct accel_intc intc = board_intc(pc->b);

    return intc.pending(intc.opaque, cpu);
}

int pc_ack(struct pc *pc, unsigned cpu)
{
    struct accel_intc intc = board_intc(pc->b);

    return intc.acknowledge(intc.opaque, cpu);
}

void pc_eoi(struct pc *pc, unsigned cpu)
{
    pc_apic_write(pc, cpu, 0xb0, 0);
}
