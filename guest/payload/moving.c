/*
 * Every way to write memory, over and over, on pages that nothing else writes, while whoever runs us copies memory behind
 * our back (tests/payload/moving.c). Each kind of store has pages of its own, so that one that is not noticed shows: its
 * pages differ from the copy. Long mode, one to eight processors.
 *
 * The runner's port answers a byte with the number of processors (0xff: no such runner, a few rounds then); it is told
 * where `control` is by an outl, stops us in the loop in fork(), and lets as many processors go on from there, each with
 * another number in EBX.
 */
#include "lib/map64.h"

#define PORT_FORK 0x510
#define CPUS_MAX 8
#define PAGES 12 /* of each kind, for each processor */
#define AD_PAGES 2048
#define SWEEP_PAGES 96
#define SCRATCH_DEVICE 0xd0000000ul

/* Shared with the runner; it writes forked and stop. */
static struct control {
    volatile u32 forked, stop, cpus, finished;
    volatile u64 rounds[CPUS_MAX];
} control __attribute__((aligned(4096)));

struct own {
    u8 *pages;  /* KINDS * PAGES pages, at their own address */
    word alias; /* the same, by 4 KiB pages */
    word touch; /* AD_PAGES pages whose entries have neither accessed nor dirty bit yet */
    word edge;  /* one page of memory, the next one a device's */
    word sweep; /* SWEEP_PAGES pages behind `pages`, by 4 KiB pages, across a boundary of 2 MiB */
    unsigned touched;
    u64 random;
};

static struct own own[CPUS_MAX];
static volatile u32 errors;

static u64 next_random(struct own *o)
{
    o->random ^= o->random << 13;
    o->random ^= o->random >> 7;
    o->random ^= o->random << 17;
    return o->random;
}

/* A store function writes something that depends on v somewhere into the page at p. */
typedef void store_fn(u8 *p, u64 v);

static void by_mov(u8 *p, u64 v)
{
    u8 *at = p + v % 4000;

    switch (v >> 16 & 3) {
    case 0:
        *(volatile u8 *)at = (u8)(v >> 20);
        break;
    case 1:
        *(volatile u16 *)at = (u16)(v >> 20);
        break;
    case 2:
        *(volatile u32 *)at = (u32)(v >> 20);
        break;
    default:
        *(volatile u64 *)at = v;
        break;
    }
}

static void by_locked(u8 *p, u64 v)
{
    u64 *at = (u64 *)(p + v % 500 * 8), lo = at[0], hi = at[1];

    asm volatile("lock xaddq %1, %0" : "+m"(*at), "+r"(v) : : "cc", "memory");
    asm volatile("lock btcl $5, 8(%0)" : : "r"(at) : "cc", "memory");
    asm volatile("xchgq %0, 16(%1)" : "+r"(v) : "r"(at) : "memory");
    at = (u64 *)((word)at & ~15ul);
    lo = at[0], hi = at[1];
    asm volatile("lock cmpxchg16b %0"
                 : "+m"(*(u64(*)[2])at), "+a"(lo), "+d"(hi)
                 : "b"(v), "c"(~v)
                 : "cc", "memory");
}

static void by_string(u8 *p, u64 v)
{
    static const u8 source[256] = {1, 2, 3};
    void *to = p + 1024 + v % 2000, *from = (void *)source;
    u64 n = v >> 12 & 127;

    if (v & BIT(40))
        asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    else if (v & BIT(41))
        asm volatile("std; rep stosq; cld" : "+D"(to), "+c"(n) : "a"(v) : "memory", "cc");
    else
        asm volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(v) : "memory");
}

static void by_port(u8 *p, u64 v)
{
    u64 n = 3;
    void *to = p + v % 4000;

    *(u8 *)to = 0;
    asm volatile("rep insb" : "+D"(to), "+c"(n) : "d"(PORT_FORK) : "memory");
}

/* With the stack in the page. */
static void by_push(u8 *p, u64 v)
{
    u8 *sp = p + 128 + v % 400 * 8, *saved;

    asm volatile("mov %%rsp, %0; mov %1, %%rsp; push %2; pushq %%fs; call 1f; 1: enter $16, $0; "
                 "leave; mov %0, %%rsp"
                 : "=&r"(saved)
                 : "r"(sp), "r"(v)
                 : "memory");
}

