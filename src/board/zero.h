/* Clears guest memory without making the host provide it. */
#ifndef BOARD_ZERO_H
#define BOARD_ZERO_H

#include "mem/gmem.h"

/* 0 or -EFAULT when the range is not all RAM. Whole pages go back to the host. */
int zero_guest(struct gmem *ram, u64 gpa, u64 len);

#endif
