/*
 * A processor for tests of the system helpers: flat guest memory (without paging) in place of the translator's tables, and
 * raise*() that come back to run(). Include it in one file per program.
 */
#ifndef UNIT_BT_MOCK_H
#define UNIT_BT_MOCK_H

#include "unit.h"

#include "accel/bt/sys.h"
#include "x86/cpuid.h"

#define MOCK_RAM (1u << 20)
#define MOCK_NO_FAULT (-1)
#define MOCK_BASE64 0xffff800000000000ull /* the same memory again, in the upper half */

static u8 mock_ram[MOCK_RAM] __attribute__((aligned(4096)));
static u64 mock_hole = ~0ull; /* page that faults */
static u64 mock_slow = ~0ull; /* page without a host pointer */
static jmp_buf mock_raised;
static struct cpu_model mock_model;
static unsigned mock_flushes, mock_port, mock_port_size;
static u64 mock_port_value;

noreturn void raise_exception(struct cpu *c, enum x86_vector vector)
{
    c->exc_vector = (u8)vector;
    c->exc_has_error = 0;
    longjmp(mock_raised, 1);
}

noreturn void raise_error(struct cpu *c, enum x86_vector vector, u32 error)
{
    c->exc_vector = (u8)vector;
    c->exc_has_error = 1;
    c->exc_error = error;
    longjmp(mock_raised, 1);
}

noreturn void raise_page_fault(struct cpu *c, u64 lin, u32 error)
{
    c->cr2 = lin;
    raise_error(c, VEC_PF, error);
}

static u8 *mock_byte(struct cpu *c, u64 lin, bool write)
{
    u64 at = lin >= MOCK_BASE64 ? lin - MOCK_BASE64 : lin;

    if (at >= MOCK_RAM || (at & ~0xfffull) == mock_hole)
        raise_page_fault(c, lin, write ? 2 : 0);
    return &mock_ram[at];
}

void mem_probe(struct cpu *c, u64 lin, unsigned len, bool write, enum mem_as as)
{
    (void)as;
    for (unsigned i = 0; i < len; i++)
        mock_byte(c, lin + i, write);
}

u64 mem_load(struct cpu *c, u64 lin, unsigned size, enum mem_as as)
{
    u64 value = 0;

    mem_probe(c, lin, size, false, as);
    for (unsigned i = 0; i < size; i++)
        value |= (u64)*mock_byte(c, lin + i, false) << i * 8;
    return value;
}

void mem_store(struct cpu *c, u64 lin, unsigned size, u64 value, enum mem_as as)
{
    mem_probe(c, lin, size, true, as);
    for (unsigned i = 0; i < size; i++)
        *mock_byte(c, lin + i, true) = (u8)(value >> i * 8);
}

void *mem_span(struct cpu *c, u64 lin, bool write, unsigned *ret_len, enum mem_as as)
{
    u8 *p = mock_byte(c, lin, write);

    (void)as;
    if (((u64)(p - mock_ram) & ~0xfffull) == mock_slow)
        return NULL;
    *ret_len = 4096 - (unsigned)(lin & 0xfff);
    return p;
}

void cpu_update_mode(struct cpu *c)
{
    const struct x86_seg *cs = &c->seg[SEG_CS];

    if ((c->msr.efer & EFER_LMA) && (cs->attr & SEG_ATTR_L))
        c->mode = MODE_CODE64;
    else
        c->mode = cs->attr & SEG_ATTR_DB ? MODE_CODE32 : MODE_CODE16;
}

void mmu_set_cr3(struct cpu *c, u64 cr3, bool keep)
{
    (void)c, (void)cr3, (void)keep;
    mock_flushes++;
}

void mmu_flush_page(struct cpu *c, u64 lin)
{
    (void)c, (void)lin;
    mock_flushes++;
}

void mmu_flush_all(struct cpu *c, bool global)
{
    (void)c, (void)global;
    mock_flushes++;
}

void mmu_flush_pcid(struct cpu *c, u16 pcid, bool one, u64 lin)
{
    (void)c, (void)pcid, (void)one, (void)lin;
    mock_flushes++;
}

