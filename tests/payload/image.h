/* Loading a payload: an ELF file, 32- or 64-bit, with a PVH note that names its 32-bit entry. */
#ifndef PAYLOAD_RUN_IMAGE_H
#define PAYLOAD_RUN_IMAGE_H

#include "mem/gmem.h"

/* Copies the file's segments to their physical addresses; *ret_entry is where to start. */
int image_load(struct gmem *ram, const char *path, u32 *ret_entry, struct err *err);

#endif
