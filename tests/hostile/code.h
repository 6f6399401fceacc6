/* Hostile code and registers for it. */
#ifndef HOSTILE_CODE_H
#define HOSTILE_CODE_H

#include "../diff/random.h"
#include "x86/cpu.h"

#define CODE_BYTES 512u

/* Fills code[CODE_BYTES]; `bits` is the code size it is meant for. */
void code_make(struct random *r, unsigned bits, u8 *code);
/* A register: a guest address near `data` or an end of its pages, an address of ours, or any number. */
u64 code_register(struct random *r, u64 data);

#endif
