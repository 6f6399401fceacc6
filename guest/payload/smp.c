/*
 * Several processors: starting them, locks, the order of stores, interrupts between them, translations and code changed
 * under each other's feet (SDM 3A, chapter 8). Long mode. With one processor all is skipped.
 */
#include "apic.h"
#include "lib/map64.h"

#define CPUS_MAX 32
#define ROUNDS 20000u
#define PATIENCE 60000000000ull /* TSC ticks, half a minute: what takes longer is taken for lost, and not for a busy host */

typedef void job_fn(unsigned cpu);

extern volatile u32 ap_count; /* processors that have come up, this one included */
static job_fn *volatile jobs[CPUS_MAX];
static volatile u32 apic_ids[CPUS_MAX];
static unsigned cpus = 1;

void ap_main(unsigned cpu);
void ap_main(unsigned cpu)
{
    struct __attribute__((packed)) {
        u16 limit;
        word base;
    } idtr = {sizeof(idt) - 1, (word)idt};

    asm volatile("lidt %0" : : "m"(idtr));
    apic_enable();
    apic_ids[cpu] = apic_is_x2() ? apic_read(2) : apic_read(2) >> 24;
    for (;;) {
        job_fn *job = jobs[cpu];

        if (job) {
            job(cpu);
            __atomic_store_n(&jobs[cpu], NULL, __ATOMIC_SEQ_CST);
        }
        asm volatile("pause");
    }
}

static bool waited(volatile u32 *value, u32 wanted)
{
    u64 start = rdtsc();

    while (*value != wanted)
        if (rdtsc() - start > PATIENCE)
            return false;
    return true;
}

static void pause_ticks(u64 ticks)
{
    u64 start = rdtsc();

    while (rdtsc() - start < ticks)
        asm volatile("pause");
}

static void send(u32 apic_id, u32 low)
{
    if (apic_is_x2()) {
        wrmsr(0x830, (u64)apic_id << 32 | low);
        return;
    }
    apic_write(0x31, apic_id << 24);
    apic_write(0x30, low);
    while (apic_read(0x30) & BIT(12))
        ;
}

#define ICR_INIT 0x4500u
#define ICR_STARTUP 0x4608u /* at 0x8000 */
#define ICR_OTHERS (3u << 18)

static void start_processors(void)
{
    u32 seen = 1;

    apic_enable();
    send(0, ICR_INIT | ICR_OTHERS);
    pause_ticks(30000000);
    send(0, ICR_STARTUP | ICR_OTHERS);
    pause_ticks(600000);
    send(0, ICR_STARTUP | ICR_OTHERS);
    do { /* until no more come */
        seen = ap_count;
        pause_ticks(300000000);
    } while (seen != ap_count);
    cpus = seen;
}

/* Gives every other processor the job and does it, too. */
static void everyone(job_fn *job)
{
    for (unsigned i = 1; i < cpus; i++)
        jobs[i] = job;
    job(0);
    for (unsigned i = 1; i < cpus; i++)
        while (jobs[i])
            asm volatile("pause");
}

static void on_one(unsigned cpu, job_fn *job)
{
    __atomic_store_n(&jobs[cpu], job, __ATOMIC_SEQ_CST);
}

static void wait_for(unsigned cpu)
{
    while (jobs[cpu])
        asm volatile("pause");
}

/* --- atomics --- */
static volatile u64 counter, plain;
static volatile u32 lock_word;
static u64 pair[2] __attribute__((aligned(16)));
static u8 split[128] __attribute__((aligned(64)));

static void add_job(unsigned cpu)
{
    for (unsigned i = 0; i < ROUNDS; i++)
        asm volatile("lock incq %0" : "+m"(counter) : : "cc");
}

static void spin_job(unsigned cpu)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        while (__atomic_exchange_n(&lock_word, 1, __ATOMIC_ACQUIRE))
            asm volatile("pause");
        plain++;
        __atomic_store_n(&lock_word, 0, __ATOMIC_RELEASE);
    }
}

static void pair_job(unsigned cpu)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        u64 lo = pair[0], hi = pair[1];
        u8 done = 0;

        while (!done)
            asm volatile("lea 1(%%rax), %%rbx; lea 3(%%rdx), %%rcx; lock cmpxchg16b %0; setz %3"
                         : "+m"(pair), "+a"(lo), "+d"(hi), "=q"(done)
                         :
                         : "rbx", "rcx", "cc");
    }
}

static void split_job(unsigned cpu)
{
    for (unsigned i = 0; i < ROUNDS / 10; i++)
        asm volatile("lock addq $1, %0" : "+m"(*(u64 *)(split + 60)) : : "cc");
}

