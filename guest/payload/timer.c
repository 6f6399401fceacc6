/*
 * Timers and interrupt controllers of a PC: local APIC timer in all its modes, PIT through PIC and I/O APIC, RTC, HPET, and
 * sleeping until they come (SDM 3A 10.5.4). Long mode; needs a whole machine. No rate is asserted, only order: nothing
 * early, everything some time.
 */
#include "apic.h"

#define PATIENCE 20000000000ull /* TSC ticks, some seconds */
#define REG_LVT_TIMER 0x32
#define REG_LVT_LINT0 0x35
#define REG_INITIAL 0x38
#define REG_CURRENT 0x39
#define REG_DIVIDE 0x3e
#define LVT_MASKED BIT(16)
#define LVT_PERIODIC BIT(17)
#define LVT_DEADLINE BIT(18)
#define MSR_DEADLINE 0x6e0
#define VEC_TIMER 0x50
#define VEC_PIC 0x20
#define VEC_PIN 0x60
#define IOAPIC ((volatile u32 *)0xfec00000)
#define HPET ((volatile u64 *)0xfed00000)

static volatile u32 count;
static volatile u64 last_tsc;
static volatile u8 last_vector;

static bool on_interrupt(struct trap_frame *f)
{
    if (f->vector < 0x20)
        return false;
    last_tsc = rdtsc();
    last_vector = (u8)f->vector;
    count++;
    if (f->vector >= VEC_PIC && f->vector < VEC_PIC + 16) {
        outb(0xa0, 0x20);
        outb(0x20, 0x20);
        return true;
    }
    if (f->vector == VEC_PIN + 8) { /* the RTC's line stays up until register C is read */
        outb(0x70, 0xc);
        inb(0x71);
    }
    apic_eoi();
    return true;
}

/* Waits, with interrupts on, until there have been `wanted` of them. */
static bool wait_for(u32 wanted)
{
    u64 start = rdtsc();

    asm volatile("sti");
    while (count < wanted && rdtsc() - start < PATIENCE)
        asm volatile("pause");
    asm volatile("cli");
    return count >= wanted;
}

static void check_lapic_timer(void)
{
    u32 first, second;

    apic_write(REG_DIVIDE, 0xb);
    apic_write(REG_LVT_TIMER, VEC_TIMER);
    count = 0;
    apic_write(REG_INITIAL, 50000000);
    first = apic_read(REG_CURRENT);
    for (int i = 0; i < 1000; i++)
        asm volatile("pause");
    second = apic_read(REG_CURRENT);
    report(first <= 50000000 && second <= first && (second < first || !first),
           "the count goes down");
    apic_write(REG_INITIAL, 1000000);
    report(wait_for(1) && last_vector == VEC_TIMER, "one shot");
    report(apic_read(REG_CURRENT) == 0, "then the count is 0");
    count = 0;
    apic_write(REG_LVT_TIMER, VEC_TIMER | LVT_PERIODIC);
    apic_write(REG_INITIAL, 500000);
    report(wait_for(5), "periodic");
    apic_write(REG_LVT_TIMER, VEC_TIMER | LVT_PERIODIC | LVT_MASKED);
    wait_for(0);
    asm volatile("sti; nop; nop; cli"); /* one may have been on its way */
    count = 0;
    for (int i = 0; i < 100000; i++)
        asm volatile("sti; pause; cli");
    report(count == 0, "nothing comes while it is masked");
    apic_write(REG_INITIAL, 0);
    apic_write(REG_LVT_TIMER, VEC_TIMER);
    apic_write(REG_INITIAL, 100000000);
    apic_write(REG_INITIAL, 0);
    report(apic_read(REG_CURRENT) == 0, "a count of 0 stops it");
}

static void check_deadline(void)
{
    u64 deadline;

    if (!(cpuid(1, 0).ecx & BIT(24))) {
        report_skip("TSC deadline", "not in CPUID");
        return;
    }
    apic_write(REG_LVT_TIMER, VEC_TIMER | LVT_DEADLINE);
    asm volatile("mfence");
    for (int i = 0; i < 3; i++) {
        count = 0;
        deadline = rdtsc() + 3000000;
        wrmsr(MSR_DEADLINE, deadline);
        if (!wait_for(1) || last_tsc < deadline)
            break;
    }
    report(count == 1, "the TSC deadline is kept");
    report(last_tsc >= deadline, "and is not early");
    report(rdmsr(MSR_DEADLINE) == 0, "the register is 0 afterwards");
    count = 0;
    wrmsr(MSR_DEADLINE, 1);
    report(wait_for(1), "a deadline in the past comes at once");
    count = 0;
    wrmsr(MSR_DEADLINE, rdtsc() + 200000000);
    wrmsr(MSR_DEADLINE, 0);
    deadline = rdtsc() + 250000000;
    asm volatile("sti");
    while (rdtsc() < deadline)
        asm volatile("pause");
    asm volatile("cli");
    report(count == 0, "0 takes it back");
    count = 0;
    for (u32 i = 0; i < 5; i++) {
        wrmsr(MSR_DEADLINE, rdtsc() + 1000000);
        asm volatile("sti; hlt; cli" : : : "memory");
    }
    report(count == 5, "hlt sleeps until it comes");
}

