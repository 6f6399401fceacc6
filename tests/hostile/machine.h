/* One processor of the translator in a machine without a board, put into one of several modes. */
#ifndef HOSTILE_MACHINE_H
#define HOSTILE_MACHINE_H

#include "accel/accel.h"

#define MACHINE_CODE 0x20ff0ull /* so that code crosses into the next page */

struct mode {
    const char *name;
    unsigned bits;
    u64 cr0, cr4, efer, rflags;
    u32 code, data; /* attributes of CS and of the others */
    u32 base, limit;
};
extern const struct mode modes[];
extern const unsigned nmodes;

/* Any exception, a write to one of a few ports and a timer end a run. */
int machine_make(struct err *err);
/* Fills memory anew and sets the state; gpr as given, rip at MACHINE_CODE. */
void machine_prepare(const struct mode *mode, const u8 *code, unsigned len,
                     const u64 gpr[X86_GPRS]);
/* The address of two pages of data; around them a hole, a read-only page, a device and the supervisor's page. */
u64 machine_data(const struct mode *mode);
void machine_run(void);

#endif