u64 heavy_call(struct cpu *c, u64 (*fn)(u64 a, u64 b, u64 c3), u64 a, u64 b, u64 c3)
{
    (void)c;
    return fn(a, b, c3);
}

u64 io_read(struct cpu *c, u16 port, unsigned size)
{
    (void)c;
    mock_port = port;
    mock_port_size = size;
    return mock_port_value++;
}

void io_write(struct cpu *c, u16 port, unsigned size, u64 value)
{
    (void)c;
    mock_port = port;
    mock_port_size = size;
    mock_port_value = value;
}

static struct insn mock_decode(struct cpu *c, const char *hex)
{
    static const unsigned size[] = {16, 32, 64};
    struct insn in;
    u8 bytes[INSN_MAX] = {0};
    unsigned n = 0, byte;
    int used;

    for (; sscanf(hex, "%x%n", &byte, &used) == 1; hex += used)
        bytes[n++] = (u8)byte;
    cpu_update_mode(c);
    assert_int_equal(insn_decode(bytes, n, size[c->mode & MODE_CODE_MASK], &in), INSN_OK);
    assert_int_equal(in.len, n);
    return in;
}

static int mock_execute(struct cpu *c, const struct insn *in, sys_fn *fn)
{
    c->rip_set = false;
    if (setjmp(mock_raised))
        return c->exc_vector;
    fn(c, in);
    if (!c->rip_set)
        c->rip += in->len;
    return MOCK_NO_FAULT;
}

/* Runs one instruction given in hex at c->rip, in the current mode; the vector it raised, or MOCK_NO_FAULT. Strings
 * and what the translator otherwise does itself run through `fn`. */
__attribute__((unused)) static int run_with(struct cpu *c, const char *hex, sys_fn *fn)
{
    struct insn in = mock_decode(c, hex);

    return mock_execute(c, &in, fn);
}

__attribute__((unused)) static int run(struct cpu *c, const char *hex)
{
    struct insn in = mock_decode(c, hex);

    assert_non_null(in.form->sys);
    return mock_execute(c, &in, in.form->sys);
}

__attribute__((unused)) static int deliver(struct cpu *c, u8 vector, bool has_error, u32 error,
                                           enum deliver_kind kind)
{
    if (setjmp(mock_raised))
        return c->exc_vector;
    deliver_event(c, vector, has_error, error, kind);
    return MOCK_NO_FAULT;
}

/* --- descriptors; the GDT is at 0x1000, the IDT at 0x2000, the TSS at 0x3000 --- */

#define MOCK_GDT 0x1000u
#define MOCK_IDT 0x2000u
#define MOCK_TSS 0x3000u

__attribute__((unused)) static void put(u64 at, unsigned size, u64 value)
{
    memcpy(&mock_ram[at], &value, size);
}

__attribute__((unused)) static u64 get(u64 at, unsigned size)
{
    u64 value = 0;

    memcpy(&value, &mock_ram[at], size);
    return value;
}

/* attr: as in struct x86_seg */
static u64 mock_desc(u32 base, u32 limit, u32 attr)
{
    return (limit & 0xffffull) | (base & 0xffffffull) << 16 | (u64)attr << 40 |
           (u64)(limit >> 16 & 15) << 48 | (u64)(base >> 24) << 56;
}

__attribute__((unused)) static u64 mock_gate(u16 sel, u32 off, unsigned type, unsigned dpl)
{
    return (off & 0xffffull) | (u64)sel << 16 | (u64)(0x80 | dpl << 5 | type) << 40 |
           (u64)(off >> 16) << 48;
}

static struct x86_seg mock_seg(u16 sel, u32 attr)
{
    return (struct x86_seg){.sel = sel, .limit = 0xffffffff, .attr = attr};
}

enum {
    SEL_CODE64 = 0x08,
    SEL_DATA = 0x10,
    SEL_CODE32 = 0x18,
    SEL_UCODE32 = 0x23,
    SEL_UDATA = 0x2b,
    SEL_UCODE64 = 0x33,
    SEL_CODE16 = 0x38,
    SEL_DATA16 = 0x40,
    SEL_ABSENT = 0x48,
    SEL_CONFORMING = 0x50,
    SEL_TSS = 0x60,
    SEL_GATE = 0x70,
    SEL_TSS2 = 0x80,
    SEL_TASK_GATE = 0x88,
};