/* An interrupt's frame. */
static void by_frame(u8 *p, u64 v)
{
    u8 *sp = p + 256 + v % 200 * 16, *saved;

    asm volatile("mov %%rsp, %0; mov %1, %%rsp; push %2; popf; int $0x82; mov %0, %%rsp"
                 : "=&r"(saved)
                 : "r"(sp), "r"((v & 0xd5) | 2)
                 : "memory", "cc");
}

static void by_vector(u8 *p, u64 v)
{
    u8 *at = p + v % 200 * 16;

    asm volatile(
        "movq %1, %%xmm3; movdqu %%xmm3, (%0); movntdq %%xmm3, 32(%0); movlps %%xmm3, 70(%0)"
        :
        : "r"(at), "r"(v)
        : "memory");
    asm volatile("movntiq %1, 64(%0); fildq 64(%0); fistpq 88(%0)" : : "r"(at), "r"(v) : "memory");
}

static void by_maskmov(u8 *p, u64 v)
{
    asm volatile("movq %1, %%xmm3; movdqa %%xmm3, %%xmm4; maskmovdqu %%xmm4, %%xmm3"
                 :
                 : "D"(p + v % 4000), "r"(v)
                 : "memory");
}

static void by_fxsave(u8 *p, u64 v)
{
    asm volatile("movq %1, %%xmm5; fxsave64 (%0)" : : "r"(p + v % 200 * 16), "r"(v) : "memory");
}

static void by_table(u8 *p, u64 v)
{
    asm volatile("sidt (%0); sgdt 10(%0); stmxcsr 20(%0); fnstenv 24(%0)"
                 :
                 : "r"(p + v % 4000)
                 : "memory");
}

/* Several accesses through one register: one check serves them all. */
static void by_window(u8 *p, u64 v)
{
    u8 *at = p + 256 + v % 3000;

    asm volatile("mov (%0), %%rax; mov %1, 8(%0); add %%rax, 16(%0); incl -64(%0); mov %%eax, "
                 "100(%0); notb -100(%0)"
                 :
                 : "r"(at), "r"(v)
                 : "rax", "memory", "cc");
}

/* mov $imm, %eax; ret, with another number each time. */
static void by_code(u8 *p, u64 v)
{
    u8 *at = p + v % 250 * 16;
    u32 got;

    at[0] = 0xb8;
    *(volatile u32 *)(at + 1) = (u32)v;
    at[5] = 0xc3;
    asm volatile("call *%1" : "=a"(got) : "r"(at) : "memory", "cc");
    if (got != (u32)v)
        __atomic_fetch_add(&errors, 1, __ATOMIC_SEQ_CST);
}

static void by_crossing(u8 *p, u64 v)
{
    *(volatile u64 *)(p + 4096 - 1 - v % 7) =
        v; /* reaches into the next page, which is of our kind too */
}

static void by_bits(u8 *p, u64 v)
{
    asm volatile("btcq %1, (%0); btsl %k1, 2048(%0); setc 4000(%0); pushw %%ax; popw 4004(%0)"
                 :
                 : "r"(p), "r"(v % 8000)
                 : "memory", "cc");
}

static store_fn *const kinds[] = {by_mov,    by_locked, by_string,   by_port,   by_push,
                                  by_frame,  by_vector, by_maskmov,  by_fxsave, by_table,
                                  by_window, by_code,   by_crossing, by_bits};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* Sets an accessed bit, then the dirty bit, by a walk; no store goes to the table itself. */
static void touch(struct own *o)
{
    volatile u8 *p = (u8 *)(o->touch + o->touched / 2 * PAGE);

    if (o->touched == 2 * AD_PAGES)
        return;
    if (o->touched++ & 1)
        *p = 1;
    else
        (void)*p;
}

/* Goes through memory: reads a page and then writes to it, and so on, up or down, for some pages. */
static void sweep(struct own *o, u64 v)
{
    word base = v & 1 ? (word)o->pages + KINDS * PAGES * PAGE : o->sweep;
    u64 first = v >> 1 & 63, n = v >> 8 & 31;

    for (u64 i = 0; i <= n; i++) {
        u64 page = v & 2 ? first + i : first + n - i;
        volatile u64 *p = (u64 *)(base + page * PAGE);

        p[v >> 20 & 511] = v + p[v >> 30 & 511];
    }
}

