/*
 * Runs a case in a guest of the binary translator: one processor in 64-bit mode, without a board.
 *
 * Physical memory holds, below 2 MiB (mapped for the supervisor at HIGH): page tables, GDT, IDT, TSS, one stub per
 * exception vector, the supervisor's stack, and the pages that the case sees at DIFF_CODE, DIFF_DATA and DIFF_STACK. Every exception leads to its stub, which writes to a port; the port stops the processor. The vector is then
 * known from RIP, and the rest is in the exception's stack frame (SDM 3A, 6.14).
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "accel/accel.h"
#include "native.h"
#include "x86/xsave.h"

#define HIGH 0xffff800000000000ull
#define RAM_BYTES (16 * MiB)
#define AT_PML4 0x10000u
#define AT_PDPT 0x11000u
#define AT_PD 0x12000u
#define AT_PT 0x13000u /* three of them */
#define AT_HIGH_PDPT 0x16000u
#define AT_HIGH_PD 0x17000u
#define AT_GDT 0x20000u
#define AT_IDT 0x21000u
#define AT_STUBS 0x22000u
#define AT_TSS 0x23000u
#define AT_STACK0 0x28000u
#define AT_CODE 0x40000u
#define AT_DATA 0x50000u
#define AT_STACK 0x60000u
#define VECTORS 32u
#define STUB_BYTES 16u
#define STOP_PORT 0xf4u
#define PTE_P 1u
#define PTE_W 2u
#define PTE_U 4u
#define PTE_A 0x20u
#define PTE_D 0x40u
#define PTE_PS 0x80u
#define SECONDS 100 /* for what takes microseconds: the host may be busy */

static struct {
    const char *model_name;
    bool ready, broken, has_avx512;
    struct gmem ram;
    struct aspace mmio, pio;
    struct io_region port;
    struct cpu_model model;
    struct accel_machine machine;
    struct accel *accel;
    struct vcpu *vcpu;
    volatile sig_atomic_t late;
    struct x86_cpu state;
} g;

static void put64(u64 at, u64 value)
{
    gmem_write(&g.ram, at, &value, 8);
}

static void map_page(u64 linear, u64 physical, u64 bits)
{
    u64 directory = linear >> 21, table = AT_PT + (directory / 128 - 1) * DIFF_PAGE;

    put64(AT_PD + directory * 8, table | PTE_P | PTE_W | PTE_U | PTE_A);
    put64(table + (linear >> 12 & 511) * 8, physical | bits | PTE_P | PTE_U | PTE_A);
}

static void build_page_tables(void)
{
    put64(AT_PML4, AT_PDPT | PTE_P | PTE_W | PTE_U | PTE_A);
    put64(AT_PDPT, AT_PD | PTE_P | PTE_W | PTE_U | PTE_A);
    put64(AT_PML4 + 256 * 8, AT_HIGH_PDPT | PTE_P | PTE_W | PTE_A);
    put64(AT_HIGH_PDPT, AT_HIGH_PD | PTE_P | PTE_W | PTE_A);
    put64(AT_HIGH_PD, PTE_P | PTE_W | PTE_A | PTE_D | PTE_PS);
    map_page(DIFF_CODE, AT_CODE, 0);
    for (unsigned i = 0; i <= DIFF_RW_PAGES; i++)
        map_page(DIFF_DATA + i * DIFF_PAGE, AT_DATA + i * DIFF_PAGE,
                 i < DIFF_RW_PAGES ? PTE_W | PTE_D : 0);
    map_page(DIFF_STACK, AT_STACK, PTE_W | PTE_D);
}

