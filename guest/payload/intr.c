/* Interrupts: delivery, masking, shadows, priorities, stacks, NMI (SDM 3A, chapters 6 and 10). Long mode. */
#include "apic.h"

#define LOG 16
static struct {
    word vector, ip, flags, sp;
} log[LOG];
static unsigned count;

static bool on_interrupt(struct trap_frame *f)
{
    if (f->vector < 0x20 && f->vector != VEC_NMI)
        return false;
    if (count < LOG) {
        log[count].vector = f->vector;
        log[count].ip = f->ip;
        log[count].flags = f->flags;
        log[count].sp = f->sp;
    }
    count++;
    if (f->vector != VEC_NMI)
        apic_eoi();
    return true;
}

extern const char after_sti[], after_nop[], after_hlt[], after_popf[];

static void check_delivery(void)
{
    word sp;

    count = 0;
    apic_self(0x40, APIC_FIXED);
    for (int i = 0; i < 1000; i++)
        asm volatile("pause");
    report(count == 0, "an interrupt waits while IF is clear");
    asm volatile("mov %%rsp, %0; sti; nop\nafter_nop: cli" : "=r"(sp) : : "memory");
    report(count == 1 && log[0].vector == 0x40, "and comes when IF is set");
    report(log[0].ip == (word)after_nop, "one instruction after sti");
    report((log[0].flags & FL_IF) && log[0].sp == sp, "the frame has IF and rsp");
    count = 0;
    apic_self(0x41, APIC_FIXED);
    asm volatile("sti; cli" : : : "memory");
    report(count == 0, "sti followed by cli lets nothing in");
    asm volatile("sti; hlt\nafter_hlt: cli" : : : "memory");
    report(count == 1 && log[0].ip == (word)after_hlt, "sti and hlt: it comes at the hlt");
    count = 0;
    apic_self(0x42, APIC_FIXED);
    asm volatile("pushf; orl $0x200, (%%rsp); popf\nafter_popf: nop; nop; cli"
                 :
                 :
                 : "memory", "cc");
    report(count == 1 && log[0].ip == (word)after_popf, "popf has no shadow");
    count = 0;
    asm volatile("sti" : : : "memory");
    apic_self(0x43, APIC_FIXED);
    for (int i = 0; i < 1000 && !count; i++)
        asm volatile("pause");
    asm volatile("cli" : : : "memory");
    report(count == 1, "with IF set it comes at once");
}

static void check_shadow(void)
{
    count = 0;
    apic_self(0x44, APIC_FIXED);
    asm volatile("mov %%ss, %%eax; sti; mov %%eax, %%ss; nop; nop; cli" : : : "rax", "memory");
    report(count == 1, "an interrupt around mov to ss comes once");
}

static void check_priority(void)
{
    count = 0;
    apic_self(0x50, APIC_FIXED);
    apic_self(0x70, APIC_FIXED);
    apic_self(0x60, APIC_FIXED);
    asm volatile("sti; nop; nop; nop; nop; cli" : : : "memory");
    report(count == 3 && log[0].vector == 0x70 && log[1].vector == 0x60 && log[2].vector == 0x50,
           "higher vectors first");
    count = 0;
    asm volatile("mov %0, %%cr8" : : "r"(6ul));
    apic_self(0x58, APIC_FIXED);
    apic_self(0x78, APIC_FIXED);
    asm volatile("sti; nop; nop; nop; cli" : : : "memory");
    report(count == 1 && log[0].vector == 0x78, "CR8 holds back lower ones");
    asm volatile("mov %0, %%cr8; sti; nop; nop; cli" : : "r"(0ul) : "memory");
    report(count == 2 && log[1].vector == 0x58, "until it is lowered");
    count = 0;
    apic_self(0x59, APIC_FIXED);
    apic_self(0x59, APIC_FIXED);
    asm volatile("sti; nop; nop; nop; cli" : : : "memory");
    report(count == 1, "the same vector twice is one interrupt");
}