static void one_store(struct own *o)
{
    u64 v = next_random(o);
    unsigned kind = v % KINDS, page = (v >> 8) % (PAGES - 1); /* by_crossing writes one more */
    word at = (kind * PAGES + page) * PAGE;
    u8 *p = v & BIT(50) ? (u8 *)(o->alias + at) : o->pages + at;

    if (v & BIT(51))
        (void)*(volatile u64 *)p;
    kinds[kind](p, next_random(o));
    if (!(v >> 52 & 15))
        touch(o);
    if (!(v >> 52 & 31))
        *(volatile u64 *)(o->edge + 4092) = v;
    if (!(v >> 57 & 15))
        sweep(o, next_random(o));
}

static __attribute__((noreturn)) void run(u32 cpu)
{
    struct own *o = &own[cpu];

    o->random = 0x9e3779b97f4a7c15ul * (cpu + 1);
    while (!control.stop) {
        for (unsigned i = 0; i < 16; i++)
            one_store(o);
        control.rounds[cpu]++;
        if (!control.cpus && control.rounds[cpu] == 4000)
            control.stop = 1;
    }
    __atomic_fetch_add(&control.finished, 1, __ATOMIC_SEQ_CST);
    while (cpu || control.finished < control.cpus)
        asm volatile("pause");
    report(!errors, "rewritten code ran as written");
    report(control.rounds[0] > 0, "stores were made");
    finish();
}

static void own_init(unsigned cpu)
{
    struct own *o = &own[cpu];
    u8 *shared = page_alloc();

    o->pages = pages_alloc(KINDS * PAGES + SWEEP_PAGES);
    o->alias = TEST_VA + cpu * PAGE_1G;
    o->touch = o->alias + 64 * PAGE_2M;
    o->edge = o->alias + 128 * PAGE_2M;
    o->sweep = o->alias + 193 * PAGE_2M - (SWEEP_PAGES - 32) * PAGE;
    for (unsigned i = 0; i < KINDS * PAGES; i++)
        map(o->alias + i * PAGE, o->pages + i * PAGE, PTE_P | PTE_W);
    for (unsigned i = 0; i < SWEEP_PAGES; i++)
        map(o->sweep + i * PAGE, o->pages + (KINDS * PAGES + i) * PAGE, PTE_P | PTE_W);
    for (unsigned i = 0; i < AD_PAGES; i++)
        map(o->touch + i * PAGE, shared, PTE_P | PTE_W);
    map(o->edge, page_alloc(), PTE_P | PTE_W);
    map(o->edge + PAGE, (void *)SCRATCH_DEVICE, PTE_P | PTE_W);
}

static __attribute__((naked)) void frame_handler(void)
{
    asm volatile("iretq");
}

static u8 stacks[CPUS_MAX][4096] __attribute__((aligned(4096)));

/* Tells the runner. Several processors leave the loop; %ebx says which one this is. */
static __attribute__((noreturn)) void fork(void)
{
    asm volatile("xor %%ebx, %%ebx; out %%eax, %%dx\n"
                 "1: pause; cmpl $0, %0; je 1b\n"
                 "mov %%ebx, %%edi; mov %%ebx, %%eax; inc %%eax; shl $12, %%eax; lea %1, %%rsp; "
                 "add %%rax, %%rsp\n"
                 "call *%2"
                 :
                 : "m"(control.forked), "m"(stacks), "r"(run), "a"((u32)(word)&control),
                   "d"((u16)PORT_FORK)
                 : "rbx", "rdi", "memory");
    __builtin_unreachable();
}

void payload_main(void)
{
    u32 cpus = inb(PORT_FORK);

    idt_set(0x82, frame_handler, SEL_CODE64, GATE_INT);
    control.cpus = cpus <= CPUS_MAX ? cpus : 0;
    for (unsigned i = 0; i < (control.cpus ? control.cpus : 1); i++)
        own_init(i);
    if (!control.cpus)
        run(0);
    fork();
}