static void check_atomics(void)
{
    everyone(add_job);
    report(counter == (u64)ROUNDS * cpus, "lock inc by all");
    everyone(spin_job);
    report(plain == (u64)ROUNDS * cpus, "a counter behind a lock");
    everyone(pair_job);
    report(pair[0] == (u64)ROUNDS * cpus && pair[1] == 3ul * ROUNDS * cpus,
           "lock cmpxchg16b by all");
    everyone(split_job);
    report(*(u64 *)(split + 60) == (u64)ROUNDS / 10 * cpus, "locked addition across cache lines");
}

/* --- order: what is stored first is seen first (SDM 3A 8.2.3.2) --- */
static volatile u32 data, flag;
static volatile u32 misordered;

static void writer_job(unsigned cpu)
{
    for (u32 i = 1; i <= ROUNDS; i++) {
        data = i;
        flag = i;
    }
}

static void check_order(void)
{
    u32 f;

    on_one(1, writer_job);
    do {
        f = flag;
        if (data < f)
            misordered++;
    } while (f < ROUNDS);
    wait_for(1);
    report(!misordered, "stores are seen in their order");
}

/* Dekker: with a locked instruction between store and load, not both can miss the other's store. */
static volatile u32 want[2], saw[2], go[2], both_missed;

static void dekker(unsigned me)
{
    for (u32 i = 1; i <= ROUNDS / 10; i++) {
        __atomic_store_n(&go[me], i, __ATOMIC_SEQ_CST);
        while (go[!me] < i)
            asm volatile("pause");
        want[me] = i;
        asm volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
        saw[me] = want[!me];
        if (me == 0) {
            while (go[1] < i + 1)
                asm volatile("pause");
            both_missed += saw[0] != i && saw[1] != i;
        }
    }
    __atomic_store_n(&go[me], ~0u, __ATOMIC_SEQ_CST);
}

static void dekker_job(unsigned cpu)
{
    dekker(1);
}

static void check_fence(void)
{
    on_one(1, dekker_job);
    dekker(0);
    wait_for(1);
    report(!both_missed, "a locked instruction is a fence");
}

/* --- interrupts --- */
static volatile u32 ipis, nmis, shot, halted;
static volatile u32 *const mapped = (volatile u32 *)TEST_VA;

static bool on_ipi(struct trap_frame *f)
{
    if (f->vector == VEC_NMI) {
        __atomic_fetch_add(&nmis, 1, __ATOMIC_SEQ_CST);
        return true;
    }
    if (f->vector < 0x20)
        return false;
    if (f->vector == 0x41) {
        invlpg((void *)TEST_VA);
        __atomic_fetch_add(&shot, 1, __ATOMIC_SEQ_CST);
    } else {
        __atomic_fetch_add(&ipis, 1, __ATOMIC_SEQ_CST);
    }
    apic_eoi();
    return true;
}

static volatile u32 stop;

static void open_job(unsigned cpu)
{
    asm volatile("sti");
    while (!stop)
        asm volatile("pause");
    asm volatile("cli");
}

static void halt_job(unsigned cpu)
{
    asm volatile("sti; hlt; cli");
    halted++;
}

static void check_ipis(void)
{
    bool ok = true;

    trap_hook = on_ipi;
    stop = 0;
    on_one(1, open_job);
    for (u32 i = 1; i <= 1000 && ok; i++) {
        send(apic_ids[1], 0x4040);
        ok = waited(&ipis, i);
    }
    report(ok, "1000 interrupts to a running processor");
    send(apic_ids[1], 0x4400);
    report(waited(&nmis, 1), "an NMI");
    stop = 1;
    wait_for(1);
    ok = true;
    for (u32 i = 1; i <= 100 && ok; i++) {
        u32 before = ipis;

        on_one(1, halt_job);
        pause_ticks(i % 4 ? 2000 : 200000); /* it sleeps already, or is about to */
        send(apic_ids[1], 0x4040);
        ok = waited(&ipis, before + 1) && waited(&halted, i);
        if (ok)
            wait_for(1);
    }
    report(ok, "an interrupt wakes a halted processor");
}

/* --- a mapping changed under another processor --- */
static volatile u32 wrong;

static void reader_job(unsigned cpu)
{
    asm volatile("sti");
    while (!stop) {
        u32 value = *mapped;

        (void)value;
    }
    wrong = *mapped != 0xbbbb;
    asm volatile("cli");
}

static void check_shootdown(void)
{
    u32 *a = page_alloc(), *b = page_alloc();
    u64 *pte = map(TEST_VA, a, PTE_P | PTE_W);
    bool ok = true;

    *a = 0xaaaa;
    *b = 0xbbbb;
    stop = 0;
    on_one(1, reader_job);
    for (u32 i = 1; i <= 101 && ok; i++) {
        *pte = (word)(i & 1 ? b : a) | PTE_P | PTE_W;
        send(apic_ids[1], 0x4041);
        ok = waited(&shot, i);
    }
    stop = 1;
    wait_for(1);
    report(ok && !wrong, "a mapping is changed under another processor");
}

