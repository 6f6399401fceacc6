/*
 * Physical memory: interrupt tables, page tables and stubs low, code at MACHINE_CODE, data. With paging the first 16 MiB are
 * mapped one to one, open to everyone, but for the 2 MiB at DATA, whose first pages differ in their rights. Everything is
 * written anew for each run: hostile code of a kernel changes what it likes. One thread.
 */
#include "machine.h"

#include <signal.h>
#include <string.h>
#include <sys/time.h>

#define RAM_BYTES (16 * MiB)
#define AT_STUB 0x700u
#define AT_PML4 0x10000u
#define AT_PDPT 0x11000u
#define AT_PD 0x12000u
#define AT_PT 0x13000u
#define AT_GDT 0x14000u
#define AT_IDT64 0x15000u
#define AT_IDT32 0x16000u
#define AT_TSS 0x17000u
#define AT_STACK 0x40000u
#define DATA (2 * MiB)
#define DEVICE 0xd0000000ull
#define STOP_PORT 0xf4u
#define RUN_US 3000
#define LONG (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
#define PAGED (CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG)
#define UNITS (CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE)

const struct mode modes[] = {
    {"64-bit user", 64, PAGED, UNITS, LONG, 2, 0xa0fb, 0xc0f3, 0, ~0u},
    {"64-bit kernel", 64, PAGED, UNITS | CR4_FSGSBASE, LONG, 2, 0xa09b, 0xc093, 0, ~0u},
    {"32-bit user in long mode", 32, PAGED, UNITS, LONG, 2, 0xc0fb, 0xc0f3, 0, ~0u},
    {"16-bit user in long mode", 16, PAGED, UNITS, LONG, 2, 0x00fb, 0x00f3, 0, 0x3ffff},
    {"64-bit user, alignment checks", 64, PAGED | CR0_AM, UNITS, LONG, 2 | FL_AC, 0xa0fb, 0xc0f3, 0,
     ~0u},
    {"64-bit user, single steps", 64, PAGED, UNITS, LONG, 2 | FL_TF, 0xa0fb, 0xc0f3, 0, ~0u},
    {"32-bit", 32, CR0_PE | CR0_ET | CR0_NE, UNITS, 0, 2, 0xc09b, 0xc093, 0, ~0u},
    {"32-bit with segments", 32, CR0_PE | CR0_ET, UNITS, 0, 2, 0x409b, 0x4093, 0x1000, 0xfffff},
    {"16-bit protected", 16, CR0_PE | CR0_ET, UNITS, 0, 2, 0x009b, 0x0093, 0, 0x4ffff},
    {"real", 16, CR0_ET, UNITS, 0, 2, 0x009b, 0x0093, 0, 0xffff},
    {"virtual-8086", 16, CR0_PE | CR0_ET, UNITS, 0, 2 | FL_VM, 0x00f3, 0x00f3, 0, 0xffff},
};
const unsigned nmodes = ARRAY_LEN(modes);

static struct {
    struct gmem ram;
    struct aspace mmio, pio;
    struct io_region port, device;
    struct cpu_model model;
    struct accel_machine machine;
    struct accel *accel;
    struct vcpu *vcpu;
    struct x86_cpu state;
} g;

static void stop(void *opaque, u64 offset, unsigned size, u64 value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
    accel_bt.vcpu_event(g.vcpu, VCPU_EV_STOP);
}

static u64 read_device(void *opaque, u64 offset, unsigned size)
{
    (void)opaque, (void)size;
    return offset * 0x0101010101010101ull;
}

static void write_device(void *opaque, u64 offset, unsigned size, u64 value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
}

static const struct io_ops port_ops = {.read = read_device, .write = stop};
static const struct io_ops device_ops = {.read = read_device, .write = write_device};

static void on_alarm(int sig)
{
    (void)sig;
    accel_bt.vcpu_event(g.vcpu, VCPU_EV_STOP);
}

static bool never_pending(void *opaque, unsigned cpu)
{
    (void)opaque, (void)cpu;
    return false;
}

static int none(void *opaque, unsigned cpu)
{
    (void)opaque, (void)cpu;
    return -1;
}

int machine_make(struct err *err)
{
    struct sigaction alarm = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
    int r = gmem_init(&g.ram, RAM_BYTES, err);

    if (r)
        return r;
    aspace_init(&g.mmio, ~0ull);
    aspace_init(&g.pio, 65536);
    g.port = (struct io_region){.name = "stop", .base = STOP_PORT, .len = 1, .ops = &port_ops};
    g.device =
        (struct io_region){.name = "device", .base = DEVICE, .len = 4096, .ops = &device_ops};
    r = aspace_map(&g.pio, &g.port, err);
    if (!r)
        r = aspace_map(&g.mmio, &g.device, err);
    if (!r)
        r = cpu_model_init(&g.model, "host", 1, err);
    g.machine = (struct accel_machine){.ram = &g.ram,
                                       .mmio = &g.mmio,
                                       .pio = &g.pio,
                                       .model = &g.model,
                                       .cpus = 1,
                                       .intc = {.pending = never_pending, .acknowledge = none},
                                       .name = "hostile"};
    if (!r)
        r = accel_bt.new(&g.machine, &g.accel, err);
    if (!r)
        r = accel_bt.vcpu_new(g.accel, 0, &g.vcpu, err);
    if (!r)
        r = accel_bt.vcpu_attach(g.vcpu, err);
    sigaction(SIGALRM, &alarm, NULL);
    return r;
}

