/*
 * Traps and descriptor tables. The stubs (trap32.S, trap64.S) push a frame and call trap_handler(); its answer says
 * whether to return to the frame or to go on where the running TRY (or user_call) wants.
 */
#include "payload.h"

volatile struct trap trap;
word trap_at, trap_resume_ip, trap_resume_sp;
bool (*trap_hook)(struct trap_frame *f);
extern const char trap_stubs[]; /* 256 stubs of 16 bytes */
bool trap_handler(struct trap_frame *f);

/* True: go on at trap_resume_ip; false: return to the frame. Called by the stubs. */
bool trap_handler(struct trap_frame *f)
{
    unsigned count = trap.count + 1;

    if (trap_hook && trap_hook(f))
        return false;
    trap.vector = f->vector;
    trap.error = f->error;
    trap.ip = f->ip;
    trap.cs = f->cs;
    trap.flags = f->flags;
    trap.sp = f->sp;
    trap.ss = f->ss;
    trap.cr2 = read_cr2();
    trap.ax = f->ax;
    trap.bx = f->bx;
    trap.cx = f->cx;
    trap.dx = f->dx;
    trap.si = f->si;
    trap.di = f->di;
    trap.bp = f->bp;
    trap.count = count;
    if (trap_resume_ip)
        return true;
    say("# unexpected trap: vector %lu error 0x%lx ip 0x%lx cs 0x%lx flags 0x%lx sp 0x%lx cr2 "
        "0x%lx\n",
        f->vector, f->error, f->ip, f->cs, f->flags, f->sp, trap.cr2);
    report(false, "no unexpected trap");
    finish();
}

bool trapped(unsigned vector, word error)
{
    return trap.vector == vector && trap.error == error && trap.ip == trap_at && trap.count == 1;
}

static void explain(unsigned vector, word error)
{
    if (trap.vector == VEC_NONE)
        say("# no trap; wanted vector %u error 0x%lx\n", vector, error);
    else
        say("# got vector %lu error 0x%lx ip 0x%lx cr2 0x%lx; wanted vector %u error 0x%lx ip "
            "0x%lx\n",
            trap.vector, trap.error, trap.ip, trap.cr2, vector, error, trap_at);
}

void report_trap(unsigned vector, word error, const char *name)
{
    bool ok = trapped(vector, error);

    if (!ok)
        explain(vector, error);
    report(ok, name);
}

void report_page_fault(word error, word addr, const char *name)
{
    bool ok = trapped(VEC_PF, error) && trap.cr2 == addr;

    if (!ok) {
        explain(VEC_PF, error);
        say("# wanted cr2 0x%lx\n", addr);
    }
    report(ok, name);
}

void report_no_trap(const char *name)
{
    bool ok = trap.vector == VEC_NONE;

    if (!ok)
        say("# got vector %lu error 0x%lx ip 0x%lx cr2 0x%lx\n", trap.vector, trap.error, trap.ip,
            trap.cr2);
    report(ok, name);
}

void idt_set(unsigned vector, const void *entry, u16 sel, u8 type)
{
    struct idt_entry e = {.offset_low = (u16)(word)entry,
                          .sel = sel,
                          .type = type,
                          .offset_mid = (u16)((word)entry >> 16)};

#ifdef __x86_64__
    e.offset_high = (u32)((word)entry >> 32);
#endif
    idt[vector] = e;
}

void gdt_set(u16 sel, u32 base, u32 limit, u16 attr)
{
    gdt[sel / 8] = (u64)(base >> 24) << 56 | (u64)(attr & 0xf000) << 40 |
                   (u64)(limit >> 16 & 0xf) << 48 | (u64)(attr & 0xff) << 40 |
                   (u64)(base & 0xffffff) << 16 | (limit & 0xffff);
}

static void tss_init(void)
{
    static u8 stacks[2][8192] __attribute__((aligned(16)));
    word base = (word)&tss, limit = sizeof(tss) + sizeof(tss_iomap) - 1;

    memset(tss_iomap, 0xff, sizeof(tss_iomap));
    tss.iomap = sizeof(tss);
#ifdef __x86_64__
    tss.rsp[0] = (word)(stacks + 1);
    tss.ist[1] = (word)(stacks + 2);
    gdt[SEL_TSS / 8 + 1] = base >> 32;
#else
    tss.esp0 = (word)(stacks + 1);
    tss.ss0 = SEL_DATA;
#endif
    gdt_set(SEL_TSS, (u32)base, (u32)limit, 0x89);
    load_tr(SEL_TSS);
}

void trap_init(void);
void trap_init(void)
{
    struct __attribute__((packed)) {
        u16 limit;
        word base;
    } idtr = {sizeof(idt) - 1, (word)idt};

    for (unsigned i = 0; i < 256; i++)
        idt_set(i, trap_stubs + i * 16, SEL_CODE, GATE_INT);
    idt[VEC_USER_EXIT].type = GATE_INT | 3 << SEG_ATTR_DPL_SHIFT;
    asm volatile("lidt %0" : : "m"(idtr));
    tss_init();
    trap_clear();
}
