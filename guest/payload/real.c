/*
 * Real, unreal and virtual-8086 mode (SDM 3A, chapter 20). This half runs in 32-bit protected mode and judges; what is
 * judged runs in real16.S.
 */
#include "payload.h"

extern volatile u32 real_result[16];
extern volatile u16 real_vector, real_ip, real_cs, real_flags, real_count, real_unreal;
extern const u8 real_handlers[];
void real_call(void (*fn)(void));
void real_segments(void), real_interrupts(void), real_divide(void), real_limit(void),
    real_limit32(void);
void real_big(void), real_stack(void), real_strings(void), real_far(void), real_undefined(void);
void v86_segments(void), v86_cli(void), v86_int(void), v86_io(void);

static void call(void (*fn)(void))
{
    real_vector = 0xffff;
    real_count = 0;
    real_call(fn);
}

/* Vector table of real mode, at physical address 0. */
static void fill_ivt(void)
{
    for (u32 i = 0; i < 32; i++)
        ((volatile u32 *)0)[i] = (u32)(real_handlers + i * 8);
}

static void check_real(void)
{
    call(real_segments);
    report(real_result[0] == 0xcafe, "addresses are segment * 16 + offset");
    report(real_result[1] == *(u32 *)0x100000, "0xffff:0x10 is 1 MiB");
    report(real_result[2] == 0x77, "16-bit addressing");
    report(real_result[3] == 0x77, "32-bit addressing");
    call(real_interrupts);
    report(real_vector == 0x10 && real_count == 1, "int through the vector table");
    report(real_ip == real_result[1] && real_cs == 0, "the frame has ip and cs");
    report((real_flags & 0x201) == 0x201 && (real_result[0] & 0x201) == 0x201,
           "flags are saved and restored");
    call(real_divide);
    report(real_vector == VEC_DE && real_ip == real_result[1], "#DE, ip at the division");
    call(real_undefined);
    report(real_vector == VEC_UD && real_ip == real_result[1], "#UD: lldt in real mode");
    call(real_stack);
    report(real_result[0] == 0xfffe && real_result[1] == 0x2222, "sp wraps at 64 KiB");
    report(real_result[2] == 0x5678 && real_result[3] == 0x11223344,
           "pusha, popa, 32-bit push and pop");
    report(real_result[4] == 8, "enter and leave");
    call(real_strings);
    report(real_result[0] == 2 && real_result[1] == 0x5a5a, "di wraps at 64 KiB");
    report(real_result[2] == 3, "loop counts in cx");
    call(real_far);
    report(real_result[0] == 0x10 && real_result[1] == 1, "far call, far return, iret");
    report(real_result[2] == 0, "smsw says real mode");
    real_unreal = 1;
    call(real_big);
    report(real_count == 0 && real_result[0] == *(u32 *)0x100000,
           "unreal mode: offsets past 64 KiB");
    real_unreal = 0;
    call(real_limit);
    report(real_vector == VEC_GP && real_ip == real_result[1],
           "#GP: a word across the end of the segment");
    call(real_limit32);
    report(real_vector == VEC_GP, "#GP: a 32-bit offset past 64 KiB");
}

/* A trap out of virtual-8086 mode has the data segments above ss. */
static struct {
    u32 vector, error, ip, cs, flags, es, ds, bx;
} v86;

static bool on_v86_trap(struct trap_frame *f)
{
    const word *more = &f->ss + 1;

    if (!(f->flags & FL_VM))
        return false;
    v86.vector = f->vector;
    v86.error = f->error;
    v86.ip = f->ip;
    v86.cs = f->cs;
    v86.flags = f->flags;
    v86.es = more[0];
    v86.ds = more[1];
    v86.bx = f->bx;
    return false;
}

static void run_v86(void (*fn)(void), word iopl)
{
    v86.vector = VEC_NONE;
    trap_hook = on_v86_trap;
    TRY_LABEL("push $0; push $0; push $0x4321; push $0; push $0; push $0x7ff0; push %1; push $0; "
              "push %0; 1: iret",
              "r"(fn), "r"((word)(2 | FL_VM | FL_IF) | iopl << 12));
    trap_hook = NULL;
}

static void check_v86(void)
{
    run_v86(v86_segments, 3);
    report(v86.vector == VEC_GP && (v86.flags & FL_VM) && v86.ip == (word)v86_segments + 11,
           "hlt in virtual-8086 mode: #GP");
    report(v86.bx == 0xcafe && v86.es == 0x1235 && v86.cs == 0,
           "its segments are those of real mode");
    report(v86.ds == 0x4321, "and come from iret's frame");
    run_v86(v86_cli, 0);
    report(v86.vector == VEC_GP && v86.ip == (word)v86_cli, "#GP: cli with IOPL 0");
    run_v86(v86_cli, 3);
    report(v86.vector == VEC_GP && v86.ip == (word)v86_cli + 1 && !(v86.flags & FL_IF),
           "cli with IOPL 3");
    run_v86(v86_int, 0);
    report(v86.vector == VEC_GP && v86.error == 0 && v86.ip == (word)v86_int,
           "#GP: int with IOPL 0");
    idt[0x21].type |= 3 << SEG_ATTR_DPL_SHIFT;
    run_v86(v86_int, 3);
    report(v86.vector == 0x21 && v86.ip == (word)v86_int + 2,
           "int with IOPL 3 goes through the IDT");
    run_v86(v86_io, 3);
    report(v86.vector == VEC_GP && v86.ip == (word)v86_io,
           "#GP: out is ruled by the bitmap, not by IOPL");
    tss_iomap[0x80 / 8] &= ~1;
    run_v86(v86_io, 0);
    report(v86.vector == VEC_GP && v86.ip == (word)v86_io + 2, "out allowed by the bitmap");
}

void payload_main(void)
{
    fill_ivt();
    check_real();
    check_v86();
}