static void mock_tables(struct cpu *c)
{
    put(MOCK_GDT + SEL_CODE64, 8, mock_desc(0, 0xfffff, 0xa09a));
    put(MOCK_GDT + SEL_DATA, 8, mock_desc(0, 0xfffff, 0xc092));
    put(MOCK_GDT + SEL_CODE32, 8, mock_desc(0, 0xfffff, 0xc09a));
    put(MOCK_GDT + (SEL_UCODE32 & ~3), 8, mock_desc(0, 0xfffff, 0xc0fa));
    put(MOCK_GDT + (SEL_UDATA & ~3), 8, mock_desc(0, 0xfffff, 0xc0f2));
    put(MOCK_GDT + (SEL_UCODE64 & ~3), 8, mock_desc(0, 0xfffff, 0xa0fa));
    put(MOCK_GDT + SEL_CODE16, 8, mock_desc(0, 0xffff, 0x009a));
    put(MOCK_GDT + SEL_DATA16, 8, mock_desc(0x10000, 0xffff, 0x0092));
    put(MOCK_GDT + SEL_ABSENT, 8, mock_desc(0, 0xfffff, 0xc012));
    put(MOCK_GDT + SEL_CONFORMING, 8, mock_desc(0, 0xfffff, 0xc09e));
    c->gdt = (struct x86_dtable){.base = MOCK_GDT, .limit = 0xff};
    c->idt = (struct x86_dtable){.base = MOCK_IDT, .limit = 0xfff};
    c->tr = (struct x86_seg){.base = MOCK_TSS, .limit = 0x67, .attr = 0x8b, .sel = SEL_TSS};
    c->ldt = (struct x86_seg){.attr = SEG_ATTR_UNUSABLE};
}

static struct cpu mock_cpu(void)
{
    struct cpu c = {.rflags = 2, .model = &mock_model, .dr7 = 0x400, .xcr0 = 1};

    memset(mock_ram, 0, sizeof(mock_ram));
    mock_hole = mock_slow = ~0ull;
    if (!mock_model.nleaves) {
        assert_int_equal(cpu_model_init(&mock_model, "default", 2, NULL), 0);
        insn_init(&mock_model);
    }
    mock_tables(&c);
    return c;
}

__attribute__((unused)) static struct cpu mock_real(void)
{
    struct cpu c = mock_cpu();

    for (unsigned i = 0; i < X86_SEGS; i++)
        c.seg[i] = (struct x86_seg){.limit = 0xffff, .attr = i == SEG_CS ? 0x9b : 0x93};
    c.idt = (struct x86_dtable){.limit = 0x3ff};
    cpu_update_mode(&c);
    return c;
}

static void mock_flat(struct cpu *c, unsigned cpl, u16 code, u32 code_attr, u16 data)
{
    for (unsigned i = 0; i < X86_SEGS; i++)
        c->seg[i] = mock_seg(data, cpl ? 0xc0f3 : 0xc093);
    c->seg[SEG_CS] = mock_seg(code, code_attr);
    c->cpl = (u8)cpl;
    cpu_update_mode(c);
}

__attribute__((unused)) static struct cpu mock_protected(unsigned cpl)
{
    struct cpu c = mock_cpu();

    c.cr0 = CR0_PE | CR0_ET;
    if (cpl)
        mock_flat(&c, 3, SEL_UCODE32, 0xc0fb, SEL_UDATA);
    else
        mock_flat(&c, 0, SEL_CODE32, 0xc09b, SEL_DATA);
    return c;
}

__attribute__((unused)) static struct cpu mock_long(unsigned cpl)
{
    struct cpu c = mock_cpu();

    c.cr0 = CR0_PE | CR0_PG | CR0_ET;
    c.cr4 = CR4_PAE;
    c.msr.efer = EFER_LME | EFER_LMA | EFER_SCE;
    if (cpl)
        mock_flat(&c, 3, SEL_UCODE64, 0xa0fb, SEL_UDATA);
    else
        mock_flat(&c, 0, SEL_CODE64, 0xa09b, SEL_DATA);
    return c;
}

#endif