static void build_tables(void)
{
    static const u64 gdt[] = {0, 0x00209b0000000000, /* 08: supervisor's code */
                              0x00cf93000000ffff,    /* 10: its data */
                              0x0020fb0000000000,    /* 18: user's code */
                              0x00cff3000000ffff,    /* 20: its data */
                              /* 28: the TSS */
                              0x00008b0000000067 | (u64)AT_TSS << 16, 0};

    gmem_write(&g.ram, AT_GDT, gdt, sizeof(gdt));
    put64(AT_TSS + 4, HIGH + AT_STACK0);
    gmem_write(&g.ram, AT_TSS + 0x66, (const u8[]){0xff, 0xff}, 2); /* no I/O permission map */
    for (unsigned i = 0; i < VECTORS; i++) {
        u64 stub = AT_STUBS + i * STUB_BYTES;
        /* Interrupt gates; INT3 and INTO may come from user code. */
        u64 type = i == VEC_BP || i == VEC_OF ? 0xee : 0x8e;

        put64(AT_IDT + i * 16, (stub & 0xffff) | 0x080000 | type << 40 | (stub & 0xffff0000) << 32);
        put64(AT_IDT + i * 16 + 8, HIGH >> 32);
        gmem_write(&g.ram, stub, (const u8[]){0xe6, STOP_PORT, 0xeb, 0xfe}, 4); /* out; jmp $ */
    }
}

static void stop(void *opaque, u64 offset, unsigned size, u64 value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)value;
    accel_bt.vcpu_event(g.vcpu, VCPU_EV_STOP);
}

static const struct io_ops port_ops = {.write = stop};

static bool never_pending(void *opaque, unsigned cpu)
{
    (void)opaque;
    (void)cpu;
    return false;
}

static int none_acknowledged(void *opaque, unsigned cpu)
{
    (void)opaque;
    (void)cpu;
    return -1;
}

static int guest_init(struct err *err)
{
    int r = gmem_init(&g.ram, RAM_BYTES, err);

    if (r)
        return r;
    aspace_init(&g.mmio, ~0ull);
    aspace_init(&g.pio, 65536);
    g.port = (struct io_region){.name = "stop", .base = STOP_PORT, .len = 1, .ops = &port_ops};
    r = aspace_map(&g.pio, &g.port, err);
    if (!r)
        r = cpu_model_init(&g.model, g.model_name ? g.model_name : "x86-64-v3", 1, err);
    g.machine = (struct accel_machine){
        .ram = &g.ram,
        .mmio = &g.mmio,
        .pio = &g.pio,
        .model = &g.model,
        .cpus = 1,
        .intc = {.pending = never_pending, .acknowledge = none_acknowledged},
        .name = "diff",
    };
    if (!r)
        r = accel_bt.probe(err);
    if (!r)
        r = accel_bt.new(&g.machine, &g.accel, err);
    if (!r)
        r = accel_bt.vcpu_new(g.accel, 0, &g.vcpu, err);
    if (!r)
        r = accel_bt.vcpu_attach(g.vcpu, err);
    if (r)
        return r;
    g.has_avx512 = g.model.xcr0_mask >> 5 & 1;
    build_page_tables();
    build_tables();
    g.ready = true;
    return 0;
}

/* User mode, everything flat. */
static void set_state(unsigned mode, const struct diff_regs *regs)
{
    struct x86_cpu *s = &g.state;
    const struct x86_seg data = {.limit = ~0u, .attr = 0xc0f3, .sel = 0x23};

    x86_cpu_reset(s, true);
    memcpy(s->gpr, regs->gpr, sizeof(s->gpr));
    s->rip = regs->rip;
    s->rflags = regs->rflags;
    for (unsigned i = 0; i < X86_SEGS; i++)
        s->seg[i] = data;
    s->seg[SEG_CS] =
        (struct x86_seg){.limit = ~0u, .attr = mode == 64 ? 0xa0fb : 0xc0fb, .sel = 0x1b};
    s->tr = (struct x86_seg){.base = HIGH + AT_TSS, .limit = 0x67, .attr = 0x8b, .sel = 0x28};
    s->ldt = (struct x86_seg){.attr = SEG_ATTR_UNUSABLE};
    s->gdt = (struct x86_dtable){.base = HIGH + AT_GDT, .limit = 7 * 8 - 1};
    s->idt = (struct x86_dtable){.base = HIGH + AT_IDT, .limit = VECTORS * 16 - 1};
    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    s->cr3 = AT_PML4;
    s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    s->msr.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->xcr0 = g.has_avx512 ? 0xe7 : 7;
    u8 host[X86_XSAVE_BYTES] = {0};
    native_put_vectors(host, regs, g.has_avx512);
    xsave_from_host(s->xsave, host, sizeof(host));
}

