/*
 * The border between C and translated code, in assembly.
 *
 * bt_enter() saves the C side, loads the guest's vector state and calls light_start(). Every stub is entered by a jump
 * from translated code (guest registers live, guest RSP in RSP, gs = current table, R14 and R15 as its C side expects),
 * stores the guest's registers in struct cpu, switches to the C stack and calls its C side, then goes where that says,
 * or, when it returns host == 0, back to whoever called bt_enter().
 */
#include "accel/bt/vcpu.h"

#define STR_(x) #x
#define STR(x) STR_(x)

/* Guest registers -> struct cpu; then on the C stack with rdi, rsi, rdx = cpu, R14, R15. pushf is cheap, popf is not. */
#define SAVE                                                                                                            \
    "movq %%rax, %%gs:%c[gpr]\n movq %%rcx, %%gs:%c[gpr]+8\n movq %%rdx, %%gs:%c[gpr]+16\n"                             \
    "movq %%rbx, %%gs:%c[gpr]+24\n movq %%rsp, %%gs:%c[gpr]+32\n movq %%rbp, %%gs:%c[gpr]+40\n"                         \
    "movq %%rsi, %%gs:%c[gpr]+48\n movq %%rdi, %%gs:%c[gpr]+56\n movq %%r8, %%gs:%c[gpr]+64\n"                          \
    "movq %%r9, %%gs:%c[gpr]+72\n movq %%r10, %%gs:%c[gpr]+80\n movq %%r11, %%gs:%c[gpr]+88\n"                          \
    "movq %%r12, %%gs:%c[gpr]+96\n movq %%r13, %%gs:%c[gpr]+104\n movq %%r14, %%gs:%c[s1]\n"                            \
    "movq %%gs:%c[host_rsp], %%rsp\n"                                                                                   \
    "pushfq\n popq %%rax\n andl $0x8d5, %%eax\n"                                                                        \
    "movq %%gs:%c[rflags], %%rcx\n andq $~0x8d5, %%rcx\n orq %%rcx, %%rax\n movq %%rax, %%gs:%c[rflags]\n"              \
    "movq %%gs:%c[self], %%rdi\n movq %%r14, %%rsi\n movq %%r15, %%rdx\n"

/* rax:rdx = struct stub_ret. */
#define GO_ON                                                                                                           \
    "bt_go_on:\n testq %%rax, %%rax\n jz bt_leave\n"                                                                    \
    "movq %%rax, %%gs:%c[target]\n movq %%rdx, %%r15\n"                                                                 \
    "movl %%gs:%c[rflags], %%eax\n movl %%eax, %%ecx\n shrl $11, %%eax\n andl $1, %%eax\n movb %%cl, %%ah\n"            \
    "addb $0x7f, %%al\n sahf\n"                                                                                         \
    "movq %%gs:%c[gpr], %%rax\n movq %%gs:%c[gpr]+8, %%rcx\n movq %%gs:%c[gpr]+16, %%rdx\n"                             \
    "movq %%gs:%c[gpr]+24, %%rbx\n movq %%gs:%c[gpr]+32, %%rsp\n movq %%gs:%c[gpr]+40, %%rbp\n"                         \
    "movq %%gs:%c[gpr]+48, %%rsi\n movq %%gs:%c[gpr]+56, %%rdi\n movq %%gs:%c[gpr]+64, %%r8\n"                          \
    "movq %%gs:%c[gpr]+72, %%r9\n movq %%gs:%c[gpr]+80, %%r10\n movq %%gs:%c[gpr]+88, %%r11\n"                          \
    "movq %%gs:%c[gpr]+96, %%r12\n movq %%gs:%c[gpr]+104, %%r13\n movq %%gs:%c[s1], %%r14\n"                            \
    "jmp *%%gs:%c[target]\n"

#define STUB(name) ".globl bt_stub_" #name "\n .p2align 4\n bt_stub_" #name ":\n" SAVE " call light_" #name "\n jmp bt_go_on\n"

#define VECTOR_SAVE                                                                                                     \
    "movq %%gs:%c[xsave], %%rcx\n movl %%gs:%c[xmask], %%eax\n xorl %%edx, %%edx\n xsave64 (%%rcx)\n"                   \
    "ldmxcsr bt_default_mxcsr(%%rip)\n"