static void put64(u64 at, u64 value)
{
    gmem_write(&g.ram, at, &value, 8);
}

static void fill_tables(void)
{
    static const u64 pages[] = {0x300067, 0x380067, 0, 0x390065, DEVICE | 0x67, 0x3a0063};
    static const u64 gdt[] = {0,
                              0x00209b0000000000,
                              0x00cf93000000ffff,
                              0x00cf9b000000ffff,
                              0x00008b0000000067 | (u64)AT_TSS << 16,
                              0};

    put64(AT_PML4, AT_PDPT | 0x27);
    put64(AT_PDPT, AT_PD | 0x27);
    for (u64 i = 0; i < 8; i++)
        put64(AT_PD + i * 8, i << 21 | 0xe7);
    put64(AT_PD + 8, AT_PT | 0x27);
    for (unsigned i = 0; i < 512; i++)
        put64(AT_PT + i * 8, i < ARRAY_LEN(pages) ? pages[i] : 0);
    gmem_write(&g.ram, AT_GDT, gdt, sizeof(gdt));
    put64(AT_TSS + 4, AT_STACK);
    for (unsigned i = 0; i < 256; i++) {
        put64(AT_IDT64 + i * 16, AT_STUB | 0x08 << 16 | 0xee00ull << 32);
        put64(AT_IDT64 + i * 16 + 8, 0);
        put64(AT_IDT32 + i * 8, AT_STUB | 0x18 << 16 | 0xee00ull << 32);
    }
    for (unsigned i = 0; i < 256; i++)
        gmem_write(&g.ram, i * 4, &(u32){AT_STUB}, 4);
    gmem_write(&g.ram, AT_STUB, (const u8[]){0xe6, STOP_PORT, 0xeb, 0xfe}, 4); /* out; jmp $ */
}

u64 machine_data(const struct mode *mode)
{
    return mode->cr0 & CR0_PG ? DATA : mode->limit > 0xffff ? 0x30000 : 0x3000;
}

void machine_prepare(const struct mode *mode, const u8 *code, unsigned len, const u64 gpr[X86_GPRS])
{
    struct x86_cpu *s = &g.state;
    bool small = mode->limit == 0xffff; /* selectors are bases */
    u64 lin = small ? MACHINE_CODE & 0xffff : MACHINE_CODE, components = 0xe7;
    const struct x86_seg data = {
        .base = mode->base, .limit = mode->limit, .attr = mode->data, .sel = 0};
    struct err err = ERR_INIT;

    fill_tables();
    gmem_write(&g.ram, lin, code, len);
    x86_cpu_reset(s, true);
    memcpy(s->gpr, gpr, sizeof(s->gpr));
    s->rip = lin - mode->base;
    s->rflags = mode->rflags;
    for (unsigned i = 0; i < X86_SEGS; i++)
        s->seg[i] = data;
    s->seg[SEG_CS].attr = mode->code;
    s->seg[SEG_CS].sel = (mode->code >> SEG_ATTR_DPL_SHIFT & 3) && !small ? 0x1b : small ? 0 : 8;
    s->tr = (struct x86_seg){.base = AT_TSS, .limit = 0x67, .attr = 0x8b, .sel = 0x20};
    s->ldt = (struct x86_seg){.attr = SEG_ATTR_UNUSABLE};
    s->gdt = (struct x86_dtable){.base = AT_GDT, .limit = 6 * 8 - 1};
    bool is_long = mode->efer & EFER_LMA, is_real = !(mode->cr0 & CR0_PE);
    s->idt = (struct x86_dtable){.base = is_long   ? AT_IDT64
                                         : is_real ? 0
                                                   : AT_IDT32,
                                 .limit = is_real   ? 0x3ff
                                          : is_long ? 0xfff
                                                    : 0x7ff};
    s->cr0 = mode->cr0, s->cr3 = AT_PML4, s->cr4 = mode->cr4, s->msr.efer = mode->efer;
    s->xcr0 = g.model.xcr0_mask & components;
    accel_bt.vcpu_set(g.vcpu, s, &err);
}

void machine_run(void)
{
    const struct itimerval on = {.it_value.tv_usec = RUN_US}, off = {0};
    struct err err = ERR_INIT;

    setitimer(ITIMER_REAL, &on, NULL);
    accel_bt.vcpu_run(g.vcpu, &err);
    setitimer(ITIMER_REAL, &off, NULL);
}