static u8 ist_stack[4096] __attribute__((aligned(16)));

static bool on_ist(struct trap_frame *f)
{
    count++;
    log[0].sp = (word)f;
    log[0].vector = f->vector;
    log[0].ip = f->sp;
    if (f->vector >= 0x20)
        apic_eoi();
    return true;
}

static void check_stacks(void)
{
    word sp;

    count = 0;
    tss.ist[3] = (word)(ist_stack + sizeof(ist_stack));
    idt[0x45].ist = 3;
    trap_hook = on_ist;
    apic_self(0x45, APIC_FIXED);
    asm volatile("mov %%rsp, %0; sti; nop; nop; cli" : "=r"(sp) : : "memory");
    report(count == 1 && log[0].sp > (word)ist_stack &&
               log[0].sp < (word)(ist_stack + sizeof(ist_stack)),
           "IST switches stacks");
    report(log[0].sp + sizeof(struct trap_frame) == (word)(ist_stack + sizeof(ist_stack)),
           "from its very top");
    report(log[0].ip == sp, "and back again");
    idt[0x45].ist = 0;
    /* Without a switch the stack is aligned to 16 bytes before the frame. */
    apic_self(0x46, APIC_FIXED);
    asm volatile(
        "mov %%rsp, %%rbx; and $-16, %%rsp; sub $8, %%rsp; sti; nop; nop; cli; mov %%rbx, %%rsp"
        :
        :
        : "rbx", "memory");
    report((log[0].sp + sizeof(struct trap_frame)) % 16 == 0, "the frame is aligned to 16 bytes");
    trap_hook = on_interrupt;
}

/* Run in ring 3 with IF set. */
static void user_spin(word counter)
{
    while (!*(volatile unsigned *)counter)
        asm volatile("pause");
}

static bool on_user_interrupt(struct trap_frame *f)
{
    if (f->vector < 0x20 || f->vector == VEC_USER_EXIT)
        return false;
    log[0].vector = f->vector;
    log[0].ip = f->cs;
    log[0].sp = f->ss;
    count++;
    apic_eoi();
    return true;
}

static void check_from_user(void)
{
    count = 0;
    trap_hook = on_user_interrupt;
    apic_self(0x47, APIC_FIXED);
    user_call_as(user_spin, (word)user_ptr(&count), SEL_UCODE64, SEL_UDATA, 2 | FL_IF);
    trap_hook = on_interrupt;
    report(count == 1 && log[0].ip == SEL_UCODE64 && log[0].sp == SEL_UDATA,
           "an interrupt in ring 3");
    report(trap.vector == VEC_USER_EXIT, "which then goes on");
}

static unsigned nested_nmis;

static bool on_nmi(struct trap_frame *f)
{
    if (f->vector != VEC_NMI)
        return false;
    count++;
    if (count == 1) {
        apic_self(0, APIC_NMI);
        for (int i = 0; i < 1000; i++)
            asm volatile("pause");
        nested_nmis = count;
    }
    return true;
}

static void check_nmi(void)
{
    count = 0;
    trap_hook = on_nmi;
    idt[VEC_NMI].ist = 0;
    apic_self(0, APIC_NMI);
    for (int i = 0; i < 1000 && count < 2; i++)
        asm volatile("pause");
    report(count >= 1, "an NMI comes with IF clear");
    report(nested_nmis == 1, "another waits for its iret");
    report(count == 2, "and comes after it");
    trap_hook = NULL;
}

void payload_main(void)
{
    if (!(cpuid(1, 0).edx & BIT(9))) {
        report_skip("interrupts", "no local APIC");
        return;
    }
    apic_enable();
    trap_hook = on_interrupt;
    check_delivery();
    check_shadow();
    check_priority();
    check_stacks();
    check_from_user();
    check_nmi();
}
