/* Single steps and breakpoints (SDM 3B, chapter 17). Long mode. */
#include "payload.h"

#define DR6_FIXED 0xffff0ff0ul
#define DR6_BS BIT(14)
#define DR6_BD BIT(13)
#define DR7_FIXED 0x400ul
#define DR7_GD BIT(13)
#define DR7_L(n) (1ul << (2 * (n)))
#define DR7_KIND(n, rw, len) ((word)((rw) | (len) << 2) << (16 + 4 * (n)))
enum { ON_EXECUTE = 0, ON_WRITE = 1, ON_ACCESS = 3 };
enum { LEN_1 = 0, LEN_2 = 1, LEN_8 = 2, LEN_4 = 3 };

#define LOG 64
static word log_ip[LOG], log_dr6[LOG];
static unsigned log_count;

/* Collects debug exceptions and goes on. */
static bool on_debug(struct trap_frame *f)
{
    if (f->vector != VEC_DB)
        return false;
    if (log_count < LOG) {
        log_ip[log_count] = f->ip;
        log_dr6[log_count] = read_dr6();
    }
    log_count++;
    write_dr6(DR6_FIXED);
    if (read_dr7() & 0xff && !(read_dr7() & 0xf0000) && !(f->flags & FL_TF))
        f->flags |= FL_RF; /* an execution breakpoint would hit again at once */
    return true;
}

static void start_log(void)
{
    log_count = 0;
    write_dr6(DR6_FIXED);
    trap_hook = on_debug;
}

static void stop_log(void)
{
    trap_hook = NULL;
    write_dr7(DR7_FIXED);
}

extern const char step_0[], step_1[], step_2[], step_3[], step_end[];

static void check_step(void)
{
    start_log();
    asm volatile("pushf; pop %%rax; mov %%rax, %%rcx; or $0x100, %%rax; push %%rax; popf\n"
                 "step_0: nop\n"
                 "step_1: mov $5, %%eax\n"
                 "step_2: jmp step_3\n"
                 "nop\n"
                 "step_3: push %%rcx; popf\n"
                 "step_end: nop"
                 :
                 :
                 : "rax", "rcx", "memory", "cc");
    stop_log();
    report(log_count == 5, "one debug exception for each instruction");
    report(log_ip[0] == (word)step_1 && log_ip[1] == (word)step_2 && log_ip[2] == (word)step_3,
           "each behind its instruction");
    report(log_ip[4] == (word)step_end, "the popf that clears TF is still stepped");
    report(log_dr6[0] == (DR6_FIXED | DR6_BS), "DR6 says single step");
}

static void check_step_special(void)
{
    static u8 source[8] = "abcdefg", target[8];
    word count = 5;
    const u8 *s = source;
    u8 *d = target;

    start_log();
    asm volatile("pushf; orl $0x100, (%%rsp); popf; rep movsb; pushf; andl $~0x100, (%%rsp); popf"
                 : "+S"(s), "+D"(d), "+c"(count)
                 :
                 : "memory", "cc");
    report(log_count == 5 + 3 && !memcmp(source, target, 5),
           "rep movsb is stepped at each iteration");
    start_log();
    asm volatile("pushf; orl $0x100, (%%rsp); popf; mov %%ss, %%eax; mov %%eax, %%ss; nop; pushf; "
                 "andl $~0x100, (%%rsp); popf"
                 :
                 :
                 : "rax", "memory", "cc");
    report(log_count == 5, "no step between mov ss and the next instruction");
    start_log();
    TRY_LABEL("pushf; orl $0x100, (%%rsp); popf; nop; 1: ud2", "a"(0));
    report(trap.vector == VEC_UD && trap.ip == trap_at, "a fault under single step is the fault");
    report(log_count == 1, "without a step of its own");
    stop_log();
    TRY_LABEL("pushf; orl $0x100, (%%rsp); popf; 1: nop; nop", "a"(0));
    report(trap.vector == VEC_DB && trap.ip == trap_at + 1 && (trap.flags & FL_TF),
           "the saved flags have TF");
    report(!(read_flags() & FL_TF), "the handler runs without TF");
}

static volatile u64 watched[4] __attribute__((aligned(64)));

static void memset_by_string(void *p, word n)
{
    asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(0) : "memory");
}

