/* Loading a payload: an ELF file, 32- or 64-bit, with a PVH note that names its 32-bit entry. */
#ifndef PAYLOAD_RUN_IMAGE_H
#define PAYLOAD_RUN_IMAGE_H

#include "mem/gmem.h"
#include "x86/cpu.h"

/* Copies the file's segments to their physical addresses; *ret_entry is where to start. */
int image_load(struct gmem *ram, const char *path, u32 *ret_entry, struct err *err);
/* The state to enter it with: 32-bit protected mode, flat, paging off. Xen's x86/HVM direct boot ABI. */
void image_entry(struct x86_cpu *c, u32 entry);

#endif
