/*
 * Unpacked kernels kept in files between starts: xz alone takes half a second on the host. A file holds the packed
 * payload too, and is used only when that is the same byte for byte, so it can be stale or damaged but never wrong by
 * accident; what it holds is as untrusted as the kernel itself.
 */
#ifndef BOARD_KERNEL_CACHE_H
#define BOARD_KERNEL_CACHE_H

#include "board/blob.h"

/* The kernel unpacked from `payload`, or -ENOENT. The caller closes it. */
int kernel_cache_open(const char *dir, const struct blob *payload, struct blob *ret_vmlinux);
/* Keeps it, replacing what was there, and removes the oldest of more than four files; fails without harm (no space, no permission). */
int kernel_cache_store(const char *dir, const struct blob *payload, const struct blob *vmlinux,
                       struct err *err);

#endif