#define VECTOR_LOAD "movq %%gs:%c[xsave], %%rcx\n movl %%gs:%c[xmask], %%eax\n xorl %%edx, %%edx\n xrstor64 (%%rcx)\n"

const u32 bt_default_mxcsr = 0x1f80;

void bt_glue(void);
/* Never called: carries the assembly, so that the compiler can fill in the offsets. */
__attribute__((naked, used)) void bt_glue(void)
{
    __asm__ volatile(
        ".globl bt_enter\n .p2align 4\n bt_enter:\n"
        "pushq %%rbx\n pushq %%rbp\n pushq %%r12\n pushq %%r13\n pushq %%r14\n pushq %%r15\n subq $8, %%rsp\n"
        "movq %%rsp, %%gs:%c[host_rsp]\n"
        VECTOR_LOAD
        "movb $0, %%gs:%c[vec_saved]\n"
        "call light_start\n"
        GO_ON
        "bt_leave:\n" VECTOR_SAVE
        "movb $1, %%gs:%c[vec_saved]\n"
        "addq $8, %%rsp\n popq %%r15\n popq %%r14\n popq %%r13\n popq %%r12\n popq %%rbp\n popq %%rbx\n ret\n"

        ".globl bt_unwind\n .p2align 4\n bt_unwind:\n"
        "movq %%gs:%c[host_rsp], %%rsp\n call light_exception\n jmp bt_go_on\n"

        STUB(slow) STUB(link) STUB(jt_miss) STUB(special) STUB(poll) STUB(begin) STUB(end) STUB(window)

        /* The signal handler has stored the registers and set rsp already. */
        ".globl bt_stub_fault\n .p2align 4\n bt_stub_fault:\n"
        "movq %%gs:%c[host_rsp], %%rsp\n movq %%gs:%c[self], %%rdi\n call light_fault\n jmp bt_go_on\n"

        /* u64 heavy_call(c, fn, a, b, c3): saves the vector state around fn(a, b, c3) */
        ".globl heavy_call\n .p2align 4\n heavy_call:\n"
        "cmpb $0, %%gs:%c[vec_saved]\n jne 1f\n"
        "pushq %%rbx\n movq %%rdi, %%rbx\n"
        "movq %%rdx, %%rdi\n movq %%rcx, %%r9\n movq %%rsi, %%r10\n" VECTOR_SAVE
        "movb $1, %%gs:%c[vec_saved]\n"
        "movq %%r9, %%rsi\n movq %%r8, %%rdx\n call *%%r10\n"
        "movq %%rax, %%rbx\n" VECTOR_LOAD
        "movb $0, %%gs:%c[vec_saved]\n movq %%rbx, %%rax\n popq %%rbx\n ret\n"
        "1:\n movq %%rsi, %%rax\n movq %%rdx, %%rdi\n movq %%rcx, %%rsi\n movq %%r8, %%rdx\n jmp *%%rax\n"
        :
        : [gpr] "i"(GPR_FIELD(0)), [s1] "i"(PRIV_FIELD(P_S1)), [target] "i"(PRIV_FIELD(P_TARGET)),
          [host_rsp] "i"(PRIV_FIELD(P_HOST_RSP)), [rflags] "i"(CPU_FIELD(rflags)), [self] "i"(CPU_FIELD(self)),
          [xsave] "i"(CPU_FIELD(xsave)), [xmask] "i"(PRIV_FIELD(P_XSAVE_MASK)), [vec_saved] "i"(CPU_FIELD(vec_saved)));
}

void bt_stub_slow(void), bt_stub_link(void), bt_stub_jt_miss(void), bt_stub_special(void), bt_stub_poll(void),
    bt_stub_begin(void), bt_stub_end(void), bt_stub_fault(void), bt_stub_window(void);

const u64 stub_address[STUBS] = {
    [STUB_SLOW] = (u64)bt_stub_slow,       [STUB_LINK] = (u64)bt_stub_link,   [STUB_JT_MISS] = (u64)bt_stub_jt_miss,
    [STUB_SPECIAL] = (u64)bt_stub_special, [STUB_POLL] = (u64)bt_stub_poll,   [STUB_BEGIN] = (u64)bt_stub_begin,
    [STUB_END] = (u64)bt_stub_end,         [STUB_FAULT] = (u64)bt_stub_fault, [STUB_WINDOW] = (u64)bt_stub_window,
};