static void pic_init(u8 mask)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, VEC_PIC);
    outb(0xa1, VEC_PIC + 8);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    outb(0x21, mask);
    outb(0xa1, 0xff);
}

static void pit_start(u16 divisor)
{
    outb(0x43, 0x34);
    outb(0x40, (u8)divisor);
    outb(0x40, (u8)(divisor >> 8));
}

static void ioapic_route(unsigned pin, u32 low)
{
    IOAPIC[0] = 0x11 + 2 * pin;
    IOAPIC[4] = 0;
    IOAPIC[0] = 0x10 + 2 * pin;
    IOAPIC[4] = low;
}

static void check_pit(void)
{
    u64 start = rdtsc();

    pic_init(0xfe);
    apic_write(REG_LVT_LINT0, 0x700); /* ExtINT */
    count = 0;
    pit_start(11932);
    report(wait_for(3) && last_vector == VEC_PIC, "PIT through the PIC");
    pic_init(0xff);
    apic_write(REG_LVT_LINT0, LVT_MASKED);
    asm volatile("sti; nop; nop; cli");
    count = 0;
    ioapic_route(2, VEC_PIN);
    report(wait_for(3) && last_vector == VEC_PIN, "PIT through the I/O APIC");
    ioapic_route(2, LVT_MASKED);
    asm volatile("sti; nop; nop; cli");
    count = 0;
    for (int i = 0; i < 100000; i++)
        asm volatile("sti; pause; cli");
    report(count == 0, "nothing comes while its pin is masked");
    outb(0x61, (inb(0x61) & ~2) | 1);
    outb(0x43, 0xb0); /* channel 2, one shot */
    outb(0x42, 0xff);
    outb(0x42, 0x0f);
    start = rdtsc();
    while (!(inb(0x61) & 0x20) && rdtsc() - start < PATIENCE)
        asm volatile("pause");
    report(inb(0x61) & 0x20, "channel 2's output through port 0x61");
}

static void check_rtc(void)
{
    u8 seconds;

    outb(0x70, 0);
    seconds = inb(0x71);
    report((seconds & 0xf) < 10 && seconds < 0x60, "the RTC has seconds");
    count = 0;
    ioapic_route(8, VEC_PIN + 8);
    outb(0x70, 0xa);
    outb(0x71, 0x26);
    outb(0x70, 0xb);
    outb(0x71, 0x42);
    outb(0x70, 0xc);
    inb(0x71);
    report(wait_for(3) && last_vector == VEC_PIN + 8, "its periodic interrupt");
    outb(0x70, 0xb);
    outb(0x71, 0x02);
    ioapic_route(8, LVT_MASKED);
}

static void check_hpet(void)
{
    u64 first, start = rdtsc();

    if ((HPET[0] >> 32) == 0xffffffff || !(HPET[0] >> 32)) {
        report_skip("HPET", "there is none");
        return;
    }
    report((HPET[0] >> 32) <= 100000000, "HPET: its period is at most 100 ns");
    HPET[2] |= 1;
    first = HPET[30];
    while (HPET[30] == first && rdtsc() - start < PATIENCE)
        asm volatile("pause");
    report(HPET[30] > first, "HPET: it counts");
    HPET[2] &= ~1ul;
    first = HPET[30];
    for (int i = 0; i < 1000; i++)
        asm volatile("pause");
    report(HPET[30] == first, "HPET: it stops");
}

void payload_main(void)
{
    apic_enable();
    if (apic_is_x2())
        TRY("rdmsr", "c"(0x800 + REG_LVT_TIMER));
    if (trap.vector != VEC_NONE) {
        report_skip("timers", "there are none");
        return;
    }
    trap_hook = on_interrupt;
    check_lapic_timer();
    check_deadline();
    check_pit();
    check_rtc();
    check_hpet();
}