static void fill_memory(const struct diff_case *c)
{
    u8 page[DIFF_DATA_BYTES];

    memset(page, 0xcc, DIFF_PAGE);
    memcpy(page, c->code, c->len);
    gmem_write(&g.ram, AT_CODE, page, DIFF_PAGE);
    diff_fill(c->memory_seed, page, DIFF_DATA_BYTES);
    gmem_write(&g.ram, AT_DATA, page, DIFF_DATA_BYTES);
    diff_fill(c->memory_seed + 1, page, DIFF_PAGE);
    gmem_write(&g.ram, AT_STACK, page, DIFF_PAGE);
}

static bool pushes_error(u8 vector)
{
    return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

static void take_result(struct diff_result *ret)
{
    const struct x86_cpu *s = &g.state;
    u64 frame[5], at = s->gpr[RSP] - HIGH;
    u64 stub = s->rip - HIGH - AT_STUBS;
    u8 vector = stub < VECTORS * STUB_BYTES ? (u8)(stub / STUB_BYTES) : 0xff;

    memcpy(ret->regs.gpr, s->gpr, sizeof(ret->regs.gpr));
    u8 host[X86_XSAVE_BYTES] = {0};
    xsave_to_host(s->xsave, host, sizeof(host));
    native_vectors(host, &ret->regs);
    gmem_read(&g.ram, AT_DATA, ret->data, sizeof(ret->data));
    gmem_read(&g.ram, AT_STACK, ret->stack, sizeof(ret->stack));
    ret->end.vector = vector;
    ret->regs.rip = s->rip;
    ret->regs.rflags = s->rflags;
    if (vector == 0xff ||
        gmem_read(&g.ram, at + (pushes_error(vector) ? 8 : 0), frame, sizeof(frame)))
        return;
    ret->regs.rip = frame[0];
    ret->regs.rflags = frame[2];
    ret->regs.gpr[RSP] = frame[3];
    if (vector != VEC_PF)
        return;
    gmem_read(&g.ram, at, &ret->end.error, 4);
    ret->end.error &= 7;
    ret->end.address = s->cr2;
}

static void too_late(int sig)
{
    (void)sig;
    accel_bt.vcpu_event(g.vcpu, VCPU_EV_STOP);
}

void diff_use_model(const char *name)
{
    g.model_name = name;
}

int diff_run_guest(const struct diff_case *c, struct diff_result *ret)
{
    struct err err = ERR_INIT;
    enum vcpu_exit end;

    if (!g.ready && !g.broken && guest_init(&err)) {
        g.broken = true;
        printf("# no guest: %s\n", err.msg);
    }
    if (g.broken)
        return -ENOSYS;
    memset(ret, 0, sizeof(*ret));
    fill_memory(c);
    set_state(c->mode, &c->regs);
    accel_bt.vcpu_set(g.vcpu, &g.state, &err);
    /* on a stack of its own: the guest's stack pointer is the thread's */
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = too_late, .sa_flags = SA_ONSTACK | SA_RESTART}, NULL);
    alarm(SECONDS);
    end = accel_bt.vcpu_run(g.vcpu, &err);
    alarm(0);
    accel_bt.vcpu_get(g.vcpu, &g.state, &err);
    take_result(ret);
    if (end != VCPU_STOPPED)
        ret->end.vector = 0xfe;
    return 0;
}
