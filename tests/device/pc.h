/*
 * A whole board without processors, on a stepped clock: tests play guest, host and time. Two
 * machines in one test are fine.
 */
#ifndef DEVICE_PC_H
#define DEVICE_PC_H

#include "board/parts.h"
#include "unit.h"

#define PC_RAM (32 * MiB)
#define PC_TSC_KHZ 2000000u
#define PC_WALL_S 1000000000ll /* 2001-09-09 01:46:40 UTC when the clock stands at 0 */
#define PC_EVENTS 16

struct pc {
    struct gmem ram;
    struct timerq q; /* of everything: main loop and all processors */
    struct cpu_model model;
    struct board *b;
    struct {
        enum machine_event event;
        int value;
    } events[PC_EVENTS];
    unsigned nevents;
    u32 kicks[MEMMAP_CPUS]; /* collected since pc_take_kicks() */
    struct chardev console;
    u8 out[256]; /* what the guest sent to COM1 */
    size_t nout, room;
    unsigned accepts;
    u8 debug[16];
    unsigned ndebug;
};

void pc_init(struct pc *pc, unsigned cpus);
void pc_fini(struct pc *pc);
void pc_step(struct pc *pc, s64 ns);
u8 pc_inb(struct pc *pc, u16 port);
void pc_outb(struct pc *pc, u16 port, u8 value);
u32 pc_in(struct pc *pc, u16 port, unsigned size);
void pc_out(struct pc *pc, u16 port, unsigned size, u32 value);
u32 pc_take_kicks(struct pc *pc, unsigned cpu);

/* Local APIC of `cpu` in xAPIC mode, by register offset. */
u32 pc_apic_read(struct pc *pc, unsigned cpu, u32 offset);
void pc_apic_write(struct pc *pc, unsigned cpu, u32 offset, u32 value);
u32 pc_ioapic_read(struct pc *pc, u32 index);
void pc_ioapic_write(struct pc *pc, u32 index, u32 value);
/* As Linux leaves them: 8259s masked behind vectors 0x30 and up, local APICs on, TPR 0, logical ids 1 << cpu. */
void pc_enable_apics(struct pc *pc);
void pc_init_pics(struct pc *pc); /* vectors 0x20 and 0x28, all unmasked, LINT0 in ExtINT mode */
bool pc_pending(struct pc *pc, unsigned cpu);
int pc_ack(struct pc *pc, unsigned cpu);
void pc_eoi(struct pc *pc, unsigned cpu);

#endif