static void check_data_breakpoints(void)
{
    start_log();
    write_dr0((word)&watched[0]);
    write_dr7(DR7_FIXED | DR7_L(0) | DR7_KIND(0, ON_WRITE, LEN_8));
    watched[0] = 1;
    report(log_count == 1 && (log_dr6[0] & 0xf) == 1, "a store to a watched word");
    (void)watched[0];
    report(log_count == 1, "a load is not a store");
    ((volatile u8 *)watched)[7] = 1;
    report(log_count == 2, "a store to its last byte");
    watched[1] = 1;
    report(log_count == 2, "the next word is not watched");
    *(volatile u64 *)((u8 *)watched + 4) = 0;
    report(log_count == 3, "a store that overlaps it");
    write_dr7(DR7_FIXED | DR7_L(0) | DR7_KIND(0, ON_ACCESS, LEN_8));
    (void)watched[0];
    report(log_count == 4, "a load of a word watched for access");
    write_dr1((word)&watched[2]);
    write_dr7(DR7_FIXED | DR7_L(1) | DR7_KIND(1, ON_WRITE, LEN_1));
    ((volatile u8 *)&watched[2])[1] = 1;
    report(log_count == 4, "a watched byte, store beside it");
    ((volatile u8 *)&watched[2])[0] = 1;
    report(log_count == 5 && (log_dr6[4] & 0xf) == 2, "a watched byte, by DR1");
    memset_by_string((void *)watched, sizeof(watched));
    report(log_count == 6, "rep stosb over it");
    write_dr7(DR7_FIXED);
    watched[2] = 5;
    report(log_count == 6, "nothing when switched off");
    stop_log();
}

void victim(void);
extern const char exec_target[];
asm("victim:\n    nop\nexec_target:\n    nop\n    ret\n");

static void check_execution(void)
{
    start_log();
    write_dr3((word)exec_target);
    write_dr7(DR7_FIXED | DR7_L(3) | DR7_KIND(3, ON_EXECUTE, LEN_1));
    victim();
    victim();
    report(log_count == 2 && log_ip[0] == (word)exec_target && (log_dr6[0] & 0xf) == 8,
           "an execution breakpoint is a fault");
    write_dr7(DR7_FIXED);
    victim();
    report(log_count == 2, "nothing when switched off");
    stop_log();
    write_dr7(DR7_FIXED | DR7_L(3) | DR7_KIND(3, ON_EXECUTE, LEN_1));
    TRY_LABEL("call victim; 1: nop", "a"(0));
    report(trap.vector == VEC_DB && trap.ip == (word)exec_target, "with rip at the instruction");
    write_dr7(DR7_FIXED);
}

static void check_registers(void)
{
    write_dr0(0x123456789abcul);
    report(read_dr0() == 0x123456789abcul, "DR0 keeps its value");
    write_dr6(0);
    report((read_dr6() & ~DR6_FIXED) == 0 && (read_dr6() & 0xfff0) == 0x0ff0, "DR6's fixed bits");
    write_dr7(0);
    report((read_dr7() & 0xffffffff) == DR7_FIXED, "DR7's fixed bit");
    TRY("mov %0, %%dr7", "r"(1ul << 32));
    report_trap(VEC_GP, 0, "#GP: reserved half of DR7");
    TRY("mov %0, %%dr6", "r"(1ul << 32));
    report_trap(VEC_GP, 0, "#GP: reserved half of DR6");
    write_dr7(DR7_FIXED | DR7_GD);
    TRY("mov %%dr0, %%rax", "a"(0));
    report_trap(VEC_DB, 0, "general detect: a debug register is touched");
    report((read_dr6() & DR6_BD) && !(read_dr7() & DR7_GD), "DR6 says so, GD is cleared");
    write_dr6(DR6_FIXED);
    write_cr4(read_cr4() | CR4_DE);
    TRY(".byte 0x0f, 0x21, 0xe0", "a"(0));
    report_trap(VEC_UD, 0, "#UD: mov from DR4 with CR4.DE");
    write_cr4(read_cr4() & ~CR4_DE);
    TRY(".byte 0x0f, 0x21, 0xf0", "a"(0));
    report_no_trap("mov from DR6 with CR4.DE clear");
}

void payload_main(void)
{
    check_registers();
    check_step();
    check_step_special();
    check_data_breakpoints();
    check_execution();
}
