/* Hardware task switches (SDM 3A, chapter 7): by jump, call, task gate and interrupt, and back. 32-bit protected mode. */
#include "payload.h"

#define SEL_TASK (SEL_FREE)
#define SEL_TASK_GATE (SEL_FREE + 0x08)
#define SEL_DF_TASK (SEL_FREE + 0x10)
#define VEC_TASK 0x48

static struct tss task, df_task;
static u8 task_stack[4096] __attribute__((aligned(16))),
    df_stack[4096] __attribute__((aligned(16)));
volatile u32 task_seen, task_flags, task_value, task_cr0, df_seen;

void task_entry(void), df_entry(void);
/* Each time round: note what is seen, return by iret (a nested task's way back). */
asm("task_entry:\n"
    "1:  incl task_seen\n"
    "    mov %ebx, task_value\n"
    "    pushf\n"
    "    pop task_flags\n"
    "    mov %cr0, %eax\n"
    "    mov %eax, task_cr0\n"
    "    add $1, %ebx\n"
    "    clts\n"
    "    iret\n"
    "    jmp 1b\n"
    "df_entry:\n"
    "1:  incl df_seen\n"
    "    add $4, %esp\n" /* the error code */
    "    mov $df_back, %eax\n"
    "    mov %eax, tss + 0x20\n" /* let the interrupted task go on elsewhere */
    "    clts\n"
    "    iret\n"
    "    jmp 1b\n"
    "df_back:\n"
    "    mov trap_resume_sp, %esp\n"
    "    clts\n"
    "    jmp *trap_resume_ip\n");

static void task_init(struct tss *t, u16 sel, void (*entry)(void), u8 *stack)
{
    t->eip = (u32)entry;
    t->eflags = 2;
    t->esp = (u32)stack + 4096 - 16;
    t->cs = SEL_CODE32;
    t->ss = t->ds = t->es = t->fs = t->gs = SEL_DATA;
    t->cr3 = read_cr3();
    t->iomap = sizeof(*t);
    gdt_set(sel, (u32)t, sizeof(*t) - 1, 0x89);
}

static u32 type_of(u16 sel)
{
    return gdt[sel / 8] >> 40 & 0xf;
}

void payload_main(void)
{
    task_init(&task, SEL_TASK, task_entry, task_stack);
    task_init(&df_task, SEL_DF_TASK, df_entry, df_stack);
    task.ebx = 0x100;
    report(type_of(SEL_TSS) == 0xb, "ltr marks the task busy");

    TRY("lcall %0, $0", "i"(SEL_TASK));
    report(trap.vector == VEC_NONE && task_seen == 1, "far call to a TSS and iret back");
    report(task_value == 0x100, "registers come from the TSS");
    report(task_flags & FL_NT, "the new task has NT");
    report(task.link == SEL_TSS, "and a link to the old one");
    report(task_cr0 & CR0_TS, "a switch sets CR0.TS");
    report(task.ebx == 0x101, "its registers are saved when it leaves");
    report(type_of(SEL_TSS) == 0xb && type_of(SEL_TASK) == 0x9, "busy marks are right afterwards");
    report(!(read_flags() & FL_NT), "NT is clear again");
    asm volatile("clts");

    TRY("lcall %0, $0", "i"(SEL_TASK));
    report(trap.vector == VEC_NONE && task_seen == 2 && task_value == 0x101,
           "again: it goes on behind its iret");
    asm volatile("clts");

    gdt[SEL_TASK_GATE / 8] = (u64)0x85 << 40 | (u64)SEL_TASK << 16;
    TRY("lcall %0, $0", "i"(SEL_TASK_GATE));
    report(trap.vector == VEC_NONE && task_seen == 3, "by a task gate");
    asm volatile("clts");

    idt[VEC_TASK] = (struct idt_entry){.sel = SEL_TASK, .type = 0x85};
    TRY("int %0", "i"(VEC_TASK));
    report(trap.vector == VEC_NONE && task_seen == 4, "by an interrupt");
    asm volatile("clts");

    TRY("ljmp %0, $0", "i"(SEL_TSS));
    report_trap(VEC_GP, SEL_TSS, "#GP: jump to a busy task");
    gdt[SEL_TASK / 8] &= ~(1ull << 47);
    TRY("lcall %0, $0", "i"(SEL_TASK));
    report_trap(VEC_NP, SEL_TASK, "#NP: absent TSS");
    gdt[SEL_TASK / 8] |= 1ull << 47;
    gdt_set(SEL_TASK, (u32)&task, 0x50, 0x89);
    TRY("lcall %0, $0", "i"(SEL_TASK));
    report_trap(VEC_TS, SEL_TASK, "#TS: limit too small");

    idt[VEC_DF] = (struct idt_entry){.sel = SEL_DF_TASK, .type = 0x85};
    idt[VEC_UD].type &= ~0x80;
    idt[VEC_NP].type &= ~0x80;
    TRY("ud2");
    report(df_seen == 1, "a double fault through a task gate");
    report(df_task.link == SEL_TSS && tss.eip != 0, "has the failed task's state");
}