/* --- code changed under another processor, with the handshake of SDM 3A 8.1.3 --- */
static u8 *code;
static volatile u32 version, ran;

static void runner_job(unsigned cpu)
{
    for (u32 i = 1; i <= 2000; i++) {
        u32 value;

        while (version < i)
            asm volatile("pause");
        cpuid(0, 0);
        asm volatile("call *%1" : "=a"(value) : "r"(code) : "memory", "cc");
        wrong += value != i;
        ran = i;
    }
}

static void check_code(void)
{
    code = page_alloc();
    memcpy(code, "\xb8\0\0\0\0\xc3", 6);
    wrong = 0;
    on_one(1, runner_job);
    for (u32 i = 1; i <= 2000; i++) {
        *(volatile u32 *)(code + 1) = i;
        version = i;
        while (ran < i)
            asm volatile("pause");
    }
    wait_for(1);
    report(!wrong, "code is changed under another processor");
}

/* --- a compiler on every processor: functions are written, run and rewritten by thousands, all through one address range
 * whose pages each processor maps to its own, with flushes of all kinds between --- */
#define JIT_ROUNDS 40u
#define JIT_PAGES 16u
#define JIT_VA (TEST_VA + (1ul << 36))
#define JIT_STRIDE 64u

static volatile u32 jit_wrong;

/* add $imm, %eax; and back, or on to the next function: calls within a page, and jumps across pages. */
static void write_function(u8 *at, u32 imm, s32 next)
{
    at[0] = 0x05;
    *(volatile u32 *)(at + 1) = imm;
    at[5] = next ? 0xe9 : 0xc3;
    *(volatile s32 *)(at + 6) = next - 10;
}

static void flush_somehow(u32 n, word va)
{
    word cr;

    if (n % 3 == 0)
        invlpg((void *)va);
    else if (n % 3 == 1)
        asm volatile("mov %%cr3, %0; mov %0, %%cr3" : "=r"(cr) : : "memory");
    else
        asm volatile("mov %%cr4, %0; xor $0x80, %0; mov %0, %%cr4; xor $0x80, %0; mov %0, %%cr4"
                     : "=&r"(cr)
                     :
                     : "memory", "cc");
}

static u8 *jit_page[CPUS_MAX][JIT_PAGES];
static u64 *jit_pte[CPUS_MAX][JIT_PAGES];

/* All of a chain of functions, one in each slot of each page, rewritten and run. */
static u32 run_chain(u8 *base, u32 round)
{
    u32 sum = 0, got = 0, slots = PAGE / JIT_STRIDE;

    for (u32 i = 0; i < JIT_PAGES * slots; i++) {
        bool last = i + 1 == JIT_PAGES * slots;

        write_function(base + i * JIT_STRIDE, i * 3 + round, last ? 0 : (s32)JIT_STRIDE);
        sum += i * 3 + round;
    }
    asm volatile("call *%1" : "+a"(got) : "r"(base) : "memory", "cc");
    return got - sum;
}

static void jit_job(unsigned cpu)
{
    u8 *base = (u8 *)(JIT_VA + cpu * JIT_PAGES * PAGE);

    for (u32 round = 0; round < JIT_ROUNDS; round++) {
        u32 a = round % JIT_PAGES, b = (round * 7 + 3) % JIT_PAGES;
        u64 pte = *jit_pte[cpu][a];

        if (run_chain(base, round * 5 + cpu))
            __atomic_fetch_add(&jit_wrong, 1, __ATOMIC_SEQ_CST);
        *jit_pte[cpu][a] = *jit_pte[cpu][b];
        *jit_pte[cpu][b] = pte;
        flush_somehow(round, (word)base + a * PAGE);
        flush_somehow(round, (word)base + b * PAGE);
    }
}

static void check_jit(void)
{
    for (unsigned i = 0; i < cpus; i++)
        for (unsigned k = 0; k < JIT_PAGES; k++) {
            jit_page[i][k] = page_alloc();
            jit_pte[i][k] = map(JIT_VA + (i * JIT_PAGES + k) * PAGE, jit_page[i][k], PTE_P | PTE_W);
        }
    jit_wrong = 0;
    everyone(jit_job);
    report(!jit_wrong, "all write, run and rewrite functions on pages that change places");
}

void payload_main(void)
{
    if (!(cpuid(1, 0).edx & BIT(9))) {
        report_skip("processors", "no local APIC");
        return;
    }
    start_processors();
    if (cpus < 2) {
        check_jit();
        report_skip("processors", "there is only one");
        return;
    }
    say("# %u processors\n", cpus);
    report(cpus <= CPUS_MAX, "the others start");
    check_atomics();
    check_order();
    check_fence();
    check_ipis();
    check_shootdown();
    check_code();
    check_jit();
}
